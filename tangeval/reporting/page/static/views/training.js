// Each headline metric along the training, a line for each run (a folder of checkpoints).
{
  const { facts, records, t } = core, { state, headline } = store, { css, lineOf } = charts;

  addView({
    id: "training", tab: "pictures", kind: "picture", needs: ["checkpoints"],
    title: { en: "Training, step by step", zh: "訓練的每一步" },
    note: {
      en: "Averaged over all settings. Bands are 95 % intervals over examples. Dotted: random; dashed: reference.",
      zh: "對所有設定取平均。色帶為以題目為單位的 95 % 區間。點線：random；虛線：reference。",
    },
    strings: { en: { "all.settings": "all settings" }, zh: { "all.settings": "所有設定" } },
    render(picture) {
      const places = new Map(facts.checkpoints.map(({ name }, place) => [name, place]));
      const base = (get) => facts.checkpoints[places.get(get("checkpoint"))].base;
      const own = records("checkpoints").filter((get) => get("split") === state.split && places.has(get("checkpoint")));
      const gets = own.filter((get) => get("step") !== "" || base(get)).sort((a, b) => Number(a("step")) - Number(b("step")));
      const steps = new Set(gets.map((get) => get("step")).filter(Boolean)).size > 1;
      // A line a run, that is, a folder; base begins the line where there is but one.
      const runOf = (get) => (get("step") ? get("checkpoint").match(/^(.*\/|.*?: |)/)[0] : "base");
      const at = (get) => get("step") || get("checkpoint"), x = [...new Set(gets.map(at))];
      const runs = [...new Set(gets.map(runOf))].map((run) => gets.filter((get) => runOf(get) === run));
      const line = (run) => {
        const [first, last] = [run[0], run.at(-1)].map((get) => get("checkpoint"));
        return { ...lineOf(places.get(last)), name: first === last ? first : `${first} … ${last}`, gets: x.map((text) => run.find((get) => at(get) === text)) };
      };
      const whole = { name: t("all.settings"), colour: css("--late"), symbol: "circle", gets };
      const shown = steps ? headline.filter((metric) => gets.some((get) => get(metric) !== "")) : [];
      charts.multiples(picture, shown, x, runs.filter(([get]) => get("step")).length > 1 ? runs.map(line) : [whole]);
    },
  });
}
