"""Means against closed forms: the count of those too far off, on cells whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from experiments.agreement import BEYOND, Agreement, agreement, closed_form
from experiments.metrics import Measured
from experiments.summaries import Rows, long_table, summarise


def found(truth: float, *columns: np.ndarray) -> Agreement:
    rows = [
        Rows(
            "noise",
            f"e{i}",
            "",
            [Measured("error", "1", column), closed_form("error", "1", truth, len(column))],
        )
        for i, column in enumerate(columns)
    ]
    return agreement(summarise(long_table("here", rows)))


def test_right_closed_forms_are_exceeded_as_often_as_chance_says() -> None:
    draws = np.random.default_rng(0).normal(2.0, 3.0, (3000, 5))
    told = found(2.0, *draws)
    assert told.pairs == 3000
    assert told.by_chance == pytest.approx(3000 * 0.0399, rel=0.01)  # P(|t4| > 3)
    low, high = binom.interval(0.999, 3000, told.by_chance / 3000)
    assert low <= told.beyond <= high


def test_a_wrong_closed_form_is_found() -> None:
    draws = np.random.default_rng(1).normal(2.0, 1.0, (4, 100))
    told = found(2.5, *draws)
    assert told.beyond == told.pairs == 4
    assert "4 of 4 means" in str(told)


def test_cells_that_do_not_differ_must_be_equal_to_the_closed_form() -> None:
    same = np.full(7, 2.0)
    assert found(2.0, same) == Agreement(1, 0, 0.0, "error e0 noise, by 0.0")
    assert found(2.0 + 1e-6, same).beyond == 1


def test_a_mean_of_one_cell_is_not_compared() -> None:
    assert found(2.0, np.array([3.0])).pairs == 0


def test_three_standard_errors_are_counted_exactly() -> None:
    n = 50
    cells = np.tile([-1.0, 1.0], n // 2)
    error = cells.std(ddof=1) / np.sqrt(n)
    assert found(0.999 * BEYOND * error, cells).beyond == 0
    assert found(1.001 * BEYOND * error, cells).beyond == 1
