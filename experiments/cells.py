"""What a cell is: an estimator's setting on one realisation of a stream, named by all it rests on."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from estimators import Estimator
from experiments.fingerprint import ChangedCodeError, fingerprint
from experiments.metrics import Measured, Trial, joined, measure
from experiments.streams import Realisations, Stream

BLOCK = 100_000
"""Samples held at a time: repetitions are drawn and measured in blocks of about this size."""

Measure = Callable[["Condition", Estimator, Sequence[int]], list[Measured]]
"""What an experiment measures of an estimator on some repetitions: a function of a module."""


@dataclass(frozen=True)
class Condition:
    """All that cells rest on but for setting and repetition; cells of one condition share their streams."""

    measure: Measure
    parameters: Any
    stream: Stream
    noise_variance: float
    root_seed: int
    burn_in: int

    @property
    def content(self) -> dict[str, Any]:
        """What the numbers rest on, as plain data: neither where samples lie, nor how they are told."""
        stream = plain(self.stream)
        for elsewhere in ("path", "noise_variance"):  # the samples' digest and the resolved variance count
            stream.pop(elsewhere, None)
        return {
            "measure": f"{self.measure.__module__}.{self.measure.__qualname__}",
            "parameters": plain(self.parameters),
            "stream": stream,
            "samples": self.stream.digest(),
            "noise_variance": plain(self.noise_variance),
            "root_seed": self.root_seed,
            "burn_in": self.burn_in,
        }

    @cached_property
    def code(self) -> str:
        """Fingerprint of the code of the stream and of what is measured."""
        return _code(self.measure, type(self.stream))

    @cached_property
    def key(self) -> str:
        """Digest of the content and the code."""
        return digest([self.content, self.code])

    @property
    def width(self) -> int:
        """Repetitions in a block."""
        return max(1, BLOCK // self.stream.length())

    def blocks(self, repetitions: int) -> Iterator[range]:
        """The first so many repetitions in blocks that stay in the nearer caches."""
        for first in range(0, repetitions, self.width):
            yield range(first, min(first + self.width, repetitions))

    def draw(self, repetitions: Sequence[int]) -> Realisations:
        """Draw repetitions of the stream, those that are evaluated."""
        return self.stream.draw(repetitions, self.root_seed, "evaluate")

    def trial(self, estimator: Estimator, repetitions: Sequence[int]) -> Trial:
        """An estimator on some repetitions, drawn once for estimators that follow each other on them."""
        drawn = _last_drawn.get((self.key, tuple(repetitions)))
        if drawn is None:
            _last_drawn.clear()  # before the next is drawn: two do not fit the nearer caches
            drawn = self.draw(repetitions)
            _last_drawn[self.key, tuple(repetitions)] = drawn
        return Trial(estimator, drawn, self.burn_in, self.noise_variance**0.5, self.stream.unit)


_last_drawn: dict[tuple[str, tuple[int, ...]], Realisations] = {}


@dataclass(frozen=True)
class Setting:
    """An estimator with its parameters."""

    estimator: Estimator

    @property
    def content(self) -> Any:
        """The parameters as plain data."""
        return plain(self.estimator)

    @cached_property
    def code(self) -> str:
        """Fingerprint of the estimator's code."""
        return _code(type(self.estimator))

    @cached_property
    def key(self) -> str:
        """Digest of the content and the code."""
        return digest([self.content, self.code])


@dataclass(frozen=True)
class Piece:
    """Some repetitions of one setting, measured side by side."""

    setting: Setting
    repetitions: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """Cells of one condition that are measured one after the other and stored together."""

    condition: Condition
    pieces: tuple[Piece, ...]

    @property
    def cells(self) -> int:
        """How many."""
        return sum(len(piece.repetitions) for piece in self.pieces)

    def check(self) -> None:
        """Raise ChangedCodeError unless the sources here are those by which the cells were named."""
        kinds = {(type(piece.setting.estimator), piece.setting.code) for piece in self.pieces}
        same = fingerprint(self.condition.measure, type(self.condition.stream)) == self.condition.code
        if not same or any(fingerprint(kind) != code for kind, code in kinds):
            raise ChangedCodeError("the code was changed while the sweep ran; give the command again")


@dataclass(frozen=True)
class Failure:
    """A cell that raised, or whose worker died."""

    setting: Setting
    repetition: int
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Results:
    """What came of a chunk: measurements, piece by piece, failures, and the seconds that it took."""

    chunk: Chunk
    measured: Sequence[tuple[Piece, Sequence[Measured]]] = ()
    failures: Sequence[Failure] = field(default=())
    seconds: float = 0.0


def every_metric(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """All metrics that the stream allows: what most experiments measure."""
    return measure(condition.trial(estimator, repetitions))


def measured(chunk: Chunk) -> Results:
    """Measure a chunk's cells; one that raises is a failure, and costs no other cell."""
    start = time.perf_counter()
    done: list[tuple[Piece, Sequence[Measured]]] = []
    failures: list[Failure] = []
    for piece in chunk.pieces:
        found, failed = _of(chunk.condition, piece)
        failures += failed
        if found is not None:
            done.append(found)
    return Results(chunk, done, failures, time.perf_counter() - start)


def _of(condition: Condition, piece: Piece) -> tuple[tuple[Piece, Sequence[Measured]] | None, list[Failure]]:
    estimator, repetitions = piece.setting.estimator, piece.repetitions
    try:
        return (piece, condition.measure(condition, estimator, repetitions)), []
    except MemoryError:
        raise
    except Exception as error:
        if len(repetitions) == 1:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            return None, [Failure(piece.setting, repetitions[0], line, traceback.format_exc())]
    # One bad repetition must not cost those beside it.
    found, failures = [], []
    for repetition in repetitions:
        one, failed = _of(condition, Piece(piece.setting, (repetition,)))
        failures += failed
        if one is not None:
            found.append(one)
    if not found:
        return None, failures
    alive = tuple(one.repetitions[0] for one, _ in found)
    return (Piece(piece.setting, alive), joined([part for _, part in found])), failures


@functools.cache
def _code(*things: Any) -> str:
    """Fingerprint of the code as this process found it."""
    return fingerprint(*things)


def digest(content: Any) -> str:
    """Short name of plain data."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def plain(value: Any) -> Any:
    """Settings as data that JSON writes and that are equal where, and only where, the settings are."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": type(value).__qualname__, **fields}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
