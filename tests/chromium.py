"""A real Chromium, driven by WebDriver: one for each module that asks for the fixture `browser`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-prefers-reduced-motion",
)


class NoChromium(RuntimeError):
    """No browser, or no driver for it; the message says which."""


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with a profile of its own. Raises NoChromium where there is none."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        raise NoChromium("chromium and chromedriver must be on the path")
    with tempfile.TemporaryDirectory(prefix="streamproc-chromium-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for option in (*_OPTIONS, f"--user-data-dir={profile}"):
            options.add_argument(option)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield browser
        finally:
            browser.quit()


def look(browser: webdriver.Chrome, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
    """How the page is looked at."""
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def complaints(browser: webdriver.Chrome) -> list[str]:
    """What the console has had to say since it was last asked: errors and violations of the security policy."""
    said: list[dict[str, Any]] = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in said if entry["level"] in ("SEVERE", "WARNING")]


def screenshot(browser: webdriver.Chrome, path: Path) -> None:
    """The whole page, as a PNG."""
    height = browser.execute_script("return document.documentElement.scrollHeight")
    width = browser.execute_script("return window.innerWidth")
    metrics: dict[str, Any] = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.save_screenshot(str(path))


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    """The browser of a module. Without one its tests are skipped; on CI they fail."""
    try:
        with chromium() as started:
            yield started
    except NoChromium as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no browser: {missing}")
