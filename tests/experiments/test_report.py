"""The page of a run: what it holds, that nothing in it is taken for markup, and that it stays small."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from estimators import EMA, Kalman
from experiments.job import completed
from experiments.metrics import Measured
from experiments.page.bundle import vega
from experiments.report import MOST, main, report
from experiments.reported import run_data
from experiments.series import COLUMNS as SERIES
from experiments.series import SAMPLES, TRUTH, estimated
from experiments.summaries import COLUMNS, Column, Rows, best, long_table, summarise
from experiments.tables import quantity

SWEEP = ["stream.s=1e-4,1e-2", "seeds=3", "stream.steps=400"]
HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>&amp;\u2028'\""


class _Reader(HTMLParser):
    """Elements of a page, and the text of its scripts and styles by id or kind."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.data: dict[str, str] = {}
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = dict(attrs).get("id", "") if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.data[self.inside] = self.data.get(self.inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def run(self, index: int = 0) -> Any:
        return json.loads(gzip.decompress(base64.b64decode(json.loads(self.data[f"run-{index}"]))))


def unpacked(summary: Any) -> pd.DataFrame:
    """The rows that the page shows."""
    columns = {}
    for name, packed in summary["columns"].items():
        if isinstance(packed, list):
            columns[name] = packed
        elif "at" in packed:
            columns[name] = [packed["levels"][place] for place in packed["at"]]
        else:
            columns[name] = [packed["same"]] * summary["rows"]
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small sweep: two streams, four estimators."""
    return completed([*SWEEP, f"output={tmp_path_factory.mktemp('swept')}"], multirun=True).path


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run on one stream, with its series and figures."""
    return completed(["seeds=3", "stream.steps=4000", f"output={tmp_path_factory.mktemp('single')}"]).path


def written(folder: Path, summary: pd.DataFrame, table: pd.DataFrame | None = None, **manifest: Any) -> Path:
    """A run folder by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    summary.to_csv(folder / "summary.csv", index=False)
    (table if table is not None else pd.DataFrame(columns=COLUMNS)).to_csv(folder / "table.csv", index=False)
    about = {"experiment": "made", "command": ["kalmean", "x=1"], "identity": "0123", "code": "4567"}
    about |= {"complete": True, "rows": len(summary), "cells": {"done": 1, "failed": 0, "missing": 0}}
    (folder / "manifest.json").write_text(json.dumps(about | manifest), encoding="utf-8")
    return folder


def measured(folder: Path, values: dict[str, dict[str, list[float]]], streams: int = 1) -> Path:
    """A run folder of estimators with some metrics' values, the same on each stream."""
    rows = [
        Rows(f"stream {n}", estimator, "", [Measured(m, "1", np.array(v)) for m, v in metrics.items()])
        for n in range(streams)
        for estimator, metrics in values.items()
    ]
    table = long_table("made", rows)
    columns = [{"metric": "rmse", "label": "RMSE", "margin": None, "exact": False, "better": "less"}]
    return written(folder, summarise(table), table, columns=columns)


# --- what it holds ------------------------------------------------------------------------------------------


def test_its_numbers_are_those_of_the_summary(swept: Path) -> None:
    shown = unpacked(_Reader(report([swept])).run()["summary"])
    summary = pd.read_csv(swept / "summary.csv")
    assert len(shown) == len(summary) > 50
    for name in ("stream", "estimator", "metric", "unit", "n", "failed", "missing", "pairs", "status"):
        assert shown[name].tolist() == summary[name].tolist()
    for name in ("value", "low", "high", "median", "difference", "difference_low", "difference_high"):
        exact = summary["mean" if name == "value" else name]
        np.testing.assert_allclose(shown[name].astype(float), exact, rtol=6e-6)
    for text, row in zip(shown["text"], summary.to_dict("records"), strict=True):
        expected = quantity(row["mean"], row["high"] - row["mean"]) if row["n"] else row["status"]
        assert text.replace("~", " ± ").partition(" (")[0] == expected


def test_it_marks_what_is_best_and_says_who_ties(swept: Path) -> None:
    run = _Reader(report([swept])).run()
    shown, table = unpacked(run["summary"]), pd.read_csv(swept / "table.csv", keep_default_na=False)
    table["value"] = pd.to_numeric(table["value"])
    columns = [Column(**column) for column in json.loads((swept / "manifest.json").read_text())["columns"]]
    assert columns
    marked = shown[shown["best"].astype(bool)]
    found = {(stream, metric, estimator) for stream, metric, estimator, _ in best(table, columns)}
    assert set(marked[["stream", "metric", "estimator"]].itertuples(index=False, name=None)) == found
    assert found
    assert set(shown.loc[shown["estimator"] == "ema", "verdict"]) == {"baseline"}
    lag = shown[(shown["metric"] == "lag") & (shown["estimator"] == "kalman")]
    assert set(lag["verdict"]) <= {"tie", "no value"}
    assert [one["label"] for one in run["summary"]["metrics"] if one["printed"]] == [
        column.label for column in columns if column.metric in set(shown["metric"])
    ]


def test_it_says_how_the_run_was_made_and_nothing_of_where(swept: Path) -> None:
    run = _Reader(report([swept])).run()
    manifest = json.loads((swept / "manifest.json").read_text())
    assert run["command"] == "kalmean -m stream.s=1e-4,1e-2 seeds=3 stream.steps=400"
    assert (run["identity"], run["code"]) == (manifest["identity"], manifest["code"])
    assert run["made"]["numpy"] == np.__version__
    assert run["text"] == (swept / "summary.md").read_text(encoding="utf-8")
    assert "steps" in run["configuration"]
    assert str(swept.parent.parent) not in json.dumps(run)


def test_a_run_leaves_it_and_its_manifest_knows_it(single: Path) -> None:
    page = (single / "report.html").read_text(encoding="utf-8")
    assert page == report([single]) == report([single])
    files = json.loads((single / "manifest.json").read_text())["files"]
    assert {"report.html", "series/start.csv", "series/later.csv"} <= set(files)


def test_one_made_in_place_leaves_the_run_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["seeds=1", "stream.steps=100", "estimators=[ema]", f"output={tmp_path}"]
    folder = completed(overrides).path
    (folder / "report.html").write_text("of an older kalmean")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{folder / 'report.html'}: ")
    assert not completed(overrides).fresh


def test_pictures_come_with_a_single_run(single: Path, swept: Path) -> None:
    (figure, other) = _Reader(report([single])).run()["figures"]
    assert (figure["file"], other["file"]) == ("figures/estimates.png", "figures/settling.png")
    assert figure["image"].startswith("iVBORw0KGgo")
    assert len(report([single]).encode()) < MOST
    page = _Reader(report([single, swept], names=["one", "two"]))
    assert [one["file"] for one in page.run(0)["figures"]] == [
        "figures/one_estimates.png",
        "figures/one_settling.png",
    ]
    assert {one["image"] for index in (0, 1) for one in page.run(index)["figures"]} == {""}
    assert page.run(1)["table"] == {"file": "tables/two.csv", "link": True}


def test_nothing_is_fetched(single: Path) -> None:
    page = _Reader(report([single]))
    policy = next(of["content"] for tag, of in page.tags if of.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    addresses = [of[name] for _, of in page.tags for name in ("src", "href") if name in of]
    assert all(address.startswith(("#", "data:")) for address in addresses), addresses


# --- what stands in the way of it ---------------------------------------------------------------------------


def test_no_text_is_taken_for_markup(tmp_path: Path) -> None:
    values = {HOSTILE: {"rmse": [1.0, 2.0]}, "b": {"rmse": [1.5, 2.5]}}
    folder = measured(tmp_path / "run", values)
    tame = measured(tmp_path / "tame", {"a": {"rmse": [1.0, 2.0]}, "b": {"rmse": [1.5, 2.5]}})
    for path in (folder / "config.yaml", folder / "summary.md"):
        path.write_text(HOSTILE, encoding="utf-8")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"command": ["kalmean", HOSTILE]}))
    page, plain = _Reader(report([folder], title=HOSTILE)), _Reader(report([tame]))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    run = page.run()
    assert set(unpacked(run["summary"])["estimator"]) == {HOSTILE, "b"}
    assert run["configuration"] == run["text"] == HOSTILE


def test_texts_stay_texts_and_what_is_missing_stays_missing(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "id": ["NA", "null", "c"],
            "parameters": ["7", "", "inf"],
            "stated": [1.0, np.nan, np.inf],
            "none": [np.nan] * 3,
        }
    )
    summary = _Reader(report([written(tmp_path / "run", table)])).run()["summary"]
    assert summary["kind"] == "plain"
    assert summary["numeric"] == ["stated", "none"]
    shown = unpacked(summary)
    assert shown["id"].tolist() == ["NA", "null", "c"]
    assert shown["parameters"].tolist() == ["7", "", "inf"]
    assert summary["columns"]["stated"] == [1, None, "Infinity"]
    assert summary["columns"]["none"] == {"same": None}


def test_medians_alone_are_shown_without_differences(tmp_path: Path) -> None:
    rows = {"stream": "s", "estimator": ["a", "b"], "metric": "time", "unit": "ns", "n": 7}
    values = {"median": [0.44594, 1.0], "low": [0.4, np.nan], "high": [0.5, np.nan]}
    run = _Reader(report([written(tmp_path / "run", pd.DataFrame({**rows, **values}))])).run()
    shown = unpacked(run["summary"])
    assert (run["summary"]["centre"], run["summary"]["compared"]) == ("median", False)
    assert shown["text"].tolist() == ["0.4459", "1"]
    assert shown["value"].tolist() == [0.44594, 1.0]
    assert "verdict" not in shown


def test_failures_are_counted_by_why(tmp_path: Path) -> None:
    measured_ = [Measured(metric, "1", np.array([1.0, np.nan, np.nan, 2.0])) for metric in ("rmse", "bias")]
    lag = Measured("lag", "samples", np.array([1.0, np.nan, 3.0, np.nan]), "no steady state")
    absent = {1: "failed: ValueError", 2: "not run"}
    rows = [Rows("s", "ema", "beta=0.9", [*measured_, lag], absent), Rows("s", "kalman", "", measured_[:1])]
    table = long_table("made", rows)
    cells = {"done": 6, "failed": 1, "missing": 1}
    run = _Reader(report([written(tmp_path / "run", summarise(table), table, cells=cells)])).run()
    names = ("estimator", "status", "metrics", "count", "of")
    told = [[one[name] for name in names] for one in run["failures"]]
    found = {(one[0], one[1]): tuple(one[2:]) for one in told}
    assert found == {
        ("ema", "failed: ValueError"): ("every metric", 1, 4),
        ("ema", "not run"): ("every metric", 1, 4),
        ("ema", "no steady state"): ("lag", 1, 4),
        ("kalman", "undefined"): ("every metric", 2, 4),
    }
    assert run["cells"] == cells


def test_a_run_without_failures_has_none_to_show(swept: Path) -> None:
    table = pd.read_csv(swept / "table.csv")
    run = _Reader(report([swept])).run()
    assert bool(run["failures"]) == bool((table["status"] != "ok").any())


def test_what_does_not_fit_is_left_out_and_said_to_be(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="needs kalmean[report], whose charts take most of the room")
    values = {f"estimator {n}": {"rmse": [1.0 + n, 2.0], "bias": [0.1 * n, 0.3]} for n in range(7)}
    folder = measured(tmp_path / "run", values, streams=500)
    (folder / "figures").mkdir()
    (folder / "figures" / "large.png").write_bytes(np.random.default_rng(0).bytes(1_500_000))
    page = report([folder])
    run = _Reader(page).run()
    assert len(page.encode()) <= MOST
    assert run["left"] == ["pictures"]
    assert run["figures"] == [{"file": "figures/large.png", "link": False, "image": ""}]
    assert run["summary"]["left"] == "The first 428 streams of 500; all are in summary.csv."
    counts = unpacked(run["summary"]).groupby("stream").size()
    assert (len(counts), set(counts)) == (428, {14})


def test_without_the_extra_it_says_how_to_get_charts(single: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vl_convert", reason="needs kalmean[report]")
    whole = report([single])
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    page = report([single])
    assert json.loads(_Reader(page).data["about"])["without"] == (
        "charts need vl-convert: pip install 'kalmean[report]'"
    )
    assert _Reader(page).run() == _Reader(whole).run()
    assert len(page) < len(whole) - 500_000


def test_its_charts_are_put_together_once_for_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vl_convert", reason="needs kalmean[report]")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = vega.__wrapped__()
    assert "window.vegaEmbed" in made
    (kept,) = (tmp_path / "kalmean").iterdir()
    assert kept.read_text(encoding="utf-8") == made
    kept.write_text("kept", encoding="utf-8")
    assert vega.__wrapped__() == "kept"


# --- Pareto front -------------------------------------------------------------------------------------------


def front(tmp_path: Path, points: dict[str, tuple[float, float, float]]) -> set[str]:
    names = ("attenuation_db", "lag", "state_bytes")
    values = {
        estimator: {name: [value] for name, value in zip(names, point, strict=True)}
        for estimator, point in points.items()
    }
    shown = unpacked(run_data(measured(tmp_path / "run", values))["summary"])
    return set(shown.loc[shown["front"].astype(bool), "estimator"])


def test_the_front_is_what_nothing_beats(tmp_path: Path) -> None:
    points = {
        "slow": (30.0, 200.0, 8.0),
        "quick": (10.0, 5.0, 8.0),
        "beaten": (10.0, 20.0, 8.0),
        "heavy": (30.0, 200.0, 1600.0),
        "heavy but better": (31.0, 200.0, 1600.0),
    }
    assert front(tmp_path, points) == {"slow", "quick", "heavy but better"}


def test_one_estimator_may_stand_at_several_settings(tmp_path: Path) -> None:
    metrics = {
        f"{name}@{at}": [value]
        for at, gain in (("a", 20.0), ("b", 10.0))
        for name, value in (("attenuation_db", gain), ("lag", 99.0), ("state_bytes", 8.0))
    }
    shown = unpacked(run_data(measured(tmp_path / "run", {"ema": metrics}))["summary"])
    on = shown["front"].astype(bool)
    assert set(shown.loc[on, "metric"]) == {"attenuation_db@a", "lag@a", "state_bytes@a"}


def test_ties_do_not_beat_each_other(tmp_path: Path) -> None:
    assert front(tmp_path, {"a": (20.0, 99.0, 8.0), "b": (20.09, 99.05, 8.0)}) == {"a", "b"}
    assert front(tmp_path, {"a": (20.0, 99.0, 8.0), "b": (20.09, 99.05, 16.0)}) == {"a"}
    assert front(tmp_path, {"a": (20.0, np.nan, 8.0), "b": (10.0, 50.0, 16.0)}) == {"b"}


# --- series -------------------------------------------------------------------------------------------------


def test_a_series_is_what_was_estimated() -> None:
    samples = np.random.default_rng(0).normal(size=(50, 2))
    kalman = Kalman(q=0.1, r=1.0)
    runs = {"ema": EMA(0.9).filter(samples), "kalman": kalman.filter(samples)}
    found = estimated(samples, runs, "1", "both", slice(10, 30), level=np.zeros((50, 2)))
    assert list(found.columns) == SERIES
    assert list(dict.fromkeys(found["what"])) == [SAMPLES, TRUTH, "ema", "kalman"]
    own = found[found["what"] == "kalman"]
    assert own["time"].tolist() == list(range(10, 30))
    np.testing.assert_array_equal(own["value"], kalman.filter(samples).mean[10:30, 0])
    low, high = runs["kalman"].interval(0.95)  # type: ignore[misc]
    np.testing.assert_array_equal(own[["low", "high"]], np.stack([low[10:30, 0], high[10:30, 0]], axis=1))
    assert found.loc[found["what"] == "ema", ["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(("length", "step"), [(1, 1), (2000, 1), (2001, 2), (10_001, 6)])
def test_a_long_series_is_thinned_evenly(length: int, step: int) -> None:
    samples = np.arange(float(length))
    found = estimated(samples, {}, "1", "x")
    assert found["value"].tolist() == samples[::step].tolist()
    assert len(found) <= 2000


def test_a_run_keeps_the_series_of_its_first_repetition(single: Path) -> None:
    series = pd.read_csv(single / "series" / "start.csv")
    own = {name: rows["value"].to_numpy() for name, rows in series.groupby("what", sort=False)}
    assert list(own) == [SAMPLES, TRUTH, "ema", "debiased_ema", "kalman", "moving_average"]
    assert len(own[SAMPLES]) == 300
    np.testing.assert_allclose(EMA(0.99).filter(own[SAMPLES]).mean, own["ema"], atol=1e-7)
    shown = {part["name"]: part for part in _Reader(report([single])).run()["series"]}
    assert set(shown) == {"start", "later"}
    assert shown["later"]["times"] == list(range(1500, 2500))
    lines = {line["what"]: line for line in shown["start"]["lines"]}
    np.testing.assert_allclose(lines["kalman"]["value"], own["kalman"], rtol=1e-4)
    assert "low" in lines["kalman"]
    assert "low" not in lines["ema"]


# --- the command line ---------------------------------------------------------------------------------------


def test_one_page_of_several_runs(swept: Path, single: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "both.html"
    assert main([str(swept), str(single), "-o", str(path)]) == 0
    page = _Reader(path.read_text(encoding="utf-8"))
    assert json.loads(page.data["about"])["runs"] == [swept.name, single.name]
    assert page.run(1)["experiment"] == "compare"


@pytest.mark.parametrize("what", ["nothing", "stopped", "broken", "bare"])
def test_what_is_no_finished_run_is_refused_in_one_line(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    if what != "nothing":
        folder.mkdir()
        text = {"stopped": '{"complete": false}', "broken": "{", "bare": "{}"}[what]
        (folder / "manifest.json").write_text(text)
    if what in ("broken", "bare"):
        for name in ("summary.csv", "table.csv"):
            (folder / name).write_text("a\n1\n")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"report: {folder} is not the folder of a finished run: ")
    assert captured.err.count("\n") == 1
    assert ("the run was stopped; give its command again" in captured.err) == (what == "stopped")
    assert ("it lacks 'command'" in captured.err) == (what == "bare")


def test_a_place_that_cannot_be_written_is_one_line(
    swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "page.html"
    assert main([str(swept), "-o", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"report: {path} cannot be written: ")
    assert said.count("\n") == 1
