"""A text of English-like sentences from a probabilistic grammar, so that its entropy is known exactly."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from math import log

import numpy as np

ALPHABET = string.ascii_lowercase + " ."

Rules = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Grammar:
    """A context-free grammar with probabilities: symbol -> {words and symbols, parted by spaces: weight}.

    Symbols are the keys of ``rules`` and the first of them is the sentence; weights need not sum to one.
    The alternatives of a symbol must start with different words: each sentence then has one derivation only,
    which ``entropy_rate`` takes for granted. Source: Booth and Thompson 1973 for the probabilities.
    """

    rules: Rules

    def text(self, characters: int, rng: np.random.Generator) -> str:
        """Write independent sentences, each closed by ". ", and cut them off after so many characters."""
        sentences: list[str] = []
        written = 0
        while written < characters:
            sentences.append(" ".join(self._words(rng)) + ". ")
            written += len(sentences[-1])
        return "".join(sentences)[:characters]

    def entropy_rate(self) -> float:
        """Entropy of an endless text, nats per character: below it no model's mean loss can stay.

        It is the entropy of a sentence over its expected length; both solve x = b + M x, where M counts the
        symbols that a symbol is expected to turn into. Source: Grenander 1967, as in Chi 1999, section 3.
        """
        place = {symbol: i for i, symbol in enumerate(self.rules)}
        turns = np.zeros((len(place), len(place)))
        own = np.zeros((len(place), 2))  # entropy and characters, without those of the symbols below
        for symbol, alternatives in self.rules.items():
            total = sum(alternatives.values())
            for alternative, weight in alternatives.items():
                share = weight / total
                own[place[symbol], 0] -= share * log(share)
                for item in alternative.split():
                    if item in place:
                        turns[place[symbol], place[item]] += share
                    else:
                        own[place[symbol], 1] += share * (len(item) + 1)  # the space or full stop behind it
        entropy, characters = np.linalg.solve(np.eye(len(place)) - turns, own)[0]
        return float(entropy / (characters + 1.0))  # the space behind the full stop

    def _words(self, rng: np.random.Generator) -> list[str]:
        words: list[str] = []
        pending = [next(iter(self.rules))]
        while pending:
            item = pending.pop()
            if item not in self.rules:
                words.append(item)
                continue
            alternatives = self.rules[item]
            drawn = rng.random() * sum(alternatives.values())
            for alternative, weight in alternatives.items():  # noqa: B007
                drawn -= weight
                if drawn < 0.0:
                    break
            pending.extend(reversed(alternative.split()))
        return words


def _falling(words: str) -> Mapping[str, float]:
    # Zipf: the k-th word of a class has weight 1/k.
    return {word: 1.0 / rank for rank, word in enumerate(words.split(), start=1)}


# Verbs agree with their subject in number, over a clause in between that may hold the other number.
ENGLISH = Grammar(
    {
        "SENTENCE": {"SINGULAR DOES": 3.0, "PLURAL DO": 2.0},
        "DOES": {
            "ACTS OBJECT": 5.0,
            "RESTS near OBJECT": 2.0,
            "is QUALITY": 2.0,
            "that ACTS OBJECT DOES": 1.0,
        },
        "DO": {"ACT OBJECT": 5.0, "REST near OBJECT": 2.0, "are QUALITY": 2.0, "that ACT OBJECT DO": 1.0},
        "OBJECT": {"SINGULAR": 3.0, "PLURAL": 2.0},
        "SINGULAR": {"ONE THING": 1.0},
        "PLURAL": {"MANY THINGS": 1.0},
        "ONE": _falling("the a this every"),
        "MANY": _falling("two these many three"),
        "THING": {"NOUN": 2.0, "QUALITY THING": 1.0},
        "THINGS": {"NOUNS": 2.0, "QUALITY THINGS": 1.0},
        "NOUN": _falling("sailor horse child river boat garden king bird teacher fox market soldier"),
        "NOUNS": _falling("horses sailors children boats rivers birds kings gardens foxes teachers soldiers"),
        "QUALITY": _falling("small red quiet tall brown young strange heavy sleepy jolly"),
        "ACTS": _falling("sees likes follows calls paints remembers questions"),
        "ACT": _falling("see like follow call paint remember question"),
        "RESTS": _falling("sleeps waits sings hides"),
        "REST": _falling("sleep wait sing hide"),
    }
)
