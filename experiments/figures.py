"""How figures look: labelled with units, readable in greyscale and by the colour-blind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Okabe and Ito (2008): distinct for the colour-blind; neighbours differ in lightness, for greyscale.
COLOURS = ("#000000", "#E69F00", "#0072B2", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
DASHES: tuple[Any, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
    (0, (3, 1)),
    (0, (8, 3)),
    (0, (1, 3)),
)


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of the index-th estimator, the same in every figure of a run."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": DASHES[index % len(DASHES)],
        "linewidth": 1.5,
        "zorder": 3 + index,
    }


@contextmanager
def styled() -> Iterator[Any]:
    """Give pyplot without a display, in the style of all figures."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    settings: Any = {
        "figure.dpi": 200,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.handlelength": 3.5,
        "svg.hashsalt": "kalmean",
    }
    with pyplot.rc_context(settings):
        yield pyplot
