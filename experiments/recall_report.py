"""The text of the recall experiment: tables of its three tasks, goals, and where identity is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from experiments.agreement import agreement
from experiments.recall_memories import FORMATS, LINEAR, PRECISE_GAINS, precision_stream
from experiments.recall_tasks import (
    ANY_LAG,
    BEST,
    CEILING,
    CHANCE,
    CLOSED,
    CONTEXT,
    DECODED,
    ENTROPY,
    GATED,
    GRU,
    IDENTITY_KINDS,
    IDENTITY_LAGS,
    IDENTITY_LENGTH,
    LEARNED,
    OLDER,
    PAYLOAD_LAGS,
    PAYLOAD_LENGTH,
    PAYLOAD_NOISE,
    PAYLOADS,
    ROLE_NOISE,
    ROWS,
    SIGMAS,
    TESTED,
    TRACES_LINEAR,
    TRACES_MLP,
    WINDOWED,
    WINDOWED_ROLES,
    stream_of,
)
from experiments.setup import Setup
from experiments.streams import Array
from experiments.summaries import Column, mean_interval
from experiments.tables import aligned, counted, items, quantity, verdict_of, wrapped

if TYPE_CHECKING:
    from experiments.recall import Parameters

ACCURACY = Column("accuracy", "accuracy", margin=0.005, better="more")
ROLES, STATED_SHARE = "roles", 0.96
NAMED = ", ".join(map(str, OLDER))
"""Of the lags of tokens but the newest."""
LAGS = [*map(str, PAYLOAD_LAGS), ANY_LAG]
SURE = 0.99
PRECISE = "1 trace, decoded token by token"


@dataclass(frozen=True)
class Found:
    """Every figure over the repetitions, by stream, row and metric."""

    values: Mapping[tuple[str, str, str], Array]

    def of(self, stream: str, row: str, metric: str = "accuracy") -> Array:
        """One figure over the repetitions."""
        return self.values[stream, row, metric]

    def less(self, stream: str, row: str, other: str, metric: str = "accuracy") -> Array:
        """Paired difference of two rows."""
        return self.of(stream, row, metric) - self.of(stream, other, metric)

    @cached_property
    def places(self) -> dict[tuple[str, str], list[str]]:
        """Metrics by stream and row."""
        places: dict[tuple[str, str], list[str]] = {}
        for stream, row, metric in self.values:
            places.setdefault((stream, row), []).append(metric)
        return places

    def cell(self, stream: str, row: str, metric: str = "accuracy") -> str:
        """A figure with half of its interval, or a dash."""
        values = self.values.get((stream, row, metric))
        return "-" if values is None else told(values)

    def over_older(self, sigma: float, row: str, metric: str = "loss") -> Array:
        """Sum over the lags of all tokens but the newest."""
        total: Array = np.sum([self.of(stream_of(sigma, lag), row, metric) for lag in OLDER], axis=0)
        return total


def payload_stream(lag: str) -> str:
    """How the recall of a payload at a lag is called."""
    return f"payload lag {lag}"


# --- what is told -------------------------------------------------------------------------------------------


def written(found: Found, setup: Setup, summary: pd.DataFrame, goals: Iterable[str]) -> str:
    """Put tables, goals and findings together, in lines of at most 110 columns."""
    chosen: Parameters = setup.parameters
    blocks = [
        wrapped(
            "recall: what EMA traces with gains of 0.5, 0.1 and 0.02 keep of a sequence of tokens; "
            f"{counted(setup.seeds, 'repetition')} (embeddings, sequences, noise), root seed "
            f"{setup.root_seed}. Every memory has unit variance and bears Gaussian noise of sd sigma. "
            "Predictors: linear is multinomial logistic regression; stronger are an MLP (64, 64), 25 "
            "nearest neighbours (kNN) and boosted trees; their hyperparameters are fixed, not tuned, and "
            "equal for all rows. Accuracy: share named rightly."
        ),
        wrapped(
            f"Roles: which of five roles a noun has, from the {CONTEXT} tokens before it, in a grammar of "
            f"four templates; sigma {ROLE_NOISE:g}, {chosen.roles:,} nouns, a quarter of them held out:"
        ),
        _roles_table(summary),
        wrapped(
            f"± is half of a 95 % interval over the repetitions (Student's t), n = {setup.seeds}; "
            "differences are paired; * their interval excludes 0; = a tie: all of it is within "
            f"{ACCURACY.margin:g}. The GRU reads all tokens without noise"
            + ("." if has_torch_rows(found) else "; it has no row, as torch is not installed.")
        ),
        wrapped(
            f"Identity: which of {IDENTITY_KINDS} tokens stood at a lag, chance 0.25, sequences of "
            f"{IDENTITY_LENGTH}, {chosen.identity:,} to learn from, {TESTED:,} to test. The ceiling is "
            "exact: the posterior over all 65,536 sequences. Accuracy:"
        ),
        _identity_table(found, [CEILING, *ROWS.values()]),
        wrapped(
            f"Where identity is lost, in nats, of {ENTROPY:.3f} that a token has. State: loss at the "
            "ceiling, which no predictor can win back. Linear, best: what the linear predictor, and the "
            "best stronger one (chosen on other sequences), lose beyond that. Closed: share of the linear "
            "one's that the best one saves, a lower bound of what some predictor could; - where what the "
            "linear one loses is within two standard errors. Gain: accuracy of the best less the linear "
            f"one's. Pooled: means over the lags {NAMED}, and the share of their gaps together:"
        ),
        _loss_table(found),
        wrapped(
            f"Payload: which of {PAYLOADS} tokens followed a marker, chance {CHANCE:g}, by the lag of that "
            f"token before the last of {PAYLOAD_LENGTH}; sigma {PAYLOAD_NOISE:g}, {chosen.payloads:,} "
            "sequences for each lag, a quarter of them held out. The predictor is told the lag, save in "
            "the last column:"
        ),
        *(_payload_table(found, some) for some in (LAGS[:3], LAGS[3:6], LAGS[6:])),
        wrapped(
            "The gate set by hand writes the three traces after a marker alone"
            + (
                "; the learned gate has one gain for each token before the one that is written, learned by "
                f"gradient on other sequences with payloads at lags up to {max(PAYLOAD_LAGS)}."
                if has_torch_rows(found)
                else "; the learned gate has no row, as torch is not installed."
            )
            + " Decoded: the token that weighs most in the fast trace is taken off, and again; it is "
            "told the code, and learns nothing."
        ),
        wrapped(
            "Without noise: newest tokens of 16 kinds that are decoded from a one-hot trace before the "
            "first error, by the format that the trace is kept in (fewest of all sequences). Below a gain "
            "of 1/2 this decoder may err without any rounding:"
        ),
        _precision_table(found),
        "Goals:",
        items(goals),
        "What the data-processing inequality shows, and what not:",
        items(inequality(found)),
        "Also:",
        items(findings(found)),
        str(agreement(summary)),
    ]
    return "\n\n".join(blocks) + "\n"


def has_torch_rows(found: Found) -> bool:
    """Whether the memories that are learned were measured."""
    return (ROLES, GRU, "accuracy") in found.values


def _roles_table(summary: pd.DataFrame) -> str:
    lines = [["memory, predictor", "accuracy", f"less {TRACES_LINEAR}"]]
    for _, row in summary[(summary["stream"] == ROLES) & (summary["metric"] == "accuracy")].iterrows():
        first = row["estimator"] == TRACES_LINEAR
        values = [quantity(row["mean"], row["high"] - row["mean"])]
        values.append("-" if first else _difference(row))
        lines.append([str(row["estimator"]), *values])
    return aligned(lines, texts=1)


def _difference(row: Any) -> str:
    verdict = verdict_of(row, ACCURACY)
    sign = "" if row["difference"] < 0.0 else "+"
    written = quantity(row["difference"], row["difference_high"] - row["difference"])
    return f"{sign}{written}{ {'tie': '=', '': '*'}.get(verdict, ' ') }"


def _identity_table(found: Found, rows: Sequence[str]) -> str:
    lines = [["sigma", "lag", *(row.removeprefix("3 traces, ").removeprefix("exact Bayes ") for row in rows)]]
    lines += [
        [f"{sigma:g}", str(lag), *(found.cell(stream_of(sigma, lag), row) for row in rows)]
        for sigma in SIGMAS
        for lag in IDENTITY_LAGS
    ]
    return aligned(lines, texts=0)


def _loss_table(found: Found) -> str:
    lines = [["sigma", "lag", "state", "linear", "best", "closed", "gain"]]
    for sigma in SIGMAS:
        for lag in IDENTITY_LAGS:
            at = stream_of(sigma, lag)
            figures = [
                found.of(at, CEILING, "loss"),
                *(found.less(at, row, CEILING, "loss") for row in (ROWS[LINEAR], BEST)),
                found.of(at, BEST, CLOSED),
                found.less(at, BEST, ROWS[LINEAR]),
            ]
            lines.append([f"{sigma:g}", str(lag), *map(told, figures)])
        state, linear, best = (found.over_older(sigma, row) for row in (CEILING, ROWS[LINEAR], BEST))
        gain = found.over_older(sigma, BEST, "accuracy") - found.over_older(sigma, ROWS[LINEAR], "accuracy")
        means = [own / len(OLDER) for own in (state, linear - state, best - state, gain)]
        cells = [*map(told, means[:3]), found.cell(stream_of(sigma), BEST, CLOSED), told(means[3])]
        lines.append([f"{sigma:g}", "pooled", *cells])
    return aligned(lines, texts=0)


def _payload_table(found: Found, lags: Sequence[str]) -> str:
    rows = dict.fromkeys(row for stream, row in found.places if stream.startswith(payload_stream("")))
    head = [f"lag {lag}" if lag != ANY_LAG else lag for lag in lags]
    lines = [["memory, predictor", *head]]
    lines += [[row, *(found.cell(payload_stream(lag), row) for lag in lags)] for row in rows]
    return aligned(lines, texts=1)


def _precision_table(found: Found) -> str:
    lines = [["gain", *FORMATS]]
    for gain in PRECISE_GAINS:
        cells = []
        for kept_as in FORMATS:
            at = precision_stream(gain, kept_as), PRECISE
            cells.append(
                f"{found.cell(*at, 'tokens_recovered')} ({found.of(*at, 'fewest_recovered').min():.0f})"
            )
        lines.append([f"{gain:g}", *cells])
    return aligned(lines, texts=0)


def inequality(found: Found) -> Iterator[str]:
    """Sentences on what of the losses is the state's, and what the predictor's."""
    kept = {
        kept_as: found.of(precision_stream(0.5, kept_as), PRECISE, "tokens_recovered") for kept_as in FORMATS
    }
    counts = ", ".join(f"{told(values)} in {kept_as}" for kept_as, values in kept.items())
    yield (
        "It says that nothing computed from the traces knows more of a token than the traces do. It does "
        "not say that these know little: without noise an EMA of gain 0.5 maps sequences of one-hot tokens "
        f"one to one, and gives back the newest {counts}. What bounds it is precision or noise; the "
        "inequality bounds the state's part alone, and a predictor's limit is not its subject."
    )
    for sigma in SIGMAS:
        state, linear, best = (found.over_older(sigma, row) for row in (CEILING, ROWS[LINEAR], BEST))
        kept_share = 1.0 - state / (len(OLDER) * ENTROPY)
        yield (
            f"sigma {sigma:g}, lags {NAMED} together: the traces know {_percent(kept_share)} of a token's "
            "entropy, which is all that the inequality bounds. Of the linear predictor's loss "
            f"{_percent(state / linear)} is the state's, {_percent(1.0 - state / linear)} its own, and the "
            f"best stronger one saves {_percent((linear - best) / linear)}."
        )
    for sigma in SIGMAS:
        share = found.of(stream_of(sigma), BEST, CLOSED)
        mean, low, high, _ = mean_interval(share)
        by_lag = {lag: found.of(stream_of(sigma, lag), BEST, CLOSED) for lag in OLDER}
        known = {lag: float(np.nanmean(own)) for lag, own in by_lag.items() if np.isfinite(own).any()}
        verdict = "excludes" if low > 0.0 or high < 0.0 else "holds"
        yield (
            f"sigma {sigma:g}: of the gap in loss between linear predictor and ceiling, lags {NAMED} pooled, "
            f"the best stronger one closes {quantity(mean, high - mean)}"
            + f" ({', '.join(f'lag {lag}: {value:.2f}' for lag, value in known.items())})" * bool(known)
            + f"; stated is 0, which the interval {verdict}."
        )


def findings(found: Found) -> Iterator[str]:
    """Sentences on roles and payloads."""
    if has_torch_rows(found):
        share = found.of(ROLES, TRACES_LINEAR) / found.of(ROLES, GRU)
        yield (
            f"Roles: three traces, linear, reach {told(share)} of the GRU's accuracy (stated: "
            f"{STATED_SHARE:g}, on other data)."
        )
    for row in ("fast trace, linear", WINDOWED_ROLES):
        yield f"Roles: {row}, {_compared(found.less(ROLES, row, TRACES_LINEAR))} {TRACES_LINEAR}."
    parts = []
    for lag in map(str, PAYLOAD_LAGS[1:]):
        at = payload_stream(lag)
        gained = {row: found.less(at, row, TRACES_LINEAR) for row in (TRACES_MLP, "3 traces, kNN", DECODED)}
        row = max(gained, key=lambda name: float(gained[name].mean()))
        mean, low, high, _ = mean_interval(gained[row])
        if low > 0.0:
            parts.append(f"lag {lag} by {quantity(mean, high - mean)} ({row})")
    yield (
        "Payload: the traces hold more than the linear predictor reads of them at "
        + ("; ".join(parts) if parts else "no lag, as far as these readers can tell")
        + "."
    )
    for row in (WINDOWED, GATED, *[LEARNED] * has_torch_rows(found)):
        sure = [lag for lag in LAGS if found.of(payload_stream(lag), row).mean() >= SURE]
        others = [f"{lag} ({found.cell(payload_stream(lag), row)})" for lag in LAGS if lag not in sure]
        parts = [f"names {SURE:g} or more at lags {', '.join(sure)}"] * bool(sure)
        parts += [f"less at {', '.join(others)}"] * bool(others)
        yield f"Payload: {row}, {'; '.join(parts)}."


def _compared(difference: Array) -> str:
    mean, low, high, n = mean_interval(difference)
    margin = float(ACCURACY.margin or 0.0)
    verdict = ACCURACY.verdict(1.0, mean, low, high, n, n)
    if verdict == "tie":
        return f"ties within {margin:g} with"
    if verdict:
        return "is not told apart from"
    better = mean > 0.0
    return f"is {'better' if better else 'worse'} by {told(difference if better else -difference)} than"


def told(values: Array) -> str:
    """Mean with half of its interval, and over how many where a repetition has no value."""
    mean, _, high, n = mean_interval(values)
    some = f" (n={n})" if 0 < n < len(values) else ""
    return "-" if n == 0 else quantity(mean, high - mean) + some


def _percent(values: Array) -> str:
    return f"{told(100.0 * values)} %"
