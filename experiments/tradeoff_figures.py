"""Figures of the trade-off: fronts of all settings, and errors of whole families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.figures import line, styled
from experiments.fronts import front
from experiments.tradeoff_families import NOISE, TUNED
from experiments.tradeoff_view import Found

DRAWN = 4
"""Streams of a sweep in the figures."""
MARKERS = "osD^vPX"
SIZES = 14.0, 9.8, 7.4, 5.2
"""Points, of families in their order: those that tie lie on each other, later ones smaller, and on top."""
ALONE = 8.0
"""Points, of an estimator with one setting."""
STANDING = {"full": "on the front", "left": "on it once settling counts", "none": "beaten either way"}
"""How a mark is filled, and what that says."""


def figures(found: Sequence[Found]) -> dict[str, Any]:
    """Both figures, of the first streams; none where cells failed that they would show."""
    shown = [own for own in found if own.candidates(False)[0]][:DRAWN]
    return {"fronts": _fronts(shown), "error": _error(shown)} if shown else {}


def standing(found: Found) -> dict[tuple[str, ...], str]:
    """How each setting stands, as a mark is filled: on the front of three criteria, of four only, beaten."""
    on: list[set[tuple[str, ...]]] = []
    for with_settling in (False, True):
        candidates, _ = found.candidates(with_settling)
        ways = front(candidates, found.criteria(with_settling))
        on.append({one.key for one, way in zip(candidates, ways, strict=True) if way is None})
    keys = [candidate.key for candidate in found.candidates(False)[0]]
    return {key: "full" if key in on[0] else "left" if key in on[1] else "none" for key in keys}


def _style(found: Found, label: str) -> dict[str, Any]:
    index = list(found.estimators).index(label)
    families = [one for one, family in found.families.items() if family]
    size = SIZES[min(families.index(label), len(SIZES) - 1)] if label in families else ALONE
    return {
        "color": line(index)["color"],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": size,
        "linestyle": "none",
        "zorder": 3 + index,
    }


def _filled(style: dict[str, Any], fill: str) -> dict[str, Any]:
    """A mark that hides what is below it, filled wholly, to the left, or not."""
    face = "white" if fill == "none" else style["color"]
    half = "left" if fill == "left" else "full"
    return {**style, "fillstyle": half, "markerfacecolor": face, "markerfacecoloralt": "white"}


def _fronts(found: Sequence[Found]) -> Any:
    """Attenuation against lag, memory and settling, of all settings, and how they stand."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(
            len(found), 3, figsize=(9.6, 0.6 + 3.6 * len(found)), squeeze=False, sharey="row"
        )
        handles: dict[str, Any] = {}
        for row, own in zip(axes, found, strict=True):
            late = own.columns[1]
            criteria = {
                late.metric: f"{late.label} (samples)",
                "state_bytes": "state (bytes per channel)",
                "settling": "settling, to within 5 % of a step (samples)",
            }
            fills = standing(own)
            for label, place in fills:
                style = _style(own, label)
                drawn = _filled(style, fills[label, place])
                for axis, metric in zip(row, criteria, strict=True):
                    across, up = (own.row(label, name, place) for name in (metric, "attenuation"))
                    if across is not None:
                        axis.plot(across["mean"], up["mean"], **drawn)
                handles.setdefault(label, pyplot.Line2D([], [], label=label, **_filled(style, "none")))
            for axis, title in zip(row, criteria.values(), strict=True):
                axis.set(xscale="log", xlabel=title)
            row[0].set_xscale("symlog", linthresh=1.0)
            row[0].set_xlim(left=-0.3)
            row[0].set_ylabel("attenuation (dB)")
            row[0].set_title(
                f"{own.panel.stream}: front of attenuation, {late.label} and memory", fontsize=8, loc="left"
            )
        grey = {"color": "#666666", "marker": "o", "markersize": ALONE, "linestyle": "none"}
        filled = [pyplot.Line2D([], [], label=text, **_filled(grey, fill)) for fill, text in STANDING.items()]
        figure.legend(handles=[*handles.values(), *filled], loc="outside lower center", ncols=5)
        pyplot.close(figure)
    return figure


def _error(found: Sequence[Found]) -> Any:
    """Error of whole families against how much noise they leave, each at its best; and over the first's."""
    with styled() as pyplot:
        figure, axes = pyplot.subplots(len(found), 2, figsize=(7.6, 3.4 * len(found)), squeeze=False)
        handles: dict[str, Any] = {}
        for (whole, over), own in zip(axes, found, strict=True):
            for index, (label, family) in enumerate(own.families.items()):
                rows = [(w, own.row(label, own.error.metric, f"{NOISE}_{w}")) for w in own.windows if family]
                known = [(window, row["mean"]) for window, row in rows if row is not None]
                if known:
                    (handles[label],) = whole.plot(*zip(*known, strict=True), **line(index))
                    relative = [
                        (w, *own.over_first(label, own.error.metric, f"{NOISE}_{w}")) for w, _ in known
                    ]
                    over.errorbar(*zip(*relative, strict=True), capsize=2.0, **line(index))
                place, row = _window_of(own, label), own.row(label, own.error.metric, TUNED)
                if row is not None and np.isfinite(place):
                    mark = {**_style(own, label), "zorder": 20 + index}
                    (drawn,) = whole.plot(place, row["mean"], markerfacecolor="none", **mark)
                    handles.setdefault(label, drawn)
            whole.set(xscale="log", yscale="log", xlabel="noise variance in / out")
            whole.set_ylabel(f"{own.error.label} ({own.panel.setup.stream.unit})")
            whole.yaxis.set_major_locator(
                pyplot.matplotlib.ticker.LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
            )
            whole.yaxis.set_major_formatter("{x:g}")
            whole.yaxis.set_minor_formatter("")
            whole.set_title(f"{own.panel.stream}; marks: each at its best", fontsize=8)
            over.set(xscale="log", xlabel="noise variance in / out")
            over.set_ylabel(f"over {own.first} at equal noise (%)")
        figure.legend(
            list(handles.values()), list(handles), loc="outside lower center", ncols=min(4, len(handles))
        )
        pyplot.close(figure)
    return figure


def _window_of(found: Found, label: str) -> float:
    """The noise's variance over what is left of it, at an estimator's best setting."""
    row = found.row(label, "attenuation", TUNED)
    return float(10.0 ** (row["mean"] / 10.0)) if row is not None else np.nan
