"""Running estimators of a noisy, drifting statistic behind one protocol: mean += gain * (sample - mean)."""

from estimators.ema import EMA, DebiasedEMA
from estimators.kalman import Kalman
from estimators.matching import matched
from estimators.moving_average import MovingAverage
from estimators.protocol import Estimator, LinearEstimator, Trait
from estimators.results import FilterResult, Score, SmoothResult
from estimators.tracker import Tracker

__all__ = [
    "EMA",
    "DebiasedEMA",
    "Estimator",
    "FilterResult",
    "Kalman",
    "LinearEstimator",
    "MovingAverage",
    "Score",
    "SmoothResult",
    "Tracker",
    "Trait",
    "matched",
]
