"""The recall experiment: rows, words that follow from the numbers, what the claims are told, refusals."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="recall needs the extra 'training': scikit-learn is absent")

from experiments import recall, recall_memories, recall_tasks
from experiments.goals import Goal
from experiments.job import Job
from experiments.recall import Parameters, goals, judged
from experiments.recall_report import LAGS, PRECISE, Found, findings, inequality, payload_stream
from experiments.recall_tasks import (
    BEST,
    CEILING,
    ENTROPY,
    IDENTITY_LAGS,
    OLDER,
    ROWS,
    SIGMAS,
    TRACES_LINEAR,
    stream_of,
)
from experiments.recorder import MissingExtraError
from experiments.summaries import COLUMNS

SMALL = "experiment=recall", *(f"experiment.{name}=400" for name in ("roles", "identity", "payloads"))


@pytest.fixture
def small(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(recall_tasks, "TESTED", 100)
    monkeypatch.setattr(recall, "_identity_figure", lambda *_: None)
    monkeypatch.setattr(recall, "_memory_figure", lambda *_: None)
    monkeypatch.setattr("experiments.runs.RunFolder._draw", lambda self, figures, folder, command: None)
    return lambda *overrides, **more: kalmean(*SMALL, *overrides, **more)


# --- rows and words ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_and_text_and_what_the_claims_are_told(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = small("seeds=1", "root_seed=3")
    table = ran.table
    assert list(table.columns) == COLUMNS
    identity = [f"identity sigma={sigma:g} lag {lag}" for sigma in SIGMAS for lag in IDENTITY_LAGS]
    assert {"roles", *identity, *(f"payload lag {lag}" for lag in LAGS)} <= set(table["stream"])
    accuracy = table[table["metric"] == "accuracy"]
    assert (accuracy["unit"] == "share").all()
    assert accuracy["value"].between(0.0, 1.0).all()
    assert (accuracy.groupby("stream")["estimator"].first() == TRACES_LINEAR).all()
    told = table[table["metric"] == "accuracy_expected"].set_index(["stream", "estimator"])["value"]
    assert told.to_dict() == {
        ("roles", "majority"): 0.4,
        ("payload lag 12", "window of 12, linear"): 1 / 16,
        ("payload lag 16", "window of 12, linear"): 1 / 16,
        ("payload lag 32", "window of 12, linear"): 1 / 16,
    }
    closed = table[table["metric"] == "loss_gap_closed"]
    assert (closed.loc[closed["value"].isna(), "status"] == "gap within sampling error").all()
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 110
    for part in ("Roles:", "Identity:", "Payload:", "Goals:", "What the data-processing", "No closed form"):
        assert f"\n{part}" in text
    assert "nan" not in text
    assert ("torch is not installed" in " ".join(text.split())) != recall_memories.has_torch()

    monkeypatch.setattr(recall, "Parameters", lambda: Parameters(400, 400, 400))
    pooled = closed.set_index("stream").loc[[stream_of(sigma) for sigma in SIGMAS], "value"]
    assert recall.gap_closed(1, 3).tolist() == [[value] for value in pooled]
    if recall_memories.has_torch():
        roles = accuracy[accuracy["stream"] == "roles"].set_index("estimator")["value"]
        assert recall.structure_share(1, 3).tolist() == [roles[TRACES_LINEAR] / roles["GRU"]]


@pytest.mark.slow
def test_the_same_seeds_give_the_same_bytes_and_torch_is_optional(
    small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch = recall_memories.has_torch()
    first = small("seeds=2", output="one")
    again = small("seeds=2", output="two")
    for name in ("table.csv", "summary.csv", "summary.md", "summary.tex"):
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes()
    monkeypatch.setitem(sys.modules, "torch", None)
    without = small("seeds=1", output="three")
    text = " ".join((without.folder / "summary.md").read_text(encoding="utf-8").split())
    assert text.count("as torch is not installed") == 2
    table = first.table
    learned = table["estimator"].isin(["GRU", recall_tasks.LEARNED])
    assert learned.any() == with_torch
    assert table[~learned & (table["seed"] == 0)].reset_index(drop=True).equals(without.table)
    by_seed = table[table["metric"] == "loss"].groupby("seed")["value"].apply(list)
    assert by_seed[0] != by_seed[1]


# --- sentences follow from the numbers --------------------------------------------------------------------


def made_up(**changes: float) -> Found:
    """Figures of three repetitions as the reference measured them, save for the changes."""
    values: dict[tuple[str, str, str], Any] = {}
    spread = np.array([-0.001, 0.0, 0.001])

    def put(stream: str, row: str, metric: str, value: float) -> None:
        values[stream, row, metric] = value + spread

    roles = {TRACES_LINEAR: 0.96, "bag of words, linear": 0.66, "bag of words, MLP": 0.65, "GRU": 1.0}
    roles |= {"fast trace, linear": 0.96, recall_tasks.WINDOWED_ROLES: 1.0}
    for row, value in roles.items():
        put("roles", row, "accuracy", changes.get(row, value))
    linear, stronger = ROWS["linear"], changes.get("stronger", 0.0)
    for sigma in SIGMAS:
        for lag in IDENTITY_LAGS:
            at = stream_of(sigma, lag)
            gain = 0.4 if (sigma, lag) == (0.05, 1) else stronger
            for row in (*ROWS.values(), BEST):
                own = 0.0 if row == linear else gain
                put(at, row, "accuracy", 0.45 + own)
                put(at, row, "loss", 1.2 - own)
                put(at, row, "short_of_ceiling", 0.5 - own)
                values[at, row, "short_of_ceiling_error"] = np.full(3, 0.01)
            put(at, CEILING, "accuracy", 0.95)
            put(at, CEILING, "loss", changes.get("ceiling_loss", 0.7))
            put(at, BEST, "loss_gap_closed", gain / 0.5)
        put(stream_of(sigma), BEST, "loss_gap_closed", stronger / 0.5)
    for gain in recall_memories.PRECISE_GAINS:
        for kept_as in recall_memories.FORMATS:
            put(recall_memories.precision_stream(gain, kept_as), PRECISE, "tokens_recovered", 50.0)
    for lag in LAGS:
        at, inside = payload_stream(lag), lag in {"0", "1", "4", "8", "11"}
        put(at, TRACES_LINEAR, "accuracy", 0.3)
        put(at, recall_tasks.TRACES_MLP, "accuracy", 0.3 + changes.get("MLP", 0.0))
        put(at, "3 traces, kNN", "accuracy", 0.2)
        put(at, recall_tasks.DECODED, "accuracy", changes.get("decoded", 0.1))
        put(at, recall_tasks.WINDOWED, "accuracy", 1.0 if inside else 0.06)
        put(at, recall_tasks.GATED, "accuracy", changes.get("gated", 1.0))
        put(at, recall_tasks.LEARNED, "accuracy", 1.0)
    return Found(values)


def test_goals_are_reached_by_what_the_reference_measured() -> None:
    said = [*goals(made_up())]
    assert len(said) == 12
    missed = [one for one in said if "missed" in one]
    assert not missed, missed


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({TRACES_LINEAR: 0.88}, ["Roles, 3 traces, linear:"]),
        ({"bag of words, MLP": 0.8}, ["Roles, bag of words:"]),
        ({"stronger": 0.05}, ["Identity, each stronger predictor over linear"]),
        ({"MLP": 0.5}, ["Payload, 3 traces, MLP less linear"]),
        ({"gated": 0.5}, ["Payload, gate set by hand"]),
        ({"stronger": 0.6}, ["Identity, any predictor over the ceiling", "Identity, each stronger"]),
    ],
)
def test_a_goal_is_missed_where_its_figure_is(changes: dict[str, float], missed: list[str]) -> None:
    said = [one for one in goals(made_up(**changes)) if one.endswith("missed.")]
    assert len(said) == len(missed)
    for one, begins in zip(said, missed, strict=True):
        assert one.startswith(begins)


def test_a_verdict_names_the_worst_and_says_where_chance_could_turn_it() -> None:
    goal = Goal("What", "", "", 0.9, at_least=True, metric="accuracy")
    ones = {"a": np.array([0.95, 0.97]), "b": np.array([0.88, 0.94])}
    assert judged(goal, ones) == "What: asked >= 0.9, found 0.9 ± 0.4 (b): reached, by less than its ±."
    assert judged(goal, {"": np.array([0.5, 0.5, 0.5])}) == "What: asked >= 0.9, found 0.5: missed."


def test_what_the_inequality_bounds_is_told_from_the_predictors_own() -> None:
    text = " ".join(inequality(made_up(stronger=0.25)))
    known = 100.0 * (1.0 - 0.7 / ENTROPY)
    assert f"the traces know {known:.1f}" in text
    assert "58.3" in text  # 0.7 of 1.2 nats are the state's
    assert text.count("stated is 0, which the interval excludes") == len(SIGMAS)
    assert text.count("lags 1, 2, 3, 5 pooled, the best stronger one closes") == len(SIGMAS)
    none = " ".join(inequality(made_up()))
    assert none.count("stated is 0, which the interval holds") == len(SIGMAS)
    assert f"lag {OLDER[0]}: 0.80" in none
    all_of_it = " ".join(inequality(made_up(ceiling_loss=0.0)))
    assert "the traces know 100.00" in all_of_it or "the traces know 100.0 " in all_of_it


def test_a_lag_without_a_gap_has_no_share_and_counts_among_all() -> None:
    found = made_up(stronger=0.25)
    nothing = {
        key: np.full(3, np.nan) if key[0].endswith("lag 3") else own for key, own in found.values.items()
    }
    said = " ".join(inequality(Found({**found.values, **nothing})))
    assert "lag 2: 0.50, lag 5: 0.50)" in said
    assert said.count("stated is 0, which the interval excludes") == len(SIGMAS)


def test_findings_compare_and_say_ties() -> None:
    said = " ".join(findings(made_up()))
    assert "reach 0.96000 ± 0.00010 of the GRU's accuracy (stated: 0.96" in said
    assert f"fast trace, linear, ties within 0.005 with {TRACES_LINEAR}" in said
    assert f"{recall_tasks.WINDOWED_ROLES}, is better by 0.04 than {TRACES_LINEAR}" in said
    assert "at no lag, as far as these readers can tell" in said
    assert "window of 12, linear, names 0.99 or more at lags 0, 1, 4, 8, 11; less at 12 (" in said
    other = " ".join(findings(made_up(decoded=0.9, **{"fast trace, linear": 0.5})))
    assert "lag 1 by 0.6" in other
    assert "fast trace, linear, is worse by 0.46" in other


# --- what the claims are told -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_stronger_predictor_closes_a_part_of_the_gap_and_structure_is_kept() -> None:
    shares = recall.gap_closed()
    assert shares.shape == (len(SIGMAS), 4)
    assert (shares > 0.2).all()  # stated is 0
    pytest.importorskip("torch")
    assert 0.96 < recall.structure_share().mean() <= 1.01


def test_claims_name_the_absent_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"^recall needs torch and scikit-learn"):
        recall.structure_share()
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingExtraError, match=r"^recall needs scikit-learn"):
        recall.gap_closed()


# --- figures ----------------------------------------------------------------------------------------------


def test_figures_show_every_memory() -> None:
    found = made_up()
    identity = recall._identity_figure(found)
    assert len(identity.axes) == len(SIGMAS)
    assert len(identity.axes[0].containers) == 1 + len(ROWS)
    memory = recall._memory_figure(found)
    left, right = memory.axes
    assert left.get_yticklabels()[0].get_text() == TRACES_LINEAR
    assert len(right.containers) == 7
    left, *others = (container.lines[0].get_xdata() for container in right.containers)
    assert all((other > left).all() for other in others)  # equal lines do not hide each other
    for axis in (*identity.axes, *memory.axes):
        assert axis.get_xlabel()


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("match=noise_gain", "experiment=recall has settings of its own; leave match and tune at none"),
        ("experiment.roles=399", "experiment.roles=399 is not valid; it must be an int >= 400"),
        ("experiment.identity=0", "experiment.identity=0 is not valid; it must be an int >= 400"),
        ("experiment.payloads=-1", "experiment.payloads=-1 is not valid; it must be an int >= 400"),
    ],
)
def test_what_is_refused(override: str, message: str, refused: Any) -> None:
    assert refused("experiment=recall", override) == message


def test_a_run_without_torch_is_not_that_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    assert Parameters() == Parameters(packages="sklearn+torch")
    with pytest.raises(
        ValueError, match=r"^experiment\.packages='jax' is not valid; .* is 'sklearn\+torch'$"
    ):
        Parameters(packages="jax")
    folder = Job.of(SMALL).folder.path
    monkeypatch.setitem(sys.modules, "torch", None)
    assert Parameters().packages == "sklearn"
    assert Job.of(SMALL).folder.path != folder


@pytest.mark.parametrize("absent", ["sklearn.linear_model", "threadpoolctl"])
def test_an_absent_extra_is_named(absent: str, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    said = refused("experiment=recall")
    assert said == "experiment=recall needs scikit-learn: pip install 'kalmean[training]'"
