"""The recursive estimators on JAX arrays: streams, gradients in optax, averaged weights in flax.

``filter``, ``init`` and ``update`` need jax alone; ``filtered``, ``scale_by_moments`` and ``filtered_adam``
optax; ``ParameterAverage`` flax. The extra ``kalmean[jax]`` brings all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators._lazy import lazily

if TYPE_CHECKING:
    from estimators.jax.averaging import AverageState, ParameterAverage
    from estimators.jax.filtering import Filtered, filter, init, update  # noqa: A004
    from estimators.jax.optimiser import filtered, filtered_adam, scale_by_moments

_HOMES = {
    "averaging": ("AverageState", "ParameterAverage"),
    "filtering": ("Filtered", "filter", "init", "update"),
    "optimiser": ("filtered", "filtered_adam", "scale_by_moments"),
}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazily(__name__, _HOMES, "jax", ("jax", "optax", "flax"))

__all__ = [
    "AverageState",
    "Filtered",
    "ParameterAverage",
    "filter",
    "filtered",
    "filtered_adam",
    "init",
    "scale_by_moments",
    "update",
]
