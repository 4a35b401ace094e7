"""The betas that first attain a level at a frequency: closed form, measured, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA
from experiments.disturbance_betas import Reached, reached, sentences, table
from experiments.tables import beta_text, narrowed, span


@pytest.mark.parametrize("level", [20.0, 30.0, 40.0])
@pytest.mark.parametrize("f", [0.01, 0.1, 0.25, 0.5])
def test_the_beta_attains_its_level_and_the_smaller_one_does_not(f: float, level: float) -> None:
    found = reached(f, level)
    assert found.measured == pytest.approx(level, abs=1e-9)
    assert found.smaller < level - 1e-7
    assert found.attains
    assert -20.0 * np.log10(np.abs(EMA(found.beta).frequency_response(f))) == pytest.approx(level, abs=1e-9)


def test_at_half_a_cycle_the_gain_is_one_less_beta_over_one_more() -> None:
    for level in (1.0, 20.0, 40.0):
        share = 10.0 ** (-level / 20.0)
        assert reached(0.5, level).beta == pytest.approx((1.0 - share) / (1.0 + share), rel=1e-12)
    assert reached(0.5, 20.0).beta == pytest.approx(9.0 / 11.0)


@settings(deadline=None, max_examples=20)
@given(f=st.floats(0.02, 0.5), level=st.floats(1.0, 40.0))
def test_every_level_is_reached_at_every_frequency(f: float, level: float) -> None:
    assert reached(f, level).attains


def test_a_wrong_beta_would_show() -> None:
    right = reached(0.1, 30.0)
    assert not right._replace(measured=29.99).attains
    assert not right._replace(smaller=30.0).attains


def test_the_asymptote_holds_where_the_frequency_is_well_above_the_cutoff() -> None:
    for f in (0.01, 0.05, 0.25, 0.5):
        found = reached(f, 40.0)
        # The exact gain is (1 - b) / sqrt((1 - b)^2 + 4 b sin^2): off by ln(b) and by (1 - b)^2 / (4 sin^2).
        assert found.asymptote == pytest.approx(40.0, abs=0.1 + 5.0 * (1.0 - found.beta))
    slow = reached(0.01, 40.0)
    assert slow.lag * slow.f == pytest.approx(100.0 / (2.0 * np.pi), rel=2e-3)


def test_what_float64_cannot_hold_is_said() -> None:
    found = reached(1e-10, 200.0)
    assert np.isnan(found.beta)
    assert not found.attains
    said = list(sentences([found]))
    assert said == ["1 of 1 levels need a 1 - beta too small for float64"]
    assert table([found]).splitlines()[-1].count(" - ") == 3


def test_sentences_follow_from_the_numbers() -> None:
    good, bad = reached(0.1, 20.0), reached(0.1, 40.0)._replace(measured=12.0)
    assert "2 of 2 betas attain" in "\n".join(sentences([good, reached(0.1, 40.0)]))
    assert "1 of 2 betas attain" in "\n".join(sentences([good, bad]))
    lags = [Reached(0.1, 20.0, beta, 20.0, 19.0) for beta in (0.5, 0.9)]
    assert "20 dB cost a lag of 0.10 to 0.90 periods of the disturbance" in list(sentences(lags))


def test_span_of_values() -> None:
    assert span([1.234, -0.5]) == "-0.50 to +1.23"
    assert span([1.0, 1.001, np.nan]) == "+1.00"
    assert span([-0.001, 0.001]) == "+0.00"
    assert span([np.nan]) == "no"
    assert span([0.5, 2.0], plus=False) == "0.50 to 2.00"
    assert span([-0.001, 25.04], digits=1) == "+0.0 to +25.0"


def test_a_beta_near_one_is_told_by_its_distance() -> None:
    found = reached(0.001, 100.0)
    assert 1.0 - found.beta < 1e-6
    assert f"| 1 - {1.0 - found.beta:.3g} |" in table([found])
    assert "0.999369" in table([reached(0.001, 20.0)])
    assert (beta_text(0.999999), beta_text(0.9), beta_text(1.0 - 1e-7)) == ("0.999999", "0.9", "1 - 1e-07")


def test_betas_that_are_too_slow_to_measure_are_counted() -> None:
    slow = reached(0.001, 100.0)
    assert np.isnan(slow.measured)
    assert list(sentences([slow])) == ["1 of 1 betas remember more than 10,000,000 samples: not measured"]
    assert "1 of 1 betas attain" in next(sentences([slow, reached(0.1, 20.0)]))
    assert "1 more need over 10,000,000 samples" in next(sentences([slow, reached(0.1, 20.0)]))


def test_tables_stay_within_a_page() -> None:
    text = table([reached(f, level) for f in (0.1, 0.5) for level in (5.0, 10.0, 15.0, 20.0, 25.0, 30.0)])
    assert max(map(len, text.splitlines())) <= 110
    heads = [row for row in text.splitlines() if row.startswith("| f ")]
    assert len(heads) == 2
    assert [head.count("beta") for head in heads] == [3, 3]
    short = [["a", "b", "c"], ["1", "2", "3"]]
    assert narrowed(short).count("\n") == 2
