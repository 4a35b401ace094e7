"""Families of settings, their closed forms and fronts, against oracles; what is printed follows from them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage, RunningMedian, matched
from estimators.bank import KalmanBank
from estimators.trend import Holt
from experiments import tradeoff, tradeoff_families
from experiments.agreement import EXPECTED, agreement
from experiments.cells import Condition, Setting
from experiments.fronts import Candidate, Criterion, beaten, front
from experiments.job import Job
from experiments.plan import Panel, panels
from experiments.sensitivity import expected_rmse
from experiments.settings import Tune, Tuner, at_noise_gain
from experiments.streams import GradientRatio
from experiments.summaries import Rows, long_table, summarise
from experiments.tradeoff import Parameters
from experiments.tradeoff_families import expected_mse, family_of
from experiments.tradeoff_figures import figures, standing
from experiments.tradeoff_report import agreed, blocks_of, legend
from experiments.tradeoff_view import Found

WINDOWS = [3, 4, 9, 19, 39, 99, 199, 399, 999]
SMALL = ["seeds=5", "stream.steps=800", "stream.s=0.01", "experiment.windows=[4,9,19,99]", "burn_in=200"]


def condition(stream: Any, burn_in: int, windows: Sequence[int] = (4, 9)) -> Condition:
    return Condition(tradeoff.measure, Parameters([*windows]), stream, 1.0, 0, burn_in)


def computed(*overrides: str) -> tuple[list[Panel], pd.DataFrame]:
    """Panels and the long table of their cells, without a store."""
    job = Job.of(["experiment=tradeoff", *overrides])
    found = panels(job.points, tradeoff.measure, None)  # type: ignore[arg-type]
    rows = [
        Rows(
            *(panel.stream, name, parameters),
            tradeoff.measure(panel.condition, row.estimator, range(panel.repetitions)),
        )
        for panel in found
        for (name, parameters), row in panel.rows.items()
    ]
    return found, long_table("tradeoff", rows)


@pytest.fixture(scope="module")
def small() -> tuple[list[Panel], pd.DataFrame]:
    return computed(*SMALL, "estimators.ema.beta=0.9")


def values(table: pd.DataFrame, metric: str, estimator: str) -> Any:
    return table[(table["metric"] == metric) & (table["estimator"] == estimator)]["value"].to_numpy()


def scaled(table: pd.DataFrame, estimator: str, metric: str, factor: float) -> pd.DataFrame:
    """The same table with made-up values of one estimator's metric, wherever it was measured."""
    changed = table.copy()
    own = (changed["estimator"] == estimator) & changed["metric"].astype(str).str.startswith(f"{metric}@")
    assert own.any()
    changed.loc[own, "value"] *= factor
    return changed


def text_of(found: list[Panel], table: pd.DataFrame) -> str:
    return "\n\n".join(blocks_of(Found(found[0], summarise(table))))


# --- closed forms -------------------------------------------------------------------------------------------

LINEAR = [
    EMA(0.9),
    EMA(0.5, initial=None),
    EMA(0.98, initial=3.0),
    DebiasedEMA(0.95),
    Kalman(q=0.02, r=1.0),
    Kalman(q=0.02, r=1.0, mean=1.0, variance=0.5),
    MovingAverage(7),
    MovingAverage(50),
]


@pytest.mark.parametrize("burn_in", [0, 10])
@pytest.mark.parametrize("estimator", LINEAR, ids=str)
def test_the_expected_error_is_that_of_the_weights_start_included(estimator: Any, burn_in: int) -> None:
    steps, stream = 40, GradientRatio(steps=40, r=1.7, s=0.03, median=2.5)
    offset = np.asarray(estimator.filter(np.zeros(steps)).mean)  # what is there without any sample
    weights = np.asarray(estimator.filter(np.eye(steps)).mean) - offset[:, np.newaxis]
    noise = stream.r * (weights**2).sum(axis=1)
    # The level is the start plus all of the walk's steps so far; what the weights make of it, less itself.
    signal = (weights - np.eye(steps)) @ np.tril(np.ones((steps, steps)))
    start = np.log(stream.median)
    bias = offset + weights.sum(axis=1) * start - start
    mse = noise + stream.s * stream.r * (signal**2).sum(axis=1) + bias**2
    found = expected_mse(estimator, condition(stream, burn_in))
    assert found == pytest.approx(mse[burn_in:].mean(), rel=1e-11)


@pytest.mark.parametrize(
    ("s", "best", "window", "of_window"),
    [
        (1e-4, 0.009950124999, 173, 0.01149710983),
        (1e-3, 0.03112672920, 55, 0.03601818182),
        (1e-2, 0.09512492197, 17, 0.1105882353),
        (1.0, 0.6180339887, 2, 0.75),
    ],
)
def test_once_settled_the_expected_errors_are_those_of_the_literature(
    s: float, best: float, window: int, of_window: float
) -> None:
    settled = condition(GradientRatio(steps=6000, r=1.0, s=s), 5000)
    assert expected_mse(Kalman(q=s, r=1.0), settled) == pytest.approx(best, rel=1e-8)
    assert expected_mse(matched(EMA, Kalman(q=s, r=1.0)), settled) == pytest.approx(best, rel=1e-8)
    assert expected_mse(MovingAverage(window), settled) == pytest.approx(of_window, rel=1e-9)
    for estimator in (EMA(0.9), MovingAverage(19)):
        expected = expected_rmse(estimator, settled.stream) ** 2  # type: ignore[arg-type]
        assert expected_mse(estimator, settled) == pytest.approx(expected, rel=1e-9)


def test_no_closed_form_is_claimed_for_what_has_none() -> None:
    plain = GradientRatio(steps=100)
    assert expected_mse(EMA(0.9), condition(plain, 10)) is not None
    for estimator in (RunningMedian(9), KalmanBank(), Holt(0.1, 0.01)):
        assert expected_mse(estimator, condition(plain, 10)) is None
    for changed in ({"gap_rate": 0.1}, {"jump_rate": 0.1}, {"domain": "ratio"}, {"correlation": 0.5}):
        assert expected_mse(EMA(0.9), condition(replace(plain, **changed), 10)) is None  # type: ignore[arg-type]


@pytest.mark.slow
def test_simulated_errors_agree_with_the_closed_forms() -> None:
    found, table = computed(
        *("seeds=60", "stream.steps=600", "stream.s=0.01", "stream.median=1000", "burn_in=20"),
        "experiment.windows=[3,19,99]",
        "estimators=[ema,debiased_ema,kalman,moving_average]",
    )
    told = agreement(summarise(table))
    assert told.pairs == 12
    assert told.beyond == 0, told.furthest
    # At a burn-in of 20 the start counts: the settled closed form would be far off.
    window = values(table, "mse@noise_99", "ema")
    settled = expected_rmse(EMA(0.98), found[0].setup.stream) ** 2  # type: ignore[arg-type]
    assert abs(window.mean() - settled) > 5.0 * window.std(ddof=1) / np.sqrt(window.size)


# --- families -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
def test_whole_windows_make_exact_ties(window: int) -> None:
    ema, average = family_of(EMA(0.5), [window]), family_of(MovingAverage(7), [window])
    noise, lag = f"noise_{window}", f"lag_{window}"
    assert ema[noise].beta == pytest.approx((window - 1) / (window + 1), rel=1e-12)  # type: ignore[attr-defined]
    assert average[noise] == MovingAverage(window)
    for family in (ema, average, family_of(Kalman(q=1.0, r=2.0), [window])):
        assert family[noise] is family[lag]  # equal noise is equal lag
        setting: Any = family[noise]
        assert setting.noise_gain == pytest.approx(1.0 / window, rel=1e-9)
        assert setting.group_delay == pytest.approx((window - 1) / 2, rel=1e-9)


def test_other_parameters_stay_and_kinds_without_closed_forms_have_no_family() -> None:
    kalman: Any = family_of(Kalman(q=1.0, r=2.0, mean=3.0, variance=4.0), [9])["noise_9"]
    assert (kalman.r, kalman.mean, kalman.variance) == (2.0, 3.0, 4.0)
    for point in (RunningMedian(9), KalmanBank(), Holt(0.1, 0.01)):
        assert family_of(point, WINDOWS) == {}


@dataclass(frozen=True)
class Tardy(EMA):
    """A third party's kind, of which equal noise is not equal lag: it keeps twice the samples for a lag."""

    @classmethod
    def from_group_delay(cls, group_delay: Any, **parameters: Any) -> Tardy:
        own: Tardy = super().from_group_delay(2.0 * group_delay, **parameters)
        return own


def test_where_equal_noise_is_not_equal_lag_both_are_shown() -> None:
    setup = Job.of(["experiment=tradeoff", *SMALL, "estimators=[ema]", "estimators.ema.beta=0.9"]).setup
    rows = {("ema", "beta=0.9"): Setting(EMA(0.9)), ("tardy", "beta=0.9"): Setting(Tardy(0.9))}
    panel = Panel("walk", setup, setup.condition(tradeoff.measure), {}, rows)
    cells = [
        Rows("walk", *key, tradeoff.measure(panel.condition, row.estimator, range(5)))
        for key, row in rows.items()
    ]
    text = "\n\n".join(blocks_of(Found(panel, summarise(long_table("tradeoff", cells)))))
    assert "Equal noise, a noise gain of 1/19:" in text
    assert cells_of(text, "Equal noise, a", "tardy")[1:4] == ["beta=0.9", "12.79 ==", "9 =="]
    assert cells_of(text, "Equal lag, 9 samples:", "tardy")[1:4] == ["beta=0.9474", "15.68", "18"]
    assert "choose the same setting at 0 of 4 windows: tardy." in text


def test_the_shipped_windows_and_estimators() -> None:
    setup = Job.of(["experiment=tradeoff"]).setup
    assert setup.parameters.windows == WINDOWS
    assert list(setup.estimators) == [
        *("ema", "debiased_ema", "kalman", "moving_average", "running_median", "holt", "kalman_bank")
    ]


# --- fronts -------------------------------------------------------------------------------------------------

TWO = (Criterion("gain", "more", margin=0.5), Criterion("cost", "less", share=0.01))
POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


def candidate(gain: float, cost: float, half: float = 0.0) -> Candidate:
    return Candidate(("x",), {"gain": gain, "cost": cost}, {"gain": half})


@settings(deadline=None, max_examples=100)
@given(POINTS)
def test_the_front_is_what_no_other_beats(points: list[tuple[int, int]]) -> None:
    candidates = [candidate(*map(float, point)) for point in points]
    for (gain, cost), way in zip(points, front(candidates, TWO), strict=True):
        better = [(g, c) for g, c in points if g >= gain and c <= cost and (g, c) != (gain, cost)]
        assert (way is None) == (not better)
        if way is not None:
            by = way.by.values["gain"], way.by.values["cost"]
            assert by in better
            assert way.better == tuple(
                name for name, is_so in (("gain", by[0] > gain), ("cost", by[1] < cost)) if is_so
            )


def test_ties_stay_on_the_front_and_a_tie_has_margins() -> None:
    same = [candidate(3.0, 3.0), candidate(3.0, 3.0)]
    assert front(same, TWO) == [None, None]
    assert beaten(candidate(3.0, 3.0), candidate(3.5, 3.0), TWO) == ()  # within the margin
    assert beaten(candidate(3.0, 3.0), candidate(3.6, 3.0), TWO) == ("gain",)
    assert beaten(candidate(3.0, 3.0), candidate(3.6, 3.03), TWO) == ("gain",)  # costs no more than ties
    assert beaten(candidate(3.0, 3.0), candidate(3.6, 3.1), TWO) == ()
    assert beaten(candidate(3.0, 3.0, half=1.0), candidate(3.6, 3.0), TWO) == ()  # may be chance


# --- cells --------------------------------------------------------------------------------------------------


def test_cells_are_those_of_the_settings_they_name(small: tuple[list[Panel], pd.DataFrame]) -> None:
    (panel,), table = small
    drawn = panel.condition.draw(range(5))
    assert drawn.level is not None
    for name, setting in (("ema", EMA(0.9)), ("moving_average", MovingAverage(19))):
        error = np.asarray(setting.filter(drawn.samples).mean) - drawn.level
        expected = np.sqrt((error[200:] ** 2).mean(axis=0))
        for place in ("noise_19", "lag_19"):
            assert values(table, f"rmse@{place}", name) == pytest.approx(expected, rel=1e-9)
            assert values(table, f"lag@{place}", name) == pytest.approx(np.full(5, 9.0), rel=1e-6)
        assert values(table, "noise_gain@noise_19", name) == pytest.approx(np.full(5, 1 / 19), rel=1e-9)
    assert set(values(table, "settling@noise_19", "ema")) == {29.0}
    assert set(values(table, "settling@noise_19", "moving_average")) == {19.0}
    assert set(values(table, "state_bytes@noise_19", "moving_average")) == {8.0 * 19}
    assert not any(str(metric).startswith("rmse@noise") for metric in own_metrics(table, "kalman_bank"))


def own_metrics(table: pd.DataFrame, estimator: str) -> set[str]:
    return {*table[table["estimator"] == estimator]["metric"].astype(str)}


def test_tuning_is_on_other_seeds_and_evaluated_on_these(small: tuple[list[Panel], pd.DataFrame]) -> None:
    (panel,), table = small
    of = panel.condition
    gain, _ = Tuner.on(of.stream, Tune.rmse, of.root_seed, of.burn_in).best(EMA(0.99))
    assert values(table, "noise_gain@tuned", "ema") == pytest.approx(np.full(5, gain), rel=1e-9)
    drawn = of.draw(range(5))
    assert drawn.level is not None
    best: Any = at_noise_gain(EMA(0.99), gain)
    error = np.asarray(best.filter(drawn.samples).mean) - drawn.level
    expected = np.sqrt((error[200:] ** 2).mean(axis=0))
    assert values(table, "rmse@tuned", "ema") == pytest.approx(expected, rel=1e-12)


def test_cells_are_the_same_one_by_one(small: tuple[list[Panel], pd.DataFrame]) -> None:
    (panel,), table = small
    tradeoff_families._best.cache_clear()
    for name in ("kalman", "running_median"):
        row = next(row for (own, _), row in panel.rows.items() if own == name)
        for one in tradeoff.measure(panel.condition, row.estimator, [3]):
            np.testing.assert_array_equal(one.values[0], values(table, one.metric, name)[3])


# --- what is printed ----------------------------------------------------------------------------------------


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def cells_of(text: str, after: str, label: str) -> list[str]:
    """The cells of an estimator's line in the table that follows a title."""
    line = line_of(text[text.index(after) :], f"| {label} ")
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ties_are_said_to_be_ties(small: tuple[list[Panel], pd.DataFrame]) -> None:
    text = text_of(*small)
    assert "which is equal lag: both choose these settings" in text
    # The window ties in noise and lag at all windows, in settling, memory and error at none.
    assert cells_of(text, "Ties with ema", "moving_average")[1:5] == ["3 ==, 1 =", "3 ==, 1 =", "0", "0"]
    assert cells_of(text, "Ties with ema", "kalman")[1:] == [
        "3 ==, 1 =",
        "3 ==, 1 =",
        "4 ==",
        "0",
        "3 ==",
    ]
    assert "an EMA keeps so much of its start: 1.8 % at 99." in text  # where it does not tie
    assert cells_of(text, "| RMSE, and over ema", "kalman") == [
        "kalman",
        "exact tie",
        "exact tie",
        "exact tie",
    ]
    assert "Equal noise, a noise gain of 1/19, " in text  # that of the first as it was named
    assert cells_of(text, "| RMSE, and over ema", "holt")[1:3] == ["no family", "no family"]
    line = line_of(text, "Equal noise and equal lag")
    assert line.endswith("the same setting at 4 of 4 windows: debiased_ema, kalman, moving_average.")


@pytest.mark.parametrize(
    ("factors", "mark", "said"),
    [
        ([1 + 1e-11] * 5, "==", "exact tie"),
        ([1 + 1e-6] * 5, "=", "tie"),
        ([1, 1, 1, 1, 1 + 1e-7], "=", "tie"),  # all pairs have to be equal
        ([1 + 1e-8, 1 - 1e-8, 1, 1, 1], "=", "tie"),  # the mean is not all
        ([1.1] * 5, "", "+10 %"),
    ],
)
def test_a_tie_is_exact_where_every_pair_is(
    small: tuple[list[Panel], pd.DataFrame], factors: list[float], mark: str, said: str
) -> None:
    found, table = small
    made = table.copy()
    first, own = (
        (made["metric"] == "rmse@noise_19") & (made["estimator"] == name) for name in ("ema", "kalman")
    )
    made.loc[own, "value"] = made.loc[first, "value"].to_numpy() * np.array(factors)
    view = Found(found[0], summarise(made))
    assert view.tie("kalman", view.error, "noise_19") == mark
    assert view.compared("kalman", "noise_19").startswith(said)
    assert {"== exact", "= within"} <= {*re.findall("==? (?:exact|within)", "\n".join(blocks_of(view)))}
    assert "==, exact tie: as ema, to 1e-09 of the value on every stream. =, tie: not" in legend([view])


def test_closed_forms_are_compared_at_windows_and_not_at_what_was_named(
    small: tuple[list[Panel], pd.DataFrame],
) -> None:
    summary = summarise(small[1])
    told, plain = agreed(summary), agreement(summary)
    assert (told.pairs, told.beyond) == (plain.pairs, plain.beyond) == (16, plain.beyond)
    named = rf"mse@noise_(\d+) (\w+) \S+ {small[0][0].stream}, by (.*)"
    (window, name, away), *_ = re.findall(named, plain.furthest)
    assert told.furthest == f"mse {name} at window {window} {small[0][0].stream}, by {away}"


def test_closed_forms_are_told_apart_where_a_name_stands_for_several_settings() -> None:
    row = {"stream": "walk", "estimator": "ema", "n": 4, "high": 1.1}
    rows = [
        {**row, "parameters": f"beta={beta}", "metric": f"mse@noise_3{end}", "mean": mean}
        for beta, mean in ((0.9, 1.0), (0.8, 1.01))
        for end in ("", EXPECTED)
    ]
    rows[3]["mean"] = 1.5
    told = agreed(pd.DataFrame(rows))
    assert (told.pairs, told.beyond) == (2, 1)
    assert told.furthest.startswith("mse ema (named beta=0.8) at window 3 walk, by ")


def test_a_first_estimator_without_an_error_is_not_divided_by() -> None:
    found, table = computed(
        *("seeds=2", "stream.steps=400", "stream.r=0", "burn_in=300", "experiment.windows=[4,9]"),
        "estimators=[ema,moving_average,kalman]",
    )
    assert values(table, "rmse@noise_4", "ema").max() < 1e-9
    report = tradeoff.report(found, summarise(table))
    for label in ("moving_average", "kalman"):
        cells = cells_of(report.text, "| RMSE, and over ema", label)[1:]
        assert {*cells} <= {"-", "exact tie"}
    assert "No closed form is compared" in report.text  # of what is rounding


def test_marks_say_how_settings_stand_and_axes_can_be_read(small: tuple[list[Panel], pd.DataFrame]) -> None:
    found = Found(small[0][0], summarise(small[1]))
    of = standing(found)
    assert {fill for (name, _), fill in of.items() if name == "ema"} == {"full"}
    assert {fill for (name, _), fill in of.items() if name == "moving_average"} == {"left"}
    assert {fill for (name, _), fill in of.items() if name == "kalman"} == {"none"}
    drawn = figures([found])
    panels_ = drawn["fronts"].axes
    assert [axis.get_xlabel().partition(" ")[0] for axis in panels_] == ["lag", "state", "settling,"]
    for axis in panels_:  # the windows' settings are half filled
        styles = {mark.get_fillstyle() for mark in axis.lines if mark.get_marker() == "^"}
        assert styles == {"left"}
    assert min(mark.get_markersize() for axis in panels_ for mark in axis.lines) >= 5.0
    low, high = drawn["error"].axes[0].get_ylim()
    assert sum(low <= tick <= high for tick in drawn["error"].axes[0].get_yticks()) >= 3


def test_what_beats_whom_follows_from_the_numbers(small: tuple[list[Panel], pd.DataFrame]) -> None:
    found, table = small
    three, four = (
        "Front of attenuation, lag and memory;",
        "Front of attenuation, lag and memory, and of settling",
    )
    text = text_of(found, table)
    assert cells_of(text, three, "ema") == ["ema", "4", "4", "-"]
    assert cells_of(text, three, "moving_average") == ["moving_average", "4", "0", "4 by ema (memory)"]
    assert cells_of(text, three, "kalman") == ["kalman", "4", "0", "4 by ema (memory)"]
    assert cells_of(text, four, "moving_average") == ["moving_average", "4", "4", "-"]
    assert "brings onto the front: moving_average (0 to 4 settings)." in text
    # A window that needs no more memory ties; one that settles as late has nothing to offer.
    light = scaled(table, "moving_average", "state_bytes", 1e-3)
    assert cells_of(text_of(found, light), three, "moving_average") == ["moving_average", "4", "4", "-"]
    assert "brings onto the front: no further setting." in text_of(
        found, scaled(table, "moving_average", "settling", 10.0)
    )
    late = table
    for name in ("ema", "debiased_ema", "kalman"):
        late = scaled(late, name, "lag", 1.5)
    assert cells_of(text_of(found, late), three, "moving_average")[2] == "4"


def test_the_errors_and_their_verdicts_follow_from_the_numbers(
    small: tuple[list[Panel], pd.DataFrame],
) -> None:
    found, table = small
    own = Found(found[0], summarise(table))
    rmse = {name: values(table, "rmse@tuned", name) for name in ("ema", "moving_average")}
    ratio = rmse["moving_average"].mean() / rmse["ema"].mean()
    percent, half = own.over_first("moving_average", "rmse", "tuned")
    assert percent == pytest.approx(100.0 * (ratio - 1.0), rel=1e-12)
    # The delta method: the ratio's error is that of the mean of x - R y, over the mean of y.
    left = rmse["moving_average"] - ratio * rmse["ema"]
    expected = 2.7764451 * left.std(ddof=1) / np.sqrt(5) / rmse["ema"].mean()
    assert half == pytest.approx(100.0 * expected, rel=1e-6)
    better = scaled(table, "moving_average", "rmse", 0.5)
    line = line_of(text_of(found, better), "- moving_average (window=")
    shown = re.search(r": (\S+) ± \S+ % in RMSE", line)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(100.0 * (0.5 * ratio - 1.0), abs=0.06)
    same = table.copy()
    chosen = [same["metric"].astype(str).str.startswith("rmse@tuned") & (same["estimator"] == name)
              for name in ("moving_average", "ema")]  # fmt: skip
    same.loc[chosen[0], "value"] = same.loc[chosen[1], "value"].to_numpy()
    assert line_of(text_of(found, same), "- moving_average (window=").endswith(": exact tie in RMSE")


def test_the_closed_form_of_each_at_its_best_stands_beside_the_error(
    small: tuple[list[Panel], pd.DataFrame],
) -> None:
    found, table = small
    line = line_of(text_of(found, table), "- moving_average (window=")
    own, first = (
        expected_mse(at_noise_gain(kind, values(table, "noise_gain@tuned", name)[0]), found[0].condition)
        for kind, name in ((MovingAverage(9), "moving_average"), (EMA(0.9), "ema"))
    )
    assert own is not None
    assert first is not None
    assert f"({100.0 * (own / first - 1.0):+.2f} % in closed form)" in line


@pytest.mark.slow
def test_any_first_estimator_will_do() -> None:
    for names in ("kalman_bank,ema", "moving_average,ema", "running_median"):
        found, table = computed(*SMALL, "seeds=2", "experiment.windows=[4,9]", f"estimators=[{names}]")
        report = tradeoff.report(found, summarise(table))
        first = names.partition(",")[0]
        assert f"over {first}" in report.text
        assert max(map(len, report.text.splitlines())) <= 110
        assert ("Ties with" in report.text) == (first == "moving_average")
        assert ("Whole families" in report.text) == ("," in names)


# --- from the command line ----------------------------------------------------------------------------------


def recorded(folder: Path, steps: int = 400) -> Path:
    generator = np.random.default_rng(5)
    level = np.cumsum(0.05 * generator.standard_normal(steps))
    ratio = np.exp(level + 0.7 * generator.standard_normal(steps))
    pd.DataFrame({"step": np.arange(steps), "ratio": ratio}).to_csv(folder / "log.csv", index=False)
    return folder / "log.csv"


DOCUMENTED = [
    "experiment=tradeoff",
    "stream=recorded",
    "stream.column=ratio",
    "seeds=200",
    "estimators=[ema,kalman]",
]


def test_the_documented_command_on_a_log_of_ones_own(kalmean: Any, tmp_path: Path) -> None:
    command = [*DOCUMENTED, f"stream.path={recorded(tmp_path)}"]
    ran = kalmean(*command)
    table = ran.table
    assert {*table["estimator"]} == {"ema", "kalman"}
    metrics = {str(metric).partition("@")[0] for metric in table["metric"]}
    assert {"implied_attenuation_db", "mean_age", "prediction_rmse", "state_bytes", "settling"} <= metrics
    assert not metrics & {"rmse", "mse", "lag", "attenuation_db"}
    samples = np.log(pd.read_csv(tmp_path / "log.csv")["ratio"].to_numpy())
    innovation = samples[1:] - np.asarray(EMA(0.9).filter(samples).mean)[:-1]
    expected = np.sqrt((innovation[199:] ** 2).mean())
    assert ran.values("prediction_rmse@noise_19", "ema")[0] == pytest.approx(expected, rel=1e-9)
    # Tuned on the first half, judged, as all places are, on the second.
    gain = ran.values("noise_gain@tuned", "ema")[0]
    best: Any = at_noise_gain(EMA(0.99), gain)
    half = samples[1:] - np.asarray(best.filter(samples).mean)[:-1]
    expected = np.sqrt((half[199:] ** 2).mean())
    assert ran.values("prediction_rmse@tuned", "ema")[0] == pytest.approx(expected, rel=1e-9)
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert "All values after the first 200 samples, on which settings are tuned." in text
    assert f"After 200 samples an EMA keeps so much of its start: {100.0 * 0.98**200:.2g} % at 99." in text
    assert "Left out, as longer than a quarter of the stream: 199, 399, 999." in text
    assert "on prediction_rmse over the first half of each recording" in text
    assert max(map(len, text.splitlines())) <= 110
    again = kalmean(*command)
    assert "unchanged, from an earlier run" in again.out


def test_the_documented_command_can_be_handed_to_slurm(tmp_path: Path) -> None:
    job = Job.of([*DOCUMENTED, f"stream.path={recorded(tmp_path)}", "executor=slurm", "output=DIR"])
    assert type(job.executor).__name__ == "Slurm"
    assert str(job.output) == "DIR"
    assert list(job.setup.estimators) == ["ema", "kalman"]


@pytest.mark.slow
def test_the_same_command_leaves_the_same_bytes(kalmean: Any) -> None:
    few = [*SMALL, "seeds=3", "estimators=[ema,moving_average,kalman_bank]", "experiment=tradeoff"]
    one, other = kalmean(*few, output="one"), kalmean(*few, output="other")
    files = sorted(path.relative_to(one.folder) for path in one.folder.rglob("*.*"))
    assert {"table.csv", "summary.md", "summary.tex"} <= {path.name for path in files}
    assert {"fronts.png", "error.png"} <= {path.name for path in files}
    for name in (path for path in files if path.name not in ("manifest.json", "config.yaml")):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    assert "equal noise" in (one.folder / "summary.tex").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("match=delay", "matches and tunes itself; leave match and tune at none"),
        ("tune=rmse", "matches and tunes itself; leave match and tune at none"),
        ("experiment.windows=[]", "experiment.windows=[] is not valid; it must be"),
        ("experiment.windows=[2501]", "a window must be at most a quarter of the stream's 10000 samples"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(refused: Any, override: str, said: str) -> None:
    assert said in refused("experiment=tradeoff", override)


@pytest.mark.parametrize("windows", [[], [1, 3], [9, 9]])
def test_windows_are_different_whole_numbers_from_two_on(windows: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^experiment\.windows=\[.*\] is not valid; it must be .*>= 2$"):
        Parameters(windows)


def test_a_log_too_short_for_every_window_is_named(kalmean: Any, tmp_path: Path) -> None:
    ran = kalmean(*DOCUMENTED, f"stream.path={recorded(tmp_path, 30)}", "experiment.windows=[9]")
    assert ran.code != 0
    assert "a window must be at most a quarter of the stream's 30 samples" in ran.err
    assert "Traceback" not in ran.err
