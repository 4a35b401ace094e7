"""What a filtered stream returns: estimates, the last state, and what follows from them when asked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from estimators._parameters import Shown, plain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._base import BaseEstimator
    from estimators._display import Facts
    from estimators._samples import Wrap


Changing: TypeAlias = "dict[str, NDArray[np.float64]]"
"""Values of coefficients that change from sample to sample, by name."""


class Trace(NamedTuple):
    """What a run leaves behind each sample, shape (T, *channels); views of one channel for all, perhaps."""

    gain: NDArray[np.float64]
    fields: dict[str, NDArray[Any]]
    """Fields of the state by name, the mean aside."""


@dataclass(frozen=True, eq=False)
class Run:
    """One pass of an estimator over a stream: raw arrays of shape (T, *channels), for derived quantities."""

    estimator: BaseEstimator
    samples: NDArray[np.float64]
    start: Any
    mean: NDArray[Any]
    state: Any
    large: bool = False
    """Whether samples were too large, infinite among them, and were taken for missing."""
    known: Trace | None = None
    """What the run left behind, from an estimator that has it at no further cost."""
    changing: Changing = field(default_factory=dict)
    """Coefficients that changed from sample to sample, shape (T, ...)."""

    @cached_property
    def trace(self) -> Trace:
        """Gain and fields of the state after each sample."""
        return self.estimator._trace(self) if self.known is None else self.known

    @property
    def states_variance(self) -> bool:
        """Whether the state holds the variance of the mean's error."""
        return "variance" in self.state._fields

    @property
    def variance(self) -> NDArray[Any] | None:
        """Variance of each mean's error, None without one; may be a view of one channel for all."""
        return self.trace.fields["variance"] if self.states_variance else None

    @property
    def gain(self) -> NDArray[np.float64]:
        """Weight given to each sample, 0 where it was missing; may be a view of one channel for all."""
        return self.trace.gain

    @property
    def channels(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.mean.shape[1:]

    @property
    def aligned_samples(self) -> NDArray[np.float64]:
        """Samples with axes added so that they broadcast against (T, *channels)."""
        return align(self.samples, self.channels)

    @property
    def innovation(self) -> NDArray[np.float64]:
        """Sample minus what was expected of it."""
        difference: NDArray[np.float64] = self.aligned_samples - self.estimator._prediction(self)
        return difference

    def before(self, name: str) -> NDArray[Any]:
        """Return a state field as it stood before each sample, shape (T, *channels)."""
        rows = self.mean if name == "mean" else self.trace.fields[name]
        first = np.broadcast_to(np.asarray(getattr(self.start, name), dtype=rows.dtype), self.channels)
        return np.concatenate([first[np.newaxis], rows])[:-1]


@dataclass(frozen=True, eq=False)
class FilterResult(Shown):
    """Estimates of one stream, shape (T, *channels); pandas where the stream was pandas.

    ``mean`` after each sample, in the stream's unit; ``state`` to go on from. Everything else, ``variance``
    and ``gain`` among it, is computed when first asked, from the stream and from these arrays (``out`` among
    them) as they are then.
    """

    mean: Any
    state: Any
    _run: Run
    _wrap: Wrap

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        run = self._run
        yield "samples", f"{len(run.mean):,}"
        if run.channels:
            yield "channels", " x ".join(f"{size:,}" for size in run.channels)
        yield from _display.last_of(run, 0.95)
        if full and run.mean.size <= _display.COSTLY and self.loglikelihood is not None:
            yield "log-likelihood", _display.number(self.loglikelihood)
        yield "estimator", run.estimator

    @cached_property
    def variance(self) -> Any:
        """Variance of each mean's error; None for estimators that have none."""
        return None if self._run.variance is None else self._wrap(np.array(self._run.variance))

    @cached_property
    def gain(self) -> Any:
        """Weight given to each sample, 0 where it was missing."""
        return self._wrap(np.array(self._run.gain))

    @property
    def prediction(self) -> Any:
        """What was expected of each sample before it was seen: the mean before it, a slope included."""
        return self._wrap(np.array(self._run.estimator._prediction(self._run)))

    @property
    def innovation(self) -> Any:
        """Sample minus its prediction, shape (T, *channels); NaN where either is missing."""
        return self._wrap(self._run.innovation)

    @property
    def innovation_variance(self) -> Any:
        """Variance that the model states for each innovation; None where there is no model."""
        variance = self._run.estimator._innovation_variance(self._run)
        return None if variance is None else self._wrap(variance)

    @property
    def loglikelihood(self) -> Any:
        """Gaussian log-likelihood per channel, constants included; None where there is no model.

        Sums over samples that are present and have a proper prediction, of a variance that is finite and not
        0: after a diffuse start the first sample adds nothing (n - 1 terms; Durbin and Koopman 2012, section
        2.9.1, differs by that convention).
        """
        total = self._run.estimator._loglikelihood(self._run)
        return None if total is None else plain(total)

    def interval(self, level: float = 0.95) -> Any:
        """Lower and upper bound that contain the level with this probability; None without a variance.

        ValueError unless 0 < level < 1.
        """
        if self._run.variance is None:
            check_level(level)
            return None
        bounds = self._run.estimator._interval(self._run, level)
        return tuple(self._wrap(bound) for bound in bounds)

    def predictive_interval(self, level: float = 0.95) -> Any:
        """Bounds for each sample as stated before it was seen; None where there is no model.

        Row t bounds sample t from samples 0 to t - 1. ValueError unless 0 < level < 1.
        """
        variance = self._run.estimator._innovation_variance(self._run)
        if variance is None:
            check_level(level)
            return None
        bounds = self._run.estimator._predictive_interval(self._run, variance, level)
        return tuple(self._wrap(bound) for bound in bounds)

    @property
    def noise_gain(self) -> Any:
        """Sum of the squared weights behind each mean: what white noise of variance 1 would leave in it."""
        return self._wrap(self._run.estimator._squared_weights(self._run))

    @property
    def mean_age(self) -> Any:
        """Mean age in samples of the weights behind each mean, of this run's alone; NaN where there are none.

        From the map on time itself, so of estimators whose map adds.
        """
        shape = self._run.mean.shape
        time = np.arange(shape[0], dtype=np.float64).reshape((-1,) + (1,) * (len(shape) - 1))
        mass, moment = (
            np.asarray(self.replay(z, 0.0)) for z in (np.ones(shape), np.broadcast_to(time, shape))
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._wrap(time - moment / mass)

    def replay(self, z: Any, initial: Any = None, out: NDArray[np.float64] | None = None) -> Any:
        """Apply the linear map that this run used (gains, chosen samples) to another stream.

        z: shape (T,) or (T, *channels), finite wherever this run had a sample. initial: what the stream was
        before the run, in place of the estimator's own start (None: 0, or 1 where the map multiplies);
        without effect where it started from nothing. out: float64 array of shape (T, *channels).
        With x = signal + noise, mean = replay(signal, initial) + replay(noise). Raises ValueError, TypeError.
        """
        from estimators._samples import DOUBLE, as_sample, as_stream, checked_out, settle_infinity

        run, (other, _) = self._run, as_stream(z, name="z")
        if other.shape[0] != run.mean.shape[0]:
            raise ValueError(f"z has {other.shape[0]} samples; this run had {run.mean.shape[0]}")
        before = as_sample(run.estimator.neutral if initial is None else initial)
        settle_infinity(other, "raise", DOUBLE, "z")
        try:
            other = np.broadcast_to(align(other, run.channels), run.mean.shape)
            start = np.broadcast_to(np.asarray(before), run.channels)
        except ValueError as error:
            raise ValueError(
                f"z of shape {other.shape} and initial of shape {np.shape(initial)} "
                f"must broadcast to (T, *channels) = {run.mean.shape}"
            ) from error
        gaps = np.isnan(other)
        if gaps.any() and np.any(gaps & ~np.isnan(run.aligned_samples)):
            raise ValueError("z is missing where this run had a sample; replay needs a value there")
        mean = np.empty(run.mean.shape) if out is None else checked_out(out, run.mean.shape, DOUBLE)
        if out is not None and np.may_share_memory(mean, other):
            other = other.copy()
        run.estimator._replay(run, other, start, mean)
        return self._wrap(mean)


@dataclass(frozen=True, eq=False)
class Score(Shown):
    """Errors of a stream's estimates, reduced over time; numbers for one channel, arrays for more.

    n: samples; bias and rmse in the stream's unit, NaN where nothing was counted.
    """

    n: Any
    """Samples counted."""
    bias: Any
    """Mean error."""
    rmse: Any
    """Root of the mean squared error."""

    @classmethod
    def of(cls, sums: NDArray[np.float64], channels: tuple[int, ...]) -> Score:
        """From counts, sums of errors and of their squares, (3, C); NaN where nothing was counted."""
        n, total, square = sums
        with np.errstate(invalid="ignore"):
            values = n, total / n, np.sqrt(square / n)
        return cls(*(plain(value.reshape(channels)) for value in values))

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        return ((name, _display.number(getattr(self, name))) for name in ("n", "bias", "rmse"))


@dataclass(frozen=True, eq=False)
class SmoothResult(Shown):
    """Estimates of one stream given all of it, shape (T, *channels); pandas where the stream was pandas.

    ``mean`` of the level at each sample, in the stream's unit; ``variance`` of its error, in that squared.
    """

    mean: Any
    variance: Any
    _moments: tuple[NDArray[np.float64], NDArray[np.float64]]
    _wrap: Wrap

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        mean, variance = self._moments
        yield "samples", f"{len(mean):,}"
        if mean.shape[1:]:
            yield "channels", " x ".join(f"{size:,}" for size in mean.shape[1:])
        for name, place in (("first", 0), ("last", -1)) if len(mean) else ():
            yield f"{name} mean", _display.number(mean[place])
            yield "95 % interval", _display.interval(*normal_bounds(mean[place], variance[place], 0.95))

    def interval(self, level: float = 0.95) -> Any:
        """Bounds that contain the level with this probability; ValueError unless 0 < level < 1."""
        return tuple(self._wrap(bound) for bound in normal_bounds(*self._moments, level))


def align(samples: NDArray[Any], channels: tuple[int, ...]) -> NDArray[Any]:
    """Add axes behind time so that (T, *S) broadcasts against (T, *channels) as S against channels."""
    missing = len(channels) - (samples.ndim - 1)
    return samples.reshape(samples.shape[:1] + (1,) * missing + samples.shape[1:])


def check_level(level: float) -> None:
    """Raise ValueError unless a probability lies strictly between 0 and 1."""
    if not (isinstance(level, (int, float, np.floating)) and 0.0 < level < 1.0):
        raise ValueError(f"level={level!r} is not valid; level must be a probability in (0, 1)")


def normal_bounds(
    centre: NDArray[Any], variance: NDArray[Any], level: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Central interval of a normal distribution; all of the line where the variance is infinite."""
    from statistics import NormalDist

    check_level(level)
    half = NormalDist().inv_cdf(0.5 + 0.5 * float(level)) * np.sqrt(np.asarray(variance, dtype=np.float64))
    unknown = np.isinf(half)
    lower = np.where(unknown, -math.inf, centre - half)
    upper = np.where(unknown, math.inf, centre + half)
    return lower, upper
