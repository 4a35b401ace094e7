"""Attenuation of a sinusoid: against closed forms, where it depends on the data, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import (
    EMA,
    DebiasedEMA,
    Kalman,
    KalmanBank,
    Log,
    MovingAverage,
    RobustKalman,
    RunningMedian,
)
from experiments.cells import Condition
from experiments.disturbance import Found, Parameters, amplitude_at, measure, metric, sentences
from experiments.disturbance_figures import Shown, beside_zero, bode
from experiments.streams import GradientRatio

FREQUENCIES = [0.001, 0.01, 0.05, 0.1, 0.25, 0.5]
LINEAR = [EMA(0.9), DebiasedEMA(0.9), Kalman.from_beta(0.9), MovingAverage(19)]


def condition(stream: Any = None, **parameters: Any) -> Condition:
    stream = stream or GradientRatio(steps=4000)
    chosen = Parameters(**{"frequencies": FREQUENCIES, "window": 19} | parameters)
    return Condition(measure, chosen, stream, 1.7956, 0, 500)


def found(estimator: Any, where: Condition | None = None, repetitions: Any = range(3)) -> dict[str, Any]:
    return {one.metric: one for one in measure(where or condition(), estimator, repetitions)}


# --- amplitude ----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(f=st.floats(0.01, 0.49), phase=st.floats(0.0, 6.3), first=st.integers(0, 10_000))
def test_the_amplitude_of_any_stretch_of_a_sinusoid_is_exact(f: float, phase: float, first: int) -> None:
    t = np.arange(first, first + 137)
    values = np.stack([a * np.cos(2.0 * np.pi * f * t + phase) for a in (1.0, 1e-3)], axis=1)
    np.testing.assert_allclose(amplitude_at(f, values, first), [1.0, 1e-3], rtol=1e-8)


def test_at_half_a_cycle_it_is_that_of_the_cosine() -> None:
    t = np.arange(101)
    assert amplitude_at(0.5, (0.7 * np.cos(np.pi * t))[:, np.newaxis])[0] == pytest.approx(0.7, rel=1e-12)


# --- linear filters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", LINEAR, ids=lambda e: type(e).__name__)
def test_what_is_measured_of_a_linear_filter_is_its_frequency_response(estimator: Any) -> None:
    own = found(estimator)
    for f in FREQUENCIES:
        closed = -20.0 * np.log10(abs(estimator.frequency_response(f)))
        np.testing.assert_allclose(own[metric(f)].values, closed, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(own[metric(f) + "_expected"].values, closed, rtol=1e-12)


def test_a_window_removes_what_lies_at_its_zeros_and_midway_leaves_its_envelope() -> None:
    own = found(MovingAverage(19))
    lobes = condition().parameters.lobes
    assert [round(zero * 19) for zero, _ in lobes] == [1, 5]
    for zero, midway in lobes:
        assert zero * 19 == pytest.approx(round(zero * 19))
        assert own[metric(zero)].status == ["removed"] * 3
        assert np.isnan(own[metric(zero) + "_expected"].values).all()
        envelope = -20.0 * np.log10(1.0 / (19.0 * np.sin(np.pi * midway)))
        np.testing.assert_allclose(own[metric(midway)].values, envelope, rtol=1e-9)


def test_between_its_zeros_a_window_leaves_as_much_as_an_ema_of_its_noise_gain() -> None:
    window, ema = found(MovingAverage(19)), found(EMA(0.9))
    for _, midway in condition().parameters.lobes[1:]:
        assert window[metric(midway)].values[0] == pytest.approx(ema[metric(midway)].values[0], abs=0.2)
    np.testing.assert_allclose(window[metric(0.5)].values, ema[metric(0.5)].values, rtol=1e-9)


def test_the_effect_of_a_cosine_on_a_linear_filter_is_what_its_map_makes_of_it() -> None:
    where, ema = condition(), EMA(0.9)
    samples = where.draw(range(3)).samples
    wave = np.sqrt(1.7956) * np.cos(2.0 * np.pi * 0.05 * np.arange(4000))
    moved = (ema.filter(samples + wave[:, None]).mean - ema.filter(samples).mean)[2000:]
    left = np.sqrt(np.mean(moved**2, axis=0) / np.mean(wave[2000:] ** 2))
    np.testing.assert_allclose(found(ema, where)[metric(0.05, "effect")].values, -20.0 * np.log10(left))


def test_closed_forms_are_claimed_only_of_what_has_settled() -> None:
    assert metric(0.1) + "_expected" not in found(EMA(0.999))
    assert metric(0.1) + "_expected" in found(EMA(0.98))
    gaps = condition(GradientRatio(steps=4000, gap_rate=0.01))
    assert metric(0.1) + "_expected" not in found(EMA(0.9), gaps)
    assert np.ptp(found(EMA(0.9), gaps)[metric(0.1)].values) > 0.0


# --- maps that depend on the data ---------------------------------------------------------------------------


def test_a_bank_takes_a_large_slow_cosine_for_signal_and_a_fast_one_for_noise() -> None:
    own = found(KalmanBank(), condition(frequencies=[0.01, 0.5], window=0), range(2))
    assert (own[metric(0.01)].values < 1.0).all()
    assert (own[metric(0.5)].values > 40.0).all()
    assert np.ptp(own[metric(0.5)].values) > 0.0
    small = found(KalmanBank(), condition(frequencies=[0.01], window=0, amplitude=0.01), range(2))
    assert (small[metric(0.01)].values > 8.0).all()


def test_by_map_and_by_effect_are_one_where_the_gain_is_hardly_moved() -> None:
    # A Huber loss that never binds is the linear filter.
    kalman, robust = Kalman(q=0.02, r=1.8), RobustKalman(q=0.02, r=1.8, threshold=1e6)
    linear, own = found(kalman), found(robust)
    for f in FREQUENCIES:
        for by in ("attenuation", "effect"):
            np.testing.assert_allclose(own[metric(f, by)].values, linear[metric(f, by)].values, atol=1e-6)


def test_a_median_is_moved_by_more_than_its_map_passes_coherently() -> None:
    own = found(RunningMedian(31), condition(frequencies=[0.25], window=0))
    assert (own[metric(0.25, "effect")].values < own[metric(0.25)].values).all()
    assert metric(0.25) + "_expected" not in own


def test_zeros_of_the_window_are_looked_at_with_linear_filters_alone() -> None:
    lobe = metric(condition().parameters.lobes[0][1])
    assert lobe in found(EMA(0.9))
    assert lobe not in found(RunningMedian(9))


@pytest.mark.parametrize("estimator", [EMA(0.9), RunningMedian(9), KalmanBank(per_decade=1)])
def test_a_repetition_has_the_same_bytes_whatever_stands_beside_it(estimator: Any) -> None:
    where = condition(GradientRatio(steps=1500), frequencies=[0.01, 0.5], window=0)
    together = found(estimator, where, range(3))
    for repetition in range(3):
        alone = found(estimator, where, [repetition])
        for name, one in alone.items():
            np.testing.assert_array_equal(one.values, together[name].values[repetition : repetition + 1])


def test_what_cannot_be_measured_says_why() -> None:
    low = found(EMA(0.9), condition(frequencies=[1e-4], window=0))
    assert low[metric(1e-4)].status == ["less than a period"] * 3
    logs = found(Log(EMA(0.9, initial=None)), condition(GradientRatio(steps=1000, domain="ratio")))  # type: ignore[arg-type]
    assert set(logs[metric(0.1)].status) == {"works on logarithms"}


# --- what is said -------------------------------------------------------------------------------------------


def said(differences: Any, half: float, trait: bool = True, exact: bool = True, n: int = 9) -> str:
    frequencies = [0.1, 0.25, 0.5]
    rows: dict[tuple[str, str], Any] = {}
    for f, difference in zip(frequencies, differences, strict=True):
        for by in ("attenuation", "effect"):
            rows["ema", metric(f, by)] = {"n": 9, "mean": 30.0, "status": "ok"}
            rows["other", metric(f, by)] = {
                "n": n if np.isfinite(difference) else 0,
                "failed": 0,
                "missing": 0 if np.isfinite(difference) else n,
                "pairs": n,
                "status": "ok",
                "mean": 30.0 + difference,
                "difference": difference,
                "difference_low": difference - half,
                "difference_high": difference + half,
            }
    names = {"ema": EMA(0.9), "other": EMA(0.8) if trait else RunningMedian(9)}
    return "\n".join(sentences(Found(names, rows, exact), Parameters(frequencies=frequencies, window=0)))


def test_sentences_follow_from_the_numbers() -> None:
    assert said([0.0, 0.01, -0.01], 0.001) == "other ties with ema at all 3 frequencies (within 0.05 dB)"
    assert said([3.0, 5.0, -2.0], 0.1) == (
        "other against ema, 3 frequencies: attenuates more at 2 (+3.00 to +5.00 dB), "
        "attenuates less at 1 (-2.00 dB)"
    )
    assert "not told apart at 3" in said([0.3, 0.2, -0.1], 1.0)
    assert said([3.0, np.nan, 5.0], 0.1) == (
        "other against ema, 2 frequencies (1 more without a value): attenuates more at 2 (+3.00 to +5.00 dB)"
    )
    dependent = said([3.0, 5.0, -2.0], 0.1, trait=False)
    assert "other against ema, by effect, 3 frequencies: attenuates more at 2" in dependent
    assert "other: its attenuation by effect less that by map is +0.00 dB" in dependent


def test_one_stream_tells_exact_attenuations_apart() -> None:
    assert said([-0.55, 0.01, 2.0], np.nan, n=1) == (
        "other against ema, 3 frequencies: ties at 1, attenuates more at 1 (+2.00 dB), "
        "attenuates less at 1 (-0.55 dB)"
    )
    assert "not told apart at 3" in said([-0.55, 0.01, 2.0], np.nan, n=1, exact=False)
    assert "not told apart at 3" in said([-0.55, 0.01, 2.0], np.nan, n=1, trait=False)


def test_the_line_of_a_window_goes_through_what_was_measured_beside_its_zeros() -> None:
    window, ema = MovingAverage(199), EMA(0.99)
    gain = {f: 20.0 * np.log10(abs(window.frequency_response(f))) for f in (0.001, 0.005, 0.01)}
    points: Any = {
        "ema": [(0.01, -16.0, 0.0)],
        "window": [(f, g, 0.0) for f, g in gain.items()],
        "median": [],
    }
    names = {"ema": ema, "window": window, "median": RunningMedian(9)}
    left, right = bode([Shown(1.0, names, points, {"window": [1 / 199]})]).axes
    lines = {one.get_label(): one for one in left.get_lines()}
    f, closed = lines["window"].get_data()
    for at, expected in gain.items():
        assert closed[f == at] == pytest.approx(expected, abs=1e-9)
    assert {"beside a zero", "at a zero: nothing is left"} <= set(lines)
    # What is not drawn as a line has lobes that are finer than one; the EMA has none.
    assert 0.02 < f[-1] < 0.2
    assert lines["ema"].get_xdata()[-1] == 0.5
    reference = {one.get_label(): one for one in right.get_lines()}["ema (closed form)"]
    f, closed = reference.get_data()
    np.testing.assert_allclose(closed, 20.0 * np.log10(np.abs(ema.frequency_response(f))), rtol=1e-9)


def test_what_lies_beside_a_zero() -> None:
    near = [f for f in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5) if beside_zero(f, 199)]
    assert near == [0.005, 0.01, 0.02, 0.05, 0.1]
    assert not beside_zero(0.1, 0)


def test_the_table_that_is_printed(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(
        "experiment=disturbance",
        "estimators=[ema,kalman,moving_average,running_median]",
        "estimators.ema.beta=0.9",
        "estimators.kalman.q=0.01995111",
        "estimators.moving_average.window=19",
        "estimators.running_median.window=29",
        "experiment.window=19",
        "experiment.frequencies=[0.01,0.1,0.5]",
        "experiment.sweep.grid={experiment.amplitude:[1.0]}",
        "stream.steps=2000",
        "seeds=3",
    )
    assert (ran.code, ran.folder.name.startswith("disturbance-")) == (0, True)
    text = (ran.folder / "summary.md").read_text()
    assert all(len(row) <= 110 for row in text.splitlines() if not row.startswith("closed form, "))
    assert "kalman ties with ema at all 3 frequencies" in text
    assert "moving_average: at 2 of 2 of its zeros nothing is left" in text
    assert "9 of 9 betas attain their level" in text
    assert "Closed forms and simulation: 0 of " in text
    assert {path.name for path in (ran.folder / "figures").iterdir()} == {"bode.png", "beta.png"}
    at_half = ran.values(metric(0.5), "moving_average")
    np.testing.assert_allclose(at_half, 20.0 * np.log10(19.0), rtol=1e-9)


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        (
            {"frequencies": []},
            "experiment.frequencies=[] is not valid; it must be a list of numbers in [1e-06, 0.5]",
        ),
        ({"frequencies": [0.6]}, "experiment.frequencies=[0.6] is not valid"),
        ({"frequencies": [0.0]}, "experiment.frequencies=[0.0] is not valid"),
        ({"frequencies": [0.1, 0.1]}, "none of them twice"),
        ({"frequencies": [1e-9]}, "experiment.frequencies=[1e-09] is not valid"),
        ({"levels": [-3.0]}, "experiment.levels=[-3.0] is not valid"),
        (
            {"levels": [300.0]},
            "experiment.levels=[300.0] is not valid; it must be a list of numbers in [0.1, 120]",
        ),
        ({"window": -1}, "experiment.window=-1 is not valid; it must be an int from 0 to 100000"),
        (
            {"window": 10**11},
            "experiment.window=100000000000 is not valid; it must be an int from 0 to 100000",
        ),
        ({"amplitude": 0.0}, "experiment.amplitude=0.0 is not valid; it must be in [1e-06, 1e+06] standard"),
        ({"amplitude": 1e300}, "experiment.amplitude=1e+300 is not valid"),
        ({"amplitude": 1e-300}, "experiment.amplitude=1e-300 is not valid"),
        ({"amplitude": np.inf}, "experiment.amplitude=inf is not valid"),
        ({"amplitude": np.nan}, "experiment.amplitude=nan is not valid"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=r"^experiment\.") as raised:
        Parameters(**parameters)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_settings_that_are_refused(refused: Callable[..., str]) -> None:
    wrong = refused("experiment=disturbance", "experiment.frequencies=[0.6]")
    assert "experiment.frequencies=[0.6] is not valid" in wrong
    assert "did you mean window?" in refused("experiment=disturbance", "experiment.windw=3")
