// Estimates and bands over time: which are drawn, and their values at one sample.

import { draw, overTime, swatch } from "./report_charts.js";
import { about, at, count, fill, make, number, numeric, say, words } from "./report_parts.js";
import { sortable } from "./tables.js";

export function showPart(run) {
  const part = run.series[at("part").value];
  const before = new Map([...at("lines").querySelectorAll("input")].map((box) => [box.value, box.checked]));
  const boxes = part.lines.map(({ what }) => {
    const box = make("input", { type: "checkbox", value: what, autocomplete: "off" });
    box.checked = before.get(what) ?? true;
    return make("label", {}, box, swatch(what, seriesNames(part)), what);
  });
  at("lines").replaceChildren(at("lines").firstElementChild, ...boxes);
  const times = part.times;
  Object.assign(at("at"), { min: times[0], max: times.at(-1), value: times[Math.floor(times.length / 2)] });
  showSeries(run);
}

const seriesNames = (part) =>
  part.lines.map(({ what }) => what).filter((what) => what !== "samples" && what !== "true level");

export function showSeries(run) {
  const part = run.series[at("part").value];
  const shown = new Set([...at("lines").querySelectorAll("input:checked")].map((box) => box.value));
  showReadout(part);
  if (about.without) return;
  const kinds = { samples: [], level: [], bands: [], estimates: [] };
  for (const line of part.lines.filter(({ what }) => shown.has(what))) {
    const kind = { samples: "samples", "true level": "level" }[line.what] ?? "estimates";
    part.times.forEach((time, place) => {
      kinds[kind].push({ time, estimator: line.what, value: number(line.value[place]) });
      if (line.low && line.low[place] !== null)
        kinds.bands.push({ time, estimator: line.what, low: Number(line.low[place]), high: Number(line.high[place]) });
    });
  }
  draw(
    at("series").querySelector(".chart"),
    overTime(kinds, seriesNames(part), part.times, span(kinds), part.unit),
    `${[...shown].join(", ")} over ${part.times.length} samples; the values at a sample are in the table below`,
  );
}

/** What the axis spans: all estimates, and all but the outermost of the samples. */
function span({ samples, level, bands, estimates }) {
  const sorted = samples
    .map(({ value }) => value)
    .filter(Number.isFinite)
    .sort((a, b) => a - b);
  const inner = sorted.length ? [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))]) : [];
  const all = [...level, ...estimates]
    .map(({ value }) => value)
    .filter(Number.isFinite)
    .concat(inner);
  if (bands.some(({ low }) => low <= 0)) all.push(Math.min(0, ...inner)); // no logarithms where a band crosses zero
  return all.length ? [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

function showReadout(part) {
  const wanted = Number(at("at").value);
  const place = part.times.reduce(
    (best, time, own) => (Math.abs(time - wanted) < Math.abs(part.times[best] - wanted) ? own : best),
    0,
  );
  const columns = [
    { key: "what", label: "What" },
    ...numeric([
      ["value", "value"],
      ["low", "95 % from"],
      ["high", "to"],
    ]),
  ];
  const lines = part.lines.map((line) => ({
    what: words(line.what),
    ...Object.fromEntries(["value", "low", "high"].map((name) => [name, count(number(line[name]?.[place] ?? null))])),
  }));
  const caption = `Sample ${part.times[place]} of ${part.of}, ${part.name} (${part.unit}).`;
  const note = `Shown: ${part.of}${part.thinned ? `, ${part.thinned}` : ""}. The axis leaves out the outermost samples; bands are stated 95 % intervals.`;
  fill("series", note, sortable({ caption, columns, rows: lines, say }));
}
