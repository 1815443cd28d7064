"use strict";
// page.js: what the page carries, unpacked; strings; and the one way anything is put on it, as text.

const $ = (id) => document.getElementById(id);
const FACTS = JSON.parse($("facts").textContent);
const STRINGS = JSON.parse($("strings").textContent);
const UNITS = $("units").textContent.split("\n").filter(Boolean);
const METRIC = Object.fromEntries(FACTS.metrics.map((metric) => [metric.name, metric]));
const TABLES = {}; // name → {names, at, rows, csv}: rows of the very strings that the CSV file has
const [RANDOM, REFERENCE] = FACTS.baselines;

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
  const text = STRINGS[state.lang][key];
  if (text === undefined) throw new Error(`no string ${key} in ${state.lang}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
}
const label = (metric) => (state.lang === "zh" ? t(`metric.${metric}`) : METRIC[metric].label.replace(/ \(nats.*\)/, ""));

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Response(plain).arrayBuffer();
}
const unpackText = async (base64) => new TextDecoder().decode(await unpack(base64));

function parseCsv(csv) {
  const rows = csv.includes('"') ? quoted(csv) : csv.trimEnd().split("\n").map((line) => line.split(","));
  const names = rows.shift();
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

const ROWS = new Map(); // what names a row of summary.csv → the row
const keyOf = (split, checkpoint, setting) => JSON.stringify([split, checkpoint, ...setting]);

async function readTables() {
  const packed = JSON.parse($("tables").textContent);
  for (const [name, base64] of Object.entries(packed)) TABLES[name] = parseCsv(await unpackText(base64));
  const { rows, at } = TABLES["summary.csv"];
  for (const row of rows) ROWS.set(keyOf(row[at.split], row[at.checkpoint], FACTS.knobs.map((k) => row[at[k]])), row);
}

/** A value of summary.csv as the file has it; "" where nothing was measured. */
function value(split, checkpoint, setting, column) {
  const row = ROWS.get(keyOf(split, checkpoint, FACTS.baselines.includes(checkpoint) ? ["", "", "", ""] : setting));
  return row ? row[TABLES["summary.csv"].at[column]] : "";
}

/** A number as one reads it. The element made by `number` holds the file's own string too. */
function short(text) {
  if (text === "" || text == null) return "–";
  const size = Math.abs(Number(text));
  return Number(text).toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 2 : 3).replace("-", "−");
}
const number = (text) =>
  text === "" ? el("span", { class: "none" }, "–") : el("data", { value: text, title: text }, state.digits ? text : short(text));
const interval = (low, high) =>
  low === "" || high === "" ? null : el("span", { class: "interval" }, "[", number(low), ", ", number(high), "]");

/** Fill a table: `head` names the columns; a row is what names it, then settings; `of` gives a row's attributes. */
function fillTable(table, head, rows, of = () => ({})) {
  const heads = head.map((name) => el("th", { scope: "col", class: FACTS.baselines.includes(name) ? "yard" : name.length > 20 ? "long" : "" }, name));
  const body = rows.map(([name, ...settings], place) =>
    el("tr", of(place), el("th", { scope: "row" }, name), settings.map((setting) => el("td", {}, setting))));
  fill(table, el("thead", {}, el("tr", {}, heads)), el("tbody", {}, body));
}

/** Fill a list of terms and what is said of each. */
const fillTerms = (list, pairs) => fill(list, pairs.flatMap(([term, said]) => [el("dt", {}, term), el("dd", {}, said)]));
const joined = (names) => names.join(t("comma"));

function save(name, content, type) {
  const link = el("a", { download: name });
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
