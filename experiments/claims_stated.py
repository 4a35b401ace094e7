"""Figures as texts state them: read from a table, and judged by the digits in which they are given."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

import numpy as np

COLUMNS = ("id", "source", "quantity", "parameters", "stated", "unit")
"""Of a table of claims."""
EXACT = 1e-9
"""Relative difference of two numbers that rounding in float64 explains."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)


class Verdict(StrEnum):
    """What becomes of a claim, from the best to what cannot be said."""

    CORRECT = "correct"
    TO_DIGITS = "correct to the digits given"
    WRONG = "wrong"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Figure:
    """A stated number, and half a unit of its last digit.

    All digits that are written count, 1.6e-4 having two and 0.0100 three. Zeros that end a whole number may
    be digits or mere places: they count up to the second digit, so that 630 and 1000 have two, and 10 has
    two. A plain 0 has no digit to be rounded to, and is exact.
    """

    value: float
    half: float

    @classmethod
    def of(cls, text: str) -> Figure:
        """Read a number; ValueError for what is none."""
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"stated={text!r} is not valid; it must be a number, such as 0.99 or 1.6e-4")
        place = int(Decimal(text).as_tuple().exponent)
        if text.lstrip("+-").isdigit():
            whole = text.lstrip("+-").lstrip("0")
            if not whole:
                return cls(0.0, 0.0)
            place += min(len(whole) - len(whole.rstrip("0")), max(0, len(whole) - 2))
        return cls(float(text), 0.5 * 10.0**place)

    def verdict(self, recomputed: float) -> Verdict:
        """Judge by a number that is known: equal up to 1e-9 of it, within half a unit, or neither."""
        apart = abs(self.value - recomputed)
        if apart <= EXACT * (abs(self.value) or 1.0):
            return Verdict.CORRECT
        return Verdict.TO_DIGITS if self.half and apart <= self.half * (1.0 + EXACT) else Verdict.WRONG

    def verdict_within(self, low: float, high: float) -> Verdict:
        """Judge by an interval: does it hold what rounds to this number? Without one, nothing is said."""
        if not (np.isfinite(low) and np.isfinite(high)):
            return Verdict.NOT_TESTABLE
        holds = low - self.half <= self.value <= high + self.half
        return Verdict.TO_DIGITS if holds else Verdict.WRONG


@dataclass(frozen=True)
class Claim:
    """A row of a table of claims, as text; its figures are parted by spaces where it states several."""

    id: str
    source: str
    quantity: str
    parameters: str
    stated: str
    unit: str

    @property
    def figures(self) -> list[Figure]:
        """What is stated; ValueError where a part of it is no number."""
        return [Figure.of(text) for text in self.stated.split()]

    @property
    def named(self) -> dict[str, str]:
        """The parameters that are written name=value; others are words."""
        parts = (part.strip().partition("=") for part in self.parameters.split(";"))
        return {name.strip(): value.strip() for name, equals, value in parts if equals}


def claims_of(data: bytes) -> Iterator[tuple[int, Claim]]:
    """Read a table of claims, CSV in UTF-8, each row with its number.

    Raises ValueError, one line, for a table without these columns or rows, and a row that lacks a cell, has
    the id of another, or states no number.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it cannot be read ({error}); it must be CSV in UTF-8") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        found = ",".join(rows[0]) if rows else "nothing"
        raise ValueError(f"its first line is {found[:80]!r}; it must be {','.join(COLUMNS)!r}")
    seen: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"row {number}" + f" ({row[0]})" * bool(row[0])
        if len(row) != len(COLUMNS):
            raise ValueError(f"{where} has {len(row)} cells; it must have {len(COLUMNS)}")
        claim = Claim(*(cell.strip() for cell in row))
        for name in COLUMNS:
            if not getattr(claim, name) and name != "parameters":
                raise ValueError(f"{where}: {name} is empty; it must be given")
        if claim.id in seen:
            raise ValueError(f"{where} has the id of row {seen[claim.id]}; ids must differ")
        seen[claim.id] = number
        yield number, claim
    if not seen:
        raise ValueError("it has no rows; it must state one figure or more")
