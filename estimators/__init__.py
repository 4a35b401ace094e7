"""Running estimators of a noisy, drifting statistic behind one protocol: mean += gain * (sample - mean)."""

from estimators.ema import EMA, DebiasedEMA
from estimators.kalman import Kalman
from estimators.matching import matched
from estimators.moving_average import MovingAverage
from estimators.protocol import Estimator, LinearEstimator, Trait
from estimators.results import FilterResult, SmoothResult
from estimators.tracker import Tracker

__all__ = [
    "EMA",
    "DebiasedEMA",
    "Estimator",
    "FilterResult",
    "Kalman",
    "LinearEstimator",
    "MovingAverage",
    "SmoothResult",
    "Tracker",
    "Trait",
    "matched",
]
