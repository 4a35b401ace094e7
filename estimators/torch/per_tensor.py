"""One gain for each tensor, found from a few random projections of its gradient."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators._parameters import FROM_0_TO_1, ByValue, one, require, whole
from estimators._pooled import Pooled, PooledBank, PooledSteps
from estimators._recursive import Recursive
from estimators.bank import KalmanBank
from estimators.protocol import Trait
from estimators.torch._moments import ON_HOST, Seen
from estimators.torch._pieces import Batch, Kept
from estimators.torch._tensors import Tensors, toward


@dataclass(frozen=True, eq=False)
class PerTensor(ByValue):
    """An estimator that finds one gain for all coordinates of a tensor, as a moment of FilteredAdam.

    It sees random-sign sums of the gradient, ``directions`` of them (>= 1), as channels that learn together:
    sums keep the ratio q/r of what they are sums of. A KalmanBank then has one set of weights for a tensor, a
    MehraKalman one gain; of other recursive estimators the channels' gains are averaged. least_gain in [0, 1]
    bounds the gain from below: what estimates a gradient best is too slow where the gradient is to be
    followed. Raises ValueError, and TypeError for an estimator that has no gain of this kind.
    """

    estimator: Any
    directions: int = 32
    least_gain: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        of_kind = isinstance(self.estimator, (KalmanBank, Recursive))
        if not of_kind or Trait.FOLLOWS_TREND in self.estimator.traits or self.estimator._parameter_shapes:
            raise TypeError(
                f"{name}: estimator={self.estimator!r} is not valid; it must be a KalmanBank or a recursive "
                "estimator of a level, with numbers for parameters"
            )
        start = np.nan if isinstance(self.estimator, KalmanBank) else self.estimator._prior().mean
        valid = "one that starts from nothing, or at 0"
        require(name, "estimator", self.estimator, start != start or start == 0.0, valid)
        object.__setattr__(self, "directions", whole(name, "directions", self.directions, 1))
        object.__setattr__(self, "least_gain", one(name, "least_gain", self.least_gain, FROM_0_TO_1))

    def moment(self, where: str, power: int) -> Steered:
        """The filter of gradients, or of their squares (power 2)."""
        return Steered(self, where, power)


class Steered:
    """Filters tensors with a gain of each, which projections of its gradient steer."""

    def __init__(self, setting: PerTensor, where: str, power: int) -> None:
        self.setting, self.where, self.power = setting, where, power
        of_bank = isinstance(setting.estimator, KalmanBank)
        self.steps: Any = PooledBank(setting.estimator) if of_bank else PooledSteps(setting.estimator)
        self.keys = [f"{where}.{ON_HOST}{field}" for field in self.steps.State._fields]

    def fresh(self) -> Kept:
        """The mean at its start, 0 or none, and what steers the gain at its own."""
        prior = self.steps.prior()
        fields = (torch.from_numpy(np.array(field, dtype=np.float64)) for field in prior)
        start = float(prior[0].flat[0])
        steering = dict(zip(self.keys, fields, strict=True))
        return {f"{self.where}.mean": start, f"{self.where}.gain": 1.0, **steering}

    def prepare(self, kept: Sequence[Kept], samples: Sequence[Tensor] | None) -> None:
        """Let the projections of all tensors steer their gains, on the host."""
        fields = ([of_one[key].numpy() for of_one in kept] for key in self.keys)
        with np.errstate(all="ignore"):
            state = self.steps.predict(self.steps.State(*map(_stacked, fields)))
            if samples is not None:
                rows = [projected(sample, self.setting.directions, self.power) for sample in samples]
                sample = torch.stack(rows).to("cpu", torch.float64).numpy()[:, np.newaxis, :].view(Pooled)
                state, gains = self.steps.correct(state, sample)
        if samples is not None:
            for of_one, gain in zip(kept, gains.reshape(-1).tolist(), strict=True):
                of_one[f"{self.where}.gain"] = max(gain, self.setting.least_gain)
        for key, field in zip(self.keys, state, strict=True):
            for of_one, value in zip(kept, np.asarray(field), strict=True):
                of_one[key] = torch.from_numpy(value.copy())

    def step(self, batch: Batch, sample: Tensors | None) -> Seen:
        """Move the means by the gains."""
        key = f"{self.where}.mean"
        mean = batch.read(key)
        if sample is None:
            return Seen(mean, None)
        moved = toward(mean, sample, batch.read(f"{self.where}.gain"))
        return Seen(batch.write(key, moved, mean), None)


def _stacked(fields: Sequence[Any]) -> Any:
    """A field of all tensors, (tensors, members, channels or 1)."""
    shape = np.broadcast_shapes(*(field.shape for field in fields))
    return np.stack([np.broadcast_to(field, shape) for field in fields]).view(Pooled)


def projected(sample: Tensor, directions: int, power: int = 1) -> Tensor:
    """Sums of coordinates with fixed random signs, each coordinate in one of the sums, (directions,)."""
    flat = sample.detach().reshape(-1).float() if sample.element_size() < 4 else sample.detach().reshape(-1)
    flat = flat if power == 1 else flat**power
    rows = flat.numel() // directions
    sums = signs(rows + 1, flat.device, flat.dtype)[:rows] @ flat[: rows * directions].view(rows, directions)
    sums[: flat.numel() - rows * directions] += flat[rows * directions :]
    return sums


def signs(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Random signs, always the same for a number of them; those of tensors alike in size are kept once."""
    return _signs(max(1, count - 1).bit_length(), device, dtype)[:count]


@functools.lru_cache(maxsize=8)
def _signs(bits: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    drawn = np.random.default_rng(bits).integers(0, 2, 2**bits, dtype=np.int8)
    return torch.from_numpy(2 * drawn - 1).to(device, dtype)
