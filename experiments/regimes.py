"""What happens when the world changes, and what insurance against that costs while nothing does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator
from estimators.resetting import ResettingKalman
from estimators.robust import RobustKalman
from experiments.cells import Condition
from experiments.figures import COLOURS, line, styled
from experiments.metrics import Measured, mean_over_time
from experiments.plan import Panel
from experiments.runs import Report
from experiments.series import COLUMNS as SERIES
from experiments.streams import Array, RegimeChange
from experiments.summaries import Column
from experiments.tables import aligned, counted, quantity

AFTER = 100
"""Samples that count as those right after the change, its own among them."""
NEAR, SOON = 2.0, 10
"""Standard deviations of the noise within which an estimate has recovered, and samples in which it should."""
PRICE, GAIN, SHARE, ALARMS = 1.03, 3.0, 0.95, 1.0
"""Goals: most error without a change, least gain on outliers, least share of streams recovered soon, and most
false alarms in 10,000 samples."""
COLUMNS = (
    Column("mse_before", "MSE before", better="less"),
    Column("mse_after", f"MSE in {AFTER}", better="less"),
    Column("mse_rest", "MSE of the rest", better="less"),
    Column("recovery", "recovery", better="less"),
    Column("false_alarms", "false alarms"),
)
SIDE = 5
"""Regimes that stand side by side in a table."""
DRAWN = 6
"""Regimes in the figure: those on which the estimators differ most."""
SHOWN = slice(-10, 60)
"""Samples in the figure, from the change on."""

MARKS = {
    index: {"marker": marker, "markevery": 10, "markersize": 3.0} for index, marker in ((5, "o"), (6, "^"))
}
"""What tells further lines from the first five, whose dashes in grey are much the same."""


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has: its sweep says which regimes and which settings."""


def measure(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Squared errors before, right after and long after the change; samples to recover; false alarms.

    False alarms are restarts between the burn-in and the change, or the stream's end where nothing changes.
    """
    stream, start = changing(condition), condition.burn_in
    trial = condition.trial(estimator, repetitions)
    error = np.asarray(trial.run.mean) - trial.truth
    periods = {
        "mse": slice(start, None),
        "mse_before": slice(start, stream.at),
        "mse_after": slice(stream.at, stream.at + AFTER),
        "mse_rest": slice(stream.at + AFTER, None),
    }
    found = [
        Measured(name, f"({trial.unit})^2", mean_over_time(error[period] ** 2), "no samples")
        for name, period in periods.items()
    ]
    near = np.abs(error[stream.at :]) <= NEAR * trial.noise_sd
    waited: Array = np.where(near.any(axis=0), 1.0 + np.argmax(near, axis=0), np.nan)
    found.append(Measured("recovery", "samples", waited, "never"))
    found.append(Measured(f"within_{SOON}", "share", np.where(waited <= SOON, 1.0, 0.0)))
    if isinstance(estimator, ResettingKalman):
        restarted = np.asarray(trial.run.gain)[_watched(condition)] == 1.0
        rate = mean_over_time(1e4 * restarted)
        found.append(Measured("false_alarms", "per 10,000 samples", rate))
    return found


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Errors over those of the first estimator, regime by regime; price and recovery; each goal."""
    streams = [changing(panel.condition) for panel in panels]
    found, setup = Findings(panels, summary), panels[0].setup
    first, n = next(iter(found.labels)), panels[0].repetitions
    goals = "\n".join(f"- {goal}" for goal in found.goals())
    repetitions = f"{n:,} stream{'' if n == 1 else 's'} of {streams[0].steps:,} samples each"
    change = f"The change is at sample {streams[0].at:,}"
    blocks = [
        f"regimes: {len(panels)} of them, {repetitions}, root seed {setup.root_seed}.\n"
        f"{change}; errors before it count after the first {setup.burn_in:,}.",
        f"Squared error in the {AFTER} samples from the change on:",
        *(aligned(found.errors(side), texts=1) for side in found.sides),
        f"First row: MSE over r, the noise variance before the change. Others: MSE over that of {first}, a\n"
        "ratio of means over the same streams: a mean of ratios would hang on the few streams where the\n"
        "first errs least. ± is half of a 95 % interval. Filters that are told q and r are told those\n"
        "before the change.",
        "What insurance costs, and what it does:",
        aligned(found.insurance(), texts=1),
        f"Price: MSE over that of {first} where nothing changes, all samples after the burn-in. Under a\n"
        f"shift: samples until the estimate first is within {NEAR:g} noise sd of the level, median and its\n"
        f"95 % interval, and the share of streams on which it is within {SOON} samples. All or none of\n"
        f"{n:,} streams leave {100.0 * (1.0 - 0.05 ** (1.0 / n)):.2g} % for the others, by a 95 % bound.",
        "\n".join(found.alarms()),
        f"Goals:\n\n{goals}" if goals else "",
        "Errors before the change and long after it are in summary.csv and summary.tex.",
    ]
    text, shown = "\n\n".join(block for block in blocks if block) + "\n", _shown(found)
    return Report(text, {"recovery": _figure(shown)} if shown else {}, COLUMNS, _series(shown, n))


def changing(condition: Condition) -> RegimeChange:
    """The stream of a condition; ValueError for one without a change after the burn-in, or a known level."""
    stream = condition.stream
    if not isinstance(stream, RegimeChange):
        raise ValueError(
            "experiment=regimes needs a stream that changes, and whose level is known; "
            "choose stream=regime_change"
        )
    if not condition.burn_in < stream.at < stream.steps:
        raise ValueError(
            f"stream.at={stream.at} is not valid; experiment=regimes needs it after the burn-in of "
            f"{condition.burn_in} samples and before stream.steps={stream.steps}"
        )
    return stream


def _watched(condition: Condition) -> slice:
    """Samples at which a restart is a false alarm; at the first one every filter starts."""
    stream = changing(condition)
    return slice(max(condition.burn_in, 1), stream.at if stream.changes else stream.steps)


def regime(stream: RegimeChange) -> str:
    """In words what is unlike a random walk in Gaussian noise in which nothing changes."""
    parts = []
    if stream.outlier_rate:
        parts.append(f"{100.0 * stream.outlier_rate:g} % outliers")
    if np.isfinite(stream.degrees_of_freedom):
        parts.append(f"t{stream.degrees_of_freedom:g} noise")
    if stream.shift:
        parts.append(f"{stream.shift:g} sd shift")
    for name, factor in (("r", stream.r_factor), ("s", stream.s_factor)):
        if factor != 1.0:
            parts.append(f"{name} / {1.0 / factor:.4g}" if 0.0 < factor < 1.0 else f"{name} x {factor:.4g}")
    if stream.gap:
        parts.append(f"gap of {stream.gap}")
    return ", ".join(parts) or "no change"


@dataclass(frozen=True)
class Findings:
    """A summary as it is read: by regime and by setting, each under a short name."""

    panels: Sequence[Panel]
    summary: pd.DataFrame

    @cached_property
    def names(self) -> dict[str, str]:
        """Regimes by stream; the stream itself where two would be called the same."""
        short = {panel.stream: regime(changing(panel.condition)) for panel in self.panels}
        alike = Counter(short.values())
        return {stream: name if alike[name] == 1 else stream for stream, name in short.items()}

    @cached_property
    def keys(self) -> dict[str, dict[str, tuple[str, str]]]:
        """By stream, the settings under their estimators' names and what tells those of one name apart."""
        return {panel.stream: dict(_labelled(panel)) for panel in self.panels}

    @property
    def labels(self) -> list[str]:
        """Names of the settings, each once."""
        return list(dict.fromkeys(label for labels in self.keys.values() for label in labels))

    @property
    def sides(self) -> Iterator[Sequence[Panel]]:
        """Regimes, as many at a time as stand side by side."""
        for start in range(0, len(self.panels), SIDE):
            yield self.panels[start : start + SIDE]

    @cached_property
    def _rows(self) -> dict[tuple[str, ...], Any]:
        keys = ("stream", "estimator", "parameters", "metric")
        return {tuple(str(row[key]) for key in keys): row for row in self.summary.to_dict("records")}

    def row(self, panel: Panel, label: str, metric: str) -> Any:
        """The row of the summary, None where nothing was measured."""
        own = self._rows.get((panel.stream, *self.keys[panel.stream].get(label, ()), metric))
        return own if own and own["n"] else None

    def ratio(self, panel: Panel, label: str, metric: str) -> tuple[float, float]:
        """Mean of a setting over that of the panel's first, and half of its 95 % interval.

        NaN where not all streams have both. By the delta method: R = x / y has the variance of x - R y over y
        squared, which those of x, y and x - y give: (1 - R) Vx + R (R - 1) Vy + R Vd.
        """
        own, first = (self.row(panel, name, metric) for name in (label, next(iter(self.keys[panel.stream]))))
        if own is None or first is None or not own["pairs"] == own["n"] == first["n"]:
            return np.nan, np.nan
        x, y = ((row["high"] - row["mean"]) ** 2 for row in (own, first))
        d = (own["difference_high"] - own["difference"]) ** 2
        value = own["mean"] / first["mean"]
        variance = max((1.0 - value) * x + value * (value - 1.0) * y + value * d, 0.0)
        return value, float(np.sqrt(variance) / first["mean"])

    def errors(self, side: Sequence[Panel]) -> list[list[str]]:
        """Error right after the change, by setting and regime."""
        lines = [["estimator", *(self.names[panel.stream] for panel in side)]]
        for index, label in enumerate(self.labels):
            if index == 0:
                rows = [self.row(panel, label, "mse_after") for panel in side]
                cells = [_mean(row, 1.0 / p.setup.noise_variance) for p, row in zip(side, rows, strict=True)]
                lines.append([f"{label}, MSE / r", *cells])
            else:
                lines.append([label, *(_said(*self.ratio(panel, label, "mse_after")) for panel in side)])
        return lines

    @property
    def quiet(self) -> Panel | None:
        """The regime in which nothing changes and the noise is Gaussian."""
        return next(
            (panel for panel in self.panels if regime(changing(panel.condition)) == "no change"), None
        )

    @property
    def struck(self) -> Panel | None:
        """The first in which nothing changes and some of the samples are outliers."""
        for panel in self.panels:
            stream = changing(panel.condition)
            if stream.outlier_rate and not stream.changes:
                return panel
        return None

    @property
    def shifted(self) -> list[Panel]:
        """Those with the largest shift."""
        shifts = [abs(changing(panel.condition).shift) for panel in self.panels]
        return [p for p, shift in zip(self.panels, shifts, strict=True) if shift == max(shifts) > 0.0]

    def insurance(self) -> list[list[str]]:
        """Price and recovery, by setting."""
        quiet = [self.quiet] if self.quiet else []
        lines = [["estimator", *["price" for _ in quiet]]]
        for panel in self.shifted:
            lines[0] += [self.names[panel.stream], f"within {SOON}"]
        for label in self.labels:
            cells = [_said(*self.ratio(panel, label, "mse")) for panel in quiet]
            for panel in self.shifted:
                cells.append(_samples(self.row(panel, label, "recovery")))
                cells.append(_percent(self.row(panel, label, f"within_{SOON}")))
            lines.append([label, *cells])
        return lines

    def alarms(self) -> Iterator[str]:
        """Sentences on false alarms, one for each setting that can give any."""
        for label in self.labels:
            said = [f"{self._alarms(p, label)} ({self.names[p.stream]})" for p in self._alarming(label)]
            if said:
                yield f"False alarms of {label} in 10,000 samples: {', '.join(said)}."

    def _alarming(self, label: str) -> list[Panel]:
        watched = [panel for panel in (self.quiet, self.struck) if panel]
        return [panel for panel in watched if self.row(panel, label, "false_alarms") is not None]

    def _alarms(self, panel: Panel, label: str) -> str:
        """False alarms in 10,000 samples; of none the 95 % bound, by exp(-rate samples) = 0.05."""
        row, watched = self.row(panel, label, "false_alarms"), _watched(panel.condition)
        if row["mean"] > 0.0:
            return _mean(row)
        return f"0, at most {-1e4 * np.log(0.05) / (row['n'] * (watched.stop - watched.start)):.2g}"

    def goals(self) -> Iterator[str]:
        """Each goal with its figure, and whether that reaches it."""
        robust, resetting = (self._of(kind, "huber") for kind in (RobustKalman, ResettingKalman))
        first = self.labels[0]
        if robust and self.quiet:
            value, half = self.ratio(self.quiet, robust, "mse")
            said = f"no change: {robust} has {_said(value, half)} times the MSE of {first}"
            yield f"{said}. Goal: at most {PRICE:g}, {_reached(value <= PRICE)}."
        if robust and self.struck:
            value, half = self.ratio(self.struck, robust, "mse")
            said = f"{self.names[self.struck.stream]} at {changing(self.struck.condition).outlier_scale:g} sd"
            said = f"{said}: {first} has {_said(1.0 / value, half / value**2)} times the MSE of {robust}"
            yield f"{said}. Goal: at least {GAIN:g}, {_reached(1.0 / value >= GAIN)}."
        for panel in self.shifted if resetting else ():
            soon, recovery = (self.row(panel, resetting, m) for m in (f"within_{SOON}", "recovery"))
            share = soon["mean"] if soon else np.nan
            said = f"{self.names[panel.stream]}: {resetting} is within {NEAR:g} noise sd of the level"
            said = f"{said} after {_samples(recovery)} samples, on {_percent(soon)} of streams after {SOON}"
            yield f"{said}. Goal: at least {100.0 * SHARE:g} %, {_reached(share >= SHARE)}."
        for panel in self._alarming(resetting) if resetting else ():
            value = self.row(panel, resetting, "false_alarms")["mean"]
            said = f"{self.names[panel.stream]}: false alarms of {resetting} in 10,000 samples"
            said = f"{said}: {self._alarms(panel, resetting)}"
            yield f"{said}. Goal: at most {ALARMS:g}, {_reached(value <= ALARMS)}."

    def _of(self, kind: type, loss: str) -> str:
        """The first setting of a kind with a loss, empty where there is none."""
        panel = self.panels[0]
        for label, key in self.keys[panel.stream].items():
            estimator = panel.rows[key].estimator
            if type(estimator) is kind and getattr(estimator, "loss", "") == loss:
                return label
        return ""

    @property
    def telling(self) -> list[Panel]:
        """The regimes on which the errors right after the change differ most, in their order."""
        spread = {}
        for panel in self.panels:
            rows = [self.row(panel, label, "mse_after") for label in self.labels]
            means = [row["mean"] for row in rows if row is not None and row["mean"] > 0.0]
            spread[panel.stream] = max(means) / min(means) if means else 0.0
        most = sorted(spread, key=lambda stream: -spread[stream])[:DRAWN]
        return [panel for panel in self.panels if panel.stream in most]


def _labelled(panel: Panel) -> Iterator[tuple[str, tuple[str, str]]]:
    """The settings of a panel, under their estimators' names and the parameters that set them apart."""
    for name, parameters in panel.rows:
        namesakes = [set(other.split()) for own, other in panel.rows if own == name]
        shared = set.intersection(*namesakes)
        own = [part for part in parameters.split() if part not in shared]
        yield " ".join([name, *own]), (name, parameters)


def _said(value: float, half: float) -> str:
    return quantity(value, half) if np.isfinite(value) else "-"


def _mean(row: Any, scale: float = 1.0) -> str:
    return "-" if row is None else _said(scale * row["mean"], scale * (row["high"] - row["mean"]))


def _percent(row: Any) -> str:
    return "-" if row is None else f"{_mean(row, 100.0)} %"


def _samples(row: Any) -> str:
    if row is None:
        return "-"
    low, high = row["median_low"], row["median_high"]
    interval = f" ({low:.0f} to {high:.0f})" if np.isfinite(low) else ""
    never = f", {row['missing']} never" if row["missing"] else ""
    return f"{row['median']:.4g}{interval}{never}"


def _reached(holds: bool) -> str:
    return "reached" if holds else "not reached"


def _shown(found: Findings) -> dict[str, tuple[Array, dict[str, Array]]]:
    """On telling regimes, the median absolute error around the change of the first setting of each estimator.

    Nothing where cells failed that it would show, as the table says.
    """
    panels, firsts = found.telling, dict[str, str]()
    for label, (name, _) in found.keys[panels[0].stream].items():
        firsts.setdefault(name, label)
    labels = list(firsts.values())[: len(COLOURS)]  # further lines would look like these
    shown = {}
    try:
        for panel in panels:
            time, errors = _median_errors(panel, [found.keys[panel.stream][label] for label in labels])
            shown[found.names[panel.stream]] = time, dict(zip(labels, errors, strict=True))
    except (ValueError, ArithmeticError):
        return {}
    return shown


def _series(shown: Mapping[str, tuple[Array, Mapping[str, Array]]], n: int) -> dict[str, pd.DataFrame]:
    unit, of = "median |error|, noise sd", f"{counted(n, 'stream')} in the median, counted from the change"
    series = {}
    for name, (time, errors) in shown.items():
        parts = [pd.DataFrame({"time": time, "what": what, "value": error}) for what, error in errors.items()]
        frame = pd.concat(parts, ignore_index=True).assign(low=np.nan, high=np.nan, unit=unit, of=of)
        series[name.replace("/", "over")] = frame[SERIES]  # it names a file
    return series


def _figure(shown: Mapping[str, tuple[Array, Mapping[str, Array]]]) -> Any:
    with styled() as pyplot:
        width = min(3, len(shown))
        height = -(-len(shown) // width)
        size = 2.8 * width + 0.6, 2.4 * height + 0.7
        figure, axes = pyplot.subplots(height, width, figsize=size, squeeze=False, sharex=True, sharey=True)
        for axis, (name, (time, errors)) in zip(axes.flat, shown.items(), strict=False):
            for index, (label, error) in enumerate(errors.items()):
                style = {**line(index), **MARKS.get(index, {})}
                axis.plot(time, error, label=label, **style)
            axis.set_title(name, fontsize=9)
        first = axes[0][0]
        first.set_yscale("log")
        first.yaxis.set_major_locator(pyplot.matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        first.yaxis.set_major_formatter("{x:g}")
        first.yaxis.set_minor_formatter("")
        for axis in list(axes.flat)[len(shown) :]:
            axis.set_axis_off()
        for axis in axes[-1]:
            axis.set_xlabel("samples since the change")
        for axis in axes[:, 0]:
            axis.set_ylabel("median |error| (noise sd)")
        handles, names = first.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
        pyplot.close(figure)
    return figure


def _median_errors(panel: Panel, keys: Sequence[tuple[str, str]]) -> tuple[Array, list[Array]]:
    """Samples since the change, and the median absolute error of each setting there, in noise sd."""
    stream = changing(panel.condition)
    time = np.arange(stream.steps, dtype=np.float64) - stream.at
    rows = (time >= SHOWN.start) & (time < SHOWN.stop)
    sizes: list[list[Array]] = [[] for _ in keys]
    for block in panel.condition.blocks(panel.repetitions):
        for own, key in zip(sizes, keys, strict=True):
            trial = panel.condition.trial(panel.rows[key].estimator, block)
            own.append(np.abs(np.asarray(trial.run.mean)[rows] - trial.truth[rows]) / trial.noise_sd)
    return time[rows], [np.asarray(np.median(np.concatenate(own, axis=1), axis=1)) for own in sizes]
