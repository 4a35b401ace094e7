"""The median of the last N samples: the window that outliers do not move, exact and without drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators._samples import LARGEST
from estimators._windowed import Windowed, WindowState
from estimators.protocol import Trait
from estimators.results import Run, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = -(2**63) + 1
"""Index of the sample behind a median where there has been none."""


class RunningMedianState(WindowState):
    """Median of the window, held while the window is empty, and the window, oldest first, NaN where empty."""

    __slots__ = ()


@dataclass(frozen=True, eq=False)
class RunningMedian(Windowed):
    """Median of the last ``window`` samples, of those there are until it is full.

    window: int >= 1, ValueError otherwise; it never broadcasts. Of an even number of samples it is the mean
    of the two in the middle. A missing sample leaves its slot empty; an empty window holds the last median.
    Fewer than half of the samples in a window, however far off, never take it out of the range of the others,
    and a step passes without overshoot after half a window (Tukey 1977, Exploratory Data Analysis, ch. 7).

    Nothing adds up: each median is that of its window to the last bit. Of white Gaussian noise of variance 1
    it leaves about pi / (2 N), pi/2 times as much as the mean (Justusson 1981, in Two-Dimensional Digital
    Signal Processing II, Springer, p. 161-196); of Laplacian noise half as much as the mean. ``noise_gain``
    of a result is another thing, the squared weights of the samples that it chose: 1, or 1/2 for two.

    Which samples are chosen depends on their values, so that there is no impulse response from 3 samples on;
    ``replay`` applies the choice to another stream, where equal samples count in order of arrival.
    """

    State = RunningMedianState

    @property
    def traits(self) -> frozenset[Trait]:
        """Equivariant, and with a memory that ends; one or two samples have a linear median, their mean."""
        shared = {Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.FINITE_MEMORY}
        return frozenset(shared | {Trait.LINEAR} if self.window <= 2 else shared)

    def _mean_of(self, state: Any, window: NDArray[np.float64]) -> Any:
        ranked = np.sort(window, axis=0)  # NaN last
        count = np.count_nonzero(window == window, axis=0)
        if window.ndim == 1:
            return (ranked[(count - 1) // 2] + ranked[count // 2]) * 0.5 if count else state.mean
        middle = [
            np.take_along_axis(ranked, rank[np.newaxis], axis=0)[0]
            for rank in (np.maximum(count - 1, 0) // 2, count // 2)
        ]
        return np.where(count > 0, (middle[0] + middle[1]) * 0.5, state.mean)

    def _slide(
        self,
        past: NDArray[np.float64],
        samples: NDArray[np.float64],
        held: NDArray[np.float64],
        mean: NDArray[Any],
    ) -> bool:
        limit = float(LARGEST[mean.dtype])
        order, ranked, count = _ranked(past, limit)
        if _abreast(past.shape):
            large = loops().sorted_abreast()(past, ranked, count, samples, held, mean, limit)
        else:
            large = loops().heaped()(order, ranked, count, samples, held, mean, None, None, limit)
        return bool(large)

    def _trace(self, run: Run) -> Trace:
        lower, upper = self._chosen(run)
        newest = np.arange(len(lower)).reshape((-1,) + (1,) * (lower.ndim - 1))
        return Trace(0.5 * (lower == newest) + 0.5 * (upper == newest), {})

    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        lower, upper = (_taken(z, initial, index) for index in self._chosen(run))
        mean[...] = (lower + upper) * 0.5

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        lower, upper = self._chosen(run)
        own = 0.25 * ((lower >= 0) + 1.0 * (upper >= 0))
        power: NDArray[np.float64] = np.where(lower == upper, 2.0 * own, own)
        return np.where(lower == NEVER, np.nan, power)

    def _chosen(self, run: Run) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Index in the run of the lower and the upper middle of each window, shape (T, *channels).

        Negative for samples from before the run and for the mean held since then; NEVER where there is none.
        """
        shape, limit = run.mean.shape, float(LARGEST[run.mean.dtype])
        past, samples, held = self._flat(run.start, np.broadcast_to(run.aligned_samples, shape))
        order, ranked, count = _ranked(past, limit)
        chosen = np.empty((2, *samples.shape), np.int64)
        loops().heaped()(order, ranked, count, samples, held, None, *chosen, limit)
        chosen = chosen.reshape((2, *shape))
        empty = chosen == loops().HELD
        if len(samples) and empty.any():
            chosen[:, 0] = np.where(empty[:, 0], np.where(np.isnan(run.start.mean), NEVER, -1), chosen[:, 0])
            time = np.arange(len(samples)).reshape((-1,) + (1,) * (len(shape) - 1))
            last = np.maximum.accumulate(np.where(empty[0], 0, time), axis=0)
            chosen = np.take_along_axis(chosen, last[np.newaxis], axis=1)
        return chosen[0], chosen[1]


def loops() -> Any:
    """Import the compiled loops over windows, and numba with them, when a first stream needs them."""
    from estimators import _medians

    return _medians


def _abreast(shape: tuple[int, ...]) -> bool:
    """Whether windows (N, C) are cheaper to sort side by side than to keep in a heap each.

    Measured: a rank of a tile of channels takes as long as 100 more channels in it would, and 400 ranks of
    a wide tile as long as the heaps.
    """
    window, channels = shape
    width = min(channels, 256)
    return window * (width + 100) <= 400 * width


def _ranked(
    past: NDArray[np.float64], limit: float
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Order of the samples in each window (N, C), the samples in it, missing ones last, and their number."""
    there = np.abs(past) < limit
    filled = np.where(there, past, np.inf)
    order = np.argsort(filled, axis=0, kind="stable")
    return order, np.take_along_axis(filled, order, axis=0), np.count_nonzero(there, axis=0)


def _taken(
    z: NDArray[np.float64], initial: NDArray[np.float64], index: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Samples of these indices; ``initial`` for those before the run, NaN where there are none."""
    before = np.where(index == NEVER, np.nan, initial)
    if not len(z):
        return before
    return np.where(index < 0, before, np.take_along_axis(z, np.maximum(index, 0), axis=0))
