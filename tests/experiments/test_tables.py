"""Means, intervals, paired differences and ties against computation by hand, and how they are written."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from experiments import summaries
from experiments.metrics import Measured
from experiments.summaries import COLUMNS, Column, Rows, best, mean_interval, summarise
from experiments.tables import (
    BEST,
    aligned,
    differences,
    latex,
    markdown,
    quantity,
    starred,
    verdict_of,
    width,
)

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


# --- several streams and settings ---------------------------------------------------------------------------


def swept(values: dict[tuple[str, str, str], list[float]], metric: str = "m", **why: str) -> pd.DataFrame:
    """One row per (stream, estimator, parameters) and seed; NaN has the status given for its estimator."""
    rows = [
        {
            "experiment": "compare", "estimator": estimator, "parameters": parameters, "stream": stream,
            "seed": seed, "metric": metric, "value": value, "unit": "1",
            "status": "ok" if np.isfinite(value) else why.get(estimator, "no value"),
        }
        for (stream, estimator, parameters), cells in values.items()
        for seed, value in enumerate(cells)
    ]  # fmt: skip
    return pd.DataFrame(rows)[COLUMNS]


def cells_of(printed: str) -> list[list[str]]:
    """The cells of a Markdown table, without its rule."""
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]


M = Column("m", "M")
LESS, MORE = Column("m", "M", better="less"), Column("m", "M", better="more")


def test_markdown_of_several_streams_names_them_in_a_column_of_their_own() -> None:
    table = swept({("s", "a", "x=1"): [1.0, 1.0], ("t u=2", "a", "x=1"): [2.0, 2.0]})
    assert cells_of(markdown(summarise(table), [M])) == [
        ["stream", "estimator", "setting", "M"],
        ["s", "a", "x=1", "1"],
        ["t u=2", "a", "x=1", "2"],
    ]
    one = table[table["stream"] == "s"]
    assert cells_of(markdown(summarise(one), [M]))[0] == ["estimator", "setting", "M"]


def settings_shown(*names: tuple[str, str, str]) -> list[str]:
    summary = summarise(swept({name: [1.0, 2.0] for name in names}))
    head, *lines = cells_of(markdown(summary, [M]))
    return [line[head.index("setting")] for line in lines]


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("beta=0.9901234567", "beta=0.9901"),
        ("q=0.00018138383838383838 r=1.7956", "q=0.0001814 r=1.796"),
        ("beta=0.9901234567 initial=first", "beta=0.9901 initial=first"),
        ("q=1.23456789e-07", "q=1.235e-07"),
        ("x=-0.123456", "x=-0.1235"),
        ("window=123456", "window=123456"),
        ("beta=0.9", "beta=0.9"),
        ("name=v0.123456", "name=v0.123456"),
        ("", ""),
    ],
)
def test_parameters_are_shortened_to_four_digits(full: str, short: str) -> None:
    assert settings_shown(("s", "a", full)) == [short]


def test_parameters_are_written_in_full_where_short_ones_would_look_alike() -> None:
    first, second, third = "beta=0.99001", "beta=0.99002", "beta=0.98765"
    assert settings_shown(*(("s", "a", own) for own in (first, second, third))) == [
        first,
        second,
        "beta=0.9877",
    ]
    # Of another estimator or on another stream it cannot be taken for the other.
    assert settings_shown(("s", "a", first), ("s", "b", second)) == ["beta=0.99", "beta=0.99"]
    assert settings_shown(("s", "a", first), ("t", "a", second)) == ["beta=0.99", "beta=0.99"]
    both = [("s", "a", first), ("s", "a", second), ("t", "a", first)]
    assert settings_shown(*both) == [first, second, "beta=0.99"]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.98, 1.0), min_size=2, max_size=5, unique=True))
def test_settings_never_look_alike(betas: list[float]) -> None:
    shown = settings_shown(*(("s", "a", f"beta={beta!r}") for beta in betas))
    assert len(set(shown)) == len(betas)


def test_settings_of_one_name_are_told_apart_in_lines_of_differences() -> None:
    table = swept(
        {
            ("s", "ema", "beta=0.9"): [1.0, 1.0],
            ("s", "ema", "beta=0.99"): [2.0, 2.0],
            ("s", "kalman", "q=1"): [1.0, 1.0],
        }
    )
    (line,) = differences(summarise(table), [M])
    assert line == "M, against ema (beta=0.9): tie: kalman; ema (beta=0.99) +1"


# --- failed and missing -------------------------------------------------------------------------------------


def test_failed_cells_are_counted_apart_from_missing_ones() -> None:
    table = swept({("s", "a", ""): [1.0, 2.0, 4.0, 8.0], ("s", "b", ""): [2.0, NAN, NAN, NAN]})
    failed = (table["estimator"] == "b") & (table["seed"] == 1)
    table.loc[failed, "status"] = "failed: ValueError"
    table.loc[(table["estimator"] == "b") & (table["seed"] == 2), "status"] = "not run"
    own = row(summarise(table), "b")
    assert (own["n"], own["failed"], own["missing"], own["pairs"]) == (1, 1, 2, 1)
    assert own["status"] == "failed: ValueError; not run; no value"
    assert row(summarise(table), "a")["pairs"] == 4


def test_differences_are_over_the_seeds_of_both_and_say_so() -> None:
    values = {("s", "a", ""): [1.0, 5.0, 3.0], ("s", "b", ""): [2.0, NAN, 4.0]}
    summary = summarise(swept(values, b="failed: ValueError"))
    own = row(summary, "b")
    assert (own["difference"], own["pairs"], own["failed"]) == (1.0, 2, 1)
    assert differences(summary, [M]) == ["M, against a: b +1 (over 2 of 3)"]


def test_seeds_that_are_not_there_at_all_are_left_out_of_differences() -> None:
    table = swept({("s", "a", ""): [1.0, 2.0, 30.0], ("s", "b", ""): [5.0, 3.0, 5.0]})
    own = row(summarise(table.drop(index=[3])), "b")
    assert (own["n"], own["pairs"]) == (2, 2)
    assert own["difference"] == np.mean([1.0, -25.0])


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([2.0, NAN, 2.0], "2 (1 failed: ValueError)"),
        ([2.0, NAN, NAN], "2 (2 failed: ValueError)"),
        ([NAN, NAN, NAN], "failed: ValueError"),
        ([2.0, 2.0, 2.0], "2"),
    ],
)
def test_a_cell_says_how_many_failed_and_of_what(values: list[float], shown: str) -> None:
    summary = summarise(swept({("s", "a", "x=1"): values}, a="failed: ValueError"))
    assert cells_of(markdown(summary, [M]))[1] == ["a", "x=1", shown]


def test_where_all_of_a_setting_failed_its_line_says_of_what() -> None:
    values = {("s", "a", ""): [1.0, 2.0], ("s", "b", ""): [NAN, NAN]}
    summary = summarise(swept(values, b="failed: ValueError"))
    assert differences(summary, [M]) == ["M, against a: no value: b (failed: ValueError)"]
    assert row(summary, "b")["pairs"] == 0


# --- long tables --------------------------------------------------------------------------------------------


def test_a_long_table_has_the_columns_of_the_contract_in_order() -> None:
    rows = [
        Rows(
            "s", "a", "x=1", [Measured("m", "dB", np.array([1.0, 2.0])), Measured("n", "1", np.array([3.0]))]
        ),
        Rows("t", "b", "", [Measured("m", "dB", np.array([4.0]))]),
    ]
    table = summaries.long_table("compare", rows)
    assert list(table.columns) == COLUMNS
    assert COLUMNS == [
        "experiment", "estimator", "parameters", "stream", "seed", "metric", "value", "unit", "status",
    ]  # fmt: skip
    assert table.astype(object).to_numpy().tolist() == [
        ["compare", "a", "x=1", "s", 0, "m", 1.0, "dB", "ok"],
        ["compare", "a", "x=1", "s", 1, "m", 2.0, "dB", "ok"],
        ["compare", "a", "x=1", "s", 0, "n", 3.0, "1", "ok"],
        ["compare", "b", "", "t", 0, "m", 4.0, "dB", "ok"],
    ]


def test_a_long_table_says_why_there_is_no_value() -> None:
    rows = [
        Rows("s", "a", "", [Measured("m", "1", np.array([1.0, NAN, np.inf]), "no weights")]),
        Rows("s", "b", "", [Measured("m", "1", np.array([NAN, 1.0, NAN]))]),
    ]
    statuses = summaries.long_table("compare", rows)["status"].tolist()
    assert statuses == ["ok", "no weights", "no weights", "undefined", "ok", "undefined"]
    assert statuses == [status for own in rows for one in own.measured for status in one.status]


def test_what_is_absent_goes_before_what_has_no_value() -> None:
    absent = {1: "failed: ValueError", 3: "not run"}
    values = np.array([1.0, NAN, NAN, NAN])
    measured = [Measured("m", "1", values, "no weights"), Measured("n", "1", values)]
    table = summaries.long_table(
        "compare", [Rows("s", "a", "", measured, absent), Rows("s", "b", "", measured)]
    )
    by = table.groupby(["estimator", "metric"], observed=True)["status"].apply(list)
    assert by["a", "m"] == ["ok", "failed: ValueError", "no weights", "not run"]
    assert by["a", "n"] == ["ok", "failed: ValueError", "undefined", "not run"]
    assert by["b", "m"] == ["ok", "no weights", "no weights", "no weights"]
    own = row(summarise(table), "a")
    assert (own["n"], own["failed"], own["missing"]) == (1, 1, 2)


def test_a_long_table_is_summarised_like_one_of_plain_texts() -> None:
    rows = [
        Rows("s", "a", "x=1", [Measured("m", "dB", np.array([1.0, 2.0, 4.0]))]),
        Rows("s", "b", "x=1", [Measured("m", "dB", np.array([2.0, NAN, 4.0]))], {1: "failed: KeyError"}),
    ]
    table = summaries.long_table("compare", rows)
    plain = table.astype({name: str for name in COLUMNS if name not in ("seed", "value")})
    pd.testing.assert_frame_equal(summarise(table), summarise(plain))


# --- which is best ------------------------------------------------------------------------------------------


def best_of(values: dict[str, list[float]], column: Column = LESS) -> set[str]:
    found = best(long_table({(name, "m"): cells for name, cells in values.items()}), [column])
    assert all(key[:2] == ("s", "m") and key[3] == f"of {key[2]}" for key in found)
    return {estimator for _, _, estimator, _ in found}


NOISE = np.array([1.0, -1.0, 0.5, -0.5, 0.3, -0.3])


@pytest.mark.parametrize(("column", "winner"), [(LESS, "a"), (MORE, "c"), (M, None)])
def test_the_best_is_at_the_better_end(column: Column, winner: str | None) -> None:
    values = {"b": [5.0] * 6, "a": list(1.0 + NOISE), "c": list(9.0 + NOISE)}
    assert best_of(values, column) == ({winner} if winner else set())


def test_what_ties_with_the_best_is_best_too() -> None:
    values = {"a": [9.0] * 6, "b": list(1.0 + NOISE), "c": list(1.0 + NOISE + 1e-4)}
    assert best_of(values) == {"b", "c"}


def test_nothing_is_best_where_all_tie_or_one_cannot_be_told_apart() -> None:
    assert best_of({"a": [1.0] * 6, "b": [1.0001] * 6}) == set()
    assert best_of({"a": [1.0] * 6, "b": list(1.1 + NOISE), "c": [9.0] * 6}) == set()
    assert best_of({"a": [1.0] * 6}) == set()
    assert best_of({"a": [1.0] * 6, "b": [NAN] * 6}) == set()
    assert best_of({"a": [1.0] * 6, "b": [9.0] * 6, "c": [NAN] * 6}) == set()  # c has no interval


def test_what_shares_no_seed_with_the_best_cannot_be_told_apart() -> None:
    assert best_of({"a": [1.0, 1.0, NAN, NAN], "b": [NAN, NAN, 9.0, 9.0]}) == set()


def test_one_repetition_has_no_interval_and_no_best() -> None:
    exact = Column("m", "M", exact=True, better="less")
    assert best_of({"a": [8.0], "b": [16.0]}, exact) == set()
    assert best_of({"a": [8.0, 8.0], "b": [16.0, 16.0]}, exact) == {"a"}


SMALL_CELLS = st.integers(2, 4).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(-10, 10) | st.integers(-3, 3).map(float), min_size=n, max_size=n),
        min_size=2,
        max_size=5,
    )
)


@settings(deadline=None, max_examples=200)
@given(cells=SMALL_CELLS, column=st.sampled_from([LESS, MORE, Column("m", "M", 0.5, better="less")]))
def test_where_there_is_a_best_the_best_mean_is_of_it(cells: list[list[float]], column: Column) -> None:
    values = {f"e{i}": own for i, own in enumerate(cells)}
    found = best_of(values, column)
    means = {name: mean_interval(own)[0] for name, own in values.items()}
    end = (max if column.better == "more" else min)(means.values())
    assert not found or any(means[name] == end for name in found)
    assert len(found) < len(values)


@settings(deadline=None, max_examples=200)
@given(cells=SMALL_CELLS, data=st.data(), column=st.sampled_from([LESS, MORE]))
def test_the_order_of_settings_changes_nothing(cells: list[list[float]], data: Any, column: Column) -> None:
    values = {f"e{i}": own for i, own in enumerate(cells)}
    order = data.draw(st.permutations(list(values)))
    assert best_of({name: values[name] for name in order}, column) == best_of(values, column)


def test_the_order_of_settings_of_one_mean_changes_nothing() -> None:
    values = {"a": [0.0] * 4, "b": [0.125, -0.125] * 2, "c": [1.4] * 4}
    turned = {name: values[name] for name in ("b", "a", "c")}
    column = Column("m", "M", margin=1.5, better="less")
    assert best_of(values, column) == best_of(turned, column)


@settings(deadline=None, max_examples=100)
@given(cells=SMALL_CELLS)
def test_more_of_a_number_is_less_of_its_negative(cells: list[list[float]]) -> None:
    values = {f"e{i}": own for i, own in enumerate(cells)}
    turned = {name: [-value for value in own] for name, own in values.items()}
    assert best_of(values, LESS) == best_of(turned, MORE)


# --- LaTeX --------------------------------------------------------------------------------------------------


def written(table: pd.DataFrame, *columns: Column) -> list[str]:
    return latex(summarise(table), table, columns).splitlines()


def bold(lines: list[str]) -> list[str]:
    """The rows that have something in bold, by their first cell."""
    return [line.partition(" & ")[0] for line in lines if "\\textbf" in line]


def test_a_tabular_has_the_rules_of_booktabs_and_a_column_per_metric() -> None:
    values = {("a", "m"): [1.0, 1.0], ("a", "n"): [2.0, 3.0], ("b", "m"): [3.0, 3.0]}
    lines = written(long_table(values), M, Column("absent", "gone"), Column("n", "N"))
    assert lines == [
        "% needs \\usepackage{booktabs}",
        "\\begin{tabular}{llrr}",
        "\\toprule",
        "estimator & setting & M & N \\\\",
        "\\midrule",
        "a & of a & 1 & 2 $\\pm$ 6 \\\\",
        "b & of b & 3 & -- \\\\",
        "\\bottomrule",
        "\\end{tabular}",
    ]


def test_a_tabular_of_several_streams_has_a_rule_between_them() -> None:
    values = {(stream, name, "x=1"): [1.0, 2.0] for stream in ("s", "t", "u") for name in ("a", "b")}
    lines = written(swept(values), M)
    assert lines[1] == "\\begin{tabular}{lllr}"
    assert lines[3] == "stream & estimator & setting & M \\\\"
    starts = [line.partition(" &")[0] for line in lines[4:]]
    rule = "\\midrule"
    assert starts == [rule, "s", "s", rule, "t", "t", rule, "u", "u", "\\bottomrule", "\\end{tabular}"]


def test_what_means_something_to_latex_is_escaped() -> None:
    table = swept({("s_1 & 5 %", "a#b", "x^2=1 y={1}"): [1.0, 2.0], ("$t~", "c\\d", "x=1"): [1.0, 2.0]})
    one, other = (
        line for line in written(table, Column("m", "error^2 (%)")) if line.endswith("\\pm$ 6 \\\\")
    )
    assert one.startswith("s\\_1 \\& 5 \\% & a\\#b & x\\^{}2=1 y=\\{1\\} & ")
    assert other.startswith("\\$t\\~{} & c\\textbackslash{}d & x=1 & ")
    assert any(
        line.endswith("& error\\^{}2 (\\%) \\\\") for line in written(table, Column("m", "error^2 (%)"))
    )


def test_a_minus_sign_is_no_hyphen() -> None:
    lines = written(swept({("s", "a-1", "x=1"): [-1.0, -2.0], ("s", "b", "x=1"): [-3e-9, -3.2e-9]}), M)
    assert "a-1 & x=1 & $-$2 $\\pm$ 6 \\\\" in lines
    assert any("($-$3.1 $\\pm$ 1.3)e-9" in line for line in lines)


def test_the_best_is_bold_where_all_others_are_told_apart() -> None:
    values = {"a": list(1.0 + NOISE), "b": [5.0] * 6, "c": list(9.0 + NOISE)}
    table = long_table({(name, "m"): own for name, own in values.items()})
    lines = written(table, LESS)
    assert bold(lines) == ["a"]
    assert "a & of a & \\textbf{\\boldmath 1.0 $\\pm$ 0.8} \\\\" in lines
    assert bold(written(table, MORE)) == ["c"]
    assert bold(written(table, M)) == []
    doubtful = long_table(
        {("d", "m"): list(1.2 + NOISE[::-1])} | {(n, "m"): own for n, own in values.items()}
    )
    assert bold(written(doubtful, LESS)) == []
    assert bold(written(doubtful, MORE)) == ["c"]


def test_ties_of_the_best_are_bold_too_unless_all_tie() -> None:
    table = long_table({("a", "m"): [1.0] * 3, ("b", "m"): [1.0005] * 3, ("c", "m"): [2.0] * 3})
    assert bold(written(table, LESS)) == ["a", "b"]
    assert bold(written(table, MORE)) == ["c"]
    assert bold(written(table[table["estimator"] != "c"], LESS)) == []


def test_each_stream_and_each_column_has_its_own_best() -> None:
    less = swept(
        {
            ("s", "a", "x=1"): [1.0, 1.0], ("s", "a", "x=2"): [2.0, 2.0],
            ("t", "a", "x=1"): [4.0, 4.0], ("t", "a", "x=2"): [3.0, 3.0],
        }
    )  # fmt: skip
    more = less.assign(metric="n")
    lines = written(pd.concat([less, more], ignore_index=True), LESS, Column("n", "N", better="more"))
    body = [line.split(" & ") for line in lines if line.startswith(("s &", "t &"))]
    assert [[("\\textbf" in cell) for cell in line[3:]] for line in body] == [
        [True, False], [False, True], [False, True], [True, False],
    ]  # fmt: skip


def test_settings_that_look_alike_when_short_are_bold_by_their_own() -> None:
    table = swept({("s", "a", "x=0.123451"): [2.0, 2.0], ("s", "a", "x=0.123452"): [1.0, 1.0]})
    (line,) = (line for line in written(table, LESS) if "\\textbf" in line)
    assert line.startswith("a & x=0.123452 & ")
    lines = written(swept({("s", "a", "x=0.123451"): [1.0, 1.0], ("s", "b", "x=1"): [2.0, 2.0]}), LESS)
    assert any(line.startswith("a & x=0.1235 & \\textbf") for line in lines)


def test_of_one_repetition_nothing_is_bold() -> None:
    table = long_table({("a", "m"): [16.0], ("b", "m"): [8.0]})
    assert bold(written(table, Column("m", "M", exact=True, better="less"))) == []


def test_failed_cells_stand_in_the_tabular() -> None:
    values = {("s", "a", "x=1"): [2.0, NAN], ("s", "b", "x=1"): [NAN, NAN]}
    lines = written(swept(values, a="failed: A_B", b="not run"), LESS)
    assert "a & x=1 & 2 (1 failed: A\\_B) \\\\" in lines
    assert "b & x=1 & not run \\\\" in lines


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("first", ["s_1 & 2", "[s] of brackets", "*"])
def test_a_tabular_of_nasty_names_compiles(first: str, tmp_path: Path) -> None:
    if (
        shutil.which("kpsewhich")
        and not subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True, check=False).stdout.strip()
    ):
        pytest.skip("the package booktabs is not installed")
    nasty = "a_b & 100% #1 $x^2$ {y} ~z \\w [q] <r> \"s\" 't' -1"
    values = {
        (stream, f"{name} {nasty}", f"x={nasty}"): cells
        for stream in (first, f"t {nasty}")
        for name, cells in {"a": [1.0, 1.01], "b": [-5.0, -5.1], "c": [NAN, 3.0], "d": [NAN, NAN]}.items()
    }
    table = swept(values)
    table.loc[table["status"] != "ok", "status"] = "failed: Bad_Error & more"
    made = latex(summarise(table), table, [Column("m", f"M {nasty} ±", better="less"), LESS])
    document = ["\\documentclass{article}", "\\usepackage{booktabs}", "\\begin{document}", made]
    (tmp_path / "table.tex").write_text("\n".join([*document, "\\end{document}", ""]), encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
    assert re.search(rb"Undefined control sequence|Missing \$", done.stdout) is None


# --- the mark of the best -----------------------------------------------------------------------------------


def test_the_best_is_marked_where_latex_has_it_bold() -> None:
    table = long_table(
        {("a", "m"): [1.0, 1.1, 1.2], ("b", "m"): [2.0, 2.1, 2.2], ("c", "m"): [1.0, 1.1, 1.2]}
    )
    summary, columns = summarise(table), [Column("m", "M", better="less")]
    plain = markdown(summary, columns)
    text = starred(f"before\n\n{plain}\n\nafter", summary, table, columns)
    assert text.startswith("before\n\n| estimator ")
    assert text.endswith(f"|\n\n{BEST}\n\nafter")
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| ")}
    assert [name for name, line in rows.items() if line.endswith("* |")] == ["a", "c"]
    assert latex(summary, table, columns).count("textbf") == 2
    assert len({len(line) for line in rows.values()}) == 1
    assert {line.index("±") for line in rows.values() if "±" in line} == {rows["a"].index("±")}


def test_where_nothing_is_best_nothing_is_said() -> None:
    table = long_table({("a", "m"): [1.0, 2.0, 3.0], ("b", "m"): [2.0, 1.0, 3.0]})
    summary, columns = summarise(table), [Column("m", "M", better="less")]
    text = f"{markdown(summary, columns)}\n"
    assert starred(text, summary, table, columns) == text
    assert starred("no table", summary, table, columns) == "no table"


# --- the width of a text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"), [("", 0), ("abc", 3), ("±", 1), ("ü", 1), ("u\u0308", 1), ("損失", 4)]
)
def test_width_is_in_columns_of_a_terminal(text: str, columns: int) -> None:
    assert width(text) == columns


def test_wide_characters_leave_columns_aligned() -> None:
    lines = aligned(
        [["series", "use", "x"], ["損失.csv", "ema", "1"], ["u\u0308.csv", "kalman", "22"]]
    ).splitlines()
    assert {width(line) for line in lines} == {width(lines[0])}
