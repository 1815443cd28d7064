// knobs.js: sliders that snap to the grid, checkpoints to tick, and the numbers, curves and heat maps of where they stand.

function makeKnobs() {
  fill($("knobs"), FACTS.knobs.map((knob) => {
    const last = GRID[knob].length - 1, key = KNOBS[knob];
    const slider = el("input", { type: "range", id: `knob-${knob}`, min: 0, max: last, step: 1, disabled: last === 0,
      on: { input: (event) => change({ [key]: GRID[knob][event.target.value] }) } });
    const ticks = el("span", { class: "ticks", "aria-hidden": "true" }, GRID[knob].map((text) => el("span", { "data-value": text })));
    return el("div", { class: "knob" }, el("label", { for: slider.id, "data-t": `knob.${knob}` }), el("output", { for: slider.id }), slider, ticks);
  }));
  $("ticks").append(...FACTS.checkpoints.map((name, place) =>
    el("label", {}, el("input", { type: "checkbox", "data-tick": place, on: { change: tick } }), el("i", { class: "dot" }), name)));
  $("to-best").onclick = () => goTo(CHOSEN.setting, { a: String(CHOSEN.checkpoint) });
}

function tick() {
  const boxes = [...document.querySelectorAll("[data-tick]")];
  change({ on: boxes.filter((box) => box.checked).map((box) => box.dataset.tick).join(".") });
}

function renderKnobs() {
  for (const [place, knob] of FACTS.knobs.entries()) {
    const holder = $("knobs").children[place], text = state[KNOBS[knob]], [, output, slider, ticks] = holder.children;
    slider.value = GRID[knob].indexOf(text);
    slider.setAttribute("aria-valuetext", ofKnob(knob, text));
    output.textContent = ofKnob(knob, text);
    for (const mark of ticks.children) {
      mark.textContent = ofKnob(knob, mark.dataset.value);
      mark.classList.toggle("here", mark.dataset.value === text);
    }
  }
  for (const box of document.querySelectorAll("[data-tick]")) {
    box.checked = ticked().includes(Number(box.dataset.tick));
    box.nextSibling.style.background = colourOf(Number(box.dataset.tick));
  }
}

const triple = (split, name, setting, metric) => ["", "_low", "_high"].map((end) => value(split, name, setting, metric + end));
const measured = ([middle, low, high]) => el("span", {}, number(middle), " ", interval(low, high));
const levelsOf = (split, metric) => FACTS.baselines.map((name) => ({ name, value: value(split, name, [], metric) }));

/** The table of a setting: a metric a row, a column for each of `names`. */
function numbersTable(table, split, setting, names, metrics) {
  const shown = metrics.filter((metric) => names.some((name) => value(split, name, setting, metric) !== ""));
  const low = (metric) => METRIC[metric].better === "low" && el("small", { title: t("low.better") }, " ↓", el("span", { class: "sr" }, t("low.better")));
  const rows = shown.map((metric) => [el("span", {}, label(metric), low(metric)), ...names.map((name) => measured(triple(split, name, setting, metric)))]);
  fillTable(table, [t("metric"), ...names], rows, (place) => ({ "data-metric": shown[place], class: shown[place] === state.metric ? "here" : "" }));
}

/** What a reader is shown of a setting unless every metric is asked for. */
const HEADLINES = ["reference_nll", "form", "rhyme", "bleu", "copied_clauses"];

function renderNumbers() {
  const setting = settingNow(), names = [...ticked().map(nameOf), ...FACTS.baselines];
  $("now").textContent = `${t(`split.${state.split}`)}${t("colon")}${spell(setting)}${SETTING.has(setting.join("|")) ? "" : ` (${t("no.setting")})`}`;
  const metrics = state.every ? FACTS.metrics.map((metric) => metric.name) : [...new Set([state.metric, ...HEADLINES])];
  numbersTable($("numbers"), state.split, setting, names, metrics);
  clearTimeout(renderNumbers.later);
  const of = (name) => `${name} ${short(value(state.split, name, setting, state.metric))}`;
  renderNumbers.later = setTimeout(() => {
    $("live").textContent = visible(`${spell(setting)}. ${label(state.metric)}${t("colon")}${names.map(of).join(t("comma"))}`);
  }, 400);
}

function renderCurves() {
  const setting = settingNow(), metric = state.metric;
  const along = (knob) => GRID[knob].map((text) => setting.map((own, place) => (FACTS.knobs[place] === knob ? text : own)));
  const lines = (knob) => ticked().map((place) => ({ name: nameOf(place), colour: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
    rows: along(knob).map((own) => triple(state.split, nameOf(place), own, metric)) }));
  const list = VARIED.map((knob) => ({ title: `${label(metric)} · ${t(`knob.${knob}`)}`, draw: (box) => linePanel(box, {
    x: GRID[knob].map((text) => ofKnob(knob, text)), lines: lines(knob), levels: levelsOf(state.split, metric), metric,
    at: GRID[knob].indexOf(state[KNOBS[knob]]), pick: (place) => change({ [KNOBS[knob]]: GRID[knob][place] }) }) }));
  const rows = (knob) => lines(knob).flatMap((line) => line.rows.map((row, place) => [knob, GRID[knob][place], line.name, ...row]));
  const head = ["knob", "value", "checkpoint", metric, `${metric}_low`, `${metric}_high`];
  panels($("curves"), list, () => [head, ...VARIED.flatMap(rows)], tickedKeys());
}

const tickedKeys = () => ticked().map((place) => ({ name: nameOf(place), colour: colourOf(place) }));

function renderHeat() {
  const { x, y, metric } = state, setting = settingNow();
  if (x === y || VARIED.length < 2) return panels($("heat"), []);
  const at = (i, j) => setting.map((own, place) => ({ [x]: GRID[x][i], [y]: GRID[y][j] })[FACTS.knobs[place]] ?? own);
  const grids = ticked().map((place) => GRID[y].map((_, j) => GRID[x].map((_, i) => value(state.split, nameOf(place), at(i, j), metric))));
  const numbers = numbersIn(grids.flat(2)), low = METRIC[metric].share ? 0 : Math.min(...numbers), high = Math.max(...numbers);
  const list = ticked().map((place, order) => ({ title: nameOf(place), draw: (box) => heatPanel(box, {
    x: GRID[x].map((text) => ofKnob(x, text)), y: GRID[y].map((text) => ofKnob(y, text)), names: [t(`knob.${x}`), t(`knob.${y}`)],
    rows: grids[order], low, high, at: [GRID[x].indexOf(state[KNOBS[x]]), GRID[y].indexOf(state[KNOBS[y]])],
    pick: (i, j) => change({ [KNOBS[x]]: GRID[x][i], [KNOBS[y]]: GRID[y][j], a: String(place) }) }) }));
  panels($("heat"), list, () => [["checkpoint", x, y, metric],
    ...ticked().flatMap((place, order) => grids[order].flatMap((row, j) => row.map((text, i) => [nameOf(place), GRID[x][i], GRID[y][j], text])))]);
}
