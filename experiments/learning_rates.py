"""The learning rate of least validation loss on a grid no coarser than sqrt(2), the least in its interior."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from experiments.streams import Array

COARSEST = math.sqrt(2.0)
"""A grid of factor 3 lets a method win by where its optimum lies between the points."""


class Losses(NamedTuple):
    """What training with some rates came to, each (rates, seeds); NaN, or infinite, where it diverged."""

    validation: Array
    test: Array


Train = Callable[[Sequence[float]], Losses]
"""Trains with each of some learning rates from the same seeds."""


@dataclass(frozen=True)
class Trials:
    """Every rate tried, in ascending order, and the losses (rates, seeds) at each."""

    rates: tuple[float, ...]
    losses: Losses

    @classmethod
    def of(cls, train: Train, rates: Sequence[float]) -> Trials:
        """Train with each rate."""
        return cls(tuple(rates), Losses(*(np.array(part, dtype=np.float64) for part in train(rates))))

    def joined(self, other: Trials) -> Trials:
        """These and others, of other rates."""
        rates = self.rates + other.rates
        order = np.argsort(rates)
        parts = zip(self.losses, other.losses, strict=True)
        losses = Losses(*(np.concatenate(pair)[order] for pair in parts))
        return Trials(tuple(rates[place] for place in order), losses)

    @property
    def means(self) -> Array:
        """Mean validation loss of each rate, infinite where a seed diverged."""
        validation = self.losses.validation
        means: Array = np.where(np.isfinite(validation), validation, np.inf).mean(1)
        return means

    @property
    def best(self) -> int:
        """Place of the least mean validation loss; where all diverged, of the least rate."""
        return int(np.argmin(self.means))

    @property
    def interior(self) -> bool:
        """Whether a lower and a higher rate were tried than the best."""
        return 0 < self.best < len(self.rates) - 1

    @property
    def rate(self) -> float:
        """The best rate."""
        return self.rates[self.best]


@dataclass(frozen=True)
class Grid:
    """Which rates are tried: ``points`` around a centre, ``factor`` apart, and as far as the optimum asks.

    factor in (1, sqrt(2)]; points >= 3; extensions >= 0: how often rates are added on the side on whose edge
    the best one is, half as many as there were at first. Raises ValueError naming the experiment's setting.
    """

    factor: float = COARSEST
    points: int = 7
    extensions: int = 4

    def __post_init__(self) -> None:
        def refuse(name: str, holds: bool, valid: str) -> None:
            given = getattr(self, name)
            if not holds:
                raise ValueError(f"experiment.{name}={given!r} is not valid; it must be {valid}")

        within = "in (1, sqrt(2)]: a coarser grid of learning rates favours methods whose optimum it hits"
        refuse("factor", 1.0 < self.factor <= COARSEST * (1.0 + 1e-6), within)
        refuse("points", self.points >= 3, "an int >= 3")
        refuse("extensions", self.extensions >= 0, "an int >= 0")

    def search(self, train: Train, centre: float) -> Trials:
        """Try the rates around a centre (> 0), then more while the best is on an edge.

        Not interior where it still is after all extensions: then there is no optimum to report.
        """
        more = max(1, self.points // 2)
        low = -(self.points // 2)
        high = low + self.points - 1
        found = Trials.of(train, self._rates(centre, low, high))
        for _ in range(self.extensions):
            if found.interior:
                break
            if found.best == 0:
                added = self._rates(centre, low - more, low - 1)
                low -= more
            else:
                added = self._rates(centre, high + 1, high + more)
                high += more
            found = found.joined(Trials.of(train, added))
        return found

    def _rates(self, centre: float, first: int, last: int) -> list[float]:
        return [centre * self.factor**place for place in range(first, last + 1)]
