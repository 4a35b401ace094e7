"""Cells that do nothing but wait: what the runner costs, and whether an executor works where you are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.metrics import Measured

if TYPE_CHECKING:
    import pandas as pd

    from estimators import Estimator
    from experiments.cells import Condition
    from experiments.plan import Panel
    from experiments.runs import Report


@dataclass(frozen=True)
class Parameters:
    """seconds: that each cell waits."""

    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.seconds < np.inf:
            raise ValueError(f"experiment.seconds={self.seconds} is not valid; it must be finite and >= 0")


def measure(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """The repetition's own number, after a wait for each."""
    if condition.parameters.seconds:
        time.sleep(condition.parameters.seconds * len(repetitions))
    return [Measured("repetition", "1", np.array(repetitions, dtype=np.float64))]


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """How many cells there are."""
    from experiments.runs import Report

    cells = sum(panel.cells for panel in panels)
    failed = int(summary["failed"].sum())
    return Report(f"idle: {cells:,} cells that do nothing; {failed:,} failed.\n", {}, ())
