"""Recursions that move more than one field towards the samples: levels with a slope, filters mixed."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from estimators._recursive import Flat, Recursive, compiled_loops, flattened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Run


class Combined(Recursive):
    """A recursion whose first ``carried`` fields are linear in the samples, given all the rest.

    A subclass defines ``weigh`` (everything that the sample decides: the other fields, and the weights) and
    ``move`` (the carried fields after it), and makes ``correct`` of the two; ``predict`` must be linear in
    the carried fields as well. The run's map on another stream then follows from the same functions.
    """

    carried: ClassVar[int]
    """Fields at the head of the state that are linear in the samples."""

    @staticmethod
    @abstractmethod
    def weigh(given: Any, state: Any, sample: Any) -> tuple[Any, Any]:
        """Fields behind the carried ones after a sample, and the weights, that of the mean first."""

    @staticmethod
    @abstractmethod
    def move(carried: Any, sample: Any, weights: Any) -> Any:
        """Carried fields after a sample, linear in both."""

    def _before(self, run: Run) -> Any:
        """State before each sample, fields of shape (T, *channels)."""
        return self.State(*(run.before(name) for name in self.State._fields))

    def _prediction(self, run: Run) -> NDArray[np.float64]:
        with np.errstate(all="ignore"):
            expected: NDArray[np.float64] = self.predict(self._given_in(run), self._before(run)).mean
        return expected

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        if not run.states_variance:
            return None
        given = self._given_in(run)
        with np.errstate(all="ignore"):
            stated: NDArray[np.float64] = self.predict(given, self._before(run)).variance + given.r
        return stated

    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        shape = run.mean.shape
        flat = Flat.of(self, run.start, shape, run.changing)
        known = np.where(np.isnan(run.start.mean), np.nan, initial)
        shadow = tuple(np.array(field, np.float64).reshape(-1) for field in self._constant(known))
        target = np.empty(flat.shape)
        samples, other = flattened(run.samples, shape), flattened(z, shape)
        with np.errstate(all="ignore"):
            loop = compiled_loops().shadowed(type(self))
            loop(samples, other, flat.given, flat.state, shadow, target)
        mean[...] = target.reshape(shape)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        flat, shape = Flat.of(self, run.start, run.mean.shape, run.changing), run.mean.shape
        power, count = np.empty(flat.shape), self.carried
        units = tuple(tuple(float(i == k) for i in range(count)) for k in range(count + 1))
        with np.errstate(all="ignore"):
            loop = compiled_loops().squared(type(self))
            loop(flattened(run.samples, shape), flat.given, flat.state, units, power)
        return np.where(np.isnan(run.mean), np.nan, power.reshape(shape))

    def _constant(self, level: NDArray[np.float64]) -> tuple[Any, ...]:
        """Carried fields of a stream that has always been at a level: all means, unless said otherwise."""
        return (level,) * self.carried
