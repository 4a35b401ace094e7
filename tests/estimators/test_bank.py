from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from data import contract
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators.bank import KalmanBank
from estimators.kalman import Kalman
from estimators.protocol import LinearEstimator, Trait

SETTINGS = [
    KalmanBank(),
    KalmanBank(1e-2, 1e-2),
    KalmanBank(1e-4, 1.0, per_decade=1, forgetting=1.0, switch_rate=0.0),
    KalmanBank(switch_rate=0.1, forgetting=0.5),
    KalmanBank(1e-6, 1e2, per_decade=1, switch_rate=0.0),
]


@pytest.mark.parametrize(("estimator", "check"), contract(SETTINGS))
def test_contract(estimator: Any, check: Any) -> None:
    check(estimator)


# --- the recursion, in logarithms and plain Python ----------------------------------------------------------


class Member:
    """A filter of ratio s whose r has a gamma posterior: count / 2 and scale / 2, with forgetting."""

    def __init__(self, s: float, log_weight: float) -> None:
        self.s, self.log_weight = s, log_weight
        self.mean, self.ratio, self.scale = math.nan, 0.0, 0.0


def banked(x: Any, bank: KalmanBank, steps: Any = None, weight: Any = None) -> dict[str, list[float]]:
    decades = math.log10(bank.highest / bank.lowest)
    number = 1 + round(decades * bank.per_decade)
    grid = [0.0, *(bank.lowest * 10.0 ** (decades * i / max(1, number - 1)) for i in range(number))]
    members = [Member(s, -math.log(len(grid))) for s in grid]
    count, known = 0.0, False
    out: dict[str, list[float]] = {"mean": [], "variance": [], "innovation_variance": [], "gain": []}
    mean, variance = math.nan, math.inf
    for t, z in enumerate(x):
        step, noise = (1.0 if steps is None else steps[t]), (1.0 if weight is None else 1.0 / weight[t])
        stated, gain = math.inf, 0.0
        if known:
            for m in members:
                m.ratio += m.s * step
            if count > 0.0:
                stated = sum(
                    math.exp(m.log_weight) * (m.scale / count * (m.ratio + noise) + (m.mean - mean) ** 2)
                    for m in members
                )
        if z == z and not known:
            known, gain, mean = True, 1.0, z
            for m in members:
                m.mean, m.ratio = z, noise
        elif z == z:
            surprises = [(z - m.mean) ** 2 / (m.ratio + noise) for m in members]
            if any(s + m.scale > 0.0 for s, m in zip(surprises, members, strict=True)):
                for m, surprise in zip(members, surprises, strict=True):
                    # Student's t of count degrees of freedom, the terms that all members share left out.
                    before = count * math.log(m.scale) if count > 0.0 else 0.0
                    after = (count + 1.0) * math.log(m.scale + surprise)
                    m.log_weight += 0.5 * (before - after - math.log(m.ratio + noise))
                best = max(m.log_weight for m in members)
                total = best + math.log(sum(math.exp(m.log_weight - best) for m in members))
                for m in members:
                    m.log_weight -= total
            for m, surprise in zip(members, surprises, strict=True):
                own = m.ratio / (m.ratio + noise)
                gain += math.exp(m.log_weight) * own
                m.mean += own * (z - m.mean)
                m.ratio, m.scale = noise * own, bank.forgetting * m.scale + surprise
            count = bank.forgetting * count + 1.0
            mean = sum(math.exp(m.log_weight) * m.mean for m in members)
        if count > 0.0:
            variance = sum(
                math.exp(m.log_weight) * (m.scale / count * m.ratio + (m.mean - mean) ** 2) for m in members
            )
        for name, value in zip(out, (mean, variance, stated, gain), strict=True):
            out[name].append(value)
        if z == z and count > 0.0 and bank.switch_rate > 0.0:
            each = bank.switch_rate / len(members)
            for m in members:
                stays = (1.0 - bank.switch_rate) * math.exp(m.log_weight)
                m.mean = (stays * m.mean + each * mean) / (stays + each)
                m.log_weight = math.log(stays + each)
    return out


def expect_banked(x: Any, bank: KalmanBank, **changes: Any) -> None:
    want, out = banked(x, bank, **changes), bank.filter(x, **changes)
    size = float(np.nanmax(np.abs(x)))
    np.testing.assert_allclose(out.mean, want["mean"], rtol=0, atol=1e-11 * size)
    np.testing.assert_allclose(out.variance, want["variance"], rtol=1e-9, atol=1e-13 * size**2)
    np.testing.assert_allclose(out.gain, want["gain"], rtol=1e-9)
    np.testing.assert_allclose(
        out.innovation_variance, want["innovation_variance"], rtol=1e-9, atol=1e-13 * size**2
    )


def short_stream(seed: int, missing: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=60) + 0.1 * rng.normal(size=60).cumsum()
    x[40:] += 12.0
    x[rng.random(60) < missing] = np.nan
    x[[30, 59]] = 0.5, 11.0
    return x


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grid=st.sampled_from([(1e-6, 1e2, 3), (1e-4, 1e-4, 1), (1e-3, 10.0, 1), (0.02, 0.7, 2)]),
    forgetting=st.sampled_from([1.0, 0.98, 0.7]),
    switch_rate=st.sampled_from([0.0, 1e-6, 0.05]),
    missing=st.sampled_from([0.0, 0.4]),
)
def test_the_recursion(
    seed: int, grid: tuple[float, float, int], forgetting: float, switch_rate: float, missing: float
) -> None:
    expect_banked(short_stream(seed, missing), KalmanBank(*grid, forgetting, switch_rate))


def test_the_recursion_with_steps_and_weights() -> None:
    rng = np.random.default_rng(0)
    steps, weight = rng.uniform(0.2, 5.0, 60), rng.uniform(0.2, 5.0, 60)
    for changes in ({"steps": steps}, {"weight": weight}, {"steps": steps, "weight": weight}):
        expect_banked(short_stream(1), KalmanBank(), **changes)


def test_the_grid() -> None:
    assert len(KalmanBank().ratios) == 26
    np.testing.assert_allclose(
        KalmanBank(1e-2, 1.0, per_decade=2).ratios, [0, 0.01, 0.1**1.5, 0.1, 0.1**0.5, 1]
    )
    np.testing.assert_array_equal(KalmanBank(0.3, 0.3).ratios, [0.0, 0.3])
    assert KalmanBank(1e-2, 1.0, per_decade=2).state_bytes == 8 * (4 * 6 + 3)


def test_without_evidence_all_members_weigh_the_same() -> None:
    """Two samples say nothing of q/r: r alone explains any difference."""
    state = KalmanBank().filter([1.0, 3.0]).state
    np.testing.assert_allclose(state.weights, 1.0 / 26.0, rtol=1e-12)
    gains = [(1.0 + s) / (2.0 + s) for s in KalmanBank().ratios]
    assert state.mean == pytest.approx(1.0 + 2.0 * float(np.mean(gains)), rel=1e-14)


@pytest.mark.parametrize("s", [1e-3, 0.1, 10.0])
def test_the_members_of_the_narrowest_bank(s: float) -> None:
    """Without switching each member is the Kalman filter of its ratio."""
    x = np.random.default_rng(2).normal(size=200)
    x[[5, 6, 7]] = np.nan
    state = KalmanBank(s, s, switch_rate=0.0).filter(x).state
    for j, ratio in enumerate((0.0, s)):
        kalman = Kalman(ratio, 1.0).filter(x)
        assert state.means[j] == pytest.approx(kalman.mean[-1], abs=1e-13)
        assert state.ratios[j] == pytest.approx(kalman.variance[-1], rel=1e-12)
    assert state.mean == pytest.approx(float(state.weights @ state.means), abs=1e-14)
    assert state.weights.sum() == pytest.approx(1.0, rel=1e-14)


def test_kinds() -> None:
    bank = KalmanBank()
    assert bank.traits == {Trait.SHIFT_EQUIVARIANT, Trait.SCALE_EQUIVARIANT, Trait.HAS_VARIANCE}
    assert not isinstance(bank, LinearEstimator)


# --- goals on stationary streams ----------------------------------------------------------------------------


def walk(s: float, steps: int, channels: int, seed: int, r: float = 1.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    level = math.sqrt(s * r) * rng.standard_normal((steps, channels)).cumsum(axis=0)
    return level, level + math.sqrt(r) * rng.standard_normal((steps, channels))


@pytest.mark.parametrize(
    ("s", "most"), [(1e-3, 1.05), (0.01, 1.05), (0.03, 1.02), (0.1, 1.02), (1.0, 1.02), (6.8e-3, 1.05)]
)
def test_error_against_the_filter_that_knows(s: float, most: float) -> None:
    """6.8e-3 lies half-way between two members of the grid."""
    level, x = walk(s, 2000, 300, 3)
    banked, known = (
        ((e.filter(x).mean - level)[500:] ** 2).mean(axis=0) for e in (KalmanBank(), Kalman(s, 1.0))
    )
    assert np.median(banked / known) <= most


@pytest.mark.parametrize("s", [1e-3, 0.01, 0.1, 1.0])
def test_the_interval_covers(s: float) -> None:
    level, x = walk(s, 2000, 100, 4, r=9.0)
    low, high = KalmanBank().filter(x).interval(0.95)
    assert 0.92 <= ((low <= level) & (level <= high))[500:].mean() <= 0.965
    assert 0.85 <= ((low <= level) & (level <= high))[20:100].mean() <= 0.97


@pytest.mark.filterwarnings("error")
def test_of_a_constant_with_noise_it_is_nearly_the_running_mean() -> None:
    x = np.random.default_rng(5).standard_normal((2000, 200)) + 3.0
    out = KalmanBank().filter(x)
    error = ((out.mean - 3.0) ** 2)[500:].mean(axis=0)
    assert np.median(error) <= 3.0 * np.median(
        ((Kalman(0.0, 1.0).filter(x).mean - 3.0) ** 2)[500:].mean(axis=0)
    )
    assert np.all(np.isfinite(out.variance[1:]))


@pytest.mark.filterwarnings("error")
def test_of_a_walk_without_noise_it_is_the_sample() -> None:
    x = np.random.default_rng(6).standard_normal((2000, 100)).cumsum(axis=0)
    out = KalmanBank().filter(x)
    assert ((out.mean - x)[500:] ** 2).mean() <= 1e-3  # of the variance 1 of a step
    assert np.all(np.isfinite(out.mean))
    assert np.all(np.isfinite(out.variance[1:]))


# --- what is degenerate -------------------------------------------------------------------------------------


def everything(out: Any) -> None:
    """Ask for all that a result has."""
    assert not np.any(np.isnan(out.variance))
    assert not np.any(np.isnan(out.gain))
    assert not np.any(np.isnan(out.innovation_variance))
    known = ~np.isnan(out.mean)
    for bounds in (out.interval(), out.predictive_interval()):
        assert all(not np.any(np.isnan(bound[known])) for bound in bounds)
    assert not np.any(np.isnan(out.noise_gain[known]))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "x",
    [
        pytest.param([], id="nothing"),
        pytest.param([2.0], id="one sample"),
        pytest.param([1.0, 3.0], id="two samples"),
        pytest.param([3.0, 3.0], id="two alike"),
        pytest.param([np.nan] * 5, id="all missing"),
        pytest.param([np.nan, 2.0, np.nan], id="one among missing"),
        pytest.param([3.0] * 200, id="constant"),
        pytest.param([0.0] * 50, id="zeros"),
        pytest.param([0.1, np.nan] * 40, id="constant with gaps"),
        pytest.param([1.0] * 30 + [5.0] * 30, id="two constants"),
        pytest.param([5.0] + [1.0] * 60, id="constant but for the first"),
        pytest.param([1.0, -1.0] * 40, id="alternating"),
        pytest.param(np.arange(100.0), id="ramp"),
        pytest.param([1e300, -1e300, 1e300, 0.0], id="huge"),
        pytest.param([1e-300, 2e-300, 0.0, 5e-324], id="tiny"),
        pytest.param([1.0] * 20 + [1e200] + [1.0] * 20, id="an outlier beyond measure"),
    ],
)
@pytest.mark.parametrize(
    "bank", [KalmanBank(), KalmanBank(0.1, 0.1), KalmanBank(forgetting=1.0, switch_rate=0.0)]
)
def test_defined_everywhere(x: Any, bank: KalmanBank) -> None:
    x = np.asarray(x, dtype=np.float64)
    out = bank.filter(x)
    seen = np.maximum.accumulate(~np.isnan(x)) if x.size else np.zeros(0, dtype=bool)
    np.testing.assert_array_equal(np.isnan(out.mean), ~seen)
    assert np.all(np.isfinite(out.mean[seen]))
    everything(out)
    assert np.all(np.isfinite(out.state.weights))
    assert out.state.weights.sum() == pytest.approx(1.0, rel=1e-12)
    state = bank.init(0.0)
    for t, z in enumerate(x):
        state = bank.update(state, float(z))
        assert state.mean == pytest.approx(out.mean[t], rel=1e-12, nan_ok=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.1, -7e250, 5e-324])
def test_a_constant_is_itself(value: float) -> None:
    out = KalmanBank().filter(np.full(300, value))
    np.testing.assert_array_equal(out.mean, value)
    np.testing.assert_array_equal(out.variance, [math.inf] + [0.0] * 299)
    np.testing.assert_allclose(out.state.weights, 1.0 / 26.0)


def test_the_likelihood_of_a_constant_is_a_number() -> None:
    likelihood = KalmanBank().filter(np.full(30, 0.1)).loglikelihood
    assert not math.isnan(likelihood)


def test_it_leaves_a_constant_behind() -> None:
    """Sure that nothing varies, and then it does."""
    rng = np.random.default_rng(7)
    x = np.concatenate([np.full((300, 50), 2.0), 2.0 + rng.standard_normal((300, 50))])
    out = KalmanBank().filter(x)
    error = ((out.mean[-100:] - 2.0) ** 2).mean()
    assert error <= 0.1


# --- streams that change ------------------------------------------------------------------------------------


def ratio(change: Any, s: tuple[float, float], r: tuple[float, float], seed: int = 8) -> float:
    """Median error over that of the filter that knows each half, 500 samples after the change."""
    rng = np.random.default_rng(seed)
    q = np.repeat([s[0] * r[0], s[1] * r[1]], 1500)[:, np.newaxis]
    noise = np.repeat(r, 1500)[:, np.newaxis]
    level = (np.sqrt(q) * rng.standard_normal((3000, 100))).cumsum(axis=0)
    x = level + np.sqrt(noise) * rng.standard_normal(level.shape)
    out = change.filter(x).mean
    known = Kalman(s[1] * r[1], r[1]).filter(x[1500:]).mean
    mine = ((out[2000:] - level[2000:]) ** 2).mean(axis=0)
    return float(np.median(mine / ((known[500:] - level[2000:]) ** 2).mean(axis=0)))


@pytest.mark.parametrize("s", [(1e-3, 0.1), (0.1, 1e-3), (0.01, 1.0), (1.0, 0.01)])
def test_it_adapts_after_the_ratio_has_changed(s: tuple[float, float]) -> None:
    assert ratio(KalmanBank(), s, (1.0, 1.0)) <= 1.1


@pytest.mark.parametrize("r", [(1.0, 25.0), (25.0, 1.0), (1.0, 1e6), (1e6, 1.0)])
def test_it_adapts_after_r_has_changed(r: tuple[float, float]) -> None:
    assert ratio(KalmanBank(), (0.01, 0.01), r) <= 1.1


def test_a_jump_is_followed() -> None:
    rng = np.random.default_rng(9)
    level = np.repeat([0.0, 8.0], 500)[:, np.newaxis] + 0.01 * rng.standard_normal((1000, 200)).cumsum(axis=0)
    x = level + rng.standard_normal(level.shape)
    banked, plain = (((e.filter(x).mean - level) ** 2)[500:600] for e in (KalmanBank(), Kalman(1e-4, 1.0)))
    assert banked.mean() < 0.15 * plain.mean()
    assert np.median(np.abs(KalmanBank().filter(x).mean[540] - 8.0)) < 1.0


def test_outliers_do_not_destroy_it() -> None:
    """5 % of ten sd: no more error than the filter has that is told r as it is with them."""
    level, x = walk(0.01, 2000, 100, 10)
    rng = np.random.default_rng(11)
    x = np.where(rng.random(x.shape) < 0.05, level + 10.0 * rng.standard_normal(x.shape), x)
    banked = ((KalmanBank().filter(x).mean - level) ** 2)[500:].mean(axis=0)
    told = ((Kalman(0.01, 5.95).filter(x).mean - level) ** 2)[500:].mean(axis=0)
    assert np.median(banked / told) <= 1.3


@pytest.mark.parametrize(("size", "after"), [(10.0, 50), (100.0, 200), (1e4, 600), (1e6, 1000)])
def test_one_outlier_is_forgotten(size: float, after: int) -> None:
    """As fast as forgetting lets r come down from size^2, and until then the interval is wide."""
    x = np.random.default_rng(12).standard_normal((300 + after + 100, 100))
    hit = x.copy()
    hit[300] += size
    clean, dirty = KalmanBank().filter(x), KalmanBank().filter(hit)
    moved = np.median(np.abs(dirty.mean - clean.mean), axis=1)
    assert np.all(moved[300 + after :] < 0.2)
    low, high = dirty.interval(0.95)
    assert ((low <= 0.0) & (high >= 0.0))[300:].mean() > 0.9


# --- steps, weights, states ---------------------------------------------------------------------------------


def test_one_weight_for_all_changes_nothing() -> None:
    x = short_stream(13)
    plain = KalmanBank().filter(x)
    for w in (0.25, 3.0, 1e6):
        # A sample of weight w has r / w: s means w times as much, so the grid moves along with it.
        moved = KalmanBank(1e-6 / w, 1e2 / w).filter(x, weight=np.full(60, w))
        np.testing.assert_allclose(moved.mean, plain.mean, rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved.variance, plain.variance, rtol=1e-7)


def test_steps_of_two_are_a_gap() -> None:
    rng = np.random.default_rng(14)
    x = rng.normal(size=40)
    spaced = np.full(80, np.nan)
    spaced[::2] = x
    out = KalmanBank().filter(x, steps=np.full(40, 2.0))
    np.testing.assert_allclose(out.mean, KalmanBank().filter(spaced).mean[::2], rtol=0, atol=1e-12)
    np.testing.assert_allclose(out.variance, KalmanBank().filter(spaced).variance[::2], rtol=1e-11)
    steps = rng.integers(1, 6, 40)
    sparse = np.full(steps.sum(), np.nan)
    sparse[np.cumsum(steps) - 1] = x
    out = KalmanBank().filter(x, steps=steps)
    np.testing.assert_allclose(
        out.mean, KalmanBank().filter(sparse).mean[np.cumsum(steps) - 1], rtol=0, atol=1e-12
    )


def test_r_is_not_taken() -> None:
    with pytest.raises(TypeError, match="KalmanBank takes no r by sample; it takes steps and weight"):
        KalmanBank().filter([1.0, 2.0], r=[1.0, 2.0])


@pytest.mark.parametrize("channels", [(), (3,), (2, 2)])
def test_a_state_goes_through_json(channels: tuple[int, ...]) -> None:
    bank = KalmanBank(1e-3, 1.0)
    x = np.random.default_rng(15).normal(size=(80, *channels))
    x[[0, 10]] = np.nan
    half = bank.filter(x[:40])
    loaded = bank.from_dict(json.loads(json.dumps(bank.to_dict(half.state), allow_nan=False)))
    assert loaded.means.shape == (len(bank.ratios), *channels)
    rest, again, whole = bank.filter(x[40:], half.state), bank.filter(x[40:], loaded), bank.filter(x)
    np.testing.assert_array_equal(again.mean, rest.mean)
    np.testing.assert_array_equal(rest.mean, whole.mean[40:])
    np.testing.assert_array_equal(rest.variance, whole.variance[40:])
    with pytest.raises(ValueError, match="KalmanBank"):
        KalmanBank(1e-3, 10.0).from_dict(bank.to_dict(half.state))


def test_float32() -> None:
    x = np.random.default_rng(16).normal(size=(300, 4))
    single, double = KalmanBank().filter(x, dtype=np.float32), KalmanBank().filter(x)
    assert single.mean.dtype == single.variance.dtype == np.float32
    assert single.state.mean.dtype == np.float32
    np.testing.assert_allclose(single.mean, double.mean, rtol=0, atol=1e-5)
    rest = KalmanBank().filter(x, single.state)
    assert rest.mean.dtype == np.float32


def test_channels_do_not_know_of_each_other() -> None:
    x = np.random.default_rng(17).normal(size=(100, 5)) * 10.0 ** np.arange(-4.0, 6.0, 2.0)
    together = KalmanBank().filter(x)
    for c in range(5):
        np.testing.assert_array_equal(together.mean[:, c], KalmanBank().filter(x[:, c]).mean)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"lowest": 0.0}, "lowest=0.0 is not valid; lowest must be > 0 as a ratio q/r"),
        ({"lowest": 1.0, "highest": 0.5}, "highest=0.5 is not valid; highest must be >= lowest = 1.0"),
        ({"highest": math.inf}, "highest=inf is not valid; highest must be > 0"),
        ({"per_decade": 0}, "per_decade=0 is not valid; per_decade must be an int >= 1"),
        ({"per_decade": 2.5}, "per_decade=2.5 is not valid; per_decade must be an int >= 1"),
        (
            {"per_decade": 200},
            "per_decade=200 is not valid; per_decade must be such that the bank has at most",
        ),
        ({"per_decade": 10**30}, "per_decade="),
        ({"forgetting": 0.0}, "forgetting=0.0 is not valid; forgetting must be in (0, 1]"),
        ({"forgetting": 1.1}, "forgetting=1.1 is not valid; forgetting must be in (0, 1]"),
        ({"switch_rate": 1.0}, "switch_rate=1.0 is not valid; switch_rate must be in [0, 1)"),
        (
            {"switch_rate": [0.1, 0.2]},
            "switch_rate=array([0.1, 0.2]) is not valid; switch_rate must be one number",
        ),
        ({"lowest": "a"}, "lowest='a' is not valid; lowest must be > 0"),
    ],
)
def test_parameters_out_of_range(parameters: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"is not valid") as caught:
        KalmanBank(**parameters)
    assert str(caught.value).startswith(f"KalmanBank: {text}")
    assert "\n" not in str(caught.value)
