"""Who follows the protocol: the library's own, estimators on its base, and one written from scratch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import estimators
from estimators import EMA, DebiasedEMA, Estimator, Kalman, LinearEstimator, MovingAverage, Tracker, Trait
from estimators._arithmetic import toward, where
from estimators._parameters import BETWEEN_0_AND_1, POSITIVE, Parameter, real
from estimators._recursive import Recursive
from estimators.checks import yield_checks
from estimators.response import SettledGain

OWN = [EMA(0.9), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(3)]


class WarmedState(NamedTuple):
    mean: Any
    count: Any

    @property
    def variance(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class WarmedEMA(Recursive, SettledGain):
    """The mean of all samples until that is slower than an EMA: gain max(1/n, 1 - beta)."""

    beta: Parameter
    State = WarmedState
    coefficients = ("beta",)
    traits = frozenset({Trait.LINEAR, Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT})

    def __post_init__(self) -> None:
        valid = real("WarmedEMA", "beta", self.beta, BETWEEN_0_AND_1)
        object.__setattr__(self, "beta", valid)

    @property
    def steady_gain(self) -> Parameter:
        return 1.0 - self.beta

    @staticmethod
    def predict(given: Any, state: WarmedState) -> WarmedState:
        return state

    @staticmethod
    def correct(given: Any, state: WarmedState, sample: Any) -> tuple[WarmedState, Any]:
        count = state.count + 1.0
        gain = where(count * (1.0 - given.beta) > 1.0, 1.0 - given.beta, 1.0 / count)
        return WarmedState(toward(state.mean, sample, gain), count), gain

    def _prior(self) -> WarmedState:
        return WarmedState(math.nan, 0.0)


class ClippedState(NamedTuple):
    mean: Any

    @property
    def variance(self) -> None:
        return None


@dataclass(frozen=True, eq=False)
class ClippedEMA(Recursive):
    """An EMA that no sample moves by more than (1 - beta) limit: its gains depend on the data."""

    beta: Parameter
    limit: Parameter
    State = ClippedState
    coefficients = ("beta", "limit")
    traits = frozenset({Trait.SHIFT_EQUIVARIANT})

    def __post_init__(self) -> None:
        for name in self.coefficients:
            valid = real("ClippedEMA", name, getattr(self, name), POSITIVE)
            object.__setattr__(self, name, valid)

    @staticmethod
    def predict(given: Any, state: ClippedState) -> ClippedState:
        return state

    @staticmethod
    def correct(given: Any, state: ClippedState, sample: Any) -> tuple[ClippedState, Any]:
        off = abs(sample - state.mean)
        slow = (1.0 - given.beta) * where(off > given.limit, given.limit / (off + 1e-300), 1.0)
        gain = where(state.mean == state.mean, slow, 1.0)
        return ClippedState(toward(state.mean, sample, gain)), gain

    def _prior(self) -> ClippedState:
        return ClippedState(math.nan)


class MedianState(NamedTuple):
    mean: Any
    window: Any

    @property
    def variance(self) -> None:
        return None


@dataclass(frozen=True)
class MedianResult:
    """What the protocol asks of a result, for an estimator that chooses among samples."""

    mean: Any
    gain: Any
    state: MedianState
    innovation: Any
    noise_gain: Any
    _weights: Any
    _gaps: Any
    _start: MedianState
    _wrap: Any

    variance = None
    innovation_variance = None
    loglikelihood = None

    def interval(self, level: float = 0.95) -> None:
        if not 0.0 < level < 1.0:
            raise ValueError(f"level={level} must be in (0, 1)")

    predictive_interval = interval

    def replay(self, z: Any, initial: Any = 0.0) -> Any:
        z = _numbers(z)
        if len(z) != len(self._weights) or np.any(np.isnan(z) & ~self._gaps):
            raise ValueError("z needs a value wherever the run had a sample")
        window = np.broadcast_to(initial, self._start.window.shape)
        rows = np.concatenate([window, np.broadcast_to(z, self._gaps.shape)])
        mean = np.where(np.isnan(self._start.mean), np.nan, initial) + np.zeros(self._gaps.shape[1:])
        means = np.empty(self._gaps.shape)
        for t, weights in enumerate(self._weights):
            chosen = np.where(weights > 0, rows[t + 1 : t + 1 + len(weights)], 0.0)
            mean = np.where(weights.sum(axis=0) > 0, (weights * chosen).sum(axis=0), mean)
            means[t] = mean
        return self._wrap(means)


@dataclass(frozen=True)
class RunningMedian:
    """The median of the last samples, on nothing of this library but its names."""

    window: int

    @property
    def traits(self) -> frozenset[Trait]:
        shared = {Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.FINITE_MEMORY}
        return frozenset(shared | {Trait.LINEAR} if self.window <= 2 else shared)

    @property
    def state_bytes(self) -> int:
        return 8 * self.window

    @property
    def effective_window(self) -> float:
        return float(self.window)

    def init(self, x0: Any) -> MedianState:
        shape = _numbers(x0).shape
        return _plain(MedianState(np.full(shape, np.nan), np.full((self.window, *shape), np.nan)))

    def update(self, state: Any, x: Any, out: Any = None, *, on_infinite: str = "raise") -> Any:
        sample = _numbers(x, on_infinite)
        if sample.shape != np.shape(state.mean):
            raise ValueError("x does not fit the state")
        new = self.filter(sample[np.newaxis], state).state
        if out is None:
            return new
        out.mean[...], out.window[...] = new
        return out

    def filter(
        self, x: Any, state: Any = None, out: Any = None, *, dtype: Any = None, on_infinite: str = "raise"
    ) -> MedianResult:
        samples = _numbers(x, on_infinite)  # a copy, so that out may be x
        if samples.ndim == 0:
            raise ValueError("x has no time axis")
        start = self.init(samples[0] if len(samples) else np.empty(samples.shape[1:]))
        if state is not None:
            start = MedianState(*map(np.array, state))
            dtype = dtype or start.mean.dtype
        means = np.empty(samples.shape, dtype or np.float64) if out is None else out
        if means.shape != samples.shape:
            raise ValueError("out does not fit")
        gaps, window, mean = np.isnan(samples), start.window.copy(), np.array(start.mean)
        weights = np.zeros((len(samples), *window.shape))
        power, innovation = np.full(samples.shape, np.nan), np.empty(samples.shape)
        held = np.where(np.isnan(start.mean), np.nan, 0.0) + np.zeros(samples.shape[1:])
        for t, sample in enumerate(samples):
            innovation[t] = sample - mean
            window = np.concatenate([window[1:], sample[np.newaxis]])
            count = np.sum(~np.isnan(window), axis=0)
            rank = np.argsort(np.argsort(window, axis=0, kind="stable"), axis=0)
            weights[t] = 0.5 * (rank == (count - 1) // 2) + 0.5 * (rank == count // 2)
            weights[t] *= count > 0
            middle = (weights[t] * np.where(weights[t] > 0, window, 0.0)).sum(axis=0)
            mean = np.where(count > 0, middle, mean)
            of_this_run = weights[t][-(t + 1) :]
            held = np.where(count > 0, (of_this_run**2).sum(axis=0), held)
            power[t], means[t] = held, mean
        wrap = _wrapper(x)
        last = means[-1] if len(means) else start.mean
        return MedianResult(
            mean=wrap(means),
            gain=wrap(weights[:, -1]),
            state=_plain(MedianState(np.array(last, means.dtype), window)),
            innovation=wrap(innovation),
            noise_gain=wrap(power),
            _weights=weights,
            _gaps=gaps,
            _start=start,
            _wrap=wrap,
        )

    def tracker(self, state: Any = None, *, on_infinite: Any = "raise") -> Tracker:
        return Tracker(self, state, on_infinite=on_infinite)

    def to_dict(self, state: Any) -> dict[str, Any]:
        fields = [np.asarray(value) for value in state]
        plain = [[str(v.dtype), list(v.shape), [repr(float(e)) for e in v.ravel()]] for v in fields]
        return {"setting": self.window, "state": plain}

    def from_dict(self, data: Any) -> MedianState:
        if data["setting"] != self.window:
            raise ValueError(f"saved under window={data['setting']}")
        fields = (np.array([float(e) for e in v], dtype).reshape(s) for dtype, s, v in data["state"])
        return _plain(MedianState(*fields))


def _plain(state: MedianState) -> MedianState:
    single = state.mean.ndim == 0 and state.mean.dtype == np.float64
    return state._replace(mean=float(state.mean)) if single else state


def _numbers(x: Any, on_infinite: str = "raise") -> Any:
    if isinstance(x, np.ma.MaskedArray):
        x = x.astype(float).filled(np.nan)
    values = np.asarray(x.to_numpy(float, na_value=np.nan) if isinstance(x, pd.Series) else x)
    if values.dtype.kind not in "biuf":
        if values.dtype.kind != "O":
            raise TypeError("samples must be numbers")
        values = np.where(pd.isna(values), np.nan, values)
    values = values.astype(float)
    if np.isinf(values).any() and on_infinite == "raise":
        raise ValueError("x holds infinity")
    return np.where(np.isinf(values), np.nan, values)


def _wrapper(x: Any) -> Any:
    if isinstance(x, pd.Series):
        return lambda values: pd.Series(values, index=x.index, name=x.name)
    if isinstance(x, pd.DataFrame):
        return lambda values: pd.DataFrame(values, index=x.index, columns=x.columns)
    return lambda values: values


THIRD_PARTY = [
    WarmedEMA(0.9),
    WarmedEMA(np.array([0.05, 0.9, 0.999999])),
    ClippedEMA(0.8, 1.0),
    ClippedEMA(np.array([[0.8], [0.1]]), np.array([0.5, 1e-3])),
    RunningMedian(1),
    RunningMedian(2),
    RunningMedian(5),
    RunningMedian(60),
]


@pytest.mark.parametrize(
    ("estimator", "check"),
    [
        pytest.param(e, check, id=f"{' '.join(repr(e).split())}-{check.__name__}")
        for e in THIRD_PARTY
        for check in yield_checks(e)
    ],
)
def test_third_party_follows_the_contract(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.parametrize("estimator", [*OWN, *THIRD_PARTY], ids=lambda e: " ".join(repr(e).split()))
def test_is_an_estimator(estimator: Any) -> None:
    assert isinstance(estimator, Estimator)
    closed_forms = not isinstance(estimator, (ClippedEMA, RunningMedian))
    assert isinstance(estimator, LinearEstimator) == closed_forms


@pytest.mark.parametrize("thing", [object(), 1.0, np.zeros(3), EMA, EMA(0.9).tracker(), EMA(0.9).init(0.0)])
def test_other_things_are_no_estimators(thing: Any) -> None:
    if isinstance(thing, type):
        thing = thing.__name__
    assert not isinstance(thing, Estimator)


def test_lacking_one_member_is_enough_to_be_no_estimator() -> None:
    without = {name: getattr(RunningMedian, name) for name in vars(Estimator) if not name.startswith("_")}
    for name in without:
        kind = type("Partial", (), {k: v for k, v in without.items() if k != name})
        assert not isinstance(kind(), Estimator), name


def test_traits_are_their_names() -> None:
    names = "linear shift_equivariant scale_equivariant has_variance follows_trend positive finite_memory"
    assert [str(trait) for trait in Trait] == names.split()
    assert Trait("linear") is Trait.LINEAR


@pytest.mark.parametrize(
    ("estimator", "traits"),
    [
        (EMA(0.9), "linear scale_equivariant"),
        (EMA(0.9, initial=1.0), "linear"),
        (EMA(0.9, initial=None), "linear shift_equivariant scale_equivariant"),
        (EMA(0.0), "linear scale_equivariant finite_memory"),
        (EMA(0.0, initial=5.0), "linear finite_memory"),
        (DebiasedEMA(0.9), "linear shift_equivariant scale_equivariant"),
        (Kalman(0.1, 1.0), "linear shift_equivariant scale_equivariant has_variance"),
        (Kalman(0.1, 1.0, variance=1.0), "linear scale_equivariant has_variance"),
        (Kalman(0.1, 1.0, mean=2.0, variance=1.0), "linear has_variance"),
        (Kalman(0.1, 1.0, mean=2.0), "linear shift_equivariant scale_equivariant has_variance"),
        (Kalman(0.1, 0.0, mean=2.0, variance=1.0), "linear has_variance finite_memory"),
        (Kalman(0.1, 1.0, variance=np.array([np.inf, 1.0])), "linear scale_equivariant has_variance"),
        (MovingAverage(4), "linear shift_equivariant scale_equivariant finite_memory"),
    ],
    ids=lambda value: " ".join(repr(value).split()) if not isinstance(value, str) else "",
)
def test_traits_of_the_settings(estimator: Any, traits: str) -> None:
    assert estimator.traits == {Trait(name) for name in traits.split()}


def test_states_are_named_tuples_with_the_mean_first() -> None:
    for estimator in OWN:
        state = estimator.init(0.0)
        assert isinstance(state, tuple)
        assert state._fields[0] == "mean"
        assert (state.variance is None) == (Trait.HAS_VARIANCE not in estimator.traits)


def test_estimators_are_frozen_dataclasses() -> None:
    for estimator in OWN:
        field = dataclasses.fields(estimator)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(estimator, field, 0.5)


def test_everything_public_is_there() -> None:
    for name in estimators.__all__:
        assert hasattr(estimators, name)
