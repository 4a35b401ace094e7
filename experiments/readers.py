"""Read one numeric series from a recorded training log: CSV, JSON lines, NPY, Parquet or TensorBoard."""

import csv
import difflib
import gzip
import io
import json
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from itertools import dropwhile, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_FORMATS = (
    "valid: a table in UTF-8, cells parted by comma, semicolon or tab under a line of column names (.csv, "
    ".tsv, .txt), JSON lines (.jsonl, .ndjson), these with .gz, a .npy array of real numbers, a .parquet "
    "table, or a TensorBoard log folder"
)
_WORDS = {"true": 1.0, "false": 0.0} | dict.fromkeys(["", "nan", "na", "n/a", "<na>", "null", "none"], np.nan)
# "" and "Unnamed: 0" are how pandas writes an index without a name.
_COUNTERS = re.compile(r"(?i)|unnamed: 0|(.*/)?_?((global|wall)[_ ])?(step|epoch|iter(ation)?|index|time)s?")
_limits = reprlib.Repr()
_limits.maxlist, _limits.maxstring = 12, 120
_brief = _limits.repr


class ReadError(ValueError):
    """A series that cannot be read; one line with the setting, the value given and what would be valid."""


class _Column(NamedTuple):
    values: Any  # an array or a list: one cell or event each
    keys: NDArray[Any] | None = None  # what pairs a value with one of another column; None: its row


_Table = Mapping[str, Callable[[], _Column]]  # a column is read only when it is asked for


def read_series(
    path: str | Path, column: str | None = None, numerator: str | None = None, denominator: str | None = None
) -> NDArray[np.float64]:
    """Read one column, or the ratio of two, from a recorded training log.

    The result has shape (T,), in the unit of the log: a float64 per row, or per TensorBoard event in order
    of step (events of the same step as written). Missing values are NaN, and so is a ratio over zero;
    infinities stay. Two TensorBoard tags are paired by step; a step that only one of them has is dropped.
    Without a name the log must have a single column of numbers, leading counters such as `step` aside.
    The columns of a .npy array are called by number ("0", "1") or by field.

    Raises ReadError, a ValueError whose one line names the setting, its value and what would be valid.
    """
    given = {"column": column, "numerator": numerator, "denominator": denominator}
    given = {setting: name for setting, name in given.items() if name is not None} or {"column": None}
    if set(given) not in ({"column"}, {"numerator", "denominator"}):
        shown = ", ".join(f"stream.{setting}={name!r}" for setting, name in given.items())
        valid = "stream.column alone, or stream.numerator and stream.denominator"
        raise ReadError(f"{shown}: not the names of one series; valid: {valid}")
    try:
        table = _open(path)
        columns = [_load(path, table, setting, name) for setting, name in given.items()]
        values = columns[0].values if len(columns) == 1 else _ratio(*columns)
    except ReadError:
        raise
    except ImportError:
        extra = "tensorboard" if Path(path).is_dir() else "parquet"
        valid = f"valid: pip install 'kalmean[{extra}]' first, or a .csv or .npy file"
        raise _fail("path", path, "needs an optional package that is missing", valid) from None
    except Exception as error:  # a damaged file makes a parser raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _fail("path", path, f"cannot be read: {_brief(reason)}") from error
    if np.isnan(values).all():  # only a ratio can be: _load looked at each column
        problem = f"is zero, missing or absent wherever stream.numerator={numerator!r} has a value"
        raise _fail("denominator", denominator, problem, f"valid: another of the columns {_brief([*table])}")
    return values


def _open(path: str | Path) -> _Table:
    if not path:  # Path("") would be the current folder
        raise _fail("path", path, "names no file")
    path = Path(path)
    if not path.exists():
        hint = _did_you_mean(path.name, [entry.name for entry in path.parent.glob("*")])
        missing = "" if path.parent.exists() else f", nor does its folder {str(path.parent)!r}"
        raise _fail("path", path, f"does not exist{missing}", hint + _FORMATS)
    if path.is_dir():
        return _read_tensorboard(path)
    reader = next((read for suffix, read in _READERS.items() if path.name.lower().endswith(suffix)), None)
    if reader is None:
        raise _fail("path", path, f"has an unknown extension {path.suffix!r}")
    if not path.stat().st_size:
        raise _fail("path", path, "is an empty file")
    return reader(path)


def _text(path: Path) -> str:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
    try:
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _fail("path", path, f"is not UTF-8 text (byte {error.start})") from None


def _read_text(path: Path) -> _Table:
    text = _text(path)
    first_line = re.sub(r'"[^"]*"', "", text.partition("\n")[0])
    delimiter = max(",;\t", key=first_line.count)

    def rows() -> Iterator[list[str]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        # A blank line is a missing value where there is one column, and nothing where there are more.
        return (row for row in reader if row or delimiter not in first_line)

    def load(index: int) -> _Column:
        return _Column([row[index] if index < len(row) else "" for row in islice(rows(), 1, None)])

    names = next(rows(), [])
    if len(names) < 2 and None not in map(_number, names):
        raise _fail("path", path, f"has no column name in its first line, but {_brief(names)}")
    for count, row in enumerate(rows()):
        if any(row[len(names) :]):
            under = f"{len(names)} name{'s' * (len(names) > 1)} in the first line"
            raise _fail("path", path, f"has {len(row)} cells in data row {count} under {under}")
    return _table(path, names, count, load)


def _read_json_lines(path: Path) -> _Table:
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except ValueError:
            raise _fail("path", path, f"holds {_brief(line)} in line {number}, which is no JSON") from None
        if not isinstance(row, dict):
            raise _fail("path", path, f"holds {_brief(line)} in line {number}, which is no JSON object")
        if row:
            rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))  # a log may write a key now and then
    return _table(path, names, len(rows), lambda index: _Column([row.get(names[index]) for row in rows]))


def _read_npy(path: Path) -> _Table:
    with path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    fields = array.dtype.names
    if array.ndim not in ((1,) if fields else (1, 2)):
        valid = "valid: shape (T,), (T, columns), or (T,) with named fields"
        raise _fail("path", path, f"holds an array of shape {array.shape}", valid)
    columns = [array[name] for name in fields] if fields else [*np.atleast_2d(array.T)]
    names = fields or [str(index) for index in range(len(columns))]
    return _table(path, names, len(array), lambda index: _Column(columns[index]))


def _read_parquet(path: Path) -> _Table:
    from pyarrow.parquet import ParquetFile

    file = ParquetFile(path)
    names = file.schema_arrow.names

    def load(index: int) -> _Column:
        return _Column(file.read([names[index]]).column(names[index]).to_numpy())

    return _table(path, names, file.metadata.num_rows, load)


def _read_tensorboard(folder: Path) -> _Table:
    if not any(folder.glob("*tfevents*")):
        inside = sorted({str(file.parent) for file in folder.glob("*/*tfevents*")})
        valid = f"valid: one of its subfolders {_brief(inside)}" if inside else _FORMATS
        raise _fail("path", folder, "is a folder without TensorBoard event files", valid)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    log = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    scalars, tensors = log.Tags()["scalars"], log.Tags()["tensors"]
    tags = scalars + [tag for tag in tensors if log.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"]

    def load(index: int) -> _Column:
        tag, is_scalar = tags[index], index < len(scalars)
        events = sorted(log.Scalars(tag) if is_scalar else log.Tensors(tag), key=lambda event: event.step)
        values = [event.value if is_scalar else make_ndarray(event.tensor_proto).item() for event in events]
        steps = [event.step for event in events]
        repeats = np.arange(len(steps)) - np.searchsorted(steps, steps)
        return _Column(np.array(values), np.array([*zip(steps, repeats, strict=True)], dtype="i8,i8"))

    return _table(folder, tags, len(tags), load)


_READERS: dict[str, Callable[[Path], _Table]] = {".npy": _read_npy, ".parquet": _read_parquet}
_READERS |= dict.fromkeys([".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz"], _read_text)
_READERS |= dict.fromkeys([".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"], _read_json_lines)


def _table(path: Path, names: Sequence[str], rows: int, load: Callable[[int], _Column]) -> _Table:
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        raise _fail("path", path, f"has several columns named {_brief(repeated)}", "valid: distinct names")
    if not names or not rows:
        raise _fail("path", path, f"holds no data (columns: {_brief(names)})")
    return {name: partial(load, index) for index, name in enumerate(names)}


def _load(path: str | Path, table: _Table, setting: str, wanted: str | None) -> _Column:
    name = str(wanted)  # a command line may turn "1" into a number
    names = [name] if name in table else [other for other in table if other.strip() == name.strip()]
    names = _numeric(table) if wanted is None else names
    valid = f"valid: a column of numbers (columns: {_brief([*table])})"
    if len(names) != 1:
        hint = _did_you_mean(name, table) if wanted else ""
        if wanted is None:
            problem = f"not set, and {str(path)!r} has {len(names)} columns of numbers{_hint(table)}"
        elif names:
            problem = f"matches {len(names)} columns of {str(path)!r}, not 1"
        else:
            problem = f"is no column of {str(path)!r}"
        raise _fail(setting, wanted, problem, hint + valid)
    column = table[names[0]]()
    numbers, others = _numbers(column.values)
    if others:
        held = f"{_brief(str(column.values[others[0]]))} in data row {others[0] + 1}"
        problem = f"column {names[0]!r} of {str(path)!r} holds {held}, which is no number{_hint(table)}"
        raise _fail(setting, wanted, problem, f"{valid}; missing: empty, NaN, NA, null, None")
    if np.isnan(numbers).all():
        raise _fail(setting, wanted, f"column {names[0]!r} of {str(path)!r} has only missing values", valid)
    return _Column(numbers, column.keys)


def _hint(table: _Table) -> str:
    """Whether no column has numbers because their decimals stand behind a comma."""
    first = (str(cell) for load in islice(table.values(), 100) for cell in islice(load().values, 1))
    commas = any(re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", cell.strip().lower()) for cell in first)
    return ": its decimals stand behind a comma, which must be a point" if commas else ""


def _numeric(table: _Table) -> list[str]:
    names = list(dropwhile(_COUNTERS.fullmatch, table)) or list(table)
    if len(names) == 1:
        return names  # even if it is not: what is wrong with it says more
    # A column with any number in it counts: one spoilt cell must not make a neighbour the obvious choice.
    return [name for name in names if not np.isnan(_numbers(table[name]().values)[0]).all()]


def _numbers(values: Any) -> tuple[NDArray[np.float64], list[int]]:
    """Numbers, NaN where there is none, and the rows that hold something else."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biuf":
        return values.astype(np.float64), []
    numbers = [_number(value) for value in values]
    return np.array(numbers, dtype=np.float64), [row for row, number in enumerate(numbers) if number is None]


def _number(value: object) -> float | None:
    if value is None or isinstance(value, str):
        word = str(value).strip().lower()
        value = _WORDS.get(word, "text" if "_" in word else word)  # float() takes 1_000
    with suppress(ValueError):
        return float(value) if isinstance(value, str | bool | int | float | Decimal) else None
    return None


def _ratio(top: _Column, bottom: _Column) -> NDArray[np.float64]:
    above, below = top.values, bottom.values
    if top.keys is not None and bottom.keys is not None:
        _, mine, theirs = np.intersect1d(top.keys, bottom.keys, assume_unique=True, return_indices=True)
        above, below = above[mine], below[theirs]
    ratio: NDArray[np.float64] = np.full(above.shape, np.nan)
    with np.errstate(all="ignore"):
        np.divide(above, below, out=ratio, where=below != 0)
    return ratio


def _fail(setting: str, value: object, problem: str, valid: str = _FORMATS) -> ReadError:
    shown = str(value) if isinstance(value, Path) else value
    unset = value is None and setting == "column"  # which may be, where there is but one
    named = f"stream.{setting}" if unset else f"stream.{setting}={shown!r}"
    return ReadError(f"{named}: {problem}; {valid}")


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    return "".join(f"did you mean {match!r}? " for match in difflib.get_close_matches(name, names, n=1))
