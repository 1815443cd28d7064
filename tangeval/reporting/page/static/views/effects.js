// What one knob does to each headline metric, averaged over the others.
{
  const { records, metrics } = core, { state, grid, varied, ticked, nameOf, spellValue, headline, knobOptions } = store;

  addView({
    id: "effects", tab: "pictures", kind: "picture", needs: ["effects"], controls: ["split", "knob"],
    title: { en: "What each knob does", zh: "各旋鈕的作用" },
    note: {
      en: "Averaged over the other knobs. Bands are 95 % intervals over examples. Dotted: random; dashed: reference.",
      zh: "對其他旋鈕取平均。色帶為以題目為單位的 95 % 區間。點線：random；虛線：reference。",
    },
    strings: { en: { knob: "Knob" }, zh: { knob: "旋鈕" } },
    state: () => ({ knob: { first: varied[0] ?? "", label: "knob", options: knobOptions } }),
    render(picture) {
      const { split, knob } = state, rows = records("effects").filter((get) => get("split") === split && get("knob") === knob);
      const shown = headline.filter((metric) => metrics[metric].per_setting && rows.some((get) => get(metric) !== ""));
      const at = (name, text) => rows.find((get) => get("checkpoint") === name && Number(get("value")) === Number(text));
      const values = grid[knob] ?? [], lines = ticked().map((place) => ({ ...charts.lineOf(place), gets: values.map((text) => at(nameOf(place), text)) }));
      charts.multiples(picture, shown, values.map((text) => spellValue(knob, text)), lines);
    },
  });
}
