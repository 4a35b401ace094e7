"""The compiled loop over a bank of filters: each channel by itself, its members side by side."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from estimators import _arithmetic
from estimators._compiling import Fingerprint, compiled
from estimators._fields import cell
from estimators._loops import toward

TINY = 2.0**-1022
"""Smallest normal number: where evidence would be 0/0 or infinite, it is bounded by this."""
LARGEST_ERROR = 2.0**508
"""Innovations beyond it count as that large: their squares, summed, stay finite."""


@register_jitable
def mixed(weights: Any, means: Any) -> Any:
    """Weighted mean, of equal means exactly what they are."""
    total = 0.0
    for j in range(means.shape[0]):
        total += weights[j] * (means[j] - means[0])
    return means[0] + total


@register_jitable
def spread(weights: Any, means: Any, mean: Any, variances: Any) -> Any:
    """Variance of a mixture of members of these means and variances about its mean."""
    total = 0.0
    for j in range(means.shape[0]):
        total += weights[j] * (variances[j] + (means[j] - mean) * (means[j] - mean))
    return total


@register_jitable
def advance(sample: Any, step: Any, noise: Any, given: Any, count: Any, member: Any, work: Any) -> None:
    """Take one sample into every member but for the mixing: gains in ``work[0]``, evidence into the weights.

    Evidence is the density of the sample as predicted with the member's r integrated out: Student's t with
    ``count`` degrees of freedom (Bernardo and Smith 1994, section 5.4), up to what all members share.
    """
    s, forgetting = given
    means, ratios, scales, weights = member
    gains, surprise = work
    size, largest = s.shape[0], 0.0
    for j in range(size):
        error = min(abs(sample - means[j]), LARGEST_ERROR)
        surprise[j] = error * error / (ratios[j] + s[j] * step + noise)
        largest = max(largest, scales[j] + surprise[j])
    best = -np.inf
    for j in range(size):
        before = ratios[j] + s[j] * step
        total = before + noise
        gains[j] = before / total
        means[j] = toward(means[j], sample, gains[j])
        ratios[j] = noise * gains[j]
        if largest > 0.0:  # else the series has been constant, of which every member is equally sure
            scale = scales[j] + surprise[j]
            kept = max(scales[j] / scale, TINY) if scale > 0.0 else 1.0
            scales[j] = forgetting * scales[j] + surprise[j]
            surprise[j] = count * math.log(kept) - math.log(total * max(scale / largest, TINY))
            best = max(best, surprise[j])
    if largest > 0.0:
        mass = 0.0
        for j in range(size):
            weights[j] *= math.exp(0.5 * (surprise[j] - best))
            mass += weights[j]
        for j in range(size):
            weights[j] /= mass


@functools.cache
def banked() -> Callable[..., bool]:
    """Compile the bank: loop(samples, steps, noise (T, C) or (T,), given, state, limit, mean, *outputs).

    given: s (M,), forgetting, switch rate; state: mean, variance (C,), means, ratios P/r, scales, weights
    (M, C), count (C,). outputs, each None or (T, C): variance, gain, innovation variance, squared weights;
    and another stream z, its members (M, C) and its means (T, C). True if a sample was too large.
    """
    digest = Fingerprint(advance, mixed, spread, _arithmetic.moved).digest

    def loop(
        samples: Any,
        steps: Any,
        noise: Any,
        given: Any,
        state: Any,
        limit: Any,
        mean_out: Any,
        variance_out: Any,
        gain_out: Any,
        innovation_out: Any,
        power_out: Any,
        other: Any,
        other_members: Any,
        other_out: Any,
    ) -> Any:
        digest  # noqa: B018
        s, forgetting, switch_rate = given
        mean, variance, all_means, all_ratios, all_scales, all_weights, counts = state
        size, large = s.shape[0], False
        share = switch_rate / size
        members, work, own = np.empty((4, size)), np.empty((2, size)), np.empty(size)
        means, ratios, scales, weights = members[0], members[1], members[2], members[3]
        gains = work[0]
        covariance, crossed = np.zeros((size, size)), np.empty(size)
        shadow = np.empty(size)
        for c in range(mean.shape[0]):
            for j in range(size):
                means[j], ratios[j], scales[j], weights[j] = (
                    all_means[j, c],
                    all_ratios[j, c],
                    all_scales[j, c],
                    all_weights[j, c],
                )
                if other is not None:
                    shadow[j] = other_members[j, c]
            covariance[...] = 0.0
            now, uncertainty, count = mean[c], variance[c], counts[c]
            for t in range(mean_out.shape[0]):
                sample, step, noisy = cell(samples, t, c), cell(steps, t, c), cell(noise, t, c)
                present, seen = abs(sample) < limit, now == now
                large |= abs(sample) >= limit
                stated, moved = np.inf, 0.0
                if innovation_out is not None:
                    if seen and count > 0.0:
                        for j in range(size):
                            total = ratios[j] + s[j] * step + noisy
                            own[j] = total * (scales[j] / count)
                        stated = spread(weights, means, now, own)
                    innovation_out[t, c] = stated
                if present and not seen:
                    moved, now = 1.0, sample
                    for j in range(size):
                        means[j], ratios[j] = sample, noisy
                        gains[j] = 1.0
                elif present:
                    member = means, ratios, scales, weights
                    advance(sample, step, noisy, (s, forgetting), count, member, (gains, work[1]))
                    count = forgetting * count + 1.0
                    now = mixed(weights, means)
                    for j in range(size):
                        moved += weights[j] * gains[j]
                else:
                    for j in range(size):
                        ratios[j] += s[j] * step if seen else 0.0
                if now == now and count > 0.0:
                    for j in range(size):
                        own[j] = ratios[j] * (scales[j] / count)
                    uncertainty = spread(weights, means, now, own)
                if other is not None:
                    if present:
                        for j in range(size):
                            shadow[j] = toward(shadow[j], cell(other, t, c), gains[j])
                    other_out[t, c] = mixed(weights, shadow)
                if power_out is not None:
                    total = 0.0
                    for i in range(size):
                        for j in range(size):
                            if present:
                                left = (1.0 - gains[i]) * (1.0 - gains[j])
                                covariance[i, j] = left * covariance[i, j] + gains[i] * gains[j]
                            total += weights[i] * weights[j] * covariance[i, j]
                    power_out[t, c] = total
                mean_out[t, c] = now
                now = mean_out[t, c]
                if variance_out is not None:
                    variance_out[t, c] = uncertainty
                if present and count > 0.0:
                    if power_out is not None:
                        for i in range(size):
                            crossed[i] = 0.0
                            for j in range(size):
                                crossed[i] += weights[j] * covariance[i, j]
                    for j in range(size):
                        # What switches to a member starts from what all know together.
                        after = (1.0 - switch_rate) * weights[j] + share
                        own[j] = share / after if share > 0.0 else 0.0
                        means[j] += own[j] * (now - means[j])
                        if other is not None:
                            shadow[j] += own[j] * (other_out[t, c] - shadow[j])
                        weights[j] = after
                    if power_out is not None:
                        for i in range(size):
                            for j in range(size):
                                covariance[i, j] = (
                                    (1.0 - own[i]) * (1.0 - own[j]) * covariance[i, j]
                                    + (1.0 - own[i]) * own[j] * crossed[i]
                                    + own[i] * (1.0 - own[j]) * crossed[j]
                                    + own[i] * own[j] * power_out[t, c]
                                )
                if gain_out is not None:
                    gain_out[t, c] = moved
            mean[c], variance[c], counts[c] = now, uncertainty, count
            for j in range(size):
                all_means[j, c], all_ratios[j, c] = means[j], ratios[j]
                all_scales[j, c], all_weights[j, c] = scales[j], weights[j]
        return large

    return compiled(loop)
