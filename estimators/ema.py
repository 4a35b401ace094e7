"""Exponential moving averages: plain, bias-corrected, and with the variance of what they average."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from estimators._arithmetic import toward, where
from estimators._parameters import (
    ABOVE_0_TO_1,
    AT_LEAST_ONE,
    BETWEEN_0_AND_1,
    FINITE,
    FREQUENCY,
    FROM_0_BELOW_1,
    NONNEGATIVE,
    POSITIVE,
    Parameter,
    Range,
    fit_together,
    plain,
    real,
    require,
)
from estimators._recursive import Recursive
from estimators.protocol import Trait
from estimators.response import SettledGain, gain_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Changing, Run

_FROZEN = "(at beta = 1 the gain is 0: a frozen filter, which no sample ever moves)"


class EMAState(NamedTuple):
    """Mean so far; NaN before the first sample of an EMA that starts there."""

    mean: Any

    @property
    def variance(self) -> None:
        """None: no error is stated."""


class DebiasedEMAState(NamedTuple):
    """Mean so far, NaN before the first sample, and the weight mass 1 - beta^t behind it."""

    mean: Any
    weight: Any

    @property
    def variance(self) -> None:
        """None: no error is stated."""


class EMAWithVarianceState(NamedTuple):
    """Mean, NaN before the first sample; variance of its error, weight mass, and spread of the samples."""

    mean: Any
    variance: Any
    weight: Any
    squared: Any
    """Sum of the squared weights."""
    spread: Any


@dataclass(frozen=True, eq=False)
class _Exponential(Recursive, SettledGain):
    """The settings of an exponential moving average by the names the field has for them."""

    beta: Parameter

    memory = "beta"
    betas: ClassVar[Range]
    """Betas that the class takes."""

    @property
    def steady_gain(self) -> Parameter:
        """1 - beta."""
        return 1.0 - self.beta

    @property
    def steady_beta(self) -> Parameter:
        """Beta."""
        return self.beta

    @property
    def signal_to_noise(self) -> Parameter:
        """q/r of the random walk on which this beta has the least error: (1 - beta)^2 / beta."""
        return self._quiet(lambda gain, beta: gain**2 / beta)

    @classmethod
    def from_alpha(cls, alpha: Any, **parameters: Any) -> Self:
        """From the weight of the newest sample, alpha = 1 - beta in (0, 1]; ValueError outside."""
        return cls._from("alpha", alpha, ABOVE_0_TO_1, lambda a: 1.0 - a, parameters)

    @classmethod
    def from_half_life(cls, half_life: Any, **parameters: Any) -> Self:
        """From the samples after which a weight has halved, > 0: beta = 2^(-1 / half_life)."""
        samples = POSITIVE.of("samples")
        return cls._from("half_life", half_life, samples, lambda h: 0.5 ** (1.0 / h), parameters)

    @classmethod
    def from_time_constant(cls, time_constant: Any, **parameters: Any) -> Self:
        """From the samples after which a weight has fallen to 1/e, > 0: beta = exp(-1 / time_constant)."""
        samples = POSITIVE.of("samples")
        return cls._from("time_constant", time_constant, samples, lambda tau: np.exp(-1.0 / tau), parameters)

    @classmethod
    def from_span(cls, span: Any, **parameters: Any) -> Self:
        """From pandas' span, >= 1: beta = (span - 1) / (span + 1), a window's noise gain."""
        samples = AT_LEAST_ONE.of("samples")
        return cls._from("span", span, samples, lambda n: (n - 1.0) / (n + 1.0), parameters)

    @classmethod
    def from_cutoff(cls, cutoff: Any, **parameters: Any) -> Self:
        """From the frequency of half power in cycles per sample, in (0, 0.5]."""
        return cls._from("cutoff", cutoff, FREQUENCY, lambda f: _beta_at_odds(1.0, f), parameters)

    @classmethod
    def from_attenuation(cls, db: Any, f: Any, **parameters: Any) -> Self:
        """From the attenuation in dB, > 0, wanted at a frequency f in (0, 0.5] cycles per sample.

        Solves |H(f)|^2 = 10^(-db/10) for beta: with k = 2 sin^2(pi f) P / (1 - P), b^2 - 2 (1 + k) b + 1 = 0.
        """
        name = f"{cls.__name__}.from_attenuation"
        frequency = real(name, "f", f, FREQUENCY)
        fit_together(name, db=db, f=frequency)

        def beta(decibels: Any) -> Any:
            odds = 1.0 / np.expm1(np.asarray(decibels) * (math.log(10.0) / 10.0))
            return _beta_at_odds(odds, frequency)

        return cls._from("attenuation", db, POSITIVE.of("dB"), beta, parameters, field="db")

    @classmethod
    def from_noise_gain(cls, noise_gain: Any, **parameters: Any) -> Self:
        """From the variance that white noise keeps, in (0, 1]: beta = (1 - g) / (1 + g)."""
        return cls._from("noise_gain", noise_gain, ABOVE_0_TO_1, lambda g: (1.0 - g) / (1.0 + g), parameters)

    @classmethod
    def from_group_delay(cls, group_delay: Any, **parameters: Any) -> Self:
        """From the lag on a ramp in samples, >= 0: beta = d / (1 + d)."""
        samples = NONNEGATIVE.of("samples")
        return cls._from("group_delay", group_delay, samples, lambda d: d / (1.0 + d), parameters)

    @classmethod
    def from_signal_to_noise(cls, s: Any, **parameters: Any) -> Self:
        """From s = q/r > 0 of a random walk, with the least error on it: beta = 1 - K(s)."""
        ratio = Range("> 0, a ratio of variances q/r", lambda v: v > 0)

        def beta(s: Any) -> Any:
            return 1.0 - gain_of(np.asarray(s))

        return cls._from("signal_to_noise", s, ratio, beta, parameters, field="s")

    @classmethod
    def _from(
        cls, by: str, value: Any, allowed: Range, beta: Any, parameters: dict[str, Any], field: str = ""
    ) -> Self:
        """Make the setting whose beta follows from another quantity; errors name that one."""
        name, field = f"{cls.__name__}.from_{by}", field or by
        given = real(name, field, value, allowed)
        with np.errstate(over="ignore"):
            found = np.asarray(beta(given))
        valid = f"such that beta is {cls.betas.valid} in float64 {_FROZEN}"
        require(name, field, value, np.all(cls.betas.inside(found)), valid)
        return cls(plain(found), **parameters)


@dataclass(frozen=True, eq=False)
class EMA(_Exponential):
    """Exponential moving average, mean += (1 - beta) (x - mean).

    beta in [0, 1); initial: the mean before the first sample, in the stream's unit, None to start at the
    first sample. A missing sample changes nothing; for samples known to be dt steps apart beta is beta^dt.
    ``EMA.from_half_life(50)`` and its like take what else the field knows beta by. Raises ValueError for
    parameters outside these ranges. Roberts (1959), Technometrics 1 (geometric moving averages).
    """

    initial: Parameter | None = 0.0

    State = EMAState
    betas = FROM_0_BELOW_1
    coefficients = ("beta",)
    changes = ("steps", "weight")

    def __post_init__(self) -> None:
        beta = real(type(self).__name__, "beta", self.beta, self.betas.of(_FROZEN))
        object.__setattr__(self, "beta", beta)
        if self.initial is not None:
            start = FINITE.of("or None for the first sample")
            initial = real(type(self).__name__, "initial", self.initial, start)
            fit_together(type(self).__name__, beta=beta, initial=initial)
            object.__setattr__(self, "initial", initial)

    @staticmethod
    def predict(given: Any, state: EMAState) -> EMAState:
        """Time alone changes nothing."""
        return state

    @staticmethod
    def correct(given: Any, state: EMAState, sample: Any) -> tuple[EMAState, Any]:
        """Constant gain 1 - beta; a first sample without a mean before it is the mean."""
        gain = where(state.mean == state.mean, 1.0 - given.beta, 1.0)
        return EMAState(toward(state.mean, sample, gain)), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear; a stated start is a prior, and gives up equivariance to shift (and to scale unless 0)."""
        traits = {Trait.LINEAR}
        if self.initial is None:
            traits |= {Trait.SHIFT_EQUIVARIANT}
        if self.initial is None or not np.any(self.initial):
            traits |= {Trait.SCALE_EQUIVARIANT}
        if not np.any(self.beta):
            traits |= {Trait.FINITE_MEMORY}
        return frozenset(traits)

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        """beta^dt; a weight w multiplies the odds (1 - beta) / beta of the newest sample."""
        beta = np.asarray(self.beta if steps is None else self.beta**steps)
        return {"beta": beta if weight is None else beta / (beta + (1.0 - beta) * weight)}

    def _prior(self) -> EMAState:
        return EMAState(math.nan if self.initial is None else self.initial)


class _WeightMass(_Exponential):
    """Exponential weights over their accumulated mass: unbiased from the first sample on."""

    betas = BETWEEN_0_AND_1
    coefficients: ClassVar[tuple[str, ...]] = ("beta", "share")
    changes = ("steps", "weight")

    def __post_init__(self) -> None:
        beta = real(type(self).__name__, "beta", self.beta, self.betas.of(_FROZEN))
        object.__setattr__(self, "beta", beta)

    @property
    def share(self) -> Parameter:
        """1 - beta: what a sample adds to the weight mass."""
        return 1.0 - self.beta

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        """The mass ages by beta^dt; a sample of weight w adds w times its share to it."""
        changing: Changing = {}
        if steps is not None:
            changing["beta"] = np.asarray(self.beta**steps)
        if weight is not None:
            changing["share"] = np.asarray(self.share * weight)
        return changing


@dataclass(frozen=True, eq=False)
class DebiasedEMA(_WeightMass):
    """Bias-corrected EMA: the mean over the accumulated weight mass, unbiased from the first sample on.

    beta in (0, 1), ValueError outside. Equals Adam's m_t / (1 - beta^t) (Kingma and Ba 2015, algorithm 1) and
    pandas' ewm(adjust=True, ignore_na=False): the weight mass ages by beta at a missing sample. The mass is
    accumulated, never the biased mean divided, so a constant comes out as itself for every beta and dtype.
    """

    State = DebiasedEMAState

    @staticmethod
    def predict(given: Any, state: DebiasedEMAState) -> DebiasedEMAState:
        """The weight mass ages."""
        return DebiasedEMAState(state.mean, given.beta * state.weight)

    @staticmethod
    def correct(given: Any, state: DebiasedEMAState, sample: Any) -> tuple[DebiasedEMAState, Any]:
        """Gain (1 - beta) / mass, which is 1 at the first sample: 1/K' = 1 + beta/K."""
        weight = state.weight + given.share
        gain = given.share / weight
        return DebiasedEMAState(toward(state.mean, sample, gain), weight), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear and equivariant: it starts from nothing."""
        return frozenset({Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT})

    def _prior(self) -> DebiasedEMAState:
        return DebiasedEMAState(math.nan, 0.0)


@dataclass(frozen=True, eq=False)
class EMAWithVariance(_WeightMass):
    """Bias-corrected EMA beside an exponentially weighted variance: the baseline, with an interval.

    beta in (0, 1), ValueError outside. The spread is that of the samples about the mean, with the same
    weights (pandas' ewm(adjust=True).var(bias=True); West 1979, CACM 22). On the random walk for which this
    beta is the best it settles at the measurement variance r, and the variance of the mean's error at gain
    times that, as a settled Kalman filter states it; where nothing drifts, that is twice the truth. Of a few
    samples the interval, a normal one, is too narrow.
    """

    State = EMAWithVarianceState
    coefficients = ("beta", "share", "settled")

    @property
    def settled(self) -> Parameter:
        """2 beta / (1 + beta): one less the settled sum of squared weights."""
        return 2.0 * self.beta / (1.0 + self.beta)

    @staticmethod
    def predict(given: Any, state: EMAWithVarianceState) -> EMAWithVarianceState:
        """The weight mass ages, and what rests on it is as much less sure."""
        aged = where(given.beta > 0.0, given.beta, 1.0)
        variance = where(given.beta > 0.0, state.variance / aged, math.inf)
        weight, squared = given.beta * state.weight, given.beta * given.beta * state.squared
        return EMAWithVarianceState(state.mean, variance, weight, squared, state.spread)

    @staticmethod
    def correct(given: Any, state: EMAWithVarianceState, sample: Any) -> tuple[EMAWithVarianceState, Any]:
        """DebiasedEMA's gain K; spread (1 - K) (spread + K innovation^2), of one sample none.

        What the spread misses for want of samples, one less the sum of the squared weights, is made up for.
        """
        weight, squared = state.weight + given.share, state.squared + given.share * given.share
        gain = given.share / weight
        first = state.mean != state.mean
        innovation = where(first, 0.0, sample - state.mean)
        spread = where(first, 0.0, (1.0 - gain) * (state.spread + gain * innovation * innovation))
        missed = 1.0 - squared / (weight * weight)
        several = missed > 1e-9  # after a gap so long that all else is forgotten there is one sample again
        unbiased = spread / where(several, missed, 1.0)
        variance = where(several, gain * given.settled * unbiased, math.inf)
        mean = toward(state.mean, sample, gain)
        return EMAWithVarianceState(mean, variance, weight, squared, spread), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear in the mean and equivariant, with a variance that follows from the samples."""
        traits = {Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT}
        return frozenset(traits | {Trait.HAS_VARIANCE})

    def _prior(self) -> EMAWithVarianceState:
        return EMAWithVarianceState(math.nan, math.inf, 0.0, 0.0, 0.0)

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        # Of the mean before it, as that has aged, and of the sample, which is the mean's over its gain.
        variance, share = run.before("variance"), np.asarray(self.share)
        with np.errstate(all="ignore"):
            stated: NDArray[np.float64] = variance / self._given_in(run).beta
            stated = stated + variance * run.before("weight") / share
        return np.where(np.isinf(variance), math.inf, stated)


def _beta_at_odds(odds: Any, frequency: Any) -> Any:
    """Beta whose power P at a frequency has these odds, P / (1 - P)."""
    k = 2.0 * np.sin(np.pi * np.asarray(frequency)) ** 2 * odds
    return 1.0 / (1.0 + k + np.sqrt(k) * np.sqrt(2.0 + k))
