"""What every running estimator offers: the protocol, its declared traits, and the linear closed forms."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from estimators._parameters import Parameter
    from estimators._samples import OnInfinite
    from estimators.results import FilterResult
    from estimators.tracker import Tracker


class Trait(StrEnum):
    """What an estimator declares of its mean; a trait that is not declared is tested to be absent."""

    LINEAR = "linear"
    """The weights of the samples do not depend on their values: f(x + y) + f(0) = f(x) + f(y)."""
    SHIFT_EQUIVARIANT = "shift_equivariant"
    """f(x + c) = f(x) + c."""
    SCALE_EQUIVARIANT = "scale_equivariant"
    """f(c x) = c f(x)."""
    HAS_VARIANCE = "has_variance"
    """The state holds the variance of the mean's error."""
    FOLLOWS_TREND = "follows_trend"
    """It carries a slope: settled, it has no lag on a ramp, and goes on with it where samples are missing."""
    POSITIVE = "positive"
    """It takes samples > 0 alone, works on their logarithms, and its map multiplies: f(x y) = f(x) f(y)."""
    FINITE_MEMORY = "finite_memory"
    """A sample leaves no trace once effective_window further ones have arrived."""


@runtime_checkable
class Estimator(Protocol):
    """A running estimator: an immutable setting whose state is handed in and out."""

    @property
    def traits(self) -> frozenset[Trait]:
        """Traits that hold for this setting."""

    @property
    def state_bytes(self) -> int:
        """Bytes of float64 state per channel; counters common to all channels excluded."""

    def init(self, x0: Any) -> Any:
        """State before any sample, shaped as x0 broadcast with the parameters."""

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
        """State after one more sample of every channel."""

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
        """Estimates of a whole stream, time on axis 0."""

    def tracker(self, state: Any = None, *, on_infinite: OnInfinite = "raise") -> Tracker:
        """Return the mutable form for training loops."""

    def to_dict(self, state: Any) -> dict[str, Any]:
        """Plain data from which from_dict restores the state bit for bit."""

    def from_dict(self, data: Mapping[str, Any]) -> Any:
        """State saved by to_dict; ValueError if it was saved under other parameters."""


@runtime_checkable
class LinearEstimator(Estimator, Protocol):
    """An estimator with a (settled) impulse response h, hence with closed forms; times in samples."""

    @property
    def steady_gain(self) -> Parameter:
        """Weight of the newest sample, h[0]."""

    @property
    def effective_window(self) -> Parameter:
        """1 / steady_gain."""

    @property
    def time_constant(self) -> Parameter:
        """Samples until the step response crosses 1 - 1/e."""

    @property
    def half_life(self) -> Parameter:
        """Samples until the step response crosses 1/2."""

    @property
    def group_delay(self) -> Parameter:
        """Delay at zero frequency: the mean age of the weights, and the lag on a ramp."""

    @property
    def noise_gain(self) -> Parameter:
        """Variance of the mean over that of white noise, sum of h^2."""

    @property
    def cutoff(self) -> Parameter:
        """Frequency of half power in cycles per sample; NaN where there is none."""

    def impulse_response(self, n: int) -> NDArray[np.float64]:
        """h[0] to h[n - 1], shape (n, *parameters)."""

    def step_response(self, n: int) -> NDArray[np.float64]:
        """Response to a unit step at samples 0 to n - 1, shape (n, *parameters)."""

    def frequency_response(self, f: ArrayLike) -> NDArray[np.complex128]:
        """H(f), f in cycles per sample, shape (*f, *parameters)."""
