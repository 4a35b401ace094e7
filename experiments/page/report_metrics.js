// A run's metrics: the summary, means with intervals, paired differences, and the Pareto front.

import { dots, draw, frontier, MOST_ROWS } from "./report_charts.js";
import { at, count, digits, fill, make, numeric, say, unpacked, words, written } from "./report_parts.js";
import { sortable } from "./tables.js";

const WORDS = new Set([
  "stream",
  "estimator",
  "setting",
  "metric",
  "unit",
  "text",
  "verdict",
  "difference_text",
  "status",
]);
const AXES = [["attenuation_db", "implied_attenuation_db"], ["lag", "mean_age"], ["state_bytes"]];
const BOUNDS = [
  ["low", "95 % from"],
  ["high", "to"],
];
const COUNTS = [
  ["n", "n"],
  ["failed", "failed"],
  ["missing", "missing"],
];
const BELOW = "the numbers are in the table below";
/** The run that is shown, its rows, the names of its estimators, and what tells its streams apart. */
const shown = { run: null, rows: [], names: [], apart: new Map() };

/** Show another run; returned are its streams. */
export function take(run) {
  const rows = run.summary.kind === "measured" ? unpacked(run.summary, WORDS) : [];
  const all = [...new Set(rows.map((row) => row.stream))];
  Object.assign(shown, { run, rows, names: [...new Set(rows.map((row) => row.estimator))], apart: told(all), all });
  return all;
}

/** Rows of the chosen stream, or of all. */
function chosenRows() {
  const stream = at("stream").value;
  return stream === "" ? shown.rows : shown.rows.filter((row) => row.stream === shown.all[stream]);
}

const several = () => new Set(chosenRows().map((row) => row.stream)).size > 1;
const described = (metric) => shown.run.summary.metrics?.find((one) => one.metric === metric);
const key = (row) => JSON.stringify([row.stream, row.estimator, row.setting]);
const withUnit = (label, unit) => (label.includes(`(${unit})`) || unit === "1" ? label : `${label} (${unit})`);

/** Of each stream the words that not all of them have. */
function told(all) {
  const seen = new Map();
  for (const stream of all) for (const word of new Set(stream.split(" "))) seen.set(word, (seen.get(word) ?? 0) + 1);
  return new Map(
    all.map((stream) => [
      stream,
      stream
        .split(" ")
        .filter((word) => seen.get(word) < all.length)
        .join(" "),
    ]),
  );
}

/** What a row's setting is called, with its stream where several are shown; the function asks for that once. */
function naming() {
  const many = several();
  return (row) => [row.estimator, row.setting, many && `on ${shown.apart.get(row.stream)}`].filter(Boolean).join(" ");
}

/** Show what the controls choose of the run. */
export function showRows() {
  showTable();
  at("intervals").hidden = shown.run.summary.kind !== "measured";
  if (!at("intervals").hidden) showIntervals();
  showDifferences();
  showPareto();
}

/** Show the chosen metric. */
export function showMetric() {
  showIntervals();
  showDifferences();
}

export function showTable() {
  const csv = shown.run.table.link
    ? make("a", { href: shown.run.table.file }, shown.run.table.file)
    : shown.run.table.file;
  const note = make(
    "p",
    { class: "note" },
    shown.run.summary.left ? `${shown.run.summary.left} ` : "",
    "All digits: ",
    csv,
    ".",
  );
  at("table").replaceChildren(shown.run.summary.kind === "measured" ? wideTable() : plainTable(), note);
}

function plainTable() {
  const numeric = new Set(shown.run.summary.numeric);
  const every = Object.keys(shown.run.summary.columns);
  const lines = unpacked(shown.run.summary, new Set(every.filter((name) => !numeric.has(name)))).map((row) =>
    Object.fromEntries(every.map((name) => [name, numeric.has(name) ? count(row[name]) : words(row[name])])),
  );
  const columns = every.map((name) => ({ key: name, label: name.replaceAll("_", " "), numeric: numeric.has(name) }));
  return sortable({ caption: `${shown.run.name}: ${lines.length} rows.`, columns, rows: lines, say });
}

/** A row for each setting, a column for each metric. */
function wideTable() {
  const own = chosenRows();
  const all = document.querySelector("[name=columns]:checked").value === "all" || at("columns").hidden;
  const columnsShown = shown.run.summary.metrics.filter(
    ({ metric, printed }) => (all || printed) && own.some((row) => row.metric === metric),
  );
  const lines = new Map();
  for (const row of own) {
    const line = lines.get(key(row)) ?? head(row);
    lines.set(key(row), line);
    line[`metric ${row.metric}`] = measuredCell(row);
  }
  const columns = [
    ...headColumns(own),
    ...columnsShown.map(({ metric, label, better }) => ({
      key: `metric ${metric}`,
      label,
      numeric: true,
      note: [unitsOf(own.filter((row) => row.metric === metric)).join(" or "), better && `${better} is better`]
        .filter(Boolean)
        .join(", "),
    })),
  ];
  const counts = [...new Set(own.map(({ n }) => n))];
  const n =
    counts.length === 1
      ? `n = ${counts[0]}.`
      : `n from ${Math.min(...counts)} to ${Math.max(...counts)}, each in the table of its metric.`;
  const marks = shown.run.summary.compared
    ? "± is half of a 95 % interval. ★: best of its stream, with its ties, where the paired interval to every other excludes zero; =: tie with the first setting."
    : "Medians; their intervals are below.";
  return sortable({
    caption: `Settings on ${several() ? "all streams" : own[0].stream}. ${n} ${marks}`,
    columns,
    rows: [...lines.values()],
    say,
  });
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

function showIntervals() {
  const named = naming();
  const { metric, label } = described(at("metric").value);
  const own = chosenRows().filter((row) => row.metric === metric);
  const { unit, drawn, notes } = drawable(own, "value");
  const median = shown.run.summary.centre === "mean" && own.some((row) => row.median !== null);
  const columns = [
    ...headColumns(own),
    ...numeric([
      ["value", shown.run.summary.centre],
      ...BOUNDS,
      ...(median ? [["median", "median"]] : []),
      ...COUNTS,
    ]).filter((column) => own.some((row) => row[column.key] !== undefined)),
    ...(own.some(({ status }) => status && status !== "ok") ? [{ key: "status", label: "status" }] : []),
  ];
  const lines = own.map((row) => ({
    ...head(row),
    ...Object.fromEntries(
      ["value", "low", "high", "median", "n", "failed", "missing"].map((name) => [name, count(row[name] ?? null)]),
    ),
    status: words(row.status ?? ""),
  }));
  const where = several() ? "all streams" : (own[0]?.stream ?? "this stream");
  const place = fill(
    "intervals",
    notes,
    sortable({ caption: `${withUnit(label, unitsOf(own).join(" or "))} on ${where}.`, columns, rows: lines, say }),
  );
  place.hidden ||= !drawn.length;
  if (place.hidden) return;
  const points = drawn.map((row) => ({
    label: named(row),
    estimator: row.estimator,
    value: row.value,
    low: row.low ?? row.value,
    high: row.high ?? row.value,
    tip: `${named(row)}\n${label}: ${written(row.text)} ${unit}\n95 %: ${digits(row.low)} to ${digits(row.high)}\nn = ${row.n}`,
  }));
  draw(
    place,
    dots(points, shown.names, withUnit(label, unit), place.clientWidth),
    `${label} of ${points.length} settings with 95 % intervals; ${BELOW}`,
  );
}

function showDifferences() {
  const named = naming();
  const { metric, label } = described(at("metric").value) ?? {};
  const own = chosenRows().filter((row) => row.metric === metric && row.verdict !== "baseline");
  at("differences").hidden = !shown.run.summary.compared || !own.length;
  if (at("differences").hidden) return;
  const { unit, drawn, notes } = drawable(own, "difference");
  const columns = [
    ...headColumns(own),
    { key: "verdict", label: "verdict" },
    { key: "text", label: "difference", numeric: true },
    ...numeric([
      ["difference_low", "95 % from"],
      ["difference_high", "to"],
      ["pairs", "pairs"],
    ]),
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
  const place = fill(
    "differences",
    `Against ${against}, on the same repetitions. ${notes}`,
    sortable({ caption, columns, rows: lines, say }),
  );
  place.hidden ||= !drawn.length;
  if (place.hidden) return;
  const points = drawn.map((row) => ({
    label: named(row),
    estimator: row.estimator,
    value: row.difference,
    low: row.difference_low ?? row.difference,
    high: row.difference_high ?? row.difference,
    tip: `${named(row)}\n${label}: ${written(row.difference_text)} ${unit}\n${row.verdict}, ${row.pairs} pairs`,
  }));
  draw(
    place,
    dots(points, shown.names, withUnit(`${label}, difference`, unit), place.clientWidth, true),
    `Differences in ${label} of ${points.length} settings to ${against}, with 95 % intervals and a line at zero; ${BELOW}`,
  );
}

/** A metric without the setting at which it was measured, and that setting: an estimator may have many. */
const measuredAt = (metric) => [...metric.split("@"), ""].slice(0, 2);

function showPareto() {
  const named = naming();
  const bases = new Map(shown.rows.map((row) => [measuredAt(row.metric)[0], row.unit]));
  const axes = AXES.map((of) => of.find((metric) => bases.has(metric)));
  const settings = new Map();
  for (const row of several() ? [] : chosenRows()) {
    const [base, where] = measuredAt(row.metric);
    if (!axes.includes(base)) continue;
    const id = `${key(row)} ${where}`;
    settings.set(id, { ...settings.get(id), row, where, [base]: row });
  }
  const full = [...settings.values()].filter((own) => axes.every((base) => Number.isFinite(own[base]?.value)));
  at("pareto").hidden = full.length < 2;
  if (full.length < 2) return;
  const labels = axes.map((base) => described(base)?.label ?? base.replace(/_db$/, "").replaceAll("_", " "));
  const [y, x, memory] = labels.map((label, place) => withUnit(label, bases.get(axes[place])));
  const told = (own) => [named(own.row), own.where && `at ${own.where}`].filter(Boolean).join(" ");
  const points = full.map((own) => {
    const numbers = axes.map((base) => written(own[base].text));
    const lines = [y, x, memory].map((label, place) => `${label}: ${numbers[place]}`);
    const [gain, lag] = axes.map((base) => own[base].value);
    const front = Boolean(own.row.front);
    const tip = [told(own), ...lines, front ? "on the front" : "off the front"].join("\n");
    return { estimator: own.row.estimator, x: lag, y: gain, front, tip };
  });
  const columns = [
    ...headColumns(full.map((own) => own.row)),
    ...(full.some(({ where }) => where) ? [{ key: "where", label: "at" }] : []),
    ...axes.map((base, place) => ({ key: base, label: labels[place], numeric: true, note: bases.get(base) })),
    { key: "front", label: "on the front" },
  ];
  const lines = full.map((own) => ({
    ...head(own.row),
    ...Object.fromEntries(axes.map((base) => [base, { text: written(own[base].text), sort: own[base].value }])),
    where: words(own.where),
    front: words(own.row.front ? "yes" : "no"),
  }));
  const note =
    "Full: on the Pareto front of attenuation, lag and memory. Off it, and hollow, is what another setting beats " +
    "in one of the three and equals in the others, but for ties.";
  const caption = `Attenuation, lag and memory on ${full[0].row.stream}.`;
  const place = fill("pareto", note, sortable({ caption, columns, rows: lines, say }));
  if (place.hidden) return;
  const onFront = points.filter(({ front }) => front).length;
  draw(
    place,
    frontier(points, shown.names, { x, y }),
    `${y} against ${x} of ${points.length} settings, ${onFront} on the front; ${BELOW}`,
  );
}
