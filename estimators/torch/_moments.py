"""How an estimator filters the gradients of many tensors: by its own steps, or in NumPy on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from estimators._base import BaseEstimator
from estimators._recursive import Recursive
from estimators.protocol import Trait
from estimators.torch._pieces import Batch, Kept
from estimators.torch._tensors import Tensors


class Seen(NamedTuple):
    """What an optimiser sees of a state: the mean, and the variance of its error, None without one."""

    mean: Any
    variance: Any


class Moment(Protocol):
    """Filters a list of tensors, of each of which something is kept."""

    def fresh(self) -> Kept:
        """What is kept of a tensor before its first gradient."""

    def prepare(self, kept: Sequence[Kept], samples: Sequence[Tensor] | None) -> None:
        """Do what takes whole tensors; samples None: they are missing."""

    def step(self, batch: Batch, sample: Tensors | None) -> Seen:
        """Take pieces of a sample, or none where it is missing, and keep the state after it."""


def moment_of(owner: str, where: str, estimator: Any, power: int) -> Moment | None:
    """Filter of gradients to a power, None without an estimator; names of what it keeps begin by ``where``.

    Raises TypeError for what is no estimator, ValueError for one that cannot filter gradients.
    """
    if estimator is None:
        return None
    if hasattr(estimator, "moment"):
        own: Moment = estimator.moment(where, power)
        return own
    if not isinstance(estimator, BaseEstimator):
        raise TypeError(f"{owner}: {where}={estimator!r} is not valid; {where} must be an estimator or None")
    for field in estimator._parameter_shapes:
        raise ValueError(f"{owner}: {where}.{field} is an array; it must be one number for all coordinates")
    start = estimator._prior().mean if isinstance(estimator, Recursive) else math.nan
    below = power == 2 and (Trait.FOLLOWS_TREND in estimator.traits or start < 0.0)
    if Trait.POSITIVE in estimator.traits or below:
        takes = "gradients of either sign" if power == 1 else "squares, and give a mean >= 0"
        raise ValueError(f"{owner}: {where}={estimator!r} is not valid; {where} must take {takes}")
    return Stepped(estimator, where) if isinstance(estimator, Recursive) else OnHost(estimator, where, power)


class Stepped:
    """The two steps of a recursive estimator, over pieces of tensors."""

    def __init__(self, estimator: Recursive, where: str) -> None:
        self.estimator = estimator
        self.keys = [f"{where}.{field}" for field in estimator.State._fields]

    def fresh(self) -> Kept:
        """The prior."""
        prior = self.estimator._prior()
        return {key: float(value) for key, value in zip(self.keys, prior, strict=True)}

    def prepare(self, kept: Sequence[Kept], samples: Sequence[Tensor] | None) -> None:
        """Nothing takes whole tensors."""

    def step(self, batch: Batch, sample: Tensors | None) -> Seen:
        """Predict, and correct where there is a sample."""
        state = self.estimator.State(*(batch.read(key) for key in self.keys))
        coefficients = self.estimator._given()
        moved = self.estimator.predict(coefficients, state)
        if sample is not None:
            moved, _ = self.estimator.correct(coefficients, moved, sample)
        for key, before, value in zip(self.keys[1:], state[1:], moved[1:], strict=True):
            if value is not before:
                batch.write(key, value)
        # The mean last: it may be moved in its own place, and the other fields may rest on where it was.
        stays = moved.mean is state.mean
        mean = state.mean if stays else batch.write(self.keys[0], moved.mean, state.mean)
        return Seen(mean, moved.variance)


class OnHost:
    """An estimator that is no such recursion (a window, a bank): whole tensors in NumPy, on the host."""

    def __init__(self, estimator: BaseEstimator, where: str, power: int) -> None:
        self.estimator, self.where, self.power = estimator, where, power
        self.keys = [f"{where}.{ON_HOST}{field}" for field in estimator.State._fields]

    def fresh(self) -> Kept:
        """No mean."""
        return {f"{self.where}.mean": math.nan, f"{self.where}.variance": math.nan}

    def prepare(self, kept: Sequence[Kept], samples: Sequence[Tensor] | None) -> None:
        """Update every state, and send its mean, and its variance if it has one, to where the tensor is."""
        for place, of_one in enumerate(kept):
            started = self.keys[0] in of_one
            if samples is None and not started:
                continue
            sample = None
            if samples is not None:
                sample = (samples[place].detach().to("cpu", torch.float64) ** self.power).numpy()
            fields = (of_one[key].numpy() for key in self.keys) if started else ()
            state = self.estimator.State(*fields) if started else self.estimator.init(sample)
            state = self.estimator.update(state, sample, on_infinite="missing")
            for key, value in zip(self.keys, state, strict=True):
                of_one[key] = torch.from_numpy(np.array(value, dtype=np.float64))
            for field in ("mean", "variance"):
                value = getattr(state, field)
                if value is not None:
                    like = samples[place] if samples is not None else of_one[f"{self.where}.{field}"]
                    of_one[f"{self.where}.{field}"] = torch.as_tensor(value).to(like)

    def step(self, batch: Batch, sample: Tensors | None) -> Seen:
        """What was prepared."""
        return Seen(batch.read(f"{self.where}.mean"), batch.read(f"{self.where}.variance"))


ON_HOST = "host."
"""Begins the names of what stays in NumPy's float64, whatever the tensor is."""
