"""Compiles loops with numba and caches them on disk, under a digest of all that they inline."""

from __future__ import annotations

import hashlib
import inspect
import pickle
import types
from collections.abc import Callable
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
from numba import config, njit
from numba.core.errors import TypingError
from numba.extending import register_jitable

from estimators import _arithmetic as arithmetic

DISABLED = bool(getattr(config, "DISABLE_JIT", 0))
"""Whether numba was told to run everything as plain Python."""


def compiled(function: Callable[..., Any], cache: bool = True) -> Callable[..., Any]:
    """Compile a loop, through the cache on disk where that can be used; TypeError if it cannot be."""
    # Strict IEEE arithmetic: a compiled stream and a step in plain Python give the same bits.
    settings: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        loops = [njit(function, cache=cache, **settings)]
    except RuntimeError:  # no folder can be written, neither beside the source nor the user's cache
        loops = [njit(function, **settings)]

    def call(*arguments: Any) -> Any:
        try:
            return loops[0](*arguments)
        except (OSError, EOFError, pickle.UnpicklingError):  # the cache is full, unreadable or damaged
            loops[0] = njit(function, **settings)
            return loops[0](*arguments)
        except TypingError as error:
            problem = str(error).strip().splitlines()[-1]
            raise TypeError(
                f"predict and correct use what cannot be compiled ({problem}); they may use arithmetic, "
                f"where, toward, sqrt, exp, log and functions of these"
            ) from error

    return call


_REGISTERED: set[Any] = set()
"""Functions that compiled loops may call."""


def registered(function: Any) -> None:
    """Let compiled loops call a function of plain Python, and those that it calls; once each."""
    if function in _REGISTERED or function.__module__ == arithmetic.__name__:  # those have forms of their own
        return
    _REGISTERED.add(function)
    register_jitable(forceinline=True)(function)  # what stays a call is not done in vectors
    scope = inspect.getclosurevars(function)
    for called in (*scope.globals.values(), *scope.nonlocals.values()):
        if isinstance(called, types.FunctionType):
            registered(called)


class _OpaqueError(Exception):
    """A value that a loop inlines and no digest can stand for."""


class Fingerprint:
    """Digest of all that a loop inlines, and a quick way to ask whether it still holds.

    numba's cache looks at the loop's own file only. Digested are the code of the functions, their defaults
    and the values of the globals that they name, functions and attributes of modules among them. ``digest``
    is None where something in it has none.
    """

    def __init__(self, *functions: Callable[..., Any]) -> None:
        self._functions = functions
        self._watched: list[tuple[Callable[[Any], Any], Any, Any]] = []
        self._mutable = False
        self._hash = hashlib.sha256()
        self._seen: set[int] = set()
        self.digest: str | None
        try:
            for function in functions:
                self._add_function(function)
            self.digest = self._hash.hexdigest()
        except _OpaqueError:
            self.digest = None

    def holds(self) -> bool:
        """Whether everything that was digested is still what it was."""
        try:
            if not self._mutable and all(read(of) == found for read, of, found in self._watched):
                return True
        except (LookupError, AttributeError, ValueError):  # gone, or no longer comparable
            pass
        return Fingerprint(*self._functions).digest == self.digest

    def _watch(self, read: Callable[[Any], Any], of: Any) -> None:
        self._watched.append((read, of, read(of)))

    def _add_code(self, code: types.CodeType) -> None:
        names = code.co_names, code.co_varnames, code.co_freevars
        self._hash.update(code.co_code + repr(names).encode())
        for constant in code.co_consts:
            self._add(constant)

    def _add_function(self, function: Any) -> None:
        if id(function.__code__) in self._seen:
            return
        self._seen.add(id(function.__code__))
        self._watch(attrgetter("__code__", "__defaults__", "__kwdefaults__"), function)
        self._add_code(function.__code__)
        self._add(function.__defaults__)
        self._add(tuple(sorted((function.__kwdefaults__ or {}).items())))
        scope = inspect.getclosurevars(function)
        inner = _named_inside(function.__code__)
        outside = {
            **scope.globals,
            **{n: function.__globals__[n] for n in inner if n in function.__globals__},
        }
        if outside:
            self._watch(itemgetter(*sorted(outside)), function.__globals__)
        for cell in function.__closure__ or ():
            self._watch(attrgetter("cell_contents"), cell)
        for name, value in sorted({**outside, **scope.nonlocals}.items()):
            self._hash.update(name.encode())
            self._add_named(value, (*function.__code__.co_names, *inner))

    def _add_named(self, value: Any, names: tuple[str, ...]) -> None:
        """Add a value; of a module, and of modules in it, the attributes that are named beside it."""
        if not isinstance(value, types.ModuleType):
            return self._add(value)
        named = sorted({*names} & {*dir(value)})
        for attribute in named:
            self._hash.update(attribute.encode())
            found = getattr(value, attribute)
            if found is not value:
                self._add_named(found, names)
        if named:
            self._watch(attrgetter(*named), value)
        return None

    def _add(self, value: Any) -> None:
        value = getattr(value, "py_func", value)
        if isinstance(value, types.CodeType):
            self._add_code(value)
        elif isinstance(value, types.FunctionType):
            self._add_function(value)
        elif isinstance(value, (tuple, frozenset)):
            for item in sorted(value, key=repr) if isinstance(value, frozenset) else value:
                self._add(item)
        elif isinstance(value, (np.ndarray, np.generic)):
            self._mutable |= isinstance(value, np.ndarray)
            self._hash.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), type(...))):
            self._hash.update(repr(value).encode())
        elif callable(value) and getattr(value, "__module__", None) is not None:  # compiled, of a library
            self._hash.update(f"{value.__module__}.{getattr(value, '__name__', repr(value))}".encode())
        else:
            raise _OpaqueError


def _named_inside(code: types.CodeType) -> list[str]:
    """Names that the functions written inside another read."""
    inside = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return [name for one in inside for name in (*one.co_names, *_named_inside(one))]
