"""What estimators share: shapes, pandas in and out, saving, trackers; and the base of the recursive ones."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import namedtuple
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from estimators import _saving
from estimators._arithmetic import where
from estimators._parameters import ByValue
from estimators._samples import OnInfinite, as_sample, as_stream
from estimators.protocol import Trait
from estimators.results import FilterResult, Run, align
from estimators.tracker import Tracker

if TYPE_CHECKING:
    from numpy.typing import NDArray


class BaseEstimator(ByValue, ABC):
    """An estimator as a frozen dataclass of parameters; subclasses say how a state starts and moves."""

    State: ClassVar[type]
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
        state = self._start(self._channels(np.shape(as_sample(x0, "missing"))))
        return _released(state, _float_dtype(dtype))

    def update(self, state: Any, x: Any, out: Any = None, *, on_infinite: OnInfinite = "raise") -> Any:
        """State after one more sample of every channel; None, NaN and masked values are missing.

        Pure; with ``out`` (a state of arrays, this one or another) the new values are written there and
        ``out`` is returned. Raises ValueError for infinity (unless ``on_infinite="missing"``) or a shape that
        does not fit, TypeError for text, complex numbers and for ``out`` of plain floats.
        """
        plain = type(x) is float and out is None and type(state) is self.State
        if plain and type(state.mean) is float and x - x == 0.0:
            return self._step(state, x)
        sample = as_sample(x, on_infinite)
        self._check_state(state)
        channels = np.shape(state.mean)
        if self._channels(np.shape(sample)) != channels:
            raise ValueError(f"x of shape {np.shape(sample)} does not fit a state of shape {channels}")
        if type(state.mean) is float and out is None:
            return self._step(state, float(sample))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore"):
            stepped = self._step(_as_arrays(state), np.asarray(sample))
        if out is None:
            return _released(stepped, np.asarray(state.mean).dtype)
        if not all(isinstance(value, np.ndarray) for value in out):
            raise TypeError("out must be a state of arrays: plain floats cannot be written in place")
        for target, value in zip(out, stepped, strict=True):
            target[...] = value
        return out

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
        samples, wrap = as_stream(x, on_infinite)
        channels = self._channels(samples.shape[1:])
        if state is None:
            start, kept = self._start(channels), _float_dtype(dtype)
        else:
            self._check_state(state)
            if np.shape(state.mean) != channels:
                raise ValueError(
                    f"state of shape {np.shape(state.mean)} does not fit channels of shape {channels}"
                )
            start = _as_arrays(state)
            kept = _float_dtype(np.asarray(state.mean).dtype if dtype is None else dtype)
        if out is None:
            mean = np.empty((samples.shape[0], *channels), kept)
        else:
            mean = _checked_out(out, (samples.shape[0], *channels), dtype)
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
        if state is not None:
            self._check_state(state)
        return Tracker(self, state, on_infinite=on_infinite)

    def to_dict(self, state: Any) -> dict[str, Any]:
        """Plain data (strict JSON can carry it) from which from_dict restores the state bit for bit."""
        self._check_state(state)
        return _saving.pack(self, state)

    def from_dict(self, data: Mapping[str, Any]) -> Any:
        """State saved by to_dict; ValueError if saved by another estimator, parameters or schema."""
        return _saving.unpack(self, self.State, data)

    def _channels(self, sample_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of a state: that of a sample broadcast with every parameter."""
        parameters = {
            field.name: np.shape(value)
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if isinstance(value := getattr(self, field.name), np.ndarray)
        }
        try:
            return np.broadcast_shapes(sample_shape, *parameters.values())
        except ValueError as error:
            shapes = ", ".join(f"{name} {shape}" for name, shape in parameters.items())
            raise ValueError(
                f"{type(self).__name__}: channels of shape {sample_shape} do not broadcast with {shapes}"
            ) from error

    def _check_state(self, state: Any) -> None:
        if not isinstance(state, self.State):
            raise TypeError(
                f"{type(self).__name__}: state is a {type(state).__name__}; it must be the "
                f"{self.State.__name__} that init, update or filter returned"
            )


class Recursive(BaseEstimator):
    """An estimator written as two pure steps on its state: time passes, a sample arrives.

    A subclass is a frozen dataclass (``eq=False``) that names its ``State`` and the ``coefficients`` (fields
    that the steps read) and defines ``predict``, ``correct`` and ``_prior``. The steps use arithmetic,
    ``where`` and ``toward`` alone, and so serve floats, arrays and the compiled loop.
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
        return 8 * len(self.State._fields)  # type: ignore[attr-defined]

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
        given = np.stack(
            [np.broadcast_to(np.float64(value), shape[1:]).reshape(-1) for value in self._given()]
        )
        states_variance = "variance" in self.State._fields  # type: ignore[attr-defined]
        variance = np.empty(flat if states_variance else (0, 0), mean.dtype)
        gain = np.empty(flat)
        rows = np.broadcast_to(align(samples, shape[1:]), shape).reshape(flat)
        written = mean.reshape(flat) if mean.flags.c_contiguous else np.empty(flat, mean.dtype)
        from estimators import _kernels

        loop = _kernels.recursion(self.predict, self.correct, self.State, self._coefficients_type)
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
        from estimators import _kernels

        flat = (z.shape[0], int(np.prod(run.channels)))
        start = np.where(np.isnan(run.start.mean), np.nan, initial).reshape(-1)
        mean = np.empty(flat)
        _kernels.replay()(run.gain.reshape(flat), _any_layout(z.reshape(flat)), start, mean)
        return mean.reshape(z.shape)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        from estimators import _kernels

        power = np.empty((run.gain.shape[0], int(np.prod(run.channels))))
        _kernels.squared_weights()(run.gain.reshape(power.shape), power)
        grid = power.reshape(run.gain.shape)
        return np.where((grid == 0.0) & np.isnan(run.start.mean), np.nan, grid)

    def _given(self) -> Any:
        return self._coefficients_type(*(getattr(self, name) for name in self.coefficients))


def _any_layout(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """One type for every input (read-only, strided), so that loops are compiled once."""
    return np.lib.stride_tricks.as_strided(rows, rows.shape, rows.strides, writeable=False)


def _as_arrays(state: Any) -> Any:
    return type(state)(*(np.asarray(field) for field in state))


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


def _checked_out(out: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    if not isinstance(out, np.ndarray) or not out.flags.writeable:
        raise TypeError("out must be a writeable NumPy array")
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}; the mean needs {shape}")
    if out.dtype != _float_dtype(out.dtype if dtype is None else dtype):
        raise ValueError(f"out has dtype {out.dtype}; it must be {_float_dtype(dtype)}")
    return out
