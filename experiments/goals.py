"""What the cost experiment is to reach, as data: a figure of its summary, and the bound set for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A bound on a median: of ``metric`` of ``who`` in the contest whose name matches ``contest``.

    at_least: whether the bound is from below; over: another contestant by whose figure it is divided; inverse:
    whether the quotient is turned around, as a speed is of a time.
    """

    what: str
    contest: str
    who: str
    bound: float
    at_least: bool = False
    metric: str = "ratio"
    over: str = ""
    inverse: bool = False

    @property
    def asked(self) -> str:
        """The bound in words."""
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"

    def reached(self, summary: Any) -> float | None:
        """The figure, None where it was not measured."""
        rows = summary[(summary["metric"] == self.metric) & summary["stream"].str.match(self.contest)]
        found = rows.set_index("estimator")["median"]
        found = found[~found.index.duplicated()]
        if self.who not in found or (self.over and self.over not in found):
            return None
        value = float(found[self.who]) / (float(found[self.over]) if self.over else 1.0)
        return 1.0 / value if self.inverse else value

    def met(self, value: float) -> bool:
        """Whether a figure is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound


def _against(contest: str, who: str, times: float, us: str) -> Goal:
    return Goal(f"{us} against {who}", re.escape(contest), who, times, at_least=True)


def _share_of_copy(what: str, contest: str, share: float) -> Goal:
    return Goal(f"{what}: share of the speed of a copy", contest, "copy", share, at_least=True)


_EMA, _KALMAN, _WINDOW = "EMA, T = ", "Kalman, T = ", "moving average of 100, T = "
GOALS = (
    _against(_EMA, "scipy lfilter", 8.0, "EMA, one stream,"),
    _against(_EMA, "pandas ewm", 15.0, "EMA, one stream,"),
    _against(_EMA, "polars ewm_mean", 10.0, "EMA, one stream,"),
    _share_of_copy("EMA, one long stream", r"EMA, T = [\d,]+, by itself", 0.9),
    Goal("debiased EMA over EMA, one stream", _EMA, "debiased_ema", 1.2),
    Goal("Kalman over EMA, one stream", _EMA, "kalman", 1.2),
    _against(_KALMAN, "compiled covariance loop", 5.0, "Kalman, one stream,"),
    _against(_KALMAN, "statsmodels", 200.0, "Kalman, one stream,"),
    _against(_KALMAN, "filterpy", 5000.0, "Kalman, one stream,"),
    Goal("moving average over a running sum", _WINDOW, "compiled running sum", 1.3, inverse=True),
    Goal("moving average over bottleneck", _WINDOW, "bottleneck move_mean", 1.1, inverse=True),
    _against(_WINDOW, "pandas rolling", 8.0, "moving average"),
    Goal(
        "moving average: error in sd, long stream",
        "moving average",
        "moving_average",
        1e-13,
        metric="error at the end",
    ),
    Goal(
        "moving average: error in sd, spike gone",
        "moving average",
        "moving_average",
        1e-13,
        metric="error after a spike",
    ),
    *(
        goal
        for size in (r"EMA, \(\d+,?\d*, 1,000\)", r"EMA, \(1,000, \d+,?\d*\)")
        for goal in (
            _share_of_copy(
                f"EMA, {'wide' if size.endswith('1,000' + chr(92) + ')') else 'very wide'}", f"{size}$", 0.85
            ),
            Goal("EMA against scipy lfilter, channels", f"{size}, ", "scipy lfilter", 10.0, at_least=True),
            Goal("EMA against pandas ewm, channels", f"{size}, ", "pandas ewm", 20.0, at_least=True),
            Goal("Kalman over EMA, channels", f"{size}$", "kalman", 1.2),
            Goal("Kalman with gaps over EMA, channels", f"{size}$", "kalman, 1 % missing", 1.2),
        )
    ),
    Goal("Kalman against simdkalman, channels", r"Kalman, \(.*\) of ", "simdkalman", 150.0, at_least=True),
    Goal(
        "256 settings against lfilter",
        "settings, 8|settings, 9",
        "scipy lfilter and numpy",
        30.0,
        at_least=True,
    ),
    Goal(
        "256 settings against pandas", "settings, 8|settings, 9", "pandas ewm and numpy", 80.0, at_least=True
    ),
    Goal("256 settings, Kalman over EMA, K of 0.1 to 0.5", "settings, 256", "kalman, K of 0.1 to 0.5", 1.4),
    Goal("256 settings, Kalman over EMA, same betas", "settings, 256", "kalman, of the same betas", 1.4),
    Goal(
        "256 settings: memory over that of the samples",
        "settings",
        "ema",
        2.0,
        metric="peak memory over samples",
    ),
    Goal("one float: EMA tracker over an empty method", "one float", "ema, tracker", 2.5),
    Goal("one float: Kalman tracker over an empty method", "one float", "kalman, tracker", 4.5),
    Goal(
        "one float: filterpy over the Kalman tracker",
        "one float",
        "filterpy KalmanFilter",
        100.0,
        at_least=True,
        over="kalman, tracker",
    ),
    Goal("one float: EMA, pure update", "one float", "ema, pure update", 9.0),
    Goal("one float: Kalman, pure update", "one float", "kalman, pure update", 10.0),
    Goal(
        "update in place, 1,000 floats, against torch",
        "update in place, 1,000 floats",
        "torch lerp_",
        1.8,
        at_least=True,
    ),
    Goal(
        "update in place, many floats, over a copy",
        r"update in place, \d+,\d+,\d+",
        "copy",
        1.2,
        inverse=True,
    ),
    Goal(
        "compare job against numpy and scipy",
        "the compare job",
        "numpy and scipy, the printed ones",
        3.0,
        at_least=True,
    ),
    Goal(
        "compare job against a pandas script",
        "the compare job",
        "a plain pandas script, the printed ones",
        8.0,
        at_least=True,
    ),
    *(
        Goal(
            f"growth of {who} with {of}: {side}",
            "growth",
            who,
            bound,
            at_least=at_least,
            metric=f"exponent in {of}",
        )
        for who in ("ema", "kalman", "moving_average")
        for of in ("T", "C")
        for side, bound, at_least in (("at least", 0.95, True), ("at most", 1.05, False))
    ),
    Goal(
        "peak memory of a run in chunks, ten times as long over once",
        "chunks",
        "kalman",
        1.1,
        metric="growth of peak memory",
    ),
    Goal("first result on a warm cache, s", "start-up", "first result", 0.8, metric="time with imports"),
    Goal("import estimators, ms over numpy", "start-up", "import estimators", 20.0, metric="time over numpy"),
)
