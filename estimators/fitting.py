"""Maximum likelihood of the random-walk model: q and r from a stream, and how far they can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators._parameters import Parameter, Shown, brief, plain
from estimators._samples import DOUBLE, OnInfinite, as_stream, settle_infinity
from estimators.kalman import Kalman
from estimators.results import check_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._display import Facts

CONVENTION = (
    "Gaussian log density of the n - 1 present samples after the first, constants included; "
    "the first sets the level (diffuse start) and adds nothing"
)
"""Which log-likelihood is meant, of the several in use: the one of ``FilterResult.loglikelihood``."""

SHORT = 50
"""Samples below which the large-sample theory behind intervals and tests is doubtful."""
HALF = 8
"""Samples in each half without which halves are not compared."""
DISAGREE = 0.01
"""p-value of the halves below which their disagreement is worth a warning."""
NO_NOISE = 2.0**-500
"""r of the filter made from a constant stream: next to nothing, and far from where numbers lose digits."""

_WIDEST = 510
"""Binary exponent of a spread whose square is still well inside the numbers."""
_BEYOND = 40.0
"""How far past its ends the grid of log s is searched: there the likelihood is that of the boundary."""
_CLOSE = 1e-8
"""A step of Newton's after which the error is its square, below the rounding."""
_STEPS = 100


@dataclass(frozen=True, eq=False)
class FitResult(Shown):
    """Maximum-likelihood fit of the random-walk model; floats for one channel, arrays of the channels' shape.

    q, r: variances in the stream's unit squared, q per sample. beta: 1 - settled gain, 1 at q = 0 and 0 at
    r = 0. A constant stream has q = r = 0, beta = 1, an infinite log-likelihood and an interval of (0, 1).
    """

    q: Parameter
    r: Parameter
    beta: Parameter
    loglikelihood: Parameter
    convention: str
    """Which terms the log-likelihood counts."""
    n: int | NDArray[np.int64]
    """Samples present."""
    q_error: Parameter
    """Standard error from the observed information in (q, r); inf at q = 0, where no curvature bounds it."""
    r_error: Parameter
    """Standard error, with q known where that is 0; inf at r = 0."""
    beta_interval: tuple[Parameter, Parameter]
    """Profile-likelihood interval of beta: up to 1 where s = 0 is not rejected, from 0 where r = 0 is not."""
    at_boundary: str | NDArray[np.str_]
    """Which variance is 0: "q", "r", or "" for neither; "q" for a constant stream, where both are."""
    halves_p_value: Parameter
    """p-value of the likelihood-ratio test that both halves of the samples share q and r (chi-squared, 2
    degrees of freedom, conservative near a boundary); NaN where a half has fewer than 8 samples."""
    warnings: tuple[str, ...]
    """What speaks against the fit, one sentence each, by channel where there are several."""

    @property
    def s(self) -> Parameter:
        """Ratio q/r: 0 at q = 0, inf at r = 0."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = np.asarray(self.q) / np.asarray(self.r)
        return plain(np.where(np.asarray(self.q) == 0.0, 0.0, ratio))

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        for name in ("q", "r"):
            yield name, _display.number(getattr(self, name))
            if full:
                yield f"standard error of {name}", _display.number(getattr(self, f"{name}_error"))
        yield "beta", _display.number(self.beta)
        yield "interval of beta", _display.interval(*self.beta_interval)
        yield "log-likelihood", _display.number(self.loglikelihood)
        yield "samples", _display.number(self.n)
        if full:
            yield "p-value of equal halves", _display.number(self.halves_p_value)
            yield from (("warning", warning) for warning in self.warnings[: _display.FEW])
        elif self.warnings:
            yield "warnings", len(self.warnings)

    def estimator(self) -> Kalman:
        """Return the diffuse Kalman(q, r); for a constant stream q = 0 and r = 2^-500, a running mean."""
        constant = (np.asarray(self.q) == 0.0) & (np.asarray(self.r) == 0.0)
        return Kalman(q=self.q, r=plain(np.where(constant, NO_NOISE, self.r)))


def fit(x: Any, *, level: float = 0.95, on_infinite: OnInfinite = "raise") -> FitResult:
    """Fit q and r of the random-walk model to a stream by exact maximum likelihood.

    x: shape (T,) or (T, *channels), time on axis 0, NaN or None where missing; channels are fitted each by
    itself. level: of ``beta_interval``. Multiplying x by c multiplies q and r by c^2, adding to x changes
    nothing. Raises TypeError and ValueError as filter does, and ValueError where a channel has fewer than 2
    samples present, where its samples differ by 3e153 or more or all by less than 1e-154, and unless
    0 < level < 1.

    Diffuse start, scale concentrated out: Harvey (1989), Forecasting, Structural Time Series Models and the
    Kalman Filter, section 3.4; de Jong (1988), Biometrika 75; Durbin and Koopman (2012), sections 2.9-2.10.
    The score is the derivative of the filter itself, and the maximum a root of it. Interval and test by the
    likelihood ratio: Cox and Hinkley (1974), Theoretical Statistics, section 9.3.
    """
    check_level(level)
    samples, _ = as_stream(x)
    samples = settle_infinity(samples, on_infinite, DOUBLE)
    channels = samples.shape[1:]
    rows = samples.reshape(len(samples), math.prod(channels)).T
    n = np.count_nonzero(~np.isnan(rows), axis=1)
    _check_count(n, channels)
    with np.errstate(all="ignore"):
        return _fitted(rows, n, channels, level)


def _check_count(n: NDArray[Any], channels: tuple[int, ...]) -> None:
    if np.any(n < 2):
        place = int(np.argmax(n < 2))
        where = f" in {_channel(place, channels)}" if channels else ""
        holds = "1 sample that is" if n[place] == 1 else "0 samples that are"
        raise ValueError(f"x holds {holds} present{where}; fit needs at least 2")


def _channel(place: int, channels: tuple[int, ...]) -> str:
    index = tuple(int(i) for i in np.unravel_index(place, channels))
    return f"channel {index[0] if len(index) == 1 else index}"


def _fitted(rows: NDArray[np.float64], n: NDArray[Any], channels: tuple[int, ...], level: float) -> FitResult:
    whole = _from_second(rows)
    exponent = _exponents(whole, channels)
    varies = exponent > -math.inf
    scale = np.where(varies, exponent, 0.0).astype(np.int64)
    found = _Found.of(rows[varies], whole[varies], n[varies], scale[varies], level)

    def spread(values: Any, constant: float) -> Any:
        everywhere = np.full(n.shape, constant)
        everywhere[varies] = values
        return everywhere

    variance = np.ldexp(1.0, 2 * scale)
    q, r = spread(found.q, 0.0) * variance, spread(found.r, 0.0) * variance
    value = spread(found.value, math.inf) - (n - 1) * scale * math.log(2.0)
    boundary = np.full(n.shape, "q")
    boundary[varies] = found.boundary
    beta, lower, upper = spread(found.beta, 1.0), spread(found.lower, 0.0), spread(found.upper, 1.0)
    p_value = np.where(n // 2 < HALF, math.nan, spread(found.p_value, 1.0))
    beta_1, r_1, beta_2, r_2 = (spread(half, 0.0) for half in found.halves)
    halves = beta_1, r_1 * variance, beta_2, r_2 * variance
    sentences = tuple(_warnings(n, varies, boundary, p_value, halves, channels))

    def out(values: NDArray[Any]) -> Any:
        return plain(values.reshape(channels))

    return FitResult(
        q=out(q),
        r=out(r),
        beta=out(beta),
        loglikelihood=out(value),
        convention=CONVENTION,
        n=n.reshape(channels) if channels else int(n[0]),
        q_error=out(spread(found.q_error, math.inf) * variance),
        r_error=out(spread(found.r_error, math.inf) * variance),
        beta_interval=(out(lower), out(upper)),
        at_boundary=boundary.reshape(channels) if channels else str(boundary[0]),
        halves_p_value=out(p_value),
        warnings=sentences,
    )


def _warnings(
    n: NDArray[Any],
    varies: NDArray[Any],
    boundary: NDArray[Any],
    p_value: NDArray[Any],
    halves: tuple[NDArray[Any], ...],
    channels: tuple[int, ...],
) -> Iterator[str]:
    """Say in words what speaks against each channel's fit."""
    doubtful = (n < SHORT) | ~varies | (boundary != "") | (p_value < DISAGREE)
    for c in map(int, np.flatnonzero(doubtful)):
        of = f"{_channel(c, channels)}: " if channels else ""
        if not varies[c]:
            yield f"{of}all samples are equal, so q and r are both 0 and nothing is known of their ratio"
        elif boundary[c] == "q":
            yield (
                f"{of}q is 0: no movement of the level shows against the noise, and beta = 1 averages all "
                f"samples alike; see beta_interval for what else would do"
            )
        elif boundary[c] == "r":
            yield f"{of}r is 0: no noise shows against the movement, and beta = 0 takes each sample as it is"
        if p_value[c] < DISAGREE:
            beta_1, r_1, beta_2, r_2 = (half[c] for half in halves)
            yield (
                f"{of}the halves disagree (p = {p_value[c]:.2g}): beta = {beta_1:.6g} and r = {r_1:.3g} in "
                f"the first, beta = {beta_2:.6g} and r = {r_2:.3g} in the second"
            )
        if n[c] < SHORT:
            yield f"{of}only {n[c]} samples: errors and interval are rough below {SHORT}"


# --- streams as the compiled pass wants them ----------------------------------------------------------------


def _from_second(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples after the first present one, less that one, shape (C, T); NaN behind their end.

    Differences first, so that a large offset costs no digits.
    """
    if rows.shape[0] == 0:
        return rows[:, 1:]
    present = ~np.isnan(rows)
    first = np.argmax(present, axis=1)
    differences = rows - np.take_along_axis(rows, first[:, np.newaxis], axis=1)
    count = rows.shape[1] - 1 - int(first.min())
    if np.all(first == first[0]):
        return differences[:, first[0] + 1 :]
    index = np.arange(1, count + 1) + first[:, np.newaxis]
    moved = np.take_along_axis(differences, np.minimum(index, rows.shape[1] - 1), axis=1)
    return np.where(index < rows.shape[1], moved, math.nan)


def _exponents(whole: NDArray[np.float64], channels: tuple[int, ...]) -> NDArray[np.float64]:
    """Binary exponents of the spreads, -inf for a constant channel; ValueError if a square has no number."""
    largest = np.fmax.reduce(np.abs(whole), axis=1, initial=0.0)
    exponent = np.where(largest > 0.0, np.frexp(largest)[1], -math.inf)
    bad = (largest > 0.0) & (np.abs(exponent) > _WIDEST)
    if bad.any():
        place = int(np.argmax(bad))
        where = f" in {_channel(place, channels)}" if channels else ""
        raise ValueError(
            f"x differs from its first sample by up to {brief(float(largest[place]))}{where}; fit needs the "
            f"square of that to be a number, so multiply x by a constant"
        )
    return exponent


def _halves(rows: NDArray[np.float64], n: NDArray[Any]) -> list[NDArray[np.float64]]:
    """First and second half of the samples present."""
    in_first = np.cumsum(~np.isnan(rows), axis=1) <= (n // 2)[:, np.newaxis]
    return [_from_second(np.where(chosen, rows, math.nan)) for chosen in (in_first, ~in_first)]


class _Lanes(NamedTuple):
    """Log-likelihood at some settings, concentrated, with derivatives by theta = log s."""

    value: NDArray[np.float64]
    slope: NDArray[np.float64]
    curvature: NDArray[np.float64]
    direction: NDArray[np.float64]
    """A slope that does not vanish at the boundaries."""
    logs: NDArray[np.float64]
    """Sum of log S, at q + r = 1."""
    square: NDArray[np.float64]
    """Sum of nu^2 / S, at q + r = 1."""
    tilt: NDArray[np.float64]
    """Derivative of the log of ``square`` by theta."""


@dataclass(frozen=True, eq=False)
class _Streams:
    """Streams on which the compiled pass runs."""

    samples: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terms: NDArray[np.float64]

    @classmethod
    def of(cls, parts: list[NDArray[np.float64]], scale: NDArray[np.int64]) -> _Streams:
        """Put parts of the same channels, (C, T) each, under each other, in units near their spread."""
        from estimators._likelihood import PASS

        count, width = len(scale), max(1, *(part.shape[1] for part in parts))
        samples = np.full((len(parts) * count, width + -width % PASS), math.nan)
        for k, part in enumerate(parts):
            block = samples[k * count : (k + 1) * count, : part.shape[1]]
            np.ldexp(part, -scale[:, np.newaxis], out=block)
        present = ~np.isnan(samples)
        last = samples.shape[1] - np.argmax(present[:, ::-1], axis=1)
        lengths = np.where(present.any(axis=1), last + -last % PASS, 0)
        return cls(samples, lengths, np.count_nonzero(present, axis=1).astype(np.float64))

    def at(self, channel: NDArray[np.int64], theta: NDArray[np.float64]) -> _Lanes:
        """Evaluate settings log s, of which -inf is q = 0 and inf is r = 0."""
        from estimators._likelihood import SUMS, likelihood_sums

        q, r = _shares(theta)
        sums = np.empty((len(theta), SUMS))
        likelihood_sums()(self.samples, self.lengths, channel, q, r, sums)
        logs, logs1, logs2, square, square1, square2 = sums.T
        m = self.terms[channel]
        tilt = square1 / square
        value = -0.5 * (m * (math.log(2.0 * math.pi) + 1.0 + np.log(square / m)) + logs)
        by_q = -0.5 * (logs1 + m * tilt)
        by_q2 = -0.5 * (logs2 + m * (square2 / square - tilt**2))
        turn = q * r  # dq / dtheta
        curvature = turn * (turn * by_q2 + (r - q) * by_q)
        return _Lanes(value, turn * by_q, curvature, by_q, logs, square, turn * tilt)


def _shares(theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Settings q + r = 1 of log ratio theta, exact at both ends."""
    return 1.0 / (1.0 + np.exp(-theta)), 1.0 / (1.0 + np.exp(theta))


def _beta(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 - settled gain, the smaller root of beta + 1/beta = 2 + s without cancellation."""
    s = np.exp(theta)
    return 1.0 / (1.0 + 0.5 * s + np.sqrt(s * (1.0 + 0.25 * s)))


# --- the search ---------------------------------------------------------------------------------------------


def _grid(steps: int) -> NDArray[np.float64]:
    """Settings log s from where q over the whole stream is little against r, to where r is little.

    A step of 1 or so: the likelihood of any stream changes its course no faster. The boundaries stand at
    both ends; on the way there it is all but linear, in s and in 1/s, and turns once at most.
    """
    low, high = math.log(1e-2) - 2.0 * math.log(max(steps, 2)), math.log(1e4)
    inner = np.linspace(low, high, math.ceil(high - low))
    return np.concatenate([[-math.inf], inner, [math.inf]])


def _roots(
    of: Callable[[NDArray[np.float64], NDArray[np.int64]], tuple[NDArray[Any], NDArray[Any]]],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    positive_below: Any,
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Find where functions change sign in brackets by Newton's method, or halving where it would stray.

    of(points, which) gives values and slopes. Press et al. (2007), Numerical Recipes, section 9.4.
    """
    low, high = low.copy(), high.copy()
    root = np.where((start > low) & (start < high), start, 0.5 * (low + high))
    step, below = high - low, np.broadcast_to(positive_below, low.shape)
    todo = np.arange(len(root))
    for _ in range(_STEPS):
        if len(todo) == 0:
            break
        here = root[todo]
        value, slope = of(here, todo)
        on_low_side = (value > 0.0) == below[todo]
        low[todo] = np.where(on_low_side, here, low[todo])
        high[todo] = np.where(on_low_side, high[todo], here)
        newton = np.where(value == 0.0, 0.0, -value / slope)
        close = np.abs(newton) <= _CLOSE
        inside = (here + newton >= low[todo]) & (here + newton <= high[todo])
        trusted = close | (inside & (np.abs(newton) <= 0.5 * np.abs(step[todo])))
        step[todo] = np.where(trusted, newton, 0.5 * (low[todo] + high[todo]) - here)
        root[todo] = here + step[todo]
        todo = todo[~(close | (np.abs(step[todo]) <= 1e-15 * np.abs(here)))]
    return root


def _maxima(streams: _Streams, grid: NDArray[np.float64]) -> tuple[NDArray[np.float64], _Lanes]:
    """Log s of the highest likelihood of each stream, and its likelihood on the grid, (C, G)."""
    count, size = len(streams.terms), len(grid)
    flat = streams.at(np.repeat(np.arange(count), size), np.tile(grid, count))
    table = _Lanes(*(values.reshape(count, size) for values in flat))
    ends = np.clip(grid, grid[1] - _BEYOND, grid[-2] + _BEYOND)
    up = table.direction > 0.0
    channel, cell = np.nonzero(up[:, :-1] & ~up[:, 1:])
    low, high = ends[cell], ends[cell + 1]
    before, after = table.slope[channel, cell], table.slope[channel, cell + 1]

    def score(points: NDArray[np.float64], which: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        lanes = streams.at(channel[which], points)
        return lanes.slope, lanes.curvature

    best = _roots(score, low, high, True, low + (high - low) * before / (before - after))
    # A boundary wins where it is as high but for rounding: ties are exact where the data hold no answer.
    values, places = np.full((count, size + 1), -math.inf), np.zeros((count, size + 1))
    values[channel, cell], places[channel, cell] = streams.at(channel, best).value, best
    slack = 8.0 * np.finfo(float).eps * np.maximum(streams.terms, np.abs(table.value).min(axis=1))
    for k, end, times in ((-2, -1, 1.0), (-1, 0, 2.0)):
        values[:, k], places[:, k] = table.value[:, end] + times * slack, grid[end]
    backward = values.shape[1] - 1 - np.argmax(values[:, ::-1], axis=1)
    return places[np.arange(count), backward], table


def _interval(
    streams: _Streams, grid: NDArray[np.float64], table: NDArray[Any], best: _Lanes, theta: Any, level: float
) -> list[NDArray[np.float64]]:
    """Ends in log s of the hull of all settings that the likelihood-ratio test does not reject."""
    z = NormalDist().inv_cdf(0.5 + 0.5 * level)
    count, size = table.shape
    threshold = best.value - 0.5 * z**2
    inside, every = table >= threshold[:, np.newaxis], np.arange(count)
    ends = np.clip(grid, grid[1] - _BEYOND, grid[-2] + _BEYOND)
    reach = z / np.sqrt(-best.curvature)
    some = inside.any(axis=1)
    lowest = np.minimum(np.where(some, grid[np.argmax(inside, axis=1)], math.inf), theta)
    highest = np.where(some, grid[size - 1 - np.argmax(inside[:, ::-1], axis=1)], -math.inf)
    highest = np.maximum(highest, theta)
    # Both ends at once: as lanes they cost what one costs.
    left, right = every[lowest > -math.inf], every[highest < math.inf]
    outer_low = ends[np.searchsorted(grid, lowest[left], side="left") - 1]
    outer_high = ends[np.searchsorted(grid, highest[right], side="right")]
    channel = np.concatenate([left, right])

    def excess(points: NDArray[np.float64], which: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        lanes = streams.at(channel[which], points)
        return lanes.value - threshold[channel[which]], lanes.slope

    found = _roots(
        excess,
        np.concatenate([outer_low, np.maximum(highest[right], ends[0])]),
        np.concatenate([np.minimum(lowest[left], ends[-1]), outer_high]),
        np.repeat([False, True], [len(left), len(right)]),
        np.concatenate([(theta - reach)[left], (theta + reach)[right]]),
    )
    lowest[left], highest[right] = found[: len(left)], found[len(left) :]
    return [lowest, highest]


class _Found(NamedTuple):
    """The fit of channels that vary, in units of their spread."""

    q: NDArray[np.float64]
    r: NDArray[np.float64]
    beta: NDArray[np.float64]
    value: NDArray[np.float64]
    q_error: NDArray[np.float64]
    r_error: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    boundary: NDArray[np.str_]
    p_value: NDArray[np.float64]
    halves: list[NDArray[np.float64]]
    """beta and r of the first half, then of the second."""

    @classmethod
    def of(
        cls,
        rows: NDArray[np.float64],
        whole: NDArray[np.float64],
        n: NDArray[Any],
        scale: NDArray[np.int64],
        level: float,
    ) -> _Found:
        """Search; whole and halves together, as lanes of the same passes."""
        count = len(n)
        streams, grid = _Streams.of([whole, *_halves(rows, n)], scale), _grid(rows.shape[1])
        theta, table = _maxima(streams, grid)
        mine, m = theta[:count], streams.terms[:count]
        settings = np.concatenate([theta, mine, mine])
        lanes = streams.at(np.concatenate([np.arange(3 * count), count + np.arange(2 * count)]), settings)
        best = _Lanes(*(values[:count] for values in lanes))
        variance = best.square / m

        shared, apart, halves = np.zeros(count), np.zeros(count), []
        for k in (1, 2):
            own = slice(k * count, (k + 1) * count)
            under = slice((k + 2) * count, (k + 3) * count)
            terms, constant = streams.terms[own], lanes.square[own] == 0.0
            halves += [_beta(theta[own]), lanes.square[own] / terms * _shares(theta[own])[1]]
            apart += np.where(constant, math.inf, lanes.value[own])
            shared -= 0.5 * terms * np.log(2.0 * math.pi * variance)
            shared -= 0.5 * (lanes.logs[under] + lanes.square[under] / variance)
        p_value = np.exp(-np.maximum(apart - shared, 0.0))

        # Information in (log s, log scale), inverted, and from there to (log q, log r).
        share_q, share_r = _shares(mine)
        of_theta = np.where(best.curvature < 0.0, -1.0 / best.curvature, math.inf)
        of_theta = np.where(np.isfinite(mine), of_theta, 0.0)  # a boundary is not estimated
        q_error = np.sqrt(2.0 / m + (best.tilt + share_r) ** 2 * of_theta)
        r_error = np.sqrt(2.0 / m + (best.tilt - share_q) ** 2 * of_theta)
        q, r = variance * share_q, variance * share_r
        low, high = _interval(streams, grid, table.value[:count], best, mine, level)
        return cls(
            q=q,
            r=r,
            beta=_beta(mine),
            value=best.value,
            q_error=np.where(q > 0.0, q * q_error, math.inf),
            r_error=np.where(r > 0.0, r * r_error, math.inf),
            lower=_beta(high),
            upper=_beta(low),
            boundary=np.where(mine == -math.inf, "q", np.where(mine == math.inf, "r", "")),
            p_value=p_value,
            halves=halves,
        )
