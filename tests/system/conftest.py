"""What tests of real processes share."""

import pytest

from tests.support.browsers import CHROMIUM


@pytest.fixture(scope="session")
def chromium():
    """One browser for the whole session: Playwright refuses a second in one process."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it may be absent

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
