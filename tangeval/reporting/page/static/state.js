// state.js: all that a reader can choose, in one object and in the address, so that a link shows what its sender saw.

const KNOBS = { temperature: "t", top_k: "k", top_p: "p", max_length: "l" };
const OFF = { top_k: "0", top_p: "1" };
/** The values of each knob as summary.csv writes them, from what cuts most to what cuts least. */
const GRID = Object.fromEntries(FACTS.knobs.map((knob, place) => {
  const size = (text) => (OFF[knob] === text ? Infinity : Number(text));
  return [knob, [...new Set(FACTS.settings.map((setting) => setting[place]))].sort((a, b) => size(a) - size(b))];
}));
const VARIED = FACTS.knobs.filter((knob) => GRID[knob].length > 1);
const SETTING = new Map(FACTS.settings.map((setting, place) => [setting.join("|"), place]));
const PER_SETTING = FACTS.metrics.filter((metric) => metric.per_setting).map((metric) => metric.name);
const TABS = ["glance", "explore", "explain", "pictures", "trust"];
const MARKS = ["none", "equal", "copied", "rhyme", "tone"];

/** The checkpoint and setting that the study chose; else the nearest setting, or the last checkpoint's first one. */
function chosen() {
  const selection = FACTS.selection;
  const found = selection && FACTS.checkpoints.indexOf(selection.checkpoint.checkpoint);
  const setting = selection && (selection.setting ?? selection.nearest[0]);
  const same = (own) => FACTS.knobs.every((knob, place) => Number(own[place]) === setting[knob]);
  return { checkpoint: found ?? FACTS.checkpoints.length - 1, setting: (setting && FACTS.settings.find(same)) || FACTS.settings[0] };
}

const among = (...values) => [values[0], (text) => values.includes(text)];
const flag = (on) => [on ? "1" : "0", (text) => text === "0" || text === "1"];
const checkpointNumber = (text) => /^\d+$/.test(text) && Number(text) < FACTS.checkpoints.length;
const CHOSEN = chosen();
/** Each key's first value, and what else it may be: what an address says is data, and may be anything. */
const FIELDS = {
  tab: among(...TABS),
  lang: [navigator.language.startsWith("zh") ? "zh" : "en", (text) => Object.hasOwn(STRINGS, text)],
  theme: among("auto", "light", "dark"),
  split: [FACTS.selection?.rule.split ?? FACTS.splits[0], (text) => FACTS.splits.includes(text)],
  metric: [FACTS.selection?.rule.setting.by ?? "bleu", (text) => PER_SETTING.includes(text)],
  ...Object.fromEntries(FACTS.knobs.map((knob, place) => [KNOBS[knob], [CHOSEN.setting[place], (text) => GRID[knob].includes(text)]])),
  on: [FACTS.checkpoints.map((_, place) => place).join("."), (text) => text === "" || text.split(".").every(checkpointNumber)],
  a: [String(CHOSEN.checkpoint), checkpointNumber],
  b: [FACTS.checkpoints[0] === "base" && CHOSEN.checkpoint > 0 ? "0" : "", (text) => text === "" || text === "pin" || checkpointNumber(text)],
  pin: ["", (text) => text === "" || (checkpointNumber(text.split("~")[0]) && SETTING.has(text.split("~").slice(1).join("|")))],
  poem: [FACTS.examples.find(([, split]) => split === "test")?.[0] ?? FACTS.examples[0][0], (text) => FACTS.examples.some(([id]) => id === text)],
  sample: ["0", (text) => /^\d{1,4}$/.test(text)],
  mark: ["equal", (text) => MARKS.includes(text)],
  flaw: among("first", "all", ...FACTS.flaws),
  up: flag(false), every: flag(false), digits: flag(false),
  x: [VARIED.includes("top_p") ? "top_p" : VARIED.at(-1) ?? "top_p", (text) => FACTS.knobs.includes(text)],
  y: [VARIED[0] ?? "temperature", (text) => FACTS.knobs.includes(text)],
  knob: [VARIED[0] ?? "temperature", (text) => FACTS.knobs.includes(text)],
  quality: [FACTS.selection?.rule.setting.by ?? "bleu", (text) => PER_SETTING.includes(text)],
  diversity: ["distinct_2", (text) => PER_SETTING.includes(text)],
  lesson: [FACTS.lessons[0]?.folder ?? "", (text) => FACTS.lessons.some((each) => each.folder === text)],
  step: ["", (text) => /^\d{0,5}$/.test(text)], // "" here and below: the poem's own
  et: ["", (text) => /^(\d{1,3}(\.\d{1,9})?)?$/.test(text)],
  ek: ["", (text) => /^\d{0,7}$/.test(text)],
  ep: ["", (text) => text === "" || (/^[01](\.\d{1,9})?$/.test(text) && Number(text) > 0 && Number(text) <= 1)],
};
const state = Object.fromEntries(Object.entries(FIELDS).map(([key, [first]]) => [key, first]));
state.digits = false; // read by `number` as true or false: see `readAddress`

let rendering = () => {};
let writing = 0;

function change(changes) {
  Object.assign(state, changes);
  rendering();
  clearTimeout(writing);
  writing = setTimeout(writeAddress, 120); // browsers limit how often the address may change
}

function writeAddress() {
  const said = Object.keys(FIELDS).map((key) => [key, typeof state[key] === "boolean" ? (state[key] ? "1" : "0") : state[key]]);
  history.replaceState(null, "", `#${new URLSearchParams(said)}`);
}

function readAddress() {
  for (const [key, text] of new URLSearchParams(location.hash.slice(1)))
    if (Object.hasOwn(FIELDS, key) && FIELDS[key][1](text)) state[key] = text;
  for (const key of ["up", "every", "digits"]) state[key] = state[key] === "1" || state[key] === true;
}

/** Set the sliders to `setting`, and what else is given. */
const goTo = (setting, more) => change({ ...Object.fromEntries(FACTS.knobs.map((knob, place) => [KNOBS[knob], setting[place]])), ...more });
const settingNow = () => FACTS.knobs.map((knob) => state[KNOBS[knob]]);
const ticked = () => (state.on ? state.on.split(".").map(Number) : []);
const nameOf = (place) => FACTS.checkpoints[place];
const ofKnob = (knob, text) => (OFF[knob] === text ? t("off") : text);
const spell = (setting) => joined(FACTS.knobs.map((knob, place) => `${t(`knob.${knob}`)} ${ofKnob(knob, setting[place])}`));
