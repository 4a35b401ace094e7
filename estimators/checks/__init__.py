"""The contract of an estimator as plain functions, each of which takes any estimator and returns or raises.

``check_estimator`` runs those that apply, ``yield_checks`` yields them, so that a test can be made of each:

    @pytest.mark.parametrize("check", yield_checks(mine), ids=lambda check: check.__name__)
    def test_contract(check):
        check(mine)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from estimators.checks import changes, closed_forms, results, samples, settings, streaming
from estimators.checks._tools import Check
from estimators.protocol import LinearEstimator

__all__ = ["check_estimator", "yield_checks"]


def _checks_in(module: Any) -> list[Check]:
    return [check for name, check in vars(module).items() if name.startswith("check_")]


def yield_checks(estimator: Any) -> Iterator[Check]:
    """Yield the checks that apply: all of those for any estimator, and closed forms where it has them.

    Each declared trait is tested to hold, each that is not declared to be absent.
    """
    for module in (settings, streaming, samples, changes, results):
        yield from _checks_in(module)
    if isinstance(estimator, LinearEstimator):
        yield from _checks_in(closed_forms)


def check_estimator(estimator: Any) -> None:
    """Run the whole contract; AssertionError in one line names the check that fails and the numbers."""
    for check in yield_checks(estimator):
        check(estimator)
