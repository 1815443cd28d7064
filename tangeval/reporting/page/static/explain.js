// explain.js: one poem token by token, of `tangeval explain`: what the model offers, what the knobs leave, what noise picks.

const LESSONS = $("lessons").textContent.split("\n").filter(Boolean); // packed, in the order of FACTS.lessons
const OPENED = new Map(); // folder → the content of its explain.json
const TURNS = { temperature: "et", top_k: "ek", top_p: "ep" };
const LIKELIEST = 20; // tokens of a step that are drawn, whatever is cut
const count = (number) => number.toLocaleString("en");

/** A share and a number of choices as one reads them; tests and tangeval's own pictures round the same way. */
const percent = (share) => (share > 0 && share < 0.001 ? "<0.1 %" : share >= 0.995 && share < 0.99999 ? ">99 %"
  : `${(100 * share).toFixed(share >= 0.0995 ? 0 : 1)} %`);
const atLeast = (stage, text) => (stage.least ? `≥ ${text}` : text);
const choices = (entropy) => (Math.exp(entropy) >= 9.95 ? count(Math.round(Math.exp(entropy))) : Math.exp(entropy).toFixed(1));

/** A token as it is shown: blanks made visible. `el` and `fill` escape what cannot be seen. */
const spelled = (lesson, id) => lesson.vocabulary[id].replaceAll(" ", "␣").replaceAll("\n", "⏎");
const word = (lesson, id, name = "") => {
  const text = spelled(lesson, id);
  return el("bdi", { class: `word ${name}`, lang: "zh-Hant", title: text.length > 2 && text }, text); // a long one is cut by the style
};

/** Where the knobs stand: what the address says, else the poem's own setting. Temperatures that are not stored are not known. */
function turned(lesson) {
  const at = (knob) => (state[TURNS[knob]] === "" ? lesson.setting[knob] : Number(state[TURNS[knob]]));
  const heat = at("temperature");
  return { temperature: heat === 0 || lesson.temperatures.includes(heat) ? heat : lesson.setting.temperature, top_k: at("top_k"), top_p: at("top_p") };
}
const stepAt = (lesson) => Math.min(Math.max(Number(state.step || lesson.step), 1), lesson.steps.length);
const spellKnob = (knob, number) => ofKnob(knob, String(number));

/** The values at which a knob's slider stops, what cuts least last. */
function stops(lesson, knob) {
  if (knob === "temperature") return [...new Set([0, ...lesson.temperatures])].sort((a, b) => a - b);
  const range = (from, to, by) => Array.from({ length: Math.floor((to - from) / by) + 1 }, (_, i) => from + i * by);
  const free = knob === "top_k" ? [...range(1, 50, 1), ...range(55, 200, 5)] : range(1, 99, 1).map((hundredths) => hundredths / 100);
  const off = Number(OFF[knob]), own = lesson.settings.map((setting) => setting[knob]);
  return [...new Set([...free, ...own].filter((number) => number !== off))].sort((a, b) => a - b).concat(off);
}

/** The model's own distribution, before any knob: forbidden tokens too. */
function modelStage(step) {
  const logits = step.top.map(([, logit]) => logit), largest = Math.max(...logits);
  const rest = step.rest.count ? Math.exp(step.rest.log_sum[0] - largest) : 0; // temperatures[0] is 1
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit - largest), 0) + rest;
  const p = new Map(step.top.map(([id, logit]) => [id, Math.exp(logit - largest) / total]));
  return { kept: step.top.length + step.rest.count, mass: 1, entropy: step.stages[0][0][2], p };
}

/** What is stored of a cut among tokens that are not: exact for the poem's own settings; null for others. */
function storedStage(lesson, step, place, knobs, before) {
  const same = (setting) => ["temperature", "top_k", "top_p"].slice(0, place).every((knob) => setting[knob] === knobs[knob]);
  const at = lesson.settings.findIndex(same);
  if (at < 0 || !before) return null;
  const [kept, mass, entropy] = step.stages[at][place];
  const p = new Map(step.top.filter(([, , , rank]) => rank >= 0 && rank < kept).map(([id]) => [id, before.p.get(id) / mass]));
  return { kept, mass, entropy, p };
}

/**
 * What is certain of top-p's cut where it falls among tokens that are not stored: all that are stored stay, and what stays
 * held `top_p` or up to one more token, which is less likely than each of 200 that held less than `top_p`: probabilities are
 * right to one in 200. `least`: kept and entropy are lower bounds; no spread of what else stays has less entropy than
 * tokens as likely as the last one stored.
 */
function leastStage(step, topP, before) {
  const sure = step.top.filter(([, , , rank]) => rank >= 0).filter(([, , , rank], place) => rank === place);
  const p = new Map(sure.map(([id]) => [id, before.p.get(id) / topP])), last = p.get(sure.at(-1)[0]);
  const held = [...p.values()].reduce((sum, each) => sum + each, 0), nats = [...p.values()].reduce((sum, each) => sum - each * Math.log(each), 0);
  return { least: true, kept: sure.length, mass: topP, entropy: nats - Math.max(0, 1 - held) * Math.log(last), p };
}

/** The four stages, each {kept, mass of the stage before, entropy, p: id → probability}; null where the file cannot tell. */
function stagesOf(lesson, step, knobs) {
  const { temperature, top_k, top_p } = knobs, model = modelStage(step), found = [model];
  const first = step.top.find(([, , , rank]) => rank === 0)[0];
  const barred = step.top.filter(([, , , rank]) => rank < 0).reduce((sum, [id]) => sum + model.p.get(id), 0);
  for (const [place, setting] of [[1, [0, 1]], [2, [top_k, 1]], [3, [top_k, top_p]]]) {
    const before = found.at(-1), own = distribution(lesson, step, temperature, ...setting);
    if (!own) {
      const beyond = place === 3 && before && !before.least ? () => leastStage(step, top_p, before) : () => null;
      found.push(storedStage(lesson, step, place, knobs, before) ?? beyond());
      continue;
    }
    const p = new Map(own.tokens.map((token) => [token.id, token.p]));
    const mass = place === 1 && temperature ? 1 - barred : before.p.get(first) / p.get(first);
    found.push({ kept: own.kept, mass, entropy: Math.max(0, own.entropy), p });
  }
  return found;
}

/** What noise picks though the cut falls among tokens that are not stored: null unless it is certain. */
function pickBeyond(lesson, step, knobs, last) {
  const own = lesson.follows === "setting" && ["temperature", "top_k", "top_p"].every((knob) => knobs[knob] === lesson.setting[knob]);
  if (own) return step.token;
  const stored = last && !last.least, rivals = [step.rest.score[lesson.temperatures.indexOf(knobs.temperature)]];
  let best = -Infinity, pick = null;
  step.top.filter(([, , , rank]) => rank >= 0).forEach(([id, logit, noise, rank], place) => {
    const score = logit / knobs.temperature + noise;
    if (stored ? rank < last.kept : rank === place) { if (score > best) { best = score; pick = id; } }
    else if (!stored) rivals.push(score);
  });
  return best > Math.max(...rivals) ? pick : null;
}

/** What the knobs leave in the end, a stage and the token that noise picks of it: {last, pick}, each null where the file cannot tell. */
function outcome(lesson, step, knobs) {
  const own = distribution(lesson, step, knobs.temperature, knobs.top_k, knobs.top_p);
  if (own) return { last: { entropy: Math.max(0, own.entropy), kept: own.kept }, pick: own.pick };
  const last = stagesOf(lesson, step, knobs)[3];
  return { last, pick: pickBeyond(lesson, step, knobs, last) };
}

function makeTurns() {
  const slider = (knob) => el("input", { type: "range", id: `turn-${knob}`, min: 0, step: 1,
    on: { input: (event) => change({ [TURNS[knob]]: String(stops(lessonNow(), knob)[event.target.value]) }) } });
  fill($("turn"), Object.keys(TURNS).map((knob) => el("div", { class: "knob" },
    el("label", { for: `turn-${knob}`, "data-t": `knob.${knob}` }), el("output", { for: `turn-${knob}` }), slider(knob))));
  $("own-setting").onclick = () => change({ et: "", ek: "", ep: "" });
  $("lesson-pick").onchange = () => change({ lesson: $("lesson-pick").value, step: "" });
  $("step-before").onclick = () => walk(-1);
  $("step-next").onclick = () => walk(1);
  $("walk").onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!by) return;
    event.preventDefault();
    walk(by);
    $(`walk-${stepAt(lessonNow())}`).focus();
  };
}

const lessonNow = () => OPENED.get(state.lesson);
const walk = (by) => change({ step: String(Math.min(Math.max(stepAt(lessonNow()) + by, 1), lessonNow().steps.length)) });

async function renderExplain() {
  const folder = state.lesson, place = FACTS.lessons.findIndex((each) => each.folder === folder);
  $("no-lesson").hidden = place >= 0;
  $("explain-command").textContent = visible(`tangeval explain ${FACTS.study}.yaml --prompt 1`);
  $("lesson").hidden = place < 0;
  $("lessons-left").hidden = !FACTS.lessons_left.length;
  $("lessons-left").textContent = lessonsLeft().map(visible).join(t("stop"));
  if (place < 0) return;
  if (!OPENED.has(folder)) OPENED.set(folder, JSON.parse(await unpackText(LESSONS[place])));
  if (state.lesson === folder && state.tab === "explain") drawLesson(OPENED.get(folder)); // else the reader has moved on
}

const lessonsLeft = () => FACTS.lessons_left.map(([folder, why]) => t(`explain.left.${why}`, { folder: `explain/${folder}`, n: FACTS.lessons_most }));

function drawLesson(lesson) {
  const knobs = turned(lesson), at = stepAt(lesson), step = lesson.steps[at - 1];
  drawTurns(lesson, knobs);
  keepingFocus(() => {
    drawWalk(lesson, knobs, at);
    drawStages(lesson, knobs, step, at);
    drawNoises(lesson, knobs, step);
  });
}

/** Redraw; what had the keyboard has it again. */
function keepingFocus(redraw) {
  const { id } = document.activeElement;
  redraw();
  if (id && document.activeElement.id !== id) $(id)?.focus({ preventScroll: true });
}

function drawTurns(lesson, knobs) {
  const title = (each) => joined([each.couplet, each.example, each.checkpoint, ...(each.follows === "reference" ? [t("poet")] : [])]);
  fill($("lesson-pick"), FACTS.lessons.map((each) => el("option", { value: each.folder, selected: each.folder === state.lesson }, title(each))));
  $("lesson-pick").selectedIndex = FACTS.lessons.findIndex((each) => each.folder === state.lesson); // an attribute's text is escaped
  Object.keys(TURNS).forEach((knob, place) => {
    const [, output, slider] = $("turn").children[place].children, values = stops(lesson, knob);
    const size = (number) => (knob === "top_k" && number === 0 ? Infinity : number);
    slider.max = values.length - 1;
    slider.value = values.findIndex((number) => size(number) >= size(knobs[knob]));
    slider.setAttribute("aria-valuetext", spellKnob(knob, knobs[knob]));
    output.textContent = spellKnob(knob, knobs[knob]);
  });
  const own = Object.keys(TURNS).map((knob) => `${t(`knob.${knob}`)} ${spellKnob(knob, lesson.setting[knob])}`);
  $("own-setting").textContent = t("explain.own", { setting: joined(own) });
  const stored = Math.min(...lesson.steps.map((step) => step.top.length));
  $("snap").textContent = t("explain.snap", { stored });
}

/** The poem as towers: the model's effective choices, and in them what the knobs leave; under a tower what noise picks instead. */
function drawWalk(lesson, knobs, at) {
  const tallest = Math.max(...lesson.steps.map((step) => step.stages[0][0][2])), clauses = [[]];
  lesson.steps.forEach((step, place) => {
    clauses.at(-1).push(tower(lesson, step, place + 1, at, outcome(lesson, step, knobs), tallest));
    if (/\p{P}$/u.test(lesson.vocabulary[step.token])) clauses.push([]);
  });
  const whole = clauses.filter((clause) => clause.length);
  if (whole.length > 1 && whole.at(-1).length === 1) whole.at(-2).push(...whole.pop()); // the end stays with its clause
  fill($("walk"), whole.map((clause) => el("span", { class: "steps" }, clause)));
  const { checkpoint, sample, follows, example_id: example } = lesson;
  $("whose").textContent = visible(t(`explain.whose.${follows}`, { checkpoint: checkpoint.name, sample: sample + 1, example, couplet: lesson.couplet }));
  $("step-before").disabled = at === 1;
  $("step-next").disabled = at === lesson.steps.length;
}

function tower(lesson, step, number, at, { last, pick }, tallest) {
  const before = step.stages[0][0][2], high = (nats) => `height:${((100 * nats) / tallest).toFixed(2)}%`;
  const other = pick !== step.token;
  const said = [t("explain.tower", { n: number, token: spelled(lesson, step.token), before: choices(before), after: last ? atLeast(last, choices(last.entropy)) : "?" }),
    ...(other ? [pick === null ? t("explain.pick.unknown") : t("explain.pick.other", { token: spelled(lesson, pick) })] : [])].join(t("stop"));
  return el("button", { type: "button", id: `walk-${number}`, class: `tower ${other ? "other" : ""}`, tabindex: number === at ? 0 : -1, title: said,
    "aria-label": said, "aria-current": number === at && "step", on: { click: () => change({ step: String(number) }) } },
  el("span", { class: "bars" }, el("i", { class: "was", style: high(before) }), last?.least && el("i", { class: "gone", style: high(before) }), el("i", { class: last ? "now" : "gone", style: high(last ? last.entropy : before) })),
  word(lesson, step.token), el("span", { class: "instead" }, other ? (pick === null ? "?" : word(lesson, pick)) : "\u00a0"));
}

/** The tokens to draw: the likeliest, the edges of the cuts, what noise picks and what the text has. */
function drawnTokens(step, stages, pick) {
  const edges = stages.slice(2).flatMap((stage) => (stage ? [stage.kept - 1, stage.kept] : []));
  return step.top.filter(([id, , , rank], place) => place < LIKELIEST || edges.includes(rank) || id === pick || id === step.token);
}

function drawStages(lesson, knobs, step, at) {
  const stages = stagesOf(lesson, step, knobs), { pick } = outcome(lesson, step, knobs), tokens = drawnTokens(step, stages, pick);
  const largest = Math.max(...stages.flatMap((stage) => (stage ? tokens.map(([id]) => stage.p.get(id) ?? 0) : [])));
  const row = (token) => tokenRow(lesson, step, knobs, stages, token, pick, largest);
  const so = lesson.steps.slice(0, at - 1).map((each) => lesson.vocabulary[each.token]).join("").trim();
  fill($("so-far"), el("span", { class: "verse", lang: "zh-Hant" }, lesson.couplet, so, el("span", { class: "blank" }, "＿")));
  const others = otherRow(step, stages, tokens);
  fill($("stages"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("b", {}, t("explain.token"))), stages.map((stage, place) => stageHead(stage, place, knobs)),
    el("th", { scope: "col", class: "score" }, el("b", {}, t("explain.score")), el("small", {}, t("explain.score.say"))))),
  el("tbody", {}, tokens.map(row), others));
  const sign = (name, text) => el("span", {}, el("span", { class: "bar" }, el("i", { class: name })), text);
  fill($("stages-keys"), sign("now", t("explain.now")), sign("was", t("explain.was")), sign("gone", t("explain.gone")), sign("now mine", t("explain.mine")), el("span", {}, t("explain.scale")));
  const said = sayPick(lesson, step, knobs, stages, pick);
  fill($("drawn"), said);
  clearTimeout(drawStages.later);
  drawStages.later = setTimeout(() => { $("drawn-live").textContent = $("drawn").textContent; }, 400);
}

function stageHead(stage, place, knobs) {
  const knob = Object.keys(TURNS)[place - 1], name = knob ? `→ ${t(`knob.${knob}`)} ${spellKnob(knob, knobs[knob])}` : t("explain.model");
  if (!stage) return el("th", { scope: "col" }, el("b", {}, name), el("small", { class: "unknown" }, t("explain.unknown")));
  const { kept, mass, entropy } = stage, wide = (share) => `width:${(100 * share).toFixed(2)}%`;
  return el("th", { scope: "col" }, el("b", {}, name),
    el("small", { class: "kept" }, t(kept === 1 ? "explain.kept.one" : "explain.kept", { n: atLeast(stage, count(kept)) })),
    el("small", { class: "mass" }, t("explain.mass", { share: `${stage.least ? "≈ " : ""}${percent(mass)}` })),
    el("small", { class: "nats" }, t("explain.nats", { nats: atLeast(stage, entropy.toFixed(2)) })),
    el("small", { class: "choices" }, t("explain.entropy", { n: `${stage.least ? "≥" : "≈"} ${choices(entropy)}` })),
    el("span", { class: "strip", "aria-hidden": "true" }, el("i", { class: "now", style: wide(mass) }), el("i", { class: "gone", style: wide(1 - mass) })));
}

function tokenRow(lesson, step, knobs, stages, [id, logit, noise, rank], pick, largest) {
  const setting = (stage, place) => {
    const p = stage?.p.get(id), before = stages[place - 1]?.p.get(id), wide = (share) => `width:${((100 * share) / largest).toFixed(2)}%`;
    if (!stage) return el("td", {}, "?");
    if (p === undefined && before === undefined) return el("td");
    if (p === undefined) return el("td", {}, bar(el("i", { class: "gone", style: wide(before) })), el("span", { class: "p" }, rank < 0 ? t("explain.repeats") : "×", el("span", { class: "sr" }, t("explain.gone"))));
    return el("td", {}, bar(el("i", { class: "now", style: wide(p) }), before === undefined ? null : el("i", { class: "was", style: wide(before) })), el("span", { class: "p" }, percent(p)));
  };
  const stays = stages[3]?.p.has(id) && knobs.temperature > 0;
  return el("tr", { "data-id": id, class: `${id === pick ? "mine" : ""} ${rank < 0 ? "barred" : ""}` },
    el("th", { scope: "row" }, el("small", {}, rank < 0 ? "–" : count(rank + 1)), word(lesson, id)),
    stages.map(setting), el("td", { class: "score", title: `${logit} / ${knobs.temperature} + ${noise}` }, stays ? (logit / knobs.temperature + noise).toFixed(2) : ""));
}
const bar = (...parts) => el("span", { class: "bar" }, parts);

/** What the tokens that are not drawn hold together. */
function otherRow(step, stages, tokens) {
  const number = step.top.length + step.rest.count - tokens.length;
  if (!number) return null;
  const held = (stage) => stage && Math.max(0, 1 - tokens.reduce((sum, [id]) => sum + (stage.p.get(id) ?? 0), 0));
  const some = (stage) => stage && stage.kept > tokens.filter(([id]) => stage.p.has(id)).length;
  return el("tr", { class: "others" }, el("th", { scope: "row" }, t("explain.others", { n: count(number) })),
    stages.map((stage) => el("td", {}, !stage ? "?" : some(stage) ? percent(held(stage)) : "")), el("td", { class: "score" }));
}

function sayPick(lesson, step, knobs, stages, pick) {
  const text = pick === step.token ? [] : [t("stop"), t(`explain.text.${lesson.follows}`), " ", word(lesson, step.token)];
  if (pick === null) return [t("explain.pick.unknown"), text];
  const rank = step.top.find(([id]) => id === pick)?.[3], p = stages[3]?.p.get(pick);
  const how = rank === undefined ? t("explain.pick.rest", { n: count(step.rest.count) })
    : t("explain.pick.how", { rank: count(rank + 1), before: percent(stages[0].p.get(pick)), after: p === undefined ? "?" : percent(p) });
  return [knobs.temperature ? t("explain.pick") : t("explain.pick.greedy"), " ", word(lesson, pick, "mine"), t("colon"), how, text];
}

/** One knob turned from the poem's own setting: what stays here, what the same noise picks, and what that setting writes by itself. */
function drawNoises(lesson, knobs, step) {
  const drawn = [state.lang, state.lesson, step];
  if (!drawn.every((each, place) => drawNoises.drawn?.[place] === each)) fillNoises(lesson, step); // a knob changes nothing in it but where one stands
  drawNoises.drawn = drawn;
  for (const row of $("noises").tBodies[0].rows) row.classList.toggle("here", Object.keys(TURNS).every((knob) => lesson.settings[row.dataset.setting][knob] === knobs[knob]));
}

function fillNoises(lesson, step) {
  const rows = Object.entries(lesson.knobs).filter(([, places]) => places.length > 1).flatMap(([knob, places]) => places.map((place) => [knob, place]));
  const own = lesson.settings[0].text;
  const settings = ([knob, place]) => {
    const setting = lesson.settings[place], { pick } = outcome(lesson, step, setting), [kept, , entropy] = step.stages[place][3];
    const set = () => change(Object.fromEntries(Object.entries(TURNS).map(([name, key]) => [key, String(setting[name])])));
    return [el("button", { type: "button", id: `noise-${knob}-${place}`, on: { click: set } }, `${t(`knob.${knob}`)} ${spellKnob(knob, setting[knob])}`), count(kept), choices(entropy),
      pick === null ? "?" : word(lesson, pick, pick === step.token ? "" : "mine"), parted(own, setting.text)];
  };
  fillTable($("noises"), ["setting", "stays", "choices", "picks", "writes"].map((name) => t(`explain.${name}`)), rows.map(settings),
    (place) => ({ "data-setting": rows[place][1] }));
}

/** A text, with a box where it parts from `own`. */
function parted(own, text) {
  const place = partOf(own, text), all = Array.from(text);
  if (place < 0) return el("span", { class: "writes", lang: "zh-Hant" }, text);
  return el("span", { class: "writes", lang: "zh-Hant" }, all.slice(0, place).join(""), el("span", { class: "part" }, all[place] ?? "▢"), all.slice(place + 1).join(""));
}
