"""The arithmetic of recursions on JAX arrays, traced ones among them, with derivatives that stay numbers."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Number", "exp", "log", "sqrt", "where"]


def precision() -> np.dtype[Any]:
    """Type in which recursions are computed: float64 where jax_enable_x64 is set, else float32."""
    return np.dtype(jax.dtypes.canonicalize_dtype(np.float64))


def within(constant: float) -> float:
    """A constant of a recursion, as far from the largest and least numbers as it is from those of float64.

    The guards of the recursions (1e152, whose square is finite; 1e-303, whose inverse is) are infinite and 0
    in float32, where they would guard nothing.
    """
    limits = np.finfo(precision())
    least, largest = float(limits.tiny), float(limits.max)
    if constant == 0.0 or not math.isfinite(constant) or least <= abs(constant) <= largest:
        return constant
    return math.copysign(abs(constant) ** (limits.maxexp / 1024), constant)


def raw(value: Any) -> Any:
    """The array of a number, a constant as the type in force can hold it, and an array in that type."""
    if isinstance(value, Number):
        return value.value
    if isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return within(value)
    array = jnp.asarray(value)
    return array if array.dtype == bool else array.astype(precision())


def _finite(partial: Any) -> Any:
    """A partial derivative; where there is none (inf - inf, 0 inf) only what is not selected asks for it."""
    return jnp.where(jnp.isfinite(partial), partial, 0.0)


@jax.custom_jvp
def _times(x: Any, y: Any) -> Any:
    return x * y


@_times.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    return _times(x, y), dx * _finite(y) + dy * _finite(x)


@jax.custom_jvp
def _over(x: Any, y: Any) -> Any:
    return x / y


@_over.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (x, y), (dx, dy) = primals, tangents
    quotient = _over(x, y)
    return quotient, dx * _finite(1.0 / y) - dy * _finite(quotient / y)


def _smooth(function: Callable[[Any], Any], derivative: Callable[[Any, Any], Any]) -> Any:
    """A function whose derivative, given from argument and value, is a number wherever its value is used."""
    guarded = jax.custom_jvp(function)

    @guarded.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        value = guarded(*primals)
        return value, tangents[0] * _finite(derivative(primals[0], value))

    return guarded


_sqrt = _smooth(jnp.sqrt, lambda x, root: 0.5 / root)
_exp = _smooth(jnp.exp, lambda x, power: power)
_log = _smooth(jnp.log, lambda x, logarithm: 1.0 / x)


def _times_any(x: Any, y: Any) -> Any:
    return x * y if _is_constant(x) or _is_constant(y) else _times(x, y)


def _over_any(x: Any, y: Any) -> Any:
    return x / y if _is_constant(y) and y != 0.0 else _over(jnp.asarray(x, precision()), y)


def _is_constant(value: Any) -> bool:
    return isinstance(value, (float, int)) and math.isfinite(value)


class Number:
    """A JAX array inside one step of a recursion, where infinity and NaN stand for what is not known.

    A recursion computes both sides of every choice, and the side that is not chosen may be inf - inf or 0
    times NaN: as a value that is dropped, but its derivative, 0 times NaN, would make every gradient NaN.
    Here a partial derivative that is not finite counts as 0, forward and in reverse; finite ones are exact.
    """

    __slots__ = ("value",)
    _library_: Any
    __array_ufunc__ = None  # so that NumPy's operators give way to those below
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: Any) -> None:
        self.value = value

    def __bool__(self) -> bool:
        raise TypeError("a recursion chooses by where, not by if: in JAX there are no values yet")

    def __add__(self, other: Any) -> Number:
        return Number(self.value + raw(other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Number:
        return Number(self.value - raw(other))

    def __rsub__(self, other: Any) -> Number:
        return Number(raw(other) - self.value)

    def __mul__(self, other: Any) -> Number:
        return Number(_times_any(self.value, raw(other)))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        return Number(_over_any(self.value, raw(other)))

    def __rtruediv__(self, other: Any) -> Number:
        return Number(_over_any(raw(other), self.value))

    def __neg__(self) -> Number:
        return Number(-self.value)

    def __abs__(self) -> Number:
        return Number(jnp.abs(self.value))

    def __eq__(self, other: Any) -> Number:  # type: ignore[override]
        return Number(self.value == raw(other))

    def __ne__(self, other: Any) -> Number:  # type: ignore[override]
        return Number(self.value != raw(other))

    def __lt__(self, other: Any) -> Number:
        return Number(self.value < raw(other))

    def __le__(self, other: Any) -> Number:
        return Number(self.value <= raw(other))

    def __gt__(self, other: Any) -> Number:
        return Number(self.value > raw(other))

    def __ge__(self, other: Any) -> Number:
        return Number(self.value >= raw(other))


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition, elementwise."""
    if not any(isinstance(value, Number) for value in (condition, chosen, otherwise)):
        return jnp.where(condition, chosen, otherwise)
    picked = jnp.where(raw(condition), raw(chosen), raw(otherwise))
    return Number(picked if picked.dtype == bool else picked.astype(precision()))


def sqrt(value: Any) -> Any:
    """Square root of values >= 0."""
    return Number(_sqrt(value.value)) if isinstance(value, Number) else jnp.sqrt(value)


def exp(value: Any) -> Any:
    """Exponential, infinite where it overflows."""
    return Number(_exp(value.value)) if isinstance(value, Number) else jnp.exp(value)


def log(value: Any) -> Any:
    """Natural logarithm of values >= 0, minus infinity at 0."""
    return Number(_log(value.value)) if isinstance(value, Number) else jnp.log(value)


Number._library_ = sys.modules[__name__]
