"""The base of estimators that are a function of the last N samples: parameter, state, runs."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators._base import BaseEstimator
from estimators._parameters import whole
from estimators._samples import LARGEST, read_only
from estimators.results import Changing, Run, align

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WindowState(NamedTuple):
    """Mean over the window, held while the window is empty, and the window, oldest first, NaN where empty."""

    mean: Any
    window: NDArray[np.float64]

    @property
    def variance(self) -> None:
        """None: no error is stated."""


@dataclass(frozen=True, eq=False)
class Windowed(BaseEstimator):
    """An estimator whose mean follows from the last ``window`` samples alone, of those there are.

    window: int >= 1, ValueError otherwise; it never broadcasts. A missing sample leaves its slot empty; an
    empty window holds the last mean. A subclass says what the mean of a window is, of one and of a whole run.
    """

    window: int

    State = WindowState
    memory = "window"

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole(type(self).__name__, "window", self.window, 1))

    @abstractmethod
    def _mean_of(self, state: Any, window: NDArray[np.float64]) -> Any:
        """Mean of one window, shape (N, *channels), the state before it at hand."""

    @abstractmethod
    def _slide(
        self,
        past: NDArray[np.float64],
        samples: NDArray[np.float64],
        held: NDArray[np.float64],
        mean: NDArray[Any],
    ) -> bool:
        """Write means (T, C) over the last N rows of past (N, C) and samples (T, C).

        held: mean before the first row, shape (C,), free to be written. Whether a sample was too large.
        """

    @property
    def effective_window(self) -> float:
        """N samples."""
        return float(self.window)

    @property
    def state_bytes(self) -> int:
        """8 N: the samples in the window; the mean follows from them."""
        return 8 * self.window

    def _leading(self) -> tuple[tuple[int, ...], ...]:
        return (), (self.window,)

    def _start(self, channels: tuple[int, ...]) -> Any:
        return self.State(np.full(channels, np.nan), np.full((self.window, *channels), np.nan))

    def _step(self, state: Any, sample: Any, changing: Changing) -> Any:
        newest = np.broadcast_to(sample, np.shape(state.mean))[np.newaxis]
        window = np.concatenate([state.window[1:], newest])
        return self.State(self._mean_of(state, window), window)

    def _filter(
        self, samples: NDArray[np.float64], start: Any, mean: NDArray[Any], changing: Changing
    ) -> Run:
        rows = np.broadcast_to(align(samples, mean.shape[1:]), mean.shape)
        large = self._means(start, rows, mean)
        newest = rows[max(0, len(rows) - self.window) :]
        if large:
            newest = np.where(np.abs(newest) < LARGEST[mean.dtype], newest, np.nan)
        window = np.concatenate([start.window[len(newest) :], newest])
        last = np.array(mean[-1] if len(rows) else start.mean, dtype=np.float64)
        return Run(self, samples, start, mean, self.State(last, window), large)

    def _means(self, start: Any, rows: NDArray[np.float64], mean: NDArray[Any]) -> bool:
        """Write means over each window, shape (T, *channels); whether a sample was too large."""
        past, samples, held = self._flat(start, rows)
        fits = mean.flags.c_contiguous
        target = mean.reshape(samples.shape) if fits else np.empty(samples.shape, mean.dtype)
        large = self._slide(past, samples, held, target)
        if not fits:
            mean[...] = target.reshape(mean.shape)
        return large

    def _flat(
        self, start: Any, rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Flatten for a loop: window before (N, C), samples (T, C), and a copy of the mean before (C,)."""
        size = int(np.prod(rows.shape[1:]))
        past = np.ascontiguousarray(start.window, dtype=np.float64).reshape(self.window, size)
        samples = read_only(np.ascontiguousarray(rows).reshape(len(rows), size))
        return past, samples, np.array(start.mean, dtype=np.float64).reshape(-1)
