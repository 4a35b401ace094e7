"""Channels that learn one gain together: arrays whose last axis is pooled, and a bank with common weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from estimators._recursive import Recursive
from estimators.bank import KalmanBank
from estimators.kalman import Kalman, KalmanState

VOTES = 4.0
"""Channels that many pooled ones count as: noise that swells and falls does so in all of them at once."""


class Pooled(np.ndarray):
    """float64 of shape (..., channels), or (..., 1) for what the channels have in common."""

    _library_: Any = None


class _Library:
    """The functions of ``_arithmetic`` that plain arrays have otherwise."""

    @staticmethod
    def where(condition: Any, chosen: Any, otherwise: Any) -> Any:
        return np.where(condition, chosen, otherwise).view(Pooled)

    @staticmethod
    def pooled(value: Any) -> Any:
        return value.mean(axis=-1, keepdims=True)

    @staticmethod
    def evidence(value: Any) -> Any:
        return min(VOTES, value.shape[-1]) * value.mean(axis=-1, keepdims=True)


Pooled._library_ = _Library


class PooledBankState(NamedTuple):
    """Of each member, (..., M, channels or 1): mean, P/r and weight; then of all."""

    means: Any
    ratios: Any
    weights: Any
    unit: Any
    """Mean square of the innovations so far, the older the less."""
    count: Any
    """Innovations in it."""


@dataclass(frozen=True)
class PooledBank:
    """The members and the share of a KalmanBank over channels for which one set of weights is learned.

    The evidence of a sample is (e + u)^(-n/2), e the mean square of a member's innovations over the channels,
    u that of all members in the past, n = 4. Neither a burst of noise, which all channels have at once, nor a
    chance of none then outweighs the rest, as it would with the likelihoods of so many channels multiplied.
    """

    bank: KalmanBank

    State = PooledBankState

    def prior(self) -> PooledBankState:
        """Diffuse, with equal weights."""
        members = (len(self.bank.ratios), 1)
        start = math.nan, math.inf, 1.0 / members[0]
        return PooledBankState(*(np.full(members, value) for value in start), *np.zeros((2, 1, 1)))

    def predict(self, state: PooledBankState) -> PooledBankState:
        """Each member's level may have moved."""
        return state._replace(ratios=state.ratios + self.bank.ratios[:, np.newaxis])

    def correct(self, state: PooledBankState, sample: Any) -> tuple[PooledBankState, Any]:
        """Members by the Kalman filter's own step, their weights by the evidence, and the mixture's gain."""
        known = state.ratios[..., :1, :] < math.inf
        innovation = np.where(known, sample - state.means, 0.0)
        members = KalmanState(state.means, state.ratios)
        (means, ratios), gains = Kalman.correct(Kalman(q=0.0, r=1.0)._given(), members, sample)
        squares = np.mean(innovation * innovation, axis=-1, keepdims=True)
        count = np.where(known, state.count * self.bank.forgetting + 1.0, 0.0)
        now = np.sum(state.weights * squares, axis=-2, keepdims=True)
        unit = state.unit + np.where(known, (now - state.unit) / np.where(known, count, 1.0), 0.0)
        loss = squares + unit
        least = loss.min(axis=-2, keepdims=True)
        weights = state.weights * np.where(least > 0.0, least / np.where(loss > 0.0, loss, 1.0), 1.0) ** (
            0.5 * VOTES
        )
        weights = weights / weights.sum(axis=-2, keepdims=True)
        gain = np.sum(weights * gains, axis=-2, keepdims=True)
        share = self.bank.switch_rate / weights.shape[-2]
        mixed = np.sum(weights * means, axis=-2, keepdims=True)
        shared = (1.0 - self.bank.switch_rate) * weights + share
        means = means + share / shared * (mixed - means)
        return PooledBankState(means, ratios, shared, unit, count), gain


@dataclass(frozen=True)
class PooledSteps:
    """The own steps of a recursive estimator over channels that learn together what it pools."""

    estimator: Recursive

    @property
    def State(self) -> Any:  # noqa: N802 (as estimators call it)
        """NamedTuple of the state."""
        return self.estimator.State

    def prior(self) -> Any:
        """The estimator's own, the same for all channels."""
        return self.State(*(np.full((1, 1), float(field)) for field in self.estimator._prior()))

    def predict(self, state: Any) -> Any:
        """Time passes."""
        return self.estimator.predict(self.estimator._given(), state)

    def correct(self, state: Any, sample: Any) -> tuple[Any, Any]:
        """A sample arrives; the gain is the mean over the channels where each has its own."""
        after, gain = self.estimator.correct(self.estimator._given(), state, sample)
        return after, np.mean(np.broadcast_to(gain, sample.shape), axis=-1, keepdims=True)
