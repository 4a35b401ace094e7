"""The axes of a sweep, from the command line in Hydra's grammar and from an experiment's own ``sweep``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.override_parser.types import Glob, Override, Transformer, ValueType
from omegaconf import OmegaConf

from experiments import config
from experiments.composer import read, remember
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
    own: tuple[str, ...] = ()
    """Keys that the experiment sweeps, and not the command line."""

    @classmethod
    def of(cls, overrides: Sequence[str], multirun: bool) -> Sweep:
        """Read axes from the command line and from the experiment's ``sweep``; ConfigError if they are none.

        A key on the command line, fixed or swept, takes the place of the experiment's own axis; of rows that
        the command line leaves out, nothing is swept.
        """
        given = {_key(override): override for override in map(read, overrides)}
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
        rows = base.estimators if "estimators" in given else None
        from_yaml = list(_own_axes(own, {*given} | {*_of_absent_rows(own, rows)}))
        axes = [*from_yaml, *(Axis((key,), tuple(_choices(key, given[key]))) for key in swept)]
        keys = [key for axis in axes for key in axis.keys]
        for key in keys:
            for unswept, reason in UNSWEPT.items():
                if key == unswept or (key.startswith(f"{unswept}.") and unswept != "experiment"):
                    raise ConfigError(f"{key} cannot be swept; {reason}")
            if keys.count(key) > 1:
                raise ConfigError(f"experiment.sweep gives {key} twice; give it once")
        return cls(tuple(fixed), tuple(axes), tuple(key for axis in from_yaml for key in axis.keys))

    def text(self) -> str:
        """What the points share, as it is written, and the axes, as YAML."""
        axes = [
            {
                key: [choice[index].partition("=")[2] for choice in axis.choices]
                for index, key in enumerate(axis.keys)
            }
            for axis in self.axes
        ]
        shared, _ = config.composed(self.fixed)
        OmegaConf.update(shared, "experiment.sweep", None)  # what of it holds is among the axes
        return OmegaConf.to_yaml(shared) + OmegaConf.to_yaml(OmegaConf.create({"swept": axes}))

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """Let a refusal of what the experiment itself sweeps say so."""
        try:
            yield
        except ConfigError as error:
            blamed = [key for key in self.own if key in str(error) or key.rpartition(".")[0] in str(error)]
            if not blamed:
                raise
            raise ConfigError(
                f"{error} (the experiment sweeps {blamed[0]}: give it a value, or experiment.sweep=null)"
            ) from error

    def points(self) -> Iterator[tuple[str, ...]]:
        """The overrides of each point that the others do not share, the last axis fastest."""
        for chosen in itertools.product(*(axis.choices for axis in self.axes)):
            yield tuple(itertools.chain.from_iterable(chosen))


def _key(override: Override) -> str:
    """What an override is about, however it is written; leaving a row out is not the same as setting it."""
    package = f"@{override.package}" if override.package else ""
    return f"{'~' if override.is_delete() else ''}{override.key_or_group}{package}"


def _choices(key: str, override: Override) -> Iterator[tuple[str]]:
    """One override for each value of one that sweeps."""
    value = override.value()
    if isinstance(value, Glob) and key not in GROUPS:
        raise ConfigError(f"{override.input_line}: glob() chooses among a group's names; {key} is no group")
    if isinstance(value, Glob):
        valid = list(config.options(key))
        names = value.filter(valid)
        if not names:
            raise ConfigError(f"{override.input_line} matches nothing; valid: {', '.join(valid)}")
        yield from ((f"{override.get_key_element()}={name}",) for name in names)
    elif override.is_discrete_sweep():
        elements = override.sweep_iterator(transformer=Transformer.identity)
        for element, text in zip(elements, override.sweep_string_iterator(), strict=True):
            one = f"{override.get_key_element()}={text}"
            yield (remember(replace(override, _value=element, value_type=ValueType.ELEMENT, input_line=one)),)
    else:
        raise ConfigError(f"{override.input_line} has no end; write {key}=1,2 or {key}=range(1,4)")


def _own_sweep(given: Any) -> dict[str, Any]:
    """An experiment's sweep with nothing left out; ConfigError where it is none."""
    valid: dict[str, Any] = {"grid": dict, "zip": list, "repetitions": int}
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ConfigError(
            f"experiment.sweep={given} is not valid; it must hold {', '.join(valid)}, or be null"
        )
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


def _of_absent_rows(sweep: Mapping[str, Any], rows: Any) -> Iterator[str]:
    """Keys of an experiment's ``sweep`` that set estimators which are not among the rows; none if None."""
    for key in itertools.chain.from_iterable(
        [sweep["grid"], *(one for one in sweep["zip"] if isinstance(one, dict))]
    ):
        row = re.match(r"estimators\.([^.]+)\.", key)
        if rows is not None and row and row[1] not in rows:
            yield key


def _own_axes(sweep: Mapping[str, Any], given: Set[str]) -> Iterator[Axis]:
    """The axes of an experiment's ``sweep`` without the keys that are given otherwise."""
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
