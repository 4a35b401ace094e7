"""Attenuation against lag against memory: whole families of settings, equal noise, equal lag, each tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from experiments.agreement import agreement
from experiments.figures import line, styled
from experiments.plan import Panel
from experiments.runs import Report
from experiments.settings import Match, Tune
from experiments.summaries import Column
from experiments.tradeoff_families import LAG, NOISE, TUNED, every_setting
from experiments.tradeoff_fronts import front
from experiments.tradeoff_report import blocks_of, legend
from experiments.tradeoff_view import Found

DRAWN = 4
"""Streams of a sweep in the figures."""
MARKERS = "osD^vPX"


@dataclass(frozen=True)
class Parameters:
    """windows: N of the noise gains 1 / N at which every family is measured, and of the lags (N - 1) / 2.

    match and tune: those of the run, which are to be none.
    """

    windows: list[int] = field(default_factory=lambda: [3, 4, 9, 19, 39, 99, 199, 399, 999])
    match: Match = Match.none
    tune: Tune = Tune.none

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 2 or len({*self.windows}) < len(self.windows):
            raise ValueError(
                f"experiment.windows={self.windows} is not valid; it must be a list of different ints >= 2"
            )
        if self.match is not Match.none or self.tune is not Tune.none:
            raise ValueError("experiment=tradeoff matches and tunes itself; leave match and tune at none")


measure = every_setting


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Of each stream: three comparisons side by side, each in full, the whole families, ties, and fronts."""
    found = [Found(panel, summary) for panel in panels]
    blocks = [block for own in found for block in blocks_of(own)]
    text = "\n\n".join([*blocks, legend(found), str(agreement(summary))]) + "\n"
    return Report(text, _figures(found), _columns(found[0]))


def _columns(found: Found) -> tuple[Column, ...]:
    """Of the LaTeX table: all at equal noise, and the errors at equal lag and at each estimator's best."""
    *others, error = found.columns
    noise = f"{NOISE}_{found.window}"
    shown = [(column, noise, "") for column in others] + [(error, noise, ", equal noise")]
    shown += [(error, f"{LAG}_{found.window}", ", equal lag"), (error, TUNED, ", tuned")]
    stored = {"attenuation": "implied_attenuation_db"}
    return tuple(
        Column(
            f"{stored.get(column.metric, column.metric)}@{place}",
            f"{column.label}{title}",
            column.margin,
            column.exact,
            column.better,
        )
        for column, place, title in shown
    )


def _figures(found: Sequence[Found]) -> dict[str, Any]:
    """Both figures, of the first streams; none where cells failed that they would show."""
    shown = [own for own in found if own.candidates(False)[0]][:DRAWN]
    return {"fronts": _fronts(shown), "error": _error(shown)} if shown else {}


def _style(found: Found, label: str) -> dict[str, Any]:
    index = list(found.estimators).index(label)
    # Those that tie lie on each other: the later ones are smaller, and on top.
    return {
        "color": line(index)["color"],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": max(9.0 - 1.7 * index, 3.5),
        "linestyle": "none",
        "zorder": 3 + index,
    }


def _fronts(found: Sequence[Found]) -> Any:
    """Attenuation against lag and against memory, of all settings; those on the front are filled."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(len(found), 2, figsize=(7.6, 3.5 * len(found)), squeeze=False)
        handles: dict[str, Any] = {}
        for (by_lag, by_memory), own in zip(axes, found, strict=True):
            late = own.columns[1]
            candidates, _ = own.candidates(False)
            ways = front(candidates, own.criteria(False))
            for candidate, way in zip(candidates, ways, strict=True):
                label, style = candidate.key[0], _style(own, candidate.key[0])
                face = "none" if way else style["color"]
                for axis, criterion in ((by_lag, late.metric), (by_memory, "state_bytes")):
                    axis.plot(
                        candidate.values[criterion],
                        candidate.values["attenuation"],
                        markerfacecolor=face,
                        **style,
                    )
                handles.setdefault(label, pyplot.Line2D([], [], label=label, markerfacecolor="none", **style))
            by_lag.set_xscale("symlog", linthresh=1.0)
            by_lag.set_xlim(left=-0.3)
            by_lag.set(xlabel=f"{late.label} (samples)", ylabel="attenuation (dB)")
            by_memory.set(xscale="log", xlabel="state (bytes per channel)", ylabel="attenuation (dB)")
            by_lag.set_title(f"{own.panel.stream}; filled: on the front", fontsize=8)
        figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(4, len(handles)))
        pyplot.close(figure)
    return figure


def _error(found: Sequence[Found]) -> Any:
    """Error of whole families against how much noise they leave, each at its best; and over the first's."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(len(found), 2, figsize=(7.6, 3.4 * len(found)), squeeze=False)
        handles: dict[str, Any] = {}
        for (whole, over), own in zip(axes, found, strict=True):
            for index, (label, family) in enumerate(own.families.items()):
                rows = [(w, own.row(label, own.error.metric, f"{NOISE}_{w}")) for w in own.windows if family]
                known = [(window, row["mean"]) for window, row in rows if row is not None]
                if known:
                    (handles[label],) = whole.plot(*zip(*known, strict=True), **line(index))
                    relative = [
                        (w, *own.over_first(label, own.error.metric, f"{NOISE}_{w}")) for w, _ in known
                    ]
                    over.errorbar(*zip(*relative, strict=True), capsize=2.0, **line(index))
                place, row = _window_of(own, label), own.row(label, own.error.metric, TUNED)
                if row is not None and np.isfinite(place):
                    mark = {**_style(own, label), "markersize": 7.0, "zorder": 20 + index}
                    (drawn,) = whole.plot(place, row["mean"], markerfacecolor="none", **mark)
                    handles.setdefault(label, drawn)
            whole.set(xscale="log", yscale="log", xlabel="noise variance in / out")
            whole.set_ylabel(f"{own.error.label} ({own.panel.setup.stream.unit})")
            whole.yaxis.set_major_locator(pyplot.matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
            whole.yaxis.set_major_formatter("{x:g}")
            whole.yaxis.set_minor_formatter("")
            whole.set_title(f"{own.panel.stream}; marks: each at its best", fontsize=8)
            over.set(xscale="log", xlabel="noise variance in / out")
            over.set_ylabel(f"over {own.first} at equal noise (%)")
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, len(handles))
        )
        pyplot.close(figure)
    return figure


def _window_of(found: Found, label: str) -> float:
    """The noise's variance over what is left of it, at an estimator's best setting."""
    row = found.row(label, "attenuation", TUNED)
    return float(10.0 ** (row["mean"] / 10.0)) if row is not None else np.nan
