"""Bias and variance over the first samples, exact and simulated, and when debiasing does harm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from estimators import EMA, DebiasedEMA, Estimator, Kalman, LinearEstimator, Trait, matched
from experiments.agreement import agreement, closed_form
from experiments.figures import line, styled
from experiments.metrics import SETTLED, Measured
from experiments.runs import Outcome
from experiments.sensitivity import expected_rmse
from experiments.setup import Setup, setting
from experiments.startup_guesses import (
    FAR,
    GUESS,
    at_probe,
    break_even,
    equal_shares,
    excess_of_guess,
    figure_of_guesses,
    level_name,
)
from experiments.startup_report import DISTANT, FURTHER, FURTHEST, blocks_of_text
from experiments.streams import DEFAULT_S, Array, GradientRatio, is_plain_walk
from experiments.summaries import Column, Rows, long_table, summarise
from experiments.tables import latex

WIDTH = 256
"""Steps of the walk whose traces are formed at a time."""
NEVER = "never settles"


@dataclass(frozen=True)
class Parameters:
    """betas: to which every estimator is set; samples: from the first; probes: at which errors are tabled.

    streams: in a repetition, whose squared errors are averaged; tasks, log_sd: numbers of tasks with equal
    gradient norms, and the standard deviation of the log ratio of two of them.
    """

    betas: list[float] = field(default_factory=lambda: [0.9, 0.99, 0.999])
    samples: int = 500
    probes: list[int] = field(default_factory=lambda: [1, 5, 20, 100, 500])
    streams: int = 50
    tasks: list[int] = field(default_factory=lambda: [2, 4, 8])
    log_sd: float = 1.3

    def __post_init__(self) -> None:
        for name, holds, valid in (
            (
                "betas",
                _different(self.betas, lambda b: b > 0.0 and float(f"{b:g}") < 1.0),
                "a list of different numbers in (0, 1), to 6 digits",
            ),
            ("samples", self.samples >= 2, "an int >= 2"),
            (
                "probes",
                _different(self.probes, lambda t: 1 <= t <= self.samples),
                f"a list of different ints from 1 to {self.samples}, the samples",
            ),
            ("streams", self.streams >= 2, "an int >= 2"),
            ("tasks", _different(self.tasks, lambda k: k >= 2), "a list of different ints >= 2"),
            ("log_sd", 0.0 < self.log_sd <= 5.0, "in (0, 5]"),
        ):
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"experiment.{name}={value} is not valid; it must be {valid}")


def _different(values: Sequence[Any], inside: Any) -> bool:
    return (
        bool(values) and all(map(inside, values)) and len({f"{value:g}" for value in values}) == len(values)
    )


# --- closed forms -------------------------------------------------------------------------------------------


class Course(NamedTuple):
    """What a linear estimator's errors are, sample by sample from the first, in units of the stream."""

    bias: Array
    variance: Array

    @property
    def mse(self) -> Array:
        """Mean squared error."""
        return self.bias**2 + self.variance


def course(estimator: Estimator, level: float, r: float, q: float, steps: int) -> Course:
    """Exact errors on a walk of process variance q from ``level`` on, in noise of variance r, (steps,).

    The map of a linear estimator is the same on every stream: its replay on the level leaves the bias, the
    sum of its squared weights what it takes of the noise, and its replay on a step at each sample what it has
    yet to follow of the walk, whose first step comes before the first sample.
    """
    variance = r * np.asarray(estimator.filter(np.zeros(steps)).noise_gain)
    if q > 0.0:
        rows = np.arange(steps)[:, np.newaxis]
        wide = estimator.filter(np.zeros((steps, min(WIDTH, steps))))
        for first in range(0, steps, WIDTH):
            taken = (rows >= first + np.arange(wide.mean.shape[1])).astype(np.float64)
            behind = np.asarray(wide.replay(taken, 0.0)) - taken
            variance = variance + q * np.einsum("tj,tj->t", behind, behind)
    return Course(bias(estimator, level, steps), variance)


def bias(estimator: Estimator, level: float, steps: int) -> Array:
    """Mean error on a constant level, (steps,), by the map's replay, as in `course`."""
    start = np.nan_to_num(np.asarray(estimator.init(0.0).mean))
    return np.asarray(estimator.filter(np.zeros(steps)).replay(np.full(steps, level), start)) - level


class Exact(NamedTuple):
    """The errors of a linear estimator in standard deviations of the noise, and when they have settled."""

    bias: Array
    rmse: Array
    settled: float
    """NaN for an estimator that never settles."""
    since: float
    """First sample from which the error stays within 5 % above that; NaN where it is not in sight."""
    since_distant: float
    """The same, were the level 3 standard deviations of the noise from 0."""


def exact(estimator: LinearEstimator, stream: GradientRatio, samples: int, horizon: int) -> Exact:
    """Errors over the first samples, looked at up to a horizon for when they settle."""
    found = course(estimator, np.log(stream.median), stream.r, stream.s * stream.r, horizon)
    sd = np.sqrt(stream.r)
    rmse = np.sqrt(found.mse) / sd
    settled = since = since_distant = np.nan
    if estimator.steady_gain > 0.0:
        settled = expected_rmse(estimator, stream) / sd
        since = _since(rmse, settled)
        distant = found._replace(bias=bias(estimator, DISTANT * sd, horizon))
        since_distant = _since(np.sqrt(distant.mse) / sd, settled)
    return Exact(found.bias[:samples] / sd, rmse[:samples], settled, since, since_distant)


def _since(rmse: Array, settled: float) -> float:
    """First sample from which errors (horizon,) stay within 5 % above the settled one; NaN: not in sight."""
    outside = np.flatnonzero(rmse > (1.0 + SETTLED) * settled)
    last = int(outside[-1]) + 1 if outside.size else 0
    return last + 1.0 if last < rmse.size else np.nan


def set_to(estimator: Estimator, beta: float) -> Estimator:
    """The estimator at the noise gain of a beta; as it is where it never forgets, or has no such setting."""
    if getattr(estimator, "steady_gain", 0.0) == 0.0:
        return estimator
    if isinstance(estimator, EMA | DebiasedEMA):
        return replace(estimator, beta=beta)  # to the last bit
    try:
        return matched(estimator, EMA(beta))
    except TypeError:
        return estimator


# --- what is measured ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Estimators set to a beta, on a stream."""

    name: str
    beta: float
    stream: GradientRatio
    estimators: Mapping[str, Estimator]
    exact: Mapping[str, Exact]


def run(setup: Setup) -> Outcome:
    """Set every estimator to each beta; its errors on the walk for which that is right, and on a level."""
    setup.check_untuned("experiment=startup sets every beta itself")
    chosen: Parameters = setup.parameters
    stream = _checked(setup)
    walks = [_case(setup, beta, replace(stream, s=float(Kalman.from_beta(beta).q))) for beta in chosen.betas]
    levels = [_case(setup, beta, stream) for beta in chosen.betas]
    rows = [row for case in walks for row in _rows([case], setup)]
    rows += [*_rows(levels, setup), *equal_shares(setup)]
    table = long_table("startup", rows)
    summary = summarise(table)
    seen = summary.set_index(["stream", "estimator", "metric"]).sort_index()
    columns = [Column(at_probe("mse", probe), f"MSE at {probe}") for probe in chosen.probes]
    figures = {
        "startup": _figure(walks, levels, seen, chosen.probes),
        "break_even": figure_of_guesses(chosen),
    }
    text = "\n\n".join([*blocks_of_text(walks, levels, seen, setup), str(agreement(summary))]) + "\n"
    return Outcome(table, summary, text, figures, latex(summary, table, columns), columns)


def _checked(setup: Setup) -> GradientRatio:
    """The stream, as long as is looked at; ValueError for no level in white noise and for what is ignored."""
    stream, samples = setup.stream, setup.parameters.samples
    if not is_plain_walk(stream) or stream.r == 0.0:
        raise ValueError("experiment=startup needs a level in white noise; choose stream=gradient_ratio")
    if stream.s not in (0.0, DEFAULT_S):
        raise ValueError(
            f"stream.s={stream.s} has no effect in experiment=startup: each beta has a walk of its own; "
            "set stream.s=0"
        )
    if stream.steps not in (samples, GradientRatio().steps):
        raise ValueError(
            f"stream.steps={stream.steps} has no effect in experiment=startup; set experiment.samples"
        )
    if setup.burn_in != min(1000, stream.steps // 4):  # what it is where it is not given
        raise ValueError(
            f"burn_in={setup.burn_in} has no effect in experiment=startup, which is about the first samples; "
            "leave it at null"
        )
    for name, estimator in setup.estimators.items():
        if Trait.POSITIVE in estimator.traits:
            raise ValueError(f"estimators.{name} works on logarithms; leave it out: levels here may be < 0")
    return replace(stream, s=0.0, steps=samples)


def _case(setup: Setup, beta: float, stream: GradientRatio) -> Case:
    chosen: Parameters = setup.parameters
    horizon = max(chosen.samples, min(int(np.ceil(FURTHER / (1.0 - beta))), FURTHEST))
    every = {name: set_to(estimator, beta) for name, estimator in setup.estimators.items()}
    courses = {
        name: exact(estimator, stream, chosen.samples, horizon)
        for name, estimator in every.items()
        if Trait.LINEAR in estimator.traits and isinstance(estimator, LinearEstimator)
    }
    name = f"walk, beta {beta:g}" if stream.s else level_name(beta)
    return Case(name, beta, stream, every, courses)


def _rows(cases: Sequence[Case], setup: Setup) -> Iterator[Rows]:
    """Errors at the probes, of cases that share their stream, each repetition a mean over several streams."""
    chosen: Parameters = setup.parameters
    stream = cases[0].stream
    at, sd, level = np.array(chosen.probes) - 1, np.sqrt(stream.r), np.log(stream.median)
    found: dict[tuple[str, str], list[Array]] = {}
    guesses: dict[tuple[str, int], list[float]] = {}
    for repetition in range(setup.seeds):
        first = repetition * chosen.streams
        drawn = stream.draw(range(first, first + chosen.streams), setup.root_seed)
        truth: Any = drawn.level
        for case in cases:
            for name, estimator in case.estimators.items():
                error = (np.asarray(estimator.filter(drawn.samples).mean) - truth)[at] / sd
                moments = np.stack([error.mean(axis=1), (error**2).mean(axis=1)])
                found.setdefault((case.name, name), []).append(moments)
            for probe in _guessed(case, chosen):
                guess = level + sd * float(break_even(case.beta, probe))
                excess = excess_of_guess(case.beta, drawn.samples[:probe], truth[probe - 1], guess)
                guesses.setdefault((case.name, probe), []).append(excess / stream.r)
    for case in cases:
        for name, estimator in case.estimators.items():
            values = np.array(found[case.name, name])
            measured = list(_moments(values, chosen.probes, case.exact.get(name)))
            yield Rows(case.name, name, setting(estimator), measured)
        for probe in _guessed(case, chosen):
            metric, unit = at_probe("excess", probe), "noise sd^2"
            values = np.array(guesses[case.name, probe])
            told = [Measured(metric, unit, values), closed_form(metric, unit, 0.0, len(values))]
            yield Rows(case.name, GUESS, f"sample={probe}", told)


def _guessed(case: Case, chosen: Parameters) -> list[int]:
    """Probes at which a guess at the break-even is tried: on a level, and not absurdly far off."""
    return [p for p in chosen.probes if not case.stream.s and break_even(case.beta, p) <= FAR]


def _moments(values: Array, probes: Sequence[int], known: Exact | None) -> Iterator[Measured]:
    """Bias and mean squared error, (repetitions, 2, probes), each beside its closed form."""
    for index, probe in enumerate(probes):
        for row, (moment, unit) in enumerate((("bias", "noise sd"), ("mse", "noise sd^2"))):
            metric = at_probe(moment, probe)
            yield Measured(metric, unit, values[:, row, index])
            if known is not None:
                value = known.bias[probe - 1] if moment == "bias" else known.rmse[probe - 1] ** 2
                yield closed_form(metric, unit, float(value), len(values))
    if known is not None:
        missing = NEVER if np.isnan(known.settled) else "not in sight"
        yield Measured("settled_rmse", "noise sd", np.array([known.settled]), NEVER)
        yield Measured("settled_from", "samples", np.array([known.since]), missing)
        distant = np.array([known.since_distant])
        yield Measured(f"settled_from_at_{DISTANT:g}_sd", "samples", distant, missing)


# --- figures ------------------------------------------------------------------------------------------------


def _figure(walks: Sequence[Case], levels: Sequence[Case], seen: Any, probes: Sequence[int]) -> Any:
    """RMSE against samples, exact as lines and simulated as dots; rows by stream, columns by beta."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            2, len(walks), figsize=(2.6 * len(walks) + 0.6, 5.4), squeeze=False, sharex=True, sharey=True
        )
        for row, cases in enumerate((walks, levels)):
            for axis, case in zip(axes[row], cases, strict=True):
                for index, name in enumerate(case.estimators):
                    style = line(index)
                    found = [seen.loc[case.name, name, at_probe("mse", probe)] for probe in probes]
                    roots = [float(np.sqrt(one["mean"])) for one in found]
                    axis.loglog(probes, roots, "o", markersize=3.0, color=style["color"])
                    if name in case.exact:
                        rmse = case.exact[name].rmse
                        axis.plot(np.arange(1, rmse.size + 1), rmse, label=name, **style)
                kind = case.name.partition(",")[0]
                axis.set_title(f"β = {case.beta:g}, {kind}", fontsize=9)
            axes[row, 0].set_ylabel("RMSE (noise sd)")
        for axis in axes[-1]:
            axis.set_xlabel("sample")
        axes[0, 0].plot([], [], "o", markersize=3.0, color="#555555", label="simulated")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        pyplot.close(figure)
    return figure
