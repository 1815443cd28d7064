// pictures.js: what was chosen, at a glance, and the pictures that do not follow the sliders' cell.

/** A table's rows as objects of the file's strings. */
function records(name, keep) {
  const { rows, at } = TABLES[name], read = (row) => (column) => row[at[column]];
  return rows.map(read).filter(keep);
}
const tripleOf = (get, metric) => ["", "_low", "_high"].map((end) => get(metric + end));
const shownIn = (rows, metrics = FACTS.shown) => metrics.filter((metric) => rows.some((get) => get(metric) !== ""));
const placeOf = (name) => FACTS.checkpoints.indexOf(name);

function renderGlance() {
  const { samples, manifest, selection } = FACTS, split = state.split, cell = CHOSEN.cell, best = nameOf(CHOSEN.checkpoint);
  const poems = FACTS.splits.map((name) => FACTS.examples.filter((example) => example[1] === name).length);
  $("name").textContent = FACTS.study;
  $("lede").textContent = visible(t("lede", {
    checkpoints: FACTS.checkpoints.length, cells: FACTS.cells.length, base: manifest.base_model.name, data: manifest.data.name,
    poems: FACTS.splits.map((name, i) => t("poems.of", { n: poems[i], split: t(`split.${name}`), samples: samples[name] })).join(t("comma")),
    outputs: (FACTS.luck * FACTS.cells.length * FACTS.checkpoints.length).toLocaleString("en") }));
  fill($("best"), (selection ? bestCard(selection, best, cell) : [el("h2", {}, t("no.choice")), el("p", {}, t("no.choice.say"))]));
  const base = FACTS.checkpoints.includes("base") && best !== "base" ? ["base"] : [];
  numbersTable($("beside"), split, cell, [...base, best, ...FACTS.yardsticks], ["reference_nll", "bleu", "chrf", "form", "rhyme", "tone_opposition", "copied_clauses"]);
  $("beside-note").textContent = t("beside.note", { split: t(`split.${split}`), cell: spell(cell) });
  const names = [...FACTS.checkpoints, ...FACTS.yardsticks];
  const metrics = ["reference_nll", "bleu", "form", "rhyme"].filter((metric) => value(split, best, cell, metric) !== "");
  const rows = (metric) => names.filter((name) => name !== REFERENCE || METRIC[metric].share).map((name) => {
    const [middle, low, high] = triple(split, name, cell, metric);
    return { name: name === best ? `★ ${name}` : name, colour: placeOf(name) < 0 ? css("--quiet") : colourOf(placeOf(name)), value: middle, low, high, open: placeOf(name) < 0 };
  }).filter((row) => row.value !== "");
  panels($("standing"), metrics.map((metric) => ({ title: label(metric) + (METRIC[metric].better === "low" ? ` · ${t("low.better")}` : ""),
    draw: (box) => dotPanel(box, { rows: rows(metric), share: METRIC[metric].share }) })),
  () => [["metric", "checkpoint", "value", "low", "high"], ...metrics.flatMap((metric) => rows(metric).map((row) => [metric, row.name, row.value, row.low, row.high]))]);
  renderHero(base.length ? [0, CHOSEN.checkpoint] : [CHOSEN.checkpoint], cell);
}

async function renderHero(checkpoints, cell) {
  const place = PLACES.findIndex((where) => where.split === "test");
  $("hero").hidden = PLACES.length === 0;
  if (!PLACES.length) return;
  const { nodes } = await versesOf(Math.max(place, 0), checkpoints.map((checkpoint) => ({ checkpoint, cell })));
  fill($("hero").querySelector(".verses"), nodes);
  $("hero-note").textContent = t("hero.note");
}

function bestCard(selection, best, cell) {
  const { rule } = selection, by = rule.cell.by, same = (place) => selection[place] && selection.cell;
  const figures = [...new Set([rule.split, "test"])].filter(same).map((split) => el("p", { class: "figure" },
    el("strong", {}, number(value(split, best, cell, by))), " ", interval(value(split, best, cell, `${by}_low`), value(split, best, cell, `${by}_high`)),
    el("small", {}, `${label(by)} · ${t(`split.${split}`)}${split === "test" && selection.saw_test ? ` · ${t("saw.test", { n: selection.saw_test })}` : ""}`)));
  const { checkpoints, cells = [] } = selection.runners_up, tied = checkpoints.filter((each) => !each.distinguishable).map((each) => each.checkpoint);
  const told = cells.filter((each) => each.distinguishable).length, { corrected } = selection;
  return [
    el("h2", {}, t("best")), el("p", { class: "winner" }, best),
    el("p", { class: "chips" }, FACTS.knobs.map((knob, place) => el("span", { class: "chip" }, t(`knob.${knob}`), " ", el("b", {}, ofKnob(knob, cell[place]))))),
    selection.cell ? el("div", { class: "row" }, figures) : el("p", {}, t("no.cell.chosen")),
    corrected && corrected.value != null && el("p", {}, t("corrected", { value: short(String(corrected.value)), low: short(String(corrected.low)), high: short(String(corrected.high)) })),
    el("p", {}, tied.length ? t("ties.with", { names: tied.join(t("comma")) }) : t("ties.none"), state.lang === "zh" ? "" : " ", cells.length ? t("ties.cells", { told, of: cells.length }) : ""),
    selection.refused.length ? el("p", {}, t("refused", { names: selection.refused.join(t("comma")), split: t(`split.${rule.split}`) })) : null,
    el("p", { class: "note" }, t("rule", { checkpoint: label(rule.checkpoint), cell: label(by), split: t(`split.${rule.split}`),
      require: Object.entries(rule.cell.require).map(([name, text]) => `${label(name)} ${text}`).join(t("comma")) || t("nothing") })),
    el("button", { type: "button", class: "main", on: { click: () => { $("to-best").click(); change({ tab: "explore" }); } } }, t("to.explore")),
  ];
}

/** Lines against `x` for every metric: what a knob does, or what training did. */
function smallMultiples(picture, metrics, x, lines, levels) {
  panels(picture, metrics.map((metric) => ({ title: label(metric), draw: (box) => linePanel(box, {
    x, metric, at: -1, levels: levels(metric), lines: lines.map((line) => ({ ...line, rows: line.gets.map((get) => (get ? tripleOf(get, metric) : ["", "", ""])) })) }) })),
  () => [["line", "x", ...metrics.flatMap((m) => [m, `${m}_low`, `${m}_high`])],
    ...lines.flatMap((line) => line.gets.map((get, place) => [line.name, x[place], ...metrics.flatMap((m) => (get ? tripleOf(get, m) : ["", "", ""]))]))], lines);
}

const same = (one, other) => one !== "" && Number(one) === Number(other);

function renderEffects() {
  const { split, knob } = state;
  const rows = records("effects.csv", (get) => get("split") === split && get("knob") === knob), levels = (metric) => levelsOf(split, metric);
  const metrics = rows.length ? shownIn(rows).filter((metric) => METRIC[metric].per_cell) : [];
  const lines = ticked().map((place) => ({ name: nameOf(place), colour: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
    gets: GRID[knob].map((text) => rows.find((get) => get("checkpoint") === nameOf(place) && same(get("value"), text))) }));
  smallMultiples($("effects"), metrics, GRID[knob].map((text) => ofKnob(knob, text)), lines, levels);
  const body = lines.flatMap((line) => line.gets.map((get, place) => get && el("tr", {}, el("th", { scope: "row" }, line.name), el("td", {}, ofKnob(knob, GRID[knob][place])),
    metrics.map((metric) => { const [middle, low, high] = tripleOf(get, metric); return el("td", {}, number(middle), " ", interval(low, high)); })))).filter(Boolean);
  fill($("effects-table"), el("thead", {}, el("tr", {}, [t("checkpoint"), t(`knob.${knob}`), ...metrics.map(label)].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, body));
}

function renderTraining() {
  const rows = records("checkpoints.csv", (get) => get("split") === state.split && !FACTS.yardsticks.includes(get("checkpoint")) && (get("step") !== "" || get("checkpoint") === "base"));
  const steps = rows.filter((get) => get("step") !== "").length > 1;
  const gets = steps ? rows.toSorted((a, b) => Number(a("step") || 0) - Number(b("step") || 0)) : [];
  const line = { name: t("all.cells"), colour: css("--late"), symbol: "circle", gets };
  smallMultiples($("training"), steps ? shownIn(gets) : [], gets.map((get) => (get("step") === "" ? get("checkpoint") : get("step"))), [line], (metric) => levelsOf(state.split, metric));
}

/** Cells for which no other is better in both; points are [x, y], already turned so that more is better. */
const front = (points) => points.filter((one) => !points.some((other) => other.x >= one.x && other.y >= one.y && (other.x > one.x || other.y > one.y)));

function renderPareto() {
  const { quality, diversity, split } = state, sign = (metric) => (METRIC[metric].better === "low" ? -1 : 1);
  const points = ticked().flatMap((place) => FACTS.cells.flatMap((cell) => {
    const [x, y] = [diversity, quality].map((metric) => value(split, nameOf(place), cell, metric));
    return x === "" || y === "" ? [] : [{ place, cell, texts: [x, y], x: Number(x) * sign(diversity), y: Number(y) * sign(quality) }];
  }));
  const edge = front(points).sort((one, other) => one.x - other.x), now = cellNow().join("|");
  const dot = (point) => ({ value: point.texts.map(Number), point, itemStyle: edge.includes(point) ? { borderColor: css("--ink"), borderWidth: 2, opacity: 1 } : {},
    symbolSize: point.cell.join("|") === now && point.place === Number(state.a) ? 16 : 8 });
  const series = ticked().map((place) => ({ type: "scatter", name: nameOf(place), color: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
    itemStyle: { opacity: 0.65 }, data: points.filter((point) => point.place === place).map(dot) }));
  const axisOf = (metric, more) => axis({ type: "value", scale: true, name: label(metric), nameLocation: "middle", inverse: METRIC[metric].better === "low", ...more });
  panels($("pareto"), points.length ? [{ title: `${label(quality)} · ${label(diversity)}`, draw: (box) => {
    draw(box, { grid: { left: 60, right: 20, top: 14, bottom: 48 }, xAxis: axisOf(diversity, { nameGap: 28 }), yAxis: axisOf(quality, { nameGap: 42 }),
      series: [{ type: "line", data: edge.map((point) => point.texts.map(Number)), step: false, symbol: "none", silent: true, color: css("--ink"), lineStyle: { width: 1, type: [4, 4] } }, ...series],
      tell: ({ data: { point } }) => (point ? [el("b", {}, nameOf(point.place)), spell(point.cell), `${label(quality)} ${short(point.texts[1])}`, `${label(diversity)} ${short(point.texts[0])}`] : []) });
    const chart = echarts.getInstanceByDom(box);
    chart.off("click").on("click", ({ data }) => data?.point && change({ a: String(data.point.place), ...Object.fromEntries(FACTS.knobs.map((knob, i) => [KNOBS[knob], data.point.cell[i]])) }));
  } }] : [], () => [["checkpoint", ...FACTS.knobs, diversity, quality, "front"], ...points.map((point) => [nameOf(point.place), ...point.cell, ...point.texts, edge.includes(point) ? "1" : ""])], tickedKeys());
}

function renderTies() {
  const { selection } = FACTS;
  if (!selection) return panels($("ties"), []);
  const { rule } = selection, most = 20, text = (number) => (number == null ? "" : String(number));
  const named = (each) => each.checkpoint ?? FACTS.knobs.map((knob) => each[knob]).join(" · ");
  const row = (each) => ({ name: named(each), colour: css(each.distinguishable ? "--accent" : "--late"), open: !each.distinguishable,
    value: text(each.difference), low: text(each.difference_low), high: text(each.difference_high) });
  const { checkpoints, cells = [] } = selection.runners_up;
  const list = [[rule.checkpoint, checkpoints, "ties.checkpoints"], [rule.cell.by, cells.slice(0, most), "ties.of.cells"]].filter(([, each]) => each.length);
  $("ties-say").textContent = cells.length > most ? t("ties.most", { most, all: cells.length }) : "";
  panels($("ties"), list.map(([metric, each, key]) => ({ title: t(key, { metric: label(metric) }), draw: (box) => dotPanel(box, { rows: each.map(row), zero: true }) })),
    () => [["what", "difference", "low", "high", "p (Holm)"], ...[...checkpoints, ...cells].map((each) => [named(each), text(each.difference), text(each.difference_low), text(each.difference_high), text(each.p_holm)])]);
}
