"""What several tests share: a published series, exact numbers, the contract as cases, walks with outliers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from estimators.checks import yield_checks

# Flow of the Nile at Aswan, 1871-1970, 1e8 m^3: Durbin and Koopman (2012), section 2.2.5 (R: datasets::Nile).
NILE = np.fromstring(
    """
    1120 1160  963 1210 1160 1160  813 1230 1370 1140  995  935 1110  994 1020  960 1180  799  958 1140
    1100 1210 1150 1250 1260 1220 1030 1100  774  840  874  694  940  833  701  916  692 1020 1050  969
     831  726  456  824  702 1120 1100  832  764  821  768  845  864  862  698  845  744  796 1040  759
     781  865  845  944  984  897  822 1010  771  676  649  846  812  742  801 1040  860  874  848  890
     744  749  838 1050  918  986  797  923  975  815 1020  906  901 1170  912  746  919  718  714  740
    """,
    sep=" ",
)
NILE.flags.writeable = False


def agrees(value: float, printed: str) -> bool:
    """Whether a number rounds to a printed one: within half a unit of its last digit."""
    expected = Decimal(printed)
    unit = Decimal(1).scaleb(int(expected.as_tuple().exponent))
    return abs(Decimal(float(value)) - expected) <= unit * Decimal("0.5000001")


def exact(values: object) -> list[Fraction]:
    """Floats as the rational numbers they are."""
    return [Fraction(float(v)) for v in np.ravel(np.asarray(values, dtype=np.float64))]


QUICK = 3
"""Settings of a kind that the quick suite tries."""


def name_of(estimator: Any) -> str:
    """Estimator in one line, without spaces."""
    return "".join(repr(estimator).split())


def contract(settings: Iterable[Any]) -> list[Any]:
    """Every check of the contract on every setting, named by both; slow after the first few of a kind."""
    cases, seen = [], Counter[Any]()
    for estimator in settings:
        kind = type(estimator), type(getattr(estimator, "estimator", None))
        seen[kind] += 1
        marks = [pytest.mark.slow] * (seen[kind] > QUICK)
        name = name_of(estimator)
        cases += [
            pytest.param(estimator, check, id=f"{name}-{check.__name__}", marks=marks)
            for check in yield_checks(estimator)
        ]
    return cases


def streams(
    steps: int, count: int, s: float, outliers: float, seed: int, shift: float = 0.0, at: int = 0
) -> Any:
    """Random walks from 0 with noise of variance 1, of standard deviation 10 with some probability."""
    rng = np.random.default_rng(seed)
    level = np.cumsum(math.sqrt(s) * rng.standard_normal((steps, count)), axis=0)
    level[at:] += shift
    noise = rng.standard_normal(level.shape)
    return level + noise * np.where(rng.random(level.shape) < outliers, 10.0, 1.0), level
