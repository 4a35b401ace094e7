"""What a state in fewer bytes costs: error by storage and beta, where a mean stalls, and a second moment."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from estimators import EMA, LinearEstimator
from experiments.agreement import closed_form
from experiments.cells import Condition
from experiments.memory_storage import STORAGES, Storage, measured_stall, stall, stored
from experiments.metrics import Measured
from experiments.streams import Array, GradientRatio
from experiments.summaries import Column, Rows, mean_interval
from experiments.tables import aligned, beta_text, narrowed, quantity, wrapped
from experiments.tradeoff_families import every_setting, expected_mse

SETTLED = 30.0
"""Effective windows in a stream from which on mean squares are near enough to Gaussian for a t interval."""
OFF = 0.01
"""By which a measured stall may differ from its closed form before it is named."""
HUGE = 1e5
"""Percent from which on no digit of one is worth a column."""
MOMENT_BETA, MOMENT_STEPS, MOMENT_LAST, MOMENT_FALL = 0.999, 20_000, 1000, 0.1
"""Adam's beta2; samples, those looked at at the end of each half, and what the gradient falls to half way."""
RMSE = Column("rmse", "RMSE")
_ZERO = re.compile(r"0(\.0+)? ±")
VERDICTS = ("more", "less", "tie", "not told apart")


@dataclass(frozen=True)
class Grid:
    """betas, noise sds, ratios q/r of the walks, the mean that they start from, steps and repetitions."""

    betas: Sequence[float]
    noise: Sequence[float]
    walks: Sequence[float]
    mean: float
    steps: int
    repetitions: int

    @property
    def first(self) -> int:
        """Samples before errors count."""
        return self.steps // 10


class Errors(NamedTuple):
    """In standard deviations of the noise, (storages, betas, walks, noise, repetitions)."""

    rmse: Array
    """Against the level."""
    lost: Array
    """Root mean square of the mean less that of the first storage, float64."""


def errors(grid: Grid, root_seed: int) -> Errors:
    """EMAs of all betas by all storages on the same walks, which start where the EMAs do."""
    drawn = [walk(grid.steps, s).draw(range(grid.repetitions), root_seed, "evaluate") for s in grid.walks]
    sd = np.array(grid.noise)[:, np.newaxis]
    samples = np.stack([one.samples for one in drawn], axis=1)
    levels = np.stack([one.level for one in drawn], axis=1)  # type: ignore[misc]
    ema = EMA(np.reshape(grid.betas, (-1, 1, 1, 1)), initial=grid.mean)
    seen = (grid.mean + sd * row[np.newaxis, :, np.newaxis] for row in samples)
    first = grid.mean + sd * samples[0][np.newaxis, :, np.newaxis]
    squares = np.zeros((2, len(STORAGES), len(grid.betas), *first.shape[1:]))
    for t, means in enumerate(stored(ema, first, seen, root_seed)):
        if t >= grid.first:
            for total, aim in zip(
                squares, (grid.mean + sd * levels[t][:, np.newaxis], means[0]), strict=True
            ):
                away = means - aim
                total += away * away
    return Errors(*(np.sqrt(squares / (grid.steps - grid.first)) / sd))


def walk(steps: int, s: float) -> GradientRatio:
    """A random walk from 0 under unit noise."""
    return GradientRatio(steps=steps, median=1.0, r=1.0, s=s)


def closed_mse(estimator: Any, stream: GradientRatio, first: int) -> float | None:
    """Expected squared error from a sample on, start-up included; None where no interval could judge it.

    As `tradeoff_families.expected_mse`, which needs gains that do not depend on the data.
    """
    if not isinstance(estimator, LinearEstimator):
        return None
    if stream.steps < SETTLED * float(estimator.effective_window):
        return None
    return expected_mse(estimator, Condition(every_setting, None, stream, stream.r, 0, first))


def places(grid: Grid) -> Iterator[tuple[tuple[int, int, int], str]]:
    """Indices of beta, walk and noise, and the name of what is compared there."""
    for d, sd in enumerate(grid.noise):
        for w, s in enumerate(grid.walks):
            for b, beta in enumerate(grid.betas):
                yield (b, w, d), f"mean {grid.mean:g}, noise {sd:g}, s={s:g}, beta={beta_text(beta)}"


def rows(grid: Grid, found: Errors) -> Iterator[Rows]:
    """Errors by beta, walk and noise; each storage is compared with float64."""
    for (b, w, d), name in places(grid):
        for at, storage in enumerate(STORAGES):
            rmse = found.rmse[at, b, w, d]
            measured = [
                Measured("rmse", "noise sd", rmse),
                Measured("storage_rmse", "noise sd", found.lost[at, b, w, d]),
            ]
            beta = grid.betas[b]
            if at == 0:
                measured.append(Measured("mse", "noise variance", rmse**2))
                value = closed_mse(EMA(beta, initial=0.0), walk(grid.steps, grid.walks[w]), grid.first)
                if value is not None:
                    measured.append(closed_form("mse", "noise variance", value, grid.repetitions))
            yield Rows(name, storage.name, f"bytes={storage.bytes}", measured)


def stall_rows(grid: Grid) -> Iterator[Rows]:
    """How far off a sample must be to move a stored mean, in closed form and through the EMA's own update."""
    for beta in grid.betas:
        for storage in _to_nearest():
            closed = float(stall(beta, storage, grid.mean)[0])
            measured = float(measured_stall([beta], storage, grid.mean)[0])
            yield Rows(
                f"one sample at mean {grid.mean:g}, beta={beta_text(beta)}",
                storage.name,
                f"bytes={storage.bytes}",
                [
                    Measured("stall_distance", "unit", np.array([measured])),
                    closed_form("stall_distance", "unit", closed, 1),
                ],
            )


def moments(repetitions: int, root_seed: int) -> tuple[Array, Array]:
    """The EMA of squared gradients over the true variance at the end of each half, and what to expect.

    The first is (storages, halves, repetitions); the gradient's sd falls from 1 to 0.1 half way.
    """
    sd = np.where(np.arange(MOMENT_STEPS) < MOMENT_STEPS // 2, 1.0, MOMENT_FALL)
    key = zlib.crc32(b"squared gradient")
    gradients = np.stack(
        [
            np.random.Generator(
                np.random.SFC64(np.random.SeedSequence([root_seed, key, repetition]))
            ).standard_normal(MOMENT_STEPS)
            for repetition in range(repetitions)
        ],
        axis=1,
    )
    squared = (sd[:, np.newaxis] * gradients) ** 2
    ema = EMA(MOMENT_BETA, initial=0.0)
    ends = MOMENT_STEPS // 2, MOMENT_STEPS
    held = np.zeros((len(STORAGES), 2, repetitions))
    for t, means in enumerate(stored(ema, squared[0], squared, root_seed)):
        for half, end in enumerate(ends):
            if end - MOMENT_LAST <= t < end:
                held[:, half] += means / (MOMENT_LAST * sd[t] ** 2)
    mean = np.asarray(ema.filter(sd**2).mean) / sd**2
    return held, np.array([mean[end - MOMENT_LAST : end].mean() for end in ends])


def moment_rows(held: Array, expected: Array) -> Iterator[Rows]:
    """The second moment over what it should be, at the end of each half."""
    for at, storage in enumerate(STORAGES):
        measured = []
        for half, when in enumerate(("before", "after")):
            metric = f"moment_{when}"
            measured.append(Measured(metric, "share of E[g^2]", held[at, half]))
            if at == 0:
                measured.append(closed_form(metric, "share of E[g^2]", expected[half], held.shape[-1]))
        name = f"squared gradients, beta={MOMENT_BETA:g}"
        yield Rows(name, storage.name, f"bytes={storage.bytes}", measured)


def text(grid: Grid, found: Errors, held: Array) -> Iterator[str]:
    """Tables of all of it, with legend."""
    yield (
        f"Stored state: EMAs from a mean of {grid.mean:g}, {grid.repetitions} streams of {grid.steps:,} "
        f"samples, errors after the first {grid.first:,}.\n"
        "float64: RMSE in % of the noise sd; the others: paired difference to it, in % of it (=: a tie,\n"
        "within 0.1 %; *: the interval excludes 0). ± is half of a 95 % interval over the streams, "
        f"n = {grid.repetitions}."
    )
    head = ["state", *map(beta_text, grid.betas)]
    for d, sd in enumerate(grid.noise):
        for w, s in enumerate(grid.walks):
            lines = [head]
            for at, storage in enumerate(STORAGES):
                cells = [_cell(found.rmse[:, b, w, d], at) for b in range(len(grid.betas))]
                lines.append([storage.name, *cells])
            yield f"Noise sd {sd:g}, walk of q/r = {s:g}, by beta:\n\n" + narrowed(lines)
    lines = [
        ["state", "bytes", "spacing", *(f"1 - beta, noise {sd:g}" for sd in grid.noise), "measured / closed"]
    ]
    for storage in _to_nearest():
        spacing = float(storage.spacing(storage.kept(np.array([grid.mean])))[0])
        ratio = _stall_ratio(grid, storage)
        gains = [f"{0.5 * spacing / sd:.2g}" for sd in grid.noise]
        ends = sorted({f"{ratio.min():.4g}", f"{ratio.max():.4g}"}, key=float)
        lines.append([storage.name, str(storage.bytes), f"{spacing:.3g}", *gains, " to ".join(ends)])
    yield (
        f"The 1 - beta at which a sample one noise sd off no longer moves a mean of {grid.mean:g}: "
        "spacing / (2 sd).\nMeasured: by the EMA's own update, over the betas above; it adds in float64 "
        "itself, which the finest show:\n\n" + narrowed(lines, kept=3)
    )
    lines = [["state", "sd 1", f"after it fell to {MOMENT_FALL:g}"]]
    lines += [
        [storage.name, *(_share(values) for values in own)]
        for storage, own in zip(STORAGES, held, strict=True)
    ]
    yield (
        f"EMA({MOMENT_BETA:g}) of squared gradients (Adam's second moment) over their true mean, the last "
        f"{MOMENT_LAST:,} of\n{MOMENT_STEPS // 2:,} steps at each sd:\n\n" + aligned(lines, texts=1)
    )


def sentences(grid: Grid, rmse: Array, held: Array) -> Iterator[str]:
    """What the numbers say: where each storage begins to cost, and what the second part of a pair buys."""
    for at, storage in enumerate(STORAGES[1:], start=1):
        verdicts = {name: _verdict(rmse[:, b, w, d], at) for (b, w, d), name in places(grid)}
        counts = {said: list(verdicts.values()).count(said) for said in VERDICTS}
        parts = [f"{count} {said}" for said, count in counts.items() if count]
        told = ", ".join(parts)
        first = []
        for d, sd in enumerate(grid.noise):
            dear = [
                beta
                for b, beta in enumerate(grid.betas)
                if any(_verdict(rmse[:, b, w, d], at) == "more" for w in range(len(grid.walks)))
            ]
            first.append(
                f"noise {sd:g}: " + (f"more from beta = {beta_text(min(dear))} on" if dear else "never more")
            )
        yield f"{storage.name} against float64, {len(verdicts)} settings: {told}; {'; '.join(first)}"
    by_name = {storage.name: at for at, storage in enumerate(STORAGES)}
    for pair, single, same in (
        ("2 x bfloat16", "bfloat16", "twice the bytes"),
        ("2 x bfloat16", "float32", "the same bytes"),
        ("2 x float32", "float64", "the same bytes"),
    ):
        both = rmse[[by_name[single], by_name[pair]]]
        said = [_verdict(both[:, b, w, d], 1) for (b, w, d), _ in places(grid)]
        unclear = said.count("not told apart")
        yield (
            f"{pair} against {single}, {same}: more error at {said.count('more')}, less at "
            f"{said.count('less')}, a tie at {said.count('tie')} of {len(said)}"
            + (f", {unclear} not told apart" if unclear else "")
        )
    for storage, own in zip(STORAGES, held, strict=True):
        mean, low, high, _ = mean_interval(own[1])
        if not low <= 2.0:
            yield (
                f"in {storage.name} the second moment stays {quantity(mean, high - mean)} times what it "
                f"should be after the gradient fell"
            )


def unjudged(grid: Grid) -> str:
    """What the stall distances, which no standard error can judge, are beside their closed forms."""
    ratios = {storage.name: _stall_ratio(grid, storage) for storage in _to_nearest()}
    every = np.concatenate(list(ratios.values()))
    off = [name for name, own in ratios.items() if np.abs(own - 1.0).max() > OFF]
    who = f"by more than {100 * OFF:g} % in {' and '.join(off)}" if off else f"nowhere by {100 * OFF:g} %"
    return wrapped(
        f"Not among these means: the {every.size} stall distances, one value each (n = 1), which no standard "
        f"error can judge. Measured / closed is {every.min():.3g} to {every.max():.3g}, off 1 {who}."
    )


def _stall_ratio(grid: Grid, storage: Storage) -> Array:
    return measured_stall(grid.betas, storage, grid.mean) / stall(grid.betas, storage, grid.mean)


def _to_nearest() -> list[Storage]:
    return [storage for storage in STORAGES if not storage.chance]


def _verdict(rmse: Array, at: int) -> str:
    """More, less, tie or not told apart: the error by one storage against the first, (storages, n)."""
    difference, low, high, pairs = mean_interval(rmse[at] - rmse[0])
    base = float(np.mean(rmse[0]))
    verdict = RMSE.verdict(base, difference, low, high, pairs, pairs)
    return verdict or ("more" if difference > 0.0 else "less")


def _cell(rmse: Array, at: int) -> str:
    base, _, high, _ = mean_interval(rmse[0])
    if at == 0:
        return quantity(100.0 * base, 100.0 * (high - base)) + " "
    verdict = _verdict(rmse, at)
    if verdict == "tie":
        return "= "
    difference, _, high, _ = mean_interval(100.0 * (rmse[at] - rmse[0]) / base)
    mark = " " if verdict == "not told apart" else "*"
    half = high - difference
    text = (
        f"{abs(difference):.1e} ± {half:.0e}" if abs(difference) > HUGE else quantity(abs(difference), half)
    )
    return f"{'-' if difference < 0.0 and not _ZERO.match(text) else '+'}{text}{mark}"


def _share(values: Array) -> str:
    mean, _, high, _ = mean_interval(values)
    return quantity(mean, high - mean)
