"""What gain, and so what beta, the noise of each tensor's gradient asks for: a diagnosis of any optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from estimators._parameters import BETWEEN_0_AND_1, real
from estimators.bank import KalmanBank
from estimators.torch._pieces import Kept
from estimators.torch.per_tensor import PerTensor, Steered

if TYPE_CHECKING:
    from pandas import DataFrame, Series
    from torch.utils.hooks import RemovableHandle

_WATCH = "_gain_watch"
"""Attribute by which an optimiser carries its watch."""


def watch_gains(optimizer: Optimizer, setting: Any = None) -> RemovableHandle:
    """Let an optimiser's gradients be watched from now on, before each of its steps, at one pass over them.

    setting: how gains are found, PerTensor(KalmanBank()) by default, or an estimator for PerTensor. A
    gradient that is None or not finite is missing. Returns a handle: ``remove()`` ends the watch, and so
    does another one. What it has seen is not in the optimiser's ``state_dict``. PerTensor moments need none.
    """
    watch = _Watch(setting if isinstance(setting, PerTensor) else PerTensor(setting or KalmanBank()))
    earlier: _Watch | None = getattr(optimizer, _WATCH, None)
    if earlier is not None:
        earlier.handle.remove()
    setattr(optimizer, _WATCH, watch)
    watch.handle = optimizer.register_step_pre_hook(watch)
    return watch.handle


def gain_report(optimizer: Optimizer, model: Module | None = None) -> DataFrame:
    """Gain that estimates each tensor's gradient best, and what an EMA of that gain is, one row each.

    Columns: coordinates; gain; beta = 1 - gain; half_life in steps; signal_to_noise, the q/r of the random
    walk with that gain. model: whose names of parameters the rows have. Read it as a diagnosis: the beta
    that estimates best is slower than what trains best where the learning rate is high. Raises ValueError
    where neither ``watch_gains`` nor a first moment PerTensor has seen a gradient.
    """
    import pandas as pd

    from estimators.ema import EMA

    rows, index = [], []
    for name, parameter, gain in _gains(optimizer, model):
        ema = EMA(1.0 - gain)
        rows.append((parameter.numel(), gain, ema.beta, ema.half_life, ema.signal_to_noise))
        index.append(name)
    if not rows:
        raise ValueError(
            "gain_report: no gradient was seen; call watch_gains(optimizer) before training, or make a "
            "PerTensor the first moment of FilteredAdam"
        )
    columns = ["coordinates", "gain", "beta", "half_life", "signal_to_noise"]
    return pd.DataFrame(rows, columns=columns, index=pd.Index(index, name="tensor"))


class Betas(NamedTuple):
    """Beta of the first moment for all tensors together, and for each."""

    overall: float
    by_tensor: Series[float]


def suggest_betas(optimizer: Optimizer, model: Module | None = None, largest: float = 0.95) -> Betas:
    """Betas that the gradients' own noise asks for, none above ``largest``, in (0, 1).

    Overall: of the mean gain of all coordinates. What estimates a gradient best is slower than what trains
    best where the learning rate decays (``experiment=optimiser``): hence the bound. Raises as
    ``gain_report`` does.
    """
    bound = float(real("suggest_betas", "largest", largest, BETWEEN_0_AND_1))
    report = gain_report(optimizer, model)
    gain = float((report["gain"] * report["coordinates"]).sum() / report["coordinates"].sum())
    return Betas(min(1.0 - gain, bound), report["beta"].clip(upper=bound))


class _Watch:
    """Steers gains by the gradients that are about to be used."""

    def __init__(self, setting: PerTensor) -> None:
        self.handle: RemovableHandle
        self.filter: Steered = setting.moment("watch", 1)
        self.kept: dict[Tensor, Kept] = {}

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        present, missing = [], []
        for parameter in _parameters(optimizer):
            gradient = parameter.grad
            if gradient is not None and bool(torch.isfinite(gradient.to_dense()).all()):
                present.append((parameter, gradient.to_dense()))
            elif parameter in self.kept:
                missing.append(parameter)
        for parameter, _gradient in present:
            self.kept.setdefault(parameter, self.filter.fresh())
        if present:
            self.filter.prepare([self.kept[p] for p, _ in present], [gradient for _, gradient in present])
        if missing:
            self.filter.prepare([self.kept[parameter] for parameter in missing], None)


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _gains(optimizer: Optimizer, model: Module | None) -> Iterator[tuple[str, Tensor, float]]:
    named: Iterable[tuple[str, Tensor]] = model.named_parameters() if model is not None else ()
    names = {parameter: name for name, parameter in named}
    watch = getattr(optimizer, _WATCH, None)
    for place, parameter in enumerate(_parameters(optimizer)):
        found = optimizer.state.get(parameter, {}).get("first.gain")
        if watch is not None and parameter in watch.kept:
            found = watch.kept[parameter]["watch.gain"]
        if found is not None:
            yield names.get(parameter, f"tensor {place}"), parameter, found
