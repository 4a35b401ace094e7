"""Filters of a random walk that match its noise to the size of the innovations: one variance of the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import sqrt, toward, where
from estimators._parameters import (
    BETWEEN_0_AND_1,
    NONNEGATIVE,
    POSITIVE,
    Parameter,
    fit_together,
    real,
    require,
)
from estimators._recursive import Recursive
from estimators.protocol import Trait

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Changing, Run


def bounded(innovation: Any) -> Any:
    """Keep an innovation to a size of which the square, and a sum of such squares, does not overflow."""
    return where(innovation > 1e152, 1e152, where(innovation < -1e152, -1e152, innovation))


def met(state: Any, sample: Any, q: Any, r: Any, start: Any, noise: Any) -> tuple[Any, ...]:
    """Squared innovation, q, r, variance of the mean before the sample and of the innovation.

    r = 0 says that it is still unknown. The first innovation, of variance 2 r + q, then opens it, and q with
    it as start times r where q is unknown too (start is 0 where it is not).
    """
    seen = state.mean == state.mean
    innovation = where(seen, bounded(sample - state.mean), 0.0)
    square = innovation * innovation
    # Not (square - q) / 2, which may be negative; from above r is left sooner than from below.
    opened = where(r > 0.0, r, where(seen, 0.5 * (square + q), 0.0))
    moving = where(r > 0.0, q, q + start * opened)
    before = where(r > 0.0, state.variance, where(seen, opened + moving, math.inf))
    expected = before + opened * noise
    return square, moving, opened, before, expected


def inverse(expected: Any, count: Any) -> Any:
    """1 / (S n), short of infinity where nothing but a constant has been seen."""
    return 1.0 / (where(expected > 1e-303, expected, 1e-303) * count)


def gain_of(before: Any, inverted: Any) -> Any:
    """Gain P / S, 1 where the mean is unknown, and never more, as the rounded quotient may be."""
    gain = where(before < math.inf, before * inverted, 1.0)
    return where(gain < 1.0, gain, 1.0)


def counted(state: Any, forgetting: Any) -> Any:
    """Innovations that the estimates rest on, the older the less; the first one has a mean to part from."""
    return where(state.mean == state.mean, state.count * forgetting + 1.0, state.count)


def above_least_r(r: Any, q: Any) -> Any:
    """Keep r to q/100 or more, a gain of 0.99: at a gain of 1 no innovation would tell of r any more."""
    return where(r > 0.01 * q, r, 0.01 * q)


def left_variance(gain: Any, noise: Any, r: Any, more: Any, count: Any, forgetting: Any, limit: Any) -> Any:
    """Variance of the mean after a sample, K r, infinite while r is unknown.

    The share of the start in what is known of r, forgetting^n, says how much of a change of r (by ``more``)
    is news of the samples behind the mean as well: early all of it, later none. An outlier must not make the
    mean less certain than the sample was expected to be, the limit.
    """
    share = 1.0 - (1.0 - forgetting) * count
    variance = gain * noise * (r + share * more)
    return where(r > 0.0, where(variance < limit, variance, limit), math.inf)


def by_time_and_weight(steps: Any, weight: Any) -> Changing:
    """Coefficients of samples ``steps`` apart, of which one of weight w is the mean of w: variance r / w."""
    changing: Changing = {}
    if steps is not None:
        changing["steps"] = np.asarray(steps)
    if weight is not None:
        changing["noise"] = np.asarray(1.0 / weight)
    return changing


class MatchingState(NamedTuple):
    """Mean, its variance (infinite while r is unknown), and both variances of the noise as estimated."""

    mean: Any
    variance: Any
    q: Any
    r: Any
    """0 while it is unknown."""
    count: Any
    """Innovations behind the estimates, the older the less; the start counts as one."""


class InnovationMatchingState(NamedTuple):
    """As that of Sage and Husa, and the mean square of the innovations."""

    mean: Any
    variance: Any
    q: Any
    r: Any
    """0 while it is unknown."""
    count: Any
    """Innovations behind the estimates, the older the less; the start counts as one."""
    square: Any
    """Mean square of the innovations, each in proportion to what a settled one is expected to be."""


def in_force(known: Any, estimate: Any) -> Any:
    """Take a variance that is known, else (NaN) its estimate."""
    return where(known == known, known, estimate)


def noise_met(given: Any, state: Any, sample: Any) -> tuple[Any, ...]:
    """Meet a sample, with q and r as known, or as estimated."""
    start = where(given.q == given.q, 0.0, given.signal_to_noise)
    return met(state, sample, in_force(given.q, state.q), in_force(given.r, state.r), start, given.noise)


def matched_noise(given: Any, q: Any, r: Any, ratio: Any, q_step: Any, r_step: Any) -> tuple[Any, Any]:
    """Move q and r by steps towards what matches the ratio of observed to expected squared innovations.

    In steady state q = K^2 S and r = (1 - K) S: an innovation variance C in place of S is both, times C/S.
    """
    new_q, new_r = q + q_step * (q * ratio - q), r + r_step * (r * ratio - r)
    least_q = 1e-6 * in_force(given.r, new_r)
    new_q = in_force(given.q, where(new_q > least_q, new_q, least_q))
    return new_q, in_force(given.r, where(r > 0.0, above_least_r(new_r, new_q), 0.0))


@dataclass(frozen=True, eq=False)
class _Matching(Recursive):
    q: Parameter | None = None
    r: Parameter | None = None
    forgetting: Parameter = 0.98
    signal_to_noise: Parameter = 0.1

    coefficients = ("q", "r", "forgetting", "signal_to_noise", "steps", "noise")
    steps: ClassVar[float] = 1.0
    noise: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        checked: dict[str, Any] = {}
        if self.q is not None:
            checked["q"] = real(name, "q", self.q, NONNEGATIVE.of("as a variance per sample, or None"))
        if self.r is not None:
            checked["r"] = real(name, "r", self.r, POSITIVE.of("as a variance, or None"))
        checked["forgetting"] = real(name, "forgetting", self.forgetting, BETWEEN_0_AND_1)
        ratio = POSITIVE.of("as a ratio of variances q/r")
        checked["signal_to_noise"] = real(name, "signal_to_noise", self.signal_to_noise, ratio)
        unknown = self.q is None or self.r is None
        require(name, "r", self.r, unknown, "None where q is known: of both, Kalman makes more")
        fit_together(name, **checked)
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    @property
    def changes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Time and weight, and r where it is given."""
        return ("steps", "weight") if self.r is None else ("steps", "weight", "r")

    @property
    def traits(self) -> frozenset[Trait]:
        """With a variance; equivariant to shift, and to scale where no variance is known but q = 0."""
        traits = {Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT}
        if self.r is None and (self.q is None or not np.any(self.q)):
            traits |= {Trait.SCALE_EQUIVARIANT}
        return frozenset(traits)

    @property
    def _first(self) -> tuple[Any, ...]:
        """Values of mean, variance, q, r and count before any sample."""
        r = 0.0 if self.r is None else self.r
        q = np.asarray(self.signal_to_noise) * r if self.q is None else self.q
        return math.nan, math.inf, q, r, 1.0

    def _given(self) -> Any:
        unknown = {name: math.nan for name in ("q", "r") if getattr(self, name) is None}
        return super()._given()._replace(**unknown)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        changing = by_time_and_weight(steps, weight)
        return changing if r is None else changing | {"r": np.asarray(r)}

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        given = self._given_in(run)
        q, r = (in_force(np.asarray(known), run.before(n)) for n, known in (("q", given.q), ("r", given.r)))
        stated: NDArray[np.float64] = run.before("variance") + q * given.steps + r * given.noise
        return stated


@dataclass(frozen=True, eq=False)
class SageHusaKalman(_Matching):
    """Kalman filter of a random walk that finds q or r, the other one known, from its squared innovations.

    q >= 0 (the stream's units squared, per sample), r > 0 (squared), None for what is unknown; forgetting in
    (0, 1): what a sample later is left of an innovation's say; signal_to_noise > 0: q/r to start from where q
    is unknown. With both unknown q/r stays at signal_to_noise: in steady state q = K^2 S and r = (1 - K) S
    hold for every gain K, so that the innovations' size S sets the scale and never the ratio. Finding q takes
    many samples where q << r: it hardly shows in S. Raises ValueError.

    Sage and Husa (1969), Joint Automatic Control Conference 10, with 1/n falling to 1 - forgetting as their
    weight. Guarded: r moves towards (1 - K) nu^2 and q towards q nu^2 / S, which is K^2 nu^2 once settled;
    both are positive, where the original's nu^2 - P and K^2 nu^2 + P - P' may not be. Besides r >= q/100,
    q >= r/1e6 for what is found.
    """

    State = MatchingState

    @staticmethod
    def predict(given: Any, state: MatchingState) -> MatchingState:
        """The level may have moved: variance + q."""
        q = in_force(given.q, state.q)
        return MatchingState(state.mean, state.variance + q * given.steps, state.q, state.r, state.count)

    @staticmethod
    def correct(given: Any, state: MatchingState, sample: Any) -> tuple[MatchingState, Any]:
        """Gain P / (P + r); then its squared innovation, over what was expected, moves q and r."""
        square, q, r, before, expected = noise_met(given, state, sample)
        count = counted(state, given.forgetting)
        # One division for two: they are what the step costs.
        both = inverse(expected, count)
        inverted = both * count
        gain, ratio = gain_of(before, inverted), square * inverted
        step = where(state.mean == state.mean, both * expected, 0.0)
        new_q, new_r = matched_noise(given, q, r, ratio, step, step)
        more = where(given.r == given.r, 0.0, new_r - r)
        variance = left_variance(gain, given.noise, r, more, count, given.forgetting, expected)
        return MatchingState(toward(state.mean, sample, gain), variance, new_q, new_r, count), gain

    def _prior(self) -> MatchingState:
        return MatchingState(*self._first)


@dataclass(frozen=True, eq=False)
class InnovationMatchingKalman(_Matching):
    """Kalman filter of a random walk that finds q or r, the other one known, from its innovations' variance.

    q >= 0 (the stream's units squared, per sample), r > 0 (squared), None for what is unknown; forgetting in
    (0, 1): what a sample later is left of an innovation's say, which stands for the window; signal_to_noise
    > 0: q/r to start from where q is unknown. With both unknown q/r stays at signal_to_noise: in steady state
    q = K^2 S and r = (1 - K) S hold for every gain K, so that the innovations' size S sets the scale and
    never the ratio. Finding q takes many samples where q << r: it hardly shows in S. Raises ValueError.

    Mohamed and Schwarz (1999), Journal of Geodesy 73: r = C - P and q = K^2 C with C the mean square of the
    latest innovations. Guarded: at the settled gain P is K C, so that r = (1 - K) C is positive; innovations
    count in proportion to what was expected of each, so that gaps do not show; and with r known q, on which
    the gain depends in turn, moves no faster than the gain. Besides r >= q/100, q >= r/1e6 for what is found.
    """

    forgetting: Parameter = 0.995

    State = InnovationMatchingState

    @staticmethod
    def predict(given: Any, state: InnovationMatchingState) -> InnovationMatchingState:
        """The level may have moved: variance + q."""
        q = in_force(given.q, state.q)
        return InnovationMatchingState(
            state.mean, state.variance + q * given.steps, state.q, state.r, state.count, state.square
        )

    @staticmethod
    def correct(
        given: Any, state: InnovationMatchingState, sample: Any
    ) -> tuple[InnovationMatchingState, Any]:
        """Gain P / (P + r); then the mean square of all innovations, over what is expected, moves q and r."""
        square, q, r, before, expected = noise_met(given, state, sample)
        count, seen = counted(state, given.forgetting), state.mean == state.mean
        both = inverse(expected, count)
        inverted = both * count
        gain = gain_of(before, inverted)
        settled = r + 0.5 * (q + sqrt(q) * sqrt(q + 4.0 * r))
        past = where(state.square > 0.0, state.square, settled)
        moved = past + (square * inverted * settled - past) * (both * expected)
        mean_square = where(seen, moved, state.square)
        ratio = mean_square / where(settled > 0.0, settled, 1.0)
        step = where(seen, 1.0, 0.0)
        new_q, new_r = matched_noise(given, q, r, ratio, step * where(given.r == given.r, gain, 1.0), step)
        more = where(given.r == given.r, 0.0, new_r - r)
        variance = left_variance(gain, given.noise, r, more, count, given.forgetting, expected)
        mean = toward(state.mean, sample, gain)
        return InnovationMatchingState(mean, variance, new_q, new_r, count, mean_square), gain

    def _prior(self) -> InnovationMatchingState:
        mean, variance, q, r, count = self._first
        return InnovationMatchingState(mean, variance, q, r, count, 0.0)
