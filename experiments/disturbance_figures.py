"""Figures of the experiment disturbance: gain against frequency, and the betas that reach a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from estimators import EMA, Estimator, LinearEstimator, MovingAverage, Trait
from experiments.disturbance_betas import Reached
from experiments.figures import line, styled

PANELS = 3
"""Amplitudes or streams that are drawn at most."""
FINE = 20_000
"""Frequencies across a panel."""
NARROWEST = 0.04
"""Decades between two zeros below which a line would fill the lobe."""
FLOOR = -60.0
"""Gain in dB at which what is removed is drawn."""


class Shown(NamedTuple):
    """What is drawn of a panel: points are frequency, gain in dB and half-width, by estimator.

    removed: the frequencies of which nothing is left.
    """

    amplitude: float
    estimators: Mapping[str, Estimator]
    points: Mapping[str, Sequence[tuple[float, float, float]]]
    removed: Mapping[str, Sequence[float]]


def beside_zero(f: float, window: int) -> bool:
    """Whether a frequency lies nearer to a zero of a window of so many samples than to midway between two."""
    turns = f * window
    return turns > 0.75 and abs(turns - round(turns)) < 0.25


def bode(panels: Sequence[Shown]) -> Any:
    """Gain against frequency: closed forms as lines with measured points, then what depends on the data."""
    drawn = panels[:PANELS]
    width = 1 + len(drawn)
    asked = [f for panel in panels for own in panel.points.values() for f, _, _ in own]
    lowest = 0.5 * min([*asked, 1e-3])
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, width, figsize=(3.4 * width + 0.4, 3.9), sharey=True)
        _draw_linear(axes[0], panels[0], lowest)
        axes[0].set_title("linear: closed form (line), measured (points)", fontsize=8)
        for axis, panel in zip(axes[1:], drawn, strict=True):
            _draw_reference(axis, panel, lowest)
            _draw_dependent(axis, panel)
            axis.set_title(f"data-dependent, by effect: {panel.amplitude:g} noise sd", fontsize=8)
        for axis in axes:
            axis.set(xscale="log", xlabel="frequency (cycles per sample)", ylim=(FLOOR - 2.0, 6))
            if axis.get_legend_handles_labels()[1]:
                axis.legend(fontsize=7, loc="upper right" if axis is axes[0] else "lower left")
        axes[0].set_ylabel("gain (dB)")
        pyplot.close(figure)
    return figure


def _closed(estimator: LinearEstimator, f: Any) -> Any:
    return 20.0 * np.log10(np.maximum(np.abs(estimator.frequency_response(f)), 1e-6))


def _draw_linear(axis: Any, panel: Shown, lowest: float) -> None:
    lobes = beside = gone = False
    for index, (name, estimator) in enumerate(panel.estimators.items()):
        if Trait.LINEAR not in estimator.traits or not isinstance(estimator, LinearEstimator):
            continue
        style = line(index)
        removed, points = panel.removed.get(name, ()), panel.points[name]
        # The line goes through what was measured, be it in a notch.
        f = np.union1d(np.geomspace(lowest, 0.5, FINE), [*removed, *(at for at, _, _ in points)])
        closed = _closed(estimator, f)
        # Lobes that the line itself would fill are shaded below their peaks.
        dips = f[1:-1][(closed[1:-1] < closed[:-2]) & (closed[1:-1] <= closed[2:])]
        close = np.flatnonzero(np.diff(np.log10(dips)) < NARROWEST)
        end = dips[close[0]] if close.size else 0.5
        axis.plot(f[f <= end], closed[f <= end], label=name, **style)
        if close.size:
            peak = np.r_[False, (closed[1:-1] > closed[:-2]) & (closed[1:-1] >= closed[2:]), True]
            finer = np.r_[end, f[f > end]]
            high = np.interp(np.log(finer), np.log(f[peak]), closed[peak])
            shade = {"color": style["color"], "alpha": 0.25, "linewidth": 0}
            axis.fill_between(finer, FLOOR - 2.0, high, **shade)
            lobes = True
        window = estimator.window if isinstance(estimator, MovingAverage) else 0
        for at, gain, _ in points:
            near = beside_zero(at, window)
            face = "white" if near else style["color"]
            axis.plot(
                at, gain, "o", markersize=3.5, color=style["color"], markerfacecolor=face, zorder=20 + index
            )
            beside = beside or near
        axis.plot(removed, [FLOOR] * len(removed), "v", markersize=4.0, color=style["color"], zorder=20)
        gone = gone or bool(removed)
    grey = "#555555"
    if lobes:
        axis.fill_between([], [], [], color=grey, alpha=0.25, label="lobes finer than a line")
    if beside:
        axis.plot([], [], "o", markersize=3.5, color=grey, markerfacecolor="white", label="beside a zero")
    if gone:
        axis.plot([], [], "v", markersize=4.0, color=grey, label="at a zero: nothing is left")


def _draw_reference(axis: Any, panel: Shown, lowest: float) -> None:
    """The first linear filter, in grey, that the others are read against."""
    for name, estimator in panel.estimators.items():
        if Trait.LINEAR in estimator.traits and isinstance(estimator, LinearEstimator):
            f = np.geomspace(lowest, 0.5, 500)
            style = {"color": "#888888", "linewidth": 1.2, "zorder": 2}
            axis.plot(f, _closed(estimator, f), label=f"{name} (closed form)", **style)
            return


def _draw_dependent(axis: Any, panel: Shown) -> None:
    for index, (name, estimator) in enumerate(panel.estimators.items()):
        if Trait.LINEAR not in estimator.traits and panel.points[name]:
            at, gain, half = np.array(panel.points[name]).T
            points = {"marker": "o", "markersize": 3.0, "capsize": 1.5}
            axis.errorbar(at, gain, np.nan_to_num(half), label=name, **points, **line(index))


def needed(betas: Sequence[Reached]) -> Any:
    """1 - beta and the lag that reach each level, against the frequency of the disturbance."""
    levels = list(dict.fromkeys(one.level for one in betas))
    f = np.geomspace(min(one.f for one in betas), 0.5, 200)
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(8.0, 3.4))
        for index, level in enumerate(levels):
            style = line(index)
            own = [one for one in betas if one.level == level and np.isfinite(one.measured)]
            if not own:
                continue
            ema = EMA.from_attenuation(level, f)
            gain = 1.0 - np.asarray(ema.beta)
            at = [one.f for one in own]
            points = {"marker": "o", "linestyle": "none", "markersize": 3.5, "color": style["color"]}
            axes[0].loglog(f, gain, label=f"{level:g} dB", **style)
            axes[0].plot(at, [1.0 - one.beta for one in own], **points)
            axes[1].loglog(f, np.asarray(ema.group_delay), label=f"{level:g} dB", **style)
            axes[1].plot(at, [one.lag for one in own], **points)
        axes[0].set(ylabel="largest gain 1 - β that attains it")
        axes[1].set(ylabel="its lag (samples)")
        for axis in axes:
            axis.set_xlabel("frequency of the disturbance (cycles per sample)")
            axis.legend()
        pyplot.close(figure)
    return figure
