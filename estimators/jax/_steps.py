"""One step of any recursive estimator on JAX arrays, and what it starts from: shared by streams and trees."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import estimators
from estimators._parameters import brief
from estimators._recursive import Recursive
from estimators.jax._arithmetic import Number, precision, raw, within

if TYPE_CHECKING:
    from estimators.protocol import Estimator


class Setting(NamedTuple):
    """A recursive estimator as its steps need it: coefficients, the prior, and the shape of both."""

    given: Any
    prior: Any
    shape: tuple[int, ...]


def check_recursive(owner: str, estimator: Estimator) -> None:
    """Raise TypeError, one line that says which estimators work, unless it is a recursive one."""
    if not isinstance(estimator, Recursive):
        known = (getattr(estimators, name) for name in estimators.__all__)
        names = (kind.__name__ for kind in known if isinstance(kind, type) and issubclass(kind, Recursive))
        raise TypeError(
            f"{owner}: estimator={brief(estimator)} is not valid; estimator must be recursive: "
            f"{', '.join(names)}"
        )


def setting(estimator: Recursive, parameters: Mapping[str, Any]) -> Setting:
    """Coefficients and prior of an estimator, some parameters replaced by JAX arrays, which may be traced."""
    if parameters:
        names = [field.name for field in fields(estimator)]  # type: ignore[arg-type]
        for name in parameters:
            if name not in names:
                raise TypeError(
                    f"{type(estimator).__name__} has no parameter {name}; it has {', '.join(names)}"
                )
        estimator = copy.copy(estimator)
        for name, value in parameters.items():
            object.__setattr__(estimator, name, value)
    try:
        prior = estimator._prior()
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError(
            f"{type(estimator).__name__}: parameters={brief([*parameters])} is not valid; parameters must be "
            f"such as the prior, which is made of numbers, does not rest on"
        ) from error
    own = {field.name for field in fields(estimator)}  # type: ignore[arg-type]
    given = estimator._coefficients_type(
        *(_coefficient(value, name in own) for name, value in estimator._given()._asdict().items())
    )
    shapes = [np.shape(raw(value)) for value in (*given, *prior)]
    return Setting(given, prior, np.broadcast_shapes(*shapes))


def _coefficient(value: Any, is_parameter: bool) -> Any:
    """A parameter as float, so that 1 - beta and its like keep all digits of float64; else an array.

    What was derived from parameters is final: rounded once, its square is that of what it is added to.
    """
    if isinstance(value, jax.Array):
        return Number(value.astype(precision()))
    if np.ndim(value):
        return value if is_parameter else Number(jnp.asarray(value, precision()))
    number = float(value)
    if not np.isfinite(number) or (is_parameter and within(number) == number):
        return number
    return Number(jnp.asarray(number, precision()))


def step(kind: type[Recursive], given: Any, state: Any, sample: Any, present: Any) -> tuple[Any, Any]:
    """State after one sample, or after time alone where it is not present, and the gain, which is 0 there.

    Fields keep their shapes and types; the mean may be kept in another type than that of the computation.
    """
    moved, gain = loose_step(kind, given, state, sample, present)
    after = (
        jnp.broadcast_to(new, old.shape).astype(old.dtype) for new, old in zip(moved, state, strict=True)
    )
    return kind.State(*after), gain


def loose_step(kind: type[Recursive], given: Any, state: Any, sample: Any, present: Any) -> tuple[Any, Any]:
    """As ``step``, with fields of whatever shape comes out."""
    before = kind.State(*(Number(field.astype(precision())) for field in state))
    predicted = kind.predict(given, before)
    # NaN would stay in the derivatives of what is computed and then not taken.
    filled = Number(jnp.where(present, sample, 0).astype(precision()))
    corrected, gain = kind.correct(given, predicted, filled)
    after = (jnp.where(present, raw(new), raw(old)) for new, old in zip(corrected, predicted, strict=True))
    return kind.State(*after), jnp.where(present, raw(gain), 0.0).astype(precision())


def usable(sample: Any) -> Any:
    """Whether samples are neither NaN nor infinity, nor so large that the difference of two may be."""
    wide = sample.astype(kept(sample.dtype))
    return jnp.abs(wide) < 2.0 ** (np.finfo(wide.dtype).maxexp - 1)


def kept(dtype: Any) -> np.dtype[Any]:
    """Type in which the mean of samples of a type is carried on: their own, at least float32."""
    return np.dtype(jnp.promote_types(dtype, np.float32))


@functools.lru_cache(maxsize=256)
def shared(estimator: Recursive) -> tuple[bool, ...]:
    """Whether each field of the state is the same for all channels that miss the same samples.

    The steps themselves say so: a field is shared unless its shape comes out as that of the samples.
    """
    kind, given = type(estimator), setting(estimator, {}).given
    shapes: list[tuple[int, ...]] = [(2,) if name == "mean" else () for name in kind.State._fields]
    while True:
        state = kind.State(*(np.empty(shape, precision()) for shape in shapes))
        row, one = np.empty(2, precision()), np.empty((), np.bool_)
        moved, _ = jax.eval_shape(functools.partial(loose_step, kind, given), state, row, one)
        found = [np.broadcast_shapes(old, new.shape) for old, new in zip(shapes, moved, strict=True)]
        if found == shapes:
            return tuple(shape == () for shape in shapes)
        shapes = found
