// One text token by token, as `tangeval explain` stored it: what the model offers, what the knobs leave, what noise picks.
{
  const { facts, $, el, fill, t, knobLabel, joined, visible, unpackText, packedLines, fillTable } = core, { state, change, spellValue, slider, moveTo } = store;
  const LIKELIEST = 20; // tokens of a step that are drawn, whatever is cut
  const packed = packedLines("explained"), opened = new Map(); // folder → the content of its explain.json
  let later = 0;

  /** A share and a number of choices as one reads them. */
  const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : share >= 0.995 && share < 0.99999 ? ">99 %"
    : `${(100 * share).toFixed(share >= 0.0995 ? 0 : 1)} %`);
  const count = (number) => number.toLocaleString("en");
  const choices = (number) => (number >= 9.95 ? count(Math.round(number)) : number.toFixed(1));
  const spellKnob = (knob, number) => spellValue(knob, String(number));

  /** A token as it is shown: blanks made visible. `el` and `fill` escape what cannot be seen. */
  const spelled = (text, id) => text.vocabulary[id].replaceAll(" ", "␣").replaceAll("\n", "⏎");
  const word = (text, id, name = "") => {
    const own = spelled(text, id);
    return el("bdi", { class: `word ${name}`, lang: "zh-Hant", title: own.length > 2 && own }, own); // a long one is cut by the style
  };
  const bar = (...parts) => el("span", { class: "bar" }, parts);

  const open = async (folder) => opened.set(folder, JSON.parse(await unpackText(packed[facts.explained.findIndex((each) => each.folder === folder)])));
  const textNow = () => opened.get(state.explained);
  const stepAt = (text) => Math.min(Math.max(Number(state.step || text.step), 1), text.steps.length);
  /** The place of the setting at hand among those of the file; the text's own is the first. */
  const placeAt = (text) => (Number(state.turned) < text.settings.length ? Number(state.turned) : 0);
  const walk = (by) => change({ step: String(Math.min(Math.max(stepAt(textNow()) + by, 1), textNow().steps.length)) });
  /** The stages of a step at a setting: the model's own, then after each knob. */
  const stagesOf = (text, step, place) => text.settings[place].stages.map((stage) => step.stages[stage]);

  /** Sliders that turn one knob from the text's own setting: the file has what each of these settings gives. */
  const drawSliders = (text, place) => {
    const now = text.settings[place].knobs, turn = (settings) => (stop) => change({ turned: String(settings[stop]) });
    if ($("turn").dataset.of !== state.explained) // else the one that is being dragged stays
      fill($("turn"), text.knobs.map(({ name, settings }) => slider(`turn-${name}`, name, settings.length - 1, turn(settings))));
    $("turn").dataset.of = state.explained;
    text.knobs.forEach(({ name, settings }, order) =>
      moveTo($("turn").children[order], settings.findIndex((each) => text.settings[each].knobs[name] === now[name]), spellKnob(name, now[name])));
    const own = text.knobs.map(({ name }) => `${knobLabel(name)} ${spellKnob(name, text.settings[0].knobs[name])}`);
    $("own-setting").textContent = t("explain.own", { setting: joined(own) });
    const title = (each) => joined([each.input, each.example, each.checkpoint, ...(each.follows === "reference" ? [t("poet")] : [])]);
    fill($("explained-pick"), facts.explained.map((each) => el("option", { value: each.folder, selected: each.folder === state.explained }, title(each))));
    $("explained-pick").selectedIndex = facts.explained.findIndex((each) => each.folder === state.explained); // an attribute's text is escaped
  };

  /** The text as towers: the model's effective choices, and in them what the knobs leave; under a tower what noise picks instead. */
  const drawWalk = (text, place, at) => {
    const tallest = Math.max(...text.steps.map((step) => step.stages[0].entropy)), clauses = [[]];
    text.steps.forEach((step, number) => {
      clauses.at(-1).push(tower(text, step, place, number + 1, at, tallest));
      if (/\p{P}$/u.test(text.vocabulary[step.token])) clauses.push([]);
    });
    const whole = clauses.filter((clause) => clause.length);
    if (whole.length > 1 && whole.at(-1).length === 1) whole.at(-2).push(...whole.pop()); // the end stays with its clause
    fill($("walk"), whole.map((clause) => el("span", { class: "steps" }, clause)));
    const { checkpoint, sample, follows, example_id: example, input } = text;
    $("whose").textContent = visible(t(`explain.whose.${follows}`, { checkpoint: checkpoint.name, sample: sample + 1, example, input }));
    $("step-before").disabled = at === 1;
    $("step-next").disabled = at === text.steps.length;
  };
  const tower = (text, step, place, number, at, tallest) => {
    const stages = stagesOf(text, step, place), [before, after] = [stages[0], stages.at(-1)], pick = step.picks[place].id, other = pick !== step.token;
    const high = (stage) => `height:${((100 * stage.entropy) / (tallest || 1)).toFixed(2)}%`;
    const said = [t("explain.tower", { n: number, token: spelled(text, step.token), before: choices(before.choices), after: choices(after.choices) }),
      ...(other ? [t("explain.pick.other", { token: spelled(text, pick) })] : [])].join(t("stop"));
    return el("button", { type: "button", id: `walk-${number}`, class: `tower ${other ? "other" : ""}`, tabindex: number === at ? 0 : -1, title: said,
      "aria-label": said, "aria-current": number === at && "step", on: { click: () => change({ step: String(number) }) } },
    el("span", { class: "bars" }, el("i", { class: "was", style: high(before) }), el("i", { class: "now", style: high(after) })),
    word(text, step.token), el("span", { class: "instead" }, other ? word(text, pick) : "\u00a0"));
  };

  const drawStages = (text, place, step, at) => {
    const stages = stagesOf(text, step, place), knobs = text.settings[place].knobs, pick = step.picks[place].id;
    // The likeliest, the edges of the cuts, what noise picks and what the text has.
    const edges = stages.slice(text.knobs.findIndex(({ name }) => core.knobs[name].kind === "scale") + 2).flatMap(({ kept }) => [kept - 1, kept]);
    const drawn = [...step.candidates.keys()].filter((i) => i < LIKELIEST || edges.includes(step.candidates[i].rank) || [pick, step.token].includes(step.candidates[i].id));
    const largest = Math.max(...stages.flatMap(({ p }) => drawn.map((i) => p[i])));
    const so = text.steps.slice(0, at - 1).map((each) => text.vocabulary[each.token]).join("").trim();
    fill($("so-far"), el("span", { class: "verse", lang: facts.verse ? "zh-Hant" : null, dir: facts.verse ? null : "auto" }, text.input, !facts.verse && el("br"), so, el("span", { class: "blank" }, "＿")));
    fill($("stages"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("b", {}, t("explain.token"))), stages.map((stage, order) => stageHead(stage, text.knobs[order - 1]?.name, knobs)),
      el("th", { scope: "col", class: "score" }, el("b", {}, t("explain.score")), el("small", {}, t("explain.score.say"))))),
    el("tbody", {}, drawn.map((i) => tokenRow(text, step, stages, i, pick, largest)), otherRow(stages, drawn)));
    const sign = (name, text) => el("span", {}, bar(el("i", { class: name })), text);
    fill($("stages-keys"), sign("now", t("explain.now")), sign("was", t("explain.was")), sign("gone", t("explain.gone")), sign("now mine", t("explain.mine")), el("span", {}, t("explain.scale")));
    fill($("drawn"), sayPick(text, step, stages, pick, knobs.temperature > 0));
    clearTimeout(later);
    later = setTimeout(() => { $("drawn-live").textContent = $("drawn").textContent; }, 400);
  };
  const stageHead = ({ kept, mass, entropy, choices: open }, knob, knobs) => {
    const name = knob ? `→ ${knobLabel(knob)} ${spellKnob(knob, knobs[knob])}` : t("explain.model"), wide = (share) => `width:${(100 * share).toFixed(2)}%`;
    return el("th", { scope: "col" }, el("b", {}, name), el("small", { class: "kept" }, t(kept === 1 ? "explain.kept.one" : "explain.kept", { n: count(kept) })),
      el("small", { class: "mass" }, t("explain.mass", { share: percent(mass) })), el("small", { class: "nats" }, t("explain.nats", { nats: entropy.toFixed(2) })),
      el("small", { class: "choices" }, t("explain.entropy", { n: choices(open) })),
      el("span", { class: "strip", "aria-hidden": "true" }, el("i", { class: "now", style: wide(mass) }), el("i", { class: "gone", style: wide(1 - mass) })));
  };
  const tokenRow = (text, step, stages, i, pick, largest) => {
    const { id, rank, logit, noise } = step.candidates[i], score = stages.find((each) => each.score.length)?.score[i];
    const cell = ({ p }, order) => {
      const now = p[i], before = stages[order - 1]?.p[i], wide = (share) => `width:${((100 * share) / largest).toFixed(2)}%`;
      if (!now && !before) return el("td");
      if (!now) return el("td", {}, bar(el("i", { class: "gone", style: wide(before) })), el("span", { class: "p" }, rank < 0 ? t("explain.repeats") : "×", el("span", { class: "sr" }, t("explain.gone"))));
      return el("td", {}, bar(el("i", { class: "now", style: wide(now) }), before === undefined ? null : el("i", { class: "was", style: wide(before) })), el("span", { class: "p" }, percent(now)));
    };
    return el("tr", { "data-id": id, class: `${id === pick ? "mine" : ""} ${rank < 0 ? "barred" : ""}` },
      el("th", { scope: "row" }, el("small", {}, rank < 0 ? "–" : count(rank + 1)), word(text, id)), stages.map(cell),
      el("td", { class: "score", title: `${logit}, ${noise}` }, stages.at(-1).p[i] > 0 && score !== undefined ? score.toFixed(2) : ""));
  };
  /** What the tokens that are not drawn hold together. */
  const otherRow = (stages, drawn) => {
    const number = stages[0].kept - drawn.length, held = ({ p }) => Math.max(0, 1 - drawn.reduce((sum, i) => sum + p[i], 0));
    const some = (stage) => stage.kept > drawn.filter((i) => stage.p[i] > 0).length;
    return number > 0 && el("tr", { class: "others" }, el("th", { scope: "row" }, t("explain.others", { n: count(number) })),
      stages.map((stage) => el("td", {}, some(stage) ? percent(held(stage)) : "")), el("td", { class: "score" }));
  };
  const sayPick = (text, step, stages, pick, drawn) => {
    const i = step.candidates.findIndex(({ id }) => id === pick), p = (stage) => percent(stage.p[i]);
    const how = t("explain.pick.how", { rank: count(step.candidates[i].rank + 1), before: p(stages[0]), after: p(stages.at(-1)) });
    return [t(drawn ? "explain.pick" : "explain.pick.greedy"), " ", word(text, pick, "mine"), t("colon"), how,
      pick === step.token ? [] : [t("stop"), t(`explain.text.${text.follows}`), " ", word(text, step.token)]];
  };

  /** One knob turned from the text's own setting: what stays here, what the same noise picks, and what that setting writes by itself. */
  const drawNoises = (text, place, step) => {
    const rows = text.knobs.filter(({ settings }) => settings.length > 1).flatMap(({ name, settings }) => settings.map((own) => ({ name, own })));
    const cells = ({ name, own }) => {
      const setting = text.settings[own], { id } = step.picks[own], { kept, choices: open } = stagesOf(text, step, own).at(-1);
      return [el("button", { type: "button", id: `noise-${name}-${own}`, on: { click: () => change({ turned: String(own) }) } }, `${knobLabel(name)} ${spellKnob(name, setting.knobs[name])}`),
        count(kept), choices(open), word(text, id, id === step.token ? "" : "mine"), parted(text.settings[0].text, setting.text)];
    };
    fillTable($("noises"), ["setting", "stays", "choices", "picks", "writes"].map((name) => t(`explain.${name}`)), rows.map(cells),
      (at) => ({ "data-setting": rows[at].own, class: rows[at].own === place ? "here" : "" }));
  };
  /** A text, with a box where it parts from `own`. */
  const parted = (own, text) => {
    const place = texts.partOf(own, text), all = Array.from(text);
    const parts = place < 0 ? [text] : [all.slice(0, place).join(""), el("span", { class: "part" }, all[place] ?? "▢"), all.slice(place + 1).join("")];
    return el("span", { class: "writes", lang: "zh-Hant" }, parts);
  };

  /** Redraw; what had the keyboard has it again. */
  const keepingFocus = (redraw) => {
    const { id } = document.activeElement;
    redraw();
    if (id && document.activeElement.id !== id) $(id)?.focus({ preventScroll: true });
  };
  const pair = el("span", { class: "pair" }, el("button", { type: "button", id: "step-before", "data-label": "explain.before", on: { click: () => walk(-1) } }, "‹"),
    el("button", { type: "button", id: "step-next", "data-t": "explain.next", on: { click: () => walk(1) } }));
  const onKey = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!by) return;
    event.preventDefault();
    walk(by);
    $(`walk-${stepAt(textNow())}`).focus();
  };

  addView({
    id: "turns", tab: "explain", place: "aside", needs: ["explained"],
    title: { en: "Knobs ", zh: "旋鈕 " },
    strings: {
      en: { "explain.more": "Text and setting", "explain.own": "Back to the text's own: {setting}", "explain.alone": "A slider turns one knob from the text's own setting, over the study's values." },
      zh: { "explain.more": "文本與設定", "explain.own": "回到此文原本的設定：{setting}", "explain.alone": "滑桿由此文原本的設定轉動一個旋鈕，停在研究的各個值上。" },
    },
    state: () => ({
      explained: { first: facts.explained[0].folder, allows: (text) => facts.explained.some(({ folder }) => folder === text) },
      step: { first: "", allows: (text) => /^\d{0,5}$/.test(text) }, // "" is the file's own
      turned: { first: "0", allows: (text) => /^\d{1,4}$/.test(text) },
    }),
    make: (node) => node.querySelector(".body").append(el("div", { id: "turn" }), el("details", { open: true }, el("summary", { "data-t": "explain.more" }),
      el("label", { class: "field" }, el("span", { "data-t": "example" }), el("select", { id: "explained-pick", on: { change: (event) => change({ explained: event.target.value, step: "", turned: "0" }) } })),
      el("button", { type: "button", id: "own-setting", on: { click: () => change({ turned: "0" }) } }), el("p", { class: "note", "data-t": "explain.alone" }))),
    render() {},
  });

  addView({
    id: "explain", tab: "explain", kind: "bare", needs: ["explained"],
    title: { en: "What the knobs do to one token", zh: "旋鈕對一個字做了什麼" },
    strings: {
      en: {
        "explain.poem": "Along the text", "explain.before": "Token before", "explain.next": "Next token ›", "explain.walk": "Tokens of the text",
        "explain.walk.note": "Towers: how many choices the model has in effect, and filled, how many the knobs leave; heights are entropies. Click a token, or use the arrow keys. Below a token stands what the same noise picks at this setting instead, after the same beginning.",
        "explain.whose.setting": "{checkpoint} after {input} ({example}, sample {sample})", "explain.whose.reference": "The reference of {input} ({example}) as {checkpoint} sees it; noise of sample {sample}",
        "explain.tower": "{n}: {token}, choices {before} → {after}", "explain.stages": "The next token, stage by stage", "explain.token": "Token", "explain.model": "the model",
        "explain.kept": "{n} tokens", "explain.kept.one": "1 token", "explain.mass": "{share} kept", "explain.nats": "{nats} nats", "explain.entropy": "≈ {n} choices",
        "explain.score": "+ noise", "explain.score.say": "logit ÷ temperature + noise; the largest wins", "explain.others": "{n} others", "explain.repeats": "× forbidden",
        "explain.now": "probability", "explain.was": "before this knob", "explain.gone": "removed", "explain.mine": "picked by noise", "explain.scale": "one scale for all",
        "explain.pick": "Noise picks", "explain.pick.greedy": "Temperature 0 uses no noise and takes the likeliest,", "explain.pick.how": "number {rank} of the model's, {before} there and {after} now",
        "explain.pick.other": "noise picks {token}", "explain.text.setting": "The text has", "explain.text.reference": "The reference has",
        "explain.noise": "Same noise, other settings", "explain.noise.note": "One knob turned from the text's own setting; click to go there. Picks are after the same beginning; a setting's own text has a box where it parts from what the text's own setting writes.",
        "explain.setting": "Setting", "explain.stays": "Tokens that stay", "explain.choices": "Choices", "explain.picks": "Picks here", "explain.writes": "Writes by itself",
      },
      zh: {
        "explain.poem": "沿著這篇文本", "explain.before": "前一字", "explain.next": "下一字 ›", "explain.walk": "文中各字",
        "explain.walk.note": "高塔為模型實際的選擇數，填色部分為旋鈕留下的選擇數；高度是熵。點選一字，或用方向鍵移動。字下所列，是前文不變時同樣的雜訊在此設定下改選的字。",
        "explain.whose.setting": "{checkpoint} 續「{input}」（{example}，樣本 {sample}）", "explain.whose.reference": "{checkpoint} 眼中「{input}」（{example}）的原作；雜訊為樣本 {sample}",
        "explain.tower": "第 {n} 步：{token}，選擇數 {before} → {after}", "explain.stages": "下一個詞元，逐關來看", "explain.token": "詞元", "explain.model": "模型",
        "explain.kept": "{n} 個詞元", "explain.kept.one": "1 個詞元", "explain.mass": "留下 {share}", "explain.nats": "{nats} nats", "explain.entropy": "≈ {n} 種選擇",
        "explain.score": "＋雜訊", "explain.score.say": "logit ÷ 溫度 + 雜訊，最大者勝", "explain.others": "其他 {n} 個", "explain.repeats": "× 禁用",
        "explain.now": "機率", "explain.was": "轉此旋鈕之前", "explain.gone": "已移除", "explain.mine": "雜訊選中", "explain.scale": "各欄同一尺度",
        "explain.pick": "雜訊選中", "explain.pick.greedy": "溫度 0 不用雜訊，取最可能者", "explain.pick.how": "在模型中排第 {rank}，原為 {before}，現為 {after}",
        "explain.pick.other": "雜訊改選 {token}", "explain.text.setting": "文本中是", "explain.text.reference": "原作用的是",
        "explain.noise": "同樣的雜訊，不同的設定", "explain.noise.note": "由此文原本的設定轉動一個旋鈕；點選即前往。所選之字以相同前文為準；各設定自己寫成的文字，方框為與此文原本設定所寫分歧之處。",
        "explain.setting": "設定", "explain.stays": "留下的詞元", "explain.choices": "選擇數", "explain.picks": "此處所選", "explain.writes": "自己寫成",
      },
    },
    make: (node) => node.append(
      el("div", { class: "card" }, el("div", { class: "row" }, el("h2", { "data-t": "explain.poem" }), pair), el("p", { class: "note", id: "whose" }),
        el("div", { id: "walk", role: "group", "data-label": "explain.walk", on: { keydown: onKey } }), el("p", { class: "note", "data-t": "explain.walk.note" })),
      el("div", { class: "card" }, el("h2", { id: "so-far" }), el("p", { id: "drawn", class: "said" }), core.scroller("stages", "explain.stages"),
        el("p", { class: "note keys", id: "stages-keys" }), el("p", { class: "sr", id: "drawn-live", "aria-live": "polite" })),
      el("div", { class: "card" }, el("h2", { "data-t": "explain.noise" }), core.scroller("noises", "explain.noise"), el("p", { class: "note", "data-t": "explain.noise.note" }))),
    ahead: () => open(state.explained), // paper waits for nothing
    async render() {
      const folder = state.explained;
      if (!opened.has(folder)) await open(folder);
      if (state.explained !== folder || (state.tab !== "explain" && !document.documentElement.dataset.print)) return; // the reader has moved on
      const text = opened.get(folder), place = placeAt(text), at = stepAt(text), step = text.steps[at - 1];
      keepingFocus(() => {
        drawSliders(text, place);
        drawWalk(text, place, at);
        drawStages(text, place, step, at);
        drawNoises(text, place, step);
      });
    },
  });
}
