// Sliders that stop at the grid's values, and the checkpoints, split and metric that the tab shows.
{
  const { facts, el } = core, { state, change, grid, chosen, goTo, ticked, spellValue, menu, slider, moveTo } = store;

  const tick = () => {
    const boxes = [...document.querySelectorAll("[data-tick]")];
    change({ on: boxes.filter((box) => box.checked).map((box) => box.dataset.tick).join(".") });
  };

  addView({
    id: "knobs", tab: "explore", place: "aside", needs: ["summary"],
    title: { en: "Knobs", zh: "旋鈕" },
    strings: { en: { "more.knobs": "Checkpoints and measure", "to.best": "Back to the best" }, zh: { "more.knobs": "檢查點與指標", "to.best": "回到最佳設定" } },
    make(node) {
      const knob = ({ name }) => slider(`knob-${name}`, name, grid[name].length - 1, (stop) => change({ [name]: grid[name][stop] }),
        el("span", { class: "ticks", "aria-hidden": "true" }, grid[name].map((text) => el("span", { "data-value": text }))));
      const box = ({ name }, place) => el("label", {}, el("input", { type: "checkbox", "data-tick": place, on: { change: tick } }), el("i", { class: "dot" }), name);
      node.querySelector(".body").append(el("div", { class: "sliders" }, facts.knobs.map(knob)),
        el("details", { open: true }, el("summary", { "data-t": "more.knobs" }),
          el("fieldset", { id: "ticks" }, el("legend", { class: "sr", "data-t": "more.knobs" }), facts.checkpoints.map(box)), menu("split"), menu("metric"),
          el("button", { type: "button", id: "to-best", "data-t": "to.best", on: { click: () => goTo(chosen.setting, { a: String(chosen.checkpoint) }) } })));
    },
    render(node) {
      for (const holder of node.querySelectorAll("[data-knob]")) {
        const { knob } = holder.dataset, text = state[knob], ticks = holder.lastChild;
        moveTo(holder, grid[knob].indexOf(text), spellValue(knob, text));
        for (const mark of ticks.children) {
          mark.textContent = spellValue(knob, mark.dataset.value);
          mark.classList.toggle("here", mark.dataset.value === text);
        }
      }
      for (const box of node.querySelectorAll("[data-tick]")) {
        box.checked = ticked().includes(Number(box.dataset.tick));
        box.nextSibling.style.background = charts.colourOf(Number(box.dataset.tick));
      }
    },
  });
}
