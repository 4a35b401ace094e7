"""What a guess at the start is worth against debiasing: where they break even; equal shares as a guess."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from estimators import EMA, DebiasedEMA
from experiments.agreement import closed_form
from experiments.figures import line, styled
from experiments.metrics import Measured
from experiments.setup import Setup, setting
from experiments.streams import Array, Domain
from experiments.summaries import CONFIDENCE, Rows
from experiments.tables import aligned, quantity

if TYPE_CHECKING:
    from experiments.startup import Parameters

BETTER = 0.05
"""Share by which one error is said to be more than another."""
FAR = 100.0
"""Standard deviations of the noise beyond which no guess is simulated or stated."""
GUESS = "guess at break-even"
RATIOS = (1.0, 1.2, 1.5, 2.0, 5.0, 500.0)
"""Of two tasks' gradient norms in the long run: how far their shares are from equal."""


# --- closed forms -------------------------------------------------------------------------------------------


def break_even(beta: float, t: Any) -> Any:
    """Distance of a guess from a constant level, in noise standard deviations, at which an EMA that starts
    there errs at sample t as much as the debiased EMA.

    With u = beta^t and g = (1 - beta)/(1 + beta) the two errors are u^2 d^2 + g (1 - u^2) and
    g (1 + u)/(1 - u) noise variances; they are equal at d^2 = g (1 + 2 / (u (1 - u))). That is least where
    u = 1/2, at the half-life: 3 sqrt(g).
    """
    u = beta ** np.asarray(t, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.sqrt(EMA(beta).noise_gain * (1.0 + 2.0 / (u * (1.0 - u))))


def harmless(beta: float) -> float:
    """Distance up to which such a guess errs less than the debiased EMA at every sample: 3 sqrt(g)."""
    return 3.0 * float(np.sqrt(EMA(beta).noise_gain))


def debiasing_helps(beta: float, distance: float) -> tuple[float, float] | None:
    """First and last sample at which the debiased EMA errs less than a guess so far off; None for nowhere."""
    excess = distance**2 / float(EMA(beta).noise_gain) - 1.0
    if excess <= 8.0:  # u (1 - u) > 2 / excess has no solution
        return None
    root = np.sqrt(1.0 - 8.0 / excess)
    first, last = (np.log(0.5 * (1.0 + sign * root)) / np.log(beta) for sign in (1.0, -1.0))
    first, last = max(1.0, float(np.floor(first) + 1.0)), float(np.ceil(last) - 1.0)
    return (first, last) if first <= last else None


# --- what is measured ---------------------------------------------------------------------------------------


def at_probe(metric: str, probe: int) -> str:
    """Name of a metric at a sample."""
    return f"{metric}_at_{probe}"


def excess_of_guess(beta: float, samples: Array, truth: Array, guess: float) -> float:
    """Squared error of an EMA that starts at a guess less that of the debiased EMA, after the last sample.

    samples (T, n), truth (n,); the mean over n, in squared units of the stream.
    """
    ends = (np.asarray(e.filter(samples).mean)[-1] for e in (EMA(beta, initial=guess), DebiasedEMA(beta)))
    guessed, debiased = ((end - truth) ** 2 for end in ends)
    return float((guessed - debiased).mean())


def equal_shares(setup: Setup) -> Iterator[Rows]:
    """Shares of tasks whose gradients are equally large in the long run, from 1/K and debiased."""
    chosen: Parameters = setup.parameters
    at = np.array(chosen.probes) - 1
    for tasks in chosen.tasks:
        kinds = {
            f"{kind}@{beta:g}": estimator
            for beta in chosen.betas
            for kind, estimator in (
                ("debiased", DebiasedEMA(beta)),
                ("equal", EMA(beta, initial=1.0 / tasks)),
            )
        }
        squares: dict[str, list[Array]] = {name: [] for name in kinds}
        spread = []
        for repetition in range(setup.seeds):
            raw = _raw_shares(chosen, tasks, setup.root_seed, repetition)
            spread.append(float(((raw - 1.0 / tasks) ** 2).mean()))
            for name, estimator in kinds.items():
                error = np.asarray(estimator.filter(raw).mean)[at] - 1.0 / tasks
                squares[name].append((error**2).mean(axis=(1, 2)))
        variance = Domain.weight.moments(1.0, chosen.log_sd**2)[1]
        for name, estimator in kinds.items():
            values, u = np.array(squares[name]), float(estimator.beta) ** (at + 1.0)
            factor = EMA(estimator.beta).noise_gain * (
                (1.0 - u**2) if name.startswith("equal") else (1.0 + u) / (1.0 - u)
            )
            measured = []
            for index, probe in enumerate(chosen.probes):
                metric = at_probe("mse", probe)
                measured.append(Measured(metric, "share^2", values[:, index]))
                if tasks == 2:
                    known = float(variance * factor[index])
                    measured.append(closed_form(metric, "share^2", known, len(values)))
            measured.append(Measured("raw_variance", "share^2", np.array(spread)))
            yield Rows(_shared(tasks), name, setting(estimator), measured)


def _shared(tasks: int) -> str:
    return f"equal shares of {tasks}"


def _raw_shares(chosen: Parameters, tasks: int, root_seed: int, repetition: int) -> Array:
    """Inverse-norm shares of tasks with equal median norms, (samples, streams, tasks)."""
    sequence = np.random.SeedSequence([root_seed, zlib.crc32(b"equal shares"), tasks, repetition])
    rng = np.random.Generator(np.random.SFC64(sequence))
    log_norms = rng.standard_normal((chosen.samples, chosen.streams, tasks)) * chosen.log_sd / np.sqrt(2.0)
    inverse = np.exp(-log_norms)
    raw: Array = inverse / inverse.sum(axis=2, keepdims=True)
    return raw


# --- what is told -------------------------------------------------------------------------------------------


def table_of_guesses(seen: Any, chosen: Parameters) -> str:
    """Break-even distances by beta and sample, how far simulations are off, what a right guess is worth."""
    heads = [*(f"at {probe}" for probe in chosen.probes), "off (se)", "right one at 1", "debiased +5 % to"]
    lines = [["beta", "never worse", *heads]]
    for beta in chosen.betas:
        even = np.atleast_1d(break_even(beta, chosen.probes))
        distances = [f"{distance:.3g}" if distance <= FAR else f"> {FAR:g}" for distance in even]
        own = [(level_name(beta), GUESS, at_probe("excess", probe)) for probe in chosen.probes]
        tried = [standard_errors(seen.loc[row], 0.0) for row in own if row in seen.index]
        off = "-" if not tried or np.isnan(tried).any() else f"{max(tried):.1f}"
        factor = f"x {1.0 - beta:.3g}"
        lines.append(
            [f"{beta:g}", f"{harmless(beta):.4f}", *distances, off, factor, f"{ahead_until(beta):,.0f}"]
        )
    return aligned(lines, texts=0)


def level_name(beta: float) -> str:
    """Name of the constant level on which estimators are set to a beta."""
    return f"constant level, beta {beta:g}"


def standard_errors(found: Any, value: float) -> float:
    """Standard errors between a mean of a summary and a value; NaN for a mean of one cell."""
    from scipy.special import stdtrit

    if found["n"] < 2:
        return np.nan
    error = (found["high"] - found["mean"]) / stdtrit(found["n"] - 1, 0.5 + 0.5 * CONFIDENCE)
    return float(abs(found["mean"] - value) / error)


def ahead_until(beta: float) -> float:
    """Last sample at which the debiased EMA errs 5 % or more above a right guess: 1/(1 - beta^t) times it."""
    return float(np.floor(np.log(BETTER / (1.0 + BETTER)) / np.log(beta)))


def middle(chosen: Parameters) -> int:
    """The probe in the middle of the list."""
    return chosen.probes[len(chosen.probes) // 2]


def table_of_shares(seen: Any, chosen: Parameters) -> str:
    """RMSE of the share at the middle probe, from 1/K and debiased; their ratio beside 1/(1 - beta^t)."""
    metric = at_probe("mse", middle(chosen))
    lines = [["beta", "tasks", "sd of raw share", "from 1/K", "debiased", "ratio", "exact"]]
    for beta in chosen.betas:
        for tasks in chosen.tasks:
            own = {kind: seen.loc[_shared(tasks), f"{kind}@{beta:g}"] for kind in ("equal", "debiased")}
            roots = [_root(own[kind].loc[metric]) for kind in own]
            means = [float(own[kind].loc[metric, "mean"]) for kind in own]
            raw = _root(own["equal"].loc["raw_variance"])
            ratio, known = np.sqrt(means[1] / means[0]), 1.0 / (1.0 - beta ** middle(chosen))
            lines.append([f"{beta:g}", str(tasks), raw, *roots, f"{ratio:.4g}", f"{known:.4g}"])
    return aligned(lines, texts=0)


def _root(one: Any) -> str:
    """Root of a mean square with half of its interval."""
    root = float(np.sqrt(one["mean"]))
    return quantity(root, 0.5 * float(one["high"] - one["mean"]) / root)


def table_of_ratios(chosen: Parameters) -> str:
    """From which to which sample debiasing helps two tasks that start at 1/2, by the ratio of norms."""
    lines = [["ratio", "mean raw share", "sd", "d", *(f"beta {beta:g}" for beta in chosen.betas)]]
    for ratio in RATIOS:
        small, variance = Domain.weight.moments(ratio, chosen.log_sd**2)
        mean, sd = 1.0 - small, variance**0.5
        distance = abs(mean - 0.5) / sd if ratio != 1.0 else 0.0
        spans = (debiasing_helps(beta, distance) for beta in chosen.betas)
        cells = ("none" if span is None else f"{span[0]:,.0f} to {span[1]:,.0f}" for span in spans)
        lines.append([f"{ratio:g}", f"{mean:.4f}", f"{sd:.4f}", f"{distance:.3g}", *cells])
    return aligned(lines, texts=0)


def figure_of_guesses(chosen: Parameters) -> Any:
    """Break-even distance of a guess against the sample, and how far off one is never worse."""
    t = np.unique(np.geomspace(1, chosen.samples, 400))
    with styled() as pyplot:
        figure, axis = pyplot.subplots(figsize=(5.2, 3.6))
        for index, beta in enumerate(chosen.betas):
            style = line(index)
            axis.loglog(t, break_even(beta, t), label=f"β = {beta:g}", **style)
            axis.axhline(harmless(beta), color=style["color"], linewidth=0.7, linestyle=":")
        axis.plot([], [], color="#555555", linewidth=0.7, linestyle=":", label="never worse below")
        axis.set(xlabel="sample", ylabel="distance of the guess (noise sd)", ylim=(0.03, 30.0))
        axis.text(0.02, 0.96, "debiased errs less", transform=axis.transAxes, va="top", fontsize=8)
        axis.text(0.02, 0.03, "guess errs less", transform=axis.transAxes, fontsize=8)
        figure.legend(loc="outside lower center", ncols=2)
        pyplot.close(figure)
    return figure
