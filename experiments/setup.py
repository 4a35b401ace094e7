"""One run's ingredients, built from a resolved configuration: stream, estimators, seeds, burn-in."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from estimators import Estimator
from experiments.cells import Condition, Measure
from experiments.settings import Match, Tune
from experiments.streams import Stream


@dataclass(frozen=True)
class Setup:
    """What an experiment's ``run`` is given."""

    parameters: Any
    stream_name: str
    stream: Stream
    noise_variance: float
    estimators: Mapping[str, Estimator]
    seeds: int
    root_seed: int
    burn_in: int
    match: Match = Match.none
    tune: Tune = Tune.none

    def __post_init__(self) -> None:
        if not self.estimators:
            raise ValueError("estimators=[] is not valid; name at least one, such as estimators=[ema,kalman]")
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} is not valid; it must be an int >= 1")
        if self.root_seed < 0:
            raise ValueError(f"root_seed={self.root_seed} is not valid; it must be an int >= 0")
        if self.match is not Match.none and self.tune is not Tune.none:
            raise ValueError(
                f"match={self.match.value} and tune={self.tune.value} exclude each other: "
                f"a tuned setting is matched to nothing; set one of them to none"
            )
        if self.tune is Tune.rmse and not self.stream.has_truth:
            raise ValueError("tune=rmse needs a stream whose level is known; use tune=prediction_rmse")

    def check_untuned(self, why: str) -> None:
        """Raise ValueError, with the reason, where match or tune is set."""
        if self.match is not Match.none or self.tune is not Tune.none:
            raise ValueError(f"{why}; leave match and tune at none")

    @property
    def repetitions(self) -> int:
        """Repetitions to run: ``seeds``, or all that were recorded if fewer."""
        return min(self.seeds, self.stream.available() or self.seeds)

    def condition(self, measure: Measure) -> Condition:
        """What the cells of this setup have in common, for an experiment that measures so."""
        return Condition(
            measure, self.parameters, self.stream, self.noise_variance, self.root_seed, self.burn_in
        )


def setting(estimator: Estimator) -> str:
    """Parameters as one short text, without those left at their default; numbers to the last bit."""
    parts = []
    for field in dataclasses.fields(estimator):  # type: ignore[arg-type]
        value = getattr(estimator, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            exact = repr(value).removesuffix(".0") if isinstance(value, float) else value
            parts.append(f"{field.name}={exact}")
    return " ".join(parts)
