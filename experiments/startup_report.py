"""The text of the start-up experiment: exact errors beside simulated ones, guesses, and conclusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.metrics import SETTLED
from experiments.setup import Setup
from experiments.startup_guesses import (
    at_probe,
    debiasing_helps,
    harmless,
    middle,
    standard_errors,
    table_of_guesses,
    table_of_ratios,
    table_of_shares,
)
from experiments.tables import aligned, wrapped

if TYPE_CHECKING:
    from experiments.startup import Case, Exact, Parameters

FURTHER = 8
"""Effective windows over which it is looked, beyond the samples shown, when an error has settled."""
FURTHEST = 10_000
"""The most samples for that."""
UNBIASED = 1e-9
"""Bias, in standard deviations of the noise, that is rounding alone."""


def blocks_of_text(walks: Sequence[Case], levels: Sequence[Case], seen: Any, setup: Setup) -> list[str]:
    """Tables, legends and conclusions, block by block."""
    chosen: Parameters = setup.parameters
    stream: Any = setup.stream
    level = np.log(stream.median) / np.sqrt(stream.r)
    n = f"n = {setup.seeds} means over {chosen.streams} streams"
    blocks = [
        f"startup: {setup.seeds} x {chosen.streams} streams of {chosen.samples} samples, root seed "
        f"{setup.root_seed}. Errors in standard deviations of the noise; the level starts at {level:.3g} of "
        "them. Each estimator has the noise gain of beta.",
        "RMSE at samples 1, 2, ... of the random walk for which beta is right, q/r = (1 - beta)^2 / beta:",
        _table_of_errors(walks, seen, chosen),
        "RMSE on a constant level:",
        _table_of_errors(levels, seen, chosen),
        "Exact, from the replayed map. From: the sample from which the RMSE stays within "
        f"{100 * SETTLED:.0f} % above the settled one, looked for over the first {FURTHER}/(1 - beta), "
        f"at most {FURTHEST:,}. ±: half of the widest 95 % interval of a simulated RMSE in the row, {n}; "
        "off: how far the simulated are from the exact at most, in standard errors. Where there is nothing "
        "exact the simulated stand.",
        *_table_of_biases(walks, chosen),
        "An EMA that starts at a guess, against the debiased one, on a constant level, exact. At t: the "
        "distance of the guess, in noise sd, at which they err alike at sample t; a nearer one errs less. "
        "Never worse: the least of these distances over all t. Off: of the difference of the two simulated "
        f"there, 0 in expectation ({n}). A right guess errs 1 - beta^t times as much.",
        table_of_guesses(seen, chosen),
        f"Equal shares of K tasks, by inverse norms whose log ratios have sd {chosen.log_sd:g}; RMSE "
        f"of the smoothed share at sample {middle(chosen)}, {n}:",
        table_of_shares(seen, chosen),
        "Two tasks whose norms' ratio has another median, from 1/2: samples at which the debiased EMA errs "
        "less, exact, against the mean raw share, which is d of its sd from 1/2:",
        table_of_ratios(chosen),
        "\n".join(wrapped(told, "  ") for told in conclusions(walks, levels)),
    ]
    return [block if "\n" in block else wrapped(block) for block in blocks]


def _table_of_errors(cases: Sequence[Case], seen: Any, chosen: Parameters) -> str:
    lines = [["beta", "estimator", "settled", "from", *map(str, chosen.probes), "± (%)", "off (se)"]]
    for case in cases:
        for name in case.estimators:
            own = seen.loc[case.name, name]
            mse = [own.loc[at_probe("mse", probe)] for probe in chosen.probes]
            half = max(50.0 * (one["high"] / one["mean"] - 1.0) for one in mse)
            known = case.exact.get(name)
            if known is None:
                cells, off = ["-", "-", *(f"{np.sqrt(one['mean']):.4f}" for one in mse)], np.nan
            else:
                rmse = [known.rmse[probe - 1] for probe in chosen.probes]
                since = "never" if np.isnan(known.settled) else _or_dash(known.since, ",.0f")
                cells = [_or_dash(known.settled, ".4f"), since, *(f"{root:.4f}" for root in rmse)]
                off = max(standard_errors(one, root**2) for one, root in zip(mse, rmse, strict=True))
            lines.append([f"{case.beta:g}", name, *cells, _or_dash(half, ".1f"), _or_dash(off, ".1f")])
    return aligned(lines)


def _or_dash(value: float, form: str) -> str:
    return "-" if np.isnan(value) else format(value, form)


def _table_of_biases(cases: Sequence[Case], chosen: Parameters) -> list[str]:
    """Table of what bias is left, of those that have one, and who has none; nothing at a level of 0."""
    level = np.log(cases[0].stream.median) / np.sqrt(cases[0].stream.r)
    lines = [["beta", "estimator", *map(str, chosen.probes)]]
    biased = set()
    for case in cases:
        for name, known in case.exact.items():
            if level and not _unbiased(known):
                biased.add(name)
                shares = (f"{known.bias[probe - 1] / level:.3g}" for probe in chosen.probes)
                lines.append([f"{case.beta:g}", name, *shares])
    if not biased:
        return []
    without = [name for name in cases[0].exact if name not in biased]
    return [f"Bias as a share of the level, exact; none: {', '.join(without)}.", aligned(lines)]


def _unbiased(known: Exact) -> bool:
    return bool(np.max(np.abs(known.bias)) <= UNBIASED)


def conclusions(walks: Sequence[Case], levels: Sequence[Case]) -> list[str]:
    """What follows from the numbers, a sentence each."""
    told = [f"{_kind(case)}{_ranked(case)}" for case in (*walks, *levels) if case.exact]
    told += [f"On the walk of {_never(case)}" for case in walks if _never(case)]
    for case in levels:
        distance = abs(np.log(case.stream.median)) / np.sqrt(case.stream.r)
        span = debiasing_helps(case.beta, distance)
        where = "at no sample" if span is None else f"at samples {span[0]:,.0f} to {span[1]:,.0f} alone"
        told.append(
            f"Beta {case.beta:g}, a constant level {distance:.3g} sd from 0: debiasing a zero start helps "
            f"{where}; it never would within {harmless(case.beta):.3g} sd."
        )
    return told


def _kind(case: Case) -> str:
    return f"{case.name[0].upper()}{case.name[1:]}: "


def _ranked(case: Case) -> str:
    """Who errs least of those without bias, and by how much more the others do at most."""
    fair = {name: known.rmse for name, known in case.exact.items() if _unbiased(known)}
    if not fair:
        return "all are biased."
    least = np.min(list(fair.values()), axis=0)
    wins = {name: int((rmse <= least * (1.0 + UNBIASED)).sum()) for name, rmse in fair.items()}
    best = max(wins, key=lambda name: wins[name])
    more = []
    for name, rmse in fair.items():
        if name != best:
            excess = rmse / least - 1.0
            most = int(np.argmax(excess))
            more.append(f"{name} {100.0 * excess[most]:.1f} % (sample {most + 1})")
    where = "every sample" if wins[best] == least.size else f"{wins[best]} of {least.size} samples"
    others = f"; more at most: {', '.join(more)}" if more else ""
    return f"of those without bias {best} errs least at {where}{others}."


def _never(case: Case) -> str:
    """What becomes of those that never settle."""
    parts = []
    for name, known in case.exact.items():
        if np.isnan(known.settled):
            least = int(np.argmin(known.rmse))
            last = known.rmse[-1] / known.rmse[least]
            falls = least + 1 == known.rmse.size
            told = f"least at sample {least + 1} ({known.rmse[least]:.3g}), {last:.2f} times that at the last"
            course = "its error still falls at the last sample" if falls else f"its error is {told}"
            parts.append(f"{name} never settles: {course}")
    return f"beta {case.beta:g} {'; '.join(parts)}." if parts else ""
