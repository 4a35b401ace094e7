"""Synthetic streams: a known level plus noise, drawn per repetition, the same for every estimator."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, ClassVar, Literal, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Purpose = Literal["evaluate", "tune"]


DEFAULT_S = 1.0 / 9900.0
"""q/r at which a Kalman filter settles at beta = 0.99."""


class Domain(StrEnum):
    """Where a gradient ratio is smoothed: as its logarithm, as it is, or as the weight it leads to."""

    log_ratio = "log_ratio"
    ratio = "ratio"
    weight = "weight"

    @property
    def unit(self) -> str:
        """Unit of the samples."""
        return self.value.replace("_", " ")

    def of_log_ratio(self, log_ratio: Array) -> Array:
        """Map from the logarithm; the inverse-norm weight of the larger gradient is 1 / (1 + ratio)."""
        if self is Domain.log_ratio:
            return log_ratio
        with np.errstate(over="ignore"):  # a weight of 0 is right; who needs the ratio looks for inf
            ratio: Array = np.exp(log_ratio)
            return ratio if self is Domain.ratio else 1.0 / (1.0 + ratio)

    def moments(self, median: float, r: float) -> tuple[float, float]:
        """Mean and variance of a ratio of this median whose logarithm has Gaussian noise of variance r.

        A normal's, a lognormal's, and those of the logistic of a normal, by the sum over equal steps, which
        errs less than rounding does for sqrt(r) up to 5: Trefethen and Weideman (2014), SIAM Review 56(3).
        """
        if self is Domain.log_ratio:
            return float(np.log(median)), r
        if self is Domain.ratio:
            with np.errstate(over="ignore", invalid="ignore"):
                mean = float(median * np.exp(0.5 * r))
                return mean, float(mean**2 * np.expm1(r))
        z = np.linspace(-12.0, 12.0, 1001)
        density = np.exp(-0.5 * z**2)
        density /= density.sum()
        weights = self.of_log_ratio(np.log(median) + np.sqrt(r) * z)
        mean = float(density @ weights)
        return mean, float(density @ (weights - mean) ** 2)


@dataclass(frozen=True)
class Realisations:
    """Repetitions of one stream: samples (NaN: missing) and the true level, both (T, n), if it is known."""

    samples: Array
    level: Array | None
    zero_mean: bool
    """Whether the noise has mean zero by construction, as it has where it is added in the stream's domain."""

    @property
    def noise(self) -> Array:
        """Samples minus level, NaN where missing; only where the level is known."""
        if self.level is None:
            raise ValueError("a recorded stream has no known level")
        return self.samples - self.level


class Stream(ABC):
    """A source of repetitions; a frozen dataclass whose fields are its settings under ``stream.``."""

    has_truth: ClassVar[bool] = True
    steps: int | None
    noise_variance: float | None
    unit: str

    @abstractmethod
    def draw(self, repetitions: Sequence[int], root_seed: int, purpose: Purpose) -> Realisations:
        """Draw the given repetitions; selection (tune) and evaluation never share a seed."""

    @abstractmethod
    def length(self) -> int:
        """Samples of each repetition."""

    @abstractmethod
    def own_noise_variance(self, purpose: Purpose = "evaluate") -> float:
        """What a Kalman filter is told of the noise unless ``noise_variance`` says otherwise."""

    @property
    def may_have_gaps(self) -> bool:
        """Whether samples may be missing; where none can, none need be looked for."""
        return True

    def available(self) -> int | None:
        """Repetitions there are, None for any number."""
        return None

    def digest(self) -> str:
        """Fingerprint of the data behind it, empty where its settings determine them."""
        return ""


class Synthetic(Stream):
    """A level plus noise that seeds determine: (root seed, kind of stream, repetition, purpose), no more."""

    steps: int

    def __post_init__(self) -> None:
        self._require("steps", self.steps >= 1, "an int >= 1")
        if self.noise_variance is not None:
            self._require("noise_variance", self.noise_variance > 0, "> 0, or null for the stream's own")
        self._validate()

    @abstractmethod
    def _validate(self) -> None:
        """Raise ValueError for a setting out of range."""

    @abstractmethod
    def _repetition(self, generators: Callable[[str], np.random.Generator]) -> tuple[Array, Array]:
        """Samples and level of one repetition, each ingredient from a generator of its own."""

    zero_mean: bool = True

    @property
    def may_have_gaps(self) -> bool:
        """Only of those that say so."""
        return False

    def length(self) -> int:
        """``steps``."""
        return self.steps

    def draw(self, repetitions: Sequence[int], root_seed: int, purpose: Purpose = "evaluate") -> Realisations:
        """Draw repetitions side by side; a longer stream begins like a shorter one."""
        kind = zlib.crc32(type(self).__name__.encode())
        samples, level = np.empty((2, len(repetitions), self.steps))
        for i, repetition in enumerate(repetitions):
            key = (kind, repetition, zlib.crc32(purpose.encode()))

            def generators(ingredient: str, key: tuple[int, ...] = key) -> np.random.Generator:
                sequence = np.random.SeedSequence(
                    root_seed, spawn_key=(*key, zlib.crc32(ingredient.encode()))
                )
                return np.random.Generator(np.random.SFC64(sequence))

            samples[i], level[i] = self._repetition(generators)
        return Realisations(samples.T.copy(), level.T.copy(), self.zero_mean)

    def _require(self, field: str, holds: Any, valid: str) -> None:
        if not holds:
            raise ValueError(f"stream.{field}={getattr(self, field)!r} is not valid; it must be {valid}")


@dataclass(frozen=True)
class GradientRatio(Synthetic):
    """The ratio of two tasks' gradient norms: a drifting log ratio under lognormal noise.

    median: of the ratio at the start; r: variance of the noise in the log, its marginal variance whatever its
    correlation and tails; s: q/r of the level's random walk; ramp: drift per sample, log units. jump_rate and
    jump_size: probability per sample and size, in log units, of a step of the level, up or down.
    correlation: lag-1 autocorrelation of the noise before tails and outliers; degrees_of_freedom: of
    Student's t, inf for Gaussian; outlier_rate and outlier_scale: share of samples whose noise is scaled up,
    which adds to r; gap_rate and gap_length: probability that a gap begins at a sample, and its mean
    length in samples.
    """

    steps: int = 10_000
    median: float = 2.1
    r: float = 1.7956
    s: float = DEFAULT_S
    ramp: float = 0.0
    jump_rate: float = 0.0
    jump_size: float = 3.5
    correlation: float = 0.0
    degrees_of_freedom: float = np.inf
    outlier_rate: float = 0.0
    outlier_scale: float = 10.0
    gap_rate: float = 0.0
    gap_length: float = 5.0
    domain: Domain = Domain.log_ratio
    noise_variance: float | None = None

    def _validate(self) -> None:
        object.__setattr__(self, "domain", Domain(self.domain))
        for rate in ("jump_rate", "outlier_rate", "gap_rate"):
            self._require(rate, 0.0 <= getattr(self, rate) < 1.0, "a probability in [0, 1)")
        self._require("median", 0.0 < self.median < np.inf, "finite and > 0")
        for variance in ("r", "s"):
            self._require(variance, 0.0 <= getattr(self, variance) < np.inf, "finite and >= 0")
        for size in ("ramp", "jump_size", "outlier_scale"):
            self._require(size, np.isfinite(getattr(self, size)), "finite")
        self._require("correlation", -1.0 < self.correlation < 1.0, "in (-1, 1)")
        self._require("degrees_of_freedom", self.degrees_of_freedom > 2.0, "> 2, where the variance exists")
        self._require("gap_length", self.gap_length >= 1.0, ">= 1 sample")

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Unit of the samples, by the domain."""
        return self.domain.unit

    @property
    def zero_mean(self) -> bool:  # type: ignore[override]
        """In the log domain alone: elsewhere the truth is the median, and the noise is skewed around it."""
        return self.domain is Domain.log_ratio

    @property
    def may_have_gaps(self) -> bool:
        """Where gaps begin at all."""
        return self.gap_rate > 0.0

    def own_noise_variance(self, purpose: Purpose = "evaluate") -> float:
        """Variance of Gaussian noise of variance r as the domain shows it at the starting median.

        1 for a stream without noise, so that a filter can be set at all.
        """
        if self.domain is Domain.log_ratio or self.r == 0.0:
            return self.r or 1.0
        variance = self.domain.moments(self.median, self.r)[1]
        self._require("r", np.isfinite(variance), f"smaller in domain {self.domain}, or noise_variance set")
        return variance

    def _repetition(self, generators: Callable[[str], np.random.Generator]) -> tuple[Array, Array]:
        level = self._level(generators)
        samples = self.domain.of_log_ratio(level + self._noise(generators))
        if np.isinf(samples).any():
            raise ValueError(f"stream.domain={self.domain}: ratios overflow; use stream.domain=log_ratio")
        return np.where(self._missing(generators("gaps")), np.nan, samples), self.domain.of_log_ratio(level)

    def _level(self, generators: Callable[[str], np.random.Generator]) -> Array:
        steps = self._walk_sd() * generators("walk").standard_normal(self.steps)
        drawn = generators("jumps").random((self.steps, 2))
        steps += np.where(
            drawn[:, 0] < self.jump_rate, np.where(drawn[:, 1] < 0.5, -1.0, 1.0) * self.jump_size, 0.0
        )
        level: Array = np.log(self.median) + np.cumsum(steps) + self.ramp * np.arange(self.steps)
        return level

    def _noise(self, generators: Callable[[str], np.random.Generator]) -> Array:
        noise = generators("noise").standard_normal(self.steps)
        if self.correlation:
            noise *= np.sqrt(1.0 - self.correlation**2)
            noise[0] /= np.sqrt(1.0 - self.correlation**2)
            for t in range(1, self.steps):
                noise[t] += self.correlation * noise[t - 1]
        if np.isfinite(self.degrees_of_freedom):
            chi2 = generators("tails").chisquare(self.degrees_of_freedom, self.steps)
            noise *= np.sqrt((self.degrees_of_freedom - 2.0) / chi2)
        if self.outlier_rate:
            struck = generators("outliers").random(self.steps) < self.outlier_rate
            noise = np.where(struck, self.outlier_scale * noise, noise)
        scaled: Array = self._noise_sd() * noise
        return scaled

    def _walk_sd(self) -> Any:
        """Standard deviation of the level's steps: one, or one for each sample."""
        return np.sqrt(self.s * self.r)

    def _noise_sd(self) -> Any:
        """That of the noise before outliers."""
        return np.sqrt(self.r)

    def _missing(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        missing = np.zeros(self.steps, bool)
        if self.gap_rate == 0.0:
            return missing
        drawn = generator.random((self.steps, 2))
        lasts = 1.0 - 1.0 / self.gap_length
        for t in range(self.steps):
            missing[t] = drawn[t, 0] < self.gap_rate or (t > 0 and missing[t - 1] and drawn[t, 1] < lasts)
        return missing


def is_plain_walk(stream: Stream) -> TypeGuard[GradientRatio]:
    """Whether a stream is a random walk in white noise, and no more: the one that the closed form is of."""
    plain = GradientRatio()
    more = ("ramp", "jump_rate", "correlation", "outlier_rate", "gap_rate", "domain")
    return type(stream) is GradientRatio and all(
        getattr(stream, name) == getattr(plain, name) for name in more
    )


@dataclass(frozen=True)
class RegimeChange(GradientRatio):
    """A gradient ratio whose world changes at sample ``at``; at or beyond the stream's end it never does.

    All else is as in GradientRatio, on both sides of the change, and ``r`` and ``s`` are those before it.
    shift: of the level, in standard deviations sqrt(r) of the noise before the change, in the log. r_factor:
    what r is multiplied by; the walk goes on as before, so that s is divided by it. s_factor: what the walk's
    variance q is multiplied by; the noise goes on as before, so that s is multiplied by it. gap: samples
    that are missing from ``at`` on, beside those that ``gap_rate`` takes.

    Streams that differ in the change alone have the same samples before it and the same random numbers after
    it: with factors of 1 their noise is the same throughout.
    """

    steps: int = 2000
    r: float = 1.0
    s: float = 0.01
    at: int = 1000
    shift: float = 0.0
    r_factor: float = 1.0
    s_factor: float = 1.0
    gap: int = 0

    def _validate(self) -> None:
        super()._validate()
        for count in ("at", "gap"):
            self._require(count, getattr(self, count) >= 0, "an int >= 0")
        self._require("shift", np.isfinite(self.shift), "finite")
        for factor in ("r_factor", "s_factor"):
            self._require(factor, 0.0 <= getattr(self, factor) < np.inf, "finite and >= 0")

    @property
    def changes(self) -> bool:
        """Whether anything is different after the change."""
        same = self.shift == 0.0 and self.r_factor == self.s_factor == 1.0 and self.gap == 0
        return not same and self.at < self.steps

    @property
    def may_have_gaps(self) -> bool:
        """Where one comes with the change, or gaps begin at all."""
        return self.gap > 0 or super().may_have_gaps

    def _level(self, generators: Callable[[str], np.random.Generator]) -> Array:
        return super()._level(generators) + self._from_change(0.0, self.shift * np.sqrt(self.r))

    def _walk_sd(self) -> Any:
        before = super()._walk_sd()
        return self._from_change(before, before * np.sqrt(self.s_factor))

    def _noise_sd(self) -> Any:
        before = super()._noise_sd()
        return self._from_change(before, before * np.sqrt(self.r_factor))

    def _missing(self, generator: np.random.Generator) -> NDArray[np.bool_]:
        missing = super()._missing(generator)
        missing[self.at : self.at + self.gap] = True
        return missing

    def _from_change(self, before: float, after: float) -> Array:
        """One value for each sample before the change, another from there on."""
        return np.where(np.arange(self.steps) >= self.at, after, before)


@dataclass(frozen=True)
class _Deterministic(Synthetic):
    """A known signal plus white Gaussian noise of variance r."""

    steps: int = 10_000
    r: float = 1.0
    noise_variance: float | None = None

    unit: ClassVar[str] = "unit"  # type: ignore[misc]

    def _validate(self) -> None:
        self._require("r", 0.0 <= self.r < np.inf, "finite and >= 0")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                self._require(field.name, np.isfinite(value), "finite")

    @abstractmethod
    def signal(self, t: Array) -> Array:
        """The level at samples t."""

    def own_noise_variance(self, purpose: Purpose = "evaluate") -> float:
        """``r``; 1 for a stream without noise, so that a filter can be set at all."""
        return self.r or 1.0

    def _repetition(self, generators: Callable[[str], np.random.Generator]) -> tuple[Array, Array]:
        level = self.signal(np.arange(self.steps, dtype=np.float64))
        return level + np.sqrt(self.r) * generators("noise").standard_normal(self.steps), level


@dataclass(frozen=True)
class _Event(_Deterministic):
    """A signal of some height that begins at sample ``at``."""

    height: float = 8.0
    at: int = 2000

    def _validate(self) -> None:
        super()._validate()
        self._require("at", self.at >= 0, "an int >= 0")


@dataclass(frozen=True)
class Step(_Event):
    """0, then ``height`` from sample ``at`` on; at or beyond the stream's end it never comes."""

    def signal(self, t: Array) -> Array:
        """The level at samples t."""
        return np.where(t >= self.at, self.height, 0.0)


@dataclass(frozen=True)
class Ramp(_Deterministic):
    """``slope`` per sample from 0."""

    slope: float = 0.01

    def signal(self, t: Array) -> Array:
        """The level at samples t."""
        return self.slope * t


@dataclass(frozen=True)
class Impulse(_Event):
    """0 but for ``height`` at sample ``at``; at or beyond the stream's end it never comes."""

    def signal(self, t: Array) -> Array:
        """The level at samples t."""
        return np.where(t == self.at, self.height, 0.0)


@dataclass(frozen=True)
class Sinusoid(_Deterministic):
    """``amplitude`` at ``frequency``, in cycles per sample."""

    amplitude: float = 1.0
    frequency: float = 0.001

    def signal(self, t: Array) -> Array:
        """The level at samples t."""
        return self.amplitude * np.sin(2.0 * np.pi * self.frequency * t)
