"""What is printed of the trade-off: three comparisons side by side, whole families, ties and fronts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from estimators import EMA
from experiments.agreement import EXPECTED, Agreement, agreement
from experiments.fronts import Beaten, front
from experiments.metrics import SETTLED
from experiments.settings import budget
from experiments.summaries import NEGLIGIBLE
from experiments.tables import aligned, counted, wrapped
from experiments.tradeoff_families import LAG, NOISE, TUNED, evaluated_from, expected_mse, objective
from experiments.tradeoff_view import EXACT, NEAR, ROUNDING, TIES, Found, cell, said

SIDE = 4
"""Estimators side by side in the table of whole families."""


def blocks_of(found: Found) -> list[str]:
    """All of a panel, block by block."""
    window, first = found.window, found.first
    noise, late = f"{NOISE}_{window}", f"{LAG}_{window}"
    with_family = [label for label in found.estimators if found.families[label]]
    blocks = [_heading(found), aligned(_side_by_side(found), texts=1)]
    if with_family:
        same = [label for label in with_family if _same_at(found, label, window)]
        title = f"Equal noise, a noise gain of 1/{window}"
        if same == with_family:
            title += ", which is equal lag: both choose these settings"
        blocks += [f"{title}:", aligned(_in_full(found, noise))]
        if same != with_family:
            blocks += [f"Equal lag, {(window - 1) / 2:g} samples:", aligned(_in_full(found, late))]
    blocks += [f"Each at its best; {_budget(found)}:", aligned(_in_full(found, TUNED))]
    blocks += ["\n".join(_of_the_best(found))]
    if with_family:
        over = f", that of {first} and over it" if found.families[first] else ""
        blocks.append(f"Whole families: {found.error.label} at equal noise{over}, by window:")
        blocks += [aligned(lines, texts=1) for lines in _families(found)]
        blocks.append(_of_the_start(found))
    if found.families[first] and found.others:
        windows = counted(len(found.windows), "window")
        blocks.append(
            f"Ties with {first} at equal noise, of {windows}; {EXACT} exact, {NEAR} within a margin:"
        )
        blocks += [aligned(_ties(found), texts=1), "\n".join(_of_equal_lag(found))]
    return [block for block in [*blocks, *_fronts(found)] if block]


def _heading(found: Found) -> str:
    panel, setup = found.panel, found.panel.setup
    n = panel.repetitions
    source = f"root seed {setup.root_seed}" if setup.stream.has_truth else "as recorded"
    lines = [
        f"tradeoff on {panel.stream}: {counted(n, 'stream')} of {setup.stream.length():,} samples "
        f"({setup.stream.unit}), {source}.",
        f"All values after the first {_counted_from(found):,} samples{_why(found)}. Families: noise gains "
        f"1/N, N = {', '.join(map(str, found.windows))}.",
    ]
    if left_out := [w for w in setup.parameters.windows if w not in found.windows]:
        lines.append(f"Left out, as longer than a quarter of the stream: {', '.join(map(str, left_out))}.")
    if found.points:
        lines.append(f"Without a family, so one setting each, as given: {', '.join(found.points)}.")
    if not setup.stream.has_truth:
        lines.append(
            f"The level is not known: attenuation, lag (mean age) and settling are those of the weights. "
            f"Filters that need it are told a noise variance of {setup.noise_variance:.4g}"
            f"{'' if setup.stream.noise_variance else ', estimated from these recordings, in sample'}."
        )
    return "\n".join(wrapped(text) for text in lines)


def _counted_from(found: Found) -> int:
    return evaluated_from(found.panel.condition)


def _why(found: Found) -> str:
    """Why so many do not count, where it is not for the burn-in."""
    return ", on which settings are tuned" if _counted_from(found) > found.panel.setup.burn_in else ""


def _budget(found: Found) -> str:
    condition = found.panel.condition
    return budget(condition.stream, objective(condition))


def _side_by_side(found: Found) -> list[list[str]]:
    lines = [[f"{found.error.label}, and over {found.first}", "equal noise", "equal lag", "each at its best"]]
    for label, family in found.families.items():
        lines.append([label])
        for place in (f"{NOISE}_{found.window}", f"{LAG}_{found.window}", TUNED):
            missing = "no family" if not family else "no setting" if place not in {*family, TUNED} else ""
            lines[-1].append(found.compared(label, place) if place == TUNED or not missing else missing)
    return lines


def _in_full(found: Found, place: str) -> list[list[str]]:
    lines = [["estimator", "setting", *(column.label for column in found.columns)]]
    for label, family in found.families.items():
        if place == TUNED or place in family:
            lines.append([label, found.named(label, place)])
            for column in found.columns:
                tie = found.tie(label, column, place)
                lines[-1].append(cell(found.row(label, column.metric, place), tie))
    return lines


def _of_the_best(found: Found) -> Iterator[str]:
    """How much more each errs at its best than the first does at its own."""
    first, *others = found.estimators
    if others:
        yield f"Over {first} ({found.named(first, TUNED)}), each at its best:\n"
    for label in others:
        percent = found.over_first(label, found.error.metric, TUNED)
        tie = TIES.get(found.tie(label, found.error, TUNED), "")
        if not (tie or np.isfinite(percent[0])):
            why = f"{first} makes no error" if found.flawless(TUNED) else "not all of its cells have a value"
            yield f"- {label}: not compared, as {why}"
            continue
        verdict = found.verdict(label, found.error, TUNED)
        text = f"- {label} ({found.named(label, TUNED)}): {tie or said(*percent)} in {found.error.label}"
        squared = found.over_first(label, "mse", TUNED)
        if np.isfinite(squared[0]) and not tie:
            text += f", {said(*squared)} in MSE"
            own, other = (
                expected_mse(found.setting(one, TUNED), found.panel.condition) for one in (label, first)
            )
            text += f" ({100.0 * (own / other - 1.0):+z.2f} % in closed form)" if own and other else ""
        yield f"{text}: {verdict}" if verdict == "not told apart" else text
    for label in found.estimators:
        edge = found.row(label, "edge", TUNED)
        if edge is not None and edge["mean"]:
            yield f"- {label}: at the edge of the settings tried"


def _families(found: Found) -> Iterator[list[list[str]]]:
    """Error by window, so many estimators side by side, the first in each table if it has a family."""
    first = [found.first] if found.families[found.first] else []
    for start in range(0, max(1, len(found.others)), SIDE):
        labels = [*first, *found.others[start : start + SIDE]]
        lines = [["window", *labels]]
        for window in found.windows:
            place = f"{NOISE}_{window}"
            lines += [[f"{window}", *(_error(found, label, place) for label in labels)]]
        yield lines


def _error(found: Found, label: str, place: str) -> str:
    """Over that of the first, or as it is where that has no family."""
    if found.families[found.first]:
        return found.compared(label, place)
    return cell(found.row(label, found.error.metric, place))


def _of_the_start(found: Found) -> str:
    """At which windows an EMA is not settled when values begin to count."""
    after = _counted_from(found)
    left = {window: float(EMA.from_span(float(window)).beta) ** after for window in found.windows}
    late = [f"{100.0 * share:.2g} % at {window}" for window, share in left.items() if share > 0.01]
    return f"After {after:,} samples an EMA keeps so much of its start: {', '.join(late)}." if late else ""


def _ties(found: Found) -> list[list[str]]:
    """At how many windows an estimator ties with the first, by what is measured."""
    lines = [["estimator", "attenuation", *(column.label for column in found.columns[1:])]]
    for label in found.others:
        ties = [
            [found.tie(label, column, f"{NOISE}_{window}") for window in found.windows]
            for column in found.columns
        ]
        counts = [[f"{own.count(mark)} {mark}" for mark in TIES if mark in own] for own in ties]
        lines.append([label, *(", ".join(own) or "0" for own in counts)])
    return lines


def _same_at(found: Found, label: str, window: int) -> bool:
    """Whether equal noise and equal lag choose the same setting."""
    family = found.families[label]
    return family[f"{NOISE}_{window}"] is family.get(f"{LAG}_{window}")


def _of_equal_lag(found: Found) -> Iterator[str]:
    """For whom equal noise is equal lag."""
    by_count: dict[int, list[str]] = {}
    for label in found.others:
        same = sum(_same_at(found, label, window) for window in found.windows)
        by_count.setdefault(same, []).append(label)
    for same, labels in by_count.items():
        yield wrapped(
            f"Equal noise and equal lag choose the same setting at {same} of {len(found.windows)} windows: "
            f"{', '.join(labels)}.",
        )


def _fronts(found: Found) -> Iterator[str]:
    """Who is on the front, and by whom the others are beaten: of three criteria, and with settling."""
    late = found.columns[1].label
    on: list[dict[str, int]] = []
    for with_settling in (False, True):
        candidates, without = found.candidates(with_settling)
        ways = front(candidates, found.criteria(with_settling))
        lines = [["estimator", "settings", "on the front", "the others are beaten by (in)"]]
        on.append({})
        for label in dict.fromkeys(candidate.key[0] for candidate in candidates):
            own = [way for one, way in zip(candidates, ways, strict=True) if one.key[0] == label]
            on[-1][label] = own.count(None)
            lines.append([label, f"{len(own)}", f"{own.count(None)}", _beaten([w for w in own if w])])
        named = f"Front of attenuation, {late} and memory{', and of settling' * with_settling}"
        yield (
            f"{named}; settings of all estimators:" if candidates else f"{named}: no setting has all of them."
        )
        yield aligned(lines, texts=4) if candidates else ""
        if without and candidates:
            yield wrapped(
                f"Left out, without a value of each criterion on half of the streams: {', '.join(without)}.",
            )
    changed = [
        f"{label} ({before} to {on[1][label]} settings)"
        for label, before in on[0].items()
        if on[1].get(label, before) > before
    ]
    moved = ", ".join(changed) or "no further setting"
    if on[0]:
        yield wrapped(f"Settling as a fourth criterion brings onto the front: {moved}.")


def _beaten(ways: Sequence[Beaten]) -> str:
    """By whom, in what, and how often."""
    names = {"attenuation": "attenuation", "state_bytes": "memory", "mean_age": "mean age"}
    counts = Counter(
        f"{way.by.key[0]} ({', '.join(names.get(name, name) for name in way.better)})" for way in ways
    )
    most = [f"{count} by {who}" for who, count in counts.most_common(2)]
    more = sum(count for _, count in counts.most_common()[2:])
    return "; ".join([*most, *[f"{more} by others"] * bool(more)]) or "-"


def legend(found: Sequence[Found]) -> str:
    """What the tables mean."""
    truth = any(own.panel.setup.stream.has_truth for own in found)
    first, n = found[0].first, found[0].panel.repetitions
    units = ", ".join(dict.fromkeys(own.panel.setup.stream.unit for own in found))
    inside = "the whole interval of the difference" if n > 1 else "what owes nothing to chance,"
    following = dict.fromkeys(label for own in found for label in own.estimators if not own.linear(label))
    lines = [
        f"± is half of a 95 % interval over the streams, n = {n}, or the number in brackets behind it; "
        f"paired where over {first}."
        if n > 1
        else "One stream: no intervals; only what owes nothing to chance is told apart.",
        f"{EXACT}, {TIES[EXACT]}: as {first}, to {ROUNDING:.0e} of the value on every stream. {NEAR}, "
        f"{TIES[NEAR]}: not exact, but {inside} within {100.0 * NEGLIGIBLE:g} % of it "
        f"({found[0].columns[0].margin:g} dB of attenuation). A difference in brackets is not told apart "
        f"from none. On a front a tie is within 0.1 dB, a thousandth, or chance.",
        f"dB: attenuation of white noise by the weights. {'Lag' if truth else 'Mean age'} and settling, to "
        f"within {100 * SETTLED:g} % of a step, in samples; bytes of state per channel; error in {units}. "
        f"The error at the start is no criterion.",
    ]
    lines.append(
        f"In table.csv and summary.csv, parameters are those that estimators were named with, at every "
        f"place; which setting was measured say noise_gain@{NOISE}_N, @{LAG}_N and @{TUNED}."
    )
    if following:
        whose = f"Of {', '.join(following)} the weights follow the samples:"
        lines.append(
            f"{whose} dB is what is left of the noise, lag and settling are those of other runs, with a ramp "
            f"or a step in place of the level."
            if truth
            else f"{whose} dB is that of the weights used here, and settling is not known."
        )
    return "\n".join(wrapped(text) for text in lines)


def agreed(summary: pd.DataFrame) -> Agreement:
    """Whether closed forms agree, with settings called by their windows.

    In the summary they are called by the parameters that estimators were named with, at every window.
    """
    place = rf"@{NOISE}_(\d+)(?={EXPECTED}$|$)"
    window = summary["metric"].str.extract(place, expand=False)
    named = summary["parameters"].mask(window.notna(), "at window " + window)
    twice = summary.groupby(["stream", "estimator"], sort=False)["parameters"].transform("nunique") > 1
    as_named = summary["estimator"] + " (named " + summary["parameters"] + ")"
    return agreement(
        summary.assign(
            metric=summary["metric"].str.replace(place, "", regex=True),
            estimator=summary["estimator"].mask(twice, as_named),
            parameters=named,
        )
    )
