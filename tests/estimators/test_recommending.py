"""Which estimator for a log: the right one on streams whose answer is known, defined answers everywhere."""

from __future__ import annotations

import gzip
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from estimators import (
    EMA,
    DebiasedEMA,
    Kalman,
    KalmanBank,
    Log,
    ResettingKalman,
    RobustKalman,
    fit,
    recommend,
)

RECORDINGS = sorted((Path(__file__).parents[2] / "results" / "recordings").glob("digits_*.csv.gz"))


def walk(s: float, n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.cumsum(math.sqrt(s) * rng.standard_normal(n)), rng.standard_normal(n)


def test_a_random_walk_in_noise_gets_the_fitted_filter() -> None:
    level, noise = walk(0.01)
    found = recommend(level + noise)
    assert found.domain == "raw"
    assert found.estimator == fit(level + noise).estimator()
    low, high = found.beta_interval
    assert low < Kalman(0.01, 1.0).steady_beta < high
    assert low < found.beta < high
    settled = EMA(found.beta)
    assert found.attenuation_db == pytest.approx(-10.0 * math.log10(settled.noise_gain), rel=1e-6)
    assert found.lag == pytest.approx(settled.group_delay, rel=1e-6)
    assert found.state_bytes == 16
    assert found.warnings == ()


def test_evidence_is_of_the_second_half_by_settings_of_the_first() -> None:
    level, noise = walk(0.01, seed=3)
    x = level + noise
    found = recommend(x)
    assert found.out_of_sample == fit(x[:1000]).estimator()
    by_name = {one.name: one for one in found.evidence}
    ema = np.sqrt(np.mean(np.asarray(EMA(0.99, initial=None).filter(x).innovation)[1000:] ** 2))
    assert by_name["EMA(0.99)"].rmse == pytest.approx(ema, rel=1e-12)
    assert by_name["EMA(0.99)"].verdict == "worse"
    assert abs(by_name["EMA(0.9)"].excess) < 0.01
    changed = x.copy()
    changed[1000:] = x[1000:][::-1]
    assert recommend(changed).out_of_sample == found.out_of_sample


def test_lognormal_noise_is_smoothed_as_logarithms() -> None:
    level, noise = walk(0.01, seed=1)
    found = recommend(np.exp(0.5 * (level + noise)))
    assert found.domain == "log"
    assert isinstance(found.estimator, Log)
    assert isinstance(found.estimator.estimator, Kalman)
    assert "as logarithms" in str(found)
    additive = recommend(100.0 + level + noise)
    assert additive.domain == "raw"


def test_outliers_get_a_robust_filter() -> None:
    level, noise = walk(0.01, seed=3)
    struck = np.random.default_rng(5).random(2000) < 0.05
    x = level + np.where(struck, 10.0, 1.0) * noise
    found = recommend(x)
    assert isinstance(found.estimator, RobustKalman)
    assert not isinstance(found.estimator, ResettingKalman)
    assert 0.8 < found.estimator.r < 1.6
    assert fit(x).r > 4.0
    assert any("outliers" in warning for warning in found.warnings)


def test_a_jump_is_no_outlier_and_gets_the_bank() -> None:
    level, noise = walk(1e-4, seed=4)
    found = recommend(level + noise + 8.0 * (np.arange(2000) >= 1200))
    assert isinstance(found.estimator, KalmanBank)
    assert any("the level jumps" in warning for warning in found.warnings)
    assert not any("outliers" in warning for warning in found.warnings)


def test_outliers_and_jumps_get_both_cures() -> None:
    level, noise = walk(0.01, seed=6)
    struck = np.random.default_rng(7).random(2000) < 0.05
    jumps = 12.0 * ((np.arange(2000) // 500) % 2)
    found = recommend(level + jumps + np.where(struck, 10.0, 1.0) * noise)
    assert isinstance(found.estimator, ResettingKalman)
    assert found.estimator.loss == "huber"


def test_training_that_is_not_stationary_is_said_to_be() -> None:
    level, noise = walk(1e-3, seed=8)
    found = recommend(level + noise * np.where(np.arange(2000) < 1000, 1.0, 4.0))
    assert isinstance(found.estimator, KalmanBank)
    assert any("not stationary" in warning for warning in found.warnings)


def test_correlated_noise_is_warned_of() -> None:
    rng = np.random.default_rng(9)
    noise = np.convolve(rng.standard_normal(2003), [1.0, 0.8, 0.5, 0.2], "valid")
    assert any("correlated" in warning for warning in recommend(noise).warnings)


@pytest.mark.slow
def test_false_warnings_are_rare() -> None:
    said = [recommend(sum(walk(0.01, n=1000, seed=seed))).warnings for seed in range(100, 160)]
    assert np.mean([bool(warnings_) for warnings_ in said]) <= 0.1


def test_plain_words_where_the_data_cannot_tell() -> None:
    few = recommend(np.random.default_rng(10).standard_normal(12))
    assert isinstance(few.estimator, KalmanBank)
    assert any("short" in warning for warning in few.warnings)
    still = recommend(np.random.default_rng(11).standard_normal(400))
    assert "does equally well" in str(still)
    assert still.beta_interval[1] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(
    "x",
    [
        np.full(60, 3.0),
        np.array([1.0, 2.0]),
        np.array([1.0, np.nan, np.nan, 2.0]),
        np.concatenate([np.full(50, np.nan), np.arange(1.0, 60.0)]),
        np.cumsum(np.random.default_rng(0).standard_normal(200)),
        np.zeros(10),
        1e150 * np.random.default_rng(0).standard_normal(100),
        1e-140 * np.random.default_rng(0).standard_normal(100),
        np.repeat([1.0, 5.0], 100),
        np.tile([0.0, 1.0], 100),
        np.concatenate([np.full(100, 1.0), np.random.default_rng(1).standard_normal(100)]),
    ],
    ids=["constant", "two", "gap", "late", "walk", "zeros", "huge", "tiny", "step", "turns", "half_constant"],
)
def test_always_a_defined_answer(x: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = recommend(x)
        text = str(found)
    assert np.isfinite([found.beta, found.attenuation_db, found.lag, *found.beta_interval]).all()
    assert "nan" not in text
    assert max(map(len, text.splitlines())) < 220
    assert np.isfinite(np.asarray(found.estimator.filter(x).mean)[-1])


def test_it_takes_what_filter_takes() -> None:
    level, noise = walk(0.01, n=300)
    x = level + noise
    want = recommend(x)
    assert recommend(pd.Series(x)).estimator == want.estimator
    assert recommend(x.tolist()).estimator == want.estimator
    with_gap = [*x.tolist(), None]
    assert recommend(with_gap).missing == 1


@pytest.mark.parametrize(
    ("x", "how", "message"),
    [
        (np.zeros((4, 2)), {}, "x has shape (4, 2); recommend takes one series, of shape (T,)"),
        ([1.0], {}, "x holds 1 samples that are present; recommend needs at least 2"),
        ([1.0, -2.0, 3.0], {"domain": "log"}, "domain='log' needs samples > 0; the smallest is -2"),
        ([1.0, 2.0], {"domain": "cube"}, "domain='cube' is not valid; it must be 'auto', 'raw' or 'log'"),
        ([1.0, math.inf], {}, "x holds infinity"),
    ],
)
def test_errors_say_what_would_be_valid(x: object, how: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        recommend(x, **how)
    assert "\n" not in str(caught.value)


def test_the_domain_can_be_given() -> None:
    x = np.exp(sum(walk(0.01, n=300)))
    assert not isinstance(recommend(x, domain="raw").estimator, Log)
    assert isinstance(recommend(x, domain="log").estimator, Log)


def test_the_screen_can_be_typed_in() -> None:
    text = str(recommend(sum(walk(0.01))))
    (use,) = (line for line in text.splitlines() if line.startswith("Use "))
    made = eval(use.removeprefix("Use").strip(), {"Kalman": Kalman, "DebiasedEMA": DebiasedEMA})
    assert isinstance(made, Kalman)


@pytest.mark.parametrize(
    "x",
    [
        (np.random.default_rng(0).random(2000) < 0.05) * 1.0,
        np.where(np.random.default_rng(0).random(1000) < 0.03, 62.0, 2.0),
        np.cumsum(np.random.default_rng(0).standard_normal(1000))
        + 60.0 * (np.random.default_rng(1).random(1000) < 0.03),
    ],
    ids=["rare_events", "flat_with_spikes", "walk_with_spikes"],
)
def test_what_has_no_noise_between_its_outliers_gets_the_bank(x: np.ndarray) -> None:
    found = recommend(x)
    inner = found.estimator.estimator if isinstance(found.estimator, Log) else found.estimator
    assert isinstance(inner, KalmanBank)
    assert found.lag > 0.5


def test_one_spike_is_named_and_makes_nothing_else_false() -> None:
    x = np.random.default_rng(0).standard_normal(2000)
    x[700] = 50.0
    found = recommend(x)
    assert isinstance(found.estimator, RobustKalman)
    assert len(found.warnings) == 1
    assert "1 sample lies" in found.warnings[0]


def test_a_robust_filter_does_not_remember_for_ever() -> None:
    rng = np.random.default_rng(2)
    noise = rng.standard_normal(600) * np.where(rng.random(600) < 0.03, 10.0, 1.0)
    found = recommend(noise)
    assert isinstance(found.estimator, RobustKalman)
    assert found.estimator.q > 0.0


@pytest.mark.parametrize("curve", ["sine", "cosine", "counter"])
def test_a_smooth_curve_does_not_jump(curve: str) -> None:
    t = np.arange(2000.0)
    found = recommend({"sine": np.sin(t / 50), "cosine": np.cos(np.pi * t / 2000), "counter": t}[curve])
    assert not any("jumps" in warning for warning in found.warnings)
    assert any("LocalTrend and Holt" in warning for warning in found.warnings)


def test_it_says_equally_well_only_of_what_does() -> None:
    few = recommend(np.random.default_rng(3).standard_normal(100))
    x, (low, high) = np.random.default_rng(3).standard_normal(100), few.beta_interval
    ends = np.minimum([low, few.beta, high], 1.0 - 1.0 / 101)
    rmse = EMA(ends, initial=None).score(x[:, np.newaxis], skip=10).rmse
    assert few.beta_flatness == pytest.approx(rmse.max() / rmse.min() - 1.0)
    assert ("equally well" in str(few)) == (few.beta_flatness <= 0.01)
    assert 0.0 < few.beta < 1.0


@pytest.mark.slow
def test_heavy_tails_are_not_called_instationary() -> None:
    said = [recommend(np.random.default_rng(seed).standard_t(3, 2000)).warnings for seed in range(20)]
    assert np.mean(["halves" in " ".join(warnings_) for warnings_ in said]) <= 0.1


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name.removesuffix(".csv.gz"))
def test_goals_on_the_shipped_recordings(path: Path) -> None:
    """Recommended from the first half: within 2 % of hindsight, within 1 % of EMA(0.99), on the second."""
    with gzip.open(path, "rt") as file:
        log = pd.read_csv(file)
    x = (log["regression_norm"] / log["classification_norm"]).to_numpy()
    found = recommend(x)
    assert found.domain == "log"
    series, begin = np.log(x), len(x) // 2
    own = np.sqrt(np.mean(np.asarray(found.out_of_sample.estimator.filter(series).innovation)[begin:] ** 2))
    betas = 1.0 - np.geomspace(0.9, 1e-3, 200)
    hindsight = EMA(betas, initial=None).score(series[:, np.newaxis], skip=begin).rmse.min()
    common = EMA(0.99, initial=None).score(series, skip=begin).rmse
    assert own <= 1.02 * hindsight
    assert own <= 1.01 * common
