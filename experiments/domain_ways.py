"""Ways to a smoothed weight of two gradients: what is smoothed, how the weight follows, what it tends to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from estimators.shares import clipped
from experiments.streams import Array, Domain, GradientRatio


def weight_of(log_odds: Any) -> Any:
    """The weight whose log odds these are."""
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-log_odds))


def floored(weight: Any, floor: float) -> Any:
    """The weight of the first of two tasks after both are raised to the floor and made to sum to 1."""
    return clipped(np.stack([weight, 1.0 - weight], axis=-1), floor)[..., 0]


class Way(ABC):
    """One or two quantities that are smoothed, each by itself, and the weight that follows from them.

    The ratio is that of the larger gradient's norm to the other's, the weight that of the larger gradient.
    """

    key: str
    label: str
    before: bool
    """Whether it is smoothed before the inversion, rather than after it."""

    @abstractmethod
    def seen(self, log_ratio: Array, level: Array, shared: Array) -> list[Array]:
        """The quantities to smooth, each (T, n).

        log_ratio and level, its median: of the stream; shared: independent noise of the log ratio's variance,
        for the part of two norms' noise that their ratio does not show.
        """

    @abstractmethod
    def log_odds(self, smoothed: Sequence[Any]) -> Any:
        """Log odds of the weight, not finite for what belongs to none."""

    @abstractmethod
    def means(self, ratio: float, r: float) -> list[float]:
        """Expectations of the quantities at a constant median ratio, r the variance of its log."""

    @abstractmethod
    def variances(self, stream: GradientRatio) -> list[float]:
        """What filters are told of the noise of each: at the starting median, 1 for a quantity without."""

    def scales(self, stream: GradientRatio, told: float) -> list[float]:
        """What brings the noise of each quantity to the variance that filters are told."""
        return [float(np.sqrt(told / variance)) for variance in self.variances(stream)]

    def medians(self, ratio: float) -> list[float]:
        """Of the quantities at a median ratio."""
        return self.means(ratio, 0.0)

    def limit(self, ratio: float, r: float) -> float:
        """Log odds to which an endless memory tends at a constant median ratio."""
        return float(self.log_odds(self.means(ratio, r)))


@dataclass(frozen=True)
class Together(Way):
    """The ratio in one of the stream's domains."""

    domain: Domain

    @property
    def key(self) -> str:  # type: ignore[override]
        """Name of the domain."""
        return self.domain.value

    @property
    def label(self) -> str:  # type: ignore[override]
        """The same in words."""
        return self.domain.unit

    @property
    def before(self) -> bool:  # type: ignore[override]
        """All but the weight itself."""
        return self.domain is not Domain.weight

    def seen(self, log_ratio: Array, level: Array, shared: Array) -> list[Array]:
        """The ratio as the domain shows it."""
        return [self.domain.of_log_ratio(log_ratio)]

    def log_odds(self, smoothed: Sequence[Any]) -> Any:
        """Minus the log ratio, or those of the weight."""
        (mean,) = smoothed
        if self.domain is Domain.log_ratio:
            return -mean
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.log(mean) if self.domain is Domain.ratio else np.log(mean) - np.log1p(-mean)

    def means(self, ratio: float, r: float) -> list[float]:
        """The domain's own."""
        return [self.domain.moments(ratio, r)[0]]

    def variances(self, stream: GradientRatio) -> list[float]:
        """The stream's own in the domain."""
        return [replace(stream, domain=self.domain, noise_variance=None).own_noise_variance()]


@dataclass(frozen=True)
class Apart(Way):
    """Both norms, or their inverses, each smoothed by itself.

    noise_share: of the variance of the log ratio's noise, what the larger gradient's norm has; the noises of
    the two norms are independent, and each log norm has one half of the level, up or down.
    """

    noise_share: float
    inverse: bool = False

    @property
    def key(self) -> str:  # type: ignore[override]
        """Name with the share of the noise."""
        return f"{'inverse_' * self.inverse}norms_{self.noise_share:g}"

    @property
    def label(self) -> str:  # type: ignore[override]
        """The same in words."""
        return f"{'1/' * self.inverse}norms, noise {self.noise_share:g}"

    @property
    def before(self) -> bool:  # type: ignore[override]
        """The norms; the inverse norms are only normalised."""
        return not self.inverse

    @property
    def _sign(self) -> float:
        return -1.0 if self.inverse else 1.0

    @property
    def _shares(self) -> tuple[float, float]:
        return self.noise_share, 1.0 - self.noise_share

    def seen(self, log_ratio: Array, level: Array, shared: Array) -> list[Array]:
        """The two norms whose ratio the stream shows, to the power 1 or -1."""
        own, other = self._shares
        noise = log_ratio - level
        # Independent, of variances own r and other r, and their difference is the noise of the ratio.
        first = own * noise + np.sqrt(own * other) * shared
        logs = 0.5 * level + first, first - noise - 0.5 * level
        return [np.exp(self._sign * log) for log in logs]

    def log_odds(self, smoothed: Sequence[Any]) -> Any:
        """By the quotient of the two."""
        first, second = smoothed
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._sign * (np.log(second) - np.log(first))

    def means(self, ratio: float, r: float) -> list[float]:
        """Of two lognormals."""
        medians = ratio ** (0.5 * self._sign), ratio ** (-0.5 * self._sign)
        return [float(m * np.exp(0.5 * share * r)) for m, share in zip(medians, self._shares, strict=True)]

    def variances(self, stream: GradientRatio) -> list[float]:
        """Of two lognormals."""
        pairs = zip(self.means(stream.median, stream.r), self._shares, strict=True)
        return [float(mean**2 * np.expm1(share * stream.r)) or 1.0 for mean, share in pairs]


CONSTANT = "constant"
"""The level of a point that does not move."""


class Point(NamedTuple):
    """One ratio, noise and kind of level, and the stream that has them."""

    level: str
    log_sd: float
    ratio: float
    stream: GradientRatio

    @property
    def still(self) -> bool:
        """Whether the level is constant."""
        return self.level == CONSTANT

    @property
    def label(self) -> str:
        """As tables name the stream."""
        return f"{self.level}, log sd {self.log_sd:g}, ratio {self.ratio:g}"


def ways(noise_shares: Sequence[float]) -> list[Way]:
    """All of them, the logarithm first, with which the others are compared."""
    apart = [Apart(share, inverse) for share in noise_shares for inverse in (False, True)]
    return [*(Together(domain) for domain in Domain), *apart]
