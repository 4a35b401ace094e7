"""What estimators share: shapes, pandas in and out, saving, trackers; and the base of the recursive ones."""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from estimators import _saving
from estimators._parameters import POSITIVE, ByValue, Range, real, whole
from estimators._samples import (
    DOUBLE,
    OnInfinite,
    adapter_of,
    as_sample,
    as_stream,
    check_on_infinite,
    checked_out,
    settle_infinity,
)
from estimators.protocol import Trait
from estimators.results import Changing, FilterResult, Run, Score, Trace, align, normal_bounds
from estimators.tracker import Tracker, known_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._straight import Straight

CHANGES = {
    "steps": Range("from 1e-100 to 1e100", lambda v: (v >= 1e-100) & (v <= 1e100)),
    "weight": Range("0, or from 1e-100 to 1e100", lambda v: (v == 0) | ((v >= 1e-100) & (v <= 1e100))),
    "r": POSITIVE,
}
"""What may be known of a sample, and the values that it may have."""
CHUNK = 2**25
"""Bytes of a memory map that are filtered at a time."""


class BaseEstimator(ByValue, ABC):
    """An estimator as a frozen dataclass of parameters; subclasses say how a state starts and moves."""

    State: ClassVar[Any]
    """NamedTuple of the state: ``mean`` first, ``variance`` a field or None."""
    changes: ClassVar[tuple[str, ...]] = ()
    """What may vary by sample: ``steps``, ``weight``, ``r``."""
    memory: ClassVar[str] = ""
    """Parameter that sets how long samples are remembered, which ``matched`` chooses; empty without one."""
    neutral: ClassVar[float] = 0.0
    """What a stream was before a run if that is to leave nothing in a replay."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        state = cls.__dict__.get("State")
        if isinstance(state, type) and state.__repr__.__module__ == "collections":  # not one of its own
            setattr(state, "__repr__", _state_text)  # noqa: B010  mypy lets no method be assigned

    @property
    @abstractmethod
    def traits(self) -> frozenset[Trait]:
        """Traits that hold for this setting."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of float64 state per channel; counters common to all channels excluded."""

    @abstractmethod
    def _start(self, channels: tuple[int, ...]) -> Any:
        """State before any sample: float64 arrays for the given channels."""

    @abstractmethod
    def _step(self, state: Any, sample: Any, changing: Changing) -> Any:
        """State after one sample (NaN: missing) of floats or float64 arrays."""

    @abstractmethod
    def _filter(
        self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any], changing: Changing
    ) -> Run:
        """Run over samples of shape (T, *S), writing ``mean`` of shape (T, *channels).

        Samples too large for the mean's dtype, infinity among them, count as missing; the run says whether
        there were any.
        """

    @abstractmethod
    def _trace(self, run: Run) -> Trace:
        """Gain and fields of the state (one named variance among them if it has one) after each sample."""

    @abstractmethod
    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        """Apply the run's map to z of shape (T, *channels), writing ``mean`` of that shape."""

    @abstractmethod
    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        """Sum of squared weights behind each mean of the run."""

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        """Coefficients for samples ``steps`` apart, of that weight, of that measurement variance, or None."""
        return {}

    def _prediction(self, run: Run) -> NDArray[Any]:
        """What the estimator expects of each sample before it is seen: the mean before it."""
        return run.before("mean")

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        """Variance of each innovation as the model states it; None without a model."""
        return None

    def _loglikelihood(self, run: Run) -> NDArray[np.float64] | None:
        """Gaussian log-likelihood of each channel; None without a model."""
        variance = self._innovation_variance(run)
        if variance is None:
            return None
        innovation = run.innovation
        counted = np.isfinite(innovation) & np.isfinite(variance) & (variance > 0.0)
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
            terms = -0.5 * (np.log(2.0 * np.pi * variance) + (innovation / np.sqrt(variance)) ** 2)
        total: NDArray[np.float64] = np.where(counted, terms, 0.0).sum(axis=0)
        return total

    def _interval(self, run: Run, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of the level from the mean and its variance."""
        return normal_bounds(run.mean, run.variance, level)  # type: ignore[arg-type]

    def _predictive_interval(
        self, run: Run, variance: NDArray[np.float64], level: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Bounds of each sample from what was expected of it, and the variance of its innovation."""
        return normal_bounds(self._prediction(run), variance, level)

    def init(self, x0: Any, *, dtype: Any = None) -> Any:
        """State before any sample, shaped as x0 broadcast with the parameters.

        Python floats for one channel, float64 arrays for more; ``dtype`` changes that of the mean. Raises
        ValueError for a shape that does not broadcast with the parameters', or another dtype than float64 and
        float32, TypeError for text and complex numbers.
        """
        adapter = adapter_of(type(x0))
        if adapter is not None:
            return adapter.init(self, x0)
        channels = self._channels(np.shape(as_sample(x0, "missing")))
        return _released(self._start(channels), _float_dtype(dtype))

    def update(
        self,
        state: Any,
        x: Any,
        out: Any = None,
        *,
        on_infinite: OnInfinite = "raise",
        steps: Any = None,
        weight: Any = None,
        r: Any = None,
    ) -> Any:
        """State after one more sample of every channel; None, NaN and masked values are missing.

        Pure; with ``out`` (a state of arrays, this one or another) the new values are written there and
        ``out`` is returned. A state shaped as the parameters alone serves as the start of any number of
        channels. steps, weight, r: of this sample, as in ``filter``. Raises ValueError for infinity (unless
        ``on_infinite="missing"``) or a shape that does not fit, TypeError for text, complex numbers and for
        an ``out`` that cannot be written.
        """
        as_ever = steps is weight is r is None
        if as_ever and out is None and self._straight is not None:
            moved = self._straight.update(state, x)
            if moved is not None:
                return moved
        adapter = adapter_of(type(x)) or adapter_of(type(getattr(state, "mean", None)))
        if adapter is not None:
            if not as_ever:
                raise TypeError("steps, weight and r are taken with NumPy arrays alone; pass x as one")
            return adapter.update(self, state, x, out)
        if as_ever and out is None:
            if type(state) is self.State and not self._parameter_shapes and {*map(type, state)} == {float}:
                sample = as_sample(x, on_infinite)
                if type(sample) is float:
                    return self._step(state, sample, {})
        elif as_ever and out is state:
            check_on_infinite(on_infinite)
            if self._moved_in_place(state, x):
                return state
        opened = self._opened(state)
        sample = np.asarray(as_sample(x, on_infinite, opened.mean.dtype))
        passing = sample.ndim == 0 and np.isnan(sample)
        opened = self._fitted(opened, opened.mean.shape if passing else sample.shape)
        changing: Changing = {}
        if not as_ever:
            sample, changing = self._changing(sample, known_of(steps, weight, r), opened.mean.shape)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            stepped = self._step(opened, sample, changing)
        return _released(stepped, opened.mean.dtype) if out is None else self._written(stepped, out)

    def filter(
        self,
        x: Any,
        state: Any = None,
        out: NDArray[Any] | None = None,
        *,
        dtype: Any = None,
        on_infinite: OnInfinite = "raise",
        steps: Any = None,
        weight: Any = None,
        r: Any = None,
    ) -> FilterResult:
        """Estimates of a whole stream: time is axis 0, further axes are channels, NaN is missing.

        state: where an earlier run stopped; out: array of shape (T, *channels) for the mean; dtype: of the
        mean, float64 unless the state says otherwise. What is known to change, shape (T,) or (T, *channels):
        steps, the time since the sample before in units of a step, > 0; weight, how many samples' worth each
        one is, >= 0 (0: missing); r, the measurement variance of each, > 0. Raises ValueError for infinity
        (unless ``on_infinite="missing"``; then ``out`` holds nothing of use) and shapes that do not fit,
        TypeError for text, complex numbers and for a change that this estimator has no use for.
        """
        check_on_infinite(on_infinite)
        on_infinite = "missing" if adapter_of(type(x)) is not None else on_infinite
        opened = None if state is None else self._opened(state)
        given = dtype if dtype is not None else out.dtype if isinstance(out, np.ndarray) else None
        kept = _float_dtype(opened.mean.dtype if given is None and opened is not None else given)
        samples, wrap = as_stream(x)
        channels = self._channels(samples.shape[1:])
        start = self._start(channels) if opened is None else self._fitted(opened, samples.shape[1:])
        if out is None:
            mean = _empty_like(samples, (samples.shape[0], *channels), kept)
        else:
            mean = checked_out(out, (samples.shape[0], *channels), kept)
            if np.may_share_memory(mean, samples):
                samples = samples.copy()
        changing: Changing = {}
        if known := known_of(steps, weight, r):
            samples, changing = self._changing(samples, known, channels, len(samples))
        run = self._filter(samples, start, mean, changing)
        if run.large:
            run = replace(run, samples=settle_infinity(samples, on_infinite, kept))
        return FilterResult(wrap(run.mean), _released(run.state, mean.dtype), _run=run, _wrap=wrap)

    def filter_chunks(
        self,
        chunks: Any,
        state: Any = None,
        out: NDArray[Any] | None = None,
        *,
        dtype: Any = None,
        on_infinite: OnInfinite = "raise",
    ) -> Iterator[FilterResult]:
        """Results of a stream larger than memory, one for each chunk, from the state that the last one left.

        chunks: an iterable of arrays as ``filter`` takes them, or one array, such as a memory map, which is
        cut into chunks of about 32 MB. out: array or memory map for the mean of the whole stream. Raises as
        ``filter`` does, when the chunk is reached; ValueError where ``out`` is not as long as the stream.
        """
        done = 0
        for chunk in _cut(chunks) if isinstance(chunks, np.ndarray) else chunks:
            end = done + len(chunk)
            if out is not None and end > len(out):
                raise ValueError(f"out holds {len(out)} samples; the stream has {end} or more")
            target = None if out is None else out[done:end]
            result = self.filter(chunk, state, target, dtype=dtype, on_infinite=on_infinite)
            yield result
            state, done = result.state, end
        if out is not None and done < len(out):
            raise ValueError(f"out holds {len(out)} samples; the stream has {done}")

    def score(self, x: Any, truth: Any = None, *, skip: int = 0, on_infinite: OnInfinite = "raise") -> Score:
        """Errors of a whole stream, of many settings at once, without keeping a single estimate.

        x: as in ``filter``; truth: the level, shape (T,) or (T, *channels), None to predict each sample by
        the mean before it (an error there is prediction minus sample). Samples before ``skip`` and missing
        ones, of x when predicting, are not counted. Memory does not grow with T. Raises as ``filter`` does.
        """
        samples, _ = as_stream(x)
        steps, channels = len(samples), self._channels(samples.shape[1:])
        first = whole("score", "skip", skip, 0)
        settle_infinity(samples[:1], on_infinite, DOUBLE)  # of one sample alone nothing else is looked at
        name, policy, ahead = ("x", on_infinite, 1) if truth is None else ("truth", "raise", 0)
        if truth is None:
            target, samples, first = samples[1:], samples[:-1], max(0, first - 1)
        else:
            target, _ = as_stream(truth, "truth")
            try:
                np.broadcast_to(align(target[:1], channels), (1, *channels))
                fits = len(target) == steps
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(f"truth has shape {target.shape}; it must be (T,) or {(steps, *channels)}")
        alone = samples.ndim == target.ndim == 1
        state, size = self._start(channels), int(np.prod(channels))
        sums = np.zeros((3, size))
        counted_from, piece = min(first, len(samples)), CHUNK // (8 * max(1, size)) + 1
        pieces = [*range(0, counted_from, piece), *range(counted_from, len(samples), piece), len(samples)]
        for begin, end in itertools.pairwise(pieces):
            rows = [
                settle_infinity(samples[begin:end], on_infinite, DOUBLE, "x", begin),
                settle_infinity(target[begin:end], policy, DOUBLE, name, begin + ahead),
            ]
            if not alone:
                rows = [np.broadcast_to(align(r, channels), (end - begin, *channels)) for r in rows]
            counted = sums if begin >= first else np.zeros_like(sums)
            state = self._score(rows[0], rows[1], state, counted)
        return Score.of(sums, channels)

    def _score(
        self, samples: NDArray[np.float64], target: NDArray[np.float64], state: Any, sums: NDArray[np.float64]
    ) -> Any:
        """Add counts, errors and squared errors, (3, C), of samples from a state on; the state after them."""
        mean = np.empty((len(samples), *np.shape(state.mean)))
        run = self._filter(samples, state, mean, {})
        error = (mean - align(target, run.channels)).reshape(len(mean), sums.shape[1])
        for row, terms in zip(sums, (~np.isnan(error), error, error**2), strict=True):
            row += np.nansum(np.ascontiguousarray(terms.T), axis=1)
        return run.state

    def tracker(self, state: Any = None, *, on_infinite: OnInfinite = "raise") -> Tracker:
        """Return the mutable form for training loops, from ``state`` or from the start.

        on_infinite: as in ``filter``, for every sample. Raises TypeError for a state of another estimator,
        ValueError for one whose fields do not fit together.
        """
        check_on_infinite(on_infinite)
        if state is not None:
            state = _released(opened := self._opened(state), opened.mean.dtype)
        first = self.init(None) if state is None else state
        if self._straight is not None and all(type(field) is float for field in first):
            return self._straight.tracker(self, first, on_infinite=on_infinite)
        return Tracker(self, state, on_infinite=on_infinite)

    def to_dict(self, state: Any) -> dict[str, Any]:
        """Plain data (strict JSON can carry it) from which from_dict restores the state bit for bit.

        Raises TypeError for a state of another estimator.
        """
        opened = self._opened(state)
        return _saving.pack(self, _released(opened, opened.mean.dtype))

    def from_dict(self, data: Mapping[str, Any]) -> Any:
        """State saved by to_dict; ValueError if saved by another estimator, parameters or schema."""
        opened = self._opened(_saving.unpack(self, self.State, data))
        return _released(opened, opened.mean.dtype)

    @property
    def _straight(self) -> Straight | None:
        """The step on one float written out; None where there is no such short form."""
        return None

    def _moved_in_place(self, state: Any, x: Any) -> bool:
        """Take a sample into a state of arrays by a loop; False, and nothing done, if they do not fit."""
        return False

    @cached_property
    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in fields}
        return {name: value.shape for name, value in values.items() if isinstance(value, np.ndarray)}

    def _changing(
        self, samples: Any, known: Mapping[str, Any], channels: tuple[int, ...], length: int | None = None
    ) -> tuple[Any, Changing]:
        """Samples without those of weight 0, and the coefficients that what is known of them changes."""
        name, values = type(self).__name__, {}
        for field, given in known.items():
            if field not in self.changes:
                takes = f"it takes {' and '.join(self.changes)}" if self.changes else "nor any other change"
                raise TypeError(f"{name} takes no {field} by sample; {takes}")
            value = np.empty(np.shape(given))
            if value.size:
                value = np.asarray(real(name, field, given, CHANGES[field].of("for every sample")))
            own = value.shape if length is None else value.shape[1:]
            if length is not None and value.shape[:1] != (length,):
                raise ValueError(f"{name}: {field} has shape {value.shape}; x has {length} samples")
            if own and own != channels:
                shapes = ["one number" if length is None else f"({length},)"]
                if channels:
                    shapes.append(str(channels if length is None else (length, *channels)))
                expected = " or ".join(shapes)
                raise ValueError(f"{name}: {field} has shape {value.shape}; it must be {expected}")
            values[field] = value if length is None else align(value, channels)
        weight = values.get("weight")
        if weight is not None:
            rows = samples if length is None else align(samples, channels)
            samples = np.where(weight > 0.0, rows, np.nan)
            values["weight"] = np.where(weight > 0.0, weight, 1.0)
        return samples, self._changed(**{field: values.get(field) for field in CHANGES})

    def _channels(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a state: that of a sample broadcast with every parameter."""
        try:
            return np.broadcast_shapes(sample_shape, *self._parameter_shapes.values())
        except ValueError as error:
            shapes = ", ".join(f"{name} {shape}" for name, shape in self._parameter_shapes.items())
            raise ValueError(
                f"{type(self).__name__}: channels of shape {sample_shape} do not broadcast with {shapes}"
            ) from error

    def _leading(self) -> tuple[tuple[int, ...], ...]:
        """Axes that each field of the state has before those of the channels."""
        return tuple(() for _ in self.State._fields)

    def _opened(self, state: Any) -> Any:
        """Check a state that was handed in; copy it to float64 arrays, a mean of float32 as it is."""
        name = type(self).__name__
        if not isinstance(state, self.State):
            raise TypeError(
                f"{name}: state is a {type(state).__name__}; it must be the "
                f"{self.State.__name__} that init, update or filter returned"
            )
        adapter = adapter_of(type(state.mean))
        if adapter is not None:
            state = adapter.on_host(state)
        channels = np.shape(state.mean)
        single = np.asarray(state.mean).dtype == np.float32
        fields = []
        for field, value, leading in zip(self.State._fields, state, self._leading(), strict=True):
            array = np.array(value, dtype=np.float32 if field == "mean" and single else np.float64)
            if array.shape != (*leading, *channels):
                raise ValueError(
                    f"{name}: state.{field} has shape {array.shape}; beside a mean of shape {channels} "
                    f"it must have {(*leading, *channels)}"
                )
            fields.append(array)
        return self.State(*fields)

    def _fitted(self, opened: Any, sample_shape: tuple[int, ...]) -> Any:
        """Spread a state shaped as the parameters alone over the channels of a sample; refuse others."""
        channels, own = self._channels(sample_shape), opened.mean.shape
        if own == channels:
            return opened
        if own not in ((), self._channels(())):
            raise ValueError(f"x of shape {sample_shape} does not fit a state of shape {own}")
        fields = []
        for value, leading in zip(opened, self._leading(), strict=True):
            aligned = value.reshape(leading + (1,) * (len(channels) - len(own)) + own)
            fields.append(np.array(np.broadcast_to(aligned, leading + channels)))
        return self.State(*fields)

    def _written(self, stepped: Any, out: Any) -> Any:
        """Write a state into ``out``, all of it or nothing."""
        for name, value in zip(self.State._fields, stepped, strict=True):
            target = getattr(out, name, None) if isinstance(out, self.State) else None
            kept = isinstance(target, np.ndarray) and target.dtype.kind == "f" and target.flags.writeable
            if not kept or target.shape != np.shape(value):  # type: ignore[union-attr]
                raise TypeError(
                    f"out must be a {self.State.__name__} of writeable float arrays, out.{name} of shape "
                    f"{np.shape(value)}; plain floats cannot be written in place"
                )
        for target, value in zip(out, stepped, strict=True):
            target[...] = value
        return out


def _state_text(state: Any) -> str:
    from estimators import _display

    return _display.state_text(state)


def _released(state: Any, mean_dtype: np.dtype[Any]) -> Any:
    """Give a state out: fresh arrays, or plain numbers for one channel; the mean in its own dtype."""
    fields = []
    for name, value in zip(state._fields, state, strict=True):
        array = np.array(value, dtype=mean_dtype if name == "mean" else np.float64)
        plain = array.ndim == 0 and array.dtype == np.float64
        fields.append(float(array) if plain else array[()])
    return type(state)(*fields)


def _float_dtype(dtype: Any) -> np.dtype[Any]:
    chosen = np.dtype(np.float64 if dtype is None else dtype)
    if chosen not in (np.float64, np.float32):
        raise ValueError(f"dtype={dtype!r} is not valid; it must be float64 or float32")
    return chosen


def _empty_like(samples: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Room for means, each stream contiguous in time where the samples are so."""
    if samples.shape == shape and samples.ndim == 2 and not samples.flags.c_contiguous:
        return np.empty_like(samples, dtype=dtype)
    return np.empty(shape, dtype)


def _cut(samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
    steps = max(1, CHUNK // max(1, samples[:1].nbytes))
    return (samples[begin : begin + steps] for begin in range(0, len(samples), steps))
