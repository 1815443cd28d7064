// Sliders that stop at the grid's values, and the checkpoints, split and metric that the tab shows.
{
  const { facts, el, t } = core, { state, change, grid, chosen, goTo, ticked, spellValue, metricOptions } = store;

  const tick = () => {
    const boxes = [...document.querySelectorAll("[data-tick]")];
    change({ on: boxes.filter((box) => box.checked).map((box) => box.dataset.tick).join(".") });
  };
  const field = (key) => el("label", { class: "field" }, el("span", { "data-t": key }), el("select", { "data-state": key }));

  addView({
    id: "knobs", tab: "explore", place: "aside", needs: ["summary"],
    title: { en: "Knobs", zh: "旋鈕" },
    strings: { en: { "more.knobs": "Checkpoints and measure", "to.best": "Back to the best" }, zh: { "more.knobs": "檢查點與指標", "to.best": "回到最佳設定" } },
    make(node) {
      const slider = ({ name }) => {
        const last = grid[name].length - 1, id = `knob-${name}`;
        const input = el("input", { type: "range", id, min: 0, max: last, step: 1, disabled: last === 0, on: { input: (event) => change({ [name]: grid[name][event.target.value] }) } });
        const ticks = el("span", { class: "ticks", "aria-hidden": "true" }, grid[name].map((text) => el("span", { "data-value": text })));
        return el("div", { class: "knob", "data-knob": name }, el("label", { for: id, "data-t": `knob.${name}` }), el("output", { for: id }), input, ticks);
      };
      const box = ({ name }, place) => el("label", {}, el("input", { type: "checkbox", "data-tick": place, on: { change: tick } }), el("i", { class: "dot" }), name);
      node.querySelector(".body").append(el("div", { class: "sliders" }, facts.knobs.map(slider)),
        el("details", { open: true }, el("summary", { "data-t": "more.knobs" }),
          el("fieldset", { id: "ticks" }, el("legend", { class: "sr", "data-t": "more.knobs" }), facts.checkpoints.map(box)), field("split"), field("metric"),
          el("button", { type: "button", id: "to-best", "data-t": "to.best", on: { click: () => goTo(chosen.setting, { a: String(chosen.checkpoint) }) } })));
    },
    render(node) {
      for (const holder of node.querySelectorAll("[data-knob]")) {
        const { knob } = holder.dataset, text = state[knob], [, output, slider, ticks] = holder.children;
        slider.value = grid[knob].indexOf(text);
        slider.setAttribute("aria-valuetext", spellValue(knob, text));
        output.textContent = spellValue(knob, text);
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
