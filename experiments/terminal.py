"""A run's text on a terminal: what is too wide for it is written below each other, not cut by the edge."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from experiments.tables import width


def fitted(text: str, columns: int) -> str:
    """A text of which no line is wider than the terminal, as far as words allow; tables as blocks of rows."""
    lines: list[str] = []
    for is_table, part in groupby(text.splitlines(), lambda line: line.startswith("| ")):
        own = list(part)
        if max(map(width, own)) <= columns:
            lines += own
        elif is_table:
            lines += _blocks(own, columns)
        else:
            for line in own:
                lines += _wrapped(line, columns)
    return "\n".join(lines) + "\n" * text.endswith("\n")


def _wrapped(line: str, columns: int) -> list[str]:
    """A line of words in several; of a list the further ones are indented."""
    if line[:1].isspace():  # laid out by whoever wrote it
        return [line]
    return _words(line, columns, "  " if line.startswith("- ") else "")


def _words(line: str, columns: int, indent: str) -> list[str]:
    wrapped = textwrap.wrap(
        line, columns, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapped or [""]


def _blocks(table: Sequence[str], columns: int) -> Iterator[str]:
    """A table's rows one below the other: the texts that name a row, then its values by label."""
    head, rule, *rows = ([cell.strip() for cell in line.strip("| ").split(" | ")] for line in table)
    texts = sum(not re.fullmatch(r"-*:", cell) for cell in rule)
    room = max(map(width, head[texts:]), default=0)
    for row in rows:
        yield from _words("  ".join(row[:texts]), columns, "    ")
        for label, cell in zip(head[texts:], row[texts:], strict=True):
            yield f"  {label}{' ' * (room - width(label))}  {cell}"
