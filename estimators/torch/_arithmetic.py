"""The arithmetic of recursions on torch tensors, beside plain numbers that all channels share."""

from __future__ import annotations

from typing import Any

import torch
from torch import exp, log, sqrt

__all__ = ["exp", "log", "sqrt", "toward", "where"]


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition: of each channel, or one that all share."""
    if not isinstance(condition, torch.Tensor):
        return chosen if condition else otherwise
    return torch.where(condition, chosen, otherwise)


def toward(mean: Any, sample: Any, gain: Any) -> Any:
    """Move a mean towards a sample in one pass over them; a gain of one forgets."""
    if isinstance(gain, torch.Tensor):
        return where(gain == 1.0, sample, mean + gain * (sample - mean))
    if gain == 1.0 or not isinstance(mean, torch.Tensor):
        return sample if gain == 1.0 else mean + gain * (sample - mean)
    return torch.lerp(mean, sample, gain)
