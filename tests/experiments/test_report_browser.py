"""The report in a real browser: every control moved, the numbers read, nothing said and nothing fetched."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install 'kalmean[test]'")
pytest.importorskip("vl_convert", reason="needs kalmean[report]")

from chromium import chromium, console, prefer, requests, resize, screenshot
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from experiments.job import completed
from experiments.metrics import Measured
from experiments.report import report
from experiments.summaries import Rows, long_table, summarise
from experiments.tables import quantity

pytestmark = pytest.mark.slow
ESTIMATORS = ["ema", "debiased_ema", "kalman", "moving_average"]
WIDTHS = 390, 820, 1440


class Shown:
    """A page in a browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path) -> None:
        self.driver.get(path.as_uri())
        self.until(lambda: self.run("return document.documentElement.dataset.ready") == "yes")
        self.until(lambda: self.run("return document.querySelectorAll('main svg.marks').length") > 0)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20.0
        while not holds():
            assert time.monotonic() < deadline, "the page did not come to it"
            time.sleep(0.02)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements(By.CSS_SELECTOR, selector))

    def choose(self, control: str, text: str) -> None:
        Select(self.one(f"#{control}")).select_by_visible_text(text)

    def options(self, control: str, what: str = "text") -> list[str]:
        script = "return [...arguments[0].options].map((option) => option[arguments[1]])"
        texts: list[str] = self.run(script, self.one(f"#{control}"), what)
        return texts

    def table(self, place: str) -> pd.DataFrame:
        """A table as it is read: its heads without units and arrows, its cells without what is only heard."""
        head, rows = self.run(
            """const table = document.querySelector(arguments[0] + ' table');
            const text = (cell) => [...cell.childNodes].filter((n) => !n.classList?.contains('hidden'))
              .map((n) => n.textContent).join('');
            return [[...table.tHead.rows[0].cells].map((c) => c.querySelector('button').textContent),
              [...table.tBodies[0].rows].map((r) => [...r.cells].map(text))];""",
            place,
        )
        return pd.DataFrame(rows, columns=head)

    def said(self) -> str:
        text: str = self.one("#status").get_attribute("textContent")
        return text

    def silent(self) -> None:
        assert console(self.driver) == []
        asked = [address for address in requests(self.driver) if not address.startswith(("data:", "chrome"))]
        assert all(address.startswith("file:") and address.endswith(".html") for address in asked), asked


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A sweep over two streams, and a run on one with series."""
    output = f"output={tmp_path_factory.mktemp('runs')}"
    swept = ["stream.s=1e-4,1e-2", "seeds=6", "stream.steps=1500"]
    return [
        completed([*swept, output], multirun=True).path,
        completed(["estimators.moving_average.window=30", "seeds=6", "stream.steps=2000", output]).path,
    ]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        requests(running)  # of the browser's own first page
        yield running


@pytest.fixture
def page(driver: Any) -> Iterator[Shown]:
    resize(driver, 1440, 900)
    shown = Shown(driver)
    yield shown
    shown.silent()


@pytest.fixture
def sweep(page: Shown, runs: list[Path]) -> Shown:
    page.open(runs[0] / "report.html")
    return page


@pytest.fixture
def single(page: Shown, runs: list[Path]) -> Shown:
    page.open(runs[1] / "report.html")
    return page


# --- numbers ------------------------------------------------------------------------------------------------


def test_every_stream_and_metric_shows_the_numbers_of_the_summary(sweep: Shown, runs: list[Path]) -> None:
    summary = pd.read_csv(runs[0] / "summary.csv")
    streams = sweep.options("stream")
    assert streams == [*dict.fromkeys(summary["stream"]), "all 2 streams"]
    labels = dict(zip(sweep.options("metric"), sweep.options("metric", "value"), strict=True))
    assert set(labels.values()) == set(summary["metric"])
    for stream in streams:
        sweep.choose("stream", stream)
        sweep.choose("metric", next(iter(labels)))
        of_stream = summary if stream.startswith("all") else summary[summary["stream"] == stream]
        for label, metric in labels.items():
            sweep.choose("metric", label)
            own = of_stream[of_stream["metric"] == metric]
            shown = sweep.table("#intervals")
            assert shown["Estimator"].tolist() == own["estimator"].tolist()
            for head, name in (("mean", "mean"), ("95 % from", "low"), ("to", "high")):
                numbers = pd.to_numeric(shown[head].replace("-", np.nan))
                np.testing.assert_allclose(numbers, own[name], rtol=1e-5)
            apart = sweep.table("#differences")
            others = own[own["estimator"] != "ema"]
            assert apart["Estimator"].tolist() == others["estimator"].tolist()
            low = pd.to_numeric(apart["95 % from"].replace("-", np.nan))
            np.testing.assert_allclose(low, others["difference_low"], rtol=2e-4)
            if label != next(iter(labels)):  # which was chosen before
                assert sweep.said() == f"Shown: {label}"


def test_the_table_has_a_column_for_each_metric(single: Shown, runs: list[Path]) -> None:
    summary = pd.read_csv(runs[1] / "summary.csv").set_index(["estimator", "metric"])
    printed = single.table("#table")
    single.one("#columns [value=all]").click()
    every = single.table("#table")
    assert len(every.columns) == 2 + summary.index.get_level_values("metric").nunique() > len(printed.columns)
    for table in (printed, every):
        for estimator, text in zip(table["Estimator"], table["RMSE"], strict=True):
            row = summary.loc[(estimator, "rmse")]
            assert text == quantity(row["mean"], row["high"] - row["mean"])
    best = [cell.get_attribute("textContent") for cell in single.all("#table .best")]
    assert all("best, with its ties" in text for text in best)
    assert best


def test_every_column_sorts_both_ways(single: Shown, runs: list[Path]) -> None:
    summary = pd.read_csv(runs[1] / "summary.csv")
    for place in ("#table", "#intervals", "#differences", "#pareto", "#series"):
        heads = single.all(f"{place} thead th")
        assert heads
        for index, head in enumerate(heads):
            press = head.find_element(By.TAG_NAME, "button")
            orders = []
            for direction in ("ascending", "descending"):
                press.send_keys(Keys.ENTER)
                assert head.get_attribute("aria-sort") == direction
                assert single.said().endswith(f"sorted by {press.text}, {direction}")
                column = single.table(place).iloc[:, index]
                orders.append([text for text in column if text != "-"])
                missing = (column == "-").to_numpy()
                assert not missing[: len(missing) - missing.sum()].any(), "what is missing comes last"
            assert sorted(orders[0]) == sorted(orders[1])
            assert len(single.all(f"{place} [aria-sort]")) == 1
    single.one("#table th[data-key='metric rmse'] button").send_keys(Keys.ENTER)
    rmse = summary[summary["metric"] == "rmse"].sort_values("mean", kind="stable")
    assert single.table("#table")["Estimator"].tolist() == rmse["estimator"].tolist()


def test_estimates_are_shown_where_and_when_they_are_asked_for(single: Shown, runs: list[Path]) -> None:
    series = pd.read_csv(runs[1] / "series" / "start.csv")
    single.choose("part", "start")
    place = single.one("#at")
    place.clear()
    place.send_keys("77", Keys.TAB)
    shown = single.table("#series").set_index("What")
    own = series[series["time"] == 77].set_index("what")
    assert list(shown.index) == ["samples", "true level", *ESTIMATORS] == list(own.index)
    np.testing.assert_allclose(pd.to_numeric(shown["value"]), own["value"], rtol=1e-4)
    assert float(shown.loc["kalman", "to"]) == pytest.approx(own.loc["kalman", "high"], rel=1e-4)
    assert shown.loc["ema", "to"] == "-"

    def marks() -> int:
        count: int = single.run("return document.querySelectorAll('#series svg.marks path[d]').length")
        return count

    whole = marks()
    for box in single.all("#lines input"):
        box.click()
        single.until(lambda: marks() < whole)
        box.click()
        single.until(lambda: marks() == whole)


# --- charts -------------------------------------------------------------------------------------------------


def test_charts_have_a_mark_for_each_setting_and_say_what_they_show(single: Shown) -> None:
    single.choose("metric", "RMSE")
    for place, count in (("#intervals", 4), ("#differences", 3)):
        single.until(lambda place=place, count=count: len(single.all(f"{place} .mark-symbol path")) == count)
        chart = single.one(f"{place} .chart")
        assert chart.get_attribute("role") == "img"
        assert f"of {count} settings" in chart.get_attribute("aria-label")
        assert chart.find_element(By.CSS_SELECTOR, "div").get_attribute("aria-hidden") == "true"
    assert len(single.all("#differences .mark-rule.role-mark line")) == 4


def test_points_of_the_front_tell_what_they_are(single: Shown, runs: list[Path]) -> None:
    table = single.table("#pareto").set_index("Estimator")
    assert table.loc["moving_average", "on the front"] == "yes"  # of 30 samples: less lag than all others
    assert table.loc["debiased_ema", "on the front"] == "no"  # the EMA does the same in half the memory
    points = single.all("#pareto .mark-symbol path")
    assert len(points) >= 4
    told = set()
    for point in points:
        if point.get_attribute("aria-hidden") is None and point.is_displayed():
            single.run("arguments[0].scrollIntoView({block: 'center'})", point)
            ActionChains(single.driver).move_to_element(point).perform()
            tip = single.one("#vg-tooltip-element")
            told.add(tip.text)
    assert any("moving_average" in text and "on the front" in text and "bytes" in text for text in told), told


# --- controls -----------------------------------------------------------------------------------------------


def test_the_command_is_copied(single: Shown) -> None:
    origin = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    single.driver.execute_cdp_cmd("Browser.grantPermissions", origin)
    for press in single.all(".copyable button"):
        single.run("arguments[0].scrollIntoView({block: 'center'})", press)
        press.click()
        single.until(lambda press=press: press.text == "Copied")
        assert single.said().startswith("Copied the command")
    text = single.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert text == "kalmean estimators.moving_average.window=30 seeds=6 stream.steps=2000"


def test_a_command_that_cannot_be_copied_is_marked(single: Shown) -> None:
    single.run("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    single.run("document.execCommand = () => false")
    press = single.one("#provenance .copyable button")
    press.click()
    single.until(lambda: press.text == "Marked: Ctrl+C")
    assert single.run("return String(getSelection())").startswith("kalmean estimators.moving_average")


def test_one_run_at_a_time_is_shown(page: Shown, runs: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "both.html"
    path.write_text(report(runs, names=["swept", "one"]), encoding="utf-8")
    page.open(path)
    assert page.options("run") == ["swept", "one"]
    assert not page.one("#series").is_displayed()
    assert page.one("#stream").is_displayed()
    page.choose("run", "one")
    assert page.one("#series").is_displayed()
    assert not page.one("#stream").is_displayed()
    assert "seeds=6 stream.steps=2000" in page.one("#provenance").text
    links = page.run("return [...document.querySelectorAll('main a')].map(a => a.getAttribute('href'))")
    assert links == ["tables/one.csv", "figures/one_estimates.png", "figures/one_settling.png"]
    assert page.all("img") == []


def test_any_table_is_shown_as_it_is(page: Shown, tmp_path: Path) -> None:
    from test_report import HOSTILE, written

    table = pd.DataFrame(
        {"id": ["b", HOSTILE, "a"], "stated": [10.0, np.nan, 9.0], "parameters": ["", "7", "x"]}
    )
    folder = written(tmp_path / "run", table)
    path = folder / "report.html"
    path.write_text(report([folder]), encoding="utf-8")
    page.driver.get(path.as_uri())
    page.until(lambda: page.run("return document.documentElement.dataset.ready") == "yes")
    assert page.table("#table")["id"].tolist() == table["id"].tolist()
    page.one("#table th[data-key=stated] button").click()
    assert page.table("#table")["stated"].tolist() == ["9", "10", "-"]
    assert not page.one("#intervals").is_displayed()
    assert not page.one("#chosen").is_displayed()


def test_failures_are_the_first_thing_said_of_the_numbers(page: Shown, tmp_path: Path) -> None:
    from test_report import written

    values = Measured("rmse", "1", np.array([1.0, np.nan, 2.0, 3.0]))
    rows = [
        Rows("s", "ema", "beta=0.9", [values], {1: "failed: ValueError"}),
        Rows("s", "kalman", "", [values]),
    ]
    table = long_table("made", rows)
    cells = {"done": 7, "failed": 1, "missing": 0}
    folder = written(tmp_path / "run", summarise(table), table, cells=cells, complete=False)
    path = folder / "report.html"
    path.write_text(report([folder]), encoding="utf-8")
    page.open(path)
    assert "not complete" in page.one("#lead").text
    assert page.one(".failures").text.startswith("1 cell failed and 0 missing")
    shown = page.table("#failures").set_index("Estimator")
    assert shown.loc["ema"].tolist() == ["beta=0.9", "s", "failed: ValueError", "every metric", "1", "4"]
    assert shown.loc["kalman", "Why"] == "undefined"
    assert page.one("#absent").location["y"] < page.one("#summary").location["y"]
    assert page.table("#table").set_index("Estimator").loc["ema", "rmse"].endswith("(1 failed: ValueError)")


def test_all_controls_are_reached_by_the_keyboard(single: Shown) -> None:
    script = """return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility())
        .map((e, place) => [e.dataset.stop = String(place), e.type === 'radio' && !e.checked])"""
    stops = single.run(script, "button, select, input, [tabindex='0'], a[href], summary")
    seen: list[str] = []
    for _ in range(len(stops) + 5):
        single.driver.switch_to.active_element.send_keys(Keys.TAB)
        seen.append(single.run("return document.activeElement.dataset.stop ?? ''"))
        if not seen[-1] or seen[-1] in seen[:-1]:
            break
    reached = set(seen) - {""}
    assert {stop for stop, radio in stops if not radio} <= reached  # of a group of radios one is reached
    assert len(reached) > 30


def test_everything_has_a_name(single: Shown) -> None:
    nameless = single.run(
        """const parts = 'button, select, input, [role=region], [role=group], section, img';
        const named = (e) => e.matches('button') && e.textContent.trim() || e.labels?.length || e.alt
          || e.getAttribute('aria-label')
          || document.getElementById(e.getAttribute('aria-labelledby'))?.textContent;
        return [...document.querySelectorAll(parts)].filter((e) => !named(e))
        .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    levels = [int(e.tag_name[1]) for e in single.all("h1, h2, h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert single.run("return [...document.querySelectorAll('table')].every((t) => t.caption.textContent)")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_screen(width: int, theme: str, page: Shown, runs: list[Path], tmp_path: Path) -> None:
    resize(page.driver, width, 900)
    prefer(page.driver, prefers_color_scheme=theme)
    page.open(runs[1] / "report.html")
    assert page.run("return document.documentElement.scrollWidth") == width
    dark = page.run("return getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (theme == "light")
    toggle = page.one("[data-theme-toggle]")
    before = dark
    toggle.click()
    assert page.run("return getComputedStyle(document.documentElement).backgroundColor") != before
    toggle.click()
    path = tmp_path / f"{width}-{theme}.png"
    screenshot(page.driver, path)
    assert path.stat().st_size > 50_000


def test_it_is_painted_and_its_pictures_are_there(single: Shown) -> None:
    assert single.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime") > 0
    assert single.run("return document.images.length") == 2
    assert single.run("return [...document.images].every((i) => i.naturalWidth > 100)")
