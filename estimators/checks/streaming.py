"""Checks of running: purity, aliasing, one answer from every way of running, saving, memory."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

from estimators.checks._tools import (
    PRECISION,
    arrays,
    channels_of,
    contract,
    expect,
    expect_close,
    expect_raises,
    expect_same,
    expect_same_run,
    expect_same_state,
    expect_same_variance,
    leaves,
    other_settings,
    stream,
    tolerance,
)
from estimators.protocol import Trait


@contract
def check_purity(estimator: Any) -> None:
    """init, update, filter and tracker leave samples and states as they were."""
    x = stream(estimator, lead=(2,))
    x[20] = np.where(np.isnan(x[20]), np.nan, np.inf)
    state = estimator.filter(x[:9]).state
    samples, before = x.copy(), copy.deepcopy(state)

    def untouched(by: str) -> None:
        expect_same(x, samples, f"x after {by}")
        expect_same_state(state, before, f"the state handed to {by}")

    estimator.init(x[3])
    untouched("init")
    for row in x:
        estimator.update(state, row, on_infinite="missing")
        untouched("update")
    estimator.filter(x, state=state, on_infinite="missing")
    untouched("filter")
    tracker = estimator.tracker(state, on_infinite="missing")
    for row in x:
        tracker.update(row)
    untouched("tracker")
    estimator.to_dict(state)
    untouched("to_dict")


@contract
def check_determinism(estimator: Any) -> None:
    """The same stream gives the same bits, also from an equal estimator."""
    x = stream(estimator)
    first = estimator.filter(x)
    for other in (estimator, copy.deepcopy(estimator)):
        expect_same(other.filter(x).mean, first.mean, "mean of the same stream a second time")


@contract
def check_no_aliasing(estimator: Any) -> None:
    """Nothing that is handed out shares memory with what was handed in, or with another thing handed out."""
    x = stream(estimator, lead=(2,))
    start = estimator.init(x[0])
    stepped = estimator.update(start, x[5])
    run = estimator.filter(x, state=stepped)
    still = estimator.update(run.state, np.full_like(x[0], np.nan))
    tracker = estimator.tracker(still)
    handed_out = tracker.update(x[6])
    again = estimator.from_dict(estimator.to_dict(run.state))
    owned = {
        "x": x,
        "the state of init": start,
        "the state of update": stepped,
        "the mean of filter": run.mean,
        "the variance of filter": run.variance,
        "the gain of filter": run.gain,
        "the state of filter": run.state,
        "the state of update with a missing sample": still,
        "the state of from_dict": again,
        "the tracker's state": tracker.state,
    }
    held = [(name, array) for name, thing in owned.items() for array in arrays([thing])]
    for i, (name, one) in enumerate(held):
        for other_name, other in held[i + 1 :]:
            expect(not np.shares_memory(one, other), f"{other_name} shares memory with {name}")
    kept = np.array(handed_out), run.mean.copy(), copy.deepcopy(run.state)
    tracker.update(x[7])
    estimator.filter(x, state=run.state)
    x[...] = 1e6
    expect_same(handed_out, kept[0], "a mean that the tracker handed out, one update later")
    expect_same(run.mean, kept[1], "the mean of filter after x was overwritten")
    expect_same_state(run.state, kept[2], "the state of filter after x was overwritten")


@contract
def check_update_matches_filter(estimator: Any) -> None:
    """Steps by update, a tracker, and filter are one answer within 1e-12 of the largest sample."""
    for lead in ((), (2,)):
        x = stream(estimator, lead=lead)
        run = estimator.filter(x)
        state, tracker = estimator.init(x[0]), estimator.tracker()
        states = []
        for row in x:
            sample = row if row.ndim else float(row)
            state = estimator.update(state, sample)
            states.append(state)
            mean = tracker.update(sample)
            expect_same(mean, tracker.mean, "what the tracker's update returned, against its mean")
            expect_same(tracker.mean, state.mean, "mean of a tracker, against update")
            expect_same_variance(tracker.variance, state.variance, "variance of a tracker, against update")
        expect_close([s.mean for s in states], run.mean, tolerance(estimator, x), "mean by update")
        expect_close(run.state.mean, run.mean[-1], 0.0, "mean of filter's state")
        if run.variance is None:
            expect(all(s.variance is None for s in states), "update states a variance, filter none")
        else:
            expect_same_variance([s.variance for s in states], run.variance, "variance by update")
        onward = stream(estimator, 20, lead=lead, seed=1)
        allowed = tolerance(estimator, np.concatenate([x, onward]))[len(x) :]
        want = estimator.filter(onward, state=run.state)
        expect_same_run(estimator.filter(onward, state=state), want, allowed, "gone on from update's state")
        expect_same_run(
            estimator.filter(onward, state=tracker.state), want, allowed, "gone on from the tracker's state"
        )
        resumed = estimator.tracker(run.state)
        means = [resumed.update(row if row.ndim else float(row)) for row in onward]
        expect_close(means, want.mean, allowed, "mean of a tracker that goes on from a state")


@contract
def check_cut_anywhere(estimator: Any) -> None:
    """A stream filtered in chunks equals the stream filtered whole, wherever it is cut."""
    for lead in ((), (2,)):
        x = stream(estimator, lead=lead)
        whole, allowed = estimator.filter(x), tolerance(estimator, x)
        places = ((), (1,), (2,), (12,), (24,), (0, 0, 13, 13, 14, 48, 48), tuple(range(1, 48)))
        for cuts in places:
            state: Any = None
            chunks = []
            for chunk in np.split(x, cuts):
                chunks.append(estimator.filter(chunk, state=state))
                state = chunks[-1].state
            where = f"of chunks cut at {cuts if len(cuts) < 10 else 'every sample'}"
            expect_close(np.concatenate([c.mean for c in chunks]), whole.mean, allowed, f"mean {where}")
            expect_close(np.concatenate([c.gain for c in chunks]), whole.gain, 1e-12, f"gain {where}")
            expect_close(state.mean, whole.state.mean, allowed[-1], f"last state {where}")
            if whole.variance is not None:
                parts = np.concatenate([c.variance for c in chunks])
                expect_same_variance(parts, whole.variance, f"variance {where}")
        nothing = estimator.filter(x[:0], state=whole.state)
        expect_same_state(nothing.state, whole.state, "the state after an empty chunk")


@contract
def check_saved_state_goes_on(estimator: Any) -> None:
    """A state through strict JSON goes on bit for bit; under other parameters it does not load."""
    x = stream(estimator)
    runs: list[tuple[Any, dict[str, Any]]] = [
        (state, {})
        for state in (estimator.init(x[0]), *(estimator.filter(x[:cut]).state for cut in (2, 12, 30)))
    ]
    runs.append((estimator.filter(x[:30], dtype=np.float32).state, {}))
    for state, _ in runs:
        data = estimator.to_dict(state)
        try:
            text = json.dumps(data, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AssertionError(f"to_dict gives more than plain data: {error}") from error
        again = estimator.from_dict(json.loads(text))
        expect(type(again) is type(state), f"from_dict gives a {type(again).__name__}")
        expect_same_state(again, state, "a state that was saved and loaded")
        want, got = estimator.filter(x, state=state), estimator.filter(x, state=again)
        expect_same(got.mean, want.mean, "mean that goes on from a loaded state")
        expect_same_state(got.state, want.state, "the state that goes on from a loaded state")
        expect(estimator.tracker(state).to_dict() == data, "a tracker's to_dict differs from the estimator's")
        for name, other in other_settings(estimator):
            what = f"a state loaded under {name}={getattr(other, name)!r}"
            expect_raises(ValueError, what, other.from_dict, json.loads(text))


@contract
def check_out(estimator: Any) -> None:
    """filter(out=) writes the mean there, also over x itself; what does not fit is refused."""
    x = stream(estimator, lead=(2,))
    want = estimator.filter(x)
    target = np.full(x.shape, 7.0)
    got = estimator.filter(x, out=target)
    expect(np.shares_memory(got.mean, target), "filter(out=) does not return out as the mean")
    expect_same(target, want.mean, "mean in out")
    expect(
        not any(np.shares_memory(target, a) for a in arrays(got.state)), "the state shares memory with out"
    )
    itself = x.copy()
    over = estimator.filter(itself, out=itself)
    expect_same_run(over, want, 0.0, "written over x")
    expect_same(over.innovation, want.innovation, "innovation of a run written over x")
    strided = np.zeros((*x.shape, 2))[..., 0]
    expect_same(estimator.filter(x, out=strided).mean, want.mean, "mean in an out with strides")
    expect_raises(ValueError, "out of another shape", estimator.filter, x, out=np.zeros((1, *x.shape)))
    frozen = np.zeros(x.shape)
    frozen.flags.writeable = False
    expect_raises((TypeError, ValueError), "out that is read-only", estimator.filter, x, out=frozen)


@contract
def check_update_in_place(estimator: Any) -> None:
    """update(out=state) equals the pure update and writes into the arrays of that state."""
    x = stream(estimator, 20, lead=(2,))
    pure = estimator.init(x[0])
    placed = estimator.init(x[0])
    memory = arrays(placed)
    for row in x:
        pure = estimator.update(pure, row)
        placed = estimator.update(placed, row, out=placed)
        for mine, theirs in zip(leaves(placed), leaves(pure), strict=True):
            # A compiled step may round a function of the library's otherwise than NumPy does.
            size = PRECISION * np.where(np.isfinite(theirs), np.maximum(1.0, np.abs(theirs)), 0.0)
            expect_close(mine, theirs, size, "the state updated in place")
        stays = all(a is b for a, b in zip(arrays(placed), memory, strict=True))
        expect(stays, "update(out=state) makes new arrays instead of writing into those of out")


@contract
def check_bounded_state(estimator: Any) -> None:
    """The state does not grow with the stream, and takes per channel what state_bytes says."""
    size = max(1, int(np.prod(channels_of(estimator))))
    taken = {}
    # The mean of samples that are all held follows from them: it is given out, and not carried on.
    derived = 8 if Trait.FINITE_MEMORY in estimator.traits else 0
    if Trait.POSITIVE in estimator.traits:  # so do mean and variance from those of the logarithms
        derived += 16 if Trait.HAS_VARIANCE in estimator.traits else 8
    for steps in (0, 40, 400):
        two, four = (estimator.filter(stream(estimator, steps, lead=(n,))).state for n in (2, 4))
        channel = (_bytes(four) - _bytes(two)) / (2 * size)
        entries = sum(1 for _ in leaves(estimator.to_dict(two)))
        taken[steps] = channel, _bytes(two) - 2 * size * channel, entries
        expect(
            channel <= estimator.state_bytes + derived,
            f"the state takes {channel:g} bytes per channel after {steps} samples; "
            f"state_bytes says {estimator.state_bytes}",
        )
    if taken[0][0] == taken[400][0]:
        expect(
            taken[0][0] >= estimator.state_bytes,
            f"the state takes {taken[0][0]:g} bytes per channel; state_bytes says {estimator.state_bytes}",
        )
    if taken[40][0] == taken[400][0]:
        for what, before, after in zip(
            ("bytes", "saved entries"), taken[40][1:], taken[400][1:], strict=True
        ):
            expect(after <= before, f"the state grows from {before:g} to {after:g} {what} over 360 samples")


def _bytes(state: Any) -> int:
    return sum(np.asarray(leaf).nbytes for leaf in leaves(state))
