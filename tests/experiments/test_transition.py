"""Steps to a level against closed forms, the algebra of the floor, and what is concluded from the numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, KalmanBank, MovingAverage
from estimators.shares import FLOORS
from experiments.agreement import agreement
from experiments.groups import folder
from experiments.streams import Domain, GradientRatio
from experiments.transition import Parameters, alike, on_one_line, shares, steps_to
from experiments.transition_report import conclusions
from experiments.transition_weights import binding, exceeded, floored, limit

SMALL = ("experiment=transition", "seeds=8", "experiment.steps=600", "experiment.betas=[0.5,0.9]")
GABA = EMA(0.99, initial=0.5)


# --- shares and steps ---------------------------------------------------------------------------------------


def test_an_ema_leaves_equal_shares_by_powers_of_beta() -> None:
    weights = shares(GABA, steps=400)
    assert weights.shape == (500,)
    np.testing.assert_array_equal(weights[:100], 0.5)
    n = np.arange(1, 401)
    np.testing.assert_allclose(weights[100:], 0.998 - 0.498 * 0.99**n, rtol=1e-12)
    assert weights[100] == pytest.approx(0.504980, abs=1e-12)  # step 101
    assert weights[149] == pytest.approx(0.998 - 0.498 * 0.99**50, abs=1e-12)


def test_steps_are_counted_from_the_jump() -> None:
    weights = shares(GABA, steps=600)
    for level, steps in ((0.9, 162), (0.95, 233), (0.99, 412)):
        assert steps_to(weights, level) == steps
        assert weights[100 + steps - 2] <= level < weights[100 + steps - 1]
        assert steps == np.floor(np.log((0.998 - level) / 0.498) / np.log(0.99)) + 1
    assert np.isnan(steps_to(weights, 0.999))
    assert steps_to(np.array([0.5, 0.5, 0.7, 0.8]), 0.7, warmup=2) == 2
    assert steps_to(np.array([0.9, 0.9, 0.5]), 0.7, warmup=2) != 1  # the warm-up does not count


def test_other_smoothers_have_seen_the_warm_up_or_not() -> None:
    n = np.arange(1.0, 301.0)
    fed = shares(DebiasedEMA(0.99), steps=300)[100:]
    old = (0.99**n - 0.99 ** (100 + n)) / (1.0 - 0.99 ** (100 + n))
    np.testing.assert_allclose(fed, 0.998 - 0.498 * old, rtol=1e-12)
    np.testing.assert_allclose(shares(DebiasedEMA(0.99), warmup=0, steps=300), 0.998, rtol=1e-14)
    window = shares(MovingAverage(199), steps=300)[100:]
    held = np.minimum(100 + n, 199)
    np.testing.assert_allclose(window, (0.5 * np.maximum(held - n, 0) + 0.998 * np.minimum(n, 199)) / held)
    np.testing.assert_allclose(shares(GABA, steps=50)[100:], shares(GABA, warmup=0, steps=50), rtol=1e-14)
    zero = shares(EMA(0.99), steps=5)
    np.testing.assert_array_equal(zero[:100], 0.5)  # the weight is held, whatever the smoother's mean
    assert zero[100] == pytest.approx(0.99 * 0.5 * (1 - 0.99**100) + 0.01 * 0.998, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "small"),
    [(500, 0.0477097419), (100, 0.0480723465), (300, 0.0477701952)],
)
def test_what_the_floor_leaves(ratio: float, small: float) -> None:
    raw = ratio / (ratio + 1.0)
    for beta in (0.5, 0.99):
        last = shares(EMA(beta, initial=0.5), raw, steps=5000, floor=0.05)[-1]
        assert 1.0 - last == pytest.approx(small, abs=1e-10)


def test_how_long_it_takes_to_the_floor_and_back() -> None:
    raw = 500.0 / 501.0
    assert steps_to(shares(GABA, raw), 0.95) == binding(0.99, raw, 0.05) == 233
    back = 1.0 - shares(EMA(0.99, initial=0.95), raw=0.5, warmup=0, floor=0.05)
    assert steps_to(back, 0.495, warmup=0) == 448


@settings(deadline=None, max_examples=40)
@given(
    beta=st.floats(0.0, 0.999),
    raw=st.floats(0.0, 1.0),
    floor=st.floats(0.001, 0.499),
)
def test_no_floored_weight_exceeds_its_bound(beta: float, raw: float, floor: float) -> None:
    smoothed = shares(EMA(beta, initial=0.5), raw, 3, 20)
    floored = shares(EMA(beta, initial=0.5), raw, 3, 20, floor)
    assert np.all(floored <= 1.0 / (1.0 + floor) + 1e-15)
    assert np.all(floored >= floor / (1.0 + floor) - 1e-15)
    for weight, left in zip(smoothed, floored, strict=True):
        assert left == FLOORS["clip"](np.array([weight, 1.0 - weight]), floor)[0]
        pair = np.maximum([weight, 1.0 - weight], floor)
        assert left == pytest.approx(pair[0] / pair.sum(), rel=1e-14)


@settings(deadline=None, max_examples=40)
@given(beta=st.floats(0.1, 0.99), raw=st.floats(0.9, 0.999), floor=st.floats(0.01, 0.3))
def test_the_floor_binds_when_the_closed_form_says(beta: float, raw: float, floor: float) -> None:
    expected = binding(beta, raw, floor)
    weights = shares(EMA(beta, initial=0.5), raw, 0, 4000)
    below = 1.0 - weights < floor
    if np.isnan(expected):
        assert not below.any()
        return
    left = (1.0 - raw) + (raw - 0.5) * beta ** np.array([expected - 1.0, expected])
    if expected > 4000 or np.abs(left - floor).min() < 1e-9:  # too late, or on the edge
        return
    assert np.argmax(below) + 1 == expected


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"raw": 1.2}, "shares: raw=1.2 is not valid; raw must be one number in [0, 1]"),
        ({"raw": float("nan")}, "shares: raw=nan is not valid"),
        ({"warmup": -1}, "shares: warmup=-1 is not valid; warmup must be an int >= 0"),
        ({"steps": 0}, "shares: steps=0 is not valid; steps must be an int >= 1"),
        ({"floor": 0.5}, "shares: floor=0.5 is not valid; floor must be one number in [0, 1/2)"),
    ],
)
def test_shares_refuses(given: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part.split("; ")[0])):
        shares(GABA, **given)


def test_all_that_can_be_are_at_the_first_ones_noise_gain() -> None:
    given = {
        "ema": GABA,
        "kalman": Kalman(q=1.0, r=5.0),
        "window": MovingAverage(7),
        "first": EMA(0.5, initial=None),
        "bank": KalmanBank(),
    }
    found: Any = alike(given)
    assert found["ema"] == (GABA, True)
    assert found["bank"] == (KalmanBank(), False)
    for name in ("kalman", "window", "first"):
        estimator, same = found[name]
        assert same
        assert estimator.noise_gain == pytest.approx(GABA.noise_gain, rel=1e-9)
    assert found["first"][0].initial is None
    assert found["window"][0] == MovingAverage(199)
    with pytest.raises(ValueError, match=r"^estimators.bank has no noise gain to match"):
        alike({"bank": KalmanBank(), "ema": GABA})


@pytest.mark.parametrize("floor", [0.0, 0.05])
def test_rounding_exceeds_no_level(floor: float) -> None:
    most = limit(0.9, floor)
    for estimator in (GABA, MovingAverage(199), Kalman.from_beta(0.99), DebiasedEMA(0.99)):
        for warmup in (0, 100):
            weights = shares(estimator, 0.9, warmup, 2000, floor)
            assert np.isnan(exceeded(weights, most, warmup, most))
            assert exceeded(weights, 0.85, warmup, most) == steps_to(weights, 0.85, warmup)
    assert exceeded(np.array([0.5, 0.91]), 0.9, 0, 0.9) == 2  # an overshoot does


def test_the_limit_is_the_floored_raw_weight() -> None:
    assert limit(0.998, 0.0) == 0.998
    assert limit(0.998, 0.05) == floored(np.array([0.998]), 0.05)[0] == pytest.approx(0.998 / 1.048)
    assert limit(0.7, 0.05) == pytest.approx(0.7, rel=1e-15)


def test_a_level_that_is_the_raw_weight_is_reached_by_none(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(*SMALL, "experiment.raw=0.9", "experiment.levels=[0.85,0.9]", "experiment.ratios=[30]")
    assert ran.code == 0
    own = ran.table[ran.table["metric"] == "steps_to_0.9"]
    assert set(own["status"]) == {"never"}
    assert "No smoother exceeds 0.9, with the floor or without: the raw weight is 0.9." in ran.out


def test_courses_on_one_line_are_named_together() -> None:
    weights = np.linspace(0.5, 0.9, 9)
    courses = {"a": weights, "b": weights + 1e-3, "c": weights + 1e-15, "d": weights[::-1]}
    assert on_one_line(courses) == [["a", "c"]]


def test_filters_are_told_the_variance_of_the_raw_weights() -> None:
    text = (folder() / "experiment" / "transition.yaml").read_text(encoding="utf-8")
    (told,) = re.findall(r"noise_variance: (\S+)", text)
    chosen = Parameters()
    expected = Domain.weight.moments(chosen.ratios[0], chosen.log_sd**2)[1]
    assert float(told) == pytest.approx(expected, rel=1e-3)


class Made(NamedTuple):
    """Table and summary of a small run."""

    table: pd.DataFrame
    summary: pd.DataFrame


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A small run."""
    from experiments.__main__ import main

    output = tmp_path_factory.mktemp("transition")
    assert main([*SMALL, "estimators=[ema,debiased_ema]", f"output={output}"]) == 0
    (folder,) = (output / "runs").iterdir()
    return Made(*(pd.read_csv(folder / f"{name}.csv") for name in ("table", "summary")))


# --- the run ------------------------------------------------------------------------------------------------


def test_the_run(kalmean: Callable[..., Any]) -> None:
    few = (*SMALL, "estimators=[ema,debiased_ema,kalman_bank]")
    ran = kalmean(*few)
    assert (ran.code, ran.err) == (0, "")
    table = ran.table.set_index(["stream", "estimator", "metric"]).sort_index()["value"]
    free, bound = "fed the warm-up, no floor", "fed the warm-up, floor 0.05"
    assert table[free, "ema", "steps_to_0.95"].item() == table[bound, "ema", "steps_to_0.95"].item() == 233
    assert table[free, "debiased_ema", "steps_to_0.9"].item() == 128
    assert table["from the jump, no floor", "debiased_ema", "steps_to_0.99"].item() == 1
    status = ran.table[(ran.table["stream"] == bound) & (ran.table["metric"] == "steps_to_0.99")]["status"]
    assert set(status) == {"never"}
    assert table["no noise", "ema@0.9", "binds_after"].item() == 23
    assert table["no noise", "ema@0.5", "final_weight"].item() == pytest.approx(0.998 / 1.048, rel=1e-12)
    told = agreement(ran.summary)
    assert (told.pairs, told.beyond) == (4, 0)
    assert "kalman_bank* " in ran.out
    assert "With the floor no smoother exceeds 0.99" in ran.out
    assert max(map(len, ran.out.split("written")[0].splitlines())) <= 110
    assert {path.name for path in (ran.folder / "figures").iterdir()} == {"transition.png", "betas.png"}
    again = kalmean(*few, output="again")
    for name in ("table.csv", "summary.md", "figures/betas.png"):
        assert (again.folder / name).read_bytes() == (ran.folder / name).read_bytes()


@pytest.mark.parametrize("ratio", [500.0, 30.0])
def test_late_noise_by_hand(made: Made, ratio: float) -> None:
    stream = GradientRatio(steps=600, median=ratio, r=1.69, s=0.0, domain=Domain.weight)
    raw = 1.0 - stream.draw(range(8), 0).samples
    mean, found = np.full(8, 0.5), []
    for row in raw:
        mean = 0.5 * mean + 0.5 * row
        found.append(mean)
    weights = np.array(found)[-120:]
    floored = weights / (weights + np.maximum(1.0 - weights, 0.05))
    own = made.table[made.table["stream"] == f"noise, ratio {ratio:g}"]
    noise = own[own["estimator"] == "ema@0.5"]
    for metric, expected in (
        ("binds_late", (1.0 - weights < 0.05).mean(axis=0)),
        ("mean_unfloored", weights.mean(axis=0)),
        ("mean_floored", floored.mean(axis=0)),
        ("sd_unfloored", weights.std(axis=0)),
        ("sd_floored", floored.std(axis=0)),
    ):
        values = noise.loc[noise["metric"] == metric, "value"]
        np.testing.assert_allclose(values, expected, rtol=1e-9, err_msg=metric)


@pytest.mark.parametrize(
    ("name", "value", "valid"),
    [
        ("betas", [1.0], "a list of different numbers in (0, 1), to 6 digits"),
        ("betas", [0.9, 0.9], "a list of different numbers in (0, 1), to 6 digits"),
        ("betas", [0.99999999], "a list of different numbers in (0, 1), to 6 digits"),
        ("levels", [0.5], "a list of different numbers in (0.5, 1), to 6 digits"),
        ("levels", [], "a list of different numbers in (0.5, 1), to 6 digits"),
        ("ratios", [1.0], "a list of different numbers in (1, 1e+06), to 6 digits"),
        ("ratios", [30.0, 30.0], "a list of different numbers in (1, 1e+06), to 6 digits"),
        ("log_sd", 1e10, "in (0, 5]"),
        ("raw", 0.5, "in (1/2, 1)"),
        ("warmup", 0, "an int >= 1"),
        ("steps", 9, "an int >= 10"),
        ("floor", 0.5, "in (0, 1/2)"),
        ("floor", 0.0, "in (0, 1/2)"),
    ],
)
def test_parameters_out_of_range(name: str, value: Any, valid: str) -> None:
    line = re.escape(f"experiment.{name}={value} is not valid; it must be {valid}")
    with pytest.raises(ValueError, match=f"^{line}$"):
        Parameters(**{name: value})


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.raw=1", "experiment.raw=1.0 is not valid; it must be in (1/2, 1)"),
        (
            "stream=gradient_ratio_b64",
            "stream.r=0.7225 has no effect in experiment=transition; set experiment",
        ),
        (
            "stream.median=9",
            "stream.median=9.0 has no effect in experiment=transition; set experiment.ratios",
        ),
        ("stream.s=0.1", "stream.s=0.1 has no effect in experiment=transition; its level is constant"),
        (
            "stream.domain=ratio",
            "stream.domain=ratio has no effect in experiment=transition; it smooths weig",
        ),
        ("stream.steps=5", "stream.steps=5 has no effect in experiment=transition; set experiment.steps"),
        ("burn_in=5", "burn_in=5 has no effect in experiment=transition, which looks at every step"),
        ("stream=recorded", "experiment=transition needs a ratio of gradients; choose stream=gradient_ratio"),
        (
            "stream=regime_change",
            "experiment=transition needs a ratio of gradients; choose stream=gradient_r",
        ),
        ("stream.gap_rate=0.1", "stream.gap_rate=0.1 is not valid; it must be 0"),
        ("match=delay", "experiment=transition matches by noise gain itself; leave match and tune at none"),
        ("estimators=[kalman_bank]", "estimators.kalman_bank has no noise gain to match; name one first"),
    ],
)
def test_settings_that_are_refused(kalmean: Callable[..., Any], override: str, part: str) -> None:
    ran = kalmean("experiment=transition", override)
    assert ran.code == 2
    assert part in ran.err
    assert ran.err.count("\n") == 1


# --- what is concluded --------------------------------------------------------------------------------------


def changed(made: Made, where: dict[str, str], **values: float) -> str:
    """What is concluded from the small run with some numbers changed."""
    summary = made.summary.copy()
    rows = np.logical_and.reduce([summary[name] == value for name, value in where.items()])
    assert rows.any()
    for name, value in values.items():
        summary[name] = summary[name].astype(float)
        summary.loc[rows, name] = value
    return "\n".join(conclusions(summary, Parameters(betas=[0.5, 0.9], steps=600)))


def test_conclusions_follow_from_the_numbers(made: Made) -> None:
    told = changed(made, {"metric": "last_weight"}, mean=0.0)  # of which nothing is concluded
    assert "no smoother exceeds 0.99, without it 3 of 3 do" in told
    assert "the final weights are the same, with the floor and without." in told
    assert "binds after 4 to 23 steps" in told
    assert "debiased_ema 1 instead of 128" in told
    assert told.endswith("The same whether fed the warm-up or not: ema 162.")
    floored = {"stream": "fed the warm-up, floor 0.05", "estimator": "ema", "metric": "steps_to_0.99"}
    assert "no smoother exceeds 0.99" not in changed(made, floored, mean=500.0, n=1)
    apart = changed(made, {"estimator": "ema@0.9", "metric": "final_weight"}, mean=0.9)
    assert "the final weights are 0.052 apart." in apart
    never = changed(
        made, {"estimator": "ema@0.9", "metric": "binds_after", "stream": "no noise"}, mean=np.nan
    )
    assert "the floor never binds at a raw weight of 0.998." in never
    slower = {"stream": "from the jump, no floor", "estimator": "ema", "metric": "steps_to_0.9"}
    assert "ema 170 instead of 162" in changed(made, slower, mean=170.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.0001, 0.0002, "a tie"), (0.002, 0.003, "a difference"), (-0.01, 0.02, "not told apart")],
)
def test_a_tie_of_floored_means_reads_as_one(made: Made, low: float, high: float, verdict: str) -> None:
    where = {"stream": "noise, ratio 30", "estimator": "ema@0.9", "metric": "mean_floored"}
    told = changed(made, where, difference=0.5 * (low + high), difference_low=low, difference_high=high)
    assert "Floored means are, in percentage points from that of ema@0.5, at a ratio of 500 at most" in told
    assert re.search(rf"; at a ratio of 30 at most [^;]* \(ema@0.9\), {verdict}; a tie is within 0.1\.", told)
