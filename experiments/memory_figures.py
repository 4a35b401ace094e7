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


def by_bytes(found: Mapping[float, Sequence[Any]]) -> Any:
    """RMSE against bytes of state, a panel for each drift: tuned there, filled; tuned elsewhere, open."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            1, len(found), figsize=(2.7 * len(found) + 0.6, 3.9), squeeze=False, sharex=True, sharey=True
        )
        names = list(dict.fromkeys(one.name.partition(" of ")[0] for own in found.values() for one in own))
        for axis, (s, own) in zip(axes[0], found.items(), strict=True):
            for index, name in enumerate(names):
                style = {"color": line(index)["color"], "linestyle": "none", "markersize": 5.0}
                for here in (True, False):
                    some = [
                        one
                        for one in own
                        if one.name.partition(" of ")[0] == name and (one.tuned_at in (None, s)) is here
                    ]
                    if not some:
                        continue
                    bars = [mean_interval(one.rmse)[:3] for one in some]
                    axis.errorbar(
                        [one.estimator.state_bytes for one in some],
                        [mean for mean, _, _ in bars],
                        np.nan_to_num([high - mean for mean, _, high in bars]),
                        marker=MARKERS[index % len(MARKERS)],
                        markerfacecolor=style["color"] if here else "none",
                        label=name if here else None,
                        capsize=1.5,
                        **style,
                    )
            axis.set(xscale="log", yscale="log", xlabel="state (bytes per channel)")
            axis.set_title(f"q/r = {s:.3g}", fontsize=9)
        axes[0][0].set_ylabel("RMSE (log ratio)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        axes[0][0].plot([], [], "o", color="#777777", markerfacecolor="none")
        handles.append(axes[0][0].lines[-1])
        labels.append("tuned on the first panel's streams")
        figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))
        pyplot.close(figure)
    return figure


def by_storage(grid: Grid, found: Errors) -> Any:
    """RMSE against 1 - beta by storage, a panel for each noise and walk."""
    gains = 1.0 - np.array(grid.betas)
    with styled() as pyplot:
        width = len(grid.noise) * len(grid.walks)
        figure, axes = pyplot.subplots(1, width, figsize=(2.6 * width + 0.6, 3.7), squeeze=False)
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
