"""Where cells are measured: what an executor is, and what runs at its far end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from experiments.cells import Chunk, Failure, measured
from experiments.fingerprint import ChangedCodeError
from experiments.store import Store, UnwritableError

Task = Sequence[Chunk]
"""What is handed out at a time."""


@dataclass(frozen=True)
class Report:
    """What came of a task: the cells now in the store, their failures, and seconds of work.

    problem: one line, why the task could not be done at all, here or anywhere; lost: why its worker never
    answered.
    """

    cells: int = 0
    failures: Sequence[Failure] = ()
    seconds: float = 0.0
    problem: str = ""
    lost: str = ""


class Pool(Protocol):
    """Workers that are up. No call but ``finished`` takes long, and nothing raises for a worker's death."""

    @property
    def seconds(self) -> float:
        """Work that a task should hold."""
        ...

    def slots(self) -> int:
        """How many more tasks it can use now."""
        ...

    def submit(self, task: Task) -> None:
        """Hand out a task."""
        ...

    def finished(self, patience: float) -> Iterator[tuple[Task, Report]]:
        """Tasks that are over, waiting for the first at most some seconds."""
        ...

    def cancel(self) -> Sequence[Task]:
        """Take back the tasks that no worker has begun."""
        ...


class Executor(Protocol):
    """Settings of a way to run tasks: a dataclass, whose fields are those under ``executor.``."""

    def pool(self, output: Path) -> AbstractContextManager[Pool]:
        """Start workers that store below a folder, and see them gone; ValueError, one line, if none can."""
        ...


def carry_out(output: Path, task: Task) -> Report:
    """Measure a task's cells and store them, chunk by chunk: what every worker does."""
    store, cells, seconds = Store(output), 0, 0.0
    failures: list[Failure] = []
    try:
        for chunk in task:
            chunk.check()
            results = measured(chunk)
            store.write(results)
            cells += chunk.cells
            failures += results.failures
            seconds += results.seconds
    except UnwritableError as error:
        problem = f"output={str(output)!r} cannot be written ({error.strerror}); finished cells are kept"
        return Report(cells, failures, seconds, problem)
    except MemoryError as error:
        problem = f"too large for this machine's memory: stream.steps or seeds ({error})"
        return Report(cells, failures, seconds, problem)
    except ChangedCodeError as error:
        return Report(cells, failures, seconds, str(error))
    return Report(cells, failures, seconds)
