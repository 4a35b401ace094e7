// The report: one run at a time, read when it is chosen; controls say which part of it is shown.

import { showFailures, showFigures, showMade } from "./report_made.js";
import { showMetric, showRows, showTable, take } from "./report_metrics.js";
import { about, at, offer, say, unzipped } from "./report_parts.js";
import { showPart, showSeries } from "./report_series.js";

let run;

async function showRun() {
  const id = `run-${at("run").value || 0}`;
  const read = await unzipped(id);
  if (id !== `run-${at("run").value || 0}`) return; // another one has been chosen meanwhile
  run = read;
  const streams = take(run);
  const metrics = run.summary.metrics ?? [];
  const every = streams.length > 1 ? [["", `all ${streams.length} streams`]] : [];
  offer(at("stream"), [...streams.map((stream, place) => [place, stream]), ...every]);
  offer(
    at("metric"),
    metrics.map(({ metric, label }) => [metric, label]),
  );
  const there = { run: about.runs.length > 1, stream: streams.length > 1, metric: metrics.length > 0 };
  for (const [control, shown] of Object.entries(there)) {
    document.querySelector(`[data-control=${control}]`).hidden = !shown;
  }
  at("chosen").hidden = !Object.values(there).some(Boolean);
  at("columns").hidden = new Set(metrics.map(({ printed }) => printed)).size < 2;
  showMade(run);
  showFailures(run);
  showFigures(run);
  offer(
    at("part"),
    run.series.map(({ name }, place) => [place, name]),
  );
  at("series").hidden = !run.series.length;
  if (run.series.length) showPart(run);
  showRows();
}

offer(
  at("run"),
  about.runs.map((name, place) => [place, name]),
);
const acts = {
  run: showRun,
  stream: showRows,
  metric: showMetric,
  columns: showTable,
  part: () => showPart(run),
  at: () => showSeries(run),
  lines: () => showSeries(run),
};
for (const [id, act] of Object.entries(acts)) {
  at(id).addEventListener("change", async (event) => {
    await act();
    const label = event.target.selectedOptions?.[0].text ?? event.target.closest("label").textContent.trim();
    say(`Shown: ${label}`);
  });
}
await showRun();
document.documentElement.dataset.ready = "yes";
