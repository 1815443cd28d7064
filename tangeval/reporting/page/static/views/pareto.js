// Every setting of the checkpoints that are ticked, by two metrics; ringed: the front that `tangeval front` found of these very numbers, else that of the two.
{
  const { facts, metrics, el, label, short, t, records, value } = core, { state, goTo, keyOf, settingNow, ticked, nameOf, spell, by, metricOptions, perSetting } = store;

  /** Points for which no other is better in both. */
  const front = (points) => {
    const turns = [state.diversity, state.quality].map((metric) => (metrics[metric].better === "low" ? -1 : 1));
    const compare = (one, other) => [turns[0] * (one.x - other.x), turns[1] * (one.y - other.y)];
    const beats = (one, other) => { const [x, y] = compare(one, other); return x >= 0 && y >= 0 && x + y > 0; };
    return points.filter((point) => !points.some((other) => beats(other, point))).sort((one, other) => compare(one, other)[0]);
  };

  addView({
    id: "pareto", tab: "pictures", kind: "picture", panels: "one", needs: ["summary"], controls: ["quality", "diversity"],
    title: { en: "Quality against diversity", zh: "品質與多樣性" },
    note: {
      en: "A dot is a setting of a checkpoint; ringed dots on the dashed line are those that no other beats in both; where `tangeval front` looked at these metrics, those that none beats in all of its metrics, and small dots are shown to be beaten. Better is up and right. The large dot is where the sliders stand; click one to go there.",
      zh: "每點為一個檢查點的一組設定；虛線上帶框的點，沒有其他點能兩項皆勝；若 `tangeval front` 比較過這些指標，則為無一能在其所有指標皆勝者，小點已證實不如他者。愈上愈右愈好。大點為滑桿所在；點選即前往。",
    },
    strings: { en: { quality: "Quality", diversity: "Diversity", "worse.than": "worse in every metric than {item}" }, zh: { quality: "品質", diversity: "多樣性", "worse.than": "每項指標皆不如 {item}" } },
    state: () => ({
      quality: { first: by, label: "quality", options: metricOptions },
      diversity: { first: facts.metrics.find((metric) => metric.headline && metric.level === "samples")?.name ?? perSetting.at(-1), label: "diversity", options: metricOptions },
    }),
    render(picture) {
      const { quality, diversity, split } = state, now = keyOf(settingNow()), knobs = facts.knobs.map(({ name }) => name);
      const found = new Map(records("front").map((get) => [JSON.stringify(["split", "checkpoint", ...knobs, diversity, quality].map(get)), get]));
      const points = ticked().flatMap((place) => facts.settings.flatMap((setting) => {
        const [x, y] = [diversity, quality].map((metric) => value(split, nameOf(place), setting, metric));
        const said = found.get(JSON.stringify([split, nameOf(place), ...knobs.map((name) => setting[name]), x, y])), beaten = said?.("dominated_by");
        const tell = () => [el("b", {}, nameOf(place)), spell(setting), `${label(quality)} ${short(y)}`, `${label(diversity)} ${short(x)}`, beaten ? t("worse.than", { item: beaten }) : ""];
        return x === "" || y === "" ? [] : [{ place, setting, texts: [x, y], x: Number(x), y: Number(y), here: keyOf(setting) === now && place === Number(state.a), tell, said, faint: Boolean(beaten) }];
      }));
      const edge = front(points), told = points.some(({ said }) => said), shown = points.map((point) => ({ ...point, ringed: told ? point.said?.("on_front") === "1" : edge.includes(point) }));
      const axisOf = (metric) => ({ name: label(metric), inverse: metrics[metric].better === "low" });
      const lines = ticked().map((place) => ({ ...charts.lineOf(place), points: shown.filter((point) => point.place === place) }));
      const panel = { title: `${label(quality)} · ${label(diversity)}`, draw: (box) => charts.pointPanel(box, { axes: { x: axisOf(diversity), y: axisOf(quality) }, lines, along: edge,
        pick: (point) => goTo(point.setting, { a: String(point.place) }) }) };
      const row = (point) => [nameOf(point.place), ...knobs.map((name) => point.setting[name]), ...point.texts, point.ringed ? "1" : ""];
      charts.panels(picture, points.length ? [panel] : [], () => [["checkpoint", ...knobs, diversity, quality, "front"], ...shown.map(row)], lines);
    },
  });
}
