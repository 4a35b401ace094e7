"""Running statistics of batch-norm layers by the gains of an estimator instead of one momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from estimators._parameters import brief, require
from estimators._recursive import LONGEST, Recursive
from estimators.ema import EMA

_FILTERED = "_filtered_from"
"""Attribute of a layer that is filtered: the momentum that it had."""


class FilteredBatchNorm:
    """What ``filter_batch_norm`` has added to a model, to be taken away by ``remove``."""

    def __init__(self, layers: Iterable[_BatchNorm], estimator: Any) -> None:
        gains, settled = _Gains(estimator), float(estimator.steady_gain)
        self._steps = [_Step(layer, gains, settled) for layer in layers]

    def remove(self) -> None:
        """Give every layer back the momentum that it had; a second call does nothing."""
        for step in self._steps:
            step.remove()
        self._steps = []


def filter_batch_norm(model: Module, estimator: Any) -> FilteredBatchNorm:
    """Filter the running mean and variance of every batch-norm layer of a model by an estimator.

    Each training batch is a sample of its mean and its unbiased variance; the layer's momentum is the gain
    of that step: 1 - beta for ``EMA(beta)``, a cumulative average (momentum None) for ``Kalman(q=0.0,
    r=1.0)``, and 1 at the first batch of whatever starts from nothing, so that the layer's initial 0 and 1
    leave no trace. A start that is stated must be 0 and stands for the statistics as they are. The step is
    the layer's ``num_batches_tracked``, which its own ``state_dict`` holds: a resumed model, filtered by the
    same estimator, goes on bit for bit.

    Between forward passes ``momentum`` is the gain at which the estimator settles; while it is set to
    anything else, as by ``torch.optim.swa_utils.update_bn``, the layer is left alone. A gain that never moves
    is set once; where it moves, a compiled model breaks its graph, as momentum is a constant to the compiler.
    To be called after ``convert_sync_batchnorm``, which makes layers of its own. Raises ValueError for
    an estimator whose gains depend on the data or differ between channels, for a model without batch-norm
    layers that track statistics, and for one that is filtered already.

    The momentum of Ioffe and Szegedy (2015), arXiv 1502.03167, section 3.1, is the gain of an EMA.
    """
    name = "filter_batch_norm"
    known = isinstance(estimator, Recursive) and estimator._settles and not estimator._parameter_shapes
    known = known and hasattr(estimator, "steady_gain")
    valid = (
        "one whose gains are known before the data and the same for all channels: EMA, DebiasedEMA, Kalman"
    )
    require(name, "estimator", estimator, known, valid)
    start = np.asarray(estimator._prior().mean)
    valid = "one that starts from nothing, or at 0, which stands for the statistics as they are"
    require(name, "estimator", estimator, np.all(np.isnan(start)) or not np.any(start), valid)
    found = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    layers = [layer for layer in found if layer.track_running_stats]
    if not layers:
        raise ValueError(f"{name}: the model {brief(model)} has no batch-norm layer that tracks statistics")
    for layer in layers:
        if hasattr(layer, _FILTERED):
            raise ValueError(f"{name}: the layer {layer} is filtered already; remove() what filters it first")
    return FilteredBatchNorm(layers, estimator)


class _Step:
    """Sets the momentum of one layer for a forward pass, and brings it to rest after that."""

    def __init__(self, layer: _BatchNorm, gains: _Gains, settled: float) -> None:
        self._layer, self._gains, self._settled = layer, gains, settled
        setattr(layer, _FILTERED, layer.momentum)
        layer.momentum, self._set = settled, False
        self._hooks: list[RemovableHandle] = []
        if not gains.constant:
            self._hooks = [
                layer.register_forward_pre_hook(self.before),
                layer.register_forward_hook(self.after, always_call=True),
            ]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before(self, layer: _BatchNorm, arguments: Any) -> None:
        """Set the gain of the batch that is about to be counted."""
        if layer.training and layer.momentum == self._settled:
            layer.momentum, self._set = self._gains.of(int(cast(Tensor, layer.num_batches_tracked))), True

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def after(self, layer: _BatchNorm, arguments: Any, output: Any) -> None:
        """Bring the layer to rest, also where the pass has failed."""
        if self._set:
            layer.momentum, self._set = self._settled, False

    def remove(self) -> None:
        """Leave the layer as it was found, unless somebody else has set its momentum since."""
        for hook in self._hooks:
            hook.remove()
        if self._layer.momentum == self._settled:
            self._layer.momentum = getattr(self._layer, _FILTERED)
        delattr(self._layer, _FILTERED)


class _Gains:
    """Gains of an estimator by step, found for many at once from where the steps before them led."""

    def __init__(self, estimator: Any) -> None:
        self._estimator, self._starts = estimator, [estimator.init(0.0)]
        self._block, self._gains = -1, np.empty(0)

    @property
    def constant(self) -> bool:
        """Whether no gain differs from the first."""
        return isinstance(self._estimator, EMA) and self._estimator.initial is not None

    def of(self, step: int) -> float:
        """The gain of a step, 0 the first."""
        block, place = divmod(step, LONGEST)
        if block != self._block:
            while len(self._starts) <= block:
                self._starts.append(self._run(len(self._starts) - 1).state)
            self._block, self._gains = block, np.array(self._run(block).gain)
        return float(self._gains[place])

    def _run(self, block: int) -> Any:
        return self._estimator.filter(np.zeros(LONGEST), state=self._starts[block])
