"""A panel of the trade-off as it is read: by estimator, place and what was measured; ties, and rivals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator, Trait
from experiments.fronts import Candidate, Criterion
from experiments.plan import Panel
from experiments.settings import at_noise_gain
from experiments.summaries import CONFIDENCE, Column
from experiments.tables import quantity, verdict_of
from experiments.tradeoff_families import NOISE, TUNED, family_of, windows_of

EXACT, NEAR = "==", "="
"""What marks a value that ties with that of the first estimator: to rounding on every stream, or within the
margin of its column."""
TIES = {EXACT: "exact tie", NEAR: "tie"}
"""The same in words."""
ROUNDING = 1e-9
"""Of the value, up to which an exact tie may be off."""
NOTHING = 1e-9
"""Below which a value is rounding: a lag of none, or an error."""
FINEST = 1e-5
"""Half of an interval, over the value, from which it is printed."""


@dataclass(frozen=True)
class Found:
    """A panel's part of the summary as it is read: by estimator, place and what was measured."""

    panel: Panel
    summary: pd.DataFrame

    @cached_property
    def _rows(self) -> dict[tuple[str, ...], Any]:
        own = self.summary[self.summary["stream"] == self.panel.stream]
        keys = ("estimator", "parameters", "metric")
        return {tuple(str(row[key]) for key in keys): row for row in own.to_dict("records")}

    @cached_property
    def estimators(self) -> Mapping[str, Estimator]:
        """As they were named, by label."""
        return self.panel.estimators()

    @cached_property
    def families(self) -> Mapping[str, Mapping[str, Estimator]]:
        """Settings by place, by label; empty where there is no family."""
        return {label: family_of(own, self.windows) for label, own in self.estimators.items()}

    @cached_property
    def windows(self) -> list[int]:
        """Those that fit the stream."""
        return windows_of(self.panel.condition)

    @property
    def first(self) -> str:
        """The estimator that the others are compared with."""
        return next(iter(self.estimators))

    @property
    def others(self) -> list[str]:
        """The others that have a family."""
        return [label for label, family in self.families.items() if family and label != self.first]

    @property
    def points(self) -> list[str]:
        """Estimators without a family."""
        return [label for label, family in self.families.items() if not family]

    def linear(self, label: str) -> bool:
        """Whether an estimator's weights do not depend on the samples."""
        return Trait.LINEAR in self.estimators[label].traits

    @property
    def window(self) -> int:
        """The one whose noise gain is nearest that of the first estimator as it was named."""
        gain = float(getattr(self.estimators[self.first], "noise_gain", np.nan))
        if not (self.families[self.first] and gain > 0.0):
            return self.windows[len(self.windows) // 2]
        return min(self.windows, key=lambda window: abs(np.log(window * gain)))

    @property
    def error(self) -> Column:
        """The error that is compared."""
        if self.panel.setup.stream.has_truth:
            return Column("rmse", "RMSE", better="less")
        return Column("prediction_rmse", "prediction RMSE", better="less")

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the tables show: attenuation as it follows from the weights, lag, settling, memory, error."""
        late = Column("lag", "lag", exact=True, better="less")
        if not self.panel.setup.stream.has_truth:
            late = Column("mean_age", "mean age", exact=True, better="less")
        return (
            Column("attenuation", "dB", margin=0.1, exact=True, better="more"),
            late,
            Column("settling", "settles", exact=True, better="less"),
            Column("state_bytes", "bytes", exact=True, better="less"),
            self.error,
        )

    def row(self, label: str, metric: str, place: str) -> Any:
        """The row of the summary, None where nothing was measured.

        Attenuation is that of the weights, which owes nothing to chance, but for estimators whose weights
        are chosen by the samples: where the noise is known, theirs is what is left of it.
        """
        if metric == "attenuation":
            chosen = not self.linear(label) and self.panel.setup.stream.has_truth
            metric = "attenuation_db" if chosen else "implied_attenuation_db"
        name, parameters = list(self.panel.rows)[list(self.estimators).index(label)]
        own = self._rows.get((name, parameters, f"{metric}@{place}"))
        return own if own and own["n"] else None

    def setting(self, label: str, place: str) -> Estimator:
        """What was measured at a place."""
        own, row = self.estimators[label], self.row(label, "noise_gain", place)
        if not self.families[label]:
            return own
        if place == TUNED:
            return own if row is None else at_noise_gain(own, row["mean"])
        return self.families[label][place]

    def named(self, label: str, place: str) -> str:
        """The setting in short: its memory, which is all that was set."""
        memory_of = str(getattr(self.estimators[label], "memory", ""))
        if not self.families[label]:
            return "as given"
        value = getattr(self.setting(label, place), memory_of, None)
        return f"{memory_of}={value:.4g}" if value is not None else "-"

    def verdict(self, label: str, column: Column, place: str) -> str:
        """How an estimator stands to the first at a place: tie, "" for a difference, not told apart."""
        row = self.row(label, column.metric, place)
        exact = column.exact and (self.linear(label) or column.metric == "state_bytes")
        return "no value" if row is None else verdict_of(row, replace(column, exact=exact))

    def tie(self, label: str, column: Column, place: str) -> str:
        """How an estimator ties with the first at a place: EXACT, NEAR, or "" where it does not, or is it.

        Exact where each pair is, by a bound on all of them: none of n differences lies further from their
        mean than (n - 1) of its standard errors (Samuelson 1968, J. Am. Stat. Assoc. 63, 1522).
        """
        if label == self.first or self.verdict(label, column, place) != "tie":
            return ""
        from scipy.special import stdtrit

        row = self.row(label, column.metric, place)
        away, n = abs(row["difference"]), row["pairs"]
        if n > 1:
            error = (row["difference_high"] - row["difference"]) / stdtrit(n - 1, 0.5 + 0.5 * CONFIDENCE)
            away += (n - 1) * error
        return EXACT if away <= ROUNDING * abs(row["mean"]) else NEAR

    def over_first(self, label: str, metric: str, place: str) -> tuple[float, float]:
        """Mean over that of the first, less 1, and half of its 95 % interval, both in percent.

        NaN where one of them lacks cells, or the first makes no error.

        By the delta method: R = x / y has the variance of x - R y over y squared, which those of x, y and
        x - y give: (1 - R) Vx + R (R - 1) Vy + R Vd.
        """
        own, first = (self.row(name, metric, place) for name in (label, self.first))
        if own is None or first is None or not own["pairs"] == own["n"] == first["n"] or self.flawless(place):
            return np.nan, np.nan
        x, y = ((row["high"] - row["mean"]) ** 2 for row in (own, first))
        d = (own["difference_high"] - own["difference"]) ** 2
        ratio = own["mean"] / first["mean"]
        variance = (1.0 - ratio) * x + ratio * (ratio - 1.0) * y + ratio * d
        half = np.sqrt(max(variance, 0.0)) / first["mean"] if np.isfinite(variance) else np.nan
        return 100.0 * (ratio - 1.0), 100.0 * float(half)

    def flawless(self, place: str) -> bool:
        """Whether the first makes no error, so that none is a share of it: without noise and drift."""
        row = self.row(self.first, self.error.metric, place)
        return row is not None and abs(row["mean"]) < NOTHING

    def compared(self, label: str, place: str) -> str:
        """Error over that of the first: tie, a difference, one in brackets that is not told apart."""
        if label == self.first:
            return cell(self.row(label, self.error.metric, place))
        if tie := self.tie(label, self.error, place):
            return TIES[tie]
        percent = self.over_first(label, self.error.metric, place)
        verdict = self.verdict(label, self.error, place)
        if verdict == "no value" or not np.isfinite(percent[0]):
            return "-"
        return f"({said(*percent)})" if verdict else said(*percent)

    def candidates(self, with_settling: bool) -> tuple[list[Candidate], list[str]]:
        """All settings with a value in each criterion on half of the cells or more, and those without."""
        criteria = self.criteria(with_settling)
        found, without = [], []
        for label, family in self.families.items():
            for place in [place for place in family if place.startswith(NOISE)] or [TUNED]:
                rows = {criterion.name: self.row(label, criterion.name, place) for criterion in criteria}
                if any(row is None or 2 * row["n"] < self.panel.repetitions for row in rows.values()):
                    without.append(_short(label, place))
                    continue
                halves = {
                    name: row["high"] - row["mean"] for name, row in rows.items() if np.isfinite(row["high"])
                }
                found.append(
                    Candidate((label, place), {name: row["mean"] for name, row in rows.items()}, halves)
                )
        return found, without

    def criteria(self, with_settling: bool) -> tuple[Criterion, ...]:
        """What fronts are of; a tie within 0.1 dB, or a thousandth."""
        late = self.columns[1].metric
        three = (
            Criterion("attenuation", "more", margin=0.1),
            Criterion(late, "less", margin=1e-6, share=1e-3),
            Criterion("state_bytes", "less"),
        )
        return (*three, Criterion("settling", "less", share=1e-3)) if with_settling else three


def cell(row: Any, tie: str = "") -> str:
    """A mean with half of its interval, how many cells have a value, where not all do, and the tie's mark."""
    if row is None:
        return "-"
    cells = row["n"] + row["failed"] + row["missing"]
    some = f" ({row['n']})" if row["n"] < cells else ""
    mean = 0.0 if abs(row["mean"]) < NOTHING else row["mean"]
    half = row["high"] - row["mean"]
    return f"{quantity(mean, half if half > FINEST * abs(mean) else 0.0)}{some} {tie}".rstrip()


def said(percent: float, half: float) -> str:
    """A difference in percent."""
    return f"{'+' * (percent >= 0.0)}{quantity(percent, half if half > FINEST * abs(percent) else 0.0)} %"


def _short(label: str, place: str) -> str:
    """A setting of an estimator by its window; an estimator without a family by its name."""
    return label if place == TUNED else f"{label} at 1/{place.removeprefix(f'{NOISE}_')}"
