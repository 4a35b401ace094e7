"""Impulse, step and frequency response, measured through the filter itself, against closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from estimators import EMA, LinearEstimator, matched
from experiments.figures import line, styled
from experiments.metrics import Measured
from experiments.runs import Outcome
from experiments.setup import Setup, setting
from experiments.streams import Array
from experiments.summaries import Column, Rows, long_table, summarise
from experiments.tables import latex, markdown

MARKS = {63: 1.0 - np.exp(-1.0), 86: 1.0 - np.exp(-2.0), 95: 1.0 - np.exp(-3.0)}
"""Shares of a step that an exponential reaches after one, two and three time constants."""
MEMORY = 45
"""Effective windows after which no weight is left that a float64 sum could show: exp(-45) < 3e-20."""
COLUMNS = (
    Column("time_constant", "time constant"),
    Column("half_life", "half-life"),
    Column("group_delay", "delay"),
    Column("noise_gain_db", "noise gain (dB)"),
    Column("cutoff", "cutoff (cyc/sample)"),
    *(Column(f"samples_to_{mark}", f"to {mark} %") for mark in MARKS),
    Column("largest_error", "largest error"),
)


@dataclass(frozen=True)
class Parameters:
    """betas: the EMAs whose noise gain every estimator is matched to; frequencies: how many are probed."""

    betas: list[float] = field(default_factory=lambda: [0.5, 0.9, 0.99, 0.999])
    frequencies: int = 25

    def __post_init__(self) -> None:
        if not self.betas or not all(0.0 < beta < 1.0 for beta in self.betas):
            raise ValueError(
                f"experiment.betas={self.betas} is not valid; it must be a list of numbers in (0, 1)"
            )
        if self.frequencies < 2:
            raise ValueError(
                f"experiment.frequencies={self.frequencies} is not valid; it must be an int >= 2"
            )


@dataclass(frozen=True)
class Response:
    """Measured responses of a settled estimator: to an impulse, to a step, at ``frequencies``."""

    estimator: LinearEstimator
    impulse: Array
    step: Array
    frequencies: Array
    gain: Any

    @classmethod
    def of(cls, estimator: LinearEstimator, frequencies: Array) -> Response:
        """Settle on zeros, then filter an impulse, a step, and cosines and sines."""
        n = int(np.ceil(MEMORY * float(np.max(estimator.effective_window)))) + 1
        settled = estimator.filter(np.zeros(n)).state
        time = np.arange(n, dtype=np.float64)
        phase = 2.0 * np.pi * time[:, np.newaxis] * frequencies
        waves = [estimator.filter(wave).mean[-1] for wave in (np.cos(phase), np.sin(phase))]
        return cls(
            estimator=estimator,
            impulse=np.asarray(estimator.filter(np.where(time == 0, 1.0, 0.0), settled).mean),
            step=np.asarray(estimator.filter(np.ones(n), settled).mean),
            frequencies=frequencies,
            gain=(waves[0] + 1j * waves[1]) * np.exp(-1j * phase[-1]),
        )

    def measured(self) -> Iterator[Measured]:
        """Closed forms, and the largest differences to what was measured."""
        estimator, h, n = self.estimator, self.impulse, len(self.impulse)
        age = np.arange(n)
        errors = {
            "impulse_error": np.abs(h - estimator.impulse_response(n)).max(),
            "step_error": np.abs(self.step - estimator.step_response(n)).max(),
            "frequency_error": np.abs(self.gain - estimator.frequency_response(self.frequencies)).max(),
            "noise_gain_error": abs(h @ h / estimator.noise_gain - 1.0),
            "group_delay_error": abs((age @ h) / h.sum() - estimator.group_delay)
            / max(1.0, estimator.group_delay),
            "steady_gain_error": abs(h[0] / estimator.steady_gain - 1.0),
        }
        for name in ("time_constant", "half_life", "group_delay", "effective_window"):
            yield _one(name, "samples", getattr(estimator, name))
        yield _one("noise_gain_db", "dB", 10.0 * np.log10(estimator.noise_gain))
        yield _one("cutoff", "cycles per sample", estimator.cutoff, "no cutoff")
        for mark, share in MARKS.items():
            # The last bits of a step may round away at the mark itself, where N times the share is whole.
            yield _one(f"samples_to_{mark}", "samples", 1.0 + np.argmax(self.step >= share * (1.0 - 1e-12)))
        for name, error in errors.items():
            yield _one(name, "share", error)
        yield _one("largest_error", "share", max(errors.values()))


def run(setup: Setup) -> Outcome:
    """Match every estimator to each beta's noise gain and measure it; ValueError where there is no match."""
    setup.check_untuned("experiment=response matches by noise gain itself")
    responses, rows = {}, []
    for beta in setup.parameters.betas:
        # from well below the EMA's half-power frequency to the highest there is
        frequencies = np.geomspace((1.0 - beta) / 20.0, 0.5, setup.parameters.frequencies)
        for name, estimator in setup.estimators.items():
            try:
                alike = matched(estimator, EMA(beta))
            except (TypeError, ValueError) as error:
                raise ValueError(f"estimators.{name}: no setting matches beta={beta} ({error})") from error
            if not isinstance(alike, LinearEstimator):
                raise ValueError(
                    f"estimators.{name}: {type(alike).__name__} has no closed forms to measure against"
                )
            label = f"{name}@{beta:g}"
            responses[name, beta] = Response.of(alike, frequencies)
            measured = list(responses[name, beta].measured())
            rows.append(Rows("impulse, step, waves", label, setting(alike), measured))
    table = long_table("response", rows)
    summary = summarise(table)
    betas = ", ".join(f"{beta:g}" for beta in setup.parameters.betas)
    text = (
        f"response: settled filters, matched in noise gain to EMAs of beta {betas}; times in samples.\n\n"
        f"{markdown(summary, COLUMNS)}\n\n"
        "To 63, 86, 95 %: samples of a unit step until the response has reached 1 - exp(-1), 1 - exp(-2),\n"
        "1 - exp(-3), measured. Largest error: of the measured impulse, step and frequency responses, noise\n"
        "gain, delay and gain, against the closed forms.\n"
    )
    figures = _figures(setup, responses)
    return Outcome(table, summary, text, figures, latex(summary, table, COLUMNS), COLUMNS)


def _one(metric: str, unit: str, value: Any, missing: str = "") -> Measured:
    return Measured(metric, unit, np.array([float(value)]), missing)


def _figures(setup: Setup, responses: dict[tuple[str, float], Response]) -> dict[str, Any]:
    betas, names = setup.parameters.betas, list(setup.estimators)
    return {
        "bode": _bode(betas, names, responses),
        "step": _in_time(betas, names, responses, "step"),
        "impulse": _in_time(betas, names, responses, "impulse"),
    }


def _panels(pyplot: Any, betas: list[float]) -> Any:
    figure, axes = pyplot.subplots(
        1, len(betas), figsize=(2.6 * len(betas) + 0.6, 3.1), squeeze=False, sharey=True
    )
    return figure, axes[0]


def _bode(betas: list[float], names: list[str], responses: dict[tuple[str, float], Response]) -> Any:
    # Lobes finer than a bin cannot be drawn as a line: each bin shows its highest and lowest magnitude.
    f = np.geomspace(1e-4, 0.5, 400 * 64).reshape(400, 64)
    with styled() as pyplot:
        figure, axes = _panels(pyplot, betas)
        for axis, beta in zip(axes, betas, strict=True):
            for index, name in enumerate(names):
                response, style = responses[name, beta], line(index)
                measured = _decibels(response.gain)
                closed = _decibels(response.estimator.frequency_response(f))
                lowest, highest = closed.min(axis=1), closed.max(axis=1)
                axis.semilogx(f[:, 32], highest, label=name, **style)
                axis.fill_between(f[:, 32], lowest, highest, color=style["color"], alpha=0.2, linewidth=0)
                axis.plot(response.frequencies, measured, "o", markersize=2.2, color=style["color"])
            axis.axhline(-10.0 * np.log10(2.0), color="#999999", linewidth=0.7)
            axis.set(title=f"β = {beta:g}", xlabel="frequency (cycles per sample)", ylim=(-75, 4))
        axes[0].set_ylabel("magnitude (dB)")
        axes[0].plot([], [], "o", markersize=2.2, color="#555555", label="measured")
        axes[0].plot([], [], color="#999999", linewidth=0.7, label="half power")
        axes[0].fill_between([], [], [], color="#555555", alpha=0.2, label="lobes narrower than the line")
        _legend(figure, axes[0])
        pyplot.close(figure)
    return figure


def _decibels(gain: Any) -> Any:
    return 20.0 * np.log10(np.maximum(np.abs(gain), 1e-6))


def _in_time(
    betas: list[float], names: list[str], responses: dict[tuple[str, float], Response], what: str
) -> Any:
    with styled() as pyplot:
        figure, axes = _panels(pyplot, betas)
        for axis, beta in zip(axes, betas, strict=True):
            tau = float(EMA(beta).time_constant)
            n = max(6, int(np.ceil(5.0 * tau)))
            for index, name in enumerate(names):
                values = getattr(responses[name, beta], what)[:n]
                shown = np.concatenate([[0.0], values]) if what == "step" else values / (1.0 - beta)
                axis.plot(np.arange(len(shown)), shown, label=name, drawstyle="steps-post", **line(index))
            for count, (mark, share) in enumerate(MARKS.items(), start=1):
                if what == "step":
                    at = np.ceil(count * tau)  # the first whole sample beyond it
                    axis.plot([0, at, at], [share, share, 0], color="#999999", linewidth=0.7)
                    axis.annotate(f"{mark} %", (0, share), (3, 2), textcoords="offset points", fontsize=7)
            axis.set(title=f"β = {beta:g}", xlim=(0, n))
            axis.set_xlabel("samples at the new level" if what == "step" else "age of the sample")
        if what == "step":
            axes[0].plot([], [], color="#999999", linewidth=0.7, label="EMA: reached 63, 86, 95 %")
        axes[0].set_ylabel("share of the step" if what == "step" else "weight, over 1 - β")
        _legend(figure, axes[0])
        pyplot.close(figure)
    return figure


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(5, len(labels)))
