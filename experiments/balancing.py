"""What weighing two losses by the norms of their gradients is worth in training, and by which smoother."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.figures import line, styled
from experiments.metrics import Measured
from experiments.recorder import (
    LEARNING_RATE,
    TRAINING_SET,
    MissingExtraError,
    TrainingSet,
    build_network,
    load_training_set,
    one_thread,
)
from experiments.runs import Outcome
from experiments.setup import Setup, setting
from experiments.streams import Array
from experiments.summaries import Column, Rows, long_table, summarise
from experiments.tables import aligned, counted, latex, quantity, verdict_of

if TYPE_CHECKING:
    from torch import Tensor

    from estimators.torch.balancing import Balancer

SCALES = (1.0, 10.0, 100.0, 1000.0)
"""By which the loss of the regression is multiplied."""
HELD_OUT = 500
"""Images on which what was trained is measured."""
ACCURACY = Column("accuracy", "accuracy", margin=1.0 / HELD_OUT, better="more")
RMSE = Column("rmse", "RMSE of the ink", margin=0.002, better="less")
BINDS, WEIGHT = Column("floor_share", "floor binds"), Column("weight", "weight of the regression")
COLUMNS = (ACCURACY, RMSE, BINDS, WEIGHT)
DOMAINS = {"weight": "shares", "log": "log norms"}
"""What a smoother runs on, by the name of the domain."""
NO_FLOOR = "has no floor"
FINEST = 1e-4
"""What is told apart in a table."""
ALWAYS = 0.99
"""Share of the steps from which a floor is said to bind always."""
BOUND = "of {n} differences where both always do "
VERDICTS = {"tie": "tie", "not told apart": "not told apart", "": "differ"}
"""What is said of differences, by ``Column.verdict``."""


@dataclass(frozen=True)
class Parameters:
    """steps of training, images in a batch, and the balancer's warm-up and floor."""

    steps: int = 600
    batch_size: int = 64
    warmup: int = 100
    floor: float = 0.05

    def __post_init__(self) -> None:
        most = TRAINING_SET - HELD_OUT
        for name, low, high in (("steps", 1, None), ("batch_size", 1, most), ("warmup", 0, self.steps - 1)):
            value = getattr(self, name)
            if value < low or (high is not None and value > high):
                valid = f">= {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"experiment.{name}={value} is not valid; it must be an int {valid}")
        if not 0.0 <= self.floor < 0.5:
            raise ValueError(f"experiment.floor={self.floor} is not valid; it must be in [0, 1/2)")


class Method(NamedTuple):
    """A way to weigh, as the tables name it, and how to make one for a repetition."""

    name: str
    parameters: str
    domain: str
    make: Callable[[int], Balancer]


class Trained(NamedTuple):
    """What became of the methods and scales of one repetition."""

    accuracy: Array
    """On images held out, (methods, scales)."""
    rmse: Array
    """Of the ink, in its standard deviations whatever the scale, (methods, scales)."""
    weights: Array
    """Of the regression, (steps, methods, scales)."""
    binds: Array
    """Share of the steps after the warm-up whose smoothed shares are below the floor, NaN without one."""


def run(setup: Setup) -> Outcome:
    """Train the recorder's two-task network by each method at each scale, on the same batches."""
    setup.check_untuned("experiment=balancing has settings of its own")
    try:
        data = load_training_set()
        every = methods(setup)
    except MissingExtraError as error:
        raise ValueError(
            "experiment=balancing needs torch and scikit-learn: pip install 'kalmean[training]'"
        ) from error
    chosen: Parameters = setup.parameters
    with one_thread():
        found = [trained(every, chosen, data, setup.root_seed, seed) for seed in range(setup.seeds)]
    table = long_table("balancing", list(_rows(every, found, chosen.warmup)))
    summary = summarise(table)
    text = _text(table, summary, every, setup)
    columns = [column for column in COLUMNS if column.better]
    figures = {"weights": _figure(every, found[0], chosen)}
    return Outcome(table, summary, text, figures, latex(summary, table, columns), columns)


def methods(setup: Setup) -> list[Method]:
    """Controls first, then every smoother on the shares and on the logarithms."""
    from estimators.torch.balancing import EqualWeights, GradientBalancer, GradNorm, RandomWeights

    def balancer(smoother: Any, domain: str) -> Callable[[int], Balancer]:
        chosen = setup.parameters
        return lambda _: GradientBalancer(2, smoother, chosen.floor, chosen.warmup, domain=domain)

    controls = [
        Method("equal", "", "", lambda _: EqualWeights(2)),
        Method("random", "", "", lambda repetition: RandomWeights(2, (setup.root_seed << 32) + repetition)),
        Method("grad_norm", "", "", lambda _: GradNorm(2)),
    ]
    return controls + [
        Method(name, f"domain={domain} {setting(smoother)}".rstrip(), domain, balancer(smoother, domain))
        for domain in DOMAINS
        for name, smoother in setup.estimators.items()
    ]


def trained(
    every: Sequence[Method], chosen: Parameters, data: TrainingSet, root_seed: int, repetition: int
) -> Trained:
    """Train one network for each method and scale, all at once, from the same start on the same batches."""
    import torch

    drawn = np.random.default_rng([root_seed, repetition])
    start, order = int(drawn.integers(2**31)), drawn.permutation(TRAINING_SET)
    kept, held_out = order[HELD_OUT:], order[:HELD_OUT]
    shape = len(every), len(SCALES)
    balancers = [method.make(repetition) for method in every for _ in SCALES]
    scale = torch.tensor(SCALES * len(every))
    parameters = _copies(start, len(balancers))
    trunk, heads = parameters[:4], (parameters[4:6], parameters[6:])
    adam = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    pixels, labels, ink = (torch.from_numpy(array) for array in data)
    weights = np.empty((chosen.steps, len(balancers), 2))
    binds = np.zeros(len(balancers))
    for step in range(chosen.steps):
        batch = torch.from_numpy(drawn.choice(kept, chosen.batch_size, replace=False))
        classification, regression = task_losses(parameters, pixels[batch], labels[batch], ink[batch])
        losses = classification, scale * regression
        gradients = [
            torch.autograd.grad(loss.sum(), [*trunk, *head], retain_graph=True)
            for loss, head in zip(losses, heads, strict=True)
        ]
        norms = torch.stack([_norms(own[: len(trunk)]) for own in gradients], dim=1).numpy()
        values = torch.stack([loss.detach().double() for loss in losses], dim=1).numpy()
        for at, balancer in enumerate(balancers):
            weights[step, at] = balancer.update(norms[at], values[at]).numpy()
            if step >= chosen.warmup:
                binds[at] += _smoothed(balancer).min() < chosen.floor
        both = torch.from_numpy(weights[step]).float().unbind(1)
        for place, parameter in enumerate(trunk):
            one, other = (_by(w, own[place]) for w, own in zip(both, gradients, strict=True))
            parameter.grad = one + other
        for w, own, head in zip(both, gradients, heads, strict=True):
            for parameter, gradient in zip(head, own[len(trunk) :], strict=True):
                parameter.grad = _by(w, gradient)
        adam.step()
    with torch.no_grad():
        logits, predicted = _forward(parameters, pixels[held_out])
        accuracy = (logits.argmax(-1) == labels[held_out]).double().mean(1)
        rmse = (predicted.double() - ink[held_out]).square().mean(1).sqrt()
    floors = np.array([np.isfinite(_smoothed(balancer)).all() for balancer in balancers])
    share = np.where(floors, binds / (chosen.steps - chosen.warmup), np.nan)
    return Trained(
        accuracy.numpy().reshape(shape),
        rmse.numpy().reshape(shape),
        weights[:, :, 1].reshape(-1, *shape),
        share.reshape(shape),
    )


def task_losses(
    parameters: Sequence[Tensor], pixels: Tensor, labels: Tensor, ink: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and squared error of R networks on one batch, each (R,), as the recorder has them."""
    from torch.nn import functional

    logits, predicted = _forward(parameters, pixels)
    wanted = labels.expand(len(logits), -1)
    entropy = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
    return entropy.view(wanted.shape).mean(1), (predicted - ink).square().mean(1)


def _forward(parameters: Sequence[Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, B, 10) and ink (R, B) of R networks on the same images."""
    import torch

    def layer(x: Tensor, place: int) -> Tensor:
        weight, bias = parameters[place : place + 2]
        return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))

    hidden = torch.relu(layer(pixels.expand(len(parameters[0]), -1, -1), 0))
    shared = torch.relu(layer(hidden, 2))
    return layer(shared, 4), layer(shared, 6).squeeze(-1)


def _copies(seed: int, count: int) -> list[Tensor]:
    """Parameters of the recorder's network, so many times: trunk, then head by head."""
    return [
        parameter.detach().expand(count, *parameter.shape).clone().requires_grad_()
        for module in build_network(seed)
        for parameter in module.parameters()
    ]


def _norms(gradients: Sequence[Tensor]) -> Tensor:
    """Norm over all parameters of each network's gradient, (R,), float64."""
    import torch

    norms: Tensor = torch.linalg.vector_norm(
        torch.cat([one.flatten(1) for one in gradients], 1).double(), dim=1
    )
    return norms


def _by(weights: Tensor, gradient: Tensor) -> Tensor:
    """Gradients of R networks, each by its weight."""
    return weights.reshape(-1, *[1] * (gradient.ndim - 1)) * gradient


def _smoothed(balancer: Balancer) -> Array:
    """Shares before the floor; NaN for a balancer that has none."""
    smoothed = getattr(balancer, "smoothed", None)
    return np.full(2, np.nan) if smoothed is None else smoothed.numpy()


def _rows(every: Sequence[Method], found: Sequence[Trained], warmup: int) -> Iterator[Rows]:
    """Measurements by scale and method, over the repetitions."""
    for column, scale in enumerate(SCALES):
        for row, method in enumerate(every):
            at = row, column
            measured = [
                Measured(ACCURACY.metric, "share", np.array([own.accuracy[at] for own in found])),
                Measured(RMSE.metric, "sd of ink", np.array([own.rmse[at] for own in found])),
                Measured(
                    BINDS.metric, "share of steps", np.array([own.binds[at] for own in found]), NO_FLOOR
                ),
                Measured(
                    WEIGHT.metric,
                    "share",
                    np.array([own.weights[warmup:, row, column].mean() for own in found]),
                ),
            ]
            yield Rows(_stream(scale), method.name, method.parameters, measured)


def _stream(scale: float) -> str:
    return f"ink loss x {scale:g}"


def _text(table: pd.DataFrame, summary: pd.DataFrame, every: Sequence[Method], setup: Setup) -> str:
    chosen: Parameters = setup.parameters
    smoothings = [method for method in every if method.domain]
    among = summarise(table[table["parameters"].astype(str).str.startswith("domain=")])
    by_equal, by_first = _indexed(summary), _indexed(among)
    first = f"{smoothings[0].name} on {_place(smoothings[0])}"
    batches = f"{chosen.steps:,} steps of {chosen.batch_size} images"
    repetitions = f"{counted(setup.seeds, 'repetition')}, root seed {setup.root_seed}"
    blocks = [
        f"balancing: digits and their ink by one network, {batches}; {repetitions}.\n"
        "The loss of the ink is multiplied by what heads a column. Inverse norms, each with a smoother: "
        f"floor {chosen.floor:g},\n{chosen.warmup} steps of warm-up. "
        f"Measured at the end, on {HELD_OUT} images held out.",
    ]
    for column, what in (
        (ACCURACY, "Accuracy of the digits"),
        (RMSE, "RMSE of the ink, in its standard deviations, whatever its loss is multiplied by"),
        (BINDS, "Share of the steps after the warm-up in which the floor binds"),
        (WEIGHT, "Mean weight of the ink's loss after the warm-up"),
    ):
        blocks += [f"{what}:", _table(every, by_equal, column, _value)]
    blocks.append(
        "* differs from equal weights: the 95 % interval of the paired difference excludes 0.\n"
        f"± is half of a 95 % interval over the repetitions, n = {setup.seeds}, "
        "whose starts and batches all methods share.\n"
        "A smoother with a stated start (ema) sets out from equal shares, others from their first sample."
    )
    if len(smoothings) > 1:
        for column, what in ((ACCURACY, "Accuracy"), (RMSE, "RMSE")):
            blocks += [
                f"{what} by smoother, paired differences to {first}:",
                _table(smoothings[1:], by_first, column, _difference),
            ]
        blocks += [
            "* the interval excludes 0, as one in twenty does by chance; "
            f"= a tie: all of it is within {ACCURACY.margin:g}.",
            "What the smoother is worth, by how often the floor binds (differences of both metrics):",
            "\n".join(_verdicts(smoothings, by_equal, by_first)),
        ]
    return "\n\n".join(blocks) + "\n"


def _indexed(summary: pd.DataFrame) -> Any:
    keys = ["stream", "estimator", "parameters", "metric"]
    return summary.assign(**{key: summary[key].astype(str) for key in keys}).set_index(keys)


def _table(every: Sequence[Method], found: Any, column: Column, write: Callable[[Any, Column], str]) -> str:
    """A row per method, a column per scale."""
    lines = [["weights by", "of", *(f"loss x {scale:g}" for scale in SCALES)]]
    for method in every:
        rows = [found.loc[(_stream(s), method.name, method.parameters, column.metric)] for s in SCALES]
        if any(row["n"] for row in rows):
            lines.append([method.name, _place(method), *(write(row, column) for row in rows)])
    return aligned(lines)


def _place(method: Method) -> str:
    return DOMAINS.get(method.domain, "-")


def _value(row: Any, column: Column) -> str:
    text = _written(row["mean"], row["high"])
    if not column.better:
        return text
    differs = verdict_of(row, column) == "" and row["difference"] != 0.0
    return text + ("*" if differs else " ")


def _difference(row: Any, column: Column) -> str:
    sign = "" if row["difference"] < 0.0 else "+"
    mark = {"tie": "=", "": "*"}.get(verdict_of(row, column), " ")
    return sign + _written(row["difference"], row["difference_high"]) + mark


def _written(value: float, high: float) -> str:
    """A value and half of its interval, which is rounded up to the finest where it is less than two of it."""
    half = high - value
    if 0.0 < half < 2.0 * FINEST:
        return f"{value:.4f} ± {np.ceil(half / FINEST) * FINEST:.4f}"
    return quantity(value, half)


def _verdicts(smoothings: Sequence[Method], by_equal: Any, by_first: Any) -> Iterator[str]:
    """A line per scale: how often the floor binds, and how many smoothers differ from the first."""
    for scale in SCALES:

        def at(found: Any, method: Method, column: Column, scale: float = scale) -> Any:
            return found.loc[(_stream(scale), method.name, method.parameters, column.metric)]

        shares = {method: at(by_equal, method, BINDS)["mean"] for method in smoothings}
        told: dict[bool, list[str]] = {True: [], False: []}
        for method in smoothings[1:]:
            always = min(shares[method], shares[smoothings[0]]) >= ALWAYS
            told[always] += [verdict_of(at(by_first, method, one), one) for one in (ACCURACY, RMSE)]
        some = "of {n} differences " if not told[True] else "of the {n} others "
        parts = [
            words.format(n=len(verdicts))
            + ", ".join(f"{verdicts.count(v)} {said}" for v, said in VERDICTS.items() if v in verdicts)
            for words, verdicts in zip((BOUND, some), told.values(), strict=True)
            if verdicts
        ]
        least, most = (f"{100.0 * end:.0f}" for end in (min(shares.values()), max(shares.values())))
        yield f"- loss x {scale:g}, floor binding in {least} to {most} % of the steps: " + ";\n  ".join(parts)


def _figure(every: Sequence[Method], found: Trained, chosen: Parameters) -> Any:
    """Weight of the regression over time in the first repetition, by scale, the smoothers of each domain."""
    smoothers = list(dict.fromkeys(method.name for method in every if method.domain))
    names = [*smoothers, "grad_norm"]
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            len(DOMAINS), len(SCALES), figsize=(10.0, 5.0), sharex=True, sharey=True, squeeze=False
        )
        for row, domain in enumerate(DOMAINS):
            for column, scale in enumerate(SCALES):
                axis = axes[row, column]
                for at, method in enumerate(every):
                    if method.domain == domain or method.name == "grad_norm":
                        style = line(names.index(method.name))
                        axis.semilogy(found.weights[:, at, column], label=method.name, **style)
                bound = chosen.floor / (1.0 + chosen.floor)
                axis.axhline(max(bound, 1e-9), color="#999999", linewidth=0.8, zorder=1)
                if row == 0:
                    axis.set_title(f"loss of the ink x {scale:g}", fontsize=8)
            axes[row, 0].set_ylabel(f"weight of the ink\n(smoother on {DOMAINS[domain]})")
        for axis in axes[-1]:
            axis.set_xlabel("step")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        pyplot.close(figure)
    return figure
