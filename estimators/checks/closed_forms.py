"""Checks of a linear estimator's closed forms, among themselves and against what a settled run shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from estimators.checks._tools import (
    PATIENCE,
    channels_of,
    contract,
    expect,
    expect_close,
    settling_of,
    spread,
    stream,
    window_of,
)
from estimators.protocol import Trait

if TYPE_CHECKING:
    from numpy.typing import NDArray

FREQUENCIES = np.array([0.0, 1e-4, 0.01, 1.0 / 12.0, 0.25, 0.3819660113, 0.5, -0.1, 1.1])
LONGEST = 100_000
"""Steps of a closed form that are evaluated at most."""


@contract
def check_steady_gain(estimator: Any) -> None:
    """steady_gain is h[0] and where runs settle, effective_window its inverse, the step the sum of h."""
    own = channels_of(estimator)
    gain, window = spread(estimator.steady_gain, own), window_of(estimator)
    expect(((gain >= 0.0) & (gain <= 1.0)).all(), f"steady_gain is {gain!r}; it must lie in [0, 1]")
    h, step = (spread(form(64), own, 1) for form in (estimator.impulse_response, estimator.step_response))
    expect_close(h[0], gain, 1e-12 * gain, "impulse_response[0] against steady_gain")
    with np.errstate(divide="ignore", over="ignore"):
        expect_close(
            window, 1.0 / gain, 1e-12 * np.where(gain > 0.0, window, 0.0), "effective_window, 1/steady_gain"
        )
    expect_close(step, np.cumsum(h, axis=0), 1e-12, "step_response against the sum of impulse_response")
    measured = _measured(estimator)
    if measured is not None:
        settled, answer = measured
        expect_close(answer[0], gain[settled], 1e-9 * gain[settled], "settled gain of a run")
    for name in ("impulse_response", "step_response"):
        shape = getattr(estimator, name)(0).shape[:1]
        expect(shape == (0,), f"{name}(0) has {shape[0]} rows")


@contract
def check_impulse_response(estimator: Any) -> None:
    """impulse_response and step_response are what a settled run answers to an impulse and a step."""
    measured = _measured(estimator)
    if measured is None:
        return
    settled, h = measured
    n = len(h)
    stated = _columns(estimator.impulse_response(n), estimator, settled, 1)
    expect_close(
        h, stated, 1e-10 * np.abs(stated).max(axis=0), "measured impulse response against impulse_response"
    )
    step = _columns(estimator.step_response(n), estimator, settled, 1)
    expect_close(np.cumsum(h, axis=0), step, 1e-9, "measured step response against step_response")


@contract
def check_response_at_frequencies(estimator: Any) -> None:
    """frequency_response is the Fourier transform of the settled impulse response; at zero frequency 1."""
    own = channels_of(estimator)
    stated = spread(estimator.frequency_response(FREQUENCIES), own, 1)
    expect_close(stated[0].real, np.ones(own), 1e-12, "frequency_response(0)")
    single = spread(estimator.frequency_response(0.25), own)
    expect_close(
        np.abs(single - stated[4]), np.zeros(own), 1e-12, "frequency_response of one frequency, off by"
    )
    measured = _measured(estimator)
    if measured is None:
        return
    settled, h = measured
    phase = np.exp(-2j * np.pi * np.outer(FREQUENCIES, np.arange(len(h))))
    off = np.abs(phase @ h - stated.reshape(len(FREQUENCIES), -1)[:, settled.ravel()])
    expect_close(off, np.zeros(off.shape), 1e-9, "frequency_response against the measured one, off by")


@contract
def check_stated_noise_gain(estimator: Any) -> None:
    """noise_gain is the sum of h squared, and what a settled run leaves of white noise."""
    own = channels_of(estimator)
    stated = spread(estimator.noise_gain, own)
    expect((stated >= 0.0).all(), f"noise_gain is {stated!r}; it must be >= 0")
    measured = _measured(estimator)
    if measured is not None:
        settled, h = measured
        expect_close(
            np.sum(h**2, axis=0), stated[settled], 1e-9 * stated[settled], "sum of h^2 against noise_gain"
        )


@contract
def check_group_delay(estimator: Any) -> None:
    """group_delay is the mean age of the weights."""
    measured = _measured(estimator)
    stated = spread(estimator.group_delay, channels_of(estimator))
    expect(not np.isnan(stated).any(), "group_delay is NaN")
    if measured is not None:
        settled, h = measured
        age = np.arange(len(h)) @ h / h.sum(axis=0)
        expect_close(
            age,
            stated[settled],
            1e-9 * (1.0 + stated[settled]),
            "mean age of the weights against group_delay",
        )


@contract
def check_time_constant(estimator: Any) -> None:
    """The step response crosses 1 - 1/e at time_constant."""
    _expect_crossing(estimator, "time_constant", -np.expm1(-1.0))


@contract
def check_half_life(estimator: Any) -> None:
    """The step response crosses 1/2 at half_life."""
    _expect_crossing(estimator, "half_life", 0.5)


@contract
def check_cutoff(estimator: Any) -> None:
    """cutoff is the first frequency of half power; where it is NaN the power never falls that low."""
    own = channels_of(estimator)
    gain, cutoff = spread(estimator.steady_gain, own), spread(estimator.cutoff, own)
    for place in np.ndindex(own):
        stated = float(cutoff[place])
        if gain[place] == 0.0:  # in this limit nothing passes, at any frequency but zero
            expect(stated == 0.0, f"cutoff is {stated!r} where the gain vanishes; it must be 0")
            continue
        expect(
            np.isnan(stated) or 0.0 < stated <= 0.5,
            f"cutoff is {stated!r}; it must lie in (0, 0.5] or be NaN",
        )
        top = 0.5 if np.isnan(stated) else stated
        below = top * np.linspace(0.0, 1.0, 101)
        power = np.abs(spread(estimator.frequency_response(below), own, 1)[(slice(None), *place)]) ** 2
        expect(
            (power >= 0.5 - 1e-9).all(), f"the power falls to {power.min():.6g} below the cutoff {stated!r}"
        )
        half = np.isnan(stated) or abs(power[-1] - 0.5) <= 1e-9
        expect(half, f"the power at the cutoff {stated!r} is {power[-1]:.12g}; it must be 1/2")


def _expect_crossing(estimator: Any, name: str, level: float) -> None:
    own = channels_of(estimator)
    times, gain = spread(getattr(estimator, name), own), spread(estimator.steady_gain, own)
    expect((times >= 0.0).all(), f"{name} is {times!r}; it must be >= 0")
    never = np.isinf(times) & (gain > 1e-300)
    expect(not never.any(), f"{name} is infinite although the gain is {gain!r}")
    reachable = times < LONGEST
    if not reachable.any():
        return
    step = spread(estimator.step_response(int(times[reachable].max()) + 1), own, 1)
    for place in zip(*np.nonzero(reachable), strict=True) if own else [()]:
        time = float(times[place])
        after = int(time)
        # After k samples the response is step_response[k - 1]; before any, 0.
        low = 0.0 if after == 0 else float(step[(after - 1, *place)])
        high = float(step[(after, *place)])
        expect(
            low - 1e-9 <= level <= high + 1e-9,
            f"the step response is {low:.6g} after {after} samples and {high:.6g} after {after + 1}: "
            f"it does not cross {level:.6g} at {name} {time!r}",
        )


def _measured(estimator: Any) -> tuple[NDArray[np.bool_], NDArray[np.float64]] | None:
    """Which channels settle soon enough to be measured, and their settled h, shape (n, settled channels).

    The run settles for 40 effective windows, after which what is left of the start is below e^-40.
    """
    window = window_of(estimator)
    if Trait.FOLLOWS_TREND in estimator.traits:  # its slope settles later than the level's gain says
        window = np.maximum(window, settling_of(estimator) / 30.0)
    settled = window <= PATIENCE
    if not settled.any():
        return None
    longest = float(window[settled].max())
    warm_up, n = int(40.0 * longest) + 60, int(32.0 * longest) + 8
    x = stream(estimator, warm_up + n, gaps=False)
    impulse = np.zeros(x.shape)
    impulse[warm_up] = 1.0
    h = np.asarray(estimator.filter(x).replay(impulse))[warm_up:]
    return settled, h.reshape(n, -1)[:, settled.ravel()]


def _columns(form: Any, estimator: Any, settled: NDArray[np.bool_], lead: int) -> NDArray[Any]:
    columns: NDArray[Any] = spread(form, channels_of(estimator), lead).reshape(len(form), -1)[
        :, settled.ravel()
    ]
    return columns
