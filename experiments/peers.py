"""What other libraries do in our place: contestants of the cost experiment, imported when they enter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.streams import Array

Call = Callable[[], Any]
BETA, Q, R, WINDOW = 0.99, 1e-4, 1.0, 100
"""Settings at which everything is timed."""
PRIOR = 1e8
"""Variance of a start that is all but diffuse, for those that have no exact one."""


@dataclass(frozen=True)
class Contestant:
    """One way to do a contest's work.

    make: prepares, and returns what is timed; samples: how many one call takes; needs: packages; tolerance:
    of its answer against that of the first contestant of its group, over the largest magnitude, None where
    it gives none. Larger than 1e-9 where the library has no exact diffuse start, or stops at a tolerance.
    """

    name: str
    make: Callable[[], Call]
    samples: int
    needs: Sequence[str] = ()
    tolerance: float | None = 1e-9
    group: str = ""

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class Contest:
    """The same work by several contestants, the first of whom the others are measured by."""

    name: str
    contestants: Sequence[Contestant]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a plain loop, as someone with numba at hand would."""
    from numba import njit

    loop: Callable[..., Any] = njit(cache=False)(function)
    return loop


def copy(x: Array) -> Call:
    """Copy into an array that is there: nothing that reads and writes each sample is faster."""
    y = np.empty_like(x)

    def call() -> Array:
        np.copyto(y, x)
        return y

    return call


def ours(estimator: Any, x: Array) -> Call:
    """Filter into an array that is there."""
    y = np.empty((len(x), *np.shape(estimator.init(x[0]).mean)))
    y = y if x.flags.c_contiguous else np.empty_like(x)
    return lambda: estimator.filter(x, out=y).mean


def fitted(x: Array) -> Call:
    """q and r by exact maximum likelihood."""
    from estimators import fit

    def call() -> Array:
        found = fit(x)
        return np.array([found.q, found.r])

    return call


def statsmodels_fit(x: Array) -> Call:
    """The same by statsmodels: local level, exactly diffuse."""
    from statsmodels.tsa.statespace.structural import UnobservedComponents

    def call() -> Array:
        model = UnobservedComponents(x, "llevel", use_exact_diffuse=True)
        variances: Array = np.asarray(model.fit(disp=0).params)[::-1]
        return variances

    return call


def lfilter(x: Array) -> Call:
    """SciPy's difference equation, from the first sample."""
    from scipy.signal import lfilter as run

    def call() -> Array:
        filtered: Array = run([1.0 - BETA], [1.0, -BETA], x, axis=0, zi=BETA * x[:1])[0]
        return filtered

    return call


def pandas_ewm(x: Array, adjust: bool) -> Call:
    """Pandas' exponentially weighted mean."""
    import pandas as pd

    data: Any = pd.Series(x) if x.ndim == 1 else pd.DataFrame(x)
    return lambda: data.ewm(alpha=1.0 - BETA, adjust=adjust).mean().to_numpy()


def polars_ewm(x: Array, adjust: bool) -> Call:
    """Polars' exponentially weighted mean."""
    import polars as pl

    data = pl.Series(x)
    return lambda: data.ewm_mean(alpha=1.0 - BETA, adjust=adjust).to_numpy()


def covariance_loop(x: Array) -> Call:
    """The textbook Kalman recursion, every variance computed and kept, compiled."""

    def loop(x: Any, mean: Any, variance: Any) -> None:
        level, error = x[0], R
        mean[0], variance[0] = level, error
        for t in range(1, x.shape[0]):
            predicted = error + Q
            gain = predicted / (predicted + R)
            level += gain * (x[t] - level)
            error = (1.0 - gain) * predicted
            mean[t], variance[t] = level, error

    run, mean, variance = compiled(loop), np.empty_like(x), np.empty_like(x)

    def call() -> Array:
        run(x, mean, variance)
        return mean

    return call


def statsmodels_filter(x: Array) -> Call:
    """Statsmodels' state space filter, means alone."""
    from statsmodels.tsa.statespace import kalman_filter
    from statsmodels.tsa.statespace.mlemodel import MLEModel

    model: Any = MLEModel(x, k_states=1)
    for name, value in (("design", 1.0), ("transition", 1.0), ("selection", 1.0)):
        model.ssm[name, 0, 0] = value
    model.ssm["obs_cov", 0, 0], model.ssm["state_cov", 0, 0] = R, Q
    model.ssm.initialize_diffuse()
    unneeded = ("NO_FORECAST", "NO_PREDICTED", "NO_LIKELIHOOD", "NO_GAIN", "NO_SMOOTHING", "NO_STD_FORECAST")
    model.ssm.set_conserve_memory(sum(getattr(kalman_filter, f"MEMORY_{name}") for name in unneeded))
    return lambda: model.ssm.filter().filtered_state[0]


def filterpy_kalman(x: Array) -> Call:
    """filterpy's KalmanFilter, sample by sample."""
    from filterpy.kalman import KalmanFilter

    def call() -> Array:
        kalman = KalmanFilter(dim_x=1, dim_z=1)
        kalman.F, kalman.H = np.eye(1), np.eye(1)
        kalman.Q, kalman.R = np.array([[Q]]), np.array([[R]])
        kalman.x, kalman.P = np.array([[x[0]]]), np.array([[R]])
        means = np.empty_like(x)
        means[0] = x[0]
        for t in range(1, len(x)):
            kalman.predict()
            kalman.update(x[t])
            means[t] = kalman.x[0, 0]
        return means

    return call


def simdkalman_filter(x: Array) -> Call:
    """simdkalman over channels, (T, C)."""
    import simdkalman

    one = np.eye(1)
    model = simdkalman.KalmanFilter(
        state_transition=one, process_noise=Q * one, observation_model=one, observation_noise=R
    )
    rows = np.ascontiguousarray(x.reshape(len(x), -1).T)

    def call() -> Array:
        start = {"initial_value": np.zeros(1), "initial_covariance": PRIOR * one}
        found = model.compute(
            rows, 0, filtered=True, smoothed=False, covariances=False, observations=False, **start
        )
        means: Array = found.filtered.states.mean[..., 0].T
        return means.reshape(x.shape)

    return call


def pykalman_filter(x: Array) -> Call:
    """Pykalman's filter."""
    from pykalman import KalmanFilter

    kalman = KalmanFilter(
        transition_matrices=[[1.0]],
        observation_matrices=[[1.0]],
        transition_covariance=[[Q]],
        observation_covariance=[[R]],
        initial_state_mean=[0.0],
        initial_state_covariance=[[PRIOR]],
    )
    return lambda: kalman.filter(x)[0][:, 0]


def running_sum(x: Array) -> Call:
    """The naive moving average: add the newest, subtract the oldest; it drifts."""

    def loop(x: Any, mean: Any) -> None:
        total = 0.0
        for t in range(WINDOW):
            total += x[t]
            mean[t] = total / (t + 1)
        for t in range(WINDOW, x.shape[0]):
            total += x[t] - x[t - WINDOW]
            mean[t] = total * (1.0 / WINDOW)

    run, mean = compiled(loop), np.empty_like(x)

    def call() -> Array:
        run(x, mean)
        return mean

    return call


def uniform_filter(x: Array) -> Call:
    """SciPy's boxcar, its first window filled by the running mean that the others start with."""
    from scipy.ndimage import uniform_filter1d

    start = np.cumsum(x[: WINDOW - 1]) / np.arange(1, WINDOW)

    def call() -> Array:
        mean: Array = uniform_filter1d(x, WINDOW, origin=WINDOW // 2 - 1)
        mean[: WINDOW - 1] = start
        return mean

    return call


def bottleneck_mean(x: Array) -> Call:
    """Bottleneck's moving mean along time."""
    import bottleneck

    return lambda: bottleneck.move_mean(x, WINDOW, 1, axis=0)


def pandas_rolling(x: Array) -> Call:
    """Pandas' rolling mean."""
    import pandas as pd

    data = pd.Series(x)
    return lambda: data.rolling(WINDOW, min_periods=1).mean().to_numpy()


def polars_rolling(x: Array) -> Call:
    """Polars' rolling mean."""
    import polars as pl

    data = pl.Series(x)
    return lambda: data.rolling_mean(WINDOW, min_samples=1).to_numpy()


def sweep_lfilter(betas: Array, x: Array, level: Array) -> Call:
    """Each setting filtered by SciPy, then reduced by NumPy."""
    from scipy.signal import lfilter as run

    def call() -> Array:
        errors = []
        for beta in betas:
            error = run([1.0 - beta], [1.0, -beta], x) - level
            errors.append((error.mean(), np.sqrt((error * error).mean())))
        return np.array(errors)[:, 1]

    return call


def sweep_pandas(betas: Array, x: Array, level: Array) -> Call:
    """Each setting filtered by pandas, zero-started, then reduced by NumPy."""
    import pandas as pd

    data = pd.Series(np.concatenate([[0.0], x]))

    def call() -> Array:
        errors = []
        for beta in betas:
            error = data.ewm(alpha=1.0 - beta, adjust=False).mean().to_numpy()[1:] - level
            errors.append((error.mean(), np.sqrt((error * error).mean())))
        return np.array(errors)[:, 1]

    return call


def sweep_numpy(betas: Array, x: Array, level: Array) -> Call:
    """All settings side by side in NumPy, time in a Python loop."""

    def call() -> Array:
        mean, bias, square = np.zeros((3, len(betas)))
        for sample, truth in zip(x, level, strict=True):
            mean += (1.0 - betas) * (sample - mean)
            error = mean - truth
            bias += error
            square += error * error
        return np.sqrt(square / len(x))

    return call


def each(function: Callable[[float], Any], samples: Sequence[float]) -> Call:
    """Call with one float after the other, and give what the last call gave."""

    def call() -> Any:
        for sample in samples:
            last = function(sample)
        return last

    return call


def stepped(estimator: Any, samples: Sequence[float]) -> Call:
    """The pure update, from state to state."""

    def call() -> Any:
        state, update = estimator.init(0.0), estimator.update
        for sample in samples:
            state = update(state, sample)
        return state.mean

    return call


def river_mean() -> Callable[[float], Any]:
    """River's exponentially weighted mean, read after each update."""
    from river.stats import EWMean

    mean = EWMean(1.0 - BETA)
    update, get = mean.update, mean.get

    def step(sample: float) -> Any:
        update(sample)
        return get()

    return step


def filterpy_step() -> Callable[[float], Any]:
    """One predict and one update of filterpy."""
    from filterpy.kalman import KalmanFilter

    kalman = KalmanFilter(dim_x=1, dim_z=1)
    kalman.F, kalman.H, kalman.Q, kalman.R = np.eye(1), np.eye(1), np.array([[Q]]), np.array([[R]])
    kalman.P = np.array([[PRIOR]])

    def step(sample: float) -> Any:
        kalman.predict()
        kalman.update(sample)
        return kalman.x[0, 0]

    return step


def torch_lerp(x: Array) -> Call:
    """Torch moving one tensor towards another in place, on one thread."""
    import torch

    torch.set_num_threads(1)
    mean, samples = torch.zeros(len(x), dtype=torch.float64), torch.from_numpy(x)
    return lambda: mean.lerp_(samples, 1.0 - BETA).numpy()
