"""What a step of FilteredAdam costs, in time and memory, against torch's AdamW and optax, in one process."""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from estimators import InnovationMatchingKalman, Kalman, KalmanBank
from experiments.cost import check_size, judged, processor, split, summarised, timed
from experiments.figures import COLOURS, line, styled
from experiments.goals import Goal
from experiments.peers import Contest, Contestant
from experiments.recorder import one_thread
from experiments.runs import Outcome
from experiments.setup import Setup
from experiments.summaries import COLUMNS
from experiments.tables import aligned

TENSORS = 20
"""Tensors of a model, equal in size."""
DENSE = 10_000_000
"""Parameters up to which those enter that keep more than Adam, or copies."""
ADAM, OURS, WITH_KALMAN = "torch AdamW, foreach", "FilteredAdam", "FilteredAdam, Kalman first"
SINGLE = 2e-6
"""Agreement of single-precision parameters after a step, over the largest."""


def _goals() -> Iterator[Goal]:
    for size in ("1,000,000", "10,000,000", "100,000,000"):
        yield Goal(f"{OURS}, {size} parameters", f"{size} parameters", OURS, 1.15)
        yield Goal(f"{WITH_KALMAN}, {size}", f"{size} parameters", WITH_KALMAN, 1.25)
    yield Goal(f"{WITH_KALMAN}, state", "1,000,000 parameters", WITH_KALMAN, 8.0, metric="state")
    yield Goal("on a GPU", "100,000,000 parameters on cuda", OURS, 1.1)


GOALS = tuple(_goals())


@dataclass(frozen=True)
class Parameters:
    """rounds: of each contest; scale: of the numbers of parameters, 1 for those of the goals; sizes."""

    rounds: int = 5
    scale: float = 1.0
    sizes: list[int] = field(default_factory=lambda: [10**n for n in range(4, 9)])

    def __post_init__(self) -> None:
        check_size(self.rounds, self.scale)
        for size in self.sizes or [0]:
            if size < TENSORS:
                raise ValueError(
                    f"experiment.sizes={size} is not valid; it must be numbers of parameters >= {TENSORS}"
                )


def run(setup: Setup) -> Outcome:
    """Time every contest on one core; ValueError without torch, or where parameters differ after a step."""
    setup.check_untuned("experiment=optimiser_cost has settings of its own")
    if importlib.util.find_spec("torch") is None:
        raise ValueError("experiment=optimiser_cost needs torch: pip install 'kalmean[torch]'")
    import torch

    chosen: Parameters = setup.parameters
    rows, absent = [], set[str]()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    with one_core():
        for device in devices:
            for size in chosen.sizes:
                count = max(TENSORS, round(chosen.scale * size))
                where = "" if device == "cpu" else f" on {device}"
                contest = Contest(f"{size:,} parameters{where}", list(contestants(count, device)))
                entered, missing = split(contest)
                absent |= {f"{who}: {', '.join(lacks)} is absent" for who, lacks in missing.items()}
                rows += list(timed(contest.name, entered, chosen.rounds))
                for contestant, call in entered:
                    bytes_each = call.state() / count  # type: ignore[attr-defined]
                    rows.append(
                        {
                            "stream": contest.name,
                            "estimator": contestant.name,
                            "seed": 0,
                            "metric": "state",
                            "value": bytes_each,
                            "unit": "bytes per parameter",
                        }
                    )
                del entered
                gc.collect()
    table = pd.DataFrame(rows).assign(experiment="optimiser_cost", parameters="", status="ok")[COLUMNS]
    summary = summarised(table)
    return Outcome(
        table, summary, _text(summary, sorted(absent), chosen), {"optimiser_cost": _figure(summary)}
    )


def contestants(count: int, device: str) -> Iterator[Contestant]:
    """Optimisers of a model of so many single-precision parameters; AdamW's foreach form comes first."""
    torch_adam = {ADAM: {"foreach": True}, "torch AdamW, for-loop": {"foreach": False}}
    for name, how in {**torch_adam, "torch AdamW, fused": {"fused": True}}.items():
        yield Contestant(name, partial(Step, _adamw, how, count, device), count, ("torch",), SINGLE)
    firsts: dict[str, Callable[[], dict[str, Any]]] = {
        OURS: dict,
        WITH_KALMAN: lambda: {"first": Kalman.from_beta(0.9)},
    }
    if count <= DENSE:
        firsts["FilteredAdam, a gain per tensor"] = _per_tensor
        firsts["FilteredAdam, a gain per coordinate"] = lambda: {"first": InnovationMatchingKalman()}
    for name, how_of in firsts.items():
        exact = SINGLE if name == OURS else None
        yield Contestant(name, partial(_ours, how_of, count, device), count, ("torch",), exact)
    if count <= DENSE and device == "cpu":
        yield Contestant("optax adamw, compiled", partial(Optax, count), count, ("jax", "optax"), SINGLE)


def _per_tensor() -> dict[str, Any]:
    from estimators.torch import PerTensor

    return {"first": PerTensor(KalmanBank())}


def _adamw(parameters: Any, **how: Any) -> Any:
    import torch

    return torch.optim.AdamW(parameters, lr=LR, **how)


def _filtered(parameters: Any, **how: Any) -> Any:
    from estimators.torch import FilteredAdam

    return FilteredAdam(parameters, lr=LR, **how)


def _ours(how_of: Callable[[], dict[str, Any]], count: int, device: str) -> Step:
    return Step(_filtered, how_of(), count, device)


LR = 1e-3


def drawn(count: int) -> Iterator[tuple[Any, Any]]:
    """Parameters and gradients of the tensors, float32, the same for whoever asks."""
    rng = np.random.default_rng(0)
    for _ in range(TENSORS):
        values, gradient = (rng.standard_normal(count // TENSORS, dtype=np.float32) for _ in range(2))
        yield values, gradient


class Step:
    """A step of a torch optimiser on a model of its own."""

    def __init__(self, make: Callable[..., Any], how: dict[str, Any], count: int, device: str) -> None:
        import torch

        self.parameters = []
        for values, gradient in drawn(count):
            parameter = torch.nn.Parameter(torch.from_numpy(values).to(device))
            parameter.grad = torch.from_numpy(gradient).to(device)
            self.parameters.append(parameter)
        self.optimiser = make(self.parameters, **how)
        self.wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None

    def __call__(self) -> Any:
        """Step, and return the first tensor."""
        self.optimiser.step()
        self.wait()
        first = self.parameters[0].detach()
        return first.numpy() if first.device.type == "cpu" else first.cpu().numpy()

    def state(self) -> float:
        """Bytes of the tensors that the optimiser keeps, scalars of torch's own step counter included."""
        import torch

        kept = [value for of_one in self.optimiser.state.values() for value in of_one.values()]
        return float(sum(value.nbytes for value in kept if isinstance(value, torch.Tensor)))


class Optax:
    """A step of optax.adamw, compiled, that gives its old parameters and state up."""

    def __init__(self, count: int) -> None:
        import jax
        import optax

        pairs = [
            (jax.numpy.asarray(values), jax.numpy.asarray(gradient)) for values, gradient in drawn(count)
        ]
        self.parameters, self.gradients = ([pair[i] for pair in pairs] for i in range(2))
        adam = optax.adamw(LR, weight_decay=1e-2)
        self.kept = adam.init(self.parameters)

        def step(parameters: Any, kept: Any, gradients: Any) -> Any:
            updates, kept = adam.update(gradients, kept, parameters)
            return optax.apply_updates(parameters, updates), kept

        self.step = jax.jit(step, donate_argnums=(0, 1))

    def __call__(self) -> Any:
        """Step, wait for it, and return the first tensor."""
        self.parameters, self.kept = self.step(self.parameters, self.kept, self.gradients)
        return np.asarray(self.parameters[0].block_until_ready())

    def state(self) -> float:
        """Bytes of the arrays of its state."""
        import jax

        return float(sum(leaf.nbytes for leaf in jax.tree.leaves(self.kept)))


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Keep this process to one core, and torch to one thread, so that times can be compared."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with one_thread():
        try:
            if cores:
                os.sched_setaffinity(0, {min(cores)})
            yield
        finally:
            if cores:
                os.sched_setaffinity(0, cores)


def _text(summary: pd.DataFrame, absent: list[str], chosen: Parameters) -> str:
    versions = [
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "jax", "optax")
        if importlib.util.find_spec(name)
    ]
    head = ["what", "goal", "reached", "over rounds", "verdict"]
    blocks = [
        f"optimiser_cost: medians of {chosen.rounds} rounds of one step, contestants in turn, on one core.\n"
        f"{processor()}; Python {platform.python_version()}, {', '.join(versions)}.\n"
        f"Single precision, {TENSORS} tensors of equal size, gradients that are there. Compare ratios.",
        *(_contest(summary, name) for name in summary["stream"].unique()),
        f"Goals{'' if chosen.scale == 1.0 else f' (stated at scale 1; this run has {chosen.scale:g})'}:",
        aligned([head, *(judged(goal, summary) for goal in GOALS)], texts=1),
    ]
    if absent:
        blocks.append("Not entered:\n" + "\n".join(f"- {reason}" for reason in absent))
    return "\n\n".join(blocks) + "\n"


def _contest(summary: pd.DataFrame, name: str) -> str:
    own = summary[summary["stream"] == name]
    rows = own.pivot(index="estimator", columns="metric")
    lines = [[name, "ns per parameter", "times the first", "least to most", "bytes of state"]]
    for who in own["estimator"].unique():
        middle, low, high = (rows.loc[who, (column, "ratio")] for column in ("median", "low", "high"))
        took, kept = rows.loc[who, ("median", "time")], rows.loc[who, ("median", "state")]
        lines.append([who, f"{took:.3g}", f"{middle:.3g}", f"{low:.3g} to {high:.3g}", f"{kept:.3g}"])
    return aligned(lines, texts=1)


def _figure(summary: pd.DataFrame) -> Any:
    """Time of a step per parameter against the number of parameters."""
    rows = summary[(summary["metric"] == "time") & summary["stream"].str.match(r"[\d,]+ parameters$")]
    with styled() as pyplot:
        figure, axis = pyplot.subplots(figsize=(7.0, 3.8))
        for index, (who, own) in enumerate(rows.groupby("estimator", sort=False)):
            sizes = own["stream"].str.replace(",", "").str.split().str[0].astype(float)
            again = {"marker": "o"} if index >= len(COLOURS) else {}  # colours recur
            axis.loglog(sizes, own["median"], label=who, **line(index), **again)
        axis.set(xlabel="parameters", ylabel="ns per parameter and step")
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        pyplot.close(figure)
    return figure
