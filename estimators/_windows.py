"""The compiled loop over sliding windows: sums of sums, each mean from the samples in its window alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from estimators._compiling import compiled

TILE_CHANNELS, BLOCK = 64, 8192
"""Channels and values of a sliding window that are summed at a time, in the nearer caches."""


@register_jitable
def read(rows: Any, samples: Any, limits: Any, marks: Any) -> tuple[Any, Any, Any]:
    """Copy samples, 0 for missing ones, or 1 for present ones; how many are, and reach each of two limits."""
    (limit, overflow), present, large, huge = limits, 0, 0, 0
    for i in range(rows.shape[0]):
        sample = samples[i]
        counted = abs(sample) < limit
        rows[i] = (1.0 if marks else sample) if counted else 0.0
        present += counted
        large += abs(sample) >= limit
        huge += abs(sample) >= overflow
    return present, large, huge


@register_jitable
def gathered(
    rows: Any, past: Any, samples: Any, first: Any, low: Any, width: Any, limits: Any, marks: Any
) -> tuple[Any, Any, Any]:
    """Read rows ``first`` on, of the past where that is negative, of ``width`` channels from ``low`` on."""
    count = rows.shape[0] // width
    old = max(0, min(count, -first))
    if width == samples.shape[1]:  # rows follow each other without a gap: they are one long row
        end = past.shape[0] + first + old
        older = past.reshape(-1)[(end - old) * width : end * width]
        present, large, huge = read(rows[: old * width], older, limits, marks)
        newer = samples.reshape(-1)[(first + old) * width : (first + count) * width]
        found = read(rows[old * width :], newer, limits, marks)
        return present + found[0], large + found[1], huge + found[2]
    present, large, huge = 0, 0, 0
    for k in range(count):
        row = past[past.shape[0] + first + k] if k < old else samples[first + k]
        found = read(rows[k * width : (k + 1) * width], row[low : low + width], limits, marks)
        present, large, huge = present + found[0], large + found[1], huge + found[2]
    return present, large, huge


@register_jitable
def divided(mean: Any, total: Any, window: Any) -> None:
    """Divide the totals of full windows."""
    for i in range(mean.shape[0]):
        mean[i] = total[i] / window


@register_jitable
def added(total: Any, first: Any, second: Any, third: Any, terms: Any) -> None:
    """Add one, two or three rows to another, pairwise."""
    if terms == 1:
        for i in range(total.shape[0]):
            total[i] += first[i]
    elif terms == 2:
        for i in range(total.shape[0]):
            total[i] += first[i] + second[i]
    else:
        for i in range(total.shape[0]):
            total[i] += (first[i] + second[i]) + third[i]


@register_jitable
def quadrupled(total: Any, first: Any, second: Any, third: Any, fourth: Any) -> None:
    """Add four rows, pairwise."""
    for i in range(total.shape[0]):
        total[i] = (first[i] + second[i]) + (third[i] + fourth[i])


@register_jitable
def window_sums(values: Any, spare: Any, total: Any, window: Any, width: Any) -> None:
    """Sum the last ``window`` rows of ``width`` at each row, overwriting ``values`` and ``spare``.

    values (window - 1 + R rows), flat; total (R rows). Sums of 4, 16, 64, ... rows are sums of four sums, and
    the window is put together from them by the digits of its length to base 4. Each total is thus a tree over
    the samples in its window, the same for every row and channel: nothing runs on, so nothing drifts.
    """
    size, done, digits = 1, 0, window
    while True:
        digit, shift = digits % 4, size * width
        if digit > 0:
            end = values.shape[0] - done * width
            begin = end - total.shape[0]
            second, third = min(1, digit - 1) * shift, min(2, digit - 1) * shift
            if done == 0:
                total[:] = 0.0
            added(
                total,
                values[begin:end],
                values[begin - second : end - second],
                values[begin - third : end - third],
                digit,
            )
            done += digit * size
        digits //= 4
        if digits == 0:
            return
        end = values.shape[0]
        quadrupled(
            spare[3 * shift : end],
            values[3 * shift : end],
            values[2 * shift : end - shift],
            values[shift : end - 2 * shift],
            values[: end - 3 * shift],
        )
        values, spare = spare, values
        size *= 4


@functools.cache
def windowed() -> Callable[..., tuple[bool, bool]]:
    """Compile means over sliding windows; whether a sample was too large, and whether sums might overflow.

    loop(window, past (N, C), samples (T, C), held (C,), mean (T, C), (limit, overflow)): row t averages what
    is present among the last N rows of past and samples up to t; an empty window holds the last mean, before
    the first row ``held``. Sums might overflow where a magnitude is ``overflow`` or more.
    """

    def loop(window: Any, past: Any, samples: Any, held: Any, mean: Any, limits: Any) -> Any:
        steps, channels = samples.shape
        large, huge = 0, 0
        width = max(1, min(channels, TILE_CHANNELS))
        block = max(1, min(steps, max(BLOCK // width, 2 * window)))
        size = (window - 1 + block) * width
        values, spare, totals = np.empty(size), np.empty(size), np.empty(block * width)
        there, also, counts = np.empty(0), np.empty(0), np.empty(0)
        for low in range(0, channels, width):
            own = min(width, channels - low)
            last = held[low : low + own]
            for begin in range(0, steps, block):
                rows = min(block, steps - begin)
                size, first = (window - 1 + rows) * own, begin - (window - 1)
                total = totals[: rows * own]
                found = gathered(values[:size], past, samples, first, low, own, limits, False)
                present, large, huge = found[0], large + found[1], huge + found[2]
                window_sums(values[:size], spare[:size], total, window, own)
                if present == size:
                    if own == channels:
                        divided(mean[begin : begin + rows].reshape(-1), total, window)
                    else:
                        for t in range(rows):
                            divided(mean[begin + t, low : low + own], total[t * own :], window)
                    last[:] = total[(rows - 1) * own :] / window
                    continue
                if there.shape[0] == 0:
                    there, also, counts = np.empty_like(values), np.empty_like(values), np.empty_like(totals)
                gathered(there[:size], past, samples, first, low, own, limits, True)
                window_sums(there[:size], also[:size], counts[: rows * own], window, own)
                for t in range(rows):
                    row = mean[begin + t, low : low + own]
                    for c in range(own):
                        count = counts[t * own + c]
                        last[c] = total[t * own + c] / count if count > 0.0 else last[c]
                        row[c] = last[c]
        return large > 0, huge > 0

    return compiled(loop)
