"""The sweep of regimes that is shipped, its cells against a plain recomputation, and what is printed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from estimators import EMA, Kalman
from estimators.resetting import ResettingKalman
from estimators.robust import RobustKalman
from experiments import regimes
from experiments.cells import Condition
from experiments.job import Job
from experiments.metrics import Measured
from experiments.plan import Panel
from experiments.regimes import Findings, Parameters, measure, regime
from experiments.setup import setting
from experiments.streams import GradientRatio, RegimeChange
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import quantity

SMALL = ["seeds=8", "stream.steps=500", "stream.at=250", "burn_in=100"]
SETTINGS = [
    "kalman",
    "kalman_bank",
    "robust_kalman",
    "robust_kalman loss=student_t",
    "resetting_kalman loss=huber",
    "resetting_kalman",
    "switching_kalman",
    "mehra_kalman",
    "running_median",
    "ema",
]
REGIMES = [
    *("no change", "1 sd shift", "2 sd shift", "4 sd shift", "8 sd shift"),
    *("r x 9", "r / 9", "s x 100", "s / 100", "5 % outliers", "t3 noise"),
    *("gap of 1", "gap of 5", "gap of 50", "5 % outliers, 8 sd shift"),
]
ONE = ["stream.r_factor=1", "stream.s_factor=1", "stream.degrees_of_freedom=inf", "stream.gap=0"]


def tables(text: str) -> list[list[list[str]]]:
    """The cells of a text's tables, headers included, without rules."""
    blocks = [part for part in text.split("\n\n") if part.startswith("|")]
    return [
        [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
        for block in blocks
    ]


def printed(text: str) -> dict[tuple[str, str], str]:
    """Error right after the change, by regime and setting, as printed."""
    return {
        (name, row[0].removesuffix(", MSE / r")): cell
        for head, _, *rows in tables(text)[:-1]
        for row in rows
        for name, cell in zip(head[1:], row[1:], strict=True)
    }


def half_of(values: Any) -> float:
    """Half of the 95 % interval of a mean."""
    return float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))


def condition(stream: Any, burn_in: int = 100, noise_variance: float = 1.0) -> Condition:
    return Condition(measure, Parameters(), stream, noise_variance, 0, burn_in)


def by_metric(found: list[Measured]) -> dict[str, Any]:
    return {one.metric: one.values for one in found}


# --- the sweep that is shipped ------------------------------------------------------------------------------


def test_the_shipped_sweep_has_fifteen_regimes_of_ten_settings() -> None:
    found: dict[str, set[str]] = {}
    for point in Job.of(["experiment=regimes"]).points:
        stream = point.setup.stream
        assert isinstance(stream, RegimeChange)
        assert (stream.s, stream.steps, stream.at, point.setup.burn_in) == (0.01, 2000, 1000, 500)
        assert point.setup.repetitions == 200
        rows = {f"{name} {setting(own)}" for name, own in point.setup.estimators.items()}
        found.setdefault(regime(stream), set()).update(rows)
    assert list(found) == REGIMES
    assert all(rows == found["no change"] and len(rows) == 10 for rows in found.values())


@pytest.mark.slow
@pytest.mark.parametrize(("r", "s"), [(1.0, 0.01), (4.0, 0.01), (2.0, 0.001)])
def test_filters_are_told_the_truth_before_the_change(r: float, s: float) -> None:
    points = Job.of(["experiment=regimes", f"stream.r={r}", f"stream.s={s}", "stream.r_factor=9"]).points
    told = ("kalman", "robust_kalman", "resetting_kalman", "switching_kalman")
    for point in points:
        for name in told:
            estimator: Any = point.setup.estimators[name]
            assert estimator.r == r
            assert estimator.q == pytest.approx(r * s, rel=1e-15)


@pytest.mark.slow
def test_the_window_has_the_noise_gain_of_the_settled_filter() -> None:
    estimators: Any = Job.of(["experiment=regimes", "stream.shift=0"]).setup.estimators
    kalman, median, ema = (estimators[name] for name in ("kalman", "running_median", "ema"))
    assert np.pi / (2 * median.window) == pytest.approx(kalman.noise_gain, rel=0.03)
    assert ema.beta == pytest.approx(kalman.steady_beta, rel=0.01)


# --- one cell, recomputed -----------------------------------------------------------------------------------


def test_a_cell_is_what_a_plain_loop_computes(kalmean: Any) -> None:
    fixed = [*ONE, "stream.shift=8", "stream.outlier_rate=0.05"]
    ran = kalmean("experiment=regimes", *fixed, *SMALL)
    table = ran.table
    stream = RegimeChange(steps=500, at=250, shift=8.0, outlier_rate=0.05)
    drawn = stream.draw([5], 0)
    assert drawn.level is not None
    errors, restarts = {}, {}
    for alarm in (np.inf, 7.5):
        mean = variance = np.nan
        up = down = -1.0
        error, gains = [], []
        for sample, level in zip(drawn.samples[:, 0], drawn.level[:, 0], strict=True):
            before, total = variance + 0.01, variance + 0.01 + 1.0
            size = (sample - mean) / np.sqrt(total)
            cut = min(3.0, max(-3.0, size))
            raised, fallen = max(0.0, max(up, 0.0) + cut - 1.0), max(0.0, down - cut - 1.0)
            fresh = up < 0.0 and not abs(size) < 3.0 and alarm < np.inf
            if not gains or fresh or max(raised, fallen) > alarm:
                gain, up, down = 1.0, -1.0, 0.0
                mean, variance = sample, 1.0
            else:
                gain, up, down = before / total, raised, fallen
                mean, variance = mean + gain * (sample - mean), before / total
            error.append(mean - level)
            gains.append(gain)
        errors[alarm], restarts[alarm] = np.array(error), np.array(gains) == 1.0
    for alarm, name, told in ((np.inf, "kalman", ""), (7.5, "resetting_kalman", "loss")):
        rows = table[(table["estimator"] == name) & (table["seed"] == 5)]
        rows = rows[~rows["parameters"].str.contains("loss")] if told else rows
        cell = rows.set_index("metric")["value"]
        error = errors[alarm]
        parts = {"mse": error[100:], "mse_before": error[100:250], "mse_after": error[250:350]}
        for metric, part in (parts | {"mse_rest": error[350:]}).items():
            assert cell[metric] == pytest.approx(np.mean(part**2), rel=1e-10), (name, metric)
        first = int(np.argmax(np.abs(error[250:]) <= 2.0)) + 1
        assert cell["recovery"] == first
        assert cell["within_10"] == (first <= 10)
        if told:
            assert cell["false_alarms"] == pytest.approx(1e4 * restarts[alarm][100:250].mean())
    assert "false_alarms" not in set(table.loc[table["estimator"] == "kalman", "metric"])


# --- what is measured ---------------------------------------------------------------------------------------


def test_the_sample_of_the_change_is_the_first_that_counts() -> None:
    stream = RegimeChange(steps=500, at=250, shift=8.0, s=0.0, r=1e-12)
    quick, slow = (measure(condition(stream, noise_variance=1e-12), e, [0]) for e in (EMA(0.0), EMA(0.9)))
    assert by_metric(quick)["recovery"] == [1.0]
    # 8 b^k <= 2, but for noise of the size of one thousandth of the threshold and more
    assert by_metric(slow)["recovery"] == pytest.approx([np.ceil(np.log(0.25) / np.log(0.9))], abs=3.0)
    assert by_metric(slow)["within_10"] == [0.0]


def test_an_estimate_that_never_comes_near_has_no_recovery() -> None:
    (recovery,) = (
        one
        for one in measure(condition(RegimeChange(steps=400, at=250, shift=50.0)), EMA(0.999), [0, 1])
        if one.metric == "recovery"
    )
    assert recovery.status == ["never", "never"]


def test_a_stream_that_ends_right_after_the_change_has_no_rest() -> None:
    found = measure(condition(RegimeChange(steps=300, at=250)), EMA(0.9), [0])
    assert {one.metric: one.status for one in found}["mse_rest"] == ["no samples"]
    assert np.isfinite(by_metric(found)["mse_after"]).all()


def test_false_alarms_are_counted_up_to_a_change_or_to_the_end() -> None:
    restless = ResettingKalman(q=0.01, r=1.0, alarm=2.0)
    for shift, end in ((0.0, 500), (8.0, 250)):
        stream = RegimeChange(steps=500, at=250, shift=shift)
        gain = np.asarray(restless.filter(stream.draw([0, 1], 0).samples).gain)
        found = by_metric(measure(condition(stream), restless, [0, 1]))["false_alarms"]
        np.testing.assert_allclose(found, 1e4 * (gain[100:end] == 1.0).mean(axis=0), rtol=1e-12)
        assert found.sum() > 0.0
        first = by_metric(measure(condition(stream, burn_in=0), restless, [0, 1]))["false_alarms"]
        np.testing.assert_allclose(first, 1e4 * (gain[1:end] == 1.0).mean(axis=0), rtol=1e-12)
    for other in (Kalman(q=0.01, r=1.0), RobustKalman(q=0.01, r=1.0)):
        assert "false_alarms" not in by_metric(measure(condition(RegimeChange()), other, [0]))


# --- what is read of it -------------------------------------------------------------------------------------


def test_ratios_of_means_have_the_interval_of_their_residuals() -> None:
    rng = np.random.default_rng(1)
    first = rng.chisquare(3, 50)
    values = {"kalman": first, "ema": 1.5 * first + rng.chisquare(1, 50), "robust_kalman": first.copy()}
    stream = RegimeChange()
    rows = [Rows("s", name, "a=1", [Measured("mse_after", "1", value)]) for name, value in values.items()]
    setup = Job.of(["stream=regime_change"]).setup
    shown = Panel("s", setup, condition(stream), {}, {(name, "a=1"): None for name in values})  # type: ignore[misc]
    found = Findings([shown], summarise(long_table("regimes", rows)))
    value, half = found.ratio(shown, "ema", "mse_after")
    expected = values["ema"].mean() / first.mean()
    assert value == pytest.approx(expected)
    assert half == pytest.approx(half_of(values["ema"] - expected * first) / first.mean(), rel=1e-9)
    for name in ("kalman", "robust_kalman"):
        assert found.ratio(shown, name, "mse_after") == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    assert np.isnan(found.ratio(shown, "ema", "mse")).all()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "no change"),
        ({"shift": -2.5}, "-2.5 sd shift"),
        ({"r_factor": 1.0 / 9.0, "s_factor": 100.0}, "r / 9, s x 100"),
        ({"r_factor": 0.0}, "r x 0"),
        ({"degrees_of_freedom": 3.0, "gap": 5}, "t3 noise, gap of 5"),
        ({"outlier_rate": 0.05, "shift": 8.0}, "5 % outliers, 8 sd shift"),
    ],
    ids=str,
)
def test_a_regime_is_named_by_what_is_unlike_the_plain_one(settings: dict[str, Any], name: str) -> None:
    assert regime(RegimeChange(**settings)) == name


@pytest.mark.slow
def test_the_text_says_of_all_regimes_what_the_table_holds(kalmean: Any) -> None:
    ran = kalmean("experiment=regimes", *SMALL)
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert text.startswith("regimes: 15 of them, 8 streams of 500 samples each, root seed 0.\n")
    assert (ran.folder / "figures" / "recovery.png").stat().st_size > 10_000
    assert "All or none of\n8 streams leave 31 % for the others" in text  # 0.69^8 = 0.05
    cells = printed(text)
    assert list(dict.fromkeys(name for name, _ in cells)) == REGIMES
    assert list(dict.fromkeys(label for _, label in cells)) == SETTINGS
    table = ran.table
    streams = list(dict.fromkeys(table["stream"]))
    after = table[table["metric"] == "mse_after"]
    for name, stream in zip(REGIMES, streams, strict=True):
        own = after[after["stream"] == stream].groupby(["estimator", "parameters"], sort=False, dropna=False)[
            "value"
        ]
        values = dict(zip(SETTINGS, (group.to_numpy() for _, group in own), strict=True))
        kalman = values.pop("kalman")
        assert cells[name, "kalman"] == quantity(kalman.mean(), half_of(kalman))
        for label, value in values.items():
            ratio = value.mean() / kalman.mean()
            half = half_of(value - ratio * kalman) / kalman.mean()
            assert cells[name, label] == quantity(ratio, half)
    head, _, *rows = tables(text)[-1]
    assert head == ["estimator", "price", "8 sd shift", "within 10", "5 % outliers, 8 sd shift", "within 10"]
    assert [row[0] for row in rows] == SETTINGS
    waited = table[(table["metric"] == "recovery") & (table["stream"] == streams[4])]
    for row, (_, own) in zip(
        rows, waited.groupby(["estimator", "parameters"], sort=False, dropna=False), strict=True
    ):
        assert row[2].startswith(f"{own['value'].median():.4g} (")


@pytest.mark.slow
def test_each_goal_is_stated_with_its_figure(kalmean: Any) -> None:
    ran = kalmean("experiment=regimes", *SMALL)
    goals = [line for line in ran.out.splitlines() if line.startswith("- ")]
    assert len(goals) == 6
    assert all(re.search(r"Goal: at (most|least) [\d.]+( %)?, (not )?reached\.$", goal) for goal in goals)
    table = ran.table
    mse = table[(table["metric"] == "mse") & ~table["parameters"].str.contains("student_t")]
    means = mse.groupby(["stream", "estimator"], sort=False)["value"].mean()
    first, struck = (list(dict.fromkeys(table["stream"]))[index] for index in (0, 9))
    price = means[first, "robust_kalman"] / means[first, "kalman"]
    assert goals[0].startswith("- no change: robust_kalman has ")
    assert float(goals[0].split()[5]) == pytest.approx(price, abs=0.006)
    assert goals[0].endswith("not reached.") is bool(price > 1.03)
    gain = means[struck, "kalman"] / means[struck, "robust_kalman"]
    assert goals[1].startswith("- 5 % outliers at 10 sd: kalman has ")
    assert float(goals[1].split()[9]) == pytest.approx(gain, rel=0.1)
    assert goals[1].endswith("not reached.") is bool(gain < 3.0)
    assert goals[2].startswith("- 8 sd shift: resetting_kalman loss=huber is within 2 noise sd ")
    assert goals[3].startswith("- 5 % outliers, 8 sd shift: resetting_kalman loss=huber is within ")
    # 8 streams of 400 samples without an alarm
    bound = quantity(-1e4 * np.log(0.05) / 3200, np.nan)
    assert goals[4].startswith(
        "- no change: false alarms of resetting_kalman loss=huber in 10,000 samples: 0, at"
    )
    assert f"at most {float(bound):.2g}. Goal" in goals[4]


@pytest.mark.slow
def test_fewer_regimes_and_settings_say_less(kalmean: Any) -> None:
    fixed = [*ONE, "stream.shift=8", "stream.outlier_rate=0"]
    ran = kalmean("experiment=regimes", "estimators.robust_kalman.loss=student_t", *fixed, *SMALL)
    assert "regimes: 1 of them" in ran.out
    head, _, *rows = tables(ran.out)[-1]
    assert head == ["estimator", "8 sd shift", "within 10"]
    assert len(rows) == 9
    assert ran.out.count("Goal:") == 1
    quiet = [*ONE, "stream.shift=0", "stream.outlier_rate=0", "stream.steps=300", "stream.at=250", "seeds=1"]
    ran = kalmean("experiment=regimes", *quiet, "burn_in=100", output="quiet")
    assert ran.code == 0
    assert "1 stream of 300 samples" in ran.out
    assert tables(ran.out)[-1][0] == ["estimator", "price"]


def test_cells_that_fail_leave_a_dash(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = regimes.measure

    def unlucky(condition: Any, estimator: Any, repetitions: Any) -> Any:
        if isinstance(estimator, EMA):
            raise ArithmeticError("unlucky")
        return measured(condition, estimator, repetitions)

    monkeypatch.setattr(regimes, "measure", unlucky)
    fixed = [*ONE, "stream.shift=0", "stream.outlier_rate=0"]
    ran = kalmean("experiment=regimes", *fixed, *SMALL)
    assert ran.code == 1
    assert "8 cells failed" in ran.err
    assert [cells for (_, label), cells in printed(ran.out).items() if label == "ema"] == ["-"]


# --- what is refused ----------------------------------------------------------------------------------------


def test_a_recorded_stream_is_refused(refused: Any) -> None:
    assert "choose that too" in refused("experiment=regimes", "stream=recorded")


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (GradientRatio(), "experiment=regimes needs a stream that changes, and whose level is known; "),
        (Job.of(["stream=recorded"]).setup.stream, "experiment=regimes needs a stream that changes, and "),
        (RegimeChange(at=100), "stream.at=100 is not valid; "),
        (RegimeChange(at=2000), "stream.at=2000 is not valid; "),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_stream_without_a_change_is_refused_in_one_line(stream: Any, said: str) -> None:
    panel: Any = type("Panel", (), {"condition": condition(stream)})
    for refusing in (
        lambda: regimes.report([panel], pd.DataFrame()),
        lambda: measure(condition(stream), EMA(0.9), [0]),
    ):
        with pytest.raises(ValueError, match="experiment=regimes") as caught:
            refusing()
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)
