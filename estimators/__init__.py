"""Running estimators of a noisy, drifting statistic behind one protocol: mean += gain * (sample - mean)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from estimators._lazy import lazily

if TYPE_CHECKING:
    from estimators.adaptive import MehraKalman, VariationalKalman
    from estimators.bank import KalmanBank
    from estimators.covariance_matching import InnovationMatchingKalman, SageHusaKalman
    from estimators.diagnostics import Diagnosis, diagnose
    from estimators.ema import EMA, DebiasedEMA, EMAWithVariance
    from estimators.fitting import FitResult, fit
    from estimators.kalman import Kalman
    from estimators.logarithmic import Log
    from estimators.matching import matched
    from estimators.moving_average import MovingAverage
    from estimators.protocol import Estimator, LinearEstimator, Trait
    from estimators.recommending import Recommendation, recommend
    from estimators.resetting import ResettingKalman
    from estimators.results import FilterResult, Score, SmoothResult
    from estimators.robust import RobustKalman
    from estimators.running_median import RunningMedian
    from estimators.switching import SwitchingKalman
    from estimators.tracker import Tracker
    from estimators.trend import Holt, LocalTrend

_HOMES = {
    "adaptive": ("MehraKalman", "VariationalKalman"),
    "bank": ("KalmanBank",),
    "covariance_matching": ("InnovationMatchingKalman", "SageHusaKalman"),
    "diagnostics": ("Diagnosis", "diagnose"),
    "ema": ("EMA", "DebiasedEMA", "EMAWithVariance"),
    "fitting": ("FitResult", "fit"),
    "kalman": ("Kalman",),
    "logarithmic": ("Log",),
    "matching": ("matched",),
    "moving_average": ("MovingAverage",),
    "protocol": ("Estimator", "LinearEstimator", "Trait"),
    "recommending": ("Recommendation", "recommend"),
    "resetting": ("ResettingKalman",),
    "results": ("FilterResult", "Score", "SmoothResult"),
    "robust": ("RobustKalman",),
    "running_median": ("RunningMedian",),
    "switching": ("SwitchingKalman",),
    "tracker": ("Tracker",),
    "trend": ("Holt", "LocalTrend"),
}
"""Public names by the module that defines them."""
__getattr__, __dir__ = lazily(__name__, _HOMES, packages=("checks", "jax", "torch"))

__all__ = [
    "EMA",
    "DebiasedEMA",
    "Diagnosis",
    "EMAWithVariance",
    "Estimator",
    "FilterResult",
    "FitResult",
    "Holt",
    "InnovationMatchingKalman",
    "Kalman",
    "KalmanBank",
    "LinearEstimator",
    "LocalTrend",
    "Log",
    "MehraKalman",
    "MovingAverage",
    "Recommendation",
    "ResettingKalman",
    "RobustKalman",
    "RunningMedian",
    "SageHusaKalman",
    "Score",
    "SmoothResult",
    "SwitchingKalman",
    "Tracker",
    "Trait",
    "VariationalKalman",
    "diagnose",
    "fit",
    "matched",
    "recommend",
]
