from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from estimators import EMA, DebiasedEMA, FilterResult, Kalman, MovingAverage
from estimators.filterpy import FilterpyKalman

EPS = 2.0**-52
nan, inf = math.nan, math.inf
LINEAR = [
    EMA(0.7),
    EMA(0.7, initial=2.0),
    EMA(0.9, initial=None),
    DebiasedEMA(0.8),
    Kalman(0.1, 1.0),
    Kalman(0.1, 1.0, mean=2.0, variance=3.0),
    MovingAverage(4),
    FilterpyKalman(0.1, 1.0),
]
each = pytest.mark.parametrize("estimator", LINEAR, ids=repr)


def stream(shape: Any = (60,), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    x[rng.random(shape) < 0.2] = np.nan
    return x


# --- what a run returns -------------------------------------------------------------------------------------


@each
def test_a_result_is_frozen_and_brief(estimator: Any) -> None:
    out = estimator.filter(stream())
    assert isinstance(out, FilterResult)
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.mean = 0.0
    assert "_run" not in repr(out)


@each
def test_the_innovation_is_what_the_gain_moves(estimator: Any) -> None:
    """mean += gain (sample - mean): the one idea, on every recursive estimator."""
    x = stream()
    out = estimator.filter(x)
    before = np.concatenate([[estimator.init(0.0).mean], out.mean[:-1]])
    np.testing.assert_array_equal(out.innovation, x - before)
    if isinstance(estimator, MovingAverage):
        return
    moved = before + np.where(np.isnan(x), 0.0, out.gain * np.nan_to_num(out.innovation))
    known = ~np.isnan(before)
    np.testing.assert_allclose(out.mean[known], moved[known], rtol=0, atol=4 * EPS)
    assert np.all((out.gain >= 0) & (out.gain <= 1))
    np.testing.assert_array_equal(out.gain[np.isnan(x)], 0.0)


def test_innovations_go_on_from_a_state() -> None:
    x = stream((40, 2))
    for estimator in LINEAR:
        whole = estimator.filter(x)
        first = estimator.filter(x[:15])
        rest = estimator.filter(x[15:], state=first.state)
        np.testing.assert_allclose(rest.innovation, whole.innovation[15:], rtol=0, atol=4 * EPS)
        if whole.innovation_variance is not None:
            np.testing.assert_allclose(rest.innovation_variance, whole.innovation_variance[15:], rtol=4 * EPS)


def test_where_there_is_no_model_there_is_no_statement() -> None:
    for estimator in (EMA(0.5), DebiasedEMA(0.5), MovingAverage(3)):
        out = estimator.filter(stream())
        assert out.variance is None
        assert out.innovation_variance is None
        assert out.loglikelihood is None
        assert out.interval() is None
        assert out.predictive_interval() is None
        for level in (0, 1, 95, nan, "0.95", None, -0.5):
            for bounds in (out.interval, out.predictive_interval):
                with pytest.raises(ValueError, match=r"level=.* is not valid; level must be a probability"):
                    bounds(level)


# --- Kalman's statements ------------------------------------------------------------------------------------


def test_innovation_variance_and_loglikelihood_by_hand() -> None:
    """q = 1, r = 2, prior N(1, 3): F_1 = 3 + 1 + 2."""
    x = np.array([3.0, nan, 0.0])
    out = Kalman(1.0, 2.0, mean=1.0, variance=3.0).filter(x)
    k1 = 4.0 / 6.0
    m1, p1 = 1.0 + k1 * 2.0, 2.0 * k1
    np.testing.assert_allclose(out.innovation_variance, [6.0, p1 + 3.0, p1 + 4.0], rtol=2 * EPS)
    np.testing.assert_allclose(out.innovation, [2.0, nan, -m1], rtol=2 * EPS)
    expected = stats.norm.logpdf(3.0, 1.0, math.sqrt(6.0)) + stats.norm.logpdf(0.0, m1, math.sqrt(p1 + 4.0))
    assert isinstance(out.loglikelihood, float)
    assert out.loglikelihood == pytest.approx(expected, rel=1e-14)


def test_a_gap_adds_nothing_to_the_likelihood() -> None:
    x = stream()
    kalman = Kalman(0.0, 1.0, mean=0.0, variance=2.0)  # q = 0: time alone changes nothing
    assert kalman.filter(x).loglikelihood == pytest.approx(
        kalman.filter(x[~np.isnan(x)]).loglikelihood, rel=1e-13
    )
    assert Kalman(1.0, 1.0).filter([nan, nan]).loglikelihood == 0.0
    assert Kalman(1.0, 1.0).filter([]).loglikelihood == 0.0
    assert Kalman(1.0, 1.0).filter([5.0]).loglikelihood == 0.0  # a diffuse start: n - 1 terms


def test_loglikelihood_per_channel() -> None:
    x = stream((30, 2, 3))
    kalman = Kalman([0.1, 0.2, 0.3], [[1.0], [2.0]])
    total = kalman.filter(x).loglikelihood
    assert total.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            alone = Kalman(kalman.q[j], kalman.r[i, 0]).filter(x[:, i, j]).loglikelihood
            assert total[i, j] == pytest.approx(alone, rel=1e-13)


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 60), seed=st.integers(0, 10))
def test_the_loglikelihood_of_a_cut_stream_adds_up(cut: int, seed: int) -> None:
    x, kalman = stream(seed=seed), Kalman(0.3, 1.0)
    first = kalman.filter(x[:cut])
    rest = kalman.filter(x[cut:], state=first.state)
    assert first.loglikelihood + rest.loglikelihood == pytest.approx(
        kalman.filter(x).loglikelihood, rel=1e-13
    )


def test_intervals() -> None:
    x = stream((50, 2))
    out = Kalman(0.1, 1.0).filter(x)
    for level, z in ((0.95, 1.959963984540054), (0.5, 0.6744897501960817)):
        low, high = out.interval(level)
        known = np.isfinite(out.variance)
        np.testing.assert_allclose((high - low)[known], 2 * z * np.sqrt(out.variance[known]), rtol=1e-13)
        np.testing.assert_allclose(((high + low) / 2)[known], out.mean[known], rtol=0, atol=1e-15)
        assert NormalDist().cdf(z) == pytest.approx(0.5 + level / 2)
    np.testing.assert_array_equal(out.interval(), out.interval(0.95))


def test_while_nothing_is_known_the_interval_is_the_line() -> None:
    out = Kalman(0.1, 1.0).filter([nan, 2.0, nan])
    low, high = out.interval()
    assert (low[0], high[0]) == (-inf, inf)
    assert np.all(np.isfinite(low[1:]))
    low, high = out.predictive_interval()
    np.testing.assert_array_equal(low[:2], -inf)
    np.testing.assert_array_equal(high[:2], inf)
    assert np.all(np.isfinite([low[2], high[2]]))


def test_row_t_bounds_sample_t_before_it_was_seen() -> None:
    x = stream()
    kalman = Kalman(0.1, 1.0, mean=0.5, variance=2.0)
    low, high = kalman.filter(x).predictive_interval(0.9)
    changed = x.copy()
    changed[30] = 1e6
    again_low, again_high = kalman.filter(changed).predictive_interval(0.9)
    np.testing.assert_array_equal(again_low[:31], low[:31])
    np.testing.assert_array_equal(again_high[:31], high[:31])
    assert again_low[31] > high[31]
    for t in (0, 1, 17, 59):
        state = kalman.filter(x[:t]).state
        width = 1.6448536269514722 * math.sqrt(state.variance + 0.1 + 1.0)
        np.testing.assert_allclose([low[t], high[t]], [state.mean - width, state.mean + width], rtol=1e-13)


def test_stated_coverage_is_kept_on_the_model() -> None:
    """20,000 samples of the model: shares within four standard errors of what was stated."""
    rng = np.random.default_rng(1)
    steps, q, r, level = 20_000, 0.2, 1.5, 0.9
    level_path = np.cumsum(rng.normal(scale=math.sqrt(q), size=steps))
    x = level_path + rng.normal(scale=math.sqrt(r), size=steps)
    out = Kalman(q, r).filter(x)
    error = 4 * math.sqrt(level * (1 - level) / (steps - 1))
    low, high = out.predictive_interval(level)
    assert abs(np.mean((low <= x) & (x <= high)) - level) < error
    low, high = out.interval(level)
    inside = (low <= level_path) & (level_path <= high)
    assert abs(np.mean(inside) - level) < 2 * error  # neighbouring errors are correlated
    z = out.innovation[1:] / np.sqrt(out.innovation_variance[1:])
    assert abs(np.mean(z**2) - 1.0) < 4 * math.sqrt(2.0 / steps)
    assert abs(np.mean(z[1:] * z[:-1])) < 4 / math.sqrt(steps)  # innovations are white


def test_results_keep_pandas() -> None:
    x = pd.Series([1.0, None, 3.0], index=["a", "b", "c"], name="v")
    out = Kalman(0.1, 1.0).filter(x)
    values = [out.variance, out.innovation, out.innovation_variance, out.noise_gain, out.replay(x)]
    for value in [*values, *out.interval(), *out.predictive_interval()]:
        assert isinstance(value, pd.Series)
        assert list(value.index) == ["a", "b", "c"]
    assert isinstance(out.loglikelihood, float)


def test_float32_results() -> None:
    x = stream((30, 2))
    kalman = Kalman(0.1, 1.0, mean=1.0, variance=2.0)
    single, double = kalman.filter(x, dtype=np.float32), kalman.filter(x)
    assert single.mean.dtype == single.state.mean.dtype == np.float32
    assert single.state.variance.dtype == np.float64
    np.testing.assert_allclose(single.mean, double.mean, atol=1e-6)
    assert single.loglikelihood == pytest.approx(double.loglikelihood, rel=1e-5)
    np.testing.assert_allclose(single.predictive_interval(), double.predictive_interval(), atol=1e-5)


@each
def test_a_float32_mean_is_rounded_at_every_sample(estimator: Any) -> None:
    """So that a stream filtered, cut anywhere, or fed sample by sample gives the same bits."""
    x = np.cumsum(0.01 * np.random.default_rng(5).normal(size=(300, 2)), axis=0)
    x[::9] = np.nan
    out = estimator.filter(x, dtype=np.float32)
    state = estimator.init(x[0], dtype=np.float32)
    for t, row in enumerate(x):
        state = estimator.update(state, row)
        assert state.mean.dtype == np.float32
        if isinstance(estimator, MovingAverage):  # two ways to the same exact sum
            np.testing.assert_allclose(state.mean, out.mean[t], rtol=1e-7)
        else:
            np.testing.assert_array_equal(state.mean, out.mean[t])
    rest = estimator.filter(x[123:], state=estimator.filter(x[:123], dtype=np.float32).state)
    np.testing.assert_array_equal(rest.mean, out.mean[123:])


# --- replay -------------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("shape", [(60,), (60, 2)])
def test_a_run_replayed_on_its_own_stream_is_itself(estimator: Any, shape: Any) -> None:
    x = stream(shape)
    out = estimator.filter(x)
    prior = np.nan_to_num(estimator.init(x[0]).mean)
    again = out.replay(np.nan_to_num(x), initial=prior)
    np.testing.assert_allclose(again, out.mean, rtol=0, atol=8 * EPS * 3)
    np.testing.assert_allclose(out.replay(x, initial=prior), out.mean, rtol=0, atol=8 * EPS * 3)


@each
def test_estimate_is_replayed_signal_plus_replayed_noise(estimator: Any) -> None:
    rng = np.random.default_rng(2)
    signal, noise = np.cumsum(rng.normal(size=80)), rng.normal(size=80)
    x = signal + noise
    x[[0, 1, 30]] = np.nan
    out = estimator.filter(x)
    prior = np.nan_to_num(estimator.init(0.0).mean)
    total = out.replay(signal, initial=prior) + out.replay(noise)
    np.testing.assert_allclose(total, out.mean, rtol=0, atol=1e-13)


@each
def test_replay_goes_on_from_a_state(estimator: Any) -> None:
    x = stream()
    z = np.random.default_rng(3).normal(size=60)
    first = estimator.filter(x[:20])
    rest = estimator.filter(x[20:], state=first.state)
    if isinstance(estimator, MovingAverage):
        # its map reaches back into the window: with a constant past of 5 that is replay's initial
        held = rest.replay(np.full(40, 5.0), initial=5.0)
        np.testing.assert_allclose(held, 5.0, rtol=2 * EPS)
        return
    whole = estimator.filter(x).replay(z)
    np.testing.assert_allclose(rest.replay(z[20:], initial=whole[19]), whole[20:], rtol=0, atol=1e-14)


@each
def test_noise_gain_is_the_sum_of_squared_weights(estimator: Any) -> None:
    """One replay of a unit pulse per sample gives the whole matrix of weights."""
    x = stream((25,))
    out = estimator.filter(x)
    weights = np.stack([out.replay(np.eye(1, 25, k)[0]) for k in range(25)], axis=1)
    expected = np.nansum(weights**2, axis=1)
    some = ~np.isnan(out.mean) & (expected > 0)
    np.testing.assert_allclose(np.asarray(out.noise_gain)[some], expected[some], rtol=1e-12)


def test_a_constant_replays_as_itself_without_a_prior() -> None:
    x = stream()
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(5)):
        out = estimator.filter(x)
        ones = out.replay(np.full(60, 3.0), initial=1e9)  # initial: without effect where nothing was known
        np.testing.assert_allclose(ones[~np.isnan(out.mean)], 3.0, rtol=8 * EPS)
        np.testing.assert_array_equal(np.isnan(ones), np.isnan(out.mean))


def test_replay_broadcasts_one_stream_over_channels() -> None:
    out = Kalman([0.1, 1.0], 1.0).filter(stream())
    z = np.random.default_rng(4).normal(size=60)
    np.testing.assert_array_equal(out.replay(z), out.replay(np.stack([z, z], axis=1)))


@pytest.mark.parametrize(
    ("z", "initial", "error", "message"),
    [
        (np.zeros(59), 0.0, ValueError, "z has 59 samples; this run had 60"),
        (np.zeros((60, 3)), 0.0, ValueError, "z of shape (60, 3) and initial of shape () must"),
        (np.zeros(60), [1.0, 2.0, 3.0], ValueError, "initial of shape (3,) must broadcast to (T, *channels)"),
        (np.full(60, nan), 0.0, ValueError, "z is missing where this run had a sample"),
        (np.full(60, inf), 0.0, ValueError, "z holds infinity"),
        (["a"] * 60, 0.0, TypeError, "z holds text"),
        (3.0, 0.0, ValueError, "has no time axis"),
        ([[1.0], [2.0, 3.0]], 0.0, ValueError, "z is ragged"),
    ],
    ids=["length", "channels", "initial", "missing", "infinity", "text", "scalar", "ragged"],
)
def test_replay_errors(z: Any, initial: Any, error: Any, message: str) -> None:
    out = EMA([[0.5], [0.6]]).filter(stream((60, 2)))
    with pytest.raises(error) as caught:
        out.replay(z, initial=initial)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- out, dtype, shapes -------------------------------------------------------------------------------------


@each
def test_filter_writes_where_it_is_told(estimator: Any) -> None:
    x = stream((20, 3))
    expected = estimator.filter(x).mean
    for buffer in (np.empty((20, 3)), np.empty((3, 20)).T, np.empty((40, 6))[::2, ::2]):
        out = estimator.filter(x, out=buffer)
        assert out.mean is buffer
        np.testing.assert_array_equal(buffer, expected)
    same = x.copy()
    out = estimator.filter(same, out=same)  # over its own input
    np.testing.assert_array_equal(same, expected)
    np.testing.assert_array_equal(out.innovation[1:], (x - np.roll(expected, 1, axis=0))[1:])
    single = np.empty((20, 3), np.float32)
    assert estimator.filter(x, out=single).mean is single


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        ([0.0] * 4, TypeError, "out must be a writeable NumPy array"),
        (np.broadcast_to(0.0, (4,)), TypeError, "out must be a writeable NumPy array"),
        (np.empty(5), ValueError, "out is float64 of shape (5,); the mean needs float64 of shape (4,)"),
        (np.empty(4, np.int64), ValueError, "dtype"),
        (np.empty(4, np.float16), ValueError, "dtype"),
    ],
)
def test_out_errors(out: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        EMA(0.5).filter(np.zeros(4), out=out)
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, np.int64, complex, "U3"])
def test_dtype_errors(dtype: Any) -> None:
    for call in (lambda: EMA(0.5).filter([1.0], dtype=dtype), lambda: EMA(0.5).init(1.0, dtype=dtype)):
        with pytest.raises(ValueError, match=r"dtype=.* is not valid; it must be float64 or float32"):
            call()
    with pytest.raises(ValueError, match=r"out is float32 of shape .* the mean needs float64"):
        EMA(0.5).filter([1.0], out=np.empty(1, np.float32), dtype=np.float64)


def test_the_mean_age_of_the_weights_is_the_settled_delay() -> None:
    x = np.random.default_rng(0).standard_normal((3000, 2))
    run = EMA(0.9, initial=None).filter(x)
    np.testing.assert_allclose(run.mean_age[-1], 9.0, rtol=1e-9)
    np.testing.assert_array_equal(run.mean_age[0], 0.0)
    window = MovingAverage(5).filter(x[:, 0])
    np.testing.assert_allclose(window.mean_age[10:], 2.0, rtol=1e-9)
