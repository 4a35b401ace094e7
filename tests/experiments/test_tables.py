"""Means, intervals, paired differences and ties against computation by hand, and how they are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments.summaries import COLUMNS, Column, mean_interval, summarise
from experiments.tables import differences, markdown, quantity, verdict_of

NAN = np.nan


def long_table(values: dict[tuple[str, str], list[float]], unit: str = "dB") -> pd.DataFrame:
    """One row per (estimator, metric) and seed; NaN has the status 'no value'."""
    rows = [
        {
            "experiment": "compare", "estimator": estimator, "parameters": f"of {estimator}", "stream": "s",
            "seed": seed, "metric": metric, "value": value, "unit": unit,
            "status": "ok" if np.isfinite(value) else "no value",
        }
        for (estimator, metric), cells in values.items()
        for seed, value in enumerate(cells)
    ]  # fmt: skip
    return pd.DataFrame(rows)[COLUMNS]


def row(summary: pd.DataFrame, estimator: str, metric: str = "m") -> Any:
    found = summary[(summary["estimator"] == estimator) & (summary["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


# --- intervals ----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_intervals_are_students_t(values: list[float]) -> None:
    mean, low, high, n = mean_interval(values)
    assert n == len(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    error = stats.sem(values)
    if error > 1e-9:
        expected = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=error)
        assert (low, high) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert low <= mean <= high


def test_intervals_of_few_values() -> None:
    assert mean_interval([3.0])[0] == 3.0
    assert np.isnan(mean_interval([3.0])[1:3]).all()
    assert mean_interval([3.0])[3] == 1
    assert np.isnan(mean_interval([])[:3]).all()
    assert mean_interval([NAN, np.inf])[3] == 0
    assert mean_interval([1.0, NAN, 3.0, np.inf])[::3] == (2.0, 2)


def test_an_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    low, high = np.array([mean_interval(row)[1:3] for row in draws]).T
    covered = ((low <= 0.0) & (high >= 0.0)).mean()
    assert abs(covered - 0.95) <= 4.0 * np.sqrt(0.95 * 0.05 / 2000)


# --- summaries ----------------------------------------------------------------------------------------------


def test_summary_by_hand() -> None:
    table = long_table({("a", "m"): [1.0, 2.0, 6.0], ("b", "m"): [2.0, 4.0, 6.0]})
    summary = summarise(table)
    first, second = row(summary, "a"), row(summary, "b")
    assert (first["n"], first["missing"], first["mean"], first["status"]) == (3, 0, 3.0, "ok")
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / np.sqrt(3)
    assert first["high"] - first["mean"] == pytest.approx(half)
    assert first["baseline"] == second["baseline"] == "a"
    assert first["difference"] == first["difference_low"] == first["difference_high"] == 0.0
    # Paired: of 1, 2, 0, not of two independent groups.
    assert second["difference"] == 1.0
    half = stats.t.ppf(0.975, 2) * np.std([1, 2, 0], ddof=1) / np.sqrt(3)
    assert second["difference_high"] - 1.0 == pytest.approx(half)
    assert 1.0 - second["difference_low"] == pytest.approx(half)


def test_differences_pair_the_seeds_that_both_have() -> None:
    table = long_table({("a", "m"): [1.0, NAN, 3.0, 7.0], ("b", "m"): [2.0, 100.0, 5.0, NAN]})
    second = row(summarise(table), "b")
    assert (second["n"], second["missing"], second["status"]) == (3, 1, "no value")
    assert second["difference"] == pytest.approx(np.mean([1.0, 2.0]))
    shuffled = row(summarise(table.iloc[::-1].sort_values("estimator", kind="stable")), "b")
    assert shuffled["difference"] == second["difference"]


def test_what_only_one_estimator_has_is_compared_with_nothing() -> None:
    summary = summarise(
        long_table({("a", "m"): [1.0, 2.0], ("b", "m"): [1.0, 3.0], ("b", "coverage"): [0.9, 1.0]})
    )
    only = row(summary, "b", "coverage")
    assert only["mean"] == pytest.approx(0.95)
    assert np.isnan(only["difference"])
    assert len(summary) == 3


def test_a_metric_without_any_value_says_why() -> None:
    summary = summarise(long_table({("a", "m"): [1.0, 2.0], ("b", "m"): [NAN, NAN]}))
    empty = row(summary, "b")
    assert (empty["n"], empty["missing"], empty["status"]) == (0, 2, "no value")
    assert np.isnan(empty["mean"])
    printed = markdown(summary, [Column("m", "M")])
    assert "no value" in printed
    assert "nan" not in printed
    assert differences(summary, [Column("m", "M")]) == ["M, against a: no value: b (no value)"]


def test_each_stream_has_its_own_baseline_and_pairs() -> None:
    one = long_table({("a", "m"): [1.0, 2.0], ("b", "m"): [2.0, 3.0]})
    two = long_table({("b", "m"): [10.0, 20.0], ("a", "m"): [30.0, 50.0]}).assign(stream="t")
    summary = summarise(pd.concat([one, two]))
    of_second = summary[summary["stream"] == "t"].set_index("estimator")
    assert of_second.loc["a", "baseline"] == "b"
    assert of_second.loc["a", "difference"] == 25.0
    assert summary[summary["stream"] == "s"].set_index("estimator").loc["b", "difference"] == 1.0


@settings(deadline=None, max_examples=30)
@given(
    cells=st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=2, max_size=12),
    shift=st.floats(-10, 10),
)
def test_shifting_one_estimator_shifts_its_difference_alone(
    cells: list[tuple[float, float]], shift: float
) -> None:
    a, b = (list(column) for column in zip(*cells, strict=True))
    plain = row(summarise(long_table({("a", "m"): a, ("b", "m"): b})), "b")
    moved = row(summarise(long_table({("a", "m"): a, ("b", "m"): [v + shift for v in b]})), "b")
    assert moved["difference"] == pytest.approx(plain["difference"] + shift, abs=1e-9)
    assert moved["difference_high"] - moved["difference"] == pytest.approx(
        plain["difference_high"] - plain["difference"], abs=1e-9
    )


# --- ties ---------------------------------------------------------------------------------------------------


def verdict(first: list[float], second: list[float], **column: Any) -> str:
    other = row(summarise(long_table({("a", "m"): first, ("b", "m"): second})), "b")
    return verdict_of(other, Column("m", "M", **column))


def test_a_tie_needs_the_whole_interval_within_the_margin() -> None:
    noise = np.array([1.0, -1.0, 0.5, -0.5, 0.3, -0.3])
    assert verdict([10.0] * 6, list(10.0 + noise)) == "not told apart"  # absence of evidence is no tie
    assert verdict([10.0] * 6, list(10.0 + noise), margin=1.5) == "tie"
    assert verdict([10.0] * 6, list(10.0 + 0.005 * noise)) == "tie"
    assert verdict([10.0] * 6, list(12.0 + noise)) == ""
    assert verdict([10.0] * 6, [10.005] * 6) == "tie"  # significant, and of no consequence
    assert verdict([10.0] * 6, [10.05] * 6) == ""
    assert verdict([-10.0] * 6, [-10.005] * 6) == "tie"
    assert verdict([0.0] * 3, [0.0] * 3) == "tie"
    assert verdict([0.0] * 3, [1e-9] * 3) == ""


def test_one_stream_tells_apart_only_what_owes_nothing_to_chance() -> None:
    assert verdict([8.0], [8.0]) == "tie"
    assert verdict([8.0], [8.001]) == verdict([8.0], [16.0]) == "not told apart"
    assert verdict([8.0], [16.0], exact=True) == ""
    assert verdict([99.0], [99.01], exact=True) == "tie"
    assert verdict([8.0], [NAN]) == "no value"


def test_three_streams_that_are_all_worse_are_no_tie() -> None:
    assert verdict([0.9] * 3, [0.9082, 0.9211, 0.9169]) == "not told apart"


def test_large_common_variation_hides_no_paired_difference() -> None:
    common = np.random.default_rng(0).normal(scale=100.0, size=20)
    assert verdict(list(common), list(common + 1.0)) == ""


def test_lines_of_differences() -> None:
    cells = {"a": [10.0, 10.0], "b": [10.0, 10.0], "c": [12.0, 12.2], "d": [7.0, 7.0], "e": [9.0, 11.5]}
    table = {(name, "m"): values for name, values in cells.items()} | {("f", "m"): [NAN, NAN]}
    (line,) = differences(summarise(long_table(table)), [Column("m", "M"), Column("absent", "A")])
    assert line.startswith("M, against a: tie: b; c +2.1 ± ")
    assert ", d -3; not told apart: e +0 ± 16; no value: f (" in line


def test_a_baseline_without_a_value_is_named() -> None:
    summary = summarise(long_table({("a", "m"): [NAN, NAN], ("b", "m"): [1.0, 2.0]}))
    (line,) = differences(summary, [Column("m", "M")])
    assert line.startswith("M, against a: it has ")


def test_the_sign_of_a_tiny_difference_is_its_own() -> None:
    summary = summarise(long_table({("a", "m"): [0.0, 0.0, 0.0], ("b", "m"): [-3e-8, -3.1e-8, -3.2e-8]}))
    (line,) = differences(summary, [Column("m", "M")])
    assert "(-3.1 ± 0.2)e-8" in line
    assert "+" not in line


# --- how numbers are written --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "half", "written"),
    [
        (22.98853, 0.0312, "22.99 ± 0.03"),
        (22.98853, 0.0123, "22.989 ± 0.012"),
        (99.0, 0.0, "99"),
        (99.0, NAN, "99"),
        (0.123456, NAN, "0.1235"),
        (1592.0, NAN, "1592"),
        (123456.0, 25000.0, "123456 ± 25000"),
        (5.0, 3.0, "5 ± 3"),
        (5.0, 1.5, "5.0 ± 1.5"),
        (-0.5, 0.05, "-0.50 ± 0.05"),
        (1e-9, 3e-10, "(1.0 ± 0.3)e-9"),
        (0.0, 0.0, "0"),
    ],
)
def test_quantities(value: float, half: float, written: str) -> None:
    assert quantity(value, half) == written


@settings(deadline=None)
@given(value=st.floats(-1e5, 1e5), half=st.floats(1e-12, 1e4))
def test_what_is_written_is_the_number(value: float, half: float) -> None:
    text = quantity(value, half)
    if "±" not in text:
        assert half <= 1e-9 * abs(value)
        return
    scale = 1.0
    if text.startswith("("):
        text, _, power = text[1:].partition(")e")
        scale = 10.0 ** int(power)
    shown, spread = (scale * float(part) for part in text.split("±"))
    assert abs(shown - value) <= 0.51 * half
    assert spread == pytest.approx(half, rel=0.5)


def test_markdown_is_aligned() -> None:
    longer = {("a_longer_name", "m"): [100.0, 300.0], ("a_longer_name", "n"): [1.0, 2.0]}
    summary = summarise(long_table({("a", "m"): [1.0, 2.0], **longer}))
    printed = markdown(summary, [Column("m", "a long label"), Column("n", "N"), Column("absent", "gone")])
    lines = printed.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 4
    assert "gone" not in printed
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["estimator", "setting", "a long label", "N"]
    assert all(set(cell) <= set("-:") for cell in cells[1])
    assert cells[2][0] == "a"
    assert cells[2][3] == "-"  # it has no such metric
    bars = [[i for i, character in enumerate(line) if character == "|"] for line in lines]
    assert all(position == bars[0] for position in bars)


def test_a_cell_counts_the_streams_without_a_value() -> None:
    summary = summarise(long_table({("a", "m"): [1.0, 2.0, NAN]}))
    assert "(1 no value)" in markdown(summary, [Column("m", "M")])
