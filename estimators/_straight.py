"""A recursion written out for one float: its two steps traced once into a few lines of plain Python.

Calls cost a Python float more than its arithmetic. The steps are run once on names instead of numbers, which
yields what they compute as expressions; from these come the function behind ``update`` on one float, the one
behind ``tracker``, and the proof that a gain does not depend on the data, on which the loops look ahead.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from estimators._arithmetic import exp, log, sqrt, toward
from estimators.tracker import Tracker, resumed

_UPDATE = """\
def update(state, sample):
    if type(state) is State:
        {fields}, = state
        if type(sample) is float and -limit < sample < limit and {floats}:
{shared}
            return new(State, ({results},))
    return None
"""
_TRACKER = """\
class tracker(Tracker):
    __slots__ = ({quoted},)

    def __init__(self, estimator, state, *, on_infinite):
        self._on_infinite = on_infinite
        self._started = True
        self.estimator = estimator
        self.state = state

    def update(self, sample, steps=None, weight=None, r=None):
        if weight is steps is r is None and type(sample) is float and -{limit!r} < sample < {limit!r}:
            {fields}, = {read},
{shared}
            {read}, = {results},
            return self.field_0
        return Tracker.update(self, sample, steps=steps, weight=weight, r=r)

    @property
    def state(self):
        return State({read})

    @state.setter
    def state(self, state):
        {read}, = state
        self.__class__ = tracker if {read_floats} else of_arrays

    def __reduce__(self):
        return resumed, (self.estimator, self.state, self._on_infinite)

    update.__doc__ = Tracker.update.__doc__
    state.__doc__ = "State after the last sample."
    __doc__, __name__, __qualname__, __module__ = Tracker.__doc__, "Tracker", "Tracker", Tracker.__module__


class of_arrays(tracker):
    __slots__ = ()
    update = Tracker.update


tracker.__name__ = of_arrays.__name__ = "Tracker"
"""
_WHERE = "{1} if {0} else {2}"


class _UntraceableError(Exception):
    """Raised where a step asks for a number that is not there yet, as in ``if sample > 0``."""


class _Expression:
    """What a step computes from its inputs; equal expressions of one trace are the same object."""

    __slots__ = ("operands", "operator", "trace")

    def __init__(self, trace: _Trace, operator: str, operands: tuple[Any, ...]) -> None:
        self.trace, self.operator, self.operands = trace, operator, operands

    def __bool__(self) -> bool:
        raise _UntraceableError

    def _where_(self, chosen: Any, otherwise: Any) -> Any:
        """Choose by this condition, which each of the two choices may then take for granted."""
        if self.operator == _WHERE and self.operands[1:] == (False, True):
            return self.operands[0]._where_(otherwise, chosen)
        assumed = self.trace.assuming(self, True, chosen), self.trace.assuming(self, False, otherwise)
        if assumed[0] is assumed[1]:
            return assumed[0]
        return self.trace.of(_WHERE, self, *assumed)

    def _call_(self, function: str) -> Any:
        """Apply a function of one number by its name in ``_arithmetic``."""
        return self.trace.of(f"{function}({{0}})", self)

    def __neg__(self) -> Any:
        return self.trace.of("-{0}", self)

    def __abs__(self) -> Any:
        return self.trace.of("abs({0})", self)

    __hash__ = object.__hash__


def _binary(sign: str, reflected: bool) -> Callable[[Any, Any], Any]:
    def apply(self: _Expression, other: Any) -> Any:
        if not isinstance(other, (int, float, _Expression)):
            return NotImplemented
        operands = (other, self) if reflected else (self, other)
        return self.trace.of(f"{{0}} {sign} {{1}}", *operands)

    return apply


for _name, _sign in {"add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**"}.items():
    setattr(_Expression, f"__{_name}__", _binary(_sign, reflected=False))
    setattr(_Expression, f"__r{_name}__", _binary(_sign, reflected=True))
for _name, _sign in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(_Expression, f"__{_name}__", _binary(_sign, reflected=False))


class _Trace:
    """Expressions over named inputs, one object for each."""

    def __init__(self) -> None:
        self._known: dict[Any, _Expression] = {}
        self._assumed: dict[tuple[_Expression, bool, _Expression], Any] = {}

    def of(self, operator: str, *operands: Any) -> Any:
        """Expression of an operator's template over operands; a comparison of known choices is a choice."""
        first = operands[0] if operands else None
        if operator == "{0} == {1}" and isinstance(first, _Expression) and first.operator == _WHERE:
            condition, *choices = first.operands
            if not any(isinstance(value, _Expression) for value in (*choices, operands[1])):
                return condition._where_(*(choice == operands[1] for choice in choices))
        key = operator, *((id(o) if isinstance(o, _Expression) else repr(o)) for o in operands)
        return self._known.setdefault(key, _Expression(self, operator, operands))

    def assuming(self, condition: _Expression, holds: bool, value: Any) -> Any:
        """Rewrite a value where a condition is known to hold, or known not to."""
        if not isinstance(value, _Expression) or not value.operands:
            return value
        key = condition, holds, value
        if key not in self._assumed:
            if value.operator == _WHERE and value.operands[0] is condition:
                self._assumed[key] = self.assuming(condition, holds, value.operands[1 if holds else 2])
            else:
                operands = [self.assuming(condition, holds, operand) for operand in value.operands]
                self._assumed[key] = self.of(value.operator, *operands)
        return self._assumed[key]

    def depends(self, values: Sequence[Any], inputs: set[str]) -> bool:
        """Whether a value of one of the inputs matters to any, beyond whether there is one (x == x)."""
        left, seen = list(values), set[int]()
        while left:
            value = left.pop()
            if not isinstance(value, _Expression) or id(value) in seen:
                continue
            seen.add(id(value))
            if value.operator in inputs:
                return True
            if value.operator != "{0} == {1}" or value.operands[0] is not value.operands[1]:
                left += value.operands
        return False

    def written(self, values: tuple[Any, ...]) -> tuple[list[str], list[str]]:
        """Assignments of what is used more than once, and the text of each value."""
        uses: dict[int, int] = {}

        def count(value: Any) -> Iterator[_Expression]:
            if isinstance(value, _Expression) and value.operands:
                uses[id(value)] = uses.get(id(value), 0) + 1
                if uses[id(value)] == 1:
                    for operand in value.operands:
                        yield from count(operand)
                    yield value

        ordered = [expression for value in values for expression in count(value)]
        names: dict[int, str] = {}

        def text(value: Any, whole: bool = False) -> str:
            if not isinstance(value, _Expression):
                return f"({float(value)!r})" if isinstance(value, float) else f"({value!r})"
            if id(value) in names:
                return names[id(value)]
            inner = value.operator.format(*map(text, value.operands))
            return inner if whole or not value.operands else f"({inner})"

        assignments = []
        for expression in ordered:
            if uses[id(expression)] > 1:
                assignments.append(f"shared_{len(names)} = {text(expression, whole=True)}")
                names[id(expression)] = f"shared_{len(names)}"
        return assignments, [text(value, whole=True) for value in values]


@dataclass(frozen=True)
class Straight:
    """One setting's recursion in straight lines."""

    update: Callable[[Any, Any], Any]
    """update(state, sample): the state after it, None where either is not of plain floats in range."""
    tracker: type[Tracker]
    """A tracker whose ``update`` is the recursion itself; what is no plain float goes the common way."""


def straight(estimator: Any, coefficients: NamedTuple, limit: float) -> Straight | None:
    """Write out a recursion of plain numbers; None where its steps are more than arithmetic and ``where``."""
    traced = _traced(estimator, lambda _: coefficients)
    if traced is None:
        return None
    names = [field.operator for field in traced.fields]
    assignments, texts = traced.trace.written(traced.corrected)
    spelled = {
        "fields": ", ".join(names),
        "floats": " and ".join(f"type({name}) is float" for name in names),
        "limit": limit,
        "quoted": ", ".join(map(repr, names)),
        "read": ", ".join(f"self.{name}" for name in names),
        "read_floats": " and ".join(f"type(self.{name}) is float" for name in names),
        "shared": "\n".join(f"            {line}" for line in assignments) or "            pass",
        "results": ", ".join(texts),
    }
    scope: dict[str, Any] = {"State": estimator.State, "Tracker": Tracker, "resumed": resumed}
    scope |= {"new": tuple.__new__, "limit": limit, "inf": math.inf, "nan": math.nan}
    scope |= {"sqrt": sqrt, "exp": exp, "log": log}
    exec(_UPDATE.format(**spelled) + _TRACKER.format(**spelled), scope)
    return Straight(scope["update"], scope["tracker"])


def settles(estimator: Any) -> bool:
    """Whether gains follow from the gaps alone, whatever the coefficients; False where that is not proved.

    The mean then moves by ``toward`` alone, and neither another field nor the gain depends on the samples'
    values, so that a gain that has settled stays.
    """

    def symbols(trace: _Trace) -> Any:
        kind = estimator._coefficients_type
        return kind(*(trace.of(f"coefficient_{k}") for k in range(len(kind._fields))))

    traced = _traced(estimator, symbols)
    if traced is None:
        return False
    mean, *rest = traced.corrected
    return (
        traced.predicted[0] is traced.fields[0]
        and mean is toward(traced.fields[0], traced.sample, traced.gain)
        and not traced.trace.depends((*rest, *traced.predicted[1:], traced.gain), {"field_0", "sample"})
    )


class _Traced(NamedTuple):
    trace: _Trace
    fields: list[Any]
    sample: Any
    predicted: tuple[Any, ...]
    corrected: tuple[Any, ...]
    gain: Any


def _traced(estimator: Any, coefficients: Callable[[_Trace], Any]) -> _Traced | None:
    """Run the two steps on expressions; None where they ask for numbers, or read some that may change."""
    if any(_reads_numbers(function) for function in (estimator.predict, estimator.correct)):
        return None
    trace = _Trace()
    fields = [trace.of(f"field_{k}") for k in range(len(estimator.State._fields))]
    sample = trace.of("sample")
    given = coefficients(trace)
    try:
        predicted = estimator.predict(given, estimator.State(*fields))
        corrected, gain = estimator.correct(given, predicted, sample)
    except (_UntraceableError, TypeError, AttributeError, ArithmeticError):
        return None
    if not all(isinstance(value, (int, float, _Expression)) for value in (*predicted, *corrected, gain)):
        return None
    return _Traced(trace, fields, sample, tuple(predicted), tuple(corrected), gain)


def _reads_numbers(function: Any) -> bool:
    """Whether a function reads numbers from outside: they may change, and what is written would not."""
    scope = inspect.getclosurevars(function)
    values = [*scope.globals.values(), *scope.nonlocals.values()]
    return any(not callable(value) and not inspect.ismodule(value) for value in values) or any(
        inspect.iscode(constant) for constant in function.__code__.co_consts
    )
