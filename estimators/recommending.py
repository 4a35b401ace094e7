"""Which estimator, with which setting, for a log: chosen by likelihood, shown by out-of-sample prediction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from estimators._choosing import Choice, choose, remembering
from estimators._evidence import Evidence, best_beta, best_window, compared, squared_errors
from estimators._parameters import Shown
from estimators._samples import DOUBLE, OnInfinite, as_stream, settle_infinity
from estimators.bank import KalmanBank
from estimators.ema import EMA, DebiasedEMA
from estimators.fitting import FitResult, fit
from estimators.kalman import Kalman
from estimators.logarithmic import Log
from estimators.moving_average import MovingAverage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._base import BaseEstimator
    from estimators._display import Facts

Domain = Literal["raw", "log"]


@dataclass(frozen=True)
class Recommendation(Shown):
    """What to smooth a log with, what that costs, and the evidence; ``str`` is a screen of it.

    estimator: takes the samples as they are (``Log`` where they are better smoothed as logarithms). beta and
    its 95 % interval: of the one fixed EMA that fits, (0, 1) where nothing can be told, and beta_flatness: by
    what share its one-step error differs within the interval; attenuation_db: of white noise, lag in samples
    (mean age of the weights), state_bytes per channel: of the estimator, on this log. evidence: one-step
    error in the second half, each setting chosen on the first; ``out_of_sample`` is what is recommended from
    the first half alone, in the domain that the whole series prefers.
    """

    estimator: BaseEstimator
    domain: Domain
    n: int
    missing: int
    beta: float
    beta_interval: tuple[float, float]
    beta_flatness: float
    attenuation_db: float
    lag: float
    state_bytes: int
    why: str
    out_of_sample: BaseEstimator
    evidence: tuple[Evidence, ...]
    warnings: tuple[str, ...]

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        yield "use", written(self.estimator)
        yield "beta", _display.number(self.beta)
        yield "interval of beta", _display.interval(*self.beta_interval)
        yield "samples", f"{self.n:,}"
        if self.warnings:
            yield "notes", len(self.warnings)
        yield "print() shows", "the evidence"

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
    attenuation = 10.0 * math.log10(1.0 / _finite_mean(np.asarray(run.noise_gain)[begin:], 1.0)) + 0.0
    beta, interval, flat = _betas(whole.found, series)
    wrap: Callable[[Any], Any] = Log if chosen == "log" else lambda estimator: estimator
    return Recommendation(
        estimator=wrap(whole.estimator),
        domain=chosen,
        n=present.size,
        missing=samples.size - present.size,
        beta=beta,
        beta_interval=interval,
        beta_flatness=flat,
        attenuation_db=attenuation,
        lag=_finite_mean(np.asarray(run.mean_age)[begin:], 0.0),
        state_bytes=whole.estimator.state_bytes,
        why=whole.why,
        out_of_sample=wrap(early.estimator),
        evidence=evidence,
        warnings=whole.warnings,
    )


def _better_domain(samples: NDArray[np.float64]) -> Domain:
    """Log where all samples are positive and the fitted model makes them likelier as logarithms.

    Both likelihoods are of the same samples: that of the logarithms is divided by the samples themselves
    (change of variables), of which the first is given in both.
    """
    present = samples[~np.isnan(samples)]
    if present.min() <= 0.0 or np.ptp(present) == 0.0:
        return "raw"
    log = fit(np.log(samples))
    try:
        raw = fit(samples)
    except ValueError:  # as they are, their squares are no numbers
        return "log"
    return "log" if log.loglikelihood - np.log(present[1:]).sum() > raw.loglikelihood else "raw"


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
    chosen = next(iter(errors.values()))
    found = (compared(name, squares, chosen) for name, squares in errors.items())
    return tuple(one for one in found if one is not None)


def _betas(found: FitResult | None, series: NDArray[np.float64]) -> tuple[float, tuple[float, float], float]:
    """Beta of one fixed EMA and its interval, and by what share the one-step error differs within it."""
    if found is None:
        return 0.9, (0.0, 1.0), 0.0
    low, high = (float(end) for end in found.beta_interval)
    beta = float(found.beta) if found.at_boundary != "q" else float(remembering(found, series).steady_beta)
    ends = np.minimum([low, beta, high], 1.0 - 1.0 / (series.size + 1.0))
    rmse = EMA(ends, initial=None).score(series[:, np.newaxis], skip=series.size // 10).rmse
    with np.errstate(invalid="ignore", divide="ignore"):
        flat = float(np.max(rmse) / np.min(rmse)) - 1.0
    return beta, (low, high), flat if math.isfinite(flat) else math.inf


def _finite_mean(values: NDArray[np.float64], otherwise: float) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else otherwise


def _screen(found: Recommendation) -> list[str]:
    """A recommendation in lines of at most some 100 characters."""
    gaps = f" ({found.missing:,} more are missing)" if found.missing else ""
    smoothed = "as logarithms" if found.domain == "log" else "as they are"
    lines = [
        f"{found.n:,} samples{gaps}, best smoothed {smoothed}.",
        "",
        f"Use      {written(found.estimator)}",
        f"because  {found.why}.",
        f"Beta     {_of_beta(found)}",
        f"Expect   white noise down by {found.attenuation_db:.1f} dB, {found.lag:.3g} samples of lag, "
        f"{found.state_bytes:,} bytes of state.",
    ]
    if found.evidence:
        of = " of the logarithms" if found.domain == "log" else ""
        lines += ["", f"One-step error{of} in the second half, each setting chosen on the first:", ""]
        lines += _table(found.evidence)
    if found.warnings:
        lines += ["", *(f"Note: {warning}." for warning in found.warnings)]
    return lines


def _of_beta(found: Recommendation) -> str:
    low, high = found.beta_interval
    if (low, high) == (0.0, 1.0):
        return "the data cannot tell one beta from another."
    span = f"{low:.4g} to {high:.4g}"
    if found.beta_flatness <= 0.01:
        alike = f"{100.0 * found.beta_flatness:.2g} %"
        return (
            f"of one fixed EMA {found.beta:.4g}; any from {span} does equally well, its error within {alike}."
        )
    return (
        f"of one fixed EMA {found.beta:.4g} (95 % interval {span}, in which its error differs by "
        f"{100.0 * found.beta_flatness:.0f} %)."
    )


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
        against = "" if place == 0 else "not to be compared" if math.isnan(one.excess) else _against(one)
        lines.append(f"  {one.name:<{width}}  {one.rmse:9.4g}  {against}".rstrip())
    return lines


def _against(one: Evidence) -> str:
    excess = f"{100.0 * one.excess:+7.2f} %" if one.excess < 100.0 else "over 100 times"
    error = f" ± {100.0 * one.excess_error:.2f}   " if one.excess < 100.0 else "   "
    return excess if math.isnan(one.excess_error) else f"{excess}{error}{one.verdict}"
