"""The folder that a run leaves: named by what determines its numbers, written whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

NOT_NUMBERS = ("output", "executor")
"""Top-level settings that change where or how a run is made, never its numbers."""
ABANDONED = 24 * 3600
"""Seconds after which an unfinished folder is nobody's any more."""
PACKAGES = ("numpy", "numba", "pandas", "scipy", "matplotlib", "hydra-core", "filterpy")


@dataclass(frozen=True)
class Outcome:
    """What an experiment computed: the long table, its summary as data and as text, and its figures."""

    table: pd.DataFrame
    summary: pd.DataFrame
    text: str
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """``output/runs/<experiment>-<hash>`` of a resolved configuration and the data behind its stream."""

    output: Path
    experiment: str
    config: Mapping[str, Any]
    data_digest: str

    @property
    def identity(self) -> str:
        """Digest of the settings that determine the numbers, of the code and of the recorded data."""
        numbers = {key: value for key, value in self.config.items() if key not in NOT_NUMBERS}
        if self.data_digest:  # the samples themselves count, not where they lie
            numbers["stream"] = {key: value for key, value in numbers["stream"].items() if key != "path"}
        # In the order given: estimators are compared with, and matched to, the first one named.
        content = json.dumps([numbers, code_fingerprint(), self.data_digest])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        """Where the run is, or will be."""
        return self.output / "runs" / f"{self.experiment}-{self.identity}"

    def finished(self) -> bool:
        """Whether this very run is there already, each file as it was written."""
        try:
            files = json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))["files"]
            return all(_digest(self.path / name) == digest for name, digest in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def prepare(self) -> None:
        """See that the folder can be written; ValueError, one line, if not. Clears what kills left."""
        runs = self.path.parent
        try:
            for left in runs.glob(".unfinished-*"):
                with suppress(FileNotFoundError):  # another process may just have finished with its own
                    if time.time() - left.stat().st_mtime > ABANDONED:
                        shutil.rmtree(left, ignore_errors=True)
            there = next(folder for folder in (runs, *runs.parents) if folder.exists())
            with tempfile.TemporaryDirectory(dir=there, prefix=".probe-"):
                pass
        except OSError as error:
            raise self._not_written(error) from error

    def write(self, outcome: Outcome, command: list[str], config_yaml: str) -> None:
        """Write everything beside the target and move it there in one step; ValueError, one line, if not."""
        try:
            self._write(outcome, command, config_yaml)
        except OSError as error:
            if not self.finished():  # another process may just have finished the same run
                raise self._not_written(error) from error

    def _write(self, outcome: Outcome, command: list[str], config_yaml: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".unfinished-"))
        try:
            for name, frame in (("table.csv", outcome.table), ("summary.csv", outcome.summary)):
                frame.to_csv(staging / name, index=False, float_format="%.17g", lineterminator="\n")
            (staging / "summary.md").write_text(outcome.text, encoding="utf-8")
            (staging / "config.yaml").write_text(config_yaml, encoding="utf-8")
            self._draw(outcome.figures, staging / "figures", command)
            manifest = self._manifest(outcome, command, staging)
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            os.chmod(staging, 0o755)
            if self.finished():  # by another process, while this one computed: leave it untouched
                return
            if self.path.exists():
                shutil.rmtree(self.path)
            os.replace(staging, self.path)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _not_written(self, error: OSError) -> ValueError:
        reason = error.strerror or str(error)
        return ValueError(f"output={str(self.output)!r} cannot be written ({reason}); name a folder")

    def _draw(self, figures: Mapping[str, Any], folder: Path, command: list[str]) -> None:
        folder.mkdir()
        about = {
            "Title": self.experiment,
            "Source": f"{' '.join(command)}; run {self.identity}",
            "Software": None,
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", metadata=about)

    def _manifest(self, outcome: Outcome, command: list[str], staging: Path) -> dict[str, Any]:
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        return {
            "schema": 1,
            "experiment": self.experiment,
            "command": command,
            "identity": self.identity,
            "code": code_fingerprint(),
            "data": self.data_digest,
            "rows": len(outcome.table),
            "rows_without_value": int((outcome.table["status"] != "ok").sum()),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "files": {path.relative_to(staging).as_posix(): _digest(path) for path in files},
        }


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def code_fingerprint() -> str:
    """Digest of the sources of both packages: numbers of changed code are never served from an old run."""
    import estimators
    import experiments

    digest = hashlib.sha256()
    for package in (estimators, experiments):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            digest.update(f"{package.__name__}/{path.relative_to(root).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
