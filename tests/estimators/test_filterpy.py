from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, Estimator, Kalman, LinearEstimator, matched
from estimators import filterpy as adapter
from estimators.checks import check_estimator
from estimators.filterpy import FilterpyKalman

EPS = 2.0**-52
SETTINGS = [
    FilterpyKalman(0.1, 1.0),
    FilterpyKalman(0.1, 1.0, mean=1.0, variance=2.0),
    FilterpyKalman(0.0, 3.0),
    FilterpyKalman(2.0, 0.0),
    FilterpyKalman(2.0, 0.0, mean=1.0, variance=0.0),
    FilterpyKalman(0.0, 1.0, mean=2.0, variance=0.0),
    FilterpyKalman(0.1, 1.0, variance=1e30),
]
each = pytest.mark.parametrize("estimator", SETTINGS, ids=repr)


def by_filterpy(kalman: Kalman, x: np.ndarray) -> dict[str, Any]:
    """Run one channel through filterpy itself, as its manual shows; from the first sample where diffuse."""
    from filterpy.kalman import KalmanFilter

    peer = KalmanFilter(dim_x=1, dim_z=1)
    peer.F, peer.H = np.eye(1), np.eye(1)
    peer.Q, peer.R = np.array([[kalman.q]]), np.array([[kalman.r]])
    started = math.isfinite(kalman.variance)
    if started:
        peer.x, peer.P = np.array([[kalman.mean]]), np.array([[kalman.variance]])
    rows, loglikelihood = [], 0.0
    for sample in x:
        if not started:
            if sample == sample:
                started = True
                peer.x, peer.P = np.array([[sample]]), np.array([[kalman.r]])
                rows.append((sample, kalman.r, 1.0))
            else:
                rows.append((math.nan, math.inf, 0.0))
            continue
        peer.predict()
        if sample == sample:
            peer.update(sample)
            loglikelihood += float(peer.log_likelihood)
        rows.append((peer.x[0, 0], peer.P[0, 0], peer.K[0, 0] if sample == sample else 0.0))
    mean, variance, gain = np.array(rows).T
    return {"mean": mean, "variance": variance, "gain": gain, "loglikelihood": loglikelihood}


def largest(difference: Any, scale: Any = 1.0) -> float:
    return float(np.max(np.abs(difference) / scale, initial=0.0))


@pytest.mark.slow
def test_kalman_is_filterpy_on_a_thousand_draws() -> None:
    """r, q/r and prior/r over 24 decades each; half of the starts diffuse, a fifth of the samples missing."""
    rng = np.random.default_rng(20261122)
    steps, worst = 30, dict.fromkeys(("mean", "variance", "gain", "loglikelihood"), 0.0)
    for draw in range(1000):
        r, s, prior = 10.0 ** rng.uniform(-12, 12, 3)
        q = s * r
        x = rng.normal(scale=math.sqrt(q), size=steps).cumsum() + rng.normal(scale=math.sqrt(r), size=steps)
        mean, variance = (0.0, math.inf) if draw % 2 else (math.sqrt(r * prior) * rng.normal(), r * prior)
        x += mean
        x[rng.random(steps) < 0.2] = np.nan
        if np.all(np.isnan(x)):
            continue
        kalman = Kalman(q, r, mean, variance)
        out, peer = kalman.filter(x), by_filterpy(kalman, x)
        np.testing.assert_array_equal(np.isnan(out.mean), np.isnan(peer["mean"]))
        np.testing.assert_array_equal(np.isinf(out.variance), np.isinf(peer["variance"]))
        known = np.isfinite(out.variance)
        size = max(np.nanmax(np.abs(x)), abs(mean))
        terms = np.isfinite(out.innovation) & np.isfinite(out.innovation_variance)
        likelihood_size = 1.0 + np.sum(
            np.abs(np.log(out.innovation_variance[terms]))
            + out.innovation[terms] ** 2 / out.innovation_variance[terms]
        )
        found = {
            "mean": largest((out.mean - peer["mean"])[known], size),
            "variance": largest(out.variance[known] / peer["variance"][known] - 1.0),
            "gain": largest(out.gain - peer["gain"], np.where(out.gain == 0.0, 1.0, out.gain)),
            "loglikelihood": largest(out.loglikelihood - peer["loglikelihood"], likelihood_size),
        }
        worst = {name: max(worst[name], found[name]) for name in worst}
    print(f"largest relative differences to filterpy: {worst}")
    assert worst["mean"] <= 4 * EPS, worst
    assert worst["variance"] <= 32 * EPS, worst
    assert worst["gain"] <= 32 * EPS, worst
    assert worst["loglikelihood"] <= 16 * EPS, worst


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan)), min_size=1, max_size=25),
    log_q=st.floats(-12.0, 12.0),
    log_r=st.floats(-12.0, 12.0),
    prior=st.one_of(st.just(math.inf), st.just(0.0), st.floats(-12.0, 30.0).map(lambda e: 10.0**e)),
    mean=st.floats(-1e6, 1e6),
)
def test_the_adapter_is_kalman(x: list[float], log_q: float, log_r: float, prior: float, mean: float) -> None:
    """On any stream and any prior, those included on which filterpy's Joseph form fails."""
    r = 10.0**log_r
    given_values = (10.0**log_q * r, r, mean, prior * r)
    ours, theirs = Kalman(*given_values).filter(x), FilterpyKalman(*given_values).filter(x)
    size = max(np.nanmax(np.abs(x), initial=0.0), abs(mean))
    known = np.isfinite(ours.variance)
    np.testing.assert_array_equal(np.isfinite(theirs.variance), known)
    np.testing.assert_allclose(theirs.mean, ours.mean, rtol=0, atol=16 * EPS * size)
    np.testing.assert_allclose(theirs.variance[known], ours.variance[known], rtol=256 * EPS)
    np.testing.assert_allclose(theirs.gain, ours.gain, rtol=256 * EPS)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [*SETTINGS, FilterpyKalman([0.1, 0.0, 2.0], [1.0, 2.0, 0.0])], ids=repr)
def test_the_whole_contract(estimator: Any) -> None:
    check_estimator(estimator)


def test_it_is_an_estimator_like_any_other() -> None:
    estimator = FilterpyKalman(0.1, 1.0)
    assert isinstance(estimator, Estimator)
    assert isinstance(estimator, LinearEstimator)
    assert isinstance(estimator, Kalman)
    assert estimator != Kalman(0.1, 1.0)
    assert estimator == FilterpyKalman(0.1, 1.0)
    assert hash(estimator) == hash(FilterpyKalman(0.1, 1.0))
    assert repr(estimator) == "FilterpyKalman(q=0.1, r=1.0)"
    assert estimator.traits == Kalman(0.1, 1.0).traits
    assert estimator.steady_gain == Kalman(0.1, 1.0).steady_gain
    assert estimator.steady_state() == Kalman(0.1, 1.0).steady_state()
    assert type(FilterpyKalman.from_beta(0.9, r=2.0)) is FilterpyKalman
    assert matched(FilterpyKalman, EMA(0.9), by="mse", r=2.0).r == 2.0
    with pytest.raises(ValueError, match="FilterpyKalman: q=-1 is not valid; q must be >= 0"):
        FilterpyKalman(-1, 1.0)


@each
def test_update_is_filter_and_filter_can_be_cut_anywhere(estimator: Any) -> None:
    x = np.random.default_rng(0).normal(size=25)
    x[[0, 7, 8, 24]] = np.nan
    out = estimator.filter(x)
    state, online = estimator.init(0.0), estimator.tracker()
    for t, sample in enumerate(x):
        state = estimator.update(state, float(sample))
        assert type(state.mean) is type(state.variance) is float
        np.testing.assert_array_equal([state.mean, state.variance], [out.mean[t], out.variance[t]])
        np.testing.assert_array_equal(online.update(sample), out.mean[t])
    assert (state.mean, state.variance) == (out.state.mean, out.state.variance)
    for cut in (0, 1, 8, 25):
        first = estimator.filter(x[:cut])
        rest = estimator.filter(x[cut:], state=first.state)
        np.testing.assert_array_equal(np.concatenate([first.mean, rest.mean]), out.mean)
        np.testing.assert_array_equal(np.concatenate([first.variance, rest.variance]), out.variance)


def test_a_diffuse_start_is_exact() -> None:
    out = FilterpyKalman(0.25, 2.0).filter([np.nan, np.nan, 0.1, np.nan])
    np.testing.assert_array_equal(out.mean, [np.nan, np.nan, 0.1, 0.1])
    np.testing.assert_array_equal(out.variance, [np.inf, np.inf, 2.0, 2.25])
    np.testing.assert_array_equal(out.gain, [0.0, 0.0, 1.0, 0.0])
    assert out.loglikelihood == 0.0


def test_channels_start_each_at_their_own_first_sample() -> None:
    x = np.random.default_rng(1).normal(size=(12, 2, 3))
    x[:4, 0, 1] = np.nan
    x[:, 1, 2] = np.nan
    q, r = np.array([0.0, 0.1, 2.0]), np.array([[1.0], [0.5]])
    ours, theirs = Kalman(q, r).filter(x), FilterpyKalman(q, r).filter(x)
    np.testing.assert_allclose(theirs.mean, ours.mean, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(np.isinf(theirs.variance), np.isinf(ours.variance))
    np.testing.assert_allclose(theirs.loglikelihood, ours.loglikelihood, rtol=1e-13)
    assert theirs.mean.shape == theirs.variance.shape == theirs.gain.shape == (12, 2, 3)
    smoothed = FilterpyKalman(q, r).smooth(x)
    np.testing.assert_allclose(smoothed.mean, Kalman(q, r).smooth(x).mean, rtol=0, atol=1e-14)


def test_what_it_takes_and_gives() -> None:
    estimator = FilterpyKalman(0.1, 1.0)
    frame = pd.DataFrame({"a": [1.0, None, 3.0], "b": [1, 2, 3]}, index=[4, 5, 6])
    out = estimator.filter(frame)
    assert list(out.mean.columns) == ["a", "b"]
    assert list(out.variance.index) == [4, 5, 6]
    pd.testing.assert_frame_equal(out.mean, Kalman(0.1, 1.0).filter(frame).mean)
    x = np.random.default_rng(2).normal(size=(9, 2))
    single = estimator.filter(x, dtype=np.float32)
    assert single.mean.dtype == single.state.mean.dtype == np.float32
    state = estimator.init(x[0], dtype=np.float32)
    for row in x:
        state = estimator.update(state, row)
    np.testing.assert_array_equal(state.mean, single.state.mean)
    buffer = np.empty((2, 9)).T
    assert estimator.filter(x, out=buffer).mean is buffer
    np.testing.assert_array_equal(buffer, estimator.filter(x).mean)
    saved = json.loads(json.dumps(estimator.to_dict(out.state), allow_nan=False))
    np.testing.assert_array_equal(estimator.from_dict(saved).mean, out.state.mean)
    with pytest.raises(ValueError, match="the state was saved by FilterpyKalman"):
        Kalman(0.1, 1.0).from_dict(saved)
    with pytest.raises(ValueError, match="x holds infinity at index 1"):
        estimator.filter([1.0, math.inf])
    assert estimator.filter([]).mean.shape == (0,)


def test_its_replay_is_the_map_that_it_used() -> None:
    x = np.random.default_rng(3).normal(size=40)
    x[[0, 5]] = np.nan
    out = FilterpyKalman(0.1, 1.0).filter(x)
    np.testing.assert_allclose(out.replay(np.nan_to_num(x)), out.mean, rtol=0, atol=1e-15)


# --- where filterpy is found, and when ----------------------------------------------------------------------


def test_nothing_is_imported_before_the_first_sample() -> None:
    program = (
        "import sys; from estimators.filterpy import FilterpyKalman as K; k = K(1.0, 1.0); k.init(0.0);"
        "print([m for m in ('filterpy', 'scipy', 'numba', 'pandas') if m in sys.modules]);"
        "k.update(k.init(0.0), 1.0); print('filterpy' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert printed.stdout.split("\n")[:2] == ["[]", "True"]


@pytest.mark.parametrize(
    ("version", "error", "message"),
    [
        (None, ImportError, "FilterpyKalman needs filterpy >= 2.0: pip install 'filterpy>=2.0'"),
        (
            "1.4.5",
            ValueError,
            "FilterpyKalman needs filterpy >= 2.0, not 1.4.5: older ones fail on numpy 2.4",
        ),
    ],
)
def test_without_filterpy_or_with_an_old_one(
    monkeypatch: pytest.MonkeyPatch, version: str | None, error: Any, message: str
) -> None:
    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", installed)
    adapter._require_filterpy.cache_clear()
    try:
        with pytest.raises(error) as caught:
            FilterpyKalman(1.0, 1.0)
        assert str(caught.value) == message
    finally:
        monkeypatch.undo()
        adapter._require_filterpy.cache_clear()
    FilterpyKalman(1.0, 1.0)
