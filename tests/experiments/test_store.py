"""The store of cells: it gives back what was measured, to the last bit, whatever else lies beside it."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, Kalman, MovingAverage
from experiments import store as stores
from experiments.cells import Chunk, Condition, Failure, Piece, Results, Setting, every_metric, measured
from experiments.compare import Parameters
from experiments.files import ABANDONED, PARTIAL
from experiments.metrics import Measured
from experiments.store import Store, UnwritableError
from experiments.streams import GradientRatio

CONDITION = Condition(every_metric, Parameters(), GradientRatio(steps=60), 1.7956, 0, 15)
ELSEWHERE = Condition(every_metric, Parameters(), GradientRatio(steps=60), 1.7956, 1, 15)
AVERAGE, FILTER, WINDOW = Setting(EMA(0.9)), Setting(Kalman(q=0.01, r=1.7956)), Setting(MovingAverage(9))
COUNT = 9


def chunk(condition: Condition, cells: Mapping[Setting, Sequence[int]]) -> Chunk:
    return Chunk(condition, tuple(Piece(own, tuple(repetitions)) for own, repetitions in cells.items()))


def stored(
    output: Path, *chunks: Mapping[Setting, Sequence[int]], condition: Condition = CONDITION
) -> list[Path]:
    """Measure and write some chunks, each of them settings with their repetitions."""
    return [Store(output).write(measured(chunk(condition, cells))) for cells in chunks]


def failed(repetition: int, error: str = "ValueError: no", own: Setting = AVERAGE) -> Results:
    whole = chunk(CONDITION, {own: [repetition]})
    return Results(whole, failures=[Failure(own, repetition, error, f"Traceback\n{error}\n")])


def bits(series: Sequence[Measured]) -> list[tuple[str, str, str, bytes]]:
    return [(one.metric, one.unit, one.missing, one.values.tobytes()) for one in series]


def whole(own: Setting, count: int = COUNT) -> list[Measured]:
    """What the first so many repetitions give."""
    return every_metric(CONDITION, own.estimator, range(count))


def entries(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(data: bytes) -> str:
    """The name that a shard of these bytes has."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.jsonl"


# --- what is read is what was measured ----------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 4), min_size=COUNT, max_size=COUNT),
    st.lists(st.integers(0, 4), min_size=COUNT, max_size=COUNT),
    st.permutations(range(5)),
)
def test_however_cells_are_cut_into_chunks_the_same_bits_are_read(
    tmp_path_factory: Any, averages: list[int], filters: list[int], order: list[int]
) -> None:
    output = tmp_path_factory.mktemp("cut")
    for number in order:
        cells = {
            own: [repetition for repetition, chosen in enumerate(cut) if chosen == number]
            for own, cut in ((AVERAGE, averages), (FILTER, filters))
        }
        some = {own: repetitions for own, repetitions in cells.items() if repetitions}
        if some:
            stored(output, some)
    store = Store(output)
    wanted = {AVERAGE.key: COUNT, FILTER.key: COUNT}
    known = store.known(CONDITION, wanted)
    read = store.read(CONDITION, wanted)
    for own in (AVERAGE, FILTER):
        assert known.done[own.key].all()
        assert not known.failed[own.key].any()
        assert bits(read[own.key]) == bits(whole(own))
    assert not store.complaints
    assert len(store.versions) == 1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=20))
def test_any_number_is_read_as_the_same_bits_and_none_as_none(
    tmp_path_factory: Any, numbers: list[float]
) -> None:
    cells = chunk(CONDITION, {AVERAGE: range(len(numbers))})
    one = Measured("metric", "(unit)^2", np.array(numbers), "no reason")
    store = Store(tmp_path_factory.mktemp("numbers"))
    store.write(Results(cells, [(cells.pieces[0], [one])]))
    (read,) = store.read(CONDITION, {AVERAGE.key: len(numbers)})[AVERAGE.key]
    assert (read.metric, read.unit, read.missing) == ("metric", "(unit)^2", "no reason")
    assert read.status == one.status
    finite = np.isfinite(one.values)
    assert np.isnan(read.values[~finite]).all()
    assert read.values[finite].tobytes() == one.values[finite].tobytes()


def test_what_has_no_value_has_none_and_the_reason_is_kept(tmp_path: Path) -> None:
    stored(tmp_path, {FILTER: range(4)}, {FILTER: range(4, COUNT)})
    read = Store(tmp_path).read(CONDITION, {FILTER.key: COUNT})[FILTER.key]
    (lag,) = (one for one in read if one.metric == "lag")
    assert np.isnan(lag.values).all()
    assert lag.status == ["no steady state"] * COUNT
    assert [one.status for one in read] == [one.status for one in whole(FILTER)]


def test_fewer_repetitions_than_are_stored_can_be_asked_for(tmp_path: Path) -> None:
    stored(tmp_path, {AVERAGE: [0, 2, 3, 7]}, {AVERAGE: [1, 8]})
    Store(tmp_path).write(failed(5))
    store = Store(tmp_path)
    known = store.known(CONDITION, {AVERAGE.key: 3})
    assert known.done[AVERAGE.key].tolist() == [True] * 3
    assert known.failed[AVERAGE.key].tolist() == [False] * 3
    assert bits(store.read(CONDITION, {AVERAGE.key: 3})[AVERAGE.key]) == bits(whole(AVERAGE, 3))


def test_what_is_not_stored_is_not_done_and_reads_as_no_value(tmp_path: Path) -> None:
    stored(tmp_path, {AVERAGE: [1, 2, 5]})
    store = Store(tmp_path)
    wanted = {AVERAGE.key: COUNT, FILTER.key: 2}
    known = store.known(CONDITION, wanted)
    assert np.flatnonzero(known.done[AVERAGE.key]).tolist() == [1, 2, 5]
    assert known.done[FILTER.key].tolist() == known.failed[FILTER.key].tolist() == [False, False]
    read = store.read(CONDITION, wanted)
    assert read[FILTER.key] == []
    for one, expected in zip(read[AVERAGE.key], whole(AVERAGE), strict=True):
        assert one.values[[1, 2, 5]].tobytes() == expected.values[[1, 2, 5]].tobytes()
        assert np.isnan(np.delete(one.values, [1, 2, 5])).all()


def test_settings_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    stored(tmp_path, {AVERAGE: range(3), FILTER: range(3)}, {WINDOW: range(3)})
    Store(tmp_path).write(failed(4, own=WINDOW))
    store = Store(tmp_path)
    known = store.known(CONDITION, {FILTER.key: 3})
    assert set(known.done) == set(known.failed) == {FILTER.key}
    assert set(store.read(CONDITION, {FILTER.key: 3})) == {FILTER.key}
    assert store.failures(CONDITION).get(FILTER.key, {}) == {}


def test_nothing_is_known_where_nothing_was_stored(tmp_path: Path) -> None:
    store = Store(tmp_path / "absent")
    assert store.known(CONDITION, {AVERAGE.key: 2}).done[AVERAGE.key].tolist() == [False, False]
    assert store.read(CONDITION, {AVERAGE.key: 2}) == {AVERAGE.key: []}
    assert store.read(CONDITION, {}) == {}
    assert store.failures(CONDITION).get(AVERAGE.key, {}) == {}
    store.sweep_up([CONDITION.key])
    assert not (tmp_path / "absent").exists()


def test_conditions_do_not_mix(tmp_path: Path) -> None:
    stored(tmp_path, {AVERAGE: range(3)})
    stored(tmp_path, {AVERAGE: range(2, 5)}, condition=ELSEWHERE)
    store = Store(tmp_path)
    assert store.known(CONDITION, {AVERAGE.key: 5}).done[AVERAGE.key].tolist() == [True] * 3 + [False] * 2
    assert store.known(ELSEWHERE, {AVERAGE.key: 5}).done[AVERAGE.key].tolist() == [False] * 2 + [True] * 3
    assert not store.complaints


# --- failures -----------------------------------------------------------------------------------------------


def test_a_failed_cell_is_known_as_failed_and_never_as_done(tmp_path: Path) -> None:
    stored(tmp_path, {AVERAGE: [0, 1]})
    store = Store(tmp_path)
    store.write(failed(2, "ValueError: of the second"))
    store.write(failed(4, "KeyError: of the fourth"))
    known = store.known(CONDITION, {AVERAGE.key: 5})
    assert np.flatnonzero(known.done[AVERAGE.key]).tolist() == [0, 1]
    assert np.flatnonzero(known.failed[AVERAGE.key]).tolist() == [2, 4]
    assert store.failures(CONDITION).get(AVERAGE.key, {}) == {
        2: "ValueError: of the second",
        4: "KeyError: of the fourth",
    }
    assert store.failures(CONDITION).get(FILTER.key, {}) == {}
    read = store.read(CONDITION, {AVERAGE.key: 5})[AVERAGE.key]
    assert all(np.isnan(one.values[2:]).all() for one in read)


@pytest.mark.parametrize("first", ["done", "failed"])
def test_a_cell_that_was_done_is_done_whatever_failed(tmp_path: Path, first: str) -> None:
    store = Store(tmp_path)
    if first == "done":
        stored(tmp_path, {AVERAGE: range(3)})
    for repetition in range(4):
        store.write(failed(repetition))
    if first == "failed":
        stored(tmp_path, {AVERAGE: range(3)})
    known = store.known(CONDITION, {AVERAGE.key: 4})
    assert known.done[AVERAGE.key].tolist() == [True, True, True, False]
    assert known.failed[AVERAGE.key].tolist() == [False, False, False, True]
    assert bits(store.read(CONDITION, {AVERAGE.key: 3})[AVERAGE.key]) == bits(whole(AVERAGE, 3))


def test_a_chunk_may_be_done_in_part(tmp_path: Path) -> None:
    cells = chunk(CONDITION, {AVERAGE: range(4), FILTER: range(2)})
    found = measured(chunk(CONDITION, {AVERAGE: [0, 3], FILTER: [0, 1]})).measured
    failures = [Failure(AVERAGE, repetition, f"ValueError: é {repetition}") for repetition in (1, 2)]
    store = Store(tmp_path)
    store.write(Results(cells, found, failures))
    known = store.known(CONDITION, {AVERAGE.key: 4, FILTER.key: 2})
    assert known.done[AVERAGE.key].tolist() == [True, False, False, True]
    assert known.failed[AVERAGE.key].tolist() == [False, True, True, False]
    assert known.done[FILTER.key].all()
    assert store.failures(CONDITION).get(AVERAGE.key, {}) == {1: "ValueError: é 1", 2: "ValueError: é 2"}
    assert bits(store.read(CONDITION, {FILTER.key: 2})[FILTER.key]) == bits(whole(FILTER, 2))


# --- shards -------------------------------------------------------------------------------------------------


def test_shards_are_strict_json_that_say_what_they_hold(tmp_path: Path) -> None:
    def refuse(token: str) -> NoReturn:
        raise AssertionError(token)

    stored(tmp_path, {FILTER: range(3), WINDOW: [1]})
    Store(tmp_path).write(failed(2))
    for path in (tmp_path / "cells").rglob("*.jsonl"):
        data = path.read_bytes()
        assert data.endswith(b"\n")
        head, body = (json.loads(line, parse_constant=refuse) for line in data.decode("ascii").splitlines())
        assert head["condition"] == CONDITION.key
        assert body["condition"] == {**CONDITION.content, "code": CONDITION.code}
        assert set(body["settings"]) == set(head["done"]) | set(head["failed"])
        assert {piece["setting"] for piece in body["measured"]} == set(head["done"])


def test_a_shards_name_is_the_digest_of_its_bytes(tmp_path: Path) -> None:
    paths = stored(tmp_path, {AVERAGE: range(3)}, {FILTER: range(3)}, {AVERAGE: [3]})
    assert len(set(paths)) == 3
    for path in paths:
        assert path.name == named(path.read_bytes())
        assert path.parent == tmp_path / "cells" / CONDITION.key[:2] / CONDITION.key
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(paths)


def test_the_same_results_again_change_neither_names_nor_bytes(tmp_path: Path) -> None:
    cells = {AVERAGE: range(3), FILTER: range(2)}
    stored(tmp_path, cells)
    Store(tmp_path).write(failed(5))
    before = entries(tmp_path)
    stored(tmp_path, cells)
    Store(tmp_path).write(failed(5))
    assert entries(tmp_path) == before
    stored(tmp_path, {AVERAGE: [3]})
    after = entries(tmp_path)
    assert len(after) == len(before) + 1
    assert before.items() <= after.items()


def test_reading_writes_nothing(tmp_path: Path) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(3)})
    (path.parent / f"{'0' * 32}.jsonl").write_bytes(b"garbage")
    before = entries(tmp_path)
    store = Store(tmp_path)
    store.known(CONDITION, {AVERAGE.key: 3})
    store.read(CONDITION, {AVERAGE.key: 3})
    store.failures(CONDITION)
    assert entries(tmp_path) == before


# --- damage -------------------------------------------------------------------------------------------------


def spoilt(output: Path, path: Path, done: int) -> None:
    """One complaint, which names the path, and nothing else is lost."""
    store = Store(output)
    for _ in range(2):
        known = store.known(CONDITION, {AVERAGE.key: 6})
        assert known.done[AVERAGE.key].tolist() == [True] * done + [False] * (6 - done)
        assert not known.failed[AVERAGE.key].any()
        read = store.read(CONDITION, {AVERAGE.key: 6})[AVERAGE.key]
        assert store.failures(CONDITION).get(AVERAGE.key, {}) == {}
        for one, expected in zip(read, whole(AVERAGE, 6), strict=True):
            assert one.values[:done].tobytes() == expected.values[:done].tobytes()
            assert np.isnan(one.values[done:]).all()
    (complaint,) = store.complaints.values()
    assert str(path) in complaint
    assert "\n" not in complaint


def test_a_shard_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    _, path = stored(tmp_path, {AVERAGE: range(3)}, {AVERAGE: range(3, 6)})
    data = path.read_bytes()
    head = data.index(b"\n")
    for length in (0, 1, head - 1, head, head + 1, len(data) // 2, len(data) - 2, len(data) - 1):
        path.write_bytes(data[:length])
        spoilt(tmp_path, path, 3)


def test_a_shard_with_a_changed_bit_or_byte_is_left_out(tmp_path: Path) -> None:
    _, path = stored(tmp_path, {AVERAGE: range(3)}, {AVERAGE: range(3, 6)})
    data = path.read_bytes()
    for place in range(0, len(data), len(data) // 12):
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << place % 8)]) + data[place + 1 :])
        spoilt(tmp_path, path, 3)
    for longer in (data + b"\n", data + data, b"\n" + data):
        path.write_bytes(longer)
        spoilt(tmp_path, path, 3)


def test_a_shard_under_another_name_is_left_out(tmp_path: Path) -> None:
    _, path = stored(tmp_path, {AVERAGE: range(3)}, {AVERAGE: range(3, 6)})
    path = path.rename(path.with_name("copy.jsonl"))
    spoilt(tmp_path, path, 3)


HEAD = f'{{"schema":1,"condition":"{CONDITION.key}"'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xff\xfe\x00",
        b"{",
        b"[]\n[]\n",
        b"5\n",
        b"null\nnull\n",
        b'"schema"\n',
        b"{}\n{}\n",
        b'{"schema": 1}\n{}\n',
        b'{"schema": 1, "condition": "other", "done": {}, "failed": {}}\n{}\n',
        f'{{"schema":0,"condition":"{CONDITION.key}","done":{{}},"failed":{{}}}}\n{{}}\n'.encode(),
        f'{{"schema":2,"condition":"{CONDITION.key}","cells":[]}}\n'.encode(),
    ],
    ids=repr,
)
def test_a_foreign_file_with_the_right_name_is_left_out(tmp_path: Path, data: bytes) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(6)})
    foreign = path.with_name(named(data))
    foreign.write_bytes(data)
    spoilt(tmp_path, foreign, 6)


@pytest.mark.parametrize(
    "data",
    [
        f"{HEAD}}}\n{{}}\n",
        f'{HEAD},"done":[],"failed":[]}}\n{{}}\n',
        f'{HEAD},"done":{{"{AVERAGE.key}":[[0,5]]}},"failed":{{}}}}\n',
        f'{HEAD},"done":{{"{AVERAGE.key}":[[0,5]]}},"failed":{{}}}}\n{{}}\n',
        "[" * 100_000,
    ],
    ids=["no lists", "lists of another kind", "no body", "an empty body", "very deep"],
)
def test_a_foreign_file_that_looks_like_a_shard_is_left_out(tmp_path: Path, data: str) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(6)})
    foreign = path.with_name(named(data.encode()))
    foreign.write_text(data)
    spoilt(tmp_path, foreign, 6)


def test_a_shard_of_another_condition_is_left_out(tmp_path: Path) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(3)})
    (other,) = stored(tmp_path, {AVERAGE: range(6)}, condition=ELSEWHERE)
    spoilt(tmp_path, Path(shutil.copy(other, path.parent)), 3)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link to itself"])
def test_what_cannot_be_read_is_left_out(tmp_path: Path, kind: str) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(3)})
    bad = path.with_name("x.jsonl")
    if kind == "folder":
        bad.mkdir()
    else:
        bad.symlink_to(tmp_path / "absent" if kind == "dangling link" else bad)
    spoilt(tmp_path, bad, 3)


def test_a_file_that_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = stored(tmp_path, {AVERAGE: range(3)}, {AVERAGE: range(3, 6)})
    read = Path.read_bytes

    def denied(self: Path) -> bytes:
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", denied)
    spoilt(tmp_path, path, 3)


def test_many_bad_files_are_a_complaint_each(tmp_path: Path) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(3)})
    bad = [path.with_name(f"{letter}.jsonl") for letter in "abc"]
    for other in bad:
        other.write_bytes(b"garbage")
    store = Store(tmp_path)
    assert store.known(CONDITION, {AVERAGE.key: 3}).done[AVERAGE.key].all()
    assert len(store.complaints) == 3
    for other in bad:
        assert sum(str(other) in complaint for complaint in store.complaints.values()) == 1


def test_what_was_left_out_is_run_again_and_heals(tmp_path: Path) -> None:
    _, path = stored(tmp_path, {AVERAGE: range(3)}, {AVERAGE: range(3, 6)})
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    assert stored(tmp_path, {AVERAGE: range(3, 6)}) == [path]
    assert path.read_bytes() == data
    store = Store(tmp_path)
    assert bits(store.read(CONDITION, {AVERAGE.key: 6})[AVERAGE.key]) == bits(whole(AVERAGE, 6))
    assert not store.complaints


# --- what kills leave, and full disks -----------------------------------------------------------------------


def test_partial_files_are_ignored_and_swept_up_once_they_are_nobodys(tmp_path: Path) -> None:
    (path,) = stored(tmp_path, {AVERAGE: range(3)})
    (other,) = stored(tmp_path, {AVERAGE: range(3)}, condition=ELSEWHERE)
    old, fresh = (path.with_name(f"{PARTIAL}{name}") for name in ("old", "fresh"))
    elsewhere = other.with_name(f"{PARTIAL}old")
    now = time.time()
    for left, age in ((old, ABANDONED + 60), (fresh, ABANDONED - 60), (elsewhere, ABANDONED + 60)):
        left.write_bytes(path.read_bytes()[:100])
        os.utime(left, (now - age, now - age))
    os.utime(path, (0, 0))
    store = Store(tmp_path)
    assert store.known(CONDITION, {AVERAGE.key: 3}).done[AVERAGE.key].all()
    assert bits(store.read(CONDITION, {AVERAGE.key: 3})[AVERAGE.key]) == bits(whole(AVERAGE, 3))
    assert not store.complaints
    assert old.exists()
    store.sweep_up([CONDITION.key])
    assert sorted(path.parent.iterdir()) == sorted([fresh, path])
    assert elsewhere.exists(), "of a condition that was not named"


def test_a_partial_file_that_its_writer_takes_away_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [self / f"{PARTIAL}gone"])
    Store(tmp_path).sweep_up([CONDITION.key])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_shard_that_cannot_be_written_is_one_kind_of_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(stores, "write_whole", full)
    with pytest.raises(UnwritableError) as caught:
        stored(tmp_path, {AVERAGE: range(3)})
    assert caught.value.errno == number
    assert caught.value.strerror == os.strerror(number)
    assert str(tmp_path) in caught.value.filename
    assert not entries(tmp_path)


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_disk_that_fills_up_while_writing_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stored(tmp_path, {AVERAGE: range(3)})
    before = entries(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, function, full)
        with pytest.raises(UnwritableError, match="No space left on device"):
            stored(tmp_path, {AVERAGE: range(3, 6)})
    assert entries(tmp_path) == before
    stored(tmp_path, {AVERAGE: range(3, 6)})
    assert Store(tmp_path).known(CONDITION, {AVERAGE.key: 6}).done[AVERAGE.key].all()


def test_an_output_that_is_a_file_is_unwritable_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UnwritableError):
        stored(tmp_path / "file", {AVERAGE: range(3)})
    assert entries(tmp_path) == {"file": b"mine"}


def test_no_value_that_is_not_a_number_reaches_a_shard(tmp_path: Path) -> None:
    cells = chunk(CONDITION, {AVERAGE: range(3)})
    one = Measured("metric", "unit", np.array([math.inf, -math.inf, 1.0]), "no noise")
    store = Store(tmp_path)
    path = store.write(Results(cells, [(cells.pieces[0], [one])]))
    assert b'"values":[null,null,1.0]' in path.read_bytes()
    (read,) = store.read(CONDITION, {AVERAGE.key: 3})[AVERAGE.key]
    assert read.status == one.status == ["no noise", "no noise", "ok"]
