"""One gain for each tensor: it finds q/r at every scale, in large and small tensors, and can be resumed."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

from estimators import EMA, DebiasedEMA, Kalman, KalmanBank, LocalTrend, MehraKalman, RobustKalman
from estimators.response import gain_of

torch = pytest.importorskip("torch")

from estimators.torch import FilteredAdam, PerTensor  # noqa: E402

STEERED = [PerTensor(KalmanBank()), PerTensor(MehraKalman(forgetting=0.98))]


def walk(shape: tuple[int, ...], s: float, steps: int, seed: int, scale: float = 1.0) -> Any:
    """Level and samples of a random walk of q/r = s in noise of variance scale^2."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(np.sqrt(s) * rng.standard_normal((steps, *shape)), axis=0)
    return scale * level, scale * (level + rng.standard_normal((steps, *shape)))


def followed(first: Any, samples: np.ndarray, dtype: Any = torch.float64) -> tuple[np.ndarray, list[float]]:
    """Means and gains of a first moment that sees the samples as gradients; nothing else moves."""
    parameter = torch.nn.Parameter(torch.zeros(samples.shape[1:], dtype=dtype))
    optimiser = FilteredAdam([parameter], lr=0.0, first=first, second=None, weight_decay=0.0)
    means, gains = [], []
    for sample in samples:
        parameter.grad = torch.as_tensor(sample, dtype=dtype)
        optimiser.step()
        kept = optimiser.state[parameter]
        means.append(kept["first.mean"].double().numpy().copy())
        gains.append(kept.get("first.gain"))
    return np.array(means), gains


@pytest.mark.parametrize("first", STEERED, ids=["bank", "mehra"])
@pytest.mark.parametrize("s", [1e-3, 1e-2, 0.1, 1.0])
def test_the_error_is_near_that_of_the_filter_that_is_told(first: PerTensor, s: float) -> None:
    level, samples = walk((20, 30), s, 800, seed=1)
    means, gains = followed(first, samples)
    told = Kalman(q=s, r=1.0).filter(samples).mean
    error, least = (np.mean((mean[300:] - level[300:]) ** 2) for mean in (means, told))
    assert error <= 1.06 * least
    assert 0.5 * gain_of(np.asarray(s)) < np.mean(gains[300:]) < 2.0 * gain_of(np.asarray(s))


@pytest.mark.parametrize("shape", [(), (1,), (10,), (33,)])
def test_small_tensors_are_their_own_projections(shape: tuple[int, ...]) -> None:
    level, samples = walk(shape, 0.1, 2000, seed=2)
    means, _ = followed(PerTensor(KalmanBank()), samples)
    told = Kalman(q=0.1, r=1.0).filter(samples).mean
    error, least = (np.mean((mean[300:] - level[300:]) ** 2) for mean in (means, told))
    assert error <= 1.1 * least


@pytest.mark.parametrize("first", STEERED, ids=["bank", "mehra"])
def test_gains_do_not_depend_on_the_scale(first: PerTensor) -> None:
    _, samples = walk((40,), 0.01, 200, seed=3)
    _, gains = followed(first, samples)
    for scale in (2.0**-300, 2.0**300):
        np.testing.assert_allclose(followed(first, scale * samples)[1], gains, rtol=1e-9)
    single = followed(first, 1e-20 * samples, torch.float32)[1]
    np.testing.assert_allclose(single, gains, rtol=1e-3)


@pytest.mark.parametrize("first", STEERED, ids=["bank", "mehra"])
def test_gradients_of_zero_and_constant_ones_leave_numbers(first: PerTensor) -> None:
    zeros = np.zeros((100, 50))
    for samples in (zeros, zeros + 3.0):
        means, gains = followed(first, samples)
        assert np.array_equal(means, samples)
        assert np.all(np.isfinite(gains))
    _, samples = walk((50,), 0.01, 600, seed=4)
    samples[200:300] = 0.0
    means, gains = followed(first, samples)
    assert np.all(np.isfinite(means))
    assert 0.0 < gains[-1] < 0.3


def test_a_fixed_filter_keeps_its_own_gain() -> None:
    _, samples = walk((7, 9), 0.01, 60, seed=5)
    for estimator in (EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(q=0.01, r=1.0)):
        means, gains = followed(PerTensor(estimator), samples)
        plain, _ = followed(estimator, samples)
        np.testing.assert_allclose(means, plain, rtol=0.0, atol=1e-12)
        np.testing.assert_allclose(gains, estimator.filter(samples[:, 0, 0]).gain, rtol=1e-12)


@pytest.mark.parametrize("estimator", [EMA(0.9), Kalman(q=0.01, r=1.0, mean=0.0, variance=1.0)], ids=repr)
def test_a_start_at_zero_is_a_start_of_the_mean(estimator: Any) -> None:
    _, samples = walk((7, 9), 0.01, 60, seed=9)
    means, _ = followed(PerTensor(estimator), samples)
    np.testing.assert_allclose(means, estimator.filter(samples).mean, rtol=0.0, atol=1e-12)
    with pytest.raises((TypeError, ValueError), match=r"^PerTensor: estimator=EMA"):
        PerTensor(EMA(0.9, initial=1.0))


def test_the_least_gain_holds() -> None:
    _, samples = walk((100,), 1e-6, 500, seed=6)
    free, bounded = (
        followed(PerTensor(KalmanBank(), least_gain=least), samples)[1][-1] for least in (0.0, 0.05)
    )
    assert free < 0.02
    assert bounded == 0.05


def test_memory_beside_the_mean_does_not_grow_with_the_tensor() -> None:
    beside = []
    for count in (100, 100_000):
        parameter = torch.nn.Parameter(torch.zeros(count))
        optimiser = FilteredAdam([parameter], first=PerTensor(KalmanBank()))
        for _ in range(3):
            parameter.grad = torch.randn(count)
            optimiser.step()
        kept = optimiser.state[parameter]
        tensors = [value for value in kept.values() if isinstance(value, torch.Tensor)]
        assert sum(value.numel() == count for value in tensors) == 2  # both means
        beside.append(sum(value.nbytes for value in tensors) - 2 * 4 * count)
    assert beside[0] == beside[1]


@pytest.mark.parametrize("first", STEERED, ids=["bank", "mehra"])
def test_a_saved_state_goes_on_bit_for_bit_skipped_steps_included(first: PerTensor) -> None:
    torch.manual_seed(0)
    gradients = torch.randn(40, 2, 70)
    gradients[5, 0], gradients[20, 1] = torch.nan, torch.inf

    def trained(stop: int | None) -> list[Any]:
        parameters = [torch.nn.Parameter(torch.ones(70)) for _ in range(2)]
        optimiser = FilteredAdam(parameters, first=first)
        for t, gradient in enumerate(gradients):
            if t == stop:
                file = io.BytesIO()
                torch.save(optimiser.state_dict(), file)
                file.seek(0)
                optimiser = FilteredAdam(parameters, first=copy.deepcopy(first))
                optimiser.load_state_dict(torch.load(file, weights_only=True))
            for parameter, own in zip(parameters, gradient, strict=True):
                parameter.grad = own.clone()
            optimiser.step()
        return [parameter.detach() for parameter in parameters]

    for whole, resumed in zip(trained(None), trained(23), strict=True):
        assert torch.equal(whole, resumed)
        assert torch.isfinite(whole).all()


def test_settings_that_cannot_be_are_named() -> None:
    for bad in (LocalTrend(0.1, 0.01, 1.0), "bank", Kalman(np.array([0.1, 0.2]), 1.0)):
        with pytest.raises(
            TypeError, match=r"^PerTensor: estimator=.* is not valid; it must be a KalmanBank"
        ):
            PerTensor(bad)
    with pytest.raises(ValueError, match=r"^PerTensor: directions=0 is not valid; .* an int >= 1$"):
        PerTensor(KalmanBank(), directions=0)
    with pytest.raises(ValueError, match=r"^PerTensor: least_gain=2 is not valid; .* in \[0, 1\]$"):
        PerTensor(KalmanBank(), least_gain=2)


def test_other_estimators_average_the_gains_of_their_channels() -> None:
    level, samples = walk((500,), 0.01, 500, seed=7)
    samples[::20] += 30.0 * np.random.default_rng(8).choice([-1.0, 1.0], samples[::20].shape)
    robust, plain = (
        np.mean((followed(PerTensor(e), samples)[0][100:] - level[100:]) ** 2)
        for e in (RobustKalman(q=0.01 * 16, r=16.0), Kalman(q=0.01, r=1.0))
    )
    assert robust < plain
