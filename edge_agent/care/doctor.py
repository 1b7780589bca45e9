"""`edge-agent doctor`: is everything there that a device needs? A verdict a line, and what to do about it.

It changes nothing and may be asked while the device runs. Then it only knocks at the broker: a second connection by the
device's certificate would end the first. A device that is stopped tries its rights too: it says once more that it is
offline, which is true.
"""

from __future__ import annotations

import os
import platform
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from queue import Empty

from edge_agent import presence
from edge_agent.care import host
from edge_agent.care.look import Look, look, unseen
from edge_agent.configuration import load_settings
from edge_agent.enrolment.files import IdentityFiles
from edge_agent.enrolment.renewal import Life, is_late, renew_at
from fd_protocol import codec
from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Role
from fd_protocol.topics import Topics
from fd_runtime.artifacts import Bundle, load_bundle, load_public_set
from fd_runtime.config import EX_CONFIG, EX_DATAERR, EX_NOPERM, EX_TEMPFAIL, EX_UNAVAILABLE, exit_code_for
from fd_runtime.findings import FaultError, Finding, Verdict, examine_one
from fd_runtime.links.certificate import outlook
from fd_runtime.links.knocking import knock
from fd_runtime.links.link import LinkDown, LinkSettings, LinkUp, Published, PublishRefused
from fd_runtime.links.mqtt_link import MqttLink
from fd_runtime.storage.store import Store

_LEAST_FREE_MB, _ENOUGH_FREE_MB = 32, 256
_LEAST_MEMORY_MB = 100
"""What the worker takes at its height, and a little more."""
_WARM_C, _HOT_C = 75.0, 85.0
"""A Raspberry Pi slows down from 80 on, a Jetson from 85 on."""
_WARN_BEFORE = timedelta(days=21)
_PATIENCE_S = 8.0
_BEGIN_ANEW = "`edge-agent wipe` begins anew: the server has the contributions, what was learned here is lost"
_MODULES = {
    "onnxruntime": "onnxruntime",
    "litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "numpy": "numpy",
}
_EXTRAS = {"onnxruntime": "agent", "litert": "agent-tflite", "tflite-runtime": "agent-tflite-runtime", "numpy": "agent"}


def examine(find: Callable[[], Path], now: datetime, *, offline: bool = False) -> Iterator[Finding]:
    """Yield what was found about a device; little where its settings cannot be read.

    Args:
        find: returns where the settings are, or raises why nobody knows.
        now: what this machine's clock says.
        offline: do not go to the broker.
    """
    yield examine_one("system", _system, "install a 64-bit system: no runtime has wheels for a 32-bit one")
    yield examine_one(
        "clock", lambda: _clock(now), "set it: `timedatectl set-ntp true`; certificates and deadlines need it"
    )
    yield examine_one("heat", _heat, "give it air, or let it train at night")
    yield examine_one("memory", _memory, "end what else runs here, or run a smaller bundle")
    remedy = "`edge-agent init FOLDER` writes a settings file with all keys explained; `config set` changes one"
    settings = examine_one("settings", lambda: _settings(find()), remedy)
    yield settings
    if settings.verdict is Verdict.FAILED:
        return
    patient, failed = _patient(find(), now), set[str]()
    for check, needed, examination, remedy in patient.examinations(offline=offline):
        if needed in failed:
            yield Finding(check, Verdict.WARNING, f"not looked at: {needed} comes first")
            continue
        finding = examine_one(check, examination, remedy)
        failed |= {check} if finding.verdict is Verdict.FAILED else set()
        yield finding


def _system() -> Finding:
    bits = 8 * struct.calcsize("P")
    found = f"Python {platform.python_version()}, {platform.machine()}, {bits} bit"
    if bits < 64:
        return Finding(
            "system", Verdict.WARNING, found, "install a 64-bit system; onnxruntime has no wheels for this one"
        )
    return Finding("system", Verdict.OK, found)


def _clock(now: datetime) -> Finding:
    found = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now.timestamp() < host.FIRST_YEAR_UTC_S:
        raise FaultError(f"{found}: it was never set", EX_TEMPFAIL)
    return Finding("clock", Verdict.OK, found)


def _heat() -> Finding:
    heat = host.temperature_c()
    if heat is None:
        return Finding("heat", Verdict.OK, "this system does not tell")
    found = f"{heat:.0f} degrees C"
    if heat >= _HOT_C:
        raise FaultError(f"{found}: it slows itself down", EX_TEMPFAIL)
    if heat >= _WARM_C:
        return Finding("heat", Verdict.WARNING, found, "close to where it slows itself down: give it air")
    return Finding("heat", Verdict.OK, found)


def _memory() -> Finding:
    free, total = host.memory_mb("MemAvailable"), host.memory_mb("MemTotal")
    if free is None or total is None:
        return Finding("memory", Verdict.OK, "this system does not tell")
    found = f"{free:,.0f} of {total:,.0f} MiB can be had"
    if free < _LEAST_MEMORY_MB:
        return Finding("memory", Verdict.WARNING, found, "end what else runs here, or the kernel will end the worker")
    return Finding("memory", Verdict.OK, found)


def _settings(path: Path) -> Finding:
    device = load_settings(path).device
    return Finding("settings", Verdict.OK, f"{path}: device {device.id} of federation {device.federation}")


def _patient(path: Path, now: datetime) -> _Patient:
    """Return what there is to examine; a memory that cannot be read is one of the things to tell."""
    try:
        return _Patient(look(path), now)
    except (FedistillError, OSError) as error:
        return _Patient(unseen(path), now, error)


@dataclass(frozen=True, slots=True)
class _Patient:
    """A device whose settings can be read. Each look returns a finding or raises what failed."""

    seen: Look
    now: datetime
    fault: Exception | None = None
    """Why the memory cannot be read."""

    def examinations(self, *, offline: bool) -> Iterator[tuple[str, str, Callable[[], Finding], str]]:
        """Yield name, name of the one that must not have failed, look and remedy."""
        runtime = self.seen.settings.model.runtime
        yield "disk", "", self.disk, "make room; the device waits meanwhile, it loses nothing"
        yield "state", "", self.state, "give the folder to the user that the device runs as: `chown`"
        yield "device", "", self.device, "see its log: `journalctl -u edge-agent`"
        yield "runtime", "", self.runtime, f"pip install 'fedistill[{_EXTRAS[runtime]}]'"
        yield "model", "runtime", self.model, "copy the bundle that `model-export build` wrote to model.bundle"
        yield "probes", "model", self.probes, "copy the federation's public set to model.public_set"
        yield "data", "model", self.data, "data.private names an npz file of x and y; see [data]"
        if self.seen.settings.tls is not None:
            yield "certificate", "", self.certificate, "ask the operator: `broker-server ca sign`, or a token to enrol"
        if self.seen.settings.releases.root is not None:
            yield "releases", "", self.releases, "releases.root is the `1.root.json` of whoever signs: docs/updates.md"
        needed = "certificate" if self.seen.settings.identity is not None else ""
        if not offline:
            yield (
                "broker",
                needed,
                self.broker,
                "is it running, at this host and port, and does a firewall let us through?",
            )
            yield "rights", "broker", self.rights, "the operator's `broker-server mosquitto` writes the broker's rights"

    def disk(self) -> Finding:
        folder = self.seen.settings.state.folder
        free_mb = host.free_disk_mb(folder)
        found = f"{free_mb:,.0f} MiB free at {folder}"
        if free_mb < _LEAST_FREE_MB:
            raise FaultError(found, EX_TEMPFAIL)
        if free_mb < _ENOUGH_FREE_MB:
            return Finding("disk", Verdict.WARNING, found, "little room: an update of the model needs as much again")
        return Finding("disk", Verdict.OK, found)

    def state(self) -> Finding:
        folder = self.seen.settings.state.folder
        if self.fault is not None:
            is_damaged = folder.is_dir() and os.access(folder, os.W_OK)
            raise FaultError(str(self.fault), exit_code_for(self.fault), _BEGIN_ANEW if is_damaged else "")
        if not folder.exists():
            existing = next(one for one in folder.absolute().parents if one.is_dir())
            if not os.access(existing, os.W_OK):
                raise FaultError(f"{folder} is missing, and {existing} cannot be written", EX_NOPERM)
            return Finding("state", Verdict.OK, f"{folder} is made at the first start")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
        if not self.seen.has_run:
            return Finding("state", Verdict.OK, f"{folder} can be written; no memory yet")
        with Store.view(self.seen.settings.state.store) as store, store.moment():
            faults = store.faults()
        if faults:
            raise FaultError("; ".join(faults[:3]), EX_DATAERR, _BEGIN_ANEW)
        changed = f"; the server has set {', '.join(self.seen.remote.values)}" if self.seen.remote.values else ""
        found = f"{folder} can be written, the memory is sound, {self.seen.boot} starts{changed}"
        return Finding("state", Verdict.OK, found)

    def device(self) -> Finding:
        if not self.seen.is_running:
            return Finding("device", Verdict.OK, "not running: `edge-agent run`")
        if complaints := self.seen.complaints:
            found = f"running, but {'; '.join(complaints)}"
            return Finding("device", Verdict.WARNING, found, "the lines below say why")
        return Finding("device", Verdict.OK, f"running and well, phase {self.seen.state.phase.value}")

    def runtime(self) -> Finding:
        name = self.seen.settings.model.runtime
        module = import_module(_MODULES[name])
        return Finding("runtime", Verdict.OK, f"{name} {getattr(module, '__version__', '')}".rstrip())

    def model(self) -> Finding:
        """Every digest, the runtime, and the answers that it gave where it was built."""
        from fd_runtime.models import golden  # noqa: PLC0415 - brings numpy

        model, bundle = self.seen.settings.model, self._bundle()
        opened = bundle.open(model.runtime, threads=model.threads)
        found = f"bundle {bundle.manifest.name} {bundle.manifest.version} on {model.runtime}"
        if Role.GOLDEN not in bundle.manifest.files:
            return Finding(
                "model", Verdict.WARNING, f"{found}, without golden vectors", "build it with a newer model-export"
            )
        golden.check(opened, golden.Golden.from_bytes(bundle.read(Role.GOLDEN), bundle.manifest.task))
        return Finding("model", Verdict.OK, f"{found} answers and learns as where it was built")

    def probes(self) -> Finding:
        folder = self.seen.settings.model.public_set
        if folder is None:
            return Finding("probes", Verdict.OK, "none: for a federation of method per-label alone")
        public = load_public_set(folder)
        if public.spec.task_sha256 != self._bundle().manifest.task.digest.hex():
            raise FaultError(f"{folder} was made for another task than the bundle", EX_CONFIG)
        return Finding("probes", Verdict.OK, f"{public.spec.count} of {folder}")

    def data(self) -> Finding:
        private, task = self.seen.settings.data.private, self._bundle().manifest.task
        if private is None:
            remedy = "without data of its own it only learns from the others: see [data]"
            return Finding("data", Verdict.WARNING, "no private rows", remedy)
        from edge_agent.private.data import load_private_rows  # noqa: PLC0415 - brings numpy

        rows = load_private_rows(private, task.sample_shape, len(task.classes))
        return Finding("data", Verdict.OK, f"{len(rows)} labelled rows in {private}")

    def certificate(self) -> Finding:
        tls, device, files = self.seen.settings.tls, self.seen.settings.device.id, self.seen.settings.identity
        assert tls is not None
        if files is not None and files.life() is None:
            return self._not_enrolled(files)
        own, authority = (outlook(path.read_text(encoding="ascii")) for path in (tls.certificate, tls.ca))
        if own.name != device:
            raise FaultError(f"it names {own.name!r}, the settings say device.id = {device!r}", EX_CONFIG)
        if tls.key.stat().st_mode & 0o077:
            remedy = f"chmod 600 {tls.key}: others on this machine can read the device's private key"
            return Finding("certificate", Verdict.WARNING, f"{tls.key} is open to others", remedy)
        for what, one in (("it", own), ("its authority", authority)):
            if one.begin > self.now:
                raise FaultError(f"{what} begins {one.begin:%Y-%m-%d}: the clock?", EX_CONFIG)
            if one.end <= self.now:
                raise FaultError(f"{what} ended {one.end:%Y-%m-%d}", EX_CONFIG)
        end = min(own.end, authority.end)
        found = f"of {own.name}, good until {end:%Y-%m-%d}"
        if files is not None:
            if is_late(Life(own.begin, own.end), self.now):
                remedy = "it should have renewed itself: `edge-agent enrol --renew` says why it does not"
                return Finding("certificate", Verdict.WARNING, found, remedy)
            renewal = renew_at(Life(own.begin, own.end), device)
            return Finding("certificate", Verdict.OK, f"{found}, renewed from {renewal:%Y-%m-%d} on")
        if end - self.now < _WARN_BEFORE:
            return Finding("certificate", Verdict.WARNING, found, "renew it soon: `broker-server ca sign`")
        return Finding("certificate", Verdict.OK, found)

    def _not_enrolled(self, files: IdentityFiles) -> Finding:
        if files.new_token():
            remedy = "`edge-agent enrol` says what becomes of it; a running device goes on trying"
            return Finding("certificate", Verdict.WARNING, "not enrolled yet; a token is there", remedy)
        raise FaultError(f"not enrolled, and no new token in {files.token}", EX_CONFIG)

    def releases(self) -> Finding:
        """Whether the root that trust begins with is one; who is asked beyond it, the device does when it runs."""
        from fd_runtime.tuf.documents import believed_root  # noqa: PLC0415 - few devices follow releases

        root = self.seen.settings.releases.root
        assert root is not None
        until = believed_root(root)
        found = f"by root {until.version}, which ends {until.end:%Y-%m-%d}"
        if until.end <= self.now:
            remedy = "it follows later roots by itself, if it has heard of one in time; else bring it a new root.json"
            return Finding("releases", Verdict.WARNING, found, remedy)
        return Finding("releases", Verdict.OK, found)

    def broker(self) -> Finding:
        broker, tls = self.seen.settings.broker, self.seen.settings.tls
        where = f"{broker.host}:{broker.port}"
        try:
            answer = knock(broker.host, broker.port, tls)
        except OSError as error:
            raise FaultError(f"{where}: {error.strerror or error}", EX_UNAVAILABLE) from error
        verified = ", its certificate is verified" if tls is not None else ", without TLS: on this machine alone"
        return Finding("broker", Verdict.OK, f"{where} answers, {answer}{verified}")

    def rights(self) -> Finding:
        """May it speak? By saying what is true anyway, and only where no second connection would end a first one."""
        if self.seen.is_running:
            return Finding(
                "rights", Verdict.OK, "not tried: the device is running, a second connection would end its first"
            )
        broker, device, settings_tls = self.seen.settings.broker, self.seen.settings.device, self.seen.settings.tls
        topic = Topics(device.federation).state(device.id)
        settings = LinkSettings(
            device.id, host=broker.host, port=broker.port, username=broker.username, tls=settings_tls, manual_ack=True
        )
        link = MqttLink(settings)
        try:
            _connect(link)
            if not self.seen.has_run:
                return Finding("rights", Verdict.OK, "it is let in")
            token = link.publish(topic, codec.encode(presence.will(self.seen.boot)), retain=True)
            refusal = _outcome(link, token)
        finally:
            link.close()
        if refusal:
            raise FaultError(f"it is let in, but may not write {topic}: {refusal}", EX_NOPERM)
        return Finding("rights", Verdict.OK, f"it is let in, and may write {topic}")

    def _bundle(self) -> Bundle:
        return load_bundle(self.seen.settings.model.bundle)


def _connect(link: MqttLink) -> None:
    """Raises: FaultError: the broker does not take us in."""
    end_s = time.monotonic() + _PATIENCE_S
    why = "no answer"
    while time.monotonic() < end_s:
        try:
            event = link.events.get(timeout=max(0.0, end_s - time.monotonic()))
        except Empty:
            break
        if isinstance(event, LinkUp):
            return
        if isinstance(event, LinkDown):
            why = event.reason
            break
    raise FaultError(why, EX_UNAVAILABLE)


def _outcome(link: MqttLink, token: int) -> str:
    """Return why the broker refuses a message; empty: it has it."""
    end_s = time.monotonic() + _PATIENCE_S
    while (left_s := end_s - time.monotonic()) > 0:
        try:
            event = link.events.get(timeout=left_s)
        except Empty:
            break
        match event:
            case Published(done) if done == token:
                return ""
            case PublishRefused(done, reason) if done == token:
                return reason
            case LinkDown(reason):  # Mosquitto 2.0.11 hangs up on what it denies
                return reason
    return "no answer"


def utc_now() -> datetime:
    return datetime.now(timezone.utc)


def first_failure(findings: list[Finding]) -> int:
    """Return the exit code of the first failure; 0: there is none."""
    return next((one.exit_code for one in findings if one.exit_code), 0)
