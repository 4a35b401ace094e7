"""Moments by any estimator in optax: Adam itself by default, any tree, leaves skipped whole, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from estimators import (
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    Kalman,
    KalmanBank,
    LocalTrend,
    MehraKalman,
    MovingAverage,
    RobustKalman,
    SwitchingKalman,
)

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

from estimators.jax import filtered, filtered_adam, scale_by_moments  # noqa: E402

LEAVES = 3
COORDINATES = 20 * 5 + 7 + 1


def tree(dtype: Any = None) -> Any:
    rng = np.random.default_rng(0)
    return {"a": jnp.asarray(rng.normal(size=(20, 5)), dtype), "b": (jnp.ones(7, dtype), jnp.ones((), dtype))}


def slopes(params: Any, t: Any) -> Any:
    """Gradients of a bowl, with a wave for noise."""
    return jax.tree.map(
        lambda leaf: (
            0.1 * leaf + jnp.sin(1.7 * t + jnp.arange(leaf.size).reshape(leaf.shape)).astype(leaf.dtype)
        ),
        params,
    )


def steps_of(optimiser: Any, params: Any, count: int) -> Any:
    """Parameters after each of some steps."""

    @jax.jit
    def run(params: Any) -> Any:
        def step(carry: Any, t: Any) -> Any:
            params, state = carry
            updates, state = optimiser.update(slopes(params, t), state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), params

        return jax.lax.scan(step, (params, optimiser.init(params)), jnp.arange(count, dtype=jnp.float32))[1]

    return run(params)


def apart(one: Any, other: Any) -> float:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)))) for a, b in pairs)


def size_of(state: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(state))


SCHEDULE = optax.cosine_decay_schedule(1e-3, 1000)
PAIRS = [
    pytest.param(lambda: filtered_adam(1e-3), lambda: optax.adam(1e-3), id="adam", marks=pytest.mark.slow),
    pytest.param(
        lambda: filtered_adam(SCHEDULE, weight_decay=0.1),
        lambda: optax.adamw(SCHEDULE, weight_decay=0.1),
        id="adamw",
    ),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_defaults_are_adam_to_rounding_over_a_thousand_steps(ours: Any, theirs: Any) -> None:
    with jax.enable_x64(True):
        exact = steps_of(theirs(), tree(jnp.float64), 1000)
        assert apart(steps_of(ours(), tree(jnp.float64), 1000), exact) < 1e-13
    single = steps_of(theirs(), tree(), 1000)
    mine = steps_of(ours(), tree(), 1000)
    assert apart(mine, single) < 1e-5  # a step is 1e-3, the largest parameter 3
    # Optax rounds 1 - 0.999^t to float32; here a first step is exact.
    assert apart(mine, exact) < 1e-5


def test_moments_alone_are_scale_by_adam() -> None:
    ours, theirs = (optax.chain(o, optax.scale(-1e-2)) for o in (scale_by_moments(), optax.scale_by_adam()))
    assert apart(steps_of(ours, tree(), 20), steps_of(theirs, tree(), 20)) < 1e-5


@pytest.mark.slow
def test_filtered_ema_is_momentum() -> None:
    with jax.enable_x64(True):
        for estimator, debias in ((EMA(0.9), False), (DebiasedEMA(0.9), True)):
            ours, theirs = filtered(estimator), optax.ema(0.9, debias=debias)
            assert (
                apart(*(steps_of(optax.chain(o, optax.scale(-0.1)), tree(), 50) for o in (ours, theirs)))
                < 1e-13
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        EMA(0.9),
        EMA(0.9, initial=None),
        Kalman(0.1, 1.0),
        pytest.param(MehraKalman(), marks=pytest.mark.slow),
        pytest.param(LocalTrend(0.1, 0.01, 1.0), marks=pytest.mark.slow),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_each_coordinate_is_filtered_as_a_stream(estimator: Any) -> None:
    with jax.enable_x64(True):
        transform, params = filtered(estimator), tree(jnp.float64)
        state, update, seen, out = transform.init(params), jax.jit(transform.update), [], []
        for t in range(25):
            gradients = slopes(params, 1.0 * t)
            if t in (0, 7):
                gradients["b"] = (gradients["b"][0].at[3].set(jnp.nan), gradients["b"][1])
            updates, state = update(gradients, state)
            seen.append(np.where(t in (0, 7), np.nan, gradients["b"][0]))
            out.append(updates["b"][0])
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))
        means = estimator.filter(np.stack(seen)).mean
        for t in range(25):
            expected = np.zeros(7) if t in (0, 7) else means[t]
            assert np.max(np.abs(np.asarray(out[t]) - expected)) < 1e-12


def test_a_leaf_whose_gradient_is_not_finite_is_skipped_whole() -> None:
    optimiser, params = filtered_adam(1e-2, weight_decay=0.1), tree()
    update = jax.jit(optimiser.update)
    _, state = update(slopes(params, 0.0), optimiser.init(params), params)
    gradients = slopes(params, 1.0)
    good, after_good = update(gradients, state, params)
    for wrong in (np.nan, np.inf, -np.inf, 1e30):  # of the last one the square is not finite
        bad, after_bad = update(gradients | {"a": gradients["a"].at[3, 2].set(wrong)}, state, params)
        assert np.all(bad["a"] == 0.0)
        assert apart(bad["b"], good["b"]) == 0.0
        before, after, other = (s[0].first.fields for s in (state, after_bad, after_good))
        assert np.array_equal(after.mean["a"], before.mean["a"])
        # Time passed for it: the weight mass has aged, that of the others has grown.
        assert float(after.weight[0]) == pytest.approx(0.9 * float(before.weight[0]), rel=1e-6)
        assert np.array_equal(after.weight[1:], other.weight[1:])
        again, _ = update(gradients, after_bad, params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(again))
        assert np.abs(again["a"]).min() > 0.0


@pytest.mark.slow
def test_a_leaf_that_never_was_finite_does_not_move() -> None:
    optimiser, params = filtered_adam(1e-2), tree()
    state, update = optimiser.init(params), jax.jit(optimiser.update)
    gradients = slopes(params, 0.0) | {"a": jnp.full((20, 5), jnp.nan)}
    for _ in range(3):
        updates, state = update(gradients, state)
        assert np.all(updates["a"] == 0.0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    updates, state = update(slopes(params, 0.0), state)
    assert np.allclose(np.abs(updates["a"]), 1e-2, rtol=1e-5)  # its first step, whatever the gradient's size


def test_memory_is_adams_and_one_number_for_each_leaf() -> None:
    state = scale_by_moments().init(tree())
    assert size_of(state) == 2 * 4 * COORDINATES + 2 * (4 + 1) * LEAVES
    sizes = {
        EMA(0.9): 4 * COORDINATES + LEAVES,
        Kalman(0.1, 1.0): 4 * COORDINATES + (4 + 1) * LEAVES,
        EMAWithVariance(0.9): 3 * 4 * COORDINATES + (2 * 4 + 1) * LEAVES,
        MehraKalman(): 9 * 4 * COORDINATES + LEAVES,
    }
    for estimator, expected in sizes.items():
        assert size_of(filtered(estimator).init(tree())) == expected, estimator
    assert size_of(filtered(DebiasedEMA(0.9)).init(tree(jnp.bfloat16))) == 4 * COORDINATES + 5 * LEAVES


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        Kalman(0.1, 1.0),
        EMA(0.9),
        *(
            pytest.param(estimator, marks=pytest.mark.slow)
            for estimator in (
                MehraKalman(),
                RobustKalman(0.1, 1.0),
                SwitchingKalman(0.1, 1.0),
                Holt(0.2, 0.05),
            )
        ),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_recursive_estimator_descends(first: Any) -> None:
    def bowl(params: Any) -> float:
        return float(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))

    path = steps_of(filtered_adam(1e-1, first=first), tree(), 300)
    last = jax.tree.map(lambda leaf: leaf[-1], path)
    assert bowl(last) < 0.5 * bowl(tree())


def test_types_of_the_updates_are_those_of_the_gradients() -> None:
    optimiser = filtered_adam(1e-2, weight_decay=0.1)
    params = {"half": jnp.ones(3, jnp.float16), "brain": jnp.ones(3, jnp.bfloat16), "single": jnp.ones(3)}
    updates, state = jax.jit(optimiser.update)(params, optimiser.init(params), params)
    assert {k: v.dtype for k, v in updates.items()} == {k: v.dtype for k, v in params.items()}
    assert {leaf.dtype for leaf in jax.tree.leaves(state[0].first.fields.mean)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_within_optax() -> None:
    params = tree()
    labels = {"a": "filtered", "b": "plain"}
    multi = optax.multi_transform(
        {"filtered": filtered_adam(1e-2, first=Kalman(0.1, 1.0)), "plain": optax.sgd(0.1)}, labels
    )
    updates, _ = jax.jit(multi.update)(slopes(params, 0.0), multi.init(params), params)
    assert np.allclose(np.abs(updates["a"]), 1e-2, rtol=1e-4)
    assert apart(updates["b"], jax.tree.map(lambda g: -0.1 * g, slopes(params, 0.0)["b"])) < 1e-6

    masked = optax.masked(filtered(EMA(0.5)), {"a": True, "b": False})
    updates, _ = jax.jit(masked.update)(slopes(params, 0.0), masked.init(params), params)
    assert np.allclose(updates["a"], 0.5 * slopes(params, 0.0)["a"])
    assert apart(updates["b"], slopes(params, 0.0)["b"]) == 0.0

    injected = optax.inject_hyperparams(filtered_adam)(
        learning_rate=1e-2, first=Kalman(0.1, 1.0), weight_decay=0.0
    )
    state = injected.init(params)
    state.hyperparams["learning_rate"] = jnp.asarray(3e-2)
    updates, state = jax.jit(injected.update)(slopes(params, 0.0), state, params)
    assert np.allclose(np.abs(updates["a"]), 3e-2, rtol=1e-4)

    chained = optax.chain(optax.clip_by_global_norm(1.0), scale_by_moments(), optax.scale(-1e-2))
    updates, _ = jax.jit(chained.update)(slopes(params, 0.0), chained.init(params), params)
    assert np.allclose(np.abs(updates["a"]), 1e-2, rtol=1e-4)


def test_optax_tells_coordinates_from_what_they_share() -> None:
    state = scale_by_moments().init(tree())
    marked = optax.tree_map_params(scale_by_moments(), lambda leaf: leaf + 7.0, state)
    assert all(np.all(leaf == 7.0) for leaf in jax.tree.leaves(marked.first.fields.mean))
    assert np.array_equal(marked.first.fields.weight, state.first.fields.weight)


def test_a_state_holds_no_nan_even_before_the_first_step() -> None:
    with jax.debug_nans(True):
        optimiser, params = filtered_adam(1e-2, first=MehraKalman()), tree()
        state = optimiser.init(params)
        assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(state))
        updates, state = jax.jit(optimiser.update)(slopes(params, 0.0), state, params)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: filtered(MovingAverage(3)), TypeError, "filtered: .* must be recursive: EMA"),
        (lambda: filtered_adam(1e-3, second=KalmanBank()), TypeError, "filtered_adam: .* must be recursive"),
        (lambda: scale_by_moments(EMA([0.5, 0.9])), ValueError, "parameters must be numbers"),
        (lambda: scale_by_moments(eps=-1.0), ValueError, "scale_by_moments: eps=-1.0"),
        (lambda: filtered_adam(1e-3, weight_decay=-0.1), ValueError, "filtered_adam: weight_decay=-0.1"),
        (lambda: filtered(EMA(0.9)).init(jnp.ones(2, jnp.complex64)), TypeError, "complex"),
    ],
)
def test_what_is_not_valid_gets_one_line(make: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words) as error:
        make()
    assert "\n" not in str(error.value)


def test_decay_without_parameters_says_what_is_missing() -> None:
    optimiser = filtered_adam(1e-3, weight_decay=0.1)
    with pytest.raises(ValueError, match="pass them to update"):
        optimiser.update(tree(), optimiser.init(tree()))
