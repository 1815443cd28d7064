// class.js: a class's students to sort, search and read; who handed in the same; what is broken.
const texts = { ready: async () => {} }; // of main.js's start; the texts are unpacked when a student is opened
const charts = { addSaving() {} };
(() => {
  const { facts, el, fill, t, records, ends, measured, fillTable, scroller, visible } = core, { state, change } = store;
  const METRICS = facts.metrics.map(({ name }) => name);
  const isStudent = (get) => !facts.baselines.includes(get("student"));
  const rows = () => records("class").filter(isStudent);
  const ranked = (metric) => core.metrics[metric].ranked;
  let written;
  const readTexts = async () => (written ??= JSON.parse(await core.unpackText(core.packedLines("units")[0])));

  /** Best first: by what the tests leave, then by the value. */
  function sorted(found, by) {
    if (by === "student") return found.sort((a, b) => a("student").localeCompare(b("student")));
    const sign = core.metrics[by].better === "high" ? -1 : 1, number = (get, column) => (get(column) === "" ? Infinity : Number(get(column)));
    const keys = (get) => [number(get, `${by}_rank_low`), number(get, `${by}_rank_high`), get(by) === "" ? Infinity : sign * Number(get(by))];
    const order = new Map(found.map((get) => [get, keys(get)]));
    return found.sort((a, b) => order.get(a).map((key, place) => key - order.get(b)[place] || 0).find(Boolean) ?? 0);
  }

  /** The ranks that the tests leave, in digits and as a stretch of a line from the first to the last rank. */
  function range(get, by, count) {
    const [low, high] = ["low", "high"].map((end) => (by === "student" ? "" : get(`${by}_rank_${end}`)));
    if (low === "") return el("span", { class: "none" }, "–");
    const from = ((low - 1) / count) * 100, width = Math.max(((high - low + 1) / count) * 100, 2);
    return el("span", { class: `ranks ${low === "1" ? "first" : ""}` }, low === high ? low : `${low}–${high}`,
      el("i", { "aria-hidden": "true", style: `--from:${Math.min(from, 98)}%;--width:${width}%` }));
  }

  const heading = (key, label) => el("button", { type: "button", class: "sort", "aria-pressed": String(state.by === key), "data-by": key,
    on: { click: () => { change({ by: key }); core.$("class-table").querySelector(`[data-by="${key}"]`).focus(); } } }, label, state.by === key && " ▾");
  const opener = (name) => el("button", { type: "button", class: "name", on: { click: () => { change({ student: name }); core.$("one").scrollIntoView(); } } }, name);
  const cells = (get) => METRICS.map((metric) => measured(ends(get, metric)));

  addView({
    id: "class", tab: "class", title: { en: "Students", zh: "學生" },
    strings: {
      en: { "tab.class": "Class", student: "Student", ranks: "Ranks", find: "Find a student", "of.class": "{shown} of {all} students", "of.broken": " · {broken} could not be read: see Problems",
        "tie": "Ranks: those that the tests of all pairs leave to a student, by the column that sorts; all hold at once with probability 95 %. Two whose ranks overlap cannot be told apart: a tie. Red: may be the first.",
        "untested": "This column is a value of all texts together: it has no ranks.", save: "Save the grade book's columns (CSV)" },
      zh: { "tab.class": "班級", student: "學生", ranks: "名次", find: "尋找學生", "of.class": "{all} 位學生中的 {shown} 位", "of.broken": "；另有 {broken} 位的檔案讀不出來，請看「問題」",
        "tie": "名次：以目前排序的欄位，兩兩檢定之後每位學生仍可能的名次；全部同時成立的機率為 95%。名次範圍重疊的兩人分不出高下，算同名次。紅色：可能是第一名。",
        "untested": "這一欄是所有文字合起來的數值，沒有名次。", save: "下載表格（CSV）" },
    },
    state: () => ({ by: { first: facts.by, allows: (text) => text === "student" || METRICS.includes(text) }, find: { first: "", allows: () => true } }),
    make(node) {
      const search = el("input", { type: "search", id: "find", on: { input: (event) => change({ find: event.target.value }) } });
      fill(node.querySelector(".body"), el("label", { class: "field" }, el("span", { "data-t": "find" }), search), el("p", { id: "count", role: "status" }), el("p", { class: "note", id: "tie" }),
        scroller("class-table", "class"), el("button", { type: "button", "data-t": "save", on: { click: () => core.save("class.csv", `\ufeff${core.tables.class.csv}`, "text/csv") } }));
    },
    render() {
      const all = rows(), { by } = state, wanted = state.find.toLowerCase();
      const found = sorted(all.filter((get) => get("student").toLowerCase().includes(wanted)), by);
      core.$("find").value = state.find;
      const broken = records("broken").length;
      core.$("count").textContent = t("of.class", { shown: found.length, all: all.length }) + (broken ? t("of.broken", { broken }) : "");
      core.$("tie").textContent = t(by === "student" || ranked(by) ? "tie" : "untested");
      const base = records("class").filter((get) => !isStudent(get)).map((get) => [get("student"), "", ...cells(get)]);
      fillTable(core.$("class-table"), [heading("student", t("student")), t("ranks"), ...METRICS.map((metric) => heading(metric, `${core.label(metric)}${core.metrics[metric].better === "low" ? " ↓" : ""}`))],
        [...base, ...found.map((get) => [opener(get("student")), range(get, by, all.length), ...cells(get)])], (place) => ({ class: place < base.length ? "others" : "" }));
    },
  });

  addView({
    id: "one", tab: "class", title: { en: "One student", zh: "一位學生" },
    strings: {
      en: { "one.none": "Choose a student above.", matched: "How the texts were matched", notes: "What was cut or is odd", "no.notes": "nothing", passes: "form is right", fails: "form is wrong" },
      zh: { "one.none": "請在上面點選一位學生。", matched: "如何配對", notes: "刪掉的部分或異狀", "no.notes": "沒有", passes: "體式正確", fails: "體式有誤" },
    },
    state: () => ({ student: { first: "", allows: () => true } }),
    async render(node) {
      const body = node.querySelector(".body"), name = state.student, get = rows().find((each) => each("student") === name);
      if (!get) return fill(body, el("p", {}, t("one.none")));
      const [own, passed] = (await readTexts())[name];
      const verse = own.map((text, place) => el("article", { class: "strophe" }, el("h3", {}, facts.examples[place].input),
        el("p", { class: "verse" }, text || t("empty.text")), passed.length > 0 && el("p", { class: passed[place] ? "good" : "bad" }, passed[place] ? `✓ ${t("passes")}` : `✗ ${t("fails")}`)));
      return fill(body, el("p", { class: "winner" }, name), el("dl", {}, el("dt", {}, t("matched")), el("dd", {}, get("matched")), el("dt", {}, t("notes")), el("dd", {}, get("notes") || t("no.notes"))),
        el("div", { class: "verses" }, verse));
    },
  });

  addView({
    id: "shared", tab: "shared", title: { en: "The same texts", zh: "相同的文字" },
    note: {
      en: "Pairs whose texts are equal, or nearly (at most a fifth of the characters differ), for three texts in ten or more. Texts that are the poet's own, and empty ones, do not count. Equal texts prove no copying: one notebook, the same data and a low temperature can write the same twice. Look at them.",
      zh: "兩人有三成以上的文字相同或幾乎相同（最多五分之一的字不同）。與原詩相同的文字和空白不計。相同不代表抄襲：同一份筆記本、同樣的資料、低溫度，也會寫出一樣的詩。請看過內容再判斷。",
    },
    strings: { en: { "tab.shared": "Same texts", group: "Group", pair: "Students", equal: "equal", near: "nearly equal", of: "of", "shared.none": "No two students share so many texts.", more: "{shown} of {all} pairs are shown; same_texts.csv has all", look: "look" },
      zh: { "tab.shared": "相同文字", group: "組", pair: "學生", equal: "相同", near: "幾乎相同", of: "總數", "shared.none": "沒有兩位學生有這麼多相同的文字。", more: "顯示 {all} 對中的 {shown} 對；全部在 same_texts.csv", look: "看內容" } },
    render(node) {
      const body = node.querySelector(".body"), pairs = records("shared"), shown = pairs.slice(0, 200);
      if (!pairs.length) return fill(body, el("p", {}, t("shared.none")));
      const look = (get) => {
        const inside = el("div", {});
        const open = async (event) => { if (event.target.open) fill(inside, await besides(get)); };
        return el("details", { on: { toggle: open } }, el("summary", {}, t("look")), inside);
      };
      const table = scroller("shared-table", "shared");
      fillTable(table.firstChild, [t("pair"), t("group"), t("equal"), t("near"), t("of"), ""], shown.map((get) => [el("span", {}, opener2(get("a")), " · ", opener2(get("b"))), get("group"), get("equal"), get("near"), get("of"), look(get)]));
      return fill(body, shown.length < pairs.length && el("p", {}, t("more", { shown: shown.length, all: pairs.length })), table);
    },
  });
  const opener2 = (name) => el("button", { type: "button", class: "name", on: { click: () => change({ tab: "class", student: name }) } }, name);
  async function besides(get) {
    const own = await readTexts();
    return get("examples").split(" ").map(Number).map((place) => el("p", {}, el("b", {}, facts.examples[place].input), ["a", "b"].map((side) => el("span", { class: "line" }, `${visible(get(side))}：${visible(own[get(side)][0][place])}`))));
  }

  addView({
    id: "broken", tab: "broken", title: { en: "What could not be read", zh: "讀不出來的檔案" },
    strings: { en: { "tab.broken": "Problems", problem: "What is missing or broken", "broken.none": "Every file could be read." }, zh: { "tab.broken": "問題", problem: "缺什麼、哪裡壞了", "broken.none": "每個檔案都讀得出來。" } },
    render(node) {
      const found = records("broken"), table = scroller("broken-table", "broken");
      fillTable(table.firstChild, [t("student"), t("problem")], found.map((get) => [get("student"), get("problem")]));
      fill(node.querySelector(".body"), found.length ? table : el("p", {}, t("broken.none")));
    },
  });
})();
