"""Figures as texts state them: read from a table, and judged by the digits in which they are given."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum

import numpy as np

COLUMNS = ("id", "source", "quantity", "parameters", "stated", "unit")
"""Of a table of claims."""
EXACT = 1e-9
"""Relative difference of two numbers that rounding in float64 explains."""
SHOWN = 80
"""Characters of a cell that an error shows."""
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories of controls, line breaks and marks of direction."""
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE | re.ASCII)


class Verdict(StrEnum):
    """What becomes of a claim, from the best to what cannot be said."""

    CORRECT = "correct"
    TO_DIGITS = "correct to the digits given"
    WRONG = "wrong"
    NOT_TESTABLE = "not testable here"


@dataclass(frozen=True)
class Figure:
    """A stated number, half a unit of its last digit, and how many digits it has.

    All digits that are written count, 1.6e-4 having two and 0.0100 three. Zeros that end a whole number may
    be digits or mere places: they count up to the second digit, so that 630 and 1000 have two, and 10 has
    two. A plain 0 has no digit to be rounded to, and is exact. One digit says so little, 1 being all from
    0.5 to 1.5, that what is right to it alone has a verdict of its own.
    """

    value: float
    half: float
    digits: int

    @classmethod
    def of(cls, text: str) -> Figure:
        """Read a number; ValueError for what is none, or none of float64's."""
        if not _NUMBER.fullmatch(text):
            raise ValueError(
                f"stated={shown(text)} is not valid; it must be a number, such as 0.99 or 1.6e-4"
            )
        written = re.split("[eE]", text)[0].lstrip("+-").replace(".", "").lstrip("0")
        try:
            value, place = float(text), int(Decimal(text).as_tuple().exponent)
            zeros = 0
            if text.lstrip("+-").isdigit():
                if not written:
                    return cls(0.0, 0.0, 0)
                zeros = min(len(written) - len(written.rstrip("0")), max(0, len(written) - 2))
            half = 0.5 * 10.0 ** (place + zeros)
        except (InvalidOperation, OverflowError):
            value = half = np.inf
        if not (np.isfinite(value) and np.isfinite(half)) or (value == 0.0 and written.strip("0")):
            raise ValueError(
                f"stated={shown(text)} is not valid; it must be finite in float64, and 0 only if written so"
            )
        return cls(value, half, len(written) - zeros)

    def verdict(self, recomputed: float) -> Verdict:
        """Judge by a number that is known: equal up to 1e-9 of it, within half a unit, or neither."""
        apart = abs(self.value - recomputed)
        if apart <= EXACT * (abs(self.value) or 1.0):
            return Verdict.CORRECT
        return self._rounded(bool(self.half) and apart <= self.half * (1.0 + EXACT))

    def verdict_within(self, low: float, high: float) -> Verdict:
        """Judge by an interval: does it hold what rounds to this number? Without one, nothing is said."""
        if not (np.isfinite(low) and np.isfinite(high)):
            return Verdict.NOT_TESTABLE
        return self._rounded(low - self.half <= self.value <= high + self.half)

    def _rounded(self, within: bool) -> Verdict:
        return Verdict.TO_DIGITS if within else Verdict.WRONG


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
        """The parameters that are written name=value; others are words. ValueError for a name given twice."""
        parts = (part.strip().partition("=") for part in self.parameters.split(";"))
        found: dict[str, str] = {}
        for name, value in ((name.strip(), value.strip()) for name, equals, value in parts if equals):
            if name in found:
                raise ValueError(
                    f"parameters={shown(self.parameters)} give {shown(name)} twice; give it once"
                )
            found[name] = value
        return found


def shown(text: str) -> str:
    """A cell as an error shows it: in quotes, one line, and no more than its beginning."""
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...")


def claims_of(data: bytes) -> Iterator[tuple[int, Claim]]:
    """Read a table of claims, CSV in UTF-8, each row with its number.

    Raises ValueError, one line, for a table without these columns or rows, and a row that lacks a cell, has
    the id of another, or characters that control how a text is shown.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"it cannot be read ({error}); it must be CSV in UTF-8") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        found = ",".join(rows[0]) if rows else "nothing"
        raise ValueError(f"its first line is {shown(found)}; it must be {','.join(COLUMNS)!r}")
    seen: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        where = f"row {number}" + f" ({shown(row[0])[1:-1]})" * bool(row[0])
        if len(row) != len(COLUMNS):
            raise ValueError(f"{where} has {len(row)} cells; it must have {len(COLUMNS)}")
        for name, cell in zip(COLUMNS, row, strict=True):
            if any(unicodedata.category(one) in _UNSEEN for one in cell):
                raise ValueError(
                    f"{where}: {name}={shown(cell)} is not valid; it must be one line of plain text"
                )
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
