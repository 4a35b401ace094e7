"""The moments of FilteredAdam are what its estimators make of gradients, those that are missing included."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from gradients import FIRSTS, SECONDS, stream

torch = pytest.importorskip("torch")

from estimators import EMA, DebiasedEMA, Kalman, KalmanBank, MovingAverage  # noqa: E402
from estimators.torch.optimiser import FilteredAdam  # noqa: E402

MISSING = {0, 1, 9, 10, 11, 17}
"""Steps without a gradient: from the start on, one, and several in a row."""


def moment(optimiser: Any, parameter: Any, name: str) -> Any:
    return np.asarray(optimiser.state[parameter][f"{name}.mean"])


def by_numpy(estimator: Any, rows: Any) -> Any:
    """Mean after each sample; rows of NaN are missing."""
    online = estimator.tracker(estimator.init(np.zeros(rows.shape[1:])))
    return np.array([online.update(row) for row in rows])


def spoilt(kind: str, row: Any) -> Any:
    """A gradient that is missing."""
    if kind == "none":
        return None
    bad = torch.from_numpy(row.copy())
    flat = bad.view(-1)
    flat[1] = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "both": math.inf}[kind]
    if kind == "both":
        flat[2] = -math.inf
    return bad


# --- what the moments are -----------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [set(), MISSING], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", FIRSTS, ids=repr)
def test_the_first_moment_is_the_filtered_gradient(estimator: Any, missing: set[int]) -> None:
    rows = stream(40, (3, 2))
    parameter = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.0, first=estimator, second=None)
    expected = by_numpy(estimator, np.where(np.isin(np.arange(40), [*missing])[:, None, None], np.nan, rows))
    for step, row in enumerate(rows):
        parameter.grad = None if step in missing else torch.from_numpy(row)
        optimiser.step()
        if step not in missing:
            mean = moment(optimiser, parameter, "first")
            np.testing.assert_allclose(mean, expected[step], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("missing", [set(), MISSING], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", SECONDS, ids=repr)
def test_the_second_moment_is_the_filtered_square(estimator: Any, missing: set[int]) -> None:
    rows = stream(40, (3, 2))
    parameter = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.0, first=None, second=estimator)
    gaps = np.isin(np.arange(40), [*missing])[:, None, None]
    expected = by_numpy(estimator, np.where(gaps, np.nan, rows**2))
    for step, row in enumerate(rows):
        parameter.grad = None if step in missing else torch.from_numpy(row)
        optimiser.step()
        if step not in missing:
            mean = moment(optimiser, parameter, "second")
            np.testing.assert_allclose(mean, expected[step], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", [DebiasedEMA(0.9), Kalman(q=0.01, r=1.0), MovingAverage(4)], ids=repr)
def test_the_moments_are_those_of_a_whole_stream(estimator: Any) -> None:
    rows = stream(60, (5,))
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.0, first=estimator, second=estimator)
    means = []
    for row in rows:
        parameter.grad = torch.from_numpy(row)
        optimiser.step()
        means.append([moment(optimiser, parameter, name).copy() for name in ("first", "second")])
    first, second = (np.array(each) for each in zip(*means, strict=True))
    np.testing.assert_allclose(first, estimator.filter(rows).mean, rtol=0.0, atol=1e-13)
    np.testing.assert_allclose(second, estimator.filter(rows**2).mean, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("estimator", FIRSTS, ids=repr)
def test_the_step_is_along_the_moment(estimator: Any) -> None:
    rows = stream(30, (4,))
    parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.1, first=estimator, second=None, weight_decay=0.0)
    for row in rows:
        parameter.grad = torch.from_numpy(row)
        optimiser.step()
    expected = -0.1 * by_numpy(estimator, rows).sum(axis=0)
    np.testing.assert_allclose(parameter.detach(), expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("estimator", [e for e in SECONDS if e not in (EMA(0.0),)], ids=repr)
def test_in_single_precision_the_moments_round_and_no_more(estimator: Any) -> None:
    rows = stream(40, (6,))
    parameter = torch.nn.Parameter(torch.zeros(6))
    optimiser = FilteredAdam([parameter], lr=0.0, first=estimator)
    for row in rows:
        parameter.grad = torch.from_numpy(row).float()
        optimiser.step()
    expected = by_numpy(estimator, rows)[-1]
    assert optimiser.state[parameter]["first.mean"].dtype == torch.float32
    np.testing.assert_allclose(moment(optimiser, parameter, "first"), expected, rtol=0.0, atol=3e-5)


# --- gradients that are missing -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "nan", "inf", "-inf", "both"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "extra", [{}, {"trust": "layer"}, {"cautious": True}, {"extrapolation": 1.0}], ids=repr
)
def test_a_tensor_without_a_finite_gradient_is_skipped_whole(kind: str, dtype: Any, extra: Any) -> None:
    rows = stream(20, (2, 3))
    hit, spared = (torch.nn.Parameter(torch.ones(2, 3, dtype=dtype)) for _ in range(2))
    alone = torch.nn.Parameter(torch.ones(2, 3, dtype=dtype))
    optimiser = FilteredAdam([hit, spared], lr=0.1, weight_decay=0.5, **extra)
    single = FilteredAdam([alone], lr=0.1, weight_decay=0.5, **extra)
    for step, row in enumerate(rows):
        grad = torch.from_numpy(row).to(dtype)
        bad = spoilt(kind, row) if step in MISSING else grad
        hit.grad = None if bad is None else bad.to(dtype)
        spared.grad, alone.grad = grad.clone(), grad.clone()
        before = hit.detach().clone()
        optimiser.step()
        single.step()
        assert torch.equal(hit, before) is (step in MISSING)
        assert torch.equal(spared, alone)
        assert torch.isfinite(hit).all()
    weights = [optimiser.state[one]["second.weight"] for one in (hit, spared)]
    expected = [
        sum(0.001 * 0.999 ** (19 - step) for step in range(20) if step not in skipped)
        for skipped in (MISSING, set())
    ]
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_skipped_tensors_rejoin_at_their_own_weight() -> None:
    rows = stream(30, (4,))
    own = [torch.nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(3)]
    apart = [torch.nn.Parameter(torch.ones(4, dtype=torch.float64)) for _ in range(3)]
    together = FilteredAdam(own, lr=0.1, first=Kalman(q=0.1, r=1.0))
    separate = [FilteredAdam([one], lr=0.1, first=Kalman(q=0.1, r=1.0)) for one in apart]
    for step, row in enumerate(rows):
        for parameters in (own, apart):
            for place, one in enumerate(parameters):
                one.grad = None if (step + place) % 3 == 0 or step < 2 * place else torch.from_numpy(row)
        together.step()
        for optimiser in separate:
            optimiser.step()
    for one, other in zip(own, apart, strict=True):
        np.testing.assert_allclose(one.detach(), other.detach(), rtol=0.0, atol=1e-14)


def test_large_finite_gradients_are_none_that_is_missing() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1000))
    optimiser = FilteredAdam([parameter], lr=1e-38, second=None, weight_decay=0.0)
    parameter.grad = torch.full((1000,), 1e38)  # of which the sum is infinite
    optimiser.step()
    np.testing.assert_allclose(parameter.detach(), -1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "first", [DebiasedEMA(0.9), EMA(0.9), Kalman(q=0.1, r=1.0), MovingAverage(2)], ids=repr
)
def test_the_difference_of_two_large_gradients_does_no_lasting_harm(first: Any) -> None:
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimiser = FilteredAdam([parameter], lr=1e-39, first=first, second=None, weight_decay=0.0)
    for value in (3e38, -3e38, 1.0, 1.0):
        parameter.grad = torch.full((3,), value)
        optimiser.step()
    assert torch.isfinite(parameter).all()
    assert torch.isfinite(optimiser.state[parameter]["first.mean"]).all()


@pytest.mark.parametrize("large", [1e19, 1e20, 1e38, -3e38])
@pytest.mark.parametrize("extra", [{}, {"trust": "layer"}, {"cautious": True}], ids=repr)
def test_a_gradient_whose_square_is_infinite_does_no_lasting_harm(large: float, extra: Any) -> None:
    parameter, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimiser = FilteredAdam([parameter, other], lr=0.1, second=DebiasedEMA(0.5), **extra)
    for value in (1.0, large, 1.0, 1.0):
        parameter.grad, other.grad = torch.tensor([1.0, value, -1.0]), torch.ones(3)
        optimiser.step()
        assert torch.isfinite(parameter).all()
        assert torch.isfinite(other).all()
    before = parameter.detach().clone()
    optimiser.step()
    assert not torch.equal(parameter, before)


@pytest.mark.parametrize("large", [1e3, 1e8, 1e12, 1e18])
@pytest.mark.parametrize(
    ("place", "estimator"),
    [*(("first", one) for one in FIRSTS), *(("second", one) for one in SECONDS)],
    ids=str,
)
def test_outliers_do_no_lasting_harm(place: str, estimator: Any, large: float) -> None:
    for dtype in (torch.float32, torch.float64):
        parameter = torch.nn.Parameter(torch.ones(6, dtype=dtype))
        optimiser = FilteredAdam([parameter], **{"first": None, place: estimator})
        for value in (1.0, large, -1.0, 1e-3, 0.0, 1.0, -large, 1.0, 1e-20, 1.0):
            parameter.grad = torch.tensor([value, 1.0, -value, value / 3.0, 0.0, -1.0], dtype=dtype)
            optimiser.step()
            assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("estimator", [MovingAverage(3), KalmanBank(), DebiasedEMA(0.9)], ids=repr)
def test_a_square_beyond_double_precision_does_not_raise(estimator: Any) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimiser = FilteredAdam([parameter], lr=0.1, second=estimator)
    for value in (1.0, 1e200, 1.0, 1.0):
        parameter.grad = torch.tensor([value, 1.0], dtype=torch.float64)
        optimiser.step()
        assert torch.isfinite(parameter).all()
