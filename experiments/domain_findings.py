"""What was measured of the ways to a smoothed weight, and the sentences that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from estimators import EMA
from experiments.domain_tuning import untunable
from experiments.domain_ways import Point, Together, Way, weight_of
from experiments.setup import Setup
from experiments.streams import Domain
from experiments.summaries import Column, summarise
from experiments.tables import quantity, verdict_of

WEIGHT_RMSE = Column("weight_rmse", "RMSE of the weight (%)", better="less")
ODDS_RMSE = Column("odds_rmse", "RMSE of its log odds", better="less")
FLOORED = Column("floored_rmse", "RMSE with the floor (%)", better="less")
FACTOR, BIAS, FLOOR_SHARE = (
    Column("weight_factor", "mean weight over the true one"),
    Column("odds_bias", "bias of its log odds"),
    Column("floor_share", "floor binds (%)"),
)
TUNED = Column("tuned_weight_rmse", "RMSE of the weight, tuned (%)", better="less")
GAIN, EDGE = Column("tuned_noise_gain", "noise gain chosen"), Column("tuned_edge", "at the edge")
COLUMNS = (FACTOR, BIAS, WEIGHT_RMSE, TUNED, GAIN, ODDS_RMSE, FLOOR_SHARE, FLOORED)
COMMUTES = 1e-9
"""Log odds within which two ways are one."""
UNBIASED = 1e-12
"""Of 1: limits of the weight that are the true one."""
SAID = ("less", "more", "tie", "not told apart", "no value")
"""How an error stands to another."""


class Compared(NamedTuple):
    """Points at which ways are compared with the first by one metric."""

    label: str
    points: Sequence[Point]
    column: Column


@dataclass(frozen=True)
class Findings:
    """A run of the experiment as it is read; the first estimator is the one that most tables are of."""

    setup: Setup
    points: Sequence[Point]
    ways: Sequence[Way]
    table: pd.DataFrame
    summary: pd.DataFrame

    # --- what was measured ----------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Estimators."""
        return list(self.setup.estimators)

    @cached_property
    def moving(self) -> list[Point]:
        """Points of the last kind of level, that which moves where there is one."""
        return [point for point in self.points if point.level == self.points[-1].level]

    @cached_property
    def still(self) -> list[Point]:
        """Points of constant level."""
        return [point for point in self.points if point.still]

    @property
    def first_way(self) -> Way:
        """The one that others are compared with."""
        return self.ways[0]

    @cached_property
    def _by_way(self) -> dict[tuple[str, ...], Any]:
        """Rows whose differences are to the first way of the same estimator."""
        found: dict[tuple[str, ...], Any] = {}
        for name in self.names:
            found |= _indexed(summarise(self.table[self.table["estimator"] == name]))
        return found

    @cached_property
    def _by_estimator(self) -> dict[tuple[str, ...], Any]:
        """Rows of the first way, whose differences are to the first estimator."""
        keys = self.table["parameters"].astype(str).str.split(" ").str[0]
        return _indexed(summarise(self.table[keys == f"way={self.first_way.key}"]))

    def row(self, point: Point, name: str, way: Way, column: Column, by_estimator: bool = False) -> Any:
        """A row of the summary, None where nothing was measured."""
        rows = self._by_estimator if by_estimator else self._by_way
        own = rows.get((point.label, name, way.key, column.metric))
        return own if own is not None and own["n"] else None

    def mean(self, point: Point, name: str, way: Way, column: Column) -> float:
        """Mean over the streams, NaN where nothing was measured."""
        own = self.row(point, name, way, column)
        return float("nan") if own is None else float(own["mean"])

    def limit(self, point: Point, way: Way) -> float:
        """Weight that an endless memory tends to on a constant level, over the true one."""
        true = weight_of(-np.log(point.ratio))
        return float(weight_of(way.limit(point.ratio, point.log_sd**2)) / true)

    @property
    def levels(self) -> list[list[Point]]:
        """The points of each kind of level."""
        return [self.moving, *[self.still] * (self.moving != self.still)]

    @cached_property
    def untuned(self) -> str:
        """Why the first estimator is not tuned, empty where it is."""
        name = self.names[0]
        return untunable(name, self.setup.estimators[name], self.moving[0].stream.steps)

    @property
    def compared(self) -> list[Compared]:
        """Each kind of level at the settings given, and the last one at those tuned."""
        given = [Compared(points[0].level, points, WEIGHT_RMSE) for points in self.levels]
        tuned = Compared(f"{self.moving[0].level}, tuned", self.moving, TUNED)
        return given if self.untuned else [*given, tuned]

    def told(self, compared: Compared, way: Way) -> list[tuple[str, float, Point]]:
        """By point, how the error of the weight stands to that of the first way, and how often as large."""
        _, points, column = compared
        told = []
        for point in points:
            row = self.row(point, self.names[0], way, column)
            first = self.mean(point, self.names[0], self.first_way, column)
            if row is not None and first > 0.0:
                told.append((_said(row, column), float(row["mean"]) / first, point))
        return told

    @property
    def intervals(self) -> int:
        """Intervals of differences to the first way from which its verdicts are counted."""
        return sum(len(self.told(one, way)) for one in self.compared for way in self.ways[1:])

    def beta(self, point: Point, way: Way) -> float:
        """Of the exponential average whose noise gain was chosen, NaN where none was."""
        gain = self.mean(point, self.names[0], way, GAIN)
        return float(EMA.from_noise_gain(gain).beta) if np.isfinite(gain) else float("nan")

    def at_edge(self, point: Point, way: Way) -> bool:
        """Whether the noise gain chosen was the largest or the least of those tried."""
        return self.mean(point, self.names[0], way, EDGE) == 1.0

    @property
    def sds(self) -> list[float]:
        """Standard deviations of the noise in the log ratio."""
        return list(dict.fromkeys(point.log_sd for point in self.points))

    @cached_property
    def unbiased(self) -> list[Way]:
        """Ways that tend to the true weight everywhere."""
        return [
            way
            for way in self.ways
            if all(abs(self.limit(point, way) - 1.0) < UNBIASED for point in self.still)
        ]

    # --- conclusions ----------------------------------------------------------------------------------------

    def conclusions(self) -> Iterator[str]:
        """Sentences that follow from the figures."""
        yield self._on_bias()
        yield from self._on_memory()
        yield from self._on_error()
        yield from self._on_tuning()
        yield from self._on_estimators()
        yield from self._on_commuting()
        if self.setup.parameters.floor:
            yield from self._on_floor()

    def _on_bias(self) -> str:
        biased = []
        for way in self.ways:
            if way not in self.unbiased:
                worst = self.still[int(np.argmax([abs(np.log(self.limit(p, way))) for p in self.still]))]
                biased.append(
                    f"{way.label}: {self.limit(worst, way):.3g} (ratio {worst.ratio:g}, sd {worst.log_sd:g})"
                )
        none = "; ".join(way.label for way in self.unbiased) or "none"
        return f"Without bias in the limit: {none}. Furthest from 1: {'; '.join(biased) or 'none'}."

    def _on_memory(self) -> Iterator[str]:
        """How far the bias of a finite memory is from that of an endless one."""
        name, found = self.names[0], list[tuple[float, Way, Point]]()
        for point in self.still:
            for way in self.ways:
                factor = self.mean(point, name, way, FACTOR) / self.limit(point, way) - 1.0
                if np.isfinite(factor):
                    found.append((factor, way, point))
        if found:
            off, way, point = max(found, key=lambda one: abs(one[0]))
            row = self.row(point, name, way, FACTOR)
            half = 100.0 * (row["high"] - row["mean"]) / self.limit(point, way)
            yield (
                f"With the memory of {name} the mean weight is within {100.0 * abs(off):.2g} % of that limit "
                f"everywhere; furthest: {way.label} (ratio {point.ratio:g}, sd {point.log_sd:g}), by "
                f"{quantity(100.0 * off, half)} %."
            )

    def _on_error(self) -> Iterator[str]:
        """Of which ways the weight errs least."""
        for compared in self.compared:
            less, others = dict[str, list[Point]](), list[str]()
            for way in self.ways[1:]:
                told = self.told(compared, way)
                if own := [point for verdict, _, point in told if verdict == "less"]:
                    less[way.label] = own
                if told and all(verdict == "more" for verdict, *_ in told):
                    others.append(way.label)
            worse = "; ".join(others) or "none"
            number = len(compared.points)
            better = [f"{label}, at {len(own)} of {number} ({_where(own)})" for label, own in less.items()]
            yield (
                f"Level {compared.label}: at all points the weight errs more than by the "
                f"{self.first_way.label} by: {worse}. Less somewhere by: {'; '.join(better) or 'none'}."
            )

    def _on_tuning(self) -> Iterator[str]:
        """What is left of the differences at each way's own best, and which memories that takes."""
        if self.untuned:
            return
        given, tuned = (
            [(times, way, point) for way in self.ways[1:] for _, times, point in self.told(compared, way)]
            for compared in (self.compared[0], self.compared[-1])
        )
        if given and tuned:
            before, after = (max(one, key=lambda own: own[0]) for one in (given, tuned))
            yield (
                f"Times the RMSE of the {self.first_way.label}, level {self.moving[0].level}, at most: at "
                f"the settings given {_of_way(*before)}; tuned {_of_way(*after)}."
            )
        spans, edges = [], []
        for way in self.ways:
            betas = [self.beta(point, way) for point in self.moving]
            if not np.isnan(betas).any():
                spans.append(f"{way.label} {min(betas):.3f} to {max(betas):.3f}")
            if number := sum(self.at_edge(point, way) for point in self.moving):
                edges.append(f"{way.label} at {number}")
        yield f"Beta chosen, from least to largest over the points: {'; '.join(spans) or 'none'}."
        if edges:
            yield (
                f"At the edge of the noise gains tried, of {len(self.moving)} points: {'; '.join(edges)}; a "
                "best one may lie beyond."
            )

    def _on_estimators(self) -> Iterator[str]:
        """What the estimator changes beside the way: the largest quotient of errors over either."""
        by_way, by_name = list[tuple[float, Point]](), list[tuple[float, Point]]()
        for point in self.moving:
            errors = np.array(
                [[self.mean(point, name, way, ODDS_RMSE) for way in self.ways] for name in self.names]
            )
            for values, found in ((errors[0], by_way), (errors[:, 0], by_name)):
                values = values[np.isfinite(values)]
                if len(values) > 1 and values.min() > 0.0:
                    found.append((float(values.max() / values.min()), point))
        if by_way and by_name:
            way, name = (max(one, key=lambda pair: pair[0]) for one in (by_way, by_name))
            yield (
                f"RMSE of the log odds, level {self.moving[0].level}, worst over best: of the ways up to "
                f"{_times(way)}, all by {self.names[0]}; of the estimators up to {_times(name)}, all on the "
                f"{self.first_way.label}."
            )
        for other in self.names[1:]:
            kinds = []
            for points in self.levels:
                rows = [self.row(p, other, self.first_way, ODDS_RMSE, by_estimator=True) for p in points]
                if verdicts := [_said(row, ODDS_RMSE) for row in rows if row is not None and row["pairs"]]:
                    kinds.append(f"level {points[0].level}: {_counted(verdicts)}")
            if kinds:
                yield f"{other} against {self.names[0]}, on the {self.first_way.label}; {'; '.join(kinds)}."

    def _on_commuting(self) -> Iterator[str]:
        """Of which estimators it makes no difference in which domain they run."""
        apart: dict[str, float] = {}
        column = Column("odds_apart", "")
        for name in self.names:
            values = [
                self.mean(point, name, way, column)
                for point in self.points
                for way in self.ways
                if isinstance(way, Together)
            ]
            finite = [value for value in values if np.isfinite(value)]
            if finite:
                apart[name] = max(finite)
        domains = ", ".join(domain.unit for domain in Domain)
        same = [name for name, most in apart.items() if most <= COMMUTES]
        others = [f"{name} {most:.2g}" for name, most in apart.items() if most > COMMUTES]
        if apart:
            yield (
                f"The same weight from {domains}, to {COMMUTES:g} in log odds: {', '.join(same) or 'none'}. "
                f"Mean over the streams of the largest difference, at the worst point: "
                f"{', '.join(others) or 'none'}."
            )

    def _on_floor(self) -> Iterator[str]:
        """At which ratios the floor binds, whatever the way, and what is left to choose there."""
        name, floor = self.names[0], self.setup.parameters.floor
        always, said = list[float](), f"Floor of {floor:g}, level {self.still[0].level}"
        for ratio in ratios_of(self.still):
            shares = {
                (point, way): self.mean(point, name, way, FLOOR_SHARE)
                for point in self.still
                for way in self.ways
                if point.ratio == ratio
            }
            known = {at: share for at, share in shares.items() if np.isfinite(share)}
            if known and min(known.values()) == 100.0:
                always.append(ratio)
            elif any(known.values()):
                (point, way), most = max(known.items(), key=lambda one: one[1])
                true = "below" if weight_of(-np.log(ratio)) < floor else "above"
                yield (
                    f"{said}, ratio {ratio:g}, where the true weight is {true} it: it binds in {most:.3g} % "
                    f"of the samples of the way where it does most, {way.label} (sd {point.log_sd:g}), in "
                    f"{min(known.values()):.3g} % where it does least."
                )
        bound = [point for point in self.still if point.ratio in always]
        if bound:
            left, without = (self._worst(bound, column) for column in (FLOORED, WEIGHT_RMSE))
            ratios = ", ".join(f"{ratio:g}" for ratio in always)
            yield (
                f"{said}, ratio {ratios}: it binds in all samples of all ways, and the worst RMSE of any is "
                f"{left}; without it, {without}."
            )
        elif self.still:
            yield f"At none of the ratios does the floor of {floor:g} bind in all samples of all ways."

    def _worst(self, points: Sequence[Point], column: Column) -> str:
        """The largest mean of a metric over points and ways, the first estimator's."""
        found = [
            (self.mean(point, self.names[0], way, column), point, way)
            for point in points
            for way in self.ways
        ]
        value, point, way = max((one for one in found if np.isfinite(one[0])), key=lambda one: one[0])
        row = self.row(point, self.names[0], way, column)
        half = quantity(value, row["high"] - row["mean"])
        return f"{half} % ({way.label}, ratio {point.ratio:g}, sd {point.log_sd:g})"


def ratios_of(points: Sequence[Point]) -> list[float]:
    """Ratios of some points, each once."""
    return list(dict.fromkeys(point.ratio for point in points))


def _indexed(summary: pd.DataFrame) -> dict[tuple[str, ...], Any]:
    """Rows by stream, estimator, way and metric."""
    found: dict[tuple[str, ...], Any] = {}
    for row in summary.to_dict("records"):
        way = str(row["parameters"]).partition(" ")[0].removeprefix("way=")
        found[str(row["stream"]), str(row["estimator"]), way, str(row["metric"])] = row
    return found


def _said(row: Any, column: Column) -> str:
    return verdict_of(row, column) or ("more" if row["difference"] > 0.0 else "less")


def _where(points: Sequence[Point]) -> str:
    """The ratios of some points."""
    ratios = dict.fromkeys(f"{point.ratio:g}" for point in points)
    return f"ratio {', '.join(ratios)}"


def _counted(verdicts: Sequence[str]) -> str:
    counts = ", ".join(f"{said} at {verdicts.count(said)}" for said in SAID if said in verdicts)
    return f"{counts} of {len(verdicts)} points"


def _of_way(times: float, way: Way, point: Point) -> str:
    return f"{times:.2f} ({way.label}, ratio {point.ratio:g}, sd {point.log_sd:g})"


def _times(pair: tuple[float, Point]) -> str:
    value, point = pair
    return f"{value:.2f} times (ratio {point.ratio:g}, sd {point.log_sd:g})"
