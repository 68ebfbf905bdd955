"""The page in a real browser: to look at in light, dark and narrow; by keyboard; live; and with its buttons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from streamproc.service.app import create_app
from streamproc.service.config import ServiceConfig, TokenConfig
from streamproc.service.page.routes import page_router
from streamproc.service.views import DeadLetterView
from tests.chromium import browser, complaints, look, screenshot
from tests.serving_app import served
from tests.shown_pipelines import ShownPipelines, failed, now, pipeline, revenue_graph

__all__ = ["browser"]

NAME = "revenue-by-country"
PAGES: tuple[str, ...] = ("/", f"/pipelines/{NAME}", "/pipelines/broken", f"/pipelines/{NAME}/why/revenue")
PAGES += (f"/pipelines/{NAME}/dead-letters/dead", f"/pipelines/{NAME}/actions/drain", "/pipelines/nowhere")
TOKEN = "admin-token-0123456789"

# What assistive technology would stumble over; an empty list is good.
ACCESSIBLE = """
const wrong = [];
const name = (e) => (e.getAttribute("aria-label") || e.textContent || "").trim()
  || [...(e.labels || [])].map((l) => l.textContent.trim()).join(" ");
for (const e of document.querySelectorAll("a, button, input:not([type=hidden]), select, summary"))
  if (!name(e)) wrong.push("no name: " + e.outerHTML.slice(0, 80));
for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) wrong.push("no alt: " + e.src);
for (const e of document.querySelectorAll("svg"))
  if (e.getAttribute("aria-hidden") !== "true" && !e.getAttribute("aria-label") && !e.getAttribute("aria-labelledby"))
    wrong.push("a drawing without a name");
for (const e of document.querySelectorAll("table"))
  if (!e.caption) wrong.push("no caption");
for (const e of document.querySelectorAll("th")) if (!e.scope) wrong.push("no scope: " + e.textContent);
const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map((e) => Number(e.nodeName[1]));
if (levels[0] !== 1 || levels.filter((l) => l === 1).length !== 1) wrong.push("headings begin with one h1: " + levels);
levels.forEach((l, i) => { if (i && l > levels[i - 1] + 1) wrong.push("a heading is left out: " + levels); });
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
ids.forEach((id, i) => { if (ids.indexOf(id) !== i) wrong.push("twice: #" + id); });
for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
  for (const id of (e.getAttribute("aria-labelledby") + " " + (e.getAttribute("aria-describedby") || "")).split(" "))
    if (id && id !== "null" && !document.getElementById(id)) wrong.push("names nothing: " + id);
if (document.querySelectorAll("main").length !== 1) wrong.push("one main");
const navs = [...document.querySelectorAll("nav, [role=region], section[aria-label]")]
  .map((e) => e.getAttribute("aria-label") || document.getElementById(e.getAttribute("aria-labelledby"))?.textContent);
navs.forEach((n, i) => { if (!n || navs.indexOf(n) !== i) wrong.push("landmarks need names of their own: " + n); });
if (!document.documentElement.lang || !document.title) wrong.push("no language or title");
for (const e of document.querySelectorAll("a:not(.skip), button, select, input:not([type=hidden])")) {
  const box = e.getBoundingClientRect();
  if (getComputedStyle(e).display !== "inline" && (box.width < 16 || box.height < 16))
    wrong.push("too small: " + e.outerHTML.slice(0, 60));
}
return wrong;
"""


@pytest.fixture(scope="module")
def shown() -> ShownPipelines:
    return ShownPipelines()


@pytest.fixture(scope="module")
def address(shown: ShownPipelines) -> Iterator[str]:
    with served(create_app(shown, ServiceConfig(), page=page_router(shown))) as address:
        yield address


@pytest.fixture(autouse=True)
def as_it_was(shown: ShownPipelines, browser: webdriver.Chrome) -> None:
    shown.pipelines.clear()
    shown.asked.clear()
    shown.show(pipeline(NAME, error_records=3), revenue_graph(NAME))
    shown.show(failed("broken"), revenue_graph("broken"))
    shown.letters = (
        DeadLetterView(
            id="0:7",
            at=now(),
            node="orders",
            source="orders",
            split="orders-3",
            offset=7,
            error="amount: expected float64",
            key="FR",
            value='{"amount": "twelve"}',
        ),
        DeadLetterView(
            id="0:6",
            at=now(),
            node="paid",
            source=None,
            split=None,
            offset=None,
            error="division by zero",
            key=None,
            value="{}",
            replayable=False,
            reason="the original record is not in the letter",
        ),
    )
    look(browser)
    complaints(browser)


def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def focused(browser: webdriver.Chrome) -> str:
    return str(browser.execute_script("return document.activeElement.id || document.activeElement.textContent.trim()"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_every_page_is_whole_and_accessible(
    browser: webdriver.Chrome, address: str, tmp_path: Path, width: int, dark: bool
) -> None:
    for path in PAGES:
        look(browser, dark=dark, width=width)
        browser.get(address + path)
        assert browser.execute_script(ACCESSIBLE) == [], path
        overflow = browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert overflow <= 0, f"{path} is wider than the window"
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(15, 19, 25)" if dark else "rgb(245, 246, 248)")
        screenshot(browser, tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 5_000
        missing = ["404"] if path == "/pipelines/nowhere" else []
        assert [each for each in complaints(browser) if not any(code in each for code in missing)] == [], path


def test_by_keyboard_alone(browser: webdriver.Chrome, address: str) -> None:
    browser.get(address + "/")
    keys = webdriver.ActionChains(browser)
    keys.send_keys(Keys.TAB).perform()
    skip = browser.switch_to.active_element
    assert skip.text == "Skip to the content"
    assert skip.rect["y"] >= 0, "it shows where the focus is"
    skip.send_keys(Keys.ENTER)
    until(lambda: focused(browser) == "main")
    order = []
    for _ in range(3):
        webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
        order.append(focused(browser))
    assert order == ["pause", "to-broken", f"to-{NAME}"]
    outline = browser.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    until(lambda: browser.current_url.endswith(NAME))
    seen = []
    for _ in range(40):
        webdriver.ActionChains(browser).send_keys(Keys.TAB).perform()
        seen.append(focused(browser))
    nodes = [f"node-{node.name}" for node in revenue_graph(NAME).nodes]
    assert [each for each in seen if each.startswith("node-")] == nodes, "nodes in the order rows flow"
    assert {"do-savepoint", "parallelism", "do-rescale", "to-drain", "to-stop"} <= set(seen)


def test_numbers_change_and_focus_stays(browser: webdriver.Chrome, address: str, shown: ShownPipelines) -> None:
    browser.get(f"{address}/pipelines/{NAME}")
    browser.execute_script("window.before = 1; document.getElementById('why-revenue').focus()")
    box = browser.find_element(By.ID, "parallelism")
    browser.execute_script("arguments[0].value = '7'", box)
    shown.show(pipeline(NAME, records_in_per_second=77.0, state="restarting", ready=False), revenue_graph(NAME))
    until(lambda: "77/s" in browser.find_element(By.ID, "figure-in").text)
    assert browser.execute_script("return window.before") == 1, "without loading the page again"
    assert focused(browser) == "why-revenue"
    assert box.get_property("value") == "7", "what was typed stays"
    assert browser.find_element(By.ID, "changes").get_property("textContent") == f"{NAME} is now restarting"
    assert browser.find_element(By.ID, "connection").text == "Live"
    assert complaints(browser) == []


def test_rows_come_and_go(browser: webdriver.Chrome, address: str, shown: ShownPipelines) -> None:
    browser.get(address + "/")
    browser.find_element(By.ID, f"to-{NAME}").send_keys("")
    shown.show(failed("another"))
    shown.show(pipeline(NAME, state="failed", ready=False))
    del shown.pipelines["broken"]
    rows = "return [...document.querySelectorAll('tbody tr')].map((row) => row.id)"
    until(lambda: browser.execute_script(rows) == ["row-another", f"row-{NAME}"])
    assert focused(browser) == f"to-{NAME}"
    browser.find_element(By.ID, "pause").click()
    shown.show(failed("third"))
    assert browser.find_element(By.ID, "connection").text == "Paused"
    shown.pipelines.clear()
    browser.find_element(By.ID, "pause").click()
    until(lambda: "No pipelines yet" in browser.find_element(By.ID, "live").text)
    assert complaints(browser) == []


def test_says_when_nobody_answers(browser: webdriver.Chrome, shown: ShownPipelines) -> None:
    with served(create_app(shown, ServiceConfig(), page=page_router(shown))) as address:
        browser.get(address + "/")
        until(lambda: browser.find_element(By.ID, "connection").text == "Live")
    until(lambda: "does not answer" in browser.find_element(By.ID, "connection").text)
    assert NAME in browser.find_element(By.ID, "live").text, "what was known stays"
    browser.get("about:blank")
    complaints(browser)


def test_actions(browser: webdriver.Chrome, address: str, shown: ShownPipelines) -> None:
    browser.get(f"{address}/pipelines/{NAME}")
    browser.find_element(By.ID, "do-savepoint").click()
    until(lambda: "Savepoint 40 is taken" in browser.page_source)
    browser.find_element(By.ID, "to-drain").click()
    until(lambda: "Drain revenue" in browser.title)
    assert shown.asked == [("savepoint", NAME)], "asked first"
    browser.find_element(By.CSS_SELECTOR, "main form button").click()
    until(lambda: shown.asked[-1] == ("drain", NAME))
    until(lambda: browser.find_elements(By.ID, "do-start"))
    browser.find_element(By.ID, "restore").send_keys("savepoint 38")
    browser.find_element(By.ID, "do-start").click()
    until(lambda: shown.asked[-1] == ("start", NAME, 38))
    browser.get(f"{address}/pipelines/{NAME}/dead-letters/dead")
    boxes = browser.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")
    assert [each.is_enabled() for each in boxes] == [True, False]
    boxes[0].click()
    browser.find_element(By.ID, "replay-selected").click()
    until(lambda: shown.asked[-1] == ("replay", NAME, "dead", ("0:7",)))
    until(lambda: "1 dead letters were sent back" in browser.page_source)
    assert complaints(browser) == []


def test_logging_in(browser: webdriver.Chrome, shown: ShownPipelines) -> None:
    config = ServiceConfig(tokens=(TokenConfig(name="ada", role="admin", token=TOKEN),))
    with served(create_app(shown, config, page=page_router(shown))) as address:
        browser.get(f"{address}/pipelines/{NAME}")
        assert browser.execute_script(ACCESSIBLE) == []
        browser.find_element(By.ID, "token").send_keys("a-wrong-token-012345", Keys.ENTER)
        until(lambda: "not known" in browser.page_source)
        browser.find_element(By.ID, "token").send_keys(TOKEN, Keys.ENTER)
        until(lambda: browser.current_url.endswith(f"/pipelines/{NAME}"))
        assert "ada" in browser.find_element(By.CSS_SELECTOR, ".visitor").text
        browser.find_element(By.CSS_SELECTOR, ".visitor button").click()
        until(lambda: "/login" in browser.current_url)
        browser.get("about:blank")
    complaints(browser)
