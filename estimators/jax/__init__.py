"""The recursive estimators on JAX arrays: streams, gradients in optax, averaged weights in flax.

``filter``, ``init`` and ``update`` need jax alone; ``filtered``, ``scale_by_moments`` and ``filtered_adam``
optax; ``ParameterAverage`` flax. The extra ``kalmean[jax]`` brings all three.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from estimators.jax.averaging import AverageState, ParameterAverage
    from estimators.jax.filtering import Filtered, filter, init, update  # noqa: A004
    from estimators.jax.optimiser import filtered, filtered_adam, scale_by_moments

_HOMES = {
    "averaging": ("AverageState", "ParameterAverage"),
    "filtering": ("Filtered", "filter", "init", "update"),
    "optimiser": ("filtered", "filtered_adam", "scale_by_moments"),
}
"""Public names by the module that defines them, which is imported when one is first asked for."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_NEEDS = ("jax", "optax", "flax")

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


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOME_OF[name]}")
    except ModuleNotFoundError as error:
        if error.name not in _NEEDS:
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs {error.name}, which is not installed: pip install 'kalmean[jax]'",
            name=error.name,
        ) from error
    found = getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
