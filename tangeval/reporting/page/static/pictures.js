// pictures.js: what was chosen, at a glance, and the pictures that do not follow the sliders' setting.

/** A table's rows as objects of the file's strings. */
function records(name, keep) {
  const { rows, at } = TABLES[name], read = (row) => (column) => row[at[column]];
  return rows.map(read).filter(keep);
}
const tripleOf = (get, metric) => ["", "_low", "_high"].map((end) => get(metric + end));
const shownIn = (rows, metrics = FACTS.shown) => metrics.filter((metric) => rows.some((get) => get(metric) !== ""));
const placeOf = (name) => FACTS.checkpoints.indexOf(name);

function renderGlance() {
  const { samples, manifest, selection } = FACTS, split = state.split, setting = CHOSEN.setting, best = nameOf(CHOSEN.checkpoint);
  const poems = FACTS.splits.map((name) => FACTS.examples.filter((example) => example[1] === name).length);
  $("name").textContent = FACTS.study;
  $("lede").textContent = visible(t("lede", {
    checkpoints: FACTS.checkpoints.length, settings: FACTS.settings.length, base: manifest.base_model.name, data: manifest.data.name,
    poems: FACTS.splits.map((name, i) => t("poems.of", { n: poems[i], split: t(`split.${name}`), samples: samples[name] })).join(t("comma")),
    outputs: (FACTS.noise * FACTS.settings.length * FACTS.checkpoints.length).toLocaleString("en") }));
  fill($("best"), (selection ? bestCard(selection, best, setting) : [el("h2", {}, t("no.choice")), el("p", {}, t("no.choice.say"))]));
  const base = FACTS.checkpoints.includes("base") && best !== "base" ? ["base"] : [];
  const told = ["reference_nll", "bleu", "chrf", "form", "rhyme", "tone_opposition", "copied_clauses"];
  numbersTable($("beside"), split, setting, [...base, best, ...FACTS.baselines], told);
  $("beside-note").textContent = t("beside.note", { split: t(`split.${split}`), setting: spell(setting) });
  const names = [...FACTS.checkpoints, ...FACTS.baselines];
  const metrics = ["reference_nll", "bleu", "form", "rhyme"].filter((metric) => value(split, best, setting, metric) !== "");
  const rows = (metric) => names.filter((name) => name !== REFERENCE || METRIC[metric].share).map((name) => {
    const [middle, low, high] = triple(split, name, setting, metric);
    const yard = FACTS.baselines.includes(name);
    return { name: name === best ? `★ ${name}` : name, colour: yard ? css("--quiet") : colourOf(placeOf(name)), value: middle, low, high, open: yard };
  }).filter((row) => row.value !== "");
  panels($("standing"), metrics.map((metric) => ({ title: label(metric) + (METRIC[metric].better === "low" ? ` · ${t("low.better")}` : ""),
    draw: (box) => dotPanel(box, { rows: rows(metric), share: METRIC[metric].share }) })),
  () => [["metric", "checkpoint", "value", "low", "high"],
    ...metrics.flatMap((metric) => rows(metric).map((row) => [metric, row.name, row.value, row.low, row.high]))]);
  renderHero(base.length ? [0, CHOSEN.checkpoint] : [CHOSEN.checkpoint], setting);
}

async function renderHero(checkpoints, setting) {
  const place = PLACES.findIndex((where) => where.split === "test");
  $("hero").hidden = PLACES.length === 0;
  if (!PLACES.length) return;
  const { nodes } = await versesOf(Math.max(place, 0), checkpoints.map((checkpoint) => ({ checkpoint, setting })));
  fill($("hero").querySelector(".verses"), nodes);
  $("hero-note").textContent = t(FACTS.manifest.noise_shared === false ? "hero.note.apart" : "hero.note");
}

function bestCard(selection, best, setting) {
  const { rule } = selection, by = rule.setting.by, same = (place) => selection[place] && selection.setting;
  const warned = (split) => (split === "test" && selection.saw_test ? ` · ${t("saw.test", { n: selection.saw_test })}` : "");
  const figures = [...new Set([rule.split, "test"])].filter(same).map((split) => {
    const [middle, low, high] = triple(split, best, setting, by);
    return el("p", { class: "figure" }, el("strong", {}, number(middle)), " ", interval(low, high),
      el("small", {}, `${label(by)} · ${t(`split.${split}`)}${warned(split)}`));
  });
  const { checkpoints, settings = [] } = selection.runners_up, tied = checkpoints.filter((each) => !each.distinguishable).map((each) => each.checkpoint);
  const told = settings.filter((each) => each.distinguishable).length, { corrected } = selection;
  return [
    el("h2", {}, t("best")), el("p", { class: "winner" }, best),
    el("p", { class: "chips" }, FACTS.knobs.map((knob, i) => el("span", { class: "chip" }, t(`knob.${knob}`), " ", el("b", {}, ofKnob(knob, setting[i]))))),
    selection.setting ? el("div", { class: "row" }, figures) : el("p", {}, t("no.setting.chosen")),
    corrected?.value != null && el("p", {}, t("corrected", Object.fromEntries(Object.entries(corrected).map(([key, one]) => [key, short(one)])))),
    el("p", {}, tied.length ? t("ties.with", { names: joined(tied) }) : t("ties.none"), state.lang === "zh" ? "" : " ",
      settings.length ? t("ties.settings", { told, of: settings.length }) : ""),
    selection.refused.length ? el("p", {}, t("refused", { names: joined(selection.refused), split: t(`split.${rule.split}`) })) : null,
    el("p", { class: "note" }, t("rule", { checkpoint: label(rule.checkpoint), setting: label(by), split: t(`split.${rule.split}`),
      require: joined(Object.entries(rule.setting.require).map(([name, text]) => `${label(name)} ${text}`)) || t("nothing") })),
    el("button", { type: "button", class: "main", on: { click: () => { $("to-best").click(); change({ tab: "explore" }); } } }, t("to.explore")),
  ];
}

/** Lines against `x` for every metric: what a knob does, or what training did. `gets` reads the row at each x, if there is one. */
function smallMultiples(picture, metrics, x, lines) {
  const read = (get, metric) => (get ? tripleOf(get, metric) : ["", "", ""]);
  const panel = (metric) => ({ title: label(metric), draw: (box) => linePanel(box, {
    x, metric, at: -1, levels: levelsOf(state.split, metric), lines: lines.map((line) => ({ ...line, rows: line.gets.map((get) => read(get, metric)) })) }) });
  const row = (line) => line.gets.map((get, place) => [line.name, x[place], ...metrics.flatMap((metric) => read(get, metric))]);
  const head = ["checkpoint", "at", ...metrics.flatMap((metric) => [metric, `${metric}_low`, `${metric}_high`])];
  panels(picture, metrics.map(panel), () => [head, ...lines.flatMap(row)], lines);
}

function renderEffects() {
  const { split, knob } = state, x = GRID[knob].map((text) => ofKnob(knob, text));
  const rows = records("effects.csv", (get) => get("split") === split && get("knob") === knob);
  const metrics = rows.length ? shownIn(rows).filter((metric) => METRIC[metric].per_setting) : [];
  const at = (name, text) => rows.find((get) => get("checkpoint") === name && Number(get("value")) === Number(text));
  const lines = ticked().map((place) => ({ name: nameOf(place), colour: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
    gets: GRID[knob].map((text) => at(nameOf(place), text)) }));
  smallMultiples($("effects"), metrics, x, lines);
  const row = (line) => line.gets.flatMap((get, place) => (get ? [[line.name, x[place], ...metrics.map((metric) => measured(tripleOf(get, metric)))]] : []));
  fillTable($("effects-table"), [t("checkpoint"), t(`knob.${knob}`), ...metrics.map(label)], lines.flatMap(row));
}

function renderTraining() {
  const own = records("checkpoints.csv", (get) => get("split") === state.split && FACTS.checkpoints.includes(get("checkpoint")));
  const gets = own.filter((get) => get("step") !== "" || get("checkpoint") === "base").sort((a, b) => Number(a("step")) - Number(b("step")));
  const steps = new Set(gets.map((get) => get("step")).filter(Boolean)).size > 1;
  // A line a run, that is, a folder; base begins the line where there is but one.
  const runOf = (get) => (get("step") ? get("checkpoint").slice(0, get("checkpoint").lastIndexOf("/") + 1) : "base");
  const at = (get) => get("step") || get("checkpoint"), x = [...new Set(gets.map(at))];
  const runs = [...new Set(gets.map(runOf))].map((run) => gets.filter((get) => runOf(get) === run));
  const line = (own) => {
    const [first, last] = [own[0], own.at(-1)].map((get) => get("checkpoint")), place = placeOf(last);
    return { name: first === last ? first : `${first} … ${last}`, colour: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
      gets: x.map((text) => own.find((get) => at(get) === text)) };
  };
  const whole = { name: t("all.settings"), colour: css("--late"), symbol: "circle", gets };
  const trained = runs.filter(([get]) => get("step")).length;
  smallMultiples($("training"), steps ? shownIn(gets) : [], x, trained > 1 ? runs.map(line) : [whole]);
}

/** Points for which no other is better in both; x and y are turned so that more is better. */
function front(points) {
  const beats = (one, other) => one.x >= other.x && one.y >= other.y && (one.x > other.x || one.y > other.y);
  return points.filter((point) => !points.some((other) => beats(other, point))).sort((one, other) => one.x - other.x);
}

/** Every setting of the ticked checkpoints that has both metrics. */
function paretoPoints({ quality, diversity, split }) {
  const turned = (metric, text) => Number(text) * (METRIC[metric].better === "low" ? -1 : 1);
  return ticked().flatMap((place) => FACTS.settings.flatMap((setting) => {
    const [x, y] = [diversity, quality].map((metric) => value(split, nameOf(place), setting, metric));
    return x === "" || y === "" ? [] : [{ place, setting, texts: [x, y], x: turned(diversity, x), y: turned(quality, y) }];
  }));
}

function renderPareto() {
  const { quality, diversity } = state, points = paretoPoints(state), edge = front(points), now = settingNow().join("|");
  const here = (point) => point.setting.join("|") === now && point.place === Number(state.a);
  const mark = (point) => ({ value: point.texts.map(Number), point, symbolSize: here(point) ? 16 : 8,
    itemStyle: edge.includes(point) ? { borderColor: css("--ink"), borderWidth: 2, opacity: 1 } : {} });
  const series = ticked().map((place) => ({ type: "scatter", name: nameOf(place), color: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length],
    itemStyle: { opacity: 0.65 }, data: points.filter((point) => point.place === place).map(mark) }));
  const along = { type: "line", data: edge.map((point) => point.texts.map(Number)), symbol: "none", silent: true, color: css("--ink"),
    lineStyle: { width: 1, type: [4, 4] } };
  const axisOf = (metric, nameGap) => axis({ type: "value", scale: true, name: label(metric), nameLocation: "middle", nameGap,
    inverse: METRIC[metric].better === "low" });
  const tell = ({ data: { point } }) => (point ? [el("b", {}, nameOf(point.place)), spell(point.setting), `${label(quality)} ${short(point.texts[1])}`,
    `${label(diversity)} ${short(point.texts[0])}`] : []);
  const panel = { title: `${label(quality)} · ${label(diversity)}`, draw(box) {
    draw(box, { grid: { left: 60, right: 20, top: 14, bottom: 48 }, xAxis: axisOf(diversity, 28), yAxis: axisOf(quality, 42), series: [along, ...series], tell });
    const chart = echarts.getInstanceByDom(box);
    chart.off("click");
    chart.on("click", ({ data }) => data?.point && goTo(data.point.setting, { a: String(data.point.place) }));
  } };
  const row = (point) => [nameOf(point.place), ...point.setting, ...point.texts, edge.includes(point) ? "1" : ""];
  panels($("pareto"), points.length ? [panel] : [], () => [["checkpoint", ...FACTS.knobs, diversity, quality, "front"], ...points.map(row)], tickedKeys());
}

function renderTies() {
  const { selection } = FACTS;
  if (!selection) return panels($("ties"), []);
  const { rule } = selection, most = 20, text = (number) => (number == null ? "" : String(number));
  const named = (each) => each.checkpoint ?? FACTS.knobs.map((knob) => each[knob]).join(" · ");
  const row = (each) => ({ name: named(each), colour: css(each.distinguishable ? "--accent" : "--late"), open: !each.distinguishable,
    value: text(each.difference), low: text(each.difference_low), high: text(each.difference_high) });
  const { checkpoints, settings = [] } = selection.runners_up;
  const kinds = [[rule.checkpoint, checkpoints, "ties.checkpoints"], [rule.setting.by, settings.slice(0, most), "ties.of.settings"]];
  const list = kinds.filter(([, each]) => each.length);
  $("ties-say").textContent = settings.length > most ? t("ties.most", { most, all: settings.length }) : "";
  const said = (each) => [named(each), ...["difference", "difference_low", "difference_high", "p_holm"].map((key) => text(each[key]))];
  panels($("ties"), list.map(([metric, each, key]) => ({ title: t(key, { metric: label(metric) }),
    draw: (box) => dotPanel(box, { rows: each.map(row), zero: true }) })),
  () => [["what", "difference", "low", "high", "p (Holm)"], ...[...checkpoints, ...settings].map(said)]);
}
