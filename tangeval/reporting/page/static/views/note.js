// The author's note, of nodes that build.py made of Markdown.
{
  const { facts, el, fill } = core;
  const made = (node) => (Array.isArray(node) ? el(node[0], {}, node.slice(1).map(made)) : node);
  addView({
    id: "note", tab: "glance", needs: ["note"],
    title: { en: "The author's note", zh: "作者的話" },
    render: (node) => fill(node.querySelector(".body"), facts.note.map(made)),
  });
}
