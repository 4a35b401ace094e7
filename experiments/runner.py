"""Runs the cells that are missing: cuts them into tasks, hands these out, and loses none to a dead worker."""

from __future__ import annotations

import itertools
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from estimators import DebiasedEMA
from experiments.cells import Chunk, Condition, Failure, Piece, Results, Setting
from experiments.executors import Executor, Report, Task
from experiments.progress import Progress
from experiments.store import Store

SPLITS = 8
"""Parts into which a task is cut whose worker died, to find the cell that kills."""
FIRST = 4.0
"""Cells of a task as long as it is not known how long they take."""
PATIENCE = 1.0
"""Seconds at most between two looks at whether someone asked to stop."""


@dataclass(frozen=True)
class Wanted:
    """The first ``repetitions`` of some settings under one condition."""

    condition: Condition
    settings: Sequence[Setting]
    repetitions: int

    @property
    def cells(self) -> int:
        """How many."""
        return len(self.settings) * self.repetitions


@dataclass
class Standing:
    """How a sweep stands: cells done and failed before, and what is to run, condition by condition."""

    done: int = 0
    failed: int = 0
    missing: list[tuple[Wanted, dict[str, Any]]] = field(default_factory=list)

    @property
    def to_run(self) -> int:
        """Cells that are not done: those that failed are tried again."""
        return sum(int(rows.sum()) for _, missing in self.missing for rows in missing.values())

    def __str__(self) -> str:
        return f"{self.done:,} done, {self.failed:,} failed, {self.to_run:,} to run"


class StoppedError(Exception):
    """Someone asked to stop: what ran was finished and is kept."""

    def __init__(self, signum: int, done: int, total: int) -> None:
        super().__init__(f"{done:,} of {total:,} cells are kept; the same command goes on from there")
        self.signum = signum


def standing(store: Store, wanted: Sequence[Wanted]) -> Standing:
    """Look up which cells are done, have failed, or are missing."""
    now = Standing()
    for one in wanted:
        known = store.known(one.condition, {setting.key: one.repetitions for setting in one.settings})
        now.done += sum(int(rows.sum()) for rows in known.done.values())
        now.failed += sum(int(rows.sum()) for rows in known.failed.values())
        if not all(rows.all() for rows in known.done.values()):
            now.missing.append((one, {key: ~rows for key, rows in known.done.items()}))
    return now


def run(now: Standing, store: Store, executor: Executor, progress: Progress) -> None:
    """Run what is missing, and store it, failures too.

    ValueError, one line, where no worker could store what it measured; StoppedError after a signal. Either
    way, the cells that are finished are kept.
    """
    cutter, blame, waiting = _Cutter(now.missing), _Blame(store), 0
    with _asked_to_stop() as stop, executor.pool(store.output) as pool:
        while True:
            while not stop and pool.slots() > 0 and (task := blame.next() or cutter.next(pool.seconds)):
                pool.submit(task)
                waiting += 1
            if stop and waiting:
                waiting -= len(pool.cancel())
            if not waiting:
                break
            for task, report in pool.finished(PATIENCE):
                waiting -= 1
                if report.problem:
                    raise ValueError(report.problem)
                if report.lost:
                    report = blame.report(task, report.lost)
                cutter.learn(report)
                progress.add(report.cells - len(report.failures), len(report.failures))
    if stop:
        progress.close("stopped")
        raise StoppedError(stop[0], progress.done, progress.total)
    progress.close("ran")


class _Blame:
    """Tries tasks whose worker died again, in parts, until the cell is found that kills alone, and twice."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._again: deque[Task] = deque()
        self._suspects: set[tuple[str, str, int]] = set()

    def next(self) -> Task:
        """The next part, empty if there is none."""
        return self._again.popleft() if self._again else ()

    def report(self, task: Task, why: str) -> Report:
        """What is to be said of a lost task: nothing yet, or that its only cell has failed."""
        parts = list(_parts(task))
        (piece, *_), condition = task[0].pieces, task[0].condition
        cell = condition.key, piece.setting.key, piece.repetitions[0]
        if len(parts) > 1 or cell not in self._suspects:
            if len(parts) == 1:  # once may have been somebody else's doing
                self._suspects.add(cell)
            self._again.extend(parts)
            return Report()
        failure = Failure(piece.setting, piece.repetitions[0], why)
        self.store.write(Results(task[0], failures=[failure]))
        return Report(1, [failure])


def _parts(task: Task) -> Iterator[Task]:
    """A task's cells in as many tasks as ``SPLITS``, or one for each cell."""
    cells = [
        (chunk.condition, piece.setting, repetition)
        for chunk in task
        for piece in chunk.pieces
        for repetition in piece.repetitions
    ]
    size = -(-len(cells) // SPLITS)
    for first in range(0, len(cells), size):
        part = cells[first : first + size]
        yield [
            Chunk(
                of[0][0],
                tuple(
                    Piece(setting, tuple(cell[2] for cell in own))
                    for setting, own in itertools.groupby(of, lambda cell: cell[1])
                ),
            )
            for of in (list(group) for _, group in itertools.groupby(part, lambda cell: cell[0].key))
        ]


class _Cutter:
    """Cuts what is missing into tasks of about the same length in time, learning how long cells take."""

    def __init__(self, missing: Sequence[tuple[Wanted, dict[str, Any]]]) -> None:
        self._pace = DebiasedEMA(0.5).tracker()
        self._pieces = _pieces(missing)
        self._next: tuple[Condition, Setting, tuple[int, ...]] | None = next(self._pieces, None)

    def next(self, seconds: float) -> Task:
        """The next task, of so many seconds as far as is known; empty when nothing is left."""
        chunks: list[Chunk] = []
        pace = float(self._pace.mean)
        left = FIRST if np.isnan(pace) else seconds / pace
        while self._next is not None and (left > 0 or not chunks):
            condition, pieces = self._next[0], list[Piece]()
            while self._next is not None and self._next[0] is condition and (left > 0 or not pieces):
                _, setting, repetitions = self._next
                fit = max(1, min(len(repetitions), int(left)))
                pieces.append(Piece(setting, repetitions[:fit]))
                left -= fit
                rest = repetitions[fit:]
                self._next = (condition, setting, rest) if rest else next(self._pieces, None)
            chunks.append(Chunk(condition, tuple(pieces)))
        return chunks

    def learn(self, report: Report) -> None:
        """Learn from what came of a task how long a cell takes."""
        if report.cells and report.seconds > 0.0:
            self._pace.update(report.seconds / report.cells)


def _pieces(
    missing: Sequence[tuple[Wanted, dict[str, Any]]],
) -> Iterator[tuple[Condition, Setting, tuple[int, ...]]]:
    """Missing cells, all settings on the same repetitions before the next, so that each is drawn once."""
    for one, rows in missing:
        for block in one.condition.blocks(one.repetitions):
            for setting in one.settings:
                repetitions = block.start + np.flatnonzero(rows[setting.key][block.start : block.stop])
                if repetitions.size:
                    yield one.condition, setting, tuple(repetitions.tolist())


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """The signals that came, of Ctrl-C and of a polite kill; a second one ends at once."""
    came: list[int] = []

    def note(signum: int, _: Any) -> None:
        if came:
            raise KeyboardInterrupt(signum)
        came.append(signum)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
