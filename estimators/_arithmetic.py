"""Arithmetic that reads the same on Python floats, NumPy arrays and inside compiled loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition, elementwise on arrays and without evaluating NumPy on plain floats."""
    if isinstance(condition, (np.ndarray, np.generic)):
        return np.where(condition, chosen, otherwise)
    if hasattr(condition, "_where_"):  # a recursion is being traced: there are no numbers yet
        return condition._where_(chosen, otherwise)
    return chosen if condition else otherwise


def sqrt(value: Any) -> Any:
    """Square root of values >= 0."""
    return np.sqrt(value) if isinstance(value, (np.ndarray, np.generic)) else _of_one(value, "sqrt")


def exp(value: Any) -> Any:
    """Exponential, infinite where it overflows."""
    return np.exp(value) if isinstance(value, (np.ndarray, np.generic)) else _of_one(value, "exp")


def log(value: Any) -> Any:
    """Natural logarithm of values >= 0, minus infinity at 0."""
    return np.log(value) if isinstance(value, (np.ndarray, np.generic)) else _of_one(value, "log")


def _of_one(value: Any, function: str) -> Any:
    if hasattr(value, "_call_"):
        return value._call_(function)
    if function == "log" and value == 0.0:
        return -math.inf
    try:
        return getattr(math, function)(value)
    except OverflowError:
        return math.inf


def toward(mean: Any, sample: Any, gain: Any) -> Any:
    """Move a mean towards a sample: mean + gain * (sample - mean), the one line all recursions share.

    A gain of one forgets: the mean becomes the sample exactly, even where there was no mean (NaN) before.
    """
    return where(gain == 1.0, sample, mean + gain * (sample - mean))
