"""Where to smooth a gradient ratio: as logarithm, ratio, weight or norms; bias and error of the weight."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from estimators import Estimator, Trait
from experiments.agreement import EXPECTED, closed_form
from experiments.cells import BLOCK
from experiments.domain_findings import COLUMNS, Findings
from experiments.domain_report import figures, text
from experiments.domain_tuning import Best, WayTuner, best_of, untunable
from experiments.domain_ways import CONSTANT, Point, Together, Way, floored, ways, weight_of
from experiments.metrics import Measured, joined, mean_over_time
from experiments.runs import Outcome
from experiments.settings import TUNING_STREAMS, Tune
from experiments.setup import Setup, setting
from experiments.streams import Array, Domain, GradientRatio, Purpose, Realisations, is_plain_walk
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import latex

LOGARITHM = Together(Domain.log_ratio)
OUTSIDE, SIGNED = "left (0, 1)", "needs positive samples"
OF_OTHERS = {"odds_rmse", "odds_apart"}
"""Metrics that are read of estimators other than the first."""
OF_CLOSED_FORMS = {"odds_mse", "smoothed_mean"}
"""Metrics that are there for the closed forms of them alone."""


@dataclass(frozen=True)
class Parameters:
    """ratios: medians of the norms' ratio; log_sds: of its noise, in the log; noise_shares: of that noise's
    variance, what the larger gradient's norm has, where both norms are smoothed; floor: least weight, 0 for
    none.
    """

    ratios: list[float] = field(default_factory=lambda: [1.0, 10.0, 100.0, 1000.0, 10000.0])
    log_sds: list[float] = field(default_factory=lambda: [0.3, 0.85, 1.4])
    noise_shares: list[float] = field(default_factory=lambda: [0.5, 0.8])
    floor: float = 0.05

    def __post_init__(self) -> None:
        for name, low, high, valid in (
            ("ratios", 1.0, 1e9, "from 1 to 1e9"),
            ("log_sds", 1e-3, 5.0, "from 0.001 to 5"),
            ("noise_shares", 0.0, 1.0, "from 0 to 1"),
        ):
            given = getattr(self, name)
            written = {f"{one:g}" for one in given}  # as points and ways are named
            if not given or len(written) < len(given) or not all(low <= one <= high for one in given):
                raise ValueError(
                    f"experiment.{name}={given} is not valid; it must be a list of numbers {valid} that "
                    "differ when written with six digits"
                )
        if not 0.0 <= self.floor < 0.5:
            raise ValueError(f"experiment.floor={self.floor} is not valid; it must be in [0, 1/2)")


class Drawn(NamedTuple):
    """Samples and level of the log ratio, and what the noises of the two norms share, each (T, n)."""

    log_ratio: Array
    level: Array
    shared: Array


def run(setup: Setup) -> Outcome:
    """Smooth in every way by every estimator, on the same samples; ValueError for settings of no use here."""
    stream = _ratio_of(setup)
    setup.check_untuned("experiment=domain compares ways at the settings given and tunes them itself")
    chosen: Parameters = setup.parameters
    grid, every = points(stream, chosen), ways(chosen.noise_shares)
    rows: list[Rows] = []
    for point in grid:
        best = _tuned(setup, point, every) if point.level == grid[-1].level else {}
        rows += _rows(setup, point, every, best)
    table = long_table("domain", rows)
    summary = summarise(table)
    found = Findings(setup, grid, every, table, summary)
    return Outcome(table, summary, text(found), figures(found), latex(summary, table, COLUMNS), COLUMNS)


def _ratio_of(setup: Setup) -> GradientRatio:
    """The stream; ValueError for another one, and for settings of it that the grid overrides."""
    stream, plain = setup.stream, GradientRatio()
    if type(stream) is not GradientRatio:
        raise ValueError("experiment=domain needs a ratio of known level; choose stream=gradient_ratio")
    for name, instead in (("median", "experiment.ratios"), ("r", "experiment.log_sds")):
        if getattr(stream, name) != getattr(plain, name):
            raise ValueError(
                f"stream.{name}={getattr(stream, name)} has no effect in experiment=domain; set {instead}"
            )
    if stream.domain is not Domain.log_ratio:
        raise ValueError(
            f"stream.domain={stream.domain} has no effect in experiment=domain, which smooths in all of them"
        )
    return stream


def points(stream: GradientRatio, chosen: Parameters) -> list[Point]:
    """Each ratio and noise, on a constant level and, where the stream's own is another, on that."""
    still = replace(stream, s=0.0, ramp=0.0, jump_rate=0.0)
    name = "walk" if stream == replace(still, s=stream.s) else "moving"
    levels = {CONSTANT: still} | ({} if stream == still else {name: stream})
    return [
        Point(level, sd, ratio, replace(own, median=float(ratio), r=float(sd) ** 2))
        for level, own in levels.items()
        for sd in chosen.log_sds
        for ratio in chosen.ratios
    ]


def draw(point: Point, repetitions: Sequence[int], root_seed: int, purpose: Purpose = "evaluate") -> Drawn:
    """Draw repetitions; points of one seed differ in the level and in the size of the noise alone."""
    drawn = point.stream.draw(repetitions, root_seed, purpose)
    use = "" if purpose == "evaluate" else f", {purpose}"
    key = zlib.crc32(f"noise that both norms share{use}".encode())
    shared = np.empty((len(repetitions), point.stream.steps))
    for row, repetition in zip(shared, repetitions, strict=True):
        sequence = np.random.SeedSequence(root_seed, spawn_key=(key, repetition))
        row[:] = np.random.Generator(np.random.SFC64(sequence)).standard_normal(row.size)
    level: Any = drawn.level
    return Drawn(drawn.samples, level, point.log_sd * shared.T)


def _tuned(setup: Setup, point: Point, every: Sequence[Way]) -> dict[Way, Best]:
    """The best setting of the first estimator for each way, on the same streams; none where it has none."""
    name, estimator = next(iter(setup.estimators.items()))
    if untunable(name, estimator, point.stream.steps):
        return {}
    drawn = draw(point, range(TUNING_STREAMS), setup.root_seed, "tune")
    log_ratios = Realisations(drawn.log_ratio, drawn.level, zero_mean=True)
    burn_in, told = min(setup.burn_in, point.stream.steps // 4), setup.stream.own_noise_variance()
    found = {}
    for way in every:
        if _takes(estimator, way):
            scales = way.scales(point.stream, told)
            scaled = [scale * one for scale, one in zip(scales, way.seen(*drawn), strict=True)]
            found[way] = best_of(WayTuner(log_ratios, Tune.rmse, burn_in, way, scaled, scales), estimator)
    return found


def _rows(setup: Setup, point: Point, every: Sequence[Way], best: Mapping[Way, Best]) -> Iterator[Rows]:
    """Measurements of a point, by estimator and way; best: of the first estimator, where it is tuned."""
    first_name = next(iter(setup.estimators))
    width = max(1, BLOCK // point.stream.steps)
    found: dict[tuple[str, Way], list[list[Measured]]] = {}
    for first in range(0, setup.repetitions, width):
        drawn = draw(point, range(first, min(first + width, setup.repetitions)), setup.root_seed)
        seen = {way: way.seen(*drawn) for way in every}
        for name, estimator in setup.estimators.items():
            beside = None
            for way in every:
                smoothed = _smoothed(setup, point, way, estimator, seen[way])
                log_odds = None if smoothed is None else way.log_odds(smoothed)
                if way == LOGARITHM:
                    beside = log_odds
                own = list(_measured(setup, point, way, drawn.level, smoothed, log_odds, beside))
                if name == first_name and way in best:
                    own.append(_tuned_rmse(setup, point, way, drawn.level, best[way], seen[way]))
                found.setdefault((name, way), []).append(own)
    for (name, way), blocks in found.items():
        estimator = setup.estimators[name]
        closed = list(_closed_forms(setup, point, way, estimator))
        measured = _read(joined(blocks), closed, name == first_name) + closed
        if name == first_name and way in best:
            measured += best[way].measured()
        yield Rows(point.label, name, f"way={way.key} {setting(estimator)}".rstrip(), measured)


def _read(measured: Sequence[Measured], closed: Sequence[Measured], of_first: bool) -> list[Measured]:
    """Without what no table and no sentence reads and no closed form states, which is most of it."""
    stated = {one.metric for one in closed}
    return [
        one
        for one in measured
        if one.metric + EXPECTED in stated
        or (one.metric not in OF_CLOSED_FORMS if of_first else one.metric in OF_OTHERS)
    ]


def _takes(estimator: Estimator, way: Way) -> bool:
    """Whether an estimator can take what the way smooths."""
    return Trait.POSITIVE not in estimator.traits or way != LOGARITHM


def _tuned_rmse(
    setup: Setup, point: Point, way: Way, level: Array, best: Best, seen: Sequence[Array]
) -> Measured:
    """RMSE of the weight at the setting chosen."""
    smoothed = _smoothed(setup, point, way, best.estimator, seen)
    log_odds = None if smoothed is None else way.log_odds(smoothed)
    measured = _measured(setup, point, way, level, smoothed, log_odds, None)
    rmse = next(one for one in measured if one.metric == "weight_rmse")
    return replace(rmse, metric="tuned_weight_rmse")


def _smoothed(
    setup: Setup, point: Point, way: Way, estimator: Estimator, seen: Sequence[Array]
) -> list[Array] | None:
    """Means of each quantity, (T, n); None where the estimator cannot take them.

    Filtered in units in which its noise has the variance that the estimator was told of the stream it was set
    for: that is to tell it the quantity's own variance, and q by the same factor, whatever it calls them.
    """
    if not _takes(estimator, way):
        return None
    scales = way.scales(point.stream, setup.stream.own_noise_variance())
    return [
        np.asarray(estimator.filter(scale * one).mean) / scale
        for scale, one in zip(scales, seen, strict=True)
    ]


def _measured(
    setup: Setup,
    point: Point,
    way: Way,
    level: Array,
    smoothed: Sequence[Array] | None,
    log_odds: Array | None,
    beside: Array | None,
) -> Iterator[Measured]:
    """Bias and error of the weight, as a share of it and in log odds, after the burn-in; what a floor does.

    On a constant level also the mean of the first quantity, in medians of it, unless it is the ratio's log or
    the weight itself. No value where a weight is none.
    """
    after, nothing = slice(setup.burn_in, None), np.full(level.shape[1], np.nan)
    why = SIGNED if smoothed is None else OUTSIDE
    odds = np.full(level.shape, np.nan) if log_odds is None else log_odds
    error, true = odds[after] + level[after], weight_of(-level[after])
    counts = np.isfinite(error).all(axis=0)
    weight = weight_of(odds[after])

    def mean(metric: str, unit: str, values: Array, root: bool = False) -> Measured:
        found = mean_over_time(values)
        return Measured(metric, unit, np.where(counts, np.sqrt(found) if root else found, nothing), why)

    relative = weight / true
    yield mean("weight_factor", "true weights", relative)
    yield mean("weight_rmse", "% of the weight", 1e4 * (relative - 1.0) ** 2, root=True)
    yield mean("odds_bias", "log odds", error)
    yield mean("odds_rmse", "log odds", error**2, root=True)
    if point.still and setup.parameters.floor:
        floor = setup.parameters.floor
        binds = np.minimum(weight, 1.0 - weight) < floor
        off = floored(weight, floor) / floored(true, floor) - 1.0
        yield mean("floor_share", "% of samples", 100.0 * binds)
        yield mean("floored_rmse", "% of the weight", 1e4 * off**2, root=True)
    if point.still and way == LOGARITHM:
        yield mean("odds_mse", "(log odds)^2", error**2)
    elif point.still and smoothed is not None and way.key != Domain.weight:
        first = smoothed[0][after] / way.medians(point.ratio)[0]
        yield Measured("smoothed_mean", "medians", mean_over_time(first))
    if beside is not None and isinstance(way, Together) and way != LOGARITHM:
        apart = np.abs(odds[after] - beside[after]).max(axis=0)
        yield Measured("odds_apart", "log odds", np.where(counts, apart, nothing), why)


def _closed_forms(setup: Setup, point: Point, way: Way, estimator: Estimator) -> Iterator[Measured]:
    """What means of the above are in closed form, of filters that are linear, start and all.

    A linear filter's mean over streams is its output for the mean stream.
    """
    stream, n, after = point.stream, setup.repetitions, slice(setup.burn_in, None)
    gaussian = stream.outlier_rate == stream.gap_rate == 0.0 and np.isinf(stream.degrees_of_freedom)
    if Trait.LINEAR not in estimator.traits or not gaussian or stream.ramp or stream.jump_rate:
        return
    if point.ratio != setup.parameters.ratios[0] and way.key != Domain.weight:
        return  # errors of the same noise are the same at every ratio, but for the weight: no news
    constants = [np.full(stream.steps, mean) for mean in way.means(point.ratio, stream.r)]
    smoothed = _smoothed(setup, point, way, estimator, constants)
    if smoothed is None:
        return
    expected = smoothed[0][after]
    if way == LOGARITHM:
        bias = np.log(point.ratio) - expected
        yield closed_form("odds_bias", "log odds", float(bias.mean()), n)
        if point.still and is_plain_walk(stream):
            gain = np.asarray(estimator.filter(constants[0]).noise_gain)[after]
            yield closed_form("odds_mse", "(log odds)^2", float((stream.r * gain + bias**2).mean()), n)
    elif point.still and way.key == Domain.weight:
        true = weight_of(-np.log(point.ratio))
        yield closed_form("weight_factor", "true weights", float(expected.mean() / true), n)
    elif point.still:
        first = expected.mean() / way.medians(point.ratio)[0]
        yield closed_form("smoothed_mean", "medians", float(first), n)
