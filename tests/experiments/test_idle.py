"""Cells that do nothing give back their repetitions, wait as long as asked, and refuse what is no wait."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from estimators import EMA
from experiments import idle


def condition(seconds: float) -> Any:
    return SimpleNamespace(parameters=idle.Parameters(seconds))


@pytest.mark.parametrize("repetitions", [[0], [3, 4, 7], range(5), []])
def test_values_are_the_repetitions(repetitions: Any) -> None:
    (measured,) = idle.measure(condition(0.0), EMA(0.9), repetitions)
    assert (measured.metric, measured.unit) == ("repetition", "1")
    assert measured.values.dtype == np.float64
    assert measured.values.tolist() == list(repetitions)
    assert measured.status == ["ok"] * len(repetitions)


def test_seconds_are_waited_for_each_repetition() -> None:
    start = time.perf_counter()
    idle.measure(condition(0.02), EMA(0.9), range(3))
    assert time.perf_counter() - start >= 0.9 * 3 * 0.02


def test_a_run_has_a_row_per_cell_and_says_how_many(kalmean: Any) -> None:
    ran = kalmean("experiment=idle", "seeds=5", "stream.steps=100", "estimators=[ema,kalman]")
    assert ran.out.startswith("idle: 10 cells that do nothing; 0 failed.\n")
    for name in ("ema", "kalman"):
        assert ran.values("repetition", name).tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("seconds", [-1e-9, -1.0, np.inf, -np.inf, np.nan])
def test_what_is_no_wait_is_refused(seconds: float) -> None:
    with pytest.raises(
        ValueError, match=r"^experiment\.seconds=.* is not valid; it must be finite and >= 0$"
    ):
        idle.Parameters(seconds)


@pytest.mark.parametrize("seconds", ["-1", ".inf", "soon"])
def test_what_is_no_wait_is_refused_on_the_command_line(seconds: str, refused: Any) -> None:
    assert "experiment.seconds" in refused("experiment=idle", f"experiment.seconds={seconds}")
