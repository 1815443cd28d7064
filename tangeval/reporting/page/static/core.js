"use strict";
/**
 * core.js: what the page carries, its words, its nodes and its views; the other scripts use `core` alone of it.
 *
 * facts       the content of facts.schema.json
 * addView     registers a view; what it needs must be on the page, else it is not shown
 * views       those that are shown, in order
 * el, fill    nodes, whose texts can never be markup
 * help        a "?" that says what a metric or term means
 * t           a string in the reader's language; label and knobLabel those of a metric and a knob
 * tables      name → {csv, names, rows, at}: rows of the very strings that the CSV file has
 */
const core = (() => {
  const $ = (id) => document.getElementById(id);
  const read = (id) => JSON.parse($(id).textContent);
  const facts = read("facts"), strings = read("strings"), tables = {}, views = [];
  const metrics = Object.fromEntries(facts.metrics.map((metric) => [metric.name, metric]));
  const knobs = Object.fromEntries(facts.knobs.map((knob) => [knob.name, knob]));
  const reader = { lang: "en" };

  /** Characters that show nothing or turn the direction of writing, as escapes one can see. */
  const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
  const visible = (text) =>
    String(text).replace(UNSEEN, (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);

  /** An element; children that are no nodes become inert text. `on` holds listeners. */
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "on") for (const [event, listen] of Object.entries(value)) node.addEventListener(event, listen);
      else if (name === "value") node.value = value;
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, visible(value));
    }
    return fill(node, ...children);
  }

  /** Replace what is in `node`; nothing stands for null and false. */
  function fill(node, ...children) {
    node.replaceChildren(...children.flat(2).filter((c) => c != null && c !== false).map((c) => (c instanceof Node ? c : visible(c))));
    return node;
  }

  /** The string of `key` in the reader's language, with {names} filled in. */
  function t(key, values = {}) {
    const text = strings[reader.lang][key];
    if (text === undefined) throw new Error(`no string ${key} in ${reader.lang}`);
    return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  }
  /** A metric's label, with its scale where that ends at 100: no such number is read as a percentage of anything. */
  const label = (metric) => metrics[metric].label[reader.lang].replace(/ [(（].*/, "") + (metrics[metric].most > 1 ? ` 0–${metrics[metric].most}` : "");
  const knobLabel = (knob) => t(`knob.${knob}`);
  const joined = (names) => names.join(t("comma"));

  /** Add strings of both languages; a key that is there already, or in one language alone, is an error. */
  function addStrings(more) {
    for (const [lang, own] of Object.entries(strings))
      for (const key of new Set(Object.values(more).flatMap(Object.keys))) {
        if (key in own || more[lang]?.[key] === undefined) throw new Error(`string ${key}: once in each language`);
        own[key] = more[lang][key];
      }
  }

  for (const { name, label: own } of facts.knobs) addStrings({ en: { [`knob.${name}`]: own.en }, zh: { [`knob.${name}`]: own.zh } });

  /**
   * A part of a tab: {id, tab, title: {en, zh}, needs: [what `facts.carries` must hold], render(node)}; as it likes
   * `note` and `strings` ({en, zh}), `state()` (see store.declare), `controls` (keys of the state that get a menu),
   * `kind` ("picture": panels that can be saved; "bare": no heading), `place` ("aside"), `everywhere` (rendered whatever tab is open), and `make(node)`, called once; `ahead()` is awaited once the page is shown.
   */
  function addView(view) {
    if (!(view.needs ?? []).every((each) => facts.carries.includes(each))) return;
    const own = (lang) => ({ [view.id]: view.title[lang], ...(view.note && { [`${view.id}.note`]: view.note[lang] }), ...view.strings?.[lang] });
    addStrings({ en: own("en"), zh: own("zh") });
    views.push(view);
  }

  async function unpack(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).arrayBuffer();
  }
  const unpackText = async (base64) => new TextDecoder().decode(await unpack(base64));
  /** The packed lines of an element. */
  const packedLines = (id) => $(id).textContent.split("\n").filter(Boolean);

  function parseCsv(csv) {
    const cells = csv.includes('"') ? quoted(csv) : csv.trimEnd().split("\n").map((line) => line.split(","));
    const [names, ...rows] = cells.map((row) => row.map((cell) => cell.replace(/^'(?='*[=+@\t\r-])/, "")));
    return { csv, names, rows, at: Object.fromEntries(names.map((name, place) => [name, place])) };
  }

  /** RFC 4180, for files in which a name has a comma, a quote or a line's end. */
  function quoted(csv) {
    const rows = [[]];
    for (const [, text, plain, end] of csv.matchAll(/(?:"((?:[^"]|"")*)"|([^,\n]*))(,|\n|$)/g)) {
      rows.at(-1).push(text === undefined ? plain : text.replaceAll('""', '"'));
      if (end === "\n") rows.push([]);
      if (end === "") break;
    }
    return rows.filter((row) => row.length > 1 || row[0]);
  }

  const ROWS = new Map(); // split, checkpoint and setting of a row of summary.csv → the row
  const keyOf = (split, checkpoint, setting) => JSON.stringify([split, checkpoint, ...facts.knobs.map(({ name }) => setting[name] ?? "")]);

  /** Unpack the tables; to be awaited before a view is rendered. */
  async function readTables() {
    for (const [name, base64] of Object.entries(read("tables"))) tables[name] = parseCsv(await unpackText(base64));
    for (const get of records("summary")) {
      const setting = Object.fromEntries(facts.knobs.map(({ name }) => [name, get(name)]));
      ROWS.set(keyOf(get("split"), get("checkpoint"), setting), get);
    }
  }

  /** A table's rows, each a function from a column's name to the file's string; none where the table is not here. */
  const records = (name) => (tables[name]?.rows ?? []).map((row) => (column) => row[tables[name].at[column]] ?? "");
  /** A value of the summary, low and high, as the file has them: "" where nothing was measured. A baseline has no setting. */
  function triple(split, checkpoint, setting, metric) {
    const get = ROWS.get(keyOf(split, checkpoint, facts.baselines.includes(checkpoint) ? {} : setting));
    return get ? ends(get, metric) : ["", "", ""];
  }
  const ends = (get, metric) => ["", "_low", "_high"].map((end) => get(metric + end));
  const value = (split, checkpoint, setting, metric) => triple(split, checkpoint, setting, metric)[0];

  /** A number as one reads it. The element made by `number` holds the file's own string too. */
  function short(text) {
    if (text === "" || text == null) return "–";
    const size = Math.abs(Number(text));
    return Number(text).toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 2 : 3).replace("-", "−");
  }
  const number = (text) => (text === "" ? el("span", { class: "none" }, "–") : el("data", { value: text, title: text }, reader.digits ? text : short(text)));
  const interval = (low, high) => (low === "" || high === "" ? el("span", { class: "interval", title: t("no.interval") }, "[–]") : el("span", { class: "interval" }, "[", number(low), ", ", number(high), "]"));
  const measured = ([middle, low, high]) => el("span", {}, number(middle), " ", middle === "" ? null : interval(low, high));

  /** A "?" that says what a metric or term means, with an example of either kind; nothing where the glossary has it not. */
  function help(word) {
    const entry = facts.glossary[word];
    if (!entry) return null;
    const show = (event) => {
      const { lang } = reader, spoken = (example) => (typeof example === "string" ? `白日依山盡，黃河入海流。${example}` : example[lang]); // verse follows this couplet
      event.stopPropagation();
      event.preventDefault();
      fill($("help"), el("h3", {}, entry.name?.[lang] ?? metrics[word].label[lang]), el("p", {}, entry[lang]),
        ["yes", "no"].filter((side) => entry[side]).map((side) => el("p", { class: "example" }, el("b", {}, side === "yes" ? "✓ " : "✗ "), spoken(entry[side]))));
      $("help").showPopover();
    };
    return el("button", { type: "button", class: "help", "aria-label": `${t("what.is")} ${entry.name?.[reader.lang] ?? label(word)}`, on: { click: show } }, "?");
  }

  const SIGNS = { shown: "✓", not_shown: "?", no_difference: "=" };
  /** What may be said of results, in words: tested, and put into words, where they were made. */
  const claims = ({ said, basis }) => [el("dl", {}, said.map(({ question, status, word, answer }) => el("div", { class: `claim ${status}` },
    el("dt", {}, question, " ", word && [el("span", { class: "chip" }, `${SIGNS[status]} ${word}`), help("verdict")]), el("dd", {}, answer)))), el("p", { class: "note" }, basis)];

  /** Fill a table: `head` names the columns; a row is what names it, then its cells; `of` gives a row's attributes. */
  function fillTable(table, head, rows, of = () => ({})) {
    const heads = head.map((name) => el("th", { scope: "col", class: facts.baselines.includes(name) ? "yard" : name.length > 20 ? "long" : "" }, name, facts.baselines.includes(name) && help(name)));
    const body = rows.map(([name, ...cells], place) => el("tr", of(place), el("th", { scope: "row" }, name), cells.map((cell) => el("td", {}, cell))));
    return fill(table, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body));
  }
  /** The table of a setting: a metric a row, a column for each of `names`; `here` is the metric to mark. */
  function numbersTable(table, split, setting, names, shown, here) {
    const own = shown.filter((metric) => names.some((name) => value(split, name, setting, metric) !== ""));
    const low = (metric) => metrics[metric].better === "low" && el("small", { title: t("low.better") }, " ↓", el("span", { class: "sr" }, t("low.better")));
    const rows = own.map((metric) => [el("span", {}, label(metric), low(metric), help(metric)), ...names.map((name) => measured(triple(split, name, setting, metric)))]);
    fillTable(table, [t("metric"), ...names], rows, (place) => ({ "data-metric": own[place], class: own[place] === here ? "here" : "" }));
  }
  /** A table that scrolls sideways by itself, named by the string `key`. */
  const scroller = (id, key) => el("div", { class: "scroll", tabindex: 0, role: "region", "data-label": key }, el("table", { id }));

  function save(name, content, type) {
    const link = el("a", { download: name });
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  return Object.freeze({
    $, facts, strings, tables, views, metrics, knobs, reader, visible, el, fill, t, label, knobLabel, joined, addStrings, addView,
    unpack, unpackText, packedLines, readTables, records, triple, ends, value, short, number, interval, measured, help, claims, fillTable, numbersTable, scroller, save,
  });
})();
const { addView } = core;
