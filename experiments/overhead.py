"""What the runner itself costs, in cells that do nothing, against Hydra's basic launcher beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.cost import check_size, judged, summarised
from experiments.goals import Goal
from experiments.runs import Outcome
from experiments.setup import Setup
from experiments.summaries import COLUMNS
from experiments.tables import aligned

BETAS = 1000
"""Settings of the largest sweep, each with as many repetitions."""
WAIT = 0.01
"""Seconds that a cell waits where workers are compared."""
APP = "\n".join(
    [
        "import dataclasses",
        "import hydra",
        "from hydra.core.config_store import ConfigStore",
        "@dataclasses.dataclass",
        "class Settings:",
        "    a: int = 0",
        "    b: float = 0.9",
        "    c: str = 'x'",
        "    d: bool = True",
        "    e: int = 1",
        "ConfigStore.instance().store(name='config', node=Settings)",
        "@hydra.main(config_path=None, config_name='config', version_base='1.3')",
        "def main(settings):",
        "    pass",
        "main()",
    ]
)
"""A program of five settings that does nothing, for Hydra to launch."""
PEAK = "peak"
"""File in which a sweep leaves its peak memory in KiB, where the system tells it."""
MAIN = f"""\
import pathlib, re, sys
from experiments.__main__ import main
code = main(sys.argv[1:])
status = pathlib.Path("/proc/self/status")
if status.exists():
    pathlib.Path({PEAK!r}).write_text(re.search(r"VmHWM:\\s+(\\d+)", status.read_text()).group(1))
sys.exit(code)
"""
NOTE = """\
CPU per cell: of planning, running and storing cells that do nothing, fsync included; kalmean's are each of a
setting of its own, or else repetitions of ten settings. The slope between few cells and many, so that no
start of Python counts."""
GOALS = (
    Goal("CPU per cell, each of a setting of its own", "own", "kalmean", 1.2, metric="CPU per cell"),
    Goal(
        "Hydra's basic launcher, CPU over ours",
        "own",
        "hydra basic launcher",
        90.0,
        at_least=True,
        metric="CPU per cell",
        over="kalmean",
    ),
    Goal("finished, 10,000 cells, again", "10,000 cells", "again", 3.0, metric="time"),
    Goal("finished, 1,000,000 cells, again", "1,000,000 cells", "again", 60.0, metric="time"),
    Goal("the same, peak memory", "1,000,000 cells", "again", 2.0, metric="memory"),
    Goal("the same, its table made anew", "1,000,000 cells", "table anew", 60.0, metric="time"),
    Goal("two workers over one, cells of 10 ms", "workers", "two", 1.8, True, "speed", over="one"),
)


@dataclass(frozen=True)
class Parameters:
    """rounds: of each measurement; scale: of the number of cells, 1 for those of the goals."""

    rounds: int = 3
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_size(self.rounds, self.scale)

    def sized(self, count: int) -> int:
        """A count at this scale, at least 2."""
        return max(2, round(self.scale * count))


@dataclass(frozen=True)
class Used:
    """What a finished process took: seconds from start to end, CPU seconds, peak memory in GiB (or NaN)."""

    time: float
    cpu: float
    memory: float


def run(setup: Setup) -> Outcome:
    """Run sweeps in processes of their own, and take their times."""
    setup.check_untuned("experiment=overhead has settings of its own")
    chosen: Parameters = setup.parameters
    rows = []
    for seed in range(chosen.rounds):
        with tempfile.TemporaryDirectory(prefix="kalmean-") as scratch:
            for measure in (_per_cell, _again, _workers):
                for stream, who, metric, value, unit in measure(chosen, Path(scratch)):
                    rows.append((stream, who, seed, metric, value, unit))
    table = pd.DataFrame(rows, columns=["stream", "estimator", "seed", "metric", "value", "unit"])
    table = table.assign(experiment="overhead", parameters="", status="ok")[COLUMNS]
    summary = summarised(table)
    lines = [["what", "of", "median", "least to most", "unit"]]
    keys = ["stream", "metric", "estimator", "unit", "median", "low", "high"]
    for stream, metric, of, unit, median, low, high in summary[keys].to_numpy():
        lines.append([f"{stream}: {metric}", of, f"{median:.3g}", f"{low:.3g} to {high:.3g}", unit])
    head = ["what", "goal", "reached", "over rounds", "verdict"]
    text = "\n\n".join(
        [
            f"overhead: medians of {chosen.rounds} rounds, each process from its start to its end; "
            f"{os.cpu_count()} cores.\nTimes differ from run to run and from machine to machine. "
            "To measure anew, remove this folder.",
            aligned(lines),
            NOTE,
            f"Goals{'' if chosen.scale == 1.0 else f' (stated at scale 1; this run has {chosen.scale:g})'}:",
            aligned([head, *(judged(goal, summary) for goal in GOALS)], texts=1),
        ]
    )
    return Outcome(table, summary, text + "\n", {})


def used(command: Sequence[str], folder: Path) -> Used:
    """Run a process to its end; ValueError with its last line where it fails."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=_environment())
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            lines = said.read().decode(errors="replace").splitlines()
            why = lines[-1] if lines else f"exit status {process.returncode}"
            raise ValueError(f"experiment=overhead: {' '.join(command[:4])} ... failed: {why}")
    peak, kilobytes = folder / PEAK, np.nan
    if peak.exists():  # the process tells its own, as ru_maxrss begins with the memory of the one that forked
        kilobytes = float(peak.read_text(encoding="ascii"))
        peak.unlink()
    return Used(seconds, usage.ru_utime + usage.ru_stime, kilobytes / 2**20)


def _per_cell(chosen: Parameters, scratch: Path) -> Iterator[tuple[str, str, str, float, str]]:
    few, many = chosen.sized(10), 10 + chosen.sized(1000)
    ours = [used(_sweep(scratch / f"few{n}", n, 1), scratch).cpu for n in (few, many)]
    yield "own", "kalmean", "CPU per cell", 1e3 * (ours[1] - ours[0]) / (many - few), "ms"
    app = scratch / "app.py"
    app.write_text(APP, encoding="utf-8")
    some, more = chosen.sized(5), 5 + chosen.sized(45)
    theirs = []
    for n in (some, more):
        values = ",".join(map(str, range(n)))
        theirs.append(used([sys.executable, str(app), "-m", f"a={values}"], scratch).cpu)
    yield "own", "hydra basic launcher", "CPU per cell", 1e3 * (theirs[1] - theirs[0]) / (more - some), "ms"
    many *= 20  # or nothing is seen
    repeated = [used(_sweep(scratch / f"repeated{n}", 10, n), scratch).cpu for n in (few, many)]
    per_cell = 1e3 * (repeated[1] - repeated[0]) / (10 * (many - few))
    yield "own", "kalmean, repetitions", "CPU per cell", per_cell, "ms"


def _again(chosen: Parameters, scratch: Path) -> Iterator[tuple[str, str, str, float, str]]:
    for full, least in ((100, 2), (BETAS, 3)):
        settings = repetitions = max(least, chosen.sized(full))
        output = scratch / f"sweep{full}"
        command = _sweep(output, settings, repetitions)
        name = f"{settings * repetitions:,} cells"
        first = used(command, scratch)
        before = _written(output)
        again = used(command, scratch)
        if _written(output) != before:
            raise ValueError("experiment=overhead: the same command again rewrote a file")
        (folder,) = (output / "runs").iterdir()
        (folder / "manifest.json").unlink()
        anew = used(command, scratch)
        for who, took in (("first", first), ("again", again), ("table anew", anew)):
            yield name, who, "time", took.time, "s"
            if np.isfinite(took.memory):
                yield name, who, "memory", took.memory, "GiB"


def _workers(chosen: Parameters, scratch: Path) -> Iterator[tuple[str, str, str, float, str]]:
    """Cells over seconds, by the slope between few cells and many, so that no start counts."""
    few, many = chosen.sized(200), 20 + chosen.sized(1000)
    for count, who in ((1, "one"), (2, "two")):
        times = [
            used(
                [
                    *_sweep(scratch / f"{who}{n}", 1, n),
                    f"experiment.seconds={WAIT}",
                    f"executor.workers={count}",
                ],
                scratch,
            ).time
            for n in (few, many)
        ]
        yield "workers", who, "speed", (many - few) / (times[1] - times[0]), "cells per second"


def _sweep(output: Path, settings: int, repetitions: int) -> list[str]:
    """A sweep of cells that do nothing."""
    betas = ",".join(repr(beta) for beta in np.linspace(0.5, 0.9, settings + 1)[1:].tolist())
    return [
        *(sys.executable, "-c", MAIN, "-m", "experiment=idle", "stream.steps=100"),
        *("estimators=[ema]", f"estimators.ema.beta={betas}", f"seeds={repetitions}"),
        *("executor.workers=0", f"output={output}"),
    ]


def _written(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def _environment() -> dict[str, Any]:
    import experiments

    root = str(Path(str(experiments.__file__)).parent.parent)
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH", "")) if part)
    return {**os.environ, "PYTHONPATH": path}
