"""Diagnostics: other libraries' statistics, false alarms, power, what readings say, gaps, panels, edges."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import NILE, agrees
from scipy import stats

from estimators import EMA, Kalman
from estimators.diagnostics import AS_STATED, TOO_FEW, WEIGHTS, Check, Diagnosis, diagnose
from estimators.ema import EMAWithVariance
from estimators.fitting import fit
from estimators.trend import LocalTrend

inf, nan = math.inf, math.nan
INNOVATIONS = ("nis", "whiteness", "autocorrelation", "gain", "normality", "variance_break")


def walks(s: float, shape: tuple[int, ...], seed: int, gaps: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Random walks of process variance s seen in noise of variance 1, and the walks, shape (T, ...)."""
    rng = np.random.default_rng(seed)
    level = math.sqrt(s) * np.cumsum(rng.normal(size=shape), axis=0)
    x = level + rng.normal(size=shape)
    x[rng.random(shape) < gaps] = nan
    return x, level


def stream_of(sizes: np.ndarray, kalman: Kalman) -> np.ndarray:
    """Stream that gives a filter with a proper prior these standardised innovations, NaN among them."""
    x, state = np.empty(len(sizes)), kalman.init(0.0)
    for t, size in enumerate(sizes):
        x[t] = state.mean + size * math.sqrt(state.variance + kalman.q + kalman.r)
        state = kalman.update(state, x[t])
    return x


PROPER = Kalman(0.2, 1.0, mean=0.0, variance=2.0)


def sizes(n: int, seed: int) -> np.ndarray:
    """Numbers of mean 0, as statistics that subtract the mean are compared with some that do not."""
    e = np.random.default_rng(seed).standard_t(6, size=n)
    return e - e.mean()


def share(holds: Any) -> float:
    return float(np.mean(holds))


# --- oracles ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "low", "high"), [(100, 0.7422192747, 1.2956119719), (500, 0.8798719825, 1.1277030587)]
)
def test_band_of_the_nis(n: int, low: float, high: float) -> None:
    e = sizes(n, 1)
    found = diagnose(PROPER.filter(stream_of(e, PROPER))).nis
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)
    assert found.value == pytest.approx(np.mean(e**2), rel=1e-12)
    tail = min(stats.chi2.cdf(np.sum(e**2), n), stats.chi2.sf(np.sum(e**2), n))
    assert found.p_value == pytest.approx(2 * tail, rel=1e-9)


def test_ljung_box_against_statsmodels() -> None:
    ljung_box = pytest.importorskip("statsmodels.stats.diagnostic").acorr_ljungbox
    for n, lags in ((300, None), (42, None), (200, 25)):
        e = sizes(n, n)
        found = diagnose(PROPER.filter(stream_of(e, PROPER)), lags=lags).whiteness
        expected = ljung_box(e, lags=[lags or min(10, n // 5)]).iloc[0]
        assert found.value == pytest.approx(expected["lb_stat"], rel=1e-10)
        assert found.p_value == pytest.approx(expected["lb_pvalue"], rel=1e-9)
        assert found.high == pytest.approx(stats.chi2.ppf(0.95, lags or min(10, n // 5)), rel=1e-10)


def test_first_autocorrelation_by_hand() -> None:
    e = sizes(200, 3)
    found = diagnose(PROPER.filter(stream_of(e, PROPER))).autocorrelation
    rho = np.sum(e[1:] * e[:-1]) / np.sum(e**2)
    assert found.value == pytest.approx(rho, rel=1e-10)
    assert found.high == -found.low == pytest.approx(1.959963985 / math.sqrt(200), rel=1e-9)
    assert found.p_value == pytest.approx(2 * stats.norm.sf(abs(rho) * math.sqrt(200)), rel=1e-9)


def test_normality_and_break_against_scipy() -> None:
    for n in (20, 75, 400):
        e = sizes(n, n)
        found = diagnose(PROPER.filter(stream_of(e, PROPER)))
        expected = stats.normaltest(e)
        assert found.normality.value == pytest.approx(expected.statistic, rel=1e-9)
        assert found.normality.p_value == pytest.approx(expected.pvalue, rel=1e-9)
        h = round(n / 3)
        ratio = np.sum(e[-h:] ** 2) / np.sum(e[:h] ** 2)
        assert found.variance_break.value == pytest.approx(ratio, rel=1e-10)
        tail = min(stats.f.cdf(ratio, h, h), stats.f.sf(ratio, h, h))
        assert found.variance_break.p_value == pytest.approx(2 * tail, rel=1e-9)
        assert found.variance_break.low == pytest.approx(stats.f.ppf(0.025, h, h), rel=1e-9)
        assert found.variance_break.high == pytest.approx(stats.f.ppf(0.975, h, h), rel=1e-9)


def test_the_nile_as_published() -> None:
    """Durbin and Koopman (2012), section 2.12.3: H(33) = 0.61; their Q(9) = 8.84 is about the mean, not 0."""
    out = Kalman(1469.1, 15099.0).filter(NILE)
    found = diagnose(out, lags=9)
    e = (np.asarray(out.innovation) / np.sqrt(np.asarray(out.innovation_variance)))[1:]

    def ljung_box(e: np.ndarray) -> float:
        rho = [np.sum(e[k:] * e[:-k]) / np.sum(e**2) for k in range(1, 10)]
        return float(sum(99 * 101 * r**2 / (99 - k) for k, r in enumerate(rho, 1)))

    assert agrees(ljung_box(e - e.mean()), "8.84")
    assert found.whiteness.value == pytest.approx(ljung_box(e), rel=1e-10)
    assert agrees(found.variance_break.value, "0.61")
    assert found.likelihood_ratio is not None
    assert found.likelihood_ratio.value < 1e-5
    assert found.consistent


def test_the_gain_is_the_score_of_the_likelihood() -> None:
    """In the settled filter of gain K: sum of nu_t m_{t-1}, m the filter's mean of the innovations before."""
    x, _ = walks(0.05, (2000,), 5)
    kalman = Kalman(0.05, 1.0)
    out = kalman.filter(x)
    nu, variance = np.asarray(out.innovation)[1:], np.asarray(out.innovation_variance)[1:]
    trace, total = 0.0, np.zeros(2)
    for innovation, scale, gain in zip(nu, variance, np.asarray(out.gain)[1:], strict=True):
        total += trace * innovation / scale, trace**2 / scale
        trace += gain * (innovation - trace)
    assert diagnose(out).gain.value == pytest.approx(total[0] / math.sqrt(total[1]), rel=1e-9)


def test_the_likelihood_ratio_compares_with_the_fit() -> None:
    x, _ = walks(0.1, (300,), 6)
    found, best = diagnose(Kalman(0.2, 0.7).filter(x)), fit(x)
    expected = 2 * (best.loglikelihood - Kalman(0.2, 0.7).filter(x).loglikelihood)
    assert found.likelihood_ratio is not None
    assert found.fit is not None
    assert found.likelihood_ratio.value == pytest.approx(expected, rel=1e-12)
    assert found.likelihood_ratio.p_value == pytest.approx(math.exp(-expected / 2), rel=0.2)
    assert found.fit.q == best.q
    # What a filter knew at its start is not what is tested.
    informed = diagnose(Kalman(0.2, 0.7, mean=3.0, variance=1.0).filter(x)).likelihood_ratio
    assert informed is not None
    assert informed.value == found.likelihood_ratio.value


def test_effective_number_of_the_nees_by_brute_force() -> None:
    """Variance of a sum of squares of jointly normal errors: twice the sum of squared correlations."""
    kalman = Kalman(0.1, 1.0)
    x, truth = walks(0.1, (60,), 7, gaps=0.3)
    x[0] = 1.0
    out = kalman.filter(x)
    gain, variance = np.asarray(out.gain), np.asarray(out.variance)
    covariance = np.diag(variance)
    for t in range(60):
        for u in range(t + 1, 60):
            covariance[t, u] = covariance[u, t] = covariance[t, u - 1] * (1 - gain[u])
    correlation = covariance / np.sqrt(np.outer(variance, variance))
    effective = 60**2 / np.sum(correlation**2)
    found = diagnose(out, truth).nees
    assert found is not None
    assert found.value == pytest.approx(np.mean((np.asarray(out.mean) - truth) ** 2 / variance), rel=1e-12)
    assert found.low == pytest.approx(stats.chi2.ppf(0.025, effective) / effective, rel=1e-6)
    assert found.high == pytest.approx(stats.chi2.ppf(0.975, effective) / effective, rel=1e-6)


# --- false alarms and power ---------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [1e-4, 1e-2, 1.0])
def test_false_alarms(s: float) -> None:
    """1,500 streams; 3.3 standard errors of a share of 5 % are 1.9 %."""
    x, truth = walks(s, (600, 1500), 11)
    found = diagnose(Kalman(s, 1.0).filter(x), truth)
    assert share(~np.asarray(found.consistent)) < 0.065
    for check in found.checks:
        if check.name not in ("NEES", "NEES share", "coverage", "likelihood ratio"):
            assert share(np.asarray(check.p_value) < 0.05) == pytest.approx(0.05, abs=0.019), check.name
    for check in (found.nees, found.coverage, found.likelihood_ratio):
        assert check is not None
        assert share(np.asarray(check.p_value) < 0.05) < 0.069
    assert found.nees_share is not None
    assert found.nees_share.value == pytest.approx(0.95, abs=0.03 if s > 1e-3 else 0.06)
    assert found.nees_share.reading == AS_STATED


@pytest.mark.parametrize("n", [12, 31, 60])
def test_false_alarms_of_short_streams(n: int) -> None:
    for s in (0.01, 1.0):
        found = diagnose(Kalman(s, 1.0).filter(walks(s, (n, 4000), 12)[0]))
        assert share(~np.asarray(found.consistent)) < 0.07


def test_false_alarms_with_gaps_and_at_the_boundary() -> None:
    x, _ = walks(0.01, (600, 1500), 13, gaps=0.3)
    found = diagnose(Kalman(0.01, 1.0).filter(x))
    assert share(~np.asarray(found.consistent)) < 0.07
    assert share(np.asarray(found.whiteness.p_value) < 0.05) == pytest.approx(0.05, abs=0.02)
    still = diagnose(Kalman(0.0, 1.0).filter(walks(0.0, (600, 1500), 14)[0]))
    assert still.likelihood_ratio is not None
    assert 0.005 < share(np.asarray(still.likelihood_ratio.p_value) < 0.05) < 0.045
    assert share(~np.asarray(still.consistent)) < 0.055


MISSTATED = [("r", 4.0), ("r", 0.25), ("q", 4.0), ("q", 0.25)]


@pytest.mark.parametrize("s", [1e-4, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize(("what", "times"), MISSTATED)
def test_power(s: float, what: str, times: float) -> None:
    x, _ = walks(s, (1000, 400), 15)
    q, r = (s * times, 1.0) if what == "q" else (s, times)
    found = diagnose(Kalman(q, r).filter(x))
    flagged = share(~np.asarray(found.consistent))
    assert found.likelihood_ratio is not None
    alone = share(np.asarray(found.likelihood_ratio.p_value) < 0.05)
    least = {"r": 1.0, "q": {1e-4: 0.1, 1e-2: 0.9}.get(s, 1.0)}[what]
    assert flagged >= least * 0.995
    if what == "q" and s == 1e-2:
        assert alone >= 0.93
    if what == "q" and s < 1e-3:
        assert flagged < 0.4  # the most powerful test of all finds no more


@pytest.mark.slow
@pytest.mark.parametrize("times", [4.0, 0.25])
def test_power_without_a_likelihood_ratio(times: float) -> None:
    """What was known to change by sample leaves the gain in its place, which needs no fit."""
    x, _ = walks(0.01, (1000, 400), 16)
    found = diagnose(Kalman(0.01 * times, 1.0).filter(x, steps=np.ones(1000)))
    assert found.likelihood_ratio is None
    assert found.fit is None
    assert share(found.flags["gain"]) > 0.85
    assert share(np.asarray(found.whiteness.p_value) < 0.05) < share(np.asarray(found.gain.p_value) < 0.05)
    right = diagnose(Kalman(0.01, 1.0).filter(x, steps=np.ones(1000)))
    assert share(~np.asarray(right.consistent)) < 0.09


def test_the_family_is_that_of_holm() -> None:
    x, _ = walks(0.1, (300, 200), 17)
    found = diagnose(Kalman(0.15, 0.8).filter(x))
    p = {check.name: np.asarray(check.p_value) for check in found.family}
    for c in range(200):
        left = dict(WEIGHTS) if "gain" in p else {name: WEIGHTS[name] for name in p}
        rejected = set()
        while left:
            name = min(left, key=lambda k: p[k][c] / left[k])
            if p[name][c] > 0.05 * left.pop(name) / (sum(left.values()) + WEIGHTS[name]):
                break
            rejected.add(name)
        assert {name for name, flag in found.flags.items() if np.asarray(flag)[c]} == rejected


# --- readings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "times"), MISSTATED)
def test_readings_point_the_way(what: str, times: float) -> None:
    x, truth = walks(0.2, (1000,), 21)
    q, r = (0.2 * times, 1.0) if what == "q" else (0.2, times)
    found = diagnose(Kalman(q, r).filter(x), truth)
    large = times > 1.0
    assert found.likelihood_ratio is not None
    assert str(found.likelihood_ratio.reading).startswith(f"{what} too {'large' if large else 'small'} (fit")
    assert ", " not in str(found.likelihood_ratio.reading)
    assert ("smaller" if large else "larger") in str(found.nis.reading)
    assert ("too much" if large else "too little") in str(found.nis.reading)
    gain_too_large = large == (what == "q")
    for check in (found.gain, found.autocorrelation):
        assert ("too large" if gain_too_large else "too small") in str(check.reading)
        assert (float(check.value) < 0) == gain_too_large
    assert ("undo" if gain_too_large else "follow") in str(found.whiteness.reading)
    assert not found.consistent
    assert found.nees is not None
    if what == "r":
        assert ("smaller" if large else "larger") in str(found.nees.reading)
        assert found.coverage is not None
        assert ("more" if large else "fewer") in str(found.coverage.reading)


def test_readings_where_a_variance_is_stated_or_fitted_as_zero() -> None:
    x, _ = walks(0.2, (400,), 22)
    none = diagnose(Kalman(0.0, 1.0).filter(x)).likelihood_ratio
    assert none is not None
    assert "q too small (fit" in str(none.reading)
    assert "stated 0)" in str(none.reading)
    still, _ = walks(0.0, (400,), 23)
    some = diagnose(Kalman(0.5, 1.0).filter(still)).likelihood_ratio
    assert some is not None
    assert "q too large" in str(some.reading)


@pytest.mark.parametrize(
    ("noise", "reading"),
    [
        (lambda rng, n: rng.standard_t(3, n) / math.sqrt(3), "RobustKalman"),
        (lambda rng, n: rng.normal(size=n) + 8.0 * (rng.random(n) < 0.03), "RobustKalman"),
        (lambda rng, n: 1.5 * np.exp(0.5 * rng.normal(size=n)), "(Log)"),
        (lambda rng, n: -rng.exponential(size=n), "skewed to the left"),
        (lambda rng, n: rng.uniform(-1.7, 1.7, n), "light tails"),
        (lambda rng, n: rng.normal(size=n), AS_STATED),
    ],
)
def test_the_shape_of_the_noise_is_told(noise: Any, reading: str) -> None:
    rng = np.random.default_rng(24)
    level = 0.1 * np.cumsum(rng.normal(size=1000))
    found = diagnose(Kalman(0.01, 1.0).filter(level + noise(rng, 1000)))
    assert reading in str(found.normality.reading)
    assert found.flags["normality"] == (reading != AS_STATED)


@pytest.mark.parametrize(("factor", "reading"), [(3.0, "grew"), (1 / 3, "fell")])
def test_a_break_in_the_noise_is_told(factor: float, reading: str) -> None:
    rng = np.random.default_rng(25)
    x = rng.normal(size=300) * np.where(np.arange(300) < 150, 1.0, factor)
    found = diagnose(Kalman(0.001, 1.0).filter(x))
    assert found.flags["variance break"]
    assert reading in str(found.variance_break.reading)


# --- against the truth --------------------------------------------------------------------------------------


def test_nees_share_of_repetitions() -> None:
    x, truth = walks(0.1, (500, 40), 31)
    right, wrong = (diagnose(Kalman(0.1, r).filter(x), truth).nees_share for r in (1.0, 2.0))
    assert right is not None
    assert wrong is not None
    assert isinstance(right.value, float)
    assert right.reading == AS_STATED
    assert wrong.value < right.value
    assert wrong.p_value < 1e-6
    # By hand, a time after the other.
    out = Kalman(0.1, 1.0).filter(x)
    total = np.sum((out.mean - truth) ** 2 / out.variance, axis=1)
    low, high = stats.chi2.ppf([0.025, 0.975], 40)
    assert right.value == share((low <= total) & (total <= high))
    alone = diagnose(Kalman(0.1, 1.0).filter(x[:, 0]), truth[:, 0])
    assert alone.nees_share is None


def test_a_truth_may_be_shared_and_unknown_in_part() -> None:
    x, truth = walks(0.1, (200, 3), 32)
    shared = diagnose(Kalman(0.1, 1.0).filter(x), truth[:, 0])
    assert np.asarray(shared.nees.value).shape == (3,)  # type: ignore[union-attr]
    own = diagnose(Kalman(0.1, 1.0).filter(x[:, 0]), truth[:, 0])
    assert shared.nees.value[0] == pytest.approx(own.nees.value)  # type: ignore[union-attr, index]
    part = np.where(np.arange(200) < 100, truth[:, 0], nan)
    some = diagnose(Kalman(0.1, 1.0).filter(x[:, 0]), part)
    half = diagnose(Kalman(0.1, 1.0).filter(x[:100, 0]), truth[:100, 0])
    for one, other in ((some.nees, half.nees), (some.coverage, half.coverage)):
        assert one is not None
        assert other is not None
        assert (one.value, one.low, one.p_value) == pytest.approx((other.value, other.low, other.p_value))


# --- gaps, panels, units ------------------------------------------------------------------------------------


def test_gaps_pair_samples_by_time() -> None:
    """Every other sample missing: no pair is 1 apart, and those 2 apart are all neighbours there are."""
    e = np.full(400, nan)
    e[::2] = sizes(200, 41)
    found = diagnose(PROPER.filter(stream_of(e, PROPER)), lags=2)
    assert found.n == 200
    assert found.autocorrelation.reading == TOO_FEW
    f = e[::2]
    rho = np.sum(f[1:] * f[:-1]) / np.sum(f**2)
    assert found.whiteness.value == pytest.approx(200 * 202 * rho**2 / 199, rel=1e-9)
    assert found.whiteness.high == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-9)
    assert found.nis.value == pytest.approx(np.mean(f**2), rel=1e-9)
    ratio = np.sum(f[-67:] ** 2) / np.sum(f[:67] ** 2)
    assert found.variance_break.value == pytest.approx(ratio, rel=1e-9)
    assert found.normality.value == pytest.approx(stats.normaltest(f).statistic, rel=1e-9)


def fields(found: Diagnosis) -> dict[str, Check]:
    return {name: getattr(found, name) for name in (*INNOVATIONS, "likelihood_ratio", "nees", "coverage")}


def test_a_panel_is_its_channels_one_by_one() -> None:
    x, truth = walks(0.1, (150, 2, 3), 42, gaps=0.1)
    x[8:, 0, 1] = nan
    x[:, 1, 1] = nan
    x[:, 1, 2] *= 5.0
    q = np.array([0.1, 0.2, 0.4])
    panel = diagnose(Kalman(q, 1.0).filter(x), truth)
    assert np.asarray(panel.n).shape == (2, 3)
    for place in np.ndindex(2, 3):
        one = diagnose(Kalman(q[place[1]], 1.0).filter(x[:, *place]), truth[:, *place])
        assert panel.n[place] == one.n  # type: ignore[index]
        assert panel.consistent[place] == one.consistent  # type: ignore[index]
        for name, flag in one.flags.items():
            assert panel.flags[name][place] == flag  # type: ignore[index]
        for name, check in fields(one).items():
            among = fields(panel)[name]
            for value in ("value", "low", "high", "p_value"):
                np.testing.assert_allclose(
                    np.broadcast_to(getattr(among, value), (2, 3))[place],
                    getattr(check, value),
                    rtol=1e-8,
                    atol=1e-12,
                    err_msg=f"{name}.{value}",
                )
            assert among.reading[place] == check.reading


def test_units_do_not_matter_and_pandas_does_not() -> None:
    x, truth = walks(0.1, (200,), 43)
    one = diagnose(Kalman(0.1, 1.0).filter(x), truth)
    other = diagnose(Kalman(0.1 * 4.0**20, 4.0**20).filter(x * 2.0**20), truth * 2.0**20)
    series = diagnose(Kalman(0.1, 1.0).filter(pd.Series(x)), pd.Series(truth))
    for name, check in fields(one).items():
        assert fields(other)[name].value == pytest.approx(check.value, rel=1e-9)
        assert fields(series)[name].value == check.value
    frame = diagnose(Kalman(0.1, 1.0).filter(pd.DataFrame({"a": x, "b": x})))
    assert np.asarray(frame.nis.value) == pytest.approx(np.full(2, one.nis.value))


def test_a_run_that_goes_on_from_a_state() -> None:
    x, _ = walks(0.1, (200,), 44)
    first = Kalman(0.1, 1.0).filter(x[:100])
    found = diagnose(Kalman(0.1, 1.0).filter(x[100:], state=first.state))
    assert found.n == 100
    assert found.consistent


@pytest.mark.parametrize(
    ("estimator", "most"), [(EMAWithVariance(0.99), 0.6), (LocalTrend(0.01, 1e-9, 1.0), 0.1)], ids=repr
)
def test_other_estimators_that_state_a_variance(estimator: Any, most: float) -> None:
    """The spread that an EMA estimates makes its innovations Student's, which is seen; the gain is right."""
    s = 0.01**2 / 0.99 if isinstance(estimator, EMAWithVariance) else 0.01
    x, truth = walks(s, (400, 300), 45, gaps=0.1)
    found = diagnose(estimator.filter(x), truth)
    assert found.likelihood_ratio is None
    assert set(found.flags) == {"gain", "NIS", "whiteness", "normality", "variance break"}
    assert share(~np.asarray(found.consistent)) < most
    assert share(np.asarray(found.gain.p_value) < 0.05) < 0.2
    assert found.nees is not None


# --- edges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 10])
def test_few_innovations_leave_the_nis(n: int) -> None:
    found = diagnose(Kalman(0.1, 1.0).filter(walks(0.1, (n,), 51)[0]))
    assert found.consistent
    for check in found.checks:
        exact = check.name == "NIS" and n > 1
        assert math.isnan(check.value) == (not exact)  # type: ignore[arg-type]
        assert exact or (check.p_value, check.reading) == (1.0, TOO_FEW)
    off = diagnose(Kalman(0.1, 1.0).filter([0.0, 50.0])).nis
    assert off.p_value < 1e-9
    assert diagnose(Kalman(0.1, 1.0).filter(walks(0.1, (15,), 51)[0])).normality.reading == TOO_FEW


@pytest.mark.parametrize("shape", [(0,), (0, 3), (5, 0)])
def test_empty_streams(shape: tuple[int, ...]) -> None:
    found = diagnose(Kalman(0.1, 1.0).filter(np.empty(shape)), np.empty(shape))
    assert np.all(found.consistent)
    assert str(found)


def test_a_constant_stream() -> None:
    found = diagnose(Kalman(0.1, 1.0).filter(np.full(60, 3.0)))
    assert (found.nis.value, found.nis.p_value) == (0.0, 0.0)
    assert found.likelihood_ratio is not None
    assert found.likelihood_ratio.value == inf
    assert "q too large (fit 0" in str(found.likelihood_ratio.reading)
    assert [name for name, flag in found.flags.items() if flag] == ["likelihood ratio", "NIS"]
    for check in (found.whiteness, found.normality, found.autocorrelation, found.gain):
        assert (check.value, check.p_value, check.reading) == (0.0, 1.0, AS_STATED)
    assert (found.variance_break.value, found.variance_break.p_value) == (1.0, 1.0)


def test_a_certain_prediction() -> None:
    """A spread of 0 is met by 0 and refuted by anything else."""
    met = diagnose(EMAWithVariance(0.9).filter(np.full(60, 3.0)))
    assert met.nis.value == 0.0
    x = np.zeros(60)
    x[40] = 1.0
    refuted = diagnose(EMAWithVariance(0.9).filter(x))
    assert (refuted.nis.value, refuted.nis.p_value) == (inf, 0.0)
    assert refuted.flags["NIS"]
    assert str(refuted)


def test_errors() -> None:
    x, _ = walks(0.1, (50, 2), 61)
    out = Kalman(0.1, 1.0).filter(x)
    with pytest.raises(ValueError, match=r"^diagnose: EMA states no variance of its innovations, so there"):
        diagnose(EMA(0.9).filter(x))
    with pytest.raises(TypeError, match=r"^diagnose: result is a ndarray; it must be what filter returned$"):
        diagnose(x)
    for level in (0, 1, 5, nan, "0.05", None):
        with pytest.raises(ValueError, match=r"level must be a probability"):
            diagnose(out, level=level)  # type: ignore[arg-type]
    for lags in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=r"^diagnose: lags=.* is not valid; lags must be an int >= 1$"):
            diagnose(out, lags=lags)  # type: ignore[arg-type]
    for truth in (x[:49], x[:, :1].repeat(3, axis=1), x[:1]):
        with pytest.raises(
            ValueError, match=r"^diagnose: truth has shape .*; it must be \(50,\) or \(50, 2\)$"
        ):
            diagnose(out, truth)
    with pytest.raises(ValueError, match="truth holds infinity"):
        diagnose(out, np.where(x > 0, inf, x))
    with pytest.raises(TypeError, match="truth holds text"):
        diagnose(out, ["a"] * 50)
    assert diagnose(out, lags=500).whiteness.reading is not None


def test_the_level_is_that_of_bands_and_flags() -> None:
    x, truth = walks(0.1, (300, 300), 62)
    out = Kalman(0.1, 1.0).filter(x)
    strict, loose = (diagnose(out, truth, level=level) for level in (0.01, 0.2))
    assert share(~np.asarray(strict.consistent)) < 0.03
    assert share(~np.asarray(loose.consistent)) > 0.1
    assert np.all(np.asarray(strict.nis.low) < np.asarray(loose.nis.low))
    inside = (np.asarray(loose.nis.low) < loose.nis.value) & (loose.nis.value < np.asarray(loose.nis.high))
    np.testing.assert_array_equal(inside, np.asarray(loose.nis.p_value) > 0.2)
    assert np.mean(loose.coverage.value) == pytest.approx(0.8, abs=0.02)  # type: ignore[union-attr]


# --- what is printed ----------------------------------------------------------------------------------------


def test_one_channel_prints_as_a_table() -> None:
    x, truth = walks(0.1, (500,), 71)
    text = str(diagnose(Kalman(0.1, 4.0).filter(x), truth))
    first, header, *rows = text.splitlines()
    assert first.startswith("499 innovations; flagged (*): likelihood ratio, NIS")
    assert header.split() == ["value", "95", "%", "band", "p", "reading"]
    assert rows[0].startswith("likelihood ratio *")
    assert "r too large (fit" in rows[0]
    assert [row.split("  ")[0] for row in rows[-4:]] == ["gain", "autocorrelation", "NEES", "coverage"]
    assert "nothing flagged" in str(diagnose(Kalman(0.1, 1.0).filter(x)))


def test_many_channels_print_as_shares() -> None:
    x, truth = walks(0.1, (500, 4), 74)
    x[:, 0] *= 4.0
    x[100:300, 1] = nan
    found = diagnose(Kalman(0.1, 1.0).filter(x), truth)
    first, header, *rows = str(found).splitlines()
    assert first == "4 channels of 299 to 499 innovations; 25 % flagged"
    assert header.split() == ["median", "out", "of", "band", "flagged"]
    assert len(rows) == len(found.checks)
    assert rows[0].split()[-4:] == ["25", "%", "25", "%"]


def test_a_diagnosis_is_frozen() -> None:
    found = diagnose(Kalman(0.1, 1.0).filter(walks(0.1, (50,), 73)[0]))
    for record in (found, found.nis):
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.level = 1.0  # type: ignore[misc, union-attr]
    assert isinstance(found.nis.value, float)
    assert isinstance(found.nis.reading, str)
    assert isinstance(found.consistent, bool)


def test_import_is_light() -> None:
    code = "import sys, estimators.diagnostics; print([m for m in ('scipy', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
