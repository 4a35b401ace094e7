"""Pareto fronts: settings that no other one beats, and which others beat the rest, and in what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Criterion:
    """What settings are judged by, the end that is better ("more" or "less"), and what still is a tie.

    margin: in the criterion's unit; share: of the value.
    """

    name: str
    better: str
    margin: float = 0.0
    share: float = 0.0


@dataclass(frozen=True)
class Candidate:
    """A setting with its values by criterion, and half of the 95 % interval of those that owe to chance.

    key: names the setting, its estimator first.
    """

    key: tuple[str, ...]
    values: Mapping[str, float]
    halves: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Beaten:
    """Another setting that is nowhere worse, and the criteria in which it is better."""

    by: Candidate
    better: tuple[str, ...]


def beaten(one: Candidate, other: Candidate, criteria: Sequence[Criterion]) -> tuple[str, ...]:
    """Criteria in which another setting is better, if it is worse in none; else, or if all tie, none."""
    better = []
    for criterion in criteria:
        gain = other.values[criterion.name] - one.values[criterion.name]
        gain = gain if criterion.better == "more" else -gain
        size = max(abs(own.values[criterion.name]) for own in (one, other))
        chance = max(own.halves.get(criterion.name, 0.0) for own in (one, other))
        tie = max(criterion.margin, criterion.share * size, chance)
        if gain < -tie:
            return ()
        if gain > tie:
            better.append(criterion.name)
    return tuple(better)


def front(candidates: Sequence[Candidate], criteria: Sequence[Criterion]) -> list[Beaten | None]:
    """For each setting None where it is on the front, else the setting that beats it in the fewest criteria.

    On the front are settings that no other one beats, those that tie with each other included (Pareto's
    criterion: Miettinen 1999, Nonlinear Multiobjective Optimization, section 2.2).
    """
    found: list[Beaten | None] = []
    for one in candidates:
        ways = [Beaten(other, better) for other in candidates if (better := beaten(one, other, criteria))]
        found.append(min(ways, key=lambda way: len(way.better), default=None))
    return found
