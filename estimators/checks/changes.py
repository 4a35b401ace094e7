"""Checks of what is known to change by sample: steps between samples, their weight, their variance r."""

from __future__ import annotations

from typing import Any

import numpy as np

from estimators.checks._tools import (
    contract,
    expect_close,
    expect_raises,
    expect_same,
    expect_same_run,
    expect_same_variance,
    logarithms,
    of_nothing,
    stream,
    tolerance,
)

KINDS = ("steps", "weight", "r")
UNCHANGED = {"steps": 1.0, "weight": 1.0}


@contract
def check_unchanged(estimator: Any) -> None:
    """Steps of 1, weights of 1 and the r of the setting change nothing."""
    x = stream(estimator)
    want = estimator.filter(x)
    for kind in _taken(estimator):
        # An estimator around another one passes on what that one takes.
        value = getattr(estimator, "estimator", estimator).r if kind == "r" else UNCHANGED[kind]
        if kind != "r" or np.all(np.asarray(value) > 0.0):
            same = estimator.filter(x, **{kind: np.full(x.shape, value)})
            expect_same_run(same, want, tolerance(estimator, x), f"with {kind} as it is anyway")


@contract
def check_changes_by_update(estimator: Any) -> None:
    """Steps by update, a tracker, chunks and filter agree on what changes, in all channels or in each."""
    x = stream(estimator, lead=(2,))
    down, up = logarithms(estimator)
    rng = np.random.default_rng(5)
    for own in (False, True):
        shape = x.shape if own else (len(x),)
        changes = {kind: rng.uniform(0.3, 3.0, shape) for kind in _taken(estimator)}
        run = estimator.filter(x, **changes)
        state, tracker, means, variances = estimator.init(x[0]), estimator.tracker(), [], []
        for t, row in enumerate(x):
            now = {kind: values[t] for kind, values in changes.items()}
            state = estimator.update(state, row, **now)
            means.append(state.mean)
            variances.append(state.variance)
            expect_same(tracker.update(row, **now), state.mean, "mean of a tracker, against update")
        expect_close(means, run.mean, tolerance(estimator, x), "mean by update with changes")
        if run.variance is not None:
            expect_same_variance(variances, run.variance, "variance by update with changes")
        cut = {kind: np.split(values, [20]) for kind, values in changes.items()}
        first = estimator.filter(x[:20], **{kind: parts[0] for kind, parts in cut.items()})
        rest = estimator.filter(x[20:], first.state, **{kind: parts[1] for kind, parts in cut.items()})
        expect_close(rest.mean, run.mean[20:], tolerance(estimator, x)[20:], "mean of chunks with changes")
        ones = np.where(np.isnan(run.mean), np.nan, 1.0)
        weights = down(run.replay(up(np.ones(x.shape)), up(1.0))) - of_nothing(estimator, run)
        expect_close(weights, ones, 4e-12, "replay(1) of a run with changes")


@contract
def check_weight_of_zero(estimator: Any) -> None:
    """A sample of weight 0 is missing."""
    if "weight" not in _taken(estimator):
        return
    x = stream(estimator)
    weight = np.where(np.random.default_rng(6).random(x.shape) < 0.3, 0.0, 1.0)
    want = estimator.filter(np.where(weight == 0.0, np.nan, x))
    expect_same_run(
        estimator.filter(x, weight=weight), want, tolerance(estimator, x), "with weights of 0 for NaN"
    )


@contract
def check_changes_refused(estimator: Any) -> None:
    """What this estimator has no use for raises TypeError, what is out of range or shape ValueError."""
    x = stream(estimator)
    state = estimator.filter(x).state
    for kind in KINDS:
        good = np.ones(len(x))
        if kind not in _taken(estimator):
            expect_raises(TypeError, f"filter({kind}=)", estimator.filter, x, **{kind: good})
            expect_raises(TypeError, f"update({kind}=)", estimator.update, state, x[20], **{kind: 1.0})
            continue
        for bad in (-1.0, np.nan, np.inf, *(() if kind == "weight" else (0.0,))):
            expect_raises(ValueError, f"filter({kind}={bad})", estimator.filter, x, **{kind: good * bad})
            expect_raises(ValueError, f"update({kind}={bad})", estimator.update, state, x[20], **{kind: bad})
        expect_raises(ValueError, f"{kind} of another length", estimator.filter, x, **{kind: good[1:]})
        expect_raises(ValueError, f"{kind} as text", estimator.filter, x, **{kind: ["a"] * len(x)})


def _taken(estimator: Any) -> tuple[str, ...]:
    return tuple(getattr(estimator, "changes", ()))
