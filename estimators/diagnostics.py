"""Whether a filter's statements hold on the stream it saw: tests of its innovations, and how to read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from estimators._parameters import Parameter, Shown, plain, whole
from estimators._samples import DOUBLE, as_stream, settle_infinity
from estimators.fitting import FitResult, fit
from estimators.kalman import Kalman
from estimators.results import FilterResult, align, check_level

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from estimators._display import Facts
    from estimators.results import Run

FEW = 10
"""Innovations below which only the NIS is tested, whose distribution is exact."""
FEW_FOR_SHAPE = 20
"""Innovations below which normality is not tested: its transformed kurtosis is normal from here on."""
WEIGHTS = {
    "NIS": 0.15,
    "whiteness": 0.1,
    "normality": 0.1,
    "variance break": 0.1,
    "likelihood ratio": 0.55,
    "gain": 0.55,
}
"""Shares of the level in the family. A wrong q at a small gain is barely seen, and by the heaviest two alone;
what the others are for shows at once where it is there at all."""

AS_STATED = "as stated"
TOO_FEW = "too few to tell"
LAGS = "the filter lags: gain too small (q/r too small)"
FOLLOWS = "the filter follows noise: gain too large (q/r too large)"


@dataclass(frozen=True, eq=False)
class Check(Shown):
    """One statistic beside the band that it keeps to where the model holds; arrays for several channels.

    The band holds 1 - level of such streams, the two tails alike unless it starts at 0. A value out of it has
    p_value < level. Where there is too little to tell, value and band are NaN and the p-value is 1.
    """

    name: str
    value: Parameter
    low: Parameter
    high: Parameter
    p_value: Parameter
    reading: str | NDArray[np.str_]
    """What a value out of the band means, in words; "as stated" within it."""

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        yield self.name, _display.number(self.value)
        yield "band", _display.interval(self.low, self.high)
        yield "p-value", _display.number(self.p_value)
        if isinstance(self.reading, str):
            yield "reading", self.reading


@dataclass(frozen=True, eq=False)
class Diagnosis(Shown):
    """Tests of what a filter stated; ``str`` of it is a table. Floats for one channel, arrays for more.

    How to read it: outliers (normality) and breaks move all the others, so settle those first. Then the NIS:
    is the stated size of the innovations right? Then whiteness, autocorrelation and gain: is q/r? A wrong r
    moves the NIS most, a wrong q the gain; the likelihood ratio sees both and says by how much. Nothing
    flagged means that these samples do not refute the filter, not that it is right. At n = 1000 an r four
    times too large or small is always found; such a q in 93 % of streams or more where q/r >= 0.01, in 50 to
    67 % at 0.001 and in 17 to 20 % at 0.0001, where the most powerful of all tests would find it in 71 to
    92 % and in 34 to 37 %.
    """

    n: int | NDArray[np.int64]
    """Innovations: present samples with a proper prediction."""
    level: float
    nis: Check
    """Normalised innovation squared: mean of nu^2 / S, of which n times is chi-squared with n degrees.

    Above its band the filter states too little noise (r or q too small, intervals too narrow), below it too
    much.
    """
    whiteness: Check
    """Ljung-Box statistic of the standardised innovations, chi-squared with as many degrees as lags."""
    autocorrelation: Check
    """Autocorrelation of the standardised innovations at lag 1, within 1.96 / sqrt(n) at 5 %.

    Positive: the filter lags, its gain (q/r) is too small. Negative: it follows noise, the gain is too large.
    """
    gain: Check
    """Correlation of innovations with what the filter itself made of all those before, as a standard normal.

    Signed as the autocorrelation, which it outdoes at small gains, where each lag holds little of it: score
    of the likelihood by the gain. Flagged where there is no likelihood ratio.
    """
    normality: Check
    """Omnibus statistic K^2 of skewness and kurtosis of the standardised innovations, chi-squared with 2.

    Heavy tails call for RobustKalman, skewness for the logarithm of the stream (Log).
    """
    variance_break: Check
    """H: squares of the last third of the standardised innovations to those of the first, F-distributed.

    Above its band the noise grew on the way, below it fell: no one r is right for all of the stream.
    """
    likelihood_ratio: Check | None
    """2 (l(fit) - l(q, r)), chi-squared with 2 degrees: whether q and r are those of this stream.

    Conservative where the stated q or r is 0 or next to it (3 % for 5), as the fit cannot go below. None for
    others than Kalman, and where what was known to change by sample came with the stream.
    """
    fit: FitResult | None
    """The fit that the likelihood ratio compares with."""
    nees: Check | None
    """Normalised estimation error squared: mean over time of (mean - truth)^2 / variance.

    Errors of neighbouring times are alike, so its variance is 2 / n_eff, n_eff < n, which follows from the
    autocorrelation that the filter's own gains and variances imply (exact for a random walk). Above the band
    the stated variance is too small, below too large. None without truth.
    """
    nees_share: Check | None
    """Share of times at which the average NEES of the N channels lies within chi-squared_N / N bounds.

    For channels that are repetitions of one experiment, independent of each other, with truth; expected
    1 - level. Clumpy: one bad stretch takes a run of neighbouring times out, which its band allows for.
    """
    coverage: Check | None
    """Share of times at which the stated interval of level 1 - level holds the truth.

    Its band counts n_eff of them as in ``nees``, which makes it wide: whether an interval holds is less alike
    from time to time than the error.
    """

    @property
    def family(self) -> tuple[Check, ...]:
        """Tests that may be flagged; gain is among them where there is no likelihood ratio."""
        first = self.gain if self.likelihood_ratio is None else self.likelihood_ratio
        return first, self.nis, self.whiteness, self.normality, self.variance_break

    @property
    def flags(self) -> dict[str, bool | NDArray[np.bool_]]:
        """Which tests of the family reject, by name.

        Of channels whose model holds, a share ``level`` or less has any flag (up to 6 % for 5 where there are
        20 to 50 innovations): Holm (1979), Scandinavian J. of Statistics 6, section 4, by ``WEIGHTS``.
        Autocorrelation, which is lag 1 of whiteness, gain beside a likelihood ratio, which includes it, and
        what needs the truth are not flagged.
        """
        names = [check.name for check in self.family]
        p_values = np.array([check.p_value for check in self.family], dtype=np.float64)
        weights = np.array([WEIGHTS[name] for name in names])
        rejected = _holm(p_values.reshape(len(names), -1), weights, self.level).reshape(p_values.shape)
        return {name: bool(row) if row.ndim == 0 else row for name, row in zip(names, rejected, strict=True)}

    @property
    def consistent(self) -> bool | NDArray[np.bool_]:
        """Whether nothing is flagged."""
        flagged = np.logical_or.reduce([np.asarray(flag) for flag in self.flags.values()])
        return bool(~flagged) if flagged.ndim == 0 else ~flagged

    @property
    def checks(self) -> tuple[Check, ...]:
        """All that was computed."""
        score = None if self.likelihood_ratio is None else self.gain
        rest = score, self.autocorrelation, self.nees, self.nees_share, self.coverage
        return self.family + tuple(check for check in rest if check is not None)

    def _facts(self, full: bool = False) -> Facts:
        from estimators import _display

        yield "innovations", _display.number(self.n)
        if np.ndim(self.n) == 0:
            yield "flagged", ", ".join(name for name, flag in self.flags.items() if flag) or "nothing"
        else:
            yield "channels with a flag", f"{np.sum(~np.asarray(self.consistent)):,} of {np.size(self.n):,}"
        yield "print() shows", "each test"

    def __str__(self) -> str:
        flags = self.flags
        return _table(self, flags) if np.ndim(self.n) == 0 else _shares(self, flags)


def diagnose(result: Any, truth: Any = None, *, lags: int | None = None, level: float = 0.05) -> Diagnosis:
    """Test whether the innovations of a run are what its filter stated: of its size, white, normal, steady.

    result: what ``filter`` returned, of any estimator that states the variance of its innovations, shape (T,)
    or (T, *channels); each channel is tested by itself. truth: the level, shape (T,) or (T, *channels), NaN
    where unknown. lags: of the whiteness test, min(10, n // 5) unless given. level: of the bands and, for all
    tests together, of the flags. Gaps count as such: a lag pairs samples that far apart, both present. All
    statistics are free of units. Fewer than 10 innovations leave only the NIS, fewer than 20 no normality.
    Variances are taken as stated, not as estimates: over one that the estimator itself draws from the stream,
    innovations are Student's rather than normal, and NIS and normality flag that (EMAWithVariance(0.9) on its
    own random walk: in 65 % of streams).

    Raises TypeError unless result is a FilterResult; ValueError where nothing is stated, for a truth that
    does not fit or is infinite, lags < 1, a level outside (0, 1), and where ``fit`` cannot take the samples.

    Durbin and Koopman (2012), section 2.12; Harvey (1989), Forecasting, Structural Time Series Models and the
    Kalman Filter, section 5.4 (H); Ljung and Box (1978), Biometrika 65; D'Agostino, Belanger and D'Agostino
    (1990), American Statistician 44 (K^2); Bar-Shalom, Li and Kirubarajan (2001), section 5.4 (NIS, NEES).
    """
    check_level(level)
    if not isinstance(result, FilterResult):
        raise TypeError(f"diagnose: result is a {type(result).__name__}; it must be what filter returned")
    if lags is not None:
        lags = whole("diagnose", "lags", lags, 1)
    run = result._run
    stated = run.estimator._innovation_variance(run)
    if stated is None:
        name = type(run.estimator).__name__
        raise ValueError(
            f"diagnose: {name} states no variance of its innovations, so there is nothing to test"
        )
    level = float(level)
    with np.errstate(all="ignore"):
        seen = _Innovations.of(run.innovation, stated)
        nees = nees_share = coverage = None
        if truth is not None and run.states_variance:
            errors = _Errors.of(run, truth, result.interval(1.0 - level))
            nees, nees_share, coverage = errors.nees(level), errors.nees_share(level), errors.coverage(level)
        ratio, found = _likelihood_ratio(run, seen, level)
        correlations = seen.correlations(lags)
        n = seen.n.reshape(run.channels)
        return Diagnosis(
            n=int(n) if n.ndim == 0 else n,
            level=level,
            nis=_nis(seen, level),
            whiteness=_whiteness(seen, correlations, level),
            autocorrelation=_autocorrelation(seen, correlations, level),
            gain=_gain(run, seen, stated, level),
            normality=_normality(seen, level),
            variance_break=_variance_break(seen, level),
            likelihood_ratio=ratio,
            fit=found,
            nees=nees,
            nees_share=nees_share,
            coverage=coverage,
        )


# --- what is tested -----------------------------------------------------------------------------------------


class _Correlations(NamedTuple):
    """Products of standardised innovations k apart, summed, and how many; shape (K, C)."""

    products: NDArray[np.float64]
    pairs: NDArray[np.float64]
    used: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Innovations:
    """Standardised innovations (T, C), 0 in gaps, and what all tests share."""

    size: NDArray[np.float64]
    present: NDArray[np.bool_]
    n: NDArray[np.int64]
    refuted: NDArray[np.bool_]
    """Channels with an innovation beyond all measure, such as any where 0 was certain."""
    channels: tuple[int, ...]

    @classmethod
    def of(cls, innovation: NDArray[Any], stated: NDArray[Any]) -> _Innovations:
        """Standardise; an innovation of 0 is as stated even where no other was expected."""
        channels = innovation.shape[1:]
        rows = (len(innovation), math.prod(channels))
        nu = np.asarray(innovation, dtype=np.float64).reshape(rows)
        variance = np.broadcast_to(stated, innovation.shape).reshape(rows)
        counted = np.isfinite(nu) & np.isfinite(variance)
        size = np.where(nu == 0.0, 0.0, nu / np.sqrt(variance))
        beyond = counted & ~(np.abs(size) < 1e75)  # whose fourth powers have no number
        present = counted & ~beyond
        n = np.count_nonzero(present, axis=0)
        return cls(np.where(present, size, 0.0), present, n, beyond.any(axis=0), channels)

    @property
    def squares(self) -> NDArray[np.float64]:
        """Sum of squares of each channel."""
        total: NDArray[np.float64] = np.einsum("tc,tc->c", self.size, self.size)
        return total

    def correlations(self, lags: int | None) -> _Correlations:
        """Up to the lags asked for, or min(10, n // 5) of each channel; fewer where pairs run out."""
        last = np.minimum(10, self.n // 5) if lags is None else np.full(self.n.shape, lags)
        last = np.minimum(last, max(0, len(self.size) - 1))
        count = max(1, int(last.max(initial=1)))
        products, pairs = np.zeros((count, len(self.n))), np.zeros((count, len(self.n)))
        for k in range(1, min(count, len(self.size) - 1) + 1):
            products[k - 1] = np.einsum("tc,tc->c", self.size[k:], self.size[:-k])
            pairs[k - 1] = np.count_nonzero(self.present[k:] & self.present[:-k], axis=0)
        used = (np.arange(1, count + 1)[:, np.newaxis] <= last) & (pairs > 0) & (self.n >= FEW)
        return _Correlations(products, pairs, used)


def _check(
    name: str,
    value: Any,
    band: tuple[Any, Any],
    p_value: Any,
    level: float,
    readings: list[tuple[Any, Any]],
    known: Any,
    channels: tuple[int, ...],
) -> Check:
    """Build a check; readings: conditions and words, the first that holds is told where p < level."""
    shape = (math.prod(channels),)
    known = np.broadcast_to(known, shape)
    p_value = np.where(known & ~np.isnan(p_value), np.clip(p_value, 0.0, 1.0), 1.0)
    conditions = [~known, p_value >= level, *(np.broadcast_to(holds, shape) for holds, _ in readings)]
    words = [TOO_FEW, AS_STATED, *(words for _, words in readings)]
    reading = np.select(conditions, [np.broadcast_to(w, shape) for w in words], "").reshape(channels)

    def given(values: Any) -> Parameter:
        return plain(np.where(known, values, math.nan).reshape(channels))

    return Check(
        name=name,
        value=given(value),
        low=given(band[0]),
        high=given(band[1]),
        p_value=plain(p_value.reshape(channels)),
        reading=str(reading) if reading.ndim == 0 else reading,
    )


def _nis(seen: _Innovations, level: float) -> Check:
    value = np.where(seen.refuted, math.inf, seen.squares / seen.n)
    known = (seen.n > 0) | seen.refuted
    return _mean_square("NIS", value, seen.n, level, "innovations", known, seen.channels)


def _mean_square(
    name: str, value: Any, freedom: Any, level: float, what: str, known: Any, channels: tuple[int, ...]
) -> Check:
    """Test the mean of squares of that many standard normals, a whole number of them or not."""
    low, high = (_chi_squared_quantile(freedom, p) / freedom for p in (0.5 * level, 1.0 - 0.5 * level))
    p_value = 2.0 * np.minimum(*_chi_squared(freedom, value * freedom))
    p_value = np.where(np.isinf(value), 0.0, p_value)
    readings = [
        (
            value > 1.0,
            f"{what} larger than stated: too little noise (r or q too small), intervals too narrow",
        ),
        (True, f"{what} smaller than stated: too much noise (r or q too large), intervals too wide"),
    ]
    return _check(name, value, (low, high), p_value, level, readings, known, channels)


def _whiteness(seen: _Innovations, correlations: _Correlations, level: float) -> Check:
    products, pairs, used = correlations
    square = (products / seen.squares) ** 2
    # n (n + 2) / pairs is one over the exact variance of each correlation about a known mean, gaps or not.
    terms = np.where(used & (seen.squares > 0.0), square * seen.n * (seen.n + 2.0) / pairs, 0.0)
    value, freedom = terms.sum(axis=0), used.sum(axis=0)
    high = _chi_squared_quantile(freedom, 1.0 - level)
    p_value = _chi_squared(freedom, value)[1]
    first = products[0]
    readings = [
        (first > 0.0, "innovations follow each other: gain (q/r) too small, or no random walk"),
        (first < 0.0, "innovations undo each other: gain (q/r) too large, or no random walk"),
        (True, "innovations predict later ones: no random walk in white noise"),
    ]
    return _check("whiteness", value, (0.0, high), p_value, level, readings, freedom > 0, seen.channels)


def _autocorrelation(seen: _Innovations, correlations: _Correlations, level: float) -> Check:
    pairs = correlations.pairs[0]
    # Without gaps the textbook's sum over n - 1 pairs beside one over n squares.
    value = correlations.products[0] / seen.squares * (seen.n - 1.0) / pairs
    value = np.where(seen.squares > 0.0, value, 0.0)
    error = np.sqrt((seen.n - 1.0) / (seen.n * pairs))
    half = _normal_quantile(1.0 - 0.5 * level) * error
    readings = [(value > 0.0, LAGS), (True, FOLLOWS)]
    known = (seen.n >= FEW) & (pairs > 0)
    p_value = _two_sided(value / error)
    return _check("autocorrelation", value, (-half, half), p_value, level, readings, known, seen.channels)


def _gain(run: Run, seen: _Innovations, stated: NDArray[Any], level: float) -> Check:
    shape = (len(run.mean), *run.channels)
    deviation = np.sqrt(np.broadcast_to(stated, shape))
    usable = seen.present.reshape(shape)
    innovation = np.where(usable, seen.size.reshape(shape) * deviation, 0.0)
    # What a wrong gain leaves in an innovation: the filter's own mean of those before.
    left = np.zeros(shape)
    run.estimator._replay(run, innovation, np.zeros(run.channels), left)
    trace = np.zeros(shape)
    trace[1:] = np.where(usable[1:] & (deviation[1:] > 0.0), left[:-1] / deviation[1:], 0.0)
    trace = trace.reshape(seen.size.shape)
    norm = np.sqrt(np.einsum("tc,tc->c", trace, trace))
    value = np.where(norm > 0.0, np.einsum("tc,tc->c", trace, seen.size) / norm, 0.0)
    half = _normal_quantile(1.0 - 0.5 * level)
    readings = [(value > 0.0, LAGS), (True, FOLLOWS)]
    known = seen.n >= FEW
    return _check("gain", value, (-half, half), _two_sided(value), level, readings, known, seen.channels)


def _normality(seen: _Innovations, level: float) -> Check:
    n = seen.n.astype(np.float64)
    # Deviations of at most 1: their powers neither vanish nor overflow.
    deviation = np.where(seen.present, seen.size - seen.size.sum(axis=0) / n, 0.0)
    largest = np.abs(deviation).max(axis=0, initial=0.0)
    constant = largest <= 1e-12 * np.abs(seen.size).max(axis=0, initial=0.0)
    deviation = deviation / np.where(constant, 1.0, largest)
    m2, m3, m4 = ((deviation**k).sum(axis=0) / n for k in (2, 3, 4))
    skew = _skewness_score(m3 / m2**1.5, n)
    tails = _kurtosis_score(m4 / m2**2, n)
    value = np.where(constant, 0.0, skew**2 + tails**2)
    # Outliers of one sign skew a moment too, but hardly the octiles, whose skewness has error 1.1 / sqrt(n).
    low, middle, high = (_at_rank(seen, share) for share in (0.125, 0.5, 0.875))
    bulk = (high + low - 2.0 * middle) / (high - low) * np.sqrt(n) / 1.1
    skewed = ((bulk * np.sign(skew)) > 3.0) | (np.abs(tails) < 2.0)
    readings = [
        (skewed & (skew > 0.0), "skewed to the right: filter the logarithm if samples are positive (Log)"),
        (skewed, "skewed to the left: the noise is not normal, filter a transform of the stream"),
        (tails > 0.0, "heavy tails: outliers (RobustKalman)"),
        (True, "light tails: bounded or rounded noise; q and r still serve"),
    ]
    band = 0.0, _chi_squared_quantile(2.0, 1.0 - level)
    p_value = np.exp(-0.5 * value)
    return _check("normality", value, band, p_value, level, readings, n >= FEW_FOR_SHAPE, seen.channels)


def _at_rank(seen: _Innovations, share: float) -> NDArray[np.float64]:
    """Standardised innovation below which about this share of them lies."""
    if len(seen.size) == 0:
        return np.zeros(seen.n.shape)
    ordered = np.sort(np.where(seen.present, seen.size, math.inf), axis=0)
    place = np.round(share * np.maximum(seen.n - 1, 0)).astype(np.int64)
    found: NDArray[np.float64] = np.take_along_axis(ordered, place[np.newaxis], axis=0)[0]
    return found


def _variance_break(seen: _Innovations, level: float) -> Check:
    from scipy.special import fdtr, fdtrc, fdtri

    third = (seen.n + 1) // 3
    rank = np.cumsum(seen.present, axis=0)
    squares = seen.size**2
    first = np.where(rank <= third, squares, 0.0).sum(axis=0)
    last = np.where(rank > seen.n - third, squares, 0.0).sum(axis=0)
    value = np.where(first == last, 1.0, last / first)
    freedom = np.maximum(third, 1).astype(np.float64)
    low, high = (fdtri(freedom, freedom, p) for p in (0.5 * level, 1.0 - 0.5 * level))
    p_value = 2.0 * np.minimum(fdtr(freedom, freedom, value), fdtrc(freedom, freedom, value))
    readings = [
        (value > 1.0, "the noise grew on the way: r follows the stream in VariationalKalman"),
        (True, "the noise fell on the way: r follows the stream in VariationalKalman"),
    ]
    known = seen.n >= FEW
    return _check("variance break", value, (low, high), p_value, level, readings, known, seen.channels)


def _likelihood_ratio(run: Run, seen: _Innovations, level: float) -> tuple[Check | None, FitResult | None]:
    kalman, name = run.estimator, "likelihood ratio"
    if type(kalman) is not Kalman or run.changing:
        return None, None
    shape = (len(run.mean), *run.channels)
    known = seen.n >= FEW
    if not known.any():
        return _check(name, math.nan, (math.nan, math.nan), 1.0, level, [], False, seen.channels), None
    samples = np.broadcast_to(run.aligned_samples, shape).reshape(shape[0], -1)
    # Channels with too few samples for an answer get what any fit can take.
    samples = np.where(known, samples, (np.arange(shape[0]) % 2)[:, np.newaxis])
    found = fit(samples.reshape(shape))
    q, r = (np.broadcast_to(v, run.channels).reshape(-1) for v in (kalman.q, kalman.r))
    # From a diffuse start like the fit's, whatever the run knew before.
    here = np.asarray(Kalman(q, r).filter(samples).loglikelihood)
    value = np.maximum(0.0, 2.0 * (np.ravel(found.loglikelihood) - here))
    # Of the first order in 1 / n, measured at q = r, where it is largest: without it 6.2 % at n = 30 for 5.
    small = 1.0 + 2.3 / np.maximum(seen.n, 1)
    p_value = np.exp(-0.5 * value / small)
    words = np.full(known.shape, "", dtype=object)
    for c in np.flatnonzero(known & (p_value < level)):
        words[c] = _misstated(q[c], r[c], found, int(c))
    band = 0.0, _chi_squared_quantile(2.0, 1.0 - level) * small
    return _check(name, value, band, p_value, level, [(True, words)], known, seen.channels), found


def _misstated(q: float, r: float, found: FitResult, channel: int) -> str:
    """Say which of q and r the fit contradicts, by its standard errors, and by what factor."""
    told, distances = [], []
    for name, stated in (("q", q), ("r", r)):
        fitted, error = (
            float(np.ravel(v)[channel]) for v in (getattr(found, name), getattr(found, name + "_error"))
        )
        if fitted > 0.0 and stated > 0.0:
            times = fitted / stated
            distances.append(abs(math.log(times)) * fitted / error)
            told.append(
                f"{name} too {'small' if times > 1.0 else 'large'} (fit {times:.3g} times the stated)"
            )
        else:
            distances.append(0.0 if fitted == stated else 1.0)
            told.append(
                f"{name} too {'small' if fitted > 0.0 else 'large'} (fit {fitted:.3g}, stated {stated:.3g})"
            )
    clear = [text for text, distance in zip(told, distances, strict=True) if distance > 2.0]
    return ", ".join(clear) or told[int(np.argmax(distances))]


# --- against the truth --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Errors:
    """Squared errors over their stated variance (T, C), whether the interval held, and effective numbers."""

    squares: NDArray[np.float64]
    known: NDArray[np.bool_]
    held: NDArray[np.bool_]
    effective: NDArray[np.float64]
    channels: tuple[int, ...]

    @classmethod
    def of(cls, run: Run, truth: Any, interval: tuple[Any, Any]) -> _Errors:
        """Compare a run, and bounds from it, with a truth; ValueError where it does not fit."""
        target, _ = as_stream(truth, "truth")
        target = settle_infinity(target, "raise", DOUBLE, "truth")
        shape = (len(run.mean), *run.channels)
        try:
            level = np.broadcast_to(align(target, run.channels), shape)
        except ValueError:
            level = None
        if level is None or len(target) != shape[0]:
            raise ValueError(f"diagnose: truth has shape {target.shape}; it must be {shape[:1]} or {shape}")
        rows = (shape[0], math.prod(run.channels))
        variance = np.broadcast_to(run.variance, shape).reshape(rows)  # type: ignore[arg-type]
        gain = np.broadcast_to(run.gain, shape).reshape(rows)
        error = (run.mean - level).reshape(rows)
        low, high = (np.asarray(bound).reshape(rows) for bound in interval)
        known = np.isfinite(error) & np.isfinite(variance)
        squares = np.where(known & (error != 0.0), error**2 / variance, 0.0)
        held = known & (low <= level.reshape(rows)) & (level.reshape(rows) <= high)
        return cls(squares, known, held, _effective(known, variance, gain), run.channels)

    @property
    def n(self) -> NDArray[np.int64]:
        """Times of each channel at which the error is known."""
        counted: NDArray[np.int64] = np.count_nonzero(self.known, axis=0)
        return counted

    def nees(self, level: float) -> Check:
        value = self.squares.sum(axis=0) / self.n
        return _mean_square("NEES", value, self.effective, level, "errors", self.n > 0, self.channels)

    def coverage(self, level: float) -> Check:
        share, known = self.held.sum(axis=0) / self.n, self.n > 0
        return _share(
            "coverage", share, self.effective, level, "of the intervals hold the truth", known, self.channels
        )

    def nees_share(self, level: float) -> Check | None:
        count = np.count_nonzero(self.known, axis=1)
        several = count > 1
        if not several.any():
            return None
        low, high = (_chi_squared_quantile(count, p) for p in (0.5 * level, 1.0 - 0.5 * level))
        total = self.squares.sum(axis=1)
        share = np.count_nonzero((low <= total) & (total <= high) & several) / several.sum()
        # Repetitions share their gains, hence one effective number: of the times at which they are averaged.
        effective = np.mean((self.effective / self.n)[self.n > 0]) * several.sum()
        what = "of the averages over channels are within bounds"
        return _share("NEES share", share, effective, level, what, True, ())


def _share(
    name: str, share: Any, n: Any, level: float, what: str, known: Any, channels: tuple[int, ...]
) -> Check:
    """Test a share of expected value 1 - level among n, a whole number or not."""
    from scipy.special import bdtrik, betainc, betaincc

    expected, hits = 1.0 - level, share * n
    below = np.where(hits >= n, 1.0, betaincc(hits + 1.0, n - hits, expected))
    above = np.where(hits <= 0.0, 1.0, betainc(hits, n - hits + 1.0, expected))
    low = np.clip(np.nan_to_num(bdtrik(0.5 * level, n, expected)) / n, 0.0, 1.0)
    high = np.clip((np.nan_to_num(bdtrik(1.0 - 0.5 * level, n, expected)) + 1.0) / n, 0.0, 1.0)
    readings = [
        (share < expected, f"fewer {what} than stated: variance too small"),
        (True, f"more {what} than stated: variance too large"),
    ]
    p_value = 2.0 * np.minimum(below, above)
    return _check(name, share, (low, high), p_value, level, readings, known, channels)


def _effective(
    known: NDArray[np.bool_], variance: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Number of independent squares whose mean varies as these do: n^2 / sum of squared correlations.

    The error left after a sample is 1 - K times the one before it plus what is new, so two of them correlate
    by the product of (1 - K_t) sqrt(P_{t-1} / P_t) over the times between, their squares by its square.
    """
    n = known.sum(axis=0)
    weight = np.zeros(variance.shape)
    kept = (1.0 - gain[1:]) ** 2 * variance[:-1] / variance[1:]
    weight[1:] = np.where(np.isfinite(kept), np.clip(kept, 0.0, 1.0), 0.0)
    total = np.zeros(variance.shape)
    total[1:] = weight[1:] * known[:-1]
    # y_t = total_t + weight_t y_{t-1} in doubling strides: compositions of maps, as in a parallel prefix sum.
    stride = 1
    while stride < len(total) and weight.max(initial=0.0) > 1e-9:
        total[stride:] = total[stride:] + weight[stride:] * total[:-stride]
        weight[stride:] = weight[stride:] * weight[:-stride]
        weight[:stride] = 0.0
        stride *= 2
    effective: NDArray[np.float64] = n / (1.0 + 2.0 * np.where(known, total, 0.0).sum(axis=0) / n)
    return effective


# --- distributions ------------------------------------------------------------------------------------------


def _chi_squared(freedom: Any, value: Any) -> tuple[Any, Any]:
    """Probability below and above; degrees of freedom need not be whole."""
    from scipy.special import gammainc, gammaincc

    return gammainc(0.5 * freedom, 0.5 * value), gammaincc(0.5 * freedom, 0.5 * value)


def _chi_squared_quantile(freedom: Any, probability: float) -> Any:
    from scipy.special import gammaincinv

    return 2.0 * gammaincinv(0.5 * np.asarray(freedom), probability)


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def _two_sided(score: Any) -> Any:
    """Probability of a standard normal further from 0."""
    from scipy.special import erfc

    return erfc(np.abs(score) / math.sqrt(2.0))


def _skewness_score(skewness: Any, n: Any) -> Any:
    """Skewness of n normal samples as a standard normal: D'Agostino (1970), Biometrika 57."""
    y = skewness * np.sqrt((n + 1.0) * (n + 3.0) / (6.0 * (n - 2.0)))
    beta2 = 3.0 * (n**2 + 27.0 * n - 70.0) * (n + 1.0) * (n + 3.0)
    beta2 = beta2 / ((n - 2.0) * (n + 5.0) * (n + 7.0) * (n + 9.0))
    w2 = np.sqrt(2.0 * (beta2 - 1.0)) - 1.0
    return np.arcsinh(y / np.sqrt(2.0 / (w2 - 1.0))) / np.sqrt(0.5 * np.log(w2))


def _kurtosis_score(kurtosis: Any, n: Any) -> Any:
    """Kurtosis of n normal samples as a standard normal: Anscombe and Glynn (1983), Biometrika 70."""
    mean = 3.0 * (n - 1.0) / (n + 1.0)
    variance = 24.0 * n * (n - 2.0) * (n - 3.0) / ((n + 1.0) ** 2 * (n + 3.0) * (n + 5.0))
    x = (kurtosis - mean) / np.sqrt(variance)
    beta1 = 6.0 * (n**2 - 5.0 * n + 2.0) / ((n + 7.0) * (n + 9.0))
    beta1 = beta1 * np.sqrt(6.0 * (n + 3.0) * (n + 5.0) / (n * (n - 2.0) * (n - 3.0)))
    a = 6.0 + 8.0 / beta1 * (2.0 / beta1 + np.sqrt(1.0 + 4.0 / beta1**2))
    root = np.cbrt((1.0 - 2.0 / a) / (1.0 + x * np.sqrt(2.0 / (a - 4.0))))
    return (1.0 - 2.0 / (9.0 * a) - root) / np.sqrt(2.0 / (9.0 * a))


def _holm(p_values: NDArray[np.float64], weights: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Reject tests (m, C) in order of p / weight while p <= level weight / (sum of weights from there on)."""
    shares = weights[:, np.newaxis] * np.ones_like(p_values)
    order = np.argsort(p_values / shares, axis=0, kind="stable")
    p_sorted, sorted_shares = (np.take_along_axis(v, order, axis=0) for v in (p_values, shares))
    rest = np.cumsum(sorted_shares[::-1], axis=0)[::-1]
    passed = np.logical_and.accumulate(p_sorted <= level * sorted_shares / rest, axis=0)
    rejected = np.zeros(p_values.shape, dtype=bool)
    np.put_along_axis(rejected, order, passed, axis=0)
    return rejected


# --- in words -----------------------------------------------------------------------------------------------


def _table(diagnosis: Diagnosis, flags: dict[str, Any]) -> str:
    rows = [("", "value", f"{100.0 * (1.0 - diagnosis.level):.4g} % band", "p", "reading")]
    for check in diagnosis.checks:
        band = f"{check.low:.4g} to {check.high:.4g}"
        mark = " *" if flags.get(check.name) else ""
        rows.append(
            (check.name + mark, f"{check.value:.4g}", band, f"{check.p_value:.2g}", str(check.reading))
        )
    flagged = ", ".join(name for name, flag in flags.items() if flag)
    verdict = f"flagged (*): {flagged}" if flagged else "nothing flagged"
    return f"{diagnosis.n} innovations; {verdict}\n" + _aligned(rows)


def _shares(diagnosis: Diagnosis, flags: dict[str, Any]) -> str:
    rows = [("", "median", "out of band", "flagged")]
    for check in diagnosis.checks:
        value, p_value = np.ravel(check.value), np.ravel(check.p_value)
        told = value[~np.isnan(value)]
        median = f"{np.median(told):.4g}" if told.size else "nan"
        out = _percent(p_value < diagnosis.level)
        rows.append((check.name, median, out, _percent(flags[check.name]) if check.name in flags else ""))
    counts = np.ravel(diagnosis.n)
    least, most = (int(counts.min()), int(counts.max())) if counts.size else (0, 0)
    many = f"{least}" if least == most else f"{least} to {most}"
    flagged = _percent(~np.asarray(diagnosis.consistent))
    return f"{counts.size} channels of {many} innovations; {flagged} flagged\n" + _aligned(rows)


def _percent(holds: Any) -> str:
    holds = np.ravel(holds)
    return f"{100.0 * np.count_nonzero(holds) / max(1, holds.size):.3g} %"


def _aligned(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
