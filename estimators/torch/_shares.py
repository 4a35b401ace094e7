"""From gradients to shares of K tasks: norms, rules, and the floors below which no share may fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from estimators._parameters import require

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Shares = NDArray[np.float64]

LEAST = 1e-300
"""Of a share: a ratio of norms beyond all floats would leave 0, which has no logarithm."""


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


def by_inverse_norm(norms: Shares) -> Shares:
    """1/n over the sum of all 1/n: then every share times its norm is the same."""
    # Relative to the least norm, as 1/n of the smallest floats overflows.
    ratio = norms.min() / norms
    shares: Shares = ratio / ratio.sum()
    return shares


def by_sum_of_others(norms: Shares) -> Shares:
    """(S - n) / ((K - 1) S), S the sum of all norms; of one task alone, 1."""
    if norms.size == 1:
        return np.ones(1)
    relative = norms / norms.max()
    others = (1.0 - np.eye(norms.size)) @ relative  # summed, as S - n cancels where n is nearly all of S
    shared: Shares = others / ((norms.size - 1) * relative.sum())
    return shared


RULES = {"inverse_norm": by_inverse_norm, "sum_of_others": by_sum_of_others}


def split(norms: Shares, held: Shares, rule: Any) -> Shares:
    """Shares of the tasks whose norms are there, of what the others (NaN) do not hold; NaN for these."""
    there = ~np.isnan(norms)
    shares = np.full(norms.shape, np.nan)
    if there.any():
        free = 1.0 - held[~there].sum()
        shares[there] = np.maximum(free * rule(norms[there]), LEAST)
    return shares


def simplex(values: Shares) -> Shares:
    """Values, negative ones taken for 0, over their sum; equal shares where nothing is left."""
    kept = np.maximum(values, 0.0)
    total = kept.sum()
    return kept / total if total > 0.0 else np.full(values.shape, 1.0 / values.size)


def clipped(shares: Shares, floor: float) -> Shares:
    """max(w, floor) over the sum: each is at least floor / (1 + (K - 1) floor)."""
    raised = np.maximum(shares, floor)
    bounded: Shares = raised / raised.sum()
    return bounded


def projected(shares: Shares, floor: float) -> Shares:
    """Shares >= floor nearest in relative entropy: those above it keep their ratios and pay for the rest."""
    low = np.zeros(shares.shape, bool)
    while True:
        rest = 1.0 - floor * np.count_nonzero(low)
        scaled = np.where(low, floor, shares * (rest / shares[~low].sum()))
        below = scaled < floor
        if not below.any():
            return scaled
        low |= below
        if low.all():  # by rounding, a floor being next to 1/K
            return np.full(shares.shape, 1.0 / shares.size)


FLOORS = {"clip": clipped, "project": projected}
