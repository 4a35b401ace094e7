"""What a sweep compares, and how it gets there: panels of settings on a stream, cells, and their table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from estimators import Estimator
from experiments.cells import Condition, Setting
from experiments.executors import Executor
from experiments.metrics import Measured
from experiments.progress import Progress
from experiments.registry import snake_case
from experiments.runner import Wanted, run, standing
from experiments.settings import (
    Match,
    Tune,
    Tuning,
    at_noise_gain,
    budget,
    match_to_first,
    refuse_untunable,
    tuned,
)
from experiments.setup import Setup, setting
from experiments.store import Store
from experiments.summaries import ANY, FAILED, NOT_RUN, Rows

SWEPT_ESTIMATORS = "estimators"


@dataclass(frozen=True)
class Point:
    """One setup of a sweep, and the overrides, by key, in which it differs from others."""

    setup: Setup
    swept: Mapping[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> str:
        """The stream's name and all that was swept but for estimators: what stands in the table."""
        others = [
            f"{key.removeprefix('stream.')}={value}"
            for key, value in self.swept.items()
            if key != "stream" and key.partition(".")[0] != SWEPT_ESTIMATORS
        ]
        return " ".join([self.setup.stream_name, *others])


@dataclass(frozen=True)
class Panel:
    """Settings that are compared on the same repetitions of a stream, the first of them the baseline.

    swept: as in `Point`, of the first point that led here; rows: by name and parameters, the settings of a
    name together; chosen: how the settings of each point were, empty if as given.
    """

    stream: str
    setup: Setup
    condition: Condition
    swept: Mapping[str, str]
    rows: dict[tuple[str, str], Setting] = field(default_factory=dict)
    chosen: list[str] = field(default_factory=list)

    @property
    def repetitions(self) -> int:
        """Repetitions of each setting."""
        return self.setup.repetitions

    @property
    def cells(self) -> int:
        """How many cells it shows."""
        return self.repetitions * len(self.rows)

    @property
    def how(self) -> str:
        """How the settings compare: chosen so, or as they are."""
        if any(self.chosen):
            return ", or ".join(how or "settings as given" for how in self.chosen)
        names = (name for name in ("noise_gain", "group_delay") if self._share(name))
        shared = " and ".join(name.replace("_", " ") for name in names)
        return f"settings as given, equal in {shared}" if shared else "settings as given, not matched"

    def _share(self, quantity: str) -> bool:
        """Whether all estimators have the same value of a closed form."""
        values = np.array([getattr(row.estimator, quantity, np.nan) for row in self.rows.values()])
        return len(values) > 1 and bool(np.all(np.isclose(values, values[0], rtol=1e-9, atol=0.0)))

    def estimators(self) -> Mapping[str, Estimator]:
        """The estimators by name, with their parameters where a name stands for several."""
        names = [name for name, _ in self.rows]
        return {
            f"{name} ({parameters})" if names.count(name) > 1 else name: row.estimator
            for (name, parameters), row in self.rows.items()
        }


@dataclass(frozen=True)
class Runs:
    """How cells are run: where they are stored, by whom, and who is told."""

    store: Store
    executor: Executor
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr)

    def run(self, what: str, wanted: Sequence[Wanted]) -> None:
        """Run what is missing of some cells, after a line that says how they stand."""
        self.store.sweep_up(one.condition.key for one in wanted)
        now = standing(self.store, wanted)
        self.say(f"{what}: {now}")
        if now.to_run:
            total = sum(one.cells for one in wanted)
            run(now, self.store, self.executor, Progress(sys.stderr, total, now.done))
        for complaint in self.store.complaints.values():
            self.say(complaint)
        self.store.complaints.clear()


def panels(points: Sequence[Point], measure: Any, runs: Runs) -> list[Panel]:
    """Settle the settings of all points, by match or tune where these ask for it, and put them together.

    ValueError, one line, where no setting fits.
    """
    for point in points:
        if point.setup.tune is not Tune.none:
            refuse_untunable(point.setup.estimators)
    chosen = _tuned([point.setup for point in points if point.setup.tune is not Tune.none], runs)
    found: dict[str, Panel] = {}
    rows: dict[str, dict[str, dict[tuple[str, str], Setting]]] = {}
    seen: dict[Any, int] = {}
    for point in points:
        setup, how = _matched(point.setup) if point.setup.tune is Tune.none else next(chosen)
        panel = found.setdefault(
            point.stream, Panel(point.stream, setup, setup.condition(measure), point.swept)
        )
        if how not in panel.chosen:
            panel.chosen.append(how)
        named = rows.setdefault(point.stream, {})
        own = {name: _row(name, estimator) for name, estimator in setup.estimators.items()}
        for name, (parameters, row) in own.items():
            named.setdefault(name, {}).setdefault((name, parameters), row)
        whole = point.stream, tuple((name, parameters) for name, (parameters, _) in own.items())
        seen[whole] = seen.get(whole, 0) + 1
    for stream, named in rows.items():
        for settings in named.values():
            found[stream].rows.update(settings)
    if alike := sum(seen.values()) - len(seen):
        same = "1 point of the sweep is" if alike == 1 else f"{alike:,} points of the sweep are"
        runs.say(f"{same} like another: what was swept there is set by match or tune, or makes no difference")
    return list(found.values())


def _row(name: str, estimator: Estimator) -> tuple[str, Setting]:
    """Parameters as the table gives them, with the kind where the name is another, and the setting."""
    kind = snake_case(type(estimator).__name__)
    return " ".join([*[kind] * (kind != name), setting(estimator)]), Setting(estimator)


def wanted(found: Sequence[Panel]) -> list[Wanted]:
    """The cells of some panels, each once."""
    of_condition: dict[str, list[Panel]] = {}
    for panel in found:
        of_condition.setdefault(panel.condition.key, []).append(panel)
    return [
        Wanted(
            own[0].condition,
            list({row.key: row for panel in own for row in panel.rows.values()}.values()),
            max(panel.repetitions for panel in own),
        )
        for own in of_condition.values()
    ]


def collected(found: Sequence[Panel], store: Store) -> tuple[list[Rows], list[str]]:
    """What the store holds of some panels, and a line on each cell that failed.

    In the rows, cells that failed or are missing are named as such.
    """
    rows, failures = [], []
    for panel in found:
        keys = {row.key: panel.repetitions for row in panel.rows.values()}
        series, known = store.read(panel.condition, keys), store.known(panel.condition, keys)
        anywhere = next((of for of in series.values() if of), None)
        errors = store.failures(panel.condition) if any(of.any() for of in known.failed.values()) else {}
        for (name, parameters), row in panel.rows.items():
            absent: dict[int, str] = {}
            for seed in np.flatnonzero(known.failed[row.key]).tolist():
                error = errors[row.key][seed]
                absent[seed] = f"{FAILED}: {error.partition(':')[0]}"
                cell = f"{name} ({parameters}) on {panel.stream}, repetition {seed}"
                failures.append(f"{cell}: {error}")
            never = np.flatnonzero(~(known.done[row.key] | known.failed[row.key])).tolist()
            absent |= dict.fromkeys(never, NOT_RUN)
            measured = series[row.key] or _none(anywhere, panel.repetitions)
            rows.append(Rows(panel.stream, name, parameters, measured, absent))
    return rows, failures


def _none(like: Sequence[Measured] | None, count: int) -> list[Measured]:
    """Measurements without a value, of the metrics that others have."""
    nothing = np.full(count, np.nan)
    return [replace(one, values=nothing) for one in like] if like else [Measured(ANY, "-", nothing)]


def _matched(setup: Setup) -> tuple[Setup, str]:
    if setup.match is Match.none:
        return setup, ""
    first = next(iter(setup.estimators))
    line = f"matched to {first} by {setup.match.value.replace('_', ' ')}"
    return replace(setup, estimators=match_to_first(setup.estimators, setup.match)), line


def _tuned(setups: Sequence[Setup], runs: Runs) -> Iterator[tuple[Setup, str]]:
    """Each setup with its estimators at their best settings, found by cells of their own."""
    tunings: dict[str, Wanted] = {}
    of_setup = []
    for setup in setups:
        condition = Condition(tuned, Tuning(setup.tune), setup.stream, 1.0, setup.root_seed, setup.burn_in)
        settings = {name: Setting(estimator) for name, estimator in setup.estimators.items()}
        of_setup.append((condition, settings))
        before = tunings.get(condition.key)
        everything = {row.key: row for row in (*(before.settings if before else ()), *settings.values())}
        tunings[condition.key] = Wanted(condition, list(everything.values()), 1)
    if tunings:
        runs.run("tuning", list(tunings.values()))
    for setup, (condition, settings) in zip(setups, of_setup, strict=True):
        best, remarks = dict[str, Estimator](), []
        found = runs.store.read(condition, {row.key: 1 for row in settings.values()})
        for name, row in settings.items():
            values = {one.metric: float(one.values[0]) for one in found[row.key]}
            if not values:
                errors = runs.store.failures(condition).get(row.key, {})
                error = errors.get(0, "its cell is gone from the store; give the command again")
                raise ValueError(f"estimators.{name} could not be tuned: {error}")
            best[name] = at_noise_gain(row.estimator, values["noise_gain"])
            if values["edge"]:
                remarks.append(f"{name} at the edge of the settings tried")
        # Recordings are tuned on their first halves, which then count no more.
        burn_in = setup.burn_in if setup.stream.has_truth else max(setup.burn_in, setup.stream.length() // 2)
        line = "; ".join([budget(setup.stream, setup.tune), *remarks])
        yield replace(setup, estimators=best, burn_in=burn_in), line
