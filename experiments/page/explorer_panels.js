// The explorer's four charts: what is drawn, and the numbers put into it.

import { chart, scaled } from "./charts.js";
import { MARKS, NAMES } from "./explorer_numbers.js";

/** Colour and dashes of each estimator, the same in all charts and, by the page's styles, in the legend. */
export const LOOKS = {
  ema: { label: "EMA", colour: "var(--series-0)", dash: [1, 0] },
  debiased_ema: { label: "Debiased EMA", colour: "var(--series-1)", dash: [12, 5] },
  kalman: { label: "Kalman", colour: "var(--series-2)", dash: [3, 4] },
  moving_average: { label: "Moving average", colour: "var(--series-3)", dash: [11, 3, 3, 3] },
};

const FLOOR = 1e-10; // a zero of the window has no logarithm

function db(magnitude) {
  return 20 * Math.log10(Math.max(magnitude, FLOOR));
}

/** An axis x or y between two expressions. */
function number(field, title, low, high, { scale = {}, axis = {} } = {}) {
  return { field, type: "quantitative", scale: scaled(low, high, scale), axis: { title, ...axis } };
}

/** A data set that is put in by this name, of numbers that need no reading. */
function named(name) {
  return { name, format: { parse: null } };
}

/** One line per estimator, each from a data set of its own: `name` says which, and none is drawn from no rows. */
function lines(x, y, interpolate = "linear") {
  return NAMES.map((name) => ({
    data: named(name),
    mark: {
      type: "line",
      clip: true,
      color: LOOKS[name].colour,
      interpolate,
      strokeDash: LOOKS[name].dash,
      strokeWidth: 2,
    },
    encoding: { x, y },
  }));
}

const looks = {
  color: { field: "colour", type: "nominal", scale: null, legend: null },
};

function look(name) {
  return { name, colour: LOOKS[name].colour };
}

/** Rows of each estimator's line, none of those that are hidden. */
function curves({ visible }, along, values) {
  const rows = (name) => Array.from(along, (x, i) => ({ x, y: values[name][i] }));
  return Object.fromEntries(NAMES.map((name) => [name, visible.includes(name) ? rows(name) : []]));
}

function labelled(computed, text) {
  return computed.visible.map((name) => `${LOOKS[name].label} ${text(computed.readouts[name])}`).join("; ");
}

const IMPULSE = {
  height: 240,
  layer: (() => {
    const x = number("x", "age of the sample (samples)", "0", "oldest", { axis: { grid: false } });
    const y = number("y", "weight", "0", "heaviest");
    return [
      ...lines(x, y, "step-after"),
      {
        data: named("marks"),
        mark: { type: "rule", clip: true, strokeWidth: 1.5 },
        encoding: { x, ...looks },
      },
      {
        data: named("labels"),
        mark: { type: "text", align: "left", baseline: "top", dx: 4, clip: true, y: 2, fontSize: 14, text: "τ" },
        encoding: { x },
      },
    ];
  })(),
};

function impulseRows(computed) {
  const { visible, ages, impulse, readouts } = computed;
  const heaviest = 1.05 * Math.max(1e-9, ...visible.map((name) => impulse[name][0]));
  const marks = visible.map((name) => ({ x: readouts[name].timeConstant, ...look(name) }));
  const apart = new Map(marks.map((mark) => [mark.x.toPrecision(4), mark])); // not one label over another
  return [
    { ...curves(computed, ages, impulse), marks, labels: [...apart.values()] },
    { oldest: ages.at(-1), heaviest },
    `Impulse response, weight by age of the sample. Time constants: ${labelled(
      computed,
      ({ timeConstant, shareWithin }) =>
        `${timeConstant.toPrecision(4)} samples, ${(100 * shareWithin).toFixed(1)} % of the weight to its left`,
    )}`,
  ];
}

const BODE = {
  height: 240,
  layer: (() => {
    const scale = { type: "log" };
    const axis = {
      values: [1e-5, 1e-4, 1e-3, 1e-2, 0.1, 0.5],
      labelExpr: "datum.value < 0.01 ? format(datum.value, '.0e') : datum.value",
    };
    const x = number("x", "frequency (cycles per sample)", "1e-5", "0.5", { scale, axis });
    const y = number("y", "magnitude (dB)", "lowest", "4");
    const rule = { type: "rule", clip: true, color: "var(--ink)", strokeWidth: 1 };
    const inside = (right, left) => ({ expr: `datum.x > 1e-3 ? ${JSON.stringify(right)} : ${JSON.stringify(left)}` });
    return [
      {
        data: { values: [{ y: -30, text: "−30 dB" }] },
        layer: [
          { mark: { ...rule, strokeDash: [5, 3] }, encoding: { y } },
          {
            mark: { type: "text", align: "left", baseline: "bottom", x: 4, dy: -3 },
            encoding: { y, text: { field: "text" } },
          },
        ],
      },
      {
        data: named("probe"),
        layer: [
          { mark: rule, encoding: { x } },
          {
            mark: {
              type: "text",
              align: inside("right", "left"),
              baseline: "bottom",
              dx: inside(-4, 4),
              dy: -4,
              y: "height",
            },
            encoding: { x, text: { field: "text" } },
          },
        ],
      },
      {
        data: named("lobes"),
        mark: { type: "area", clip: true, color: LOOKS.moving_average.colour, opacity: 0.25 },
        encoding: { x, y, y2: { field: "high" } },
      },
      ...lines(x, y),
      {
        data: named("points"),
        mark: { type: "point", filled: true, size: 60, opacity: 1, clip: true },
        encoding: { x, y, ...looks },
      },
    ];
  })(),
};

function bodeRows(computed) {
  const { visible, bode, readouts, settings } = computed;
  const { f, magnitude, lobes } = bode;
  const drawn = { ...magnitude, moving_average: lobes.high };
  const inDb = Object.fromEntries(visible.map((name) => [name, drawn[name].map(db)]));
  // At the right end, where all are lowest; a window's lobes fall to 1/N there, between zeros.
  const end = (name) => (name === "moving_average" ? db(1 / settings.window) : inDb[name].at(-1));
  const ends = visible.map(end);
  const lowest = Math.min(-40, 10 * Math.floor(Math.min(0, ...ends) / 10));
  const windowed = visible.includes("moving_average");
  const probe = Number(settings.frequency.toPrecision(4));
  const heard = labelled(computed, ({ attenuationDb }) => `${(-attenuationDb).toFixed(1)} dB`);
  return [
    {
      ...curves(computed, f, inDb),
      lobes: windowed ? f.map((x, i) => ({ x, y: db(lobes.low[i]), high: db(lobes.high[i]) })) : [],
      probe: [{ x: settings.frequency, text: `f = ${probe}` }],
      points: visible.map((name) => ({
        x: settings.frequency,
        y: Math.max(-readouts[name].attenuationDb, lowest),
        ...look(name),
      })),
    },
    { lowest },
    `Magnitude of the frequency response, a line at minus 30 dB. At ${probe} cycles per sample: ${heard}`,
  ];
}

const STEP = {
  height: 240,
  layer: (() => {
    const x = number("x", "samples at the new level", "0", "longest", { axis: { grid: false } });
    const y = number("y", "share of the step", "0", "1.05", { axis: { format: ".0%" } });
    const shares = Object.entries(MARKS).map(([mark, y]) => ({ y, text: `${mark} %` }));
    return [
      {
        data: { values: shares },
        layer: [
          { mark: { type: "rule", color: "var(--ink)", strokeWidth: 1, strokeDash: [5, 3] }, encoding: { y } },
          {
            mark: { type: "text", align: "right", baseline: "top", x: "width", dx: -3, dy: 3 },
            encoding: { y, text: { field: "text" } },
          },
        ],
      },
      ...lines(x, y, "step-after"),
      {
        data: named("marks"),
        mark: { type: "point", filled: true, size: 50, opacity: 1, clip: true },
        encoding: { x, y, ...looks },
      },
    ];
  })(),
};

function stepRows(computed) {
  const { visible, ages, step, readouts } = computed;
  const counts = [0, ...ages.map((age) => age + 1)];
  const from0 = Object.fromEntries(visible.map((name) => [name, [0, ...step[name]]]));
  const marksOf = (name) =>
    Object.entries(MARKS).map(([mark, y]) => ({ x: readouts[name][`to${mark}`], y, ...look(name) }));
  return [
    { ...curves(computed, counts, from0), marks: visible.flatMap(marksOf) },
    { longest: counts.at(-1) },
    `Step response. Samples until 63, 86 and 95 % are reached: ${labelled(
      computed,
      ({ to63, to86, to95 }) => `${to63}, ${to86}, ${to95}`,
    )}`,
  ];
}

const STREAM = {
  height: 300,
  layer: (() => {
    const x = number("x", "sample", "0", "end", { axis: { grid: false } });
    const y = number("y", "value", "bottom", "top");
    return [
      {
        data: named("samples"),
        mark: { type: "line", clip: true, color: "var(--sample)", strokeWidth: 0.8 },
        encoding: { x, y },
      },
      {
        data: named("band"),
        mark: { type: "area", clip: true, color: LOOKS.kalman.colour, opacity: 0.3 },
        encoding: { x, y, y2: { field: "high" } },
      },
      {
        data: named("level"),
        mark: { type: "line", clip: true, color: "var(--level)", strokeWidth: 3 },
        encoding: { x, y },
      },
      ...lines(x, y),
    ];
  })(),
};

/** Lowest value of one series and highest of another in each of at most 500 bins: there are few more pixels. */
function extremes(lowest, highest) {
  const width = Math.ceil(lowest.length / 500);
  const rows = [];
  for (let x = 0; x < lowest.length; x += width) {
    let [low, high] = [x, x];
    for (let t = x; t < Math.min(x + width, lowest.length); t++) {
      if (lowest[t] < lowest[low]) low = t;
      if (highest[t] > highest[high]) high = t;
    }
    rows.push({ x, y: lowest[low], high: highest[high], low, highAt: high });
  }
  return rows;
}

/** A line through the lowest and the highest value of each bin, in the order in which they come. */
function thinned(values) {
  return extremes(values, values).flatMap(({ y, high, low, highAt }) => {
    const ends = [{ x: low, y }, { x: highAt, y: high }];
    return low === highAt ? ends.slice(1) : ends.sort((a, b) => a.x - b.x);
  });
}

function streamRows(computed) {
  const { visible, stream, settings } = computed;
  const { samples, level, mean, band } = stream;
  const lined = Object.fromEntries(NAMES.map((name) => [name, visible.includes(name) ? thinned(mean[name]) : []]));
  const banded = visible.includes("kalman") ? extremes(band.low, band.high) : [];
  // Outliers would make all else flat: they leave the picture, never the numbers.
  const sorted = Float64Array.from(samples).sort();
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const low = Math.min(at(0.01), level.reduce((a, b) => Math.min(a, b)));
  const high = Math.max(at(0.99), level.reduce((a, b) => Math.max(a, b)));
  const margin = 0.08 * (high - low || 1);
  return [
    { samples: thinned(samples), level: thinned(level), band: banded, ...lined },
    { end: samples.length - 1, bottom: low - margin, top: high + margin },
    `A stream (${settings.kind}) of ${samples.length} samples, its true level and the running means`,
  ];
}

const PANELS = {
  impulse: [IMPULSE, impulseRows],
  bode: [BODE, bodeRows],
  step: [STEP, stepRows],
  stream: [STREAM, streamRows],
};

/**
 * Draw all charts into the elements with these ids. The function returned puts new numbers into those in view, and into
 * the others once it is called with `all`.
 */
export async function panels(computed) {
  const inView = new Set();
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) inView[isIntersecting ? "add" : "delete"](target);
  });
  const drawn = await Promise.all(
    Object.entries(PANELS).map(async ([id, [spec, rows]]) => {
      const element = document.getElementById(id);
      watcher.observe(element);
      const put = await chart(element, spec, ...rows(computed));
      return (changed, all) => (all || inView.has(element)) && put(...rows(changed));
    }),
  );
  return (changed, all = false) => drawn.forEach((put) => put(changed, all));
}
