from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from estimators import Kalman, Trait
from estimators.checks import yield_checks
from estimators.covariance_matching import InnovationMatchingKalman, SageHusaKalman

KINDS = (SageHusaKalman, InnovationMatchingKalman)
SETTINGS = {
    f"{kind.__name__}-{name}": kind(**parameters)
    for kind in KINDS
    for name, parameters in {
        "q": {"q": 0.1},
        "r": {"r": 1.0},
        "neither": {},
    }.items()
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.mark.parametrize(
    ("name", "check"),
    [pytest.param(n, c, id=f"{n}-{c.__name__}") for n, e in SETTINGS.items() for c in yield_checks(e)],
)
def test_contract(name: str, check: Any) -> None:
    check(SETTINGS[name])


@kinds
@pytest.mark.parametrize("known", [{"q": [0.0, 0.2]}, {"r": [1.0, 2.0], "signal_to_noise": 0.5}])
def test_contract_of_channels(kind: Any, known: dict[str, Any]) -> None:
    estimator = kind(**known, forgetting=0.9)
    for check in yield_checks(estimator):
        if check.__name__ in ("check_parameters_broadcast", "check_equality", "check_innovation"):
            check(estimator)


def walk(s: float, steps: int = 2000, channels: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """Level and samples of random walks with r = 1, q = s."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(math.sqrt(s) * rng.standard_normal((steps, channels)), axis=0)
    return level, level + rng.standard_normal((steps, channels))


def excess(estimator: Any, s: float) -> tuple[float, float]:
    """Mean squared error over that of the filter that knows q and r: whole, and second half."""
    level, x = walk(s)
    own, best = ((e.filter(x).mean - level) ** 2 for e in (estimator, Kalman(s, 1.0)))
    half = len(x) // 2
    return float(own.mean() / best.mean()), float(own[half:].mean() / best[half:].mean())


# --- what is unknown ----------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize(("s", "whole"), [(0.001, 1.03), (0.01, 1.015), (0.1, 1.015), (1.0, 1.015)])
def test_r_is_found_where_q_is_known(kind: Any, s: float, whole: float) -> None:
    found = excess(kind(q=s), s)
    assert found[0] < whole
    assert found[1] < 1.015
    r = kind(q=100.0 * s).filter(10.0 * walk(s)[1]).state.r
    assert np.mean(r) == pytest.approx(100.0, rel=0.05)


@kinds
@pytest.mark.parametrize(("s", "whole"), [(0.01, 1.25), (0.1, 1.06), (1.0, 1.03)])
def test_q_is_found_where_r_is_known(kind: Any, s: float, whole: float) -> None:
    """The dearer the smaller s: q is then a small part of the variance that it is to be found from."""
    found = excess(kind(r=1.0), s)
    assert found[0] < whole
    q = kind(r=1.0).filter(walk(s, 10_000, 50)[1]).state.q
    assert 0.5 * s < np.median(q) < 2.0 * s


@kinds
@pytest.mark.parametrize("s", [0.001, 0.01, 0.1, 1.0])
def test_the_ratio_is_not_identified(kind: Any, s: float) -> None:
    """With neither known it ends where it began: q = K^2 S and r = (1 - K) S hold for every gain K."""
    run = kind(signal_to_noise=0.1).filter(walk(s)[1])
    np.testing.assert_allclose(run.state.q / run.state.r, 0.1, rtol=1e-9)
    assert np.median(run.gain[-1]) == pytest.approx(Kalman(0.1, 1.0).steady_gain, rel=0.02)
    # It is the scale that is found: innovations are of the size that is stated.
    assert np.mean(run.innovation[100:] ** 2 / run.innovation_variance[100:]) == pytest.approx(1.0, abs=0.05)
    found = excess(kind(), s)[0]
    assert found < 1.01 if s == 0.1 else found > 1.5


@kinds
def test_r_is_followed(kind: Any) -> None:
    rng = np.random.default_rng(1)
    r = np.repeat([1.0, 25.0, 1.0], 1500)[:, np.newaxis]
    x = np.cumsum(0.1 * rng.standard_normal((4500, 50)), axis=0)
    x = x + np.sqrt(r) * rng.standard_normal(x.shape)
    for end, want in ((1500, 1.0), (3000, 25.0), (4500, 1.0)):
        assert np.mean(kind(q=0.01).filter(x[:end]).state.r) == pytest.approx(want, rel=0.1)


# --- formulas -----------------------------------------------------------------------------------------------


def recursion(kind: Any, x: Any, q: float | None, r: float | None, b: float, s: float = 0.1) -> Any:
    """Mean, variance, q and r by the formulas of both, one after the other."""
    rows = []
    q0, r0, mean, p, n, c = q, r, math.nan, math.inf, 1.0, 0.0
    opened = r is not None
    q = s * r if q is None and r is not None else q
    for z in x:
        if mean != mean:
            mean, p = z, r if opened else math.inf
            rows.append((mean, p, q or 0.0, r or 0.0))
            continue
        nu, limit = z - mean, math.inf
        if opened:
            limit = p + q + r
        else:
            r = p = (nu**2 + (q or 0.0)) / 2
            q, opened = (s * r if q is None else q), True
        before = p + q
        total = before + r
        gain = before / total
        mean += gain * nu
        n = b * n + 1.0
        if kind is SageHusaKalman:
            new_r, new_q = r + ((1 - gain) * nu**2 - r) / n, q + (q * nu**2 / total - q) / n
        else:
            k = 2.0 / (1.0 + math.sqrt(1.0 + 4.0 * r / q)) if q else 0.0
            settled = q / k**2 if q else r
            c = c or settled
            c += (nu**2 * settled / total - c) / n
            new_r, new_q = (1 - k) * c, q + (gain if r0 is not None else 1.0) * (k**2 * c - q)
        q = max(new_q, 1e-6 * (new_r if r0 is None else r0)) if q0 is None else q0
        old, r = r, max(new_r, 0.01 * q) if r0 is None else r0
        share = 1.0 - (1.0 - b) * n
        p = min(gain * (old + share * (r - old)), limit)
        rows.append((mean, p, q, r))
    return np.array(rows)


@kinds
@pytest.mark.parametrize("b", [0.9, 0.98])
@pytest.mark.parametrize(("q", "r"), [(0.1, None), (None, 1.0), (None, None), (0.0, None), (3.0, None)])
def test_by_their_formulas(kind: Any, q: float | None, r: float | None, b: float) -> None:
    x = 3.0 + walk(0.1, 300, 1, seed=2)[1][:, 0]
    run, want = kind(q=q, r=r, forgetting=b).filter(x), recursion(kind, x, q, r, b)
    np.testing.assert_allclose(run.mean, want[:, 0], rtol=1e-9)
    np.testing.assert_allclose(run.variance, want[:, 1], rtol=1e-9)
    np.testing.assert_allclose([run.state.q, run.state.r], want[-1, 2:], rtol=1e-9)
    expected = run._run.before("variance") + run._run.before("q") + (run._run.before("r") if r is None else r)
    np.testing.assert_allclose(run.innovation_variance, expected, rtol=1e-12)


# --- limits -------------------------------------------------------------------------------------------------


@kinds
@pytest.mark.parametrize("known", [{}, {"q": 0.0}, {"q": 0.5}, {"r": 2.0}])
@pytest.mark.parametrize("value", [0.0, 7.25, -1e140])
def test_a_constant_comes_out_and_is_left_again(kind: Any, known: dict[str, float], value: float) -> None:
    run = kind(**known).filter(np.full(500, value))
    np.testing.assert_array_equal(run.mean, value)
    if known.get("q") == 0.0 or not known:
        np.testing.assert_array_equal(run.variance, math.inf)  # nothing tells how large the noise is
        assert run.loglikelihood == 0.0
    else:
        assert math.isfinite(run.variance[-1])
    size = max(1.0, abs(value))
    onward = kind(**known).filter(value + size * walk(0.0, 3000, 1)[1][:, 0], state=run.state)
    assert np.all(np.isfinite(onward.mean))
    assert abs(np.mean(onward.mean[1000:]) - value) < 0.5 * size


@kinds
def test_without_measurement_noise(kind: Any) -> None:
    clean = np.cumsum(np.random.default_rng(3).standard_normal((2000, 20)), axis=0)
    run = kind(q=1.0).filter(clean)
    assert np.mean((run.mean - clean)[500:] ** 2) < 0.01
    assert np.all(run.state.r >= 0.01)
    noisy = clean[-1] + 5.0 * walk(0.04, 2000, 20)[1]  # r = 0 is left again
    assert np.mean(kind(q=1.0).filter(noisy, state=run.state).state.r) == pytest.approx(25.0, rel=0.15)


@kinds
def test_without_process_noise(kind: Any) -> None:
    x = walk(0.0, 3000, 20)[1]
    known = kind(q=0.0).filter(x)
    assert np.mean(known.mean[-1] ** 2) < 3.0 / 3000
    np.testing.assert_allclose(known.state.r, 1.0, rtol=0.7)
    assert np.all(kind(r=1.0).filter(x).state.q < 0.03)


@kinds
def test_first_samples(kind: Any) -> None:
    for known in ({}, {"q": 1.0}):
        run = kind(**known).filter([math.nan, 3.0, 5.0])
        np.testing.assert_array_equal(run.gain[:2], [0.0, 1.0])
        np.testing.assert_array_equal(run.innovation_variance, math.inf)
        assert 0.5 <= run.gain[2] < 0.75
        assert math.isfinite(run.variance[2])
    assert kind(r=2.0).filter([3.0]).variance[0] == 2.0
    assert kind(r=2.0).filter([3.0, 5.0]).innovation_variance[1] == pytest.approx(2.0 + 0.2 + 2.0)


@kinds
@pytest.mark.parametrize("scale", [1e-150, 1e60, 1e150])
def test_any_scale_is_the_same_filter(kind: Any, scale: float) -> None:
    x = walk(0.1, 300, 1, seed=4)[1][:, 0]
    for known in ({}, {"q": 0.0}):
        one, other = (kind(**known).filter(factor * x) for factor in (1.0, scale))
        np.testing.assert_allclose(other.mean / scale, one.mean, rtol=1e-10)
        np.testing.assert_allclose(other.gain, one.gain, rtol=1e-10)
        np.testing.assert_allclose(other.variance / scale / scale, one.variance, rtol=1e-9)


@kinds
def test_huge_samples_stay_finite(kind: Any) -> None:
    x = 1e200 * walk(0.1, 300, 1)[1][:, 0]
    for known in ({}, {"q": 0.1}, {"r": 1.0}):
        run = kind(**known).filter(x)
        assert np.all(np.isfinite(run.mean))
        assert np.all((run.gain >= 0.0) & (run.gain <= 1.0 + 1e-12))
        assert not np.isnan(run.variance).any()


# --- what is known by sample, settings ----------------------------------------------------------------------


@kinds
def test_time_and_weight(kind: Any) -> None:
    x = walk(0.1, 40, 1)[1][:, 0]
    gappy = np.insert(x, 20, [math.nan] * 6)
    steps = np.where(np.arange(40) == 20, 7.0, 1.0)
    for known in ({"q": 0.1}, {"r": 1.0}, {}):
        run, gaps = kind(**known).filter(x, steps=steps), kind(**known).filter(gappy)
        np.testing.assert_allclose(run.mean, np.delete(gaps.mean, range(20, 26)), rtol=1e-12)
        assert run.gain[20] > run.gain[19]
    r = np.linspace(0.5, 2.0, 40)
    by_r, by_weight = kind(r=1.0).filter(x, r=r), kind(r=1.0).filter(x, weight=1.0 / r)
    np.testing.assert_allclose(by_r.gain[:2], by_weight.gain[:2], rtol=1e-12)
    with pytest.raises(TypeError, match=r"takes no r by sample; it takes steps and weight"):
        kind(q=1.0).filter(x, r=r)


def test_traits_and_size() -> None:
    always = {Trait.HAS_VARIANCE, Trait.SHIFT_EQUIVARIANT}
    for kind, size in zip(KINDS, (40, 48), strict=True):
        for known in ({}, {"q": 0.0}):
            assert kind(**known).traits == {*always, Trait.SCALE_EQUIVARIANT}
        for known in ({"q": 1.0}, {"r": 1.0}):
            assert kind(**known).traits == always
        assert kind().state_bytes == size


@kinds
@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"q": -1.0}, "q=-1.0 is not valid; q must be >= 0"),
        ({"r": 0.0}, "r=0.0 is not valid; r must be > 0"),
        ({"q": 1.0, "r": 1.0}, "r=1.0 is not valid; r must be None where q is known"),
        ({"forgetting": 1.0}, "forgetting=1.0 is not valid; forgetting must be in (0, 1)"),
        ({"signal_to_noise": 0.0}, "signal_to_noise=0.0 is not valid"),
        ({"q": math.nan}, "q=nan"),
        ({"q": [1.0, 2.0], "forgetting": [0.9] * 3}, "q (2,), forgetting (3,), signal_to_noise () do not"),
    ],
)
def test_bad_parameters_get_one_line(kind: Any, parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{kind.__name__}: ") as caught:
        kind(**parameters)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
