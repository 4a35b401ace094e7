"""The text of the optimiser experiment: tables by regime, goals, and what is told apart of how many."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pandas as pd

from experiments.goals import Goal
from experiments.moments import LEARNING_RATE, Quality
from experiments.problems import Characters
from experiments.setup import Setup
from experiments.streams import Array
from experiments.summaries import mean_interval
from experiments.tables import aligned, counted, items, quantity, wrapped
from experiments.training import (
    ADAMS,
    BASELINE,
    BETAS,
    FILTERS,
    FIXED,
    REGIMES,
    Difference,
    Filtered,
    Result,
    Results,
    methods,
)

if TYPE_CHECKING:
    from experiments.optimiser import Parameters

EDGE = "edge optimum"
NMSE, RATIO, COSINE, GAIN = "nmse", "nmse_ratio", "cosine", "mean_gain"
FINEST = 1e-3
"""What is told apart in the tables of moments."""
LESS = 0.99
"""Share of the error of Adam's moment below which another errs less; a settled Kalman filter ties."""
GOALS = tuple(
    Goal(f"{who} on {regime}: NMSE over the best fixed beta's", f"gradient, {regime}", who, 1.5, metric=RATIO)
    for who in ("mehra", "bank")
    for regime in ("batch_4", "batch_32", "gradient_noise", "label_noise")
)
"""Batches of 32 or fewer; nothing is tuned."""


Judged: TypeAlias = "tuple[Filtered, dict[str, Quality]]"


def written(
    setup: Setup,
    moments: Sequence[Judged],
    results: Results,
    summary: pd.DataFrame,
) -> str:
    """Put tables and findings together, in lines of at most 110 columns."""
    chosen: Parameters = setup.parameters
    blocks = [
        wrapped(
            f"optimiser: whether better filtered gradients train better; {counted(chosen.steps, 'step')}, "
            f"{counted(setup.seeds, 'seed')} (weights, batches, noise), root seed {setup.root_seed}."
        ),
        items(f"{name}: {REGIMES[name].words}" for name in chosen.regimes),
    ]
    if moments:
        blocks += _of_moments(chosen, moments, summary)
    blocks.append(
        wrapped(
            "Training, no weight decay. Of each preset the learning rate of least mean validation NLL at "
            f"the end, on a grid of factor {chosen.factor:.4g}, with a lower and a higher rate tried; the "
            "test NLL there is reported. Differences are paired by seed, less is better; ± is half of a 95 % "
            "interval (Student's t); * it excludes 0. Not in it: that another rate might have been chosen, "
            "and other test samples, as all seeds share these."
        )
    )
    streams = results.streams()
    for schedule in chosen.schedules:
        for texts in (False, True):
            own = {
                result[0].task.regime: result
                for result in streams.values()
                if result[0].task.schedule == schedule
                and isinstance(REGIMES[result[0].task.regime].problem, Characters) == texts
            }
            if own:
                blocks += _of_training(schedule, own)
    told = [wrapped(f"- {said}", "  ") for said in _findings(streams, moments)]
    blocks += ["Verdicts:", "\n".join(told)] if told else []
    return "\n\n".join(blocks) + "\n"


def _of_moments(chosen: Parameters, moments: Sequence[Judged], summary: pd.DataFrame) -> Iterator[str]:
    """Tables of the errors, of their ratios to the best fixed beta's, and of gains; the goals."""
    names = list(dict.fromkeys(name for _, found in moments for name in found))
    head = [task.regime for task, _ in moments]

    def row(title: str, values: Iterator[Array | None], finest: float = FINEST) -> list[str]:
        return [title, *("-" if value is None else _quantity(value, finest) for value in values)]

    yield wrapped(
        f"Squared error of a moment over the squared gradient of the whole training set, after "
        f"{counted(chosen.warmup, 'step')} of Adam at a rate of {LEARNING_RATE:g}; "
        "an estimate of 0 has an error of 1:"
    )
    titles = {name: f"beta {name}" if name[0].isdigit() else name for name in names}
    yield aligned(
        [["moment", *head]]
        + [row(titles[name], (found[name].nmse for _, found in moments)) for name in names],
        texts=1,
    )
    yield "Cosine of the angle between a moment and that gradient, mean over the steps:"
    yield aligned(
        [["moment", *head]]
        + [row(titles[name], (found[name].cosine for _, found in moments)) for name in names],
        texts=1,
    )
    yield "The error over that of the fixed beta that is best in hindsight:"
    adapting = [name for name in names if not name[0].isdigit()]
    lines = [["moment", *head], ["best fixed beta", *(_marked(best_fixed(found)) for _, found in moments)]]
    for name in adapting:
        ratios = (found[name].nmse / found[best_fixed(found)].nmse for _, found in moments)
        lines.append(row(titles[name], ratios))
    lines += [
        row(f"{name}: mean gain", (found[name].gain for _, found in moments), 0.0)
        for name in adapting
        if any(found[name].gain is not None for _, found in moments)
    ]
    yield aligned(lines, texts=1)
    useless = [
        task.regime for task, found in moments if min(one.nmse.mean() for one in found.values()) >= 1.0
    ]
    if useless:
        yield wrapped(
            f"On {', '.join(useless)} no moment errs less than an estimate of 0, of which the ratio would be "
            "below 1: a small ratio there does not say that a moment knows the gradient."
        )
    verdicts = [said for goal in GOALS if (said := _verdict(goal, summary))]
    if verdicts:
        yield "Goals, for batches of 32 or fewer, untuned:"
        yield items(verdicts)


def _verdict(goal: Goal, summary: pd.DataFrame) -> str:
    """A goal on a mean with its interval; empty where it was not measured."""
    at = (summary["stream"] == goal.contest) & (summary["metric"] == goal.metric)
    found = summary[at & (summary["estimator"] == goal.who)]
    if found.empty:
        return ""
    mean, high = float(found["mean"].iloc[0]), float(found["high"].iloc[0])
    verdict = "met" if goal.met(mean) else "missed"
    if abs(mean - goal.bound) < high - mean:
        verdict += ", by less than its ±"
    return f"{goal.what}: asked {goal.asked}, found {quantity(mean, high - mean)}: {verdict}."


def _of_training(schedule: str, streams: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """Differences to the baseline and to the best Adam, and the rates, for some regimes."""
    presets = list(dict.fromkeys(result.task.preset for own in streams.values() for result in own))
    by_name = {regime: {result.task.preset: result for result in own} for regime, own in streams.items()}
    best = {regime: Results.best_adam(own) for regime, own in streams.items()}
    for base, title in (
        ({regime: own[BASELINE] for regime, own in by_name.items()}, BASELINE),
        (best, "the Adam that validates best"),
    ):
        lines = [["preset", *streams]]
        lines.append([f"{'adam' if base is not best else 'best Adam'}: NLL", *map(_absolute, base.values())])
        if base is best:
            lines.append(["best Adam", *(result.task.preset for result in base.values())])
        for preset in presets:
            cells = [_difference(by_name[regime].get(preset), base[regime]) for regime in streams]
            if preset != BASELINE or base is best:
                lines.append([preset, *cells])
        yield f"Learning rate {_words(schedule)}: test NLL less that of {title}, 0.001 nats:"
        yield aligned(lines, texts=1)
    lines = [["preset", *streams]]
    for preset in presets:
        lines.append([preset, *(_rate(own.get(preset)) for own in by_name.values())])
    yield "The learning rates chosen:"
    yield aligned(lines, texts=1)


def _words(schedule: str) -> str:
    return {"linear": "falling linearly to 0"}.get(schedule, schedule)


def _absolute(result: Result) -> str:
    if result.test is None:
        return EDGE
    mean, _, high, _ = mean_interval(1e3 * result.test)
    return f"{mean:.1f}{_half(high - mean)} "


def _difference(result: Result | None, base: Result) -> str:
    if result is None:
        return "- "
    if result is base:
        return "0 "
    if result.test is None or base.test is None:
        return f"{EDGE} "
    difference = Difference(result, result.test - base.test)
    mean, _, high = (1e3 * value for value in difference.interval)
    return f"{mean:+.1f}{_half(high - mean)}{'*' if difference.told_apart else ' '}"


def _half(half: float) -> str:
    """Half of an interval, which one seed has not."""
    return f" ± {half:.1f}" if math.isfinite(half) else ""


def _rate(result: Result | None) -> str:
    if result is None:
        return "-"
    return f"{result.trials.rate:.3g}{'' if result.trials.interior else ' (edge)'}"


def _findings(streams: Mapping[str, Sequence[Result]], moments: Sequence[Judged]) -> Iterator[str]:
    """How many comparisons, what would be told apart by chance, and what is, for each of both bases."""
    edges = [result for own in streams.values() for result in own if result.test is None]
    for title, base in (
        ("Adam", lambda own: own[0]),
        ("the best Adam by validation", Results.best_adam),
    ):
        every = [one for own in streams.values() for one in Results.differences(own, base(own))]
        told = [one for one in every if one.told_apart]
        better = [one for one in told if one.interval[0] < 0.0]
        yield (
            f"Against {title}: {counted(len(every), 'comparison')}, of which {0.05 * len(every):.1f} would "
            f"be told apart by chance, half of them as better. Told apart: {len(better)} better, "
            f"{len(told) - len(better)} worse; {len(every) - len(told)} not."
        )
        if better:
            yield f"Better than {title}: {'; '.join(_favoured(one, len(every)) for one in better)}."
        if any(one.survives(len(every)) for one in better):
            yield f"** also by an interval for {len(every)} comparisons (Bonferroni)."
    yield from _of_least_beta(streams)
    yield from _of_better_moments(streams, moments)
    for result in edges:
        rates = result.trials.rates
        yield (
            f"No optimum, and so no value: {result.task.preset} on {result.task.stream}; the best of "
            f"the rates from {rates[0]:.3g} to {rates[-1]:.3g} is {result.trials.rate:.3g}, on the edge."
        )


def _of_least_beta(streams: Mapping[str, Sequence[Result]]) -> Iterator[str]:
    """Where the best Adam has the least beta1 of several, so that its optimum may lie below."""
    betas = {BASELINE: ADAMS, **BETAS}
    found = []
    for stream, own in streams.items():
        tried = {name: betas[name] for result in own if (name := result.task.preset) in betas}
        if len(tried) > 1 and Results.best_adam(own).task.preset == min(tried, key=lambda name: tried[name]):
            found.append(stream)
    if found:
        yield (
            f"The best Adam has the least beta1 that was tried on {'; '.join(found)}: a lower one, or one "
            "between those tried, may do better still, and what is better than it be worse than that."
        )


def _of_better_moments(streams: Mapping[str, Sequence[Result]], moments: Sequence[Judged]) -> Iterator[str]:
    """What became in training of the filters whose moments err less than Adam's."""
    errs, told = [], []
    alike = {name for name, how in methods().items() if set(how) == {"first"}}
    for task, found in moments:
        of_adam = float(found[f"{ADAMS:g}"].nmse.mean())
        ratios = {name: float(own.nmse.mean()) / of_adam for name, own in found.items() if name in FILTERS}
        less = {name: ratio for name, ratio in ratios.items() if ratio < LESS}
        errs += [f"{name} on {task.regime} ({ratio:.2g})" for name, ratio in less.items()]
        for own in streams.values():
            if own[0].task.regime == task.regime:
                told += [
                    d for d in Results.differences(own, own[0]) if d.result.task.preset in less.keys() & alike
                ]
    if errs:
        better = sum(one.told_apart and one.interval[0] < 0.0 for one in told)
        worse = sum(one.told_apart and one.interval[0] > 0.0 for one in told)
        yield (
            f"Moments that err less than Adam's, along Adam at a rate of {LEARNING_RATE:g}, by a factor: "
            f"{', '.join(errs)}. Of the {counted(len(told), 'training')} with these, all else as in "
            f"Adam, {better} came out better than Adam, "
            f"{worse} worse, {len(told) - better - worse} not told apart."
        )


def _favoured(one: Difference, comparisons: int) -> str:
    mean, _, high = (1e3 * value for value in one.interval)
    mark = "**" if one.survives(comparisons) else ""
    seeds = f"{one.favour} of {len(one.by_seed)} seeds"
    task = one.result.task
    return f"{task.preset} on {task.stream} ({mean:+.1f} ± {high - mean:.1f}{mark}, {seeds})"


def _quantity(values: Array, finest: float) -> str:
    mean, _, high, _ = mean_interval(values)
    if high - mean < 0.5 * finest:
        return f"{mean:.3f}"
    return quantity(mean, max(high - mean, finest) if np.isfinite(high) else high - mean)


def _marked(beta: str) -> str:
    return f"{beta} (edge)" if beta in (f"{FIXED[0]:g}", f"{FIXED[-1]:g}") else beta


def best_fixed(found: Mapping[str, Quality]) -> str:
    """The fixed beta of least mean error, in hindsight."""
    return min((f"{beta:g}" for beta in FIXED), key=lambda name: float(found[name].nmse.mean()))
