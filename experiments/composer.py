"""Composition that is paid for once: by Hydra for each choice of groups, then value by value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import config
from experiments.config import GROUPS, ConfigError


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

    def label(self, override: str) -> tuple[str, str]:
        """Key and value of an override as a table names them: equal values alike, however written."""
        key, _, text = override.lstrip("+").partition("=")
        try:
            value = OmegaConf.select(self.config, key)
        except OmegaConfBaseException:
            return key, text
        number = isinstance(value, int | float) and not isinstance(value, bool | Enum)
        return key, repr(value).removesuffix(".0") if number else text

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
        plain, slow = _split([read(text) for text in overrides])
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


_known: dict[str, Override] = {}
"""Overrides that were read, by their text: reading takes longer than setting the value."""


def read(text: str) -> Override:
    """An override as Hydra reads it; ConfigError for what cannot be read."""
    if text not in _known:
        (_known[text],) = config.parsed([text])
    return _known[text]


def remember(override: Override) -> str:
    """Spare an override that is known the reading; its text."""
    text = str(override.input_line)
    _known[text] = override
    return text
