"""The only module that knows Hydra: composes a configuration, or says in one line why not."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from experiments import registry
from experiments.groups import GROUPS as GROUPS
from experiments.groups import PACKAGE as PACKAGE
from experiments.groups import folder as folder
from experiments.groups import options as options
from experiments.settings import Match, Tune

NAMES = ("stream.path", "stream.column", "stream.numerator", "stream.denominator", "output")
"""Settings that name a file or a column, whatever characters that has."""


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one line."""


@dataclasses.dataclass
class Sweep:
    """An experiment's own sweep: lists of values by key, all with all, or going together; and its seeds."""

    grid: Any = None
    zip: Any = None
    repetitions: Any = None


@dataclasses.dataclass
class Root:
    """Types of the fixed keys; the groups below them are typed by the classes that they configure."""

    experiment: Any = None
    stream: Any = None
    estimators: dict[str, Any] = dataclasses.field(default_factory=dict)
    executor: Any = None
    seeds: int = 100
    root_seed: int = 0
    burn_in: int | None = None
    match: Match = Match.none
    tune: Tune = Tune.none
    output: str = "results"


def recordings(pattern: str) -> str:
    """Path of the shipped recordings whose names match a pattern."""
    installed = PACKAGE / "recordings"
    home = installed if installed.is_dir() else PACKAGE.parent / "results" / "recordings"
    return f"{home}/{pattern}"


def if_shipped(path: str, column: str | None, name: str) -> str | None:
    """A column of the shipped recordings where it is they that are read, and by no column of the caller's."""
    return name if column is None and str(path).startswith(recordings("")) else None


def composed(overrides: Sequence[str]) -> tuple[DictConfig, str]:
    """Compose the configuration under overrides in Hydra's grammar, and name the chosen stream.

    Raises ConfigError for what does not fit.
    """
    _register()
    GlobalHydra.instance().clear()
    try:
        parsed(overrides)
        with initialize_config_dir(str(folder().resolve()), version_base="1.3"):
            full = compose("config", overrides=list(overrides), return_hydra_config=True)
        stream = str(full.hydra.runtime.choices.stream)
        config = full
        with read_write(config), open_dict(config):
            del config["hydra"]
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(one_line(error)) from error
    fixed = [field.name for field in dataclasses.fields(Root)]
    for key in config:
        if key not in fixed:
            raise ConfigError(f"{key!r} is not a setting; {registry.nearest(str(key), fixed)}")
        if key not in GROUPS:
            resolved(config, str(key))
    if not config.output:
        raise ConfigError("output='' is not valid; name a folder")
    return config, stream


def resolved(config: DictConfig, key: str) -> Any:
    """Plain data under a key, interpolations resolved; ConfigError where one cannot be."""
    try:
        node = OmegaConf.select(config, key)
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error


def built(where: str, kind: Any, parameters: Mapping[str, Any]) -> Any:
    """Make an object of plain settings; ConfigError names the setting where it refuses them."""
    valid = [field.name for field in dataclasses.fields(kind)]
    for name in parameters:
        if name not in valid:
            raise ConfigError(f"{where}.{name} is not a setting; {registry.nearest(name, valid)}")
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is field.default_factory is dataclasses.MISSING and field.name not in parameters
    ]
    if needed:
        raise ConfigError(f"{where}.{needed[0]} is not set; {where} needs {', '.join(needed)}")
    try:
        return kind(**parameters)
    except (TypeError, ValueError) as error:
        # Streams and experiments name their settings in full; an estimator knows no name of its row.
        message = str(error)
        raise ConfigError(message if message.startswith(where) else f"{where}: {message}") from error


def quoted(override: str) -> str:
    """An override; a name that Hydra's grammar cannot read, such as loss (train), is put in quotes."""
    key, _, value = override.partition("=")
    if key not in NAMES or not value:
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + "\\'" * bool(found[2]), value)
        return f"{key}='{escaped}'"
    return override


def text(config: DictConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(config, resolve=True)


def parsed(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra reads them; ConfigError for what cannot be read, or would have no effect."""
    try:
        found: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(one_line(error)) from error
    _refuse_misleading(found)
    return found


def _refuse_misleading(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for what Hydra would take without effect, or refuse without saying what."""
    for given in overrides:
        key, text = given.key_or_group, given.input_line
        if re.split("[./]", key)[0] == "hydra":
            raise ConfigError(f"{text}: Hydra's own settings have no effect; output=DIR names the folder")
        if given.is_delete():
            if not re.fullmatch(r"estimators\.[^.]+", key):
                raise ConfigError(f"{text} is not valid; only a row can be left out, as in ~estimators.ema")
        elif not key:
            raise ConfigError(f"cannot read {text!r}; write key=value, as in seeds=20")
        elif key in GROUPS and not given.is_sweep_override():
            value = given.value()
            names = value if key == "estimators" and isinstance(value, list) else [value]
            if not all(isinstance(name, str) for name in names):
                raise ConfigError(f"{text} is not valid; {registry.nearest('', options(key))}")


def _fields(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def _register() -> None:
    resolvers: dict[str, Callable[..., Any]] = {
        "divide": lambda a, b: float(a) / float(b),
        "multiply": lambda a, b: float(a) * float(b),
        "recordings": recordings,
        "if_shipped": if_shipped,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=Root)
    for name, kind in registry.estimator_kinds().items():
        store.store(group="estimators/schema", name=name, node={name: _schema(kind, kind=name)})
    for name, stream in registry.stream_kinds().items():
        store.store(group="stream/schema", name=name, node=_schema(stream, kind=name))
    for name in options("experiment"):
        parameters = registry.experiment(name).Parameters
        # Of any type, so that who reads it can say which part is not valid.
        node = _schema(parameters, name=name, sweep=lambda: dataclasses.asdict(Sweep()))
        store.store(group="experiment/schema", name=name, node=node)
    for name, executor in registry.executor_kinds().items():
        store.store(group="executor/schema", name=name, node=_schema(executor, name=name))


def _schema(kind: type, /, **more: Any) -> Any:
    """Structured config of a dataclass: its own fields, types and defaults, and more: texts, or made anew."""
    # A parameter may be an array in the library; a row of a table has one value.
    hints = typing.get_type_hints(kind, localns={"Parameter": float})
    made: list[Any] = [
        (name, Any, dataclasses.field(default_factory=value)) if callable(value) else (name, str, value)
        for name, value in more.items()
    ]
    for field in dataclasses.fields(kind):
        if field.default is not dataclasses.MISSING:
            made.append((field.name, hints[field.name], field.default))
        elif field.default_factory is not dataclasses.MISSING:
            made.append(
                (field.name, hints[field.name], dataclasses.field(default_factory=field.default_factory))
            )
        else:
            made.append((field.name, hints[field.name], MISSING))
    return dataclasses.make_dataclass(f"{kind.__name__}Schema", made)


def _below(config: Any, key: str) -> Iterator[str]:
    """Settings of that name below the groups, in full, and the row of that name."""
    for group in GROUPS:
        own = config.get(group) if isinstance(config, DictConfig) else None
        if not isinstance(own, DictConfig):
            continue
        if key in own:
            yield f"{group}.{key}"
        elif group == "estimators":
            rows = {str(row): own._get_node(row) for row in own}
            yield from (
                f"{group}.{row}.{key}" for row, at in rows.items() if isinstance(at, DictConfig) and key in at
            )


def one_line(error: Exception) -> str:
    """Say which setting, which value and what would be valid; Hydra's own texts run over many lines."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    first = str(error).partition("\n")[0]
    if isinstance(error, MissingConfigException):
        found = re.search(r"Could not (?:find|load) '(?:(.*)/)?(.*?)'", str(error))
        group, name = found.groups() if found else (None, first)
        if group in GROUPS:
            return f"{group}={name} is not available; {registry.nearest(name, options(group))}"
        return f"{name} is no configuration group; {registry.nearest(name, GROUPS)}"
    if first.startswith("Could not append to config"):
        return f"{str(error).rpartition('+')[2].strip().rstrip(chr(39))} sets what is there; leave out its +"
    if isinstance(error, OverrideParseException):
        if isinstance(error.override, str) and Path(error.override).is_file():
            return f"{error.override} is no setting; write stream=recorded stream.path={error.override}"
        return f"cannot read {error.override!r}; write key=value, as in seeds=20 or estimators=[ema,kalman]"
    if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
        parent, _, key = (cause.full_key or "").rpartition(".")
        valid = [str(name) for name in cause.parent_node or () if name != "hydra"]
        where = f"{parent} has no setting {key!r}" if parent else f"{key!r} is not a setting"
        others = [name for name, kind in registry.stream_kinds().items() if key in _fields(kind)]
        if parent == "stream" and others:
            return f"stream.{key} is a setting of stream={' or stream='.join(others)}; choose that too"
        deeper = [] if parent else list(_below(cause.parent_node, key))
        if deeper:
            return f"{where}; did you mean {' or '.join(deeper[:4])}?"
        return f"{where}; {registry.nearest(key, valid)}"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        message = str(cause.msg).partition("\n")[0]
        refused = re.match(
            r"(?:Invalid v|V)alue '(.*?)'(?: .* could not be converted to (.*)|, (.*))", message
        )
        if refused:
            value, kind, expected = refused.groups()
            return (
                f"{cause.full_key}={value} is not valid; {expected or 'it must be of type ' + kind.lower()}"
            )
        if "is not Optional" in message:
            return f"{cause.full_key}=null is not valid; it needs a value"
        return f"{cause.full_key}: {message}"
    return first
