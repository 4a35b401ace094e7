"""Weights of two tasks from equal shares to their own: smoothed, floored, and when they exceed a level."""

from __future__ import annotations

import numpy as np

from estimators import Estimator
from estimators._parameters import FROM_0_TO_1, Range, one, whole
from estimators.shares import clipped
from experiments.streams import Array

EQUAL = 0.5
"""Weight of each of two tasks during the warm-up."""
FLOOR = Range("in [0, 1/2)", lambda v: (v >= 0) & (v < EQUAL))
SAME = 1e-9
"""Within which weights are the same."""
STARTS = {True: "fed the warm-up", False: "from the jump"}
"""Where a smoother begins."""


def shares(
    estimator: Estimator, raw: float = 0.998, warmup: int = 100, steps: int = 1000, floor: float = 0.0
) -> Array:
    """Weight of the large share at steps 1 to warmup + steps (index 0 is step 1), shape (warmup + steps,).

    During the warm-up the weight is 1/2, and the smoother is fed with that; then it is the smoother's mean of
    the raw share, and, where floor > 0, max(w, floor) of both weights over their sum. Raises ValueError for
    raw outside [0, 1], warmup < 0, steps < 1, and a floor outside [0, 1/2).
    """
    share, lowest = one("shares", "raw", raw, FROM_0_TO_1), one("shares", "floor", floor, FLOOR)
    before, after = whole("shares", "warmup", warmup, 0), whole("shares", "steps", steps, 1)
    weights = smoothed(estimator, np.full(after, share), before)
    return floored(weights, lowest) if lowest else weights


def steps_to(weights: Array, level: float, warmup: int = 100) -> float:
    """Steps after the jump until a weight, (warmup + steps,), first exceeds a level; NaN if it never does."""
    above = np.asarray(weights)[warmup:] > level
    return float(np.argmax(above)) + 1.0 if above.any() else np.nan


def smoothed(estimator: Estimator, raw: Array, warmup: int) -> Array:
    """Weights before the floor, (warmup + steps, ...), of raw ones (steps, ...)."""
    fed = np.concatenate([np.full((warmup, *raw.shape[1:]), EQUAL), raw])
    weights = np.array(estimator.filter(fed).mean, dtype=np.float64)
    weights[:warmup] = EQUAL
    return weights


def floored(large: Array, floor: float) -> Array:
    """Large shares of pairs, (...), each pair by the floor and its renormalisation."""
    kept: Array = clipped(np.stack([large, 1.0 - large], axis=-1), floor)[..., 0]
    return kept


def limit(raw: float, floor: float) -> float:
    """Weight that a settled smoother of a raw one has; floor 0 for none."""
    return float(floored(np.array([raw]), floor)[0]) if floor else raw


def exceeded(weights: Array, level: float, warmup: int, most: float) -> float:
    """Steps as `steps_to`, of weights whose limit is ``most``: a level there or above it takes more than
    rounding to exceed.
    """
    return steps_to(weights, level + SAME if level >= most else level, warmup)


def binding(beta: float, raw: float, floor: float) -> float:
    """Steps until an EMA that starts at equal shares leaves the small one below the floor; NaN for never.

    The small share is 1 - raw + (raw - 1/2) beta^n.
    """
    small = 1.0 - raw
    if small >= floor:
        return np.nan
    return float(np.floor(np.log((floor - small) / (EQUAL - small)) / np.log(beta)) + 1.0)


# --- names --------------------------------------------------------------------------------------------------


def course_name(fed: bool, floor: float) -> str:
    """Name of a course by its start and floor."""
    return f"{STARTS[fed]}, {f'floor {floor:g}' if floor else 'no floor'}"


def noise_name(ratio: float) -> str:
    """Name of the noisy raw weights whose ratio has this median."""
    return f"noise, ratio {ratio:g}"


def arrival(level: float) -> str:
    """Name of the metric of a level."""
    return f"steps_to_{level:g}"
