"""The explorer for everybody: by keyboard, by screen reader, in either theme, on every width."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import chromium
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install 'kalmean[browser]'")
pytest.importorskip("vl_convert", reason="needs kalmean[report]")

from explorer_page import Explorer, opened, silently
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow

CONTRAST = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let e = element; e; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
};
const ratio = (one, other) => {
  const [a, b] = [luminance(one), luminance(other)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    with opened(tmp_path_factory.mktemp("explorer")) as page:
        yield page


@pytest.fixture(autouse=True)
def _silent(page: Explorer) -> Iterator[None]:
    with silently(page):
        yield


def test_every_control_has_a_name_and_the_tab_key_reaches_it(page: Explorer) -> None:
    page.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {
        "slider",
        "textbox",
        "button",
        "checkbox",
        "radio",
        "combobox",
        "image",
        "region",
        "form",
        "table",
    }
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    nameless = [
        node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") in roles
    ]
    nameless = [node for node in nameless if not node.get("name", {}).get("value")]
    assert [(node["role"]["value"], node["backendDOMNodeId"]) for node in nameless] == []
    assert sum(role == "slider" for role, _ in found) == 9
    assert sum(role == "image" for role, _ in found) == 4
    reached = set()
    page.script("document.body.focus(); window.scrollTo(0, 0)")
    for _ in range(80):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(
            page.script(
                "const e = document.activeElement; e.dataset.reached = 1;"
                "return `${e.tagName} ${e.type ?? ''} ${e.id || e.value || e.textContent}`"
            )
        )
    code = """
return [...document.querySelectorAll("input, select, button, summary, .scroll, a[href]")]
    .filter((e) => e.offsetParent !== null && !("reached" in e.dataset))
    .filter((e) => !(e.type === "radio" && !e.checked)).map((e) => e.outerHTML)
"""
    assert page.script(code) == []
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    page.find("#beta").send_keys("")
    assert page.script(outline) == "solid"


def test_a_screen_reader_hears_of_changes_once_they_rest(page: Explorer) -> None:
    status = page.find("#status")
    assert status.get_attribute("role") == "status"
    page.slide("beta", 3.0)
    page.rest()
    said = status.get_attribute("textContent")
    assert "EMA: lag 999, noise \N{MINUS SIGN}33.01 dB" in said
    live = page.script("return document.querySelectorAll('[aria-live], output, [role=alert]').length")
    assert live == 1


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(page: Explorer, theme: str) -> None:
    chromium.prefer(page.driver, prefers_color_scheme=theme)
    page.find("details").find_element(By.CSS_SELECTOR, "summary").send_keys(Keys.ENTER)
    page.type("beta", "2")  # an error is there to be read
    code = """
const out = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  const text = walker.currentNode.data.trim();
  if (!text || !element.offsetParent || element.closest("script, noscript, svg, option")) continue;
  out.push([ratio(getComputedStyle(element).color, behind(element)), text]);
}
for (const text of document.querySelectorAll("svg text")) {
  const ground = behind(text.closest("div"));
  if (text.textContent) out.push([ratio(getComputedStyle(text).fill, ground), text.textContent]);
}
return out.sort((a, b) => a[0] - b[0]);
"""
    texts = page.script(CONTRAST + code)
    assert len(texts) > 150
    assert texts[0][0] >= 4.5, texts[:5]
    code = """
const style = getComputedStyle(document.documentElement);
const probe = document.body.appendChild(document.createElement("i"));
const names = ["series-0", "series-1", "series-2", "series-3", "level", "sample", "line", "accent"];
const out = names.map((name) => {
  probe.style.color = `var(--${name})`;
  return [ratio(getComputedStyle(probe).color, behind(document.body)), name];
});
probe.remove();
return out.sort((a, b) => a[0] - b[0]);
"""
    graphics = page.script(CONTRAST + code)
    assert graphics[0][0] >= 3.0, graphics
    assert len(graphics) == 8
    print(theme, "least contrast of text", round(texts[0][0], 2), "and of lines", graphics[0])
    chromium.prefer(page.driver, prefers_color_scheme="light")


def test_dark_and_light_by_system_and_by_choice(page: Explorer) -> None:
    ground = "return getComputedStyle(document.documentElement).backgroundColor"
    first = "#step .mark-line path[stroke='var(--series-0)']"
    line = f'return getComputedStyle(document.querySelector("{first}")).stroke'
    seen = []
    for system in ("light", "dark"):
        chromium.prefer(page.driver, prefers_color_scheme=system)
        page.frame()
        seen.append((page.script(ground), page.script(line)))
        page.press("[data-theme-toggle]", Keys.ENTER)
        seen.append((page.script(ground), page.script(line)))
        page.press("[data-theme-toggle]", Keys.ENTER)
        assert (page.script(ground), page.script(line)) == seen[-2]
        page.script("delete document.documentElement.dataset.theme")
    light, dark = ("rgb(255, 255, 255)", "rgb(0, 0, 0)"), ("rgb(20, 23, 27)", "rgb(255, 255, 255)")
    assert seen == [light, dark, dark, light]
    chromium.prefer(page.driver, prefers_color_scheme="light")


def test_nothing_moves_by_itself(page: Explorer) -> None:
    code = "return document.getAnimations().length + document.querySelectorAll('animate, marquee').length"
    assert page.script(code) == 0


@pytest.mark.parametrize("width", [390, 820, 1440])
def test_fits_every_width(page: Explorer, width: int, tmp_path: Path) -> None:
    with contextlib.ExitStack() as after:
        after.callback(chromium.resize, page.driver, 1440, 900)
        after.callback(chromium.prefer, page.driver, prefers_color_scheme="light")
        chromium.resize(page.driver, width, 844)
        page.open()
        for theme in ("light", "dark"):
            chromium.prefer(page.driver, prefers_color_scheme=theme)
            page.rest()
            assert page.script("return document.documentElement.scrollWidth") <= width
            path = tmp_path / f"explorer-{width}-{theme}.png"
            chromium.screenshot(page.driver, path)
            assert path.stat().st_size > 50_000
        code = """
return [...document.querySelectorAll("main *")]
    .filter((e) => e.offsetParent && !e.closest(".scroll, svg, .hidden"))
    .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))
"""
        assert page.script(code) == []
        widths = page.script(
            "return [...document.querySelectorAll('.chart')]"
            ".map((e) => [e.clientWidth, e.querySelector('svg').getBoundingClientRect().width])"
        )
        assert all(inner >= 0.9 * outer for outer, inner in widths), widths
        small = page.script(
            "return [...document.querySelectorAll('button, select, input[type=text], .choices label')]"
            ".filter((e) => e.offsetParent && e.getBoundingClientRect().height < 32).map((e) => e.outerHTML)"
        )
        assert small == []


def test_on_a_phone_beta_stays_in_view(page: Explorer) -> None:
    chromium.resize(page.driver, 390, 844)
    try:
        page.script("document.getElementById('stream').scrollIntoView()")
        page.rest()
        box = page.script("return document.querySelector('#beta').getBoundingClientRect().toJSON()")
        assert 0.0 <= box["top"] < 100.0
        page.press("[data-beta='0.9']", Keys.ENTER)
        assert page.settings["beta"] == 0.9
    finally:
        chromium.resize(page.driver, 1440, 900)
