from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from data import contract
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.ema import DebiasedEMA, EMAWithVariance
from estimators.kalman import Kalman

SETTINGS = [
    EMAWithVariance(0.9),
    EMAWithVariance(0.5),
    EMAWithVariance(0.999),
    EMAWithVariance(1.0 - 2.0**-53),
    EMAWithVariance(np.array([0.2, 0.99])),
    EMAWithVariance(np.array([[0.6], [0.95]])),
    EMAWithVariance(1e-300),
]


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def moments(x: Any, beta: float, weight: Any = None, steps: Any = None) -> tuple[list[float], list[float]]:
    """Weighted mean and variance of all samples so far, summed anew each time."""
    weight, steps = (
        np.broadcast_to(1.0 if weight is None else weight, len(x)),
        np.ones(len(x)) if steps is None else steps,
    )
    time, means, spreads = np.cumsum(steps), [], []
    for t in range(len(x)):
        seen = ~np.isnan(x[: t + 1])
        own = (weight[: t + 1] * beta ** (time[t] - time[: t + 1]))[seen]
        y = x[: t + 1][seen]
        if own.size == 0:
            means.append(math.nan)
            spreads.append(0.0)
            continue
        mean = float(own @ y / own.sum())
        means.append(mean)
        spreads.append(float(own @ (y - mean) ** 2 / own.sum()))
    return means, spreads


def spreads_of(estimator: Any, x: Any, **changes: Any) -> list[float]:
    state, spreads = estimator.init(0.0), []
    for t, z in enumerate(x):
        state = estimator.update(state, z, **{name: values[t] for name, values in changes.items()})
        spreads.append(state.spread)
    return spreads


# --- what it is ---------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    beta=st.sampled_from([0.01, 0.5, 0.9, 0.99]),
    missing=st.sampled_from([0.0, 0.3, 0.8]),
)
def test_pandas(seed: int, beta: float, missing: float) -> None:
    rng = np.random.default_rng(seed)
    x = 5.0 + rng.normal(size=80)
    x[rng.random(80) < missing] = np.nan
    ewm = pd.Series(x).ewm(alpha=1.0 - beta, adjust=True, ignore_na=False)
    out = EMAWithVariance(beta).filter(x)
    np.testing.assert_allclose(out.mean, ewm.mean(), rtol=0, atol=1e-13)
    variance = ewm.var(bias=True).to_numpy()
    spread = np.array(spreads_of(EMAWithVariance(beta), x))
    np.testing.assert_allclose(spread, np.nan_to_num(variance), rtol=0, atol=1e-13)
    assert out.state.spread == pytest.approx(spread[-1], abs=1e-15)


def test_the_mean_is_the_debiased_emas() -> None:
    x = np.random.default_rng(0).normal(size=200)
    x[[0, 1, 50, 51]] = np.nan
    out, debiased = EMAWithVariance(0.95).filter(x), DebiasedEMA(0.95).filter(x)
    np.testing.assert_array_equal(out.mean, debiased.mean)
    np.testing.assert_array_equal(out.gain, debiased.gain)
    assert out.state.weight == debiased.state.weight


def test_the_variance_is_gain_times_the_unbiased_spread() -> None:
    x = np.random.default_rng(1).normal(size=100)
    x[[0, 1, 50, 99]] = np.nan
    ema = EMAWithVariance(0.9)
    out = ema.filter(x)
    unbiased = pd.Series(x).ewm(alpha=0.1).var(bias=False).to_numpy() * (2 * 0.9 / 1.9)
    seen = ~np.isnan(x)
    seen[2] = False  # of one sample nothing is known but itself
    np.testing.assert_allclose(out.variance[seen], (out.gain * unbiased)[seen], rtol=1e-12)
    np.testing.assert_array_equal(out.variance[:3], np.inf)
    assert out.variance[99] == pytest.approx(
        out.variance[98] / 0.9, rel=1e-14
    )  # half forgotten, half as sure
    np.testing.assert_array_equal(out.innovation_variance[:4], np.inf)
    aged = 1.0 / np.cumsum(0.9 ** np.arange(98))
    expected = unbiased[48] * (aged[46] / 0.9 + 1.0)
    assert out.innovation_variance[49] == pytest.approx(expected, rel=1e-12)
    low, high = out.interval(0.95)
    np.testing.assert_allclose(high[seen] - low[seen], 2 * 1.959963984540054 * np.sqrt(out.variance[seen]))


def test_after_a_gap_it_is_no_surer_than_one_fresh_sample() -> None:
    x = np.random.default_rng(1).normal(size=(2001, 2000))
    x[1000:2000] = np.nan
    low, high = EMAWithVariance(0.99).filter(x).interval()
    assert np.mean((low[-1] < 0.0) & (high[-1] > 0.0)) > 0.95
    forgotten = EMAWithVariance(0.9).filter(np.r_[1.0, 2.0, 3.0, np.full(20_000, np.nan), 7.0])
    assert forgotten.variance[-1] == np.inf


@pytest.mark.parametrize("by", ["weight", "steps", "both"])
def test_weights_and_steps(by: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=60)
    x[[0, 7, 8, 30]] = np.nan
    changes = {"weight": rng.uniform(0.1, 5.0, 60), "steps": rng.uniform(0.2, 4.0, 60)}
    if by != "both":
        changes = {by: changes[by]}
    out = EMAWithVariance(0.8).filter(x, **changes)
    means, spreads = moments(x, 0.8, **changes)
    np.testing.assert_allclose(out.mean, means, rtol=0, atol=1e-13)
    found = spreads_of(EMAWithVariance(0.8), x, **changes)
    np.testing.assert_allclose(found, spreads, rtol=1e-12, atol=1e-13)


def test_a_weight_for_all_changes_nothing_but_the_mass() -> None:
    x = np.random.default_rng(3).normal(size=60)
    plain, heavy = EMAWithVariance(0.9).filter(x), EMAWithVariance(0.9).filter(x, weight=np.full(60, 3.0))
    np.testing.assert_allclose(heavy.mean, plain.mean, rtol=0, atol=1e-14)
    np.testing.assert_allclose(heavy.variance, plain.variance, rtol=1e-12)
    assert heavy.state.weight == pytest.approx(3.0 * plain.state.weight, rel=1e-14)


def test_a_large_offset_does_not_cancel() -> None:
    """Of squares minus squared mean nothing would be left."""
    x = np.random.default_rng(4).normal(size=500)
    near, far = EMAWithVariance(0.9).filter(x), EMAWithVariance(0.9).filter(x + 2.0**40)
    assert far.state.spread == pytest.approx(near.state.spread, rel=1e-3)
    assert far.state.spread > 0.0


@pytest.mark.filterwarnings("error")
def test_a_constant() -> None:
    for value in (0.1, -1e300, 0.0, 5e-324):
        out = EMAWithVariance(0.9).filter(np.full(30, value))
        np.testing.assert_array_equal(out.mean, value)
        np.testing.assert_array_equal(out.variance, [math.inf] + [0.0] * 29)
        low, high = out.interval()
        np.testing.assert_array_equal(low[1:], value)
        np.testing.assert_array_equal(high[1:], value)


def test_the_likelihood_of_a_constant_is_a_number() -> None:
    assert not math.isnan(EMAWithVariance(0.9).filter(np.full(30, 0.1)).loglikelihood)


# --- what it states -----------------------------------------------------------------------------------------


def walk(s: float, steps: int, channels: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    level = math.sqrt(s) * rng.standard_normal((steps, channels)).cumsum(axis=0)
    return level, level + rng.standard_normal((steps, channels))


@pytest.mark.parametrize(("s", "low"), [(1e-4, 0.93), (1e-3, 0.93), (0.01, 0.92), (0.03, 0.90)])
def test_on_the_matched_walk_the_interval_covers(s: float, low: float) -> None:
    """95 %, and the less the fewer samples the spread is made of: normal bounds for what is Student's t."""
    level, x = walk(s, 3000, 100, 5)
    ema = EMAWithVariance.from_signal_to_noise(s)
    out = ema.filter(x)
    burn = int(6 * ema.effective_window)
    below, above = out.interval(0.95)
    covered = float(((below <= level) & (level <= above))[burn:].mean())
    assert low <= covered <= 0.96


@pytest.mark.parametrize("s", [1e-3, 0.01, 0.1, 1.0])
def test_the_spread_settles_at_r_on_the_matched_walk(s: float) -> None:
    _, x = walk(s, 4000, 64, 6)
    ema, r = EMAWithVariance.from_signal_to_noise(s), 4.0
    out = ema.filter(math.sqrt(r) * x)
    variance = out.variance[1000:].mean()
    settled = Kalman(s * r, r).filter(np.zeros(2000)).variance[-1]
    assert variance == pytest.approx(settled, rel=0.03)
    assert variance / ema.steady_gain == pytest.approx(r, rel=0.03)
    assert out.innovation_variance[1000:].mean() == pytest.approx(r / (1 - ema.steady_gain), rel=0.03)


def test_on_a_constant_the_interval_is_wide() -> None:
    """Twice the truth for slow ones: 2 Phi(1.96 sqrt 2) - 1 = 99.4 % of a 95 % interval."""
    x = np.random.default_rng(7).standard_normal((3000, 100))
    ema = EMAWithVariance(0.99)
    out = ema.filter(x)
    truth = float((out.mean[1000:] ** 2).mean())
    assert truth == pytest.approx(ema.noise_gain, rel=0.1)
    assert out.variance[1000:].mean() / truth == pytest.approx(2.0, rel=0.1)
    low, high = out.interval(0.95)
    covered = ((low <= 0.0) & (high >= 0.0))[1000:].mean()
    assert 0.985 <= covered <= 0.999


def test_from_other_names() -> None:
    assert EMAWithVariance.from_alpha(0.25) == EMAWithVariance(0.75)
    assert EMAWithVariance.from_span(19) == EMAWithVariance(0.9)
    assert EMAWithVariance(0.9) != DebiasedEMA(0.9)
    assert EMAWithVariance(0.9).state_bytes == 40
    for name in ("noise_gain", "cutoff", "half_life", "group_delay", "time_constant", "effective_window"):
        assert getattr(EMAWithVariance(0.9), name) == getattr(DebiasedEMA(0.9), name)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, math.nan, "a", [0.5, 1.0]])
def test_beta_out_of_range(beta: Any) -> None:
    with pytest.raises(ValueError, match=r"^EMAWithVariance: beta=.* beta must be in \(0, 1\)") as caught:
        EMAWithVariance(beta)
    assert "\n" not in str(caught.value)
