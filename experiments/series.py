"""What was estimated, sample by sample, as a long table that can be read without running anything again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from estimators import FilterResult
from experiments.metrics import LEVEL

COLUMNS = ["time", "what", "value", "low", "high", "unit", "of"]
SAMPLES, TRUTH = "samples", "true level"
MOST = 2000
"""Samples of a series that are kept; of a longer one each second, third and so on."""


def estimated(
    samples: Any,
    runs: Mapping[str, FilterResult],
    unit: str,
    of: str,
    window: slice = slice(None),
    level: Any = None,
) -> pd.DataFrame:
    """Samples, true level and the estimates with their stated 95 % intervals, of the first channel.

    Rows of `COLUMNS`: ``time`` in samples from the stream's first, ``what`` one of `SAMPLES`, `TRUTH` and the
    names of the runs, ``of`` a few words on all. ``low`` and ``high`` are NaN where no interval is stated.
    What is longer than `MOST` is thinned to every k-th sample.
    """
    time = np.arange(len(samples))[window]
    time = time[:: -(-len(time) // MOST) or 1]

    def part(what: str, values: Any, bounds: Any = None) -> pd.DataFrame:
        low, high = (_first(bound)[time] for bound in bounds) if bounds is not None else (np.nan, np.nan)
        columns = {"time": time, "what": what, "value": _first(values)[time], "low": low, "high": high}
        return pd.DataFrame({**columns, "unit": unit, "of": of})

    parts = [part(SAMPLES, samples)]
    if level is not None:
        parts.append(part(TRUTH, level))
    parts += [part(name, run.mean, run.interval(LEVEL)) for name, run in runs.items()]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _first(values: Any) -> Any:
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(len(array), -1)[:, 0]
