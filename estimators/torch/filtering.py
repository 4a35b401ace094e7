"""Tensors in and out of estimators: one sample at a time where they are, streams, and differentiable runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from estimators._recursive import Recursive
from estimators.torch._arithmetic import where, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from estimators._base import BaseEstimator


class Filtered(NamedTuple):
    """Mean and its variance (None without one), (T, *channels); and the state after the last sample."""

    mean: Tensor
    variance: Tensor | None
    state: Any


def init(estimator: BaseEstimator, x0: Tensor) -> Any:
    """State before any sample: the mean like x0, what channels share as numbers on the host."""
    _floating(x0)
    if not isinstance(estimator, Recursive):
        return estimator.init(to_numpy(x0, "x0"))
    shape = estimator._channels(tuple(x0.shape))
    mean, *shared = (_beside(field, x0) for field in estimator._prior())
    filled = torch.as_tensor(mean, dtype=x0.dtype, device=x0.device).expand(shape).clone()
    return estimator.State(filled, *shared)


def update(estimator: BaseEstimator, state: Any, x: Any, out: Any = None) -> Any:
    """State after one more sample of every channel; what is not finite, and None, is missing.

    The mean keeps the dtype and device of x. A field that all channels share stays a float while they see
    the same samples; whether all of x is finite is looked up on the host. out: a state of tensors of these
    shapes, perhaps this one, that is written. Raises TypeError for tensors of integers or complex numbers,
    and as ``Estimator.update`` does.
    """
    like = x if isinstance(x, Tensor) else state.mean
    _floating(like)
    if not isinstance(estimator, Recursive):
        given = to_numpy(x, "x") if isinstance(x, Tensor) else x
        moved = estimator.update(on_host(state), given, on_infinite="missing")
        moved = moved._replace(mean=wrapper(like)(np.asarray(moved.mean)))
        return moved if out is None else _written(moved, out)
    if type(state) is not estimator.State:
        name, expected = type(estimator).__name__, estimator.State.__name__
        raise TypeError(f"{name}: state is a {type(state).__name__}; it must be a {expected}")
    given = np.nan if x is None else x
    sample = x if isinstance(x, Tensor) else torch.as_tensor(given, dtype=like.dtype).to(like)
    own, channels = tuple(np.shape(state.mean)), estimator._channels(tuple(sample.shape))
    passing = sample.ndim == 0 and not bool(torch.isfinite(sample))
    if own not in ((), estimator._channels(()), channels) and not passing:
        raise ValueError(f"x of shape {tuple(sample.shape)} does not fit a state of shape {own}")
    stepped = _typed(_stepped(estimator, state, sample), sample, own if passing else channels)
    return stepped if out is None else _written(stepped, out)


def _stepped(estimator: Recursive, state: Any, sample: Tensor) -> Any:
    given = type(estimator._given())(*(_beside(value, sample) for value in estimator._given()))
    state = type(state)(*(_beside(field, sample) for field in state))
    finite = torch.isfinite(sample)
    predicted = estimator.predict(given, state)
    if not bool(finite.any()):
        return predicted
    if bool(finite.all()):
        return estimator.correct(given, predicted, sample)[0]
    # A sample that is missing must not reach a gradient, not even times zero.
    corrected, _ = estimator.correct(given, predicted, torch.where(finite, sample, 0.0))
    chosen = [
        old if new is old else where(finite, new, old) for new, old in zip(corrected, predicted, strict=True)
    ]
    return type(state)(*chosen)


def filter(estimator: Recursive, x: Tensor, state: Any = None) -> Filtered:  # noqa: A001
    """Estimates of a whole stream, time on axis 0, through which gradients flow, and on the device of x.

    One call of torch for each operation of each sample: without a gradient ``estimator.filter(x)`` is many
    times faster. What is not finite is missing. Raises TypeError for an estimator that is no recursion.
    """
    if not isinstance(estimator, Recursive):
        raise TypeError(f"{estimator!r} is no recursive estimator; estimator.filter(x) runs it on the host")
    if x.ndim == 0:
        raise ValueError("x has no time axis; pass a stream, or use update for one sample")
    states = [init(estimator, x[0] if len(x) else x.new_empty(x.shape[1:])) if state is None else state]
    for sample in x:
        states.append(update(estimator, states[-1], sample))
    means = [each.mean for each in states[1:]]
    shape = states[0].mean.shape
    mean = torch.stack(means) if means else x.new_empty((0, *shape))
    if states[0].variance is None:
        return Filtered(mean, None, states[-1])
    variances = [torch.as_tensor(each.variance, dtype=x.dtype).to(x).expand(shape) for each in states[1:]]
    return Filtered(mean, torch.stack(variances) if variances else mean, states[-1])


def to_numpy(x: Tensor, name: str) -> NDArray[np.float64]:
    """A tensor as float64 on the host; TypeError for complex numbers, and where a gradient would be lost."""
    if x.is_complex():
        raise TypeError(f"{name} holds complex numbers; samples must be real numbers")
    if x.requires_grad:
        raise TypeError(
            f"{name} requires a gradient, which the compiled loops do not carry; pass {name}.detach(), or "
            "use estimators.torch.filter"
        )
    values: NDArray[np.float64] = x.to("cpu", torch.float64).numpy()
    return values


def on_host(state: Any) -> Any:
    """A state of tensors as one of arrays, what channels share given to each."""
    shape = tuple(np.shape(state.mean))
    fields = (to_numpy(field.detach(), "state") if isinstance(field, Tensor) else field for field in state)
    return type(state)(*(np.broadcast_to(field, shape) if np.ndim(field) == 0 else field for field in fields))


def wrapper(x: Tensor) -> Callable[[NDArray[Any]], Any]:
    """How results become tensors of the dtype and device of x, of its default dtype for integers."""
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return lambda values: torch.as_tensor(np.asarray(values)).to(x.device, dtype)


def _floating(x: Any) -> None:
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        held = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x holds {held}; samples must be a tensor of floating-point numbers")


def _beside(value: Any, like: Tensor) -> Any:
    """A number that all channels share on the host; one for each channel where the tensor is, in float64."""
    if isinstance(value, Tensor):
        return value
    if np.ndim(value) == 0:
        return float(value)
    return torch.as_tensor(np.array(value)).to(like.device, wide(like.device))


def _typed(state: Any, like: Tensor, shape: tuple[int, ...]) -> Any:
    """A state whose mean has the dtype of a sample and the shape of the channels."""
    # A gain of one hands x on as it is, which is the caller's, to be written over.
    own = type(state)(*(field.clone() if field is like else field for field in state))
    mean = torch.as_tensor(own.mean, dtype=like.dtype, device=like.device)
    return own._replace(mean=mean if mean.shape == shape else mean.expand(shape).clone())


def _written(stepped: Any, out: Any) -> Any:
    """Write a state into the tensors of another; what channels share is a number, and a new one."""
    if type(out) is not type(stepped) or not isinstance(out.mean, Tensor):
        raise TypeError(f"out is a {type(out).__name__}; it must be a {type(stepped).__name__} of tensors")
    for name, target, value in zip(out._fields, out, stepped, strict=True):
        shape = tuple(np.shape(value))
        if (name == "mean" or isinstance(target, Tensor)) and tuple(np.shape(target)) != shape:
            raise TypeError(f"out.{name} has shape {tuple(np.shape(target))}; it must have {shape}")
    pairs = zip(out, stepped, strict=True)
    return type(out)(*(t.copy_(v) if isinstance(t, Tensor) else v for t, v in pairs))
