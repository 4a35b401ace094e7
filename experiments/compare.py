"""The main job: attenuation, lag, settling, error, coverage and memory of estimators on the same streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.cells import every_metric
from experiments.figures import line, styled
from experiments.metrics import LEVEL, SETTLED, STEP, Trial
from experiments.plan import Panel
from experiments.runs import Report
from experiments.settings import Tune
from experiments.setup import Setup
from experiments.summaries import Column
from experiments.tables import differences, markdown

_ATTENUATION = Column("implied_attenuation_db", "implied atten. (dB)", margin=0.1, exact=True, better="more")
_AGE = Column("mean_age", "mean age", exact=True, better="less")
_BYTES = Column("state_bytes", "bytes", exact=True, better="less")
_PREDICTION = (
    Column("prediction_rmse", "prediction RMSE", better="less"),
    Column("prediction_coverage", "pred. coverage"),
)
WITH_TRUTH = (
    Column("attenuation_db", "atten. (dB)", margin=0.1, better="more"),
    Column("lag", "lag", exact=True, better="less"),
    Column("settling", "settling", exact=True, better="less"),
    Column("startup_rmse", "start-up RMSE", better="less"),
    Column("rmse", "RMSE", better="less"),
    Column("coverage", "coverage"),
    _BYTES,
)
WITHOUT_TRUTH = (_ATTENUATION, _AGE, *_PREDICTION, _BYTES)
PARTS = (
    Column("bias", "bias"),
    Column("signal_mse", "signal error^2"),
    Column("noise_mse", "noise error^2"),
    Column("cross_mse", "cross term"),
    _ATTENUATION,
    _AGE,
    *_PREDICTION,
)


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has."""


measure = every_metric


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """One panel in words, its tables and figures; of several, one table of all."""
    known = all(panel.setup.stream.has_truth for panel in panels)
    columns: tuple[Column, ...] = WITH_TRUTH if known else WITHOUT_TRUTH
    if len(panels) > 1:
        return Report(_text_of_many(panels, summary, columns), {}, columns)
    (panel,) = panels
    trials = {name: panel.condition.trial(own, [0]) for name, own in panel.estimators().items()}
    return Report(_text(panel, summary, columns), _figures(panel.setup, trials), columns)


def _text_of_many(panels: Sequence[Panel], summary: pd.DataFrame, columns: Sequence[Column]) -> str:
    counts = sorted({panel.repetitions for panel in panels})
    n = " or ".join(str(count) for count in counts)
    root = panels[0].setup.root_seed
    hows = list(dict.fromkeys(panel.how for panel in panels))
    return "\n\n".join(
        [
            f"compare on {len(panels)} streams, {n} repetitions of each, root seed {root}.\n"
            + "\n".join(hows),
            markdown(summary, columns),
            f"± is half of a 95 % interval over the repetitions. {_units(panels[0])}",
            "Differences to the first setting on each stream, paired by repetition, are in summary.csv.\n",
        ]
    )


def _units(panel: Panel) -> str:
    timed = "Lag and settling" if panel.setup.stream.has_truth else "Mean age"
    return (
        f"{timed} in samples, RMSE in {panel.setup.stream.unit}, bytes of state per channel; "
        f"coverage of 95 % intervals."
    )


def _missing_samples(panel: Panel) -> int:
    blocks = panel.condition.blocks(panel.repetitions)
    return sum(int(np.isnan(panel.condition.draw(block).samples).sum()) for block in blocks)


def _text(panel: Panel, summary: pd.DataFrame, columns: Sequence[Column]) -> str:
    setup, n, missing = panel.setup, panel.repetitions, _missing_samples(panel)
    known = setup.stream.has_truth
    count = "1 stream" if n == 1 else f"{n} streams"
    gaps = f", {missing:,} of them missing" if missing else ""
    source = f"root seed {setup.root_seed}" if known else "as recorded"
    interval = f"± is half of a 95 % interval over the streams, n = {n}."
    told = f"Filters that need it are told a noise variance of {setup.noise_variance:.4g}"
    seen = (
        "the first halves of these recordings"
        if setup.tune is not Tune.none
        else "these recordings, in sample"
    )
    notes = [
        interval if n > 1 else "One stream: no intervals; only what owes nothing to chance is told apart.",
        _units(panel),
        f"{told}{'' if known or setup.stream.noise_variance else f', estimated from {seen}'}.",
    ]
    if missing:  # where the gaps fell is chance too
        columns = tuple(replace(column, exact=column is _BYTES) for column in columns)
    compared = differences(summary, columns)
    blocks = [
        f"compare on {panel.stream}: {count} of {setup.stream.length():,} samples "
        f"({setup.stream.unit}){gaps}, {source}.\n"
        f"Errors after the first {setup.burn_in:,}; {panel.how}.",
        markdown(summary, columns),
        "\n".join(notes),
        "Paired differences on the same streams:" if compared else "",
        "\n".join(f"- {text}" for text in compared),
    ]
    if known:
        blocks += ["Where the squared error comes from, and what needs no truth:", markdown(summary, PARTS)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _figures(setup: Setup, trials: dict[str, Trial]) -> dict[str, Any]:
    figures = {"estimates": _estimates(setup, trials)}
    if setup.stream.has_truth:
        figures["settling"] = _settling(setup, trials)
    return figures


def _estimates(setup: Setup, trials: dict[str, Trial]) -> Any:
    """The first repetition at its start and later on: samples, truth, estimates, stated intervals."""
    steps = setup.stream.length()
    start = min(steps, 300)
    later = slice(max(0, steps // 2 - 500), min(steps, steps // 2 + 500))
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.6), width_ratios=(1, 1.6), sharey=True)
        titles = f"{setup.stream_name}, start", f"{setup.stream_name}, later (not all samples fit)"
        for axis, window, title in zip(axes, (slice(0, start), later), titles, strict=True):
            time = np.arange(steps)[window]
            drawn = next(iter(trials.values())).drawn
            axis.plot(time, drawn.samples[window, 0], ".", color="#d0d0d0", markersize=2.2, label="samples")
            if drawn.level is not None:
                axis.plot(time, drawn.level[window, 0], color="#cccccc", linewidth=4.5, label="true level")
            for index, (name, trial) in enumerate(trials.items()):
                style = line(index)
                bounds = trial.run.interval(LEVEL)
                if bounds is not None:
                    lower, upper = (np.clip(bound[window, 0], -1e6, 1e6) for bound in bounds)
                    axis.fill_between(
                        time, lower, upper, color=style["color"], alpha=0.18, linewidth=0,
                        label=f"{name}, {100 * LEVEL:.0f} % interval",
                    )  # fmt: skip
                axis.plot(time, np.asarray(trial.run.mean)[window, 0], label=name, **style)
            axis.set(xlabel="sample", title=title)
        settled = np.concatenate([np.asarray(trial.run.mean)[later, 0] for trial in trials.values()])
        started = next(iter(trials.values())).drawn.samples[:start, 0]
        started = started[np.isfinite(started)]
        centre = np.append(settled[np.isfinite(settled)], np.median(started) if started.size else [])
        sd = setup.noise_variance**0.5
        low, high = (centre.min(), centre.max()) if centre.size else (0.0, 0.0)
        axes[0].set(ylabel=setup.stream.unit, ylim=(low - 1.2 * sd, high + 1.2 * sd))
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        pyplot.close(figure)
    return figure


def _settling(setup: Setup, trials: dict[str, Trial]) -> Any:
    """The replayed response to a step of the level, against the band in which it counts as settled."""
    steps = setup.stream.length()
    at = steps // 2
    shown = slice(max(0, at - 50), min(steps, at + 450))
    step = np.where(np.arange(steps) >= at, STEP * setup.noise_variance**0.5, 0.0)
    with styled() as pyplot:
        figure, axis = pyplot.subplots(figsize=(5.0, 3.2))
        axis.axhspan(
            1.0 - SETTLED, 1.0 + SETTLED, color="#e8e8e8", zorder=0, label=f"within {100 * SETTLED:.0f} %"
        )
        for index, (name, trial) in enumerate(trials.items()):
            response = trial.response_to(step)[:, 0] / step[-1]
            axis.plot(np.arange(steps)[shown] - at + 1, response[shown], label=name, **line(index))
        axis.set(xlabel="samples at the new level", ylabel="share of the step", ylim=(-0.03, 1.1))
        axis.legend(loc="lower right")
        pyplot.close(figure)
    return figure
