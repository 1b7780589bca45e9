"""Whether a package may be fetched, and unpacked: the one place that says so.

    python -m edge_agent.slots.verify agent.toml [OFFERED]

A process of its own, for a second: signatures take memory that the supervisor has not. OFFERED is JSON of
`machine.Offered`; without it the signed documents are brought up to date, which is a poll. One line of JSON goes to
standard output.

    nudge --> time is not before the floor --> documents up to date (TUF) --> the package is vouched for, under the
    name of this family --> it is the bundle that was named --> this device can run it
                                                           [--> the bytes are those, where they are here]

Before the floor root and timestamp are brought up to date all the same: they may tell that the floor is wrong.

What the device's owner installs by hand is asked for its digest alone: who holds the device holds its files.

What is not vouched for is asked for again later, not known bad: a forged nudge must not spoil a bundle that is yet to
come. Refused for good is what signed facts forbid.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edge_agent.care import host
from edge_agent.configuration import load_settings
from edge_agent.settings import AgentSettings
from edge_agent.slots import floor
from edge_agent.slots.machine import Offered
from edge_agent.slots.reaching import trust
from fd_protocol.errors import FedistillError
from fd_protocol.identity import sha256
from fd_protocol.manifest import MANIFEST_NAME, Manifest
from fd_protocol.targets import BUNDLES, STUDENTS, InvalidTargetError, TargetFacts, target_name
from fd_runtime.tuf.client import PATIENCE_S, TufClient, UnreachableError, UntrustedError, Vouched

NEWEST_OPSET = 23
"""Of ai.onnx, that the oldest onnxruntime knows which this program takes (1.23)."""

_HEAR_S = 30.0
"""For root and timestamp alone."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class Verified:
    """The package is what was offered; `facts` are signed, None where the owner brought it."""

    facts: TargetFacts | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not, and never will be; `reason` is one line."""

    reason: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """Nobody can say now: the clock, the link, or what the server gives cannot be believed."""

    reason: str


Verdict: TypeAlias = Verified | Refused | Undecided


class Trust:
    """What one device believes, and asks for.

    Args:
        settings: of the device; `releases.url` and `releases.root` are set.
        now_s: UTC, as the device's clock has it.

    Attributes:
        received_bytes: of documents, that came over the network.
    """

    def __init__(self, settings: AgentSettings, now_s: float) -> None:
        self._settings, self._now_s = settings, now_s
        self._clients: list[TufClient] = []

    @property
    def received_bytes(self) -> int:
        return sum(client.traffic.body_bytes for client in self._clients)

    def poll(self) -> Verdict:
        """Bring the documents up to date."""
        releases, place = self._settings.releases, self._settings.state.trust / "floor.json"
        if releases.url is None or releases.root is None:
            return Undecided("releases.url and releases.root do not say whom to ask")
        try:
            known = floor.load(place)
            if not known.is_before(self._now_s):
                known = self._corrected(place, releases.url, releases.root)
            if not known.is_before(self._now_s):
                return Undecided(f"the clock says {_date(self._now_s)}, and it is {_date(known.at_least_s)} at least")
            client = self._client(releases.url, releases.root)
            client.refresh()
            floor.rise(place, self._now_s, client.word)
        except UntrustedError as error:
            _warn(releases.url, error)
            return Undecided(f"not believed: {error}")
        except (FedistillError, OSError) as error:
            return Undecided(str(error))
        return Verified()

    def _corrected(self, place: Path, url: str, root: Path) -> floor.Floor:
        """Return the floor as it stands by the newest root: that needs no clock."""
        client = self._client(url, root, _HEAR_S)
        try:
            client.hear()
        except UntrustedError as error:
            _warn(url, error)
        except UnreachableError as error:
            log.info("%s is not reached: %s", url, error)
        return floor.correct(place, client.word, client.server_keys)

    def _client(self, url: str, root: Path, patience_s: float = PATIENCE_S) -> TufClient:
        folder = self._settings.state.trust
        folder.mkdir(parents=True, exist_ok=True)
        client = TufClient(folder / "tuf", root.read_bytes(), url, trust(self._settings), patience_s)
        self._clients.append(client)
        return client

    def vouched(self, offered: Offered, family: str) -> Vouched | Refused | Undecided:
        """Return what is vouched for under the names of a package that devices of `family` may run."""
        verdict = self.poll()
        if not isinstance(verdict, Verified):
            return verdict
        try:
            found = self._clients[-1].find([target_name(role, family, offered.package) for role in (BUNDLES, STUDENTS)])
        except InvalidTargetError as error:
            return Refused(str(error))
        except (UntrustedError, UnreachableError) as error:
            return Undecided(str(error))
        return found or Undecided(f"nobody vouches for package {offered.package[:12]} (yet)")


def verify(offered: Offered, settings: AgentSettings, now_s: float, package: bytes | None = None) -> Verdict:
    """Return whether a package may be fetched; with its bytes, whether it may be unpacked."""
    return _judge(offered, settings, Trust(settings, now_s), package)


def _judge(offered: Offered, settings: AgentSettings, trusted: Trust, package: bytes | None) -> Verdict:
    if package is not None and (wrong := _wrong_bytes(package, offered)):
        return Refused(wrong)
    if offered.by_owner:
        return Verified()
    try:
        manifest = Manifest.from_json((settings.model.bundle / MANIFEST_NAME).read_bytes())
    except (FedistillError, OSError) as error:
        return Undecided(str(error))
    found = trusted.vouched(offered, manifest.family)
    if not isinstance(found, Vouched):
        return found
    wrong = _wrong_facts(found, offered) or _beyond(found.facts, settings)
    return Refused(wrong) if wrong else Verified(found.facts)


def _wrong_bytes(package: bytes, offered: Offered) -> str:
    if len(package) != offered.package_bytes:
        return f"{len(package)} bytes, {offered.package_bytes} were offered"
    digest = sha256(package).hex()
    return "" if digest == offered.package else f"digest {digest[:12]}, {offered.package[:12]} was offered"


def _wrong_facts(found: Vouched, offered: Offered) -> str:
    """What is signed beside what was offered; the name holds family and package."""
    if (found.package, found.package_bytes) != (offered.package, offered.package_bytes):
        return f"signed are {found.package_bytes} bytes, {offered.package_bytes} were offered"
    if found.facts.bundle != offered.bundle or found.facts.family != found.name.split("/")[1]:
        return f"signed as bundle {found.facts.bundle[:12]}, {offered.bundle[:12]} was offered"
    return ""


def _beyond(facts: TargetFacts, settings: AgentSettings) -> str:
    """Why this device could not run it; empty: it may try."""
    if settings.model.runtime not in facts.runtimes:
        return f"proven on {', '.join(facts.runtimes)}, this device has {settings.model.runtime}"
    if facts.opset > NEWEST_OPSET:
        return f"opset {facts.opset}, this program knows {NEWEST_OPSET}"
    total_mb = host.memory_mb("MemTotal")
    if total_mb is not None and facts.memory_bytes > total_mb * (1 << 20):
        return f"it needs {facts.memory_bytes / (1 << 20):.0f} MB, this device has {total_mb:.0f}"
    return ""


def _warn(url: str, error: UntrustedError) -> None:
    log.warning("what %s gives is not believed: %s", url, error)


def _date(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at_s))


def main(arguments: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s verify %(levelname)s %(message)s", level=logging.INFO)
    standard_output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no verdict
    with standard_output:
        standard_output.write(json.dumps(_said(arguments)) + "\n")
    return 0


def _said(arguments: list[str]) -> dict[str, object]:
    try:
        settings = load_settings(Path(arguments[0]))
    except FedistillError as error:  # the device's own trouble
        return {"outcome": "undecided", "reason": str(error)}
    trusted = Trust(settings, time.time())
    if len(arguments) > 1:
        verdict = _judge(Offered(**json.loads(arguments[1])), settings, trusted, None)
    else:
        verdict = trusted.poll()
    reason = "" if isinstance(verdict, Verified) else verdict.reason
    outcome = type(verdict).__name__.lower()
    return {"outcome": outcome, "reason": reason, "received_bytes": trusted.received_bytes}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
