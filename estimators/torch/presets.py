"""Settings of FilteredAdam that published optimisers, and ours, are: keyword arguments by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from estimators.adaptive import MehraKalman
from estimators.bank import KalmanBank
from estimators.covariance_matching import InnovationMatchingKalman
from estimators.ema import EMA, DebiasedEMA, EMAWithVariance
from estimators.kalman import Kalman
from estimators.torch.per_tensor import PerTensor

KAPPA = 0.7
"""Gain of DiSK's filter, the default of its authors."""

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Kingma and Ba 2015, arXiv 1412.6980, whose bias correction is that of DebiasedEMA.
        "adam": {"first": DebiasedEMA(0.9)},
        # Heavy ball (Polyak 1964) with the learning rate scaled by 1 - beta: the mean of a gradient, no sum.
        "momentum": {"first": EMA(0.9), "second": None},
        # Tieleman and Hinton 2012, lecture 6.5; smoothing 0.99 and no bias correction, as torch has it.
        "rmsprop": {"first": None, "second": EMA(0.99)},
        # Adam's settled gain behind a diffuse start: what a filter of fixed q/r adds (Kalman 1960).
        "kalman": {"first": Kalman.from_beta(0.9)},
        # One gain for a tensor, steered by the correlation of innovations (Mehra 1970, IEEE TAC 15).
        "mehra": {"first": PerTensor(MehraKalman(forgetting=0.98))},
        # One gain for a tensor, of a bank weighted by likelihood (Magill 1965, IEEE TAC 10).
        "bank": {"first": PerTensor(KalmanBank())},
        # Both variances of each coordinate by the size of its innovations (Mohamed and Schwarz 1999), which
        # does not tell one from the other: a negative control.
        "per_coordinate": {"first": InnovationMatchingKalman()},
        # You et al. 2020, arXiv 1904.00962; this first moment is Adam's, beside the variance of its error.
        "lamb": {"first": EMAWithVariance(0.9), "trust": "layer"},
        # The same without what is uncertain in the length of a step: proposed, without results, where fast.ai
        # discussed Kalman filters for averages of gradients (forum topic 43666).
        "lamb_discounted": {"first": EMAWithVariance(0.9), "trust": "discounted"},
        # DiSK (Zhang et al. 2024, arXiv 2410.03883) where it takes one gradient, (1 - kappa) / kappa ahead.
        "disk": {"first": EMA(1.0 - KAPPA), "extrapolation": (1.0 - KAPPA) / KAPPA},
        # Kalman gradient descent (Vuckovic 2018, arXiv 1810.12273): the gradient's block of its filter, which
        # the weights never enter, with its constants; the gain settles at 0.0683.
        "kgd": {"first": Kalman(q=0.01, r=2.0, mean=0.0, variance=0.01), "second": None},
        # Liang et al. 2024, arXiv 2411.16085, on Adam.
        "cautious": {"first": DebiasedEMA(0.9), "cautious": True},
    }
)
"""By name, in the order in which tables have them; adam, the baseline, first."""
