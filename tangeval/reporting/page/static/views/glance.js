// What was run, what was chosen, and how it compares with base and the baselines.
{
  const { facts, el, fill, t, label, knobLabel, joined, visible, number, interval, triple, value, short } = core;
  const { state, chosen, goTo, nameOf, spell, spellValue, headline } = store;

  const card = (selection, best, setting) => {
    const { rule, runners_up: others, corrected, refused } = selection, by = rule.setting.by;
    const warned = (split) => (split === "test" && selection.saw_test ? ` · ${t("saw.test", { n: selection.saw_test })}` : "");
    const figures = [...new Set([rule.split, "test"])].filter((split) => selection[split] && selection.setting).map((split) => {
      const [middle, low, high] = triple(split, best, setting, by);
      return el("p", { class: "figure" }, el("strong", {}, number(middle)), " ", interval(low, high), el("small", {}, `${label(by)} · ${facts.baselines[0]} ${short(value(split, facts.baselines[0], {}, by))} · ${t(`split.${split}`)}${warned(split)}`));
    });
    const settings = others.settings ?? [], tied = others.checkpoints.filter((each) => !each.distinguishable).map((each) => each.checkpoint);
    const untold = settings.filter((each) => !each.distinguishable).length;
    const require = joined(Object.entries(rule.setting.require).map(([name, text]) => `${label(name)} ${text}`)) || t("nothing");
    return [
      el("h2", {}, t("best")), el("p", { class: "winner" }, best),
      el("p", { class: "chips" }, facts.knobs.map(({ name }) => el("span", { class: "chip" }, knobLabel(name), " ", el("b", {}, spellValue(name, setting[name]))))),
      selection.setting ? el("div", { class: "row" }, figures) : el("p", {}, t("no.setting.chosen")),
      corrected?.value != null && !selection.best?.settings && el("p", {}, t("corrected", { value: short(corrected.value), interval: corrected.low == null ? "–" : `${short(corrected.low)}, ${short(corrected.high)}` })),
      el("p", {}, tied.length ? t("ties.with", { names: joined(tied) }) : t("ties.none"), state.lang === "zh" ? "" : " ",
        settings.length ? t("ties.settings", { tied: untold, of: settings.length }) : ""),
      refused.length ? el("p", {}, t("refused", { names: joined(refused), split: t(`split.${rule.split}`) })) : null,
      el("p", { class: "note" }, t("rule", { checkpoint: label(rule.checkpoint), setting: label(by), split: t(`split.${rule.split}`), require }), rule.prefer ? t(`prefer.${rule.prefer}`, { margins: joined(Object.entries(rule.within).map(([name, far]) => `${label(name)} ${far}`)) }) : ""),
      el("button", { type: "button", class: "main", on: { click: () => goTo(chosen.setting, { a: String(chosen.checkpoint), tab: "explore" }) } }, t("to.explore")),
    ];
  };

  addView({
    id: "glance", tab: "glance", kind: "bare", needs: ["summary"],
    title: { en: "Best checkpoint and setting", zh: "最佳檢查點與設定" },
    strings: {
      en: {
        lede: "{checkpoints} checkpoints of {base} × {settings} decoding settings on {data}: {examples}. {outputs} texts were generated and scored.",
        "examples.of": "{n} {split} examples (samples of each: {samples})",
        best: "Best checkpoint and setting", corrected: "Corrected for having been picked among all settings: {value} [{interval}].",
        "ties.with": "By this metric's tests alone, the checkpoint cannot be told from {names}.", "ties.none": "By this metric's tests alone, the checkpoint can be told from every other.",
        "ties.settings": "Of the {of} other settings that may be chosen, {tied} cannot be told from this one.",
        refused: "Not considered, since trained on {split} examples: {names}.", "saw.test": "it was fine-tuned on {n} test examples",
        "prefer.earliest": " Of the checkpoints shown to be within {margins} of the best, the earliest.", "prefer.shortest": " Of the settings shown to be within {margins} of the best, the one with the shortest texts.", "prefer.most_varied": " Of the settings shown to be within {margins} of the best, the most varied.", rule: "Rule: the checkpoint by {checkpoint}, then the setting by {setting}, on {split}; required: {require}. In brackets: 95 % intervals over examples.",
        nothing: "nothing", "to.explore": "Turn the knobs from here", "no.choice": "Nothing was chosen",
        "no.choice.say": "This study has no rule for choosing, or the choice was not made yet: tangeval select makes it.",
        "no.setting.chosen": "No setting met what the study requires; this is the nearest.",
        beside: "Before and after fine-tuning, between the baselines",
        "beside.note": "On {split}, all at {setting}. random: a random training text of the same form. reference: the text that people wrote. Values with 95 % intervals.",
      },
      zh: {
        lede: "{base} 的 {checkpoints} 個檢查點 × {settings} 組解碼設定，資料為 {data}：{examples}。共生成並評分 {outputs} 篇。",
        "examples.of": "{split} {n} 題、每題 {samples} 個樣本",
        best: "最佳檢查點與設定", corrected: "校正「因最高而被選中」之後：{value} [{interval}]。",
        "ties.with": "單看這項指標的檢定，無法與此檢查點分辨高下的有：{names}。", "ties.none": "單看這項指標的檢定，此檢查點與其他各點都可分辨。",
        "ties.settings": "其餘 {of} 組可選的設定之中，有 {tied} 組無法與它分辨高下。",
        refused: "曾以{split}的題目訓練，故不列入：{names}。", "saw.test": "曾以 {n} 道測試題微調",
        "prefer.earliest": "其中確知與最佳者相差不出 {margins} 的檢查點，取最早者。", "prefer.shortest": "其中確知與最佳者相差不出 {margins} 的設定，取文字最短者。", "prefer.most_varied": "其中確知與最佳者相差不出 {margins} 的設定，取最多樣者。", rule: "規則：先以{checkpoint}選檢查點，再以{setting}選設定，依{split}；條件：{require}。方括號內為以題目為單位的 95 % 區間。",
        nothing: "無", "to.explore": "由此轉動旋鈕", "no.choice": "尚未選出", "no.choice.say": "此研究沒有選擇規則，或尚未選擇：請執行 tangeval select。",
        "no.setting.chosen": "沒有設定符合研究的條件；這是最接近的一組。",
        beside: "微調前後，介於兩個基準之間", "beside.note": "{split}，設定皆為 {setting}。random：同體式的隨機訓練文本；reference：人寫的原作。數值附 95 % 區間。",
      },
    },
    make(node) {
      node.append(el("p", { class: "lede", id: "lede" }), el("div", { class: "two" }, el("div", { class: "card", id: "best" }),
        el("div", { class: "card" }, el("h2", { "data-t": "beside" }), core.scroller("beside", "beside"), el("p", { class: "note", id: "beside-note" }))));
    },
    render() {
      const { selection, checkpoints, settings, splits, run } = facts, { setting } = chosen, best = nameOf(chosen.checkpoint);
      const outputs = splits.reduce((sum, split) => sum + split.examples * split.samples, 0) * settings.length * checkpoints.length;
      const examples = splits.map((split) => t("examples.of", { n: split.examples, split: t(`split.${split.name}`), samples: split.samples }));
      core.$("lede").textContent = visible(t("lede", { checkpoints: checkpoints.length, settings: settings.length, base: run.base_model, data: run.data,
        examples: joined(examples), outputs: outputs.toLocaleString("en") }));
      fill(core.$("best"), selection ? card(selection, best, setting) : [el("h2", {}, t("no.choice")), el("p", {}, t(facts.live ? "live.later" : "no.choice.say"))]);
      const base = checkpoints.filter((each) => each.base && each.name !== best).map((each) => each.name);
      core.numbersTable(core.$("beside"), state.split, setting, [...base, best, ...facts.baselines], headline);
      core.$("beside-note").textContent = t("beside.note", { split: t(`split.${state.split}`), setting: spell(setting) });
    },
  });
}
