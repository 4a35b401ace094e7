"""Parameters of estimators: validated once, immutable, compared and hashed by value."""

from __future__ import annotations

import contextlib
import dataclasses
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parameter: TypeAlias = "float | NDArray[np.float64]"


def real(
    owner: object,
    field: str,
    value: Any,
    inside: Callable[[NDArray[np.float64]], Any],
    valid: str,
) -> Parameter:
    """Return a parameter as a float or a read-only float64 copy; ValueError names field, value and range."""
    label = owner if isinstance(owner, str) else type(owner).__name__
    numbers = np.empty(0)
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        given = np.asarray(value)
        if given.dtype.kind in "biufO":
            numbers = np.array(given, dtype=np.float64)
    if numbers.size == 0 or not np.all(inside(numbers)):
        raise ValueError(f"{label}: {field}={_brief(value)} is not valid; {field} must be {valid}")
    if numbers.ndim == 0:
        return float(numbers)
    numbers += 0.0  # one zero, so that equal values have equal bytes
    numbers.flags.writeable = False
    return numbers


def fit_together(owner: object, **parameters: Any) -> None:
    """Raise ValueError unless the shapes of these parameters broadcast."""
    try:
        np.broadcast_shapes(*map(np.shape, parameters.values()))
    except ValueError as error:
        shapes = ", ".join(f"{name} {np.shape(value)}" for name, value in parameters.items())
        raise ValueError(f"{type(owner).__name__}: the shapes of {shapes} do not broadcast") from error


def whole(owner: object, field: str, value: Any, least: int) -> int:
    """Return a parameter as an int; ValueError names field, value and range."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least:
        label = owner if isinstance(owner, str) else type(owner).__name__
        raise ValueError(f"{label}: {field}={_brief(value)} is not valid; {field} must be an int >= {least}")
    return number


def _brief(value: Any) -> str:
    text = " ".join(repr(value.item() if isinstance(value, np.generic) else value).split())
    return text if len(text) <= 60 else text[:57] + "..."


class ByValue:
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
