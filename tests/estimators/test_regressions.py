"""Faults that a review found, each on the input that showed it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage, matched
from estimators.ema import EMAState
from estimators.kalman import KalmanState

KALMAN = Kalman(0.1, 1.0)

HALVED = """
from dataclasses import dataclass
from estimators import EMA
FACTOR = {factor}
@dataclass(frozen=True, eq=False)
class Halved(EMA):
    @staticmethod
    def correct(given, state, sample):
        gain = (1.0 - given.beta) * FACTOR
        return type(state)(state.mean + gain * (sample - state.mean)) if False else _made(state, gain, sample)
from estimators.ema import EMAState
from numba.extending import register_jitable
@register_jitable
def _helper(mean, gain, sample):
    return mean + gain * (sample - mean){helper}
def _made(state, gain, sample):
    return EMAState(_helper(state.mean, gain, sample)), gain
_made = register_jitable(_made)
"""
SHOW = "print(Halved(.5).tracker().update(1.0), float(Halved(.5).filter([1.0]).mean[0]))"


def run(code: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(cwd), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_changed_global_or_helper_is_compiled_anew(tmp_path: Path) -> None:
    """The compiled loop is cached on disk under all that it inlines, not under the recursion's text alone."""
    module = tmp_path / "mine.py"
    for factor, helper, expected in (
        (1.0, "", "0.5 0.5"),
        (0.5, "", "0.25 0.25"),
        (0.5, " + 1.0", "1.25 1.25"),
    ):
        module.write_text(HALVED.format(factor=factor, helper=helper))
        assert run(f"from mine import Halved; {SHOW}", tmp_path, PYTHONDONTWRITEBYTECODE="1") == expected


def test_a_recursion_without_source_and_with_a_redefined_global(tmp_path: Path) -> None:
    code = HALVED.format(factor=1.0, helper="") + SHOW + "\nFACTOR = 0.5\n" + SHOW
    assert run(code, tmp_path) == "0.5 0.5\n0.25 0.25"


@pytest.mark.slow
def test_without_compilation_and_without_a_usable_cache(tmp_path: Path) -> None:
    code = "from estimators import Kalman; print(Kalman(0., 1.).filter([1., 3.]).mean[-1])"
    assert run(code, tmp_path, NUMBA_DISABLE_JIT="1") == "2.0"
    cache = tmp_path / "cache"
    assert run(code, tmp_path, NUMBA_CACHE_DIR=str(cache)) == "2.0"
    for path in cache.rglob("*.nb?"):
        path.write_bytes(b"damaged")
    assert run(code, tmp_path, NUMBA_CACHE_DIR=str(cache)) == "2.0"


def test_states_of_integers_are_not_truncated() -> None:
    assert EMA(0.5).update(EMAState(1), 2.0) == EMAState(1.5)
    expected = KALMAN.update(KalmanState(0.0, 1.0), 1.5)
    assert KALMAN.tracker(KalmanState(0, 1)).update(1.5) == expected.mean  # type: ignore[arg-type]
    assert KALMAN.filter([1.5], KalmanState(0, 1)).mean[0] == expected.mean
    assert EMA(0.5).update(EMAState([1, 2]), [2, 2]).mean.tolist() == [1.5, 2.0]
    with pytest.raises(TypeError, match="writeable float arrays"):
        KALMAN.update(KalmanState(np.zeros(3), np.ones(3)), np.ones(3), KalmanState(*np.zeros((2, 3), int)))


def test_states_of_another_setting_or_of_uneven_shapes_are_refused() -> None:
    three = MovingAverage(3).filter([1.0, 2.0, 3.0]).state
    for use in (
        lambda: MovingAverage(5).tracker(three),
        lambda: MovingAverage(5).update(three, 1.0),
        lambda: MovingAverage(5).filter([1.0], three),
        lambda: MovingAverage(5).to_dict(three),
        lambda: KALMAN.update(KalmanState(np.zeros(2), 1.0), [1.0, 2.0]),
        lambda: KALMAN.filter([[1.0, 2.0]], KalmanState(np.zeros(2), 1.0)),
    ):
        with pytest.raises(ValueError, match=r"state\.(window|variance) has shape"):
            use()


def test_results_keep_where_they_started() -> None:
    x = np.random.default_rng(0).normal(size=(20, 2))
    first = KALMAN.filter(x)
    second = KALMAN.filter(x, first.state)
    before = second.innovation[0].copy()
    KALMAN.update(first.state, x[0], out=first.state)
    np.testing.assert_array_equal(second.innovation[0], before)


def test_pandas_results_keep_the_labels_they_were_made_with() -> None:
    series = pd.Series([1.0, 2.0, 4.0], name="loss")
    result = KALMAN.filter(series)
    series.loc[3] = 4.0
    assert result.replay(np.ones(3)).index.tolist() == [0, 1, 2]
    again = pickle.loads(pickle.dumps(KALMAN.filter(series)))
    assert again.mean.name == "loss"
    assert again.loglikelihood == KALMAN.filter(series).loglikelihood


@pytest.mark.filterwarnings("error")
def test_masked_entries_of_nested_lists_are_missing() -> None:
    rows = [np.ma.array([1.0, 999.0], mask=[0, 1]), np.ma.array([1.0, 2.0], mask=[0, 0])]
    np.testing.assert_array_equal(EMA(0.5, None).filter(rows).mean, [[1.0, np.nan], [1.0, 2.0]])
    nested = [[np.ma.masked, 1.0], [3.0, 2.0]]
    np.testing.assert_array_equal(EMA(0.5, None).filter(nested).mean, [[np.nan, 1.0], [3.0, 1.5]])
    with pytest.raises(ValueError, match="beta"):
        EMA(np.ma.array([0.5, 0.9], mask=[0, 1]))


def test_out_is_written_whole_or_not_at_all() -> None:
    state, x = KalmanState(np.zeros(3), np.ones(3)), np.ones(3)
    locked = np.ones(3)
    locked.flags.writeable = False
    for out in (
        KalmanState(np.zeros((2, 3)), np.ones((2, 3))),
        KalmanState(np.zeros(3), np.ones(2)),
        KalmanState(np.zeros(3), locked),
        np.zeros((2, 3)),
    ):
        kept = [np.array(field) for field in out]
        with pytest.raises(TypeError, match=r"out must be a KalmanState of writeable float arrays, out\."):
            KALMAN.update(state, x, out)
        for field, old in zip(out, kept, strict=True):
            np.testing.assert_array_equal(field, old)


@pytest.mark.parametrize("estimator", [EMA(0.5), EMA([0.5, 0.9]), DebiasedEMA(0.5), KALMAN, MovingAverage(3)])
def test_time_may_pass_before_a_tracker_knows_its_channels(estimator: Any) -> None:
    x = np.arange(2.0)
    fresh = estimator.tracker()
    loaded = estimator.tracker(estimator.from_dict(estimator.tracker().to_dict()))
    waited = estimator.tracker()
    waited.update(None)
    expected = estimator.filter(np.stack([x, np.full(2, np.nan), x + 1])).mean[-1]
    for tracker in (fresh, loaded, waited):
        tracker.update(x)
        tracker.update(None)
        np.testing.assert_allclose(tracker.update(x + 1), expected, rtol=1e-15)


def test_the_noise_gain_of_a_run_that_goes_on_counts_this_run() -> None:
    average = MovingAverage(4)
    x = np.array([1.0, 2.0, np.nan, 3.0, np.nan, np.nan, np.nan, np.nan, np.nan, 1.0])
    before = average.filter(np.arange(6.0)).state
    run = average.filter(x, before)
    unit = np.where(np.isnan(x), np.nan, 0.0)
    weights = [run.replay(np.where(np.arange(x.size) == t, 1.0, unit)) for t in np.flatnonzero(~np.isnan(x))]
    np.testing.assert_allclose(run.noise_gain, np.sum(np.square(weights), axis=0), rtol=1e-14)


def test_samples_whose_differences_overflow_are_refused() -> None:
    for x in ([1.0, 1.7e308], [-1.0, np.inf]):
        with pytest.raises(ValueError, match="at index 1; pass finite samples"):
            KALMAN.filter(x)
    with pytest.raises(ValueError, match=r"beyond 1\.7e\+38"):
        EMA(0.5).filter([1e39], dtype=np.float32)
    largest = np.array([-8.9e307, 8.9e307, 1.0, 2.0])
    for estimator in (EMA(0.5), DebiasedEMA(0.5), KALMAN, MovingAverage(2)):
        assert np.isfinite(estimator.filter(largest).mean).all()
        assert estimator.filter([1e308, 1.0], on_infinite="missing").mean[-1] <= 1.0


def test_one_channel_of_huge_values_does_not_touch_another() -> None:
    x = np.array([[1e300, 3e-300], [1e300, 3e-300]])
    assert MovingAverage(2).filter(x).mean[1, 1] == 3e-300


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: EMA.from_half_life(1e18), "EMA.from_half_life: half_life=1e+18"),
        (lambda: EMA.from_alpha(1e-18), "EMA.from_alpha: alpha=1e-18"),
        (lambda: matched(Kalman, MovingAverage(1)), "Kalman.from_noise_gain: noise_gain=1.0"),
        (lambda: Kalman(1, 1, mean=[[1], [1, 2]]), "Kalman: mean=[[1], [1, 2]]"),
        (lambda: EMA.from_attenuation([3, 20], [0.1, 0.2, 0.3]), "EMA.from_attenuation: the shapes of db"),
        (lambda: Kalman.from_beta([0.5, 0.9], r=[1, 2, 3]), "Kalman.from_beta: the shapes of beta"),
        (lambda: EMA(np.array(["0.5"], dtype=object)), "EMA: beta="),
        (lambda: EMA(False), "EMA: beta=False"),
        (lambda: KALMAN.tracker(on_infinite="ignore"), "on_infinite='ignore'"),  # type: ignore[arg-type]
        (lambda: DebiasedEMA.from_span(1), "DebiasedEMA.from_span: span=1"),
        (lambda: MovingAverage(10**400), "MovingAverage: window=1"),
    ],
)
def test_errors_name_what_was_given(make: Any, named: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        make()
    assert str(caught.value).startswith(named)


def test_a_class_cannot_be_matched() -> None:
    with pytest.raises(TypeError, match="EMA is a class; matched needs a setting of it"):
        matched(Kalman, EMA)


def test_saved_states_are_checked_like_any_other() -> None:
    data = KALMAN.to_dict(KALMAN.init(np.zeros(2)))
    for change in (
        {"mean": {"dtype": "int8", "shape": [2], "values": [0, 0]}},
        {"variance": 1.0},
        {"mean": {"dtype": "float64", "shape": [2], "values": [10**400, 0]}},
    ):
        with pytest.raises(ValueError, match=r"^Kalman: [^\n]+$"):
            KALMAN.from_dict({**data, "state": {**data["state"], **change}})
    for change in ({"schema": True}, {"parameters": {}}):
        with pytest.raises(ValueError, match=r"^Kalman: [^\n]+$"):
            KALMAN.from_dict({**data, **change})


def test_small_betas_and_extreme_ratios_keep_their_precision() -> None:
    assert EMA(1e-300).time_constant == pytest.approx(-1.0 / np.log(1e-300), rel=1e-15)
    assert EMA.from_half_life(0.01).half_life == pytest.approx(0.01, rel=1e-12)
    assert Kalman(0.0, 1e200, 0.0, 1e-120).filter([1.0]).variance[0] == pytest.approx(1e-120)
    assert Kalman(1e300, 1e-300, 0.0, 1.0).smooth([1.0, 2.0]).variance[0] == pytest.approx(1e-300)
    assert Kalman(1e308, 1e308).q == 1e308
    assert Kalman(0.0, 1e-320, 0.0, 0.0).filter([1.0]).gain[0] == 0.0


EDITED = """
import math
import numpy as np
import consts
from dataclasses import dataclass
from estimators import EMA
from estimators.ema import EMAState
G = {value}
@dataclass(frozen=True, eq=False)
class Mine(EMA):
    other: float = 0.75
    coefficients = ("beta", "other")
    @staticmethod
    def correct(given, state, sample, k={default}):
        gain = {gain}
        return EMAState(state.mean + gain * (sample - state.mean)), gain
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"gain": "given.beta"}, {"gain": "given.other"}),
        ({"gain": "min(0.25, given.other)"}, {"gain": "max(0.25, given.other)"}),
        ({"gain": "math.sin(0.25)"}, {"gain": "math.cos(0.25)"}),
        ({"default": "0.25"}, {"default": "0.75"}),
        ({"gain": "G", "value": "np.float32(0.25)"}, {"gain": "G", "value": "np.float32(0.75)"}),
        ({"gain": "G[0]", "value": "np.array([0.25])"}, {"gain": "G[0]", "value": "np.array([0.75])"}),
        ({"gain": "consts.G", "consts": "0.25"}, {"gain": "consts.G", "consts": "0.75"}),
    ],
    ids=lambda change: str(change),
)
def test_no_edit_of_a_recursion_is_overlooked(
    before: dict[str, str], after: dict[str, str], tmp_path: Path
) -> None:
    show = "from mine import Mine; e = Mine(0.25); s = e.init(1.0)\n"
    show += "print(float(e.filter([1.0, 1.0]).mean[-1]) == e.update(e.update(s, 1.0), 1.0).mean)"
    for text in (before, after):
        filled = {"gain": "k", "value": "0.0", "default": "0.0"} | text
        (tmp_path / "consts.py").write_text(f"G = {text.get('consts', 0.0)}")
        (tmp_path / "mine.py").write_text(EDITED.format(**filled))
        assert run(show, tmp_path, PYTHONDONTWRITEBYTECODE="1") == "True"


@pytest.mark.slow
def test_a_global_changed_in_process_neither_runs_nor_is_cached_as_it_was(tmp_path: Path) -> None:
    def write(value: str) -> None:
        filled = {"gain": "G", "value": value, "default": "0.0"}
        (tmp_path / "mine.py").write_text(EDITED.format(**filled))

    (tmp_path / "consts.py").write_text("")
    show = "import mine; e = mine.Mine(0.25); print(float(e.filter([1.0, 1.0]).mean[-1]), end=' ')\n"
    write("0.25")
    changed = "mine.G = 0.75; print(float(e.filter([1.0, 1.0]).mean[-1]))"
    assert run(show + changed, tmp_path, PYTHONDONTWRITEBYTECODE="1") == "0.4375 0.9375"
    write("0.75")
    assert run(show, tmp_path, PYTHONDONTWRITEBYTECODE="1") == "0.9375"


@pytest.mark.filterwarnings("error")
def test_an_uncompiled_loop_warns_of_nothing(tmp_path: Path) -> None:
    code = "import warnings; warnings.simplefilter('error')\n"
    code += "from estimators import Kalman; print(Kalman(1., 1.).filter([1., 1.]).mean[-1])"
    assert run(code, tmp_path, NUMBA_DISABLE_JIT="1") == "1.0"
