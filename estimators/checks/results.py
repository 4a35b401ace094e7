"""Checks of the estimates: a constant, variance, gain, innovations, replay, and the declared traits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from estimators.checks._tools import (
    PATIENCE,
    channels_of,
    contract,
    expect,
    expect_close,
    expect_raises,
    expect_same,
    logarithms,
    of_nothing,
    positive,
    prior_of,
    scale,
    stream,
    tolerance,
    variances_of,
    window_of,
)
from estimators.protocol import Trait

UNITS = (1.0, 1e-8, 1e8, 1e100)
"""Sizes of streams on which a trait may fail: a threshold, say, is absolute."""
RAMP = 20_000
"""Samples of a ramp after which a slope is taken for settled."""
_HALF = "yet that holds of all numbers, and this takes those > 0 alone"
LEVELS_REFUSED = (0.0, 1.0, -0.5, 2.0, math.nan)


@contract
def check_constant(estimator: Any) -> None:
    """A constant comes out as itself: from the first sample on without a prior, settled with one."""
    prior = prior_of(estimator)
    gaps = np.isnan(stream(estimator))
    for constant in (0.1, 3.7e8, 1e-9) if positive(estimator) else (0.1, -3.7e8, 1e-9, 0.0):
        x = np.where(gaps, np.nan, constant)
        run = estimator.filter(x)
        seen = np.maximum.accumulate(~gaps, axis=0)
        free = np.broadcast_to(np.isnan(prior), x.shape) & seen
        expect_close(
            np.where(free, run.mean / np.exp(of_nothing(estimator, run)), constant),
            np.full(x.shape, constant),
            1e-12 * abs(constant),
            f"mean of a constant {constant:g}",
        )
    window = window_of(estimator)
    patient = np.isfinite(prior) & (window <= PATIENCE)
    if patient.any():
        x = np.full((int(60.0 * window[patient].max()) + 100, *prior.shape), 0.1)
        run, allowed = estimator.filter(x), tolerance(estimator, x)[-1]
        last = np.asarray(run.mean / np.exp(of_nothing(estimator, run)))[-1]
        expect_close(last[patient], np.full(int(patient.sum()), 0.1), allowed[patient], "settled mean of 0.1")


@contract
def check_variance(estimator: Any) -> None:
    """A variance where one is declared, >= 0, infinite without information; else None and no interval."""
    x = stream(estimator)
    run = estimator.filter(x)
    declared = Trait.HAS_VARIANCE in estimator.traits
    holders = {
        "filter": run,
        "init": estimator.init(x[0]),
        "filter's state": run.state,
        "update": estimator.update(run.state, x[20]),
        "a tracker": estimator.tracker(run.state),
    }
    for name, holder in holders.items():
        stated = holder.variance is not None
        found = "states a variance" if stated else "states no variance"
        expect(
            stated == declared,
            f"{name} {found}; the trait has_variance is {'' if declared else 'not '}declared",
        )
    for level in LEVELS_REFUSED:
        expect_raises(ValueError, f"interval({level})", run.interval, level)
    variances = variances_of(run)
    if variances is None:
        expect(run.interval(0.9) is None, "interval is not None although no variance is stated")
        return
    means = np.asarray(run.mean)
    expect((variances >= 0.0).all(), f"the variance is {variances.min()!r}; it must be >= 0")
    expect_same(
        np.isinf(variances) | ~np.isnan(means), np.ones(means.shape), "whether no mean means no certainty"
    )
    expect_same(run.state.variance, variances[-1], "variance of filter's state")
    least = 0.0 if positive(estimator) else -math.inf
    _expect_nested(run.interval, means, least, "interval")
    expect_same(np.asarray(run.interval()), np.asarray(run.interval(0.95)), "interval without a level")


@contract
def check_innovation(estimator: Any) -> None:
    """The innovation is the sample minus the mean before it; what a model states of it comes together."""
    x = stream(estimator)
    first = estimator.filter(x)
    for run, start in (
        (first, prior_of(estimator)),
        (estimator.filter(x, state=first.state), first.state.mean),
    ):
        before = np.concatenate([np.broadcast_to(start, x.shape[1:])[np.newaxis], np.asarray(run.mean)[:-1]])
        prediction = np.asarray(getattr(run, "prediction", before))
        if hasattr(estimator, "steady_slope_gain") or Trait.FOLLOWS_TREND in estimator.traits:
            before = prediction
        expect_close(prediction, before, tolerance(estimator, x), "prediction")
        expect_close(run.innovation, x - before, 2.0 * tolerance(estimator, x), "innovation")
        stated = {
            name: value is not None
            for name, value in (
                ("innovation_variance", run.innovation_variance),
                ("loglikelihood", run.loglikelihood),
                ("predictive_interval", run.predictive_interval(0.9)),
            )
        }
        together = len(set(stated.values())) == 1
        expect(
            together, f"only {' and '.join(n for n, s in stated.items() if s)} is given; None goes together"
        )
        for level in LEVELS_REFUSED:
            expect_raises(ValueError, f"predictive_interval({level})", run.predictive_interval, level)
        if not all(stated.values()):
            continue
        variances = np.asarray(run.innovation_variance)
        expect((variances >= 0.0).all(), "innovation_variance is negative or NaN")
        unknown = np.isnan(before) & ~np.isinf(variances)
        expect(not unknown.any(), "innovation_variance is finite before any information")
        total = np.asarray(run.loglikelihood)
        expect(total.shape == x.shape[1:], f"loglikelihood has shape {total.shape} instead of {x.shape[1:]}")
        expect(not np.isnan(total).any(), "loglikelihood is NaN")
        least = 0.0 if positive(estimator) else -math.inf
        _expect_nested(run.predictive_interval, before, least, "predictive_interval")
        within, twice = variances_of(run), variances_of(estimator.filter(2.0 * x))
        if within is not None and twice is not None and np.array_equal(within, twice):
            # Known beforehand: an innovation has the error of the mean before it, and the sample's own.
            less = within <= variances * (1.0 + 1e-12)
            expect(less.all(), "the variance of the mean exceeds innovation_variance, of which it is a part")


@contract
def check_follows_trend(estimator: Any) -> None:
    """After a ramp the mean goes on with its slope through a gap, where declared and only there."""
    if Trait.POSITIVE in estimator.traits:
        return
    declared, channels = Trait.FOLLOWS_TREND in estimator.traits, channels_of(estimator)
    if declared and hasattr(estimator, "step_response") and np.any(estimator.step_response(RAMP)[-1] < 0.999):
        return  # a ramp that is long enough costs too much
    for slope in (3.0, -1e-4):
        time = np.arange(RAMP).reshape((RAMP,) + (1,) * len(channels))
        state = estimator.filter(slope * np.broadcast_to(time, (RAMP, *channels))).state
        moved = np.asarray(estimator.update(state, math.nan).mean) - np.asarray(state.mean)
        follows = np.abs(moved - slope) <= 1e-6 * abs(slope)
        if declared:
            expect(follows.all(), f"follows_trend is declared, yet a slope of {slope} goes on as {moved!r}")
        else:
            expect(not follows.all(), "follows_trend is not declared, yet the mean goes on with a slope")


@contract
def check_gain(estimator: Any) -> None:
    """The gain lies in [0, 1] and is 0 where a sample is missing."""
    x = stream(estimator)
    gain = np.asarray(estimator.filter(x).gain)
    inside = (gain >= 0.0) & (gain <= 1.0 + 1e-12)
    expect(inside.all(), f"the gain runs from {gain.min()!r} to {gain.max()!r}; it must lie in [0, 1]")
    expect_same(gain[np.isnan(x)], np.zeros(int(np.isnan(x).sum())), "gain where the sample is missing")


@contract
def check_replay(estimator: Any) -> None:
    """replay is the linear map of the run: signal and noise, replayed apart, add up to the mean.

    All in logarithms where samples are positive, and the map multiplies.
    """
    down, up = logarithms(estimator)
    run, prior = estimator.filter(stream(estimator)), down(prior_of(estimator))
    x, mean = down(stream(estimator)), down(run.mean)
    rng = np.random.default_rng(3)
    signal = 5.0 + np.cumsum(rng.standard_normal(x.shape), axis=0)
    noise = x - signal
    start = np.nan_to_num(prior)

    def replay(z: Any, *initial: Any, by: Any = run) -> Any:
        return down(by.replay(up(z), *(up(level) for level in initial)))

    largest = np.maximum(scale(estimator, x), np.abs(signal).max() + np.abs(noise[~np.isnan(noise)]).max())
    allowed = 4e-12 * largest
    far = 1e3 if up is np.asarray else 100.0
    present = np.where(np.isnan(x), far, x)  # where the run had no sample, no value can matter
    expect_close(replay(x, start), mean, allowed, "replay of the stream itself")
    expect_close(replay(present, start), mean, allowed, "replay of the stream with its gaps filled")
    parts = replay(signal, start) + replay(noise) - of_nothing(estimator, run)
    expect_close(parts, mean, allowed, "replay(signal, initial) + replay(noise)")
    expect_close(
        replay(2.0 * signal - noise, 2.0 * start),
        2.0 * replay(signal, start) - replay(noise),
        allowed,
        "replay of 2 signal - noise, which must be linear",
    )
    free = np.isnan(prior)
    elsewhere = replay(signal, np.where(free, far, start))
    expect_close(elsewhere, replay(signal, start), allowed, "replay with another initial, without a prior")
    ones = np.ones(x.shape)
    resumed = estimator.filter(stream(estimator), state=run.state)
    for name, again in (("", run), (" of a run that goes on", resumed)):
        weights = replay(ones, 1.0, by=again) - of_nothing(estimator, again)
        want = np.where(np.isnan(again.mean), np.nan, 1.0)
        expect_close(weights, want, 4e-12, f"replay(1, initial=1){name}, the sum of all weights,")
    signal = up(signal)
    expect_raises(ValueError, "replay of another length", run.replay, signal[:-1])
    signal[20:24] = np.nan
    expect_raises(ValueError, "replay of a stream missing where the run had a sample", run.replay, signal)


@contract
def check_noise_gain(estimator: Any) -> None:
    """A result's noise_gain is the sum of the squares of the weights that replay shows."""
    x = stream(estimator, 24, seed=2)
    down, up = logarithms(estimator)
    first = estimator.filter(x)
    for run, name in ((first, "the run"), (estimator.filter(x, first.state), "a run that goes on")):
        power = np.zeros(x.shape)
        for t in range(len(x)):
            impulse = np.zeros(x.shape)
            impulse[t] = 1.0
            power += (down(run.replay(up(impulse))) - of_nothing(estimator, run)) ** 2
        expect_close(run.noise_gain, power, 1e-11, f"noise_gain of {name}")


@contract
def check_linear(estimator: Any) -> None:
    """f(x + y) + f(0) = f(x) + f(y), where linear is declared and only there."""
    if positive(estimator):
        expect(Trait.LINEAR not in estimator.traits, f"linear is declared, {_HALF}")
        return
    off = []
    for seed, unit in enumerate(UNITS):
        x = unit * stream(estimator, lead=(3,), seed=seed)
        y = 4.0 * unit * np.random.default_rng(seed + 10).standard_normal(x.shape)
        zero = np.where(np.isnan(x), np.nan, 0.0)
        fx, fy, both, none = (np.asarray(estimator.filter(z).mean) for z in (x, y + zero, x + y, zero))
        allowed = 8e-12 * np.maximum(scale(estimator, x), scale(estimator, y))
        off.append(_excess(both + none, fx + fy, allowed))
    _expect_trait(estimator, Trait.LINEAR, max(off), "f(x + y) + f(0) parts from f(x) + f(y)")


@contract
def check_shift_equivariant(estimator: Any) -> None:
    """f(x + c) = f(x) + c, gaps included, where that is declared and only there."""
    if positive(estimator):
        expect(Trait.SHIFT_EQUIVARIANT not in estimator.traits, f"shift_equivariant is declared, {_HALF}")
        return
    off = []
    # In units in which its noise is nothing, the samples' rounding alone decides what a filter makes of them.
    declared = Trait.SHIFT_EQUIVARIANT in estimator.traits and Trait.SCALE_EQUIVARIANT not in estimator.traits
    for seed, unit in enumerate(UNITS[:2] if declared else UNITS):
        x = unit * stream(estimator, lead=(3,), seed=seed)
        shift = 2.5 * scale(estimator, x).max() * (-1.0) ** seed
        got, want = estimator.filter(x + shift).mean, np.asarray(estimator.filter(x).mean) + shift
        off.append(_excess(got, want, 4e-12 * np.maximum(scale(estimator, x), abs(shift))))
    _expect_trait(estimator, Trait.SHIFT_EQUIVARIANT, max(off), "f(x + c) parts from f(x) + c")


@contract
def check_scale_equivariant(estimator: Any) -> None:
    """f(c x) = c f(x), gaps included, where that is declared and only there."""
    off = []
    x = stream(estimator, lead=(3,))
    large = min(1e150, 1e290 / scale(estimator, x).max())
    for factor in (2.5 if positive(estimator) else -2.5, 1e-150, large):
        got, want = estimator.filter(factor * x).mean, factor * np.asarray(estimator.filter(x).mean)
        off.append(
            _excess(
                got, want, 4e-12 * np.maximum(scale(estimator, factor * x), abs(factor) * scale(estimator, x))
            )
        )
    _expect_trait(estimator, Trait.SCALE_EQUIVARIANT, max(off), "f(c x) parts from c f(x)")


@contract
def check_positive(estimator: Any) -> None:
    """Samples <= 0 are refused and change nothing, where positive is declared and only there."""
    x = stream(estimator)
    run = estimator.filter(x)
    for bad in (-1.0, 0.0, -1e-300):
        y = x.copy()
        y[20] = bad
        if not positive(estimator):
            estimator.update(run.state, y[20])
            taken = np.asarray(estimator.filter(y).mean)[20]
            expect(np.isfinite(taken).all(), f"positive is not declared, yet {bad} makes no mean")
            continue
        for policy in ("raise", "missing"):
            what, out = f"{bad} under on_infinite={policy!r}", np.full(x.shape, 7.0)
            expect_raises(ValueError, f"filter of {what}", estimator.filter, y, on_infinite=policy)
            expect_raises(ValueError, f"filter of {what}", estimator.filter, y, out=out, on_infinite=policy)
            expect((out == 7.0).all(), f"out is half written by a filter that refuses {bad}")
            expect_raises(
                ValueError, f"update with {what}", estimator.update, run.state, y[20], on_infinite=policy
            )
            tracker = estimator.tracker(run.state, on_infinite=policy)
            expect_raises(ValueError, f"a tracker with {what}", tracker.update, y[20])
            expect_same(tracker.mean, run.state.mean, f"mean of a tracker that refused {bad}")
        expect_raises(ValueError, f"replay of {bad}", run.replay, np.where(np.isnan(y), 1.0, y))
        expect_raises(ValueError, f"replay from {bad}", run.replay, np.ones(x.shape), bad)


@contract
def check_finite_memory(estimator: Any) -> None:
    """After effective_window further ones no bit of a sample is left, where declared and only there."""
    declared = Trait.FINITE_MEMORY in estimator.traits
    window = window_of(estimator)
    if np.isnan(window).any():
        expect(
            not declared,
            "it declares finite_memory but has no effective_window to say after how many samples",
        )
        return
    settled = window <= PATIENCE
    forgets_at_once = np.isclose(window, 1.0, rtol=0.0, atol=1e-15)  # a memory below rounding cannot be seen
    if not settled.any() or (not declared and forgets_at_once[settled].all()):
        return
    x = stream(estimator, 2 * int(np.ceil(window[settled].max())) + 40)
    x[:3] = 1.0
    arrived = np.cumsum(~np.isnan(x), axis=0) - 1  # after the first sample, which is never missing
    late = (arrived >= window) & settled & ~np.isnan(x)
    plain = np.asarray(estimator.filter(x).mean)
    traces = []
    for size in (1e200, (3.0 if positive(estimator) else -3.0) * scale(estimator, x).max()):
        disturbed = x.copy()
        disturbed[0] = size
        traces.append(np.abs(np.asarray(estimator.filter(disturbed).mean) - plain)[late].max(initial=0.0))
    _expect_trait(estimator, Trait.FINITE_MEMORY, max(traces), "the first sample leaves a trace")


def _excess(got: Any, want: Any, allowed: Any) -> float:
    """Largest difference beyond what is allowed, 0 where there is none; infinite where NaN differs."""
    got, want = np.asarray(got), np.asarray(want)
    if np.any(np.isnan(got) != np.isnan(want)):
        return math.inf
    off = np.abs(got - want)
    return float(np.max(off, initial=0.0, where=off > allowed))


def _expect_trait(estimator: Any, trait: Trait, excess: float, what: str) -> None:
    if trait in estimator.traits:
        expect(excess == 0.0, f"it declares {trait}, yet {what} by {excess:.3g}")
    else:
        expect(excess > 0.0, f"{trait} is not declared, yet nothing shows that it is absent")


def _expect_nested(bounds: Any, centre: Any, least: float, what: str) -> None:
    """Expect intervals that contain their centre, the more of the line the higher the level."""
    (low, high), (wide_low, wide_high) = bounds(0.5), bounds(0.99)
    known = ~np.isnan(centre)
    ordered = (low <= centre) & (centre <= high) & (wide_low <= low) & (high <= wide_high)
    expect(
        np.asarray(ordered)[known].all(), f"{what}: the bounds at 0.5 and 0.99 are not nested about the mean"
    )
    open_ends = (wide_low == least) & np.isposinf(wide_high)
    expect(np.asarray(open_ends)[~known].all(), f"{what}: it is bounded where nothing is known")
