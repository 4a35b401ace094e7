"""Figures of the optimiser experiment: errors of moments by gain, and differences of test losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.figures import COLOURS, line, styled
from experiments.moments import Quality
from experiments.training import BASELINE, FILTERS, FIXED, Filtered, Results

TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
MARKERS = "osD^vPXd"


def moment_figure(moments: Sequence[tuple[Filtered, dict[str, Quality]]]) -> Any:
    """Error against the gain of fixed betas, and what the filters that find their own gain come to."""
    with styled() as pyplot:
        width = min(3, len(moments))
        height = -(-len(moments) // width)
        figure, axes = pyplot.subplots(
            height, width, figsize=(0.6 + 2.9 * width, 0.7 + 2.3 * height), squeeze=False
        )
        handles: dict[str, Any] = {}
        for axis, (task, found) in zip(axes.flat, moments, strict=False):
            gains = [1.0 - beta for beta in FIXED]
            fixed = [found[f"{beta:g}"].nmse.mean() for beta in FIXED]
            curve = axis.loglog(gains, fixed, marker="o", markersize=3.5, **line(0))
            handles["fixed beta"] = curve[0]
            for index, name in enumerate((name for name in found if name in FILTERS), 1):
                own = found[name]
                handles[name] = axis.axhline(own.nmse.mean(), **line(index))
                if own.gain is not None:
                    style = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index], "zorder": 20}
                    axis.plot(own.gain.mean(), own.nmse.mean(), markersize=6.0, **style)
            axis.set_title(task.regime, fontsize=8)
            axis.set_xticks(TICKS, [f"{gain:g}" for gain in TICKS], fontsize=7)
            axis.set_xticks([], minor=True)
            axis.set_xlabel("gain, 1 - beta")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.tick_params(which="both", labelsize=7)
        for axis in list(axes.flat)[len(moments) :]:
            axis.set_axis_off()
        for axis in axes[:, 0]:
            axis.set_ylabel("squared error over\nsquared gradient")
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        pyplot.close(figure)
    return figure


def training_figure(results: Results) -> Any:
    """Test loss less Adam's with intervals, by preset, a panel for each regime and schedule."""
    streams = results.streams()
    regimes = list(dict.fromkeys(own[0].task.regime for own in streams.values()))
    schedules = list(dict.fromkeys(own[0].task.schedule for own in streams.values()))
    presets = [name for name in dict.fromkeys(one.task.preset for one in results.every) if name != BASELINE]
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            len(schedules),
            len(regimes),
            figsize=(1.2 + 1.75 * len(regimes), len(schedules) * (0.9 + 0.17 * len(presets))),
            sharey=True,
            squeeze=False,
        )
        for row, schedule in enumerate(schedules):
            for column, regime in enumerate(regimes):
                axis, own = axes[row, column], streams.get(f"{regime}, {schedule}")
                if own is None:
                    axis.set_axis_off()
                    continue
                for one in Results.differences(own, own[0]):
                    mean, low, _ = (1e3 * value for value in one.interval)
                    colour = COLOURS[0] if not one.told_apart else COLOURS[2] if mean < 0.0 else COLOURS[6]
                    style = {"fmt": "o", "markersize": 3.0, "color": colour, "capsize": 1.5, "linewidth": 1.0}
                    half = mean - low if np.isfinite(low) else 0.0
                    axis.errorbar(mean, presets.index(one.result.task.preset), xerr=half, **style)
                axis.axvline(0.0, color="#666666", linewidth=0.8)
                axis.set_xscale("symlog", linthresh=10.0)
                axis.set_xticks([-100, -10, 0, 10, 100], ["-100", "-10", "0", "10", "100"])
                axis.set_xlim(-250.0, 250.0)
                axis.set_title(f"{regime}\n{schedule}", fontsize=8)
                axis.set_yticks(range(len(presets)), presets, fontsize=7)
                axis.set_ylim(len(presets) - 0.5, -0.5)
                axis.set_xlabel("0.001 nats", fontsize=8)
        figure.suptitle(
            "test NLL less Adam's (blue: better, red: worse, where the 95 % interval excludes 0)", fontsize=9
        )
        pyplot.close(figure)
    return figure
