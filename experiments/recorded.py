"""Recorded streams: one repetition per file, no known level, evaluated by prediction."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from estimators import Kalman
from experiments.readers import ReadError, read_series
from experiments.streams import DEFAULT_S, Array, Domain, Purpose, Realisations, Stream


@dataclass(frozen=True)
class Recorded(Stream):
    """A series read from training logs: CSV or JSON lines (also gzipped), NPY, Parquet or TensorBoard.

    path: a file or folder, or a pattern that names several, one repetition each; column, or numerator and
    denominator of a ratio. domain: log_ratio takes the logarithm, ratio the values as they are, weight
    1 / (1 + ratio). steps: the first so many samples, null for all. noise_variance: what a Kalman filter is
    told; null estimates it from the recordings. Raises ReadError, one line, for whatever cannot be read.
    """

    has_truth = False

    path: str = ""
    column: str | None = None
    numerator: str | None = None
    denominator: str | None = None
    domain: Domain = Domain.log_ratio
    steps: int | None = None
    noise_variance: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "domain", Domain(self.domain))
        if not self.path:
            raise ValueError("stream.path='' is not valid; it must name a recorded log")
        if self.steps is not None and self.steps < 2:
            raise ValueError(
                f"stream.steps={self.steps} is not valid; it must be an int >= 2, or null for all"
            )
        if self.noise_variance is not None and not self.noise_variance > 0:
            raise ValueError(
                f"stream.noise_variance={self.noise_variance} is not valid; it must be > 0, or null"
            )
        self._series  # noqa: B018  a file that cannot be read is refused before anything is computed

    @property
    def unit(self) -> str:  # type: ignore[override]
        """Unit of the samples; a single column is called by its name."""
        if self.column is None and self.numerator is not None:
            return self.domain.unit
        name = self.column or "value"
        return {Domain.log_ratio: f"log {name}", Domain.ratio: name}.get(self.domain, self.domain.unit)

    @cached_property
    def paths(self) -> list[Path]:
        """The files, in the order of their names."""
        place = os.path.expanduser(self.path)  # which a shell leaves as it is behind an equals sign
        if Path(place).exists() or not glob.has_magic(place):
            return [Path(place)]
        found = sorted(Path(name) for name in glob.glob(place))
        if not found:
            raise ReadError(f"stream.path={self.path!r} matches no file; it must name a recorded log")
        return found

    def length(self) -> int:
        """Samples of each file that are used."""
        return len(self._series)

    def available(self) -> int:
        """One repetition per file."""
        return len(self.paths)

    def digest(self) -> str:
        """Fingerprint of the samples."""
        shape = "x".join(map(str, self._series.shape))  # the same samples may be one file, or two
        return f"{shape}:{hashlib.sha256(self._series.tobytes()).hexdigest()}"

    def draw(self, repetitions: Sequence[int], root_seed: int, purpose: Purpose = "evaluate") -> Realisations:
        """Give the files' samples; selection sees the first half of each, evaluation counts the second."""
        samples = self._series[:, list(repetitions)]
        if purpose == "tune":
            samples = samples[: self.length() // 2]
        return Realisations(samples, None, zero_mean=False)

    def own_noise_variance(self, purpose: Purpose = "evaluate") -> float:
        """Noise variance by maximum likelihood at the default q/r, of all samples or of those for selection.

        r = mean of innovation^2 / innovation variance under r = 1 (Durbin and Koopman 2012, section 2.10.2).
        """
        drawn = self.draw(range(self.available()), 0, purpose)
        run = Kalman(q=DEFAULT_S, r=1.0).filter(drawn.samples)
        with np.errstate(invalid="ignore"):
            scaled = run.innovation**2 / run.innovation_variance
        usable = scaled[np.isfinite(scaled) & np.isfinite(run.innovation_variance)]
        variance = float(usable.mean()) if usable.size else 0.0
        if not variance > 0.0:
            raise ReadError(
                f"stream.path={self.path!r} holds no noise whose variance could be estimated; "
                f"set stream.noise_variance"
            )
        return variance

    @cached_property
    def _series(self) -> Array:
        series = [self._read(path) for path in self.paths]
        lengths = {str(path): len(values) for path, values in zip(self.paths, series, strict=True)}
        shortest = min(lengths.values())
        if self.steps is None and len(set(lengths.values())) > 1:
            listed = ", ".join(f"{Path(name).name} {n}" for name, n in lengths.items())
            raise ReadError(
                f"stream.path={self.path!r}: lengths differ ({listed}); set stream.steps={shortest}"
            )
        if self.steps is not None and self.steps > shortest:
            raise ReadError(f"stream.steps={self.steps} is not valid; {self.path} holds {shortest} samples")
        if shortest < 2:
            raise ReadError(f"stream.path={self.path!r} holds {shortest} sample; at least 2 are needed")
        return np.stack([values[: self.steps] for values in series], axis=1)

    def _read(self, path: Path) -> Array:
        values = read_series(path, self.column, self.numerator, self.denominator)
        if np.isinf(values).any():
            row = int(np.flatnonzero(np.isinf(values))[0]) + 1
            raise ReadError(
                f"stream.path={str(path)!r}: sample {row} is infinite; samples must be finite or missing: "
                "an empty cell or NaN"
            )
        least = {Domain.log_ratio: 0.0, Domain.weight: -np.finfo(float).tiny}.get(self.domain, -np.inf)
        refused = np.flatnonzero(values <= least)
        if refused.size:
            first = f"sample {refused[0] + 1} is {values[refused[0]]:g}"
            raise ReadError(f"stream.domain={self.domain.value}: {first} in {path}; use stream.domain=ratio")
        if self.domain is Domain.ratio:
            return values
        with np.errstate(divide="ignore"):
            return self.domain.of_log_ratio(np.log(values))
