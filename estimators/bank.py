"""A bank of Kalman filters, one for each of many ratios q/r, mixed by how well each predicts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from estimators._base import BaseEstimator
from estimators._parameters import ABOVE_0_TO_1, FROM_0_BELOW_1, POSITIVE, Range, real, require, whole
from estimators._recursive import flattened
from estimators._samples import LARGEST
from estimators.covariance_matching import by_time_and_weight
from estimators.protocol import Trait
from estimators.results import Run, Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators.results import Changing

MOST = 1000
"""Members of a bank: more than a few dozen gain nothing."""


class BankState(NamedTuple):
    """Mean of the mixture and its variance; of each member mean, P/r, sum of squares and weight, (M, ...)."""

    mean: Any
    variance: Any
    means: Any
    ratios: Any
    """Variance of the level over the measurement variance."""
    scales: Any
    """Forgetting sum of squared innovations over their variance / r: r is this over ``count``."""
    weights: Any
    count: Any
    """Innovations seen, forgetting the older ones."""


@dataclass(frozen=True, eq=False)
class KalmanBank(BaseEstimator):
    """Kalman filters over a grid of q/r, each with its own running r, mixed by likelihood: nothing is given.

    The grid is q/r = 0 and ``per_decade`` members a decade from ``lowest`` to ``highest``. forgetting in
    (0, 1]: of each member's r. switch_rate in [0, 1): probability per sample that another ratio holds from
    here on; a member that it comes to starts from what all know together, so that the bank never locks up.
    ValueError outside. Diffuse start. Magill (1965), IEEE Trans. Automatic Control 10, for the mixture;
    Herbster and Warmuth (1998), Machine Learning 32, for the share (their fixed share). Its interval is a
    normal one of the mixture's variance, too narrow where there is little to learn from: that of 95 % covers
    90 % at q/r = 1e-4 in the first thousands of samples, 94 % from 0.01 on, and less in the first hundred.
    """

    lowest: float = 1e-6
    highest: float = 1e2
    per_decade: int = 3
    forgetting: float = 0.98
    switch_rate: float = 1e-6

    State = BankState
    changes: ClassVar[tuple[str, ...]] = ("steps", "weight")

    def __post_init__(self) -> None:
        name = type(self).__name__
        ratio = POSITIVE.of("as a ratio q/r")
        ranges: dict[str, Range] = {
            "lowest": ratio,
            "highest": ratio,
            "forgetting": ABOVE_0_TO_1,
            "switch_rate": FROM_0_BELOW_1.of("as a probability per sample"),
        }
        for field, allowed in ranges.items():
            value = real(name, field, getattr(self, field), allowed)
            require(name, field, value, np.ndim(value) == 0, "one number, the same for all channels")
            object.__setattr__(self, field, value)
        object.__setattr__(self, "per_decade", whole(name, "per_decade", self.per_decade, 1))
        require(name, "highest", self.highest, self.highest >= self.lowest, f">= lowest = {self.lowest!r}")
        few = len(self.ratios) <= MOST
        require(name, "per_decade", self.per_decade, few, f"such that the bank has at most {MOST} members")

    @property
    def ratios(self) -> NDArray[np.float64]:
        """q/r of the members, from 0 on, (M,)."""
        span = math.log10(self.highest) - math.log10(self.lowest)
        count = min(1 + round(span * self.per_decade), MOST + 1)
        return np.concatenate([[0.0], np.geomspace(self.lowest, self.highest, count)])

    @property
    def state_bytes(self) -> int:
        """8 bytes for four numbers of each member and three of all."""
        return 8 * (4 * len(self.ratios) + 3)

    @property
    def traits(self) -> frozenset[Trait]:
        """Equivariant, with a variance; the weights of the samples depend on their values."""
        return frozenset({Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.HAS_VARIANCE})

    def _leading(self) -> tuple[tuple[int, ...], ...]:
        members = (len(self.ratios),)
        return (), (), members, members, members, members, ()

    def _start(self, channels: tuple[int, ...]) -> BankState:
        members = (len(self.ratios), *channels)
        start = math.nan, math.inf, math.nan, 0.0, 0.0, 1.0 / members[0], 0.0
        shapes = channels, channels, members, members, members, members, channels
        return BankState(*(np.full(shape, value) for shape, value in zip(shapes, start, strict=True)))

    def _changed(self, steps: Any, weight: Any, r: Any) -> Changing:
        return by_time_and_weight(steps, weight)

    def _step(self, state: BankState, sample: Any, changing: Changing) -> BankState:
        opened = BankState(*(np.asarray(field, dtype=np.float64) for field in state))
        rows = np.broadcast_to(np.asarray(sample, dtype=np.float64), opened.mean.shape)[np.newaxis]
        row_changing = {name: np.asarray(value)[np.newaxis] for name, value in changing.items()}
        moved: BankState = self._filter(rows, opened, np.empty(rows.shape), row_changing).state
        if type(sample) is not float:
            return moved
        return BankState(*(field if np.ndim(field) else float(field) for field in moved))

    def _filter(
        self, samples: NDArray[np.float64], start: BankState, mean: NDArray[Any], changing: Changing
    ) -> Run:
        flat = np.empty((len(mean), math.prod(mean.shape[1:])), mean.dtype)
        state, large = self._run(samples, start, flat, changing, float(LARGEST[mean.dtype]))
        mean[...] = flat.reshape(mean.shape)
        return Run(self, samples, start, mean, state, large, changing=changing)

    def _trace(self, run: Run) -> Trace:
        shape = run.mean.shape
        flat = np.empty((len(run.mean), math.prod(shape[1:])), run.mean.dtype)
        variance, gain, stated = (
            np.empty(flat.shape, run.mean.dtype),
            np.empty(flat.shape),
            np.empty(flat.shape),
        )
        self._run(run.samples, run.start, flat, run.changing, np.inf, (variance, gain, stated, None))
        fields = {"variance": variance.reshape(shape), "innovation_variance": stated.reshape(shape)}
        return Trace(gain.reshape(shape), fields)

    def _innovation_variance(self, run: Run) -> NDArray[np.float64] | None:
        return run.trace.fields["innovation_variance"]

    def _replay(
        self, run: Run, z: NDArray[np.float64], initial: NDArray[np.float64], mean: NDArray[np.float64]
    ) -> None:
        flat = np.empty((len(mean), math.prod(mean.shape[1:])))
        shadow = np.empty(flat.shape)
        known = np.where(np.isnan(run.start.mean), np.nan, initial).reshape(-1)
        members = np.array(np.broadcast_to(known, (len(self.ratios), known.size)))
        along = flattened(z, mean.shape), members, shadow
        self._run(run.samples, run.start, flat, run.changing, np.inf, along=along)
        mean[...] = shadow.reshape(mean.shape)

    def _squared_weights(self, run: Run) -> NDArray[np.float64]:
        shape = run.mean.shape
        flat, power = np.empty((2, len(run.mean), math.prod(shape[1:])))
        self._run(run.samples, run.start, flat, run.changing, np.inf, (None, None, None, power))
        return np.where(np.isnan(run.mean), np.nan, power.reshape(shape))

    def _run(
        self,
        samples: NDArray[np.float64],
        start: BankState,
        mean: NDArray[Any],
        changing: Changing,
        limit: float,
        outputs: tuple[Any, ...] = (None, None, None, None),
        along: tuple[Any, ...] = (None, None, None),
    ) -> tuple[BankState, bool]:
        """Run the loop over flat channels, writing the mean (T, C); the state after it."""
        from estimators._members import banked

        channels = start.mean.shape
        shape = len(mean), *channels
        own = [np.array(field, dtype=np.float64) for field in start]
        flat = tuple(
            field.reshape((*field.shape[: field.ndim - len(channels)], mean.shape[1])) for field in own
        )
        changes = [flattened(changing.get(name, np.ones(len(mean))), shape) for name in ("steps", "noise")]
        given = self.ratios, self.forgetting, self.switch_rate
        with np.errstate(all="ignore"):  # the loop may run uncompiled
            large = banked()(flattened(samples, shape), *changes, given, flat, limit, mean, *outputs, *along)
        return BankState(*(field.reshape(one.shape) for field, one in zip(flat, own, strict=True))), bool(
            large
        )
