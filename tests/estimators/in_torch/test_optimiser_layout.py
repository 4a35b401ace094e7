"""Steps of FilteredAdam do not depend on how tensors lie, how they are cut, and on which others there are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gradients import FIRSTS, SECONDS, stream
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    KalmanBank,
    MehraKalman,
    MovingAverage,
)
from estimators.torch import _descent  # noqa: E402
from estimators.torch.optimiser import FilteredAdam  # noqa: E402

# --- how tensors lie and are cut ----------------------------------------------------------------------------


def trained(
    parameters: list[Any], grads: Callable[[int], list[Any]], steps: int = 12, **settings: Any
) -> Any:
    optimiser = FilteredAdam(parameters, lr=0.05, **settings)
    for step in range(steps):
        for one, grad in zip(parameters, grads(step), strict=True):
            one.grad = grad
        optimiser.step()
    return optimiser


def made(shapes: list[tuple[int, ...]], dtype: Any = torch.float64) -> list[Any]:
    rng = np.random.default_rng(3)
    return [torch.nn.Parameter(torch.from_numpy(np.asarray(rng.normal(size=s))).to(dtype)) for s in shapes]


def noise(shapes: list[tuple[int, ...]], dtype: Any = torch.float64) -> Callable[[int], list[Any]]:
    def of(step: int) -> list[Any]:
        rng = np.random.default_rng([step, 5])
        rows = [torch.from_numpy(np.asarray(rng.normal(size=s))).to(dtype) for s in shapes]
        return [None if (step + place) % 7 == 6 else row for place, row in enumerate(rows)]

    return of


COMMON: list[Any] = [DebiasedEMA(0.9), EMAWithVariance(0.9), Kalman(q=0.1, r=1.0), MovingAverage(3), None]


@pytest.mark.parametrize(
    ("estimator", "dtype"),
    [
        *((estimator, torch.float64) for estimator in FIRSTS),
        *((estimator, dtype) for estimator in COMMON for dtype in (torch.float32, torch.bfloat16)),
    ],
    ids=str,
)
def test_nothing_depends_on_how_tensors_are_cut(
    estimator: Any, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(7, 3), (1,), (), (5,), (2, 2, 2), (0,)]
    second = estimator if estimator in SECONDS and dtype == torch.float64 else DebiasedEMA(0.9)
    found = []
    for size in (2**18, 4, 9):
        monkeypatch.setattr(_descent, "SIZE", size)
        parameters = made(shapes, dtype)
        trained(parameters, noise(shapes, dtype), first=estimator, second=second)
        found.append(parameters)
    coarse = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.02}[dtype]
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one.detach().float(), same.detach().float(), rtol=coarse, atol=coarse)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=6),
    st.sampled_from(
        [DebiasedEMA(0.9), Kalman(q=0.1, r=1.0), EMAWithVariance(0.9), MehraKalman(), Holt(0.2, 0.1)]
    ),
    st.randoms(use_true_random=False),
    st.integers(1, 40),
)
def test_nothing_depends_on_order_or_company(
    shapes: list[tuple[int, ...]], estimator: Any, random: Any, size: int
) -> None:
    together, shuffled, alone = (made(shapes) for _ in range(3))
    grads = noise(shapes)
    trained(together, grads, first=estimator)
    order = random.sample(range(len(shapes)), len(shapes))
    was, _descent.SIZE = _descent.SIZE, size
    try:
        trained([shuffled[i] for i in order], lambda step: [grads(step)[i] for i in order], first=estimator)
    finally:
        _descent.SIZE = was
    for place, one in enumerate(alone):
        trained([one], lambda step, place=place: [grads(step)[place]], first=estimator)
    for ours, theirs, its in zip(together, shuffled, alone, strict=True):
        np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(ours.detach(), its.detach(), rtol=0.0, atol=1e-12)


def test_groups_of_the_same_settings_are_one() -> None:
    shapes = [(3,), (4, 2), (5,)]
    one, several = made(shapes), made(shapes)
    trained(one, noise(shapes))
    optimiser = FilteredAdam([{"params": [each]} for each in several], lr=0.05)
    for step in range(12):
        for each, grad in zip(several, noise(shapes)(step), strict=True):
            each.grad = grad
        optimiser.step()
    assert all(map(torch.equal, one, several))


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "transposed": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "strided": lambda x: torch.stack([x, x + 1.0], dim=-1)[..., 0],
}


@pytest.mark.parametrize("gradients", ["as_parameter", "contiguous", "otherwise"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("estimator", "extra"),
    [
        *((estimator, {}) for estimator in (*COMMON, KalmanBank(per_decade=1))),
        (DebiasedEMA(0.9), {"trust": "layer", "cautious": True}),
        (DebiasedEMA(0.9), {"extrapolation": 1.0}),
        (None, {"extrapolation": 1.0, "second": None}),
    ],
    ids=repr,
)
def test_nothing_depends_on_how_tensors_lie(
    estimator: Any, layout: str, gradients: str, extra: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_descent, "SIZE", 10)
    shape = (4, 3, 2, 5)
    (plain,), (start,) = made([shape]), made([shape])
    laid = torch.nn.Parameter(LAYOUTS[layout](start.detach()))
    assert not laid.is_contiguous()
    lie = {
        "as_parameter": LAYOUTS[layout],
        "contiguous": lambda x: x,
        "otherwise": lambda x: x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }[gradients]
    grads = noise([shape])
    trained([plain], lambda step: grads(step), first=estimator, **extra)
    trained(
        [laid], lambda step: [None if g is None else lie(g) for g in grads(step)], first=estimator, **extra
    )
    np.testing.assert_allclose(laid.detach(), plain.detach(), rtol=0.0, atol=1e-13)


def test_an_expanded_gradient_is_read_and_not_written() -> None:
    expanded, dense = made([(4, 6)] * 2)
    one = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        dense.copy_(expanded)
    trained([expanded], lambda step: [one.expand(4, 6)])
    trained([dense], lambda step: [torch.full((4, 6), 0.5, dtype=torch.float64)])
    assert torch.equal(expanded, dense)
    assert one.item() == 0.5


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("first", [DebiasedEMA(0.9), None, EMA(0.0)], ids=repr)
def test_gradients_are_left_as_they_were(first: Any, maximize: bool) -> None:
    (parameter,) = made([(5,)])
    grad = torch.arange(5.0, dtype=torch.float64)
    kept = grad.clone()
    optimiser = FilteredAdam([parameter], first=first, maximize=maximize)
    for _ in range(3):
        parameter.grad = grad
        optimiser.step()
        assert torch.equal(grad, kept)


@pytest.mark.parametrize(
    "estimator", [DebiasedEMA(0.9), EMA(0.0), Kalman(q=0.1, r=1.0), MovingAverage(3)], ids=repr
)
def test_gradients_of_gradients_leave_no_graph_behind(estimator: Any) -> None:
    (parameter,) = made([(5,)])
    optimiser = FilteredAdam([parameter], first=estimator, extrapolation=1.0)
    for _ in range(3):
        (grad,) = torch.autograd.grad((parameter**3).sum(), parameter, create_graph=True)
        parameter.grad = grad
        optimiser.step()
        parameter.grad = None
    assert parameter.is_leaf
    for value in optimiser.state[parameter].values():
        assert not isinstance(value, torch.Tensor) or not value.requires_grad


def test_a_group_may_hold_tensors_of_several_precisions() -> None:
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float32, torch.float64]
    together, alone = ([made([(6,)], dtype)[0] for dtype in dtypes] for _ in range(2))
    rows = stream(15, (6,))
    optimiser = FilteredAdam(together, lr=0.05)
    separate = [FilteredAdam([one], lr=0.05) for one in alone]
    for row in rows:
        for one in (*together, *alone):
            one.grad = torch.from_numpy(row).to(one.dtype)
        optimiser.step()
        for each in separate:
            each.step()
    for one, other, dtype in zip(together, alone, dtypes, strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one.detach().double(), other.detach().double(), rtol=1e-6)


# --- sparse gradients ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [{}, {"maximize": True}, {"trust": "layer"}, {"cautious": True}], ids=repr)
def test_a_sparse_gradient_is_the_dense_one_that_it_stands_for(extra: Any) -> None:
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = torch.nn.Embedding(20, 3, sparse=sparse, dtype=torch.float64)
        optimiser = FilteredAdam(table.parameters(), lr=0.1, **extra)
        for step in range(30):
            optimiser.zero_grad()
            picked = torch.tensor([step % 20, (3 * step) % 20, step % 20])  # one of them twice
            (table(picked) ** 2).sum().backward()
            assert (table.weight.grad.layout == torch.sparse_coo) is sparse
            optimiser.step()
        found.append(table.weight.detach())
    np.testing.assert_allclose(*found, rtol=0.0, atol=1e-14)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_sparse_gradient_that_is_not_finite_is_missing(bad: float) -> None:
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimiser = FilteredAdam(table.parameters(), lr=0.1)
    for factor in (1.0, bad, 1.0):
        optimiser.zero_grad()
        (table(torch.tensor([1, 3, 3])) * torch.tensor([factor, 1.0])).sum().backward()
        before = table.weight.detach().clone()
        optimiser.step()
        assert torch.equal(table.weight, before) is (factor != 1.0)
    assert torch.isfinite(table.weight).all()


def test_a_large_sparse_gradient_is_not_missing() -> None:
    table = torch.nn.Embedding(5, 2, sparse=True)
    optimiser = FilteredAdam(table.parameters(), lr=1e-38, second=None, weight_decay=0.0)
    before = table.weight.detach().clone()
    (table(torch.tensor([0, 1, 2, 3, 4])) * 1e38).sum().backward()
    optimiser.step()
    np.testing.assert_allclose(table.weight.detach() - before, -1.0, rtol=1e-5)
