"""Ways to a smoothed weight: their limits, noises and floors, what commutes, and what is said of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from estimators import EMA, DebiasedEMA, Kalman
from estimators.robust import RobustKalman
from estimators.running_median import RunningMedian
from estimators.shares import by_inverse_norm, clipped
from experiments import domain
from experiments.agreement import agreement
from experiments.domain import Parameters, draw, points, run
from experiments.domain_findings import Findings
from experiments.domain_report import text
from experiments.domain_tuning import EVERY, WayTuner
from experiments.domain_ways import CONSTANT, Apart, Point, Together, floored, ways, weight_of
from experiments.settings import BUDGET
from experiments.setup import Setup
from experiments.streams import Domain, GradientRatio, RegimeChange, Step
from experiments.summaries import summarise

WALK = GradientRatio(steps=400)
WEIGHT, RATIO, LOG_RATIO = (Together(each) for each in (Domain.weight, Domain.ratio, Domain.log_ratio))


@pytest.fixture(autouse=True)
def without_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.node.name:
        monkeypatch.setattr(domain, "figures", lambda _: {})


def made(
    estimators: Any, stream: Any = WALK, seeds: int = 4, burn_in: int = 100, **chosen: Any
) -> tuple[Setup, pd.DataFrame, str]:
    """A run at reduced size: its setup, table and text."""
    chosen = {"ratios": [1.0, 100.0], "log_sds": [1.0], "noise_shares": [0.8]} | chosen
    setup = Setup(Parameters(**chosen), "own", stream, stream.r, estimators, seeds, 0, burn_in)
    outcome = run(setup)
    return setup, outcome.table, outcome.text


def values(table: pd.DataFrame, metric: str, way: str, level: str = CONSTANT, ratio: float = 100.0) -> Any:
    at = table["stream"].astype(str).str.startswith(level)
    at &= table["stream"].astype(str).str.endswith(f"ratio {ratio:g}")
    at &= table["parameters"].astype(str).str.split(" ").str[0] == f"way={way}"
    return table.loc[at & (table["metric"] == metric), "value"].to_numpy()


# --- limits -----------------------------------------------------------------------------------------------


def factor(way: Any, ratio: float, sd: float) -> float:
    return float(weight_of(way.limit(ratio, sd**2)) * (1.0 + ratio))


@pytest.mark.parametrize(
    ("ratio", "sd", "expected"), [(500.0, 1.3, 2.28), (500.0, 0.5, 1.13), (5.0, 0.9, 1.2), (1.0, 1.3, 1.0)]
)
def test_bias_of_the_smoothed_weight_as_measured(ratio: float, sd: float, expected: float) -> None:
    assert round(factor(WEIGHT, ratio, sd), 2) == expected


@settings(deadline=None, max_examples=25)
@given(ratio=st.floats(1.0, 1e6), sd=st.floats(0.01, 5.0))
def test_the_mean_weight_is_its_integral(ratio: float, sd: float) -> None:
    def density(z: float) -> float:
        return (
            float(np.exp(-0.5 * z**2)) / float(np.sqrt(2.0 * np.pi)) / (1.0 + ratio * float(np.exp(sd * z)))
        )

    expected = sum(quad(density, at, at + 1.0, epsabs=0.0, epsrel=1e-12)[0] for at in range(-12, 12))
    (found,) = WEIGHT.means(ratio, sd**2)
    assert found == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(ratio=st.floats(1.0, 1e6), sd=st.floats(0.01, 3.0), share=st.floats(0.0, 1.0))
def test_other_limits_in_log_odds(ratio: float, sd: float, share: float) -> None:
    true, r = -np.log(ratio), sd**2
    assert LOG_RATIO.limit(ratio, r) == pytest.approx(true, abs=1e-12)
    assert RATIO.limit(ratio, r) == pytest.approx(true - 0.5 * r, abs=1e-9)
    for inverse, sign in ((False, -1.0), (True, 1.0)):
        expected = true + sign * (share - 0.5) * r
        assert Apart(share, inverse).limit(ratio, r) == pytest.approx(expected, abs=1e-9)


def test_the_logarithm_comes_first_and_the_inversion_splits_the_ways() -> None:
    every = ways([0.5, 0.8])
    assert every[0] == LOG_RATIO
    assert len({way.key for way in every}) == len(every) == 7
    assert {way.key for way in every if not way.before} == {
        "weight",
        "inverse_norms_0.5",
        "inverse_norms_0.8",
    }


# --- samples ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(share=st.floats(0.0, 1.0), inverse=st.booleans())
def test_norms_have_the_streams_ratio_and_noises_of_their_own(share: float, inverse: bool) -> None:
    point = Point(CONSTANT, 0.7, 30.0, replace(WALK, s=0.0, r=0.49, median=30.0, steps=4000))
    drawn = draw(point, [0, 1, 2, 3, 4], 1)
    first, second = (np.log(one) * (-1.0 if inverse else 1.0) for one in Apart(share, inverse).seen(*drawn))
    np.testing.assert_allclose(first - second, drawn.log_ratio, rtol=0, atol=1e-12)
    medians = 0.5 * np.log(30.0)
    noises = np.stack([first - medians, second + medians]).reshape(2, -1)
    covariance = noises @ noises.T / noises.shape[1]
    own = np.diag([share, 1.0 - share]) * 0.49
    np.testing.assert_allclose(covariance, own, rtol=0, atol=5.0 * 0.49 * np.sqrt(2.0 / 20_000))


def test_samples_are_the_streams_and_do_not_depend_on_what_stands_beside() -> None:
    point = points(WALK, Parameters())[-1]
    together = draw(point, [3, 7], 5)
    np.testing.assert_array_equal(together.log_ratio, point.stream.draw([3, 7], 5, "evaluate").samples)
    alone = draw(point, [7], 5)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one[:, 0], other[:, 1])


def test_a_norm_without_noise_leaves_the_ratio() -> None:
    """All of the noise in one norm: to smooth both is to smooth the ratio, or its inverse."""
    _, table, _ = made({"debiased": DebiasedEMA(0.9)}, noise_shares=[1.0])
    np.testing.assert_allclose(
        values(table, "odds_rmse", "norms_1"), values(table, "odds_rmse", "ratio"), rtol=1e-9
    )


@settings(deadline=None, max_examples=50)
@given(ratio=st.floats(1.0, 1e6), floor=st.floats(0.0, 0.49))
def test_weight_and_floor_are_the_librarys(ratio: float, floor: float) -> None:
    shares = by_inverse_norm(np.array([ratio, 1.0]))
    assert weight_of(-np.log(ratio)) == pytest.approx(shares[0], rel=1e-12)
    assert floored(shares[0], floor) == pytest.approx(clipped(shares, floor)[0], rel=1e-12)


# --- estimators -------------------------------------------------------------------------------------------


def test_a_median_of_an_odd_window_is_the_same_in_every_domain() -> None:
    _, table, said = made({"odd": RunningMedian(31), "even": RunningMedian(30), "ema": EMA(0.9)})
    apart = table[table["metric"] == "odds_apart"].groupby("estimator", observed=True)["value"].max()
    assert apart["odd"] < 1e-12
    assert apart["even"] > 1e-3
    assert apart["ema"] > 0.1
    assert "to 1e-09 in log odds: odd." in said.replace("\n  ", " ")


@pytest.mark.parametrize("make", [Kalman, RobustKalman])
def test_filters_are_told_the_noise_of_what_they_smooth(make: Any) -> None:
    """Of every way as if the filter had been made for it, though it was made for the stream as it stands."""
    _, table, _ = made({"own": make(q=0.01 * WALK.r, r=WALK.r)}, seeds=2)
    point = points(WALK, Parameters(ratios=[100.0], log_sds=[1.0]))[-1]
    drawn = draw(point, [0, 1], 0)
    for way in ways([0.8]):
        means = [
            make(q=0.01 * variance, r=variance).filter(seen).mean
            for seen, variance in zip(way.seen(*drawn), way.variances(point.stream), strict=True)
        ]
        error = (way.log_odds(means) + drawn.level)[100:]
        expected = np.sqrt((error**2).mean(axis=0))
        np.testing.assert_allclose(values(table, "odds_rmse", way.key, "walk"), expected, rtol=1e-9)


def test_stated_variances_are_those_of_the_samples() -> None:
    point = Point(CONSTANT, 0.3, 10.0, replace(WALK, s=0.0, r=0.09, median=10.0, steps=50_000))
    drawn = draw(point, range(4), 0)
    for way in ways([0.0, 0.5, 0.8]):
        for seen, variance in zip(way.seen(*drawn), way.variances(point.stream), strict=True):
            spread = seen.var()
            assert variance == pytest.approx(spread, rel=0.03) or (variance, spread < 1e-25) == (1.0, True)


def test_only_the_weight_knows_the_ratio() -> None:
    """Of filters that forget their start at once, errors in log odds are the same at every ratio."""
    _, table, _ = made({"debiased": DebiasedEMA(0.9)})
    for way in ways([0.8]):
        for level in (CONSTANT, "walk"):
            one, other = (values(table, "odds_rmse", way.key, level, ratio) for ratio in (1.0, 100.0))
            if way == WEIGHT:
                assert (other > 1.5 * one).all()
            else:
                np.testing.assert_allclose(one, other, rtol=1e-8)


def test_what_has_no_value_says_why(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(
        *SMALL,
        "experiment.log_sds=[3]",
        "estimators=[ema,log,holt]",
        "estimators.holt.gain=0.9",
        "estimators.holt.slope_gain=0.5",
    )
    assert ran.code == 0, ran.err
    table = ran.table[ran.table["metric"] == "odds_rmse"]
    way = table["parameters"].str.split(" ").str[0]
    log, holt = table["estimator"] == "log", table["estimator"] == "holt"
    assert set(table.loc[log & (way == "way=log_ratio"), "status"]) == {"needs positive samples"}
    assert set(table.loc[log & (way != "way=log_ratio"), "status"]) == {"ok"}
    assert set(table.loc[holt & (way == "way=log_ratio"), "status"]) == {"ok"}
    assert "left (0, 1)" in set(table.loc[holt & (way == "way=ratio"), "status"])


# --- closed forms -----------------------------------------------------------------------------------------


def test_closed_forms_include_the_start() -> None:
    """From zero, without a burn-in: the log ratio's mean is short by beta^(t + 1) of it."""
    _, table, said = made(
        {"ema": EMA(0.9, initial=0.0)}, burn_in=0, seeds=60, ratios=[100.0], noise_shares=[0.8]
    )
    after = 0.9 ** np.arange(1, 401)
    for level in (CONSTANT, "walk"):
        expected = values(table, "odds_bias_expected", "log_ratio", level)
        np.testing.assert_allclose(expected, np.log(100.0) * after.mean(), rtol=1e-9)
    noise = 0.1 / 1.9 * (1.0 - after**2)
    expected = (noise + (np.log(100.0) * after) ** 2).mean()
    np.testing.assert_allclose(values(table, "odds_mse_expected", "log_ratio"), expected, rtol=1e-9)
    told = agreement(summarise(table))
    assert told.pairs == 7
    assert told.beyond == 0, told
    assert "Closed forms and simulation: 0 of 7 means" in said


def test_nothing_is_claimed_of_what_is_not_linear_or_not_gaussian() -> None:
    for estimator, stream in (
        (RunningMedian(5), WALK),
        (EMA(0.9), replace(WALK, gap_rate=0.05)),
        (EMA(0.9), replace(WALK, degrees_of_freedom=4.0)),
    ):
        _, table, said = made({"own": estimator}, stream, seeds=2)
        assert not table["metric"].astype(str).str.endswith("_expected").any()
        assert (table.loc[table["metric"] == "weight_rmse", "status"] == "ok").all()
        assert "No closed form is compared" in said


# --- what is said -----------------------------------------------------------------------------------------


def told(setup: Setup, table: pd.DataFrame) -> str:
    stream: Any = setup.stream
    grid, every = points(stream, setup.parameters), ways(setup.parameters.noise_shares)
    found = Findings(setup, grid, every, table, summarise(table))
    return " ".join(text(found).split())


def test_conclusions_follow_from_the_figures() -> None:
    setup, table, _ = made({"ema": EMA(0.9)}, seeds=6)
    said = told(setup, table)
    assert "Level walk: at all points the weight errs more than by the log ratio by: ratio; " in said
    assert "1 at every ratio and noise: log ratio." in said
    way = table["parameters"].astype(str).str.split(" ").str[0]
    metric = table["metric"].astype(str)
    baseline = table.loc[(way == "way=log_ratio") & (metric == "weight_rmse"), "value"].to_numpy()

    def with_ratio(numbers: Any) -> str:
        changed = table.copy()
        changed.loc[(way == "way=ratio") & (metric == "weight_rmse"), "value"] = numbers
        return told(setup, changed)

    better = with_ratio(0.5 * baseline)
    assert "Less somewhere by: ratio, at 2 of 2 (ratio 1, 100)" in better
    assert "| ratio | after the mean | walk | 2 | 0 | 0 | 0 | 0.50 | 0.50 |" in better
    assert "Level walk: at all points the weight errs more than by the log ratio by: ratio;" not in better
    assert "Level walk, tuned: at all points the weight errs more than by the log ratio by: ratio;" in better
    tied = with_ratio(baseline * (1.0 + 1e-7))
    assert "| ratio | after the mean | walk | 0 | 0 | 2 | 0 | 1.00 | 1.00 |" in tied
    noisy = with_ratio(baseline * np.resize([0.5, 1.5], baseline.size))
    assert "| ratio | after the mean | walk | 0 | 0 | 0 | 2 |" in noisy


def test_what_a_floor_leaves_follows_from_the_figures() -> None:
    setup, table, _ = made({"ema": EMA(0.9)})
    said = told(setup, table)
    assert "ratio 100: it binds in all samples of all ways, and the worst RMSE of any is " in said
    metric, stream = table["metric"].astype(str), table["stream"].astype(str)
    changed = table.copy()
    changed.loc[(metric == "floor_share") & stream.str.endswith("ratio 100"), "value"] = 50.0
    said = told(setup, changed)
    assert "At none of the ratios does the floor of 0.05 bind in all samples of all ways." in said
    assert "ratio 100, where the true weight is below it: it binds in 50 % of the samples" in said
    without = made({"ema": EMA(0.9)}, floor=0.0)
    assert "floor" not in without[2]
    assert not without[1]["metric"].astype(str).str.startswith("floor").any()


def test_estimators_that_tie_are_said_to_tie() -> None:
    kalman = Kalman.from_beta(0.9, r=WALK.r)
    _, _, said = made({"kalman": kalman, "debiased": DebiasedEMA(0.9), "median": RunningMedian(5)}, seeds=8)
    said = " ".join(said.split())
    assert (
        "debiased against kalman, on the log ratio; level walk: tie at 2 of 2 points; level constant: tie at"
        in said
    )
    assert (
        "median against kalman, on the log ratio; level walk: more at 2 of 2 points; level constant: more"
        in said
    )


def test_a_stream_at_rest_has_one_level() -> None:
    _, table, said = made({"ema": EMA(0.9)}, replace(WALK, s=0.0))
    assert table["stream"].astype(str).str.startswith(CONSTANT).all()
    assert "level walk" not in said


# --- tuned ------------------------------------------------------------------------------------------------


def test_each_way_is_tuned_by_as_many_gains_on_streams_that_are_not_evaluated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[tuple[str, float, float]] = []
    error = WayTuner.error

    def counted(self: WayTuner, estimator: Any) -> float:
        found = error(self, estimator)
        tried.append((self.way.key, float(np.exp(self.drawn.level[0, 0])), found))  # type: ignore[index]
        return found

    monkeypatch.setattr(WayTuner, "error", counted)
    _, table, said = made({"ema": EMA(0.9), "kalman": Kalman.from_beta(0.9, r=WALK.r)}, seeds=3)
    keys = [way.key for way in ways([0.8])]
    assert [[key for key, _, _ in tried].count(key) for key in keys] == [2 * BUDGET] * len(keys)
    point = next(p for p in points(WALK, Parameters(ratios=[100.0], log_sds=[1.0])) if not p.still)
    drawn, tuning = draw(point, range(3), 0), draw(point, range(20), 0, "tune")
    for one, other in ((drawn.log_ratio, tuning.log_ratio), (drawn.shared, tuning.shared)):
        assert not np.isin(one, other).any()

    def errors(way: Any, streams: Any, gain: float, every: int) -> Any:
        means = [np.asarray(EMA.from_noise_gain(gain).filter(one).mean) for one in way.seen(*streams)]
        off = weight_of(way.log_odds(means)) / weight_of(-streams.level) - 1.0
        return np.sqrt((off[100::every] ** 2).mean(axis=0))

    for way in ways([0.8]):
        (gain,) = values(table, "tuned_noise_gain", way.key, "walk")
        own = values(table, "tuned_weight_rmse", way.key, "walk")
        np.testing.assert_allclose(own, 100.0 * errors(way, drawn, gain, 1), rtol=1e-9)
        grid = np.geomspace(0.98, 0.01, 60)
        best = min(errors(way, tuning, one, EVERY).mean() for one in grid)
        assert errors(way, tuning, gain, EVERY).mean() <= 1.001 * best
    assert not values(table, "tuned_weight_rmse", "ratio", CONSTANT).size
    assert set(table.loc[table["metric"] == "tuned_weight_rmse", "estimator"]) == {"ema"}
    said = " ".join(said.split())
    assert (
        "ema, level walk; tuned: 49 noise gains each, on 20 streams of other seeds, 400 samples each" in said
    )


def test_what_tuning_leaves_follows_from_the_figures() -> None:
    setup, table, _ = made({"ema": EMA(0.9)}, seeds=6)
    way = table["parameters"].astype(str).str.split(" ").str[0]
    metric, ratio = table["metric"].astype(str), table["stream"].astype(str).str.endswith("ratio 100")
    tuned, gains = metric == "tuned_weight_rmse", metric == "tuned_noise_gain"
    changed = table.copy()
    changed.loc[tuned, "value"] = 10.0 + changed.loc[tuned, "seed"]
    changed.loc[tuned & (way == "way=ratio"), "value"] = 2.0
    changed.loc[tuned & (way == "way=weight") & ratio, "value"] *= 3.0
    changed.loc[gains, "value"] = 1.0 / 19.0
    changed.loc[(metric == "tuned_edge"), "value"] = 0.0
    changed.loc[(metric == "tuned_edge") & (way == "way=weight"), "value"] = 1.0
    said = told(setup, changed)
    assert "Level walk, tuned: at all points the weight errs more than by the log ratio by: none." in said
    assert "Less somewhere by: ratio, at 2 of 2 (ratio 1, 100)." in said
    assert "; tuned 3.00 (weight, ratio 100, sd 1)." in said
    assert "| ratio | after the mean | walk, tuned | 2 | 0 | 0 | 0 | 0.16 | 0.16 |" in said
    assert "| weight | before the mean | walk, tuned | 0 | 1 | 1 | 0 | 1.00 | 3.00 |" in said
    assert "Beta chosen, from least to largest over the points: log ratio 0.900 to 0.900; ratio 0.900" in said
    assert "At the edge of the noise gains tried, of 2 points: weight at 2; a best one may lie" in said
    assert "| 1 | weight | 0.9000! | 0.9000! |" in said
    changed.loc[metric == "tuned_edge", "value"] = 0.0
    assert "At the edge of the noise gains tried" not in told(setup, changed)


def test_an_estimator_without_a_noise_gain_to_choose_is_left_out_with_the_reason() -> None:
    _, table, said = made({"odd": RunningMedian(31), "ema": EMA(0.9)})
    assert not table["metric"].astype(str).str.startswith("tuned").any()
    said = " ".join(said.split())
    assert "No way is tuned, for the first estimator cannot be: estimators.odd: RunningMedian cannot" in said
    assert "tuned |" not in said
    assert "Beta chosen" not in said


# --- the text ---------------------------------------------------------------------------------------------


def test_the_text_says_what_its_numbers_and_marks_are() -> None:
    estimators = {"ema": EMA(0.9), "kalman": Kalman.from_beta(0.9, r=WALK.r)}
    said = " ".join(made(estimators, noise_shares=[0.25])[2].split())
    assert "Settings as given, tuned only where it is said: ema beta=0.9; kalman q=0.01995 r=1.796." in said
    assert "Level walk: the log of the median ratio is a random walk of q/r = 0.000101," in said
    assert "the larger has such a share (noise 0.25) of the variance of the log ratio's noise, the" in said
    assert "| 1/norms, noise 0.25 |" in said
    assert "= a tie: that interval lies within a thousandth of the log ratio's value." in said
    # 4 ways beside the log ratio, at 2 ratios, on a constant level and the walk, and on the walk tuned
    assert "24 intervals, not corrected for their number: where nothing differs, 1 in 20 excludes 0" in said
    assert "by chance, 1.2 of so many" in said


def test_tables_of_many_digits_are_no_wider_than_the_page() -> None:
    ratios = [1.0, 10.0, 100.0, 1000.0, 10000.0]
    estimators = {f"estimator_{i}_of_a_long_name": EMA(0.99) for i in range(5)}
    _, _, said = made(estimators, seeds=40, ratios=ratios, log_sds=[1.4], noise_shares=[0.5, 0.8])
    assert max(map(len, said.splitlines())) <= 110


def test_of_other_estimators_only_what_is_read_is_kept() -> None:
    _, table, said = made({"ema": EMA(0.9), "debiased": DebiasedEMA(0.9)})
    closed = {"odds_bias", "odds_mse", "weight_factor", "smoothed_mean"}
    assert set(table.loc[table["estimator"] == "debiased", "metric"].astype(str)) == {
        "odds_rmse",
        "odds_apart",
    } | closed | {f"{one}_expected" for one in closed}
    assert not values(table, "smoothed_mean", "ratio", ratio=100.0).size
    for metric in ("weight_factor", "odds_bias", "odds_mse", "smoothed_mean"):
        rows = table[
            table["metric"].isin([metric, f"{metric}_expected"]) & (table["estimator"] == "debiased")
        ]
        counts = rows.groupby(["stream", "parameters"], observed=True)["metric"].nunique()
        assert (counts == 2).all()
    assert "means lie more than 3 standard errors" in said


# --- the command line -------------------------------------------------------------------------------------

SMALL = (
    "experiment=domain",
    "seeds=2",
    "stream.steps=300",
    "experiment.ratios=[1,100]",
    "experiment.log_sds=[0.65]",
    "experiment.noise_shares=[0.8]",
    "estimators=[ema,kalman]",
)


@pytest.mark.slow
def test_the_same_command_gives_the_same_bytes_and_more_seeds_begin_with_them(kalmean: Any) -> None:
    one, other = (kalmean(*SMALL, output=output) for output in ("one", "two"))
    names = "table.csv", "summary.csv", "summary.md"
    assert [(one.folder / n).read_bytes() for n in names] == [(other.folder / n).read_bytes() for n in names]
    more = kalmean(*SMALL, "seeds=3", output="three").table
    begun = more[more["seed"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(begun, one.table, check_exact=True)
    assert max(map(len, (one.folder / "summary.md").read_text(encoding="utf-8").splitlines())) <= 110


@pytest.mark.slow
def test_the_default_as_drawn(kalmean: Any) -> None:
    ran = kalmean("experiment=domain", "seeds=3", "stream.steps=2000")
    assert sorted(path.name for path in (ran.folder / "figures").iterdir()) == ["bias.png", "error.png"]
    lines = (ran.folder / "summary.md").read_text(encoding="utf-8").splitlines()
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("ratios", [0.5], "a list of numbers from 1 to 1e9 that differ when written with six digits"),
        ("ratios", [], "a list of numbers from 1 to 1e9 that differ when written with six digits"),
        (
            "ratios",
            [10.0, 10.0000001],
            "a list of numbers from 1 to 1e9 that differ when written with six digits",
        ),
        (
            "noise_shares",
            [0.5, 0.50000001],
            "a list of numbers from 0 to 1 that differ when written with six digits",
        ),
        (
            "log_sds",
            [1.0, 1.0000001],
            "a list of numbers from 0.001 to 5 that differ when written with six digits",
        ),
        ("log_sds", [1.0, 1.0], "a list of numbers from 0.001 to 5 that differ when written with six digits"),
        (
            "noise_shares",
            [float("nan")],
            "a list of numbers from 0 to 1 that differ when written with six digits",
        ),
        ("floor", 0.5, "in [0, 1/2)"),
        ("floor", float("nan"), "in [0, 1/2)"),
    ],
)
def test_parameters_that_are_refused(name: str, value: Any, valid: str) -> None:
    with pytest.raises(ValueError, match="is not valid") as refusal:
        Parameters(**{name: value})
    assert str(refusal.value) == f"experiment.{name}={value} is not valid; it must be {valid}"


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (
            replace(WALK, median=3.0),
            "stream.median=3.0 has no effect in experiment=domain; set experiment.ratios",
        ),
        (replace(WALK, r=1.0), "stream.r=1.0 has no effect in experiment=domain; set experiment.log_sds"),
        (
            replace(WALK, domain=Domain.weight),
            "stream.domain=weight has no effect in experiment=domain, which smooths in all of them",
        ),
        (Step(), "experiment=domain needs a ratio of known level; choose stream=gradient_ratio"),
        (RegimeChange(), "experiment=domain needs a ratio of known level; choose stream=gradient_ratio"),
    ],
)
def test_streams_that_are_refused(stream: Any, message: str) -> None:
    with pytest.raises(ValueError, match="experiment=domain") as refusal:
        made({"ema": EMA(0.9)}, stream)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.floor=0.5", "experiment.floor=0.5 is not valid; it must be in [0, 1/2)"),
        (
            "match=delay",
            "experiment=domain compares ways at the settings given and tunes them itself; leave match and "
            "tune at none",
        ),
        (
            "experiment.ratios=[10,10.0000001]",
            "experiment.ratios=[10.0, 10.0000001] is not valid; it must be a list of numbers from 1 to 1e9 "
            "that differ when written with six digits",
        ),
    ],
)
def test_the_command_line_refuses_in_one_line(
    override: str, message: str, refused: Callable[..., str]
) -> None:
    assert refused("experiment=domain", override) == message
