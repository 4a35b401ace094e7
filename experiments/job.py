"""From overrides to a finished run: builds the ingredients, runs the experiment unless its run is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import config, registry
from experiments.runs import RunFolder
from experiments.settings import Tune
from experiments.setup import Setup
from experiments.streams import Stream


@dataclass(frozen=True)
class Job:
    """One experiment on one setup, and the configuration that it was built from."""

    experiment: str
    setup: Setup
    composed: Any

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Job:
        """Build everything that the overrides name; ValueError, one line, for what cannot be used."""
        composed, stream_name = config.composed(overrides)
        stream = _built("stream", config.resolved(composed, "stream"), registry.stream_kinds(), stream_name)
        _fill_in(composed, stream)
        estimators = {
            name: _built(f"estimators.{name}", settings, registry.estimator_kinds(), name)
            for name, settings in config.resolved(composed, "estimators").items()
        }
        executor = config.resolved(composed, "executor")
        if executor != {"name": "local"}:
            raise config.ConfigError(f"executor={executor} is not valid; executor=local is the one there is")
        parameters = config.resolved(composed, "experiment")
        experiment = str(parameters.pop("name", None))
        if experiment not in config.options("experiment"):
            valid = registry.nearest(experiment, config.options("experiment"))
            raise config.ConfigError(f"experiment.name={experiment} is not available; {valid}")
        setup = Setup(
            parameters=config.built("experiment", registry.experiment(experiment).Parameters, parameters),
            stream_name=stream_name,
            stream=stream,
            noise_variance=float(composed.stream.noise_variance),
            estimators=estimators,
            seeds=composed.seeds,
            root_seed=composed.root_seed,
            burn_in=composed.burn_in,
            match=composed.match,
            tune=composed.tune,
        )
        return cls(experiment, setup, composed)

    def folder(self) -> RunFolder:
        """Where the run is, or will be."""
        settings = {**config.resolved(self.composed, ""), "stream_name": self.setup.stream_name}
        return RunFolder(Path(self.composed.output), self.experiment, settings, self.setup.stream.digest())

    def config_text(self) -> str:
        """The resolved configuration as YAML."""
        return config.text(self.composed)


def completed(overrides: Sequence[str]) -> tuple[Path, bool]:
    """Run what the overrides describe unless it is there already; its folder, and whether it is new.

    Raises ValueError, one line, for what cannot be used, before anything is written.
    """
    job = Job.of(overrides)
    folder = job.folder()
    if folder.finished():
        return folder.path, False
    folder.prepare()
    outcome = registry.experiment(job.experiment).run(job.setup)
    folder.write(outcome, ["kalmean", *overrides], job.config_text())
    return folder.path, True


def _built(where: str, settings: Any, kinds: Mapping[str, Any], default: str) -> Any:
    if not isinstance(settings, dict):
        raise config.ConfigError(f"{where}={settings} is not valid; it must be a mapping of settings")
    kind = settings.pop("kind", default)
    if kind not in kinds:
        raise config.ConfigError(
            f"{where}.kind={kind} is not available; {registry.nearest(str(kind), kinds)}"
        )
    return config.built(where, kinds[kind], settings)


def _fill_in(composed: Any, stream: Stream) -> None:
    """Set what the configuration leaves to the stream: burn-in, and the noise variance filters are told."""
    steps = stream.length()
    if composed.burn_in is None:
        composed.burn_in = min(1000, steps // 4)
    if not 0 <= composed.burn_in < steps:
        raise config.ConfigError(
            f"burn_in={composed.burn_in} is not valid; it must be in [0, {steps}), the stream's length"
        )
    if composed.stream.noise_variance is None:
        seen = "evaluate" if composed.tune is Tune.none else "tune"
        composed.stream.noise_variance = stream.own_noise_variance(seen)  # type: ignore[arg-type]
