"""The quantities that texts state of running estimators, each recomputed from the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import numpy as np

from estimators import EMA, DebiasedEMA, Kalman
from estimators.shares import by_inverse_norm
from experiments.claims_recomputed import Given, Quantity, Recomputed
from experiments.claims_stated import SHOWN, Claim, shown
from experiments.recall_memories import importable
from experiments.recorder import MissingExtraError
from experiments.registry import nearest
from experiments.response import MEMORY
from experiments.streams import Array
from experiments.summaries import mean_interval
from experiments.tables import quantity as told

CHANNELS = 1000
"""In which the states of two filters are compared."""
RATIOS = np.geomspace(1e-6, 100.0, 9)
"""q/r at which a Kalman filter is compared with the EMA that it settles to."""
NO_TORCH = "it needs torch: pip install 'kalmean[torch]'"
WARMUP, RAW = 100, 0.998
"""Steps at equal shares, and the share from then on, in the walkthrough of a jump."""
WIDEST = 100_000
"""Effective window, samples, over ``MEMORY`` of which that walkthrough is followed."""
GAP_SIGMA = 0.2
"""State noise, sd, at which the gap that a stronger predictor closes is judged."""


def _one(value: Any, also: str = "") -> Recomputed:
    return Recomputed(np.array([value], dtype=np.float64), also)


# --- closed forms -------------------------------------------------------------------------------------------


def _window(given: Given) -> Recomputed:
    tau = given.ema.time_constant
    return _one(
        given.ema.effective_window,
        f"at beta {given['beta']:g} a step reaches 1 - 1/e after -1/ln(beta) = {tau:.5g} samples",
    )


def _cutoff(given: Given) -> Recomputed:
    there = _decibels(np.abs(given.ema.frequency_response(given.stated)))
    return _one(given.ema.cutoff, f"at {given.stated:g} the magnitude is {there:.2f} dB")


def _decibels(gain: Any) -> float:
    return float(20.0 * np.log10(gain))


def _gain(given: Given) -> Recomputed:
    unit: Callable[[Any], float] = _decibels if given.claim.unit == "dB" else float
    gain = np.abs(given.ema.frequency_response(given["f"]))
    return _unless_continuous(given, unit(gain), unit(_continuous(given)))


def _attenuation(given: Given) -> Recomputed:
    gain = np.abs(given.ema.frequency_response(given["f"]))
    return _unless_continuous(given, 1.0 / gain, 1.0 / _continuous(given))


def _continuous(given: Given) -> float:
    """Magnitude at f of a first-order filter in continuous time, of time constant 1/(1 - beta)."""
    return float(1.0 / np.hypot(1.0, 2.0 * np.pi * given["f"] * given.ema.effective_window))


def _unless_continuous(given: Given, value: Any, continuous: float) -> Recomputed:
    """A magnitude, and whether what is stated is that of the filter in continuous time instead."""
    taken = given.misses(value) and not given.misses(continuous)
    return _one(value, f"{given.claim.stated} holds in continuous time, tau = 1/(1 - beta)" * taken)


def _least_beta(given: Given) -> Recomputed:
    beta = EMA.from_attenuation(given["db"], given["f"]).beta
    if not 0.0 <= given.stated < 1.0:
        return _one(beta)
    there = -_decibels(np.abs(EMA(given.stated).frequency_response(given["f"])))
    return _one(beta, f"at beta {given.stated:g} it is {there:.1f} dB")


def _step(given: Given) -> Recomputed:
    return _indexed(given, given.ema.step_response(given.n + 2), "y")


def _weight(given: Given) -> Recomputed:
    return _indexed(given, given.ema.impulse_response(given.n + 2), "h")


def _indexed(given: Given, values: Array, name: str) -> Recomputed:
    """A sample of a response, and whether a sample beside it is what is stated."""
    n, also = given.n, ""
    if given.misses(values[n]):
        beside = [k for k in (n - 1, n + 1) if k >= 0 and not given.misses(values[k])]
        also = "".join(f"{given.claim.stated} is {name}[{k}]" for k in beside[:1])
    return _one(values[n], also)


def _window_share(given: Given) -> Recomputed:
    n = given.windowed()
    return _one(
        given.ema.impulse_response(n).sum(), f"the newest {n} samples; 1 - 1/e is {-np.expm1(-1.0):.4f}"
    )


def _left(given: Given) -> Recomputed:
    after = EMA(given["beta"], initial=1.0).filter(np.zeros(given.n)).mean
    return _one(after[-1] if given.n else 1.0)


def _soft_update(given: Given) -> Recomputed:
    return _one(EMA.from_alpha(given["rate"]).beta)


def _inverse_norm(given: Given) -> Recomputed:
    if given["ratio"] <= 0.0:
        raise ValueError(f"ratio={given['ratio']:g} is not valid; it must be > 0")
    return _one(by_inverse_norm(np.array([1.0, given["ratio"]]))[1], f"1/(1 + {given['ratio']:g})")


# --- filters on the numbers that are given ------------------------------------------------------------------


def _raw(given: Given) -> Recomputed:
    return _one(given.ema.filter(given.samples).mean[-1])


def _debiased(given: Given) -> Recomputed:
    mean = DebiasedEMA(given["beta"]).filter(given.samples).mean[-1]
    mass = 1.0 - given["beta"] ** given.samples.size
    return _one(mean, f"{_raw(given).values[0]:.6g} over {mass:.6g}")


def _one_step(given: Given) -> Recomputed:
    start = given.ema.init(given.samples)
    return Recomputed(np.asarray(given.ema.update(start, given.samples).mean))


def _settled(given: Given) -> Recomputed:
    """Both filters on white noise of unit variance, at several q/r abreast, from the settled state on."""
    drawn = np.random.default_rng([given.root_seed, crc32(given.claim.quantity.encode())])
    noise = drawn.standard_normal(10_000)
    diffuse = Kalman(q=RATIOS, r=1.0)
    settled = Kalman(q=RATIOS, r=1.0, mean=0.0, variance=diffuse.steady_gain)  # r K
    apart = [
        np.abs(kalman.filter(noise).mean - kalman.steady_state().filter(noise).mean).max()
        for kalman in (settled, diffuse)
    ]
    return _one(
        apart[0],
        f"at {RATIOS.size} q/r from {RATIOS[0]:g} to {RATIOS[-1]:g}; before it has settled, from a diffuse "
        f"start, up to {apart[1]:.2f} noise sd",
    )


def _memory(given: Given) -> Recomputed:
    """Bytes of the states that two filters hold: of torch where gaps are shared, else those of NumPy."""
    drawn = np.random.default_rng([given.root_seed, crc32(given.claim.quantity.encode())])
    noise = drawn.standard_normal((50, CHANNELS))
    noise[::7] = np.nan
    own = np.where(drawn.random(noise.shape) < 0.1, np.nan, noise)
    in_numpy = _times(noise, lambda sample: sample)
    said = [f"{in_numpy:g} in NumPy"]
    shared = "shared" in given.claim.parameters
    if not importable("torch"):
        if shared:
            raise MissingExtraError(NO_TORCH)
        return _one(in_numpy, said[0])
    import torch

    common, apart = (_times(samples, torch.from_numpy) for samples in (noise, own))
    said += [f"{common:g} in torch with gaps in common", f"{apart:g} there with gaps of their own"]
    return _one(common if shared else in_numpy, f"{CHANNELS:,} channels: {', '.join(said)}")


def _times(samples: Array, given_as: Callable[[Array], Any]) -> float:
    """Bytes of a Kalman filter's state over those of the EMA's that it settles to, after samples (T, N)."""
    kalman, held = Kalman(q=0.01, r=1.0), []
    for estimator in (kalman, kalman.steady_state()):
        state: Any = estimator.init(given_as(samples[0]))
        for sample in samples:
            state = estimator.update(state, given_as(sample))
        held.append(
            sum(np.asarray(field).nbytes for field in state)
        )  # what is shared is one float of 8 bytes
    return held[0] / held[1]


# --- what needs other packages, or other experiments --------------------------------------------------------


def _batch_norm(given: Given) -> Recomputed:
    if not importable("torch.nn"):
        raise MissingExtraError(NO_TORCH)
    from torch.nn import BatchNorm1d

    momentum = BatchNorm1d(1).momentum
    return _one(EMA.from_alpha(momentum).beta, f"its default momentum, {momentum:g}, weighs the newest batch")


def _share(given: Given) -> Recomputed:
    if given.n < 1:
        raise ValueError("n=0 is not valid; it must be an int >= 1, as steps are counted")
    return _of_walkthrough(given, given.n)


def _share_after(given: Given) -> Recomputed:
    return _of_walkthrough(given, given.n + WARMUP)


def _of_walkthrough(given: Given, step: int) -> Recomputed:
    """The share at a step, and the step at which it passes what is stated instead."""
    weights = _shares(given, step)
    passes = np.flatnonzero(weights >= given.stated)
    shown = given.misses(weights[step - 1]) and passes.size
    return _one(weights[step - 1], f"it passes {given.claim.stated} at step {passes[0] + 1}" if shown else "")


def _steps_to(given: Given) -> Recomputed:
    from experiments.transition import steps_to

    weights, step = _shares(given), round(float(np.clip(given.stated, 0.0, MEMORY * WIDEST)))
    also = ""
    if 1 <= step <= weights.size - WARMUP:
        also = f"{step} steps after the jump it is {weights[WARMUP + step - 1]:.4f}"
    return _one(steps_to(weights, given["level"], warmup=WARMUP), also)


def _shares(given: Given, least: int = 0) -> Array:
    """The large share at every step until it has settled, and at so many at least."""
    from experiments.transition import shares

    warmup, raw = round(given.numbers.get("warmup", WARMUP)), given.numbers.get("raw", RAW)
    steps = max(least - warmup, MEMORY * (given.windowed(WIDEST) + 1))
    smoother = EMA(given["beta"], initial=0.5)
    weights: Array = shares(smoother, raw=raw, warmup=warmup, steps=steps, floor=0.0)
    return weights


def _gap_closed(given: Given) -> Recomputed:
    from experiments.recall import gap_closed
    from experiments.recall_tasks import SIGMAS

    shares = dict(zip(SIGMAS, gap_closed(given.repetitions, given.root_seed), strict=True))
    values = shares.pop(GAP_SIGMA)
    others = (f"{_interval(own)} at sigma {sigma:g}" for sigma, own in shares.items())
    return Recomputed(values, ", ".join(others), simulated=True)


def _structure_share(given: Given) -> Recomputed:
    from experiments.recall import structure_share

    return Recomputed(structure_share(given.repetitions, given.root_seed), simulated=True)


def _interval(values: Array) -> str:
    mean, _, high, _ = mean_interval(values)
    return told(mean, high - mean)


QUANTITIES = (
    Quantity(
        ("EMA time constant 1/(1-beta)", "effective window 1/(1-beta)"),
        "1/(1 - beta) as worded is the effective window",
        ("beta",),
        ("samples",),
        _window,
    ),
    Quantity(
        ("-3 dB cutoff frequency",),
        "frequency of half power, arcsin((1 - beta)/(2 sqrt(beta)))/pi",
        ("beta",),
        ("cycles/sample",),
        _cutoff,
    ),
    Quantity(
        ("magnitude response at f={f}",),
        "|H(f)| = (1 - beta)/|1 - beta exp(-2 pi i f)|",
        ("beta", "f"),
        ("ratio", "dB"),
        _gain,
    ),
    Quantity(
        ("magnitude response at Nyquist",),
        "|H(1/2)| = (1 - beta)/(1 + beta)",
        ("beta",),
        ("ratio", "dB"),
        _gain,
        {"f": "0.5"},
    ),
    Quantity(
        ("attenuation factor 1/|H| at f={f}",),
        "|1 - beta exp(-2 pi i f)|/(1 - beta)",
        ("beta", "f"),
        ("ratio",),
        _attenuation,
    ),
    Quantity(
        ("smallest beta whose attenuation at f={f} reaches {db} dB",),
        "beta of EMA.from_attenuation",
        ("f", "db"),
        ("beta",),
        _least_beta,
    ),
    Quantity(
        ("unit-step response y[{n}] from zero",),
        "y[n] = 1 - beta^(n + 1), y[0] being after the first sample",
        ("beta", "n"),
        ("value",),
        _step,
    ),
    Quantity(
        ("impulse response h[{n}]",),
        "h[n] = (1 - beta) beta^n, h[0] weighing the newest sample",
        ("beta", "n"),
        ("value",),
        _weight,
    ),
    Quantity(
        ("share of the total weight on the newest 1/(1-beta) samples",),
        "sum of the newest weights, 1 - beta^N with N = 1/(1 - beta)",
        ("beta",),
        ("share",),
        _window_share,
    ),
    Quantity(
        (
            "weight of the large share at step {n}",
            "weight of the large share at step {n} (0.5 for {warmup} steps; then raw {raw})",
        ),
        f"EMA that starts at 1/2, {WARMUP} samples of 1/2, then {RAW:g}",
        ("beta", "n"),
        ("value",),
        _share,
    ),
    Quantity(
        ("weight of the large share {n} steps after the jump",),
        f"EMA that starts at 1/2, {WARMUP} samples of 1/2, then {RAW:g}",
        ("beta", "n"),
        ("value",),
        _share_after,
    ),
    Quantity(
        ("steps after the jump until the large share exceeds {level}",),
        "first step after the jump at which the share of that EMA exceeds it",
        ("beta", "level"),
        ("samples",),
        _steps_to,
    ),
    Quantity(
        ("beta equivalent of PyTorch BatchNorm default momentum",),
        "1 - momentum",
        (),
        ("beta",),
        _batch_norm,
        {"library": "torch"},
        needs=("torch",),
    ),
    Quantity(
        ("beta of a soft target update with rate {rate}",), "1 - rate", ("rate",), ("beta",), _soft_update
    ),
    Quantity(
        ("inverse-norm weight of the larger-gradient task at a {ratio}x ratio",),
        "1/n over the sum of 1/n",
        ("ratio",),
        ("weight",),
        _inverse_norm,
    ),
    Quantity(("raw EMA after [{samples}]",), "EMA from zero", ("beta", "n"), ("value",), _raw),
    Quantity(
        ("bias-corrected EMA after [{samples}]",),
        "DebiasedEMA, the EMA from zero over its weight mass 1 - beta^n",
        ("beta", "n"),
        ("value",),
        _debiased,
    ),
    Quantity(
        ("bias left at step {n}: beta^{n}",),
        "weight that the start still has after n samples",
        ("beta", "n"),
        ("value",),
        _left,
    ),
    Quantity(("one EMA step from zero on [{samples}]",), "(1 - beta) x", ("beta",), ("value",), _one_step),
    Quantity(
        (
            "largest steady-state difference between a random-walk Kalman filter and the EMA with "
            "beta = 1 - gain",
        ),
        "largest difference on white noise of unit variance, settled from the first sample on",
        (),
        ("value",),
        _settled,
    ),
    Quantity(
        ("state size of a random-walk Kalman filter over the state size of an EMA",),
        "bytes of the states that the library holds",
        (),
        ("ratio",),
        _memory,
        needs=("torch",),
    ),
    Quantity(
        ("loss gap closed by a stronger predictor over the same EMA traces",),
        "share of the gap from the linear predictor to the exact ceiling that is closed, in nats, of lags 1, "
        f"2, 3 and 5 pooled, at state noise sigma {GAP_SIGMA:g}",
        (),
        ("share",),
        _gap_closed,
        needs=("sklearn",),
        analogue="the tokens of experiment=recall",
        lacks="the words speak of any predictor and text, which one analogue can refute, not confirm",
        general=True,
    ),
    Quantity(
        ("structure accuracy of multi-timescale EMA traces over a supervised recurrent model",),
        "accuracy of a linear readout of the traces, with labels, over that of a GRU; the source's traces "
        "learn without labels, its GRU reads both ways, and its sentences are natural",
        (),
        ("ratio",),
        _structure_share,
        needs=("sklearn", "torch"),
        analogue="the grammar of experiment=recall",
        lacks="the source's sentences are not here",
    ),
)


def quantity_of(claim: Claim) -> Quantity:
    """The quantity that a claim words; ValueError where none is worded so."""
    for quantity in QUANTITIES:
        if quantity.says(claim.quantity) is not None:
            return quantity
    wordings = [wording for quantity in QUANTITIES for wording in quantity.wordings]
    valid = nearest(claim.quantity[:SHOWN], wordings)
    raise ValueError(f"quantity={shown(claim.quantity)} is not one that is recomputed; {valid}")
