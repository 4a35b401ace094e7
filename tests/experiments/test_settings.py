"""Matching and tuning: what all share, what was spent on each, and that nothing evaluated was tuned on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators import EMA, DebiasedEMA, Estimator, Kalman, MovingAverage
from experiments.settings import (
    BUDGET,
    TUNING_STREAMS,
    Match,
    Tune,
    Tuner,
    at_noise_gain,
    budget,
    match_to_first,
)
from experiments.streams import GradientRatio, Realisations, Sinusoid

FOUR: dict[str, Any] = {
    "ema": EMA(0.9),
    "debiased_ema": DebiasedEMA(0.5),
    "kalman": Kalman(q=1.0, r=4.0, mean=2.0, variance=3.0),
    "moving_average": MovingAverage(3),
}


@pytest.mark.parametrize(
    ("by", "quantity"),
    [(Match.noise_gain, "noise_gain"), (Match.delay, "group_delay"), (Match.mse, "signal_to_noise")],
)
def test_all_match_the_first_one_named(by: Match, quantity: str) -> None:
    matched = match_to_first(FOUR, by)
    assert list(matched) == list(FOUR)
    assert matched["ema"] is FOUR["ema"]
    for name, estimator in matched.items():
        assert type(estimator) is type(FOUR[name])
        if name != "moving_average":
            assert getattr(estimator, quantity) == pytest.approx(getattr(FOUR["ema"], quantity), rel=1e-9)
    window: Any = matched["moving_average"]
    if by is not Match.mse:
        assert window.window == 19
    else:  # the nearest whole windows err more on that random walk
        s = FOUR["ema"].signal_to_noise
        assert window == MovingAverage.from_signal_to_noise(s)
        errors = [1 / n + s * (n - 1) * (2 * n - 1) / (6 * n) for n in range(1, 60)]
        assert window.window == 1 + int(np.argmin(errors))


def test_matching_keeps_every_other_parameter() -> None:
    matched: Any = match_to_first(FOUR, Match.noise_gain)["kalman"]
    assert (matched.r, matched.mean, matched.variance) == (4.0, 2.0, 3.0)
    matched = match_to_first({"kalman": Kalman(q=0.01, r=1.0), "ema": EMA(0.5, initial=None)}, Match.delay)[
        "ema"
    ]
    assert matched.initial is None
    assert matched.beta == pytest.approx(1.0 - Kalman(q=0.01, r=1.0).steady_gain)


def test_the_first_one_named_is_the_reference_whichever_it_is() -> None:
    reverse = dict(reversed(FOUR.items()))
    matched: Any = match_to_first(reverse, Match.noise_gain)
    assert matched["moving_average"] == MovingAverage(3)
    assert matched["ema"].noise_gain == pytest.approx(1.0 / 3.0)


def test_no_match_is_one_line_that_names_the_estimator() -> None:
    with pytest.raises(ValueError, match=r"^estimators\.kalman: no setting matches MovingAverage") as caught:
        match_to_first({"moving_average": MovingAverage(1), "kalman": FOUR["kalman"]}, Match.noise_gain)
    assert "\n" not in str(caught.value)


def test_an_estimator_without_closed_forms_matches_nothing() -> None:
    class Odd:
        pass

    with pytest.raises(ValueError, match=r"^estimators\.odd: no setting matches"):
        match_to_first({"ema": EMA(0.9), "odd": Odd()}, Match.delay)  # type: ignore[dict-item]


# --- tuning -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned() -> dict[str, Any]:
    tuner = Tuner.on(GradientRatio(), Tune.rmse, root_seed=0, burn_in=1000)
    return {
        name: at_noise_gain(estimator, tuner.best(estimator)[0])
        for name, estimator in FOUR.items()
        if name != "debiased_ema"
    }


def test_tuning_finds_the_right_setting_of_the_default_stream(tuned: dict[str, Any]) -> None:
    # The error is flat around its least.
    assert 0.985 <= tuned["ema"].beta <= 0.993
    assert 0.985 <= 1.0 - tuned["kalman"].steady_gain <= 0.993
    assert tuned["kalman"].r == 4.0
    # The best window errs by 7.5 % more in RMSE than the best EMA; its own optimum is 172.
    n, s = tuned["moving_average"].window, 1.0 / 9900.0

    def error(n: int) -> float:
        return 1 / n + s * (n - 1) * (2 * n - 1) / (6 * n)

    assert error(n) <= 1.05 * error(172)


def test_ema_and_kalman_choose_the_same_filter(tuned: dict[str, Any]) -> None:
    assert 1.0 - tuned["kalman"].steady_gain == pytest.approx(tuned["ema"].beta, rel=1e-9)


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("by", [Tune.rmse, Tune.prediction_rmse])
def test_every_kind_gets_the_same_budget_on_the_same_streams(
    name: str, by: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Estimator] = []
    monkeypatch.setattr(Tuner, "error", lambda self, estimator: tried.append(estimator) or float(len(tried)))
    stream = GradientRatio(steps=400)
    best, edge = Tuner.on(stream, by, 0, 100).best(FOUR[name])
    assert len(tried) == BUDGET
    assert at_noise_gain(FOUR[name], best) == tried[0]
    assert edge
    gains = [estimator.noise_gain for estimator in tried]  # type: ignore[attr-defined]
    coarse, fine = gains[: BUDGET // 2], gains[BUDGET // 2 :]
    assert coarse[-1] == pytest.approx(4.0 / 400.0, rel=1e-9)
    if name != "moving_average":  # windows round
        assert coarse[0] == pytest.approx(0.98, rel=1e-9)
        np.testing.assert_allclose(np.diff(np.log(coarse)), np.diff(np.log(coarse))[0], rtol=1e-6)
        assert coarse[0] > max(fine) > min(fine) > coarse[1]  # around the best, which was the first
    assert f"{BUDGET} noise gains each" in budget(stream, by)
    assert f"{TUNING_STREAMS} streams of other seeds" in budget(stream, by)
    assert by.value in budget(stream, by)


def test_the_best_is_the_least_error_of_those_tried() -> None:
    tuner = Tuner.on(Sinusoid(steps=300, frequency=0.02), Tune.rmse, 0, 50)
    best, edge = tuner.best(EMA(0.5))
    gains = np.geomspace(0.98, 4.0 / 300.0, 400)
    errors = [tuner.error(EMA.from_noise_gain(gain, initial=0.0)) for gain in gains]
    assert tuner.error(at_noise_gain(EMA(0.5), best)) == pytest.approx(min(errors), rel=1e-4)
    assert not edge
    assert min(errors) < errors[0]
    assert min(errors) < errors[-1]


def test_a_best_setting_at_the_edge_is_said_to_be_there() -> None:
    fast = Tuner.on(GradientRatio(steps=400, s=100.0), Tune.rmse, 0, 100)
    best, edge = fast.best(EMA(0.5))
    assert at_noise_gain(EMA(0.5), best).beta < 0.02  # type: ignore[attr-defined]
    assert edge


def test_the_error_is_the_mean_over_streams_after_the_burn_in() -> None:
    stream = GradientRatio(steps=200)
    drawn = stream.draw(range(TUNING_STREAMS), 5, "tune")
    run = EMA(0.8).filter(drawn.samples)
    assert drawn.level is not None
    rmse = np.sqrt(((run.mean - drawn.level)[40:] ** 2).mean(axis=0)).mean()
    assert Tuner.on(stream, Tune.rmse, 5, 40).error(EMA(0.8)) == pytest.approx(rmse)
    ahead = np.sqrt(((drawn.samples[40:] - run.mean[39:-1]) ** 2).mean(axis=0)).mean()
    assert Tuner.on(stream, Tune.prediction_rmse, 5, 40).error(EMA(0.8)) == pytest.approx(ahead)


def test_selection_never_sees_what_is_evaluated(
    kalmean: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, Realisations]] = []
    draw = GradientRatio.draw

    def recorded(self: GradientRatio, repetitions: Any, root_seed: int, purpose: Any = "evaluate") -> Any:
        result = draw(self, repetitions, root_seed, purpose)
        drawn.append((purpose, result))
        return result

    monkeypatch.setattr(GradientRatio, "draw", recorded)
    assert kalmean("tune=rmse", "seeds=3", "stream.steps=100", "estimators=[ema,kalman]").code == 0
    assert {purpose for purpose, _ in drawn} == {"tune", "evaluate"}
    selected, evaluated = (
        {column.tobytes() for purpose, result in drawn if purpose == wanted for column in result.samples.T}
        for wanted in ("tune", "evaluate")
    )
    assert len(selected) == TUNING_STREAMS
    assert len(evaluated) == 3
    assert not selected & evaluated


def test_tuned_settings_stand_in_the_table_with_the_budget(kalmean: Callable[..., Any]) -> None:
    ran = kalmean("tune=rmse", "seeds=2", "stream.steps=300", "stream.s=0.01")
    assert (
        f"tuned: {BUDGET} noise gains each, on rmse over {TUNING_STREAMS} streams of other seeds" in ran.out
    )
    summary = ran.summary
    assert "beta=0.99" not in set(summary["parameters"])
    assert "window=199" not in set(summary["parameters"])


def test_matched_settings_stand_in_the_table_with_what_they_match(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(
        "estimators=[ema,moving_average]",
        "estimators.ema.beta=0.9",
        "match=delay",
        "seeds=2",
        "stream.steps=300",
    )
    assert "matched to ema by delay" in ran.out
    assert set(ran.summary["parameters"]) == {"beta=0.9", "window=19"}
    assert set(ran.values("lag").round(6)) == {9.0}


def test_match_and_tune_exclude_each_other(refused: Callable[..., str]) -> None:
    message = refused("match=delay", "tune=rmse")
    assert "match=delay" in message
    assert "tune=rmse" in message
    assert "none" in message


def test_a_recorded_stream_cannot_be_tuned_on_what_is_not_known(refused: Callable[..., str]) -> None:
    message = refused("stream=recorded", "tune=rmse")
    assert message == "tune=rmse needs a stream whose level is known; use tune=prediction_rmse"


def test_what_cannot_be_matched_is_refused_before_anything_is_written(refused: Callable[..., str]) -> None:
    message = refused("match=mse", "estimators.ema.beta=0", "stream.steps=50")
    assert message.startswith("estimators.debiased_ema: no setting matches EMA(beta=0.0")


def test_a_recorded_stream_is_tuned_on_its_first_half_and_evaluated_on_its_second(
    kalmean: Callable[..., Any], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    values = np.exp(rng.normal(size=400))
    paths = [tmp_path / f"log{k}.csv" for k in range(2)]
    for path, tail in zip(paths, (1.0, 5.0), strict=True):  # the same first half, another second half
        shown = np.concatenate([values[:200], values[200:] * tail])
        path.write_text("x\n" + "\n".join(map(repr, shown.tolist())) + "\n")
    settings = ["stream=recorded", "tune=prediction_rmse", "estimators=[ema]"]
    one, other = (kalmean(*settings, f"stream.path={path}", output=path.stem) for path in paths)
    assert (
        "Errors after the first 200; tuned: 49 noise gains each, on prediction_rmse over the first half"
        in one.out
    )
    assert set(one.table["parameters"]) == set(other.table["parameters"])
    assert one.values("prediction_rmse") != other.values("prediction_rmse")
