"""The compiled loops over sliding windows kept in order: their medians, and which samples those are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from estimators._compiling import compiled

ABREAST, ROWS, LINE = 256, 512, 8
"""Channels whose windows are sorted abreast; rows of as many channels as share a cache line, heap by heap."""
CHILDREN = 8
"""Of each node of a heap: flat heaps are climbed in fewer steps, each of which may be mispredicted."""
LOW, HIGH = 0, 1
"""Halves of a window. Low keys are negative: on top is the least key of either, next to the middle."""
HELD = -(2**63)
"""Index of the sample behind a median where the window is empty."""


@register_jitable
def entered(rows: Any, samples: Any, limit: Any) -> Any:
    """Copy samples, infinity for missing ones, which sorts them last; how many reach the limit."""
    large = 0
    for i in range(rows.shape[0]):
        sample = samples[i]
        rows[i] = sample if abs(sample) < limit else np.inf
        large += abs(sample) >= limit
    return large


@register_jitable
def passed(rank: Any, following: Any, before: Any, old: Any, new: Any) -> None:
    """Let one rank of many sorted windows forget a sample and see another.

    Without the old one, each rank at and above it holds what followed; the new one then moves the ranks above
    it up by one, so that each becomes the middle one of itself, the rank before and the new sample.
    """
    for i in range(rank.shape[0]):
        own, after, last, sample = rank[i], following[i], before[i], new[i]
        left = own if own < old[i] else after
        least = left if left < sample else sample
        rank[i] = least if least > last else last
        before[i] = left


@functools.cache
def sorted_abreast() -> Callable[..., bool]:
    """Compile medians over sliding windows of many channels; whether a sample was too large.

    loop(past (N, C), ranked (N, C), count (C,), samples (T, C), held (C,), mean (T, C), limit): row t is the
    median of what is present among the last N rows of past and samples up to t; ranked is the past in order,
    infinity for missing samples, count how many are not. All channels move in step and nothing branches on a
    sample, so it is quick where windows are short and channels many: N steps for each row of a tile.
    """

    def loop(past: Any, ranked: Any, count: Any, samples: Any, held: Any, mean: Any, limit: Any) -> Any:
        (window, channels), steps, large = past.shape, samples.shape[0], 0
        for low in range(0, channels, ABREAST):
            high = min(channels, low + ABREAST)
            width = high - low
            ranks = np.full((window + 1, width), np.inf)  # the last stays so: it follows the highest
            ranks[:window] = ranked[:, low:high]
            old, new, before = np.empty(width), np.empty(width), np.empty(width)
            present, last = count[low:high].copy(), held[low:high].copy()
            for t in range(steps):
                large += entered(new, samples[t, low:high], limit)
                entered(old, past[t, low:high] if t < window else samples[t - window, low:high], limit)
                before[:] = -np.inf
                for i in range(window):
                    passed(ranks[i], ranks[i + 1], before, old, new)
                full = 0
                for c in range(width):
                    present[c] += 1 if new[c] < np.inf else 0
                    present[c] -= 1 if old[c] < np.inf else 0
                    full += present[c]
                row = mean[t, low:high]
                if full == window * width:
                    lower, upper = ranks[(window - 1) // 2], ranks[window // 2]
                    for c in range(width):
                        last[c] = (lower[c] + upper[c]) * 0.5
                        row[c] = last[c]
                    continue
                for c in range(width):
                    if present[c] > 0:
                        last[c] = (ranks[(present[c] - 1) // 2, c] + ranks[present[c] // 2, c]) * 0.5
                    row[c] = last[c]
        return large > 0

    return compiled(loop)


@register_jitable
def above(key: Any, slot: Any, other: Any, other_slot: Any, side: Any, since: Any, told: Any) -> Any:
    """Whether an entry belongs above another in its heap; if told apart, equal ones as they arrived."""
    if told is None:
        return key < other
    if key == other:
        return (since[slot] < since[other_slot]) == (side == HIGH)
    return key < other


@register_jitable
def settled(
    keys: Any,
    slots: Any,
    side: Any,
    size: Any,
    j: Any,
    key: Any,
    slot: Any,
    place: Any,
    since: Any,
    told: Any,
) -> None:
    """Put an entry in the place of entry ``j`` of a heap, and move it up or down to where it belongs."""
    start, flip = j, side - 1
    while j > 0:
        parent = (j - 1) // CHILDREN
        if not above(key, slot, keys[parent], slots[parent], side, since, told):
            break
        keys[j] = keys[parent]
        slots[j] = slots[parent]
        place[slots[j]] = j ^ flip
        j = parent
    while j == start:
        first = j * CHILDREN + 1
        if first >= size:
            break
        best = first
        for k in range(first + 1, min(first + CHILDREN, size)):
            if above(keys[k], slots[k], keys[best], slots[best], side, since, told):
                best = k
        if not above(keys[best], slots[best], key, slot, side, since, told):
            break
        keys[j] = keys[best]
        slots[j] = slots[best]
        place[slots[j]] = j ^ flip
        j = start = best
    keys[j] = key
    slots[j] = slot
    place[slot] = j ^ flip


@register_jitable
def slid(
    low: Any,
    low_slots: Any,
    high: Any,
    high_slots: Any,
    place: Any,
    since: Any,
    count: Any,
    samples: Any,
    begin: Any,
    end: Any,
    c: Any,
    held: Any,
    mean: Any,
    lower: Any,
    upper: Any,
    limit: Any,
) -> Any:
    """Move the window of channel ``c`` over some rows; how many samples are present, and reach the limit.

    held: what stands for an empty window; returned is what would do so after the rows.
    """
    window, large, half = place.shape[0], 0, (count + 1) // 2
    slot = begin % window
    for t in range(begin, end):
        sample, j, rest = samples[t, c], place[slot], window - half
        there, was = abs(sample) < limit, j < 0 or high[j] < np.inf
        large += abs(sample) >= limit
        since[slot] = t
        if there or was:
            new = sample if there else np.inf
            # All in one function: each call that is handed arrays on costs as much as a heap takes.
            if j >= 0 and half > 0 and new < -low[0]:
                settled(high, high_slots, HIGH, rest, j, -low[0], low_slots[0], place, since, lower)
                settled(low, low_slots, LOW, half, 0, -new, slot, place, since, lower)
            elif j >= 0:
                settled(high, high_slots, HIGH, rest, j, new, slot, place, since, lower)
            elif rest > 0 and new >= high[0]:
                settled(low, low_slots, LOW, half, ~j, -high[0], high_slots[0], place, since, lower)
                settled(high, high_slots, HIGH, rest, 0, new, slot, place, since, lower)
            else:
                settled(low, low_slots, LOW, half, ~j, -new, slot, place, since, lower)
            if there != was:
                count += 1 if there else -1
                if (count + 1) // 2 > half:
                    key, moved, last = -high[0], high_slots[0], rest - 1
                    if last > 0:
                        settled(
                            high, high_slots, HIGH, last, 0, high[last], high_slots[last], place, since, lower
                        )
                    settled(low, low_slots, LOW, half + 1, half, key, moved, place, since, lower)
                    half += 1
                elif (count + 1) // 2 < half:
                    key, moved, half = -low[0], low_slots[0], half - 1
                    if half > 0:
                        settled(low, low_slots, LOW, half, 0, low[half], low_slots[half], place, since, lower)
                    settled(high, high_slots, HIGH, rest + 1, rest, key, moved, place, since, lower)
        if mean is not None:
            if count > 0:
                held = -low[0] if count % 2 == 1 else (high[0] - low[0]) * 0.5
            mean[t, c] = held
        if lower is not None:
            if count > 0:
                lower[t, c] = since[low_slots[0]]
                upper[t, c] = since[low_slots[0]] if count % 2 == 1 else since[high_slots[0]]
            else:
                lower[t, c] = HELD
                upper[t, c] = HELD
        slot = slot + 1 if slot + 1 < window else 0
    return count, large, held


@functools.cache
def heaped() -> Callable[..., bool]:
    """Compile medians over sliding windows of any length; whether a sample was too large.

    loop(order (N, C), ranked (N, C), count (C,), samples (T, C), held (C,), mean, lower, upper, limit):
    as ``sorted_abreast``, where order says which row of the past is which of the ranked. Of the arrays (T, C)
    either mean is None or lower and upper are, the indices of the lower and of the upper middle: of equal
    samples the older counts as less; negative in the past, HELD where the window is empty.

    The lower half of each window is a heap with its largest sample on top, the rest one with its smallest on
    top: at most about log N steps for each sample (Hardle and Steiger 1995, Applied Statistics 44).
    """

    def loop(
        order: Any,
        ranked: Any,
        count: Any,
        samples: Any,
        held: Any,
        mean: Any,
        lower: Any,
        upper: Any,
        limit: Any,
    ) -> Any:
        (window, channels), steps, large = order.shape, samples.shape[0], 0
        keys, slots = np.empty((LINE, 2, window)), np.empty((LINE, 2, window), np.int64)
        place, since = np.empty((LINE, window), np.int64), np.empty((LINE, window), np.int64)
        present, last = count.copy(), held.copy()
        for low in range(0, channels, LINE):
            width = min(LINE, channels - low)
            for k in range(width):
                half = (present[low + k] + 1) // 2
                for i in range(window):  # what lies in order is a heap
                    slot = order[i, low + k]
                    since[k, slot] = slot - window
                    side, j = (LOW, half - 1 - i) if i < half else (HIGH, i - half)
                    keys[k, side, j] = ranked[i, low + k] if side == HIGH else -ranked[i, low + k]
                    slots[k, side, j] = slot
                    place[k, slot] = j if side == HIGH else ~j
            for begin in range(0, steps, ROWS):
                end = min(steps, begin + ROWS)
                for k in range(width):
                    c = low + k
                    found = slid(
                        keys[k, LOW],
                        slots[k, LOW],
                        keys[k, HIGH],
                        slots[k, HIGH],
                        place[k],
                        since[k],
                        present[c],
                        samples,
                        begin,
                        end,
                        c,
                        last[c],
                        mean,
                        lower,
                        upper,
                        limit,
                    )
                    present[c], large, last[c] = found[0], large + found[1], found[2]
        return large > 0

    return compiled(loop)
