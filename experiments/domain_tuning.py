"""The noise gain by which each way to a smoothed weight errs least, chosen from as many, on other seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from estimators import Estimator
from experiments.domain_ways import Way, weight_of
from experiments.metrics import Measured
from experiments.settings import BUDGET, TUNING_STREAMS, Tuner, at_noise_gain
from experiments.streams import Array

EVERY = 8
"""Samples from one error that counts in a choice to the next: with a long memory it hardly changes sooner."""


@dataclass(frozen=True)
class WayTuner(Tuner):
    """Chooses for one way, by the RMSE of the weight as a share of it.

    drawn: log ratios and their level; scaled: the way's quantities, each (T, n), in units of which one is
    1 / scale of its own.
    """

    way: Way
    scaled: Sequence[Array]
    scales: Sequence[float]

    def error(self, estimator: Estimator) -> float:
        """Mean over the tuning streams, after the burn-in; infinite where a weight is none."""
        kept = slice(self.burn_in, None, EVERY)
        level = self.drawn.level
        assert level is not None
        smoothed = [
            np.asarray(estimator.filter(one).mean)[kept] / scale
            for one, scale in zip(self.scaled, self.scales, strict=True)
        ]
        relative = weight_of(self.way.log_odds(smoothed)) / weight_of(-level[kept]) - 1.0
        error = float(np.sqrt(np.mean(relative**2, axis=0)).mean())
        return error if np.isfinite(error) else np.inf


class Best(NamedTuple):
    """What was chosen for one way at one point."""

    estimator: Estimator
    noise_gain: float
    edge: bool
    """Whether the noise gain is the largest or the least of those tried."""

    def measured(self) -> Iterator[Measured]:
        """One value each, for there is one choice for all streams."""
        yield Measured("tuned_noise_gain", "1", np.array([self.noise_gain]))
        yield Measured("tuned_edge", "1", np.array([float(self.edge)]))


def best_of(tuner: WayTuner, estimator: Estimator) -> Best:
    """The setting of an estimator's kind by which the way of the tuner errs least."""
    gain, edge = tuner.best(estimator)
    return Best(at_noise_gain(estimator, gain), gain, edge)


def untunable(name: str, estimator: Estimator, steps: int) -> str:
    """Why no noise gain can be chosen for an estimator, empty where one can."""
    try:
        for gain in (0.98, min(0.98, 4.0 / steps)):
            at_noise_gain(estimator, gain)
    except (TypeError, ValueError) as error:
        return f"estimators.{name}: {error}"
    return ""


def budget(steps: int) -> str:
    """What is spent on each way."""
    return (
        f"tuned: {BUDGET} noise gains each, on {TUNING_STREAMS} streams of other seeds, {steps:,} samples "
        f"each, by the mean of this RMSE at every {EVERY}th sample after the burn-in; ± at what was chosen"
    )
