from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import exact
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, Trait

EPS = 2.0**-52
decades = st.floats(-12.0, 12.0).map(lambda e: 10.0**e)


def recursion(s: float, steps: int, prior: float = math.inf) -> list[Decimal]:
    """Gains of the random-walk filter in 60 digits: K' = (K + s) / (K + s + 1), prior in units of r."""
    with localcontext() as context:
        context.prec = 60
        gains: list[Decimal] = []
        predicted = Decimal(prior) + Decimal(s)
        for _ in range(steps):
            gains.append(1 / (1 + 1 / predicted))
            predicted = gains[-1] + Decimal(s)
        return gains


def relative(found: Any, expected: list[Decimal]) -> np.ndarray:
    return np.array([float(abs(Decimal(float(f)) / e - 1)) for f, e in zip(found, expected, strict=True)])


# --- gain and variance --------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(s=decades, prior=st.one_of(st.just(math.inf), decades))
def test_gain_and_variance_to_the_last_digits(s: float, prior: float) -> None:
    """r K never cancels, unlike (1 - K) P: relative error of a few roundings over 24 decades of q/r."""
    steps = 60
    out = Kalman(q=s, r=1.0, variance=prior).filter(np.zeros(steps))
    bound = EPS * (2.0 + np.minimum(np.arange(1, steps + 1), 1.0 / out.gain))
    expected = recursion(s, steps, prior)
    assert np.all(relative(out.gain, expected) <= bound)
    assert np.all(relative(out.variance, expected) <= bound)


@pytest.mark.parametrize("s", [1e-6, 1e-4, 0.01, 1.0, 100.0])
def test_gain_after_a_long_run(s: float) -> None:
    steps = 5000
    out = Kalman(q=4.0 * s, r=4.0).filter(np.zeros(steps))
    assert np.max(relative(out.gain, recursion(s, steps))) <= 200 * EPS
    np.testing.assert_array_equal(out.variance, 4.0 * out.gain)


@pytest.mark.parametrize("s", [1e-6, 1e-4, 1 / 90, 0.05, 0.5, 1.0, 10.0, 1e4])
def test_start_up_gain_in_closed_form(s: float) -> None:
    """k_t = (1 - b)(1 + b^(2t-1)) / (1 - b^(2t)) from a diffuse start; theory notes, 4.3."""
    steps = 100
    gain = Kalman(q=s, r=1.0).filter(np.zeros(steps)).gain
    with localcontext() as context:
        context.prec = 80
        d = Decimal(s)
        b = 1 + d / 2 - (d + d * d / 4).sqrt()
        closed = [(1 - b) * (1 + b ** (2 * t - 1)) / (1 - b ** (2 * t)) for t in range(1, steps + 1)]
    assert np.max(relative(gain, closed)) <= 16 * EPS
    assert max(abs(float(k / c - 1)) for k, c in zip(recursion(s, steps), closed, strict=True)) < 1e-40


def test_a_diffuse_start_is_not_the_debiased_ema() -> None:
    """Same first gain, same last one, another path between: twice as fast."""
    zeros = np.zeros(1500)
    kalman, debiased = Kalman.from_beta(0.9).filter(zeros).gain, DebiasedEMA(0.9).filter(zeros).gain
    assert kalman[0] == debiased[0] == 1.0
    assert np.all(kalman[1:50] < debiased[1:50])
    assert abs(kalman[-1] - debiased[-1]) < 1e-15


# --- limits -------------------------------------------------------------------------------------------------


def test_without_process_noise_it_is_the_running_mean() -> None:
    x = np.random.default_rng(0).normal(size=300)
    x[[3, 50, 51]] = np.nan
    out = Kalman(q=0.0, r=2.0).filter(x)
    present = np.cumsum(~np.isnan(x))
    total = np.cumsum(np.where(np.isnan(x), 0, x))
    np.testing.assert_allclose(out.mean, total / present, rtol=0, atol=1e-14)
    np.testing.assert_allclose(out.variance, 2.0 / present, rtol=1e-13)
    np.testing.assert_allclose(out.gain[~np.isnan(x)], 1.0 / present[~np.isnan(x)], rtol=1e-13)
    assert Kalman(0.0, 1.0).steady_gain == 0.0
    assert math.isinf(Kalman(0.0, 1.0).time_constant)


def test_without_measurement_noise_it_is_the_sample() -> None:
    x = np.array([3.0, np.nan, np.nan, 1e17, -2.0])
    for prior in ({}, {"mean": 5.0, "variance": 1.0}):
        out = Kalman(q=0.5, r=0.0, **prior).filter(x)
        np.testing.assert_array_equal(out.mean, [3.0, 3.0, 3.0, 1e17, -2.0])
        np.testing.assert_array_equal(out.variance, [0.0, 0.5, 1.0, 0.0, 0.0])
        np.testing.assert_array_equal(out.gain, [1.0, 0.0, 0.0, 1.0, 1.0])
    assert Kalman(0.5, 0.0).steady_state() == EMA(0.0, initial=None)


def test_a_known_start() -> None:
    out = Kalman(q=1.0, r=3.0, mean=2.0, variance=0.0).filter([6.0, np.nan])
    np.testing.assert_array_equal(out.gain, [0.25, 0.0])  # the first sample sees variance + q
    np.testing.assert_array_equal(out.mean, [3.0, 3.0])
    np.testing.assert_array_equal(out.variance, [0.75, 1.75])
    certain = Kalman(q=0.0, r=3.0, mean=2.0, variance=0.0).filter([6.0, 1e300, np.nan, -1.0])
    np.testing.assert_array_equal(certain.mean, 2.0)
    np.testing.assert_array_equal(certain.variance, 0.0)
    np.testing.assert_array_equal(certain.gain, 0.0)


def test_a_diffuse_start_is_exact() -> None:
    """No large number stands for infinity; with one, filterpy's P after P0 = 1e30, r = 1 is 1.0123."""
    for prior in (math.inf, 1e30, 1e300):
        out = Kalman(q=0.0, r=1.0, variance=prior).filter([0.1])
        assert (out.mean[0], out.variance[0], out.gain[0]) == (0.1, 1.0, 1.0)
    out = Kalman(q=0.25, r=2.0).filter([np.nan, np.nan, 7.0, np.nan])
    np.testing.assert_array_equal(out.mean, [np.nan, np.nan, 7.0, 7.0])
    np.testing.assert_array_equal(out.variance, [np.inf, np.inf, 2.0, 2.25])


def test_a_gap_is_time_passing() -> None:
    q, r = 0.3, 2.0
    seen = Kalman(q, r).filter([1.0, 2.0])
    out = Kalman(q, r).filter([1.0, 2.0, *[np.nan] * 5, 4.0])
    np.testing.assert_allclose(out.variance[2:7], seen.variance[-1] + q * np.arange(1, 6), rtol=4 * EPS)
    np.testing.assert_array_equal(out.mean[2:7], seen.mean[-1])
    np.testing.assert_array_equal(out.gain[2:7], 0.0)
    # A gap of n steps is one step of a walk n times as fast.
    jump = Kalman(6 * q, r, mean=seen.state.mean, variance=seen.state.variance).filter([4.0])
    np.testing.assert_allclose(out.mean[-1], jump.mean[0], rtol=4 * EPS)


@settings(max_examples=60, deadline=None)
@given(
    q=decades,
    r=decades,
    x=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=1, max_size=30),
    cut=st.integers(0, 30),
)
def test_a_prior_continues_any_run(q: float, r: float, x: list[float], cut: int) -> None:
    """Kalman(q, r, mean=state.mean, variance=state.variance) goes on bit for bit."""
    whole = Kalman(q, r).filter(x)
    first = Kalman(q, r).filter(x[:cut])
    rest = Kalman(q, r, mean=first.state.mean, variance=first.state.variance).filter(x[cut:])
    np.testing.assert_array_equal(np.concatenate([first.mean, rest.mean]), whole.mean)
    np.testing.assert_array_equal(np.concatenate([first.variance, rest.variance]), whole.variance)


def test_a_prior_continues_channels_each_at_its_own_stage() -> None:
    x = np.random.default_rng(1).normal(size=(20, 3))
    x[:15, 1] = np.nan
    kalman = Kalman([0.1, 0.2, 0.0], 1.0)
    first = kalman.filter(x[:10])
    assert math.isinf(first.state.variance[1])
    rest = Kalman(kalman.q, kalman.r, mean=first.state.mean, variance=first.state.variance).filter(x[10:])
    np.testing.assert_array_equal(rest.mean, kalman.filter(x).mean[10:])
    np.testing.assert_array_equal(rest.variance, kalman.filter(x).variance[10:])


# --- the EMA that it is once settled ------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(s=st.floats(-8.0, 6.0).map(lambda e: 10.0**e), r=decades)
def test_a_settled_filter_is_an_ema(s: float, r: float) -> None:
    settled = Kalman.from_signal_to_noise(s, r)
    settled = Kalman(settled.q, settled.r, mean=0.0, variance=settled.r * settled.steady_gain)
    x = np.random.default_rng(2).normal(size=200)
    ema = settled.steady_state()
    assert (ema.initial, ema.beta) == (0.0, settled.steady_beta)
    np.testing.assert_allclose(settled.filter(x).mean, ema.filter(x).mean, rtol=0, atol=40 * EPS)
    np.testing.assert_allclose(settled.filter(x).gain, ema.steady_gain, rtol=40 * EPS + EPS * s**-0.5)


def test_any_filter_settles_at_its_steady_state() -> None:
    x = np.random.default_rng(3).normal(size=3000)
    kalman = Kalman(q=0.01, r=1.0)
    assert kalman.steady_state() == EMA(kalman.steady_beta, initial=None)
    np.testing.assert_allclose(
        kalman.filter(x).mean[-1], kalman.steady_state().filter(x).mean[-1], atol=1e-15
    )
    assert kalman.filter(x).gain[-1] == pytest.approx(kalman.steady_gain, rel=1e-15)
    proper = Kalman([0.01, 1.0], 1.0, mean=[1.0, 2.0], variance=1.0)
    assert proper.steady_state() == EMA(proper.steady_beta, initial=[1.0, 2.0])


def test_no_steady_state() -> None:
    with pytest.raises(ValueError, match=r"Kalman.steady_state: q=0.0 is not valid; q must be > 0"):
        Kalman(0.0, 1.0).steady_state()
    with pytest.raises(ValueError, match="variance must be finite, or infinite, in all channels alike"):
        Kalman(1.0, 1.0, variance=[1.0, math.inf]).steady_state()


# --- smoother -----------------------------------------------------------------------------------------------

gappy = st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)), min_size=1, max_size=30)


@settings(max_examples=80, deadline=None)
@given(x=gappy, s=st.floats(-6.0, 6.0).map(lambda e: 10.0**e))
def test_the_smoother_runs_the_same_backwards(x: list[float], s: float) -> None:
    """A random walk without a prior has no direction of time, so an exact diffuse smoother has none."""
    forward, backward = (Kalman(q=s, r=1.0).smooth(np.array(v)) for v in (x, x[::-1]))
    np.testing.assert_allclose(forward.mean, backward.mean[::-1], rtol=0, atol=1e-12 * 1e3)
    np.testing.assert_allclose(forward.variance, backward.variance[::-1], rtol=1e-12)


def test_smoothing_around_gaps() -> None:
    x = np.array([np.nan, np.nan, 1.0, 3.0, np.nan, np.nan, np.nan, 2.0, np.nan])
    out = Kalman(q=0.5, r=1.0).smooth(x)
    # Before the first and after the last sample the level is the nearest one, q less certain per step.
    np.testing.assert_allclose(out.mean[[0, 1, 8]], out.mean[[2, 2, 7]], rtol=EPS)
    np.testing.assert_allclose(
        out.variance[[0, 1, 8]], out.variance[[2, 2, 7]] + [1.0, 0.5, 0.5], rtol=4 * EPS
    )
    # Inside a gap the mean is a straight line.
    np.testing.assert_allclose(np.diff(out.mean[3:8]), (out.mean[7] - out.mean[3]) / 4, rtol=1e-13)
    assert np.all(out.variance[4:7] > out.variance[[3, 3, 3]])


def test_smoothing_without_measurement_noise_is_a_brownian_bridge() -> None:
    x = np.array([1.0, np.nan, np.nan, np.nan, 5.0, 4.0])
    out = Kalman(q=2.0, r=0.0).smooth(x)
    np.testing.assert_allclose(out.mean, [1, 2, 3, 4, 5, 4], rtol=2 * EPS)
    k = np.arange(5)
    np.testing.assert_allclose(out.variance[:5], 2.0 * k * (4 - k) / 4, rtol=4 * EPS)


def test_smoothing_without_process_noise_is_the_mean_of_all() -> None:
    x = np.random.default_rng(4).normal(size=40)
    x[[0, 7]] = np.nan
    out = Kalman(q=0.0, r=3.0).smooth(x)
    np.testing.assert_allclose(out.mean, np.nanmean(x), rtol=1e-14)
    np.testing.assert_allclose(out.variance, 3.0 / 38, rtol=1e-14)


def test_smoothing_nothing() -> None:
    out = Kalman(1.0, 1.0).smooth([np.nan, np.nan])
    assert np.all(np.isnan(out.mean))
    assert np.all(np.isinf(out.variance))
    assert Kalman(1.0, 1.0).smooth([]).mean.shape == (0,)
    assert Kalman(1.0, 1.0).smooth([7.0]).mean.tolist() == [7.0]
    known = Kalman(1.0, 1.0, mean=2.0, variance=0.5).smooth([np.nan, np.nan])
    np.testing.assert_array_equal(known.mean, 2.0)
    np.testing.assert_allclose(known.variance, [1.5, 2.5], rtol=2 * EPS)
    certain = Kalman(0.0, 3.0, mean=2.0, variance=0.0).smooth([5.0, np.nan, 1.0])
    np.testing.assert_array_equal(certain.mean, 2.0)
    np.testing.assert_array_equal(certain.variance, 0.0)


def test_the_last_smoothed_row_is_the_last_filtered_one() -> None:
    x = np.random.default_rng(5).normal(size=(30, 2))
    kalman = Kalman([0.1, 1.0], 1.0, mean=1.0, variance=2.0)
    filtered, smoothed = kalman.filter(x), kalman.smooth(x)
    np.testing.assert_array_equal(smoothed.mean[-1], filtered.mean[-1])
    np.testing.assert_array_equal(smoothed.variance[-1], filtered.variance[-1])
    assert np.all(smoothed.variance[:-1] < filtered.variance[:-1])


def test_smoothing_pandas_and_infinity() -> None:
    frame = pd.DataFrame({"a": [1.0, None, 3.0], "b": [1, 2, 3]}, index=[10, 20, 30])
    out = Kalman(1.0, 1.0).smooth(frame)
    assert list(out.mean.columns) == ["a", "b"]
    assert list(out.variance.index) == [10, 20, 30]
    low, high = out.interval(0.9)
    assert isinstance(low, pd.DataFrame)
    assert bool((low < high).all(axis=None))
    with pytest.raises(ValueError, match="infinity at index 1"):
        Kalman(1.0, 1.0).smooth([1.0, math.inf])
    missing = Kalman(1.0, 1.0).smooth([1.0, math.inf, 2.0], on_infinite="missing")
    np.testing.assert_array_equal(missing.mean, Kalman(1.0, 1.0).smooth([1.0, np.nan, 2.0]).mean)
    with pytest.raises(ValueError, match="level=1 is not valid"):
        missing.interval(1)


# --- settings -----------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(beta=st.floats(1e-6, 1.0 - 1e-9), r=decades)
def test_from_beta_settles_there(beta: float, r: float) -> None:
    kalman = Kalman.from_beta(beta, r)
    assert kalman.r == r
    assert abs(kalman.steady_gain - (1.0 - beta)) <= 4 * EPS * (1.0 - beta)


@settings(max_examples=150, deadline=None)
@given(value=st.floats(1e-6, 0.999), r=decades)
def test_constructors_invert_their_closed_forms(value: float, r: float) -> None:
    found = Kalman.from_noise_gain(value, r)
    assert abs(found.noise_gain - value) <= 4 * EPS * (value + 1.0)
    delay = 1.0 / value
    assert abs(Kalman.from_group_delay(delay, r).group_delay - delay) <= 4 * EPS * delay * (2.0 + delay)
    assert abs(Kalman.from_signal_to_noise(value, r).signal_to_noise - value) <= 2 * EPS * value


@pytest.mark.parametrize("s", [10.0**e for e in range(-12, 13)])
def test_the_steady_gain_does_not_cancel(s: float) -> None:
    """The textbook root (-s + sqrt(s^2 + 4 s)) / 2 does: a relative error of 2.5e-9 at s = 1e8."""
    with localcontext() as context:
        context.prec = 60
        d = Decimal(s)
        root = (-d + (d * d + 4 * d).sqrt()) / 2
    assert relative([Kalman(s, 1.0).steady_gain], [root])[0] <= 2 * EPS
    if s == 1e8:
        assert abs((-s + math.sqrt(s * s + 4 * s)) / 2 - float(root)) > 1e-9


def test_extreme_ratios_warn_of_nothing() -> None:
    assert Kalman(1e200, 1e-200).steady_gain == 1.0
    assert Kalman(1e-320, 1.0).steady_gain >= 0.0
    assert math.isinf(Kalman(5e-324, 1e300).effective_window)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Kalman(-1.0, 1.0), "Kalman: q=-1.0 is not valid; q must be >= 0"),
        (lambda: Kalman(1.0, -1), "Kalman: r=-1 is not valid; r must be >= 0"),
        (lambda: Kalman(0.0, 0.0), "Kalman: q=0.0 is not valid; q must be > 0 where r = 0"),
        (lambda: Kalman([1.0, 0.0], [1.0, 0.0]), "q must be > 0 where r = 0"),
        (lambda: Kalman(math.nan, 1.0), "q=nan"),
        (lambda: Kalman(1.0, math.inf), "r=inf"),
        (lambda: Kalman(1.0, "1"), "r='1'"),
        (lambda: Kalman(None, 1.0), "q=None"),
        (lambda: Kalman([], 1.0), "q=[]"),
        (lambda: Kalman(1j, 1.0), "q=1j"),
        (
            lambda: Kalman(1.0, 1.0, variance=-1.0),
            "variance=-1.0 is not valid; variance must be >= 0, or inf",
        ),
        (lambda: Kalman(1.0, 1.0, variance=math.nan), "variance=nan"),
        (lambda: Kalman(1.0, 1.0, mean=math.nan, variance=1.0), "mean=nan"),
        (lambda: Kalman(1.0, 1.0, mean=math.inf, variance=1.0), "mean=inf"),
        (lambda: Kalman(1.0, 1.0, mean="a"), "mean='a'"),
        (lambda: Kalman.from_beta(1.0), "Kalman.from_beta: beta=1.0 is not valid; beta must be in (0, 1)"),
        (lambda: Kalman.from_beta(0), "beta=0"),
        (lambda: Kalman.from_beta(0.5, r=-1), "Kalman.from_beta: r=-1 is not valid; r must be > 0"),
        (lambda: Kalman.from_beta(0.5, r=0), "r=0"),
        (lambda: Kalman.from_signal_to_noise(0), "s=0"),
        (lambda: Kalman.from_signal_to_noise(math.inf), "s=inf"),
        (lambda: Kalman.from_signal_to_noise(1, r=math.nan), "r=nan"),
        (lambda: Kalman.from_noise_gain(2), "noise_gain=2"),
        (lambda: Kalman.from_group_delay(-1), "group_delay=-1"),
    ],
)
def test_bad_parameters_get_one_line(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid; .* must be ") as caught:
        call()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"the shapes of q \(2,\), r \(3,\), .* do not broadcast"):
        Kalman([1.0, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"mean \(3,\), variance \(2,\) do not broadcast"):
        Kalman(1.0, 1.0, mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0])


def test_traits() -> None:
    shift, scaled = Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT
    always = {Trait.LINEAR, Trait.HAS_VARIANCE}
    assert Kalman(1.0, 1.0).traits == {*always, shift, scaled}
    assert Kalman(1.0, 1.0, variance=1.0).traits == {*always, scaled}
    assert Kalman(1.0, 1.0, mean=1.0, variance=1.0).traits == always
    assert Kalman(1.0, 0.0).traits == {*always, shift, scaled, Trait.FINITE_MEMORY}
    # Without noise a prior still shows, in a leading gap.
    assert Kalman(1.0, 0.0, mean=1.0, variance=1.0).traits == {*always, Trait.FINITE_MEMORY}
    assert Kalman(1.0, 1.0).state_bytes == 16


def test_channels_with_their_own_parameters() -> None:
    x = np.random.default_rng(6).normal(size=(40, 4))
    q, r = np.array([0.0, 0.1, 1.0, 1.0]), np.array([1.0, 2.0, 0.0, 0.5])
    variance, mean = np.array([[math.inf] * 4, [1.0, math.inf, 0.0, 3.0]]), np.array([[0.0], [2.0]])
    out = Kalman(q, r, mean, variance).filter(x)
    assert out.mean.shape == out.variance.shape == out.gain.shape == (40, 2, 4)
    for i in range(2):
        for j in range(4):
            one = Kalman(q[j], r[j], mean[i, 0], variance[i, j])
            channel, alone = one.filter(x[:, [j]]), one.filter(x[:, j])
            np.testing.assert_array_equal(out.mean[:, i, j], channel.mean[:, 0])
            np.testing.assert_array_equal(out.variance[:, i, j], channel.variance[:, 0])
            np.testing.assert_array_equal(out.variance[:, i, j], alone.variance)
            # A stream by itself is advanced eight samples at a time, which rounds otherwise.
            np.testing.assert_allclose(out.mean[:, i, j], alone.mean, rtol=0, atol=1e-15 * 8)


def test_the_mean_in_exact_arithmetic() -> None:
    """Whole recursion in fractions, q = 1, r = 2, prior (1, 3): mean, variance and gain."""
    x = [3.0, -1.0, math.nan, 2.0, 8.0, 0.5]
    out = Kalman(1.0, 2.0, mean=1.0, variance=3.0).filter(x)
    mean, variance = Fraction(1), Fraction(3)
    for t, sample in enumerate(x):
        variance += 1
        if sample == sample:
            gain = variance / (variance + 2)
            mean += gain * (exact([sample])[0] - mean)
            variance = 2 * gain
        assert abs(Fraction(float(out.mean[t])) - mean) <= 4 * EPS * 8
        assert abs(Fraction(float(out.variance[t])) / variance - 1) <= 4 * EPS


def test_variance_never_rises_at_a_sample_nor_falls_in_a_gap() -> None:
    x = np.random.default_rng(7).normal(size=200)
    x[np.random.default_rng(8).random(200) < 0.3] = np.nan
    kalman = Kalman(0.2, 1.0)
    out = kalman.filter(x)
    for (before, after), sample in zip(pairwise(out.variance), x[1:], strict=True):
        assert after == before + 0.2 if sample != sample else after < before + 0.2
