"""Synthetic streams: which random numbers they use, and whether these have the stated statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from experiments import config, registry
from experiments.streams import (
    Domain,
    GradientRatio,
    Impulse,
    Ramp,
    Realisations,
    RegimeChange,
    Sinusoid,
    Step,
    Synthetic,
)

EVERYTHING: dict[str, Any] = {
    "s": 1e-3,
    "ramp": 1e-3,
    "jump_rate": 0.02,
    "correlation": 0.6,
    "degrees_of_freedom": 5.0,
    "outlier_rate": 0.05,
    "gap_rate": 0.05,
    "gap_length": 4.0,
}
KINDS = [GradientRatio, RegimeChange, Step, Ramp, Impulse, Sinusoid]
domains = st.sampled_from(list(Domain))


def same(one: Realisations, other: Realisations) -> None:
    np.testing.assert_array_equal(one.samples, other.samples)
    np.testing.assert_array_equal(one.level, other.level)


def standardised(stream: GradientRatio, *args: Any) -> Any:
    assert stream.domain is Domain.log_ratio
    return stream.draw(*args).noise / np.sqrt(stream.r)


def within(values: Any, expected: float, errors: float = 4.0) -> None:
    """The mean of independent values is the expected one, within so many of its standard errors."""
    values = np.asarray(values, dtype=np.float64)
    error = values.std(ddof=1) / np.sqrt(values.size)
    assert abs(values.mean() - expected) <= errors * error, (values.mean(), expected, error)
    assert error < 0.2 * max(abs(expected), 0.05), "this sample could not tell"


def share_within(count: int, n: int, expected: float) -> None:
    assert abs(count / n - expected) <= 4.0 * np.sqrt(expected * (1.0 - expected) / n)


def configured(*overrides: str) -> GradientRatio:
    """The stream that overrides choose, as the command line builds it."""
    composed, _ = config.composed(overrides)
    settings = config.resolved(composed, "stream")
    stream: GradientRatio = config.built("stream", registry.stream_kinds()[settings.pop("kind")], settings)
    return stream


# --- which random numbers -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    short=st.integers(1, 60), more=st.integers(0, 60), seed=st.integers(0, 2**64), k=st.integers(0, 9),
    domain=domains,
)  # fmt: skip
def test_a_longer_stream_begins_like_a_shorter_one(
    short: int, more: int, seed: int, k: int, domain: Domain
) -> None:
    one = GradientRatio(steps=short, domain=domain, **EVERYTHING).draw([k], seed)
    other = GradientRatio(steps=short + more, domain=domain, **EVERYTHING).draw([k], seed)
    assert one.level is not None
    assert other.level is not None
    np.testing.assert_array_equal(other.samples[:short], one.samples)
    np.testing.assert_array_equal(other.level[:short], one.level)


@pytest.mark.parametrize("kind", [Step, Ramp, Impulse, Sinusoid])
def test_a_longer_deterministic_stream_begins_with_the_same_noise(kind: Any) -> None:
    # A step and an impulse come at a sample of its own, so only their noise can begin alike.
    one, other = (kind(steps=steps).draw([0, 3], 1).noise for steps in (50, 80))
    np.testing.assert_allclose(one, other[:50], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_samples(kind: Any) -> None:
    same(kind(steps=40).draw([0, 5], 7), kind(steps=40).draw([0, 5], 7))


@settings(deadline=None, max_examples=20)
@given(
    block=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    at=st.integers(0, 5),
    kind=st.sampled_from(KINDS),
)
def test_a_repetition_is_the_same_in_any_block(block: list[int], at: int, kind: Any) -> None:
    stream = kind(steps=30, **(EVERYTHING if kind is GradientRatio else {}))
    column = at % len(block)
    together, alone = stream.draw(block, 3), stream.draw([block[column]], 3)
    np.testing.assert_array_equal(together.samples[:, [column]], alone.samples)
    np.testing.assert_array_equal(together.level[:, [column]], alone.level)


@settings(deadline=None, max_examples=30)
@given(r=st.floats(1e-3, 10.0), s=st.floats(0.0, 1.0), median=st.floats(0.01, 1e4), ramp=st.floats(-0.1, 0.1))
def test_settings_of_the_level_leave_the_standardised_noise(
    r: float, s: float, median: float, ramp: float
) -> None:
    plain = standardised(GradientRatio(steps=50, r=1.0, s=0.0), [0, 1], 5)
    changed = GradientRatio(steps=50, r=r, s=s, median=median, ramp=ramp, jump_rate=0.1)
    np.testing.assert_allclose(
        standardised(changed, [0, 1], 5), plain, rtol=0, atol=1e-11 * (1 + 10 / np.sqrt(r))
    )


def test_each_ingredient_leaves_the_others_random_numbers() -> None:
    plain = GradientRatio(steps=200, s=1e-3).draw([0], 0)
    gaps = GradientRatio(steps=200, s=1e-3, gap_rate=0.1).draw([0], 0)
    kept = np.isfinite(gaps.samples)
    assert 0 < kept.sum() < 200
    np.testing.assert_array_equal(gaps.samples[kept], plain.samples[kept])
    np.testing.assert_array_equal(gaps.level, plain.level)
    outliers = GradientRatio(steps=200, s=1e-3, outlier_rate=0.1, outlier_scale=3.0).draw([0], 0)
    times = outliers.noise / plain.noise
    assert set(np.round(times.ravel(), 9)) == {1.0, 3.0}


@pytest.mark.parametrize("domain", [Domain.ratio, Domain.weight])
def test_domains_show_the_same_stream(domain: Domain) -> None:
    log = GradientRatio(steps=300, **EVERYTHING).draw(range(3), 1)
    seen = GradientRatio(steps=300, domain=domain, **EVERYTHING).draw(range(3), 1)
    assert log.level is not None
    for shown, latent in ((seen.samples, log.samples), (seen.level, log.level)):
        ratio = np.exp(latent)
        np.testing.assert_allclose(
            shown, ratio if domain is Domain.ratio else 1.0 / (1.0 + ratio), rtol=1e-14
        )


@pytest.mark.parametrize("kind", KINDS)
def test_selection_evaluation_repetitions_and_root_seeds_are_independent(kind: Any) -> None:
    stream = kind(steps=4000)
    drawn = [
        stream.draw([0], 0, "evaluate"),
        stream.draw([1], 0, "evaluate"),
        stream.draw([0], 1, "evaluate"),
        stream.draw([0], 0, "tune"),
    ]
    correlation = np.corrcoef([realisation.noise[:, 0] for realisation in drawn])
    others = correlation[~np.eye(len(drawn), dtype=bool)]
    assert np.abs(others).max() < 4.0 / np.sqrt(4000)


def test_kinds_of_stream_have_noise_of_their_own() -> None:
    noises = [kind(steps=4000).draw([0], 0).noise[:, 0] for kind in KINDS]
    correlation = np.corrcoef(noises)
    assert np.abs(correlation[~np.eye(len(KINDS), dtype=bool)]).max() < 4.0 / np.sqrt(4000)


def test_noise_is_samples_minus_level_and_needs_a_level() -> None:
    drawn = GradientRatio(steps=20, gap_rate=0.3).draw([0], 0)
    assert drawn.level is not None
    np.testing.assert_array_equal(drawn.noise, drawn.samples - drawn.level)
    with pytest.raises(ValueError, match="no known level"):
        _ = Realisations(drawn.samples, None, zero_mean=False).noise


# --- with which statistics ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"correlation": 0.7},
        {"correlation": -0.9},
        {"degrees_of_freedom": 6.0},
        {"correlation": 0.5, "degrees_of_freedom": 8.0},
    ],
    ids=str,
)
def test_marginal_variance_is_r_whatever_correlation_and_tails(settings: dict[str, float]) -> None:
    stream = GradientRatio(steps=1000, r=2.5, **settings)
    noise = stream.draw(range(100), 0).noise
    within((noise**2).mean(axis=0), 2.5)
    assert abs(noise.mean()) <= 4.0 * noise.mean(axis=0).std(ddof=1) / 10.0


def test_correlated_noise_starts_where_it_stays() -> None:
    noise = GradientRatio(steps=2, r=1.0, correlation=0.95).draw(range(3000), 0).noise
    for t in range(2):
        within(noise[t] ** 2, 1.0)
    within(noise[0] * noise[1], 0.95)


@pytest.mark.parametrize("correlation", [0.0, 0.45, -0.6])
def test_lag_1_autocorrelation(correlation: float) -> None:
    noise = GradientRatio(steps=2000, r=1.0, correlation=correlation).draw(range(50), 1).noise
    within((noise[1:] * noise[:-1]).mean(axis=0), correlation)
    within((noise[2:] * noise[:-2]).mean(axis=0), correlation**2)


def test_tails_are_students_t() -> None:
    from scipy.stats import kstest
    from scipy.stats import t as student

    noise = GradientRatio(steps=20_000, r=1.0, degrees_of_freedom=3.0).draw([0], 0).noise[:, 0]
    # A variable of unit variance; the 3 degrees of freedom have variance 3.
    assert kstest(noise * np.sqrt(3.0), student(3.0).cdf).pvalue > 1e-3
    assert kstest(noise, "norm").pvalue < 1e-6


def test_outliers_have_the_stated_share_and_scale() -> None:
    n = 50_000
    settings = {"steps": n, "s": 0.0}
    plain = GradientRatio(**settings).draw([0], 0).noise
    struck = GradientRatio(outlier_rate=0.03, outlier_scale=10.0, **settings).draw([0], 0).noise
    times = struck / plain
    hit = np.abs(times - 10.0) < 1e-6
    assert np.all(hit | (np.abs(times - 1.0) < 1e-6))
    share_within(int(hit.sum()), n, 0.03)


def test_gaps_have_the_stated_rate_and_length() -> None:
    n, rate, length = 200_000, 0.01, 6.0
    missing = np.isnan(GradientRatio(steps=n, gap_rate=rate, gap_length=length).draw([0], 0).samples[:, 0])
    starts = np.flatnonzero(missing & ~np.concatenate([[False], missing[:-1]]))
    ends = np.flatnonzero(missing & ~np.concatenate([missing[1:], [False]])) + 1
    within((~missing[:-1] & missing[1:])[~missing[:-1]], rate)
    # One gap may begin within another, which makes what is seen longer by 1/(1 - rate).
    within(ends - starts, length / (1.0 - rate))
    assert not np.isnan(GradientRatio(steps=100).draw([0], 0).samples).any()


def test_gaps_of_length_one_are_single_draws() -> None:
    missing = np.isnan(GradientRatio(steps=50_000, gap_rate=0.2, gap_length=1.0).draw([0], 0).samples)
    share_within(int(missing.sum()), 50_000, 0.2)


def test_jumps_have_the_stated_rate_and_size() -> None:
    n = 100_000
    level = GradientRatio(steps=n, s=0.0, jump_rate=0.01, jump_size=2.0).draw([0], 0).level
    assert level is not None
    steps = np.diff(level[:, 0])
    jumped = np.abs(steps) > 1e-9
    np.testing.assert_allclose(np.abs(steps[jumped]), 2.0, atol=1e-9)
    share_within(int(jumped.sum()), n - 1, 0.01)
    share_within(int((steps > 1e-9).sum()), int(jumped.sum()), 0.5)


def test_the_walk_has_increments_of_variance_s_r() -> None:
    n = 100_000
    level = GradientRatio(steps=n, r=2.0, s=1e-3).draw([0], 0).level
    assert level is not None
    increments = np.diff(level[:, 0])
    within(increments**2, 2e-3)
    within(increments[1:] * increments[:-1] / 2e-3 + 1.0, 1.0)
    assert abs(increments.mean()) <= 4.0 * np.sqrt(2e-3 / n)


def test_a_ramp_drifts_by_its_slope_from_the_median() -> None:
    level = GradientRatio(steps=100, s=0.0, median=5.0, ramp=-0.03).draw([0], 0).level
    assert level is not None
    np.testing.assert_allclose(level[:, 0], np.log(5.0) - 0.03 * np.arange(100), rtol=0, atol=1e-12)


@pytest.mark.parametrize("domain", list(Domain))
def test_the_true_level_is_the_median_in_every_domain(domain: Domain) -> None:
    drawn = GradientRatio(steps=40_000, domain=domain).draw([0], 2)
    share_within(int((drawn.samples > drawn.level).sum()), 40_000, 0.5)
    assert drawn.zero_mean is (domain is Domain.log_ratio)


def test_only_the_log_has_noise_of_mean_zero() -> None:
    log, ratio = (
        GradientRatio(steps=20_000, s=0.0, domain=d).draw([0], 0).noise[:, 0] for d in list(Domain)[:2]
    )
    assert abs(log.mean()) < 4.0 * log.std() / np.sqrt(20_000)
    assert ratio.mean() > 4.0 * ratio.std() / np.sqrt(20_000)  # a lognormal's mean lies above its median


# --- the shipped settings -----------------------------------------------------------------------------------


def test_the_default_stream_is_the_measured_one() -> None:
    stream = configured()
    assert stream.r == 1.7956 == pytest.approx(1.34**2)
    assert stream.s == pytest.approx(1 / 9900, rel=1e-15)
    assert stream.median == 2.1
    assert stream == GradientRatio()


def test_the_streams_that_ship() -> None:
    b64 = configured("stream=gradient_ratio_b64")
    assert (b64.r, b64.s) == (pytest.approx(0.85**2), 4e-3)
    wild = configured("stream=gradient_ratio_wild")
    assert (wild.r, wild.median) == (pytest.approx(1.76**2), 316.0)


def test_wild_ratios_span_10_to_10_000() -> None:
    wild = configured("stream=gradient_ratio_wild", "stream.domain=ratio", "stream.steps=2")
    ratios = wild.draw(range(4000), 0).samples
    share_within(int(((ratios >= 10.0) & (ratios <= 10_000.0)).sum()), ratios.size, 0.95)
    # Later the level has drifted, by as much as the noise over a whole stream.
    ratios = configured("stream=gradient_ratio_wild", "stream.domain=ratio").draw(range(50), 0).samples
    assert ((ratios >= 10.0) & (ratios <= 10_000.0)).mean() == pytest.approx(0.90, abs=0.02)


# --- what a filter is told of the noise ---------------------------------------------------------------------


@pytest.mark.parametrize("r", [0.01, 0.7225, 1.7956, 3.0976])
@pytest.mark.parametrize("median", [0.1, 2.1, 316.0])
def test_own_noise_variance_of_a_ratio_is_the_lognormals(r: float, median: float) -> None:
    stated = GradientRatio(r=r, median=median, domain=Domain.ratio).own_noise_variance()
    assert stated == pytest.approx(median**2 * np.exp(r) * np.expm1(r), rel=1e-9)


@pytest.mark.parametrize(("r", "median"), [(0.01, 2.1), (1.7956, 2.1), (3.0976, 316.0)])
def test_own_noise_variance_of_a_weight_is_the_integral(r: float, median: float) -> None:
    def moment(power: int) -> float:
        def integrand(z: float) -> float:
            weight = 1.0 / (1.0 + median * np.exp(np.sqrt(r) * z))
            return float(weight**power * np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))

        return float(quad(integrand, -12.0, 12.0, epsabs=1e-14, limit=200)[0])

    stated = GradientRatio(r=r, median=median, domain=Domain.weight).own_noise_variance()
    assert stated == pytest.approx(moment(2) - moment(1) ** 2, rel=1e-4)


def test_own_noise_variance_of_the_log_is_r() -> None:
    assert GradientRatio(r=3.0, median=100.0).own_noise_variance() == 3.0
    assert Ramp(r=2.5).own_noise_variance() == 2.5


@pytest.mark.parametrize("stream", [Ramp(r=0.0), *(GradientRatio(r=0.0, domain=d) for d in Domain)], ids=str)
def test_a_stream_without_noise_still_lets_a_filter_be_set(stream: Synthetic) -> None:
    assert stream.own_noise_variance() == 1.0


# --- a world that changes -----------------------------------------------------------------------------------

CHANGES = [
    {"shift": 8.0},
    {"shift": -2.0, "gap": 3},
    {"r_factor": 9.0},
    {"r_factor": 0.0},
    {"s_factor": 100.0, "outlier_rate": 0.05},
    {"s_factor": 0.0, "gap_rate": 0.05},
    {"r_factor": 0.1, "s_factor": 2.0, "degrees_of_freedom": 3.0, "correlation": 0.4},
]


def changed(**settings: Any) -> Realisations:
    return RegimeChange(steps=200, at=120, **settings).draw([0, 3], 7)


def unchanged(settings: dict[str, Any]) -> Realisations:
    """The stream of the same settings in which nothing changes."""
    kept = settings.keys() - {"shift", "r_factor", "s_factor", "gap"}
    return changed(**{name: settings[name] for name in kept})


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_before_the_change_all_is_as_without_it(change: dict[str, float]) -> None:
    one, other = changed(**change), unchanged(change)
    assert one.level is not None
    assert other.level is not None
    np.testing.assert_array_equal(one.samples[:120], other.samples[:120])
    np.testing.assert_array_equal(one.level[:120], other.level[:120])
    assert not np.array_equal(one.samples[120:], other.samples[120:], equal_nan=True)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_after_the_change_the_random_numbers_are_the_same(change: dict[str, float]) -> None:
    one, other = changed(**change), unchanged(change)
    assert one.level is not None
    assert other.level is not None
    there = np.isfinite(one.samples[120:])
    scaled = np.sqrt(change.get("r_factor", 1.0)) * other.noise[120:]
    np.testing.assert_allclose(one.noise[120:][there], scaled[there], rtol=0, atol=1e-12)
    steps = np.sqrt(change.get("s_factor", 1.0)) * np.diff(other.level, axis=0)[119:]
    steps[0] += change.get("shift", 0.0)
    np.testing.assert_allclose(np.diff(one.level, axis=0)[119:], steps, rtol=0, atol=1e-12)


def test_a_shift_is_in_standard_deviations_of_the_noise_before_it() -> None:
    for more in ({}, {"r_factor": 9.0}, {"gap": 5}):
        shifted, plain = changed(r=4.0, shift=3.0, **more), changed(r=4.0, **more)
        assert shifted.level is not None
        assert plain.level is not None
        expected = np.where(np.arange(200) >= 120, 6.0, 0.0)[:, np.newaxis] + np.zeros(2)
        np.testing.assert_allclose(shifted.level - plain.level, expected, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(np.isnan(shifted.samples), np.isnan(plain.samples))


def test_factors_of_the_noise_and_of_the_walk_leave_each_other_alone() -> None:
    steps, at = 200_000, 100_000
    stream = RegimeChange(steps=steps, at=at, r=2.0, s=0.01, r_factor=9.0, s_factor=4.0)
    drawn = stream.draw([0], 0)
    assert drawn.level is not None
    walk = np.diff(drawn.level[:, 0])
    for rows, r, q in ((slice(0, at - 1), 2.0, 0.02), (slice(at, steps - 1), 18.0, 0.08)):
        within(drawn.noise[rows, 0] ** 2, r)
        within(walk[rows] ** 2 / q, 1.0)
    assert stream.own_noise_variance() == 2.0


@pytest.mark.parametrize("gap", [0, 1, 5, 80, 1000])
def test_a_gap_begins_with_the_change_and_has_its_length(gap: int) -> None:
    missing = np.isnan(changed(gap=gap).samples)
    expected = (np.arange(200) >= 120) & (np.arange(200) < 120 + gap)
    np.testing.assert_array_equal(missing, np.stack([expected, expected], axis=1))
    assert RegimeChange(gap=gap).may_have_gaps is (gap > 0)


def test_a_gap_comes_on_top_of_others() -> None:
    plain, more = (np.isnan(changed(gap_rate=0.1, gap=gap).samples) for gap in (0, 10))
    assert more[120:130].all()
    plain[120:130] = True
    np.testing.assert_array_equal(more, plain)
    assert RegimeChange(gap_rate=0.1).may_have_gaps


def test_a_change_at_the_start_or_never() -> None:
    plain = RegimeChange(steps=50).draw([0], 0)
    at_once = RegimeChange(steps=50, at=0, r_factor=4.0, s_factor=4.0).draw([0], 0)
    all_along = RegimeChange(steps=50, r=4.0).draw([0], 0)
    np.testing.assert_allclose(at_once.samples, all_along.samples, rtol=0, atol=1e-12)
    same(RegimeChange(steps=50, at=50, shift=8.0, gap=9).draw([0], 0), plain)


def test_a_stream_knows_whether_it_changes() -> None:
    assert not RegimeChange(outlier_rate=0.05, gap_rate=0.1).changes
    assert not RegimeChange(shift=8.0, steps=1000).changes
    for change in ({"shift": -1.0}, {"r_factor": 9.0}, {"s_factor": 0.0}, {"gap": 1}):
        assert RegimeChange(**change).changes  # type: ignore[arg-type]


def test_other_domains_show_the_same_change() -> None:
    log, ratio = (changed(shift=8.0, gap=3, domain=domain) for domain in (Domain.log_ratio, Domain.ratio))
    np.testing.assert_allclose(ratio.samples, np.exp(log.samples), rtol=1e-14)


def test_as_it_ships_nothing_changes() -> None:
    assert configured("stream=regime_change") == RegimeChange()
    assert not RegimeChange().changes


# --- deterministic signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Step(steps=6, r=0.0, at=3), [0, 0, 0, 8, 8, 8]),
        (Step(steps=5, r=0.0, height=-1.0, at=1), [0, -1, -1, -1, -1]),
        (Step(steps=4, r=0.0, at=0), [8, 8, 8, 8]),
        (Impulse(steps=6, r=0.0, at=3), [0, 0, 0, 8, 0, 0]),
        (Impulse(steps=5, r=0.0, height=2.0, at=0), [2, 0, 0, 0, 0]),
        (Ramp(steps=5, r=0.0, slope=0.5), [0, 0.5, 1, 1.5, 2]),
        (Sinusoid(steps=5, r=0.0, amplitude=3.0, frequency=0.25), [0, 3, 0, -3, 0]),
        (Sinusoid(steps=9, r=0.0, frequency=0.125), np.sin(np.pi * np.arange(9) / 4)),
    ],
    ids=str,
)
def test_signals_without_noise_are_exact(stream: Synthetic, expected: Any) -> None:
    drawn = stream.draw([0, 1], 0)
    for column in range(2):
        np.testing.assert_allclose(drawn.samples[:, column], expected, rtol=0, atol=1e-14)
    np.testing.assert_array_equal(drawn.samples, drawn.level)


@pytest.mark.parametrize("kind", [Step, Ramp, Impulse, Sinusoid])
def test_noise_on_a_signal_is_white_of_variance_r(kind: Any) -> None:
    drawn = kind(steps=20_000, r=4.0).draw([0], 0)
    within(drawn.noise**2, 4.0)
    within(drawn.noise[1:] * drawn.noise[:-1] + 4.0, 4.0)


# --- what is refused ----------------------------------------------------------------------------------------

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("kind", "field", "value", "valid"),
    [
        (GradientRatio, "steps", 0, "an int >= 1"),
        (GradientRatio, "steps", -5, "an int >= 1"),
        (GradientRatio, "median", 0.0, "> 0"),
        (GradientRatio, "median", INF, "> 0"),
        (GradientRatio, "median", NAN, "> 0"),
        (GradientRatio, "r", -1.0, ">= 0"),
        (GradientRatio, "r", NAN, ">= 0"),
        (GradientRatio, "s", -1e-9, ">= 0"),
        (GradientRatio, "s", INF, ">= 0"),
        (GradientRatio, "ramp", INF, "finite"),
        (GradientRatio, "jump_size", NAN, "finite"),
        (GradientRatio, "outlier_scale", INF, "finite"),
        (GradientRatio, "jump_rate", 1.0, "[0, 1)"),
        (GradientRatio, "outlier_rate", -0.1, "[0, 1)"),
        (GradientRatio, "gap_rate", NAN, "[0, 1)"),
        (GradientRatio, "gap_length", 0.5, ">= 1"),
        (GradientRatio, "correlation", 1.0, "(-1, 1)"),
        (GradientRatio, "correlation", -1.0, "(-1, 1)"),
        (GradientRatio, "degrees_of_freedom", 2.0, "> 2"),
        (GradientRatio, "degrees_of_freedom", NAN, "> 2"),
        (GradientRatio, "noise_variance", 0.0, "> 0"),
        (RegimeChange, "at", -1, ">= 0"),
        (RegimeChange, "gap", -1, ">= 0"),
        (RegimeChange, "shift", INF, "finite"),
        (RegimeChange, "r_factor", -0.1, ">= 0"),
        (RegimeChange, "s_factor", INF, "finite"),
        (RegimeChange, "s_factor", NAN, ">= 0"),
        (RegimeChange, "outlier_rate", 1.0, "[0, 1)"),
        (Ramp, "noise_variance", -1.0, "> 0"),
        (Ramp, "r", -1.0, ">= 0"),
        (Ramp, "slope", INF, "finite"),
        (Step, "height", NAN, "finite"),
        (Step, "at", -1, ">= 0"),
        (Impulse, "at", -3, ">= 0"),
        (Impulse, "height", INF, "finite"),
        (Sinusoid, "frequency", NAN, "finite"),
        (Sinusoid, "amplitude", INF, "finite"),
        (Sinusoid, "steps", 0, "an int >= 1"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_value_and_range(
    kind: Any, field: str, value: float, valid: str
) -> None:
    with pytest.raises(ValueError, match="is not valid") as caught:
        kind(**{field: value})
    message = str(caught.value)
    assert message.startswith(f"stream.{field}={value!r} is not valid; it must be ")
    assert valid in message
    assert "\n" not in message


def test_a_domain_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="'logratio'"):
        GradientRatio(domain="logratio")  # type: ignore[arg-type]


def test_ratios_that_overflow_are_refused_and_weights_do_not() -> None:
    with pytest.raises(ValueError, match=r"stream\.domain=ratio.*log_ratio"):
        GradientRatio(steps=1000, ramp=1.0, domain=Domain.ratio).draw([0], 0)
    with pytest.raises(ValueError, match=r"^stream\.r=100000\.0 is not valid; .*noise_variance"):
        GradientRatio(r=1e5, domain=Domain.ratio).own_noise_variance()
    drawn = GradientRatio(steps=1000, ramp=1.0, domain=Domain.weight).draw([0], 0)
    assert np.all((drawn.samples >= 0.0) & (drawn.samples <= 1.0))


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GradientRatio().r = 2.0  # type: ignore[misc]


@pytest.mark.parametrize("domain", list(Domain))
@pytest.mark.parametrize(("median", "sd"), [(1.0, 1.3), (2.0, 0.3), (500.0, 1.3), (5.0, 0.9), (0.1, 1.0)])
def test_moments_of_a_noisy_ratio(domain: Domain, median: float, sd: float) -> None:
    def moment(power: int) -> float:
        def weighed(z: float) -> float:
            return float(domain.of_log_ratio(np.log(median) + sd * z) ** power * norm.pdf(z))

        return float(quad(weighed, -14.0, 14.0, epsabs=1e-13, epsrel=1e-11, limit=200)[0])

    mean, variance = domain.moments(median, sd**2)
    assert mean == pytest.approx(moment(1), rel=1e-9, abs=1e-12)
    assert variance == pytest.approx(moment(2) - moment(1) ** 2, rel=1e-8)


def test_the_mean_weight_is_what_the_reference_says() -> None:
    assert Domain.weight.moments(500.0, 1.3**2)[0] * 501.0 == pytest.approx(2.28, abs=0.005)
