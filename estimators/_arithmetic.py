"""Arithmetic that reads the same on Python floats, NumPy arrays and inside compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np


def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
    """Choose by a condition, elementwise on arrays and without evaluating NumPy on plain floats."""
    if isinstance(condition, (np.ndarray, np.generic)):
        return np.where(condition, chosen, otherwise)
    if hasattr(condition, "_where_"):  # a recursion is being traced: there are no numbers yet
        return condition._where_(chosen, otherwise)
    return chosen if condition else otherwise


def toward(mean: Any, sample: Any, gain: Any) -> Any:
    """Move a mean towards a sample: mean + gain * (sample - mean), the one line all recursions share.

    A gain of one forgets: the mean becomes the sample exactly, even where there was no mean (NaN) before.
    """
    return where(gain == 1.0, sample, mean + gain * (sample - mean))
