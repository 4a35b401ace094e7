"""The door: whatever a caller hands over becomes float64 with NaN for missing, or one clear error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

OnInfinite: TypeAlias = Literal["raise", "missing"]
Wrap: TypeAlias = "Callable[[NDArray[Any]], Any]"


def as_stream(x: Any, on_infinite: OnInfinite) -> tuple[NDArray[np.float64], Wrap]:
    """Return a stream as float64, time on axis 0, and how to give results of its length back.

    Raises TypeError for text, complex numbers and tensors, ValueError for a missing time axis or infinity.
    """
    samples = _numbers(x)
    if samples.ndim == 0:
        raise ValueError(
            f"x={x!r} has no time axis; pass a sequence of samples, or use update for one sample"
        )
    return _settle_infinity(samples, on_infinite), _wrapper(x)


def as_sample(x: Any, on_infinite: OnInfinite) -> float | NDArray[np.float64]:
    """Return one sample of every channel as a float or a float64 array; raises as as_stream does."""
    samples = _settle_infinity(_numbers(x), on_infinite)
    return float(samples) if samples.ndim == 0 else samples


def _settle_infinity(samples: NDArray[np.float64], on_infinite: OnInfinite) -> NDArray[np.float64]:
    if on_infinite not in ("raise", "missing"):
        raise ValueError(f"on_infinite={on_infinite!r} is not valid; it must be 'raise' or 'missing'")
    infinite = np.isinf(samples)
    if not infinite.any():
        return samples
    if on_infinite == "missing":
        return np.where(infinite, np.nan, samples)
    place = tuple(int(i) for i in np.argwhere(infinite)[0])
    where = f" at index {place[0] if len(place) == 1 else place}" if place else ""
    raise ValueError(f"x holds infinity{where}; pass finite samples, or on_infinite='missing' to skip it")


def _numbers(x: Any) -> NDArray[np.float64]:
    if type(x) is float:
        return np.asarray(x)
    if x is None:
        return np.asarray(np.nan)
    package = type(x).__module__.partition(".")[0]
    if package in ("torch", "jax", "jaxlib"):
        raise TypeError(
            f"x is a {package} tensor; pass a NumPy array (the adapters estimators.torch and estimators.jax, "
            f"extras kalmean[torch] and kalmean[jax], are not in this version)"
        )
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(x, pandas.DataFrame):
        columns = [_column(x.iloc[:, i], pandas) for i in range(x.shape[1])]
        return np.stack(columns, axis=1) if columns else np.empty(x.shape)
    if pandas is not None and isinstance(x, (pandas.Series, pandas.Index)):
        return _column(x, pandas)
    if isinstance(x, np.ma.MaskedArray):
        return np.where(np.ma.getmaskarray(x), np.nan, _from_array(x.data))
    return _from_array(x if isinstance(x, np.ndarray) else _array(x))


def _array(x: Any) -> NDArray[Any]:
    if isinstance(x, (list, tuple)) and any(value is np.ma.masked for value in x):
        x = [None if value is np.ma.masked else value for value in x]
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError("x is ragged: every row must have the same number of channels") from error


def _column(series: Any, pandas: Any) -> NDArray[np.float64]:
    dtype = series.dtype
    if pandas.api.types.is_numeric_dtype(dtype) and getattr(dtype, "kind", "f") in "biuf":
        values: NDArray[np.float64] = series.to_numpy(dtype=np.float64, na_value=np.nan)
        return values
    return _from_array(series.to_numpy())


def _from_array(array: NDArray[Any]) -> NDArray[np.float64]:
    kind = array.dtype.kind
    if kind in "biuf":
        return array.astype(np.float64, copy=False)
    if kind == "O":
        values = np.array([_number(value) for value in array.ravel()], dtype=np.float64)
        return values.reshape(array.shape)
    names = {"U": "text", "S": "text", "T": "text", "c": "complex numbers", "M": "dates", "m": "time spans"}
    raise TypeError(f"x holds {names.get(kind, str(array.dtype))}; samples must be real numbers")


def _number(value: Any) -> float:
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
        f"x holds {what} ({str(value)[:40]!r}); samples must be real numbers, None or NaN where missing"
    )


def _wrapper(x: Any) -> Wrap:
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(x, (pandas.Series, pandas.DataFrame)):
        return _as_it_is

    def wrap(values: NDArray[Any]) -> Any:
        if values.ndim == 1:
            return pandas.Series(values, index=x.index, name=getattr(x, "name", None))
        if values.ndim == 2:
            columns = x.columns if values.shape[1:] == x.shape[1:] else None
            return pandas.DataFrame(values, index=x.index, columns=columns)
        return values

    return wrap


def _as_it_is(values: NDArray[Any]) -> NDArray[Any]:
    return values
