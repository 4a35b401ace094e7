"""The text of the transition experiment: steps to each level, what the floor leaves of beta, conclusions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from estimators import Estimator
from experiments.agreement import agreement
from experiments.setup import Setup
from experiments.summaries import Column
from experiments.tables import aligned, quantity, verdict_of, wrapped
from experiments.transition_weights import SAME, STARTS, arrival, course_name, limit, noise_name

if TYPE_CHECKING:
    from experiments.transition import Parameters

COLUMNS = (
    Column("binds_late", "floor binds"),
    Column("mean_unfloored", "mean weight"),
    Column("mean_floored", "mean, floored"),
    Column("sd_unfloored", "sd"),
    Column("sd_floored", "sd, floored"),
)


def text(summary: pd.DataFrame, every: Mapping[str, tuple[Estimator, bool]], setup: Setup) -> str:
    """Tables, legends and conclusions."""
    chosen: Parameters = setup.parameters
    first = next(iter(every))
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
        "The same on raw weights 1 / (1 + 1/ratio), by the median of the ratio, whose log has an sd of "
        f"{chosen.log_sd:g}; the last {chosen.late:,} of {chosen.steps:,} steps, in %:",
        _table_in_noise(seen, chosen),
        f"± is half of a 95 % interval over the repetitions, n = {setup.seeds}, root seed {setup.root_seed}; "
        "all share the noise. Floor binds: share of these steps in which it does, where the weight exceeds "
        f"{1.0 - chosen.floor:g}. sd: of the weight "
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
    lines = [["ratio", "beta", *(column.label for column in COLUMNS)]]
    for ratio in chosen.ratios:
        for beta in chosen.betas:
            ones = [seen.loc[noise_name(ratio), f"ema@{beta:g}", column.metric] for column in COLUMNS]
            lines.append([f"{ratio:g}", f"{beta:g}", *(_with_half(found, 100.0) for found in ones)])
    return aligned(lines, texts=0)


def _cell(one: Any) -> str:
    return f"{one['mean']:,.0f}" if one["n"] else str(one["status"])


def _with_half(one: Any, times: float = 1.0) -> str:
    return quantity(times * one["mean"], times * (one["high"] - one["mean"]))


def conclusions(summary: pd.DataFrame, chosen: Parameters) -> list[str]:
    """What follows from the numbers, a sentence each."""
    return [
        *_of_the_floor(summary, chosen),
        *_of_betas(summary, chosen),
        *_of_noise(summary, chosen),
        *_of_starts(summary, chosen),
    ]


def _of_the_floor(summary: pd.DataFrame, chosen: Parameters) -> Iterator[str]:
    """Which levels nobody reaches under the floor that are reached without it."""
    most = limit(chosen.raw, chosen.floor)
    bound = 1.0 / (1.0 + chosen.floor)
    for level in chosen.levels:
        own = summary[summary["metric"] == arrival(level)]
        with_floor = own["stream"].str.endswith(f"floor {chosen.floor:g}")
        reached = own.loc[with_floor & (own["n"] > 0), "estimator"].unique().tolist()
        without = own.loc[~with_floor & (own["n"] > 0), "estimator"].nunique()
        of = own["estimator"].nunique()
        if not reached and not without:
            reason = (
                f"the raw weight is {chosen.raw:g}" if level >= chosen.raw else f"in {chosen.steps:,} steps"
            )
            yield f"No smoother exceeds {level:g}, with the floor or without: {reason}."
        elif not reached:
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


def _of_noise(summary: pd.DataFrame, chosen: Parameters) -> Iterator[str]:
    """How often the floor binds in noise, how much the weight spreads, whether betas tie, by ratio."""
    seen = _indexed(summary)
    names = [f"ema@{beta:g}" for beta in chosen.betas]
    told = []
    for ratio in chosen.ratios:
        noisy = {metric: [seen.loc[noise_name(ratio), name, metric] for name in names] for metric in _NOISY}
        share, before, after, mean = (noisy[metric] for metric in _NOISY)
        yield (
            f"In noise, at a ratio of {ratio:g}, the floor binds in {_range(share)} % of the late steps, and "
            f"the sd of the weight is {_range(after)} % with the floor, {_range(before)} % without."
        )
        if len(names) > 1:
            told.append(f"at a ratio of {ratio:g} {_apart(mean[1:])}")
    if told:
        yield (
            f"Floored means are, in percentage points from that of {names[0]}, {'; '.join(told)}; a tie is "
            f"within {100.0 * MARGIN:g}."
        )


def _apart(means: Sequence[Any]) -> str:
    """The furthest of the means from the first, and whether all tie with it."""
    furthest = max(means, key=lambda one: abs(one["difference"]))
    half = furthest["difference_high"] - furthest["difference"]
    verdicts = {verdict_of(one, MEAN) for one in means}
    told = "a tie" if verdicts == {"tie"} else "a difference" if "" in verdicts else "not told apart"
    points = quantity(100.0 * furthest["difference"], 100.0 * half)
    return f"at most {points} ({furthest.name[1]}), {told}"


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
