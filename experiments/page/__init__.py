"""One self-contained HTML document: opens from disk, fetches nothing, and may be mailed."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.page.bundle import vega

FOLDER = Path(__file__).parent

_DOCUMENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="description" content="{description}">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>
{styles}
</style>
</head>
<body>
{body}
{scripts}
</body>
</html>
"""


@dataclass(frozen=True)
class Page:
    """A document of a title, a body and the pieces beside this module that it is made of.

    body: HTML, trusted; title and description: text. styles, scripts: CSS and ES modules, text; modules share
    one scope in the order given, and what one imports from another must stand before it. data: name -> values
    that JSON can say, found in the page by that name as the id of an element. charts: whether Vega, Vega-Lite
    and Vega-Embed come with it, as the extra ``report`` brings them.
    """

    title: str
    body: str
    description: str
    styles: Sequence[str] = ()
    scripts: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    charts: bool = False

    def html(self) -> str:
        """Return the document; ImportError that names the extra where charts are asked for without it.

        Its policy lets no address be fetched and no script run but its own (W3C, Content Security Policy 3).
        """
        scripts = [safe(vega())] if self.charts else []
        scripts += [safe(joined(self.scripts))] if self.scripts else []
        allowed = " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
        policy = (
            f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
        elements = [
            f'<script type="application/json" id="{html.escape(name)}">{embedded(values)}</script>'
            for name, values in self.data.items()
        ] + [f'<script type="module">{script}</script>' for script in scripts]
        return _DOCUMENT.format(
            policy=policy,
            description=html.escape(self.description),
            title=html.escape(self.title),
            styles="\n".join(style.strip() for style in self.styles),
            body=self.body.strip(),
            scripts="\n".join(elements),
        )


def piece(name: str) -> str:
    """Text of a file beside this module."""
    return (FOLDER / name).read_text(encoding="utf-8")


def embedded(values: Any) -> str:
    """JSON that no reader of HTML takes for markup; ValueError for numbers that JSON cannot say."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def safe(script: str) -> str:
    r"""Write the script so that nothing in it ends or nests its element: in a string, \x3C is <."""
    return re.sub(r"<(?=/?script|!--)", r"\\x3C", script.replace("\r\n", "\n"), flags=re.IGNORECASE)


def joined(modules: Sequence[str]) -> str:
    """Put ES modules one after the other into one scope: what they import from each other is then there."""
    within = (re.sub(r"^import [^;]*;\n", "", module, flags=re.MULTILINE) for module in modules)
    return "\n".join(re.sub(r"^export ", "", module, flags=re.MULTILINE) for module in within)


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
