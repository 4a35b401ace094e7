"""Two random walks, a quiet and a fast one, and a filter that weighs which of them is at work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import exp, sqrt, toward, where
from estimators._combined import Combined
from estimators._parameters import BETWEEN_0_AND_1, NONNEGATIVE, Parameter, fit_together, real, require
from estimators._random_walk import RandomWalk
from estimators.protocol import Trait

if TYPE_CHECKING:
    from estimators.results import Changing


class SwitchingState(NamedTuple):
    """Mean of the mixture and its variance; those of the two filters, and the probability of the fast one."""

    mean: Any
    quiet: Any
    fast: Any
    variance: Any
    quiet_variance: Any
    fast_variance: Any
    probability: Any


def spread(share: Any, own: Any, other: Any, apart: Any) -> Any:
    """Variance of a mixture of two whose means lie apart, ``share`` of the other; of equal ones their own.

    Infinite while nothing is known.
    """
    mixed = own + share * (other - own) + share * (1.0 - share) * apart * apart
    return where(own == math.inf, math.inf, mixed)


def bounded(surprise: Any) -> Any:
    """Keep what no likelihood can tell apart finite, in single precision too."""
    return where(surprise < 1e30, surprise, 1e30)


def weighed(given: Any, state: Any, sample: Any) -> Any:
    """Variances after a sample and the probability of the fast walk; gains of the mixture and of the two."""
    unknown = state.quiet_variance == math.inf
    # Divisions cost more than all the rest: one for each filter, one for the share.
    quiet_total, fast_total = state.quiet_variance + given.r, state.fast_variance + given.r
    quiet_precision, fast_precision = 1.0 / quiet_total, 1.0 / fast_total
    quiet_gain = where(unknown, 1.0, state.quiet_variance * quiet_precision)
    fast_gain = where(unknown, 1.0, state.fast_variance * fast_precision)
    quiet_error = where(unknown, 0.0, sample - state.quiet)
    fast_error = where(unknown, 0.0, sample - state.fast)
    surprise = bounded(fast_error * fast_error * fast_precision)
    surprise = surprise - bounded(quiet_error * quiet_error * quiet_precision)
    against = (1.0 - state.probability) * sqrt(fast_total * quiet_precision) * exp(0.5 * surprise)
    share = where(unknown, state.probability, state.probability / (state.probability + against))
    gain = quiet_gain + share * (fast_gain - quiet_gain)
    weights = gain, quiet_gain, fast_gain, share
    _, quiet, fast = moved((state.mean, state.quiet, state.fast), sample, weights)
    quiet_left, fast_left = given.r * quiet_gain, given.r * fast_gain
    return (spread(share, quiet_left, fast_left, fast - quiet), quiet_left, fast_left, share), weights


def moved(carried: Any, sample: Any, weights: Any) -> Any:
    """Means of the two filters moved by their gains, and mixed."""
    _, quiet, fast = carried
    _, quiet_gain, fast_gain, share = weights
    quiet, fast = toward(quiet, sample, quiet_gain), toward(fast, sample, fast_gain)
    return quiet + share * (fast - quiet), quiet, fast


@dataclass(frozen=True, eq=False)
class SwitchingKalman(Combined, RandomWalk):
    """Interacting multiple models: a quiet random walk of process variance q, at times a fast one.

    q, r, mean, variance as in Kalman; q_fast > q: process variance of the fast walk, None for 25 (q + r), a
    jump of 5 noise sd; stay, stay_fast in (0, 1): probability that a walk goes on for another sample.
    ValueError outside. The insurance against jumps is not free: it raises the error in quiet times. Blom and
    Bar-Shalom (1988), IEEE Trans. Automatic Control 33.
    """

    q_fast: Parameter | None = None
    stay: Parameter = 0.99
    stay_fast: Parameter = 0.5

    State = SwitchingState
    coefficients = ("q", "r", "process_fast", "stay", "stay_fast")
    changes: ClassVar[tuple[str, ...]] = ("weight", "r")
    carried = 3
    weigh = staticmethod(weighed)
    move = staticmethod(moved)

    def __post_init__(self) -> None:
        super().__post_init__()
        name, values = type(self).__name__, {"q": self.q, "r": self.r, "mean": self.mean}
        if self.q_fast is not None:
            values["q_fast"] = real(name, "q_fast", self.q_fast, NONNEGATIVE.of("as a variance per sample"))
        for field in ("stay", "stay_fast"):
            values[field] = real(name, field, getattr(self, field), BETWEEN_0_AND_1.of("as a probability"))
        fit_together(name, **values)
        faster = np.all(np.asarray(self.process_fast) >= np.asarray(self.q))
        require(name, "q_fast", self.q_fast, faster, f">= q = {self.q!r}")
        for field in ("q_fast", "stay", "stay_fast"):
            if field in values:
                object.__setattr__(self, field, values[field])

    @property
    def process_fast(self) -> Parameter:
        """Process variance of the fast walk."""
        return 25.0 * (self.q + self.r) if self.q_fast is None else self.q_fast

    @staticmethod
    def predict(given: Any, state: SwitchingState) -> SwitchingState:
        """A walk may have given way to the other: each filter starts from what both knew of its case."""
        to_fast = 1.0 - given.stay
        fast = state.probability * given.stay_fast + (1.0 - state.probability) * to_fast
        each = 1.0 / (fast * (1.0 - fast))
        of_fast = state.probability * given.stay_fast * (1.0 - fast) * each
        of_quiet = state.probability * (1.0 - given.stay_fast) * fast * each
        apart = state.fast - state.quiet
        quiet_mean, fast_mean = state.quiet + of_quiet * apart, state.quiet + of_fast * apart
        quiet = spread(of_quiet, state.quiet_variance, state.fast_variance, apart) + given.q
        fast_one = spread(of_fast, state.quiet_variance, state.fast_variance, apart)
        fast_one = fast_one + given.process_fast
        total = spread(fast, quiet, fast_one, fast_mean - quiet_mean)
        return SwitchingState(state.mean, quiet_mean, fast_mean, total, quiet, fast_one, fast)

    @staticmethod
    def correct(given: Any, state: SwitchingState, sample: Any) -> tuple[SwitchingState, Any]:
        """Both filters take the sample; the one that expected it better gains probability."""
        rest, weights = weighed(given, state, sample)
        carried = moved((state.mean, state.quiet, state.fast), sample, weights)
        return SwitchingState(*(carried + rest)), weights[0]

    @property
    def traits(self) -> frozenset[Trait]:
        """With a variance; equivariant to shift without a prior; linear where the two walks are one."""
        traits = {Trait.HAS_VARIANCE} | self._equivariance
        if np.all((np.asarray(self.process_fast) == np.asarray(self.q)) | (np.asarray(self.r) == 0.0)):
            return frozenset(traits | {Trait.LINEAR})
        return frozenset(traits - {Trait.SCALE_EQUIVARIANT})

    def _prior(self) -> SwitchingState:
        mean, variance = self._start_of_level
        # The share of time that the fast walk is at work: before the first sample nothing is known of it.
        share = (1.0 - self.stay) / (2.0 - self.stay - self.stay_fast)
        return SwitchingState(mean, mean, mean, variance, variance, variance, share)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        return super()._changed(None, weight, r)
