// poems.js: texts set like verse beside the poet's own, marked character by character, and found by what broke.

const EXAMPLES = Object.fromEntries(FACTS.examples.map(([id, split, couplet, reference]) => [id, { id, split, couplet, reference }]));
const PLACES = FACTS.places.map(([example, sample]) => ({ id: FACTS.examples[example][0], split: FACTS.examples[example][1], sample }));
const HAN = new RegExp(`^[${FACTS.han}]$`, "u");
const VARIANT = new Map(Array.from(FACTS.variants.matchAll(/(.)(.)/gsu), ([, from, to]) => [from, to]));
const GROUPS = new Map(); // character → names of its rhyme groups
for (const [group, characters] of Object.entries(FACTS.groups))
  for (const character of characters) GROUPS.set(character, [...(GROUPS.get(character) ?? []), group]);
let FLAWS = new Uint16Array();
const units = new Map();

const folded = (character) => VARIANT.get(character) ?? character;
const toneOf = (character) => [...new Set((GROUPS.get(character) ?? []).map((group) => (group.includes("平聲") ? "level" : "oblique")))];
const settingNumber = (setting) => SETTING.get(setting.join("|"));
const column = (checkpoint, setting) => checkpoint * FACTS.settings.length + settingNumber(setting);
const flawsOf = (checkpoint, setting, unit) => FLAWS[unit * FACTS.settings.length * FACTS.checkpoints.length + column(checkpoint, setting)];
const spelt = (bits) => FACTS.flaws.filter((_, bit) => bits & (1 << bit));
const bitCount = (bits) => spelt(bits).length;

/** The texts of one poem and sample, unpacked when they are first asked for. */
async function unitOf(place) {
  if (!units.has(place)) {
    if (units.size > 60) units.delete(units.keys().next().value);
    units.set(place, unpackText(UNITS[place]).then(JSON.parse));
  }
  return units.get(place);
}

/** Characters of a text, each with its place: number among Han characters, clause, place in the clause. */
function tokens(text) {
  let clause = -1, place = 0, han = 0, inside = false;
  return Array.from(text, (character) => {
    if (!HAN.test(character)) { inside = false; return { character }; }
    if (!inside) { clause += 1; place = 0; inside = true; }
    return { character, han: han++, clause, place: place++ };
  });
}

/** The last characters of every second clause: those that have to rhyme. */
function endings(list) {
  const clauses = Map.groupBy(list.filter((token) => token.han !== undefined), (token) => token.clause);
  return [...clauses].filter(([number]) => number % 2).map(([, own]) => own.at(-1));
}

/** What a text's characters are marked with: a class for a token, or none. */
const MARKING = {
  none: () => () => "",
  equal(_, { reference }, copied) {
    if (!copied) return () => ""; // given, or the poet's own
    const own = new Map(tokens(reference).map((token) => [`${token.clause} ${token.place}`, folded(token.character)]));
    return (token) => (own.get(`${token.clause} ${token.place}`) === folded(token.character) ? "equal" : "");
  },
  copied(_, __, copied = []) {
    const runs = Array.from({ length: copied.length / 2 }, (___, i) => [copied[2 * i], copied[2 * i + 1]]);
    const longest = Math.max(0, ...runs.map(([, length]) => length));
    const cover = (token) => runs.filter(([begin, length]) => begin <= token.han && token.han < begin + length);
    return (token) => (cover(token).some(([, length]) => length === longest) ? "copied longest" : cover(token).length ? "copied" : "");
  },
  rhyme(list, { couplet, reference }, copied, given) {
    const count = {}, own = endings(list);
    for (const { character } of [...endings(tokens(given ? reference : couplet)), ...own])
      for (const group of GROUPS.get(character) ?? []) count[group] = (count[group] ?? 0) + 1;
    const most = Math.max(0, ...Object.values(count)), best = Object.keys(count).filter((group) => count[group] === most);
    const rhymes = (token) => most > 1 && GROUPS.get(token.character)?.some((group) => best.includes(group));
    return (token) => (!own.includes(token) ? "" : rhymes(token) ? "rhymes" : GROUPS.has(token.character) ? "apart" : "");
  },
  tone: () => (token) => (toneOf(token.character).length > 1 ? "tone both" : toneOf(token.character).map((tone) => `tone ${tone}`)[0] ?? ""),
};

/** A text as lines of two clauses; `part` is the place of the character where another text goes another way. */
function verse(text, example, copied, part = -1) {
  const list = tokens(text), mark = MARKING[state.mark](list, example, copied, text === example.couplet), lines = [[[]]];
  list.forEach((token, place) => {
    if (token.place === 0 && token.clause) token.clause % 2 ? lines.at(-1).push([]) : lines.push([[]]);
    const name = [token.han === undefined ? "" : mark(token), place === part ? "part" : ""].filter(Boolean).join(" ");
    const shown = visible(token.character);
    lines.at(-1).at(-1).push(name || shown !== token.character ? el("span", { class: name || "escape" }, shown) : shown);
  });
  const clause = (own) => el("span", { class: "clause" }, own), line = (own) => el("span", { class: "line" }, own.map(clause));
  return el("p", { class: "verse", lang: "zh-Hant" }, text ? lines.map(line) : el("span", { class: "none" }, t("empty.text")));
}

function strophe(title, about, text, example, copied, part) {
  return el("section", { class: "strophe" }, el("h3", {}, title), verse(text, example, copied, part), el("p", { class: "about" }, about));
}

const flawLine = (bits) => (bits ? [el("span", { class: "bad" }, "✗ "), joined(spelt(bits).map((flaw) => t(`flaw.${flaw}`)))]
  : [el("span", { class: "good" }, "✓ "), t("no.flaw")]);

/** What stands beside: checkpoint and setting, or nothing. */
function beside() {
  if (state.b === "") return null;
  if (state.b !== "pin") return { checkpoint: Number(state.b), setting: settingNow() };
  const [checkpoint, ...setting] = state.pin.split("~");
  return state.pin ? { checkpoint: Number(checkpoint), setting } : null;
}

const partOf = (one, other) => {
  const [a, b] = [Array.from(one), Array.from(other)], length = Math.min(a.length, b.length);
  const place = a.findIndex((character, i) => i >= length || character !== b[i]);
  return place >= 0 ? place : b.length > length ? length : -1;
};

async function versesOf(place, sides) {
  const example = EXAMPLES[PLACES[place].id], [texts, copied, at] = await unitOf(place);
  const codes = sides.map((side) => at[column(side.checkpoint, side.setting)]);
  const part = codes.length === 2 ? partOf(texts[codes[0]], texts[codes[1]]) : -1;
  const own = sides.map(({ checkpoint, setting }, i) =>
    strophe(nameOf(checkpoint), flawLine(flawsOf(checkpoint, setting, place)), texts[codes[i]], example, copied[codes[i]], part));
  const given = strophe(t("given"), example.id, example.couplet, example);
  return { nodes: [given, ...own, strophe(t("poet"), "", example.reference, example)], texts: codes.map((code) => texts[code]), part };
}

/** The units of the split at hand, as the filter orders or thins them; `first` has the worst first. */
function listed() {
  const setting = settingNow(), all = PLACES.map((where, place) => ({ ...where, place, bits: flawsOf(Number(state.a), setting, place) }));
  const own = all.filter((unit) => unit.split === state.split);
  const bit = FACTS.flaws.indexOf(state.flaw);
  const kept = bit < 0 ? own : own.filter((unit) => unit.bits & (1 << bit));
  return { own, kept: state.flaw === "first" ? kept.toSorted((one, other) => bitCount(other.bits) - bitCount(one.bits)) : kept };
}

function go(what, by) {
  const { kept } = listed(), sample = Number(state.sample);
  const poems = [...new Set(kept.map((unit) => unit.id))];
  const samples = kept.filter((unit) => unit.id === state.poem).map((unit) => unit.sample).sort((a, b) => a - b);
  const step = (list, now) => list[(list.indexOf(now) + by + list.length) % list.length] ?? list[0];
  if (!kept.length) return;
  if (what === "sample" && samples.length) return change({ sample: String(step(samples, sample)) });
  const poem = step(poems, state.poem), there = kept.filter((unit) => unit.id === poem).map((unit) => unit.sample);
  change({ poem, sample: String(there.includes(sample) ? sample : there[0]) });
}

function renderFilter({ own, kept }) {
  const among = (key) => (key === "all" ? own : own.filter(({ bits }) => (key === "first" ? bits : bits & (1 << FACTS.flaws.indexOf(key)))));
  for (const box of document.querySelectorAll("[data-radio=flaw] input")) box.nextSibling.lastChild.textContent = ` ${among(box.value).length}`;
  const worst = new Map();
  for (const unit of kept) worst.set(unit.id, [...(worst.get(unit.id) ?? []), unit.bits]);
  if (!worst.has(state.poem) && own.some((unit) => unit.id === state.poem)) worst.set(state.poem, []);
  fill($("pick"), [...worst].map(([id, bits]) => {
    const flawed = bits.filter(Boolean).length;
    return el("option", { value: id, selected: id === state.poem }, `${EXAMPLES[id].couplet}${flawed ? `  ✗ ${flawed}/${bits.length}` : ""}`);
  }));
}

/** How many of the study's texts are on the page, and which. */
function share() {
  const each = FACTS.settings.length * FACTS.checkpoints.length, some = (number) => number.toLocaleString("en");
  if (!FACTS.has_texts) return t("texts.absent");
  if (PLACES.length === FACTS.noise) return t("texts.all", { all: some(FACTS.noise * each) });
  return t("texts.share", {
    shown: some(PLACES.length * each), all: some(FACTS.noise * each), percent: ((100 * PLACES.length) / FACTS.noise).toFixed(1),
    units: some(PLACES.length), of: some(FACTS.noise),
  });
}

async function renderPoems() {
  const setting = settingNow(), ready = PLACES.length > 0;
  $("share").textContent = share();
  $("with-texts").hidden = !ready;
  if (!ready) return;
  const list = listed(), mine = list.own.filter((unit) => unit.id === state.poem);
  if (!mine.length) {
    if (list.own.length) return change({ poem: list.kept[0]?.id ?? list.own[0].id, sample: "0" });
    fill($("verses"), el("p", {}, t("texts.none.here")));
    return;
  }
  const unit = mine.find((each) => each.sample === Number(state.sample)) ?? mine[0];
  renderFilter(list);
  fill($("legend"), legend());
  const sides = [{ checkpoint: Number(state.a), setting }, beside()].filter(Boolean);
  if (sides.some((side) => settingNumber(side.setting) === undefined)) return fill($("verses"), el("p", {}, t("no.setting")));
  const turn = (renderPoems.turn = (renderPoems.turn ?? 0) + 1);
  const { nodes, texts, part } = await versesOf(unit.place, sides);
  if (turn !== renderPoems.turn) return; // the reader has moved on
  if (state.b === "pin" && sides[1]) nodes[2].querySelector(".about").append(el("br"), `${t("pinned")}${t("colon")}${spell(sides[1].setting)}`);
  fill($("verses"), nodes);
  $("verses").classList.toggle("upright", state.up);
  const sample = `${t("sample.n", { n: unit.sample + 1, of: FACTS.samples[state.split] })}${t("stop")}`;
  const at = (text) => visible(Array.from(text)[part] ?? t("end"));
  const apart = FACTS.manifest.noise_shared === false, where = { n: part + 1, one: at(texts[0]), other: at(texts[1] ?? "") };
  const same = () => t(apart ? "same.text.apart" : "same.text"), parted = () => (apart ? t("part.apart", where) : t("part", where));
  $("part").textContent = sample + (texts.length < 2 ? "" : part < 0 ? same() : parted());
}

function legend() {
  const sign = (name, text) => [el("span", { class: `verse key ${name}`, lang: "zh-Hant" }, "字"), ` ${text}  `];
  return {
    none: [], equal: sign("equal", t("mark.equal.say")),
    copied: [sign("copied", t("mark.copied.say", { n: FACTS.least_run })), sign("copied longest", t("mark.longest.say"))],
    rhyme: [sign("rhymes", t("mark.rhymes.say")), sign("apart", t("mark.apart.say"))],
    tone: [sign("tone level", t("mark.level.say")), sign("tone oblique", t("mark.oblique.say")), sign("tone both", t("mark.both.say"))],
  }[state.mark].concat(beside() ? sign("part", t("mark.part.say")) : []).flat();
}
