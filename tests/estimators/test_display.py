"""What a REPL and a notebook show: short, true, and, of a setting, the code that makes it again."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from html.parser import HTMLParser
from typing import Any, NamedTuple

import numpy as np
import pytest

import estimators
from estimators import (
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    Log,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    RunningMedian,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
    diagnose,
    fit,
    recommend,
)
from estimators.ema import EMAState

SETTINGS = [
    EMA(0.9),
    EMA(0.1 + 0.2, initial=None),
    EMA([0.5, 1.0 / 3.0], initial=[[1e-300], [2.0]]),
    DebiasedEMA(np.float32(0.9)),
    EMAWithVariance(0.9),
    Holt(0.1, 0.01),
    Kalman(1e-4, 1.0),
    Kalman(0.0, [1.0, 2.0], mean=3.0, variance=[1.0, math.inf]),
    KalmanBank(per_decade=2),
    MehraKalman(),
    MovingAverage(7),
    RunningMedian(7),
    LocalTrend(0.1, 0.01, 1.0),
    Log(EMA([0.5, 0.9], initial=1.0)),
    ResettingKalman(0.1, 1.0, loss="huber"),
    RobustKalman(0.1, 1.0, loss="student_t"),
    SageHusaKalman(q=0.1),
    InnovationMatchingKalman(r=0.1),
    SwitchingKalman(0.1, 1.0),
    VariationalKalman(0.1),
]
each = pytest.mark.parametrize("estimator", SETTINGS, ids=repr)


def stream(steps: int = 60, channels: int | None = None) -> Any:
    rng = np.random.default_rng(0)
    return 1.0 + np.exp(rng.normal(size=(steps,) if channels is None else (steps, channels)))


class Table(HTMLParser):
    """Tags, attributes and texts of a fragment, each tag closed by its own."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(fragment)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def rows(self) -> dict[str, str]:
        """Values by label; the caption stands before them."""
        return dict(zip(self.texts[1::2], self.texts[2::2], strict=True))


# --- settings -----------------------------------------------------------------------------------------------


@each
def test_a_setting_prints_as_the_code_that_makes_it(estimator: Any) -> None:
    names = {name: getattr(estimators, name) for name in estimators.__all__}
    assert eval(repr(estimator), names) == estimator
    assert "\n" not in repr(estimator)


def test_what_stands_at_its_default_is_not_printed() -> None:
    assert repr(EMA(0.9)) == "EMA(beta=0.9)"
    assert repr(EMA(0.9, initial=None)) == "EMA(beta=0.9, initial=None)"
    assert repr(Kalman(1, 2)) == "Kalman(q=1.0, r=2.0)"
    assert (
        repr(Kalman(1, 2, variance=[1.0, math.inf])) == "Kalman(q=1.0, r=2.0, variance=[1.0, float('inf')])"
    )
    assert repr(Log(KalmanBank())) == "Log(estimator=KalmanBank())"


def test_many_parameters_are_told_by_their_range() -> None:
    assert repr(EMA(np.linspace(0.5, 0.999, 256))) == "EMA(beta=<256 numbers from 0.5 to 0.999>)"
    assert repr(EMA(np.full((30, 2), 0.5))) == "EMA(beta=<30 x 2 times 0.5>)"


def test_an_estimator_of_ones_own_is_shown_in_the_same_way() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True, eq=False)
    class Mine(EMA):
        note: str = "<b>"

    class MineToo(Mine):
        def __repr__(self) -> str:
            return "my own"

    class Heir(MineToo):
        pass

    assert repr(Mine(0.5, note="&")).endswith("Mine(beta=0.5, note='&')")
    assert Table(Mine(0.5)._repr_html_()).rows["note"] == "'<b>'"
    assert repr(MineToo(0.5)) == repr(Heir(0.5)) == "my own"


@each
def test_a_notebook_shows_parameters_and_closed_forms(estimator: Any) -> None:
    rows = Table(estimator._repr_html_()).rows
    assert rows["state"] == f"{estimator.state_bytes:,} bytes per channel"
    assert set(vars(pickle.loads(pickle.dumps(estimator)))) <= set(rows)
    for label, name in (
        ("half-life", "half_life"),
        ("noise gain", "noise_gain"),
        ("time constant", "time_constant"),
    ):
        value = getattr(estimator, name, math.nan)
        if isinstance(value, float) and not math.isnan(value):
            assert float(rows[label].split()[0]) == pytest.approx(value, rel=1e-5)


@each
def test_the_notebooks_html_is_sound_and_needs_nothing_else(estimator: Any) -> None:
    for shown in (estimator, estimator.filter(stream(channels=2)), estimator.tracker()):
        page = shown._repr_html_()
        table = Table(page)
        assert table.seen <= {"table", "caption", "tr", "th", "td", "pre"}
        assert table.attributes <= {"style", "scope"}
        assert "http" not in page
        assert "url(" not in page


# --- results ------------------------------------------------------------------------------------------------


@each
def test_the_last_mean_and_interval_are_those_of_the_result(estimator: Any) -> None:
    if estimator._parameter_shapes or repr(estimator).startswith("Log(estimator=EMA(beta=["):
        pytest.skip("of several channels the hull is shown")
    out = estimator.filter(stream())
    rows = Table(out._repr_html_()).rows
    assert float(rows["last mean"]) == pytest.approx(out.mean[-1], rel=1e-5)
    bounds = out.interval()
    assert ("95 % interval" in rows) == (bounds is not None)
    if bounds is not None:
        low, high = rows["95 % interval"].split(" to ")
        assert (float(low), float(high)) == pytest.approx((bounds[0][-1], bounds[1][-1]), rel=1e-5)
    if out.loglikelihood is not None:
        assert float(rows["log-likelihood"]) == pytest.approx(out.loglikelihood, rel=1e-5)
    assert rows["samples"] == "60"


def test_results_of_any_size_are_one_short_line() -> None:
    long, wide = stream(200_000), stream(100, 500)
    kalman = Kalman(0.01, 1.0)
    results = [
        *(kalman.filter(x) for x in (long, wide, wide[:0], long[:0], long[:1])),
        *(kalman.smooth(x) for x in (long, wide)),
        *(EMA(0.9).score(x) for x in (long, wide)),
        *(fit(x) for x in (long[:500], wide)),
        *(diagnose(kalman.filter(x)) for x in (long[:500], wide)),
        diagnose(kalman.filter(wide)).nis,
        recommend(long[:200]),
        kalman.filter(wide).state,
        kalman.tracker(kalman.filter(wide).state),
        KalmanBank().filter(wide).state,
        EMA(np.linspace(0.1, 0.9, 500)).tracker(),
    ]
    for result in results:
        assert len(repr(result)) <= 400, type(result)
        assert "\n" not in repr(result)


def test_a_result_says_what_it_came_to() -> None:
    out = Kalman(0.0, 1.0).filter([1.0, 2.0, 3.0])
    assert repr(out) == (
        "<FilterResult: samples 3, means [1, 1.5, 2], last mean 2, 95 % interval 0.868414 to 3.13159, "
        "estimator Kalman(q=0.0, r=1.0)>"
    )
    two = EMA(0.5).filter([[1.0, 2.0]] * 3)
    assert (
        repr(two) == "<FilterResult: samples 3, channels 2, last mean [0.875, 1.75], estimator EMA(beta=0.5)>"
    )
    assert "last mean" not in repr(EMA(0.5).filter([]))


def test_showing_a_long_run_computes_nothing_of_its_length() -> None:
    out = Kalman(0.01, 1.0).filter(stream(2_000_000))
    assert "log-likelihood" not in out._repr_html_()
    assert "trace" not in vars(out._run)


def test_what_prints_as_a_screen_is_shown_as_that_screen() -> None:
    found, tests = recommend(stream(200)), diagnose(Kalman(0.1, 1.0).filter(stream(200)))
    for shown in (found, tests):
        table = Table(shown._repr_html_())
        assert table.seen == {"pre"}
        assert "".join(table.texts) == str(shown)
    assert "use " in repr(found)
    assert "flagged " in repr(tests)


def test_a_fit_shows_its_errors_and_warnings() -> None:
    rng = np.random.default_rng(0)
    found = fit(rng.normal(size=200))
    rows = Table(found._repr_html_()).rows
    assert rows["standard error of q"] == "inf"
    assert rows["warning"] == found.warnings[-1]
    assert "warnings 1" in repr(found)


# --- states and trackers ------------------------------------------------------------------------------------


def test_a_state_is_exact_where_it_is_short() -> None:
    state = EMA(0.9).filter(stream()).state
    assert eval(repr(state)) == state
    few = repr(EMA(0.5).init(np.zeros(3)))
    assert few == "EMAState(mean=array([0., 0., 0.]))"
    assert repr(EMA(0.5).init(np.zeros(3000))) == "EMAState(mean=<3,000 times 0>)"
    assert isinstance(state, EMAState)


def test_a_states_own_repr_is_kept() -> None:
    class OwnState(NamedTuple):
        mean: Any

        def __repr__(self) -> str:
            return "mine"

    class Own(EMA):
        State = OwnState

    assert repr(Own.State(1.0)) == "mine"


def test_a_tracker_shows_its_state() -> None:
    tracker = Kalman(0.1, 1.0).tracker()
    tracker.update(2.0)
    assert repr(tracker) == "Tracker(Kalman(q=0.1, r=1.0), mean=2.0)"
    assert not hasattr(tracker, "__dict__")  # as small as before it could show itself
    assert Table(tracker._repr_html_()).rows == {
        "estimator": "Kalman(q=0.1, r=1.0)",
        "mean": "2.0",
        "variance": "1.0",
    }


def test_nothing_of_it_is_imported_before_something_is_shown() -> None:
    code = (
        "import sys; from estimators import EMA; e = EMA(0.9); print('estimators._display' in sys.modules); "
        "repr(e), e._repr_html_(); "
        "print('html' in sys.modules, sorted({'numba', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["False", "True []"]
