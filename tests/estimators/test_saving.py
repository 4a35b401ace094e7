from __future__ import annotations

import copy
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from estimators.filterpy import FilterpyKalman

ALL = [
    EMA(0.9),
    EMA(0.1, initial=None),
    DebiasedEMA(0.999),
    Kalman(0.1, 1.0),
    Kalman(0.1, 1.0, mean=1 / 3, variance=0.7),
    MovingAverage(4),
    FilterpyKalman(0.1, 1.0),
]
ARRAYS = [EMA([0.1, 0.9]), DebiasedEMA([0.1, 0.9]), Kalman([0.1, 0.2], 1.0, [0.0, 1.0], [math.inf, 2.0])]
each = pytest.mark.parametrize("estimator", ALL, ids=repr)


def through_json(estimator: Any, state: Any) -> Any:
    """Save, write strict JSON (no NaN literals), read, restore."""
    return estimator.from_dict(json.loads(json.dumps(estimator.to_dict(state), allow_nan=False)))


def assert_same_bits(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    for one, other in zip(a, b, strict=True):
        assert type(one) is type(other)
        assert np.shape(one) == np.shape(other)
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@each
@pytest.mark.parametrize("seen", [0, 1, 2, 7, 30])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,), (1, 1)])
@pytest.mark.parametrize("kept", [np.float64, np.float32])
def test_a_restored_state_goes_on_bit_for_bit(estimator: Any, seen: int, shape: Any, kept: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(seen + 5, *shape)) / 3
    x[rng.random(x.shape) < 0.3] = np.nan
    state = estimator.filter(x[:seen], dtype=kept).state
    restored = through_json(estimator, state)
    assert_same_bits(restored, state)
    a, b = estimator.filter(x[seen:], state=state), estimator.filter(x[seen:], state=restored)
    assert np.asarray(a.mean).tobytes() == np.asarray(b.mean).tobytes()
    assert_same_bits(a.state, b.state)
    for row in x[seen:]:
        state, restored = estimator.update(state, row), estimator.update(restored, row)
        assert_same_bits(state, restored)


@pytest.mark.parametrize("estimator", ARRAYS, ids=lambda e: type(e).__name__)
def test_array_parameters(estimator: Any) -> None:
    state = estimator.filter(np.random.default_rng(1).normal(size=(9, 2))).state
    assert_same_bits(through_json(estimator, state), state)


@settings(max_examples=200, deadline=None)
@given(mean=st.floats(allow_nan=False), variance=st.floats(min_value=0.0, allow_nan=False))
def test_any_float_survives(mean: float, variance: float) -> None:
    kalman = Kalman(1.0, 1.0)
    state = kalman.State(mean, variance)
    assert_same_bits(through_json(kalman, state), state)


@each
def test_what_is_saved_is_plain_and_says_what_it_is(estimator: Any) -> None:
    data = estimator.to_dict(estimator.filter([1.0, 2.0]).state)
    assert set(data) == {"schema", "estimator", "parameters", "state"}
    assert data["schema"] == 1
    assert data["estimator"] == type(estimator).__name__

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(data)


@each
def test_a_tracker_goes_on(estimator: Any) -> None:
    online = estimator.tracker()
    for value in (1.0, 2.0, None, 5.0):
        online.update(value)
    resumed = estimator.tracker(estimator.from_dict(json.loads(json.dumps(online.to_dict()))))
    assert resumed.mean == online.mean
    assert resumed.update(3.0) == online.update(3.0)


@each
def test_pickles_and_copies(estimator: Any) -> None:
    state = estimator.filter([1.0, 2.0]).state
    assert pickle.loads(pickle.dumps(estimator)) == estimator
    assert copy.deepcopy(estimator) == estimator
    assert_same_bits(pickle.loads(pickle.dumps(state)), state)


@pytest.mark.parametrize(
    ("saver", "loader", "message"),
    [
        (EMA(0.9), EMA(0.8), "EMA: the state was saved under beta=0.9, not beta=0.8"),
        (EMA(0.9), EMA(0.9, initial=None), "saved under initial=0.0, not initial=None"),
        (EMA(0.9), DebiasedEMA(0.9), "DebiasedEMA: the state was saved by EMA; it can go on only there"),
        (Kalman(1.0, 1.0), FilterpyKalman(1.0, 1.0), "FilterpyKalman: the state was saved by Kalman"),
        (
            Kalman(1.0, 1.0),
            Kalman(1.0, 1.0, variance=1.0),
            "saved under variance='Infinity', not variance=1.0",
        ),
        (Kalman(1.0, 1.0), Kalman([1.0, 1.0], 1.0), "saved under q=1.0"),
        (MovingAverage(3), MovingAverage(4), "saved under window=3, not window=4"),
    ],
)
def test_other_settings_refuse_the_state(saver: Any, loader: Any, message: str) -> None:
    data = saver.to_dict(saver.init(0.0))
    with pytest.raises(ValueError, match="saved") as caught:
        loader.from_dict(data)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: None, "this is no saved state; to_dict makes one"),
        (lambda d: {}, "this is no saved state"),
        (lambda d: [], "this is no saved state"),
        (lambda d: "text", "this is no saved state"),
        (lambda d: {**d, "schema": 2}, "the state has schema 2; this version reads schema 1"),
        (lambda d: {**d, "parameters": []}, "the saved parameters are damaged: []"),
        (lambda d: {**d, "parameters": {}}, "the saved parameters are damaged: {}"),
        (lambda d: {**d, "state": {"mean": 1.0}}, "the saved state must hold mean, variance"),
        (lambda d: {**d, "state": [1.0, 2.0]}, "the saved state must hold mean, variance"),
        (lambda d: {**d, "state": {"mean": "x", "variance": 1.0}}, "the saved mean is damaged: 'x'"),
        (lambda d: {**d, "state": {"mean": 1.0, "variance": None}}, "the saved variance is damaged: None"),
        (
            lambda d: {
                **d,
                "state": {"mean": {"dtype": "float64", "shape": [2], "values": [1.0]}, "variance": 1.0},
            },
            "the saved mean is damaged",
        ),
        (
            lambda d: {
                **d,
                "state": {"mean": {"dtype": "nonsense", "shape": [], "values": [1]}, "variance": 1.0},
            },
            "the saved mean is damaged",
        ),
    ],
)
def test_damaged_data(change: Any, message: str) -> None:
    kalman = Kalman(1.0, 1.0)
    with pytest.raises(ValueError, match="Kalman: ") as caught:
        kalman.from_dict(change(kalman.to_dict(kalman.init(0.0))))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_states_of_other_estimators() -> None:
    with pytest.raises(TypeError, match="EMA: state is a KalmanState; it must be the EMAState that init"):
        EMA(0.5).to_dict(Kalman(1.0, 1.0).init(0.0))
    with pytest.raises(TypeError, match="state is a float"):
        EMA(0.5).filter([1.0], state=3.0)
    with pytest.raises(TypeError, match="state is a NoneType"):
        EMA(0.5).update(None, 1.0)
    with pytest.raises(ValueError, match=r"x of shape \(3,\) does not fit a state of shape \(2,\)"):
        EMA(0.5).filter(np.zeros((4, 3)), state=EMA(0.5).init(np.zeros(2)))
    # A state of one channel is the common start of several.
    started = EMA(0.5).update(EMA(0.5).init(0.0), 2.0)
    assert EMA(0.5).update(started, np.zeros(3)).mean.tolist() == [0.5] * 3
