/**
 * charts.js: the kinds of chart, and how pictures of several panels are drawn and saved.
 *
 * linePanel, heatPanel, dotPanel, pointPanel   draw into a box what they are given
 * panels       the panels of a picture, drawn when they come near the screen
 * multiples    a panel of lines for each metric
 * addSaving    the buttons under a picture
 * colourOf, lineOf   how a checkpoint looks
 */
const charts = (() => {
  const { facts, metrics, visible, el, fill, t, help, label, short, ends, triple, fillTable, save } = core, { state, nameOf } = store;
  const [RANDOM] = facts.baselines;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const SYMBOLS = ["circle", "rect", "triangle", "diamond", "roundRect", "arrow"];

  /** Base is grey; checkpoints go from ochre to indigo as training went on. */
  function colourOf(place) {
    const tuned = facts.checkpoints.filter(({ base }) => !base), own = facts.checkpoints[place];
    if (own.base) return css("--base");
    const share = tuned.length < 2 ? 1 : tuned.indexOf(own) / (tuned.length - 1);
    const mix = (name) => css(name).match(/\w\w/g).map((hex) => parseInt(hex, 16));
    const [from, over, to] = ["--early", "--middle", "--late"].map(mix);
    const [low, high, part] = share < 0.5 ? [from, over, share * 2] : [over, to, share * 2 - 1];
    return `rgb(${low.map((c, i) => Math.round(c + (high[i] - c) * part)).join(",")})`;
  }
  const lineOf = (place) => ({ name: nameOf(place), colour: colourOf(place), symbol: SYMBOLS[place % SYMBOLS.length] });

  /** Draw `option` into `box`; `pick` is told where in the chart's own coordinates one clicked. */
  function draw(box, option, pick) {
    let chart = echarts.getInstanceByDom(box);
    if (!chart) {
      chart = echarts.init(box, null, { renderer: "svg" });
      new ResizeObserver(() => box.clientWidth && chart.resize()).observe(box);
    }
    const common = { animation: false, textStyle: { fontFamily: css("--sans") }, tooltip: tip(option.tell, option.tooltip) };
    chart.setOption({ ...common, ...option, tooltip: common.tooltip }, { notMerge: true });
    chart.getZr().off("click");
    if (pick) chart.getZr().on("click", (event) => {
      const point = [event.offsetX, event.offsetY];
      if (chart.containPixel("grid", point)) pick(...chart.convertFromPixel("grid", point).map(Math.round));
    });
    return chart;
  }

  /** A tooltip made of nodes: nothing in it is ever read as markup. */
  const tip = (tell, more) => ({
    confine: true, backgroundColor: css("--paper"), borderColor: css("--rule"), textStyle: { color: css("--ink"), fontSize: 12 },
    formatter: (params) => el("div", {}, ...tell(params).map((line) => el("div", {}, ...[line].flat()))), ...more,
  });
  const axis = (more) => ({
    axisLine: { lineStyle: { color: css("--rule") } }, axisTick: { show: false }, splitLine: { lineStyle: { color: css("--hair") } },
    axisLabel: { color: css("--quiet"), fontSize: 11, hideOverlap: true }, nameTextStyle: { color: css("--quiet") }, ...more,
  });

  /** Bounds and a step of round numbers around `numbers`; a share lies between 0 and 1. */
  function scale(numbers, share) {
    if (share) return { min: 0, max: 1, interval: 0.25 };
    const [low, high] = [Math.min(...numbers), Math.max(...numbers)];
    if (!Number.isFinite(low)) return {};
    const rough = (high - low || Math.abs(high) || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const interval = power * [1, 2, 5, 10].find((step) => step * power >= rough * 0.999);
    return { min: Math.floor(low / interval) * interval, max: Math.ceil(high / interval + 1e-9) * interval, interval };
  }
  const drawable = (text) => (text === "" ? "-" : Number(text)); // ECharts' own sign of what is not there
  const rule = (data, style) => ({ symbol: "none", silent: true, label: { show: false }, lineStyle: style, data });
  const numbersIn = (texts) => texts.filter((text) => text !== "").map(Number);
  const numeric = (bounds) => axis({ type: "value", ...bounds, axisLabel: { color: css("--quiet"), fontSize: 11, hideOverlap: true,
    formatter: (value) => String(Number(value.toPrecision(6))) } });
  const dot = (colour) => el("i", { class: "dot", style: `background:${colour}` });
  const said = (line, [value, low, high]) => [dot(line.colour), `${line.name}  ${short(value)}${low ? `  [${short(low)}, ${short(high)}]` : ""}`];

  function band(api, rows, colour) {
    const whole = rows.map(([, low, high], place) => ({ place, low, high })).filter(({ low, high }) => low !== "" && high !== "");
    const edge = (end) => whole.map((row) => api.coord([row.place, Number(row[end])]));
    return { type: "polygon", shape: { points: [...edge("low"), ...edge("high").reverse()] }, style: { fill: colour, opacity: 0.1 } };
  }

  /** The values of the baselines: {name, value}. */
  const levelsOf = (split, metric) => facts.baselines.map((name) => ({ name, value: core.value(split, name, {}, metric) }));

  /**
   * Lines with bands. `x`: labels; `lines`: {name, colour, symbol, rows: [value, low, high] at each x}, the file's strings;
   * `at`: where the reader stands; `pick(place)`: one clicked there. The baselines of the split at hand are drawn too.
   */
  function linePanel(box, { x, lines, metric, at = -1, pick }) {
    const share = metrics[metric].share;
    const drawn = levelsOf(state.split, metric).filter((level) => level.value !== "" && (share || level.name === RANDOM));
    const bounds = scale(numbersIn([...lines.flatMap((line) => line.rows.flat()), ...drawn.map((level) => level.value)]), share);
    const series = lines.flatMap(({ name, colour, symbol, rows }) => [
      { type: "custom", silent: true, z: 1, data: [[0]], clip: true, renderItem: (_, api) => band(api, rows, colour) },
      { type: "line", name, symbol, symbolSize: 7, color: colour, lineStyle: { width: 2 }, connectNulls: true, data: rows.map(([text]) => drawable(text)) },
    ]);
    const marks = drawn.map((level) => ({
      type: "line", data: [], color: css("--quiet"),
      markLine: rule([{ yAxis: Number(level.value) }], { color: css("--quiet"), type: facts.dashes[level.name], width: 1.5 }),
    }));
    if (at >= 0) marks.push({ type: "line", data: [], markLine: rule([{ xAxis: at }], { color: css("--accent"), type: "solid", width: 1 }) });
    draw(box, {
      grid: { left: 44, right: 12, top: 10, bottom: 26 }, xAxis: axis({ type: "category", data: x.map(visible), boundaryGap: x.length < 2 }),
      yAxis: numeric(bounds), series: [...series, ...marks], tooltip: { trigger: "axis" },
      tell: ([{ dataIndex }]) => [el("b", {}, x[dataIndex]), ...lines.map((line) => said(line, line.rows[dataIndex]))],
    }, pick);
  }

  /** A panel for each metric: what a knob does, or what training did. `lines` have `gets`: the row at each x, if there is one. */
  function multiples(picture, shown, x, lines) {
    const read = (get, metric) => (get ? ends(get, metric) : ["", "", ""]);
    const panel = (metric) => ({ title: label(metric), word: metric, draw: (box) => linePanel(box, {
      x, metric, lines: lines.map((line) => ({ ...line, rows: line.gets.map((get) => read(get, metric)) })) }) });
    const row = (line) => line.gets.map((get, place) => [line.name, x[place], ...shown.flatMap((metric) => read(get, metric))]);
    const head = ["checkpoint", "at", ...shown.flatMap((metric) => [metric, `${metric}_low`, `${metric}_high`])];
    panels(picture, shown.map(panel), () => [head, ...lines.flatMap(row)], lines);
  }

  /** The colours of a heat map, from low to high. */
  const ramp = () => [1, 2, 3, 4].map((step) => css(`--heat${step}`));
  /** A heat map: `rows[y][x]` are the file's strings; `low`, `high` the scale that several share; `at` is {x, y}. */
  function heatPanel(box, { x, y, names, rows, low, high, at, pick }) {
    const few = x.length * y.length <= 81;
    const data = rows.flatMap((row, j) => row.map((text, i) => {
      const dark = text !== "" && (Number(text) - low) / (high - low || 1) > 0.5, here = i === at.x && j === at.y;
      return { value: [i, j, drawable(text)], label: { color: css(dark ? "--heat1" : "--heat4") }, here };
    }));
    const written = { show: few, fontSize: 11, formatter: ({ value: [i, j] }) => short(rows[j][i]) };
    const tiles = (own, colour, width) => ({ type: "heatmap", data: own, itemStyle: { borderColor: css(colour), borderWidth: width }, label: written });
    const category = (data, name, nameGap) => axis({ type: "category", data, name, nameLocation: "middle", nameGap, splitLine: { show: false } });
    draw(box, {
      grid: { left: 58, right: 10, top: 8, bottom: 40 }, xAxis: category(x, names.x, 24), yAxis: category(y, names.y, 38),
      visualMap: { show: false, seriesIndex: [0, 1], min: low, max: high > low ? high : low + 1, inRange: { color: ramp() } },
      series: [tiles(data, "--paper", 1), tiles(data.filter((tile) => tile.here), "--accent", 3)],
      tell: ({ value: [i, j] }) => [`${names.x} ${x[i]}`, `${names.y} ${y[j]}`, el("b", {}, short(rows[j][i]))],
    }, pick);
  }

  /** Dots with intervals, a row each: {name, colour, value, low, high, open}; `zero` draws the line of no difference. */
  function dotPanel(box, { rows, share, zero }) {
    box.style.height = `${rows.length * (rows.some(({ name }) => name.includes(": ")) ? 36 : 26) + 44}px`;
    const bounds = scale([...numbersIn(rows.flatMap((row) => [row.value, row.low, row.high])), ...(zero ? [0] : [])], share);
    const whisker = (_, api) => {
      const row = rows[api.value(0)], [from, to] = [row.low, row.high].map((end) => api.coord([Number(end), api.value(0)]));
      return { type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }, style: { stroke: row.colour, lineWidth: 2 } };
    };
    const point = (row, place) => ({ value: [drawable(row.value), place],
      itemStyle: { color: row.open ? css("--paper") : row.colour, borderColor: row.colour, borderWidth: 2 } });
    // A checkpoint stands below its results' name. A long name loses its middle: runs and steps are told apart by their ends.
    const width = Math.min(190, box.clientWidth * 0.4), room = Math.floor(width / 14);
    const short = (name) => (name.length > 2 * room ? `${name.slice(0, room - 1)}…${name.slice(-room)}` : name);
    const named = (name) => name.split(": ").map(short).join("\n");
    draw(box, {
      grid: { left: 6, right: 16, top: 4, bottom: 26, containLabel: true }, xAxis: numeric(bounds),
      yAxis: axis({ type: "category", inverse: true, data: rows.map((row) => visible(row.name)),
        axisLabel: { color: css("--ink"), fontSize: 12, lineHeight: 12, formatter: named, width, overflow: "truncate" } }),
      series: [
        { type: "custom", silent: true, data: rows.flatMap((row, place) => (row.low === "" ? [] : [[place]])), renderItem: whisker },
        { type: "scatter", symbolSize: 9, data: rows.map(point), markLine: zero ? rule([{ xAxis: 0 }], { color: css("--accent"), type: "solid" }) : undefined },
      ],
      tell: ({ dataIndex }) => [said(rows[dataIndex], ["value", "low", "high"].map((end) => rows[dataIndex][end]))],
    });
  }

  /** Points in a plane: `axes` {x, y}: {name, inverse}; `lines`: {name, colour, symbol, points: [{x, y, ringed, here, tell}]}; `along`: points joined. */
  function pointPanel(box, { axes, lines, along, pick }) {
    const mark = (point) => ({ value: [point.x, point.y], point, symbolSize: point.here ? 16 : point.faint ? 4 : 8,
      itemStyle: point.ringed ? { borderColor: css("--ink"), borderWidth: 2, opacity: 1 } : {} });
    const series = lines.map(({ name, colour, symbol, points }) => ({ type: "scatter", name, color: colour, symbol, itemStyle: { opacity: 0.65 }, data: points.map(mark) }));
    const joined = { type: "line", data: along.map(({ x, y }) => [x, y]), symbol: "none", silent: true, color: css("--ink"), lineStyle: { width: 1, type: [4, 4] } };
    const axisOf = (each, nameGap) => axis({ type: "value", scale: true, nameLocation: "middle", nameGap, ...each });
    const chart = draw(box, { grid: { left: 60, right: 20, top: 14, bottom: 48 }, xAxis: axisOf(axes.x, 28), yAxis: axisOf(axes.y, 42), series: [joined, ...series],
      tell: ({ data: { point } }) => (point ? point.tell() : []) });
    chart.off("click");
    chart.on("click", ({ data }) => data?.point && pick(data.point));
  }

  const waiting = new Map(); // box → how it is to be drawn
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      target.near = isIntersecting;
      if (isIntersecting) drawWaiting([target]);
    }
  }, { rootMargin: "10% 0px" });
  let pause = 0;

  /** Draw at once what is on the screen or near it, the rest when it comes near or the reader pauses. */
  function whenSeen(box, drawing) {
    waiting.set(box, drawing);
    watch.observe(box);
    if (box.near) drawWaiting([box]);
    clearTimeout(pause);
    pause = setTimeout(() => drawWaiting([...waiting.keys()]), 500);
  }
  function drawWaiting(boxes) {
    for (const box of boxes) {
      if (box.isConnected && !box.clientWidth) continue; // in a tab that is not open
      const drawing = waiting.get(box);
      waiting.delete(box);
      if (box.isConnected) drawing?.();
    }
  }
  const drawAll = () => drawWaiting([...waiting.keys()]);

  /**
   * The panels of a picture, one for each {title, draw}; `table()` is what they show, for saving and for reading aloud;
   * `keys` are the lines' {name, colour}.
   */
  function panels(picture, list, table, keys = []) {
    const holder = picture.querySelector(".panels");
    fill(picture.querySelector(".keys"), keys.map(({ name, colour }) => el("span", {}, dot(colour), name)));
    picture.keys = keys;
    while (holder.children.length > list.length) {
      echarts.getInstanceByDom(holder.lastChild.lastChild)?.dispose();
      holder.lastChild.remove();
    }
    while (holder.children.length < list.length) holder.append(el("div", { class: "panel" }, el("h3"), el("div", { class: "box", role: "img" })));
    list.forEach((panel, place) => {
      const [title, box] = holder.children[place].children;
      fill(title, panel.title, help(panel.word));
      box.setAttribute("aria-label", visible(`${picture.querySelector("h2").textContent}: ${panel.title}. ${t("see.table")}`));
      whenSeen(box, () => panel.draw(box));
    });
    picture.hidden = !list.length;
    picture.table = table;
    const details = picture.querySelector("details");
    if (details.open) showTable(details, table());
  }
  const showTable = (details, rows) => fillTable(details.querySelector("table"), rows[0], rows.slice(1));

  /** The buttons under a picture: SVG, PNG, and the table behind it. */
  function addSaving(picture) {
    const button = (kind, act) => el("button", { type: "button", on: { click: act }, "data-save": kind }, kind);
    const details = el("details", {}, el("summary", { "data-t": "as.table" }), el("div", { class: "scroll", tabindex: 0 }, el("table")));
    details.addEventListener("toggle", () => details.open && showTable(details, picture.table()));
    const name = `${facts.study}-${picture.id}`;
    picture.append(el("div", { class: "save" }, button("SVG", () => save(`${name}.svg`, svgOf(picture), "image/svg+xml")),
      button("PNG", () => savePng(picture, `${name}.png`)), details));
  }

  /** A picture's panels as one SVG, as they stand on the page, each under its title. */
  function svgOf(picture) {
    drawWaiting(picture.querySelectorAll(".box"));
    const holder = picture.querySelector(".panels").getBoundingClientRect(), head = 60;
    const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const [width, height] = [Math.ceil(holder.width), Math.ceil(holder.height) + head];
    const set = (node, attributes) => Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
    const add = (tag, attributes, text = "") => {
      const node = root.appendChild(document.createElementNS(root.namespaceURI, tag));
      set(node, attributes);
      node.textContent = visible(text);
    };
    const write = (text, x, y, size) => add("text", { x, y, fill: css("--ink"), "font-family": css("--sans"), "font-size": size }, text);
    set(root, { width, height, viewBox: `0 0 ${width} ${height}` });
    add("rect", { width, height, fill: css("--paper") });
    write(picture.querySelector("h2").textContent, 8, 22, 16);
    let right = 8;
    for (const { name, colour } of picture.keys) {
      add("circle", { cx: right + 5, cy: 39, r: 5, fill: colour });
      write(name, right + 15, 43, 12);
      right += 34 + Array.from(name).length * 7.5;
    }
    for (const panel of picture.querySelectorAll(".panel")) {
      const [title, box] = panel.children, place = box.getBoundingClientRect(), chart = box.querySelector("svg").cloneNode(true);
      const [x, y] = [place.left - holder.left, place.top - holder.top + head];
      write(title.firstChild.textContent, x + 8, y - 6, 13);
      set(chart, { x, y, width: place.width, height: place.height });
      root.append(chart);
    }
    return new XMLSerializer().serializeToString(root);
  }

  function savePng(picture, name) {
    const image = new Image();
    image.onload = () => {
      const canvas = el("canvas", { width: image.width * 2, height: image.height * 2 });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(name, blob, "image/png"));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgOf(picture))}`;
  }

  return Object.freeze({ css, ramp, colourOf, lineOf, dot, numbersIn, linePanel, multiples, heatPanel, dotPanel, pointPanel, panels, drawAll, addSaving });
})();
