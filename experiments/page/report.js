// The report: one run at a time, its rows read when it is chosen; controls say which part of them is shown.

import { dots, draw, frontier, MOST_ROWS, overTime, swatch } from "./report_charts.js";
import { copyable, digits, held, make, number, offer, unpacked, written } from "./report_parts.js";
import { sortable } from "./tables.js";

const WORDS = new Set(["stream", "estimator", "setting", "metric", "unit", "text", "verdict", "difference_text", "status"]);
const AXES = [["attenuation_db", "implied_attenuation_db"], ["lag", "mean_age"], ["state_bytes"]];
const at = (id) => document.getElementById(id);
const about = held("about");
let run, rows, names, apart;

function say(text) {
  at("status").textContent = text;
}

/** Rows of the chosen stream, or of all. */
function chosenRows() {
  return at("stream").value === "" ? rows : rows.filter((row) => row.stream === streams()[at("stream").value]);
}

const streams = () => [...new Set(rows.map((row) => row.stream))];
const several = () => new Set(chosenRows().map((row) => row.stream)).size > 1;
const described = (metric) => run.summary.metrics?.find((one) => one.metric === metric);
const key = (row) => JSON.stringify([row.stream, row.estimator, row.setting]);
const withUnit = (label, unit) => (label.includes(`(${unit})`) || unit === "1" ? label : `${label} (${unit})`);
const counted = (many, what) => `${many.toLocaleString("en")} ${what}${many === 1 ? "" : "s"}`;
const words = (text) => ({ text: text === "" ? "-" : text });
const count = (value) => ({ text: digits(value), sort: value });

/** Of each stream the words that not all of them have. */
function told(all) {
  const seen = new Map();
  for (const stream of all) for (const word of new Set(stream.split(" "))) seen.set(word, (seen.get(word) ?? 0) + 1);
  return new Map(all.map((stream) => [stream, stream.split(" ").filter((word) => seen.get(word) < all.length).join(" ")]));
}

/** What a row's setting is called, with its stream where several are shown; the function asks for that once. */
function naming() {
  const many = several();
  return (row) => [row.estimator, row.setting, many && `on ${apart.get(row.stream)}`].filter(Boolean).join(" ");
}

function showRun() {
  run = held(`run-${at("run").value || 0}`);
  const measured = run.summary.kind === "measured";
  rows = measured ? unpacked(run.summary, WORDS) : [];
  names = [...new Set(rows.map((row) => row.estimator))];
  const all = streams();
  apart = told(all);
  offer(at("stream"), [...all.map((stream, place) => [place, stream]), ...(all.length > 1 ? [["", `all ${all.length} streams`]] : [])]);
  offer(at("metric"), measured ? run.summary.metrics.map(({ metric, label }) => [metric, label]) : []);
  for (const [control, shown] of [["run", about.runs.length > 1], ["stream", all.length > 1], ["metric", measured]]) {
    document.querySelector(`[data-control=${control}]`).hidden = !shown;
  }
  at("chosen").hidden = about.runs.length < 2 && !measured;
  at("columns").hidden = !measured || run.summary.metrics.every(({ printed }) => printed) || !run.summary.metrics.some(({ printed }) => printed);
  showMade();
  showFailures();
  showFigures();
  offer(at("part"), run.series.map(({ name }, place) => [place, name]));
  at("series").hidden = !run.series.length;
  if (run.series.length) showPart();
  showRows();
}

function showMade() {
  const cells = run.cells ? Object.entries(run.cells).map(([how, many]) => `${many.toLocaleString("en")} ${how}`).join(", ") : "none of its own";
  at("lead").textContent = `${run.experiment}, ${run.complete ? "complete" : "not complete"}: ${run.rows.toLocaleString("en")} measurements.${run.left.length ? ` Left out to keep this page small: ${run.left.join(", ")}, in the run's folder.` : ""}`;
  const entries = [
    ["Run", run.name],
    ["Command", copyable(run.command, "the command", say)],
    ["Configuration hash", `${run.identity}, of the configuration and the code`],
    ["Code fingerprint", run.code],
    ["Cells", cells],
    ["Made with", Object.entries(run.made).map(([what, version]) => `${what} ${version}`).join(", ")],
    ...(run.computed.length ? [["Cells computed with", run.computed.join("; ")]] : []),
  ];
  at("provenance").replaceChildren(...entries.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]));
  at("configuration").textContent = run.configuration;
  at("text").textContent = run.text;
}

function showFailures() {
  const raised = (run.cells?.failed ?? 0) + (run.cells?.missing ?? 0);
  if (!run.failures.length) {
    at("failures").replaceChildren(make("p", {}, "None: every measurement has a value."));
    return;
  }
  const columns = [
    { key: "estimator", label: "Estimator" },
    { key: "parameters", label: "Setting" },
    { key: "stream", label: "Stream" },
    { key: "status", label: "Why" },
    { key: "metrics", label: "Metrics" },
    { key: "count", label: "Repetitions", numeric: true },
    { key: "of", label: "Of", numeric: true },
  ];
  const lines = run.failures.map((failure) =>
    Object.fromEntries(Object.entries(failure).map(([name, value]) => [name, typeof value === "number" ? count(value) : words(value)])),
  );
  const told = raised
    ? `${counted(run.cells.failed, "cell")} failed and ${run.cells.missing} missing; the same command tries again. They are counted here and averaged over nowhere.`
    : "No cell failed. These measurements have no value, and are averaged over nowhere:";
  at("failures").replaceChildren(
    make("p", raised ? { class: "failures" } : {}, told),
    sortable({ caption: "Measurements without a value", columns, rows: lines, say }),
  );
}

function showFigures() {
  const made = run.figures.map(({ file, image, link }) => {
    const caption = make(
      "figcaption",
      {},
      make("h3", {}, link ? make("a", { href: file }, file) : file),
      copyable(run.command, `the command of ${file}`, say),
      make("p", { class: "note" }, `Configuration hash ${run.identity}, code fingerprint ${run.code}.`),
    );
    const alt = `${file} of ${run.name}: its numbers are in the tables of this page`;
    return make("figure", {}, ...(image ? [make("img", { src: `data:image/png;base64,${image}`, alt })] : []), caption);
  });
  at("pictures").replaceChildren(...(made.length ? made : [make("p", {}, "This run drew none.")]));
}

function showRows() {
  showTable();
  const measured = run.summary.kind === "measured";
  at("intervals").hidden = !measured;
  if (measured) showIntervals();
  showDifferences();
  showPareto();
}

function showTable() {
  const csv = run.table.link ? make("a", { href: run.table.file }, run.table.file) : run.table.file;
  const note = make("p", { class: "note" }, run.summary.left ? `${run.summary.left} ` : "", "All digits: ", csv, ".");
  at("table").replaceChildren(run.summary.kind === "measured" ? wideTable() : plainTable(), note);
}

function plainTable() {
  const numeric = new Set(run.summary.numeric);
  const every = Object.keys(run.summary.columns);
  const lines = unpacked(run.summary, new Set(every.filter((name) => !numeric.has(name)))).map((row) =>
    Object.fromEntries(every.map((name) => [name, numeric.has(name) ? count(row[name]) : words(row[name])])),
  );
  const columns = every.map((name) => ({ key: name, label: name.replaceAll("_", " "), numeric: numeric.has(name) }));
  return sortable({ caption: `${run.name}: ${lines.length} rows.`, columns, rows: lines, say });
}

/** A row for each setting, a column for each metric. */
function wideTable() {
  const own = chosenRows();
  const all = document.querySelector("[name=columns]:checked").value === "all" || at("columns").hidden;
  const shown = run.summary.metrics.filter(({ metric, printed }) => (all || printed) && own.some((row) => row.metric === metric));
  const lines = new Map();
  for (const row of own) {
    const line = lines.get(key(row)) ?? head(row);
    lines.set(key(row), line);
    line[`metric ${row.metric}`] = measuredCell(row);
  }
  const columns = [
    ...headColumns(own),
    ...shown.map(({ metric, label, better }) => ({
      key: `metric ${metric}`,
      label,
      numeric: true,
      note: [unitsOf(own.filter((row) => row.metric === metric)).join(" or "), better && `${better} is better`].filter(Boolean).join(", "),
    })),
  ];
  const counts = [...new Set(own.map(({ n }) => n))];
  const n = counts.length === 1 ? `n = ${counts[0]}.` : `n from ${Math.min(...counts)} to ${Math.max(...counts)}, each in the table of its metric.`;
  const marks = run.summary.compared
    ? "± is half of a 95 % interval. ★: best of its stream, with its ties, where the paired interval to every other excludes zero; =: tie with the first setting."
    : "Medians; their intervals are below.";
  return sortable({ caption: `Settings on ${several() ? "all streams" : own[0].stream}. ${n} ${marks}`, columns, rows: [...lines.values()], say });
}

function measuredCell(row) {
  const tie = row.verdict === "tie";
  const notes = [row.best ? "best, with its ties" : "", tie ? "ties with the first setting" : ""];
  return {
    text: written(row.text),
    sort: row.value,
    mark: row.failed || row.missing ? "failed" : row.best ? "best" : tie ? "tie" : "",
    note: notes.filter(Boolean).join(", "),
  };
}

const head = (row) => ({ stream: words(row.stream), estimator: words(row.estimator), setting: words(row.setting) });
const unitsOf = (own) => [...new Set(own.map(({ unit }) => unit))];

function headColumns(own) {
  return [
    { key: "estimator", label: "Estimator" },
    ...(own.some(({ setting }) => setting !== "") ? [{ key: "setting", label: "Setting" }] : []),
    ...(several() ? [{ key: "stream", label: "Stream" }] : []),
  ];
}

/** Rows of the chosen metric that have a value and one unit, and what is to be said of those left out. */
function drawable(own, has) {
  const [unit, ...others] = unitsOf(own);
  const drawn = own.filter((row) => row.unit === unit && Number.isFinite(row[has]));
  const notes = [
    others.length ? `Drawn in ${unit}; rows in ${others.join(", ")} are in the table.` : "",
    drawn.length > MOST_ROWS ? `Drawn are the first ${MOST_ROWS} of ${drawn.length}; all are in the table.` : "",
  ];
  return { unit, drawn, notes: notes.filter(Boolean).join(" ") };
}

function fill(section, note, table) {
  at(section).querySelector(".note").textContent = note;
  at(section).querySelector(".numbers").replaceChildren(table);
  const place = at(section).querySelector(".chart");
  place.hidden = about.without !== "";
  if (about.without) at(section).querySelector(".note").textContent += ` ${about.without}, then python -m experiments.report DIR.`;
  return place;
}

function showIntervals() {
  const named = naming();
  const { metric, label } = described(at("metric").value);
  const own = chosenRows().filter((row) => row.metric === metric);
  const { unit, drawn, notes } = drawable(own, "value");
  const median = run.summary.centre === "mean" && own.some((row) => row.median !== null);
  const columns = [
    ...headColumns(own),
    ...[["value", run.summary.centre], ["low", "95 % from"], ["high", "to"], ...(median ? [["median", "median"]] : []), ["n", "n"], ["failed", "failed"], ["missing", "missing"]]
      .filter(([name]) => own.some((row) => row[name] !== undefined))
      .map(([name, title]) => ({ key: name, label: title, numeric: true })),
    ...(own.some(({ status }) => status && status !== "ok") ? [{ key: "status", label: "status" }] : []),
  ];
  const lines = own.map((row) => ({
    ...head(row),
    ...Object.fromEntries(["value", "low", "high", "median", "n", "failed", "missing"].map((name) => [name, count(row[name] ?? null)])),
    status: words(row.status ?? ""),
  }));
  const where = several() ? "all streams" : own[0]?.stream ?? "this stream";
  const place = fill("intervals", notes, sortable({ caption: `${withUnit(label, unitsOf(own).join(" or "))} on ${where}.`, columns, rows: lines, say }));
  place.hidden ||= !drawn.length;
  if (place.hidden) return;
  const points = drawn.map((row) => ({
    label: named(row), estimator: row.estimator, value: row.value, low: row.low ?? row.value, high: row.high ?? row.value,
    tip: `${named(row)}\n${label}: ${written(row.text)} ${unit}\n95 %: ${digits(row.low)} to ${digits(row.high)}\nn = ${row.n}`,
  }));
  draw(place, dots(points, names, withUnit(label, unit), place.clientWidth), `${label} of ${points.length} settings with 95 % intervals; the numbers are in the table below`);
}

function showDifferences() {
  const named = naming();
  const { metric, label } = described(at("metric").value) ?? {};
  const own = chosenRows().filter((row) => row.metric === metric && row.verdict !== "baseline");
  at("differences").hidden = !run.summary.compared || !own.length;
  if (at("differences").hidden) return;
  const { unit, drawn, notes } = drawable(own, "difference");
  const columns = [
    ...headColumns(own),
    { key: "verdict", label: "verdict" },
    { key: "text", label: "difference", numeric: true },
    ...[["difference_low", "95 % from"], ["difference_high", "to"], ["pairs", "pairs"]].map(([name, title]) => ({ key: name, label: title, numeric: true })),
  ];
  const lines = own.map((row) => ({
    ...head(row),
    verdict: words(row.verdict),
    text: { text: written(row.difference_text) || "-", sort: row.difference },
    ...Object.fromEntries(["difference_low", "difference_high", "pairs"].map((name) => [name, count(row[name])])),
  }));
  const first = chosenRows().find((row) => row.verdict === "baseline");
  const against = several() ? "the first setting of each stream" : `${first.estimator} ${first.setting}`.trim();
  const caption = `${withUnit(label, unitsOf(own).join(" or "))}, difference to ${against}. Paired by repetition.`;
  const place = fill("differences", `Against ${against}, on the same repetitions. ${notes}`, sortable({ caption, columns, rows: lines, say }));
  place.hidden ||= !drawn.length;
  if (place.hidden) return;
  const points = drawn.map((row) => ({
    label: named(row), estimator: row.estimator, value: row.difference,
    low: row.difference_low ?? row.difference, high: row.difference_high ?? row.difference,
    tip: `${named(row)}\n${label}: ${written(row.difference_text)} ${unit}\n${row.verdict}, ${row.pairs} pairs`,
  }));
  draw(place, dots(points, names, withUnit(`${label}, difference`, unit), place.clientWidth, true), `Differences in ${label} of ${points.length} settings to ${against}, with 95 % intervals and a line at zero; the numbers are in the table below`);
}

function showPareto() {
  const named = naming();
  const [gain, lag, memory] = AXES.map((of) => of.find((metric) => described(metric) && rows.some((row) => row.metric === metric)));
  const settings = new Map();
  for (const row of several() ? [] : chosenRows()) {
    if (![gain, lag, memory].includes(row.metric)) continue;
    settings.set(key(row), { ...settings.get(key(row)), row, [row.metric]: row });
  }
  const full = [...settings.values()].filter((own) => [gain, lag, memory].every((metric) => Number.isFinite(own[metric]?.value)));
  at("pareto").hidden = full.length < 2;
  if (full.length < 2) return;
  const titles = { x: withUnit(described(lag).label, "samples"), y: withUnit(described(gain).label, "dB") };
  const points = full.map((own) => ({
    estimator: own.row.estimator, x: own[lag].value, y: own[gain].value, front: Boolean(own.row.front),
    tip: `${named(own.row)}\n${titles.y}: ${written(own[gain].text)}\n${titles.x}: ${written(own[lag].text)}\nmemory: ${written(own[memory].text)} bytes\n${own.row.front ? "on the front" : "off the front"}`,
  }));
  const columns = [
    ...headColumns(full.map((own) => own.row)),
    ...[gain, lag, memory].map((metric) => ({ key: metric, label: described(metric).label, numeric: true, note: rows.find((row) => row.metric === metric).unit })),
    { key: "front", label: "on the front" },
  ];
  const lines = full.map((own) => ({
    ...head(own.row),
    ...Object.fromEntries([gain, lag, memory].map((metric) => [metric, { text: written(own[metric].text), sort: own[metric].value }])),
    front: words(own.row.front ? "yes" : "no"),
  }));
  const note = "Full and joined: the Pareto front of attenuation, lag and memory. Off it is what another setting beats in one of the three and equals in the others, but for ties.";
  const place = fill("pareto", note, sortable({ caption: `Attenuation, lag and memory on ${full[0].row.stream}.`, columns, rows: lines, say }));
  if (place.hidden) return;
  draw(place, frontier(points, names, titles), `${titles.y} against ${titles.x} of ${points.length} settings, ${points.filter(({ front }) => front).length} on the front; the numbers are in the table below`);
}

function showPart() {
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
  showSeries();
}

const seriesNames = (part) => part.lines.map(({ what }) => what).filter((what) => what !== "samples" && what !== "true level");

function showSeries() {
  const part = run.series[at("part").value];
  const shown = new Set([...at("lines").querySelectorAll("input:checked")].map((box) => box.value));
  showReadout(part);
  if (about.without) return;
  const kinds = { samples: [], level: [], bands: [], estimates: [] };
  for (const line of part.lines.filter(({ what }) => shown.has(what))) {
    const kind = { samples: "samples", "true level": "level" }[line.what] ?? "estimates";
    part.times.forEach((time, place) => {
      kinds[kind].push({ time, estimator: line.what, value: number(line.value[place]) });
      if (line.low && line.low[place] !== null) kinds.bands.push({ time, estimator: line.what, low: Number(line.low[place]), high: Number(line.high[place]) });
    });
  }
  draw(at("series").querySelector(".chart"), overTime(kinds, seriesNames(part), part.times, span(kinds), part.unit), `${[...shown].join(", ")} over ${part.times.length} samples; the values at a sample are in the table below`);
}

/** What the axis spans: all estimates, and all but the outermost of the samples. */
function span({ samples, level, bands, estimates }) {
  const sorted = samples.map(({ value }) => value).filter(Number.isFinite).sort((a, b) => a - b);
  const inner = sorted.length ? [0.02, 0.98].map((share) => sorted[Math.round(share * (sorted.length - 1))]) : [];
  const all = [...level, ...estimates].map(({ value }) => value).filter(Number.isFinite).concat(inner);
  if (bands.some(({ low }) => low <= 0)) all.push(Math.min(0, ...inner)); // no logarithms where a band crosses zero
  return all.length ? [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))] : [0, 1];
}

function showReadout(part) {
  const wanted = Number(at("at").value);
  const place = part.times.reduce((best, time, own) => (Math.abs(time - wanted) < Math.abs(part.times[best] - wanted) ? own : best), 0);
  const columns = [
    { key: "what", label: "What" },
    ...[["value", "value"], ["low", "95 % from"], ["high", "to"]].map(([name, label]) => ({ key: name, label, numeric: true })),
  ];
  const lines = part.lines.map((line) => ({
    what: words(line.what),
    ...Object.fromEntries(["value", "low", "high"].map((name) => [name, count(number(line[name]?.[place] ?? null))])),
  }));
  const caption = `Sample ${part.times[place]} of ${part.of}, ${part.name} (${part.unit}).`;
  const note = `Shown: ${part.of}${part.thinned ? `, ${part.thinned}` : ""}. The axis leaves out the outermost samples; bands are stated 95 % intervals.`;
  fill("series", note, sortable({ caption, columns, rows: lines, say }));
}

offer(at("run"), about.runs.map((name, place) => [place, name]));
const shows = { run: showRun, stream: showRows, metric: () => (showIntervals(), showDifferences()), part: showPart, at: showSeries, lines: showSeries, columns: showTable };
for (const [id, act] of Object.entries(shows)) {
  at(id).addEventListener("change", (event) => {
    act();
    const label = event.target.selectedOptions?.[0].text ?? event.target.closest("label").textContent.trim();
    say(`Shown: ${label}`);
  });
}
showRun();
document.documentElement.dataset.ready = "yes";
