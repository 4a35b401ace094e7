"""The explorer: one page in which the estimators' settings move, `python -m experiments.explorer [PATH]`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist

from estimators import EMA, MovingAverage
from experiments.files import write_whole
from experiments.page import Page, piece
from experiments.streams import DEFAULT_S, GradientRatio

STYLES = ("style.css", "explorer.css")
MODULES = (
    "theme.js",
    "estimators.js",
    "streams.js",
    "charts.js",
    "explorer_numbers.js",
    "explorer_panels.js",
    "explorer_tables.js",
    "explorer.js",
)
BETA = 0.99


def explorer() -> str:
    """Return the page, the same bytes every time; ImportError naming ``report`` without vl-convert."""
    return Page(
        title="kalmean explorer: which beta?",
        description="What EMA, debiased EMA, Kalman filter and moving average remember, pass and cost.",
        body=piece("explorer.html"),
        styles=[piece(name) for name in STYLES],
        scripts=[piece(name) for name in MODULES],
        data={"given": given()},
        charts=True,
    ).html()


def given() -> dict[str, object]:
    """Return what the page takes from the library: the settings it opens with, the quantile of its bands."""
    stream = GradientRatio()
    defaults: dict[str, object] = {
        "beta": BETA,
        "ratio": DEFAULT_S,
        "window": MovingAverage.from_noise_gain(EMA(BETA).noise_gain).window,
        "frequency": 0.05,
        "match": "noise",
        "lead": "beta",
        "kind": "ratio",
        "domain": "log",
        "steps": 1000,
        "sd": round(math.sqrt(stream.r), 4),
        "drift": stream.s,
        "height": 8.0,
        "slope": 0.01,
        "outliers": 0.01,
        "scale": 5.0,
        "seed": 0,
    }
    return {"defaults": defaults, "quantile": NormalDist().inv_cdf(0.975)}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where; 1 if it cannot be written, 2 without the extra, each one line on stderr.

    Raises SystemExit(2) for a bad argument, after one line.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.explorer", description=__doc__)
    parser.add_argument(
        "path", nargs="?", type=Path, default=Path("results/explorer.html"), help="default: %(default)s"
    )
    path: Path = parser.parse_args(argv).path
    try:
        page = explorer().encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    except ImportError as error:
        print(f"explorer: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"explorer: {path} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(page):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
