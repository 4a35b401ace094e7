"""Every estimator that can be a moment of an optimiser, and a stream of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from estimators import (
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    RunningMedian,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)

SECONDS: list[Any] = [
    EMA(0.9),
    EMA(0.0),
    EMA(0.9, initial=None),
    EMA(0.9, initial=0.25),
    DebiasedEMA(0.99),
    EMAWithVariance(0.9),
    Kalman(q=0.01, r=1.0),
    Kalman(q=0.0, r=1.0),
    Kalman(q=0.01, r=0.0),
    Kalman(q=0.01, r=2.0, mean=0.5, variance=0.01),
    MehraKalman(),
    VariationalKalman(q=0.01),
    SageHusaKalman(q=0.01),
    SageHusaKalman(r=1.0),
    InnovationMatchingKalman(q=0.01),
    InnovationMatchingKalman(r=1.0),
    RobustKalman(q=0.01, r=1.0),
    RobustKalman(q=0.01, r=1.0, loss="student_t"),
    ResettingKalman(q=0.01, r=1.0),
    ResettingKalman(q=0.01, r=1.0, loss="huber"),
    SwitchingKalman(q=0.01, r=1.0),
    KalmanBank(),
    MovingAverage(4),
    RunningMedian(5),
]
TRENDS: list[Any] = [LocalTrend(q=0.01, q_slope=1e-4, r=1.0), Holt(0.2, 0.1)]
FIRSTS: list[Any] = [*SECONDS, *TRENDS]


def stream(steps: int, shape: tuple[int, ...], seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    level = np.cumsum(0.1 * rng.normal(size=(steps, *shape)), axis=0)
    return level + rng.normal(size=level.shape)
