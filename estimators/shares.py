"""Shares of K tasks on the simplex: rules by the norms of their gradients, and floors for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float64]

LEAST = 1e-300
"""Of a share: a ratio of norms beyond all floats would leave 0, which has no logarithm."""


def by_inverse_norm(norms: Shares) -> Shares:
    """1/n over the sum of all 1/n: then every share times its norm is the same."""
    # Relative to the least norm, as 1/n of the smallest floats overflows.
    ratio = norms.min() / norms
    shares: Shares = ratio / ratio.sum()
    return shares


def by_sum_of_others(norms: Shares) -> Shares:
    """(S - n) / ((K - 1) S), S the sum of all norms; of one task alone, 1."""
    if norms.size == 1:
        return np.ones(1)
    relative = norms / norms.max()
    others = (1.0 - np.eye(norms.size)) @ relative  # summed, as S - n cancels where n is nearly all of S
    shared: Shares = others / ((norms.size - 1) * relative.sum())
    return shared


RULES = {"inverse_norm": by_inverse_norm, "sum_of_others": by_sum_of_others}


def split(norms: Shares, held: Shares, rule: Any) -> Shares:
    """Shares of the tasks whose norms are there, of what the others (NaN) do not hold; NaN for these."""
    there = ~np.isnan(norms)
    shares = np.full(norms.shape, np.nan)
    if there.any():
        free = 1.0 - held[~there].sum()
        shares[there] = np.maximum(free * rule(norms[there]), LEAST)
    return shares


def simplex(values: Shares) -> Shares:
    """Values, negative ones taken for 0, over their sum; equal shares where nothing is left."""
    kept = np.maximum(values, 0.0)
    total = kept.sum()
    return kept / total if total > 0.0 else np.full(values.shape, 1.0 / values.size)


def clipped(shares: Shares, floor: float) -> Shares:
    """max(w, floor) over the sum, (..., K): each is at least floor / (1 + (K - 1) floor)."""
    raised = np.maximum(shares, floor)
    bounded: Shares = raised / raised.sum(axis=-1, keepdims=True)
    return bounded


def projected(shares: Shares, floor: float) -> Shares:
    """Shares >= floor nearest in relative entropy: those above it keep their ratios and pay for the rest."""
    low = np.zeros(shares.shape, bool)
    while True:
        rest = 1.0 - floor * np.count_nonzero(low)
        scaled = np.where(low, floor, shares * (rest / shares[~low].sum()))
        below = scaled < floor
        if not below.any():
            return scaled
        low |= below
        if low.all():  # by rounding, a floor being next to 1/K
            return np.full(shares.shape, 1.0 / shares.size)


FLOORS = {"clip": clipped, "project": projected}
