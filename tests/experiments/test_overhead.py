"""What the runner costs: rows and goals by made-up processes, real ones where there is time for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import overhead
from experiments.cost import judged
from experiments.goals import Goal
from experiments.overhead import GOALS, MAIN, PEAK, Used, used
from experiments.summaries import COLUMNS

ROWS = {
    *(("own", who, "CPU per cell") for who in ("kalmean", "hydra basic launcher", "kalmean, repetitions")),
    *(("workers", who, "speed") for who in ("one", "two")),
}
TIMED = {(who, metric) for who in ("first", "again", "table anew") for metric in ("time", "memory")}
MET = {
    "CPU per cell, each of a setting of its own": 0.6,
    "Hydra's basic launcher, CPU over ours": 120.0,
    "finished, 10,000 cells, again": 1.0,
    "finished, 1,000,000 cells, again": 9.0,
    "the same, peak memory": 0.7,
    "the same, its table made anew": 21.0,
    "two workers over one, cells of 10 ms": 1.9,
}


def pretend(command: Sequence[str], folder: Path) -> Used:
    """A process of 0.5 s to start and so much for each cell, which leaves a finished run."""
    given = dict(part.split("=", 1) for part in command if "=" in part)
    if "app.py" in command[1]:
        n = len(given["a"].split(","))
        return Used(0.5 + 0.07 * n, 0.5 + 0.07 * n, 0.1)
    settings, repetitions = len(given["estimators.ema.beta"].split(",")), int(given["seeds"])
    run = Path(given["output"]) / "runs" / "idle-0"
    again = run.exists()
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "manifest.json").exists():
        (run / "manifest.json").write_text("{}")
    cells = settings * repetitions
    cpu = 0.5 + 0.6e-3 * settings + 5e-6 * cells
    waited = float(given.get("experiment.seconds", 0.0)) * cells
    workers = int([part for part in command if part.startswith("executor.workers=")][-1].partition("=")[2])
    return Used((0.3 if again else 0.5) + cpu + waited / max(1, workers), cpu, 0.1)


@pytest.fixture
def pretended(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(overhead, "used", pretend)
    return lambda *overrides: kalmean("experiment=overhead", *overrides)


def full() -> pd.DataFrame:
    """A summary as a run at scale 1 leaves it."""
    rows = [
        ("own", "kalmean", "CPU per cell", 0.6),
        ("own", "hydra basic launcher", "CPU per cell", 72.0),
        ("own", "kalmean, repetitions", "CPU per cell", 0.005),
    ]
    for name, times in (("10,000 cells", (2.0, 1.0, 1.5)), ("1,000,000 cells", (30.0, 9.0, 21.0))):
        for who, seconds in zip(("first", "again", "table anew"), times, strict=True):
            rows += [(name, who, "time", seconds), (name, who, "memory", 0.7)]
    rows += [("workers", "one", "speed", 95.0), ("workers", "two", "speed", 180.5)]
    table = pd.DataFrame(rows, columns=["stream", "estimator", "metric", "median"])
    return table.assign(n=3, low=table["median"] * 0.9, high=table["median"] * 1.1, unit="s")


# --- rows and text ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.1, 0.06, 0.02, 0.01, 0.001])
def test_all_rows_are_there_at_every_scale(scale: float, pretended: Any) -> None:
    ran = pretended(f"experiment.scale={scale}", "experiment.rounds=2")
    table = ran.table
    assert list(table.columns) == COLUMNS
    assert (table["status"] == "ok").all()
    assert np.isfinite(table["value"]).all()
    found = set(table[["stream", "estimator", "metric"]].itertuples(index=False, name=None))
    assert found >= ROWS
    timed = found - ROWS
    assert len({stream for stream, _, _ in timed}) == 2
    assert {(who, metric) for _, who, metric in timed} == TIMED
    assert len(timed) == 2 * len(TIMED)
    counts = table.groupby(["stream", "estimator", "metric"])["seed"].apply(list)
    assert all(seeds == [0, 1] for seeds in counts)


def test_slopes_leave_out_what_a_start_costs(pretended: Any) -> None:
    table = pretended("experiment.rounds=1").table
    value = table.set_index(["estimator", "metric"])["value"]
    assert value["kalmean", "CPU per cell"] == pytest.approx(0.605)
    assert value["hydra basic launcher", "CPU per cell"] == pytest.approx(70.0)
    assert value["kalmean, repetitions", "CPU per cell"] == pytest.approx(0.005)
    assert value["one", "speed"] == pytest.approx(100.0, rel=0.01)
    assert value["two", "speed"] == pytest.approx(200.0, rel=0.01)


def test_streams_at_scale_1_are_named_by_their_cells_and_every_goal_is_judged(pretended: Any) -> None:
    ran = pretended("experiment.rounds=1")
    assert {"10,000 cells", "1,000,000 cells"} <= set(ran.table["stream"])
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert "\nGoals:\n" in text
    assert "not measured" not in text
    lines = text.partition("Goals:")[2].splitlines()
    for goal in GOALS:
        (line,) = [line for line in lines if line.startswith(f"| {goal.what} ")]
        assert line.rstrip("| ").endswith(("met", "missed"))
        assert goal.asked in line


def test_a_smaller_run_says_that_the_goals_are_stated_at_scale_1(pretended: Any) -> None:
    text = (pretended("experiment.scale=0.1").folder / "summary.md").read_text(encoding="utf-8")
    assert "Goals (stated at scale 1; this run has 0.1):" in text
    assert "| finished, 1,000,000 cells, again " in text
    assert "not measured" in text


def test_a_second_run_that_rewrites_a_file_is_an_error(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def rewriting(command: Sequence[str], folder: Path) -> Used:
        found = pretend(command, folder)
        for manifest in folder.rglob("manifest.json"):
            manifest.write_text(json.dumps(manifest.stat().st_mtime_ns))
            (manifest.parent / f"left-{len(list(manifest.parent.iterdir()))}").touch()
        return found

    monkeypatch.setattr(overhead, "used", rewriting)
    said = refused("experiment=overhead", "experiment.scale=0.1")
    assert said == "experiment=overhead: the same command again rewrote a file"


@pytest.mark.slow
def test_real_processes_at_a_small_scale(kalmean: Any) -> None:
    ran = kalmean("experiment=overhead", "experiment.scale=0.01", "experiment.rounds=1")
    table = ran.table
    found = set(table[["stream", "estimator", "metric"]].itertuples(index=False, name=None))
    assert found >= ROWS
    assert len(table) == len(ROWS) + 2 * len(TIMED)
    assert np.isfinite(table["value"]).all()
    taken = table[table["metric"].isin(["time", "memory"])]
    assert (taken["value"] > 0.0).all()
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert all(goal.what in text for goal in GOALS)


# --- goals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.what)
def test_every_goal_finds_its_figure_in_a_full_summary(goal: Goal) -> None:
    reached = goal.reached(full())
    assert reached is not None
    assert reached == pytest.approx(MET[goal.what])
    assert judged(goal, full())[-1] == "met"


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.what)
def test_every_goal_misses_what_is_ten_times_worse(goal: Goal) -> None:
    worse = full()
    factor = 0.1 if goal.at_least else 10.0
    worse.loc[worse["estimator"] == goal.who, "median"] *= factor
    worse.loc[worse["metric"] == "memory", "median"] *= 10.0 if goal.metric == "memory" else 1.0
    worse = worse.assign(median=worse["median"] * (1.0 if goal.over else factor))
    assert judged(goal, worse)[-1] == "missed"


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: goal.what)
def test_a_goal_without_its_figure_is_not_measured(goal: Goal) -> None:
    there = full()
    judgement = judged(goal, there[there["estimator"] != goal.who])
    assert judgement[2:] == ["-", "-", "not measured"]


# --- processes ----------------------------------------------------------------------------------------------


def test_what_a_process_used_is_told(tmp_path: Path) -> None:
    program = "import pathlib, time; time.sleep(0.05); pathlib.Path('here').touch()"
    found = used([sys.executable, "-c", program], tmp_path)
    assert (tmp_path / "here").exists()
    assert found.time >= 0.05
    assert found.cpu > 0.0
    assert np.isnan(found.memory)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no process is told its peak memory here")
def test_the_memory_told_is_the_process_s_own(tmp_path: Path) -> None:
    ballast = np.ones(2**26)  # half a GiB here, which ru_maxrss of a child begins with
    found = used([sys.executable, "-c", MAIN, "--help"], tmp_path)
    assert ballast[-1] == 1.0
    assert 0.02 < found.memory < 0.5
    assert not (tmp_path / PEAK).exists()


def test_a_failing_command_is_one_line(tmp_path: Path) -> None:
    program = "import sys; print('a long story'); sys.exit('out of luck')"
    with pytest.raises(ValueError, match="out of luck") as caught:
        used([sys.executable, "-c", program], tmp_path)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"experiment=overhead: {sys.executable} -c ")
    assert "a long story" not in said.rpartition("failed:")[2]


def test_a_command_that_fails_in_silence_is_told_by_its_exit_status(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^experiment=overhead: .* failed: \D*3\D*$"):
        used([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_a_traceback_is_told_by_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="KeyError: 'missing'") as caught:
        used([sys.executable, "-c", "{}['missing']"], tmp_path)
    assert "Traceback" not in str(caught.value)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("match=noise_gain", "experiment=overhead has settings of its own; leave match and tune at none"),
        ("tune=rmse", "experiment=overhead has settings of its own; leave match and tune at none"),
        ("experiment.rounds=0", "experiment.rounds=0 is not valid; it must be an int >= 1"),
        ("experiment.rounds=-3", "experiment.rounds=-3 is not valid; it must be an int >= 1"),
        ("experiment.scale=0", "experiment.scale=0.0 is not valid; it must be in (0, 1]"),
        ("experiment.scale=1.5", "experiment.scale=1.5 is not valid; it must be in (0, 1]"),
        ("experiment.scale=nan", "experiment.scale=nan is not valid; it must be in (0, 1]"),
    ],
)
def test_what_is_refused(setting: str, message: str, refused: Any) -> None:
    assert refused("experiment=overhead", setting) == message
