"""The main job as one would write it without kalmean: with NumPy and SciPy, and as a plain pandas script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from experiments.metrics import LEVEL, RAMP, SETTLED, STEP
from experiments.streams import Array

NAMES = ("ema", "debiased_ema", "kalman", "moving_average")
METRICS = ("attenuation_db", "lag", "settling", "startup_rmse", "rmse", "coverage")


def numpy_job(setup: Any, repetitions: Iterable[int], linear: bool = False) -> dict[str, Array]:
    """The printed metrics, (metric, repetition) by estimator, all repetitions at once.

    linear: whether the script knows that its filters are, and have no gaps: ramp and step are then filtered
    once, by themselves, where it else takes what a run with them has more than one without.
    """
    from scipy.signal import lfilter

    seeds = list(repetitions)
    drawn = setup.stream.draw(seeds, setup.root_seed, "evaluate")
    x, level = np.ascontiguousarray(drawn.samples.T), np.ascontiguousarray(drawn.level.T)
    steps, time = x.shape[1], np.arange(x.shape[1])
    ema, kalman, window = (setup.estimators[name] for name in ("ema", "kalman", "moving_average"))
    beta = ema.beta
    gains = _kalman_gains(kalman, steps)

    def exponential(z: Array) -> Array:
        filtered: Array = lfilter([1.0 - beta], [1.0, -beta], z, axis=1)
        return filtered

    def debiased(z: Array) -> Array:
        corrected: Array = exponential(z) / (1.0 - beta ** (time + 1.0))
        return corrected

    def level_filter(z: Array) -> Array:
        out = np.empty_like(z)
        mean = out[:, 0] = z[:, 0]
        settled = min(steps, int(np.argmax(gains == gains[-1])) + 1)
        for t in range(1, settled):
            mean = out[:, t] = mean + gains[t] * (z[:, t] - mean)
        if settled < steps:
            b = 1.0 - gains[-1]
            out[:, settled:] = lfilter(
                [1.0 - b], [1.0, -b], z[:, settled:], axis=1, zi=b * mean[:, np.newaxis]
            )[0]
        return out

    def boxcar(z: Array) -> Array:
        total = np.cumsum(z, axis=1)
        total[:, window.window :] -= total[:, : -window.window].copy()
        mean: Array = total / np.minimum(time + 1, window.window)
        return mean

    smoothers = dict(zip(NAMES, (exponential, debiased, level_filter, boxcar), strict=True))
    half = _normal(LEVEL) * np.sqrt(gains * kalman.r)
    return {
        name: np.array(_measured(smooth, x, level, setup, half if name == "kalman" else None, linear))
        for name, smooth in smoothers.items()
    }


def pandas_job(setup: Any, repetitions: Iterable[int]) -> dict[str, Array]:
    """The same, one repetition after the other, by pandas and a Python loop."""
    import pandas as pd

    ema, kalman, window = (setup.estimators[name] for name in ("ema", "kalman", "moving_average"))
    gains = _kalman_gains(kalman, setup.stream.length())
    schedule = gains.tolist()

    def exponential(z: Array) -> Array:
        zero_started = pd.Series(np.concatenate([[0.0], z[0]]))
        return zero_started.ewm(alpha=1.0 - ema.beta, adjust=False).mean().to_numpy()[np.newaxis, 1:]

    def debiased(z: Array) -> Array:
        return pd.Series(z[0]).ewm(alpha=1.0 - ema.beta, adjust=True).mean().to_numpy()[np.newaxis]

    def level_filter(z: Array) -> Array:
        mean, means = 0.0, []
        for gain, sample in zip(schedule, z[0].tolist(), strict=True):
            mean += gain * (sample - mean)
            means.append(mean)
        return np.array(means)[np.newaxis]

    def boxcar(z: Array) -> Array:
        return pd.Series(z[0]).rolling(window.window, min_periods=1).mean().to_numpy()[np.newaxis]

    smoothers = dict(zip(NAMES, (exponential, debiased, level_filter, boxcar), strict=True))
    half = _normal(LEVEL) * np.sqrt(gains * kalman.r)
    columns: dict[str, list[Sequence[Array]]] = {name: [] for name in smoothers}
    for repetition in repetitions:
        drawn = setup.stream.draw([repetition], setup.root_seed, "evaluate")
        x, level = drawn.samples.T.copy(), drawn.level.T.copy()
        for name, smooth in smoothers.items():
            columns[name].append(_measured(smooth, x, level, setup, half if name == "kalman" else None))
    return {name: np.concatenate([np.array(c) for c in rows], axis=1) for name, rows in columns.items()}


def _measured(
    smooth: Any, x: Array, level: Array, setup: Any, half: Array | None, linear: bool = False
) -> Sequence[Array]:
    burn_in, sd, steps = setup.burn_in, setup.noise_variance**0.5, x.shape[1]
    noise, time = x - level, np.arange(x.shape[1])
    mean, left = smooth(x), smooth(noise)
    before, after = (noise[:, burn_in:] ** 2).mean(axis=1), (left[:, burn_in:] ** 2).mean(axis=1)
    ramp = RAMP * sd * time

    def response_to(added: Array) -> Array:
        alone = smooth(added[np.newaxis]) if linear else smooth(noise + added) - left
        return np.broadcast_to(alone, x.shape)

    behind = (ramp - response_to(ramp)) / (RAMP * sd)
    at, height = steps // 2, STEP * sd
    response = response_to(np.where(time >= at, height, 0.0))[:, at:]
    outside = np.abs(response - height) > SETTLED * height
    error = mean - level
    covered = np.full(len(x), np.nan)
    if half is not None:
        covered = (np.abs(error) <= half)[:, burn_in:].mean(axis=1)
    return (
        10.0 * np.log10(before / after),
        behind[:, -(steps // 4) :].mean(axis=1),
        outside.shape[1] - np.argmax(outside[:, ::-1], axis=1) + 1.0,
        np.sqrt((error[:, :burn_in] ** 2).mean(axis=1)),
        np.sqrt((error[:, burn_in:] ** 2).mean(axis=1)),
        covered,
    )


def _kalman_gains(kalman: Any, steps: int) -> Array:
    gains = np.ones(steps)
    s = kalman.q / kalman.r
    for t in range(1, steps):
        gains[t] = (gains[t - 1] + s) / (gains[t - 1] + s + 1.0)
    return gains


def _normal(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + 0.5 * level)
