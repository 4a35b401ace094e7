"""Every format and every way a log can be wrong, seen from `read_series` alone."""

import gzip
import os
import struct
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.readers import ReadError, read_series

NAN, INF = np.nan, np.inf


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def save(path: Path, array: Any) -> Path:
    np.save(path, array, allow_pickle=True)
    return path


def parquet(path: Path, names: Iterable[str], columns: Iterable[Any]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow, of kalmean[parquet], is not installed")
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.Table.from_arrays([pa.array(c) for c in columns], names=list(names)), path)
    return path


def refused(path: object, *expected: str, **settings: Any) -> str:
    """The message of the refusal: one line that names what is in `expected`."""
    with pytest.raises(ReadError) as caught:
        read_series(path, **settings)  # type: ignore[arg-type]
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("stream.")
    assert len(message) < 1000
    for part in (*expected, "valid: "):
        assert part in message
    return message


def same(actual: np.ndarray, expected: Iterable[float]) -> None:
    assert actual.dtype == np.float64
    assert actual.ndim == 1
    np.testing.assert_array_equal(actual, np.array(list(expected), dtype=np.float64), strict=True)


# CSV and its kin


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv", ".txt", ".csv.gz", ".txt.gz"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_of_any_delimiter(tmp_path: Path, suffix: str, delimiter: str) -> None:
    rows = [["step", "loss", "note"], ["0", "0.5", "a"], ["1", "-1e-3", "b"]]
    path = write(tmp_path / f"log{suffix}", "".join(delimiter.join(row) + "\n" for row in rows))
    same(read_series(path, "loss"), [0.5, -1e-3])
    same(read_series(str(path)), [0.5, -1e-3])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
@given(values=st.lists(st.floats(), min_size=1), before=st.sampled_from(["", "7,"]))
def test_csv_round_trip_is_bit_identical(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, values: list[float], before: str
) -> None:
    header = "step,x\n" if before else "x\n"
    path = tmp_path_factory.mktemp("log") / f"log{suffix}"
    write(path, header + "".join(f"{before}{value!r}\n" for value in values))
    if all(np.isnan(values)):
        refused(path, "'x'", column="x")
        return
    expected = [value if value == value else NAN for value in values]  # a NaN has one spelling in text
    assert read_series(path, "x").tobytes() == np.array(expected).tobytes()


def test_csv_missing_infinite_and_truth_values(tmp_path: Path) -> None:
    cells = [
        "",
        " ",
        "NaN",
        "nan",
        "NA",
        "N/A",
        "null",
        "NULL",
        "None",
        "inf",
        "-Infinity",
        " 2.5 ",
        "True",
        "false",
    ]
    path = write(tmp_path / "log.csv", "step,x\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    same(read_series(path), [NAN] * 9 + [INF, -INF, 2.5, 1.0, 0.0])


def test_csv_short_row_is_missing_at_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step,x,y\n0,1,2\n1,3\n")
    same(read_series(path, "y"), [2, NAN])


def test_csv_blank_line_is_missing_only_in_a_single_column(tmp_path: Path) -> None:
    same(read_series(write(tmp_path / "one.csv", "x\n1\n\n3\n\n\n")), [1, NAN, 3])
    same(read_series(write(tmp_path / "two.csv", "step,x\n0,1\n\n1,3\n\n")), [1, 3])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_byte_order_mark_line_ends_and_quotes(tmp_path: Path, end: str) -> None:
    lines = ['step;"norm, of layer ;1"', '0;"1.5"', "1;2"]
    path = write(tmp_path / "log.csv", b"\xef\xbb\xbf" + end.join(lines).encode())
    same(read_series(path, "norm, of layer ;1"), [1.5, 2])
    same(read_series(path, "step"), [0, 1])


def test_csv_trailing_delimiter(tmp_path: Path) -> None:
    same(read_series(write(tmp_path / "rows.csv", "step,x\n0,1,\n1,2,,\n"), "x"), [1, 2])
    same(read_series(write(tmp_path / "all.csv", "step,x,,\n0,1,,\n"), "x"), [1])


def test_column_names_match_exactly_then_stripped(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step, loss ,loss,ratio \n0,1,2,3\n")
    same(read_series(path, "loss"), [2])
    same(read_series(path, " loss "), [1])
    same(read_series(path, "ratio"), [3])
    same(read_series(path, "  ratio"), [3])
    refused(path, "stream.column='  loss'", "matches 2 columns", column="  loss")


@pytest.mark.parametrize(
    "header", ["step", "Epoch", "global_step", "trainer/global_step", "Wall time", "", "Unnamed: 0"]
)
def test_leading_counters_do_not_count_as_a_choice(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "log.csv", f"{header},index,note,loss\n0,5,a,0.5\n1,6,b,0.25\n")
    same(read_series(path), [0.5, 0.25])


def test_a_counter_alone_is_the_series(tmp_path: Path) -> None:
    same(read_series(write(tmp_path / "log.csv", "time\n0.5\n0.25\n")), [0.5, 0.25])


def test_without_a_name_the_choice_must_be_single(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step,loss,note,ratio\n0,1,a,2\n")
    refused(path, "stream.column: not set, and", "has 2 columns of numbers", "'loss'", "'ratio'")
    path = write(tmp_path / "later.csv", "loss,step\n1,0\n")
    refused(path, "stream.column: ", "'loss'", "'step'")
    path = write(tmp_path / "text.csv", "step,note,kind\n0,a,b\n")
    refused(path, "stream.column: not set, and", "has 0 columns of numbers", "'note'")
    path = write(tmp_path / "spoilt.csv", "step,loss,ratio\n0,1,2\n1,oops,3\n")
    refused(path, "stream.column: not set, and", "has 2 columns of numbers", "'loss'", "'ratio'")
    same(read_series(write(tmp_path / "void.csv", "step,loss,void\n0,1,\n1,2,\n")), [1, 2])
    path = write(tmp_path / "single.csv", "step,loss\n0,1\n1,oops\n")
    refused(path, "stream.column: ", "'loss'", "'oops' in data row 2")


@pytest.mark.parametrize(
    "cell",
    [
        "oops",
        "1,000",
        "1_000",
        "1 000",
        "2024-01-02",
        "12:30",
        "1+2j",
        "0x10",
        "--",
        "1e5e5",
        "a\nb",
        "x" * 9999,
    ],
)
def test_csv_text_among_numbers_is_located(tmp_path: Path, cell: str) -> None:
    path = write(tmp_path / "log.csv", f'step,loss\n0,1.5\n\n1,\n2,"{cell}"\n3,worse\n')
    shown = repr(cell) if len(cell) < 100 else "xxx"
    refused(path, "stream.column='loss'", shown, "data row 3", "'step', 'loss'", "log.csv", column="loss")
    refused(path, "stream.numerator='loss'", "data row 3", numerator="loss", denominator="step")
    refused(path, "stream.denominator='loss'", "data row 3", numerator="step", denominator="loss")


def test_csv_decimal_comma_is_text(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step;loss\n0;0,5\n")
    refused(path, "'0,5' in data row 1", column="loss")


def test_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step,loss,grad_norm\n0,1,2\n")
    refused(path, "stream.column='los'", "did you mean 'loss'?", "'step', 'loss', 'grad_norm'", column="los")
    refused(path, "stream.numerator='x'", "'loss'", numerator="x", denominator="loss")
    refused(path, "stream.denominator='gradnorm'", "'grad_norm'", numerator="loss", denominator="gradnorm")
    refused(path, "stream.column=''", "'loss'", column="")


def test_long_lists_of_columns_are_cut(tmp_path: Path) -> None:
    names = [f"layer{i}/{'weight' * 50}" for i in range(500)]
    path = write(tmp_path / "log.csv", ",".join(names) + "\n" + ",".join("1" * 500) + "\n")
    with pytest.raises(ReadError) as caught:
        read_series(path, "bias")
    assert "layer0/" in str(caught.value)
    assert len(str(caught.value)) < 2500


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("\n\n", "no column name"),
        ("step,loss\n", "holds no data (columns: ['step', 'loss'])"),
        ("loss", "holds no data (columns: ['loss'])"),
        ("0.5\n0.25\n", "no column name in its first line, but ['0.5']"),
        ("loss,loss\n1,2\n", "several columns named ['loss']"),
        ("step,loss\n0,1\n1,2,3\n", "3 cells in data row 2 under 2 names"),
        ('step,loss\n0,"1\n', "unexpected end of data"),
        (b"step,loss\n0,\xff\n", "not UTF-8 text (byte 12)"),
        ("step,loss\n0,1\n".encode("utf-16"), "not UTF-8 text"),
        (bytes(range(256)) * 4, "not UTF-8 text"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".txt.gz"])
def test_csv_that_cannot_be_read(tmp_path: Path, text: str | bytes, complaint: str, suffix: str) -> None:
    path = write(tmp_path / f"log{suffix}", text)
    if not text and suffix == ".txt.gz":
        complaint = "no column name"
    refused(path, f"stream.path={str(path)!r}", complaint)
    refused(path, f"stream.path={str(path)!r}", complaint, column="loss")


@pytest.mark.parametrize(
    "damage", [b"loss\n1\n", gzip.compress(b"loss\n" + b"1\n" * 99)[:-12]], ids=["plain text", "cut off"]
)
def test_damaged_gzip(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(damage)
    refused(path, f"stream.path={str(path)!r}", "cannot be read", ".csv")


# Ratios and the settings


def test_ratio_over_zero_is_missing(tmp_path: Path) -> None:
    rows = [
        "1,2",
        "1,0",
        "0,0",
        "-1,-0.0",
        ",2",
        "2,",
        "inf,2",
        "3,inf",
        "inf,inf",
        "inf,0",
        "1e308,1e-308",
        "5,4",
    ]
    path = write(tmp_path / "log.csv", "g,w\n" + "\n".join(rows))
    ratio = read_series(path, numerator="g", denominator="w")
    same(ratio, [0.5, NAN, NAN, NAN, NAN, NAN, INF, 0, NAN, NAN, INF, 1.25])


def test_ratio_without_a_value(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "g,w,z\n1,0,1\n,2,1\n")
    refused(path, "stream.denominator='w'", "stream.numerator='g'", "'z'", numerator="g", denominator="w")


@pytest.mark.parametrize(
    "settings",
    [
        {"numerator": "a"},
        {"denominator": "a"},
        {"column": "b", "numerator": "a"},
        {"column": "b", "denominator": "a"},
        {"column": "b", "numerator": "a", "denominator": "c"},
    ],
)
def test_settings_that_name_no_single_series(settings: dict[str, str]) -> None:
    given = [f"stream.{setting}={name!r}" for setting, name in settings.items()]
    refused(
        "unseen.csv", *given, "stream.column alone", "stream.numerator and stream.denominator", **settings
    )


def test_a_series_of_missing_values_only(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step,loss,x\n0,NaN,1\n1,,2\n")
    refused(path, "stream.column='loss'", "only missing", "'x'", column="loss")
    refused(path, "stream.numerator='loss'", "only missing", "'x'", numerator="loss", denominator="x")
    refused(path, "stream.denominator='loss'", "only missing", "'x'", numerator="x", denominator="loss")


# Paths


def test_path_that_does_not_exist(tmp_path: Path) -> None:
    write(tmp_path / "train_log.csv", "x\n1\n")
    path = tmp_path / "trainlog.csv"
    refused(path, f"stream.path={str(path)!r}", "does not exist", "did you mean 'train_log.csv'?", ".parquet")
    path = tmp_path / "nowhere" / "log.csv"
    refused(path, f"stream.path={str(path)!r}", f"nor does its folder {str(tmp_path / 'nowhere')!r}")
    refused(str(tmp_path / "a\nb.csv"), "does not exist")


@pytest.mark.parametrize("path", ["", None])
def test_no_path(path: object) -> None:
    refused(path, f"stream.path={path!r}", ".csv")


@pytest.mark.parametrize(
    "name", ["log.json", "log", "log.csv.bz2", "log.npz", "log.npy.gz", "events.out.tfevents.1"]
)
def test_unknown_extension(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "x\n1\n")
    refused(
        path, f"stream.path={str(path)!r}", "unknown extension", ".csv", ".npy", ".parquet", "TensorBoard"
    )


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.csv.gz", "log.npy", "log.parquet"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(tmp_path / name, str(tmp_path / name), "is an empty file")


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.npy"])
def test_unreadable_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / name, "x\n1\n")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def deny(self: Path, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "open", deny)
        monkeypatch.setattr(Path, "read_bytes", deny)
    refused(path, f"stream.path={str(path)!r}", "Permission denied")


@pytest.mark.parametrize("name", ["log.npy", "log.parquet"])
@pytest.mark.parametrize(
    "data", [b"x\n1\n", bytes(range(256)) * 9, b"\x93NUMPY", b"PAR1" * 9, b"\x93NUMPY\x01\x00\x05\x00{'a':"]
)
def test_damaged_binary_file(tmp_path: Path, name: str, data: bytes) -> None:
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="pyarrow, of kalmean[parquet], is not installed")
    path = write(tmp_path / name, data)
    refused(path, f"stream.path={str(path)!r}", "cannot be read")


# NPY


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", ">f8", "i8", "u1", "?", "g"])
def test_npy_of_one_dimension(tmp_path: Path, dtype: str) -> None:
    path = save(tmp_path / "log.npy", np.array([0, 1, 1], dtype=dtype))
    same(read_series(path), [0, 1, 1])
    same(read_series(path, "0"), [0, 1, 1])
    refused(path, "stream.column='1'", "'0'", column="1")


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_two_dimensions(tmp_path: Path, order: Any) -> None:
    path = save(tmp_path / "log.npy", np.array([[1.0, 2.0, NAN], [3.0, 0.0, INF]], order=order))
    same(read_series(path, "0"), [1, 3])
    same(read_series(path, 2), [NAN, INF])  # type: ignore[arg-type]
    same(read_series(path, numerator="0", denominator="1"), [0.5, NAN])
    refused(path, "stream.column='3'", "'0', '1', '2'", column="3")
    refused(path, "stream.column: not set, and", "has 3 columns of numbers", "'0', '1', '2'")
    same(read_series(save(tmp_path / "thin.npy", np.ones((2, 1)))), [1, 1])


def test_npy_of_fields(tmp_path: Path) -> None:
    dtype = [
        ("step", "i8"),
        ("loss", "f4"),
        ("note", "U5"),
        ("when", "M8[s]"),
        ("pair", "f8", 2),
        ("c", "c16"),
    ]
    array = np.zeros(2, dtype=dtype)
    array["loss"], array["note"] = [0.5, NAN], "hello"
    path = save(tmp_path / "log.npy", array)
    same(read_series(path), [0.5, NAN])
    same(read_series(path, "step"), [0, 0])
    refused(path, "stream.column='note'", "'hello' in data row 1", "'loss'", column="note")
    refused(path, "stream.column='when'", "'1970-01-01T00:00:00' in data row 1", column="when")
    refused(path, "stream.column='pair'", "'[0. 0.]' in data row 1", column="pair")
    refused(path, "stream.column='c'", "'0j' in data row 1", column="c")
    refused(path, "stream.column='lost'", "did you mean 'loss'?", column="lost")


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.array([1 + 2j]), "'(1+2j)' in data row 1"),
        (np.array(["1.5", "b"]), "'b' in data row 2"),
        (np.array(["2024-01-01"], dtype="M8[D]"), "'2024-01-01' in data row 1"),
        (np.array([NAN, NAN]), "only missing values"),
    ],
)
def test_npy_of_no_numbers(tmp_path: Path, array: Any, complaint: str) -> None:
    refused(save(tmp_path / "log.npy", array), "stream.column: ", "log.npy", complaint)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.array([1.0, None], dtype=object), "allow_pickle"),
        (np.float64(1.0), "shape ()"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2)"),
        (np.ones((2, 2), dtype=[("a", "f8")]), "shape (2, 2)"),
        (np.ones(0), "holds no data (columns: ['0'])"),
        (np.ones((0, 2)), "holds no data (columns: ['0', '1'])"),
        (np.ones((2, 0)), "holds no data (columns: [])"),
    ],
)
def test_npy_of_no_series(tmp_path: Path, array: Any, complaint: str) -> None:
    path = save(tmp_path / "log.npy", array)
    refused(path, f"stream.path={str(path)!r}", complaint)


def test_truncated_npy(tmp_path: Path) -> None:
    path = save(tmp_path / "log.npy", np.ones(99))
    path.write_bytes(path.read_bytes()[:-8])
    refused(path, f"stream.path={str(path)!r}", "cannot be read")


# Parquet


def test_parquet_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow, of kalmean[parquet], is not installed")
    from decimal import Decimal

    columns = {
        "step": [0, 1, 2],
        "loss": [0.5, None, NAN],
        "loss.mean": [1.0, 2.0, 3.0],
        "count": [2**40, None, 1],
        "done": [True, None, False],
        "price": pa.array([Decimal("1.25"), None, Decimal("2")]),
        "half": pa.array(np.array([0.5, 1, INF], dtype=np.float16)),
        "kind": pa.array([1.5, 2.5, 1.5]).dictionary_encode(),
        "empty": pa.nulls(3),
        "note": [None, "warm-up", "run"],
        "when": [datetime(2024, 1, 2)] * 3,
        "pair": [[1.0, 2.0]] * 3,
        " odd ": [7, 8, 9],
    }
    path = parquet(tmp_path / "log.parquet", columns.keys(), columns.values())
    same(read_series(path, "loss"), [0.5, NAN, NAN])
    same(read_series(path, "loss.mean"), [1, 2, 3])
    same(read_series(path, "count"), [2**40, NAN, 1])
    same(read_series(path, "done"), [1, NAN, 0])
    same(read_series(path, "price"), [1.25, NAN, 2])
    same(read_series(path, "half"), [0.5, 1, INF])
    same(read_series(path, "kind"), [1.5, 2.5, 1.5])
    same(read_series(path, "odd"), [7, 8, 9])
    same(read_series(path, numerator="loss.mean", denominator="step"), [NAN, 2, 1.5])
    refused(path, "stream.column='empty'", "only missing values", "'loss'", column="empty")
    refused(path, "stream.column='note'", "'warm-up' in data row 2", "'loss'", column="note")
    refused(path, "stream.column='when'", "2024-01-02", "data row 1", column="when")
    refused(path, "stream.column='pair'", "data row 1", column="pair")
    refused(path, "stream.column='losses'", "did you mean 'loss'?", "'loss.mean'", column="losses")
    refused(path, "stream.column: ", "'loss'")


def test_parquet_with_one_series(tmp_path: Path) -> None:
    names = ["step", "loss", "note"]
    same(
        read_series(parquet(tmp_path / "log.parquet", names, [[0, 1], [0.5, 0.25], ["a", "b"]])), [0.5, 0.25]
    )
    refused(
        parquet(tmp_path / "none.parquet", names, [[], [], []]), "stream.path=", "holds no data", "'loss'"
    )
    refused(parquet(tmp_path / "bare.parquet", [], []), "stream.path=", "holds no data (columns: [])")
    refused(
        parquet(tmp_path / "twice.parquet", ["a", "a"], [[1], [2]]), "stream.path=", "named ['a']", column="a"
    )


def test_damaged_parquet(tmp_path: Path) -> None:
    path = parquet(tmp_path / "log.parquet", ["loss"], [np.arange(999.0)])
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    refused(path, f"stream.path={str(path)!r}", "cannot be read", column="loss")


# TensorBoard

Scalar = tuple[str, int, float]


def log_scalars(folder: Path, events: Iterable[Scalar], tensors: bool = False, suffix: str = "") -> Path:
    pytest.importorskip("tensorboard", reason="tensorboard, of kalmean[tensorboard], is not installed")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    writer = EventFileWriter(str(folder), filename_suffix=suffix)
    for tag, step, value in events:
        plain = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(Event(step=step, summary=scalar_pb(tag, value) if tensors else plain))
    writer.close()
    return folder


@pytest.mark.parametrize("tensors", [False, True], ids=["simple", "tensor"])
def test_tensorboard_scalars(tmp_path: Path, tensors: bool) -> None:
    events = [
        ("loss", 2, 0.25),
        ("loss", 0, 1.0),
        ("norm", 0, 4.0),
        ("loss", 1, NAN),
        ("loss", 3, INF),
        ("norm", 2, 0.5),
    ]
    log_scalars(tmp_path, events, tensors)
    same(read_series(tmp_path, "loss"), [1, NAN, 0.25, INF])
    same(read_series(tmp_path, "norm"), [4, 0.5])
    same(read_series(tmp_path, numerator="loss", denominator="norm"), [0.25, 0.5])
    refused(tmp_path, "stream.column='lost'", "did you mean 'loss'?", "'norm'", column="lost")
    refused(tmp_path, "stream.column: not set, and", "has 2 columns of numbers", "'loss'", "'norm'")


@pytest.mark.parametrize("tensors", [False, True], ids=["simple", "tensor"])
def test_tensorboard_keeps_every_event(tmp_path: Path, tensors: bool) -> None:
    values = np.arange(10_500)
    log_scalars(tmp_path, [("loss", int(value), float(value)) for value in values], tensors)
    same(read_series(tmp_path), values)


def test_tensorboard_joins_its_files_and_pairs_repeated_steps(tmp_path: Path) -> None:
    log_scalars(tmp_path, [("g", 0, 1.0), ("w", 0, 2.0), ("g", 1, 3.0), ("w", 1, 4.0)], suffix=".1")
    log_scalars(tmp_path, [("g", 1, 9.0), ("w", 1, 2.0), ("g", 2, 7.0)], tensors=False, suffix=".2")
    same(read_series(tmp_path, "g"), [1, 3, 9, 7])
    same(read_series(tmp_path, numerator="g", denominator="w"), [0.5, 0.75, 4.5])


def test_tensorboard_tags_without_a_common_step(tmp_path: Path) -> None:
    log_scalars(tmp_path, [("g", 0, 1.0), ("w", 1, 2.0)])
    refused(tmp_path, "stream.denominator='w'", "absent", "'g'", numerator="g", denominator="w")


def test_tensorboard_of_missing_values(tmp_path: Path) -> None:
    log_scalars(tmp_path, [("g", 0, NAN), ("w", 1, 2.0)])
    refused(tmp_path, "stream.column='g'", "only missing", "'w'", column="g")


def test_tensorboard_cut_off_in_the_middle_keeps_what_is_whole(tmp_path: Path) -> None:
    log_scalars(tmp_path, [("loss", step, float(step)) for step in range(9)])
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    same(read_series(tmp_path), range(8))


def test_folder_without_events(tmp_path: Path) -> None:
    refused(
        tmp_path,
        f"stream.path={str(tmp_path)!r}",
        "without TensorBoard event files",
        "TensorBoard log folder",
    )
    inner = tmp_path / "version_0"
    inner.mkdir()
    (inner / "events.out.tfevents.1.host").touch()
    refused(tmp_path, "without TensorBoard event files", repr(str(inner)))


@pytest.mark.parametrize("data", [b"", b"garbage" * 20, struct.pack("<QI", 1 << 40, 0) * 4])
def test_tensorboard_without_scalars(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard, of kalmean[tensorboard], is not installed")
    (tmp_path / "events.out.tfevents.1.host").write_bytes(data)
    refused(tmp_path, f"stream.path={str(tmp_path)!r}", "holds no data (columns: [])")


# Any file at all


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.npy", "log.parquet"])
@given(data=st.binary() | st.text(alphabet='x,;\n"1.e-\0 \u2028').map(str.encode))
def test_any_file_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    path = write(tmp_path_factory.mktemp("log") / name, data)
    try:
        same(series := read_series(path), series)
    except ReadError:
        refused(path)


# Optional packages


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    path = write(tmp_path / "log.parquet", "PAR1")
    refused(path, f"stream.path={str(path)!r}", "pip install 'kalmean[parquet]'", ".csv")


def test_tensorboard_without_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorboard", "tensorboard.backend.event_processing.event_accumulator"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "events.out.tfevents.1.host").touch()
    refused(tmp_path, f"stream.path={str(tmp_path)!r}", "pip install 'kalmean[tensorboard]'", ".csv")


def test_csv_and_npy_need_no_optional_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pandas", "pyarrow", "tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    same(read_series(write(tmp_path / "log.csv", "x\n1\n")), [1])
    same(read_series(save(tmp_path / "log.npy", np.ones(2))), [1, 1])


# JSON lines


@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson", "log.jsonl.gz", "LOG.JSONL"])
def test_json_lines(name: str, tmp_path: Path) -> None:
    lines = '{"step": 0, "loss": 1.5, "lr": 1e-3}\n\n{"step": 1, "loss": null}\n'
    path = write(tmp_path / name, lines + '{"step": 2, "loss": NaN, "lr": 2}\n{"step": 3, "loss": "2.5"}\n')
    same(read_series(path, "loss"), [1.5, NAN, NAN, 2.5])
    same(read_series(path, "lr"), [1e-3, NAN, 2, NAN])  # a key that is written now and then
    same(read_series(path, numerator="loss", denominator="lr"), [1500, NAN, NAN, NAN])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"loss": 1}\n{"loss": 2', "in line 2, which is no JSON;"),
        ("1\n2\n", "'1' in line 1, which is no JSON object"),
        ('[{"loss": 1}]', "in line 1, which is no JSON object"),
        ("{}\n{}\n", "holds no data"),
    ],
)
def test_what_are_no_json_lines(text: str, complaint: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "log.jsonl", text), "stream.path=", complaint)


def test_a_nested_value_is_no_number(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", '{"loss": {"train": 1}}\n')
    refused(path, "stream.column='loss'", "in data row 1, which is no number", column="loss")


# What a message says of the usual mistakes


def test_decimals_behind_a_comma_are_told_and_not_guessed(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "step;loss\n0;1,5\n1;2,5\n")
    told = "its decimals stand behind a comma, which must be a point"
    refused(path, told)
    refused(path, told, column="loss")
    assert told not in refused(write(tmp_path / "text.csv", "step,loss\n0,abc\n"), column="loss")


def test_a_comment_above_the_names_is_told_by_what_is_below(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "# my run\nstep,loss\n0,1\n")
    refused(path, "has 2 cells in data row 1 under 1 name in the first line")
