/**
 * state.js: all that a reader can choose, in one object and in the address, so that a link shows what its sender saw.
 *
 * state       key → value: a string, or a boolean
 * declare     adds keys: {key: {first, options() | allows(text), label}}; what an address says is data, and may be anything
 * change      sets keys, draws again and writes the address
 * menu, tickBox, slider, moveTo   controls
 * grid        knob → its values as summary.csv writes them, from what cuts most to what cuts least
 */
const store = (() => {
  const { facts, knobs, el, t, knobLabel, joined } = core;
  const state = {}, fields = {};
  let rendering = () => {}, writing = 0;

  function declare(more) {
    for (const [key, field] of Object.entries(more)) {
      if (key in fields) throw new Error(`state ${key} is declared twice`);
      fields[key] = field;
      state[key] = field.first;
    }
  }
  const choices = (key) => fields[key].options();
  function allowed(key, text) {
    const { first, options, allows } = fields[key];
    if (typeof first === "boolean") return text === "0" || text === "1";
    return allows ? allows(text) : options().some(([value]) => value === text);
  }

  function change(changes) {
    Object.assign(state, changes);
    rendering();
    clearTimeout(writing);
    writing = setTimeout(writeAddress, 120); // browsers limit how often the address may change
  }
  function writeAddress() {
    const said = Object.keys(fields).map((key) => [key, typeof state[key] === "boolean" ? Number(state[key]) : state[key]]);
    if (location.protocol !== "about:") history.replaceState(null, "", `#${new URLSearchParams(said)}`); // a notebook's frame has no address
  }
  function readAddress() {
    for (const [key, text] of new URLSearchParams(location.hash.slice(1)))
      if (Object.hasOwn(fields, key) && allowed(key, text)) state[key] = typeof fields[key].first === "boolean" ? text === "1" : text;
  }
  const onChange = (render) => { rendering = render; };

  const grid = Object.fromEntries(facts.knobs.map(({ name, values }) => [name, values]));
  const varied = facts.knobs.map(({ name }) => name).filter((name) => grid[name].length > 1);
  const keyOf = (setting) => facts.knobs.map(({ name }) => setting[name]).join("~");
  const places = new Map(facts.settings.map((setting, place) => [keyOf(setting), place]));
  /** The place of a setting in the study's grid; undefined where it is not in it. */
  const placeOf = (setting) => places.get(keyOf(setting));

  /** The checkpoint and setting that the study chose; else the nearest setting, or the last checkpoint's first one. */
  function choose() {
    const { selection, settings, checkpoints } = facts;
    const first = facts.several.find(({ setting }) => setting), name = selection?.checkpoint.checkpoint ?? first?.checkpoint;
    const found = name === undefined ? checkpoints.length - 1 : checkpoints.findIndex((each) => each.name === name);
    const wanted = selection ? selection.setting ?? selection.nearest[0] : first?.setting;
    const same = (own) => facts.knobs.every(({ name }) => own[name] === wanted[name] || Number(own[name]) === wanted[name]);
    return { checkpoint: found, setting: (wanted && settings.find(same)) || settings[0] };
  }
  const chosen = choose();

  /** A menu and a box to tick for a key of the state; a slider over `last` + 1 stops, which `turn` is told of. */
  const menu = (key, more = "") => el("label", { class: `field ${more}` }, el("span", { "data-t": fields[key].label }), el("select", { "data-state": key }));
  const tickBox = (key) => el("label", {}, el("input", { type: "checkbox", "data-state": key }), " ", el("span", { "data-t": fields[key].label }));
  const slider = (id, knob, last, turn, ...more) => {
    const input = el("input", { type: "range", id, min: 0, max: last, step: 1, disabled: last < 1, on: { input: (event) => turn(Number(event.target.value)) } });
    return el("div", { class: "knob", "data-knob": knob }, el("span", {}, el("label", { for: id, "data-t": `knob.${knob}` }, knobLabel(knob)), core.help(knob)), el("output", { for: id }), input, ...more);
  };
  /** Move a slider to a stop, and say the value there. */
  const moveTo = (holder, stop, text) => {
    const [, output, input] = holder.children;
    input.value = stop;
    input.setAttribute("aria-valuetext", text);
    output.textContent = text;
  };

  const settingNow = () => Object.fromEntries(facts.knobs.map(({ name }) => [name, state[name]]));
  /** Set the sliders to `setting`, and what else is given. */
  const goTo = (setting, more) => change({ ...setting, ...more });
  const nameOf = (place) => facts.checkpoints[place].name;
  /** The numbers of the checkpoints that are ticked. */
  const ticked = () => (state.on ? state.on.split(".").map(Number) : []);
  const spellValue = (knob, text) => (knobs[knob].off === text ? t("off") : text);
  const spell = (setting) => joined(facts.knobs.map(({ name }) => `${knobLabel(name)} ${spellValue(name, setting[name])}`));
  const isCheckpoint = (text) => /^\d+$/.test(text) && Number(text) < facts.checkpoints.length;
  /** Metrics that have a value for each setting. */
  const perSetting = facts.metrics.filter((metric) => metric.per_setting).map((metric) => metric.name);
  const headline = facts.metrics.filter((metric) => metric.headline).map((metric) => metric.name);
  const metricOptions = () => perSetting.map((name) => [name, core.label(name)]);
  const knobOptions = () => varied.map((name) => [name, knobLabel(name)]);
  const by = facts.selection?.rule.setting.by ?? headline.find((name) => perSetting.includes(name)) ?? perSetting[0];

  declare({
    lang: { first: navigator.language.startsWith("zh") ? "zh" : "en", label: "language", options: () => [["en", "English"], ["zh", "中文"]] },
    theme: { first: "auto", label: "theme", options: () => ["auto", "light", "dark"].map((name) => [name, t(`theme.${name}`)]) },
  });
  if (facts.carries.includes("summary")) declare({
    split: { first: facts.selection?.rule.split ?? facts.splits[0].name, label: "split", options: () => facts.splits.map(({ name }) => [name, t(`split.${name}`)]) },
    metric: { first: by, label: "metric", options: metricOptions },
    on: { first: facts.checkpoints.map((_, place) => place).join("."), allows: (text) => text === "" || text.split(".").every(isCheckpoint) },
    a: { first: String(chosen.checkpoint), label: "ending.of", options: () => facts.checkpoints.map(({ name }, place) => [String(place), name]) },
    digits: { first: false, label: "digits" },
    ...Object.fromEntries(facts.knobs.map(({ name }) => [name, { first: chosen.setting[name], allows: (text) => grid[name].includes(text) }])),
  });

  return Object.freeze({
    state, declare, choices, fields, change, readAddress, onChange, grid, varied, keyOf, placeOf, chosen, settingNow, goTo, nameOf, ticked,
    spellValue, spell, isCheckpoint, perSetting, headline, metricOptions, knobOptions, by, menu, tickBox, slider, moveTo,
  });
})();
