"""Fingerprints of code: the sources that a function or a class rests on, followed through its imports."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any

MAIN, MAIN_AS_WELL = "__main__", ("__main__", "__mp_main__")
"""The script that runs, and what a spawned worker calls it."""
OURS = ("estimators", "experiments")
"""Packages whose sources count wherever they are installed."""


class ChangedCodeError(ValueError):
    """The sources are no longer those that this process loaded, or by which cells were named."""


def _packages() -> Iterator[Path]:
    for name in OURS:
        spec = find_spec(name)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            yield from Path(root).rglob("*.py")


def _state(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_size


_AS_LOADED = {path: _state(path) for path in _packages()}
"""Times and sizes of our sources when this process began to load them."""


def unchanged(path: Path) -> bytes:
    """The bytes of a source file; ChangedCodeError if it was changed since this process began."""
    text = path.read_bytes()
    if path in _AS_LOADED and _AS_LOADED[path] != _state(path):
        raise ChangedCodeError(f"{path} was changed after this process began; give the command again")
    return text


def fingerprint(*things: Any) -> str:
    """Digest of the sources of the modules that define the things, and of all that those import of ours.

    things: functions and classes. Ours is what is not installed as a library, which is named by its version
    instead. An import counts wherever it stands, within functions too, and leads to the module that defines
    what is imported, past a package that only passes it on. Where the sources lie does not matter.
    ChangedCodeError where this process may have loaded other code than what the files now say.
    """
    modules = {MAIN if thing.__module__ in MAIN_AS_WELL else thing.__module__ for thing in things}
    pending = set(modules)
    seen: dict[str, bytes] = {}
    while pending:
        name = pending.pop()
        path = source(name)
        seen[name] = unchanged(path) if path is not None else b""
        pending |= imports(name) - seen.keys()
    digest = hashlib.sha256()
    for name, text in sorted(seen.items()):
        digest.update(f"{name}\0{len(text)}\0".encode())
        digest.update(text)
    return digest.hexdigest()[:16]


@functools.cache
def imports(name: str) -> frozenset[str]:
    """Modules of ours that a module imports."""
    path = source(name)
    if path is None:
        return frozenset()
    spec = None if name == MAIN else find_spec(name)
    package = name if spec and spec.submodule_search_locations is not None else name.rpartition(".")[0]
    found = set(_imported(ast.parse(path.read_bytes()), package))
    return frozenset(found - {name})


@functools.cache
def source(name: str) -> Path | None:
    """The file of a module, None where it has none that could be read, as what is typed in has none."""
    if name == MAIN:
        file = getattr(sys.modules[MAIN], "__file__", None)
        return Path(file) if file and Path(file).exists() else None
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    path = None if spec is None or spec.origin is None else Path(spec.origin)
    return path if path is not None and path.suffix == ".py" and path.exists() else None


@functools.cache
def _ours(package: str) -> bool:
    """Whether a top-level package is no library, and no part of Python."""
    if package in OURS:
        return True
    path = None if package in sys.builtin_module_names else source(package)
    return path is not None and not any(path.is_relative_to(folder) for folder in _LIBRARIES)


_LIBRARIES = {Path(folder).resolve() for folder in (*sysconfig.get_paths().values(), *site.getsitepackages())}


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in _executed(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _ours(alias.name.partition(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            if _ours(base.partition(".")[0]):
                yield from (_defining(base, alias.name) for alias in node.names)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what is there for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        named = isinstance(node, ast.If) and isinstance(node.test, ast.Name | ast.Attribute)
        if isinstance(node, ast.If) and named and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for other in node.orelse:
                yield from (other, *_executed(other))
        else:
            yield node
            yield from _executed(node)


def _defining(base: str, name: str) -> str:
    """The module behind ``from base import name``."""
    spec = find_spec(base)
    if spec is None or spec.submodule_search_locations is None:
        return base
    if source(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    passed_on = getattr(importlib.import_module(base), name, None)
    defining = getattr(passed_on, "__module__", None)
    # What is no class and no function of a module knows only the module of its class.
    named = getattr(sys.modules.get(defining or ""), getattr(passed_on, "__qualname__", ""), None)
    return str(defining) if named is passed_on and passed_on is not None else base
