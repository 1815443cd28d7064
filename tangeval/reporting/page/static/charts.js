// charts.js: the three kinds of picture (lines with bands, heat map, dots with intervals), and how a picture is saved.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const SYMBOLS = ["circle", "rect", "triangle", "diamond", "roundRect", "arrow"];

/** Base is grey; checkpoints go from ochre to indigo as training went on. */
function colourOf(place) {
  const tuned = FACTS.checkpoints.filter((name) => name !== "base");
  if (nameOf(place) === "base") return css("--base");
  const share = tuned.length < 2 ? 1 : tuned.indexOf(nameOf(place)) / (tuned.length - 1);
  const mix = (name) => css(name).match(/\w\w/g).map((hex) => parseInt(hex, 16));
  const [from, over, to] = ["--early", "--middle", "--late"].map(mix);
  const [low, high, part] = share < 0.5 ? [from, over, share * 2] : [over, to, share * 2 - 1];
  return `rgb(${low.map((c, i) => Math.round(c + (high[i] - c) * part)).join(",")})`;
}

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
}

/** A tooltip made of nodes: nothing in it is ever read as markup. */
function tip(tell, more) {
  return {
    confine: true, backgroundColor: css("--paper"), borderColor: css("--rule"), textStyle: { color: css("--ink"), fontSize: 12 },
    formatter: (params) => el("div", {}, ...tell(params).map((line) => el("div", {}, ...[line].flat()))), ...more,
  };
}

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
const axisText = (value) => String(Number(value.toPrecision(6)));

/**
 * Lines with bands. `x`: labels; `lines`: {name, colour, symbol, rows: [[value, low, high]]}, the file's strings;
 * `levels`: {name, value} of random baseline and reference; `at`: where the reader stands; `pick(place)`: one clicked there.
 */
function linePanel(box, { x, lines, levels, metric, at, pick }) {
  const share = METRIC[metric].share, drawn = levels.filter((level) => level.value !== "" && (share || level.name === RANDOM));
  const bounds = scale(numbersIn([...lines.flatMap((line) => line.rows.flat()), ...drawn.map((level) => level.value)]), share);
  const series = lines.flatMap(({ name, colour, symbol, rows }) => [
    { type: "custom", silent: true, z: 1, data: [[0]], clip: true, renderItem: (_, api) => band(api, rows, colour) },
    { type: "line", name, symbol, symbolSize: 7, color: colour, lineStyle: { width: 2 }, connectNulls: true, data: rows.map(([text]) => drawable(text)) },
  ]);
  const marks = drawn.map((level) => ({
    type: "line", data: [], color: css("--quiet"),
    markLine: rule([{ yAxis: Number(level.value) }], { color: css("--quiet"), type: level.name === RANDOM ? [2, 3] : [8, 4], width: 1.5 }),
  }));
  if (at >= 0) marks.push({ type: "line", data: [], markLine: rule([{ xAxis: at }], { color: css("--accent"), type: "solid", width: 1 }) });
  draw(box, {
    grid: { left: 44, right: 12, top: 10, bottom: 26 },
    xAxis: axis({ type: "category", data: x.map(visible), boundaryGap: x.length < 2 }),
    yAxis: axis({ type: "value", ...bounds, axisLabel: { color: css("--quiet"), fontSize: 11, formatter: axisText } }),
    series: [...series, ...marks], tooltip: { trigger: "axis" },
    tell: ([{ dataIndex }]) => [el("b", {}, x[dataIndex]), ...lines.map((line) => said(line, line.rows[dataIndex]))],
  }, pick);
}

const dot = (colour) => el("i", { class: "dot", style: `background:${colour}` });
const said = (line, [value, low, high]) =>
  [dot(line.colour), `${line.name}  ${short(value)}${low ? `  [${short(low)}, ${short(high)}]` : ""}`];

function band(api, rows, colour) {
  const whole = rows.map((row, place) => [place, ...row]).filter(([, , low, high]) => low !== "" && high !== "");
  const edge = (column) => whole.map((row) => api.coord([row[0], Number(row[column])]));
  return { type: "polygon", shape: { points: [...edge(2), ...edge(3).reverse()] }, style: { fill: colour, opacity: 0.1 } };
}

/** A heat map: `rows[y][x]` are the file's strings; `low`, `high` the scale that several share; `at` is [x, y]. */
function heatPanel(box, { x, y, names, rows, low, high, at, pick }) {
  const ramp = [1, 2, 3, 4].map((step) => css(`--heat${step}`)), few = x.length * y.length <= 81;
  const data = rows.flatMap((row, j) => row.map((text, i) => {
    const dark = text !== "" && (Number(text) - low) / (high - low || 1) > 0.5, here = i === at[0] && j === at[1];
    return { value: [i, j, drawable(text)], label: { color: dark ? css("--heat1") : css("--heat4") }, here };
  }));
  const written = { show: few, fontSize: 11, formatter: ({ value: [i, j] }) => short(rows[j][i]) };
  const tiles = (own, colour, width) => ({ type: "heatmap", data: own, itemStyle: { borderColor: css(colour), borderWidth: width }, label: written });
  draw(box, {
    grid: { left: 58, right: 10, top: 8, bottom: 40 },
    xAxis: axis({ type: "category", data: x, name: names[0], nameLocation: "middle", nameGap: 24, splitLine: { show: false } }),
    yAxis: axis({ type: "category", data: y, name: names[1], nameLocation: "middle", nameGap: 38, splitLine: { show: false } }),
    visualMap: { show: false, seriesIndex: [0, 1], min: low, max: high > low ? high : low + 1, inRange: { color: ramp } },
    series: [tiles(data, "--paper", 1), tiles(data.filter((tile) => tile.here), "--accent", 3)],
    tell: ({ value: [i, j] }) => [`${names[0]} ${x[i]}`, `${names[1]} ${y[j]}`, el("b", {}, short(rows[j][i]))],
  }, pick);
}

/** Dots with intervals, a row each: {name, colour, value, low, high, open}; `zero` draws the line of no difference. */
function dotPanel(box, { rows, share, zero }) {
  box.style.height = `${rows.length * 26 + 44}px`;
  const bounds = scale([...numbersIn(rows.flatMap((row) => [row.value, row.low, row.high])), ...(zero ? [0] : [])], share);
  const whisker = (_, api) => {
    const row = rows[api.value(0)], [from, to] = [row.low, row.high].map((end) => api.coord([Number(end), api.value(0)]));
    return { type: "line", shape: { x1: from[0], y1: from[1], x2: to[0], y2: to[1] }, style: { stroke: row.colour, lineWidth: 2 } };
  };
  const ranged = rows.flatMap((row, place) => (row.low === "" ? [] : [[place]]));
  draw(box, {
    grid: { left: 6, right: 16, top: 4, bottom: 26, containLabel: true },
    xAxis: axis({ type: "value", ...bounds, axisLabel: { color: css("--quiet"), fontSize: 11, hideOverlap: true, formatter: axisText } }),
    yAxis: axis({ type: "category", inverse: true, data: rows.map((row) => visible(row.name)),
      axisLabel: { color: css("--ink"), fontSize: 12, width: 190, overflow: "truncate" } }),
    series: [
      { type: "custom", silent: true, data: ranged, renderItem: whisker },
      { type: "scatter", symbolSize: 9, data: rows.map((row, place) => ({ value: [drawable(row.value), place],
        itemStyle: { color: row.open ? css("--paper") : row.colour, borderColor: row.colour, borderWidth: 2 } })),
        markLine: zero ? rule([{ xAxis: 0 }], { color: css("--accent"), type: "solid" }) : undefined },
    ],
    tell: ({ dataIndex }) => [said(rows[dataIndex], ["value", "low", "high"].map((end) => rows[dataIndex][end]))],
  });
}

const WAITING = new Map(); // box → how it is to be drawn
const WATCH = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.near = isIntersecting;
    if (isIntersecting) drawWaiting([target]);
  }
}, { rootMargin: "10% 0px" });

/** Draw at once what is on the screen or near it, the rest when it comes near or the reader pauses. */
function whenSeen(box, drawing) {
  WAITING.set(box, drawing);
  WATCH.observe(box);
  if (box.near) drawWaiting([box]);
  clearTimeout(whenSeen.later);
  whenSeen.later = setTimeout(() => drawWaiting([...WAITING.keys()]), 500);
}

function drawWaiting(boxes) {
  for (const box of boxes) {
    if (box.isConnected && !box.clientWidth) continue; // in a tab that is not open
    const drawing = WAITING.get(box);
    WAITING.delete(box);
    if (box.isConnected) drawing?.();
  }
}
window.addEventListener("beforeprint", () => drawWaiting([...WAITING.keys()]));

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
    title.textContent = visible(panel.title);
    box.setAttribute("aria-label", visible(`${picture.querySelector("h2").textContent}: ${panel.title}. ${t("see.table")}`));
    whenSeen(box, () => panel.draw(box));
  });
  picture.hidden = !list.length;
  picture.table = table;
  const details = picture.querySelector("details");
  if (details?.open) showTable(details, table());
}

function showTable(details, rows) {
  fillTable(details.querySelector("table"), rows[0], rows.slice(1));
}

/** The buttons under every picture: SVG, PNG, and the table behind it. */
function addSaving() {
  for (const picture of document.querySelectorAll(".picture")) {
    const button = (kind, act) => el("button", { type: "button", on: { click: act }, "data-save": kind }, kind);
    const details = el("details", {}, el("summary", { "data-t": "as.table" }), el("div", { class: "scroll", tabindex: 0 }, el("table")));
    details.addEventListener("toggle", () => details.open && showTable(details, picture.table()));
    const name = `${FACTS.study}-${picture.id}`;
    picture.querySelector(".panels").before(el("p", { class: "keys" }));
    picture.append(el("div", { class: "save" }, button("SVG", () => save(`${name}.svg`, svgOf(picture), "image/svg+xml")),
      button("PNG", () => savePng(picture, `${name}.png`)), details));
  }
}

/** A picture's panels as one SVG, as they stand on the page, each under its title. */
function svgOf(picture) {
  drawWaiting(picture.querySelectorAll(".box"));
  const holder = picture.querySelector(".panels").getBoundingClientRect(), head = 60;
  const root = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const [width, height] = [Math.ceil(holder.width), Math.ceil(holder.height) + head];
  const add = (tag, attributes, text) => {
    const node = document.createElementNS(root.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.textContent = text ?? "";
    return root.appendChild(node);
  };
  for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) root.setAttribute(name, value);
  add("rect", { width, height, fill: css("--paper") });
  const write = (text, x, y, size) => add("text", { x, y, fill: css("--ink"), "font-family": css("--sans"), "font-size": size }, visible(text));
  write(picture.querySelector("h2").textContent, 8, 22, 16);
  let right = 8;
  for (const { name, colour } of picture.keys) {
    add("circle", { cx: right + 5, cy: 39, r: 5, fill: colour });
    write(name, right + 15, 43, 12);
    right += 34 + Array.from(name).length * 7.5;
  }
  for (const panel of picture.querySelectorAll(".panel")) {
    const [title, box] = panel.children, place = box.getBoundingClientRect();
    const [x, y] = [place.left - holder.left, place.top - holder.top + head];
    write(title.textContent, x + 8, y - 6, 13);
    const chart = box.querySelector("svg").cloneNode(true);
    for (const [name, value] of Object.entries({ x, y, width: place.width, height: place.height })) chart.setAttribute(name, value);
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
