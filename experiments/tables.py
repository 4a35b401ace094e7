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
"""Share of the baseline's value below which a difference is called a tie even where it is significant."""


@dataclass(frozen=True)
class Column:
    """A metric as a printed table shows it."""

    metric: str
    label: str


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
    return _aligned(lines)


def differences(summary: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """One line per metric in which some estimator cannot be told from the first, and one per measured gap."""
    lines = []
    for column in columns:
        rows = summary[(summary["metric"] == column.metric) & (summary["estimator"] != summary["baseline"])]
        rows = rows[np.isfinite(rows["difference"])]
        if rows.empty:
            continue
        baseline = rows["baseline"].iloc[0]
        tied = [row for row in rows.itertuples() if is_tie(row)]
        others = [row for row in rows.itertuples() if not is_tie(row)]
        parts = []
        if tied:
            parts.append("tie: " + ", ".join(str(row.estimator) for row in tied))
        parts += [f"{row.estimator} {_signed(row)}" for row in others]
        lines.append(f"{column.label}, against {baseline}: " + "; ".join(parts))
    return lines


def is_tie(row: Any) -> bool:
    """Whether a paired difference is nothing: its interval contains 0, or it is below a thousandth."""
    value = row.mean - row.difference
    return bool(
        row.difference_low <= 0.0 <= row.difference_high or abs(row.difference) <= NEGLIGIBLE * abs(value)
    )


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
        return f"{value:.4g}"
    exponent = int(np.floor(np.log10(half)))
    decimals = max(0, (half < 2.0 * 10.0**exponent) - exponent)
    if decimals > 6:
        power = 10.0 ** (decimals - 1)
        return f"({value * power:.1f} ± {half * power:.1f})e-{decimals - 1}"
    return f"{value:.{decimals}f} ± {half:.{decimals}f}"


def _aligned(lines: Sequence[Iterable[str]]) -> str:
    rows = [list(line) for line in lines]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    texts = [i < 2 for i in range(len(widths))]
    pad = [
        [
            cell.ljust(width) if text else cell.rjust(width)
            for cell, width, text in zip(row, widths, texts, strict=True)
        ]
        for row in rows
    ]
    rule = [
        "-" * width if text else "-" * (width - 1) + ":" for width, text in zip(widths, texts, strict=True)
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [pad[0], rule, *pad[1:]])
