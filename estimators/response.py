"""Closed forms of a settled recursive filter, all from its gain K: h[n] = K (1 - K)^n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators._parameters import Parameter, plain, whole

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class SettledGain(ABC):
    """Closed forms for estimators whose gain settles at ``steady_gain`` = 1 - beta.

    Oppenheim, Schafer (2010), Discrete-Time Signal Processing, sections 2.4 and 5.1: the first-order section
    H(z) = K / (1 - (1 - K) / z). A gain of zero (the running mean in the limit) gives the limits.
    """

    @property
    @abstractmethod
    def steady_gain(self) -> Parameter:
        """Weight of the newest sample once the gain has settled, in [0, 1]."""

    @property
    def steady_beta(self) -> Parameter:
        """1 - steady_gain, where that is small without its rounding error."""
        return 1.0 - self.steady_gain

    @property
    def effective_window(self) -> Parameter:
        """1 / steady_gain, in samples."""
        return self._quiet(lambda gain, beta: 1.0 / gain)

    @property
    def time_constant(self) -> Parameter:
        """Samples until the step response crosses 1 - 1/e: -1 / ln(beta)."""
        return self._quiet(lambda gain, beta: -1.0 / _log(gain, beta))

    @property
    def half_life(self) -> Parameter:
        """Samples until the step response crosses 1/2: -ln(2) / ln(beta)."""
        return self._quiet(lambda gain, beta: -np.log(2.0) / _log(gain, beta))

    @property
    def group_delay(self) -> Parameter:
        """Delay at zero frequency in samples, beta / (1 - beta): the lag on a ramp."""
        return self._quiet(lambda gain, beta: beta / gain)

    @property
    def noise_gain(self) -> Parameter:
        """Variance of the mean over that of white noise, (1 - beta) / (1 + beta)."""
        return self._quiet(lambda gain, beta: gain / (1.0 + beta))

    @property
    def cutoff(self) -> Parameter:
        """Frequency of half power in cycles per sample; NaN where beta < 3 - 2 sqrt(2), which has none."""
        return self._quiet(lambda gain, beta: np.arcsin(0.5 * gain / np.sqrt(beta)) / np.pi)

    def impulse_response(self, n: int) -> NDArray[np.float64]:
        """K (1 - K)^k for k = 0 to n - 1, shape (n, *parameters); n an int >= 0."""
        gain, beta, k = self._along_time(n)
        values: NDArray[np.float64] = gain * beta**k
        return values

    def step_response(self, n: int) -> NDArray[np.float64]:
        """1 - (1 - K)^(k + 1) for k = 0 to n - 1, shape (n, *parameters); n an int >= 0."""
        gain, beta, k = self._along_time(n)
        with np.errstate(divide="ignore"):
            values: NDArray[np.float64] = -np.expm1((k + 1.0) * _log(gain, beta))
        return values

    def frequency_response(self, f: ArrayLike) -> NDArray[np.complex128]:
        """H(f) = K / (1 - (1 - K) exp(-2 pi i f)), f in cycles per sample, shape (*f, *parameters)."""
        frequency = np.asarray(f, dtype=np.float64)
        gain, beta = np.asarray(self.steady_gain), np.asarray(self.steady_beta)
        frequency = frequency.reshape(frequency.shape + (1,) * gain.ndim)
        # 1 - exp(-iw) in half angles: no cancellation near zero frequency.
        half = np.pi * frequency
        away = 2.0 * np.sin(half) * (np.sin(half) + 1j * np.cos(half))
        with np.errstate(invalid="ignore", divide="ignore"):
            response = gain / (gain + beta * away)
        return np.where(away == 0.0, 1.0 + 0.0j, response)[()]

    def _along_time(self, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        gain, beta = np.asarray(self.steady_gain), np.asarray(self.steady_beta)
        steps = np.arange(whole(type(self).__name__, "n", n, 0), dtype=np.float64)
        return gain, beta, steps.reshape(steps.shape + (1,) * gain.ndim)

    def _quiet(self, formula: Any) -> Parameter:
        """Evaluate at gains of 0 and 1 too, where the limits are infinite, zero or NaN by definition."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            value = formula(np.asarray(self.steady_gain), np.asarray(self.steady_beta)) + 0.0
        return plain(value)


def _log(gain: NDArray[np.float64], beta: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(beta) from whichever of beta and 1 - beta is the small one."""
    with np.errstate(divide="ignore"):
        return np.where(beta < 0.5, np.log(beta), np.log1p(-gain))
