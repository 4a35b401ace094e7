"""The arithmetic of recursions on torch tensors, beside plain numbers that all channels share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import exp, log, sqrt

from estimators._arithmetic import moved

__all__ = ["exp", "log", "sqrt", "toward", "where"]


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition: of each channel, or one that all share."""
    if not isinstance(condition, torch.Tensor):
        return chosen if condition else otherwise
    choices = chosen, otherwise
    of_numbers = torch.bool if all(isinstance(choice, bool) for choice in choices) else wide(condition.device)
    dtype = next((c.dtype for c in choices if isinstance(c, torch.Tensor)), of_numbers)
    return torch.where(condition, *(_of_dtype(choice, dtype) for choice in choices))


def _of_dtype(value: Any, dtype: torch.dtype) -> Any:
    """A number as one of a dtype, infinite where it is beyond that."""
    if isinstance(value, torch.Tensor):
        return value
    beyond = dtype.is_floating_point and abs(value) > torch.finfo(dtype).max
    return torch.tensor(math.copysign(math.inf, value) if beyond else value, dtype=dtype)


def toward(mean: Any, sample: Any, gain: Any) -> Any:
    """Move a mean towards a sample, in one pass over them where they share the gain."""
    if isinstance(gain, torch.Tensor):
        mean = where(gain == 1.0, sample, mean)  # or a mean of NaN would be in the gradient of the gain
    elif gain != 1.0 and isinstance(mean, torch.Tensor):
        return torch.lerp(mean, sample, gain)
    return moved(mean, sample, gain)


def wide(device: torch.device) -> torch.dtype:
    """float64 where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64
