// How far the others are from the chosen checkpoint and setting, with intervals.
{
  const { facts, label, t } = core, { dotPanel, panels, css } = charts, MOST = 20;
  const text = (number) => (number == null ? "" : String(number));
  const named = (each) => each.checkpoint ?? facts.knobs.map(({ name, letter }) => `${letter} ${each[name]}`).join(" · ");

  addView({
    id: "ties", tab: "pictures", kind: "picture", panels: "half", needs: ["selection"],
    title: { en: "Ties of the selection", zh: "難分高下者" },
    note: {
      en: "The chosen one's value minus each other's. The intervals hold for all at once (95 %), so they agree with the test: open dots cannot be told from it (paired randomisation, max-T). Single intervals are narrower: of many, some miss 0 by luck. The 20 nearest settings are drawn; the table has all, and both intervals.",
      zh: "所選者減去其他各者之差。各區間同時成立（95 %），故與檢定一致：空心點無法與其分辨（成對隨機化檢定，max-T 校正）。單一區間較窄，數目一多，總有些因運氣而不含 0。圖中為最接近的 20 組設定；表中有全部，兩種區間都列出。",
    },
    strings: {
      en: { "ties.checkpoints": "Checkpoints, by {metric}", "ties.of.settings": "Settings, by {metric}" },
      zh: { "ties.checkpoints": "檢查點，依{metric}", "ties.of.settings": "設定，依{metric}" },
    },
    render(picture) {
      const { rule, runners_up: { checkpoints, settings = [] } } = facts.selection;
      const row = (each) => ({ name: named(each), colour: css(each.distinguishable ? "--accent" : "--late"), open: !each.distinguishable,
        value: text(each.difference), low: text(each.joint_low), high: text(each.joint_high) });
      const kinds = [{ metric: rule.checkpoint, rows: checkpoints, key: "ties.checkpoints" }, { metric: rule.setting.by, rows: settings.slice(0, MOST), key: "ties.of.settings" }];
      const panel = ({ metric, rows, key }) => ({ title: t(key, { metric: label(metric) }), word: metric, draw: (box) => dotPanel(box, { rows: rows.map(row), zero: true }) });
      const said = (each) => [named(each), ...["difference", "joint_low", "joint_high", "difference_low", "difference_high", "p_adjusted"].map((key) => text(each[key]))];
      panels(picture, kinds.filter(({ rows }) => rows.length).map(panel), () => [["what", "difference", "low", "high", "low (alone)", "high (alone)", "p (adjusted)"], ...[...checkpoints, ...settings].map(said)]);
    },
  });
}
