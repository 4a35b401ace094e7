"""How estimators, states and results show themselves: a line of text, and a small table in a notebook."""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from estimators._parameters import ByValue

if TYPE_CHECKING:
    from estimators.results import Run

Facts: TypeAlias = "Iterable[tuple[str, Any]]"
"""What there is to say of something: labels and values, the most telling first."""

FEW = 20
"""Numbers of an array that are written one by one; of more, how many and from where to where."""
COSTLY = 10**6
"""Numbers of a run beyond which nothing is shown that would have to be computed first."""
CLOSED_FORMS = {
    "steady_gain": ("settled gain", ""),
    "time_constant": ("time constant", "samples"),
    "half_life": ("half-life", "samples"),
    "group_delay": ("lag (group delay)", "samples"),
    "noise_gain": ("noise gain", ""),
    "cutoff": ("cutoff", "cycles per sample"),
    "state_bytes": ("state", "bytes per channel"),
}
"""What a notebook is told of an estimator beside its parameters, where it has it: a label and a unit."""
# No colours of its own, which one theme or the other would hide: text as around it, lines half transparent.
_PLAIN = "background:transparent;color:inherit"
_CELL = (
    f"text-align:left;vertical-align:top;padding:0.15em 0.8em 0.15em 0;{_PLAIN};"
    "border-bottom:1px solid rgba(128,128,128,0.4)"
)


def text(thing: Any) -> str:
    """One line: of a setting the call that makes it again, of a result what it came to."""
    if isinstance(thing, ByValue):
        return _call(thing)
    return f"<{type(thing).__name__}: {', '.join(f'{label} {value}' for label, value in thing._facts())}>"


def page(thing: Any) -> str:
    """HTML of a table; of what prints as a screen, that screen."""
    if "__str__" in vars(type(thing)):
        return f'<pre style="overflow-x:auto;{_PLAIN}">{html.escape(str(thing))}</pre>'
    facts = _of_setting(thing) if isinstance(thing, ByValue) else thing._facts(full=True)
    lines = [f'<caption style="text-align:left;{_PLAIN}">{html.escape(type(thing).__name__)}</caption>']
    for label, value in facts:
        head = f'<th scope="row" style="font-weight:normal;{_CELL}">{html.escape(label)}</th>'
        cell = f'<td style="{_CELL}">{html.escape(str(value))}</td>'
        lines.append(f'<tr style="{_PLAIN}">{head}{cell}</tr>')
    return f'<table style="border-collapse:collapse;{_PLAIN}">{"".join(lines)}</table>'


def field_text(value: Any) -> str:
    """A field of a state or of a tracker: numbers to the last bit, long arrays in short."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    return " ".join(repr(value).split()) if value.size <= FEW else f"<{_span(value)}>"


def state_text(state: Any) -> str:
    """A state in one line."""
    fields = (f"{name}={field_text(value)}" for name, value in zip(state._fields, state, strict=True))
    return f"{type(state).__name__}({', '.join(fields)})"


def number(value: Any) -> str:
    """A number to six digits; of a few all, of many the range."""
    if isinstance(value, np.ndarray):
        return (
            _span(value)
            if value.ndim != 1 or value.size > FEW
            else f"[{', '.join(map(_short, value.tolist()))}]"
        )
    return _short(value)


def interval(low: Any, high: Any) -> str:
    """Two ends; of several intervals the hull."""
    several = "within " if np.ndim(low) else ""
    ends = (np.min(low), np.max(high)) if np.size(low) else (math.nan, math.nan)
    return f"{several}{_short(float(ends[0]))} to {_short(float(ends[1]))}"


def last_of(run: Run, level: float) -> Facts:
    """The last mean of a run and its interval, from its last state alone."""
    from estimators.results import Trace

    if not len(run.mean):
        return
    if 1 < run.mean.size <= FEW and not run.channels:
        yield "means", number(run.mean)
    yield "last mean", number(run.mean[-1])
    if run.states_variance:
        fields = {name: np.asarray(getattr(run.state, name))[np.newaxis] for name in run.state._fields[1:]}
        alone = dataclasses.replace(
            run, samples=run.samples[-1:], mean=run.mean[-1:], known=Trace(np.empty(0), fields), changing={}
        )
        low, high = run.estimator._interval(alone, level)
        yield f"{100.0 * level:.3g} % interval", interval(low[0], high[0])


def _call(setting: Any) -> str:
    """The call that makes a setting, without what stands at its default."""
    given = []
    for field in dataclasses.fields(setting):
        value = getattr(setting, field.name)
        if field.default is dataclasses.MISSING or not _same(value, field.default):
            given.append(f"{field.name}={_argument(value)}")
    return f"{type(setting).__qualname__}({', '.join(given)})"


def _same(value: Any, default: Any) -> bool:
    """Whether a parameter is its default, of the same kind too: True is not 1.0."""
    return type(value) is type(default) and bool(value == default)


def _argument(value: Any) -> str:
    """A parameter as code that needs no import; a long array in short, which is no code."""
    if isinstance(value, np.ndarray):
        return _list(value.tolist()) if value.size <= FEW else f"<{_span(value)}>"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    return repr(value)


def _list(value: Any) -> str:
    return f"[{', '.join(map(_list, value))}]" if isinstance(value, list) else _argument(value)


def _of_setting(setting: Any) -> Facts:
    """Parameters, defaults among them, and closed forms."""
    for field in dataclasses.fields(setting):
        value = getattr(setting, field.name)
        is_number = isinstance(value, float | np.ndarray)
        yield field.name, number(value) if is_number else _argument(value)
    for name, (label, unit) in CLOSED_FORMS.items():
        value = getattr(setting, name, None)
        if value is not None and not (isinstance(value, float) and math.isnan(value)):
            yield label, f"{number(value)} {unit}".rstrip()


def _span(values: np.ndarray[Any, Any]) -> str:
    """How many numbers, in which shape, from where to where."""
    shape = f"{values.size:,}" if values.ndim == 1 else " x ".join(f"{size:,}" for size in values.shape)
    known = values[~np.isnan(values)] if values.dtype.kind == "f" else values
    if not known.size or values.dtype.kind not in "fiu":
        return f"{shape} {'times NaN' if values.size and values.dtype.kind == 'f' else 'values'}"
    if known.min() == known.max() and known.size == values.size > 1:
        return f"{shape} times {_short(known.min().item())}"
    some = f", {values.size - known.size:,} NaN" if known.size < values.size else ""
    return f"{shape} numbers from {_short(known.min().item())} to {_short(known.max().item())}{some}"


def _short(value: Any) -> str:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
