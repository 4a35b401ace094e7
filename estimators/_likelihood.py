"""The compiled pass over streams: likelihood of a random walk and its derivatives, settings in lanes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from estimators._compiling import compiled

LANES = 16
"""Settings advanced together: enough that none waits for its own recursion, few enough for one alone."""
PASS = 4
"""Samples that each lane takes in turn: its state is read and written once for all of them."""
FACTORS = 32
"""Innovation variances multiplied before a logarithm is taken: each is 1 to T + 2, and none overflows."""
SUMS = 6
"""Sums per lane: log S with its first and second derivative, then nu^2 / S with these."""


@functools.cache
def likelihood_sums() -> Callable[..., None]:
    """Compile the pass: loop(streams (C, T), lengths (C,), channel (L,), q (L,), r (L,), sums (L, 6)).

    A lane is a setting with q + r = 1 on one stream, from the sample after the first on, less the first; NaN
    is missing, and T and lengths are multiples of ``PASS``. Derivatives go by q = 1 - r, by differentiating
    the filter itself, whose moments are regular at q = 0 and at r = 0.
    """

    def loop(streams: Any, lengths: Any, channel: Any, q: Any, r: Any, sums: Any) -> None:
        # One array, so that the compiler sees that no two of its rows overlap.
        state = np.zeros(15 * LANES)
        rows = np.zeros(PASS * LANES)
        for low in range(0, channel.shape[0], LANES):
            count = min(LANES, channel.shape[0] - low)
            steps = 0
            state[:] = 0.0
            for i in range(LANES):  # lanes left over repeat the last one
                lane = low + min(i, count - 1)
                state[i], state[LANES + i] = q[lane], r[lane]
                state[2 * LANES + i], state[3 * LANES + i] = r[lane], -1.0  # diffuse: the first gain is 1
                state[8 * LANES + i] = 1.0
                steps = max(steps, lengths[channel[lane]])
            for t in range(0, steps, PASS):
                for i in range(LANES):
                    stream = streams[channel[low + min(i, count - 1)]]
                    for k in range(PASS):
                        rows[k * LANES + i] = stream[t + k]
                for i in range(LANES):
                    own_q, own_r = state[i], state[LANES + i]
                    p, p1, p2 = state[2 * LANES + i], state[3 * LANES + i], state[4 * LANES + i]
                    mean, mean1, mean2 = state[5 * LANES + i], state[6 * LANES + i], state[7 * LANES + i]
                    product = state[8 * LANES + i]
                    log1, log2 = state[10 * LANES + i], state[11 * LANES + i]
                    square, square1 = state[12 * LANES + i], state[13 * LANES + i]
                    square2 = state[14 * LANES + i]
                    for k in range(PASS):
                        sample = rows[k * LANES + i]
                        present = sample == sample
                        p += own_q
                        s1 = p1  # of P + r, as r' = -1 undoes q' = 1
                        p1 += 1.0
                        s = p + own_r
                        inverse = 1.0 / s
                        rest, gain, ratio = own_r * inverse, p * inverse, s1 * inverse
                        # K' = (P' - K S') / S with P' = 1 + S': written so that nothing cancels.
                        gain1 = inverse + rest * ratio
                        gain2 = rest * (p2 * inverse) - 2.0 * gain1 * ratio
                        nu = (sample if present else 0.0) - mean
                        scaled = nu * inverse
                        moved = mean1 + scaled * s1
                        product *= s if present else 1.0
                        log1 += ratio if present else 0.0
                        log2 += p2 * inverse - ratio * ratio if present else 0.0
                        square += scaled * nu if present else 0.0
                        square1 -= scaled * (mean1 + moved) if present else 0.0
                        bent = 2.0 * (moved * moved * inverse - scaled * mean2) - scaled * scaled * p2
                        square2 += bent if present else 0.0
                        mean2 = rest * mean2 + gain2 * nu - 2.0 * gain1 * mean1 if present else mean2
                        mean1 = rest * mean1 + gain1 * nu if present else mean1
                        mean = mean + gain * nu if present else mean
                        p2 = own_r * gain2 - 2.0 * gain1 if present else p2
                        p1 = own_r * gain1 - gain if present else p1
                        p = own_r * gain if present else p
                    state[2 * LANES + i], state[3 * LANES + i], state[4 * LANES + i] = p, p1, p2
                    state[5 * LANES + i], state[6 * LANES + i], state[7 * LANES + i] = mean, mean1, mean2
                    state[8 * LANES + i] = product
                    state[10 * LANES + i], state[11 * LANES + i] = log1, log2
                    state[12 * LANES + i], state[13 * LANES + i] = square, square1
                    state[14 * LANES + i] = square2
                if (t + PASS) % FACTORS == 0 or t + PASS >= steps:
                    for i in range(LANES):
                        state[9 * LANES + i] += np.log(state[8 * LANES + i])
                        state[8 * LANES + i] = 1.0
            for i in range(count):
                for k in range(SUMS):
                    sums[low + i, k] = state[(9 + k) * LANES + i]

    return compiled(loop)
