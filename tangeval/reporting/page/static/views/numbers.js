// The metrics of the sliders' setting, a column for each checkpoint that is ticked.
{
  const { facts, $, el, t, label, joined, visible, value, short } = core, { state, settingNow, placeOf, ticked, nameOf, spell, headline, tickBox } = store;
  let later = 0;

  addView({
    id: "numbers", tab: "explore", needs: ["summary"],
    title: { en: "Numbers", zh: "數值" },
    strings: { en: { every: "every metric" }, zh: { every: "所有指標" } },
    state: () => ({ every: { first: false, label: "every" } }),
    make: (node) => node.querySelector(".body").append(el("div", { class: "row" }, el("p", { class: "now", id: "now" }), tickBox("every"), tickBox("digits")),
      core.scroller("numbers-table", "numbers"), el("p", { class: "sr", id: "live", "aria-live": "polite" })),
    render() {
      const setting = settingNow(), names = [...ticked().map(nameOf), ...facts.baselines], hole = placeOf(setting) === undefined;
      $("now").textContent = `${t(`split.${state.split}`)}${t("colon")}${spell(setting)}${hole ? ` (${t("no.setting")})` : ""}`;
      const shown = state.every ? facts.metrics.map((metric) => metric.name) : [...new Set([state.metric, ...headline])];
      core.numbersTable($("numbers-table"), state.split, setting, names, shown, state.metric);
      clearTimeout(later);
      const said = names.map((name) => `${name} ${short(value(state.split, name, setting, state.metric))}`);
      later = setTimeout(() => { $("live").textContent = visible(`${spell(setting)}. ${label(state.metric)}${t("colon")}${joined(said)}`); }, 400);
    },
  });
}
