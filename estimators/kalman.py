"""The random-walk (local level) Kalman filter: forward, settled, and backward as a smoother."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from estimators._arithmetic import toward
from estimators._base import Recursive
from estimators._parameters import Parameter, fit_together, real
from estimators._samples import OnInfinite
from estimators.ema import EMA, _positive
from estimators.protocol import Trait
from estimators.response import SettledGain
from estimators.results import Run, SmoothResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST = 5e-324  # added to a variance of zero it makes r/P infinite, hence the gain 0, without a branch


class KalmanState(NamedTuple):
    """Mean of the level, NaN while nothing is known, and the variance of its error, then infinite."""

    mean: Any
    variance: Any


@dataclass(frozen=True, eq=False)
class Kalman(Recursive, SettledGain):
    """Kalman filter of a random walk of process variance q seen with measurement variance r.

    q, r >= 0, not both 0 (units: the stream's squared, q per sample); mean and variance (>= 0, or inf for a
    diffuse start, which is exact) describe the level one step before the first sample, which sees
    variance + q: P1 of Durbin and Koopman (2012), section 2.2. Raises ValueError outside these ranges.
    """

    q: Parameter
    r: Parameter
    mean: Parameter = 0.0
    variance: Parameter = math.inf

    State = KalmanState
    coefficients = ("q", "r")
    memory = "q"

    def __post_init__(self) -> None:
        def nonnegative(v: NDArray[np.float64]) -> Any:
            return (v >= 0) & np.isfinite(v)

        q = real(self, "q", self.q, nonnegative, ">= 0, a variance per sample")
        r = real(self, "r", self.r, nonnegative, ">= 0, a variance")
        variance = real(self, "variance", self.variance, lambda v: v >= 0, ">= 0, or inf for a diffuse start")
        fit_together(self, q=q, r=r, mean=self.mean, variance=variance)
        real(
            self,
            "q",
            q,
            lambda v: (v + np.asarray(r)) > 0,
            "> 0 where r = 0: without either there is no filter",
        )
        known = np.isfinite(variance)
        mean = real(
            self, "mean", self.mean, lambda m: np.isfinite(m) | ~known, "finite where the variance is"
        )
        for name, value in (("q", q), ("r", r), ("mean", mean), ("variance", variance)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_beta(cls, beta: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at the gain 1 - beta, beta in (0, 1): q = r (1 - beta)^2 / beta; ValueError outside."""
        name = f"{cls.__name__}.from_beta"
        b = real(name, "beta", beta, lambda b: (b > 0) & (b < 1), "in (0, 1)")
        r = real(name, "r", r, _positive, "> 0, a variance")
        return cls(q=(1.0 - b) ** 2 / b * r, r=r, **parameters)

    @classmethod
    def from_noise_gain(cls, noise_gain: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at this noise gain, in (0, 1); ValueError outside."""
        return cls.from_beta(EMA.from_noise_gain(noise_gain).beta, r, **parameters)

    @classmethod
    def from_group_delay(cls, group_delay: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """Settle at this lag on a ramp in samples, > 0; ValueError otherwise."""
        return cls.from_beta(EMA.from_group_delay(group_delay).beta, r, **parameters)

    @classmethod
    def from_signal_to_noise(cls, s: Any, r: Any = 1.0, **parameters: Any) -> Self:
        """From s = q/r > 0; ValueError otherwise."""
        name = f"{cls.__name__}.from_signal_to_noise"
        ratio = real(name, "s", s, _positive, "> 0, a ratio of variances q/r")
        r = real(name, "r", r, _positive, "> 0, a variance")
        return cls(q=ratio * r, r=r, **parameters)

    @staticmethod
    def predict(given: Any, state: KalmanState) -> KalmanState:
        """The level may have moved: variance + q."""
        return KalmanState(state.mean, state.variance + given.q)

    @staticmethod
    def correct(given: Any, state: KalmanState, sample: Any) -> tuple[KalmanState, Any]:
        """Gain P / (P + r), the variance after it r K; both exact for an infinite P.

        r K and not (1 - K) P, which cancels where r is small; K' = (K + s) / (K + s + 1) with s = q/r.
        """
        gain = 1.0 / (1.0 + given.r / (state.variance + _LEAST))
        return KalmanState(toward(state.mean, sample, gain), given.r * gain), gain

    @property
    def signal_to_noise(self) -> Parameter:
        """s = q/r."""
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.asarray(self.q) / np.asarray(self.r)
        return float(ratio) if ratio.ndim == 0 else ratio

    @property
    def steady_gain(self) -> Parameter:
        """2 / (1 + sqrt(1 + 4/s)), the positive root of K^2 = s (1 - K), free of cancellation."""
        with np.errstate(divide="ignore", over="ignore"):
            gain = 2.0 / (1.0 + np.sqrt(1.0 + 4.0 / np.asarray(self.signal_to_noise)))
        return float(gain) if gain.ndim == 0 else gain

    def steady_state(self) -> EMA:
        """Return the EMA that this filter is once settled; ValueError for q = 0, which never settles.

        It starts at the first sample where the prior is diffuse, else at the prior's mean.
        """
        real(
            "Kalman.steady_state",
            "q",
            self.q,
            lambda q: q > 0,
            "> 0: at q = 0 the gain falls as 1/t, for ever",
        )
        diffuse = np.isinf(self.variance)
        if np.any(diffuse) and not np.all(diffuse):
            raise ValueError("Kalman.steady_state: variance must be finite or infinite in all channels alike")
        return EMA(1.0 - self.steady_gain, initial=None if np.all(diffuse) else self.mean)

    def smooth(self, x: Any, *, on_infinite: OnInfinite = "raise") -> SmoothResult:
        """Fixed-interval smoother: mean and variance of every level given the whole stream.

        x as in filter, time on axis 0. Raises as filter does. Rauch, Tung, Striebel (1965), AIAA J. 3.
        """
        from estimators import _kernels

        forward = self.filter(x, on_infinite=on_infinite)
        run = forward._run
        flat = (run.mean.shape[0], int(np.prod(run.channels)))
        mean, variance = np.array(run.mean).reshape(flat), np.array(run.variance).reshape(flat)
        q = np.array(np.broadcast_to(np.float64(self.q), run.channels)).reshape(-1)
        _kernels.smoother()(q, mean, variance)
        moments = mean.reshape(run.mean.shape), variance.reshape(run.mean.shape)
        wrap = forward._wrap
        return SmoothResult(mean=wrap(moments[0]), variance=wrap(moments[1]), _moments=moments, _wrap=wrap)

    @property
    def traits(self) -> frozenset[Trait]:
        """Linear, with a variance; equivariant without a proper prior (to scale also with one at 0)."""
        traits = {Trait.LINEAR, Trait.HAS_VARIANCE}
        believes = np.isfinite(self.variance)
        if not np.any(believes):
            traits |= {Trait.SHIFT_EQUIVARIANT}
        if not np.any(believes & (np.asarray(self.mean) != 0.0)):
            traits |= {Trait.SCALE_EQUIVARIANT}
        if not np.any(self.r):
            traits |= {Trait.FINITE_MEMORY}
        return frozenset(traits)

    def _prior(self) -> KalmanState:
        return KalmanState(np.where(np.isinf(self.variance), np.nan, self.mean), self.variance)

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        before = KalmanState(run.before("mean"), run.before("variance"))
        stated: NDArray[np.float64] = self.predict(self._given(), before).variance + self.r
        return stated
