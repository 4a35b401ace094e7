from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from data import contract
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.kalman import Kalman
from estimators.protocol import Trait
from estimators.switching import SwitchingKalman

SETTINGS = [
    SwitchingKalman(1e-4, 1.0),
    SwitchingKalman(1e-4, 1.0, q_fast=25.0),
    SwitchingKalman(0.01, 2.0, q_fast=0.5, stay=0.9, stay_fast=0.9),
    SwitchingKalman(0.1, 1.0, mean=0.0, variance=0.0),
    SwitchingKalman(np.array([0.1, 0.2]), 1.0, q_fast=np.array([1.0, 4.0])),
    SwitchingKalman(1e-3, np.array([[1.0], [2.0]]), stay=np.array([0.9, 0.99, 0.5])),
    SwitchingKalman(0.1, 1.0, mean=2.0, variance=4.0),
    SwitchingKalman(0.0, 1.0),
    SwitchingKalman(0.1, 0.0),
    SwitchingKalman(0.1, 1.0, q_fast=0.1),
]


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- the recursion, in the 2 x 2 matrices of Blom and Bar-Shalom --------------------------------------------


def interacting(x: Any, q: Any, r: Any, moves: Any, mean: float, variance: float) -> dict[str, list[float]]:
    """Interacting multiple models from the stationary probabilities on; r one number for each sample."""
    models = range(2)
    mu = [moves[1][0] / (moves[0][1] + moves[1][0]), moves[0][1] / (moves[0][1] + moves[1][0])]
    means, variances = [mean, mean], [variance, variance]
    out: dict[str, list[float]] = {"mean": [], "variance": [], "probability": [], "innovation_variance": []}
    known = math.isfinite(variance)
    for z, noise in zip(x, r, strict=True):
        c = [sum(moves[i][j] * mu[i] for i in models) for j in models]
        if known:
            share = [[moves[i][j] * mu[i] / c[j] for j in models] for i in models]
            mixed = [sum(share[i][j] * means[i] for i in models) for j in models]
            predicted = [
                sum(share[i][j] * (variances[i] + (means[i] - mixed[j]) ** 2) for i in models) + q[j]
                for j in models
            ]
            total = sum(c[j] * mixed[j] for j in models)
            stated = sum(c[j] * (predicted[j] + (mixed[j] - total) ** 2) for j in models) + noise
            means, variances, mu = mixed, predicted, c
        else:
            stated = math.inf
        if z == z and not known:
            means, variances, known = [z, z], [noise, noise], True
        elif z == z:
            S = [variances[j] + noise for j in models]
            logs = [math.log(c[j]) - 0.5 * (math.log(S[j]) + (z - means[j]) ** 2 / S[j]) for j in models]
            best = max(logs)
            weights = [math.exp(log - best) for log in logs]
            mu = [w / sum(weights) for w in weights]
            gains = [variances[j] / S[j] for j in models]
            means = [means[j] + gains[j] * (z - means[j]) for j in models]
            variances = [noise * gains[j] for j in models]
        centre = sum(mu[j] * means[j] for j in models)
        out["mean"].append(centre)
        spread = sum(mu[j] * (variances[j] + (means[j] - centre) ** 2) for j in models) if known else math.inf
        out["variance"].append(spread)
        out["probability"].append(mu[1])
        out["innovation_variance"].append(stated)
    return out


def expect_interacting(x: Any, kalman: SwitchingKalman, r: Any = None) -> None:
    stay, fast = float(kalman.stay), float(kalman.stay_fast)
    moves = [[stay, 1.0 - stay], [1.0 - fast, fast]]
    q, noise = (float(kalman.q), float(kalman.process_fast)), np.full(len(x), kalman.r) if r is None else r
    mean = float(kalman.mean) if math.isfinite(kalman.variance) else math.nan
    want = interacting(x, q, noise, moves, mean, float(kalman.variance))
    out = kalman.filter(x) if r is None else kalman.filter(x, r=r)
    size = float(np.nanmax(np.abs(x))) + abs(mean if mean == mean else 0.0)
    np.testing.assert_allclose(out.mean, want["mean"], rtol=0, atol=1e-12 * size)
    np.testing.assert_allclose(out.variance, want["variance"], rtol=1e-11, atol=1e-13 * size**2)
    np.testing.assert_allclose(
        out.innovation_variance, want["innovation_variance"], rtol=1e-11, atol=1e-13 * size**2
    )
    assert out.state.probability == pytest.approx(want["probability"][-1], rel=1e-10, abs=1e-13)
    state = kalman.init(0.0)
    for t, z in enumerate(x):
        state = kalman.update(state, z) if r is None else kalman.update(state, z, r=float(r[t]))
        assert state.mean == pytest.approx(want["mean"][t], abs=1e-12 * size, nan_ok=True)
        assert state.probability == pytest.approx(want["probability"][t], rel=1e-10, abs=1e-13)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    s=st.floats(-5.0, 0.5).map(lambda e: 10.0**e),
    factor=st.floats(0.0, 4.0).map(lambda e: 10.0**e),
    stay=st.sampled_from([0.5, 0.9, 0.999]),
    stay_fast=st.sampled_from([0.01, 0.5, 0.95]),
    prior=st.sampled_from([(0.0, math.inf), (0.0, 1.0), (2.0, 0.0)]),
    missing=st.sampled_from([0.0, 0.4]),
    by_sample=st.booleans(),
)
def test_interacting_multiple_models(
    seed: int,
    s: float,
    factor: float,
    stay: float,
    stay_fast: float,
    prior: tuple[float, float],
    missing: float,
    by_sample: bool,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40)
    x[20:] += 8.0
    x[rng.random(40) < missing] = np.nan
    x[30] = 9.0
    kalman = SwitchingKalman(s, 1.0, *prior, q_fast=s * factor, stay=stay, stay_fast=stay_fast)
    expect_interacting(x, kalman, rng.uniform(0.2, 4.0, 40) if by_sample else None)


def test_a_gap_is_time_passing() -> None:
    x = np.array([np.nan, 1.0, 1.5, *[np.nan] * 30, 9.0, np.nan])
    kalman = SwitchingKalman(0.01, 1.0)
    expect_interacting(x, kalman)
    out = kalman.filter(x)
    assert math.isnan(out.mean[0])
    np.testing.assert_array_equal(out.mean[3:33], out.mean[2])
    assert np.all(np.diff(out.variance[2:33]) > 0.0)
    np.testing.assert_array_equal(out.gain[3:33], 0.0)
    # The probability goes to the share of time that the fast walk is at work.
    state = kalman.filter(x[:33]).state
    assert state.probability == pytest.approx(0.01 / 0.51, rel=1e-6)


def test_before_the_first_sample() -> None:
    kalman = SwitchingKalman(0.01, 1.0, stay=0.9, stay_fast=0.7)
    state = kalman.init(0.0)
    assert math.isnan(state.mean)
    assert math.isinf(state.variance)
    assert state.probability == pytest.approx(0.25)
    for _ in range(3):
        state = kalman.update(state, math.nan)
    assert state.probability == pytest.approx(0.25)
    first = kalman.update(state, 5.0)
    assert (first.mean, first.quiet, first.fast, first.variance) == (5.0, 5.0, 5.0, 1.0)
    assert first.probability == pytest.approx(0.25)
    known = SwitchingKalman(0.01, 1.0, mean=3.0, variance=2.0).init(0.0)
    assert (known.mean, known.quiet_variance, known.fast_variance) == (3.0, 2.0, 2.0)


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [1e-4, 0.1, 3.0])
@pytest.mark.parametrize("prior", [{}, {"mean": 1.0, "variance": 4.0}, {"mean": -2.0, "variance": 0.0}])
def test_of_equal_q_it_is_one_filter(q: float, prior: dict[str, float]) -> None:
    x = np.random.default_rng(0).normal(size=500)
    x[[3, 4, 200]] = np.nan
    switching = SwitchingKalman(q, 1.0, **prior, q_fast=q, stay=0.9, stay_fast=0.3).filter(x)
    kalman = Kalman(q, 1.0, **prior).filter(x)
    assert np.max(np.abs(switching.mean - kalman.mean)) <= 4.5e-16 * np.nanmax(np.abs(x))
    np.testing.assert_allclose(switching.variance, kalman.variance, rtol=1e-14)
    np.testing.assert_allclose(switching.gain, kalman.gain, rtol=1e-14)
    assert switching.loglikelihood == pytest.approx(kalman.loglikelihood, rel=1e-12)


def test_in_place_to_rounding() -> None:
    rng = np.random.default_rng(8)
    kalman = SwitchingKalman(0.01, 2.0, q_fast=0.5, stay=0.9, stay_fast=0.9)
    pure = placed = kalman.init(np.zeros(10_000))
    placed = type(placed)(*(field.copy() for field in placed))
    for row in rng.normal(size=(5, 10_000)):
        pure = kalman.update(pure, row)
        assert kalman.update(placed, row, out=placed) is placed
    np.testing.assert_allclose(placed.mean, pure.mean, rtol=0.0, atol=1e-14)


def test_the_default_fast_walk() -> None:
    assert SwitchingKalman(0.5, 3.5).process_fast == 100.0
    assert SwitchingKalman(0.5, 3.5, q_fast=7.0).process_fast == 7.0
    np.testing.assert_array_equal(SwitchingKalman([0.0, 1.0], 1.0).process_fast, [25.0, 50.0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "size",
    [
        1e4,
        1e150,
        1e300,
    ],
)
def test_surprises_beyond_any_likelihood(size: float) -> None:
    """Both densities underflow; what remains is their ratio."""
    x = np.array([0.0, 0.1, -0.1, size, size, -size])
    for kalman in (SwitchingKalman(1e-4, 1.0), SwitchingKalman(0.0, 1.0, mean=0.0, variance=0.0)):
        out = kalman.filter(x)
        assert np.all(np.isfinite(out.mean))
        assert out.mean[4] == pytest.approx(size, rel=0.1)
        state = kalman.init(0.0)
        for z in x:
            state = kalman.update(state, float(z))
            assert math.isfinite(state.mean)
            assert 0.0 <= state.probability <= 1.0


def test_traits() -> None:
    assert SwitchingKalman(0.1, 1.0).traits == {Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT}
    assert SwitchingKalman(0.1, 1.0, mean=0.0, variance=1.0).traits == {Trait.HAS_VARIANCE}


def test_shift_and_units() -> None:
    x = np.random.default_rng(1).normal(size=60)
    x[30:] += 8.0
    out = SwitchingKalman(0.01, 1.0).filter(x)
    np.testing.assert_allclose(
        SwitchingKalman(0.01, 1.0).filter(x + 1024.0).mean, out.mean + 1024.0, atol=1e-11
    )
    scaled = SwitchingKalman(0.16, 16.0).filter(4.0 * x)
    np.testing.assert_allclose(scaled.mean, 4.0 * out.mean, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scaled.variance, 16.0 * out.variance, rtol=1e-12)


# --- a jump, and what the insurance against it costs --------------------------------------------------------


def jumping(steps: int, at: int, channels: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    level = 0.01 * rng.standard_normal((steps, channels)).cumsum(axis=0)
    level[at:] += 8.0
    return level, level + rng.standard_normal((steps, channels))


def test_an_eight_sigma_jump() -> None:
    """Theory notes, 3.7: .091 after the jump instead of 27.35, .0548 in quiet times instead of .0112."""
    level, x = jumping(700, 600, 1500, 2)
    switching = SwitchingKalman(1e-4, 1.0, q_fast=25.0, stay=0.99, stay_fast=0.5)
    error, plain = ((e.filter(x).mean - level) ** 2 for e in (switching, Kalman(1e-4, 1.0)))
    assert 0.07 <= error[600:].mean() <= 0.11
    assert 25.0 <= plain[600:].mean() <= 29.0
    assert 0.050 <= error[300:600].mean() <= 0.062
    assert 0.009 <= plain[300:600].mean() <= 0.012


def test_the_probability_shows_the_jump() -> None:
    _, x = jumping(120, 100, 200, 3)
    switching = SwitchingKalman(1e-4, 1.0, q_fast=25.0)
    before = switching.filter(x[:100]).state
    after = switching.update(before, x[100])
    assert np.median(before.probability) < 0.02
    assert np.mean(after.probability > 0.9) > 0.98


def test_its_interval_in_quiet_times_and_after_a_jump() -> None:
    level, x = jumping(700, 600, 500, 4)
    low, high = SwitchingKalman(1e-4, 1.0, q_fast=25.0).filter(x).interval(0.95)
    inside = (low <= level) & (level <= high)
    assert inside[300:600].mean() >= 0.95
    assert inside[602:].mean() >= 0.93


# --- parameters ---------------------------------------------------------------------------------------------


def test_weight_is_r_by_sample() -> None:
    rng = np.random.default_rng(5)
    x, weight = rng.normal(size=50), rng.uniform(0.2, 4.0, 50)
    kalman = SwitchingKalman(0.01, 2.0)
    by_weight, by_r = kalman.filter(x, weight=weight), kalman.filter(x, r=2.0 / weight)
    np.testing.assert_array_equal(by_weight.mean, by_r.mean)
    np.testing.assert_array_equal(by_weight.variance, by_r.variance)
    with pytest.raises(TypeError, match="SwitchingKalman takes no steps by sample; it takes weight and r"):
        kalman.filter(x, steps=weight)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"q": -1.0, "r": 1.0}, "q=-1.0 is not valid; q must be >= 0"),
        ({"q": 1.0, "r": math.inf}, "r=inf is not valid; r must be >= 0"),
        ({"q": 0.0, "r": 0.0}, "q=0.0 is not valid; q must be > 0 where r = 0"),
        ({"q": 1.0, "r": 1.0, "q_fast": 0.5}, "q_fast=0.5 is not valid; q_fast must be >= q = 1.0"),
        ({"q": 1.0, "r": 1.0, "q_fast": math.nan}, "q_fast=nan is not valid; q_fast must be >= 0"),
        ({"q": 1.0, "r": 1.0, "stay": 1.0}, "stay=1.0 is not valid; stay must be in (0, 1)"),
        ({"q": 1.0, "r": 1.0, "stay_fast": 0.0}, "stay_fast=0.0 is not valid; stay_fast must be in (0, 1)"),
        ({"q": 1.0, "r": 1.0, "stay": "often"}, "stay='often' is not valid; stay must be in (0, 1)"),
        ({"q": [1.0, 2.0], "r": 1.0, "stay": [0.5, 0.6, 0.7]}, "the shapes of"),
    ],
)
def test_parameters_out_of_range(parameters: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid|do not broadcast") as caught:
        SwitchingKalman(**parameters)
    assert str(caught.value).startswith(f"SwitchingKalman: {text}")
    assert "\n" not in str(caught.value)
