"""One step of descent on many tensors at once: moments, direction, what scales it, and the move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from estimators.torch._moments import Moment, Seen, moment_of
from estimators.torch._pieces import SIZE, Batch, Kept, all_below, cut, kind_of, settled
from estimators.torch._tensors import Tensors, beside, sqrt

MOMENTS = ("first", "second")
SHARED = (*MOMENTS, "eps", "trust", "cautious", "extrapolation")
"""Settings that tensors must have in common to be stepped at once."""
TRUSTS = ("layer", "discounted")
LARGEST_NORM = 10.0
"""Norm of a layer's weights beyond which its step grows no more: phi of LAMB (You et al. 2020)."""
LEAST_SHARE = 1e-3
"""Share of the coordinates that a cautious step counts at least."""


class Settings(NamedTuple):
    """Those shared settings, with the moments that their estimators make."""

    moments: tuple[Moment | None, ...]
    eps: float
    trust: str | None
    cautious: bool
    extrapolation: float

    @classmethod
    def of(cls, owner: str, group: Mapping[str, Any]) -> Settings:
        """Those of a group; raises as ``moment_of`` does."""
        moments = (moment_of(owner, where, group[where], power) for power, where in enumerate(MOMENTS, 1))
        return cls(
            tuple(moments), group["eps"], group["trust"], bool(group["cautious"]), group["extrapolation"]
        )

    def fresh(self) -> Kept:
        """What is kept of a tensor before its first gradient."""
        return {key: value for moment in self.moments if moment for key, value in moment.fresh().items()}


class One(NamedTuple):
    """One tensor: its gradient (None: missing), what is kept of it, its own rate and decay."""

    parameter: Tensor
    gradient: Tensor | None
    kept: Kept
    lr: float
    decay: float


def split(tensors: Sequence[One], settings: Settings) -> Iterator[list[One]]:
    """Lists of one kind, gradients laid out; one that is not finite, or whose square is not, is missing."""
    laid_out = [
        one if one.gradient is None else one._replace(gradient=_laid_out(one.gradient, one.parameter))
        for one in tensors
    ]
    gradients = [one.gradient for one in laid_out if one.gradient is not None]
    # A mean of squares, or the difference to a mean, must not overflow either.
    squared = settings.moments[1] is not None
    usable = iter(
        all_below(gradients, lambda dtype: _largest(dtype) ** 0.5 if squared else 0.5 * _largest(dtype))
    )
    kinds: dict[Any, list[One]] = {}
    for one in laid_out:
        seen = one if one.gradient is None or next(usable) else one._replace(gradient=None)
        kind = kind_of(seen.parameter, seen.gradient is None, seen.kept)
        kinds.setdefault(kind, []).append(seen)
    yield from kinds.values()


def _largest(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).max


def _laid_out(gradient: Tensor, parameter: Tensor) -> Tensor:
    """A gradient dense, of at least single precision, and as its parameter lies."""
    dense: Tensor = gradient.to_dense() if gradient.layout is not torch.strided else gradient
    dense = dense.float() if dense.element_size() < 4 else dense
    return dense.contiguous() if parameter.is_contiguous() else dense


def descend(tensors: Sequence[One], settings: Settings) -> None:
    """Step tensors of one kind; those whose gradient is missing see time pass, and stay."""
    kept, news = [one.kept for one in tensors], [{"like": one.parameter} for one in tensors]
    parameters = [one.parameter for one in tensors]
    gradients = None
    if tensors[0].gradient is not None:
        gradients = [one.gradient for one in tensors if one.gradient is not None]
    for moment in settings.moments:
        if moment:
            moment.prepare(kept, gradients)
    whole = settings.trust or settings.cautious or parameters[0].device.type != "cpu"
    for pieces in cut(parameters, None if whole else SIZE):
        batch = Batch(pieces, kept, news)
        samples: list[Any] = [None, None]
        if gradients is not None:
            gradient = batch.of(gradients)
            samples = [gradient, gradient * gradient if settings.moments[1] else None]
        seen = [
            moment.step(batch, sample) if moment else Seen(sample, None)
            for moment, sample in zip(settings.moments, samples, strict=True)
        ]
        if gradients is not None:
            _move(batch, tensors, settings, seen, gradient)
    settled(kept, news)


def _move(
    batch: Batch, tensors: Sequence[One], settings: Settings, seen: Sequence[Seen], gradient: Tensors
) -> None:
    targets = batch.of([one.parameter for one in tensors])
    single = targets.items[0].element_size() >= 4
    points = targets if single else Tensors(item.float() for item in targets.items)
    rate, decay = (batch.numbers([getattr(one, name) for one in tensors]) for name in ("lr", "decay"))
    first, second = seen
    divisor = []
    if settings.moments[1]:
        divisor = sqrt(second.mean).items
        torch._foreach_add_(divisor, settings.eps)
    if divisor and not (settings.trust or settings.cautious or settings.extrapolation):
        if np.any(decay):
            torch._foreach_mul_(points.items, beside(1.0 - rate * decay))
        _add_quotient(points.items, first.mean.items, divisor, beside(-rate))
        if not single:
            torch._foreach_copy_(targets.items, points.items)
        return
    if settings.extrapolation:
        if isinstance(batch.kept[batch.pieces[0].place].get("move"), Tensor):
            torch._foreach_sub_(points.items, (batch.read("move") * settings.extrapolation).items)
        before = Tensors(item.clone() for item in points.items)
    direction = Tensors(torch._foreach_div(first.mean.items, divisor)) if divisor else first.mean
    if settings.cautious:
        direction = _cautious(direction, gradient)
    if settings.trust:
        direction = direction + points * decay
        rate = rate * _trust(direction, points, first if settings.trust == "discounted" else None)
    if not settings.trust and np.any(decay):
        torch._foreach_mul_(points.items, beside(1.0 - rate * decay))
    torch._foreach_add_(points.items, (direction * -rate).items)
    if settings.extrapolation:
        move = points - before
        batch.write("move", move)
        torch._foreach_add_(points.items, (move * settings.extrapolation).items)
    if not single:
        torch._foreach_copy_(targets.items, points.items)


def _add_quotient(points: list[Tensor], over: list[Tensor], under: list[Tensor], rate: Any) -> None:
    """Points + rate * over / under, in one pass and in place."""
    if isinstance(rate, list):
        torch._foreach_addcdiv_(points, over, under, scalars=rate)
    else:
        torch._foreach_addcdiv_(points, over, under, value=rate)


def _cautious(direction: Tensors, gradient: Tensors) -> Tensors:
    """Leave out coordinates that would climb, and make up for their number (Liang et al. 2024)."""
    masks = [(item > 0.0).to(item.dtype) for item in (direction * gradient).items]
    return direction * Tensors(mask / mask.mean().clamp_min(LEAST_SHARE) for mask in masks)


def _trust(direction: Tensors, points: Tensors, discount: Seen | None) -> Any:
    """Norm of the weights over that of the step, or of its certain part; 1 where either is 0."""
    certain = direction.items
    if discount is not None:
        squares = discount.mean * discount.mean
        shares = zip(squares.items, (squares + discount.variance).items, strict=True)
        parts = [torch.where(square > 0.0, square / all_of_it, 0.0) for square, all_of_it in shares]
        certain = (direction * sqrt(Tensors(parts))).items
    weights, sizes = torch._foreach_norm(points.items), torch._foreach_norm(certain)
    ratios = torch.stack(weights).clamp(max=LARGEST_NORM) / torch.stack(sizes)
    known = (torch.stack(weights) > 0.0) & (torch.stack(sizes) > 0.0)
    return np.array(torch.where(known, ratios, 1.0).tolist())
