"""Cells recomputed, wrong settings caught and right ones left alone, the most powerful test, and the text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from estimators import Kalman, KalmanBank, diagnose, fit
from experiments import calibration
from experiments.calibration import Goal, mean_square_bounds, misstated
from experiments.job import Job
from experiments.streams import GradientRatio, RegimeChange

SMALL = ("seeds=60", "stream.steps=600", "experiment.simulated=400")
WRONG = {"r_times_4": {"r": 4.0}, "r_over_4": {"r": 0.25}, "q_times_4": {"q": 4.0}, "q_over_4": {"q": 0.25}}
ROWS = ["kalman", "kalman_bank", "ema_with_variance", *WRONG]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two streams of the shipped sweep, short ones, as table, summary, text and folder."""
    from experiments.__main__ import main

    output = tmp_path_factory.mktemp("calibration")
    assert main(["-m", "experiment=calibration", "stream.s=1e-2,1", *SMALL, f"output={output}"]) == 0
    (folder,) = (output / "runs").iterdir()
    return Run(folder)


class Run:
    """What a run left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table: Any = pd.read_csv(folder / "table.csv")
        self.summary: Any = pd.read_csv(folder / "summary.csv")
        self.text = (folder / "summary.md").read_text(encoding="utf-8")

    def values(self, row: str, s: str, metric: str) -> Any:
        """One value per repetition."""
        table = self.table
        stream = f"gradient_ratio s={s}"
        own = table[(table["estimator"] == row) & (table["stream"] == stream) & (table["metric"] == metric)]
        return own.sort_values("seed")["value"].to_numpy()

    def mean(self, row: str, s: str, metric: str) -> float:
        values = self.values(row, s, metric)
        assert len(values) == 60
        return float(values.mean())


def drawn(s: float) -> tuple[GradientRatio, Any, Any]:
    """The streams of the run, and their levels."""
    stream = GradientRatio(steps=600, s=s)
    of = stream.draw(range(60), 0, "evaluate")
    return stream, of.samples, of.level


# --- cells, recomputed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "q", "r"), [("kalman", 1.0, 1.0), ("q_over_4", 0.25, 1.0)])
def test_a_cell_is_what_a_filter_by_hand_gives(ran: Any, row: str, q: float, r: float) -> None:
    stream, samples, levels = drawn(1e-2)
    x, level = samples[:, 7], levels[:, 7]
    q, r = q * stream.s * stream.r, r * stream.r
    mean, variance, held, width, nis, nees = x[0], r, [], [], [], []
    for t in range(1, 600):
        expected = variance + q + r
        innovation = x[t] - mean
        gain = (variance + q) / expected
        mean, variance = mean + gain * innovation, r * gain
        if t >= 150:
            held.append(
                [abs(mean - level[t]) <= z * np.sqrt(variance) for z in (0.67449, 1.644854, 1.959964)]
            )
            width.append(2 * 1.959964 * np.sqrt(variance / stream.r))
            nis.append(innovation**2 / expected)
            nees.append((mean - level[t]) ** 2 / variance)
    for percent, share in zip((50, 90, 95), np.mean(held, axis=0), strict=True):
        assert ran.values(row, "0.01", f"coverage_{percent}")[7] == pytest.approx(share, abs=1e-12)
    expected_values = {"width_95": np.mean(width), "nis": np.mean(nis), "nees": np.mean(nees)}
    expected_values |= {"nees_at_end": nees[-1]}
    low, high = stats.chi2.ppf([0.025, 0.975], 450) / 450
    expected_values |= {"nis_within": float(low <= np.mean(nis) <= high)}
    for metric, value in expected_values.items():
        assert ran.values(row, "0.01", metric)[7] == pytest.approx(value, rel=1e-6), metric


def test_flags_are_those_of_diagnose_on_all_samples(ran: Any) -> None:
    _, samples, _ = drawn(1.0)
    r = GradientRatio().r
    for row, estimator in (("kalman", Kalman(r, r)), ("kalman_bank", KalmanBank())):
        for seed in range(3):
            found = diagnose(estimator.filter(samples[:, seed]))
            assert ran.values(row, "1", "flagged")[seed] == (not found.consistent)
            for check in found.family:
                metric = check.name.lower().replace(" ", "_") + "_rejects"
                assert ran.values(row, "1", metric)[seed] == (float(check.p_value) < 0.05)


def test_the_fitted_filter_is_that_of_its_own_stream(ran: Any) -> None:
    stream, samples, levels = drawn(1e-2)
    low, high = fit(samples[:, 4]).estimator().filter(samples[:, 4]).interval(0.95)
    held = (low <= levels[:, 4]) & (levels[:, 4] <= high)
    assert ran.values("kalman", "0.01", "fitted_coverage_95")[4] == pytest.approx(
        held[150:].mean(), abs=1e-12
    )
    width = (high - low)[150:].mean() / np.sqrt(stream.r)
    assert ran.values("kalman", "0.01", "fitted_width_95")[4] == pytest.approx(width, rel=1e-9)
    assert not len(ran.values("q_over_4", "0.01", "fitted_coverage_95"))


def test_bounds_are_chi_squared_over_their_degrees() -> None:
    for n, low, high in ((100, 0.7422192747, 1.2956119719), (500, 0.8798719825, 1.1277030587)):
        assert mean_square_bounds(n) == pytest.approx((low, high), rel=1e-9)


# --- what is caught -----------------------------------------------------------------------------------------


def test_a_right_interval_covers_and_is_seldom_flagged(ran: Any) -> None:
    for s in ("0.01", "1"):
        for percent in (50, 90, 95):
            values = ran.values("kalman", s, f"coverage_{percent}")
            error = values.std(ddof=1) / np.sqrt(values.size)
            assert abs(values.mean() - percent / 100) < 4.0 * error
        assert ran.mean("kalman", s, "flagged") <= 0.15
        assert ran.mean("kalman", s, "nees") == pytest.approx(1.0, abs=0.15)
        assert ran.mean("kalman", s, "nis_within") >= 0.85


def test_wrong_rows_are_caught_and_their_intervals_wrong(ran: Any) -> None:
    for s in ("0.01", "1"):
        for row, factors in WRONG.items():
            (times,) = factors.values()
            wide = times > 1.0
            assert (ran.mean(row, s, "coverage_95") > 0.955) == wide
            assert (ran.mean(row, s, "nees") < 0.95) == wide
            if s == "1" or "r" in factors:
                assert ran.mean(row, s, "flagged") >= 0.98, (row, s)
                assert ran.mean(row, s, "most_powerful_rejects") == 1.0
            else:
                assert ran.mean(row, s, "likelihood_ratio_rejects") >= 0.6, (row, s)
    assert ran.mean("ema_with_variance", "1", "coverage_95") < 0.3
    assert ran.mean("ema_with_variance", "1", "flagged") == 1.0


def test_factors_are_those_of_the_stream() -> None:
    stream = GradientRatio(s=0.1, r=2.0)
    assert misstated(Kalman(0.2, 2.0), stream) == {}
    assert misstated(Kalman(0.8, 1.0), stream) == pytest.approx({"q": 4.0, "r": 0.5})
    assert misstated(Kalman(0.2, 2.0), replace(stream, s=0.0)) == {"q": np.inf}
    assert misstated(Kalman(0.2, 2.0), replace(stream, gap_rate=0.1)) is None
    assert misstated(Kalman(0.2, 2.0), RegimeChange(s=0.1, r=2.0)) is None
    assert misstated(KalmanBank(), stream) is None


# --- the most powerful test ---------------------------------------------------------------------------------


def test_the_most_powerful_test_errs_in_5_percent_and_finds_more() -> None:
    stream = GradientRatio(steps=400, s=1e-3)
    true, stated = Kalman(stream.s * stream.r, stream.r), Kalman(4.0 * stream.s * stream.r, stream.r)
    critical = calibration._critical(true, stated, 400, 0, 4000)
    as_stated = replace(stream, s=4.0 * stream.s).draw(range(2000), 5)
    ratios = calibration._log_ratio(true, stated, as_stated.samples)
    assert np.mean(ratios > critical) == pytest.approx(0.05, abs=0.02)
    samples = stream.draw(range(400), 5).samples
    power = np.mean(calibration._log_ratio(true, stated, samples) > critical)
    ratio = diagnose(stated.filter(samples)).likelihood_ratio
    assert ratio is not None
    assert np.mean(np.asarray(ratio.p_value) < 0.05) < power < 1.0


def test_the_critical_value_is_the_same_wherever_it_is_computed() -> None:
    true, stated = Kalman(0.1, 1.0), Kalman(0.4, 1.0)
    first = calibration._critical.__wrapped__(true, stated, 100, 3, 150)
    assert calibration._critical.__wrapped__(true, stated, 100, 3, 150) == first
    assert calibration._critical.__wrapped__(true, stated, 100, 4, 150) != first


# --- the sweep that is shipped ------------------------------------------------------------------------------


def test_the_shipped_sweep_states_what_its_rows_say() -> None:
    points = Job.of(["experiment=calibration"]).points
    assert [point.setup.stream.s for point in points] == [1e-4, 1e-3, 1e-2, 0.1, 1.0]  # type: ignore[attr-defined]
    for point in points:
        setup = point.setup
        assert list(setup.estimators) == ROWS
        assert (setup.stream.length(), setup.burn_in, setup.repetitions) == (1000, 250, 1000)
        told = {name: misstated(setup.estimators[name], setup.stream) for name in ("kalman", *WRONG)}
        assert told == {"kalman": {}, **{name: pytest.approx(by) for name, by in WRONG.items()}}


def test_a_row_is_added_on_the_command_line(kalmean: Any) -> None:
    added = (
        "+estimators.both={kind: kalman, q: 0.05, r: 3}",
        "+estimators.still={kind: kalman, q: 0, r: 1.7956}",
    )
    few = ("seeds=3", "stream.steps=200", "experiment.simulated=100", "estimators=[kalman]")
    ran = kalmean("experiment=calibration", "stream.s=0.1", *added, *few)
    assert ran.code == 0
    cells = [[cell.strip() for cell in line.split("|")] for line in ran.out.splitlines()]
    told = {(cell[1], cell[2]) for cell in cells if cell[1:2] in (["both"], ["still"])}
    assert told == {("both", "q / 3.591, r x 1.671"), ("still", "q x 0")}
    assert "kalman_bank" not in ran.out


# --- what is printed ----------------------------------------------------------------------------------------


def block(text: str, title: str) -> list[list[str]]:
    """Cells of the table under a title, without header and rule."""
    lines = text.partition(f"{title}\n\n")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_tables_are_those_of_the_summary(ran: Any) -> None:
    assert ran.text.startswith(
        "calibration: 2 streams of 600 samples, 60 repetitions of each, root seed 0.\n"
        "Intervals, NIS and NEES after the first 150 samples; tests on all, at a level of 5 %.\n"
    )
    lines = block(ran.text, "Share of levels inside the stated 95 % interval:")
    assert [line[0] for line in lines] == ["kalman", "kalman fitted", *ROWS[1:]]
    assert [line[1] for line in lines[-4:]] == ["r x 4", "r / 4", "q x 4", "q / 4"]
    assert [line[1] for line in lines[:4]] == ["q and r", "neither", "neither", "neither"]
    for row, _, *cells in lines:
        name, metric = row.removesuffix(" fitted"), "coverage_95"
        if name != row:
            metric = f"fitted_{metric}"
        for cell, s in zip(cells, ("0.01", "1"), strict=True):
            shown, _, half = cell.partition(" ± ")
            assert ran.mean(name, s, metric) == pytest.approx(float(shown), abs=0.5 * 10.0 ** -len(half[2:]))
    flagged = block(ran.text, "Share of repetitions in which a wrong filter is noticed:")
    assert len(flagged) == 2 + 1 + 1 + 1 + 4 * 3
    assert (ran.folder / "figures" / "calibration.png").stat().st_size > 10_000
    assert "likelihood ratio" in (ran.folder / "summary.tex").read_text(encoding="utf-8")
    assert max(len(line) for line in ran.text.splitlines() if not line.startswith("|")) <= 110


def test_every_goal_is_judged(ran: Any) -> None:
    goals = ran.text.partition("Goals, set for 1,000 samples; of several figures the worst:\n\n")[2]
    goals = " ".join(goals.split())
    for what in (
        "- Coverage of 95 % where q and r are told: asked 0.950 ± 0.005, found ",
        "- r wrong by 4, flagged: asked 0.99 or more, found 1 (r_times_4, s=0.01): met.",
        "- q wrong by 4, s from 0.1, flagged: asked 0.99 or more, found ",
        "- q wrong by 4, s from 0.01 to 0.1, by likelihood ratio alone: asked 0.95 or more, found ",
        "- Flagged where q and r are told: asked 0.05 or less, found ",
    ):
        assert what in goals
    assert goals.count("): met") + goals.count("): missed") == 5


def test_a_goal_is_judged_by_its_worst_figure() -> None:
    ones = [
        {"mean": mean, "high": mean + 0.0005, "row": "kalman", "at": f"s={mean}"}
        for mean in (0.952, 0.944, 0.951)
    ]
    told = Goal("Coverage", "coverage_95", 0.95, beside=0.005).judged(ones)
    assert told == "Coverage: asked 0.950 ± 0.005, found 0.9440 ± 0.0005 (kalman, s=0.944): missed."
    assert Goal("Coverage", "coverage_95", 0.95, beside=0.005).judged(ones[:1]).endswith(": met.")
    assert Goal("Flagged", "flagged", 0.951, at_least=True).judged(ones).endswith("s=0.944): missed.")
    assert Goal("Flagged", "flagged", 0.952).judged(ones).endswith("s=0.952): met, by less than its ±.")


def test_slow_walks_stand_beside_the_most_powerful_test(kalmean: Any) -> None:
    few = ("seeds=20", "stream.steps=300", "experiment.simulated=200")
    ran = kalmean("experiment=calibration", "stream.s=1e-3", *few)
    assert ran.code == 0
    for row in ("q_times_4", "q_over_4"):
        assert f"({row}, gradient_ratio)." in " ".join(ran.out.split())
    assert ran.out.count("- q wrong by 4, s below 0.01, no goal: flagged ") == 2
    assert "s from 0.1" not in ran.out


def test_where_the_truth_is_no_plain_walk_nothing_is_judged(kalmean: Any) -> None:
    few = ("seeds=4", "stream.steps=300", "stream.gap_rate=0.05")
    ran = kalmean("experiment=calibration", "stream.s=0.1", *few)
    assert ran.code == 0
    assert "Goals" not in ran.out
    assert "| most powerful |" not in ran.out
    assert "| kalman            | q and r as set |" in ran.out


# --- what is refused ----------------------------------------------------------------------------------------


def test_streams_without_a_known_level_are_refused(refused: Any) -> None:
    assert "stream.s" in refused("experiment=calibration", "stream=recorded")


def test_they_are_refused_by_measure_and_report_too() -> None:
    setup = Job.of(["stream=recorded", "estimators=[kalman]"]).setup
    condition = replace(setup.condition(calibration.measure), parameters=calibration.Parameters())
    line = r"^experiment=calibration needs streams whose level is known; choose stream=gradient_ratio$"
    with pytest.raises(ValueError, match=line):
        calibration.measure(condition, setup.estimators["kalman"], [0])
    panel: Any = type("Panel", (), {"setup": setup})
    with pytest.raises(ValueError, match=line):
        calibration.report([panel], pd.DataFrame())


def test_an_estimator_without_an_interval_fails_in_one_line(kalmean: Any) -> None:
    few = ("seeds=2", "stream.steps=200", "experiment.simulated=100")
    ran = kalmean("experiment=calibration", "stream.s=0.1", "estimators=[ema]", *few)
    assert ran.code == 1
    assert "EMA states no interval, so there is none to check" in ran.err
    assert "Traceback" not in ran.err
    assert "| r_over_4 " in ran.out


def test_too_few_simulations_are_refused(refused: Any) -> None:
    line = refused("experiment=calibration", "experiment.simulated=99")
    assert line.startswith("experiment.simulated=99 is not valid; it must be an int >= 100")
