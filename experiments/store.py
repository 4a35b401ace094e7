"""The store of finished cells: immutable shards, one for each chunk, that any number of writers add to."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.cells import Condition, Results
from experiments.files import PARTIAL, abandoned, write_whole
from experiments.metrics import Measured

SCHEMA = 1
VERSIONS = ("numpy", "numba")
"""Libraries that compute the numbers: named in each shard."""


class UnwritableError(OSError):
    """A shard could not be written: the disk is full, or the folder read-only."""


@dataclass
class Known:
    """What the store knows of a condition's cells: by setting, which repetitions are done, which failed."""

    done: dict[str, NDArray[np.bool_]]
    failed: dict[str, NDArray[np.bool_]]


@dataclass
class Store:
    """The cells below ``output/cells``, a folder for each condition.

    A shard is two lines of JSON: what it holds, and the measurements. Its name is the digest of its bytes, so
    that one that is not whole is known, and left out with a line in ``complaints``.
    """

    output: Path
    complaints: dict[str, str] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)

    def folder(self, condition: str) -> Path:
        """Where a condition's shards are, by its key."""
        return self.output / "cells" / condition[:2] / condition

    def write(self, results: Results) -> Path:
        """Add a shard; UnwritableError, and nothing left behind, where it cannot be written."""
        data = _shard(results)
        folder = self.folder(results.chunk.condition.key)
        path = folder / f"{_name(data)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise UnwritableError(error.errno, error.strerror or str(error), str(path)) from error
        return path

    def known(self, condition: Condition, wanted: Mapping[str, int]) -> Known:
        """Which of the first so many repetitions of each wanted setting are done, and which have failed.

        A cell that was done counts as done, whatever failed before or after.
        """
        done = {setting: np.zeros(count, bool) for setting, count in wanted.items()}
        failed = {setting: np.zeros(count, bool) for setting, count in wanted.items()}
        for head, _ in self._shards(condition.key):
            for setting, ranges in head["done"].items():
                if setting in done:
                    for first, last in ranges:
                        done[setting][first : last + 1] = True
            for setting, repetitions in head["failed"].items():
                if setting in failed:
                    failed[setting][[r for r in repetitions if r < failed[setting].size]] = True
        for setting in done:
            failed[setting] &= ~done[setting]
        return Known(done, failed)

    def read(self, condition: Condition, wanted: Mapping[str, int]) -> dict[str, list[Measured]]:
        """Measurements of the first so many repetitions of each wanted setting; NaN where there is none."""
        found: dict[str, dict[str, Measured]] = {setting: {} for setting in wanted}
        for head, body in self._shards(condition.key):
            if not found.keys() & head["done"].keys():
                continue
            content = json.loads(body)
            self.versions.add(content["versions"])
            for piece in content["measured"]:
                if piece["setting"] in wanted:
                    _add(found[piece["setting"]], piece, wanted[piece["setting"]])
        return {setting: list(series.values()) for setting, series in found.items()}

    def failures(self, condition: Condition) -> dict[str, dict[int, str]]:
        """The last known error of each cell that failed, by setting and repetition."""
        found: dict[str, dict[int, str]] = {}
        for head, body in self._shards(condition.key):
            for failure in json.loads(body)["failures"] if head["failed"] else ():
                found.setdefault(failure["setting"], {})[failure["repetition"]] = failure["error"]
        return found

    def sweep_up(self, conditions: Iterable[str]) -> None:
        """Remove what kills left of unfinished shards, once it is nobody's."""
        for condition in conditions:
            for left in abandoned(self.folder(condition).glob(f"{PARTIAL}*")):
                left.unlink(missing_ok=True)

    def _shards(self, condition: str) -> Iterator[tuple[dict[str, Any], bytes]]:
        """The head of every whole shard, as data, and its body, as bytes."""
        for path in sorted(self.folder(condition).glob("*.jsonl")):
            try:
                data = path.read_bytes()
            except OSError as error:
                self._leave_out(path, f"cannot be read ({error.strerror})")
                continue
            if _name(data) != path.stem:
                self._leave_out(path, "is not whole")
                continue
            text, _, body = data.partition(b"\n")
            head = _head(text)
            if head.get("condition") == condition and body.startswith(b'{"condition":'):
                yield head, body
            else:
                self._leave_out(path, "is not a shard of this place and version")

    def _leave_out(self, path: Path, why: str) -> None:
        self.complaints[str(path)] = f"{path} {why}: left out, its cells are run again; it can be deleted"


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _head(text: bytes) -> dict[str, Any]:
    """What a shard holds, empty where it is none of this version."""
    try:
        head = json.loads(text)
        kinds = type(head["done"]), type(head["failed"])
        return head if head["schema"] == SCHEMA and kinds == (dict, dict) else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _shard(results: Results) -> bytes:
    done: dict[str, list[list[int]]] = {}
    failed: dict[str, list[int]] = {}
    for piece, _ in results.measured:
        done.setdefault(piece.setting.key, []).extend(_ranges(piece.repetitions))
    for failure in results.failures:
        failed.setdefault(failure.setting.key, []).append(failure.repetition)
    condition = results.chunk.condition
    head = {"schema": SCHEMA, "condition": condition.key, "done": done, "failed": failed}
    settings = {piece.setting.key: piece.setting for piece in results.chunk.pieces}
    body = {
        "condition": {**condition.content, "code": condition.code},
        "settings": {key: {**setting.content, "code": setting.code} for key, setting in settings.items()},
        "versions": versions(),
        "measured": [
            {
                "setting": piece.setting.key,
                "repetitions": _ranges(piece.repetitions),
                "metrics": [_written(one) for one in measured],
            }
            for piece, measured in results.measured
        ],
        "failures": [
            {
                "setting": failure.setting.key,
                "repetition": failure.repetition,
                "error": failure.error,
                "traceback": failure.traceback,
            }
            for failure in results.failures
        ],
    }
    lines = (json.dumps(line, separators=(",", ":"), allow_nan=False) for line in (head, body))
    return "".join(f"{line}\n" for line in lines).encode()


def _written(measured: Measured) -> dict[str, Any]:
    values = [value if finite else None for value, finite in _finite(measured.values)]
    return {"metric": measured.metric, "unit": measured.unit, "missing": measured.missing, "values": values}


def _finite(values: NDArray[np.float64]) -> Iterator[tuple[float, bool]]:
    return zip(np.asarray(values).tolist(), np.isfinite(values).tolist(), strict=True)


def _add(series: dict[str, Measured], piece: Mapping[str, Any], count: int) -> None:
    """Put a stored piece's values in their places."""
    repetitions = np.concatenate([np.arange(first, last + 1) for first, last in piece["repetitions"]])
    kept = repetitions < count
    for found in piece["metrics"]:
        name = found["metric"]
        if name not in series:
            series[name] = Measured(name, found["unit"], np.full(count, np.nan), found["missing"])
        values = np.array([np.nan if value is None else value for value in found["values"]])
        series[name].values[repetitions[kept]] = values[kept]


def _ranges(repetitions: Sequence[int]) -> list[list[int]]:
    """Ascending numbers as first and last of each run without a gap."""
    ranges: list[list[int]] = []
    for repetition in repetitions:
        if ranges and repetition == ranges[-1][1] + 1:
            ranges[-1][1] = repetition
        else:
            ranges.append([repetition, repetition])
    return ranges


@functools.cache
def versions() -> str:
    """What computes numbers here: Python, the libraries that count, and the kind of machine."""
    return ", ".join(
        [
            f"python {platform.python_version()}",
            *(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS),
            platform.machine(),
        ]
    )
