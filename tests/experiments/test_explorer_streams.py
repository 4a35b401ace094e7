"""The explorer's streams in a real browser: settings, random numbers, and what filters make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install 'kalmean[browser]'")
pytest.importorskip("vl_convert", reason="needs kalmean[report]")

from explorer_page import Explorer, agree, opened, silently
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explorer]:
    with opened(tmp_path_factory.mktemp("explorer")) as page:
        yield page


@pytest.fixture(autouse=True)
def _silent(page: Explorer) -> Iterator[None]:
    with silently(page):
        yield


STREAM_SLIDERS = {
    "steps": ("walk", 2000),
    "sd": ("walk", 0.5),
    "drift": ("walk", -1.0),
    "height": ("step", -3.0),
    "slope": ("ramp", 0.05),
    "outliers": ("ratio", 0.1),
    "scale": ("ratio", 12.0),
}


@pytest.mark.parametrize("name", STREAM_SLIDERS)
def test_the_streams_settings_move_by_script_and_by_keyboard(page: Explorer, name: str) -> None:
    kind, position = STREAM_SLIDERS[name]
    page.choose("kind", kind)
    before = page.numbers
    page.slide(name, position)
    after = agree(page)
    assert after["settings"][name] == pytest.approx(10.0**position if name == "drift" else position)
    assert after["stream"]["samples"] != before["stream"]["samples"]
    page.slider(name).send_keys(Keys.ARROW_LEFT)
    assert agree(page)["settings"][name] < after["settings"][name]


def test_a_level_that_never_moves_is_at_the_sliders_end(page: Explorer) -> None:
    page.choose("kind", "walk")
    page.type("drift", "0")
    assert len(set(agree(page)["stream"]["level"])) == 1
    assert page.slider("drift").get_attribute("value") == page.slider("drift").get_attribute("min")


@pytest.mark.parametrize("kind", ["step", "ramp", "walk", "ratio"])
def test_streams_of_every_kind(page: Explorer, kind: str) -> None:
    page.choose("kind", kind)
    page.type("steps", "2000")
    stream = agree(page)["stream"]
    level, settings = np.array(stream["level"]), page.settings
    noise = np.array(stream["samples"]) - level
    assert stream["noiseVariance"] == pytest.approx(settings["sd"] ** 2)
    expected = settings["sd"] ** 2 * (1.0 + settings["outliers"] * (settings["scale"] ** 2 - 1.0))
    assert noise.var() == pytest.approx(expected, rel=0.5)
    assert abs(noise.mean()) < 5.0 * math.sqrt(expected / 2000)
    if kind == "step":
        assert set(np.round(np.diff(level)[np.diff(level) != 0], 9)) == {round(8.0 * settings["sd"], 9)}
    elif kind == "ramp":
        assert np.allclose(np.diff(level), 0.01 * settings["sd"])
    else:
        steps = np.diff(level)
        assert steps.std() == pytest.approx(math.sqrt(settings["drift"]) * settings["sd"], rel=0.1)
    shown = {
        each.get_attribute("id") for each in page.driver.find_elements(By.CSS_SELECTOR, "#height, #slope")
    }
    visible = {each for each in shown if page.find(f"#{each}").is_displayed()}
    assert visible == {"step": {"height"}, "ramp": {"slope"}}.get(kind, set())


def test_the_ratio_itself_is_the_exponential_of_its_logarithm(page: Explorer) -> None:
    in_logs = page.numbers["stream"]
    page.choose("domain", "ratio")
    numbers = agree(page)
    np.testing.assert_allclose(numbers["stream"]["samples"], np.exp(in_logs["samples"]), rtol=1e-12)
    np.testing.assert_allclose(numbers["stream"]["level"], np.exp(in_logs["level"]), rtol=1e-12)
    variance = numbers["settings"]["sd"] ** 2
    told = 2.1**2 * math.exp(variance) * math.expm1(variance)
    assert numbers["kalman"]["r"] == pytest.approx(told, rel=1e-12)


def test_noise_is_normal_and_common_to_all_settings(page: Explorer) -> None:
    page.choose("kind", "ramp")
    page.type("outliers", "0")
    page.type("steps", "2000")

    def noise() -> Any:
        numbers = page.numbers
        stream = numbers["stream"]
        return (np.array(stream["samples"]) - stream["level"]) / numbers["settings"]["sd"]

    first = noise()
    page.type("sd", "0.25")
    np.testing.assert_allclose(noise(), first, atol=1e-9)
    page.type("steps", "500")
    np.testing.assert_allclose(noise(), first[:500], atol=1e-9)
    page.press("#another", Keys.ENTER)
    assert page.settings["seed"] == 1
    other = noise()
    assert abs(np.corrcoef(first[:500], other)[0, 1]) < 5.0 / math.sqrt(500)
    page.type("seed", "0")
    np.testing.assert_allclose(noise(), first[:500], atol=1e-9)
    many = []
    page.type("steps", "2000")
    for seed in range(10):
        page.type("seed", str(seed))
        many.append(noise())
    drawn = np.concatenate(many)
    n = len(drawn)
    assert abs(drawn.mean()) < 4.0 / math.sqrt(n)
    assert abs(drawn.var() - 1.0) < 4.0 * math.sqrt(2.0 / n)
    assert abs((drawn**4).mean() - 3.0) < 4.0 * math.sqrt(96.0 / n)
    assert abs((drawn[1:] * drawn[:-1]).mean()) < 4.0 / math.sqrt(n)
    assert abs((np.abs(drawn) < 1.0).mean() - 0.682689) < 4.0 * math.sqrt(0.2166 / n)


def test_a_window_as_long_as_the_stream_forgets_an_outlier_wholly(page: Explorer) -> None:
    page.open("kind=ratio&domain=ratio&sd=3&scale=20&outliers=0.05&steps=2000&match=none&window=7")
    numbers = agree(page)
    assert max(numbers["stream"]["samples"]) > 1e15
    samples = np.array(numbers["stream"]["samples"], dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, 7).mean(axis=1)
    found = np.array(numbers["stream"]["mean"]["moving_average"], dtype=np.float64)[6:]
    quiet = windows < 1e3
    assert quiet.sum() > 100
    np.testing.assert_allclose(found[quiet], windows[quiet], rtol=1e-9)
