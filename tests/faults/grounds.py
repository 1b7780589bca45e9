"""The parts of a device, and of its server, that faults are tried on."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker_server.identity.ca import Authority
from broker_server.identity.certificates import Identity, Role, new_key
from broker_server.identity.desk import Desk
from broker_server.identity.settings import EnrolmentSettings
from fd_protocol.messages import Kind
from tests.edge_agent.artifacts import write_bundle, write_private, write_public_set
from tests.edge_agent.privacy.private_device import PROBES, bundle_folder
from tests.edge_agent.processes import settings_text
from tests.edge_agent.slots.shop import Shop, make_factory
from tests.faults.area import ACT, LOOKS, Area
from tests.faults.desk import DEVICE
from tests.faults.injection import Case, Point, cases, counting, disturbed, few_of_each, points_of
from tests.faults.marks import marks
from tests.faults.outbox import MESSAGES
from tests.faults.round import Federation
from tests.faults.warm import PATIENCE_S, Fork
from tests.support.identity import Counter, now, request_pem


class LedgerArea(Area):
    """A private training, from its charge to its weights."""

    name, module = "ledger", "tests.faults.ledger"
    controls = ("careless", "without_sync")
    apart = ("public",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._bundle = bundle_folder()
        write_public_set(folder / "public", PROBES)

    def prepare(self, place: Path, act: str) -> list[Any]:
        (place / "state").mkdir(exist_ok=True)
        (place / "state" / "public").symlink_to(self.folder / "public")
        return [str(place / "state"), str(self._bundle), str(place / "marks")]


class EnrolmentArea(Area):
    """A device's visit to the enrolment site."""

    name, module = "enrolment", "tests.faults.enrolment"
    acts = ("enrol", "renew")
    controls = ("careless", "without_sync")
    wire = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._counter = Counter(folder / "counter")
        self._open = self._counter.open()
        self._open.__enter__()
        self._devices = 0

    def close(self) -> None:
        self._open.__exit__(None, None, None)
        super().close()

    def prepare(self, place: Path, act: str) -> list[Any]:
        self._devices += 1
        name, counter = f"dev-{self._devices}", self._counter
        text = settings_text(
            1,
            enrolment__url=counter.url,
            enrolment__ca_file=str(counter.authority.root_path),
            enrolment__token_file=str(place / "enrolment.token"),
        )
        (place / "agent.toml").write_text(text.replace('"dev-1"', f'"{name}"'))
        (place / "enrolment.token").write_text(counter.token(name))
        arguments = [str(place / "agent.toml"), act, name, str(counter.authority.folder), str(place / "marks")]
        if act == "renew":
            self._age(place, name, arguments)
        return arguments

    def world(self, arguments: Sequence[Any]) -> Any:
        """The authority's folder, file by file."""
        folder = self._counter.authority.folder
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def go_back_to(self, world: Any, arguments: list[Any]) -> None:
        folder = self._counter.authority.folder
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            if path.relative_to(folder) not in world:
                path.unlink()
        for name, content in world.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)

    def _age(self, place: Path, name: str, arguments: list[str]) -> None:
        first = self.warm.run("act", arguments[0], "enrol", *arguments[2:4], "/dev/null")
        assert first.returncode == 0, first
        identity = place / "state" / "identity"
        key = load_pem_private_key((identity / "device.key").read_bytes(), None).public_key()
        began = now() - timedelta(days=24)
        old = self._counter.authority.sign(Identity(name, Role.DEVICE), key, now=began, days=30)
        (identity / "device.pem").write_bytes(old)


class DeskArea(Area):
    """The authority's desk, at the server."""

    name, module = "authority's desk", "tests.faults.desk"
    acts = ("enrol", "renew", "revoke", "crl")
    controls = ("careless",)

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._mine, self._other = new_key(), new_key()
        for name, key in (("mine", self._mine), ("other", self._other)):
            (folder / f"{name}.pem").write_text(request_pem(key))

    def prepare(self, place: Path, act: str) -> list[Any]:
        authority = Authority.create(place / "state", fleet="demo", now=now())
        desk = Desk.of(EnrolmentSettings(enabled=True, authority=authority.folder))
        token, _ = desk.make_token(DEVICE, timedelta(hours=1), now=now(), who="test")
        shown = place / "shown.pem"
        if act != "enrol":
            began, identity = now() - timedelta(days=24), Identity(DEVICE, Role.DEVICE)
            shown.write_bytes(authority.sign(identity, self._mine.public_key(), now=began, days=30))
        return [
            str(place / "state"),
            act,
            token,
            str(self.folder / "mine.pem"),
            str(shown),
            str(self.folder / "other.pem"),
        ]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class SlotsArea(Area):
    """A device's way to another bundle."""

    name, module = "slots", "tests.faults.slots"
    acts = ("nudge", "wish")
    controls = ("careless", "without_sync")
    patience_s = 3.0

    def points(self, act: str, found: Sequence[Point]) -> Sequence[Point]:
        if act == "nudge":
            return found
        return [point for point in found if "DIGEST.new" not in point.what and "DIGEST/" not in point.what]

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._shop = Shop(make_factory(folder / "device" / "bundle"), folder / "shop")
        write_public_set(folder / "device" / "public")
        write_private(folder / "device" / "private.npz", rows=300)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(self._shop.folder)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._offered = self._shop.good()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        super().close()

    def prepare(self, place: Path, act: str) -> list[Any]:
        for name in ("public", "private.npz"):
            (place / name).symlink_to(self.folder / "device" / name)
        bundle = place / "bundle"
        shutil.copytree(self.folder / "device" / "bundle", bundle)
        package = place / f"{self._offered.package}.fdb"
        package.symlink_to(self._shop.blobs / self._offered.package)
        url = f"http://127.0.0.1:{self._server.server_port}"
        releases = f'[releases]\nurl = "{url}"\nroot = "{self._shop.root}"\n'
        text = settings_text(1883, model__runtime="onnxruntime")
        (place / "agent.toml").write_text(f"{text}\n{releases}")
        return [str(place / "agent.toml"), json.dumps(asdict(self._offered)), act, str(place / "marks")]


_SETTLE_S = 0.05


class FederatedArea(Area):
    """A device with a broker and a server, one of each at a time."""

    _federation: Federation | None = None

    @property
    def federation(self) -> Federation:
        assert self._federation is not None
        return self._federation

    def meet(self, folder: Path, public: Path | None = None) -> Federation:
        """Return a new broker and server, in the place of those of the case before."""
        self.leave()
        self._federation = Federation(folder, public)
        return self._federation

    def leave(self) -> None:
        if self._federation is not None:
            self._federation.close()
            self._federation = None

    def close(self) -> None:
        self.leave()
        super().close()


class OutboxArea(FederatedArea):
    """What a device says and nobody receipts, until the broker has it; and a round meanwhile."""

    name, module = "outbox", "tests.faults.outbox"
    controls = ("careless", "without_sync")
    patience_s = 8.0

    def prepare(self, place: Path, act: str) -> list[Any]:
        federation = self.meet(place)
        federation.server.open(1)
        return [str(place / "state"), federation.broker.port, str(place / "marks")]

    def cases(self) -> list[Case]:
        place = self.place()
        arguments = self.prepare(place, ACT)
        with counting(self.warm, place / "log", ACT, *arguments) as fork:
            assert self._hear_all(fork, arguments[2])
            fork.wait()
        self.leave()
        return cases(ACT, few_of_each(points_of(place / "log", self.own(place)), LOOKS))

    def play(self, case: Case, function: str = ACT) -> str:
        place = self.place()
        arguments = self.prepare(place, case.act)
        try:
            with disturbed(self.warm, case.point, case.fault, function, *arguments) as fork:
                if not self._hear_all(fork, arguments[2], self.patience_s):
                    fork.kill()  # it waits for what it will hear in its next life
            return self.wrong(place, arguments)
        finally:
            self.leave()

    def between(self, fork: Fork, arguments: Sequence[Any]) -> None:
        self._hear_all(fork, arguments[2], 0.0)

    def world(self, arguments: Sequence[Any]) -> Any:
        self.federation.listen(lambda: False, lambda: True, _SETTLE_S)  # what the broker has, the server gets
        server, counted = self.federation.server, self.federation.counted
        return list(server.heard), list(server.reports), {key: list(digests) for key, digests in counted.items()}

    def go_back_to(self, world: Any, arguments: list[Any]) -> None:
        """A new server, which knows nothing but what was said by then."""
        federation = self.meet(self.place())
        heard, reports, counted = world
        federation.server.heard += heard
        federation.server.reports += reports
        federation.counted |= {key: list(digests) for key, digests in counted.items()}
        federation.server.open(1)
        if any(kind is Kind.CONTRIBUTION for _, kind in federation.counted):
            federation.server.teach(1)  # a broker keeps the consensus; the device may have a receipt, and wait for it
        arguments[1] = federation.broker.port

    def _hear_all(self, fork: Fork, seen: str, patience_s: float = PATIENCE_S) -> bool:
        """Play the round until it is reported and everything was heard; then let the device know."""
        federation = self.federation

        def is_all() -> bool:
            return len(set(federation.server.heard)) == MESSAGES and bool(federation.ended(1))

        is_heard = federation.listen(is_all, fork.is_alive, patience_s)
        if is_heard:
            Path(f"{seen}.over").touch()
        return is_heard

    def _nothing_waits(self, fork: Fork, place: Path, seen: str) -> bool:
        """Wait until the device has said all that it has to say; whether it was heard."""
        federation = self.federation

        def is_said() -> bool:
            waits = any((place / "state" / "outbox").glob("[0-9]*"))
            return len(set(federation.server.heard)) == MESSAGES or (len(set(marks(seen))) == MESSAGES and not waits)

        federation.listen(is_said, fork.is_alive)
        return federation.listen(lambda: len(set(federation.server.heard)) == MESSAGES, fork.is_alive, 2.0)

    def wrong(self, place: Path, arguments: Sequence[Any]) -> str:
        seen, server = arguments[2], self.federation.server
        kept = set(marks(seen))
        Path(f"{seen}.over").unlink(missing_ok=True)
        with self.warm.started(ACT, *arguments) as fork:
            is_heard = self._nothing_waits(fork, place, seen) and self._hear_all(fork, seen, self.patience_s)
            if is_heard:
                fork.wait()
            else:
                fork.kill()
        assert fork.ended is not None
        if lost := kept - set(server.heard):
            return f"lost that it had promised to keep: {lost}"
        if not is_heard or fork.ended.returncode:
            return f"it did not come to its end: {server.heard} {server.reports} {fork.ended}"
        return self.federation.wrong()


class DeviceArea(FederatedArea):
    """A whole device, from its start to the report of a round."""

    name, module = "whole device", "tests.faults.device"
    controls = ()

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        write_bundle(folder / "bundle")
        write_public_set(folder / "public")
        write_private(folder / "private.npz", rows=200)

    def prepare(self, place: Path, act: str) -> list[Any]:
        for name in ("bundle", "public", "private.npz"):
            (place / name).symlink_to(self.folder / name)
        federation = self.meet(place, self.folder / "public")
        quick = {"process__restart_min_s": 0.1, "process__restart_max_s": 0.3}
        (place / "agent.toml").write_text(settings_text(federation.broker.port, **quick))
        federation.server.open(1)
        return [str(place / "agent.toml")]

    def cases(self) -> list[Case]:
        place = self.place()
        arguments = self.prepare(place, ACT)
        with counting(self.warm, place / "log", ACT, *arguments) as fork:
            assert self.federation.play(1, fork.is_alive)
            fork.stop()
        self.leave()
        return cases(ACT, few_of_each(points_of(place / "log", self.own(place)), LOOKS, also_changes=True))

    def play(self, case: Case, function: str = ACT) -> str:
        place = self.place()
        arguments = self.prepare(place, case.act)
        try:
            with disturbed(self.warm, case.point, case.fault, function, *arguments) as fork:
                self.federation.play(1, fork.is_alive)
                fork.kill()
            return self.wrong(place, arguments)
        finally:
            self.leave()

    def wrong(self, place: Path, arguments: Sequence[Any]) -> str:
        federation = self.federation
        with self.warm.started(ACT, *arguments) as fork:
            is_well = federation.play(1, fork.is_alive)
            federation.server.open(2)
            is_well = is_well and federation.play(2, fork.is_alive)
            fork.stop()
        assert fork.ended is not None
        if not is_well:
            return f"it did not come to its end: {federation.server.reports} {fork.ended.errors[-3000:]}"
        if not federation.ended(2)[-1].accepted:
            return f"the next round ends in {federation.ended(2)[-1].reason}"
        return federation.wrong()


AREAS = (SlotsArea, OutboxArea, LedgerArea, EnrolmentArea, DeskArea, DeviceArea)
