"""Which estimator for a log, with which setting, and how well that advice does on what it has not seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from estimators import EMA, FilterResult, MovingAverage, Recommendation, recommend
from estimators.recommending import written
from experiments.figures import line, styled
from experiments.metrics import LEVEL, Measured
from experiments.recorded import Recorded
from experiments.runs import Outcome
from experiments.series import estimated
from experiments.setup import Setup
from experiments.streams import Array, Domain
from experiments.summaries import Column, Rows, long_table, summarise
from experiments.tables import aligned, latex

BETAS = np.concatenate([[0.0], 1.0 - np.geomspace(0.9, 5e-4, 150)])
WINDOWS = np.unique(np.geomspace(1, 1000, 60).astype(int))
"""Settings among which the best in hindsight is sought."""
MOST = 12
"""Series whose recommendations are listed."""
COLUMNS = (
    Column("beta", "beta"),
    Column("attenuation_db", "atten. (dB)"),
    Column("lag", "lag"),
    Column("state_bytes", "bytes", exact=True),
    Column("over_hindsight", "over best in hindsight"),
    Column("over_ema_099", "over EMA(0.99)"),
)


@dataclass(frozen=True)
class Parameters:
    """None beyond what every experiment has: the series is the stream's."""


@dataclass(frozen=True)
class Advice:
    """A recommendation for one series, and what the advice from its first half errs on its second."""

    name: str
    series: Array
    found: Recommendation
    over_hindsight: float
    over_ema: float

    @classmethod
    def on(cls, name: str, series: Array) -> Advice:
        """Recommend for a series; ValueError, one line, where that cannot be done."""
        found = recommend(series)
        smoothed = np.log(series) if found.domain == "log" else series
        begin = len(smoothed) // 2
        own = found.evidence[0].rmse if found.evidence else math.nan
        window_errors = [
            MovingAverage(int(w)).score(smoothed, skip=begin).rmse for w in WINDOWS if w <= max(1, begin)
        ]
        betas = EMA(BETAS, initial=None).score(smoothed[:, np.newaxis], skip=begin).rmse
        least = float(np.nanmin(np.concatenate([betas, window_errors])))
        common = next((one.rmse for one in found.evidence if one.name == "EMA(0.99)"), math.nan)
        return cls(name, series, found, _over(own, least), _over(own, common))

    def measured(self) -> list[Measured]:
        """What the table holds of it."""
        found = self.found
        values = {
            "beta": (found.beta, "1"),
            "beta_low": (found.beta_interval[0], "1"),
            "beta_high": (found.beta_interval[1], "1"),
            "attenuation_db": (found.attenuation_db, "dB"),
            "lag": (found.lag, "samples"),
            "state_bytes": (float(found.state_bytes), "bytes"),
            "over_hindsight": (self.over_hindsight, "share"),
            "over_ema_099": (self.over_ema, "share"),
        }
        return [
            Measured(name, unit, np.array([value]), "too short") for name, (value, unit) in values.items()
        ]


def run(setup: Setup) -> Outcome:
    """Recommend for every series of the stream; ValueError where match or tune is set."""
    setup.check_untuned("experiment=recommend chooses the settings itself")
    domain = getattr(setup.stream, "domain", Domain.ratio)
    if domain is not Domain.ratio:
        raise ValueError(
            f"stream.domain={domain.value} is not valid with experiment=recommend, which says itself whether "
            "logarithms are better; leave it out"
        )
    drawn = setup.stream.draw(range(setup.repetitions), setup.root_seed, "evaluate")
    names = _names(setup)
    advices = []
    for name, series in zip(names, drawn.samples.T, strict=True):
        try:
            advices.append(Advice.on(name, np.ascontiguousarray(series)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    rows = [Rows(one.name, "recommended", written(one.found.estimator), one.measured()) for one in advices]
    table = long_table("recommend", rows)
    summary = summarise(table)
    text = _text(setup, advices)
    first = advices[0]
    run = first.found.estimator.filter(first.series)
    shown = estimated(first.series, {written(first.found.estimator): run}, setup.stream.unit, first.name)
    return Outcome(
        table=table,
        summary=summary,
        text=text,
        figures={"recommended": _figure(first, run, setup)},
        latex=latex(summary, table, COLUMNS),
        columns=COLUMNS,
        series={"recommended": shown},
    )


def _names(setup: Setup) -> list[str]:
    """What each series is called: its file, or its place among the repetitions."""
    if isinstance(setup.stream, Recorded):
        return [path.name for path in setup.stream.paths[: setup.repetitions]]
    return [f"{setup.stream_name} {repetition}" for repetition in range(setup.repetitions)]


def _text(setup: Setup, advices: Sequence[Advice]) -> str:
    """The one recommendation in full; of several, a table, and the first in full."""
    first = advices[0]
    column = getattr(setup.stream, "column", None)
    what = f"{column} of {first.name}" if column else first.name
    blocks = [f"recommend for {what}: {first.found}"]
    if len(advices) > 1:
        lines = [["series", "use", "beta", "95 %", "atten. (dB)", "lag", "over hindsight", "over EMA(0.99)"]]
        for one in advices:
            low, high = one.found.beta_interval
            lines.append(
                [
                    *(one.name, written(one.found.estimator), f"{one.found.beta:.4g}"),
                    *(f"{low:.4g} to {high:.4g}", f"{one.found.attenuation_db:.1f}", f"{one.found.lag:.3g}"),
                    *(_percent(one.over_hindsight), _percent(one.over_ema)),
                ]
            )
        hindsight = [one.over_hindsight for one in advices]
        common = [one.over_ema for one in advices]
        told = (
            "Over hindsight: one-step error in the second half of what is recommended from the first alone,\n"
            "over that of the best EMA or window of the second half; and over that of EMA(0.99).\n"
            f"Over the {len(advices)} series: {_percent(float(np.nanmean(hindsight)))} and "
            f"{_percent(float(np.nanmean(common)))} in the mean, "
            f"{_percent(float(np.nanmax(hindsight)))} and {_percent(float(np.nanmax(common)))} at worst."
        )
        shown = advices[:MOST]
        left = f"The first {MOST} of {len(advices)}:\n\n" if len(advices) > MOST else ""
        blocks = [
            f"recommend for {len(advices)} series:",
            left + aligned([lines[0], *lines[1 : len(shown) + 1]], texts=2),
            told,
            f"The first in full. {blocks[0]}",
        ]
    elif not math.isnan(first.over_hindsight):
        blocks.append(
            f"What it recommends from the first half errs {_percent(first.over_hindsight)} over the best "
            "EMA or window\nof the second half, which only hindsight knows."
        )
    return "\n\n".join(blocks) + "\n"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100.0 * share:+.2f} %"


def _over(own: float, other: float) -> float:
    return own / other - 1.0 if other > 0.0 else 0.0 if own == other else math.nan


def _figure(advice: Advice, run: FilterResult, setup: Setup) -> Any:
    """The log, the recommended estimate, and its 95 % band where it states one."""
    series = advice.series
    time, mean = np.arange(len(series)), np.asarray(run.mean)
    bounds = run.interval(LEVEL)
    with styled() as pyplot:
        figure, axis = pyplot.subplots(figsize=(7.5, 3.6))
        axis.plot(time, series, ".", color="#c8c8c8", markersize=2.4, label="samples")
        style = line(2)
        if bounds is not None:
            axis.fill_between(
                time, *bounds, color=style["color"], alpha=0.25, linewidth=0,
                label=f"{100 * LEVEL:.0f} % interval of the level",
            )  # fmt: skip
        axis.plot(time, mean, label=written(advice.found.estimator), **{**style, "linestyle": "-"})
        finite = series[np.isfinite(series)]
        low, high = np.quantile(finite, [0.005, 0.995])
        if advice.found.domain == "log":
            axis.set(yscale="log", ylim=(low / 1.1, high * 1.1))
        else:
            room = 0.05 * (high - low) + 1e-12 * max(abs(low), abs(high)) + 1e-300
            axis.set_ylim(low - room, high + room)
        axis.set(xlabel="sample", ylabel=setup.stream.unit, title=advice.name)
        axis.legend(loc="best")
        pyplot.close(figure)
    return figure
