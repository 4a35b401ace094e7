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
DISTANT = 3.0
"""Standard deviations of the noise from 0 of another level, at which it is looked when errors settle."""
UNBIASED = 1e-9
"""Bias, in standard deviations of the noise, that is rounding alone."""
TIED = 1e-9
"""Share within which errors are the same but for rounding."""


def blocks_of_text(walks: Sequence[Case], levels: Sequence[Case], seen: Any, setup: Setup) -> list[str]:
    """Tables, legends and conclusions, block by block."""
    chosen: Parameters = setup.parameters
    stream: Any = setup.stream
    level = np.log(stream.median) / np.sqrt(stream.r)
    n = f"n = {setup.seeds} means over {chosen.streams} streams"
    blocks = [
        f"startup: {setup.seeds} x {chosen.streams} streams of {chosen.samples} samples, root seed "
        f"{setup.root_seed}. Errors in standard deviations of the noise, noise sd. Each estimator has the "
        "noise gain of beta.",
        f"RMSE at samples {', '.join(map(str, chosen.probes))} of a random walk that starts {level:.3g} "
        "noise sd from 0, the one for which beta is right, q/r = (1 - beta)^2 / beta:",
        _table_of_errors(walks, seen, chosen),
        f"RMSE on a constant level {level:.3g} noise sd from 0:",
        _table_of_errors(levels, seen, chosen),
        "Exact, from the replayed map. From: the sample from which the RMSE stays within "
        f"{100 * SETTLED:.0f} % above the settled one, looked for over the first {FURTHER}/(1 - beta), "
        f"at most {FURTHEST:,}. ±: half of the widest 95 % interval of a simulated RMSE in the row, {n}; "
        "off: how far the simulated are from the exact at most, in standard errors. Where there is nothing "
        "exact the simulated stand.",
        *_table_of_distances([*zip(walks, levels, strict=True)], level),
        *_table_of_biases(walks, chosen),
        "An EMA that starts at a guess, against the debiased one, on a constant level, exact. At t: the "
        "distance of the guess, in noise sd, at which they err alike at sample t; a nearer one errs less. "
        "Never worse: the least of these distances over all t. Off: of the difference of the two simulated "
        f"there, 0 in expectation ({n}). A right guess errs 1 - beta^t times as much as the debiased EMA; "
        "right one at 1: that factor at sample 1; debiased +5 % to: the last sample at which the debiased "
        "EMA errs at least 5 % more than a right guess.",
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


def _table_of_distances(cases: Sequence[tuple[Case, Case]], level: float) -> list[str]:
    """From which sample errors have settled by how far the level is from 0, where that matters."""
    heads = [f"{kind}, {distance:.3g} sd" for kind in ("walk", "constant") for distance in (level, DISTANT)]
    lines = [["beta", "estimator", *heads]]
    for pair in cases:
        for name in pair[0].exact:
            found = np.array([[case.exact[name].since, case.exact[name].since_distant] for case in pair])
            if not np.array_equal(found[:, 0], found[:, 1], equal_nan=True):
                since = (_or_dash(one, ",.0f") for one in found.flat)
                lines.append([f"{pair[0].beta:g}", name, *since])
    if len(lines) == 1:
        return []
    return [
        "From, where it depends on how far the level is from 0, by that distance in noise sd, exact:",
        aligned(lines),
    ]


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
    """Who errs least of those without bias, who ties with it, and by how much more the others do at most."""
    fair = {name: known.rmse for name, known in case.exact.items() if _unbiased(known)}
    if not fair:
        return "all are biased."
    least = np.min(list(fair.values()), axis=0)
    excess = {name: rmse / least - 1.0 for name, rmse in fair.items()}
    wins = {name: over <= TIED for name, over in excess.items()}
    best = max(wins, key=lambda name: int(wins[name].sum()))
    alike = [
        name
        for name, won in wins.items()
        if name == best or np.all(np.abs(fair[name] / fair[best] - 1.0) <= TIED)
    ]
    rest = {name: over for name, over in excess.items() if name not in alike}
    at = wins[best]
    where = "every sample" if at.all() else f"{at.sum()} of {at.size} samples"
    if rest and (shared := int((at & np.any([wins[name] for name in rest], axis=0)).sum())):
        where += f", {shared} of them a tie"
    *others, last = alike
    who = f"{', '.join(others)} and {last} tie, and err" if others else f"{last} errs"
    more = [
        f"{name} {_percent(over.max())} (sample {int(np.argmax(over)) + 1})" for name, over in rest.items()
    ]
    told = f"; more at most: {', '.join(more)}" if more else ""
    return f"of those without bias {who} least at {where}{told}."


def _percent(share: float) -> str:
    """A share that is no tie, and so never 0.0 %."""
    percent = 100.0 * share
    return f"{percent:.1f} %" if percent >= 0.05 else f"{percent:.1g} %"


def _never(case: Case) -> str:
    """What becomes of those that never settle."""
    parts = []
    for name, known in case.exact.items():
        if np.isnan(known.settled):
            least = int(np.argmin(known.rmse))
            last = known.rmse[-1] / known.rmse[least]
            falls = least + 1 == known.rmse.size
            told = f"least at sample {least + 1} ({known.rmse[least]:.3g})"
            course = (
                "its error still falls at the last sample"
                if falls
                else f"its error is {told}, and at the last sample {last:.2f} times that"
            )
            parts.append(f"{name} never settles: {course}")
    return f"beta {case.beta:g} {'; '.join(parts)}." if parts else ""
