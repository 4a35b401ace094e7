"""From a sweep to the configuration of each of its points: axes, and composition paid for only once."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import config
from experiments.config import GROUPS, ConfigError

UNSWEPT = {
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
        given = {str(override.get_key_element()): override for override in map(_parsed, overrides)}
        swept = [key for key, override in given.items() if override.is_sweep_override()]
        if swept and not multirun:
            several = given[swept[0]].input_line
            raise ConfigError(
                f"{several} names several values; give one, a list as key=[a,b], or -m for each"
            )
        fixed = [str(override.input_line) for key, override in given.items() if key not in swept]
        base, _ = config.composed(fixed)
        own = config.resolved(base, "experiment.sweep") or {}
        if own["repetitions"] is not None and "seeds" not in given:
            fixed.append(f"seeds={own['repetitions']}")
        axes = [*_own_axes(own, given), *(Axis((key,), tuple(_choices(key, given[key]))) for key in swept)]
        for key in (key for axis in axes for key in axis.keys):
            if reason := UNSWEPT.get("executor" if key.startswith("executor.") else key):
                raise ConfigError(f"{key} cannot be swept; {reason}")
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
class Point:
    """One composed configuration, while it is looked at."""

    config: DictConfig
    stream_name: str
    _undo: list[tuple[str, Any]] = field(default_factory=list)

    def set(self, key: str, value: Any) -> None:
        """Set a value that is taken back before the next point is composed."""
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(self.config, parent) if parent else self.config
        raw = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_dict(node) else None
        if isinstance(raw, dict) and leaf in raw:  # else what follows says what is valid
            self._undo.append((key, raw[leaf]))
        OmegaConf.update(self.config, key, value, merge=True)

    def take_back(self) -> None:
        """Set all that was set to what it was."""
        while self._undo:
            key, value = self._undo.pop()
            OmegaConf.update(self.config, key, value, merge=False)


@dataclass
class Composer:
    """Composes points: by Hydra once for each choice of groups, whose values are then set and taken back."""

    fixed: tuple[str, ...]
    _bases: dict[tuple[str, ...], tuple[DictConfig, str]] = field(default_factory=dict)

    @contextmanager
    def at(self, overrides: Sequence[str]) -> Iterator[Point]:
        """The configuration under the fixed overrides and these; ConfigError if they do not fit."""
        parsed = [_parsed(text) for text in overrides]
        slow = tuple(str(o.input_line) for o in parsed if not _is_plain_value(o))
        if slow not in self._bases:
            self._bases[slow] = config.composed([*self.fixed, *slow])
        point = Point(*self._bases[slow])
        try:
            for override in parsed:
                if _is_plain_value(override):
                    point.set(override.key_or_group, override.value())
            yield point
        except OmegaConfBaseException as error:
            raise ConfigError(config.one_line(error)) from error
        finally:
            point.take_back()


def _is_plain_value(override: Override) -> bool:
    """Whether an override sets one value that has its place, and selects or adds nothing."""
    changes = override.is_add() or override.is_force_add() or override.is_delete() or override.package
    return (
        not changes and override.key_or_group not in GROUPS and not isinstance(override.value(), dict | list)
    )


@functools.cache
def _parsed(text: str) -> Override:
    (override,) = config.parsed([text])
    return override


def _choices(key: str, override: Override) -> Iterator[tuple[str]]:
    """One override for each value of one that sweeps."""
    value = override.value()
    if isinstance(value, Glob):
        valid = list(config.options(key))
        names = value.filter(valid)
        if not names:
            raise ConfigError(f"{override.input_line} matches nothing; valid: {', '.join(valid) or 'a list'}")
        yield from ((f"{key}={name}",) for name in names)
    elif override.is_discrete_sweep():
        yield from ((f"{key}={text}",) for text in override.sweep_string_iterator())
    else:
        raise ConfigError(f"{override.input_line} has no end; write {key}=1,2 or {key}=range(1,4)")


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
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w./*-]*", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)
