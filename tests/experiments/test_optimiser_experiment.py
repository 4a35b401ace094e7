"""Filtered gradients judged and trained with: oracles of torch, rows, words, and what is refused."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="training needs the extra 'training': scikit-learn is absent")
torch = pytest.importorskip("torch", reason="training needs the extra 'training': torch is absent")

from estimators import DebiasedEMA  # noqa: E402
from estimators.torch.optimiser import FilteredAdam  # noqa: E402
from estimators.torch.presets import PRESETS  # noqa: E402
from experiments import optimiser  # noqa: E402
from experiments.learning_rates import Grid, Losses  # noqa: E402
from experiments.moments import LEARNING_RATE, RAW, Quality, qualities  # noqa: E402
from experiments.problems import Digits  # noqa: E402
from experiments.summaries import COLUMNS  # noqa: E402
from experiments.training import BETAS, FILTERS, FIXED, REGIMES, Filtered, Trained, methods  # noqa: E402

SMALL = (
    "experiment=optimiser",
    "experiment.regimes=[batch_32]",
    "experiment.presets=[adam_098,bank]",
    "experiment.steps=12",
    "experiment.warmup=4",
    "experiment.workers=1",
)
MADE_UP = (  # on characters no moments are judged, so that all that is trained is made up
    "experiment=optimiser",
    "experiment.regimes=[characters]",
    "experiment.presets=[adam_095,mehra,bank,cautious]",
    "experiment.workers=1",
)
ASIDE = {"adam": 0.0, "adam_095": -0.001, "mehra": -0.02, "bank": 0.03, "cautious": 0.0}


@pytest.fixture
def small(kalmean: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(optimiser, "training_figure", lambda *_: None)
    monkeypatch.setattr(optimiser, "moment_figure", lambda *_: None)
    monkeypatch.setattr("experiments.runs.RunFolder._draw", lambda self, figures, folder, command: None)
    return kalmean


@pytest.fixture
def made_up(small: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs whose losses are parabolas in the logarithm of the rate, the presets set apart by so much."""

    def call(*overrides: str, optimum: float = 0.01, mehra: float | None = None, output: str = "out") -> Any:
        def losses(task: Trained, rates: Sequence[float]) -> Losses:
            at = (mehra or optimum) if task.preset == "mehra" else optimum
            place = sorted(ASIDE).index(task.preset)
            shared = 0.05 * np.random.default_rng(7).standard_normal(len(task.seeds))
            own = 0.004 * np.random.default_rng(place).standard_normal(len(task.seeds))
            level = 1.0 + ASIDE[task.preset] + shared + own - own.mean()
            found = level + 0.1 * np.log(np.asarray(rates) / at)[:, np.newaxis] ** 2
            return Losses(found, found)

        monkeypatch.setattr(Trained, "losses", losses)
        return small(*MADE_UP, *overrides, output=output)

    return call


def text_of(ran: Any) -> str:
    text: str = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 110
    return text


def in_one_line(text: str) -> str:
    return " ".join(text.split())


# --- presets ----------------------------------------------------------------------------------------------


def steps_of(optimiser_of: Callable[[list[Any]], Any], steps: int = 30) -> list[Any]:
    """Parameters after each step on one stream of gradients, which do not depend on them."""
    rng = np.random.default_rng(3)
    tensors = [torch.tensor(rng.standard_normal(shape), requires_grad=True) for shape in ((5, 3), (4,))]
    own = optimiser_of(tensors)
    after = []
    for _ in range(steps):
        for tensor in tensors:
            tensor.grad = torch.tensor(rng.standard_normal(tensor.shape))
        own.step()
        after.append(torch.cat([tensor.detach().flatten() for tensor in tensors]).clone())
    return after


@pytest.mark.parametrize(
    ("name", "peer"),
    [
        ("adam", lambda p: torch.optim.Adam(p, lr=0.01)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.01 * 0.1, momentum=0.9)),
        ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=0.01, alpha=0.99)),
    ],
)
def test_presets_are_torchs_own_where_it_has_them(name: str, peer: Any) -> None:
    ours = steps_of(lambda p: FilteredAdam(p, lr=0.01, weight_decay=0.0, **PRESETS[name]))
    for one, other in zip(ours, steps_of(peer), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_kgd_is_the_gradients_block_of_the_dense_filter() -> None:
    """Against the filter of weights and gradient together, with the constants of its authors."""
    given = steps_of(lambda p: FilteredAdam(p, lr=1.0, weight_decay=0.0, **PRESETS["kgd"]), 60)
    rng = np.random.default_rng(3)
    start = np.concatenate([rng.standard_normal(shape).ravel() for shape in ((5, 3), (4,))])
    size = len(start)
    # State of weights and gradient, of which the gradient is observed: x' = x - g, g' = g.
    identity, nothing = np.eye(size), np.zeros((size, size))
    move = np.block([[identity, -identity], [nothing, identity]])
    seen = np.hstack([nothing, identity])
    mean, covariance = np.concatenate([start, np.zeros(size)]), 0.01 * np.eye(2 * size)
    weights = start.copy()
    for after in given:
        gradient = np.concatenate([rng.standard_normal(shape).ravel() for shape in ((5, 3), (4,))])
        mean, covariance = move @ mean, move @ covariance @ move.T + 0.01 * np.eye(2 * size)
        gain = covariance @ seen.T @ np.linalg.inv(seen @ covariance @ seen.T + 2.0 * identity)
        mean = mean + gain @ (gradient - seen @ mean)
        covariance = covariance - gain @ seen @ covariance
        weights = weights - mean[size:]
        np.testing.assert_allclose(after.numpy(), weights, rtol=1e-9, atol=1e-10)
    assert gain[-1, -1] == pytest.approx(0.0682548585, rel=1e-3)


def test_disk_filters_gradients_taken_one_move_over_kappa_ahead() -> None:
    """Against DiSK as its paper has it, on a quadratic: g <- (1 - k) g + k grad(x + (1 - k)/k dx)."""
    kappa, rate, curvature = 0.7, 0.05, torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)
    ours = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    filtered = FilteredAdam([ours], lr=rate, weight_decay=0.0, **PRESETS["disk"])
    x, moved = ours.detach().clone(), torch.zeros(3, dtype=torch.float64)
    kept, square = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for step in range(1, 40):
        ours.grad = curvature * ours.detach()
        filtered.step()
        gradient = curvature * (x + (1.0 - kappa) / kappa * moved)
        kept = (1.0 - kappa) * kept + kappa * gradient
        square = 0.999 * square + 0.001 * gradient**2
        moved = -rate * kept / ((square / (1.0 - 0.999**step)).sqrt() + 1e-8)
        x = x + moved
        filtered.eval()
        torch.testing.assert_close(ours.detach(), x, rtol=1e-9, atol=1e-11)
        filtered.train()


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_descends(name: str) -> None:
    start = torch.linspace(-2.0, 2.0, 40, dtype=torch.float64).reshape(8, 5)
    tensor = start.clone().requires_grad_()
    filtered = FilteredAdam([tensor], lr=0.02, weight_decay=0.0, **PRESETS[name])
    for _ in range(60):
        tensor.grad = tensor.detach().clone()
        filtered.step()
    filtered.eval()
    assert tensor.detach().norm() < 0.95 * start.norm()
    assert next(iter(PRESETS)) == "adam"


# --- moments ----------------------------------------------------------------------------------------------


def flat(tensors: Sequence[Any]) -> Any:
    return np.concatenate([tensor.double().numpy().ravel() for tensor in tensors])


def test_errors_of_moments_are_those_of_a_loop_by_hand() -> None:
    steps, warmup, seeds = 25, 10, (5, 9)
    problem = Digits(batch=16, label_noise=0.2)
    found = qualities(
        problem, {"ema": DebiasedEMA(0.8), "bank": PRESETS["bank"]["first"]}, seeds, steps, warmup
    )
    assert list(found) == [RAW, "ema", "bank"]
    for place, seed in enumerate(seeds):
        replicas = problem.start([seed])
        adam = torch.optim.Adam(replicas.parameters[0], lr=LEARNING_RATE)
        raw, kept, whole = [], [], []
        mean: Any = 0.0
        for step in range(steps):
            replicas.backward(step)
            gradient = flat([t.grad for t in replicas.parameters[0]])
            mean = 0.8 * mean + 0.2 * gradient
            raw.append(gradient)
            kept.append(mean / (1.0 - 0.8 ** (step + 1)))
            whole.append(flat(replicas.gradient()))
            adam.step()
        truth = np.array(whole[warmup:])
        for name, estimates in ((RAW, raw), ("ema", kept)):
            nmse = ((np.array(estimates[warmup:]) - truth) ** 2).sum() / (truth**2).sum()
            assert found[name].nmse[place] == pytest.approx(nmse, rel=2e-3)
    assert found["ema"].gain is None
    gain = found["bank"].gain
    assert gain is not None
    assert ((gain > 0.0) & (gain < 1.0)).all()


@pytest.mark.slow
def test_what_is_judged_moves_nothing_and_is_finite() -> None:
    alone = qualities(Digits(batch=8), {}, (0, 1), 15, 5)
    firsts = {name: PRESETS[name]["first"] for name in FILTERS}
    beside = qualities(Digits(batch=8), firsts, (0, 1), 15, 5)
    np.testing.assert_array_equal(alone[RAW].nmse, beside[RAW].nmse)
    for own in beside.values():
        assert np.isfinite(own.nmse).all()


def test_noise_on_gradients_is_an_error_of_the_size_that_it_has() -> None:
    """E |noise|^2 = sd^2 coordinates, beside the error of the minibatch."""
    quiet, noisy = (
        qualities(Digits(batch=200, gradient_noise=sd), {}, (0, 1, 2), 6, 5)[RAW].nmse for sd in (0.0, 0.5)
    )
    replicas = Digits(batch=200).start((0, 1, 2))
    coordinates = sum(tensor.numel() for tensor in replicas.parameters[0])
    assert (noisy > 10.0 * quiet).all()
    assert coordinates == 2410


# --- training ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_all_rates_and_seeds_at_once_are_those_trained_alone(schedule: str) -> None:
    steps, seeds, rates = 20, (3, 8), [1e-3, 5e-3]
    task = Trained("batch_32", schedule, "adam", steps, Grid(), seeds)
    found = task.losses(rates)
    for row, rate in enumerate(rates):
        for column, seed in enumerate(seeds):
            replicas = REGIMES["batch_32"].problem.start([seed])
            adam = torch.optim.Adam(replicas.parameters[0], lr=rate)
            for step in range(steps):
                adam.param_groups[0]["lr"] = rate * (1.0 - step / steps if schedule == "linear" else 1.0)
                replicas.backward(step)
                adam.step()
            assert found.validation[row, column] == pytest.approx(replicas.losses("validation")[0], rel=1e-4)
            assert found.test[row, column] == pytest.approx(replicas.losses("test")[0], rel=1e-4)


def test_controls_differ_from_adam_in_beta1_alone() -> None:
    assert {name: methods()[name] for name in BETAS} == {
        name: {"first": DebiasedEMA(beta)} for name, beta in BETAS.items()
    }
    assert set(methods()) == set(PRESETS) | set(BETAS)


# --- rows and words ---------------------------------------------------------------------------------------


def test_rows_and_text(small: Any) -> None:
    ran = small(*SMALL, "seeds=2")
    table = ran.table
    assert list(table.columns) == COLUMNS
    streams = ["gradient, batch_32", "batch_32, constant", "batch_32, linear"]
    assert table["stream"].drop_duplicates().tolist() == streams
    judged = table[table["stream"] == streams[0]]
    assert judged["estimator"].drop_duplicates().tolist() == ["raw", "fixed", "bank"]
    nmse = judged[judged["metric"] == "nmse"].set_index(["estimator", "parameters"])["value"]
    ratio = judged[judged["metric"] == "nmse_ratio"]
    fixed = ratio[ratio["estimator"] == "fixed"].groupby("parameters")["value"].apply(list)
    best = [parameters for parameters, values in fixed.items() if values == [1.0, 1.0]]
    assert len(best) == 1
    means = nmse["fixed"].groupby(level=0).mean()
    assert means.idxmin() == best[0]
    assert set(judged[judged["metric"] == "mean_gain"]["estimator"]) == {"bank"}
    for stream in streams[1:]:
        own = table[(table["stream"] == stream) & (table["metric"] == "test_nll")]
        assert own["estimator"].tolist() == ["adam"] * 2 + ["adam_098"] * 2 + ["bank"] * 2
        tried = table[(table["stream"] == stream) & (table["metric"] == "validation_nll")]
        for name, rows in tried.groupby("estimator"):
            rates = np.sort(rows["parameters"].str.removeprefix("lr=").astype(float).unique())
            np.testing.assert_allclose(rates[1:] / rates[:-1], math.sqrt(2.0), rtol=1e-4)
            by_rate = rows.groupby("parameters")["value"].mean()
            chosen = own.loc[own["estimator"] == name, "parameters"].iloc[0]
            assert by_rate.idxmin() == chosen
    text = text_of(ran)
    assert "mehra" not in text
    assert "bank on batch_32: NMSE over the best fixed beta's: asked <= 1.5, found " in in_one_line(text)
    assert "Against Adam: 4 comparisons, of which 0.2 would be told apart by chance" in in_one_line(text)


@pytest.mark.slow
def test_the_same_seeds_give_the_same_table_in_one_process_or_two(small: Any) -> None:
    overrides = [*SMALL[:-1], "experiment.schedules=[linear]", "experiment.presets=[mehra]", "seeds=2"]
    tables = [
        (small(*overrides, f"experiment.workers={n}", output=f"out{n}").folder / "table.csv").read_bytes()
        for n in (1, 2)
    ]
    assert tables[0] == tables[1]


def test_differences_are_paired_counted_and_corrected(made_up: Any) -> None:
    ran = made_up("seeds=8")
    summary = ran.summary.set_index(["metric", "estimator"])
    text = in_one_line(text_of(ran))
    for name, aside in ASIDE.items():
        rows = summary.loc[[("test_nll", name)]]
        assert rows["difference"].iloc[0] == pytest.approx(aside, abs=1e-9)
    over = summary.loc[("over_best_adam", "mehra")]
    assert over["mean"] == pytest.approx(ASIDE["mehra"] - ASIDE["adam_095"], abs=1e-9)
    assert "| best Adam | adam_095 |" in text
    assert "Against Adam: 4 comparisons, of which 0.2 would be told apart by chance, half of them" in text
    assert "Told apart: 1 better, 1 worse; 2 not." in text
    assert "Better than Adam: mehra on characters, linear (-20.0 ± " in text
    assert "**, 8 of 8 seeds)." in text
    assert "Bonferroni" in text
    assert "Moments that err less" not in text
    assert "edge" not in text
    lines = [line for line in text_of(ran).splitlines() if line.startswith("| mehra")]
    assert lines[0].count("*") == 1
    assert "| cautious" in text


def test_an_optimum_at_the_edge_is_not_reported(made_up: Any) -> None:
    ran = made_up("seeds=3", "experiment.extensions=2", mehra=1e5)
    table = ran.table
    edge = table[(table["estimator"] == "mehra") & table["metric"].isin(["test_nll", "over_best_adam"])]
    assert edge["value"].isna().all()
    assert set(edge["status"]) == {"edge optimum"}
    assert len(edge) == 6
    others = table[table["estimator"] != "mehra"]
    assert (others["status"] == "ok").all()
    text = in_one_line(text_of(ran))
    assert "| mehra | edge optimum |" in text
    assert "Against Adam: 3 comparisons" in text
    assert "No optimum, and so no value: mehra on characters, linear; the best of the rates from " in text
    further = made_up("seeds=3", "experiment.extensions=40", mehra=1e5, output="further")
    assert "No optimum" not in text_of(further)


def test_without_an_optimum_of_adam_nothing_is_compared(made_up: Any) -> None:
    ran = made_up("seeds=3", "experiment.extensions=0", optimum=1e-9)
    text = in_one_line(text_of(ran))
    assert "Against Adam: 0 comparisons" in text
    assert ran.table["value"][ran.table["metric"] == "test_nll"].isna().all()


def test_it_is_told_what_better_moments_were_worth(made_up: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(task: Filtered) -> dict[str, Quality]:
        errors = {RAW: 9.0, **{f"{beta:g}": 1.0 + beta for beta in FIXED}, "mehra": 0.95, "bank": 3.0}
        noise = 0.01 * np.random.default_rng(0).standard_normal(len(task.seeds))
        return {
            name: Quality(error + noise, 1.0 - 0.1 * (error + noise), None) for name, error in errors.items()
        }

    monkeypatch.setattr(Filtered, "__call__", judged)
    text = in_one_line(text_of(made_up("experiment.regimes=[batch_32]", "seeds=8")))
    assert "along Adam at a rate of 0.003, by a factor: mehra on batch_32 (0.5)." in text
    assert "Of the 2 trainings with these, all else as in Adam, 2 came out better than Adam, 0 worse" in text
    assert "mehra on batch_32: NMSE over the best fixed beta's: asked <= 1.5, found 0.52" in text
    assert "bank on batch_32: NMSE over the best fixed beta's: asked <= 1.5, found 1.66" in text
    assert text.count(": met.") == text.count(": missed.") == 1
    assert "| best fixed beta | 0.8 (edge) |" in text


def test_one_seed_tells_nothing_apart(made_up: Any) -> None:
    text = in_one_line(text_of(made_up("seeds=1")))
    assert "Told apart: 0 better, 0 worse; 4 not." in text
    assert "nan" not in text


def test_figures(kalmean: Any) -> None:
    ran = kalmean(*SMALL, "experiment.schedules=[linear]", "seeds=2")
    assert sorted(path.name for path in (ran.folder / "figures").iterdir()) == ["moments.png", "training.png"]


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("match=noise_gain", "experiment=optimiser has settings of its own; leave match and tune at none"),
        (
            "experiment.factor=3",
            "experiment.factor=3.0 is not valid; it must be in (1, sqrt(2)]: a coarser grid of learning "
            "rates favours methods whose optimum it hits",
        ),
        ("experiment.points=2", "experiment.points=2 is not valid; it must be an int >= 3"),
        ("experiment.steps=0", "experiment.steps=0 is not valid; it must be an int >= 1"),
        ("experiment.warmup=360", "experiment.warmup=360 is not valid; it must be an int from 0 to 359"),
        ("experiment.workers=0", "experiment.workers=0 is not valid; it must be an int >= 1"),
        (
            "experiment.schedules=[cosine]",
            "experiment.schedules has 'cosine', which is not available; "
            "did you mean linear? valid: constant, linear",
        ),
        (
            "experiment.schedules=[]",
            "experiment.schedules=[] is not valid; valid: constant, linear",
        ),
        (
            "experiment.schedules=[constant]",
            "experiment.schedules=['constant'] is not valid for characters; it has linear",
        ),
        (
            "experiment.regimes=[batch_4,batch_4]",
            "experiment.regimes has 'batch_4' more than once; name each once",
        ),
    ],
)
def test_what_is_refused(override: str, message: str, refused: Any) -> None:
    assert refused("experiment=optimiser", override) == message


@pytest.mark.parametrize(("field", "near"), [("regimes", "batch_4"), ("presets", "adam")])
def test_unknown_names_are_told_what_is_there(field: str, near: str, refused: Any) -> None:
    said = refused("experiment=optimiser", f"experiment.{field}=[{near}x]")
    assert said.startswith(f"experiment.{field} has '{near}x', which is not available; did you mean {near}")


@pytest.mark.parametrize("absent", ["torch", "sklearn.datasets"])
def test_an_absent_extra_is_named(absent: str, refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    said = refused("experiment=optimiser")
    assert said == "experiment=optimiser needs torch and scikit-learn: pip install 'kalmean[training]'"


def test_modules_can_be_imported_without_torch() -> None:
    modules = "optimiser, optimiser_report, optimiser_figures, training, moments, learning_rates"
    code = f"import sys; sys.modules['torch'] = None; from experiments import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_shipped_setting_has_every_preset(small: Any) -> None:
    from experiments.job import Job

    chosen = Job.of(["experiment=optimiser"]).setup
    assert set(chosen.parameters.methods("batch_4")) == set(methods())
    assert chosen.seeds >= 8
    assert chosen.parameters.regimes == list(REGIMES)
