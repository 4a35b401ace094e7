"""Whether better filtered gradients train better: moments against the true gradient, and test losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from experiments import registry
from experiments.learning_rates import COARSEST, Grid
from experiments.metrics import Measured
from experiments.optimiser_figures import moment_figure, training_figure
from experiments.optimiser_report import COSINE, EDGE, GAIN, NMSE, RATIO, Judged, best_fixed, written
from experiments.problems import Digits
from experiments.recorder import MissingExtraError, load_training_set
from experiments.runs import Outcome
from experiments.setup import Setup
from experiments.summaries import Column, Rows, long_table, summarise
from experiments.tables import latex
from experiments.training import (
    BASELINE,
    BETAS,
    REGIMES,
    SCHEDULES,
    Filtered,
    Result,
    Results,
    Trained,
    done,
    methods,
)

NLL = Column("test_nll", "test NLL", better="less")
OVER_BEST = Column("over_best_adam", "over the best Adam", better="less")
VALIDATION = "validation_nll"


@dataclass(frozen=True)
class Parameters:
    """What is trained, by which presets, how long, and on which grid of learning rates.

    warmup: first steps of which moments are not judged; workers: processes, which change no number.
    """

    regimes: list[str] = field(default_factory=lambda: list(REGIMES))
    schedules: list[str] = field(default_factory=lambda: list(SCHEDULES))
    presets: list[str] = field(default_factory=lambda: [*BETAS])
    steps: int = 360
    warmup: int = 100
    factor: float = COARSEST
    points: int = 7
    extensions: int = 4
    workers: int = 2

    def __post_init__(self) -> None:
        for name, valid in (("regimes", REGIMES), ("schedules", SCHEDULES)):
            _named(name, getattr(self, name), valid)
            if not getattr(self, name):
                raise ValueError(f"experiment.{name}=[] is not valid; {registry.nearest('', valid)}")
        for regime in self.regimes:
            only = REGIMES[regime].schedules
            if only and not set(only) & set(self.schedules):
                raise ValueError(
                    f"experiment.schedules={self.schedules} is not valid for {regime}; "
                    f"it has {', '.join(only)}"
                )
        for name, low, high in (("steps", 1, None), ("warmup", 0, self.steps - 1), ("workers", 1, None)):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                within = f">= {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"experiment.{name}={value} is not valid; it must be an int {within}")
        _ = self.grid

    @property
    def grid(self) -> Grid:
        """The grid of learning rates; ValueError where it is too coarse."""
        return Grid(self.factor, self.points, self.extensions)

    def methods(self, regime: str) -> list[str]:
        """Presets for a regime, the baseline first."""
        chosen = dict.fromkeys([BASELINE, *self.presets])
        return [name for name in chosen if name in (REGIMES[regime].presets or chosen)]


def _named(name: str, given: Sequence[str], valid: Mapping[str, Any]) -> None:
    for one in given:
        if one not in valid:
            message = f"experiment.{name} has {one!r}, which is not available"
            raise ValueError(f"{message}; {registry.nearest(str(one), valid)}")
        if given.count(one) > 1:
            raise ValueError(f"experiment.{name} has {one!r} more than once; name each once")


def run(setup: Setup) -> Outcome:
    """Judge the moments of each regime, then train each preset at the rate that validates best."""
    setup.check_untuned("experiment=optimiser has settings of its own")
    chosen: Parameters = setup.parameters
    try:
        load_training_set()
        _named("presets", chosen.presets, methods())
    except (ImportError, MissingExtraError) as error:
        raise ValueError(
            "experiment=optimiser needs torch and scikit-learn: pip install 'kalmean[training]'"
        ) from error
    spawned = (np.random.SeedSequence([setup.root_seed, n]) for n in range(setup.seeds))
    seeds = tuple(int(one.generate_state(1)[0]) for one in spawned)
    judged = [
        Filtered(regime, tuple(chosen.presets), chosen.steps, chosen.warmup, seeds)
        for regime in chosen.regimes
        if isinstance(REGIMES[regime].problem, Digits)  # of a long text the whole gradient is dear
    ]
    trained = [
        Trained(regime, schedule, preset, chosen.steps, chosen.grid, seeds)
        for schedule in chosen.schedules
        for regime in chosen.regimes
        if schedule in (REGIMES[regime].schedules or SCHEDULES)
        for preset in chosen.methods(regime)
    ]
    found = done([*judged, *trained], chosen.workers)
    moments = [*zip(judged, found[: len(judged)], strict=True)]
    results = [Result(*pair) for pair in zip(trained, found[len(judged) :], strict=True)]
    return _outcome(setup, moments, Results(results))


# --- what is told -------------------------------------------------------------------------------------------


def _outcome(setup: Setup, moments: Sequence[Judged], results: Results) -> Outcome:
    rows = [*_moment_rows(moments), *_training_rows(results)]
    table = long_table("optimiser", [*rows, *_tried_rows(results)])
    summary = summarise(long_table("optimiser", rows))
    figures = {"training": training_figure(results)}
    if moments:
        figures["moments"] = moment_figure(moments)
    text = written(setup, moments, results, summary)
    shown = summary[summary["metric"].isin([NMSE, RATIO, NLL.metric, OVER_BEST.metric])]
    columns = [Column(NMSE, "NMSE"), Column(RATIO, "over the best beta's"), NLL, OVER_BEST]
    return Outcome(table, summary, text, figures, latex(shown, table, columns), columns)


def _moment_rows(moments: Sequence[Judged]) -> Iterator[Rows]:
    for task, found in moments:
        least = found[best_fixed(found)].nmse
        for name, own in found.items():
            fixed = name[0].isdigit()
            ratio = own.nmse / least
            measured = [Measured(NMSE, "1", own.nmse), Measured(RATIO, "1", ratio)]
            measured.append(Measured(COSINE, "1", own.cosine))
            if own.gain is not None:
                measured.append(Measured(GAIN, "1", own.gain))
            yield Rows(task.stream, *(("fixed", f"beta={name}") if fixed else (name, "")), measured)


def _training_rows(results: Results) -> Iterator[Rows]:
    """Losses at the chosen rates."""
    for stream, own in results.streams().items():
        best = Results.best_adam(own)
        for result in own:
            trials, none = result.trials, np.full(len(result.task.seeds), np.nan)
            test = none if result.test is None else result.test
            over = none if best.test is None else test - best.test
            yield Rows(
                stream,
                result.task.preset,
                f"lr={trials.rate:.6g}",
                [
                    Measured(NLL.metric, "nats", test, EDGE),
                    Measured(OVER_BEST.metric, "nats", over, EDGE),
                    Measured(VALIDATION, "nats", trials.losses.validation[trials.best], "diverged"),
                ],
            )


def _tried_rows(results: Results) -> Iterator[Rows]:
    """How the other rates validate."""
    for result in results.every:
        for place, rate in enumerate(result.trials.rates):
            if place != result.trials.best:
                losses = result.trials.losses.validation[place]
                measured = [Measured(VALIDATION, "nats", losses, "diverged")]
                yield Rows(result.task.stream, result.task.preset, f"lr={rate:.6g}", measured)
