"""Names to classes: what is defined is found, under the name that the settings use."""

from __future__ import annotations

import pytest

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from experiments import config, registry
from experiments.recorded import Recorded
from experiments.streams import GradientRatio, Impulse, Ramp, RegimeChange, Sinusoid, Step


def test_every_estimator_has_its_name_once() -> None:
    kinds = registry.estimator_kinds()
    four = {"ema": EMA, "debiased_ema": DebiasedEMA, "kalman": Kalman, "moving_average": MovingAverage}
    assert four.items() <= kinds.items()
    assert len(set(kinds.values())) == len(kinds)
    assert not any(name.startswith("_") or kind.__abstractmethods__ for name, kind in kinds.items())  # type: ignore[attr-defined]


def test_every_stream_has_its_name() -> None:
    assert registry.stream_kinds() == {
        "gradient_ratio": GradientRatio,
        "step": Step,
        "ramp": Ramp,
        "impulse": Impulse,
        "sinusoid": Sinusoid,
        "recorded": Recorded,
        "regime_change": RegimeChange,
    }


@pytest.mark.parametrize("name", config.options("experiment"))
def test_experiments_offer_parameters_and_cells_or_a_run(name: str) -> None:
    module = registry.experiment(name)
    assert module.__name__ == f"experiments.{name}"
    assert hasattr(module, "run") != (hasattr(module, "measure") and hasattr(module, "report"))
    assert module.Parameters() == module.Parameters()


def test_executors_are_found_by_the_names_of_their_modules() -> None:
    assert list(registry.executor_kinds()) == ["local", "ray", "slurm"] == list(config.options("executor"))


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("EMA", "ema"),
        ("DebiasedEMA", "debiased_ema"),
        ("Kalman", "kalman"),
        ("FilterpyKalman", "filterpy_kalman"),
        ("MovingAverage", "moving_average"),
        ("GradientRatio", "gradient_ratio"),
        ("EMAOfEMA", "ema_of_ema"),
        ("Top2Mean", "top2_mean"),
    ],
)
def test_snake_case(name: str, snake: str) -> None:
    assert registry.snake_case(name) == snake


def test_nearest_comes_first_and_all_are_listed() -> None:
    assert registry.nearest("emma", ["kalman", "ema"]) == "did you mean ema? valid: kalman, ema"
    assert registry.nearest("xyz", ["kalman", "ema"]) == "valid: kalman, ema"
    assert registry.nearest("x", []) == "valid: none"
    assert registry.nearest("kalmann", iter(["ema", "kalman"])) == "did you mean kalman? valid: ema, kalman"
