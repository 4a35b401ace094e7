"""How much of a sinusoid on the statistic each estimator lets through, and which beta removes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from estimators import Estimator, LinearEstimator, MovingAverage, Trait
from experiments import disturbance_betas
from experiments.agreement import agreement, closed_form
from experiments.cells import Condition
from experiments.disturbance_betas import REMOVED, decibels
from experiments.disturbance_figures import Shown, beside_zero, bode, needed
from experiments.metrics import Measured, Trial, attenuation, mean_over_time
from experiments.plan import Panel
from experiments.runs import Report
from experiments.streams import Array
from experiments.summaries import Column
from experiments.tables import counted, items, narrowed, quantity, span, verdict_of

SETTLED = 1e-12
"""Weight left behind the burn-in below which a filter is its closed form."""
MARGIN = 0.05
"""Decibels within which two attenuations are the same for every purpose."""
ROUNDED, FINEST = 1e-6, 0.02
"""Half-widths in dB below which all repetitions are equal, and what is told apart in a table."""
LARGEST, LOUDEST, WIDEST = 1e6, 120.0, 100_000
"""Beyond these, or less than 1 / LARGEST, rounding is measured: of amplitude and period, level and window."""
LOBES = (0.0, 0.05, 0.25)
"""Where a window's zeros are looked at, in cycles per sample: the first ones beyond."""


@dataclass(frozen=True)
class Parameters:
    """frequencies in cycles per sample, amplitude in standard deviations of the noise, levels in dB.

    Frequencies in [1e-6, 0.5], amplitude in [1e-6, 1e6], levels in [0.1, 120]; ValueError elsewhere.

    window: the moving average whose zeros, and what lies midway between them, linear filters are also
    measured at; 0 for none.
    """

    frequencies: list[float] = field(
        default_factory=lambda: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5]
    )
    amplitude: float = 1.0
    levels: list[float] = field(default_factory=lambda: [20.0, 30.0, 40.0])
    window: int = 199

    def __post_init__(self) -> None:
        for name, holds, valid in (
            (
                "frequencies",
                _all_in(self.frequencies, 1.0 / LARGEST, 0.5),
                f"a list of numbers in [{1.0 / LARGEST:g}, 0.5], none of them twice",
            ),
            (
                "levels",
                _all_in(self.levels, 0.1, LOUDEST),
                f"a list of numbers in [0.1, {LOUDEST:g}], none of them twice",
            ),
            (
                "amplitude",
                1.0 / LARGEST <= self.amplitude <= LARGEST,
                f"in [{1.0 / LARGEST:g}, {LARGEST:g}] standard deviations of the noise",
            ),
            ("window", 0 <= self.window <= WIDEST, f"an int from 0 to {WIDEST}"),
        ):
            if not holds:
                raise ValueError(f"experiment.{name}={getattr(self, name)} is not valid; it must be {valid}")

    @property
    def lobes(self) -> list[tuple[float, float]]:
        """Zeros of the window, each with the frequency midway to the next."""
        zeros = sorted({int(self.window * low) + 1 for low in LOBES}) if self.window else []
        pairs = [(k / self.window, (k + 0.5) / self.window) for k in zeros]
        return [pair for pair in pairs if pair[1] <= 0.5]


def measure(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Attenuation of a cosine on the stream, by the map that each run used, at every frequency.

    The estimator runs on samples plus cosine and its map is replayed on the cosine alone; the amplitude is
    that of the least-squares sinusoid in the second half of the stream (after the burn-in if that is later).
    By effect: root mean square of the estimate with the cosine less the one without it, over the cosine's.
    """
    chosen: Parameters = condition.parameters
    trial = condition.trial(estimator, repetitions)
    linear = Trait.LINEAR in estimator.traits
    asked = {metric(f) for f in chosen.frequencies}
    extra = {f for pair in chosen.lobes for f in pair if linear and metric(f) not in asked}
    found = [] if trial.drawn.level is None else list(attenuation(trial))
    for f in (*chosen.frequencies, *sorted(extra)):
        found += _at(trial, f, chosen.amplitude * trial.noise_sd, linear)
        exact = not condition.stream.may_have_gaps and _settled(
            estimator, measured_from(condition.stream.length(), condition.burn_in)
        )
        if linear and exact and isinstance(estimator, LinearEstimator):
            gain = float(np.abs(estimator.frequency_response(f)))
            expected = -20.0 * np.log10(gain) if gain > REMOVED else np.nan
            found.append(closed_form(metric(f), "dB", expected, len(repetitions)))
    return found


def measured_from(steps: int, burn_in: int) -> int:
    """The sample from which on attenuation is measured."""
    return max(burn_in, steps // 2)


def metric(f: float, by: str = "attenuation") -> str:
    """What the attenuation at a frequency is called."""
    return f"{by}_db@{f:.6g}"


def _at(trial: Trial, f: float, amplitude: float, linear: bool) -> Iterator[Measured]:
    time = np.arange(len(trial.drawn.samples), dtype=np.float64)
    names = metric(f), metric(f, "effect")
    first = measured_from(len(time), trial.burn_in)
    periods = f * (len(time) - first)
    if periods < 1.0 or not trial.additive:
        why = "works on logarithms" if periods >= 1.0 else "less than a period"
        nothing = np.full(trial.drawn.samples.shape[1], np.nan)
        yield from (Measured(name, "dB", nothing, why) for name in names)
        return
    wave = amplitude * np.cos(2.0 * np.pi * ((f * time) % 1.0))
    run = trial.run if linear else trial.estimator.filter(trial.drawn.samples + wave[:, np.newaxis])
    passed = np.asarray(run.replay(wave[:, np.newaxis], 0.0))[first:]
    yield Measured(names[0], "dB", decibels(amplitude_at(f, passed, first) / amplitude), "removed")
    # What a map that does not depend on the data makes of the cosine is all that the cosine changes.
    moved = passed if linear else (np.asarray(run.mean) - np.asarray(trial.run.mean))[first:]
    power = mean_over_time(moved**2) / np.mean(wave[first:] ** 2)
    yield Measured(names[1], "dB", decibels(np.sqrt(power)), "removed")


def amplitude_at(f: float, values: Array, first: int = 0) -> Array:
    """Amplitude of the least-squares sinusoid of a frequency in values (T, n), whose first sample is so late.

    Exact for any stretch of a sinusoid of a period or more; at half a cycle per sample, of the cosine.
    """
    turns = 2.0 * np.pi * ((f * np.arange(first, first + len(values))) % 1.0)
    waves = np.stack([np.cos(turns), np.sin(turns)])
    along = np.stack([mean_over_time(values * wave[:, np.newaxis]) for wave in waves])
    (cc, cs), (_, ss) = np.linalg.pinv(waves @ waves.T / len(values), rcond=1e-9, hermitian=True)
    amplitude: Array = np.hypot(cc * along[0] + cs * along[1], cs * along[0] + ss * along[1])
    return amplitude


def report(panels: Sequence[Panel], summary: pd.DataFrame) -> Report:
    """Attenuation by frequency and estimator, the window's zeros, the betas that reach a level."""
    chosen: Parameters = panels[0].setup.parameters
    betas = [disturbance_betas.reached(f, level) for f in chosen.frequencies for level in chosen.levels]
    blocks, conclusions, shown = [], [], []
    for panel in panels:
        found = Found.of(panel, summary)
        # What a linear filter does to a cosine does not depend on how large it is.
        again = panel is not panels[0] and panel.setup.stream == panels[0].setup.stream
        own: Parameters = panel.setup.parameters
        shown.append(Shown(own.amplitude, found.estimators, found.points(own), found.removed(own)))
        steps = panel.setup.stream.length()
        blocks.append(
            f"disturbance: a cosine of {own.amplitude:g} noise sd on {panel.setup.stream_name}, "
            f"{counted(panel.repetitions, 'stream')} of {steps:,} samples,\nroot seed "
            f"{panel.setup.root_seed}. Attenuation in dB from sample "
            f"{measured_from(steps, panel.condition.burn_in):,} on; {panel.how}."
        )
        blocks += _tables(found, own, with_linear=not again)
        said = list(sentences(found, own, with_linear=not again))
        told = items(f"{one}." for one in said)
        conclusions.append(f"A cosine of {own.amplitude:g} noise sd on {panel.stream}:\n\n{told}")
    blocks += [
        "By map: amplitude of what the map that a run used makes of the cosine, with what of its scatter\n"
        "lies at that frequency. By effect: root mean square of the estimate with the cosine less the one\n"
        "without it, over that of the cosine (the same thing where the map does not depend on the data).\n"
        "White noise: power in over power out, by map, after the burn-in. Removed: less than "
        f"{REMOVED:g} of it is left.\n"
        + (
            f"± is half of a 95 % interval over the streams, n = {panels[0].repetitions}; "
            "without ± all are equal."
            if panels[0].repetitions > 1
            else "One stream has no interval: linear filters alone are told apart, as they owe nothing to it."
        ),
        *conclusions,
        "The least beta of an EMA that attains a level, its lag in samples and in periods of the cosine:",
        disturbance_betas.table(betas),
        items(f"{one}." for one in disturbance_betas.sentences(betas)),
        str(agreement(summary)),
    ]
    columns = [Column(metric(f), f"f = {f:g} (dB)", MARGIN, better="more") for f in chosen.frequencies]
    figures = {"bode": bode(shown), "beta": needed(betas)}
    return Report("\n\n".join(blocks) + "\n", figures, columns)


@dataclass(frozen=True)
class Found:
    """The rows of a panel's summary by estimator and metric.

    exact: whether what a linear filter makes of a cosine owes nothing to chance, as no sample is missing.
    """

    estimators: Mapping[str, Estimator]
    rows: Mapping[tuple[str, str], Any]
    exact: bool

    @classmethod
    def of(cls, panel: Panel, summary: pd.DataFrame) -> Found:
        """Those of the panel's own stream."""
        summary = summary[summary["stream"] == panel.stream]
        estimators = panel.estimators()
        rows: dict[tuple[str, str], Any] = {}
        for shown, (name, parameters) in zip(estimators, panel.rows, strict=True):
            own = summary[(summary["estimator"] == name) & (summary["parameters"] == parameters)]
            rows |= {(shown, str(row["metric"])): row for _, row in own.iterrows()}
        return cls(estimators, rows, not panel.setup.stream.may_have_gaps)

    def linear(self, yes: bool) -> list[str]:
        """Estimators whose map does not depend on the data, or those whose does."""
        return [name for name, one in self.estimators.items() if (Trait.LINEAR in one.traits) is yes]

    def mean(self, name: str, of: str) -> float:
        """Mean over the repetitions, NaN where there is none."""
        row = self.rows.get((name, of))
        return np.nan if row is None else float(row["mean"])

    def points(self, chosen: Parameters) -> dict[str, list[tuple[float, float, float]]]:
        """Frequency, gain in dB and half-width: of linear filters by map, of the others by effect."""
        own: dict[str, list[tuple[float, float, float]]] = {}
        lobes = [f for pair in chosen.lobes for f in pair]
        for name, estimator in self.estimators.items():
            by, more = ("attenuation", lobes) if Trait.LINEAR in estimator.traits else ("effect", [])
            rows = {f: self.rows.get((name, metric(f, by))) for f in (*chosen.frequencies, *more)}
            own[name] = [
                (f, -row["mean"], row["high"] - row["mean"])
                for f, row in sorted(rows.items())
                if row is not None and row["n"]
            ]
        return own

    def removed(self, chosen: Parameters) -> dict[str, list[float]]:
        """Frequencies of which a linear filter leaves nothing."""
        asked = sorted({*chosen.frequencies, *(f for pair in chosen.lobes for f in pair)})
        rows = {(name, f): self.rows.get((name, metric(f))) for name in self.linear(True) for f in asked}
        return {
            name: [f for f in asked if (row := rows[name, f]) is not None and row["status"] == "removed"]
            for name in self.linear(True)
        }

    def shown(self, name: str, of: str) -> str:
        """A cell of a table."""
        row = self.rows.get((name, of))
        if row is None:
            return "-"
        if row["n"] == 0:
            return str(row["status"])
        half = row["high"] - row["mean"]
        if not half > ROUNDED:
            return f"{row['mean']:.2f}"
        least = FINEST if half < FINEST else half  # rounded up to what is told apart
        return quantity(row["mean"], least)


def _tables(found: Found, chosen: Parameters, with_linear: bool) -> Iterator[str]:
    linear, dependent = found.linear(True) if with_linear else [], found.linear(False)
    for names, by, title in (
        (linear, "attenuation", "Linear filters (measured; the closed form is in table.csv):"),
        (dependent, "attenuation", "Estimators whose map depends on the data, by map:"),
        (dependent, "effect", "The same, by effect:"),
    ):
        lines = [["f (cycles/sample)", *names]]
        lines += [[f"{f:g}", *(found.shown(n, metric(f, by)) for n in names)] for f in chosen.frequencies]
        if by == "attenuation":
            lines.append(["white noise", *(found.shown(n, "attenuation_db") for n in names)])
        if names:
            yield title + "\n\n" + narrowed(lines)
    if linear and chosen.lobes:
        lines = [[f"zeros of N = {chosen.window}", "f", *linear]]
        for pair in chosen.lobes:
            k = round(pair[0] * chosen.window)
            for label, f in zip((f"{k}/N", f"({k} + 1/2)/N"), pair, strict=True):
                lines.append([label, f"{f:.6g}", *(found.shown(n, metric(f)) for n in linear)])
        yield (
            f"At the zeros of a window of {chosen.window}, and midway to the next:\n\n"
            + narrowed(lines, kept=2)
        )


def sentences(found: Found, chosen: Parameters, with_linear: bool = True) -> Iterator[str]:
    """What the numbers say, estimator by estimator, against the first one named."""
    first = next(iter(found.estimators))
    count, dependent = len(chosen.frequencies), found.linear(False)
    for name in found.estimators:
        if name == first or not (with_linear or name in dependent):
            continue
        by = "effect" if name in dependent else "attenuation"
        exact = found.exact and not {name, first} & {*dependent}
        verdicts: dict[str, list[float]] = {}
        for f in chosen.frequencies:
            row = found.rows.get((name, metric(f, by)))
            if row is not None and row["n"]:
                verdict = verdict_of(row, Column(metric(f, by), "", MARGIN, exact=exact))
                key = verdict or ("more" if row["difference"] > 0.0 else "less")
                verdicts.setdefault(key, []).append(float(row["difference"]))
        valued = sum(len(values) for key, values in verdicts.items() if key != "no value")
        if len(verdicts.get("tie", [])) == count:
            yield f"{name} ties with {first} at all {count} frequencies (within {MARGIN:g} dB)"
            continue
        parts = [
            f"{said} at {len(verdicts[key])}" + (f" ({span(verdicts[key])} dB)" if key != "tie" else "")
            for key, said in _SAID.items()
            if key in verdicts
        ]
        how = ", by effect" if name in dependent else ""
        without = f" ({count - valued} more without a value)" if 0 < valued < count else ""
        at = valued or count
        places = f"{at} {'frequency' if at == 1 else 'frequencies'}{without}"
        yield f"{name} against {first}{how}, {places}: {', '.join(parts) or 'no values'}"
    if with_linear:
        yield from _of_window(found, chosen, first)
    for name in dependent:
        apart = [
            found.mean(name, metric(f, "effect")) - found.mean(name, metric(f)) for f in chosen.frequencies
        ]
        if np.isfinite(apart).any():
            yield f"{name}: its attenuation by effect less that by map is {span(apart)} dB"


_SAID = {
    "tie": "ties",
    "more": "attenuates more",
    "less": "attenuates less",
    "not told apart": "not told apart",
}


def _of_window(found: Found, chosen: Parameters, first: str) -> Iterator[str]:
    for name, estimator in found.estimators.items():
        if not isinstance(estimator, MovingAverage) or estimator.window != chosen.window or not chosen.lobes:
            continue
        zeros = [found.rows.get((name, metric(zero))) for zero, _ in chosen.lobes]
        gone = sum(row is not None and row["n"] == 0 and row["status"] == "removed" for row in zeros)
        text = f"{name}: at {gone} of {len(zeros)} of its zeros nothing is left (below {REMOVED:g})"
        if name != first:
            less = [found.mean(name, metric(f)) - found.mean(first, metric(f)) for _, f in chosen.lobes]
            text += f"; midway between them its attenuation less that of {first} is {span(less)} dB"
        beside = sum(beside_zero(f, chosen.window) for f in chosen.frequencies)
        yield f"{text}; {beside} of the {len(chosen.frequencies)} frequencies of the table lie beside a zero"


def _settled(estimator: Estimator, first: int) -> bool:
    """Whether a sample that is so old, or older, has no weight left."""
    if not isinstance(estimator, LinearEstimator):
        return False
    return bool(np.abs(np.asarray(estimator.impulse_response(2 * first))[first:]).sum() < SETTLED)


def _all_in(values: Sequence[float], low: float, high: float) -> bool:
    return 0 < len(values) == len({f"{value:.6g}" for value in values}) and all(
        low <= value <= high for value in values
    )
