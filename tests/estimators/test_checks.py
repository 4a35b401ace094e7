"""The contract suite: every setting of the library's estimators passes, and every planted fault is caught."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from data import contract

from estimators import EMA, DebiasedEMA, FilterResult, Holt, Kalman, Log, MovingAverage, Tracker, Trait
from estimators._recursive import Recursive
from estimators.checks import check_estimator, yield_checks
from estimators.ema import EMAState
from estimators.results import Run

BETAS = np.array([0.0, 0.5, 0.99, 1.0 - 1e-12])
SETTINGS = [
    EMA(0.9),
    EMA(0.0),
    EMA(1e-20),
    EMA(1.0 - 2.0**-53),
    EMA(0.999, initial=None),
    EMA(0.0, initial=5.0),
    EMA(0.99, initial=-1e6),
    EMA(0.5, initial=1e300),
    EMA(0.5, initial=1e-300),
    EMA(BETAS),
    EMA(0.9, initial=np.array([0.0, 1.0, -4.0])),
    EMA(np.array([[0.1], [0.9]]), initial=np.array([0.0, 2.0, 3.0])),
    DebiasedEMA(0.9),
    DebiasedEMA(1e-300),
    DebiasedEMA(0.17157287525381),  # either side of 3 - 2 sqrt(2), below which there is no cutoff
    DebiasedEMA(0.17157287525380),
    DebiasedEMA(1.0 - 2.0**-53),
    DebiasedEMA(np.array([0.2, 0.99])),
    Kalman(1e-2, 1.0),
    Kalman(1.0, 0.0),
    Kalman(0.0, 1.0),
    Kalman(1e-20, 1.0),
    Kalman(1e-310, 1e-310),
    Kalman(1e300, 1e-5),
    Kalman(0.1, 1.0, variance=4.0),
    Kalman(0.1, 1.0, mean=2.0, variance=0.0),
    Kalman(0.0, 1.0, mean=2.0, variance=0.0),
    Kalman(1.0, 0.0, mean=2.0, variance=1.0),
    Kalman(0.1, 1.0, mean=-1e6, variance=1e12),
    Kalman(np.array([0.0, 1e-4, 0.1, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])),
    Kalman(0.1, np.array([1.0, 2.0]), mean=np.array([np.nan, 3.0]), variance=np.array([np.inf, 1.0])),
    Kalman(np.array([[0.1], [1.0]]), np.array([1.0, 2.0, 3.0])),
    MovingAverage(1),
    MovingAverage(2),
    MovingAverage(7),
    MovingAverage(199),
    MovingAverage(5000),
]


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- one fault each -----------------------------------------------------------------------------------------


class ListsItsTraits(EMA):
    traits = [Trait.LINEAR]  # type: ignore[assignment]


class CanBeSet(EMA):
    __setattr__ = object.__setattr__


class KeepsTheArray(EMA):
    def __post_init__(self) -> None:
        given = self.beta
        super().__post_init__()
        object.__setattr__(self, "beta", given)


class HashesByIdentity(EMA):
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


class EqualToAllOfItsKind(EMA):
    def _key(self) -> Any:
        return ()


class PrintsHalfOfItself(EMA):
    def __repr__(self) -> str:
        return f"PrintsHalfOfItself({self.beta})"


class CountsItsCalls(EMA):
    calls = itertools.count()

    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, mean=run.mean + 1e-9 * next(self.calls))


class FillsGapsInTheInput(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        np.nan_to_num(x, copy=False)
        return run


class UpdatesTheOldState(EMA):
    def update(self, state: Any, x: Any, out: Any = None, **named: Any) -> Any:
        return super().update(state, x, state if isinstance(state.mean, np.ndarray) else out, **named)


class StateIsTheLastRow(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, state=EMAState(run.mean[-1])) if len(run.mean) else run


class KeepsItsInput(EMA):
    def init(self, x0: Any, **named: Any) -> Any:
        return EMAState(x0) if isinstance(x0, np.ndarray) else super().init(x0, **named)


class TracksInPlace(EMA):
    def tracker(self, *given: Any, **named: Any) -> Any:
        return InPlaceTracker(self, *given, **named)


class InPlaceTracker(Tracker):
    def update(self, x: Any) -> Any:
        old = self.state
        mean = super().update(x)
        if self._started and isinstance(mean, np.ndarray) and np.shape(old.mean) == mean.shape:
            old.mean[...] = mean
            self.state = old
        return self.state.mean


class ForgetsThatTimePassed(DebiasedEMA):
    def update(self, state: Any, x: Any, *given: Any, **named: Any) -> Any:
        return state if np.isnan(x).all() else super().update(state, x, *given, **named)


class StartsAgain(DebiasedEMA):
    def filter(self, x: Any, state: Any = None, *given: Any, **named: Any) -> Any:
        weightless = None if state is None else state._replace(weight=0.0 * state.weight)
        return super().filter(x, weightless, *given, **named)


class SavesSixDigits(EMA):
    def to_dict(self, state: Any) -> Any:
        return super().to_dict(EMAState(np.round(state.mean, 6)))


class LoadsAnything(EMA):
    def from_dict(self, data: Any) -> Any:
        return EMA(**data["parameters"]).from_dict(data | {"estimator": "EMA"})


class SavesNaN(EMA):
    def to_dict(self, state: Any) -> Any:
        return super().to_dict(state) | {"note": math.nan}


class IgnoresOut(EMA):
    def filter(self, x: Any, state: Any = None, out: Any = None, **named: Any) -> Any:
        return super().filter(x, state, **named)


class UpdatesElsewhere(EMA):
    def update(self, state: Any, x: Any, out: Any = None, **named: Any) -> Any:
        return super().update(state, x, **named)


class HistoryState(NamedTuple):
    mean: Any
    history: Any

    @property
    def variance(self) -> None:
        return None


class KeepsHistory(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        return replace(run, state=HistoryState(run.state.mean, [float(np.nansum(row)) for row in x]))

    def to_dict(self, state: Any) -> Any:
        return super().to_dict(EMAState(state.mean)) | {"history": state.history}


class UnderstatesItsMemory(MovingAverage):
    state_bytes = 8


class OverstatesItsMemory(EMA):
    state_bytes = 16


class ForgetsItsVariance(Kalman):
    state_bytes = 8


class CountsWhatWasBefore(MovingAverage):
    def _squared_weights(self, run: Run) -> Any:
        _, present = self._means(run.start, np.broadcast_to(run.aligned_samples, run.mean.shape))
        return 1.0 / np.where(present > 0, present, np.nan)


class HalfTheCentralShare(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        bounds = run.interval
        object.__setattr__(run, "interval", lambda level=0.5: bounds(level))
        return run


class Poisoned(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        gone = np.maximum.accumulate(np.isnan(x), axis=0)
        return replace(run, mean=np.where(gone, np.nan, run.mean))


class KnowsBeforehand(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, mean=np.nan_to_num(run.mean))


class TakesGapsForZero(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        return super().filter(np.nan_to_num(x), *given, **named)


class RefusesNone(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        return super().filter(np.asarray(x, dtype=np.float64) if None in x else x, *given, **named)

    def update(self, state: Any, x: Any, *given: Any, **named: Any) -> Any:
        return super().update(state, 0.0 if x is None else x, *given, **named)


class UnmasksSamples(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        return super().filter(getattr(x, "data", x), *given, **named)


class SwallowsInfinity(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        return super().filter(*given, **{"on_infinite": "missing"} | named)


class ReadsText(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        if isinstance(x, list):
            x = np.asarray(x, dtype=np.float64)
        return super().filter(x, *given, **named)


class DropsOneChannel(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, gain=run.gain.reshape(-1))


class GivesScalarsOfNumPy(EMA):
    def update(self, *given: Any, **named: Any) -> Any:
        return EMAState(np.asarray(super().update(*given, **named).mean)[()])


class KeepsIntegers(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        return replace(run, mean=run.mean.astype(np.result_type(x)) if np.ndim(x) else run.mean)


class IgnoresDtype(EMA):
    def filter(self, *given: Any, dtype: Any = None, **named: Any) -> Any:
        return super().filter(*given, **named)


class DropsTheIndex(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        return super().filter(np.asarray(x, dtype=np.float64), *given, **named)


class CentresAllChannels(DebiasedEMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        centre = np.nanmean(x) if np.size(x) else 0.0
        run = super().filter(np.asarray(x) - centre, *given, **named)
        return replace(run, mean=run.mean + centre)


class ParametersInReverse(EMA):
    def _given(self) -> Any:
        return super()._given()._replace(beta=np.flip(self.beta))


class StartsBelow(DebiasedEMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, mean=run.mean * (1.0 - np.cumprod(self.beta + 0.0 * run.gain, axis=0)))


class RoundsToFloat32(DebiasedEMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        return replace(run, mean=np.float64(np.float32(run.mean)))


class NeverArrives(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        return replace(run, mean=0.99 * run.mean)


class MakesUpAVariance(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, variance=np.zeros(run.mean.shape))


class NegativeVariance(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, variance=np.where(np.isinf(run.variance), np.inf, run.variance - 1.0))


class CertainFromTheStart(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, variance=np.where(np.isinf(run.variance), 0.0, run.variance))


class OverstatesItsVariance(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        run = super().filter(*given, **named)
        return replace(run, variance=10.0 * run.variance)


class OneLevelForAll(FilterResult):
    def interval(self, level: float = 0.95) -> Any:
        return self.mean - level * 1e-3, self.mean + 1e-3


class IntervalsWithoutLevel(Kalman):
    def filter(self, *given: Any, **named: Any) -> Any:
        return _as(OneLevelForAll, super().filter(*given, **named))


class LooksAtItsOwnMean(FilterResult):
    @property
    def innovation(self) -> Any:
        return self._run.aligned_samples - self._run.mean


class InnovationsTooLate(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        return _as(LooksAtItsOwnMean, super().filter(*given, **named))


class AssumesALikelihood(FilterResult):
    @property
    def loglikelihood(self) -> Any:
        return -0.5 * np.nansum(self._run.innovation**2, axis=0)


class LikelihoodWithoutModel(EMA):
    def filter(self, *given: Any, **named: Any) -> Any:
        return _as(AssumesALikelihood, super().filter(*given, **named))


class ReplaysTheSettledGain(DebiasedEMA):
    def _replay(self, run: Run, z: Any, initial: Any) -> Any:
        return EMA(self.beta).filter(z).mean


class ReplaysZerosInGaps(MovingAverage):
    def _replay(self, run: Run, z: Any, initial: Any) -> Any:
        return super()._replay(replace(run, samples=np.nan_to_num(run.samples)), z, initial)


class StatesTheSettledNoise(DebiasedEMA):
    def _squared_weights(self, run: Run) -> Any:
        return np.where(np.isnan(run.mean), np.nan, self.noise_gain)


class Clips(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        return super().filter(np.clip(x, -3.0, 3.0), *given, **named)


class HidesThatItIsLinear(MovingAverage):
    traits = MovingAverage(3).traits - {Trait.LINEAR}


class BoastsOfShifts(EMA):
    traits = EMA(0.9).traits | {Trait.SHIFT_EQUIVARIANT}


class HidesShifts(DebiasedEMA):
    traits = DebiasedEMA(0.9).traits - {Trait.SHIFT_EQUIVARIANT}


class RegularisesByEpsilon(EMA):
    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        x = np.asarray(x)
        return super().filter(x * (np.abs(x) / (np.abs(x) + 1e-8)), *given, **named)


class HidesScale(DebiasedEMA):
    traits = DebiasedEMA(0.9).traits - {Trait.SCALE_EQUIVARIANT}


class BoastsOfForgetting(EMA):
    traits = EMA(0.9).traits | {Trait.FINITE_MEMORY}


class RunningSum(MovingAverage):
    """The mean from a running sum, which keeps the rounding of all that ever passed."""

    def filter(self, x: Any, *given: Any, **named: Any) -> Any:
        run = super().filter(x, *given, **named)
        total = np.cumsum(np.nan_to_num(x), axis=0)
        count = np.cumsum(~np.isnan(x), axis=0)
        for sums in (total, count):
            sums[self.window :] = sums[self.window :] - sums[: -self.window]
        return replace(run, mean=total / np.maximum(count, 1))


class HidesItsForgetting(MovingAverage):
    traits = MovingAverage(3).traits - {Trait.FINITE_MEMORY}


class BoastsOfPositive(EMA):
    traits = EMA(0.9).traits | {Trait.POSITIVE}


class HidesThatItIsPositive(Log):
    traits = Log(EMA(0.9)).traits - {Trait.POSITIVE}


class SkipsZeros(Log):
    def filter(self, x: Any, *given: Any, on_infinite: Any = "raise", **named: Any) -> Any:
        if on_infinite == "missing":
            x = np.where(np.equal(x, 0.0), np.nan, x)
        return super().filter(x, *given, on_infinite=on_infinite, **named)


class AddsInsteadOfMultiplying(Log):
    neutral = 0.0

    def _replay(self, run: Any, z: Any, initial: Any, mean: Any) -> None:
        self.estimator._replay(run.inner, z, initial, mean)


class MakesUpACorrection(Log):
    def _replay(self, run: Any, z: Any, initial: Any, mean: Any) -> None:
        super()._replay(run, z, initial, mean)
        mean *= 1.5


class BoundsBelowZero(Log):
    def _interval(self, run: Any, level: float) -> Any:
        low, high = super()._interval(run, level)
        return np.where(np.isinf(high), -math.inf, low), high


class ForgetsItsLogarithm(Log):
    state_bytes = 0


class GainIsBeta(EMA):
    steady_gain = property(lambda self: 0.9)


class WindowIsSpan(EMA):
    effective_window = property(lambda self: (1.0 + self.beta) / (1.0 - self.beta))


class RespondsOneLate(EMA):
    def impulse_response(self, n: int) -> Any:
        return super().impulse_response(n + 1)[1:]


class RespondsTwiceAsFast(DebiasedEMA):
    def impulse_response(self, n: int) -> Any:
        return DebiasedEMA(0.8).impulse_response(n)


class LeadsInsteadOfLags(EMA):
    def frequency_response(self, f: Any) -> Any:
        return np.conj(super().frequency_response(f))


class NoiseIsTheGain(EMA):
    noise_gain = property(lambda self: 1.0 - self.beta)


class DelayIsTheWindow(EMA):
    group_delay = property(lambda self: 1.0 / (1.0 - self.beta))


class TimeIsTheSpan(EMA):
    time_constant = property(lambda self: (1.0 + self.beta) / (1.0 - self.beta))


class HalfLifeIsTheTime(EMA):
    half_life = property(lambda self: -1.0 / math.log(self.beta))


class CutoffOfTheContinuous(EMA):
    cutoff = property(lambda self: -math.log(self.beta) / (2.0 * math.pi))


class NoCutoff(EMA):
    cutoff = property(lambda self: math.nan)


def _as(kind: type[FilterResult], run: FilterResult) -> FilterResult:
    return kind(**{field.name: getattr(run, field.name) for field in fields(run)})


class RoundsByTheCompany(EMA):
    def filter(self, x: Any, *args: Any, **settings: Any) -> FilterResult:
        run = super().filter(x, *args, **settings)
        if np.ndim(x) > 1 and np.shape(x)[1] == 1:
            run.mean[...] *= 1.0 + 2.0**-52
        return run


class BoastsOfTrend(EMA):
    @property
    def traits(self) -> Any:
        return super().traits | {Trait.FOLLOWS_TREND}


class HidesItsTrend(Holt):
    @property
    def traits(self) -> Any:
        return super().traits - {Trait.FOLLOWS_TREND}


class TakesStepsTwice(Kalman):
    def _changed(self, steps: Any, weight: Any, r: Any) -> Any:
        return super()._changed(None if steps is None else 2.0 * steps, weight, r)


class TakesOneWeightForAll(Kalman):
    def _changed(self, steps: Any, weight: Any, r: Any) -> Any:
        if weight is not None and np.ndim(weight) and len(weight) > 2:
            weight = np.full(np.shape(weight), np.mean(weight))
        return super()._changed(steps, weight, r)


class SeesWhatWeighsNothing(Kalman):
    def _changing(self, samples: Any, known: Any, *rest: Any) -> Any:
        return samples, super()._changing(samples, known, *rest)[1]


class TakesAnyChange(EMA):
    def filter(self, x: Any, *given: Any, r: Any = None, **named: Any) -> Any:
        return super().filter(x, *given, **named)


FAULTS = {
    "check_protocol": [ListsItsTraits(0.9)],
    "check_immutable": [CanBeSet(0.9), KeepsTheArray(np.array([0.5, 0.9]))],
    "check_equality": [HashesByIdentity(0.9), EqualToAllOfItsKind(0.9)],
    "check_repr": [PrintsHalfOfItself(0.9, initial=2.0)],
    "check_determinism": [CountsItsCalls(0.9)],
    "check_purity": [FillsGapsInTheInput(0.9), UpdatesTheOldState(0.9)],
    "check_no_aliasing": [StateIsTheLastRow(0.9), KeepsItsInput(0.9), TracksInPlace(0.9)],
    "check_update_matches_filter": [ForgetsThatTimePassed(0.9)],
    "check_cut_anywhere": [StartsAgain(0.9)],
    "check_saved_state_goes_on": [SavesSixDigits(0.9), LoadsAnything(0.9), SavesNaN(0.9)],
    "check_out": [IgnoresOut(0.9)],
    "check_update_in_place": [UpdatesElsewhere(0.9)],
    "check_bounded_state": [
        KeepsHistory(0.9),
        UnderstatesItsMemory(50),
        OverstatesItsMemory(0.9),
        ForgetsItsVariance(0.1, 1.0),
        ForgetsItsLogarithm(Kalman(0.1, 1.0)),
    ],
    "check_gaps": [Poisoned(0.9), KnowsBeforehand(0.1, 1.0)],
    "check_missing_spellings": [RefusesNone(0.9), UnmasksSamples(0.9)],
    "check_infinity": [SwallowsInfinity(0.9)],
    "check_types_refused": [ReadsText(0.9)],
    "check_shapes": [DropsOneChannel(0.9)],
    "check_one_channel_is_plain": [GivesScalarsOfNumPy(0.9)],
    "check_inputs_of_any_layout": [KeepsIntegers(0.9)],
    "check_float32": [IgnoresDtype(0.9)],
    "check_pandas": [DropsTheIndex(0.9)],
    "check_channels_are_independent": [CentresAllChannels(0.9), RoundsByTheCompany(0.9)],
    "check_parameters_broadcast": [ParametersInReverse(np.array([0.5, 0.9]))],
    "check_constant": [StartsBelow(0.9), RoundsToFloat32(0.9), NeverArrives(0.9)],
    "check_variance": [
        MakesUpAVariance(0.9),
        NegativeVariance(0.1, 1.0),
        CertainFromTheStart(0.1, 1.0),
        IntervalsWithoutLevel(0.1, 1.0),
        HalfTheCentralShare(0.1, 1.0),
        BoundsBelowZero(Kalman(0.1, 1.0)),
    ],
    "check_innovation": [
        InnovationsTooLate(0.9),
        LikelihoodWithoutModel(0.9),
        OverstatesItsVariance(0.1, 1.0),
    ],
    "check_follows_trend": [BoastsOfTrend(0.9), HidesItsTrend(0.2, 0.05)],
    "check_unchanged": [TakesStepsTwice(0.1, 1.0)],
    "check_changes_by_update": [TakesOneWeightForAll(0.1, 1.0)],
    "check_weight_of_zero": [SeesWhatWeighsNothing(0.1, 1.0)],
    "check_changes_refused": [TakesAnyChange(0.9)],
    "check_gain": [TakesGapsForZero(0.9)],
    "check_replay": [
        ReplaysTheSettledGain(0.9),
        ReplaysZerosInGaps(3),
        AddsInsteadOfMultiplying(EMA(0.9)),
        MakesUpACorrection(EMA(0.9)),
    ],
    "check_noise_gain": [StatesTheSettledNoise(0.9), CountsWhatWasBefore(4)],
    "check_linear": [Clips(0.9), HidesThatItIsLinear(3)],
    "check_shift_equivariant": [BoastsOfShifts(0.9), HidesShifts(0.9)],
    "check_scale_equivariant": [RegularisesByEpsilon(0.9), HidesScale(0.9)],
    "check_positive": [BoastsOfPositive(0.9), HidesThatItIsPositive(EMA(0.9)), SkipsZeros(EMA(0.9))],
    "check_finite_memory": [BoastsOfForgetting(0.9), RunningSum(5), HidesItsForgetting(3)],
    "check_steady_gain": [GainIsBeta(0.5), WindowIsSpan(0.9)],
    "check_impulse_response": [RespondsOneLate(0.9), RespondsTwiceAsFast(0.9)],
    "check_response_at_frequencies": [LeadsInsteadOfLags(0.9)],
    "check_stated_noise_gain": [NoiseIsTheGain(0.9)],
    "check_group_delay": [DelayIsTheWindow(0.9)],
    "check_time_constant": [TimeIsTheSpan(0.9)],
    "check_half_life": [HalfLifeIsTheTime(0.9)],
    "check_cutoff": [CutoffOfTheContinuous(0.5), NoCutoff(0.9)],
}


@pytest.mark.parametrize(
    ("name", "faulty"),
    [pytest.param(name, e, id=type(e).__name__) for name, faulty in FAULTS.items() for e in faulty],
)
def test_fault_is_caught_by_the_check_that_names_it(name: str, faulty: Any) -> None:
    checks = {check.__name__: check for check in yield_checks(faulty)}
    with pytest.raises(AssertionError) as caught:
        checks[name](faulty)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert type(faulty).__name__ in message
    assert "\n" not in message


def test_every_check_can_fail() -> None:
    assert set(FAULTS) == {check.__name__ for check in yield_checks(EMA(0.9))}


def test_whole_contract_stops_at_the_fault() -> None:
    with pytest.raises(AssertionError, match=r"^check_purity: FillsGapsInTheInput\(beta=0.9\): x "):
        check_estimator(FillsGapsInTheInput(0.9))
    assert check_estimator(EMA(0.9)) is None


def test_message_has_the_numbers() -> None:
    (check,) = (c for c in yield_checks(EMA(0.9)) if c.__name__ == "check_stated_noise_gain")
    with pytest.raises(AssertionError, match=r"noise_gain is 0\.0526\d* instead of 0\.099\d* at \(0,\)"):
        check(NoiseIsTheGain(0.9))


def test_exception_of_the_estimator_is_named() -> None:
    class Raises(EMA):
        def filter(self, *given: Any, **named: Any) -> Any:
            raise KeyError("lost\nand never found")

    (check,) = (c for c in yield_checks(EMA(0.9)) if c.__name__ == "check_gain")
    with pytest.raises(
        AssertionError, match=r"^check_gain: .*Raises\(.*: KeyError: 'lost\\nand never found'$"
    ) as e:
        check(Raises(0.9))
    assert isinstance(e.value.__cause__, KeyError)


def test_closed_forms_are_checked_where_there_are_any() -> None:
    @dataclass(frozen=True, eq=False)
    class NoClosedForms(Recursive):
        beta: float

        State = EMAState
        coefficients = ("beta",)
        predict = staticmethod(EMA.predict)
        correct = staticmethod(EMA.correct)
        traits = EMA(0.9, initial=None).traits

        def _prior(self) -> EMAState:
            return EMAState(np.nan)

    names = [
        [check.__name__ for check in yield_checks(e)]
        for e in (MovingAverage(3), EMA(0.9), NoClosedForms(0.9))
    ]
    assert len(set(names[0])) == len(names[0])
    assert names[0] == names[1]
    assert "check_cutoff" in names[0]
    assert "check_cutoff" not in names[2]


def test_checks_need_numpy_alone() -> None:
    code = (
        "import sys, estimators.checks\n"
        "print([m for m in ('numba', 'pandas', 'scipy', 'pytest', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
