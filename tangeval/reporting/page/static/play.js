// play.js: a live page over a server on this machine: texts side by side, a token taken apart or forced, alternatives, blind votes.
const texts = { ready: async () => {} }, charts = { addSaving() {}, drawAll() {} }; // of main.js's start: no text is packed, no chart drawn
(() => {
  const { $, facts, el, fill, t, knobLabel, joined, visible } = core, { state, change } = store;
  const NEEDS_VALUE = ["scale", "length"], verse = { class: "verse", lang: facts.verse ? "zh-Hant" : null, dir: facts.verse ? null : "auto" };
  const panels = new Map(); // checkpoint → its samples: {text, tokens, finish}; `forced` has what a text is begun with
  const forced = new Map(), keyOf = (checkpoint, sample) => JSON.stringify([checkpoint, sample]);
  let running = new AbortController(), later = 0, opened = null, pair = null; // `opened`: the text that is taken apart

  async function ask(path, content, signal) {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json", "Accept-Language": state.lang }, body: JSON.stringify(content), signal });
    if (answer.ok) return answer;
    throw new Error((await answer.json()).error);
  }
  /** Read an answer of a JSON object a line, as the lines come; while another request is at work the first says so. */
  async function lines(path, content, each, signal) {
    const reader = (await ask(path, content, signal)).body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "", { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
      const whole = (rest + value).split("\n");
      rest = whole.pop();
      whole.map(JSON.parse.bind(null)).forEach((line) => { $("play-waits").hidden = !line.waits; if (!line.waits) each(line); });
    }
  }
  async function asked(path, content) {
    let last;
    await lines(path, content, (line) => { last = line; });
    if (last.error) throw new Error(last.error);
    return last;
  }
  const failed = (error) => { if (error.name !== "AbortError") $("play-error").textContent = visible(error.message); };
  const trying = async (what) => { $("play-error").textContent = ""; try { await what(); } catch (error) { failed(error); } };

  // What is asked for.
  const ticked = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map((box) => box.value);
  const knobsNow = () => Object.fromEntries(facts.knobs.map((knob) => [knob, $(`knob-${knob.name}`).value]).filter(([knob, text]) => text !== "" || !NEEDS_VALUE.includes(knob.kind))
    .map(([knob, text]) => [knob.name, text === "" ? knob.off : knob.choices ? text : Number(text)]));
  const askNow = (more) => ({ checkpoints: ticked("writer"), example: $("own").value ? "" : $("example").value, couplet: $("own").value, knobs: knobsNow(), samples: Math.max(1, Math.floor(Math.min(16, $("samples").value))) || 1, ...more });
  const askOne = (checkpoint, sample, begun = forced.get(keyOf(checkpoint, sample)) ?? []) => askNow({ checkpoints: [checkpoint], sample, samples: 1, forced: begun });

  const knobField = (knob) => {
    const known = { id: `knob-${knob.name}`, on: { change: writeSoon } };
    const input = knob.choices ? el("select", known, knob.choices.map((each) => el("option", { value: each, selected: each === knob.now }, each)))
      : el("input", { ...known, type: "number", min: knob.low, max: knob.high, step: knob.whole ? 1 : "any", inputmode: "decimal",
        placeholder: NEEDS_VALUE.includes(knob.kind) ? knob.now : t("off"), value: knob.now === knob.off && !NEEDS_VALUE.includes(knob.kind) ? "" : knob.now });
    return el("label", { class: "field" }, el("span", {}, el("span", { "data-t": `knob.${knob.name}` }, knobLabel(knob.name)), core.help(knob.name)), input);
  };
  const tick = (name, value, checked, on = {}) => el("label", {}, el("input", { type: "checkbox", name, value, checked, on }), " ", value);
  /** A text with its lines. */
  const lined = (text) => text.split("\n").flatMap((line, place) => (place ? [el("br"), line] : [line]));
  /** A token as it is shown: what writes nothing that one sees is made visible. */
  const shown = (word) => (word === "" ? "⏎" : word.trim() ? word : word.replaceAll(" ", "␣").replaceAll("\n", "↵"));
  const button = (id, key, click, more = "") => el("button", { type: "button", id, class: more, "data-t": key, on: { click } });

  // Texts side by side.
  const writeSoon = () => { clearTimeout(later); later = setTimeout(writeAll, 150); };
  async function writeAll() {
    clearTimeout(later);
    running.abort();
    running = new AbortController();
    const content = askNow(), { signal } = running;
    forced.clear();
    panels.clear();
    content.checkpoints.forEach((name) => panels.set(name, { samples: Array(content.samples).fill({ text: "" }) }));
    closeApart();
    fill($("panels"), content.checkpoints.map((name) => el("article", { class: "strophe", "data-checkpoint": name }, el("h3", {}, name), el("div", {}))));
    await trying(() => lines("write", content, take, signal));
    if ($("play-error").textContent) fill($("panels"));
  }
  /** A line of the answer: texts as they grow, texts that are done, or an error. */
  function take({ checkpoint, texts: growing, done, error }) {
    if (!checkpoint) throw new Error(error);
    const panel = panels.get(checkpoint);
    if (growing) growing.forEach((text, place) => { panel.samples[place] = { text }; });
    if (done) done.forEach((sample, place) => { panel.samples[place] = sample; });
    panel.error = error;
    drawPanel(checkpoint);
  }
  function drawPanel(name) {
    const { samples, error } = panels.get(name), node = document.querySelector(`[data-checkpoint="${CSS.escape(name)}"] > div`);
    fill(node, error ? el("p", { class: "bad" }, error) : samples.map((sample, place) => sample.tokens ? textOf(name, sample) : el("p", { ...verse, "data-sample": place }, lined(sample.text || "…"))));
  }
  /** A text that is done, a button a token; a box where it parts from the first checkpoint's by the same noise. */
  function textOf(name, { sample, text, tokens, finish }) {
    const first = panels.values().next().value.samples[sample]?.tokens, key = keyOf(name, sample), begun = forced.get(key)?.length ?? 0;
    const parts = first && first !== tokens ? tokens.findIndex(([id], place) => id !== first[place]?.[0]) : -1;
    const token = ([, word], place) => el("button", { type: "button", class: `char ${place === begun - 1 ? "mine" : ""} ${place === parts ? "part" : ""}`, "aria-label": t("play.apart", { word: word || t("play.end") }),
      on: { click: () => takeApart(name, sample, place) } }, shown(word));
    const broken = (each, place) => [token(each, place), each[1].includes("\n") && el("br")];
    return el("div", {}, el("p", { ...verse, "data-text": text }, tokens.flatMap(broken)), finish === "length" && el("p", { class: "note" }, t("play.cut")),
      begun > 0 && el("p", { class: "note" }, t("play.forced", { word: tokens[begun - 1][1] }), " ", el("button", { type: "button", on: { click: () => force(name, sample, []) } }, t("play.undo"))));
  }
  /** Write one text anew from tokens that it is to begin with. */
  async function force(checkpoint, sample, tokens) {
    const key = keyOf(checkpoint, sample), panel = panels.get(checkpoint);
    await trying(() => lines("write", askOne(checkpoint, sample, tokens), ({ done, error }) => {
      if (error) throw new Error(error);
      if (!done) return;
      if (tokens.length) forced.set(key, tokens); else forced.delete(key);
      [panel.samples[sample]] = done;
      panels.forEach((_, name) => drawPanel(name));
    }));
    if (!$("apart").hidden) takeApart(checkpoint, sample, Math.max(tokens.length - 1, 0));
  }

  // One text taken apart: the page's own Explain tab in a frame; a click on a candidate forces it.
  async function takeApart(checkpoint, sample, place) {
    const here = opened = { checkpoint, sample, tokens: panels.get(checkpoint).samples[sample].tokens.map(([id]) => id), step: place + 1 };
    $("apart").hidden = false;
    fill($("branches"));
    $("apart-of").textContent = visible(t("play.of", { checkpoint, sample: sample + 1 }));
    const address = new URLSearchParams({ lang: state.lang, theme: state.theme, step: place + 1 });
    const source = `explain?ask=${encodeURIComponent(JSON.stringify(askOne(checkpoint, sample)))}#${address}`;
    await trying(() => asked("turn", {})); // a frame cannot say that it waits
    if (opened === here) $("frame").src = source;
    $("apart").scrollIntoView({ behavior: "smooth", block: "nearest" });
  }
  function closeApart() { $("apart").hidden = true; fill($("branches")); }
  /** The frame is of this very server: its table is made to force, and it is as high as what it shows. */
  function frameReady() {
    const inside = $("frame").contentDocument, body = inside?.body;
    if (!inside?.getElementById("tabs")) return body?.textContent && failed(new Error(errorIn(body.textContent)));
    const step = () => Number(inside.querySelector("#walk [aria-current]")?.id.slice(5) ?? opened.step);
    const pick = (event) => {
      const row = event.target.closest("#stages tbody tr[data-id]");
      if (!row || row.classList.contains("barred")) return;
      force(opened.checkpoint, opened.sample, [...opened.tokens.slice(0, step() - 1), Number(row.dataset.id)]);
    };
    inside.addEventListener("click", (event) => { opened.step = step(); pick(event); });
    inside.head.append(Object.assign(inside.createElement("style"), { textContent: "body { background: none } main { padding: 0 } header, footer, h1 { display: none !important } #stages tr[data-id]:not(.barred) { cursor: pointer } #stages tr[data-id]:not(.barred):hover > * { background: var(--wash) } aside { position: static !important; }" }));
    new ResizeObserver(() => { $("frame").style.height = `${body.scrollHeight + 8}px`; }).observe(body);
    return null;
  }
  const errorIn = (text) => { try { return JSON.parse(text).error; } catch { return text.slice(0, 200); } };

  // Alternatives: the likeliest tokens at a place, and how the text goes on from each.
  async function branch(node, begun) {
    const { checkpoint, sample } = opened;
    await trying(async () => {
      const { branches } = await asked("branches", { ...askOne(checkpoint, sample, begun), width: 4, more: 8 });
      fill(node, node.id && el("p", { class: "note", "data-t": "play.branches.note" }, t("play.branches.note")), el("ul", { class: "branches" }, branches.map((each) => branchOf(begun, each))));
    });
  }
  function branchOf(begun, { token: [id, word], p, left, tokens }) {
    const under = el("div", {}), here = [...begun, id];
    const further = ([, next], place) => el("button", { type: "button", class: "char", "aria-label": t("play.branch.at", { word: next || t("play.end") }), on: { click: () => branch(under, [...here, ...tokens.slice(0, place).map(([own]) => own)]) } }, shown(next));
    return el("li", { class: left ? "" : "barred" }, el("small", { title: left ? null : t("play.removed") }, `${(100 * p).toFixed(1)} %${left ? "" : " ×"}`), " ",
      el("button", { type: "button", class: "word", "aria-label": t("play.force", { word: word || t("play.end") }), on: { click: () => force(opened.checkpoint, opened.sample, here) } }, shown(word)),
      el("span", { ...verse }, tokens.map(further)), under);
  }

  addView({
    id: "desk", tab: "play", place: "aside", title: { en: "What is written ", zh: "寫什麼 " },
    strings: {
      en: { "tab.play": "Side by side", "play.example": "After", "play.own": "or a couplet of your own", "play.writers": "Checkpoints", "play.samples": "Texts of each", "play.knobs": "Knobs", "play.more": "More knobs", "play.write": "Write", "play.reset": "The chosen setting" },
      zh: { "tab.play": "並排比較", "play.example": "題目", "play.own": "或自己出一聯", "play.writers": "檢查點", "play.samples": "各寫幾篇", "play.knobs": "旋鈕", "play.more": "更多旋鈕", "play.write": "寫", "play.reset": "回到選定的設定" },
    },
    make(node) {
      const split = (name) => el("optgroup", { label: t(`split.${name}`) }, facts.examples.filter((each) => each.split === name).map((each) => el("option", { value: each.id }, each.input.replaceAll("\n", " "))));
      const label = (key, ...inner) => el("label", { class: "field" }, el("span", { "data-t": key }), inner);
      const knobs = (common) => el("div", { class: "knobs" }, facts.knobs.filter((knob) => Boolean(knob.common) === common).map(knobField));
      fill(node.querySelector(".body"), label("play.example", el("select", { id: "example", on: { change: () => { $("own").value = ""; writeAll(); } } }, [...new Set(facts.examples.map((each) => each.split))].reverse().map(split))),
        el("div", { hidden: !facts.verse }, label("play.own", el("input", { id: "own", type: "text", lang: "zh-Hant", maxlength: 100, placeholder: "床前明月光，疑是地上霜。", on: { change: writeAll } }))),
        el("fieldset", {}, el("legend", { class: "note", "data-t": "play.writers" }), el("div", { id: "ticks" }, facts.checkpoints.map(({ name, first }) => tick("writer", name, first, { change: writeSoon })))),
        label("play.samples", el("input", { id: "samples", type: "number", min: 1, max: 16, value: 2, on: { change: writeSoon } })),
        el("div", { class: "row" }, button("write", "play.write", writeAll, "main"), button("reset", "play.reset", () => { document.querySelectorAll(".knobs input, .knobs select").forEach((input) => { const knob = core.knobs[input.id.slice(5)]; input.value = knob.now === knob.off && !NEEDS_VALUE.includes(knob.kind) ? "" : knob.now; }); writeAll(); })),
        el("details", { open: true }, el("summary", { "data-t": "play.knobs" }), knobs(true)), el("details", {}, el("summary", { "data-t": "play.more" }), knobs(false)));
    },
    render: () => facts.knobs.forEach((knob) => { if (!knob.choices && !NEEDS_VALUE.includes(knob.kind)) $(`knob-${knob.name}`).placeholder = t("off"); }),
    ahead: async () => { writeAll(); },
  });

  addView({
    id: "written", tab: "play", title: { en: "Under the same noise", zh: "同樣的雜訊" },
    note: { en: "Each checkpoint writes with the noise of the results: a text here is the text there. A box marks where a text parts from the first checkpoint's. Click a token to see what stood behind it.", zh: "每個檢查點都用與結果相同的雜訊：這裡的文字就是結果裡的文字。方框是與第一個檢查點開始分歧之處。點一個字，可以看它是怎麼選出來的。" },
    strings: {
      en: { "play.apart": "take {word} apart", "play.end": "the end", "play.cut": "cut off at max_length", "play.forced": "{word} was forced.", "play.undo": "Undo", "play.waits": "The model is at work on another request; this one waits for it." },
      zh: { "play.apart": "拆解「{word}」", "play.end": "結尾", "play.cut": "到 max_length 為止", "play.forced": "「{word}」是指定的。", "play.undo": "復原", "play.waits": "模型正在處理另一個請求，輪到這一頁時就會開始。" },
    },
    make(node) { // said on whichever tab is open
      $("main").prepend(el("p", { id: "play-waits", role: "status", "data-t": "play.waits", hidden: true }), el("p", { id: "play-error", class: "bad", role: "alert" }));
      fill(node.querySelector(".body"), el("div", { id: "panels", class: "verses" }));
    },
    render: () => panels.forEach((_, name) => drawPanel(name)),
  });

  addView({
    id: "apart", tab: "play", title: { en: "What stood behind a token", zh: "一個字怎麼選出來" },
    strings: {
      en: { "play.of": "{checkpoint}, text {sample}", "play.click": "Click a row of the table to force that token: the text goes on from there with the same noise.", "play.alternatives": "Alternatives here", "play.branch.at": "alternatives to {word}", "play.force": "force {word}", "play.removed": "a knob removes it", "play.close": "Close",
        "play.branches.note": "The likeliest tokens at this place, by the model before the temperature, and how the text goes on with the same noise. The first button forces its token; one further on opens alternatives there. ×: a knob removes it." },
      zh: { "play.of": "{checkpoint}，第 {sample} 篇", "play.click": "點表格中的一列，就指定用那個字：文字從那裡以同樣的雜訊往下寫。", "play.alternatives": "此處的其他可能", "play.branch.at": "「{word}」的其他可能", "play.force": "指定「{word}」", "play.removed": "被旋鈕移除", "play.close": "關閉",
        "play.branches.note": "這個位置最可能的幾個字（模型在溫度之前的機率），以及用同樣的雜訊如何往下寫。第一個按鈕是指定該字；後面的字可再展開。×：被旋鈕移除。" },
    },
    make(node) {
      node.hidden = true;
      const here = () => branch($("branches"), opened.tokens.slice(0, opened.step - 1));
      fill(node.querySelector(".body"), el("div", { class: "row" }, el("p", { id: "apart-of", class: "said" }), button("alternatives", "play.alternatives", here), button("close", "play.close", closeApart)),
        el("div", { id: "branches" }), el("p", { class: "note", "data-t": "play.click" }), el("iframe", { id: "frame", "data-label": "apart", on: { load: frameReady } }));
    },
    render() {},
  });

  // Blind tasting.
  const sides = () => ticked("side");
  async function nextPair() {
    pair = null;
    await trying(async () => { pair = await asked("pair", askNow({ checkpoints: sides(), example: "", couplet: "", rater: $("rater").value.trim() || "me" })); });
    drawPair();
  }
  function drawPair() {
    $("votes").hidden = !pair;
    if (!pair) return fill($("pair"));
    return fill($("pair"), el("p", { ...verse }, lined(pair.given)), el("div", { class: "verses" }, ["left", "right"].map((side) => el("article", { class: "strophe" }, el("h3", {}, t(`taste.${side}`)), el("p", { ...verse, "data-side": side }, lined(pair[side]))))));
  }
  const vote = (choice) => trying(async () => {
    $("votes").hidden = true; // until the next pair is there: a pair has one vote
    fill($("standings"));
    const { votes } = await asked("vote", { pair: pair.pair, vote: choice });
    $("voted").textContent = t("taste.voted", { n: votes });
    await nextPair();
  });
  const ends = (row, by) => (row[`${by}_low`] === null ? el("span", { title: t("taste.few") }, "[–]") : `[${row[`${by}_low`].toFixed(2)}, ${row[`${by}_high`].toFixed(2)}]`);
  const standings = () => trying(async () => {
    const found = await asked("standings", askNow({ checkpoints: sides().length ? sides() : [facts.reference] })), table = core.scroller("standing", "taste.standings");
    const sorted = found.sides.sort((a, b) => (b.poem ?? 0) - (a.poem ?? 0));
    core.fillTable(table.firstChild, ["taste.side", "taste.strength", "taste.by.poem", "taste.by.rater"].map((key) => t(key)), sorted.map((row) => [row.side, row.poem?.toFixed(2) ?? "–", ends(row, "poem"), ends(row, "rater")]));
    fill($("standings"), el("p", {}, t("taste.counts", found.counts)), sorted.length > 0 && table, el("p", { class: "note" }, t("taste.note", { file: found.file })));
  });

  addView({
    id: "tasting", tab: "taste", title: { en: "Which is better?", zh: "哪一篇比較好？" },
    note: { en: "Two texts of two hidden sides, written after the same lines with the same noise, at the knobs of the first tab. Which comes first is drawn anew each time.", zh: "同一題、同樣的雜訊，由兩個不公開的來源所寫，旋鈕以第一個分頁為準。先後每次重新抽。" },
    strings: {
      en: { "tab.taste": "Blind tasting", "taste.sides": "Sides", "taste.rater": "Your name, in the file of votes", "taste.next": "Next pair", "taste.left": "The first", "taste.tie": "As good", "taste.right": "The second", "taste.voted": "Votes kept: {n}.", "taste.standings": "Standings",
        "taste.side": "Side", "taste.strength": "Strength", "taste.by.poem": "95 % by poem", "taste.by.rater": "95 % by rater", "taste.few": "fewer than five: no interval can be believed", "taste.counts": "At this setting votes: {votes}, poems: {poems}, raters: {raters}",
        "taste.note": "Bradley–Terry strengths in log-odds, 0 on average: by one more, a side is preferred 73 times in 100. An interval by poem says what other poems might have shown, one by rater what other people might have said; the wider one holds. Votes are in {file}." },
      zh: { "tab.taste": "盲選", "taste.sides": "來源", "taste.rater": "你的名字（記在投票檔裡）", "taste.next": "下一組", "taste.left": "第一篇", "taste.tie": "一樣好", "taste.right": "第二篇", "taste.voted": "已記下 {n} 票。", "taste.standings": "目前結果",
        "taste.side": "來源", "taste.strength": "強度", "taste.by.poem": "95 %（依詩）", "taste.by.rater": "95 %（依評者）", "taste.few": "少於五個，沒有可信的區間", "taste.counts": "這個設定下，{raters} 位評者對 {poems} 首詩投了 {votes} 票",
        "taste.note": "Bradley–Terry 強度，以對數勝算表示，平均為 0：高 1，每 100 次約有 73 次勝出。依詩的區間表示換一批詩可能如何，依評者的區間表示換一批人可能如何；以較寬的為準。投票檔：{file}。" },
    },
    make: (node) => fill(node.querySelector(".body"), el("fieldset", {}, el("legend", { class: "note", "data-t": "taste.sides" }), el("div", { class: "row" }, [...facts.checkpoints.map(({ name, first }) => tick("side", name, first)), tick("side", facts.reference, facts.checkpoints.length === 1)])),
      el("div", { class: "row fields" }, el("label", { class: "field" }, el("span", { "data-t": "taste.rater" }), el("input", { id: "rater", type: "text", maxlength: 40 })), button("next", "taste.next", nextPair, "main"), button("show", "taste.standings", standings)),
      el("div", { id: "pair" }), el("div", { id: "votes", class: "row", hidden: true }, ["left", "tie", "right"].map((choice) => button(`vote-${choice}`, `taste.${choice}`, () => vote(choice)))), el("p", { id: "voted", role: "status" }), el("div", { id: "standings" })),
    render: () => {},
  });
})();
