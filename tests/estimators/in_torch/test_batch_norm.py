"""Running statistics of batch-norm by gains: torch's momenta, the estimators' means, resuming, removing."""

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
from torch.optim.swa_utils import update_bn  # noqa: E402

from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    MehraKalman,
    MovingAverage,
)
from estimators.torch.averaging import FilteredModel  # noqa: E402
from estimators.torch.batch_norm import filter_batch_norm  # noqa: E402

FROM_NOTHING: list[Any] = [
    DebiasedEMA(0.9),
    DebiasedEMA(0.999),
    EMA(0.9, initial=None),
    Kalman(q=0.0, r=1.0),
    Kalman(q=0.02, r=1.0),
    Kalman(q=1.0, r=0.0),
]


def network(momentum: float | None = 0.1, dtype: Any = torch.float64) -> Any:
    torch.manual_seed(0)
    layers = nn.BatchNorm1d(3, momentum=momentum), nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=momentum)
    return nn.Sequential(*layers).to(dtype)


def batches(count: int, dtype: Any = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    scale = torch.tensor([1.0, 3.0, 0.1], dtype=torch.float64)
    return [
        (5.0 + scale * torch.randn(16, 3, generator=generator, dtype=torch.float64)).to(dtype)
        for _ in range(count)
    ]


def statistics(model: Any) -> list[Any]:
    return [s for layer in (model[0], model[2]) for s in (layer.running_mean, layer.running_var)]


@pytest.mark.parametrize("estimator", FROM_NOTHING, ids=repr)
def test_the_statistics_are_the_estimators_means_of_those_of_the_batches(estimator: Any) -> None:
    model, seen = network(), batches(40)
    filter_batch_norm(model, estimator)
    for count, batch in enumerate(seen, 1):
        model(batch)
        for name, moments in (
            ("running_mean", np.array([x.mean(0).numpy() for x in seen[:count]])),
            ("running_var", np.array([x.var(0, unbiased=True).numpy() for x in seen[:count]])),
        ):
            expected = estimator.filter(moments).mean[-1]
            np.testing.assert_allclose(getattr(model[0], name).numpy(), expected, rtol=1e-13)


@pytest.mark.parametrize(
    ("estimator", "momentum"), [(EMA(0.9), 0.1), (EMA(0.99), 0.01), (Kalman(q=0.0, r=1.0), None)]
)
def test_momenta_that_torch_has(estimator: Any, momentum: float | None) -> None:
    ours, theirs = network(), network(momentum)
    filter_batch_norm(ours, estimator)
    for batch in batches(60):
        torch.testing.assert_close(ours(batch), theirs(batch), rtol=0, atol=0)
        torch.testing.assert_close(statistics(ours), statistics(theirs), rtol=1e-13, atol=1e-15)


def test_a_stated_start_is_the_statistics_as_they_are() -> None:
    estimator = Kalman(q=0.01, r=1.0, mean=0.0, variance=0.5)
    model, seen = network(), batches(20)
    filter_batch_norm(model, estimator)
    for batch in seen:
        model(batch)
    moments = np.array([x.var(0, unbiased=True).numpy() for x in seen]) - 1.0
    expected = 1.0 + estimator.filter(moments).mean[-1]
    np.testing.assert_allclose(model[0].running_var.numpy(), expected, rtol=1e-13)


def test_the_first_batches_count_where_momentum_makes_little_of_them() -> None:
    plain, debiased = network(0.01), network(0.01)
    filter_batch_norm(debiased, DebiasedEMA(0.99))
    for batch in batches(20):
        plain(batch)
        debiased(batch)
    assert (debiased[0].running_mean - 5.0).abs().max() < 0.6
    assert (plain[0].running_mean - 5.0).abs().min() > 3.5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200_000), st.sampled_from([*FROM_NOTHING, EMA(0.99)]))
def test_the_gain_is_that_of_the_layers_own_count(done: int, estimator: Any) -> None:
    layer = nn.BatchNorm1d(1, dtype=torch.float64)
    filter_batch_norm(layer, estimator)
    layer.num_batches_tracked.fill_(done)
    layer.running_mean.zero_()
    layer(torch.tensor([[1.0], [1.0]], dtype=torch.float64))
    gain = estimator.filter(np.zeros(done + 1)).gain[-1]
    assert layer.running_mean.item() == pytest.approx(gain, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("estimator", [DebiasedEMA(0.99), Kalman(q=0.0, r=1.0)], ids=repr)
def test_a_run_that_was_killed_goes_on_bit_for_bit(estimator: Any, dtype: Any) -> None:
    seen = batches(30, dtype)
    whole = network(dtype=dtype)
    filter_batch_norm(whole, estimator)
    for batch in seen[:13]:
        whole(batch)
    file = io.BytesIO()
    torch.save(whole.state_dict(), file)
    file.seek(0)
    resumed = network(dtype=dtype)
    filter_batch_norm(resumed, estimator)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for batch in seen[13:]:
        whole(batch)
        resumed(batch)
    assert resumed.state_dict().keys() == network().state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(statistics(whole), statistics(resumed), strict=True))
    assert whole[0].num_batches_tracked.item() == 30


def test_nothing_changes_in_eval_mode() -> None:
    model = network()
    filter_batch_norm(model, DebiasedEMA(0.9))
    seen = batches(6)
    for batch in seen[:5]:
        model(batch)
    before = copy.deepcopy(model.state_dict())
    model.eval()
    model(seen[5])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model[0].momentum == pytest.approx(0.1)


def test_remove_gives_back_the_momenta_that_were_there() -> None:
    model, plain = network(), network()
    for of_one in (model, plain):
        of_one[0].momentum, of_one[2].momentum = None, 0.3
    handle = filter_batch_norm(model, Kalman(q=0.02, r=1.0))
    assert model[0].momentum == model[2].momentum == Kalman(q=0.02, r=1.0).steady_gain
    handle.remove()
    handle.remove()
    for batch in batches(5):
        model(batch)
        plain(batch)
    assert (model[0].momentum, model[2].momentum) == (None, 0.3)
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), statistics(plain), strict=True))
    filter_batch_norm(model, EMA(0.9))


def test_a_momentum_that_somebody_sets_is_left_alone() -> None:
    model, plain = network(), network()
    handle = filter_batch_norm(model, DebiasedEMA(0.9))
    model[0].momentum = model[2].momentum = plain[0].momentum = plain[2].momentum = 0.4
    for batch in batches(3):
        model(batch)
        plain(batch)
    handle.remove()
    assert model[0].momentum == 0.4
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), statistics(plain), strict=True))


def test_update_bn_and_copies() -> None:
    model, seen = network(), batches(8)
    handle = filter_batch_norm(model, DebiasedEMA(0.5))
    average = FilteredModel(model, DebiasedEMA(0.9))
    for batch in seen:
        model(batch)
        average.update_parameters(model)
    handle.remove()
    update_bn(seen, average)
    own = torch.stack([batch.mean(0) for batch in seen]).mean(0)
    torch.testing.assert_close(average.module[0].running_mean, own, rtol=1e-13, atol=0)
    average.module(seen[0])
    assert average.module[0].momentum == 0.5, "the copy is filtered still"
    moved = own + DebiasedEMA(0.5).filter(np.zeros(9)).gain[-1] * (seen[0].mean(0) - own)
    torch.testing.assert_close(average.module[0].running_mean, moved, rtol=1e-13, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of a step of the compiler's own
def test_a_compiled_model_keeps_the_same_statistics() -> None:
    model, plain = network(), network()
    for of_one in (model, plain):
        filter_batch_norm(of_one, DebiasedEMA(0.9))
    compiled = torch.compile(model, backend="eager")
    for batch in batches(4):
        torch.testing.assert_close(compiled(batch), plain(batch), rtol=1e-13, atol=1e-13)
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), statistics(plain), strict=True))


def test_a_pass_that_fails_leaves_the_layer_at_rest() -> None:
    layer = nn.BatchNorm1d(3)
    filter_batch_norm(layer, DebiasedEMA(0.9))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(torch.zeros(1, 3))
    assert layer.momentum == pytest.approx(0.1)


@pytest.mark.parametrize(
    "estimator",
    [
        None,
        0.9,
        MovingAverage(5),
        MehraKalman(),
        EMAWithVariance(0.9),
        Holt(0.5, 0.1),
        DebiasedEMA(np.array([0.9, 0.99])),
        EMA(0.9, initial=np.zeros(2)),
    ],
    ids=repr,
)
def test_estimators_whose_gains_are_not_known_are_refused_in_one_line(estimator: Any) -> None:
    with pytest.raises(ValueError, match=r"^filter_batch_norm: estimator=.*: EMA, DebiasedEMA, Kalman$") as e:
        filter_batch_norm(network(), estimator)
    assert "\n" not in str(e.value)


def test_starts_models_and_layers_that_do_not_serve_are_refused_in_one_line() -> None:
    filtered = network()
    filter_batch_norm(filtered, EMA(0.9))
    cases: list[tuple[Any, Any, str]] = [
        (network(), EMA(0.9, initial=1.0), "starts from nothing, or at 0"),
        (network(), Kalman(q=0.1, r=1.0, mean=2.0, variance=1.0), "starts from nothing, or at 0"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), EMA(0.9), "no batch-norm layer that tracks"),
        (nn.BatchNorm1d(2, track_running_stats=False), EMA(0.9), "no batch-norm layer that tracks"),
        (filtered, DebiasedEMA(0.9), "is filtered already"),
    ]
    for model, estimator, says in cases:
        with pytest.raises(ValueError, match=f"^filter_batch_norm: .*{says}") as e:
            filter_batch_norm(model, estimator)
        assert "\n" not in str(e.value)
