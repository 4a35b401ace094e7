"""Checks of what goes in and comes out: gaps, infinity, text, shapes, dtypes, pandas."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from estimators.checks._tools import (
    channels_of,
    contract,
    expect,
    expect_close,
    expect_raises,
    expect_same,
    expect_same_run,
    expect_same_state,
    positive,
    prior_of,
    scale,
    stream,
    tolerance,
)
from estimators.results import align


@contract
def check_gaps(estimator: Any) -> None:
    """A gap is no sample: NaN before the first one where there is no prior, a number ever after."""
    unknown = np.isnan(prior_of(estimator))
    long_gap = stream(estimator, 600, gaps=False)
    long_gap[3:590] = np.nan
    for x in (stream(estimator), stream(estimator)[:2], long_gap, stream(estimator, seed=1)[10:16]):
        run = estimator.filter(x)
        seen = np.maximum.accumulate(~np.isnan(x), axis=0)
        means = np.asarray(run.mean)
        early = ~seen & unknown
        expect(np.isnan(means[early]).all(), "the mean is a number before the first sample, without a prior")
        expect(np.isfinite(means[~early]).all(), "the mean is not finite although there is information")
        expect_same(run.state.mean, means[-1], "mean of the state")
        if run.variance is not None:
            variances = np.asarray(run.variance)
            expect(np.isposinf(variances[early]).all(), "the variance before any information is not infinite")
            expect(not np.isnan(variances).any(), "the variance is NaN")
        state = estimator.init(x[0])
        expect_same(np.isnan(state.mean), unknown, "whether the mean of init is NaN")
        for row in x[:20]:
            state = estimator.update(state, row)
        want = np.isfinite(means[:20][-1])
        expect_same(np.isfinite(state.mean), want, "whether the mean of update is finite")


@contract
def check_missing_spellings(estimator: Any) -> None:
    """None, masked entries and pandas' NA are NaN."""
    x = stream(estimator)
    x = x.reshape(len(x), -1)[:, 0]
    gone = np.isnan(x)
    want = estimator.filter(x)
    spellings: dict[str, Any] = {
        "None": [None if missing else value for value, missing in zip(x.tolist(), gone, strict=True)],
        "masked": np.ma.array(np.where(gone, 999.0, x), mask=gone),
    }
    singles: dict[str, Any] = {"None": None, "masked": np.ma.masked}
    pandas = _pandas()
    if pandas is not None:
        spellings["pandas.NA"] = [
            pandas.NA if m else value for value, m in zip(x.tolist(), gone, strict=True)
        ]
        singles["pandas.NA"] = pandas.NA
    for name, spelled in spellings.items():
        expect_same_run(estimator.filter(spelled), want, 0.0, f"with {name} for NaN")
    for name, single in singles.items():
        got, nan = (estimator.update(want.state, missing) for missing in (single, float("nan")))
        expect_same_state(got, nan, f"the state updated with {name} for NaN")


@contract
def check_infinity(estimator: Any) -> None:
    """Infinity raises ValueError in one line; on_infinite='missing' makes it a gap."""
    x = stream(estimator)
    x[20] = np.nan
    want = estimator.filter(x)
    for infinity in (np.inf, -np.inf):
        y = x.copy()
        y[20] = infinity
        expect_raises(ValueError, "infinity in filter", estimator.filter, y)
        expect_raises(ValueError, "infinity in update", estimator.update, want.state, y[20])
        expect_raises(ValueError, "a float of infinity in update", estimator.update, want.state, infinity)
        tracker = estimator.tracker(want.state)
        expect_raises(ValueError, "infinity in a tracker", tracker.update, y[20])
        expect_same_state(tracker.state, want.state, "the state of a tracker that refused a sample")
        got = estimator.filter(y, on_infinite="missing")
        expect_same_run(got, want, 0.0, "with infinity as missing")
        expect_same_state(
            estimator.update(want.state, y[20], on_infinite="missing"),
            estimator.update(want.state, x[20]),
            "the state updated with infinity as missing",
        )
        lenient = estimator.tracker(want.state, on_infinite="missing")
        lenient.update(y[20])
        expect_same_state(lenient.state, estimator.update(want.state, x[20]), "state of a lenient tracker")


@contract
def check_types_refused(estimator: Any) -> None:
    """Text and complex numbers raise TypeError in one line, a stream without a time axis an error too."""
    state = estimator.filter(stream(estimator)).state
    streams = (["1.0", "2.0"], [1.0, "2.0"], np.array(["1.0"]), [1.0 + 2.0j, 0.0], np.zeros(3, dtype=complex))
    for x in streams:
        expect_raises(TypeError, f"filter of {x!r}", estimator.filter, x)
    for sample in ("1.0", 1.0j, np.complex128(1.0)):
        expect_raises(TypeError, f"update with {sample!r}", estimator.update, state, sample)
    expect_raises((TypeError, ValueError), "filter of a single number", estimator.filter, 1.0)


@contract
def check_shapes(estimator: Any) -> None:
    """Results have shape (T, *channels): the shape of a sample broadcast with the parameters."""
    own = channels_of(estimator)
    for steps in (0, 1, 5):
        for sample in dict.fromkeys([(), own, (2, *own), (2, 3, *own)]):
            x = 1.0 + np.arange(float(steps * int(np.prod(sample)))).reshape((steps, *sample))
            run = estimator.filter(x)
            channels = np.broadcast_shapes(sample, own)
            shape = (steps, *channels)
            for name in ("mean", "gain", "innovation", "noise_gain"):
                got = np.shape(getattr(run, name))
                expect(got == shape, f"{name} has shape {got} instead of {shape} for x of shape {x.shape}")
            if run.variance is not None:
                expect(
                    np.shape(run.variance) == shape,
                    f"variance has shape {np.shape(run.variance)}, not {shape}",
                )
            for what, state in (("filter", run.state), ("init", estimator.init(np.zeros(sample)))):
                got = np.shape(state.mean)
                expect(got == channels, f"{what}'s state has shape {got} instead of {channels}")
            if steps == 0:
                expect_same_state(run.state, estimator.init(np.zeros(sample)), "the state of an empty stream")
            got = np.shape(run.replay(np.ones(x.shape)))
            expect(got == shape, f"a replay has shape {got} instead of {shape}")


@contract
def check_one_channel_is_plain(estimator: Any) -> None:
    """One channel in gives Python floats out, whatever kind of number came in."""
    if channels_of(estimator):
        return
    start = estimator.init(0.0)
    for sample in (1.5, 2, True, np.float32(1.5), np.float64(1.5), np.array(1.5), None):
        state = estimator.update(start, sample)
        tracked = estimator.tracker().update(sample)
        for what, value in (("init", start.mean), ("update", state.mean), ("a tracker", tracked)):
            expect(type(value) is float, f"{what} gives a {type(value).__name__} for {sample!r}, not a float")
        variance = state.variance
        kind = type(variance).__name__
        expect(
            variance is None or type(variance) is float, f"update states its variance as {kind}, not a float"
        )
    run = estimator.filter([1.0, 2.0])
    expect(
        type(run.state.mean) is float, f"filter's state holds a {type(run.state.mean).__name__}, not a float"
    )


@contract
def check_inputs_of_any_layout(estimator: Any) -> None:
    """Lists, integers, booleans, float32, strided and read-only arrays are the numbers that they hold."""
    own = channels_of(estimator)
    least = 1.0 if positive(estimator) else 0.0
    whole = (np.arange(12.0 * int(np.prod(own))) % 7.0).reshape((12, *own)) + least
    want = estimator.filter(whole)
    expect(want.mean.dtype == np.float64, f"the mean of float64 samples is {want.mean.dtype}")
    padded = np.zeros((24, *own, 2))
    padded[::2, ..., 1] = whole
    frozen = whole.copy()
    frozen.flags.writeable = False
    layouts = {
        "a list": whole.tolist(),
        "int64": whole.astype(np.int64),
        "uint8": whole.astype(np.uint8),
        "float32": whole.astype(np.float32),
        "objects": whole.astype(object),
        "strides": padded[::2, ..., 1],
        "column order": np.asfortranarray(whole),
        "a read-only array": frozen,
    }
    for name, x in layouts.items():
        run = estimator.filter(x)
        expect(run.mean.dtype == np.float64, f"the mean of {name} is {run.mean.dtype} instead of float64")
        expect_same(run.mean, want.mean, f"mean of {name}")
    yes = whole > (0 if positive(estimator) else 3)
    expect_same(estimator.filter(yes).mean, estimator.filter(yes.astype(float)).mean, "mean of booleans")


@contract
def check_float32(estimator: Any) -> None:
    """dtype=float32 gives the float64 mean within float32's rounding, and the state keeps the dtype."""
    x = stream(estimator, lead=(2,))
    largest = scale(estimator, x)
    if largest.max() > 1e30:  # a prior near or beyond the range of float32
        return
    want = estimator.filter(x)
    run = estimator.filter(x, dtype=np.float32)
    allowed = len(x) * (2.0**-23 * largest + 2.0**-149)  # rounded at every step
    expect(run.mean.dtype == np.float32, f"the mean is {run.mean.dtype} instead of float32")
    expect(run.state.mean.dtype == np.float32, f"the state's mean is {run.state.mean.dtype}, not float32")
    expect_close(run.mean, want.mean, allowed, "mean in float32")
    onward = estimator.filter(x, state=run.state)
    expect(onward.mean.dtype == np.float32, f"gone on from float32, the mean is {onward.mean.dtype}")
    stepped = estimator.update(run.state, x[20])
    expect(stepped.mean.dtype == np.float32, f"updated from float32, the mean is {stepped.mean.dtype}")


@contract
def check_pandas(estimator: Any) -> None:
    """Series and DataFrames come back with their index and columns, and with the same numbers."""
    pandas = _pandas()
    own = channels_of(estimator)
    if pandas is None or len(own) > 1:
        return
    width = own[0] if own else 3
    x = stream(estimator, lead=() if own else (3,))
    index = pandas.date_range("2020-01-01", periods=len(x))
    frame = pandas.DataFrame(x, index=index, columns=[f"c{i}" for i in range(width)])
    cases = [(frame, x), (frame["c0"], x[:, 0]), (frame["c0"].astype("Float64"), x[:, 0])]
    for given, plain in cases:
        kept = given.copy()
        got, want = estimator.filter(given), estimator.filter(plain)
        expect(kept.equals(given), "filter changes the pandas object")
        replayed = got.replay(np.ones(plain.shape)), want.replay(np.ones(plain.shape))
        for name in ("mean", "variance", "gain", "innovation", "noise_gain", "replay"):
            mine, theirs = replayed if name == "replay" else (getattr(got, name), getattr(want, name))
            if theirs is None:
                continue
            series = isinstance(mine, (pandas.Series, pandas.DataFrame))
            expect(series, f"{name} of a {type(given).__name__} is a {type(mine).__name__}")
            expect(mine.index.equals(index), f"{name} has another index than the {type(given).__name__}")
            same_columns = mine.ndim < 2 or given.ndim < 2 or mine.columns.equals(given.columns)
            expect(same_columns, f"{name} has other columns than the DataFrame")
            same_name = mine.ndim > 1 or mine.name == "c0"
            expect(same_name, f"{name} does not keep the name of the Series")
            expect_same(mine.to_numpy(), theirs, f"{name} of a {type(given).__name__}")
        expect_same_state(got.state, want.state, f"the state after a {type(given).__name__}")


@contract
def check_channels_are_independent(estimator: Any) -> None:
    """Every channel is what it is alone, and to the byte among others, whatever their size and gaps."""
    units = np.array([1.0, 1e6, 1e-6, 1e200])
    own = channels_of(estimator)
    x = stream(estimator, lead=(4,)) * units.reshape((4,) + (1,) * len(own))
    run = estimator.filter(x)
    state = estimator.init(x[0])
    for row in x:
        state = estimator.update(state, row)
    for i in range(4):
        alone, allowed = estimator.filter(x[:, i]), tolerance(estimator, x[:, i])
        expect_close(run.mean[:, i], alone.mean, allowed, f"mean of channel {i} among others")
        expect_close(run.gain[:, i], alone.gain, 1e-12, f"gain of channel {i} among others")
        expect_close(
            state.mean[i], alone.state.mean, allowed[-1], f"mean of channel {i} updated among others"
        )
        fewer = estimator.filter(x[:, : i + 1]).mean
        expect_same(fewer, run.mean[:, : i + 1], f"bytes of the mean beside {i} others instead of 3")
    order = np.array([2, 0, 3, 1])
    expect_close(
        estimator.filter(x[:, order]).mean,
        run.mean[:, order],
        tolerance(estimator, x[:, order]),
        "mean of channels in another order",
    )


@contract
def check_parameters_broadcast(estimator: Any) -> None:
    """Array parameters are one setting per channel, and a stream without channels is seen by all of them."""
    own = channels_of(estimator)
    if not own:
        return
    x = stream(estimator)
    single = x.reshape(len(x), -1)[:, 0]
    copies = np.array(np.broadcast_to(align(single, own), x.shape))
    expect_same_run(
        estimator.filter(single), estimator.filter(copies), 0.0, "of one stream for all parameters"
    )
    run = estimator.filter(x)
    state = estimator.update(estimator.init(1.0), 2.0)
    want = estimator.update(estimator.init(np.ones(own)), np.full(own, 2.0))
    expect_same_state(state, want, "the state updated with one sample for all parameters")
    if not dataclasses.is_dataclass(estimator) or isinstance(estimator, type):
        return
    for place in np.ndindex(own):
        scalar = _at(estimator, own, place)
        column = x[(slice(None), *place)]
        got = run.mean[(slice(None), *place)]
        expect_close(
            got, scalar.filter(column).mean, tolerance(scalar, column), f"mean of parameters {place}"
        )


def _at(estimator: Any, own: tuple[int, ...], place: tuple[int, ...]) -> Any:
    """The estimator with the parameters of one channel, those of an estimator in it included."""
    setting = {}
    for field in dataclasses.fields(estimator):
        value = getattr(estimator, field.name)
        if isinstance(value, np.ndarray):
            setting[field.name] = float(np.broadcast_to(value, own)[place])
        elif dataclasses.is_dataclass(value):
            setting[field.name] = _at(value, own, place)
    return dataclasses.replace(estimator, **setting)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas
