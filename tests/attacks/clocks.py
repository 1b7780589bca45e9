"""Attacks on a device's clock: certificates are as good as the time by which they are read."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role
from tests.attacks.entry import serve_as
from tests.attacks.ground import VICTIM, Ground, Seen, Weakening
from tests.attacks.row import Attack
from tests.support.brokers import now
from tests.support.clocks import WrongClock

THEN = datetime(2025, 3, 1, tzinfo=timezone.utc)
_DEVICE = """
import sys
from pathlib import Path
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, TlsFiles
from fd_runtime.links.mqtt_link import MqttLink
port, *files = sys.argv[1:]
link = MqttLink(LinkSettings("dev-1", host="localhost", port=int(port), tls=TlsFiles(*map(Path, files))))
event = link.events.get(timeout=30)
print(type(event).__name__, getattr(event, "kind", ""))
"""


def _device_at(ground: Ground, time: str, port: int, own: tuple[str, ...]) -> Seen:
    """Return how a device whose clock says `time` takes a broker."""
    folder = ground.folder / "clock"
    folder.mkdir(exist_ok=True)
    clock = WrongClock(folder, time)
    done = subprocess.run(
        [sys.executable, "-c", _DEVICE, str(port), *own], capture_output=True, text=True, check=True, env=_with(clock)
    )
    if "LinkUp" in done.stdout:
        return Seen("the device says hello", got_through=True)
    return Seen("the device waits for a clock" if "CLOCK" in done.stdout else done.stdout.strip())


def _with(clock: WrongClock) -> dict[str, str]:
    return {**os.environ, **clock.environment}


def without_a_clock(ground: Ground) -> Seen:
    """Be whoever you like, to a device that believes that it is 1970."""
    files = ground.files(VICTIM)
    own = tuple(map(str, (files.ca, files.certificate, files.key)))
    return _device_at(ground, "+0" if ground.is_weak else "@1970-01-01 00:00:10", ground.port, own)


def set_back(ground: Ground) -> Seen:
    """Be a broker with a certificate that ended long ago, its key stolen since; set the device's clock to then."""
    folder = ground.folder / "old"
    authority = Authority.create(folder / "ca", fleet="old", now=THEN)
    stolen = authority.issue(Identity("old-broker", Role.BROKER, ("localhost",)), folder / "broker", now=THEN, days=30)
    made = THEN if ground.is_weak else now() - timedelta(days=1)
    authority.renew_issuing(authority.root_key_path, now=made)
    device = authority.issue(Identity(VICTIM, Role.DEVICE), folder / "device", now=made)
    with serve_as(folder / "served", stolen, authority) as port:
        own = tuple(map(str, (device.ca, device.certificate, device.key)))
        return _device_at(ground, f"@{THEN + timedelta(days=3):%Y-%m-%d} 12:00:00", port, own)


ROWS = (
    Attack(
        "1970 clock",
        "be a broker to a device without a clock",
        "the device waits for a clock",
        without_a_clock,
        Weakening("a clock that is right"),
    ),
    Attack(
        "clock set back",
        "use a broker's key that was stolen after its certificate ended",
        "the device waits for a clock",
        set_back,
        Weakening("a device whose own certificate is as old"),
    ),
)
