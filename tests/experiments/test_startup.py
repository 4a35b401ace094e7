"""Errors of the first samples against closed forms, guesses against debiasing, and what is concluded."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, KalmanBank, MovingAverage
from experiments.agreement import agreement
from experiments.startup import Case, Exact, Parameters, course, exact, set_to
from experiments.startup_guesses import ahead_until, break_even, debiasing_helps, harmless
from experiments.startup_report import conclusions
from experiments.streams import GradientRatio

SMALL = (
    "experiment=startup",
    "seeds=12",
    "experiment.samples=60",
    "experiment.probes=[1,5,60]",
    "experiment.betas=[0.9]",
    "experiment.streams=20",
    "experiment.tasks=[2,3]",
)
BETA = st.floats(0.05, 0.99)


def walk(beta: float) -> float:
    return (1.0 - beta) ** 2 / beta


# --- closed forms -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(beta=BETA, level=st.floats(-10.0, 10.0), r=st.floats(0.1, 10.0))
def test_courses_are_the_closed_forms_that_are_known(beta: float, level: float, r: float) -> None:
    t, g = np.arange(1.0, 61.0), (1.0 - beta) / (1.0 + beta)
    u = beta**t
    zero = course(EMA(beta), level, r, 0.0, 60)
    np.testing.assert_allclose(zero.bias, -u * level, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(zero.variance, r * g * (1.0 - u**2), rtol=1e-9)
    debiased = course(DebiasedEMA(beta), level, r, 0.0, 60)
    np.testing.assert_allclose(debiased.bias, 0.0, atol=1e-12)
    np.testing.assert_allclose(debiased.variance, r * g * (1.0 + u) / (1.0 - u), rtol=1e-9)
    first = course(EMA(beta, initial=None), level, r, 0.0, 60)
    earlier = beta ** (2.0 * (t - 1.0))
    np.testing.assert_allclose(first.mse, r * (earlier + g * (1.0 - earlier)), rtol=1e-9)
    mean = course(Kalman(q=0.0, r=3.0), level, r, 0.0, 60)
    np.testing.assert_allclose(mean.mse, r / t, rtol=1e-9)
    # On its own walk the filter knows its error: r times its gain.
    own = course(Kalman.from_beta(beta, r=r), level, r, r * walk(beta), 60)
    gain = (1.0 - beta) * (1.0 + beta ** (2.0 * t - 1.0)) / (1.0 - u**2)
    np.testing.assert_allclose(own.mse, r * gain, rtol=1e-8)


def test_courses_are_the_reference_values() -> None:
    kalman = course(Kalman.from_beta(0.9), 5.0, 1.0, 1.0 / 90.0, 50).mse
    for t, gain in ((2, 0.5027624309), (5, 0.2130162080), (20, 0.1031672230), (50, 0.1000056076)):
        assert kalman[t - 1] == pytest.approx(gain, abs=1e-10)
    debiased = course(DebiasedEMA(0.9), 5.0, 1.0, 0.0, 50).mse
    for t, variance in ((2, 0.5013850416), (5, 0.2044150326), (10, 0.1089831508), (50, 0.05317689202)):
        assert debiased[t - 1] == pytest.approx(variance, abs=1e-10)


@pytest.mark.parametrize(
    "estimator",
    [EMA(0.9), EMA(0.9, initial=2.0), EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(q=0.0, r=1.0)],
    ids=repr,
)
def test_errors_on_a_walk_follow_the_recursion_of_the_gains(estimator: Any) -> None:
    level, r, q, steps = 1.5, 2.0, 0.03, 300  # more than are formed at a time
    gains = estimator.filter(np.zeros(steps)).gain
    bias, variance = float(np.nan_to_num(estimator.init(0.0).mean)) - level, 0.0
    found = course(estimator, level, r, q, steps)
    for t, gain in enumerate(gains):
        bias, variance = (1.0 - gain) * bias, (1.0 - gain) ** 2 * (variance + q) + gain**2 * r
        assert found.bias[t] == pytest.approx(bias, abs=1e-12)
        assert found.variance[t] == pytest.approx(variance, rel=1e-10)


@pytest.mark.slow
def test_a_full_window_errs_as_the_formula_says() -> None:
    n, s = 17, 0.01
    found = course(MovingAverage(n), 3.0, 1.0, s, 60)
    expected = 1.0 / n + s * (n - 1.0) * (2.0 * n - 1.0) / (6.0 * n)
    np.testing.assert_allclose(found.mse[n - 1 :], expected, rtol=1e-10)
    assert found.mse[n - 2] != pytest.approx(expected, rel=1e-4)


def test_when_errors_have_settled() -> None:
    beta, t = 0.9, np.arange(1.0, 1001.0)
    stream = GradientRatio(steps=100, s=walk(beta), median=2.1)
    kalman = exact(Kalman.from_beta(beta, r=stream.r), stream, 100, 1000)
    gain = (1.0 - beta) * (1.0 + beta ** (2.0 * t - 1.0)) / (1.0 - beta ** (2.0 * t))
    assert kalman.since == 1 + np.count_nonzero(np.sqrt(gain) > 1.05 * np.sqrt(1.0 - beta)) == 15
    assert kalman.settled == pytest.approx(np.sqrt(1.0 - beta), rel=1e-9)
    assert kalman.rmse.size == kalman.bias.size == 100
    constant = replace(stream, s=0.0)
    u = beta**t
    debiased = exact(DebiasedEMA(beta), constant, 100, 1000)
    assert debiased.since == 1 + np.count_nonzero(np.sqrt((1.0 + u) / (1.0 - u)) > 1.05)
    assert debiased.settled == pytest.approx(np.sqrt((1.0 - beta) / (1.0 + beta)), rel=1e-9)
    for on in (stream, constant):
        mean = exact(Kalman(q=0.0, r=1.0), on, 100, 1000)
        assert np.isnan(mean.settled)
        assert np.isnan(mean.since)
    assert np.isnan(exact(DebiasedEMA(0.999), constant, 100, 1000).since)  # not within the horizon


def test_estimators_are_set_to_a_beta_by_what_they_are() -> None:
    assert set_to(EMA(0.5, initial=3.0), 0.9) == EMA(0.9, initial=3.0)
    assert set_to(DebiasedEMA(0.5), 0.9) == DebiasedEMA(0.9)
    kalman: Any = set_to(Kalman(q=1.0, r=7.0), 0.9)
    assert (kalman.r, kalman.steady_beta) == (7.0, pytest.approx(0.9, rel=1e-12))
    assert set_to(MovingAverage(3), 0.9) == MovingAverage(19)
    for unmoved in (Kalman(q=0.0, r=1.0), KalmanBank()):
        assert set_to(unmoved, 0.9) == unmoved


# --- guesses ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(beta=BETA, t=st.integers(1, 40))
def test_at_the_break_even_a_guess_errs_as_the_debiased_one(beta: float, t: int) -> None:
    d = float(break_even(beta, t))
    for distance, sign in ((0.9 * d, -1.0), (1.1 * d, 1.0)):
        guess = course(EMA(beta, initial=distance), 0.0, 1.0, 0.0, t).mse[-1]
        debiased = course(DebiasedEMA(beta), 0.0, 1.0, 0.0, t).mse[-1]
        assert np.sign(guess - debiased) == sign or abs(guess - debiased) < 1e-9 * debiased
    guess = course(EMA(beta, initial=d), 0.0, 1.0, 0.0, t).mse[-1]
    assert guess == pytest.approx(debiased, rel=1e-9)


@settings(deadline=None)
@given(beta=st.floats(0.01, 0.999))
def test_the_least_break_even_is_three_settled_deviations_at_the_half_life(beta: float) -> None:
    half_life = -np.log(2.0) / np.log(beta)
    assert break_even(beta, half_life) == pytest.approx(harmless(beta), rel=1e-9)
    assert harmless(beta) == pytest.approx(3.0 * np.sqrt(EMA(beta).noise_gain), rel=1e-12)
    assert np.all(break_even(beta, half_life * np.geomspace(0.01, 20.0, 99)) >= harmless(beta) * (1 - 1e-9))


@settings(deadline=None)
@given(beta=st.floats(0.1, 0.99), distance=st.floats(0.01, 20.0))
def test_where_debiasing_helps_is_where_it_errs_less(beta: float, distance: float) -> None:
    t = np.arange(1.0, 4000.0)
    t = t[beta**t > 1e-12]
    helps = t[break_even(beta, t) < distance * (1.0 - 1e-9)]
    span = debiasing_helps(beta, distance)
    if helps.size:
        assert span == (helps[0], helps[-1])
    elif span is not None:  # rounding alone
        assert break_even(beta, span[0]) == pytest.approx(distance, rel=1e-6)


@pytest.mark.parametrize(("beta", "last"), [(0.9, 28), (0.99, 302), (0.999, 3043)])
def test_how_long_a_right_guess_is_ahead(beta: float, last: int) -> None:
    t = np.arange(1, 5000)
    ratio = course(DebiasedEMA(beta), 0.0, 1.0, 0.0, 4999).mse / course(EMA(beta), 0.0, 1.0, 0.0, 4999).mse
    np.testing.assert_allclose(np.sqrt(ratio[:50]), 1.0 / (1.0 - beta ** t[:50]), rtol=1e-9)
    found = int(t[np.sqrt(ratio) >= 1.05][-1])
    assert ahead_until(beta) == found
    assert abs(found - last) <= 1


# --- the run ------------------------------------------------------------------------------------------------


def test_a_run_agrees_with_its_closed_forms(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(*SMALL)
    assert (ran.code, ran.err) == (0, "")
    assert set(ran.table["stream"]) == {
        "walk, beta 0.9",
        "constant level, beta 0.9",
        "equal shares of 2",
        "equal shares of 3",
    }
    told = agreement(ran.summary)
    assert told.pairs == 2 * 5 * 6 + 3 + 2 * 3  # moments by row and probe, guesses, two tasks
    assert told.beyond <= 2
    assert str(told) in ran.out
    assert "walk that starts 0.554 noise sd from 0" in " ".join(ran.out.split())
    (settled,) = (
        line.split("|")[1:-1]
        for line in ran.out.splitlines()
        if re.match(r"\| 0.9 +\| ema_zero +\| +\d+ \|", line)
    )
    assert [cell.strip() for cell in settled] == ["0.9", "ema_zero", "15", "33", "19", "36"]
    since = ran.table[ran.table["metric"] == "settled_from_at_3_sd"].set_index(["stream", "estimator"])[
        "value"
    ]
    assert since["walk, beta 0.9", "ema_zero"] == 33
    assert since["walk, beta 0.9", "kalman"] == 15
    even = next(line for line in ran.out.splitlines() if "never worse" in line)
    assert even.endswith("| right one at 1 | debiased +5 % to |")
    assert "running_mean |       - | never |" in ran.out
    assert max(map(len, ran.out.split("Closed forms and")[0].splitlines())) <= 110
    drawn = GradientRatio(steps=60, s=0.0).draw(range(20), 0)
    own = DebiasedEMA(0.9).filter(drawn.samples).mean[4] - drawn.level[4]  # type: ignore[index]
    row = ran.table[
        (ran.table["stream"] == "constant level, beta 0.9")
        & (ran.table["estimator"] == "debiased_ema")
        & (ran.table["metric"] == "mse_at_5")
    ]
    assert row["value"].iloc[0] == pytest.approx(np.mean(own**2) / 1.7956, rel=1e-12)
    for path in ("startup.png", "break_even.png"):
        assert (ran.folder / "figures" / path).stat().st_size > 10_000
    assert "nan" not in ran.out
    again = kalmean(*SMALL, output="again")
    for name in ("table.csv", "summary.md", "figures/startup.png"):
        assert (again.folder / name).read_bytes() == (ran.folder / name).read_bytes()


@pytest.mark.slow
def test_other_estimators_enter_by_name_and_one_repetition_has_no_interval(
    kalmean: Callable[..., Any],
) -> None:
    ran = kalmean(*SMALL, "estimators=[moving_average,kalman_bank]", "seeds=1")
    assert ran.code == 0
    assert re.search(r"\| 0.9 +\| kalman_bank +\| +- \| +- \| [01]\.\d{4} \|", ran.out)
    assert "nan" not in ran.out
    table = ran.table[ran.table["stream"] == "walk, beta 0.9"]
    assert list(table["estimator"].unique())[:2] == ["moving_average", "kalman_bank"]
    assert set(table.loc[table["estimator"] == "moving_average", "parameters"]) == {"window=19"}
    bank = set(table.loc[table["estimator"] == "kalman_bank", "metric"])
    assert not [metric for metric in bank if metric.endswith("_expected")]


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("betas", [1.0], "a list of different numbers in (0, 1), to 6 digits"),
        ("betas", [0.9, 0.9], "a list of different numbers in (0, 1), to 6 digits"),
        ("betas", [0.99999999], "a list of different numbers in (0, 1), to 6 digits"),
        ("betas", [], "a list of different numbers in (0, 1), to 6 digits"),
        ("samples", 1, "an int >= 2"),
        ("probes", [501], "a list of different ints from 1 to 500, the samples"),
        ("probes", [0], "a list of different ints from 1 to 500, the samples"),
        ("streams", 1, "an int >= 2"),
        ("tasks", [1], "a list of different ints >= 2"),
        ("log_sd", 0.0, "in (0, 5]"),
        ("log_sd", 1e10, "in (0, 5]"),
    ],
)
def test_parameters_out_of_range(name: str, value: Any, valid: str) -> None:
    line = re.escape(f"experiment.{name}={value} is not valid; it must be {valid}")
    with pytest.raises(ValueError, match=f"^{line}$"):
        Parameters(**{name: value})


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.betas=[1.0]", "experiment.betas=[1.0] is not valid; it must be a list of different"),
        ("stream.s=0.1", "stream.s=0.1 has no effect in experiment=startup: each beta has a walk of its own"),
        ("stream=gradient_ratio_b64", "walk of its own; set stream.s=0"),
        ("stream.steps=400", "stream.steps=400 has no effect in experiment=startup; set experiment.samples"),
        ("burn_in=50", "burn_in=50 has no effect in experiment=startup"),
        ("stream=recorded", "experiment=startup needs a level in white noise; choose stream=gradient_ratio"),
        ("stream.ramp=0.1", "experiment=startup needs a level in white noise; choose stream=gradient_ratio"),
        ("stream.r=0", "experiment=startup needs a level in white noise"),
        ("match=delay", "experiment=startup sets every beta itself; leave match and tune at none"),
        ("estimators=[log]", "estimators.log works on logarithms; leave it out"),
    ],
)
def test_settings_that_are_refused(kalmean: Callable[..., Any], override: str, part: str) -> None:
    ran = kalmean("experiment=startup", override)
    assert ran.code == 2
    assert part in ran.err
    assert ran.err.count("\n") == 1


# --- what is concluded --------------------------------------------------------------------------------------


def case(name: str, s: float = 0.0, median: float = 2.1, **rmse: Any) -> Case:
    """A case of made-up errors, over ten samples."""
    courses = {
        estimator: Exact(np.zeros(10), np.asarray(values, dtype=float), 0.3, 4.0, 4.0)
        for estimator, values in rmse.items()
    }
    return Case(name, 0.9, GradientRatio(steps=10, s=s, median=median), {}, courses)


def test_conclusions_follow_from_the_numbers() -> None:
    falling = np.linspace(1.0, 0.3, 10)
    told = conclusions([case("walk, beta 0.9", 0.01, a=falling, b=1.5 * falling)], [])
    assert told == [
        "Walk, beta 0.9: of those without bias a errs least at every sample; more at most: "
        "b 50.0 % (sample 1)."
    ]
    turned = np.where(np.arange(10) < 3, 1.2, 0.8) * falling
    (told_of_b,) = conclusions([case("walk, beta 0.9", 0.01, a=falling, b=turned)], [])
    assert "b errs least at 7 of 10 samples; more at most: a 25.0 % (sample 4)." in told_of_b
    biased = case("walk, beta 0.9", 0.01, a=falling, b=0.5 * falling)
    biased = replace(biased, exact=biased.exact | {"b": biased.exact["b"]._replace(bias=np.full(10, 0.1))})
    assert "a errs least at every sample." in conclusions([biased], [])[0]


def test_equal_errors_are_a_tie_and_no_difference_is_printed_as_none() -> None:
    falling = np.linspace(1.0, 0.3, 10)
    equal, nearly = falling * (1.0 + 1e-12), falling * (1.0 + 3e-6)
    told = conclusions([case("walk, beta 0.9", 0.01, a=falling, b=equal, c=nearly)], [])
    assert told == [
        "Walk, beta 0.9: of those without bias a and b tie, and err least at every sample; more at most: "
        "c 0.0003 % (sample 1)."
    ]
    first = np.array([1.0, 1.5, *[1.25] * 8]) * falling
    told = conclusions([case("walk, beta 0.9", 0.01, a=falling, b=first)], [])
    assert "a errs least at every sample, 1 of them a tie; more at most: b 50.0 % (sample 2)." in told[0]


def test_estimators_that_keep_no_memory_tie() -> None:
    beta = 1e-9
    stream = GradientRatio(steps=3, s=float(Kalman.from_beta(beta).q), r=1.0)
    every = {"debiased": DebiasedEMA(0.9), "kalman": Kalman(q=1.0, r=1.0), "mean": Kalman(q=0.0, r=1.0)}
    courses = {name: exact(set_to(estimator, beta), stream, 3, 8) for name, estimator in every.items()}  # type: ignore[arg-type]
    (told, _) = conclusions([Case("walk, beta 1e-09", beta, stream, every, courses)], [])
    assert (
        "debiased and kalman tie, and err least at every sample, 1 of them a tie; more at most: mean" in told
    )
    assert " 0.0 %" not in told


def test_errors_settle_later_the_further_the_level_is_for_a_zero_start_alone() -> None:
    beta, t = 0.9, np.arange(1.0, 1001.0)
    stream, u = GradientRatio(steps=100, s=0.0, median=2.1), beta**t
    zero = exact(EMA(beta), stream, 100, 1000)
    gain = EMA(beta).noise_gain
    for since, distance in ((zero.since, np.log(2.1) / 1.34), (zero.since_distant, 3.0)):
        rmse = np.sqrt((u * distance) ** 2 + gain * (1.0 - u**2))
        assert since == 1 + np.count_nonzero(rmse > 1.05 * np.sqrt(gain))
    assert zero.since < zero.since_distant
    debiased = exact(DebiasedEMA(beta), stream, 100, 1000)
    assert debiased.since == debiased.since_distant


def test_what_is_said_of_those_that_never_settle() -> None:
    rising = np.array([5.0, 4.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 7.5, 8.0])
    never = case("walk, beta 0.9", 0.01, mean=rising)
    never = replace(never, exact={"mean": never.exact["mean"]._replace(settled=np.nan)})
    said = conclusions([never], [])[1]
    assert said == (
        "On the walk of beta 0.9 mean never settles: its error is least at sample 3 (2), "
        "and at the last sample 4.00 times that."
    )
    falling = replace(never, exact={"mean": never.exact["mean"]._replace(rmse=np.sort(rising)[::-1])})
    assert "its error still falls at the last sample." in conclusions([falling], [])[1]


def test_whether_debiasing_helps_depends_on_the_level() -> None:
    near, far = (case("constant level, beta 0.9", median=m, a=np.ones(10)) for m in (2.1, 2.1**10))
    assert "helps at no sample" in conclusions([], [near])[1]
    first, last = debiasing_helps(0.9, 10 * np.log(2.1) / 1.34)  # type: ignore[misc]
    assert f"helps at samples {first:.0f} to {last:.0f} alone" in conclusions([], [far])[1]
    assert first == 1
