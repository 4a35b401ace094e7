"""A state kept in fewer bytes: the library's own steps in float64, after each rounded as it is stored."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators import EMA
from experiments.streams import Array

DOUBLE, SINGLE, BRAIN = 53, 24, 8
"""Bits of the significand, the leading one among them, of float64, float32 and bfloat16."""
BLOCK = 256
"""Steps for which chance is drawn at a time."""


@dataclass(frozen=True)
class Storage:
    """How a number of the state is kept between two samples.

    bits of the significand; parts: 1, or 2 for the rounded number and, rounded again, what was lost; chance:
    stochastic rounding, up or down so that none is lost on average, in place of to the nearest.
    """

    name: str
    bytes: int
    bits: int
    parts: int = 1
    chance: bool = False

    def kept(self, values: Array, chance: Any = None) -> Array:
        """The values as they come back, in float64; chance: uniform below 2^45, for bfloat16.

        For 0 and magnitudes from 1e-28 to 1e38; NaN is kept.
        """
        if self.bits == DOUBLE:
            return values
        rounded = self._rounded(values, chance)
        return rounded if self.parts == 1 else rounded + self._rounded(values - rounded, chance)

    def _rounded(self, values: Array, chance: Any) -> Array:
        if self.bits == SINGLE:
            return values.astype(np.float32).astype(np.float64)
        bits = values.view(np.uint64)
        # To the nearest, ties to even: half of the last bit kept less one, and one if that bit is set.
        add = chance if self.chance else _HALF + ((bits >> _DROPPED) & _ONE)
        return ((bits + add) & _KEPT).view(np.float64)

    def spacing(self, kept: Any) -> Array:
        """Distance from values as they are kept to the next that can be kept, away from 0."""
        last = np.asarray(kept, dtype=np.float64)
        if self.parts == 2:
            last = last - self._rounded(last, None)
        exponent = np.frexp(last)[1]
        return np.where(last == 0.0, 0.0, np.ldexp(1.0, exponent - self.bits))


_DROPPED, _ONE = np.uint64(DOUBLE - BRAIN), np.uint64(1)
_HALF = np.uint64(2 ** (DOUBLE - BRAIN - 1) - 1)
_KEPT = np.uint64(2**64 - 2 ** (DOUBLE - BRAIN))

STORAGES = (
    Storage("float64", 8, DOUBLE),
    Storage("float32", 4, SINGLE),
    Storage("bfloat16", 2, BRAIN),
    Storage("bfloat16, stochastic rounding", 2, BRAIN, chance=True),
    Storage("2 x bfloat16", 4, BRAIN, parts=2),
    Storage("2 x float32", 8, SINGLE, parts=2),
)


def chances(shape: tuple[int, ...], root_seed: int, name: str) -> Iterator[NDArray[np.uint64]]:
    """What stochastic rounding needs at each step, of a shape whose last axis is the repetition.

    A repetition's numbers are the same however many stand beside it.
    """
    keys = (zlib.crc32(b"rounding by chance"), zlib.crc32(name.encode()))
    generators = [
        np.random.Generator(np.random.SFC64(np.random.SeedSequence([root_seed, *keys, repetition])))
        for repetition in range(shape[-1])
    ]
    high = 2 ** (DOUBLE - BRAIN)
    while True:
        drawn = [one.integers(0, high, (BLOCK, *shape[:-1]), np.uint64) for one in generators]
        yield from np.stack(drawn, axis=-1)


def stored(
    estimator: Any,
    like: Array,
    samples: Iterable[Array],
    root_seed: int = 0,
    storages: Sequence[Storage] = STORAGES,
) -> Iterator[Array]:
    """The mean after each sample by each storage, shape (storages, *channels), of the estimator's own update.

    samples: T of shape (*channels), that of ``like``, the last axis the repetition; with as many axes as the
    parameters have, or more.
    What is yielded is overwritten at the next sample.
    """
    start = estimator.init(np.zeros((len(storages), *np.shape(like))))
    shape = start.mean.shape
    chance = chances(shape[1:], root_seed, type(estimator).__name__)
    by_chance = any(storage.chance for storage in storages)

    def keep(state: Any) -> None:
        drawn = next(chance) if by_chance else None
        for values in state:
            for own, storage in zip(values, storages, strict=True):
                if storage.bits != DOUBLE:
                    own[...] = storage.kept(own, drawn)

    state = type(start)(*(np.array(np.broadcast_to(values, shape)) for values in start))
    keep(state)
    for sample in samples:
        state = estimator.update(state, np.broadcast_to(sample, shape), out=state)
        keep(state)
        yield state.mean


def stall(beta: Any, storage: Storage, mean: float) -> Array:
    """Largest distance of a sample at which a stored mean stays where it is: half a spacing over 1 - beta."""
    half: Array = 0.5 * storage.spacing(storage.kept(np.array([mean]))) / (1.0 - np.asarray(beta))
    return half


def measured_stall(beta: Any, storage: Storage, mean: float, steps: int = 60) -> Array:
    """The same by bisection, through the EMA's own update; not of stochastic rounding, which never stalls."""
    betas = np.asarray(beta, dtype=np.float64)
    ema, held = EMA(betas), np.broadcast_to(storage.kept(np.array([mean])), betas.shape)
    low, high = np.zeros(betas.shape), 4.0 * stall(betas, storage, mean)
    for _ in range(steps):
        distance = 0.5 * (low + high)
        moved = np.asarray(ema.update(EMA.State(held), held + np.sign(held) * distance).mean)
        stays = storage.kept(moved) == held
        low, high = np.where(stays, distance, low), np.where(stays, high, distance)
    return low
