// Each knob turned alone, from where the sliders stand.
{
  const { label, knobLabel, triple } = core, { state, change, grid, varied, settingNow, ticked, nameOf, spellValue } = store;

  addView({
    id: "curves", tab: "explore", kind: "picture", needs: ["summary"],
    title: { en: "Curves from here", zh: "由此出發的曲線" },
    note: {
      en: "Each knob turned alone, from where the sliders stand; click to go there. Bands are 95 % intervals over examples. Dotted: random; dashed: reference.",
      zh: "由滑桿所在處單獨轉動一個旋鈕；點選即前往。色帶為以題目為單位的 95 % 區間。點線：random；虛線：reference。",
    },
    render(picture) {
      const setting = settingNow(), { metric, split } = state, looks = ticked().map((place) => ({ ...charts.lineOf(place), place }));
      const lines = (knob) => looks.map((line) => ({ ...line, rows: grid[knob].map((text) => triple(split, nameOf(line.place), { ...setting, [knob]: text }, metric)) }));
      const panel = (knob) => ({ title: `${label(metric)} · ${knobLabel(knob)}`, word: metric, draw: (box) => charts.linePanel(box, {
        x: grid[knob].map((text) => spellValue(knob, text)), lines: lines(knob), metric, at: grid[knob].indexOf(state[knob]), pick: (place) => change({ [knob]: grid[knob][place] }) }) });
      const rows = (knob) => lines(knob).flatMap((line) => line.rows.map((row, place) => [knob, grid[knob][place], line.name, ...row]));
      charts.panels(picture, varied.map(panel), () => [["knob", "value", "checkpoint", metric, `${metric}_low`, `${metric}_high`], ...varied.flatMap(rows)], looks);
    },
  });
}
