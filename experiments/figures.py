"""How figures look: labelled with units, readable in greyscale and by the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd

from experiments.tables import shortened

# Okabe and Ito (2008): distinct for the colour-blind; neighbours differ in lightness, for greyscale.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (3, 1)),
    (0, (9, 2, 1.5, 2, 1.5, 2)),
    (0, (1, 3)),
)


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th estimator, the same in every figure of a run."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.5,
        "zorder": 3 + index,
    }


@contextmanager
def styled() -> Iterator[Any]:
    """Give pyplot without a display, in the style of all figures."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    settings: Any = {
        "figure.dpi": 200,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.handlelength": 3.5,
        "svg.hashsalt": "kalmean",
    }
    with pyplot.rc_context(settings):
        yield pyplot


def comparison(summary: pd.DataFrame, metric: str, most: int) -> dict[str, Any]:
    """Mean and interval of a metric for each setting, on at most so many streams; nothing if none has it."""
    rows = summary.assign(parameters=shortened(summary))
    rows = rows[rows["metric"] == metric]
    streams = list(dict.fromkeys(rows["stream"]))[:most]
    if not streams:
        return {}
    largest = rows["stream"].value_counts().max()
    with styled() as pyplot:
        width = min(3, len(streams))
        height = -(-len(streams) // width)
        figure, axes = pyplot.subplots(
            height, width, figsize=(1.5 + 3.2 * width, height * (0.9 + 0.2 * largest)), squeeze=False
        )
        for axis, stream in zip(axes.flat, streams, strict=False):
            own = rows[rows["stream"] == stream]
            names = list(dict.fromkeys(own["estimator"]))
            labels = own["estimator"].astype(str) + " " + own["parameters"]
            for place, (name, mean, high) in enumerate(own[["estimator", "mean", "high"]].to_numpy()):
                half = high - mean if np.isfinite(high) else 0.0
                colour = line(names.index(name))["color"]
                axis.errorbar(mean, place, xerr=half, fmt="o", markersize=3.5, color=colour, capsize=2.0)
            axis.set_yticks(range(len(labels)), labels.tolist(), fontsize=7)
            title = metric.replace("_", " ").replace("rmse", "RMSE")
            axis.set(ylim=(len(labels) - 0.5, -0.5), xlabel=f"{title} ({own['unit'].iloc[0]})")
            axis.set_title(stream, fontsize=8)
        for axis in list(axes.flat)[len(streams) :]:
            axis.set_axis_off()
        pyplot.close(figure)
    return {metric: figure}
