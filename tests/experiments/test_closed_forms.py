"""Closed forms against simulation, wherever experiments state both: too far off as often as by chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtr

from experiments.agreement import EXPECTED, distances
from experiments.job import completed

pytestmark = pytest.mark.slow

SEEDS = range(5)
"""Root seeds: runs of one experiment that have nothing in common but what is measured."""
SMALL = {
    "startup": "experiment.streams=10 experiment.betas=[0.9] experiment.samples=99 experiment.probes=[1,99]",
    "transition": "experiment.steps=2000 experiment.betas=[0.5,0.9,0.99]",
    "tradeoff": "stream.steps=2000 experiment.windows=[4,19,99]",
    "domain": "stream.steps=1000 experiment.ratios=[1,100] estimators=[ema,moving_average]",
    "memory": "stream.steps=1000 experiment.steps=2000 experiment.repetitions=20",
}
"""The experiments with closed forms of what is simulated, each at a size of seconds."""


@pytest.fixture(scope="module")
def summaries(tmp_path_factory: pytest.TempPathFactory) -> list[pd.DataFrame]:
    """Summaries of small runs: of each experiment, with each root seed."""
    output, found = tmp_path_factory.mktemp("runs"), []
    for name, small in SMALL.items():
        for seed in SEEDS:
            settings = f"experiment={name} seeds=20 root_seed={seed} output={output} {small}"
            summary = pd.read_csv(completed(settings.split()).path / "summary.csv")
            found.append(summary.fillna({"parameters": ""}))
    return found


def excess(summaries: list[pd.DataFrame], errors: float) -> tuple[float, float]:
    """Share of means more than so many standard errors off, less the share by chance, and its own error.

    Means of one run share its streams, and are off together: what is independent are the runs, over which
    the error is taken. It is no less than what one run more would make.
    """
    found = [own[~own["exact"]] for own in map(distances, summaries)]
    chance = [float(2.0 * stdtr(own["n"] - 1, -errors).mean()) for own in found]
    more = [float((own["away"] > errors).mean()) - share for own, share in zip(found, chance, strict=True)]
    error = np.std(more, ddof=1) / np.sqrt(len(more))
    return float(np.mean(more)), max(float(error), float(np.mean(chance)) / len(more))


@pytest.mark.parametrize("errors", [1.0, 2.0, 3.0])
def test_means_are_as_far_from_closed_forms_as_chance_says(
    summaries: list[pd.DataFrame], errors: float
) -> None:
    more, error = excess(summaries, errors)
    assert abs(more) <= 3.5 * error


def test_closed_forms_that_are_off_by_a_standard_error_are_noticed(summaries: list[pd.DataFrame]) -> None:
    moved = []
    for one in summaries:
        closed = one["metric"].str.endswith(EXPECTED)
        off = (0.5 * (one["high"] - one["mean"])).where(~closed, 0.0)
        moved.append(one.assign(mean=one["mean"] + off, high=one["high"] + off))
    more, error = excess(moved, 1.0)
    assert more > 3.5 * error


def test_what_owes_nothing_to_chance_is_what_the_closed_form_says(summaries: list[pd.DataFrame]) -> None:
    for one in summaries:
        found = distances(one)
        assert len(found) > 2
        assert np.isfinite(found["away"]).all()
