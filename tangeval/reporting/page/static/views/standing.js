// Every checkpoint at the chosen setting, as dots with intervals.
{
  const { facts, label, metrics, t, value, triple } = core, { state, chosen, nameOf, headline } = store, { css, colourOf, dotPanel, panels } = charts;

  addView({
    id: "standing", tab: "glance", kind: "picture", panels: "wide", needs: ["summary"],
    title: { en: "Every checkpoint at the chosen setting", zh: "各檢查點在所選設定下的表現" },
    note: {
      en: "Dots with 95 % intervals over examples; ★ is the chosen checkpoint, open dots are the baselines. A reference that would squeeze the rest is left to the table.",
      zh: "點與以題目為單位的 95 % 區間；★ 為選中的檢查點，空心點為兩個基準。會把其餘壓扁的 reference 只列於表中。",
    },
    render(picture) {
      const { split } = state, { setting } = chosen, best = nameOf(chosen.checkpoint), [random, reference] = facts.baselines;
      const shown = headline.filter((metric) => value(split, best, setting, metric) !== "");
      const names = (metric) => [...facts.checkpoints.map(({ name }) => name), random, ...(metrics[metric].share ? [reference] : [])];
      const row = (metric) => (name, place) => {
        const [middle, low, high] = triple(split, name, setting, metric), open = facts.baselines.includes(name);
        return { name: name === best ? `★ ${name}` : name, colour: open ? css("--quiet") : colourOf(place), value: middle, low, high, open };
      };
      const rows = (metric) => names(metric).map(row(metric)).filter((each) => each.value !== "");
      const title = (metric) => label(metric) + (metrics[metric].better === "low" ? ` · ${t("low.better")}` : "");
      panels(picture, shown.map((metric) => ({ title: title(metric), word: metric, draw: (box) => dotPanel(box, { rows: rows(metric), share: metrics[metric].share }) })),
        () => [["metric", "checkpoint", "value", "low", "high"],
          ...shown.flatMap((metric) => rows(metric).map((each) => [metric, each.name, each.value, each.low, each.high]))]);
    },
  });
}
