from __future__ import annotations

import datetime
import math
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage

ALL = [EMA(0.5), EMA(0.9, initial=None), DebiasedEMA(0.9), Kalman(0.1, 1.0), MovingAverage(3)]
each = pytest.mark.parametrize("estimator", ALL, ids=repr)
nan = math.nan


def samples_seen(x: Any) -> np.ndarray:
    """What an estimator reads in x: EMA(0) passes samples on, and a gap is where its gain is 0."""
    out = EMA(0.0).filter(x)
    return np.where(np.asarray(out.gain) == 0.0, np.nan, np.asarray(out.mean))


READ = {
    "list": ([1, 2.5, 3], [1, 2.5, 3]),
    "tuple": ((1, 2.5, 3), [1, 2.5, 3]),
    "range": (range(3), [0, 1, 2]),
    "None": ([1.0, None, 3], [1, nan, 3]),
    "NaN": ([1.0, nan, 3], [1, nan, 3]),
    "pandas.NA": ([1.0, pd.NA, 3], [1, nan, 3]),
    "masked constant": ([1.0, np.ma.masked, 3], [1, nan, 3]),
    "masked array": (np.ma.masked_greater(np.array([1.0, 9.0, 3.0]), 5), [1, nan, 3]),
    "masked ints": (np.ma.masked_equal(np.array([1, 9, 3]), 9), [1, nan, 3]),
    "masked array without a mask": (np.ma.array([1.0, 2.0]), [1, 2]),
    "Decimal": ([Decimal("1.5"), Decimal("NaN"), 2], [1.5, nan, 2]),
    "Fraction": ([Fraction(1, 3), None], [1 / 3, nan]),
    "bool": ([True, False], [1, 0]),
    "bool array": (np.array([True, False]), [1, 0]),
    "int8": (np.array([-128, 127], dtype=np.int8), [-128, 127]),
    "uint64": (np.array([2**63], dtype=np.uint64), [2.0**63]),
    "float16": (np.array([0.5, np.nan], dtype=np.float16), [0.5, nan]),
    "float32": (np.array([0.1], dtype=np.float32), [float(np.float32(0.1))]),
    "big endian": (np.array([1.0, 2.0], dtype=">f8"), [1, 2]),
    "object array": (np.array([1, None, Decimal(2), pd.NA], dtype=object), [1, nan, 2, nan]),
    "reversed view": (np.arange(3.0)[::-1], [2, 1, 0]),
    "read-only": (np.broadcast_to(np.float64(4.0), 3), [4, 4, 4]),
    "zero-dimensional entries": ([np.array(1.0), np.float32(2.0)], [1, 2]),
    "Series": (pd.Series([1.0, None, 3.0]), [1, nan, 3]),
    "Series of objects": (pd.Series([1, None, Decimal(3)], dtype=object), [1, nan, 3]),
    "Int64": (pd.Series([1, None, 3], dtype="Int64"), [1, nan, 3]),
    "Float64": (pd.Series([1, None, 3], dtype="Float64"), [1, nan, 3]),
    "boolean": (pd.Series([True, None, False], dtype="boolean"), [1, nan, 0]),
    "sparse": (pd.Series(pd.arrays.SparseArray([1.0, nan, 3.0])), [1, nan, 3]),
    "category of numbers": (pd.Series([1, 3, 1], dtype="category"), [1, 3, 1]),
    "Index": (pd.Index([1, 2, 3]), [1, 2, 3]),
    "buffer": (memoryview(np.array([1.0, 2.0])), [1, 2]),
    "empty": ([], []),
}


@pytest.mark.parametrize("name", READ)
def test_what_can_be_read(name: str) -> None:
    given, expected = READ[name]
    np.testing.assert_array_equal(samples_seen(given), expected)


@pytest.mark.parametrize("name", READ)
@each
def test_every_estimator_reads_alike_in_filter_and_update(estimator: Any, name: str) -> None:
    given, expected = READ[name]
    out = estimator.filter(given)
    np.testing.assert_array_equal(np.asarray(out.mean), estimator.filter(np.array(expected)).mean)
    state = estimator.init(0.0)
    for value in given:
        state = estimator.update(state, value)
    if expected:
        np.testing.assert_allclose(state.mean, np.asarray(out.mean)[-1], rtol=1e-14)


@pytest.mark.parametrize(
    "missing", [None, nan, np.nan, pd.NA, np.ma.masked, np.float32("nan"), Decimal("NaN")]
)
@each
def test_one_missing_sample(estimator: Any, missing: Any) -> None:
    before = estimator.update(estimator.init(0.0), 2.0)
    after = estimator.update(before, missing)
    for field, expected in zip(after, estimator.update(before, nan), strict=True):
        np.testing.assert_array_equal(field, expected)
    assert after.mean == before.mean
    tracker = estimator.tracker()
    tracker.update(2.0)
    assert tracker.update(missing) == before.mean


class Opaque:
    def __repr__(self) -> str:
        return "Opaque()\nof two lines"


def numbers() -> Iterator[float]:
    yield 1.0


REFUSED = {
    "text": ("abc", "x holds text"),
    "text in a list": ([1.0, "2"], "x holds text"),
    "text in an object array": (np.array([1.0, "2"], dtype=object), "x holds text ('2')"),
    "bytes": (b"12", "x holds text"),
    "bytearrays": (np.array([bytearray(b"1"), None], dtype=object), "x holds bytearray"),
    "numpy text": (np.array(["1", "2"]), "x holds text"),
    "variable-width text": (np.array(["1", "2"], dtype=np.dtypes.StringDType()), "x holds text"),
    "pandas text": (pd.Series(["1", "2"]), "x holds text"),
    "pandas string": (pd.Series(["1", None], dtype="string"), "x holds text"),
    "category of text": (pd.Series(["a", "b"], dtype="category"), "x holds text"),
    "one text column": (pd.DataFrame({"a": [1.0], "b": ["x"]}), "x holds text ('x')"),
    "complex": ([1j, 2.0], "x holds complex numbers"),
    "complex object": (np.array([1j, None], dtype=object), "x holds complex"),
    "complex Series": (pd.Series([1j]), "x holds complex numbers"),
    "numpy dates": (np.array(["2020-01-01"], dtype="M8[D]"), "x holds dates"),
    "numpy spans": (np.array([1], dtype="m8[s]"), "x holds time spans"),
    "pandas dates": (pd.Series(pd.date_range("2020", periods=2)), "x holds dates"),
    "dates with a zone": (pd.Series(pd.date_range("2020", periods=2, tz="UTC")), "x holds Timestamp"),
    "pandas spans": (pd.Series(pd.to_timedelta([1, 2])), "x holds time spans"),
    "date objects": ([datetime.date(2020, 1, 1)], "x holds date"),
    "NaT": (np.array([1.0, pd.NaT], dtype=object), "x holds NaTType"),
    "records": (np.array([(1.0, 2.0)], dtype=[("a", "f8"), ("b", "f8")]), "x holds"),
    "generator": (numbers(), "x holds generator"),
    "set": ({1.0}, "x holds set"),
    "dict": ({"a": 1.0}, "x holds dict"),
    "objects": ([Opaque()], "x holds Opaque"),
    "signalling NaN": ([Decimal("sNaN")], "x holds Decimal"),
    "lists in an object array": (np.array([[1.0, 2.0], None], dtype=object), "x holds list"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("estimator", [EMA(0.5), MovingAverage(3)], ids=repr)
def test_what_is_no_number_gets_one_line(estimator: Any, name: str) -> None:
    given, message = REFUSED[name]
    for call in (estimator.filter, lambda x: estimator.update(estimator.init(0.0), x), estimator.init):
        with pytest.raises(TypeError) as caught:
            call(given)
        assert str(caught.value).startswith(message)
        assert "samples must be real numbers" in str(caught.value)


def test_messages_are_one_line() -> None:
    for given, _ in REFUSED.values():
        with pytest.raises(TypeError) as caught:
            EMA(0.5).filter(given)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0, 2.0], [3.0]], "x is ragged: every row must have the same number of channels"),
        (3.0, "x=3.0 has no time axis; pass a sequence of samples, or use update for one sample"),
        (np.float64(3.0), "has no time axis"),
        (np.array(3.0), "has no time axis"),
        (None, "x=None has no time axis"),
    ],
)
def test_streams_without_a_shape(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match="x") as caught:
        EMA(0.5).filter(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "place", "seen"),
    [
        ([1.0, math.inf, 2.0], "at index 1", [1.0, nan, 2.0]),
        ([[1.0, 2.0], [3.0, -math.inf]], "at index (1, 1)", [[1.0, 2.0], [3.0, nan]]),
        ([1.0, 10**400], "at index 1", [1.0, nan]),
        ([1.0, Fraction(-(10**400))], "at index 1", [1.0, nan]),
        ([Decimal("1e400"), None], "at index 0", [nan, nan]),
        (pd.Series([1.0, math.inf], index=["a", "b"]), "at index 1", [1.0, nan]),
        (np.ma.array([1.0, math.inf]), "at index 1", [1.0, nan]),
    ],
    ids=["float", "channels", "int", "Fraction", "Decimal", "Series", "masked array"],
)
@each
def test_infinity(estimator: Any, given: Any, place: str, seen: Any) -> None:
    with pytest.raises(ValueError, match="x holds infinity") as caught:
        estimator.filter(given)
    assert place in str(caught.value)
    assert "on_infinite='missing'" in str(caught.value)
    out = estimator.filter(given, on_infinite="missing")
    np.testing.assert_array_equal(np.asarray(out.mean), estimator.filter(seen).mean)


@each
def test_one_infinite_sample(estimator: Any) -> None:
    state = estimator.update(estimator.init(0.0), 1.0)
    for sample in (math.inf, -math.inf, np.inf, np.float32("inf")):
        with pytest.raises(ValueError, match="x holds infinity; pass finite samples"):
            estimator.update(state, sample)
        assert estimator.update(state, sample, on_infinite="missing").mean == state.mean
    tracker = estimator.tracker(on_infinite="missing")
    assert tracker.update(1.0) == tracker.update(math.inf)
    with pytest.raises(ValueError, match="on_infinite='skip' is not valid; it must be 'raise' or 'missing'"):
        estimator.filter([1.0], on_infinite="skip")


def test_a_masked_infinity_is_only_missing() -> None:
    x = np.ma.masked_invalid([1.0, math.inf, 3.0])
    np.testing.assert_array_equal(samples_seen(x), [1, nan, 3])


@each
def test_series_come_back_as_series(estimator: Any) -> None:
    x = pd.Series([1.0, None, 3.0], index=pd.date_range("2020", periods=3), name="ratio")
    out = estimator.filter(x)
    for values in (out.mean, out.gain, out.innovation, out.noise_gain):
        assert isinstance(values, pd.Series)
        assert values.name == "ratio"
        pd.testing.assert_index_equal(values.index, x.index)
    np.testing.assert_array_equal(out.mean, estimator.filter(x.to_numpy()).mean)
    assert isinstance(out.state.mean, float)


@each
def test_frames_come_back_as_frames(estimator: Any) -> None:
    x = pd.DataFrame({"a": [1.0, None, 3.0], "b": pd.array([1, 2, None], dtype="Int64")}, index=[7, 8, 9])
    out = estimator.filter(x)
    assert isinstance(out.mean, pd.DataFrame)
    assert list(out.mean.columns) == ["a", "b"]
    assert list(out.mean.index) == [7, 8, 9]
    for name in x:
        alone = estimator.filter(x[name])
        pd.testing.assert_series_equal(out.mean[name], alone.mean)
    assert out.mean.dtypes.eq(np.float64).all()
    assert isinstance(out.state.mean, np.ndarray)


def test_pandas_with_more_channels_than_columns() -> None:
    series = pd.Series([1.0, 2.0], index=["x", "y"], name="loss")
    out = EMA([0.1, 0.5, 0.9]).filter(series)
    assert out.mean.shape == (2, 3)
    assert list(out.mean.index) == ["x", "y"]
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    deep = EMA([[0.1], [0.5], [0.9]]).filter(frame)
    assert isinstance(deep.mean, np.ndarray)  # pandas has no third axis
    assert deep.mean.shape == (2, 3, 2)


def test_empty_pandas() -> None:
    assert EMA(0.5).filter(pd.Series([], dtype=float)).mean.shape == (0,)
    assert EMA(0.5).filter(pd.DataFrame(index=[1, 2])).mean.shape == (2, 0)
    assert EMA(0.5).filter(pd.DataFrame({"a": []}, dtype=float)).mean.shape == (0, 1)


def test_a_duplicated_index_and_duplicated_columns() -> None:
    x = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["a", "a"], index=[0, 0])
    out = EMA(0.0).filter(x)
    pd.testing.assert_frame_equal(out.mean, x)


@each
def test_a_stream_is_not_written_to(estimator: Any) -> None:
    x = np.array([1.0, np.nan, np.inf, 4.0])
    kept = x.copy()
    estimator.filter(x, on_infinite="missing")
    np.testing.assert_array_equal(x, kept)
    clean = np.arange(6.0).reshape(3, 2)
    clean.flags.writeable = False
    estimator.filter(clean)
    estimator.filter(clean[::-1, ::-1])


def test_tensors_come_back_as_tensors_or_get_one_line() -> None:
    torch = pytest.importorskip("torch")
    given = torch.tensor([1.0, torch.nan, 3.0, torch.inf])
    mean = EMA(0.5).filter(given).mean
    assert mean.dtype == torch.float32
    assert mean.tolist() == [0.5, 0.5, 1.75, 1.75]
    with pytest.raises(
        TypeError, match=r"x requires a gradient.*x\.detach\(\).*estimators\.torch\.filter"
    ) as caught:
        EMA(0.5).filter(torch.nn.Parameter(torch.ones(3)))
    assert "\n" not in str(caught.value)
