"""Arithmetic that reads the same on Python floats, on arrays of any library and inside compiled loops."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition, elementwise on arrays and without evaluating NumPy on plain floats."""
    library = library_of(type(condition)) or library_of(type(chosen)) or library_of(type(otherwise))
    if library is not None:
        return library.where(condition, chosen, otherwise)
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
    library = library_of(type(value))
    if library is not None:
        return getattr(library, function)(value)
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
    library = library_of(type(sample)) or library_of(type(mean))
    by_library = getattr(library, "toward", moved)
    return by_library(mean, sample, gain)


def moved(mean: Any, sample: Any, gain: Any) -> Any:
    """Move as ``toward`` does, by plain arithmetic, where a library has no quicker way."""
    return where(gain == 1.0, sample, mean + gain * (sample - mean))


def pooled(value: Any) -> Any:
    """Mean over channels that learn together (``_pooled``); each its own where they do not."""
    library = library_of(type(value))
    return library.pooled(value) if hasattr(library, "pooled") else value


def evidence(value: Any) -> Any:
    """What channels that learn together say in all; each its own where they do not."""
    library = library_of(type(value))
    return library.evidence(value) if hasattr(library, "evidence") else value


def _library_of(kind: type) -> Any:
    """Functions of this module for values of a type of another array library; None for all other types.

    They are in ``estimators.torch`` for tensors, in ``estimators.jax`` for JAX arrays and for what stands in
    for one while a function is traced; a type may name its own as ``_library_``.
    """
    own = getattr(kind, "_library_", None)
    if own is not None:
        return own
    home = home_of(kind)
    return importlib.import_module(f"estimators.{home}._arithmetic") if home else None


library_of: Callable[[type], Any] = functools.cache(_library_of)


def home_of(kind: type) -> str | None:
    """Package of ours for values of a type of another array library; None for all other types."""
    return {"torch": "torch", "jax": "jax", "jaxlib": "jax"}.get(kind.__module__.partition(".")[0])
