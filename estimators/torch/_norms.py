"""Norms of the gradients of several losses by the parameters that they share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from estimators._parameters import require


def gradient_norms(
    losses: Sequence[Tensor], shared_parameters: Iterable[Tensor] | Tensor | nn.Module
) -> Tensor:
    """Euclidean norm, over all shared parameters together, of the gradient of each loss; float64, (K,).

    0 for a loss that does not depend on them. The graph is kept for the ``backward`` to come, and none is
    made. Raises ValueError without a parameter that requires a gradient, RuntimeError where gradients are
    switched off.
    """
    if not torch.is_grad_enabled():
        raise RuntimeError("gradients are switched off (torch.no_grad): balancing needs those of every loss")
    if isinstance(shared_parameters, nn.Module):
        shared_parameters = shared_parameters.parameters()
    given = [shared_parameters] if isinstance(shared_parameters, Tensor) else list(shared_parameters)
    for one in given:
        tensors = "tensors, as parameters() has them"
        require("gradient_norms", "shared_parameters", one, isinstance(one, Tensor), tensors)
    shared = [parameter for parameter in given if parameter.requires_grad]
    require("gradient_norms", "shared_parameters", given, shared, "tensors, some of which require a gradient")
    norms = []
    for loss in losses:
        gradients: Iterable[Tensor | None] = ()
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        # In the width of a half the squares of most gradients are 0.
        parts = [
            torch.linalg.vector_norm(gradient, dtype=torch.float64)
            for gradient in gradients
            if gradient is not None
        ]
        zero = torch.zeros((), dtype=torch.float64, device=loss.device)
        norms.append(torch.linalg.vector_norm(stacked([zero, *parts])))
    return stacked(norms)


def stacked(numbers: Sequence[Tensor]) -> Tensor:
    """Scalars in one tensor, where the first one is."""
    return torch.stack([number.to(numbers[0].device) for number in numbers])
