"""What ``help`` says of public names: one line first, and which errors to expect of what is called."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import estimators
from estimators import EMA, Kalman

SETTINGS = [name for name in estimators.__all__ if hasattr(getattr(estimators, name), "coefficients")]
FUNCTIONS = [name for name in estimators.__all__ if inspect.isfunction(getattr(estimators, name))]
METHODS = [
    getattr(EMA, name)
    for name in ("init", "update", "filter", "filter_chunks", "score", "tracker", "to_dict", "from_dict")
]


@pytest.mark.parametrize("name", estimators.__all__)
def test_the_first_line_is_a_sentence(name: str) -> None:
    first, *rest = (inspect.getdoc(getattr(estimators, name)) or "").splitlines()
    assert first[0].isupper()
    assert first.endswith(".")
    assert not rest or rest[0] == ""


@pytest.mark.parametrize("name", [*SETTINGS, *FUNCTIONS])
def test_settings_and_functions_say_what_they_raise(name: str) -> None:
    assert len(SETTINGS) > 10
    assert "Error" in (inspect.getdoc(getattr(estimators, name)) or "")


@pytest.mark.parametrize("method", [*METHODS, Kalman.smooth], ids=lambda method: method.__name__)
def test_methods_say_what_they_raise(method: Any) -> None:
    text = inspect.getdoc(method) or ""
    assert "Error" in text or "Raises as" in text


@pytest.mark.parametrize("name", ["EMA", "Kalman", "Score", "SmoothResult", "FilterResult"])
def test_units_are_told(name: str) -> None:
    assert "unit" in (inspect.getdoc(getattr(estimators, name)) or "")


@pytest.mark.parametrize("name", [*SETTINGS, *FUNCTIONS])
def test_signatures_name_every_parameter(name: str) -> None:
    parameters = inspect.signature(getattr(estimators, name)).parameters.values()
    assert all(one.annotation is not inspect.Parameter.empty for one in parameters)
