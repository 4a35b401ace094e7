"""Processes on this machine, one thread each; short work is done in this process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from experiments.executors import Pool, Report, Task, carry_out

PATIENCE = 4.0
"""Seconds of work after which it is worth the start of other processes."""
SECONDS = 0.25
"""Of work in a task: little for a kill to cost, and yet much more than handing out and storing take."""
THREADS = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM")


@dataclass(frozen=True)
class Local:
    """workers: processes; 0 to work in this one; null for one per core, once that is worth their start."""

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"executor.workers={self.workers} is not valid; it must be an int >= 0, or null")

    @contextmanager
    def pool(self, output: Path) -> Iterator[Pool]:
        """Processes that end with this one, whatever ends it."""
        here, workers = Here(output), self.workers
        if workers is None:
            workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            processes = Processes(output, workers or 1)
            pool: Pool = Growing(here, processes, PATIENCE) if processes.count > 1 else here
        elif workers:
            pool = processes = Processes(output, workers)
        else:
            pool, processes = here, Processes(output, 0)
        try:
            yield pool
        finally:
            processes.close()


class Here:
    """This process."""

    seconds = SECONDS

    def __init__(self, output: Path) -> None:
        self.output = output
        self.spent = 0.0
        self._task: Task | None = None

    def slots(self) -> int:
        """One task at a time."""
        return 0 if self._task else 1

    def submit(self, task: Task) -> None:
        """Keep the task until it is asked for."""
        self._task = task

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """Work on the task now."""
        if self._task:
            start = time.perf_counter()
            report = carry_out(self.output, self._task)
            self.spent += time.perf_counter() - start
            task, self._task = self._task, None
            yield task, report

    def cancel(self) -> Sequence[Task]:
        """The task, if it is not begun."""
        task, self._task = self._task, None
        return [task] if task else []


class Processes:
    """Worker processes, each with a pipe of its own, so that one's death concerns its own task only."""

    seconds = SECONDS

    def __init__(self, output: Path, count: int) -> None:
        self.output, self.count = output, count
        self._idle: deque[_Worker] = deque()
        self._busy: dict[Connection[Any, Any], tuple[_Worker, Task]] = {}

    def slots(self) -> int:
        """One task for each worker."""
        return self.count - len(self._busy)

    def submit(self, task: Task) -> None:
        """Give the task to a worker that waits, or to a new one."""
        worker = self._idle.popleft() if self._idle else _Worker(self.output)
        self._busy[worker.pipe] = worker, task
        # One that died while it waited has a pipe that is at its end, which the next look finds.
        with suppress(BrokenPipeError, ConnectionResetError):
            worker.pipe.send(task)

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """Answers that have come, or the ends of pipes."""
        for pipe in connection.wait(list(self._busy), patience) if self._busy else ():
            worker, task = self._busy.pop(pipe)  # type: ignore[call-overload]
            try:
                report: Report = worker.pipe.recv()
                self._idle.append(worker)
            except (EOFError, OSError):
                report = Report(lost=worker.end())
            yield task, report

    def cancel(self) -> Sequence[Task]:
        """None: each that was handed out is being worked on."""
        return []

    def close(self) -> None:
        """End all workers; those at work are not waited for."""
        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            worker.pipe.close()
            worker.process.terminate()
            worker.process.join()


class Growing:
    """This process first; other workers as soon as there has been work for some seconds."""

    def __init__(self, here: Here, others: Pool, patience: float) -> None:
        self.here, self.others, self.patience = here, others, patience

    @property
    def _now(self) -> Pool:
        return self.here if self.here.spent < self.patience else self.others

    @property
    def seconds(self) -> float:
        """What suits the workers that are used by now."""
        return self._now.seconds

    def slots(self) -> int:
        """Those of the workers that are used by now."""
        return self._now.slots()

    def submit(self, task: Task) -> None:
        """Hand it to them."""
        self._now.submit(task)

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """What they have finished."""
        yield from self._now.finished(patience)

    def cancel(self) -> Sequence[Task]:
        """What they have not begun."""
        return self._now.cancel()


class _Worker:
    """One process and this end of its pipe."""

    def __init__(self, output: Path) -> None:
        spawned = multiprocessing.get_context("spawn")
        self.pipe, far = spawned.Pipe()
        self.process = spawned.Process(target=_serve, args=(far, output), daemon=True)
        with one_thread_each():
            self.process.start()
        far.close()

    def end(self) -> str:
        """Wait for a worker whose pipe has ended, and say how it died."""
        self.pipe.close()
        self.process.join()
        code = self.process.exitcode or 0
        return (
            f"the worker was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"the worker exited {code}"
        )


def _serve(pipe: Connection[Any, Any], output: Path) -> None:
    """Carry out tasks until the pipe ends, as it does with the process at the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; what runs is finished
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        while True:
            pipe.send(carry_out(output, pipe.recv()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def end_with_parent() -> None:
    """Wait for the process that started this one, and end with it, whatever ends that."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let what is started meanwhile compute on one thread, which must be said before it imports NumPy."""
    names = [f"{name}_NUM_THREADS" for name in THREADS]
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
