"""Whether simulated means agree with the closed forms that state them: how many are too far off."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.metrics import Measured
from experiments.summaries import CONFIDENCE

EXPECTED = "_expected"
"""What the metric of a closed form is called, after the measured one whose mean it states."""
BEYOND = 3.0
"""Standard errors within which 99.73 % of all means of very many cells lie."""
ROUNDING = 1e-9
"""Of the closed form: what cells that do not differ among themselves may differ from it by."""
_KEYS = ["metric", "estimator", "parameters", "stream"]


class Agreement(NamedTuple):
    """Of means that have a closed form, how many lie too far from it, and how many would by chance."""

    pairs: int
    beyond: int
    by_chance: float
    furthest: str

    def __str__(self) -> str:
        if not self.pairs:
            return "No closed form is compared with a simulation here."
        return (
            f"Closed forms and simulation: {self.beyond} of {self.pairs:,} means lie more than {BEYOND:g} "
            f"standard errors from the\nclosed form, {self.by_chance:.2g} would by chance. "
            f"Furthest:\n{self.furthest}."
        )


def closed_form(metric: str, unit: str, value: float, repetitions: int) -> Measured:
    """The measurement that states what the mean of another, of the same name, should be."""
    return Measured(metric + EXPECTED, unit, np.full(repetitions, value))


def distances(summary: pd.DataFrame) -> pd.DataFrame:
    """Each mean of two cells or more that has a closed form: its distance, in standard errors, and n.

    Infinite where cells that are all the same are not what the closed form says.
    """
    from scipy.special import stdtrit

    told = summary[summary["metric"].str.endswith(EXPECTED)]
    told = told.assign(metric=told["metric"].str.removesuffix(EXPECTED))[[*_KEYS, "mean"]]
    both = summary.merge(told.rename(columns={"mean": "closed"}), on=_KEYS)
    both = both[(both["n"] > 1) & np.isfinite(both["closed"])]
    error = (both["high"] - both["mean"]) / stdtrit(both["n"] - 1, 0.5 + 0.5 * CONFIDENCE)
    off, slack = np.abs(both["mean"] - both["closed"]), ROUNDING * np.abs(both["closed"])
    exact = error <= slack
    away = np.where(exact, np.where(off <= slack, 0.0, np.inf), off / np.where(exact, 1.0, error))
    found: pd.DataFrame = both[[*_KEYS, "n"]].assign(away=away, exact=exact)
    return found


def agreement(summary: pd.DataFrame) -> Agreement:
    """Compare each mean of a summary with its closed form, where it has one.

    By chance: by Student's t of n - 1 degrees of freedom for each, as for means of Gaussian cells.
    """
    from scipy.special import stdtr

    found = distances(summary)
    if found.empty:
        return Agreement(0, 0, 0.0, "")
    away = found["away"].to_numpy()
    chance = np.where(found["exact"], 0.0, 2.0 * stdtr(found["n"] - 1, -BEYOND))
    first = found.iloc[int(np.argmax(away))]
    name = " ".join(str(first[key]) for key in _KEYS if first[key])
    beyond = int((away > BEYOND).sum())
    return Agreement(len(found), beyond, float(chance.sum()), f"{name}, by {away.max():.1f}")
