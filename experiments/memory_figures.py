"""Figures of the experiment memory: error against bytes of state, and against beta by how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.figures import line, styled
from experiments.memory_stalls import Errors, Grid
from experiments.memory_storage import STORAGES
from experiments.summaries import mean_interval

MARKERS = "osD^vP*Xhd<>"
LEGEND = 4
"""Rows of the legend below the panels."""


def by_bytes(found: Mapping[float, Sequence[Any]]) -> Any:
    """RMSE against bytes of state, a panel for each drift, marked by how the setting was chosen."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            1, len(found), figsize=(2.7 * len(found) + 0.6, 4.1), squeeze=False, sharex=True, sharey=True
        )
        names = list(dict.fromkeys(one.name.partition(" of ")[0] for own in found.values() for one in own))
        for axis, (s, own) in zip(axes[0], found.items(), strict=True):
            for one in own:
                index = names.index(one.name.partition(" of ")[0])
                mean, _, high, _ = mean_interval(one.rmse)
                marks = _marks(_chosen(one, s), MARKERS[index % len(MARKERS)], line(index)["color"])
                bar = [[np.nan_to_num(high - mean)]]
                axis.errorbar([one.estimator.state_bytes], [mean], bar, capsize=1.5, **marks)
            axis.set(xscale="log", yscale="log", xlabel="state (bytes per channel)")
            axis.set_title(f"q/r = {s:.3g}", fontsize=9)
        axes[0][0].set_ylabel("RMSE (log ratio)")
        for index, name in enumerate(names):
            marks = _marks(HERE, MARKERS[index % len(MARKERS)], line(index)["color"])
            axes[0][0].plot([], [], label=name, **marks)
        for _ in range(-len(names) % LEGEND):  # so that how settings were chosen has a column of its own
            axes[0][0].plot([], [], " ", label=" ")
        there = {_chosen(one, s) for s, own in found.items() for one in own}
        for how in (HERE, ELSEWHERE, ITSELF, FIXED):
            if how in there:
                axes[0][0].plot([], [], label=how, **_marks(how, "o", "#555555"))
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=-(-len(labels) // LEGEND))
        pyplot.close(figure)
    return figure


HERE, ELSEWHERE = "tuned on the panel's streams", "tuned on the first panel's streams"
ITSELF, FIXED = "nothing to tune: finds q/r itself", "not tuned: a window as given"


def _chosen(one: Any, s: float) -> str:
    """How the setting of a `memory.Sized` was chosen."""
    if one.is_fixed_window:
        return FIXED
    return ITSELF if one.tuned_at is None else HERE if one.tuned_at == s else ELSEWHERE


def _marks(how: str, marker: str, color: str) -> dict[str, Any]:
    marks = {"marker": marker, "color": color, "linestyle": "none", "markersize": 5.5}
    if how == FIXED:
        return {**marks, "marker": "x"}
    if how == ITSELF:
        return {**marks, "fillstyle": "left", "markerfacecoloralt": "white", "markeredgewidth": 0.8}
    return {**marks, "markerfacecolor": color if how == HERE else "none"}


def by_storage(grid: Grid, found: Errors) -> Any:
    """RMSE against 1 - beta by storage, a panel for each noise and walk."""
    gains = 1.0 - np.array(grid.betas)
    with styled() as pyplot:
        width = len(grid.noise) * len(grid.walks)
        figure, axes = pyplot.subplots(1, width, figsize=(2.6 * width + 0.6, 3.7), squeeze=False, sharey=True)
        panels = [(d, w) for d in range(len(grid.noise)) for w in range(len(grid.walks))]
        for axis, (d, w) in zip(axes[0], panels, strict=True):
            for index, storage in enumerate(STORAGES):
                bars = [mean_interval(found.rmse[index, b, w, d])[:3] for b in range(len(grid.betas))]
                means, highs = (np.array([bar[end] for bar in bars]) for end in (0, 2))
                points = {"marker": MARKERS[index], "markersize": 4.0 - 0.3 * index, "capsize": 1.5}
                axis.errorbar(gains, means, highs - means, label=storage.name, **points, **line(index))
            axis.set(xscale="log", yscale="log", xlabel="1 - β")
            axis.invert_xaxis()
            axis.set_title(f"noise sd {grid.noise[d]:g}, q/r = {grid.walks[w]:g}", fontsize=9)
        axes[0][0].set_ylabel("RMSE (noise sd)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        pyplot.close(figure)
    return figure
