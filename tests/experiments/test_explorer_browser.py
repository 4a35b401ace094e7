"""The explorer in a real browser: every setting moved, and every number against the library's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install 'kalmean[browser]'")
pytest.importorskip("vl_convert", reason="needs kalmean[report]")

from explorer_page import CHARTS, NAMES, Explorer, agree, opened, same, silently
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from estimators import EMA, Kalman, MovingAverage, matched

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    with opened(tmp_path_factory.mktemp("explorer")) as page:
        yield page


@pytest.fixture(autouse=True)
def _silent(page: Explorer) -> Iterator[None]:
    with silently(page):
        yield


def test_opens_from_disk_silently_and_at_once(
    page: Explorer, record_property: Callable[[str, object], None]
) -> None:
    paint = dict(
        page.script("return performance.getEntriesByType('paint').map((p) => [p.name, p.startTime])")
    )
    assert paint["first-contentful-paint"] > 0.0
    record_property("first_contentful_paint_ms", paint["first-contentful-paint"])
    print(f"first contentful paint after {paint['first-contentful-paint']:.0f} ms")
    assert page.script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    numbers = agree(page)
    assert numbers["settings"]["beta"] == 0.99
    assert numbers["settings"]["window"] == 199
    assert numbers["readouts"]["ema"]["timeConstant"] == pytest.approx(99.499, abs=1e-3)
    for chart in CHARTS:
        assert len(page.paths(chart)) >= 4


@pytest.mark.parametrize("name", ["beta", "ratio", "window", "frequency"])
def test_sliders_move_by_keyboard(page: Explorer, name: str) -> None:
    page.link("none")
    before = page.settings
    page.slider(name).send_keys(Keys.ARROW_RIGHT)
    after = agree(page)["settings"]
    assert after[name] > before[name]
    assert {key for key in after if after[key] != before[key]} <= {name, "lead"}
    page.slider(name).send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert page.settings[name] < before[name]
    for key, end in ((Keys.HOME, min), (Keys.END, max)):
        page.slider(name).send_keys(key)
        found = agree(page)["settings"]
        assert found[name] == end(found[name], before[name])
        assert float(page.find(f"#{name}").get_attribute("data-value")) == found[name]
        assert page.slider(name).get_attribute("aria-valuetext") == page.find(f"#{name}").get_attribute(
            "value"
        )


@pytest.mark.parametrize(
    ("name", "position", "value"),
    [
        ("beta", 2.0, 0.99),
        ("beta", 1.0, 0.9),
        ("beta", 0.0, 0.0),
        ("beta", 4.0, 0.9999),
        ("ratio", -3.0, 1e-3),
        ("window", 0, 1),
        ("frequency", -1.0, 0.1),
    ],
)
def test_sliders_move_by_script(page: Explorer, name: str, position: float, value: float) -> None:
    page.link("none")
    page.slide(name, position)
    assert agree(page)["settings"][name] == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("beta", "0.98765432109", 0.98765432109),
        ("ratio", "1/9900", 1.0 / 9900.0),
        ("ratio", "2.5e-3", 2.5e-3),
        ("window", "1999", 1999),
        ("frequency", "0.123456789", 0.123456789),
        ("steps", "1234", 1234),
        ("sd", "0.1", 0.1),
        ("drift", "0", 0.0),
        ("height", "-2.5", -2.5),
        ("slope", "\N{MINUS SIGN}0.025", -0.025),
        ("outliers", "0.5", 0.5),
        ("scale", "7.25", 7.25),
        ("seed", "987654321", 987654321),
    ],
)
def test_fields_take_exact_numbers(page: Explorer, name: str, text: str, value: float) -> None:
    page.choose("kind", {"height": "step", "slope": "ramp"}.get(name, "walk"))
    page.type(name, text)
    assert agree(page)["settings"][name] == value
    assert float(page.find(f"#{name}").get_attribute("data-value")) == value
    assert page.find(f"#{name}").get_attribute("aria-invalid") is None


@pytest.mark.parametrize(
    ("name", "text"), [("beta", "1"), ("beta", "-0.1"), ("window", "2.5"), ("ratio", "0"), ("frequency", "x")]
)
def test_fields_refuse_what_is_not_valid_and_say_what_is(page: Explorer, name: str, text: str) -> None:
    before = page.settings[name]
    page.type(name, text)
    field = page.find(f"#{name}")
    assert field.get_attribute("aria-invalid") == "true"
    message = page.find(f"#{field.get_attribute('aria-describedby')}").text
    assert message.startswith(f"{text} is not valid; it must be a")
    assert agree(page)["settings"][name] == before
    page.choose("kind", "walk")  # another change leaves it there to be read
    assert field.get_attribute("value") == text
    page.slide(name, 1.0 if name != "frequency" else -1.0)
    assert field.get_attribute("aria-invalid") is None
    assert page.driver.find_elements(By.CSS_SELECTOR, ".error") == []
    assert float(field.get_attribute("value")) == pytest.approx(page.settings[name], rel=1e-4)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99, 0.999])
def test_presets(page: Explorer, beta: float) -> None:
    page.press(f'[data-beta="{beta}"]', Keys.ENTER)
    assert agree(page)["settings"]["beta"] == beta
    assert page.find(f'[data-beta="{beta}"]').get_attribute("aria-pressed") == "true"
    assert len(page.driver.find_elements(By.CSS_SELECTOR, ".presets [aria-pressed=true]")) == 1
    assert page.cell("ema", "setting").text == f"β = {beta}"


LEADERS: dict[str, tuple[list[float], Callable[[float], Any]]] = {
    "beta": ([0.5, 0.75, 0.9, 0.987, 0.9995], EMA),
    "ratio": ([1e-6, 1e-3, 0.5, 3.0], lambda s: Kalman(s, 1.0)),
    "window": ([2, 3, 10, 199, 20000], lambda n: MovingAverage(int(n))),
}


@pytest.mark.parametrize("match", ["noise", "lag"])
@pytest.mark.parametrize("lead", LEADERS)
def test_linked_settings_are_those_that_the_library_matches(page: Explorer, lead: str, match: str) -> None:
    by: Any = {"noise": "noise_gain", "lag": "delay"}[match]
    page.link("none")
    page.link(match)
    values, leader = LEADERS[lead]
    for value in values:
        page.type(lead, repr(value))
        settings = agree(page)["settings"] if value == values[-1] else page.settings
        given = leader(value)
        assert settings[lead] == value
        assert settings["lead"] == lead
        same(settings["beta"], matched(EMA, given, by).beta, "beta")
        assert settings["ratio"] == pytest.approx(
            matched(Kalman, given, by).signal_to_noise, rel=1e-9, abs=1e-15
        )
        assert settings["window"] == matched(MovingAverage, given, by).window
    others = [name for name in LEADERS if name != lead]
    called = {"beta": "β", "ratio": "q/r", "window": "the window"}
    assert page.find("#link").text == f"{called[others[0]]} and {called[others[1]]} follow {called[lead]}."


@pytest.mark.parametrize(("match", "what"), [("noise", "noise gain"), ("lag", "lag")])
def test_what_cannot_follow_stays_and_says_so(page: Explorer, match: str, what: str) -> None:
    page.link(match)
    before = page.settings["ratio"]
    page.type("window", "1")
    settings = agree(page)["settings"]
    assert settings["beta"] == 0.0
    assert settings["ratio"] == before
    assert page.find("#link").text == f"β follows the window. No q/r has this {what}."


def test_not_linked_each_goes_its_own_way(page: Explorer) -> None:
    page.link("none")
    before = page.settings
    page.type("beta", "0.5")
    after = page.settings
    assert (after["ratio"], after["window"]) == (before["ratio"], before["window"])


def test_where_there_is_no_value_there_is_a_dash_and_a_reason(page: Explorer) -> None:
    page.type("beta", "0.17")
    numbers = agree(page)
    assert math.isnan(float(numbers["readouts"]["ema"]["cutoff"]))
    dash = page.cell("ema", "cutoff").find_element(By.CSS_SELECTOR, "[title]")
    assert dash.text == "\N{EN DASH}"
    assert "No cutoff" in dash.get_attribute("title")
    page.type("beta", "0.172")
    assert float(page.cell("ema", "cutoff").get_attribute("data-value")) > 0.48
    page.type("beta", "0")
    agree(page)
    assert "No debiased EMA" in page.cell("debiased_ema", "cutoff").get_attribute("textContent")
    assert "debiased_ema" not in page.numbers["visible"]
    assert "No band" in page.cell("ema", "coverage", "errors").get_attribute("textContent")


@pytest.mark.parametrize("name", NAMES)
def test_estimators_can_be_hidden(page: Explorer, name: str) -> None:
    page.press(f"[name=show][value={name}]", Keys.SPACE)
    numbers = agree(page)
    assert numbers["visible"] == [other for other in NAMES if other != name]
    page.rest()
    for chart in CHARTS:
        assert sum(path == "" for path in page.paths(chart)[-4:]) == 1
    page.press(f"[name=show][value={name}]", Keys.SPACE)
    page.rest()
    for chart in CHARTS:
        assert all(page.paths(chart)[-4:])


def test_all_can_be_hidden(page: Explorer) -> None:
    for name in NAMES:
        page.press(f"[name=show][value={name}]", Keys.SPACE)
    page.rest()
    assert page.numbers["visible"] == []
    assert not any(page.paths("step")[-4:])
    assert page.find("#status").get_attribute("textContent") == "No estimator is shown."


def test_charts_follow_the_settings(page: Explorer) -> None:
    page.rest()
    before = {chart: page.paths(chart)[-4:] for chart in CHARTS}
    page.slide("beta", 1.0)
    page.rest()
    for chart in CHARTS:
        assert all(old != new for old, new in zip(before[chart], page.paths(chart)[-4:], strict=True)), chart
        label = page.find(f"#{chart}").get_attribute("aria-label")
        assert len(label) > 40
        assert page.find(f"#{chart}").get_attribute("role") == "img"
    numbers = page.numbers
    assert f"{numbers['readouts']['ema']['timeConstant']:.4g}" in page.find("#impulse").get_attribute(
        "aria-label"
    )
    assert "\N{MINUS SIGN}30 dB" in page.find("#bode").text
    assert "f = 0.05" in page.find("#bode").text
    for mark in ("63 %", "86 %", "95 %"):
        assert mark in page.find("#step").text
    assert "τ" in page.find("#impulse").text


def test_the_address_holds_the_view(page: Explorer) -> None:
    assert page.script("return location.hash") == ""
    page.link("lag")
    page.type("ratio", "1/777")
    page.choose("kind", "step")
    page.press("[name=show][value=ema]", Keys.SPACE)
    page.type("seed", "5")
    page.rest()
    shared, before = page.script("return location.hash"), agree(page)
    assert "ratio=0.001287" in shared
    page.open(shared.lstrip("#"))
    assert page.numbers == before
    page.script("location.hash = '#beta=0.5&match=none'")
    page.wait(lambda: page.settings["beta"] == 0.5)
    page.open("beta=7&window=many&kind=nothing&show=&steps=1e9&match=__proto__")
    assert page.settings == agree(page)["settings"] | {
        "beta": 0.99,
        "window": 199,
        "kind": "ratio",
        "show": [],
    }


def test_many_changes_in_one_frame_are_computed_once(page: Explorer) -> None:
    code = """
const slider = document.querySelector("[data-setting=beta] [type=range]");
const before = window.kalmean;
for (let i = 0; i < 50; i++) { slider.value = 1 + i / 50; slider.dispatchEvent(new Event("input")); }
const at_once = window.kalmean === before;
requestAnimationFrame(() => arguments[0]([at_once, window.kalmean !== before, window.kalmean.settings.beta]));
"""
    assert page.driver.execute_async_script(code) == [True, True, pytest.approx(1.0 - 10**-1.98, abs=1e-4)]
