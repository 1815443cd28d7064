// Several results: what is said of each, what was chosen in each compared by pairs, all checkpoints beside each other, and the same example.
{
  const { facts, el, fill, t, label, joined, records, ends, measured, number, interval, claims, visible, fillTable } = core, { state, spell, headline, change } = store;
  const { several } = facts, placeOf = (name) => facts.checkpoints.findIndex((each) => each.name === name);
  const chosen = several.filter(({ setting }) => setting), splitName = (get) => t(`split.${get("split")}`);

  /** One of the results: its claims, and what it chose between base and baselines. */
  const part = ({ name, checkpoint, setting, checkpoints, baselines, verdict, saw_test: seen }, place) => {
    const base = checkpoints.filter((each) => each !== checkpoint && facts.checkpoints[placeOf(each)].base), holder = core.scroller(`own-${place}`, "several");
    if (setting) core.numbersTable(holder.firstChild, state.split, setting, [...base, checkpoint, ...baselines], headline);
    return el("div", { class: "card" }, el("h2", {}, name), state.lang in verdict && claims(verdict[state.lang]),
      setting ? [el("h3", {}, t("several.chosen", { checkpoint, setting: spell(setting) })), holder] : el("p", {}, t("several.unchosen")), seen > 0 && el("p", { class: "note" }, t("several.saw", { n: seen })));
  };

  function pairs(table) {
    const apart = (get) => el("span", {}, number(get("difference")), " ", interval(get("low"), get("high")), Number(get("p_adjusted")) <= 0.05 ? " *" : "");
    fillTable(table, ["metric", "split", "a", "b", "difference", "p"].map((key) => t(`pair.${key}`)), records("paired").map((get) => [label(get("metric")), splitName(get),
      el("span", {}, `${get("a")} `, number(get("value_a"))), el("span", {}, `${get("b")} `, number(get("value_b"))), apart(get), number(get("p_adjusted"))]));
  }

  addView({
    id: "several", tab: "glance", kind: "bare", needs: ["several"],
    title: { en: "Each one by itself", zh: "各自的結論" },
    strings: {
      en: { "several.chosen": "{checkpoint}, {setting}", "several.unchosen": "Nothing was chosen in it: tangeval select chooses.", "several.saw": "It was fine-tuned on {n} test examples.",
        "pair.title": "What each chose, compared", "pair.metric": "Metric", "pair.split": "Examples of", "pair.a": "a", "pair.b": "b", "pair.difference": "a − b, 95 % interval", "pair.p": "p (adjusted)",
        "pair.note": "Paired on the same examples, all rows of a split tested together (max-T); *: real at the 5 % level. A split that chose checkpoint and setting flatters all of them.",
        "pair.none": "Not compared by pairs, since something else was measured (data or examples differ), or nothing was chosen: {names}." },
      zh: { "several.chosen": "{checkpoint}，{setting}", "several.unchosen": "這份結果尚未選擇：請執行 tangeval select。", "several.saw": "曾以 {n} 道測試題微調。",
        "pair.title": "各自所選者的比較", "pair.metric": "指標", "pair.split": "題目來源", "pair.a": "甲", "pair.b": "乙", "pair.difference": "甲 − 乙，95 % 區間", "pair.p": "p（校正後）",
        "pair.note": "在相同題目上成對比較，同一來源的各列一併檢定（max-T）；*：在 5 % 水準下為真。用來選檢查點與設定的題目，對各份結果都偏高。",
        "pair.none": "下列結果未成對比較，因為資料或題目不同，或尚未選擇：{names}。" },
    },
    make: (node) => node.append(el("div", { id: "each" }), el("div", { class: "card", id: "pairs" }, el("h2", { "data-t": "pair.title" }), core.scroller("pairs-table", "pair.title"), el("p", { class: "note", "data-t": "pair.note" }), el("p", { class: "note", id: "unpaired" }))),
    render() {
      const apart = several.filter(({ compared }) => !compared).map(({ name }) => name);
      fill(core.$("each"), several.map(part));
      pairs(core.$("pairs-table"));
      const table = core.$("pairs-table").parentNode;
      table.hidden = table.nextSibling.hidden = apart.length === several.length;
      core.$("unpaired").textContent = apart.length ? visible(t("pair.none", { names: joined(apart) })) : "";
    },
  });

  const rows = () => records("checkpoints").filter((get) => get("split") === state.split);
  const shown = () => headline.filter((metric) => rows().some((get) => get(metric) !== ""));
  addView({
    id: "together", tab: "glance", kind: "picture", panels: "wide", needs: ["several"],
    title: { en: "All checkpoints", zh: "所有檢查點" },
    note: {
      en: "Each averaged over all settings of its own results, with 95 % intervals over examples. Where results have other settings, Explore shows one setting of all.",
      zh: "各對其結果中的所有設定取平均，附以題目為單位的 95 % 區間。若各結果的設定不同，請到「探索」看同一組設定。",
    },
    make: (node) => node.querySelector(".panels").before(core.scroller("together-table", "together")),
    render(picture) {
      const metrics = shown(), name = (get) => get("checkpoint"), open = (get) => facts.baselines.includes(name(get));
      fillTable(core.$("together-table"), [t("metric") && "", ...metrics.map(label)], rows().map((get) => [name(get), ...metrics.map((metric) => measured(ends(get, metric)))]));
      const row = (metric) => (get) => { const [value, low, high] = ends(get, metric);
        return { name: name(get), colour: open(get) ? charts.css("--quiet") : charts.colourOf(placeOf(name(get))), value, low, high, open: open(get) }; };
      const own = (metric) => rows().filter((get) => get(metric) !== "" && (core.metrics[metric].share || !open(get) || name(get).endsWith("random"))).map(row(metric));
      charts.panels(picture, metrics.map((metric) => ({ title: label(metric), word: metric, draw: (box) => charts.dotPanel(box, { rows: own(metric), share: core.metrics[metric].share }) })),
        () => [["metric", "checkpoint", "value", "low", "high"], ...metrics.flatMap((metric) => own(metric).map((each) => [metric, each.name, each.value, each.low, each.high]))]);
    },
  });

  addView({
    id: "same", tab: "glance", needs: ["several", "texts"],
    title: { en: "The same example", zh: "同一題" },
    note: { en: "The first sample by what each chose, at its own setting. Explore has all other texts.", zh: "各自所選的檢查點與設定所寫的第一個樣本。其他文本在「探索」。" },
    make: (node) => node.querySelector(".body").append(el("p", {}, el("select", { id: "same-pick", "data-label": "example", on: { change: (event) => change({ example: event.target.value, sample: "0" }) } })), el("div", { class: "verses" })),
    async render(node) {
      const first = texts.units.flatMap(({ example, sample }, place) => (sample === 0 ? [{ example, place }] : []));
      const here = first.find(({ example }) => example === state.example) ?? first[0];
      fill(core.$("same-pick"), first.map(({ example }) => el("option", { value: example, selected: example === here.example }, texts.examples[example].input)));
      const { nodes } = await texts.versesOf(here.place, chosen.map(({ checkpoint, setting }) => ({ checkpoint: placeOf(checkpoint), setting })));
      fill(node.querySelector(".verses"), nodes);
    },
  });
}
