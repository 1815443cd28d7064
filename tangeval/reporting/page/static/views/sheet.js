// A sheet of texts: an example a row, a column for each checkpoint that is ticked, at the sliders' setting; to search and to sort.
{
  const { el, fill, t } = core, { state, settingNow, placeOf, ticked, nameOf } = store, { units, examples } = texts, MOST = 60;
  let by = -1, turn = 0; // the column whose failures come first; the latest drawing

  async function show(node) {
    const mine = ++turn, setting = settingNow(), names = ticked(), sought = node.querySelector("input").value.trim();
    const here = units.map((unit, place) => ({ place, example: examples[unit.example], sample: unit.sample }))
      .filter(({ example, sample }) => example.split === state.split && sample === Number(state.sample) && placeOf(setting) !== undefined);
    const rows = await Promise.all(here.map(async (row) => ({ ...row, own: await texts.textsOf(row.place, names, setting) })));
    if (mine !== turn) return; // the reader went on meanwhile
    const count = (row) => texts.spelt(row.own[by]?.flaws ?? 0).length;
    const found = rows.filter(({ example, own }) => [example.input, example.reference, ...own.map(({ text }) => text)].some((text) => text.includes(sought)));
    if (by >= 0) found.sort((one, other) => count(other) - count(one));
    const sort = (place) => () => { by = by === place ? -1 : place; show(node); };
    const head = (name, place) => el("th", { scope: "col", "aria-sort": by === place ? "descending" : null }, el("button", { type: "button", on: { click: sort(place) } }, nameOf(name), by === place ? " ▾" : ""));
    const cell = ({ text, copied, flaws, absent }, example) => el("td", {}, absent ? t("not.run") : [texts.verse(text, example, copied), el("p", { class: "about" }, texts.flawLine(flaws))]);
    const line = ({ example, own }) => el("tr", {}, el("th", { scope: "row" }, texts.verse(example.input, example)), own.map((each) => cell(each, example)), el("td", {}, texts.verse(example.reference, example)));
    fill(node.querySelector("table"), el("thead", {}, el("tr", {}, el("th", { scope: "col" }, t("given")), names.map(head), el("th", { scope: "col" }, t("poet")))), el("tbody", {}, found.slice(0, MOST).map(line)));
    node.querySelector(".found").textContent = t("sheet.found", { shown: Math.min(MOST, found.length), found: found.length, of: rows.length });
  }

  addView({
    id: "sheet", tab: "explore", needs: ["summary", "texts"],
    title: { en: "All examples side by side", zh: "全部題目並列" },
    note: {
      en: "The texts of the sliders' setting, down the examples and across the checkpoints. A checkpoint's name brings its failures to the top.",
      zh: "滑桿設定下的文字：往下是各題，往右是各檢查點。點檢查點的名稱，失誤多的排在前面。",
    },
    strings: { en: { "sheet.open": "Show the sheet", "sheet.search": "Search", "sheet.found": "{shown} shown of {found} found among {of}" },
      zh: { "sheet.open": "展開", "sheet.search": "搜尋", "sheet.found": "{of} 題中找到 {found} 題，顯示 {shown} 題" } },
    make(node) {
      const input = el("input", { type: "search", "data-label": "sheet.search", on: { input: () => show(node) } });
      const details = el("details", { on: { toggle: () => details.open && show(node) } }, el("summary", { "data-t": "sheet.open" }),
        el("p", { class: "row" }, el("label", {}, el("span", { "data-t": "sheet.search" }), " ", input), el("span", { class: "found note", "aria-live": "polite" })), core.scroller("sheet-table", "sheet"));
      node.querySelector(".body").append(details);
    },
    render: (node) => node.querySelector("details").open && show(node),
  });
}
