// The texts of the sliders' setting beside the reference, marked character by character, and found by what broke.
{
  const { facts, $, el, fill, t, visible } = core, { state, change, settingNow, placeOf, spell, isCheckpoint, keyOf, chosen, menu, tickBox } = store;
  const { units, examples, flaws, flawsOf, flawLabel, has, spelt } = texts;
  const count = (bits) => spelt(bits).length;
  let turn = 0;

  /** What stands beside: checkpoint and setting, or nothing. */
  const beside = () => {
    if (state.b === "") return null;
    if (state.b !== "pin") return { checkpoint: Number(state.b), setting: settingNow() };
    const [checkpoint, ...values] = state.pin.split("~");
    return state.pin ? { checkpoint: Number(checkpoint), setting: Object.fromEntries(facts.knobs.map(({ name }, place) => [name, values[place]])) } : null;
  };
  const isPin = (text) => text === "" || (isCheckpoint(text.split("~")[0]) && facts.settings.some((setting) => keyOf(setting) === text.slice(text.indexOf("~") + 1)));

  /** The units of the split at hand, as the filter orders or thins them; `first` has the worst first. */
  const listed = () => {
    const setting = settingNow(), all = units.map((unit, place) => ({ ...unit, place, bits: flawsOf(Number(state.a), setting, place) }));
    const own = all.filter((unit) => examples[unit.example].split === state.split);
    const kept = flaws.includes(state.flaw) ? own.filter((unit) => unit.bits & has(state.flaw)) : own;
    return { own, kept: state.flaw === "first" ? kept.toSorted((one, other) => count(other.bits) - count(one.bits)) : kept };
  };

  const go = (what, by) => {
    const { kept } = listed(), sample = Number(state.sample), all = [...new Set(kept.map((unit) => unit.example))];
    const samples = kept.filter((unit) => unit.example === state.example).map((unit) => unit.sample).sort((a, b) => a - b);
    const step = (list, now) => list[(list.indexOf(now) + by + list.length) % list.length] ?? list[0];
    if (!kept.length) return;
    if (what === "sample" && samples.length) return change({ sample: String(step(samples, sample)) });
    const example = step(all, state.example), there = kept.filter((unit) => unit.example === example).map((unit) => unit.sample);
    change({ example, sample: String(there.includes(sample) ? sample : there[0]) });
  };

  const drawFilter = ({ own, kept }) => {
    const among = (key) => (key === "all" ? own : own.filter(({ bits }) => (key === "first" ? bits : bits & has(key))));
    for (const box of document.querySelectorAll("[data-radio=flaw] input")) box.nextSibling.lastChild.textContent = ` ${among(box.value).length}`;
    const found = Map.groupBy(kept, (unit) => unit.example);
    if (!found.has(state.example) && own.some((unit) => unit.example === state.example)) found.set(state.example, []);
    fill($("pick"), [...found].map(([id, its]) => {
      const flawed = its.filter(({ bits }) => bits).length;
      return el("option", { value: id, selected: id === state.example }, `${examples[id].input}${flawed ? `  ✗ ${flawed}/${its.length}` : ""}`);
    }));
  };

  const legend = () => {
    const sign = (name, text) => [el("span", { class: `verse key ${name}`, lang: "zh-Hant" }, "字"), ` ${text}  `];
    return {
      none: [], equal: sign("equal", t("mark.equal.say")),
      copied: [sign("copied", t("mark.copied.say", { n: facts.least_run })), sign("copied longest", t("mark.longest.say"))],
      rhyme: [sign("rhymes", t("mark.rhymes.say")), sign("apart", t("mark.apart.say"))],
      tone: [sign("tone level", t("mark.level.say")), sign("tone oblique", t("mark.oblique.say")), sign("tone both", t("mark.both.say"))],
    }[state.mark].concat(beside() ? sign("part", t("mark.part.say")) : []).flat();
  };

  const chips = (key) => el("fieldset", { class: "chips", "data-radio": key }, el("legend", { "data-t": store.fields[key].label }));
  const pair = (what) => {
    const button = (by, more, text) => el("button", { type: "button", "data-go": `${what},${by}`, on: { click: () => go(what, by) }, ...more }, text);
    return el("span", { class: "pair" }, button(-1, { "data-label": `${what}.before` }, "‹"), button(1, { "data-t": `${what}.next` }));
  };

  addView({
    id: "poems", tab: "explore", needs: ["summary"],
    title: { en: "Texts", zh: "文本" },
    strings: {
      en: {
        vertical: "vertical 直書", "ending.of": "Text by", "beside.it": "Beside it", "nothing.beside": "nothing", pinned: "pinned", pin: "Pin this setting beside",
        broke: "What broke", "flaw.first": "failures first", "flaw.all": "in order",
        "example.before": "Example before", "example.next": "Next example ›", "sample.before": "Sample before", "sample.next": "Next sample ›", "sample.n": "Sample {n} of {of}",
        mark: "Mark", "mark.none": "nothing", "mark.equal": "equal to the reference", "mark.copied": "copied from training", "mark.rhyme": "rhymes", "mark.tone": "tones 平仄",
        "mark.equal.say": "the reference has the same character at this place", "mark.copied.say": "part of a run of {n} or more characters that stands in a training text", "mark.longest.say": "the longest such run",
        "mark.rhymes.say": "rhymes with the other endings", "mark.apart.say": "should rhyme, and does not", "mark.level.say": "平 level", "mark.oblique.say": "仄 oblique", "mark.both.say": "either", "mark.part.say": "where the two part",
        end: "the end", part: "Same noise; they part at character {n}: {one} / {other}.", "same.text": "Same noise, and the same text.",
        "part.apart": "They part at character {n}: {one} / {other}. A server drew them, each under noise of its own.", "same.text.apart": "The same text, though a server drew each under noise of its own.",
        "texts.none.here": "No text of this split fitted on the page.",
      },
      zh: {
        vertical: "直書", "ending.of": "續寫者", "beside.it": "並列", "nothing.beside": "無", pinned: "釘住的設定", pin: "釘住此設定並列",
        broke: "哪裡壞了", "flaw.first": "失誤在前", "flaw.all": "依原順序",
        "example.before": "上一題", "example.next": "下一題 ›", "sample.before": "上一個樣本", "sample.next": "下一個樣本 ›", "sample.n": "樣本 {n}／{of}",
        mark: "標記", "mark.none": "不標", "mark.equal": "與原作同字", "mark.copied": "抄自訓練文本", "mark.rhyme": "韻腳", "mark.tone": "平仄",
        "mark.equal.say": "原作在此位用同一字", "mark.copied.say": "與某篇訓練文本連續 {n} 字以上相同", "mark.longest.say": "其中最長者",
        "mark.rhymes.say": "與其他韻腳相押", "mark.apart.say": "應押而未押", "mark.level.say": "平", "mark.oblique.say": "仄", "mark.both.say": "平仄兩讀", "mark.part.say": "兩者分歧之處",
        end: "結尾", part: "雜訊相同；第 {n} 字分歧：{one}／{other}。", "same.text": "雜訊相同，文字也相同。",
        "part.apart": "第 {n} 字分歧：{one}／{other}。由伺服器抽樣，雜訊各自不同。", "same.text.apart": "文字相同，雖由伺服器各自抽樣，雜訊不同。",
        "texts.none.here": "這部分的文本因篇幅未能收入。",
      },
    },
    state: () => ({
      b: { first: facts.several.length ? String(Math.max(facts.checkpoints.findIndex(({ name }) => name === facts.several[1].checkpoint), 0)) : facts.checkpoints[0].base && chosen.checkpoint > 0 ? "0" : "", label: "beside.it",
        options: () => [["", t("nothing.beside")], ...facts.checkpoints.map(({ name }, place) => [String(place), name]), ["pin", t("pinned")]] },
      pin: { first: "", allows: isPin },
      example: { first: (facts.examples.find(({ split }) => split === "test") ?? facts.examples[0]).id, allows: (text) => Object.hasOwn(examples, text) },
      sample: { first: "0", allows: (text) => /^\d{1,4}$/.test(text) },
      mark: { first: texts.marks.includes("equal") ? "equal" : "none", label: "mark", options: () => texts.marks.map((name) => [name, t(`mark.${name}`)]) },
      flaw: { first: "first", label: "broke", options: () => [["first", t("flaw.first")], ["all", t("flaw.all")], ...flaws.map((name) => [name, flawLabel(name)])] },
      up: { first: false, label: "vertical" },
    }),
    make: (node) => node.querySelector(".body").append(el("p", { class: "note", id: "share" }), el("div", { id: "with-texts" },
      el("div", { class: "row fields" }, menu("a"), menu("b"),
        el("button", { type: "button", id: "pin", "data-t": "pin", on: { click: () => change({ b: "pin", pin: `${state.a}~${keyOf(settingNow())}` }) } }),
        el("label", { class: "field grow" }, el("span", { "data-t": "example" }), el("select", { id: "pick", on: { change: (event) => change({ example: event.target.value, sample: "0" }) } })),
        pair("example"), pair("sample"), tickBox("up")),
      chips("flaw"), chips("mark"), el("p", { class: "note", id: "legend" }), el("p", { id: "part" }), el("div", { class: "verses", id: "verses" }))),
    ahead() { return this.render(); }, // what is not open is printed too, and printing does not wait
    async render() {
      const setting = settingNow();
      $("share").textContent = texts.share();
      $("with-texts").hidden = !units.length;
      if (!units.length) return;
      const list = listed(), mine = list.own.filter((unit) => unit.example === state.example);
      if (!mine.length) {
        if (list.own.length) {
          change({ example: (list.kept[0] ?? list.own[0]).example, sample: "0" });
          return this.render();
        }
        return fill($("verses"), el("p", {}, t("texts.none.here")));
      }
      const unit = mine.find((each) => each.sample === Number(state.sample)) ?? mine[0];
      drawFilter(list);
      fill($("legend"), legend());
      const sides = [{ checkpoint: Number(state.a), setting }, beside()].filter(Boolean);
      if (sides.some((side) => placeOf(side.setting) === undefined)) return fill($("verses"), el("p", {}, t("no.setting")));
      const own = (turn += 1), { nodes, texts: written, part } = await texts.versesOf(unit.place, sides);
      if (turn !== own) return; // the reader has moved on
      if (state.b === "pin" && sides[1]) nodes[2].querySelector(".about").append(el("br"), `${t("pinned")}${t("colon")}${spell(sides[1].setting)}`);
      fill($("verses"), nodes);
      $("verses").classList.toggle("upright", state.up);
      const { samples } = facts.splits.find(({ name }) => name === state.split), at = (text) => visible(Array.from(text)[part] ?? t("end"));
      const key = `${part < 0 ? "same.text" : "part"}${facts.run.noise_shared ? "" : ".apart"}`, where = { n: part + 1, one: at(written[0]), other: at(written[1] ?? "") };
      $("part").textContent = `${t("sample.n", { n: unit.sample + 1, of: samples })}${t("stop")}${written.length < 2 ? "" : t(key, where)}`;
    },
  });
}
