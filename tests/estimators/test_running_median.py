from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from estimators import MovingAverage, Trait
from estimators import running_median as module
from estimators.checks import yield_checks
from estimators.protocol import LinearEstimator
from estimators.running_median import RunningMedian, RunningMedianState

WINDOWS = [1, 2, 3, 7, 20, 199]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(RunningMedian(window), check, id=f"{window}-{check.__name__}")
        for window in WINDOWS
        for check in yield_checks(RunningMedian(window))
    ],
)
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.fixture(params=[True, False], ids=["abreast", "heaps"])
def either_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_abreast", lambda shape: request.param)


def medians(x: Any, window: int) -> Any:
    """NumPy's median of each window, held where it is empty."""
    found: list[float] = []
    for t in range(len(x)):
        inside = np.asarray(x[max(0, t - window + 1) : t + 1], dtype=np.float64)
        present = inside[~np.isnan(inside)]
        found.append(np.median(present) if present.size else found[-1] if found else math.nan)
    return np.array(found)


def chosen(x: Any, window: int) -> list[list[int]]:
    """Indices of the middle samples of each window, of equal ones the older first; held where it is empty."""
    found: list[list[int]] = []
    for t in range(len(x)):
        present = [i for i in range(max(0, t - window + 1), t + 1) if x[i] == x[i]]
        ranked = sorted(present, key=lambda i: (x[i], i))
        middle = [ranked[(len(ranked) - 1) // 2], ranked[len(ranked) // 2]] if ranked else None
        found.append(middle or (found[-1] if found else []))
    return found


sample = st.one_of(
    st.floats(-1e9, 1e9),
    st.just(math.nan),
    st.integers(-3, 3).map(float),
    st.sampled_from([1e17, -1e17, 8.9e307, -8.9e307, 5e-324, -0.0]),
)


@settings(max_examples=150, deadline=None)
@given(x=st.lists(sample, min_size=1, max_size=60), window=st.integers(1, 25))
@example(x=[8.9e307] * 10, window=4)
@example(x=[-8.9e307] * 10, window=2)
@example(x=[5e-324, 5e-324, 0.0, 1e-323], window=2)
@example(x=[math.nan, 1.0, math.nan, math.nan, math.nan, 2.0], window=2)
@example(x=[1.0] * 60, window=7)
def test_numpys_median_to_the_last_bit(x: list[float], window: int) -> None:
    estimator, expected = RunningMedian(window), medians(x, window)
    np.testing.assert_array_equal(estimator.filter(x).mean, expected)
    tracker = estimator.tracker()
    np.testing.assert_array_equal([tracker.update(v) for v in x], expected)


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.lists(sample, min_size=3, max_size=3), min_size=1, max_size=40), window=st.integers(1, 12)
)
def test_many_channels_by_either_loop(x: list[list[float]], window: int) -> None:
    estimator, rows = RunningMedian(window), np.array(x)
    expected = np.stack([medians(column, window) for column in rows.T], axis=1)
    state = estimator.init(rows[0])
    for t, row in enumerate(rows):
        state = estimator.update(state, row)
        np.testing.assert_array_equal(state.mean, expected[t])
    for abreast in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_abreast", lambda shape, chosen=abreast: chosen)
            for cut in (0, len(rows) // 2):
                first = estimator.filter(rows[:cut])
                rest = estimator.filter(rows[cut:], state=first.state)
                np.testing.assert_array_equal(np.concatenate([first.mean, rest.mean]), expected)


@settings(max_examples=100, deadline=None)
@given(x=st.lists(sample, min_size=1, max_size=50), window=st.integers(1, 15))
@example(x=[1.0, 1.0, 1.0, 1.0, math.nan, 1.0], window=3)
def test_equal_samples_are_chosen_in_order_of_arrival(x: list[float], window: int) -> None:
    """Wherever the stream is cut: which samples are chosen follows from the window alone."""
    estimator, expected = RunningMedian(window), chosen(x, window)
    weights = np.zeros((len(x), len(x)))
    for t, middle in enumerate(expected):
        for i in middle:
            weights[t, i] += 0.5
    run = estimator.filter(x)
    np.testing.assert_array_equal(run.gain, np.diag(weights))
    power = [np.sum(row**2) if middle else math.nan for row, middle in zip(weights, expected, strict=True)]
    np.testing.assert_array_equal(run.noise_gain, power)
    cut = len(x) // 3
    first = estimator.filter(x[:cut])
    rest = estimator.filter(x[cut:], state=first.state)
    np.testing.assert_array_equal(np.concatenate([first.gain, rest.gain]), run.gain)
    own = np.sum(weights[cut:, cut:] ** 2, axis=1)
    np.testing.assert_array_equal(rest.noise_gain, np.where(np.isnan(power[cut:]), np.nan, own))


@settings(max_examples=80, deadline=None)
@given(
    x=st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(math.nan)), min_size=1, max_size=60),
    window=st.integers(1, 20),
)
def test_pandas_rolling_median(x: list[float], window: int) -> None:
    """rolling(window, min_periods=1), but for an empty window, where pandas has NaN and ours holds."""
    expected = pd.Series(x).rolling(window, min_periods=1).median().ffill().to_numpy()
    np.testing.assert_array_equal(RunningMedian(window).filter(x).mean, expected)


@pytest.mark.usefixtures("either_loop")
@pytest.mark.parametrize("window", [1, 2, 21, 64, 700])
def test_pandas_over_tiles_and_blocks(window: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1300, 19)).round(1)
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:, 3] = np.nan
    x[200:1100, 4] = np.nan
    expected = pd.DataFrame(x).rolling(window, min_periods=1).median().ffill().to_numpy()
    np.testing.assert_array_equal(RunningMedian(window).filter(x).mean, expected)
    wide = np.tile(x[:100], (1, 15))
    np.testing.assert_array_equal(RunningMedian(window).filter(wide).mean, np.tile(expected[:100], (1, 15)))


@pytest.mark.parametrize("window", [1, 2, 5, 20])
def test_replay_of_itself_is_the_mean_to_the_last_bit(window: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(700, 9)).round(1)
    x[rng.random(x.shape) < 0.3] = np.nan
    run = RunningMedian(window).filter(x)
    np.testing.assert_array_equal(run.replay(x), run.mean)
    onward = RunningMedian(window).filter(x, state=run.state)
    weight_before = onward.replay(np.zeros(x.shape), initial=1.0)
    assert set(np.unique(weight_before)) <= {0.0, 0.5, 1.0}
    np.testing.assert_array_equal(onward.replay(np.ones(x.shape), initial=1.0), np.ones(x.shape))


def test_signal_and_noise_add_up() -> None:
    rng = np.random.default_rng(2)
    signal, noise = np.cumsum(rng.normal(size=(500, 3)), axis=0), rng.standard_t(2, size=(500, 3))
    x = signal + noise
    x[rng.random(x.shape) < 0.1] = np.nan
    for window in (3, 8):
        first = RunningMedian(window).filter(x[:250])
        rest = RunningMedian(window).filter(x[250:], state=first.state)
        np.testing.assert_allclose(
            first.replay(signal[:250]) + first.replay(noise[:250]), first.mean, atol=1e-12
        )
        parts = rest.replay(signal[250:], initial=7.0) + rest.replay(noise[250:], initial=-7.0)
        known = rest.replay(np.zeros((250, 3)), initial=1.0) == 0.0
        np.testing.assert_allclose(parts[known], rest.mean[known], atol=1e-12)


def test_a_held_median_is_replayed_as_what_it_was() -> None:
    run = RunningMedian(2).filter([np.nan, 4.0, np.nan, np.nan, np.nan, 6.0])
    np.testing.assert_array_equal(run.mean, [np.nan, 4, 4, 4, 4, 6])
    np.testing.assert_array_equal(run.gain, [0, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(run.noise_gain, [np.nan, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(run.replay([0.0, 1, 2, 3, 4, 5], initial=9.0), [np.nan, 1, 1, 1, 1, 5])
    state = RunningMedianState(3.0, np.full(2, np.nan))
    rest = RunningMedian(2).filter([np.nan, np.nan, 1.0], state=state)
    np.testing.assert_array_equal(rest.mean, [3, 3, 1])
    np.testing.assert_array_equal(rest.replay([0.0, 0.0, 5.0], initial=9.0), [9, 9, 5])
    np.testing.assert_array_equal(rest.noise_gain, [0, 0, 1])


def test_chunks() -> None:
    x = np.random.default_rng(3).normal(size=(900, 4)).round(1)
    x[100:200] = np.nan
    for window in (3, 50):
        estimator = RunningMedian(window)
        whole = estimator.filter(x)
        parts = list(estimator.filter_chunks([x[:1], x[1:150], x[150:150], x[150:]]))
        np.testing.assert_array_equal(np.concatenate([p.mean for p in parts]), whole.mean)
        np.testing.assert_array_equal(np.concatenate([p.gain for p in parts]), whole.gain)
        np.testing.assert_array_equal(parts[-1].state.window, whole.state.window)


# --- robustness ---------------------------------------------------------------------------------------------


def test_one_spike_leaves_no_trace() -> None:
    rng = np.random.default_rng(4)
    clean = rng.normal(size=2000)
    spoilt = clean.copy()
    spoilt[1000] = 1e15
    for window in (3, 20, 199):
        a, b = RunningMedian(window).filter(clean).mean, RunningMedian(window).filter(spoilt).mean
        assert np.max(np.abs(a - b)) <= np.ptp(clean)
        np.testing.assert_array_equal(a[:1000], b[:1000])
        np.testing.assert_array_equal(a[1000 + window :], b[1000 + window :])
    held = np.full(2000, 0.1)
    held[1000] = 1e15
    np.testing.assert_array_equal(RunningMedian(3).filter(held).mean, np.full(2000, 0.1))


def test_two_outliers_in_five_do_not_move_it() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=20_000)
    bad = np.arange(x.size) % 5 < 2
    spoilt = np.where(bad, 1e15 * rng.choice([-1.0, 1.0], x.size), x)
    mean = RunningMedian(101).filter(spoilt).mean[101:]
    assert np.max(np.abs(mean)) <= 3.0
    assert np.max(np.abs(MovingAverage(101).filter(spoilt).mean[101:])) > 1e12


@pytest.mark.slow
def test_noise_left_of_gaussian_and_laplacian_samples() -> None:
    """pi/2 of the mean's, and half of it from above: for Laplacian noise N = 101 is 16 % from the limit."""
    rng = np.random.default_rng(6)
    size = 101, 40_000
    for x, low, high in (
        (rng.normal(size=size), 0.97 * math.pi / 2, 1.03 * math.pi / 2),
        (rng.laplace(size=size) / math.sqrt(2.0), 0.5, 0.62),
    ):
        left = 101 * np.var(RunningMedian(101).filter(x).mean[-1])
        assert low < left < high


# --- gaps, state, shapes ------------------------------------------------------------------------------------


def test_gaps() -> None:
    x = [np.nan, 4.0, np.nan, 8.0, 9.0, 1.0, np.nan, np.nan, np.nan, 1.0]
    out = RunningMedian(3).filter(x)
    np.testing.assert_array_equal(out.mean, [np.nan, 4, 4, 6, 8.5, 8, 5, 1, 1, 1])
    np.testing.assert_array_equal(out.gain, [0, 1, 0, 0.5, 0.5, 0, 0, 0, 0, 1])
    assert out.variance is None
    assert out.state.variance is None


def test_the_state_is_the_window() -> None:
    estimator = RunningMedian(3)
    start = estimator.init(0.0)
    assert math.isnan(start.mean)
    state = estimator.filter([1.0, 2.0, np.nan, 6.0]).state
    assert isinstance(state, RunningMedianState)
    np.testing.assert_array_equal(state.window, [2.0, np.nan, 6.0])
    assert (state.mean, type(state.mean)) == (4.0, float)
    after = estimator.update(state, 9.0)
    np.testing.assert_array_equal(after.window, [np.nan, 6.0, 9.0])
    assert after.mean == 7.5
    assert estimator.state_bytes == 24 == after.window.nbytes
    assert estimator.effective_window == 3.0
    with pytest.raises(TypeError, match="state is a MovingAverageState"):
        estimator.filter([1.0], state=MovingAverage(3).init(0.0))


@pytest.mark.usefixtures("either_loop")
@pytest.mark.parametrize("shape", [(40,), (40, 3), (40, 2, 3), (40, 0), (0,), (0, 3), (1, 2)])
@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_shapes(shape: tuple[int, ...], window: int) -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=shape)
    x[rng.random(shape) < 0.3] = np.nan
    estimator = RunningMedian(window)
    out = estimator.filter(x)
    assert out.mean.shape == out.gain.shape == out.noise_gain.shape == out.replay(x).shape == shape
    state = estimator.init(np.zeros(shape[1:]))
    for t in range(shape[0]):
        state = estimator.update(state, x[t])
        np.testing.assert_array_equal(state.mean, out.mean[t])
    np.testing.assert_array_equal(state.window, out.state.window)


@pytest.mark.usefixtures("either_loop")
def test_float32() -> None:
    x = np.random.default_rng(8).normal(size=(50, 2))
    x[20:28] = np.nan
    out = RunningMedian(5).filter(x, dtype=np.float32)
    assert out.mean.dtype == out.state.mean.dtype == np.float32
    assert out.state.window.dtype == np.float64
    np.testing.assert_array_equal(out.mean, RunningMedian(5).filter(x).mean.astype(np.float32))


@pytest.mark.usefixtures("either_loop")
def test_what_is_too_large_is_missing_and_reported() -> None:
    estimator = RunningMedian(3)
    x = np.array([[1.0, 5.0], [np.inf, 6.0], [2.0, 1e39], [3.0, 7.0]])
    for dtype, gone in ((np.float64, np.isinf(x)), (np.float32, x > 1e38)):
        with pytest.raises(ValueError, match="infinity"):
            estimator.filter(x, dtype=dtype)
        got = estimator.filter(x, dtype=dtype, on_infinite="missing")
        want = estimator.filter(np.where(gone, np.nan, x), dtype=dtype)
        for name in ("mean", "gain", "noise_gain"):
            np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        np.testing.assert_array_equal(got.state.window, want.state.window)


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0, -1, 2.5, 3.0, True, None, "3", [3], math.nan])
def test_a_bad_window_gets_one_line(window: Any) -> None:
    with pytest.raises(ValueError, match=r"RunningMedian: window=.* is not valid; .* an int >= 1") as caught:
        RunningMedian(window)
    assert "\n" not in str(caught.value)


def test_traits_follow_the_window() -> None:
    shared = {Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.FINITE_MEMORY}
    assert RunningMedian(3).traits == shared
    assert RunningMedian(1).traits == RunningMedian(2).traits == shared | {Trait.LINEAR}
    assert not isinstance(RunningMedian(2), LinearEstimator)
    assert RunningMedian.memory == "window"


@pytest.mark.parametrize("window", [1, 2])
def test_one_or_two_samples_are_a_moving_average(window: int) -> None:
    x = np.random.default_rng(9).normal(size=100)
    ours, mean = RunningMedian(window).filter(x), MovingAverage(window).filter(x)
    np.testing.assert_array_equal(ours.mean, mean.mean)
    np.testing.assert_array_equal(ours.gain, mean.gain)
    np.testing.assert_array_equal(ours.noise_gain, mean.noise_gain)


def test_windows_of_other_integer_types() -> None:
    for kind in (np.int32, np.uint8):
        given: Any = kind(5)
        assert RunningMedian(given) == RunningMedian(5) != MovingAverage(5)
        assert hash(RunningMedian(given)) == hash(RunningMedian(5))
