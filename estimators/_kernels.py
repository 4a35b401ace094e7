"""The compiled loops: the only module that knows numba, itself imported when the first stream is filtered."""

from __future__ import annotations

import functools
import hashlib
import inspect
import pickle
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, njit
from numba.core.errors import TypingError
from numba.extending import overload, register_jitable
from numba.np.unsafe import ndarray

from estimators import _arithmetic

toward = register_jitable(_arithmetic.toward)


def _as_tuple(array: Any, length: int) -> tuple[Any, ...]:
    return tuple(array[:length])


# The one way that numba has to make a tuple of a length known when compiling; it is not public.
to_fixed_tuple: Callable[..., Any] = (
    _as_tuple if getattr(config, "DISABLE_JIT", 0) else ndarray.to_fixed_tuple
)


@overload(_arithmetic.where)
def _where(condition, chosen, otherwise):  # type: ignore[no-untyped-def]
    return lambda condition, chosen, otherwise: chosen if condition else otherwise


@register_jitable
def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """Return a rounded sum and the error of its rounding; Knuth (1997), vol. 2, section 4.2.2, theorem B."""
    total = a + b
    back = total - a
    return total, (a - (total - back)) + (b - back)


def _compile(function: Callable[..., Any], cache: bool = True) -> Callable[..., Any]:
    """Compile a loop, through the cache on disk where that can be used; TypeError if it cannot be."""
    # Strict IEEE arithmetic: a compiled stream and a step in plain Python give the same bits.
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        loops = [njit(function, cache=cache, **settings)]
    except RuntimeError:  # no folder can be written, neither beside the source nor the user's cache
        loops = [njit(function, **settings)]

    def call(*arguments: Any) -> None:
        try:
            loops[0](*arguments)
        except (OSError, EOFError, pickle.UnpicklingError):  # the cache is full, unreadable or damaged
            loops[0] = njit(function, **settings)
            loops[0](*arguments)
        except TypingError as error:
            problem = str(error).strip().splitlines()[-1]
            raise TypeError(
                f"predict and correct use what cannot be compiled ({problem}); they may use arithmetic, "
                f"where, toward and functions under numba.extending.register_jitable"
            ) from error

    return call


class _OpaqueError(Exception):
    """A value that a loop inlines and no digest can stand for."""


def _fingerprint(*functions: Callable[..., Any]) -> str | None:
    """Digest of all that a loop inlines, None where something in it has none.

    numba's cache looks at the loop's own file only. Digested are the code of the functions, their defaults
    and the values of the globals that they name, functions and attributes of modules among them.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()

    def add_code(code: types.CodeType) -> None:
        names = code.co_names, code.co_varnames, code.co_freevars
        digest.update(code.co_code + repr(names).encode())
        for constant in code.co_consts:
            add(constant)

    def add_function(function: Any) -> None:
        if id(function.__code__) in seen:
            return
        seen.add(id(function.__code__))
        add_code(function.__code__)
        add(function.__defaults__)
        add(tuple(sorted((function.__kwdefaults__ or {}).items())))
        scope = inspect.getclosurevars(function)
        for name, value in sorted({**scope.globals, **scope.nonlocals}.items()):
            digest.update(name.encode())
            if isinstance(value, types.ModuleType):
                for attribute in sorted({*function.__code__.co_names} & {*dir(value)}):
                    digest.update(attribute.encode())
                    add(getattr(value, attribute))
            else:
                add(value)

    def add(value: Any) -> None:
        value = getattr(value, "py_func", value)
        if isinstance(value, types.CodeType):
            add_code(value)
        elif isinstance(value, types.FunctionType):
            add_function(value)
        elif isinstance(value, (tuple, frozenset)):
            for item in sorted(value, key=repr) if isinstance(value, frozenset) else value:
                add(item)
        elif isinstance(value, (np.ndarray, np.generic)):
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), type(...))):
            digest.update(repr(value).encode())
        elif callable(value) and getattr(value, "__module__", None) is not None:  # compiled code of a library
            digest.update(f"{value.__module__}.{getattr(value, '__name__', repr(value))}".encode())
        else:
            raise _OpaqueError

    try:
        for function in functions:
            add_function(function)
    except _OpaqueError:
        return None
    return digest.hexdigest()


_compiled_as: dict[tuple[Callable[..., Any], Callable[..., Any]], str | None] = {}


def recursion(
    predict: Callable[..., Any], correct: Callable[..., Any], state_type: type, coefficients_type: type
) -> Callable[..., None]:
    """Return the whole-stream loop of one recursive estimator.

    loop(samples (T, C), coefficients (K, C), state (F, C), mean (T, C), variance (T, C) or (0, 0),
    gain (T, C)) writes its last three arguments and leaves the last state in ``state``.
    """
    fingerprint = _fingerprint(predict, correct)
    # What is compiled keeps the globals of its time: a step whose globals changed since runs as plain Python.
    fresh = _compiled_as.setdefault((predict, correct), fingerprint) == fingerprint
    return _recursion(predict, correct, state_type, coefficients_type, fingerprint, fresh)


@functools.cache
def _recursion(
    predict: Callable[..., Any],
    correct: Callable[..., Any],
    state_type: type,
    coefficients_type: type,
    fingerprint: str | None,
    fresh: bool,
) -> Callable[..., None]:
    names = state_type._fields  # type: ignore[attr-defined]
    fields, arguments = len(names), len(coefficients_type._fields)  # type: ignore[attr-defined]
    variance_field = names.index("variance") if "variance" in names else -1
    if fresh:
        predict, correct = register_jitable(predict), register_jitable(correct)

    def loop(samples: Any, coefficients: Any, state: Any, mean: Any, variance: Any, gain: Any) -> None:
        fingerprint  # noqa: B018  a captured value is part of the key under which numba caches
        for t in range(samples.shape[0]):
            for c in range(samples.shape[1]):
                given = coefficients_type(*to_fixed_tuple(coefficients[:, c], arguments))
                current = predict(given, state_type(*to_fixed_tuple(state[:, c], fields)))
                sample = samples[t, c]
                moved = 0.0
                if sample == sample:
                    current, moved = correct(given, current, sample)
                for k in range(fields):
                    state[k, c] = current[k]
                mean[t, c] = current[0]
                state[0, c] = mean[t, c]  # a mean kept in float32 is rounded at every step
                gain[t, c] = moved
                if variance_field >= 0:
                    variance[t, c] = current[variance_field]

    if not fresh:
        plain = {**loop.__globals__, "to_fixed_tuple": _as_tuple}
        return types.FunctionType(loop.__code__, plain, closure=loop.__closure__)
    # Only what another process finds by its name, and all that it inlines by value, is recognised there.
    found_again = fingerprint is not None and not any(
        step.__module__ in ("__main__", "__mp_main__") or "<locals>" in step.__qualname__
        for step in (predict, correct)
    )
    return _compile(loop, cache=found_again)


@functools.cache
def replay() -> Callable[..., None]:
    """Compile the replay of recorded gains: loop(gain (T, C), z (T, C), start (C,), mean (T, C))."""
    fingerprint = _fingerprint(_arithmetic.toward)

    def loop(gain: Any, z: Any, start: Any, mean: Any) -> None:
        fingerprint  # noqa: B018
        for t in range(gain.shape[0]):
            for c in range(gain.shape[1]):
                if gain[t, c] != 0.0:
                    start[c] = toward(start[c], z[t, c], gain[t, c])
                mean[t, c] = start[c]

    return _compile(loop)


@functools.cache
def squared_weights() -> Callable[..., None]:
    """Compile the sum of squared weights behind every mean: loop(gain (T, C), power (T, C))."""

    def loop(gain: Any, power: Any) -> None:
        for c in range(gain.shape[1]):
            current = 0.0
            for t in range(gain.shape[0]):
                moved = gain[t, c]
                current = (1.0 - moved) * (1.0 - moved) * current + moved * moved
                power[t, c] = current

    return _compile(loop)


@functools.cache
def smoother() -> Callable[..., None]:
    """Compile the backward pass on a filtered random walk: loop(q (C,), mean (T, C), variance (T, C)).

    Overwrites filtered moments with smoothed ones. Rauch, Tung, Striebel (1965), AIAA J. 3, eqs. 3.29-3.31,
    with J = P / (P + q) and the variance as J q + J^2 P[t+1], whose limit for an infinite P is exact.
    """
    fingerprint = _fingerprint(_arithmetic.toward)

    def loop(q: Any, mean: Any, variance: Any) -> None:
        fingerprint  # noqa: B018
        for t in range(mean.shape[0] - 2, -1, -1):
            for c in range(mean.shape[1]):
                filtered, moved = variance[t, c], q[c]
                if filtered == np.inf:  # nothing is known from before: the level is the next one, less a step
                    back, between = 1.0, moved
                elif moved == 0.0:
                    back, between = 1.0, 0.0
                else:
                    back = filtered / (filtered + moved)
                    between = filtered * (moved / (filtered + moved))
                mean[t, c] = toward(mean[t, c], mean[t + 1, c], back)
                variance[t, c] = between + back * back * variance[t + 1, c]

    return _compile(loop)


@functools.cache
def windowed_mean() -> Callable[..., None]:
    """Compile means over sliding windows: loop(window, y (N + T, C), mean (T, C), present (T, C)).

    Row t averages what is present in y[t+1 : t+1+N] and counts it; an empty window holds the last mean.
    A window is the tail of one block of N samples and the head of the next, so a sample that has left
    takes no part in any later sum; both sums carry their rounding error.
    """

    def loop(window: int, y: Any, mean: Any, present: Any) -> None:
        tail = np.zeros(window + 1)
        tail_error = np.zeros(window + 1)
        tail_count = np.zeros(window + 1)
        for c in range(mean.shape[1]):
            last = mean[0, c] if mean.shape[0] > 0 else 0.0  # the caller leaves the held mean here
            head = head_error = head_count = 0.0
            for t in range(mean.shape[0]):
                j = (t + 1) % window
                if t == 0 or j == 0:
                    block = (t + 1) // window * window
                    for k in range(window - 1, -1, -1):
                        value = y[block + k, c]
                        is_present = value == value
                        tail[k], rounded = two_sum(tail[k + 1], value if is_present else 0.0)
                        tail_error[k] = tail_error[k + 1] + rounded
                        tail_count[k] = tail_count[k + 1] + is_present
                    head = head_error = head_count = 0.0
                newest = y[t + window, c]
                if j > 0 and newest == newest:
                    head, rounded = two_sum(head, newest)
                    head_error += rounded
                    head_count += 1.0
                present[t, c] = tail_count[j] + head_count
                if present[t, c] > 0.0:
                    total, rounded = two_sum(tail[j], head)
                    last = (total + (rounded + (tail_error[j] + head_error))) / present[t, c]
                mean[t, c] = last

    return _compile(loop)
