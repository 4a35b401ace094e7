"""Lists of tensors that recursions take for one number: arithmetic by torch's foreach calls.

Beside them stand numbers that all coordinates of a tensor share, which stay on the host: a float for all
tensors, or a float64 array of one for each.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators._arithmetic import moved
from estimators.torch._arithmetic import where as one_where


class Tensors:
    """Tensors of one dtype and device that recursions take for a number; none of them holds NaN.

    Arithmetic makes new tensors and leaves these as they are.
    """

    __slots__ = ("items",)
    __array_ufunc__ = None
    """A NumPy array beside one leaves the arithmetic to it."""
    _library_: Any = None

    def __init__(self, items: Iterable[Tensor]) -> None:
        self.items = list(items)

    def __add__(self, other: Any) -> Tensors:
        return Tensors(torch._foreach_add(self.items, beside(other)))

    def __sub__(self, other: Any) -> Tensors:
        return Tensors(torch._foreach_sub(self.items, beside(other)))

    def __mul__(self, other: Any) -> Tensors:
        return Tensors(torch._foreach_mul(self.items, beside(other)))

    def __truediv__(self, other: Any) -> Tensors:
        return Tensors(torch._foreach_div(self.items, beside(other)))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self) -> Tensors:
        return Tensors(torch._foreach_neg(self.items))

    def __abs__(self) -> Tensors:
        return Tensors(torch._foreach_abs(self.items))

    def __rsub__(self, other: Any) -> Any:
        return -(self - other)

    def __rtruediv__(self, other: Any) -> Any:
        return Tensors(torch._foreach_reciprocal(self.items)) * other

    def __eq__(self, other: object) -> Any:
        if other is self:  # without NaN each number equals itself
            return np.ones(len(self.items), dtype=bool)
        return _compared(operator.eq, self, other)

    def __ne__(self, other: object) -> Any:
        return np.zeros(len(self.items), dtype=bool) if other is self else _compared(operator.ne, self, other)

    def __lt__(self, other: Any) -> Tensors:
        return _compared(operator.lt, self, other)

    def __le__(self, other: Any) -> Tensors:
        return _compared(operator.le, self, other)

    def __gt__(self, other: Any) -> Tensors:
        return _compared(operator.gt, self, other)

    def __ge__(self, other: Any) -> Tensors:
        return _compared(operator.ge, self, other)

    __hash__ = None  # type: ignore[assignment]


class Moved(Tensors):
    """Means moved towards samples, once somebody looks, or in their own place with ``settle``."""

    __slots__ = ("_found", "gain", "mean", "sample")

    def __init__(self, mean: Tensors, sample: Tensors, gain: Any) -> None:
        self.mean, self.sample, self.gain = mean, sample, gain
        self._found: list[Tensor] | None = None

    @property
    def items(self) -> list[Tensor]:  # type: ignore[override]
        """The means after the move, in new tensors."""
        if self._found is None:
            self._found = list(torch._foreach_lerp(self.mean.items, self.sample.items, beside(self.gain)))
        return self._found

    def settle(self) -> Tensors:
        """Move the means themselves, which nothing may need as they were."""
        torch._foreach_lerp_(self.mean.items, self.sample.items, beside(self.gain))
        return self.mean


def _compared(compare: Callable[[Any, Any], Any], these: Tensors, those: Any) -> Tensors:
    return Tensors(map(compare, these.items, _each(those, len(these.items))))


class _Library:
    """The functions of ``estimators._arithmetic`` for lists of tensors."""

    @staticmethod
    def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
        on_host = not isinstance(condition, Tensors)
        if on_host and (np.ndim(condition) == 0 or condition.all() or not condition.any()):
            return chosen if np.all(condition) else otherwise
        operands = condition, chosen, otherwise
        like = next(operand for operand in operands if isinstance(operand, Tensors))
        rows = zip(*(_each(operand, len(like.items)) for operand in operands), like.items, strict=True)
        return Tensors(_chosen(*row) for row in rows)

    @staticmethod
    def sqrt(value: Tensors) -> Tensors:
        return Tensors(torch._foreach_sqrt(value.items))

    @staticmethod
    def exp(value: Tensors) -> Tensors:
        return Tensors(torch._foreach_exp(value.items))

    @staticmethod
    def log(value: Tensors) -> Tensors:
        return Tensors(torch._foreach_log(value.items))

    @staticmethod
    def toward(mean: Any, sample: Tensors, gain: Any) -> Any:
        """One pass over the means and samples, for a gain of each tensor."""
        if not isinstance(gain, Tensors) and np.all(gain == 1.0):
            return sample
        by_coordinate = isinstance(gain, Tensors) or not isinstance(mean, Tensors)
        return moved(mean, sample, gain) if by_coordinate else Moved(mean, sample, gain)


def _chosen(condition: Any, chosen: Any, otherwise: Any, like: Tensor) -> Tensor:
    """Choose for one tensor; of numbers alone, in one like it."""
    if not isinstance(condition, Tensor):
        value = chosen if condition else otherwise
        return value if isinstance(value, Tensor) else torch.full_like(like, value)
    chosen_one: Tensor = one_where(condition, chosen, otherwise)
    return chosen_one


Tensors._library_ = _Library
where, sqrt, toward = _Library.where, _Library.sqrt, _Library.toward


def beside(other: Any) -> Any:
    """An operand as the foreach calls take it: tensors, one number, or a list of one for each tensor."""
    if isinstance(other, Tensors):
        return other.items
    return other.tolist() if isinstance(other, np.ndarray) else float(other)


def _each(value: Any, count: int) -> Iterable[Any]:
    """The part of an operand that stands beside each tensor."""
    if isinstance(value, Tensors):
        return value.items
    numbers: list[Any] = np.broadcast_to(np.asarray(value), (count,)).tolist()
    return numbers
