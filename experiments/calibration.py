"""Whether a stated interval can be believed, and whether a filter that states the wrong one is caught."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator, Kalman, diagnose
from estimators.diagnostics import Diagnosis
from experiments.cells import BLOCK, Condition
from experiments.figures import COLOURS, line, styled
from experiments.metrics import LEVEL, Measured, Trial, mean_over_time
from experiments.plan import Panel
from experiments.runs import Report
from experiments.streams import GradientRatio, Stream, is_plain_walk
from experiments.summaries import Column
from experiments.tables import aligned, counted, quantity, wrapped

LEVELS = (0.5, 0.9, LEVEL)
"""Of the intervals that are checked."""
REJECTING = 0.05
"""Level of each test, and of all that are flagged together."""
BY_RATIO = "likelihood_ratio_rejects"
"""Whether the likelihood ratio test alone tells."""
WRONG = 4.0
"""Factor of q or r from which a filter is to be caught."""
FITTED = "fitted_"
"""How metrics begin that are of the fitted filter, measured where the row states what the stream is."""
COLUMNS = (
    Column("coverage_95", "coverage"),
    Column("width_95", "width"),
    Column("nis", "NIS"),
    Column("nees", "NEES"),
    Column("flagged", "flagged"),
    Column(BY_RATIO, "likelihood ratio"),
    Column("most_powerful_rejects", "most powerful"),
)


@dataclass(frozen=True)
class Parameters:
    """simulated: streams from which the critical value of the most powerful test is taken."""

    simulated: int = 5000

    def __post_init__(self) -> None:
        if self.simulated < 100:
            raise ValueError(f"experiment.simulated={self.simulated} is not valid; it must be an int >= 100")


# --- what is measured ---------------------------------------------------------------------------------------


def measure(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Coverage, width, NIS and NEES after the burn-in; which tests reject, on all samples.

    Where a row states the q and r of its stream also those of the filter that is fitted to each repetition;
    where it states others also whether the most powerful test tells. ValueError without a known level or a
    stated interval.
    """
    trial, stream = condition.trial(estimator, repetitions), condition.stream
    if trial.drawn.level is None:
        raise ValueError(_NEEDS_A_LEVEL)
    found = list(_statements(trial))
    diagnosis = diagnose(trial.run, level=REJECTING)
    found += _rejections(diagnosis)
    true = told_the_truth(stream)
    if type(estimator) is Kalman and true is not None:
        if misstated(estimator, stream):
            stated, simulated = Kalman(q=estimator.q, r=estimator.r), condition.parameters.simulated
            critical = _critical(true, stated, stream.length(), condition.root_seed, simulated)
            rejects = _log_ratio(true, stated, trial.drawn.samples) > critical
            found.append(Measured("most_powerful_rejects", "share", rejects.astype(np.float64)))
        elif diagnosis.fit is not None:
            fitted = replace(trial, estimator=diagnosis.fit.estimator())
            own = [*_statements(fitted), *_rejections(diagnose(fitted.run, level=REJECTING))]
            # The likelihood ratio would compare the fit with itself.
            found += [replace(one, metric=FITTED + one.metric) for one in own if one.metric != BY_RATIO]
    return found


_NEEDS_A_LEVEL = "experiment=calibration needs streams whose level is known; choose stream=gradient_ratio"


def _statements(trial: Trial) -> Iterator[Measured]:
    """How often the intervals hold the level, how wide they are, and squared errors over stated variances."""
    run, truth = trial.run, trial.truth
    for level in LEVELS:
        bounds = run.interval(level)
        if bounds is None:
            raise ValueError(
                f"{type(trial.estimator).__name__} states no interval, so there is none to check"
            )
        low, high = map(np.asarray, bounds)
        held = ((low <= truth) & (truth <= high)).astype(np.float64)
        percent = f"{100 * level:.0f}"
        yield Measured(f"coverage_{percent}", "share", mean_over_time(trial.settled(held)))
        width = mean_over_time(trial.settled(high - low)) / trial.noise_sd
        yield Measured(f"width_{percent}", "noise sd", width)
    with np.errstate(divide="ignore", invalid="ignore"):
        innovations = trial.settled(np.asarray(run.innovation) ** 2 / np.asarray(run.innovation_variance))
        errors = trial.settled((np.asarray(run.mean) - truth) ** 2 / np.asarray(run.variance))
    nis, n = mean_over_time(innovations), np.isfinite(innovations).sum(axis=0)
    low, high = mean_square_bounds(n)
    within = np.where(n > 0, (low <= nis) & (nis <= high), np.nan)
    yield Measured("nis", "1", nis, "no innovations")
    yield Measured("nis_within", "share", within, "no innovations")
    yield Measured("nees", "1", mean_over_time(errors), "no variance")
    yield Measured("nees_at_end", "1", errors[-1], "no variance")


def _rejections(diagnosis: Diagnosis) -> Iterator[Measured]:
    """Whether the family flags, and whether each of its tests would by itself."""
    yield Measured("flagged", "share", 1.0 - np.asarray(diagnosis.consistent))
    for check in diagnosis.family:
        rejects = (np.asarray(check.p_value) < diagnosis.level).astype(np.float64)
        yield Measured(f"{check.name.lower().replace(' ', '_')}_rejects", "share", rejects)


def mean_square_bounds(n: Any) -> tuple[Any, Any]:
    """Bounds of the mean of n squared standard normals in 95 % of cases: chi-squared quantiles over n."""
    from scipy.special import gammaincinv

    half = 0.5 * np.asarray(n, dtype=np.float64)
    low, high = (gammaincinv(half, p) / half for p in (0.5 * (1.0 - LEVEL), 0.5 * (1.0 + LEVEL)))
    return low, high


# --- the most powerful test ---------------------------------------------------------------------------------


def told_the_truth(stream: Stream) -> Kalman | None:
    """The filter whose model the stream is, None where it is no plain random walk in noise."""
    if not is_plain_walk(stream) or stream.r == 0.0:
        return None
    return Kalman(q=stream.s * stream.r, r=stream.r)


def misstated(estimator: Estimator, stream: Stream) -> dict[str, float] | None:
    """Factors by which q and r are not the stream's, of those that are not; None where none can be said."""
    true = told_the_truth(stream)
    if type(estimator) is not Kalman or true is None:
        return None
    pairs = {name: (float(getattr(estimator, name)), float(getattr(true, name))) for name in ("q", "r")}
    return {
        name: stated / right if right > 0.0 else np.inf
        for name, (stated, right) in pairs.items()
        if not np.isclose(stated, right, rtol=1e-9, atol=0.0)
    }


@functools.cache
def _critical(true: Kalman, stated: Kalman, steps: int, root_seed: int, simulated: int) -> float:
    """Log-likelihood ratio of the truth to what is stated that 5 % of streams exceed that are as stated.

    No other test that errs as seldom when what is stated holds finds more (Neyman and Pearson 1933), of those
    that do not know where the level starts. It can be run in simulations alone, as it knows the truth.
    """
    key = zlib.crc32(b"most powerful")
    rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(root_seed, spawn_key=(key,))))
    ratios, width = [], max(1, BLOCK // steps)
    for first in range(0, simulated, width):
        walk, noise = rng.standard_normal((2, steps, min(width, simulated - first)))
        samples = np.sqrt(stated.q) * np.cumsum(walk, axis=0) + np.sqrt(stated.r) * noise
        ratios.append(_log_ratio(true, stated, samples))
    return float(np.quantile(np.concatenate(ratios), 1.0 - REJECTING))


def _log_ratio(true: Kalman, stated: Kalman, samples: Any) -> Any:
    return np.asarray(true.filter(samples).loglikelihood) - np.asarray(stated.filter(samples).loglikelihood)


# --- what is told -------------------------------------------------------------------------------------------


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Tables of coverage, width, NIS, NEES and flags, row by stream, and what each goal came to."""
    if not all(panel.setup.stream.has_truth for panel in panels):
        raise ValueError(_NEEDS_A_LEVEL)
    found = Found.of(panels, summary)
    first = panels[0]
    repetitions, steps = counted(first.repetitions, "repetition"), first.setup.stream.length()
    text = [
        f"calibration: {counted(len(panels), 'stream')} of {steps:,} samples, {repetitions} of each, "
        f"root seed {first.setup.root_seed}.\nIntervals, NIS and NEES after the first "
        f"{first.setup.burn_in:,} samples; tests on all, at a level of {100 * REJECTING:.0f} %.",
        "Share of levels inside the stated 95 % interval:",
        found.table("coverage_95"),
        "Mean width of that interval, in standard deviations of the noise:",
        found.table("width_95"),
        "Size of the innovations and of the errors against what is stated, 1 where that is right:",
        found.table("nis", "nis_within", "nees"),
        "Share of repetitions in which a wrong filter is noticed:",
        found.table("flagged", BY_RATIO, "most_powerful_rejects"),
        "\n".join(map(wrapped, _notes(found))),
    ]
    if goals := [wrapped(f"- {goal}", "  ") for goal in _goals(found)]:
        text += ["Goals, set for 1,000 samples; of several figures the worst:", "\n".join(goals)]
    figures = {"calibration": _figure(found)} if np.isfinite(summary["mean"]).any() else {}
    return Report("\n\n".join(text) + "\n", figures, COLUMNS)


@dataclass(frozen=True)
class Found:
    """What was measured, and what each row states, both by row and stream."""

    panels: Mapping[str, Panel]
    """By what tells their streams apart."""
    summary: Mapping[tuple[str, str, str], Any]
    """Of row, stream and metric."""
    wrong: Mapping[tuple[str, str], dict[str, float] | None]
    """Factors by which a row's q and r are not the stream's; None where that cannot be said."""
    words: Mapping[tuple[str, str], str]
    """What the filter is told of the stream."""

    @classmethod
    def of(cls, panels: Sequence[Panel], summary: pd.DataFrame) -> Found:
        """Put the summary in order, the fitted filters as rows of their own."""
        named = {panel.stream.removeprefix(f"{panel.setup.stream_name} "): panel for panel in panels}
        keys = ["stream", "estimator", "parameters"]
        grouped: Any = summary.groupby(keys, sort=False, observed=True)
        found: dict[tuple[str, str, str], Any] = {}
        wrong: dict[tuple[str, str], dict[str, float] | None] = {}
        words: dict[tuple[str, str], str] = {}
        for stream, panel in named.items():
            for (row, estimator), place in zip(panel.estimators().items(), panel.rows, strict=True):
                wrong[row, stream] = misstated(estimator, panel.setup.stream)
                words[row, stream] = _in_words(estimator, wrong[row, stream])
                for _, one in grouped.get_group((panel.stream, *place)).iterrows():
                    metric = one["metric"].removeprefix(FITTED)
                    name = row if metric == one["metric"] else f"{row} fitted"
                    words.setdefault((name, stream), "neither")
                    found[name, stream, metric] = {**one, "row": name, "at": stream}
        return cls(named, found, wrong, words)

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return list(dict.fromkeys(row for row, _ in self.words))

    def told(self, row: str) -> str:
        """What a row's filter knows of its stream, in words."""
        told = {words for (name, _), words in self.words.items() if name == row}
        return told.pop() if len(told) == 1 else "differs by stream"

    def table(self, *metrics: str) -> str:
        """Metrics row by stream, those that a row has."""
        several = len(metrics) > 1
        lines = [["row", "told", *["figure"] * several, *self.panels]]
        for row in self.rows:
            for metric in metrics:
                cells = [self.summary.get((row, stream, metric)) for stream in self.panels]
                if any(cell is not None for cell in cells):
                    figure = [_LABELS[metric]] if several else []
                    lines.append([row, self.told(row), *figure, *map(_cell, cells)])
        return aligned(lines, texts=2 + several)

    def known(self, places: Sequence[tuple[str, str]], metric: str) -> list[Any]:
        """What the summary has of a metric at some rows and streams, where it has a value."""
        ones = [self.summary.get((*place, metric)) for place in places]
        return [one for one in ones if one is not None and one["n"]]

    def where(self, holds: Callable[[dict[str, float]], bool]) -> list[tuple[str, str]]:
        """Rows and streams whose factors are known and so."""
        return [place for place, wrong in self.wrong.items() if wrong is not None and holds(wrong)]

    def wrong_by_much(self, what: str, least: float = 0.0, below: float = np.inf) -> list[tuple[str, str]]:
        """Rows and streams that take q, or r, and it alone, for 4 times too much or too little.

        Of streams whose s is in [least, below).
        """
        far = WRONG * (1.0 - 1e-9)
        places = self.where(lambda wrong: set(wrong) == {what} and not 1.0 / far < wrong[what] < far)
        return [place for place in places if least <= self.s(place[1]) < below]

    def s(self, stream: str) -> float:
        """q/r of a stream that is a random walk."""
        own = self.panels[stream].setup.stream
        return own.s if isinstance(own, GradientRatio) else np.nan


_LABELS = {
    "nis": "NIS",
    "nis_within": "NIS in bounds",
    "nees": "NEES",
    "flagged": "flagged",
    BY_RATIO: "likelihood ratio",
    "most_powerful_rejects": "most powerful",
}


def _in_words(estimator: Estimator, wrong: Mapping[str, float] | None) -> str:
    if wrong is None:
        has = [name for name in ("q", "r") if hasattr(estimator, name)]
        return f"{' and '.join(has)} as set" if has else "neither"
    told = [f"{name} / {1.0 / f:.4g}" if 0.0 < f < 1.0 else f"{name} x {f:.4g}" for name, f in wrong.items()]
    return ", ".join(told) or "q and r"


def _cell(one: Any) -> str:
    if one is None:
        return "-"
    absent = one["failed"] + one["missing"]
    if not one["n"]:
        return str(one["status"])
    return _told(one) + (f" ({absent} {one['status']})" if absent else "")


def _told(one: Any) -> str:
    return quantity(one["mean"], one["high"] - one["mean"])


def _notes(found: Found) -> Iterator[str]:
    panel = next(iter(found.panels.values()))
    n, innovations = panel.repetitions, panel.setup.stream.length() - panel.setup.burn_in
    none = 1.0 - 0.05 ** (1.0 / n)
    yield (
        f"± is half of a 95 % interval over the repetitions, n = {n:,}. A share of 1 of them stands for "
        f"{1.0 - none:.4f} of all or more, one of 0 for {none:.4f} or less, at the same confidence."
    )
    yield "Told: what a filter is told of its stream; r x 4 is told 4 times its r, and its very q."
    low, high = mean_square_bounds(innovations)
    yield (
        f"NIS in bounds: between {low:.4f} and {high:.4f}, as in 95 % of repetitions where all "
        f"{innovations:,} innovations are as stated."
    )
    yield from _at_the_end(found, n)
    for level in LEVELS[:-1]:
        metric = f"coverage_{100 * level:.0f}"
        shares = [one["mean"] for one in found.known(found.where(lambda wrong: not wrong), metric)]
        if shares:
            held = f"a share of {min(shares):.3f} to {max(shares):.3f} of the levels"
            yield f"The {100 * level:.0f} % interval of a filter that is told q and r holds {held}."
    yield (
        f"Flagged: by the tests of diagnose, which together may err in {100 * REJECTING:.0f} %; likelihood "
        "ratio: by that test alone; most powerful: by a test that knows the truth, and finds the most that "
        "any test of that level can."
    )


def _at_the_end(found: Found, n: int) -> Iterator[str]:
    low, high = mean_square_bounds(n)
    by_share: dict[str, list[str]] = {}
    for row in found.rows:
        ends = found.known([(row, stream) for stream in found.panels], "nees_at_end")
        held = sum(low <= one["mean"] <= high for one in ends)
        by_share.setdefault(f"{held} of {counted(len(ends), 'stream')}", []).extend([row] * bool(ends))
    told = "; ".join(f"on {share} for {', '.join(rows)}" for share, rows in by_share.items() if rows)
    if told:
        yield (
            f"NEES at the last sample, averaged over the repetitions, is to lie between {low:.4f} and "
            f"{high:.4f}; it does {told}."
        )


@dataclass(frozen=True)
class Goal:
    """A bound on the worst of a metric over some rows and streams; beside: for one from both sides."""

    what: str
    metric: str
    bound: float
    at_least: bool = False
    beside: float | None = None

    @property
    def asked(self) -> str:
        """The bound in words."""
        if self.beside is not None:
            return f"{self.bound:.3f} ± {self.beside:g}"
        return f"{self.bound:g} or {'more' if self.at_least else 'less'}"

    def excess(self, value: float) -> float:
        """How far a value is beyond the bound, negative within it."""
        if self.beside is not None:
            return abs(value - self.bound) - self.beside
        return self.bound - value if self.at_least else value - self.bound

    def judged(self, ones: Sequence[Any]) -> str:
        """A sentence on the worst of some figures, which says where chance could turn the verdict."""
        worst = max(ones, key=lambda one: self.excess(one["mean"]))
        excess = self.excess(worst["mean"])
        verdict = "met" if excess <= 1e-12 else "missed"
        if abs(excess) < worst["high"] - worst["mean"]:
            verdict += ", by less than its ±"
        where = f"{worst['row']}, {worst['at']}"
        return f"{self.what}: asked {self.asked}, found {_told(worst)} ({where}): {verdict}."


def _goals(found: Found) -> Iterator[str]:
    """A sentence on each goal that there are figures for."""
    right = found.where(lambda wrong: not wrong)
    goals = (
        (right, Goal("Coverage of 95 % where q and r are told", "coverage_95", LEVEL, beside=0.005)),
        (found.wrong_by_much("r"), Goal("r wrong by 4, flagged", "flagged", 0.99, True)),
        (found.wrong_by_much("q", 0.1), Goal("q wrong by 4, s from 0.1, flagged", "flagged", 0.99, True)),
        (
            found.wrong_by_much("q", 0.01, 0.1),
            Goal("q wrong by 4, s from 0.01 to 0.1, by likelihood ratio alone", BY_RATIO, 0.95, True),
        ),
        (right, Goal("Flagged where q and r are told", "flagged", REJECTING)),
    )
    for places, goal in goals:
        if ones := found.known(places, goal.metric):
            yield goal.judged(ones)
    for place in found.wrong_by_much("q", 0.0, 0.01):
        ours, most = (found.known([place], metric) for metric in ("flagged", "most_powerful_rejects"))
        if ours and most:
            yield (
                f"q wrong by 4, s below 0.01, no goal: flagged {_told(ours[0])}, by the most powerful test "
                f"{_told(most[0])} ({', '.join(place)})."
            )


_MARKERS = "osD^vPXd"


def _figure(found: Found) -> Any:
    """Coverage and share flagged by stream, for each row; hollow: what the most powerful test finds."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(8.2, 4.6))
        panels = (axes[0], "coverage_95", ""), (axes[1], "flagged", "most_powerful_rejects")
        for axis, metric, beside in panels:
            for index, row in enumerate(found.rows):
                style = {**line(index), "marker": _MARKERS[index % len(_MARKERS)], "markersize": 4.5}
                style["linewidth"] /= 1 + index // len(COLOURS)  # a colour that comes again is a thinner line
                mean, half = _series(found, row, metric)
                axis.errorbar(range(len(mean)), mean, half, label=row, **style)
                hollow = {"linestyle": "", "markerfacecolor": "none", "markersize": 8.0}
                axis.plot(_series(found, row, beside)[0], **{**style, **hollow})
            axis.set_xticks(range(len(found.panels)), list(found.panels))
        axes[0].axhline(LEVEL, color="#888888", linewidth=0.8)
        axes[1].axhline(REJECTING, color="#888888", linewidth=0.8)
        axes[0].set(ylabel="share of levels inside the 95 % interval")
        axes[1].set(ylabel="share flagged (hollow: most powerful test)", ylim=(-0.03, 1.03))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
        pyplot.close(figure)
    return figure


def _series(found: Found, row: str, metric: str) -> tuple[Any, Any]:
    """Mean of a metric by stream, and half of its interval, NaN where it was not measured."""
    ones = [found.summary.get((row, stream, metric)) for stream in found.panels]
    nothing = np.nan, np.nan
    pairs = [nothing if one is None else (one["mean"], one["high"] - one["mean"]) for one in ones]
    mean, half = np.array(pairs, dtype=np.float64).T
    return mean, half
