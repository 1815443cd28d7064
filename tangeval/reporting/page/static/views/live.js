// How far a run is, of which the page shows what is whole; it reloads itself, and comes back to where the reader was.
{
  const { facts, el, t, joined, visible } = core, REST = 8000; // ms without a touch before it reloads
  let touched = 0;

  function reload() {
    if (document.hidden || Date.now() - touched < REST || document.querySelector("details[open] input, #help:popover-open")) return;
    history.replaceState({ at: window.scrollY }, "");
    location.reload();
  }
  const told = () => {
    const { done, batches, written, waiting, every } = facts.live, values = { done, batches, written, every, names: joined(waiting) };
    return t(every ? "live.going" : "live.stopped", values) + (waiting.length ? t("live.waiting", values) : "") + t("live.later");
  };

  addView({
    id: "running", tab: "glance", kind: "bare", everywhere: true, needs: ["live"],
    title: { en: "A run that goes on", zh: "執行中" },
    strings: {
      en: { "live.going": "{done} of {batches} batches; this page was written at {written} and reloads itself every {every} s.", "live.stopped": "The run stopped at {done} of {batches} batches, at {written}; the same command goes on from there.",
        "live.waiting": " Not whole yet, and not on this page: {names}.", "live.later": " What is here is final; the verdict, the choice and its pictures come at the end." },
      zh: { "live.going": "已完成 {done}／{batches} 批；本頁寫於 {written}，每 {every} 秒自動重新載入。", "live.stopped": "執行在 {written} 停止，已完成 {done}／{batches} 批；再下同一個指令就會接著做。",
        "live.waiting": "尚未完整、不在本頁上的有：{names}。", "live.later": "頁上的數字不會再變；結論、選擇及其圖表等全部完成後才有。" },
    },
    make(node) {
      document.querySelector(".top").after(el("p", { class: "live", id: "progress", role: "status" }));
      if (!facts.live.every) return;
      for (const kind of ["pointerdown", "keydown", "wheel", "touchmove"]) window.addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
      setInterval(reload, facts.live.every * 1000);
    },
    render() { core.$("progress").textContent = visible(told()); },
  });
}
