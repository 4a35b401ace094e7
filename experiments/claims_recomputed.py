"""What a quantity is that texts state: its words, the numbers that they give, and how it is recomputed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from estimators import EMA
from experiments.claims_stated import Claim, Verdict, shown
from experiments.streams import Array

LONGEST = 1_000_000
"""Samples of a response that are looked at."""
TEXTS = ("library",)
"""Parameters that are no numbers."""
COUNTS = ("n", "warmup")
"""Parameters that are whole numbers."""
NUMBER = r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?"
_GIVEN = re.compile(rf"{NUMBER}|[-+]?\.\d+(?:e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


class Recomputed(NamedTuple):
    """A quantity as the library has it."""

    values: Array
    """One for each figure that is stated; where it is simulated, one for each repetition."""
    also: str = ""
    """What else was computed, by which a reader can tell what the stated figure is."""
    simulated: bool = False


@dataclass(frozen=True)
class Given:
    """What a claim gives to recompute it from: numbers by name, samples, the row itself, and seeds."""

    claim: Claim
    numbers: Mapping[str, float]
    samples: Array
    repetitions: int = 1
    root_seed: int = 0

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    @property
    def ema(self) -> EMA:
        """The EMA of the given beta, from zero."""
        return EMA(self["beta"])

    @property
    def stated(self) -> float:
        """The one figure that is stated."""
        return self.claim.figures[0].value

    def misses(self, value: float) -> bool:
        """Whether a number is not what is stated, by its digits."""
        return self.claim.figures[0].verdict(value) is Verdict.WRONG

    def windowed(self, most: int = LONGEST) -> int:
        """Effective window, samples, rounded; ValueError where it is longer than is looked at."""
        window = round(float(self.ema.effective_window))
        if window > most:
            raise ValueError(
                f"beta={self['beta']!r} is not valid; its effective window must be {most:,} samples or less"
            )
        return window

    @property
    def n(self) -> int:
        """The given number of samples, or index."""
        return round(self["n"])


@dataclass(frozen=True)
class Quantity:
    """A quantity: how it is worded, what the library computes for it, and how.

    wordings: with the numbers that the words give in braces, ``{samples}`` for several; names: of the numbers
    that it needs, from its words or the parameters; units: that it may have; means: parameters that the words
    settle; needs: packages without which it is not, or not in full, recomputed.

    analogue: on what it is measured instead, where the source's own data, ``lacks``, are not here; general:
    whether the words speak of any data, so that the analogue can refute them; it confirms nothing either way.
    """

    wordings: tuple[str, ...]
    formula: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    compute: Callable[[Given], Recomputed]
    means: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    analogue: str = ""
    lacks: str = ""
    general: bool = False

    def says(self, wording: str) -> dict[str, str] | None:
        """The numbers, by name, in words that mean this quantity; None for other words."""
        for pattern in self.wordings:
            found = re.fullmatch(_pattern(pattern), wording, re.ASCII)
            if found:
                return dict(self.means) | found.groupdict()
        return None

    def given(self, claim: Claim) -> Given:
        """What a claim gives; ValueError for what is missing, not valid, of no use, or against its words."""
        _ = claim.figures
        said = self.says(claim.quantity) or {}
        samples = np.array([_number("samples", text) for text in said.pop("samples", "").split()])
        if samples.size and "n" in self.names:
            said["n"] = str(samples.size)
        for name, text in claim.named.items():
            if name not in (*self.names, *said):
                valid = " and ".join(self.names) or "none"
                raise ValueError(
                    f"parameters give {shown(f'{name}={text}')[1:-1]}, of which it has no use; valid: {valid}"
                )
            same = text == said.get(name, text) or (
                name not in TEXTS and _number(name, text) == float(said[name])
            )
            if not same:
                given, words = (shown(one)[1:-1] for one in (f"{name}={text}", said[name]))
                raise ValueError(f"parameters give {given}, its quantity says {words}")
        texts = claim.named | said
        for name in self.names:
            if name not in texts:
                raise ValueError(
                    f"parameters={shown(claim.parameters)} is not valid; it must give {name}=NUMBER"
                )
        if claim.unit not in self.units:
            raise ValueError(f"unit={shown(claim.unit)} is not valid; it must be {' or '.join(self.units)}")
        numbers = {name: _number(name, text) for name, text in texts.items() if name not in TEXTS}
        for name in COUNTS:
            number = numbers.get(name, 0.0)
            if not (number.is_integer() and 0.0 <= number <= LONGEST):
                raise ValueError(
                    f"{name}={shown(texts[name])[1:-1]} is not valid; it must be an int from 0 to {LONGEST:,}"
                )
        if not 0.0 <= numbers.get("f", 0.0) <= 0.5:
            raise ValueError(
                f"f={shown(texts['f'])[1:-1]} is not valid; it must be from 0 to 0.5 cycles/sample"
            )
        return Given(claim, numbers, samples)


def _pattern(wording: str) -> str:
    """A pattern of words in which each name in braces is a number."""
    seen: set[str] = set()

    def group(name: re.Match[str]) -> str:
        if name[1] in seen:
            return f"(?P={name[1]})"
        seen.add(name[1])
        return f"(?P<{name[1]}>{NUMBER}{f'(?: {NUMBER})*' * (name[1] == 'samples')})"

    return re.sub(r"\\{(\w+)\\}", group, re.escape(wording))


def _number(name: str, text: str) -> float:
    number = float(text) if _GIVEN.fullmatch(text) else np.nan
    if not np.isfinite(number):
        raise ValueError(f"{name}={shown(text)} is not valid; it must be a finite number")
    return number
