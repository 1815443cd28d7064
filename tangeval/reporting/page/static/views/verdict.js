// What may be said of the results, in words: tested, and put into words, where the results were made.
{
  const { facts, fill, claims } = core, { state } = store;

  addView({
    id: "verdict", tab: "glance", needs: ["verdict"],
    title: { en: "Verdict", zh: "結論" },
    render: (node) => fill(node.querySelector(".body"), claims(facts.verdict[state.lang])),
  });
}
