"""Memories of a sequence of tokens, fixed and learned, their noise and precision, and what reads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from estimators import EMA
from experiments.recorder import MissingExtraError, one_thread
from experiments.streams import Array

GAINS = (0.5, 0.1, 0.02)
"""Of the three traces, the fastest first."""
TRACES = EMA(1.0 - np.array(GAINS))
FAST, SLOW = 0, len(GAINS) - 1
LINEAR, STRONGER = "linear", ("MLP", "kNN", "trees")
BATCH = 256
AT_ONCE = 500
"""Sequences that are filtered at once, as a filter gives every step of theirs."""
FORMATS = {"float64": 53, "float32": 24, "float16": 11}
"""Bits of the significand."""
PRECISE_GAINS = (0.5, 0.6, 0.4)
PRECISE_KINDS, PRECISE_LENGTH, PRECISE_COUNT = 16, 100, 200
MIXED_IN = 1e-3
"""Share of even chances in every prediction, without which the absence of neighbours costs infinity."""

Tokens = NDArray[np.int64]


def require_extra(needs_torch: bool = False) -> None:
    """Raise MissingExtraError, one line, where scikit-learn, or torch if that is needed, is not installed."""
    needed = ("sklearn.linear_model", "threadpoolctl", *["torch"] * needs_torch)
    for name in needed:
        if not importable(name):
            names = "torch and scikit-learn" if needs_torch else "scikit-learn"
            raise MissingExtraError(
                f"recall needs {names} ({name} cannot be imported): pip install 'kalmean[training]'"
            )


def importable(name: str) -> bool:
    """Whether a module is there and works."""
    try:
        import_module(name)
    except Exception:  # one that is broken fails as it likes, and otherwise at a second try
        return False
    return True


def available(names: Iterable[str], given: str = "") -> str:
    """Those of some modules that can be imported, joined by +, or none; ValueError where others are given."""
    found = "+".join(sorted(name for name in names if importable(name))) or "none"
    if given not in ("", found):
        raise ValueError(f"experiment.packages={given!r} is not valid; what is needed and here is {found!r}")
    return found


def has_torch() -> bool:
    """Whether the memories that are learned can be."""
    return importable("torch")


@contextmanager
def single_threaded() -> Iterator[None]:
    """Let BLAS, OpenMP and torch compute on one thread: the same bytes on any machine, and no contention."""
    limits = import_module("threadpoolctl").threadpool_limits  # of scikit-learn; it has no types
    with limits(1), one_thread() if has_torch() else nullcontext():
        yield


def generator(root_seed: int, name: str, repetition: int) -> np.random.Generator:
    """Random numbers of one purpose in one repetition."""
    return np.random.default_rng(np.random.SeedSequence([root_seed, crc32(name.encode()), repetition]))


def traces(x: Array, odds: Array | None = None, ema: EMA = TRACES) -> Array:
    """Last means of an EMA of K betas over sequences of vectors.

    Shapes: x (T, N, D), odds (T, N), result (N, D, K). odds: by which those of each gain, K / (1 - K), are
    multiplied at a step: at 0 nothing is written, at 1 the gain is the EMA's own.
    """
    parts = []
    for start in range(0, x.shape[1], AT_ONCE):
        own = x[:, start : start + AT_ONCE, :, np.newaxis]
        weight = None
        if odds is not None:
            each = odds[:, start : start + AT_ONCE, np.newaxis, np.newaxis]
            weight = np.broadcast_to(each, (*own.shape[:-1], np.size(ema.beta)))
        parts.append(np.asarray(ema.filter(own, weight=weight).state.mean))
    return np.concatenate(parts)


def window(x: Array, samples: int) -> Array:
    """The last samples of sequences (T, N, D), as they are: a finite impulse response, (N, samples, D)."""
    last: Array = x[-samples:].transpose(1, 0, 2)
    return last


def noisy(state: Array, sigma: float, rng: np.random.Generator, fitted: int | None = None) -> Array:
    """States (N, ...) as (N, features) of mean 0 and variance 1, with noise of standard deviation sigma.

    fitted: how many of them, from the first on, the mean and the variance are taken of; None for all.
    """
    flat = state.reshape(len(state), -1)
    mean, sd = unit_of(flat[:fitted])
    return (flat - mean) / sd + sigma * rng.standard_normal(flat.shape)


def unit_of(flat: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each feature; 1 where a feature does not vary but by rounding."""
    mean, sd = flat.mean(axis=0), flat.std(axis=0)
    return mean, np.where(sd > 1e-12 * np.abs(mean), sd, 1.0)


def fitted(name: str, features: Array, labels: Tokens, seed: int) -> Any:
    """A scikit-learn classifier: linear (multinomial logistic regression), MLP, kNN or boosted trees.

    The stronger ones get a fixed effort: 20 passes over the data, 25 neighbours, up to 100 trees for each
    class, of which as many are kept as lower the loss on a tenth of the training data.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier

    makes = {
        LINEAR: lambda: LogisticRegression(max_iter=500),
        "MLP": lambda: MLPClassifier(
            (64, 64),
            batch_size=min(256, len(labels)),
            learning_rate_init=3e-3,
            max_iter=20,
            random_state=seed,
        ),
        "kNN": lambda: KNeighborsClassifier(25),
        "trees": lambda: HistGradientBoostingClassifier(
            early_stopping=True, n_iter_no_change=5, random_state=seed
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # so many passes, and no more
        return makes[name]().fit(features, labels)


def chances(model: Any, features: Array, classes: int) -> Array:
    """Probabilities (N, classes) that a classifier states, none of them 0."""
    stated = np.zeros((len(features), classes))
    stated[:, model.classes_] = model.predict_proba(features)
    return (1.0 - MIXED_IN) * stated + MIXED_IN / classes


def accuracy(name: str, features: Array, labels: Tokens, trained: int, seed: int) -> float:
    """Share of the labels after the first so many that a predictor fitted to those names."""
    model = fitted(name, features[:trained], labels[:trained], seed)
    return float(np.mean(model.predict(features[trained:]) == labels[trained:]))


def gru_accuracy(x: Array, labels: Tokens, trained: int, rng: np.random.Generator) -> float:
    """Accuracy of a GRU of 32 units that reads whole sequences (T, N, D) and is trained with their labels.

    6 passes of Adam over the first so many, in batches of 128, rate 5e-3. Raises MissingExtraError without
    torch. Source: Cho et al. 2014, in torch's form.
    """
    require_extra(needs_torch=True)
    import torch
    from torch.nn import functional

    sequences = torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2), dtype=np.float32))
    wanted = torch.from_numpy(labels)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**31)))
        gru = torch.nn.GRU(sequences.shape[2], 32, batch_first=True)
        head = torch.nn.Linear(32, int(labels.max()) + 1)
    adam = torch.optim.Adam([*gru.parameters(), *head.parameters()], lr=5e-3)
    for _ in range(6):
        order = torch.from_numpy(rng.permutation(trained))
        for start in range(0, trained, 128):
            batch = order[start : start + 128]
            _step(adam, functional.cross_entropy(head(gru(sequences[batch])[1][0]), wanted[batch]))
    with torch.no_grad():
        named = head(gru(sequences[trained:])[1][0]).argmax(1)
    return float((named == wanted[trained:]).double().mean())


def learned_gate(tokens: Tokens, labels: Tokens, kinds: int, rng: np.random.Generator) -> Array:
    """Gains (kinds,) of a one-hot trace, one for each token that may stand before what is written.

    Shapes: tokens (N, T), labels (N,). Gains and a linear predictor of the label from the last state are
    learned together from even gains of 1/2, by 300 steps of Adam on batches of 256, rate 0.1. Raises
    MissingExtraError without torch.
    """
    require_extra(needs_torch=True)
    import torch
    from torch.nn import functional

    sequences, wanted = torch.from_numpy(tokens), torch.from_numpy(labels)
    gates = torch.zeros(kinds, dtype=torch.float64, requires_grad=True)
    readout = torch.zeros((kinds, int(labels.max()) + 1), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([gates, readout], lr=0.1)
    for _ in range(300):
        batch = torch.from_numpy(rng.integers(len(tokens), size=256))
        before, written = sequences[batch, :-1], sequences[batch, 1:]
        kept = functional.logsigmoid(-gates)[before]
        later = kept.flip(1).cumsum(1).flip(1) - kept
        weights = (functional.logsigmoid(gates)[before] + later).exp()  # of each sample in the last state
        state = torch.zeros((len(batch), kinds), dtype=torch.float64).scatter_add(1, written, weights)
        _step(adam, functional.cross_entropy(state @ readout, wanted[batch]))
    gains: Array = torch.sigmoid(gates).detach().numpy()
    return gains


def _step(optimiser: Any, loss: Any) -> None:
    """Take one step down the gradient of a loss."""
    import torch

    parameters = optimiser.param_groups[0]["params"]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimiser.step()


def decoded(trace: Array, gain: float, count: int) -> Tokens:
    """The newest tokens (count, N), newest first, of one-hot traces (N, D): each the one that weighs most.

    It is then taken off, and time run back by one step. Without noise and rounding, and with a gain of 1/2 or
    more, every token is named.
    """
    left, rows = trace.copy(), np.arange(len(trace))
    named = np.empty((count, len(trace)), dtype=np.int64)
    for lag in range(count):
        named[lag] = left.argmax(axis=1)
        left[rows, named[lag]] -= gain
        left /= 1.0 - gain
    return named


def tokens_recovered(gain: float, kept_as: str, root_seed: int, repetition: int) -> Array:
    """How many of the newest tokens are decoded before the first error, from 200 one-hot traces, (200,).

    The state is rounded to a format of numpy after every step, and decoded in float64.
    """
    rng = generator(root_seed, "precision", repetition)
    tokens = rng.integers(PRECISE_KINDS, size=(PRECISE_LENGTH, PRECISE_COUNT))
    ema, one_hot = EMA(1.0 - gain), np.eye(PRECISE_KINDS)
    state = ema.init(one_hot[tokens[0]])
    for now in tokens:
        state = ema.update(state, one_hot[now])
        state = state._replace(mean=state.mean.astype(kept_as).astype(np.float64))
    right = decoded(np.asarray(state.mean), gain, PRECISE_LENGTH) == tokens[::-1]
    recovered: Array = np.cumprod(right, axis=0).sum(axis=0).astype(np.float64)
    return recovered


def precision_scores(root_seed: int, repetition: int) -> dict[tuple[str, str], float]:
    """Mean and least number of tokens recovered, by stream and metric."""
    found = {}
    for gain in PRECISE_GAINS:
        for kept_as in FORMATS:
            recovered = tokens_recovered(gain, kept_as, root_seed, repetition)
            stream = precision_stream(gain, kept_as)
            found[stream, "tokens_recovered"] = float(recovered.mean())
            found[stream, "fewest_recovered"] = float(recovered.min())
    return found


def precision_stream(gain: float, kept_as: str) -> str:
    """How a gain and a format are called."""
    return f"identity without noise, gain {gain:g}, {kept_as}"
