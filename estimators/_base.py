"""What estimators share: shapes, pandas in and out, saving, trackers; and the base of the recursive ones."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from estimators import _saving
from estimators._arithmetic import where
from estimators._parameters import ByValue
from estimators._samples import LARGEST, OnInfinite, as_sample, as_stream, check_on_infinite
from estimators.protocol import Trait
from estimators.results import FilterResult, Run, align
from estimators.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray


_LARGEST = LARGEST[np.dtype(np.float64)]


class BaseEstimator(ByValue, ABC):
    """An estimator as a frozen dataclass of parameters; subclasses say how a state starts and moves."""

    State: ClassVar[Any]
    """NamedTuple of the state: ``mean`` first, ``variance`` a field or None."""
    memory: ClassVar[str] = ""
    """Parameter that sets how long samples are remembered, which ``matched`` chooses; empty without one."""

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
    def _step(self, state: Any, sample: Any) -> Any:
        """State after one sample (NaN: missing) of floats or float64 arrays."""

    @abstractmethod
    def _filter(self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any]) -> Run:
        """Run over samples of shape (T, *S), writing ``mean`` of shape (T, *channels)."""

    @abstractmethod
    def _replay(self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64]) -> NDArray[np.float64]:
        """Apply the run's map to z of shape (T, *channels)."""

    @abstractmethod
    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        """Sum of squared weights behind each mean of the run."""

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        """Variance of each innovation as the model states it; None without a model."""
        return None

    def init(self, x0: Any, *, dtype: Any = None) -> Any:
        """State before any sample, shaped as x0 broadcast with the parameters.

        Python floats for one channel, float64 arrays for more; ``dtype`` changes that of the mean.
        """
        channels = self._channels(np.shape(as_sample(x0, "missing")))
        return _released(self._start(channels), _float_dtype(dtype))

    def update(self, state: Any, x: Any, out: Any = None, *, on_infinite: OnInfinite = "raise") -> Any:
        """State after one more sample of every channel; None, NaN and masked values are missing.

        Pure; with ``out`` (a state of arrays, this one or another) the new values are written there and
        ``out`` is returned. A state shaped as the parameters alone serves as the start of any number of
        channels. Raises ValueError for infinity (unless ``on_infinite="missing"``) or a shape that does not
        fit, TypeError for text, complex numbers and for an ``out`` that cannot be written.
        """
        one_channel = out is None and type(state) is self.State and {*map(type, state)} == {float}
        if one_channel and not self._parameter_shapes:
            if type(x) is float and -_LARGEST < x < _LARGEST:
                return self._step(state, x)
            sample = as_sample(x, on_infinite)
            if type(sample) is float:
                return self._step(state, sample)
        opened = self._opened(state)
        sample = np.asarray(as_sample(x, on_infinite, opened.mean.dtype))
        passing = sample.ndim == 0 and np.isnan(sample)
        opened = self._fitted(opened, opened.mean.shape if passing else sample.shape)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            stepped = self._step(opened, sample)
        return _released(stepped, opened.mean.dtype) if out is None else self._written(stepped, out)

    def filter(
        self,
        x: Any,
        state: Any = None,
        out: NDArray[Any] | None = None,
        *,
        dtype: Any = None,
        on_infinite: OnInfinite = "raise",
    ) -> FilterResult:
        """Estimates of a whole stream: time is axis 0, further axes are channels, NaN is missing.

        state: where an earlier run stopped; out: array of shape (T, *channels) for the mean; dtype: of the
        mean, float64 unless the state says otherwise. Raises ValueError for infinity (unless
        ``on_infinite="missing"``) and shapes that do not fit, TypeError for text and complex numbers.
        """
        opened = None if state is None else self._opened(state)
        given = dtype if dtype is not None else out.dtype if isinstance(out, np.ndarray) else None
        kept = _float_dtype(opened.mean.dtype if given is None and opened is not None else given)
        samples, wrap = as_stream(x, on_infinite, kept)
        channels = self._channels(samples.shape[1:])
        start = self._start(channels) if opened is None else self._fitted(opened, samples.shape[1:])
        if out is None:
            mean = np.empty((samples.shape[0], *channels), kept)
        else:
            mean = _checked_out(out, (samples.shape[0], *channels), kept)
            if np.may_share_memory(mean, samples):
                samples = samples.copy()
        run = self._filter(samples, start, mean)
        return FilterResult(
            mean=wrap(run.mean),
            variance=None if run.variance is None else wrap(run.variance),
            gain=wrap(run.gain),
            state=_released(run.state, mean.dtype),
            _run=run,
            _wrap=wrap,
        )

    def tracker(self, state: Any = None, *, on_infinite: OnInfinite = "raise") -> Tracker:
        """Return the mutable form for training loops, from ``state`` or from the start."""
        check_on_infinite(on_infinite)
        if state is not None:
            state = _released(opened := self._opened(state), opened.mean.dtype)
        return Tracker(self, state, on_infinite=on_infinite)

    def to_dict(self, state: Any) -> dict[str, Any]:
        """Plain data (strict JSON can carry it) from which from_dict restores the state bit for bit."""
        opened = self._opened(state)
        return _saving.pack(self, _released(opened, opened.mean.dtype))

    def from_dict(self, data: Mapping[str, Any]) -> Any:
        """State saved by to_dict; ValueError if saved by another estimator, parameters or schema."""
        opened = self._opened(_saving.unpack(self, self.State, data))
        return _released(opened, opened.mean.dtype)

    @cached_property
    def _parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        values = {field.name: getattr(self, field.name) for field in fields}
        return {name: value.shape for name, value in values.items() if isinstance(value, np.ndarray)}

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


class Recursive(BaseEstimator):
    """An estimator written as two pure steps on its state: time passes, a sample arrives.

    A subclass is a frozen dataclass (``eq=False``) that names its ``State`` and the ``coefficients`` (fields
    that the steps read) and defines ``predict``, ``correct`` and ``_prior``. The steps use arithmetic,
    ``where`` and ``toward`` alone, and so serve floats, arrays and the compiled loop. Every field of the
    state has the shape of the channels.
    """

    coefficients: ClassVar[tuple[str, ...]]
    _coefficients_type: ClassVar[type]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "coefficients" in cls.__dict__:
            given = namedtuple("_coefficients_type", cls.coefficients, module=cls.__module__)  # type: ignore[misc]
            given.__qualname__ = f"{cls.__qualname__}._coefficients_type"  # found by this name when cached
            cls._coefficients_type = given

    @staticmethod
    @abstractmethod
    def predict(given: Any, state: Any) -> Any:
        """State after time has passed, before the sample is seen."""

    @staticmethod
    @abstractmethod
    def correct(given: Any, state: Any, sample: Any) -> tuple[Any, Any]:
        """State after a sample has arrived, and the gain that it was given."""

    @abstractmethod
    def _prior(self) -> Any:
        """State before any sample, shaped as the parameters."""

    @property
    def state_bytes(self) -> int:
        """8 bytes for each field of the state."""
        return 8 * len(self.State._fields)

    def _start(self, channels: tuple[int, ...]) -> Any:
        return self.State(
            *(np.array(np.broadcast_to(np.float64(field), channels)) for field in self._prior())
        )

    def _step(self, state: Any, sample: Any) -> Any:
        given = self._given()
        predicted = self.predict(given, state)
        present = sample == sample
        if type(sample) is float:
            return self.correct(given, predicted, sample)[0] if present else predicted
        corrected, _ = self.correct(given, predicted, sample)
        return self.State(*(where(present, new, old) for new, old in zip(corrected, predicted, strict=True)))

    def _filter(self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any]) -> Run:
        shape, flat = mean.shape, (mean.shape[0], int(np.prod(mean.shape[1:])))
        state = np.stack([np.asarray(field, dtype=np.float64).reshape(-1) for field in start])
        given = np.empty((len(self.coefficients), flat[1]))
        for row, value in zip(given, self._given(), strict=True):
            row[:] = np.broadcast_to(np.float64(value), shape[1:]).reshape(-1)
        states_variance = "variance" in self.State._fields
        variance = np.empty(flat if states_variance else (0, 0), mean.dtype)
        gain = np.empty(flat)
        rows = np.broadcast_to(align(samples, shape[1:]), shape).reshape(flat)
        written = mean.reshape(flat) if mean.flags.c_contiguous else np.empty(flat, mean.dtype)
        loop = compiled_loops().recursion(self.predict, self.correct, self.State, self._coefficients_type)
        with np.errstate(all="ignore"):  # a loop may run uncompiled
            loop(_any_layout(rows), given, state, written, variance, gain)
        if not mean.flags.c_contiguous:
            mean[...] = written.reshape(shape)
        return Run(
            estimator=self,
            samples=samples,
            start=start,
            mean=mean,
            variance=variance.reshape(shape) if states_variance else None,
            gain=gain.reshape(shape),
            state=self.State(*(field.reshape(shape[1:]) for field in state)),
        )

    def _replay(self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = (z.shape[0], int(np.prod(run.channels)))
        start = np.where(np.isnan(run.start.mean), np.nan, initial).reshape(-1)
        mean = np.empty(flat)
        compiled_loops().replay()(run.gain.reshape(flat), _any_layout(z.reshape(flat)), start, mean)
        return mean.reshape(z.shape)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        power = np.empty((run.gain.shape[0], int(np.prod(run.channels))))
        compiled_loops().squared_weights()(run.gain.reshape(power.shape), power)
        grid = power.reshape(run.gain.shape)
        return np.where((grid == 0.0) & np.isnan(run.start.mean), np.nan, grid)

    def _given(self) -> Any:
        return self._coefficients_type(*(getattr(self, name) for name in self.coefficients))


def _any_layout(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """One type for every input (read-only, strided), so that loops are compiled once."""
    return np.lib.stride_tricks.as_strided(rows, rows.shape, rows.strides, writeable=False)


def compiled_loops() -> Any:
    """Import the compiled loops, and numba with them, when a first stream needs them."""
    from estimators import _kernels

    return _kernels


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


def _checked_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not isinstance(out, np.ndarray) or not out.flags.writeable:
        raise TypeError("out must be a writeable NumPy array")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.dtype} of shape {out.shape}; the mean needs {dtype} of shape {shape}")
    return out
