"""The only door to what a page shows: one look at the database at a time, read only, and what the files say.

`Source.look` opens a view of the database for the thread that asks and closes it again; the server may be writing
meanwhile. Where there is no database yet a look finds an empty federation.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from broker_server.core.admission import distances_in
from broker_server.core.federation import Federation
from broker_server.core.labels import StoredLabels
from broker_server.core.trust import TrustTable
from broker_server.equipment import Equipment
from broker_server.journal import Journal, Told
from broker_server.records.chronicle import Chronicle, HearingRecord
from broker_server.records.quarantine import Quarantined
from broker_server.rules.voice import WEIGHT_ONE
from broker_server.settings import Settings
from fd_protocol import codec
from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_protocol.errors import DecodeError
from fd_protocol.manifest import Manifest, Role
from fd_protocol.messages import MAX_PAYLOAD_BYTES, CompetenceMap, ConsensusBlock, Kind
from fd_protocol.payload import Codes, decode_body
from fd_protocol.quantisers import I64
from fd_runtime.starting import is_held
from fd_runtime.storage.store import MissingBlobError, Store

F32_BYTES = 4


@dataclass(frozen=True, slots=True)
class ModelSize:
    """Bytes of one model's parameters as FedAvg would send them, in float32.

    Attributes:
        name: of the bundle.
        trained_bytes: of what devices train; exact.
        whole_bytes: of the whole network: what trains, and the float backbone's file, which holds its graph too.
    """

    name: str
    trained_bytes: int
    whole_bytes: int | None

    @classmethod
    def of(cls, manifest: Manifest) -> ModelSize:
        trained = F32_BYTES * manifest.layout.size
        backbone = manifest.files.get(Role.BACKBONE_FLOAT)
        if manifest.features is None:
            return cls(manifest.name, trained, trained)
        return cls(manifest.name, trained, trained + backbone.size_bytes if backbone else None)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What does not change while the dashboard runs.

    Attributes:
        settings: of the federation.
        classes: names, in order.
        model: of the server's own bundle.
        has_trust_canaries, has_release_canaries: whether the server knows labels of some probes.
    """

    settings: Settings
    classes: tuple[str, ...]
    model: ModelSize
    has_trust_canaries: bool
    has_release_canaries: bool

    @classmethod
    def of(cls, equipment: Equipment) -> Surroundings:
        manifest, canaries = equipment.bundle.manifest, equipment.canaries
        return cls(
            equipment.config,
            manifest.task.classes,
            ModelSize.of(manifest),
            has_trust_canaries=bool(canaries.trust.probes),
            has_release_canaries=bool(canaries.release.probes),
        )


@dataclass(frozen=True, slots=True)
class Opinions:
    """What devices and consensus hold likeliest on the probes of the last consensus; see `disagreement`."""

    devices: tuple[str, ...]
    claims: I64
    consensus: I64


class Memory:
    """What the journal told when it was last looked at: of a large fleet it is long, and from look to look it grows by
    little. Shared by threads; the last one to look is remembered.
    """

    told: Told | None = None

    def follow(self, journal: Journal) -> Federation:
        """Return the state as it is now."""
        told = self.told = journal.follow(self.told)
        return told.state


@dataclass(frozen=True)
class Look:
    """What the database says now, each part read when it is first asked for."""

    store: Store
    around: Surroundings
    now_ms: int
    is_running: bool | None
    """Whether the server runs; None = cannot be told here."""
    memory: Memory

    @cached_property
    def state(self) -> Federation:
        return self.memory.follow(self._journal)

    @cached_property
    def chronicle(self) -> Chronicle:
        return Chronicle(self.store, self.around.settings.federation)

    @cached_property
    def counters(self) -> Counter[str]:
        """Counted until the last round ended."""
        return self._journal.counters()

    def quarantine(self) -> tuple[Quarantined, ...]:
        """Return the last messages that could not be read, the last first."""
        return tuple(self._journal.quarantine.kept())[::-1]

    @property
    def has_trust_canaries(self) -> bool:
        """Whether the server knows labels of probes that it asks about."""
        return self._has_canaries(in_settings=self.around.has_trust_canaries)

    @property
    def has_release_canaries(self) -> bool:
        return self._has_canaries(in_settings=self.around.has_release_canaries)

    def _has_canaries(self, *, in_settings: bool) -> bool:
        editions = self.state.editions
        if editions.current is None or editions.count < 2:
            return in_settings
        return bool(editions.current.canaries)

    @property
    def database_bytes(self) -> int:
        path = self.store.path
        files = [path, path.with_name(f"{path.name}-wal")] if path else []
        return sum(file.stat().st_size for file in files if file.is_file())

    @cached_property
    def trust(self) -> TrustTable:
        """What devices earned in the last round."""
        classes = len(self.around.classes)
        return (
            TrustTable.from_bytes(self.store.blob(self.state.trust), classes)
            if self.state.trust
            else TrustTable(classes)
        )

    def trust_of(self, device: str) -> tuple[float, ...]:
        """Return the trust in each class, 0..1; empty where nothing is known."""
        known = self.trust.by_device.get(device)
        return () if known is None else tuple((known / WEIGHT_ONE).tolist())

    def coverage_of(self, devices: Collection[str]) -> dict[str, float]:
        """Return the share of the current public set that is not far from each device's data, where it sent a map."""
        shares = {}
        for device in devices:
            distances = self._distances(device)
            if distances is not None:
                shares[device] = float((distances < FAR).mean())
        return shares

    def opinions(self, hearings: Sequence[HearingRecord], most: int) -> Opinions | None:
        """Return who said what for the last consensus: of the devices heard, the `most` that agree least.

        None: there is no consensus, or what it was made of is gone; or it is on features, which have no classes.
        """
        consensus = self.state.consensus
        if consensus is None or not consensus.blocks:  # a warm-up publishes none
            return None
        heard = [one for one in hearings if one.kind == Kind.CONTRIBUTION.value and one.agreement is not None]
        chosen = sorted(heard, key=lambda one: (one.agreement or 0.0, one.device))[:most]
        try:
            blocks = [codec.decode(self.store.blob(digest), ConsensusBlock) for digest in consensus.blocks]
            labels = {one.device: StoredLabels.from_bytes(self.store.blob(one.labels)) for one in chosen if one.labels}
        except (MissingBlobError, DecodeError):
            return None
        if blocks[0].slice.classes != len(self.around.classes):
            return None
        return _opinions(blocks, dict(sorted(labels.items())))

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.store, self.around.settings.federation)

    def _distances(self, device: str) -> U8 | None:
        rows = self.store.payloads(self.around.settings.federation, Kind.COMPETENCE.value, device)
        current = self.state.editions.current
        for row in rows:
            known = codec.decode(self.store.blob(row.content), CompetenceMap, limit=MAX_PAYLOAD_BYTES)
            if current is None or known.public_set == current.public_set:
                return distances_in(known)
        return None


@dataclass(frozen=True, slots=True)
class Source:
    """Where looks come from.

    Attributes:
        database: the server's.
        lock: that a running server holds; None = nobody can tell whether it runs.
        around: what stands still.
        clock: UTC milliseconds.
        memory: of looks before.
    """

    database: Path
    lock: Path | None
    around: Surroundings
    clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    memory: Memory = field(default_factory=Memory)

    @contextmanager
    def look(self) -> Iterator[Look]:
        """Yield a look at the federation as it is now, all of it of one moment; it belongs to this thread.

        Raises:
            StoreError: the database cannot be read.
        """
        is_running = is_held(self.lock) if self.lock else None
        with self.view() as store, store.moment():
            yield Look(store, self.around, self.clock(), is_running, self.memory)

    @contextmanager
    def view(self) -> Iterator[Store]:
        """Yield the database alone; an empty one where there is none yet."""
        if self.database.is_file():
            with Store.view(self.database) as store:
                yield store
            return
        store = Store.open(None)
        try:
            yield store
        finally:
            store.close()


def _opinions(blocks: Sequence[ConsensusBlock], labels: Mapping[str, StoredLabels]) -> Opinions | None:
    """Set devices beside the consensus on what the round asked for; the consensus may speak of more."""
    whole = np.concatenate([_likeliest(_codes_of(block)) for block in blocks])
    asked = next(iter(labels.values())).slice if labels else blocks[0].slice
    first = asked.start - blocks[0].slice.start
    consensus = whole[first : first + asked.count]
    if first < 0 or len(consensus) < asked.count:
        return None
    claims = {device: _likeliest(said.codes) for device, said in labels.items() if said.slice == asked}
    return Opinions(tuple(claims), np.array(list(claims.values()), np.int64).reshape(-1, asked.count), consensus)


def _codes_of(block: ConsensusBlock) -> Codes:
    return decode_body(block.body, block.codec, block.slice.count, block.slice.classes)


def _likeliest(codes: Codes) -> I64:
    likeliest: I64 = codes.integers().argmax(axis=1)
    return likeliest
