"""Published numbers and exact identities: answers that share no code with any recursion here."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from data import NILE, agrees
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage

EPS = 2.0**-52
LOG_2PI = math.log(2.0 * math.pi)

# --- Nile, local level: Durbin and Koopman (2012), Time Series Analysis by State Space Methods, chapter 2 ---

R, Q = 15099.0, 1469.1  # their maximum likelihood estimates, p. 37


def test_the_series_is_the_published_one() -> None:
    assert (NILE.size, NILE[0], NILE[-1], NILE.sum()) == (100, 1120.0, 740.0, 91935.0)


def test_nile_filter() -> None:
    """Exact diffuse start; statsmodels with exact diffuse initialisation gives the same."""
    out = Kalman(Q, R).filter(NILE)
    assert (out.mean[0], out.variance[0]) == (1120.0, R)  # a_2
    assert agrees(out.innovation_variance[1] - R, "16568.1")  # P_2
    assert agrees(out.gain[1], "0.52320")  # K_2
    for t, mean, variance in (
        (2, "1140.9278399", "7899.7363794"),
        (3, "1072.7985295", "5781.4699387"),
        (100, "798.3702926", "4032.1579418"),
    ):
        assert agrees(out.mean[t - 1], mean)
        assert agrees(out.variance[t - 1], variance)


def test_nile_steady_state() -> None:
    kalman = Kalman(Q, R)
    out = kalman.filter(NILE)
    assert agrees(kalman.steady_gain, "0.2670480126")
    assert agrees(R * kalman.steady_gain, "4032.1579418")
    assert agrees(R * kalman.steady_gain + Q, "5501.2579418")
    assert out.gain[-1] == pytest.approx(kalman.steady_gain, rel=1e-12)


def test_nile_smoother() -> None:
    """Statsmodels' smoother, exact diffuse."""
    out = Kalman(Q, R).smooth(NILE)
    for t, mean, variance in (
        (1, "1111.6683191", "4032.15794"),
        (2, "1110.8576646", "3242.93007"),
        (51, "829.5504512", "2326.75687"),
    ):
        assert agrees(out.mean[t - 1], mean)
        assert agrees(out.variance[t - 1], variance)


def test_nile_with_a_proper_prior() -> None:
    """a_1 = 0, P_1 = 1e7: pykalman, simdkalman, kalman-py and statsmodels agree; ours states P_1 - q."""
    out = Kalman(Q, R, mean=0.0, variance=1e7 - Q).filter(NILE)
    assert agrees(out.mean[0], "1118.31146152")
    assert agrees(out.variance[0], "15076.23639067")
    assert agrees(out.mean[1], "1140.10843916")
    assert agrees(out.variance[1], "7894.55753088")
    assert agrees(out.loglikelihood, "-641.5855785")


def test_one_series_five_loglikelihoods() -> None:
    """Which one is meant is a convention; ours: constants included, a diffuse first sample adds nothing."""
    diffuse = Kalman(Q, R).filter(NILE)
    assert agrees(diffuse.loglikelihood - 0.5 * LOG_2PI, "-633.4645636489")  # statsmodels, statespacer: n/2
    at_the_maximum = Kalman(1469.176520, 15098.518034).filter(NILE).loglikelihood
    assert agrees(at_the_maximum, "-632.5456251")  # KFAS prints 632.5456: n - 1 terms
    assert agrees(at_the_maximum, "-632.5456")
    proper = Kalman(Q, R, mean=0.0, variance=1e7 - Q).filter(NILE)
    assert agrees(proper.loglikelihood + 50 * LOG_2PI, "-549.69")  # simdkalman leaves the constant out
    burnt = proper.loglikelihood + 0.5 * (
        math.log(2 * math.pi * proper.innovation_variance[0])
        + proper.innovation[0] ** 2 / proper.innovation_variance[0]
    )
    assert agrees(burnt, "-632.5442123")  # statsmodels with a burn-in of 1
    assert agrees(burnt, "-632.54421")  # StateSpaceModels.jl asserts it


def test_the_maximum_is_where_it_is_published() -> None:
    """Both estimates to their printed digits: the log-likelihood falls on every side of them."""

    def loglikelihood(q: float, r: float) -> float:
        return float(Kalman(q, r).filter(NILE).loglikelihood)

    best = loglikelihood(1469.176520, 15098.518034)
    for dq, dr in ((0.05, 0.0), (-0.05, 0.0), (0.0, 0.5), (0.0, -0.5), (0.05, -0.5), (0.05, 0.5)):
        assert loglikelihood(1469.176520 + dq, 15098.518034 + dr) < best


# --- the joint Gaussian: T x T covariance, solved once, no recursion ----------------------------------------


def joint(x: np.ndarray, q: float, r: float, mean: float, variance: float) -> dict[str, Any]:
    """Moments of the levels given the samples, and the log density of the samples (dynamax's pattern).

    Moments from the T x T precision, density from the T x T covariance. variance = inf is the limit: no row
    for the prior, and the density given the first sample, by least squares for the unknown constant.
    """
    seen, proper = ~np.isnan(x), math.isfinite(variance)
    y, steps = x[seen], np.arange(1.0, x.size + 1)
    steps_of_the_walk = np.diff(np.eye(x.size), axis=0)
    precision = steps_of_the_walk.T @ steps_of_the_walk / q + np.diag(seen / r)
    precision[0, 0] += 1.0 / (variance + q) if proper else 0.0
    information = np.where(seen, np.nan_to_num(x), 0.0) / r
    information[0] += mean / (variance + q) if proper else 0.0
    posterior = np.linalg.inv(precision)

    past = variance if proper else 0.0
    covariance = (q * np.minimum.outer(steps, steps) + past)[np.ix_(seen, seen)] + r * np.eye(y.size)
    inverse, logdet = np.linalg.inv(covariance), np.linalg.slogdet(covariance)[1]
    ones = inverse.sum(axis=1)
    level = mean if proper else ones @ y / ones.sum()
    terms = y.size if proper else y.size - 1
    logdet += 0.0 if proper else math.log(ones.sum())
    return {
        "mean": posterior @ information,
        "variance": np.diag(posterior),
        "loglikelihood": -0.5 * (terms * LOG_2PI + logdet + (y - level) @ inverse @ (y - level)),
    }


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    log_s=st.floats(-3.0, 2.0),
    log_r=st.floats(-3.0, 3.0),
    prior=st.sampled_from([(0.0, math.inf), (0.0, 1.0), (3.0, 0.0), (-2.0, 100.0)]),
    missing=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_filter_smoother_and_likelihood_are_those_of_the_joint_gaussian(
    seed: int, log_s: float, log_r: float, prior: tuple[float, float], missing: float
) -> None:
    steps, r = 60, 10.0**log_r
    q = 10.0**log_s * r
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(scale=math.sqrt(q), size=steps)) + rng.normal(scale=math.sqrt(r), size=steps)
    x[rng.random(steps) < missing] = np.nan
    x[rng.integers(steps)] = 1.0
    mean, variance = prior[0] * math.sqrt(r), prior[1] * r
    kalman = Kalman(q, r, mean, variance)
    out, smoothed, expected = kalman.filter(x), kalman.smooth(x), joint(x, q, r, mean, variance)
    scale = math.sqrt(r) + np.nanmax(np.abs(x)) + abs(mean)
    np.testing.assert_allclose(smoothed.mean, expected["mean"], rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(smoothed.variance, expected["variance"], rtol=1e-12)
    assert out.mean[-1] == pytest.approx(expected["mean"][-1], abs=1e-13 * scale)
    assert out.variance[-1] == pytest.approx(expected["variance"][-1], rel=1e-12)
    assert out.loglikelihood == pytest.approx(expected["loglikelihood"], rel=2e-12, abs=2e-12)
    at = 29  # and a filter in the middle knows only the past
    if not np.all(np.isnan(x[: at + 1])):
        past = joint(x[: at + 1], q, r, mean, variance)
        assert out.mean[at] == pytest.approx(past["mean"][-1], abs=1e-13 * scale)
        assert out.variance[at] == pytest.approx(past["variance"][-1], rel=1e-12)


# --- exact identities ---------------------------------------------------------------------------------------

betas = pytest.mark.parametrize("beta", [0.1, 0.5, 0.6, 0.9, 0.99, 0.999])


@betas
def test_noise_and_lag_of_the_ema(beta: float) -> None:
    """filterpy's FadingMemoryFilter(order=0) states both: its P and its e."""
    from filterpy.memory import FadingMemoryFilter

    peer = FadingMemoryFilter(0.0, 1.0, 0, beta)
    ema = EMA(beta)
    assert ema.noise_gain == pytest.approx(float(np.ravel(peer.P)[0]), rel=1e-12)
    assert ema.group_delay == pytest.approx(float(np.ravel(peer.e)[0]), rel=1e-12)
    steps = 60 * math.ceil(ema.effective_window)
    ramp = np.arange(float(steps))
    for estimator in (ema, DebiasedEMA(beta), Kalman.from_beta(beta)):
        lag = ramp[-1] - estimator.filter(ramp).mean[-1]
        assert lag == pytest.approx(beta / (1 - beta), rel=1e-9)
    assert ema.filter(ramp).noise_gain[-1] == pytest.approx((1 - beta) / (1 + beta), rel=1e-12)


@pytest.mark.parametrize("window", [1, 2, 19, 199])
def test_noise_and_lag_of_the_window(window: int) -> None:
    ramp = np.arange(3.0 * window)
    out = MovingAverage(window).filter(ramp)
    assert ramp[-1] - out.mean[-1] == (window - 1) / 2
    assert out.noise_gain[-1] == pytest.approx(1.0 / window, rel=EPS)


@pytest.mark.parametrize("window", [3, 19, 199])
def test_a_window_and_its_ema_tie_in_both(window: int) -> None:
    """N = (1 + b)/(1 - b): a benchmark on white noise and a ramp with a winner between them is broken."""
    ema, average = EMA((window - 1) / (window + 1)), MovingAverage(window)
    steps = 80 * window
    ramp = np.arange(float(steps))
    runs = [e.filter(np.zeros(steps)) for e in (ema, average)]
    assert runs[0].noise_gain[-1] == pytest.approx(runs[1].noise_gain[-1], rel=1e-12)
    lags = [ramp[-1] - run.replay(ramp)[-1] for run in runs]
    assert lags[0] == pytest.approx(lags[1], rel=1e-10)


@pytest.mark.parametrize(("s", "gain"), [(Fraction(1, 20), Fraction(1, 5)), (Fraction(1, 2), Fraction(1, 2))])
def test_an_ema_is_a_kalman_filter_that_has_forgotten_its_uncertainty(s: Fraction, gain: Fraction) -> None:
    """(a^2 R + (1 - a)^2 Q) / (a (2 - a)) is least exactly at a = K, where it is K R: s with a rational K."""

    def error(a: Fraction) -> Fraction:
        return (a**2 + (1 - a) ** 2 * s) / (a * (2 - a))

    assert error(gain) == gain
    for step in (Fraction(1, 10), Fraction(1, 1000), Fraction(1, 10**9)):
        assert error(gain - step) > gain < error(gain + step)
    kalman = Kalman(float(s), 1.0)
    assert kalman.steady_gain == pytest.approx(float(gain), rel=EPS)
    assert kalman.filter(np.zeros(500)).variance[-1] == pytest.approx(float(gain), rel=2 * EPS)


@pytest.mark.parametrize("s", [1e-4, 0.01, 1.0, 100.0])
def test_steady_gain_in_its_textbook_form(s: float) -> None:
    assert Kalman(s, 1.0).steady_gain == pytest.approx((-s + math.sqrt(s * s + 4 * s)) / 2, rel=1e-13)
    kalman = Kalman(3.0 * s, 3.0)
    out = kalman.filter(np.zeros(20_000))
    predicted = out.innovation_variance[-1] - 3.0
    assert out.variance[-1] == pytest.approx(3.0 * kalman.steady_gain, rel=1e-12)
    assert predicted == pytest.approx(3.0 * kalman.steady_gain / (1 - kalman.steady_gain), rel=1e-12)


@betas
def test_the_debiased_ema_is_a_kalman_filter_of_fading_memory(beta: float) -> None:
    """P- = P / beta, no process noise, diffuse start; also recursive least squares that forget by beta."""
    x = np.random.default_rng(0).normal(size=200)
    mean, variance = x[0], 1.0
    means = [mean]
    for sample in x[1:]:
        predicted = variance / beta
        gain = predicted / (predicted + 1.0)
        mean, variance = mean + gain * (sample - mean), gain
        means.append(mean)
    out = DebiasedEMA(beta).filter(x)
    np.testing.assert_allclose(out.mean, means, rtol=0, atol=1e-14)
    assert out.gain[-1] == pytest.approx(variance, rel=1e-12)


def test_filterpys_fading_kalman_filter_is_the_debiased_ema() -> None:
    """filterpy's alpha^2 = 1 / beta."""
    from filterpy.kalman import KalmanFilter

    x, beta = np.random.default_rng(1).normal(size=300), 0.9
    peer = KalmanFilter(dim_x=1, dim_z=1)
    peer.H, peer.Q = np.eye(1), np.zeros((1, 1))
    peer.alpha = beta**-0.5
    peer.x, peer.P = np.array([[x[0]]]), np.eye(1)
    means = [x[0]]
    for sample in x[1:]:
        peer.predict()
        peer.update(sample)
        means.append(peer.x[0, 0])
    np.testing.assert_allclose(DebiasedEMA(beta).filter(x).mean, means, rtol=0, atol=1e-14)


# Theory notes, 4.3: start-up gains of three filters with the same steady beta.
TABLE_4_3 = """
.9  2   .5027624309   .5263157895   .5
.9  3   .3394428450   .3690036900   .3333333333
.9  5   .2130162080   .2441942810   .2
.9  10  .1292184660   .1535339933   .1
.9  20  .1031672230   .1138403260   .05
.9  50  .1000056076   .1005180474   .02
.99 10  .1002876551   .1045829012   .1
.99 100 .01310977320  .01577367530  .01
"""


@pytest.mark.parametrize(
    "row", TABLE_4_3.split("\n")[1:-1], ids=lambda r: "beta={} t={}".format(*r.split()[:2])
)
def test_start_up_gains(row: str) -> None:
    beta, t, diffuse, debiased, running = row.split()
    zeros = np.zeros(int(t))
    assert agrees(Kalman.from_beta(float(beta)).filter(zeros).gain[-1], diffuse)
    assert agrees(DebiasedEMA(float(beta)).filter(zeros).gain[-1], debiased)
    assert agrees(Kalman(0.0, 1.0).filter(zeros).gain[-1], running)


@pytest.mark.parametrize(
    ("estimator", "x", "expected"),
    [
        pytest.param(Kalman(1.0, 1.0, 0.0, 1.0), [1.0, 2.0], 1.5, id="filterpy KF, all ones, on 1 2"),
        pytest.param(
            Kalman(1.0, 1.0, 0.0, 1.0),
            [1.0, 2.0, math.nan, 3.0],
            "2.5862069",
            id="filterpy KF, all ones, on 1 2 gap 3",
        ),
        pytest.param(Kalman(0.0, 1.0), [1.0, 2.0, 6.0], 3.0, id="running mean"),
    ],
)
def test_small_cases(estimator: Any, x: list[float], expected: Any) -> None:
    out = estimator.filter(x)
    assert agrees(out.mean[-1], expected) if isinstance(expected, str) else out.mean[-1] == expected
    if len(x) == 4:
        assert agrees(out.variance[-1], "0.7241379")


@settings(max_examples=60, deadline=None)
@given(
    shift=st.floats(-1e6, 1e6),
    factor=st.one_of(st.floats(1e-6, 1e6), st.floats(-1e6, -1e-6)),
    seed=st.integers(0, 1000),
)
def test_shift_and_scale(shift: float, factor: float, seed: int) -> None:
    """Every estimator without a prior; a Kalman filter in units scaled alike, q and r by the square."""
    x = np.random.default_rng(seed).normal(size=40)
    x[::7] = np.nan
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(5)):
        mean = estimator.filter(x).mean
        np.testing.assert_allclose(
            estimator.filter(x + shift).mean, mean + shift, rtol=0, atol=32 * EPS * (10 + abs(shift))
        )
        np.testing.assert_allclose(
            estimator.filter(factor * x).mean, factor * mean, rtol=0, atol=64 * EPS * abs(factor)
        )
    prior = Kalman(0.1, 1.0, 2.0, 3.0)
    scaled = Kalman(0.1 * factor**2, factor**2, 2.0 * factor, 3.0 * factor**2)
    np.testing.assert_allclose(
        scaled.filter(factor * x).mean, factor * prior.filter(x).mean, rtol=0, atol=64 * EPS * abs(factor)
    )
    np.testing.assert_allclose(scaled.filter(x).variance, factor**2 * prior.filter(x).variance, rtol=64 * EPS)


def test_every_estimator_passes_a_constant_through() -> None:
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.999999), Kalman(0.1, 1.0), Kalman(0.0, 1.0)):
        for kept in (np.float64, np.float32):
            assert np.all(estimator.filter(np.full(100, 0.1), dtype=kept).mean == kept(0.1))
