"""The random-walk filter that starts anew after a shift of the level, which a pair of CUSUMs watches for."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import toward, where
from estimators._parameters import FINITE, NONNEGATIVE, Parameter, Range, fit_together, plain, real, require
from estimators.robust import RobustKalman, standardised, weighed

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELLS = 500
"""Cells into which the sum of a CUSUM is cut to compute its run lengths."""
_ALARM = Range("> 0, or inf for no alarm", lambda v: v > 0)
_CLIP = Range("> 0 in standard deviations, or inf for none", lambda v: v > 0)


class ResettingState(NamedTuple):
    """Mean of the level, NaN while nothing is known, the variance of its error, and the two sums."""

    mean: Any
    variance: Any
    cusum_up: Any
    """Sum that watches for a rise, >= 0; -1 while the sample that the filter started at is unconfirmed."""
    cusum_down: Any
    """Sum that watches for a fall, >= 0."""


def positive(value: Any) -> Any:
    """The value where it is above 0, else 0."""
    return where(value > 0.0, value, 0.0)


def clipped(value: Any, clip: Any) -> Any:
    """The value, cut to +-clip."""
    below = where(value < clip, value, clip)
    return where(below > -clip, below, -clip)


@dataclass(frozen=True, eq=False)
class ResettingKalman(RobustKalman):
    """Kalman filter of a random walk that starts anew, diffuse, once a CUSUM of its innovations alarms.

    Each innovation, in standard deviations and cut to +-clip so that no outlier can alarm by itself, less
    ``slack`` is added to a sum that watches for a rise, and its negative to one for a fall; neither falls
    below 0. When one exceeds ``alarm`` the filter restarts at that sample: gain 1, variance r, sums 0. That
    sample, like the first of a diffuse start, may be an outlier: if the next one lies ``clip`` or more from
    it the filter restarts there. The restarts are the samples of gain 1.

    loss: "gaussian" (all samples weigh alike), or one of RobustKalman with its threshold and dof, for noise
    with outliers. alarm > 0 (inf: RobustKalman itself), slack >= 0 (half the shift to be noticed), clip >
    slack, or inf; numbers or arrays by channel; q, r, mean and variance as in Kalman. Raises ValueError
    outside these.

    At q/r = 0.01 the default alarms are for a shift of 8 sqrt(r): the mean is within 2 sqrt(r) of the level
    after 4 samples (median) and within 10 in 99.9 % of streams, also where 5 % of the samples have 10 times
    the standard deviation. False alarms per 10,000 samples: 0.02 or fewer, with such outliers 0.1 ("huber")
    and 0.2 ("student_t"); "gaussian" then has 13, as outliers drag its mean. A shift below 2 standard
    deviations is left to the filter, which follows it.

    Page (1954), Biometrika 41. slack = 0.5 and alarm = 4 or 5 without clip are the textbook's
    (Montgomery 2012, section 9.1), which a filter whose q/r is not exact alarms too often.
    """

    loss: str = "gaussian"
    alarm: Parameter = 7.5
    slack: Parameter = 1.0
    clip: Parameter = 3.0

    State: ClassVar[Any] = ResettingState
    losses: ClassVar[tuple[str, ...]] = ("gaussian", *RobustKalman.losses)
    coefficients: ClassVar[tuple[str, ...]] = (*RobustKalman.coefficients, "alarm", "slack", "clip")

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        alarm = real(name, "alarm", self.alarm, _ALARM)
        slack = real(name, "slack", self.slack, NONNEGATIVE.of("in standard deviations"))
        clip = real(name, "clip", self.clip, _CLIP)
        self._fit(threshold=self.threshold, dof=self.dof, alarm=alarm, slack=slack, clip=clip)
        alarms = np.all(np.asarray(clip) > np.asarray(slack))
        require(name, "clip", clip, alarms, "> slack: no sum grows otherwise")

    @staticmethod
    def predict(given: Any, state: Any) -> Any:
        """The level may have moved: variance + q."""
        return ResettingState(state.mean, state.variance + given.q, state.cusum_up, state.cusum_down)

    @staticmethod
    def correct(given: Any, state: Any, sample: Any) -> tuple[Any, Any]:
        """RobustKalman's where the filter goes on; elsewhere it starts at the sample, with gain 1."""
        known, innovation = state.variance < math.inf, sample - state.mean
        size, noise_share = standardised(given, state.variance, innovation)
        step = clipped(size, given.clip)
        up = positive(positive(state.cusum_up) + step - given.slack)
        down = positive(state.cusum_down - step - given.slack)
        shifted = where(up > down, up, down) > given.alarm
        refuted = where(state.cusum_up < 0.0, abs(size) >= given.clip, False)
        goes_on = where(shifted, False, where(refuted, False, known))
        gain, variance = weighed(given, state.variance, innovation, size, noise_share)
        gain = where(goes_on, gain, 1.0)
        return ResettingState(
            toward(state.mean, sample, gain),
            where(goes_on, variance, given.r),
            where(goes_on, up, where(given.alarm < math.inf, -1.0, 0.0)),
            where(goes_on, down, 0.0),
        ), gain

    @property
    def average_run_length(self) -> Parameter:
        """Mean number of samples from a start to a false alarm, for Gaussian white noise; inf without alarm.

        What a filter whose q and r hold would see. Brook and Evans (1972), Biometrika 59, for each sum; the
        two by 1/ARL = 1/ARL_up + 1/ARL_down, Kemp (1961), J. R. Stat. Soc. B 23.
        """
        return self._run_length(0.0)

    def detection_delay(self, shift: Any) -> Parameter:
        """Mean number of samples to the alarm when innovations are off by ``shift`` standard deviations.

        From sums of 0, for a shift that lasts, as a filter sees it whose gain is small: what the mean makes
        good by itself comes on top. shift: finite, a number or an array that broadcasts with alarm, slack
        and clip; ValueError otherwise.
        """
        name = f"{type(self).__name__}.detection_delay"
        off = real(name, "shift", shift, FINITE.of("in standard deviations"))
        fit_together(name, shift=off, alarm=self.alarm, slack=self.slack, clip=self.clip)
        return self._run_length(off)

    def _run_length(self, shift: Parameter) -> Parameter:
        return plain(np.vectorize(_two_sided, otypes=[float])(self.alarm, self.slack, self.clip, shift))

    @property
    def _weighs_alike(self) -> NDArray[np.bool_]:
        never: NDArray[np.bool_] = np.isinf(self.alarm) & super()._weighs_alike
        return np.asarray(never | (np.asarray(self.r) == 0))

    def _prior(self) -> Any:
        return ResettingState(*self._start_of_level, 0.0, 0.0)


@functools.lru_cache(maxsize=1024)
def _two_sided(alarm: float, slack: float, clip: float, shift: float) -> float:
    up = _one_sided(alarm, slack, clip, shift)
    down = up if shift == 0.0 else _one_sided(alarm, slack, clip, -shift)
    return up / (1.0 + up / down) if up < down else down / (1.0 + down / up) if down < math.inf else math.inf


def _one_sided(alarm: float, slack: float, clip: float, shift: float) -> float:
    """Mean samples until a sum that starts at 0 exceeds the alarm.

    A Markov chain of the sum at 0 and in cells, in each of which it is spread evenly; a clipped innovation
    then moves a cell onto parts of two, and the error falls with the square of the cells' width.
    """
    if math.isinf(alarm):
        return math.inf
    width, n = alarm / CELLS, CELLS
    edges: NDArray[np.float64] = np.float64(width) * np.arange(-n, n + 1, dtype=np.float64) + slack
    below, tail = _below(edges, clip, shift), _above(edges, clip, shift)
    step = np.zeros((n + 1, n + 1))
    spread = np.maximum(np.diff(below, 2), 0.0) / width
    cell = np.arange(n)
    step[1:, 1:] = spread[cell[np.newaxis, :] - cell[:, np.newaxis] + n - 1]
    step[1:, 0] = np.diff(below)[n - 1 - cell] / width
    step[0] = np.diff(_distribution(edges[n:], clip, shift), prepend=0.0)
    out = np.append(_survival(edges[-1:], clip, shift), -np.diff(tail)[2 * n - 1 - cell] / width)
    # States are taken out one by one without a subtraction, so that rare alarms keep their digits:
    # Grassmann, Taksar, Heyman (1985), Oper. Res. 33.
    time = np.ones(n + 1)
    for k in range(n, 0, -1):
        share = step[:k, k] / (step[k, :k].sum() + out[k])
        step[:k, :k] += share[:, np.newaxis] * step[k, :k]
        out[:k] += share * out[k]
        time[:k] += share * time[k]
    return float(time[0] / out[0]) if out[0] > 0.0 else math.inf


def _upper(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Upper tail of the normal distribution."""
    return np.array([0.5 * math.erfc(value / math.sqrt(2.0)) for value in z])


def _over(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral of the upper tail from z on."""
    density: NDArray[np.float64] = np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return density - z * _upper(z)


def _distribution(u: NDArray[np.float64], clip: float, shift: float) -> NDArray[np.float64]:
    """Distribution function of a clipped innovation."""
    return np.where(u >= clip, 1.0, np.where(u < -clip, 0.0, _upper(shift - u)))


def _survival(u: NDArray[np.float64], clip: float, shift: float) -> NDArray[np.float64]:
    """Its complement, free of cancellation."""
    return np.where(u >= clip, 0.0, np.where(u < -clip, 1.0, _upper(u - shift)))


def _below(u: NDArray[np.float64], clip: float, shift: float) -> NDArray[np.float64]:
    """Integral of the distribution function up to u."""
    return _above(-u, clip, -shift)


def _above(u: NDArray[np.float64], clip: float, shift: float) -> NDArray[np.float64]:
    """Integral of the complement from u on."""
    inside = _over(np.clip(u, -clip, clip) - shift)
    beyond = 0.0 if math.isinf(clip) else _over(np.array([clip - shift]))
    return inside - beyond + np.maximum(-clip - u, 0.0)
