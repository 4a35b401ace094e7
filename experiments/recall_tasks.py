"""Three tasks on sequences of tokens: a noun's role, a token's identity by its lag, and a marked token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from estimators import EMA
from experiments.recall_memories import (
    FAST,
    GAINS,
    LINEAR,
    SLOW,
    STRONGER,
    Tokens,
    accuracy,
    chances,
    decoded,
    fitted,
    generator,
    gru_accuracy,
    has_torch,
    learned_gate,
    noisy,
    traces,
    unit_of,
    window,
)
from experiments.streams import Array

# --- roles: what the traces of a grammar keep ---------------------------------------------------------------

TEMPLATES = (
    "the subject verb the object .",
    "the subject was verb by the agent .",
    "the subject that verb the relative-object verb the object .",
    "the subject that the relative-subject verb verb the object .",
)
"""Active, passive, subject and object relative; a role stands for any noun."""
ROLES = ("subject", "object", "agent", "relative-object", "relative-subject")
WORDS = ("the", "was", "by", "that", ".")
NOUNS, VERBS, CONTEXT, WORD_EMBEDDED, ROLE_NOISE, ROLE_WINDOW = 24, 8, 40, 16, 0.02, 8
WORD_KINDS = NOUNS + VERBS + len(WORDS)
MAJORITY = 0.4
"""Share of the nouns that are subjects, 4 of the 10 in the templates."""
TRACES_LINEAR = f"{len(GAINS)} traces, linear"
TRACES_MLP = f"{len(GAINS)} traces, MLP"
BAG, GRU, MOST = "bag of words, linear", "GRU", "majority"
WINDOWED_ROLES = f"window of {ROLE_WINDOW}, linear"
COMPARED = (f"{len(GAINS)} traces", "bag of words", "slow trace", "fast trace")
"""Memories that an MLP reads too: the newest token says nothing, and of a window linear reads all."""


def contexts(count: int, rng: np.random.Generator) -> tuple[Tokens, Tokens]:
    """Tokens before a noun and its role: (count, 40) and (count,), each noun of a long text as likely.

    Of the text's sentences, which follow each other at random, the noun's own is cut off before it.
    """
    sentences = [template.split() for template in TEMPLATES]
    places = [(own, at) for own in sentences for at, word in enumerate(own) if word in ROLES]
    special = {word: NOUNS + VERBS + at for at, word in enumerate(WORDS)}
    codes = {**special, "verb": -1, **dict.fromkeys(ROLES, -2)}
    coded = [np.array([codes[word] for word in own]) for own in sentences]
    begun = [np.array([codes[word] for word in own[:at]]) for own, at in places]
    chosen = rng.integers(len(places), size=count)
    before = rng.integers(len(sentences), size=(count, CONTEXT))
    tokens = np.empty((count, CONTEXT), dtype=np.int64)
    for row, (at, others) in enumerate(zip(chosen, before, strict=True)):
        parts, have = [begun[at]], len(begun[at])
        for other in others:
            if have >= CONTEXT:
                break
            parts.append(coded[other])
            have += len(coded[other])
        tokens[row] = np.concatenate(parts[::-1])[-CONTEXT:]
    tokens = np.where(tokens == -1, NOUNS + rng.integers(VERBS, size=tokens.shape), tokens)
    tokens = np.where(tokens == -2, rng.integers(NOUNS, size=tokens.shape), tokens)
    return tokens, np.array([ROLES.index(own[at]) for own, at in places])[chosen]


def role_scores(count: int, root_seed: int, repetition: int, only: tuple[str, ...] = ()) -> dict[str, float]:
    """Accuracy on the last quarter of so many contexts, by memory and predictor; of all or of some.

    Tokens are embedded at random in 16 numbers; all memories but the GRU's bear the same state noise. The
    GRU is left out where torch is absent.
    """
    rng = generator(root_seed, "roles", repetition)
    tokens, roles = contexts(count, rng)
    x = rng.standard_normal((WORD_KINDS, WORD_EMBEDDED))[tokens.T]
    trained, seed = count - count // 4, int(rng.integers(2**31))
    kept = traces(x)
    counts = np.stack([(tokens == kind).sum(axis=1) for kind in range(WORD_KINDS)], axis=1).astype(np.float64)
    memories = {
        f"{len(GAINS)} traces": kept,
        "newest token": x[-1],
        "bag of words": counts,
        "slow trace": kept[..., SLOW],
        "fast trace": kept[..., FAST],
        f"window of {ROLE_WINDOW}": window(x, ROLE_WINDOW),
    }
    found = {}
    for memory, state in memories.items():
        features = noisy(state, ROLE_NOISE, generator(root_seed, f"roles, {memory}", repetition), trained)
        for predictor in (LINEAR, "MLP") if memory in COMPARED else (LINEAR,):
            name = f"{memory}, {predictor}"
            if not only or name in only:
                found[name] = accuracy(predictor, features, roles, trained, seed)
    if not only or MOST in only:
        usual = np.bincount(roles[:trained]).argmax()
        found[MOST] = float(np.mean(roles[trained:] == usual))
    if (not only and has_torch()) or GRU in only:
        found[GRU] = gru_accuracy(x, roles, trained, generator(root_seed, "roles, GRU", repetition))
    return found


# --- identity: the exact Bayes ceiling under state noise ----------------------------------------------------

IDENTITY_KINDS, IDENTITY_LENGTH, IDENTITY_EMBEDDED = 4, 8, 2
SIGMAS = (0.05, 0.2, 0.5)
IDENTITY_LAGS = (0, 1, 2, 3, 5)
"""Not the oldest: a trace that sets out from 0 makes the first token of a sequence easier."""
OLDER = tuple(lag for lag in IDENTITY_LAGS if lag > 0)
CLOSED, SHORT = "loss_gap_closed", "short_of_ceiling"
TESTED = 1500
"""Sequences that predictors are judged on; as many others choose the best of the stronger ones."""
CEILING, BEST = "exact Bayes ceiling", "3 traces, best stronger"
ROWS = {name: f"3 traces, {name}" for name in (LINEAR, *STRONGER)}
BEYOND = 2.0
"""Standard errors of sampling beyond which a gap is one."""
ENTROPY = float(np.log(IDENTITY_KINDS))
"""Of a token, nats."""


@dataclass(frozen=True)
class Code:
    """All 65,536 sequences of 8 tokens out of 4, newest first, and the state (features,) that each leaves."""

    sequences: Tokens
    states: Array

    @classmethod
    def of(cls, embedding: Array) -> Code:
        """The traces of embedded tokens (4, D), each scaled to mean 0 and variance 1 over all sequences."""
        sequences = np.indices((IDENTITY_KINDS,) * IDENTITY_LENGTH).reshape(IDENTITY_LENGTH, -1).T
        flat = traces(embedding[sequences.T[::-1]]).reshape(len(sequences), -1)
        mean, sd = unit_of(flat)
        return cls(sequences, (flat - mean) / sd)

    def drawn(self, count: int, sigma: float, rng: np.random.Generator) -> tuple[Array, Tokens]:
        """Noisy states (count, features) of sequences drawn evenly, and these (count, 8), newest first."""
        chosen = rng.integers(len(self.sequences), size=count)
        states = self.states[chosen] + sigma * rng.standard_normal((count, self.states.shape[1]))
        return states, self.sequences[chosen]

    def posterior(self, states: Array, sigma: float, lags: int = IDENTITY_LENGTH) -> Array:
        """Exact probabilities of the tokens at each lag, (N, lags, 4), given noisy states.

        Every sequence weighs as the Gaussian noise that would lead from its state to the one seen.
        """
        found = np.empty((len(states), lags, IDENTITY_KINDS))
        scaled = (self.states / sigma**2).T
        norms = 0.5 * np.sum(self.states * self.states, axis=1) / sigma**2
        for start in range(0, len(states), 32):  # what a cache holds
            weights = states[start : start + 32] @ scaled - norms
            weights -= weights.max(axis=1, keepdims=True)
            np.exp(weights, out=weights)
            for lag in range(lags):
                by_token = weights.reshape(len(weights), IDENTITY_KINDS, -1)  # the newest token is the first
                found[start : start + 32, lag] = by_token.sum(axis=2)
                weights = by_token.sum(axis=1)
        found /= found.sum(axis=2, keepdims=True)
        return found


@dataclass(frozen=True)
class Judged:
    """A predictor, or the ceiling, on some tests: whether it names the token, and its loss in nats, (N,)."""

    named: Array
    loss: Array

    @classmethod
    def of(cls, stated: Array, tokens: Tokens) -> Judged:
        """From stated probabilities (N, 4)."""
        named = (stated.argmax(axis=1) == tokens).astype(np.float64)
        return cls(named, -np.log(stated[np.arange(len(tokens)), tokens]))


def identity_scores(
    trained: int, root_seed: int, repetition: int, sigmas: Sequence[float] = SIGMAS
) -> dict[tuple[str, str, str], float]:
    """Figures by stream, row and metric, of every noise and lag, from so many training sequences.

    The tokens are embedded at random in 2 numbers. Embedding, sequences, and noise but for its scale are
    common to all sigmas.
    """
    found: dict[tuple[str, str, str], float] = {}
    code = Code.of(
        generator(root_seed, "identity", repetition).standard_normal((IDENTITY_KINDS, IDENTITY_EMBEDDED))
    )
    for sigma in sigmas:
        rng = generator(root_seed, "identity, sequences", repetition)
        states, tokens = code.drawn(trained + 2 * TESTED, sigma, rng)
        seed, test = int(rng.integers(2**31)), slice(trained + TESTED, None)
        posterior = code.posterior(states[test], sigma, max(IDENTITY_LAGS) + 1)
        for lag in IDENTITY_LAGS:
            ceiling = Judged.of(posterior[:, lag], tokens[test, lag])
            own = _predicted(states, tokens[:, lag], trained, seed)
            stream = stream_of(sigma, lag)
            found |= {(stream, row, metric): value for row, metric, value in _figures(ceiling, own)}
        # All of these lags, whatever their gaps: to leave out the small ones would be to select on noise.
        linear, best, least = (
            sum(found[stream_of(sigma, lag), row, "loss"] for lag in OLDER)
            for row in (ROWS[LINEAR], BEST, CEILING)
        )
        found[stream_of(sigma), BEST, CLOSED] = (linear - best) / (linear - least)
    return found


def stream_of(sigma: float, lag: int | None = None) -> str:
    """How a condition is called, of one lag or of all but the newest together."""
    return f"identity sigma={sigma:g} " + (
        f"lags {'+'.join(map(str, OLDER))}" if lag is None else f"lag {lag}"
    )


def _predicted(states: Array, tokens: Tokens, trained: int, seed: int) -> Mapping[str, Judged]:
    """Predictors on the tests; as ``BEST`` the stronger one of least loss on the sequences before these."""
    test, choice = slice(trained + TESTED, None), slice(trained, trained + TESTED)
    own, losses = {}, {}
    for name, row in ROWS.items():
        model = fitted(name, states[:trained], tokens[:trained], seed)
        stated = chances(model, states[trained:], IDENTITY_KINDS)
        own[row] = Judged.of(stated[TESTED:], tokens[test])
        losses[row] = Judged.of(stated[:TESTED], tokens[choice]).loss.mean()
    return own | {BEST: own[min((ROWS[name] for name in STRONGER), key=losses.__getitem__)]}


def _figures(ceiling: Judged, own: Mapping[str, Judged]) -> Iterator[tuple[str, str, float]]:
    """Row, metric and value of one noise and lag."""
    linear = own[ROWS[LINEAR]]
    for row, one in {ROWS[LINEAR]: linear, CEILING: ceiling, **own}.items():
        yield row, "accuracy", float(one.named.mean())
        yield row, "loss", float(one.loss.mean())
        if row != CEILING:
            short = ceiling.named - one.named
            yield row, SHORT, float(short.mean())
            yield row, f"{SHORT}_error", _standard_error(short)
    gap = linear.loss - ceiling.loss
    closed = (linear.loss - own[BEST].loss).mean() / gap.mean()
    yield BEST, CLOSED, float(closed) if gap.mean() > BEYOND * _standard_error(gap) else np.nan


def _standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


# --- payloads: what is recalled of a token that a marker announces ------------------------------------------

PAYLOADS, PAYLOAD_LENGTH, PAYLOAD_NOISE, PAYLOAD_WINDOW = 16, 64, 0.05, 12
MARKER = PAYLOADS
PAYLOAD_LAGS = (0, 1, 4, 8, PAYLOAD_WINDOW - 1, PAYLOAD_WINDOW, 16, 32)
ANY_LAG = f"any of 0-{PAYLOAD_WINDOW - 1}"
CHANCE = 1.0 / PAYLOADS
WINDOWED = f"window of {PAYLOAD_WINDOW}, linear"
GATED, LEARNED = "3 traces, gate set by hand, linear", "1 trace, learned gate, linear"
DECODED = "fast trace, decoded token by token"


class Payloads(NamedTuple):
    """Sequences (N, T), each with one marker, and the token after it (N,)."""

    tokens: Tokens
    payloads: Tokens


def payloads(count: int, least: int, most: int, rng: np.random.Generator) -> Payloads:
    """Random tokens, a marker, and its payload at a lag from least to most before the last token."""
    tokens = rng.integers(PAYLOADS, size=(count, PAYLOAD_LENGTH))
    at = PAYLOAD_LENGTH - 1 - rng.integers(least, most + 1, size=count)
    rows = np.arange(count)
    tokens[rows, at - 1] = MARKER
    return Payloads(tokens, tokens[rows, at])


def gate_odds(tokens: Tokens, gains: Array) -> Array:
    """Odds (T, N) by which a trace of gain 1/2 has at each step the gain of the token before it."""
    odds = np.zeros(tokens.T.shape)
    odds[1:] = (gains / (1.0 - gains))[tokens.T[:-1]]
    return odds


def payload_scores(count: int, root_seed: int, repetition: int) -> dict[tuple[str, str], float]:
    """Accuracy on the last quarter of so many sequences, by lag (or any) and memory with its predictor.

    The gate set by hand writes the traces after a marker alone; the learned one, left out where torch is
    absent, has learned on other sequences, with payloads at lags up to the longest, after which to write.
    """
    gains = None
    if has_torch():
        rng = generator(root_seed, "payloads, learned gate", repetition)
        tokens, wanted = payloads(count, 0, max(PAYLOAD_LAGS), rng)
        gains = learned_gate(tokens, wanted, PAYLOADS + 1, rng)
    lags = {str(lag): (lag, lag) for lag in PAYLOAD_LAGS} | {ANY_LAG: (0, PAYLOAD_WINDOW - 1)}
    return {
        (name, row): value
        for name, (least, most) in lags.items()
        for row, value in _at_lag(name, least, most, gains, count, root_seed, repetition).items()
    }


def _at_lag(
    name: str, least: int, most: int, gains: Array | None, count: int, root_seed: int, repetition: int
) -> Mapping[str, float]:
    rng = generator(root_seed, f"payloads, lag {name}", repetition)
    tokens, wanted = payloads(count, least, most, rng)
    x = np.eye(PAYLOADS + 1)[tokens.T]
    trained, seed = count - count // 4, int(rng.integers(2**31))
    kept = traces(x)
    by_hand = np.zeros((PAYLOAD_LENGTH, count))
    by_hand[1:] = tokens.T[:-1] == MARKER

    def features(state: Array) -> Array:
        return noisy(state, PAYLOAD_NOISE, rng, trained)

    of_traces = features(kept)
    found = {
        f"{len(GAINS)} traces, {predictor}": accuracy(predictor, of_traces, wanted, trained, seed)
        for predictor in (LINEAR, *STRONGER[:2])
    }
    if least == most:
        # The same noisy states, in units of one-hot tokens again; the marker is older than the payload.
        mean, sd = unit_of(kept[:trained, :PAYLOADS, FAST])
        fast = of_traces.reshape(kept.shape)[trained:, :PAYLOADS, FAST] * sd + mean
        found[DECODED] = float(np.mean(decoded(fast, GAINS[FAST], least + 1)[-1] == wanted[trained:]))
    found[WINDOWED] = accuracy(LINEAR, features(window(x, PAYLOAD_WINDOW)), wanted, trained, seed)
    found[GATED] = accuracy(LINEAR, features(traces(x, by_hand)), wanted, trained, seed)
    if gains is not None:
        gated = traces(x, gate_odds(tokens, gains), EMA(0.5))
        found[LEARNED] = accuracy(LINEAR, features(gated), wanted, trained, seed)
    return found
