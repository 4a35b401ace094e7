"""Filters of a random walk that find its noise: both variances by correlation, or r alone by Bayes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import evidence, pooled, sqrt, toward, where
from estimators._parameters import (
    ABOVE_0_TO_1,
    BETWEEN_0_AND_1,
    NONNEGATIVE,
    POSITIVE,
    Parameter,
    fit_together,
    real,
)
from estimators._recursive import Recursive
from estimators.covariance_matching import (
    above_least_r,
    bounded,
    by_time_and_weight,
    counted,
    gain_of,
    inverse,
    left_variance,
    met,
)
from estimators.protocol import Trait
from estimators.response import gain_of as settled_gain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Changing, Run


class MehraState(NamedTuple):
    """Mean and its variance, infinite until an innovation other than 0 is behind; then what steers the gain.

    Variances in units of the settled innovation's: q is steady_gain^2, r is 1 - steady_gain.
    """

    mean: Any
    variance: Any
    steady_gain: Any
    """Where the gain would settle if nothing more were learned; the samples steer it."""
    spread: Any
    """Variance of the mean's error in these units, infinite before the first sample."""
    spread_slope: Any
    """Derivative of spread by steady_gain."""
    mean_slope: Any
    """Derivative of the mean by steady_gain, in deviations of the settled innovation."""
    unit: Any
    """Variance of the settled innovation: mean square of those so far."""
    count: Any
    """Innovations in that mean, the older the less."""
    evidence: Any
    """Inverse variance of log steady_gain."""


@dataclass(frozen=True, eq=False)
class MehraKalman(Recursive):
    """Kalman filter of a random walk of which nothing is known: its innovations' correlation steers the gain.

    signal_to_noise > 0: q/r to start from, believed as one of log gain 1 off would be. forgetting in (0, 1]:
    what a sample later is left of an innovation's say (1: all, so that the gain comes to rest). The variance,
    in the stream's units squared, is infinite until an innovation other than 0 is behind. Raises ValueError.

    Mehra (1970), IEEE TAC 15: innovations of a gain K off by K* - K are correlated, C_k = (1 - K)^(k-1) C_1,
    C_1 = (K* - K) C_0 for small K. All lags tell the same; their least-squares sum is the innovation times
    the mean's derivative by K, on which the gain takes a Newton step at every sample: recursive prediction
    errors, Ljung and Soderstrom (1983), Theory and Practice of Recursive Identification, chapter 3.
    """

    signal_to_noise: Parameter = 0.1
    forgetting: Parameter = 0.999

    State = MehraState
    coefficients = ("forgetting", "steps", "noise")
    changes: ClassVar[tuple[str, ...]] = ("steps", "weight")
    steps: ClassVar[float] = 1.0
    noise: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        ratio = real(
            name, "signal_to_noise", self.signal_to_noise, POSITIVE.of("as a ratio of variances q/r")
        )
        forgetting = real(name, "forgetting", self.forgetting, ABOVE_0_TO_1)
        fit_together(name, signal_to_noise=ratio, forgetting=forgetting)
        for field, value in (("signal_to_noise", ratio), ("forgetting", forgetting)):
            object.__setattr__(self, field, value)

    @staticmethod
    def predict(given: Any, state: MehraState) -> MehraState:
        """The level may have moved: spread + steady_gain^2."""
        spread = state.spread + state.steady_gain * state.steady_gain * given.steps
        slope = state.spread_slope + 2.0 * state.steady_gain * given.steps
        variance = where(state.unit > 0.0, state.unit * spread, math.inf)
        return MehraState(
            state.mean,
            variance,
            state.steady_gain,
            spread,
            slope,
            state.mean_slope,
            state.unit,
            state.count,
            state.evidence,
        )

    @staticmethod
    def correct(given: Any, state: MehraState, sample: Any) -> tuple[MehraState, Any]:
        """Gain spread / (spread + r); then the innovation teaches the unit, and the unit the steady gain."""
        steady, known = state.steady_gain, state.spread < math.inf
        r = (1.0 - steady) * given.noise
        expected = where(known, state.spread + r, 1.0)
        count = where(known, state.count * given.forgetting + 1.0, 1.0)
        both = 1.0 / (expected * count)  # one division for two: they are what the step costs
        inverted = both * count
        gain = where(known, state.spread * inverted, 1.0)
        slope = (state.spread_slope * r + state.spread * given.noise) * (inverted * inverted)
        gain_slope = where(known, slope, 0.0)
        innovation = where(known, bounded(sample - state.mean), 0.0)

        square = pooled(innovation * innovation)
        unit = state.unit + (square * inverted - state.unit) * (both * expected)
        deviation = where(unit > 0.0, innovation / sqrt(where(unit > 0.0, unit, 1.0)), 0.0)

        # A step in the log of the gain, which is off by a factor; exp(step) to second order.
        share = steady * state.mean_slope
        known_of_gain = state.evidence * given.forgetting + evidence(share * share) * inverted
        step = 0.5 * evidence(share * deviation) * inverted
        most = 0.5 * known_of_gain
        step = where(step > most, most, where(step < -most, -most, step))
        factor = (known_of_gain + step) / (known_of_gain - step)
        moved = where(steady * factor < 1.0, steady * factor, 1.0)
        # A sample tells of the log of the gain in proportion to the gain, so that what was told is rescaled.
        rescaled = known_of_gain * factor

        mean = toward(state.mean, sample, gain)
        variance = where(state.unit > 0.0, state.unit * gain * r, math.inf)
        spread = gain * (1.0 - moved) * given.noise
        spread_slope = (gain_slope * (1.0 - moved) - gain) * given.noise
        mean_slope = (1.0 - gain) * state.mean_slope + gain_slope * deviation
        rescaled = where(rescaled > 1.0, rescaled, 1.0)
        after = MehraState(
            mean, variance, moved, spread, spread_slope, mean_slope, unit, where(known, count, 0.0), rescaled
        )
        return after, gain

    @property
    def traits(self) -> frozenset[Trait]:
        """With a variance; equivariant to shift and scale, as nothing is known."""
        return frozenset({Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT})

    def _prior(self) -> MehraState:
        gain = settled_gain(np.asarray(self.signal_to_noise))
        return MehraState(math.nan, math.inf, gain, math.inf, 0.0, 0.0, 0.0, 0.0, 1.0)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        return by_time_and_weight(steps, weight)

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        given, unit, gain = self._given_in(run), run.before("unit"), run.before("steady_gain")
        expected = run.before("spread") + gain**2 * given.steps + (1.0 - gain) * given.noise
        known = unit > 0.0
        stated: NDArray[np.float64] = np.where(known, np.where(known, unit, 1.0) * expected, np.inf)
        return stated


class VariationalState(NamedTuple):
    """Mean, its variance (infinite while r is unknown), and r as estimated."""

    mean: Any
    variance: Any
    r: Any
    """0 while it is unknown."""
    count: Any
    """Innovations behind r, the older the less; the start counts as one."""


@dataclass(frozen=True, eq=False)
class VariationalKalman(Recursive):
    """Kalman filter of a random walk of known q that finds r, which may change, by variational Bayes.

    q >= 0, which must be known (the stream's units squared, per sample); forgetting in (0, 1): what a sample
    later is left of an innovation's say in r, 1/(1 - forgetting) of them in all. The first sample tells
    nothing of r; r is kept to q/100 or more. Raises ValueError.

    Sarkka and Nummenmaa (2009), IEEE TAC 54, with two iterations: r is b/a of its inverse gamma distribution,
    a half the number of innovations.
    """

    q: Parameter
    forgetting: Parameter = 0.98

    State = VariationalState
    coefficients = ("q", "forgetting", "steps", "noise")
    changes: ClassVar[tuple[str, ...]] = ("steps", "weight")
    steps: ClassVar[float] = 1.0
    noise: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        q = real(name, "q", self.q, NONNEGATIVE.of("as a variance per sample"))
        forgetting = real(name, "forgetting", self.forgetting, BETWEEN_0_AND_1)
        fit_together(name, q=q, forgetting=forgetting)
        for field, value in (("q", q), ("forgetting", forgetting)):
            object.__setattr__(self, field, value)

    @staticmethod
    def predict(given: Any, state: VariationalState) -> VariationalState:
        """The level may have moved: variance + q."""
        return VariationalState(state.mean, state.variance + given.q * given.steps, state.r, state.count)

    @staticmethod
    def correct(given: Any, state: VariationalState, sample: Any) -> tuple[VariationalState, Any]:
        """Gain P / (P + r), with r found from what the gain leaves of the innovation, in turn."""
        noise = given.noise
        square, q, r, before, expected = met(state, sample, given.q, state.r, 0.0, noise)
        count = counted(state, given.forgetting)
        both = inverse(expected, count)
        share = both * expected
        first_r = improved(r, r, before, both * count, square, noise, share)
        found = improved(r, first_r, before, inverse(before + first_r * noise, 1.0), square, noise, share)
        new_r = where(r > 0.0, above_least_r(found, q), 0.0)
        gain = gain_of(before, inverse(before + new_r * noise, 1.0))
        variance = left_variance(gain, noise, new_r, new_r - r, count, given.forgetting, expected)
        return VariationalState(toward(state.mean, sample, gain), variance, new_r, count), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """With a variance; equivariant to shift, and to scale where q = 0."""
        traits = {Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT}
        if not np.any(self.q):
            traits |= {Trait.SCALE_EQUIVARIANT}
        return frozenset(traits)

    def _prior(self) -> VariationalState:
        return VariationalState(math.nan, math.inf, 0.0, 1.0)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        return by_time_and_weight(steps, weight)

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        given = self._given_in(run)
        expected = run.before("variance") + given.q * given.steps + run.before("r") * given.noise
        stated: NDArray[np.float64] = expected
        return stated


def improved(r: Any, tried: Any, before: Any, inverted: Any, square: Any, noise: Any, share: Any) -> Any:
    """r with a share of what the sample says at the gain of an r tried: (z - x)^2 w + K r, x the new mean."""
    left = tried * inverted
    return r + share * (left * left * noise * square + before * inverted * tried - r)
