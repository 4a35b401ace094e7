"""The least beta of an EMA that attains a level of attenuation at a frequency, and what its lag is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from estimators import EMA
from experiments.streams import Array
from experiments.tables import beta_text, narrowed, span

MEMORY = 45
"""Effective windows after which no weight is left that a float64 sum could show: exp(-45) < 3e-20."""
REMOVED = 1e-10
"""Share of a sinusoid below which what is left is rounding."""
SMALLER = 1e-6
"""Share by which 1 - beta is raised to see that no smaller beta attains as much."""
LONGEST = 10_000_000
"""Samples on which a beta is checked at most."""


class Reached(NamedTuple):
    """The EMA that first attains a level at a frequency, and what was measured of it."""

    f: float
    level: float
    beta: float
    """NaN where 1 - beta is too small for float64."""
    measured: float
    """Attenuation through the filter itself, dB."""
    smaller: float
    """That of a beta whose 1 - beta is a millionth larger."""

    @property
    def lag(self) -> float:
        """Delay at zero frequency in samples: what the attenuation costs."""
        return float(EMA(self.beta).group_delay)

    @property
    def asymptote(self) -> float:
        """Level by (1 - beta) / (2 sin(pi f)), dB."""
        return float(20.0 * np.log10(2.0 * np.sin(np.pi * self.f) / (1.0 - self.beta)))

    @property
    def attains(self) -> bool:
        """Whether this beta attains the level and the smaller one does not."""
        return self.measured >= self.level - 1e-9 and self.smaller < self.level - 1e-9


def reached(f: float, level: float) -> Reached:
    """The least beta of an EMA that attains a level at a frequency, checked through the filter itself."""
    try:
        beta = float(EMA.from_attenuation(level, f).beta)
    except ValueError:
        return Reached(f, level, np.nan, np.nan, np.nan)
    gain = 1.0 - beta
    betas = np.array([beta, 1.0 - gain * (1.0 + SMALLER)])
    n = int(np.ceil(MEMORY / gain)) + 1
    if n > LONGEST:
        return Reached(f, level, beta, np.nan, np.nan)
    turns = 2.0 * np.pi * ((f * np.arange(n)) % 1.0)
    ema = EMA(betas)
    ends = [np.asarray(ema.filter(wave).state.mean) for wave in (np.cos(turns), np.sin(turns))]
    measured, smaller = decibels(np.hypot(*ends))
    return Reached(f, level, beta, float(measured), float(smaller))


def sentences(betas: Sequence[Reached]) -> Iterator[str]:
    """What the betas that reach a level have in common."""
    there = [one for one in betas if np.isfinite(one.measured)]
    beyond = sum(np.isnan(one.beta) for one in betas)
    if beyond:
        yield f"{beyond} of {len(betas)} levels need a 1 - beta too small for float64"
    long = len(betas) - beyond - len(there)
    if not there:
        if long:
            yield f"{long} of {len(betas)} betas remember more than {LONGEST:,} samples: not measured"
        return
    attained = sum(one.attains for one in there)
    yield (
        f"measured through the filter, {attained} of {len(there)} betas attain their level while a 1 - beta "
        f"larger by {SMALLER:g} of it does not"
        + (f"; {long} more need over {LONGEST:,} samples and are not measured" if long else "")
    )
    slow = [one for one in there if 2.0 * np.pi * one.f >= 10.0 * (1.0 - one.beta)]
    if slow:
        off = [one.asymptote - one.level for one in slow]
        yield (
            f"(1 - beta)/(2 sin(pi f)) states the gain to within {max(map(abs, off)):.2g} dB at the "
            f"{len(slow)} with 2 pi f >= 10 (1 - beta)"
        )
    for level in dict.fromkeys(one.level for one in there):
        periods = [one.lag * one.f for one in there if one.level == level]
        yield f"{level:g} dB cost a lag of {span(periods, plus=False)} periods of the disturbance"


def decibels(share: Any) -> Array:
    """Attenuation that leaves a share of an amplitude, in dB; NaN where nothing but rounding is left."""
    with np.errstate(divide="ignore", invalid="ignore"):
        attenuation: Array = np.where(share > REMOVED, -20.0 * np.log10(share), np.nan)
    return attenuation


def table(betas: Sequence[Reached]) -> str:
    """A row per frequency, beta, lag and lag in periods of each level."""
    levels = list(dict.fromkeys(one.level for one in betas))
    by = {(one.f, one.level): one for one in betas}
    lines = [["f", *(part for level in levels for part in (f"{level:g} dB: beta", "lag", "periods"))]]
    for f in dict.fromkeys(one.f for one in betas):
        cells: list[str] = []
        for level in levels:
            one = by[f, level]
            known = np.isfinite(one.beta)
            cells += [beta_text(one.beta), _lag(one.lag), f"{one.lag * f:.2f}"] if known else ["-"] * 3
        lines.append([f"{f:g}", *cells])
    return narrowed(lines, group=3)


def _lag(samples: float) -> str:
    return f"{samples:.3g}" if samples >= 1e7 else f"{samples:,.{1 if samples < 100.0 else 0}f}"
