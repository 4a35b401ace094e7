"""What a shell completes: from the program itself, with the choices already made on the line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from estimators import Kalman
from experiments import completion, config, registry
from experiments.__main__ import main

FLAGS = ["--help", "--cfg"]
ROOT = Path(__file__).parent.parent.parent


def completed(line: str) -> list[str]:
    return completion.candidates(line, FLAGS)


@pytest.mark.parametrize("group", [group for group in config.GROUPS if group != "estimators"])
def test_a_group_completes_to_all_its_choices(group: str) -> None:
    assert completed(f"kalmean {group}=") == [f"{group}={name}" for name in config.options(group)]


def test_the_first_word_completes_to_groups_and_settings() -> None:
    found = completed("kalmean ")
    assert {"experiment=", "stream=", "estimators=[", "stream.", "seeds=", "match=", "output="} <= set(found)
    assert not any(one.startswith(("-", "defaults")) for one in found)
    assert completed("kalmean experiment=compare see") == ["seeds="]
    assert completed("kalmean --h") == ["--help"]


def test_of_estimators_each_is_offered_once() -> None:
    assert completed("kalmean estimators=") == ["estimators=["]
    assert completed("kalmean estimators=[ema,ka") == [
        "estimators=[ema,kalman",
        "estimators=[ema,kalman_bank",
    ]
    assert "estimators=[kalman,kalman" not in completed("kalmean estimators=[kalman,")
    assert completed("kalmean 'estimators=[ema") == ["estimators=[ema_with_variance"]  # in open quotes


def test_keys_are_those_of_what_is_chosen() -> None:
    assert "stream.median=" in completed("kalmean stream.")
    assert "stream.path=" not in completed("kalmean stream.")
    assert "stream.path=" in completed("kalmean stream=recorded stream.")
    assert "stream.shift=" in completed("kalmean experiment=regimes stream.")  # which chooses its stream
    assert completed("kalmean estimators.") == [
        f"estimators.{name}." for name in ("ema", "debiased_ema", "kalman", "moving_average")
    ]
    assert completed("kalmean 'estimators=[log, ema]' estimators.") == ["estimators.log.", "estimators.ema."]
    fields = [f"estimators.kalman.{name}=" for name in vars(Kalman(1.0, 1.0))]
    assert completed("kalmean estimators.kalman.") == fields
    assert "experiment.batch_size=" in completed("kalmean experiment=balancing experiment.")
    assert "executor.partition=" in completed("kalmean executor=slurm executor.")


def test_keys_of_experiments_are_read_as_they_are_defined() -> None:
    for name in config.options("experiment"):
        kind = registry.experiment(name).Parameters
        found = completed(f"kalmean experiment={name} experiment.")
        assert found == [f"experiment.{field}=" for field in kind.__dataclass_fields__], name


def test_values_of_which_there_are_few() -> None:
    assert completed("kalmean match=no") == ["match=none", "match=noise_gain"]
    assert completed("kalmean stream=recorded stream.domain=r") == ["stream.domain=ratio"]
    assert completed("kalmean -m stream=step,rec")[0] == "stream=step,recorded"


@pytest.mark.parametrize(
    "word",
    ["stream.path=", "seeds=1", "nothing=", "nothing.", "stream=nothing stream.", "estimators.no.", "a.b.c="],
)
def test_where_anything_may_stand_nothing_is_offered(word: str) -> None:
    assert completed(f"kalmean {word}") == []


def test_it_answers_without_what_takes_long_to_import() -> None:
    code = (
        "import sys; from experiments.__main__ import main\n"
        "for word in ['st', 'estimators.ema.', 'stream=recorded stream.', 'experiment=cost experiment.']:\n"
        "    main(['--complete', f'kalmean {word}'])\n"
        "heavy = {'pandas', 'numba', 'scipy', 'matplotlib', 'hydra', 'torch', 'jax', 'filterpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "estimators.ema.beta=" in done.stdout


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_one_that_its_shell_can_read(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--shell-completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == completion.script(shell)
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--shell-completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err


# --- the shells themselves ----------------------------------------------------------------------------------


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where ``kalmean`` is a command."""
    command = tmp_path / "bin" / "kalmean"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m experiments "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def in_bash(line: str, environment: dict[str, str], breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
    """What bash is told of a line whose words it parts as readline does."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    code = (
        'source <(kalmean --shell-completion bash); COMP_WORDBREAKS=$2; COMP_LINE="$1"; COMP_POINT=${#1}\n'
        'COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _kalmean; printf "%s\\n" "${COMPREPLY[@]}"\n'
        "complete -p kalmean"
    )
    done = subprocess.run(
        [bash, "--norc", "-c", code, "bash", line, breaks],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    *found, how = done.stdout.splitlines()
    assert how == "complete -o default -F _kalmean kalmean"
    return [one for one in found if one]


def test_bash_completes_keys_and_what_stands_behind_an_equals_sign(environment: dict[str, str]) -> None:
    assert in_bash("kalmean exec", environment) == ["executor=", "executor."]
    assert in_bash("kalmean experiment=recom", environment) == ["recommend"]
    assert in_bash("kalmean estimators=[ema,mo", environment) == ["[ema,moving_average"]
    assert in_bash("kalmean stream=recorded stream.pa", environment) == ["stream.path="]


def test_bash_parts_nothing_within_quotes_or_without_that_break(environment: dict[str, str]) -> None:
    assert in_bash("kalmean 'estimators=[ema,mo", environment) == ["estimators=[ema,moving_average"]
    assert in_bash("kalmean experiment=recom", environment, breaks=" \t\n") == ["experiment=recommend"]


def test_bash_is_left_to_complete_files(environment: dict[str, str]) -> None:
    assert in_bash("kalmean stream=recorded stream.path=", environment) == []


def test_fish_completes(environment: dict[str, str], tmp_path: Path) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    (tmp_path / "log.csv").write_text("loss\n1\n")
    code = (
        "kalmean --shell-completion fish | source; complete -C 'kalmean experiment=recom'; "
        "complete -C 'kalmean stream=recorded stream.path=lo'"
    )
    done = subprocess.run(
        [fish, "--no-config", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "HOME": str(tmp_path)},
        cwd=tmp_path,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        "experiment=recommend",
        "stream.path=log.csv",
    ]
