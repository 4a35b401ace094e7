"""What a step costs: rows of every contestant, answers that are checked, settings that are named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments import optimiser_cost
from experiments.peers import Contestant
from experiments.summaries import COLUMNS

torch = pytest.importorskip("torch")

QUICK = ("experiment=optimiser_cost", "experiment.rounds=2", "experiment.sizes=[1000,2000]")


def test_every_contestant_has_a_time_a_ratio_and_its_state(
    kalmean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.cost.TURN", 1e-4)
    threads = torch.get_num_threads()
    folder = kalmean(*QUICK).folder
    assert torch.get_num_threads() == threads
    table = pd.read_csv(folder / "table.csv")
    assert list(table.columns) == COLUMNS
    assert list(table["stream"].unique()) == ["1,000 parameters", "2,000 parameters"]
    first = table[table["estimator"] == optimiser_cost.ADAM]
    assert np.all(first.loc[first["metric"] == "ratio", "value"] == 1.0)
    entered = {c.name for c in optimiser_cost.contestants(1000, "cpu") if not c.missing()}
    assert set(table["estimator"]) == entered
    state = table[table["metric"] == "state"].set_index(["stream", "estimator"])["value"]
    for who in (optimiser_cost.OURS, optimiser_cost.WITH_KALMAN):
        assert state["1,000 parameters", who] == 8.0  # two moments in single precision, no more
    text = (folder / "summary.md").read_text(encoding="utf-8")
    assert "FilteredAdam, Kalman first, 1,000,000" in text
    assert "not measured" in text
    # The width of its tables hangs on the times.
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 110
    assert (folder / "figures" / "optimiser_cost.png").stat().st_size > 10_000


def test_another_answer_is_refused(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    contestants = optimiser_cost.contestants

    def with_a_stranger(count: int, device: str) -> list[Contestant]:
        return [
            *list(contestants(count, device))[:1],
            Contestant("stranger", lambda: lambda: np.zeros(50, np.float32), count, (), 1e-6),
        ]

    monkeypatch.setattr(optimiser_cost, "contestants", with_a_stranger)
    said = refused("experiment=optimiser_cost", "experiment.sizes=[1000]")
    assert "stranger differs from torch AdamW, foreach" in said


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("experiment.rounds=0", "experiment.rounds=0 is not valid; it must be an int >= 1"),
        ("experiment.scale=2", "experiment.scale=2.0 is not valid; it must be in (0, 1]"),
        ("experiment.sizes=[5]", "experiment.sizes=5 is not valid; it must be numbers of parameters >= 20"),
        ("experiment.sizes=[]", "experiment.sizes=0 is not valid"),
        ("match=delay", "experiment=optimiser_cost has settings of its own"),
    ],
)
def test_settings_that_cannot_be_are_named(refused: Any, setting: str, expected: str) -> None:
    assert expected in refused("experiment=optimiser_cost", setting)
