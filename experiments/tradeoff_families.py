"""Families of settings: what is measured of estimators at equal noise, at equal lag, and each at its best."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from estimators import EMA, Estimator, MovingAverage, Trait, matched
from estimators.response import SettledGain
from experiments.agreement import closed_form
from experiments.cells import Condition, Setting
from experiments.metrics import (
    Measured,
    Trial,
    attenuation,
    implied_attenuation,
    lag,
    mean_age,
    mean_over_time,
    memory,
    prediction,
    settling,
)
from experiments.settings import Tune, Tuner, at_noise_gain
from experiments.streams import GradientRatio, Stream, is_plain_walk

NOISE, LAG, TUNED = "noise", "lag", "tuned"
"""How places are called at which estimators are compared: of equal noise, of equal lag, and each at its best,
where an estimator without a family stands as it was given."""
LONGEST = 4
"""Windows that the stream must hold of the longest one: a longer one is hardly ever full."""


def every_setting(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """All settings of an estimator's family, and the one tuned on other seeds; without a family, as given.

    Metrics are called by what is measured and the place at which it is, as in ``rmse@noise_199``: at the
    noise gain 1 / 199, ``lag_199``: at the lag 99 of that window, ``tuned``: at the least error. The
    ``parameters`` of a row are those that the estimator was named with, at every place: they identify it, and
    ``noise_gain@...`` says which setting was measured. All places count from the same sample on.
    """
    family = family_of(estimator, windows_of(condition))
    trial = replace(condition.trial(estimator, repetitions), burn_in=evaluated_from(condition))
    if not family:
        return _at(TUNED, _measured(trial))
    found: list[Measured] = []
    done: dict[str, list[Measured]] = {}
    for place, setting in family.items():
        key = Setting(setting).key
        own = done.get(key) or list(_measured(replace(trial, estimator=setting)))
        done[key] = own
        found += _at(place, own)
        expected = expected_mse(setting, condition) if place.startswith(NOISE) else None
        if expected is not None:
            found.append(closed_form(f"mse@{place}", f"({trial.unit})^2", expected, len(repetitions)))
    gain, edge = _tuned(condition, estimator)
    found += _at(TUNED, _measured(replace(trial, estimator=at_noise_gain(estimator, gain))))
    return [*found, *_at(TUNED, [Measured("edge", "1", np.full(len(repetitions), float(edge)))])]


def family_of(estimator: Estimator, windows: Iterable[int]) -> dict[str, Estimator]:
    """An estimator's settings by place; empty for a kind without the closed forms that settings rest on.

    Where equal noise and equal lag choose the same setting, it is the same object.
    """
    family: dict[str, Estimator] = {}
    for window in windows:
        try:
            family[f"{NOISE}_{window}"] = noise = at_noise_gain(estimator, 1.0 / window)
        except (TypeError, ValueError):
            return {}
        try:
            late = matched(estimator, EMA.from_span(float(window)), "delay")
        except (TypeError, ValueError):
            continue
        family[f"{LAG}_{window}"] = noise if _alike(noise, late) else late
    return family


def windows_of(condition: Condition) -> list[int]:
    """The windows that fit the stream; ValueError where none does."""
    return fitting(condition.parameters.windows, condition.stream.length())


def fitting(windows: Sequence[int], samples: int) -> list[int]:
    """The windows that fit a stream of so many samples; ValueError where none does."""
    found = [window for window in windows if window <= samples // LONGEST]
    if not found:
        raise ValueError(
            f"experiment.windows={[*windows]} is not valid; a window must be at most a quarter of the "
            f"stream's {samples} samples"
        )
    return found


def objective(condition: Condition) -> Tune:
    """The error that settings are tuned for, and judged by: of prediction where the level is not known."""
    return Tune.rmse if condition.stream.has_truth else Tune.prediction_rmse


def expected_mse(estimator: Estimator, condition: Condition) -> float | None:
    """Squared error after the burn-in, its start included, in closed form; None where there is none.

    Nor is there one without noise, where rounding is all that is left.

    Exact for random walks in white noise and gains k that do not depend on the data: each error is
    e' = (1 - k)(e + w) - k v of the last one, the walk's step w and the noise v. Of n samples in a window:
    r / n + q (n - 1)(2n - 1) / (6n).
    """
    stream = condition.stream
    if not is_plain_walk(stream) or stream.r == 0.0 or Trait.LINEAR not in estimator.traits:
        return None
    if isinstance(estimator, MovingAverage):
        n = np.minimum(np.arange(1.0, stream.steps + 1.0), estimator.window)
        mse = stream.r / n + stream.s * stream.r * (n - 1.0) * (2.0 * n - 1.0) / (6.0 * n)
        return float(mse[condition.burn_in :].mean())
    return (
        _recursive_mse(estimator, stream, condition.burn_in) if isinstance(estimator, SettledGain) else None
    )


@functools.lru_cache(maxsize=256)
def _recursive_mse(estimator: Any, stream: GradientRatio, burn_in: int) -> float:
    start = np.nan_to_num(float(estimator.init(0.0).mean))
    error, q, r = float(np.log(stream.median) - start) ** 2, stream.s * stream.r, stream.r
    total = 0.0
    for t, gain in enumerate(np.asarray(estimator.filter(np.zeros(stream.steps)).gain).tolist()):
        error = (1.0 - gain) ** 2 * (error + q) + gain**2 * r
        total += error if t >= burn_in else 0.0
    return total / (stream.steps - burn_in)


def _measured(trial: Trial) -> Iterator[Measured]:
    """What of a setting the stream allows, and which one it is."""
    linear = Trait.LINEAR in trial.estimator.traits
    n = trial.drawn.samples.shape[1]
    if trial.drawn.level is not None:
        yield from attenuation(trial)
        yield from lag(trial)
        squared = mean_over_time(trial.settled(np.asarray(trial.run.mean) - trial.truth) ** 2)
        yield Measured("rmse", trial.unit, np.sqrt(squared))
        yield Measured("mse", f"({trial.unit})^2", squared)
    if trial.drawn.level is not None or linear:
        yield from settling(trial)
    else:
        yield Measured("settling", "samples", np.full(n, np.nan), "needs a known level")
    yield from implied_attenuation(trial)
    yield from mean_age(trial)
    yield from (one for one in prediction(trial) if one.metric == "prediction_rmse")
    yield from memory(trial)
    gain = getattr(trial.estimator, "noise_gain", np.nan) if linear else np.nan
    yield Measured("noise_gain", "1", np.full(n, float(gain)), "has no closed form")


def _at(place: str, measured: Iterable[Measured]) -> list[Measured]:
    return [replace(one, metric=f"{one.metric}@{place}") for one in measured]


def _alike(one: Any, other: Any) -> bool:
    """Whether two settings differ by rounding only."""
    return type(one) is type(other) and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=0.0)
        for name in ("noise_gain", "group_delay")
    )


def _tuned(condition: Condition, estimator: Estimator) -> tuple[float, bool]:
    """Noise gain of least error on streams that are not evaluated, and whether at the edge of those tried."""
    of, hashable = condition, cast("Any", estimator)
    return _best(hashable, of.stream, of.stream.digest(), objective(of), of.root_seed, of.burn_in)


@functools.lru_cache(maxsize=16)
def _best(
    estimator: Estimator, stream: Stream, digest: str, by: Tune, root_seed: int, burn_in: int
) -> tuple[float, bool]:
    """Tune once for all blocks of cells; a log that was changed has another digest."""
    return Tuner.on(stream, by, root_seed, burn_in).best(estimator)


def evaluated_from(condition: Condition) -> int:
    """Samples that do not count: the burn-in, and of recordings those on which settings were tuned."""
    stream = condition.stream
    return condition.burn_in if stream.has_truth else max(condition.burn_in, stream.length() // 2)
