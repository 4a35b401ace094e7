"""The door: whatever a caller hands over becomes float64 with NaN for missing, or one clear error."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from estimators._arithmetic import home_of
from estimators._parameters import plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

OnInfinite: TypeAlias = Literal["raise", "missing"]
Wrap: TypeAlias = "Callable[[NDArray[Any]], Any]"


DOUBLE, SINGLE = np.dtype(np.float64), np.dtype(np.float32)
LARGEST = {DOUBLE: 2.0**1023, SINGLE: 2.0**127}
"""Samples lie below these: the difference of any two is still a finite number of their type."""


def as_stream(x: Any, name: str = "x") -> tuple[NDArray[np.float64], Wrap]:
    """Return a stream as float64, time on axis 0, and how to give results of its length back.

    Raises TypeError for text, complex numbers and tensors, ValueError for a missing time axis. Infinity is
    left for ``settle_infinity``, or for the loops, which see every sample anyway.
    """
    samples = _numbers(x, name)
    if samples.ndim == 0:
        raise ValueError(
            f"{name}={x!r} has no time axis; pass a sequence of samples, or use update for one sample"
        )
    return samples, _wrapper(x)


def as_sample(
    x: Any, on_infinite: OnInfinite = "raise", dtype: np.dtype[Any] = DOUBLE
) -> float | NDArray[np.float64]:
    """Return one sample of every channel as a float or a float64 array; raises as as_stream does."""
    samples = settle_infinity(_numbers(x, "x"), on_infinite, dtype, "x")
    return plain(samples)


def check_on_infinite(on_infinite: str) -> None:
    """Raise ValueError unless the policy is one there is."""
    if on_infinite not in ("raise", "missing"):
        raise ValueError(f"on_infinite={on_infinite!r} is not valid; it must be 'raise' or 'missing'")


def checked_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array that results can be written to; TypeError or ValueError if it does not fit."""
    if not isinstance(out, np.ndarray) or not out.flags.writeable:
        raise TypeError("out must be a writeable NumPy array")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.dtype} of shape {out.shape}; the mean needs {dtype} of shape {shape}")
    return out


def read_only(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """View samples as what cannot be written: one type for every input, so that loops are compiled once."""
    view = values.view()
    view.flags.writeable = False
    return view


def settle_infinity(
    samples: NDArray[np.float64],
    on_infinite: OnInfinite,
    dtype: np.dtype[Any],
    name: str = "x",
    first: int = 0,
) -> NDArray[np.float64]:
    """Return samples without numbers too large for ``dtype``: NaN in their place, or ValueError.

    first: index of the first sample in the stream, for the message.
    """
    check_on_infinite(on_infinite)
    large = np.abs(samples) >= LARGEST[dtype]
    if not large.any():
        return samples
    if on_infinite == "missing":
        return np.where(large, np.nan, samples)
    place = tuple(int(i) for i in np.argwhere(large)[0])
    value = float(samples[place])
    place = (place[0] + first, *place[1:]) if place else place
    where = f" at index {place[0] if len(place) == 1 else place}" if place else ""
    what = "infinity" if np.isinf(value) else f"{value:g} (beyond {LARGEST[dtype]:.3g})"
    raise ValueError(f"{name} holds {what}{where}; pass finite samples, or on_infinite='missing' to skip it")


def _numbers(x: Any, name: str) -> NDArray[np.float64]:
    if type(x) is float:
        return np.asarray(x)
    if x is None:
        return np.asarray(np.nan)
    adapter = adapter_of(type(x))
    if adapter is not None:
        values: NDArray[np.float64] = adapter.to_numpy(x, name)
        return values
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(x, pandas.DataFrame):
        columns = [_column(x.iloc[:, i], pandas, name) for i in range(x.shape[1])]
        return np.stack(columns, axis=1) if columns else np.empty(x.shape)
    if pandas is not None and isinstance(x, (pandas.Series, pandas.Index)):
        return _column(x, pandas, name)
    return _from_array(x if isinstance(x, np.ndarray) else _array(x, name), name)


def _array(x: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(_unmasked(x))
    except ValueError as error:
        if "inhomogeneous" not in str(error):
            raise
        raise ValueError(f"{name} is ragged: every row must have the same number of channels") from error


def _unmasked(x: Any) -> Any:
    """Spell masked entries of nested lists as None, which NumPy would take for the numbers behind them."""
    if x is np.ma.masked:
        return None
    if isinstance(x, np.ma.MaskedArray):
        spelled = x.data.astype(object)
        spelled[np.ma.getmaskarray(x)] = None
        return spelled
    if isinstance(x, (list, tuple)) and any(isinstance(v, (list, tuple, np.ma.MaskedArray)) for v in x):
        return [_unmasked(value) for value in x]
    return x


def _column(series: Any, pandas: Any, name: str) -> NDArray[np.float64]:
    dtype = series.dtype
    if pandas.api.types.is_numeric_dtype(dtype) and getattr(dtype, "kind", "f") in "biuf":
        values: NDArray[np.float64] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return values
    return _from_array(series.to_numpy(), name)


def _from_array(array: NDArray[Any], name: str) -> NDArray[np.float64]:
    if isinstance(array, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(array), np.nan, _from_array(array.data, name))
    kind = array.dtype.kind
    if kind in "biuf":
        return array.astype(np.float64, copy=False)
    if kind == "O":
        values = np.array([_number(value, name) for value in array.ravel()], dtype=np.float64)
        return values.reshape(array.shape)
    names = {"U": "text", "S": "text", "T": "text", "c": "complex numbers", "M": "dates", "m": "time spans"}
    raise TypeError(f"{name} holds {names.get(kind, str(array.dtype))}; samples must be real numbers")


def _number(value: Any, name: str) -> float:
    if value is None or type(value).__name__ == "NAType" or value is np.ma.masked:
        return np.nan
    if not isinstance(value, (str, bytes, bytearray, complex, np.complexfloating)):
        try:
            return float(value)
        except OverflowError:  # an int or a Fraction beyond float64
            return np.inf
        except (TypeError, ValueError):
            pass
    what = "text" if isinstance(value, (str, bytes)) else type(value).__name__
    raise TypeError(
        f"{name} holds {what} ({str(value)[:40]!r}); samples must be real numbers, None or NaN where missing"
    )


@dataclass(frozen=True)
class _AsPandas:
    """Gives results back under the index, columns or name that a stream had when it was filtered."""

    index: Any
    columns: Any
    name: Any

    def __call__(self, values: NDArray[Any]) -> Any:
        import pandas

        if values.ndim == 1:
            return pandas.Series(values, index=self.index, name=self.name)
        if values.ndim == 2:
            own = self.columns is not None and values.shape[1] == len(self.columns)
            return pandas.DataFrame(values, index=self.index, columns=self.columns if own else None)
        return values


def _adapter_of(kind: type) -> Any:
    """Module by which tensors of a type go in and out; None for what is no tensor."""
    home = home_of(kind)
    return importlib.import_module(f"estimators.{home}.filtering") if home else None


adapter_of: Callable[[type], Any] = functools.cache(_adapter_of)


def _wrapper(x: Any) -> Wrap:
    adapter = adapter_of(type(x))
    if adapter is not None:
        wrap: Wrap = adapter.wrapper(x)
        return wrap
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(x, (pandas.Series, pandas.DataFrame)):
        return _as_it_is
    return _AsPandas(x.index, getattr(x, "columns", None), getattr(x, "name", None) if x.ndim == 1 else None)


def _as_it_is(values: NDArray[Any]) -> NDArray[Any]:
    return values
