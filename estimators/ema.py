"""Exponential moving averages: plain (zero-started or from the first sample) and bias-corrected."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from estimators._arithmetic import toward, where
from estimators._base import Recursive
from estimators._parameters import Parameter, fit_together, real
from estimators.protocol import Trait
from estimators.response import SettledGain

_FROZEN = " (at beta = 1 the gain is 0: a frozen filter, which no sample ever moves)"


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


@dataclass(frozen=True, eq=False)
class _Exponential(Recursive, SettledGain):
    """The settings of an exponential moving average by the names the field has for them."""

    beta: Parameter

    memory = "beta"

    @property
    def steady_gain(self) -> Parameter:
        """1 - beta."""
        return 1.0 - self.beta

    @property
    def signal_to_noise(self) -> Parameter:
        """q/r of the random walk on which this beta has the least error: (1 - beta)^2 / beta."""
        beta = np.asarray(self.beta)
        with np.errstate(divide="ignore", over="ignore"):
            ratio = (1.0 - beta) ** 2 / beta
        return float(ratio) if ratio.ndim == 0 else ratio

    @classmethod
    def from_alpha(cls, alpha: Any, **parameters: Any) -> Self:
        """From the weight of the newest sample, alpha = 1 - beta in (0, 1]; ValueError outside."""
        name = f"{cls.__name__}.from_alpha"
        alpha = real(name, "alpha", alpha, lambda a: (a > 0) & (a <= 1), "in (0, 1]")
        return cls(1.0 - alpha, **parameters)

    @classmethod
    def from_half_life(cls, half_life: Any, **parameters: Any) -> Self:
        """From the samples after which a weight has halved, > 0: beta = 2^(-1 / half_life)."""
        h = real(f"{cls.__name__}.from_half_life", "half_life", half_life, _positive, "> 0 samples")
        return cls(_power(0.5, h), **parameters)

    @classmethod
    def from_time_constant(cls, time_constant: Any, **parameters: Any) -> Self:
        """From the samples after which a weight has fallen to 1/e, > 0: beta = exp(-1 / time_constant)."""
        tau = real(
            f"{cls.__name__}.from_time_constant", "time_constant", time_constant, _positive, "> 0 samples"
        )
        return cls(_power(math.exp(-1.0), tau), **parameters)

    @classmethod
    def from_span(cls, span: Any, **parameters: Any) -> Self:
        """From pandas' span, >= 1: beta = (span - 1) / (span + 1), a window's noise gain."""
        name = f"{cls.__name__}.from_span"
        span = real(name, "span", span, lambda n: (n >= 1) & np.isfinite(n), ">= 1 samples")
        return cls((span - 1.0) / (span + 1.0), **parameters)

    @classmethod
    def from_cutoff(cls, cutoff: Any, **parameters: Any) -> Self:
        """From the frequency of half power in cycles per sample, in (0, 0.5]."""
        f = real(f"{cls.__name__}.from_cutoff", "cutoff", cutoff, _frequency, "in (0, 0.5] cycles per sample")
        return cls(_beta_at_odds(1.0, f), **parameters)

    @classmethod
    def from_attenuation(cls, db: Any, f: Any, **parameters: Any) -> Self:
        """From the attenuation in dB, > 0, wanted at a frequency f in (0, 0.5] cycles per sample.

        Solves |H(f)|^2 = 10^(-db/10) for beta: with k = 2 sin^2(pi f) P / (1 - P), b^2 - 2 (1 + k) b + 1 = 0.
        """
        name = f"{cls.__name__}.from_attenuation"
        decibels = np.asarray(real(name, "db", db, _positive, "> 0 dB"))
        frequency = real(name, "f", f, _frequency, "in (0, 0.5] cycles per sample")
        with np.errstate(over="ignore"):
            odds = 1.0 / np.expm1(decibels * (math.log(10.0) / 10.0))
        return cls(_beta_at_odds(odds, frequency), **parameters)

    @classmethod
    def from_noise_gain(cls, noise_gain: Any, **parameters: Any) -> Self:
        """From the variance that white noise keeps, in (0, 1]: beta = (1 - g) / (1 + g)."""
        name = f"{cls.__name__}.from_noise_gain"
        g = real(name, "noise_gain", noise_gain, lambda g: (g > 0) & (g <= 1), "in (0, 1]")
        return cls((1.0 - g) / (1.0 + g), **parameters)

    @classmethod
    def from_group_delay(cls, group_delay: Any, **parameters: Any) -> Self:
        """From the lag on a ramp in samples, >= 0: beta = d / (1 + d)."""
        name = f"{cls.__name__}.from_group_delay"
        d = real(name, "group_delay", group_delay, lambda d: (d >= 0) & np.isfinite(d), ">= 0 samples")
        return cls(d / (1.0 + d), **parameters)

    @classmethod
    def from_signal_to_noise(cls, s: Any, **parameters: Any) -> Self:
        """From s = q/r > 0 of a random walk, with the least error on it: beta = 1 - K(s)."""
        name = f"{cls.__name__}.from_signal_to_noise"
        ratio = real(name, "s", s, lambda v: v > 0, "> 0, a ratio of variances q/r")
        with np.errstate(over="ignore"):
            return cls(1.0 - 2.0 / (1.0 + (1.0 + 4.0 / ratio) ** 0.5), **parameters)


@dataclass(frozen=True, eq=False)
class EMA(_Exponential):
    """Exponential moving average, mean += (1 - beta) (x - mean).

    beta in [0, 1); initial: the mean before the first sample, None to start at the first sample. A missing
    sample changes nothing. Raises ValueError for parameters outside these ranges.
    """

    initial: Parameter | None = 0.0

    State = EMAState
    coefficients = ("beta",)

    def __post_init__(self) -> None:
        beta = real(self, "beta", self.beta, lambda b: (b >= 0) & (b < 1), "in [0, 1)" + _FROZEN)
        object.__setattr__(self, "beta", beta)
        if self.initial is not None:
            initial = real(self, "initial", self.initial, np.isfinite, "finite, or None for the first sample")
            fit_together(self, beta=beta, initial=initial)
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

    def _prior(self) -> EMAState:
        return EMAState(math.nan if self.initial is None else self.initial)


@dataclass(frozen=True, eq=False)
class DebiasedEMA(_Exponential):
    """Bias-corrected EMA: the mean over the accumulated weight mass, unbiased from the first sample on.

    beta in (0, 1), ValueError outside. Equals Adam's m_t / (1 - beta^t) (Kingma and Ba 2015, algorithm 1) and
    pandas' ewm(adjust=True, ignore_na=False): the weight mass ages by beta at a missing sample. The mass is
    accumulated, never the biased mean divided, so a constant comes out as itself for every beta and dtype.
    """

    State = DebiasedEMAState
    coefficients = ("beta",)

    def __post_init__(self) -> None:
        beta = real(self, "beta", self.beta, lambda b: (b > 0) & (b < 1), "in (0, 1)" + _FROZEN)
        object.__setattr__(self, "beta", beta)

    @staticmethod
    def predict(given: Any, state: DebiasedEMAState) -> DebiasedEMAState:
        """The weight mass ages."""
        return DebiasedEMAState(state.mean, given.beta * state.weight)

    @staticmethod
    def correct(given: Any, state: DebiasedEMAState, sample: Any) -> tuple[DebiasedEMAState, Any]:
        """Gain (1 - beta) / mass, which is 1 at the first sample: 1/K' = 1 + beta/K."""
        weight = state.weight + (1.0 - given.beta)
        gain = (1.0 - given.beta) / weight
        return DebiasedEMAState(toward(state.mean, sample, gain), weight), gain

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear and equivariant: it starts from nothing."""
        return frozenset({Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT})

    def _prior(self) -> DebiasedEMAState:
        return DebiasedEMAState(math.nan, 0.0)


def _positive(value: Any) -> Any:
    return (value > 0) & np.isfinite(value)


def _frequency(value: Any) -> Any:
    return (value > 0) & (value <= 0.5)


def _power(base: float, time: Parameter) -> Parameter:
    result: Parameter = base ** (1.0 / time)
    return result


def _beta_at_odds(odds: Any, frequency: Any) -> Any:
    """Beta whose power P at a frequency has these odds, P / (1 - P)."""
    k = 2.0 * np.sin(np.pi * np.asarray(frequency)) ** 2 * odds
    return 1.0 / (1.0 + k + np.sqrt(k) * np.sqrt(2.0 + k))
