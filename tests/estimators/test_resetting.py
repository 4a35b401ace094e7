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
from estimators.resetting import ResettingKalman
from estimators.robust import RobustKalman

SETTINGS = [
    ResettingKalman(0.01, 1.0),
    ResettingKalman(0.1, 1.0, loss="huber"),
    ResettingKalman(0.1, 1.0, loss="student_t", variance=1.0),
    ResettingKalman(0.1, 1.0, alarm=math.inf),
    ResettingKalman(0.1, 1.0, alarm=math.inf, loss="huber"),
    ResettingKalman(0.5, 0.0),
    ResettingKalman(0.1, 1.0, clip=math.inf, slack=0.0),
    ResettingKalman(0.1, [1.0, 2.0], loss="huber", alarm=[3.0, math.inf]),
]
CONTRACT = [
    pytest.param(estimator, check, id=f"{number}-{check.__name__}")
    for number, estimator in enumerate(SETTINGS)
    for check in yield_checks(estimator)
]


def recursion(x: Any, q: float, r: float, alarm: float, slack: float, clip: float, threshold: float) -> Any:
    """Huber's filter from nothing known, with its sums; the last column says where it started anew."""
    rows = []
    mean, variance, up, down, unconfirmed = math.nan, math.inf, 0.0, 0.0, False
    for z in x:
        variance += q
        restart = False
        if z == z and math.isinf(variance):
            restart = True
        elif z == z:
            nu, total = z - mean, variance + r
            u = nu / math.sqrt(total)
            up = max(0.0, up + min(max(u, -clip), clip) - slack)
            down = max(0.0, down - min(max(u, -clip), clip) - slack)
            restart = max(up, down) > alarm or (unconfirmed and abs(u) >= clip)
            if not restart:
                noise = r * max(1.0, abs(u) / threshold)
                gain = variance / (variance + noise)
                mean, variance, unconfirmed = mean + gain * nu, (1.0 - gain) * variance, False
        if restart:
            mean, variance, up, down, unconfirmed = z, r, 0.0, 0.0, math.isfinite(alarm)
        rows.append((mean, variance, -1.0 if unconfirmed else up, down, restart))
    return np.array(rows).T


@pytest.mark.parametrize(("estimator", "check"), CONTRACT)
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- the recursion ------------------------------------------------------------------------------------------

samples = st.lists(
    st.one_of(st.floats(-3.0, 3.0), st.floats(5.0, 100.0), st.just(math.nan)), min_size=1, max_size=40
)


@settings(max_examples=150, deadline=None)
@given(
    x=samples,
    s=st.floats(-3.0, 1.0).map(lambda e: 10.0**e),
    alarm=st.sampled_from([1.1, 4.3, 7.7, math.inf]),
    slack=st.sampled_from([0.0, 0.55, 1.0]),
    clip=st.sampled_from([1.9, 3.1, math.inf]),
    loss=st.sampled_from(["gaussian", "huber"]),
)
def test_the_recursion(x: list[float], s: float, alarm: float, slack: float, clip: float, loss: str) -> None:
    resetting = ResettingKalman(2.0 * s, 2.0, loss=loss, alarm=alarm, slack=slack, clip=clip)
    state, rows = resetting.init(0.0), []
    for z in x:
        state = resetting.update(state, z)
        rows.append(state)
    threshold = 1.5 if loss == "huber" else math.inf
    *fields, restart = recursion(x, 2.0 * s, 2.0, alarm, slack, clip, threshold)
    for found, expected in zip(np.array(rows).T, fields, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    run = resetting.filter(x)
    np.testing.assert_allclose(run.mean, fields[0], rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(run.gain == 1.0, restart.astype(bool))


@settings(max_examples=100, deadline=None)
@given(x=samples, s=st.floats(-3.0, 1.0).map(lambda e: 10.0**e), loss=st.sampled_from(ResettingKalman.losses))
def test_what_holds_of_every_run(x: list[float], s: float, loss: str) -> None:
    resetting = ResettingKalman(s, 1.0, loss=loss)
    state = resetting.init(0.0)
    for z in x:
        before, state = state, resetting.update(state, z)
        assert -1.0 <= state.cusum_up <= 7.5
        assert 0.0 <= state.cusum_down <= 7.5
        assert state.cusum_up - max(before.cusum_up, 0.0) <= 2.0 + 1e-12  # clip - slack
        assert state.cusum_down - before.cusum_down <= 2.0 + 1e-12
        if z != z:
            assert state[2:] == before[2:]
        elif state.cusum_up == -1.0:
            assert (state.mean, state.variance, state.cusum_down) == (z, 1.0, 0.0)
    mirrored = resetting.filter(-np.array(x))
    np.testing.assert_array_equal(mirrored.mean, -resetting.filter(x).mean)


def test_a_shift_step_by_step() -> None:
    """Four samples beyond the clip make 4 (3 - 1) > 7.5; the fourth is where the filter starts."""
    x = np.concatenate([np.zeros(100), np.full(8, 20.0)])
    run = ResettingKalman(0.01, 1.0, loss="huber").filter(x)
    assert np.flatnonzero(run.gain == 1.0).tolist() == [0, 103]
    assert run.mean[102] < 4.0
    np.testing.assert_array_equal(run.mean[103:], 20.0)
    assert run.variance[103] == 1.0
    down = ResettingKalman(0.01, 1.0, loss="huber").filter(-x)
    np.testing.assert_array_equal(down.mean, -run.mean)


def test_an_outlier_neither_alarms_nor_stays_where_the_filter_starts() -> None:
    x = np.concatenate([np.zeros(50), [1e6], np.zeros(50)])
    assert np.sum(ResettingKalman(0.01, 1.0, loss="huber").filter(x).gain == 1.0) == 1
    # The sample that sets off the alarm is an outlier: the next refutes it, the one after that confirms.
    x = np.concatenate([np.zeros(100), [20.0, 20.0, 20.0, 500.0, 20.0, 20.0, 20.0]])
    run = ResettingKalman(0.01, 1.0, loss="huber").filter(x)
    assert np.flatnonzero(run.gain == 1.0).tolist() == [0, 103, 104]
    np.testing.assert_array_equal(run.mean[103:], [500.0, 20.0, 20.0, 20.0])
    first = ResettingKalman(0.01, 1.0, loss="huber").filter([500.0, 1.0, 1.0])
    np.testing.assert_array_equal(first.mean, [500.0, 1.0, 1.0])


def test_a_gap_leaves_the_sums_alone() -> None:
    resetting = ResettingKalman(0.01, 1.0)
    start = resetting.filter([0.0, 0.1, 2.0, 2.5]).state
    after = resetting.filter([math.nan] * 5, start).state
    assert after[2:] == start[2:]
    assert start.cusum_up > 0.0


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [{}, {"mean": 1.0, "variance": 2.0}], ids=["diffuse", "known"])
def test_without_an_alarm_it_is_the_filter_below_to_the_last_bit(prior: dict[str, float]) -> None:
    x = 5.0 * np.random.default_rng(0).standard_normal((200, 3))
    x[50:60, 1] = np.nan
    x[100:] += 50.0
    for loss in ("gaussian", "huber", "student_t"):
        run = ResettingKalman([0.0, 0.1, 3.0], 1.0, loss=loss, alarm=math.inf, **prior).filter(x)
        kind = Kalman([0.0, 0.1, 3.0], 1.0, **prior)
        if loss != "gaussian":
            kind = RobustKalman([0.0, 0.1, 3.0], 1.0, loss=loss, **prior)
        below = kind.filter(x)
        for name in ("mean", "variance", "gain"):
            np.testing.assert_array_equal(getattr(run, name), getattr(below, name))


# --- run lengths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alarm", "false_alarm", "delay"), [(4.0, 168.0, 8.38), (5.0, 465.0, 10.4)], ids=["h4", "h5"]
)
def test_textbook_run_lengths(alarm: float, false_alarm: float, delay: float) -> None:
    """Montgomery (2012), section 9.1: two-sided, slack 0.5, without clip."""
    watched = ResettingKalman(0.0, 1.0, alarm=alarm, slack=0.5, clip=math.inf)
    assert watched.average_run_length == pytest.approx(false_alarm, rel=0.003)
    assert watched.detection_delay(1.0) == pytest.approx(delay, rel=0.003)
    assert watched.detection_delay(-1.0) == watched.detection_delay(1.0)
    assert watched.detection_delay(0.0) == watched.average_run_length


def test_a_run_length_known_in_closed_form() -> None:
    """Steps that all are clipped add clip - slack each."""
    watched = ResettingKalman(0.0, 1.0, alarm=7.5, slack=1.0, clip=3.0)
    assert watched.detection_delay(30.0) == pytest.approx(4.0, rel=1e-9)
    # An alarm at the first sample above 0: a geometric law.
    first = ResettingKalman(0.0, 1.0, alarm=1e-9, slack=1.0, clip=math.inf)
    assert first.average_run_length == pytest.approx(1.0 / math.erfc(1.0 / math.sqrt(2.0)), rel=1e-6)
    assert math.isinf(ResettingKalman(0.0, 1.0, alarm=math.inf).average_run_length)


def test_run_lengths_of_settings_side_by_side() -> None:
    many = ResettingKalman(0.0, 1.0, alarm=[2.0, 3.0, 3.0], slack=0.5, clip=[2.0, 2.0, 3.0])
    for k, (alarm, clip) in enumerate([(2.0, 2.0), (3.0, 2.0), (3.0, 3.0)]):
        one = ResettingKalman(0.0, 1.0, alarm=alarm, slack=0.5, clip=clip)
        assert many.average_run_length[k] == one.average_run_length
        assert many.detection_delay(1.5)[k] == one.detection_delay(1.5)
    assert np.all(np.diff(many.average_run_length[:2]) > 0.0)
    assert ResettingKalman(0.0, 1.0).detection_delay([1.0, 2.0]).shape == (2,)


@pytest.mark.slow
@pytest.mark.parametrize(("alarm", "slack", "clip"), [(3.0, 0.5, 2.0), (4.0, 0.5, math.inf), (2.0, 1.0, 3.0)])
def test_run_lengths_are_those_of_the_filter(alarm: float, slack: float, clip: float) -> None:
    """A filter that knows the level: its innovations are white, and 0.1 % of its samples a restart's.

    Runs from the prior to the first restart, in 20,000 channels; a run's length is about exponential.
    """
    watched = ResettingKalman(0.0, 1.0, mean=0.0, variance=1e-12, alarm=alarm, slack=slack, clip=clip)
    rng = np.random.default_rng(3)
    for shift, steps in ((0.0, 2500), (1.0, 200)):
        expected = watched.detection_delay(shift)
        state, count = watched.init(np.zeros(20_000)), 20_000
        length, alive = np.zeros(count), np.ones(count, dtype=bool)
        for _ in range(0, steps, 50):
            run = watched.filter(shift + rng.standard_normal((50, count)), state)
            state, restarted = run.state, run.gain == 1.0
            first = np.where(restarted.any(axis=0), restarted.argmax(axis=0) + 1, 50)
            length += np.where(alive, first, 0)
            alive &= ~restarted.any(axis=0)
        assert alive.mean() < 1e-3
        assert length.mean() == pytest.approx(expected, rel=4.0 / math.sqrt(count))


# --- what it is for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outliers", [0.0, 0.05])
@pytest.mark.parametrize("loss", ["gaussian", "huber", "student_t"])
def test_it_follows_a_shift_within_ten_samples(loss: str, outliers: float) -> None:
    x, level = streams(120, 10_000, 0.01, outliers, 5, shift=8.0, at=100)
    near = np.abs(ResettingKalman(0.01, 1.0, loss=loss).filter(x).mean[100:] - level[100:]) <= 2.0
    first = np.where(near.any(axis=0), near.argmax(axis=0) + 1, 99)
    assert np.mean(first <= 10) >= 0.999
    assert np.median(first) == 4
    if loss != "gaussian" or not outliers:
        assert near[9].mean() >= 0.998
    alone = np.abs(RobustKalman(0.01, 1.0).filter(x).mean[100:110] - level[100:110]) <= 2.0
    assert alone.any(axis=0).mean() < 0.01


@pytest.mark.parametrize(
    ("loss", "outliers", "most"),
    [("gaussian", 0.0, 0.05), ("huber", 0.0, 0.1), ("huber", 0.05, 0.3), ("student_t", 0.05, 0.5)],
)
def test_false_alarms_per_ten_thousand_samples(loss: str, outliers: float, most: float) -> None:
    alarms = 0
    for seed in range(5):
        x, _ = streams(5000, 400, 0.01, outliers, 100 + seed)
        alarms += np.sum(ResettingKalman(0.01, 1.0, loss=loss).filter(x).gain[50:] == 1.0)
    assert alarms / (5 * 4950 * 400) * 1e4 <= most


def test_only_both_together_stand_outliers_and_shifts() -> None:
    """Squared error with 5 % outliers and a shift of 8, the ten samples after the shift aside."""
    x, level = streams(300, 1000, 0.01, 0.05, 9, shift=8.0, at=150)
    settled = np.r_[50:150, 160:300]
    found = {
        name: float(np.mean((estimator.filter(x).mean - level)[settled] ** 2))
        for name, estimator in {
            "kalman": Kalman(0.01, 1.0),
            "robust": RobustKalman(0.01, 1.0),
            "resetting": ResettingKalman(0.01, 1.0),
            "both": ResettingKalman(0.01, 1.0, loss="huber"),
        }.items()
    }
    assert found.pop("both") < min(0.15, 0.35 * min(found.values()))


# --- settings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"loss": "l1"}, "loss='l1' is not valid; loss must be one of 'gaussian', 'huber', 'student_t'"),
        ({"alarm": 0.0}, "ResettingKalman: alarm=0.0 is not valid; alarm must be > 0, or inf for no alarm"),
        ({"alarm": math.nan}, "alarm=nan"),
        ({"slack": -0.1}, "slack=-0.1 is not valid; slack must be >= 0 in standard deviations"),
        ({"slack": math.inf}, "slack=inf"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"clip": 1.0}, "clip=1.0 is not valid; clip must be > slack"),
        ({"threshold": -1.0}, "threshold=-1.0"),
        ({"r": -1.0}, "r=-1.0"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(" is ")[0],
)
def test_bad_parameters_get_one_line(given: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid; .* must be ") as caught:
        ResettingKalman(**{"q": 1.0, "r": 1.0, **given})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bad_shift_gets_one_line() -> None:
    with pytest.raises(
        ValueError, match=r"ResettingKalman\.detection_delay: shift=inf is not valid; shift must"
    ):
        ResettingKalman(1.0, 1.0).detection_delay(math.inf)


def test_parameters_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"q \(2,\), .* alarm \(3,\), .* do not broadcast"):
        ResettingKalman([1.0, 2.0], 1.0, alarm=[1.0, 2.0, 3.0])


def test_traits() -> None:
    shift, scaled = Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT
    assert ResettingKalman(1.0, 1.0).traits == {Trait.HAS_VARIANCE, shift}
    still = {Trait.HAS_VARIANCE, shift, scaled, Trait.LINEAR}
    assert ResettingKalman(1.0, 1.0, alarm=math.inf).traits == still
    assert ResettingKalman(1.0, 0.0).traits == still
    assert ResettingKalman(1.0, 1.0, alarm=math.inf, loss="huber").traits == {Trait.HAS_VARIANCE, shift}
    assert ResettingKalman(1.0, 1.0).state_bytes == 32
