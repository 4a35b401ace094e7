"""How a balanced weight gets from equal shares to its own when the warm-up ends, and what a floor leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from textwrap import fill
from typing import Any

import numpy as np

from estimators import EMA, Estimator, matched
from experiments.agreement import closed_form
from experiments.cells import BLOCK
from experiments.figures import line, styled
from experiments.metrics import Measured, joined
from experiments.runs import Outcome
from experiments.setup import Setup, setting
from experiments.streams import Array, Domain, GradientRatio, is_plain_walk
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import latex
from experiments.transition_report import COLUMNS, text
from experiments.transition_weights import (
    EQUAL,
    SAME,
    STARTS,
    arrival,
    binding,
    course_name,
    exceeded,
    floored,
    limit,
    noise_name,
    smoothed,
)
from experiments.transition_weights import shares as shares
from experiments.transition_weights import steps_to as steps_to

LATE = 5
"""The noisy weights are judged on the last of so many parts of the steps."""
MEMORY = 45
"""Effective windows after which nothing is left of the start: exp(-45) < 3e-20."""


@dataclass(frozen=True)
class Parameters:
    """raw: the large share after the jump, seen without noise; warmup, steps: before and after the jump.

    floor: of a weight before the two are renormalised; levels: weights to be reached; betas: of EMAs. ratios,
    log_sd: in noise, medians of the ratio of two gradient norms, and standard deviation of its logarithm.
    """

    betas: list[float] = field(default_factory=lambda: [0.5, 0.9, 0.95, 0.99, 0.995, 0.999])
    levels: list[float] = field(default_factory=lambda: [0.9, 0.95, 0.99])
    raw: float = 0.998
    warmup: int = 100
    steps: int = 10_000
    floor: float = 0.05
    ratios: list[float] = field(default_factory=lambda: [500.0, 30.0])
    log_sd: float = 1.3

    def __post_init__(self) -> None:
        for name, low, high in (("betas", 0.0, 1.0), ("levels", EQUAL, 1.0), ("ratios", 1.0, 1e6)):
            values = getattr(self, name)
            shown = {float(f"{value:g}") for value in values}  # as they are named
            inside = all(low < value < high for value in (*values, *shown))
            if not inside or len(shown) < max(1, len(values)):
                valid = f"a list of different numbers in ({low:g}, {high:g}), to 6 digits"
                raise ValueError(f"experiment.{name}={values} is not valid; it must be {valid}")
        for name, holds, valid in (
            ("raw", EQUAL < self.raw < 1.0, "in (1/2, 1)"),
            ("warmup", self.warmup >= 1, "an int >= 1"),
            ("steps", self.steps >= 2 * LATE, f"an int >= {2 * LATE}"),
            ("floor", 0.0 < self.floor < EQUAL, "in (0, 1/2)"),
            ("log_sd", 0.0 < self.log_sd <= 5.0, "in (0, 5]"),
        ):
            if not holds:
                value = getattr(self, name)
                raise ValueError(f"experiment.{name}={value} is not valid; it must be {valid}")

    @property
    def late(self) -> int:
        """Last steps on which the noisy weights are judged."""
        return self.steps // LATE


# --- what is measured ---------------------------------------------------------------------------------------


def run(setup: Setup) -> Outcome:
    """Match the estimators to the first one's noise gain, follow them over the jump, then EMAs over noise."""
    setup.check_untuned("experiment=transition matches by noise gain itself")
    chosen: Parameters = setup.parameters
    streams = _streams(setup)
    every = alike(setup.estimators)
    rows = [
        Rows(
            course_name(fed, floor), name, setting(estimator), list(_arrivals(estimator, chosen, fed, floor))
        )
        for fed in STARTS
        for floor in (0.0, chosen.floor)
        for name, (estimator, _) in every.items()
    ]
    betas = {f"ema@{beta:g}": EMA(beta, initial=EQUAL) for beta in chosen.betas}
    rows += [
        Rows("no noise", name, setting(ema), list(_settling(ema, chosen))) for name, ema in betas.items()
    ]
    noisy = []
    for ratio, stream in streams.items():
        found = _noisy(betas, stream, setup)
        noisy += [Rows(noise_name(ratio), name, setting(betas[name]), own) for name, own in found.items()]
    rows += noisy
    table = long_table("transition", rows)
    summary = summarise(table)
    figures = {"transition": _figure(every, chosen), "betas": _figure_of_betas(betas, streams, setup)}
    table_of_noise = long_table("transition", noisy)
    written = latex(summarise(table_of_noise), table_of_noise, COLUMNS)
    return Outcome(table, summary, text(summary, every, setup), figures, written, COLUMNS)


def _streams(setup: Setup) -> dict[float, GradientRatio]:
    """Noisy weights around a constant level by ratio; ValueError for what is no such stream or is ignored."""
    stream, plain, chosen = setup.stream, GradientRatio(), setup.parameters
    if type(stream) is not GradientRatio:
        raise ValueError("experiment=transition needs a ratio of gradients; choose stream=gradient_ratio")
    for name, also, instead in (
        ("median", plain.median, "set experiment.ratios"),
        ("r", plain.r, "set experiment.log_sd"),
        ("s", 0.0, "its level is constant"),
        ("steps", chosen.steps, "set experiment.steps"),
        ("domain", Domain.weight, "it smooths weights"),
    ):
        if getattr(stream, name) not in (getattr(plain, name), also):
            value = getattr(stream, name)
            raise ValueError(f"stream.{name}={value} has no effect in experiment=transition; {instead}")
    if setup.burn_in != min(1000, stream.steps // 4):  # what it is where it is not given
        raise ValueError(
            f"burn_in={setup.burn_in} has no effect in experiment=transition, which looks at every step; "
            "leave it at null"
        )
    if stream.may_have_gaps:
        raise ValueError(
            f"stream.gap_rate={stream.gap_rate} is not valid; it must be 0: weights have no gaps"
        )
    still = replace(stream, r=float(chosen.log_sd) ** 2, s=0.0, steps=chosen.steps, domain=Domain.weight)
    return {float(ratio): replace(still, median=float(ratio)) for ratio in chosen.ratios}


def alike(estimators: Mapping[str, Estimator]) -> dict[str, tuple[Estimator, bool]]:
    """Each estimator at the first one's noise gain, and whether it is: those without one are as given."""
    (first, given), *others = estimators.items()
    if not hasattr(given, "noise_gain"):
        raise ValueError(
            f"estimators.{first} has no noise gain to match; name one first that has, such as ema"
        )
    found = {first: (given, True)}
    for name, estimator in others:
        try:
            found[name] = matched(estimator, given), True
        except TypeError:
            found[name] = estimator, False
        except ValueError as error:
            raise ValueError(
                f"estimators.{name}: no setting matches {given} by noise gain ({error})"
            ) from error
    return found


def _arrivals(estimator: Estimator, chosen: Parameters, fed: bool, floor: float) -> Iterator[Measured]:
    """Steps until each level is exceeded, and the weight after the last step."""
    warmup = chosen.warmup if fed else 0
    weights = shares(estimator, chosen.raw, warmup, chosen.steps, floor)
    most = limit(chosen.raw, floor)
    for level in chosen.levels:
        status = "never" if level >= most else f"> {chosen.steps}"
        yield _one(arrival(level), "steps", exceeded(weights, level, warmup, most), status)
    yield _one("last_weight", "share", weights[-1])


def _one(metric: str, unit: str, value: float, missing: str = "") -> Measured:
    return Measured(metric, unit, np.array([value]), missing)


def _settling(ema: EMA, chosen: Parameters) -> Iterator[Measured]:
    """Steps from equal shares until the floor binds, and the weight that is left when all is settled."""
    settled = int(np.ceil(MEMORY * float(ema.effective_window)))
    weights = shares(ema, chosen.raw, 0, settled)
    never = "never"
    binds = steps_to(weights, 1.0 - chosen.floor, 0)
    yield _one("binds_after", "steps", binds, never)
    yield _one("binds_after_expected", "steps", binding(float(ema.beta), chosen.raw, chosen.floor), never)
    yield _one("final_unfloored", "share", weights[-1])
    yield _one("final_weight", "share", limit(float(weights[-1]), chosen.floor))


def _noisy(betas: Mapping[str, EMA], stream: GradientRatio, setup: Setup) -> dict[str, list[Measured]]:
    """Measurements of each EMA on the same noisy raw weights, over the repetitions."""
    width = max(1, BLOCK // setup.parameters.steps)
    blocks = [range(first, min(first + width, setup.seeds)) for first in range(0, setup.seeds, width)]
    found: dict[str, list[list[Measured]]] = {name: [] for name in betas}
    expected = _expected_raw(stream)
    for block in blocks:
        raw = _raw(stream, block, setup.root_seed)
        for name, ema in betas.items():
            found[name].append(list(_in_noise(ema, raw, setup.parameters, expected)))
    return {name: joined(parts) for name, parts in found.items()}


def _raw(stream: GradientRatio, repetitions: Sequence[int], root_seed: int) -> Array:
    """Raw large shares of the repetitions, (steps, n): what the smaller gradient's task would get, 1 - 1/(1 +
    ratio), by the inverse-norm weights that `Domain.of_log_ratio` has of the larger one.
    """
    large: Array = 1.0 - stream.draw(repetitions, root_seed).samples
    return large


def _in_noise(ema: EMA, raw: Array, chosen: Parameters, expected: float) -> Iterator[Measured]:
    """When the floor first binds on raw weights (steps, n), and the late weights, a value for each of the n.

    expected: mean of the raw weights, NaN where unknown. The closed form beside the mean of the late weights
    is that of an EMA from equal shares, 1/2 beta^t + expected (1 - beta^t), over the late steps t.
    """
    weights = smoothed(ema, raw, chosen.warmup)[chosen.warmup :]
    first = chosen.steps - chosen.late
    late = weights[first:]
    kept = floored(late, chosen.floor)
    below = 1.0 - weights < chosen.floor
    after = np.where(below.any(axis=0), np.argmax(below, axis=0) + 1.0, np.nan)
    yield Measured("binds_after", "steps", after, "never")
    yield Measured("binds_late", "share of steps", below[first:].mean(axis=0))
    yield Measured("mean_unfloored", "share", late.mean(axis=0))
    if np.isfinite(expected):
        left = float(ema.beta) ** np.arange(first + 1.0, chosen.steps + 1.0)
        mean = float((EQUAL * left + expected * (1.0 - left)).mean())
        yield closed_form("mean_unfloored", "share", mean, raw.shape[1])
    yield Measured("mean_floored", "share", kept.mean(axis=0))
    yield Measured("sd_unfloored", "share", late.std(axis=0))
    yield Measured("sd_floored", "share", kept.std(axis=0))


def _expected_raw(stream: GradientRatio) -> float:
    """Mean of the raw large share; NaN where the stream is no constant level in Gaussian noise."""
    plain = is_plain_walk(replace(stream, domain=Domain.log_ratio))
    if not plain or np.isfinite(stream.degrees_of_freedom):
        return np.nan
    return 1.0 - Domain.weight.moments(stream.median, stream.r)[0]


# --- figures ------------------------------------------------------------------------------------------------


def _figure(every: Mapping[str, tuple[Estimator, bool]], chosen: Parameters) -> Any:
    """Weight against steps after the jump, by smoother; rows by floor, columns by start."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(2, 2, figsize=(7.2, 6.0), sharex=True, sharey=True)
        for row, floor in enumerate((0.0, chosen.floor)):
            for column, (fed, start) in enumerate(STARTS.items()):
                axis = axes[row, column]
                warmup = chosen.warmup if fed else 0
                courses = {
                    name: shares(estimator, chosen.raw, warmup, chosen.steps, floor)[warmup:]
                    for name, (estimator, _) in every.items()
                }
                for index, (name, weights) in enumerate(courses.items()):
                    label = name + "*" * (not every[name][1])
                    axis.semilogx(np.arange(1, len(weights) + 1), weights, label=label, **line(index))
                for level in chosen.levels:
                    axis.axhline(level, color="#999999", linewidth=0.7, zorder=1)
                for place, names in enumerate(on_one_line(courses)):
                    told = fill(f"on one line: {', '.join(names)}", 30)
                    axis.text(
                        0.97, 0.1 + 0.25 * place, told, transform=axis.transAxes, fontsize=7, ha="right"
                    )
                axis.set_title(f"{start}, {f'floor {floor:g}' if floor else 'no floor'}", fontsize=9)
            axes[row, 0].set_ylabel("weight of the large share")
        for axis in axes[1]:
            axis.set_xlabel("steps after the jump")
        levels = ", ".join(f"{level:g}" for level in chosen.levels)
        axes[0, 0].plot([], [], color="#999999", linewidth=0.7, label=f"levels {levels}")
        if not all(same for _, same in every.values()):
            axes[0, 0].plot([], [], " ", label="* as given: no noise gain to match")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        pyplot.close(figure)
    return figure


def on_one_line(courses: Mapping[str, Array]) -> list[list[str]]:
    """Names of courses, (steps,) each, that are the same within rounding, where two or more are."""
    groups: list[list[str]] = []
    for name, weights in courses.items():
        for group in groups:
            if np.max(np.abs(courses[group[0]] - weights)) <= SAME:
                group.append(name)
                break
        else:
            groups.append([name])
    return [group for group in groups if len(group) > 1]


def _figure_of_betas(betas: Mapping[str, EMA], streams: Mapping[float, GradientRatio], setup: Setup) -> Any:
    """Weight against steps after the jump in the first noisy repetition, by beta; rows by ratio."""
    chosen: Parameters = setup.parameters
    fastest = min(betas.values(), key=lambda ema: float(ema.beta))
    bound: dict[str, Any] = {"color": "#444444", "linewidth": 1.0, "linestyle": ":", "zorder": 20}
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            len(streams), 2, figsize=(7.2, 2.6 * len(streams) + 1.0), sharex=True, sharey=True, squeeze=False
        )
        for row, (ratio, stream) in zip(axes, streams.items(), strict=True):
            raw = _raw(stream, range(1), setup.root_seed)
            for index, (name, ema) in enumerate(betas.items()):
                weights = smoothed(ema, raw, chosen.warmup)[chosen.warmup :, 0]
                steps = np.arange(1, len(weights) + 1)
                style: dict[str, Any] = {"label": f"β = {name.partition('@')[2]}", **line(index)}
                if ema is fastest:  # which else would hide the others
                    style |= {"linewidth": 0.5, "zorder": 2, "alpha": 0.6}
                row[0].semilogx(steps, weights, **style)
                row[1].semilogx(steps, floored(weights, chosen.floor), **style)
            for axis, told in zip(row, ("no floor", f"floor {chosen.floor:g}"), strict=True):
                axis.set_title(f"ratio {ratio:g}, {told}", fontsize=9)
            row[0].axhline(1.0 - chosen.floor, **bound)
            row[0].set_ylabel("weight of the large share")
        for axis in axes[-1]:
            axis.set_xlabel("steps after the jump")
        axes[0, 0].plot([], [], label="floor binds above", **bound)
        told = (
            f"One noisy stream, at medians of the ratio of {' and '.join(f'{ratio:g}' for ratio in streams)}"
        )
        figure.suptitle(f"{told}; sd of its logarithm {chosen.log_sd:g}", fontsize=9)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        pyplot.close(figure)
    return figure
