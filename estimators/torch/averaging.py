"""Averages of a model over its training: torch's AveragedModel, moved by any estimator."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim.swa_utils import AveragedModel

from estimators._base import BaseEstimator
from estimators._parameters import ByValue, brief, require
from estimators._saving import setting
from estimators.protocol import Trait
from estimators.torch._moments import ON_HOST, Moment, OnHost, moment_of
from estimators.torch._pieces import SIZE, Batch, Kept, all_below, cut, kind_of, settled

MEAN = "estimator.mean"
"""Of what is kept of a tensor, what the module's own tensor is where precisions are the same."""
MEAN_ON_HOST = f"estimator.{ON_HOST}mean"
"""The mean of an estimator that runs in NumPy."""


class FilteredModel(AveragedModel):
    """Copy of a model that holds the mean of its weights as an estimator has it; a torch ``AveragedModel``.

    estimator: any whose parameters are single numbers, or a ``PerTensor``; each weight is a channel, each
    ``update_parameters`` a sample. What all weights of a tensor share is one float64; an estimator whose gain
    depends on the data keeps its whole state for every weight. One that starts from nothing holds the first
    sample after the first update: ``DebiasedEMA``, or ``Kalman(q=0.0, r=1.0)`` with equal weights (Polyak and
    Juditsky 1992, SIAM J. Control Optim. 30). One that states a start, which must be 0 and stands for the
    model as it is when this is made, moves on from there: ``EMA(0.996)`` is the target of BYOL (Grill et al.
    2020, arXiv 2006.07733), ``EMA(0.999)`` the key encoder of MoCo (He et al. 2020, arXiv 1911.05722).

    The mean is kept in ``dtype``, or in the precision of the weights if that is higher: in the module's own
    tensors, which stay where they are, or beside them and rounded into them after every update. (A mean of
    single precision no longer sees a difference below 6e-8 of the weight over the gain; float64 does.)
    Weights that are shared move once. A tensor that is not finite throughout is a missing sample: time
    passes for its mean. Integers are copied.

    use_buffers: False copies all buffers from the model at every update; True averages those of real or
    complex numbers that a ``state_dict`` holds. Neither makes batch-norm's statistics those of the averaged
    weights: ``torch.optim.swa_utils.update_bn`` does. Models are paired by the order of their tensors, so
    that a model and what wraps it for several devices pair. Updates make no graph, and may happen in
    inference mode.

    ``state_dict`` holds what the estimator keeps, in numbers, text and tensors alone. Raises TypeError for
    what is no estimator, ValueError for one that cannot average weights, for a model of other tensors and for
    a state saved under another estimator.
    """

    def __init__(
        self,
        model: Module,
        estimator: Any,
        device: int | torch.device | None = None,
        use_buffers: bool = False,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        name = type(self).__name__
        if not isinstance(estimator, ByValue):
            raise TypeError(f"{name}: estimator={brief(estimator)} is not valid; it must be an estimator")
        either = Trait.POSITIVE not in getattr(estimator, "traits", ())
        require(name, "estimator", estimator, either, "one that takes weights of either sign")
        require(name, "dtype", dtype, dtype.is_floating_point, "of floating-point numbers")
        moment = cast(Moment, moment_of(name, "estimator", estimator, 1))
        start = estimator.init(0.0).mean if isinstance(estimator, BaseEstimator) else moment.fresh()[MEAN]
        stated = start == 0.0 and not isinstance(moment, OnHost)
        valid = "one that starts from nothing, or at 0, which stands for the model as it is"
        require(name, "estimator", estimator, stated or start != start, valid)

        super().__init__(model, device, use_buffers=use_buffers)
        self.estimator, self.dtype, self._moment = estimator, dtype, moment
        fresh = {key: value for key, value in moment.fresh().items() if not (stated and key == MEAN)}
        self._kept: dict[str, Kept] = {name: dict(fresh) for name in self._averaged()}

    def update_parameters(self, model: Module) -> None:
        """Take the model's weights as one more sample; ValueError, and nothing moved, if they do not pair."""
        # What is made in inference mode could not be moved in place outside it.
        with torch.inference_mode(False), torch.no_grad(), np.errstate(all="ignore"):
            moved = []
            for name, own, live in list(self._paired(model)):
                if name in self._kept:
                    moved.append((name, self._sampled(name, own, live)))
                else:
                    own.copy_(live)
            for alike in _split([one for _, one in moved]):
                _take(alike, self._moment)
            for name, one in moved:
                self._kept[name] = kept = one.kept
                if isinstance(self._moment, OnHost) and MEAN_ON_HOST in kept:  # the mean is kept there alone
                    one.own.copy_(kept[MEAN_ON_HOST])
                    kept[MEAN] = math.nan
                elif kept[MEAN] is one.own:
                    del kept[MEAN]
                elif isinstance(kept[MEAN], Tensor):
                    one.own.copy_(kept[MEAN])
            self.n_averaged += 1

    def get_extra_state(self) -> dict[str, Any]:
        """What is kept of each tensor beside the mean in the module, and under which estimator."""
        return {**setting(self.estimator), "kept": self._kept}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``get_extra_state`` gave; ValueError if that is of another estimator or model."""
        name, mine = type(self).__name__, setting(self.estimator)
        saved = {key: state.get(key) for key in mine}
        if saved != mine:
            raise ValueError(f"{name}: the average was saved under {saved}; it must be {mine}")
        if differ := sorted(state["kept"].keys() ^ self._kept.keys()):
            raise ValueError(
                f"{name}: the saved average is of other tensors: {brief(differ)} are in one alone"
            )
        for tensor, kept in state["kept"].items():
            self._kept[tensor] = {
                key: value.detach().clone() if isinstance(value, Tensor) else value
                for key, value in kept.items()
            }

    def extra_repr(self) -> str:
        """The estimator."""
        return f"estimator={self.estimator!r}"

    def _averaged(self) -> Iterator[str]:
        """Names of the tensors that are averaged, not copied."""
        held = {id(tensor) for tensor in self.module.state_dict(keep_vars=True).values()}
        named = [self.module.named_parameters(), self.module.named_buffers() if self.use_buffers else ()]
        for name, tensor in (pair for pairs in named for pair in pairs):
            if id(tensor) in held and (tensor.is_floating_point() or tensor.is_complex()):
                yield name

    def _paired(self, model: Module) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, own tensor and the model's, complex ones as two real numbers each."""
        for kind in ("parameters", "buffers"):
            own, live = list(getattr(self.module, f"named_{kind}")()), list(getattr(model, kind)())
            shapes = [tuple(tensor.shape) for _, tensor in own], [tuple(tensor.shape) for tensor in live]
            if shapes[0] != shapes[1]:
                mine, theirs = (brief(of_one) for of_one in shapes)
                raise ValueError(
                    f"{type(self).__name__}: the model's {kind} have shapes {theirs}; they must be {mine}"
                )
            for (name, mean), tensor in zip(own, live, strict=True):
                pair = mean.detach(), tensor.detach()
                if pair[0].is_complex():
                    pair = torch.view_as_real(pair[0]), torch.view_as_real(pair[1].resolve_conj())
                yield name, *pair

    def _sampled(self, name: str, own: Tensor, live: Tensor) -> Sampled:
        """A tensor, its sample, and what is kept of it where and in the precision in which it is averaged."""
        device, dtype = own.device, torch.promote_types(own.dtype, self.dtype)
        kept = {
            key: value.to(device, dtype) if isinstance(value, Tensor) and ON_HOST not in key else value
            for key, value in {MEAN: own, **self._kept[name]}.items()
        }
        sample = live.to(device, dtype)
        return Sampled(own, sample.contiguous() if own.is_contiguous() else sample, kept)


class Sampled(NamedTuple):
    """A tensor of the averaged module, its sample (None: missing) and what is kept of it."""

    own: Tensor
    sample: Tensor | None
    kept: Kept


def _split(tensors: Sequence[Sampled]) -> Iterator[list[Sampled]]:
    """Lists of one kind; a sample that is not finite throughout is missing."""
    finite = all_below([cast(Tensor, one.sample) for one in tensors], lambda _: math.inf)
    kinds: dict[Any, list[Sampled]] = {}
    for one, present in zip(tensors, finite, strict=True):
        seen = one if present else one._replace(sample=None)
        kinds.setdefault(kind_of(seen.own, seen.sample is None, seen.kept), []).append(seen)
    yield from kinds.values()


def _take(tensors: Sequence[Sampled], moment: Moment) -> None:
    """Take samples of tensors of one kind, or their absence, into what is kept of them."""
    own, kept = [one.own for one in tensors], [one.kept for one in tensors]
    samples = [one.sample for one in tensors if one.sample is not None]
    moment.prepare(kept, samples or None)
    news: list[Kept] = [{"like": mean} for mean in own]
    for of_one, new, mean, sample in zip(kept, news, own, samples, strict=False):
        if not isinstance(of_one[MEAN], Tensor) and sample.dtype == mean.dtype:
            new[MEAN] = mean
    for pieces in cut(own, SIZE if own[0].device.type == "cpu" else None):
        batch = Batch(pieces, kept, news)
        moment.step(batch, batch.of(samples) if samples else None)
    settled(kept, news)
