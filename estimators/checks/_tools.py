"""What the checks share: seeded streams, tolerances that follow from the setting, failures of one line."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from estimators.protocol import Trait
from estimators.results import align

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Check: TypeAlias = Callable[[Any], None]

PRECISION = 1e-12
"""How far two ways to the same mean may part, in units of the largest sample so far."""
PATIENCE = 1000
"""Longest effective window, in samples, that is run until it has settled; longer ones cost too much."""


def contract(check: Check) -> Check:
    """Turn every failure of a check into an AssertionError of one line: check, estimator, what was found."""

    @functools.wraps(check)
    def named(estimator: Any) -> None:
        try:
            check(estimator)
        except Exception as error:
            found = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(
                f"{check.__name__}: {label(estimator)}: {' '.join(found.split())[:400]}"
            ) from error

    return named


def label(estimator: Any) -> str:
    """The estimator in at most 80 characters of one line."""
    text = " ".join(repr(estimator).split())
    return text if len(text) <= 80 else text[:77] + "..."


def expect(holds: Any, otherwise: str) -> None:
    """Raise AssertionError with a message unless something holds (an assert that -O keeps)."""
    if not holds:
        raise AssertionError(otherwise)


def expect_close(got: Any, want: Any, allowed: ArrayLike, what: str) -> None:
    """Expect equal shapes and values within a tolerance; NaN equals NaN, infinity itself."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    expect(got.shape == want.shape, f"{what} has shape {got.shape} instead of {want.shape}")
    bound = np.broadcast_to(np.asarray(allowed, dtype=np.float64), got.shape)
    with np.errstate(invalid="ignore", over="ignore"):
        near = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= bound)
    if not near.all():
        place = tuple(int(i) for i in np.argwhere(~near)[0])
        raise AssertionError(
            f"{what} is {float(got[place])!r} instead of {float(want[place])!r} at {place}, where "
            f"{bound[place]:.1e} is allowed ({np.sum(~near)} of {near.size} values are off)"
        )


def expect_same(got: Any, want: Any, what: str) -> None:
    """Expect equal shapes and values, to the last bit."""
    expect_close(got, want, 0.0, what)


def expect_same_state(got: Any, want: Any, what: str) -> None:
    """Expect states of equal values and types, to the last bit."""
    mine, theirs = list(leaves(got)), list(leaves(want))
    expect(len(mine) == len(theirs), f"{what} has {len(mine)} entries instead of {len(theirs)}")
    for one, other in zip(mine, theirs, strict=True):
        expect(type(one) is type(other), f"{what} holds {type(one).__name__}, not {type(other).__name__}")
        kinds = np.asarray(one).dtype, np.asarray(other).dtype
        expect(kinds[0] == kinds[1], f"{what} holds {kinds[0]} instead of {kinds[1]}")
        expect_same(one, other, what)


def expect_raises(
    kinds: type[Exception] | tuple[type[Exception], ...],
    what: str,
    call: Callable[..., Any],
    *given: Any,
    **named: Any,
) -> None:
    """Expect a call to raise one of these exceptions with a message of one line."""
    wanted = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
    try:
        call(*given, **named)
    except kinds as error:
        text = str(error)
        expect(text and "\n" not in text, f"{what}: the message must be one line, it is {text!r}")
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__} instead of {wanted}: {error}") from error
    else:
        raise AssertionError(f"{what} passes; it must raise {wanted}")


def leaves(tree: Any) -> Iterator[Any]:
    """Every number and array in nested tuples, lists and mappings; None is nothing."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from leaves(value)
    elif isinstance(tree, (tuple, list)):
        for value in tree:
            yield from leaves(value)
    elif tree is not None:
        yield tree


def arrays(tree: Any) -> list[NDArray[Any]]:
    """Every array among the leaves."""
    return [leaf for leaf in leaves(tree) if isinstance(leaf, np.ndarray)]


def channels_of(estimator: Any) -> tuple[int, ...]:
    """Channels that the parameters alone make: () unless some are arrays."""
    return np.shape(estimator.init(0.0).mean)


def prior_of(estimator: Any) -> NDArray[np.float64]:
    """Mean before any sample, NaN where there is none, shape of the parameters."""
    return np.asarray(estimator.init(0.0).mean, dtype=np.float64)


def positive(estimator: Any) -> bool:
    """Whether it takes samples > 0 alone."""
    return Trait.POSITIVE in estimator.traits


def logarithms(estimator: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Ways to where its map adds and back: log and exp where it multiplies, else as it is."""
    return (np.log, np.exp) if positive(estimator) else (np.asarray, np.asarray)


def stream(
    estimator: Any, steps: int = 48, *, lead: tuple[int, ...] = (), seed: int = 0, gaps: bool = True
) -> NDArray[np.float64]:
    """Seeded samples of shape (steps, *lead, *parameters) of size 1 to 10; positive where they must be.

    With gaps: two leading rows, rows 10 to 15, and 15 % of the other samples are missing.
    """
    rng = np.random.default_rng((seed, steps, *lead))
    x = 3.0 * rng.standard_normal((steps, *lead, *channels_of(estimator))) + 1.0
    if positive(estimator):
        x = np.exp(x / 3.0)
    if gaps:
        x[rng.random(x.shape) < 0.15] = np.nan
        x[:2] = np.nan
        x[10:16] = np.nan
    return x


def scale(estimator: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest magnitude so far, the prior mean included, shape (T, *channels): what the tolerance is of."""
    prior = prior_of(estimator)
    channels = np.broadcast_shapes(prior.shape, x.shape[1:])
    start = np.broadcast_to(np.abs(np.nan_to_num(prior)), channels)
    rows = np.broadcast_to(align(np.abs(np.nan_to_num(x)), channels), (x.shape[0], *channels))
    largest: NDArray[np.float64] = np.maximum.accumulate(np.concatenate([start[np.newaxis], rows]), axis=0)[
        1:
    ]
    return largest


def tolerance(estimator: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The 1e-12 of the largest magnitude so far that the contract grants, shape (T, *channels)."""
    return PRECISION * scale(estimator, x)


def spread(value: ArrayLike, channels: tuple[int, ...], lead: int = 0) -> NDArray[Any]:
    """Broadcast a closed form of shape (*lead, *parameters) to all channels, behind its leading axes."""
    given = np.asarray(value)
    shape = given.shape[:lead] + (1,) * (len(channels) + lead - given.ndim) + given.shape[lead:]
    return np.broadcast_to(given.reshape(shape), given.shape[:lead] + channels)


def window_of(estimator: Any) -> NDArray[np.float64]:
    """effective_window of every channel; NaN where the estimator states none."""
    return spread(getattr(estimator, "effective_window", math.nan), channels_of(estimator))


def settling_of(estimator: Any) -> NDArray[np.float64]:
    """Samples until the step response of every channel stays at 1; infinite where that takes too long."""
    own = channels_of(estimator)
    off = np.abs(1.0 - spread(estimator.step_response(40 * PATIENCE), own, 1)) > 1e-13
    last = len(off) - np.argmax(off[::-1], axis=0)
    # A slope whose gain falls for ever never settles, whatever the form of its limit says.
    settles = ~off[-1] & (spread(getattr(estimator, "steady_slope_gain", 1.0), own) > 0.0)
    return np.where(settles, last, np.inf)


def variances_of(result: Any) -> NDArray[np.float64] | None:
    """Variances as an array, None where the estimator has none."""
    return None if result.variance is None else np.asarray(result.variance, dtype=np.float64)


def of_nothing(estimator: Any, run: Any) -> Any:
    """Logarithm of what a map that multiplies makes of ones: 0, or what makes a mean of a median; else 0."""
    if not positive(estimator):
        return 0.0
    made = np.log(run.replay(np.ones(run.mean.shape), 1.0))
    variances, known = variances_of(run), ~np.isnan(made)
    # Of a lognormal of variance V, mean / median is sqrt(1 + V / mean^2).
    most = 0.0 if variances is None else 0.5 * np.log1p(variances / np.asarray(run.mean) ** 2)
    within = (made >= -PRECISION) & (made <= most + PRECISION)
    expect(within[known].all(), "replay(1, initial=1) is neither 1 nor between median and mean")
    return made


def expect_same_run(got: Any, want: Any, allowed: ArrayLike, what: str) -> None:
    """Expect two results to agree in mean within a tolerance, in gain and variance by the same measure."""
    expect_close(got.mean, want.mean, allowed, f"mean {what}")
    expect_close(got.gain, want.gain, PRECISION, f"gain {what}")
    expect_same_variance(got.variance, want.variance, f"variance {what}")


def expect_same_variance(got: Any, want: Any, what: str) -> None:
    """Expect variances to agree within 1e-12 of themselves, or both to be None."""
    expect((got is None) == (want is None), f"{what} is {got!r} instead of {want!r}")
    if got is not None:
        size = np.abs(np.asarray(want, dtype=np.float64))
        expect_close(got, want, PRECISION * np.where(np.isfinite(size), size, 0.0), what)


def other_settings(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Valid estimators of the class that differ in one named field; none where they cannot be guessed."""
    if not dataclasses.is_dataclass(estimator) or isinstance(estimator, type):
        return
    for field in dataclasses.fields(estimator):
        value = getattr(estimator, field.name)
        nested = [other for _, other in other_settings(value)]
        for candidate in nested or _candidates(value) if field.init else ():
            try:
                other = dataclasses.replace(estimator, **{field.name: candidate})
            except (TypeError, ValueError):
                continue
            if not _equal(getattr(other, field.name), value):
                yield field.name, other
                break


def _candidates(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, (float, np.ndarray)):
        return [0.5 * value, value + 1.0, 0.5 * value + 0.25, 1.0]
    return [0.5, 1] if value is None else []


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float, np.ndarray)) and isinstance(other, (int, float, np.ndarray)):
        return np.array_equal(one, other)
    return bool(one == other)
