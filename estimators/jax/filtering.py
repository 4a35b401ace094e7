"""Streams and single samples of JAX arrays through any recursive estimator, by the library's own steps."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from estimators.ema import EMA, DebiasedEMA
from estimators.jax._arithmetic import precision, raw
from estimators.jax._steps import Setting, check_recursive, kept, setting, step, usable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from estimators._recursive import Recursive


class Filtered(NamedTuple):
    """Estimates of a stream after each sample, shape (T, *channels), and the state after the last."""

    mean: Any
    """In the type of the stream."""
    variance: Any
    """Of the mean's error; None for estimators that state none."""
    gain: Any
    """0 where the sample is missing."""
    state: Any


def filter(  # noqa: A001
    estimator: Recursive,
    x: Any,
    state: Any = None,
    *,
    parallel: bool = False,
    parameters: Mapping[str, Any] | None = None,
) -> Filtered:
    """Filter a whole stream; works inside ``jax.jit``, ``vmap`` and ``grad``.

    x: time on axis 0, further axes are channels; NaN and infinity are missing, by channel. state: where an
    earlier run stopped, or ``estimator.init`` of the NumPy side; shaped as the parameters alone it serves any
    channels. parameters: values by name in place of the estimator's own, JAX arrays, which may be traced and
    are not checked: by these, too, the result can be differentiated. parallel: by an associative scan, of
    logarithmic depth, which EMA and DebiasedEMA allow; it agrees with the other to rounding.

    The mean has the type of x (integers: the default float type). Everything is computed in float32, or in
    float64 where ``jax_enable_x64`` is set, whatever the type of x, and numbers such as 1 - beta in float64
    on the host; every field of the state has the shape of the channels and that precision, save the mean,
    which is carried on in the type of x, bfloat16 and float16 as float32. A run cut anywhere agrees to
    rounding. In float32 a gain that is accumulated is exact to 6e-8 / (1 - beta) or better, and the mean an
    average of samples nonetheless: of a constant always that constant. Estimators that square innovations
    want them between 1e-15 and 1e15 there: the squares of smaller ones are 0, and the gradients of larger
    ones overflow.
    Derivatives are those of the estimates that come out; where there is none (the square root of a q of 0)
    they are 0, never NaN.

    Raises TypeError for an estimator that is not recursive, text, complex numbers, a state of another
    estimator, and ``parallel`` where the gain is not fixed; ValueError for shapes that do not fit. The scan:
    Blelloch (1990), Prefix Sums and Their Applications, section 1.4.
    """
    check_recursive("filter", estimator)
    if parallel and type(estimator) not in (EMA, DebiasedEMA):
        raise TypeError(
            f"filter: parallel=True is not valid for {type(estimator).__name__}; it must be False unless the "
            f"estimator is EMA or DebiasedEMA"
        )
    samples = _as_floats(x)
    if samples.ndim == 0:
        raise ValueError("filter: x has no time axis; pass a sequence of samples, or use update for one")
    run = _in_parallel if parallel else _in_turn
    return Filtered(*run(estimator, samples, _checked(estimator, state), dict(parameters or {})))


def init(estimator: Recursive, x0: Any) -> Any:
    """State before any sample, shaped as x0 broadcast with the parameters; types as in ``filter``.

    Raises TypeError for an estimator that is not recursive, ValueError for shapes that do not broadcast.
    """
    check_recursive("init", estimator)
    sample, known = _as_floats(x0), setting(estimator, {})
    channels = _channels(estimator, known, sample.shape)
    return _opened(estimator, known, None, channels, sample.dtype)


@functools.partial(jax.jit, static_argnums=0)
def _update(estimator: Recursive, state: Any, sample: Any) -> Any:
    known = setting(estimator, {})
    shape = np.shape(state.mean) if sample.ndim == 0 else sample.shape
    channels = _channels(estimator, known, shape)
    opened = _opened(estimator, known, state, channels, sample.dtype)
    return step(type(estimator), known.given, opened, sample, usable(sample))[0]


def update(estimator: Recursive, state: Any, x: Any, out: None = None) -> Any:
    """State after one more sample of every channel; NaN and infinity are missing.

    Pure, compiled once for each shape; types as in ``filter``. Raises TypeError for an estimator that is not
    recursive or a state of another one, ValueError for shapes that do not fit.
    """
    check_recursive("update", estimator)
    if out is not None:
        raise TypeError("update: out= is not valid with JAX arrays, which cannot be written; it must be None")
    if state is None:
        raise TypeError(
            f"update: state=None is not valid; state must be the {estimator.State.__name__} of init"
        )
    return _update(estimator, _checked(estimator, state), _as_floats(x))


@functools.partial(jax.jit, static_argnums=0)
def _in_turn(estimator: Recursive, samples: Any, state: Any, parameters: dict[str, Any]) -> Any:
    kind, known = type(estimator), setting(estimator, parameters)
    channels = _channels(estimator, known, samples.shape[1:])
    stated = "variance" in kind.State._fields

    def advance(before: Any, sample: Any) -> Any:
        after, gain = step(kind, known.given, before, sample, usable(sample))
        variance = after.variance if stated else None
        return after, (after.mean.astype(samples.dtype), variance, jnp.broadcast_to(gain, channels))

    last, rows = jax.lax.scan(advance, _opened(estimator, known, state, channels, samples.dtype), samples)
    return *rows, last


@functools.partial(jax.jit, static_argnums=0)
def _in_parallel(estimator: Recursive, samples: Any, state: Any, parameters: dict[str, Any]) -> Any:
    known = setting(estimator, parameters)
    channels = _channels(estimator, known, samples.shape[1:])
    opened = _opened(estimator, known, state, channels, samples.dtype)
    start = opened.mean.astype(precision())
    if not len(samples):
        none = jnp.zeros((0, *channels), precision())
        return none.astype(samples.dtype), None, none, opened
    rows = samples.reshape(len(samples), *(1,) * (len(channels) + 1 - samples.ndim), *samples.shape[1:])
    present = jnp.broadcast_to(usable(rows), (len(samples), *channels))
    filled = jnp.where(present, rows, 0).astype(precision())
    first = jnp.argmax(present, axis=0)
    # Deviations from the start, or from the first sample: at either the deviation is 0, and so it stays
    # through a gap and for a constant.
    origin = jnp.where(jnp.isnan(start), jnp.take_along_axis(filled, first[jnp.newaxis], axis=0)[0], start)
    begun = ~jnp.isnan(start) | (jnp.cumsum(present, axis=0) > 0)
    if isinstance(estimator, DebiasedEMA):
        beta, share = raw(known.given.beta), raw(known.given.share)
        mass = jnp.where(present, share, 0.0).astype(precision())
        mass = mass.at[0].add(beta * opened.weight)
        weight = _accumulated(jnp.broadcast_to(jnp.asarray(beta, precision()), mass.shape), mass)
        gain = jnp.where(present, share / jnp.where(present, weight, 1.0), 0.0)
    else:
        opens = present & jnp.isnan(start) & (jnp.cumsum(present, axis=0) == 1)
        gain = jnp.where(opens, 1.0, jnp.where(present, raw(1.0 - known.given.beta), 0.0))
        weight = None
    gain = gain.astype(precision())
    mean = origin + _accumulated(1.0 - gain, gain * jnp.where(present, filled - origin, 0.0))
    mean = jnp.where(begun, mean, jnp.nan)
    fields = [mean[-1].astype(opened.mean.dtype)] + ([] if weight is None else [weight[-1]])
    return mean.astype(samples.dtype), None, gain, type(opened)(*fields)


def _accumulated(kept_share: Any, added: Any) -> Any:
    """y(t) = kept_share(t) y(t - 1) + added(t) from y(-1) = 0, all at once: such maps compose."""

    def compose(one: Any, other: Any) -> Any:
        return one[0] * other[0], other[0] * one[1] + other[1]

    return jax.lax.associative_scan(compose, (kept_share, added))[1]


def _as_floats(x: Any) -> Any:
    """Samples as a JAX array of floats; TypeError for what are no real numbers."""
    try:
        samples = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise TypeError("x is not an array of numbers; samples must be real, NaN where missing") from error
    if jnp.issubdtype(samples.dtype, jnp.floating):
        return samples
    if jnp.issubdtype(samples.dtype, jnp.complexfloating):
        raise TypeError("x holds complex numbers; samples must be real numbers")
    return samples.astype(precision())


def _channels(estimator: Recursive, known: Setting, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of a state: that of a sample broadcast with the parameters."""
    try:
        return np.broadcast_shapes(shape, known.shape)
    except ValueError as error:
        raise ValueError(
            f"{type(estimator).__name__}: channels of shape {shape} do not broadcast with parameters of "
            f"shape {known.shape}"
        ) from error


def _checked(estimator: Recursive, state: Any) -> Any:
    if state is not None and not isinstance(state, estimator.State):
        raise TypeError(
            f"{type(estimator).__name__}: state is a {type(state).__name__}; it must be the "
            f"{estimator.State.__name__} that init, update or filter returned"
        )
    return state


def _opened(estimator: Recursive, known: Setting, state: Any, channels: tuple[int, ...], dtype: Any) -> Any:
    """The state to go on from, or that before any sample, for channels of samples of a type."""
    fields, given = [], known.prior if state is None else state
    for name, value in zip(estimator.State._fields, given, strict=True):
        own = np.shape(raw(value))
        if state is not None and own not in ((), known.shape, channels):
            raise ValueError(
                f"x with channels of shape {channels} does not fit a state.{name} of shape {own}"
            )
        its_type = precision()
        if name == "mean":
            carried = getattr(value, "dtype", dtype) if state is not None else dtype
            its_type = kept(jax.dtypes.canonicalize_dtype(jnp.promote_types(carried, dtype)))
        fields.append(jnp.broadcast_to(jnp.asarray(value, its_type), channels))
    return estimator.State(*fields)


def to_numpy(x: Any, name: str) -> NDArray[np.float64]:
    """An array as float64 on the host; TypeError for complex numbers, and where a function is traced."""
    if isinstance(x, jax.core.Tracer):
        raise TypeError(f"{name} is traced by JAX; inside jit, grad and vmap use estimators.jax.filter")
    if jnp.iscomplexobj(x):
        raise TypeError(f"{name} holds complex numbers; samples must be real numbers")
    values: NDArray[np.float64] = np.asarray(x).astype(np.float64)
    return values


def on_host(state: Any) -> Any:
    """A state of JAX arrays as one of NumPy arrays."""
    return type(state)(*(np.asarray(field, dtype=np.float64) for field in state))


def wrapper(x: Any) -> Callable[[NDArray[Any]], Any]:
    """How results become JAX arrays of the type of x, of the default float type for integers."""
    dtype = _as_floats(x[:0]).dtype
    return lambda values: jnp.asarray(values, dtype)
