"""What the cost experiment is to reach, as data: a figure of its summary, and the bound set for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound on the median of a metric of a contestant, in the contest whose name matches ``contest``.

    at_least: whether the bound is from below; beside: for a bound from both sides, how far from it; over:
    another contestant by whose figure it is divided; inverse: whether the quotient is turned around, as a
    speed is of a time.
    """

    what: str
    contest: str
    who: str
    bound: float
    at_least: bool = False
    metric: str = "ratio"
    over: str = ""
    inverse: bool = False
    beside: float | None = None

    @property
    def asked(self) -> str:
        """The bound in words."""
        if self.beside is not None:
            return f"{self.bound:.2f} ± {self.beside:g}"
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def reached(self, summary: Any) -> float | None:
        """The figure, None where it was not measured."""
        return self._of(summary, "median")

    def span(self, summary: Any) -> list[float]:
        """Least and most over the rounds; nothing where it was measured once, or is a quotient of medians."""
        rows = summary[(summary["metric"] == self.metric) & (summary["estimator"] == self.who)]
        found = (
            [] if self.over or (rows["n"] < 2).all() else [self._of(summary, end) for end in ("low", "high")]
        )
        return [value for value in found if value is not None]

    def _of(self, summary: Any, column: str) -> float | None:
        rows = summary[(summary["metric"] == self.metric) & summary["stream"].str.match(self.contest)]
        found = rows.set_index("estimator")[column]
        if self.who not in found or (self.over and self.over not in found):
            return None
        value = float(found[self.who]) / (float(found[self.over]) if self.over else 1.0)
        return 1.0 / value if self.inverse else value

    def met(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        if self.beside is not None:
            return abs(value - self.bound) <= self.beside
        return value >= self.bound if self.at_least else value <= self.bound


def _against(us: str, who: str, times: float, contest: str) -> Goal:
    return Goal(f"{us}, against {who}", contest, who, times, at_least=True)


def _share_of_copy(us: str, share: float, contest: str) -> Goal:
    return Goal(f"{us}: share of the speed of a copy", contest, "copy", share, at_least=True)


def _channels(kind: str) -> tuple[Goal, ...]:
    whole, part = rf"EMA, {kind} \([\d, ]+\)$", rf"EMA, {kind} .* of it"
    return (
        _share_of_copy(f"EMA, {kind}", 0.85, whole),
        _against(f"EMA, {kind}", "scipy lfilter", 10.0, part),
        _against(f"EMA, {kind}", "pandas ewm", 20.0, part),
        Goal(f"Kalman, {kind}, over EMA", whole, "kalman", 1.2),
        Goal(f"Kalman with gaps, {kind}, over EMA", whole, "kalman, 1 % missing", 1.2),
        _against(f"Kalman with gaps, {kind}", "simdkalman", 150.0, f"Kalman, a part of {kind} "),
    )


def _growth(who: str, of: str) -> Goal:
    return Goal(
        f"{who}: exponent of time in {of}", "growth", who, 1.0, metric=f"exponent in {of}", beside=0.05
    )


_EMA, _KALMAN, _WINDOW = r"EMA, T = [\d,]+$", r"Kalman, T = ", r"moving average of \d+, T = "
_SETTINGS, _SOME, _FLOAT, _JOB = r"settings, 256 on T", r"settings, \d of", "one float", "the compare job"
GOALS = (
    _against("EMA, one stream", "scipy lfilter", 8.0, _EMA),
    _against("EMA, one stream", "pandas ewm", 15.0, _EMA),
    _against("EMA, one stream", "polars ewm_mean", 10.0, _EMA),
    _share_of_copy("EMA, one long stream", 0.9, r"EMA, T = [\d,]+, by itself"),
    Goal("debiased EMA, one stream, over EMA", _EMA, "debiased_ema", 1.2),
    Goal("Kalman, one stream, over EMA", _EMA, "kalman", 1.2),
    _against("Kalman, one stream", "compiled covariance loop", 5.0, _KALMAN),
    _against("Kalman, one stream", "statsmodels", 200.0, _KALMAN),
    _against("Kalman, one stream", "filterpy", 5000.0, _KALMAN),
    Goal("moving average, over a running sum", _WINDOW, "compiled running sum", 1.3, inverse=True),
    Goal("moving average, over bottleneck", _WINDOW, "bottleneck move_mean", 1.1, inverse=True),
    _against("moving average", "pandas rolling", 8.0, _WINDOW),
    Goal(
        "moving average: error, many samples",
        "sliding sums",
        "moving_average",
        1e-13,
        metric="error at the end",
    ),
    Goal(
        "moving average: error, spike gone",
        "sliding sums",
        "moving_average",
        1e-13,
        metric="error after a spike",
    ),
    *_channels("wide"),
    *_channels("very wide"),
    _against("256 settings", "scipy lfilter and numpy", 30.0, _SOME),
    _against("256 settings", "pandas ewm and numpy", 80.0, _SOME),
    Goal("256 settings, Kalman over EMA, K of 0.1 to 0.5", _SETTINGS, "kalman, K of 0.1 to 0.5", 1.4),
    Goal("256 settings, Kalman over EMA, same betas", _SETTINGS, "kalman, of the same betas", 1.4),
    Goal(
        "256 settings: peak memory, T of 1e6 over 1e5", "settings", "ema", 1.1, metric="growth of peak memory"
    ),
    Goal("one float: EMA tracker over an empty method", _FLOAT, "ema, tracker", 2.5),
    Goal("one float: Kalman tracker over an empty method", _FLOAT, "kalman, tracker", 4.5),
    Goal(
        "one float: filterpy over Kalman tracker",
        _FLOAT,
        "filterpy KalmanFilter",
        100.0,
        True,
        over="kalman, tracker",
    ),
    Goal("one float: EMA, pure update over an empty method", _FLOAT, "ema, pure update", 9.0),
    Goal("one float: Kalman, pure update over an empty method", _FLOAT, "kalman, pure update", 10.0),
    _against("update in place, 1,000 floats", "torch lerp_", 1.8, "update in place, 1,000 "),
    Goal(
        "update in place, the most floats, over a copy",
        r"update in place, (?!1,000 )",
        "copy",
        1.2,
        inverse=True,
    ),
    _against("compare job, the printed metrics", "numpy and scipy", 3.0, _JOB),
    _against("compare job, the printed metrics", "numpy and scipy, linear", 3.0, _JOB),
    _against("compare job, the printed metrics", "pandas script", 8.0, _JOB),
    *(
        Goal(f"{who}, wide, over Kalman", "unknown noise", who, times)
        for who, times in (
            ("mehra_kalman", 2.5),
            ("sage_husa_kalman", 2.5),
            ("robust_kalman, huber", 2.5),
            ("resetting_kalman", 2.5),
            ("robust_kalman, student_t", 4.0),
            ("variational_kalman", 4.0),
            ("switching_kalman", 25.0),
        )
    ),
    Goal("a bank of 50 over one of 26: 1.92 times the members", "bank", "bank of 50", 2.2, over="bank of 26"),
    Goal("fit, T = 100,000, ns per sample: 50 ms", r"fit, T = ", "fit", 500.0, metric="time"),
    *(_growth(who, of) for who in ("ema", "debiased_ema", "kalman", "moving_average") for of in ("T", "C")),
    Goal(
        "peak memory of a run in chunks, 20 chunks over 2",
        "chunks",
        "kalman",
        1.1,
        metric="growth of peak memory",
    ),
    Goal("first result on a warm cache, s", "start-up", "first result", 0.8, metric="time with imports"),
    Goal("import estimators, ms over numpy", "start-up", "import estimators", 20.0, metric="time over numpy"),
)
