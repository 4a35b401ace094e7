from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from data import streams
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import Kalman, Trait
from estimators.checks import yield_checks
from estimators.robust import RobustKalman

SETTINGS = [
    RobustKalman(0.01, 1.0),
    RobustKalman(0.1, 2.0, loss="student_t"),
    RobustKalman(0.1, 1.0, threshold=math.inf),
    RobustKalman(0.5, 0.0),
    RobustKalman(0.5, 0.0, loss="student_t"),
    RobustKalman(0.1, 1.0, mean=1.0, variance=2.0),
    RobustKalman(0.1, 1.0, variance=2.0, loss="student_t"),
    RobustKalman(0.0, 3.0, mean=2.0, variance=0.0),
    RobustKalman([0.1, 1.0], [[1.0], [0.0]], threshold=[1.0, math.inf]),
    RobustKalman(0.1, [1.0, 2.0], loss="student_t", dof=[1.0, 30.0]),
]
CONTRACT = [
    pytest.param(estimator, check, id=f"{number}-{check.__name__}")
    for number, estimator in enumerate(SETTINGS)
    for check in yield_checks(estimator)
]


def recursion(x: Any, q: float, r: float, loss: str, mean: float, variance: float, rounds: int = 3) -> Any:
    """The filter as the papers have it: weights, not noise variances, and (1 - K) P."""
    rows, known = [], math.isfinite(variance)
    for z in x:
        if known:
            variance += q
        gain = 0.0
        if z == z and not known:
            mean, variance, gain, known = z, r, 1.0, True
        elif z == z:
            nu, weight = z - mean, 1.0
            if loss == "huber" and nu:
                weight = min(1.0, 1.5 * math.sqrt(variance + r) / abs(nu))
            for _ in range(rounds if loss == "student_t" else 0):
                gain = variance / (variance + r / weight)
                weight = 5.0 / (4.0 + ((z - mean - gain * nu) ** 2 + (1.0 - gain) * variance) / r)
            gain = variance / (variance + r / weight)
            mean, variance = mean + gain * nu, (1.0 - gain) * variance
        rows.append((mean, variance, gain))
    return np.array(rows).T


def error(estimator: Any, x: Any, level: Any) -> float:
    return float(np.mean((estimator.filter(x).mean - level) ** 2))


@pytest.mark.parametrize(("estimator", "check"), CONTRACT)
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- the recursion ------------------------------------------------------------------------------------------

magnitudes = st.floats(-4.0, 4.0).map(lambda e: 10.0**e)
samples = st.lists(st.one_of(st.floats(-1e4, 1e4), st.just(math.nan)), min_size=1, max_size=25)


@settings(max_examples=100, deadline=None)
@given(
    x=samples,
    q=magnitudes,
    r=magnitudes,
    loss=st.sampled_from(["huber", "student_t"]),
    start=st.sampled_from([(math.nan, math.inf), (2.0, 0.0), (-1.0, 3.0)]),
)
def test_the_recursion(x: list[float], q: float, r: float, loss: str, start: tuple[float, float]) -> None:
    run = RobustKalman(q, r, loss=loss, mean=start[0], variance=start[1]).filter(x)
    mean, variance, gain = recursion(x, q, r, loss, *start)
    # (1 - K) P cancels where the gain is near 1, and so may the errors that the weights are made of.
    np.testing.assert_allclose(run.gain, gain, rtol=1e-6)
    np.testing.assert_allclose(run.mean, mean, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(run.variance, variance, rtol=1e-6, atol=1e-9 * (q + r))


@settings(max_examples=100, deadline=None)
@given(x=samples, q=magnitudes, r=magnitudes, loss=st.sampled_from(["huber", "student_t"]))
def test_what_holds_of_every_run(x: list[float], q: float, r: float, loss: str) -> None:
    robust = RobustKalman(q, r, loss=loss)
    run = robust.filter(x)
    present = np.flatnonzero(~np.isnan(x))
    assert np.all((run.gain >= 0.0) & (run.gain <= 1.0))
    if present.size:
        assert run.gain[present[0]] == 1.0
        assert run.variance[present[0]] == r
    predicted = np.concatenate([[math.inf], run.variance[:-1]]) + q
    assert np.all(run.variance <= predicted)
    # The mean never moves away from the sample, nor beyond it.
    span = np.array(x)[present]
    means = np.asarray(run.mean)[present]
    assert np.all(means >= np.minimum.accumulate(span) - 1e-9)
    assert np.all(means <= np.maximum.accumulate(span) + 1e-9)
    if loss == "huber":
        pull = np.abs(run.gain * np.nan_to_num(run.innovation))[present[1:]]
        # K nu = P nu / (P + r / w) and w nu <= threshold sqrt(P + r): a pull is bounded, whatever the sample.
        p = predicted[present[1:]]
        assert np.all(pull <= 1.5 * np.sqrt(p + r) * p / r * (1.0 + 1e-12))


def test_the_gain_falls_with_the_size_of_the_innovation() -> None:
    sizes = np.array([0.0, 1.0, 3.0, 10.0, 1e3, 1e6, 1e160, 1e300])
    for loss, pulls in (("huber", True), ("student_t", False)):
        robust = RobustKalman(0.1, 1.0, mean=0.0, variance=1.0, loss=loss)
        run = robust.filter(sizes[np.newaxis])
        assert np.all(np.diff(run.gain[0]) <= 0.0)
        assert np.all(np.isfinite(run.mean))
        assert np.all(run.variance[0] <= 1.1)
        last = float(run.mean[0, -1])
        assert (last == pytest.approx(1.5 * 1.1 * math.sqrt(2.1), rel=1e-6)) is pulls
        assert (abs(last) < 1e-100) is not pulls


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [{}, {"mean": 1.0, "variance": 2.0}], ids=["diffuse", "known"])
def test_without_a_threshold_it_is_kalman_to_the_last_bit(prior: dict[str, float]) -> None:
    x = 5.0 * np.random.default_rng(0).standard_normal((200, 3))
    x[50:60, 1] = np.nan
    q, r = np.array([0.0, 0.1, 3.0]), np.array([1.0, 2.0, 0.5])
    run, kalman = RobustKalman(q, r, threshold=math.inf, **prior).filter(x), Kalman(q, r, **prior).filter(x)
    for name in ("mean", "variance", "gain", "innovation_variance", "loglikelihood"):
        np.testing.assert_array_equal(getattr(run, name), getattr(kalman, name))


def test_many_degrees_of_freedom_are_gaussian_noise() -> None:
    x = 3.0 * np.random.default_rng(1).standard_normal((200, 2))
    kalman = Kalman(0.1, 1.0).filter(x)
    off = [
        np.abs(RobustKalman(0.1, 1.0, loss="student_t", dof=dof).filter(x).mean - kalman.mean).max()
        for dof in (1e2, 1e4, 1e8)
    ]
    assert off[0] > 10.0 * off[1] > 100.0 * off[2]
    assert off[2] < 1e-5


@pytest.mark.parametrize("loss", ["huber", "student_t"])
def test_without_noise_it_is_the_sample(loss: str) -> None:
    x = np.array([3.0, np.nan, 1e17, -2.0, 1e307, -1e307])
    run = RobustKalman(1e-3, 0.0, loss=loss).filter(x)
    np.testing.assert_array_equal(run.mean, [3.0, 3.0, 1e17, -2.0, 1e307, -1e307])
    np.testing.assert_array_equal(run.variance, [0.0, 1e-3, 0.0, 0.0, 0.0, 0.0])


def test_three_rounds_are_enough() -> None:
    """Against rounds until nothing moves: the squared error of the level parts by less than 1 %."""
    for s, outliers in ((0.01, 0.0), (0.01, 0.05), (0.1, 0.05), (1.0, 0.05)):
        x, level = streams(150, 40, s, outliers, 7)
        found = error(RobustKalman(s, 1.0, loss="student_t", mean=0.0, variance=0.0), x, level)
        means = [recursion(column, s, 1.0, "student_t", 0.0, 0.0, rounds=30)[0] for column in x.T]
        settled = float(np.mean((np.array(means).T - level) ** 2))
        assert abs(found / settled - 1.0) < 0.01


# --- what is known of the samples ---------------------------------------------------------------------------


def test_what_changes_by_sample() -> None:
    x = np.array([1.0, 9.0, 2.0, -7.0])
    for loss in ("huber", "student_t"):
        robust = RobustKalman(0.1, 2.0, loss=loss)
        whole = robust.filter(x, weight=[1.0, 2.0, 0.0, 1.0], steps=[1.0, 1.0, 3.0, 2.0])
        state = robust.init(0.0)
        for z, r, q in zip(x, (2.0, 1.0, None, 2.0), (0.1, 0.1, 0.3, 0.2), strict=True):
            given = RobustKalman(q, 2.0 if r is None else r, loss=loss)
            state = given.update(state, math.nan if r is None else z)
        assert whole.state == pytest.approx(state, rel=1e-14)
        np.testing.assert_array_equal(robust.filter(x, r=np.full(4, 2.0)).mean, robust.filter(x).mean)


# --- what it is for -----------------------------------------------------------------------------------------


def test_the_price_on_gaussian_noise_and_what_it_buys_with_outliers() -> None:
    """Theory notes, 3.8: .0969, .0990, .1016 and .350, .108, .108 over 40 seeds."""
    found = {}
    for outliers in (0.0, 0.05):
        x, level = streams(600, 1500, 0.01, outliers, 11)
        given = {"q": 0.01, "r": 1.0, "mean": 0.0, "variance": 0.0}
        found[outliers] = {
            "kalman": error(Kalman(**given), x, level),
            "huber": error(RobustKalman(**given), x, level),
            "huber 1.345": error(RobustKalman(**given, threshold=1.345), x, level),
            "student_t": error(RobustKalman(**given, loss="student_t"), x, level),
        }
    gaussian, dirty = found[0.0], found[0.05]
    assert gaussian["kalman"] == pytest.approx(0.0939, rel=0.02)
    assert dirty["kalman"] == pytest.approx(0.336, rel=0.03)
    assert gaussian["huber"] <= 1.03 * gaussian["kalman"]
    assert gaussian["huber 1.345"] == pytest.approx(1.036 * gaussian["kalman"], rel=0.005)
    assert gaussian["student_t"] == pytest.approx(1.062 * gaussian["kalman"], rel=0.01)
    for loss in ("huber", "huber 1.345", "student_t"):
        assert dirty["kalman"] >= 3.0 * dirty[loss]
        assert dirty[loss] == pytest.approx(0.106, rel=0.03)


def test_a_shift_of_the_level_is_taken_for_outliers() -> None:
    x, level = streams(500, 300, 1e-4, 0.0, 12, shift=8.0, at=200)
    late = slice(200, 500)
    off = {
        name: np.mean((estimator.filter(x).mean[late] - level[late]) ** 2)
        for name, estimator in (
            ("kalman", Kalman(1e-4, 1.0)),
            ("huber", RobustKalman(1e-4, 1.0)),
            ("student_t", RobustKalman(1e-4, 1.0, loss="student_t")),
        )
    }
    assert off["huber"] > 1.5 * off["kalman"]
    assert off["student_t"] > 1.5 * off["kalman"]


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss": "tukey"}, "loss='tukey' is not valid; loss must be one of 'huber', 'student_t'"),
        ({"loss": "gaussian"}, "loss='gaussian'"),
        ({"loss": None}, "loss=None"),
        ({"loss": ["huber"]}, "loss=['huber']"),
        ({"threshold": 0.0}, "threshold=0.0 is not valid; threshold must be > 0 in standard deviations"),
        ({"threshold": math.nan}, "threshold=nan"),
        ({"dof": 0}, "dof=0 is not valid; dof must be > 0 degrees of freedom"),
        ({"dof": math.inf}, "dof=inf"),
        ({"q": -1.0}, "RobustKalman: q=-1.0 is not valid"),
        ({"q": 0.0, "r": 0.0}, "q must be > 0 where r = 0"),
        ({"variance": -1.0}, "variance=-1.0"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(" is ")[0],
)
def test_bad_parameters_get_one_line(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid; .* must be ") as caught:
        RobustKalman(**{"q": 1.0, "r": 1.0, **given})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"q \(2,\), .* threshold \(3,\), .* do not broadcast"):
        RobustKalman([1.0, 2.0], 1.0, threshold=[1.0, 2.0, 3.0])


def test_traits() -> None:
    shift, scaled = Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT
    assert RobustKalman(1.0, 1.0).traits == {Trait.HAS_VARIANCE, shift}
    assert RobustKalman(1.0, 1.0, variance=1.0).traits == {Trait.HAS_VARIANCE}
    always_alike = RobustKalman(1.0, [1.0, 0.0], threshold=[math.inf, 1.0])
    assert always_alike.traits == {Trait.HAS_VARIANCE, shift, scaled, Trait.LINEAR}
    assert RobustKalman(1.0, 1.0, threshold=math.inf, loss="student_t").traits == {Trait.HAS_VARIANCE, shift}
    assert RobustKalman(1.0, 1.0).state_bytes == 16
