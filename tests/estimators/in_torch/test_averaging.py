"""Averaged models: the estimators' own means, torch's averages, precision, resuming, buffers, ties."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn  # noqa: E402

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
    RobustKalman,
    SwitchingKalman,
    VariationalKalman,
)
from estimators.torch.averaging import FilteredModel  # noqa: E402
from estimators.torch.per_tensor import PerTensor  # noqa: E402

AT_THE_MODEL: list[Any] = [EMA(0.9), Kalman(q=0.01, r=1.0, mean=0.0, variance=2.0)]
FROM_NOTHING: list[Any] = [
    EMA(0.9, initial=None),
    DebiasedEMA(0.9),
    DebiasedEMA(0.999999),
    EMAWithVariance(0.9),
    Holt(0.5, 0.2),
    Kalman(q=0.01, r=1.0),
    Kalman(q=0.0, r=1.0),
    KalmanBank(),
    MehraKalman(),
    MovingAverage(4),
    ResettingKalman(q=1e-4, r=1.0),
    RobustKalman(q=0.01, r=0.01),
    SwitchingKalman(q=1e-4, r=1.0),
    VariationalKalman(q=0.01),
]
FEW: list[Any] = [EMA(0.9), DebiasedEMA(0.99), Kalman(q=0.01, r=1.0), MehraKalman(), MovingAverage(4)]
BY_TENSOR = PerTensor(MehraKalman(), directions=4)


def small(seed: int = 0, dtype: Any = torch.float32) -> Any:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def move(model: Any, seed: int) -> None:
    """Stands for a step of training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def weights(model: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()])


def run(average: Any, model: Any, steps: range) -> np.ndarray[Any, Any]:
    """Samples that the average has seen."""
    samples = []
    for step in steps:
        move(model, step)
        samples.append(weights(model))
        average.update_parameters(model)
    return np.array(samples)


def saved(module: Any) -> Any:
    """A state as a fresh process reads it."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def alike(one: Any, other: Any) -> bool:
    """Whether two states are the same bit for bit; NaN equals itself."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return bool(one == other or (one != one and other != other))


@pytest.mark.parametrize("estimator", FROM_NOTHING, ids=repr)
def test_the_mean_is_the_estimators_own_from_the_first_update_on(estimator: Any) -> None:
    model = small(dtype=torch.float64)
    average, samples, means = FilteredModel(model, estimator), [], []
    for step in range(25):
        samples.append(run(average, model, range(step, step + 1))[0])
        means.append(weights(average))
    np.testing.assert_array_equal(means[0], samples[0])
    np.testing.assert_allclose(means, estimator.filter(np.array(samples)).mean, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", AT_THE_MODEL, ids=repr)
def test_a_stated_start_is_the_model_as_it_was(estimator: Any) -> None:
    model = small(dtype=torch.float64)
    average, start = FilteredModel(model, estimator), weights(model)
    np.testing.assert_array_equal(weights(average), start)
    samples = run(average, model, range(25))
    expected = start + estimator.filter(samples - start).mean[-1]
    np.testing.assert_allclose(weights(average), expected, rtol=0, atol=1e-13)


def test_one_gain_for_each_tensor() -> None:
    model = small(dtype=torch.float64)
    average, before = FilteredModel(model, BY_TENSOR), small(dtype=torch.float64)
    for step in range(12):
        run(average, model, range(step, step + 1))
        for mean, old, live in zip(
            average.module.parameters(), before.parameters(), model.parameters(), strict=True
        ):
            gains = ((mean - old) / (live - old)).flatten()
            torch.testing.assert_close(gains, gains[:1].expand_as(gains), rtol=1e-7, atol=0)
            assert 0.0 < gains[0].item() <= 1.0
        before.load_state_dict(average.module.state_dict())


def test_a_target_network_as_byol_writes_it() -> None:
    model = small(dtype=torch.float64)
    target, xi = FilteredModel(model, EMA(0.996)), weights(model)
    for step in range(50):
        theta = run(target, model, range(step, step + 1))[0]
        xi = 0.996 * xi + 0.004 * theta
    np.testing.assert_allclose(weights(target), xi, rtol=0, atol=1e-13)


def test_torchs_own_averages() -> None:
    decay, eps = 0.95, np.finfo(np.float32).eps
    pairs = [
        (FilteredModel(small(), Kalman(q=0.0, r=1.0)), AveragedModel(small())),
        (
            FilteredModel(small(), EMA(decay, initial=None)),
            AveragedModel(small(), multi_avg_fn=get_ema_multi_avg_fn(decay)),
        ),
    ]
    for ours, theirs in pairs:
        model, most = small(), 0.0
        for step in range(200):
            samples = run(ours, model, range(step, step + 1))
            theirs.update_parameters(model)
            most = max(most, np.abs(samples).max())
        np.testing.assert_allclose(weights(ours), weights(theirs), rtol=0, atol=8 * eps * most)
        assert int(ours.n_averaged) == int(theirs.n_averaged) == 200
        x = torch.randn(5, 3)
        assert torch.equal(ours(x), ours.module(x))
    # Torch copies the first sample: its EMA never rests on the model as it was, which ours does if asked to.
    model = small()
    ours, theirs = (
        FilteredModel(model, EMA(decay)),
        AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay)),
    )
    run(ours, model, range(1))
    theirs.update_parameters(model)
    assert np.abs(weights(ours) - weights(theirs)).max() > 0.1


@pytest.mark.parametrize(
    "estimator",
    [DebiasedEMA(0.999999), EMA(0.999999), Kalman(q=0.0, r=1.0), Kalman(q=1e-12, r=1.0)],
    ids=repr,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_rest_come_out_bit_for_bit(estimator: Any, dtype: Any) -> None:
    model = small(3, dtype)
    average = FilteredModel(model, estimator)
    for count in range(1, 1001):
        average.update_parameters(model)
        if count in (1, 10, 1000):
            assert np.array_equal(weights(average), weights(model))


@pytest.mark.parametrize(
    "estimator", [DebiasedEMA(0.999999), DebiasedEMA(0.99), Kalman(q=0.0, r=1.0)], ids=repr
)
def test_single_precision_is_as_good_as_its_rounding(estimator: Any) -> None:
    model = small()
    average = FilteredModel(model, estimator)
    samples = run(average, model, range(1000))
    error = np.abs(weights(average) - estimator.filter(samples).mean[-1])
    assert error.max() < 8 * np.finfo(np.float32).eps * np.abs(samples).max()


def test_a_mean_of_higher_precision_sees_what_a_single_one_no_longer_does() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    single, double = (
        FilteredModel(model, EMA(0.999999)),
        FilteredModel(model, EMA(0.999999), dtype=torch.float64),
    )
    nn.init.constant_(model.weight, 1.01)
    for _ in range(2000):
        single.update_parameters(model)
        double.update_parameters(model)
    assert single.module.weight.item() == 1.0
    moved = 1.0 + (np.float32(1.01) - 1.0) * (1.0 - 0.999999**2000)
    assert double.module.weight.item() == np.float32(moved) > 1.0
    assert double.module.weight.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_does_not_stall(dtype: Any) -> None:
    model = nn.Linear(2, 2, dtype=dtype)
    nn.init.constant_(model.weight, 1.0)
    ours = FilteredModel(model, EMA(0.999))
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    theirs.update_parameters(model)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(1000):
        ours.update_parameters(model)
        theirs.update_parameters(model)
    expected = torch.tensor(2.0 - 0.999**1000).to(dtype)
    assert torch.equal(ours.module.weight, expected.expand(2, 2))
    assert (theirs.module.weight < expected - 0.1).all()


def test_a_model_of_half_precision_averaged_in_one_of_single() -> None:
    average, model = FilteredModel(small(), DebiasedEMA(0.9)), small(dtype=torch.bfloat16)
    samples = run(average, model, range(20))
    expected = DebiasedEMA(0.9).filter(samples).mean[-1]
    np.testing.assert_allclose(weights(average), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("estimator", [*FEW, BY_TENSOR], ids=repr)
def test_a_run_that_was_killed_goes_on_bit_for_bit(estimator: Any, dtype: Any) -> None:
    def start(seed: int) -> Any:
        model = nn.Sequential(small(seed, dtype), nn.BatchNorm1d(2, dtype=dtype))
        return model, FilteredModel(model, estimator, use_buffers=True)

    model, average = start(0)
    run(average, model, range(7))
    of_model, of_average = saved(model), saved(average)
    run(average, model, range(7, 15))

    resumed_model, resumed = start(1)
    resumed_model.load_state_dict(of_model)
    resumed.load_state_dict(of_average)
    run(resumed, resumed_model, range(7, 15))
    assert alike(dict(resumed.state_dict()), dict(average.state_dict()))


def test_a_state_before_the_first_update_and_within_another_module() -> None:
    online = small()
    learner = nn.ModuleDict({"online": online, "target": FilteredModel(online, DebiasedEMA(0.9))})
    other = nn.ModuleDict({"online": small(1), "target": FilteredModel(small(1), DebiasedEMA(0.9))})
    other.load_state_dict(saved(learner))
    for of_one in (learner, other):
        run(of_one["target"], of_one["online"], range(5))
    assert alike(dict(learner.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize("estimator", [MehraKalman(), MovingAverage(4)], ids=repr)
def test_what_was_loaded_is_a_copy(estimator: Any) -> None:
    model, other = small(), small()
    first, second = FilteredModel(model, estimator), FilteredModel(other, estimator)
    samples = run(first, model, range(3))
    other.load_state_dict(model.state_dict())
    second.load_state_dict(first.state_dict())
    run(first, model, range(20, 40))
    samples = np.concatenate([samples, run(second, other, range(3, 8))])
    expected = estimator.filter(samples).mean[-1]
    np.testing.assert_allclose(weights(second), expected, rtol=0, atol=2e-5)


def test_a_state_follows_the_average_and_a_copy_does_not() -> None:
    model = small()
    average = FilteredModel(model, DebiasedEMA(0.9))
    run(average, model, range(3))
    alias, frozen, twin = average.state_dict(), copy.deepcopy(average.state_dict()), copy.deepcopy(average)
    run(average, model, range(3, 6))
    assert alike(dict(alias), dict(average.state_dict()))
    assert alike(dict(frozen), dict(twin.state_dict()))
    assert not alike(dict(frozen), dict(alias))


def test_a_state_of_another_estimator_or_model_is_refused_in_one_line() -> None:
    state = saved(FilteredModel(small(), DebiasedEMA(0.9)))
    for estimator in (DebiasedEMA(0.99), EMA(0.9), Kalman(q=0.0, r=1.0)):
        with pytest.raises(
            ValueError, match=r"FilteredModel: the average was saved under .*0\.9.* must be"
        ) as e:
            FilteredModel(small(), estimator).load_state_dict(state)
        assert "\n" not in str(e.value)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False))
    other = FilteredModel(model, DebiasedEMA(0.9))
    with pytest.raises(ValueError, match=r"of other tensors: \['0.bias', '2.bias'\]") as e:
        other.load_state_dict(state, strict=False)
    assert "\n" not in str(e.value)


class WithBuffers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.steps = nn.Parameter(torch.zeros(2, dtype=torch.long), requires_grad=False)
        self.register_buffer("level", torch.zeros(2))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def test_buffers_are_averaged_or_copied_as_they_are_kept() -> None:
    model = WithBuffers()
    copied = FilteredModel(model, EMA(0.5))
    averaged = FilteredModel(model, EMA(0.5), use_buffers=True)
    for step in (1, 2, 3):
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(step)
        for average in (copied, averaged):
            average.update_parameters(model)
            assert average.module.steps.tolist() == [step] * 2
            assert average.module.count.item() == step
            assert average.module.cache.tolist() == [step] * 2
        assert copied.module.level.tolist() == [step] * 2
    mean = 0.125 * 1 + 0.25 * 2 + 0.5 * 3
    assert averaged.module.level.tolist() == averaged.module.weight.tolist() == [mean] * 2


def test_update_bn_finds_the_statistics_of_the_averaged_weights() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = FilteredModel(model, DebiasedEMA(0.9))
    run(average, model, range(5))
    torch.manual_seed(0)
    loader = [torch.randn(64, 3) for _ in range(6)]
    update_bn(loader, average)
    with torch.no_grad():
        seen = torch.stack([average.module[0](x).mean(0) for x in loader]).mean(0)
    torch.testing.assert_close(average.module[1].running_mean, seen, rtol=0, atol=1e-6)
    assert average.module[1].num_batches_tracked.item() == 6


def test_weights_that_are_shared_move_once() -> None:
    model = small(dtype=torch.float64)
    model.append(nn.Linear(4, 2, dtype=torch.float64))
    model[3].weight = model[2].weight
    average = FilteredModel(model, EMA(0.5))
    assert average.module[3].weight is average.module[2].weight
    before = model[2].weight.detach().clone()
    move(model, 0)
    average.update_parameters(model)
    torch.testing.assert_close(average.module[2].weight, 0.5 * (before + model[2].weight), rtol=0, atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([None, "nan", "inf"]), min_size=1, max_size=12), st.sampled_from(FEW))
def test_a_tensor_that_is_not_finite_is_a_missing_sample(faults: list[str | None], estimator: Any) -> None:
    model = nn.Linear(2, 1, dtype=torch.float64)
    average, start = FilteredModel(model, estimator), weights(model)
    rows = []
    for step, fault in enumerate(faults):
        live = copy.deepcopy(model)
        move(live, step)
        row = weights(live)
        if fault is not None:
            live.weight.data[0, 1] = float(fault)
            row[:2] = np.nan
        rows.append(row)
        average.update_parameters(live)
    stated = start if estimator == EMA(0.9) else 0.0
    expected = stated + estimator.filter(np.array(rows) - stated).mean[-1]
    expected = np.where(np.isnan(expected), start, expected)
    np.testing.assert_allclose(weights(average), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("estimator", FEW, ids=repr)
def test_tensors_stay_where_they_are_and_no_graph_is_made(estimator: Any, dtype: Any) -> None:
    model = small(dtype=dtype)
    average = FilteredModel(model, estimator)
    where = [(p, p.data_ptr()) for p in average.module.parameters()]
    for step in range(4):
        move(model, step)
        with torch.inference_mode(step == 1):
            average.update_parameters(model)
    for (before, pointer), after in zip(where, average.module.parameters(), strict=True):
        assert after is before
        assert after.data_ptr() == pointer
        assert after.is_leaf
        assert after.requires_grad
        assert not after.is_inference()
    expected = FilteredModel(small(dtype=dtype), estimator)
    run(expected, small(dtype=dtype), range(4))
    assert np.array_equal(weights(average), weights(expected))


@pytest.mark.parametrize("estimator", [EMA(0.75), DebiasedEMA(0.9), MehraKalman()], ids=repr)
def test_tensors_that_are_cut_or_lie_otherwise_are_averaged_alike(estimator: Any) -> None:
    class Odd(nn.Module):
        def __init__(self, shape: tuple[int, ...], turned: bool = False) -> None:
            super().__init__()
            whole = torch.linspace(-1.0, 1.0, 300_000).reshape(shape)
            self.weight = nn.Parameter(whole.T.contiguous().T if turned else whole)

    odds = Odd((300, 1000)), Odd((300, 1000), turned=True), Odd((300_000,))
    assert not odds[1].weight.is_contiguous()
    averages = [FilteredModel(odd, estimator) for odd in odds]
    for step in range(3):
        with torch.no_grad():
            for odd, average in zip(odds, averages, strict=True):
                odd.weight *= 1.0 + 0.1 * step
                average.update_parameters(odd)
    first, *others = (average.module.weight.detach().reshape(-1) for average in averages)
    assert all(torch.equal(first, other) for other in others)
    crossed = FilteredModel(odds[0], DebiasedEMA(0.9))
    crossed.update_parameters(odds[1])
    assert torch.equal(crossed.module.weight, odds[1].weight)
    top = first[-1].item()
    start = 1.0 if estimator == EMA(0.75) else 0.0
    samples = np.cumprod([1.0, 1.1, 1.2]) - start
    assert top == pytest.approx(start + estimator.filter(samples).mean[-1], rel=1e-6)


def test_complex_weights_are_two_real_ones() -> None:
    class Phase(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))

    model = Phase()
    average = FilteredModel(model, EMA(0.5))
    for value in (4.0 + 2.0j, 2.0j):
        nn.init.constant_(model.weight, value)
        average.update_parameters(model)
    assert average.module.weight.tolist() == [1.0 + 1.5j] * 2


def test_a_module_that_changes_its_precision_goes_on() -> None:
    model = small()
    average = FilteredModel(model, DebiasedEMA(0.9))
    samples = [run(average, model, range(5))]
    average.half()
    samples.append(run(average, model, range(5, 10)))
    average.double()
    samples.append(run(average, model, range(10, 60)))
    assert average.module[0].weight.dtype == torch.float64
    expected = DebiasedEMA(0.9).filter(np.concatenate(samples)).mean[-1]
    np.testing.assert_allclose(weights(average), expected, rtol=0, atol=2e-4 * 0.9**50 + 1e-6)


def test_a_model_within_a_wrapper_pairs_and_another_is_refused() -> None:
    model = small()
    average = FilteredModel(model, EMA(0.5))
    average.update_parameters(nn.DataParallel(model))
    before = weights(average)
    for other in (nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))):
        with pytest.raises(
            ValueError, match=r"FilteredModel: the model's parameters have shapes .* must be"
        ) as e:
            average.update_parameters(other)
        assert "\n" not in str(e.value)
    assert np.array_equal(weights(average), before)


@pytest.mark.parametrize(
    ("estimator", "error", "says"),
    [
        (None, TypeError, "estimator=None is not valid"),
        (0.999, TypeError, "estimator=0.999 is not valid"),
        (EMA(0.9, initial=0.5), ValueError, "starts from nothing, or at 0"),
        (Kalman(q=0.1, r=1.0, mean=1.0, variance=1.0), ValueError, "starts from nothing, or at 0"),
        (EMA(np.array([0.9, 0.99])), ValueError, "estimator.beta is an array"),
        (Log(EMA(0.9)), ValueError, "weights of either sign"),
    ],
)
def test_what_cannot_average_weights_is_refused_in_one_line(estimator: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says) as e:
        FilteredModel(small(), estimator)
    assert str(e.value).startswith("FilteredModel: ")
    assert "\n" not in str(e.value)


def test_a_dtype_of_integers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dtype=torch\.int64 is not valid; dtype must be of floating-point"):
        FilteredModel(small(), EMA(0.9), dtype=torch.int64)
