"""Vega-Embed and what it needs as one script, made once for each version of vl-convert that brings them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
from contextlib import suppress
from pathlib import Path

from experiments.files import write_whole

EXTRA = "charts need vl-convert: pip install 'kalmean[report]'"


def available() -> bool:
    """Whether the extra ``report`` is installed."""
    return importlib.util.find_spec("vl_convert") is not None


@functools.cache
def vega() -> str:
    """Return the script, which sets ``window.vegaEmbed``; ImportError naming the extra without vl-convert.

    Putting it together takes a second or two, so it is kept in the user's cache folder; where nothing can be
    kept, it is made anew.
    """
    if not available():
        raise ImportError(EXTRA)
    path = _cache() / f"vega-embed-{importlib.metadata.version('vl-convert-python')}.js"
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    import vl_convert

    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, script.encode())
    return script


def _cache() -> Path:
    """The user's cache folder (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "kalmean"
