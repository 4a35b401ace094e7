"""Figures of the experiment disturbance: gain against frequency, and the betas that reach a level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from estimators import EMA, Estimator, LinearEstimator, Trait
from experiments.disturbance_betas import Reached
from experiments.figures import line, styled

PANELS = 3
"""Amplitudes or streams that are drawn at most."""


class Shown(NamedTuple):
    """What is drawn of a panel: points are frequency, gain in dB and half-width, by estimator."""

    amplitude: float
    estimators: Mapping[str, Estimator]
    points: Mapping[str, Sequence[tuple[float, float, float]]]


def bode(panels: Sequence[Shown]) -> Any:
    """Gain against frequency: closed forms as lines with measured points, then what depends on the data."""
    drawn = panels[:PANELS]
    width = 1 + len(drawn)
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, width, figsize=(3.4 * width + 0.4, 3.9), sharey=True)
        _draw_linear(axes[0], panels[0])
        axes[0].fill_between([], [], [], color="#555555", alpha=0.2, label="lobes finer than the line")
        axes[0].set_title("linear: closed form (line), measured (points)", fontsize=8)
        for axis, panel in zip(axes[1:], drawn, strict=True):
            _draw_dependent(axis, panel)
            axis.set_title(f"data-dependent, by effect: {panel.amplitude:g} noise sd", fontsize=8)
        for axis in axes:
            axis.set(xscale="log", xlabel="frequency (cycles per sample)", ylim=(-62, 6))
            if axis.get_legend_handles_labels()[1]:
                axis.legend(fontsize=7, loc="lower left")
        axes[0].set_ylabel("gain (dB)")
        pyplot.close(figure)
    return figure


def _draw_linear(axis: Any, panel: Shown) -> None:
    # Lobes finer than a bin cannot be drawn as a line: each bin shows its highest and lowest magnitude.
    f = np.geomspace(5e-4, 0.5, 300 * 64).reshape(300, 64)
    for index, (name, estimator) in enumerate(panel.estimators.items()):
        if Trait.LINEAR not in estimator.traits or not isinstance(estimator, LinearEstimator):
            continue
        style = line(index)
        closed = 20.0 * np.log10(np.maximum(np.abs(estimator.frequency_response(f)), 1e-6))
        axis.plot(f[:, 32], closed.max(axis=1), label=name, **style)
        shade = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        axis.fill_between(f[:, 32], closed.min(axis=1), closed.max(axis=1), **shade)
        for at, gain, _ in panel.points[name]:
            axis.plot(at, gain, "o", markersize=3.0, color=style["color"])


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
            gain = 1.0 - np.asarray(EMA.from_attenuation(level, f).beta)
            at = [one.f for one in own]
            points = {"marker": "o", "linestyle": "none", "markersize": 3.5, "color": style["color"]}
            axes[0].loglog(f, gain, label=f"{level:g} dB", **style)
            axes[0].plot(at, [1.0 - one.beta for one in own], **points)
            axes[1].loglog(f, (1.0 - gain) / gain, label=f"{level:g} dB", **style)
            axes[1].plot(at, [one.lag for one in own], **points)
        axes[0].set(ylabel="largest gain 1 - β that attains it")
        axes[1].set(ylabel="its lag (samples)")
        for axis in axes:
            axis.set_xlabel("frequency of the disturbance (cycles per sample)")
            axis.legend()
        pyplot.close(figure)
    return figure
