"""One page for people of what runs left, `python -m experiments.report DIR [DIR ...] [-o FILE]`."""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import html
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.files import write_whole
from experiments.page import Page, piece
from experiments.page.bundle import EXTRA, available
from experiments.reported import run_data
from experiments.series import MOST as SERIES

STYLES = ("style.css", "report.css")
MODULES = (
    *("theme.js", "charts.js", "tables.js", "report_charts.js", "report_parts.js"),
    *("report_made.js", "report_series.js", "report_metrics.js", "report.js"),
)
PAGE = "report.html"
"""What it is called in the folder of a run."""
MOST = 2_500_000
"""Bytes that a page may have; pictures, then series are left out where it would have more."""


def report(
    folders: Sequence[Path], title: str = "", names: Sequence[str] = (), images: bool | None = None
) -> str:
    """Return the page of some finished runs, the same bytes for the same files.

    title: by default the experiment's. names: those under which the runs are published beside the page; by
    default they are called as their folders are. images: whether pictures come with it, by default those of a
    single run, as far as they fit. Without the extra ``report`` the page has no charts, and says how to get
    them. Raises ValueError, one line, for a folder of no finished run.
    """
    given = names or [""] * len(folders)
    with_images = len(folders) == 1 if images is None else images
    most = SERIES if len(folders) == 1 else SERIES // 3
    runs = [run_data(folder, name, with_images, most) for folder, name in zip(folders, given, strict=True)]
    if not title:
        title = f"kalmean: {runs[0]['experiment'] if len(runs) == 1 else f'{len(runs)} runs'}"
    page = _page(runs, title)
    for what, without in (("pictures", _without_pictures), ("series", _without_series)):
        if len(page.encode()) <= MOST:
            break
        runs = [{**without(run), "left": [*run["left"], what]} for run in runs]
        page = _page(runs, title)
    return page


def _without_pictures(run: Mapping[str, Any]) -> dict[str, Any]:
    return {**run, "figures": [{**figure, "image": ""} for figure in run["figures"]]}


def _without_series(run: Mapping[str, Any]) -> dict[str, Any]:
    return {**run, "series": []}


def _page(runs: Sequence[Mapping[str, Any]], title: str) -> str:
    charts = available()
    about = {"runs": [run["name"] for run in runs], "without": "" if charts else EXTRA}
    return Page(
        title=title,
        body=piece("report.html").replace("{title}", html.escape(title)),
        description=f"Summary, intervals, paired differences, estimates and figures: {title}.",
        styles=[piece(name) for name in STYLES],
        scripts=[piece(name) for name in MODULES],
        data={"about": about, **{f"run-{index}": _packed(run) for index, run in enumerate(runs)}},
        charts=charts,
    ).html()


def _packed(run: Mapping[str, Any]) -> str:
    """A run's data in a fourth of the bytes; browsers unpack gzip themselves (WHATWG, Compression)."""
    text = json.dumps(run, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and say where; 1 if it cannot be written, 2 for no finished run, one line on stderr.

    Raises SystemExit(2) for a bad argument, after one line.
    """
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of runs")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: report.html in the first folder"
    )
    given = parser.parse_args(argv)
    path: Path = given.output or given.folders[0] / PAGE
    try:
        page = report(given.folders).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
        if path.name == PAGE:
            _own(path)
    except ValueError as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"report: {path} cannot be written: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{path}: {len(page):,} bytes")
    return 0


def _own(page: Path) -> None:
    """Tell the manifest beside a run's page of what the page holds now, that the run stays finished."""
    path = page.with_name("manifest.json")
    with suppress(FileNotFoundError):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["files"][page.name] = hashlib.sha256(page.read_bytes()).hexdigest()
        write_whole(path, (json.dumps(manifest, indent=2) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
