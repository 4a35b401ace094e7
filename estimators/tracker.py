"""The one mutable object: an estimator with its state, for training loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from estimators._parameters import Shown

if TYPE_CHECKING:
    from estimators._display import Facts
    from estimators._samples import OnInfinite
    from estimators.protocol import Estimator


class Tracker(Shown):
    """An estimator that keeps its state: ``update(x)`` returns the new mean.

    Starts from ``state``, or takes its shape from the first sample. Every update makes a new state, so a mean
    that was handed out never changes. ``estimator.tracker()`` makes one, and checks the state.
    """

    __slots__ = ("_on_infinite", "_started", "estimator", "state")

    def __init__(self, estimator: Estimator, state: Any = None, *, on_infinite: OnInfinite = "raise") -> None:
        self.estimator = estimator
        self.state = estimator.init(None) if state is None else state
        self._started = state is not None
        self._on_infinite = on_infinite

    def update(self, x: Any, steps: Any = None, weight: Any = None, r: Any = None) -> Any:
        """Take one sample of every channel and return the mean after it; raises as Estimator.update does."""
        state = self.state if self._started else self.estimator.init(x)
        known = known_of(steps, weight, r)
        self.state = self.estimator.update(state, x, on_infinite=self._on_infinite, **known)
        self._started = True
        return self.state.mean

    @property
    def mean(self) -> Any:
        """Mean after the last sample."""
        return self.state.mean

    @property
    def variance(self) -> Any:
        """Variance of the mean's error, None for estimators that have none."""
        return self.state.variance

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint: ``estimator.tracker(estimator.from_dict(data))`` goes on from it."""
        return self.estimator.to_dict(self.state)

    def __repr__(self) -> str:
        from estimators import _display

        return f"Tracker({self.estimator!r}, mean={_display.field_text(self.mean)})"

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        yield "estimator", repr(self.estimator)
        for name, value in zip(self.state._fields, self.state, strict=True):
            yield name, _display.field_text(value)


def resumed(estimator: Estimator, state: Any, on_infinite: OnInfinite) -> Tracker:
    """Return the tracker that a pickled one was."""
    return estimator.tracker(state, on_infinite=on_infinite)


def known_of(steps: Any, weight: Any, r: Any) -> dict[str, Any]:
    """What is known of a sample, by name, without what is not given."""
    values = {"steps": steps, "weight": weight, "r": r}
    return {name: value for name, value in values.items() if value is not None}
