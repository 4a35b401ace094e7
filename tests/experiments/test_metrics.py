"""Each metric against what theory says of it, and the identities between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from estimators import EMA, DebiasedEMA, Estimator, Kalman, MovingAverage
from experiments.metrics import Measured, Trial, lag, mean_over_time, measure, settling
from experiments.streams import Domain, GradientRatio, Ramp, Realisations, Stream

R = 1.7956
S = 1.0 / 9900.0
MATCHED = {
    "ema": EMA(0.99),
    "debiased_ema": DebiasedEMA(0.99),
    "kalman": Kalman(q=R * S, r=R),
    "moving_average": MovingAverage(199),
}
THEORY_DB = 10.0 * np.log10(199.0)
CONTRACT = {
    "attenuation_db": "dB",
    "implied_attenuation_db": "dB",
    "lag": "samples",
    "mean_age": "samples",
    "settling": "samples",
    "startup_rmse": "log ratio",
    "rmse": "log ratio",
    "bias": "log ratio",
    "signal_mse": "(log ratio)^2",
    "noise_mse": "(log ratio)^2",
    "cross_mse": "(log ratio)^2",
    "prediction_rmse": "log ratio",
    "prediction_coverage": "share",
    "coverage": "share",
    "state_bytes": "bytes",
}
NEEDS_NO_TRUTH = {
    "implied_attenuation_db",
    "mean_age",
    "prediction_rmse",
    "prediction_coverage",
    "state_bytes",
}
INTERVALS = {"coverage", "prediction_coverage"}

estimators = st.one_of(
    st.floats(0.0, 0.98).map(EMA),
    st.floats(0.01, 0.98).map(DebiasedEMA),
    st.tuples(st.floats(0.0, 2.0), st.floats(0.01, 2.0)).map(lambda p: Kalman(*p)),
    st.integers(1, 40).map(MovingAverage),
)


def trial(
    estimator: Estimator, stream: Stream, n: int = 1, burn_in: int | None = None, first: int = 0
) -> Trial:
    burn_in = min(1000, stream.length() // 4) if burn_in is None else burn_in
    drawn = stream.draw(range(first, first + n), 0, "evaluate")
    return Trial(estimator, drawn, burn_in, stream.own_noise_variance() ** 0.5, stream.unit)


def measured(*args: Any, **settings: Any) -> dict[str, Measured]:
    return {m.metric: m for m in measure(trial(*args, **settings))}


def within(values: Any, expected: float, errors: float = 3.0) -> None:
    error = values.std(ddof=1) / np.sqrt(values.size)
    assert abs(values.mean() - expected) <= errors * error, (values.mean(), expected, error)


# --- the contract's table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MATCHED)
def test_every_metric_of_the_contract_is_there_with_its_unit(name: str) -> None:
    found = measured(MATCHED[name], GradientRatio(steps=400), n=2)
    expected = {
        metric: unit for metric, unit in CONTRACT.items() if name == "kalman" or metric not in INTERVALS
    }
    assert {metric: m.unit for metric, m in found.items()} == expected
    assert all(m.values.shape == (2,) for m in found.values())


@pytest.mark.parametrize("domain", list(Domain))
def test_units_follow_the_domain(domain: Domain) -> None:
    found = measured(EMA(0.5), GradientRatio(steps=40, domain=domain))
    assert {found[metric].unit for metric in ("rmse", "bias", "startup_rmse", "prediction_rmse")} == {
        domain.unit
    }


@pytest.mark.parametrize("name", MATCHED)
def test_without_truth_there_is_what_needs_none(name: str) -> None:
    drawn = GradientRatio(steps=400).draw([0], 0)
    blind = Trial(MATCHED[name], Realisations(drawn.samples, None, zero_mean=False), 100, 1.0, "log ratio")
    expected = NEEDS_NO_TRUTH if name == "kalman" else NEEDS_NO_TRUTH - INTERVALS
    found = {m.metric: m for m in measure(blind)}
    assert set(found) == expected
    with_truth = measured(MATCHED[name], GradientRatio(steps=400))
    for metric, m in found.items():
        np.testing.assert_array_equal(m.values, with_truth[metric].values)
    with pytest.raises(ValueError, match="not known"):
        _ = blind.truth


# --- noise, delay, settling against theory ------------------------------------------------------------------


@pytest.mark.parametrize("name", MATCHED)
def test_attenuation_of_white_noise_is_the_noise_gains(name: str) -> None:
    # Long streams: the mean of a decibel is biased by half the relative variance of what it is taken of.
    found = measured(MATCHED[name], GradientRatio(steps=200_000), n=12)
    within(found["attenuation_db"].values, THEORY_DB)
    assert found["attenuation_db"].values.std() < 0.5


@pytest.mark.parametrize("name", MATCHED)
def test_matched_estimators_tie_in_implied_attenuation_lag_and_age(name: str) -> None:
    found = measured(MATCHED[name], GradientRatio(steps=8000), n=2, burn_in=4000)
    np.testing.assert_allclose(found["implied_attenuation_db"].values, THEORY_DB, rtol=1e-9)
    np.testing.assert_allclose(found["lag"].values, 99.0, rtol=1e-9)
    np.testing.assert_allclose(found["mean_age"].values, 99.0, rtol=1e-9)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (EMA(0.99), 299),
        (DebiasedEMA(0.99), 299),
        (Kalman(q=R * S, r=R), 299),
        (MovingAverage(199), 190),
        (MovingAverage(1), 1),
        (EMA(0.0), 1),
        (EMA(0.5), 5),
    ],
    ids=str,
)
def test_settling(estimator: Estimator, expected: int) -> None:
    found = measured(estimator, GradientRatio(steps=6000), n=2)["settling"]
    np.testing.assert_array_equal(found.values, expected)
    assert found.status == ["ok", "ok"]


@settings(deadline=None, max_examples=20)
@given(beta=st.floats(0.0, 0.97))
def test_settling_of_an_ema_is_where_its_step_response_says(beta: float) -> None:
    found = measured(EMA(beta), GradientRatio(steps=1000))["settling"].values[0]
    response = EMA(beta).step_response(1000)
    expected = 1 + np.flatnonzero(response < 0.95)[-1] + 1 if response[0] < 0.95 else 1
    assert abs(found - expected) <= (np.abs(response - 0.95).min() < 1e-12)


def test_lag_and_settling_run_on_noise_with_a_ramp_and_a_step_of_the_stated_size() -> None:
    # A linear filter keeps its map, whatever the size; one whose gain depends on the samples would not.
    seen: list[Any] = []

    class Spied(EMA):
        traits = frozenset()

        def filter(self, x: Any, *args: Any, **settings: Any) -> Any:
            seen.append(np.array(x))
            return super().filter(x, *args, **settings)

    stream = GradientRatio(steps=400, s=1e-2)
    one = trial(Spied(0.5), stream, n=2)
    noise, sd, t = one.drawn.noise, 1.34, np.arange(400)[:, np.newaxis]
    list(lag(one))
    list(settling(one))
    ramp, step = seen
    np.testing.assert_allclose(ramp - noise, np.broadcast_to(0.01 * sd * t, noise.shape), atol=1e-12)
    np.testing.assert_allclose(step - noise, np.broadcast_to(8.0 * sd * (t >= 200), noise.shape), atol=1e-12)


def test_a_running_mean_has_no_steady_state() -> None:
    found = measured(Kalman(q=0.0, r=R), GradientRatio(steps=2000), n=2)
    assert np.isnan(found["lag"].values).all()
    assert found["lag"].status == ["no steady state"] * 2
    assert found["settling"].status == ["not settled"] * 2
    assert found["implied_attenuation_db"].status == ["ok"] * 2
    # Its weights are 1/t each: ages average to (t - 1)/2.
    t = np.arange(501, 2001)
    np.testing.assert_allclose(found["mean_age"].values, (t - 1).mean() / 2)
    np.testing.assert_allclose(found["implied_attenuation_db"].values, -10 * np.log10((1 / t).mean()))


def test_too_slow_for_the_stream_is_said_and_not_guessed() -> None:
    found = measured(EMA(0.9999), GradientRatio(steps=2000))
    assert found["settling"].status == ["not settled"]
    assert found["lag"].status == ["no steady state"]
    assert np.isnan(found["settling"].values).all()


@settings(deadline=None, max_examples=20)
@given(beta=st.floats(0.0, 0.95))
def test_implied_attenuation_and_age_are_the_closed_forms(beta: float) -> None:
    ema = EMA(beta)
    found = measured(ema, GradientRatio(steps=1200), burn_in=1000)
    np.testing.assert_allclose(
        found["implied_attenuation_db"].values, -10 * np.log10(ema.noise_gain), atol=1e-9
    )
    np.testing.assert_allclose(found["mean_age"].values, ema.group_delay, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found["lag"].values, ema.group_delay, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [1, 2, 50])
def test_implied_attenuation_and_age_of_a_window(window: int) -> None:
    found = measured(MovingAverage(window), GradientRatio(steps=400), burn_in=100)
    np.testing.assert_allclose(found["implied_attenuation_db"].values, 10 * np.log10(window), atol=1e-12)
    np.testing.assert_allclose(found["mean_age"].values, (window - 1) / 2, atol=1e-9)


def test_correlated_noise_is_attenuated_less_than_its_weights_imply() -> None:
    rho, beta = 0.6, 0.9
    found = measured(EMA(beta), GradientRatio(steps=50_000, correlation=rho), n=10)
    # AR(1) noise through an EMA: gain (1 - b)/(1 + b) times (1 + rho b)/(1 - rho b).
    expected = 10 * np.log10((1 + beta) / (1 - beta) * (1 - rho * beta) / (1 + rho * beta))
    within(found["attenuation_db"].values, expected)
    assert found["implied_attenuation_db"].values[0] == pytest.approx(10 * np.log10(19.0))


# --- errors -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    estimator=estimators,
    domain=st.sampled_from(list(Domain)),
    gaps=st.sampled_from([0.0, 0.1]),
    s=st.sampled_from([0.0, 1e-3]),
)
def test_the_squared_error_splits_into_signal_noise_and_cross_term(
    estimator: Estimator, domain: Domain, gaps: float, s: float
) -> None:
    stream = GradientRatio(steps=200, domain=domain, gap_rate=gaps, s=s, outlier_rate=0.05)
    found = measured(estimator, stream, n=3)
    parts = [found[f"{part}_mse"].values for part in ("signal", "noise", "cross")]
    scale = sum(np.abs(part) for part in parts)
    np.testing.assert_allclose(sum(parts) / scale, found["rmse"].values ** 2 / scale, rtol=0, atol=1e-12)
    assert np.all(parts[0] >= 0)
    assert np.all(parts[1] >= 0)


def test_errors_are_taken_before_and_after_the_burn_in() -> None:
    stream = GradientRatio(steps=300)
    one = trial(EMA(0.9), stream, n=2, burn_in=40)
    found = {m.metric: m.values for m in measure(one)}
    drawn = stream.draw(range(2), 0)
    error = EMA(0.9).filter(drawn.samples).mean - drawn.level
    np.testing.assert_allclose(found["startup_rmse"], np.sqrt((error[:40] ** 2).mean(axis=0)))
    np.testing.assert_allclose(found["rmse"], np.sqrt((error[40:] ** 2).mean(axis=0)))
    np.testing.assert_allclose(found["bias"], error[40:].mean(axis=0))


def test_without_burn_in_there_is_no_start_up_error() -> None:
    found = measured(EMA(0.9), GradientRatio(steps=50), burn_in=0)["startup_rmse"]
    assert found.status == ["no burn-in"]


def test_on_a_ramp_the_bias_is_the_lag_times_the_slope() -> None:
    for estimator in (EMA(0.9), DebiasedEMA(0.9), MovingAverage(19)):
        found = measured(estimator, Ramp(steps=2000, r=0.0, slope=0.05), burn_in=1000)
        np.testing.assert_allclose(found["bias"].values, -9.0 * 0.05, rtol=1e-9)
        np.testing.assert_allclose(found["rmse"].values, 9.0 * 0.05, rtol=1e-9)
        np.testing.assert_allclose(found["noise_mse"].values, 0.0, atol=1e-20)
        assert found["attenuation_db"].status == ["no noise"]


def test_prediction_error_is_that_of_each_mean_against_the_next_sample() -> None:
    stream = GradientRatio(steps=300)
    found = measured(DebiasedEMA(0.9), stream, burn_in=50)["prediction_rmse"].values
    samples = stream.draw([0], 0).samples[:, 0]
    mean = DebiasedEMA(0.9).filter(samples).mean
    np.testing.assert_allclose(found, np.sqrt(np.mean((samples[50:] - mean[49:-1]) ** 2)))


def test_the_right_kalman_errs_as_its_variance_says() -> None:
    found = measured(MATCHED["kalman"], GradientRatio(), n=60)
    steady = R * MATCHED["kalman"].steady_gain  # type: ignore[attr-defined]
    within(found["rmse"].values ** 2, steady)
    within(found["bias"].values, 0.0)
    within(found["cross_mse"].values, 0.0)


def test_the_right_filter_beats_the_window_of_the_same_noise_on_a_random_walk() -> None:
    kalman, window = (
        measured(MATCHED[name], GradientRatio(), n=40)["rmse"].values for name in ("kalman", "moving_average")
    )
    assert window.mean() > kalman.mean()
    # In variance N s (2 N - 1)(N - 1)/(6 N^2) + 1/N, against K: 8.4 % more at N = 199.
    n = 199
    ratio = (1 / n + S * (n - 1) * (2 * n - 1) / (6 * n)) / MATCHED["kalman"].steady_gain  # type: ignore[attr-defined]
    within(window**2 / (kalman**2).mean(), ratio)


# --- stated intervals ---------------------------------------------------------------------------------------


def test_the_right_kalman_covers_95_percent() -> None:
    found = measured(MATCHED["kalman"], GradientRatio(), n=60)
    for metric in INTERVALS:
        within(found[metric].values, 0.95)
        assert found[metric].values.std(ddof=1) / np.sqrt(60) < 0.01


def test_a_wrong_setting_shows_in_the_coverage() -> None:
    stream = GradientRatio(r=0.7225, s=4e-3)
    found = measured(Kalman(q=0.7225 * S, r=0.7225), stream, n=10)
    assert found["coverage"].values.mean() < 0.5


@pytest.mark.parametrize("name", ["ema", "debiased_ema", "moving_average"])
def test_no_coverage_is_made_up(name: str) -> None:
    assert not INTERVALS & set(measured(MATCHED[name], GradientRatio(steps=300)))


@pytest.mark.parametrize(
    ("name", "expected"), [("ema", 8), ("debiased_ema", 16), ("kalman", 16), ("moving_average", 8 * 199)]
)
def test_state_bytes(name: str, expected: int) -> None:
    found = measured(MATCHED[name], GradientRatio(steps=300), n=3)["state_bytes"].values
    np.testing.assert_array_equal(found, expected)


# --- gaps, and repetitions side by side ---------------------------------------------------------------------


@pytest.mark.parametrize("name", MATCHED)
def test_gaps_leave_every_metric_with_a_value(name: str) -> None:
    stream = GradientRatio(steps=12_000, gap_rate=0.02, gap_length=3.0)
    found = measured(MATCHED[name], stream, n=3)
    for metric, m in found.items():
        assert m.status == ["ok"] * 3, metric
    if name == "kalman":
        assert 0.9 < found["coverage"].values.mean() < 1.0
        assert 0.93 < found["prediction_coverage"].values.mean() < 0.97


def test_a_stream_that_begins_in_a_gap_has_metrics_too() -> None:
    drawn = GradientRatio(steps=400).draw(range(2), 0)
    samples = drawn.samples.copy()
    samples[:150, 0] = np.nan
    for name, estimator in MATCHED.items():
        with_gap = Trial(
            estimator, Realisations(samples, drawn.level, zero_mean=True), 100, R**0.5, "log ratio"
        )
        found = {m.metric: m for m in measure(with_gap)}
        assert np.isfinite(found["rmse"].values).all(), name
        assert np.isfinite(found["mean_age"].values).all(), name


@settings(deadline=None, max_examples=25)
@given(
    estimator=estimators,
    n=st.integers(2, 6),
    at=st.integers(0, 5),
    gaps=st.sampled_from([0.0, 0.1]),
    domain=st.sampled_from(list(Domain)),
    steps=st.integers(4, 400),
)
def test_a_repetition_is_measured_to_the_bit_whatever_stands_beside_it(
    estimator: Estimator, n: int, at: int, gaps: float, domain: Domain, steps: int
) -> None:
    column = at % n
    stream = GradientRatio(steps=steps, gap_rate=gaps, domain=domain)
    together = measured(estimator, stream, n=n)
    alone = measured(estimator, stream, n=1, first=column)
    assert together.keys() == alone.keys()
    for metric, m in together.items():
        np.testing.assert_array_equal(m.values[[column]], alone[metric].values, err_msg=metric)
        assert m.status[column] == alone[metric].status[0]


@given(
    values=st.lists(
        st.one_of(st.floats(-1e6, 1e6), st.just(np.nan), st.just(np.inf)), min_size=1, max_size=30
    )
)
@settings(deadline=None)
def test_mean_over_time_is_that_of_the_finite_values(values: list[float]) -> None:
    array = np.array(values)
    finite = array[np.isfinite(array)]
    found = mean_over_time(array[:, np.newaxis])[0]
    if finite.size:
        assert found == pytest.approx(finite.mean(), rel=1e-9, abs=1e-9)
    else:
        assert np.isnan(found)


def test_a_shift_of_the_level_changes_no_attenuation_lag_or_settling() -> None:
    near, far = (
        measured(MATCHED["moving_average"], GradientRatio(steps=2000, median=m)) for m in (1.0, 1000.0)
    )
    for metric in ("attenuation_db", "lag", "settling", "noise_mse"):
        np.testing.assert_allclose(near[metric].values, far[metric].values, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("name", MATCHED)
def test_the_shortest_streams_are_measured_without_warnings(steps: int, name: str) -> None:
    found = measured(MATCHED[name], GradientRatio(steps=steps), n=2)
    assert np.isfinite(found["rmse"].values).all()


def test_of_a_map_that_multiplies_what_adds_is_not_measured(kalmean: Any) -> None:
    ran = kalmean("estimators=[ema,log]", "stream.domain=ratio", "seeds=3", "stream.steps=400")
    table = ran.table[ran.table["estimator"] == "log"].set_index("metric")
    for metric in ("attenuation_db", "lag", "settling", "mean_age", "signal_mse"):
        assert (table.loc[metric, "status"] == "works on logarithms").all()
    for metric in ("rmse", "bias", "startup_rmse", "prediction_rmse", "implied_attenuation_db"):
        assert (table.loc[metric, "status"] == "ok").all()
