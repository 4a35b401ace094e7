from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import exact
from hypothesis import example, given, settings
from hypothesis import strategies as st

from estimators import MovingAverage, Trait
from estimators.moving_average import MovingAverageState

EPS = 2.0**-52


def rational_means(x: Any, window: int) -> list[Fraction | None]:
    """Exact mean over each window: of the samples present, held where there are none."""
    values: list[Fraction | None] = [None if v != v else Fraction(float(v)) for v in x]
    means: list[Fraction | None] = []
    for t in range(len(values)):
        present = [v for v in values[max(0, t - window + 1) : t + 1] if v is not None]
        means.append(sum(present, Fraction(0)) / len(present) if present else means[-1] if means else None)
    return means


def worst_ulps(found: Any, x: Any, window: int) -> float:
    """Largest error in units in the last place of the largest value in the window."""
    worst = 0.0
    for t, expected in enumerate(rational_means(x, window)):
        if expected is None:
            assert math.isnan(found[t])
            continue
        inside = np.asarray(x[max(0, t - window + 1) : t + 1], dtype=np.float64)
        if np.all(np.isnan(inside)):
            assert found[t] == found[t - 1]
            continue
        ulp = Fraction(math.ulp(np.nanmax(np.abs(inside))))
        worst = max(worst, float(abs(Fraction(float(found[t])) - expected) / ulp))
    return worst


def bound(window: int) -> float:
    """What MovingAverage states of its sums over trees."""
    return (math.log2(window) + 2.0) / 2.0


sample = st.one_of(st.floats(-1e9, 1e9), st.just(math.nan), st.sampled_from([1e17, -1e17, 0.1, 1e-300, 2e17]))


@settings(max_examples=150, deadline=None)
@given(x=st.lists(sample, min_size=1, max_size=60), window=st.integers(1, 25))
@example(x=[1, 2e17, 3, 4, 5, 6, 7, 8], window=3)
@example(x=[1e8, 1e8 + 1, 1e8 + 2, 1, 2, 3, 4, 5, 6, 7], window=3)
@example(x=[math.nan, 1.0, math.nan, math.nan, math.nan, 2.0], window=2)
@example(x=[0.1] * 60, window=7)
def test_exact_to_an_ulp_or_so_on_any_stream(x: list[float], window: int) -> None:
    estimator = MovingAverage(window)
    assert worst_ulps(estimator.filter(x).mean, x, window) <= bound(window)
    state, online = estimator.init(0.0), []
    for value in x:
        state = estimator.update(state, float(value))
        online.append(state.mean)
    assert worst_ulps(online, x, window) <= 1.0


huge = st.floats(1e280, 8.9e307)


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.one_of(huge, huge.map(lambda v: -v), st.integers(-9, 9)), min_size=1, max_size=40),
    window=st.integers(1, 12),
)
@example(x=[8.9e307] * 10, window=4)
@example(x=[-8.9e307] * 10, window=3)
@example(x=[8.9e307, -8.9e307] * 5, window=4)
@example(x=[8.408286244428276e307, 8.51220174480103e307, 8.51220174480103e307], window=5)  # 4/3 units
def test_sums_do_not_overflow(x: list[float], window: int) -> None:
    """Sums are formed in units of 2^64 then: only samples below 2^-958 suffer from such neighbours."""
    assert worst_ulps(MovingAverage(window).filter(x).mean, x, window) <= bound(window)
    tracker = MovingAverage(window).tracker()
    assert worst_ulps([tracker.update(v) for v in x], x, window) <= 1.0


@settings(max_examples=60, deadline=None)
@given(
    k=st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=40),
    window=st.integers(1, 12),
)
@example(k=[1, 0, 0], window=2)
def test_subnormal_samples(k: list[int], window: int) -> None:
    x = [v * 5e-324 for v in k]
    assert worst_ulps(MovingAverage(window).filter(x).mean, x, window) <= bound(window)


@settings(max_examples=80, deadline=None)
@given(
    x=st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)), min_size=1, max_size=60),
    window=st.integers(1, 20),
)
def test_pandas_rolling_mean(x: list[float], window: int) -> None:
    """rolling(window, min_periods=1), but for an empty window, where pandas has NaN and ours holds."""
    expected = pd.Series(x).rolling(window, min_periods=1).mean().to_numpy()
    found = MovingAverage(window).filter(x).mean
    some = ~np.isnan(expected)
    np.testing.assert_allclose(found[some], expected[some], rtol=0, atol=8 * EPS * 1e3)


def test_printed_in_other_libraries() -> None:
    np.testing.assert_array_equal(MovingAverage(3).filter([1.0, 3, 5, 7]).mean, [1, 2, 3, 5])  # river rolling


def test_a_constant_comes_out_as_itself() -> None:
    """To an ulp: the sum of three times 0.1 is no float64, so its third may round away."""
    for value in (0.1, 1 / 3, -8e307, 5e-324):
        for window in (1, 3, 7, 199):
            mean = MovingAverage(window).filter(np.full(500, value)).mean
            assert np.max(np.abs(mean - value)) <= math.ulp(value)


def test_nothing_that_left_the_window_leaves_a_trace() -> None:
    """After an outlier of 1e17 and a gap the means are those of a stream that never had them, bit for bit."""
    rng = np.random.default_rng(0)
    clean = rng.normal(size=3000)
    spoilt = clean.copy()
    spoilt[100:110] = 1e17, -3e16, np.nan, np.nan, 8e307, -8e307, 1e-320, np.nan, 7e15, np.nan
    for window in (1, 2, 64, 199):
        a, b = MovingAverage(window).filter(clean).mean, MovingAverage(window).filter(spoilt).mean
        np.testing.assert_array_equal(a[110 + window :], b[110 + window :])


def test_no_drift_over_many_windows() -> None:
    x = 1e6 + np.random.default_rng(1).normal(size=300_000)
    x[5] = 1e17
    for window in (7, 1000):
        mean = MovingAverage(window).filter(x).mean
        for t in (window + 5, 100_000, 299_999):
            exact = math.fsum(x[t - window + 1 : t + 1]) / window
            assert abs(mean[t] - exact) <= math.ulp(exact)


def test_a_value_near_the_largest_leaves_no_trace_among_the_smallest() -> None:
    x = 1e-300 * np.random.default_rng(0).uniform(1.0, 2.0, 40)
    x[0] = 1e300
    for window in (1, 2, 5, 16):
        mean = MovingAverage(window).filter(x).mean
        for t in range(window, 40):
            exact = math.fsum(x[t - window + 1 : t + 1]) / window
            assert abs(mean[t] - exact) <= 2 * math.ulp(exact)


@pytest.mark.slow
def test_no_drift_over_a_hundred_million_samples() -> None:
    """In chunks, so that memory stays small; an outlier, an infinity and a gap on the way."""
    estimator, chunk, chunks = MovingAverage(1000), 1_000_000, 100
    rng = np.random.default_rng(2)
    state = None
    for i in range(chunks):
        x = 1e3 + rng.standard_normal(chunk)
        if i == 3:
            x[1000], x[2000], x[3000:5000] = 1e17, np.inf, np.nan
        out = estimator.filter(x, state=state, on_infinite="missing")
        state = out.state
        for t in (chunk - 1, chunk - 777, 500_000, 999):
            exact_mean = math.fsum(x[t - 999 : t + 1]) / 1000
            assert abs(out.mean[t] - exact_mean) <= 4 * np.spacing(1e3)
    assert state.mean == out.mean[-1]


# --- gaps, state, shapes ------------------------------------------------------------------------------------


def test_gaps() -> None:
    x = [np.nan, 4.0, np.nan, 8.0, np.nan, np.nan, np.nan, 1.0]
    out = MovingAverage(3).filter(x)
    np.testing.assert_array_equal(out.mean, [np.nan, 4, 4, 6, 8, 8, 8, 1])  # held once the window is empty
    np.testing.assert_array_equal(out.gain, [0, 1, 0, 0.5, 0, 0, 0, 1])
    assert out.variance is None
    assert out.state.variance is None


def test_the_state_is_the_window() -> None:
    estimator = MovingAverage(3)
    start = estimator.init(0.0)
    assert math.isnan(start.mean)
    np.testing.assert_array_equal(start.window, [np.nan] * 3)
    state = estimator.filter([1.0, 2.0, np.nan, 6.0]).state
    np.testing.assert_array_equal(state.window, [2.0, np.nan, 6.0])
    assert (state.mean, type(state.mean)) == (4.0, float)
    before = state.window.copy()
    after = estimator.update(state, 9.0)
    np.testing.assert_array_equal(state.window, before)  # pure
    np.testing.assert_array_equal(after.window, [np.nan, 6.0, 9.0])
    assert estimator.state_bytes == 24 == after.window.nbytes


def test_updating_in_place() -> None:
    estimator = MovingAverage(2)
    state = estimator.init(np.zeros(3))
    for row in np.arange(12.0).reshape(4, 3):
        same = estimator.update(state, row, out=state)
        assert same is state
    np.testing.assert_array_equal(state.mean, [7.5, 8.5, 9.5])
    with pytest.raises(TypeError, match="plain floats cannot be written in place"):
        estimator.update(estimator.init(0.0), 1.0, out=estimator.init(0.0))


@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 3), (40, 0), (0,), (0, 3), (1, 2)])
@pytest.mark.parametrize("window", [1, 3, 100])
def test_update_and_filter_agree(shape: tuple[int, ...], window: int) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=shape)
    x[rng.random(shape) < 0.3] = np.nan
    estimator = MovingAverage(window)
    out = estimator.filter(x)
    assert out.mean.shape == out.gain.shape == shape
    state = estimator.init(np.zeros(shape[1:]))
    for t in range(shape[0]):
        state = estimator.update(state, x[t])
        np.testing.assert_allclose(state.mean, out.mean[t], rtol=0, atol=2 * EPS)
    np.testing.assert_allclose(state.mean, out.state.mean, rtol=0, atol=2 * EPS)
    np.testing.assert_array_equal(state.window, out.state.window)
    for cut in (0, 1, shape[0] // 2, shape[0]):
        first = estimator.filter(x[:cut])
        rest = estimator.filter(x[cut:], state=first.state)
        np.testing.assert_allclose(np.concatenate([first.mean, rest.mean]), out.mean, rtol=0, atol=2 * EPS)


def test_float32() -> None:
    x = np.random.default_rng(4).normal(size=(50, 2))
    out = MovingAverage(5).filter(x, dtype=np.float32)
    assert out.mean.dtype == out.state.mean.dtype == np.float32
    assert out.state.window.dtype == np.float64
    np.testing.assert_array_equal(out.mean, MovingAverage(5).filter(x).mean.astype(np.float32))
    held = MovingAverage(1).filter([1 / 3, np.nan, np.nan], dtype=np.float32)
    np.testing.assert_array_equal(held.mean, np.float32(1 / 3))


def test_noise_gain_of_a_run() -> None:
    out = MovingAverage(4).filter([1.0, np.nan, 2.0, 3.0, 4.0, np.nan, np.nan, np.nan, np.nan, 1.0])
    expected = [1, 1, 1 / 2, 1 / 3, 1 / 3, 1 / 3, 1 / 2, 1, 1, 1]
    np.testing.assert_allclose(out.noise_gain, expected, rtol=EPS)


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, -1, 2.5, 3.0, True, None, "3", [3], math.nan, np.float64(3), 1j])
def test_a_bad_window_gets_one_line(window: Any) -> None:
    with pytest.raises(ValueError, match=r"window=.* is not valid; window must be an int >= 1") as caught:
        MovingAverage(window)
    assert "\n" not in str(caught.value)


def test_windows_of_other_integer_types() -> None:
    assert MovingAverage(np.int32(5)) == MovingAverage(5)
    assert type(MovingAverage(np.uint8(5)).window) is int
    assert hash(MovingAverage(np.int64(5))) == hash(MovingAverage(5))


@settings(max_examples=100, deadline=None)
@given(window=st.integers(1, 10**6))
def test_constructors_invert_their_closed_forms(window: int) -> None:
    estimator = MovingAverage(window)
    assert MovingAverage.from_noise_gain(estimator.noise_gain) == estimator
    assert MovingAverage.from_group_delay(estimator.group_delay) == estimator
    assert MovingAverage.from_signal_to_noise(estimator.signal_to_noise) == estimator


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MovingAverage.from_noise_gain(0), "noise_gain=0 is not valid; noise_gain must be in (0, 1]"),
        (lambda: MovingAverage.from_noise_gain(1.5), "noise_gain=1.5"),
        (lambda: MovingAverage.from_noise_gain(5e-324), "noise_gain=5e-324 is not valid"),
        (lambda: MovingAverage.from_noise_gain([0.5]), "a window does not broadcast over channels"),
        (lambda: MovingAverage.from_group_delay(-1), "group_delay=-1"),
        (lambda: MovingAverage.from_group_delay(math.inf), "group_delay=inf"),
        (lambda: MovingAverage.from_signal_to_noise(0), "s=0"),
        (lambda: MovingAverage.from_signal_to_noise("1"), "s='1'"),
        (lambda: MovingAverage.from_signal_to_noise(5e-324), "s=5e-324 is not valid"),
        (lambda: MovingAverage.from_signal_to_noise([1.0, 2.0]), "a window does not broadcast over channels"),
    ],
)
def test_other_bad_settings_get_one_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="MovingAverage") as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_traits() -> None:
    assert MovingAverage(3).traits == {
        Trait.LINEAR,
        Trait.SHIFT_EQUIVARIANT,
        Trait.SCALE_EQUIVARIANT,
        Trait.FINITE_MEMORY,
    }
    assert MovingAverage.State is MovingAverageState


def test_exact_is_exact() -> None:
    assert rational_means([1.0, math.nan, 4.0], 2) == [1, 1, 4]
    assert exact([0.5, 0.25]) == [Fraction(1, 2), Fraction(1, 4)]
