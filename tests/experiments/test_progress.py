"""The line that says how far a sweep is: on a terminal, and in a log file."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from experiments import progress
from experiments.progress import OFTEN, SELDOM, Progress, duration, quantity


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal, and what such a one would show."""

    def isatty(self) -> bool:
        return True

    @property
    def shown(self) -> list[str]:
        lines = []
        for written in self.getvalue().split("\n"):
            line = ""
            for over in written.split("\r"):
                line = over + line[len(over) :]
            lines.append(line.rstrip())
        return lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=made))
    return made


# --- in a log -----------------------------------------------------------------------------------------------


def test_a_log_gets_whole_lines_and_at_most_one_in_ten_seconds(clock: Clock) -> None:
    log = io.StringIO()
    shown = Progress(log, total=1000, done=0)
    said = []
    for _ in range(100):
        clock.now += 0.5
        before = log.getvalue()
        shown.add(10, 0)
        if log.getvalue() != before:
            said.append(clock.now)
    assert said == [1000.0 + SELDOM * k for k in range(1, 6)]
    text = log.getvalue()
    assert text.endswith("\n")
    assert "\r" not in text
    assert text.splitlines() == [
        "[  200/1,000], 20 cells/s, 0:40 left",
        "[  400/1,000], 20 cells/s, 0:30 left",
        "[  600/1,000], 20 cells/s, 0:20 left",
        "[  800/1,000], 20 cells/s, 0:10 left",
        "[1,000/1,000], 20 cells/s, 0:00 left",
    ]


def test_nothing_is_said_before_its_time(clock: Clock) -> None:
    log = io.StringIO()
    shown = Progress(log, total=10, done=3)
    clock.now += SELDOM - 0.01
    shown.add(5, 1)
    assert log.getvalue() == ""


def test_every_line_is_seen_at_once(clock: Clock) -> None:
    flushed: list[str] = []

    class Log(io.StringIO):
        def flush(self) -> None:
            flushed.append(self.getvalue())

    log = Log()
    shown = Progress(log, total=10, done=0)
    clock.now += SELDOM
    shown.add(1, 0)
    shown.close("done")
    assert len(flushed) == 2
    assert flushed[-1] == log.getvalue()


# --- what the line says -------------------------------------------------------------------------------------


def test_rate_and_time_left_count_what_this_run_did_alone(clock: Clock) -> None:
    shown = Progress(io.StringIO(), total=10_000, done=4000)
    shown.add(1000, 0)
    assert shown.line(10.0) == "[ 5,000/10,000], 100 cells/s, 0:50 left"


def test_failed_cells_are_shown_and_are_neither_done_nor_left(clock: Clock) -> None:
    shown = Progress(io.StringIO(), total=100, done=20)
    shown.add(18, 2)
    assert shown.line(10.0) == "[ 38/100], 2 failed, 2 cells/s, 0:30 left"
    shown.add(0, 60)
    assert shown.line(10.0) == "[ 38/100], 62 failed, 8 cells/s, 0:00 left"


@pytest.mark.parametrize(("done", "seconds"), [(0, 0.0), (0, 5.0), (3, 0.0)])
def test_no_rate_is_said_where_there_is_none_yet(clock: Clock, done: int, seconds: float) -> None:
    shown = Progress(io.StringIO(), total=10, done=2)
    shown.add(done, 0)
    assert shown.line(seconds) == f"[ {2 + done}/10]"


def test_counts_keep_their_place_as_they_grow(clock: Clock) -> None:
    shown = Progress(io.StringIO(), total=12_345, done=0)
    widths = set()
    for _ in range(12_345 // 5):
        shown.add(5, 0)
        widths.add(shown.line(0.0).index("/"))
    assert widths == {len("[12,345")}


@pytest.mark.parametrize("terminal", [False, True])
def test_the_last_line_says_what_it_came_to(clock: Clock, terminal: bool) -> None:
    stream = Terminal() if terminal else io.StringIO()
    shown = Progress(stream, total=5000, done=1000)
    clock.now += 20.0
    shown.add(3998, 2)
    clock.now += 5.0
    shown.close("finished")
    last = stream.shown[0] if isinstance(stream, Terminal) else stream.getvalue().splitlines()[-1]
    assert last == "finished: 4,000 cells in 0:25, 160 cells/s"
    assert stream.getvalue().endswith("\n")


def test_a_sweep_of_nothing_can_be_closed(clock: Clock) -> None:
    log = io.StringIO()
    Progress(log, total=0, done=0).close("finished")
    assert log.getvalue() == "finished: 0 cells in 0:00, 0 cells/s\n"


# --- on a terminal ------------------------------------------------------------------------------------------


def test_a_terminal_sees_one_line_change_at_most_five_times_a_second(clock: Clock) -> None:
    terminal = Terminal()
    shown = Progress(terminal, total=1000, done=0)
    for _ in range(1000):
        clock.now += 0.01
        shown.add(1, 0)
    text = terminal.getvalue()
    assert "\n" not in text
    assert text.startswith("\r")
    assert 40 <= text.count("\r") <= 10.0 / OFTEN
    shown.close("finished")
    assert terminal.getvalue().count("\n") == 1


def test_a_shorter_line_covers_a_longer_one(clock: Clock) -> None:
    terminal = Terminal()
    shown = Progress(terminal, total=100, done=0)
    for words in ("a long line about much", "a shorter line", "short", "a bit longer"):
        shown._say(words)
        assert terminal.shown == [words]


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**4), st.floats(0.0, 10**5)), max_size=20))
def test_a_terminal_shows_the_last_line_and_no_more(steps: list[tuple[int, int, float]]) -> None:
    with pytest.MonkeyPatch.context() as patched:
        clock = Clock()
        patched.setattr(progress, "time", SimpleNamespace(monotonic=clock))
        terminal = Terminal()
        total = sum(done + failed for done, failed, _ in steps)
        shown = Progress(terminal, total, done=0)
        for done, failed, seconds in steps:
            clock.now += seconds
            before = terminal.getvalue()
            shown.add(done, failed)
            if terminal.getvalue() != before:
                assert terminal.shown == [shown.line(clock.now - 1000.0)]
        shown.close("over")
    assert re.fullmatch(r"over: [\d,]+ cells in [\d:]+, \S+ cells/s", terminal.shown[0])
    assert terminal.shown[1:] == [""]


# --- numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0:00"),
        (0.4, "0:00"),
        (5.0, "0:05"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (60.0, "1:00"),
        (123.0, "2:03"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (3723.0, "1:02:03"),
        (360_000.0, "100:00:00"),
    ],
)
def test_durations(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@given(st.integers(0, 10**7))
def test_durations_lose_no_second(seconds: int) -> None:
    total = 0
    for part in duration(seconds).split(":"):
        total = 60 * total + int(part)
    assert total == seconds


@pytest.mark.parametrize(
    ("rate", "written"),
    [
        (0.0, "0"),
        (0.0123, "0.012"),
        (0.5, "0.5"),
        (1.26, "1.3"),
        (12.3, "12"),
        (99.4, "99"),
        (99.7, "100"),
        (100.0, "100"),
        (123.4, "123"),
        (1234.5, "1,234"),
        (1_234_567.0, "1,234,567"),
    ],
)
def test_quantities(rate: float, written: str) -> None:
    assert quantity(rate) == written


@given(st.floats(0.001, 1e9))
@example(99.7)
def test_quantities_are_right_to_two_digits_and_without_exponents(rate: float) -> None:
    written = quantity(rate)
    assert "e" not in written
    assert float(written.replace(",", "")) == pytest.approx(rate, rel=0.06)
