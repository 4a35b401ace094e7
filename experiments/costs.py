"""Costs that are no contest: the machine's limits, growth, memory, start-up, and what a sliding sum loses."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from estimators import EMA, Kalman, MovingAverage
from experiments.peers import WINDOW, Q, R, compiled, copy, lfilter, ours, pandas_ewm
from experiments.workloads import OURS, noise

Row = dict[str, Any]
Sized = Callable[[int], int]
TOTAL = 10_000_000
"""Samples of the arrays on which the number of channels grows."""

LIBRARY = "from estimators import EMA, DebiasedEMA, Kalman, MovingAverage"
"""What a program that uses the library imports: names are imported when they are asked for."""


def _row(stream: str, estimator: str, metric: str, value: float, unit: str, seed: int = 0) -> Row:
    return {
        "stream": stream,
        "estimator": estimator,
        "seed": seed,
        "metric": metric,
        "value": value,
        "unit": unit,
    }


def seconds(call: Callable[[], Any], repeats: int = 1) -> float:
    """Take the time of a call, the mean of several in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def limits(sized: Sized, rounds: int) -> Iterator[Row]:
    """Copy bandwidth in and out of cache, and the latency of one multiplication and addition."""

    def loop(value: Any, steps: Any) -> Any:
        for _ in range(steps):
            value = value * 0.999 + 0.001
        return value

    chain, steps = compiled(loop), sized(1_000_000)
    chain(0.5, 10)
    for size in (sized(100_000), sized(30_000_000)):
        call = copy(noise(size))
        call()
        for seed in range(rounds):
            gigabytes = 16.0 * size / seconds(call) / 1e9
            yield _row(
                "limits", f"copy of {size:,} samples", "bandwidth", gigabytes, "GB/s, read and written", seed
            )
    for seed in range(rounds):
        latency = 1e9 * seconds(lambda: chain(0.5, steps)) / steps
        yield _row("limits", "one chain", "multiply and add", latency, "ns", seed)


def growth(sized: Sized, rounds: int) -> Iterator[Row]:
    """Time against samples of one stream and against channels, and the exponent of its growth."""
    lengths = sorted({sized(n) for n in (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)})
    widths = [c for c in (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000) if c <= sized(TOTAL) // 10]
    shapes: dict[str, list[tuple[int, ...]]] = {
        "T": [(n,) for n in lengths],
        "C": [(sized(TOTAL) // c, c) for c in widths],
    }
    for what, of in shapes.items():
        costs: dict[str, list[tuple[float, float]]] = {}
        for shape in of:
            x = noise(*shape)
            size = float(shape[-1] if what == "C" else shape[0])
            calls = {name: ours(estimator, x) for name, estimator in OURS.items()} | {"copy": copy(x)}
            if x.size <= TOTAL:
                calls |= {"scipy lfilter": lfilter(x), "pandas ewm": pandas_ewm(x, False)}
            repeats = max(1, 100_000 // x.size)
            for call in calls.values():
                call()
            taken: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(max(3, rounds // 2)):
                for name, call in calls.items():
                    taken[name].append(seconds(call, repeats))
            for name, times in taken.items():
                median = statistics.median(times)
                costs.setdefault(name, []).append((size, median * (size if what == "C" else 1.0)))
                yield _row("growth", name, f"at {what}={size:.0f}", 1e9 * median / x.size, "ns per sample")
        least = sized(100_000) if what == "T" else 100  # below, the cost of a call or of a row counts
        for name, points in costs.items():
            fitted = np.log([point for point in points if point[0] >= least])
            if len(fitted) > 2:
                fit, covariance = np.polyfit(fitted[:, 0], fitted[:, 1], 1, cov="unscaled")
                left = fitted[:, 1] - np.polyval(fit, fitted[:, 0])
                error = math.sqrt(covariance[0, 0] * (left @ left) / (len(fitted) - 2))
                yield _row("growth", name, f"exponent in {what}", float(fit[0]), "1")
                yield _row("growth", name, f"standard error of exponent in {what}", error, "1")


def windows(sized: Sized, rounds: int) -> Iterator[Row]:
    """Error of a moving average after many samples, and after a spike has left, in sd of the samples."""
    window, chunk, rng = MovingAverage(WINDOW), sized(1_000_000), np.random.default_rng(0)
    state = None
    for _ in range(max(1, sized(100_000_000) // chunk)):
        x = rng.standard_normal(chunk)
        out = window.filter(x, state=state)
        state = out.state
    spiked = rng.standard_normal(chunk)
    spiked[5] = 1e15
    after = window.filter(spiked).mean
    for metric, samples, mean in (("error at the end", x, out.mean), ("error after a spike", spiked, after)):
        checked = range(WINDOW + 5, len(samples), max(1, len(samples) // 1_000))
        errors = [abs(mean[t] - math.fsum(samples[t - WINDOW + 1 : t + 1]) / WINDOW) for t in checked]
        yield _row("sliding sums", "moving_average", metric, max(errors), "sd of the samples")


def memory(sized: Sized, rounds: int) -> Iterator[Row]:
    """Bytes of state per channel, counted and measured; peaks of a run in chunks and of a score."""
    for name, estimator in OURS.items():
        yield _row("state", name, "counted", float(np.max(estimator.state_bytes)), "bytes per channel")
        state = estimator.filter(noise(300, 64)).state
        taken = sum(np.asarray(part).nbytes for part in state) / 64
        yield _row("state", name, "measured", taken, "bytes per channel")
    kalman, chunk = Kalman(Q, R), sized(1_000_000)
    piece = noise(chunk)

    def in_chunks(count: int) -> None:
        for _ in kalman.filter_chunks(piece for _ in range(count)):
            pass

    peaks = [_peak(partial(in_chunks, count)) for count in (2, 20)]
    yield _row("chunks", "kalman", "growth of peak memory", peaks[1] / peaks[0], "1")
    settings = EMA(1.0 - np.geomspace(0.5, 1e-3, 256))
    scored = [noise(size) for size in (sized(100_000), 10 * sized(100_000))]
    peaks = [_peak(partial(settings.score, x, x)) for x in scored]
    yield _row("settings", "ema", "growth of peak memory", peaks[1] / peaks[0], "1")


def _peak(call: Callable[[], Any]) -> float:
    call()
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return float(peak)


def start_up(sized: Sized, rounds: int) -> Iterator[Row]:
    """A process of its own: the first result, compiled code taken from the cache, and the import alone."""
    first = "import numpy, estimators; estimators.EMA(0.99).filter(numpy.zeros(1000))"

    def started(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    for code in ("import numpy", LIBRARY, first):
        started(code)
    for seed in range(min(rounds, 5)):
        numpy, alone = started("import numpy"), started(LIBRARY)
        yield _row("start-up", "import estimators", "time over numpy", 1e3 * (alone - numpy), "ms", seed)
        yield _row("start-up", "first result", "time with imports", started(first), "s", seed)
