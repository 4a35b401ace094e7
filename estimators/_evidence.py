"""How well settings predict samples that they have not seen, and which of them that tells apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._base import BaseEstimator

BATCHES = 20
"""Stretches whose mean differences are taken for independent."""
NEGLIGIBLE = 1e-4
"""Share by which errors may differ and still be the same for every purpose."""
TRIED = 40
"""Settings of each kind that are tried on the first half."""


@dataclass(frozen=True)
class Evidence:
    """One-step error of a setting in the second half, against that of the chosen one."""

    name: str
    rmse: float
    excess: float
    """By how much its error exceeds the chosen one's, as a share of that."""
    excess_error: float
    """Half of the 95 % interval of the excess; NaN where the half is too short for one."""

    @property
    def verdict(self) -> str:
        """``worse``, ``better`` than the chosen one, or a tie: a difference inside its interval."""
        if math.isnan(self.excess_error) or abs(self.excess) <= max(self.excess_error, NEGLIGIBLE):
            return "tie"
        return "worse" if self.excess > 0.0 else "better"


def squared_errors(estimator: BaseEstimator, x: NDArray[np.float64], begin: int) -> NDArray[np.float64]:
    """Squared one-step errors of samples from ``begin`` on, NaN where one is missing or nothing is known."""
    innovation = np.asarray(estimator.filter(x).innovation)[begin:]
    with np.errstate(over="ignore"):
        errors: NDArray[np.float64] = innovation**2
    return errors


def compared(name: str, squares: NDArray[np.float64], chosen: NDArray[np.float64]) -> Evidence | None:
    """Evidence on a setting, from its squared errors and the chosen one's of the same samples; None of none.

    The interval is that of paired differences, batch by batch, which are hardly correlated where single
    errors are (batch means: Law and Kelton 2000, section 9.5.3), by the delta method on the root.
    """
    both = np.isfinite(squares) & np.isfinite(chosen)
    own, reference = squares[both], chosen[both]
    if not own.size:
        return None
    with np.errstate(over="ignore"):
        base, mean = float(reference.mean()), float(own.mean())
    rmse = math.sqrt(mean)
    comparable = 0.0 < base < math.inf and mean < math.inf and mean < 1e20 * base
    excess = math.sqrt(mean / base) - 1.0 if comparable else 0.0 if mean == base else math.nan
    half = math.nan
    if own.size >= 5 * BATCHES and comparable and excess > -1.0:
        from scipy.special import stdtrit

        means = np.array([part.mean() for part in np.array_split((own - reference) / base, BATCHES)])
        spread = stdtrit(BATCHES - 1, 0.975) * means.std(ddof=1) / math.sqrt(BATCHES)
        half = float(0.5 * spread / (1.0 + excess))
    return Evidence(name, rmse, excess, half)


def best_window(x: NDArray[np.float64]) -> int:
    """Window of the moving average that predicts a series best."""
    from estimators.moving_average import MovingAverage

    tried = np.unique(np.geomspace(1, max(2, len(x) // 2), TRIED).astype(int))
    skip = min(len(x) // 4, int(tried[-1]))
    return int(min(tried, key=lambda window: _error(MovingAverage(int(window)), x, skip)))


def best_beta(x: NDArray[np.float64]) -> float:
    """Beta of the EMA, started at the first sample, that predicts a series best."""
    from estimators.ema import EMA

    betas = np.concatenate([[0.0], 1.0 - np.geomspace(0.7, min(0.5, 2.0 / len(x)), TRIED)])
    score = EMA(betas, initial=None).score(x[:, np.newaxis], skip=len(x) // 10)
    return float(betas[np.nanargmin(score.rmse)]) if np.isfinite(score.rmse).any() else 0.0


def _error(estimator: Any, x: NDArray[np.float64], skip: int) -> float:
    rmse = float(estimator.score(x, skip=skip).rmse)
    return rmse if math.isfinite(rmse) else math.inf
