"""What the filters of a random walk share: parameters, the prior, the innovation that they expect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators._parameters import NONNEGATIVE, Parameter, Range, fit_together, real, require
from estimators._recursive import Recursive
from estimators.protocol import Trait

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Changing, Run

_PRIOR = Range(">= 0, or inf for a diffuse start", lambda v: v >= 0)


class Prior(NamedTuple):
    """Mean and variance of the level one step before the first sample; NaN where the variance is infinite."""

    mean: Any
    variance: Any


@dataclass(frozen=True, eq=False)
class RandomWalk(Recursive):
    """A filter of a random walk of process variance q seen with measurement variance r, and its prior."""

    q: Parameter
    r: Parameter
    mean: Parameter = 0.0
    variance: Parameter = math.inf

    def __post_init__(self) -> None:
        name = type(self).__name__
        q = real(name, "q", self.q, NONNEGATIVE.of("as a variance per sample"))
        r = real(name, "r", self.r, NONNEGATIVE.of("as a variance"))
        variance = real(name, "variance", self.variance, _PRIOR)
        anything = real(name, "mean", self.mean, Range("a number", lambda m: ~np.isinf(m)))
        fit_together(name, q=q, r=r, mean=anything, variance=variance)
        filters = np.all((np.asarray(q) > 0) | (np.asarray(r) > 0))
        require(name, "q", q, filters, "> 0 where r = 0: without either there is no filter")
        known = np.isfinite(variance)
        mean = real(
            name, "mean", anything, Range("finite where the variance is", lambda m: ~(np.isnan(m) & known))
        )
        for field, value in (("q", q), ("r", r), ("mean", mean), ("variance", variance)):
            object.__setattr__(self, field, value)

    @property
    def _start_of_level(self) -> Prior:
        return Prior(np.where(np.isinf(self.variance), np.nan, self.mean), self.variance)

    @property
    def _equivariance(self) -> set[Trait]:
        """Equivariance to shift and scale of a linear filter, as its prior lets it."""
        believes, traits = np.isfinite(self.variance), set()
        if not np.any(believes):
            traits |= {Trait.SHIFT_EQUIVARIANT}
        if not np.any(believes & (np.asarray(self.mean) != 0.0)):
            traits |= {Trait.SCALE_EQUIVARIANT}
        return traits

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        """Process variance q for each step; a sample of weight w is the mean of w, of variance r / w."""
        changing: Changing = {}
        if steps is not None:
            changing["q"] = np.asarray(self.q * steps)
        if weight is not None or r is not None:
            changing["r"] = measured(self.r, weight, r)
        return changing

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        given = self._given_in(run)
        stated: NDArray[np.float64] = run.before("variance") + given.q + given.r
        return stated


def measured(own: Parameter, weight: Any, r: Any) -> NDArray[np.float64]:
    """Measurement variance of samples that are means of ``weight``, of r each if not of the own variance."""
    return np.asarray((own if r is None else r) / (1.0 if weight is None else weight))
