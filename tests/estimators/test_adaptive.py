from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from data import contract

from estimators import EMA, Kalman, Trait
from estimators.adaptive import MehraKalman, VariationalKalman

SETTINGS = {
    "mehra": MehraKalman(),
    "mehra-growing": MehraKalman(signal_to_noise=[0.1, 1.0], forgetting=[0.99, 1.0]),
    "variational": VariationalKalman(0.1),
    "variational-constant": VariationalKalman(0.0),
    "variational-channels": VariationalKalman([0.0, 1.0], forgetting=0.95),
}


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS.values()))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


def walk(s: float, steps: int = 2000, channels: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """Level and samples of random walks with r = 1, q = s."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(math.sqrt(s) * rng.standard_normal((steps, channels)), axis=0)
    return level, level + rng.standard_normal((steps, channels))


def excess(estimator: Any, s: float) -> tuple[float, float, float]:
    """Mean squared error over that of the filter that knows q and r: whole, second half; median over K*."""
    level, x = walk(s)
    own, best = ((e.filter(x).mean - level) ** 2 for e in (estimator, Kalman(s, 1.0)))
    half = len(x) // 2
    ratio = own[half:].mean() / best[half:].mean()
    median = np.median(own.mean(axis=0)) / Kalman(s, 1.0).steady_gain
    return float(own.mean() / best.mean()), float(ratio), float(median)


# --- Mehra --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gain", "square", "correlation"),
    [(0.05, 2.0512820513, 0.4625), (0.3, 1.3725490196, -0.0285714286), (0.7, 1.6483516484, -0.3066666667)],
)
def test_innovations_of_any_gain_tell_both_variances(gain: float, square: float, correlation: float) -> None:
    """Mehra's scalar equations, q = 0.1 and r = 1, on the innovations of an EMA; theory notes, 3.3."""
    _, x = walk(0.1, 20_000, 40)
    nu = np.asarray(EMA(1.0 - gain).filter(x).innovation)[1000:]
    c0 = np.mean(nu**2)
    c = [np.mean(nu[k:] * nu[:-k]) for k in (1, 2, 3)]
    assert c0 == pytest.approx(square, rel=0.01)
    assert c[0] / c0 == pytest.approx(correlation, abs=0.004)
    # Every lag tells the same, which is why the filter adds them up.
    np.testing.assert_allclose(
        np.array(c[1:]) / c0, correlation * (1.0 - gain) ** np.arange(1, 3), atol=0.005
    )
    before = c[0] + gain * c0
    r = c0 - before
    assert r == pytest.approx(1.0, abs=0.02)
    assert before * (1.0 - (1.0 - gain) ** 2) - gain**2 * r == pytest.approx(0.1, abs=0.01)


def mehra(x: Any, s: float, rho: float) -> list[tuple[float, float, float]]:
    """Mean, steady gain and variance in plain formulas, undivided."""
    steady, rows = (math.sqrt(s * s + 4 * s) - s) / 2, []
    mean = spread = slope = unit = along = 0.0
    n, evidence, begun = 0.0, 1.0, False
    for z in x:
        variance = math.inf
        if not begun:
            mean, begun, spread, slope = z, True, 1.0 - steady, -1.0
        else:
            p, dp = spread + steady**2, slope + 2 * steady
            s2 = p + 1.0 - steady
            gain, dgain = p / s2, (dp * s2 - p * (dp - 1.0)) / s2**2
            if unit > 0.0:
                variance = unit * gain * (1.0 - steady)
            nu = z - mean
            n = rho * n + 1.0
            unit += (nu**2 / s2 - unit) / n
            u = nu / math.sqrt(unit) if unit else 0.0
            mean += gain * nu
            weight = (steady * along) ** 2 / s2
            step = max(-1.0, min(1.0, steady * along * u / s2 / (rho * evidence + weight)))
            factor = (1.0 + step / 2) / (1.0 - step / 2)
            evidence = max(1.0, (rho * evidence + weight) * factor)
            along = (1.0 - gain) * along + dgain * u
            steady = min(1.0, steady * factor)
            spread, slope = gain * (1.0 - steady), dgain * (1.0 - steady) - gain
        rows.append((mean, steady, variance))
    return rows


@pytest.mark.parametrize("s", [0.001, 0.1, 10.0])
@pytest.mark.parametrize("rho", [0.9, 0.999, 1.0])
def test_mehra_by_its_formulas(s: float, rho: float) -> None:
    x = 3.0 + walk(0.05, 300, 1, seed=3)[1][:, 0]
    estimator = MehraKalman(s, rho)
    run, want = estimator.filter(x), np.array(mehra(x, s, rho))
    np.testing.assert_allclose(run.mean, want[:, 0], rtol=1e-10)
    np.testing.assert_allclose(run.state.steady_gain, want[-1, 1], rtol=1e-9)
    np.testing.assert_allclose(run.variance, want[:, 2], rtol=1e-9)
    state = estimator.init(0.0)
    for z in x:
        state = estimator.update(state, float(z))
    np.testing.assert_allclose(state, run.state, rtol=1e-9)


@pytest.mark.parametrize(
    ("s", "whole", "later", "median"),
    [(0.001, 1.25, 1.07, 1.3), (0.01, 1.07, 1.025, 1.1), (0.1, 1.035, 1.01, 1.06), (1.0, 1.03, 1.01, 1.05)],
)
def test_mehra_finds_the_gain(s: float, whole: float, later: float, median: float) -> None:
    """From s0 = 0.1, in 2000 samples; the lag-1 correlation alone gives medians 2.18, 1.51, 1.14, 1.06."""
    found = excess(MehraKalman(), s)
    assert found[0] < whole
    assert found[1] < later
    assert found[2] < median


def test_mehra_settles_where_the_filter_does() -> None:
    _, x = walk(0.1, 20_000, 20)
    run = MehraKalman(forgetting=1.0).filter(25.0 * x)
    best = Kalman(0.1, 1.0)
    np.testing.assert_allclose(run.state.steady_gain, best.steady_gain, rtol=0.1)
    assert np.mean(run.state.unit) == pytest.approx(625.0 / best.steady_beta, rel=0.02)
    assert np.mean(run.variance[-1]) == pytest.approx(625.0 * best.steady_gain, rel=0.03)
    normalised = run.innovation[100:] ** 2 / run.innovation_variance[100:]
    assert np.mean(normalised) == pytest.approx(1.0, abs=0.01)
    known = Kalman(62.5, 625.0).filter(25.0 * x).loglikelihood
    assert np.median(np.abs(run.loglikelihood - known)) < 20.0  # of 96000


def test_mehra_follows_a_gain_that_changes() -> None:
    rng = np.random.default_rng(5)
    q = np.repeat([1e-3, 1.0], 5000)[:, np.newaxis]
    level = np.cumsum(np.sqrt(q) * rng.standard_normal((10_000, 50)), axis=0)
    gain = MehraKalman().filter(level + rng.standard_normal(level.shape)).gain
    assert np.median(gain[4999]) == pytest.approx(Kalman(1e-3, 1.0).steady_gain, rel=0.3)
    assert np.median(gain[-1]) == pytest.approx(Kalman(1.0, 1.0).steady_gain, rel=0.1)


def test_mehra_without_either_noise() -> None:
    rng = np.random.default_rng(6)
    still = MehraKalman().filter(rng.standard_normal((5000, 50)))  # q = 0: on the way to the running mean
    assert np.median(still.state.steady_gain) < 0.01
    clean = MehraKalman().filter(np.cumsum(rng.standard_normal((2000, 50)), axis=0))  # r = 0: the sample
    assert np.median(clean.state.steady_gain) > 0.97
    assert np.all(clean.gain <= 1.0)


def test_mehra_counts_time_and_weight() -> None:
    """A step of 7 is a gap of 6, a weight of 0 a gap, a large weight all but forgets."""
    x = walk(0.1, 40, 1)[1][:, 0]
    gappy = np.insert(x, 20, [math.nan] * 6)
    steps = np.where(np.arange(40) == 20, 7.0, 1.0)
    run = MehraKalman().filter(x, steps=steps)
    np.testing.assert_allclose(
        run.mean, np.delete(MehraKalman().filter(gappy).mean, range(20, 26)), rtol=1e-12
    )
    assert run.gain[20] > run.gain[19]
    heavy = MehraKalman().filter(x, weight=np.where(np.arange(40) == 20, 1e9, 1.0))
    assert heavy.gain[20] == pytest.approx(1.0, abs=1e-7)


# --- variational --------------------------------------------------------------------------------------------


def variational(x: Any, q: float, rho: float) -> list[tuple[float, float, float]]:
    """Mean, variance and r of the inverse gamma's own numbers a and b."""
    rows = []
    mean, p, a, b = math.nan, math.inf, 0.5, 0.0
    for z in x:
        if mean != mean:
            mean = z
        else:
            nu = z - mean
            if b == 0.0:
                b = 0.5 * 0.5 * (nu**2 + q)
                p = b / a
            r = before = b / a
            p += q
            limit = p + r if math.isfinite(rows[-1][1]) else math.inf
            a, b_before = rho * a + 0.5, rho * b
            for _ in range(2):
                gain = p / (p + r)
                b = b_before + 0.5 * ((nu - gain * nu) ** 2 + (1.0 - gain) * p)
                r = b / a
            r = max(r, q / 100.0)
            gain = p / (p + r)
            mean += gain * nu
            b = a * r
            p = min(gain * (r + (1.0 - 2.0 * a * (1.0 - rho)) * (r - before)), limit)
        rows.append((mean, p, b / a))
    return rows


@pytest.mark.parametrize(("q", "rho"), [(0.1, 0.98), (0.0, 0.9), (5.0, 0.98)])
def test_variational_by_its_formulas(q: float, rho: float) -> None:
    x = 3.0 + walk(0.1, 200, 1, seed=4)[1][:, 0]
    run, want = VariationalKalman(q, rho).filter(x), np.array(variational(x, q, rho))
    np.testing.assert_allclose(run.mean, want[:, 0], rtol=1e-10)
    np.testing.assert_allclose(run.variance, want[:, 1], rtol=1e-9)
    np.testing.assert_allclose(run.state.r, want[-1, 2], rtol=1e-9)


@pytest.mark.parametrize(("s", "whole"), [(0.001, 1.1), (0.01, 1.03), (0.1, 1.02), (1.0, 1.02)])
def test_variational_is_all_but_the_filter_that_knows_r(s: float, whole: float) -> None:
    found = excess(VariationalKalman(s), s)
    assert found[0] < whole
    assert found[1] < 1.02


def test_variational_follows_r() -> None:
    rng = np.random.default_rng(7)
    r = np.repeat([1.0, 25.0, 1.0], 1000)[:, np.newaxis]
    level = np.cumsum(0.1 * rng.standard_normal((3000, 100)), axis=0)
    x = level + np.sqrt(r) * rng.standard_normal(level.shape)
    run, fixed = VariationalKalman(0.01).filter(x), Kalman(0.01, 1.0).filter(x)
    for end, want in ((1000, 1.0), (2000, 25.0), (3000, 1.0)):
        assert np.mean(VariationalKalman(0.01).filter(x[:end]).state.r) == pytest.approx(want, rel=0.1)
    assert np.mean((run.mean - level) ** 2) < 0.6 * np.mean((fixed.mean - level) ** 2)
    assert np.nanmean(run.innovation[100:] ** 2 / run.innovation_variance[100:]) == pytest.approx(
        1.0, abs=0.1
    )


def test_variational_without_noise() -> None:
    clean = np.cumsum(np.random.default_rng(8).standard_normal((2000, 20)), axis=0)
    run = VariationalKalman(1.0).filter(clean)
    assert np.mean((run.mean - clean)[200:] ** 2) < 0.03  # r = 0 is found as 1/t
    assert np.all(run.state.r < 0.2)
    assert np.all((run.gain >= 0.0) & (run.gain <= 1.0))


# --- all ----------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize(
    "estimator", [MehraKalman(), VariationalKalman(0.0)], ids=["mehra", "variational"]
)


@BOTH
def test_first_samples(estimator: Any) -> None:
    run = estimator.filter([math.nan, 3.0, 5.0, 4.0])
    np.testing.assert_array_equal(run.gain[:2], [0.0, 1.0])
    np.testing.assert_array_equal(run.variance[:2], math.inf)
    np.testing.assert_array_equal(run.innovation_variance[:3], math.inf)  # nothing was known of its size
    assert math.isfinite(run.variance[-1])
    assert math.isfinite(run.innovation_variance[-1])
    assert math.isfinite(run.loglikelihood)


@BOTH
@pytest.mark.parametrize("value", [0.0, 7.25, -1e150, 1e-150])
def test_a_constant_says_nothing_of_its_noise(estimator: Any, value: float) -> None:
    run = estimator.filter(np.full(500, value))
    np.testing.assert_array_equal(run.mean, value)
    np.testing.assert_array_equal(run.variance, math.inf)
    assert run.loglikelihood == 0.0
    onward = estimator.filter(value + max(1.0, abs(value)) * walk(0.0, 3000, 1)[1][:, 0], state=run.state)
    assert np.all(np.isfinite(onward.mean))
    assert abs(onward.mean[-1] - value) < 0.2 * max(1.0, abs(value))  # it is not stuck


@BOTH
@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e60, 1e150])
def test_any_scale_is_the_same_filter(estimator: Any, scale: float) -> None:
    x = walk(0.1, 300, 1, seed=9)[1][:, 0]
    one, other = estimator.filter(x), estimator.filter(scale * x)
    np.testing.assert_allclose(other.mean / scale, one.mean, rtol=1e-10)
    np.testing.assert_allclose(other.gain, one.gain, rtol=1e-10)
    np.testing.assert_allclose(other.variance / scale / scale, one.variance, rtol=1e-9)


def test_huge_samples_stay_finite() -> None:
    x = 1e200 * walk(0.1, 300, 1)[1][:, 0]
    for estimator in (MehraKalman(), VariationalKalman(0.1), VariationalKalman(0.0)):
        run = estimator.filter(x)
        assert np.all(np.isfinite(run.mean))
        assert np.all((run.gain >= 0.0) & (run.gain <= 1.0 + 1e-12))
        assert not np.isnan(run.variance).any()


def test_traits_and_size() -> None:
    always = {Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT}
    assert MehraKalman().traits == {*always, Trait.SCALE_EQUIVARIANT}
    assert VariationalKalman(0.0).traits == {*always, Trait.SCALE_EQUIVARIANT}
    assert VariationalKalman([0.0, 1.0]).traits == always
    assert MehraKalman().state_bytes == 72
    assert VariationalKalman(1.0).state_bytes == 32


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda: MehraKalman(0.0),
            "MehraKalman: signal_to_noise=0.0 is not valid; signal_to_noise must be > 0",
        ),
        (lambda: MehraKalman(forgetting=0.0), "MehraKalman: forgetting=0.0 is not valid"),
        (lambda: MehraKalman(forgetting=1.1), "must be in (0, 1]"),
        (lambda: VariationalKalman(-1.0), "VariationalKalman: q=-1.0 is not valid; q must be >= 0"),
        (lambda: VariationalKalman(None), "q=None"),
        (lambda: VariationalKalman(1.0, forgetting=1.0), "forgetting=1.0 is not valid"),
        (
            lambda: VariationalKalman([1.0, 2.0], forgetting=[0.9] * 3),
            "q (2,), forgetting (3,) do not broadcast",
        ),
    ],
)
def test_bad_parameters_get_one_line(call: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid; .* must be |do not broadcast") as caught:
        call()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
