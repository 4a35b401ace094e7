"""Averaged parameters beside a flax model: the filter's numbers, unseen by optimisers, whole when saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators import EMA, DebiasedEMA, EMAWithVariance, Kalman, MovingAverage

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
nnx = pytest.importorskip("flax.nnx")
jnp = jax.numpy

from estimators.jax import AverageState, ParameterAverage, filtered_adam  # noqa: E402


class Network(nnx.Module):
    def __init__(self, rngs: Any, dtype: Any = jnp.float32) -> None:
        self.first = nnx.Linear(3, 4, rngs=rngs, param_dtype=dtype)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.dropout(self.norm(self.first(x)))


@nnx.jit
def train(model: Any, optimiser: Any, average: Any, x: Any) -> None:
    gradients = nnx.grad(lambda model: jnp.mean((model(x) - 1.0) ** 2))(model)
    optimiser.update(model, gradients)
    average.update(model)


def trained(estimator: Any, steps: int = 5, **options: Any) -> Any:
    """Model, its average, and what it went through: kernels and running means."""
    model = Network(nnx.Rngs(0))
    optimiser = nnx.Optimizer(model, filtered_adam(1e-1), wrt=nnx.Param)
    average, path = ParameterAverage(model, estimator, **options), []
    for t in range(steps):
        train(model, optimiser, average, jax.random.normal(jax.random.key(t), (8, 3)))
        path.append((np.asarray(model.first.kernel[...]), np.asarray(model.norm.mean[...])))
    kernels, means = (np.stack(values).astype(np.float64) for values in zip(*path, strict=True))
    return model, average, kernels, means


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [DebiasedEMA(0.9), EMA(0.9), EMA(0.9, initial=None), Kalman(0.0, 1.0), EMAWithVariance(0.9)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_the_average_is_the_filter_of_what_the_parameters_were(estimator: Any) -> None:
    model, average, kernels, _ = trained(estimator)
    averaged = average.applied_to(model)
    wanted = estimator.filter(kernels).mean[-1]
    if estimator == EMA(0.9):  # from the parameters as they were
        wanted = wanted + 0.9 ** len(kernels) * np.asarray(Network(nnx.Rngs(0)).first.kernel[...])
    assert np.max(np.abs(averaged.first.kernel[...] - wanted)) < 1e-6


def test_a_stated_start_must_be_zero() -> None:
    with pytest.raises(
        ValueError, match=r"^ParameterAverage: estimator=EMA.*initial=2.0.* starts from nothing"
    ):
        ParameterAverage(Network(nnx.Rngs(0)), EMA(0.9, initial=2.0))


def test_another_models_parameters_are_refused() -> None:
    average = ParameterAverage(Network(nnx.Rngs(0)), DebiasedEMA(0.9))
    with pytest.raises(ValueError, match=r"^ParameterAverage: leaves=.* are not valid") as caught:
        average.update(nnx.Linear(3, 4, rngs=nnx.Rngs(0)))
    assert "\n" not in str(caught.value)


def test_it_is_unbiased_from_the_first_step_on() -> None:
    model, average, kernels, _ = trained(DebiasedEMA(0.999), steps=1)
    assert np.array_equal(average.applied_to(model).first.kernel[...], kernels[0].astype(np.float32))


def test_before_the_first_step_it_is_the_model() -> None:
    model = Network(nnx.Rngs(0))
    averaged = ParameterAverage(model, DebiasedEMA(0.9)).applied_to(model)
    assert np.array_equal(averaged.first.kernel[...], model.first.kernel[...])


@pytest.mark.slow
def test_batch_statistics_are_the_live_models_unless_asked() -> None:
    model, average, _, _ = trained(DebiasedEMA(0.5))
    assert np.array_equal(average.applied_to(model).norm.mean[...], model.norm.mean[...])
    model, average, kernels, means = trained(DebiasedEMA(0.5), of=(nnx.Param, nnx.BatchStat))
    averaged = average.applied_to(model)
    assert np.max(np.abs(averaged.norm.mean[...] - DebiasedEMA(0.5).filter(means).mean[-1])) < 1e-6
    assert np.max(np.abs(averaged.first.kernel[...] - DebiasedEMA(0.5).filter(kernels).mean[-1])) < 1e-6
    assert np.abs(averaged.norm.mean[...] - model.norm.mean[...]).max() > 1e-3


@pytest.mark.slow
def test_the_averaged_model_is_one_of_its_own() -> None:
    model, average, _, _ = trained(DebiasedEMA(0.9))
    before = jax.tree.map(np.asarray, nnx.as_pure(nnx.state(model, nnx.Param)))
    averaged = average.applied_to(model)
    assert type(averaged) is Network
    assert type(averaged.first.kernel) is nnx.Param
    averaged.first.kernel[...] = jnp.zeros((3, 4))
    averaged.norm.mean[...] = jnp.full(4, 9.0)
    averaged.eval()
    assert np.isfinite(averaged(jnp.ones((2, 3)))).all()
    after = nnx.as_pure(nnx.state(model, nnx.Param))
    assert all(map(np.array_equal, jax.tree.leaves(before), jax.tree.leaves(after)))
    assert not np.any(model.norm.mean[...] == 9.0)
    assert not model.dropout.deterministic


def test_no_optimiser_of_parameters_sees_it_and_one_filter_sees_all() -> None:
    model = Network(nnx.Rngs(0))
    sizes = len(jax.tree.leaves(nnx.state(model, nnx.Param)))
    model.average = ParameterAverage(model, DebiasedEMA(0.9))
    assert len(jax.tree.leaves(nnx.state(model, nnx.Param))) == sizes
    whole, seen = nnx.state(model.average), nnx.state(model.average, AverageState)
    assert len(jax.tree.leaves(whole)) == len(jax.tree.leaves(seen)) == sizes + 2
    assert not jax.tree.leaves(nnx.state(model.average, (nnx.Param, nnx.BatchStat)))


@pytest.mark.slow
def test_a_checkpoint_carries_all_of_it(tmp_path: Path) -> None:
    checkpoint = pytest.importorskip("orbax.checkpoint")
    model, average, _, _ = trained(DebiasedEMA(0.9))
    with checkpoint.StandardCheckpointer() as saver:
        saver.save(tmp_path / "average", nnx.as_pure(nnx.state(average)))
        saver.wait_until_finished()
        fresh = ParameterAverage(Network(nnx.Rngs(1)), DebiasedEMA(0.9))
        nnx.update(fresh, saver.restore(tmp_path / "average", nnx.as_pure(nnx.state(fresh))))
    for one in (average, fresh):
        one.update(model)
    pairs = zip(*(jax.tree.leaves(nnx.as_pure(nnx.state(one))) for one in (average, fresh)), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


@pytest.mark.slow
def test_means_of_half_precision_do_not_stall() -> None:
    model = Network(nnx.Rngs(0), dtype=jnp.bfloat16)
    average = ParameterAverage(model, EMA(0.999, initial=None))
    average.update(model)
    model.first.kernel[...] = model.first.kernel[...] + 1.0
    start = np.asarray(average.moments.fields.mean["first"]["kernel"][...])
    for _ in range(100):
        average.update(model)
    moved = np.asarray(average.moments.fields.mean["first"]["kernel"][...]) - start
    assert moved.dtype == np.float32
    assert np.allclose(moved, 1.0 - 0.999**100, atol=1e-2)
    assert average.applied_to(model).first.kernel[...].dtype == jnp.bfloat16


@pytest.mark.slow
def test_an_array_that_is_not_finite_is_skipped() -> None:
    model, average, _, _ = trained(DebiasedEMA(0.9))
    before = np.asarray(average.applied_to(model).first.kernel[...])
    model.first.kernel[...] = model.first.kernel[...].at[0, 0].set(jnp.nan)
    average.update(model)
    assert np.array_equal(average.applied_to(model).first.kernel[...], before)


def test_others_are_refused_in_one_line() -> None:
    model = Network(nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"ParameterAverage: .* must be recursive: EMA"):
        ParameterAverage(model, MovingAverage(3))
    with pytest.raises(ValueError, match="parameters must be numbers"):
        ParameterAverage(model, EMA([0.5, 0.9]))
