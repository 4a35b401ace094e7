"""States as plain data: estimator, parameters and schema version beside the numbers, no pickle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from estimators._parameters import ByValue, brief

SCHEMA = 1
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def pack(estimator: Any, state: Any) -> dict[str, Any]:
    """Return the plain data of a state: numbers, text, lists and mappings that strict JSON can carry."""
    return {
        "schema": SCHEMA,
        **setting(estimator),
        "state": {name: _plain(value) for name, value in zip(state._fields, state, strict=True)},
    }


def unpack(estimator: Any, state_type: type, data: Mapping[str, Any]) -> Any:
    """Return the state that ``pack`` made of this estimator's; ValueError where anything differs."""
    name = type(estimator).__name__
    try:
        schema, saved_by, parameters, fields = (
            data[key] for key in ("schema", "estimator", "parameters", "state")
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{name}: this is no saved state; to_dict makes one") from error
    if type(schema) is not int or schema != SCHEMA:
        raise ValueError(f"{name}: the state has schema {schema!r}; this version reads schema {SCHEMA}")
    if saved_by != name:
        raise ValueError(f"{name}: the state was saved by {saved_by}; it can go on only there")
    names = [field.name for field in dataclasses.fields(estimator)]
    if not isinstance(parameters, Mapping) or set(parameters) != set(names):
        raise ValueError(f"{name}: the saved parameters are damaged: {brief(parameters)}")
    for field in names:
        mine, theirs = _plain(getattr(estimator, field)), parameters[field]
        if mine != theirs:
            raise ValueError(
                f"{name}: the state was saved under {field}={brief(theirs)}, not {field}={brief(mine)}"
            )
    expected = state_type._fields  # type: ignore[attr-defined]
    if not isinstance(fields, Mapping) or set(fields) != set(expected):
        raise ValueError(f"{name}: the saved state must hold {', '.join(expected)}")
    return state_type(*(_restore(name, key, fields[key]) for key in expected))


def setting(estimator: Any) -> dict[str, Any]:
    """Name and parameters of an estimator as plain data."""
    return {
        "estimator": type(estimator).__name__,
        "parameters": {f.name: _plain(getattr(estimator, f.name)) for f in dataclasses.fields(estimator)},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, ByValue):  # an estimator that is a parameter of another
        return setting(value)
    if isinstance(value, (np.ndarray, np.generic)) and not isinstance(value, float):
        flat = [_plain(v) for v in np.asarray(value, dtype=np.float64).ravel().tolist()]
        return {"dtype": str(value.dtype), "shape": list(value.shape), "values": flat}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(value) if isinstance(value, float) else value


def _restore(name: str, field: str, value: Any) -> Any:
    try:
        if isinstance(value, Mapping):
            flat = [_SPELLED[v] if isinstance(v, str) else float(v) for v in value["values"]]
            kept = {"float64": np.float64, "float32": np.float32}[value["dtype"]]
            return np.array(flat, dtype=kept).reshape(value["shape"])[()]
        return _SPELLED[value] if isinstance(value, str) else float(value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name}: the saved {field} is damaged: {brief(value)}") from error
