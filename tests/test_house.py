"""What a newcomer meets: the README's commands and examples, the packaging, the import's cost."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("example", blocks("python"))
def test_the_readmes_examples_run(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    for adapter, needs in {"torch": ("torch",), "jax": ("jax", "optax", "flax")}.items():
        for package in needs if f"from estimators.{adapter} import" in example else ():
            pytest.importorskip(package)
    exec(compile(example, "README.md", "exec"), {})
    assert "nan" not in capsys.readouterr().out


def test_the_readmes_example_says_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[1], "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "MovingAverage(window=199)" in out
    assert "EMA(beta=0.99004" in out


def test_the_readmes_table_is_the_one_that_a_run_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from experiments.__main__ import main

    assert main([f"output={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    table = re.search(r"<!-- table -->\n```\n(.*?)```", README, flags=re.DOTALL)
    assert table is not None
    assert table.group(1).strip() in printed


def test_the_readmes_own_log_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.__main__ import main

    rows = "\n".join(f"{t},{2 + t % 7 / 10},{1 + t % 5},{3 + t % 3}" for t in range(400))
    (tmp_path / "log.csv").write_text(f"step,loss,norm_a,norm_b\n{rows}\n")
    monkeypatch.chdir(tmp_path)
    run = "python -m experiments"
    own = f"{run} stream=recorded", f"{run} experiment=recommend stream=recorded"
    commands = [line for line in README.splitlines() if line.startswith(own)]
    assert len(commands) == 4
    for command in commands:
        assert main(command.split()[3:]) == 0, command


def test_every_link_of_the_pages_exists() -> None:
    for page in (ROOT / "README.md", ROOT / "results" / "README.md"):
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8"))
        missing = [link for link in links if not (page.parent / link).exists()]
        assert not missing


def test_findings_quote_the_published_tables() -> None:
    from experiments.reproduce import PUBLISHED, Published, filled

    # The runs' folders are not committed: quoting must give what stands in the page from the tables alone.
    class Committed(Published):
        def quote(self, how: str, *what: str) -> str:
            from unittest.mock import patch

            import pandas as pd

            table = pd.read_csv(ROOT / "results" / "tables" / f"{self.name}.csv")
            with patch("experiments.reproduce.pd.read_csv", return_value=table):
                return super().quote(how, *what)

        def text(self) -> str:
            return (ROOT / "results" / "tables" / f"{self.name}.md").read_text(encoding="utf-8")

        def block(self) -> str:
            return self.text()

    template = (ROOT / "experiments" / "findings.md").read_text(encoding="utf-8")
    page = (ROOT / "results" / "README.md").read_text(encoding="utf-8")
    runs = {name: Committed(name, overrides, ROOT) for name, overrides in PUBLISHED.items()}
    for paragraph in filled(template, runs).split("\n\n"):
        assert paragraph.strip() in page


def test_import_is_light() -> None:
    heavy = ["numba", "pandas", "scipy", "matplotlib", "hydra", "filterpy", "torch", "jax"]
    code = f"import sys, estimators; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_library_knows_nothing_of_the_experiments() -> None:
    for path in (ROOT / "estimators").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) experiments", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_only_the_configuration_knows_hydra() -> None:
    knows = {
        path.name
        for path in (ROOT / "experiments").glob("*.py")
        if re.search(r"^(from|import) (hydra|omegaconf)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert knows == {"config.py", "composer.py", "axes.py"}


def test_the_lock_names_no_host_and_pins_exactly() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert lines
    assert all(re.fullmatch(r"[\w.\-]+==[\w.!]+", line) for line in lines)


@pytest.mark.slow
def test_the_wheel_works_from_any_folder(tmp_path: Path) -> None:
    """Not editable, in an environment that borrows this one's packages but not the repository."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(site)
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r});"
        "import experiments.__main__ as m, estimators;"
        f"assert m.__file__.startswith({str(site)!r}) and estimators.__file__.startswith({str(site)!r});"
        "sys.exit(m.main(sys.argv[1:]))"
    )
    for overrides in (["seeds=2", "stream.steps=500"], ["stream=recorded"], ["--help"]):
        run = subprocess.run(
            [sys.executable, "-I", "-c", code, *overrides],
            cwd=work,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
    assert len(list((work / "results" / "runs").iterdir())) == 2
