"""A run's text on terminals of any width."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.tables import aligned, width
from experiments.terminal import fitted

TABLE = aligned(
    [
        ["estimator", "setting", "RMSE", "lag"],
        ["ema", "beta=0.99", "0.1344 ± 0.0018", "99"],
        ["moving_average", "window=199", "0.1455 ± 0.0019", "-"],
    ]
)
ROOT = Path(__file__).parent.parent.parent


def test_what_fits_is_left_as_it_is() -> None:
    text = f"Words.\n\n{TABLE}\n\n- a difference\n"
    assert fitted(text, max(map(width, text.splitlines()))) == text


def test_a_wide_table_is_written_row_below_row() -> None:
    assert fitted(f"{TABLE}\n", 40) == (
        "ema  beta=0.99\n"
        "  RMSE  0.1344 ± 0.0018\n"
        "  lag   99\n"
        "moving_average  window=199\n"
        "  RMSE  0.1455 ± 0.0019\n"
        "  lag   -\n"
    )


def test_words_are_wrapped_and_lists_indented() -> None:
    text = "one two three four\n- five six seven eight\n  laid out by hand, as it is\n"
    assert (
        fitted(text, 12)
        == "one two\nthree four\n- five six\n  seven\n  eight\n  laid out by hand, as it is\n"
    )


@given(st.integers(10, 200), st.lists(st.text(alphabet="ab é損", min_size=1).map(str.strip), max_size=8))
def test_nothing_is_lost(columns: int, words: list[str]) -> None:
    words = [part[:columns] for word in words for part in word.split()]
    shown = fitted(" ".join(words), columns)
    assert shown.split() == words
    cells = [
        cell.strip()
        for line in TABLE.splitlines()
        if "--" not in line
        for cell in line.strip("| ").split(" | ")
    ]
    table = fitted(TABLE, columns)
    assert all(cell in table for cell in cells if cell not in ("estimator", "setting"))


@pytest.mark.parametrize(("columns", "is_table"), [(60, False), (200, True)])
def test_a_run_on_a_terminal(columns: int, is_table: bool, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "experiments", "seeds=2", "stream.steps=100", "estimators=[ema,kalman]"]
    with subprocess.Popen(
        [*command, "executor.workers=0"],
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=tmp_path,
    ) as run:
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # how a terminal ends
                break
            if not part:
                break
            written += part
    os.close(ours)
    assert run.returncode == 0
    lines = written.decode().replace("\r", "").splitlines()
    assert any(line.startswith("| ema ") for line in lines) == is_table
    assert max(map(width, lines[:-1])) <= columns
    kept = next((tmp_path / "results" / "runs").iterdir()) / "summary.md"
    assert "| ema " in kept.read_text(encoding="utf-8")
