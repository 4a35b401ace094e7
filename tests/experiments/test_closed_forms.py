"""Closed forms against simulation, wherever experiments state both: too far off as often as by chance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtr

from experiments.agreement import EXPECTED, distances
from experiments.job import completed

pytestmark = pytest.mark.slow

SEEDS = range(8)
"""Root seeds: runs of one experiment that have nothing in common but what is measured."""
SMALL = {
    "startup": "experiment.streams=10 experiment.betas=[0.9] experiment.samples=99 experiment.probes=[1,99]",
    "transition": "experiment.steps=2000 experiment.betas=[0.5,0.99]",
    "tradeoff": "stream.steps=2000 experiment.windows=[4,99]",
    "domain": "stream.steps=1000 experiment.ratios=[100] experiment.log_sds=[1] estimators=[ema]",
    "memory": "stream.steps=1000 experiment.drifts=[0.01] experiment.steps=2000 experiment.repetitions=20",
}
"""The experiments with closed forms of what is simulated, each at a size of seconds."""
KEYS = ["experiment", "stream", "estimator", "parameters", "metric"]
FAR = 5.0
"""Standard errors that no mean over all runs is off by chance."""


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


def pooled(summaries: list[pd.DataFrame]) -> pd.Series:
    """How far each mean over all runs is from its closed form, in standard errors; what varies alone."""
    every = pd.concat(summaries)
    every = every[every["n"] > 1].assign(
        square=lambda own: (0.48 * (own["high"] - own["mean"])) ** 2
    )  # 1/t19
    grouped = every.groupby(KEYS, sort=False)[["mean", "square"]].agg(
        {"mean": ["mean", "count"], "square": "sum"}
    )
    grouped.columns = pd.Index(["mean", "runs", "square"])
    own = grouped.reset_index()
    told = own[own["metric"].str.endswith(EXPECTED)]
    told = told.assign(metric=told["metric"].str.removesuffix(EXPECTED)).rename(columns={"mean": "closed"})
    both = own.merge(told[[*KEYS, "closed"]], on=KEYS)
    error = np.sqrt(both["square"]) / both["runs"]
    varies = error > 1e-9 * both["closed"].abs()
    away = ((both["mean"] - both["closed"]) / error)[varies]
    return away.set_axis(both.loc[varies, KEYS].agg(" ".join, axis=1))


def test_no_closed_form_is_wrong(summaries: list[pd.DataFrame]) -> None:
    away = pooled(summaries)
    assert len(away) > 50
    assert away.abs().max() < FAR, away[away.abs() >= FAR]


def test_a_closed_form_that_is_wrong_is_noticed_and_no_other(summaries: list[pd.DataFrame]) -> None:
    """Off by two and a half errors that the mean of one run has."""
    fair, names = pooled(summaries), [one[KEYS].agg(" ".join, axis=1) for one in summaries]
    times = pd.concat(names).value_counts()
    everywhere = fair[times.reindex(fair.index) == len(SEEDS)]  # tuned settings differ from run to run
    assert len(everywhere) > 50
    for name, away in everywhere.iloc[::5].items():
        moved = []
        for one, own in zip(summaries, names, strict=True):
            error = (0.48 * (one["high"] - one["mean"]))[own == name].sum()
            off = np.where(own == f"{name}{EXPECTED}", -2.5 * np.copysign(error, away), 0.0)
            moved.append(one.assign(mean=one["mean"] + off))
        found = pooled(moved)
        assert abs(found[name]) > FAR
        assert found.drop(name).equals(fair.drop(name))


@pytest.mark.parametrize("errors", [1.0, 2.0, 3.0])
def test_means_are_as_far_from_closed_forms_as_chance_says(
    summaries: list[pd.DataFrame], errors: float
) -> None:
    """Means of one run share its streams, and are off together: independent are the runs."""
    found = [own[~own["exact"]] for own in map(distances, summaries)]
    more = [float((own["away"] > errors).mean() - 2.0 * stdtr(own["n"] - 1, -errors).mean()) for own in found]
    error = np.std(more, ddof=1) / np.sqrt(len(more))
    chance = 2.0 * stdtr(19, -errors)
    assert abs(np.mean(more)) <= 3.0 * max(float(error), float(chance) / len(more))


def test_what_owes_nothing_to_chance_is_what_the_closed_form_says(summaries: list[pd.DataFrame]) -> None:
    for one in summaries:
        found = distances(one)
        assert len(found) > 1
        assert np.isfinite(found["away"]).all()
