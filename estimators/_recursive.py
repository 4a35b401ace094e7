"""The recursive estimators: two pure steps, which loops over streams, floats and arrays all share."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections import namedtuple
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._arithmetic import where
from estimators._base import BaseEstimator
from estimators._samples import DOUBLE, LARGEST, read_only
from estimators.results import Changing, Run, Trace, align

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._straight import Straight

LONGEST = 2**15
"""Gains of a start that are kept: a filter that has not settled by then goes on step by step."""
_LARGEST = float(LARGEST[DOUBLE])


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
        return self.State(*(np.full(channels, field, np.float64) for field in self._prior()))

    def _step(self, state: Any, sample: Any, changing: Changing) -> Any:
        given = self._given()._replace(**changing)
        predicted = self.predict(given, state)
        present = sample == sample
        if type(sample) is float:
            return self.correct(given, predicted, sample)[0] if present else predicted
        corrected, _ = self.correct(given, predicted, sample)
        return self.State(*(where(present, new, old) for new, old in zip(corrected, predicted, strict=True)))

    def _filter(
        self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any], changing: Changing
    ) -> Run:
        limit, flat = float(LARGEST[mean.dtype]), Flat.of(self, start, mean.shape, changing)
        by_stream = _by_stream(samples, mean) and not changing
        fits = mean.flags.f_contiguous if by_stream else mean.flags.c_contiguous
        target = mean if fits else np.empty(mean.shape, mean.dtype, order="F" if by_stream else "C")
        with np.errstate(all="ignore"):  # a loop may run uncompiled
            if by_stream:
                known = self._schedule(start)
                if mean.ndim == 1:
                    samples = np.ascontiguousarray(samples)
                    shown, means = read_only(samples), target
                    large = flat.loops.alone(
                        shown, flat.given, flat.state, *known, means, self._settles, limit
                    )
                else:
                    shown, means = read_only(samples.T), target.T
                    large = flat.loops.streams(shown, flat.given, flat.state, *known, means, limit)
            else:
                rows, means = flattened(samples, mean.shape), target.reshape(flat.shape)
                none = (None,) * (len(self.State._fields) - 1)
                large = flat.loops.rows(rows, flat.given, flat.state, means, none, None, limit)
        if target is not mean:
            mean[...] = target
        return Run(self, samples, start, mean, flat.last(), bool(large), changing=changing)

    def _trace(self, run: Run) -> Trace:
        shape, start, samples, names = run.mean.shape, run.start, run.samples, self.State._fields[1:]
        known_before = self._settles and self._uniform(start) and not run.changing
        if known_before and not np.isnan(samples).any():
            # The gains of one channel are those of all, and known before any sample is.
            gains, states, period = self._schedule(start)
            if period:
                recurring = [_recurring(rows, period, shape[0]) for rows in (gains, *states)]
                gain, *fields = (_spread(rows, shape) for rows in recurring)
                return _traced(run, gain, dict(zip(names, fields, strict=True)))
            samples, start = np.zeros(shape[0]), self.State(*(field.reshape(-1)[0] for field in start))
            shape = shape[:1]
        flat = Flat.of(self, start, shape, run.changing)
        mean, gain = np.empty(flat.shape, run.mean.dtype), np.empty(flat.shape)
        traces = tuple(np.empty(flat.shape) for _ in names)
        with np.errstate(all="ignore"):
            flat.loops.rows(flattened(samples, shape), flat.given, flat.state, mean, traces, gain, np.inf)
        gain, *fields = (_spread(rows.reshape(shape), run.mean.shape) for rows in (gain, *traces))
        return _traced(run, gain, dict(zip(names, fields, strict=True)))

    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        start = np.where(np.isnan(run.start.mean), np.nan, initial).reshape(-1)
        gain, rows = flattened(run.gain, mean.shape), flattened(z, mean.shape)
        one_for_all = gain.ndim == rows.ndim == 1 and start.size > 0
        if one_for_all and np.array_equal(start, np.full_like(start, start[0]), equal_nan=True):
            start = start[:1].copy()
        shape = len(mean), start.size
        fits = mean.size == math.prod(shape) and mean.flags.c_contiguous
        flat = mean.reshape(shape) if fits else np.empty(shape)
        compiled_loops().replayed()(gain, rows, start, flat)
        if not fits:
            mean[...] = _spread(flat[:, 0], mean.shape) if shape[1] == 1 else flat.reshape(mean.shape)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        gain = flattened(run.gain, run.mean.shape)
        shape = run.mean.shape if gain.ndim > 1 else gain.shape
        gain = gain if gain.ndim > 1 else gain[:, np.newaxis]
        power = np.empty(gain.shape)
        compiled_loops().powers()(gain, np.zeros(gain.shape[1]), power)
        grid = _spread(power.reshape(shape), run.mean.shape)
        return np.where((grid == 0.0) & np.isnan(run.start.mean), np.nan, grid)

    def _score(
        self, samples: NDArray[np.float64], target: NDArray[np.float64], state: Any, sums: NDArray[np.float64]
    ) -> Any:
        shape = len(samples), *np.shape(state.mean)
        flat, rows = Flat.of(self, state, shape, {}), flattened(samples, shape)
        targets = flattened(target, shape)
        with np.errstate(all="ignore"):
            flat.loops.score(rows, targets, flat.given, flat.state, tuple(sums), self._settles, _LARGEST)
        return flat.last()

    def _moved_in_place(self, state: Any, x: Any) -> bool:
        if type(state) is not self.State or self._parameter_shapes:
            return False
        for field in (x, *state):
            if type(field) is not np.ndarray or field.dtype is not DOUBLE or field.shape != x.shape:
                return False
        for field in state:  # a sample that lies across the state is read after it was written
            both_own = x.base is None and field.base is None
            if x is not field and not both_own and np.may_share_memory(x, field):
                return False
        rows, samples = tuple(state), x
        if not all(field.flags.writeable for field in rows):
            return False
        if x.ndim != 1:
            if not all(field.flags.c_contiguous for field in rows):
                return False
            rows, samples = tuple(field.reshape(-1) for field in rows), x.reshape(-1)
        loops = loops_of(type(self))
        return not loops.in_place(samples, self._given_numbers, rows, _LARGEST)

    @cached_property
    def _given_numbers(self) -> tuple[Any, ...]:
        return tuple(value if np.ndim(value) else float(value) for value in self._given())

    @cached_property
    def _shared(self) -> bool:
        """Whether all channels have the same coefficients."""
        return not any(np.ndim(value) for value in self._given_numbers)

    @cached_property
    def _straight(self) -> Straight | None:
        from estimators._straight import straight

        return None if self._parameter_shapes else straight(self, self._given(), _LARGEST)

    @cached_property
    def _settles(self) -> bool:
        """Whether gains follow from the gaps alone, so that a gain that has settled stays."""
        from estimators._straight import settles

        return settles(self)

    def _uniform(self, start: Any) -> bool:
        """Whether all channels have the same coefficients and start from the same state, the mean aside."""
        if not self._shared or start.mean.size <= 1:
            return self._shared and start.mean.size == 1
        return all(bool(np.all(field == field.flat[0])) for field in (np.isnan(start.mean), *start[1:]))

    def _schedule(self, start: Any) -> _Schedule:
        """Gains from a start on where all channels share them, and none elsewhere."""
        if not (self._settles and self._uniform(start)):
            return _Schedule(np.empty(0), tuple(np.empty(0) for _ in self.State._fields[1:]), 0)
        mean, *rest = (float(np.ravel(field)[0]) for field in start)
        # Which mean is of no account, only whether there is one; math.nan, being one object, equals itself.
        whether = 0.0 if mean == mean else math.nan
        return _schedule(loops_of(type(self)).settle, self._given_numbers, (whether, *rest))

    def _given(self) -> Any:
        return self._coefficients_type(*(getattr(self, name) for name in self.coefficients))

    def _given_in(self, run: Run) -> Any:
        """Coefficients of a run, (T, *channels) or what broadcasts against it."""
        changing = {name: align(rows, run.channels) for name, rows in run.changing.items()}
        return self._given()._replace(**changing)


class _Schedule(NamedTuple):
    """Gains from a start on until they have settled, other fields of the state beside them."""

    gains: NDArray[np.float64]
    states: tuple[NDArray[np.float64], ...]
    period: int
    """1 where the last gain recurs for ever, 2 where the last two do in turn, 0 where they go on changing."""


@functools.lru_cache(maxsize=64)
def _schedule(settle: Any, given: tuple[float, ...], start: tuple[float, ...]) -> _Schedule:
    gains, states = np.empty(LONGEST), tuple(np.empty(LONGEST) for _ in start[1:])
    with np.errstate(all="ignore"):
        steps, period = settle(given, start, gains, states)
    return _Schedule(gains[:steps].copy(), tuple(field[:steps].copy() for field in states), int(period))


class Flat(NamedTuple):
    """A run as the loops see it: time by channels, coefficients and state as tuples of numbers or rows."""

    loops: Any
    given: tuple[Any, ...]
    state: tuple[NDArray[np.float64], ...]
    shape: tuple[int, int]
    last: Callable[[], Any]
    """The state as it is now."""

    @classmethod
    def of(cls, estimator: Recursive, start: Any, shape: tuple[int, ...], changing: Changing) -> Flat:
        """Flatten what a run over results of the given shape needs."""
        channels = shape[1:]
        given = estimator._given_numbers
        if not estimator._shared:
            given = tuple(
                np.array(np.broadcast_to(np.float64(value), channels)).reshape(-1) for value in given
            )
        if changing:
            by_time = {
                name: np.ascontiguousarray(np.broadcast_to(align(rows, channels), shape))
                for name, rows in changing.items()
            }
            given = tuple(
                by_time[name].reshape(shape[0], math.prod(channels)) if name in by_time else value
                for name, value in zip(estimator.coefficients, given, strict=True)
            )
        state = tuple(np.full(channels, field, np.float64).reshape(-1) for field in start)
        flat_shape = shape[0], math.prod(channels)

        def last() -> Any:
            return estimator.State(*(field.reshape(channels) for field in state))

        return cls(loops_of(type(estimator)), given, state, flat_shape, last)


def loops_of(estimator_class: Any) -> Any:
    """Loops that inline the steps of a recursive estimator."""
    return compiled_loops().loops_of(estimator_class)


def compiled_loops() -> Any:
    """Import the compiled loops, and numba with them, when a first stream needs them."""
    from estimators import _loops

    return _loops


def _by_stream(samples: NDArray[np.float64], mean: NDArray[Any]) -> bool:
    """Whether streams lie one after the other, or there is but one."""
    if samples.shape != mean.shape or mean.dtype != DOUBLE:
        return False
    return samples.ndim == 1 or (samples.ndim == 2 and len(samples) > 1 and samples.flags.f_contiguous)


def _traced(run: Run, gain: NDArray[np.float64], fields: dict[str, NDArray[Any]]) -> Trace:
    """A trace whose variance has the dtype of the mean."""
    if "variance" in fields:
        fields["variance"] = fields["variance"].astype(run.mean.dtype, copy=False)
    return Trace(gain, fields)


def _recurring(values: NDArray[np.float64], period: int, steps: int) -> NDArray[np.float64]:
    """Go on with values of which the last ``period`` recur for ever, to so many steps."""
    return np.concatenate([values, np.resize(values[-period:], max(0, steps - values.size))])[:steps]


def _spread(rows: Any, shape: tuple[int, ...]) -> Any:
    """Give every channel what is known of one, as a view."""
    if rows is None:
        return None
    return np.broadcast_to(rows.reshape(rows.shape + (1,) * (len(shape) - rows.ndim)), shape)


def flattened(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Flatten channels for a loop: (T, C), or (T,) where every channel of ``shape`` has the same."""
    if values.ndim == 1 or (values.size and not any(values.strides[1:])):
        of_one = values.reshape(len(values), -1)[:, 0] if values.ndim > 1 else values
        return read_only(np.ascontiguousarray(of_one))
    rows = np.ascontiguousarray(np.broadcast_to(align(values, shape[1:]), shape))
    return read_only(rows.reshape(shape[0], int(np.prod(shape[1:]))))
