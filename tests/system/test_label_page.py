"""The label page in a real browser: by keyboard, in the dark, on a phone, and never at odds with its own policy."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fd_protocol.manifest import Preprocessing, Task
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.api_stage import TOKEN, api_with_store
from tests.support.browsers import needs_chromium
from tests.support.patience import wait_until
from tests.support.small_bundles import pictures, small_bundle

pytestmark = [pytest.mark.system, needs_chromium]

SCREENS = {"desk": (1280, 900, "light"), "night": (1280, 900, "dark"), "phone": (390, 844, "light")}
KEPT = os.environ.get("FEDISTILL_SCREENSHOTS")
"""A folder: what every screen looks like is kept there, for a person to look at."""
MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def opened(chromium, complaints):
    """Return a function that serves a stage and opens its page, logged in unless told otherwise."""
    with ExitStack() as stack:

        def open_page(stage, screen="desk", fragment=f"#{TOKEN}"):
            site = f"http://127.0.0.1:{stack.enter_context(stage.tcp())}"
            width, height, scheme = SCREENS[screen]
            context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
            stack.callback(context.close)
            page = context.new_page()
            page.on("console", lambda m: complaints.append(m.text) if m.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda r: None if r.url.startswith((site, "data:")) else complaints.append(r.url))
            page.goto(f"{site}/{fragment}")
            return page

        yield open_page


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return small_bundle(tmp_path_factory.mktemp("small") / "bundle", rows=300)


@pytest.fixture
def stage(bundle):
    """Twelve samples were seen, and some are labelled."""
    stage = api_with_store(bundle)
    said = stage.loop.predict(pictures(12, seed=3)[0], sample_ids=[f"s-{number}" for number in range(12)])
    for name in said.sample_ids[:2]:
        stage.loop.label(name, "dog", "test")
    return stage


@pytest.fixture(scope="module")
def sensors(tmp_path_factory):
    """A model of windows of three channels and twelve classes, one of which is called like a mischief."""
    classes = (*(f"move {number}" for number in range(11)), MARKUP)
    task = Task(classes, (3, 128), "float32", Preprocessing())
    rows = windows(150)
    data = FactoryData(rows[:0], np.empty(0, np.int64), calibration=rows)
    return build(
        Recipe("moves", "mlp-s", pretraining=None, tflite="none"), task, data, tmp_path_factory.mktemp("b") / "moves"
    )


def windows(count, seed=0):
    rng = np.random.default_rng(seed)
    time_s = np.linspace(0, 6, 128)
    phases, rates = rng.uniform(0, 6, (count, 3, 1)), rng.uniform(0.5, 3, (count, 3, 1))
    return (np.sin(rates * time_s + phases) + rng.normal(0, 0.1, (count, 3, 128))).astype(np.float32)


def asked(stage):
    return [one.sample_id for one in stage.store.uncertain()]


def shown(page):
    return page.eval_on_selector_all(".card", "cards => cards.map(card => card.dataset.sample)")


def focused(page):
    return page.evaluate("document.activeElement.closest('.card')?.dataset.sample")


def keep(page, name):
    if KEPT:
        page.screenshot(path=Path(KEPT) / f"label-page-{name}.png", full_page=True)


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_shows_what_the_model_is_least_sure_of_and_fits_its_screen(opened, stage, complaints, screen):
    page = opened(stage, screen)
    page.wait_for_selector(".card")
    assert shown(page) == asked(stage)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    sizes = page.eval_on_selector_all(".picture img", "images => images.map(image => image.naturalWidth)")
    assert sizes == [12] * 10
    outside = """frames => frames.filter(frame => {
      const [inner, outer] = [frame.firstChild.getBoundingClientRect(), frame.getBoundingClientRect()];
      return inner.bottom > outer.bottom + 1 || inner.right > outer.right + 1 || inner.height < 50;
    }).length"""
    assert page.eval_on_selector_all(".picture", outside) == 0
    keep(page, screen)
    assert complaints == []


def test_labels_are_given_by_keyboard_and_the_next_sample_has_the_focus(opened, stage, complaints):
    page = opened(stage)
    page.wait_for_selector(".card")
    first, second, third = asked(stage)[:3]
    page.locator(".card").first.focus()
    page.keyboard.press("2")
    wait_until(lambda: stage.store.labels.get(first) == (1, "api"))
    page.wait_for_selector(f"[data-sample='{first}'].done")
    assert focused(page) == second
    assert page.locator(f"[data-sample='{first}'] button[aria-pressed=true]").inner_text().endswith("dog")
    assert page.locator(f"[data-sample='{first}'] .verdict").inner_text() == "✓ dog"
    page.keyboard.press("s")
    wait_until(lambda: second in stage.store.skipped)
    page.wait_for_selector(f"[data-sample='{second}'].done")
    assert focused(page) == third
    assert page.locator("#left").inner_text() == "8 of 10 to go"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert focused(page) == first
    page.keyboard.press("1")  # it was a mistake
    wait_until(lambda: stage.store.labels[first] == (0, "api"))
    keep(page, "labelled")
    assert complaints == []


def test_labels_are_given_by_mouse(opened, stage):
    page = opened(stage)
    page.wait_for_selector(".card")
    first = asked(stage)[0]
    page.locator(f"[data-sample='{first}'] button:has-text('fox')").click()
    wait_until(lambda: stage.store.labels.get(first) == (2, "api"))


def test_all_is_reached_by_keyboard_and_the_focus_is_seen(opened, stage):
    page = opened(stage)
    page.wait_for_selector(".card")
    reached, outlines = [], []
    for _ in range(12):
        page.keyboard.press("Tab")
        active = "document.activeElement"
        reached.append(page.evaluate(f"{active}.className || {active}.id || {active}.textContent.trim()"))
        outlines.append(page.evaluate(f"getComputedStyle({active}).outlineStyle"))
    assert reached[:3] == ["skip", "reload", "card"]
    assert "skip-it" in reached
    assert "none" not in outlines


def test_many_classes_are_typed_and_names_are_text_whatever_they_hold(opened, sensors, complaints):
    stage = api_with_store(sensors)
    stage.loop.predict(windows(5, seed=4))
    page = opened(stage)
    page.wait_for_selector(".card")
    first = asked(stage)[0]
    card = page.locator(f"[data-sample='{first}']")
    assert card.locator("svg path").count() == 3
    card.locator("input").fill(MARKUP)
    card.locator("input").press("Enter")
    wait_until(lambda: stage.store.labels.get(first) == (11, "api"))
    wait_until(lambda: card.locator(".verdict").inner_text() == f"✓ {MARKUP}")  # the answer is on its way
    assert page.locator("img[src=x]").count() == 0
    keep(page, "windows")
    assert complaints == []


def test_without_the_token_nothing_is_shown_and_a_wrong_one_is_told(opened, stage):
    page = opened(stage, fragment="")
    page.wait_for_selector("#login:visible")
    assert page.locator(".card").count() == 0
    keep(page, "login")
    page.fill("#token", "wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#login-problem:has-text('not the token')")
    page.fill("#token", TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector(".card")
    page.reload()
    page.wait_for_selector(".card")  # this tab still knows it


def test_a_link_brings_the_token_and_does_not_keep_it(opened, stage):
    page = opened(stage)
    page.wait_for_selector(".card")
    assert TOKEN not in page.url
    assert page.evaluate("document.cookie") == ""


def test_a_page_that_was_opened_elsewhere_knows_no_token(opened, stage, chromium):
    page = opened(stage)
    page.wait_for_selector(".card")
    other = chromium.new_context().new_page()
    other.goto(page.url)
    other.wait_for_selector("#login:visible")
    other.context.close()


def test_letters_stand_out_by_day_and_by_night(opened, bundle):
    ratio = """(selector) => {
      const parse = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (colour) => parse(colour).map((v) => v / 255)
        .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
      const one = document.querySelector(selector);
      let behind = one;
      while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
      const pair = [getComputedStyle(one).color, getComputedStyle(behind).backgroundColor].map(light);
      return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    }"""
    for screen in ("desk", "night"):
        again = api_with_store(bundle)
        again.loop.predict(pictures(3)[0])
        page = opened(again, screen)
        page.wait_for_selector(".card")
        for selector in (
            ".about",
            ".about .quiet",
            ".choices button",
            ".skip-it",
            "button small",
            "#keys",
            ".foot",
            "dt",
        ):
            assert page.evaluate(ratio, selector) >= 4.5, (screen, selector)


def test_what_is_known_of_the_device_is_shown(opened, bundle):
    stage = api_with_store(bundle)
    stage.loop.predict(pictures(60, seed=1)[0])
    said = stage.loop.predict(pictures(140, seed=2, brightness=0.35)[0])
    stage.loop.predict(pictures(100, seed=3, brightness=0.35)[0])
    for name in said.sample_ids[:20]:
        stage.loop.label(name, "fox", "test")
    page = opened(stage)
    page.wait_for_selector(".card")
    facts = page.locator("#facts").inner_text()
    assert "300" in facts
    page.wait_for_selector("#drift:visible")
    page.locator("#personal summary").click()
    assert "fox" in page.locator("#prior").inner_text()
    assert "local_prior = false" in page.locator("#personal-words").inner_text()
    keep(page, "drift")


def test_a_device_that_went_away_is_told(opened, stage, complaints):
    page = opened(stage)
    page.wait_for_selector(".card")
    page.route("**/v1/**", lambda route: route.abort())
    page.locator(".card button").first.click()
    page.wait_for_selector("#problem:has-text('does not answer')")
    assert stage.store.labels.keys() == {"s-0", "s-1"}
    complaints.clear()


def test_where_there_is_nothing_to_label_the_page_says_why(opened, bundle):
    page = opened(api_with_store(bundle))
    page.wait_for_selector("#nothing:has-text('sure of everything')")
    keep(page, "nothing")


ATTACK = """<script>
  const body = JSON.stringify({sample_id: "SAMPLE", label: "fox"});
  const tries = [
    fetch("SITE/v1/label", {method: "POST", body, mode: "no-cors", credentials: "include"}),
    fetch("SITE/v1/label", {method: "POST", body: new URLSearchParams({a: body}), mode: "no-cors"}),
    fetch("SITE/v1/label", {method: "POST", body, headers: {"Content-Type": "application/json"}}),
    fetch("SITE/v1/status", {credentials: "include"}).then((answer) => answer.text()),
  ];
  Promise.allSettled(tries).then((all) => { document.title = all.map((one) => one.status).join(" "); });
</script>"""


@contextmanager
def another_site(page):
    """Yield the address of a site on another port of this machine, which would share cookies with ours."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args):
            pass

    # A thread for each: a browser opens connections in advance, and says nothing on them.
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_page_of_another_site_can_do_nothing_here(opened, stage):
    page = opened(stage)
    page.wait_for_selector(".card")
    first = asked(stage)[0]
    attack = ATTACK.replace("SITE", page.url.rstrip("/")).replace("SAMPLE", first)
    with another_site(attack) as address:
        evil = page.context.new_page()
        evil.goto(address)
        evil.wait_for_function("document.title !== ''")
        # What is sent blindly may arrive, and is refused; a preflight fails, and no answer can be read.
        assert evil.title().split()[2:] == ["rejected", "rejected"]
    assert stage.store.labels.keys() == {"s-0", "s-1"}
