// What made a run: its command, configuration and code, what failed, and its figures.

import { copyable, count, make, say, at, words } from "./report_parts.js";
import { sortable } from "./tables.js";

const counted = (many, what) => `${many.toLocaleString("en")} ${what}${many === 1 ? "" : "s"}`;

export function showMade(run) {
  const cells = run.cells
    ? Object.entries(run.cells)
        .map(([how, many]) => `${many.toLocaleString("en")} ${how}`)
        .join(", ")
    : "none of its own";
  at("lead").textContent =
    `${run.experiment}, ${run.complete ? "complete" : "not complete"}: ${run.rows.toLocaleString("en")} measurements.${run.left.length ? ` Left out to keep this page small: ${run.left.join(", ")}, in the run's folder.` : ""}`;
  const entries = [
    ["Run", run.name],
    ["Command", copyable(run.command, "the command", say)],
    ["Configuration hash", `${run.identity}, of the configuration and the code`],
    ["Code fingerprint", run.code],
    ["Cells", cells],
    [
      "Made with",
      Object.entries(run.made)
        .map(([what, version]) => `${what} ${version}`)
        .join(", "),
    ],
    ...(run.computed.length ? [["Cells computed with", run.computed.join("; ")]] : []),
  ];
  at("provenance").replaceChildren(
    ...entries.flatMap(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]),
  );
  at("configuration").textContent = run.configuration;
  at("text").textContent = run.text;
}

export function showFailures(run) {
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
    Object.fromEntries(
      Object.entries(failure).map(([name, value]) => [name, typeof value === "number" ? count(value) : words(value)]),
    ),
  );
  const told = raised
    ? `${counted(run.cells.failed, "cell")} failed and ${run.cells.missing} missing; the same command tries again. They are counted here and averaged over nowhere.`
    : "No cell failed. These measurements have no value, and are averaged over nowhere:";
  at("failures").replaceChildren(
    make("p", raised ? { class: "failures" } : {}, told),
    sortable({ caption: "Measurements without a value", columns, rows: lines, say }),
  );
}

export function showFigures(run) {
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
