"""Closed forms of a settled recursive filter, all from its gain K: h[n] = K (1 - K)^n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NamedTuple

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


class _Cascade(NamedTuple):
    """Gains of the two EMAs in cascade that a filter of level and slope settles to, a pair where complex."""

    gain: NDArray[np.float64]
    """Of the level."""
    fast: NDArray[Any]
    slow: NDArray[Any]
    share: NDArray[Any]
    """Of the fast one in the error of a step."""
    equal: NDArray[np.bool_]
    """Where the two are one, ``middle``, and the error is a ramp times its decay."""
    middle: NDArray[np.float64]


class SettledTrend(ABC):
    """Closed forms for estimators of level and slope whose two gains K, k settle: a g-h filter.

    H(z) = (K + (k - K) / z) / (1 - (2 - K - k) / z + (1 - K) / z^2), the level; its error is that of two EMAs
    in cascade whose betas are the poles. Brookner (1998), Tracking and Kalman Filtering Made Easy, chapter 1.
    """

    @property
    @abstractmethod
    def steady_gain(self) -> Parameter:
        """Weight of the newest sample in the level once the gains have settled, K."""

    @property
    @abstractmethod
    def steady_slope_gain(self) -> Parameter:
        """Weight of the newest innovation in the slope, k."""

    @property
    def effective_window(self) -> Parameter:
        """1 / steady_gain, in samples."""
        return self._quiet(lambda gain, slope_gain: 1.0 / gain)

    @property
    def group_delay(self) -> Parameter:
        """Delay at zero frequency in samples: 0, for a ramp is followed; (1 - K) / K where k = 0."""
        return self._quiet(lambda gain, slope: np.where(slope > 0.0, 0.0, (1.0 - gain) / gain))

    @property
    def noise_gain(self) -> Parameter:
        """Variance of the level over that of white noise: (2 K^2 + k (2 - 3 K)) / (K (4 - 2 K - k))."""

        def formula(gain: Any, slope: Any) -> Any:
            stated = (2.0 * gain**2 + slope * (2.0 - 3.0 * gain)) / (gain * (4.0 - 2.0 * gain - slope))
            return np.where(gain == 0.0, 0.0, stated)

        return self._quiet(formula)

    @property
    def cutoff(self) -> Parameter:
        """Highest frequency of half power in cycles per sample; NaN where there is none."""

        def formula(gain: Any, slope: Any) -> Any:
            # |H|^2 = 1/2 in u = 2 - 2 cos w: (1 - K) u^2 + b u - k^2 = 0.
            square, b = 1.0 - gain, 3.0 * gain * slope - gain * gain - 2.0 * slope
            root = np.sqrt(b * b + 4.0 * square * slope * slope)
            u = np.where(b > 0.0, 2.0 * slope * slope / (b + root), 0.5 * (root - b) / square)
            return np.where(u <= 4.0, np.arcsin(np.minimum(0.5 * np.sqrt(u), 1.0)) / np.pi, np.nan)

        return self._quiet(formula)

    @property
    def time_constant(self) -> Parameter:
        """Samples until the step response, continued between them, first crosses 1 - 1/e."""
        return self._crossing(np.exp(-1.0))

    @property
    def half_life(self) -> Parameter:
        """Samples until the step response, continued between them, first crosses 1/2."""
        return self._crossing(0.5)

    def step_response(self, n: int) -> NDArray[np.float64]:
        """Response of the level at samples 0 to n - 1, shape (n, *parameters); it overshoots; n >= 0."""
        return 1.0 - self._error(self._along_time(n) + 1.0)

    def impulse_response(self, n: int) -> NDArray[np.float64]:
        """K, then what the step response grows by at each sample, shape (n, *parameters); n an int >= 0."""
        time, modes = self._along_time(n), self._cascade()
        with np.errstate(all="ignore"):
            distinct = (
                modes.share * modes.fast * (1.0 - modes.fast) ** time
                + (1.0 - modes.share) * modes.slow * (1.0 - modes.slow) ** time
            ).real
            together = (1.0 - modes.middle) ** time * modes.middle * (2.0 - (time + 1.0) * modes.middle)
        grown = np.where(modes.equal, together, distinct)
        later = np.where(modes.gain == 1.0, 0.0, grown)
        response: NDArray[np.float64] = np.where(time == 0.0, modes.gain, later)
        return response

    def frequency_response(self, f: ArrayLike) -> NDArray[np.complex128]:
        """H(f), f in cycles per sample, shape (*f, *parameters)."""
        frequency = np.asarray(f, dtype=np.float64)
        gain, slope = np.broadcast_arrays(self.steady_gain, self.steady_slope_gain)
        half = np.pi * frequency.reshape(frequency.shape + (1,) * gain.ndim)
        away = 2.0 * np.sin(half) * (np.sin(half) + 1j * np.cos(half))  # 1 - exp(-iw), without cancellation
        over = slope + (gain - slope) * away
        with np.errstate(invalid="ignore", divide="ignore"):
            response = over / (over + (1.0 - gain) * away**2)
        return np.where(away == 0.0, 1.0 + 0.0j, response)[()]

    def _along_time(self, n: int) -> NDArray[np.float64]:
        steps = np.arange(whole(type(self).__name__, "n", n, 0), dtype=np.float64)
        shape = np.broadcast_shapes(np.shape(self.steady_gain), np.shape(self.steady_slope_gain))
        return steps.reshape(steps.shape + (1,) * len(shape))

    def _cascade(self) -> _Cascade:
        gain, slope = np.broadcast_arrays(self.steady_gain, self.steady_slope_gain)
        middle = 0.5 * (gain + slope)
        apart = np.sqrt((middle**2 - slope).astype(np.complex128))
        equal = np.abs(apart) <= 1e-6 * middle
        fast = middle + np.where(equal, middle, apart)
        with np.errstate(all="ignore"):
            slow = np.where(fast == 0.0, 0.0, slope / fast)
            share = np.where(fast == slow, 0.0, (1.0 - slow) * fast / (fast - slow))
        return _Cascade(gain, fast, slow, share, equal, middle)

    def _error(self, time: Any) -> NDArray[np.float64]:
        """1 - step response, ``time`` samples after the step."""
        modes = self._cascade()
        with np.errstate(all="ignore"):
            distinct = (
                modes.share * (1.0 - modes.fast) ** time + (1.0 - modes.share) * (1.0 - modes.slow) ** time
            ).real
            together = (1.0 - modes.middle) ** time * (1.0 - time * modes.middle)
        error: NDArray[np.float64] = np.where(modes.equal, together, distinct)
        return np.where(time == 0.0, 1.0, np.where(modes.gain == 1.0, 0.0, error))

    def _crossing(self, level: float) -> Parameter:
        """Time of the first crossing; of poles in a pair within a quarter turn, before the error is zero."""
        modes = self._cascade()
        poles = 1.0 - modes.fast
        turn = np.abs(np.angle(poles))
        with np.errstate(divide="ignore"):
            high = np.minimum(np.maximum(4.0 / modes.gain, 1.0), 1e300)
            paired = np.iscomplex(poles) & ~modes.equal
            high = np.where(paired, np.minimum(high, 0.5 * np.pi / turn), high)
        low = np.zeros(high.shape)
        for _ in range(100):
            middle = 0.5 * (low + high)
            before = self._error(middle) > level
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        at_once, never = modes.gain == 1.0, modes.gain == 0.0
        return plain(np.where(never, np.inf, np.where(at_once, 0.0, high)))

    def _quiet(self, formula: Any) -> Parameter:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            pair = np.broadcast_arrays(self.steady_gain, self.steady_slope_gain)
            return plain(formula(*pair) + 0.0)


def gain_of(s: Any) -> Any:
    """Settled gain of a random walk filter at s = q/r, which may be complex: 2 / (1 + sqrt(1 + 4/s))."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        gain = 2.0 / (1.0 + np.sqrt(1.0 + 4.0 / s))
    return np.where(s == 0.0, 0.0, np.where(np.isinf(s), 1.0, gain))
