"""Files that appear whole or not at all, whatever dies in between."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PARTIAL = ".partial-"
"""How the name of a file begins that is still being written."""
ABANDONED = 24 * 3600
"""Seconds after which what was not finished is nobody's any more."""


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside its place, see it on the disk, and move it there in one step; OSError if not.

    Many writers of one path are harmless: the last one's file stands. Nothing partial is left behind, save by
    a kill, and then under a name that no reader looks at.
    """
    # Not tempfile: its files are private to the owner, and would stay so after the rename.
    partial = path.with_name(f"{PARTIAL}{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    _settle(path.parent)


def abandoned(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of some unfinished files or folders that are nobody's any more: what kills left."""
    for path in paths:
        with suppress(FileNotFoundError):  # its owner may just have finished
            if time.time() - path.stat().st_mtime > ABANDONED:
                yield path


def _settle(folder: Path) -> None:
    """See a folder's new names on the disk, where that can be asked for: some network file systems refuse."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
