// One example by base and by the chosen checkpoint, under the same noise.
{
  const { facts, el, fill, t } = core, { chosen } = store;

  addView({
    id: "hero", tab: "glance", needs: ["summary", "texts"],
    title: { en: "One example", zh: "一個例子" },
    strings: {
      en: { "hero.same": "The first sample of the first example, under the same noise; the box is where the two part.",
        "hero.apart": "The first sample of the first example, each under noise of its own; the box is where the two part." },
      zh: { "hero.same": "第一題的第一個樣本，雜訊相同；方框為兩者分歧之處。", "hero.apart": "第一題的第一個樣本，雜訊各自不同；方框為兩者分歧之處。" },
    },
    make: (node) => node.querySelector(".body").append(el("div", { class: "verses" }), el("p", { class: "note", id: "hero-note" })),
    async render(node) {
      const place = texts.units.findIndex(({ example }) => texts.examples[example].split === "test");
      const base = facts.checkpoints.findIndex((each) => each.base), sides = [...new Set([base, chosen.checkpoint])].filter((each) => each >= 0);
      const { nodes } = await texts.versesOf(Math.max(place, 0), sides.map((checkpoint) => ({ checkpoint, setting: chosen.setting })));
      fill(node.querySelector(".verses"), nodes);
      core.$("hero-note").textContent = t(facts.run.noise_shared ? "hero.same" : "hero.apart");
    },
  });
}
