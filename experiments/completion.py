"""Completion of the command line in a shell: what may follow, from the groups and classes themselves."""

from __future__ import annotations

import ast
import dataclasses
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from experiments.groups import GROUPS, PACKAGE, folder, options

# A shell hands over the line up to the cursor and is given whole words, one a line; without any, it offers
# files.
_BASH = r"""
_kalmean() {
    local line="${COMP_LINE:0:COMP_POINT}" word cut= IFS=$'\n'
    word="${line##*[[:blank:]]}"
    COMPREPLY=($(kalmean --complete "$line" 2>/dev/null))
    # bash completes what stands behind an equals sign as a word of its own, but not within quotes
    if [[ $word == *=* && $word != [\'\"]* && $COMP_WORDBREAKS == *=* ]]; then cut="${word%"${word##*=}"}"; fi
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.[] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o default -F _kalmean kalmean
"""
_ZSH = r"""
_kalmean() {
    local -a found=("${(@f)$(kalmean --complete "$LBUFFER" 2>/dev/null)}")
    if [[ -n "$found" ]]; then
        compadd -S '' -- $found
    else
        compset -P '*='
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _kalmean kalmean
"""
_FISH = r"""
function __kalmean
    set -l found (kalmean --complete (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        set -l key (string match -r '^[^=]*=' -- (commandline -ct))
        for path in (__fish_complete_path (string replace -r '^[^=]*=' '' -- (commandline -ct)))
            echo $key$path
        end
    end
end
complete -c kalmean -f -a '(__kalmean)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
SHELLS = tuple(_SCRIPTS)


def script(shell: str) -> str:
    """What a shell is to source: bash, zsh or fish."""
    return _SCRIPTS[shell].lstrip()


def candidates(line: str, flags: Iterable[str]) -> list[str]:
    """Whole words that the last word of a line may become; none where any value may stand.

    line: the command up to the cursor, the program's name included; flags: options of the program.
    """
    *before, word = _words(line)
    key, equals, value = word.partition("=")
    if word.startswith("-"):
        found: Iterable[str] = flags
    elif not equals:
        found = _keys(word, before)
    else:
        # Of a list, or of the values of a sweep, the last is completed.
        done = value[: max(value.rfind(","), value.rfind("[")) + 1]
        named = re.split(r"[\[\],]", done)
        found = (f"{key}={done}{name}" for name in _values(key, before) if name not in named)
        if key == "estimators" and not value:
            found = ["estimators=["]
    return [one for one in found if one.startswith(word) and one != word]


def _words(line: str) -> list[str]:
    """Words of a line without their quotes, of which the last may be open; empty behind a blank."""
    words = re.findall(r"""(?:[^\s'"]|'[^']*(?:'|$)|"[^"]*(?:"|$))+|(?<=\s)$""", line)[1:]
    return [re.sub("['\"]", "", word) for word in words] or [""]


def _keys(word: str, before: Sequence[str]) -> Iterator[str]:
    """Keys that a word may become, part by part."""
    group, dot, rest = word.partition(".")
    if not dot:
        yield from (f"{name}=[" if name == "estimators" else f"{name}=" for name in GROUPS)
        yield from (f"{name}." for name in GROUPS)
        yield from (f"{key}=" for key in _root() if key != "defaults")
    elif group == "estimators" and "." not in rest:
        yield from (f"estimators.{row}." for row in _chosen("estimators", before))
    else:
        parent = word.rpartition(".")[0]
        yield from (f"{parent}.{name}=" for name in _fields(parent, before))


def _values(key: str, before: Sequence[str]) -> Iterable[str]:
    """Values of a key of which there are only so many."""
    if key in GROUPS:
        return options(key)
    parent, _, name = key.rpartition(".")
    if parent:
        return _choices(_fields(parent, before).get(name))
    from experiments.config import Root  # with Hydra, which takes its time

    return _choices(typing.get_type_hints(Root).get(name))


def _choices(hint: Any) -> list[str]:
    """Values of an enumeration, of some literals, or of a truth value, which may be optional too."""
    if isinstance(hint, type) and issubclass(hint, Enum):
        return [str(one.value) for one in hint]
    if hint is bool:
        return ["true", "false"]
    if typing.get_origin(hint) is typing.Literal:
        return [str(one) for one in typing.get_args(hint)]
    return [name for part in typing.get_args(hint) for name in _choices(part)]


def _fields(parent: str, before: Sequence[str]) -> Mapping[str, Any]:
    """Settings below a group or a row of estimators, and their types where these are known."""
    from experiments import registry

    group, _, row = parent.partition(".")
    chosen = row or "".join(_chosen(group, before)[:1]) if group in GROUPS else ""
    path = folder() / group / f"{chosen}.yaml"
    kind = re.search(r"schema/(\w+)@", path.read_text(encoding="utf-8")) if path.is_file() else None
    if not chosen or kind is None:
        return {}
    if group == "experiment":
        return dict.fromkeys(_parameters(kind[1]))
    kinds: Mapping[str, Any] = (
        registry.stream_kinds()
        if group == "stream"
        else registry.executor_kinds()
        if group == "executor"
        else registry.estimator_kinds()
    )
    hints = typing.get_type_hints(kinds[kind[1]], localns={"Parameter": float})
    return {field.name: hints[field.name] for field in dataclasses.fields(kinds[kind[1]])}


def _parameters(experiment: str) -> Iterator[str]:
    """Names of an experiment's parameters, read and not imported: that would bring all that it works with."""
    for node in ast.parse((PACKAGE / f"{experiment}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == "Parameters":
            for own in node.body:
                if isinstance(own, ast.AnnAssign) and isinstance(own.target, ast.Name):
                    yield own.target.id


def _chosen(group: str, before: Sequence[str]) -> list[str]:
    """What is chosen of a group by the words before, by the experiment, or by default."""
    for word in reversed(before):
        if word.startswith(f"{group}="):
            return [name for name in re.split(r"[\[\],\s]+", word.partition("=")[2]) if name]
    if group != "experiment":
        for name in _chosen("experiment", before)[:1]:
            path = folder() / "experiment" / f"{name}.yaml"
            for entry in _read(path).get("defaults", []) if path.is_file() else []:
                for key, value in entry.items() if isinstance(entry, dict) else ():
                    if key.startswith(f"override /{group}"):
                        return value if isinstance(value, list) else [value]
    for entry in _root()["defaults"]:
        if isinstance(entry, dict) and group in entry:
            return entry[group] if isinstance(entry[group], list) else [entry[group]]
    return []


def _root() -> dict[str, Any]:
    return _read(folder() / "config.yaml")


def _read(path: Path) -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(OmegaConf.load(path))
    return dict(found)
