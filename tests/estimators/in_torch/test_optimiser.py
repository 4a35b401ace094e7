"""FilteredAdam beside AdamW, LAMB and cautious steps in NumPy, dense filters, and extrapolation by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from filterpy.kalman import KalmanFilter

torch = pytest.importorskip("torch")

from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    LocalTrend,
    Log,
)
from estimators.torch.optimiser import FilteredAdam  # noqa: E402

SHAPES: list[tuple[int, ...]] = [(17, 5), (17,), (3, 2, 2, 2), ()]


def tensors(dtype: Any = torch.float64, seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in SHAPES]
    return [torch.nn.Parameter(one.to(dtype)) for one in made]


def gradients(steps: int, seed: int = 1) -> Iterator[list[Any]]:
    """Noise about a gradient that decays, of sizes far apart."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        level = math.exp(-step / 300.0)
        yield [
            10.0 ** (place - 2) * (level + torch.randn(shape, generator=generator, dtype=torch.float64))
            for place, shape in enumerate(SHAPES)
        ]


def give(parameters: list[Any], grads: list[Any]) -> None:
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad.to(parameter.dtype)


def run(optimiser: Any, parameters: list[Any], steps: int, after: Callable[[], Any] | None = None) -> None:
    for grads in gradients(steps):
        give(parameters, grads)
        optimiser.step()
        if after is not None:
            after()


def largest_difference(these: list[Any], those: list[Any]) -> float:
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(these, those, strict=True))


# --- AdamW --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str)
def test_the_defaults_are_adamw(dtype: Any, tolerance: float, foreach: bool) -> None:
    own, peers = tensors(dtype), tensors(dtype)
    run(FilteredAdam(own), own, 1000)
    run(torch.optim.AdamW(peers, foreach=foreach), peers, 1000)
    assert largest_difference(own, peers) <= tolerance
    assert largest_difference(own, tensors(dtype)) > 0.05


@pytest.mark.parametrize(
    ("settings", "peer"),
    [
        ({"weight_decay": 0.0}, {"weight_decay": 0.0}),
        ({"eps": 1e-2, "lr": 0.1}, {"eps": 1e-2, "lr": 0.1}),
        ({"maximize": True}, {"maximize": True}),
        ({"first": DebiasedEMA(0.5), "second": DebiasedEMA(0.9)}, {"betas": (0.5, 0.9)}),
        ({"lr": 0.0}, {"lr": 0.0}),
        ({"lr": torch.tensor(0.01, dtype=torch.float64)}, {"lr": 0.01}),
    ],
    ids=repr,
)
def test_settings_mean_what_they_mean_in_adamw(settings: Any, peer: Any) -> None:
    own, peers = tensors(), tensors()
    run(FilteredAdam(own, **settings), own, 300)
    run(torch.optim.AdamW(peers, **peer, foreach=False), peers, 300)
    assert largest_difference(own, peers) <= 1e-12


def test_tensors_that_are_cut_are_stepped_as_adamw_does() -> None:
    size = 2 * 2**18 + 5
    own, peer = (torch.nn.Parameter(torch.linspace(-1.0, 1.0, size, dtype=torch.float64)) for _ in range(2))
    for parameter, kind in ((own, FilteredAdam), (peer, torch.optim.AdamW)):
        optimiser = kind([parameter], lr=0.1)
        for step in range(3):
            parameter.grad = torch.cos(torch.arange(size, dtype=torch.float64) + step)
            optimiser.step()
    np.testing.assert_allclose(own.detach(), peer.detach(), rtol=0.0, atol=1e-14)


def test_groups_have_settings_of_their_own() -> None:
    own, peers = tensors(), tensors()
    optimisers = []
    for parameters, kind in ((own, FilteredAdam), (peers, torch.optim.AdamW)):
        groups = [
            {"params": parameters[:1], "lr": 0.1, "weight_decay": 0.0},
            {"params": parameters[1:2], "weight_decay": 0.5, "maximize": True},
            {"params": parameters[2:3], "eps": 0.1},
        ]
        optimiser = kind(groups, lr=0.02)
        optimiser.add_param_group({"params": parameters[3], "lr": 0.3})
        optimisers.append(optimiser)
        run(optimiser, parameters, 200)
    assert largest_difference(own, peers) <= 1e-12


def test_an_estimator_of_each_group() -> None:
    shared, alone = tensors(), tensors()
    groups = [{"params": shared[:2], "first": EMA(0.5)}, {"params": shared[2:], "second": None, "lr": 1e-3}]
    run(FilteredAdam(groups, lr=0.01), shared, 100)
    separate = [
        FilteredAdam(alone[:2], lr=0.01, first=EMA(0.5)),
        FilteredAdam(alone[2:], lr=1e-3, second=None),
    ]
    for grads in gradients(100):
        give(alone, grads)
        for optimiser in separate:
            optimiser.step()
    assert all(map(torch.equal, shared, alone))


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=200, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 150),
        lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=3),
    ],
    ids=["one_cycle", "cosine", "plateau"],
)
@pytest.mark.parametrize("lr", [0.02, torch.tensor(0.02, dtype=torch.float64)], ids=["number", "tensor"])
def test_schedulers_drive_the_rate(schedule: Any, lr: Any) -> None:
    own, peers = tensors(), tensors()
    for parameters, kind in ((own, FilteredAdam), (peers, torch.optim.AdamW)):
        optimiser = kind(parameters, lr=lr.clone() if isinstance(lr, torch.Tensor) else lr)
        scheduler = schedule(optimiser)
        plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
        run(optimiser, parameters, 150, lambda s=scheduler, p=plateau: s.step(*((1.0,) if p else ())))
    assert largest_difference(own, peers) <= 1e-12


def test_a_closure_is_evaluated_with_gradients_and_its_loss_comes_back() -> None:
    found = []
    for kind in (FilteredAdam, torch.optim.AdamW):
        parameter = torch.nn.Parameter(torch.tensor([3.0, -1.0], dtype=torch.float64))
        optimiser = kind([parameter], lr=0.1)

        def closure(parameter: Any = parameter, optimiser: Any = optimiser) -> Any:
            optimiser.zero_grad()
            loss = ((parameter - 1.0) ** 2).sum()
            loss.backward()
            return loss

        losses = [optimiser.step(closure) for _ in range(100)]
        assert losses[0].requires_grad
        found.append((parameter.detach(), torch.stack(losses).detach()))
        assert FilteredAdam([parameter]).step() is None
    for own, peer in zip(*found, strict=True):
        np.testing.assert_allclose(own.numpy(), peer.numpy(), rtol=0.0, atol=1e-12)
    assert found[0][1][-1] < 0.01 * found[0][1][0]


def test_gradients_set_to_none_or_zero_are_different_things() -> None:
    parameters = [torch.nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    for parameter, to_none in zip(parameters, (True, False), strict=True):
        optimiser = FilteredAdam([parameter], lr=0.1, weight_decay=0.0)
        parameter.grad = torch.ones_like(parameter)
        optimiser.step()
        before = parameter.detach().clone()
        optimiser.zero_grad(set_to_none=to_none)
        optimiser.step()
        assert torch.equal(before, parameter) is to_none


def test_no_tensors_and_empty_tensors_do_no_harm() -> None:
    empty = torch.nn.Parameter(torch.empty(0, 3))
    full = torch.nn.Parameter(torch.ones(2))
    for settings in ({}, {"trust": "layer"}, {"cautious": True}, {"extrapolation": 1.0}):
        optimiser = FilteredAdam([empty, full], lr=0.1, **settings)
        for _ in range(3):
            empty.grad, full.grad = torch.zeros_like(empty), torch.ones_like(full)
            optimiser.step()
        assert torch.isfinite(full).all()
        assert empty.shape == (0, 3)


# --- a step by hand -----------------------------------------------------------------------------------------


class Adam:
    """The directions of Adam for one array, by the book: m / (1 - b1^t) over sqrt(v / (1 - b2^t)) + eps."""

    def __init__(self, eps: float = 1e-8, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.m = self.v = self.t = 0.0
        self.eps, self.betas = eps, betas

    def __call__(self, g: Any) -> Any:
        one, two = self.betas
        self.t += 1.0
        self.m, self.v = one * self.m + (1.0 - one) * g, two * self.v + (1.0 - two) * g * g
        self.first = self.m / (1.0 - one**self.t)
        return self.first / (np.sqrt(self.v / (1.0 - two**self.t)) + self.eps)


def compare_by_hand(optimiser: Any, own: list[Any], step: Callable[..., Any], steps: int = 100) -> None:
    """step(x, g, adam, place) -> x, on arrays."""
    arrays = [one.detach().numpy().copy() for one in own]
    states = [Adam() for _ in own]
    for grads in gradients(steps):
        give(own, grads)
        optimiser.step()
        arrays = [
            step(x, g.numpy(), state, place)
            for place, (x, g, state) in enumerate(zip(arrays, grads, states, strict=True))
        ]
    for one, expected in zip(own, arrays, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_trust_of_a_layer_is_lamb(decay: float) -> None:
    own = tensors()
    with torch.no_grad():
        own[0].mul_(10.0)  # its norm, beyond the most that counts
        own[1].zero_()
    norms = []

    def lamb(x: Any, g: Any, adam: Adam, place: int) -> Any:
        r = adam(g) + decay * x
        weights, size = np.linalg.norm(x), np.linalg.norm(r)
        norms.append(weights)
        ratio = min(weights, 10.0) / size if weights > 0.0 and size > 0.0 else 1.0
        return x - 0.01 * ratio * r

    compare_by_hand(FilteredAdam(own, lr=0.01, weight_decay=decay, trust="layer"), own, lamb)
    assert min(norms) == 0.0
    assert max(norms) > 10.0


def test_discounted_trust_counts_the_certain_part_of_the_step() -> None:
    own, beta = tensors(), 0.9
    firsts = [EMAWithVariance(beta).tracker() for _ in own]

    def step(x: Any, g: Any, adam: Adam, place: int) -> Any:
        adam(g)
        mean, variance = firsts[place].update(g), firsts[place].variance
        certain = mean**2 / (mean**2 + variance)
        u = mean / (np.sqrt(adam.v / (1.0 - 0.999**adam.t)) + adam.eps) + 0.1 * x
        weights, size = np.linalg.norm(x), np.sqrt(np.sum(certain * u * u))
        ratio = min(weights, 10.0) / size if weights > 0.0 and size > 0.0 else 1.0
        return x - 0.01 * ratio * u

    settings = {"first": EMAWithVariance(beta), "trust": "discounted", "weight_decay": 0.1}
    compare_by_hand(FilteredAdam(own, lr=0.01, **settings), own, step)


@pytest.mark.parametrize("maximize", [False, True])
def test_cautious_coordinates_rest_where_the_step_would_climb(maximize: bool) -> None:
    own, rested = tensors(), []

    def step(x: Any, g: Any, adam: Adam, place: int) -> Any:
        g = -g if maximize else g
        u = adam(g)
        mask = (u * g > 0.0).astype(float)
        rested.append(1.0 - mask.mean())
        return x * (1.0 - 0.01 * 0.1) - 0.01 * u * mask / max(mask.mean(), 1e-3)

    settings = {"weight_decay": 0.1, "cautious": True, "maximize": maximize}
    compare_by_hand(FilteredAdam(own, lr=0.01, **settings), own, step)
    assert 0.1 < np.mean(rested) < 0.6


def test_without_moments_it_is_gradient_descent() -> None:
    own = tensors()
    optimiser = FilteredAdam(own, lr=1e-3, first=None, second=None, weight_decay=0.1)
    compare_by_hand(optimiser, own, lambda x, g, adam, place: x * (1.0 - 1e-4) - 1e-3 * g)
    assert all(not optimiser.state[one] for one in own)


def test_without_a_first_moment_it_is_rmsprop() -> None:
    own = tensors()
    optimiser = FilteredAdam(own, lr=1e-3, first=None, weight_decay=0.0)

    def step(x: Any, g: Any, adam: Adam, place: int) -> Any:
        adam(g)
        return x - 1e-3 * g / (np.sqrt(adam.v / (1.0 - 0.999**adam.t)) + 1e-8)

    compare_by_hand(optimiser, own, step)


# --- extrapolation ------------------------------------------------------------------------------------------


def quadratic(x: Any) -> Any:
    return 3.0 * x + np.sin(7.0 * x)


@pytest.mark.parametrize("second", [DebiasedEMA(0.999), None], ids=["adam", "descent"])
@pytest.mark.parametrize("extra", [{}, {"trust": "layer"}, {"cautious": True}], ids=repr)
@pytest.mark.parametrize("ahead", [1.0, 2.5])
def test_gradients_are_taken_ahead_of_the_parameters(second: Any, extra: Any, ahead: float) -> None:
    parameter = torch.nn.Parameter(torch.linspace(-2.0, 3.0, 7, dtype=torch.float64))
    settings = {"first": EMA(0.7), "second": second, "weight_decay": 0.1, **extra}
    optimiser = FilteredAdam([parameter], lr=0.02, extrapolation=ahead, **settings)
    plain = torch.nn.Parameter(parameter.detach().clone())
    reference = FilteredAdam([plain], lr=0.02, **settings)
    move = torch.zeros_like(plain)
    for _ in range(60):
        parameter.grad = torch.from_numpy(quadratic(parameter.detach().numpy()))
        optimiser.step()
        before = plain.detach().clone()
        plain.grad = torch.from_numpy(quadratic((before + ahead * move).numpy()))
        reference.step()
        move = plain.detach() - before
        np.testing.assert_allclose(parameter.detach(), (plain + ahead * move).detach(), rtol=0.0, atol=1e-12)
    optimiser.eval()
    np.testing.assert_allclose(parameter.detach(), plain.detach(), rtol=0.0, atol=1e-12)


def test_evaluation_and_training_are_where_they_were() -> None:
    parameter = torch.nn.Parameter(torch.linspace(-2.0, 3.0, 7, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.02, extrapolation=1.5)
    optimiser.eval()  # there is no move yet
    optimiser.train()
    for _ in range(5):
        parameter.grad = torch.from_numpy(quadratic(parameter.detach().numpy()))
        optimiser.step()
    ahead = parameter.detach().clone()
    optimiser.train()
    assert torch.equal(parameter, ahead)
    optimiser.eval()
    behind = parameter.detach().clone()
    assert (ahead - behind).abs().min() > 1e-3
    optimiser.eval()
    assert torch.equal(parameter, behind)
    with pytest.raises(RuntimeError, match=r"^FilteredAdam: step after eval\(\); call train\(\)[^\n]*$"):
        optimiser.step()
    assert torch.equal(parameter, behind)
    optimiser.train()
    np.testing.assert_allclose(parameter.detach(), ahead, rtol=0.0, atol=1e-15)
    optimiser.step()


def test_a_closure_brings_parameters_ahead_before_it_looks() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.1, extrapolation=1.0)
    seen = []

    def closure() -> float:
        seen.append(parameter.detach().clone())
        parameter.grad = torch.ones_like(parameter)
        return 1.0

    optimiser.step(closure)
    ahead = parameter.detach().clone()
    optimiser.eval()
    assert not torch.equal(parameter, ahead)
    optimiser.step(closure)
    np.testing.assert_allclose(seen[1], ahead, rtol=0.0, atol=1e-15)


# --- a dense matrix filter ----------------------------------------------------------------------------------


def test_the_gradient_block_of_a_dense_filter_is_a_scalar_kalman() -> None:
    """KGD (1810.12273): state [x, g], only g observed, so that the weights never feed the gradient."""
    size, lr, steps = 5, 0.1, 300
    dense = KalmanFilter(dim_x=2 * size, dim_z=size)
    eye, zero = np.eye(size), np.zeros((size, size))
    dense.F = np.block([[eye, -lr * eye], [zero, eye]])
    dense.H = np.hstack([zero, eye])
    dense.P, dense.Q, dense.R = (scale * np.eye(n * size) for scale, n in ((0.01, 2), (0.01, 2), (2.0, 1)))
    dense.x = np.zeros(2 * size)
    parameter = torch.nn.Parameter(torch.zeros(size, dtype=torch.float64))
    first = Kalman(q=0.01, r=2.0, mean=0.0, variance=0.01)
    optimiser = FilteredAdam([parameter], lr=lr, first=first, second=None, weight_decay=0.0)
    rng, gains = np.random.default_rng(0), []
    expected = np.zeros(size)
    for _ in range(steps):
        gradient = 1.0 + rng.normal(size=size)
        dense.predict()
        dense.update(gradient)
        before = optimiser.state[parameter].get("first.mean", 0.0)
        before = before.numpy().copy() if isinstance(before, torch.Tensor) else before
        parameter.grad = torch.from_numpy(gradient)
        optimiser.step()
        mean = optimiser.state[parameter]["first.mean"].numpy()
        np.testing.assert_allclose(mean, dense.x[size:], rtol=0.0, atol=1e-13)
        gains.append(((mean - before) / (gradient - before))[0])
        expected = expected - lr * dense.x[size:]
    np.testing.assert_allclose(parameter.detach(), expected, rtol=0.0, atol=1e-11)
    assert gains[0] == pytest.approx(0.02 / 2.02, rel=1e-12)
    assert gains[0] == pytest.approx(0.0099, abs=1e-5)
    assert gains[-1] == pytest.approx(0.0682548585, abs=5e-11)


# --- precision ----------------------------------------------------------------------------------------------


def test_the_second_moment_does_not_stall_in_half_precision() -> None:
    parameter = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimiser = FilteredAdam([parameter], lr=0.0)
    for step in range(3000):  # in bfloat16 a step of 1/1000 of the difference would be lost
        parameter.grad = torch.full_like(parameter, 1.0 if step < 1000 else 2.0)
        optimiser.step()
    second = optimiser.state[parameter]["second.mean"]
    assert second.dtype == torch.float32
    weight = (1.0 - 0.999**2000) / (1.0 - 0.999**3000)
    np.testing.assert_allclose(second, 4.0 * weight + (1.0 - weight), rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("extra", [{}, {"trust": "layer"}, {"cautious": True}], ids=repr)
def test_half_precision_rounds_once_a_step(dtype: Any, extra: Any) -> None:
    half = torch.nn.Parameter(torch.linspace(1.0, 2.0, 8).to(dtype))
    single = torch.nn.Parameter(half.detach().float())
    optimisers = [FilteredAdam([one], lr=0.05, **extra) for one in (half, single)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        grad = torch.randn(8, generator=generator).to(dtype)
        half.grad, single.grad = grad, grad.float()
        for optimiser in optimisers:
            optimiser.step()
        expected = single.detach().to(dtype)
        assert torch.equal(half, expected)
        with torch.no_grad():
            single.copy_(expected)


def test_it_trains_under_autocast_and_a_scaler_skips_what_overflowed() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    y = x.sum(dim=1, keepdim=True)
    layer = torch.nn.Linear(4, 1)
    optimiser, scaler = FilteredAdam(layer.parameters(), lr=0.05), torch.amp.GradScaler("cpu", 2.0**10)
    losses = []
    for step in range(100):
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = torch.nn.functional.mse_loss(layer(x).float(), y)
        scaler.scale(loss).backward()
        before = layer.weight.detach().clone()
        if step == 50:
            layer.weight.grad[0, 0] = math.inf
        scaler.step(optimiser)
        scaler.update()
        assert torch.equal(before, layer.weight) is (step == 50)
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
    assert scaler.get_scale() == 2.0**9


# --- errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"lr": -1.0}, ValueError, "lr=-1.0"),
        ({"lr": math.nan}, ValueError, "lr=nan"),
        ({"lr": "fast"}, ValueError, "lr='fast'"),
        ({"lr": [0.1, 0.2]}, ValueError, "lr="),
        ({"lr": torch.tensor(-0.5)}, ValueError, "lr=-0.5"),
        ({"eps": math.nan}, ValueError, "eps=nan"),
        ({"eps": -1e-8}, ValueError, "eps=-1e-08"),
        ({"weight_decay": math.inf}, ValueError, "weight_decay=inf"),
        ({"extrapolation": -1.0}, ValueError, "extrapolation=-1.0"),
        ({"extrapolation": None}, ValueError, "extrapolation=None"),
        ({"first": "adam"}, TypeError, "first='adam'"),
        ({"first": 0.9}, TypeError, "first=0.9"),
        ({"second": EMA}, TypeError, "second="),
        ({"first": EMA(np.array([0.5, 0.9]))}, ValueError, "first.beta"),
        ({"second": Kalman(q=1.0, r=np.ones(2))}, ValueError, "second.r"),
        ({"second": LocalTrend(q=0.1, q_slope=0.1, r=1.0)}, ValueError, "second=LocalTrend"),
        ({"second": Holt(0.2, 0.1)}, ValueError, "second=Holt"),
        ({"second": EMA(0.9, initial=-1.0)}, ValueError, "second=EMA"),
        ({"second": Kalman(q=0.1, r=1.0, mean=-1.0, variance=1.0)}, ValueError, "second=Kalman"),
        ({"first": Log(EMA(0.9))}, ValueError, "first=Log"),
        ({"second": Log(EMA(0.9))}, ValueError, "second=Log"),
        ({"trust": "foo"}, ValueError, "trust='foo'"),
        ({"trust": True}, ValueError, "trust=True"),
        ({"trust": "discounted"}, ValueError, "first="),
        ({"trust": "discounted", "first": None}, ValueError, "first=None"),
    ],
    ids=repr,
)
def test_a_bad_setting_is_named_in_one_line(settings: Any, kind: type[Exception], words: str) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    for make in (
        lambda: FilteredAdam([parameter], **settings),
        lambda: FilteredAdam([{"params": [parameter], **settings}]),
    ):
        with pytest.raises(kind) as caught:
            make()
        message = str(caught.value)
        assert message.startswith("FilteredAdam: ")
        assert words in message
        assert "\n" not in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool], ids=str)
def test_tensors_of_other_than_real_numbers_are_refused_and_leave_no_trace(dtype: Any) -> None:
    wrong = torch.ones(2, dtype=dtype)
    with pytest.raises(ValueError, match=r"^FilteredAdam: params=[^\n]* is not valid; [^\n]*$"):
        FilteredAdam([wrong])
    right = torch.nn.Parameter(torch.ones(2))
    optimiser = FilteredAdam([right])
    with pytest.raises(ValueError, match="params"):
        optimiser.add_param_group({"params": [wrong]})
    assert len(optimiser.param_groups) == 1


def test_a_bad_group_is_not_added() -> None:
    optimiser = FilteredAdam([torch.nn.Parameter(torch.ones(2))])
    with pytest.raises(ValueError, match="eps=-1"):
        optimiser.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))], "eps": -1.0})
    assert len(optimiser.param_groups) == 1
