"""The main job: attenuation, lag, settling, error, coverage and memory of estimators on the same streams."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.figures import line, styled
from experiments.metrics import LEVEL, SETTLED, STEP, Measured, Trial, joined, measure
from experiments.runs import Outcome
from experiments.settings import Tune
from experiments.setup import Setup
from experiments.tables import Column, differences, markdown, summarise

_ATTENUATION = Column("implied_attenuation_db", "implied atten. (dB)", margin=0.1, exact=True)
_AGE = Column("mean_age", "mean age", exact=True)
_BYTES = Column("state_bytes", "bytes", exact=True)
_PREDICTION = (
    Column("prediction_rmse", "prediction RMSE"),
    Column("prediction_coverage", "pred. coverage"),
)
WITH_TRUTH = (
    Column("attenuation_db", "atten. (dB)", margin=0.1),
    Column("lag", "lag", exact=True),
    Column("settling", "settling", exact=True),
    Column("startup_rmse", "start-up RMSE"),
    Column("rmse", "RMSE"),
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


def run(setup: Setup) -> Outcome:
    """Measure every estimator on the same repetitions; ValueError where match or tune finds no setting."""
    setup, how = setup.chosen()
    table, first_trials, missing = measured(setup)
    summary = summarise(table)
    return Outcome(table, summary, _text(setup, how, summary, missing), _figures(setup, first_trials))


def measured(setup: Setup) -> tuple[pd.DataFrame, dict[str, Trial], int]:
    """All metrics of every estimator, its trial on the first block, and the number of missing samples."""
    blocks: dict[str, list[list[Measured]]] = {name: [] for name in setup.estimators}
    first_trials: dict[str, Trial] = {}
    missing = 0
    for _, drawn in setup.blocks():
        missing += int(np.isnan(drawn.samples).sum())
        for name, estimator in setup.estimators.items():
            trial = setup.trial(estimator, drawn)
            blocks[name].append(measure(trial))
            first_trials.setdefault(name, trial)
    seeds = range(setup.repetitions)
    rows = [setup.rows("compare", name, seeds, joined(parts)) for name, parts in blocks.items()]
    return pd.concat(rows, ignore_index=True), first_trials, missing


def _text(setup: Setup, how: str, summary: pd.DataFrame, missing: int) -> str:
    known, n = setup.stream.has_truth, setup.repetitions
    columns: tuple[Column, ...] = WITH_TRUTH if known else WITHOUT_TRUTH
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
        f"{'Lag and settling' if known else 'Mean age'} in samples, RMSE in {setup.stream.unit}, "
        f"bytes of state "
        f"per channel; coverage of 95 % intervals.",
        f"{told}{'' if known or setup.stream.noise_variance else f', estimated from {seen}'}.",
    ]
    if missing:  # where the gaps fell is chance too
        columns = tuple(replace(column, exact=column is _BYTES) for column in columns)
    compared = differences(summary, columns)
    blocks = [
        f"compare on {setup.stream_name}: {count} of {setup.stream.length():,} samples "
        f"({setup.stream.unit}){gaps}, {source}.\n"
        f"Errors after the first {setup.burn_in:,}; {how}.",
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
