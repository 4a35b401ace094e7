"""The closed form of a settled filter's error, simulation against it, and the sweep that is shipped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, MovingAverage
from experiments import sensitivity
from experiments.job import Job
from experiments.sensitivity import expected_rmse
from experiments.setup import setting
from experiments.streams import GradientRatio
from experiments.tables import quantity

BETAS = [0.5, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998]
SWEPT = ["1e-05", "0.0001", "0.001", "0.01"]
VARIANCES = st.floats(1e-3, 1e3)
RATIOS = st.floats(1e-8, 1e2)


def of_ema(beta: float, r: float, q: float) -> float:
    return float(np.sqrt((1.0 - beta) / (1.0 + beta) * r + beta**2 / (1.0 - beta**2) * q))


def of_window(n: int, r: float, q: float) -> float:
    return float(np.sqrt(r / n + q * (n - 1) * (2 * n - 1) / (6 * n)))


def shown(text: str) -> list[list[str]]:
    """The cells of a text's first table, without header and rule."""
    block = next(part for part in text.split("\n\n") if part.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]]


# --- closed form --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(beta=st.floats(0.0, 0.999), r=VARIANCES, s=RATIOS)
def test_the_error_of_an_ema_is_its_closed_form(beta: float, r: float, s: float) -> None:
    expected = of_ema(beta, r, s * r)
    assert expected_rmse(EMA(beta), GradientRatio(r=r, s=s)) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=60)
@given(window=st.integers(1, 3000), r=VARIANCES, s=RATIOS)
def test_the_error_of_a_window_is_its_closed_form(window: int, r: float, s: float) -> None:
    expected = of_window(window, r, s * r)
    assert expected_rmse(MovingAverage(window), GradientRatio(r=r, s=s)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("beta", BETAS)
def test_without_drift_the_error_is_the_noise_that_is_left(beta: float) -> None:
    expected = np.sqrt(1.7956 * EMA(beta).noise_gain)
    assert expected_rmse(EMA(beta), GradientRatio(s=0.0)) == pytest.approx(expected, rel=1e-12)


def test_the_right_beta_has_the_least_error_in_closed_form() -> None:
    stream = GradientRatio()  # EMA(0.99) is the right filter of the default
    least = expected_rmse(EMA(0.99), stream)
    assert all(expected_rmse(EMA(beta), stream) > least for beta in (0.98, 0.989, 0.991, 0.995))


# --- simulation ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_simulated_errors_agree_with_the_closed_form(kalmean: Any) -> None:
    ran = kalmean("experiment=sensitivity", "seeds=40", "stream.steps=4000", "stream.s=1e-3")
    table = ran.table
    rmse = table[table["metric"] == "rmse"]
    assert len(rmse) == 40 * 18
    assert (rmse["status"] == "ok").all()
    stream = GradientRatio(steps=4000, s=1e-3)
    kinds = {"ema": EMA, "moving_average": MovingAverage}
    for (name, parameters), own in rmse.groupby(["estimator", "parameters"]):
        _, _, value = parameters.partition("=")
        estimator = kinds[name](float(value) if name == "ema" else int(value))  # type: ignore[arg-type]
        squared = own["value"].to_numpy() ** 2
        error = squared.std(ddof=1) / np.sqrt(squared.size)
        assert abs(squared.mean() - expected_rmse(estimator, stream) ** 2) <= 4.0 * error, (name, parameters)


# --- the sweep that is shipped ------------------------------------------------------------------------------


def by_stream(overrides: list[str], multirun: bool = False) -> dict[str, list[tuple[str, str]]]:
    """The settings that a sweep compares, by the s of the stream."""
    found: dict[str, list[tuple[str, str]]] = {}
    for point in Job.of(["experiment=sensitivity", *overrides], multirun).points:
        assert isinstance(point.setup.stream, GradientRatio)
        rows = [(name, setting(own)) for name, own in point.setup.estimators.items()]
        found.setdefault(f"{point.setup.stream.s:g}", []).extend(rows)
    return found


def test_the_shipped_sweep_has_four_streams_of_eighteen_settings() -> None:
    found = by_stream([])
    assert list(found) == SWEPT
    for rows in found.values():
        assert len(rows) == len(set(rows)) == 18
        assert [name for name, _ in rows].count("ema") == 9
    job = Job.of(["experiment=sensitivity"])
    assert {point.setup.repetitions for point in job.points} == {100}


def test_the_shipped_windows_tie_the_betas_in_noise_gain() -> None:
    betas = []
    for point in Job.of(["experiment=sensitivity", "stream.s=1e-3"]).points:
        ema, window = point.setup.estimators["ema"], point.setup.estimators["moving_average"]
        assert isinstance(ema, EMA)
        assert isinstance(window, MovingAverage)
        assert window.noise_gain == pytest.approx(float(ema.noise_gain), rel=0.03)
        betas.append(ema.beta)
    assert betas == BETAS


def test_keys_on_the_command_line_narrow_the_sweep() -> None:
    assert {s: len(rows) for s, rows in by_stream(["stream.s=1e-3"]).items()} == {"0.001": 18}
    two = by_stream(["stream.s=1e-3,1e-2"], multirun=True)
    assert {s: len(rows) for s, rows in two.items()} == {"0.001": 18, "0.01": 18}
    (rows,) = by_stream(
        ["stream.s=1e-3", "estimators.ema.beta=0.9", "estimators.moving_average.window=19"]
    ).values()
    assert rows == [("ema", "beta=0.9"), ("moving_average", "window=19")]
    fixed = by_stream(["estimators.ema.beta=0.9"])
    assert list(fixed) == SWEPT
    assert {parameters for name, parameters in fixed["0.001"] if name == "ema"} == {"beta=0.9"}
    assert Job.of(["experiment=sensitivity", "seeds=7"]).setup.repetitions == 7


# --- what is printed ----------------------------------------------------------------------------------------


def test_the_text_names_the_best_setting_of_each_stream(kalmean: Any) -> None:
    ran = kalmean("-m", "experiment=sensitivity", "seeds=3", "stream.steps=1500", "stream.s=1e-3,1e-2")
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert text.startswith("sensitivity: 2 streams, 3 repetitions of each, root seed 0.\n")
    summary: Any = ran.summary
    rmse = summary[summary["metric"] == "rmse"]
    lines = shown(text)
    assert len(lines) == 4
    for stream, estimator, best, error, within, worst in lines:
        own = rmse[(rmse["stream"] == stream) & (rmse["estimator"] == estimator)].reset_index(drop=True)
        assert len(own) == 9
        least = own.loc[own["mean"].idxmin()]
        assert best == least["parameters"]
        assert error == quantity(least["mean"], least["high"] - least["mean"])
        good = own.loc[own["mean"] <= 1.05 * least["mean"], "parameters"].tolist()
        assert within == (", ".join(good) if len(good) <= 3 else f"{len(good)} settings")
        assert worst == f"{own['mean'].max() / least['mean']:.1f} times"
    assert (ran.folder / "figures" / "error.png").stat().st_size > 10_000
    assert "moving\\_average" in (ran.folder / "summary.tex").read_text(encoding="utf-8")


def test_drift_moves_the_best_setting_to_a_shorter_memory(kalmean: Any) -> None:
    ran = kalmean("-m", "experiment=sensitivity", "seeds=5", "stream.steps=4000", "stream.s=1e-4,1e-2")
    slow, _, fast, _ = shown((ran.folder / "summary.md").read_text(encoding="utf-8"))
    betas = [float(line[2].partition("=")[2]) for line in (slow, fast)]
    assert betas[0] > betas[1]


def test_a_recorded_stream_is_refused(refused: Any) -> None:
    assert "stream" in refused("experiment=sensitivity", "stream=recorded")


def test_a_stream_without_a_known_level_is_refused_by_the_report() -> None:
    stream = Job.of(["stream=recorded"]).setup
    panel: Any = type("Panel", (), {"setup": stream})
    with pytest.raises(ValueError, match=r"^experiment=sensitivity needs streams whose level is known; .*$"):
        sensitivity.report([panel], pd.DataFrame())


def test_a_setting_that_lacks_cells_is_left_out_and_said_to_be(
    kalmean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = sensitivity.measure

    def measure(condition: Any, estimator: Any, repetitions: Any) -> Any:
        if getattr(estimator, "beta", None) == 0.98 and 0 in repetitions:
            raise ArithmeticError("unlucky")
        return measured(condition, estimator, repetitions)

    monkeypatch.setattr(sensitivity, "measure", measure)
    ran = kalmean("experiment=sensitivity", "stream.s=1e-3", "seeds=4", "stream.steps=3000")
    assert ran.code == 1
    assert "1 cell failed" in ran.err
    assert "Left out, as not all of their cells have a value: 1 of 18 rows." in ran.out
    assert "| beta=0.98 " not in ran.out


def test_where_all_fails_the_errors_are_named_and_no_figure_fails(kalmean: Any) -> None:
    settings = ["stream.domain=ratio", "stream.noise_variance=1", "stream.steps=2000", "seeds=2"]
    ran = kalmean("-m", "experiment=sensitivity", "stream.ramp=0,10", "stream.s=1e-4", *settings)
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "stream.domain=ratio: ratios overflow" in ran.err
    ran = kalmean("experiment=sensitivity", "stream.ramp=10", *settings, output="all")
    assert ran.code == 1
    assert "No setting has all of its cells." in ran.out


def test_the_closed_form_is_of_a_plain_random_walk_alone() -> None:
    assert sensitivity.is_plain_walk(GradientRatio(s=1e-2, r=3.0))
    for changed in ({"gap_rate": 0.1}, {"jump_rate": 0.1}, {"domain": "ratio"}, {"ramp": 0.1}):
        assert not sensitivity.is_plain_walk(GradientRatio(**changed))  # type: ignore[arg-type]
