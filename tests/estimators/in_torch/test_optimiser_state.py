"""What FilteredAdam keeps: its size, resuming bit for bit after a kill, copies, other estimators."""

from __future__ import annotations

import copy
import io
import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from estimators import (  # noqa: E402
    EMA,
    DebiasedEMA,
    EMAWithVariance,
    Holt,
    InnovationMatchingKalman,
    Kalman,
    KalmanBank,
    LocalTrend,
    MehraKalman,
    MovingAverage,
    ResettingKalman,
    RobustKalman,
    RunningMedian,
    SageHusaKalman,
    SwitchingKalman,
    VariationalKalman,
)
from estimators.torch import _descent  # noqa: E402
from estimators.torch.optimiser import FilteredAdam  # noqa: E402

FIRSTS: list[Any] = [
    EMA(0.9),
    EMA(0.9, initial=None),
    DebiasedEMA(0.9),
    EMAWithVariance(0.9),
    Kalman(q=0.01, r=1.0),
    Kalman(q=0.01, r=2.0, mean=0.0, variance=0.01),
    MehraKalman(),
    VariationalKalman(q=0.01),
    SageHusaKalman(q=0.01),
    InnovationMatchingKalman(r=1.0),
    RobustKalman(q=0.01, r=1.0),
    ResettingKalman(q=0.01, r=1.0),
    SwitchingKalman(q=0.01, r=1.0),
    LocalTrend(q=0.01, q_slope=1e-4, r=1.0),
    Holt(0.2, 0.1),
    KalmanBank(),
    MovingAverage(4),
    RunningMedian(5),
]
NO_SECOND = (LocalTrend, Holt)
SHAPES: list[tuple[int, ...]] = [(4, 3), (5,), (), (2, 3, 2, 2)]


def parameters(dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def step(optimiser: Any, own: list[Any], at: int) -> None:
    """One step on noise; some gradients are missing, from the first step on."""
    rng = np.random.default_rng([at, 7])
    for place, one in enumerate(own):
        grad = torch.from_numpy(np.asarray(rng.normal(size=one.shape) + 0.3)).to(one.dtype)
        if place == 1 and at % 4 == 0:
            grad.view(-1)[0] = float("nan")
        one.grad = None if place == 2 and at % 5 < 2 else grad
    optimiser.step()


def saved(optimiser: Any) -> Any:
    """The state as it comes back from a file."""
    file = io.BytesIO()
    torch.save(optimiser.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(optimiser: Any, own: list[Any], **settings: Any) -> tuple[Any, list[Any]]:
    """A fresh optimiser, with other numbers where these are saved, of copies of the parameters."""
    again = [torch.nn.Parameter(one.detach().clone()) for one in own]
    fresh = FilteredAdam(again, **{**settings, "lr": 9.0, "weight_decay": 0.7})
    fresh.load_state_dict(saved(optimiser))
    return fresh, again


def same(these: list[Any], those: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(these, those, strict=True))


def same_state(these: Any, those: Any) -> None:
    """Bit for bit, names and types included."""
    one, other = these.state_dict(), those.state_dict()
    assert json.dumps(one["param_groups"], sort_keys=True, default=str) == json.dumps(
        other["param_groups"], sort_keys=True, default=str
    )
    assert one["state"].keys() == other["state"].keys()
    for place, kept in one["state"].items():
        assert kept.keys() == other["state"][place].keys()
        for key, value in kept.items():
            twin = other["state"][place][key]
            assert type(value) is type(twin), key
            if isinstance(value, torch.Tensor):
                assert value.dtype == twin.dtype, key
                assert value.shape == twin.shape, key
                assert torch.equal(value.nan_to_num(7.5), twin.nan_to_num(7.5)), key
            else:
                assert value == twin or (value != value and twin != twin), key


# --- size ---------------------------------------------------------------------------------------------------


def bytes_of(optimiser: Any) -> int:
    kept = [value for of_one in optimiser.state.values() for value in of_one.values()]
    return sum(value.numel() * value.element_size() for value in kept if isinstance(value, torch.Tensor))


@pytest.mark.parametrize(
    ("settings", "copies"),
    [
        ({}, 2),
        ({"first": EMA(0.9), "second": EMA(0.999)}, 2),
        ({"first": Kalman(q=0.01, r=1.0)}, 2),
        ({"first": Kalman(q=0.01, r=1.0, mean=0.0, variance=1.0), "second": Kalman(q=0.01, r=1.0)}, 2),
        ({"second": None}, 1),
        ({"first": None}, 1),
        ({"first": None, "second": None}, 0),
        ({"first": EMA(0.9, initial=None), "extrapolation": 1.0}, 3),
        ({"trust": "layer", "cautious": True}, 2),
        ({"first": Holt(0.2, 0.1)}, 3),
    ],
    ids=repr,
)
def test_the_state_is_that_of_adam_and_a_few_numbers_a_tensor(settings: Any, copies: int) -> None:
    own = parameters()
    optimiser = FilteredAdam(own, **settings)
    for at in range(12):
        step(optimiser, own, at)
    assert bytes_of(optimiser) == 4 * copies * sum(one.numel() for one in own)
    for kept in optimiser.state.values():
        assert len(kept) - copies <= 2
        assert all(isinstance(value, torch.Tensor | float) for value in kept.values())


def test_a_state_does_not_grow() -> None:
    own = parameters()
    optimiser = FilteredAdam(own, first=EMAWithVariance(0.5), second=MovingAverage(3), extrapolation=1.0)
    sizes = []
    for at in range(60):
        step(optimiser, own, at)
        sizes.append((bytes_of(optimiser), [len(kept) for kept in optimiser.state.values()]))
    assert sizes[20] == sizes[-1]


def test_numbers_and_text_and_tensors_alone_are_saved() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str | int) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (int, float, str, bool, torch.Tensor)

    own = parameters()
    optimiser = FilteredAdam(own, first=KalmanBank(), second=Kalman(q=0.01, r=1.0), extrapolation=1.0)
    assert plain(optimiser.state_dict())
    step(optimiser, own, 2)
    assert plain(optimiser.state_dict())


# --- saving and resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("estimator", FIRSTS, ids=repr)
def test_a_saved_run_goes_on_bit_for_bit(estimator: Any, dtype: Any) -> None:
    second = DebiasedEMA(0.99) if isinstance(estimator, NO_SECOND) else estimator
    settings: dict[str, Any] = {"lr": 0.05, "first": estimator, "second": second}
    own = parameters(dtype)
    optimiser = FilteredAdam(own, **settings)
    for at in range(9):
        if at in (0, 1, 6):
            optimiser, own = resumed(optimiser, own, **settings)
        step(optimiser, own, at)
    unbroken = parameters(dtype)
    reference = FilteredAdam(unbroken, **settings)
    for at in range(9):
        step(reference, unbroken, at)
    assert same(own, unbroken)
    same_state(optimiser, reference)
    means = [kept["first.mean"] for kept in optimiser.state.values()]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert {mean.dtype for mean in means if isinstance(mean, torch.Tensor)} == {wide}


@pytest.mark.parametrize("behind", [False, True], ids=["ahead", "evaluated"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_extrapolated_run_goes_on_bit_for_bit(behind: bool, dtype: Any) -> None:
    settings: dict[str, Any] = {"lr": 0.05, "extrapolation": 1.5, "trust": "layer", "cautious": True}
    own, unbroken = parameters(dtype), parameters(dtype)
    optimiser, reference = FilteredAdam(own, **settings), FilteredAdam(unbroken, **settings)
    for at in range(9):
        if at == 5:
            if behind:
                optimiser.eval()
                reference.eval()
            optimiser, own = resumed(optimiser, own, **settings)
            if behind:
                with pytest.raises(RuntimeError, match="step after eval"):
                    optimiser.step()
            optimiser.train()
            reference.train()
        step(optimiser, own, at)
        step(reference, unbroken, at)
    assert same(own, unbroken)
    same_state(optimiser, reference)


def test_what_is_loaded_is_a_copy() -> None:
    own = parameters(torch.float64)
    optimiser = FilteredAdam(own, second=MovingAverage(3), extrapolation=1.0)
    for at in range(3):
        step(optimiser, own, at)
    data = saved(optimiser)
    kept = copy.deepcopy(data)
    optimiser.load_state_dict(data)
    for at in range(3):
        step(optimiser, own, at)
    for place, of_one in kept["state"].items():
        for key, value in of_one.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(7.5), data["state"][place][key].nan_to_num(7.5)), key


def test_settings_and_schedules_are_saved_with_the_state() -> None:
    def build(own: list[Any], lr: float) -> tuple[Any, Any]:
        groups = [{"params": own[:2], "lr": lr}, {"params": own[2:], "eps": 1e-3, "first": EMA(0.5)}]
        optimiser = FilteredAdam(groups, lr=2.0 * lr, weight_decay=10.0 * lr, maximize=True)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=20, cycle_momentum=False)
        return optimiser, scheduler

    own, unbroken = parameters(), parameters()
    (optimiser, scheduler), (reference, other) = build(own, 0.1), build(unbroken, 0.1)
    for at in range(15):
        if at == 7:
            states = saved(optimiser), scheduler.state_dict()
            own = [torch.nn.Parameter(one.detach().clone()) for one in own]
            optimiser, scheduler = build(own, 0.3)
            optimiser.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
        for each, tensors, schedule in ((optimiser, own, scheduler), (reference, unbroken, other)):
            step(each, tensors, at)
            schedule.step()
    assert same(own, unbroken)
    same_state(optimiser, reference)


@pytest.mark.parametrize("lr", [0.05, torch.tensor(0.05)], ids=["number", "tensor"])
def test_the_rate_comes_back_as_it_was(lr: Any) -> None:
    own = parameters()
    optimiser = FilteredAdam(own, lr=lr)
    step(optimiser, own, 1)
    again, _ = resumed(optimiser, own)
    assert float(again.param_groups[0]["lr"]) == float(torch.tensor(0.05) if torch.is_tensor(lr) else 0.05)


@pytest.mark.parametrize("estimator", [DebiasedEMA(0.9), EMAWithVariance(0.9), MovingAverage(3)], ids=repr)
def test_a_state_serves_tensors_that_lie_otherwise(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_descent, "SIZE", 10)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, 3, 4, 5, generator=generator)
    forms = [torch.contiguous_format, torch.channels_last]
    grads = [torch.randn(2, 3, 4, 5, generator=generator) for _ in range(8)]
    plain = torch.nn.Parameter(start.clone())
    reference = FilteredAdam([plain], first=estimator, extrapolation=1.0)
    for grad in grads:
        plain.grad = grad
        reference.step()
    for before, after in (forms, forms[::-1]):
        own = torch.nn.Parameter(start.clone(memory_format=before))
        optimiser = FilteredAdam([own], first=estimator, extrapolation=1.0)
        for at, grad in enumerate(grads):
            if at == 4:
                data = saved(optimiser)
                own = torch.nn.Parameter(own.detach().clone(memory_format=after))
                optimiser = FilteredAdam([own], first=estimator, extrapolation=1.0)
                optimiser.load_state_dict(data)
            own.grad = grad
            optimiser.step()
        np.testing.assert_allclose(own.detach(), plain.detach(), rtol=0.0, atol=1e-6)


# --- a kill -------------------------------------------------------------------------------------------------

TRAINING = """
import os
import torch
from estimators import EMAWithVariance, Kalman, MovingAverage
from estimators.torch.optimiser import FilteredAdam

def train(path, steps, report=lambda at: None):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    half = torch.nn.Parameter(torch.ones(6, dtype=torch.bfloat16))
    own = [*model.parameters(), half]
    groups = [
        {"params": own[:2], "first": EMAWithVariance(0.9), "trust": "discounted"},
        {"params": own[2:4], "first": Kalman(0.01, 1.0), "second": MovingAverage(4), "extrapolation": 1.0},
        {"params": own[4:]},
    ]
    optimiser = FilteredAdam(groups, lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 200)
    done = 0
    if os.path.exists(path):
        data = torch.load(path, weights_only=True)
        done = data["done"]
        optimiser.load_state_dict(data["optimiser"])
        scheduler.load_state_dict(data["scheduler"])
        with torch.no_grad():
            for one, kept in zip(own, data["own"]):
                one.copy_(kept)
    for at in range(done, steps):
        generator = torch.Generator().manual_seed(at)
        x = torch.randn(16, 3, generator=generator)
        optimiser.zero_grad()
        loss = (model(x)[:, 0] - x.sum(dim=1)).square().mean() + half.float().square().sum() * (at % 3 != 1)
        loss.backward()
        if at % 4 == 0:
            model[0].weight.grad[0, 0] = float("nan")
        optimiser.step()
        scheduler.step()
        data = {
            "done": at + 1,
            "optimiser": optimiser.state_dict(),
            "scheduler": scheduler.state_dict(),
            "own": [one.detach() for one in own],
        }
        torch.save(data, path + ".new")
        os.replace(path + ".new", path)
        report(at)
    return data
"""
CHILD = (
    TRAINING
    + """
import sys
train(sys.argv[1], 10**6, lambda at: print(at, flush=True))
"""
)


def test_a_killed_run_goes_on_as_the_unbroken_one(tmp_path: Path) -> None:
    training: dict[str, Any] = {}
    exec(TRAINING, training)
    path = str(tmp_path / "killed.pt")
    command = [sys.executable, "-c", CHILD, path]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if int(line) >= 30:
                killed.send_signal(signal.SIGKILL)
                break
        killed.stdout.read()
    assert killed.returncode == -signal.SIGKILL
    done = torch.load(path, weights_only=True)["done"]
    assert done > 30
    whole, resumed = (training["train"](name, done + 30) for name in (str(tmp_path / "whole.pt"), path))
    assert whole["done"] == resumed["done"] == done + 30
    assert same(whole["own"], resumed["own"])
    assert not torch.equal(whole["own"][4], torch.ones(6, dtype=torch.bfloat16))
    states = [each["optimiser"]["state"] for each in (whole, resumed)]
    assert states[0].keys() == states[1].keys()
    for place, kept in states[0].items():
        for key, value in kept.items():
            twin = torch.as_tensor(states[1][place][key])
            assert torch.equal(torch.as_tensor(value).nan_to_num(7.5), twin.nan_to_num(7.5)), key


# --- other estimators ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"first": DebiasedEMA(0.8)}, "first="),
        ({"first": EMA(0.9)}, "first="),
        ({"first": None}, "first="),
        ({"second": None}, "second="),
        ({"second": Kalman(q=0.1, r=1.0)}, "second="),
        ({"second": MovingAverage(1000)}, "second="),
    ],
    ids=repr,
)
def test_a_state_of_other_estimators_is_refused_and_leaves_no_trace(theirs: Any, words: str) -> None:
    own, others = parameters(), parameters()
    optimiser, foreign = FilteredAdam(own, lr=0.1), FilteredAdam(others, lr=0.2, **theirs)
    for at in range(2):
        step(optimiser, own, at)
        step(foreign, others, at)
    before = copy.deepcopy(optimiser.state_dict())
    with pytest.raises(ValueError, match=rf"^FilteredAdam: the state was saved under {words}[^\n]*$"):
        optimiser.load_state_dict(saved(foreign))
    assert json.dumps(before["param_groups"]) == json.dumps(optimiser.state_dict()["param_groups"])
    step(optimiser, own, 2)


def test_named_parameters_are_saved_and_loaded() -> None:
    layer, again = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    again.load_state_dict(layer.state_dict())
    optimiser = FilteredAdam(layer.named_parameters())
    step(optimiser, list(layer.parameters()), 3)
    fresh = FilteredAdam(again.named_parameters())
    again.load_state_dict(layer.state_dict())
    fresh.load_state_dict(saved(optimiser))
    for each, own in ((optimiser, layer), (fresh, again)):
        step(each, list(own.parameters()), 4)
    assert same(list(layer.parameters()), list(again.parameters()))


def test_a_state_of_adamw_is_refused_in_one_line() -> None:
    own, others = parameters(), parameters()
    peer = torch.optim.AdamW(others)
    step(peer, others, 3)
    with pytest.raises(ValueError, match=r"^FilteredAdam: the state was saved under first=[^\n]*$"):
        FilteredAdam(own).load_state_dict(peer.state_dict())


def test_a_state_of_fewer_or_smaller_groups_is_refused() -> None:
    own = parameters()
    optimiser = FilteredAdam([{"params": own[:2]}, {"params": own[2:]}])
    for groups in (
        [{"params": own}],
        [{"params": [one]} for one in own],
        [{"params": own[:1]}, {"params": own[1:]}],
    ):
        other = FilteredAdam(groups)
        with pytest.raises(ValueError, match="group"):
            optimiser.load_state_dict(other.state_dict())


# --- copies -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "way", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize(
    "estimator", [DebiasedEMA(0.9), MovingAverage(3), KalmanBank(), MehraKalman()], ids=repr
)
def test_copies_go_on_as_the_original(way: Any, estimator: Any) -> None:
    own = parameters()
    optimiser = FilteredAdam(own, lr=0.05, first=estimator, extrapolation=1.0)
    for at in range(5):
        step(optimiser, own, at)
    again, twins = way((optimiser, own))
    assert again.param_groups[0]["params"][0] is twins[0]
    assert twins[0] is not own[0]
    before = [one.detach().clone() for one in own]
    for at in range(5, 10):
        step(again, twins, at)
    assert same(own, before)
    for at in range(5, 10):
        step(optimiser, own, at)
    assert same(own, twins)
    same_state(optimiser, again)
