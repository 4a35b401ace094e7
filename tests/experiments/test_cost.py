"""Contests are fair: equal work, checked before it is timed; goals are judged by their figures."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import cost, script, workloads
from experiments.__main__ import main
from experiments.cells import every_metric
from experiments.goals import GOALS, Goal
from experiments.job import Job
from experiments.peers import Contest, Contestant

SMALL = ["experiment=cost", "experiment.scale=0.002", "experiment.rounds=2"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    output = tmp_path_factory.mktemp("cost")
    assert main([*SMALL, f"output={output}"]) == 0
    (folder,) = (output / "runs").iterdir()
    return SimpleNamespace(folder=folder, table=pd.read_csv(folder / "table.csv"))


def answer(name: str, value: Any, **settings: Any) -> Contestant:
    return Contestant(name, lambda: lambda: value, 10, **settings)


@pytest.mark.slow
def test_the_table_is_long_and_the_summary_gives_medians(small: Any) -> None:
    table = small.table
    assert list(table.columns) == [
        "experiment", "estimator", "parameters", "stream", "seed", "metric", "value", "unit", "status",
    ]  # fmt: skip
    assert (table["status"] == "ok").all()
    times = table[table["metric"] == "time"]
    assert set(times["seed"]) == {0, 1}
    ratios = table[table["metric"] == "ratio"]
    firsts = times.groupby("stream", sort=False)["estimator"].first()
    of_first = ratios[ratios["estimator"] == ratios["stream"].map(firsts)]
    assert (of_first["value"] == 1.0).all()
    summary = pd.read_csv(small.folder / "summary.csv")
    row = summary[(summary["stream"] == "one float") & (summary["metric"] == "time")].iloc[0]
    own = times[(times["stream"] == "one float") & (times["estimator"] == row["estimator"])]["value"]
    assert row["median"] == pytest.approx(own.median())
    assert (row["low"], row["high"]) == (own.min(), own.max())


@pytest.mark.slow
def test_everything_asked_for_is_in_the_report(small: Any) -> None:
    text = (small.folder / "summary.md").read_text(encoding="utf-8")
    for name in ("scipy lfilter", "pandas ewm", "filterpy", "empty method", "the compare job", "limits"):
        assert name in text
    for goal in GOALS:
        assert goal.what in text
    assert (small.folder / "figures" / "cost.png").stat().st_size > 10_000
    assert "stated at scale 1; this run has 0.002" in text


def test_a_wrong_answer_is_refused_before_anything_is_timed() -> None:
    wrong = np.array([1.0, 1.0, 1.1])
    contest = Contest("sums", [answer("ours", np.ones(3)), answer("theirs", wrong)])
    with pytest.raises(
        ValueError, match=r"sums: theirs differs from ours by 1\.0e-01; at most 1e-09 is allowed"
    ):
        cost.split(contest)
    nothing = Contest("sums", [answer("ours", np.ones(3)), answer("theirs", np.full(3, np.nan))])
    with pytest.raises(ValueError, match="theirs gives other numbers, or other gaps, than ours"):
        cost.split(nothing)


@pytest.mark.slow
def test_who_is_absent_is_named_and_skipped(monkeypatch: pytest.MonkeyPatch, kalmean: Any) -> None:
    def only(sized: Any) -> Any:
        theirs = answer("theirs", np.ones(3), needs=["no_such_package"])
        yield Contest("ones", [answer("ours", np.ones(3)), theirs])

    monkeypatch.setitem(workloads.WORKLOADS, "one_stream", only)
    ran = kalmean(*SMALL, "experiment.workloads=[one_stream]")
    assert set(ran.table.loc[ran.table["stream"] == "ones", "estimator"]) == {"ours"}
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert "- theirs in ones: no_such_package is absent" in text


@pytest.mark.parametrize(
    ("goal", "value", "met"),
    [
        (Goal("speed", "a", "them", 2.0, at_least=True), 3.0, True),
        (Goal("speed", "a", "them", 3.5, at_least=True), 3.0, False),
        (Goal("cost", "a", "them", 0.4, inverse=True), 1.0 / 3.0, True),
        (Goal("cost", "a", "them", 2.0, over="others"), 1.5, True),
        (Goal("cost", "b", "them", 2.0), None, False),
        (Goal("cost", "a", "nobody", 2.0), None, False),
    ],
)
def test_a_verdict_follows_from_the_figure(goal: Goal, value: float | None, met: bool) -> None:
    summary = pd.DataFrame(
        {"stream": "a, T = 10", "estimator": ["them", "others"], "metric": "ratio", "median": [3.0, 2.0]}
    )
    assert goal.reached(summary) == (None if value is None else pytest.approx(value))
    if value is not None:
        assert goal.met(value) is met


@pytest.mark.slow
def test_every_goal_has_its_figure(small: Any) -> None:
    """Where every peer is installed; a goal that no contest serves would stay unmeasured for ever."""
    summary = pd.read_csv(small.folder / "summary.csv")
    absent = (small.folder / "summary.md").read_text(encoding="utf-8").partition("Not entered:")[2]
    for goal in GOALS:
        assert goal.reached(summary) is not None or f"- {goal.who} in" in absent, goal


def test_our_own_goals_miss_where_we_are_slow() -> None:
    """Every ratio turned against us, by made-up figures: no goal may read it the other way around."""
    slow = {"copy": 0.1, "compiled running sum": 0.2, "bottleneck move_mean": 0.2, "ema, tracker": 9.0}
    slow |= {"kalman, tracker": 9.0, "kalman": 3.0, "debiased_ema": 3.0, "kalman, 1 % missing": 3.0}
    slow |= {"ema, pure update": 30.0, "kalman, pure update": 30.0, "filterpy KalmanFilter": 10.0}
    slow |= {"kalman, K of 0.1 to 0.5": 3.0, "kalman, of the same betas": 3.0, "bank of 50": 30.0}
    adapting = "mehra", "sage_husa", "resetting", "variational", "switching"
    slow |= {f"{name}_kalman": 30.0 for name in adapting}
    slow |= {"robust_kalman, huber": 30.0, "robust_kalman, student_t": 30.0}
    for goal in GOALS:
        if goal.metric == "ratio":
            figures = pd.DataFrame({"estimator": [goal.who, goal.over or "another"]})
            figures["median"] = figures["estimator"].map(slow).fillna(1.0)
            figures["metric"] = "ratio"
            figures["stream"] = "x"
            value = replace(goal, contest="x").reached(figures)
            assert value is not None
            assert not goal.met(value), goal


def test_times_are_nanoseconds_per_sample() -> None:
    entered = [(answer("slow", None), lambda: time.sleep(0.03)), (answer("fast", None), lambda: None)]
    rows = pd.DataFrame(cost.timed("naps", entered, 2))
    slow = rows[(rows["estimator"] == "slow") & (rows["metric"] == "time")]["value"]
    assert (slow > 1e9 * 0.03 / 10).all()
    assert (slow < 1e9).all()


@pytest.mark.parametrize(
    ("job", "given"), [(script.numpy_job, ()), (script.numpy_job, (True,)), (script.pandas_job, ())]
)
def test_the_scripts_of_the_job_give_its_numbers(job: Any, given: Any) -> None:
    setup = Job.of(["seeds=3", "stream.steps=3000"]).setup
    condition = setup.condition(every_metric)
    ours = {
        (name, one.metric): one.values
        for name, estimator in setup.estimators.items()
        for one in every_metric(condition, estimator, range(3))
    }
    found = job(setup, range(3), *given)
    for name, values in found.items():
        for metric, row in zip(script.METRICS, values, strict=True):
            assert (name, metric) in ours or (metric == "coverage" and name != "kalman")
            if (name, metric) in ours:
                np.testing.assert_allclose(row, ours[name, metric], rtol=1e-7, err_msg=f"{name} {metric}")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("experiment.rounds=0", "experiment.rounds=0 is not valid; it must be an int >= 1"),
        ("experiment.scale=0", "experiment.scale=0.0 is not valid; it must be in (0, 1]"),
        ("experiment.workloads=[none]", "experiment.workloads=none is not valid; it must be of one_stream"),
        ("experiment.workloads=[]", "experiment.workloads=[] is not valid; it must name each of some of"),
        ("experiment.workloads=[job,job]", "experiment.workloads=['job', 'job'] is not valid"),
        ("tune=rmse", "tune=rmse is not valid with experiment=cost, which has settings of its own"),
    ],
)
def test_what_is_refused(setting: str, message: str, refused: Any) -> None:
    assert refused("experiment=cost", setting).startswith(message)
