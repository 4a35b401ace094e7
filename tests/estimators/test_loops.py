"""The compiled loops: one answer whatever the shape, layout and company, and what is proved of a gain."""

from __future__ import annotations

import math
import pickle
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from estimators._arithmetic import toward, where
from estimators._recursive import Recursive
from estimators.protocol import Trait

SETTINGS = [
    EMA(0.99),
    EMA(0.9, initial=None),
    EMA(0.0),
    DebiasedEMA(0.99),
    Kalman(1e-4, 1.0),
    Kalman(3.0, 1.0, mean=2.0, variance=0.5),
    Kalman(2.65e-6, 1.0),  # its gain ends between two values, in turn
    Kalman(0.0, 1.0),
    Kalman(1.0, 0.0),
    MovingAverage(1),
    MovingAverage(7),
    MovingAverage(100),
]
each = pytest.mark.parametrize("estimator", SETTINGS, ids=repr)


def stream(*shape: int, gaps: float = 0.0, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(shape) < gaps, np.nan, rng.normal(5.0, 2.0, shape))


def by_update(estimator: Any, x: Any) -> Any:
    state, means = estimator.init(x[0]), []
    for row in x:
        state = estimator.update(state, row if np.ndim(row) else float(row))
        means.append(state.mean)
    return np.array(means)


class TrendState(NamedTuple):
    mean: Any
    slope: Any

    @property
    def variance(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Trend(Recursive):
    """Holt's linear smoothing: time moves the mean, and the slope follows the samples."""

    level_gain: float = 0.2
    slope_gain: float = 0.1

    State = TrendState
    coefficients = ("level_gain", "slope_gain")

    @staticmethod
    def predict(given: Any, state: TrendState) -> TrendState:
        return TrendState(state.mean + state.slope, state.slope)

    @staticmethod
    def correct(given: Any, state: TrendState, sample: Any) -> tuple[TrendState, Any]:
        slope = state.slope + given.slope_gain * (sample - state.mean)
        return TrendState(toward(state.mean, sample, given.level_gain), slope), given.level_gain

    @property
    def traits(self) -> frozenset[Trait]:
        return frozenset({Trait.LINEAR, Trait.SCALE_EQUIVARIANT})

    def _prior(self) -> TrendState:
        return TrendState(0.0, 0.0)


class LevelState(NamedTuple):
    mean: Any

    @property
    def variance(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Clipped(Recursive):
    """An EMA whose gain depends on the sample: far ones count less."""

    gain: float = 0.1

    State = LevelState
    coefficients = ("gain",)

    @staticmethod
    def predict(given: Any, state: LevelState) -> LevelState:
        return state

    @staticmethod
    def correct(given: Any, state: LevelState, sample: Any) -> tuple[LevelState, Any]:
        far = abs(sample - state.mean)
        moved = where(far > 3.0, given.gain * 3.0 / far, given.gain)
        return LevelState(toward(state.mean, sample, moved)), moved

    @property
    def traits(self) -> frozenset[Trait]:
        return frozenset()

    def _prior(self) -> LevelState:
        return LevelState(0.0)


@dataclass(frozen=True, eq=False)
class Branching(Clipped):
    """The same by an ``if``, which is no expression of its inputs."""

    @staticmethod
    def correct(given: Any, state: LevelState, sample: Any) -> tuple[LevelState, Any]:
        moved = given.gain
        if abs(sample - state.mean) > 3.0:
            moved = given.gain * 3.0 / abs(sample - state.mean)
        return LevelState(toward(state.mean, sample, moved)), moved


# --- one answer ---------------------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("gaps", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_channel_has_the_same_bytes_whatever_stands_beside_it(
    estimator: Any, gaps: float, order: Any
) -> None:
    x = np.array(stream(700, 11, gaps=gaps), order=order)
    whole = estimator.filter(x).mean
    for chosen in ([0], [10], [3, 4], [9, 2, 5, 7, 1], list(range(10))):
        part = estimator.filter(np.array(x[:, chosen], order=order)).mean
        np.testing.assert_array_equal(part, whole[:, chosen])
    np.testing.assert_array_equal(estimator.filter(np.asfortranarray(x)).mean, whole)


@each
def test_channels_are_stepped_by_update_to_the_last_bit(estimator: Any) -> None:
    x = stream(400, 3, gaps=0.05)
    np.testing.assert_array_equal(estimator.filter(x).mean, by_update(estimator, x))


@each
@pytest.mark.parametrize("gaps", [0.0, 0.01, 0.3])
def test_a_stream_by_itself_agrees_with_its_steps(estimator: Any, gaps: float) -> None:
    x = stream(6000, gaps=gaps)
    out, bound = estimator.filter(x), 1e-12 * np.nanmax(np.abs(x))
    np.testing.assert_allclose(out.mean, by_update(estimator, x), rtol=0.0, atol=bound)
    column = estimator.filter(x[:, np.newaxis])
    np.testing.assert_allclose(out.mean, column.mean[:, 0], rtol=0.0, atol=bound)
    np.testing.assert_allclose(out.gain, column.gain[:, 0], rtol=1e-12)
    if out.variance is not None:
        np.testing.assert_allclose(out.variance, column.variance[:, 0], rtol=1e-12)


@settings(deadline=None, max_examples=150)
@given(
    q=st.floats(-12, 6).map(lambda e: 10.0**e),
    offset=st.sampled_from([0.0, 1.0, -1e9, 1e15]),
    pattern=st.lists(st.booleans(), min_size=1, max_size=7),
    seed=st.integers(0, 2**16),
)
def test_any_pattern_of_gaps(q: float, offset: float, pattern: list[bool], seed: int) -> None:
    """A pattern that repeats must not pass for a gain that has settled."""
    x = offset + stream(120, seed=seed)
    x[:60][np.resize(pattern, 60)] = np.nan
    kalman = Kalman(q, 1.0)
    got, want = kalman.filter(x).mean, kalman.filter(x[:, np.newaxis]).mean[:, 0]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=0.0, atol=1e-12 * np.nanmax(np.abs(x)))


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.9, 0.999999, 1.0 - 1e-12])
def test_a_constant_comes_out_as_itself_ahead_of_its_recursion(beta: float) -> None:
    for level in (0.1, 1e-300, 1e300, 1.0 / 3.0):
        out = EMA(beta, initial=None).filter(np.full(1000, level))
        assert np.all(out.mean == level)


@pytest.mark.parametrize("at", [0, 1, 7, 8, 9, 63, 64, 500, 998, 999])
def test_infinity_is_found_wherever_it_is(at: int) -> None:
    x = stream(1000)
    x[at] = -math.inf
    for estimator in (EMA(0.9), Kalman(0.1, 1.0), MovingAverage(5)):
        with pytest.raises(ValueError, match=f"infinity at index {at}"):
            estimator.filter(x)
        skipped = estimator.filter(x, on_infinite="missing")
        x_nan = np.where(np.isinf(x), np.nan, x)
        np.testing.assert_array_equal(skipped.mean, estimator.filter(x_nan).mean)
        np.testing.assert_array_equal(skipped.innovation, estimator.filter(x_nan).innovation)


# --- what is proved of a gain -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "settles"),
    [
        (EMA(0.9), True),
        (DebiasedEMA(0.9), True),
        (Kalman(1e-3, 1.0), True),
        (Kalman(0.0, 1.0), True),
        (Trend(), False),
        (Clipped(), False),
        (Branching(), False),
    ],
    ids=repr,
)
def test_a_gain_that_the_data_or_the_time_move_is_never_looked_ahead(estimator: Any, settles: bool) -> None:
    assert estimator._settles is settles
    x = np.concatenate([np.zeros(100), stream(300), np.full(100, 5.0), stream(300, seed=1)])
    both = np.stack([x, -x], axis=1)
    for samples in (x,) if isinstance(estimator, Branching) else (x, both, np.asfortranarray(both)):
        want = by_update(estimator, samples)
        np.testing.assert_allclose(estimator.filter(samples).mean, want, rtol=0.0, atol=1e-12 * 20)


def test_trackers_of_third_party_steps() -> None:
    for estimator in (Trend(), Clipped(), Branching()):
        tracker, state = estimator.tracker(), estimator.init(0.0)
        for sample in stream(50, gaps=0.1):
            state = estimator.update(state, float(sample))
            assert tracker.update(float(sample)) == state.mean
        assert tracker.state == state


@each
def test_a_tracker_takes_what_is_no_float_in_turn(estimator: Any) -> None:
    tracker, state = estimator.tracker(), estimator.init(0.0)
    for sample in (1.0, 2, None, np.float64(3.5), math.nan, np.int64(4), True, 5.0):
        state = estimator.update(state, sample)
        assert tracker.update(sample) == pytest.approx(state.mean, nan_ok=True, abs=0.0)
    for wrong in ("1.0", 1j, math.inf, -math.inf, 1e308):
        with pytest.raises((TypeError, ValueError)):
            tracker.update(wrong)
    assert tracker.mean == state.mean


def test_a_tracker_that_has_seen_an_array_stays_with_arrays() -> None:
    tracker = EMA(0.5).tracker()
    tracker.update(4.0)
    np.testing.assert_array_equal(tracker.update(np.array([0.0, 2.0])), [1.0, 2.0])
    with pytest.raises(ValueError, match=r"x of shape \(\) does not fit a state of shape \(2,\)"):
        tracker.update(2.0)
    np.testing.assert_array_equal(tracker.update(np.array([2.0, 2.0])), [1.5, 2.0])


def test_a_gain_that_has_not_settled_in_all_that_is_kept_of_it_moves_on() -> None:
    x = np.ones(40_000)
    x[32_768:] = 2.0
    assert Kalman(0.0, 1.0).filter(x).mean[-1] == pytest.approx(x.mean(), rel=1e-12)
    for estimator in (DebiasedEMA(0.99999), Kalman(1e-10, 1.0), Kalman(0.0, 1.0)):
        alone, column = estimator.filter(x), estimator.filter(x[:, np.newaxis])
        np.testing.assert_allclose(alone.mean, column.mean[:, 0], rtol=1e-12)
        if alone.variance is not None:
            assert alone.state.variance == column.state.variance[0] == alone.variance[-1]


def test_large_samples_do_not_overflow_ahead() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        x = rng.choice([-1.0, 1.0], 60) * 2.0**1022.9 * rng.uniform(0.5, 1.0, 60)
        for beta in (0.0, 0.5, 0.9):
            alone, column = EMA(beta).filter(x), EMA(beta).filter(x[:, np.newaxis])
            np.testing.assert_allclose(alone.mean, column.mean[:, 0], rtol=0.0, atol=1e-12 * np.abs(x).max())


def test_a_gain_of_two_values_in_turn_has_the_same_bytes_everywhere() -> None:
    kalman = Kalman(q=0.06998828188793928, r=9.842147529995524)
    x = stream(3000, 2)
    rows, streams = kalman.filter(x), kalman.filter(np.asfortranarray(x))
    np.testing.assert_array_equal(rows.mean, streams.mean)
    np.testing.assert_array_equal(rows.state.variance, streams.state.variance)
    np.testing.assert_array_equal(rows.state.variance, rows.variance[-1])
    x[2900, 1] = np.nan
    np.testing.assert_array_equal(kalman.filter(x).gain[:, 0], rows.gain[:, 0])


def test_trackers_are_pickled() -> None:
    for estimator in (EMA(0.9), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(3)):
        tracker = estimator.tracker(on_infinite="missing")
        for sample in (1.0, 2.0, math.inf):
            tracker.update(sample)
        again = pickle.loads(pickle.dumps(tracker))
        assert again.update(4.0) == tracker.update(4.0)
        assert again.update(math.inf) == tracker.update(math.inf)


GAIN = 0.25


@dataclass(frozen=True, eq=False)
class Outside(Clipped):
    """A gain that is read from a global, by a function of the step's own."""

    @staticmethod
    def correct(given: Any, state: LevelState, sample: Any) -> tuple[LevelState, Any]:
        return LevelState(toward(state.mean, sample, GAIN)), GAIN


@dataclass(frozen=True, eq=False)
class Negative(Clipped):
    """Constants that change their meaning where they are written without brackets."""

    @staticmethod
    def correct(given: Any, state: LevelState, sample: Any) -> tuple[LevelState, Any]:
        moved = 0.05 * (-2.0) ** (state.mean * 0.0 + 2.0)
        return LevelState(toward(state.mean, sample, moved)), moved


def test_steps_written_out_follow_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, state = Outside(), LevelState(0.0)
    assert estimator.update(state, 1.0).mean == estimator.filter([1.0]).mean[0] == 0.25
    monkeypatch.setitem(globals(), "GAIN", 0.5)
    assert estimator.update(state, 1.0).mean == estimator.tracker().update(1.0) == 0.5
    assert estimator.filter([1.0]).mean[0] == 0.5
    assert Negative().update(state, 1.0).mean == Negative().filter([1.0]).mean[0] == 0.2
    assert Clipped(np.float64(0.1)).update(state, 1.0).mean == 0.1


# --- errors without estimates -------------------------------------------------------------------------------


@each
@pytest.mark.parametrize("gaps", [0.0, 0.03])
@pytest.mark.parametrize("shape", [(2500,), (2500, 3)], ids=str)
def test_score_is_the_error_of_filter(estimator: Any, gaps: float, shape: tuple[int, ...]) -> None:
    x, level = stream(*shape, gaps=gaps), stream(*shape, seed=1)
    out = estimator.filter(x)
    for truth, errors in ((level, out.mean - level), (None, -np.asarray(out.innovation))):
        score, counted = estimator.score(x, truth, skip=40), errors[40:]
        np.testing.assert_array_equal(score.n, np.sum(~np.isnan(counted), axis=0))
        np.testing.assert_allclose(score.bias, np.nanmean(counted, axis=0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(score.rmse, np.sqrt(np.nanmean(counted**2, axis=0)), rtol=1e-11)


@pytest.mark.parametrize("make", [EMA, DebiasedEMA, lambda b: Kalman.from_beta(b, 2.0)])
def test_a_setting_has_the_same_score_whatever_is_scored_beside_it(make: Any) -> None:
    x, level = stream(3000, gaps=0.001), stream(3000, seed=1)
    betas = 1.0 - np.geomspace(0.5, 1e-3, 300)
    together = make(betas).score(x, level, skip=100)
    for i in (0, 17, 255, 256, 299):
        alone = make(betas[i : i + 1]).score(x, level, skip=100)
        assert (alone.bias[0], alone.rmse[0]) == (together.bias[i], together.rmse[i])
    grid = make(betas[:5, np.newaxis]).score(np.stack([x, x[::-1]], axis=1), level, skip=100)
    assert grid.rmse.shape == (5, 2)
    np.testing.assert_array_equal(grid.rmse[:, 0], together.rmse[:5])


def test_scoring_keeps_no_estimates() -> None:
    estimator, peaks = EMA(np.linspace(0.1, 0.9, 256)), []
    for steps in (50_000, 200_000):
        x = np.zeros(steps)
        estimator.score(x[:10], x[:10])
        tracemalloc.start()
        estimator.score(x, x)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"x": np.zeros((5, 2)), "truth": np.zeros(4)},
            r"truth has shape \(4,\); it must be \(T,\) or \(5, 2\)",
        ),
        ({"x": np.zeros(5), "truth": np.zeros((5, 3))}, r"truth has shape \(5, 3\)"),
        ({"x": np.zeros(5), "skip": -1}, "skip=-1"),
        ({"x": np.array([0.0, np.inf])}, "infinity at index 1"),
    ],
)
def test_what_score_refuses(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EMA(0.9).score(**arguments)


@each
def test_no_channels(estimator: Any) -> None:
    x = np.zeros((30, 0))
    out = estimator.filter(x)
    assert out.mean.shape == out.gain.shape == out.noise_gain.shape == out.replay(x).shape == (30, 0)
    assert estimator.score(x, x).rmse.shape == (0,)


def test_nothing_to_count() -> None:
    with pytest.raises(ValueError, match="infinity"):
        EMA(0.9).score([np.inf])
    score = EMA(0.9).score(np.zeros(5), np.zeros(5), skip=5)
    assert score.n == 0
    assert math.isnan(score.rmse)


# --- streams larger than memory -----------------------------------------------------------------------------


@each
def test_chunks_are_the_stream(estimator: Any) -> None:
    x = stream(1000, 2, gaps=0.05)
    whole = estimator.filter(x)
    results = list(estimator.filter_chunks(iter(np.split(x, [0, 1, 300, 999]))))
    np.testing.assert_array_equal(np.concatenate([part.mean for part in results]), whole.mean)
    np.testing.assert_allclose(np.concatenate([part.gain for part in results]), whole.gain, rtol=1e-12)
    assert results[-1].state._fields == whole.state._fields


def test_a_memory_map_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("estimators._base.CHUNK", 80_000)
    x = np.memmap(tmp_path / "x", np.float64, "w+", shape=(200_000,))
    x[:] = stream(200_000)
    out = np.memmap(tmp_path / "mean", np.float64, "w+", shape=x.shape)
    kalman = Kalman(1e-4, 1.0)
    kalman.filter(x[:100])
    tracemalloc.start()
    lengths = [len(result.mean) for result in kalman.filter_chunks(x, out=out)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lengths == [10_000] * 20
    assert peak < 1_000_000
    np.testing.assert_allclose(out, kalman.filter(np.array(x)).mean, rtol=0, atol=1e-12 * np.abs(x).max())


def test_chunks_that_do_not_fit_their_out() -> None:
    chunks = [np.zeros(3), np.zeros(3)]
    with pytest.raises(ValueError, match="out holds 5 samples; the stream has 6 or more"):
        list(EMA(0.9).filter_chunks(chunks, out=np.zeros(5)))
    with pytest.raises(ValueError, match="out holds 7 samples; the stream has 6"):
        list(EMA(0.9).filter_chunks(chunks, out=np.zeros(7)))


# --- out ----------------------------------------------------------------------------------------------------


@each
def test_replay_and_smooth_write_where_they_are_told(estimator: Any) -> None:
    x, z = stream(60, 2, gaps=0.1), stream(60, 2, seed=1)
    out = np.zeros((60, 2))
    run = estimator.filter(x)
    assert run.replay(z, out=out) is out
    np.testing.assert_array_equal(out, run.replay(z))
    over = z.copy()
    np.testing.assert_array_equal(run.replay(over, out=over), out)
    with pytest.raises(ValueError, match=r"out is float64 of shape \(3,\)"):
        run.replay(z, out=np.zeros(3))
    if isinstance(estimator, Kalman):
        target = np.zeros((60, 2)), np.zeros((60, 2))
        smoothed = estimator.smooth(x, out=target)
        assert smoothed.mean is target[0]
        np.testing.assert_array_equal(target[1], estimator.smooth(x).variance)


def test_update_in_place_from_its_own_memory() -> None:
    state = LevelState(np.arange(4.0))
    moved = Clipped(0.5).update(state, state.mean[::-1], out=state)
    np.testing.assert_array_equal(moved.mean, [1.5, 1.5, 1.5, 1.5])


@pytest.mark.parametrize("shape", [(5,), (2, 3), (1,), (0,)], ids=str)
@each
def test_update_in_place_is_the_pure_one(estimator: Any, shape: tuple[int, ...]) -> None:
    pure = placed = estimator.init(np.zeros(shape))
    placed = type(placed)(*(np.array(field) for field in placed))
    for row in stream(20, *shape, gaps=0.2):
        pure = estimator.update(pure, row)
        assert estimator.update(placed, row, out=placed) is placed
        for one, other in zip(pure, placed, strict=True):
            np.testing.assert_array_equal(one, other)
    if np.prod(shape):
        before = [np.array(field) for field in placed]
        bad = np.ones(shape)
        bad.reshape(-1)[-1] = math.inf
        with pytest.raises(ValueError, match="infinity"):
            estimator.update(placed, bad, out=placed)
        for one, other in zip(before, placed, strict=True):
            np.testing.assert_array_equal(one, other)
