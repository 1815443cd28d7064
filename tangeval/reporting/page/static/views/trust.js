// How the results were made, how to make them again, what was left out; all tables as files.
{
  const { facts, el, fill, t, visible, joined, save } = core, { state } = store;
  const terms = (id, pairs) => fill(core.$(id), pairs.flatMap(([term, said]) => [el("dt", {}, term), el("dd", {}, said)]));
  const counts = (seen) => joined(Object.entries(seen).map(([split, count]) => `${split} ${count}`));
  const card = (key, ...nodes) => el("div", { class: "card" }, el("h2", { "data-t": key }), nodes);
  const scrolled = (id) => el("pre", { tabindex: 0 }, el("code", { id }));

  addView({
    id: "trust", tab: "trust", kind: "bare", needs: ["summary"],
    title: { en: "Trust", zh: "可信度" },
    strings: {
      en: {
        made: "How it was made", again: "Make it again", "again.how": "Save the study under this name, then:", "study.file": "The study as it ran", downloads: "Downloads", words: "What the words mean",
        "left.out": "What was left out", "left.none": "No checkpoint was left out.", "left.path": "Paths of the machine that made it.", "measured.by": "Signatures of the metrics",
        seen: "fine-tuned on examples of these splits: {counts}", "seen.unknown": "no record of the examples it was fine-tuned on",
        "not.explained": "No example was explained yet: tangeval explain {file} --prompt 1 does it, and adds a tab.",
        "trust.signature": "signature", "trust.data": "data", "trust.base_model": "base model", "trust.engine": "engine", "trust.hardware": "hardware", "trust.versions": "versions",
        "trust.seed": "seed", "trust.noise": "noise",
      },
      zh: {
        made: "如何做成", again: "重做一次", "again.how": "以此檔名存下研究設定，然後：", "study.file": "執行時的研究設定", downloads: "下載", words: "詞彙",
        "left.out": "略去了什麼", "left.none": "沒有略去任何檢查點。", "left.path": "製作機器上的路徑。", "measured.by": "指標的簽名",
        seen: "微調時看過的題目：{counts}", "seen.unknown": "沒有微調所用題目的紀錄",
        "not.explained": "尚未拆解任何一題：執行 tangeval explain {file} --prompt 1 便會多出一個分頁。",
        "trust.signature": "簽名", "trust.data": "資料", "trust.base_model": "基礎模型", "trust.engine": "引擎", "trust.hardware": "硬體", "trust.versions": "版本",
        "trust.seed": "種子", "trust.noise": "雜訊",
      },
    },
    make(node) {
      node.append(el("div", { class: "two" }, card("made", el("dl", { id: "made" })),
        el("div", {}, card("again", el("p", { "data-t": "again.how" }), scrolled("command"), el("details", {}, el("summary", { "data-t": "study.file" }), scrolled("yaml")),
          el("h2", { "data-t": "downloads" }), el("ul", { id: "downloads", class: "files" })),
        card("left.out", el("ul", { id: "left-out" })), card("measured.by", el("dl", { id: "signatures" })), card("words", el("dl", { id: "words-list" })))));
    },
    render() {
      const { run, checkpoints, several, place } = facts, left = run.left_out, each = several.length ? several : [{ name: "", ...facts }];
      const about = ({ name, kind, fingerprint, seen }) => [name, `${kind}, ${fingerprint || "–"}; ${seen ? t("seen", { counts: counts(seen) }) : t("seen.unknown")}`];
      terms("made", [...each.flatMap((own) => Object.entries(own.run.made).map(([key, said]) => [(own.name && `${own.name}: `) + t(`trust.${key}`), said])), ...checkpoints.map(about)]);
      // Studies of one name are told apart by their results' folders.
      const called = ({ study, name }) => (each.filter((own) => own.study === study).length > 1 ? name.replace(/[^\p{L}\p{N}._-]+/gu, "-") : study);
      const again = (own) => `tangeval run ${called(own)}.yaml${called(own) === own.study ? "" : ` --out results/${called(own)}`}`;
      core.$("command").textContent = each.map((own) => visible(again(own))).join("\n");
      core.$("yaml").textContent = each.flatMap((own) => [...(own.name ? [`# ${called(own)}.yaml`] : []), ...own.yaml.split("\n")]).map(visible).join("\n");
      const file = (name, content, type) => el("li", {}, el("button", { type: "button", on: { click: () => save(name, content, type) } }, name));
      const tables = Object.entries(core.tables).map(([name, { csv }]) => file(`${name}.csv`, csv, "text/csv"));
      fill(core.$("downloads"), each.map((own) => file(`${called(own)}.yaml`, own.yaml, "text/yaml")), tables);
      const explained = facts.explained.length || several.length || facts.live ? [] : [t("not.explained", { file: /^[\w./-]+$/.test(place) ? `${place}/study.yaml` : `'${place}/study.yaml'` })];
      const said = [...(left.length ? left : [t("left.none")]), texts.share(), ...facts.explained_left_out.map(({ folder, reason }) => t(`left.${reason}`, { folder })), ...explained, t("left.path")];
      fill(core.$("left-out"), said.map((text) => el("li", {}, text)));
      terms("signatures", Object.entries(facts.signatures));
      terms("words-list", Object.entries(facts.glossary).map(([word, entry]) => [entry.name?.[state.lang] ?? core.label(word), entry[state.lang]]));
    },
  });
}
