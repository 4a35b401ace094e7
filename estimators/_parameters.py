"""Parameters of estimators: validated once, immutable, compared and hashed by value."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parameter: TypeAlias = "float | NDArray[np.float64]"


class Range(NamedTuple):
    """Values that a parameter may take, in words and as a test of an array."""

    valid: str
    inside: Callable[[NDArray[np.float64]], Any]

    def of(self, what: str) -> Range:
        """Add to the words what the values are, or their unit."""
        return Range(f"{self.valid} {what}", self.inside)


FINITE = Range("finite", lambda v: np.isfinite(v))
POSITIVE = Range("> 0", lambda v: (v > 0) & np.isfinite(v))
NONNEGATIVE = Range(">= 0", lambda v: (v >= 0) & np.isfinite(v))
AT_LEAST_ONE = Range(">= 1", lambda v: (v >= 1) & np.isfinite(v))
BETWEEN_0_AND_1 = Range("in (0, 1)", lambda v: (v > 0) & (v < 1))
FROM_0_BELOW_1 = Range("in [0, 1)", lambda v: (v >= 0) & (v < 1))
FROM_0_TO_1 = Range("in [0, 1]", lambda v: (v >= 0) & (v <= 1))
ABOVE_0_TO_1 = Range("in (0, 1]", lambda v: (v > 0) & (v <= 1))
FREQUENCY = Range("in (0, 0.5] cycles per sample", lambda v: (v > 0) & (v <= 0.5))


def real(owner: str, field: str, value: Any, allowed: Range) -> Parameter:
    """Return a parameter as a float or a read-only float64 copy; ValueError names field, value and range."""
    numbers = np.empty(0)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        given = np.asarray(value)
        kinds = {np.asarray(item).dtype.kind for item in given.flat} if given.dtype == object else set()
        if kinds | {given.dtype.kind} <= set("iufO") and not np.ma.is_masked(value):
            numbers = np.array(given, dtype=np.float64)
    require(owner, field, value, numbers.size > 0 and np.all(allowed.inside(numbers)), allowed.valid)
    if numbers.ndim > 0:
        numbers += 0.0  # one zero, so that equal values have equal bytes
        numbers.flags.writeable = False
    return plain(numbers)


def one(owner: str, field: str, value: Any, allowed: Range) -> float:
    """Return a parameter that must be a single number as a float; ValueError as ``real``."""
    number = real(owner, field, value, allowed)
    require(owner, field, value, np.ndim(number) == 0, f"one number {allowed.valid}")
    return float(number)


def whole(owner: str, field: str, value: Any, least: int) -> int:
    """Return a parameter as an int; ValueError names field, value and range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    counts = not isinstance(value, (bool, np.bool_)) and least <= number <= sys.maxsize
    require(owner, field, value, counts, f"an int >= {least}")
    return number


def require(owner: str, field: str, value: Any, holds: Any, valid: str) -> None:
    """Raise ValueError, one line that names the field, its value and what would be valid, unless it holds."""
    if not holds:
        raise ValueError(f"{owner}: {field}={brief(value)} is not valid; {field} must be {valid}")


def fit_together(owner: str, **parameters: Any) -> None:
    """Raise ValueError unless the shapes of these parameters broadcast."""
    try:
        np.broadcast_shapes(*map(np.shape, parameters.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in parameters.items())
        raise ValueError(f"{owner}: the shapes of {shapes} do not broadcast") from error


def plain(value: Any) -> Parameter:
    """Give one number out as a Python float, several as the array that they are."""
    numbers: NDArray[np.float64] = np.asarray(value, dtype=np.float64)
    return float(numbers) if numbers.ndim == 0 else numbers


def brief(value: Any) -> str:
    """Write a value in at most 60 characters of one line."""
    text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class Shown:
    """Shows itself in one way everywhere: by ``_facts``, or, a setting, by its parameters; see `_display`."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = cls.__repr__  # type: ignore[method-assign]  # or a dataclass writes its own

    def __repr__(self) -> str:
        from estimators import _display

        return _display.text(self)

    def _repr_html_(self) -> str:
        """A small table for notebooks."""
        from estimators import _display

        return _display.page(self)


class ByValue(Shown):
    """Equality and hash of a frozen dataclass by the values of its fields, arrays included."""

    def _key(self) -> tuple[Any, ...]:
        return tuple(
            _value_key(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        )

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash((type(self).__qualname__, self._key()))

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone: what was derived from them is derived anew."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {field.name: getattr(self, field.name) for field in fields}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False  # which copies and pickles forget
            object.__setattr__(self, name, value)


def _value_key(value: Any) -> Any:
    if isinstance(value, (float, np.ndarray)):
        numbers = np.asarray(value, dtype=np.float64) + 0.0
        return numbers.shape, numbers.tobytes()
    return value
