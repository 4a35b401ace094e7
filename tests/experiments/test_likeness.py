"""Versions of a table, text or picture: what a rounding explains is alike, and what it does not is found."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image

from experiments.likeness import NUMBERS, PICTURES, Likeness, likeness
from experiments.tables import aligned

NAN = np.nan


def table(**columns: Any) -> pd.DataFrame:
    """A summary of three rows, of which some columns are replaced or added."""
    plain: dict[str, Any] = {
        "stream": ["s"] * 3, "estimator": ["ema", "kalman", "window"], "metric": ["rmse"] * 3,
        "mean": [0.1, 0.2, 0.3], "difference": [0.0, 0.1, 0.2], "status": ["ok"] * 3,
    }  # fmt: skip
    return pd.DataFrame(plain | columns)


def csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.17g").encode()


def tables(before: pd.DataFrame, after: pd.DataFrame) -> Likeness:
    return likeness(".csv", csv(before), csv(after))


def texts(before: str, after: str, suffix: str = ".md") -> Likeness:
    return likeness(suffix, before.encode(), after.encode())


def png(pixels: Any, **about: str) -> bytes:
    made = io.BytesIO()
    image.imsave(made, pixels, format="png", metadata=about or None)
    return made.getvalue()


def picture(seed: int = 0, height: int = 20, width: int = 30) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


# --- of any kind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex", ".png"])
def test_the_same_bytes_are_identical_whatever_they_hold(suffix: str) -> None:
    assert likeness(suffix, b"\x00 no such file", b"\x00 no such file") == Likeness("identical")
    assert likeness(suffix, b"a", b"a", exempt=True) == Likeness("identical")


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex", ".png"])
def test_what_was_not_there_is_new(suffix: str) -> None:
    assert likeness(suffix, None, b"anything") == Likeness("new")
    assert likeness(suffix, None, b"anything", exempt=True) == Likeness("new")


@pytest.mark.parametrize("suffix", [".csv", ".md", ".tex", ".png"])
def test_what_is_exempt_is_not_looked_at(suffix: str) -> None:
    assert likeness(suffix, b"one", b"other", exempt=True).kind == "timings"


def test_a_likeness_reads_as_words() -> None:
    assert str(Likeness("identical")) == "identical"
    assert str(Likeness("different", "line 3: x")) == "different (line 3: x)"


# --- tables -------------------------------------------------------------------------------------------------


def test_last_bits_are_within_tolerance_and_named() -> None:
    found = tables(table(), table(mean=[0.1, np.nextafter(0.2, 1.0), 0.3]))
    assert found.kind == "within tolerance"
    assert found.where.startswith("at most 1e-16 apart, mean of s kalman rmse: 0.2 before, 0.2")


def test_of_several_last_bits_the_largest_is_named() -> None:
    found = tables(table(), table(mean=[0.1 * (1 + 1e-12), 0.2, 0.3 * (1 - 1e-9)]))
    assert found.kind == "within tolerance"
    assert found.where.startswith("at most 1e-09 apart, mean of s window rmse: 0.3 before, ")


def test_the_same_numbers_written_otherwise_are_within_tolerance() -> None:
    found = likeness(".csv", b"mean\n1.0\n2.50\n", b"mean\n1.00\n2.5\n")
    assert found == Likeness("within tolerance")


def test_a_different_value_is_named_by_column_row_before_and_now() -> None:
    found = tables(table(), table(mean=[0.1, 0.2, 0.4]))
    assert found == Likeness("different", "mean of s window rmse: 0.3 before, 0.4 now")


def test_of_several_different_values_the_largest_is_named() -> None:
    found = tables(table(), table(mean=[0.11, 0.2, 0.3], difference=[0.0, 0.1, 0.4]))
    assert found == Likeness("different", "difference of s window rmse: 0.2 before, 0.4 now")


def test_a_row_without_names_is_numbered() -> None:
    found = likeness(".csv", b"mean\n1\n2\n", b"mean\n1\n3\n")
    assert found == Likeness("different", "mean of row 2: 2 before, 3 now")


@settings(deadline=None, max_examples=100)
@given(value=st.floats(1e-200, 1e200), apart=st.sampled_from([1e-15, 0.5 * NUMBERS, 2.0 * NUMBERS, 0.1]))
def test_the_bound_is_relative(value: float, apart: float) -> None:
    found = tables(pd.DataFrame({"x": [value]}), pd.DataFrame({"x": [value * (1.0 + apart)]}))
    assert found.kind == ("within tolerance" if apart < NUMBERS else "different")


@settings(deadline=None, max_examples=50)
@given(one=st.floats(-1e6, 1e6), other=st.floats(-1e6, 1e6))
def test_which_came_first_makes_no_difference(one: float, other: float) -> None:
    one, other = pd.DataFrame({"mean": [one]}), pd.DataFrame({"mean": [other]})  # type: ignore[assignment]
    assert tables(one, other).kind == tables(other, one).kind  # type: ignore[arg-type]


def test_columns_that_differ_are_named() -> None:
    found = tables(table(), table(extra=1).drop(columns="difference"))
    assert found == Likeness("different", "columns difference, extra")
    reordered = tables(table(), table()[["estimator", "stream", "metric", "mean", "difference", "status"]])
    assert reordered == Likeness("different", "columns in another order")


def test_counts_of_rows_that_differ_are_named() -> None:
    assert tables(table(), table().iloc[:2]) == Likeness("different", "3 rows before, 2 now")
    assert tables(table().iloc[:0], table()) == Likeness("different", "0 rows before, 3 now")


def test_nan_in_the_same_places_is_equal() -> None:
    gaps = table(difference=[0.0, NAN, 0.2])
    assert tables(gaps, table(difference=[0.0, NAN, np.nextafter(0.2, 1.0)])).kind == "within tolerance"
    nothing = table(difference=[NAN] * 3)
    assert tables(nothing, nothing.assign(mean=[0.1, 0.2, np.nextafter(0.3, 1.0)])).kind == "within tolerance"


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("other", [NAN, np.inf, -np.inf])
def test_nan_or_infinity_against_a_number_is_different(other: float, swapped: bool) -> None:
    pair = table(), table(difference=[0.0, other, 0.2])
    found = tables(*pair[:: -1 if swapped else 1])
    assert found.kind == "different"
    assert found.where.startswith("difference of s kalman rmse: ")


def test_nan_against_zero_is_different() -> None:
    assert tables(table(), table(difference=[NAN, 0.1, 0.2])).kind == "different"


def test_infinities_are_equal_to_themselves_alone() -> None:
    def infinite(value: float) -> pd.DataFrame:
        return table(difference=[value, 0.1, 0.2])

    moved = infinite(np.inf).assign(mean=[0.1, 0.2, np.nextafter(0.3, 1.0)])
    assert tables(infinite(np.inf), moved).kind == "within tolerance"
    assert tables(infinite(np.inf), infinite(-np.inf)).kind == "different"


def test_words_that_differ_are_different() -> None:
    found = tables(table(), table(status=["ok", "no value", "ok"]))
    assert found == Likeness("different", "status of s kalman rmse: ok before, no value now")
    assert tables(table(), table(estimator=["ema", "kalman", "ema"])).kind == "different"


def test_a_word_against_nothing_is_different_and_nothing_against_nothing_is_not() -> None:
    empty = table(status=["ok", None, "ok"])
    assert tables(table(), empty).kind == "different"
    assert tables(empty, empty.assign(mean=[0.1, 0.2, np.nextafter(0.3, 1.0)])).kind == "within tolerance"


@pytest.mark.parametrize("column", ["difference", "mean"])
def test_a_word_where_a_number_was_is_different(column: str) -> None:
    found = tables(table(), table(**{column: ["0.1", "a lot", "0.3"]}))
    assert found.kind == "different"
    assert found.where.startswith(f"{column} of s ")


def test_what_is_rounding_beside_the_mean_is_alike() -> None:
    before, after = table(difference=[1e-17, 0.1, 0.2]), table(difference=[-2e-17, 0.1, 0.2])
    assert tables(before, after).kind == "within tolerance"
    assert tables(table(difference=[0.0, 0.1, 0.2]), after).kind == "within tolerance"


def test_a_real_difference_of_a_thousandth_is_found_beside_rounding() -> None:
    found = tables(table(difference=[1e-17, 0.1, 0.2]), table(difference=[-2e-17, 0.1001, 0.2]))
    assert found.kind == "different"
    assert found.where.startswith("difference of s kalman rmse: 0.1 before, 0.1001")


def test_without_a_mean_nothing_counts_as_rounding() -> None:
    one, other = pd.DataFrame({"value": [1e-17]}), pd.DataFrame({"value": [-2e-17]})
    assert tables(one, other).kind == "different"
    zero = table(mean=[0.0, 0.2, 0.3], difference=[1e-17, 0.1, 0.2])
    assert tables(zero, zero.assign(difference=[-2e-17, 0.1, 0.2])).kind == "different"


# --- texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".md", ".tex"])
@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("0.1344 ± 0.0018", "0.1345 ± 0.0018", "within tolerance"),
        ("0.1344 ± 0.0018", "0.1344 ± 0.0017", "within tolerance"),
        ("0.1344 ± 0.0018", "0.1346 ± 0.0018", "different"),
        ("0.1344 ± 0.0018", "0.1354 ± 0.0018", "different"),
        ("0.1344 ± 0.0018", "-0.1344 ± 0.0018", "different"),
        ("299 samples", "300 samples", "within tolerance"),
        ("299 samples", "301 samples", "different"),
        ("1.2e-9", "1.3e-9", "within tolerance"),
        ("1.2e-9", "1.4e-9", "different"),
        ("1.2e-9", "1.2e-8", "different"),
        ("9.9e-10", "1.0e-09", "within tolerance"),
        ("(1.0 ± 0.3)e-9", "(1.1 ± 0.3)e-9", "within tolerance"),
        ("a tie", "no tie", "different"),
        ("a tie of 1", "a tie", "different"),
        ("tie: b, c", "tie: b", "different"),
    ],
)
def test_texts_may_differ_by_one_in_the_last_digit(suffix: str, before: str, after: str, kind: str) -> None:
    found = texts(f"a line\n{before}\n", f"a line\n{after}\n", suffix)
    assert found.kind == kind
    assert found.where == (f"line 2: {after}" if kind == "different" else "in the last digits of numbers")


def test_another_power_of_ten_of_a_quantity_is_different() -> None:
    assert texts("(1.0 ± 0.3)e-9\n", "(1.0 ± 0.3)e-10\n").kind == "different"


def test_a_small_number_that_rounds_to_zero_has_either_sign() -> None:
    assert texts("-0.0001 ± 0.0004\n", "0.0000 ± 0.0004\n").kind == "within tolerance"


def test_many_last_digits_may_move_at_once() -> None:
    assert texts("1.0 and 2.0\n3.0\n", "1.1 and 1.9\n2.9\n").kind == "within tolerance"


def test_the_first_line_that_differs_is_named_and_cut_short() -> None:
    found = texts("a\nb\nc\n", f"a\n  {'x' * 100}\nd\n")
    assert found == Likeness("different", f"line 2: {'x' * 80}")


def test_padding_that_moved_because_of_a_digit_is_alike() -> None:
    assert texts("| ema | 9.99 |\n", "| ema | 10.00 |\n").kind == "within tolerance"
    assert (
        texts("| a   | 10.0 |\n| b   |  9.9 |\n", "| a   | 9.9 |\n| b   | 9.9 |\n").kind == "within tolerance"
    )


def test_a_whole_table_that_grew_wider_by_a_digit_is_alike() -> None:
    before, after = (
        aligned([["estimator", "setting", "M"], ["ema", "beta=0.9", number], ["window", "window=19", "1.00"]])
        for number in ("9.99", "10.00")
    )
    assert len(before.splitlines()[1]) < len(after.splitlines()[1])
    assert texts(before + "\n", after + "\n").kind == "within tolerance"


def test_counts_of_lines_that_differ_are_named() -> None:
    assert texts("a\nb\n", "a\n") == Likeness("different", "2 lines before, 1 now")
    assert texts("", "a\n") == Likeness("different", "0 lines before, 1 now")


@pytest.mark.parametrize(("before", "after"), [("a\n", "a\nb"), ("a\nb", "a\n"), ("", "b")])
def test_a_last_line_without_an_end_counts(before: str, after: str) -> None:
    assert texts(before, after).kind == "different"


# --- pictures -----------------------------------------------------------------------------------------------


def test_the_same_pixels_under_another_title_are_identical() -> None:
    before, after = png(picture(), Title="one"), png(picture(), Title="other", Source="a run")
    assert before != after
    assert likeness(".png", before, after).kind == "identical"


def test_slight_noise_is_within_tolerance() -> None:
    noise = np.random.default_rng(1).integers(0, 2, picture().shape, dtype=np.uint8)
    found = likeness(".png", png(picture()), png(picture() + noise))
    assert found.kind == "within tolerance"
    assert found.where.endswith("% of full scale apart")


def test_one_pixel_of_many_is_within_tolerance_and_a_block_is_not() -> None:
    before = np.full((400, 600, 3), 255, dtype=np.uint8)
    dot, block = before.copy(), before.copy()
    dot[0, 0] = 0
    block[50:100, 50:100] = 0
    assert np.sqrt(1.0 / (400 * 600)) < PICTURES
    assert likeness(".png", png(before), png(dot)).kind == "within tolerance"
    assert likeness(".png", png(before), png(block)).kind == "different"


def test_another_picture_is_different() -> None:
    found = likeness(".png", png(picture(0)), png(picture(1)))
    assert found.kind == "different"
    assert found.where.startswith("pixels ")


def test_another_size_is_named_as_width_by_height() -> None:
    found = likeness(".png", png(picture()), png(picture(height=21)))
    assert found == Likeness("different", "30 x 20 pixels before, 30 x 21 now")
