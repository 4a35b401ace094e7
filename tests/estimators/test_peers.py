"""Inputs on which other libraries go wrong, and the right answer: one test per fault, the peer named.

Versions as measured: optax 0.2.8, river 0.26.1, pandas 3.1.1, filterpy 2.0.0, simdkalman 1.0.4, pykalman
0.11.2, kalman-py 0.1.1, dynamax 1.0.3. Pandas and filterpy run side by side; that filterpy is wrong is
asserted of the version measured only, so that a repaired one does no harm here.
"""

from __future__ import annotations

import math
from fractions import Fraction
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import NILE, agrees, exact

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from estimators.filterpy import FilterpyKalman

EPS = 2.0**-52
AS_MEASURED = metadata.version("filterpy") == "2.0.0"
nan = math.nan

# --- bias correction ----------------------------------------------------------------------------------------

OPTAX = [  # constant 1.0, decay in float32: what optax.ema returns after one step
    (0.9999, 0.99983),
    (0.99999, 0.99864),
    (0.999999, 0.98690),
]


@pytest.mark.parametrize(("decay", "wrong"), OPTAX, ids=[f"optax.ema({d}) gives {w}" for d, w in OPTAX])
def test_bias_correction_in_float32(decay: float, wrong: float) -> None:
    """optax rounds the decay to float32 before 1 - decay^t; our weight mass is a float64 beside the mean."""
    estimator = DebiasedEMA(decay)
    out = estimator.filter(np.ones(1000), dtype=np.float32)
    np.testing.assert_array_equal(out.mean, np.float32(1.0))
    state = estimator.init(np.ones(2), dtype=np.float32)
    for _ in range(20):
        state = estimator.update(state, np.ones(2, np.float32))
        np.testing.assert_array_equal(state.mean, np.float32(1.0))
    assert wrong < 0.9999
    # What optax computes: (1 - decay) and decay^t both from the rounded decay.
    rounded = np.float32(decay)
    biased = np.float32(1.0 - decay) * np.float32(1.0)
    assert float(biased / (np.float32(1.0) - rounded)) == pytest.approx(wrong, abs=2e-5)


def test_a_nan_does_not_stay_for_ever() -> None:
    """optax.ema, river EWMean and Rolling(Mean), kalman-py, dynamax and pykalman: NaN from there on."""
    x = np.array([1.0, nan, 1.0, 1.0, 1.0])
    for estimator in (
        EMA(0.9, initial=1.0),
        EMA(0.9, initial=None),
        DebiasedEMA(0.9),
        Kalman(0.1, 1.0),
        Kalman(0.1, 1.0, mean=1.0, variance=1.0),
        MovingAverage(3),
        FilterpyKalman(0.1, 1.0),
    ):
        out = estimator.filter(x)
        np.testing.assert_array_equal(out.mean, 1.0)
        assert out.gain[1] == 0.0
        state = estimator.init(0.0)
        for sample in x:
            state = estimator.update(state, sample)
        assert state.mean == 1.0


@pytest.mark.parametrize("scale", [1.0, 1e300, 1e-300])
def test_a_missing_channel_leaves_the_others_alone(scale: float) -> None:
    """Kalman-py and dynamax lose the whole row."""
    x = scale * np.random.default_rng(0).normal(size=(50, 3))
    spoilt = x.copy()
    spoilt[20:30, 1] = nan
    for estimator in (EMA(0.9), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(5)):
        clean, holed = estimator.filter(x), estimator.filter(spoilt)
        np.testing.assert_array_equal(holed.mean[:, [0, 2]], clean.mean[:, [0, 2]])
        assert np.all(np.isfinite(holed.mean))


# --- windows ------------------------------------------------------------------------------------------------


def test_an_outlier_that_left_the_window() -> None:
    """river Rolling(Mean, 3) on 1, 2e17, 3, ..., 8 ends at 10.0; the mean of 6, 7, 8 is 7."""
    x = [1.0, 2e17, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert MovingAverage(3).filter(x).mean.tolist()[-4:] == [4.0, 5.0, 6.0, 7.0]
    tracker = MovingAverage(3).tracker()
    assert [tracker.update(v) for v in x][-1] == 7.0


@pytest.mark.parametrize("spike", [1e15, 1e17, 1e200, 8.9e307])
def test_windows_after_a_spike(spike: float) -> None:
    """pandas #11645, #28244, #42064, #47721, #61071; polars #22936: sums that carry an outlier on."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=500)
    x[[50, 90]] = spike, -spike
    ours = MovingAverage(20).filter(x).mean
    for t in range(120, 500):
        assert ours[t] == pytest.approx(math.fsum(x[t - 19 : t + 1]) / 20, abs=EPS)


def test_pandas_keeps_what_a_spike_did_to_its_sums() -> None:
    """Side by side: after 3e33 and 1e17 pandas 3.1.1 is off by 0.4 for ever, compensated sums or not."""
    x = np.random.default_rng(0).normal(size=60)
    x[5], x[7] = 3e33, 1e17
    expected = np.array([math.fsum(x[t - 3 : t + 1]) / 4 for t in range(11, 60)])
    pandas, ours = (
        np.max(np.abs(mean[11:] - expected))
        for mean in (pd.Series(x).rolling(4).mean().to_numpy(), MovingAverage(4).filter(x).mean)
    )
    assert ours <= 2 * EPS
    assert pandas >= ours


def test_a_small_ripple_on_a_large_offset() -> None:
    """river's running sums lose a ripple on an offset; every window here is exact to an ulp of the offset."""
    for offset in (1e8, 1e12, 1e15):
        x = offset + np.random.default_rng(2).random(2000)
        mean = MovingAverage(3).filter(x).mean
        for t in range(2, 2000, 97):
            expected = sum(exact(x[t - 2 : t + 1]), Fraction(0)) / 3
            assert abs(Fraction(float(mean[t])) - expected) <= Fraction(math.ulp(offset))
    x = np.array([1e8, 1e8 + 1, 1e8 + 2, 1, 2, 3, 4, 5, 6, 7])  # river Rolling(Var, 3) ends at 0.75, not 1
    window = MovingAverage(3).filter(x).state.window
    assert MovingAverage(3).filter(x).mean[-1] == 6.0
    assert np.var(window, ddof=1) == 1.0


def test_recursive_means_on_a_large_offset() -> None:
    """river EWVar(.1) on 1e8 + U(0, 1) falls to -12; mean + gain * difference stays between the samples."""
    x = 1e8 + np.random.default_rng(3).random(5000)
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.01, 1.0), Kalman(0.0, 1.0)):
        mean = estimator.filter(x).mean
        assert np.all((mean >= 1e8) & (mean <= 1e8 + 1))
        shifted = estimator.filter(x - 1e8).mean
        np.testing.assert_allclose(mean - 1e8, shifted, rtol=0, atol=64 * math.ulp(1e8))


# --- gaps and infinity --------------------------------------------------------------------------------------


def test_a_gap_is_continuous_in_alpha() -> None:
    """pandas ewm(com=1, adjust=False) on 1, NaN, 5: 4.0 at alpha = .5 alone, 3.667 beside it (#66521).

    Its convention for adjust=False ages the old mean over the gap; ours passes over it: 3.0 at alpha = .5.
    """

    def ours(estimator: Any) -> float:
        return float(estimator.filter([1.0, nan, 5.0]).mean[-1])

    def pandas(com: float, **options: Any) -> float:
        return float(pd.Series([1.0, nan, 5.0]).ewm(com=com, **options).mean().iloc[-1])

    beside = pandas(1 + 1e-9, adjust=False)
    assert agrees(beside, "3.667")
    assert pandas(1, adjust=False) in (4.0, pytest.approx(beside, abs=1e-6))  # 4.0 in 3.1.1
    for near in (0.5 - 1e-9, 0.5 + 1e-9):
        assert ours(EMA(near, initial=None)) == pytest.approx(ours(EMA(0.5, initial=None)), abs=1e-8)
        assert ours(DebiasedEMA(near)) == pytest.approx(ours(DebiasedEMA(0.5)), abs=1e-8)
    assert ours(EMA(0.5, initial=None)) == 3.0 == pandas(1, adjust=False, ignore_na=True)
    assert ours(DebiasedEMA(0.5)) == pytest.approx(4.2, rel=EPS) == pandas(1, adjust=True)


def test_infinity_is_never_silently_missing() -> None:
    """pandas ewm treats inf as missing without a word; here it raises unless that is asked for."""
    x = [1.0, math.inf, 5.0]
    assert np.all(np.isfinite(pd.Series(x).ewm(alpha=0.5).mean()))
    for estimator in (EMA(0.5), DebiasedEMA(0.5), Kalman(1.0, 1.0), MovingAverage(2)):
        with pytest.raises(ValueError, match="infinity at index 1"):
            estimator.filter(x)
        found = estimator.filter(x, on_infinite="missing").mean
        np.testing.assert_array_equal(found, estimator.filter([1.0, nan, 5.0]).mean)


# --- filterpy -----------------------------------------------------------------------------------------------


def scalar_filterpy(q: float, r: float, mean: float, variance: float) -> Any:
    from filterpy.kalman import KalmanFilter

    peer = KalmanFilter(dim_x=1, dim_z=1)
    peer.H, peer.Q, peer.R = np.eye(1), np.array([[q]]), np.array([[r]])
    peer.x, peer.P = np.array([[mean]]), np.array([[variance]])
    return peer


def test_filterpy_keeps_a_nan_and_grows_surer() -> None:
    peer = scalar_filterpy(0.0, 1.0, 0.0, 1.0)
    for sample in (1.0, nan, 1.0):
        peer.predict()
        peer.update(sample)
    if AS_MEASURED:
        assert math.isnan(peer.x[0, 0])
        assert peer.P[0, 0] == pytest.approx(1 / 4)  # as if three samples had been seen
    for kind in (Kalman, FilterpyKalman):
        out = kind(0.0, 1.0, 0.0, 1.0).filter([1.0, nan, 1.0])
        assert out.mean[-1] == pytest.approx(2 / 3)
        assert out.variance[-1] == pytest.approx(1 / 3)


def test_filterpys_likelihood_counts_a_gap() -> None:
    """update(None) leaves the density of a zero innovation under the old variance: -1.815 in one step."""
    q, r, variance = 1.0, 4.0, 1.0
    peer = scalar_filterpy(q, r, 0.0, variance)
    total = 0.0
    for sample in (1.0, None, 2.0):
        peer.predict()
        peer.update(sample)
        total += float(peer.log_likelihood)
    stray = -0.5 * math.log(2 * math.pi * (variance + q + r))
    assert agrees(stray, "-1.815")
    for kind in (Kalman, FilterpyKalman):
        ours = kind(q, r, 0.0, variance).filter([1.0, None, 2.0]).loglikelihood
        assert not AS_MEASURED or total - ours == pytest.approx(stray, rel=1e-12)


@pytest.mark.parametrize("variance", [1e20, 1e30, 1e100, 1e300])
def test_filterpys_joseph_form_on_a_vague_prior(variance: float) -> None:
    """P = 1.0123 after P0 = 1e30 and one sample with r = 1; the scalar form gives 1 exactly."""
    peer = scalar_filterpy(0.0, 1.0, 0.0, variance)
    peer.predict()
    peer.update(0.3)
    if AS_MEASURED and variance == 1e30:
        assert agrees(peer.P[0, 0], "1.0123")
    for kind in (Kalman, FilterpyKalman):
        out = kind(0.0, 1.0, 0.0, variance).filter([0.3])
        assert (out.variance[0], out.mean[0]) == (1.0, 0.3)


def test_filterpy_filters_nothing_unless_told_what_is_measured() -> None:
    """Its H is zero by default."""
    from filterpy.kalman import KalmanFilter

    peer = KalmanFilter(dim_x=1, dim_z=1)
    for sample in (5.0, 5.0, 5.0):
        peer.predict()
        peer.update(sample)
    assert not AS_MEASURED or peer.x[0, 0] == 0.0
    assert Kalman(1.0, 1.0).filter([5.0, 5.0, 5.0]).mean[-1] == 5.0


# --- likelihoods --------------------------------------------------------------------------------------------


def test_the_likelihood_has_its_constant() -> None:
    """simdkalman: -549.69 on the Nile with a1 = 0, P1 = 1e7; with n/2 log(2 pi) it is -641.59."""
    loglikelihood = Kalman(1469.1, 15099.0, mean=0.0, variance=1e7 - 1469.1).filter(NILE).loglikelihood
    assert agrees(loglikelihood, "-641.59")
    assert agrees(loglikelihood + 50 * math.log(2 * math.pi), "-549.69")


def test_the_likelihood_survives_gaps() -> None:
    """dynamax 1.0.3: one NaN makes it NaN. Here a gap adds nothing: the joint density of what was seen."""
    x = NILE.copy()
    x[[0, 10, 50, 99]] = nan
    kalman = Kalman(1469.1, 15099.0, mean=1000.0, variance=1e4)
    seen = ~np.isnan(x)
    steps = np.arange(1.0, 101.0)[seen]
    covariance = 1e4 + 1469.1 * np.minimum.outer(steps, steps) + 15099.0 * np.eye(steps.size)
    from scipy.stats import multivariate_normal

    expected = multivariate_normal.logpdf(x[seen], np.full(steps.size, 1000.0), covariance)
    assert kalman.filter(x).loglikelihood == pytest.approx(expected, rel=1e-12)


# --- running means ------------------------------------------------------------------------------------------


def test_a_running_mean_is_the_mean() -> None:
    """ema-pytorch's 'simple average' (power = 1) of the ramp 1 to 1000, update_every = 10: 91.0, not 496."""
    ramp = np.arange(1.0, 1001.0)
    assert Kalman(0.0, 1.0).filter(ramp).mean[-1] == pytest.approx(500.5, rel=1e-14)
    assert Kalman(0.0, 1.0).filter(ramp[::10]).mean[-1] == pytest.approx(496.0, rel=1e-14)
    assert MovingAverage(1000).filter(ramp).mean[-1] == 500.5


def test_before_any_sample_there_is_no_mean() -> None:
    """river's Mean().get() is 0.0 before data; padasip starts from random weights."""
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(1.0, 1.0), MovingAverage(3)):
        assert math.isnan(estimator.tracker().mean)
        assert estimator.tracker().variance in (None, math.inf)
    assert EMA(0.9).tracker().mean == 0.0  # a stated start


def test_near_equal_samples() -> None:
    """river #732: 99.9999997...; means of near-equal samples stay between them."""
    x = 99.9999997 + 1e-14 * np.arange(10)
    for estimator in (EMA(0.5, initial=None), DebiasedEMA(0.5), Kalman(0.1, 1.0), MovingAverage(4)):
        mean = estimator.filter(x).mean
        assert np.all((mean >= x.min() - math.ulp(100.0)) & (mean <= x.max() + math.ulp(100.0)))
