"""The arithmetic of recursions on JAX arrays, traced ones among them."""

from __future__ import annotations

from typing import Any

from jax.numpy import exp, log, sqrt, where

__all__ = ["exp", "log", "sqrt", "toward", "where"]


def toward(mean: Any, sample: Any, gain: Any) -> Any:
    """Move a mean towards a sample; a gain of one forgets."""
    return where(gain == 1.0, sample, mean + gain * (sample - mean))
