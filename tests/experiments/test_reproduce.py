"""What is published is made anew from nothing, put in its place, and compared with what was there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from experiments import compare, reproduce
from experiments.job import Job, completed
from experiments.reproduce import Published, Reproduced, filled, with_table
from experiments.runs import code_fingerprint

SMALL = ["seeds=2", "stream.steps=60"]
RUNS = {"compare": SMALL, "compare_step": ["stream=step", *SMALL]}
README = "A title\n\n<!-- table -->\nold\n<!-- end -->\n\nThe rest.\n"
FINDINGS = "Findings: {compare mean ema rmse}.\n\n{compare}\n\n{compare_step}\n"
FILES = [f"results/tables/{name}.{suffix}" for name in RUNS for suffix in ("csv", "md", "tex")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of two tiny runs without figures, and a folder of its own for what is temporary."""
    found, package, scratch = tmp_path / "checkout", tmp_path / "package", tmp_path / "scratch"
    for folder in (found / "results", package, scratch):
        folder.mkdir(parents=True)
    (found / "README.md").write_text(README, encoding="utf-8")
    (package / "findings.md").write_text(FINDINGS, encoding="utf-8")
    monkeypatch.setattr(reproduce, "PUBLISHED", RUNS)
    monkeypatch.setattr(reproduce, "PACKAGE", package)
    monkeypatch.setattr(reproduce, "ROOT", found)
    monkeypatch.setattr(compare, "_figures", lambda *_: {})
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.chdir(tmp_path)
    return found


def made(root: Path, *names: str) -> dict[str, str]:
    """The kind of likeness of each file that is made anew."""
    found = list(reproduce.reproduce(root / "results", names))
    assert all(isinstance(one, Reproduced) for one in found)
    kinds = {one.name: one.likeness.kind for one in found}
    assert len(kinds) == len(found)
    return kinds


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    """When each file below a folder was written, and what it holds."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files
    }


# --- all of it ----------------------------------------------------------------------------------------------


def test_the_first_time_all_is_new(root: Path) -> None:
    found = made(root)
    assert found.pop("README.md") == "different"  # its table is another one
    assert list(found) == [*FILES, "results/README.md", "results/report.html"]
    assert set(found.values()) == {"new"}
    assert all((root / name).stat().st_size > 0 for name in found)


def test_the_second_time_all_is_identical_and_nothing_is_written(root: Path) -> None:
    made(root)
    before = written(root)
    found = made(root)
    assert list(found) == [*FILES, "results/README.md", "results/report.html", "README.md"]
    assert set(found.values()) == {"identical"}
    assert written(root) == before


def test_pages_quote_the_runs(root: Path) -> None:
    made(root)
    findings = (root / "results" / "README.md").read_text(encoding="utf-8")
    summary: Any = pd.read_csv(root / "results" / "tables" / "compare.csv")
    rmse = summary[(summary["metric"] == "rmse") & (summary["estimator"] == "ema")].iloc[0]
    assert re.match(r"Findings: \d\.\d+ ± \d\.\d+\.\n", findings)
    number = float(findings.removeprefix("Findings: ").partition(" ")[0])
    assert number == pytest.approx(rmse["mean"], abs=rmse["high"] - rmse["mean"])
    assert "`python -m experiments stream=step seeds=2 stream.steps=60`" in findings
    text = (root / "results" / "tables" / "compare.md").read_text(encoding="utf-8")
    assert f"```\n{text}```" in findings
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("A title\n\n<!-- table -->\n```\ncompare on gradient_ratio: 2 streams of 60")
    assert readme.endswith("\n```\n<!-- end -->\n\nThe rest.\n")
    assert "old" not in readme.split()
    assert "Where the squared error comes from" not in readme


def test_part_of_it_leaves_the_pages_alone(root: Path) -> None:
    made(root)
    for page in (root / "README.md", root / "results" / "README.md", root / "results" / "report.html"):
        page.write_text("another page", encoding="utf-8")
    before = written(root)
    assert list(made(root, "compare_step")) == [name for name in FILES if "compare_step." in name]
    assert written(root) == before


def test_all_names_given_are_all_of_it(root: Path) -> None:
    assert "results/README.md" in made(root, *reversed(RUNS))


def test_times_are_exempt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "PUBLISHED", {"cost": SMALL, "compare": SMALL})
    monkeypatch.setattr(reproduce, "TIMINGS", ("cost",))
    template = reproduce.PACKAGE / "findings.md"
    template.write_text("{compare}\n{cost after Where}", encoding="utf-8")
    made(root)
    for name in ("cost.csv", "cost.md"):
        (root / "results" / "tables" / name).write_text("other times\n", encoding="utf-8")
    for page in ("README.md", "report.html"):
        (root / "results" / page).write_text("of other times", encoding="utf-8")
    found = made(root)
    pages = {"results/README.md", "results/report.html"}
    timed = {"results/tables/cost.csv", "results/tables/cost.md", *pages}
    assert {name for name, kind in found.items() if kind == "timings"} == timed
    assert {kind for name, kind in found.items() if name not in timed} == {"identical"}


# --- from nothing -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("names", [[], ["compare"]])
def test_nothing_of_an_earlier_run_is_used_or_touched(names: list[str], root: Path) -> None:
    clean = made(root)
    tables = written(root / "results" / "tables")
    results = root / "results"
    completed([*SMALL, f"output={results}"])
    for summary in (results / "runs").rglob("summary.*"):
        summary.write_text("no such numbers\n", encoding="utf-8")
    for cell in (results / "cells").rglob("*"):
        if cell.is_file():
            cell.write_bytes(b"no such numbers")
    before = {name: written(results / name) for name in ("runs", "cells")}
    assert before["runs"]
    assert before["cells"]
    found = made(root, *names)
    assert set(found.values()) == {"identical"}
    assert set(found) <= set(clean)
    assert written(results / "tables") == tables
    assert {name: written(results / name) for name in ("runs", "cells")} == before


def test_what_is_temporary_is_gone_afterwards(root: Path, tmp_path: Path) -> None:
    made(root)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert sorted(path.name for path in (root / "results").iterdir()) == [
        "README.md",
        "report.html",
        "tables",
    ]


def test_what_is_temporary_is_gone_though_nobody_waits_for_the_end(root: Path, tmp_path: Path) -> None:
    going: Any = reproduce.reproduce(root / "results")
    next(going)
    assert [path.name.startswith("kalmean-") for path in (tmp_path / "scratch").iterdir()] == [True]
    going.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_is_temporary_is_gone_after_a_run_that_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reproduce, "PUBLISHED", {"compare": ["seeds=0"]})
    with pytest.raises(ValueError, match="seeds=0 is not valid"):
        made(root)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert list((root / "results").iterdir()) == []


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_tells_of_each_file_and_counts_them(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(root)
    capsys.readouterr()
    assert reproduce.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [*FILES, "results/README.md", "results/report.html", "README.md"]
    assert lines[:-1] == [f"{name}: identical" for name in names]
    assert lines[-1] == f"{len(names)} files: {len(names)} identical. git diff shows what changed."


def test_a_tampered_table_is_found_and_put_right(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main(["compare"]) == 0
    assert "3 files: 3 new." in capsys.readouterr().out
    path = root / "results" / "tables" / "compare.csv"
    right = path.read_bytes()
    tampered: Any = pd.read_csv(path)
    at = tampered.index[(tampered["metric"] == "rmse") & (tampered["estimator"] == "kalman")][0]
    tampered.loc[at, "mean"] *= 1.001
    tampered.to_csv(path, index=False, float_format="%.17g")
    assert reproduce.main(["compare"]) == 1
    out = capsys.readouterr().out
    assert "results/tables/compare.csv: different (mean of gradient_ratio kalman rmse: " in out
    assert re.search(r"rmse: 0?\.?\d\S* before, \S+ now\)\n", out)
    assert "3 files: 1 different, 2 identical." in out
    assert path.read_bytes() == right
    assert reproduce.main(["compare"]) == 0


def test_an_edited_text_is_found_and_put_right(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce.main(["compare"])
    path = root / "results" / "tables" / "compare.md"
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace("| kalman ", "| calman ", 1), encoding="utf-8")
    capsys.readouterr()
    assert reproduce.main(["compare"]) == 1
    assert "results/tables/compare.md: different (line " in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == right


@pytest.mark.parametrize("names", [["nothing"], ["compare", "nothing"]])
def test_an_unknown_name_is_refused_in_one_line(
    names: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(names) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "reproduce: nothing is not published; valid: compare, compare_step\n"
    assert list((root / "results").iterdir()) == []


# --- pictures -----------------------------------------------------------------------------------------------


def test_pictures_say_what_made_them_and_nothing_of_this_machine(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "_figures", _drawn(compare))
    monkeypatch.setattr(reproduce, "PUBLISHED", {"compare": SMALL, "step": ["stream=step", *SMALL]})
    assert made(root, "compare")["results/figures/compare_estimates.png"] == "new"
    figures = sorted((root / "results" / "figures").glob("*.png"))
    assert [path.name for path in figures] == ["compare_estimates.png"]
    identity = Job.of(SMALL).folder.identity
    for path in figures:
        with Image.open(path) as opened:
            about: Any = dict(opened.info)
        assert about["Title"] == "compare"
        command = " ".join(["kalmean", *SMALL])
        assert about["Source"] == f"{command}; run {identity}; code {code_fingerprint()}"
        assert "output=" not in str(about)
        data = path.read_bytes()
        for folder in (tmp_path, Path(tempfile.gettempdir()), Path.cwd(), Path.home()):
            assert str(folder) == "/" or str(folder).encode() not in data
        assert os.sep not in about["Source"]
    before = written(root / "results" / "figures")
    assert made(root, "compare")["results/figures/compare_estimates.png"] == "identical"
    assert written(root / "results" / "figures") == before


def _drawn(module: Any) -> Callable[..., Any]:
    """Only the first of the figures, the smaller for it."""
    estimates = module._estimates

    def drawn(panel: Any, trials: Any) -> Any:
        figure = estimates(panel.setup, trials)
        figure.set_dpi(60)
        return {"estimates": figure}

    return drawn


def test_another_picture_is_found_and_put_right(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_figures", _drawn(compare))
    made(root, "compare")
    path = root / "results" / "figures" / "compare_estimates.png"
    right = path.read_bytes()
    with Image.open(path) as opened:
        Image.new("RGBA", opened.size, "white").save(path)
    assert made(root, "compare")["results/figures/compare_estimates.png"] == "different"
    assert path.read_bytes() == right


# --- quotations ---------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Published:
    summary = {
        "estimator": ["ema", "kalman"], "metric": ["rmse"] * 2, "mean": [0.2, 0.25], "high": [0.203, 0.254],
        "difference": [0.0, 0.05], "difference_high": [0.0, 0.053],
        "stream": ["a walk"] * 2, "parameters": ["", "q=1"], "n": [1000] * 2,
    }  # fmt: skip
    lower = {**summary, "metric": ["lag"] * 2, "difference": [0.0, -0.05], "difference_high": [0.0, -0.047]}
    other = {**summary, "mean": [0.3, 0.5], "stream": ["a step"] * 2, "parameters": ["", "q=2"]}
    frames = [pd.DataFrame(summary), pd.DataFrame(lower), pd.DataFrame(other)]
    pd.concat(frames).to_csv(tmp_path / "summary.csv", index=False)
    said = "- Two of them go on\n  in the next line. Of 2.5 others\n  nothing.\nThree"
    text = f"A table.\n\nNumbers:\n\n| 1 |\n\nGoals:\n\n| what |\n\nEnd.\n{said}\n"
    (tmp_path / "summary.md").write_text(text, encoding="utf-8")
    return Published("name", ["seeds=2"], tmp_path)


@pytest.mark.parametrize(
    ("request_", "quoted"),
    [
        ("mean ema rmse", "0.200 ± 0.003"),
        ("plain ema rmse", "0.2"),
        ("percent kalman rmse", "+25.0 ± 1.5 %"),
        ("percent kalman lag", "-16.7 ± 1.0 %"),
        ("n kalman rmse", "1,000"),
        ("root kalman rmse", "0.500 ± 0.004"),
        ("said 'Two of'", "Two of them go on in the next line"),
        ("said 'Of 2'", "Of 2.5 others nothing"),
        ("said Three", "Three"),
        ("difference kalman rmse", "+0.050 ± 0.003"),
        ("difference kalman lag", "-0.050 ± 0.003"),
        ("plain kalman rmse stream=step", "0.5"),
        ("plain kalman rmse 'stream=a walk' parameters=q=1", "0.25"),
        ("largest rmse", "5.0e-01"),
        ("after Goals End", "| what |"),
        ("after Numbers Goals", "| 1 |"),
    ],
)
def test_numbers_are_quoted(request_: str, quoted: str, run: Published) -> None:
    assert filled(f"It is {{a {request_}}}.", {"a": run}) == f"It is {quoted}."


def test_what_a_run_does_not_have_is_not_quoted(run: Published) -> None:
    with pytest.raises(ValueError, match="name has no row of ema rmse stream=none"):
        run.quote("mean", "ema", "rmse", "stream=none")


def test_a_run_is_quoted_with_its_command_links_and_text(run: Published) -> None:
    (run.folder / "figures").mkdir()
    (run.folder / "figures" / "estimates.png").touch()
    assert filled("{a}", {"a": run}) == (
        "`python -m experiments seeds=2` ([table](tables/name.csv); [estimates](figures/name_estimates.png))"
        "\n\n```\nA table.\n\nNumbers:\n\n| 1 |\n\nGoals:\n\n| what |\n\n"
        "End.\n- Two of them go on\n  in the next line. Of 2.5 others\n  nothing.\nThree\n```"
    )
    assert [name for name, _ in run.files()] == [
        "tables/name.csv",
        "tables/name.md",
        "figures/name_estimates.png",
    ]


def test_a_table_stands_between_the_marks_and_nowhere_else() -> None:
    assert with_table(README, "new\n") == README.replace("old\n", "```\nnew\n```\n")
    assert with_table(with_table(README, "a \\1 b\n"), "new\n") == with_table(README, "new\n")
    assert with_table("no marks", "new\n") == "no marks"


# --- what is published --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", reproduce.PUBLISHED)
def test_every_published_run_can_be_built(name: str) -> None:
    assert Job.of(reproduce.PUBLISHED[name]).points


def test_the_findings_quote_published_runs_alone() -> None:
    template = (reproduce.PACKAGE / "findings.md").read_text(encoding="utf-8")
    quoted = {found.split()[0] for found in re.findall(r"\{([^{}]+)\}", template)}
    assert quoted <= set(reproduce.PUBLISHED)
    assert set(reproduce.TIMINGS) <= set(reproduce.PUBLISHED)
