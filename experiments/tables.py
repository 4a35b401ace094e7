"""From one row per measurement to what people read: means, intervals, paired differences, ties."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

COLUMNS = ["experiment", "estimator", "parameters", "stream", "seed", "metric", "value", "unit", "status"]
CONFIDENCE = 0.95
NEGLIGIBLE = 1e-3
"""Share of the baseline's value within which two values are the same for every purpose."""


@dataclass(frozen=True)
class Column:
    """A metric as a printed table shows it, and the difference within which two of its values tie.

    margin: in the metric's unit; None for a thousandth of the baseline's value. exact: whether the value owes
    nothing to chance, so that one stream is enough to know it.
    """

    metric: str
    label: str
    margin: float | None = None
    exact: bool = False


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """One row per stream, estimator and metric: n, mean, 95 % interval, difference to the first.

    Differences are paired per seed, over the seeds that both have; ``missing`` counts cells without a value
    and ``status`` says why. Intervals are Student's t.
    """
    rows = []
    for stream, of_stream in table.groupby("stream", sort=False):
        wide = of_stream.pivot_table(
            index="seed", columns=["metric", "estimator"], values="value", sort=False, dropna=False
        )
        baseline = of_stream["estimator"].iloc[0]
        keys = ["estimator", "parameters", "metric", "unit"]
        for (estimator, parameters, metric, unit), cells in of_stream.groupby(keys, sort=False):
            mean, low, high, n = mean_interval(cells["value"])
            row = {
                "experiment": cells["experiment"].iloc[0],
                "stream": stream,
                "estimator": estimator,
                "parameters": parameters,
                "metric": metric,
                "unit": unit,
                "n": n,
                "missing": len(cells) - n,
                "mean": mean,
                "low": low,
                "high": high,
                "baseline": baseline,
                "difference": np.nan,
                "difference_low": np.nan,
                "difference_high": np.nan,
                "status": "; ".join(dict.fromkeys(cells.loc[cells["status"] != "ok", "status"])) or "ok",
            }
            if (metric, baseline) in wide.columns:
                paired = wide[metric, estimator] - wide[metric, baseline]
                row["difference"], row["difference_low"], row["difference_high"], _ = mean_interval(paired)
            rows.append(row)
    return pd.DataFrame(rows)


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


def markdown(summary: pd.DataFrame, columns: Sequence[Column]) -> str:
    """Aligned Markdown: a row per estimator, a column per metric, means with half-widths."""
    shown = [column for column in columns if (summary["metric"] == column.metric).any()]
    settings = summary[["estimator", "parameters"]].drop_duplicates()
    header = ["estimator", "setting", *(column.label for column in shown)]
    lines = [header]
    for estimator, parameters in settings.itertuples(index=False):
        own = summary[(summary["estimator"] == estimator)].set_index("metric")
        cells = [_cell(own.loc[c.metric]) if c.metric in own.index else "-" for c in shown]
        lines.append([estimator, parameters, *cells])
    return aligned(lines)


def differences(summary: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """One line per metric: who ties with the first estimator, who differs, who cannot be told apart."""
    lines = []
    for column in columns:
        rows = summary[summary["metric"] == column.metric]
        others, own = rows[rows["estimator"] != rows["baseline"]], rows[rows["estimator"] == rows["baseline"]]
        if own.empty or others.empty:
            continue
        title = f"{column.label}, against {own['baseline'].iloc[0]}"
        if own["n"].iloc[0] == 0:
            lines.append(f"{title}: it has {own['status'].iloc[0]}")
            continue
        said: dict[str, list[str]] = {"tie": [], "": [], "not told apart": [], "no value": []}
        for row in others.itertuples():
            verdict = verdict_of(row, column)
            number = {"tie": "", "no value": f" ({row.status})"}.get(verdict, f" {_signed(row)}")
            said[verdict].append(f"{row.estimator}{number}")
        parts = [(f"{verdict}: " if verdict else "") + ", ".join(who) for verdict, who in said.items() if who]
        lines.append(f"{title}: " + "; ".join(parts))
    return lines


def verdict_of(row: Any, column: Column) -> str:
    """Say of a paired difference: tie, "" for a difference, not told apart, or no value.

    A tie needs the whole interval within the margin; a difference, that it excludes 0. One stream alone has
    no interval: it tells apart what owes nothing to chance, and shows equal values as equal.
    """
    if not np.isfinite(row.difference):
        return "no value"
    margin = NEGLIGIBLE * abs(row.mean - row.difference) if column.margin is None else column.margin
    low, high = row.difference_low, row.difference_high
    if not np.isfinite(low):
        exact = column.exact and row.n + row.missing == 1
        tied = abs(row.difference) <= (margin if exact else 1e-9 * abs(row.mean))
        return "tie" if tied else "" if exact else "not told apart"
    if max(abs(low), abs(high)) <= margin:
        return "tie"
    return "not told apart" if low <= 0.0 <= high else ""


def _cell(row: Any) -> str:
    if row["n"] == 0:
        return str(row["status"])
    half = row["high"] - row["mean"]
    text = quantity(row["mean"], half)
    return f"{text} ({row['missing']} {row['status']})" if row["missing"] else text


def _signed(row: Any) -> str:
    text = quantity(row.difference, row.difference_high - row.difference)
    return text if row.difference < 0.0 else f"+{text}"


def quantity(value: float, half: float) -> str:
    """Write a value with the half-width of its interval, to its first digit (to two where that is a 1)."""
    if not np.isfinite(half) or half <= 1e-9 * abs(value):
        return f"{value:.0f}" if value == np.rint(value) and abs(value) < 1e15 else f"{value:.4g}"
    exponent = int(np.floor(np.log10(half)))
    decimals = max(0, (half < 2.0 * 10.0**exponent) - exponent)
    if decimals > 6:
        power = 10.0 ** (decimals - 1)
        return f"({value * power:.1f} ± {half * power:.1f})e-{decimals - 1}"
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def aligned(lines: Sequence[Iterable[str]], texts: int = 2) -> str:
    """Aligned Markdown, the first line a header: so many columns to the left, the others to the right."""
    rows = [list(line) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = [i < texts for i in range(len(widths))]
    pad = [
        [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, left, strict=True)
        ]
        for row in rows
    ]
    rule = [
        "-" * width if text else "-" * (width - 1) + ":" for width, text in zip(widths, left, strict=True)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [pad[0], rule, *pad[1:]])
