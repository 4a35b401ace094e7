"""The averaged copy of a flax model's parameters, by any recursive estimator, for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from estimators._parameters import require
from estimators.jax._trees import TreeState, advance, check, fitting, start, whole

if TYPE_CHECKING:
    from estimators._recursive import Recursive


class AverageState(nnx.Variable):  # type: ignore[type-arg]
    """An array of the state of an average: carried by checkpoints, seen by no optimiser of parameters."""


class ParameterAverage(nnx.Module):
    """The average of a model's parameters over training steps, beside the model.

    estimator: any recursive one whose parameters are numbers; ``DebiasedEMA`` is unbiased from the first step
    on; a start that is stated must be 0 and stands for the parameters as they are, from which ``EMA(0.996)``
    moves on; ``Kalman(q=0, r=1)`` is the mean of all steps. of: the Variables
    to average, by a filter of nnx; others, batch statistics among them, are never averaged and are those of
    the live model when ``applied_to`` is called; ``of=(nnx.Param, nnx.BatchStat)`` averages these as well.

    All that it holds are ``AverageState`` Variables: ``nnx.state(average)`` is a whole checkpoint, and
    ``nnx.Optimizer(model, ..., wrt=nnx.Param)`` sees none of it even where it is part of the model. Means are
    kept in the parameters' type, at least float32; what coordinates share once for each array. An array that
    holds NaN or infinity is skipped whole. Raises TypeError for an estimator that is not recursive,
    ValueError for one whose parameters are arrays. Polyak and Juditsky (1992), SIAM J. Control Optim. 30.
    """

    def __init__(self, model: nnx.Module, estimator: Recursive, *, of: Any = nnx.Param) -> None:
        check("ParameterAverage", estimator)
        start_of = float(np.asarray(estimator._prior().mean))
        valid = "one that starts from nothing, or at 0, which stands for the parameters as they are"
        require("ParameterAverage", "estimator", estimator, start_of != start_of or start_of == 0.0, valid)
        self.estimator, self.of = estimator, of
        self.moments = nnx.data(_variables(start(estimator, nnx.state(model, of), shown=True)))

    def update(self, model: nnx.Module) -> None:
        """Take the model's parameters as they are now for one more sample; works inside ``nnx.jit``."""
        state: TreeState = nnx.as_pure(self.moments)
        leaves = fitting("ParameterAverage", self.estimator, state, nnx.as_pure(nnx.state(model, self.of)))
        after = advance(self.estimator, state, leaves, [whole(leaf) for leaf in leaves])
        nnx.update(self.moments, nnx.state(after))

    def applied_to(self, model: nnx.Module) -> Any:
        """Return a new model with the averages for parameters, all else copied from the one given.

        Before the first update (of an estimator that starts from nothing) these are the parameters that the
        average was made with. The model given is left as it is, and shares nothing with the new one.
        """
        graph, *states = nnx.split(model, self.of, ...)
        chosen, others = map(nnx.as_pure, states)
        means = nnx.as_pure(self.moments).fields.mean
        averaged = jax.tree.map(lambda mean, leaf: jnp.array(mean, leaf.dtype), means, chosen)
        return nnx.merge(graph, averaged, jax.tree.map(lambda leaf: leaf.copy(), others))


def _variables(state: TreeState) -> Any:
    """Each array of a state as a Variable; means keep what the parameters say of sharding."""

    def variable(leaf: Any) -> AverageState:
        if isinstance(leaf, nnx.Variable):
            return AverageState(leaf.get_value(), **leaf.get_metadata())
        return AverageState(leaf)

    return jax.tree.map(variable, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
