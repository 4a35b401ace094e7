"""The explorer as a file: one document that asks for nothing, the same every time, whatever it is given."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vl_convert", reason="needs kalmean[report]")

from experiments import page as pages
from experiments.explorer import MODULES, STYLES, explorer, given, main
from experiments.figures import COLOURS
from experiments.page import Page, embedded, joined, piece, safe

COMMITTED = Path(__file__).parents[2] / "results" / "explorer.html"


class Document(HTMLParser):
    """Elements with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, dict[str, str], str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self.inside = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts.append((*self.elements[-1], data))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def scripts(self, kind: str) -> list[str]:
        return [text for _, attributes, text in self.texts if attributes.get("type") == kind]


@pytest.fixture(scope="module")
def made() -> str:
    return explorer()


@pytest.fixture(scope="module")
def document(made: str) -> Document:
    return Document(made)


def test_is_small_enough_to_be_mailed_and_the_same_every_time(made: str) -> None:
    assert len(made.encode()) < 2_500_000
    assert explorer() == made


def test_asks_for_nothing(document: Document) -> None:
    for tag, attributes in document.elements:
        assert not {"src", "srcset", "action", "background", "poster", "data"} & attributes.keys(), tag
        assert attributes.get("href", "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    own = [piece(name) for name in (*MODULES, *STYLES, "explorer.html")]
    for text in own:
        assert not re.search(r"https?:|//\w+\.|@import|url\(|fetch\(|XMLHttp|import\(|sendBeacon", text)


def test_policy_allows_the_pages_own_scripts_alone(document: Document) -> None:
    (policy,) = (e["content"] for e in document.all("meta") if "http-equiv" in e)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    scripts = document.scripts("module")
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2


def test_settings_come_from_the_library(document: Document) -> None:
    (data,) = document.scripts("application/json")
    assert json.loads(data) == given()
    assert given()["defaults"]["window"] == 199  # type: ignore[index]
    assert given()["quantile"] == pytest.approx(1.959963984540054, rel=1e-15)


def test_every_control_has_a_label_and_every_id_is_one(document: Document) -> None:
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {attributes["for"] for attributes in document.all("label") if "for" in attributes}
    assert labelled <= set(ids)
    for attributes in document.all("input") + document.all("select"):
        within = attributes.get("type") in ("checkbox", "radio")  # these stand inside their labels
        assert within or attributes.get("id") in labelled or attributes.get("aria-label"), attributes
    for reference in ("aria-labelledby", "aria-describedby"):
        assert {e[reference] for _, e in document.elements if reference in e} <= set(ids)
    assert document.all("html")[0]["lang"] == "en"


def test_colours_are_those_of_the_figures() -> None:
    style = piece("style.css")
    light = style[: style.index('[data-theme="dark"]')]
    series = [re.search(rf"--series-{i}: (#\w+)", light).group(1).upper() for i in range(4)]  # type: ignore[union-attr]
    assert [series[0], *series[2:]] == [COLOURS[0], *COLOURS[2:4]]
    dark = [re.findall(rf"--series-{i}: (#\w+)", style)[1:] for i in range(4)]
    assert all(first == second for first, second in dark), "the dark theme by choice is not that by system"
    assert [one[0].upper() for one in dark[1:]] == [COLOURS[1], COLOURS[5], COLOURS[3]]


@pytest.mark.skipif(not COMMITTED.exists(), reason="results/explorer.html is not in this checkout")
def test_the_committed_page_is_the_one_that_these_files_make(made: str) -> None:
    def own(text: str) -> tuple[Any, ...]:
        # Vega's bundle, and with it the policy, is as new as the vl-convert that made the page.
        parsed = Document(text)
        body = re.sub(r"<script type=\"module\">.*?</script>", "", text, count=1, flags=re.DOTALL)
        return parsed.scripts("module")[-1], re.sub(r"<meta http-equiv[^>]*>", "", body)

    assert own(COMMITTED.read_text(encoding="utf-8")) == own(made), "run `make explorer`"


HOSTILE = "</script><script>alert(1)</script><!-- & \u2028 \" ' <b>"


def test_text_and_data_cannot_break_out() -> None:
    made = Page(
        title=HOSTILE,
        body="<p>body</p>",
        description=HOSTILE,
        scripts=["const text = '</SCRIPT><!--<script>';\n"],
        data={"values": {HOSTILE: HOSTILE}},
    ).html()
    document = Document(made)
    assert len(document.all("script")) == 2
    assert not document.all("b")
    (data,) = document.scripts("application/json")
    assert json.loads(data) == {HOSTILE: HOSTILE}
    (script,) = document.scripts("module")
    assert script.strip() == r"const text = '\x3C/SCRIPT>\x3C!--\x3Cscript>';"
    assert [e["content"] for e in document.all("meta") if e.get("name") == "description"] == [HOSTILE]


def test_without_charts_there_is_no_vega() -> None:
    made = Page(title="t", body="<p>b</p>", description="d").html()
    assert len(made) < 2000
    assert "script-src 'none'" in made
    assert "<script" not in made


def test_data_that_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embedded({"x": float("nan")})


def test_modules_share_one_scope() -> None:
    first = "// one\nexport const a = 1;\nexport function f() {}\n"
    second = 'import {\n  a,\n  f,\n} from "./first.js";\nf(a);\n'
    assert joined([first, second]) == "// one\nconst a = 1;\nfunction f() {}\n\nf(a);\n"
    code = joined([piece(name) for name in MODULES])
    assert not re.search(r"^(import|export)\b", code, flags=re.MULTILINE)
    names = re.findall(r"^(?:async )?(?:function|const|let) (\w+)", code, flags=re.MULTILINE)
    assert len(names) == len(set(names))


def test_what_modules_import_stands_before_them() -> None:
    for place, name in enumerate(MODULES):
        for needed in re.findall(r"from \"\./([\w.]+)\"", piece(name)):
            assert needed in MODULES[:place], (name, needed)


def test_safe_leaves_other_code_alone() -> None:
    code = "if (a < b && b<c) x = `<${y}>`;"
    assert safe(code) == code


def test_main_writes_the_page_and_says_where(
    made: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "explorer.html"
    assert main([str(path)]) == 0
    assert path.read_text(encoding="utf-8") == made
    assert capsys.readouterr().out == f"{path}: {len(made.encode()):,} bytes\n"


def test_main_says_in_one_line_why_it_cannot_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([str(tmp_path / "file" / "explorer.html")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"explorer: {tmp_path / 'file' / 'explorer.html'} cannot be written: ")
    assert captured.err.count("\n") == 1


def test_without_vl_convert_one_line_names_the_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    pages.vega.cache_clear()
    assert main([str(tmp_path / "explorer.html")]) == 2
    assert capsys.readouterr().err == "explorer: charts need vl-convert: pip install 'kalmean[report]'\n"
    assert not list(tmp_path.iterdir())
