"""Estimators inside training: FilteredAdam, balanced losses, averaged models, gains (kalmean[torch])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators._lazy import lazily

if TYPE_CHECKING:
    from estimators.torch.averaging import FilteredModel
    from estimators.torch.balancing import EqualWeights, GradientBalancer, GradNorm, RandomWeights
    from estimators.torch.batch_norm import filter_batch_norm
    from estimators.torch.filtering import filter  # noqa: A004
    from estimators.torch.gains import gain_report, suggest_betas, watch_gains
    from estimators.torch.optimiser import FilteredAdam
    from estimators.torch.per_tensor import PerTensor
    from estimators.torch.presets import PRESETS

_HOMES = {
    "averaging": ("FilteredModel",),
    "balancing": ("EqualWeights", "GradNorm", "GradientBalancer", "RandomWeights"),
    "batch_norm": ("filter_batch_norm",),
    "filtering": ("filter",),
    "gains": ("gain_report", "suggest_betas", "watch_gains"),
    "optimiser": ("FilteredAdam",),
    "per_tensor": ("PerTensor",),
    "presets": ("PRESETS",),
}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazily(__name__, _HOMES, "torch", ("torch",))

__all__ = [
    "PRESETS",
    "EqualWeights",
    "FilteredAdam",
    "FilteredModel",
    "GradNorm",
    "GradientBalancer",
    "PerTensor",
    "RandomWeights",
    "filter",
    "filter_batch_norm",
    "gain_report",
    "suggest_betas",
    "watch_gains",
]
