"""Attenuation against lag against memory: whole families of settings, equal noise, equal lag, each tuned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from experiments.plan import Panel
from experiments.runs import Report
from experiments.settings import Match, Tune
from experiments.summaries import Column
from experiments.tradeoff_families import LAG, NOISE, TUNED, every_setting, fitting
from experiments.tradeoff_figures import figures
from experiments.tradeoff_report import agreed, blocks_of, legend
from experiments.tradeoff_view import Found


@dataclass(frozen=True)
class Parameters:
    """windows: N of the noise gains 1 / N at which every family is measured, and of the lags (N - 1) / 2.

    match and tune: those of the run, which are to be none. steps: those of the stream, None where they
    are not known before it is read.
    """

    windows: list[int] = field(default_factory=lambda: [3, 4, 9, 19, 39, 99, 199, 399, 999])
    match: Match = Match.none
    tune: Tune = Tune.none
    steps: int | None = None

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 2 or len({*self.windows}) < len(self.windows):
            raise ValueError(
                f"experiment.windows={self.windows} is not valid; it must be a list of different ints >= 2"
            )
        if self.match is not Match.none or self.tune is not Tune.none:
            raise ValueError("experiment=tradeoff matches and tunes itself; leave match and tune at none")
        if self.steps is not None:
            fitting(self.windows, self.steps)


measure = every_setting


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Of each stream: three comparisons side by side, each in full, the whole families, ties, and fronts."""
    found = [Found(panel, summary) for panel in panels]
    blocks = [block for own in found for block in blocks_of(own)]
    text = "\n\n".join([*blocks, legend(found), str(agreed(summary))]) + "\n"
    return Report(text, figures(found), _columns(found[0]))


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
