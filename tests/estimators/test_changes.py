"""What is known to change by sample: time between samples, their weight, their measurement variance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.bank import KalmanBank
from estimators.ema import EMA, DebiasedEMA
from estimators.kalman import Kalman
from estimators.moving_average import MovingAverage
from estimators.switching import SwitchingKalman
from estimators.trend import Holt, LocalTrend

# The other estimators take changes too: the contract suite sees to it, in the tests of each.
TAKES = {
    "steps": [EMA(0.9), EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.1, 1.0)],
    "weight": [EMA(0.9), EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.1, 1.0)],
    "r": [Kalman(0.1, 1.0)],
}


def name_of(estimator: Any) -> str:
    return "".join(repr(estimator).split())


def each(kind: str) -> Any:
    return pytest.mark.parametrize("estimator", TAKES[kind], ids=name_of)


def stream(seed: int, steps: int = 60, missing: float = 0.2) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=steps).cumsum()
    x[rng.random(steps) < missing] = np.nan
    return x


# --- Kalman -------------------------------------------------------------------------------------------------


def recursion(x: Any, q: Any, r: Any, mean: float = math.nan, variance: float = math.inf) -> Any:
    """Means, variances and log-likelihood; q and r one number for each sample."""
    rows, loglikelihood = [], 0.0
    for z, drift, noise in zip(x, q, r, strict=True):
        variance += drift
        if z == z and math.isinf(variance):
            mean, variance = z, noise
        elif z == z:
            total = variance + noise
            loglikelihood -= 0.5 * (math.log(2.0 * math.pi * total) + (z - mean) ** 2 / total)
            mean, variance = mean + variance / total * (z - mean), variance * noise / total
        rows.append((mean, variance))
    return *np.array(rows).T, loglikelihood


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    s=st.floats(-4.0, 1.0).map(lambda e: 10.0**e),
    prior=st.sampled_from([{}, {"mean": 1.0, "variance": 4.0}, {"mean": -1.0, "variance": 0.0}]),
    known=st.sets(st.sampled_from(["steps", "weight", "r"])),
)
def test_kalman_against_a_plain_loop(seed: int, s: float, prior: dict[str, float], known: set[str]) -> None:
    rng, x = np.random.default_rng(seed), stream(seed)
    drawn = {name: rng.uniform(0.1, 5.0, 60) for name in ("steps", "weight", "r")}
    changes = {name: drawn[name] for name in sorted(known)}
    kalman = Kalman(s, 2.0, **prior)
    ones = np.ones(60)
    q, r = s * changes.get("steps", ones), changes.get("r", 2.0 * ones) / changes.get("weight", ones)
    mean, variance, loglikelihood = recursion(x, q, r, **prior)
    out = kalman.filter(x, **changes)
    size = float(np.nanmax(np.abs(x))) + 1.0
    np.testing.assert_allclose(out.mean, mean, rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(out.variance, variance, rtol=1e-12)
    assert out.loglikelihood == pytest.approx(loglikelihood, rel=1e-11, abs=1e-11)
    state = kalman.init(0.0)
    for t, z in enumerate(x):
        state = kalman.update(state, z, **{name: values[t] for name, values in changes.items()})
        assert state.mean == pytest.approx(mean[t], abs=1e-12 * size, nan_ok=True)
        assert state.variance == pytest.approx(variance[t], rel=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_statsmodels_with_varying_measurement_variance() -> None:
    reason = "statsmodels is not installed: the extra [peers]"
    mlemodel = pytest.importorskip("statsmodels.tsa.statespace.mlemodel", reason=reason)
    x, r = stream(1), np.random.default_rng(2).uniform(0.1, 5.0, 60)
    model = mlemodel.MLEModel(x, k_states=1, k_posdef=1)
    model["design"], model["transition"], model["selection"] = [[1.0]], [[1.0]], [[1.0]]
    model["state_cov"], model["obs_cov"] = [[0.3]], r[np.newaxis, np.newaxis, :]
    model.ssm.initialize_known(np.array([1.0]), np.array([[4.3]]))
    peer = model.ssm.filter()
    out = Kalman(0.3, 9.0, mean=1.0, variance=4.0).filter(x, r=r)
    np.testing.assert_allclose(out.mean, peer.filtered_state[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.variance, peer.filtered_state_cov[0, 0], rtol=1e-11)
    assert out.loglikelihood == pytest.approx(float(peer.llf_obs.sum()), rel=1e-11)


def test_exact_figures_of_r_by_sample() -> None:
    out = Kalman(0.0, 1.0).filter([2.0, 5.0, 8.0], r=[1.0, 2.0, 2.0 / 3.0])
    np.testing.assert_allclose(out.mean, [2.0, 3.0, 5.5], rtol=1e-15)  # inverse variances 1, 1/2, 3/2
    np.testing.assert_allclose(out.variance, [1.0, 2.0 / 3.0, 1.0 / 3.0], rtol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_steps_of_a_kalman_filter_are_missing_samples(n: int) -> None:
    kalman = Kalman(0.3, 1.0)
    before = kalman.filter([1.0, 4.0, 2.0]).state
    long, gaps = kalman.update(before, 5.0, steps=n), kalman.filter([*[np.nan] * (n - 1), 5.0], before)
    assert long.mean == pytest.approx(gaps.state.mean, rel=1e-13)
    assert long.variance == pytest.approx(gaps.state.variance, rel=1e-13)


@pytest.mark.parametrize("w", [1, 2, 7])
def test_a_weight_is_that_many_samples_at_once(w: int) -> None:
    """For a Kalman filter the mean of w samples of one level."""
    once, then = Kalman(0.3, 2.0), Kalman(0.0, 2.0)
    before = once.filter([1.0, 4.0, 2.0]).state
    at_once = once.update(before, 5.0, weight=w)
    state = once.update(before, 5.0)
    for _ in range(w - 1):
        state = then.update(then.State(*state), 5.0)
    assert at_once.mean == pytest.approx(state.mean, rel=1e-14)
    assert at_once.variance == pytest.approx(state.variance, rel=1e-14)


# --- averages -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), beta=st.sampled_from([0.1, 0.9, 0.999]), whole=st.booleans())
def test_the_debiased_ema_is_a_weighted_mean(seed: int, beta: float, whole: bool) -> None:
    rng, x = np.random.default_rng(seed), stream(seed)
    weight = rng.integers(0, 5, 60).astype(float) if whole else rng.uniform(0.0, 5.0, 60)
    steps = rng.uniform(0.1, 3.0, 60)
    time = np.cumsum(steps)
    out = DebiasedEMA(beta).filter(x, weight=weight, steps=steps)
    present = np.where(np.isnan(x), 0.0, weight)
    for t in (0, 1, 5, 20, 59):
        own = present[: t + 1] * beta ** (time[t] - time[: t + 1])
        if own.sum() > 0.0:
            want = float(own @ np.nan_to_num(x[: t + 1]) / own.sum())
            assert out.mean[t] == pytest.approx(want, abs=1e-12 * (1.0 + np.nanmax(np.abs(x))))
        else:
            assert math.isnan(out.mean[t])


def test_integer_weights_repeat_a_sample_at_one_time() -> None:
    x, weight = np.array([1.0, -2.0, 4.0, 3.0]), np.array([2, 1, 3, 2])
    out = DebiasedEMA(0.8).filter(x, weight=weight)
    repeated = [
        np.average(x[: t + 1], weights=(weight * 0.8 ** np.arange(t, t - 4, -1.0))[: t + 1]) for t in range(4)
    ]
    np.testing.assert_allclose(out.mean, repeated, rtol=1e-14)


def test_a_weight_multiplies_the_odds_of_a_settled_ema() -> None:
    ema = EMA(0.75)
    for weight in (0.5, 1.0, 2.0, 5.0):
        moved = ema.update(ema.State(0.0), 1.0, weight=weight).mean
        assert moved / (1.0 - moved) == pytest.approx(weight / 3.0, rel=1e-14)
    assert ema.update(ema.State(7.0), 1.0, weight=0).mean == 7.0
    assert EMA(0.0).filter([1.0, 2.0, 3.0], weight=[1.0, 0.1, 0.0]).mean.tolist() == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("dt", [0.25, 1.0, 2.0, 7.5])
def test_steps_of_an_ema_are_a_power_of_beta(dt: float) -> None:
    ema = EMA(0.9)
    assert ema.update(ema.State(0.0), 1.0, steps=dt).mean == pytest.approx(1.0 - 0.9**dt, rel=1e-14)
    x = stream(3)
    by_power = EMA(0.9**dt, initial=2.0).filter(x)
    np.testing.assert_allclose(
        EMA(0.9, initial=2.0).filter(x, steps=np.full(60, dt)).mean, by_power.mean, rtol=0, atol=1e-13
    )
    first = EMA(0.9, initial=None).filter([5.0, 6.0], steps=[100.0, dt])
    np.testing.assert_allclose(first.mean, [5.0, 6.0 - 0.9**dt], rtol=1e-14)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), half_life=st.floats(0.5, 50.0))
def test_pandas_with_times(seed: int, half_life: float) -> None:
    rng, x = np.random.default_rng(seed), stream(seed)
    x[0] = 1.0  # pandas leaves time before the first sample out of account as well
    seconds = np.cumsum(rng.integers(1, 500, 60))
    times = pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s")
    peer = pd.Series(x).ewm(halflife=pd.Timedelta(seconds=half_life * 100.0), times=times).mean()
    ema = DebiasedEMA.from_half_life(half_life)
    out = ema.filter(x, steps=np.diff(seconds, prepend=seconds[0] - 1) / 100.0)
    np.testing.assert_allclose(out.mean, peer.ffill(), rtol=0, atol=1e-7 * (1.0 + np.nanmax(np.abs(x))))


# --- what all have in common --------------------------------------------------------------------------------


@each("weight")
def test_weight_0_is_missing(estimator: Any) -> None:
    x = stream(4)
    weight = np.where(np.random.default_rng(5).random(60) < 0.3, 0.0, 1.0)
    weighed, gone = estimator.filter(x, weight=weight), estimator.filter(np.where(weight == 0.0, np.nan, x))
    np.testing.assert_allclose(weighed.mean, gone.mean, rtol=0, atol=1e-12)
    state = estimator.filter(x[:20]).state
    assert estimator.update(state, 3.0, weight=0.0).mean == estimator.update(state, math.nan).mean
    nothing = estimator.filter(x, weight=np.zeros(60))
    np.testing.assert_array_equal(nothing.mean, estimator.filter(np.full(60, np.nan)).mean)


@pytest.mark.parametrize("kind", ["steps", "weight", "r"])
def test_tracker(kind: str) -> None:
    values = np.random.default_rng(6).uniform(0.2, 4.0, 60)
    for estimator in TAKES[kind]:
        x = stream(7)
        online = estimator.tracker()
        means = [online.update(float(z), **{kind: float(v)}) for z, v in zip(x, values, strict=True)]
        out = estimator.filter(x, **{kind: values})
        np.testing.assert_allclose(means, out.mean, rtol=0, atol=1e-11)
        assert online.mean == pytest.approx(out.state.mean, rel=1e-11)
        # And without any it goes on as ever.
        assert online.update(1.0) == pytest.approx(estimator.update(out.state, 1.0).mean, rel=1e-10)


@pytest.mark.parametrize("kind", ["steps", "weight", "r"])
def test_by_channel_and_by_time(kind: str) -> None:
    rng = np.random.default_rng(8)
    x = rng.normal(size=(50, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    own, common = rng.uniform(0.2, 4.0, (50, 3)), rng.uniform(0.2, 4.0, 50)
    for estimator in TAKES[kind]:
        by_channel, by_time = estimator.filter(x, **{kind: own}), estimator.filter(x, **{kind: common})
        for c in range(3):
            one = estimator.filter(x[:, c], **{kind: own[:, c]})
            np.testing.assert_allclose(by_channel.mean[:, c], one.mean, rtol=0, atol=1e-12)
            one = estimator.filter(x[:, c], **{kind: common})
            np.testing.assert_allclose(by_time.mean[:, c], one.mean, rtol=0, atol=1e-12)


def test_settings_as_channels_and_pandas() -> None:
    x, weight = stream(9), np.random.default_rng(10).uniform(0.2, 4.0, 60)
    out = DebiasedEMA(np.array([0.5, 0.9])).filter(x, weight=weight)
    for c, beta in enumerate((0.5, 0.9)):
        np.testing.assert_allclose(
            out.mean[:, c], DebiasedEMA(beta).filter(x, weight=weight).mean, rtol=0, atol=1e-13
        )
    series = pd.Series(x, index=pd.RangeIndex(5, 65), name="loss")
    wrapped = DebiasedEMA(0.9).filter(series, weight=pd.Series(weight))
    pd.testing.assert_index_equal(wrapped.mean.index, series.index)
    np.testing.assert_array_equal(wrapped.mean, DebiasedEMA(0.9).filter(x, weight=weight).mean)


@pytest.mark.parametrize("kind", ["steps", "weight", "r"])
def test_what_is_given_is_left_alone(kind: str) -> None:
    values = np.random.default_rng(11).uniform(0.2, 4.0, 60)
    values[5] = 0.0 if kind == "weight" else 1.0
    x = stream(12)
    kept, given_before = values.copy(), x.copy()
    for estimator in TAKES[kind]:
        estimator.filter(x, **{kind: values}).replay(np.nan_to_num(x))
        np.testing.assert_array_equal(values, kept)
        np.testing.assert_array_equal(x, given_before)


@pytest.mark.parametrize("kind", ["steps", "weight", "r"])
def test_replay_uses_the_gains_of_the_run(kind: str) -> None:
    values = np.random.default_rng(13).uniform(0.2, 4.0, 60)
    x, noise = stream(14), np.random.default_rng(15).normal(size=60)
    for estimator in TAKES[kind]:
        run = estimator.filter(x + noise, **{kind: values})
        signal = run.replay(np.nan_to_num(x), getattr(estimator, "initial", None))
        np.testing.assert_allclose(signal + run.replay(noise), run.mean, rtol=0, atol=1e-11)


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("estimator", "kind", "text"),
    [
        (EMA(0.9), "r", "EMA takes no r by sample; it takes steps and weight"),
        (DebiasedEMA(0.9), "r", "DebiasedEMA takes no r by sample; it takes steps and weight"),
        (KalmanBank(), "r", "KalmanBank takes no r by sample; it takes steps and weight"),
        (LocalTrend(1.0, 1.0, 1.0), "steps", "LocalTrend takes no steps by sample; it takes weight and r"),
        (
            SwitchingKalman(1.0, 1.0),
            "steps",
            "SwitchingKalman takes no steps by sample; it takes weight and r",
        ),
        (Holt(0.5, 0.1), "weight", "Holt takes no weight by sample; nor any other change"),
        (MovingAverage(3), "steps", "MovingAverage takes no steps by sample; nor any other change"),
    ],
)
def test_what_is_not_taken(estimator: Any, kind: str, text: str) -> None:
    state = estimator.init(0.0)
    for call in (
        lambda: estimator.filter([1.0, 2.0], **{kind: [1.0, 1.0]}),
        lambda: estimator.update(state, 1.0, **{kind: 1.0}),
        lambda: estimator.tracker().update(1.0, **{kind: 1.0}),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == text


def test_three_kinds_read_as_a_list() -> None:
    assert Kalman.changes == ("steps", "weight", "r")
    with pytest.raises(TypeError):
        Kalman(1.0, 1.0).filter([1.0], beta=[0.5])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"steps": [1.0, 0.0]},
            "Kalman: steps=[1.0, 0.0] is not valid; steps must be from 1e-100 to 1e100 for every sample",
        ),
        (
            {"steps": [1.0, -2.0]},
            "Kalman: steps=[1.0, -2.0] is not valid; steps must be from 1e-100 to 1e100 for every sample",
        ),
        (
            {"weight": [-1.0, 1.0]},
            "Kalman: weight=[-1.0, 1.0] is not valid; weight must be 0, or from 1e-100 to 1e100 for ever",
        ),
        ({"r": [1.0, math.nan]}, "Kalman: r=[1.0, nan] is not valid; r must be > 0 for every sample"),
        ({"r": [1.0, math.inf]}, "Kalman: r=[1.0, inf] is not valid; r must be > 0 for every sample"),
        ({"r": [0.0, 1.0]}, "Kalman: r=[0.0, 1.0] is not valid; r must be > 0 for every sample"),
        ({"r": ["a", "b"]}, "Kalman: r=['a', 'b'] is not valid; r must be > 0 for every sample"),
        ({"r": [1.0, 1.0, 1.0]}, "Kalman: r has shape (3,); x has 2 samples"),
        ({"weight": 1.0}, "Kalman: weight has shape (); x has 2 samples"),
        ({"weight": [[1.0], [1.0]]}, "Kalman: weight has shape (2, 1); it must be (2,)"),
    ],
)
def test_what_is_out_of_range(changes: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^Kalman: ") as caught:
        Kalman(1.0, 1.0).filter([1.0, 2.0], **changes)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"weight": -1.0},
            "Kalman: weight=-1.0 is not valid; weight must be 0, or from 1e-100 to 1e100 for every sample",
        ),
        ({"steps": 0}, "Kalman: steps=0 is not valid; steps must be from 1e-100 to 1e100 for every sample"),
        ({"r": [1.0, 2.0]}, "Kalman: r has shape (2,); it must be one number or (3,)"),
    ],
)
def test_what_is_out_of_range_of_one_sample(changes: Any, text: str) -> None:
    kalman = Kalman(1.0, 1.0)
    state = kalman.filter(np.ones((2, 3))).state
    for call in (
        lambda: kalman.update(state, np.ones(3), **changes),
        lambda: kalman.tracker(state).update(np.ones(3), **changes),
    ):
        with pytest.raises(ValueError, match=r"^Kalman: ") as caught:
            call()
        assert str(caught.value) == text


def test_update_with_changes_is_pure_and_in_place() -> None:
    kalman = Kalman(0.5, 1.0)
    state = kalman.filter(np.random.default_rng(16).normal(size=(10, 4))).state
    kept = kalman.State(*(field.copy() for field in state))
    x, weight = np.arange(4.0), np.array([1.0, 0.0, 2.0, 0.5])
    after = kalman.update(state, x, weight=weight, steps=2.0)
    for field, before in zip(state, kept, strict=True):
        np.testing.assert_array_equal(field, before)
    assert kalman.update(state, x, out=state, weight=weight, steps=2.0) is state
    for field, want in zip(state, after, strict=True):
        np.testing.assert_array_equal(field, want)
    assert state.mean[1] == kept.mean[1]
    assert state.variance[1] == pytest.approx(kept.variance[1] + 1.0, rel=1e-15)
