"""A level with a slope: the local linear trend filter, and what it settles to, Holt's linear smoothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from estimators._arithmetic import where
from estimators._combined import Combined
from estimators._parameters import (
    ABOVE_0_TO_1,
    BETWEEN_0_AND_1,
    FROM_0_TO_1,
    NONNEGATIVE,
    Parameter,
    fit_together,
    plain,
    real,
    require,
    whole,
)
from estimators._random_walk import measured
from estimators._samples import as_stream
from estimators.protocol import Trait
from estimators.response import SettledTrend, gain_of
from estimators.results import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._samples import OnInfinite
    from estimators.results import Changing


class TrendState(NamedTuple):
    """Level and slope per sample, the covariance of their errors, and how long the slope has been unknown."""

    mean: Any
    slope: Any
    variance: Any
    covariance: Any
    """While the slope is unknown, the measurement variance of the first sample stands here."""
    slope_variance: Any
    age: Any
    """Steps since the first sample while the slope is unknown, 0 once it is known."""


class HoltState(NamedTuple):
    """Level, NaN before the first sample, and slope per sample."""

    mean: Any
    slope: Any

    @property
    def variance(self) -> None:
        """None: no error is stated."""


def corrected(carried: Any, sample: Any, weights: Any) -> Any:
    """Level and slope moved by their gains times the innovation; a gain of 1 forgets the level."""
    level, slope = carried
    gain, slope_gain = weights
    innovation = where(level == level, sample - level, 0.0)
    moved = slope + slope_gain * innovation
    # Of samples near the largest numbers the slope may not be one.
    return where(gain == 1.0, sample, level + gain * innovation), where(abs(moved) < 1e308, moved, slope)


def along(level: Any, slope: Any) -> Any:
    """Level one step later, where it is if that is no number."""
    ahead = level + slope
    return where(abs(ahead) < 1e308, ahead, level)


def weighed(given: Any, state: Any, sample: Any) -> Any:
    """Covariance after a sample and age; gains of level and slope.

    While the slope is unknown, so is the level: these are then the limits of Durbin and Koopman (2012),
    section 5.2, at the second sample, n steps after the first: gains 1 and 1/n, and a covariance of the two
    samples' errors and of what drifted between them.
    """
    known, first = state.slope_variance < math.inf, state.mean != state.mean
    n = where(state.age > 1.0, state.age, 1.0)
    mixed = given.q_slope * (0.5 * n * (n - 1.0))
    apart = state.covariance + given.r + given.q * n + mixed * (2.0 * n - 1.0) / 3.0
    total = state.variance + given.r
    gain = where(known, state.variance / total, 1.0)
    slope_gain = where(known, state.covariance / total, where(first, 0.0, 1.0 / n))
    rest = where(
        known,
        state.slope_variance - slope_gain * state.covariance,
        given.q_slope * n + apart / (n * n) - 2.0 * mixed / n,
    )
    rest = where(first, math.inf, where(rest > 0.0, rest, 0.0))
    covariance = where(first, given.r, given.r * slope_gain)
    return (given.r * gain, covariance, rest, 0.0 * n), (gain, slope_gain)


def settled(given: Any, state: Any, sample: Any) -> Any:
    """Nothing else moves; the gains, 1 and 0 at the first sample."""
    there = state.mean == state.mean
    return (), (where(there, given.gain, 1.0), where(there, given.slope_gain, 0.0))


class _Trend(Combined, SettledTrend):
    """What the two have in common: level and slope are carried, and the slope leads the level on."""

    carried = 2
    move = staticmethod(corrected)

    def score(self, x: Any, truth: Any = None, *, skip: int = 0, on_infinite: OnInfinite = "raise") -> Score:
        """Errors as ``BaseEstimator.score`` has them; without truth those of predictions, which are kept."""
        if truth is not None:
            return super().score(x, truth, skip=skip, on_infinite=on_infinite)
        run = self.filter(as_stream(x)[0], on_infinite=on_infinite)._run
        error = -run.innovation[max(1, whole("score", "skip", skip, 0)) :]
        error = error.reshape(len(error), math.prod(run.channels))
        known = ~np.isnan(error)
        sums = [np.where(known, terms, 0.0).sum(axis=0) for terms in (1.0, error, error**2)]
        return Score.of(np.stack(sums), run.channels)

    def _constant(self, level: NDArray[np.float64]) -> tuple[Any, ...]:
        return level, np.zeros_like(level)


@dataclass(frozen=True, eq=False)
class LocalTrend(_Trend):
    """Kalman filter of a level that drifts along a slope, which drifts itself: no lag on a ramp.

    q: variance of the level's own steps; q_slope: of the slope's; r: of the measurement; all >= 0 and not all
    0 (units: the stream's squared, q and q_slope per sample); ValueError outside. Diffuse start, exact: the
    slope is known from the second sample on. Harvey (1989), Forecasting, section 2.3.2; Durbin and Koopman
    (2012), section 3.2.1 (local linear trend).
    """

    q: Parameter
    q_slope: Parameter
    r: Parameter

    State = TrendState
    coefficients = ("q", "q_slope", "r")
    changes = ("weight", "r")
    memory = "q_slope"
    weigh = staticmethod(weighed)

    def __post_init__(self) -> None:
        name, values = type(self).__name__, {}
        for field, what in (("q", "per sample"), ("q_slope", "per sample"), ("r", "")):
            allowed = NONNEGATIVE.of(f"as a variance {what}".rstrip())
            values[field] = real(name, field, getattr(self, field), allowed)
        fit_together(name, **values)
        some = sum(np.asarray(value) for value in values.values())
        require(
            name, "r", values["r"], np.all(some > 0), "> 0 where q = q_slope = 0: there is no filter then"
        )
        for field, value in values.items():
            object.__setattr__(self, field, value)

    @staticmethod
    def predict(given: Any, state: TrendState) -> TrendState:
        """The level has moved along the slope, and both may have drifted."""
        unknown = state.slope_variance == math.inf
        return TrendState(
            along(state.mean, state.slope),
            state.slope,
            state.variance + 2.0 * state.covariance + state.slope_variance + given.q,
            state.covariance + where(unknown, 0.0, state.slope_variance),
            state.slope_variance + given.q_slope,
            state.age + where(unknown, 1.0, 0.0),
        )

    @staticmethod
    def correct(given: Any, state: TrendState, sample: Any) -> tuple[TrendState, Any]:
        """Gains P / (P + r) of the level and C / (P + r) of the slope."""
        rest, weights = weighed(given, state, sample)
        return TrendState(*(corrected((state.mean, state.slope), sample, weights) + rest)), weights[0]

    @property
    def _modes(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Gains of the two EMAs whose cascade this settles to; complex where they are a pair.

        r u^2 + q u + q_slope is the spectrum of the second differences at u = 2 - 2 cos w; its roots are
        -s of two random walks (Harvey 1989, section 4.1).
        """
        q, q_slope, r = (np.asarray(value, dtype=np.complex128) for value in (self.q, self.q_slope, self.r))
        with np.errstate(all="ignore"):  # ratios first: the variances' squares may not be numbers
            s, s_slope = q / r, q_slope / r
            root = np.where(s == 0.0, np.sqrt(-4.0 * s_slope), s * np.sqrt(1.0 - 4.0 * (s_slope / s) / s))
            fast = np.where(r == 0.0, np.inf, 0.5 * (s + root))
            slow = np.where(r == 0.0, q_slope / q, s_slope / (0.5 * (s + root)))
            slow = np.where(q_slope == 0.0, 0.0, slow)
        return gain_of(fast), gain_of(slow)

    @property
    def steady_gain(self) -> Parameter:
        """k1 + k2 - k1 k2, with k1, k2 the gains of the two EMAs in cascade that this settles to."""
        one, other = self._modes
        return plain((one + other - one * other).real)

    @property
    def steady_slope_gain(self) -> Parameter:
        """k1 k2."""
        one, other = self._modes
        return plain((one * other).real)

    def steady_state(self) -> Holt:
        """Return Holt's linear smoothing that this filter is once settled; ValueError for q_slope = 0."""
        name = f"{type(self).__name__}.steady_state"
        moving = np.all(np.asarray(self.q_slope) > 0)
        require(name, "q_slope", self.q_slope, moving, "> 0: at 0 the slope's gain falls for ever")
        return Holt(self.steady_gain, self.steady_slope_gain)

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear, equivariant, with a variance and a slope."""
        traits = {Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT}
        return frozenset(traits | {Trait.HAS_VARIANCE, Trait.FOLLOWS_TREND})

    def _prior(self) -> TrendState:
        return TrendState(math.nan, 0.0, math.inf, 0.0, math.inf, 0.0)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        return {"r": measured(self.r, weight, r)}


@dataclass(frozen=True, eq=False)
class Holt(_Trend):
    """Holt's linear smoothing: level and slope moved by two constant gains; a g-h (alpha-beta) filter.

    gain in (0, 1] of the level, slope_gain in [0, gain] of the slope; ValueError outside. Starts at the first
    sample with slope 0; a missing sample goes on along the slope. Holt (1957), reprinted 2004, Int. J.
    Forecasting 20; by its error form, Hyndman et al. (2008), section 2.5.
    """

    gain: Parameter
    slope_gain: Parameter

    State = HoltState
    coefficients = ("gain", "slope_gain")
    weigh = staticmethod(settled)

    def __post_init__(self) -> None:
        name = type(self).__name__
        gain = real(name, "gain", self.gain, ABOVE_0_TO_1)
        slope_gain = real(name, "slope_gain", self.slope_gain, FROM_0_TO_1)
        fit_together(name, gain=gain, slope_gain=slope_gain)
        within = np.all(np.asarray(slope_gain) <= np.asarray(gain))
        require(name, "slope_gain", slope_gain, within, f"in [0, gain], with gain={gain!r}")
        object.__setattr__(self, "gain", gain)
        object.__setattr__(self, "slope_gain", slope_gain)

    @classmethod
    def from_smoothing(cls, alpha: Any, beta: Any) -> Self:
        """From Holt's smoothing parameters, alpha in (0, 1] of the level, beta in [0, 1] of the slope."""
        name = f"{cls.__name__}.from_smoothing"
        of_level, of_slope = real(name, "alpha", alpha, ABOVE_0_TO_1), real(name, "beta", beta, FROM_0_TO_1)
        fit_together(name, alpha=of_level, beta=of_slope)
        return cls(of_level, of_level * of_slope)

    @classmethod
    def from_brown(cls, beta: Any) -> Self:
        """From the one beta in (0, 1) of Brown's double EMA: gains 1 - beta^2 and (1 - beta)^2.

        Twice the EMA minus the EMA of the EMA is its level. Brown (1963), Smoothing, chapter 9.
        """
        given = np.asarray(real(f"{cls.__name__}.from_brown", "beta", beta, BETWEEN_0_AND_1))
        return cls((1.0 - given) * (1.0 + given), (1.0 - given) ** 2)

    @staticmethod
    def predict(given: Any, state: HoltState) -> HoltState:
        """The level has moved along the slope."""
        return HoltState(along(state.mean, state.slope), state.slope)

    @staticmethod
    def correct(given: Any, state: HoltState, sample: Any) -> tuple[HoltState, Any]:
        """Constant gains; the first sample is the level."""
        _, weights = settled(given, state, sample)
        return HoltState(*corrected((state.mean, state.slope), sample, weights)), weights[0]

    @property
    def steady_gain(self) -> Parameter:
        """The level's gain."""
        return self.gain

    @property
    def steady_slope_gain(self) -> Parameter:
        """The slope's gain."""
        return self.slope_gain

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear and equivariant; it follows a trend unless the slope's gain is 0."""
        traits = {Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT}
        if np.all(np.asarray(self.slope_gain) > 0.0):
            traits |= {Trait.FOLLOWS_TREND}
        return frozenset(traits)

    def _prior(self) -> HoltState:
        return HoltState(math.nan, 0.0)
