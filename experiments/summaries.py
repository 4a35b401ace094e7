"""From one row per measurement to what is known of each estimator: means, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.metrics import Measured

COLUMNS = ["experiment", "estimator", "parameters", "stream", "seed", "metric", "value", "unit", "status"]
CONFIDENCE = 0.95
NEGLIGIBLE = 1e-3
"""Share of the baseline's value within which two values are the same for every purpose."""
ANY = "any"
"""The metric of cells of which none was measured."""
FAILED, NOT_RUN = "failed", "not run"
"""How the status of a cell begins that raised, and that of one that is missing."""


@dataclass(frozen=True)
class Column:
    """A metric as a printed table shows it, and the difference within which two of its values tie.

    margin: in the metric's unit; None for a thousandth of the baseline's value. exact: whether the value owes
    nothing to chance, so that one stream is enough to know it. better: which end is, "less" or "more", if
    either.
    """

    metric: str
    label: str
    margin: float | None = None
    exact: bool = False
    better: str = ""

    def verdict(
        self,
        baseline: float,
        difference: float,
        low: float,
        high: float,
        pairs: int,
        cells: int,
    ) -> str:
        """Say of a difference to a baseline: tie, "" for a difference, not told apart, or no value.

        A tie needs the whole interval within the margin; a difference, that it excludes 0. One cell alone has
        no interval: it tells apart what owes nothing to chance, and shows equal values as equal.
        """
        if not np.isfinite(difference):
            return "no value"
        margin = NEGLIGIBLE * abs(baseline) if self.margin is None else self.margin
        if not np.isfinite(low):
            exact = self.exact and pairs == cells == 1
            tied = abs(difference) <= (margin if exact else 1e-9 * abs(baseline + difference))
            return "tie" if tied else "" if exact else "not told apart"
        if max(abs(low), abs(high)) <= margin:
            return "tie"
        return "not told apart" if low <= 0.0 <= high else ""


@dataclass(frozen=True)
class Rows:
    """All measurements of one setting on one stream, repetitions from 0 on.

    absent: by repetition, why there is no measurement.
    """

    stream: str
    estimator: str
    parameters: str
    measured: Sequence[Measured]
    absent: Mapping[int, str] = field(default_factory=dict)


def long_table(experiment: str, rows: Sequence[Rows]) -> pd.DataFrame:
    """One line per measurement, in the contract's columns."""
    categories: Any = pd.Categorical.from_codes
    lines = [(own, measured) for own in rows for measured in own.measured]
    counts = [measured.values.size for _, measured in lines]

    def each(texts: list[str]) -> Any:
        codes, names = pd.factorize(np.array(texts, dtype=object))
        return categories(np.repeat(codes, counts), names)

    statuses: dict[str, int] = {"ok": 0}
    codes: list[Any] = [
        np.where(np.isfinite(one.values), 0, statuses.setdefault(one.missing or "undefined", len(statuses)))
        for _, one in lines
    ]
    for (own, _), code in zip(lines, codes, strict=True):
        for seed, why in own.absent.items():
            code[seed] = statuses.setdefault(why, len(statuses))
    return pd.DataFrame(
        {
            "experiment": categories(np.zeros(sum(counts), np.int8), [experiment]),
            "estimator": each([own.estimator for own, _ in lines]),
            "parameters": each([own.parameters for own, _ in lines]),
            "stream": each([own.stream for own, _ in lines]),
            "seed": np.concatenate([np.arange(count) for count in counts]),
            "metric": each([one.metric for _, one in lines]),
            "value": np.concatenate([one.values for _, one in lines]),
            "unit": each([one.unit for _, one in lines]),
            "status": categories(np.concatenate(codes), list(statuses)),
        }
    )[COLUMNS]


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per stream, setting and metric: n, failures, mean, 95 % interval, difference to the first.

    The first setting of a stream is its baseline. Differences are paired per seed, over the seeds that both
    have, of which there are ``pairs``; ``failed`` counts cells that raised, ``missing`` other cells without a
    value, and ``status`` says why. Intervals are Student's t, that of the median by order statistics.
    """
    rows = []
    for stream, settings in _streams(table).items():
        baseline, _ = next(iter(settings.items()))
        for (estimator, parameters, metric, unit), cells in settings.items():
            mean, low, high, n = mean_interval(cells.values)
            median, median_low, median_high = median_interval(cells.values)
            absent = dict.fromkeys(cells.statuses[cells.statuses != "ok"].tolist())
            failed = sum(status.startswith(FAILED) for status in cells.statuses) if absent else 0
            row = {
                "experiment": table["experiment"].iloc[0],
                "stream": stream,
                "estimator": estimator,
                "parameters": parameters,
                "metric": metric,
                "unit": unit,
                "n": n,
                "failed": failed,
                "missing": cells.values.size - n - failed,
                "mean": mean,
                "low": low,
                "high": high,
                "median": median,
                "median_low": median_low,
                "median_high": median_high,
                "baseline": baseline.estimator,
                "difference": np.nan,
                "difference_low": np.nan,
                "difference_high": np.nan,
                "pairs": 0,
                "status": "; ".join(absent) or "ok",
            }
            own = settings.get(Key(baseline.estimator, baseline.parameters, metric, unit))
            if own is not None:
                row["difference"], row["difference_low"], row["difference_high"], row["pairs"] = (
                    mean_interval(paired(cells, own))
                )
            rows.append(row)
    return pd.DataFrame(rows)


def best(table: pd.DataFrame, columns: Sequence[Column]) -> set[tuple[str, str, str, str]]:
    """Stream, metric, estimator and parameters of what is better than the others of its stream.

    Of each column that has a better end, the best mean and what ties with it, where the paired interval of
    every other setting's difference to it excludes zero; nothing where one has none, cannot be told apart, or
    where all tie.
    """
    found = set()
    ends = {column.metric: column for column in columns if column.better}
    for stream, cells in _streams(table).items():
        for metric, column in ends.items():
            settings = {keys[:2]: own for keys, own in cells.items() if keys.metric == metric}
            means = {keys: mean_interval(own.values)[0] for keys, own in settings.items()}
            finite = [keys for keys, mean in means.items() if np.isfinite(mean)]
            if len(finite) < 2:
                continue
            sign = -1.0 if column.better == "more" else 1.0
            first = min(finite, key=lambda keys: (sign * means[keys], keys))
            told = {}
            for keys, own in settings.items():
                difference, low, high, pairs = mean_interval(paired(own, settings[first]))
                verdict = column.verdict(means[first], difference, low, high, pairs, own.values.size)
                told[keys] = verdict if pairs > 1 else "no interval"
            ties = {keys for keys, verdict in told.items() if verdict == "tie"} | {first}
            if len(ties) < len(settings) and not any(told[keys] for keys in told if keys not in ties):
                found |= {(str(stream), metric, *keys) for keys in ties}
    return found


class Key(NamedTuple):
    """What names a row of a stream's summary."""

    estimator: str
    parameters: str
    metric: str
    unit: str


class Cells(NamedTuple):
    """One metric of a setting on a stream: seeds, values and statuses."""

    seeds: NDArray[np.int64]
    values: NDArray[np.float64]
    statuses: NDArray[np.object_]


def paired(cells: Cells, others: Cells) -> NDArray[np.float64]:
    """Differences of values, seed by seed, over the seeds of both."""
    if np.array_equal(cells.seeds, others.seeds):
        return cells.values - others.values
    _, at, other_at = np.intersect1d(cells.seeds, others.seeds, assume_unique=True, return_indices=True)
    return cells.values[at] - others.values[other_at]


def _streams(table: pd.DataFrame) -> dict[str, dict[Key, Cells]]:
    """Cells by stream and key, each in the order of its first appearance."""
    names = ["stream", *Key._fields]
    group = table.groupby(names, sort=False, observed=True, dropna=False).ngroup().to_numpy()
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    columns = (table[name].to_numpy()[order] for name in ("seed", "value", "status"))
    parts = zip(*(np.split(column, starts[1:]) for column in columns), strict=True)
    found: dict[str, dict[Key, Cells]] = {}
    for keys, cells in zip(
        table[names].iloc[order[starts]].itertuples(index=False, name=None), parts, strict=True
    ):
        found.setdefault(keys[0], {})[Key(*keys[1:])] = Cells(*cells)
    return found


def mean_interval(values: Any) -> tuple[float, float, float, int]:
    """Mean, lower and upper end of its Student's t interval, and n, of the finite values."""
    from scipy.special import stdtrit

    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    n = finite.size
    if n == 0:
        return np.nan, np.nan, np.nan, 0
    mean = float(finite.mean())
    if n == 1:
        return mean, np.nan, np.nan, 1
    half = float(stdtrit(n - 1, 0.5 + 0.5 * CONFIDENCE) * finite.std(ddof=1) / np.sqrt(n))
    return mean, mean - half, mean + half, n


def median_interval(values: Any) -> tuple[float, float, float]:
    """Median of the finite values and the order statistics that contain it in 95 % of samples, or more.

    NaN for fewer than 6 values, of which none do. David and Nagaraja (2003), Order Statistics, section 7.1.
    """
    from scipy.special import bdtr

    finite = np.sort(np.asarray(values, dtype=np.float64)[np.isfinite(values)])
    n = finite.size
    if n == 0:
        return np.nan, np.nan, np.nan
    median = float(0.5 * (finite[(n - 1) // 2] + finite[n // 2]))
    if n < 6:
        return median, np.nan, np.nan
    tail = 0.5 * (1.0 - CONFIDENCE)
    # The last rank that no more than the tail lies below, from the normal approximation on.
    rank = int(0.5 * n - 0.98 * np.sqrt(n))
    while bdtr(rank + 1, n, 0.5) <= tail:
        rank += 1
    while bdtr(rank, n, 0.5) > tail:
        rank -= 1
    return median, float(finite[rank]), float(finite[n - 1 - rank])
