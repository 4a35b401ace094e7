"""What a cell is named by, and that measuring it depends on nothing beside it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Estimator, Kalman, MovingAverage
from experiments import cells
from experiments.cells import (
    ChangedCodeError,
    Chunk,
    Condition,
    Piece,
    Setting,
    digest,
    every_metric,
    measured,
    plain,
)
from experiments.compare import Parameters
from experiments.metrics import Measured
from experiments.recorded import Recorded
from experiments.streams import Domain, GradientRatio, Impulse, Step

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Other:
    """Parameters of another experiment."""

    lags: tuple[int, ...] = (1, 2)
    level: float = math.inf


def breaks_on_three(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Every metric, but of repetition 3."""
    if 3 in repetitions:
        raise ValueError("repetition 3\n  is broken")
    return every_metric(condition, estimator, repetitions)


def breaks(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Nothing."""
    raise ZeroDivisionError(f"of {len(repetitions)}")


def breaks_for_kalman(
    condition: Condition, estimator: Estimator, repetitions: Sequence[int]
) -> list[Measured]:
    """Every metric, but of Kalman filters."""
    if isinstance(estimator, Kalman):
        raise ValueError("no filter")
    return every_metric(condition, estimator, repetitions)


def runs_out(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Nothing: the memory is used up."""
    raise MemoryError


def is_stopped(condition: Condition, estimator: Estimator, repetitions: Sequence[int]) -> list[Measured]:
    """Nothing: somebody stops it."""
    raise KeyboardInterrupt


def made(**changed: Any) -> Condition:
    settings: dict[str, Any] = {
        "measure": every_metric,
        "parameters": Parameters(),
        "stream": GradientRatio(steps=60),
        "noise_variance": 1.7956,
        "root_seed": 0,
        "burn_in": 15,
    }
    return Condition(**settings | changed)


def chunk(condition: Condition, *estimators: Estimator, repetitions: Sequence[int] = range(7)) -> Chunk:
    return Chunk(condition, tuple(Piece(Setting(own), tuple(repetitions)) for own in estimators))


def bits(series: Sequence[Measured]) -> list[tuple[str, str, str, bytes]]:
    return [(one.metric, one.unit, one.missing, one.values.tobytes()) for one in series]


# --- names --------------------------------------------------------------------------------------------------

CONDITIONS: list[dict[str, Any]] = [
    {},
    {"measure": breaks},
    {"measure": breaks_on_three},
    {"parameters": Other()},
    {"parameters": Other(lags=(1, 3))},
    {"parameters": Other(lags=())},
    {"parameters": Other(level=math.nan)},
    {"parameters": Other(level=-math.inf)},
    {"parameters": None},
    {"stream": GradientRatio(steps=61)},
    {"stream": GradientRatio(steps=60, r=math.nextafter(1.7956, 2.0))},
    {"stream": GradientRatio(steps=60, gap_rate=0.01)},
    {"stream": GradientRatio(steps=60, gap_rate=0.01, gap_length=6.0)},
    {"stream": GradientRatio(steps=60, degrees_of_freedom=3.0)},
    {"stream": GradientRatio(steps=60, domain=Domain.ratio)},
    {"stream": GradientRatio(steps=60, domain=Domain.weight)},
    {"stream": Step(steps=60)},
    {"stream": Impulse(steps=60)},
    {"noise_variance": math.nextafter(1.7956, 2.0)},
    {"noise_variance": math.inf},
    {"root_seed": 1},
    {"root_seed": 2**70},
    {"burn_in": 16},
    {"burn_in": 0},
]
ESTIMATORS: list[Estimator] = [
    EMA(0.99),
    EMA(math.nextafter(0.99, 1.0)),
    EMA(0.99, initial=None),
    EMA(0.99, initial=math.nextafter(0.0, 1.0)),
    EMA(np.array([0.99])),
    EMA(np.array([0.99, 0.9])),
    EMA(np.array([0.9, 0.99])),
    DebiasedEMA(0.99),
    DebiasedEMA(math.nextafter(0.99, 0.0)),
    Kalman(q=1.0, r=2.0),
    Kalman(q=2.0, r=1.0),
    Kalman(q=1.0, r=2.0, variance=sys.float_info.max),
    Kalman(q=1.0, r=2.0, mean=1.0),
    MovingAverage(9),
    MovingAverage(10),
]


def test_conditions_that_differ_in_anything_have_different_keys() -> None:
    keys = [made(**changed).key for changed in CONDITIONS]
    assert len(set(keys)) == len(keys)


def test_settings_that_differ_in_anything_have_different_keys() -> None:
    keys = [Setting(estimator).key for estimator in ESTIMATORS]
    assert len(set(keys)) == len(keys)


def test_equal_contents_have_equal_keys() -> None:
    for changed in CONDITIONS:
        assert made(**changed).key == made(**changed).key
    for estimator in ESTIMATORS:
        assert Setting(dataclasses.replace(estimator)).key == Setting(estimator).key  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (EMA(0), EMA(0.0)),
        (EMA(0.9), EMA(np.float64(0.9))),
        (EMA(np.array([0.5, 0.9])), EMA(np.array((0.5, 0.9)))),
        (Kalman(q=1, r=2), Kalman(q=1.0, r=2.0, variance=np.inf)),
        (MovingAverage(9), MovingAverage(np.int64(9))),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_settings_that_are_equal_have_equal_keys(one: Estimator, other: Estimator) -> None:
    assert one == other
    assert Setting(one).key == Setting(other).key


def test_keys_are_the_same_in_another_process() -> None:
    script = (
        "from estimators import *; from experiments.cells import *; from experiments.compare import *\n"
        "from experiments.streams import GradientRatio\n"
        "print(Condition(every_metric, Parameters(), GradientRatio(steps=60), 1.7956, 0, 15).key)\n"
        "for own in (EMA(0.99), Kalman(q=1.0, r=2.0), MovingAverage(9)): print(Setting(own).key)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "12345"},
        capture_output=True,
        text=True,
        check=True,
    )
    here = [made().key, *(Setting(own).key for own in (EMA(0.99), Kalman(q=1.0, r=2.0), MovingAverage(9)))]
    assert ran.stdout.split() == here


def test_keys_follow_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    condition, setting = made().key, Setting(EMA(0.99)).key
    monkeypatch.setattr(cells, "_code", lambda *_: "other")
    assert made().key != condition
    assert Setting(EMA(0.99)).key != setting


def test_keys_of_a_recorded_log_follow_its_samples_and_not_its_path(tmp_path: Path) -> None:
    def key(name: str, last: str, **changed: Any) -> str:
        (tmp_path / name).write_text(f"x\n1\n2\n3\n\n5\n{last}\n")
        stream = Recorded(path=str(tmp_path / name), column="x", domain=Domain.ratio, **changed)
        return made(stream=stream, noise_variance=2.0).key

    plainly = key("one.csv", "6")
    assert key("other.csv", "6") == plainly
    assert key("one.csv", "6", noise_variance=2.0) == plainly
    assert key("one.csv", "6.000000000000001") != plainly
    assert key("one.csv", "6\n7") != plainly
    assert key("one.csv", "6", steps=5) != plainly


def test_a_noise_variance_counts_as_it_is_resolved() -> None:
    streams = [GradientRatio(steps=60, noise_variance=variance) for variance in (None, 1.7956)]
    assert len({made(stream=stream).key for stream in streams}) == 1
    assert made(stream=streams[0], noise_variance=2.0).key != made(stream=streams[1]).key


def test_contents_are_plain_json() -> None:
    for changed in CONDITIONS:
        content = made(**changed).content
        assert json.loads(json.dumps(content, allow_nan=False)) == content


def test_pickles_keep_keys() -> None:
    whole = chunk(made(), *ESTIMATORS)
    named = whole.condition.key, *(piece.setting.key for piece in whole.pieces)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(whole, protocol))
        assert again.condition.__dict__["key"] == named[0]
        assert tuple(piece.setting.__dict__["key"] for piece in again.pieces) == named[1:]
    fresh = pickle.loads(pickle.dumps(chunk(made(), *ESTIMATORS)))
    assert (fresh.condition.key, *(piece.setting.key for piece in fresh.pieces)) == named
    assert again.cells == whole.cells == 7 * len(ESTIMATORS)


# --- plain data ---------------------------------------------------------------------------------------------


class Colour(Enum):
    red = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1, 1),
        (1.0, 1.0),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (math.nan, "nan"),
        (np.float64(0.1), 0.1),
        (np.float64(np.inf), "inf"),
        (np.int32(7), 7),
        (np.array([[1.0, np.nan], [np.inf, 2.0]]), [[1.0, "nan"], ["inf", 2.0]]),
        (np.array(2.5), 2.5),
        ((1, [2.0, (math.inf,)]), [1, [2.0, ["inf"]]]),
        ({"a": {1: math.nan}}, {"a": {"1": "nan"}}),
        (Colour.red, "red"),
        (Other(), {"kind": "Other", "lags": [1, 2], "level": "inf"}),
        ({"in": [Other(lags=())]}, {"in": [{"kind": "Other", "lags": [], "level": "inf"}]}),
    ],
    ids=str,
)
def test_settings_become_plain_data(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)
    assert json.loads(json.dumps(found, allow_nan=False)) == expected


def test_plain_data_tell_values_apart() -> None:
    values: list[Any] = [
        None,
        True,
        False,
        0,
        1,
        1.0,
        0.0,
        math.inf,
        -math.inf,
        math.nan,
        "1",
        [],
        {},
        [1],
        [[1]],
    ]
    assert len({digest(plain(value)) for value in values}) == len(values)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_plain_numbers_are_exact(one: float, other: float) -> None:
    again = json.loads(json.dumps(plain(one), allow_nan=False))
    assert np.float64(again).tobytes() == np.float64(one).tobytes()
    assert (digest(plain(one)) == digest(plain(other))) == (repr(one) == repr(other))


def test_the_order_of_names_does_not_matter_to_a_digest() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digest(math.nan)


# --- measuring ----------------------------------------------------------------------------------------------


@functools.cache
def alone(own: Estimator, repetition: int) -> list[tuple[str, str, str, bytes]]:
    """What a repetition gives that is measured by itself."""
    cells._last_drawn.clear()
    return bits(every_metric(made(), own, [repetition]))


def test_one_bad_repetition_costs_no_other_cell() -> None:
    own = Kalman(q=0.01, r=1.7956)
    results = measured(chunk(made(measure=breaks_on_three), own))
    ((piece, series),) = results.measured
    assert piece == Piece(Setting(own), (0, 1, 2, 4, 5, 6))
    for index, repetition in enumerate(piece.repetitions):
        one = [dataclasses.replace(part, values=part.values[index : index + 1]) for part in series]
        assert bits(one) == alone(own, repetition)
    (failure,) = results.failures
    assert (failure.setting, failure.repetition) == (Setting(own), 3)
    assert failure.error == "ValueError: repetition 3 is broken"
    assert failure.traceback.startswith("Traceback (most recent call last)")
    assert "in breaks_on_three" in failure.traceback
    assert failure.traceback.rstrip().endswith("is broken")


def test_one_bad_setting_costs_no_other() -> None:
    estimators = EMA(0.9), Kalman(q=0.01, r=1.7956), MovingAverage(9)
    results = measured(chunk(made(measure=breaks_for_kalman), *estimators, repetitions=(2, 5)))
    assert [piece.setting.estimator for piece, _ in results.measured] == [estimators[0], estimators[2]]
    assert all(piece.repetitions == (2, 5) for piece, _ in results.measured)
    assert [(failure.setting.estimator, failure.repetition) for failure in results.failures] == [
        (estimators[1], 2),
        (estimators[1], 5),
    ]


def test_where_every_cell_fails_nothing_is_measured() -> None:
    results = measured(chunk(made(measure=breaks), EMA(0.9)))
    assert not results.measured
    assert [failure.repetition for failure in results.failures] == list(range(7))
    assert {failure.error for failure in results.failures} == {"ZeroDivisionError: of 1"}


@pytest.mark.parametrize(("measure", "error"), [(runs_out, MemoryError), (is_stopped, KeyboardInterrupt)])
def test_what_no_cell_is_to_blame_for_is_not_a_failure(measure: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        measured(chunk(made(measure=measure), EMA(0.9)))


def test_results_name_their_chunk_and_take_time() -> None:
    whole = chunk(made(), EMA(0.9), DebiasedEMA(0.9))
    results = measured(whole)
    assert results.chunk is whole
    assert results.seconds > 0.0
    assert [piece for piece, _ in results.measured] == list(whole.pieces)
    assert not results.failures


@pytest.mark.parametrize(
    "own",
    [
        EMA(0.9),
        EMA(0.9, initial=None),
        DebiasedEMA(0.9),
        Kalman(q=0.01, r=1.7956),
        Kalman(q=0.0, r=1.0, variance=4.0),
        MovingAverage(9),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "stream",
    [GradientRatio(steps=60), GradientRatio(steps=203, gap_rate=0.1), Step(steps=100, at=50)],
    ids=["plain", "gaps", "step"],
)
def test_values_are_the_same_bits_in_whatever_block_they_are_measured(own: Estimator, stream: Any) -> None:
    condition = made(stream=stream)
    whole = every_metric(condition, own, range(7))
    for block in ([0], [3], [6], [0, 1, 2, 3], [4, 5, 6], [1, 4], [6, 2]):
        part = every_metric(condition, own, block)
        taken = [dataclasses.replace(one, values=one.values[block]) for one in whole]
        assert bits(part) == bits(taken)


def test_one_draw_serves_the_estimators_that_follow_each_other_and_no_other_condition() -> None:
    one, other = made(), made(root_seed=1)
    for condition, repetitions in ((other, (0, 1)), (one, (0, 2)), (one, (1, 0)), (one, (0,))):
        first = one.trial(EMA(0.9), (0, 1))
        assert made().trial(MovingAverage(9), [0, 1]).drawn is first.drawn
        drawn = condition.trial(EMA(0.9), repetitions).drawn
        expected = condition.draw(repetitions)
        np.testing.assert_array_equal(drawn.samples, expected.samples)
        np.testing.assert_array_equal(drawn.level, expected.level)


# --- changed code -------------------------------------------------------------------------------------------


def test_a_chunk_named_by_the_code_that_is_here_passes() -> None:
    pickle.loads(pickle.dumps(chunk(made(), *ESTIMATORS))).check()


def test_a_condition_named_by_other_code_is_refused() -> None:
    whole = chunk(made(), EMA(0.9))
    whole.condition.__dict__["code"] = "0123456789abcdef"
    with pytest.raises(ChangedCodeError, match="code was changed"):
        pickle.loads(pickle.dumps(whole)).check()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_setting_named_by_other_code_is_refused(place: int) -> None:
    whole = chunk(made(), EMA(0.9), Kalman(q=1.0, r=1.0), EMA(0.5))
    whole.pieces[place].setting.__dict__["code"] = "0123456789abcdef"
    with pytest.raises(ChangedCodeError, match="code was changed"):
        whole.check()


def test_sources_that_change_after_the_cells_were_named_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = chunk(made(), EMA(0.9))
    assert whole.condition.key
    assert whole.pieces[0].setting.key
    whole.check()
    read = Path.read_bytes
    changed = ROOT / "estimators" / "_recursive.py"
    monkeypatch.setattr(
        Path, "read_bytes", lambda self: read(self) + (b"# changed\n" if self == changed else b"")
    )
    with pytest.raises(ChangedCodeError, match="code was changed"):
        whole.check()
