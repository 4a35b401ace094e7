"""From a sweep to the configuration of each of its points: axes, and composition paid for only once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.override_parser.types import Glob, Override, Transformer, ValueType
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import config
from experiments.config import GROUPS, ConfigError
from experiments.registry import nearest

UNSWEPT = {
    "experiment.name": "a sweep is of one experiment; give the command once for each",
    "experiment.sweep": "a sweep has no sweeps",
    "seeds": "more seeds are a longer sweep, not another one: give the largest",
    "output": "all points of a sweep go to one folder",
    "executor": "how a sweep runs changes no number",
    "experiment": "a sweep is of one experiment; give the command once for each",
}


@dataclass(frozen=True)
class Axis:
    """Choices of which each point takes one: overrides of one key, or of several that go together."""

    keys: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Sweep:
    """Overrides that all points share, and the axes whose product they are."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, overrides: Sequence[str], multirun: bool) -> Sweep:
        """Read axes from the command line and from the experiment's ``sweep``; ConfigError if they are none.

        A key on the command line, fixed or swept, takes the place of the experiment's own axis.
        """
        given = {_key(override): override for override in map(_parsed, overrides)}
        swept = [key for key, override in given.items() if override.is_sweep_override()]
        if swept and not multirun:
            several = given[swept[0]].input_line
            raise ConfigError(
                f"{several} names several values; give one, a list as key=[a,b], or -m for each"
            )
        fixed = [str(override.input_line) for key, override in given.items() if key not in swept]
        base, _ = config.composed(fixed)
        own = _own_sweep(config.resolved(base, "experiment.sweep"))
        if own["repetitions"] is not None and "seeds" not in given:
            fixed.append(f"seeds={own['repetitions']}")
        axes = [*_own_axes(own, given), *(Axis((key,), tuple(_choices(key, given[key]))) for key in swept)]
        keys = [key for axis in axes for key in axis.keys]
        for key in keys:
            for unswept, reason in UNSWEPT.items():
                if key == unswept or (key.startswith(f"{unswept}.") and unswept != "experiment"):
                    raise ConfigError(f"{key} cannot be swept; {reason}")
            if keys.count(key) > 1:
                raise ConfigError(f"experiment.sweep gives {key} twice; give it once")
        return cls(tuple(fixed), tuple(axes))

    def text(self) -> str:
        """The axes as YAML."""
        axes = [
            {
                key: [choice[index].partition("=")[2] for choice in axis.choices]
                for index, key in enumerate(axis.keys)
            }
            for axis in self.axes
        ]
        return OmegaConf.to_yaml(OmegaConf.create({"swept": axes}))

    def points(self) -> Iterator[tuple[str, ...]]:
        """The overrides of each point that the others do not share, the last axis fastest."""
        for chosen in itertools.product(*(axis.choices for axis in self.axes)):
            yield tuple(itertools.chain.from_iterable(chosen))


@dataclass
class _Base:
    """What Hydra composed for a choice of groups, and those of its sections that depend on nothing else."""

    config: DictConfig
    stream_name: str

    sections: dict[str, Any]

    @classmethod
    def of(cls, overrides: Sequence[str]) -> _Base:
        """Compose, and resolve what holds no interpolation."""
        composed, stream_name = config.composed(overrides)
        names = [str(key) for key in composed if "${" not in str(composed._get_node(key))]
        return cls(composed, stream_name, {name: config.resolved(composed, name) for name in names})


@dataclass
class Point:
    """One composed configuration, while it is looked at."""

    base: _Base
    _undo: list[tuple[str, DictConfig, str, Node, Any]] = field(default_factory=list)

    @property
    def config(self) -> DictConfig:
        """The configuration; what is set in it is taken back before the next point is composed."""
        return self.base.config

    def resolved(self, key: str) -> Any:
        """Plain data under a top-level key, not to be changed; ConfigError where it cannot be resolved."""
        if key in self.base.sections and not any(
            changed.partition(".")[0] == key for changed, *_ in self._undo
        ):
            return self.base.sections[key]
        return config.resolved(self.config, key)

    def set(self, key: str, value: Any) -> None:
        """Set a value that is taken back before the next point is composed."""
        parent, _, leaf = key.rpartition(".")
        place = OmegaConf.select(self.config, parent) if parent else self.config
        node = place._get_node(leaf) if isinstance(place, DictConfig) else None
        if isinstance(place, DictConfig) and isinstance(node, Node):  # else what follows says what is valid
            self._undo.append((key, place, leaf, node, node._value()))
        OmegaConf.update(self.config, key, value, merge=True)

    def take_back(self) -> None:
        """Set all that was set to what it was."""
        while self._undo:
            _, place, leaf, node, value = self._undo.pop()
            if place._get_node(leaf) is node:
                node._set_value(value)  # four times as fast as an update, and it was valid before
            else:
                OmegaConf.update(place, leaf, value, merge=False)


@dataclass
class Composer:
    """Composes points: by Hydra once for each choice of groups, whose values are then set and taken back."""

    fixed: tuple[str, ...]
    _bases: dict[tuple[str, ...], _Base] = field(default_factory=dict)

    @contextmanager
    def at(self, overrides: Sequence[str]) -> Iterator[Point]:
        """The configuration under the fixed overrides and these; ConfigError if they do not fit."""
        plain, slow = _split([_parsed(text) for text in overrides])
        if slow not in self._bases:
            self._bases[slow] = _Base.of([*self.fixed, *slow])
        point = Point(self._bases[slow])
        try:
            for override in plain:
                point.set(override.key_or_group, override.value())
            yield point
        except OmegaConfBaseException as error:
            raise ConfigError(config.one_line(error)) from error
        finally:
            point.take_back()


def _is_plain_value(override: Override) -> bool:
    """Whether an override sets one value that has its place, and selects or adds nothing."""
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.package
    key, value = override.key_or_group, override.value()
    whole = key in GROUPS or re.fullmatch(r"estimators\.[^.]+", key) or isinstance(value, dict | list)
    return not changes and not whole and not (isinstance(value, str) and "${" in value)


def _split(overrides: Sequence[Override]) -> tuple[list[Override], tuple[str, ...]]:
    """Those that set a plain value in its place, and the texts of the others, for Hydra.

    What stands below a key that Hydra sets is left to Hydra too, which lets the later one win.
    """
    set_whole = [
        override.key_or_group
        for override in overrides
        if not _is_plain_value(override) and override.key_or_group not in GROUPS
    ]
    plain, slow = [], []
    for override in overrides:
        key = override.key_or_group
        below = any(key == whole or key.startswith(f"{whole}.") for whole in set_whole)
        if _is_plain_value(override) and not below:
            plain.append(override)
        else:
            slow.append(str(override.input_line))
    return plain, tuple(slow)


def _key(override: Override) -> str:
    """What an override is about, however it is written; leaving a row out is not the same as setting it."""
    package = f"@{override.package}" if override.package else ""
    return f"{'~' if override.is_delete() else ''}{override.key_or_group}{package}"


_read: dict[str, Override] = {}
"""Overrides that were read, by their text: reading takes longer than setting the value."""


def _parsed(text: str) -> Override:
    if text not in _read:
        (_read[text],) = config.parsed([text])
    return _read[text]


def _choices(key: str, override: Override) -> Iterator[tuple[str]]:
    """One override for each value of one that sweeps."""
    value = override.value()
    if isinstance(value, Glob):
        valid = list(config.options(key))
        names = value.filter(valid)
        if not names:
            raise ConfigError(f"{override.input_line} matches nothing; valid: {', '.join(valid) or 'a list'}")
        yield from ((f"{override.get_key_element()}={name}",) for name in names)
    elif override.is_discrete_sweep():
        elements = override.sweep_iterator(transformer=Transformer.identity)
        for element, text in zip(elements, override.sweep_string_iterator(), strict=True):
            one = f"{override.get_key_element()}={text}"
            _read[one] = replace(override, _value=element, value_type=ValueType.ELEMENT, input_line=one)
            yield (one,)
    else:
        raise ConfigError(f"{override.input_line} has no end; write {key}=1,2 or {key}=range(1,4)")


def _own_sweep(given: Any) -> dict[str, Any]:
    """An experiment's sweep with nothing left out; ConfigError where it is none."""
    valid: dict[str, Any] = {"grid": dict, "zip": list, "repetitions": int}
    if not isinstance(given, dict):
        raise ConfigError(f"experiment.sweep={given} is not valid; it must hold {', '.join(valid)}")
    for key, value in given.items():
        if key not in valid:
            raise ConfigError(f"experiment.sweep.{key} is not a setting; {nearest(str(key), valid)}")
        if value is not None and (not isinstance(value, valid[key]) or isinstance(value, bool)):
            wanted = {"grid": "lists of values by key", "zip": "a list of lists of values by key"}
            raise ConfigError(
                f"experiment.sweep.{key}={value} is not valid; it must be {wanted.get(key, 'an int >= 1')}"
            )
    return {
        "grid": given.get("grid") or {},
        "zip": given.get("zip") or [],
        "repetitions": given.get("repetitions"),
    }


def _own_axes(sweep: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Axis]:
    """The axes of an experiment's ``sweep`` without the keys that the command line gives."""
    for index, lists in enumerate([*({key: values} for key, values in sweep["grid"].items()), *sweep["zip"]]):
        where = "grid" if index < len(sweep["grid"]) else f"zip[{index - len(sweep['grid'])}]"
        if not isinstance(lists, dict) or not all(isinstance(v, list) and v for v in lists.values()):
            raise ConfigError(f"experiment.sweep.{where} is not valid; it must be lists of values by key")
        lengths = {key: len(values) for key, values in lists.items()}
        if len(set(lengths.values())) > 1:
            said = ", ".join(f"{key} {n}" for key, n in lengths.items())
            raise ConfigError(f"experiment.sweep.{where}: lists that go together differ in length ({said})")
        kept = {key: values for key, values in lists.items() if key not in given}
        if kept:
            choices = zip(*kept.values(), strict=True)
            yield Axis(
                tuple(kept),
                tuple(
                    tuple(f"{key}={_written(value)}" for key, value in zip(kept, choice, strict=True))
                    for choice in choices
                ),
            )


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    bare = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w./*-]*", value)
    if isinstance(value, str) and (not bare or value.lower() in ("null", "true", "false", "nan", "inf")):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
