"""One run's ingredients, built from a resolved configuration: stream, estimators, seeds, burn-in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator
from experiments.metrics import Measured, Trial
from experiments.settings import Match, Tune, Tuner, match_to_first
from experiments.streams import Realisations, Stream
from experiments.tables import COLUMNS

BLOCK = 100_000
"""Samples held at a time: repetitions are drawn and measured in blocks of about this size."""


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

    @property
    def repetitions(self) -> int:
        """Repetitions to run: ``seeds``, or all that were recorded if fewer."""
        return min(self.seeds, self.stream.available() or self.seeds)

    def chosen(self) -> tuple[Setup, str]:
        """Settle the settings compared, by match or tune, and say how in a line; ValueError if none fits."""
        if self.match is not Match.none:
            first = next(iter(self.estimators))
            line = f"matched to {first} by {self.match.value.replace('_', ' ')}"
            return replace(self, estimators=match_to_first(self.estimators, self.match)), line
        if self.tune is not Tune.none:
            tuner = Tuner.on(self.stream, self.tune, self.root_seed, self.burn_in)
            best = {name: tuner.best(name, estimator) for name, estimator in self.estimators.items()}
            burn_in = self.burn_in if self.stream.has_truth else max(self.burn_in, self.stream.length() // 2)
            remarks = [remark for _, remark in best.values() if remark]
            estimators = {name: estimator for name, (estimator, _) in best.items()}
            return replace(self, estimators=estimators, burn_in=burn_in), "; ".join(
                [tuner.budget(), *remarks]
            )
        alike = [name for name in ("noise_gain", "group_delay") if self._share(name)]
        shared = " and ".join(name.replace("_", " ") for name in alike)
        return self, f"settings as given, equal in {shared}" if alike else "settings as given, not matched"

    def _share(self, quantity: str) -> bool:
        """Whether all estimators have the same value of a closed form."""
        values = np.array([getattr(estimator, quantity, np.nan) for estimator in self.estimators.values()])
        return len(values) > 1 and bool(np.all(np.isclose(values, values[0], rtol=1e-9, atol=0.0)))

    def blocks(self) -> Iterator[tuple[range, Realisations]]:
        """Repetitions in blocks that stay in the nearer caches, drawn once for all estimators."""
        width = max(1, BLOCK // self.stream.length())
        for first in range(0, self.repetitions, width):
            seeds = range(first, min(first + width, self.repetitions))
            yield seeds, self.stream.draw(seeds, self.root_seed, "evaluate")

    def trial(self, estimator: Estimator, drawn: Realisations) -> Trial:
        """An estimator on one block."""
        return Trial(estimator, drawn, self.burn_in, self.noise_variance**0.5, self.stream.unit)

    def rows(
        self, experiment: str, name: str, seeds: Sequence[int], measured: Sequence[Measured]
    ) -> pd.DataFrame:
        """Rows of the long table for one estimator's measurements."""
        parts = [
            pd.DataFrame({"seed": list(seeds), "value": m.values, "status": m.status}).assign(
                metric=m.metric, unit=m.unit
            )
            for m in measured
        ]
        fixed = {
            "experiment": experiment,
            "estimator": name,
            "parameters": setting(self.estimators[name]),
            "stream": self.stream_name,
        }
        return pd.concat(parts).assign(**fixed)[COLUMNS]


def setting(estimator: Estimator) -> str:
    """Parameters as one short text, without those left at their default."""
    parts = []
    for field in dataclasses.fields(estimator):  # type: ignore[arg-type]
        value = getattr(estimator, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            parts.append(f"{field.name}={value:.4g}" if isinstance(value, float) else f"{field.name}={value}")
    return " ".join(parts)
