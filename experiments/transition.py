"""How a balanced weight gets from equal shares to its own when the warm-up ends, and what a floor leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from estimators import EMA, Estimator, matched
from estimators._parameters import FROM_0_TO_1, Range, one, whole
from estimators.shares import clipped
from experiments.agreement import closed_form
from experiments.cells import BLOCK
from experiments.figures import line, styled
from experiments.metrics import Measured, joined
from experiments.runs import Outcome
from experiments.setup import Setup, setting
from experiments.streams import Array, Domain, GradientRatio, Stream, is_plain_walk
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import latex
from experiments.transition_report import COLUMNS, LATE, NOISE, STARTS, arrival, course_name, text

EQUAL = 0.5
"""Weight of each of two tasks during the warm-up."""
FLOOR = Range("in [0, 1/2)", lambda v: (v >= 0) & (v < EQUAL))
MEMORY = 45
"""Effective windows after which nothing is left of the start: exp(-45) < 3e-20."""


@dataclass(frozen=True)
class Parameters:
    """raw: the large share after the jump, seen without noise; warmup, steps: before and after the jump.

    floor: of a weight before the two are renormalised; levels: weights to be reached; betas: of EMAs.
    """

    betas: list[float] = field(default_factory=lambda: [0.5, 0.9, 0.95, 0.99, 0.995, 0.999])
    levels: list[float] = field(default_factory=lambda: [0.9, 0.95, 0.99])
    raw: float = 0.998
    warmup: int = 100
    steps: int = 10_000
    floor: float = 0.05

    def __post_init__(self) -> None:
        ends = {"betas": 0.0, "levels": EQUAL}
        for name, low in ends.items():
            values = getattr(self, name)
            names = {f"{value:g}" for value in values}
            if not values or not all(low < value < 1.0 for value in values) or len(names) < len(values):
                valid = f"a list of different numbers in ({low:g}, 1)"
                raise ValueError(f"experiment.{name}={values} is not valid; it must be {valid}")
        for name, holds, valid in (
            ("raw", EQUAL < self.raw < 1.0, "in (1/2, 1)"),
            ("warmup", self.warmup >= 1, "an int >= 1"),
            ("steps", self.steps >= 2 * LATE, f"an int >= {2 * LATE}"),
            ("floor", 0.0 < self.floor < EQUAL, "in (0, 1/2)"),
        ):
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"experiment.{name}={value} is not valid; it must be {valid}")


# --- what others use ----------------------------------------------------------------------------------------


def shares(
    estimator: Estimator, raw: float = 0.998, warmup: int = 100, steps: int = 1000, floor: float = 0.0
) -> Array:
    """Weight of the large share at steps 1 to warmup + steps (index 0 is step 1), shape (warmup + steps,).

    During the warm-up the weight is 1/2, and the smoother is fed with that; then it is the smoother's mean of
    the raw share, and, where floor > 0, max(w, floor) of both weights over their sum. Raises ValueError for
    raw outside [0, 1], warmup < 0, steps < 1, and a floor outside [0, 1/2).
    """
    share, lowest = one("shares", "raw", raw, FROM_0_TO_1), one("shares", "floor", floor, FLOOR)
    before, after = whole("shares", "warmup", warmup, 0), whole("shares", "steps", steps, 1)
    smoothed = _smoothed(estimator, np.full(after, share), before)
    return _floored(smoothed, lowest) if lowest else smoothed


def steps_to(weights: Array, level: float, warmup: int = 100) -> float:
    """Steps after the jump until a weight, (warmup + steps,), first exceeds a level; NaN if it never does."""
    above = np.asarray(weights)[warmup:] > level
    return float(np.argmax(above)) + 1.0 if above.any() else np.nan


def _smoothed(estimator: Estimator, raw: Array, warmup: int) -> Array:
    """Weights before the floor, (warmup + steps, ...), of raw ones (steps, ...)."""
    fed = np.concatenate([np.full((warmup, *raw.shape[1:]), EQUAL), raw])
    weights = np.array(estimator.filter(fed).mean, dtype=np.float64)
    weights[:warmup] = EQUAL
    return weights


def _floored(large: Array, floor: float) -> Array:
    """Large shares of pairs, each pair by the floor and its renormalisation."""
    kept: Array = clipped(np.stack([large, 1.0 - large], axis=-1), floor)[..., 0]
    return kept


# --- what is measured ---------------------------------------------------------------------------------------


def run(setup: Setup) -> Outcome:
    """Match the estimators to the first one's noise gain, follow them over the jump, then EMAs over noise."""
    setup.check_untuned("experiment=transition matches by noise gain itself")
    chosen: Parameters = setup.parameters
    _check(setup.stream, chosen)
    every = alike(setup.estimators)
    rows = [
        Rows(
            course_name(fed, floor), name, setting(estimator), list(_arrivals(estimator, chosen, fed, floor))
        )
        for fed in STARTS
        for floor in (0.0, chosen.floor)
        for name, (estimator, _) in every.items()
    ]
    betas = {f"ema@{beta:g}": EMA(beta, initial=EQUAL) for beta in chosen.betas}
    rows += [
        Rows("no noise", name, setting(ema), list(_settling(ema, chosen))) for name, ema in betas.items()
    ]
    noisy = _noisy(betas, setup)
    rows += [Rows(NOISE, name, setting(betas[name]), measured) for name, measured in noisy.items()]
    table = long_table("transition", rows)
    summary = summarise(table)
    figures = {"transition": _figure(every, chosen), "betas": _figure_of_betas(betas, setup)}
    noise = table["stream"] == NOISE
    written = latex(summary[summary["stream"] == NOISE], table[noise], COLUMNS)
    return Outcome(table, summary, text(summary, every, setup), figures, written, COLUMNS)


def _check(stream: Stream, chosen: Parameters) -> None:
    if not isinstance(stream, GradientRatio) or stream.domain is not Domain.weight:
        raise ValueError("experiment=transition smooths weights; choose stream=gradient_ratio, domain=weight")
    if stream.steps != chosen.steps:
        raise ValueError(
            f"stream.steps={stream.steps} is not valid; it must be experiment.steps={chosen.steps}"
        )
    if stream.may_have_gaps:
        raise ValueError(
            f"stream.gap_rate={stream.gap_rate} is not valid; it must be 0: weights have no gaps"
        )


def alike(estimators: Mapping[str, Estimator]) -> dict[str, tuple[Estimator, bool]]:
    """Each estimator at the first one's noise gain, and whether it is: those without one are as given."""
    (first, given), *others = estimators.items()
    if not hasattr(given, "noise_gain"):
        raise ValueError(
            f"estimators.{first} has no noise gain to match; name one first that has, such as ema"
        )
    found = {first: (given, True)}
    for name, estimator in others:
        try:
            found[name] = matched(estimator, given), True
        except TypeError:
            found[name] = estimator, False
        except ValueError as error:
            raise ValueError(
                f"estimators.{name}: no setting matches {given} by noise gain ({error})"
            ) from error
    return found


def _arrivals(estimator: Estimator, chosen: Parameters, fed: bool, floor: float) -> Iterator[Measured]:
    """Steps until each level is exceeded, and the weight after the last step."""
    warmup = chosen.warmup if fed else 0
    weights = shares(estimator, chosen.raw, warmup, chosen.steps, floor)
    limit = _limit(chosen.raw, floor)
    for level in chosen.levels:
        status = "never" if level >= limit else f"> {chosen.steps}"
        yield _one(arrival(level), "steps", steps_to(weights, level, warmup), status)
    yield _one("last_weight", "share", weights[-1])


def _limit(raw: float, floor: float) -> float:
    """Weight that a settled smoother has."""
    return float(_floored(np.array([raw]), floor)[0]) if floor else raw


def _one(metric: str, unit: str, value: float, missing: str = "") -> Measured:
    return Measured(metric, unit, np.array([value]), missing)


def _settling(ema: EMA, chosen: Parameters) -> Iterator[Measured]:
    """Steps from equal shares until the floor binds, and the weight that is left when all is settled."""
    settled = int(np.ceil(MEMORY * float(ema.effective_window)))
    weights = shares(ema, chosen.raw, 0, settled)
    never = "never"
    binds = steps_to(weights, 1.0 - chosen.floor, 0)
    yield _one("binds_after", "steps", binds, never)
    yield _one("binds_after_expected", "steps", binding(float(ema.beta), chosen.raw, chosen.floor), never)
    yield _one("final_unfloored", "share", weights[-1])
    yield _one("final_weight", "share", float(_floored(weights[-1:], chosen.floor)[0]))


def binding(beta: float, raw: float, floor: float) -> float:
    """Steps until an EMA that starts at equal shares leaves the small one below the floor; NaN for never.

    The small share is 1 - raw + (raw - 1/2) beta^n.
    """
    small = 1.0 - raw
    if small >= floor:
        return np.nan
    return float(np.floor(np.log((floor - small) / (EQUAL - small)) / np.log(beta)) + 1.0)


def _noisy(betas: Mapping[str, EMA], setup: Setup) -> dict[str, list[Measured]]:
    """Measurements of each EMA on the same noisy raw weights, over the repetitions."""
    width = max(1, BLOCK // setup.parameters.steps)
    blocks = [range(first, min(first + width, setup.seeds)) for first in range(0, setup.seeds, width)]
    found: dict[str, list[list[Measured]]] = {name: [] for name in betas}
    expected = _expected_raw(setup.stream)
    for block in blocks:
        raw = _raw(setup, block)
        for name, ema in betas.items():
            found[name].append(list(_in_noise(ema, raw, setup.parameters, expected)))
    return {name: joined(parts) for name, parts in found.items()}


def _raw(setup: Setup, repetitions: Sequence[int]) -> Array:
    """Raw large shares, (steps, n): what the smaller gradient's task would get."""
    large: Array = 1.0 - setup.stream.draw(repetitions, setup.root_seed, "evaluate").samples
    return large


def _in_noise(ema: EMA, raw: Array, chosen: Parameters, expected: float) -> Iterator[Measured]:
    weights = _smoothed(ema, raw, chosen.warmup)[chosen.warmup :]
    first = chosen.steps - chosen.steps // LATE
    late = weights[first:]
    floored = _floored(late, chosen.floor)
    below = 1.0 - weights < chosen.floor
    after = np.where(below.any(axis=0), np.argmax(below, axis=0) + 1.0, np.nan)
    yield Measured("binds_after", "steps", after, "never")
    yield Measured("binds_late", "share of steps", below[first:].mean(axis=0))
    yield Measured("mean_unfloored", "share", late.mean(axis=0))
    if np.isfinite(expected):
        left = float(ema.beta) ** np.arange(first + 1.0, chosen.steps + 1.0)
        mean = float((EQUAL * left + expected * (1.0 - left)).mean())
        yield closed_form("mean_unfloored", "share", mean, raw.shape[1])
    yield Measured("mean_floored", "share", floored.mean(axis=0))
    yield Measured("sd_unfloored", "share", late.std(axis=0))
    yield Measured("sd_floored", "share", floored.std(axis=0))


def _expected_raw(stream: Stream) -> float:
    """Mean of the raw large share; NaN where the stream is no constant level in Gaussian noise."""
    plain = isinstance(stream, GradientRatio) and is_plain_walk(replace(stream, domain=Domain.log_ratio))
    if not plain or stream.s or np.isfinite(stream.degrees_of_freedom):  # type: ignore[attr-defined]
        return np.nan
    return 1.0 - Domain.weight.moments(stream.median, stream.r)[0]  # type: ignore[attr-defined]


# --- figures ------------------------------------------------------------------------------------------------


def _figure(every: Mapping[str, tuple[Estimator, bool]], chosen: Parameters) -> Any:
    """Weight against steps after the jump, by smoother; rows by floor, columns by start."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 5.6), sharex=True, sharey=True)
        for row, floor in enumerate((0.0, chosen.floor)):
            for column, (fed, start) in enumerate(STARTS.items()):
                axis = axes[row, column]
                warmup = chosen.warmup if fed else 0
                for index, (name, (estimator, same)) in enumerate(every.items()):
                    weights = shares(estimator, chosen.raw, warmup, chosen.steps, floor)[warmup:]
                    label = name + "*" * (not same)
                    axis.semilogx(np.arange(1, len(weights) + 1), weights, label=label, **line(index))
                for level in chosen.levels:
                    axis.axhline(level, color="#999999", linewidth=0.7, zorder=1)
                axis.set_title(f"{start}, {f'floor {floor:g}' if floor else 'no floor'}", fontsize=9)
            axes[row, 0].set_ylabel("weight of the large share")
        for axis in axes[1]:
            axis.set_xlabel("steps after the jump")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        pyplot.close(figure)
    return figure


def _figure_of_betas(betas: Mapping[str, EMA], setup: Setup) -> Any:
    """Weight against steps after the jump in the first noisy repetition, by beta and floor."""
    chosen: Parameters = setup.parameters
    raw = _raw(setup, range(1))
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(7.2, 3.4), sharex=True, sharey=True)
        for index, (name, ema) in enumerate(betas.items()):
            weights = _smoothed(ema, raw, chosen.warmup)[chosen.warmup :, 0]
            steps = np.arange(1, len(weights) + 1)
            label = f"β = {name.partition('@')[2]}"
            axes[0].semilogx(steps, weights, label=label, **line(index))
            axes[1].semilogx(steps, _floored(weights, chosen.floor), **line(index))
        for axis, title in zip(axes, ("no floor", f"floor {chosen.floor:g}"), strict=True):
            axis.set(title=title, xlabel="steps after the jump")
        axes[0].set_ylabel("weight of the large share")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        pyplot.close(figure)
    return figure
