"""`broker-server doctor`: is everything there that a server needs? A verdict a line, and what to do about it.

It changes nothing and may be asked while the server runs: the database is read, and at the broker it knocks without a
word of MQTT, for a second connection by the server's certificate would end the first.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from broker_server.commands.commanding import Subparsers, tell, utc, with_config
from broker_server.config import Config
from broker_server.core.federation import Federation, named_blobs
from broker_server.equipment import Workshop, load_equipment, plain_kits
from broker_server.identity.certificates import next_update, outlook
from broker_server.journal import Journal
from broker_server.records.chronicle import Chronicle
from broker_server.sites.vouching import endings, needed_trust
from fd_runtime.config import EX_CONFIG, EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, load_toml
from fd_runtime.findings import FaultError, Finding, Verdict, examine_one
from fd_runtime.links.knocking import knock
from fd_runtime.pages import Section
from fd_runtime.starting import FolderInUseError, exclusive
from fd_runtime.storage.store import Store

_MIB = 1 << 20
_LEAST_FREE_BYTES, _ENOUGH_FREE_BYTES = 64 * _MIB, 512 * _MIB
_WARN_BEFORE = timedelta(days=21)
_ISSUING_WARN_BEFORE = timedelta(days=60)
"""Certificates of devices get shorter once it has less to live than they would."""
_CRL_WARN_BEFORE = timedelta(days=7)
_FIRST_YEAR = 2025
"""No clock that was ever set says less."""
_SLACK_MS = 60_000
"""A server that runs writes while we look."""


def add_doctor_command(subparsers: Subparsers) -> None:
    """Add `doctor`; it leaves `run(arguments) -> exit code` in the namespace."""
    parser = subparsers.add_parser("doctor", help="look whether all is there that the server needs")
    with_config(parser, _run).add_argument(
        "--crl", type=Path, help="the broker's revocation list; else [dashboard] crl"
    )


def _run(arguments: argparse.Namespace) -> int:
    findings = tuple(examine(arguments.config, arguments.crl, datetime.now(timezone.utc)))
    rows = tuple((one.check, one.verdict.value, one.found, one.remedy) for one in findings)
    failed = frozenset(one.check for one in findings if one.verdict is Verdict.FAILED)
    section = Section("", ("check", "verdict", "found", "remedy"), rows, highlighted=failed)
    told = [{**asdict(one), "verdict": one.verdict.value} for one in findings]
    tell(arguments, told, f"A look at {arguments.config}", [section])
    return next((one.exit_code for one in findings if one.exit_code), 0)


def examine(path: Path, crl: Path | None, now: datetime) -> Iterator[Finding]:
    """Yield what was found about the server of the settings file at `path`; nothing more where that cannot be read."""
    settings = examine_one(
        "settings", lambda: _settings(path), "`broker-server init` elsewhere writes all keys explained"
    )
    yield settings
    if settings.verdict is Verdict.FAILED:
        return
    config = load_toml(path, Config)
    patient = _Patient(path, config, crl or config.crl or path.parent / "pki" / "crl.pem", now)
    yield examine_one("artifacts", patient.artifacts, "`model-export verify` tells a damaged bundle; copy it again")
    probes = "copy state/probes from where the server ran before, or `probes stage` it again"
    yield examine_one("probes", patient.probes, probes)
    yield examine_one("clock", patient.clock, "set the clock: `timedatectl set-ntp true`")
    yield examine_one("disk", patient.disk, "make room; the server waits meanwhile, it loses nothing")
    yield examine_one("database", patient.database, "stop the server and bring back a backup: `broker-server restore`")
    yield examine_one("server", patient.server, "give the folder to the user that the server runs as")
    yield examine_one("broker", patient.broker, "is it running, at this host and port? `broker-server mosquitto` helps")
    yield examine_one("certificate", patient.certificate, "`broker-server ca sign`, then start the server again")
    if config.state.signing_key.exists():
        yield examine_one("signing", patient.signing, "docs/updates.md: who signs what, and when it ends")
    yield examine_one("revocations", patient.revocations, "`broker-server ca crl`, then SIGHUP to the broker")
    if config.enrolment.authority is not None:
        yield examine_one("authority", patient.authority, "`broker-server ca init`, or copy the folder of before")


def _settings(path: Path) -> Finding:
    config = load_toml(path, Config)
    return Finding("settings", Verdict.OK, f"federation {config.federation}, method {config.method.name}")


@dataclass(frozen=True, slots=True)
class _Patient:
    """A server's surroundings. Each look returns a finding or raises what failed."""

    path: Path
    config: Config
    crl: Path
    now: datetime

    def artifacts(self) -> Finding:
        equipment = load_equipment(self.path)
        student = "with a student" if Workshop(equipment).first().student is not None else "without a student"
        found = f"bundle {equipment.bundle.manifest.name}, {equipment.probes.count} probes, {student}"
        if not equipment.trust_canaries.probes:
            remedy = "an open fleet needs `artifacts.canaries` and `trust`"
            return Finding("artifacts", Verdict.WARNING, f"{found}; every device is trusted", remedy)
        return Finding("artifacts", Verdict.OK, f"{found}, {len(equipment.trust_canaries.probes)} canaries")

    def probes(self) -> Finding:
        database = self.config.state.store
        if not database.is_file():
            return Finding("probes", Verdict.OK, "those of the settings")
        with Store.view(database) as store:
            editions = Journal(store, self.config.federation).replay().editions
        if editions.count < 2:
            return Finding("probes", Verdict.OK, "those of the settings")
        kits = plain_kits(load_equipment(self.path))
        used = editions.known[: 2 if editions.staged else 1]
        told = [f"edition {edition.number}, {kits.of(edition).probes.count} probes" for edition in used]
        return Finding("probes", Verdict.OK, "; ".join(told))

    def clock(self) -> Finding:
        now_ms, last_ms = round(self.now.timestamp() * 1000), self._last_ms()
        found = f"{utc(now_ms)} UTC"
        if self.now.year < _FIRST_YEAR:
            raise FaultError(f"{found}: it was never set", EX_TEMPFAIL)
        if now_ms + _SLACK_MS < last_ms:
            raise FaultError(f"{found}, but the database knows of {utc(last_ms)}", EX_TEMPFAIL)
        return Finding("clock", Verdict.OK, found)

    def _last_ms(self) -> int:
        if not self.config.state.store.is_file():
            return 0
        with Store.view(self.config.state.store) as store:
            chronicle = Chronicle(store, self.config.federation)
            rounds = [max(one.opened_ms, one.ended_ms) for one in chronicle.rounds(2)]
            return max([*rounds, *(one.last_seen_ms for one in chronicle.devices())], default=0)

    def disk(self) -> Finding:
        folder = self.config.state.folder
        existing = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
        free = shutil.disk_usage(existing).free
        size = self.config.state.store.stat().st_size if self.config.state.store.is_file() else 0
        found = f"{free / _MIB:,.0f} MiB free, the database has {size / _MIB:,.1f}"
        if free < _LEAST_FREE_BYTES:
            raise FaultError(found, EX_TEMPFAIL)
        if free < max(_ENOUGH_FREE_BYTES, 2 * size):
            return Finding("disk", Verdict.WARNING, found, "make room: a backup needs as much again as the database")
        return Finding("disk", Verdict.OK, found)

    def database(self) -> Finding:
        database = self.config.state.store
        if not database.is_file():
            return Finding("database", Verdict.OK, "none yet: the server has never run")
        with Store.view(database) as store, store.moment():
            state = Journal(store, self.config.federation).replay()
            faults = [*store.faults(), *_lost(store, state)]
            strangers = store.federations() - {self.config.federation}
            schema = store.version
        if faults:
            raise FaultError("; ".join(faults[:3]), EX_DATAERR)
        if strangers:
            found = f"it holds rows of another federation: {', '.join(sorted(strangers))}"
            return Finding("database", Verdict.WARNING, found, "one folder, one federation: see [state] folder")
        found = f"sound, schema {schema}, epoch {state.epoch & 0xFFFF:04x}, round {state.number}"
        return Finding("database", Verdict.OK, found)

    def server(self) -> Finding:
        if not self.config.state.lock.is_file():
            return Finding("server", Verdict.OK, "not running")
        try:
            with exclusive(self.config.state.lock):
                return Finding("server", Verdict.OK, "not running")
        except FolderInUseError:
            return Finding("server", Verdict.OK, "running")

    def broker(self) -> Finding:
        broker = self.config.broker
        try:
            answer = knock(broker.host, broker.port, broker.tls)
        except OSError as error:
            reason = error.strerror or str(error)
            raise FaultError(f"{broker.host}:{broker.port}: {reason}", EX_UNAVAILABLE) from error
        return Finding("broker", Verdict.OK, f"{broker.host}:{broker.port} answers, {answer}")

    def certificate(self) -> Finding:
        tls = self.config.broker.tls
        if tls is None:
            return Finding("certificate", Verdict.OK, "none: the broker is on this machine, without TLS")
        name, end = outlook(tls.certificate.read_bytes())
        if name != self.config.aggregator:
            raise FaultError(f"it names {name!r}, the settings say aggregator = {self.config.aggregator!r}", EX_CONFIG)
        return self._expiring("certificate", f"of {name}", end, _WARN_BEFORE)

    def signing(self) -> Finding:
        """Whether devices believe what this server gives them, and for how long yet."""
        trust = needed_trust(self.config)
        if not trust.has_begun:
            return Finding("signing", Verdict.WARNING, "a key, and nothing signed yet", "`broker-server publish`")
        now_s = self.now.timestamp()
        until_s, ending = trust.believed_until_s(), trust.ending()
        ends = {"the word that this is the latest": until_s, "root": ending.root_s, "targets": ending.targets_s}
        for what, at_s in ends.items():
            if at_s <= now_s:
                raise FaultError(f"{what} ended {utc(round(1000 * at_s))} UTC: no device takes a release", EX_CONFIG)
        if soon := endings(trust, now_s):
            return Finding("signing", Verdict.WARNING, soon[0], "docs/updates.md")
        return Finding(
            "signing", Verdict.OK, f"believed until {utc(round(1000 * until_s))} UTC, signed again every day"
        )

    def revocations(self) -> Finding:
        if self.config.broker.tls is None:
            return Finding("revocations", Verdict.OK, "none: no TLS")
        if not self.crl.is_file():
            remedy = "name the broker's list: `dashboard.crl`, or --crl; past its end it locks out every client"
            return Finding("revocations", Verdict.WARNING, f"no list at {self.crl}", remedy)
        return self._expiring("revocations", "list", next_update(self.crl.read_bytes()), _CRL_WARN_BEFORE)

    def authority(self) -> Finding:
        authority = self.config.enrolment.known_authority
        end = outlook(authority.issuing_path.read_bytes())[1]
        found = f"the issuing certificate ends {end:%Y-%m-%d %H:%M} UTC"
        renewal = "`broker-server ca issuing`, with the root's key from its drawer"
        if end <= self.now:
            raise FaultError(f"{found}: nobody enrols or renews", EX_CONFIG, renewal)
        if authority.root_key_path.exists():
            remedy = f"move {authority.root_key_path} to offline storage: whoever has it is the fleet"
            return Finding("authority", Verdict.WARNING, f"{found}; the root's key lies beside it", remedy)
        if end - self.now < _ISSUING_WARN_BEFORE:
            return Finding("authority", Verdict.WARNING, found, renewal)
        return Finding("authority", Verdict.OK, found)

    def _expiring(self, check: str, what: str, end: datetime, warn_before: timedelta) -> Finding:
        found = f"{what} ends {end:%Y-%m-%d %H:%M} UTC"
        if end <= self.now:
            raise FaultError(f"{found}: it has ended", EX_CONFIG)
        if end - self.now < warn_before:
            remedy = (
                "renew it: `broker-server ca crl`" if check == "revocations" else "`broker-server ca sign` renews it"
            )
            return Finding(check, Verdict.WARNING, found, remedy)
        return Finding(check, Verdict.OK, found)


def _lost(store: Store, state: Federation) -> list[str]:
    """Return what the federation would ask the store for in vain."""
    return [f"blob {digest.hex()[:16]} is gone" for digest in named_blobs(state) if not store.has_blob(digest)]
