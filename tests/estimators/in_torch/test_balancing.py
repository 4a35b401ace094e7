"""Weights of losses from the norms of their gradients: figures by hand, bounds, states, training itself."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

torch = pytest.importorskip("torch")

from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    KalmanBank,
    Log,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RunningMedian,
    SwitchingKalman,
)
from estimators.torch.balancing import (  # noqa: E402
    Balancer,
    EqualWeights,
    GradientBalancer,
    GradNorm,
    RandomWeights,
    gradient_norms,
)

SMOOTHERS: list[Any] = [
    EMA(0.99),
    EMA(0.9, initial=None),
    DebiasedEMA(0.99),
    EMAWithVariance(0.9),
    Kalman(q=1e-4, r=1.0),
    Kalman(q=1e-4, r=1.0, mean=0.0, variance=2.0),
    KalmanBank(),
    MehraKalman(),
    MovingAverage(7),
    RunningMedian(5),
    ResettingKalman(q=1e-4, r=1.0),
    SwitchingKalman(q=1e-4, r=1.0),
    Holt(0.2, 0.1),
    Log(EMA(0.9)),
]
BALANCERS: list[Any] = [
    lambda: GradientBalancer(2, warmup=3),
    lambda: GradNorm(2),
    lambda: RandomWeights(2),
    lambda: EqualWeights(2),
]


def of_raw(norms: Any, **settings: Any) -> Any:
    """Stats after one step in which the smoother is the sample itself."""
    balancer = GradientBalancer(len(norms), EMA(0.0), warmup=0, **settings)
    balancer.update(norms)
    return balancer.gradient_stats()


def stream(steps: int, tasks: int = 2, seed: int = 0) -> Any:
    """Norms that vary by factors around levels far apart."""
    rng = np.random.default_rng(seed)
    return np.exp(rng.normal(size=(steps, tasks)) + np.arange(tasks))


def means(smoother: Any, samples: Any) -> Any:
    online = smoother.tracker()
    return np.array([online.update(row) for row in samples])


def network(dtype: Any = None) -> tuple[Any, list[Any], Any, Any]:
    """A shared layer, two heads, images, and their losses as a function of nothing."""
    generator = torch.Generator().manual_seed(3)
    made = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 4), (2, 5), (1, 5))
    ]
    shared, *heads = (torch.nn.Parameter(one.to(dtype or torch.float64)) for one in made)
    x = torch.randn((6, 4), generator=generator, dtype=torch.float64).to(shared.dtype)

    def losses() -> list[Any]:
        hidden = torch.tanh(x @ shared.T)
        return [(hidden @ heads[0].T).square().mean(), 100.0 * (hidden @ heads[1].T - 1.0).square().mean()]

    return shared, heads, x, losses


# --- rules --------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=6))
def test_inverse_norms_make_every_contribution_the_same(norms: list[float]) -> None:
    raw = of_raw(norms, floor=0.0).raw.numpy()
    inverse = 1.0 / np.array(norms)
    np.testing.assert_allclose(raw, inverse / inverse.sum(), rtol=1e-13)
    contributions = raw * norms
    np.testing.assert_allclose(contributions, contributions[0], rtol=1e-13)


@given(st.lists(st.floats(1e-300, 1e300), min_size=2, max_size=2))
def test_both_rules_agree_for_two_tasks(norms: list[float]) -> None:
    inverse, others = (of_raw(norms, rule=rule).raw.numpy() for rule in ("inverse_norm", "sum_of_others"))
    np.testing.assert_allclose(inverse, others, rtol=1e-13, atol=1e-299)


def test_the_two_rules_differ_for_three_tasks() -> None:
    norms = np.array([5.0, 1.0, 0.01])
    inverse, others = (of_raw(norms, rule=rule).raw.numpy() for rule in ("inverse_norm", "sum_of_others"))
    np.testing.assert_allclose(inverse * norms, 0.00988, atol=5e-6)
    np.testing.assert_allclose(others * norms, [0.420, 0.417, 0.0050], atol=5e-4)
    total = norms.sum()
    np.testing.assert_allclose(others, (total - norms) / (2.0 * total), rtol=1e-13)


# --- floor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "low"), [(500.0, 0.0477097419), (100.0, 0.0480723465), (300.0, 15.05 / 315.05)]
)
def test_floor_and_renormalisation_at_the_figures_of_the_book(ratio: float, low: float) -> None:
    found = of_raw([ratio, 1.0]).weights.tolist()
    assert found == pytest.approx([low, 1.0 - low], abs=5e-11)
    assert of_raw([ratio, 1.0], floor_mode="project").weights.tolist() == pytest.approx(
        [0.05, 0.95], abs=1e-15
    )


def test_the_floor_binds_beyond_a_ratio_of_19_alone() -> None:
    for ratio, binds in ((18.999, False), (19.001, True)):
        stats = of_raw([ratio, 1.0])
        assert bool((stats.smoothed < 0.05).any()) is binds
        assert torch.equal(stats.smoothed, stats.weights) is not binds


NORM = st.one_of(
    st.floats(0.0, 1.7e308), st.sampled_from([0.0, 5e-324, 1e-300, 1e300, 1.7e308, np.nan, np.inf])
)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.lists(st.lists(NORM, min_size=k, max_size=k), min_size=1, max_size=6)
    ),
    st.one_of(st.floats(0.0, 1.0), st.just(1.0)),
    st.sampled_from(["clip", "project"]),
    st.sampled_from(["inverse_norm", "sum_of_others"]),
    st.sampled_from(["weight", "log"]),
    st.sampled_from(SMOOTHERS[:-1]),
)
def test_weights_are_on_the_simplex_and_above_the_bound_whatever_comes(
    norms: list[list[float]], part: float, mode: str, rule: str, domain: str, smoother: Any
) -> None:
    tasks = len(norms[0])
    floor = min(part / tasks, np.nextafter(1.0 / tasks, 0.0))
    balancer = GradientBalancer(tasks, smoother, floor, warmup=0, rule=rule, domain=domain, floor_mode=mode)
    bound = floor / (1.0 + (tasks - 1) * floor) if mode == "clip" else floor
    for row in norms:
        weights = balancer.update(row).numpy()
        assert weights.sum() == pytest.approx(1.0, abs=1e-12)
        assert (weights >= bound * (1.0 - 1e-12)).all()
        stats = balancer.gradient_stats()
        assert stats.smoothed.sum().item() == pytest.approx(1.0, abs=1e-12)
        assert (stats.smoothed.numpy() >= 0.0).all()


def test_the_bound_of_clipping_is_reached() -> None:
    found = of_raw([1.0, 1e30, 1e30], floor=0.1).weights.numpy()
    np.testing.assert_allclose(found, [1.0 / 1.2, 0.1 / 1.2, 0.1 / 1.2], rtol=1e-12)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=6), st.floats(0.0, 0.99))
def test_projection_keeps_ratios_above_the_floor_and_moves_nothing_that_is_valid(
    norms: list[float], part: float
) -> None:
    floor = part / len(norms)
    stats = of_raw(norms, floor=floor, floor_mode="project")
    weights, before = stats.weights.numpy(), stats.smoothed.numpy()
    above = weights > floor
    ratios = weights[above] / before[above]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-12)
    assert ratios[0] <= 1.0 + 1e-12
    again = of_raw(1.0 / weights, floor=floor * (1.0 - 1e-12), floor_mode="project")
    np.testing.assert_allclose(again.weights.numpy(), weights, rtol=1e-9)


# --- warm-up and smoothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["weight", "log"])
@pytest.mark.parametrize("smoother", SMOOTHERS[:-1], ids=repr)
def test_warm_up_gives_equal_weights_and_leaves_the_smoother_alone(smoother: Any, domain: str) -> None:
    balancer = GradientBalancer(3, smoother, warmup=4, domain=domain)
    fresh = copy.deepcopy(balancer.state_dict())
    for row in stream(4, 3):
        assert balancer.update(row).tolist() == [1.0 / 3.0] * 3
    smoothers = [name for name in fresh if name.startswith("smoother_")]
    assert smoothers
    for name in smoothers:
        assert torch.equal(torch.nan_to_num(balancer.state_dict()[name]), torch.nan_to_num(fresh[name])), name
    late = GradientBalancer(3, smoother, warmup=0, domain=domain)
    for row in stream(20, 3, seed=1):
        assert torch.equal(balancer.update(row), late.update(row))
    assert balancer.gradient_stats().weights.tolist() != [1.0 / 3.0] * 3


def test_the_default_takes_233_steps_to_the_floor_and_448_back() -> None:
    balancer = GradientBalancer(2)
    for _ in range(100):
        balancer.update([500.0, 1.0])
    steps = 0
    while balancer.gradient_stats().smoothed[0] > 0.05:
        balancer.update([500.0, 1.0])
        steps += 1
    assert steps == 233
    balancer = GradientBalancer(2, warmup=0)
    for _ in range(5000):
        balancer.update([19.0, 1.0])
    assert balancer.gradient_stats().smoothed[0].item() == pytest.approx(0.05, abs=1e-12)
    steps = 0
    while balancer.gradient_stats().smoothed[0] < 0.495:
        balancer.update([1.0, 1.0])
        steps += 1
    assert steps == 448


@pytest.mark.parametrize("smoother", SMOOTHERS, ids=repr)
def test_the_weight_domain_runs_the_smoother_on_the_shares(smoother: Any) -> None:
    norms = stream(40, 3)
    balancer = GradientBalancer(3, smoother, floor=0.0, warmup=0)
    found = np.array([balancer.update(row).numpy() for row in norms])
    inverse = 1.0 / norms
    shares = inverse / inverse.sum(axis=1, keepdims=True)
    if isinstance(smoother, Log):
        smoother = Log(dataclasses.replace(smoother.estimator, initial=np.log(1.0 / 3.0)))
    elif getattr(smoother, "initial", None) is not None:
        smoother = dataclasses.replace(smoother, initial=1.0 / 3.0)
    elif isinstance(smoother, Kalman):
        smoother = dataclasses.replace(smoother, mean=1.0 / 3.0)
    expected = np.maximum(means(smoother, shares), 0.0)
    np.testing.assert_allclose(found, expected / expected.sum(axis=1, keepdims=True), rtol=1e-9)


@pytest.mark.parametrize("smoother", SMOOTHERS[:-1], ids=repr)
def test_the_log_domain_runs_it_on_the_logarithms_of_the_norms(smoother: Any) -> None:
    norms = stream(40, 3)
    balancer = GradientBalancer(3, smoother, floor=0.0, warmup=0, domain="log")
    found = np.array([balancer.update(row).numpy() for row in norms])
    inverse = np.exp(-means(smoother, np.log(norms)))
    np.testing.assert_allclose(found, inverse / inverse.sum(axis=1, keepdims=True), rtol=1e-9)


def test_smoothed_shares_lie_above_the_share_of_the_median_and_smoothed_logarithms_do_not() -> None:
    normal = ndtri((np.random.default_rng(5).permutation(2000) + 0.5) / 2000)
    norms = np.stack([500.0 * np.exp(1.3 * normal), np.ones(2000)], axis=1)
    shares = {}
    for domain in ("weight", "log"):
        balancer = GradientBalancer(2, Kalman(q=0.0, r=1.0), floor=0.0, warmup=0, domain=domain)
        for row in norms:
            balancer.update(row)
        shares[domain] = balancer.gradient_stats().smoothed[0].item()
    assert shares["weight"] == pytest.approx(0.00454, rel=0.01)
    assert shares["log"] == pytest.approx(1.0 / 501.0, rel=1e-9)


# --- missing norms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("domain", ["weight", "log"])
def test_a_norm_of_nothing_is_missing_for_its_task_alone(nothing: float, domain: str) -> None:
    balancer = GradientBalancer(3, EMA(0.9), floor=0.0, warmup=0, domain=domain)
    for row in stream(50, 3):
        balancer.update(row)
    before = balancer.gradient_stats().smoothed
    balancer.update([1.0, nothing, 0.01])
    stats = balancer.gradient_stats()
    assert torch.isnan(stats.norms).tolist() == torch.isnan(stats.raw).tolist() == [False, True, False]
    assert stats.smoothed[2] > before[2]
    assert stats.smoothed[0] < before[0]
    if domain == "weight":
        assert stats.smoothed[1].item() == pytest.approx(before[1].item(), rel=1e-12)
        assert stats.raw[[0, 2]].sum().item() == pytest.approx(1.0 - before[1].item(), rel=1e-12)


@pytest.mark.parametrize("smoother", [EMA(0.9), DebiasedEMA(0.9), MovingAverage(3), KalmanBank()], ids=repr)
@pytest.mark.parametrize("domain", ["weight", "log"])
def test_of_two_tasks_one_norm_alone_tells_nothing_of_the_shares(smoother: Any, domain: str) -> None:
    balancer = GradientBalancer(2, smoother, floor=0.0, warmup=0, domain=domain)
    assert balancer.update([np.nan, 0.0]).tolist() == [0.5, 0.5]
    if domain == "weight":
        for row in stream(1):
            balancer.update(row)
        before = balancer.update([4.0, 1.0])
        held = balancer.update([1e-3, np.nan])
        if isinstance(smoother, EMA | DebiasedEMA):  # others forget, or doubt
            np.testing.assert_allclose(held.numpy(), before.numpy(), rtol=1e-12)
    assert balancer.update([np.nan, np.nan]).sum().item() == pytest.approx(1.0, abs=1e-15)


# --- training -----------------------------------------------------------------------------------------------


def test_norms_are_those_of_the_gradients() -> None:
    shared, _, _, losses = network()
    found = gradient_norms(losses(), shared)
    expected = [torch.autograd.grad(losses()[i], shared)[0].norm().item() for i in range(2)]
    np.testing.assert_allclose(found.tolist(), expected, rtol=1e-14)
    assert not found.requires_grad


def test_the_loss_is_the_weighted_sum_and_so_are_its_gradients() -> None:
    shared, heads, _, losses = network()
    balancer = GradientBalancer(2, EMA(0.5), warmup=0)
    parts = losses()
    loss = balancer(parts, [shared])
    weights = balancer.weights.tolist()
    assert [one.item() for one in torch.autograd.grad(loss, parts, retain_graph=True)] == weights
    assert loss.item() == pytest.approx(sum(w * one.item() for w, one in zip(weights, losses(), strict=True)))
    loss.backward()
    separate = [torch.autograd.grad(losses()[i], [shared, *heads], allow_unused=True) for i in range(2)]
    for parameter, first, second in zip([shared, *heads], *separate, strict=True):
        parts = [w * g for w, g in zip(weights, (first, second), strict=True) if g is not None]
        np.testing.assert_allclose(parameter.grad.numpy(), sum(parts).numpy(), rtol=1e-12)


@pytest.mark.parametrize("make", BALANCERS)
def test_one_further_backward_pass_per_task_at_most(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, _, _, losses = network()
    balancer, calls, real = make(), [], torch.autograd.grad

    def counted(*given: Any, **more: Any) -> Any:
        calls.append(1)
        return real(*given, **more)

    monkeypatch.setattr(torch.autograd, "grad", counted)
    for _ in range(5):
        balancer(losses(), [shared]).backward()
    assert len(calls) == (10 if balancer.needs else 0)


@pytest.mark.slow
@pytest.mark.parametrize("make", BALANCERS)
def test_nothing_grows_over_10000_steps(make: Any) -> None:
    shared = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    balancer = make()

    def live() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())

    counts = []
    for _ in range(2):
        for _ in range(5000):
            balancer([shared[0] ** 2, (shared[1] * shared[0]) ** 2], shared)
        counts.append(live())
    assert counts[0] == counts[1]
    assert int(balancer.steps) == 10_000
    for name, buffer in balancer.named_buffers():
        assert not buffer.requires_grad, name
        assert buffer.grad_fn is None, name
    assert list(balancer.parameters()) == []


def test_tasks_may_leave_shared_parameters_unused() -> None:
    first, second = (torch.nn.Parameter(torch.tensor(value)) for value in (3.0, 2.0))
    frozen = torch.nn.Parameter(torch.tensor(1.0), requires_grad=False)
    balancer = GradientBalancer(3, EMA(0.0), floor=0.0, warmup=0)
    losses = [4.0 * first * frozen, 3.0 * first + 4.0 * second, torch.tensor(7.0)]
    loss = balancer(losses, iter([first, second, frozen]))
    stats = balancer.gradient_stats()
    assert stats.norms[:2].tolist() == pytest.approx([4.0, 5.0])
    assert torch.isnan(stats.norms[2])
    loss.backward()
    assert first.grad is not None


def test_infinite_and_missing_gradients_leave_the_weights_on_the_simplex() -> None:
    shared = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    balancer = GradientBalancer(2, warmup=0)
    for factor in (np.nan, np.inf, 1.0):
        balancer([shared[0] * factor, shared[1]], shared)
        assert balancer.weights.sum().item() == pytest.approx(1.0)
        assert torch.isnan(balancer.gradient_stats().norms[0]).item() is (factor != 1.0)


def test_losses_scaled_in_common_are_weighed_the_same() -> None:
    shared, _, _, losses = network()
    found = []
    for scale in (1.0, 2.0**16):
        balancer = GradientBalancer(2, EMA(0.0), warmup=0)
        balancer([scale * loss for loss in losses()], shared)
        found.append(balancer.weights)
    assert torch.equal(*found)


def test_gradients_in_half_precision_do_not_vanish() -> None:
    shared = torch.nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float16))
    balancer = GradientBalancer(2, EMA(0.0), floor=0.0, warmup=0)
    balancer([shared[0] * 1e-6, shared[1] * 3e-6], shared)
    assert balancer.weights.tolist() == pytest.approx([0.75, 0.25], rel=0.03)


def test_it_runs_under_autocast() -> None:
    shared, _, _, losses = network(torch.float32)
    plain, cast = (GradientBalancer(2, EMA(0.0), warmup=0) for _ in range(2))
    plain(losses(), shared)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cast(losses(), shared)
    loss.backward()
    assert torch.isfinite(shared.grad).all()
    np.testing.assert_allclose(cast.weights.numpy(), plain.weights.numpy(), rtol=0.05)
    assert cast.weights.dtype == torch.float64


def test_a_callers_own_norms_in_any_form() -> None:
    forms: list[Any] = [
        [2.0, 3.0],
        (2, 3),
        np.array([2.0, 3.0], np.float32),
        torch.tensor([2.0, 3.0], dtype=torch.bfloat16, requires_grad=True),
        [torch.tensor(2.0, requires_grad=True), torch.tensor(3.0, dtype=torch.float64)],
    ]
    for form in forms:
        balancer = GradientBalancer(2, EMA(0.0), warmup=0)
        weights = balancer.update(form)
        assert weights.tolist() == pytest.approx([0.6, 0.4], rel=1e-15)
        assert not weights.requires_grad
        weights.zero_()  # a copy: what is remembered stays
        assert balancer.weights.tolist() == pytest.approx([0.6, 0.4], rel=1e-15)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_cuda_device() -> None:
    shared, heads, x, _ = network(torch.float32)
    device = torch.device("cuda")
    inside, first, second, x = (one.detach().to(device).requires_grad_() for one in (shared, *heads, x))
    balancer = GradientBalancer(2, EMA(0.0), warmup=0).to(device)
    hidden = torch.tanh(x @ inside.T)
    loss = balancer([(hidden @ first.T).square().mean(), (hidden @ second.T).square().mean()], inside)
    loss.backward()
    assert loss.device.type == "cuda"
    assert balancer.weights.device.type == "cpu"
    assert torch.isfinite(inside.grad).all()


# --- states -------------------------------------------------------------------------------------------------


def same(one: Any, other: Any) -> None:
    for (name, first), (_, second) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=name)


def resumed(balancer: Any, again: Any, how: str) -> Any:
    if how == "deepcopy":
        return copy.deepcopy(balancer)
    file = io.BytesIO()
    torch.save(balancer.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True), assign=how == "assign")
    return again


@pytest.mark.parametrize("how", ["load", "assign", "deepcopy"])
@pytest.mark.parametrize("domain", ["weight", "log"])
@pytest.mark.parametrize("smoother", SMOOTHERS[:-1], ids=repr)
def test_a_resumed_run_goes_on_bit_for_bit(smoother: Any, domain: str, how: str) -> None:
    def make() -> Any:
        return GradientBalancer(3, smoother, warmup=2, domain=domain)

    unbroken, norms = make(), stream(40, 3)
    norms[5, 1] = np.nan
    for row in norms[:20]:
        unbroken.update(row)
    again = resumed(unbroken, make(), how)
    same(unbroken, again)
    for row in norms[20:]:
        assert torch.equal(unbroken.update(row), again.update(row))
    same(unbroken, again)


@pytest.mark.parametrize("how", ["load", "assign", "deepcopy"])
@pytest.mark.parametrize("make", BALANCERS)
def test_controls_resume_bit_for_bit(make: Any, how: str) -> None:
    unbroken, norms = make(), stream(40)
    for row in norms[:20]:
        unbroken.update(row, row)
    again = resumed(unbroken, make(), how)
    for row in norms[20:]:
        assert torch.equal(unbroken.update(row, row), again.update(row, row))
    same(unbroken, again)


@pytest.mark.parametrize("make", BALANCERS)
def test_buffers_stay_double_on_the_host_whatever_the_model_becomes(make: Any) -> None:
    balancer, kept = make(), make()
    model = torch.nn.ModuleDict({"balancer": balancer, "layer": torch.nn.Linear(2, 2)})
    for step, row in enumerate(stream(20)):
        if step == 5:
            model.half()
        elif step == 10:
            model.to(torch.bfloat16)
        elif step == 15:
            model.float().to("cpu")
        assert torch.equal(balancer.update(row, row), kept.update(row, row))
    same(balancer, kept)
    dtypes = {name: buffer.dtype for name, buffer in balancer.named_buffers()}
    assert dtypes.pop("steps") == torch.int64
    assert set(dtypes.values()) == {torch.float64}


def test_a_state_assigned_in_another_type_or_shared_is_copied_as_double() -> None:
    saved, balancer = GradientBalancer(2, warmup=0), GradientBalancer(2, warmup=0)
    saved.update([4.0, 1.0])
    state = saved.state_dict()
    cast = {name: value.float() if name == "weights" else value for name, value in state.items()}
    balancer.load_state_dict(cast, assign=True)
    balancer.update([1.0, 9.0])
    assert balancer.weights.dtype == torch.float64
    assert torch.equal(saved.update([1.0, 9.0]), balancer.weights)


def test_inside_a_model_the_state_is_the_models() -> None:
    def model() -> Any:
        return torch.nn.ModuleDict({"balancer": GradientBalancer(2, KalmanBank(), warmup=0)})

    one, other = model(), model()
    for row in stream(5):
        one["balancer"].update(row)
    other.load_state_dict(one.state_dict())
    same(one, other)


@pytest.mark.parametrize(
    ("saved", "told"),
    [
        (GradientBalancer(2, DebiasedEMA(0.99)), r"smoother=DebiasedEMA\(beta=0.99\), not EMA\(beta=0.99, "),
        (GradientBalancer(2, EMA(0.9)), r"smoother=EMA\(beta=0.9, initial=0.0\), not EMA\(beta=0.99, "),
        (GradientBalancer(2, KalmanBank()), r"smoother=KalmanBank\("),
        (GradientBalancer(2, floor=0.1), r"floor=0.1, not 0.05$"),
        (GradientBalancer(3), r"n_tasks=3, not 2$"),
        (GradientBalancer(2, domain="log"), r"domain='log', not 'weight'$"),
        (GradNorm(2), r"balancer='GradNorm', not 'GradientBalancer'"),
    ],
)
def test_a_state_of_other_settings_is_refused_in_one_line_and_changes_nothing(saved: Any, told: str) -> None:
    balancer, untouched = GradientBalancer(2), GradientBalancer(2)
    with pytest.raises(ValueError, match=told) as caught:
        balancer.load_state_dict(saved.state_dict())
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("GradientBalancer: the state was saved under ")
    same(balancer, untouched)


# --- controls -----------------------------------------------------------------------------------------------


def test_gradnorm_at_alpha_0_learns_the_inverse_norms() -> None:
    balancer, norms = GradNorm(3, alpha=0.0, lr=0.01), np.array([5.0, 1.0, 0.5])
    for _ in range(3000):
        weights = balancer.update(norms, [1.0, 1.0, 1.0])
    inverse = 1.0 / norms
    np.testing.assert_allclose(weights.numpy(), inverse / inverse.sum(), rtol=0.05)


def test_gradnorm_gives_more_to_the_task_that_lags() -> None:
    balancer = GradNorm(2)
    for step in range(200):
        weights = balancer.update([1.0, 1.0], [0.99**step, 0.999**step])
        assert weights.sum().item() == pytest.approx(1.0, abs=1e-15)
    assert weights[1] > 0.6


def test_gradnorm_goes_down_the_slope_of_its_sum_by_adam() -> None:
    balancer, norms, losses = GradNorm(3), stream(30, 3), 1.0 / stream(30, 3, seed=1)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.025)
    for norm, loss in zip(torch.tensor(norms), torch.tensor(losses / losses[0]), strict=True):
        weighted = torch.softmax(logits, 0) * norm
        level = weighted.mean().detach()
        target = level * (loss / loss.mean()) ** 1.5
        adam.zero_grad()
        ((weighted - target).abs().sum() / level).backward()
        adam.step()
    for norm, loss in zip(norms, losses, strict=True):
        found = balancer.update(norm, loss)
    np.testing.assert_allclose(found.numpy(), torch.softmax(logits, 0).detach().numpy(), rtol=1e-6)


def test_gradnorm_passes_over_what_is_missing() -> None:
    balancer = GradNorm(2)
    balancer.update([1.0, 2.0], [1.0, 1.0])
    before = balancer.state_dict()["logits"].clone()
    for norms, losses in (([0.0, 1.0], [1.0, 1.0]), ([1.0, np.inf], [1.0, 1.0]), ([1.0, 1.0], [np.nan, 1.0])):
        balancer.update(norms, losses)
        assert torch.equal(balancer.logits, before)


def test_random_weights_differ_by_step_and_seed_and_come_again() -> None:
    first, second, other = RandomWeights(3), RandomWeights(3), RandomWeights(3, seed=1)
    rows = np.array([first.update().numpy() for _ in range(2000)])
    assert np.array_equal(rows, [second.update().numpy() for _ in range(2000)])
    assert not np.array_equal(rows[0], other.update().numpy())
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-14)
    logits = np.log(rows)
    differences = logits[:, 0] - logits[:, 1]
    assert differences.std() == pytest.approx(np.sqrt(2.0), rel=0.1)
    assert abs(np.corrcoef(differences[1:], differences[:-1])[0, 1]) < 0.1


@pytest.mark.parametrize("make", BALANCERS)
def test_all_are_called_alike(make: Any) -> None:
    shared, _, _, losses = network()
    balancer = make()
    assert isinstance(balancer, Balancer)
    for _ in range(5):
        balancer(losses(), [shared]).backward()
    assert balancer.weights.sum().item() == pytest.approx(1.0)
    assert int(balancer.steps) == 5


def test_equal_weights_stay_so() -> None:
    assert EqualWeights(4).update([1.0, 2.0, 3.0, 4.0]).tolist() == [0.25] * 4


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"n_tasks": 1}, r"GradientBalancer: n_tasks=1 is not valid; n_tasks must be an int >= 2"),
        ({"floor": 0.5}, r"GradientBalancer: floor=0.5 is not valid; floor must be in \[0, 1/2\)"),
        ({"floor": -0.1}, r"floor=-0.1 is not valid; floor must be >= 0"),
        ({"floor": float("nan")}, r"floor=nan is not valid"),
        ({"n_tasks": 20}, r"floor=0.05 is not valid; floor must be in \[0, 1/20\)"),
        ({"warmup": -1}, r"warmup=-1 is not valid; warmup must be an int >= 0"),
        ({"rule": "best"}, r"rule='best' is not valid; rule must be one of inverse_norm, sum_of_others"),
        ({"domain": "ratio"}, r"domain='ratio' is not valid; domain must be one of weight, log"),
        ({"floor_mode": "cut"}, r"floor_mode='cut' is not valid; floor_mode must be one of clip, project"),
        ({"smoother": 0.99}, r"smoother=0.99 is not valid; smoother must be an estimator"),
        ({"smoother": EMA(np.array([0.9] * 4))}, r"do not broadcast|for the tasks"),
        ({"smoother": EMA(np.full((3, 1), 0.9))}, r"smoother must be of one setting, or of 2 for the tasks"),
        ({"smoother": Log(EMA(0.9)), "domain": "log"}, r"smoother must be one that takes all numbers"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        GradientBalancer(**{"n_tasks": 2, **arguments})
    assert "\n" not in str(caught.value)


def test_losses_and_parameters_that_do_not_fit_are_refused_in_one_line() -> None:
    shared, _, _, losses = network()
    balancer = GradientBalancer(2)
    with pytest.raises(ValueError, match="losses=1 is not valid; losses must be 2 of them"):
        balancer(losses()[:1], [shared])
    with pytest.raises(ValueError, match=r"losses=\(5, 4\) is not valid; losses must be scalar tensors"):
        balancer([shared, shared], [shared])
    for none in ([], None, [shared.detach()]):
        with pytest.raises(ValueError, match=r"shared_parameters=.* must be tensors, some of which require"):
            balancer(losses(), none)
    with pytest.raises(ValueError, match="norms=None is not valid; norms must be 2 numbers"):
        balancer.update()
    with pytest.raises(ValueError, match=r"norms=\[1.0, 2.0, 3.0\] is not valid"):
        balancer.update([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="norms must be >= 0"):
        balancer.update([1.0, -2.0])
    with pytest.raises(ValueError, match="losses must be 2 numbers"):
        GradNorm(2).update([1.0, 2.0])
    assert int(balancer.steps) == 0


def test_without_gradients_it_says_so_in_one_line() -> None:
    shared, _, _, losses = network()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"switched off \(torch.no_grad\)") as caught:
        GradientBalancer(2)(losses(), [shared])
    assert "\n" not in str(caught.value)


def test_in_evaluation_the_weights_are_those_of_training() -> None:
    trunk = torch.nn.Linear(3, 4)
    balancer = GradientBalancer(2, smoother=DebiasedEMA(0.9), warmup=0)
    features = trunk(torch.ones(2, 3))
    balancer([features.square().mean(), 10.0 * features.abs().mean()], trunk.parameters())
    before = copy.deepcopy(balancer.state_dict())
    balancer.eval()
    with torch.no_grad():
        total = balancer([torch.tensor(1.0), torch.tensor(3.0)])
    assert total.item() == pytest.approx(
        float(balancer.weights @ torch.tensor([1.0, 3.0], dtype=torch.float64))
    )
    after = balancer.state_dict()
    assert all(str(before[key]) == str(after[key]) for key in before)
