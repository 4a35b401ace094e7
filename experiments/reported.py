"""What a run folder says, as plain data for a page: its summary, series, failures and how it was made."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.fronts import Candidate, Criterion, front
from experiments.series import MOST
from experiments.summaries import NEGLIGIBLE, Column, best
from experiments.tables import cell, counted, quantity, shortened, signed, verdict_of

ROWS = 6000
"""Rows of a summary that a page shows; of a longer one the first streams that fit."""
TEXT = 100_000
"""Characters of a text that a page shows."""
DIGITS, SERIES_DIGITS = 6, 5
"""Significant digits of numbers: those of a summary, and those of a series."""
ATTENUATION = "attenuation_db", "implied_attenuation_db"
LAG = "lag", "mean_age"
MEMORY = "state_bytes"
_KEYS = ("stream", "estimator", "parameters")
_WORDS = (*_KEYS, "experiment", "metric", "unit", "baseline", "status", "what", "of")
_COMPARED = {
    "mean",
    "high",
    "failed",
    "missing",
    "difference",
    "difference_low",
    "difference_high",
    "pairs",
    "status",
}
_NUMBERS = (
    *("n", "failed", "missing", "low", "high", "median"),
    *("difference", "difference_low", "difference_high", "pairs"),
)


def run_data(folder: Path, name: str = "", images: bool = True, most: int = MOST) -> dict[str, Any]:
    """Return what there is to say of the run in a folder; ValueError, one line, for what is no finished run.

    name: that under which its files are published beside the page, by which they are then linked; without it
    the run is called as its folder is when it is finished. images: whether the pictures come with it.
    most: samples of a series; of a longer one every k-th.
    """
    try:
        return _run(folder, name, images, most)
    except (OSError, ValueError, KeyError) as error:
        stopped = (folder / "manifest.json").exists() and not (folder / "summary.csv").exists()
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        why = "the run was stopped; give its command again" if stopped else lacking
        raise ValueError(f"{folder} is not the folder of a finished run: {why}") from error


def _run(folder: Path, name: str, images: bool, most: int) -> dict[str, Any]:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    summary, table = _read(folder / "summary.csv"), _read(folder / "table.csv")
    columns = [Column(**column) for column in manifest.get("columns", [])]
    command = [part for part in manifest["command"] if not part.startswith("output=")]
    return {
        "name": name or f"{manifest['experiment']}-{manifest['identity']}",
        "command": shlex.join(command),
        **{key: manifest.get(key) for key in ("experiment", "identity", "code", "complete", "cells", "rows")},
        "made": {
            "Python": manifest.get("python"),
            "machine": manifest.get("machine"),
            **manifest.get("packages", {}),
        },
        "computed": manifest.get("computed_with", []),
        "configuration": re.sub(r"^output: .*\n?", "", _text(folder / "config.yaml"), flags=re.MULTILINE),
        "text": _text(folder / "summary.md"),
        "failures": list(_failures(table)),
        "left": [],
        "summary": _measured(summary, table, columns) if _is_measured(summary) else _plain(summary),
        "series": [_series(path, most) for path in sorted((folder / "series").glob("*.csv"))],
        "table": {"file": f"tables/{name}.csv" if name else "summary.csv", "link": bool(name)},
        "figures": [_figure(path, name, images) for path in sorted((folder / "figures").glob("*.png"))],
    }


def _read(path: Path) -> pd.DataFrame:
    """Numbers as numbers, and every text as it stands there, "NA" and "null" and "7" too."""
    words = dict.fromkeys(_WORDS, str)
    frame = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""], low_memory=False)
    for name in frame.columns:
        if name in _WORDS or not pd.api.types.is_numeric_dtype(frame[name]):
            frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    return frame


def _text(path: Path) -> str:
    """A file's text, of a long one the beginning; nothing where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    left = len(text) - TEXT
    return text if left <= 0 else f"{text[:TEXT]}\n... {left:,} more characters in {path.name}\n"


def _figure(path: Path, name: str, images: bool) -> dict[str, Any]:
    image = base64.b64encode(path.read_bytes()).decode() if images else ""
    return {"file": f"figures/{name}{'_' * bool(name)}{path.name}", "link": bool(name), "image": image}


def _failures(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Settings with cells or metrics that have no value: why, how many repetitions, and of which metrics."""
    by = [*_KEYS, "status"]
    if not {*by, "metric", "seed"} <= set(table.columns):
        return
    measured = table.groupby(list(_KEYS), sort=False)["metric"].nunique().to_dict()
    repetitions = table.groupby(list(_KEYS), sort=False)["seed"].nunique().to_dict()
    for keys, own in table[table["status"] != "ok"].groupby(by, sort=False):
        metrics, setting = list(dict.fromkeys(own["metric"])), keys[:3]
        yield {
            **dict(zip(by, keys, strict=True)),
            "metrics": "every metric" if len(metrics) == measured[setting] else ", ".join(metrics),
            "count": int(own["seed"].nunique()),
            "of": int(repetitions[setting]),
        }


# --- summaries ----------------------------------------------------------------------------------------------


def _is_measured(summary: pd.DataFrame) -> bool:
    """Whether its rows are metrics of estimators on streams, as medians or as `summarise` makes them."""
    names = set(summary.columns)
    return {"stream", "estimator", "metric", "unit", "n"} <= names and (
        names >= _COMPARED or "median" in names
    )


def _plain(summary: pd.DataFrame) -> dict[str, Any]:
    shown = summary.iloc[:ROWS]
    return {
        "kind": "plain",
        "columns": {name: _packed(_column(shown[name])) for name in shown.columns},
        "numeric": [name for name in shown.columns if pd.api.types.is_numeric_dtype(shown[name])],
        "rows": len(shown),
        "left": _left(len(shown), len(summary), "row"),
    }


def _measured(summary: pd.DataFrame, table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    compared = set(summary.columns) >= _COMPARED
    centre = "mean" if compared else "median"
    if "parameters" not in summary:
        summary = summary.assign(parameters="")
    kept = _kept(summary)
    shown = summary.assign(setting=shortened(summary))[summary["stream"].isin(kept)]
    known = {column.metric: column for column in columns}
    rows: Any = shown.to_dict("records")
    fields: dict[str, Sequence[Any]] = {
        **{name: shown[name].tolist() for name in ("stream", "estimator", "setting", "metric", "unit")},
        "value": _column(shown[centre]),
        **{name: _column(shown[name]) for name in _NUMBERS if name in shown},
        "text": [_shown(row, centre) for row in rows],
    }
    if compared:
        winners = best(table[table["stream"].isin(kept)], columns)
        on_front, firsts = _front(rows), {row["stream"]: _setting(row) for row in reversed(rows)}
        is_first = [_setting(row) == firsts[row["stream"]] for row in rows]
        fields |= {
            "best": [(row["stream"], row["metric"], *_setting(row)) in winners for row in rows],
            "front": [(row["stream"], *_place(row)) in on_front for row in rows],
            "verdict": [
                "baseline" if first else _verdict(row, known)
                for row, first in zip(rows, is_first, strict=True)
            ],
            "difference_text": [
                "" if first or not row["pairs"] else signed(row).replace(" ± ", "~")
                for row, first in zip(rows, is_first, strict=True)
            ],
            "status": [row["status"] for row in rows],
        }
    there = set(shown["metric"])
    metrics = [metric for metric in dict.fromkeys([*known, *shown["metric"]]) if metric in there]
    return {
        "kind": "measured",
        "centre": centre,
        "compared": compared,
        "metrics": [_metric(metric, known.get(metric)) for metric in metrics],
        "columns": {name: _packed(values) for name, values in fields.items()},
        "rows": len(shown),
        "left": _left(len(kept), summary["stream"].nunique(), "stream"),
    }


def _metric(name: str, column: Column | None) -> dict[str, Any]:
    label, better = (column.label, column.better) if column else (name.replace("_", " "), "")
    return {"metric": name, "label": label, "better": better, "printed": column is not None}


def _kept(summary: pd.DataFrame) -> list[str]:
    """Streams of which all rows are shown: the first, as many as fit, one at least."""
    total = summary.groupby("stream", sort=False).size().cumsum()
    return [str(stream) for stream in total.index[: max(1, int((total <= ROWS).sum()))]]


def _left(shown: int, there: int, what: str) -> str:
    return "" if shown == there else f"The first {counted(shown, what)} of {there:,}; all are in summary.csv."


def _shown(row: Mapping[str, Any], centre: str) -> str:
    if centre == "mean":
        return cell(row).replace(" ± ", "~")
    return quantity(row["median"], math.nan) if math.isfinite(row["median"]) else "-"


def _setting(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["estimator"], row["parameters"]


def _verdict(row: Mapping[str, Any], known: Mapping[str, Column]) -> str:
    return verdict_of(row, known.get(row["metric"], Column(row["metric"], ""))) or "differs"


def _place(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """A row's setting, with what stands behind its metric's @ where an estimator is measured at several."""
    return *_setting(row), row["metric"].partition("@")[2]


def _front(rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Streams and settings on the Pareto front of the stream: attenuation, lag and memory.

    A tie is within 0.1 dB, a thousandth of the lag.
    """
    there = {row["metric"].partition("@")[0] for row in rows}
    gain, lag = (next((metric for metric in of if metric in there), "") for of in (ATTENUATION, LAG))
    criteria = (
        Criterion(gain, "more", margin=0.1),
        Criterion(lag, "less", share=NEGLIGIBLE),
        Criterion(MEMORY, "less"),
    )
    values: dict[str, dict[tuple[str, str, str], dict[str, float]]] = {}
    for row in rows:
        own = values.setdefault(row["stream"], {}).setdefault(_place(row), {})
        own[row["metric"].partition("@")[0]] = row["mean"]
    found = set()
    for stream, settings in values.items():
        candidates = [
            Candidate(setting, own)
            for setting, own in settings.items()
            if all(math.isfinite(own.get(one.name, math.nan)) for one in criteria)
        ]
        beaten = front(candidates, criteria)
        found |= {(stream, *own.key) for own, by in zip(candidates, beaten, strict=True) if by is None}
    return found  # type: ignore[return-value]


# --- numbers ------------------------------------------------------------------------------------------------


def _series(path: Path, most: int) -> dict[str, Any]:
    """Times, and of each thing shown its values and bounds, NaN as null."""
    frame = _read(path)
    times = np.unique(frame["time"].to_numpy())
    times = times[:: -(-len(times) // most) or 1]
    lines = []
    for what, own in frame.groupby("what", sort=False):
        own = own.drop_duplicates("time").set_index("time").reindex(times)
        line = {"what": what, "value": _column(own["value"], SERIES_DIGITS)}
        if pd.api.types.is_numeric_dtype(own["low"]) and own["low"].notna().any():
            line |= {bound: _column(own[bound], SERIES_DIGITS) for bound in ("low", "high")}
        lines.append(line)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    return {
        "name": path.stem,
        "unit": str(frame["unit"].iloc[0]),
        "of": str(frame["of"].iloc[0]),
        "times": _column(pd.Series(times), 9),
        "lines": lines,
        "thinned": f"one sample in {step:g} is shown" if step > 1.0 else "",
    }


def _column(values: pd.Series, digits: int = DIGITS) -> list[Any]:
    """Its values as JSON can say them: numbers to so many digits, NaN as null, infinity as text."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return [str(value) for value in values]
    return [_number(float(value), digits) for value in values]


def _number(value: float, digits: int) -> Any:
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0.0 else "-Infinity"
    short = float(f"{value:.{digits}g}")
    return int(short) if short == round(short) and abs(short) < 1e15 else short


def _packed(values: Sequence[Any]) -> Any:
    """A column in few bytes: one value for all, texts by their places in a list, or as it is."""
    levels = list(dict.fromkeys(values))
    if len(levels) == 1:
        return {"same": levels[0]}
    if all(isinstance(value, str) for value in levels) and 2 * len(levels) < len(values):
        places = {level: place for place, level in enumerate(levels)}
        return {"levels": levels, "at": [places[value] for value in values]}
    if all(isinstance(value, bool) for value in levels):
        return [int(value) for value in values]
    return list(values)
