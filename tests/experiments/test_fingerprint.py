"""Fingerprints of code: they follow what a thing rests on, wherever it lies, and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from estimators import EMA, Kalman, MovingAverage
from experiments import fingerprint as fingerprints
from experiments.cells import every_metric
from experiments.fingerprint import fingerprint
from experiments.recorded import Recorded
from experiments.streams import GradientRatio

ROOT = Path(__file__).parent.parent.parent
THING = "\n\nclass Thing:\n    pass\n"


def forget() -> None:
    """Start anew with modules that may lie elsewhere or say something else."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "throwaway"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    fingerprints.imports.cache_clear()
    fingerprints.source.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Write a package of these files, and give the class Thing of one of its modules."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(files: dict[str, str], where: str = "one", main: str = "throwaway.main") -> Any:
        forget()
        folder = tmp_path / where / "throwaway"
        for name, text in ({"__init__.py": ""} | files).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        monkeypatch.syspath_prepend(str(folder.parent))
        return importlib.import_module(main).Thing

    yield make
    forget()


def followed(thing: Any, folder: Path) -> set[str]:
    """The files of a package by whose change a thing's fingerprint changes."""
    before = fingerprint(thing)
    found = set()
    for path in sorted(folder.rglob("*.py")):
        text = path.read_bytes()
        path.write_bytes(text + b"# changed\n")
        if fingerprint(thing) != before:
            found.add(str(path.relative_to(folder)))
        path.write_bytes(text)
    assert fingerprint(thing) == before
    return found


# --- what is followed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import throwaway.other",
        "import throwaway.other as named",
        "import json, throwaway.other",
        "from throwaway import other",
        "from throwaway import other as named",
        "from throwaway.other import value",
        "from throwaway.other import value as named",
        "from throwaway.other import *",
        "from . import other",
        "from .other import value",
        "def function():\n    import throwaway.other",
        "def function():\n    from throwaway.other import value",
        "async def function():\n    def inner():\n        from .other import value",
        "class Body:\n    from .other import value",
        "if False:\n    from .other import value",
        "try:\n    import absent\nexcept ImportError:\n    from .other import value",
    ],
)
def test_every_way_to_import_a_module_is_followed(
    package: Callable[..., Any], tmp_path: Path, statement: str
) -> None:
    thing = package(
        {"main.py": statement + THING, "other.py": "value = 1\n", "unrelated.py": "import throwaway.main\n"}
    )
    assert followed(thing, tmp_path / "one" / "throwaway") == {"main.py", "other.py"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import json\nimport numpy as np\nfrom collections import abc",
        "'import throwaway.other'\n# import throwaway.other",
        "other = 'throwaway.other'",
    ],
)
def test_what_is_not_imported_is_not_followed(package: Callable[..., Any], tmp_path: Path, text: str) -> None:
    thing = package({"main.py": text + THING, "other.py": "value = 1\n"})
    assert followed(thing, tmp_path / "one" / "throwaway") == {"main.py"}


def test_imports_are_followed_through_other_modules(package: Callable[..., Any], tmp_path: Path) -> None:
    files = {
        "main.py": "from throwaway import first" + THING,
        "first.py": "def function():\n    from throwaway.second import value\n",
        "second.py": "from .deep.third import value\n",
        "deep/__init__.py": "from throwaway import unrelated\n",
        "deep/third.py": "from ..fourth import value\nfrom . import sibling\n",
        "deep/sibling.py": "",
        "fourth.py": "value = 1\n",
        "unrelated.py": "",
    }
    assert followed(package(files), tmp_path / "one" / "throwaway") == {
        "main.py", "first.py", "second.py", "deep/third.py", "deep/sibling.py", "fourth.py",
    }  # fmt: skip


@pytest.mark.parametrize("statement", ["from throwaway import Value", "from . import Value as Named"])
@pytest.mark.parametrize("value", ["class Value:\n    pass\n", "def Value():\n    pass\n"], ids=str.split)
def test_what_a_package_passes_on_leads_to_the_module_that_defines_it(
    package: Callable[..., Any], tmp_path: Path, statement: str, value: str
) -> None:
    files = {
        "__init__.py": "from throwaway.unrelated import Unrelated\nfrom throwaway.passing import Value\n",
        "main.py": statement + THING,
        "passing/__init__.py": "from .other import Value\n",
        "passing/other.py": value,
        "unrelated.py": "class Unrelated:\n    pass\n",
    }
    assert followed(package(files), tmp_path / "one" / "throwaway") == {"main.py", "passing/other.py"}


@pytest.mark.parametrize(
    ("package_text", "other", "needed"),
    [
        ("VALUE = 1\n", "", {"__init__.py"}),
        ("from pathlib import Path\nVALUE = Path('x')\n", "", {"__init__.py"}),
        ("from fractions import Fraction\nVALUE = Fraction(1, 3)\n", "", {"__init__.py"}),
        ("from throwaway.other import VALUE\n", "VALUE = 1\n", {"other.py"}),
        (
            "from throwaway.other import VALUE\n",
            "from throwaway.kinds import Kind\nVALUE = Kind(1)\n",
            {"other.py", "kinds.py"},
        ),
        (
            "from throwaway.other import VALUE\n",
            "import functools\nVALUE = functools.partial(print, 1)\n",
            {"other.py"},
        ),
        (
            "from throwaway.other import VALUE\n",
            "from throwaway.kinds import wrapped\nVALUE = wrapped(2)\n",
            {"other.py", "kinds.py"},
        ),
    ],
    ids=["number", "path", "fraction", "number passed on", "instance passed on", "partial", "closure"],
)
def test_a_constant_that_a_package_passes_on_is_followed_to_where_it_is_set(
    package: Callable[..., Any], tmp_path: Path, package_text: str, other: str, needed: set[str]
) -> None:
    files = {
        "__init__.py": package_text,
        "main.py": "from throwaway import VALUE" + THING,
        "other.py": other,
        "kinds.py": (
            "class Kind:\n    def __init__(self, value):\n        self.value = value\n\n\n"
            "def wrapped(value):\n    def function():\n        return value\n    return function\n"
        ),
    }
    assert followed(package(files), tmp_path / "one" / "throwaway") >= {"main.py", *needed}


def test_a_package_that_defines_a_thing_itself_is_followed(
    package: Callable[..., Any], tmp_path: Path
) -> None:
    thing = package(
        {"__init__.py": "from .other import value" + THING, "other.py": "value = 1\n", "unrelated.py": ""},
        main="throwaway",
    )
    assert followed(thing, tmp_path / "one" / "throwaway") == {"__init__.py", "other.py"}


def test_import_cycles_end(package: Callable[..., Any], tmp_path: Path) -> None:
    files = {
        "main.py": "import throwaway.main\nimport throwaway.one" + THING,
        "one.py": "import throwaway.two\n",
        "two.py": "import throwaway.one\nimport throwaway.main\n",
    }
    assert followed(package(files), tmp_path / "one" / "throwaway") == {"main.py", "one.py", "two.py"}


# --- what does not matter -----------------------------------------------------------------------------------


def test_where_the_sources_lie_does_not_matter_but_what_they_are_called_does(
    package: Callable[..., Any],
) -> None:
    files = {"main.py": "from throwaway.other import value" + THING, "other.py": "value = 1\n"}
    here = fingerprint(package(files, "here"))
    assert fingerprint(package(files, "there")) == here
    renamed = {"main.py": "from throwaway.third import value" + THING, "third.py": "value = 1\n"}
    assert fingerprint(package(renamed, "renamed")) != here


def test_text_that_moves_from_one_module_to_another_is_noticed(package: Callable[..., Any]) -> None:
    head = "import throwaway.one\nimport throwaway.two"
    made = [
        fingerprint(package({"main.py": head + THING, "one.py": one, "two.py": two}, f"{one}{two}"))
        for one, two in (("a = 1\n", ""), ("", "a = 1\n"))
    ]
    assert made[0] != made[1]


def test_neither_order_nor_repetition_of_things_matters() -> None:
    assert fingerprint(EMA, Kalman) == fingerprint(Kalman, EMA) == fingerprint(EMA, Kalman, EMA)
    assert fingerprint(EMA) != fingerprint(Kalman)


def test_a_thing_without_a_source_has_a_fingerprint() -> None:
    assert fingerprint(int) == fingerprint(float)
    typed = (
        "class Typed: pass\nfrom experiments.fingerprint import fingerprint; print(len(fingerprint(Typed)))"
    )
    ran = subprocess.run([sys.executable, "-c", typed], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "16\n"


# --- the code that is measured ------------------------------------------------------------------------------

THINGS: dict[str, tuple[Any, ...]] = {
    "EMA": (EMA,),
    "Kalman": (Kalman,),
    "MovingAverage": (MovingAverage,),
    "GradientRatio": (every_metric, GradientRatio),
    "Recorded": (every_metric, Recorded),
}
TOUCHED = """
import json, pathlib, sys
from estimators import EMA, Kalman, MovingAverage
from experiments.cells import every_metric
from experiments.fingerprint import fingerprint
from experiments.recorded import Recorded
from experiments.streams import GradientRatio
THINGS = {
    "EMA": (EMA,), "Kalman": (Kalman,), "MovingAverage": (MovingAverage,),
    "GradientRatio": (every_metric, GradientRatio), "Recorded": (every_metric, Recorded),
}
plain = {name: fingerprint(*things) for name, things in THINGS.items()}
fingerprint.__globals__["_AS_LOADED"].clear()  # what was loaded is another matter
followed = {name: [] for name in THINGS}
root = pathlib.Path(sys.argv[1])
for path in sorted(root.glob("e*/*.py")):
    text = path.read_bytes()
    path.write_bytes(text + b"# changed\\n")
    for name, things in THINGS.items():
        if fingerprint(*things) != plain[name]:
            followed[name].append(str(path.relative_to(root).with_suffix("")))
    path.write_bytes(text)
print(json.dumps({"plain": plain, "followed": followed}))
"""


@pytest.fixture(scope="module")
def touched(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Fingerprints by a copy of the packages, and the files of it by which each changes."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("estimators", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    ran = subprocess.run(
        [sys.executable, "-c", TOUCHED, str(copy)],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, dict[str, Any]] = json.loads(ran.stdout)
    return found


@pytest.mark.parametrize("name", THINGS)
def test_a_copy_in_another_process_has_the_same_fingerprints(touched: dict[str, Any], name: str) -> None:
    assert touched["plain"][name] == fingerprint(*THINGS[name])


@pytest.mark.parametrize(
    ("name", "needed", "others"),
    [
        (
            "EMA",
            {"ema", "_arithmetic", "_recursive", "_base", "_loops", "_lookahead", "_straight", "results"},
            {"__init__", "kalman", "moving_average", "_windows", "matching", "filterpy"},
        ),
        (
            "Kalman",
            {"kalman", "ema", "_recursive", "_loops", "response"},
            {"__init__", "moving_average", "_windows", "filterpy"},
        ),
        (
            "MovingAverage",
            {"moving_average", "_windows", "_base", "_compiling"},
            {"__init__", "ema", "kalman", "_recursive", "_loops", "_lookahead"},
        ),
    ],
)
def test_an_estimators_fingerprint_follows_its_own_code_alone(
    touched: dict[str, Any], name: str, needed: set[str], others: set[str]
) -> None:
    followed = set(touched["followed"][name])
    assert followed >= {f"estimators/{module}" for module in needed}
    assert not followed & {f"estimators/{module}" for module in others}
    assert not [module for module in followed if module.startswith("experiments/")]


def test_a_conditions_fingerprint_follows_stream_and_metrics_and_neither_estimators_nor_tables(
    touched: dict[str, Any],
) -> None:
    synthetic, recorded = (set(touched["followed"][name]) for name in ("GradientRatio", "Recorded"))
    needed = {"experiments/cells", "experiments/metrics", "experiments/streams"}
    assert synthetic >= needed
    assert recorded >= needed | {"experiments/recorded", "experiments/readers", "estimators/kalman"}
    assert not synthetic & {f"estimators/{module}" for module in ("ema", "kalman", "moving_average")}
    assert "experiments/recorded" not in synthetic
    unrelated = {"compare", "figures", "tables", "summaries", "runner", "plan", "store", "files", "progress"}
    assert not (synthetic | recorded) & {f"experiments/{module}" for module in unrelated}


def test_what_is_there_for_type_checkers_alone_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from estimators import Kalman\nelse:\n    from estimators import EMA\n"
        "def thing(): pass\n"
    )
    (tmp_path / "typed_only.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    assert fingerprints.imports("typed_only") == {"estimators.ema"}


def test_code_that_was_changed_after_it_was_loaded_is_refused(tmp_path: Path) -> None:
    for name in ("estimators", "experiments"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import pathlib\n"
        "from experiments.fingerprint import ChangedCodeError, fingerprint\n"
        "from estimators import EMA, MovingAverage\n"
        "before = fingerprint(EMA)\n"
        "path = pathlib.Path('estimators/moving_average.py')\n"
        "path.write_text(path.read_text() + '# changed')\n"
        "assert fingerprint(EMA) == before\n"
        "try: fingerprint(MovingAverage)\n"
        "except ChangedCodeError as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith("was changed after this process began; give the command again\n")


def test_a_helper_beside_a_script_counts_and_a_library_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside.py").write_text("SCALE = 1\n")
    (tmp_path / "scripted.py").write_text(
        "import json\nimport numpy\nimport pandas\nfrom beside import SCALE\ndef thing(): pass\n"
        "TYPED = 0\nif not TYPED:\n    import beside\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert fingerprints.imports("scripted") == {"beside"}
