"""Two small training problems whose replicates are trained at once: images of digits, and a generated text.

torch and scikit-learn, the extra `training`, are imported only when a problem starts.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from estimators._parameters import FROM_0_TO_1, NONNEGATIVE, real, require, whole
from experiments.recorder import MissingExtraError, load_training_set
from experiments.replicas import Data, Network, Part, Replicas, Seeds, generator
from experiments.text import ALPHABET, ENGLISH

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

PIXELS, CLASSES = 64, 10
TRAINING_IMAGES, VALIDATION_IMAGES = 1000, 297  # the other 500 are the test
TRAINING_TEXT, VALIDATION_TEXT, TEST_TEXT = 100_000, 10_000, 20_000  # characters


class Problem(Protocol):
    """What replicates are trained on: a frozen dataclass, equal where the training is."""

    @abstractmethod
    def start(self, seeds: Sequence[int]) -> Replicas:
        """Set up one untrained replicate per seed; equal seeds get equal random numbers.

        Raises ValueError for seeds that are none, or where the extra `training` is not installed.
        """


@dataclass(frozen=True)
class Digits(Problem):
    """Which digit an image shows: a network 64 -> hidden (ReLU) -> 10 under cross-entropy.

    1000 images train, 297 validate, 500 test, the same for all. ``batch`` images make a step, in shuffled
    passes. ``label_noise`` is the share of training labels that are replaced, by another digit each, chosen
    by seed. ``gradient_noise`` is the sd of Gaussian noise on each coordinate of each step's gradient.
    Parameters of a replicate: weight (64, hidden), bias (hidden,), weight (hidden, 10), bias (10,). Raises
    ValueError for a field out of range. Source: UCI hand-written digits (Alpaydin and Kaynak 1998).
    """

    batch: int = 32
    label_noise: float = 0.0
    gradient_noise: float = 0.0
    hidden: int = 32

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("batch", "hidden"):
            whole(owner, name, getattr(self, name), 1)
        within = f"an int from 1 to {TRAINING_IMAGES}, the training images"
        require(owner, "batch", self.batch, self.batch <= TRAINING_IMAGES, within)
        for name, allowed in (("label_noise", FROM_0_TO_1), ("gradient_noise", NONNEGATIVE)):
            given = getattr(self, name)
            require(owner, name, given, np.ndim(given) == 0, f"one number, {allowed.valid}")
            real(owner, name, given, allowed)

    def start(self, seeds: Sequence[int]) -> Replicas:
        """Set up one untrained replicate per seed, as ``Problem`` says."""
        drawn = Seeds(type(self).__name__, seeds)
        images = _digits()
        import torch

        pixels, labels = torch.from_numpy(images.pixels), torch.from_numpy(images.labels)
        training, validation, test = (
            Part(pixels[part], labels[part])
            for part in np.split(images.order, [TRAINING_IMAGES, TRAINING_IMAGES + VALIDATION_IMAGES])
        )
        right = training.targets.numpy()
        targets = drawn.draw("labels", lambda rng: _mislabelled(rng, right, self.label_noise))
        data = Data(training.inputs, torch.from_numpy(targets), validation, test)
        return Replicas(Network(self._initial, _perceptron), data, drawn, self.batch, self.gradient_noise)

    def _initial(self, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        return [*_linear(rng, PIXELS, self.hidden), *_linear(rng, self.hidden, CLASSES)]


@dataclass(frozen=True)
class Characters(Problem):
    """The next character of a generated text: a small transformer under cross-entropy.

    100,000 characters of ``text.ENGLISH`` train, 10,000 validate and 20,000 test, the same for all. ``batch``
    windows of ``context`` characters make a step, and each character after them is predicted. Blocks of
    causal attention and a perceptron of twice the width (ReLU), each after a layer norm; learned positions
    and a head of its own. Losses are in nats per character, and cannot stay below the entropy rate of the
    text. Raises ValueError for a field out of range. Source: Vaswani et al. 2017, with the norms before as in
    Xiong et al. 2020.
    """

    batch: int = 16
    context: int = 32
    width: int = 32
    heads: int = 2
    layers: int = 2

    def __post_init__(self) -> None:
        owner = type(self).__name__
        for name in ("batch", "context", "width", "heads", "layers"):
            whole(owner, name, getattr(self, name), 1)
        within = f"an int below {VALIDATION_TEXT}, the characters that validate"
        require(owner, "context", self.context, self.context < VALIDATION_TEXT, within)
        divides = f"an int that divides width={self.width}"
        require(owner, "heads", self.heads, self.width % self.heads == 0, divides)

    def start(self, seeds: Sequence[int]) -> Replicas:
        """Set up one untrained replicate per seed, as ``Problem`` says."""
        drawn = Seeds(type(self).__name__, seeds)
        try:
            import torch
        except ImportError:
            raise _missing(type(self).__name__, "torch") from None

        training, validation, test = map(torch.from_numpy, _characters())
        every = training.unfold(0, self.context + 1, 1)
        apart = [part.unfold(0, self.context + 1, self.context) for part in (validation, test)]
        targets = every[:, 1:].expand(len(drawn.distinct), -1, -1)
        data = Data(every[:, :-1], targets, *(Part(windows[:, :-1], windows[:, 1:]) for windows in apart))
        return Replicas(Network(self._initial, self._logits), data, drawn, self.batch)

    def _initial(self, rng: np.random.Generator) -> list[NDArray[np.float32]]:
        def norm() -> list[NDArray[np.float32]]:
            return [np.ones(width, np.float32), np.zeros(width, np.float32)]

        width = self.width
        symbols = 0.1 * rng.standard_normal((len(ALPHABET), width), np.float32)
        positions = 0.1 * rng.standard_normal((self.context, width), np.float32)
        tensors = [symbols, positions]
        for _ in range(self.layers):
            tensors += [*norm(), *_linear(rng, width, 3 * width), *_linear(rng, width, width)]
            tensors += [*norm(), *_linear(rng, width, 2 * width), *_linear(rng, 2 * width, width)]
        return [*tensors, *norm(), *_linear(rng, width, len(ALPHABET))]

    def _logits(self, parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn import functional

        remaining = iter(parameters)
        replicas, batch, context = inputs.shape

        def take() -> torch.Tensor:
            return next(remaining)

        def normed(x: torch.Tensor) -> torch.Tensor:
            scale, shift = take(), take()
            return torch.addcmul(shift[:, None], functional.layer_norm(x, (self.width,)), scale[:, None])

        def linear(x: torch.Tensor) -> torch.Tensor:
            weight, bias = take(), take()
            return torch.baddbmm(bias[:, None], x, weight)

        def attended(x: torch.Tensor) -> torch.Tensor:
            query, key, value = (
                part.reshape(replicas * batch, context, self.heads, -1).transpose(1, 2)
                for part in x.chunk(3, -1)
            )
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            return mixed.transpose(1, 2).reshape(replicas, batch * context, self.width)

        symbols, positions = take(), take()
        rows = inputs + len(ALPHABET) * torch.arange(replicas)[:, None, None]
        x = functional.embedding(rows, symbols.flatten(0, 1)) + positions[:, None]
        x = x.flatten(1, 2)
        for _ in range(self.layers):
            x = x + linear(attended(linear(normed(x))))
            x = x + linear(linear(normed(x)).relu())
        return linear(normed(x)).view(replicas, batch, context, len(ALPHABET))


class _Images(NamedTuple):
    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]
    order: NDArray[np.int64]


@functools.cache
def _digits() -> _Images:
    try:
        pixels, labels, _ = load_training_set()
    except MissingExtraError:
        raise _missing("Digits", "torch and scikit-learn") from None
    return _Images(pixels, labels, generator("Digits", 0, "split").permutation(len(labels)))


@functools.cache
def _characters() -> tuple[NDArray[np.int64], ...]:
    code = {character: i for i, character in enumerate(ALPHABET)}
    sizes = {"training": TRAINING_TEXT, "validation": VALIDATION_TEXT, "test": TEST_TEXT}
    texts = (ENGLISH.text(size, generator("Characters", 0, name)) for name, size in sizes.items())
    return tuple(np.array([code[character] for character in text], dtype=np.int64) for text in texts)


def _missing(problem: str, needed: str) -> ValueError:
    return ValueError(f"{problem} needs {needed}; install with pip install 'kalmean[training]'")


def _mislabelled(rng: np.random.Generator, labels: NDArray[np.int64], share: float) -> NDArray[np.int64]:
    # All draws are made whatever the share, so that a larger share replaces the labels of a smaller one too.
    order, others = rng.permutation(len(labels)), rng.integers(1, CLASSES, len(labels))
    chosen = order[: round(share * len(labels))]
    replaced = labels.copy()
    replaced[chosen] = (labels[chosen] + others[chosen]) % CLASSES
    return replaced


def _linear(rng: np.random.Generator, inputs: int, outputs: int) -> list[NDArray[np.float32]]:
    bound = inputs**-0.5  # torch's default for linear layers
    shapes = ((inputs, outputs), (outputs,))
    return [rng.uniform(-bound, bound, shape).astype(np.float32) for shape in shapes]


def _perceptron(parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    import torch

    weight, bias, head, offset = parameters
    hidden = torch.baddbmm(bias[:, None], inputs, weight).relu()
    return torch.baddbmm(offset[:, None], hidden, head)
