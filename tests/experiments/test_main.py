"""The command line as a whole: help, configuration, what a run prints and leaves, how it ends."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiments import compare, config, registry
from experiments.__main__ import main
from experiments.job import completed

ROOT = Path(__file__).parent.parent.parent
SMALL = ["seeds=2", "stream.steps=200"]
COLUMNS = "experiment,estimator,parameters,stream,seed,metric,value,unit,status"
Kalmean = Callable[..., Any]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one small run with its figures."""
    done = completed([*SMALL, f"output={tmp_path_factory.mktemp('out')}"])
    assert done.fresh
    assert not done.failures
    return done.path


# --- help and configuration ---------------------------------------------------------------------------------


def test_help_names_groups_choices_settings_and_six_commands(kalmean: Kalmean) -> None:
    ran = kalmean("--help")
    assert (ran.code, ran.err) == (0, "")
    assert not ran.output.exists()
    lines = [line.strip() for line in ran.out.splitlines()]
    for group in config.GROUPS:
        assert group in lines
        for choice in config.options(group):
            assert any(line.split()[:1] == [choice] for line in lines), choice
    for key in ("seeds", "root_seed", "burn_in", "match", "tune", "output"):
        assert any(line.startswith(f"{key}: ") and "#" in line for line in lines), key
    _, _, examples = ran.out.partition("six useful commands")
    assert len([line for line in examples.splitlines() if line.startswith("  kalmean")]) == 6
    assert kalmean("-h").out == ran.out


def test_the_six_commands_of_the_help_run(kalmean: Kalmean, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n" + "\n".join(f"{t},{2 + t % 7 / 10}" for t in range(99)))
    examples = kalmean("--help").out.partition("six useful commands")[2]
    commands = [line.split()[1:] for line in examples.splitlines() if line.startswith("  kalmean")]
    smaller = ["seeds=2", "stream.steps=50"]
    for overrides in commands:
        given = [override.strip("'") for override in overrides]
        ran = kalmean(*given, *([] if "stream.path=log.csv" in given else smaller), "--cfg")
        assert (ran.code, ran.err) == (0, ""), given
    assert [] in commands
    assert ["experiment=response"] in commands


def test_cfg_prints_the_resolved_configuration_and_writes_nothing(kalmean: Kalmean) -> None:
    ran = kalmean(*SMALL, "+estimators.slow={kind: ema, beta: 0.999}", "--cfg")
    assert (ran.code, ran.err) == (0, "")
    assert not ran.output.exists()
    printed = yaml.safe_load(ran.out)
    assert printed["stream"]["steps"] == 200
    assert printed["burn_in"] == 50
    assert printed["estimators"]["slow"] == {"kind": "ema", "beta": 0.999}
    assert printed["estimators"]["kalman"]["r"] == 1.7956
    assert "$" not in ran.out
    assert set(printed) == {
        "experiment", "stream", "estimators", "executor",
        "seeds", "root_seed", "burn_in", "match", "tune", "output",
    }  # fmt: skip


def test_cfg_refuses_what_a_run_would_refuse(refused: Callable[..., str]) -> None:
    assert refused("--cfg", "seeds=0") == "seeds=0 is not valid; it must be an int >= 1"


@pytest.mark.slow
def test_the_printed_configuration_describes_the_same_run(one_run: Path) -> None:
    kept = yaml.safe_load((one_run / "config.yaml").read_text())
    overrides = [
        f"stream.{key}={'inf' if value == float('inf') else 'null' if value is None else value}"
        for key, value in kept["stream"].items()
        if key != "kind"
    ]
    composed, _ = config.composed(
        [*overrides, "seeds=2", f"burn_in={kept['burn_in']}", f"output={kept['output']}"]
    )
    assert yaml.safe_load(config.text(composed)) == kept


# --- what a run leaves --------------------------------------------------------------------------------------


def test_a_run_leaves_what_the_contract_says(one_run: Path) -> None:
    assert one_run.name.startswith("compare-")
    assert one_run.parent.name == "runs"
    assert sorted(str(path.relative_to(one_run)) for path in one_run.rglob("*") if path.is_file()) == [
        "config.yaml",
        "figures/estimates.png",
        "figures/settling.png",
        "manifest.json",
        "report.html",
        "series/later.csv",
        "series/start.csv",
        "summary.csv",
        "summary.md",
        "summary.tex",
        "table.csv",
    ]
    assert [path.name for path in one_run.parent.iterdir()] == [one_run.name]


def test_the_table_has_the_contracts_columns_and_rows(one_run: Path) -> None:
    text = (one_run / "table.csv").read_text(encoding="utf-8")
    assert text.partition("\n")[0] == COLUMNS
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["experiment"] for row in rows} == {"compare"}
    assert {row["stream"] for row in rows} == {"gradient_ratio"}
    assert {row["seed"] for row in rows} == {"0", "1"}
    assert list(dict.fromkeys(row["estimator"] for row in rows)) == [
        "ema",
        "debiased_ema",
        "kalman",
        "moving_average",
    ]
    order = [(row["estimator"], row["metric"]) for row in rows]
    assert order[::2] == order[1::2] == list(dict.fromkeys(order)), "metric by metric, seed by seed"
    keys = {(row["estimator"], row["metric"], row["seed"]) for row in rows}
    assert len(keys) == len(rows) == 4 * 13 * 2 + 2 * 2  # and Kalman's two coverages
    for row in rows:
        assert (row["status"] == "ok") == (row["value"] != "")
        assert not row["value"] or np.isfinite(float(row["value"]))


def test_the_table_round_trips(one_run: Path) -> None:
    text = (one_run / "table.csv").read_text()
    read = pd.read_csv(io.StringIO(text))
    again = read.to_csv(index=False, float_format="%.17g", lineterminator="\n")
    for one, other in zip(csv.DictReader(io.StringIO(text)), csv.DictReader(io.StringIO(again)), strict=True):
        assert one.keys() == other.keys()
        assert {k: v for k, v in one.items() if k != "value"} == {
            k: v for k, v in other.items() if k != "value"
        }
        if one["value"]:
            assert float(one["value"]) == pytest.approx(float(other["value"]), rel=1e-15)


def test_the_summary_is_that_of_the_table(one_run: Path) -> None:
    from experiments.summaries import summarise

    kept = pd.read_csv(one_run / "summary.csv")
    pd.testing.assert_frame_equal(kept, summarise(pd.read_csv(one_run / "table.csv")), rtol=1e-12)


def test_the_manifest_says_what_was_run_with_what(one_run: Path) -> None:
    manifest = json.loads((one_run / "manifest.json").read_text())
    assert manifest["command"][:3] == ["kalmean", *SMALL]
    assert one_run.name == f"compare-{manifest['identity']}"
    assert manifest["packages"]["numpy"] == np.__version__
    assert manifest["rows"] == len((one_run / "table.csv").read_text().splitlines()) - 1
    assert manifest["rows_without_value"] == (pd.read_csv(one_run / "table.csv")["status"] != "ok").sum()
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((one_run / name).read_bytes()).hexdigest() == digest


def test_what_is_printed_is_what_is_kept_and_where(kalmean: Kalmean) -> None:
    ran = kalmean(*SMALL)
    text = (ran.folder / "summary.md").read_text(encoding="utf-8")
    assert ran.out == f"{text}\nwritten: {ran.folder}\n"
    assert ran.err.startswith("cells: 0 done, 0 failed, ")


def test_another_folder_gets_the_same_bytes(kalmean: Kalmean) -> None:
    one, other = (kalmean(*SMALL, output=name) for name in ("one", "deep/other"))
    assert one.folder.name == other.folder.name
    for name in ("table.csv", "summary.csv", "summary.md"):
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()


def test_seeds_only_add_rows(kalmean: Kalmean) -> None:
    """Common random numbers: more repetitions, another estimator or other settings move no other number."""
    key = ["estimator", "metric", "seed"]

    def cells(*overrides: str, output: str) -> Any:
        ran = kalmean("stream.steps=200", *overrides, output=output)
        return pd.read_csv(ran.folder / "table.csv", dtype={"value": str}).set_index(key)["value"]

    two = cells("seeds=2", output="two")
    for output, overrides in (
        ("five", ["seeds=5"]),
        ("alone", ["seeds=2", "estimators=[kalman]"]),
        ("reset", ["seeds=2", "estimators.ema.beta=0.5"]),
    ):
        other = cells(*overrides, output=output)
        common = two.index.intersection(other.index)
        if output == "reset":
            common = common[common.get_level_values("estimator") != "ema"]
        assert len(common) >= 2 * 15
        pd.testing.assert_series_equal(two.loc[common], other.loc[common])


def test_the_root_seed_changes_the_numbers(kalmean: Kalmean) -> None:
    one, other = (
        kalmean(*SMALL, f"root_seed={seed}", output=str(seed)).values("rmse", "ema") for seed in (0, 1)
    )
    assert not np.any(one == other)


def test_a_row_of_ones_own(kalmean: Kalmean) -> None:
    ran = kalmean("estimators=[ema]", "+estimators.slow={kind: ema, beta: 0.999}", *SMALL)
    assert list(ran.summary["estimator"].unique()) == ["ema", "slow"]
    assert "| slow " in ran.out
    assert set(ran.table.loc[ran.table["estimator"] == "slow", "parameters"]) == {"ema beta=0.999"}


@pytest.mark.slow
@pytest.mark.parametrize("stream", sorted(config.options("stream")))
def test_every_stream_runs(kalmean: Kalmean, stream: str) -> None:
    ran = kalmean(f"stream={stream}", "seeds=2", "stream.steps=80", "estimators=[ema,kalman]")
    assert ran.code == 0, ran.err
    assert set(ran.table["stream"]) == {stream}
    assert len(ran.table) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["stream.steps=1"],
        ["stream.steps=2"],
        ["stream.steps=7", "burn_in=6"],
        ["burn_in=0"],
        ["stream.r=0"],
        ["stream.s=0"],
        ["stream.domain=ratio"],
        ["stream.domain=weight"],
        ["stream.gap_rate=0.3"],
        ["stream.gap_rate=0.999", "stream.gap_length=100"],
        ["stream.correlation=0.5", "stream.degrees_of_freedom=3"],
        ["stream.outlier_rate=0.1", "stream.jump_rate=0.1"],
        ["estimators.kalman.q=0"],
        ["estimators.ema.beta=0"],
        ["estimators.moving_average.window=1"],
        ["match=delay"],
        ["match=mse"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_unusual_settings_run_without_a_warning(kalmean: Kalmean, overrides: list[str]) -> None:
    ran = kalmean("seeds=2", "stream.steps=60", *overrides)
    assert ran.code == 0
    assert re.fullmatch(r"cells: 0 done, 0 failed, 8 to run\nran: 8 cells in 0:0\d, .* cells/s\n", ran.err)


# --- where it runs and how it ends --------------------------------------------------------------------------


def test_from_another_folder_with_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("x\n" + "\n".join(str(1 + t % 7) for t in range(80)) + "\n")
    command = [
        sys.executable,
        "-m",
        "experiments",
        "stream=recorded",
        "stream.path=log.csv",
        "stream.column=x",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.csv", "results"]


def test_a_refusal_ends_the_process_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments", "sedes=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_whoever_reads_may_stop_reading(unbuffered: str) -> None:
    code = (
        "import sys, os; from experiments.__main__ import main\n"
        "os.close(int(sys.argv.pop(1)))\n"  # the reading end, before anything is printed
        "sys.exit(main(sys.argv[1:]))"
    )
    reading, writing = os.pipe()
    command = [sys.executable, "-c", code, str(reading), "--help"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        pass_fds=[reading],
    )
    os.close(reading)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


def test_ctrl_c_ends_with_130_and_one_line(kalmean: Kalmean, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "report", interrupt)
    ran = kalmean(*SMALL)
    assert (ran.code, ran.out) == (130, "")
    assert ran.err.splitlines()[-1] == "kalmean: interrupted; finished cells are kept"
    assert not (ran.output / "runs").exists()


def test_a_fault_of_the_program_is_not_hidden_as_a_setting(
    kalmean: Kalmean, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(compare, "report", broken)
    with pytest.raises(ZeroDivisionError):
        kalmean(*SMALL)


@pytest.mark.parametrize("below", ["", "/below"])
def test_output_that_is_a_file_is_one_line(kalmean: Kalmean, tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("mine")
    ran = kalmean(*SMALL, f"output={tmp_path}/file{below}")
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err
        == f"kalmean: output='{tmp_path}/file{below}' cannot be written (Not a directory); name a folder\n"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_arguments_default_to_those_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["kalmean", "seeds=0"])
    assert main() == 2
    assert "seeds=0" in capsys.readouterr().err


def test_the_witness_ties_with_kalman(kalmean: Kalmean) -> None:
    if "filterpy_kalman" not in registry.estimator_kinds():
        pytest.skip("the library has no class that is called filterpy_kalman")
    pytest.importorskip("filterpy")
    ran = kalmean(
        "estimators=[kalman,filterpy_kalman]", "seeds=2", "stream.steps=300", "stream.gap_rate=0.05"
    )
    assert ran.code == 0, ran.err
    wide = ran.table.set_index(["metric", "seed", "estimator"])["value"].unstack("estimator")
    assert len(wide) == 15 * 2
    np.testing.assert_allclose(wide["filterpy_kalman"], wide["kalman"], rtol=1e-9, atol=1e-9)
    assert ran.out.count("tie: filterpy_kalman") >= 5


def test_the_version(kalmean: Kalmean) -> None:
    ran = kalmean("--version")
    assert (ran.code, ran.err) == (0, "")
    assert re.fullmatch(r"kalmean \d+\.\d+\S*\n", ran.out)


@pytest.mark.parametrize("columns", [40, 60, 79, 80, 120, 200])
def test_help_fits_the_terminal(kalmean: Kalmean, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    groups = (
        kalmean("--help")
        .out.partition("groups, chosen")[2]
        .partition("settings and their")[0]
        .splitlines()[1:]
    )
    assert max(map(len, groups)) < min(max(columns, 41), 111)
    texts = [line for line in groups if line.startswith("        ")]
    assert len({len(line) - len(line.lstrip()) for line in texts}) == 1  # one column, whatever the names
