"""Maximum likelihood of the random walk: published optimum, another library, simulated truth, the edges."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import Kalman
from estimators.fitting import CONVENTION, FitResult, fit

inf, nan = math.inf, math.nan
NUMBERS = ("q", "r", "beta", "loglikelihood", "n", "q_error", "r_error", "at_boundary", "halves_p_value")
FREE = [name for name in NUMBERS if name not in ("n", "at_boundary")]


def walks(s: float, shape: tuple[int, ...], seed: int, gaps: float = 0.0) -> np.ndarray:
    """Random walks of process variance s seen in noise of variance 1, shape (T, ...)."""
    rng = np.random.default_rng(seed)
    x = math.sqrt(s) * np.cumsum(rng.normal(size=shape), axis=0) + rng.normal(size=shape)
    x[rng.random(shape) < gaps] = nan
    return x


def loglikelihood(x: Any, q: float, r: float) -> float:
    return float(Kalman(q, r).filter(x).loglikelihood)


def profile(x: np.ndarray, s: float) -> float:
    """Likelihood at the ratio s and the r that suits it best, by the filter alone."""
    q, r = (s, 1.0) if s < inf else (1.0, 0.0)
    out = Kalman(q, r).filter(x)
    nu, variance = np.asarray(out.innovation), np.asarray(out.innovation_variance)
    scale = np.nanmean(nu[np.isfinite(variance)] ** 2 / variance[np.isfinite(variance)])
    return loglikelihood(x, q * scale, r * scale)


def ratio(beta: float) -> float:
    return inf if beta == 0.0 else (1.0 - beta) ** 2 / beta


def flat(found: FitResult) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in NUMBERS}
    return values | dict(zip(("lower", "upper"), found.beta_interval, strict=True))


# --- the Nile -----------------------------------------------------------------------------------------------


def test_nile_against_the_published_optimum() -> None:
    """Durbin and Koopman (2012), section 2.10.3: 15099 and 1469.1; KFAS prints the likelihood -632.5456."""
    found = fit(NILE)
    assert found.q == pytest.approx(1469.1, abs=0.1)
    assert agrees(found.r, "15099")
    assert agrees(found.loglikelihood, "-632.5456251")
    # Log-variances that KFAS prints: its search stops where the likelihood no longer changes its digits.
    assert math.log(found.r) == pytest.approx(9.622361, abs=1e-5)
    assert math.log(found.q) == pytest.approx(7.292448, abs=1e-5)


def test_nile_against_forty_digits() -> None:
    """Root of the derivative of the same likelihood, written anew in arithmetic of 40 digits."""
    found = fit(NILE)
    assert found.q == pytest.approx(1469.176360309515455, rel=1e-13)
    assert found.r == pytest.approx(15098.51832409628155, rel=1e-13)
    assert found.s == pytest.approx(0.0973059957787250581, rel=1e-13)
    assert found.loglikelihood == pytest.approx(-632.5456251030409799, rel=1e-15)
    assert found.beta == pytest.approx(Kalman(found.q, found.r).steady_beta, rel=1e-14)
    assert (found.n, found.at_boundary, found.convention) == (100, "", CONVENTION)
    assert found.warnings == ()


def test_no_neighbour_of_the_maximum_is_better() -> None:
    found = fit(NILE)
    best = loglikelihood(NILE, found.q, found.r)
    assert best == pytest.approx(found.loglikelihood, rel=1e-14)
    for step in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5):
        for dq, dr in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)):
            assert loglikelihood(NILE, found.q * (1 + dq * step), found.r * (1 + dr * step)) < best


def test_standard_errors_are_those_of_the_curvature_of_the_filters_likelihood() -> None:
    found = fit(NILE)
    q, r, h = found.q, found.r, 1e-3

    def value(i: int, j: int) -> float:
        return loglikelihood(NILE, q * (1 + i * h), r * (1 + j * h))

    qq = value(1, 0) - 2 * value(0, 0) + value(-1, 0)
    rr = value(0, 1) - 2 * value(0, 0) + value(0, -1)
    qr = (value(1, 1) - value(1, -1) - value(-1, 1) + value(-1, -1)) / 4
    covariance = np.linalg.inv(-np.array([[qq, qr], [qr, rr]]) / h**2)
    assert found.q_error == pytest.approx(q * math.sqrt(covariance[0, 0]), rel=1e-4)
    assert found.r_error == pytest.approx(r * math.sqrt(covariance[1, 1]), rel=1e-4)


@pytest.mark.parametrize(("level", "chi_squared"), [(0.95, 3.841458820694124), (0.5, 0.454936423119572)])
def test_the_interval_ends_where_the_likelihood_has_fallen_by_half_a_quantile(
    level: float, chi_squared: float
) -> None:
    found = fit(NILE, level=level)
    lower, upper = found.beta_interval
    assert 0.0 < lower < found.beta < upper < 1.0
    for end in (lower, upper):
        fall = found.loglikelihood - profile(NILE, ratio(end))
        assert fall == pytest.approx(0.5 * chi_squared, abs=1e-9)


def test_the_halves_are_compared_by_their_likelihoods() -> None:
    found, halves = fit(NILE), (NILE[:50], NILE[50:])
    apart = sum(fit(half).loglikelihood for half in halves)
    shared = sum(loglikelihood(half, found.q, found.r) for half in halves)
    assert found.halves_p_value == pytest.approx(math.exp(shared - apart), rel=1e-9)


# --- others -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_statsmodels_is_nowhere_better(seed: int) -> None:
    """Its exact diffuse start counts log(2 pi)/2 for the first sample; its optimiser stops earlier."""
    reason = "statsmodels is not installed: pip install kalmean[peers]"
    statespace = pytest.importorskip("statsmodels.tsa.statespace.structural", reason=reason)
    x = NILE.copy() if seed == 0 else walks(0.2, (90,), seed)
    x[30:40] = nan
    x[::7] = nan
    model = statespace.UnobservedComponents(x, level="local level", use_exact_diffuse=True)
    first = 0.5 * math.log(2 * math.pi)
    found = fit(x)
    assert model.loglike([found.r, found.q]) + first == pytest.approx(found.loglikelihood, rel=1e-12)
    theirs = model.fit(disp=False, start_params=[found.r * 1.3, found.q * 0.7])
    assert found.loglikelihood >= theirs.llf + first - 1e-9 * abs(theirs.llf)


# --- what holds for every stream ----------------------------------------------------------------------------

streams = st.builds(
    lambda log_s, steps, seed, gaps: walks(10.0**log_s, (steps,), seed, gaps),
    log_s=st.floats(-4.0, 3.0),
    steps=st.integers(12, 80),
    seed=st.integers(0, 10**6),
    gaps=st.sampled_from([0.0, 0.0, 0.3]),
).filter(lambda x: np.count_nonzero(~np.isnan(x)) > 2)


@settings(max_examples=50, deadline=None)
@given(x=streams, factor=st.floats(-6.0, 6.0), log_s=st.floats(-8.0, 6.0))
def test_no_other_setting_is_likelier(x: np.ndarray, factor: float, log_s: float) -> None:
    found = fit(x)
    least = -1e-11 * (1.0 + abs(found.loglikelihood))
    r = np.nanvar(x) * math.exp(factor)
    assert found.loglikelihood - loglikelihood(x, r * 10**log_s, r) >= least
    for s in (0.0, 10**log_s, found.s * 1.01, found.s / 1.01, inf):
        assert found.loglikelihood - profile(x, s) >= least


@settings(max_examples=40, deadline=None)
@given(x=streams)
def test_the_likelihood_is_the_filters(x: np.ndarray) -> None:
    found = fit(x)
    assert found.estimator() == Kalman(found.q, found.r)
    assert found.estimator().filter(x).loglikelihood == pytest.approx(
        found.loglikelihood, rel=1e-12, abs=1e-11
    )
    assert found.beta == pytest.approx(Kalman(found.q, found.r).steady_beta, rel=1e-12)
    lower, upper = found.beta_interval
    assert 0.0 <= lower <= found.beta <= upper <= 1.0
    assert (found.at_boundary == "q") == (found.q == 0.0)
    assert (found.at_boundary == "r") == (found.r == 0.0)


@settings(max_examples=40, deadline=None)
@given(x=streams, exponent=st.integers(-490, 490), offset=st.integers(-(2**40), 2**40))
def test_scale_and_offset_pass_through(x: np.ndarray, exponent: int, offset: int) -> None:
    """Powers of two, and whole numbers, change no bit of the samples' differences: nor of the fit."""
    x = np.round(x * 256.0)
    x[np.flatnonzero(~np.isnan(x))[0]] += 1000.0  # not constant
    found = fit(x)
    scaled, shifted = fit(np.ldexp(x, exponent)), fit(x + offset)
    assert scaled.q == math.ldexp(found.q, 2 * exponent)
    assert scaled.r == math.ldexp(found.r, 2 * exponent)
    assert (scaled.beta, scaled.beta_interval) == (found.beta, found.beta_interval)
    terms = (found.n - 1) * exponent * math.log(2.0)
    assert scaled.loglikelihood == pytest.approx(found.loglikelihood - terms, rel=1e-12, abs=1e-9)
    for name, value in flat(found).items():
        np.testing.assert_array_equal(flat(shifted)[name], value)


@pytest.mark.parametrize("factor", [1e-150, 1e-30, 3.0, 1e30, 1e150])
def test_any_unit_will_do(factor: float) -> None:
    found, scaled = fit(NILE), fit(NILE * factor)
    assert scaled.q / factor / factor == pytest.approx(found.q, rel=1e-12)
    assert scaled.r / factor / factor == pytest.approx(found.r, rel=1e-12)
    assert scaled.beta == pytest.approx(found.beta, rel=1e-12)
    assert scaled.q_error / factor / factor == pytest.approx(found.q_error, rel=1e-12)


def test_a_huge_offset_costs_only_the_digits_that_the_samples_lose() -> None:
    x = walks(0.1, (500,), 0)
    stored = (x + 1e9) - 1e9
    assert fit(x + 1e9).q == pytest.approx(fit(stored).q, rel=1e-12)


def test_gaps_at_either_end_and_the_order_of_time() -> None:
    """Nothing is known before the first sample; the model is the same backwards, its likelihood too."""
    x = walks(0.1, (70,), 3, gaps=0.2)
    gap = np.full(9, nan)
    found = fit(x)
    for other in (np.concatenate([gap, x, gap]), x[::-1]):
        again = fit(other)
        assert again.q == pytest.approx(found.q, rel=1e-9)
        assert again.r == pytest.approx(found.r, rel=1e-9)
        assert again.loglikelihood == pytest.approx(found.loglikelihood, rel=1e-12)
        assert again.n == found.n


def test_missing_is_missing_however_it_is_spelled() -> None:
    x = walks(0.3, (40,), 5)
    x[[0, 7, 8, 20]] = nan
    spelled = [None if math.isnan(v) else v for v in x]
    masked = np.ma.masked_array(np.nan_to_num(x, nan=99.0), np.isnan(x))
    infinite = np.where(np.isnan(x), inf, x)
    for other in (
        fit(spelled),
        fit(masked),
        fit(infinite, on_infinite="missing"),
        fit(pd.Series(x, index=pd.date_range("2020", periods=40))),
    ):
        assert flat(other) == flat(fit(x))


def test_several_hills_are_told_apart() -> None:
    """Fast wiggles on a slow wave: the profile is searched everywhere, not from one start."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        steps = np.repeat(rng.standard_t(1.2, size=12), rng.integers(3, 9))[:60]
        x = steps + 0.3 * rng.standard_t(1.5, size=steps.size) + 0.5 * (-1.0) ** np.arange(steps.size)
        found = fit(x)
        grid = max(profile(x, s) for s in np.logspace(-8, 6, 141))
        assert found.loglikelihood >= grid - 1e-10


# --- panels -------------------------------------------------------------------------------------------------


def test_a_panel_is_its_channels_bit_for_bit() -> None:
    x = walks(0.1, (83, 5, 4), 11, gaps=0.1)
    x[:6, 0], x[-20:, 1] = nan, nan
    x[:, 2, 1], x[:, 2, 2] = 7.0, np.arange(83.0) ** 2
    x[:, 3] *= np.array([1e-120, 1.0, 1e9, 1e120])
    panel = fit(x)
    assert panel.q.shape == panel.n.shape == panel.at_boundary.shape == (5, 4)
    assert panel.n.dtype.kind == "i"
    for place in np.ndindex(5, 4):
        alone = flat(fit(x[(slice(None), *place)]))
        for name, values in flat(panel).items():
            np.testing.assert_array_equal(values[place], alone[name], err_msg=f"{name} {place}")
    kalman = panel.estimator()
    np.testing.assert_array_equal(kalman.q, panel.q)
    level = kalman.filter(x).loglikelihood
    varies = np.isfinite(panel.loglikelihood)
    np.testing.assert_allclose(level[varies], panel.loglikelihood[varies], rtol=1e-9)
    assert np.argwhere(~varies).tolist() == [[2, 1]]


def test_a_data_frame_is_a_panel() -> None:
    x = walks(0.1, (60, 3), 2)
    framed = fit(pd.DataFrame(x, columns=list("abc")))
    for name, values in flat(fit(x)).items():
        np.testing.assert_array_equal(flat(framed)[name], values)


def test_a_panel_without_channels_is_an_empty_fit() -> None:
    found = fit(np.zeros((5, 0)))
    assert found.q.shape == found.at_boundary.shape == found.beta_interval[0].shape == (0,)
    assert found.warnings == ()


def test_one_channel_gives_plain_values() -> None:
    found = fit(NILE)
    for name in FREE:
        assert type(getattr(found, name)) is float, name
    assert type(found.n) is int
    assert type(found.at_boundary) is str
    assert [type(end) for end in found.beta_interval] == [float, float]
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.q = 1.0
    assert "q 1469.18, r 15098.5" in repr(found)


def test_the_samples_are_left_as_they_are() -> None:
    x = walks(0.1, (50, 2), 2, gaps=0.1)
    before = x.copy()
    fit(x)
    np.testing.assert_array_equal(x, before)


# --- boundaries and what cannot be known --------------------------------------------------------------------


def test_at_q_0_it_is_the_mean_of_all() -> None:
    x = walks(0.0, (80, 60), 1)
    found = fit(x)
    (at,) = np.nonzero(found.at_boundary == "q")
    assert 0.5 < len(at) / 60 < 0.8  # 0.657 for a long stream: Shephard and Harvey (1990)
    np.testing.assert_allclose(found.r[at], x[:, at].var(axis=0, ddof=1), rtol=1e-13)
    np.testing.assert_array_equal(found.beta[at], 1.0)
    np.testing.assert_array_equal(found.beta_interval[1][at], 1.0)
    np.testing.assert_array_equal(found.q_error[at], inf)
    np.testing.assert_allclose(found.r_error[at], found.r[at] * math.sqrt(2 / 79), rtol=1e-13)
    np.testing.assert_array_equal(found.s[at], 0.0)
    alone = fit(x[:, at[0]])
    assert alone.at_boundary == "q"
    assert any("q is 0" in sentence for sentence in alone.warnings)
    assert loglikelihood(x[:, at[0]], 0.0, alone.r) == pytest.approx(alone.loglikelihood, rel=1e-13)


def test_at_r_0_it_is_the_last_sample() -> None:
    x = np.cumsum(np.random.default_rng(4).normal(size=(80, 40)), axis=0)
    found = fit(x)
    (at,) = np.nonzero(found.at_boundary == "r")
    assert 0.2 < len(at) / 40 < 0.8
    np.testing.assert_allclose(found.q[at], (np.diff(x[:, at], axis=0) ** 2).mean(axis=0), rtol=1e-13)
    for name, value in (("r", 0.0), ("beta", 0.0), ("r_error", inf), ("s", inf)):
        np.testing.assert_array_equal(getattr(found, name)[at], value)
    np.testing.assert_array_equal(found.beta_interval[0][at], 0.0)
    np.testing.assert_allclose(found.q_error[at], found.q[at] * math.sqrt(2 / 79), rtol=1e-13)
    assert any("r is 0" in sentence for sentence in fit(x[:, at[0]]).warnings)


@pytest.mark.parametrize("value", [0.0, -3.5, 1e300, 5e-324])
def test_a_constant_stream(value: float) -> None:
    found = fit([value] * 60 + [nan])
    assert (found.q, found.r, found.beta, found.s) == (0.0, 0.0, 1.0, 0.0)
    assert (found.loglikelihood, found.beta_interval, found.at_boundary) == (inf, (0.0, 1.0), "q")
    assert (found.q_error, found.r_error, found.halves_p_value, found.n) == (inf, inf, 1.0, 60)
    assert len(found.warnings) == 1
    assert "all samples are equal" in found.warnings[0]
    kalman = found.estimator()
    assert kalman == Kalman(q=0.0, r=2.0**-500)
    out = kalman.filter([1.0, 2.0, 6.0])
    np.testing.assert_allclose(out.mean, [1.0, 1.5, 3.0], rtol=1e-15)


def test_two_samples_know_no_ratio() -> None:
    for x in ([1.0, 4.0], [1.0, nan, nan, 4.0], [nan, 1.0, 4.0]):
        found = fit(x)
        assert (found.at_boundary, found.q, found.beta) == ("q", 0.0, 1.0)
        assert found.r == pytest.approx(4.5, rel=1e-15)
        assert found.loglikelihood == pytest.approx(loglikelihood(x, 0.0, 4.5), rel=1e-15)
        assert found.beta_interval == (0.0, 1.0)
        assert "only 2 samples" in found.warnings[-1]
        assert math.isnan(found.halves_p_value)


def test_a_ramp_and_a_step_are_fitted() -> None:
    ramp = fit(np.arange(40.0))
    assert (ramp.at_boundary, ramp.q) == ("r", 1.0)
    step = fit(np.repeat([0.0, 1.0], 30))
    assert step.at_boundary == "r"
    assert step.halves_p_value == 0.0  # each half is a constant, of which the whole has no part
    assert any("halves disagree" in sentence for sentence in step.warnings)


# --- simulated truth ----------------------------------------------------------------------------------------

SIMULATED = [(0.1, 300), (1.0, 120), (0.01, 400)]


@pytest.mark.parametrize(("s", "steps"), SIMULATED)
def test_intervals_and_errors_hold_over_many_streams(s: float, steps: int) -> None:
    streams = 600
    found = fit(walks(s, (steps, streams), 17))
    beta = Kalman(s, 1.0).steady_beta
    lower, upper = found.beta_interval
    covered = np.mean((lower <= beta) & (beta <= upper))
    assert abs(covered - 0.95) < 3.5 * math.sqrt(0.95 * 0.05 / streams)
    inner = found.at_boundary == ""
    assert inner.mean() > 0.97
    for name, truth in (("q", s), ("r", 1.0)):
        estimates, stated = getattr(found, name)[inner], getattr(found, f"{name}_error")[inner]
        assert stated.mean() == pytest.approx(estimates.std(), rel=0.15)
        assert abs(estimates.mean() - truth) < 5 * estimates.std() / math.sqrt(streams) + 0.03 * truth


@pytest.mark.parametrize("level", [0.5, 0.8, 0.99])
def test_the_level_is_the_share_of_streams_covered(level: float) -> None:
    found = fit(walks(0.2, (250, 600), 3), level=level)
    beta, (lower, upper) = Kalman(0.2, 1.0).steady_beta, found.beta_interval
    covered = np.mean((lower <= beta) & (beta <= upper))
    assert abs(covered - level) < 3.5 * math.sqrt(level * (1 - level) / 600)


def test_a_long_stream_is_learned_exactly() -> None:
    x = walks(1e-3, (100_000,), 8)
    found = fit(x)
    assert abs(found.q - 1e-3) < 4 * found.q_error < 3e-4
    assert abs(found.r - 1.0) < 4 * found.r_error < 0.03
    assert found.loglikelihood == pytest.approx(loglikelihood(x, found.q, found.r), rel=1e-12)
    assert found.warnings == ()


def test_gaps_leave_the_answer_unbiased() -> None:
    found = fit(walks(0.1, (500, 300), 5, gaps=0.4))
    for name, truth in (("q", 0.1), ("r", 1.0)):
        estimates = getattr(found, name)
        assert abs(estimates.mean() - truth) < 5 * estimates.std() / math.sqrt(300) + 0.02 * truth
    beta, (lower, upper) = Kalman(0.1, 1.0).steady_beta, found.beta_interval
    assert np.mean((lower <= beta) & (beta <= upper)) == pytest.approx(0.95, abs=0.045)


def test_halves_that_agree_are_rarely_doubted() -> None:
    found = fit(walks(0.1, (400, 600), 23))
    for level in (0.01, 0.05, 0.2):
        share = np.mean(found.halves_p_value < level)
        assert abs(share - level) < 4 * math.sqrt(level * (1 - level) / 600)


@pytest.mark.parametrize(("factor_q", "factor_r"), [(1.0, 4.0), (16.0, 1.0)])
def test_halves_that_differ_are_found_out(factor_q: float, factor_r: float) -> None:
    rng = np.random.default_rng(2)
    moves, noise = rng.normal(size=(2, 400, 200)) * np.sqrt([0.05, 1.0]).reshape(2, 1, 1)
    moves[200:] *= math.sqrt(factor_q)
    noise[200:] *= math.sqrt(factor_r)
    x = np.cumsum(moves, axis=0) + noise
    assert np.mean(fit(x).halves_p_value < 0.01) > 0.95
    found, first, second = fit(x[:, 0]), fit(x[:200, 0]), fit(x[200:, 0])
    (sentence,) = found.warnings
    assert "the halves disagree" in sentence
    assert f"beta = {first.beta:.6g} and r = {first.r:.3g} in the first" in sentence
    assert f"beta = {second.beta:.6g} and r = {second.r:.3g} in the second" in sentence


def test_halves_are_of_the_samples_present() -> None:
    x = walks(0.1, (40,), 6)
    gapped = np.concatenate([x[:20], np.full(100, nan), x[20:]])
    halves = x[:20], x[20:]
    found = fit(gapped)
    apart = sum(fit(half).loglikelihood for half in halves)
    shared = sum(loglikelihood(half, found.q, found.r) for half in halves)
    assert found.halves_p_value == pytest.approx(math.exp(shared - apart), rel=1e-9)
    assert math.isnan(fit(x[:15]).halves_p_value)
    assert not math.isnan(fit(x[:16]).halves_p_value)


# --- warnings, errors, costs --------------------------------------------------------------------------------


def test_warnings_are_one_line_each_and_name_their_channel() -> None:
    x = walks(0.2, (30, 2, 2), 0)
    x[:, 1, 0] = 4.0
    found = fit(x)
    assert all("\n" not in sentence and sentence.startswith("channel (") for sentence in found.warnings)
    assert (
        "channel (1, 0): all samples are equal, so q and r are both 0 and nothing is known of their ratio"
        in (found.warnings)
    )
    assert "channel (0, 1): only 30 samples: errors and interval are rough below 50" in found.warnings
    assert fit(x[:, 0]).warnings[-1].startswith("channel 1: only 30")
    assert fit(x[:, 0, 0]).warnings[-1].startswith("only 30 samples")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], "x holds 0 samples that are present; fit needs at least 2"),
        ([nan, None], "x holds 0 samples that are present; fit needs at least 2"),
        ([nan, 3.0], "x holds 1 sample that is present; fit needs at least 2"),
        ([[1.0, nan], [2.0, 3.0]], "x holds 1 sample that is present in channel 1; fit needs at least 2"),
        (np.zeros((1, 2, 2)), "x holds 1 sample that is present in channel (0, 0); fit needs at least 2"),
        (
            [0.0, 1e200],
            "x differs from its first sample by up to 1e+200; fit needs the square of that to be a number, "
            "so multiply x by a constant",
        ),
        (
            [[0.0, 0.0], [1.0, 1e-200]],
            "x differs from its first sample by up to 1e-200 in channel 1; fit needs the square of that to "
            "be a number, so multiply x by a constant",
        ),
        (
            [1.0, inf, 2.0],
            "x holds infinity at index 1; pass finite samples, or on_infinite='missing' to skip it",
        ),
        (3.0, "x=3.0 has no time axis; pass a sequence of samples, or use update for one sample"),
    ],
)
def test_errors_are_one_clear_line(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match="x") as raised:
        fit(x)
    assert str(raised.value) == message


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match="text"):
        fit(["a", "b"])
    with pytest.raises(ValueError, match="on_infinite='skip' is not valid"):
        fit(NILE, on_infinite="skip")
    for level in (0.0, 1.0, nan, "0.95"):
        with pytest.raises(ValueError, match="level must be a probability"):
            fit(NILE, level=level)


def test_importing_it_imports_only_numpy() -> None:
    heavy = ["numba", "pandas", "scipy"]
    code = f"import sys, estimators.fitting; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
