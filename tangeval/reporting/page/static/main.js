// main.js: the page's tabs and controls, made from the views; and the start.
(() => {
  const { $, facts, views, el, fill, t, visible, reader } = core, { state, declare, choices, change, menu } = store;
  const dark = window.matchMedia("(prefers-color-scheme: dark)"), tabs = [...new Set(views.map((view) => view.tab))];

  function nodeOf(view) {
    const { kind, id, note, controls = [] } = view, caption = note && { "data-t": `${id}.note` };
    const heading = kind !== "bare" && el("h2", { "data-t": id }), menus = controls.length > 0 && el("div", { class: "row fields" }, controls.map((key) => menu(key)));
    if (kind !== "picture") return el("div", { id, class: kind === "bare" ? "" : "card" }, heading, menus, el("div", { class: "body" }), note && el("p", { class: "note", ...caption }));
    const picture = el("figure", { id, class: "picture card" }, heading, menus, el("p", { class: "keys" }), el("div", { class: `panels ${view.panels ?? ""}` }),
      note && el("figcaption", caption));
    charts.addSaving(picture);
    return picture;
  }

  function makeTab(name) {
    const own = views.filter((view) => view.tab === name), aside = own.filter((view) => view.place === "aside");
    const nodes = own.filter((view) => view.place !== "aside").map((view) => (view.node = nodeOf(view)));
    const body = aside.length ? el("div", { class: "desk" }, aside.map((view) => (view.node = el("aside", { id: view.id, class: "card" }, el("h2", { "data-t": view.id }), el("div", { class: "body" })))),
      el("div", { class: "results" }, nodes)) : nodes;
    $("main").append(el("section", { id: `tab-${name}`, role: "tabpanel", "aria-labelledby": `go-${name}` }, name === tabs[0] ? el("h1", {}, facts.study) : el("h1", { "data-t": `tab.${name}` }), body));
    $("tabs").append(el("button", { type: "button", role: "tab", id: `go-${name}`, "aria-controls": `tab-${name}`, "data-t": `tab.${name}`,
      on: { click: () => change({ tab: name }), keydown: nextTab } }));
  }

  function nextTab(event) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const tab = tabs[(tabs.indexOf(state.tab) + by + tabs.length) % tabs.length];
    change({ tab });
    $(`go-${tab}`).focus();
  }

  function makeControls() {
    const chip = (name, value) => el("label", {}, el("input", { type: "radio", name, value, on: { change: () => change({ [name]: value }) } }),
      el("span", {}, el("span"), el("span", { class: "count" })));
    for (const set of document.querySelectorAll("[data-radio]")) set.append(...choices(set.dataset.radio).map(([value]) => chip(set.dataset.radio, value)));
    for (const node of document.querySelectorAll("[data-state]"))
      node.addEventListener("change", () => change({ [node.dataset.state]: node.type === "checkbox" ? node.checked : node.value }));
    $("skip").onclick = (event) => { event.preventDefault(); $("main").focus(); }; // the address belongs to the state
  }

  /** Words and choices in the reader's language; nodes stay, so that the keyboard keeps its place. */
  function relabel() {
    document.documentElement.lang = state.lang === "zh" ? "zh-Hant" : "en";
    for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
    for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
    for (const select of document.querySelectorAll("select[data-state]"))
      fill(select, choices(select.dataset.state).map(([value, text]) => el("option", { value }, text)));
    for (const set of document.querySelectorAll("[data-radio]"))
      choices(set.dataset.radio).forEach(([, text], place) => { set.querySelectorAll("label > span")[place].firstChild.textContent = visible(text); });
  }

  function sync() {
    for (const name of tabs) {
      $(`tab-${name}`).hidden = state.tab !== name;
      $(`go-${name}`).setAttribute("aria-selected", state.tab === name);
      $(`go-${name}`).tabIndex = state.tab === name ? 0 : -1;
    }
    for (const node of document.querySelectorAll("[data-state]"))
      if (node.type === "checkbox") node.checked = state[node.dataset.state]; else node.value = state[node.dataset.state];
    for (const set of document.querySelectorAll("[data-radio]"))
      for (const box of set.querySelectorAll("input")) box.checked = box.value === state[set.dataset.radio];
  }

  function render() {
    const spoken = reader.lang, first = !document.documentElement.dataset.theme, system = dark.matches ? "dark" : "light";
    document.documentElement.dataset.theme = state.theme === "auto" ? system : state.theme;
    Object.assign(reader, { lang: state.lang, digits: state.digits });
    if (first || spoken !== state.lang) relabel();
    sync();
    for (const view of views) if (view.tab === state.tab || view.everywhere) view.render(view.node);
  }

  /** All tabs, one after another, for paper. */
  function printAll() {
    document.documentElement.dataset.print = "1";
    for (const view of views) view.render(view.node);
    charts.drawAll();
  }

  async function start() {
    declare({ tab: { first: tabs[0], allows: (text) => tabs.includes(text) } });
    for (const view of views) declare(view.state?.() ?? {});
    await core.readTables();
    await texts.ready();
    tabs.forEach(makeTab);
    for (const view of views) view.make?.(view.node);
    makeControls();
    store.readAddress();
    if (window.matchMedia("(max-width: 939px)").matches) for (const more of document.querySelectorAll("aside details")) more.open = false;
    store.onChange(render);
    render();
    window.addEventListener("hashchange", () => { store.readAddress(); render(); });
    dark.addEventListener("change", render);
    window.addEventListener("beforeprint", printAll);
    window.addEventListener("afterprint", () => { delete document.documentElement.dataset.print; render(); });
    for (const view of views) await view.ahead?.();
    if (history.state?.at) window.scrollTo(0, history.state.at); // a page of a run that goes on reloaded itself
    document.documentElement.dataset.ready = "1";
  }

  start().catch((error) => {
    $("failed").hidden = false;
    $("failed").textContent = `${error.message}. A browser of 2024 or newer is needed.`;
    throw error;
  });
})();
