"""Any estimator on the logarithm of positive samples: for ratios, norms and whatever else is lognormal."""

from __future__ import annotations

import functools
import math
from collections import namedtuple
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators._base import BaseEstimator
from estimators._parameters import require
from estimators._samples import DOUBLE, LARGEST, OnInfinite, as_stream
from estimators.protocol import Trait
from estimators.results import Changing, Run, Score, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray


@functools.cache
def log_state(inner: Any) -> Any:
    """State of ``Log`` over an estimator of this state: mean, variance if there is one, the logarithms'."""
    stated = "variance" in inner._fields
    moments = ("mean", "variance") if stated else ("mean",)
    names = (*moments, *(f"log_{name}" for name in inner._fields))
    kind: Any = namedtuple(f"Log{inner.__name__}", names, module=__name__)  # type: ignore[misc]
    members: dict[str, Any] = {
        "__slots__": (),
        "__module__": __name__,
        "__doc__": f"Mean of positive samples, its variance if stated, and {inner.__name__} of logarithms.",
        # No module holds this class under a name, by which a pickle could find it.
        "__reduce__": lambda state: (_remade, (inner, *state)),
    }
    if not stated:
        members["variance"] = property(lambda state: None, doc="None: no error is stated.")
    return type(kind.__name__, (kind,), members)


def _remade(inner: Any, *values: Any) -> Any:
    """Return the state that a pickled one was."""
    return log_state(inner)(*values)


@dataclass(frozen=True, eq=False)
class LogRun(Run):
    """A run, and beside it that of the inner estimator over the logarithms, from which all else follows."""

    inner: Run = field(kw_only=True)


@dataclass(frozen=True, eq=False)
class Log(BaseEstimator):
    """Run an estimator on the logarithm of samples > 0 and map its mean and bounds back.

    estimator: any of this library that takes all numbers; its variances q, r, ... are those of logarithms
    (no unit), its mean or initial value is a logarithm too. unbiased: "median" gives exp(m) of the inner mean
    m, which lies above the level as often as below; "mean" gives exp(m + P/2), P the variance of the inner
    mean's error, which is right on average where P is (the plain exp(m) where P is infinite, though m is
    known). ValueError for anything else, and for "mean" of an estimator that has no variance.

    The noise of a ratio of norms is about lognormal: a filter of the ratio itself follows the tail of its
    distribution, and its mean lies above its median by exp(v/2) at a variance v of the logarithm (Jensen).
    Aitchison and Brown (1957), The Lognormal Distribution, ch. 2; Limpert, Stahel and Abbt (2001), BioScience
    51(5), p. 341-352.

    Samples <= 0 raise ValueError that names value and index, and nothing is written. The policy
    ``on_infinite="missing"`` skips infinity alone, of either sign: to leave out zeros as well would lift the
    level unseen, so whoever wants that passes NaN for them. ``steps``, ``weight`` and ``r`` by sample are the
    inner estimator's, r the variance of a logarithm.

    Results, all in the unit of the samples unless said otherwise: ``interval`` and ``predictive_interval``
    are exp of the inner bounds, never symmetric, from 0 to inf where nothing is known; ``variance`` is that
    of the lognormal, (exp(P) - 1) exp(2 m + P), with either mean, infinite where P is;
    ``innovation_variance`` is the same of the inner prediction and the variance S of its innovation;
    ``prediction`` is the inner one mapped as the mean is, with the variance of the mean before it.
    ``loglikelihood`` is the density of the samples, not of their logarithms: the inner one minus the sum of
    log x, over the samples that the inner one counts. ``gain`` and ``noise_gain`` are those of logarithms.

    ``replay(z, initial)`` multiplies: exp of the inner map of log z from log initial, both > 0 and
    dimensionless 1 where nothing is to change (the default initial). replay of its own samples, from exp of
    the start's ``log_mean``, gives the mean; with x = signal * noise, mean = replay(signal, initial) *
    replay(noise). Under unbiased="mean" the factor exp(P/2) belongs to the map, which then leaves it of ones:
    mean * replay(ones) = replay(signal, initial) * replay(noise); it grows with P, through a gap too, and
    beyond P = 1.8 the mean lies above the interval of level 0.5.
    """

    estimator: Any
    unbiased: str = "median"

    neutral = 1.0

    def __post_init__(self) -> None:
        name, inner = type(self).__name__, self.estimator
        takes = isinstance(inner, BaseEstimator) and Trait.POSITIVE not in inner.traits
        require(name, "estimator", inner, takes, "an estimator of this library that takes all numbers")
        known = isinstance(self.unbiased, str) and self.unbiased in ("median", "mean")
        require(name, "unbiased", self.unbiased, known, "'median' or 'mean'")
        can = self.unbiased == "median" or self._has_variance
        require(name, "unbiased", self.unbiased, can, f"'median': {type(inner).__name__} has no variance")

    @property
    def State(self) -> Any:  # noqa: N802
        """State with ``mean``, ``variance`` if the inner one has it, and the inner fields as ``log_...``."""
        return log_state(self.estimator.State)

    @property
    def changes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What may vary by sample: that of the inner estimator."""
        kinds: tuple[str, ...] = self.estimator.changes
        return kinds

    @property
    def traits(self) -> frozenset[Trait]:
        """Positive; equivariant to scale where the inner one is to shifts; what it has of memory and error.

        A trend that the inner estimator follows is a constant rate of growth here.
        """
        inner = self.estimator.traits
        kept = inner & {Trait.HAS_VARIANCE, Trait.FINITE_MEMORY, Trait.FOLLOWS_TREND}
        scales = {Trait.SCALE_EQUIVARIANT} if Trait.SHIFT_EQUIVARIANT in inner else set()
        return frozenset({Trait.POSITIVE} | kept | scales)

    @property
    def state_bytes(self) -> int:
        """Those of the inner estimator: mean and variance follow from its own."""
        size: int = self.estimator.state_bytes
        return size

    @property
    def effective_window(self) -> Any:
        """That of the inner estimator; AttributeError where it has none."""
        return self.estimator.effective_window

    def score(self, x: Any, truth: Any = None, *, skip: int = 0, on_infinite: OnInfinite = "raise") -> Score:
        """Errors as ``BaseEstimator.score`` has them, in the unit of the samples; ValueError if x <= 0."""
        samples, _ = as_stream(x)
        _check_positive(samples, "x", float(LARGEST[DOUBLE]))  # all of it, as a piece cannot name the index
        return super().score(x, truth, skip=skip, on_infinite=on_infinite)

    @property
    def _has_variance(self) -> bool:
        return "variance" in self.estimator.State._fields

    @cached_property
    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = self.estimator._parameter_shapes
        return shapes

    def _leading(self) -> tuple[tuple[int, ...], ...]:
        inner: tuple[tuple[int, ...], ...] = self.estimator._leading()
        return ((),) * (2 if self._has_variance else 1) + inner

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        changing: Changing = self.estimator._changed(steps, weight, r)
        return changing

    def _start(self, channels: tuple[int, ...]) -> Any:
        with np.errstate(all="ignore"):
            return self._mapped(self.estimator._start(channels))

    def _step(self, state: Any, sample: Any, changing: Changing) -> Any:
        within = self._within(state)
        if type(sample) is not float:
            _check_positive(sample, "x", math.inf)
            return self._mapped(self.estimator._step(within, np.log(sample), changing))
        if sample <= 0.0:
            raise _refused("x", sample, ())
        return self._mapped(self.estimator._step(within, math.log(sample), changing))

    def _filter(
        self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any], changing: Changing
    ) -> Run:
        limit = float(LARGEST[mean.dtype])
        _check_positive(samples, "x", limit)
        large = bool((np.abs(samples) >= limit).any())
        logs = np.log(np.where(np.abs(samples) < limit, samples, np.nan) if large else samples)
        # The inner mean keeps all its digits, whatever the dtype of this one; and contiguous arrays give the
        # same bits in any company, which strided ones do not.
        log_mean = np.empty_like(mean, dtype=np.float64)
        inner = self.estimator._filter(logs, self._within(start), log_mean, changing)
        with np.errstate(all="ignore"):
            mean[...] = self._level(inner.mean, inner.variance if self.unbiased == "mean" else None)
            state = self._mapped(inner.state) if len(mean) else start
        return LogRun(self, samples, start, mean, state, large, changing=changing, inner=inner)

    def _trace(self, run: Any) -> Trace:
        inner: Run = run.inner
        fields = {f"log_{name}": rows for name, rows in inner.trace.fields.items()}
        fields["log_mean"] = inner.mean
        if inner.variance is not None:
            with np.errstate(all="ignore"):
                stated = lognormal_variance(inner.mean, inner.variance)
                fields["variance"] = stated.astype(run.mean.dtype, copy=False)
        return Trace(inner.gain, fields)

    def _replay(
        self, run: Any, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        _check_positive(z, "z", math.inf)
        _check_positive(initial, "initial", math.inf)
        inner: Run = run.inner
        logs = np.empty_like(mean)
        inner.estimator._replay(inner, np.log(z), np.log(initial), logs)
        with np.errstate(all="ignore"):
            mean[...] = self._level(logs, inner.variance if self.unbiased == "mean" else None)

    def _squared_weights(self, run: Any) -> NDArray[np.float64]:
        power: NDArray[np.float64] = run.inner.estimator._squared_weights(run.inner)
        return power

    def _prediction(self, run: Any) -> NDArray[Any]:
        inner: Run = run.inner
        variance = inner.before("variance") if self.unbiased == "mean" else None
        with np.errstate(all="ignore"):
            expected: NDArray[Any] = self._level(inner.estimator._prediction(inner), variance)
        return expected

    def _innovation_variance(self, run: Any) -> NDArray[np.float64] | None:
        inner: Run = run.inner
        variance = inner.estimator._innovation_variance(inner)
        if variance is None:
            return None
        with np.errstate(all="ignore"):
            stated: NDArray[np.float64] = lognormal_variance(inner.estimator._prediction(inner), variance)
        return stated

    def _loglikelihood(self, run: Any) -> NDArray[np.float64] | None:
        inner: Run = run.inner
        total = inner.estimator._loglikelihood(inner)
        variance = inner.estimator._innovation_variance(inner)
        if total is None or variance is None:
            return None
        counted = np.isfinite(inner.innovation) & np.isfinite(variance) & (variance > 0.0)
        density: NDArray[np.float64] = total - np.where(counted, inner.aligned_samples, 0.0).sum(axis=0)
        return density

    def _interval(self, run: Any, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inner: Run = run.inner
        return _exponentials(inner.estimator._interval(inner, level))

    def _predictive_interval(
        self, run: Any, variance: NDArray[np.float64], level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inner: Run = run.inner
        own = inner.estimator._innovation_variance(inner)
        return _exponentials(inner.estimator._predictive_interval(inner, own, level))  # type: ignore[arg-type]

    def _within(self, state: Any) -> Any:
        """State of the inner estimator."""
        return self.estimator.State(*state[2 if self._has_variance else 1 :])

    def _mapped(self, inner: Any) -> Any:
        """State around one of the inner estimator."""
        mean = self._level(inner.mean, inner.variance if self.unbiased == "mean" else None)
        if not self._has_variance:
            return self.State(mean, *inner)
        return self.State(mean, lognormal_variance(inner.mean, inner.variance), *inner)

    def _level(self, m: Any, variance: Any) -> Any:
        """Level of a logarithm m, unbiased in the mean if its variance is given."""
        if type(m) is float:
            half = 0.0 if variance is None or variance == math.inf else 0.5 * variance
            return _exponential(m + half)
        if variance is None:
            return np.exp(m)
        return np.exp(m + np.where(np.isinf(variance), 0.0, 0.5 * variance))


def lognormal_variance(m: Any, variance: Any) -> Any:
    """Variance of exp of a normal number, (exp(P) - 1) exp(2 m + P); infinite where P is, or where it is.

    By logarithms, since exp(P) may overflow where the whole does not. Aitchison and Brown (1957), eq. 2.7.
    """
    if type(m) is float:
        if variance == math.inf:
            return math.inf
        return (
            _exponential(2.0 * (m + variance) + math.log(-math.expm1(-variance))) if variance > 0.0 else 0.0
        )
    size = np.exp(2.0 * (m + variance) + np.log(-np.expm1(-variance)))
    return np.where(np.isinf(variance), np.inf, size)


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _exponentials(
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    with np.errstate(over="ignore", under="ignore"):
        return np.exp(bounds[0]), np.exp(bounds[1])


def _check_positive(values: NDArray[np.float64], name: str, limit: float) -> None:
    """Raise ValueError at the first number <= 0; those beyond the limit are for ``on_infinite`` to settle."""
    refused = values <= 0.0
    if refused.any():
        refused &= values > -limit
        if refused.any():
            place = tuple(int(i) for i in np.argwhere(refused)[0])
            raise _refused(name, float(values[place]), place)


def _refused(name: str, value: float, place: tuple[int, ...]) -> ValueError:
    where = f" at index {place[0] if len(place) == 1 else place}" if place else ""
    return ValueError(
        f"Log takes samples > 0, {name} holds {value!r}{where}; pass NaN where there is nothing to measure"
    )
