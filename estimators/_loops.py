"""The compiled loops over whole streams: which one serves which shape, and why there is more than one.

alone     one stream, (T,). A recursion waits for itself, some seven cycles a sample: once the gain has
          settled, eight samples are advanced at once.
streams   (S, T) seen as (T, S). Each stream is read and written as it lies, four at a time, so that none
          waits for itself.
rows      channels or settings, (T, C). Whole rows stream at the speed of a copy, the state in vectors.
in_place  one sample of many channels. Nothing is written but the state.
score     settings reduced to their errors. Nothing is kept per sample: four samples a pass, sums in vectors.
settle    the gains that all channels of a start share, until they no longer change.
replayed  a run's map on another stream; powers, its squared weights. The gains are given.
smoothed  the backward pass. Time runs backwards.

Sliding windows are no recursion: ``_windows`` and ``_medians`` have their loops.

All but ``alone`` give the bits of ``update``, whatever stands beside a channel: they inline the estimator's
own ``predict`` and ``correct`` in strict arithmetic, and where a gain is known beforehand, or known to have
settled, it is the one that ``correct`` would have found. Eight samples at once differ from that by rounding,
for a stream by itself alone. A sample of magnitude ``limit`` or more passes for missing, and is reported.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload, register_jitable

from estimators import _arithmetic, _lookahead
from estimators._compiling import DISABLED, Fingerprint, compiled, registered
from estimators._fields import (
    at,
    behind,
    between,
    beyond,
    cell,
    choose,
    copied,
    during,
    equal,
    kept,
    leading,
    note,
    notes,
    put,
)

SETTINGS = 256
"""Settings scored at a time: their states and sums stay in the nearest cache."""

toward = _arithmetic.toward
advance: Any = _lookahead.advance  # numba hands the typing context over itself
weights_of = _lookahead.weights_of
AHEAD = _lookahead.LANES
SAFE = 2.0**1020
"""Magnitude of samples and means below which no sum of a few of their differences overflows."""
PASS = 4
"""Samples that a settled score takes in one pass over its settings."""


@overload(_arithmetic.where)
def _where(condition, chosen, otherwise):  # type: ignore[no-untyped-def]
    return lambda condition, chosen, otherwise: chosen if condition else otherwise


@overload(_arithmetic.toward)
def _toward(mean: Any, sample: Any, gain: Any) -> Any:
    return _arithmetic.moved


@overload(_arithmetic.pooled)
def _pooled(value):  # type: ignore[no-untyped-def]
    return lambda value: value


@overload(_arithmetic.evidence)
def _evidence(value):  # type: ignore[no-untyped-def]
    return lambda value: value


@overload(_arithmetic.sqrt)
def _sqrt(value):  # type: ignore[no-untyped-def]
    return lambda value: np.sqrt(value)


@overload(_arithmetic.exp)
def _exp(value):  # type: ignore[no-untyped-def]
    return lambda value: np.exp(value)


@overload(_arithmetic.log)
def _log(value):  # type: ignore[no-untyped-def]
    return lambda value: np.log(value)


@register_jitable
def recurring(t: Any, known: Any, period: Any) -> Any:
    """Index of time t among ``known`` gains, of which the last ``period`` recur for ever."""
    return t if t < known else known - period + (t - known) % period


class Loops(NamedTuple):
    """The loops of one recursive estimator; channels are flat, ``given`` and ``state`` tuples by field.

    ``known``: gains (n,), other fields beside them (n,) each, and the period of those that recur, else 0.
    """

    rows: Callable[..., bool]
    """rows(samples (T, C) or (T,), given, state, mean, traces of fields behind it, gain, limit).

    Traces and gain, of shape (T, C) as the mean, may be None; coefficients given as (T, C) change in time."""
    alone: Callable[..., bool]
    """alone(samples (T,), given, state, *known, mean (T,), settles, limit)."""
    streams: Callable[..., bool]
    """streams(samples (S, T), given, state, *known, mean (S, T), limit)."""
    settle: Callable[..., tuple[int, int]]
    """settle(given, start, gains (n,), states (n,) each): how many are known, and their period."""
    in_place: Callable[..., bool]
    """in_place(samples (C,), given, state, limit): one step; True, and nothing done, if one is too large."""
    score: Callable[..., None]
    """score(samples, target (T, C) or (T,), given, state, sums (3 of (C,)), settles, limit)."""


class _Recursion(NamedTuple):
    fingerprint: Fingerprint
    loops: Loops


def loops_of(estimator_class: Any) -> Loops:
    """Loops of a recursive estimator: compiled, or plain Python where what they inlined has changed since."""
    steps = estimator_class.predict, estimator_class.correct
    recursion = _recursion(*steps, estimator_class.State, estimator_class._coefficients_type)
    if recursion.fingerprint.holds():
        return recursion.loops
    return _loops(*steps, estimator_class.State, estimator_class._coefficients_type, None)


@functools.cache
def _recursion(predict: Any, correct: Any, state_type: type, coefficients_type: type) -> _Recursion:
    fingerprint = Fingerprint(predict, correct)
    return _Recursion(fingerprint, _loops(predict, correct, state_type, coefficients_type, fingerprint))


def _loops(
    predict: Any, correct: Any, state_type: Any, coefficients_type: Any, fingerprint: Fingerprint | None
) -> Loops:
    key = fingerprint.digest if fingerprint is not None else None
    looks_ahead = fingerprint is not None and not DISABLED
    found_again = key is not None and not any(  # by another process, which looks a step up by its name
        step.__module__ in ("__main__", "__mp_main__") or "<locals>" in step.__qualname__
        for step in (predict, correct)
    )
    if fingerprint is not None:
        registered(predict)
        registered(correct)

    @register_jitable(forceinline=True)
    def step(given: Any, before: Any, sample: Any, limit: Any) -> Any:
        """State after a sample as a tuple, and its gain, 0 for one that is missing."""
        predicted = predict(coefficients_type(*given), state_type(*before))
        corrected, moved = correct(coefficients_type(*given), predicted, sample)
        present = abs(sample) < limit
        return choose(present, tuple(corrected), tuple(predicted)), moved if present else 0.0

    @register_jitable
    def alike(current: Any, moved: Any, before: Any, gain: Any, earlier: Any, earlier_gain: Any) -> Any:
        """Period of a settled gain: 1, or 2 where rounding leaves two values in turn; else 0."""
        if equal(current[1:], before[1:]) and moved == gain:
            return 1
        return 2 if equal(current[1:], earlier[1:]) and moved == earlier_gain else 0

    def rows(samples: Any, given: Any, state: Any, mean: Any, traces: Any, gain: Any, limit: Any) -> Any:
        key  # noqa: B018  a captured value is part of the key under which numba caches
        large = False
        for t in range(mean.shape[0]):
            row, means, noted, gains = at(samples, t), mean[t], at(traces, t), at(gain, t)
            now = during(given, t)
            for c in range(means.shape[0]):
                sample = at(row, c)
                after, moved = step(at(now, c), at(state, c), sample, limit)
                large |= abs(sample) >= limit
                value = kept(mean, after[0])
                put(state, c, (value,) + after[1:])
                means[c] = value
                notes(noted, c, after[1:])
                note(gains, c, moved)
        return large

    def alone(
        samples: Any,
        given: Any,
        state: Any,
        gains: Any,
        states: Any,
        period: Any,
        mean: Any,
        settles: Any,
        limit: Any,
    ) -> Any:
        key  # noqa: B018
        steps, t, large = samples.shape[0], 0, False
        current, moved = at(state, 0), np.nan
        while t < min(gains.shape[0], steps) and abs(samples[t]) < limit:
            moved = gains[t]
            current = (toward(current[0], samples[t], moved),) + at(states, t)
            mean[t] = current[0]
            t += 1
        settled = looks_ahead and settles and period > 0 and t == gains.shape[0]
        before, gain = current, np.nan
        while t < steps:
            if settled and t + AHEAD < steps and abs(current[0]) < SAFE:
                of_samples, of_mean = weights_of(moved)
                excess, present, begun = current[0] - samples[t], True, t
                while present and t + AHEAD < steps:
                    excess, present = advance(samples, t, mean, of_samples, of_mean, excess, SAFE)
                    t += AHEAD if present else 0
                if t > begun:
                    current = (mean[t - 1],) + current[1:]
            earlier, earlier_gain, before, gain, sample = before, gain, current, moved, samples[t]
            current, moved = step(given, before, sample, limit)
            mean[t] = current[0]
            if abs(sample) < limit:
                same = alike(current, moved, before, gain, earlier, earlier_gain)
                settled = looks_ahead and settles and same > 0
            else:  # a gain has settled if the gap changed nothing, or else once two samples agree that it has
                large |= abs(sample) >= limit
                settled = settled and equal(current[1:], before[1:])
                gain = gain if settled else np.nan
                moved = gain
            t += 1
        put(state, 0, current)
        return large

    def streams(
        samples: Any, given: Any, state: Any, gains: Any, states: Any, period: Any, mean: Any, limit: Any
    ) -> Any:
        key  # noqa: B018
        count, steps, known = samples.shape[0], samples.shape[1], gains.shape[0]
        large = False
        for low in range(0, count, 4):
            # Four at a time, none waiting for another; the last ones perhaps more than once.
            a, b, c, d = low, min(low + 1, count - 1), min(low + 2, count - 1), min(low + 3, count - 1)
            xa, xb, xc, xd = samples[a], samples[b], samples[c], samples[d]
            ya, yb, yc, yd = mean[a], mean[b], mean[c], mean[d]
            ma, mb, mc, md = state[0][a], state[0][b], state[0][c], state[0][d]
            t, end = 0, steps if period > 0 else min(known, steps)
            while t < end:
                sa, sb, sc, sd = xa[t], xb[t], xc[t], xd[t]
                if not (abs(sa) < limit and abs(sb) < limit and abs(sc) < limit and abs(sd) < limit):
                    break
                moved = gains[recurring(t, known, period)]
                ma, mb = toward(ma, sa, moved), toward(mb, sb, moved)
                mc, md = toward(mc, sc, moved), toward(md, sd, moved)
                ya[t], yb[t], yc[t], yd[t] = ma, mb, mc, md
                t += 1
            for s in range(low, min(low + 4, count)):  # from the first gap on, each by itself
                current = at(state, s)
                if t > 0:
                    current = (mean[s, t - 1],) + at(states, recurring(t - 1, known, period))
                for k in range(t, steps):
                    current, _ = step(at(given, s), current, samples[s, k], limit)
                    large |= abs(samples[s, k]) >= limit
                    mean[s, k] = current[0]
                put(state, s, current)
        return large

    def settle(given: Any, start: Any, gains: Any, states: Any) -> Any:
        key  # noqa: B018
        current, moved = start, np.nan
        before, gain = current, moved
        for t in range(gains.shape[0]):
            earlier, earlier_gain, before, gain = before, gain, current, moved
            current, moved = step(given, before, 0.0, 1.0)
            gains[t] = moved
            put(states, t, current[1:])
            period = alike(current, moved, before, gain, earlier, earlier_gain)
            if period > 0:
                return t + 1, period
        return gains.shape[0], 0

    def in_place(samples: Any, given: Any, state: Any, limit: Any) -> Any:
        key  # noqa: B018
        if beyond(samples, limit) > 0:
            return True
        for c in range(samples.shape[0]):
            after, _ = step(at(given, c), at(state, c), samples[c], limit)
            put(state, c, after)
        return False

    @register_jitable
    def scored_row(
        samples: Any, target: Any, t: Any, low: Any, given: Any, state: Any, sums: Any, limit: Any
    ) -> None:
        """Take one sample into every setting, and its error into the sums."""
        count, error, square = sums
        for c in range(count.shape[0]):
            after, _ = step(at(given, c), at(state, c), cell(samples, t, low + c), limit)
            put(state, c, after)
        mean = state[0]
        for c in range(count.shape[0]):  # a loop of its own: both are then done in vectors
            difference = mean[c] - cell(target, t, low + c)
            known = difference == difference
            count[c] += 1.0 if known else 0.0
            error[c] += difference if known else 0.0
            square[c] += difference * difference if known else 0.0

    @register_jitable
    def settled_gains(given: Any, state: Any, before: Any, even: Any, odd: Any) -> Any:
        """Whether two samples have left the state as it was, mean aside; then the gains of the next two."""
        for c in range(even.shape[0]):
            known = state[0][c] == state[0][c]
            if not (known and equal(at(state[1:], c), at(before, c))):
                return False
        for c in range(even.shape[0]):
            after, even[c] = step(at(given, c), at(state, c), 0.0, 1.0)
            _, odd[c] = step(at(given, c), after, 0.0, 1.0)
        return True

    def score(samples: Any, target: Any, given: Any, state: Any, sums: Any, settles: Any, limit: Any) -> None:
        key  # noqa: B018
        channels, steps = state[0].shape[0], target.shape[0]
        for low in range(0, channels, SETTINGS):
            high = min(low + SETTINGS, channels)
            own, coefficients, own_sums = between((state, given, sums), low, high)
            (count, error, square), mean = own_sums, own[0]
            even, odd = np.zeros(high - low), np.zeros(high - low)
            t, settled = 0, False
            while t < steps:
                if settled and t + PASS <= steps and complete(samples, target, t, PASS, low, high, limit):
                    for c in range(high - low):
                        value, sum_error, sum_square = mean[c], error[c], square[c]
                        for k in range(PASS):
                            sample, aim = cell(samples, t + k, low + c), cell(target, t + k, low + c)
                            value = toward(value, sample, even[c] if k % 2 == 0 else odd[c])
                            difference = value - aim
                            sum_error += difference
                            sum_square += difference * difference
                        mean[c], error[c], square[c] = value, sum_error, sum_square
                        count[c] += PASS
                    t += PASS
                    continue
                # Two at a time: rounding may leave a gain between two values, in turn.
                before, two = copied(own[1:]), min(2, steps - t)
                for k in range(two):
                    scored_row(samples, target, t + k, low, coefficients, own, own_sums, limit)
                settled = (
                    settles
                    and two == 2
                    and complete(samples, samples, t, 2, low, high, limit)
                    and settled_gains(coefficients, own, before, even, odd)
                )
                t += two

    loops = rows, alone, streams, settle, in_place, score
    if fingerprint is None:
        return Loops(*loops)
    return Loops(*(compiled(loop, cache=found_again) for loop in loops))


@register_jitable
def complete(samples: Any, target: Any, t: Any, steps: Any, low: Any, high: Any, limit: Any) -> Any:
    """Whether nothing is missing in the next samples and targets."""
    if samples.ndim == 1 and target.ndim == 1:
        high = low + 1  # the same for all settings
    present = True
    for k in range(t, t + steps):
        for c in range(low, high):
            aim = cell(target, k, c)
            present &= (abs(cell(samples, k, c)) < limit) & (aim == aim)
    return present


@functools.cache
def replayed() -> Callable[..., None]:
    """Compile the replay of recorded gains: loop(gain, z (T, C) or (T,), start (C,), mean (T, C))."""
    digest = Fingerprint(_arithmetic.moved).digest

    def loop(gain: Any, z: Any, start: Any, mean: Any) -> None:
        digest  # noqa: B018
        for t in range(mean.shape[0]):
            gains, samples, row = at(gain, t), at(z, t), mean[t]
            for c in range(row.shape[0]):
                moved = at(gains, c)
                start[c] = toward(start[c], at(samples, c), moved) if moved != 0.0 else start[c]
                row[c] = start[c]

    return compiled(loop)


@functools.cache
def powers() -> Callable[..., None]:
    """Compile the sum of squared weights behind every mean: loop(gain (T, C), last (C,), power (T, C))."""

    def loop(gain: Any, last: Any, power: Any) -> None:
        for t in range(gain.shape[0]):
            gains, row = gain[t], power[t]
            for c in range(row.shape[0]):
                moved = gains[c]
                last[c] = (1.0 - moved) * (1.0 - moved) * last[c] + moved * moved
                row[c] = last[c]

    return compiled(loop)


def _stepped(estimator_class: Any) -> tuple[Any, str | None, bool]:
    """Step of a combined recursion that takes another stream along, the digest of what it inlines, whether
    another process finds it again."""
    predict, weigh, move = estimator_class.predict, estimator_class.weigh, estimator_class.move
    state_type, coefficients_type = estimator_class.State, estimator_class._coefficients_type
    digest = Fingerprint(predict, weigh, move).digest
    for function in (predict, weigh, move):
        registered(function)

    @register_jitable(forceinline=True)
    def step(given: Any, before: Any, sample: Any, shadow: Any, other: Any) -> Any:
        """State after a sample, and what the same weights make of another stream's state and sample."""
        coefficients = coefficients_type(*given)
        predicted = predict(coefficients, state_type(*before))
        along = leading(tuple(predict(coefficients, state_type(*(shadow + behind(before, shadow))))), shadow)
        rest, weights = weigh(coefficients, predicted, sample)
        present = sample == sample
        after = choose(
            present, move(leading(tuple(predicted), shadow), sample, weights) + rest, tuple(predicted)
        )
        return after, choose(present, move(along, other, weights), along)

    return step, digest, digest is not None and predict.__module__ not in ("__main__", "__mp_main__")


@functools.cache
def shadowed(estimator_class: Any) -> Callable[..., None]:
    """Compile the replay of a combined recursion: loop(samples, z, given, state, shadow, mean (T, C))."""
    step, digest, found_again = _stepped(estimator_class)

    def loop(samples: Any, z: Any, given: Any, state: Any, shadow: Any, mean: Any) -> None:
        digest  # noqa: B018
        for t in range(mean.shape[0]):
            row, others, means, now = at(samples, t), at(z, t), mean[t], during(given, t)
            for c in range(means.shape[0]):
                after, along = step(at(now, c), at(state, c), at(row, c), at(shadow, c), at(others, c))
                put(state, c, after)
                put(shadow, c, along)
                means[c] = along[0]

    return compiled(loop, cache=found_again)


@functools.cache
def squared(estimator_class: Any) -> Callable[..., None]:
    """Compile the squared weights of a combined recursion: loop(samples, given, state, units, power (T, C)).

    units: a tuple of the carried fields' unit vectors, and zeros. The map of each sample, A on the fields and
    b on the sample, is what its step makes of these; white noise then has covariance A C A' + b b'.
    """
    step, digest, found_again = _stepped(estimator_class)

    def loop(samples: Any, given: Any, state: Any, units: Any, power: Any) -> None:
        digest  # noqa: B018
        count = len(units) - 1
        covariance = np.zeros((power.shape[1], count, count))
        maps, half = np.zeros((count, count + 1)), np.zeros((count, count))
        for t in range(power.shape[0]):
            row, now = at(samples, t), during(given, t)
            for c in range(power.shape[1]):
                before, sample = at(state, c), at(row, c)
                after = before
                for k in range(count + 1):
                    after, along = step(at(now, c), before, sample, units[k], 1.0 if k == count else 0.0)
                    for i in range(count):
                        maps[i, k] = along[i]
                put(state, c, after)
                own = covariance[c]
                for i in range(count):
                    for j in range(count):
                        half[i, j] = 0.0
                        for k in range(count):
                            half[i, j] += maps[i, k] * own[k, j]
                new = maps[:, count] if sample == sample else np.zeros(count)
                for i in range(count):
                    for j in range(count):
                        own[i, j] = new[i] * new[j]
                        for k in range(count):
                            own[i, j] += half[i, k] * maps[j, k]
                power[t, c] = own[0, 0]

    return compiled(loop, cache=found_again)


@functools.cache
def smoothed() -> Callable[..., None]:
    """Compile the backward pass on a filtered random walk: loop(q (C,), mean (T, C), variance (T, C)).

    Overwrites filtered moments with smoothed ones. Rauch, Tung, Striebel (1965), AIAA J. 3, eqs. 3.29-3.31,
    with J = P / (P + q) and the variance as J q + J^2 P[t+1], whose limit for an infinite P is exact.
    """
    digest = Fingerprint(_arithmetic.moved).digest

    def loop(q: Any, mean: Any, variance: Any) -> None:
        digest  # noqa: B018
        for t in range(mean.shape[0] - 2, -1, -1):
            for c in range(mean.shape[1]):
                filtered, moved = variance[t, c], q[c]
                if filtered == np.inf:  # nothing is known from before: the level is the next one, less a step
                    back, between_ = 1.0, moved
                elif moved == 0.0:
                    back, between_ = 1.0, 0.0
                else:
                    back = filtered / (filtered + moved)
                    between_ = filtered * (moved / (filtered + moved))
                mean[t, c] = toward(mean[t, c], mean[t + 1, c], back)
                variance[t, c] = between_ + back * back * variance[t + 1, c]

    return compiled(loop)
