"""What a wrong setting costs: error against memory, on streams that drift at different rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from estimators import LinearEstimator
from experiments.cells import every_metric
from experiments.figures import line, styled
from experiments.plan import Panel
from experiments.runs import Report
from experiments.streams import GradientRatio
from experiments.summaries import Column
from experiments.tables import aligned

COLUMNS = (Column("rmse", "RMSE", better="less"), Column("lag", "lag", exact=True), Column("bias", "bias"))
WITHIN = 1.05
"""Of the least error: settings that cost no more are as good for most purposes."""


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has: its sweep says which settings and which streams."""


measure = every_metric


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """The best setting on each stream, how wide the range of good ones is, and the error of all."""
    if not all(panel.setup.stream.has_truth for panel in panels):
        raise ValueError(
            "experiment=sensitivity needs streams whose level is known; choose stream=gradient_ratio"
        )
    rmse = summary[summary["metric"] == "rmse"]
    head = ["stream", "estimator", "best setting", "RMSE", f"within {100 * (WITHIN - 1):.0f} %", "worst"]
    lines = [head]
    least_of: dict[str, list[float]] = {}
    grouped: Any = rmse.groupby(["stream", "estimator"], sort=False, observed=True)
    for (stream, estimator), own in grouped:
        least = own.loc[own["mean"].idxmin()]
        good = own.loc[own["mean"] <= WITHIN * least["mean"], "parameters"]
        span = good.iloc[0] if len(good) == 1 else f"{good.iloc[0]} to {good.iloc[-1]}"
        worst = own["mean"].max() / least["mean"]
        least_of.setdefault(estimator, []).append(least["mean"])
        half = least["high"] - least["mean"]
        lines.append(
            [
                stream,
                estimator,
                least["parameters"],
                f"{least['mean']:.4f} ± {half:.4f}",
                span,
                f"{worst:.1f} times",
            ]
        )
    first, *others = least_of
    against = [
        f"{other} "
        + ", ".join(
            f"{100.0 * (b / a - 1.0):+.1f} %" for a, b in zip(least_of[first], least_of[other], strict=True)
        )
        for other in others
    ]
    root = panels[0].setup.root_seed
    n = max(panel.repetitions for panel in panels)
    text = "\n\n".join(
        [
            f"sensitivity: {len(panels)} streams, {n} repetitions of each, root seed {root}.",
            aligned(lines, texts=3),
            f"Within {100 * (WITHIN - 1):.0f} %: settings of the sweep that err by no more than that "
            "above the best; worst: its error\nover that of the best. ± is half of a 95 % interval.",
            f"Best against best, stream by stream, over {first}: {'; '.join(against)}.\n"
            "All settings are in summary.csv, summary.tex and the figure.",
        ]
    )
    return Report(text + "\n", {"error": _figure(panels, rmse)}, COLUMNS)


def expected_rmse(estimator: LinearEstimator, stream: GradientRatio) -> float:
    """Error of a settled filter on the stream's random walk, in closed form.

    The noise leaves r times the noise gain; each step of the walk leaves, n samples later, 1 minus the step
    response: mse = r sum h^2 + q sum (1 - step)^2. Units: those of the stream. Source: the sum of independent
    steps' errors; for EMA it is (1 - b)/(1 + b) r + b^2/(1 - b^2) q.
    """
    n = int(np.ceil(60.0 * float(np.max(estimator.effective_window)))) + 1
    left = 1.0 - np.asarray(estimator.step_response(n))
    noise = stream.r * float(np.max(estimator.noise_gain))
    return float(np.sqrt(noise + stream.s * stream.r * (left @ left)))


def _figure(panels: Sequence[Panel], rmse: pd.DataFrame) -> Any:
    """Error against how many samples are averaged, for each stream: measured, and in closed form."""
    with styled() as pyplot:
        width = min(4, len(panels))
        rows = -(-len(panels) // width)
        figure, axes = pyplot.subplots(
            rows, width, figsize=(2.6 * width + 0.6, 2.9 * rows), squeeze=False, sharey=True
        )
        for axis, panel in zip(axes.flat, panels, strict=False):
            own = rmse[rmse["stream"] == panel.stream].set_index(["estimator", "parameters"])
            names = list(dict.fromkeys(name for name, _ in panel.rows))
            for index, name in enumerate(names):
                settings = [
                    (parameters, row.estimator)
                    for (own_name, parameters), row in panel.rows.items()
                    if own_name == name and isinstance(row.estimator, LinearEstimator)
                ]
                settings.sort(key=lambda setting: -float(setting[1].noise_gain))
                windows = [1.0 / float(estimator.noise_gain) for _, estimator in settings]
                found = own.loc[[(name, parameters) for parameters, _ in settings]]
                style = line(index)
                half = (found["high"] - found["mean"]).to_numpy()
                axis.errorbar(
                    windows, found["mean"], half, fmt="o", markersize=3.0, color=style["color"], label=name
                )
                if isinstance(panel.setup.stream, GradientRatio):
                    expected = [expected_rmse(estimator, panel.setup.stream) for _, estimator in settings]
                    axis.plot(windows, expected, **style, label=f"{name}, closed form")
            axis.set(xscale="log", yscale="log", xlabel="1 / noise gain (samples)", title=panel.stream)
            axis.title.set_fontsize(8)
        for axis in axes[:, 0]:
            axis.set_ylabel(f"RMSE ({panels[0].setup.stream.unit})")
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_axis_off()
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, max(1, len(labels))))
        pyplot.close(figure)
    return figure
