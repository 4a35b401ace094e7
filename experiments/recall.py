"""EMA traces of several timescales as a memory of tokens: what structure and identity they keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.agreement import closed_form
from experiments.figures import line, styled
from experiments.goals import Goal
from experiments.metrics import Measured
from experiments.recall_memories import (
    LINEAR,
    STRONGER,
    available,
    precision_scores,
    require_extra,
    single_threaded,
)
from experiments.recall_report import (
    ACCURACY,
    LAGS,
    PRECISE,
    ROLES,
    Found,
    payload_stream,
    told,
    written,
)
from experiments.recall_tasks import (
    BAG,
    BEST,
    CEILING,
    CHANCE,
    CLOSED,
    GATED,
    GRU,
    IDENTITY_KINDS,
    IDENTITY_LAGS,
    MAJORITY,
    MOST,
    OLDER,
    PAYLOAD_LAGS,
    PAYLOAD_WINDOW,
    ROWS,
    SHORT,
    SIGMAS,
    TRACES_LINEAR,
    TRACES_MLP,
    WINDOWED,
    identity_scores,
    payload_scores,
    role_scores,
    stream_of,
)
from experiments.recorder import MissingExtraError
from experiments.runs import Outcome
from experiments.setup import Setup
from experiments.streams import Array
from experiments.summaries import Rows, long_table, mean_interval, summarise
from experiments.tables import latex

UNITS = {"loss": "nats", "tokens_recovered": "tokens", "fewest_recovered": "tokens"}
"""Of the metrics that are no shares."""
MISSING = {CLOSED: "gap within sampling error"}


@dataclass(frozen=True)
class Parameters:
    """Sequences of each repetition: of roles and of payloads a quarter is held out, of identity none.

    packages: those of scikit-learn and torch that are here, filled in where empty; ValueError for others.
    """

    roles: int = 6000
    identity: int = 12000
    payloads: int = 4000
    packages: str = ""

    def __post_init__(self) -> None:
        for name in ("roles", "identity", "payloads"):
            if getattr(self, name) < 400:
                raise ValueError(
                    f"experiment.{name}={getattr(self, name)} is not valid; it must be an int >= 400"
                )
        # What was left out is to be measured once its package is there.
        object.__setattr__(self, "packages", available(("sklearn", "torch"), self.packages))


def run(setup: Setup) -> Outcome:
    """Measure roles, identity and payloads in every repetition; no stream and no estimator of the setup's."""
    setup.check_untuned("experiment=recall has settings of its own")
    try:
        require_extra()
    except MissingExtraError as error:
        raise ValueError("experiment=recall needs scikit-learn: pip install 'kalmean[training]'") from error
    with single_threaded():
        each = [_scores(setup.parameters, setup.root_seed, seed) for seed in range(setup.seeds)]
    found = Found({key: np.array([one[key] for one in each]) for key in each[0]})
    table = long_table("recall", list(_rows(found)))
    summary = summarise(table)
    text = written(found, setup, summary, goals(found))
    figures = {"identity": _identity_figure(found), "memories": _memory_figure(found)}
    return Outcome(table, summary, text, figures, latex(summary, table, [ACCURACY]), [ACCURACY])


def gap_closed(seeds: int = 4, root_seed: int = 0) -> Array:
    """Share of the loss gap between linear predictor and exact ceiling that a stronger one closes.

    Shape (sigmas, seeds), of the state noises ``SIGMAS``. The loss is in nats, as a language model's, and all
    read the same traces; the gaps of the lags 1, 2, 3 and 5 are pooled: the share is of their sum. Of MLP,
    kNN and boosted trees the one of least loss on other sequences is taken, for each lag. Raises
    MissingExtraError without scikit-learn. Source: Singh (2026), arXiv 2604.08556, which states 0; its gap is
    the one to a model that sees the whole context.
    """
    require_extra()
    with single_threaded():
        found = [identity_scores(Parameters().identity, root_seed, seed) for seed in range(seeds)]
    return np.array([[own[stream_of(sigma), BEST, CLOSED] for own in found] for sigma in SIGMAS])


def structure_share(seeds: int = 4, root_seed: int = 0) -> Array:
    """Accuracy of the linear predictor on three traces over that of a supervised GRU, on roles, (seeds,).

    Raises MissingExtraError without torch or scikit-learn. Source: Singh
    (2026), arXiv 2604.08556, where it is 0.96, of a bidirectional GRU on natural sentences.
    """
    require_extra(needs_torch=True)
    with single_threaded():
        rows = TRACES_LINEAR, GRU
        found = (role_scores(Parameters().roles, root_seed, seed, rows) for seed in range(seeds))
        return np.array([own[TRACES_LINEAR] / own[GRU] for own in found])


def _scores(chosen: Parameters, root_seed: int, seed: int) -> dict[tuple[str, str, str], float]:
    """All figures of a repetition by stream, row and metric."""
    roles = role_scores(chosen.roles, root_seed, seed)
    recalled = payload_scores(chosen.payloads, root_seed, seed)
    precise = precision_scores(root_seed, seed)
    return {
        **{(ROLES, row, "accuracy"): value for row, value in roles.items()},
        **identity_scores(chosen.identity, root_seed, seed),
        **{(stream, PRECISE, metric): value for (stream, metric), value in precise.items()},
        **{(payload_stream(lag), row, "accuracy"): value for (lag, row), value in recalled.items()},
    }


def _rows(found: Found) -> Iterator[Rows]:
    """Rows of the table, with what chance alone would give where no more can be known."""
    known = {(ROLES, MOST): MAJORITY} | {
        (payload_stream(str(lag)), WINDOWED): CHANCE for lag in PAYLOAD_LAGS if lag >= PAYLOAD_WINDOW
    }
    for (stream, row), metrics in found.places.items():
        measured = []
        for metric in metrics:
            values, unit = found.of(stream, row, metric), UNITS.get(metric, "share")
            measured.append(Measured(metric, unit, values, MISSING.get(metric, "")))
            if (stream, row) in known:
                measured.append(closed_form(metric, unit, known[stream, row], len(values)))
        yield Rows(stream, row, "", measured)


# --- goals --------------------------------------------------------------------------------------------------


def judged(goal: Goal, ones: Mapping[str, Array]) -> str:
    """A sentence on the worst of some figures: what was asked of it, what was found, and the verdict."""
    worst = max(ones, key=lambda name: (-1.0 if goal.at_least else 1.0) * float(np.mean(ones[name])))
    mean, _, high, _ = mean_interval(ones[worst])
    verdict = "reached" if goal.met(mean) else "missed"
    if abs(mean - goal.bound) < high - mean:
        verdict += ", by less than its ±"
    several = len({float(np.mean(values)) for values in ones.values()}) > 1
    where = f" ({worst})" if several else ""
    return f"{goal.what}: asked {goal.asked}, found {told(ones[worst])}{where}: {verdict}."


def goals(found: Found) -> Iterator[str]:
    """A sentence on each goal, of several figures the worst."""
    bags = {row: found.of(ROLES, row) for _, row in found.places if row.startswith("bag of words")}
    yield judged(_least("Roles, 3 traces, linear", 0.9), {"": found.of(ROLES, TRACES_LINEAR)})
    yield judged(_most("Roles, bag of words", 0.75), bags)
    yield judged(
        _least("Roles, 3 traces less bag of words, linear", 0.2), {"": found.less(ROLES, TRACES_LINEAR, BAG)}
    )
    yield judged(
        _most("Identity, any predictor over the ceiling, less two standard errors of sampling", 0.0),
        {f"{row}, {stream.removeprefix('identity ')}": over for stream, row, over in _over_ceiling(found)},
    )
    low = stream_of(0.05, 1)
    yield judged(
        _least("Identity, the best stronger predictor over linear, sigma 0.05, lag 1", 0.01),
        {"": found.less(low, BEST, ROWS[LINEAR])},
    )
    yield judged(
        _most("Identity, each stronger predictor over linear, sigma from 0.2, lags from 2", 0.01),
        {
            f"{name}, sigma={sigma:g} lag {lag}": found.less(stream_of(sigma, lag), ROWS[name], ROWS[LINEAR])
            for name in STRONGER
            for sigma in SIGMAS
            for lag in OLDER
            if sigma >= 0.2 and lag >= 2
        },
    )
    yield judged(
        _least("Identity, the ceiling over linear, sigma 0.2, lag 2", 0.05),
        {"": found.less(stream_of(0.2, 2), CEILING, ROWS[LINEAR])},
    )

    def lags(row: str, of: Sequence[str], less: str = "") -> dict[str, Array]:
        streams = {f"lag {lag}": payload_stream(lag) for lag in of}
        return {
            lag: found.less(stream, row, less) if less else found.of(stream, row)
            for lag, stream in streams.items()
        }

    within = [str(lag) for lag in PAYLOAD_LAGS if lag < PAYLOAD_WINDOW]
    beyond = [str(lag) for lag in PAYLOAD_LAGS if lag >= PAYLOAD_WINDOW]
    yield judged(_least(f"Payload, {WINDOWED}, lags below {PAYLOAD_WINDOW}", 0.99), lags(WINDOWED, within))
    yield judged(_most(f"Payload, {WINDOWED}, lags from {PAYLOAD_WINDOW}", 0.12), lags(WINDOWED, beyond))
    yield judged(_least("Payload, gate set by hand, every lag", 0.99), lags(GATED, LAGS))
    yield judged(_most("Payload, 3 traces, linear, lags from 1", 0.4), lags(TRACES_LINEAR, LAGS[1:]))
    yield judged(
        _most("Payload, 3 traces, MLP less linear, lags from 1", 0.05),
        lags(TRACES_MLP, LAGS[1:], TRACES_LINEAR),
    )


def _least(what: str, bound: float) -> Goal:
    return Goal(what, "", "", bound, at_least=True, metric="accuracy")


def _most(what: str, bound: float) -> Goal:
    return Goal(what, "", "", bound, metric="accuracy")


def _over_ceiling(found: Found) -> Iterator[tuple[str, str, Array]]:
    """By stream and row, accuracy over the ceiling's less two standard errors of the mean over all tests."""
    for sigma in SIGMAS:
        for lag in IDENTITY_LAGS:
            stream = stream_of(sigma, lag)
            for row in ROWS.values():
                errors = found.of(stream, row, f"{SHORT}_error")
                yield stream, row, -found.of(stream, row, SHORT) - 2.0 * errors / np.sqrt(len(errors))


# --- figures ------------------------------------------------------------------------------------------------

OFFSET = 0.07
"""Between lines that would coincide, of the distance of two lags."""
_MARKERS = "osD^vPX"


def _identity_figure(found: Found) -> Any:
    """Accuracy against lag, of the ceiling and of predictors, a panel for each noise, side by side."""
    rows = [CEILING, *ROWS.values()]
    with styled() as pyplot:
        figure, axes = pyplot.subplots(1, len(SIGMAS), figsize=(8.6, 3.3), sharey=True)
        for axis, sigma in zip(axes, SIGMAS, strict=True):
            for index, row in enumerate(rows):
                series = [found.of(stream_of(sigma, lag), row) for lag in IDENTITY_LAGS]
                _drawn(axis, IDENTITY_LAGS, series, index, len(rows), row)
            axis.axhline(1.0 / IDENTITY_KINDS, color="#888888", linewidth=0.8)
            axis.set(title=f"state noise {sigma:g} sd", xlabel="lag of the token (samples)")
        axes[0].set(ylabel="share of tokens named (line: chance)", ylim=(0.2, 1.03))
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=2.5)
        pyplot.close(figure)
    return figure


def _memory_figure(found: Found) -> Any:
    """Accuracy on roles by memory, and of the payload against its lag."""
    with styled() as pyplot:
        figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.6, 3.9))
        rows = [row for stream, row in found.places if stream == ROLES]
        for place, row in enumerate(rows):
            mean, _, high, _ = mean_interval(found.of(ROLES, row))
            half = high - mean if np.isfinite(high) else 0.0
            left.errorbar(mean, place, xerr=half, fmt="o", markersize=4.0, color="#000000", capsize=2.5)
        left.axvline(MAJORITY, color="#888888", linewidth=0.8)
        left.set_yticks(range(len(rows)), rows, fontsize=8)
        left.set(
            ylim=(len(rows) - 0.5, -0.5), xlabel="share of roles named (line: the majority)", title="roles"
        )
        streams = {lag: payload_stream(str(lag)) for lag in PAYLOAD_LAGS}
        names = dict.fromkeys(row for stream, row in found.places if stream in streams.values())
        for index, row in enumerate(names):
            series = [found.of(stream, row) for stream in streams.values()]
            _drawn(right, range(len(streams)), series, index, len(names), row)
        right.axhline(CHANCE, color="#888888", linewidth=0.8)
        right.set_xticks(range(len(streams)), list(map(str, streams)))
        right.set(
            xlabel="lag of the payload (samples)",
            ylabel="share of payloads named (line: chance)",
            ylim=(0.0, 1.03),
            title="selective recall",
        )
        handles, labels = right.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3, fontsize=8, title="selective recall"
        )
        pyplot.close(figure)
    return figure


def _drawn(
    axis: Any, places: Sequence[int], series: Sequence[Array], index: int, lines: int, label: str
) -> None:
    """A line with its intervals, beside its places by its index, so that equal ones can be told apart."""
    ends = [mean_interval(values) for values in series]
    half = [high - mean if np.isfinite(high) else 0.0 for mean, _, high, _ in ends]
    style = {**line(index), "marker": _MARKERS[index], "markersize": 4.5, "capsize": 2.0}
    beside = np.array(places) + OFFSET * (index - 0.5 * (lines - 1))
    axis.errorbar(beside, [end[0] for end in ends], half, label=label, **style)
