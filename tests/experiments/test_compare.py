"""The main job: what ties and is said to, what does not and is not, and its figures."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.summaries import Column

Kalmean = Callable[..., Any]


def lines(out: str, label: str) -> str:
    """What is said of the differences in one metric."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"- {label}, against ")]
    return line.partition(": ")[2]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


@pytest.fixture
def default(kalmean: Kalmean) -> Any:
    """The main job with fewer repetitions; 4,000 samples are enough for every gain to settle."""
    return kalmean("seeds=12", "stream.steps=4000", "burn_in=2000")


def test_the_default_set_ties_where_theory_says(default: Any) -> None:
    assert lines(default.out, "lag") == "tie: debiased_ema, kalman, moving_average"
    # A window ties in attenuation too, in theory; few streams leave that open, and never show a difference.
    attenuation = lines(default.out, "atten. (dB)")
    assert attenuation.startswith("tie: debiased_ema, kalman")
    assert re.search(r", moving_average$|; not told apart: moving_average [^;]*$", attenuation)
    for label in ("RMSE",):
        assert lines(default.out, label).startswith("tie: debiased_ema, kalman")
    assert lines(default.out, "settling") == "tie: debiased_ema, kalman; moving_average -109"
    assert lines(default.out, "bytes") == "debiased_ema +8, kalman +8, moving_average +1584"
    for estimator in ("ema", "debiased_ema", "kalman", "moving_average"):
        np.testing.assert_allclose(default.values("lag", estimator), 99.0, rtol=1e-6)


def test_settled_ema_and_kalman_differ_by_rounding(kalmean: Kalmean) -> None:
    # A settled filter starts as one: at the variance r K of its steady state.
    r, gain = 1.7956, 0.01
    ran = kalmean(
        "estimators=[ema,kalman]",
        "estimators.kalman.variance=" + repr(r * gain),
        "seeds=3",
        "stream.steps=500",
    )
    for metric in ("rmse", "startup_rmse", "attenuation_db", "lag", "bias", "implied_attenuation_db"):
        one, other = ran.values(metric, "ema"), ran.values(metric, "kalman")
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11, err_msg=metric)


def test_no_tie_is_claimed_where_there_is_none(kalmean: Kalmean) -> None:
    ran = kalmean(
        "estimators=[ema,moving_average]",
        "estimators.moving_average.window=50",
        "seeds=12",
        "stream.steps=4000",
    )
    for label in ("atten. (dB)", "lag", "settling", "RMSE", "bytes"):
        assert "tie" not in lines(ran.out, label), label
    assert lines(ran.out, "lag") == "moving_average -74.5"
    assert re.match(r"moving_average -[56]\.\d+ ± 0\.\d+$", lines(ran.out, "atten. (dB)"))


@pytest.mark.slow
def test_what_is_shown_with_truth_and_without(kalmean: Kalmean) -> None:
    known = kalmean("seeds=2", "stream.steps=200").out
    for label in (
        "atten. (dB)",
        "lag",
        "settling",
        "start-up RMSE",
        "RMSE",
        "coverage",
        "bytes",
        "cross term",
        "bias",
    ):
        assert f" {label} " in known
    for label in ("implied atten. (dB)", "mean age"):  # these stand in every table
        assert f" {label} " in known
    blind = kalmean("stream=recorded", "stream.steps=200", output="blind").out
    for label in ("implied atten. (dB)", "mean age", "prediction RMSE", "pred. coverage", "bytes"):
        assert f" {label} " in blind
    for label in (" lag ", "settling", " bias ", "cross term", "start-up"):
        assert label not in blind


def test_the_header_states_n_and_what_was_done(kalmean: Kalmean) -> None:
    out = kalmean("seeds=3", "stream.steps=1200", "root_seed=5").out
    assert out.startswith("compare on gradient_ratio: 3 streams of 1,200 samples (log ratio), root seed 5.\n")
    assert "Errors after the first 300; settings as given, equal in noise gain and group delay." in out
    assert "95 % interval over the streams, n = 3." in out
    assert "Filters that need it are told a noise variance of 1.796." in out
    assert "±" in out.partition("Paired")[0]


def test_one_stream_has_no_interval_and_needs_none(kalmean: Kalmean) -> None:
    ran = kalmean("seeds=1", "stream.steps=300")
    assert "1 stream of 300 samples" in ran.out
    assert "One stream: no intervals; only what owes nothing to chance is told apart." in ran.out
    assert "±" not in ran.out
    assert "not told apart: debiased_ema" in lines(ran.out, "start-up RMSE")
    assert lines(ran.out, "bytes") == "debiased_ema +8, kalman +8, moving_average +1584"
    assert "nan" not in ran.out
    assert ran.summary["low"].isna().all()


def test_what_has_no_value_says_why(kalmean: Kalmean) -> None:
    ran = kalmean("estimators=[ema,kalman]", "estimators.kalman.q=0", "seeds=2", "stream.steps=2000")
    assert "no steady state" in ran.out
    assert "not settled" in ran.out
    table = ran.table
    without = table[table["status"] != "ok"]
    assert set(without["metric"]) == {"lag", "settling"}
    assert set(without["estimator"]) == {"kalman"}
    assert without["value"].isna().all()


def test_every_row_of_the_printed_table_is_the_summarys(default: Any) -> None:
    summary = default.summary.set_index(["estimator", "metric"])
    for name in ("ema", "debiased_ema", "kalman", "moving_average"):
        row = next(line for line in default.out.splitlines() if line.startswith(f"| {name} "))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        shown = [
            float(cell.partition(" ±")[0].rstrip("*")) for cell in (cells[2], cells[3], cells[4], cells[6])
        ]
        kept = [
            summary.loc[(name, metric), "mean"] for metric in ("attenuation_db", "lag", "settling", "rmse")
        ]
        np.testing.assert_allclose(shown, kept, rtol=0.02)
        assert cells[7].startswith("0.9") if name == "kalman" else cells[7] == "-"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["seeds=2", "stream.steps=300"], {"estimates", "settling"}),
        (["stream=recorded", "stream.steps=300"], {"estimates"}),
        (["seeds=1", "stream.steps=1"], {"estimates", "settling"}),
        (["seeds=1", "stream.steps=60", "stream.gap_rate=0.999"], {"estimates", "settling"}),
        (
            ["seeds=2", "stream.steps=300", "stream.gap_rate=0.2", "stream.domain=weight"],
            {"estimates", "settling"},
        ),
    ],
    ids=lambda given: " ".join(sorted(given)),  # a set has no order, and names must have one
)
def test_figures_are_pictures_of_a_readable_size(
    kalmean: Kalmean, overrides: list[str], names: set[str]
) -> None:
    from matplotlib import pyplot

    ran = kalmean(*overrides, figures=True)
    paths = {path.stem: path for path in (ran.folder / "figures").iterdir()}
    assert set(paths) == names
    for path in paths.values():
        width, height = png_size(path)
        assert width > 600
        assert height > 400
        pixels = pyplot.imread(path)[..., :3]
        assert pixels.min() < 0.2, "nothing is drawn"
        assert (pixels == 1.0).all(axis=-1).mean() > 0.2
    assert pyplot.get_fignums() == []


@pytest.mark.slow
def test_figures_are_the_same_pixels_each_time(kalmean: Kalmean) -> None:
    from matplotlib import pyplot

    settings = ["estimators=[ema,kalman]", "seeds=1", "stream.steps=200"]
    one, other = (kalmean(*settings, output=name, figures=True).folder / "figures" for name in ("one", "two"))
    for path in sorted(one.iterdir()):
        np.testing.assert_array_equal(pyplot.imread(path), pyplot.imread(other / path.name))


@pytest.mark.slow
def test_many_estimators_still_fit_in_a_figure(kalmean: Kalmean) -> None:
    rows = [f"+estimators.e{k}={{kind: ema, beta: 0.{k}}}" for k in range(1, 9)]
    ran = kalmean("seeds=1", "stream.steps=100", *rows, figures=True)
    assert png_size(ran.folder / "figures" / "estimates.png")[0] > 600
    assert len(ran.summary["estimator"].unique()) == 12


@pytest.mark.slow
def test_columns_are_metrics_that_exist(kalmean: Kalmean) -> None:
    from experiments import compare

    known = set(kalmean("seeds=1", "stream.steps=100").table["metric"])
    columns: list[Column] = [*compare.WITH_TRUTH, *compare.WITHOUT_TRUTH, *compare.PARTS]
    assert {column.metric for column in columns} <= known
    blind = set(kalmean("stream=recorded", "stream.steps=100", output="blind").table["metric"])
    assert {column.metric for column in compare.WITHOUT_TRUTH} == blind


def test_missing_samples_are_counted(kalmean: Kalmean, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("ratio\n" + "\n".join("" if t % 10 == 3 else f"{1 + t % 4}" for t in range(200)) + "\n")
    out = kalmean("stream=recorded", f"stream.path={log}", "stream.column=ratio").out
    assert "1 stream of 200 samples (log ratio), 20 of them missing, as recorded." in out


def test_an_unsettled_filter_has_no_lag_on_a_short_stream(kalmean: Kalmean) -> None:
    """The matched set ties in lag: a stream too short to see it shows no winner."""
    for steps in (500, 700, 1000):
        line = lines(kalmean("seeds=3", f"stream.steps={steps}", output=str(steps)).out, "lag")
        assert "+" not in line
        assert "-" not in line.replace("debiased_ema", "")


def test_noise_of_recordings_is_estimated_where_settings_are_chosen(kalmean: Kalmean) -> None:
    ran = kalmean("stream=recorded", "tune=prediction_rmse", "estimators=[ema,kalman]")
    assert "estimated from the first halves of these recordings" in ran.out
    plain = kalmean("stream=recorded", "estimators=[ema,kalman]", output="plain")
    assert "estimated from these recordings, in sample" in plain.out


def test_with_gaps_little_owes_nothing_to_chance(kalmean: Kalmean) -> None:
    out = kalmean("seeds=1", "stream.steps=2000", "stream.gap_rate=0.02").out
    assert lines(out, "settling").startswith("not told apart: ")
    assert lines(out, "bytes") == "debiased_ema +8, kalman +8, moving_average +1584"
