"""The dashboard in a real browser: live, by keyboard, on a phone, in the dark, never at odds with its own policy."""

import os
from pathlib import Path

import pytest

from broker_server.dashboard.app import PAGES
from broker_server.orders import Spool
from tests.broker_server.dashboard.stage import OPERATOR, Stage
from tests.broker_server.dashboard.test_live import served
from tests.support.browsers import needs_chromium

pytestmark = [pytest.mark.system, needs_chromium]

SCREENS = {"desk": (1280, 900, "light"), "night": (1280, 900, "dark"), "phone": (390, 844, "light")}
LEFT = "net::ERR_ABORTED"
"""What a browser says of a request that it gave up to go to another page."""
KEPT = os.environ.get("FEDISTILL_SCREENSHOTS")
"""A folder: what every screen looks like is kept there, for a person to look at."""


@pytest.fixture
def stage(tmp_path):
    return Stage(tmp_path).play()


@pytest.fixture
def site(stage):
    with served(stage) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def opened(chromium, site, complaints):
    """Return a function that opens an address on a screen, and keeps what the browser complains about."""
    contexts = []

    def open_page(address, screen="desk", **options):
        width, height, scheme = SCREENS[screen]
        viewport = {"width": width, "height": height}
        contexts.append(chromium.new_context(viewport=viewport, color_scheme=scheme, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda r: complaints.append(f"failed: {r.url}") if r.failure != LEFT else None)
        page.on("request", lambda r: None if r.url.startswith(site) else complaints.append(f"left the site: {r.url}"))
        page.goto(site + address)
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_every_page_fits_its_screen_and_nobody_complains(opened, complaints, screen):
    page = opened("/", screen)
    for address, name in [*PAGES, ("/fleet/a", "Device"), ("/login", "Log in")]:
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/")[2] + address)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        if KEPT:
            page.screenshot(path=Path(KEPT) / f"{name}-{screen}.png".lower().replace(" ", "-"), full_page=True)
    assert complaints == []


def test_the_dark_page_is_dark_and_the_light_one_light(opened):
    def lightness(page):
        red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        return (red + green + blue) / 3

    assert lightness(opened("/", "night")) < 60
    assert lightness(opened("/", "desk")) > 200


def test_letters_stand_out_from_what_they_stand_on(opened):
    ratio = """(pair) => {
      const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
      const [a, b] = pair.map(light).sort((x, y) => y - x);
      return (a + 0.05) / (b + 0.05);
    }"""
    for screen in ("desk", "night"):
        page = opened("/fleet", screen)
        sheet = page.evaluate("getComputedStyle(document.querySelector('.sheet')).backgroundColor")
        for letters in (".sheet td", ".sheet th", ".sheet .quiet", ".sheet a", "nav a"):
            colour = page.evaluate(f"getComputedStyle(document.querySelector('{letters}')).color")
            assert page.evaluate(ratio, [colour, sheet]) >= 4.5, (screen, letters)


def test_an_open_page_follows_the_federation_and_keeps_what_its_reader_opened(opened, stage, complaints):
    page = opened("/history")
    page.wait_for_selector("[data-live=on]")
    page.click("#chart-1-summary")
    assert page.locator("#chart-1-table").get_attribute("open") is not None
    stage.world.wait(61)
    page.wait_for_selector("td:has-text('quorum') >> nth=1")
    assert page.locator("#chart-1-table").get_attribute("open") is not None
    assert page.evaluate("document.activeElement.id") == "chart-1-summary"
    assert complaints == []


def test_a_page_says_when_it_is_no_longer_live(chromium, stage):
    with served(stage) as port:
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector("[data-live=on]")
    page.wait_for_selector("[data-live=off]:has-text('connection lost')")
    page.close()


def test_without_scripts_the_page_tells_the_same_and_one_reloads(opened, stage):
    page = opened("/", java_script_enabled=False)
    assert page.locator("text=1 of 3 invited devices have answered").count() == 1
    stage.world.wait(61)
    page.click("text=Reload")
    assert page.locator("text=came to nothing: quorum missed").count() == 1


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(opened):
    page = opened("/fleet")
    reached, outlined = [], []
    for _ in range(40):
        page.keyboard.press("Tab")
        active = "document.activeElement"
        reached.append(page.evaluate(f"{active}.getAttribute('href') || {active}.id || {active}.textContent.trim()"))
        outlined.append(page.evaluate(f"getComputedStyle({active}).outlineStyle"))
    assert reached[0] == "#main"  # past the navigation at once
    assert list(dict.fromkeys(name for name in reached if name in dict(PAGES))) == [address for address, _ in PAGES]
    assert {"q", "order", "Show", "/fleet/a", "/fleet/c"} <= set(reached)
    assert "none" not in outlined[: reached.index("/fleet/c")]
    page.locator("a[href='/fleet/b']").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('b')")


def test_a_table_behind_a_chart_opens_by_keyboard(opened):
    page = opened("/history")
    page.locator("#chart-1-summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#chart-1-table table").is_visible()


def test_an_operator_logs_in_pauses_and_reads_the_answer(opened, stage, complaints):
    page = opened("/login")
    page.fill("input[name=token]", OPERATOR)
    page.fill("input[name=name]", "ada")
    page.keyboard.press("Enter")
    page.click("text=Pause after this round")
    page.wait_for_selector("text=The order is placed.")
    assert [placed.order.who for placed in Spool(stage.spool).waiting()] == ["ada"]
    stage.world.settle()
    page.wait_for_selector("text=The server says: paused")
    page.wait_for_selector("text=Resume rounds")
    page.click("text=Log out")
    page.wait_for_selector("text=Log in")
    assert complaints == []


def test_a_form_that_is_being_filled_in_is_left_alone(opened, stage):
    page = opened("/login")
    page.fill("input[name=token]", OPERATOR)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-live=on]")
    page.click("summary:has-text('Abort round 4')")
    page.fill("input[name=reason]", "half a sen")
    stage.world.device("d")
    page.wait_for_timeout(1_500)
    assert page.input_value("input[name=reason]") == "half a sen"
    page.keyboard.type("tence")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=The order is placed.")
    stage.world.settle()
    page.wait_for_selector("text=operator: half a sentence >> nth=0")
