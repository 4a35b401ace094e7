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
_NUMBER = re.compile(r"(?:(?<![\w.)-])-)?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_RULE = re.compile(r"-{2,}")
_POWER = re.compile(r"(?<=\))e[-+]?\d+")
_SPELT = str.maketrans("0123456789-+", "abcdefghijmp")


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
    try:
        if suffix == ".csv":
            return _tables(pd.read_csv(io.BytesIO(before)), pd.read_csv(io.BytesIO(after)))
        if suffix == ".png":
            return _pictures(_pixels(before), _pixels(after))
        return _texts(before.decode(), after.decode())
    except (ValueError, SyntaxError, OSError) as error:  # of what read them, for what is no such file at all
        return Likeness("different", f"one of the two cannot be read: {type(error).__name__}")


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
            pairs = zip(one.fillna("").astype(str), other.fillna("").astype(str), strict=True)
            apart = np.array([_apart(*pair) for pair in pairs])
        row = int(np.argmax(apart)) if apart.size else 0
        if apart.size and apart[row] > largest:
            largest = float(apart[row])
            place = f"{name} of {_label(after, row)}: {one[row]} before, {other[row]} now"
    if largest <= NUMBERS:
        return Likeness("within tolerance", f"at most {largest:.0e} apart, {place}" if place else "")
    return Likeness("different", place)


def _apart(one: str, other: str) -> float:
    """Largest relative difference of the numbers in two texts, inf where anything else differs."""
    if one == other:
        return 0.0
    if _NUMBER.sub("0", one) != _NUMBER.sub("0", other):
        return np.inf
    numbers = np.array([_NUMBER.findall(text) for text in (one, other)], dtype=np.float64)
    scale = np.maximum(np.abs(numbers).max(axis=0), np.finfo(float).tiny)
    return float((np.abs(numbers[0] - numbers[1]) / scale).max())


def _tiny(before: pd.DataFrame, after: pd.DataFrame) -> Any:
    """What counts as nothing beside the mean of each row, where there is one."""
    means = [table.get("mean", pd.Series(dtype=float)) for table in (before, after)]
    if not all(len(mean) and pd.api.types.is_numeric_dtype(mean) for mean in means):
        return 0.0
    return 1e-9 * np.nan_to_num(np.maximum(*(np.abs(mean.to_numpy(np.float64)) for mean in means)))


def _label(table: pd.DataFrame, row: int) -> str:
    names = [name for name in ("stream", "estimator", "metric") if name in table.columns]
    return " ".join(str(table[name].iloc[row]) for name in names) or f"row {row + 1}"


def _texts(before: str, after: str) -> Likeness:
    """Texts that differ in the last digit of numbers at most are alike, however wide their columns are."""
    one, other = before.splitlines(), after.splitlines()
    if len(one) != len(other):
        return Likeness("different", f"{len(one)} lines before, {len(other)} now")
    for number, (line, now) in enumerate(zip(one, other, strict=True), start=1):
        words = (_NUMBER.sub("0", _RULE.sub("-", _plain(text))) for text in (line, now))
        numbers = zip(_NUMBER.findall(_plain(line)), _NUMBER.findall(_plain(now)), strict=False)
        if len(set(words)) > 1 or not all(_same_but_for_rounding(*pair) for pair in numbers):
            return Likeness("different", f"line {number}: {now.strip()[:80]}")
    return Likeness("within tolerance", "in the last digits of numbers")


def _plain(line: str) -> str:
    """A line with single spaces, and powers of ten, which are not to differ, as words."""
    return " ".join(_POWER.sub(lambda found: found.group().translate(_SPELT), line).split())


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
