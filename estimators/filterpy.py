"""The random-walk Kalman filter as filterpy computes it: a peer behind the same protocol, for any table."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators._samples import LARGEST
from estimators.kalman import Kalman, KalmanState
from estimators.results import Changing, Run, Trace, align

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS_TO_ONE = 2.0**-54  # where r / P is no more than this, the gain 1 / (1 + r / P) is 1 in float64


@dataclass(frozen=True, eq=False)
class FilterpyKalman(Kalman):
    """Kalman with every state moved by ``filterpy.kalman.KalmanFilter``, at some 30 us per sample.

    Parameters, closed forms and results are Kalman's; ``smooth`` runs Kalman's backward pass on filterpy's
    forward one. Raises ValueError as Kalman does and for filterpy < 2.0, ImportError without filterpy.
    """

    changes = ()
    _straight = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_filterpy()

    def _step(self, state: KalmanState, sample: Any, changing: Changing) -> KalmanState:
        row = np.asarray(sample, dtype=np.float64)[np.newaxis]
        moved: KalmanState = self._filter(row, state, np.empty((1, *np.shape(state.mean))), {}).state
        return KalmanState(*map(float, moved)) if type(sample) is float else moved

    def _filter(
        self, samples: NDArray[np.float64], start: KalmanState, mean: NDArray[Any], changing: Changing
    ) -> Run:
        channels = mean.shape[1:]
        large = np.abs(samples) >= LARGEST[mean.dtype]
        rows = np.broadcast_to(align(np.where(large, np.nan, samples), channels), mean.shape)
        q, r = (np.broadcast_to(np.float64(parameter), channels) for parameter in (self.q, self.r))
        state = KalmanState(*(np.array(np.broadcast_to(np.float64(field), channels)) for field in start))
        variance, gain = np.empty(mean.shape, mean.dtype), np.empty(mean.shape)
        with np.errstate(over="ignore", under="ignore"):
            for c in np.ndindex(channels):
                at = (slice(None), *c)
                moments = float(state.mean[c]), float(state.variance[c])
                state.mean[c], state.variance[c] = _move(
                    float(q[c]), float(r[c]), moments, rows[at], mean[at], variance[at], gain[at]
                )
        return Run(
            self, samples, start, mean, state, bool(large.any()), known=Trace(gain, {"variance": variance})
        )

    def _moved_in_place(self, state: Any, x: Any) -> bool:
        return False


def _move(
    q: float,
    r: float,
    moments: tuple[float, float],
    samples: NDArray[np.float64],
    mean: NDArray[Any],
    variance: NDArray[Any],
    gain: NDArray[np.float64],
) -> tuple[float, float]:
    """Run one channel of shape (T,) through filterpy: write the last arguments, return the last moments.

    A missing sample is a predict alone: filterpy keeps a NaN for ever, and its ``update(None)`` would leave a
    wrong likelihood. While the gain rounds to 1 (a diffuse start, r = 0, a prior as good as none) the sample
    is the estimate: filterpy cannot start from an infinite P, and its Joseph form leaves (1 - K)^2 P of it.
    """
    from filterpy.kalman import KalmanFilter

    kalman = KalmanFilter(dim_x=1, dim_z=1)
    kalman.H = np.eye(1)  # filterpy's default is zeros, which would filter nothing
    kalman.Q, kalman.R = np.array([[q]]), np.array([[r]])
    kalman.x, kalman.P = np.array([[moments[0]]]), np.array([[moments[1]]])
    for t, sample in enumerate(samples):
        kalman.predict()
        gain[t] = 0.0
        if sample == sample:
            if r <= _ROUNDS_TO_ONE * kalman.P[0, 0]:
                kalman.x, kalman.P, gain[t] = np.array([[sample]]), np.array([[r]]), 1.0
            else:
                kalman.update(sample)
                gain[t] = kalman.K[0, 0]
        mean[t] = kalman.x[0, 0]
        variance[t] = kalman.P[0, 0]
        kalman.x[0, 0] = mean[t]  # a mean kept in float32 is rounded at every step
    return float(kalman.x[0, 0]), float(kalman.P[0, 0])


@functools.cache
def _require_filterpy() -> None:
    """Raise unless filterpy >= 2.0 is installed; without importing it, which takes seconds."""
    try:
        version = metadata.version("filterpy")
    except metadata.PackageNotFoundError:
        raise ImportError("FilterpyKalman needs filterpy >= 2.0: pip install 'filterpy>=2.0'") from None
    if int(version.partition(".")[0]) < 2:
        raise ValueError(f"FilterpyKalman needs filterpy >= 2.0, not {version}: older ones fail on numpy 2.4")
