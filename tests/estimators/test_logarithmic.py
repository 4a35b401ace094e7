"""Log: against logarithms by hand, on simulated lognormal streams, and the contract over inner estimators."""

from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import contract
from scipy import stats

from estimators import (
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    LinearEstimator,
    LocalTrend,
    Log,
    MovingAverage,
    RunningMedian,
    SwitchingKalman,
    Trait,
)
from estimators.logarithmic import lognormal_variance

nan, inf = math.nan, math.inf
SETTINGS = [
    Log(EMA(0.9)),
    Log(EMA(0.0)),
    Log(EMA(0.9, initial=2.0)),
    Log(EMA(0.99, initial=None)),
    Log(EMA([0.0, 0.5, 0.99])),
    Log(EMA(np.array([[0.1], [0.9]]), initial=np.array([0.0, 2.0, 3.0]))),
    Log(DebiasedEMA(0.9)),
    Log(DebiasedEMA([0.2, 0.99])),
    Log(Kalman(1e-2, 1.0)),
    Log(Kalman(1.0, 0.0)),
    Log(Kalman(0.0, 1.0)),
    Log(Kalman(0.1, 1.0, mean=2.0, variance=4.0)),
    Log(Kalman(0.1, 1.0, mean=2.0, variance=0.0)),
    Log(Kalman([0.0, 1e-4, 0.1, 1.0], [1.0, 1.0, 1.0, 0.0])),
    Log(Kalman(0.1, [1.0, 2.0], mean=[nan, 3.0], variance=[inf, 1.0])),
    Log(Kalman(1e-2, 1.0), unbiased="mean"),
    Log(Kalman([0.0, 1e-4, 0.1, 0.2], [1.0, 1.0, 1.0, 0.5]), unbiased="mean"),
    Log(EMAWithVariance(0.9)),
    Log(MovingAverage(1)),
    Log(MovingAverage(7)),
    Log(MovingAverage(199)),
    Log(RunningMedian(5)),
    Log(LocalTrend(0.1, 0.01, 1.0)),
    Log(Holt(0.5, 0.1)),
    Log(SwitchingKalman(0.01, 1.0)),
]
FEW = [Log(EMA(0.9)), Log(DebiasedEMA(0.9)), Log(Kalman(0.1, 1.0)), Log(MovingAverage(3))]
FEW += [Log(Kalman(0.1, 1.0, 2.0, 3.0), "mean"), Log(LocalTrend(0.1, 0.01, 1.0))]
each = pytest.mark.parametrize("estimator", FEW, ids=lambda e: "".join(repr(e).split()))


def positive(shape: Any = (40,), *, seed: int = 0, gaps: bool = True) -> Any:
    rng = np.random.default_rng(seed)
    x = np.exp(rng.normal(size=shape))
    if gaps:
        x[rng.random(shape) < 0.2] = nan
    return x


def walk(shape: Any, q: float, r: float, start: Any = 0.0, *, seed: int = 0) -> tuple[Any, Any]:
    """Level and samples of a lognormal random walk."""
    rng = np.random.default_rng(seed)
    log_level = start + np.cumsum(math.sqrt(q) * rng.normal(size=shape), axis=0)
    return np.exp(log_level), np.exp(log_level + math.sqrt(r) * rng.normal(size=shape))


def start_of(estimator: Any) -> float:
    """What the stream was before any sample, as replay wants it."""
    log_mean = estimator.init(1.0).log_mean
    return 1.0 if math.isnan(log_mean) else math.exp(log_mean)


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- mean, bounds, variance ---------------------------------------------------------------------------------


def test_ema_of_logarithms_by_hand() -> None:
    x, m, want = positive(), 0.0, []
    for value in x:
        m = m if math.isnan(value) else 0.9 * m + 0.1 * math.log(value)
        want.append(math.exp(m))
    np.testing.assert_allclose(Log(EMA(0.9)).filter(x).mean, want, rtol=1e-13)


def test_moving_average_is_the_geometric_mean() -> None:
    x = positive(gaps=False)
    want = [stats.gmean(x[max(0, t - 4) : t + 1]) for t in range(len(x))]
    np.testing.assert_allclose(Log(MovingAverage(5)).filter(x).mean, want, rtol=1e-13)


@each
def test_all_is_what_the_inner_estimator_says_of_logarithms(estimator: Any) -> None:
    x = positive((40, 3))
    got, inner = estimator.filter(x), estimator.estimator.filter(np.log(x))
    half = (
        0.5 * np.where(np.isinf(inner.variance), 0.0, inner.variance) if estimator.unbiased == "mean" else 0
    )
    np.testing.assert_allclose(got.mean, np.exp(inner.mean + half), rtol=1e-12)
    np.testing.assert_array_equal(got.gain, inner.gain)
    np.testing.assert_array_equal(got.noise_gain, inner.noise_gain)
    for name, value in inner.state._asdict().items():
        np.testing.assert_array_equal(getattr(got.state, f"log_{name}"), value)
    if inner.variance is None:
        assert (got.variance, got.state.variance, got.interval(), got.loglikelihood) == (None,) * 4
        return
    np.testing.assert_allclose(got.interval(0.9), np.exp(inner.interval(0.9)), rtol=1e-13)
    theirs = inner.predictive_interval(0.9)
    np.testing.assert_allclose(got.predictive_interval(0.9), np.exp(theirs), rtol=1e-13)


def test_moments_are_those_of_the_lognormal() -> None:
    x = positive(gaps=False)
    for unbiased in ("median", "mean"):
        got, inner = Log(Kalman(0.1, 0.5), unbiased).filter(x), Kalman(0.1, 0.5).filter(np.log(x))
        law = stats.lognorm(np.sqrt(inner.variance), scale=np.exp(inner.mean))
        np.testing.assert_allclose(got.mean, getattr(law, unbiased)(), rtol=1e-12)
        np.testing.assert_allclose(got.variance, law.var(), rtol=1e-12)
        np.testing.assert_allclose(got.interval(0.8), law.interval(0.8), rtol=1e-12)
        size = np.sqrt(inner.innovation_variance)[1:]
        ahead = stats.lognorm(size, scale=np.exp(inner.prediction[1:]))
        np.testing.assert_allclose(got.innovation_variance[1:], ahead.var(), rtol=1e-12)
        assert got.innovation_variance[0] == inf


def test_bounds_are_not_symmetric_and_never_negative() -> None:
    out = Log(Kalman(0.1, 1.0)).filter([nan, 3.0, 2.0])
    low, high = out.interval()
    assert (low[0], high[0]) == (0.0, inf)
    np.testing.assert_allclose(low[1:] * high[1:], out.mean[1:] ** 2, rtol=1e-12)
    assert np.all(low[1:] > 0.0)
    assert np.all((high - out.mean)[1:] > (out.mean - low)[1:])


@pytest.mark.parametrize(
    ("m", "variance", "want"),
    [
        (0.0, 0.0, 0.0),
        (3.0, 1e-20, math.exp(6.0) * 1e-20),
        (0.0, inf, inf),
        (nan, inf, inf),
        (-900.0, 900.0, 1.0),  # exp(P) alone would overflow
        (0.0, 1000.0, inf),
    ],
)
def test_lognormal_variance_at_the_edges(m: float, variance: float, want: float) -> None:
    with np.errstate(all="ignore"):
        got = lognormal_variance(np.array([m]), np.array([variance]))
    np.testing.assert_allclose(got, [want], rtol=1e-12)
    np.testing.assert_allclose(lognormal_variance(m, variance), want, rtol=1e-12)


def test_levels_beyond_the_largest_number_are_infinite() -> None:
    steep = Log(Holt(1.0, 1.0))
    state = steep.filter([1.0, 1e200]).state
    for _ in range(2):
        state = steep.update(state, None)
    assert state.mean == inf
    assert steep.filter([nan], state).mean == [inf]


# --- what is unbiased, what is covered ----------------------------------------------------------------------


def test_median_lies_above_the_level_as_often_as_below() -> None:
    level, x = walk((30, 20_000), 0.05, 0.5)
    above = np.mean(Log(Kalman(0.05, 0.5)).filter(x).mean[-1] > level[-1])
    assert abs(above - 0.5) < 4.0 * 0.5 / math.sqrt(20_000)
    raw = np.mean(Kalman(0.05, 0.5).filter(x).mean[-1] > level[-1])
    assert raw > 0.6  # the filter of the samples themselves follows their mean, above the level by Jensen


def test_mean_is_right_on_average() -> None:
    rng = np.random.default_rng(5)
    level, x = walk((12, 200_000), 0.05, 1.0, 0.5 * rng.normal(size=200_000), seed=6)
    inner = Kalman(0.05, 1.0, mean=0.0, variance=0.25)
    by_mean, by_median = (Log(inner, unbiased).filter(x) for unbiased in ("mean", "median"))
    for t in (0, 4, 11):
        error = by_mean.mean[t] - level[t]
        assert abs(error.mean()) < 4.0 * error.std() / math.sqrt(error.size)
        low = by_median.mean[t] - level[t]
        assert low.mean() < -20.0 * low.std() / math.sqrt(low.size)
        # About the mean, the stated variance is that of the error.
        assert np.mean(error**2) == pytest.approx(by_mean.variance[t].mean(), rel=0.05)


@pytest.mark.parametrize("unbiased", ["median", "mean"])
def test_intervals_of_a_lognormal_walk_cover(unbiased: str) -> None:
    level, x = walk((40, 2_000), 0.1, 0.4, seed=7)
    out = Log(Kalman(0.1, 0.4), unbiased).filter(x)
    for covered, truth in ((out.interval, level), (out.predictive_interval, x)):
        for share in (0.5, 0.9):
            low, high = covered(share)
            inside = np.mean((low <= truth) & (truth <= high), axis=1)[1:]
            assert abs(inside.mean() - share) < 0.01


def test_loglikelihood_is_the_lognormal_density_by_hand() -> None:
    x, q, r = positive(), 0.1, 0.5
    m, p, total = 0.3, 2.0, 0.0
    for value in x:
        p += q
        if not math.isnan(value):
            total += stats.lognorm(math.sqrt(p + r), scale=math.exp(m)).logpdf(value)
            gain = p / (p + r)
            m, p = m + gain * (math.log(value) - m), r * gain
    assert Log(Kalman(q, r, mean=0.3, variance=2.0)).filter(x).loglikelihood == pytest.approx(
        total, rel=1e-12
    )


def test_loglikelihood_after_a_diffuse_start_leaves_the_first_sample_out() -> None:
    x = positive((30, 2), gaps=False)
    got = Log(Kalman(0.1, 0.5)).filter(x).loglikelihood
    want = Kalman(0.1, 0.5).filter(np.log(x)).loglikelihood - np.log(x[1:]).sum(axis=0)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    # In other units the density of each of the other 29 samples scales, and nothing else.
    other = Log(Kalman(0.1, 0.5)).filter(1000.0 * x).loglikelihood
    np.testing.assert_allclose(other, got - 29 * math.log(1000.0), rtol=1e-12)


# --- equivariance, replay -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "traits"),
    [
        (Log(EMA(0.9)), "positive"),
        (Log(EMA(0.0)), "positive finite_memory"),
        (Log(EMA(0.9, initial=None)), "positive scale_equivariant"),
        (Log(DebiasedEMA(0.9)), "positive scale_equivariant"),
        (Log(Kalman(0.1, 1.0)), "positive scale_equivariant has_variance"),
        (Log(Kalman(0.1, 1.0), "mean"), "positive scale_equivariant has_variance"),
        (Log(Kalman(0.1, 1.0, variance=1.0)), "positive has_variance"),
        (Log(MovingAverage(4)), "positive scale_equivariant finite_memory"),
        (Log(LocalTrend(0.1, 0.1, 1.0)), "positive scale_equivariant has_variance follows_trend"),
    ],
    ids=repr,
)
def test_traits(estimator: Any, traits: str) -> None:
    assert estimator.traits == {Trait(name) for name in traits.split()}
    assert not isinstance(estimator, LinearEstimator)


def test_powers_of_samples_are_powers_of_means() -> None:
    x, y = positive(seed=1), positive(seed=2, gaps=False)
    for inner in (EMA(0.9), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(3)):
        log = Log(inner)
        np.testing.assert_allclose(log.filter(x**-2.5).mean, log.filter(x).mean ** -2.5, rtol=1e-12)
        y_there = np.where(np.isnan(x), nan, y)
        product = log.filter(x).mean * log.filter(y_there).mean
        np.testing.assert_allclose(log.filter(x * y).mean, product, rtol=1e-12)


@each
def test_replay_factorises(estimator: Any) -> None:
    level, x = walk((60,), 0.05, 0.5)
    x[10:14] = nan
    run, start = estimator.filter(x), start_of(estimator)
    np.testing.assert_allclose(run.replay(x, start), run.mean, rtol=1e-12)
    nothing = run.replay(np.ones(60))
    parts = run.replay(level, start) * run.replay(np.where(np.isnan(x), 1.0, x / level))
    np.testing.assert_allclose(parts, run.mean * nothing, rtol=1e-12)
    if estimator.unbiased == "median":
        np.testing.assert_array_equal(nothing[~np.isnan(nothing)], 1.0)
    else:
        half = 0.5 * run._run.inner.variance  # the factor of the mean belongs to the map
        np.testing.assert_allclose(nothing, np.exp(half), rtol=1e-12)


def test_replay_starts_at_one_unless_told() -> None:
    run = Log(EMA(0.5)).filter([2.0, 3.0])
    np.testing.assert_array_equal(run.replay([2.0, 3.0]), run.replay([2.0, 3.0], 1.0))
    np.testing.assert_allclose(run.replay([1.0, 1.0], 16.0), [4.0, 2.0], rtol=1e-14)
    plain = EMA(0.5).filter([2.0, 3.0])
    np.testing.assert_array_equal(plain.replay([2.0, 3.0]), plain.replay([2.0, 3.0], 0.0))


def test_constant_growth_has_no_lag_behind_a_trend() -> None:
    growth = np.exp(0.01 * np.arange(2000.0))
    run = Log(LocalTrend(0.01, 1e-4, 1.0)).filter(growth)
    np.testing.assert_allclose(run.mean[-1], growth[-1], rtol=1e-9)
    state = Log(LocalTrend(0.01, 1e-4, 1.0)).update(run.state, None)
    assert state.mean == pytest.approx(growth[-1] * math.exp(0.01), rel=1e-9)


# --- samples that are refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["raise", "missing"])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, nan, -2.0, 0.0], "x holds -2.0 at index 2;"),
        ([1.0, 0.0], "x holds 0.0 at index 1;"),
        ([[1.0, 2.0], [3.0, -1e-300]], "x holds -1e-300 at index (1, 1);"),
        ([1.0, inf, -1.0], "x holds -1.0 at index 2;"),
    ],
)
def test_samples_of_zero_or_less_are_refused(x: Any, message: str, policy: Any) -> None:
    log = Log(Kalman(0.1, 1.0))
    out = np.full(np.shape(x), 7.0)
    for call in (
        lambda: log.filter(x, out=out, on_infinite=policy),
        lambda: log.score(x, on_infinite=policy),
        lambda: log.score(x, np.ones(len(x)), on_infinite=policy),
    ):
        with pytest.raises(ValueError, match=r"^Log takes samples > 0, ") as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    assert np.all(out == 7.0)


def test_update_refuses_and_leaves_the_state() -> None:
    log = Log(EMA(0.5))
    state = log.filter(positive((5, 3), gaps=False)).state
    before = copy.deepcopy(state)
    with pytest.raises(ValueError, match=r"^Log takes samples > 0, x holds -1.0 at index 1; "):
        log.update(state, [1.0, -1.0, 2.0], out=state)
    np.testing.assert_array_equal(state.log_mean, before.log_mean)
    with pytest.raises(ValueError, match=r"^Log takes samples > 0, x holds 0.0; "):
        log.update(log.init(1.0), 0.0)
    tracker = log.tracker()
    tracker.update(3.0)
    with pytest.raises(ValueError, match=r"^Log takes samples > 0, x holds -3.0; "):
        tracker.update(-3.0)
    assert tracker.mean == pytest.approx(math.sqrt(3.0), rel=1e-15)


def test_infinity_and_zero_weight_are_missing() -> None:
    log = Log(Kalman(0.1, 1.0))
    want = log.filter([1.0, nan, nan, 4.0]).mean
    np.testing.assert_array_equal(log.filter([1.0, inf, -inf, 4.0], on_infinite="missing").mean, want)
    got = log.filter([1.0, -5.0, 0.0, 4.0], weight=[1.0, 0.0, 0.0, 1.0])
    np.testing.assert_array_equal(got.mean, want)
    with pytest.raises(ValueError, match="x holds infinity at index 1"):
        log.filter([1.0, inf])
    with pytest.raises(ValueError, match=r"x holds 1e\+39"):
        log.filter([1.0, 1e39], dtype=np.float32)


@pytest.mark.parametrize(
    ("z", "initial", "message"),
    [
        ([1.0, -1.0], 1.0, "z holds -1.0 at index 1"),
        ([0.0, 1.0], 1.0, "z holds 0.0 at index 0"),
        ([1.0, 1.0], 0.0, "initial holds 0.0"),
        ([1.0, 1.0], -2.0, "initial holds -2.0"),
    ],
)
def test_replay_refuses(z: Any, initial: Any, message: str) -> None:
    out = np.full(2, 7.0)
    with pytest.raises(ValueError, match=f"^Log takes samples > 0, {message}"):
        Log(EMA(0.5)).filter([1.0, 2.0]).replay(z, initial, out)
    assert np.all(out == 7.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"estimator": EMA}, "an estimator of this library that takes all numbers"),
        ({"estimator": 0.9}, "an estimator of this library that takes all numbers"),
        ({"estimator": Log(EMA(0.9))}, "an estimator of this library that takes all numbers"),
        ({"estimator": EMA(0.9), "unbiased": "mode"}, "unbiased must be 'median' or 'mean'"),
        ({"estimator": EMA(0.9), "unbiased": None}, "unbiased must be 'median' or 'mean'"),
        ({"estimator": EMA(0.9), "unbiased": "mean"}, "unbiased must be 'median': EMA has no variance"),
        ({"estimator": MovingAverage(3), "unbiased": "mean"}, "MovingAverage has no variance"),
    ],
)
def test_parameters_refused(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=r"^Log: ") as caught:
        Log(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- states -------------------------------------------------------------------------------------------------


def test_states_are_made_once_and_named_after_the_inner_ones() -> None:
    one, other = Log(Kalman(0.1, 1.0)), Log(Kalman(0.2, 1.0), "mean")
    assert one.State is other.State
    assert one.State._fields == ("mean", "variance", "log_mean", "log_variance")
    assert one.State.__name__ == "LogKalmanState"
    assert Log(DebiasedEMA(0.9)).State._fields == ("mean", "log_mean", "log_weight")
    assert Log(MovingAverage(3)).State._fields == ("mean", "log_mean", "log_window")
    assert Log(EMA(0.9)).init(1.0).variance is None
    assert Log(EMA(0.9)).init(1.0) == (1.0, 0.0)
    with pytest.raises(TypeError, match="it must be the LogKalmanState"):
        one.update(Kalman(0.1, 1.0).init(0.0), 1.0)


@each
def test_states_go_on_saved_pickled_copied(estimator: Any) -> None:
    x = positive((40, 2))
    whole = estimator.filter(x)
    for dtype in (np.float64, np.float32):
        state = estimator.filter(x[:20], dtype=dtype).state
        ways = (
            estimator.from_dict(json.loads(json.dumps(estimator.to_dict(state), allow_nan=False))),
            pickle.loads(pickle.dumps(state)),
            copy.deepcopy(state),
        )
        want = estimator.filter(x[20:], state)
        assert want.mean.dtype == dtype
        # The logarithms keep all their digits behind a mean of float32.
        np.testing.assert_allclose(want.mean, whole.mean[20:], rtol=1e-12 if dtype == np.float64 else 2e-7)
        for again in ways:
            assert type(again) is type(state)
            np.testing.assert_array_equal(estimator.filter(x[20:], again).mean, want.mean)
    chunks = list(estimator.filter_chunks([x[:7], x[7:30], x[30:]]))
    np.testing.assert_allclose(np.concatenate([c.mean for c in chunks]), whole.mean, rtol=1e-12)


def test_the_inner_estimator_is_saved_as_plain_data() -> None:
    log = Log(Kalman(0.1, np.array([1.0, 2.0])), "mean")
    data = log.to_dict(log.filter(positive()).state)
    inner = data["parameters"]["estimator"]
    assert inner["estimator"] == "Kalman"
    assert inner["parameters"]["variance"] == "Infinity"
    assert inner["parameters"]["r"] == {"dtype": "float64", "shape": [2], "values": [1.0, 2.0]}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Log(Kalman(0.2, 1.0)), "the state was saved under estimator="),
        (Log(EMA(0.9)), "the state was saved under estimator="),
        (Log(Kalman(0.1, 1.0), "mean"), "the state was saved under unbiased='median', not unbiased='mean'"),
        (Kalman(0.1, 1.0), "the state was saved by Log"),
    ],
    ids=["parameter", "estimator", "unbiased", "unwrapped"],
)
def test_states_of_other_settings_do_not_load(other: Any, message: str) -> None:
    log = Log(Kalman(0.1, 1.0))
    data = json.loads(json.dumps(log.to_dict(log.filter(positive()).state)))
    with pytest.raises(ValueError, match=r"it can go on only there|saved under") as caught:
        other.from_dict(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_by_value() -> None:
    one, same = Log(Kalman(0.1, [1.0, 2.0])), Log(Kalman(0.1, [1.0, 2.0]))
    assert one == same == pickle.loads(pickle.dumps(one))
    assert hash(one) == hash(same)
    assert one != Log(Kalman(0.1, [1.0, 3.0]))
    assert one != Log(Kalman(0.1, [1.0, 2.0]), "mean")
    assert repr(Log(EMA(0.5))) == "Log(estimator=EMA(beta=0.5))"


def test_memory_and_window_are_the_inner_ones() -> None:
    assert Log(MovingAverage(7)).state_bytes == MovingAverage(7).state_bytes
    assert Log(MovingAverage(7)).effective_window == 7.0
    assert Log(EMA(0.9)).effective_window == EMA(0.9).effective_window
    assert not hasattr(Log(SwitchingKalman(0.1, 1.0)), "effective_window")


# --- what changes, pandas, out, score -----------------------------------------------------------------------


def test_changes_are_passed_through() -> None:
    x = positive((40, 2))
    rng = np.random.default_rng(3)
    changes = {kind: rng.uniform(0.3, 3.0, 40) for kind in ("steps", "weight", "r")}
    log, inner = Log(Kalman(0.1, 1.0)), Kalman(0.1, 1.0)
    assert log.changes == inner.changes
    got, want = log.filter(x, **changes), inner.filter(np.log(x), **changes)
    np.testing.assert_allclose(got.mean, np.exp(want.mean), rtol=1e-13)
    np.testing.assert_allclose(got.interval(0.9), np.exp(want.interval(0.9)), rtol=1e-13)
    state = log.init(x[0])
    for t, row in enumerate(x):
        state = log.update(state, row, **{kind: values[t] for kind, values in changes.items()})
    np.testing.assert_allclose(state.mean, got.mean[-1], rtol=1e-12)
    assert Log(MovingAverage(3)).changes == ()
    with pytest.raises(TypeError, match="Log takes no r by sample"):
        Log(MovingAverage(3)).filter(x, r=changes["r"])


def test_pandas_comes_back() -> None:
    index = pd.date_range("2020-01-01", periods=40)
    frame = pd.DataFrame(positive((40, 2)), index=index, columns=["a", "b"])
    out = Log(Kalman(0.1, 1.0)).filter(frame)
    for got in (out.mean, out.variance, *out.interval(), out.innovation, out.replay(frame)):
        assert got.index.equals(index)
        assert list(got.columns) == ["a", "b"]
    assert Log(EMA(0.9)).filter(frame["a"]).mean.name == "a"


def test_out_of_any_layout_and_over_the_samples() -> None:
    x = positive((20, 3))
    log = Log(Kalman(0.1, 1.0))
    want = log.filter(x)
    for buffer in (np.empty((20, 3)), np.empty((3, 20)).T, np.empty((40, 6))[::2, ::2]):
        assert log.filter(x, out=buffer).mean is buffer
        np.testing.assert_array_equal(buffer, want.mean)
    over = x.copy()
    run = log.filter(over, out=over)
    np.testing.assert_array_equal(over, want.mean)
    np.testing.assert_array_equal(run.innovation, want.innovation)
    whole = np.empty(x.shape)
    list(log.filter_chunks([x[:9], x[9:]], out=whole))
    np.testing.assert_allclose(whole, want.mean, rtol=1e-12)


def test_score_is_in_the_unit_of_the_samples() -> None:
    level, x = walk((500, 3), 0.01, 0.2)
    log = Log(Kalman(0.01, 0.2))
    error = log.filter(x).mean - level
    got = log.score(x, level, skip=20)
    np.testing.assert_allclose(got.rmse, np.sqrt(np.mean(error[20:] ** 2, axis=0)), rtol=1e-10)
    ahead = log.score(x, skip=20)
    np.testing.assert_allclose(ahead.bias, -log.filter(x).innovation[20:].mean(axis=0), rtol=1e-9)


def test_the_largest_and_the_smallest_samples() -> None:
    for size in (5e-324, 1e-300, 1.0, 8e307):
        log = Log(DebiasedEMA(0.9))
        np.testing.assert_allclose(log.filter(np.full(5, size)).mean, size, rtol=1e-12)
        assert log.update(log.init(1.0), size).mean == pytest.approx(size, rel=1e-12, abs=0.0)
