"""What it costs not to know q and r: filters that find them, against one that is told both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator, InnovationMatchingKalman, Kalman, KalmanBank, SageHusaKalman, fit
from experiments.cells import Condition
from experiments.figures import COLOURS, line, styled
from experiments.metrics import Measured, Trial, coverage, mean_over_time
from experiments.plan import SWEPT_ESTIMATORS, Panel
from experiments.runs import Report
from experiments.streams import Array, GradientRatio, Stream, is_plain_walk
from experiments.summaries import Column
from experiments.tables import aligned, counted, quantity, shortened

COLUMNS = (Column("mse", "MSE", better="less"), Column("coverage", "coverage"))
ORACLE, FITTED = "oracle", "batch fit, then filter"
"""How the tables name the filter that is told both, and the one that the whole stream was fitted for."""
OF_FIT = "fit_"
"""Begins the metrics of the fitted filter, which is no estimator of samples to come and has no row."""
FINEST = 1e-3
"""What is told apart in a table: finer would be of use to no one."""
FAR = 1.25
"""Mean ratio over median ratio from which the text says that a filter errs much on a few streams."""
MARKERS = "osD^vP*Xdh"
NEAR = (0.96, 1.3)
"""Ratios that the lower half of the figure shows."""


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has: its sweep says which filters and which streams."""


@dataclass(frozen=True)
class Goal:
    """A bound on the median ratio of a filter at each s of a range, both ends within, on long streams."""

    who: str
    bound: float
    lowest: float = 0.0
    highest: float = np.inf

    @property
    def asked(self) -> str:
        """The goal in words."""
        where = f"s from {self.lowest:g} to {self.highest:g}" if self.lowest else "every s"
        return f"{self.who} <= {self.bound:g} for {where}"


LONG = 2000
"""Samples of the streams that the goals are about."""
GOALS = (
    Goal("kalman_bank", 1.05, 1e-3, 1.0),
    Goal("kalman_bank", 1.02, 0.03, 1.0),
    Goal(FITTED, 1.03),
)


def measure(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Squared error, its ratio to that of the filter that is told q and r, and coverage, after the burn-in.

    Beside the filter that is told both, the same of one with the q and r of a fit to each whole stream.
    """
    stream = _walk(condition.stream)
    least = _squared_error(condition.trial(_told_both(stream), repetitions))
    trial = condition.trial(estimator, repetitions)
    found = list(_measured(trial, least))
    if _is_oracle(estimator, stream):
        fitted = replace(trial, estimator=fit(trial.drawn.samples).estimator())
        found += [replace(one, metric=OF_FIT + one.metric) for one in _measured(fitted, least)]
    return found


def _measured(trial: Trial, least: Array) -> Iterable[Measured]:
    error = _squared_error(trial)
    yield Measured("mse", f"({trial.unit})^2", error)
    yield Measured("mse_ratio", "1", error / least)
    yield from coverage(trial)


def _squared_error(trial: Trial) -> Array:
    return mean_over_time(trial.settled((np.asarray(trial.run.mean) - trial.truth) ** 2))


def _told_both(stream: GradientRatio) -> Kalman:
    return Kalman(q=stream.s * stream.r, r=stream.r)


def _is_oracle(estimator: Estimator, stream: GradientRatio) -> bool:
    """Whether a filter is told the stream's q and r, but for the rounding of how a configuration says it."""
    told = _told_both(stream)
    return (
        isinstance(estimator, Kalman)
        and np.allclose(estimator.q, told.q, rtol=1e-12, atol=0.0)
        and np.allclose(estimator.r, told.r, rtol=1e-12, atol=0.0)
        and (estimator.mean, estimator.variance) == (told.mean, told.variance)
    )


def _walk(stream: Stream) -> GradientRatio:
    """The stream, if it is one on which q and r are all that there is to know; ValueError, one line."""
    if not stream.has_truth:
        raise ValueError(
            "experiment=adaptation needs streams whose level is known; choose stream=gradient_ratio"
        )
    if not (is_plain_walk(stream) and min(stream.r, stream.s) > 0.0 and stream.degrees_of_freedom == np.inf):
        raise ValueError(
            "experiment=adaptation needs a plain random walk in white Gaussian noise, all of which q and r "
            "tell; choose stream=gradient_ratio with r and s > 0 and leave its other settings as they are"
        )
    return stream


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Ratio and coverage by filter and s, a pair of tables for each length; what became of the goals."""
    for panel in panels:
        _walk(panel.setup.stream)
    found = _named(panels, summary)
    groups = _grouped(panels)
    cells = sum(panel.cells for panel in panels)
    blocks = [
        f"adaptation: what it costs not to know q and r; {counted(len(panels), 'stream')}, "
        f"{counted(panels[0].repetitions, 'repetition')} of each, root seed {panels[0].setup.root_seed}."
    ]
    for title, own in groups.items():
        skipped = f"the first {own[0].setup.burn_in:,} not counted"
        blocks += [
            f"{title}, {skipped}: MSE over the oracle's on the same stream, median over the repetitions",
            _table(own, found, "mse_ratio"),
            f"{title}, {skipped}: share of the levels inside the stated 95 % interval",
            _table(own, found, "coverage"),
        ]
    verdicts = "\n".join(f"- {_verdict(goal, panels, found)}" for goal in GOALS)
    blocks += [f"Goals, on streams of {LONG:,} samples:", verdicts]
    if tails := list(_tails(panels, found)):
        told = "Mean MSE over the oracle's, where large errors on a few streams do not show in the median:"
        blocks += [told, "\n".join(f"- {tail}" for tail in tails)]
    blocks.append("\n".join(_notes(panels, found)))
    if absent := int(summary.groupby(["stream", "estimator", "parameters"])["failed"].max().sum()):
        blocks.append(f"Without the {absent:,} of {cells:,} cells that failed.")
    figures = {"ratio": _figure(groups, found)} if _has(found, "mse_ratio") else {}
    return Report("\n\n".join(blocks) + "\n", figures, COLUMNS)


def _named(panels: Sequence[Panel], summary: pd.DataFrame) -> Any:
    """The summary by stream, row as the tables name it, and metric, with what each row is told."""
    names: dict[tuple[str, str, str], tuple[str, str]] = {}
    short = summary.assign(short=shortened(summary)).drop_duplicates(["stream", "estimator", "parameters"])
    shorter = short.set_index(["stream", "estimator", "parameters"])["short"].to_dict()
    for panel in panels:
        count = pd.Series([name for name, _ in panel.rows]).value_counts()
        for (name, parameters), row in panel.rows.items():
            key = (panel.stream, name, parameters)
            setting = shorter.get(key, parameters) or "default"
            label = f"{name} ({setting})" if count[name] > 1 else name
            if _is_oracle(row.estimator, _walk(panel.setup.stream)):
                label = ORACLE
            names[key] = label, _told(row.estimator)
    keys = zip(summary["stream"], summary["estimator"], summary["parameters"], strict=True)
    labels, told = zip(*(names[key] for key in keys), strict=True)
    found = summary.assign(label=labels, told=told)
    of_fit = found["metric"].str.startswith(OF_FIT)
    found.loc[of_fit, ["label", "told"]] = FITTED, "the stream"
    found["metric"] = found["metric"].str.removeprefix(OF_FIT)
    return found.drop_duplicates(["stream", "label", "metric"]).set_index(["stream", "label", "metric"])


def _told(estimator: Estimator) -> str:
    """What a filter is told of the stream."""
    known = [name for name in ("q", "r") if getattr(estimator, name, None) is not None]
    beta = getattr(estimator, "beta", None)
    return ", ".join(known) or ("neither" if beta is None else f"beta = {beta:g}")


def _grouped(panels: Sequence[Panel]) -> dict[str, list[Panel]]:
    """Panels that differ in s alone, under what they share."""
    groups: dict[str, list[Panel]] = {}
    for panel in panels:
        others = [
            f"{key.removeprefix('stream.')} = {value}"
            for key, value in panel.swept.items()
            if key not in ("stream.s", "stream.steps") and key.partition(".")[0] != SWEPT_ESTIMATORS
        ]
        title = ", ".join([f"n = {panel.setup.stream.length():,}", *others])
        groups.setdefault(title, []).append(panel)
    return groups


def _table(panels: Sequence[Panel], found: Any, metric: str) -> str:
    """A row per filter, a column per s: medians of the ratio, means of the coverage."""
    lines = [["filter", "told", *(f"s = {_s(panel):g}" for panel in panels)]]
    for label, told in _rows(panels, found):
        own = [(panel, _at(found, panel, label, metric)) for panel in panels]
        if metric == "mse_ratio" and label == ORACLE:
            means = [(panel, _at(found, panel, label, "mse")) for panel in panels]
            cells = ["-" if row is None else _mean(row, _walk(panel.setup.stream).r) for panel, row in means]
            lines.append([f"{ORACLE}: its MSE / r", told, *cells])
        elif any(row is not None for _, row in own):
            write = _median if metric == "mse_ratio" else _mean
            lines.append([label, told, *("-" if row is None else write(row) for _, row in own)])
    return aligned(lines)


def _s(panel: Panel) -> float:
    return _walk(panel.setup.stream).s


def _rows(panels: Sequence[Panel], found: Any) -> dict[tuple[str, str], None]:
    """Labels and what they are told, in the order in which they first appear."""
    rows: dict[tuple[str, str], None] = {}
    for panel in panels:
        own = found.loc[panel.stream]
        rows |= dict.fromkeys(zip(own.index.get_level_values("label"), own["told"], strict=True))
    return rows


def _at(found: Any, panel: Panel, label: str, metric: str) -> Any:
    """A row of the summary, None where it is not there or has no value."""
    key = (panel.stream, label, metric)
    return found.loc[key] if key in found.index and found.loc[key, "n"] > 0 else None


def _has(found: Any, metric: str) -> bool:
    return bool(np.isfinite(found.loc[found.index.get_level_values("metric") == metric, "median"]).any())


def _median(row: Any) -> str:
    return _written(row["median"], max(row["median_high"] - row["median"], row["median"] - row["median_low"]))


def _mean(row: Any, unit: float = 1.0) -> str:
    return _written(row["mean"] / unit, (row["high"] - row["mean"]) / unit)


def _written(value: float, half: float) -> str:
    """A value and how far its interval reaches, which is rounded up to thousandths where it is a few."""
    if half >= 2.0 * FINEST or not np.isfinite(half) or value < 20.0 * FINEST:
        return quantity(value, half)
    return f"{value:.3f} ± {max(1.0, np.ceil(half / FINEST)) * FINEST:.3f}"


def _verdict(goal: Goal, panels: Sequence[Panel], found: Any) -> str:
    """A goal, whether it is reached, and by which figure; undecided where the two cannot be told apart."""
    own = [
        (_s(panel), row)
        for panel in panels
        if panel.setup.stream.length() == LONG
        and goal.lowest <= _s(panel) <= goal.highest
        and (row := _at(found, panel, goal.who, "mse_ratio")) is not None
    ]
    if not own:
        return f"not measured: {goal.asked}"
    s, worst = max(own, key=lambda one: float(one[1]["median"]))
    median, low, high = (float(worst[end]) for end in ("median", "median_low", "median_high"))
    verdict = "reached" if median <= goal.bound else "missed"
    if not np.isfinite(high) or low <= goal.bound < high:
        verdict = "undecided"
    interval = f" [{low:.3f}, {high:.3f}]" if np.isfinite(high) else ""
    return f"{verdict}: {goal.asked}; largest of {len(own)}: {median:.3f}{interval} at s = {s:g}"


def _tails(panels: Sequence[Panel], found: Any) -> Iterable[str]:
    """Filters whose mean error is far above what the median says, each where it is farthest."""
    for label in dict.fromkeys(label for label, _ in _rows(panels, found) if label != ORACLE):
        worst = (FAR, "")
        for panel in panels:
            of_oracle, error = (_at(found, panel, who, "mse") for who in (ORACLE, label))
            if of_oracle is None or error is None:
                continue
            mean = error["mean"] / of_oracle["mean"]
            median = _at(found, panel, label, "mse_ratio")["median"]
            where = f"n = {panel.setup.stream.length():,}, s = {_s(panel):g}"
            said = f"{label}: {mean:.3g}, where the median of the ratio is {median:.3g} ({where})"
            worst = max(worst, (mean / median, said))
        if worst[1]:
            yield worst[1]


def _notes(panels: Sequence[Panel], found: Any) -> list[str]:
    """How the tables are read, and what the rows in them are."""
    notes = [
        "s = q/r. Told: what a filter is given of the stream; given both, the oracle errs least on average.",
        "± reaches to the farther end of the median's 95 % interval (order statistics); the oracle's MSE and",
        "coverage are means, and ± half of theirs. Below 0.002 it is rounded up to thousandths.",
        f"n = {panels[0].repetitions} repetitions, the same for all filters.",
    ]
    if FITTED in found.index.get_level_values("label"):
        notes += [
            "Batch fit: q and r of greatest likelihood for the whole stream, which is then filtered: not",
            "causal, as the fit has seen the samples to come. It shows what there was to be found.",
        ]
    if on := sorted({_s(panel) for panel in panels if _is_on_grid(panel)}):
        off = sorted({_s(panel) for panel in panels} - set(on))
        none = f", and none at s = {', '.join(f'{s:g}' for s in off)}" if off else ""
        notes.append(f"The bank has a member at s = {', '.join(f'{s:g}' for s in on)}{none}.")
    starts = {
        float(np.max(row.estimator.signal_to_noise))
        for panel in panels
        for row in panel.rows.values()
        if isinstance(row.estimator, SageHusaKalman | InnovationMatchingKalman)
        and row.estimator.q is None
        and row.estimator.r is None
    }
    if starts:
        notes += [
            "Told neither, a filter that matches the size of its innovations keeps the q/r that it starts",
            f"from, {', '.join(f'{start:g}' for start in sorted(starts))}: "
            "their size tells the scale and not the ratio, so that it is right there alone.",
        ]
    return notes


def _is_on_grid(panel: Panel) -> bool:
    """Whether the stream's s is one that a bank tries."""
    banks = (row.estimator for row in panel.rows.values() if isinstance(row.estimator, KalmanBank))
    return any(bool(np.isclose(bank.ratios, _s(panel), rtol=1e-6, atol=0.0).any()) for bank in banks)


def _figure(groups: Mapping[str, Sequence[Panel]], found: Any) -> Any:
    """Ratio against s, a column for each length: all of it above, what lies near 1 below."""
    everything = [panel for own in groups.values() for panel in own]
    labels = dict.fromkeys(label for label, _ in _rows(everything, found) if label != ORACLE)
    with styled() as pyplot:
        width = len(groups)
        figure, axes = pyplot.subplots(
            2, width, figsize=(3.9 * width + 0.6, 6.4), squeeze=False, sharex=True, sharey="row"
        )
        for column, (title, panels) in zip(axes.T, groups.items(), strict=True):
            for index, label in enumerate(labels):
                rows = [(_s(panel), _at(found, panel, label, "mse_ratio")) for panel in panels]
                ends = ["median", "median_low", "median_high"]
                own = sorted((s, *row[ends]) for s, row in rows if row is not None)
                if not own:
                    continue
                s, median, low, high = np.array(own, dtype=np.float64).T
                reach = np.nan_to_num([median - low, high - median])
                for axis in column:
                    axis.errorbar(s, median, reach, elinewidth=0.8, label=label, **_style(index))
            column[0].set(title=title, xscale="log", yscale="log")
            column[0].yaxis.set_major_formatter("{x:g}")
            column[1].set(xscale="log", xlabel="s = q/r", ylim=NEAR)
        for axis, which in zip(axes[:, 0], ("", ", near 1"), strict=True):
            axis.set_ylabel(f"MSE over the oracle's{which}")
        handles: dict[str, Any] = {}
        for axis in axes[0]:
            handles |= {
                label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
            }
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)))
        pyplot.close(figure)
    return figure


def _style(index: int) -> dict[str, Any]:
    """Line and marker of a filter; beyond the colours there are, other dashes and hollow markers."""
    marked = line(index) | {"marker": MARKERS[index % len(MARKERS)], "markersize": 3.5}
    if index < len(COLOURS):
        return marked
    return marked | {"linestyle": line(index + 3)["linestyle"], "markerfacecolor": "white"}
