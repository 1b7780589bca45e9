"""The dashboard of a large fleet in a real browser: how soon a page is painted, and what it takes to keep it live.

    python benchmarks/dashboard.py [--devices 100 5000] [--rounds 5] [--views 7]

A real `broker-server run` behind a real Mosquitto hears so many devices (one client speaks for all: 1,000 probes x 10
classes in u8-sqrt and a competence map each) for a few rounds and half of one more, which stays open. Then a real
`broker-server dashboard` shows its database to the system's Chromium, each view with an empty cache.

* answer: from the request to the last byte of the page's HTML.
* painted: First Contentful Paint, from the navigation's start, by the browser's own clock.
  That of a page of two letters, from the same server, is what the browser itself takes.
* live: what an open page does at every event: it fetches itself and puts the new contents in place of the old.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import numpy as np
import psutil
from ingest import broker, payloads
from playwright.sync_api import Browser, sync_playwright
from sessions import PATIENCE_S, PROBES, TASK, TOPICS, config, serve

from broker_server.brokers.loopback import LOOPBACK, free_port
from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.messages import CompetenceMap, DeviceState, Kind, Receipt, RoundOffer
from fd_protocol.parts import split
from fd_runtime.links.link import Arrived, LinkSettings
from fd_runtime.links.mqtt_link import MqttLink

DIFFERENT = 50
"""Contributions and maps that differ; devices share them."""
SHOWN = (
    ("Two letters (/healthz)", "/healthz"),
    ("Now", "/"),
    ("Fleet", "/fleet"),
    ("Fleet, by agreement", "/fleet?order=agreement"),
    ("Fleet, a search", "/fleet?q=dev-00001"),
    ("A device", "/fleet/dev-000001"),
    ("History", "/history"),
    ("Differing", "/differing"),
    ("Refusals", "/refusals"),
    ("Releases", "/releases"),
    ("Probes", "/probes"),
    ("Audit", "/audit"),
)
TIMES = """async () => {
  let paint;
  while (!(paint = performance.getEntriesByName("first-contentful-paint")[0]))
    await new Promise(requestAnimationFrame);
  const page = performance.getEntriesByType("navigation")[0];
  return [page.responseEnd - page.requestStart, paint.startTime, page.decodedBodySize];
}"""
LIVE = """async () => {
  if (typeof refresh !== "function") return NaN;
  const since = performance.now();
  await refresh();
  return performance.now() - since;
}"""


@dataclass(frozen=True)
class View:
    """One page as one visitor saw it; milliseconds."""

    answer_ms: float
    painted_ms: float
    live_ms: float
    html_bytes: int


class Fleet:
    """Devices without models, all on one MQTT session."""

    def __init__(self, port: int, devices: int) -> None:
        self.devices = devices
        self._link = MqttLink(LinkSettings("fleet", port=port, subscriptions=(TOPICS.round, TOPICS.receipt("+"))))
        rng = np.random.default_rng(0)
        self._distances = [rng.integers(0, 4, PROBES).astype(np.uint8) for _ in range(DIFFERENT)]

    def __enter__(self) -> Fleet:
        state = codec.encode(DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",)))
        for device in range(self.devices):
            self._link.publish(TOPICS.state(f"dev-{device:06d}"), state, retain=True)
        return self

    def __exit__(self, *_error: object) -> None:
        self._link.close()

    def offer(self) -> RoundOffer:
        """Return the next offer."""
        while True:
            event = self._link.events.get(timeout=PATIENCE_S)
            if isinstance(event, Arrived) and event.topic == TOPICS.round:
                return codec.decode(event.payload, RoundOffer)

    def be_receipted(self, offer: RoundOffer, contributions: int) -> None:
        """Wait for so many receipts of a round: the server has nothing left to do."""
        while contributions:
            event = self._link.events.get(timeout=PATIENCE_S)
            if isinstance(event, Arrived) and event.topic.endswith("/receipt"):
                receipt = codec.decode(event.payload, Receipt)
                contributions -= receipt.round == offer.round and receipt.kind is Kind.CONTRIBUTION

    def contribute(self, offer: RoundOffer, devices: int, *, maps: bool) -> None:
        """Send what `devices` of the fleet say, and where their data lie."""
        made = payloads(offer, DIFFERENT)
        for device in range(devices):
            said = [(made[device % DIFFERENT], Kind.CONTRIBUTION)]
            if maps:
                distances = self._distances[device % DIFFERENT]
                known = CompetenceMap(offer.slice.public_set, PROBES, encode_map(distances))
                said.insert(0, (codec.encode(known), Kind.COMPETENCE))
            for payload, kind in said:
                for part in split(payload, offer.round, kind):
                    self._link.publish(TOPICS.upload(f"dev-{device:06d}"), codec.encode(part))


def played(stack: ExitStack, folder: Path, devices: int, rounds: int) -> Path:
    """Play rounds with a fleet and leave one open; return the server's settings file."""
    port = stack.enter_context(broker(folder))
    settings = config(folder, port, devices, rounds + 1)
    serve(stack, settings)
    fleet = stack.enter_context(Fleet(port, devices))
    for number in range(rounds):
        fleet.contribute(fleet.offer(), devices, maps=number == 0)
    last = fleet.offer()
    fleet.contribute(last, devices // 2, maps=False)
    fleet.be_receipted(last, devices // 2)
    return settings


def dashboard(stack: ExitStack, settings: Path) -> tuple[str, psutil.Process]:
    """Start the dashboard; return its address and its process."""
    port = free_port()
    text = settings.read_text()
    assert "\nport = 8089" in text
    settings.write_text(text.replace("\nport = 8089", f"\nport = {port}"))
    command = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]
    process = subprocess.Popen([*command, "dashboard", "--config", settings], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    site, end_s = f"http://{LOOPBACK}:{port}", time.monotonic() + PATIENCE_S
    while True:
        try:
            with closing(urllib.request.urlopen(f"{site}/readyz")):  # noqa: S310 - our own, on loopback
                return site, psutil.Process(process.pid)
        except URLError:
            assert time.monotonic() < end_s
            time.sleep(0.1)


def view(browser: Browser, address: str) -> View:
    """Open a page as somebody who was never there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.goto(address, wait_until="load")
        answer_ms, painted_ms, html_bytes = page.evaluate(TIMES)
        return View(answer_ms, painted_ms, page.evaluate(LIVE), html_bytes)
    finally:
        context.close()


def row(name: str, views: list[View]) -> str:
    def median(times_ms: list[float]) -> str:
        return f"{statistics.median(times_ms):.0f}".replace("nan", "")

    painted_ms = [one.painted_ms for one in views]
    return (
        f"| {name} | {median([one.answer_ms for one in views])} | {median(painted_ms)} | {max(painted_ms):.0f} "
        f"| {median([one.live_ms for one in views])} | {views[0].html_bytes / 1000:.0f} |"
    )


def measure(devices: int, rounds: int, views: int) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        settings = played(stack, Path(name), devices, rounds)
        site, process = dashboard(stack, settings)
        driver = stack.enter_context(sync_playwright())
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.callback(browser.close)
        page = browser.new_page()
        page.goto(f"{site}/history")
        a_round = page.locator("a[href^='/rounds/']").last.get_attribute("href")
        page.close()
        print(f"\n{devices:,} devices, {rounds} rounds and one open; {views} views of each page.\n")
        print("| page | answer, ms | painted, ms | the slowest | live, ms | HTML, kB |\n|---|---:|---:|---:|---:|---:|")
        for title, address in (*SHOWN, ("A round", a_round)):
            print(row(title, [view(browser, site + address) for _ in range(views)]), flush=True)
        print(f"\nThe dashboard's process afterwards: {process.memory_info().rss / 1e6:.0f} MB.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[100, 5000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--views", type=int, default=7)
    asked = parser.parse_args()
    for devices in asked.devices:
        measure(devices, asked.rounds, asked.views)


if __name__ == "__main__":
    main()
