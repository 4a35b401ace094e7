"""How well first moments estimate the gradient of the whole training set, along one run of Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.problems import Problem
from experiments.streams import Array

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LEARNING_RATE = 3e-3
"""Of the Adam whose run all filters see."""
RAW = "raw"
"""Name of the gradient of a minibatch as it is."""


class Quality(NamedTuple):
    """How a filter of gradients does, by seed."""

    nmse: Array
    """Squared error over the squared gradient of the whole set, both summed over steps and coordinates."""
    cosine: Array
    """Of the angle to the gradient of the whole set, over all coordinates at once, mean over the steps."""
    gain: Array | None
    """Mean over steps and coordinates of a gain that a filter has found for itself; None: it finds none."""


def qualities(
    problem: Problem, firsts: Mapping[str, Any], seeds: Sequence[int], steps: int, warmup: int
) -> dict[str, Quality]:
    """Filter the gradients that Adam meets, as FilteredAdam itself does, and compare with the whole set's.

    firsts: estimators by name, beside which the gradient itself is judged as "raw". Both are those of the
    parameters before the step. The first ``warmup`` steps are not counted, of ``steps`` in all.
    """
    import torch

    from estimators.torch.optimiser import FilteredAdam

    replicas = problem.start(seeds)
    tensors = [tensor for own in replicas.parameters for tensor in own]
    adam = FilteredAdam(tensors, lr=LEARNING_RATE, weight_decay=0.0)
    twins = {name: _twins(replicas.parameters) for name in firsts}
    filters = {
        name: FilteredAdam([twin for own in twins[name] for twin in own], first=first, second=None)
        for name, first in firsts.items()
    }
    errors = {name: torch.zeros(len(replicas), dtype=torch.float64) for name in (RAW, *filters)}
    cosines = {name: torch.zeros(len(replicas), dtype=torch.float64) for name in errors}
    gains = {name: np.zeros(len(replicas)) for name in filters}
    squares = torch.zeros(len(replicas), dtype=torch.float64)
    for step in range(steps):
        replicas.backward(step)
        for one in filters.values():
            one.step()
        if step >= warmup:
            truth = replicas.gradient()
            squares += _squares(truth)
            seen: dict[str, list[Any]] = {RAW: [tensor.grad for tensor in replicas.stacked]}
            for name, one in filters.items():
                seen[name] = _means(one, twins[name])
                gains[name] += _gains(one, twins[name]) / (steps - warmup)
            for name, means in seen.items():
                errors[name] += _squares([mean - true for mean, true in zip(means, truth, strict=True)])
                cosines[name] += _cosine(means, truth) / (steps - warmup)
        adam.step()
    return {
        name: Quality((error / squares).numpy(), cosines[name].numpy(), _known(gains.get(name)))
        for name, error in errors.items()
    }


def _twins(parameters: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Tensors that share the gradients of others, so that what filters these can move what it likes."""
    import torch

    twins = [[torch.zeros_like(tensor).requires_grad_() for tensor in own] for own in parameters]
    for own, originals in zip(twins, parameters, strict=True):
        for twin, tensor in zip(own, originals, strict=True):
            twin.grad = tensor.grad
    return twins


def _squares(parts: Sequence[Any]) -> Tensor:
    """Sum of squares over all coordinates of each replicate, (R,)."""
    import torch

    return torch.stack([part.double().square().flatten(1).sum(1) for part in parts]).sum(0)


def _cosine(these: Sequence[Tensor], those: Sequence[Tensor]) -> Tensor:
    """Cosine of the angle between two vectors of all coordinates, by replicate, (R,)."""
    import torch

    products = [a.double() * b.double() for a, b in zip(these, those, strict=True)]
    product = torch.stack([part.flatten(1).sum(1) for part in products]).sum(0)
    return product / (_squares(these) * _squares(those)).sqrt()


def _means(filtered: torch.optim.Optimizer, parameters: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Means of a filter, (R, ...) for each tensor of the network."""
    import torch

    return [
        torch.stack([filtered.state[tensor]["first.mean"] for tensor in of_all])
        for of_all in zip(*parameters, strict=True)
    ]


def _gains(filtered: torch.optim.Optimizer, parameters: Sequence[Sequence[Tensor]]) -> Array:
    """Mean gain over the coordinates of each replicate, (R,); NaN where the filter keeps none."""
    gains = np.array(
        [
            [tensor.numel() * filtered.state[tensor].get("first.gain", np.nan) for tensor in own]
            for own in parameters
        ]
    )
    mean: Array = gains.sum(1) / sum(tensor.numel() for tensor in parameters[0])
    return mean


def _known(gains: Array | None) -> Array | None:
    return None if gains is None or np.isnan(gains).all() else gains
