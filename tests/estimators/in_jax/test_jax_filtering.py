"""Every recursive estimator on JAX arrays: the NumPy filter's numbers, and gradients that are numbers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import estimators
from estimators import (
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    RunningMedian,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)
from estimators._recursive import Recursive

jax = pytest.importorskip("jax")
jnp = jax.numpy

from estimators.jax import filter as jax_filter  # noqa: E402
from estimators.jax import init, update  # noqa: E402


def name_of(estimator: Any) -> str:
    return "".join(repr(estimator).split())


SETTINGS: list[Any] = [
    EMA(0.9),
    EMA(0.9, initial=None),
    EMA([0.5, 0.9], initial=None),
    DebiasedEMA(0.99),
    DebiasedEMA([0.5, 0.99]),
    EMAWithVariance(0.9),
    Kalman(0.01, 1.0),
    Kalman([0.1, 0.0], [1.0, 2.0]),
    Kalman(0.1, 1.0, mean=2.0, variance=3.0),
    Kalman(1.0, 0.0),
    RobustKalman(0.01, 1.0),
    RobustKalman(0.01, 1.0, loss="student_t"),
    ResettingKalman(0.01, 1.0),
    ResettingKalman(0.01, 1.0, loss="huber"),
    SwitchingKalman(0.01, 1.0),
    LocalTrend(0.01, 0.001, 1.0),
    Holt(0.3, 0.1),
    SageHusaKalman(q=0.01),
    SageHusaKalman(),
    InnovationMatchingKalman(r=1.0),
    InnovationMatchingKalman(),
    MehraKalman(),
    VariationalKalman(0.01),
]
FIXED_GAIN = [
    EMA([0.5, 0.9], initial=None),
    DebiasedEMA(0.99),
    pytest.param(EMA(0.9), marks=pytest.mark.slow),
    pytest.param(DebiasedEMA([0.5, 0.99]), marks=pytest.mark.slow),
]
LONG = (
    InnovationMatchingKalman,
    LocalTrend,
    MehraKalman,
    ResettingKalman,
    RobustKalman,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)
"""Estimators whose steps take long to compile."""


def long_ones_slow(settings: list[Any]) -> list[Any]:
    """Cases of a test, the long ones among the slow tests."""
    slow = pytest.mark.slow
    return [pytest.param(e, marks=slow if isinstance(e, LONG) else (), id=name_of(e)) for e in settings]


def stream(steps: int = 200) -> Any:
    """Two walks with a shift, single and long gaps, infinity, and a start that is missing."""
    rng = np.random.default_rng(0)
    x = np.cumsum(0.1 * rng.normal(size=(steps, 2)), axis=0) + rng.normal(size=(steps, 2)) + 3.0
    x[steps // 2 :] += 8.0
    x[rng.random(x.shape) < 0.1] = np.nan
    x[:1, 0], x[:3, 1], x[40:60] = np.nan, np.nan, np.nan
    x[steps // 3, 0], x[steps // 3 + 1, 1] = np.inf, -np.inf
    return x


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def far(got: Any, want: Any) -> float:
    """Largest difference, relative above 1; NaN and infinity must stand where they should."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    known = np.isfinite(want)
    assert np.array_equal(got[~known], want[~known], equal_nan=True)
    return float(np.max(np.abs(got[known] - want[known]) / np.maximum(1.0, np.abs(want[known])), initial=0.0))


def parting(out: Any, reference: Any) -> float:
    """How far a result is from the NumPy filter's: estimates, gains, state."""
    pairs = [(out.mean, reference.mean), (out.gain, reference.gain)]
    assert (out.variance is None) == (reference.variance is None)
    if out.variance is not None:
        pairs.append((out.variance, reference.variance))
    assert type(out.state) is type(reference.state)
    return max(far(got, want) for got, want in [*pairs, *zip(out.state, reference.state, strict=True)])


def test_settings_hold_every_recursive_estimator_of_the_library() -> None:
    public = (getattr(estimators, name) for name in estimators.__all__)
    recursive = {kind for kind in public if isinstance(kind, type) and issubclass(kind, Recursive)}
    assert {type(setting) for setting in SETTINGS} == recursive


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("estimator", SETTINGS, ids=name_of)
def test_in_float64_a_filter_is_that_of_numpy(estimator: Any) -> None:
    x = stream()
    assert parting(jax_filter(estimator, x), estimator.filter(x, on_infinite="missing")) < 1e-12


@pytest.mark.parametrize("estimator", long_ones_slow(SETTINGS))
def test_in_float32_it_is_so_to_rounding(estimator: Any) -> None:
    x = stream().astype(np.float32)
    out = jax_filter(estimator, x)
    assert {field.dtype for field in (out.mean, out.gain, *out.state)} == {jnp.dtype("float32")}
    assert parting(out, estimator.filter(x.astype(np.float64), on_infinite="missing")) < 1e-5


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "estimator",
    [DebiasedEMA(0.9), Kalman(0.01, 1.0), MehraKalman(), LocalTrend(0.01, 0.001, 1.0)],
    ids=name_of,
)
def test_a_run_cut_anywhere_and_single_updates_give_the_same(estimator: Any) -> None:
    x = stream(60)
    whole = jax_filter(estimator, x)
    head = jax_filter(estimator, x[:23])
    tail = jax_filter(estimator, x[23:], head.state)
    assert np.array_equal(jnp.concatenate([head.mean, tail.mean]), whole.mean, equal_nan=True)
    state = init(estimator, x[0])
    for row in x:
        state = update(estimator, state, row)
    assert max(far(one, other) for one, other in zip(state, whole.state, strict=True)) < 1e-14
    gone_on = jax_filter(estimator, x[23:], estimator.filter(x[:23], on_infinite="missing").state)
    assert far(gone_on.mean, tail.mean) < 1e-12


@pytest.mark.parametrize("beta", [0.9, 0.9999, 0.999999])
def test_a_constant_comes_out_as_itself_in_float32(beta: float) -> None:
    for parallel in (False, True):
        assert np.all(jax_filter(DebiasedEMA(beta), jnp.ones(60), parallel=parallel).mean == 1.0)


def test_beside_optax_whose_debiased_average_of_ones_is_not_one() -> None:
    optax = pytest.importorskip("optax")
    ema = optax.ema(0.999999)
    peer, _ = ema.update(jnp.ones(()), ema.init(jnp.ones(())))
    assert abs(float(peer) - 0.98690) < 1e-4
    state = update(DebiasedEMA(0.999999), init(DebiasedEMA(0.999999), jnp.ones(())), jnp.ones(()))
    assert float(state.mean) == 1.0


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("estimator", FIXED_GAIN, ids=name_of)
def test_the_parallel_scan_agrees(estimator: Any) -> None:
    x = stream(70)
    out = jax_filter(estimator, x, parallel=True)
    assert parting(out, estimator.filter(x, on_infinite="missing")) < 1e-12
    head = jax_filter(estimator, x[:2], parallel=True)
    assert far(jax_filter(estimator, x[2:], head.state, parallel=True).mean, out.mean[2:]) < 1e-12
    none = jax_filter(estimator, x[:0], parallel=True)
    assert none.mean.shape == (0, 2)


@pytest.mark.parametrize("estimator", [Kalman(0.01, 1.0), EMAWithVariance(0.9), Holt(0.3, 0.1)], ids=name_of)
def test_the_parallel_scan_is_refused_in_one_line(estimator: Any) -> None:
    with pytest.raises(TypeError, match=r"^filter: parallel=True .* EMA or DebiasedEMA$"):
        jax_filter(estimator, jnp.ones(3), parallel=True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_mean_keeps_the_type_of_the_stream(dtype: str) -> None:
    x = jnp.asarray(stream(), dtype)
    out = jax_filter(Kalman(0.01, 1.0), x)
    assert out.mean.dtype == x.dtype
    assert out.variance.dtype == out.gain.dtype == out.state.mean.dtype == jnp.float32
    wide = jax_filter(Kalman(0.01, 1.0), x.astype(jnp.float32))
    assert np.array_equal(out.mean, wide.mean.astype(dtype), equal_nan=True)


@pytest.mark.usefixtures("double")
def test_in_double_mode_a_float32_stream_is_computed_in_float64() -> None:
    out = jax_filter(Kalman(0.01, 1.0), stream().astype(np.float32))
    assert out.mean.dtype == out.state.mean.dtype == jnp.float32
    assert out.variance.dtype == out.state.variance.dtype == jnp.float64
    assert init(DebiasedEMA(0.9), jnp.ones(3, jnp.float32)).weight.dtype == jnp.float64


@pytest.mark.usefixtures("double")
def test_inside_jit_and_vmap() -> None:
    x, kalman = jnp.asarray(stream()), Kalman(0.01, 1.0)
    plain = jax_filter(kalman, x)
    compiled = jax.jit(lambda samples: jax_filter(kalman, samples))(x)
    mapped = jax.vmap(lambda samples: jax_filter(kalman, samples), in_axes=1, out_axes=1)(x[:, :, None])
    assert far(compiled.mean, plain.mean) < 1e-14
    assert far(mapped.mean[..., 0], plain.mean) < 1e-14
    assert jax.tree.structure(compiled) == jax.tree.structure(plain)
    many = jax.vmap(lambda q: jax_filter(kalman, x, parameters={"q": q}).mean)(jnp.array([0.01, 0.1]))
    assert far(many[1], Kalman(0.1, 1.0).filter(np.asarray(x), on_infinite="missing").mean) < 1e-12


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    "estimator",
    long_ones_slow(
        [
            EMA(0.9, initial=None),
            DebiasedEMA(0.9),
            EMAWithVariance(0.9),
            Kalman(0.01, 1.0),
            RobustKalman(0.01, 1.0, loss="student_t"),
            SwitchingKalman(0.01, 1.0),
            LocalTrend(0.01, 0.001, 1.0),
            InnovationMatchingKalman(),
            MehraKalman(),
            VariationalKalman(0.01),
        ]
    ),
)
def test_gradients_by_the_stream_are_numbers_and_right(estimator: Any) -> None:
    x = stream(80)
    rng = np.random.default_rng(1)
    weights = jnp.asarray(rng.normal(size=x.shape))

    def cost(samples: Any) -> Any:
        mean = jax_filter(estimator, samples).mean
        return jnp.sum(jnp.where(jnp.isnan(mean), 0.0, weights * mean))

    gradient = np.asarray(jax.jit(jax.grad(cost))(x))
    assert np.isfinite(gradient).all()
    assert np.all(gradient[~np.isfinite(x)] == 0.0)
    known = np.isfinite(x)
    direction, compiled = np.where(known, rng.normal(size=x.shape), 0.0), jax.jit(cost)
    numeric = (compiled(x + 1e-6 * direction) - compiled(x - 1e-6 * direction)) / 2e-6
    assert abs(numeric - np.sum(gradient * direction)) < 1e-6 * max(1.0, abs(numeric))


@pytest.mark.slow
def test_gradients_in_float32_are_numbers_beside_gaps() -> None:
    x = jnp.asarray(stream(64), jnp.float32)
    for estimator, parallel in (
        (DebiasedEMA(0.9), False),
        (DebiasedEMA(0.9), True),
        (Kalman(0.01, 1.0), False),
    ):

        def last(samples: Any, estimator: Any = estimator, parallel: bool = parallel) -> Any:
            return jnp.sum(jax_filter(estimator, samples, parallel=parallel).mean[-1])

        gradient = jax.grad(last)(x)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[-3:]).max() > 0.0


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("estimator", "name"),
    [
        (DebiasedEMA(0.9), "beta"),
        (EMA(0.9, initial=1.0), "initial"),
        (Kalman(0.01, 1.0), "q"),
        (Kalman(0.01, 1.0), "r"),
        (RobustKalman(0.01, 1.0), "threshold"),
        (LocalTrend(0.01, 0.001, 1.0), "q_slope"),
    ],
    ids=str,
)
def test_gradients_by_parameters_are_those_of_the_numpy_filter(estimator: Any, name: str) -> None:
    x = np.where(np.isfinite(stream()), stream(), np.nan)
    value = getattr(estimator, name)

    def cost(parameter: Any) -> Any:
        return jnp.nansum(jax_filter(estimator, x, parameters={name: parameter}).mean ** 2)

    def numpy_cost(parameter: float) -> float:
        return float(np.nansum(dataclasses.replace(estimator, **{name: parameter}).filter(x).mean ** 2))

    step = 1e-5 * value
    numeric = (numpy_cost(value + step) - numpy_cost(value - step)) / (2.0 * step)
    assert float(jax.grad(cost)(value)) == pytest.approx(numeric, rel=1e-5)


@pytest.mark.slow
def test_a_gradient_step_on_the_likelihood_finds_the_noise() -> None:
    rng = np.random.default_rng(3)
    x = np.cumsum(0.3 * rng.normal(size=2000)) + 2.0 * rng.normal(size=2000)

    def misfit(log_q: Any, log_r: Any) -> Any:
        given = {"q": jnp.exp(log_q), "r": jnp.exp(log_r)}
        out = jax_filter(Kalman(1.0, 1.0), jnp.asarray(x), parameters=given)
        expected = out.variance[:-1] + given["q"] + given["r"]
        return jnp.mean(jnp.log(expected) + (x[1:] - out.mean[:-1]) ** 2 / expected)

    descend = jax.jit(jax.grad(misfit, argnums=(0, 1)))
    log_q, log_r = 0.0, 0.0
    for _ in range(300):
        by_q, by_r = descend(log_q, log_r)
        log_q, log_r = log_q - 0.5 * by_q, log_r - 0.5 * by_r
    best = estimators.fit(x)
    assert np.exp(log_q) == pytest.approx(best.q, rel=0.05)
    assert np.exp(log_r) == pytest.approx(best.r, rel=0.01)


@pytest.mark.parametrize(
    "estimator", [SageHusaKalman(), VariationalKalman(0.0), MehraKalman(), EMAWithVariance(0.9)], ids=name_of
)
@pytest.mark.parametrize("level", [0.0, 3.0])
def test_a_constant_stream_in_float32_stays_one(estimator: Any, level: float) -> None:
    out = jax_filter(estimator, jnp.full(50, level))
    assert np.all(out.mean == level)
    assert all(np.all(np.isfinite(field) | np.isinf(field)) for field in out.state)


@pytest.mark.parametrize(
    "estimator",
    [MovingAverage(3), KalmanBank(), RunningMedian(3), "ema"],
    ids=["window", "bank", "median", "text"],
)
@pytest.mark.parametrize("call", [jax_filter, init, lambda e, x: update(e, None, x)])
def test_others_are_refused_in_one_line_that_says_which_work(estimator: Any, call: Any) -> None:
    with pytest.raises(TypeError, match=r"must be recursive: EMA, DebiasedEMA, .*Kalman") as error:
        call(estimator, jnp.ones(3))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((jnp.ones(()),), ValueError, "no time axis"),
        ((jnp.ones(3, jnp.complex64),), TypeError, "complex"),
        ((["text"],), TypeError, "numbers"),
        ((jnp.ones((3, 2)), (1.0,)), TypeError, "KalmanState"),
        ((jnp.ones((3, 2)), init(Kalman(0.1, 1.0), jnp.ones(5))), ValueError, r"\(5,\)"),
    ],
)
def test_what_cannot_be_filtered_gets_one_line(arguments: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words) as error:
        jax_filter(Kalman(0.1, 1.0), *arguments)
    assert "\n" not in str(error.value)


def test_parameters_that_do_not_exist_or_make_the_prior_are_refused() -> None:
    with pytest.raises(TypeError, match="no parameter beta; it has q, r"):
        jax_filter(Kalman(0.1, 1.0), jnp.ones(3), parameters={"beta": 0.9})
    with pytest.raises(TypeError, match=r"variance.* prior"):
        jax_filter(Kalman(0.1, 1.0), jnp.ones(3), parameters={"variance": 1.0})
    with pytest.raises(ValueError, match="do not broadcast"):
        jax_filter(Kalman([0.1, 0.2], 1.0), jnp.ones((4, 3)))


def test_filter_needs_jax_alone_and_what_is_absent_is_named() -> None:
    code = (
        "import sys\n"
        "sys.modules['optax'] = sys.modules['flax'] = None\n"
        "import estimators.jax as ej, jax.numpy as jnp\n"
        "from estimators import EMA\n"
        "print(float(ej.filter(EMA(0.5), jnp.ones(2)).mean[-1]))\n"
        "for name in ('filtered_adam', 'ParameterAverage'):\n"
        "    try: getattr(ej, name)\n"
        "    except ModuleNotFoundError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    number, *lines = done.stdout.splitlines()
    assert number == "0.75"
    assert ["optax" in lines[0], "flax" in lines[1]] == [True, True]
    assert all("pip install 'kalmean[jax]'" in line for line in lines)
    absent = "import sys; sys.modules['jax'] = None\nfrom estimators.jax import filter"
    done = subprocess.run([sys.executable, "-c", absent], capture_output=True, text=True, check=False)
    assert "needs jax, which is absent: pip install 'kalmean[jax]'" in done.stderr.splitlines()[-1]
