"""What is measured of an estimator on a stream, one value per repetition and metric."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators import Estimator, FilterResult, Trait
from experiments.streams import Array, Realisations

LEVEL = 0.95
"""Of every stated interval that is checked for coverage."""
RAMP, STEP = 0.01, 8.0
"""Slope per sample and height of the test signals, in standard deviations of the noise."""
SETTLED = 0.05
"""Share of the step within which the error of a settled estimate stays."""


@dataclass(frozen=True)
class Measured:
    """One metric over repetitions: values (n,), NaN where ``status`` says why there is none."""

    metric: str
    unit: str
    values: Array
    missing: str = ""

    @property
    def status(self) -> list[str]:
        """``ok``, or why there is no value, per repetition."""
        return ["ok" if np.isfinite(value) else self.missing or "undefined" for value in self.values]


@dataclass(frozen=True)
class Trial:
    """An estimator on some repetitions of a stream, with what metrics derive from it, each computed once."""

    estimator: Estimator
    drawn: Realisations
    burn_in: int
    noise_sd: float
    unit: str

    @cached_property
    def run(self) -> FilterResult:
        """The estimator on the stream itself."""
        return self.estimator.filter(self.drawn.samples)

    @cached_property
    def truth(self) -> Array:
        """The level, (T, n)."""
        if self.drawn.level is None:
            raise ValueError("the level of this stream is not known")
        return self.drawn.level

    @property
    def additive(self) -> bool:
        """Whether its map adds, so that noise and signal can be told apart; on logarithms it multiplies."""
        return Trait.POSITIVE not in self.estimator.traits

    def nothing(self, metric: str, unit: str) -> Measured:
        """What cannot be measured of an estimator whose map does not add."""
        return Measured(metric, unit, np.full(self.drawn.samples.shape[1], np.nan), "works on logarithms")

    @cached_property
    def noise_part(self) -> Array:
        """What this run's map leaves of the noise."""
        return np.asarray(self.run.replay(self.drawn.noise, 0.0))

    @cached_property
    def signal_error(self) -> Array:
        """What this run's map makes of the level, less the level."""
        start = np.nan_to_num(np.asarray(self.estimator.init(self.drawn.samples[0]).mean))
        return np.asarray(self.run.replay(self.truth, start)) - self.truth

    def response_to(self, added: Array) -> Array:
        """Run on the noise plus a signal, and replay that run's map on the signal alone, (T, n).

        A linear estimator's map is that of every run with the same gaps.
        """
        if Trait.LINEAR in self.estimator.traits:
            run = self.run
        else:
            run = self.estimator.filter(self.drawn.noise + added[:, np.newaxis])
        return np.asarray(run.replay(added[:, np.newaxis], 0.0))

    def settled(self, values: Array) -> Array:
        """Rows after the burn-in."""
        return values[self.burn_in :]


Metric = Callable[[Trial], Iterable[Measured]]


def mean_over_time(values: Array, keep: NDArray[np.bool_] | None = None) -> Array:
    """Mean along time of (T, n), of the finite values; NaN where there are none.

    One repetition's mean has the same bits whatever stands beside it: each has a sum of its own.
    """
    sums = np.zeros((2, *values.shape[1:]))
    _summed()(np.ascontiguousarray(values), keep, *sums)
    with np.errstate(invalid="ignore"):
        mean: Array = sums[1] / sums[0]
    return mean


@functools.cache
def _summed() -> Any:
    """Compile sums along time: loop(values (T, n), keep (T, n) or None, count (n,), total (n,))."""
    from numba import njit

    def loop(values: Any, keep: Any, count: Any, total: Any) -> None:
        for t in range(values.shape[0]):
            row = values[t]
            for c in range(row.shape[0]):
                counted = abs(row[c]) < np.inf
                if keep is not None:
                    counted &= keep[t, c]
                count[c] += 1.0 if counted else 0.0
                total[c] += row[c] if counted else 0.0

    return njit(loop, cache=True, error_model="numpy", nogil=True)


def _of_sums(metric: str, unit: str) -> Callable[[Metric], Metric]:
    """Measure only where the map adds; elsewhere the metric has no value."""

    def only(measured: Metric) -> Metric:
        @functools.wraps(measured)
        def measure_it(trial: Trial) -> Iterable[Measured]:
            return measured(trial) if trial.additive else [trial.nothing(metric, unit)]

        return measure_it

    return only


@_of_sums("attenuation_db", "dB")
def attenuation(trial: Trial) -> Iterable[Measured]:
    """10 log10(noise variance in / out), by replay, after the burn-in."""
    noise, left = trial.settled(trial.drawn.noise), trial.settled(trial.noise_part)
    seen = np.isfinite(noise)
    centre_in = 0.0 if trial.drawn.zero_mean else mean_over_time(noise)
    centre_out = 0.0 if trial.drawn.zero_mean else mean_over_time(left, seen)
    before = mean_over_time((noise - centre_in) ** 2)
    after = mean_over_time((left - centre_out) ** 2, seen)
    with np.errstate(divide="ignore", invalid="ignore"):
        yield Measured("attenuation_db", "dB", 10.0 * np.log10(before / after), "no noise")


def implied_attenuation(trial: Trial) -> Iterable[Measured]:
    """-10 log10 of the mean sum of squared weights: what white noise would lose; needs no truth."""
    power = mean_over_time(trial.settled(np.asarray(trial.run.noise_gain)))
    with np.errstate(divide="ignore"):
        yield Measured("implied_attenuation_db", "dB", -10.0 * np.log10(power), "no weights")


@_of_sums("mean_age", "samples")
def mean_age(trial: Trial) -> Iterable[Measured]:
    """Mean age of the weights: their replay on time itself; needs no truth."""
    age = np.asarray(trial.run.mean_age)
    yield Measured("mean_age", "samples", mean_over_time(trial.settled(age)), "no weights")


@_of_sums("lag", "samples")
def lag(trial: Trial) -> Iterable[Measured]:
    """Delay behind a ramp: a run on noise plus ramp, its map replayed on the ramp alone, over the slope.

    The mean over the last quarter of the stream, where it is steady: within a thousandth of the quarter
    before, and as much more as samples are missing, since the lag then moves with the gaps.
    """
    slope = RAMP * trial.noise_sd
    ramp = slope * np.arange(trial.drawn.samples.shape[0], dtype=np.float64)
    behind = (ramp[:, np.newaxis] - trial.response_to(ramp)) / slope
    quarter = max(1, behind.shape[0] // 4)
    third, last = mean_over_time(behind[-2 * quarter : -quarter]), mean_over_time(behind[-quarter:])
    missing = mean_over_time(np.isnan(trial.drawn.samples[-2 * quarter :]).astype(np.float64))
    steady = np.abs(last - third) <= (1e-3 + missing) * np.abs(last) + 1e-6
    yield Measured("lag", "samples", np.where(steady, last, np.nan), "no steady state")


@_of_sums("settling", "samples")
def settling(trial: Trial) -> Iterable[Measured]:
    """Samples at a new level until the error stays within 5 % of the step, replayed on the step alone."""
    steps = trial.drawn.samples.shape[0]
    height, at = STEP * trial.noise_sd, steps // 2
    step = np.where(np.arange(steps) >= at, height, 0.0)
    outside = ~(np.abs(trial.response_to(step)[at:] - height) <= SETTLED * height)
    last = np.where(outside.any(axis=0), outside.shape[0] - np.argmax(outside[::-1], axis=0), 0)
    needed = np.where(last < outside.shape[0], last + 1.0, np.nan)
    yield Measured("settling", "samples", needed, "not settled")


def errors(trial: Trial) -> Iterable[Measured]:
    """Error against the true level: start-up, rmse, bias, and its split into signal, noise and cross term."""
    error = np.asarray(trial.run.mean) - trial.truth
    yield Measured("startup_rmse", trial.unit, _root_mean_square(error[: trial.burn_in]), "no burn-in")
    after = trial.settled(error)
    yield Measured("rmse", trial.unit, _root_mean_square(after))
    yield Measured("bias", trial.unit, mean_over_time(after))
    if not trial.additive:
        yield from (
            trial.nothing(f"{part}_mse", f"({trial.unit})^2") for part in ("signal", "noise", "cross")
        )
        return
    signal, noise = trial.settled(trial.signal_error), trial.settled(trial.noise_part)
    for metric, product in (("signal", signal**2), ("noise", noise**2), ("cross", 2.0 * signal * noise)):
        yield Measured(f"{metric}_mse", f"({trial.unit})^2", mean_over_time(product))


def prediction(trial: Trial) -> Iterable[Measured]:
    """Error of each mean against the next sample, and how often that lies in the interval stated for it."""
    innovation = trial.settled(np.asarray(trial.run.innovation))
    yield Measured("prediction_rmse", trial.unit, _root_mean_square(innovation))
    bounds = trial.run.predictive_interval(LEVEL)
    if bounds is not None:
        covered = _within(trial.drawn.samples, bounds, np.isfinite(trial.drawn.samples))
        yield Measured("prediction_coverage", "share", mean_over_time(trial.settled(covered)))


def coverage(trial: Trial) -> Iterable[Measured]:
    """Share of true levels inside the stated 95 % interval; only of estimators that state one."""
    bounds = trial.run.interval(LEVEL)
    if bounds is not None:
        covered = _within(trial.truth, bounds, np.ones(trial.truth.shape, bool))
        yield Measured("coverage", "share", mean_over_time(trial.settled(covered)))


def memory(trial: Trial) -> Iterable[Measured]:
    """Bytes of state that one channel must carry."""
    yield Measured(
        "state_bytes", "bytes", np.full(trial.drawn.samples.shape[1], float(trial.estimator.state_bytes))
    )


WITH_TRUTH: tuple[Metric, ...] = (attenuation, lag, settling, errors, coverage)
WITHOUT_TRUTH: tuple[Metric, ...] = (
    implied_attenuation,
    mean_age,
    prediction,
    memory,
)


def measure(trial: Trial) -> list[Measured]:
    """All metrics that the stream allows."""
    groups = WITHOUT_TRUTH if trial.drawn.level is None else WITH_TRUTH + WITHOUT_TRUTH
    return [measured for group in groups for measured in group(trial)]


def joined(blocks: Sequence[Sequence[Measured]]) -> list[Measured]:
    """Put measurements of consecutive repetitions together, metric by metric."""
    return [
        replace(parts[0], values=np.concatenate([part.values for part in parts]))
        for parts in zip(*blocks, strict=True)
    ]


def _root_mean_square(error: Array) -> Array:
    root: Array = np.sqrt(mean_over_time(error**2))
    return root


def _within(values: Array, bounds: tuple[Any, Any], counted: NDArray[np.bool_]) -> Array:
    lower, upper = bounds
    return np.where(counted, (values >= lower) & (values <= upper), np.nan)
