"""The main job: attenuation, lag, settling, error, coverage and memory of estimators on the same streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from experiments.cells import every_metric
from experiments.figures import comparison, line, styled
from experiments.metrics import LEVEL, SETTLED, STEP, Trial
from experiments.plan import Panel
from experiments.runs import Report
from experiments.series import estimated
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


LISTED = 12
"""Streams of a sweep on which the text states all that it states of one."""


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has."""


measure = every_metric


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """One panel in words, its tables and figures; of several, one table and one figure of all."""
    known = {panel.setup.stream.has_truth for panel in panels}
    columns: tuple[Column, ...] = WITH_TRUTH if known == {True} else WITHOUT_TRUTH
    if len(known) > 1:
        columns = (*WITH_TRUTH[:-1], *WITHOUT_TRUTH)
    missing = {panel.stream: _missing_samples(panel) for panel in panels}
    if any(missing.values()):  # where the gaps fell is chance too
        columns = tuple(replace(column, exact=column is _BYTES) for column in columns)
    if len(panels) > 1:
        metric = "prediction_rmse" if False in known else "rmse"
        text = _text_of_many(panels, summary, columns, missing)
        return Report(text, comparison(summary, metric, LISTED), columns)
    (panel,) = panels
    text, trials = _text(panel, summary, columns, missing[panel.stream]), _trials(panel)
    return Report(text, _figures(panel, trials), columns, _series(panel.setup, trials))


def _text_of_many(
    panels: Sequence[Panel], summary: pd.DataFrame, columns: Sequence[Column], missing: Mapping[str, int]
) -> str:
    facts = [f"- {panel.stream}: {_facts(panel, missing[panel.stream])}" for panel in panels]
    facts = [fact.replace("\n", " ") for fact in facts]
    if len(facts) > LISTED:
        facts = [*facts[:LISTED], f"- and {len(facts) - LISTED:,} more, as config.yaml says"]
    told = "± is half of a 95 % interval over the repetitions of a stream"
    return "\n\n".join(
        [
            f"compare on {len(panels)} streams:\n\n" + "\n".join(facts),
            markdown(summary, columns),
            f"{told}; a single one has none.\n{_units(panels)}",
            "Differences to the first setting of each stream, paired by repetition, are in summary.csv.\n",
        ]
    )


def _units(panels: Sequence[Panel]) -> str:
    known = {panel.setup.stream.has_truth for panel in panels}
    timed = (
        "Lag, settling and mean age"
        if len(known) > 1
        else "Lag and settling"
        if True in known
        else "Mean age"
    )
    units = list(dict.fromkeys(panel.setup.stream.unit for panel in panels))
    unit = units[0] if len(units) == 1 else f"the stream's unit ({', '.join(units)})"
    return f"{timed} in samples, RMSE in {unit}, bytes of state per channel; coverage of 95 % intervals."


def _facts(panel: Panel, missing: int) -> str:
    """What a panel shows: streams, samples, gaps, source, burn-in, how the settings were chosen."""
    setup, n = panel.setup, panel.repetitions
    count = "1 stream" if n == 1 else f"{n} streams"
    gaps = f", {missing:,} of them missing" if missing else ""
    source = f"root seed {setup.root_seed}" if setup.stream.has_truth else "as recorded"
    return (
        f"{count} of {setup.stream.length():,} samples ({setup.stream.unit}){gaps}, {source}.\n"
        f"Errors after the first {setup.burn_in:,}; {panel.how}."
    )


def _told(setup: Setup) -> str:
    """What noise variance filters are told, and where it is from."""
    told = f"Filters that need it are told a noise variance of {setup.noise_variance:.4g}"
    if setup.stream.has_truth or setup.stream.noise_variance:
        return f"{told}."
    tuned = setup.tune is not Tune.none
    seen = "the first halves of these recordings" if tuned else "these recordings, in sample"
    return f"{told}, estimated from {seen}."


def _missing_samples(panel: Panel) -> int:
    """Samples that are missing in the repetitions that can be drawn."""
    missing = 0
    if not panel.setup.stream.may_have_gaps:  # drawing all again would take as long as measuring some
        return missing
    for block in panel.condition.blocks(panel.repetitions):
        try:
            missing += int(np.isnan(panel.condition.draw(block).samples).sum())
        except ValueError:  # its cells have failed, and say why
            continue
    return missing


def _text(panel: Panel, summary: pd.DataFrame, columns: Sequence[Column], missing: int) -> str:
    n = panel.repetitions
    interval = f"± is half of a 95 % interval over the streams, n = {n}."
    notes = [
        interval if n > 1 else "One stream: no intervals; only what owes nothing to chance is told apart.",
        _units([panel]),
        _told(panel.setup),
    ]
    compared = differences(summary, columns)
    blocks = [
        f"compare on {panel.stream}: {_facts(panel, missing)}",
        markdown(summary, columns),
        "\n".join(notes),
        "Paired differences on the same streams:" if compared else "",
        "\n".join(f"- {text}" for text in compared),
    ]
    if panel.setup.stream.has_truth:
        blocks += ["Where the squared error comes from, and what needs no truth:", markdown(summary, PARTS)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _trials(panel: Panel) -> dict[str, Trial]:
    """All settings on the first repetition; none where its cells failed."""
    trials = {}
    try:
        for name, own in panel.estimators().items():
            trials[name] = panel.condition.trial(own, [0])
            trials[name].run  # noqa: B018 (computed here or not at all)
    except (ValueError, ArithmeticError):  # the table says which failed, and why
        return {}
    return trials


def _windows(setup: Setup) -> dict[str, slice]:
    """Samples that are shown: how it begins, and how it is later on."""
    steps = setup.stream.length()
    middle = slice(max(0, steps // 2 - 500), min(steps, steps // 2 + 500))
    return {"start": slice(0, min(steps, 300)), "later": middle}


def _series(setup: Setup, trials: Mapping[str, Trial]) -> dict[str, pd.DataFrame]:
    if not trials:
        return {}
    drawn = next(iter(trials.values())).drawn
    runs = {name: trial.run for name, trial in trials.items()}
    return {
        name: estimated(drawn.samples, runs, setup.stream.unit, "the first repetition", window, drawn.level)
        for name, window in _windows(setup).items()
    }


def _figures(panel: Panel, trials: Mapping[str, Trial]) -> dict[str, Any]:
    """Figures of the first repetition."""
    if not trials:
        return {}
    figures = {"estimates": _estimates(panel.setup, trials)}
    if panel.setup.stream.has_truth:
        with suppress(ValueError, ArithmeticError):  # where cells failed, as the table says
            figures["settling"] = _settling(panel.setup, trials)
    return figures


def _estimates(setup: Setup, trials: Mapping[str, Trial]) -> Any:
    """The first repetition at its start and later on: samples, truth, estimates, stated intervals."""
    steps = setup.stream.length()
    start, later = _windows(setup).values()
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, 2, figsize=(9.0, 3.6), width_ratios=(1, 1.6), sharey=True)
        titles = f"{setup.stream_name}, start", f"{setup.stream_name}, later (not all samples fit)"
        for axis, window, title in zip(axes, (start, later), titles, strict=True):
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
        started = next(iter(trials.values())).drawn.samples[start, 0]
        started = started[np.isfinite(started)]
        centre = np.append(settled[np.isfinite(settled)], np.median(started) if started.size else [])
        sd = setup.noise_variance**0.5
        low, high = (centre.min(), centre.max()) if centre.size else (0.0, 0.0)
        axes[0].set(ylabel=setup.stream.unit, ylim=(low - 1.2 * sd, high + 1.2 * sd))
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        pyplot.close(figure)
    return figure


def _settling(setup: Setup, trials: Mapping[str, Trial]) -> Any:
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
