"""What estimators cost, in time and memory, against peers and against the machine, within one process."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.costs import growth, limits, memory, seconds, start_up, windows
from experiments.figures import line, styled
from experiments.goals import GOALS, Goal
from experiments.peers import Contest, Contestant
from experiments.runs import Outcome
from experiments.settings import Match, Tune
from experiments.setup import Setup
from experiments.summaries import COLUMNS
from experiments.tables import aligned
from experiments.workloads import WORKLOADS

TURN = 0.02
"""Seconds that a contestant is given at least in each round."""
PEERS = (
    *("scipy", "numba", "pandas", "polars", "bottleneck", "river"),
    *("filterpy", "simdkalman", "pykalman", "statsmodels", "torch"),
)


def check_size(rounds: int, scale: float) -> None:
    """Raise ValueError for rounds or a scale of sizes with which nothing can be timed."""
    if rounds < 1:
        raise ValueError(f"experiment.rounds={rounds} is not valid; it must be an int >= 1")
    if not 0.0 < scale <= 1.0:
        raise ValueError(f"experiment.scale={scale} is not valid; it must be in (0, 1]")


@dataclass(frozen=True)
class Parameters:
    """rounds: of every contest; scale: of its sizes, 1 for those of the goals; workloads: those entered."""

    rounds: int = 7
    scale: float = 1.0
    workloads: list[str] = field(default_factory=lambda: list(WORKLOADS))

    def __post_init__(self) -> None:
        check_size(self.rounds, self.scale)
        if not self.workloads or len(set(self.workloads)) < len(self.workloads):
            raise ValueError(
                f"experiment.workloads={self.workloads} is not valid; it must name each of some of "
                f"{', '.join(WORKLOADS)} once"
            )
        for name in self.workloads:
            if name not in WORKLOADS:
                raise ValueError(
                    f"experiment.workloads={name} is not valid; it must be of {', '.join(WORKLOADS)}"
                )

    def sized(self, samples: int) -> int:
        """Samples at this scale, enough of them for a result at any."""
        return max(min(samples, 400), round(self.scale * samples))


def run(setup: Setup) -> Outcome:
    """Time every contest in turn, in this process; ValueError where a peer's answer differs from ours."""
    if setup.match is not Match.none or setup.tune is not Tune.none:
        given = f"match={setup.match.value}" if setup.match is not Match.none else f"tune={setup.tune.value}"
        raise ValueError(
            f"{given} is not valid with experiment=cost, which has settings of its own; it must be none"
        )
    chosen: Parameters = setup.parameters
    rows, skipped = [], []
    for name in chosen.workloads:
        for contest in WORKLOADS[name](chosen.sized):
            entered, absent = split(contest)
            skipped += [
                f"{who} in {contest.name}: {', '.join(lacks)} is absent" for who, lacks in absent.items()
            ]
            rows += list(timed(contest.name, entered, chosen.rounds))
            gc.collect()
    for measure in (limits, growth, windows, memory, start_up):
        rows += list(measure(chosen.sized, chosen.rounds))
    table = pd.DataFrame(rows).assign(experiment="cost", parameters="")
    table["status"] = np.where(np.isfinite(table["value"]), "ok", "undefined")
    table = table[COLUMNS]
    summary = summarised(table)
    return Outcome(table, summary, _text(summary, skipped, chosen), {"cost": _figure(summary)})


def split(contest: Contest) -> tuple[list[tuple[Contestant, Callable[[], Any]]], dict[str, list[str]]]:
    """Who can enter, each prepared and its answer checked against the first of its group; what others lack.

    ValueError for an answer that differs.
    """
    absent = {c.name: c.missing() for c in contest.contestants if c.missing()}
    entered = [(c, c.make()) for c in contest.contestants if c.name not in absent]
    wanted: dict[str, tuple[str, Any]] = {}
    for contestant, call in entered:
        answer = call()
        if contestant.tolerance is None:
            continue
        who, want = wanted.setdefault(
            contestant.group, (contestant.name, np.asarray(answer, dtype=np.float64))
        )
        got = np.asarray(answer, dtype=np.float64)
        if got.shape != want.shape or np.any(np.isnan(got) != np.isnan(want)):
            raise ValueError(
                f"{contest.name}: {contestant.name} gives other numbers, or other gaps, than {who}"
            )
        largest = float(np.nanmax(np.abs(got - want)) / np.nanmax(np.abs(want)))
        if not largest <= contestant.tolerance:
            raise ValueError(
                f"{contest.name}: {contestant.name} differs from {who} by {largest:.1e}; "
                f"at most {contestant.tolerance:.0e} is allowed"
            )
    return entered, absent


def timed(
    contest: str, entered: Sequence[tuple[Contestant, Callable[[], Any]]], rounds: int
) -> Iterator[dict[str, Any]]:
    """Rows of ns per sample and of ratios to the first contestant, one contestant after the other in turn.

    What is over sooner than a turn lasts is called again and again, as in a loop.
    """
    calls = {contestant.name: max(1, int(TURN / seconds(call))) for contestant, call in entered}
    for seed in range(rounds):
        costs = {}
        for contestant, call in entered:
            repeats = calls[contestant.name]
            costs[contestant.name] = seconds(call, repeats) / contestant.samples
        first = costs[entered[0][0].name]
        for name, cost in costs.items():
            common = {"stream": contest, "estimator": name, "seed": seed}
            yield {**common, "metric": "time", "value": 1e9 * cost, "unit": "ns per sample"}
            yield {**common, "metric": "ratio", "value": cost / first, "unit": "1"}


def summarised(table: pd.DataFrame) -> pd.DataFrame:
    """Median, least and most of each cost over the rounds."""
    keys = ["stream", "estimator", "metric", "unit"]
    found = table.groupby(keys, sort=False)["value"].agg(["count", "median", "min", "max"]).reset_index()
    return found.rename(columns={"count": "n", "min": "low", "max": "high"})


def _text(summary: pd.DataFrame, skipped: Sequence[str], chosen: Parameters) -> str:
    versions = []
    for name in ("numpy", *PEERS):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    blocks = [
        f"cost: medians of {chosen.rounds} rounds, contestants in turn, in one process and on one thread.\n"
        f"{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"{', '.join(versions)}.\n"
        "Streams, estimators and seeds are the experiment's own; ours filter into an array that is there.\n"
        "Times differ from run to run and from machine to machine; compare ratios. Of one float, the loop\n"
        "that calls is part of each time, the empty method's too. To measure anew, remove this folder.",
        *(_contest(summary, name) for name in summary.loc[summary["metric"] == "ratio", "stream"].unique()),
        "What else was measured:",
        _others(summary),
        f"Goals{'' if chosen.scale == 1.0 else f' (stated at scale 1; this run has {chosen.scale:g})'}:",
        _goals(summary),
    ]
    if skipped:
        blocks.append("Not entered:\n" + "\n".join(f"- {reason}" for reason in skipped))
    return "\n\n".join(blocks) + "\n"


def _contest(summary: pd.DataFrame, name: str) -> str:
    rows = summary[summary["stream"] == name].pivot(index="estimator", columns="metric")
    order = summary.loc[(summary["stream"] == name) & (summary["metric"] == "time"), "estimator"]
    lines = [[name, "ns per sample", "times the first", "least to most"]]
    for who in order:
        middle, low, high = (rows.loc[who, (column, "ratio")] for column in ("median", "low", "high"))
        took = rows.loc[who, ("median", "time")]
        lines.append([who, f"{took:.3g}", f"{middle:.3g}", f"{low:.3g} to {high:.3g}"])
    return aligned(lines, texts=1)


def _others(summary: pd.DataFrame) -> str:
    rows = summary[~summary["metric"].str.match("time$|ratio$|at ")]
    lines = [["what", "of", "median", "unit"]]
    for of, who, metric, median, unit in rows[["stream", "estimator", "metric", "median", "unit"]].to_numpy():
        lines.append([f"{of}: {metric}", who, f"{median:.4g}", unit])
    return aligned(lines)


def _goals(summary: pd.DataFrame) -> str:
    head = ["what", "goal", "reached", "over rounds", "verdict"]
    return aligned([head, *(judged(goal, summary) for goal in GOALS)], texts=1)


def judged(goal: Goal, summary: pd.DataFrame) -> list[str]:
    """A row of the table of goals: what, the goal, what was reached, over the rounds, and the verdict."""
    value = goal.reached(summary)
    verdict = "not measured" if value is None else "met" if goal.met(value) else "missed"
    span = " to ".join(f"{value:.3g}" for value in sorted(goal.span(summary))) or "-"
    return [goal.what, goal.asked, "-" if value is None else f"{value:.3g}", span, verdict]


def processor() -> str:
    """Name of the processor, as far as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        return next(
            row.partition(":")[2].strip() for row in text.splitlines() if row.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.machine()


def _figure(summary: pd.DataFrame) -> Any:
    """Cost per sample against the length of a stream, and against the number of channels."""
    rows = summary[(summary["stream"] == "growth") & summary["metric"].str.startswith("at ")]
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.4), sharey=True)
        for axis, what, label in (
            (axes[0], "T", "samples of one stream"),
            (axes[1], "C", "channels, of the same number of samples"),
        ):
            for index, (who, own) in enumerate(
                rows[rows["metric"].str.contains(f" {what}=")].groupby("estimator", sort=False)
            ):
                sizes = own["metric"].str.rpartition("=")[2].astype(float)
                style = {"color": "#999999", "linewidth": 3.0, "zorder": 0} if who == "copy" else line(index)
                axis.loglog(sizes, own["median"], label="copy (the limit)" if who == "copy" else who, **style)
            axis.set(xlabel=label)
        axes[0].set_ylabel("ns per sample")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
        pyplot.close(figure)
    return figure
