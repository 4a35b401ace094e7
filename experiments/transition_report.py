"""The text of the transition experiment: steps to each level, what the floor leaves of beta, conclusions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from estimators import Estimator
from estimators.shares import FLOORS
from experiments.agreement import agreement
from experiments.setup import Setup
from experiments.summaries import Column
from experiments.tables import aligned, quantity, verdict_of, wrapped

if TYPE_CHECKING:
    from experiments.transition import Parameters

LATE = 5
"""The noisy weights are judged on the last of so many parts of the steps."""
SAME = 1e-9
"""Within which weights are the same."""
STARTS = {True: "fed the warm-up", False: "from the jump"}
"""Where a smoother begins."""
NOISE = "noise"
COLUMNS = (
    Column("binds_late", "floor binds"),
    Column("mean_unfloored", "mean weight"),
    Column("mean_floored", "mean, floored"),
    Column("sd_unfloored", "sd"),
    Column("sd_floored", "sd, floored"),
)


def course_name(fed: bool, floor: float) -> str:
    """Name of a course by its start and floor."""
    return f"{STARTS[fed]}, {f'floor {floor:g}' if floor else 'no floor'}"


def arrival(level: float) -> str:
    """Name of the metric of a level."""
    return f"steps_to_{level:g}"


def text(summary: pd.DataFrame, every: Mapping[str, tuple[Estimator, bool]], setup: Setup) -> str:
    """Tables, legends and conclusions."""
    chosen: Parameters = setup.parameters
    stream: Any = setup.stream
    first = next(iter(every))
    late = chosen.steps // LATE
    seen = _indexed(summary)
    blocks = [
        f"transition: a weight of 1/2 for {chosen.warmup} steps of warm-up, then a raw weight of "
        f"{chosen.raw:g}. Floor of {chosen.floor:g}: max(w, floor) of both weights over their sum.",
        f"Steps after the jump until the weight first exceeds a level, at the noise gain of {first}, exact:",
        _table_of_steps(seen, every, chosen),
        f"Fed the warm-up: the smoother has seen {chosen.warmup} samples of 1/2 at the jump. From the "
        "jump: it begins there, an EMA with a stated start at that. * As given, for want of a noise gain to "
        "match; without noise there is nothing for it to average.",
        "By beta, EMAs that start at 1/2, exact:",
        _table_of_betas(seen, chosen),
        f"The same on raw weights 1 / (1 + 1/ratio) whose ratio has median {stream.median:g} and a log sd of "
        f"{stream.r**0.5:.3g}; the last {late:,} of {chosen.steps:,} steps, in %:",
        _table_in_noise(seen, chosen),
        f"± is half of a 95 % interval over the repetitions, n = {setup.seeds}, root seed {setup.root_seed}; "
        "all betas share the noise. Binds: share of these steps in which the floor does. sd: of the weight "
        "over these steps.",
        "\n".join(wrapped(told, "  ") for told in conclusions(summary, chosen)),
        str(agreement(summary)),
    ]
    blocks = [block if "\n" in block else wrapped(block) for block in blocks]
    return "\n\n".join(blocks) + "\n"


def _indexed(summary: pd.DataFrame) -> Any:
    return summary.set_index(["stream", "estimator", "metric"]).sort_index()


def _table_of_steps(seen: Any, every: Mapping[str, tuple[Estimator, bool]], chosen: Parameters) -> str:
    at = [(floor, level) for floor in (0.0, chosen.floor) for level in chosen.levels]
    lines = [["smoother", "start", *(f"> {level:g}{', floor' * bool(floor)}" for floor, level in at)]]
    for name, (_, same) in every.items():
        for fed, start in STARTS.items():
            ones = [seen.loc[course_name(fed, floor), name, arrival(level)] for floor, level in at]
            lines.append([name + "*" * (not same), start, *map(_cell, ones)])
    return aligned(lines)


def _table_of_betas(seen: Any, chosen: Parameters) -> str:
    lines = [["beta", "floor binds from step", "closed form", "final weight", "final, floored"]]
    for beta in chosen.betas:
        own = seen.loc["no noise", f"ema@{beta:g}"]
        steps = [_cell(own.loc[metric]) for metric in ("binds_after", "binds_after_expected")]
        finals = [f"{own.loc[metric, 'mean']:.9f}" for metric in ("final_unfloored", "final_weight")]
        lines.append([f"{beta:g}", *steps, *finals])
    return aligned(lines, texts=0)


def _table_in_noise(seen: Any, chosen: Parameters) -> str:
    lines = [["beta", *(column.label for column in COLUMNS)]]
    for beta in chosen.betas:
        ones = [seen.loc[NOISE, f"ema@{beta:g}", column.metric] for column in COLUMNS]
        lines.append([f"{beta:g}", *(_with_half(found, 100.0) for found in ones)])
    return aligned(lines, texts=0)


def _cell(one: Any) -> str:
    return f"{one['mean']:,.0f}" if one["n"] else str(one["status"])


def _with_half(one: Any, times: float = 1.0) -> str:
    return quantity(times * one["mean"], times * (one["high"] - one["mean"]))


def conclusions(summary: pd.DataFrame, chosen: Parameters) -> list[str]:
    """What follows from the numbers, a sentence each."""
    return [*_of_the_floor(summary, chosen), *_of_betas(summary, chosen), *_of_starts(summary, chosen)]


def _of_the_floor(summary: pd.DataFrame, chosen: Parameters) -> Iterator[str]:
    """Which levels nobody reaches under the floor that are reached without it."""
    most = float(FLOORS["clip"](np.array([chosen.raw, 1.0 - chosen.raw]), chosen.floor)[0])
    bound = 1.0 / (1.0 + chosen.floor)
    for level in chosen.levels:
        own = summary[summary["metric"] == arrival(level)]
        with_floor = own["stream"].str.endswith(f"floor {chosen.floor:g}")
        reached = own.loc[with_floor & (own["n"] > 0), "estimator"].unique().tolist()
        without = own.loc[~with_floor & (own["n"] > 0), "estimator"].nunique()
        of = own["estimator"].nunique()
        if not reached:
            yield (
                f"With the floor no smoother exceeds {level:g}, without it {without} of {of} do in "
                f"{chosen.steps:,} steps: settled, the weight is {most:.7f}, whatever the raw weight at most "
                f"1/(1 + {chosen.floor:g}) = {bound:.7f}."
            )


def _of_betas(summary: pd.DataFrame, chosen: Parameters) -> Iterator[str]:
    """What is left of beta once the floor binds: the way there, the final weight, the spread in noise."""
    seen = _indexed(summary)
    names = [f"ema@{beta:g}" for beta in chosen.betas]
    spread = f"beta {min(chosen.betas):g} to {max(chosen.betas):g}"
    binds = [seen.loc["no noise", name, "binds_after"]["mean"] for name in names]
    if np.isnan(binds).any():
        yield f"Without noise the floor never binds at a raw weight of {chosen.raw:g}."
        return
    weights = [seen.loc["no noise", name, "final_weight"]["mean"] for name in names]
    apart = max(weights) - min(weights)
    ends = "the same, with the floor and without" if apart <= SAME else f"{apart:.2g} apart"
    yield (
        f"Of {spread} the floor binds after {min(binds):,.0f} to {max(binds):,.0f} steps without noise; "
        f"the final weights are {ends}."
    )
    noisy = {metric: [seen.loc[NOISE, name, metric] for name in names] for metric in _NOISY}
    share, before, after, mean = (noisy[metric] for metric in _NOISY)
    yield (
        f"In noise the floor binds in {_range(share)} % of the late steps, and the sd of the weight is "
        f"{_range(after)} % with the floor, {_range(before)} % without."
    )
    if len(names) > 1:
        furthest = max(mean[1:], key=lambda one: abs(one["difference"]))
        half = furthest["difference_high"] - furthest["difference"]
        told = {"tie": "a tie", "": "a difference"}.get(verdict_of(furthest, MEAN), "not told apart")
        yield (
            f"Floored means are at most {quantity(100.0 * furthest['difference'], 100.0 * half)} % from "
            f"that of {names[0]} ({furthest.name[1]}): {told}, by a margin of {100.0 * MARGIN:g} %."
        )


_NOISY = ("binds_late", "sd_unfloored", "sd_floored", "mean_floored")
MARGIN = 0.001
"""Within which two weights tie."""
MEAN = Column("mean_floored", "mean, floored", margin=MARGIN)


def _range(ones: Sequence[Any]) -> str:
    least, most = (pick(ones, key=lambda one: one["mean"]) for pick in (min, max))
    ends = (f"{_with_half(end, 100.0)} ({end.name[1]})" for end in (least, most))
    return " to ".join(ends)


def _of_starts(summary: pd.DataFrame, chosen: Parameters) -> Iterator[str]:
    """What having seen the warm-up costs, at the first level and without a floor."""
    metric = arrival(chosen.levels[0])
    seen = _indexed(summary)
    names = summary.loc[summary["stream"] == course_name(True, 0.0), "estimator"].unique().tolist()
    same, sooner = [], []
    for name in names:
        fed, jump = (seen.loc[course_name(fed, 0.0), name, metric]["mean"] for fed in STARTS)
        if fed == jump:
            same.append(f"{name} {fed:,.0f}")
        elif np.isfinite(fed) and np.isfinite(jump):
            sooner.append(f"{name} {jump:,.0f} instead of {fed:,.0f}")
    if sooner:
        yield f"Begun at the jump, steps to exceed {chosen.levels[0]:g} without a floor: {', '.join(sooner)}."
    if same:
        yield f"The same whether fed the warm-up or not: {', '.join(same)}."
