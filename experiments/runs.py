"""The folder that a run leaves: named by what determines its numbers, written whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.files import abandoned
from experiments.fingerprint import unchanged
from experiments.report import PAGE, report
from experiments.summaries import Column

PACKAGES = ("numpy", "numba", "pandas", "scipy", "matplotlib", "hydra-core", "filterpy")


@dataclass(frozen=True)
class Report:
    """What people read of an experiment: a text, figures, the columns of its tables, and series.

    series: name, which becomes a file's -> what was estimated sample by sample, in the columns of
    `experiments.series`.
    """

    text: str
    figures: Mapping[str, Any]
    columns: Sequence[Column]
    series: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What an experiment computed: the long table, its summary as data, as text and in LaTeX, and figures.

    columns, series: as in `Report`.
    """

    table: pd.DataFrame
    summary: pd.DataFrame
    text: str
    figures: Mapping[str, Any]
    latex: str = ""
    columns: Sequence[Column] = ()
    series: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """``output/runs/<experiment>-<hash>`` of all that determines an experiment's numbers, as plain data."""

    output: Path
    experiment: str
    content: Any

    @cached_property
    def code(self) -> str:
        """Fingerprint of the code by which the folder is named."""
        return code_fingerprint()

    @cached_property
    def identity(self) -> str:
        """Digest of the content and of the code."""
        content = json.dumps([self.content, self.code])
        return hashlib.sha256(content.encode()).hexdigest()[:12]

    @property
    def path(self) -> Path:
        """Where the run is, or will be."""
        return self.output / "runs" / f"{self.experiment}-{self.identity}"

    def finished(self) -> bool:
        """Whether this very run is there already, complete, and each file as it was written."""
        manifest = self._read()
        try:
            files = manifest["files"].items()
            return manifest["complete"] is True and all(_digest(self.path / name) == d for name, d in files)
        except (OSError, KeyError, TypeError, AttributeError):
            return False

    def cells(self) -> dict[str, int]:
        """How many cells of the run there are, by how they stand; empty where it has none."""
        cells: dict[str, int] = self._read().get("cells", {})
        return cells

    def _read(self) -> Any:
        try:
            return json.loads((self.path / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def prepare(self) -> None:
        """See that the folder can be written; ValueError, one line, if not. Clears what kills left."""
        runs = self.path.parent
        try:
            for left in abandoned(runs.glob(".unfinished-*")):
                shutil.rmtree(left, ignore_errors=True)
            there = next(folder for folder in (runs, *runs.parents) if folder.exists())
            with tempfile.TemporaryDirectory(dir=there, prefix=".probe-"):
                pass
        except OSError as error:
            raise self._not_written(error) from error

    def write(
        self,
        outcome: Outcome,
        command: list[str],
        config_yaml: str,
        cells: Mapping[str, int] | None = None,
        computed_with: Iterable[str] = (),
    ) -> None:
        """Write everything beside the target and move it there in one step; ValueError, one line, if not.

        The run is complete unless some of its cells failed or are missing.
        """

        def fill(staging: Path) -> dict[str, Any]:
            for name, frame in (("table.csv", outcome.table), ("summary.csv", outcome.summary)):
                frame.to_csv(staging / name, index=False, float_format="%.17g", lineterminator="\n")
            texts = {"summary.md": outcome.text, "summary.tex": outcome.latex, "config.yaml": config_yaml}
            for name, text in texts.items():
                if text:
                    (staging / name).write_text(text, encoding="utf-8")
            for name, frame in outcome.series.items():
                (staging / "series").mkdir(exist_ok=True)
                frame.to_csv(
                    staging / "series" / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n"
                )
            self._draw(outcome.figures, staging / "figures", command)
            counts = dict(cells or {})
            return {
                "complete": not counts.get("failed") and not counts.get("missing"),
                **({"cells": counts, "computed_with": sorted(computed_with)} if counts else {}),
                "rows": len(outcome.table),
                "rows_without_value": int((outcome.table["status"] != "ok").sum()),
                "columns": [asdict(column) for column in outcome.columns],
            }

        self._replace(fill, command)

    def note(self, command: list[str], config_yaml: str, how: Mapping[str, Any]) -> None:
        """Write, where there is no table yet, the configuration and a manifest that says how far it came."""
        if (self.path / "table.csv").exists():  # of a run some of whose cells failed, and were tried again
            return

        def fill(staging: Path) -> dict[str, Any]:
            (staging / "config.yaml").write_text(config_yaml, encoding="utf-8")
            return {"complete": False, **how}

        self._replace(fill, command)

    def _replace(self, fill: Callable[[Path], dict[str, Any]], command: list[str]) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            staging = Path(tempfile.mkdtemp(dir=self.path.parent, prefix=".unfinished-"))
            try:
                manifest = self._manifest(fill(staging), command, staging)
                _save(manifest, staging)
                if (staging / "summary.csv").exists():  # the report shows the manifest, which then names it
                    page = staging / PAGE
                    page.write_text(report([staging]), encoding="utf-8")
                    manifest["files"][page.name] = _digest(page)
                    _save(manifest, staging)
                os.chmod(staging, 0o755)
                if self.finished():  # by another process, while this one computed: leave it untouched
                    return
                if self.path.exists():
                    shutil.rmtree(self.path)
                os.replace(staging, self.path)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            if not self.finished():  # another process may just have finished the same run
                raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> ValueError:
        reason = error.strerror or str(error)
        return ValueError(f"output={str(self.output)!r} cannot be written ({reason}); name a folder")

    def _draw(self, figures: Mapping[str, Any], folder: Path, command: list[str]) -> None:
        folder.mkdir()
        shown = [part for part in command if not part.startswith("output=")]  # where it lies says nothing
        about = {
            "Title": self.experiment,
            "Source": f"{' '.join(shown)}; run {self.identity}; code {self.code}",
            "Software": None,
        }
        for name, figure in figures.items():
            figure.savefig(folder / f"{name}.png", metadata=about)

    def _manifest(self, about: Mapping[str, Any], command: list[str], staging: Path) -> dict[str, Any]:
        files = sorted(path for path in staging.rglob("*") if path.is_file())
        return {
            "schema": 2,
            "experiment": self.experiment,
            "command": command,
            "identity": self.identity,
            "code": self.code,
            **about,
            "python": platform.python_version(),
            "machine": platform.machine(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "files": {path.relative_to(staging).as_posix(): _digest(path) for path in files},
        }


def _save(manifest: Mapping[str, Any], folder: Path) -> None:
    text = json.dumps(manifest, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


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
            digest.update(unchanged(path))
    return digest.hexdigest()[:16]
