"""A browser without a window: the system's own Chromium. Tests that need it skip where it is absent, and say so."""

import shutil

import pytest

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None or sync_playwright is None, reason="no chromium on this system, or no playwright"
)


@pytest.fixture(scope="session")
def chromium():
    """One browser for the whole session."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
