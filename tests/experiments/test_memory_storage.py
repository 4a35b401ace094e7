"""How numbers are kept in fewer bytes, against torch, ml_dtypes, NumPy and the library's float32 state."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman
from experiments.memory_storage import STORAGES, Storage, chances, measured_stall, stall, stored

BY_NAME = {storage.name: storage for storage in STORAGES}
BRAIN, SINGLE, PAIR = (BY_NAME[name] for name in ("bfloat16", "float32", "2 x bfloat16"))
CHANCE, SINGLES, DOUBLE = (
    BY_NAME[name] for name in ("bfloat16, stochastic rounding", "2 x float32", "float64")
)
TO_NEAREST = [storage for storage in STORAGES if not storage.chance]
MAGNITUDES = st.floats(1e-30, 1e30)


def values(n: int = 2000) -> Any:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n)
    exact = np.arange(-300, 300) / 256.0 + 1.0  # many of them halfway between two numbers that are kept
    return np.concatenate([wide, exact, [0.0, -0.0, 2.3, 1.0]]).astype(np.float32).astype(np.float64)


def test_bfloat16_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    x = values()
    theirs = torch.tensor(x, dtype=torch.float32).to(torch.bfloat16).double().numpy()
    np.testing.assert_array_equal(BRAIN.kept(x), theirs)


def test_bfloat16_is_that_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = values()
    np.testing.assert_array_equal(BRAIN.kept(x), x.astype(ml_dtypes.bfloat16).astype(np.float64))


def test_float64_is_rounded_once() -> None:
    # By way of float32 this would be a tie, and go down to the even one.
    just_above = 1.0 + 2.0**-8 + 2.0**-40
    assert BRAIN.kept(np.array([just_above])) == 1.0 + 2.0**-7
    assert BRAIN.kept(np.array([float(np.float32(just_above))])) == 1.0


@given(x=MAGNITUDES, sign=st.sampled_from([-1.0, 1.0]))
def test_what_is_kept_is_within_half_a_spacing_and_stays(x: float, sign: float) -> None:
    for storage in TO_NEAREST:
        kept = storage.kept(np.array([sign * x]))
        assert abs(kept[0] - sign * x) <= 0.5 * x * 2.0 ** (1 - storage.bits * storage.parts)
        assert storage.kept(kept)[0] == kept[0]
        assert storage.kept(-kept)[0] == -kept[0]


@given(x=MAGNITUDES)
def test_the_spacing_is_the_distance_to_the_next(x: float) -> None:
    for storage in (BRAIN, SINGLE):
        kept = storage.kept(np.array([x]))
        step = storage.spacing(kept)
        assert storage.kept(kept + step) == kept + step
        assert storage.kept(kept + 0.49 * step) == kept
        assert storage.kept(kept + 0.51 * step) == kept + step
    assert SINGLE.spacing(SINGLE.kept(np.array([x])))[0] == np.spacing(np.float32(x))
    assert DOUBLE.spacing(np.array([x]))[0] == np.spacing(x)


def test_a_pair_is_the_rounded_number_and_what_it_lost() -> None:
    x = values() * (1.0 + 1e-5)
    x = x[(x == 0.0) | (np.abs(x) > 1e-28)]
    high = BRAIN.kept(x)
    np.testing.assert_array_equal(PAIR.kept(x), high + BRAIN.kept(x - high))
    assert (np.abs(PAIR.kept(x) - x) <= 2.0**-16 * np.abs(x)).all()
    assert (np.abs(SINGLES.kept(x) - x) <= 2.0**-48 * np.abs(x)).all()


def test_bytes_are_those_of_the_parts() -> None:
    assert [storage.bytes for storage in (DOUBLE, SINGLE, BRAIN, CHANCE, PAIR, SINGLES)] == [8, 4, 2, 2, 4, 8]
    assert len(STORAGES) == 6


def test_nan_is_kept() -> None:
    for storage in STORAGES:
        assert np.isnan(storage.kept(np.array([np.nan]), np.array([2**45 - 1], np.uint64)))[0]


# --- by chance ----------------------------------------------------------------------------------------------


def test_rounding_by_chance_is_unbiased_and_to_a_neighbour() -> None:
    n = 40_000
    chance = next(chances((n,), 3, "test"))
    for x in (6.1, -6.1, 2.3e-5):
        kept = CHANCE.kept(np.full(n, x), chance)
        step = float(CHANCE.spacing(np.array([x]))[0])
        assert len(np.unique(kept)) == 2
        assert np.ptp(kept) == step
        share = (x - kept.min()) / step
        assert abs(np.mean(kept) - x) < 4.0 * step * np.sqrt(share * (1.0 - share) / n)


def test_what_can_be_kept_is_not_moved_by_chance() -> None:
    x = BRAIN.kept(values())
    np.testing.assert_array_equal(CHANCE.kept(x, np.full(x.shape, 2**45 - 1, np.uint64)), x)


def test_chance_is_a_repetition_s_own() -> None:
    wide, narrow = chances((3, 5), 0, "EMA"), chances((3, 2), 0, "EMA")
    for one, other in itertools.islice(zip(wide, narrow, strict=False), 600):
        np.testing.assert_array_equal(one[:, :2], other)
    again, elsewhere = next(chances((50, 1), 0, "EMA")), next(chances((50, 1), 1, "EMA"))
    assert not np.array_equal(again, elsewhere)
    assert again.max() < 2**45


# --- stored states ------------------------------------------------------------------------------------------


def means(estimator: Any, x: Any, storages: Any = STORAGES) -> Any:
    return np.stack([mean.copy() for mean in stored(estimator, x[0], x, storages=storages)], axis=1)


@pytest.mark.parametrize("estimator", [EMA(0.9, initial=6.0), EMA(0.999, initial=None), DebiasedEMA(0.99)])
def test_float64_is_the_filter_itself(estimator: Any) -> None:
    x = 6.0 + np.random.default_rng(1).normal(size=(400, 3))
    ours = means(estimator, x, (DOUBLE,))[0]
    np.testing.assert_allclose(ours, estimator.filter(x).mean, rtol=1e-13)


@pytest.mark.parametrize("beta", [0.9, 0.999, 0.99999])
def test_float32_is_the_library_s_own_float32_state_within_rounding(beta: float) -> None:
    x = 6.0 + np.random.default_rng(2).normal(size=(3000, 2))
    ema = EMA(beta, initial=6.0)
    ours, theirs = means(ema, x, (SINGLE,))[0], ema.filter(x, dtype=np.float32).mean
    assert theirs.dtype == np.float32
    # Roundings add up as far back as the mean remembers: half a spacing each.
    spacing = float(np.spacing(np.float32(8.0)))
    assert np.abs(ours - theirs).max() <= spacing * min(1.0 / (1.0 - beta), 30.0)
    np.testing.assert_array_equal(ours, ours.astype(np.float32))


def test_every_field_of_a_state_is_stored() -> None:
    x = 6.0 + np.random.default_rng(2).normal(size=(200, 2))
    kalman = Kalman(q=1e-2, r=1.0)
    exact = means(kalman, x, (DOUBLE,))[0]
    np.testing.assert_allclose(exact, kalman.filter(x).mean, rtol=1e-13)
    rough = means(kalman, x, (SINGLE,))[0]
    assert 0.0 < np.abs(rough - exact).max() < 1e-4


def test_storages_do_not_touch_each_other() -> None:
    x = 6.1 + np.random.default_rng(3).normal(size=(300, 2))
    together = means(EMA(0.99, initial=6.1), x)
    for at, storage in enumerate(STORAGES):
        np.testing.assert_array_equal(together[at], means(EMA(0.99, initial=6.1), x, (storage,))[0])


# --- stalls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", [BRAIN, SINGLE, PAIR], ids=lambda s: s.name)
@pytest.mark.parametrize("mean", [2.3, 6.1, -6.1, 0.013])
def test_a_mean_stalls_where_the_closed_form_says(storage: Storage, mean: float) -> None:
    betas = np.array([0.9, 0.99, 0.999, 0.9999, 0.99999])
    np.testing.assert_allclose(
        measured_stall(betas, storage, mean), stall(betas, storage, mean), rtol=1e-4, atol=0.0
    )


def test_the_numbers_that_settle_arguments() -> None:
    # A mean of 2.3: bfloat16 keeps steps of 1/64, float32 of 2^-22.
    assert stall(0.99, BRAIN, 2.3)[0] == pytest.approx(0.78125)
    assert stall(0.999, BRAIN, 2.3)[0] == pytest.approx(7.8125)
    assert stall(1.0 - 1e-6, SINGLE, 2.3)[0] == pytest.approx(0.1192, rel=1e-3)


def test_a_constant_stream_stops_short_by_the_stall_distance() -> None:
    ema, x = EMA(0.99, initial=3.0), np.full((3000, 1), 6.0)
    by_storage = dict(zip([s.name for s in STORAGES], means(ema, x)[:, -1, 0], strict=True))
    short = 6.0 - by_storage["bfloat16"]
    away = 1.5625  # half a spacing of 1/32 between 4 and 8, over 0.01
    assert stall(0.99, BRAIN, 5.0)[0] == pytest.approx(away)
    assert away - 1.0 / 32.0 < short <= away
    for name in ("float64", "float32", "2 x float32", "2 x bfloat16"):
        assert abs(6.0 - by_storage[name]) < 0.02, name
    assert abs(6.0 - by_storage["bfloat16, stochastic rounding"]) < 0.4
