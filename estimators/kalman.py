"""The random-walk (local level) Kalman filter: forward, settled, and backward as a smoother."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from estimators._arithmetic import toward, where
from estimators._parameters import (
    BETWEEN_0_AND_1,
    POSITIVE,
    Parameter,
    Range,
    fit_together,
    plain,
    real,
    require,
)
from estimators._random_walk import RandomWalk
from estimators._recursive import compiled_loops
from estimators._samples import OnInfinite, checked_out
from estimators.ema import EMA
from estimators.protocol import Trait
from estimators.response import SettledGain, gain_of
from estimators.results import SmoothResult

if TYPE_CHECKING:
    from numpy.typing import NDArray


class KalmanState(NamedTuple):
    """Mean of the level, NaN while nothing is known, and the variance of its error, then infinite."""

    mean: Any
    variance: Any


@dataclass(frozen=True, eq=False)
class Kalman(RandomWalk, SettledGain):
    """Kalman filter of a random walk of process variance q seen with measurement variance r.

    q, r >= 0, not both 0 (units: the stream's squared, q per sample); mean and variance (>= 0, or inf for a
    diffuse start, which is exact) describe the level one step before the first sample, which sees
    variance + q: P1 of Durbin and Koopman (2012), section 2.2. Raises ValueError outside these ranges.
    """

    State = KalmanState
    coefficients = ("q", "r")
    changes: ClassVar[tuple[str, ...]] = ("steps", "weight", "r")
    memory = "q"

    @classmethod
    def from_beta(cls, beta: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at the gain 1 - beta, beta in (0, 1): q = r (1 - beta)^2 / beta; ValueError outside."""
        return cls._from("beta", beta, BETWEEN_0_AND_1, r, lambda b: (1.0 - b) ** 2 / b, parameters)

    @classmethod
    def from_noise_gain(cls, noise_gain: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at this noise gain, in (0, 1); ValueError outside."""
        return cls._from(
            "noise_gain", noise_gain, BETWEEN_0_AND_1, r, lambda g: 4.0 * g**2 / (1.0 - g**2), parameters
        )

    @classmethod
    def from_group_delay(cls, group_delay: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at this lag on a ramp in samples, > 0; ValueError otherwise."""
        samples = POSITIVE.of("samples")
        return cls._from("group_delay", group_delay, samples, r, lambda d: 1.0 / (d * (1.0 + d)), parameters)

    @classmethod
    def from_signal_to_noise(cls, s: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """From s = q/r > 0; ValueError otherwise."""
        ratio = POSITIVE.of("as a ratio of variances q/r")
        return cls._from("signal_to_noise", s, ratio, r, lambda s: s, parameters, field="s")

    @classmethod
    def _from(
        cls, by: str, value: Any, allowed: Range, r: Any, s: Any, parameters: dict[str, Any], field: str = ""
    ) -> Self:
        """Make the setting whose ratio s = q/r follows from another quantity; errors name that one."""
        name, field = f"{cls.__name__}.from_{by}", field or by
        given = real(name, field, value, allowed)
        variance = real(name, "r", r, POSITIVE.of("as a variance"))
        fit_together(name, **{field: given, "r": variance})
        with np.errstate(over="ignore", divide="ignore", under="ignore"):
            q = s(np.asarray(given)) * variance
        require(name, field, value, np.all((q > 0) & np.isfinite(q)), "such that q is a finite number > 0")
        return cls(q=q, r=variance, **parameters)

    @staticmethod
    def predict(given: Any, state: KalmanState) -> KalmanState:
        """The level may have moved: variance + q."""
        return KalmanState(state.mean, state.variance + given.q)

    @staticmethod
    def correct(given: Any, state: KalmanState, sample: Any) -> tuple[KalmanState, Any]:
        """Gain P / (P + r), and 1 for an infinite P; the variance after it is r K.

        r K and not (1 - K) P, which cancels where r is small; K' = (K + s) / (K + s + 1) with s = q/r.
        """
        gain = where(state.variance == math.inf, 1.0, state.variance / (state.variance + given.r))
        return KalmanState(toward(state.mean, sample, gain), given.r * gain), gain

    @property
    def signal_to_noise(self) -> Parameter:
        """s = q/r."""
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.asarray(self.q) / np.asarray(self.r)
        return plain(ratio)

    @property
    def steady_gain(self) -> Parameter:
        """2 / (1 + sqrt(1 + 4/s)), the positive root of K^2 = s (1 - K), free of cancellation."""
        return plain(gain_of(np.asarray(self.signal_to_noise)))

    @property
    def steady_beta(self) -> Parameter:
        """1 - K = K^2 / s, which does not cancel where K is close to 1."""
        gain = self.steady_gain
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            small = np.asarray(gain) ** 2 / np.asarray(self.signal_to_noise)
        beta = np.where(np.asarray(gain) > 0.5, small, 1.0 - gain)
        return plain(beta)

    def steady_state(self) -> EMA:
        """Return the EMA that this filter is once settled; ValueError for q = 0, which never settles.

        It starts at the first sample where the prior is diffuse, else at the prior's mean.
        """
        name = f"{type(self).__name__}.steady_state"
        moving = np.all(np.asarray(self.q) > 0)
        require(name, "q", self.q, moving, "> 0: at q = 0 the gain falls as 1/t, for ever")
        diffuse = np.isinf(self.variance)
        alike = np.all(diffuse) or not np.any(diffuse)
        require(name, "variance", self.variance, alike, "finite, or infinite, in all channels alike")
        return EMA(self.steady_beta, initial=None if np.all(diffuse) else self.mean)

    def smooth(
        self,
        x: Any,
        out: tuple[NDArray[Any], NDArray[Any]] | None = None,
        *,
        on_infinite: OnInfinite = "raise",
    ) -> SmoothResult:
        """Fixed-interval smoother: mean and variance of every level given the whole stream.

        x as in filter, time on axis 0; out: float64 arrays of shape (T, *channels) for the two. Raises as
        filter does. Rauch, Tung, Striebel (1965), AIAA J. 3.
        """
        forward = self.filter(x, on_infinite=on_infinite)
        run, wrap = forward._run, forward._wrap
        moments = tuple(np.array(rows, dtype=np.float64, order="C") for rows in (run.mean, run.variance))
        q = np.array(np.broadcast_to(np.float64(self.q), run.channels)).reshape(-1)
        compiled_loops().smoothed()(q, *(rows.reshape(len(rows), q.size) for rows in moments))
        if out is not None:
            for rows, target in zip(moments, out, strict=True):
                checked_out(target, rows.shape, rows.dtype)[...] = rows
            moments = out
        return SmoothResult(wrap(moments[0]), wrap(moments[1]), _moments=moments, _wrap=wrap)  # type: ignore[arg-type]

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear, with a variance; equivariant without a proper prior (to scale also with one at 0)."""
        traits = {Trait.LINEAR, Trait.HAS_VARIANCE} | self._equivariance
        if not np.any(self.r):
            traits |= {Trait.FINITE_MEMORY}
        return frozenset(traits)

    def _prior(self) -> KalmanState:
        return KalmanState(*self._start_of_level)
