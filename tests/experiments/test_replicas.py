"""Replicates trained at once: equal seeds, separate memory, and the gradients of networks trained alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.problems import TRAINING_IMAGES, Characters, Digits, Problem
from experiments.replicas import Replicas, Seeds, generator
from experiments.text import ALPHABET

torch = pytest.importorskip("torch", reason="training needs the extra 'training': torch is absent")
pytest.importorskip("sklearn", reason="training needs the extra 'training': scikit-learn is absent")

SMALL = Characters(batch=3, context=7, width=8, heads=2, layers=2)
NOISY = Digits(batch=16, label_noise=0.3, gradient_noise=0.05)
BOTH = pytest.mark.parametrize("problem", [NOISY, SMALL], ids=["digits", "characters"])


def descend(replicas: Replicas, steps: int, rate: float = 0.1) -> list[Any]:
    """Plain gradient descent; the losses of every step."""
    losses = []
    for step in range(steps):
        losses.append(replicas.backward(step))
        with torch.no_grad():
            for tensor in replicas.stacked:
                tensor -= rate * tensor.grad
    return losses


def alone(problem: Problem, tensors: Sequence[Any]) -> Any:
    """The network of one replicate, in torch's own modules, as a function of a batch."""
    if isinstance(problem, Digits):
        weight, bias, head, offset = tensors
        return lambda x: ((x @ weight + bias).relu()) @ head + offset
    assert isinstance(problem, Characters)
    symbols, positions, *rest = tensors
    blocks = []
    for first in range(0, 12 * problem.layers, 12):
        g1, s1, wq, bq, wo, bo, g2, s2, w1, b1, w2, b2 = rest[first : first + 12]
        block = torch.nn.TransformerEncoderLayer(
            problem.width, problem.heads, 2 * problem.width, 0.0, batch_first=True, norm_first=True
        )
        names = {
            "self_attn.in_proj_weight": wq.T,
            "self_attn.in_proj_bias": bq,
            "self_attn.out_proj.weight": wo.T,
            "self_attn.out_proj.bias": bo,
            "linear1.weight": w1.T,
            "linear1.bias": b1,
            "linear2.weight": w2.T,
            "linear2.bias": b2,
            "norm1.weight": g1,
            "norm1.bias": s1,
            "norm2.weight": g2,
            "norm2.bias": s2,
        }
        assert names.keys() == dict(block.named_parameters()).keys()
        blocks.append((block, names))
    scale, shift, head, offset = rest[12 * problem.layers :]

    def answer(tokens: Any) -> Any:
        x = symbols[tokens] + positions
        mask = torch.nn.Transformer.generate_square_subsequent_mask(problem.context, dtype=x.dtype)
        for block, names in blocks:
            x = torch.func.functional_call(block, names, (x,), {"src_mask": mask, "is_causal": True})
        return torch.nn.functional.layer_norm(x, (problem.width,), scale, shift) @ head + offset

    return answer


def gradients_alone(
    problem: Problem, tensors: Sequence[Any], inputs: Any, targets: Any
) -> tuple[Any, list[Any]]:
    own = [tensor.detach().clone().double().requires_grad_() for tensor in tensors]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    logits = alone(problem, own)(inputs)
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
    return loss.detach(), list(torch.autograd.grad(loss, own))


def batches(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, replicas: Replicas, step: int
) -> tuple[Any, Any]:
    """Inputs and targets that the loss was taken of at this step."""
    seen: list[Any] = []
    differentiate = replicas._differentiate
    monkeypatch.setattr(
        replicas, "_differentiate", lambda *batch: seen.append(batch) or differentiate(*batch)
    )
    replicas.backward(step)
    (batch,) = seen
    return batch


@BOTH
@pytest.mark.parametrize("company", [[5], [5, 5], [0, 5, 7, 5, 1], [7, 1, 5]])
def test_equal_seeds_have_equal_numbers_in_any_company(
    problem: Problem, company: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, replicas = problem.start([3, 5]), problem.start(company)
    mine = [r for r, seed in enumerate(company) if seed == 5]
    for r in mine:
        for one, other in zip(reference.parameters[1], replicas.parameters[r], strict=True):
            assert torch.equal(one, other)
    for step in (0, 1, 999, 1000):
        expected = batches(problem, monkeypatch, reference, step)
        drawn = batches(problem, monkeypatch, replicas, step)
        monkeypatch.undo()
        for r in mine:
            assert all(torch.equal(a[1], b[r]) for a, b in zip(expected, drawn, strict=True))
            assert not any(torch.equal(a[0], b[r]) for a, b in zip(expected, drawn, strict=True))


@BOTH
def test_equal_seeds_train_alike_in_any_company_to_rounding(problem: Problem) -> None:
    one, other = problem.start([5]), problem.start([0, 5, 7, 5, 1])
    losses = [torch.stack(descend(replicas, 40)) for replicas in (one, other)]
    torch.testing.assert_close(losses[0].expand(-1, 2), losses[1][:, [1, 3]], rtol=1e-4, atol=1e-6)
    for tensor, several in zip(one.stacked, other.stacked, strict=True):
        torch.testing.assert_close(several[[1, 3]], tensor.expand(2, *tensor.shape[1:]), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(losses[1][:, 0], losses[1][:, 1], rtol=1e-2)


@BOTH
def test_one_company_trains_bit_for_bit_the_same_again(problem: Problem) -> None:
    first, second = (problem.start([2, 4]) for _ in range(2))
    assert torch.equal(torch.stack(descend(first, 20)), torch.stack(descend(second, 20)))
    assert all(torch.equal(a, b) for a, b in zip(first.stacked, second.stacked, strict=True))


@pytest.mark.parametrize("problem", [Digits(batch=16, label_noise=0.3), SMALL], ids=["digits", "characters"])
def test_gradients_are_those_of_each_network_alone(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    replicas = problem.start([4, 0, 4, 9])
    descend(replicas, 5)
    inputs, targets = batches(problem, monkeypatch, replicas, 6)
    losses = replicas.backward(6)
    for r, tensors in enumerate(replicas.parameters):
        loss, expected = gradients_alone(problem, tensors, inputs[r], targets[r])
        torch.testing.assert_close(losses[r].double(), loss, rtol=1e-5, atol=0.0)
        for tensor, gradient in zip(tensors, expected, strict=True):
            # Absolute for coordinates in which the samples cancel: float32 rounds each of them.
            torch.testing.assert_close(tensor.grad.double(), gradient, rtol=1e-5, atol=3e-7)


@pytest.mark.parametrize("seeds", [[1, 6, 1], [1] * 70])  # the second in several chunks
def test_full_gradient_is_the_mean_over_all_training_images(seeds: list[int]) -> None:
    replicas, plain = NOISY.start(seeds), Digits(batch=TRAINING_IMAGES, label_noise=0.3).start(seeds)
    replicas.backward(0)
    before = [tensor.grad.clone() for tensor in replicas.stacked]
    full = replicas.gradient()
    plain.backward(0)
    for gradient, tensor, held, own in zip(full, plain.stacked, before, replicas.stacked, strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=1e-4, atol=1e-6)
        assert gradient.shape == own.shape
        assert torch.equal(own.grad, held)
        assert not torch.allclose(held, gradient, atol=1e-3)


def test_full_gradient_of_a_text_is_that_of_its_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.problems.TRAINING_TEXT", 400)
    from experiments.problems import _characters

    _characters.cache_clear()
    try:
        replicas = SMALL.start([1, 2])
        whole = Characters(batch=393, context=7, width=8).start([1, 2])
    finally:
        _characters.cache_clear()
    monkeypatch.setattr("experiments.replicas.ROWS_PER_CHUNK", 1000)
    whole.backward(0)
    for gradient, tensor in zip(replicas.gradient(), whole.stacked, strict=True):
        torch.testing.assert_close(gradient, tensor.grad, rtol=1e-4, atol=1e-6)


@BOTH
def test_a_replicates_tensors_are_views_into_the_stacked_ones(problem: Problem) -> None:
    replicas = problem.start([3, 1])
    stacks = [(tensor.data_ptr(), tensor.grad.data_ptr()) for tensor in replicas.stacked]
    for step in range(2):
        replicas.backward(step)
        assert [(tensor.data_ptr(), tensor.grad.data_ptr()) for tensor in replicas.stacked] == stacks
        for r, tensors in enumerate(replicas.parameters):
            for tensor, stacked in zip(tensors, replicas.stacked, strict=True):
                assert tensor.is_leaf
                assert tensor.is_contiguous()
                assert tensor.data_ptr() == stacked[r].data_ptr()
                assert tensor.grad.data_ptr() == stacked.grad[r].data_ptr()
                assert torch.equal(tensor.grad, stacked.grad[r])
                assert tensor.grad.abs().max() > 0.0


@BOTH
@pytest.mark.parametrize("set_to_none", [True, False])
def test_an_optimiser_with_a_group_per_replicate_steps_each_as_if_alone(
    problem: Problem, set_to_none: bool
) -> None:
    rates = [1e-2, 1e-3, 0.0]
    replicas = problem.start([3, 3, 8])
    groups = [{"params": tensors, "lr": lr} for tensors, lr in zip(replicas.parameters, rates, strict=True)]
    together = torch.optim.AdamW(groups, weight_decay=0.1)
    before = [tensor.detach().clone() for tensor in replicas.stacked]
    references = [problem.start([seed]) for seed in (3, 3, 8)]
    apart = [
        torch.optim.AdamW(each.stacked, lr=lr, weight_decay=0.1)
        for each, lr in zip(references, rates, strict=True)
    ]
    for step in range(5):
        together.zero_grad(set_to_none=set_to_none)
        replicas.backward(step)
        together.step()
        for each, optimiser in zip(references, apart, strict=True):
            each.backward(step)
            optimiser.step()
    for k, tensor in enumerate(replicas.stacked):
        assert torch.equal(tensor[2], before[k][2])  # its learning rate is 0
        for r, each in enumerate(references):
            # Adam turns the sign of a gradient near 0 into a whole step of the learning rate: hence the mean.
            assert (tensor[r] - each.stacked[k][0]).abs().mean() <= 0.02 * rates[r]
        moved = [(tensor[r] - before[k][r]).abs().mean() for r in (0, 1)]
        assert moved[0] > 4.0 * moved[1] > 0.0


@BOTH
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_a_replicate_that_diverged_touches_no_other(problem: Problem, bad: float) -> None:
    replicas, sound = problem.start([3, 1, 8]), problem.start([3, 1, 8])
    with torch.no_grad():
        for tensor in replicas.parameters[1]:
            tensor.fill_(bad)
    ours, theirs = descend(replicas, 3), descend(sound, 3)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
    assert torch.isnan(replicas.parameters[1][0]).any()
    for tensor, other in zip(replicas.stacked, sound.stacked, strict=True):
        assert torch.equal(tensor[[0, 2]], other[[0, 2]])
    losses, expected = replicas.losses("test"), sound.losses("test")
    assert np.isnan(losses[1])
    np.testing.assert_array_equal(losses[[0, 2]], expected[[0, 2]])
    if isinstance(problem, Digits):
        for gradient, other in zip(replicas.gradient(), sound.gradient(), strict=True):
            assert torch.equal(gradient[[0, 2]], other[[0, 2]])


@BOTH
def test_losses_and_accuracy_are_those_of_each_network_alone(problem: Problem) -> None:
    replicas = problem.start([3, 1])
    descend(replicas, 30)
    held = {part: getattr(replicas._data, part) for part in ("validation", "test")}
    for name, (inputs, targets) in held.items():
        losses, accuracy = replicas.losses(name), replicas.accuracy(name)  # type: ignore[arg-type]
        assert losses.dtype == np.float64
        assert losses.shape == accuracy.shape == (2,)
        for r, tensors in enumerate(replicas.parameters):
            with torch.no_grad():
                logits = alone(problem, tensors)(inputs).flatten(0, -2)
            expected = torch.nn.functional.cross_entropy(logits, targets.flatten()).item()
            assert losses[r] == pytest.approx(expected, rel=1e-5)
            right = (logits.argmax(1) == targets.flatten()).double().mean().item()
            assert accuracy[r] == pytest.approx(right, abs=2.0 / targets.numel())


def test_noise_of_the_gradient_has_its_sd_and_is_new_at_every_step() -> None:
    sd, seeds = 0.05, [2, 2, 6]
    noisy, plain = Digits(gradient_noise=sd).start(seeds), Digits().start(seeds)
    drawn = []
    for step in range(34):  # into a second block
        assert torch.equal(noisy.backward(step), plain.backward(step))
        pairs = zip(noisy.stacked, plain.stacked, strict=True)
        drawn.append(np.concatenate([(a.grad - b.grad).flatten(1).numpy() for a, b in pairs], axis=1))
    noise = np.stack(drawn).astype(np.float64) / sd
    np.testing.assert_allclose(noise[:, 0], noise[:, 1], atol=1e-5)
    distinct = noise[:, 1:].reshape(-1, noise.shape[-1])
    many = distinct.size
    assert abs(distinct.mean()) < 4.0 / np.sqrt(many)
    assert abs(np.square(distinct).mean() - 1.0) < 4.0 * np.sqrt(2.0 / many)
    correlation = np.corrcoef(distinct)[np.triu_indices(len(distinct), 1)]
    assert np.abs(correlation).max() < 5.5 / np.sqrt(noise.shape[-1])


@settings(deadline=None, max_examples=10)
@given(st.sampled_from([1, 4, 7, 32, 250]), st.integers(0, 3), st.integers(0, 2**63 - 1))
def test_minibatches_are_shuffled_passes_over_all_samples(batch: int, block: int, seed: int) -> None:
    replicas = Digits(batch=batch, hidden=1).start([seed])
    steps = range(1000 * block, 1000 * (block + 1))
    rows = np.concatenate([replicas._batches.at(step)[0] for step in steps])
    passes = rows.reshape(-1, TRAINING_IMAGES)
    assert (np.sort(passes, axis=1) == np.arange(TRAINING_IMAGES)).all()
    assert all((a != b).any() for a, b in pairwise(passes))


def test_steps_may_come_in_any_order() -> None:
    replicas = NOISY.start([4, 5])
    orders = ([0, 40, 1500, 3], [1500, 3, 40, 0])
    taken = [
        {step: (replicas.backward(step), replicas.stacked[0].grad.clone()) for step in o} for o in orders
    ]
    for step, (losses, gradient) in taken[0].items():
        assert torch.equal(losses, taken[1][step][0])
        assert torch.equal(gradient, taken[1][step][1])
    assert len({tuple(losses.tolist()) for losses, _ in taken[0].values()}) == 4


def test_random_numbers_differ_by_problem_seed_purpose_and_block() -> None:
    keys = [("Digits", 0, "noise", 0), ("Digits", 1, "noise", 0), ("Digits", 0, "weights", 0)]
    keys += [("Characters", 0, "noise", 0), ("Digits", 0, "noise", 1)]
    assert len({generator(*key).bytes(8) for key in keys}) == len(keys)
    assert generator(*keys[0]).bytes(8) == generator("Digits", 0, "noise").bytes(8)


def test_global_random_state_stays_as_it_is() -> None:
    state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    NOISY.start([1]).backward(0)
    assert torch.equal(torch.random.get_rng_state(), state[0])
    assert (np.random.get_state()[1] == state[1]).all()  # noqa: NPY002


@pytest.mark.parametrize("seeds", [[], [-1], [0, 1.5], [True], ["1"], [2**63]])
def test_seeds_that_are_none_are_refused_in_one_line(seeds: list[Any]) -> None:
    with pytest.raises(ValueError, match=r"^Digits: seeds=.* is not valid; seeds must be .*int.* >= 0$"):
        Digits().start(seeds)


@pytest.mark.parametrize("step", [-1, 0.5])
def test_steps_and_parts_that_are_none_are_refused_in_one_line(step: Any) -> None:
    replicas = SMALL.start([0])
    with pytest.raises(ValueError, match=rf"^backward: step={step} is not valid; step must be an int >= 0$"):
        replicas.backward(step)
    with pytest.raises(ValueError, match=r"^Replicas: part='train' .* must be one of validation, test$"):
        replicas.losses("train")  # type: ignore[arg-type]


def test_seeds_keep_their_order_and_repetitions() -> None:
    seeds = Seeds("Digits", np.array([9, 2, 9]))  # type: ignore[arg-type]
    assert seeds.distinct == (2, 9)
    assert [seeds.distinct[i] for i in seeds.position] == [9, 2, 9]
    assert len(ALPHABET) == len(set(ALPHABET)) < 40
