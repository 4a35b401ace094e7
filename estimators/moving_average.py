"""The mean over the last N samples (FIR), without drift: what has left the window leaves no trace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from estimators._parameters import ABOVE_0_TO_1, NONNEGATIVE, Range, real, require, whole
from estimators._samples import LARGEST
from estimators._windowed import Windowed, WindowState
from estimators.protocol import Trait
from estimators.results import Run, Trace

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LARGE, _SCALE = 2.0**960, 2.0**-64  # sums of larger values are formed in smaller units, lest they overflow


class MovingAverageState(WindowState):
    """Mean over the window, held while the window is empty, and the window, oldest first, NaN where empty."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class MovingAverage(Windowed):
    """Mean of the last ``window`` samples, of those there are until it is full.

    window: int >= 1, ValueError otherwise; it never broadcasts. A missing sample leaves its slot empty; the
    mean is over the samples present, and an empty window holds the last mean. Means of arrays and streams are
    sums over trees of depth log2 N: their error is at most about (log2 N + 2) / 2 ulp of the largest sample
    in the window (Higham 1993, SIAM J. Sci. Comput. 14, eq. 3.6), and in practice rarely above 1.
    """

    State = MovingAverageState

    @classmethod
    def from_noise_gain(cls, noise_gain: Any) -> Self:
        """Round the window to the nearest with this noise gain, in (0, 1]; ValueError outside."""
        return cls._from("noise_gain", noise_gain, ABOVE_0_TO_1, lambda g: np.rint(1.0 / g))

    @classmethod
    def from_group_delay(cls, group_delay: Any) -> Self:
        """Round the window to the nearest with this lag on a ramp in samples, >= 0; ValueError otherwise."""
        samples = NONNEGATIVE.of("samples")
        return cls._from("group_delay", group_delay, samples, lambda d: np.rint(2.0 * d + 1.0))

    @classmethod
    def from_signal_to_noise(cls, s: Any) -> Self:
        """Take the window of least error on a random walk of s = q/r > 0; ValueError otherwise.

        The error 1/N + s (N - 1)(2 N - 1) / (6 N), in units of r, is least where N (N - 1) <= 3/s + 1/2 <=
        N (N + 1).
        """
        ratio = Range("> 0, a ratio of variances q/r", lambda v: v > 0)

        def window(s: Any) -> Any:
            return np.ceil(0.5 * (np.sqrt(1.0 + 4.0 * (3.0 / s + 0.5)) - 1.0))

        return cls._from("signal_to_noise", s, ratio, window, field="s")

    @classmethod
    def _from(cls, by: str, value: Any, allowed: Range, window: Any, field: str = "") -> Self:
        """Make the window that follows from another quantity; errors name that one."""
        name, field = f"{cls.__name__}.from_{by}", field or by
        given = np.asarray(real(name, field, value, allowed))
        require(name, field, value, given.ndim == 0, "one number: a window does not broadcast over channels")
        with np.errstate(over="ignore"):
            found = float(window(given))
        require(name, field, value, found < 2.0**63, "such that the window is below 2^63 samples")
        return cls(max(1, int(found)))

    @property
    def signal_to_noise(self) -> float:
        """q/r of the random walk on which this window has the least error: 3 / (N^2 - 1/2)."""
        return 3.0 / (self.window**2 - 0.5)

    @property
    def steady_gain(self) -> float:
        """Weight of the newest sample in a full window, 1/N."""
        return 1.0 / self.window

    @property
    def time_constant(self) -> float:
        """Samples until the step response, a ramp of slope 1/N, crosses 1 - 1/e."""
        return self.window * -math.expm1(-1.0)

    @property
    def half_life(self) -> float:
        """Samples until the step response crosses 1/2: N/2."""
        return 0.5 * self.window

    @property
    def group_delay(self) -> float:
        """Delay of the linear-phase window in samples, (N - 1) / 2."""
        return 0.5 * (self.window - 1)

    @property
    def noise_gain(self) -> float:
        """Variance of the mean over that of white noise, 1/N."""
        return 1.0 / self.window

    @property
    def cutoff(self) -> float:
        """First frequency of half power in cycles per sample; NaN for N = 1, which passes everything."""
        if self.window == 1:
            return math.nan
        low, high = 0.0, 1.0 / self.window  # the gain falls from 1 to 0 between these
        for _ in range(64):
            middle = 0.5 * (low + high)
            power = (
                math.sin(math.pi * middle * self.window) / (self.window * math.sin(math.pi * middle))
            ) ** 2
            low, high = (middle, high) if power > 0.5 else (low, middle)
        return 0.5 * (low + high)

    def impulse_response(self, n: int) -> NDArray[np.float64]:
        """1/N for N samples, then 0, shape (n,); ValueError unless n is an int >= 0."""
        age = np.arange(whole(type(self).__name__, "n", n, 0))
        return np.where(age < self.window, 1.0 / self.window, 0.0)

    def step_response(self, n: int) -> NDArray[np.float64]:
        """min((k + 1)/N, 1) for k = 0 to n - 1, shape (n,); ValueError unless n is an int >= 0."""
        age = np.arange(whole(type(self).__name__, "n", n, 0))
        return np.minimum((age + 1.0) / self.window, 1.0)

    def frequency_response(self, f: ArrayLike) -> NDArray[np.complex128]:
        """sin(pi f N) / (N sin(pi f)) exp(-i pi f (N - 1)), f in cycles per sample, shape of f."""
        half = np.pi * np.asarray(f, dtype=np.float64)
        sine = np.sin(half)
        multiple = np.abs(np.asarray(f) % 1.0) == 0.0
        with np.errstate(invalid="ignore", divide="ignore"):
            response = (
                np.sin(half * self.window) / (self.window * sine) * np.exp(-1j * half * (self.window - 1))
            )
        return np.where(multiple, 1.0 + 0.0j, response)[()]

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear, equivariant, and with a memory that ends."""
        return frozenset(
            {Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.FINITE_MEMORY}
        )

    def _mean_of(self, state: MovingAverageState, window: NDArray[np.float64]) -> Any:
        if window.ndim > 1:
            mean = np.empty((1, *window.shape[1:]))
            self._means(state, window[-1:], mean)
            return mean[0]
        present = window[~np.isnan(window)]
        return _exact_mean(present) if present.size else state.mean

    def _trace(self, run: Run) -> Trace:
        with np.errstate(divide="ignore"):
            gain = 1.0 / self._present(run.start, run.aligned_samples, run.mean.shape)
        return Trace(np.where(np.isnan(run.aligned_samples), 0.0, gain), {})

    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        unknown = np.isnan(run.start.mean)
        before = MovingAverageState(
            np.where(unknown, np.nan, initial), np.where(np.isnan(run.start.window), np.nan, initial)
        )
        gaps = np.isnan(run.aligned_samples)
        self._means(before, np.where(gaps, np.nan, z) if gaps.any() else z, mean)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        present = self._present(run.start, run.aligned_samples, run.mean.shape)
        of_this_run = self._present(self._start(run.channels), run.aligned_samples, run.mean.shape)
        before = np.where(np.isnan(run.start.mean), np.nan, 0.0)
        with np.errstate(invalid="ignore"):
            power = of_this_run / present**2
        return _held(np.concatenate([before[np.newaxis], power]))[1:]

    def _present(
        self, start: MovingAverageState, rows: NDArray[np.float64], shape: tuple[int, ...]
    ) -> NDArray[np.float64]:
        """Samples present in each window, of the given shape."""
        there = np.concatenate([~np.isnan(start.window), ~np.isnan(np.broadcast_to(rows, shape))])
        count = np.concatenate([np.zeros((1, *shape[1:]), np.int64), np.cumsum(there, axis=0)])
        present: NDArray[np.float64] = np.asarray(
            count[self.window + 1 :] - count[1 : len(count) - self.window], dtype=np.float64
        )
        return present

    def _slide(
        self,
        past: NDArray[np.float64],
        samples: NDArray[np.float64],
        held: NDArray[np.float64],
        mean: NDArray[Any],
    ) -> bool:
        limit, windowed = float(LARGEST[mean.dtype]), sliding_means()
        large, overflows = windowed(self.window, past, samples, held.copy(), mean, (limit, _LARGE))
        if overflows:  # windows whose sums overflow, in smaller units
            present = np.where(np.abs(samples) < limit, samples, np.nan)
            means = np.empty(samples.shape)
            windowed(self.window, past * _SCALE, present * _SCALE, held * _SCALE, means, (limit, np.inf))
            mean[...] = np.where(np.isfinite(mean), mean, means / _SCALE)
        return bool(large)


def sliding_means() -> Any:
    """Import the compiled loop over windows, and numba with it, when a first stream needs it."""
    from estimators._windows import windowed

    return windowed()


def _exact_mean(values: NDArray[np.float64]) -> float:
    scale = 1.0 if np.max(np.abs(values)) < _LARGE else _SCALE
    return math.fsum(values * scale) / values.size / scale


def _held(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill NaN with the last number before it along time."""
    index = np.where(
        np.isnan(values), 0, np.arange(values.shape[0]).reshape((-1,) + (1,) * (values.ndim - 1))
    )
    return np.take_along_axis(values, np.maximum.accumulate(index, axis=0), axis=0)
