"""The search for a learning rate: grids, edges, divergence, and the win that a coarse grid makes up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.learning_rates import COARSEST, Grid, Losses, Train, Trials
from experiments.summaries import mean_interval

SEEDS = 8


def bowl(optimum: float, floor: float = 0.1, curvature: float = 0.05, spread: float = 0.0) -> Train:
    """Losses that are a parabola in the logarithm of the rate, with a common noise of each seed."""
    noise = spread * np.random.default_rng(0).standard_normal(SEEDS)

    def train(rates: Sequence[float]) -> Losses:
        apart = np.log(np.asarray(rates) / optimum)[:, np.newaxis]
        losses = floor + curvature * apart**2 + noise
        return Losses(losses, losses + 0.01)

    return train


def counting(train: Train) -> tuple[Train, list[float]]:
    """The same, and which rates it was asked for."""
    asked: list[float] = []

    def counted(rates: Sequence[float]) -> Losses:
        asked.extend(rates)
        return train(rates)

    return counted, asked


# --- the search -------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    optimum=st.floats(1e-4, 1.0),
    centre=st.floats(1e-4, 1.0),
    factor=st.floats(1.1, COARSEST),
    points=st.integers(3, 9),
)
def test_the_optimum_is_found_wherever_the_search_begins(
    optimum: float, centre: float, factor: float, points: int
) -> None:
    train, asked = counting(bowl(optimum))
    found = Grid(factor, points, extensions=200).search(train, centre)
    assert found.interior
    assert abs(math.log(found.rate / optimum)) <= 0.5 * math.log(factor) + 1e-9
    assert sorted(asked) == list(found.rates), "each rate once, and all of them told"
    ratios = np.diff(np.log(found.rates))
    np.testing.assert_allclose(ratios, math.log(factor), rtol=1e-6)
    assert len(found.losses.validation) == len(found.losses.test) == len(found.rates)
    least = found.losses.validation[found.best]
    np.testing.assert_array_equal(found.losses.test[found.best], least + 0.01)


def test_an_interior_optimum_needs_no_extension() -> None:
    train, asked = counting(bowl(0.01))
    found = Grid(points=7).search(train, 0.01)
    assert (found.best, found.rate, len(asked)) == (3, 0.01, 7)


@pytest.mark.parametrize("far", [1e-6, 1e6])
def test_an_edge_is_no_optimum_once_the_extensions_are_spent(far: float) -> None:
    train, asked = counting(bowl(far))
    found = Grid(points=5, extensions=3).search(train, 1.0)
    assert not found.interior
    assert found.best == (0 if far < 1.0 else len(found.rates) - 1)
    assert len(asked) == 5 + 3 * 2
    assert Grid(points=5, extensions=20).search(bowl(far), 1.0).interior


def test_a_rate_at_which_one_seed_diverged_is_never_chosen() -> None:
    def train(rates: Sequence[float]) -> Losses:
        losses = bowl(1.0)(rates).validation
        losses[np.asarray(rates) > 0.8, 3] = np.nan
        return Losses(losses, losses)

    found = Grid(points=7).search(train, 1.0)
    assert found.rate == pytest.approx(math.sqrt(0.5))
    assert np.isfinite(found.losses.test[found.best]).all()
    assert found.means[np.asarray(found.rates) > 0.8].tolist() == [np.inf] * 4
    assert Trials.of(lambda rates: Losses(*[np.full((len(rates), 2), np.inf)] * 2), [1.0, 2.0, 3.0]).best == 0


def test_a_search_that_diverges_everywhere_goes_down_and_ends_there() -> None:
    def train(rates: Sequence[float]) -> Losses:
        losses = np.where(np.asarray(rates)[:, np.newaxis] > 0.01, np.nan, bowl(0.002)(rates).validation)
        return Losses(losses, losses)

    found = Grid(points=7).search(train, 1.0)
    assert not found.interior
    assert found.best == 0
    found = Grid(points=7, extensions=10).search(train, 1.0)
    assert found.interior
    assert found.rate == pytest.approx(0.002, rel=0.2)


# --- the trap of a coarse grid ------------------------------------------------------------------------------


def told(ours: Trials, theirs: Trials) -> tuple[float, float, float]:
    """Paired difference of test losses at the rates chosen, and its interval."""
    difference = ours.losses.test[ours.best] - theirs.losses.test[theirs.best]
    return mean_interval(difference)[:3]


def test_a_win_on_a_coarse_grid_is_none_on_a_fine_one() -> None:
    """Two methods of one least loss: the optimum of one is on a grid of factor 3, the other's between."""
    coarse = [1e-3 * 3.0**place for place in range(5)]
    on_grid, between = 9e-3, 9e-3 / math.sqrt(3.0)
    noise = 0.002 * np.random.default_rng(1).standard_normal((2, SEEDS))

    def noisy(optimum: float, own: int) -> Train:
        train = bowl(optimum, floor=0.1, curvature=0.08, spread=0.01)
        return lambda rates: Losses(*(part + noise[own] for part in train(rates)))

    ours, adam = noisy(on_grid, 0), noisy(between, 1)
    mean, low, high = told(Trials.of(ours, coarse), Trials.of(adam, coarse))
    assert Trials.of(ours, coarse).interior
    assert Trials.of(adam, coarse).interior, "an edge is not what gives the trap away"
    assert mean < -0.15 * 0.1
    assert high < 0.0, "the coarse grid shows a win"

    mean, low, high = told(Grid().search(ours, 4e-3), Grid().search(adam, 4e-3))
    assert low < 0.0 < high, "the fine grid shows none"
    assert abs(mean) < 0.005


@pytest.mark.parametrize(
    ("field", "value", "valid"),
    [
        ("factor", 3.0, "it must be in (1, sqrt(2)]: a coarser grid of learning rates favours methods"),
        ("factor", 1.5, "it must be in (1, sqrt(2)]"),
        ("factor", 1.0, "it must be in (1, sqrt(2)]"),
        ("factor", math.nan, "it must be in (1, sqrt(2)]"),
        ("points", 2, "it must be an int >= 3"),
        ("extensions", -1, "it must be an int >= 0"),
    ],
)
def test_a_grid_that_could_mislead_is_refused(field: str, value: float, valid: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as refused:
        Grid(**{field: value})  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"experiment.{field}={value!r} is not valid; {valid}")


def test_a_factor_of_sqrt_2_in_four_digits_is_fine_enough() -> None:
    assert Grid(1.41421357).factor == 1.41421357
    assert Grid(1.4142).factor == 1.4142
