"""How like two versions of a table, text or picture are: identical, within tolerance, or different where."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

NUMBERS = 1e-6
"""Relative difference of two numbers of a table that another machine's last bits explain."""
PICTURES = 1.0 / 255.0
"""Root mean square difference of the pixels of two pictures, of full scale, that other fonts explain."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Likeness:
    """kind: identical, within tolerance, different, new or timings; where: what differs, in a few words."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.where})" if self.where else self.kind


def likeness(suffix: str, before: bytes | None, after: bytes, exempt: bool = False) -> Likeness:
    """Compare two versions of a file by what it holds; ``exempt`` ones hold times, and are not compared."""
    if before is None:
        return Likeness("new")
    if before == after:
        return Likeness("identical")
    if exempt:
        return Likeness("timings", "made anew, not compared")
    if suffix == ".csv":
        return _tables(pd.read_csv(io.BytesIO(before)), pd.read_csv(io.BytesIO(after)))
    if suffix == ".png":
        return _pictures(_pixels(before), _pixels(after))
    return _texts(before.decode(), after.decode())


def _tables(before: pd.DataFrame, after: pd.DataFrame) -> Likeness:
    if list(before.columns) != list(after.columns):
        changed = set(before.columns) ^ set(after.columns)
        return Likeness("different", f"columns {', '.join(sorted(changed)) or 'in another order'}")
    if len(before) != len(after):
        return Likeness("different", f"{len(before)} rows before, {len(after)} now")
    largest, place = 0.0, ""
    for name in before.columns:
        one, other = before[name], after[name]
        if pd.api.types.is_numeric_dtype(one) and pd.api.types.is_numeric_dtype(other):
            a, b = one.to_numpy(np.float64), other.to_numpy(np.float64)
            scale = np.maximum(np.abs(a), np.abs(b))
            with np.errstate(invalid="ignore", divide="ignore"):
                apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b) / scale)
            apart = np.where(np.isnan(apart), np.inf, apart)
            # What is zero but for rounding, as the difference of two equal filters is, has no scale.
            apart = np.where(np.isfinite(scale) & (scale < _tiny(before, after)), 0.0, apart)
        else:
            same = (one == other) | (one.isna() & other.isna())
            apart = np.where(same.to_numpy(), 0.0, np.inf)
        row = int(np.argmax(apart)) if apart.size else 0
        if apart.size and apart[row] > largest:
            largest = float(apart[row])
            place = f"{name} of {_label(after, row)}: {one[row]} before, {other[row]} now"
    if largest <= NUMBERS:
        return Likeness("within tolerance", f"at most {largest:.0e} apart, {place}" if place else "")
    return Likeness("different", place)


def _tiny(before: pd.DataFrame, after: pd.DataFrame) -> Any:
    """What counts as nothing beside the mean of each row, where there is one."""
    if "mean" not in before.columns or "mean" not in after.columns:
        return 0.0
    means = np.maximum(before["mean"].abs().to_numpy(), after["mean"].abs().to_numpy())
    return 1e-9 * np.nan_to_num(means)


def _label(table: pd.DataFrame, row: int) -> str:
    names = [name for name in ("stream", "estimator", "metric") if name in table.columns]
    return " ".join(str(table[name].iloc[row]) for name in names) or f"row {row + 1}"


def _texts(before: str, after: str) -> Likeness:
    """Texts that differ in the last digit of numbers at most are alike."""
    lines = list(zip(before.splitlines(), after.splitlines(), strict=False))
    if before.count("\n") != after.count("\n"):
        return Likeness("different", f"{before.count(chr(10))} lines before, {after.count(chr(10))} now")
    for number, (one, other) in enumerate(lines, start=1):
        numbers = list(zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=False))
        words = (" ".join(_NUMBER.sub("0", line).split()) for line in (one, other))
        if len(set(words)) > 1 or not all(_same_but_for_rounding(*pair) for pair in numbers):
            return Likeness("different", f"line {number}: {other.strip()[:80]}")
    return Likeness("within tolerance", "in the last digits of numbers")


def _same_but_for_rounding(one: str, other: str) -> bool:
    decimals = max(len(text.partition("e")[0].partition(".")[2]) for text in (one, other))
    power = float(f"1e{other.partition('e')[2] or 0}")
    return abs(float(one) - float(other)) <= 1.01 * power * 10.0**-decimals


def _pixels(data: bytes) -> Any:
    from matplotlib import image

    return np.asarray(image.imread(io.BytesIO(data), format="png"), dtype=np.float64)


def _pictures(before: Any, after: Any) -> Likeness:
    if before.shape != after.shape:
        sizes = (f"{shape[1]} x {shape[0]}" for shape in (before.shape, after.shape))
        return Likeness("different", "{} pixels before, {} now".format(*sizes))
    apart = float(np.sqrt(np.mean((before - after) ** 2)))
    if apart == 0.0:
        return Likeness("identical", "pixel by pixel; its provenance is renewed")
    kind = "within tolerance" if apart <= PICTURES else "different"
    return Likeness(kind, f"pixels {100.0 * apart:.2g} % of full scale apart")
