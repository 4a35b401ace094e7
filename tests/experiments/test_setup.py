"""What an experiment is given, and that repetitions may be cut into any blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from estimators import EMA, Kalman, MovingAverage
from experiments.cells import every_metric
from experiments.settings import Match, Tune
from experiments.setup import Setup, setting
from experiments.streams import GradientRatio


def made(**changed: Any) -> Setup:
    settings: dict[str, Any] = {
        "parameters": None,
        "stream_name": "gradient_ratio",
        "stream": GradientRatio(steps=100),
        "noise_variance": 1.7956,
        "estimators": {"ema": EMA(0.9)},
        "seeds": 3,
        "root_seed": 0,
        "burn_in": 25,
    }
    return Setup(**settings | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"estimators": {}}, "estimators=[] is not valid"),
        ({"seeds": 0}, "seeds=0 is not valid; it must be an int >= 1"),
        ({"seeds": -3}, "seeds=-3 is not valid"),
        ({"root_seed": -1}, "root_seed=-1 is not valid; it must be an int >= 0"),
        ({"match": Match.delay, "tune": Tune.rmse}, "match=delay and tune=rmse exclude each other"),
    ],
    ids=str,
)
def test_what_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="=") as caught:
        made(**changed)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("block", [1, 100, 199, 250, 10**9])
def test_blocks_cover_every_repetition_once_in_order(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.cells.BLOCK", block)
    setup = made(seeds=5)
    condition = setup.condition(every_metric)
    blocks = list(condition.blocks(5))
    assert [seed for seeds in blocks for seed in seeds] == [0, 1, 2, 3, 4]
    trials = [condition.trial(EMA(0.9), seeds) for seeds in blocks]
    samples = np.concatenate([trial.drawn.samples for trial in trials], axis=1)
    np.testing.assert_array_equal(samples, setup.stream.draw(range(5), 0, "evaluate").samples)
    assert all(trial.noise_sd == 1.34 and trial.burn_in == 25 for trial in trials)
    assert len(blocks) == (5 if block < 200 else 3 if block < 300 else 1)


def test_no_more_repetitions_than_were_recorded() -> None:
    class Three(GradientRatio):
        def available(self) -> int:
            return 3

    assert made(stream=Three(), seeds=100).repetitions == 3
    assert made(stream=Three(), seeds=2).repetitions == 2
    assert made(seeds=100).repetitions == 100


@pytest.mark.parametrize(
    ("estimator", "written"),
    [
        (EMA(0.99), "beta=0.99"),
        (EMA(0.99, initial=None), "beta=0.99 initial=None"),
        (EMA(0.5, initial=2.0), "beta=0.5 initial=2"),
        (Kalman(q=1.7956 / 9900, r=1.7956), "q=0.00018137373737373737 r=1.7956"),
        (Kalman(q=1.0, r=1.0, variance=4.0), "q=1 r=1 variance=4"),
        (MovingAverage(199), "window=199"),
    ],
    ids=str,
)
def test_settings_are_written_without_defaults(estimator: Any, written: str) -> None:
    assert setting(estimator) == written


def test_two_blocks_leave_the_same_bytes_as_one(
    kalmean: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ["seeds=5", "stream.steps=200", "stream.gap_rate=0.05"]
    whole = kalmean(*settings, output="whole")
    monkeypatch.setattr("experiments.cells.BLOCK", 400)
    blocks = kalmean(*settings, output="blocks")
    order = ["estimator", "metric", "seed"]
    one, other = (ran.table.sort_values(order, kind="stable") for ran in (whole, blocks))
    assert one.to_csv(index=False) == other.to_csv(index=False)
    assert (whole.folder / "table.csv").read_bytes() == (blocks.folder / "table.csv").read_bytes()
