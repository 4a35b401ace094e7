"""Tensors through update, tracker and filter: against NumPy, with gaps, gradients, states of tensors."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

import estimators.torch  # noqa: E402
from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    Log,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    RunningMedian,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)
from estimators.torch import filtering  # noqa: E402

RECURSIVE: list[Any] = [
    EMA(0.9),
    EMA(0.9, initial=None),
    EMA(0.0),
    DebiasedEMA(0.9),
    EMAWithVariance(0.9),
    Kalman(q=0.1, r=1.0),
    Kalman(q=0.0, r=1.0),
    Kalman(q=0.1, r=1.0, mean=0.5, variance=2.0),
    MehraKalman(),
    VariationalKalman(q=0.1),
    SageHusaKalman(q=0.1),
    SageHusaKalman(r=1.0),
    InnovationMatchingKalman(q=0.1),
    RobustKalman(q=0.1, r=1.0),
    RobustKalman(q=0.1, r=1.0, loss="student_t"),
    ResettingKalman(q=0.1, r=1.0),
    SwitchingKalman(q=0.1, r=1.0),
    LocalTrend(q=0.1, q_slope=0.01, r=1.0),
    Holt(0.3, 0.1),
]
OTHERS: list[Any] = [
    MovingAverage(4),
    RunningMedian(5),
    KalmanBank(),
    Log(EMA(0.9, initial=None)),
    Log(DebiasedEMA(0.9)),
]
ALL = [*RECURSIVE, *OTHERS]


def stream(steps: int = 30, shape: tuple[int, ...] = (3, 2), gaps: bool = False) -> Any:
    """Samples > 0, so that Log takes them; with gaps of a channel from the start on, of all, and infinity."""
    rng = np.random.default_rng(0)
    x = np.exp(
        np.cumsum(0.05 * rng.normal(size=(steps, *shape)), axis=0) + 0.3 * rng.normal(size=(steps, *shape))
    )
    if gaps:
        flat = x.reshape(steps, -1)
        flat[:2, 0], flat[5:9, 1], flat[12], flat[15, 0] = np.nan, np.nan, np.nan, np.inf
        flat[16, -1] = -np.inf
    return x


def updated(estimator: Any, x: Any) -> list[Any]:
    states = [estimator.init(x[0])]
    for sample in x:
        states.append(estimator.update(states[-1], sample))
    return states[1:]


def of_numpy(estimator: Any, x: Any) -> list[Any]:
    states = [estimator.init(x[0])]
    for sample in x:
        states.append(estimator.update(states[-1], sample, on_infinite="missing"))
    return states[1:]


def numbers(field: Any) -> Any:
    return field.double().numpy() if isinstance(field, torch.Tensor) else np.asarray(field)


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    for name, value, expected in zip(ours._fields, ours, theirs, strict=True):
        there = numbers(expected)
        np.testing.assert_allclose(
            np.broadcast_to(numbers(value), there.shape), there, rtol=tolerance, atol=tolerance, err_msg=name
        )


# --- one sample at a time -----------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_updates_are_those_of_numpy(estimator: Any, gaps: bool) -> None:
    x = stream(gaps=gaps)
    for ours, theirs in zip(updated(estimator, torch.from_numpy(x)), of_numpy(estimator, x), strict=True):
        assert isinstance(ours.mean, torch.Tensor)
        assert ours.mean.dtype == torch.float64
        close(ours, theirs, 1e-12)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_mean_keeps_the_dtype_and_device_of_the_samples(estimator: Any, dtype: Any) -> None:
    x = torch.from_numpy(stream()).to(dtype)
    states = updated(estimator, x)
    expected = of_numpy(estimator, x.double().numpy())
    online = estimator.tracker()
    for sample, state, theirs in zip(x, states, expected, strict=True):
        assert state.mean.dtype == dtype
        assert state.mean.device == x.device
        assert state.mean.shape == (3, 2)
        ulp = torch.finfo(dtype).eps  # a tracker may start from numbers, which rounds otherwise
        np.testing.assert_allclose(online.update(sample).double(), state.mean.double(), rtol=4.0 * ulp)
        if dtype == torch.float32:
            np.testing.assert_allclose(state.mean, theirs.mean, rtol=2e-5)


@pytest.mark.parametrize(
    ("estimator", "shared"),
    [
        (EMA(0.9), []),
        (DebiasedEMA(0.9), ["weight"]),
        (Kalman(q=0.1, r=1.0), ["variance"]),
        (Kalman(q=0.1, r=1.0, mean=0.0, variance=1.0), ["variance"]),
        (EMAWithVariance(0.9), ["weight", "squared"]),
    ],
    ids=repr,
)
def test_what_channels_share_is_a_number_while_nothing_is_missing(estimator: Any, shared: list[str]) -> None:
    x = torch.from_numpy(stream())
    for state in [estimator.init(x[0]), *updated(estimator, x)]:
        for name in shared:
            assert type(getattr(state, name)) is float, name
    nothing = torch.full((3, 2), math.nan, dtype=torch.float64)
    state = estimator.update(updated(estimator, x)[-1], nothing)  # of all: they still share it
    for name in shared:
        assert type(getattr(state, name)) is float, name
    some = x[0].clone()
    some[1, 1] = math.nan
    state = estimator.update(state, some)
    for name in shared:
        field = getattr(state, name)
        assert isinstance(field, torch.Tensor), name
        assert field.dtype == torch.float64
        assert field.shape == (3, 2)
        assert field[1, 1] != field[0, 0]


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_none_is_a_sample_that_is_missing(estimator: Any) -> None:
    x = torch.from_numpy(stream(6))
    state = updated(estimator, x)[-1]
    found = estimator.update(state, None)
    expected = estimator.update(state, torch.full((3, 2), math.nan, dtype=torch.float64))
    assert found.mean.dtype == torch.float64
    close(found, expected, 0.0)
    online = estimator.tracker(state)
    np.testing.assert_array_equal(numbers(online.update(None)), numbers(found.mean))


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_update_leaves_states_and_samples_alone_and_shares_nothing_with_samples(estimator: Any) -> None:
    x = torch.from_numpy(stream(6))
    states = [estimator.init(x[0])]
    for at, sample in enumerate(x):
        before = [numbers(field).copy() for field in states[-1]]
        handed = sample.clone()
        states.append(estimator.update(states[-1], handed))
        assert torch.equal(handed, sample)
        for field, kept in zip(states[-2], before, strict=True):
            np.testing.assert_array_equal(numbers(field), kept)
        before = [numbers(field).copy() for field in states[-1]]
        handed.zero_()  # a buffer that is used again
        for field, kept in zip(states[-1], before, strict=True):
            np.testing.assert_array_equal(numbers(field), kept, err_msg=str(at))


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_in_place_is_the_same_in_the_tensors_that_are_there(estimator: Any, dtype: Any) -> None:
    x = torch.from_numpy(stream(8)).to(dtype)
    expected, kept = updated(estimator, x), x.clone()
    state = estimator.init(x[0])
    if not isinstance(state.mean, torch.Tensor):
        state = estimator.update(state, torch.full_like(x[0], math.nan))
    mean = state.mean
    for sample, theirs in zip(x, expected, strict=True):
        state = estimator.update(state, sample, out=state)
        assert state.mean is mean
        close(state, theirs, 0.0 if dtype == torch.float64 else 1e-6)  # fields keep the dtype that they had
    assert torch.equal(x, kept)


def test_an_out_that_does_not_fit_is_refused_and_left_alone() -> None:
    kalman, x = Kalman(q=0.1, r=1.0), torch.ones(3)
    state = kalman.init(x)
    for out in (kalman.init(torch.ones(2)), EMA(0.9).init(x), kalman.init(np.ones(3)), 1.0):
        with pytest.raises(TypeError, match=r"^out[^\n]*$"):
            kalman.update(state, x, out=out)
    assert torch.isnan(kalman.init(torch.ones(2)).mean).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(
            st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=2, max_size=2
        ),
        max_size=12,
    ),
    st.sampled_from(RECURSIVE),
)
def test_whatever_comes_it_is_what_numpy_makes_of_it(rows: list[list[float]], estimator: Any) -> None:
    x = np.array(rows, dtype=np.float64).reshape(len(rows), 2)
    state, expected = estimator.init(torch.zeros(2, dtype=torch.float64)), estimator.init(np.zeros(2))
    for row in x:
        state = estimator.update(state, torch.from_numpy(row))
        expected = estimator.update(expected, row, on_infinite="missing")
        scale = np.nanmax(np.abs(np.where(np.isfinite(x), x, 0.0))) + 1.0
        np.testing.assert_allclose(state.mean, expected.mean, rtol=1e-9, atol=1e-12 * scale)


# --- shapes and types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator", [EMA(0.9), Kalman(q=0.1, r=1.0), MovingAverage(3), KalmanBank()], ids=repr
)
@pytest.mark.parametrize(
    "sample", [torch.ones(4), torch.ones(3, 2), torch.tensor(1.0), 1.0], ids=["4", "3x2", "()", "float"]
)
def test_samples_that_do_not_fit_the_state_are_refused(estimator: Any, sample: Any) -> None:
    state = estimator.update(estimator.init(torch.ones(3)), torch.ones(3))
    with pytest.raises(ValueError, match=r"^x of shape \([\d, ]*\) does not fit a state of shape \(3,\)$"):
        estimator.update(state, sample)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3)], ids=str)
def test_one_channel_none_and_empty_ones(estimator: Any, shape: tuple[int, ...]) -> None:
    x = torch.from_numpy(np.asarray(stream(5, shape)))
    for state in updated(estimator, x):
        assert state.mean.shape == shape
        assert state.mean.dtype == torch.float64
    np.testing.assert_allclose(state.mean, np.asarray(of_numpy(estimator, x.numpy())[-1].mean), rtol=1e-12)


PARAMETERS: list[Any] = [
    EMA(np.array([0.5, 0.9])),
    DebiasedEMA(np.array([0.5, 0.9])),
    Kalman(q=np.array([0.1, 0.2]), r=1.0),
    Kalman(q=0.1, r=np.array([1.0, 0.0]), mean=np.array([0.0, 5.0]), variance=np.array([np.inf, 1.0])),
    Holt(np.array([0.3, 0.5]), 0.1),
    SwitchingKalman(q=np.array([0.1, 0.2]), r=1.0),
]


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("shape", [(2,), (3, 2), (3, 1), ()], ids=str)
@pytest.mark.parametrize("estimator", PARAMETERS, ids=repr)
def test_parameters_of_each_channel_broadcast_as_in_numpy(estimator: Any, shape: Any, gaps: bool) -> None:
    x = np.asarray(stream(12, shape))
    if gaps:
        x[[0, 4, 5]] = np.nan
        x.reshape(12, -1)[7, -1] = np.nan
    ours, theirs = updated(estimator, torch.from_numpy(x)), of_numpy(estimator, x)
    for one, other in zip(ours, theirs, strict=True):
        assert one.mean.shape == np.broadcast_shapes(shape, (2,))
        close(one, other, 1e-12)
    result = estimator.filter(torch.from_numpy(x))
    np.testing.assert_allclose(result.mean, np.stack([numbers(each.mean) for each in theirs]), rtol=1e-12)
    run = filtering.filter(estimator, torch.from_numpy(x))
    np.testing.assert_allclose(run.mean, result.mean, rtol=1e-12)


@pytest.mark.parametrize("estimator", PARAMETERS[:4], ids=repr)
def test_a_state_of_the_parameters_serves_any_number_of_channels(estimator: Any) -> None:
    x = np.asarray(stream(4, (3, 1)))
    x[0] = np.nan
    state = estimator.init(None)
    for row in x:
        state = estimator.update(state, torch.from_numpy(row))
        assert state.mean.shape == (3, 2)
    close(state, of_numpy(estimator, x)[-1], 1e-12)


def test_a_stated_start_keeps_its_precision_where_samples_are_missing() -> None:
    missing = torch.full((3,), math.nan, dtype=torch.float64)
    for estimator in (EMA(0.9, initial=0.1), Kalman(q=0.1, r=1.0, mean=0.1, variance=1.0)):
        for start in (estimator.init(None), estimator.init(missing)):
            state = estimator.update(start, missing)
            assert state.mean.tolist() == [0.1, 0.1, 0.1]
            written = estimator.update(state, torch.arange(3.0, dtype=torch.float64), out=state)
            expected = estimator.update(estimator.update(estimator.init(np.zeros(3)), None), np.arange(3.0))
            close(written, expected, 1e-15)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize(
    "wrong",
    [torch.tensor([1, 2]), torch.tensor([1.0 + 2.0j, 0.0]), torch.tensor([True, False])],
    ids=["int", "complex", "bool"],
)
def test_other_than_real_numbers_are_refused_as_samples(estimator: Any, wrong: Any) -> None:
    state = estimator.init(torch.ones(2))
    for call in (lambda: estimator.init(wrong), lambda: estimator.update(state, wrong)):
        with pytest.raises(TypeError, match=r"^x(0)? holds [^\n]*; samples must be [^\n]*$"):
            call()


@pytest.mark.parametrize("estimator", [Kalman(q=0.1, r=1.0), MovingAverage(3)], ids=repr)
def test_what_is_known_of_a_sample_is_taken_with_arrays_alone(estimator: Any) -> None:
    state = estimator.init(torch.ones(2))
    with pytest.raises(TypeError, match=r"^steps, weight and r are taken with NumPy arrays alone[^\n]*$"):
        estimator.update(state, torch.ones(2), steps=2.0)


@pytest.mark.parametrize("estimator", [Kalman(q=0.1, r=1.0), MovingAverage(3)], ids=repr)
def test_a_state_of_another_estimator_is_refused(estimator: Any) -> None:
    for other in (EMA(0.9), DebiasedEMA(0.9), KalmanBank()):
        with pytest.raises(TypeError, match=r"state is a \w+; it must be [^\n]*State[^\n]*$"):
            estimator.update(other.init(torch.ones(2)), torch.ones(2))


# --- whole streams ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_a_stream_is_filtered_as_in_numpy_and_comes_back_as_tensors(estimator: Any, gaps: bool) -> None:
    x = stream(gaps=gaps)
    expected = estimator.filter(x, on_infinite="missing")
    for dtype, tolerance in ((torch.float64, 0.0), (torch.float32, 2e-5)):
        found = estimator.filter(torch.from_numpy(x).to(dtype))
        assert found.mean.dtype == dtype
        np.testing.assert_allclose(found.mean, expected.mean, rtol=tolerance, atol=tolerance)
        if expected.variance is None:
            assert found.variance is None
        else:
            assert found.variance.dtype == dtype
        assert isinstance(found.innovation, torch.Tensor)


def test_tensors_of_integers_are_filtered_in_the_default_dtype() -> None:
    found = EMA(0.5).filter(torch.tensor([1, 2, 3]))
    assert found.mean.dtype == torch.get_default_dtype()
    assert found.mean.tolist() == [0.5, 1.25, 2.125]


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_a_filter_goes_on_from_any_state_of_tensors_or_arrays(estimator: Any) -> None:
    x = stream(gaps=True)
    whole = estimator.filter(x, on_infinite="missing").mean
    ours = torch.from_numpy(x)
    first, state = estimator.filter(ours[:14]), updated(estimator, ours[:14])[-1]
    for start in (first.state, state):
        found = estimator.filter(ours[14:], state=start)
        np.testing.assert_allclose(found.mean, whole[14:], rtol=1e-12)
        online = estimator.tracker(start)
        np.testing.assert_allclose(online.update(ours[14]), whole[14], rtol=1e-12)
        moved = estimator.update(start, ours[14])
        np.testing.assert_allclose(moved.mean, whole[14], rtol=1e-12)


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", RECURSIVE, ids=repr)
def test_the_differentiable_run_is_the_filter(estimator: Any, gaps: bool) -> None:
    x = stream(gaps=gaps)
    found, expected = (
        filtering.filter(estimator, torch.from_numpy(x)),
        estimator.filter(x, on_infinite="missing"),
    )
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12, atol=1e-12)
    assert (found.variance is None) is (expected.variance is None)
    if found.variance is not None:
        np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-10)
        assert found.variance.shape == found.mean.shape
    half = filtering.filter(estimator, torch.from_numpy(x[:11]))
    rest = filtering.filter(estimator, torch.from_numpy(x[11:]), state=half.state)
    assert torch.equal(rest.mean.nan_to_num(7.5), found.mean[11:].nan_to_num(7.5))
    close(rest.state, found.state, 0.0)


def test_streams_of_nothing_and_of_no_time() -> None:
    for estimator in (EMA(0.9), Kalman(q=0.1, r=1.0)):
        found = filtering.filter(estimator, torch.empty(0, 3))
        assert found.mean.shape == (0, 3)
        assert found.variance is None or found.variance.shape == (0, 3)
        with pytest.raises(ValueError, match=r"^x has no time axis[^\n]*$"):
            filtering.filter(estimator, torch.tensor(1.0))
    for other in (MovingAverage(3), KalmanBank()):
        with pytest.raises(TypeError, match=r"is no recursive estimator[^\n]*$"):
            filtering.filter(other, torch.ones(3))


# --- gradients ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("estimator", RECURSIVE, ids=repr)
def test_gradients_flow_and_are_those_of_differences(estimator: Any, gaps: bool) -> None:
    x = torch.from_numpy(stream(9, (3,)))
    if gaps:
        x[:2, 0], x[4], x[6, 1], x[7, 2] = math.nan, math.nan, math.inf, -math.inf
    there = torch.isfinite(x)

    def means(z: Any) -> Any:
        mean = filtering.filter(estimator, torch.where(there, z, x)).mean
        return mean[torch.isfinite(mean)]

    z = torch.where(there, x, 1.0).requires_grad_()
    assert torch.autograd.gradcheck(means, (z,), eps=1e-6, atol=1e-6)
    own = x.clone().requires_grad_()
    mean = filtering.filter(estimator, own).mean
    mean[torch.isfinite(mean)].sum().backward()
    assert torch.isfinite(own.grad).all()
    assert (own.grad[~there] == 0.0).all()
    assert (own.grad[there] != 0.0).any()


@pytest.mark.parametrize("estimator", [EMA(0.9), DebiasedEMA(0.9), Kalman(q=0.1, r=1.0)], ids=repr)
def test_the_gradient_of_a_linear_filter_is_its_weights(estimator: Any) -> None:
    x = torch.from_numpy(stream(20, ())).requires_grad_()
    (weights,) = torch.autograd.grad(filtering.filter(estimator, x).mean[-1], x)
    run = estimator.filter(x.detach())
    units = np.eye(20)
    expected = [float(np.asarray(run.replay(unit))[-1]) for unit in units]
    np.testing.assert_allclose(weights, expected, rtol=1e-12, atol=1e-15)


def test_gradients_flow_through_updates_and_not_through_what_is_compiled() -> None:
    x = torch.ones(3, requires_grad=True)
    state = EMA(0.9).update(EMA(0.9).init(x.detach()), 2.0 * x)
    state.mean.sum().backward()
    np.testing.assert_allclose(x.grad, 0.2, rtol=1e-6)
    calls = (
        lambda: EMA(0.9).filter(x),
        lambda: MovingAverage(3).update(MovingAverage(3).init(torch.ones(3)), x),
        lambda: KalmanBank().filter(x),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"^x requires a gradient[^\n]*estimators\.torch\.filter$"):
            call()
    assert estimators.torch.filter is filtering.filter


# --- saving -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gaps", [False, True], ids=["full", "gaps"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_a_saved_state_of_tensors_goes_on(estimator: Any, dtype: Any, gaps: bool) -> None:
    x = torch.from_numpy(stream(gaps=gaps)).to(dtype)
    state = updated(estimator, x[:10])[-1]
    data = json.loads(json.dumps(estimator.to_dict(state), allow_nan=False))
    again = estimator.from_dict(data)
    for sample in x[10:]:
        state, again = estimator.update(state, sample), estimator.update(again, sample)
        assert again.mean.dtype == dtype
        tolerance = 1e-15 if dtype == torch.float64 else 1e-6
        np.testing.assert_allclose(again.mean, state.mean, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("estimator", [EMA(0.9), Kalman(q=0.1, r=1.0), KalmanBank()], ids=repr)
def test_the_state_of_one_channel_is_saved_too(estimator: Any) -> None:
    online = estimator.tracker()
    for value in (1.0, 2.0, math.nan, 1.5):
        online.update(torch.tensor(value, dtype=torch.float64))
    again = estimator.tracker(estimator.from_dict(json.loads(json.dumps(online.to_dict()))))
    sample = torch.tensor(3.0, dtype=torch.float64)
    assert float(again.update(sample)) == pytest.approx(float(online.update(sample)), rel=1e-14)
