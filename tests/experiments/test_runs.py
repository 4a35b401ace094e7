"""The folder of a run: named by what determines its numbers, and whole or absent whatever happens."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import files, runs
from experiments.job import Job
from experiments.runs import Outcome, RunFolder
from experiments.summaries import COLUMNS

CONFIG: dict[str, Any] = {
    "experiment": {"name": "compare"},
    "stream": {"kind": "gradient_ratio", "steps": 100, "r": 1.7956},
    "estimators": {"ema": {"beta": 0.99}, "kalman": {"q": 1.0, "r": float("inf")}},
    "seeds": 3,
    "match": "none",
}
FILES = {
    *("config.yaml", "figures/one.png", "manifest.json", "report.html", "summary.csv", "summary.md"),
    "table.csv",
}


class Figure:
    """Stands for matplotlib's: what it saves, or what happens while it does."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.during = during

    def savefig(self, path: Path, metadata: Any) -> None:
        self.during()
        path.write_bytes(b"drawn")


def outcome(during: Callable[[], None] = lambda: None) -> Outcome:
    values = ["compare", "ema", "beta=0.99", "gradient_ratio", 0, "rmse", 1.0 / 3.0, "log ratio", "ok"]
    table = pd.DataFrame([values], columns=COLUMNS)
    return Outcome(table, table[["metric", "value"]], "the summary ± 1\n", {"one": Figure(during)})


def folder(output: Path, changed: dict[str, Any] | None = None, data: str = "") -> RunFolder:
    return RunFolder(output, "compare", [CONFIG | (changed or {}), data])


def write(run: RunFolder, during: Callable[[], None] = lambda: None) -> RunFolder:
    run.prepare()
    run.write(outcome(during), ["kalmean"], "seeds: 3\n")
    return run


def held(path: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder with its bytes and the time of its last change."""
    files = (file for file in sorted(path.rglob("*")) if file.is_file())
    return {str(file.relative_to(path)): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


# --- identity -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        {"seeds": 4},
        {"match": "delay"},
        {"experiment": {"name": "compare", "betas": [0.5]}},
        {"stream": CONFIG["stream"] | {"steps": 101}},
        {"stream": CONFIG["stream"] | {"r": 1.7957}},
        {"estimators": {"ema": {"beta": 0.99}}},
        {"estimators": {"ema": {"beta": 0.98}, "kalman": {"q": 1.0, "r": float("inf")}}},
        {"stream_name": "wild"},
    ],
    ids=str,
)
def test_identity_follows_what_determines_the_numbers(tmp_path: Path, changed: dict[str, Any]) -> None:
    assert folder(tmp_path, changed).identity != folder(tmp_path).identity


def test_identity_follows_neither_output_nor_executor(tmp_path: Path) -> None:
    one, other = (
        Job.of(overrides).folder
        for overrides in ([], [f"output={tmp_path}", "executor=slurm", "executor.workers=3"])
    )
    assert one.identity == other.identity
    assert one.path != other.path


def test_identity_follows_code_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = folder(tmp_path).identity
    assert folder(tmp_path, data="other").identity != plain
    monkeypatch.setattr(runs, "code_fingerprint", lambda: "other")
    assert folder(tmp_path).identity != plain


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "seeds=99",
        "root_seed=1",
        "burn_in=7",
        "match=delay",
        "tune=rmse",
        "stream.r=1.7957",
        "stream=gradient_ratio_b64",
        "estimators=[debiased_ema,ema,kalman,moving_average]",  # the first is what others are compared to
        "estimators.ema.beta=0.9900000000000001",
        "experiment=idle",
    ],
)
def test_a_jobs_identity_follows_every_setting_that_counts(override: str) -> None:
    assert Job.of([override]).folder.identity != Job.of([]).folder.identity


def test_path_is_experiment_and_identity(tmp_path: Path) -> None:
    run = folder(tmp_path)
    assert run.path == tmp_path / "runs" / f"compare-{run.identity}"
    assert len(run.identity) == 12


def test_code_fingerprint_sees_both_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = runs.code_fingerprint()
    assert runs.code_fingerprint() == plain
    import estimators
    import experiments

    for package in (estimators, experiments):
        copy = tmp_path / package.__name__
        shutil.copytree(
            Path(str(package.__file__)).parent, copy, ignore=shutil.ignore_patterns("__pycache__")
        )
        with monkeypatch.context() as patched:
            patched.setattr(package, "__file__", str(copy / "__init__.py"))
            assert runs.code_fingerprint() == plain, "where the code lies does not matter"
            with (copy / "__init__.py").open("a") as file:
                file.write("# changed\n")
            assert runs.code_fingerprint() != plain


# --- what is written ----------------------------------------------------------------------------------------


def test_a_run_holds_the_contracts_files(tmp_path: Path) -> None:
    run = write(folder(tmp_path))
    assert run.finished()
    assert set(held(run.path)) == FILES
    assert (run.path / "summary.md").read_text(encoding="utf-8") == "the summary ± 1\n"
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    assert manifest["complete"] is True
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((run.path / name).read_bytes()).hexdigest() == digest
    assert (manifest["rows"], manifest["rows_without_value"]) == (1, 0)
    assert manifest["identity"] == run.identity
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == [run.path.name]


def test_numbers_are_written_to_the_last_bit(tmp_path: Path) -> None:
    run = write(folder(tmp_path))
    with (run.path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["value"]) == 1.0 / 3.0


def test_looking_changes_nothing(tmp_path: Path) -> None:
    run = folder(tmp_path / "new")
    assert not run.finished()
    run.prepare()
    assert not (tmp_path / "new").exists()
    write(run)
    before = held(tmp_path)
    assert run.finished()
    run.prepare()
    assert held(tmp_path) == before


# A manifest with a line end more or less still says the same.
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (name, damage)
        for name in sorted(FILES)
        for damage in ("delete", "garbage", "truncate", "append")
        if name != "manifest.json" or damage in ("delete", "garbage")
    ],
)
def test_a_damaged_file_is_noticed_and_redone(tmp_path: Path, name: str, damage: str) -> None:
    run = write(folder(tmp_path))
    whole = {file: content for file, (content, _) in held(run.path).items()}
    path = run.path / name
    if damage == "delete":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_bytes(whole[name][:-1] if damage == "truncate" else whole[name] + b"\n")
    assert not run.finished()
    write(run)
    assert run.finished()
    assert {file: content for file, (content, _) in held(run.path).items()} == whole


@settings(deadline=None)
@given(st.sampled_from(["", "{", "[]", "null", "5", '"x"', "{}", '{"files": []}', '{"files": {"a": 1}}']))
def test_a_manifest_of_anything_else_is_no_finished_run(tmp_path_factory: Any, text: str) -> None:
    run = folder(tmp_path_factory.mktemp("run"))
    run.path.mkdir(parents=True)
    (run.path / "manifest.json").write_text(text, encoding="utf-8")
    assert not run.finished()


# --- what goes wrong ----------------------------------------------------------------------------------------


def test_a_crash_leaves_nothing_half_done(tmp_path: Path) -> None:
    def crash() -> None:
        raise RuntimeError("the pen broke")

    run = folder(tmp_path)
    with pytest.raises(RuntimeError, match="the pen broke"):
        write(run, crash)
    assert not list((tmp_path / "runs").iterdir())
    assert not run.finished()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(ValueError, match="cannot be written") as caught:
        write(folder(tmp_path), fail)
    assert (
        str(caught.value)
        == f"output={str(tmp_path)!r} cannot be written ({os.strerror(number)}); name a folder"
    )
    assert not list((tmp_path / "runs").iterdir())


def test_a_crash_keeps_what_was_there(tmp_path: Path) -> None:
    run = write(folder(tmp_path))
    (run.path / "table.csv").write_text("damaged")

    def crash() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(run, crash)
    assert (run.path / "table.csv").read_text() == "damaged"
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == [run.path.name]


def test_what_another_process_finished_meanwhile_is_left_untouched(tmp_path: Path) -> None:
    run = folder(tmp_path)
    first: dict[str, Any] = {}

    def meanwhile() -> None:
        write(folder(tmp_path))
        first.update(held(run.path))

    write(run, meanwhile)
    assert first
    assert held(run.path) == first
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == [run.path.name]


def test_output_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            ValueError, match=r"^output=.*cannot be written \(Not a directory\); name a folder$"
        ):
            folder(output).prepare()
    assert (tmp_path / "file").read_text() == "mine"


def test_output_whose_name_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^output=.*cannot be written \(File name too long\)"):
        folder(tmp_path / ("x" * 300)).prepare()


def test_output_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):  # root writes everywhere

        def deny(*_: object, **__: object) -> str:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(runs.tempfile, "mkdtemp", deny)
    with pytest.raises(ValueError, match=r"cannot be written \(Permission denied\); name a folder"):
        folder(locked).prepare()
    locked.chmod(0o755)
    assert not list(locked.iterdir())


def test_what_kills_left_is_cleared_once_it_is_nobodys(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    old, fresh = place / ".unfinished-old", place / ".unfinished-new"
    for left in (old, fresh):
        (left / "figures").mkdir(parents=True)
    past = time.time() - files.ABANDONED - 60
    os.utime(old, (past, past))
    folder(tmp_path).prepare()
    assert not old.exists()
    assert fresh.exists()


def test_an_unfinished_folder_that_vanishes_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    gone = tmp_path / "runs" / ".unfinished-gone"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [gone])
    folder(tmp_path).prepare()


# --- whole runs ---------------------------------------------------------------------------------------------

SMALL = ["seeds=2", "stream.steps=60", "estimators=[ema,kalman]"]


def test_the_same_command_again_changes_nothing(kalmean: Any) -> None:
    first = kalmean(*SMALL)
    before = held(first.output)
    again = kalmean(*SMALL)
    assert held(first.output) == before
    assert "unchanged" in again.out
    assert "unchanged" not in first.out
    assert first.out.rpartition("written:")[0] == again.out.rpartition("unchanged")[0]


@pytest.mark.slow
def test_order_and_name_are_part_of_a_run(kalmean: Any) -> None:
    settings = ["seeds=2", "stream.steps=60", "match=delay"]
    one = kalmean("estimators=[ema,moving_average]", *settings)
    two = kalmean("estimators=[moving_average,ema]", *settings)
    assert "matched to ema" in one.out
    assert "matched to moving_average" in two.out
    assert "unchanged" not in two.out
    kalmean("stream=gradient_ratio_b64", *SMALL, output="named")
    renamed = kalmean("stream.r=0.7225", "stream.s=4.0e-3", *SMALL, output="named")
    assert "unchanged" not in renamed.out
    assert "compare on gradient_ratio:" in renamed.out


def test_recorded_data_are_part_of_a_run(kalmean: Any, tmp_path: Path) -> None:
    path, copy = tmp_path / "log.csv", tmp_path / "copy.csv"
    path.write_text("x\n1\n2\n3\n4\n2\n3\n")
    copy.write_bytes(path.read_bytes())
    settings = ["stream=recorded", "stream.column=x", "estimators=[ema]"]
    assert "written" in kalmean(*settings, f"stream.path={path}").out
    assert "unchanged" in kalmean(*settings, f"stream.path={copy}").out
    path.write_text("x\n1\n2\n3\n4\n2\n5\n")
    assert "written" in kalmean(*settings, f"stream.path={path}").out


def test_a_crash_while_drawing_is_redone_by_the_next_run(
    kalmean: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(
            RunFolder,
            "_draw",
            lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")),
        )
        failed = kalmean(*SMALL)
    assert (failed.code, failed.out) == (2, "")
    problem = f"output={str(failed.output)!r} cannot be written (No space left on device); name a folder"
    assert failed.err.splitlines()[-1] == f"kalmean: {problem}"
    assert not list((failed.output / "runs").iterdir())
    assert "written" in kalmean(*SMALL).out


def test_a_kill_leaves_no_finished_run_and_the_next_completes(tmp_path: Path, kalmean: Any) -> None:
    output, flag = tmp_path / "out", tmp_path / "drawing"
    stuck = (
        "import sys, time, pathlib; from experiments import runs; from experiments.__main__ import main\n"
        f"def draw(self, *_): pathlib.Path({str(flag)!r}).touch(); time.sleep(60)\n"
        "runs.RunFolder._draw = draw\n"
        "main(sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", stuck, *SMALL, f"output={output}"], cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not flag.exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert all(entry.name.startswith(".unfinished-") for entry in (output / "runs").iterdir())
    assert "written" in kalmean(*SMALL, output=output).out
    (run,) = (output / "runs").glob("compare-*")
    assert set(held(run)) >= {"table.csv", "summary.csv", "summary.md", "manifest.json", "config.yaml"}


def test_two_processes_at_once_leave_one_run(tmp_path: Path) -> None:
    output = tmp_path / "out"
    plain = (
        "import sys; from experiments import compare; from experiments.__main__ import main\n"
        "compare._figures = lambda *_: {}\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", plain, *SMALL, f"output={output}"]
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, cwd=ROOT, **piped) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert all("Traceback" not in err for _, err in said)
    assert said[0][0].partition("\nwritten")[0] == said[1][0].partition("\nwritten")[0]
    (run,) = (output / "runs").iterdir()
    manifest = json.loads((run / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((run / name).read_bytes()).hexdigest() == digest


ROOT = Path(__file__).parent.parent.parent
