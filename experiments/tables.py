"""How summaries are written for people: aligned Markdown, LaTeX, and sentences on who differs from whom."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from experiments.summaries import ANY, Column, best

WIDTH = 110
"""Columns of a page of text."""
NEAR_ONE = 1e-6
"""1 - beta below which six digits of beta say nothing of it."""
BEST = "* better than all others on its stream by the paired 95 % interval, with what ties with it."
"""What the mark says that ``starred`` sets."""


def markdown(
    summary: pd.DataFrame, columns: Sequence[Column], winners: Set[tuple[str, str, str, str]] = frozenset()
) -> str:
    """Aligned Markdown: a row per setting and stream, a column per metric, means with half-widths.

    winners: stream, metric, estimator and parameters of what is marked, as ``best`` gives them.
    """
    shown = _shown(summary, columns)
    marked = {metric for _, metric, _, _ in winners}
    several = summary["stream"].nunique() > 1
    head = ["stream"] * several + ["estimator", "setting"]
    lines = [[*head, *(column.label for column in shown)]]
    for stream, estimator, parameters, own in _settings(summary):
        cells = [cell(own.loc[c.metric]) if c.metric in own.index else "-" for c in shown]
        full = str(own["parameters"].iloc[0])
        for i, metric in enumerate(column.metric for column in shown):
            mark = "*" if (stream, metric, estimator, full) in winners else " "
            cells[i] += mark if metric in marked else ""
        lines.append([*[stream] * several, estimator, parameters, *cells])
    return aligned(lines, texts=len(head))


def starred(text: str, summary: pd.DataFrame, table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """A text that holds the table of these columns, the best of each stream and column marked in it."""
    winners = best(table, _shown(summary, columns))
    plain = markdown(summary, columns)
    if not winners or plain not in text:
        return text
    return text.replace(plain, f"{markdown(summary, columns, winners)}\n\n{BEST}", 1)


def latex(summary: pd.DataFrame, table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """The same as a LaTeX tabular for the package booktabs, the best of each stream and column in bold.

    Bold is what is better than all others by the paired interval of the difference, and what ties with it.
    """
    shown = _shown(summary, columns)
    winners = best(table, shown)
    several = summary["stream"].nunique() > 1
    head = ["stream"] * several + ["estimator", "setting"]
    lines = [[*head, *(_escaped(column.label) for column in shown)]]
    exact = summary[["stream", "estimator", "parameters"]].drop_duplicates().itertuples(index=False)
    rules: list[bool] = []
    last = None
    for (stream, estimator, parameters, own), (*_, full) in zip(_settings(summary), exact, strict=True):
        cells = []
        for column in shown:
            text = _escaped(cell(own.loc[column.metric])) if column.metric in own.index else "--"
            number, bracket, absent = text.partition(" (")
            bold = (stream, column.metric, estimator, full) in winners
            cells.append(f"\\textbf{{\\boldmath {number}}}{bracket}{absent}" if bold else text)
        rules.append(last is not None and stream != last)
        last = stream
        lines.append([*([_escaped(stream)] * several), _escaped(estimator), _escaped(parameters), *cells])
    # After a row's end or a rule, a bracket would begin an option.
    body = [f"{'{}' * line[0].startswith('[')}{' & '.join(line)} \\\\" for line in lines]
    ruled = [f"\\midrule\n{row}" if rule else row for row, rule in zip(body[1:], rules, strict=True)]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}",
            f"\\begin{{tabular}}{{{'l' * len(head)}{'r' * len(shown)}}}",
            "\\toprule",
            body[0],
            "\\midrule",
            *ruled,
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    )


def differences(summary: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """One line per metric: who ties with the first setting, who differs, who cannot be told apart."""
    summary = summary.assign(parameters=shortened(summary))
    settings = summary[["estimator", "parameters"]].drop_duplicates()
    twice = set(settings.loc[settings["estimator"].duplicated(), "estimator"])
    first = settings.iloc[0]
    lines = []
    for column in columns:
        rows = summary[summary["metric"] == column.metric]
        is_first = (rows["estimator"] == first["estimator"]) & (rows["parameters"] == first["parameters"])
        others, own = rows[~is_first], rows[is_first]
        if own.empty or others.empty:
            continue
        title = f"{column.label}, against {_named(own.iloc[0], twice)}"
        if own["n"].iloc[0] == 0:
            lines.append(f"{title}: it has {own['status'].iloc[0]}")
            continue
        said: dict[str, list[str]] = {"tie": [], "": [], "not told apart": [], "no value": []}
        for _, row in others.iterrows():
            verdict = verdict_of(row, column)
            number = {"tie": "", "no value": f" ({row['status']})"}.get(verdict, f" {signed(row)}")
            said[verdict].append(f"{_named(row, twice)}{number}{_unequal(row)}")
        parts = [(f"{verdict}: " if verdict else "") + ", ".join(who) for verdict, who in said.items() if who]
        lines.append(f"{title}: " + "; ".join(parts))
    return lines


def verdict_of(row: Any, column: Column) -> str:
    """How a row of a summary stands to the first: tie, "" for a difference, not told apart, no value."""
    return column.verdict(
        row["mean"] - row["difference"],
        row["difference"],
        row["difference_low"],
        row["difference_high"],
        row["pairs"],
        row["n"] + row["failed"] + row["missing"],
    )


def _shown(summary: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    shown = [column for column in columns if (summary["metric"] == column.metric).any()]
    # Where every cell of a stream failed, it is not known what they would have measured.
    return shown + [Column(ANY, "every metric")] * bool((summary["metric"] == ANY).any())


def _settings(summary: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    """Stream, estimator, parameters in short, and the summary's rows by metric, of each setting."""
    grouped = summary.assign(short=shortened(summary)).groupby(
        ["stream", "estimator", "parameters"], sort=False, observed=True
    )
    for (stream, estimator, _), own in grouped:
        yield str(stream), str(estimator), str(own["short"].iloc[0]), own.set_index("metric")


def shortened(summary: pd.DataFrame) -> pd.Series:
    """Parameters with four digits, save where these would make two settings look like one."""
    full = summary["parameters"].astype(str)
    short = full.map({text: _NUMBER.sub(_four_digits, text) for text in full.unique()})
    by = [summary["stream"], summary["estimator"], short]
    alike = full.groupby(by, sort=False, observed=True).transform("nunique") > 1
    return short.where(~alike, full)


_NUMBER = re.compile(r"(?<==)-?\d+\.?\d*(?:e[-+]?\d+)?(?= |$)")


def _four_digits(number: re.Match[str]) -> str:
    text = number.group()
    return text if re.fullmatch(r"-?\d+", text) else f"{float(text):.4g}"


def _named(row: Any, twice: set[str]) -> str:
    return f"{row['estimator']} ({row['parameters']})" if row["estimator"] in twice else str(row["estimator"])


def _unequal(row: Any) -> str:
    """Flag a difference over fewer seeds than there are."""
    cells = row["n"] + row["failed"] + row["missing"]
    return f" (over {row['pairs']} of {cells})" if 0 < row["pairs"] < cells else ""


def _escaped(text: str) -> str:
    text = "".join(_ESCAPES.get(character, character) for character in text)
    return re.sub(r"(?<![\w.])-(?=\d)", "$-$", text)  # a minus sign is no hyphen


_ESCAPES = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "^": "\\^{}",
    "~": "\\~{}",
    "±": "$\\pm$",
}


def cell(row: Any) -> str:
    """Write a row's mean with its half-width, and what of it failed or is missing."""
    if row["n"] == 0:
        return str(row["status"])
    text = quantity(row["mean"], row["high"] - row["mean"])
    absent = row["failed"] + row["missing"]
    return f"{text} ({absent} {row['status']})" if absent else text


def signed(row: Any) -> str:
    """Write a row's difference to the first with its half-width and its sign."""
    text = quantity(row["difference"], row["difference_high"] - row["difference"])
    return text if row["difference"] < 0.0 else f"+{text}"


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
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]))]
    left = [i < texts for i in range(len(widths))]

    def rooms(row: Sequence[str]) -> list[str]:
        return [" " * (own - width(cell)) for cell, own in zip(row, widths, strict=True)]

    pad = [
        [cell + room if text else room + cell for cell, room, text in zip(row, rooms(row), left, strict=True)]
        for row in rows
    ]
    rule = ["-" * own if text else "-" * (own - 1) + ":" for own, text in zip(widths, left, strict=True)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [pad[0], rule, *pad[1:]])


def width(text: str) -> int:
    """Columns that a text takes on a terminal: two for a wide character, none for one on top of another."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF") for one in text
    )


def wrapped(text: str, indent: str = "", first: str = "") -> str:
    """A paragraph in lines no longer than a table, the ones after the first by an indent."""
    whole: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, WIDTH, initial_indent=first, subsequent_indent=indent, **whole)


def items(said: Iterable[str]) -> str:
    """Sentences as a list, one to an item."""
    return "\n".join(wrapped(f"- {one}", "  ") for one in said)


def narrowed(lines: Sequence[Sequence[str]], texts: int = 1, kept: int = 1, group: int = 1) -> str:
    """Aligned tables no wider than a page, one below the other, of as many columns each as can be.

    kept: columns that each repeats; group: further ones that stay together.
    """
    first = [list(line[:kept]) for line in lines]
    more = (len(lines[0]) - kept) // group
    for parts in range(1, max(more, 1) + 1):
        ends = [kept + group * (more * part // parts) for part in range(parts + 1)]
        tables = [
            aligned([[*own, *line[low:high]] for own, line in zip(first, lines, strict=True)], texts=texts)
            for low, high in pairwise(ends)
        ]
        if all(len(table.partition("\n")[0]) <= WIDTH for table in tables):
            break
    return "\n\n".join(tables)


def span(values: Sequence[float], plus: bool = True, digits: int = 2) -> str:
    """The least and the largest of some values, to so many digits after the point."""
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return "no"
    sign, zero = "+" if plus else "", f"{0.0:.{digits}f}"
    ends = (f"{end:{sign}.{digits}f}" for end in (min(finite), max(finite)))
    return " to ".join(dict.fromkeys(f"{sign}{zero}" if end == f"-{zero}" else end for end in ends))


def beta_text(beta: float) -> str:
    """A beta to six digits, by its distance to 1 where these would be nines."""
    return f"{beta:.6g}" if 1.0 - beta > (1.0 - 1e-6) * NEAR_ONE else f"1 - {1.0 - beta:.3g}"


def counted(number: int, what: str) -> str:
    """So many of something."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
