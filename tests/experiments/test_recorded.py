"""Recorded streams: one repetition per file, read as the settings say, refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from estimators import Kalman
from experiments.config import recordings
from experiments.readers import ReadError, read_series
from experiments.recorded import Recorded
from experiments.streams import Domain

NAN = np.nan
SHIPPED = {"numerator": "regression_norm", "denominator": "classification_norm"}


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., str]:
    """Write columns to a CSV file and give its path."""

    def write(name: str = "log.csv", **columns: Any) -> str:
        rows = zip(*columns.values(), strict=True)
        lines = [
            ",".join(columns),
            *(",".join("" if v != v else repr(float(v)) for v in row) for row in rows),
        ]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return str(tmp_path / name)

    return write


def refused(*parts: str, **settings: Any) -> str:
    with pytest.raises(ValueError, match=r"^stream\.") as caught:
        Recorded(**settings)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    for part in parts:
        assert part in message, message
    return message


# --- what ships ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [8, 64, 256])
def test_the_shipped_recordings(batch: int) -> None:
    path = recordings(f"digits_b{batch}_seed*.csv.gz")
    stream = Recorded(path=path, **SHIPPED)
    assert (stream.length(), stream.available(), stream.has_truth) == (2000, 3, False)
    assert stream.unit == "log ratio"
    drawn = stream.draw(range(3), 0)
    assert drawn.level is None
    for k, file in enumerate(stream.paths):
        assert f"seed{k}" in file.name
        np.testing.assert_array_equal(drawn.samples[:, k], np.log(read_series(file, **SHIPPED)))


def test_the_recordings_noise_is_of_the_size_that_their_page_states() -> None:
    # Log-ratio sd 1.26 to 1.38 in the second half, about a straight line.
    variance = Recorded(path=recordings("digits_b8_seed*.csv.gz"), **SHIPPED).own_noise_variance()
    assert 1.0 < variance < 1.9


# --- what is drawn ------------------------------------------------------------------------------------------


def test_domains(log: Callable[..., str]) -> None:
    values = np.array([0.5, 2.0, NAN, 8.0])
    path = log(ratio=values)
    drawn = {d: Recorded(path=path, column="ratio", domain=d).draw([0], 0).samples[:, 0] for d in Domain}
    np.testing.assert_array_equal(drawn[Domain.ratio], values)
    np.testing.assert_allclose(drawn[Domain.log_ratio], np.log(values))
    np.testing.assert_allclose(drawn[Domain.weight], 1.0 / (1.0 + values))


def test_numerator_over_denominator(log: Callable[..., str]) -> None:
    path = log(a=[1.0, 2.0, 3.0], b=[2.0, 0.0, 4.0])
    drawn = (
        Recorded(path=path, numerator="a", denominator="b", domain=Domain.ratio).draw([0], 0).samples[:, 0]
    )
    np.testing.assert_array_equal(drawn, [0.5, NAN, 0.75])


@pytest.mark.parametrize(
    ("settings", "unit"),
    [
        ({"column": "loss"}, "log loss"),
        ({"column": "loss", "domain": Domain.ratio}, "loss"),
        ({"numerator": "loss", "denominator": "b"}, "log ratio"),
        ({"numerator": "loss", "denominator": "b", "domain": Domain.ratio}, "ratio"),
        ({"numerator": "loss", "denominator": "b", "domain": Domain.weight}, "weight"),
    ],
)
def test_units_are_called_by_the_column(log: Callable[..., str], settings: dict[str, Any], unit: str) -> None:
    assert Recorded(path=log(loss=[1.0, 2.0], b=[1.0, 2.0]), **settings).unit == unit


def test_a_pattern_names_one_repetition_per_file_in_order(log: Callable[..., str], tmp_path: Path) -> None:
    for k in (2, 0, 1):
        log(f"run{k}.csv", x=[1.0 + k, 2.0, 3.0])
    stream = Recorded(path=str(tmp_path / "run*.csv"), column="x", domain=Domain.ratio)
    assert stream.available() == 3
    np.testing.assert_array_equal(stream.draw(range(3), 0).samples[0], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(stream.draw([2, 0], 99).samples[0], [3.0, 1.0])


def test_a_file_may_be_called_like_a_pattern(log: Callable[..., str]) -> None:
    assert Recorded(path=log("run[1].csv", x=[1.0, 2.0]), column="x").available() == 1


def test_steps_take_the_first_samples(log: Callable[..., str]) -> None:
    path = log(x=[1.0, 2.0, 3.0, 4.0])
    stream = Recorded(path=path, column="x", domain=Domain.ratio, steps=3)
    assert stream.length() == 3
    np.testing.assert_array_equal(stream.draw([0], 0).samples[:, 0], [1.0, 2.0, 3.0])


def test_selection_sees_the_first_half_alone(log: Callable[..., str]) -> None:
    stream = Recorded(path=log(x=np.arange(1.0, 12.0)), column="x", domain=Domain.ratio)
    np.testing.assert_array_equal(stream.draw([0], 0, "tune").samples[:, 0], np.arange(1.0, 6.0))
    np.testing.assert_array_equal(stream.draw([0], 0, "evaluate").samples[:, 0], np.arange(1.0, 12.0))


def test_the_digest_is_that_of_the_samples_used(log: Callable[..., str]) -> None:
    one = log("one.csv", x=[1.0, 2.0, 3.0])
    same = log("same.csv", step=[0, 1, 2], x=[1.0, 2.0, 3.0])
    other = log("other.csv", x=[1.0, 2.0, 3.5])
    digests = [Recorded(path=path, column="x").digest() for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert (
        Recorded(path=other, column="x", steps=2).digest() == Recorded(path=one, column="x", steps=2).digest()
    )


# --- noise variance -----------------------------------------------------------------------------------------


def test_noise_variance_is_found_again(log: Callable[..., str]) -> None:
    rng = np.random.default_rng(3)
    r, s = 0.5, 1.0 / 9900.0
    series = np.cumsum(rng.normal(scale=np.sqrt(r * s), size=20_000)) + rng.normal(
        scale=np.sqrt(r), size=20_000
    )
    series[rng.random(series.size) < 0.1] = NAN
    stream = Recorded(path=log(x=series), column="x", domain=Domain.ratio)
    assert stream.own_noise_variance() == pytest.approx(r, rel=4.0 * np.sqrt(2.0 / 18_000))


def test_noise_variance_maximises_the_likelihood(log: Callable[..., str]) -> None:
    series = np.random.default_rng(0).normal(size=300)
    stream = Recorded(path=log(x=series), column="x", domain=Domain.ratio)
    best = stream.own_noise_variance()

    def loglikelihood(r: float) -> float:
        return float(Kalman(q=r / 9900.0, r=r).filter(series).loglikelihood)

    assert loglikelihood(best) > max(loglikelihood(0.99 * best), loglikelihood(1.01 * best))


@pytest.mark.parametrize("values", [[2.0] * 50, [2.0, NAN, 2.0], [NAN, 1.0]])
def test_what_has_no_noise_asks_for_its_variance(log: Callable[..., str], values: list[float]) -> None:
    stream = Recorded(path=log(x=values), column="x")
    with pytest.raises(
        ReadError, match=r"no noise whose variance could be estimated; set stream\.noise_variance"
    ):
        stream.own_noise_variance()


def test_a_constant_log_runs_once_the_variance_is_given(
    log: Callable[..., str], kalmean: Any, refused: Any
) -> None:
    path = log(x=[2.0] * 60)
    settings = ["stream=recorded", f"stream.path={path}", "stream.column=x"]
    assert "set stream.noise_variance" in refused(*settings)
    ran = kalmean(*settings, "stream.noise_variance=1", output="given")
    assert ran.code == 0
    assert ran.values("prediction_rmse", "kalman") == 0.0
    assert "told a noise variance of 1." in ran.out


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -0.25])
def test_a_logarithm_of_what_has_none_names_row_value_and_the_way_out(
    log: Callable[..., str], value: float
) -> None:
    path = log(x=[1.0, NAN, value, 2.0])
    refused(
        "stream.domain=log_ratio",
        f"sample 3 is {value:g}",
        path,
        "use stream.domain=ratio",
        path=path,
        column="x",
    )
    assert Recorded(path=path, column="x", domain=Domain.ratio).length() == 4


def test_a_weight_may_be_of_zero_and_not_of_less(log: Callable[..., str]) -> None:
    path = log(x=[0.0, 1.0])
    samples = Recorded(path=path, column="x", domain=Domain.weight).draw([0], 0).samples[:, 0]
    np.testing.assert_array_equal(samples, [1.0, 0.5])
    path = log(x=[0.0, -1.0])
    refused("stream.domain=weight", "sample 2 is -1", path=path, column="x", domain=Domain.weight)


def test_infinity_names_its_row(log: Callable[..., str]) -> None:
    path = log(x=[1.0, np.inf, 3.0])
    for domain in Domain:
        refused(
            f"stream.path={path!r}",
            "sample 2 is infinite",
            "finite or missing",
            path=path,
            column="x",
            domain=domain,
        )


def test_lengths_that_differ_are_listed_with_the_way_out(log: Callable[..., str], tmp_path: Path) -> None:
    log("a.csv", x=[1.0, 2.0, 3.0])
    log("b.csv", x=[1.0, 2.0, 3.0, 4.0])
    pattern = str(tmp_path / "*.csv")
    refused("a.csv 3", "b.csv 4", "set stream.steps=3", path=pattern, column="x")
    assert Recorded(path=pattern, column="x", steps=3).length() == 3
    refused("stream.steps=4 is not valid", "3 samples", path=pattern, column="x", steps=4)


@pytest.mark.parametrize("steps", [1, 0, -1])
def test_steps_out_of_range(log: Callable[..., str], steps: int) -> None:
    refused(f"stream.steps={steps} is not valid", ">= 2", path=log(x=[1.0, 2.0]), column="x", steps=steps)


def test_a_single_sample_is_too_few(log: Callable[..., str]) -> None:
    refused("1 sample", "at least 2", path=log(x=[1.0]), column="x")


def test_paths_that_name_nothing(tmp_path: Path) -> None:
    refused("stream.path=''", path="")
    refused("nothing*.csv", "matches no file", path=str(tmp_path / "nothing*.csv"))
    refused("missing.csv", "does not exist", path=str(tmp_path / "missing.csv"))


@pytest.mark.parametrize("variance", [0.0, -1.0, NAN])
def test_noise_variance_out_of_range(log: Callable[..., str], variance: float) -> None:
    path = log(x=[1.0, 2.0])
    refused("stream.noise_variance=", "must be > 0, or null", path=path, column="x", noise_variance=variance)


def test_only_missing_values(log: Callable[..., str]) -> None:
    refused("only missing values", path=log(x=[NAN, NAN], y=[1.0, 2.0]), column="x")


def test_names_that_make_no_series(log: Callable[..., str]) -> None:
    path = log(x=[1.0, 2.0], y=[1.0, 2.0])
    refused("stream.column='z'", "'x', 'y'", path=path, column="z")
    refused("stream.numerator and stream.denominator", path=path, column="x", numerator="y", denominator="x")
    refused("stream.numerator='x'", path=path, numerator="x")


# --- from the command line ----------------------------------------------------------------------------------


def test_a_log_of_ones_own(log: Callable[..., str], kalmean: Any) -> None:
    rng = np.random.default_rng(0)
    path = log(
        step=np.arange(300), loss=np.exp(rng.normal(size=300)), a=rng.random(300) + 1, b=rng.random(300) + 1
    )
    ran = kalmean("stream=recorded", f"stream.path={path}", "stream.column=loss", output="column")
    table = ran.table
    assert set(table["seed"]) == {0}
    assert set(table.loc[table["metric"] == "prediction_rmse", "unit"]) == {"log loss"}
    assert set(table["metric"]) == {
        "implied_attenuation_db", "mean_age", "prediction_rmse", "prediction_coverage", "state_bytes",
    }  # fmt: skip
    assert "1 stream of 300 samples (log loss)" in ran.out
    ratio = kalmean(
        "stream=recorded", f"stream.path={path}", "stream.numerator=a", "stream.denominator=b", output="ratio"
    )
    assert "1 stream of 300 samples (log ratio)" in ratio.out


def test_the_shipped_recordings_from_the_command_line(kalmean: Any) -> None:
    ran = kalmean("stream=recorded", "seeds=2", "stream.steps=300", "estimators=[ema,kalman]")
    assert set(ran.table["seed"]) == {0, 1}
    assert "2 streams of 300 samples" in ran.out
    assert "estimated from these recordings" in ran.out


def test_a_shipped_column_by_itself(kalmean: Any) -> None:
    ran = kalmean(
        "stream=recorded", "stream.column=classification_loss", "stream.steps=100", "estimators=[ema]"
    )
    assert "log classification_loss" in ran.out


def test_the_first_bad_value_is_named_on_the_command_line(log: Callable[..., str], refused: Any) -> None:
    path = log(loss=[1.0, 0.0, 2.0])
    message = refused("stream=recorded", f"stream.path={path}", "stream.column=loss")
    assert message == f"stream.domain=log_ratio: sample 2 is 0 in {path}; use stream.domain=ratio"


def test_a_path_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell leaves a tilde behind an equals sign as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "log.csv").write_text("loss\n1\n2\n")
    assert Recorded(path="~/log.csv").paths == Recorded(path="~/l*.csv").paths == [tmp_path / "log.csv"]
