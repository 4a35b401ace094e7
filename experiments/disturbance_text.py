"""How the experiments disturbance and memory write numbers, tables and conclusions within a page's width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from experiments.streams import Array
from experiments.tables import WIDTH, aligned, wrapped

REMOVED = 1e-10
"""Share of a sinusoid below which what is left is rounding."""
NEAR_ONE = 1e-6
"""1 - beta below which six digits of beta say nothing of it."""


def bullets(said: Sequence[str]) -> str:
    """Conclusions, one to a bullet."""
    return "\n".join(wrapped(f"- {one}.", "  ") for one in said)


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


def decibels(share: Any) -> Array:
    """Attenuation that leaves a share of an amplitude, in dB; NaN where nothing but rounding is left."""
    with np.errstate(divide="ignore", invalid="ignore"):
        attenuation: Array = np.where(share > REMOVED, -20.0 * np.log10(share), np.nan)
    return attenuation
