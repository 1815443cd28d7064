// main.js: tabs, controls, how it was made, downloads; and the start.

const OPTIONS = {
  lang: () => [["en", "English"], ["zh", "中文"]],
  theme: () => ["auto", "light", "dark"].map((name) => [name, t(`theme.${name}`)]),
  split: () => FACTS.splits.map((name) => [name, t(`split.${name}`)]),
  metric: () => PER_SETTING.map((name) => [name, label(name)]),
  quality: () => PER_SETTING.map((name) => [name, label(name)]),
  diversity: () => ["distinct_1", "distinct_2", "self_bleu", "unique", "train_overlap", "copied_clauses"].map((name) => [name, label(name)]),
  knob: () => VARIED.map((knob) => [knob, t(`knob.${knob}`)]),
  x: () => VARIED.map((knob) => [knob, t(`knob.${knob}`)]),
  y: () => VARIED.map((knob) => [knob, t(`knob.${knob}`)]),
  a: () => FACTS.checkpoints.map((name, place) => [String(place), name]),
  b: () => [["", t("nothing.beside")], ...FACTS.checkpoints.map((name, place) => [String(place), name]), ["pin", t("pinned")]],
  mark: () => MARKS.map((name) => [name, t(`mark.${name}`)]),
  flaw: () => [["first", t("flaw.first")], ["all", t("flaw.all")], ...FACTS.flaws.map((name) => [name, t(`flaw.${name}`)])],
};

/** Words and choices in the reader's language; nodes stay, so that the keyboard keeps its place. */
function relabel() {
  document.documentElement.lang = state.lang === "zh" ? "zh-Hant" : "en";
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const select of document.querySelectorAll("select[data-state]"))
    fill(select, OPTIONS[select.dataset.state]().map(([value, text]) => el("option", { value }, text)));
  for (const set of document.querySelectorAll("[data-radio]"))
    OPTIONS[set.dataset.radio]().forEach(([, text], place) => { set.querySelectorAll("label > span")[place].firstChild.textContent = text; });
}

function makeControls() {
  const tab = (name) => el("button", { type: "button", role: "tab", id: `go-${name}`, "aria-controls": `tab-${name}`, "data-t": `tab.${name}`,
    on: { click: () => change({ tab: name }), keydown: nextTab } });
  $("tabs").append(...TABS.map(tab));
  const chip = (name, value) => el("label", {}, el("input", { type: "radio", name, value, on: { change: () => change({ [name]: value }) } }),
    el("span", {}, el("span"), el("span", { class: "count" })));
  for (const set of document.querySelectorAll("[data-radio]"))
    set.append(...OPTIONS[set.dataset.radio]().map(([value]) => chip(set.dataset.radio, value)));
  for (const node of document.querySelectorAll("[data-state]"))
    node.addEventListener("change", () => change({ [node.dataset.state]: node.type === "checkbox" ? node.checked : node.value }));
  for (const button of document.querySelectorAll("[data-go]")) {
    const [what, by] = button.dataset.go.split(",");
    button.onclick = () => go(what, Number(by));
  }
  $("pick").onchange = () => change({ poem: $("pick").value, sample: "0" });
  $("pin").onclick = () => change({ b: "pin", pin: [state.a, ...settingNow()].join("~") });
  $("skip").onclick = (event) => { event.preventDefault(); $("main").focus(); }; // the address belongs to the state
}

function nextTab(event) {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  const tab = TABS[(TABS.indexOf(state.tab) + by + TABS.length) % TABS.length];
  change({ tab });
  $(`go-${tab}`).focus();
}

function sync() {
  for (const name of TABS) {
    $(`tab-${name}`).hidden = state.tab !== name;
    $(`go-${name}`).setAttribute("aria-selected", state.tab === name);
    $(`go-${name}`).tabIndex = state.tab === name ? 0 : -1;
  }
  for (const node of document.querySelectorAll("[data-state]"))
    if (node.type === "checkbox") node.checked = state[node.dataset.state]; else node.value = state[node.dataset.state];
  for (const set of document.querySelectorAll("[data-radio]"))
    for (const box of set.querySelectorAll("input")) box.checked = box.value === state[set.dataset.radio];
}

function renderTrust() {
  const { manifest } = FACTS;
  const flat = (content) => (typeof content === "string" ? content : joined(Object.entries(content).map(([key, text]) => `${key} ${text}`)));
  const said = {
    signature: manifest.signature, "data.hash": `${manifest.data.name}: ${manifest.data.digest}`,
    base: `${manifest.base_model.name}: ${manifest.base_model.fingerprint || "–"}`, engine: flat(manifest.engine), hardware: flat(manifest.hardware),
    versions: flat({ tangeval: manifest.tangeval, ...manifest.versions }), seed: manifest.seed, noise: manifest.noise,
  };
  const seen = (each) => (each.seen ? t("seen", { counts: flat(each.seen) }) : t("seen.unknown"));
  const checkpoints = manifest.checkpoints.map((each) => [each.name, `${each.kind}, ${each.fingerprint || "–"}; ${seen(each)}`]);
  fillTerms($("made"), [...Object.entries(said).map(([key, text]) => [t(`trust.${key}`), text]), ...checkpoints]);
  $("command").textContent = `tangeval run ${FACTS.study}.yaml`;
  $("yaml").textContent = FACTS.yaml.split("\n").map(visible).join("\n");
  const file = (name, content, type) =>
    el("li", {}, el("button", { type: "button", on: { click: () => save(name.replace("/", "-"), content, type) } }, name));
  const tables = Object.entries(TABLES).map(([name, { csv }]) => file(name, csv, "text/csv"));
  fill($("downloads"), file(`${FACTS.study}.yaml`, FACTS.yaml, "text/yaml"), tables);
  const left = manifest.left_out.map((each) => (typeof each === "string" ? each : Object.values(each).join(t("colon"))));
  fill($("left-out"), [...(left.length ? left : [t("left.none")]), share(), ...lessonsLeft(), t("left.path")].map((text) => el("li", {}, text)));
  fillTerms($("signatures"), Object.entries(FACTS.signatures).map(([name, text]) => [name, typeof text === "string" ? text : JSON.stringify(text)]));
}

const RENDER = {
  glance: [renderGlance],
  explore: [renderKnobs, renderNumbers, renderPoems, renderCurves, renderHeat],
  explain: [renderExplain],
  pictures: [renderEffects, renderTraining, renderPareto, renderTies],
  trust: [renderTrust],
};
let spoken = "";

function render() {
  document.documentElement.dataset.theme = state.theme;
  if (spoken !== state.lang) { relabel(); spoken = state.lang; }
  sync();
  for (const each of RENDER[state.tab]) each();
}

async function start() {
  await readTables();
  FLAWS = new Uint16Array(await unpack(FACTS.flaw_bits));
  readAddress();
  makeControls();
  makeKnobs();
  makeTurns();
  addSaving();
  if (window.matchMedia("(max-width: 939px)").matches) $("more-knobs").open = $("more-turns").open = false;
  rendering = render;
  render();
  window.addEventListener("hashchange", () => { readAddress(); render(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  document.documentElement.dataset.ready = "1";
}

start().catch((error) => {
  $("failed").hidden = false;
  $("failed").textContent = `${error.message}. A browser of 2024 or newer is needed.`;
  throw error;
});
