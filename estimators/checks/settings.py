"""Checks of the setting: what it declares, and that it is a value, immutable, comparable, printable."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from estimators.checks._tools import (
    arrays,
    channels_of,
    contract,
    expect,
    expect_same,
    other_settings,
)
from estimators.protocol import Estimator, LinearEstimator, Trait


@contract
def check_protocol(estimator: Any) -> None:
    """It has what the protocol names, declares its traits, and states the bytes of its state."""
    missing = [name for name in sorted(_members(Estimator)) if not hasattr(estimator, name)]
    expect(not missing, f"it lacks {', '.join(missing)}")
    traits = estimator.traits
    known = isinstance(traits, frozenset) and all(isinstance(trait, Trait) for trait in traits)
    expect(known, f"traits is {traits!r}; it must be a frozenset of Trait")
    size = estimator.state_bytes
    whole = isinstance(size, (int, np.integer)) and not isinstance(size, bool) and size > 0
    expect(whole, f"state_bytes is {size!r}; it must be an int > 0")
    expect(
        Trait.LINEAR in traits or not isinstance(estimator, LinearEstimator),
        "it has closed forms, hence an impulse response, but does not declare that it is linear",
    )


@contract
def check_immutable(estimator: Any) -> None:
    """No parameter can be set, and array parameters are read-only copies - in a copy of it as well."""
    for one in (estimator, copy.deepcopy(estimator)):
        for name, value in _parameters(one):
            try:
                setattr(one, name, value)
            except AttributeError:
                pass
            else:
                raise AssertionError(f"{name} can be set; parameters must be frozen")
            writeable = any(array.flags.writeable for array in arrays(value))
            expect(not writeable, f"{name} is an array that can be written; it must be read-only")
    for name, value in _parameters(estimator):
        if dataclasses.is_dataclass(estimator) and isinstance(value, np.ndarray):
            given = value.copy()
            made = dataclasses.replace(estimator, **{name: given})  # type: ignore[type-var]
            given += 1.0
            expect_same(getattr(made, name), value, f"{name} after the array that was handed in changed")


@contract
def check_equality(estimator: Any) -> None:
    """Equal parameters make equal estimators with equal hashes, other parameters others."""
    twin = copy.deepcopy(estimator)
    expect(estimator == twin, "it is not equal to a copy of itself")
    expect(hash(estimator) == hash(twin), "a copy of it has another hash")
    expect(estimator != object(), "it is equal to an unrelated object")
    for name, other in other_settings(estimator):
        expect(estimator != other, f"it is equal to one with {name}={getattr(other, name)!r}")


@contract
def check_repr(estimator: Any) -> None:
    """With scalar parameters, what it prints as makes it again."""
    if channels_of(estimator) or not dataclasses.is_dataclass(estimator):
        return
    kind = type(estimator)
    text = repr(estimator).replace(kind.__qualname__, kind.__name__, 1)
    try:
        names = {type(value).__name__: type(value) for _, value in _parameters(estimator)}
        made = eval(text, names | {kind.__name__: kind, "inf": math.inf, "nan": math.nan})
    except Exception as error:
        raise AssertionError(f"its repr does not make it again: {error}") from error
    expect(made == estimator, "its repr makes another estimator")


def _members(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def _parameters(estimator: Any) -> Iterator[tuple[str, Any]]:
    if dataclasses.is_dataclass(estimator):
        for field in dataclasses.fields(estimator):
            yield field.name, getattr(estimator, field.name)
    else:
        yield from dict(getattr(estimator, "__dict__", {})).items()
