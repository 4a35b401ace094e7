"""Public names that are imported when they are first asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazily(
    package: str,
    homes: Mapping[str, Sequence[str]],
    extra: str = "",
    needs: Sequence[str] = (),
    packages: Sequence[str] = (),
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package, by the modules that define its public names.

    extra: which brings the packages that the modules need; where one is absent, the error names it.
    packages: those inside it that are imported in the same way.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def find(name: str) -> Any:
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        if name not in home_of:
            # With both, Python adds the nearest name that there is.
            problem = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(problem, name=name, obj=sys.modules[package])
        try:
            module = importlib.import_module(f"{package}.{home_of[name]}")
        except ModuleNotFoundError as error:
            if error.name not in needs:
                raise
            raise ModuleNotFoundError(
                f"{package}.{name} needs {error.name}, which is absent: pip install 'kalmean[{extra}]'",
                name=error.name,
            ) from error
        found = getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    def listed() -> list[str]:
        own = (name for name in vars(sys.modules[package]) if name.startswith("__"))
        return sorted({*own, *home_of, *packages})

    return find, listed
