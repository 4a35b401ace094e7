"""From overrides to a finished run: builds the ingredients, runs what is missing, writes the folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments import config, registry
from experiments.axes import Sweep
from experiments.cells import plain
from experiments.composer import Composer
from experiments.composer import Point as Composed
from experiments.executors import Executor
from experiments.plan import Panel, Point, Runs, collected, panels, wanted
from experiments.recorded import Recorded
from experiments.runner import StoppedError, standing
from experiments.runs import Outcome, RunFolder
from experiments.settings import Tune
from experiments.setup import Setup
from experiments.store import Store, versions
from experiments.streams import Stream
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import latex, starred


@dataclass(frozen=True)
class Job:
    """One experiment on the setups of a sweep, of which there is one where nothing is swept."""

    experiment: str
    points: Sequence[Point]
    executor: Executor
    output: Path
    text: str
    """The configuration as YAML; of a sweep what all points share, as it is written, and the axes."""

    @classmethod
    def of(cls, overrides: Sequence[str], multirun: bool = False) -> Job:
        """Build everything that the overrides name; ValueError, one line, for what cannot be used."""
        sweep = Sweep.of(overrides, multirun)
        composer, builder = Composer(sweep.fixed), _Builder()
        points = []
        for chosen in sweep.points():
            with sweep.explaining(), composer.at(chosen) as composed:
                swept = dict(composed.label(text) for text in chosen)  # before the stream fills in its own
                points.append(Point(builder.setup(composed), swept))
                if len(points) == 1:
                    experiment = str(composed.resolved("experiment")["name"])
                    executor = builder.executor(composed)
                    output = Path(composed.config.output)
                    text = config.text(composed.config)
        if sweep.axes:
            text = sweep.text()
            if not hasattr(registry.experiment(experiment), "measure"):
                raise config.ConfigError(f"experiment={experiment} has no cells to sweep; leave out -m")
        return cls(experiment, points, executor, output, text)

    @property
    def setup(self) -> Setup:
        """The setup of the first point."""
        return self.points[0].setup

    @cached_property
    def folder(self) -> RunFolder:
        """Where the run is, or will be: named by all that determines its numbers."""
        content = [[self._content(point.setup), dict(point.swept)] for point in self.points]
        return RunFolder(self.output, self.experiment, content)

    def _content(self, setup: Setup) -> dict[str, Any]:
        # In the order given: estimators are compared with, and matched to, the first one named.
        content: dict[str, Any] = plain(setup)
        content["estimators"] = list(content["estimators"].items())
        content["stream"].pop("path", None)  # the samples themselves count, not where they lie
        if isinstance(setup.stream, Recorded) and not hasattr(
            registry.experiment(self.experiment), "measure"
        ):
            content["names"] = [path.name for path in setup.stream.paths]  # which its report calls them by
        content["samples"] = setup.stream.digest()
        return content


@dataclass(frozen=True)
class Finished:
    """A run that is there: its folder, whether it is new, what became of cells that failed, and how many
    were gone when they were to be read.
    """

    path: Path
    fresh: bool
    failures: Sequence[str] = ()
    missing: int = 0


def completed(overrides: Sequence[str], multirun: bool = False) -> Finished:
    """Run what the overrides describe, as far as it is not there already.

    Raises ValueError, one line, for what cannot be used, before anything is written; StoppedError, after
    a manifest that says how far it came, when asked to stop.
    """
    job = Job.of(overrides, multirun)
    folder, module = job.folder, registry.experiment(job.experiment)
    runs = Runs(Store(job.output), job.executor)
    if folder.finished():
        if cells := folder.cells():
            runs.say(f"cells: {cells['done']:,} done, 0 failed, 0 to run")
        return Finished(folder.path, fresh=False)
    folder.prepare()
    command = ["kalmean", *["-m"] * multirun, *overrides]
    if not hasattr(module, "measure"):
        folder.write(module.run(job.setup), command, job.text)
        return Finished(folder.path, fresh=True)
    try:
        found = panels(job.points, module.measure, runs)
        runs.run("cells", wanted(found))
    except StoppedError as stop:
        folder.note(command, job.text, {"stopped": str(stop)})
        raise
    rows, failures = collected(found, runs.store)
    now = standing(runs.store, wanted(found))
    cells = {"done": now.done, "failed": now.failed, "missing": now.to_run - now.failed}
    if others := runs.store.versions - {versions()}:
        runs.say(f"some of these cells are of other versions than {versions()}: {'; '.join(sorted(others))}")
    folder.write(_outcome(job.experiment, module, found, rows), command, job.text, cells, runs.store.versions)
    return Finished(folder.path, True, failures, cells["missing"])


def _outcome(experiment: str, module: Any, found: Sequence[Panel], rows: Sequence[Rows]) -> Outcome:
    table = long_table(experiment, rows)
    summary = summarise(table)
    report = module.report(found, summary)
    written = latex(summary, table, report.columns) if report.columns else ""
    text = starred(report.text, summary, table, report.columns) if report.columns else report.text
    return Outcome(table, summary, text, report.figures, written, report.columns, report.series)


@dataclass
class _Builder:
    """Builds what settings name; streams, which may have to read files, once for the same settings."""

    streams: dict[str, Stream] = field(default_factory=dict)
    variances: dict[tuple[str, str], float] = field(default_factory=dict)
    experiments: Mapping[str, str] = field(default_factory=lambda: config.options("experiment"))

    def setup(self, composed: Composed) -> Setup:
        """The setup of a point."""
        settings, stream_name = composed.resolved("stream"), composed.base.stream_name
        if not isinstance(settings, dict):
            raise config.ConfigError(f"stream={settings} is not valid; it must be a mapping of settings")
        name = json.dumps(plain([settings, stream_name]))
        if name not in self.streams:
            self.streams[name] = _built("stream", settings, registry.stream_kinds(), stream_name)
        stream = self.streams[name]
        burn_in = self._burn_in(composed, stream)
        noise_variance = self._noise_variance(composed, settings["noise_variance"], stream, name)
        estimators = {
            row: _built(f"estimators.{row}", own, registry.estimator_kinds(), row)
            for row, own in composed.resolved("estimators").items()
        }
        parameters = dict(composed.resolved("experiment"))
        kind = registry.experiment(self.experiment(parameters.pop("name", None))).Parameters
        parameters.pop("sweep", None)
        return Setup(
            parameters=config.built("experiment", kind, parameters),
            stream_name=stream_name,
            stream=stream,
            noise_variance=noise_variance,
            estimators=estimators,
            burn_in=burn_in,
            **{key: composed.resolved(key) for key in ("seeds", "root_seed", "match", "tune")},
        )

    def experiment(self, name: Any) -> str:
        """Name of an experiment that there is."""
        if name not in self.experiments:
            valid = registry.nearest(str(name), self.experiments)
            raise config.ConfigError(f"experiment.name={name} is not available; {valid}")
        return str(name)

    def executor(self, composed: Composed) -> Executor:
        """What runs the cells."""
        settings, kinds = composed.resolved("executor"), registry.executor_kinds()
        if isinstance(settings, dict):
            settings = dict(settings)
        name = settings.pop("name", None) if isinstance(settings, dict) else settings
        if name not in kinds or not isinstance(settings, dict):
            raise config.ConfigError(
                f"executor={name} is not available; {registry.nearest(str(name), kinds)}"
            )
        built: Executor = config.built("executor", kinds[name], settings)
        return built

    def _burn_in(self, composed: Composed, stream: Stream) -> int:
        """Samples before errors count, those of the stream where the configuration leaves it to that."""
        steps = stream.length()
        if composed.resolved("burn_in") is None:
            composed.set("burn_in", min(1000, steps // 4))
        burn_in: int = composed.resolved("burn_in")
        if not 0 <= burn_in < steps:
            raise config.ConfigError(
                f"burn_in={burn_in} is not valid; it must be in [0, {steps}), the stream's length"
            )
        return burn_in

    def _noise_variance(self, composed: Composed, given: float | None, stream: Stream, name: str) -> float:
        """What filters are told, which is the stream's own where the configuration leaves it to that."""
        if given is not None:
            return float(given)
        seen = "evaluate" if composed.resolved("tune") is Tune.none else "tune"
        if (name, seen) not in self.variances:
            self.variances[name, seen] = stream.own_noise_variance(seen)  # type: ignore[arg-type]
        composed.set("stream.noise_variance", self.variances[name, seen])
        return self.variances[name, seen]


def _built(where: str, settings: Any, kinds: Mapping[str, Any], default: str) -> Any:
    if not isinstance(settings, dict):
        raise config.ConfigError(f"{where}={settings} is not valid; it must be a mapping of settings")
    settings = dict(settings)
    kind = settings.pop("kind", default)
    if kind not in kinds:
        raise config.ConfigError(
            f"{where}.kind={kind} is not available; {registry.nearest(str(kind), kinds)}"
        )
    for name, value in settings.items():
        if isinstance(value, dict):  # an estimator that another one runs
            settings[name] = _built(f"{where}.{name}", value, kinds, name)
    return config.built(where, kinds[kind], settings)
