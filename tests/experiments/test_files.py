"""Files that appear whole or not at all: what readers may rely on, whatever happens to the writer."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.files import PARTIAL, write_whole

ROOT = Path(__file__).parent.parent.parent


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- what is written ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=5000))
def test_the_file_holds_what_was_given_and_nothing_is_beside_it(tmp_path_factory: Any, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("written")
    write_whole(folder / "file", data)
    assert (folder / "file").read_bytes() == data
    assert names(folder) == ["file"]


def test_more_than_a_buffer_is_written_whole(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    write_whole(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o027, 0o640), (0o077, 0o600)])
def test_others_may_read_what_the_umask_allows(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "file", b"shared")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_file_that_is_there_is_replaced_and_readers_of_the_old_one_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a longer old content")
    with path.open("rb") as old:
        write_whole(path, b"new")
        assert old.read() == b"a longer old content"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


def test_the_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        happened.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        happened.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_whole(tmp_path / "file", b"data")
    assert happened == ["file", "name", "folder"]


# --- what goes wrong ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("old", [None, b"old"], ids=["new", "over another"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, old: bytes | None
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, function, full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"new")
    assert caught.value.errno == errno.ENOSPC
    assert names(tmp_path) == ([] if old is None else ["file"])
    assert old is None or path.read_bytes() == old


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"new")
    assert names(tmp_path) == []


def test_a_folder_in_the_files_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file" / "below").mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|not empty"):
        write_whole(tmp_path / "file", b"new")
    assert names(tmp_path) == ["file"]
    assert names(tmp_path / "file") == ["below"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "absent" / "file", b"new")
    assert names(tmp_path) == []


def test_a_kill_leaves_only_what_no_reader_looks_at(tmp_path: Path) -> None:
    place, flag = tmp_path / "place", tmp_path / "syncing"
    place.mkdir()
    (place / "file.jsonl").write_bytes(b"old")
    stuck = (
        "import os, time, pathlib; from experiments.files import write_whole\n"
        f"os.fsync = lambda descriptor: (pathlib.Path({str(flag)!r}).touch(), time.sleep(60))\n"
        f"write_whole(pathlib.Path({str(place / 'file.jsonl')!r}), b'new' * 1000)"
    )
    process = subprocess.Popen([sys.executable, "-c", stuck], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not flag.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    partial, kept = names(place)
    assert partial.startswith(PARTIAL)
    assert kept == "file.jsonl"
    assert (place / "file.jsonl").read_bytes() == b"old"
    assert [path.name for path in place.glob("*.jsonl")] == ["file.jsonl"]
    write_whole(place / "file.jsonl", b"newer")
    assert (place / "file.jsonl").read_bytes() == b"newer"


# --- many writers -------------------------------------------------------------------------------------------


def test_many_writers_of_one_path_leave_one_whole_file_and_none_is_ever_seen_in_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = (
        "import sys, pathlib; from experiments.files import write_whole\n"
        "for _ in range(40): write_whole(pathlib.Path(sys.argv[1]), sys.argv[2].encode() * 20_000)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(path), letter], cwd=ROOT) for letter in "abcdefgh"
    ]
    whole = {letter.encode() * 20_000 for letter in "abcdefgh"}
    seen = set()
    try:
        while any(writer.poll() is None for writer in writers):
            if path.exists():
                seen.add(path.read_bytes())
            time.sleep(0.001)
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    assert [writer.returncode for writer in writers] == [0] * 8
    assert seen <= whole
    assert path.read_bytes() in whole
    assert names(tmp_path) == ["file"]
