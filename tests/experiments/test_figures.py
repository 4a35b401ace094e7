"""The style of all figures: told apart in colour and in grey, and without traces in the process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from experiments.figures import COLOURS, DASHES, line, styled


def grey(colour: str) -> float:
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))


def test_estimators_are_told_apart_by_colour_and_by_dash() -> None:
    assert len(set(COLOURS)) == len(COLOURS)
    assert len(set(map(str, DASHES))) == len(DASHES)
    for one, other in itertools.combinations(range(len(COLOURS)), 2):
        assert line(one)["color"] != line(other)["color"]
        assert line(one)["linestyle"] != line(other)["linestyle"]


def test_the_first_four_differ_in_grey_or_in_dash_and_stand_out_from_white() -> None:
    assert all(grey(colour) < 0.75 for colour in COLOURS)
    assert abs(grey(COLOURS[0]) - grey(COLOURS[1])) > 0.2


@pytest.mark.parametrize("index", [0, 6, 7, 100])
def test_there_is_a_style_for_any_number_of_estimators(index: int) -> None:
    style = line(index)
    assert style["color"] in COLOURS
    assert style["linewidth"] > 1.0
    assert line(index) == style


def test_the_style_ends_with_the_figure() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with styled() as pyplot:
        assert matplotlib.get_backend().lower() == "agg"
        assert pyplot.rcParams["figure.dpi"] == 200
    after = dict(matplotlib.rcParams)
    assert {key for key in before if before[key] != after[key]} <= {"backend", "backend_fallback"}
