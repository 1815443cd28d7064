/**
 * texts.js: the generations that are on the page, what is wrong with each, and a text set as verse with its characters marked.
 *
 * units       the pairs of an example and a sample whose texts are here, each in all checkpoints × settings
 * flawsOf     what is wrong with a text, a bit for each of `flaws`; spelt and flawLine name them
 * versesOf    the nodes of an example: what is given, the texts of some {checkpoint, setting}, the reference
 * textsOf     what some checkpoints wrote at a setting
 * partOf      the place of the character where two texts part, -1 where they do not
 * marks       how characters can be marked
 */
const texts = (() => {
  const { facts, el, t, joined, visible, unpack, unpackText, packedLines } = core, { state, placeOf, nameOf } = store;
  const examples = Object.fromEntries(facts.examples.map((example) => [example.id, example]));
  const units = facts.units, packed = packedLines("units"), opened = new Map(), each = facts.settings.length * facts.checkpoints.length;
  const flaws = facts.metrics.filter((metric) => metric.flaw).map((metric) => metric.name);
  const verseForm = facts.verse, IN_VERSE = verseForm && new RegExp(`^[${verseForm.characters}]$`, "u");
  const rhymes = new Map(); // character → its rhyme groups
  for (const group of verseForm?.rhymes ?? [])
    for (const character of group.characters) rhymes.set(character, [...(rhymes.get(character) ?? []), group]);
  const marks = verseForm ? ["none", "equal", "copied", "rhyme", "tone"] : ["none"];
  let bits = new Uint32Array();

  /** Unpack what is wrong with the texts; to be awaited before a view is rendered. */
  const ready = async () => { bits = new Uint32Array(await unpack(facts.flaw_bits)); };
  const column = (checkpoint, setting) => checkpoint * facts.settings.length + placeOf(setting);
  const flawsOf = (checkpoint, setting, unit) => bits[unit * each + column(checkpoint, setting)];
  const has = (flaw) => 1 << flaws.indexOf(flaw);
  const spelt = (own) => flaws.filter((flaw) => own & has(flaw));
  const flawLabel = (flaw) => core.metrics[flaw].flaw[state.lang];
  const flawLine = (own) => (own ? [el("span", { class: "bad" }, "✗ "), joined(spelt(own).map(flawLabel))]
    : [el("span", { class: "good" }, "✓ "), t("no.flaw")]);

  /** The texts of a unit, unpacked when they are first asked for: see `Unit` in facts.schema.json. */
  async function unitOf(place) {
    if (!opened.has(place)) {
      if (opened.size > 60) opened.delete(opened.keys().next().value);
      opened.set(place, unpackText(packed[place]).then(JSON.parse));
    }
    return opened.get(place);
  }

  const folded = (character) => verseForm.variants[character] ?? character;
  const toneOf = (character) => [...new Set((rhymes.get(character) ?? []).map((group) => (group.level ? "level" : "oblique")))];

  /** Characters of a text, each with its place: number among the verse's characters, clause, place in the clause. */
  function tokens(text) {
    let clause = -1, place = 0, number = 0, inside = false;
    return Array.from(text, (character) => {
      if (!IN_VERSE?.test(character)) { inside = false; return { character }; }
      if (!inside) { clause += 1; place = 0; inside = true; }
      return { character, number: number++, clause, place: place++ };
    });
  }

  /** The last characters of every second clause: those that have to rhyme. */
  function endings(list) {
    const clauses = Map.groupBy(list.filter((token) => token.number !== undefined), (token) => token.clause);
    return [...clauses].filter(([number]) => number % 2).map(([, own]) => own.at(-1));
  }

  /** What a text's characters are marked with: a class for a token, or none. `copied` are runs; undefined: no model wrote it. */
  const marking = {
    none: () => () => "",
    equal(_, { reference }, copied) {
      if (!copied) return () => "";
      const own = new Map(tokens(reference).map((token) => [`${token.clause} ${token.place}`, folded(token.character)]));
      return (token) => (own.get(`${token.clause} ${token.place}`) === folded(token.character) ? "equal" : "");
    },
    copied(_, __, runs = []) {
      const longest = Math.max(0, ...runs.map(({ length }) => length));
      const cover = (token) => runs.filter(({ begin, length }) => begin <= token.number && token.number < begin + length);
      return (token) => (cover(token).some(({ length }) => length === longest) ? "copied longest" : cover(token).length ? "copied" : "");
    },
    rhyme(list, { input, reference }, copied, given) {
      const count = new Map(), own = endings(list);
      for (const character of new Set([...endings(tokens(given ? reference : input)), ...own].map((token) => token.character)))
        for (const group of rhymes.get(character) ?? []) count.set(group, (count.get(group) ?? 0) + 1);
      const most = Math.max(0, ...count.values()), best = [...count.keys()].filter((group) => count.get(group) === most);
      const matches = (token) => most > 1 && rhymes.get(token.character)?.some((group) => best.includes(group));
      return (token) => (!own.includes(token) ? "" : matches(token) ? "rhymes" : rhymes.has(token.character) ? "apart" : "");
    },
    tone: () => (token) => (toneOf(token.character).length > 1 ? "tone both" : toneOf(token.character).map((tone) => `tone ${tone}`)[0] ?? ""),
  };

  /** A text as lines of two clauses; `part` is the place of the character where another text goes another way. */
  function verse(text, example, copied, part = -1) {
    const list = tokens(text), mark = marking[state.mark](list, example, copied, text === example.input), lines = [[[]]];
    list.forEach((token, place) => {
      if (token.place === 0 && token.clause) token.clause % 2 ? lines.at(-1).push([]) : lines.push([[]]);
      const name = [token.number === undefined ? "" : mark(token), place === part ? "part" : ""].filter(Boolean).join(" ");
      const shown = visible(token.character);
      const set = name || shown !== token.character ? el("span", { class: name || "escape" }, shown) : shown;
      lines.at(-1).at(-1).push(token.character === "\n" && !verseForm ? el("br") : set);
    });
    const clause = (own) => el("span", { class: "clause" }, own), line = (own) => el("span", { class: "line" }, own.map(clause));
    return el("p", { class: "verse", lang: verseForm ? "zh-Hant" : null, dir: verseForm ? null : "auto" }, text ? lines.map(line) : el("span", { class: "none" }, t("empty.text")));
  }
  const strophe = (title, about, ...own) =>
    el("section", { class: "strophe" }, el("h3", {}, title), verse(...own), el("p", { class: "about" }, about));

  function partOf(one, other) {
    const [a, b] = [Array.from(one), Array.from(other)], length = Math.min(a.length, b.length);
    const place = a.findIndex((character, i) => i >= length || character !== b[i]);
    return place >= 0 ? place : b.length > length ? length : -1;
  }

  async function versesOf(place, sides) {
    const example = examples[units[place].example], unit = await unitOf(place);
    const codes = sides.map((side) => unit.at[column(side.checkpoint, side.setting)]);
    const part = codes.length === 2 && Math.min(...codes) >= 0 ? partOf(unit.texts[codes[0]], unit.texts[codes[1]]) : -1;
    const own = sides.map(({ checkpoint, setting }, i) => codes[i] < 0 ? el("section", { class: "strophe" }, el("h3", {}, nameOf(checkpoint)), el("p", { class: "none" }, t("not.run"))) :
      strophe(nameOf(checkpoint), flawLine(flawsOf(checkpoint, setting, place)), unit.texts[codes[i]], example, unit.copied[codes[i]], part));
    const nodes = [strophe(t("given"), example.id, example.input, example), ...own, strophe(t("poet"), "", example.reference, example)];
    return { nodes, texts: codes.filter((code) => code >= 0).map((code) => unit.texts[code]), part };
  }

  /** What some checkpoints wrote at a setting: {text, copied, flaws}; `absent` where they were not run at it. */
  async function textsOf(place, checkpoints, setting) {
    const unit = await unitOf(place);
    return checkpoints.map((checkpoint) => {
      const code = unit.at[column(checkpoint, setting)];
      return { text: unit.texts[code] ?? "", copied: unit.copied[code], flaws: flawsOf(checkpoint, setting, place), absent: code < 0 };
    });
  }

  /** How many of the study's texts are on the page, and which. */
  function share() {
    const some = (number) => number.toLocaleString("en"), all = facts.splits.reduce((sum, split) => sum + split.examples * split.samples, 0);
    if (!facts.carries.includes("texts")) return t("texts.absent");
    if (facts.several.length) return t("texts.several", { units: some(units.length), of: some(all) });
    if (units.length === all) return t("texts.all", { all: some(all * each) });
    return t("texts.share", { shown: some(units.length * each), all: some(all * each), percent: ((100 * units.length) / all).toFixed(1),
      units: some(units.length), of: some(all) });
  }

  return Object.freeze({ units, examples, flaws, ready, flawsOf, flawLabel, spelt, has, unitOf, tokens, endings, marking, rhymes, verse, flawLine, versesOf, textsOf, partOf, share, marks });
})();
