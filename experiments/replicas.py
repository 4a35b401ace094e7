"""Many replicates of one small network, trained at once: their parameters stacked along a first axis.

One small network costs mostly the overhead of calls, so replicates share each call. An optimiser that knows
nothing of replicates steps them: each has tensors of its own, which are views into the stacked ones.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from estimators._parameters import require, whole

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

BATCHES_PER_BLOCK = 1000
NOISES_PER_BLOCK = 32
ROWS_PER_CHUNK = 65_536

PartName = Literal["validation", "test"]


class Network(NamedTuple):
    """How a replicate starts, and what replicates side by side answer.

    initial(rng) gives the parameters of one replicate, float32; logits(stacked, inputs) those of all: shapes
    (R, *parameter) and (R, B, ...) to (R, B, ..., classes), where no replicate may touch another.
    """

    initial: Callable[[np.random.Generator], Sequence[NDArray[np.float32]]]
    logits: Callable[[Sequence[torch.Tensor], torch.Tensor], torch.Tensor]


class Part(NamedTuple):
    """Samples that every replicate sees alike: inputs (N, ...), targets (N, ...) of whole numbers."""

    inputs: torch.Tensor
    targets: torch.Tensor


class Data(NamedTuple):
    """Training inputs (N, ...), training targets (S, N, ...) by distinct seed, and the two parts held out."""

    inputs: torch.Tensor
    targets: torch.Tensor
    validation: Part
    test: Part


@dataclass(frozen=True)
class Seeds:
    """Random numbers of a problem's replicates, by (problem, seed), never by position or company.

    Raises ValueError where ``given`` is empty or holds anything but whole numbers from 0.
    """

    problem: str
    given: Sequence[int]
    distinct: tuple[int, ...] = field(init=False)
    position: NDArray[np.intp] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(self.problem, "seeds", self.given, len(self.given) > 0, "one or more ints >= 0")
        given = [whole(self.problem, "seeds", seed, 0) for seed in self.given]
        distinct, position = np.unique(np.array(given, dtype=np.int64), return_inverse=True)
        object.__setattr__(self, "distinct", tuple(map(int, distinct)))
        object.__setattr__(self, "position", position)

    def draw(
        self, purpose: str, draw: Callable[[np.random.Generator], NDArray[Any]], block: int = 0
    ) -> NDArray[Any]:
        """Draw for each distinct seed, stacked along a first axis (S, ...)."""
        return np.stack([draw(generator(self.problem, seed, purpose, block)) for seed in self.distinct])


def generator(problem: str, seed: int, purpose: str, block: int = 0) -> np.random.Generator:
    """Random numbers of one problem, seed, purpose and block of steps. Source: NumPy's SeedSequence."""
    key = (zlib.crc32(problem.encode()), zlib.crc32(purpose.encode()), block)
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=key)))


class Replicas:
    """R replicates in training; float32 on the CPU, on as many threads as torch is set to.

    ``parameters[r]`` are the tensors of replicate r, for an optimiser; ``stacked`` are those of all, each
    (R, ...), in the same order and the same memory, for one that treats all alike. Equal seeds start and go
    on from equal numbers exactly: weights, targets, minibatches, noise. What is computed of them may differ
    in the last bits of float32 from company to company, as other sizes are summed in another order.
    """

    def __init__(
        self, network: Network, data: Data, seeds: Seeds, batch: int, gradient_noise: float = 0.0
    ) -> None:
        import torch

        starts = [network.initial(generator(seeds.problem, seed, "weights")) for seed in seeds.distinct]
        flat = np.stack([np.concatenate([tensor.ravel() for tensor in start]) for start in starts])
        self._position = torch.from_numpy(seeds.position)
        self._network, self._data, self._gradient_noise = network, data, gradient_noise
        # One row of memory per replicate, so that noise is added to all its gradients in one call.
        values = torch.from_numpy(flat)[self._position]
        self._gradient = torch.zeros_like(values)
        shapes = [tensor.shape for tensor in starts[0]]
        self._gradients = _split(self._gradient, shapes)
        self.stacked = [tensor.requires_grad_() for tensor in _split(values, shapes)]
        self.parameters = [
            [tensor.detach()[r].requires_grad_() for tensor in self.stacked] for r in range(len(values))
        ]
        self._owners = [*zip(self.stacked, self._gradients, strict=True)]
        for r, tensors in enumerate(self.parameters):
            self._owners += [(t, g[r]) for t, g in zip(tensors, self._gradients, strict=True)]
        self._attach()
        samples, size = len(data.inputs), flat.shape[1]
        self._batches = _Blocks(
            seeds, "minibatches", BATCHES_PER_BLOCK, lambda rng: _shuffled(rng, samples, batch)
        )
        self._noises = _Blocks(
            seeds,
            "noise",
            NOISES_PER_BLOCK,
            lambda rng: rng.standard_normal((NOISES_PER_BLOCK, size), np.float32),
        )

    def __len__(self) -> int:
        return len(self.parameters)

    def backward(self, step: int) -> torch.Tensor:
        """Fill every ``.grad`` for the minibatches of this step; return their mean losses (R,), in nats.

        Steps may come in any order. What a gradient held before is overwritten, never replaced. Gradient
        noise is added where the problem has it; the losses are those without.
        """
        import torch

        rows = torch.from_numpy(self._batches.at(step))[self._position]
        targets = self._data.targets[self._position[:, None], rows]
        losses, gradients = self._differentiate(self._data.inputs[rows], targets)
        for view, gradient in zip(self._gradients, gradients, strict=True):
            view.copy_(gradient)
        if self._gradient_noise:
            noise = torch.from_numpy(self._noises.at(step))
            self._gradient.add_(noise[self._position], alpha=self._gradient_noise)
        self._attach()  # an optimiser's zero_grad takes them away
        return losses

    def gradient(self) -> list[torch.Tensor]:
        """Gradient of the mean loss over all training samples, (R, ...) each; every ``.grad`` stays as it is.

        The samples are the replicate's own, wrong labels included, as minibatches are drawn from these; free
        of gradient noise.
        """
        import torch

        total = [torch.zeros_like(view) for view in self._gradients]
        for chunk in self._chunks(self._data.targets[0]):
            inputs = self._data.inputs[chunk]
            targets = self._data.targets[:, chunk][self._position]
            _, gradients = self._differentiate(self._shared(inputs), targets)
            for sum_, gradient in zip(total, gradients, strict=True):
                sum_.add_(gradient, alpha=len(inputs) / len(self._data.inputs))
        return total

    def losses(self, part: PartName) -> NDArray[np.float64]:
        """Mean negative log-likelihood (R,) on a part held out, in nats per target; NaN where diverged."""

        def nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            from torch.nn import functional

            return functional.cross_entropy(logits, targets, reduction="none")

        return self._mean(part, nll)

    def accuracy(self, part: PartName) -> NDArray[np.float64]:
        """Share of targets (R,) of a part held out to which a replicate gives the largest probability."""
        return self._mean(part, lambda logits, targets: logits.argmax(1) == targets)

    def _mean(
        self, part: PartName, score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> NDArray[np.float64]:
        import torch

        parts = {"validation": self._data.validation, "test": self._data.test}
        require(type(self).__name__, "part", part, part in parts, f"one of {', '.join(parts)}")
        inputs, targets = parts[part]
        total = torch.zeros(len(self), dtype=torch.float64)
        with torch.no_grad():
            for chunk in self._chunks(targets):
                logits = self._network.logits(self.stacked, self._shared(inputs[chunk]))
                scores = score(logits.flatten(0, -2), self._shared(targets[chunk]).flatten())
                total += scores.view(len(self), -1).sum(1, dtype=torch.float64)
        mean: NDArray[np.float64] = (total / targets.numel()).numpy()
        return mean

    def _differentiate(
        self, inputs: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        import torch
        from torch.nn import functional

        with torch.enable_grad():
            logits = self._network.logits(self.stacked, inputs)
            each = functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="none")
            losses = each.view(len(self), -1).mean(1)
            # The derivative of a sum is one for each term, NaN or not: no replicate reaches another.
            return losses.detach(), torch.autograd.grad(losses.sum(), self.stacked)

    def _attach(self) -> None:
        for tensor, gradient in self._owners:
            tensor.grad = gradient

    def _shared(self, samples: torch.Tensor) -> torch.Tensor:
        return samples.expand(len(self), *samples.shape)

    def _chunks(self, targets: torch.Tensor) -> Iterator[slice]:
        width = max(1, ROWS_PER_CHUNK // (len(self) * targets[0].numel()))
        return (slice(first, first + width) for first in range(0, len(targets), width))


class _Blocks:
    """Random arrays by seed and step, drawn a block of steps at a time."""

    def __init__(
        self, seeds: Seeds, purpose: str, steps: int, draw: Callable[[np.random.Generator], NDArray[Any]]
    ) -> None:
        self._seeds, self._purpose, self._steps, self._draw = seeds, purpose, steps, draw
        self._block, self._values = -1, np.empty(0)

    def at(self, step: int) -> NDArray[Any]:
        """The arrays of this step, (S, ...)."""
        block, row = divmod(whole("backward", "step", step, 0), self._steps)
        if block != self._block:
            self._values = self._seeds.draw(self._purpose, self._draw, block)
            self._block = block
        return self._values[:, row]


def _shuffled(rng: np.random.Generator, samples: int, batch: int) -> NDArray[np.int64]:
    # A block of minibatches: every sample about equally often, in as many shuffled passes as that takes.
    wanted = BATCHES_PER_BLOCK * batch
    passes = [rng.permutation(samples) for _ in range(-(-wanted // samples))]
    order: NDArray[np.int64] = np.concatenate(passes)[:wanted].reshape(BATCHES_PER_BLOCK, batch)
    return order


def _split(flat: torch.Tensor, shapes: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes]).tolist()
    places = zip([0, *ends], ends, shapes, strict=False)
    return [flat[:, first:end].view(len(flat), *shape).detach() for first, end, shape in places]
