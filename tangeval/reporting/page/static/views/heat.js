// Two knobs turned together, a heat map for each checkpoint that is ticked, on one colour scale.
{
  const { knobLabel, metrics, value } = core, { state, change, grid, varied, settingNow, ticked, nameOf, spellValue, knobOptions } = store;

  addView({
    id: "heat", tab: "explore", kind: "picture", needs: ["summary"], controls: ["x", "y"],
    title: { en: "Heat map from here", zh: "由此出發的熱圖" },
    note: {
      en: "Two knobs turned together, the others as the sliders stand; one scale for all. Framed: here. Click to go there.",
      zh: "同時轉動兩個旋鈕，其餘依滑桿；共用一個色階。框線為目前位置；點選即前往。",
    },
    strings: { en: { across: "Across", upward: "Upward" }, zh: { across: "橫軸", upward: "縱軸" } },
    state: () => ({ x: { first: varied.findLast((name) => core.knobs[name].kind === "cut") ?? varied.at(-1) ?? "", label: "across", options: knobOptions }, y: { first: varied[0] ?? "", label: "upward", options: knobOptions } }),
    render(picture) {
      const { x, y, metric } = state, setting = settingNow(), places = ticked();
      if (x === y) return charts.panels(picture, []);
      const at = (i, j) => ({ ...setting, [x]: grid[x][i], [y]: grid[y][j] });
      const grids = places.map((place) => grid[y].map((_, j) => grid[x].map((__, i) => value(state.split, nameOf(place), at(i, j), metric))));
      const numbers = charts.numbersIn(grids.flat(2)), low = metrics[metric].share ? 0 : Math.min(...numbers), high = Math.max(...numbers);
      const panel = (place, order) => ({ title: nameOf(place), draw: (box) => charts.heatPanel(box, {
        x: grid[x].map((text) => spellValue(x, text)), y: grid[y].map((text) => spellValue(y, text)), names: { x: knobLabel(x), y: knobLabel(y) },
        rows: grids[order], low, high, at: { x: grid[x].indexOf(state[x]), y: grid[y].indexOf(state[y]) }, pick: (i, j) => change({ ...at(i, j), a: String(place) }) }) });
      const rows = (place, order) => grids[order].flatMap((row, j) => row.map((text, i) => [nameOf(place), grid[x][i], grid[y][j], text]));
      charts.panels(picture, places.map(panel), () => [["checkpoint", x, y, metric], ...places.flatMap(rows)]);
    },
  });
}
