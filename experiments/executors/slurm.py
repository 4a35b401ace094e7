"""Slurm, through submitit: tasks of seconds as the jobs of arrays, however many cells they hold."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.executors import Pool, Report, Task, carry_out
from experiments.executors.local import Growing, Here
from experiments.files import abandoned

PILOT = 1.0
"""Seconds of work done in this process first, from which it is known how many cells make a task."""
POLL = 1.0
"""Seconds between two looks at the queue."""
ALIVE = 10.0, 120.0
"""Seconds between two signs of life to the jobs, and after which they take the sweep for dead."""
FOLDER = ".slurm-"
"""How the names of folders begin that submitit uses."""
UNFINISHED = {
    *("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING"),
    *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING", "STAGE_OUT", "SPECIAL_EXIT", "RESV_DEL_HOLD"),
}


@dataclass(frozen=True)
class Slurm:
    """workers: jobs at once, of one core each; seconds: of work in a job, at least 5 or it is mostly waiting.

    timeout: minutes after which Slurm ends a job; partition, account, memory (GB) as Slurm knows them. The
    output folder must be the same on every node.
    """

    workers: int = 32
    seconds: float = 10.0
    timeout: int = 60
    partition: str | None = None
    account: str | None = None
    memory: float | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "timeout"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"executor.{name}={getattr(self, name)} is not valid; it must be an int >= 1"
                )
        if not self.seconds > 0.0:
            raise ValueError(f"executor.seconds={self.seconds} is not valid; it must be > 0")

    @contextmanager
    def pool(self, output: Path) -> Iterator[Pool]:
        """Work here until it is known how long cells take, then submit; jobs are cancelled at the end."""
        try:
            import submitit
        except ImportError as error:
            raise ValueError(
                "executor=slurm needs submitit; install it with pip install 'kalmean[slurm]'"
            ) from error
        try:
            subprocess.run(["sinfo", "--version"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ValueError("executor=slurm needs Slurm; sinfo does not answer here") from error
        logging.getLogger("submitit").setLevel(logging.ERROR)  # without accounting it warns at each look
        cells = output.absolute() / "cells"
        for sign in abandoned(cells.glob(f"{FOLDER}*/alive")):
            shutil.rmtree(sign.parent, ignore_errors=True)
        folder = cells / f"{FOLDER}{uuid.uuid4().hex[:12]}"
        jobs = _Jobs(submitit, self, output.absolute(), folder)
        try:
            yield Growing(Here(output), jobs, PILOT)
        finally:
            jobs.close()


class _Jobs:
    """Jobs that were submitted and whose answer has not come."""

    def __init__(self, submitit: Any, settings: Slurm, output: Path, folder: Path) -> None:
        self.settings, self.output, self.folder = settings, output, folder
        self.seconds = settings.seconds
        self._submitit = submitit
        self._given: dict[str, tuple[Any, Task]] = {}
        self._waiting: list[Task] = []
        self._alive = self._looked = 0.0

    def slots(self) -> int:
        """As many jobs as may run at once."""
        return self.settings.workers - len(self._given) - len(self._waiting)

    def submit(self, task: Task) -> None:
        """Put the task aside, to be submitted with others as one array."""
        self._waiting.append(task)

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """Submit what waits, and look for answers, and for jobs that are gone without one."""
        self._show_life()
        self._submit()
        end = time.monotonic() + patience
        while not (over := list(self._over())) and time.monotonic() < end and self._given:
            time.sleep(min(0.1, patience))
        yield from over

    def cancel(self) -> Sequence[Task]:
        """Cancel what has not begun."""
        taken = self._waiting
        self._waiting = []
        states = self._states() if self._given else {}
        for name, (job, task) in list(self._given.items()):
            if states is not None and states.get(name) == "PENDING":
                job.cancel(check=False)
                del self._given[name]
                taken.append(task)
        return taken

    def close(self) -> None:
        """Cancel all jobs, and remove what was written for them."""
        for job, _ in self._given.values():
            job.cancel(check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _submit(self) -> None:
        if not self._waiting:
            return
        executor = self._submitit.SlurmExecutor(folder=self.folder)
        chosen: dict[str, Any] = {
            "job_name": "kalmean",
            "time": self.settings.timeout,
            "cpus_per_task": 1,
            "ntasks_per_node": 1,
            "array_parallelism": self.settings.workers,
            "partition": self.settings.partition,
            "account": self.settings.account,
            "mem": None if self.settings.memory is None else f"{round(1024 * self.settings.memory)}M",
        }
        executor.update_parameters(**{name: value for name, value in chosen.items() if value is not None})
        try:
            jobs = executor.map_array(
                _carry_out_if_wanted,
                [self._sign] * len(self._waiting),
                [self.output] * len(self._waiting),
                self._waiting,
            )
        except self._submitit.core.utils.FailedJobError as error:
            raise ValueError(f"executor=slurm: Slurm refuses the jobs ({_last_line(error)})") from error
        self._given |= {job.job_id: (job, task) for job, task in zip(jobs, self._waiting, strict=True)}
        self._waiting = []

    def _over(self) -> Iterator[tuple[Task, Report]]:
        for name, (job, task) in list(self._given.items()):
            if job.paths.result_pickle.exists():
                del self._given[name]
                yield task, _answer(job)
        if self._given and time.monotonic() - self._looked > POLL:
            self._looked = time.monotonic()
            states = self._states()
            for name, (job, task) in list(self._given.items()) if states is not None else ():
                state = states.get(name, "gone")  # type: ignore[union-attr]
                if state not in UNFINISHED:
                    del self._given[name]
                    answered = job.paths.result_pickle.exists()  # it may have come just before
                    yield task, _answer(job) if answered else Report(lost=f"the job ended, {state.lower()}")

    def _states(self) -> Mapping[str, str] | None:
        """State of each job that Slurm knows; None where it does not answer."""
        arrays = sorted({name.partition("_")[0] for name in self._given})
        command = ["squeue", "-h", "-r", "-t", "all", "-o", "%i|%T", "-j", ",".join(arrays)]
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
        if answer.returncode and "Invalid job id" not in answer.stderr:
            return None
        return dict(line.split("|", 1) for line in answer.stdout.split())

    @property
    def _sign(self) -> Path:
        return self.folder / "alive"

    def _show_life(self) -> None:
        if time.monotonic() - self._alive > ALIVE[0] or not self._sign.exists():
            self._alive = time.monotonic()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sign.write_text(f"{os.getpid()}\n")


def _carry_out_if_wanted(sign: Path, output: Path, task: Task) -> Report:
    """Carry out a task in a job, unless the sweep that submitted it is dead by now."""
    try:
        age = time.time() - sign.stat().st_mtime
    except FileNotFoundError:
        age = ALIVE[1] + 1.0
    return carry_out(output, task) if age <= ALIVE[1] else Report()


def _answer(job: Any) -> Report:
    try:
        report: Report = job.result()
    except Exception as error:
        return Report(lost=f"the job failed ({_last_line(error)})")
    return report


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
