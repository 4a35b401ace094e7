"""Runs of the command line in this process, with what they print and leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import compare
from experiments.__main__ import main


@dataclass(frozen=True)
class Ran:
    """One call of the command line."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def folder(self) -> Path:
        """The run's folder, the only one there is."""
        assert self.code == 0, self.err
        (folder,) = (self.output / "runs").iterdir()
        return folder

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "table.csv", keep_default_na=True)

    @property
    def summary(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "summary.csv")

    def values(self, metric: str, estimator: str | None = None) -> Any:
        table = self.table
        chosen = table["metric"] == metric
        if estimator is not None:
            chosen &= table["estimator"] == estimator
        return table.loc[chosen, "value"].to_numpy()


@pytest.fixture
def kalmean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Call the command line with overrides; figures, the slow part of a small run, only where asked for."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, output: str | Path = "out", figures: bool = False) -> Ran:
        folder = tmp_path / output
        given = any(override.startswith("output=") for override in overrides)
        with monkeypatch.context() as patched:
            if not figures:
                patched.setattr(compare, "_figures", lambda *_: {})
            capsys.readouterr()
            code = main([*overrides] if given else [*overrides, f"output={folder}"])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err, folder)

    return call


@pytest.fixture
def refused(kalmean: Callable[..., Ran]) -> Callable[..., str]:
    """The one line with which the command line refuses overrides, after which nothing is there."""

    def call(*overrides: str, **settings: Any) -> str:
        ran = kalmean(*overrides, **settings)
        assert ran.code == 2
        assert ran.out == ""
        assert ran.err.endswith("\n")
        assert ran.err.count("\n") == 1, ran.err
        assert ran.err.startswith("kalmean: ")
        assert "Traceback" not in ran.err
        assert not ran.output.exists(), "a refused run wrote something"
        return ran.err.removeprefix("kalmean: ").rstrip("\n")

    return call
