"""States and coefficients inside compiled loops: tuples of rows, taken and put one channel at a time.

Each function is written twice, as plain Python for loops that run uncompiled and as what numba compiles: a
tuple's length is known to it only when compiling, so each recursion over a tuple is unrolled by its overload.
Tuples are put together by ``+``: numba does not read ``(first, *rest)`` where one is made more than once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload, register_jitable


def at(value: Any, c: Any) -> Any:
    """Element c of an array, of each array of a tuple; a number stands for all channels."""
    if isinstance(value, tuple):
        return tuple(at(item, c) for item in value)
    return value[c] if isinstance(value, np.ndarray) else value


@overload(at)
def _at(value, c):  # type: ignore[no-untyped-def]
    if isinstance(value, types.BaseTuple):
        if len(value) == 0:
            return lambda value, c: ()
        return lambda value, c: (at(value[0], c),) + at(value[1:], c)
    if isinstance(value, types.Array):
        return lambda value, c: value[c]
    return lambda value, c: value


def during(value: Any, t: Any) -> Any:
    """Row t of an array (T, C), of each of a tuple; what does not change in time as it is."""
    if isinstance(value, tuple):
        return tuple(during(item, t) for item in value)
    return value[t] if isinstance(value, np.ndarray) and value.ndim == 2 else value


@overload(during)
def _during(value, t):  # type: ignore[no-untyped-def]
    if isinstance(value, types.BaseTuple):
        if len(value) == 0:
            return lambda value, t: ()
        return lambda value, t: (during(value[0], t),) + during(value[1:], t)
    if isinstance(value, types.Array) and value.ndim == 2:
        return lambda value, t: value[t]
    return lambda value, t: value


def put(arrays: Any, c: Any, values: Any) -> None:
    """Write element c of each array of a tuple."""
    for array, value in zip(arrays, values, strict=True):
        array[c] = value


@overload(put)
def _put(arrays, c, values):  # type: ignore[no-untyped-def]
    if len(arrays) == 0:
        return lambda arrays, c, values: None

    def code(arrays, c, values):  # type: ignore[no-untyped-def]
        arrays[0][c] = values[0]
        put(arrays[1:], c, values[1:])

    return code


def choose(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose between two tuples field by field, so that a loop over channels needs no branch."""
    return chosen if condition else otherwise


@overload(choose)
def _choose(condition, chosen, otherwise):  # type: ignore[no-untyped-def]
    if len(chosen) == 0:
        return lambda condition, chosen, otherwise: ()

    def code(condition, chosen, otherwise):  # type: ignore[no-untyped-def]
        first = chosen[0] if condition else otherwise[0]
        return (first,) + choose(condition, chosen[1:], otherwise[1:])

    return code


def leading(values: Any, pattern: Any) -> Any:
    """As many of a tuple's first values as another tuple has."""
    return tuple(values[: len(pattern)])


@overload(leading)
def _leading(values, pattern):  # type: ignore[no-untyped-def]
    if len(pattern) == 0:
        return lambda values, pattern: ()
    return lambda values, pattern: (values[0],) + leading(values[1:], pattern[1:])


def behind(values: Any, pattern: Any) -> Any:
    """What of a tuple lies behind as many values as another tuple has."""
    return tuple(values[len(pattern) :])


@overload(behind)
def _behind(values, pattern):  # type: ignore[no-untyped-def]
    if len(pattern) == 0:
        return lambda values, pattern: values
    return lambda values, pattern: behind(values[1:], pattern[1:])


def equal(these: Any, those: Any) -> Any:
    """Whether two tuples of numbers are the same."""
    return these == those


@overload(equal)
def _equal(these, those):  # type: ignore[no-untyped-def]
    if len(these) == 0:
        return lambda these, those: True
    return lambda these, those: (these[0] == those[0]) & equal(these[1:], those[1:])


def between(value: Any, low: Any, high: Any) -> Any:
    """Channels low to high of an array (T, C) or (C,), of each array of a tuple; a number as it is."""
    if isinstance(value, tuple):
        return tuple(between(item, low, high) for item in value)
    return value[..., low:high] if isinstance(value, np.ndarray) else value


@overload(between)
def _between(value, low, high):  # type: ignore[no-untyped-def]
    if isinstance(value, types.BaseTuple):
        if len(value) == 0:
            return lambda value, low, high: ()
        return lambda value, low, high: (between(value[0], low, high),) + between(value[1:], low, high)
    if isinstance(value, types.Array):
        return lambda value, low, high: value[..., low:high]
    return lambda value, low, high: value


def copied(arrays: Any) -> Any:
    """A copy of each array of a tuple."""
    return tuple(array.copy() for array in arrays)


@overload(copied)
def _copied(arrays):  # type: ignore[no-untyped-def]
    if len(arrays) == 0:
        return lambda arrays: ()
    return lambda arrays: (arrays[0].copy(),) + copied(arrays[1:])


def cell(values: Any, t: Any, c: Any) -> Any:
    """Value at time t of channel c, or the one for all channels."""
    return values[t] if values.ndim == 1 else values[t, c]


@overload(cell)
def _cell(values, t, c):  # type: ignore[no-untyped-def]
    if values.ndim == 1:
        return lambda values, t, c: values[t]
    return lambda values, t, c: values[t, c]


def kept(array: Any, value: Any) -> Any:
    """The number that an array keeps of another: rounded where it holds float32."""
    return float(array.dtype.type(value))


@overload(kept)
def _kept(array, value):  # type: ignore[no-untyped-def]
    if array.dtype == types.float32:
        return lambda array, value: np.float64(np.float32(value))
    return lambda array, value: value


def note(array: Any, c: Any, value: Any) -> None:
    """Write where there is an array to write to."""
    if array is not None:
        array[c] = value


@overload(note)
def _note(array, c, value):  # type: ignore[no-untyped-def]
    if isinstance(array, types.NoneType):
        return lambda array, c, value: None

    def code(array, c, value):  # type: ignore[no-untyped-def]
        array[c] = value

    return code


def notes(arrays: Any, c: Any, values: Any) -> None:
    """Write each value of a tuple where there is an array to write to."""
    for array, value in zip(arrays, values, strict=True):
        note(array, c, value)


@overload(notes)
def _notes(arrays, c, values):  # type: ignore[no-untyped-def]
    if len(arrays) == 0:
        return lambda arrays, c, values: None

    def code(arrays, c, values):  # type: ignore[no-untyped-def]
        note(arrays[0], c, values[0])
        notes(arrays[1:], c, values[1:])

    return code


@register_jitable
def beyond(values: Any, limit: Any) -> Any:
    """How many values have a magnitude of ``limit`` or more."""
    count = 0
    for i in range(values.shape[0]):
        count += abs(values[i]) >= limit
    return count
