from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from data import agrees
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage, matched
from estimators.filterpy import FilterpyKalman

EPS = 2.0**-52


def window_error(window: int, s: Fraction) -> Fraction:
    """Mean squared error of a window on a random walk, in units of r: 1/N + s (N - 1)(2 N - 1) / (6 N)."""
    n = Fraction(window)
    return 1 / n + s * (n - 1) * (2 * n - 1) / (6 * n)


def best_window(s: Fraction, up_to: int = 2000) -> int:
    return min(range(1, up_to), key=lambda n: window_error(n, s))


def test_the_matched_set_of_the_contract() -> None:
    assert matched(MovingAverage, EMA(0.99)) == MovingAverage(199)
    assert matched(MovingAverage, EMA(0.99), by="delay") == MovingAverage(199)
    assert matched(EMA, MovingAverage(199)).beta == pytest.approx(0.99, rel=EPS)
    assert matched(DebiasedEMA, MovingAverage(199)).beta == pytest.approx(0.99, rel=EPS)
    kalman = matched(Kalman, EMA(0.99), r=1.7956)
    assert kalman.r == 1.7956
    assert kalman.signal_to_noise == pytest.approx(1 / 9900, rel=1e-13)


def test_the_best_window_for_ema_099_is_172_and_173_belongs_to_another_walk() -> None:
    """EMA(0.99) is best at s = (1 - b)^2 / b = 1/9900; 173 is the best window at s = 1e-4."""
    s = Fraction(1, 100) ** 2 / Fraction(99, 100)
    assert s == Fraction(1, 9900)
    assert window_error(172, s) < window_error(173, s)
    assert best_window(s) == 172
    assert matched(MovingAverage, EMA(0.99), by="mse") == MovingAverage(172)
    assert best_window(Fraction(1, 10_000)) == 173
    assert MovingAverage.from_signal_to_noise(1e-4) == MovingAverage(173)
    assert matched(MovingAverage, Kalman(q=1e-4, r=1.0), by="mse") == MovingAverage(173)


@settings(max_examples=100, deadline=None)
@given(s=st.fractions(Fraction(1, 100_000), 100, max_denominator=10**6))
def test_the_best_window_by_brute_force(s: Fraction) -> None:
    found = MovingAverage.from_signal_to_noise(float(s)).window
    assert window_error(found, s) <= window_error(best_window(s, 600), s) * (1 + Fraction(1, 10**14))


# Theory notes, 4.4 (r = 1): s, error of EMA and Kalman, best window, its error, ratio; the ratio at s = .01,
# printed there as 1.1625596, is 1.1625580 by its own two errors.
TABLE_4_4 = """
1e-4  .009950124999 173 .01149710983 1.1554739
.001  .03112672920  55  .03601818182 1.1571464
.01   .09512492197  17  .1105882353  1.1625580
.1    .2701562119   6   .3194444444  1.1824435
1     .6180339887   2   .75          1.2135255
"""


@pytest.mark.parametrize("row", TABLE_4_4.split("\n")[1:-1], ids=lambda r: f"s={r.split()[0]}")
def test_errors_on_a_random_walk(row: str) -> None:
    s, error, window, window_mse, ratio = row.split()
    walk = Fraction(s if "e" in s else f"0{s}" if s.startswith(".") else s)
    kalman = Kalman(float(s), 1.0)
    ema = matched(EMA, kalman, by="mse")
    b = Fraction(ema.beta)
    ema_error = (1 - b) / (1 + b) + walk * b**2 / (1 - b**2)
    assert agrees(float(ema_error), error)
    assert agrees(kalman.steady_gain, error)  # minimised exactly at 1 - K, with the value r K
    for other in (b - Fraction(1, 1000), b + Fraction(1, 10_000)):
        assert (1 - other) / (1 + other) + walk * other**2 / (1 - other**2) > ema_error
    best = matched(MovingAverage, kalman, by="mse")
    assert best.window == int(window) == best_window(walk)
    assert agrees(float(window_error(best.window, walk)), window_mse)
    assert agrees(float(window_error(best.window, walk) / ema_error), ratio)


def test_the_noise_matched_window_is_not_the_best_one() -> None:
    assert matched(MovingAverage, Kalman(0.01, 1.0)).window == 20
    assert matched(MovingAverage, Kalman(0.01, 1.0), by="mse").window == 17


@settings(max_examples=100, deadline=None)
@given(window=st.integers(2, 100_000))
def test_a_window_and_an_ema_tie_in_noise_gain_and_delay_at_once(window: int) -> None:
    by_noise, by_delay = (matched(EMA, MovingAverage(window), by=by) for by in ("noise_gain", "delay"))
    assert by_noise.beta == pytest.approx((window - 1) / (window + 1), rel=2 * EPS)
    assert by_delay.beta == pytest.approx(by_noise.beta, rel=2 * EPS)
    for ema in (by_noise, by_delay):
        assert matched(MovingAverage, ema) == MovingAverage(window)
        assert matched(MovingAverage, ema, by="delay") == MovingAverage(window)
    assert matched(MovingAverage, matched(EMA, MovingAverage(window), by="mse"), by="mse").window == window


@pytest.mark.parametrize("by", ["noise_gain", "delay", "mse"])
@pytest.mark.parametrize("kind", [EMA, DebiasedEMA, Kalman, FilterpyKalman])
@pytest.mark.parametrize(
    "given_estimator",
    [EMA(0.9), DebiasedEMA(0.99), Kalman(0.01, 2.0), MovingAverage(19), FilterpyKalman(1.0, 1.0)],
    ids=repr,
)
def test_every_pair(kind: Any, given_estimator: Any, by: Any) -> None:
    found = matched(kind, given_estimator, by=by)
    assert type(found) is kind
    quantity = {"noise_gain": "noise_gain", "delay": "group_delay", "mse": "signal_to_noise"}[by]
    assert getattr(found, quantity) == pytest.approx(getattr(given_estimator, quantity), rel=1e-12)


def test_recursive_kinds_match_alike_by_any_measure() -> None:
    """One gain has one noise gain, one delay and one walk, so the three matches agree between them."""
    kalman = Kalman(0.01, 2.0)
    betas = [matched(EMA, kalman, by=by).beta for by in ("noise_gain", "delay", "mse")]
    np.testing.assert_allclose(betas, kalman.steady_state().beta, rtol=1e-14)


def test_other_parameters() -> None:
    assert matched(EMA, MovingAverage(1), initial=None) == EMA(0.0, initial=None)
    given_prior = matched(Kalman, EMA(0.5), by="mse", r=2.0, mean=1.0, variance=4.0)
    assert given_prior == Kalman(1.0, 2.0, mean=1.0, variance=4.0)
    kept = matched(Kalman(7.0, 2.0, mean=1.0, variance=4.0), EMA(0.5), by="mse")  # it lends its others
    assert kept == Kalman(1.0, 2.0, mean=1.0, variance=4.0)
    assert matched(EMA(0.1, initial=7.0), MovingAverage(1)) == EMA(0.0, initial=7.0)
    assert matched(MovingAverage(5), EMA(0.5)) == MovingAverage(3)
    np.testing.assert_allclose(matched(Kalman, EMA([0.5, 0.9]), r=[1.0, 2.0]).q, [0.5, 2 / 90], rtol=1e-14)


def test_limits() -> None:
    for by in ("noise_gain", "delay", "mse"):
        assert matched(MovingAverage, EMA(0.0), by=by) == MovingAverage(1)
        assert matched(EMA, EMA(0.0), by=by) == EMA(0.0)
        assert matched(EMA, Kalman(1.0, 0.0), by=by) == EMA(0.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: matched(EMA, EMA(0.5), by="lag"), ValueError, "by='lag' is not valid"),
        (lambda: matched(MovingAverage, Kalman(0.0, 1.0)), ValueError, "noise_gain=0.0 is not valid"),
        (lambda: matched(MovingAverage, Kalman(0.0, 1.0), by="delay"), ValueError, "group_delay=inf"),
        (lambda: matched(EMA, Kalman(0.0, 1.0), by="mse"), ValueError, "s=0.0 is not valid"),
        (lambda: matched(MovingAverage, EMA([0.5, 0.9])), ValueError, "does not broadcast over channels"),
        (lambda: matched(MovingAverage, EMA([0.5, 0.9]), by="mse"), ValueError, "does not broadcast"),
        (lambda: matched(Kalman, EMA(0.0)), ValueError, "noise_gain=1.0 is not valid"),
        (lambda: matched(Kalman, EMA(0.0), by="mse"), ValueError, "s=inf is not valid"),
        (
            lambda: matched(MovingAverage, 0.99),
            TypeError,
            "it has no noise_gain; give an estimator, such as",
        ),
        (lambda: matched(dict, EMA(0.5)), TypeError, "dict cannot be matched by noise_gain"),
    ],
)
def test_no_such_setting(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_ratio_of_errors_tends_to_two_over_root_three() -> None:
    s = 1e-9
    window = MovingAverage.from_signal_to_noise(s).window
    ratio = float(window_error(window, Fraction(s))) / Kalman(s, 1.0).steady_gain
    assert ratio == pytest.approx(2 / math.sqrt(3), rel=1e-4)
