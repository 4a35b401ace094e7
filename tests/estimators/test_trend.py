from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from data import contract
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.ema import EMA
from estimators.kalman import Kalman
from estimators.protocol import Trait
from estimators.trend import Holt, LocalTrend

LOG_2PI = math.log(2.0 * math.pi)
decades = st.floats(-4.0, 2.0).map(lambda e: 10.0**e)

SETTINGS = [
    LocalTrend(0.1, 0.01, 1.0),
    LocalTrend(0.0, 0.01, 1.0),
    LocalTrend(0.0, 0.0, 1.0),
    LocalTrend(0.1, 0.01, 0.0),
    LocalTrend(0.0, 0.1, 0.0),
    LocalTrend(1e-10, 1e-12, 1.0),
    LocalTrend(np.array([0.1, 0.0, 1e-4]), np.array([1e-3, 1e-2, 1e-6]), 1.0),
    LocalTrend(0.1, 0.01, np.array([[1.0], [2.0]])),
    Holt(0.5, 0.1),
    Holt(1.0, 1.0),
    Holt(1.0, 0.0),
    Holt(0.1, 0.0),
    Holt(0.2, 0.2),
    Holt.from_brown(0.9),
    LocalTrend(0.1, 0.0, 1.0),
    Holt(1e-6, 1e-13),
]


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- the joint Gaussian: generalised least squares for the start, no recursion ------------------------------


def joint(x: Any, q: float, q_slope: float, r: Any) -> dict[str, Any]:
    """Level and slope at the last time given all samples, and the density of those after the first two.

    Level and slope at time 0 are unknown constants; everything else is normal. Two samples at least.
    """
    steps, seen = len(x), np.flatnonzero(~np.isnan(x))
    time = np.arange(float(steps))
    lag = time[:, None] - time[None, 1:]
    by_level, by_slope, of_slope = (lag >= 0) * 1.0, np.maximum(lag, 0.0), (lag >= 0) * 1.0
    levels = q * by_level @ by_level.T + q_slope * by_slope @ by_slope.T
    crossed, slopes = q_slope * of_slope[-1] @ by_slope.T, q_slope * of_slope[-1] @ of_slope[-1]
    y = x[seen]
    covariance = levels[np.ix_(seen, seen)] + np.diag(np.broadcast_to(r, steps)[seen])
    # About the last time: level and slope there are what is asked. Bordered, V may be singular.
    design = np.stack([np.ones(len(y)), time[seen] - time[-1]], axis=1)
    bordered = np.block([[covariance, design], [design.T, np.zeros((2, 2))]])
    asked = np.vstack([np.stack([levels[-1, seen], crossed[seen]], axis=1), np.eye(2)])
    weights = np.linalg.solve(bordered, asked)
    own = np.array([[levels[-1, -1], crossed[-1]], [crossed[-1], slopes]])
    padded = np.append(y, [0.0, 0.0])
    logdet, square = np.linalg.slogdet(bordered)[1], padded @ np.linalg.solve(bordered, padded)
    return {
        "state": padded @ weights,
        "error": own - asked.T @ weights,
        "loglikelihood": -0.5 * ((len(y) - 2) * LOG_2PI + logdet + square) + math.log(seen[1] - seen[0]),
    }


def expect_joint(x: Any, trend: LocalTrend, r: Any = None) -> None:
    out = trend.filter(x) if r is None else trend.filter(x, r=r)
    want = joint(x, trend.q, trend.q_slope, trend.r if r is None else r)
    size = float(np.nanmax(np.abs(x)) + np.sqrt(np.max(trend.r if r is None else r)))
    state, error = out.state, want["error"]
    assert state.mean == pytest.approx(want["state"][0], abs=1e-9 * size)
    assert state.slope == pytest.approx(want["state"][1], abs=1e-9 * size)
    scale = float(np.trace(error))
    assert state.variance == pytest.approx(error[0, 0], rel=1e-9, abs=1e-11 * scale)
    assert state.covariance == pytest.approx(error[0, 1], rel=1e-9, abs=1e-11 * scale)
    assert state.slope_variance == pytest.approx(error[1, 1], rel=1e-9, abs=1e-11 * scale)
    assert out.loglikelihood == pytest.approx(want["loglikelihood"], rel=1e-9, abs=1e-9)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    s=st.one_of(st.just(0.0), decades),
    s_slope=st.one_of(st.just(0.0), decades),
    r=st.floats(-3.0, 3.0).map(lambda e: 10.0**e),
    missing=st.sampled_from([0.0, 0.3, 0.7]),
    by_sample=st.booleans(),
)
def test_filter_is_that_of_the_joint_gaussian(
    seed: int, s: float, s_slope: float, r: float, missing: float, by_sample: bool
) -> None:
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(2, 30))
    x = math.sqrt(r) * rng.normal(size=steps).cumsum()
    x[rng.random(steps) < missing] = np.nan
    one, other = rng.choice(steps, 2, replace=False)
    x[[one, other]] = math.sqrt(r) * np.array([1.0, -2.0])
    variances = r * rng.uniform(0.2, 5.0, steps)
    variances[np.flatnonzero(~np.isnan(x))[:2]] = r  # of the first two alike: see the next test
    expect_joint(x, LocalTrend(s * r, s_slope * r, r), variances if by_sample else None)


@pytest.mark.parametrize("gap", [0, 3])
def test_first_two_samples_of_different_r(gap: int) -> None:
    x = np.array([1.0, *[np.nan] * gap, 3.0, 2.0])
    r = np.array([9.0, *[1.0] * gap, 1.0, 1.0])
    expect_joint(x[:-1], LocalTrend(0.1, 0.01, 1.0), r[:-1])
    expect_joint(x, LocalTrend(0.1, 0.01, 1.0), r)


@pytest.mark.parametrize("gap", [0, 1, 2, 7, 40])
@pytest.mark.parametrize(("q", "q_slope"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.3, 0.02), (4.0, 9.0)])
def test_a_gap_between_the_first_two_samples(gap: int, q: float, q_slope: float) -> None:
    trend = LocalTrend(q, q_slope, 2.0)
    begin = np.array([np.nan, np.nan, 3.0, *[np.nan] * gap, -1.0])
    expect_joint(begin, trend)
    expect_joint(np.append(begin, [np.nan, np.nan, 5.0, np.nan]), trend)
    out = trend.filter(begin)
    assert out.mean[-1] == -1.0
    assert out.state.slope == pytest.approx(-4.0 / (gap + 1), rel=1e-15)
    np.testing.assert_array_equal(out.mean[2:-1], 3.0)
    assert np.all(np.isnan(out.mean[:2]))
    assert out.variance[2] == 2.0
    assert np.all(np.isinf(out.variance[3:-1]))
    np.testing.assert_array_equal(out.innovation_variance, np.inf)
    assert out.loglikelihood == 0.0


@pytest.mark.parametrize("q", [0.0, 0.5])
def test_without_measurement_noise(q: float) -> None:
    x = np.array([1.0, np.nan, 4.0, 4.0, np.nan, 9.0])
    expect_joint(x, LocalTrend(q, 0.3, 0.0))
    out = LocalTrend(q, 0.3, 0.0).filter(x)
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(out.mean[seen], x[seen])
    np.testing.assert_array_equal(out.variance[seen], 0.0)


def test_the_figures_of_a_start() -> None:
    """Worked by hand: the second sample has 2 r + q + ... behind its slope."""
    q, q_slope, r = 0.5, 0.25, 2.0
    state = LocalTrend(q, q_slope, r).filter([1.0, 4.0]).state
    assert (state.mean, state.slope, state.variance, state.covariance) == (4.0, 3.0, r, r)
    assert state.slope_variance == q_slope + q + 2.0 * r
    state = LocalTrend(q, q_slope, r).filter([1.0]).state
    assert (state.mean, state.slope, state.variance) == (1.0, 0.0, r)
    assert math.isinf(state.slope_variance)
    nothing = LocalTrend(q, q_slope, r).filter([np.nan, np.nan])
    assert np.all(np.isnan(nothing.mean))
    assert np.all(np.isinf(nothing.variance))


# --- a peer -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("q", "q_slope", "r"), [(0.1, 0.01, 1.0), (0.0, 0.02, 1.0), (2.0, 0.0, 0.5)])
def test_statsmodels(q: float, q_slope: float, r: float) -> None:
    reason = "statsmodels is not installed: the extra [peers]"
    structural = pytest.importorskip("statsmodels.tsa.statespace.structural", reason=reason)
    x = np.random.default_rng(3).normal(size=120).cumsum()
    x[[5, 6, 50, 119]] = np.nan
    model = structural.UnobservedComponents(x, "lltrend", use_exact_diffuse=True)
    peer = model.filter([r, q, q_slope])
    out = LocalTrend(q, q_slope, r).filter(x)
    # Of the peer's two diffuse samples the first column says nothing: level and slope are one sum there.
    np.testing.assert_allclose(out.mean[1:], peer.filtered_state[0, 1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(out.variance[1:], peer.filtered_state_cov[0, 0, 1:], rtol=1e-9)
    assert out.state.slope == pytest.approx(peer.filtered_state[1, -1], abs=1e-9)
    assert out.state.slope_variance == pytest.approx(peer.filtered_state_cov[1, 1, -1], rel=1e-9)
    # It counts log 2 pi for the two diffuse samples as well.
    assert out.loglikelihood - LOG_2PI == pytest.approx(peer.llf, rel=1e-10)


# --- what it is for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trend", [LocalTrend(0.1, 0.01, 1.0), LocalTrend(0.0, 1e-4, 1.0), LocalTrend(0, 0, 1)]
)
def test_no_lag_on_a_ramp(trend: LocalTrend) -> None:
    ramp = 0.5 * np.arange(200.0) - 7.0
    out = trend.filter(ramp)
    np.testing.assert_allclose(out.mean, ramp, rtol=0, atol=1e-11)
    ahead = trend.filter([*ramp, np.nan, np.nan, np.nan])
    np.testing.assert_allclose(ahead.mean[-3:], ramp[-1] + 0.5 * np.arange(1.0, 4.0), rtol=1e-12)
    assert trend.group_delay == 0.0 or trend.q_slope == 0.0
    assert Trait.FOLLOWS_TREND in trend.traits
    lagging = ramp[-1] - Kalman(0.1, 1.0).filter(ramp).mean[-1]
    assert lagging == pytest.approx(0.5 * Kalman(0.1, 1.0).group_delay, rel=1e-9)


def test_without_a_drift_of_the_slope_it_is_a_regression_on_time() -> None:
    rng = np.random.default_rng(0)
    time = np.arange(60.0)
    x = 2.0 - 0.3 * time + rng.normal(size=60)
    x[[3, 4, 30]] = np.nan
    out = LocalTrend(0.0, 0.0, 4.0).filter(x)
    for end in (2, 3, 6, 20, 60):
        known = ~np.isnan(x[:end])
        fitted = np.polyfit(time[:end][known] - time[end - 1], x[:end][known], 1)
        design = np.stack([np.ones(known.sum()), time[:end][known] - time[end - 1]], axis=1)
        covariance = 4.0 * np.linalg.inv(design.T @ design)
        assert out.mean[end - 1] == pytest.approx(fitted[1], abs=1e-11)
        assert out.variance[end - 1] == pytest.approx(covariance[0, 0], rel=1e-10)
    assert out.state.slope == pytest.approx(fitted[0], abs=1e-11)
    assert out.state.slope_variance == pytest.approx(covariance[1, 1], rel=1e-10)
    # With a drift of the level it is generalised least squares.
    expect_joint(x, LocalTrend(0.7, 0.0, 4.0))


@pytest.mark.parametrize("q", [0.0, 1e-4, 0.01, 0.1, 1.0, 100.0])
@pytest.mark.parametrize("q_slope", [1e-5, 1e-3, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("r", [0.0, 0.25, 1.0, 40.0])
def test_steady_gains_are_those_of_a_long_run(q: float, q_slope: float, r: float) -> None:
    """Among them modes that are a pair: q^2 < 4 r q_slope."""
    trend = LocalTrend(q, q_slope, r)
    slow = math.sqrt(max(q, math.sqrt(q_slope * r)) / q_slope)  # samples that the slower mode lasts, about
    before = trend.filter(np.zeros(200 + int(20.0 * slow))).state
    after = trend.update(before, 1.0)
    assert after.mean == pytest.approx(trend.steady_gain, rel=1e-9)
    assert after.slope == pytest.approx(trend.steady_slope_gain, rel=1e-9)
    assert after.variance == pytest.approx(r * trend.steady_gain, rel=1e-9)
    assert 0.0 < trend.steady_slope_gain <= trend.steady_gain <= 1.0


def test_the_gains_of_kalata() -> None:
    """For q = 0 the spectrum of the second differences, q_slope + r u^2, at u = 0 and u = 4."""
    for q_slope in (1e-8, 1e-4, 0.1, 10.0):
        trend = LocalTrend(0.0, q_slope, 1.0)
        gain, slope = trend.steady_gain, trend.steady_slope_gain
        assert slope**2 / (1.0 - gain) == pytest.approx(q_slope, rel=1e-10)
        assert (4.0 - 2.0 * gain - slope) ** 2 / (1.0 - gain) == pytest.approx(16.0 + q_slope, rel=1e-10)


@pytest.mark.parametrize("setting", [(0.1, 0.01, 1.0), (0.0, 0.05, 2.0), (1.0, 1.0, 1.0), (0.5, 0.1, 0.0)])
def test_settled_it_is_holts(setting: tuple[float, float, float]) -> None:
    trend = LocalTrend(*setting)
    holt = trend.steady_state()
    assert type(holt) is Holt
    assert (holt.gain, holt.slope_gain) == (trend.steady_gain, trend.steady_slope_gain)
    x = np.random.default_rng(2).normal(size=700).cumsum()
    settled = trend.filter(x[:600])
    rest = trend.filter(x[600:], settled.state)
    same = holt.filter(x[600:], Holt.State(settled.state.mean, settled.state.slope))
    np.testing.assert_allclose(rest.mean, same.mean, rtol=0, atol=1e-11)
    assert rest.state.slope == pytest.approx(same.state.slope, abs=1e-11)
    for name in ("noise_gain", "cutoff", "half_life", "time_constant", "effective_window", "group_delay"):
        assert getattr(trend, name) == pytest.approx(getattr(holt, name), rel=1e-12, nan_ok=True)


def test_what_has_no_steady_state() -> None:
    with pytest.raises(ValueError, match=r"LocalTrend\.steady_state: q_slope=0\.0 .* q_slope must be > 0"):
        LocalTrend(0.1, 0.0, 1.0).steady_state()


def test_several_settings_at_once() -> None:
    q, q_slope = np.array([0.0, 0.1, 1.0]), np.array([0.01, 0.0, 2.0])
    x = np.random.default_rng(4).normal(size=50)
    x[20:23] = np.nan
    together = LocalTrend(q, q_slope, 1.0).filter(x)
    assert together.mean.shape == (50, 3)
    for i in range(3):
        alone = LocalTrend(q[i], q_slope[i], 1.0).filter(x)
        np.testing.assert_allclose(together.mean[:, i], alone.mean, rtol=0, atol=1e-13)
        np.testing.assert_allclose(together.variance[:, i], alone.variance, rtol=1e-12)
        assert together.loglikelihood[i] == pytest.approx(alone.loglikelihood, rel=1e-12)


def test_several_holts_at_once() -> None:
    gain, slope_gain = np.array([[0.5], [0.3]]), np.array([0.1, 0.0, 0.3])
    x = np.random.default_rng(12).normal(size=(40, 2, 3))
    x[20:23] = np.nan
    together = Holt(gain, slope_gain)
    assert Trait.FOLLOWS_TREND not in together.traits  # not all of them do
    out = together.filter(x)
    for i, j in np.ndindex(2, 3):
        alone = Holt(gain[i, 0], slope_gain[j])
        np.testing.assert_allclose(out.mean[:, i, j], alone.filter(x[:, i, j]).mean, rtol=0, atol=1e-13)
        for name in ("noise_gain", "cutoff", "half_life", "group_delay", "effective_window"):
            form = np.broadcast_to(getattr(together, name), (2, 3))
            assert form[i, j] == pytest.approx(getattr(alone, name), rel=1e-13)
        np.testing.assert_allclose(together.step_response(9)[:, i, j], alone.step_response(9), rtol=1e-13)


# --- what changes by sample ---------------------------------------------------------------------------------


def test_r_by_sample_and_weight() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=40).cumsum()
    x[[1, 2, 11]] = np.nan
    r, weight = rng.uniform(0.1, 4.0, 40), rng.uniform(0.2, 5.0, 40)
    r[3] = r[0]
    trend = LocalTrend(0.1, 0.01, 3.0)
    expect_joint(x, trend, r)
    weighed, stated = trend.filter(x, weight=weight), trend.filter(x, r=3.0 / weight)
    np.testing.assert_array_equal(weighed.mean, stated.mean)
    np.testing.assert_array_equal(weighed.variance, stated.variance)
    both = trend.filter(x, r=r, weight=weight)
    np.testing.assert_array_equal(both.mean, trend.filter(x, r=r / weight).mean)
    weight[7] = 0.0
    gone = np.where(np.arange(40) == 7, np.nan, x)
    np.testing.assert_array_equal(
        trend.filter(x, weight=weight).mean,
        trend.filter(gone, weight=np.where(weight > 0, weight, 1.0)).mean,
    )


@pytest.mark.parametrize(
    "estimator", [LocalTrend(0.1, 0.01, 1.0), LocalTrend(0.0, 0.0, 1.0), Holt(0.3, 0.05), Holt(1.0, 0.4)]
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_update_is_filter(estimator: Any, channels: tuple[int, ...]) -> None:
    x = np.random.default_rng(6).normal(size=(60, *channels)).cumsum(axis=0)
    x[[0, 2, 3, 40]] = np.nan
    out, state, means = estimator.filter(x), estimator.init(x[0]), []
    for row in x:
        state = estimator.update(state, row)
        means.append(state.mean)
    np.testing.assert_allclose(means, out.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(state.slope, out.state.slope, rtol=0, atol=1e-12)


def test_steps_are_refused() -> None:
    with pytest.raises(TypeError, match="LocalTrend takes no steps by sample; it takes weight and r"):
        LocalTrend(0.1, 0.1, 1.0).filter([1.0, 2.0], steps=[1.0, 2.0])
    with pytest.raises(TypeError, match="Holt takes no weight by sample"):
        Holt(0.1, 0.1).filter([1.0, 2.0], weight=[1.0, 2.0])


# --- Holt ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_browns_double_ema(beta: float) -> None:
    """2 EMA - EMA of EMA, both from the first sample: the same start, so the same throughout."""
    x = np.random.default_rng(7).normal(size=400).cumsum()
    once = EMA(beta, initial=None).filter(x).mean
    twice = EMA(beta, initial=None).filter(once).mean
    out = Holt.from_brown(beta).filter(x)
    np.testing.assert_allclose(out.mean, 2.0 * once - twice, rtol=0, atol=1e-11)
    assert out.state.slope == pytest.approx((1.0 - beta) / beta * (once[-1] - twice[-1]), abs=1e-11)


def test_smoothing_parameters() -> None:
    assert Holt.from_smoothing(0.4, 0.25) == Holt(0.4, 0.1)
    alpha, beta = 0.3, 0.2
    x = np.random.default_rng(8).normal(size=50)
    level, slope = x[0], 0.0
    for z in x[1:]:
        before, level = level, alpha * z + (1.0 - alpha) * (level + slope)
        slope = beta * (level - before) + (1.0 - beta) * slope
    state = Holt.from_smoothing(alpha, beta).filter(x).state
    assert state.mean == pytest.approx(level, abs=1e-14)
    assert state.slope == pytest.approx(slope, abs=1e-14)


def test_without_a_slope_it_is_an_ema() -> None:
    x = np.random.default_rng(9).normal(size=80)
    x[[0, 5, 6]] = np.nan
    np.testing.assert_allclose(
        Holt(0.2, 0.0).filter(x).mean, EMA(0.8, initial=None).filter(x).mean, rtol=0, atol=1e-14
    )
    holt, ema = Holt(0.2, 0.0), EMA.from_alpha(0.2)
    for name in ("noise_gain", "cutoff", "half_life", "time_constant", "group_delay", "effective_window"):
        assert getattr(holt, name) == pytest.approx(getattr(ema, name), rel=1e-12)
    assert Trait.FOLLOWS_TREND not in holt.traits


def test_a_gap_goes_on_along_the_slope() -> None:
    out = Holt(0.5, 0.25).filter([0.0, 4.0, np.nan, np.nan])
    np.testing.assert_array_equal(out.mean, [0.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(out.prediction[1:], [0.0, 3.0, 4.0])
    assert out.variance is None


GAINS = [(0.5, 0.1), (0.9, 0.8), (0.3, 0.3), (0.05, 0.001), (0.19, 0.01), (1.0, 0.5), (0.2, 0.0)]


@pytest.mark.parametrize(("gain", "slope_gain"), GAINS)
def test_closed_forms(gain: float, slope_gain: float) -> None:
    holt = Holt(gain, slope_gain)
    impulse = np.zeros(3000)
    impulse[0] = 1.0
    started = Holt.State(0.0, 0.0)
    response = holt.impulse_response(3000)
    np.testing.assert_allclose(response, holt.filter(impulse, started).mean, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        holt.step_response(3000), holt.filter(np.ones(3000), started).mean, rtol=0, atol=1e-12
    )
    assert holt.noise_gain == pytest.approx(np.sum(response**2), rel=1e-10)
    frequency = np.linspace(0.0, 0.5, 64)
    direct = np.exp(-2j * np.pi * np.outer(frequency, np.arange(3000))) @ response
    np.testing.assert_allclose(holt.frequency_response(frequency), direct, rtol=0, atol=1e-11)
    if slope_gain > 0.0:
        assert np.arange(3000) @ response == pytest.approx(holt.group_delay, abs=1e-8) == 0.0


@pytest.mark.parametrize(("gain", "slope_gain"), GAINS)
def test_cutoff_is_where_the_power_has_halved(gain: float, slope_gain: float) -> None:
    holt = Holt(gain, slope_gain)
    power = np.abs(holt.frequency_response(np.linspace(0.0, 0.5, 20_001))) ** 2
    if math.isnan(holt.cutoff):
        assert power.min() >= 0.5
        return
    assert abs(holt.frequency_response(holt.cutoff)) == pytest.approx(math.sqrt(0.5), rel=1e-9)
    above = np.abs(holt.frequency_response(np.linspace(holt.cutoff + 1e-6, 0.5, 1000)))
    assert np.all(above < math.sqrt(0.5))


@pytest.mark.parametrize(
    "gain",
    [
        1e-2,
        1e-4,
        1e-6,
    ],
)
def test_cutoff_of_a_slow_filter(gain: float) -> None:
    """Of K, k = K^2 / 4 the equation has rational coefficients: against it in higher precision."""
    holt = Holt(gain, gain * gain / 4)
    K, k = Fraction(holt.gain), Fraction(holt.slope_gain)
    b = float(3 * K * k - K * K - 2 * k)
    u = 0.5 * (math.sqrt(b * b + 4.0 * float((1 - K) * k * k)) - b) / float(1 - K)
    assert holt.cutoff == pytest.approx(math.asin(0.5 * math.sqrt(u)) / math.pi, rel=1e-9)


@pytest.mark.parametrize(("gain", "slope_gain"), [(0.05, 0.001), (0.02, 1e-4), (0.01, 1e-5), (0.1, 0.01)])
def test_half_life_and_time_constant_are_crossings(gain: float, slope_gain: float) -> None:
    """Between the two samples of the step response on either side of the level, the first that there are."""
    holt = Holt(gain, slope_gain)
    response = holt.step_response(2000)
    for time, level in ((holt.half_life, 0.5), (holt.time_constant, 1.0 - math.exp(-1.0))):
        after = int(np.argmax(response >= level))
        assert after <= time <= after + 1  # sample k of the response is k + 1 after the step
    assert holt.half_life < holt.time_constant
    assert response.max() > 1.0 if slope_gain else True


@pytest.mark.parametrize(("gain", "slope_gain"), [g for g in GAINS if g[1] > 0])
def test_filterpys_gh_filter(gain: float, slope_gain: float) -> None:
    gh = pytest.importorskip("filterpy.gh", reason="filterpy is not installed")
    x = np.random.default_rng(10).normal(size=200).cumsum()
    peer = gh.GHFilter(x=x[0], dx=0.0, dt=1.0, g=gain, h=slope_gain)
    means = [x[0]] + [float(peer.update(z)[0]) for z in x[1:]]
    holt = Holt(gain, slope_gain)
    np.testing.assert_allclose(holt.filter(x).mean, means, rtol=0, atol=1e-11)
    assert holt.noise_gain == pytest.approx(float(peer.VRF()[0]), rel=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 0.99])
def test_filterpys_fading_memory(beta: float) -> None:
    memory = pytest.importorskip("filterpy.memory", reason="filterpy is not installed")
    x = np.random.default_rng(11).normal(size=200).cumsum()
    peer = memory.FadingMemoryFilter(x[0], 1.0, 1, beta)
    means = [x[0]]
    for z in x[1:]:
        peer.update(z)
        means.append(float(peer.x[0]))
    holt = Holt.from_brown(beta)
    np.testing.assert_allclose(holt.filter(x).mean, means, rtol=0, atol=1e-11)
    assert holt.noise_gain == pytest.approx(float(peer.P[0]), rel=1e-10)


# --- parameters ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LocalTrend(-1.0, 0.1, 1.0), "LocalTrend: q=-1.0 is not valid; q must be >= 0"),
        (lambda: LocalTrend(1.0, -0.1, 1.0), "LocalTrend: q_slope=-0.1 is not valid; q_slope must be >= 0"),
        (lambda: LocalTrend(1.0, 0.1, math.nan), "LocalTrend: r=nan is not valid; r must be >= 0"),
        (lambda: LocalTrend(0.0, 0.0, 0.0), "LocalTrend: r=0.0 is not valid; r must be > 0"),
        (lambda: LocalTrend([0.1, 0.2], [1.0, 2.0, 3.0], 1.0), "LocalTrend: the shapes of"),
        (lambda: Holt(0.0, 0.0), "Holt: gain=0.0 is not valid; gain must be in (0, 1]"),
        (lambda: Holt(1.5, 0.1), "Holt: gain=1.5 is not valid; gain must be in (0, 1]"),
        (lambda: Holt(0.5, -0.1), "Holt: slope_gain=-0.1 is not valid; slope_gain must be in [0, 1]"),
        (lambda: Holt(0.5, 0.6), "Holt: slope_gain=0.6 is not valid; slope_gain must be in [0, gain]"),
        (lambda: Holt.from_brown(1.0), "Holt.from_brown: beta=1.0 is not valid; beta must be in (0, 1)"),
        (lambda: Holt.from_smoothing(0.1, 2.0), "Holt.from_smoothing: beta=2.0 is not valid; beta must be"),
    ],
)
def test_parameters_out_of_range(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid|do not broadcast") as caught:
        make()
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)
