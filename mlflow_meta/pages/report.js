"use strict";
// Texts of runs come from the JSON beside this and become text nodes and attributes of SVG, never HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);

function el(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  for (const child of children) made.append(child);
  return made;
}
const cut = (text, n) => (text.length > n ? text.slice(0, n - 1) + "\u2026" : text);
const short = (x) => (x === null ? "-" : String(Number(x.toPrecision(x >= 1e4 || x <= -1e4 ? 3 : 4))));
const tick = (x) => (x !== 0 && (Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5) ? x.toExponential(0).replace("+", "") : String(Number(x.toPrecision(6))));
const known = (values) => values.filter((x) => x !== null && x !== undefined);

function extent(values, isLog) {
  const there = known(values);
  if (!there.length) return { low: 0, high: 1, log: false };
  let low = Math.min(...there), high = Math.max(...there);
  if (low === high) { const by = Math.abs(low) / 10 || 1; low -= by; high += by; return { low, high, log: false }; }
  const by = isLog ? (high / low) ** 0.04 : (high - low) * 0.04;
  return isLog ? { low: low / by, high: high * by, log: true } : { low: low - by, high: high + by, log: false };
}
function scale(range, from, to) {
  const f = range.log ? Math.log : (x) => x;
  const low = f(range.low), high = f(range.high);
  return (x) => from + ((f(Math.min(range.high, Math.max(range.low, x))) - low) / (high - low)) * (to - from);
}
function ticks(range, n) {
  if (range.log) {
    const found = [], first = Math.ceil(Math.log10(range.low)), last = Math.floor(Math.log10(range.high));
    const step = Math.max(1, Math.ceil((last - first + 1) / n));
    for (let e = first; e <= last; e += step) found.push(10 ** e);
    if (found.length > 2) return found;
    const finer = [];
    for (let e = first - 1; e <= last; e++) finer.push(...[1, 2, 5].map((k) => k * 10 ** e));
    const within = finer.filter((v) => v >= range.low && v <= range.high);
    if (within.length > 1) return within;
  }
  const rough = (range.high - range.low) / n, power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((k) => k * power >= rough) * power, range.whole ? 1 : 0), found = [];
  for (let i = Math.ceil(range.low / step); i * step <= range.high; i++) found.push(i * step);
  return found.length > 1 || n > 20 || (range.whole && step === 1) ? found : ticks(range, 2 * n); // one alone tells no scale
}

function frame(id, height, label) {
  const width = Math.max(at(id).clientWidth, 260);
  const svg = el("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label });
  at(id).replaceChildren(svg);
  return [svg, width];
}
function axes(svg, box, x, y, names) {
  const atX = x && scale(x, box.left, box.right), atY = scale(y, box.bottom, box.top);
  for (const value of ticks(y, Math.max(2, (box.bottom - box.top) / 45))) {
    svg.append(el("line", { class: "grid", x1: box.left, x2: box.right, y1: atY(value), y2: atY(value) }));
    svg.append(el("text", { x: box.left - 6, y: atY(value) + 4, "text-anchor": "end" }, tick(value)));
  }
  for (const value of x ? ticks(x, Math.max(2, (box.right - box.left) / 70)) : [])
    svg.append(el("text", { x: atX(value), y: box.bottom + 16, "text-anchor": "middle" }, tick(value)));
  svg.append(el("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  if (names.x) svg.append(el("text", { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, cut(names.x, 60)));
  if (names.y) {
    const middle = (box.top + box.bottom) / 2;
    svg.append(el("text", { class: "name", x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, cut(names.y, 40)));
  }
  return [atX, atY];
}
const diamond = (x, y, r) => `M${x} ${y - r}l${r} ${r}l${-r} ${r}l${-r} ${-r}z`;
const titled = (mark, text) => (mark.append(el("title", {}, text)), mark);
const empty = (id, words) => {
  const said = document.createElement("p");
  said.className = "soft"; said.textContent = words; at(id).replaceChildren(said);
};
const told = (run) => `${run.name}: ${run.got === null ? (run.waits ? "waits" : "has no result") : `got ${short(run.got)}`}` +
  (run.predicted === null ? "" : ` (predicted ${short(run.predicted)}, ${short(run.low)} to ${short(run.high)})`);
// The whiskers of an interval from `from` to `to` along one way; an arrow where it goes on outside the axis.
function whiskers(run, range, place, to) {
  const end = (v, inward) => {
    const p = place(v), tip = v < range.low || v > range.high;
    return tip ? to(p + inward * 5, -4, "M") + to(p, 0, "L") + to(p + inward * 5, 4, "L") : to(p, -4, "M") + to(p, 4, "L");
  };
  const side = Math.sign(place(range.low) - place(range.high)); // 1 where the axis goes up
  return to(place(run.low), 0, "M") + to(place(run.high), 0, "L") + end(run.low, -side) + end(run.high, side);
}
const valueLabel = `${data.metric} (${data.direction})`;

function drawBudget() {
  const done = data.runs.filter((run) => run.got !== null || run.waits);
  if (!done.length) return empty("budget", "No run has finished yet.");
  const byTime = document.querySelector("input[name=by]:checked").value === "time";
  const xs = done.map((run) => (byTime ? run.spent : run.turn));
  const got = known(done.map((run) => run.got));
  const [svg, width] = frame("budget", 320, `${data.metric} of ${got.length} runs in the order of training, and predictions for those that wait`);
  const box = { left: 64, right: width - 12, top: 10, bottom: 276 };
  const x = { ...extent([...xs, byTime ? 0 : 1], false), whole: !byTime };
  const [atX, atY] = axes(svg, box, x, data.values, { x: byTime ? `training time of all runs so far [${data.unit}]` : "run, in the order of training", y: valueLabel });
  let best = null, line = "";
  done.forEach((run, i) => {
    const better = run.got !== null && (best === null || data.sign * run.got < data.sign * best);
    if (better) best = run.got;
    if (best !== null) line += line ? `H${atX(xs[i])}V${atY(best)}` : `M${atX(xs[i])} ${atY(best)}`;
  });
  if (line) svg.append(el("path", { class: "best", d: `${line}H${box.right}` }));
  done.forEach((run, i) => {
    const px = atX(xs[i]);
    if (!run.suggested) return svg.append(titled(el("circle", { class: "dot", cx: px, cy: atY(run.got), r: 3.5 }), told(run)));
    const group = titled(el("g"), told(run));
    if (run.predicted !== null) {
      const d = whiskers(run, data.values, atY, (p, across, verb) => `${verb}${px + across} ${p}`);
      group.append(el("path", { class: "hit", d: `M${px} ${atY(run.low)}V${atY(run.high)}` }), el("path", { class: "interval", d: `${d}M${px - 4} ${atY(run.predicted)}h8` }));
    }
    if (run.got !== null) group.append(el("path", { class: "ours", d: diamond(px, atY(run.got), 6) }));
    else if (run.predicted !== null) group.append(el("path", { class: "waits", d: diamond(px, atY(run.predicted), 5) }));
    svg.append(group);
  });
}

function drawActual() {
  const done = data.runs.filter((run) => run.got !== null && run.predicted !== null);
  if (!done.length) return empty("actual", "No suggestion has finished yet.");
  const [svg, width] = frame("actual", 320, `Predicted and actual ${data.metric} of ${done.length} suggestions`);
  const box = { left: 64, right: width - 12, top: 10, bottom: 276 };
  const [atX, atY] = axes(svg, box, data.compared, data.compared, { x: `predicted ${data.metric}, with 80% interval`, y: `actual ${data.metric}` });
  svg.append(el("path", { class: "same", d: `M${box.left} ${box.bottom}L${box.right} ${box.top}` }));
  for (const run of done) {
    const py = atY(run.got);
    const d = whiskers(run, data.compared, atX, (p, across, verb) => `${verb}${p} ${py + across}`);
    svg.append(titled(el("g", {}, el("path", { class: "hit", d }), el("path", { class: "interval", d }), el("path", { class: "ours", d: diamond(atX(run.predicted), py, 6) })), told(run)));
  }
}

function drawImportance() {
  if (!at("importance") || !data.importance.length) return;
  const row = 34, height = 8 + row * data.importance.length + 40;
  const [svg, width] = frame("importance", height, "Importance of params");
  const box = { left: Math.min(190, width * 0.4), right: width - 16, top: 4, bottom: height - 38 };
  const x = { low: 0, high: Math.max(0.1, ...data.importance.flatMap((param) => [param.model, param.runs])) };
  const atX = scale(x, box.left, box.right);
  for (const value of ticks(x, width / 110)) {
    svg.append(el("line", { class: "grid", x1: atX(value), x2: atX(value), y1: box.top, y2: box.bottom }));
    svg.append(el("text", { x: atX(value), y: box.bottom + 16, "text-anchor": "middle" }, `${short(100 * value)}%`));
  }
  svg.append(el("text", { class: "name", x: (box.left + box.right) / 2, y: box.bottom + 34, "text-anchor": "middle" }, "share of the importance of all params"));
  data.importance.forEach((param, i) => {
    const y = box.top + row * i + 6;
    const name = el("text", { class: "name", x: box.left - 8, y: y + 16, "text-anchor": "end" }, cut(param.name, Math.floor(box.left / 7.5)));
    svg.append(titled(name, param.name));
    svg.append(titled(el("rect", { class: "bar-model", x: box.left, y, width: atX(param.model) - box.left, height: 10 }), `${param.name}: ${short(100 * param.model)}% to the meta-model`));
    svg.append(titled(el("rect", { class: "bar-runs", x: box.left, y: y + 12, width: atX(param.runs) - box.left, height: 9 }), `${param.name}: ${short(100 * param.runs)}% to be among the best`));
  });
}

function drawCurves() {
  if (!at("curves") || !data.curves.length) return;
  const all = Math.max(at("curves").clientWidth, 260), n = all > 850 ? 3 : all > 520 ? 2 : 1;
  const cell = all / n, tall = 220, height = tall * Math.ceil(data.curves.length / n);
  const [svg] = frame("curves", height, "Partial dependence of the most important params");
  data.curves.forEach((curve, i) => {
    const left = cell * (i % n), top = tall * Math.floor(i / n);
    const box = { left: left + 62, right: left + cell - 12, top: top + 10, bottom: top + tall - 52 };
    const names = { x: cut(curve.name, 36), y: i % n ? "" : cut(`expected ${data.metric}`, 24) };
    if (curve.choices) return drawChoices(svg, curve, box, names);
    const [atX, atY] = axes(svg, box, extent(curve.at, curve.log), data.expected, names);
    const along = (values) => values.map((v, k) => `${atX(curve.at[k])} ${atY(v)}`);
    svg.append(el("path", { class: "band", d: `M${[...along(curve.low), ...along(curve.high).reverse()].join("L")}z` }));
    svg.append(titled(el("path", { class: "mean", d: `M${along(curve.mean).join("L")}` }), curve.name));
  });
}
function drawChoices(svg, curve, box, names) {
  const step = (box.right - box.left) / curve.choices.length;
  const [, atY] = axes(svg, box, null, data.expected, names);
  curve.choices.forEach((choice, k) => {
    const x = box.left + step * (k + 0.5);
    svg.append(el("path", { class: "interval", d: `M${x} ${atY(curve.low[k])}V${atY(curve.high[k])}M${x - 4} ${atY(curve.low[k])}h8M${x - 4} ${atY(curve.high[k])}h8` }));
    svg.append(titled(el("circle", { class: "node", cx: x, cy: atY(curve.mean[k]), r: 4 }), `${choice}: ${short(curve.mean[k])}`));
    if (step > 22) svg.append(titled(el("text", { x, y: box.bottom + 16, "text-anchor": "middle" }, cut(choice, Math.max(2, Math.floor(step / 7.5)))), choice));
  });
}

const kept = new Map(); // place of an axis -> [from, to], 0 at the bottom and 1 on top
function drawParallel() {
  const runs = data.runs.filter((run) => run.drawn);
  if (!runs.length || !data.axes.length) return empty("parallel", "No configuration is known yet.");
  const [svg, shown] = frame("parallel", 384, `Configurations of ${runs.length} runs`);
  svg.setAttribute("role", "group");
  const fit = Math.max(2, Math.floor((shown - 110) / 64) + 1), last = data.axes.length - 1; // the metric stays
  const all = data.axes.map((axis, i) => ({ ...axis, i })).filter((axis) => axis.i === last || axis.i < fit - 1);
  const n = all.length - 1;
  at("fitting").textContent = n < data.n_params ? `${n === 1 ? `The ${data.ranked_by}` : `The ${n} ${data.ranked_by}`} of ${data.n_params} params ${n === 1 ? "is" : "are"} drawn.` : "";
  const top = 44, bottom = 330, unset = 362, gap = (shown - 110) / Math.max(all.length - 1, 1), places = all.map((_, i) => 50 + gap * i);
  const heights = all.map((axis) => {
    if (axis.choices) { const n = axis.choices.length; return (v) => (n === 1 ? 0.5 : v / (n - 1)); }
    const f = scale(extent(axis.values, axis.log), 0, 1);
    axis.range = extent(axis.values, axis.log);
    return f;
  });
  const py = (h) => bottom - h * (bottom - top);
  const lines = runs.map((run) => {
    const hs = all.map((axis, k) => (run.at[axis.i] === null ? null : heights[k](run.at[axis.i])));
    const d = `M${hs.map((h, k) => `${places[k]} ${h === null ? unset : py(h)}`).join("L")}`;
    const kind = run.suggested ? "path suggested" : run.good ? "path good" : "path";
    const path = el("path", { class: kind, d });
    path.addEventListener("pointerenter", () => { path.classList.add("lit"); at("hover").textContent = `${told(run)} | ${run.said}`; });
    path.addEventListener("pointerleave", () => path.classList.remove("lit"));
    return { path, hs };
  });
  lines.sort((a, b) => a.path.classList.length - b.path.classList.length).forEach((line) => svg.append(line.path));
  const filter = () => {
    let n = 0;
    for (const line of lines) {
      const off = [...kept].some(([i, [from, to]]) => line.hs[i] === null || line.hs[i] < from - 1e-9 || line.hs[i] > to + 1e-9);
      line.path.classList.toggle("off", off);
      n += off ? 0 : 1;
    }
    at("hover").textContent = kept.size ? `${n} of ${lines.length} runs are within what is marked.` : "";
  };
  svg.append(el("line", { class: "same", x1: 20, x2: shown - 40, y1: unset, y2: unset }));
  svg.append(el("text", { x: 20, y: unset + 16 }, "not set"));
  all.forEach((axis, i) => drawAxis(svg, axis, i, { x: places[i], top, bottom, gap, py, height: heights[i], filter }));
  svg.addEventListener("dblclick", () => { kept.clear(); drawParallel(); at("hover").textContent = ""; });
  filter();
}
function drawAxis(svg, axis, i, { x, top, bottom, gap, py, height, filter }) {
  svg.append(el("line", { class: "axis", x1: x, x2: x, y1: top, y2: bottom }));
  const name = el("text", { class: "name", x, y: i % 2 && gap < 100 ? 14 : 30, "text-anchor": "middle" }, cut(axis.name, Math.max(6, Math.floor((gap < 100 ? 2 : 1) * gap / 7.5))));
  svg.append(titled(name, axis.name));
  const marks = axis.choices ? axis.choices.map((choice, k) => [height(k), choice]) : ticks(axis.range, 5).map((v) => [height(v), tick(v)]);
  for (const [h, words] of marks) svg.append(titled(el("text", { x: x + 5, y: py(h) + 4 }, cut(words, Math.max(4, Math.floor(gap / 9)))), words));
  const brush = el("rect", { class: "brush", x: x - 9, width: 18, y: 0, height: 0 });
  const handle = el("rect", { class: "handle", x: x - 12, width: 24, y: top - 6, height: bottom - top + 12, tabindex: 0, role: "slider", "aria-label": `part of ${axis.name} that is kept`, "aria-valuenow": 0 });
  const show = () => {
    const part = kept.get(i);
    brush.setAttribute("y", part ? py(part[1]) : 0);
    brush.setAttribute("height", part ? Math.max(py(part[0]) - py(part[1]), 2) : 0);
    handle.setAttribute("aria-valuetext", part ? `${Math.round(100 * part[0])}% to ${Math.round(100 * part[1])}%` : "all");
    filter();
  };
  const at01 = (event) => Math.min(1, Math.max(0, (bottom - (event.clientY - svg.getBoundingClientRect().top)) / (bottom - top)));
  let start = null;
  handle.addEventListener("pointerdown", (event) => { start = at01(event); handle.setPointerCapture(event.pointerId); });
  handle.addEventListener("pointermove", (event) => {
    if (start === null) return;
    const end = at01(event);
    if (Math.abs(end - start) > 0.02) kept.set(i, [Math.min(start, end), Math.max(start, end)]);
    show();
  });
  handle.addEventListener("pointerup", (event) => { if (Math.abs(at01(event) - start) <= 0.02) kept.delete(i); start = null; show(); });
  handle.addEventListener("keydown", (event) => {
    const by = { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key], now = kept.get(i) ?? [0.75, 1];
    if (event.key === "Escape") kept.delete(i);
    else if (by) { const low = Math.min(0.75, Math.max(0, kept.has(i) ? now[0] + by : by > 0 ? 0.75 : 0)); kept.set(i, [low, low + 0.25]); } else return;
    event.preventDefault();
    show();
  });
  svg.append(brush, handle);
  show();
}

function sortable(table) {
  const order = new Intl.Collator(undefined, { numeric: true }); // run 2 before run 10
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => head.querySelector("button")?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (body) => body.rows[0].cells[place].dataset.sort;
    const isNumber = head.classList.contains("number");
    const compare = (a, b) => {
      if ((key(a) === "") !== (key(b) === "")) return key(a) === "" ? 1 : -1; // what is not known comes last
      const by = isNumber ? Number(key(a)) - Number(key(b)) : order.compare(key(a), key(b));
      return up ? by : -by;
    };
    table.append(...[...table.tBodies].sort(compare)); // each is a suggestion: its numbers, and below them its params
  }));
}

function draw() {
  drawBudget(); drawActual(); drawParallel(); drawImportance(); drawCurves();
}
at("switch").hidden = !data.has_times;
at("switch").addEventListener("change", drawBudget);
if (at("suggestions")) sortable(at("suggestions"));
let width = window.innerWidth;
window.addEventListener("resize", () => { if (window.innerWidth !== width) { width = window.innerWidth; draw(); } });
draw();
