"""The training problems: their data, the noise of labels, the text with its entropy, and what is learnt."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from experiments import problems
from experiments.problems import Characters, Digits
from experiments.text import ALPHABET, ENGLISH, Grammar


@pytest.fixture
def torch() -> Any:
    pytest.importorskip("sklearn", reason="training needs the extra 'training': scikit-learn is absent")
    return pytest.importorskip("torch", reason="training needs the extra 'training': torch is absent")


def surprise(grammar: Grammar, words: list[str]) -> float:
    """-log probability of a sentence, by the only alternative whose first word fits; no word may be left."""
    nats, pending, left = 0.0, [next(iter(grammar.rules))], list(words)
    while pending:
        item = pending.pop()
        if item in grammar.rules:
            alternatives = grammar.rules[item]
            (fitting,) = (a for a in alternatives if left[0] in openings(grammar, a.split()[0]))
            nats -= math.log(alternatives[fitting] / sum(alternatives.values()))
            pending.extend(fitting.split()[::-1])
        else:
            assert left.pop(0) == item
    assert not left
    return nats


def openings(grammar: Grammar, item: str) -> set[str]:
    if item not in grammar.rules:
        return {item}
    return {word for alternative in grammar.rules[item] for word in openings(grammar, alternative.split()[0])}


def test_text_is_deterministic_and_of_the_stated_alphabet() -> None:
    texts = [ENGLISH.text(100_000, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert {len(text) for text in texts} == {100_000}
    assert set(texts[0]) <= set(ALPHABET)
    assert len(ALPHABET) == len(set(ALPHABET)) < 40
    assert ENGLISH.text(500, np.random.default_rng(1)) == texts[0][:500]
    assert ENGLISH.text(0, np.random.default_rng(1)) == ""


def test_alternatives_start_with_different_words_so_that_sentences_have_one_derivation() -> None:
    for alternatives in ENGLISH.rules.values():
        firsts = Counter(w for a in alternatives for w in openings(ENGLISH, a.split()[0]))
        assert set(firsts.values()) == {1}
        assert all(weight > 0.0 for weight in alternatives.values())


def test_entropy_rate_is_the_mean_surprise_of_sentences() -> None:
    sentences = ENGLISH.text(600_000, np.random.default_rng(5)).split(". ")[:-1]
    nats = np.array([surprise(ENGLISH, sentence.split(" ")) for sentence in sentences])
    lengths = np.array([len(sentence) + 2 for sentence in sentences])
    rate = nats.sum() / lengths.sum()
    error = np.std(nats - rate * lengths) / np.sqrt(len(nats)) / lengths.mean()
    assert error < 0.002 * rate
    assert abs(rate - ENGLISH.entropy_rate()) < 4.0 * error


def test_entropy_rate_of_grammars_that_can_be_summed_by_hand() -> None:
    two_coins = Grammar({"S": {"A A": 1.0}, "A": {"heads": 3.0, "tails": 3.0}})
    assert two_coins.entropy_rate() == pytest.approx(2 * math.log(2) / len("heads tails. "), rel=1e-14)
    geometric = Grammar({"S": {"a": 3.0, "b S": 1.0}})  # 1/3 words b before the last
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / 0.75
    assert geometric.entropy_rate() == pytest.approx(entropy / (4.0 / 3.0 * 2.0 + 1.0), rel=1e-14)


def test_parts_of_the_digits_are_apart_and_hold_them_all(torch: Any) -> None:
    data = Digits().start([0])._data
    assert [len(x) for x in (data.inputs, data.validation.inputs, data.test.inputs)] == [1000, 297, 500]
    every = torch.cat([data.inputs, data.validation.inputs, data.test.inputs]).numpy()
    labels = torch.cat([data.targets[0], data.validation.targets, data.test.targets]).numpy()
    from experiments.recorder import load_training_set

    whole = load_training_set()
    key = sorted((row.tobytes(), int(label)) for row, label in zip(every, labels, strict=True))
    assert key == sorted((r.tobytes(), int(k)) for r, k in zip(whole.pixels, whole.labels, strict=True))
    for targets in (data.targets[0], data.validation.targets, data.test.targets):
        assert (np.bincount(targets, minlength=10) > 0.06 * len(targets)).all()
    assert torch.equal(Digits(batch=4, label_noise=0.5).start([7])._data.inputs, data.inputs)


def test_label_noise_replaces_its_share_of_training_labels_alone(torch: Any) -> None:
    clean = Digits().start([0])._data
    seeds = list(range(20))
    wrong = {}
    for share in (0.0, 0.1, 0.3, 1.0):
        data = Digits(label_noise=share).start(seeds)._data
        wrong[share] = (data.targets != clean.targets).numpy()
        assert (wrong[share].sum(axis=1) == round(1000 * share)).all()
        assert data.targets.min() >= 0
        assert data.targets.max() <= 9
        assert torch.equal(data.test.targets, clean.test.targets)
        assert torch.equal(data.validation.targets, clean.validation.targets)
    assert (wrong[0.3] >= wrong[0.1]).all()  # the same ones and more
    assert len({row.tobytes() for row in wrong[0.3]}) == len(seeds)
    shift = (Digits(label_noise=1.0).start(seeds)._data.targets - clean.targets) % 10
    counts = np.bincount(shift.flatten(), minlength=10)[1:]
    assert ((counts / counts.mean() - 1.0) ** 2).sum() * counts.mean() < 26.1  # chi square of 8 at 0.001


def test_equal_weights_whatever_the_batch_and_the_noise(torch: Any) -> None:
    one, other = Digits(batch=4).start([3]), Digits(batch=256, label_noise=0.2, gradient_noise=1.0).start([3])
    assert all(torch.equal(a, b) for a, b in zip(one.stacked, other.stacked, strict=True))
    assert [tuple(t.shape) for t in one.parameters[0]] == [(64, 32), (32,), (32, 10), (10,)]


@pytest.mark.parametrize(("inputs", "outputs"), [(0, 1), (2, 3)])
def test_first_weights_spread_as_torchs_own_linear_layers_do(torch: Any, inputs: int, outputs: int) -> None:
    stacked = Digits(hidden=25).start(range(50)).stacked
    fan = {0: 64, 2: 25}[inputs]
    for tensor in (stacked[inputs], stacked[outputs]):
        values = tensor.detach().numpy() * np.sqrt(fan)
        assert np.abs(values).max() <= 1.0
        assert abs(np.square(values).mean() * 3.0 - 1.0) < 4.0 * np.sqrt(0.8 / values.size)


def test_characters_are_those_of_texts_of_their_own(torch: Any) -> None:
    data = Characters(context=10).start([0])._data
    assert data.inputs.shape == (99_990, 10)
    assert torch.equal(data.inputs[1:], data.targets[0, :-1])
    texts = []
    for part, size in ((data.validation, 10_000), (data.test, 20_000)):
        assert part.inputs.shape == part.targets.shape == ((size - 1) // 10, 10)
        assert torch.equal(part.inputs[:, 1:], part.targets[:, :-1])
        assert torch.equal(part.inputs[1:, 0], part.targets[:-1, -1])
        texts.append("".join(ALPHABET[i] for i in part.inputs.flatten().tolist()))
    texts.append("".join(ALPHABET[i] for i in data.inputs[:, 0].tolist()))
    for text in texts:
        for sentence in text.split(". ")[:-1]:
            surprise(ENGLISH, sentence.split(" "))
    assert len({text[:2000] for text in texts}) == 3


def test_default_characters_are_a_network_of_twenty_thousand_parameters(torch: Any) -> None:
    assert sum(tensor.numel() for tensor in Characters().start([0]).parameters[0]) == 19_996


def test_no_character_is_told_of_those_behind_it(torch: Any) -> None:
    replicas = Characters(context=12, width=8).start([0, 1])
    tokens = torch.randint(0, 28, (2, 3, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, :, 7] = (changed[:, :, 7] + 1) % 28
    logits = replicas._network.logits
    before, after = (logits(replicas.stacked, given) for given in (tokens, changed))
    assert before.shape == (2, 3, 12, 28)
    assert torch.equal(before[:, :, :7], after[:, :, :7])
    assert ((before - after).abs().amax(-1)[:, :, 7:] > 0.0).all()


def train(torch: Any, replicas: Any, steps: int, rate: float) -> None:
    optimiser = torch.optim.AdamW(replicas.stacked, lr=rate, weight_decay=0.0)
    for step in range(steps):
        replicas.backward(step)
        optimiser.step()


@pytest.mark.slow
def test_digits_are_learnt_and_wrong_labels_and_noise_are_in_the_way(torch: Any) -> None:
    figures = {}
    for name, problem in {
        "clean": Digits(),
        "labels": Digits(label_noise=0.3),
        "gradient": Digits(gradient_noise=0.2),
    }.items():
        replicas = problem.start(range(8))
        assert replicas.losses("test") == pytest.approx(math.log(10.0), abs=0.3)
        train(torch, replicas, 1000, 3e-3)
        figures[name] = replicas.losses("test").mean(), replicas.accuracy("test").mean()
    assert figures["clean"][0] < 0.15
    assert figures["clean"][1] > 0.95
    for name in ("labels", "gradient"):
        assert figures[name][0] > 1.5 * figures["clean"][0]
        assert figures[name][1] > 0.75


@pytest.mark.slow
def test_characters_are_learnt_beyond_counts_of_pairs(torch: Any) -> None:
    problem = Characters()
    replicas = problem.start([0, 1])
    text = np.append(replicas._data.inputs[:, 0].numpy(), 0)
    pairs = np.zeros((28, 28))
    np.add.at(pairs, (text[:-2], text[1:-1]), 1.0)
    inputs, targets = (x.flatten().numpy() for x in replicas._data.test)
    single = pairs.sum(axis=0) / pairs.sum()
    after = (pairs + 0.01) / (pairs + 0.01).sum(axis=1, keepdims=True)
    unigram, bigram = -np.log(single[targets]).mean(), -np.log(after[inputs, targets]).mean()
    assert ENGLISH.entropy_rate() < bigram < unigram < math.log(28)
    start = replicas.losses("test")
    assert start == pytest.approx(math.log(28), abs=0.5)
    train(torch, replicas, 500, 5e-3)
    losses = replicas.losses("test")
    assert (losses < 0.8 * bigram).all()
    assert (losses > ENGLISH.entropy_rate()).all()
    assert (replicas.accuracy("test") > 0.6).all()


@pytest.mark.parametrize(
    ("problem", "field", "value"),
    [
        (Digits, "batch", 0),
        (Digits, "batch", 1001),
        (Digits, "batch", 2.0),
        (Digits, "hidden", 0),
        (Digits, "label_noise", 1.1),
        (Digits, "label_noise", [0.1, 0.2]),
        (Digits, "gradient_noise", -0.1),
        (Digits, "gradient_noise", math.nan),
        (Characters, "batch", True),
        (Characters, "context", 10_000),
        (Characters, "width", -1),
        (Characters, "heads", 3),
        (Characters, "layers", "two"),
    ],
)
def test_fields_out_of_range_are_refused_in_one_line(problem: Any, field: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^{problem.__name__}: {field}=.* is not valid; {field} must be "
    ) as e:
        problem(**{field: value})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("problem", "absent"), [(Digits(), "sklearn"), (Digits(), "torch"), (Characters(), "torch")]
)
def test_an_absent_extra_is_one_line_that_names_it(
    problem: Any, absent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems._digits.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == absent]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(
        ValueError, match=rf"^{type(problem).__name__} needs .*'kalmean\[training\]'$"
    ) as error:
        problem.start([0])
    assert "\n" not in str(error.value)


def test_modules_import_without_torch() -> None:
    script = "import sys, experiments.problems, experiments.replicas, experiments.text; "
    script += "print({'torch', 'sklearn'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_problems_are_compared_and_hashed_by_value() -> None:
    assert Digits(batch=4) == Digits(4) != Digits(8)
    assert len({Characters(), Characters(16), Characters(8)}) == 2
    assert all(a != b for a, b in pairwise([Digits(), Digits(hidden=3), Characters()]))
