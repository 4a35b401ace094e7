"""Measured responses against closed forms; test_response.py is the library's, of the closed forms alone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage, matched
from experiments.response import Parameters, Response

Kalmean = Callable[..., Any]
KINDS = [EMA, DebiasedEMA, Kalman, MovingAverage]
FREQUENCIES = np.geomspace(0.001, 0.5, 25)


def measured(estimator: Any) -> dict[str, float]:
    return {m.metric: m.values[0] for m in Response.of(estimator, FREQUENCIES).measured()}


@settings(deadline=None, max_examples=25)
@given(beta=st.floats(0.01, 0.995), kind=st.sampled_from(KINDS))
def test_every_filter_is_its_closed_form(beta: float, kind: Any) -> None:
    found = measured(matched(kind, EMA(beta)))
    assert found["largest_error"] < 1e-9
    assert found["largest_error"] == max(value for name, value in found.items() if name.endswith("_error"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_at_the_betas_that_are_published(kind: Any) -> None:
    for beta in Parameters().betas:
        assert measured(matched(kind, EMA(beta)))["largest_error"] < 1e-9


def test_a_wrong_closed_form_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for form in ("noise_gain", "group_delay", "steady_gain"):
        with monkeypatch.context() as patched:
            patched.setattr(EMA, form, getattr(EMA(0.9), form) * (1 + 1e-6))
            assert measured(EMA(0.9))["largest_error"] > 1e-8, form
    for form in ("impulse_response", "step_response", "frequency_response"):
        right = getattr(EMA, form)
        with monkeypatch.context() as patched:
            patched.setattr(EMA, form, lambda self, argument, right=right: right(self, argument) + 1e-6)
            assert measured(EMA(0.9))["largest_error"] > 1e-8, form


def test_samples_to_63_86_and_95_percent() -> None:
    found = measured(EMA(0.99))
    assert [found[f"samples_to_{mark}"] for mark in (63, 86, 95)] == [100, 199, 299]
    assert measured(Kalman.from_beta(0.99))["samples_to_95"] == 299
    assert [measured(MovingAverage(199))[f"samples_to_{mark}"] for mark in (63, 86, 95)] == [126, 173, 190]
    assert measured(MovingAverage(1))["samples_to_95"] == 1


@settings(deadline=None, max_examples=20)
@given(beta=st.floats(0.05, 0.99))
def test_counts_are_whole_time_constants(beta: float) -> None:
    found = measured(EMA(beta))
    tau = -1.0 / np.log(beta)
    for multiple, mark in enumerate((63, 86, 95), start=1):
        assert abs(found[f"samples_to_{mark}"] - np.ceil(multiple * tau)) <= 1
        assert found[f"samples_to_{mark}"] >= multiple * tau - 1e-6
    assert found["time_constant"] == pytest.approx(tau)


@pytest.mark.slow
def test_the_measured_table(kalmean: Kalmean) -> None:
    ran = kalmean("experiment=response", "experiment.betas=[0.5,0.9]", "experiment.frequencies=5")
    assert (ran.code, ran.err) == (0, "")
    table = ran.table
    assert set(table["estimator"]) == {
        f"{name}@{beta}"
        for name in ("ema", "debiased_ema", "kalman", "moving_average")
        for beta in (0.5, 0.9)
    }
    assert set(table["experiment"]) == {"response"}
    assert set(table["seed"]) == {0}
    assert (table.loc[table["metric"].str.endswith("_error"), "value"] < 1e-9).all()
    gains = table[table["metric"] == "noise_gain_db"].set_index("estimator")["value"]
    for beta, window in ((0.5, 3), (0.9, 19)):
        np.testing.assert_allclose(
            gains[[name for name in gains.index if name.endswith(f"@{beta}")]], -10 * np.log10(window)
        )
    folder = next((ran.output / "runs").iterdir())
    assert folder.name.startswith("response-")
    assert {path.name for path in (folder / "figures").iterdir()} == {"bode.png", "impulse.png", "step.png"}
    for path in (folder / "figures").iterdir():
        width, height = struct.unpack(">II", path.read_bytes()[16:24])
        assert width > 600
        assert height > 300
    assert (
        "unchanged"
        in kalmean("experiment=response", "experiment.betas=[0.5,0.9]", "experiment.frequencies=5").out
    )


def test_one_beta_and_one_estimator(kalmean: Kalmean) -> None:
    ran = kalmean(
        "experiment=response", "experiment.betas=[0.7]", "estimators=[kalman]", "experiment.frequencies=2"
    )
    assert ran.code == 0
    assert set(ran.table["estimator"]) == {"kalman@0.7"}


def test_no_cutoff_is_said(kalmean: Kalmean) -> None:
    # Below beta = 3 - 2 sqrt(2) an EMA passes half the power at every frequency.
    ran = kalmean("experiment=response", "experiment.betas=[0.1]", "estimators=[ema]")
    row = ran.table[ran.table["metric"] == "cutoff"].iloc[0]
    assert np.isnan(row["value"])
    assert row["status"] == "no cutoff"
    assert "no cutoff" in ran.out


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.betas=[1]", "experiment.betas=[1.0] is not valid"),
        ("experiment.betas=[0]", "experiment.betas=[0.0] is not valid"),
        ("experiment.betas=[0.5,1.5]", "experiment.betas=[0.5, 1.5] is not valid"),
        ("experiment.betas=[]", "experiment.betas=[] is not valid; it must be a list of numbers in (0, 1)"),
        ("experiment.betas=[nan]", "experiment.betas=[nan] is not valid"),
        ("experiment.betas=0.5", "experiment.betas"),
        ("experiment.betas=[high]", "experiment.betas"),
        ("experiment.frequencies=1", "experiment.frequencies=1 is not valid; it must be an int >= 2"),
        ("experiment.betta=[0.5]", "did you mean betas?"),
    ],
)
def test_settings_that_are_refused(refused: Callable[..., str], override: str, part: str) -> None:
    assert part in refused("experiment=response", override)


@pytest.mark.slow
def test_other_matches_are_refused_rather_than_ignored(kalmean: Callable[..., Any], capsys: Any) -> None:
    from experiments.__main__ import main

    for override in ("match=delay", "tune=rmse"):
        assert main(["experiment=response", override, "experiment.betas=[0.5]"]) == 2
        assert "leave match and tune at none" in capsys.readouterr().err
