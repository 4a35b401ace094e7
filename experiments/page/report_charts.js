// The report's charts as Vega-Lite specs, each drawn anew when what is shown changes: rows and scales change with it.

import { THEME } from "./charts.js";

const LOOKS = 7;
const PAINTS = Array.from({ length: LOOKS }, (_, place) => `var(--series-${place})`);
const MARKS = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right"];
const STROKES = [
  [1, 0],
  [6, 2],
  [1.5, 1.5],
  [6, 2, 1.5, 2],
  [3, 1],
  [9, 2, 1.5, 2, 1.5, 2],
  [1, 3],
];
/** Rows of a chart; further ones are in its table. */
export const MOST_ROWS = 60;
const drawnIn = new Map();

/** Draw a spec into an element that a screen reader takes for one image with the description; only the last call counts. */
export async function draw(element, spec, description) {
  const turn = (drawnIn.get(element)?.turn ?? 0) + 1;
  drawnIn.get(element)?.view?.finalize();
  drawnIn.set(element, { turn });
  element.setAttribute("role", "img");
  element.setAttribute("aria-label", description);
  const inner = document.createElement("div");
  inner.setAttribute("aria-hidden", "true");
  element.replaceChildren(inner);
  const { view } = await window.vegaEmbed(
    inner,
    { width: "container", autosize: { type: "fit-x", contains: "padding" }, ...spec },
    {
      actions: false,
      ast: true, // expressions are interpreted: the page's policy allows no code from text
      config: { ...THEME, legend: { labelColor: "var(--ink)", titleColor: "var(--ink)", orient: "top", columns: 2 } },
      defaultStyle: false,
      mode: "vega-lite",
      renderer: "svg",
      tooltip: { disableDefaultStyle: true },
    },
  );
  if (drawnIn.get(element).turn === turn) drawnIn.set(element, { turn, view });
  else view.finalize();
}

/** Colour, shape and dashes of each estimator, by its place among all of the run. */
function looks(names) {
  const of = (range) => names.map((_, place) => range[place % LOOKS]);
  const legend = null;
  return {
    color: { field: "estimator", type: "nominal", scale: { domain: names, range: of(PAINTS) }, legend },
    shape: { field: "estimator", type: "nominal", scale: { domain: names, range: of(MARKS) }, legend },
    strokeDash: { field: "estimator", type: "nominal", scale: { domain: names, range: of(STROKES) }, legend },
  };
}

const spansMuch = (low, high) => low > 0 && high > 50 * low;

/** Logarithmic where all is positive and spans much; said in the title. */
function axisOf(values, title, more = {}) {
  const finite = values.filter(Number.isFinite);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const log = spansMuch(low, high);
  const alone = low === high ? { domain: [low - (0.1 * Math.abs(low) || 1), low + (0.1 * Math.abs(low) || 1)] } : {};
  return {
    type: "quantitative",
    title: log ? `${title}, logarithmic` : title,
    scale: { ...alone, ...(log ? { type: "log" } : { zero: false }), ...more.scale },
    axis: { grid: true, labelOverlap: true, tickCount: 5, ...more.axis },
  };
}

/** Dots and whiskers, a row for each setting: rows {label, estimator, value, low, high, tip}. */
export function dots(rows, names, title, width, zero = false) {
  const all = rows.slice(0, MOST_ROWS);
  const ends = all.flatMap(({ value, low, high }) => [value, low, high]).filter((one) => one !== null);
  const { color, shape } = looks(names);
  const x = axisOf(zero ? [...ends, 0] : ends, title);
  const tooltip = { field: "tip" };
  const y = {
    field: "label",
    type: "nominal",
    sort: null,
    title: null,
    axis: {
      labelLimit: Math.max(90, Math.min(420, 0.45 * width)),
      labelColor: "var(--ink)",
      labelFlush: false,
      grid: false,
      ticks: false,
    },
  };
  const rule = {
    mark: { type: "rule", strokeWidth: 2 },
    encoding: { x: { ...x, field: "low" }, x2: { field: "high" }, color, tooltip },
  };
  const dot = {
    mark: { type: "point", filled: true, size: 70, opacity: 1 },
    encoding: { x: { ...x, field: "value" }, color, shape, tooltip },
  };
  const nought = {
    data: { values: [{ nought: 0 }] },
    mark: { type: "rule", color: "var(--ink)", strokeDash: [4, 3] },
    encoding: { x: { field: "nought", type: "quantitative" }, y: null },
  };
  return {
    data: { values: all },
    height: 24 * all.length,
    encoding: { y },
    layer: [...(zero ? [nought] : []), rule, dot],
  };
}

/** Attenuation against lag, what is on the front full: rows {estimator, x, y, front, tip}. */
export function frontier(rows, names, titles) {
  const present = names.filter((name) => rows.some(({ estimator }) => estimator === name));
  const { color, shape } = looks(names);
  const legend = present.length > 12 ? null : { title: null, values: present, symbolOpacity: 1 };
  for (const channel of [color, shape]) channel.legend = legend;
  const [gains, lags] = ["y", "x"].map((name) => rows.map((row) => row[name]));
  // Half a decibel and a tenth of the lag beyond what is there, or rounding would look like a difference.
  const most = 1.1 * Math.max(...lags) || 1;
  const wide = most > 100 && Math.min(...lags) >= 0 && Math.min(...lags) < 0.1 * most; // a lag may be zero
  const lagging = wide
    ? { type: "symlog", domain: [0, most], nice: false }
    : { domain: [0.9 * Math.min(...lags), most], nice: false };
  const lagTitle = wide ? `${titles.x}, logarithmic above 1` : titles.x;
  const x = {
    field: "x",
    type: "quantitative",
    title: lagTitle,
    scale: lagging,
    axis: wide ? { values: [0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000] } : { tickCount: 5 },
  };
  const gaining = { domain: [Math.min(...gains) - 0.5, Math.max(...gains) + 0.5], nice: false };
  const y = { field: "y", type: "quantitative", title: titles.y, scale: gaining, axis: { tickCount: 5 } };
  const tooltip = { field: "tip" };
  const point = (filled, filter) => ({
    transform: [{ filter }],
    mark: { type: "point", filled, size: 110, opacity: 1, strokeWidth: 2 },
    encoding: { x, y, color, shape, tooltip },
  });
  return {
    data: { values: rows },
    height: 300,
    layer: [point(false, "!datum.front"), point(true, "datum.front")],
  };
}

/** Samples, level, bands and estimates over time: rows {time, estimator, value, low, high} of each kind. */
export function overTime({ samples, level, bands, estimates }, names, times, [low, high], unit) {
  const { color, strokeDash } = looks(names);
  const x = {
    field: "time",
    type: "quantitative",
    title: "sample",
    scale: { zero: false, nice: false, domain: [times[0], times.at(-1)] },
    axis: { grid: false, tickCount: 6, labelOverlap: true },
  };
  const log = spansMuch(low, high);
  const room = log ? 1.1 : 0.05 * (high - low) || 0.5;
  const scale = log
    ? { type: "log", domain: [low / room, high * room] }
    : { zero: false, domain: [low - room, high + room] };
  const y = {
    field: "value",
    type: "quantitative",
    title: log ? `${unit}, logarithmic` : unit,
    scale: { ...scale, nice: false },
    axis: { labelOverlap: true, tickCount: 6, ...(log ? { format: high > 1e6 || low < 1e-4 ? "~e" : "~g" } : {}) },
  };
  const layer = (values, mark, encoding) => ({
    data: { values },
    mark: { clip: true, ...mark },
    encoding: { x, y, ...encoding },
  });
  return {
    height: 320,
    layer: [
      layer(samples, { type: "point", filled: true, size: 9, color: "var(--sample)", opacity: 0.8 }, {}),
      layer(level, { type: "line", color: "var(--level)", strokeWidth: 5, opacity: 0.55 }, {}),
      layer(bands, { type: "area", opacity: 0.2 }, { y: { ...y, field: "low" }, y2: { field: "high" }, color }),
      layer(estimates, { type: "line", strokeWidth: 1.8 }, { color, strokeDash, detail: { field: "estimator" } }),
    ],
  };
}

/** A line as the chart draws it, for the label of what shows or hides it. */
export function swatch(name, names) {
  const place = names.indexOf(name) % LOOKS;
  const space = "http://www.w3.org/2000/svg";
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("class", "swatch");
  picture.setAttribute("aria-hidden", "true");
  const line = picture.appendChild(document.createElementNS(space, "line"));
  const special = { samples: ["var(--sample)", "1 4", 3], "true level": ["var(--level)", "", 5] }[name];
  const [paint, dash, thick] = special ?? [PAINTS[place], STROKES[place].join(" "), 2];
  for (const [key, value] of Object.entries({
    x1: 0,
    x2: 36,
    y1: 6,
    y2: 6,
    stroke: paint,
    "stroke-dasharray": dash,
    "stroke-width": thick,
  })) {
    line.setAttribute(key, value);
  }
  return picture;
}
