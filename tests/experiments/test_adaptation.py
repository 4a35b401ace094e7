"""What not knowing q and r costs: a cell recomputed, what is told to whom, what is said of the goals."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import EMAWithVariance, Kalman, KalmanBank, SageHusaKalman, VariationalKalman, fit
from experiments import adaptation
from experiments.adaptation import FITTED, GOALS, Goal
from experiments.job import Job
from experiments.setup import Setup
from experiments.streams import GradientRatio
from experiments.summaries import median_interval

R = 1.7956
SMALL = ("experiment=adaptation", "seeds=8", "stream.steps=400")
TOLD_Q = ("variational_kalman", "sage_husa_kalman", "innovation_matching_kalman")
NEITHER = ("kalman_bank", "mehra_kalman", "sage_husa_neither")


def tables(text: str) -> list[dict[str, list[str]]]:
    """The tables of a text, each as its cells by row, the header as the row ``filter``."""
    found = []
    for block in text.split("\n\n"):
        if block.startswith("|"):
            lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
            found.append({name: cells for name, *cells in (lines[0], *lines[2:])})
    return found


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"[\d.]+", cell)]


def squared_error(estimator_of: Any, drawn: Any, skip: int) -> Any:
    """Of each repetition by itself, after the first samples."""
    errors = []
    for samples, level in zip(drawn.samples.T, drawn.level.T, strict=True):
        mean = np.asarray(estimator_of(samples).filter(samples).mean)
        errors.append(np.mean((mean - level)[skip:] ** 2))
    return np.array(errors)


# --- the sweep that is shipped ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> dict[tuple[int, float], Setup]:
    """Setups of the shipped sweep by length and s."""
    setups = [point.setup for point in Job.of(["experiment=adaptation"]).points]
    return {(one.stream.length(), one.stream.s): one for one in setups}  # type: ignore[attr-defined]


def test_the_shipped_sweep_has_two_lengths_of_seven_streams(shipped: dict[tuple[int, float], Setup]) -> None:
    ratios = [1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0]
    assert list(shipped) == [(steps, s) for steps in (200, 2000) for s in ratios]
    assert {setup.repetitions for setup in shipped.values()} == {200}
    assert {steps: setup.burn_in for (steps, _), setup in shipped.items()} == {200: 50, 2000: 500}


def test_each_filter_is_told_what_its_row_says(shipped: dict[tuple[int, float], Setup]) -> None:
    for (_, s), setup in shipped.items():
        own: Any = setup.estimators
        assert list(own) == ["kalman", *NEITHER[:2], *TOLD_Q, NEITHER[2], "ema_099", "ema_09"]
        assert (own["kalman"].q, own["kalman"].r) == (pytest.approx(s * R, rel=1e-14), R)
        for name in TOLD_Q:
            assert own[name].q == own["kalman"].q
            assert getattr(own[name], "r", None) is None
        assert own["sage_husa_neither"] == SageHusaKalman(signal_to_noise=0.1)
        assert own["kalman_bank"] == KalmanBank()
        assert [own["ema_099"].beta, own["ema_09"].beta] == [0.99, 0.9]


def test_what_is_told_follows_the_stream() -> None:
    (point,) = Job.of(["experiment=adaptation", "stream.s=0.02", "stream.r=3", "stream.steps=300"]).points
    own: Any = point.setup.estimators
    assert own["variational_kalman"].q == own["kalman"].q == pytest.approx(0.06, rel=1e-14)
    assert own["kalman"].r == 3.0


def test_a_row_can_be_added() -> None:
    extra = "+estimators.mine={kind: ema_with_variance, beta: 0.8}"
    (point,) = Job.of(["experiment=adaptation", "stream.s=0.02", "stream.steps=300", extra]).points
    assert point.setup.estimators["mine"] == EMAWithVariance(0.8)
    assert len(point.setup.estimators) == 10


# --- what is measured ---------------------------------------------------------------------------------------


def test_one_cell_recomputed_has_the_figures_that_the_tables_show(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "stream.s=0.01")
    drawn = GradientRatio(steps=400, s=0.01).draw(range(8), 0)
    assert drawn.level is not None
    least = squared_error(lambda _: Kalman(q=0.01 * R, r=R), drawn, 100)
    own = {
        "kalman_bank": squared_error(lambda _: KalmanBank(), drawn, 100),
        "variational_kalman": squared_error(lambda _: VariationalKalman(q=0.01 * R), drawn, 100),
        "ema_09": squared_error(lambda _: EMAWithVariance(0.9), drawn, 100),
    }
    ratio, coverage = tables(ran.out)
    for name, error in own.items():
        assert ran.values("mse", name) == pytest.approx(error, rel=1e-9)
        assert ran.values("mse_ratio", name) == pytest.approx(error / least, rel=1e-9)
        median, low, high = median_interval(error / least)
        value, reach = numbers(ratio[name][-1])
        assert value == pytest.approx(median, rel=0.05)
        assert reach == pytest.approx(max(high - median, median - low), rel=0.5, abs=1e-3)
    fitted = squared_error(lambda x: fit(x).estimator(), drawn, 100)
    assert ran.values("fit_mse_ratio", "kalman") == pytest.approx(fitted / least, rel=1e-9)
    assert ran.values("mse_ratio", "kalman") == pytest.approx(np.ones(8), rel=1e-12)
    assert numbers(ratio["oracle: its MSE / r"][-1])[0] == pytest.approx(np.mean(least) / R, rel=0.1)

    lower, upper = KalmanBank().filter(drawn.samples).interval(0.95)
    inside = ((lower <= drawn.level) & (drawn.level <= upper))[100:]
    assert ran.values("coverage", "kalman_bank") == pytest.approx(inside.mean(axis=0), abs=1e-12)
    assert numbers(coverage["kalman_bank"][-1])[0] == pytest.approx(inside.mean(), abs=0.01)


def test_the_fit_stands_in_the_tables_and_beside_the_oracle_alone(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "stream.s=0.1")
    table = ran.table
    assert set(table.loc[table["metric"].str.startswith("fit_"), "estimator"]) == {"kalman"}
    ratio, coverage = tables(ran.out)
    assert list(ratio)[1:4] == ["oracle: its MSE / r", FITTED, "kalman_bank"]
    assert list(coverage)[1:4] == ["oracle", FITTED, "kalman_bank"]
    assert ratio[FITTED][0] == "the stream"
    assert {ratio[name][0] for name in NEITHER} == {"neither"}
    assert {ratio[name][0] for name in TOLD_Q} == {"q"}
    assert ratio["ema_099"][0] == "beta = 0.99"
    assert "not\ncausal" in ran.out


def test_a_filter_that_is_told_something_else_is_no_oracle(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "stream.s=0.1", "estimators.kalman.q=0.01")
    ratio, _ = tables(ran.out)
    assert ratio["kalman"][0] == "q, r"
    assert numbers(ratio["kalman"][1])[0] > 1.05
    assert FITTED not in ratio
    assert "oracle: its MSE / r" not in ratio
    assert "Batch fit:" not in ran.out


@pytest.mark.slow
def test_a_setting_that_is_swept_has_a_row_for_each_value(kalmean: Any) -> None:
    ran = kalmean("-m", *SMALL, "stream.s=0.1", "estimators.kalman_bank.per_decade=1,3")
    ratio, _ = tables(ran.out)
    rows = [name for name in ratio if name.startswith("kalman_bank")]
    assert rows == ["kalman_bank (per_decade=1)", "kalman_bank (default)"]


def test_what_is_swept_besides_s_has_tables_of_its_own(kalmean: Any) -> None:
    ran = kalmean("-m", *SMALL, "stream.s=0.01,0.1", "stream.r=1,4")
    first, _, second, _ = tables(ran.out)
    assert first["filter"] == second["filter"] == ["told", "s = 0.01", "s = 0.1"]
    assert "n = 400, r = 1, the first 100 not counted: MSE" in ran.out
    assert "n = 400, r = 4, the first 100 not counted: MSE" in ran.out
    # The noise is scaled by a power of two, and all else with it: ratios are free of scale.
    assert first["kalman_bank"] == second["kalman_bank"]
    assert first["variational_kalman"] == second["variational_kalman"]


# --- what is said -------------------------------------------------------------------------------------------


def test_goals_are_stated_with_their_figures(kalmean: Any) -> None:
    steps = "stream.steps=2000"
    ran = kalmean("-m", "experiment=adaptation", "seeds=8", steps, "stream.s=0.01,0.1,0.3")
    assert ran.code == 0
    summary = ran.summary
    said = ran.out.partition("Goals, on streams of 2,000 samples:\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(said) == len(GOALS) == 3
    metrics = ("mse_ratio", "mse_ratio", "fit_mse_ratio")
    for line, goal, metric, count in zip(said, GOALS, metrics, (3, 2, 3), strict=True):
        name = "kalman" if metric.startswith("fit_") else goal.who
        own = summary[(summary["metric"] == metric) & (summary["estimator"] == name)]
        own = own[own["stream"].str.extract(r"s=([\d.]+)$", expand=False).astype(float) >= goal.lowest]
        worst: Any = own.loc[own["median"].idxmax()]
        assert len(own) == count
        s = worst["stream"].rpartition("s=")[2]
        verdict = "reached" if worst["median"] <= goal.bound else "missed"
        if worst["median_low"] <= goal.bound < worst["median_high"]:
            verdict = "undecided"
        figure = f"{worst['median']:.3f} [{worst['median_low']:.3f}, {worst['median_high']:.3f}] at s = {s}"
        assert line == f"- {verdict}: {goal.asked}; largest of {count}: {figure}"
    assert "The bank has a member at s = 0.01, 0.1, and none at s = 0.3." in ran.out
    text = [line for line in ran.out.splitlines() if not line.startswith(("|", "written"))]
    assert max(map(len, text)) <= 110


def test_goals_may_be_missed_undecided_or_not_measured(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    goals = Goal("ema_099", 1.05, 1e-3, 1.0), Goal("nobody", 1.0), Goal("mehra_kalman", 1.003)
    monkeypatch.setattr(adaptation, "GOALS", goals)
    ran = kalmean("experiment=adaptation", "seeds=6", "stream.steps=2000", "stream.s=1")
    assert re.search(r"- missed: ema_099 <= 1\.05 for s from 0\.001 to 1; largest of 1: \d\d", ran.out)
    assert "- not measured: nobody <= 1 for every s\n" in ran.out
    assert "- undecided: mehra_kalman <= 1.003 for every s; largest of 1: 1.0" in ran.out


def test_goals_of_other_lengths_are_not_measured(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "stream.s=0.1")
    assert ran.out.count("- not measured: ") == 3
    assert "- reached" not in ran.out


def test_too_few_repetitions_for_an_interval_claim_none(kalmean: Any) -> None:
    ran = kalmean("experiment=adaptation", "seeds=2", "stream.steps=2000", "stream.s=0.1")
    ratio, _ = tables(ran.out)
    assert "±" not in ratio["kalman_bank"][1]
    assert re.search(r"largest of 1: \d\.\d{3} at s = 0\.1\n", ran.out)


def test_errors_that_a_median_hides_are_told(kalmean: Any) -> None:
    ran = kalmean("experiment=adaptation", "seeds=40", "stream.steps=200", "stream.s=1e-4")
    summary = ran.summary.set_index(["estimator", "metric"])
    least = summary.loc[("kalman", "mse"), "mean"]
    far = {}
    for name in ("variational_kalman", "kalman_bank", "mehra_kalman", "ema_09"):
        mean = summary.loc[(name, "mse"), "mean"] / least
        median = summary.loc[(name, "mse_ratio"), "median"]
        said = f"- {name}: {mean:.3g}, where the median of the ratio is {median:.3g} (n = 200, s = 0.0001)\n"
        far[name] = mean / median >= 1.25
        assert (said in ran.out) == far[name]
    assert far["variational_kalman"]
    assert not far["kalman_bank"]


@pytest.mark.slow
def test_the_figure_is_drawn(kalmean: Any) -> None:
    ran = kalmean("-m", *SMALL[:2], "stream.steps=200,400", "stream.s=0.01,0.1")
    assert (ran.folder / "figures" / "ratio.png").stat().st_size > 10_000
    assert "sage\\_husa\\_neither" in (ran.folder / "summary.tex").read_text(encoding="utf-8")


def test_the_lines_of_the_figure_differ() -> None:
    assert len({str(adaptation._style(index)) for index in range(10)}) == 10


@pytest.mark.slow
def test_cells_that_fail_are_counted(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = adaptation.measure

    def measure(condition: Any, estimator: Any, repetitions: Any) -> Any:
        if isinstance(estimator, KalmanBank) and 0 in repetitions:
            raise ArithmeticError("unlucky")
        return measured(condition, estimator, repetitions)

    monkeypatch.setattr(adaptation, "measure", measure)
    ran = kalmean(*SMALL, "stream.s=0.1")
    assert ran.code == 1
    assert "Without the 1 of 72 cells that failed." in ran.out


@pytest.mark.slow
def test_where_all_cells_fail_nothing_else_does(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(condition: Any, estimator: Any, repetitions: Any) -> Any:
        raise ArithmeticError("unlucky")

    monkeypatch.setattr(adaptation, "measure", measure)
    ran = kalmean(*SMALL, "stream.s=0.1")
    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "Without the 72 of 72 cells that failed." in ran.out


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "stream.ramp=0.1",
        "stream.gap_rate=0.1",
        "stream.outlier_rate=0.1",
        "stream.correlation=0.5",
        "stream.degrees_of_freedom=4",
        "stream.domain=ratio",
        "stream.s=0",
    ],
)
def test_streams_that_q_and_r_do_not_describe_are_refused_in_one_line(override: str, kalmean: Any) -> None:
    s = [] if override.startswith("stream.s=") else ["stream.s=0.1"]
    ran = kalmean("experiment=adaptation", "seeds=2", "stream.steps=100", *s, override)
    assert ran.code == 2
    assert ran.out == ""
    (line,) = (line for line in ran.err.splitlines() if line.startswith("kalmean: "))
    assert line.startswith("kalmean: experiment=adaptation needs a plain random walk in white Gaussian noise")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("stream", ["recorded", "step", "sinusoid"])
def test_streams_without_s_are_refused_before_anything_is_run(stream: str, refused: Any) -> None:
    assert "stream" in refused("experiment=adaptation", f"stream={stream}")


def test_a_stream_without_a_known_level_is_refused_by_the_report() -> None:
    panel: Any = type("Panel", (), {"setup": Job.of(["stream=recorded"]).setup})
    with pytest.raises(ValueError, match=r"^experiment=adaptation needs streams whose level is known; .*$"):
        adaptation.report([panel], pd.DataFrame())
