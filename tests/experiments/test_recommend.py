"""The experiment ``recommend``: a screen for one log, a table for several, on logs as people have them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import recommend

RECORDINGS = Path(__file__).parents[2] / "results" / "recordings"


def falling_loss(rng: np.random.Generator) -> str:
    t = np.arange(1500)
    loss = (0.3 + 2.0 * np.exp(-t / 200)) * np.exp(0.2 * rng.standard_normal(t.size))
    return "step,loss\n" + "\n".join(f"{step},{value:.6g}" for step, value in zip(t, loss, strict=True))


def norms_with_gaps(rng: np.random.Generator) -> str:
    a, b = np.exp(rng.standard_normal((2, 800)))
    rows = [f"{x:.5g},{y:.5g}" if t % 7 else "," for t, (x, y) in enumerate(zip(a, b, strict=True))]
    return "grad_a,grad_b\n" + "\n".join(rows)


def accuracy_with_outliers(rng: np.random.Generator) -> str:
    level = np.cumsum(0.02 * rng.standard_normal(1200))
    struck = rng.random(1200) < 0.05
    reward = level + np.where(struck, 8.0, 1.0) * rng.standard_normal(1200)
    return "episode;reward\n".replace(";", ",") + "\n".join(f"{i},{v:.6g}" for i, v in enumerate(reward))


SHAPES: dict[str, tuple[Callable[[Any], str], str, str]] = {
    "falling_loss": (falling_loss, "stream.column=loss", "Log("),
    "norms_with_gaps": (norms_with_gaps, "stream.numerator=grad_a stream.denominator=grad_b", "Log("),
    "reward_with_outliers": (accuracy_with_outliers, "stream.column=reward", "RobustKalman("),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_screen_for_a_log(shape: str, tmp_path: Path, kalmean: Callable[..., Any]) -> None:
    write, columns, use = SHAPES[shape]
    path = tmp_path / "log.csv"
    path.write_text(write(np.random.default_rng(3)) + "\n")
    given = ["experiment=recommend", "stream=recorded", f"stream.path={path}", *columns.split()]
    ran = kalmean(*given)
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    (used,) = (line for line in lines if line.startswith("Use "))
    assert use in used
    assert len(lines) < 45
    for said in ("Beta ", "Expect ", "EMA(0.99)", "which only hindsight knows", "written: "):
        assert said in ran.out
    assert "nan" not in ran.out
    folder = Path(lines[-1].removeprefix("written: "))
    assert (folder / "figures" / "recommended.png").stat().st_size > 10_000
    again = kalmean(*given).out.splitlines()
    assert again[:-1] == lines[:-1]
    assert again[-1].startswith("unchanged, from an earlier run: ")


def test_several_series_are_compared_and_the_advice_held_against_hindsight(
    kalmean: Callable[..., Any],
) -> None:
    ran = kalmean("experiment=recommend", "stream=recorded")
    assert ran.code == 0, ran.err
    rows = [line for line in ran.out.splitlines() if line.startswith("| digits_b8")]
    assert len(rows) == 3
    folder = Path(ran.out.splitlines()[-1].removeprefix("written: "))
    table = pd.read_csv(folder / "table.csv").set_index(["stream", "metric"])["value"]
    for seed in range(3):
        name = f"digits_b8_seed{seed}.csv.gz"
        with gzip.open(RECORDINGS / name, "rt") as file:
            log = pd.read_csv(file)
        found = recommend((log["regression_norm"] / log["classification_norm"]).to_numpy())
        assert table[name, "beta"] == found.beta
        assert -0.02 < table[name, "over_hindsight"] < 0.02
        assert table[name, "over_ema_099"] < 0.01


def test_negative_values_are_taken_as_they_are(tmp_path: Path, kalmean: Callable[..., Any]) -> None:
    path = tmp_path / "log.csv"
    values = np.random.default_rng(0).standard_normal(200)
    path.write_text("reward\n" + "\n".join(map(str, values)) + "\n")
    ran = kalmean("experiment=recommend", "stream=recorded", f"stream.path={path}", "stream.column=reward")
    assert ran.code == 0, ran.err
    assert "as they are" in ran.out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["tune=rmse"], "leave match and tune at none"),
        (["match=delay"], "leave match and tune at none"),
        (["stream.domain=log_ratio"], "says itself whether logarithms are better"),
        (["stream=recorded", "stream.path=nowhere.csv"], "nowhere.csv"),
        (["stream=recorded", "stream.column=no_such"], "no_such"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    given: list[str], message: str, kalmean: Callable[..., Any], tmp_path: Path
) -> None:
    ran = kalmean("experiment=recommend", *given)
    assert ran.code == 2
    assert message in ran.err.splitlines()[-1]
    assert "Traceback" not in ran.err


def test_a_constant_log_gets_an_answer(tmp_path: Path, kalmean: Callable[..., Any]) -> None:
    path = tmp_path / "log.csv"
    path.write_text("loss\n" + "1.5\n" * 20)
    ran = kalmean("experiment=recommend", "stream=recorded", f"stream.path={path}", "stream.column=loss")
    assert ran.code == 0, ran.err
    assert "all samples are equal" in ran.out


def test_the_same_samples_under_another_name_are_called_by_it(
    tmp_path: Path, kalmean: Callable[..., Any]
) -> None:
    """A run that is there already is shown again only where it is of files of these names."""
    for name in ("one.csv", "other.csv", "elsewhere/one.csv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("loss\n" + "".join(f"{2 + t % 7}\n" for t in range(40)))
        ran = kalmean("experiment=recommend", "stream=recorded", f"stream.path={path}")
        assert ran.out.startswith(f"recommend for {path.name}: ")
        assert ("unchanged" in ran.out) == (name == "elsewhere/one.csv")
