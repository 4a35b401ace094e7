"""Whole sweeps: the same table by any road, nothing lost to a death, nothing run twice."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent.parent
SLURM = ROOT / "tests" / "services" / "slurm.sh"
SWEEP = [
    *("-m", "stream.steps=60", "seeds=12", "estimators=[ema,kalman,moving_average]"),
    *("estimators.ema.beta=0.5,0.9", "stream.s=1e-3,1e-2", "stream.gap_rate=0.05"),
]
CELLS = 2 * 4 * 12
IDLE = [
    "-m",
    "experiment=idle",
    "experiment.seconds=0.005",
    "stream.steps=1000",
    "seeds=60",
    "estimators=[ema]",
]
IDLE = [
    *("-m", "experiment=idle", "experiment.seconds=0.004", "stream.steps=10000"),
    *("seeds=250", "estimators=[ema]"),
]
IDLE_CELLS = 250
PLAIN = (
    "import sys; from experiments import compare; from experiments.__main__ import main\n"
    "compare._figures = lambda *_: {}\n"
    "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))\n"
)


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """The command line without figures, the slow part of a small run."""
    path = tmp_path / "driver.py"
    path.write_text(PLAIN)
    return path


def command(driver: Path, *overrides: str) -> list[str]:
    return [sys.executable, str(driver), *overrides]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def ran(driver: Path, *overrides: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(driver, *overrides), env=environment(**more), capture_output=True, text=True, check=False
    )


def begun(driver: Path, *overrides: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(driver, *overrides),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def the_run(output: Path) -> Path:
    (run,) = (run for run in (output / "runs").glob("*-*") if not run.name.startswith("."))  # of kills
    return run


def table(output: Path) -> bytes:
    return (the_run(output) / "table.csv").read_bytes()


def standing(err: str) -> tuple[int, int, int]:
    """How the cells stood at the start, as printed: done, failed, to run."""
    found = re.search(r"^cells: ([\d,]+) done, ([\d,]+) failed, ([\d,]+) to run$", err, re.MULTILINE)
    assert found, err
    done, failed, to_run = (int(number.replace(",", "")) for number in found.groups())
    return done, failed, to_run


def shards(output: Path) -> list[Path]:
    return sorted((output / "cells").rglob("*.jsonl"))


def stored(output: Path) -> dict[tuple[str, str, int], int]:
    """How often each cell is in the store; every shard must be whole."""
    found: dict[tuple[str, str, int], int] = {}
    for path in shards(output):
        head, body = map(json.loads, path.read_text().splitlines())
        assert head["condition"] in str(path)
        assert body["versions"]
        for setting, ranges in head["done"].items():
            for first, last in ranges:
                for repetition in range(first, last + 1):
                    cell = head["condition"], setting, repetition
                    found[cell] = found.get(cell, 0) + 1
    return found


def descendants(session: int) -> list[int]:
    """Live processes of a session, as a driver and all that it started form one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


def gone(session: int, patience: float = 20.0) -> bool:
    """Whether nothing of a session is left after a while."""
    deadline = time.monotonic() + patience
    while descendants(session):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """The sweep's table and summary, made by one process in one go."""
    folder = tmp_path_factory.mktemp("reference")
    driver = folder / "driver.py"
    driver.write_text(PLAIN)
    done = ran(driver, *SWEEP, f"output={folder}/out", "executor.workers=0")
    assert done.returncode == 0, done.stderr
    assert standing(done.stderr) == (0, 0, CELLS)
    return table(folder / "out"), (the_run(folder / "out") / "summary.csv").read_bytes()


# --- the same table by any road -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["2", *(pytest.param(n, marks=pytest.mark.slow) for n in "17")])
def test_any_number_of_workers_leaves_the_same_bytes(
    workers: str, driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    done = ran(driver, *SWEEP, f"output={tmp_path}/out", f"executor.workers={workers}")
    assert done.returncode == 0, done.stderr
    assert (table(tmp_path / "out"), (the_run(tmp_path / "out") / "summary.csv").read_bytes()) == reference
    assert set(stored(tmp_path / "out").values()) == {1}
    assert len(stored(tmp_path / "out")) == CELLS


@pytest.mark.slow
def test_any_order_and_any_chunks_leave_the_same_bytes(
    driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    shuffled = (
        "import random; from experiments import runner\n"
        "inner, dice = runner._pieces, random.Random(1)\n"
        "def pieces(missing):\n"
        "    cells = [(c, s, (r,)) for c, s, own in inner(missing) for r in own]\n"
        "    dice.shuffle(cells)\n"
        "    return iter(cells)\n"
        "runner._pieces = pieces\n"
    )
    driver.write_text(shuffled + PLAIN)
    done = ran(driver, *SWEEP, f"output={tmp_path}/out", "executor.workers=0")
    assert done.returncode == 0, done.stderr
    assert table(tmp_path / "out") == reference[0]


@pytest.mark.slow
def test_what_was_computed_for_other_sweeps_is_used_and_only_the_rest_is_run(
    driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    output = f"output={tmp_path}/out"
    fewer = [override for override in SWEEP if not override.startswith(("seeds", "estimators="))]
    done = ran(driver, *fewer, "seeds=5", "estimators=[ema,kalman]", output, "executor.workers=0")
    assert standing(done.stderr) == (0, 0, 2 * 3 * 5), done.stderr
    done = ran(driver, *fewer, "seeds=12", "estimators=[ema,kalman]", output, "executor.workers=0")
    assert standing(done.stderr) == (30, 0, 2 * 3 * 7)
    done = ran(driver, *SWEEP, output, "executor.workers=0")
    assert standing(done.stderr) == (72, 0, 2 * 12)
    (run,) = [run for run in (tmp_path / "out" / "runs").iterdir() if str(run) in done.stdout]
    assert (run / "table.csv").read_bytes() == reference[0]


@pytest.mark.slow
def test_a_finished_sweep_again_changes_no_file(driver: Path, tmp_path: Path) -> None:
    settings = [*SWEEP, f"output={tmp_path}/out", "executor.workers=0"]
    first = ran(driver, *settings)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    again = ran(driver, *settings)
    assert standing(again.stderr) == (CELLS, 0, 0)
    assert "unchanged, from an earlier run" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before
    shutil.rmtree(the_run(tmp_path / "out"))
    third = ran(driver, *settings)  # the table is made anew from the store, which is only read
    assert standing(third.stderr) == (CELLS, 0, 0)
    assert third.stdout == first.stdout
    assert {path: path.stat().st_mtime_ns for path in shards(tmp_path / "out")} == {
        path: at for path, at in before.items() if path.suffix == ".jsonl"
    }


@pytest.mark.slow
def test_two_sweeps_at_once_share_a_store(
    driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    settings = [*SWEEP, f"output={tmp_path}/out", "executor.workers=1"]
    both = [begun(driver, *settings) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert table(tmp_path / "out") == reference[0]
    assert len(stored(tmp_path / "out")) == CELLS


@pytest.mark.slow
def test_changed_code_never_serves_an_old_number(driver: Path, tmp_path: Path) -> None:
    for package in ("estimators", "experiments", "conf"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "results").mkdir()
    settings = ["seeds=2", "stream.steps=50", "estimators=[ema,moving_average]", "output=out"]

    def again() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(driver), *settings, "executor.workers=0"],
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(tmp_path), NUMBA_DISABLE_JIT="1"),  # compiling would take longer
            capture_output=True,
            text=True,
            check=False,
        )

    assert standing(again().stderr) == (0, 0, 4)
    source = tmp_path / "estimators" / "moving_average.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert standing(again().stderr) == (2, 0, 2)
    source = tmp_path / "experiments" / "tables.py"
    source.write_text(source.read_text() + "\n# no number rests on it\n")
    assert standing(again().stderr) == (4, 0, 0)
    source = tmp_path / "experiments" / "metrics.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert standing(again().stderr) == (0, 0, 4)


# --- failures -----------------------------------------------------------------------------------------------

FAILING = (
    "import os; from experiments import idle\n"
    "calm = idle.measure\n"
    "def measure(condition, estimator, repetitions):\n"
    "    if os.path.exists(os.environ['TRAP']) and 7 in repetitions: {do}\n"
    "    return calm(condition, estimator, repetitions)\n"
    "idle.measure = measure\n"
)


@pytest.mark.slow
def test_a_cell_that_raises_is_recorded_retried_and_never_a_result(driver: Path, tmp_path: Path) -> None:
    driver.write_text(FAILING.format(do="raise ArithmeticError('seven is unlucky')") + PLAIN)
    (tmp_path / "trap").touch()
    settings = ["experiment=idle", "stream.steps=100", "seeds=20", "estimators=[ema,kalman]"]
    settings += [f"output={tmp_path}/out", "executor.workers=0"]
    failed = ran(driver, *settings, TRAP=str(tmp_path / "trap"))
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == (
        "kalmean: 2 cells failed; the same command tries again. First: ema (beta=0.99) on gradient_ratio, "
        "repetition 7: ArithmeticError: seven is unlucky"
    )
    rows = pd.read_csv(the_run(tmp_path / "out") / "table.csv").set_index(["estimator", "seed"])
    assert rows.loc[("ema", 7), "status"] == "failed: ArithmeticError"
    assert rows.loc[("ema", 7), ["value"]].isna().all()
    assert (rows.drop(index=[("ema", 7), ("kalman", 7)])["status"] == "ok").all()
    summary = pd.read_csv(the_run(tmp_path / "out") / "summary.csv").set_index("estimator")
    assert summary.loc["kalman", ["n", "failed", "missing", "pairs"]].tolist() == [19, 1, 0, 19]
    texts = [path.read_text() for path in shards(tmp_path / "out")]
    assert any("Traceback" in text and "seven is unlucky" in text for text in texts)
    manifest = json.loads((the_run(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["complete"] is False
    assert manifest["cells"] == {"done": 38, "failed": 2, "missing": 0}
    again = ran(driver, *settings, TRAP=str(tmp_path / "trap"))
    assert again.returncode == 1
    assert standing(again.stderr) == (38, 2, 2)
    (tmp_path / "trap").unlink()
    fixed = ran(driver, *settings, TRAP=str(tmp_path / "trap"))
    assert fixed.returncode == 0
    assert standing(fixed.stderr) == (38, 2, 2)
    assert json.loads((the_run(tmp_path / "out") / "manifest.json").read_text())["complete"] is True
    assert standing(ran(driver, *settings, TRAP=str(tmp_path / "trap")).stderr) == (40, 0, 0)


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_is_found_and_costs_no_other(driver: Path, tmp_path: Path) -> None:
    driver.write_text(FAILING.format(do="os.kill(os.getpid(), 9)") + PLAIN)
    (tmp_path / "trap").touch()
    settings = ["experiment=idle", "stream.steps=100", "seeds=20", "estimators=[ema]"]
    settings += [f"output={tmp_path}/out", "executor.workers=2"]
    failed = ran(driver, *settings, TRAP=str(tmp_path / "trap"))
    assert failed.returncode == 1, failed.stderr
    assert "1 cell failed" in failed.stderr
    assert "repetition 7: the worker was killed by SIGKILL" in failed.stderr
    rows = pd.read_csv(the_run(tmp_path / "out") / "table.csv")
    assert rows.loc[rows["status"] != "ok", "seed"].tolist() == [7]
    (tmp_path / "trap").unlink()
    assert ran(driver, *settings, TRAP=str(tmp_path / "trap")).returncode == 0


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_what_is_stored_stays(driver: Path, tmp_path: Path) -> None:
    full = (
        "import errno, os; from experiments import store\n"
        "inner, written = store.write_whole, []\n"
        "def write_whole(path, data):\n"
        "    if len(written) == 3: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    written.append(path); inner(path, data)\n"
        "store.write_whole = write_whole\n"
    )
    settings = [*IDLE, f"output={tmp_path}/out", "executor.workers=0"]
    driver.write_text(full + PLAIN)
    failed = ran(driver, *settings)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == (
        f"kalmean: output='{tmp_path}/out' cannot be written (No space left on device); "
        "finished cells are kept"
    )
    assert "Traceback" not in failed.stderr
    assert len(shards(tmp_path / "out")) == 3
    kept = len(stored(tmp_path / "out"))
    driver.write_text(PLAIN)
    done = ran(driver, *settings)
    assert standing(done.stderr) == (kept, 0, IDLE_CELLS - kept)
    assert done.returncode == 0


@pytest.mark.slow
def test_damaged_and_foreign_shards_are_named_and_run_again(
    driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    settings = [*SWEEP, f"output={tmp_path}/out", "executor.workers=0"]
    assert ran(driver, *settings).returncode == 0
    shutil.rmtree(the_run(tmp_path / "out"))
    victim = max(shards(tmp_path / "out"), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-100])
    (victim.parent / "notes.jsonl").write_text("mine\n")
    done = ran(driver, *settings)
    assert done.returncode == 0
    complaints = [line for line in done.stderr.splitlines() if "left out" in line]
    assert len(complaints) == 2
    assert any(str(victim) in line and "is not whole" in line for line in complaints)
    assert table(tmp_path / "out") == reference[0]


@pytest.mark.slow
def test_a_run_all_of_whose_cells_fail_has_a_table_that_says_so(driver: Path, tmp_path: Path) -> None:
    settings = ["stream.domain=ratio", "stream.noise_variance=1", "stream.steps=2000", "seeds=2"]
    settings += ["stream.ramp=10", "estimators=[ema]", f"output={tmp_path}/out", "executor.workers=0"]
    failed = ran(driver, *settings)
    assert failed.returncode == 1
    assert "2 cells failed" in failed.stderr
    assert "ratios overflow" in failed.stderr
    assert "| ema       | beta=0.99 | failed: ValueError |" in failed.stdout
    manifest = json.loads((the_run(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["cells"] == {"done": 0, "failed": 2, "missing": 0}


@pytest.mark.slow
def test_cells_that_are_gone_when_they_are_read_are_no_success(driver: Path, tmp_path: Path) -> None:
    gone_later = (
        "import shutil; from experiments import plan\n"
        "inner = plan.run\n"
        "def run(now, store, *rest):\n"
        "    inner(now, store, *rest); shutil.rmtree(store.output / 'cells')\n"
        "plan.run = run\n"
    )
    driver.write_text(gone_later + PLAIN)
    settings = ["experiment=idle", "stream.steps=100", "seeds=5", "estimators=[ema]", "executor.workers=0"]
    lost = ran(driver, *settings, f"output={tmp_path}/out")
    assert lost.returncode == 1
    assert lost.stderr.splitlines()[-1] == (
        "kalmean: 5 cells are gone from the store; the same command runs them"
    )
    tuned = ran(driver, "tune=rmse", "stream.steps=300", "seeds=2", f"output={tmp_path}/tuned")
    assert tuned.returncode == 2
    assert "could not be tuned: its cell is gone from the store" in tuned.stderr
    assert "Traceback" not in lost.stderr + tuned.stderr


@pytest.mark.slow
def test_a_table_with_failures_outlives_a_retry_that_is_stopped(driver: Path, tmp_path: Path) -> None:
    driver.write_text(FAILING.format(do="raise ArithmeticError('seven')") + PLAIN)
    (tmp_path / "trap").touch()
    settings = ["experiment=idle", "stream.steps=10000", "seeds=20", "estimators=[ema]"]
    settings += [f"output={tmp_path}/out", "executor.workers=0"]
    assert ran(driver, *settings, TRAP=str(tmp_path / "trap")).returncode == 1
    before = table(tmp_path / "out")
    stopped = "import os, signal; from experiments import idle\n" + (
        "def measure(condition, estimator, repetitions):\n"
        "    os.kill(os.getpid(), signal.SIGINT); raise ArithmeticError('seven')\n"
        "idle.measure = measure\n"
    )
    driver.write_text(stopped + PLAIN)
    done = ran(driver, *settings, TRAP=str(tmp_path / "trap"))
    assert done.returncode in (1, 130), done.stderr
    assert table(tmp_path / "out") == before or done.returncode == 1


@pytest.mark.slow
def test_two_recordings_of_the_same_samples_in_another_shape_are_two(driver: Path, tmp_path: Path) -> None:
    values = [f"{1.0 + 0.1 * ((7 * t) % 11):.2f}" for t in range(80)]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "a.csv").write_text("x\n" + "\n".join(values) + "\n")
    for name, part in (("a", values[0::2]), ("b", values[1::2])):
        (tmp_path / "two" / f"{name}.csv").write_text("x\n" + "\n".join(part) + "\n")
    settings = ["stream=recorded", "stream.column=x", "stream.noise_variance=1", "burn_in=5"]
    settings += ["seeds=1", "estimators=[ema]", f"output={tmp_path}/out", "executor.workers=0"]
    assert standing(ran(driver, *settings, f"stream.path={tmp_path}/one/a.csv").stderr) == (0, 0, 1)
    assert standing(ran(driver, *settings, f"stream.path='{tmp_path}/two/*.csv'").stderr) == (0, 0, 1)


@pytest.mark.slow
def test_cells_of_other_versions_are_named(driver: Path, tmp_path: Path) -> None:
    settings = ["experiment=idle", "stream.steps=100", "estimators=[ema]", "executor.workers=0"]
    settings += [f"output={tmp_path}/out"]
    driver.write_text("from experiments import store; store.versions = lambda: 'numpy 1'\n" + PLAIN)
    ran(driver, *settings, "seeds=3")
    driver.write_text(PLAIN)
    done = ran(driver, *settings, "seeds=2")
    assert standing(done.stderr) == (2, 0, 0)
    assert "some of these cells are of other versions than python" in done.stderr
    (run,) = [run for run in (tmp_path / "out" / "runs").iterdir() if str(run) in done.stdout]
    assert json.loads((run / "manifest.json").read_text())["computed_with"] == ["numpy 1"]


@pytest.mark.slow
def test_a_kind_that_is_swept_is_a_row_each(driver: Path, tmp_path: Path) -> None:
    settings = ["-m", "estimators=[ema]", "stream.steps=100", "seeds=2", "executor.workers=0"]
    settings += ["+estimators.slow={kind: ema, beta: 0.9},{kind: debiased_ema, beta: 0.9}"]
    done = ran(driver, *settings, f"output={tmp_path}/out")
    assert standing(done.stderr) == (0, 0, 6)
    rows = pd.read_csv(the_run(tmp_path / "out") / "summary.csv")
    assert set(rows["parameters"]) == {"beta=0.99", "ema beta=0.9", "debiased_ema beta=0.9"}
    same = ran(driver, *settings[:5], "estimators.ema.beta=0.9,0.8", "tune=rmse", f"output={tmp_path}/same")
    assert "1 point of the sweep is like another" in same.stderr


# --- kills --------------------------------------------------------------------------------------------------


def run_until_killed(driver: Path, settings: list[str], victim: str, after: float) -> bool:
    """Start a sweep and kill it, or one of its workers, so long after its first line; whether in time."""
    process = begun(driver, *settings)
    assert process.stderr is not None
    try:
        process.stderr.readline()
        time.sleep(after)
        workers = [pid for pid in descendants(process.pid) if pid != process.pid]
        # Workers are spawned by a process of Python's that only counts resources; it is one of them here.
        target = process.pid if victim == "parent" or not workers else random.choice(workers)
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
        if victim == "worker":
            process.communicate(timeout=60)
            assert process.returncode in (0, -signal.SIGKILL)
        process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()
    assert gone(process.pid), "an orphan is left"
    return process.returncode != 0


def kills(driver: Path, tmp_path: Path, count: int, seed: int) -> None:
    """Kill sweeps at random moments; each is resumed until it is done, and the next begins."""
    dice = random.Random(seed)
    random.seed(seed)
    number, done = 0, 0
    while done < count:
        number += 1
        output = tmp_path / f"out{number}"
        settings = [*IDLE, f"output={output}", "executor.workers=2"]
        while done < count:
            done += 1
            if not run_until_killed(
                driver, settings, dice.choice(["parent", "worker"]), dice.uniform(0, 1.3)
            ):
                break
        end = ran(driver, *settings)
        assert end.returncode == 0, end.stderr
        cells = stored(output)
        assert len(cells) == IDLE_CELLS
        rows = pd.read_csv(the_run(output) / "table.csv")
        assert rows["seed"].tolist() == list(range(IDLE_CELLS))
        assert (rows["value"] == rows["seed"]).all()
        assert (rows["status"] == "ok").all()
        assert standing(ran(driver, *settings).stderr) == (IDLE_CELLS, 0, 0)


@pytest.mark.slow
def test_five_kills_lose_nothing(driver: Path, tmp_path: Path) -> None:
    kills(driver, tmp_path, 5, seed=0)


@pytest.mark.slow
def test_a_hundred_kills_lose_nothing(driver: Path, tmp_path: Path) -> None:
    kills(driver, tmp_path, 100, seed=1)


@pytest.mark.slow
def test_a_killed_and_resumed_sweep_leaves_the_same_bytes(
    driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    slow = (
        "import time; from experiments import store\n"
        "inner = store.write_whole\n"
        "def write_whole(path, data): time.sleep(0.1); inner(path, data)\n"
        "store.write_whole = write_whole\n"
    )
    driver.write_text(slow + PLAIN)
    settings = [*SWEEP, f"output={tmp_path}/out", "executor.workers=0"]
    process = begun(driver, *settings)
    while len(shards(tmp_path / "out")) < 3:
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.communicate()
    driver.write_text(PLAIN)
    done = ran(driver, *settings)
    before, failed, to_run = standing(done.stderr)
    assert before > 0
    assert failed == 0
    assert before + to_run == CELLS
    assert table(tmp_path / "out") == reference[0]


@pytest.mark.parametrize(
    ("signum", "workers"),
    [
        ("SIGINT", "2"),
        pytest.param("SIGINT", "0", marks=pytest.mark.slow),
        pytest.param("SIGTERM", "2", marks=pytest.mark.slow),
    ],
)
def test_asked_to_stop_it_finishes_what_runs_and_says_how_to_go_on(
    driver: Path, tmp_path: Path, signum: str, workers: str
) -> None:
    number = getattr(signal, signum)
    longer = [override for override in IDLE if not override.startswith("seeds")]
    settings = [*longer, "seeds=2000", f"output={tmp_path}/out", f"executor.workers={workers}"]
    process = begun(driver, *settings)
    while len(shards(tmp_path / "out")) < 2:
        time.sleep(0.01)
        assert process.poll() is None
    os.killpg(process.pid, number) if signum == "SIGINT" else process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert out == ""
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"kalmean: stopped; [\d,]+ of 2,000 cells are kept; the same command goes on .*", last
    )
    assert "Traceback" not in err
    kept = len(stored(tmp_path / "out"))
    assert f"{kept:,} of" in last
    manifest = json.loads((the_run(tmp_path / "out") / "manifest.json").read_text())
    assert manifest["complete"] is False
    assert f"{kept:,} of 2,000" in manifest["stopped"]
    assert gone(process.pid)
    again = begun(driver, *settings)
    assert again.stderr is not None
    assert standing(again.stderr.readline()) == (kept, 0, 2000 - kept)
    again.kill()
    again.communicate()


# --- executors ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Slurm of one node, for as long as the tests of this file run."""
    pytest.importorskip("submitit", reason="the extra [slurm] is not installed")
    if shutil.which("slurmctld") is None or os.getuid() != 0:
        pytest.skip("slurmctld is not installed, or this is not root: tests/services/slurm.sh install")
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SLURM, "start", folder], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stderr.strip()}")
    name, _, value = started.stdout.strip().removeprefix("export ").partition("=")
    yield {name: value}
    subprocess.run([SLURM, "stop", folder], check=True)


@pytest.fixture
def ray() -> dict[str, str]:
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    return {}


CLUSTERS = {
    "local": ["executor=local", "executor.workers=2"],
    "slurm": ["executor=slurm", "executor.workers=2", "executor.seconds=1"],
    "ray": ["executor=ray", "executor.workers=2"],
}


@dataclass(frozen=True)
class Cluster:
    """An executor: its overrides, the environment that it needs, and how its workers are known."""

    overrides: list[str]
    environment: dict[str, str]
    mark: str

    def workers(self) -> list[int]:
        """Processes that carry out tasks at this moment."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if self.mark in line and not line.startswith("/bin/"):
                        found.append(int(entry.name))
        return found

    def daemons(self) -> list[int]:
        """What else it may leave behind: processes of a Ray that a sweep started."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if b"\0KALMEAN_RAY=" in b"\0" + (entry / "environ").read_bytes():
                        found.append(int(entry.name))
        return found


@pytest.fixture(
    params=[
        "local",
        pytest.param("slurm", marks=pytest.mark.slow),
        pytest.param("ray", marks=pytest.mark.slow),
    ]
)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Each executor in turn; Slurm without its pilot, so that its jobs do the work."""
    name: str = request.param
    more = {} if name == "local" else request.getfixturevalue(name)
    chosen = {
        "local": ([], "spawn_main"),
        "slurm": (["executor.seconds=1"], "submitit.core._submit"),
        "ray": ([], "ray::carry_out"),
    }
    overrides, mark = chosen[name]
    return Cluster([f"executor={name}", "executor.workers=2", *overrides], more, mark)


@pytest.fixture
def prompt_driver(driver: Path) -> Path:
    """A driver that hands its work out at once."""
    driver.write_text("from experiments.executors import slurm; slurm.PILOT = 0.0\n" + PLAIN)
    return driver


def test_each_executor_leaves_the_same_bytes(
    cluster: Cluster, prompt_driver: Path, tmp_path: Path, reference: tuple[bytes, bytes]
) -> None:
    done = ran(prompt_driver, *SWEEP, f"output={tmp_path}/out", *cluster.overrides, **cluster.environment)
    assert done.returncode == 0, done.stderr
    assert (table(tmp_path / "out"), (the_run(tmp_path / "out") / "summary.csv").read_bytes()) == reference
    assert len(stored(tmp_path / "out")) == CELLS
    assert not list((tmp_path / "out" / "cells").glob(".*"))


def working(cluster: Cluster, driver: Path, output: Path) -> tuple[subprocess.Popen[str], list[str]]:
    """A sweep that has stored something, whose workers are at work, and its overrides."""
    settings = [*IDLE, "experiment.seconds=0.02", f"output={output}", *cluster.overrides]
    process = subprocess.Popen(
        command(driver, *settings),
        env=environment(**cluster.environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (cluster.workers() and shards(output)):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    return process, settings


@pytest.mark.slow
def test_a_dead_worker_costs_its_task_only(cluster: Cluster, prompt_driver: Path, tmp_path: Path) -> None:
    process, _ = working(cluster, prompt_driver, tmp_path / "out")
    os.kill(cluster.workers()[0], signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert len(stored(tmp_path / "out")) == IDLE_CELLS
    rows = pd.read_csv(the_run(tmp_path / "out") / "table.csv")
    assert (rows["value"] == rows["seed"]).all()
    assert rows["seed"].tolist() == list(range(IDLE_CELLS))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_or_dead_driver_leaves_nothing_running(
    cluster: Cluster, number: signal.Signals, prompt_driver: Path, tmp_path: Path
) -> None:
    process, settings = working(cluster, prompt_driver, tmp_path / "out")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -9), err
    deadline = time.monotonic() + 30
    while cluster.workers() or cluster.daemons():
        assert time.monotonic() < deadline, "an orphan is left"
        time.sleep(0.1)
    kept = len(stored(tmp_path / "out"))
    assert 0 < kept < IDLE_CELLS
    done = ran(prompt_driver, *settings, **cluster.environment)
    assert done.returncode == 0, done.stderr
    assert standing(done.stderr) == (kept, 0, IDLE_CELLS - kept)
    assert len(stored(tmp_path / "out")) == IDLE_CELLS


def test_an_executor_whose_library_is_absent_says_what_to_install(driver: Path, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['ray'] = sys.modules['submitit'] = None\n"
    driver.write_text(hidden + PLAIN)
    for name in ("slurm", "ray"):
        done = ran(driver, *SWEEP, f"output={tmp_path}/out", f"executor={name}")
        assert done.returncode == 2
        assert f"install it with pip install 'kalmean[{name}]'" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "runs").exists()


def test_of_rows_that_are_left_out_nothing_is_swept(kalmean: Callable[..., Any]) -> None:
    small = ["stream.steps=400", "stream.at=200", "seeds=2", "burn_in=100"]
    ran = kalmean("experiment=regimes", "estimators=[kalman,ema]", *small)
    assert ran.code == 0, ran.err
    assert set(ran.table["estimator"]) == {"kalman", "ema"}
    assert ran.table["stream"].nunique() == 15
