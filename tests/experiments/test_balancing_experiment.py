"""Two losses weighed in training: the networks at once as each alone, rows, words, and what is refused."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'training': scikit-learn is absent")
torch = pytest.importorskip("torch", reason="training needs the extra 'training': torch is absent")

from experiments import balancing, recorder  # noqa: E402
from experiments.balancing import DOMAINS, SCALES, Method, Parameters, trained  # noqa: E402
from experiments.summaries import COLUMNS  # noqa: E402

SMALL = (
    "experiment=balancing",
    "estimators=[ema,kalman]",
    "experiment.steps=12",
    "experiment.batch_size=16",
    "experiment.warmup=4",
)
CONTROLS = ["equal", "random", "grad_norm"]
METRICS = {"accuracy", "rmse", "floor_share", "weight"}


@pytest.fixture
def small(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(balancing, "_figure", lambda *_: None)
    monkeypatch.setattr("experiments.runs.RunFolder._draw", lambda self, figures, folder, command: None)
    return lambda *overrides, **more: kalmean(*SMALL, *overrides, **more)


# --- training ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_networks_trained_at_once_are_those_trained_alone() -> None:
    """Against the library's balancer as a loop would use it, one network, its modules and its optimiser."""
    from torch.nn import functional

    from estimators import EMA
    from estimators.torch.balancing import Balancer, GradientBalancer

    def make(_: int) -> Balancer:
        return GradientBalancer(2, EMA(0.5), floor=0.01, warmup=2)

    chosen, data = Parameters(steps=6, batch_size=32, warmup=2, floor=0.01), recorder.load_training_set()
    found = trained([Method("own", "", "weight", make)], chosen, data, root_seed=3, repetition=1)

    drawn = np.random.default_rng([3, 1])
    start, order = int(drawn.integers(2**31)), drawn.permutation(recorder.TRAINING_SET)
    batches = [drawn.choice(order[500:], 32, replace=False) for _ in range(6)]
    pixels, labels, ink = (torch.from_numpy(array) for array in data)
    for at, scale in enumerate(SCALES):
        trunk, *heads = recorder.build_network(start)
        modules = torch.nn.ModuleList([trunk, *heads])
        adam = torch.optim.Adam(modules.parameters(), lr=recorder.LEARNING_RATE)
        balancer = make(0)
        for step, rows in enumerate(batches):
            shared = trunk(pixels[rows])
            losses = [
                functional.cross_entropy(heads[0](shared), labels[rows]),
                scale * functional.mse_loss(heads[1](shared).squeeze(-1), ink[rows]),
            ]
            adam.zero_grad()
            balancer(losses, trunk.parameters()).backward()
            adam.step()
            assert found.weights[step, 0, at] == pytest.approx(balancer.weights[1].item(), rel=1e-3)
        with torch.no_grad():
            shared = trunk(pixels[order[:500]])
            predicted = heads[1](shared).squeeze(-1)
            rmse = (predicted - ink[order[:500]]).square().mean().sqrt().item()
            right = (heads[0](shared).argmax(1) == labels[order[:500]]).double().mean().item()
        assert found.rmse[0, at] == pytest.approx(rmse, rel=1e-3)
        assert found.accuracy[0, at] == pytest.approx(right, abs=2.5 / 500)


def test_losses_of_many_networks_are_the_recorders() -> None:
    data = recorder.load_training_set()
    pixels, labels, ink = (torch.from_numpy(array[:20]) for array in data)
    found = balancing.task_losses(balancing._copies(5, 3), pixels, labels, ink)
    expected = recorder.task_gradients(recorder.build_network(5), pixels, labels, ink)
    for losses, one in zip(found, expected, strict=True):
        np.testing.assert_allclose(losses.detach().numpy(), [one.loss] * 3, rtol=1e-5)


# --- rows and words ---------------------------------------------------------------------------------------


def test_rows_and_text(small: Any) -> None:
    ran = small("seeds=2")
    table = ran.table
    assert list(table.columns) == COLUMNS
    methods = table[["estimator", "parameters"]].drop_duplicates()
    assert methods["estimator"].tolist() == [*CONTROLS, "ema", "kalman", "ema", "kalman"]
    assert table["stream"].drop_duplicates().tolist() == [f"ink loss x {scale:g}" for scale in SCALES]
    assert set(table["metric"]) == METRICS
    assert len(table) == len(SCALES) * len(methods) * len(METRICS) * 2
    floors = table[table["metric"] == "floor_share"]
    controls = floors["estimator"].isin(CONTROLS)
    assert (floors.loc[controls, "status"] == "has no floor").all()
    assert floors.loc[~controls, "value"].between(0.0, 1.0).all()
    others = table[table["metric"] != "floor_share"]
    assert (others["status"] == "ok").all()
    weight = others[others["metric"] == "weight"].set_index("estimator")["value"]
    assert (weight["equal"] == 0.5).all()
    assert weight.between(0.0, 1.0).all()
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 110
    for column in ("Accuracy of the digits", "RMSE of the ink", "Share of the steps", "Mean weight"):
        assert f"\n{column}" in text
    assert "differences where both always do" not in text
    assert text.count("| kalman ") == 4 * len(DOMAINS) + 2 * len(DOMAINS)
    assert all(f"- loss x {scale:g}, floor binding in " in text for scale in SCALES)


@pytest.mark.slow
def test_the_same_seeds_give_the_same_table_and_more_seeds_begin_with_it(small: Any) -> None:
    tables = [
        (small(f"seeds={seeds}", output=output).folder / "table.csv").read_bytes()
        for seeds, output in ((2, "one"), (2, "two"))
    ]
    assert tables[0] == tables[1]
    more = small("seeds=3", output="three").table
    few = pd.read_csv(io.BytesIO(tables[0]))
    begun = more[more["seed"] < 2].reset_index(drop=True)
    pd.testing.assert_frame_equal(begun, few, check_exact=True)
    assert more.loc[more["seed"] == 2, "value"].tolist() != more.loc[more["seed"] == 1, "value"].tolist()


def test_methods_share_start_and_batches(small: Any) -> None:
    """In the warm-up an inverse norm is equal weights, and so is what it trains."""
    table = small("seeds=1", "experiment.warmup=11", "experiment.steps=12", "experiment.floor=0.49").table
    rmse = table[(table["metric"] == "rmse") & ~table["estimator"].isin(["random", "grad_norm"])]
    for _, own in rmse.groupby("stream"):
        values = own["value"].to_numpy()
        np.testing.assert_allclose(values, values[0], rtol=0.02)  # one step of twelve is not equal


def test_where_the_floor_always_binds_smoothers_train_the_same(small: Any) -> None:
    overrides = "experiment.floor=0.49", "experiment.warmup=0", "estimators=[debiased_ema,kalman]"
    ran = small("seeds=2", *overrides)
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert "- loss x 1000, floor binding in 100 to 100 % of the steps: of 6 differences where both" in text
    table = ran.table[ran.table["seed"] == 0]
    smoothers = table[table["parameters"].notna() & ~table["estimator"].isin(CONTROLS)]
    largest = smoothers[smoothers["stream"] == "ink loss x 1000"].set_index("metric")
    assert (largest.loc["floor_share", "value"] == 1.0).all()
    for metric in ("accuracy", "rmse", "weight"):
        values = largest.loc[metric, "value"].to_numpy()
        np.testing.assert_allclose(values, values[0], rtol=2e-3)


def test_the_figure_has_a_panel_for_each_scale_and_domain(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "seeds=1")
    assert [path.name for path in (ran.folder / "figures").iterdir()] == ["weights.png"]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("match=noise_gain", "experiment=balancing has settings of its own; leave match and tune at none"),
        ("experiment.steps=0", "experiment.steps=0 is not valid; it must be an int >= 1"),
        (
            "experiment.batch_size=1298",
            "experiment.batch_size=1298 is not valid; it must be an int from 1 to 1297",
        ),
        ("experiment.warmup=600", "experiment.warmup=600 is not valid; it must be an int from 0 to 599"),
        ("experiment.floor=0.5", "experiment.floor=0.5 is not valid; it must be in [0, 1/2)"),
        ("experiment.floor=nan", "experiment.floor=nan is not valid; it must be in [0, 1/2)"),
    ],
)
def test_what_is_refused(override: str, message: str, refused: Any) -> None:
    assert refused("experiment=balancing", override) == message


@pytest.mark.parametrize("absent", ["torch", "sklearn.datasets"])
def test_an_absent_extra_is_named(absent: str, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    said = refused("experiment=balancing")
    assert said == "experiment=balancing needs torch and scikit-learn: pip install 'kalmean[training]'"
