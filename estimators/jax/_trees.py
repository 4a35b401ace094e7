"""A recursive estimator on every leaf of a tree of arrays; what the coordinates share is kept once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from estimators._parameters import brief
from estimators.jax._arithmetic import precision
from estimators.jax._steps import check_recursive, kept, setting, shared, step, usable

if TYPE_CHECKING:
    from estimators._recursive import Recursive


class TreeState(NamedTuple):
    """State of an estimator over a tree of L leaves: arrays throughout, never NaN.

    The mean before a leaf's first sample, NaN in a state of one stream, is a number here, and ``seen`` says
    that it stands for none; so checkpoints, norms and ``jax_debug_nans`` meet numbers only.
    """

    fields: Any
    """State of the estimator: trees of fields that differ by coordinate, else (L,), one number for a leaf."""
    seen: Any
    """Whether each leaf, (L,), has met a sample."""


def check(owner: str, estimator: Any) -> None:
    """Raise TypeError for estimators that are not recursive, ValueError for parameters that are arrays."""
    check_recursive(owner, estimator)
    if estimator._parameter_shapes:
        raise ValueError(
            f"{owner}: estimator={brief(estimator)} is not valid; its parameters must be numbers, which all "
            f"leaves share"
        )


def start(estimator: Recursive, tree: Any, *, shown: bool = False) -> TreeState:
    """State before any sample of leaves like those of a tree; shown: with these as the mean until then.

    Raises TypeError for complex leaves.
    """
    leaves = jax.tree.leaves(tree)
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise TypeError(f"a leaf of shape {leaf.shape} holds complex numbers; leaves must be real")
    fields = []
    for value, name, alike in zip(_prior(estimator), estimator.State._fields, shared(estimator), strict=True):
        if alike:
            fields.append(jnp.full(len(leaves), value, precision()))
            continue

        def like(leaf: Any, value: float = value, name: str = name) -> Any:
            dtype = kept(leaf.dtype) if name == "mean" else precision()
            if shown and (value != value or (name == "mean" and value == 0.0)):
                return jnp.array(leaf, dtype)
            return jnp.full_like(leaf, 0.0 if value != value else value, dtype=dtype)

        fields.append(jax.tree.map(like, tree))
    return TreeState(estimator.State(*fields), jnp.zeros(len(leaves), np.bool_))


def fitting(owner: str, estimator: Recursive, state: TreeState, tree: Any) -> list[Any]:
    """Leaves of a tree; TypeError for a state of another estimator, ValueError for one of other leaves."""
    if not isinstance(state.fields, estimator.State):
        held, valid = type(state.fields).__name__, estimator.State.__name__
        raise TypeError(f"{owner}: the state holds a {held}; it must hold a {valid}")
    given, valid = (jax.tree.map(np.shape, one) for one in (tree, state.fields.mean))
    if given != valid:
        given, valid = brief(given), brief(valid)
        raise ValueError(f"{owner}: leaves={given} are not valid; they must be {valid}, those of the state")
    return jax.tree.leaves(tree)


def advance(estimator: Recursive, state: TreeState, leaves: list[Any], taken: list[Any]) -> TreeState:
    """State after one more sample of the leaves that are taken, and after time alone of the others."""
    if not leaves:
        return state
    kind, given, prior = type(estimator), setting(estimator, {}).given, _prior(estimator)
    alike, known = shared(estimator), jnp.stack(taken)
    seen, none = state.seen | known, jnp.zeros(len(leaves), precision())
    # What coordinates share is moved for all leaves at once: a compiler has few small operations to place.
    summary = kind.State(*(field if own else none for field, own in zip(state.fields, alike, strict=True)))
    fields = list(step(kind, given, summary, none, known)[0])
    columns = [
        field if own else jax.tree.leaves(field) for field, own in zip(state.fields, alike, strict=True)
    ]
    moved: dict[int, list[Any]] = {k: [] for k, own in enumerate(alike) if not own}
    for i, leaf in enumerate(leaves):
        before = (
            jnp.where(state.seen[i], column[i], value) if value != value else column[i]
            for column, value in zip(columns, prior, strict=True)
        )
        after, _ = step(kind, given, kind.State(*before), leaf, known[i])
        for k, values in moved.items():
            values.append(jnp.where(seen[i], after[k], columns[k][i]) if prior[k] != prior[k] else after[k])
    for k, values in moved.items():
        fields[k] = jax.tree.unflatten(jax.tree.structure(state.fields[k]), values)
    return TreeState(kind.State(*fields), seen)


def whole(leaf: Any) -> Any:
    """Whether all of a leaf can be taken."""
    return jnp.all(usable(leaf))


def _prior(estimator: Recursive) -> list[float]:
    return [float(np.asarray(value)) for value in estimator._prior()]
