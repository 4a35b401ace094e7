"""What the optimisers are tried on: regimes, presets and controls; the tasks, and what came of them."""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from experiments.executors import local
from experiments.learning_rates import Grid, Losses, Trials
from experiments.moments import Quality, qualities
from experiments.problems import Characters, Digits, Problem
from experiments.recorder import one_thread
from experiments.streams import Array
from experiments.summaries import mean_interval

BASELINE, ADAMS = "adam", 0.9
"""What the others are compared with, and its beta1."""
BETAS = {"adam_001": 0.01, "adam_03": 0.3, "adam_095": 0.95, "adam_098": 0.98, "adam_099": 0.99}
"""Adam's beta1 in the controls, by name: 0.01 is next to none, 0.3 that of disk, which also extrapolates."""
FILTERS = ("kalman", "kgd", "mehra", "bank", "per_coordinate")
"""Presets whose first moment is no fixed EMA from the first step on."""
FIXED = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Betas of the bias-corrected EMAs beside them."""
SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda _: 1.0,
    "linear": lambda done: 1.0 - done,
}
"""Share of the learning rate, by the share of the steps that is done."""
CENTRES = {"momentum": 0.14, "kgd": 0.14, "lamb": 0.007, "lamb_discounted": 0.007}
CENTRE = 0.0056
"""Where the search for a learning rate begins, twice that where it falls to 0: the mean is the same then."""


class Regime(NamedTuple):
    """What is trained; only: the presets and schedules that time is spent on, all where it is empty."""

    problem: Problem
    words: str
    presets: tuple[str, ...] = ()
    schedules: tuple[str, ...] = ()


REGIMES = {
    "batch_4": Regime(Digits(batch=4), "digits, 4 in a batch"),
    "batch_32": Regime(Digits(batch=32), "32 in a batch"),
    "batch_256": Regime(Digits(batch=256), "256 in a batch"),
    "gradient_noise": Regime(
        Digits(batch=32, gradient_noise=0.05),
        "32 in a batch, noise of sd 0.05 on each coordinate of a gradient",
    ),
    "label_noise": Regime(
        Digits(batch=8, label_noise=0.3), "8 in a batch, 30 % of the training labels wrong"
    ),
    "characters": Regime(
        Characters(batch=16, context=16, layers=1),
        "the next character of a text by a transformer of one block, 16 windows of 16 in a batch",
        (BASELINE, "adam_001", "adam_03", "adam_095", "kalman", "mehra", "bank", "cautious"),
        ("linear",),
    ),
}


@dataclass(frozen=True)
class Filtered:
    """The moments of a regime, to be compared with its true gradients."""

    regime: str
    presets: tuple[str, ...]
    steps: int
    warmup: int
    seeds: tuple[int, ...]

    @property
    def stream(self) -> str:
        """Name in the tables."""
        return f"gradient, {self.regime}"

    def __call__(self) -> dict[str, Quality]:
        """Quality by name, those of fixed betas by the beta."""
        from estimators import DebiasedEMA

        firsts: dict[str, Any] = {f"{beta:g}": DebiasedEMA(beta) for beta in FIXED}
        every = methods()
        firsts |= {name: every[name]["first"] for name in FILTERS if name in self.presets}
        with one_thread():
            return qualities(REGIMES[self.regime].problem, firsts, self.seeds, self.steps, self.warmup)


@dataclass(frozen=True)
class Trained:
    """One preset in one regime under one schedule, its learning rate to be found."""

    regime: str
    schedule: str
    preset: str
    steps: int
    grid: Grid
    seeds: tuple[int, ...]

    @property
    def stream(self) -> str:
        """Name in the tables."""
        return f"{self.regime}, {self.schedule}"

    def __call__(self) -> Trials:
        """Search the grid."""
        with one_thread():
            centre = CENTRES.get(self.preset, CENTRE) * (2.0 if self.schedule == "linear" else 1.0)
            return self.grid.search(self.losses, centre)

    def losses(self, rates: Sequence[float]) -> Losses:
        """Train every seed with every rate, all at once."""
        from estimators.torch.optimiser import FilteredAdam

        replicas = REGIMES[self.regime].problem.start(self.seeds * len(rates))
        owners = np.array_split(np.arange(len(replicas)), len(rates))
        groups = [
            {"params": [tensor for r in own for tensor in replicas.parameters[r]], "lr": rate}
            for own, rate in zip(owners, rates, strict=True)
        ]
        optimiser = FilteredAdam(groups, weight_decay=0.0, **methods()[self.preset])
        for step in range(self.steps):
            share = SCHEDULES[self.schedule](step / self.steps)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = share * rate
            replicas.backward(step)
            optimiser.step()
        optimiser.eval()
        shape = len(rates), len(self.seeds)
        return Losses(*(replicas.losses(part).reshape(shape) for part in ("validation", "test")))


def methods() -> dict[str, Mapping[str, Any]]:
    """Presets and controls by name."""
    from estimators import DebiasedEMA
    from estimators.torch.presets import PRESETS

    return {**PRESETS, **{name: {"first": DebiasedEMA(beta)} for name, beta in BETAS.items()}}


def done(tasks: Sequence[Callable[[], Any]], workers: int) -> list[Any]:
    """Results in the order of the tasks; these share nothing, so that how many run at once is no matter."""
    if workers == 1:
        return [task() for task in tasks]
    spawned = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with local.one_thread_each(), ProcessPoolExecutor(workers, spawned, _watch) as pool:
        # The last ones first: long tasks at the end would leave a process waiting.
        futures = [pool.submit(task) for task in reversed(tasks)]
        try:
            return [future.result() for future in reversed(futures)]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # Leaving the pool waits for tasks at work, which can take minutes.
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise


def _watch() -> None:
    """Let this process end with the one that started it, whatever ends that, and by that alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=local.end_with_parent, daemon=True).start()


class Result(NamedTuple):
    """A preset in a regime under a schedule, and what its search came to."""

    task: Trained
    trials: Trials

    @property
    def test(self) -> Array | None:
        """Test losses at the best rate by seed, None where that is the edge of all rates tried."""
        return self.trials.losses.test[self.trials.best] if self.trials.interior else None

    @property
    def validation(self) -> float:
        """Mean validation loss at the best rate, by which rates and betas are chosen."""
        return float(self.trials.means[self.trials.best]) if self.trials.interior else math.inf


class Difference(NamedTuple):
    """Test loss of a result less that of another, over paired seeds."""

    result: Result
    by_seed: Array

    @property
    def interval(self) -> tuple[float, float, float]:
        """Mean, and the 95 % interval of Student's t."""
        return mean_interval(self.by_seed)[:3]

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes zero."""
        _, low, high = self.interval
        return low > 0.0 or high < 0.0

    @property
    def favour(self) -> int:
        """Seeds that agree with the sign of the mean."""
        return int((np.sign(self.by_seed) == np.sign(self.by_seed.mean())).sum())

    def survives(self, comparisons: int) -> bool:
        """Whether it would be told apart by an interval for so many comparisons (Bonferroni)."""
        from scipy.special import stdtr

        n = len(self.by_seed)
        error = self.by_seed.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
        with np.errstate(divide="ignore", invalid="ignore"):
            p = 2.0 * float(stdtr(n - 1, -abs(self.by_seed.mean() / error)))
        return p * comparisons < 0.05


class Results(NamedTuple):
    """All that was trained."""

    every: Sequence[Result]

    def streams(self) -> dict[str, list[Result]]:
        """Results by regime and schedule, the baseline first."""
        found: dict[str, list[Result]] = {}
        for result in self.every:
            found.setdefault(result.task.stream, []).append(result)
        return found

    @staticmethod
    def best_adam(own: Sequence[Result]) -> Result:
        """Adam of the beta1 that validates best among those trained."""
        adams = [result for result in own if result.task.preset in (BASELINE, *BETAS)]
        return min(adams, key=lambda result: result.validation)

    @staticmethod
    def differences(own: Sequence[Result], base: Result) -> list[Difference]:
        """Those of all others of a stream that have an optimum, if the base has one."""
        return [
            Difference(result, result.test - base.test)
            for result in own
            if result is not base and result.test is not None and base.test is not None
        ]
