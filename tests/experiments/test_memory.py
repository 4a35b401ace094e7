"""Error against bytes of state, and by how it is stored: closed forms, oracles, and what is said of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from estimators import EMA, DebiasedEMA, Kalman, KalmanBank, MovingAverage, RunningMedian
from experiments import memory_stalls
from experiments.memory import Parameters, Sized, run, sentences, tuned
from experiments.memory_figures import by_bytes, by_storage
from experiments.memory_storage import STORAGES
from experiments.sensitivity import expected_rmse
from experiments.setup import Setup
from experiments.streams import GradientRatio

NAMES = [storage.name for storage in STORAGES]
GRID = memory_stalls.Grid([0.9, 0.99, 0.999], [1.0, 0.01], [1e-4], 6.1, 600, 4)
SMALL = [
    "experiment=memory", "seeds=4", "stream.steps=1500", "experiment.drifts=[1e-2]", "experiment.steps=300",
    "experiment.repetitions=3", "experiment.betas=[0.9,0.999]",
    "estimators=[ema,kalman,moving_average,kalman_bank]",
]  # fmt: skip


@pytest.fixture(scope="module")
def errors() -> memory_stalls.Errors:
    return memory_stalls.errors(GRID, 0)


@pytest.fixture(autouse=True)
def few_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_stalls, "MOMENT_STEPS", 3000)
    monkeypatch.setattr(memory_stalls, "MOMENT_LAST", 500)


def setup(stream: GradientRatio, **estimators: Any) -> Setup:
    return Setup(Parameters(), "gradient_ratio", stream, stream.r, estimators, 3, 0, stream.steps // 4)


# --- closed forms -------------------------------------------------------------------------------------------


def by_weights(estimator: Any, stream: GradientRatio, first: int, offset: float) -> float:
    """Expected squared error from the weights of every sample, one run per sample."""
    n = stream.steps
    weights = np.asarray(estimator.filter(np.eye(n)).mean)  # (time, age)
    steps = np.tril(np.ones((n, n)))
    left = steps - weights @ steps  # of each step of the walk
    noise = stream.r * (weights**2).sum(axis=1)
    start = offset * (1.0 - weights.sum(axis=1))
    return float((noise + stream.r * stream.s * (left**2).sum(axis=1) + start**2)[first:].mean())


@pytest.mark.parametrize(
    "estimator",
    [EMA(0.7), EMA(0.7, initial=None), MovingAverage(4), DebiasedEMA(0.7), Kalman(q=0.1, r=1.5)],
    ids=str,
)
def test_the_expected_error_is_that_of_the_weights_start_up_included(estimator: Any) -> None:
    stream = GradientRatio(steps=300, r=1.5, s=0.02)
    for first in (2, 60):
        closed = memory_stalls.closed_mse(estimator, stream, first)
        assert closed == pytest.approx(by_weights(estimator, stream, first, np.log(2.1)), rel=1e-10)


def test_long_after_the_start_it_is_the_settled_one() -> None:
    stream = GradientRatio(steps=4000)
    for estimator in (EMA(0.95), MovingAverage(39)):
        settled = expected_rmse(estimator, stream) ** 2
        assert memory_stalls.closed_mse(estimator, stream, 2000) == pytest.approx(settled, rel=1e-9)


def test_a_closed_form_is_claimed_only_where_an_interval_can_judge_it() -> None:
    stream = GradientRatio(steps=4000)
    assert memory_stalls.closed_mse(EMA(0.9), stream, 500) is not None
    assert memory_stalls.closed_mse(RunningMedian(5), stream, 500) is None
    assert memory_stalls.closed_mse(KalmanBank(), stream, 500) is None
    assert memory_stalls.closed_mse(EMA(0.999), stream, 500) is None  # too few effective windows
    start = memory_stalls.closed_mse(EMA(0.98, initial=float(np.log(2.1))), stream, 50)
    assert start is not None
    assert start < memory_stalls.closed_mse(EMA(0.98), stream, 50)  # type: ignore[operator]


def test_simulated_errors_agree_with_it() -> None:
    stream = GradientRatio(steps=2000, s=0.01)
    drawn = stream.draw(range(60), 0, "evaluate")
    for estimator in (EMA(0.9), MovingAverage(19)):
        squared = np.asarray(estimator.score(drawn.samples, drawn.level, skip=100).rmse) ** 2
        away = squared.mean() - memory_stalls.closed_mse(estimator, stream, 100)
        assert abs(away) < 4.0 * squared.std(ddof=1) / np.sqrt(60)


# --- tuned settings -----------------------------------------------------------------------------------------


def test_each_kind_is_tuned_near_what_theory_says() -> None:
    stream = GradientRatio(steps=4000, s=0.01)
    right = EMA.from_signal_to_noise(0.01)
    best = tuned(
        setup(
            stream,
            ema=EMA(0.5),
            kalman=Kalman(q=1.0, r=1.0),
            window=MovingAverage(3),
            median=RunningMedian(3),
            bank=KalmanBank(),
        ),
        stream,
        (1, 4),
    )
    assert best["ema"][0].noise_gain == pytest.approx(right.noise_gain, rel=0.15)
    assert best["kalman"][0].steady_gain == pytest.approx(right.steady_gain, rel=0.15)
    assert 12 <= best["window"][0].window <= 22
    assert 15 <= best["median"][0].window <= 39
    assert [name for name, (_, chosen) in best.items() if not chosen] == [
        "window of 1", "window of 4", "bank", "bank of 10", "bank of 5",
    ]  # fmt: skip
    assert best["bank"][0] == KalmanBank()
    assert [best[name][0].state_bytes for name in ("bank", "bank of 10", "bank of 5")] == [856, 344, 184]


# --- stored states ------------------------------------------------------------------------------------------


def test_float64_is_the_library_s_own_error(errors: memory_stalls.Errors) -> None:
    drawn = memory_stalls.walk(600, 1e-4).draw(range(4), 0, "evaluate")
    for d, sd in enumerate(GRID.noise):
        x, level = 6.1 + sd * drawn.samples, 6.1 + sd * drawn.level  # type: ignore[operator]
        for b, beta in enumerate(GRID.betas):
            score = EMA(beta, initial=6.1).score(x, level, skip=60)
            np.testing.assert_allclose(errors.rmse[0, b, 0, d], score.rmse / sd, rtol=1e-9)
    assert (errors.lost[0] == 0.0).all()


def test_a_repetition_is_the_same_whatever_stands_beside_it(errors: memory_stalls.Errors) -> None:
    fewer = memory_stalls.errors(replace(GRID, repetitions=2), 0)
    np.testing.assert_array_equal(fewer.rmse, errors.rmse[..., :2])
    assert not np.array_equal(memory_stalls.errors(replace(GRID, repetitions=2), 1).rmse, fewer.rmse)


def test_finer_storages_lose_less(errors: memory_stalls.Errors) -> None:
    lost = dict(zip(NAMES, errors.lost.mean(axis=-1), strict=True))
    assert (lost["2 x float32"] < 1e-6 * lost["float32"]).all()
    assert (lost["float32"] < lost["2 x bfloat16"]).all()
    assert (lost["2 x bfloat16"] < lost["bfloat16"]).all()


def test_bfloat16_stands_still_where_the_closed_form_says(errors: memory_stalls.Errors) -> None:
    # Spacing 1/32 at 6.1: at noise 0.01 nothing moves it for any of these betas, so that they err alike.
    still = errors.rmse[NAMES.index("bfloat16"), :, 0, 1]
    np.testing.assert_allclose(still - still[0], 0.0, atol=1e-12)
    moving = errors.rmse[NAMES.index("float32"), 0, 0, 1]
    assert (still > 1.5 * moving).all()


def test_stalls_are_measured_beside_their_closed_form() -> None:
    for row in memory_stalls.stall_rows(GRID):
        values = {one.metric: float(one.values[0]) for one in row.measured}
        rounding = 2.0**-51 * 6.1  # of the sample, and of the mean before it is stored
        assert values["stall_distance"] == pytest.approx(
            values["stall_distance_expected"],
            rel=0.2 if "2 x float32" in row.estimator else 1e-4,
            abs=rounding,
        )


def test_a_second_moment_in_bfloat16_never_comes_down() -> None:
    held, expected = memory_stalls.moments(6, 0)
    share = dict(zip(NAMES, held.mean(axis=-1), strict=True))
    np.testing.assert_allclose(share["float64"], expected, rtol=0.06)
    np.testing.assert_allclose(share["2 x bfloat16"], expected, rtol=0.06)
    np.testing.assert_allclose(share["bfloat16, stochastic rounding"], expected, rtol=0.2)
    assert share["bfloat16"][1] > 3.0 * expected[1]


def test_the_expected_second_moment_is_its_sum() -> None:
    _, expected = memory_stalls.moments(2, 0)
    beta, half, last = memory_stalls.MOMENT_BETA, 1500, 500
    before = [1.0 - beta ** (t + 1) for t in range(half - last, half)]
    assert expected[0] == pytest.approx(np.mean(before), rel=1e-12)
    at_fall = 1.0 - beta**half
    after = [1.0 + beta ** (k + 1) * (at_fall / 0.01 - 1.0) for k in range(half - last, half)]
    assert expected[1] == pytest.approx(np.mean(after), rel=1e-10)


# --- what is said -------------------------------------------------------------------------------------------


def sized(name: str, estimator: Any, tuned_at: float | None, error: float) -> Sized:
    return Sized(name, estimator, tuned_at, error + 0.01 * np.array([-1.0, 0.0, 0.5, 0.5]))


def test_sentences_on_bytes_follow_from_the_numbers() -> None:
    def made_up(window: float, elsewhere: float) -> str:
        return "\n".join(
            sentences(
                {
                    1e-4: [sized("ema", EMA(0.99), 1e-4, 1.0), sized("ma", MovingAverage(100), 1e-4, window)],
                    1e-2: [
                        sized("ema", EMA(0.9), 1e-2, 2.0),
                        sized("ma", MovingAverage(10), 1e-2, 2.0),
                        sized("ema", EMA(0.99), 1e-4, elsewhere),
                        sized("ma", MovingAverage(100), 1e-4, 4.0),
                    ],
                }
            )
        )

    worse = made_up(1.2, 3.0)
    assert (
        "ma, 100 times the bytes of ema: once settled, error +0.0 to +20.0 % over its own "
        "(2 streams: 1 more, 1 tie)" in worse
    )
    assert "no window tried comes within 10 % of ema" in worse
    assert "ema, tuned at s = 0.0001: on the other s its error is +50.0 % over ema tuned there" in worse
    better = made_up(0.9, 2.0)
    same = {1e-4: [sized("ema", EMA(0.99), 1e-4, 1.0), sized("ma of 1", MovingAverage(1), None, 2.0)]}
    assert "ma of 1, as many bytes as ema: once settled, error +100.0 %" in "\n".join(sentences(same))
    assert "once settled, error -10.0 to +0.0 % over its own (2 streams: 1 less, 1 tie)" in better
    assert "errs at most 10 % more than ema has 800 bytes, ema 8" in better
    assert "on the other s its error is +0.0 % over ema tuned there" in better


def test_sentences_on_storage_follow_from_the_numbers() -> None:
    grid = memory_stalls.Grid([0.9, 0.99], [1.0], [1e-4], 6.1, 100, 4)
    rmse = np.ones((len(STORAGES), 2, 1, 1, 4)) + np.array([0.0, 1e-5, -1e-5, 0.0])
    held = np.ones((len(STORAGES), 2, 4)) + np.array([0.0, 1e-2, -1e-2, 0.0])
    same = "\n".join(memory_stalls.sentences(grid, rmse, held))
    assert same.count("against float64, 2 settings: 2 tie; noise 1: never more") == 5
    assert "2 x bfloat16 against float32, the same bytes: more error at 0, less at 0, a tie at 2 of 2" in same
    assert "second moment" not in same
    rmse[NAMES.index("float32"), 1] += 0.5
    held[NAMES.index("bfloat16"), 1] *= 100.0
    apart = "\n".join(memory_stalls.sentences(grid, rmse, held))
    assert "float32 against float64, 2 settings: 1 more, 1 tie; noise 1: more from beta = 0.99 on" in apart
    assert (
        "2 x bfloat16 against float32, the same bytes: more error at 0, less at 1, a tie at 1 of 2" in apart
    )
    rmse[NAMES.index("2 x bfloat16"), 0] = 1.0 + np.array([1.0, -1.0, 0.5, -0.4])
    unclear = "\n".join(memory_stalls.sentences(grid, rmse, held))
    assert "2 x bfloat16 against float64, 2 settings: 1 tie, 1 not told apart" in unclear
    assert "less at 1, a tie at 0 of 2, 1 not told apart" in unclear
    assert "in bfloat16 the second moment stays 100.0 ± 1.3 times what it should be" in apart


def test_stalls_that_no_standard_error_judges_are_told_apart() -> None:
    said = " ".join(memory_stalls.unjudged(GRID).split())
    assert said.startswith("Not among these means: the 15 stall distances, one value each (n = 1)")
    assert said.endswith("off 1 by more than 1 % in float64 and 2 x float32.")
    coarse = memory_stalls.Grid([0.5], [1.0], [1e-4], 6.1, 100, 2)
    ratios = memory_stalls.unjudged(coarse)
    assert "the 5 stall distances" in ratios


def test_every_table_of_stored_states_fits_a_page() -> None:
    betas = [*(1.0 - 10.0**-k for k in range(1, 8)), 0.5, 0.8]
    grid = memory_stalls.Grid(betas, [1.0, 1e-6], [1e-4], 6.1, 100, 3)
    found = memory_stalls.errors(grid, 0)
    held, _ = memory_stalls.moments(3, 0)
    text = "\n".join(memory_stalls.text(grid, found, held))
    assert max(map(len, text.splitlines())) <= 110
    assert "1 - 1e-07" in text


# --- figures ------------------------------------------------------------------------------------------------


def test_marks_say_how_a_setting_was_chosen() -> None:
    given = [sized("ema", EMA(0.99), 1e-4, 1.0), sized("window of 4", MovingAverage(4), None, 2.0)]
    other = [
        sized("ema", EMA(0.9), 1e-2, 1.0), sized("ema", EMA(0.99), 1e-4, 3.0),
        sized("window of 4", MovingAverage(4), None, 2.0), sized("bank", KalmanBank(), None, 1.0),
    ]  # fmt: skip
    first, second = by_bytes({1e-4: given, 1e-2: other}).axes
    tuned_here, elsewhere, fixed, itself = (one[0] for one in second.containers)
    assert tuned_here.get_markerfacecolor() == tuned_here.get_color()
    assert elsewhere.get_markerfacecolor() == "none"
    assert fixed.get_marker() == "x"
    assert itself.get_fillstyle() == "left"
    assert first.containers[1][0].get_marker() == "x"


def test_panels_of_stored_states_share_their_scale(errors: memory_stalls.Errors) -> None:
    assert len({axis.get_ylim() for axis in by_storage(GRID, errors).axes}) == 1


# --- the command --------------------------------------------------------------------------------------------


def test_the_tables_that_are_printed(kalmean: Callable[..., Any]) -> None:
    ran = kalmean(*SMALL)
    text = (ran.folder / "summary.md").read_text()
    assert all(len(row) <= 110 for row in text.splitlines() if not row.startswith("closed form, "))
    assert "kalman_bank of 5" in text
    assert "2 x bfloat16" in text
    assert "Closed forms and simulation: " in text
    assert "Not among these means: the 10 stall distances" in text
    assert {path.name for path in (ran.folder / "figures").iterdir()} == {"bytes.png", "storage.png"}
    table = ran.table
    ema = table[(table["estimator"] == "ema") & (table["metric"] == "state_bytes")]
    assert set(ema["value"]) == {8.0}
    assert set(table.loc[table["metric"] == "moment_after", "estimator"]) == set(NAMES)
    again = kalmean(*SMALL, output="again")
    for name in ("table.csv", "summary.md"):
        assert (again.folder / name).read_bytes() == (ran.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("parameters", "part"),
    [
        ({"betas": []}, "experiment.betas=[] is not valid; it must be a list of numbers in (0, 1 - 1e-9]"),
        ({"betas": [1.0]}, "experiment.betas=[1.0] is not valid"),
        ({"noise": [0.0]}, "experiment.noise=[0.0] is not valid"),
        (
            {"noise": [1e300]},
            "experiment.noise=[1e+300] is not valid; it must be a list of numbers in [1e-06, 1e+06]",
        ),
        ({"noise": [1e-300]}, "experiment.noise=[1e-300] is not valid"),
        ({"noise": [1e-6], "mean": 1e6}, "and at most 1e+08 times the least noise"),
        ({"betas": [0.99999991, 0.999999910001]}, "none twice"),
        ({"drifts": [1e-3, 1.0001e-3]}, "none twice to three digits"),
        ({"walks": [1e-300]}, "experiment.walks=[1e-300] is not valid"),
        ({"mean": 1e29}, "experiment.mean=1e+29 is not valid"),
        ({"windows": [0]}, "experiment.windows=[0] is not valid; it must be a list of ints >= 1"),
        ({"drifts": [1e-3, 1e-3]}, "none twice"),
        ({"walks": [-1.0]}, "experiment.walks=[-1.0] is not valid"),
        ({"mean": 0.0}, "experiment.mean=0.0 is not valid"),
        ({"mean": np.nan}, "experiment.mean=nan is not valid"),
        ({"steps": 3}, "experiment.steps=3 is not valid; it must be an int >= 10"),
        ({"repetitions": 1}, "experiment.repetitions=1 is not valid; it must be an int >= 2"),
    ],
)
def test_parameters_that_are_refused(parameters: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=r"^experiment\.") as raised:
        Parameters(**parameters)
    assert part in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.betas=[1]", "experiment.betas=[1.0] is not valid"),
        ("tune=rmse", "experiment=memory tunes every estimator itself; leave match and tune at none"),
        ("stream.r=1e200", "stream.r=1e+200 is not valid; experiment=memory needs it in [1e-06, 1e+06]"),
        ("stream.s=1e-30", "stream.s=1e-30 is not valid; experiment=memory needs it in [1e-12, 1000]"),
        ("experiment.drifts=[1.008e-4]", "is not valid; to three digits one is stream.s="),
        ("stream.jump_rate=0.01", "experiment=memory needs a random walk in white noise; choose stream="),
    ],
)
def test_settings_that_are_refused(refused: Callable[..., str], override: str, part: str) -> None:
    assert part in refused("experiment=memory", override)


def test_streams_that_are_no_plain_walk_are_refused() -> None:
    for stream in (GradientRatio(s=0.0), GradientRatio(r=0.0), GradientRatio(gap_rate=0.1)):
        with pytest.raises(ValueError, match="needs a random walk in white noise"):
            run(setup(stream, ema=EMA(0.9)))
