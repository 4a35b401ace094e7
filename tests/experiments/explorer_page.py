"""The explorer as one who uses it meets it, and the library's word on its numbers."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from estimators import EMA, DebiasedEMA, Kalman, MovingAverage
from experiments.explorer import explorer

TOLERANCE = 1e-9
NAMES = ("ema", "debiased_ema", "kalman", "moving_average")
CHARTS = ("impulse", "step", "bode", "stream")
MARKS = {"to63": 1.0 - np.exp(-1.0), "to86": 1.0 - np.exp(-2.0), "to95": 1.0 - np.exp(-3.0)}
CLOSED_FORMS = {
    "timeConstant": "time_constant",
    "halfLife": "half_life",
    "groupDelay": "group_delay",
    "noiseGain": "noise_gain",
    "cutoff": "cutoff",
    "stateBytes": "state_bytes",
}
NUMBERS = """
return JSON.stringify(window.kalmean, (_, value) => ArrayBuffer.isView(value) ? Array.from(value)
    : typeof value === "number" && !Number.isFinite(value) ? String(value) : value)
"""


class Explorer:
    """The page, as one who uses it by keyboard, script and eye."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self, settings: str = "") -> None:
        self.driver.get("about:blank")
        chromium.console(self.driver)
        chromium.requests(self.driver)
        self.driver.get(f"{self.address}#{settings}" if settings else self.address)
        self.wait(lambda: self.script("return window.kalmean?.pending === false"))

    def script(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def wait(self, holds: Callable[[], Any]) -> Any:
        for _ in range(400):
            if found := holds():
                return found
            time.sleep(0.05)
        raise AssertionError("the page never got there")

    def frame(self) -> None:
        """Let the page compute what was asked of it."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")

    def rest(self) -> None:
        """Let it also do what waits until its settings rest: charts out of view, the status, the address."""
        self.frame()
        self.wait(lambda: self.script("return window.kalmean?.pending === false"))

    @property
    def numbers(self) -> dict[str, Any]:
        self.frame()
        found: dict[str, Any] = json.loads(self.script(NUMBERS))
        return found

    @property
    def settings(self) -> dict[str, Any]:
        found: dict[str, Any] = self.numbers["settings"]
        return found

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def slider(self, name: str) -> Any:
        return self.find(f"[data-setting={name}] [type=range]")

    def press(self, selector: str, *keys: str) -> None:
        self.find(selector).send_keys(*keys)
        self.frame()

    def slide(self, name: str, position: float) -> None:
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))"
        self.script(code, self.slider(name), position)
        self.frame()

    def type(self, name: str, text: str) -> None:
        self.press(f"#{name}", Keys.CONTROL, "a", Keys.NULL, text, Keys.TAB)

    def choose(self, name: str, value: str) -> None:
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change'))"
        self.script(code, self.find(f"#{name}"), value)
        self.frame()

    def link(self, value: str) -> None:
        self.press(f"[name=match][value={value}]", Keys.SPACE)

    def cell(self, estimator: str, quantity: str, table: str = "numbers") -> Any:
        return self.find(f"#{table} [data-estimator={estimator}] [data-quantity={quantity}]")

    def paths(self, chart: str) -> list[str]:
        """Lines of a chart as their paths, empty where a line has no rows."""
        code = (
            "return [...document.querySelectorAll(`#${arguments[0]} .mark-line`)]"
            ".map((line) => line.querySelector('path')?.getAttribute('d') ?? '')"
        )
        found: list[str] = self.script(code, chart)
        return found


@contextmanager
def opened(folder: Path) -> Iterator[Explorer]:
    """Write the page into a folder and start a browser for it."""
    (folder / "explorer.html").write_text(explorer(), encoding="utf-8")
    with chromium.chromium(folder / "profile") as driver:
        chromium.resize(driver, 1440, 900)
        yield Explorer(driver, (folder / "explorer.html").as_uri())


@contextmanager
def silently(page: Explorer) -> Iterator[None]:
    """Open the page anew; whatever is done to it then, it says nothing and asks for nothing but itself."""
    page.open()
    yield
    page.rest()
    assert chromium.console(page.driver) == []
    asked = {address.partition("#")[0] for address in chromium.requests(page.driver)}
    assert asked <= {page.address, "about:blank"}, asked


def library(numbers: dict[str, Any]) -> dict[str, Any]:
    """Make the library's estimators of the page's settings."""
    settings = numbers["settings"]
    beta = settings["beta"]
    return {
        "ema": EMA(beta),
        "debiased_ema": DebiasedEMA(beta) if beta > 0.0 else None,
        "kalman": Kalman(numbers["kalman"]["q"], numbers["kalman"]["r"]),
        "moving_average": MovingAverage(settings["window"]),
    }


def same(found: Any, expected: Any, what: str) -> None:
    values = np.asarray(found, dtype=np.float64)
    np.testing.assert_allclose(values, expected, rtol=TOLERANCE, atol=1e-4 * TOLERANCE, err_msg=what)


def agree(page: Explorer) -> dict[str, Any]:
    """Compare every number of the page with the library's; return them."""
    numbers = page.numbers
    settings, stream = numbers["settings"], numbers["stream"]
    samples, level = (np.array(stream[key], dtype=np.float64) for key in ("samples", "level"))
    assert len(samples) == settings["steps"]
    assert numbers["kalman"]["q"] == pytest.approx(settings["ratio"] * stream["noiseVariance"], rel=1e-15)
    for name, estimator in library(numbers).items():
        if estimator is None:
            assert numbers["readouts"][name] is None
            assert page.cell(name, "timeConstant").get_attribute("data-value") == ""
            continue
        readout = numbers["readouts"][name]
        expected = {key: getattr(estimator, field) for key, field in CLOSED_FORMS.items()}
        expected["noiseGainDb"] = 10.0 * np.log10(estimator.noise_gain)
        power = np.abs(estimator.frequency_response(settings["frequency"])) ** 2
        if power > 1e-20:
            expected["attenuationDb"] = -10.0 * np.log10(power)
        else:  # a zero of the window is rounding noise
            assert float(readout["attenuationDb"]) > 200.0
        longest = max(2, math.ceil(5 * estimator.effective_window))
        steps = estimator.step_response(longest)
        for key, share in MARKS.items():
            expected[key] = 1 + int(np.argmax(steps >= share * (1.0 - 1e-12)))
        expected["shareWithin"] = steps[max(1, math.ceil(estimator.time_constant)) - 1]
        for key, value in expected.items():
            same(readout[key], value, f"{name}.{key}")
            shown = page.cell(name, key).get_attribute("data-value")
            same(math.nan if shown == "" else shown, value, f"{name}.{key} in the table")
        ages = np.array(numbers["ages"])
        same(numbers["impulse"][name], estimator.impulse_response(ages[-1] + 1)[ages], f"{name}: impulse")
        same(numbers["step"][name], estimator.step_response(ages[-1] + 1)[ages], f"{name}: step")
        response = estimator.frequency_response(np.array(numbers["bode"]["f"]))
        drawn = numbers["bode"]["response"][name]
        same([one["re"] for one in drawn], response.real, f"{name}: response")
        same([one["im"] for one in drawn], response.imag, f"{name}: response")
        same(numbers["bode"]["magnitude"][name], np.abs(response), f"{name}: magnitude")
        out = estimator.filter(samples)
        scale = max(1.0, float(np.abs(samples).max()))
        same(np.array(stream["mean"][name], dtype=np.float64) / scale, out.mean / scale, f"{name}: filtered")
        errors, burn_in = stream["errors"][name], min(1000, len(samples) // 4)
        assert errors["burnIn"] == burn_in
        error = out.mean - level
        inside = math.nan
        if name == "kalman":
            same(stream["variance"], out.variance, "Kalman's variance")
            low, high = out.interval(0.95)
            same(np.array(stream["band"]["low"]) / scale, low / scale, "Kalman's band")
            same(np.array(stream["band"]["high"]) / scale, high / scale, "Kalman's band")
            inside = float(((low <= level) & (level <= high))[burn_in:].mean())
        wanted = {
            "startUpRmse": np.sqrt((error[:burn_in] ** 2).mean()),
            "rmse": np.sqrt((error[burn_in:] ** 2).mean()),
            "coverage": inside,
        }
        for key, value in wanted.items():
            same(errors[key], value, f"{name}.{key}")
            shown = page.cell(name, key, "errors").get_attribute("data-value")
            same(math.nan if shown == "" else shown, value, f"{name}.{key} in the table")
    return numbers
