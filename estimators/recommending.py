"""Which estimator, with which setting, for a log: chosen by likelihood, shown by out-of-sample prediction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from estimators._evidence import Evidence, best_beta, best_window, compared, squared_errors
from estimators._samples import DOUBLE, OnInfinite, as_stream, settle_infinity
from estimators.bank import KalmanBank
from estimators.ema import EMA, DebiasedEMA
from estimators.fitting import FitResult, fit
from estimators.kalman import Kalman
from estimators.logarithmic import Log
from estimators.moving_average import MovingAverage
from estimators.resetting import ResettingKalman
from estimators.robust import RobustKalman

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._base import BaseEstimator

Domain = Literal["raw", "log"]

SHORT = 50
"""Samples below which no setting can be told from another."""
TAIL = 4.0
"""Standard deviations beyond which a normal innovation lies once in 16,000 samples."""
RUN = 3
"""Samples that far out on one side in a row that are no outliers."""
MATTERING = 0.005
"""Share of outliers below which they do no harm worth another filter."""
UNLIKELY = 0.01
"""Probability below which what is seen counts against the plain model."""
NORMAL_TAIL = math.erfc(TAIL / math.sqrt(2.0))


@dataclass(frozen=True)
class Choice:
    """An estimator for a series as it is smoothed, the fit behind it, and why it and not another."""

    estimator: BaseEstimator
    found: FitResult | None
    why: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Recommendation:
    """What to smooth a log with, what that costs, and the evidence; ``str`` is a screen of it.

    estimator: takes the samples as they are (``Log`` where they are better smoothed as logarithms). beta and
    its 95 % interval: of the one fixed EMA that fits, (0, 1) where nothing can be told; attenuation_db: of
    white noise, lag in samples (mean age of the weights), state_bytes per channel: of the estimator, on this
    log. evidence: one-step error in the second half, each setting chosen on the first; ``out_of_sample`` is
    what this very procedure recommends from the first half alone.
    """

    estimator: BaseEstimator
    domain: Domain
    n: int
    missing: int
    beta: float
    beta_interval: tuple[float, float]
    attenuation_db: float
    lag: float
    state_bytes: int
    why: str
    out_of_sample: BaseEstimator
    evidence: tuple[Evidence, ...]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(_screen(self))


def recommend(
    x: Any, *, domain: Literal["auto", "raw", "log"] = "auto", on_infinite: OnInfinite = "raise"
) -> Recommendation:
    """Recommend an estimator and its setting for one series.

    x: shape (T,), at least 2 samples present, NaN where missing; domain: where to smooth, "auto" for what the
    likelihood prefers. Raises ValueError for several channels, fewer samples, infinity, or domain="log" with
    samples <= 0, TypeError as ``filter`` does.
    """
    samples, _ = as_stream(x)
    samples = settle_infinity(samples, on_infinite, DOUBLE)
    if samples.ndim != 1:
        raise ValueError(f"x has shape {samples.shape}; recommend takes one series, of shape (T,)")
    if domain not in ("auto", "raw", "log"):
        raise ValueError(f"domain={domain!r} is not valid; it must be 'auto', 'raw' or 'log'")
    present = samples[~np.isnan(samples)]
    if present.size < 2:
        raise ValueError(f"x holds {present.size} samples that are present; recommend needs at least 2")
    if domain == "log" and present.min() <= 0.0:
        raise ValueError(f"domain='log' needs samples > 0; the smallest is {present.min():g}")
    chosen: Domain = _better_domain(samples) if domain == "auto" else domain
    series = np.log(samples) if chosen == "log" else samples
    begin = len(series) // 2
    whole, half = choose(series), choose(series[:begin]) if np.sum(~np.isnan(series[:begin])) > 1 else None
    early = whole if half is None else half
    evidence = _evidence(series, begin, early) if half is not None else ()
    run = whole.estimator.filter(series)
    late = slice(len(series) // 2, None)
    attenuation = 10.0 * math.log10(1.0 / _finite_mean(np.asarray(run.noise_gain)[late], 1.0)) + 0.0
    beta, interval = (0.0, (0.0, 1.0)) if whole.found is None else _betas(whole.found)
    wrap: Callable[[Any], Any] = Log if chosen == "log" else lambda estimator: estimator
    return Recommendation(
        estimator=wrap(whole.estimator),
        domain=chosen,
        n=present.size,
        missing=samples.size - present.size,
        beta=beta,
        beta_interval=interval,
        attenuation_db=attenuation,
        lag=_finite_mean(_age(run, series)[late], 0.0),
        state_bytes=whole.estimator.state_bytes,
        why=whole.why,
        out_of_sample=wrap(early.estimator),
        evidence=evidence,
        warnings=whole.warnings,
    )


def choose(series: NDArray[np.float64]) -> Choice:
    """The estimator for a series in the domain where it is smoothed: by its fit, and what speaks against it.

    A random walk in white noise is fitted. Where the innovations have tails that no normal distribution has,
    q and r come from the samples without those, and the filter is a robust one; where the noise or the drift
    is not the same in both halves, or the level jumps, the bank, which adapts; else the fitted filter.
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
    warnings = []
    inner, kept, tails = _without_tails(series, found)
    if tails:
        warnings.append(
            f"{tails} samples lie beyond {TAIL:g} standard deviations of their prediction: outliers"
        )
    correlation = _correlation(inner.estimator(), kept)
    if correlation:
        warnings.append(correlation)
    jumps, first = _jumps(inner, series)
    if jumps:
        warnings.append(f"the level jumps: {jumps} alarm{'s' * (jumps > 1)}, the first at sample {first:,}")
    unsteady = [text for text in inner.warnings if "halves" in text]
    if unsteady:
        warnings.append(f"training is not stationary: {unsteady[0]}")
    if tails and jumps:
        why = "outliers and jumps: a robust filter that starts anew when its innovations keep one sign"
        return Choice(ResettingKalman(inner.q, inner.r, loss="huber"), inner, why, tuple(warnings))
    if tails:
        why = "outliers: a robust filter, which gives them little weight"
        return Choice(RobustKalman(inner.q, inner.r), inner, why, tuple(warnings))
    if unsteady or jumps:
        what = "the level jumps" if jumps else "the halves disagree"
        why = f"no fixed setting stays right ({what}): the bank adapts"
        return Choice(KalmanBank(), found, why, tuple(warnings))
    if found.at_boundary == "q":
        # That no drift is seen is not to say that there is none: between what is excluded and never.
        lower = float(found.beta_interval[0])
        beta = 1.0 - math.sqrt((1.0 - lower) / present.size)
        why = f"no drift is seen in {present.size:,} samples: a memory between the shortest likely and all"
        return Choice(Kalman.from_beta(beta, r=found.r), found, why, tuple(warnings))
    if found.at_boundary == "r":
        why = "no noise is seen beside the drift: the last sample is the best prediction"
        return Choice(found.estimator(), found, why, tuple(warnings))
    why = f"the random walk in white noise that fits best: q = {found.q:.3g}, r = {found.r:.3g}"
    return Choice(found.estimator(), found, why, tuple(warnings))


def _better_domain(samples: NDArray[np.float64]) -> Domain:
    """Log where all samples are positive and the fitted model makes them likelier as logarithms.

    Both likelihoods are of the same samples: that of the logarithms is divided by the samples themselves
    (change of variables), of which the first is given in both.
    """
    present = samples[~np.isnan(samples)]
    if present.min() <= 0.0 or np.ptp(present) == 0.0:
        return "raw"
    raw, log = fit(samples), fit(np.log(samples))
    return "log" if log.loglikelihood - np.log(present[1:]).sum() > raw.loglikelihood else "raw"


def _without_tails(
    series: NDArray[np.float64], found: FitResult
) -> tuple[FitResult, NDArray[np.float64], int]:
    """Fit without isolated samples in tails that are not normal; the series without them; their number."""
    kept, fitted = series, found
    for _ in range(20):
        scaled = _standardised(fitted.estimator(), kept, series)
        beyond = _isolated(scaled)
        n = np.count_nonzero(np.isfinite(scaled))
        if np.count_nonzero(beyond) <= max(_most_by_chance(n * NORMAL_TAIL), MATTERING * n):
            return found, series, 0
        again = np.where(beyond, np.nan, series)
        if np.array_equal(again, kept, equal_nan=True):
            break
        kept, fitted = again, fit(again)
    return fitted, kept, int(np.count_nonzero(beyond))


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


def _correlation(estimator: Kalman, series: NDArray[np.float64]) -> str:
    """A warning where the innovations of the fitted filter are correlated: the noise is not white then."""
    from estimators.diagnostics import diagnose

    whiteness = diagnose(estimator.filter(series)).whiteness
    if not float(whiteness.p_value) < UNLIKELY:
        return ""
    return "the noise is correlated, which the fit cannot tell from drift: its beta is rather too small"


def _jumps(found: FitResult, series: NDArray[np.float64]) -> tuple[int, int]:
    """Restarts of a resetting filter beyond those expected by chance, and the sample of the first."""
    watching = ResettingKalman(found.q, max(float(found.r), 1e-12 * float(found.q)), loss="huber")
    gain = np.asarray(watching.filter(series).gain)
    at = np.flatnonzero(gain == 1.0)[1:]
    by_chance = _most_by_chance(series.size / float(watching.average_run_length))
    return (len(at), int(at[0])) if len(at) > by_chance else (0, 0)


def _evidence(series: NDArray[np.float64], begin: int, early: Choice) -> tuple[Evidence, ...]:
    """What each setting, chosen on the first half, errs on the second."""
    first = series[:begin]
    beta, window = best_beta(first), best_window(first)
    tried: dict[str, BaseEstimator] = {
        f"recommended from the first half: {type(early.estimator).__name__}": early.estimator,
        "EMA(0.9)": EMA(0.9, initial=None),
        "EMA(0.99)": EMA(0.99, initial=None),
        "EMA(0.999)": EMA(0.999, initial=None),
        "DebiasedEMA(0.99)": DebiasedEMA(0.99),
        f"EMA tuned: {beta:.4g}": EMA(beta, initial=None),
        f"MovingAverage tuned: {window}": MovingAverage(window),
    }
    if not isinstance(early.estimator, KalmanBank):
        tried["KalmanBank()"] = KalmanBank()
    if early.found is not None and not isinstance(early.estimator, Kalman):
        fitted = early.found.estimator()
        tried[f"Kalman fitted: beta {float(early.found.beta):.4g}"] = fitted
    errors = {name: squared_errors(estimator, series, begin) for name, estimator in tried.items()}
    return compared(errors, next(iter(errors.values())))


def _betas(found: FitResult) -> tuple[float, tuple[float, float]]:
    low, high = found.beta_interval
    return float(found.beta), (float(low), float(high))


def _age(run: Any, series: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean age of the weights behind each mean, as the run's own map has it."""
    time = np.arange(series.size, dtype=np.float64)
    mass = np.asarray(run.replay(np.ones(series.size)))
    with np.errstate(invalid="ignore", divide="ignore"):
        age: NDArray[np.float64] = time - np.asarray(run.replay(time)) / mass
    return age


def _finite_mean(values: NDArray[np.float64], otherwise: float) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else otherwise


def _screen(found: Recommendation) -> list[str]:
    """A recommendation in lines of at most some 100 characters."""
    gaps = f" ({found.missing:,} more are missing)" if found.missing else ""
    low, high = found.beta_interval
    smoothed = "as logarithms" if found.domain == "log" else "as they are"
    lines = [
        f"{found.n:,} samples{gaps}, best smoothed {smoothed}.",
        "",
        f"Use      {written(found.estimator)}",
        f"because  {found.why}.",
        f"Beta     {_of_beta(found.beta, low, high)}",
        f"Expect   white noise down by {found.attenuation_db:.1f} dB, {found.lag:.3g} samples of lag, "
        f"{found.state_bytes:,} bytes of state.",
    ]
    if found.evidence:
        lines += ["", "One-step error in the second half, each setting chosen on the first:", ""]
        lines += _table(found.evidence)
    if found.warnings:
        lines += ["", *(f"Note: {warning}." for warning in found.warnings)]
    return lines


def _of_beta(beta: float, low: float, high: float) -> str:
    if (low, high) == (0.0, 1.0):
        return "the data cannot tell: any beta does equally well."
    told = f"any beta from {low:.4g} to {high:.4g} does equally well (95 % interval)"
    return f"of one fixed EMA {beta:.4g}; {told}."


def written(estimator: Any) -> str:
    """An estimator as code, numbers to four digits, without what stands at its default."""
    parts = []
    for field in dataclasses.fields(estimator):
        value = getattr(estimator, field.name)
        if field.default is dataclasses.MISSING or value != field.default:
            text = written(value) if dataclasses.is_dataclass(value) else _short(value)
            parts.append(text if field.name == "estimator" else f"{field.name}={text}")
    return f"{type(estimator).__name__}({', '.join(parts)})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def _table(evidence: tuple[Evidence, ...]) -> list[str]:
    width = max(len(one.name) for one in evidence)
    lines = []
    for place, one in enumerate(evidence):
        against = "" if place == 0 else f"{100.0 * one.excess:+7.2f} %"
        if place and not math.isnan(one.excess_error):
            against += f" ± {100.0 * one.excess_error:.2f}   {one.verdict}"
        lines.append(f"  {one.name:<{width}}  {one.rmse:9.4g}  {against}".rstrip())
    return lines
