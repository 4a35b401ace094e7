"""Which settings are compared: as configured, matched to the first estimator, or tuned on other seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators import EMA, Estimator, matched
from experiments.metrics import Measured
from experiments.streams import Realisations, Stream

if TYPE_CHECKING:
    from experiments.cells import Condition

BUDGET = 49
"""Settings tried of every estimator when tuning."""
TUNING_STREAMS = 20
"""Repetitions, none of them evaluated, on which each setting is tried."""


class Match(StrEnum):
    """What all estimators share with the first one named."""

    none = "none"
    noise_gain = "noise_gain"
    delay = "delay"
    mse = "mse"


class Tune(StrEnum):
    """The error that each estimator's setting minimises on tuning streams."""

    none = "none"
    rmse = "rmse"
    prediction_rmse = "prediction_rmse"


def match_to_first(estimators: Mapping[str, Estimator], by: Match) -> dict[str, Estimator]:
    """Match every estimator to the first one named, which stays as it is; ValueError where none fits."""
    (name, first), *others = estimators.items()
    return {name: first, **{other: _like(other, estimator, first, by) for other, estimator in others}}


@dataclass(frozen=True)
class Tuner:
    """Chooses each estimator's memory from the same number of settings, on streams that are not evaluated.

    The settings tried range from a noise gain of 0.98 (hardly a filter) to 4 over the stream's length, evenly
    in its logarithm, for every kind alike; windows, being whole, coincide at the short end.
    """

    drawn: Realisations
    by: Tune
    burn_in: int

    @classmethod
    def on(cls, stream: Stream, by: Tune, root_seed: int, burn_in: int) -> Tuner:
        """Draw the tuning streams."""
        drawn = stream.draw(range(_tuning_streams(stream)), root_seed, "tune")
        return cls(drawn, by, min(burn_in, drawn.samples.shape[0] // 4))

    def best(self, estimator: Estimator) -> tuple[float, bool]:
        """Return the noise gain of least mean error, and whether it lies at the edge of those tried.

        Half of the budget spans the range, the other half what lies around the best of the first half.
        ValueError for a kind without the closed forms.
        """
        low, high = min(0.98, 4.0 / self.drawn.samples.shape[0]), 0.98
        coarse = np.geomspace(high, low, BUDGET // 2)
        tried = [at_noise_gain(estimator, gain) for gain in coarse]
        errors = [self.error(setting) for setting in tried]
        least = int(np.argmin(errors))
        around = coarse[max(least - 1, 0)], coarse[min(least + 1, len(coarse) - 1)]
        fine = np.geomspace(*around, BUDGET - len(coarse) + 2)[1:-1]  # its ends were tried
        tried += [at_noise_gain(estimator, gain) for gain in fine]
        errors += [self.error(setting) for setting in tried[len(coarse) :]]
        best = int(np.argmin(errors))
        edge = tried[best] in (tried[0], tried[len(coarse) - 1])
        return float(np.concatenate([coarse, fine])[best]), edge

    def error(self, estimator: Any) -> float:
        """Mean over the tuning streams of the error tuned for, after the burn-in."""
        level = self.drawn.level if self.by is Tune.rmse else None
        return float(np.mean(estimator.score(self.drawn.samples, level, skip=self.burn_in).rmse))


@dataclass(frozen=True)
class Tuning:
    """What tuning minimises."""

    by: Tune


def tuned(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """The cell of a tuning: the noise gain of least error on the tuning streams, and whether at the edge."""
    tuner = Tuner.on(condition.stream, condition.parameters.by, condition.root_seed, condition.burn_in)
    gain, edge = tuner.best(estimator)
    return [Measured("noise_gain", "1", np.array([gain])), Measured("edge", "1", np.array([float(edge)]))]


def budget(stream: Stream, by: Tune) -> str:
    """One line that states what is spent on each estimator."""
    where = (
        f"{_tuning_streams(stream)} streams of other seeds"
        if stream.has_truth
        else "the first half of each recording"
    )
    return f"tuned: {BUDGET} noise gains each, on {by.value} over {where}"


def at_noise_gain(estimator: Estimator, noise_gain: float) -> Estimator:
    """An estimator of the kind of the given one; ValueError where there is none."""
    result: Estimator = matched(estimator, EMA.from_noise_gain(noise_gain))
    return result


def refuse_untunable(estimators: Mapping[str, Estimator]) -> None:
    """Raise ValueError for an estimator without the closed forms by which settings are chosen."""
    for name, estimator in estimators.items():
        _like(name, estimator, EMA(0.5), Match.noise_gain)


def _tuning_streams(stream: Stream) -> int:
    return min(TUNING_STREAMS, stream.available() or TUNING_STREAMS)


def _like(name: str, estimator: Estimator, given: Estimator, by: Match) -> Estimator:
    try:
        result: Estimator = matched(estimator, given, by.value)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"estimators.{name}: no setting matches {given} by {by.value} ({error})") from error
    return result
