from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import estimators

SOURCE = Path(estimators.__file__)


def imported_for_type_checkers() -> dict[str, tuple[str, ...]]:
    """Names by module, as the TYPE_CHECKING block of the source has them."""
    found: dict[str, tuple[str, ...]] = {}
    for node in ast.parse(SOURCE.read_text(encoding="utf-8")).body:
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name)):
            continue
        assert node.test.id == "TYPE_CHECKING"
        for statement in node.body:
            assert isinstance(statement, ast.ImportFrom)
            package, _, module = (statement.module or "").partition(".")
            assert package == "estimators"
            assert module not in found
            assert all(alias.asname is None for alias in statement.names)
            found[module] = tuple(alias.name for alias in statement.names)
    return found


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", estimators.__all__)
def test_every_name_resolves(name: str) -> None:
    found = getattr(estimators, name)
    assert found.__name__ == name
    (home,) = (module for module, names in estimators._HOMES.items() if name in names)
    assert found.__module__ == f"estimators.{home}"
    assert getattr(estimators, name) is found
    assert found.__doc__


def test_type_checkers_see_the_same_names() -> None:
    assert imported_for_type_checkers() == estimators._HOMES


def test_every_name_has_one_home() -> None:
    names = [name for of_module in estimators._HOMES.values() for name in of_module]
    assert len(names) == len(set(names)) == len(estimators.__all__)
    assert set(estimators.__all__) == set(names)
    assert list(estimators._HOMES) == sorted(estimators._HOMES)
    assert set(names) <= set(dir(estimators))


@pytest.mark.parametrize("module", estimators._HOMES)
def test_every_home_is_a_module(module: str) -> None:
    assert (SOURCE.parent / f"{module}.py").is_file()


@pytest.mark.parametrize("name", ["Kalmann", "kalman_", "_nothing", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(AttributeError, match=rf"^module 'estimators' has no attribute '{name}'$"):
        getattr(estimators, name)
    assert not hasattr(estimators, name)


def test_an_unknown_name_cannot_be_imported() -> None:
    with pytest.raises(ImportError, match="Kalmann"):
        exec("from estimators import Kalmann")


def test_importing_imports_nothing_else() -> None:
    """Not even NumPy; a name brings its own module when it is asked for."""
    code = """
import sys
before = set(sys.modules)
import estimators
new = set(sys.modules) - before - {"estimators._lazy"}
heavy = {"numpy", "numba", "pandas", "scipy", "matplotlib", "torch", "filterpy"}
print(sorted(name for name in new if name.startswith("estimators.") or name.split(".")[0] in heavy))
dir(estimators), estimators.__all__
print("estimators.kalman" in sys.modules)
kalman = estimators.Kalman
print("estimators.kalman" in sys.modules, "Kalman" in vars(estimators))
print("estimators.moving_average" in sys.modules, "numba" in sys.modules, "pandas" in sys.modules)
"""
    assert run_fresh(code).splitlines() == ["[]", "False", "True True", "False False False"]


def test_a_trend_is_made_without_compiling() -> None:
    """Parameters and closed forms need no compiler."""
    code = """
import sys
from estimators import EMAWithVariance, Holt, LocalTrend, SwitchingKalman
LocalTrend(0.1, 0.01, 1.0).steady_state().noise_gain, Holt(0.5, 0.1), SwitchingKalman(0.1, 1.0)
EMAWithVariance(0.9).cutoff
print(sorted({"numba", "pandas", "scipy", "torch"} & set(sys.modules)))
"""
    assert run_fresh(code) == "[]"


def test_star() -> None:
    code = """
from estimators import *
names = set(globals())
import estimators
print(set(estimators.__all__) <= names)
print(Kalman is estimators.Kalman)
print(sorted(name for name in names - set(estimators.__all__) if not name.startswith("__")))
"""
    assert run_fresh(code).splitlines() == ["True", "True", "[]"]


def test_completion_offers_what_is_public_and_nothing_else() -> None:
    """Neither private modules that others have imported, nor what the module itself imports."""
    code = """
import estimators
estimators.Kalman(1.0, 1.0).filter([1.0])
print(sorted(set(dir(estimators)) - set(estimators.__all__) - {n for n in dir(estimators) if n[:2] == "__"}))
"""
    assert run_fresh(code) == "['checks', 'jax', 'torch']"


@pytest.mark.parametrize("package", ["checks", "jax", "torch"])
def test_a_package_is_imported_when_it_is_asked_for(package: str) -> None:
    code = f"import estimators; print(estimators.{package}.__name__, len(dir(estimators.{package})) > 5)"
    assert run_fresh(code) == f"estimators.{package} True"


@pytest.mark.parametrize(
    ("module", "wrong", "right"),
    [("estimators", "Kalmann", "Kalman"), ("estimators.torch", "FilterAdam", "FilteredAdam")],
)
def test_python_suggests_the_nearest_name(module: str, wrong: str, right: str) -> None:
    code = f"import {module}\n{module}.{wrong}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith(f"Did you mean: '{right}'?")
