"""What is kept per byte of state: error against bytes, by estimator, and by how the state is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from estimators import Estimator, KalmanBank, LinearEstimator, MovingAverage, RunningMedian
from experiments import memory_stalls
from experiments.agreement import agreement, closed_form
from experiments.memory_figures import by_bytes, by_storage
from experiments.metrics import Measured
from experiments.runs import Outcome
from experiments.settings import BUDGET, TUNING_STREAMS, Tune, Tuner, at_noise_gain
from experiments.setup import Setup, setting
from experiments.streams import Array, GradientRatio, is_plain_walk
from experiments.summaries import Column, Rows, long_table, mean_interval, summarise
from experiments.tables import beta_text, counted, items, latex, narrowed, quantity, span

RMSE = Column("rmse", "RMSE", better="less")
LEAST, MOST = 1e-6, 1e6
"""Between these lie variances, noise and means; beyond them tables are digits, or rounding, alone."""
SLOWEST, FASTEST = 1e-12, 1e3
"""Between these lie the ratios q/r of walks."""
RESOLVED = 1e8
"""Times the noise up to which a mean may be, for float64 to resolve errors of a part of the noise."""
NEAR = 1.1
"""Of the first estimator's error: a window that comes so near is as good for most purposes."""


@dataclass(frozen=True)
class Parameters:
    """drifts: further q/r of the stream's walk; windows: moving averages of fewer bytes than the best one.

    Of the stored state: betas, noise (standard deviations), walks (q/r), mean that they start from, steps of
    each stream, repetitions.
    """

    drifts: list[float] = field(default_factory=lambda: [1e-5, 1e-3, 1e-2])
    windows: list[int] = field(default_factory=lambda: [1, 4, 16, 64, 128])
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999])
    noise: list[float] = field(default_factory=lambda: [1.0, 0.01])
    walks: list[float] = field(default_factory=lambda: [1e-4, 1e-6])
    mean: float = 6.1
    steps: int = 100_000
    repetitions: int = 20

    def __post_init__(self) -> None:
        walks = f"numbers in [{SLOWEST:g}, {FASTEST:g}], none twice"
        for name, holds, valid in (
            ("drifts", _each(self.drifts, SLOWEST, FASTEST, _drift, least=0), f"{walks} to three digits"),
            ("windows", _each(self.windows, 1, np.inf, str, least=0), "ints >= 1, none twice"),
            ("betas", _each(self.betas, 1e-9, 1.0 - 1e-9, beta_text), "numbers in (0, 1 - 1e-9], none twice"),
            ("noise", _each(self.noise, LEAST, MOST), f"numbers in [{LEAST:g}, {MOST:g}], none twice"),
            ("walks", _each(self.walks, SLOWEST, FASTEST), walks),
        ):
            if not holds:
                raise ValueError(
                    f"experiment.{name}={getattr(self, name)} is not valid; it must be a list of {valid}"
                )
        if not LEAST <= abs(self.mean) <= min(MOST, RESOLVED * min(self.noise)):
            raise ValueError(
                f"experiment.mean={self.mean} is not valid; its magnitude must be in [{LEAST:g}, {MOST:g}], "
                f"and at most {RESOLVED:g} times the least noise"
            )
        for name, fewest in (("steps", 10), ("repetitions", 2)):
            if getattr(self, name) < fewest:
                raise ValueError(
                    f"experiment.{name}={getattr(self, name)} is not valid; it must be an int >= {fewest}"
                )


class Sized(NamedTuple):
    """A setting on one stream: its name, what it is, and its error, one value per repetition."""

    name: str
    estimator: Any
    tuned_at: float | None
    """q/r of the streams that its setting was chosen on; None where there was nothing to choose."""
    rmse: Array

    @property
    def is_fixed_window(self) -> bool:
        """Whether it is a moving average of a window that nothing chose."""
        return isinstance(self.estimator, MovingAverage) and self.tuned_at is None


def run(setup: Setup) -> Outcome:
    """Tune each estimator on each drift, measure errors there and elsewhere; then the stored states."""
    setup.check_untuned("experiment=memory tunes every estimator itself")
    chosen: Parameters = setup.parameters
    if not is_plain_walk(setup.stream) or setup.stream.s == 0.0 or setup.stream.r == 0.0:
        raise ValueError(
            "experiment=memory needs a random walk in white noise; choose stream=gradient_ratio "
            "with stream.s > 0 and nothing but median, r, s and steps changed"
        )
    base: GradientRatio = setup.stream
    for name, value, low, high in (("r", base.r, LEAST, MOST), ("s", base.s, SLOWEST, FASTEST)):
        if not low <= value <= high:
            raise ValueError(
                f"stream.{name}={value} is not valid; experiment=memory needs it in [{low:g}, {high:g}]"
            )
    drifts = list(dict.fromkeys([base.s, *chosen.drifts]))
    if len({_drift(s) for s in drifts}) < len(drifts):
        raise ValueError(
            f"experiment.drifts={chosen.drifts} is not valid; to three digits one is stream.s={base.s}"
        )
    best = {s: tuned(setup, replace(base, s=s), chosen.windows) for s in drifts}
    found = {s: list(_measured(setup, replace(base, s=s), best, base.s)) for s in drifts}
    grid = memory_stalls.Grid(
        chosen.betas, chosen.noise, chosen.walks, chosen.mean, chosen.steps, chosen.repetitions
    )
    stored = memory_stalls.errors(grid, setup.root_seed)
    held, expected = memory_stalls.moments(chosen.repetitions, setup.root_seed)
    rows = [
        *(row for s in drifts for row in _rows(found[s], replace(base, s=s), setup.burn_in)),
        *memory_stalls.rows(grid, stored),
        *memory_stalls.stall_rows(grid),
        *memory_stalls.moment_rows(held, expected),
    ]
    table = long_table("memory", rows)
    summary = summarise(table)
    blocks = [
        *_text(found, setup),
        *memory_stalls.text(grid, stored, held),
        items(f"{one}." for one in (*sentences(found), *memory_stalls.sentences(grid, stored.rmse, held))),
        str(agreement(summary)),
        memory_stalls.unjudged(grid),
    ]
    own = table["stream"].astype(str).str.startswith("s=")
    figures = {"bytes": by_bytes(found), "storage": by_storage(grid, stored)}
    text = "\n\n".join(blocks) + "\n"
    return Outcome(table, summary, text, figures, latex(summarise(table[own]), table[own], [RMSE]), [RMSE])


def tuned(
    setup: Setup, stream: GradientRatio, windows: Sequence[int] = ()
) -> dict[str, tuple[Estimator, bool]]:
    """Each estimator at its setting of least error on tuning streams, and whether there was one to choose.

    Memories of linear filters and medians are chosen from the same number of settings; what finds its own
    stays as it is. Beside the moving average stand smaller windows, beside the bank smaller banks.
    """
    tuner = Tuner.on(stream, Tune.rmse, setup.root_seed, setup.burn_in)
    found: dict[str, tuple[Estimator, bool]] = {}
    for name, estimator in setup.estimators.items():
        if isinstance(estimator, RunningMedian):
            # Odd ones from 1 to what keeps as little noise as the longest memory of the others.
            tried = (
                np.unique(np.geomspace(0.5, tuner.drawn.samples.shape[0] // 8, BUDGET).astype(int)) * 2 + 1
            )
            medians = [RunningMedian(int(window)) for window in tried]
            found[name] = min(medians, key=tuner.error), True
        elif isinstance(estimator, LinearEstimator) and hasattr(estimator, "from_noise_gain"):
            found[name] = at_noise_gain(estimator, tuner.best(estimator)[0]), True
        else:
            found[name] = estimator, False
        own = found[name][0]
        if isinstance(own, MovingAverage):
            smaller = [window for window in windows if window < own.window]
            found |= {f"{name} of {window}": (MovingAverage(window), False) for window in smaller}
        if isinstance(own, KalmanBank):
            for bank in (replace(own, per_decade=1), replace(own, lowest=1e-5, highest=1e-2, per_decade=1)):
                if bank.state_bytes < own.state_bytes:
                    found[f"{name} of {len(bank.ratios)}"] = bank, False
    return found


def _measured(
    setup: Setup,
    stream: GradientRatio,
    best: Mapping[float, Mapping[str, tuple[Estimator, bool]]],
    given: float,
) -> Iterator[Sized]:
    """Settings tuned on this stream, then those that were tuned on the one that the run is given."""
    width = max(1, 200_000 // stream.steps)
    blocks = [range(i, min(i + width, setup.seeds)) for i in range(0, setup.seeds, width)]
    drawn = [stream.draw(block, setup.root_seed, "evaluate") for block in blocks]

    def rmse(estimator: Any) -> Array:
        scores = [estimator.score(one.samples, one.level, skip=setup.burn_in) for one in drawn]
        return np.concatenate([np.atleast_1d(score.rmse) for score in scores])

    for name, (estimator, was_tuned) in best[stream.s].items():
        yield Sized(name, estimator, stream.s if was_tuned else None, rmse(estimator))
    if stream.s != given:
        for name, (estimator, was_tuned) in best[given].items():
            if was_tuned:
                yield Sized(name, estimator, given, rmse(estimator))


def _rows(found: Sequence[Sized], stream: GradientRatio, burn_in: int) -> Iterator[Rows]:
    for one in found:
        elsewhere = one.tuned_at not in (None, stream.s)
        name = f"{one.name} tuned at s={one.tuned_at:.3g}" if elsewhere else one.name
        count = one.rmse.size
        measured = [
            Measured("rmse", stream.unit, one.rmse),
            Measured("state_bytes", "bytes", np.full(count, float(one.estimator.state_bytes))),
        ]
        expected = memory_stalls.closed_mse(one.estimator, stream, burn_in)
        if expected is not None:
            measured += [
                Measured("mse", f"({stream.unit})^2", one.rmse**2),
                closed_form("mse", f"({stream.unit})^2", expected, count),
            ]
        yield Rows(f"s={stream.s:.3g}", name, setting(one.estimator), measured)


def _text(found: Mapping[float, Sequence[Sized]], setup: Setup) -> Iterator[str]:
    given = next(iter(found))
    first = found[given][0].name
    yield (
        f"memory: {counted(setup.seeds, 'stream')} of {setup.stream.length():,} samples for each q/r = s, "
        f"root seed {setup.root_seed}; errors once settled, after\n"
        f"the first {setup.burn_in:,}. "
        f"Tuned: {BUDGET} settings each, on rmse over {TUNING_STREAMS} streams of other seeds.\n"
        f"Bytes of float64 state per channel, at s = {given:.3g}."
    )
    names = list(dict.fromkeys(one.name for own in found.values() for one in own))
    lines = [["estimator", "bytes", *(f"s = {s:.3g}" for s in found)]]
    for name in names:
        known = {s: _find(own, name, s) for s, own in found.items() if _has(own, name, s)}
        cells = [_value(known[s].rmse) if s in known else "-" for s in found]
        lines.append([name, _bytes(list(known.values())), *cells])
    yield (
        "RMSE (log ratio), each setting tuned where it is measured, if there is one to tune:\n\n"
        + narrowed(lines, kept=2)
    )
    others = [s for s in found if s != given]
    if others:
        lines = [["estimator", "bytes", *(f"s = {s:.3g}" for s in others)]]
        for name in names:
            if all(_has(found[s], name, given) for s in others):
                own = [(_find(found[s], name, given), _find(found[s], first, s)) for s in others]
                cells = [_over(one.rmse, base.rmse) for one, base in own]
                lines.append([name, _bytes([_find(found[given], name, given)]), *cells])
        yield (
            f"s not known: tuned at s = {given:.3g}, or finding it; % of error over {first} tuned at the s "
            "of the column:\n\n" + narrowed(lines, kept=2)
        )
    yield f"± is half of a 95 % interval over the streams, n = {setup.seeds}; differences are paired."


def sentences(found: Mapping[float, Sequence[Sized]]) -> Iterator[str]:
    """What bytes buy: against the first estimator where all are tuned, and where s is not known."""
    given = next(iter(found))
    reference = found[given][0]
    first, cheap = reference.name, reference.estimator.state_bytes
    for one in found[given][1:]:
        pairs = [
            (_find(own, one.name, s).rmse, _find(own, first, s).rmse)
            for s, own in found.items()
            if _has(own, one.name, s)
        ]
        said = [_verdict(*pair) for pair in pairs]
        tally = ", ".join(f"{said.count(v)} {v}" for v in memory_stalls.VERDICTS if v in said)
        over = [100.0 * (rmse.mean() / base.mean() - 1.0) for rmse, base in pairs]
        times = one.estimator.state_bytes / cheap
        size = "as many bytes as" if times == 1.0 else f"{times:.3g} times the bytes of"
        yield (
            f"{one.name}, {size} {first}: "
            f"once settled, error {span(over, digits=1)} % over its own ({len(pairs)} streams: {tally})"
        )
    windows = [one for one in found[given] if isinstance(one.estimator, MovingAverage)]
    near = [one for one in windows if one.rmse.mean() <= NEAR * reference.rmse.mean()]
    if windows:
        least = min((one.estimator.state_bytes for one in near), default=None)
        yield (
            f"at s = {given:.3g} the smallest window tried that errs at most {100 * (NEAR - 1):.0f} % "
            f"more than {first} has {least:,} bytes, {first} {cheap}"
            if least is not None
            else f"at s = {given:.3g} no window tried comes within {100 * (NEAR - 1):.0f} % of {first}"
        )
    others = [s for s in found if s != given]
    for name in dict.fromkeys(one.name for one in found[given]):
        if not others or not all(_has(found[s], name, given) for s in others):
            continue
        told = [(_find(found[s], name, given), _find(found[s], first, s)) for s in others]
        if not told[0][0].is_fixed_window:
            over = [100.0 * (one.rmse.mean() / base.rmse.mean() - 1.0) for one, base in told]
            how = "finding s itself" if told[0][0].tuned_at is None else f"tuned at s = {given:.3g}"
            more = span(over, digits=1)
            yield f"{name}, {how}: on the other s its error is {more} % over {first} tuned there"


def _has(own: Sequence[Sized], name: str, tuned_at: float) -> bool:
    """Whether there is a setting of a name that was tuned at some s, or had nothing to tune."""
    return any(one.name == name and one.tuned_at in (None, tuned_at) for one in own)


def _find(own: Sequence[Sized], name: str, tuned_at: float) -> Sized:
    """That setting; StopIteration where there is none."""
    return next(one for one in own if one.name == name and one.tuned_at in (None, tuned_at))


def _verdict(rmse: Array, base: Array) -> str:
    difference, low, high, pairs = mean_interval(rmse - base)
    verdict = RMSE.verdict(float(base.mean()), difference, low, high, pairs, pairs)
    return verdict or ("more" if difference > 0.0 else "less")


def _value(values: Array) -> str:
    mean, _, high, _ = mean_interval(values)
    return quantity(mean, high - mean)


def _over(rmse: Array, base: Array) -> str:
    """Paired difference in % of the other's mean."""
    difference, _, high, _ = mean_interval(100.0 * (rmse - base) / base.mean())
    return f"{'+' if difference >= 0.0 else ''}{quantity(difference, high - difference)}"


def _bytes(known: Sequence[Sized]) -> str:
    """The bytes of the first setting of a row, or the range of all."""
    sizes = [one.estimator.state_bytes for one in known]
    return f"{sizes[0]:,}" if len(set(sizes)) == 1 else f"{min(sizes):,}-{max(sizes):,}"


def _each(
    values: Sequence[float],
    low: float,
    high: float,
    shown: Callable[[Any], str] = "{:g}".format,
    least: int = 1,
) -> bool:
    """Whether all lie within these ends, and no two are called the same."""
    distinct = len({shown(value) for value in values})
    return least <= len(values) == distinct and all(low <= value <= high for value in values)


def _drift(s: float) -> str:
    return f"{s:.3g}"
