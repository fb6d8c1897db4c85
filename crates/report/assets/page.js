"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const SVG = "http://www.w3.org/2000/svg";
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];

// Everything from a run goes in as text: there is no innerHTML in this file.
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}
function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const colour = (run) => `var(--c${run % 8})`;
const dash = (run) => DASHES[Math.floor(run / 8) % DASHES.length];

function say(x) {
  if (x === null || x === undefined) return "-";
  if (Number.isInteger(x) && Math.abs(x) < 1e15) return x.toLocaleString("en-US");
  const size = Math.abs(x);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return x.toExponential(3).replace("e+", "e");
  return Number(x.toPrecision(5)).toString();
}
const short = (x) => {
  const size = Math.abs(x);
  if (size >= 1e6 && size < 1e15) return Number((x / (size >= 1e9 ? 1e9 : 1e6)).toPrecision(4)) + (size >= 1e9 ? "G" : "M");
  if (size >= 1e4 && size < 1e6) return Number((x / 1e3).toPrecision(4)) + "k";
  if (size !== 0 && size < 1e-3) return Number(x.toPrecision(3)).toExponential().replace("e+", "e");
  return Number(x.toPrecision(6)).toString();
};

// ---- scales ----
function ticks(low, high, wanted) {
  if (!(high > low)) return [low];
  const raw = (high - low) / wanted;
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const out = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) out.push(i * step);
  return out;
}
function logTicks(low, high) {
  const out = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const m of high / low < 50 ? [1, 2, 3, 5] : [1]) {
      const v = m * Math.pow(10, e);
      if (v >= low * 0.999 && v <= high * 1.001) out.push(v);
    }
  }
  if (out.length > 7) {
    const every = Math.ceil(out.length / 6);
    return out.filter((_, i) => i % every === 0);
  }
  return out.length > 1 ? out : [low, high];
}
function smooth(points, weight) {
  if (weight === 0) return points;
  let mean = 0, seen = 0;
  // An exponential mean, as if what came before the first were not there.
  return points.map(([x, y]) => {
    mean = weight * mean + (1 - weight) * y;
    seen = weight * seen + (1 - weight);
    return [x, mean / seen];
  });
}

// ---- state ----
const hidden = new Set();
let weight = 0;
let scale = "linear";
const charts = [];
const redraw = () => charts.forEach((c) => c());

// ---- charts ----
const W = 460, H = 240, TOP = 10, BOTTOM = 38, RIGHT = 14;

function chart(title, curves) {
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, class: "chart", role: "img", "aria-label": title, tabindex: "0" });
  const values = el("div", { class: "values", "aria-live": "polite" });
  const note = el("span", { class: "faint small" });
  const card = el("div", { class: "card" }, el("h3", {}, title, " ", note), picture, values);
  // Room for what hovering says, so that it moves nothing.
  values.style.minHeight = `${1.45 * Math.ceil((curves.length + 1) / 2)}em`;
  let drawn = null, at = null;

  function draw() {
    picture.replaceChildren();
    const log = scale === "log";
    const usable = (p) => !log || p[1] > 0;
    const shown = curves.filter((c) => !hidden.has(c.run)).map((c) => {
      const raw = c.points.filter(usable);
      return { ...c, raw, line: smooth(raw, weight) };
    }).filter((c) => c.raw.length > 0);
    const dropped = log && curves.some((c) => !hidden.has(c.run) && c.points.some((p) => !usable(p)));
    note.textContent = dropped ? "(values of 0 or less are not on a log scale)" : "";
    values.replaceChildren();
    drawn = null;
    if (shown.length === 0) {
      picture.append(svg("text", { x: W / 2, y: H / 2, "text-anchor": "middle" }, "nothing to show"));
      return;
    }
    const every = shown.flatMap((c) => (weight > 0 ? c.raw.concat(c.line) : c.raw));
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const [x, y] of every) {
      x0 = Math.min(x0, x); x1 = Math.max(x1, x); y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
    if (x0 === x1) { x0 -= 1; x1 += 1; }
    // What differs by rounding alone is flat: no tick would fit between.
    const flat = y1 - y0 <= 1e-9 * Math.max(Math.abs(y0), Math.abs(y1));
    if (log) {
      if (flat) { y0 /= 2; y1 *= 2; }
    } else {
      const room = flat ? Math.abs(y0) * 0.1 || 1 : (y1 - y0) * 0.05;
      const low = y0 - room;
      y0 = y0 >= 0 && low < 0 ? 0 : low;
      y1 += room;
    }
    const across = ticks(x0, x1, 5), up = log ? logTicks(y0, y1) : ticks(y0, y1, 5);
    // As much room as the longest label takes.
    const left = 14 + 7.4 * Math.max(...up.map((v) => short(v).length));
    const f = log ? Math.log : (v) => v;
    const px = (x) => left + ((x - x0) / (x1 - x0)) * (W - left - RIGHT);
    const py = (y) => H - BOTTOM - ((f(y) - f(y0)) / (f(y1) - f(y0))) * (H - TOP - BOTTOM);
    for (const v of up) {
      picture.append(svg("line", { class: "gridline", x1: left, x2: W - RIGHT, y1: py(v), y2: py(v) }));
      picture.append(svg("text", { x: left - 6, y: py(v) + 4, "text-anchor": "end" }, short(v)));
    }
    for (const v of across) {
      const x = px(v), label = short(v);
      const anchor = x + label.length * 3.9 > W ? "end" : "middle";
      picture.append(svg("line", { class: "axis", x1: x, x2: x, y1: H - BOTTOM, y2: H - BOTTOM + 4 }));
      picture.append(svg("text", { x: anchor === "end" ? W : x, y: H - BOTTOM + 17, "text-anchor": anchor }, label));
    }
    picture.append(svg("line", { class: "axis", x1: left, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }));
    picture.append(svg("text", { x: (left + W - RIGHT) / 2, y: H - 5, "text-anchor": "middle" }, "step"));
    const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("");
    for (const c of shown) {
      const style = `stroke:${colour(c.run)}`;
      const one = { style, "stroke-dasharray": dash(c.run) };
      if (weight > 0) picture.append(svg("path", { class: "curve raw", d: path(c.raw), style }));
      picture.append(svg("path", { class: "curve", d: path(c.line), ...one }));
      // Few points are marked: a single one would not be seen at all.
      if (c.line.length <= 25) {
        for (const [x, y] of c.line) picture.append(svg("circle", { cx: px(x), cy: py(y), r: 2.6, style: `fill:${colour(c.run)}` }));
      }
    }
    drawn = { shown, px, py, left, x0, x1, marks: picture.appendChild(svg("g")) };
  }

  function hover(step) {
    if (!drawn) return;
    const { shown, px, py, marks } = drawn;
    at = step;
    marks.replaceChildren();
    values.replaceChildren();
    if (step === null) return;
    let near = null;
    for (const c of shown) for (const [x] of c.line) if (near === null || Math.abs(x - step) < Math.abs(near - step)) near = x;
    marks.append(svg("line", { class: "cross", x1: px(near), x2: px(near), y1: TOP, y2: H - BOTTOM }));
    values.append(el("span", { class: "faint" }, `step ${say(near)}`));
    for (const c of shown) {
      // The nearest that the run has; runs need not have the same steps.
      let best = 0;
      c.line.forEach(([x], i) => { if (Math.abs(x - near) < Math.abs(c.line[best][0] - near)) best = i; });
      const [x, y] = c.line[best];
      marks.append(svg("circle", { cx: px(x), cy: py(y), r: 3.5, style: `fill:${colour(c.run)}` }));
      const raw = weight > 0 ? ` (${say(c.raw[best][1])})` : "";
      const where = x === near ? "" : ` at ${say(x)}`;
      values.append(el("span", { style: `color:${colour(c.run)}` }, `${c.name}: ${say(y)}${raw}${where}`));
    }
    at = near;
  }

  picture.addEventListener("pointermove", (e) => {
    if (!drawn) return;
    const box = picture.getBoundingClientRect();
    const x = ((e.clientX - box.left) / box.width) * W;
    hover(drawn.x0 + ((x - drawn.left) / (W - drawn.left - RIGHT)) * (drawn.x1 - drawn.x0));
  });
  picture.addEventListener("pointerleave", () => hover(null));
  picture.addEventListener("blur", () => hover(null));
  picture.addEventListener("keydown", (e) => {
    if (!drawn || !["ArrowLeft", "ArrowRight"].includes(e.key)) return;
    const steps = [...new Set(drawn.shown.flatMap((c) => c.line.map((p) => p[0])))].sort((a, b) => a - b);
    const now = at === null ? (e.key === "ArrowRight" ? -1 : steps.length) : steps.indexOf(at);
    const next = Math.max(0, Math.min(steps.length - 1, now + (e.key === "ArrowRight" ? 1 : -1)));
    hover(steps[next]);
    e.preventDefault();
  });
  charts.push(draw);
  draw();
  return card;
}

// ---- parts of the page ----
function swatch(run) {
  const s = svg("svg", { width: 26, height: 10, class: "swatch", "aria-hidden": "true" });
  s.append(svg("line", { x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 3, style: `stroke:${colour(run)}`, "stroke-dasharray": dash(run) }));
  return s;
}
function table(head, rows, numbers) {
  const kind = (i) => (numbers && i > 0 ? { class: "number" } : {});
  const row = (cells) => el("tr", {}, ...cells.map((c, i) => {
    if (c instanceof Node) return c;
    return el("td", kind(i), c === null || c === undefined ? "-" : String(c));
  }));
  return el("div", { class: "scroll" }, el("table", {},
    el("thead", {}, el("tr", {}, ...head.map((h, i) => el("th", { scope: "col", ...kind(i) }, h)))),
    el("tbody", {}, ...rows.map(row))));
}
function section(title, ...children) {
  page.append(el("section", {}, el("h2", {}, title), ...children));
}

// What counts the work rather than how good it is.
const COUNTS = /(^|\.)(epoch|tokens|targets|seconds|texts|pairs|questions|chosen|of_step)$|_per_second$|^scale$/;
// Of these less is better.
const LESS = /(^|[^a-z])(loss|perplexity|ppl|error|kl|nll|seconds|latency|mae|r?mse|queries_without)([^a-z]|$)/i;

function header() {
  const trained = data.runs.filter((r) => r.sections.length > 0).length;
  page.append(el("h1", {}, data.title),
    el("p", { class: "faint small" }, `${data.runs.length} ${data.runs.length === 1 ? "run" : "runs"}, ${trained} with curves. Ragduet report.`));
}

function controls() {
  const bar = el("div", { class: "bar" });
  data.runs.forEach((r, i) => {
    if (r.sections.length === 0) return;
    const box = el("input", { type: "checkbox" });
    box.checked = true;
    box.addEventListener("change", () => { if (box.checked) hidden.delete(i); else hidden.add(i); redraw(); });
    bar.append(el("label", {}, box, swatch(i), r.name));
  });
  const log = el("input", { type: "checkbox", id: "log" });
  log.addEventListener("change", () => { scale = log.checked ? "log" : "linear"; redraw(); });
  const range = el("input", { type: "range", min: "0", max: "0.98", step: "0.02", value: "0", id: "smooth" });
  const told = el("span", { class: "faint small" }, "off");
  range.addEventListener("input", () => {
    weight = Number(range.value);
    told.textContent = weight === 0 ? "off" : weight.toFixed(2);
    redraw();
  });
  bar.append(el("label", { class: "control" }, log, "log scale"), el("label", { class: "control" }, "smoothing ", range, told));
  return bar;
}

function curves() {
  const groups = new Map();
  data.runs.forEach((r, run) => r.sections.forEach((s) => s.metrics.forEach((m) => {
    const key = `${s.kind} / ${m.name}`;
    if (!groups.has(key)) groups.set(key, { kind: s.kind, name: m.name, curves: [] });
    groups.get(key).curves.push({ run, name: r.name, points: m.points, count: m.count });
  })));
  if (groups.size === 0) return;
  const rank = (g) => (g.name === "loss" ? 0 : 1);
  const byKind = new Map();
  for (const g of groups.values()) {
    if (!byKind.has(g.kind)) byKind.set(g.kind, []);
    byKind.get(g.kind).push(g);
  }
  const part = el("section", {}, el("h2", {}, "Curves"), controls());
  page.append(part);
  const cards = (list) => el("div", { class: "grid" }, ...list.map((g) => chart(`${g.kind} / ${g.name}`, g.curves)));
  for (const [kind, list] of byKind) {
    const [main, counts] = [list.filter((g) => !COUNTS.test(g.name)), list.filter((g) => COUNTS.test(g.name))];
    main.sort((a, b) => rank(a) - rank(b));
    part.append(el("h3", { style: "margin-top:18px" }, kind));
    if (main.length) part.append(cards(main));
    if (counts.length) part.append(el("details", main.length ? {} : { open: "" }, el("summary", {}, `${kind}: counts and speed`), cards(counts)));
  }
  const thinned = data.runs.some((r) => r.sections.some((s) => s.metrics.some((m) => m.count > m.points.length)));
  if (thinned) part.append(el("p", { class: "faint small" }, "Long curves are thinned; their ends, and highest and lowest values, are kept."));
}

function figures() {
  const runs = data.runs.filter((r) => r.sections.length > 0);
  const rows = new Map();
  runs.forEach((r, i) => r.sections.filter((s) => /^(dev|test|eval|valid)/.test(s.kind)).forEach((s) => s.metrics.forEach((m) => {
    if (COUNTS.test(m.name)) return;
    const key = `${s.kind} / ${m.name}`;
    if (!rows.has(key)) rows.set(key, { less: LESS.test(m.name), cells: new Array(runs.length).fill(null) });
    rows.get(key).cells[i] = rows.get(key).less ? m.lowest : m.highest;
  })));
  if (rows.size > 0) {
    const body = [...rows].map(([key, { less, cells }]) => {
      const all = cells.filter((c) => c).map((c) => c[1]);
      const best = less ? Math.min(...all) : Math.max(...all);
      return [`${key}${less ? " (lowest)" : ""}`, ...cells.map((c) => {
        if (!c) return el("td", { class: "number" }, "-");
        const wins = all.length > 1 && c[1] === best;
        return el("td", { class: wins ? "number best" : "number" }, say(c[1]), el("span", { class: "faint small" }, ` @ ${say(c[0])}`));
      })];
    });
    section("Best figures", el("p", { class: "faint small" }, "The best of each run, and its step."),
      table(["", ...runs.map((r) => r.name)], body, true));
  }
  const kept = data.runs.filter((r) => r.best.length > 0);
  if (kept.length > 0) {
    const keys = [...new Set(kept.flatMap((r) => r.best.map(([k]) => k)))];
    const of = (r, key) => { const found = r.best.find(([k]) => k === key); return found ? say(found[1]) : "-"; };
    section("What was kept", el("p", { class: "faint small" }, "The figures of the model in best/ (best.json)."),
      table(["", ...kept.map((r) => r.name)], keys.map((k) => [k, ...kept.map((r) => of(r, k))]), true));
  }
}

function tables() {
  for (const r of data.runs) {
    const t = r.table;
    if (!t || !Array.isArray(t.columns) || !Array.isArray(t.rows)) continue;
    const cell = (v) => (typeof v === "number" ? say(v) : v === null || v === undefined ? "-" : String(v));
    const rows = t.rows.map((row) => [cell(row.name), ...t.columns.map((_, i) => cell((row.values || [])[i]))]);
    section(`Table of ${r.name}`, table(["", ...t.columns.map(String)], rows, true));
  }
}

function configs() {
  if (data.compared.length > 1) {
    section("Differences of the configs", data.differences.length === 0
      ? el("p", {}, "The configs are alike.")
      : table(["", ...data.compared], data.differences.map((d) => [el("td", { class: "code" }, d.key),
        ...d.values.map((v) => el("td", { class: "code" }, v === null ? "-" : v))])));
  }
  const whole = data.runs.filter((r) => r.config.length > 0);
  if (whole.length === 0) return;
  const lists = whole.map((r) => el("details", {}, el("summary", {}, r.name),
    table(["key", "value"], r.config.map(([k, v]) => [el("td", { class: "code" }, k), el("td", { class: "code" }, v)]))));
  section("Configs", ...lists);
}

// A text in which what answers is marked.
function marked(text, answers) {
  const out = document.createDocumentFragment();
  const low = text.toLowerCase();
  // Lower case can be longer than the text itself: positions would not fit.
  const wanted = low.length === text.length ? answers.map((a) => a.toLowerCase().trim()).filter((a) => a.length > 1) : [];
  let from = 0;
  while (from < text.length) {
    let [at, size] = [-1, 0];
    for (const a of wanted) {
      const found = low.indexOf(a, from);
      if (found >= 0 && (at < 0 || found < at)) [at, size] = [found, a.length];
    }
    if (at < 0) break;
    out.append(text.slice(from, at), el("mark", {}, text.slice(at, at + size)));
    from = at + size;
  }
  out.append(text.slice(from));
  return out;
}

function side(title, s, answers, other) {
  const measures = s.measures.map(([k, v]) => `${k} ${say(v)}`).join(", ");
  const box = el("div", {}, el("div", {}, title ? el("span", { class: "faint" }, `${title}: `) : null, el("b", {}, s.answer || "(nothing)"),
    measures ? el("div", { class: "faint small" }, measures) : null));
  for (const c of s.contexts) {
    const facts = [c.id, c.rank === null ? null : `rank ${c.rank}`, c.score === null ? null : `score ${say(c.score)}`];
    box.append(el("div", { class: c.gold ? "passage gold" : "passage" },
      el("div", {}, el("b", {}, c.title), " ", el("span", { class: "faint small" }, facts.filter(Boolean).join(", ")),
        c.gold ? el("span", { class: "chip good" }, "gold") : null,
        other && !other.some((o) => o.id === c.id) ? el("span", { class: "chip" }, "new") : null),
      el("div", { class: "small" }, marked(c.text, answers))));
  }
  return box;
}

function questions() {
  for (const r of data.runs) {
    for (const [file, count, list] of r.samples) {
      const items = list.map((s, i) => {
        const right = s.answers.length ? `right: ${s.answers.join(" / ")}` : "";
        const sides = el("div", { class: "sides" });
        if (s.before) sides.append(side("before", s.before, s.answers, null));
        if (s.after) sides.append(side(s.before ? "after" : "", s.after, s.answers, s.before ? s.before.contexts : null));
        return el("details", { class: "card", ...(i === 0 ? { open: "" } : {}) },
          el("summary", {}, el("b", {}, s.question), " ", el("span", { class: "faint small" }, right)), sides);
      });
      const few = list.length < count ? `The first ${list.length} of ${say(count)} questions.` : `${say(count)} questions.`;
      section(`Questions of ${r.name === file ? file : `${r.name}, ${file}`}`, el("p", { class: "faint small" }, few), ...items);
    }
  }
}

function environment() {
  const runs = data.runs.filter((r) => r.environment.length > 0);
  if (runs.length === 0) return;
  const keys = [...new Set(runs.flatMap((r) => r.environment.map(([k]) => k)))];
  const of = (r, key) => { const found = r.environment.find(([k]) => k === key); return found ? found[1] : ""; };
  const when = (r, key) => (key === "started_unix" ? new Date(Number(of(r, key)) * 1000).toISOString() : of(r, key));
  section("Environment", table(["", ...runs.map((r) => r.name)], keys.map((k) => [k, ...runs.map((r) => when(r, k))])));
}

header();
figures();
tables();
curves();
questions();
configs();
environment();
// On paper everything is open.
window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
})();
