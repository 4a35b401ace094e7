"""The contests of the cost experiment: who does the same work on the same samples, at which size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from estimators import (
    EMA,
    DebiasedEMA,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)
from experiments import peers
from experiments.peers import BETA, WINDOW, Contest, Contestant, Q, R
from experiments.script import METRICS, numpy_job, pandas_job
from experiments.streams import Array

OURS: dict[str, Any] = {
    "ema": EMA(BETA, initial=None),
    "debiased_ema": DebiasedEMA(BETA),
    "kalman": Kalman(Q, R),
    "moving_average": MovingAverage(WINDOW),
}


def noise(*shape: int, missing: float = 0.0) -> Array:
    """White noise with a share of gaps, the same at every run."""
    rng = np.random.default_rng(0)
    samples: Array = rng.standard_normal(shape)
    if missing:
        samples[rng.random(shape) < missing] = np.nan
    return samples


def one_stream(sized: Callable[[int], int]) -> Iterator[Contest]:
    """One stream in memory, of a million samples and of thirty million; slow peers at twenty thousand."""
    million, few = sized(1_000_000), sized(20_000)
    x, short = noise(million), noise(few)

    def contestant(name: str, make: Any, *given: Any, samples: Array = x, **settings: Any) -> Contestant:
        return Contestant(name, lambda: make(*given), len(samples), **settings)

    def mine(name: str, samples: Array = x, **settings: Any) -> Contestant:
        return contestant(name, peers.ours, OURS[name], samples, samples=samples, **settings)

    yield Contest(
        f"EMA, T = {million:,}",
        [
            mine("ema"),
            contestant("copy", peers.copy, x, tolerance=None),
            contestant("scipy lfilter", peers.lfilter, x),
            contestant("pandas ewm", peers.pandas_ewm, x, False, needs=["pandas"]),
            contestant("polars ewm_mean", peers.polars_ewm, x, False, needs=["polars"]),
            mine("debiased_ema", tolerance=None),
            mine("kalman", tolerance=None),
        ],
    )
    yield Contest(
        f"debiased EMA, T = {million:,}",
        [
            mine("debiased_ema"),
            contestant("pandas ewm, adjusted", peers.pandas_ewm, x, True, needs=["pandas"]),
            contestant("polars ewm_mean, adjusted", peers.polars_ewm, x, True, needs=["polars"]),
        ],
    )
    yield Contest(
        f"Kalman, T = {million:,}",
        [mine("kalman"), contestant("compiled covariance loop", peers.covariance_loop, x)],
    )
    yield Contest(
        f"Kalman, T = {few:,}",
        [
            mine("kalman", short),
            contestant(
                "statsmodels",
                peers.statsmodels_filter,
                short,
                samples=short,
                needs=["statsmodels"],
                tolerance=1e-6,
            ),
            contestant("filterpy", peers.filterpy_kalman, short, samples=short, needs=["filterpy"]),
            contestant(
                "simdkalman",
                peers.simdkalman_filter,
                short,
                samples=short,
                needs=["simdkalman"],
                tolerance=1e-7,
            ),
            contestant(
                "pykalman", peers.pykalman_filter, short, samples=short, needs=["pykalman"], tolerance=1e-7
            ),
        ],
    )
    yield Contest(
        f"moving average of {WINDOW}, T = {million:,}",
        [
            mine("moving_average"),
            contestant("compiled running sum", peers.running_sum, x),
            contestant("bottleneck move_mean", peers.bottleneck_mean, x, needs=["bottleneck"]),
            contestant("scipy uniform_filter1d", peers.uniform_filter, x),
            contestant("pandas rolling", peers.pandas_rolling, x, needs=["pandas"]),
            contestant("polars rolling_mean", peers.polars_rolling, x, needs=["polars"]),
        ],
    )
    long = noise(sized(30_000_000))
    yield Contest(
        f"EMA, T = {len(long):,}, by itself",
        [mine("ema", long), contestant("copy", peers.copy, long, samples=long, tolerance=None)],
    )


def channels(sized: Callable[[int], int]) -> Iterator[Contest]:
    """Many channels: wide, very wide, and streams that lie one after the other."""
    for kind, steps, width in (("wide", sized(10_000), 1_000), ("very wide", 1_000, sized(100_000))):
        x, gaps = noise(steps, width), noise(steps, width, missing=0.01)
        gaps[0] = x[0]  # before its first sample a start that is only all but diffuse has a mean
        slice_of = np.ascontiguousarray(x[:, : min(width, 2_000)])
        few = np.ascontiguousarray(gaps[: min(steps, 500), : min(width, 500)])
        size = f"{kind} ({steps:,}, {width:,})"
        yield Contest(
            f"EMA, {size}",
            [
                Contestant("ema", partial(peers.ours, OURS["ema"], x), x.size),
                Contestant("copy", partial(peers.copy, x), x.size, tolerance=None),
                Contestant("kalman", partial(peers.ours, OURS["kalman"], x), x.size, tolerance=None),
                Contestant(
                    "kalman, 1 % missing",
                    partial(peers.ours, OURS["kalman"], gaps),
                    x.size,
                    tolerance=None,
                ),
                Contestant(
                    "debiased_ema", partial(peers.ours, OURS["debiased_ema"], x), x.size, tolerance=None
                ),
            ],
        )
        yield Contest(
            f"EMA, {size}, {slice_of.shape[1]:,} channels of it",
            [
                Contestant("ema", partial(peers.ours, OURS["ema"], slice_of), slice_of.size),
                Contestant("scipy lfilter", partial(peers.lfilter, slice_of), slice_of.size),
                Contestant(
                    "pandas ewm", partial(peers.pandas_ewm, slice_of, False), slice_of.size, ["pandas"]
                ),
            ],
        )
        yield Contest(
            f"Kalman, a part of {size}, 1 % missing",
            [
                Contestant("kalman", partial(peers.ours, OURS["kalman"], few), few.size),
                Contestant(
                    "simdkalman", partial(peers.simdkalman_filter, few), few.size, ["simdkalman"], 1e-7
                ),
            ],
        )
        yield Contest(
            f"moving average of {WINDOW}, {size}, {slice_of.shape[1]:,} channels of it",
            [
                Contestant(
                    "moving_average", partial(peers.ours, OURS["moving_average"], slice_of), slice_of.size
                ),
                Contestant(
                    "bottleneck move_mean",
                    partial(peers.bottleneck_mean, slice_of),
                    slice_of.size,
                    ["bottleneck"],
                ),
            ],
        )
    rows = noise(200, sized(10_000)).T
    yield Contest(
        f"streams one after the other, ({rows.shape[1]:,}, {rows.shape[0]:,})",
        [
            Contestant("ema", lambda: peers.ours(OURS["ema"], rows), rows.size),
            Contestant("kalman", lambda: peers.ours(OURS["kalman"], rows), rows.size, tolerance=None),
            Contestant("copy", lambda: peers.copy(np.ascontiguousarray(rows.T)), rows.size, tolerance=None),
        ],
    )


def parameters(sized: Callable[[int], int]) -> Iterator[Contest]:
    """256 settings on one stream, reduced to bias and RMSE: nothing is kept per sample."""
    steps, count = sized(100_000), 256
    x, level = noise(steps), np.zeros(steps)
    betas = 1.0 - np.geomspace(0.5, 1e-3, count)
    some, short = betas[:: count // 8], slice(0, max(2, steps // 20))

    def scored(estimator: Any) -> Callable[[], Any]:
        return lambda: estimator.score(x, level).rmse

    name = f"settings, {count} on T = {steps:,}"
    yield Contest(
        name,
        [
            Contestant("ema", lambda: scored(EMA(betas)), steps * count),
            Contestant(
                "kalman, of the same betas",
                lambda: scored(Kalman.from_beta(betas)),
                steps * count,
                tolerance=None,
            ),
            Contestant(
                "kalman, K of 0.1 to 0.5",
                lambda: scored(Kalman.from_beta(1.0 - np.geomspace(0.5, 0.1, count))),
                steps * count,
                tolerance=None,
            ),
        ],
    )
    yield Contest(
        f"settings, {len(some)} of {count}",
        [
            Contestant("ema", lambda: lambda: EMA(betas).score(x, level).rmse[:: count // 8], steps * count),
            Contestant(
                "scipy lfilter and numpy", lambda: peers.sweep_lfilter(some, x, level), steps * len(some)
            ),
            Contestant(
                "pandas ewm and numpy",
                lambda: peers.sweep_pandas(some, x, level),
                steps * len(some),
                ["pandas"],
            ),
        ],
    )
    yield Contest(
        f"settings, {count} on {len(x[short]):,} samples of it",
        [
            Contestant(
                "ema", lambda: lambda: EMA(betas).score(x[short], level[short]).rmse, len(x[short]) * count
            ),
            Contestant(
                "numpy over settings",
                lambda: peers.sweep_numpy(betas, x[short], level[short]),
                len(x[short]) * count,
            ),
        ],
    )


class Floor:
    """The least that a method can cost."""

    def update(self, sample: float) -> float:
        """Give the sample back."""
        return sample


def one_sample(sized: Callable[[int], int]) -> Iterator[Contest]:
    """One float at a time, and one sample of many channels in place."""
    floats = [float(value) for value in noise(sized(20_000))]
    ema, kalman = OURS["ema"], OURS["kalman"]

    def by_steps(name: str, make: Callable[[], Callable[[float], Any]], **settings: Any) -> Contestant:
        return Contestant(name, lambda: peers.each(make(), floats), len(floats), **settings)

    def by_update(name: str, estimator: Any, **settings: Any) -> Contestant:
        return Contestant(name, lambda: peers.stepped(estimator, floats), len(floats), **settings)

    yield Contest(
        "one float",
        [
            by_steps("empty method", lambda: Floor().update, tolerance=None),
            by_steps("ema, tracker", lambda: ema.tracker().update, group="ema"),
            by_steps("kalman, tracker", lambda: kalman.tracker().update, group="kalman"),
            by_steps("debiased_ema, tracker", lambda: OURS["debiased_ema"].tracker().update, tolerance=None),
            by_update("ema, pure update", ema, group="ema"),
            by_update("kalman, pure update", kalman, group="kalman"),
            by_steps("river EWMean", peers.river_mean, needs=["river"], group="ema"),
            by_steps("filterpy KalmanFilter", peers.filterpy_step, needs=["filterpy"], group="kalman"),
        ],
    )
    for width in (1_000, sized(1_000_000)):
        x = noise(width)

        def in_place(estimator: Any, x: Array) -> Callable[[], Any]:
            state = estimator.init(x)
            return lambda: estimator.update(state, x, out=state).mean

        calls = max(1, 100_000 // width)

        def many(
            make: Callable[[], Callable[[], Any]], calls: int = calls
        ) -> Callable[[], Callable[[], Any]]:
            def made() -> Callable[[], Any]:
                call = make()

                def repeated() -> Any:
                    for _ in range(calls):
                        answer = call()
                    return answer

                return repeated

            return made

        yield Contest(
            f"update in place, {width:,} floats",
            [
                Contestant("ema", many(partial(in_place, EMA(BETA), x)), width * calls),
                Contestant("kalman", many(partial(in_place, kalman, x)), width * calls, tolerance=None),
                Contestant("torch lerp_", many(partial(peers.torch_lerp, x)), width * calls, ["torch"]),
                Contestant("copy", many(partial(peers.copy, x)), width * calls, tolerance=None),
            ],
        )


def job(sized: Callable[[int], int]) -> Iterator[Contest]:
    """The compare job: four estimators on 200 repetitions of 10,000 samples, drawing included."""
    from experiments.cells import every_metric
    from experiments.job import Job
    from experiments.metrics import WITH_TRUTH

    full = sized(10_000) == 10_000
    steps, repetitions = (10_000, 200) if full else (3_000, 4)  # shorter, a lag is not steady
    setup = Job.of([f"seeds={repetitions}", f"stream.steps={steps}"]).setup
    condition = setup.condition(every_metric)
    some = max(2, repetitions // 10)
    everywhere = tuple(metric for metric in METRICS if metric != "coverage")

    def printed() -> Array:
        values: dict[tuple[str, str], list[Array]] = {}
        for block in condition.blocks(repetitions):
            for name, estimator in setup.estimators.items():
                trial = condition.trial(estimator, block)
                for found in (found for group in WITH_TRUTH for found in group(trial)):
                    values.setdefault((name, found.metric), []).append(found.values)
        rows = [values[name, metric] for name in setup.estimators for metric in everywhere]
        return np.array([np.concatenate(row)[:some] for row in rows])

    def every() -> None:
        for block in condition.blocks(repetitions):
            for estimator in setup.estimators.values():
                every_metric(condition, estimator, block)

    def scripted(script: Callable[..., dict[str, Array]], *given: Any) -> Callable[[], Any]:
        def call() -> Array:
            found = script(setup, *given)
            chosen = [METRICS.index(metric) for metric in everywhere]
            return np.concatenate([found[name][chosen, :some] for name in setup.estimators])

        return lambda: call

    of_all, of_some = 4 * steps * repetitions, 4 * steps * some
    of_each = range(repetitions)
    yield Contest(
        f"the compare job, {repetitions} x {steps:,} x 4",
        [
            Contestant("kalmean, the printed metrics", lambda: printed, of_all),
            Contestant("kalmean, all metrics", lambda: every, of_all, tolerance=None),
            Contestant("numpy and scipy", scripted(numpy_job, of_each), of_all, tolerance=1e-7),
            Contestant("numpy and scipy, linear", scripted(numpy_job, of_each, True), of_all, tolerance=1e-7),
            Contestant("pandas script", scripted(pandas_job, range(some)), of_some, ["pandas"], 1e-7),
        ],
    )


def unknown_noise(sized: Callable[[int], int]) -> Iterator[Contest]:
    """Gains that depend on the data, over the fixed filter's; a bank by its size; fitting q and r."""
    x = noise(sized(10_000), 1_000)
    adapting = {
        "kalman": OURS["kalman"],
        "mehra_kalman": MehraKalman(),
        "sage_husa_kalman": SageHusaKalman(q=Q),
        "innovation_matching_kalman": InnovationMatchingKalman(q=Q),
        "variational_kalman": VariationalKalman(Q),
        "robust_kalman, huber": RobustKalman(Q, R),
        "robust_kalman, student_t": RobustKalman(Q, R, loss="student_t"),
        "resetting_kalman": ResettingKalman(Q, R),
        "switching_kalman": SwitchingKalman(Q, R),
        "local_trend": LocalTrend(Q, 1e-8, R),
    }
    yield Contest(
        f"unknown noise, ({len(x):,}, 1,000)",
        [
            Contestant(name, partial(peers.ours, estimator, x), x.size, tolerance=None)
            for name, estimator in adapting.items()
        ],
    )
    few = noise(sized(2_000), 50)
    banks = [KalmanBank(per_decade=count) for count in (1, 3, 6)]
    yield Contest(
        f"bank, ({len(few):,}, 50)",
        [
            Contestant(
                f"bank of {len(bank.ratios)}", partial(peers.ours, bank, few), few.size, tolerance=None
            )
            for bank in banks
        ],
    )
    long = np.cumsum(0.1 * noise(sized(100_000), 2), axis=0)[:, 0] + noise(sized(100_000), 2)[:, 1]
    yield Contest(
        f"fit, T = {len(long):,}",
        [Contestant("fit", partial(peers.fitted, long), len(long), tolerance=None)],
    )
    short = long[: min(len(long), 1_000)]
    yield Contest(
        f"fit against a peer, T = {len(short):,}",
        [
            Contestant("fit", partial(peers.fitted, short), len(short), tolerance=None),
            Contestant(
                "statsmodels UnobservedComponents",
                partial(peers.statsmodels_fit, short),
                len(short),
                ["statsmodels"],
                tolerance=None,
            ),
        ],
    )


WORKLOADS: dict[str, Callable[[Callable[[int], int]], Iterator[Contest]]] = {
    "one_stream": one_stream,
    "channels": channels,
    "parameters": parameters,
    "one_sample": one_sample,
    "job": job,
    "unknown_noise": unknown_noise,
}
