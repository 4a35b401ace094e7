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
from experiments.streams import GradientRatio, is_plain_walk
from experiments.summaries import Column
from experiments.tables import aligned, counted, quantity, shortened

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
    whole = rmse[(rmse["failed"] == 0) & (rmse["missing"] == 0)].assign(parameters=shortened(summary))
    lines = [["stream", "estimator", "best setting", "RMSE", f"within {100 * (WITHIN - 1):.0f} %", "worst"]]
    least_of: dict[str, dict[str, float]] = {}
    grouped: Any = whole.groupby(["stream", "estimator"], sort=False, observed=True)
    for (stream, estimator), own in grouped:
        least = own.loc[own["mean"].idxmin()]
        good = own.loc[own["mean"] <= WITHIN * least["mean"], "parameters"].tolist()
        least_of.setdefault(estimator, {})[stream] = least["mean"]
        lines.append(
            [
                *(stream, estimator, least["parameters"]),
                quantity(least["mean"], least["high"] - least["mean"]),
                ", ".join(good) if len(good) <= 3 else f"{len(good)} settings",
                f"{own['mean'].max() / least['mean']:.1f} times",
            ]
        )
    notes = [
        f"Within {100 * (WITHIN - 1):.0f} %: settings that err at most so much more than the best of them.",
        "Worst: the error of the worst over that of the best. ± is half of a 95 % interval.",
    ]
    if left_out := len(rmse) - len(whole):
        notes.append(f"Left out, as not all of their cells have a value: {left_out} of {len(rmse)} rows.")
    for other, least in list(least_of.items())[1:]:
        first, of_first = next(iter(least_of.items()))
        over = [f"{100.0 * (least[s] / of_first[s] - 1.0):+.1f} %" for s in least if s in of_first]
        notes.append(f"Best {other} over best {first}, stream by stream: {', '.join(over)}.")
    streams = counted(len(panels), "stream")
    repetitions = counted(panels[0].repetitions, "repetition")
    hows = "; ".join(dict.fromkeys(panel.how for panel in panels))
    text = "\n\n".join(
        [
            f"sensitivity: {streams}, {repetitions} of each, root seed {panels[0].setup.root_seed}.\n{hows}.",
            aligned(lines, texts=3) if len(lines) > 1 else "No setting has all of its cells.",
            "\n".join(notes),
            "All settings are in summary.csv, summary.tex and the figure.",
        ]
    )
    figures = {"error": _figure(panels, rmse)} if np.isfinite(rmse["mean"]).any() else {}
    return Report(text + "\n", figures, COLUMNS)


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
                found = own.reindex([(name, parameters) for parameters, _ in settings])
                style = line(index)
                half = (found["high"] - found["mean"]).to_numpy()
                axis.errorbar(
                    windows, found["mean"], half, fmt="o", markersize=3.0, color=style["color"], label=name
                )
                if is_plain_walk(panel.setup.stream):
                    expected = [expected_rmse(estimator, panel.setup.stream) for _, estimator in settings]
                    axis.plot(windows, expected, **style, label=f"{name}, closed form")
            axis.set(xscale="log", yscale="log", xlabel="1 / noise gain (samples)", title=panel.stream)
            axis.title.set_fontsize(8)
        units = {panel.setup.stream.unit for panel in panels}
        unit = units.pop() if len(units) == 1 else "unit of the stream"
        for axis in axes[:, 0]:
            axis.set_ylabel(f"RMSE ({unit})")
        for axis in list(axes.flat)[len(panels) :]:
            axis.set_axis_off()
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(2 * width, max(1, len(labels))))
        pyplot.close(figure)
    return figure
