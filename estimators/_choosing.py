"""Which estimator a series calls for: the fit of a random walk in white noise, and what speaks against it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from estimators._evidence import compared, squared_errors
from estimators.bank import KalmanBank
from estimators.diagnostics import diagnose
from estimators.ema import DebiasedEMA
from estimators.fitting import FitResult, fit
from estimators.kalman import Kalman
from estimators.resetting import ResettingKalman
from estimators.robust import RobustKalman

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._base import BaseEstimator

SHORT = 50
"""Samples below which no setting can be told from another."""
TAIL = 4.0
"""Standard deviations beyond which a normal innovation lies once in 16,000 samples."""
FAR = 7.0
"""Standard deviations beyond which not even one sample in a series of any length is normal."""
RUN = 3
"""Samples that far out on one side in a row that are no outliers."""
MATTERING = 0.005, 0.1
"""Shares, of the samples and of their squared innovations, below both of which outliers do no harm."""
MUCH = 0.01
"""Share by which errors must differ to be worth another filter."""
UNLIKELY = 0.01
"""Probability below which what is seen counts against the plain model."""
SLOPES = 0.5
"""Correlation of neighbouring innovations beyond which they follow a slope."""
UNEQUAL = 1.25
"""Ratio of the halves' noise, or memory, below which it makes no difference that they differ."""
NORMAL_TAIL = math.erfc(TAIL / math.sqrt(2.0))
APART = 5
"""Samples whose median stands for the level beside a jump."""


@dataclass(frozen=True)
class Choice:
    """An estimator for a series as it is smoothed, the fit behind it, and why it and not another."""

    estimator: BaseEstimator
    found: FitResult | None
    why: str
    warnings: tuple[str, ...]


def choose(series: NDArray[np.float64]) -> Choice:
    """The estimator for a series in the domain where it is smoothed, unless the bank predicts it better.

    What is proposed for the first half has to predict the second: where the bank does so better, beyond
    chance, it is taken.
    """
    proposed = _proposed(series)
    begin = len(series) // 2
    if isinstance(proposed.estimator, KalmanBank) or np.sum(~np.isnan(series[:begin])) < SHORT:
        return proposed
    early = _proposed(series[:begin]).estimator
    bank = compared("bank", squared_errors(KalmanBank(), series, begin), squared_errors(early, series, begin))
    if bank is None or type(early) is not type(proposed.estimator):
        return proposed
    if bank.verdict == "better" and bank.excess < -MUCH:
        why = f"the bank predicts the second half better than {type(early).__name__} of the first"
        return Choice(KalmanBank(), proposed.found, why, proposed.warnings)
    return proposed


def _proposed(series: NDArray[np.float64]) -> Choice:
    """What the fit of a random walk in white noise, and what speaks against it, propose.

    Where the innovations have tails that no normal distribution has, q and r come from the samples without
    those, and the filter is a robust one; where the noise or the drift is not the same in both halves, or the
    level jumps, the bank, which adapts; else the fitted filter.
    """
    present = series[~np.isnan(series)]
    if np.ptp(present) == 0.0:
        return Choice(DebiasedEMA(0.9), None, "all samples are equal: any estimator returns them", ())
    found = fit(series)
    if present.size < SHORT:
        why = (
            f"{present.size} samples are too few to tell one setting from another; the bank learns as it goes"
        )
        return Choice(KalmanBank(), found, why, (f"the series is short: {present.size} samples",))
    inner, kept, outliers = _without_tails(series, found)
    warnings = [outliers.told] if outliers.count else []
    seen = diagnose(inner.estimator().filter(kept)) if inner.q > 0.0 or inner.r > 0.0 else None
    if seen is not None and float(seen.whiteness.p_value) < UNLIKELY:
        slopes = float(seen.autocorrelation.value) > SLOPES
        more = "it moves along slopes, which LocalTrend and Holt follow" if slopes else "beta may be off"
        warnings.append(f"this is no random walk in white noise, its innovations are correlated: {more}")
    if not inner.r > 0.0 or np.ptp(kept[~np.isnan(kept)]) == 0.0:
        if outliers.count:  # a constant, or a walk without noise, that is left at times: no noise to weigh by
            why = "what lies between the outliers has no noise of its own: the bank takes all as it comes"
            return Choice(KalmanBank(), found, why, tuple(warnings))
        why = "no noise is seen beside the drift: the last sample is the best prediction"
        return Choice(found.estimator(), found, why, tuple(warnings))
    jumps = _jumps(inner, kept)
    if jumps.size:
        many = f"{jumps.size} times, first" if jumps.size > 1 else "once,"
        warnings.append(f"the level jumps {many} at sample {int(jumps[0]):,}")
    unsteady = _unsteady(inner, kept)
    if unsteady:
        warnings.append(unsteady)
    fitted = remembering(inner, kept)
    q, r = fitted.q, fitted.r
    if outliers.matter and jumps.size:
        why = "outliers and jumps: a robust filter that starts anew when its innovations keep one sign"
        return Choice(ResettingKalman(q, r, loss="huber"), found, why, tuple(warnings))
    if outliers.matter:
        why = "outliers: a robust filter, which gives them little weight"
        return Choice(RobustKalman(q, r), found, why, tuple(warnings))
    if unsteady or jumps.size:
        what = "the level jumps" if jumps.size else "the halves disagree"
        why = f"no fixed setting stays right ({what}): the bank adapts"
        return Choice(KalmanBank(), found, why, tuple(warnings))
    if inner.at_boundary == "q":
        why = f"no drift is seen in {present.size:,} samples: a memory between the shortest likely and all"
        return Choice(fitted, found, why, tuple(warnings))
    why = f"the random walk in white noise that fits best: q = {inner.q:.3g}, r = {inner.r:.3g}"
    return Choice(fitted, found, why, tuple(warnings))


def remembering(found: FitResult, series: NDArray[np.float64]) -> Kalman:
    """The fitted filter; where no drift is seen, one that does not remember for ever.

    That no drift is seen is not to say that there is none: its memory is between what is excluded and all.
    """
    if found.at_boundary != "q":
        return found.estimator()
    steps = np.ptp(np.flatnonzero(~np.isnan(series))) + 1
    lower = float(found.beta_interval[0])
    return Kalman.from_beta(1.0 - math.sqrt((1.0 - lower) / steps), r=found.r)


def _unsteady(found: FitResult, series: NDArray[np.float64]) -> str:
    """A sentence where the halves of a fitted series differ, by chance hardly, in noise or memory by much."""
    if not found.halves_p_value < UNLIKELY:
        return ""
    present = np.flatnonzero(~np.isnan(series))
    middle = int(present[present.size // 2])
    halves = [fit(series[:middle]), fit(series[middle:])]
    noises, memories = [float(one.r) for one in halves], [1.0 - float(one.beta) for one in halves]
    if max(_times(*noises), _times(*memories)) < UNEQUAL:
        return ""
    betas = " and ".join(f"{float(one.beta):.4g}" for one in halves)
    variances = " and ".join(f"{noise:.3g}" for noise in noises)
    return f"the halves disagree: beta {betas}, noise variance {variances} (training is not stationary)"


def _times(one: float, other: float) -> float:
    least, most = sorted((one, other))
    return most / least if least > 0.0 else math.inf if most > 0.0 else 1.0


@dataclass(frozen=True)
class _Outliers:
    """Isolated samples in tails that are not normal: how many, and whether they do harm."""

    count: int
    matter: bool

    @property
    def told(self) -> str:
        """In a sentence."""
        lie = f"{self.count} samples lie" if self.count > 1 else "1 sample lies"
        kind = "outliers" if self.count > 1 else "an outlier"
        return f"{lie} beyond {TAIL:g} standard deviations of the prediction: {kind}, left out of the fit"


def _without_tails(
    series: NDArray[np.float64], found: FitResult
) -> tuple[FitResult, NDArray[np.float64], _Outliers]:
    """Fit without outliers, and the series without them; both as they were where there are none."""
    kept, fitted = series, found
    for _ in range(20):
        scaled = _standardised(fitted.estimator(), kept, series)
        beyond = _isolated(scaled)
        n, count = np.count_nonzero(np.isfinite(scaled)), int(np.count_nonzero(beyond))
        largest = float(np.max(np.abs(scaled[beyond]), initial=0.0))
        if count <= _most_by_chance(n * NORMAL_TAIL) and largest < FAR:
            return found, series, _Outliers(0, matter=False)
        again = np.where(beyond, np.nan, series)
        if np.array_equal(again, kept, equal_nan=True) or np.sum(~np.isnan(again)) < SHORT // 2:
            break
        kept, fitted = again, fit(again)
        if fitted.r == 0.0:
            break
    squares = np.nan_to_num(np.minimum(np.abs(scaled), 1e100)) ** 2
    share, energy = MATTERING
    matter = bool(count >= share * n or squares[beyond].sum() >= energy * squares.sum())
    return fitted, kept, _Outliers(count, matter)


def _standardised(
    estimator: Kalman, kept: NDArray[np.float64], series: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Innovations of a series over what is expected of them, by a filter that sees the kept samples."""
    run = estimator.filter(kept)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled: NDArray[np.float64] = (series - np.asarray(run.prediction)) / np.sqrt(run.innovation_variance)
    return np.where(np.isfinite(scaled), scaled, np.nan)


def _isolated(scaled: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which lie far out, but for runs of them on one side: these are a level that has moved."""
    values = np.nan_to_num(scaled)
    side = np.where(np.abs(values) > TAIL, np.sign(values), 0.0)
    starts = np.flatnonzero(np.append(True, side[1:] != side[:-1]))
    lengths = np.diff(np.append(starts, side.size))
    alone: NDArray[np.bool_] = (side != 0.0) & (np.repeat(lengths, lengths) < RUN)
    return alone


def _most_by_chance(expected: float) -> int:
    """Events of a Poisson distribution that more than an unlikely share of series exceed."""
    from scipy.special import pdtrik

    return math.ceil(float(pdtrik(1.0 - UNLIKELY, expected))) if expected > 1e-6 else 1


def _jumps(found: FitResult, series: NDArray[np.float64]) -> NDArray[np.int64]:
    """Samples at which a resetting filter starts anew and the level differs before and after."""
    watching = ResettingKalman(max(float(found.q), 1e-8 * float(found.r)), found.r, loss="huber")
    gain = np.asarray(watching.filter(series).gain)
    alarms = np.flatnonzero(gain == 1.0)
    alarms = alarms[(alarms >= 4 * APART) & (alarms < series.size - 2 * APART)]
    sd = math.sqrt(float(found.r))
    return np.array([at for at in alarms if _is_step(series, int(at), sd)], dtype=np.int64)


def _is_step(series: NDArray[np.float64], at: int, sd: float) -> bool:
    """Whether the level differs across an alarm by far more than it did before it and does after it."""
    medians = []
    for begin in (at - 4 * APART, at - 2 * APART, at, at + APART):
        stretch = series[begin : begin + APART]
        if np.isnan(stretch).all():
            return False
        medians.append(float(np.nanmedian(stretch)))
    before, across, after = np.abs(np.diff(medians))
    return bool(across > 4.0 * sd and across > 3.0 * max(before, after))
