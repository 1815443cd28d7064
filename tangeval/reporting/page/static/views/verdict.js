// What may be said of the results, in words: tested, and put into words, where the results were made.
{
  const { facts, el, fill, help } = core, { state } = store, SIGNS = { shown: "✓", not_shown: "?", no_difference: "=" };

  addView({
    id: "verdict", tab: "glance", needs: ["verdict"],
    title: { en: "Verdict", zh: "結論" },
    render(node) {
      const { said, basis } = facts.verdict[state.lang];
      const claim = ({ question, status, word, answer }) => el("div", { class: `claim ${status}` }, el("dt", {}, question, " ", word && [el("span", { class: "chip" }, `${SIGNS[status]} ${word}`), help("verdict")]), el("dd", {}, answer));
      fill(node.querySelector(".body"), el("dl", {}, said.map(claim)), el("p", { class: "note" }, basis));
    },
  });
}
