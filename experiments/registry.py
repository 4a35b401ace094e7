"""Names to classes: estimators, streams and experiments are found where they are defined."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import estimators
from estimators._base import BaseEstimator
from experiments import executors, recorded, streams
from experiments.executors import Executor
from experiments.streams import Stream


@functools.cache
def estimator_kinds() -> Mapping[str, type[BaseEstimator]]:
    """Every concrete estimator of the library under its name in snake case."""
    kinds: dict[str, type[BaseEstimator]] = {}
    for module in pkgutil.iter_modules(estimators.__path__):
        if not module.name.startswith("_"):
            with suppress(ImportError):  # an adapter whose extra is not installed
                kinds |= _concrete(importlib.import_module(f"estimators.{module.name}"), BaseEstimator)
    return kinds


@functools.cache
def stream_kinds() -> Mapping[str, type[Stream]]:
    """Every concrete stream under its name in snake case."""
    return _concrete(streams, Stream) | _concrete(recorded, Stream)


@functools.cache
def executor_kinds() -> Mapping[str, type[Executor]]:
    """Every executor, under the name of its module; what it needs is imported when it runs."""
    kinds: dict[str, type[Executor]] = {}
    for module in pkgutil.iter_modules(executors.__path__):
        found = _concrete(importlib.import_module(f"experiments.executors.{module.name}"), object)
        kinds[module.name] = found[module.name]
    return kinds


def experiment(name: str) -> Any:
    """Module of an experiment: ``Parameters``, a dataclass, with ``measure`` and ``report``, or with ``run``.

    measure(condition, estimator, repetitions) is what each cell of it computes, and report(panels, summary)
    what people read of them. run(setup) computes the whole outcome instead, where there are no cells.
    """
    return importlib.import_module(f"experiments.{name}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """Say what would be valid in place of a name, the nearest first."""
    options = list(valid)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    listed = ", ".join(options) or "none"
    return f"did you mean {close[0]}? valid: {listed}" if close else f"valid: {listed}"


def _concrete(module: Any, base: type) -> dict[str, Any]:
    return {
        snake_case(name): member
        for name, member in vars(module).items()
        if inspect.isclass(member)
        and issubclass(member, base)
        and member.__module__ == module.__name__
        and not inspect.isabstract(member)
        and not name.startswith("_")
    }


def snake_case(name: str) -> str:
    """``DebiasedEMA`` to ``debiased_ema``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
