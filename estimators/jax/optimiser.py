"""Any recursive estimator as an optax transformation: filtered gradients, and the moments of Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from estimators._parameters import NONNEGATIVE, one
from estimators.ema import DebiasedEMA
from estimators.jax._steps import kept
from estimators.jax._trees import TreeState, advance, check, fitting, start, whole

if TYPE_CHECKING:
    from estimators._recursive import Recursive

ADAM_FIRST, ADAM_SECOND = DebiasedEMA(0.9), DebiasedEMA(0.999)


class MomentsState(NamedTuple):
    """States of the two estimators: of gradients and of their squares."""

    first: TreeState
    second: TreeState


def filtered(estimator: Recursive) -> optax.GradientTransformation:
    """Replace updates by their filtered mean: momentum, by any recursive estimator.

    ``filtered(EMA(0.9))`` is uncorrected momentum (optax.ema without debias), ``DebiasedEMA`` the corrected
    one. The state is a ``TreeState``: means of the updates' shapes, in their type but at least float32, and
    what coordinates share (weight mass, a Kalman filter's variance) as one number for each leaf. Nothing is
    debiased when it is read: the mean that is kept is the unbiased one. A leaf that holds NaN or infinity is
    skipped whole: time passes for it, its update is 0. Raises TypeError for an estimator that is not
    recursive, ValueError for one whose parameters are arrays.
    """
    check("filtered", estimator)

    def init(params: Any) -> TreeState:
        return start(estimator, params)

    def update(updates: Any, state: TreeState, params: Any = None) -> Any:
        leaves, treedef = fitting("filtered", estimator, state, updates), jax.tree.structure(updates)
        taken = [whole(leaf) for leaf in leaves]
        state = advance(estimator, state, leaves, taken)
        means = jax.tree.leaves(state.fields.mean)
        moved = [
            jnp.where(known, mean, 0.0).astype(leaf.dtype)
            for leaf, mean, known in zip(leaves, means, taken, strict=True)
        ]
        return jax.tree.unflatten(treedef, moved), state

    return optax.GradientTransformation(init, update)


def scale_by_moments(
    first: Recursive = ADAM_FIRST, second: Recursive = ADAM_SECOND, eps: Any = 1e-8
) -> optax.GradientTransformation:
    """Scale gradients as Adam does, with any two recursive estimators for its moments: m / (sqrt(v) + eps).

    first filters the gradients, second their squares (of which a mean below 0, which an estimator with a
    slope may state, counts as 0); eps >= 0, in the unit of the gradients. The defaults are Adam's:
    optax.scale_by_adam to rounding. Memory: two numbers for each coordinate, and for each leaf one for every
    field that its coordinates share, plus two flags. A leaf whose gradient, or its square, is not finite is
    skipped whole, as in ``filtered``. Raises TypeError and ValueError as that, ValueError for eps.

    Kingma and Ba (2015), algorithm 1: m / (1 - beta^t) is the mean that ``DebiasedEMA`` keeps.
    """
    return _moments("scale_by_moments", first, second, eps, 0.0)


def filtered_adam(
    learning_rate: Any,
    first: Recursive = ADAM_FIRST,
    second: Recursive = ADAM_SECOND,
    eps: Any = 1e-8,
    weight_decay: Any = 0.0,
) -> optax.GradientTransformation:
    """Adam, or with ``weight_decay`` AdamW, whose moments are any two recursive estimators.

    learning_rate: a number or a schedule of the step; first, second, eps as in ``scale_by_moments``;
    weight_decay >= 0: share of the parameters that is taken off in each step, times the learning rate, apart
    from the moments (Loshchilov and Hutter 2019); it needs ``params`` in ``update``, and so does
    ``optax.inject_hyperparams``, unless weight_decay is among its ``static_args``. A leaf whose gradient is
    not finite stays as it is: no step, no decay. The defaults are optax.adam, and with weight_decay
    optax.adamw, to rounding. Raises TypeError and ValueError as ``scale_by_moments``.
    """
    return optax.chain(
        _moments("filtered_adam", first, second, eps, weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def _moments(
    owner: str, first: Recursive, second: Recursive, eps: Any, weight_decay: Any
) -> optax.GradientTransformation:
    check(owner, first)
    check(owner, second)
    for name, value in (("eps", eps), ("weight_decay", weight_decay)):
        if not isinstance(value, jax.Array):  # which optax.inject_hyperparams makes of them
            one(owner, name, value, NONNEGATIVE)
    decays = isinstance(weight_decay, jax.Array) or weight_decay > 0.0

    def init(params: Any) -> MomentsState:
        return MomentsState(start(first, params), start(second, params))

    def update(updates: Any, state: MomentsState, params: Any = None) -> Any:
        if decays and params is None:
            raise ValueError(f"{owner}: weight_decay={weight_decay} needs params; pass them to update")
        leaves, treedef = fitting(owner, first, state.first, updates), jax.tree.structure(updates)
        fitting(owner, second, state.second, updates)
        wide = [leaf.astype(kept(leaf.dtype)) for leaf in leaves]
        squares = [leaf * leaf for leaf in wide]
        taken = [whole(square) for square in squares]
        state = MomentsState(
            advance(first, state.first, wide, taken), advance(second, state.second, squares, taken)
        )
        means, spreads = (jax.tree.leaves(moment.fields.mean) for moment in state)
        weights = jax.tree.leaves(jax.tree.map(lambda _, own: own, updates, params)) if decays else leaves
        moved = []
        for leaf, mean, spread, weight, known in zip(leaves, means, spreads, weights, taken, strict=True):
            scaled = mean / (jnp.sqrt(jnp.maximum(spread, 0.0)) + eps)
            if decays:
                scaled = scaled + weight_decay * weight
            moved.append(jnp.where(known, scaled, 0.0).astype(leaf.dtype))
        return jax.tree.unflatten(treedef, moved), state

    return optax.GradientTransformation(init, update)
