"""The setting of one kind of estimator that corresponds to a given one of another kind."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_BY = {
    "noise_gain": ("noise_gain", "from_noise_gain"),
    "delay": ("group_delay", "from_group_delay"),
    "mse": ("signal_to_noise", "from_signal_to_noise"),
}


def matched(
    kind: type[T] | T, given: Any, by: Literal["noise_gain", "delay", "mse"] = "noise_gain", **parameters: Any
) -> T:
    """Return the estimator of a kind that equals a given one in noise gain, in delay, or in purpose.

    by="noise_gain": same variance left of white noise; "delay": same lag on a ramp; "mse": the best of that
    kind on the random walk for which the given one is best. Windows round, so exact ties between EMA and
    MovingAverage need beta = (N - 1)/(N + 1). kind: a class, or an estimator of it whose other parameters are
    kept; parameters: further ones of the kind, such as r of a Kalman. Raises ValueError where no such setting
    exists, TypeError for kinds without these closed forms.
    """
    if by not in _BY:
        raise ValueError(f"by={by!r} is not valid; it must be one of {', '.join(map(repr, _BY))}")
    cls: Any = kind if isinstance(kind, type) else type(kind)
    if not isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = (field.name for field in dataclasses.fields(kind))
        parameters = {n: getattr(kind, n) for n in names if n != cls.memory} | parameters
    quantity, constructor = _BY[by]
    if isinstance(given, type):
        raise TypeError(f"{given.__name__} is a class; matched needs a setting of it, such as EMA(0.99)")
    for owner, name, label in ((given, quantity, type(given)), (cls, constructor, cls)):
        if not hasattr(owner, name):
            hint = "" if hasattr(owner, "traits") else "; give an estimator, such as EMA(0.99)"
            raise TypeError(f"{label.__name__} cannot be matched by {by}: it has no {name}{hint}")
    estimator: T = getattr(cls, constructor)(getattr(given, quantity), **parameters)
    return estimator
