from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from data import agrees
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import signal

from estimators import EMA, DebiasedEMA, Kalman, LinearEstimator, MovingAverage
from estimators.filterpy import FilterpyKalman

EPS = 2.0**-52

LINEAR = [
    EMA(0.0),
    EMA(0.17),
    EMA(0.9),
    EMA(0.99, initial=None),
    DebiasedEMA(0.5),
    DebiasedEMA(0.999),
    Kalman(1e-4, 1.0),
    Kalman(3.0, 2.0, mean=1.0, variance=5.0),
    Kalman(1.0, 0.0),
    FilterpyKalman(0.01, 1.0),
    MovingAverage(1),
    MovingAverage(2),
    MovingAverage(199),
]

each = pytest.mark.parametrize("estimator", LINEAR, ids=repr)


def long_impulse(estimator: Any) -> np.ndarray:
    """Impulse response until it has vanished."""
    return estimator.impulse_response(60 * math.ceil(estimator.effective_window) + 2)


@each
def test_closed_forms_are_sums_over_the_impulse_response(estimator: Any) -> None:
    h = long_impulse(estimator)
    k = np.arange(h.size)
    rounding = 4 * EPS * estimator.effective_window  # of (1 - K)^k, summed
    assert estimator.steady_gain == h[0]
    assert math.fsum(h) == pytest.approx(1.0, rel=rounding)
    assert estimator.effective_window == pytest.approx(1.0 / h[0], rel=2 * EPS)
    assert estimator.noise_gain == pytest.approx(math.fsum(h**2), rel=rounding)
    assert estimator.group_delay == pytest.approx(math.fsum(k * h), rel=2 * rounding, abs=1e-15)
    np.testing.assert_allclose(estimator.step_response(h.size), np.cumsum(h), rtol=0, atol=4 * rounding)


@each
def test_the_frequency_response_is_the_transform_of_the_impulse_response(estimator: Any) -> None:
    h = long_impulse(estimator)
    f = np.array([-0.3, 0.0, 1e-9, 1e-4, 0.01, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0])
    direct = np.exp(-2j * np.pi * np.outer(f, np.arange(h.size))) @ h
    np.testing.assert_allclose(estimator.frequency_response(f), direct, rtol=0, atol=1e-11)
    assert estimator.frequency_response(0.0) == 1.0
    assert estimator.frequency_response(1.0) == pytest.approx(1.0, abs=4 * EPS * estimator.effective_window)


@each
def test_scipy_agrees(estimator: Any) -> None:
    """scipy.signal: lfilter, freqz and group_delay of the same transfer function."""
    if isinstance(estimator, MovingAverage):
        b, a = np.full(estimator.window, 1.0 / estimator.window), np.array([1.0])
    else:
        b, a = np.array([estimator.steady_gain]), np.array([1.0, estimator.steady_gain - 1.0])
    f = np.array([0.001, 0.05, 0.123, 0.4])
    _, expected = signal.freqz(b, a, worN=2 * np.pi * f)
    np.testing.assert_allclose(estimator.frequency_response(f), expected, rtol=0, atol=1e-13)
    _, delay = signal.group_delay((b, a), w=[1e-7])
    assert estimator.group_delay == pytest.approx(delay[0], rel=1e-7, abs=1e-12)
    impulse = np.eye(1, 300)[0]
    np.testing.assert_allclose(estimator.impulse_response(300), signal.lfilter(b, a, impulse), atol=1e-15)


@each
def test_a_settled_run_has_the_stated_response(estimator: Any) -> None:
    """Weights of a long run, by replay: the last ones are the impulse response."""
    steps = 300 + 40 * math.ceil(estimator.effective_window)
    run = estimator.filter(np.zeros(steps))
    at = steps - 300
    found = run.replay(np.eye(1, steps, at)[0])[at:]
    np.testing.assert_allclose(found, estimator.impulse_response(300), rtol=1e-12, atol=1e-15)


@each
def test_crossings_of_the_step_response(estimator: Any) -> None:
    if isinstance(estimator, MovingAverage):
        half, e_fold = estimator.half_life / estimator.window, estimator.time_constant / estimator.window
        assert half == pytest.approx(0.5, rel=EPS)
        assert e_fold == pytest.approx(1.0 - math.exp(-1.0), rel=2 * EPS)
        return
    beta = 1.0 - estimator.steady_gain
    if beta == 0.0:
        assert estimator.half_life == estimator.time_constant == 0.0
        return
    assert 1.0 - beta**estimator.half_life == pytest.approx(0.5, rel=1e-12)
    assert 1.0 - beta**estimator.time_constant == pytest.approx(1.0 - math.exp(-1.0), rel=1e-12)
    assert estimator.time_constant == pytest.approx(-1.0 / math.log(beta), rel=1e-12)
    assert estimator.half_life == pytest.approx(math.log(2.0) * estimator.time_constant, rel=2 * EPS)


@each
def test_the_cutoff_is_half_power(estimator: Any) -> None:
    if math.isnan(estimator.cutoff):
        power = np.abs(estimator.frequency_response(np.linspace(0.0, 0.5, 1001))) ** 2
        assert power.min() > 0.5
    else:
        assert abs(estimator.frequency_response(estimator.cutoff)) ** 2 == pytest.approx(0.5, rel=1e-13)
        below = np.linspace(0.0, estimator.cutoff, 200)[:-1]
        assert np.all(np.abs(estimator.frequency_response(below)) ** 2 > 0.5)


@each
def test_all_are_linear_estimators(estimator: Any) -> None:
    assert isinstance(estimator, LinearEstimator)


# --- tabulated values: theory notes 4.1, checked there with scipy and 40 digits -----------------------------

TABLE_4_1 = """
.1   .8181818182    .1111111111  nan          nan            .3010299957    1.2222222222
.17  .7094017094    .2048192771  nan          nan            .3911761078    1.4096385542
.2   .6666666667    .25          2.2142974356 .3524163823    .4306765581    1.5
.5   .3333333333    1            .7227342478  .1150267281    1              3
.9   .05263157895   9            .1054581170  .01678418061   6.5788134790   19
.95  .02564102564   19           .05130454415 .008165371805  13.5134073340  39
.98  .01010101010   49           .02020339450 .003215470101  34.3096184915  99
.99  .005025125628  99           .01005042045 .001599574095  68.9675639365  199
.999 .0005002501251 999          .001000500417 .0001592345869 692.8005491785 1999
"""


@pytest.mark.parametrize("row", TABLE_4_1.split("\n")[1:-1], ids=lambda r: f"beta={r.split()[0]}")
@pytest.mark.parametrize("kind", [EMA, DebiasedEMA])
def test_ema_table(kind: Any, row: str) -> None:
    beta, noise_gain, delay, radians, cutoff, half_life, window = row.split()
    estimator = kind(float(beta))
    assert agrees(estimator.noise_gain, noise_gain)
    assert estimator.group_delay == pytest.approx(float(delay), rel=1e-9)
    assert agrees(estimator.half_life, half_life)
    assert 1.0 / estimator.noise_gain == pytest.approx(float(window), rel=1e-10)
    if cutoff == "nan":
        assert math.isnan(estimator.cutoff)
    else:
        assert agrees(estimator.cutoff, cutoff)
        assert agrees(2.0 * math.pi * estimator.cutoff, radians)


def test_where_half_power_begins_to_exist() -> None:
    """beta >= 3 - 2 sqrt(2); at equality it is the Nyquist frequency."""
    first = 3.0 - 2.0 * math.sqrt(2.0)
    assert math.isnan(EMA(first - 1e-9).cutoff)
    assert EMA(first + 1e-12).cutoff == pytest.approx(0.5, abs=1e-5)


def test_the_cutoff_is_not_ten_to_the_minus_three_tenths() -> None:
    """'-3 dB' taken as 10^-0.3 gives .105207775533 at beta = .9, .0100265841239 at .99."""
    assert not agrees(2.0 * math.pi * EMA(0.9).cutoff, ".1052077755")
    assert 2.0 * math.pi * EMA(0.99).cutoff > 0.01004


# --- theory notes 4.2: the settled filter, from a Riccati equation solved independently ---------------------

TABLE_4_2 = """
1e-6  .0009995001250 .9990004998750 .001000500125  1.001000500125  -.49999975
1e-4  .009950124999  .9900498750    .01005012500   1.0100501250    -.4999750012
.001  .03112672920   .9688732708    .03212672920   1.0321267292    -.4997501249
.01   .09512492197   .9048750780    .1051249220    1.1051249220    -.4975124378
.05   .2             .8             .25            1.25            -.4878048780
.1    .2701562119    .7298437881    .3701562119    1.3701562119    -.4761904762
.5    .5             .5             1              2               -.4
1     .6180339887    .3819660113    1.6180339887   2.6180339887    -.3333333333
2     .7320508076    .2679491924    2.7320508076   3.7320508076    -.25
10    .9160797831    .0839202169    10.9160797831  11.9160797831   -.0833333333
100   .9901951359    .0098048641    100.9901951359 101.9901951359  -.0098039216
"""


@pytest.mark.parametrize("row", TABLE_4_2.split("\n")[1:-1], ids=lambda r: f"s={r.split()[0]}")
def test_kalman_table(row: str) -> None:
    from scipy.linalg import solve_discrete_are

    s, gain, beta, predicted, innovation, rho = row.split()
    ratio, r = float(s), 4.0
    kalman = Kalman(q=ratio * r, r=r)
    assert agrees(kalman.steady_gain, gain)
    assert agrees(kalman.steady_state().beta, beta)
    start = Kalman(kalman.q, r, mean=0.0, variance=r * kalman.steady_gain)
    out = start.filter(np.zeros(3))  # starts settled, and stays there
    np.testing.assert_allclose(out.variance, r * kalman.steady_gain, rtol=4 * EPS + EPS * ratio**-0.5)
    assert out.innovation_variance[0] / r == pytest.approx(float(innovation), rel=1e-9)
    assert (out.innovation_variance[0] - r) / r == pytest.approx(float(predicted), rel=1e-8)
    riccati = solve_discrete_are(np.eye(1), np.eye(1), np.array([[ratio * r]]), np.array([[r]]))[0, 0]
    assert out.innovation_variance[0] - r == pytest.approx(riccati, rel=1e-12 * max(1.0, ratio**-0.5))
    b = kalman.steady_state().beta
    assert agrees(-b / (1.0 + b * b), rho)  # differences are an MA(1) with theta = -b
    assert agrees(-1.0 / (2.0 + kalman.signal_to_noise), rho)


def test_rational_and_golden_gains() -> None:
    assert Kalman(0.05, 1.0).steady_gain == pytest.approx(0.2, rel=EPS)
    assert Kalman(0.5, 1.0).steady_gain == 0.5
    assert Kalman(1.0, 1.0).steady_gain == pytest.approx((math.sqrt(5.0) - 1.0) / 2.0, rel=EPS)
    assert Kalman(0.01, 1.0).steady_gain == pytest.approx(0.09512492197250393, rel=EPS)  # filterpy's limit


@pytest.mark.parametrize(
    ("beta", "s"),
    [
        (0.9, ".0111111111"),
        (0.95, ".002631578947"),
        (0.98, "4.081632653e-4"),
        (0.99, "1.010101010e-4"),
        (0.999, "1.001001001e-6"),
    ],
)
def test_noise_ratio_of_a_beta(beta: float, s: str) -> None:
    assert agrees(EMA(beta).signal_to_noise, s)
    assert agrees(Kalman.from_beta(beta, r=3.0).signal_to_noise, s)


# --- limits, shapes, errors ---------------------------------------------------------------------------------


def test_limits() -> None:
    frozen = Kalman(0.0, 1.0)  # the running mean: settles at a gain of zero
    assert frozen.steady_gain == frozen.noise_gain == frozen.cutoff == 0.0
    assert math.isinf(frozen.effective_window)
    assert math.isinf(frozen.group_delay)
    assert math.isinf(frozen.half_life)
    np.testing.assert_array_equal(frozen.impulse_response(3), 0.0)
    assert frozen.frequency_response(0.0) == 1.0
    assert frozen.frequency_response(0.1) == 0.0
    passing = EMA(0.0)
    assert (passing.steady_gain, passing.noise_gain, passing.group_delay) == (1.0, 1.0, 0.0)
    np.testing.assert_array_equal(passing.step_response(3), 1.0)
    np.testing.assert_array_equal(passing.impulse_response(3), [1.0, 0.0, 0.0])
    assert math.isnan(MovingAverage(1).cutoff)
    assert math.isinf(EMA(0.0).signal_to_noise)
    assert math.isinf(DebiasedEMA(5e-324).signal_to_noise)


@settings(max_examples=100, deadline=None)
@given(
    beta=st.floats(-13.0, -0.01).map(lambda e: 1.0 - 10.0**e),
    f=st.floats(-13.0, -0.31).map(lambda e: 10.0**e),
)
@example(beta=1.0 - 1e-12, f=1e-12)
def test_no_cancellation_near_zero_frequency(beta: float, f: float) -> None:
    """1 / |H|^2 - 1 = 4 b sin^2(pi f) / (1 - b)^2."""
    gain = EMA(beta).steady_gain
    response = EMA(beta).frequency_response(f)
    assert abs(response) == pytest.approx(
        1.0 / math.sqrt(1.0 + 4.0 * (1.0 - gain) * math.sin(math.pi * f) ** 2 / gain**2), rel=1e-13
    )


def test_shapes() -> None:
    many = EMA([[0.5, 0.9, 0.99]])
    assert many.half_life.shape == (1, 3)
    assert many.impulse_response(7).shape == many.step_response(7).shape == (7, 1, 3)
    assert many.frequency_response(0.1).shape == (1, 3)
    assert many.frequency_response(np.zeros((4, 2))).shape == (4, 2, 1, 3)
    assert Kalman([1.0, 2.0], 1.0).steady_gain.shape == (2,)
    assert isinstance(EMA(0.5).half_life, float)
    assert MovingAverage(3).frequency_response([0.1, 0.2]).shape == (2,)
    for estimator in LINEAR:
        assert estimator.impulse_response(0).shape == (0,)
        assert np.ndim(estimator.frequency_response(0.1)) == 0


@pytest.mark.parametrize("n", [-1, 2.5, True, None, "3"])
def test_bad_lengths_get_one_line(n: Any) -> None:
    for estimator in (EMA(0.5), MovingAverage(3)):
        for name in ("impulse_response", "step_response"):
            with pytest.raises(ValueError, match=r"n=.* is not valid; n must be an int >= 0") as caught:
                getattr(estimator, name)(n)
            assert "\n" not in str(caught.value)
