"""What is told of the ways to a smoothed weight: a text with tables, and drawings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from experiments.agreement import agreement
from experiments.domain_findings import (
    FACTOR,
    FLOOR_SHARE,
    FLOORED,
    ODDS_RMSE,
    SAID,
    TUNED,
    WEIGHT_RMSE,
    Findings,
)
from experiments.domain_tuning import budget
from experiments.domain_ways import Point, Way
from experiments.figures import line, styled
from experiments.summaries import Column
from experiments.tables import WIDTH, aligned, counted, quantity, shortened, verdict_of, width, wrapped

MARKS = {"tie": "=", "": "*"}
SIDE = 5
"""Estimators or ratios that stand side by side in a table, at most."""
SHARE = "noise: share of the noise variance in the larger norm"
"""What the number in the label of both norms is."""
SHAPES = "os^vDPX"
"""Of points in figures, by way."""

Lines = list[list[str]]


def text(found: Findings) -> str:
    """Everything, in lines of at most 110 columns; the first estimator where no other is named."""
    setup, name, first = found.setup, found.names[0], found.first_way.label
    middle = _middle(found)
    intervals = found.intervals
    shares = ", ".join(f"noise {share:g}" for share in setup.parameters.noise_shares)
    streams = counted(setup.repetitions, "stream")
    blocks = [
        _filled(
            f"domain: {streams} of {setup.stream.length():,} samples at each ratio, noise and level, root "
            f"seed {setup.root_seed}; errors after the first {setup.burn_in:,}. The ratio is that of two "
            "gradients' norms, its noise lognormal; the weight of the larger gradient is 1 / (1 + ratio), "
            "the true one that of the median ratio."
        ),
        _filled(
            "Ways: the log ratio, the ratio or the weight is smoothed; or both norms, or both inverse "
            f"norms, each by itself, where the larger has such a share ({shares}) of the variance of the log "
            "ratio's noise, the other the rest. Filters are told the noise variance of what they smooth, at "
            "the starting ratio, and q by that factor."
        ),
        _filled(f"{_settings(found)} {_moves(found)}"),
        "Weight to which an endless memory tends on a constant level, over the true one, closed form:",
        *_sides(found.still, lambda points: _limits(found, points)),
        *_unbiased(found),
        f"RMSE of the weight, in % of the true one; {name}, level {middle.level}:",
        *_sides(found.moving, lambda points: _errors(found, points, WEIGHT_RMSE)),
        *_tuned(found),
        f"RMSE of the weight's log odds by estimator; {middle.label}:",
        *_side_by_side(found.names, lambda names: aligned(_by_estimator(found, middle, names), texts=1)),
        *_floored(found, middle.log_sd),
        _filled(
            f"± is half of a 95 % interval over the streams, n = {setup.repetitions}, which all ways and "
            f"estimators share. * differs from the {first}: the 95 % interval of the paired difference "
            f"excludes 0; = a tie: that interval lies within a thousandth of the {first}'s value."
        ),
        _filled(
            f"RMSE of the weight against that of the {first}, {name}: at how many points it is less or more "
            "by that interval, and how many times that of the other it is at the least and at the most. "
            f"{counted(intervals, 'interval')}, not corrected for their number: where nothing differs, 1 in "
            f"20 excludes 0 by chance, {0.05 * intervals:.3g} of so many, and on streams that points share "
            "they do so together."
        ),
        aligned(_against(found), texts=3),
        "\n".join(_bulleted(sentence) for sentence in found.conclusions()),
        _filled(str(agreement(found.summary))),
    ]
    return "\n\n".join(blocks) + "\n"


def _middle(found: Findings) -> Point:
    """At the largest noise, the ratio in the middle of those given."""
    worst = [point for point in found.moving if point.log_sd == max(found.sds)]
    return worst[len(worst) // 2]


def _sides(points: Sequence[Point], table: Callable[[Sequence[Point]], Lines]) -> Iterator[str]:
    """A table for as many ratios at a time as stand side by side."""
    ratios = list(dict.fromkeys(point.ratio for point in points))
    return _side_by_side(
        ratios, lambda own: aligned(table([point for point in points if point.ratio in own]))
    )


def _side_by_side(columns: Sequence[Any], table: Callable[[Sequence[Any]], str]) -> Iterator[str]:
    """Tables of some columns each, as many as a line holds, and all of about as many."""
    for parts in range(-(-len(columns) // SIDE), len(columns) + 1):
        each = -(-len(columns) // parts)
        tables = [table(columns[start : start + each]) for start in range(0, len(columns), each)]
        if each == 1 or all(width(one.partition("\n")[0]) <= WIDTH for one in tables):
            yield from tables
            return


def _by_noise(
    found: Findings, points: Sequence[Point], ways: Sequence[Way], cell: Callable[[Point, Way], str]
) -> Lines:
    """A row for each noise and way, a column for each ratio."""
    lines = [["log sd", "way", *dict.fromkeys(f"ratio {point.ratio:g}" for point in points)]]
    for sd in dict.fromkeys(point.log_sd for point in points):
        own = [point for point in points if point.log_sd == sd]
        lines += [[f"{sd:g}", way.label, *(cell(point, way) for point in own)] for way in ways]
    return lines


def _limits(found: Findings, points: Sequence[Point]) -> Lines:
    """Closed forms of the ways that are biased anywhere."""
    biased = [way for way in found.ways if way not in found.unbiased]
    return _by_noise(found, points, biased, lambda point, way: f"{found.limit(point, way):.3f}")


def _unbiased(found: Findings) -> Iterator[str]:
    if found.unbiased:
        yield f"1 at every ratio and noise: {'; '.join(way.label for way in found.unbiased)}."


def _errors(found: Findings, points: Sequence[Point], column: Column, marked: bool = True) -> Lines:
    """A metric of the first estimator."""
    return _by_noise(
        found, points, found.ways, lambda point, way: _cell(found, point, found.names[0], way, column, marked)
    )


def _settings(found: Findings) -> str:
    """Estimators as they were given."""
    own = found.summary[found.summary["stream"] == found.points[0].label]
    given = dict(zip(own["estimator"], shortened(own).str.partition(" ")[2], strict=True))
    said = "; ".join(f"{name} {given[name]}".rstrip() for name in found.names)
    return f"Settings as given, tuned only where it is said: {said}."


def _moves(found: Findings) -> str:
    """How the level that moves does, where one does."""
    point = found.moving[0]
    if point.still:
        return ""
    stream = point.stream
    more = [f"a ramp of {stream.ramp:g} a sample"] * bool(stream.ramp)
    more += [f"jumps of {stream.jump_size:g} at a rate of {stream.jump_rate:g}"] * bool(stream.jump_rate)
    return (
        f"Level {point.level}: the log of the median ratio is a random walk of q/r = {stream.s:.3g}, r the "
        f"square of the noise's log sd{''.join(f', with {one}' for one in more)}."
    )


def _tuned(found: Findings) -> Iterator[str]:
    """The first estimator once more, each way at the noise gain that was best for it."""
    name, first, others = found.names[0], found.first_way.label, found.ways[1:]
    if found.untuned:
        yield _filled(f"No way is tuned, for the first estimator cannot be: {found.untuned}.")
        return
    yield _filled(
        f"RMSE of the weight, each way at its own best, in % of the true one; {name}, level "
        f"{found.moving[0].level}; {budget(found.moving[0].stream.steps)}:"
    )
    yield from _sides(found.moving, lambda points: _errors(found, points, TUNED))
    yield f"The same less that of the {first} on the same streams:"
    yield from _sides(
        found.moving,
        lambda points: _by_noise(found, points, others, lambda p, way: _difference(found, p, way)),
    )
    yield _filled(
        "The noise gain g chosen for each, as the beta of the exponential average that has it, "
        "(1 - g) / (1 + g); ! at the edge of those tried:"
    )
    yield from _sides(
        found.moving, lambda points: _by_noise(found, points, found.ways, lambda p, way: _beta(found, p, way))
    )


def _difference(found: Findings, point: Point, way: Way) -> str:
    """Mean and half of the interval of the paired difference to the first way, tuned both."""
    row = found.row(point, found.names[0], way, TUNED)
    if row is None or not row["pairs"]:
        return "-"
    text = quantity(row["difference"], row["difference_high"] - row["difference"])
    return text if row["difference"] < 0.0 else f"+{text}"


def _beta(found: Findings, point: Point, way: Way) -> str:
    beta = found.beta(point, way)
    return f"{beta:.4f}{'!' if found.at_edge(point, way) else ' '}" if np.isfinite(beta) else "-"


def _by_estimator(found: Findings, point: Point, names: Sequence[str]) -> Lines:
    """Errors of the log odds at one point, by way, estimators side by side."""
    rows = [[way.label, *(_cell(found, point, name, way, ODDS_RMSE) for name in names)] for way in found.ways]
    return [["way", *names], *rows]


def _floored(found: Findings, sd: float) -> Iterator[str]:
    """What a floor leaves at one noise, on a constant level."""
    floor = found.setup.parameters.floor
    if floor:
        own = [point for point in found.still if point.log_sd == sd]
        yield _filled(
            f"With a floor of {floor:g}, below which true weights are from a ratio of {1.0 / floor - 1.0:g} "
            "on: weights are raised to it, then made to sum to 1. RMSE in % of the true weight, raised too; "
            f"{found.names[0]}, level {own[0].level}:"
        )
        yield from _sides(own, lambda points: _errors(found, points, FLOORED))
        yield "Share of the samples at which it binds, in %:"
        yield from _sides(own, lambda points: _errors(found, points, FLOOR_SHARE, marked=False))


def _against(found: Findings) -> Lines:
    """How often each way errs more, or less, than the first, and how much, by kind of level."""
    lines = [["way", "inversion", "level", *SAID[:4], "least", "most"]]
    for way in found.ways[1:]:
        for compared in found.compared:
            told = found.told(compared, way)
            times = sorted(value for _, value, _ in told)
            ends = [f"{times[0]:.2f}", f"{times[-1]:.2f}"] if times else ["-", "-"]
            verdicts = [verdict for verdict, *_ in told]
            counts = [str(verdicts.count(said)) for said in SAID[:4]]
            when = "after" if way.before else "before"
            lines.append([way.label, f"{when} the mean", compared.label, *counts, *ends])
    return lines


def _cell(found: Findings, point: Point, name: str, way: Way, column: Column, marked: bool = True) -> str:
    """Mean and half of its interval, and how it stands to the first way of the same estimator."""
    row = found.row(point, name, way, column)
    text = "-" if row is None else quantity(row["mean"], row["high"] - row["mean"])
    if not marked:
        return text
    alone = row is None or way == found.first_way
    return text + (" " if alone else MARKS.get(verdict_of(row, column), " "))


def _filled(text: str) -> str:
    return wrapped(text)


def _bulleted(sentence: str) -> str:
    return wrapped(sentence, "  ", "- ")


def figures(found: Findings) -> dict[str, Any]:
    """Bias and error against the ratio, of the first estimator, a panel for each noise."""
    name = found.names[0]

    def bias(axis: Any, points: Sequence[Point], way: Way, style: dict[str, Any], shape: str) -> None:
        ratios = np.geomspace(points[0].ratio, points[-1].ratio, 60).tolist()
        limits = [found.limit(points[0]._replace(ratio=ratio), way) for ratio in ratios]
        axis.plot(ratios, limits, **style)
        axis.plot([], [], marker=shape, markersize=4.0, label=way.label, **style)
        simulated = [found.mean(point, name, way, FACTOR) for point in points]
        axis.plot(_ratios(points), simulated, shape, color=style["color"], markersize=4.0, zorder=20)

    def error(axis: Any, points: Sequence[Point], way: Way, style: dict[str, Any], shape: str) -> None:
        simulated = [found.mean(point, name, way, WEIGHT_RMSE) for point in points]
        axis.plot(_ratios(points), simulated, marker=shape, markersize=4.0, label=way.label, **style)

    still, moving = found.still, found.moving
    return {
        "bias": _drawn(
            found, still, bias, f"mean weight over the true one\n(points: {name}, level: {still[0].level})"
        ),
        "error": _drawn(found, moving, error, f"RMSE of the weight (%)\n({name}, level: {moving[0].level})"),
    }


def _drawn(found: Findings, points: Sequence[Point], draw: Callable[..., None], label: str) -> Any:
    with styled() as pyplot:
        sds = found.sds
        figure, axes = pyplot.subplots(
            1, len(sds), figsize=(2.4 * len(sds) + 0.8, 3.4), squeeze=False, sharey=True
        )
        for axis, sd in zip(axes[0], sds, strict=True):
            own = sorted((p for p in points if p.log_sd == sd), key=lambda point: point.ratio)
            for index, way in enumerate(found.ways):
                draw(axis, own, way, line(index), SHAPES[index % len(SHAPES)])
            axis.set(xscale="log", yscale="log", title=f"log sd {sd:g}", xlabel="ratio of the norms")
        first = axes[0][0]
        first.yaxis.set_major_locator(pyplot.matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        first.yaxis.set_major_formatter("{x:g}")
        first.yaxis.set_minor_formatter("")
        first.set_ylabel(label)
        handles, names = first.get_legend_handles_labels()
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=min(4, len(names)),
            title=SHARE,
            title_fontsize=8,
        )
        pyplot.close(figure)
    return figure


def _ratios(points: Sequence[Point]) -> list[float]:
    return [point.ratio for point in points]
