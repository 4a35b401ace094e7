"""How far a sweep is, at what rate, and how long it will take: a line for a terminal or a log file."""

from __future__ import annotations

import time
from typing import TextIO

OFTEN, SELDOM = 0.2, 10.0
"""Seconds between two states of the line of a terminal, and between two lines of a log."""


class Progress:
    """Says what is done of ``total`` cells, the first ``done`` of which earlier runs did."""

    def __init__(self, stream: TextIO, total: int, done: int) -> None:
        self.stream, self.total, self.before = stream, total, done
        self.done, self.failed = done, 0
        self.start = self._said = time.monotonic()
        self._terminal = stream.isatty()
        self._width = 0

    def add(self, done: int, failed: int) -> None:
        """Count cells that are over, and say so if it is time to."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        if now - self._said >= (OFTEN if self._terminal else SELDOM):
            self._said = now
            self._say(self.line(now - self.start))

    def line(self, seconds: float) -> str:
        """The line, so many seconds after the start."""
        over = self.done + self.failed - self.before
        count = f"{self.done:{len(f'{self.total:,}')},}/{self.total:,}"
        failed = f", {self.failed:,} failed" if self.failed else ""
        if not over or seconds <= 0.0:
            return f"[{count}]{failed}"
        rate = over / seconds
        left = (self.total - self.done - self.failed) / rate
        return f"[{count}]{failed}, {quantity(rate)} cells/s, {duration(left)} left"

    def close(self, how: str) -> None:
        """Say the last line, and what it came to."""
        seconds = time.monotonic() - self.start
        over = self.done + self.failed - self.before
        self._say(
            f"{how}: {over:,} cells in {duration(seconds)}, {quantity(over / max(seconds, 1e-9))} cells/s"
        )
        if self._terminal:
            self.stream.write("\n")
            self.stream.flush()

    def _say(self, line: str) -> None:
        if self._terminal:
            self.stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self.stream.write(line + "\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def quantity(rate: float) -> str:
    """A rate to two or three digits."""
    return f"{rate:,.0f}" if rate >= 99.5 else f"{rate:.2g}"
