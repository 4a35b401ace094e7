from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import agrees, exact
from hypothesis import example, given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Trait

EPS = 2.0**-52
LEAST = 5e-324
NEAREST_ONE = math.nextafter(1.0, 0.0)

betas = st.one_of(
    st.floats(LEAST, NEAREST_ONE),
    st.floats(-17.0, -1e-3).map(lambda e: min(1.0 - 10.0**e, NEAREST_ONE)),
    st.sampled_from([LEAST, 1e-300, 0.5, 0.9, 0.99, 0.9999, 0.999999, NEAREST_ONE]),
)
gaps = st.lists(st.booleans(), min_size=1, max_size=60)


def streams(largest: float = 1e6) -> st.SearchStrategy[list[float]]:
    sample = st.one_of(st.floats(-largest, largest), st.just(math.nan))
    return st.lists(sample, min_size=1, max_size=60)


def scale(x: Any) -> float:
    return float(np.nanmax(np.abs(x), initial=0.0, where=~np.isnan(x)))


# --- what they are ------------------------------------------------------------------------------------------


def test_ema_is_its_definition_in_exact_arithmetic() -> None:
    x = np.random.default_rng(0).normal(size=200)
    out = EMA(0.9, initial=3.0).filter(x)
    beta, mean = Fraction(0.9), Fraction(3)
    for sample, found in zip(exact(x), out.mean, strict=True):
        mean += (1 - beta) * (sample - mean)
        assert abs(Fraction(float(found)) - mean) <= 4 * EPS * 3


def test_debiased_ema_is_the_weighted_mean_in_exact_arithmetic() -> None:
    x = np.random.default_rng(1).normal(size=60)
    x[[0, 7, 8, 30]] = np.nan
    out = DebiasedEMA(0.9).filter(x)
    beta, total, mass = Fraction(0.9), Fraction(0), Fraction(0)
    for t, sample in enumerate(x):
        total, mass = beta * total, beta * mass
        if sample == sample:
            total, mass = total + Fraction(float(sample)), mass + 1
        assert math.isnan(out.mean[t]) if not mass else abs(float(total / mass) - out.mean[t]) <= 4 * EPS


def test_gains_of_the_two() -> None:
    x = np.ones(5)
    np.testing.assert_array_equal(EMA(0.75).filter(x).gain, 0.25)
    np.testing.assert_array_equal(EMA(0.75, initial=None).filter(x).gain, [1.0, 0.25, 0.25, 0.25, 0.25])
    gain = DebiasedEMA(0.75).filter(x).gain
    np.testing.assert_allclose(1.0 / gain[1:], 1.0 + 0.75 / gain[:-1], rtol=2 * EPS)  # 1/K' = 1 + beta/K
    assert gain[0] == 1.0


def test_no_variance_is_made_up() -> None:
    for estimator in (EMA(0.9), DebiasedEMA(0.9)):
        out = estimator.filter([1.0, 2.0])
        assert out.variance is None
        assert out.state.variance is None
        assert estimator.init(0.0).variance is None
        assert estimator.tracker().variance is None


def test_before_the_first_information() -> None:
    x = [np.nan, np.nan, 4.0]
    np.testing.assert_array_equal(EMA(0.5).filter(x).mean, [0.0, 0.0, 2.0])
    np.testing.assert_array_equal(EMA(0.5, initial=8.0).filter(x).mean, [8.0, 8.0, 6.0])
    np.testing.assert_array_equal(EMA(0.5, initial=None).filter(x).mean, [np.nan, np.nan, 4.0])
    np.testing.assert_array_equal(DebiasedEMA(0.5).filter(x).mean, [np.nan, np.nan, 4.0])
    assert math.isnan(EMA(0.5, initial=None).init(1.0).mean)
    assert DebiasedEMA(0.5).init(1.0).weight == 0.0


def test_a_missing_sample() -> None:
    x = [1.0, np.nan, 5.0]
    np.testing.assert_array_equal(EMA(0.5, initial=None).filter(x).mean, [1.0, 1.0, 3.0])
    np.testing.assert_array_equal(EMA(0.5, initial=None).filter(x).gain, [1.0, 0.0, 0.5])
    np.testing.assert_allclose(DebiasedEMA(0.5).filter(x).mean, [1.0, 1.0, 4.2], rtol=EPS)  # the contract


def test_arrays_of_parameters_are_channels() -> None:
    x = np.random.default_rng(2).normal(size=(50, 3))
    beta = np.array([0.1, 0.9, 0.99])
    initial = np.array([[1.0], [2.0]])
    out = EMA(beta, initial=initial).filter(x)
    assert out.mean.shape == (50, 2, 3)
    for i in range(2):
        for j in range(3):
            one = EMA(beta[j], initial=initial[i, 0])
            np.testing.assert_array_equal(out.mean[:, i, j], one.filter(x[:, [j]]).mean[:, 0])
            # A stream by itself is advanced eight samples at a time, which rounds otherwise.
            np.testing.assert_allclose(out.mean[:, i, j], one.filter(x[:, j]).mean, rtol=0, atol=1e-15 * 8)
    assert DebiasedEMA(beta).filter(x[:, 0]).mean.shape == (50, 3)  # a (T,) stream with (P,) parameters


# --- published cases ----------------------------------------------------------------------------------------

RISE = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("estimator", "x", "expected"),
    [
        pytest.param(EMA(0.9), [5, 7], "0.5 1.15", id="optax.ema(.9, debias=False)"),
        pytest.param(DebiasedEMA(0.9), [5, 7], "5 6.0526316", id="optax.ema(.9)"),
        pytest.param(
            EMA(0.5, initial=None),
            [1, 3, 5, 4, 6, 8, 7, 9, 11],
            "1 2 3.5 3.75 4.875 6.4375 6.71875 7.859375 9.4296875",
            id="river stats.EWMean(.5)",
        ),
        pytest.param(
            EMA(0.5, initial=None), RISE, "0 .5 1.25 2.125 3.0625 4.03125", id="pandas ewm adjust=False"
        ),
        pytest.param(
            DebiasedEMA(0.5), RISE, "0 .6667 1.4286 2.2667 3.1613 4.0952", id="pandas ewm adjust=True"
        ),
        pytest.param(DebiasedEMA(0.5), [1, math.nan, 5], "1 1 4.2", id="pandas ignore_na=False"),
        pytest.param(
            EMA(0.9), [1, 2, 3], "0.1 0.29 0.561", id="filterpy FadingMemoryFilter(order=0, beta=.9)"
        ),
        pytest.param(
            DebiasedEMA(0.9), [1, 2, 3], "1 1.5263 2.0701", id="padasip RLS(mu=.9) without its prior"
        ),
        pytest.param(EMA(0.9), [1.0], "0.1", id="flax nnx exercise, channel 1"),
        pytest.param(EMA(0.9), [4.0], "0.4", id="flax nnx exercise, channel 4"),
    ],
)
def test_printed_in_other_libraries(estimator: Any, x: list[float], expected: str) -> None:
    mean = estimator.filter([float(v) for v in x]).mean
    assert all(agrees(m, e) for m, e in zip(mean, expected.split(), strict=True)), mean


# A public lesson on bias correction in Adam, beta = 0.9 on 10, 8, 12, 9, 11, with what it states.
WALKTHROUGH = [
    (1, "1.00", "10.00"),
    (2, "1.70", "8.95"),
    (3, "2.73", "10.07"),
    (4, "3.36", "9.76"),
    (5, "4.12", "10.05"),
]


def test_adam_walkthrough_recomputed() -> None:
    """All its figures hold but the last: 4.1213 / (1 - 0.9^5) is 10.064, not 10.05."""
    x = [10.0, 8.0, 12.0, 9.0, 11.0]
    raw, debiased = EMA(0.9).filter(x).mean, DebiasedEMA(0.9).filter(x).mean
    biased, wrong = Fraction(0), []
    for n, stated_raw, stated_debiased in WALKTHROUGH:
        biased = Fraction(9, 10) * biased + Fraction(1, 10) * int(x[n - 1])
        corrected = biased / (1 - Fraction(9, 10) ** n)
        assert abs(raw[n - 1] - float(biased)) <= 2 * EPS * 12
        assert abs(debiased[n - 1] - float(corrected)) <= 2 * EPS * 12
        wrong += [f"v{n}"] if not agrees(raw[n - 1], stated_raw) else []
        wrong += [f"vhat{n}"] if not agrees(debiased[n - 1], stated_debiased) else []
    assert wrong == ["vhat5"]
    assert agrees(debiased[4], "10.064")
    left = 1.0 - DebiasedEMA(0.9).filter(np.zeros(100)).state.weight
    assert agrees(left, "0.000027")  # the bias left at step 100: 2.7e-5 holds


@settings(max_examples=150, deadline=None)
@given(x=streams(), alpha=st.floats(1e-6, 0.999))
def test_debiased_ema_is_pandas_ewm_adjusted(x: list[float], alpha: float) -> None:
    expected = pd.Series(x).ewm(alpha=alpha, adjust=True, ignore_na=False).mean().to_numpy()
    found = DebiasedEMA.from_alpha(alpha).filter(x).mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=16 * EPS * scale(x))


@settings(max_examples=150, deadline=None)
@given(x=streams(), alpha=st.floats(1e-6, 1.0))
def test_ema_from_the_first_sample_is_pandas_ewm_unadjusted(x: list[float], alpha: float) -> None:
    expected = pd.Series(x).ewm(alpha=alpha, adjust=False, ignore_na=True).mean().to_numpy()
    found = EMA.from_alpha(alpha, initial=None).filter(x).mean
    np.testing.assert_allclose(found, expected, rtol=0, atol=16 * EPS * scale(x))


# --- unbiased from the first sample on ----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    beta=betas,
    constant=st.floats(-8e307, 8e307),
    present=gaps,
    kept=st.sampled_from([np.float64, np.float32]),
)
@example(beta=NEAREST_ONE, constant=1.0, present=[True] * 50, kept=np.float32)
@example(beta=LEAST, constant=-0.1, present=[True, False] * 30, kept=np.float32)
@example(beta=0.5, constant=3.3, present=[True] + [False] * 1100 + [True], kept=np.float64)  # mass gone to 0
def test_a_constant_comes_out_as_itself(beta: float, constant: float, present: list[bool], kept: Any) -> None:
    """Exactly, not within an ulp: the mass is accumulated, the biased mean is never divided."""
    constant = constant if kept is np.float64 else constant / 1e270
    x = np.where(present, constant, np.nan)
    expected = np.full(x.size, np.nan)
    if any(present):
        expected[present.index(True) :] = constant
    estimator = DebiasedEMA(beta)
    mean = estimator.filter(x, dtype=kept).mean
    assert mean.dtype == kept
    np.testing.assert_array_equal(mean, expected.astype(kept))
    state = estimator.init(x[0], dtype=kept)
    for sample, wanted in zip(x, expected.astype(kept), strict=True):
        state = estimator.update(state, sample)
        np.testing.assert_array_equal(state.mean, wanted)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99, 0.999, 0.999999])
def test_white_noise_left_by_the_debiased_ema(beta: float) -> None:
    """(1-b)(1+b^t) / ((1+b)(1-b^t)): 1 at t = 1, the EMA's once t is large."""
    t = np.arange(1, 400)
    gain = DebiasedEMA(beta).filter(np.zeros(t.size)).noise_gain
    bt = t * np.log(beta)
    expected = (1 - beta) / (1 + beta) * (1 + np.exp(bt)) / -np.expm1(bt)
    np.testing.assert_allclose(gain, expected, rtol=1e-14 if beta < 0.9999 else 1e-10)
    assert gain[0] == 1.0


def test_white_noise_left_by_the_debiased_ema_as_tabulated() -> None:
    gain = DebiasedEMA(0.9).filter(np.zeros(50)).noise_gain  # theory notes, beta = .9, in 40 digits
    printed = {2: ".5013850416", 5: ".2044150326", 10: ".1089831508", 50: ".05317689202"}
    assert all(agrees(gain[t - 1], value) for t, value in printed.items())


@pytest.mark.parametrize(("beta", "steps"), [(0.5, 80), (0.9, 500), (0.99, 5000)])
def test_the_debiased_ema_settles_as_the_ema(beta: float, steps: int) -> None:
    x = np.random.default_rng(3).normal(size=steps)
    assert abs(DebiasedEMA(beta).filter(x).mean[-1] - EMA(beta).filter(x).mean[-1]) <= 1e-14


# --- settings by other names --------------------------------------------------------------------------------

NAMED = {
    "half_life": (st.floats(0.05, 1e6), lambda h: 1.0 + h * 2.0 ** (1.0 / h)),
    "time_constant": (st.floats(0.05, 1e6), lambda t: 1.0 + t * math.exp(1.0 / t)),
    "noise_gain": (st.floats(1e-6, 1.0), lambda g: 1.0 + 1.0 / g),
    "group_delay": (st.floats(1e-9, 1e6), lambda d: 2.0 + d + 1.0 / d),
    "signal_to_noise": (st.floats(1e-12, 1e4), lambda s: 1.0 + s + s**-0.5),
    "cutoff": (st.floats(1e-6, 0.49), lambda f: 1.0 + 1.0 / f + 1.0 / (0.5 - f)),
}


@pytest.mark.parametrize("name", NAMED)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_constructors_invert_their_closed_forms(name: str, data: Any) -> None:
    """To the rounding of 1 - beta, by which a long time or a tiny beta is known the less."""
    strategy, condition = NAMED[name]
    wanted = data.draw(strategy)
    found = getattr(getattr(EMA, f"from_{name}")(wanted), name)
    assert abs(found - wanted) <= 2 * EPS * condition(wanted) * wanted


@settings(max_examples=100, deadline=None)
@given(alpha=st.floats(1e-15, 1.0))
def test_from_alpha_is_pandas_alpha(alpha: float) -> None:
    assert EMA.from_alpha(alpha).beta == 1.0 - alpha
    assert abs(EMA.from_alpha(alpha).steady_gain - alpha) <= EPS


@settings(max_examples=100, deadline=None)
@given(span=st.floats(1.0, 1e6))
def test_from_span_is_pandas_span(span: float) -> None:
    """Pandas: alpha = 2 / (span + 1); and the noise gain of a window of that many samples."""
    estimator = EMA.from_span(span)
    assert abs(estimator.steady_gain - 2.0 / (span + 1.0)) <= EPS
    assert abs(estimator.noise_gain * span - 1.0) <= 4 * EPS * (1.0 + span)


@settings(max_examples=100, deadline=None)
@given(db=st.floats(1e-3, 100.0), f=st.floats(1e-3, 0.5))
def test_from_attenuation_attenuates_so_much_there(db: float, f: float) -> None:
    estimator = EMA.from_attenuation(db, f)
    found = -20.0 * math.log10(abs(estimator.frequency_response(f)))
    assert abs(found - db) <= 1e-13 * (1.0 + estimator.effective_window)


def test_from_attenuation_answers_how_large_beta_must_be() -> None:
    """30 dB at f = 0.1: 0.9806; a public chapter states 0.99."""
    assert agrees(EMA.from_attenuation(30, 0.1).beta, "0.9806")
    assert EMA.from_attenuation(1e-300, 0.1).beta < 1e-299  # no division by 1 - 10^(-db/10)
    with pytest.raises(
        ValueError, match=r"db=1000 is not valid; db must be such that beta"
    ):  # closer to 1 than float64 has numbers
        EMA.from_attenuation(1000, 0.5)


def test_constructors_pass_on_other_parameters_and_arrays() -> None:
    assert EMA.from_half_life(5.0, initial=None).initial is None
    assert EMA.from_time_constant([1.0, 2.0]).beta.shape == (2,)
    assert isinstance(DebiasedEMA.from_span(9), DebiasedEMA)
    assert EMA.from_attenuation([10.0, 20.0], 0.1).beta.shape == (2,)
    assert EMA.from_signal_to_noise(math.inf) == EMA(0.0)  # pure signal: nothing to smooth


BAD_BETA = [1, 1.0, -0.1, 2, math.nan, math.inf, -math.inf, None, "0.5", ["0.5"], [], [0.5, 1.0], 1j, 10**400]
BAD_BETA += [np.complex128(0.5), np.datetime64("2020"), [[0.1], [0.2, 0.3]], True]


@pytest.mark.parametrize("beta", BAD_BETA, ids=lambda b: repr(b)[:20])
@pytest.mark.parametrize("kind", [EMA, DebiasedEMA])
def test_a_bad_beta_gets_one_line(kind: Any, beta: Any) -> None:
    with pytest.raises(ValueError, match=r"beta=.* is not valid; beta must be in [\[(]0, 1\)") as caught:
        kind(beta)
    message = str(caught.value)
    assert "\n" not in message
    assert "frozen filter" in message  # why 1 is not allowed


def test_only_the_plain_ema_may_have_no_memory() -> None:
    assert EMA(0.0).filter([1.0, 2.0]).mean.tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"beta=0.0 is not valid; beta must be in \(0, 1\)"):
        DebiasedEMA(0.0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: EMA(0.5, initial=math.inf), "initial=inf"),
        (lambda: EMA(0.5, initial="0"), "initial='0'"),
        (lambda: EMA.from_alpha(0), "EMA.from_alpha: alpha=0"),
        (lambda: EMA.from_alpha(1.5), "alpha=1.5"),
        (lambda: EMA.from_half_life(0), "half_life=0"),
        (lambda: EMA.from_half_life(math.inf), "half_life=inf"),
        (lambda: EMA.from_time_constant(-1), "time_constant=-1"),
        (lambda: EMA.from_span(0.5), "span=0.5"),
        (lambda: EMA.from_span(math.inf), "span=inf"),
        (lambda: EMA.from_cutoff(0.6), "cutoff=0.6"),
        (lambda: EMA.from_cutoff(0), "cutoff=0"),
        (lambda: EMA.from_attenuation(0, 0.1), "db=0"),
        (lambda: EMA.from_attenuation(30, 0), "f=0"),
        (lambda: EMA.from_noise_gain(0), "noise_gain=0"),
        (lambda: EMA.from_group_delay(-1), "group_delay=-1"),
        (lambda: EMA.from_signal_to_noise(0), "s=0"),
        (lambda: DebiasedEMA.from_half_life(math.nan), "DebiasedEMA.from_half_life: half_life=nan"),
    ],
)
def test_other_bad_parameters_get_one_line(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid; .* must be ") as caught:
        call()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parameters_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"EMA: the shapes of beta \(2,\), initial \(3,\) do not broadcast"):
        EMA([0.5, 0.6], initial=[1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"channels of shape \(3,\) do not broadcast with beta \(2,\)"):
        EMA([0.5, 0.6]).filter(np.zeros((4, 3)))


def test_parameters_are_values() -> None:
    given_beta = np.array([0.5, 0.9])
    estimator = EMA(given_beta)
    given_beta[0] = 0.0
    assert estimator.beta[0] == 0.5
    assert estimator == EMA([0.5, 0.9])
    assert hash(estimator) == hash(EMA([0.5, 0.9]))
    assert estimator != EMA([0.5, 0.8])
    assert EMA(0.5) != DebiasedEMA(0.5)
    assert EMA(0.5, initial=-0.0) == EMA(0.5, initial=0.0)
    with pytest.raises(ValueError, match="read-only"):
        estimator.beta[0] = 0.1


def test_traits() -> None:
    both = {Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT}
    assert EMA(0.9).traits == {Trait.LINEAR, Trait.SCALE_EQUIVARIANT}
    assert EMA(0.9, initial=1.0).traits == {Trait.LINEAR}
    assert EMA(0.9, initial=None).traits == {Trait.LINEAR, *both}
    assert EMA(0.0, initial=None).traits == {Trait.LINEAR, Trait.FINITE_MEMORY, *both}
    assert EMA(0.0, initial=1.0).traits == {Trait.LINEAR, Trait.FINITE_MEMORY}  # it shows in a leading gap
    assert DebiasedEMA(0.9).traits == {Trait.LINEAR, *both}
    assert (EMA(0.9).state_bytes, DebiasedEMA(0.9).state_bytes) == (8, 16)
