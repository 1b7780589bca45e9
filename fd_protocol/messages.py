"""Every message on the wire, one frozen dataclass each; an invalid one cannot exist.

    server -> all      RoundOffer, ConsensusBlock, ServerState, Release, ProbeNotice
    device -> server   DeviceState (birth and will), Part (of a Contribution or a CompetenceMap), RoundReport
    device -> anyone   Prediction, where the device's owner wants that
    server -> device   Receipt
    both ways          Command, retained: the server asks, the device writes what became of it on the same topic

The bodies of soft labels are opaque bytes here: `fd_protocol.payload` turns them into numbers where numbers are wanted,
so that a supervisor needs no numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fd_protocol.identity import RoundId, check_digest, check_name, check_text, is_sampled, require, sha256
from fd_protocol.schema import keyed
from fd_protocol.terms import (
    MAX_CELLS,
    MAX_CLASSES,
    MAX_PROBES,
    Codec,
    PrivacyTerms,
    Sampling,
    Slice,
    TrainingTerms,
    check_codec,
    check_temperature,
)

__all__ = [
    "MAX_ARGUMENTS",
    "MAX_CELLS",
    "MAX_CLASSES",
    "MAX_CLUSTERS",
    "MAX_COMMAND_CHARACTERS",
    "MAX_MARKS",
    "MAX_NAMED",
    "MAX_PARTS",
    "MAX_PART_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PROBES",
    "MAX_PUBLIC_SETS",
    "MAX_RESULTS",
    "Codec",
    "Command",
    "CommandState",
    "CompetenceMap",
    "ConsensusBlock",
    "Contribution",
    "DeviceState",
    "Kind",
    "Part",
    "Prediction",
    "PrivacyTerms",
    "ProbeNotice",
    "PublicSetRef",
    "Receipt",
    "Release",
    "RoundOffer",
    "RoundReport",
    "Sampling",
    "ServerState",
    "Slice",
    "StagedRelease",
    "Status",
    "TrainingTerms",
    "check_codec",
    "check_temperature",
]

MAX_PART_BYTES = 60_000
"""A part's body; with its envelope it stays under 64 KiB, the smallest packet limit met in the field."""
MAX_PAYLOAD_BYTES = 4 << 20
MAX_PARTS = 128
_PART_INDICES = frozenset(range(MAX_PARTS))
MAX_BUNDLES = 256
MAX_NAMED = 256
"""Devices that an offer may name: 16 kB of it."""
MAX_CLUSTERS = 16
"""Of a consensus that is one for each cluster of devices."""
MAX_METRICS = 64
MAX_CAPABILITIES = 64
MAX_PUBLIC_SETS = 8
MAX_MARKS, MARK_BYTES = 256, 8
"""Devices that a staged release names, and what it has of each."""
"""Public sets that a device says it has."""
MAX_ARGUMENTS = 16
MAX_RESULTS = 64
MAX_COMMAND_CHARACTERS = 8192
"""Of arguments, result and reason of a command, so that it fits a packet in any script: 4 bytes a character at most."""


class Kind(str, Enum):
    """What a payload is."""

    CONTRIBUTION = "contribution"
    COMPETENCE = "competence"


class Status(str, Enum):
    """The server's word on a payload. Only `stored` and `duplicate` mean that it is safe on the server's disk."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class RoundOffer:
    """What a round asks for. Retained; a device counts `remaining_s` monotonically from its receipt."""

    round: RoundId = keyed(1)
    remaining_s: int = keyed(2)
    deadline_utc_s: int = keyed(3)
    quorum: int = keyed(4)
    sampling: Sampling = keyed(5)
    method: str = keyed(6)
    temperature: float = keyed(7)
    codec: Codec = keyed(8)
    slice: Slice = keyed(9)
    task: bytes = keyed(10)
    """Digest of classes and input contract: a device with another task does not join."""
    byte_budget: int = keyed(11)
    """Most payload bytes that a device may send this round."""
    training: TrainingTerms = keyed(12)
    top_k: int = keyed(13, default=0)
    shards: int = keyed(14, default=1)
    competence: bool = keyed(15, default=False)
    """Whether devices are asked for a competence map (once per public set and private epoch)."""
    bundles: tuple[bytes, ...] = keyed(16, default=())
    """Digests of the bundles that may join; empty = any of the task."""
    devices: tuple[str, ...] = keyed(17, default=())
    """Names of the devices that may contribute, of those that the sampling draws; empty = all of them."""
    privacy: PrivacyTerms = keyed(18, default=PrivacyTerms())
    """What the soft labels may tell of a private row; a device's own terms may be stricter."""

    def __post_init__(self) -> None:
        check_digest(self.task, "task")
        check_name(self.method, "method")
        require(0 < self.remaining_s <= 366 * 86_400, "remaining_s lies within a year")
        require(0 <= self.deadline_utc_s < 1 << 40, "deadline_utc_s is seconds since 1970")
        require(1 <= self.quorum < 1 << 31, "a quorum is at least 1")
        check_temperature(self.temperature)
        require(0 < self.byte_budget <= MAX_PAYLOAD_BYTES, "a byte budget lies in 1..4 MiB")
        require(1 <= self.shards <= 4096, "shards lie in 1..4096")
        check_codec(self.codec, self.slice.classes, self.top_k)
        require(len(self.bundles) <= MAX_BUNDLES, "an offer names at most 256 bundles")
        for digest in self.bundles:
            check_digest(digest, "bundle")
        require(len(self.devices) <= MAX_NAMED, "an offer names at most 256 devices")
        for device in self.devices:
            check_name(device, "device")

    def invites(self, device: str) -> bool:
        """Whether it asks `device`, as far as names and sampling go."""
        if self.devices and device not in self.devices:
            return False
        return is_sampled(device, self.sampling.seed, self.sampling.fraction)


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a payload. Self-describing: a payload may arrive in any order, doubled, over several sessions."""

    round: RoundId = keyed(1)
    kind: Kind = keyed(2)
    payload_sha256: bytes = keyed(3)
    total_bytes: int = keyed(4)
    body: bytes = keyed(5)
    index: int = keyed(6, default=0)
    count: int = keyed(7, default=1)

    def __post_init__(self) -> None:
        check_digest(self.payload_sha256, "payload_sha256")
        require(1 <= self.count <= MAX_PARTS and 0 <= self.index < self.count, "a part index lies below its count")
        require(self.count <= self.total_bytes <= MAX_PAYLOAD_BYTES, "a payload has 1 byte a part to 4 MiB")
        require(0 < len(self.body) <= MAX_PART_BYTES, "a part has 1 to 60000 bytes")
        require(self.count > 1 or len(self.body) == self.total_bytes, "a single part is the payload")


@dataclass(frozen=True, slots=True)
class Contribution:
    """A device's soft labels for a slice, quantised at the offered temperature."""

    slice: Slice = keyed(1)
    temperature: float = keyed(2)
    codec: Codec = keyed(3)
    body: bytes = keyed(4)
    """Deflated codes; see `fd_protocol.payload`."""
    base: bytes = keyed(5, default=b"")
    """SHA-256 of the payload that the codes are a difference to; empty = none."""
    top_k: int = keyed(6, default=0)

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        check_codec(self.codec, self.slice.classes, self.top_k)
        require(bool(self.body), "a contribution has a body")
        if self.base:
            check_digest(self.base, "base")


@dataclass(frozen=True, slots=True)
class CompetenceMap:
    """2-bit distances of every probe to the device's nearest cluster of private data (DESIGN section 6)."""

    public_set: bytes = keyed(1)
    count: int = keyed(2)
    body: bytes = keyed(3)
    """Deflated codes, four probes a byte; see `fd_protocol.competence`."""
    private_epoch: int = keyed(4, default=0)

    def __post_init__(self) -> None:
        check_digest(self.public_set, "public_set")
        require(0 < self.count <= MAX_PROBES, "a map covers 1 to 2^20 probes")
        require(bool(self.body), "a map has a body")
        require(0 <= self.private_epoch < 1 << 63, "a private epoch fits 63 bits")


@dataclass(frozen=True, slots=True)
class Receipt:
    """The server's word on one payload, whatever its parts. A PUBACK is never taken for it."""

    round: RoundId = keyed(1)
    kind: Kind = keyed(2)
    payload_sha256: bytes = keyed(3)
    status: Status = keyed(4)
    reason: str = keyed(5, default="")
    missing: tuple[int, ...] = keyed(6, default=())

    def __post_init__(self) -> None:
        check_digest(self.payload_sha256, "payload_sha256")
        check_text(self.reason, "reason")
        require((self.status is Status.REFUSED) == bool(self.reason), "a refusal, and nothing else, has a reason")
        require((self.status is Status.MISSING) == bool(self.missing), "missing parts go with status missing")
        if self.missing:
            require(set(self.missing) <= _PART_INDICES, "a missing part has an index below 128")
            require(list(self.missing) == sorted(set(self.missing)), "missing parts stand once and in order")


@dataclass(frozen=True, slots=True)
class ConsensusBlock:
    """The consensus of a fixed block of probes. Retained under `consensus/{block}`, overwritten each round.

    `consensus_sha256` is the SHA-256 over the concatenated bodies of all `blocks`, in order: a mixture of two rounds
    cannot pass for either. Where like-minded devices have a consensus of their own, `body` is what all together say,
    for whoever knows no clusters.
    """

    round: RoundId = keyed(1)
    consensus_sha256: bytes = keyed(2)
    block: int = keyed(3)
    blocks: int = keyed(4)
    slice: Slice = keyed(5)
    """The probes of this block alone."""
    temperature: float = keyed(6)
    codec: Codec = keyed(7)
    body: bytes = keyed(8)
    voices: tuple[int, ...] = keyed(9, default=())
    """Of a block over labels (`fd_protocol.label_set`): the weight behind each row, 4096 a device; else empty."""
    clusters: tuple[bytes, ...] = keyed(10, default=())
    """What each cluster of devices says of the same probes, coded as `body` is; none = there are no clusters."""
    clusters_sha256: bytes = keyed(11, default=b"")
    """SHA-256 over the `clusters` of all blocks that were made together, block by block. Blocks that stay from an
    earlier round keep theirs: cluster 1 of one round has nothing to do with cluster 1 of another."""

    def __post_init__(self) -> None:
        check_digest(self.consensus_sha256, "consensus_sha256")
        require(0 <= self.block < self.blocks <= MAX_PARTS, "a block index lies below its count")
        check_temperature(self.temperature)
        check_codec(self.codec, self.slice.classes, 0)
        require(0 < len(self.body) <= MAX_PART_BYTES, "a block has 1 to 60000 bytes")
        require(len(self.voices) in (0, self.slice.count), "a block tells the voices of each row, or of none")
        require(all(0 <= weight < 1 << 31 for weight in self.voices), "the voices of a row weigh 0 to 2^31")
        self._check_clusters()

    def _check_clusters(self) -> None:
        require(len(self.clusters) != 1, "one cluster is no cluster")
        require(len(self.clusters) <= MAX_CLUSTERS and all(self.clusters), "at most 16 clusters, each with a body")
        require(bool(self.clusters) == bool(self.clusters_sha256), "clusters, and nothing else, have a digest")
        if self.clusters_sha256:
            check_digest(self.clusters_sha256, "clusters_sha256")
        size = len(self.body) + sum(map(len, self.clusters))
        require(size <= MAX_PART_BYTES, "the bodies of a block have at most 60000 bytes")


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device's birth and, with `online` false, its will; both carry the same `boot` counter.

    A late will of an earlier life cannot kill a new one: the higher boot counter wins.
    """

    boot: int = keyed(1)
    online: bool = keyed(2)
    agent: str = keyed(3, default="")
    bundle: bytes = keyed(4, default=b"")
    task: bytes = keyed(5, default=b"")
    family: str = keyed(6, default="")
    runtime: str = keyed(7, default="")
    capabilities: tuple[str, ...] = keyed(8, default=())
    """Codecs and features this agent understands; the server asks for nothing else."""
    problem: str = keyed(9, default="")
    """What keeps the device from taking part, one word such as `disk_full`; empty = nothing."""
    public_sets: tuple[bytes, ...] = keyed(10, default=())
    """Digests of the public sets that it has; empty = it does not say."""

    def __post_init__(self) -> None:
        require(0 <= self.boot < 1 << 63, "a boot counter fits 63 bits")
        require(len(self.capabilities) <= MAX_CAPABILITIES, "at most 64 capabilities")
        require(len(self.public_sets) <= MAX_PUBLIC_SETS, "a device says at most 8 public sets")
        for text in (self.agent, self.runtime, self.problem, *self.capabilities):
            check_text(text, "what a device says of itself")
        for digest in (*filter(None, (self.bundle, self.task)), *self.public_sets):
            check_digest(digest, "bundle, task and public set")
        if self.family:
            check_name(self.family, "family")


@dataclass(frozen=True, slots=True)
class ServerState:
    """The aggregator's presence: retained, and its will with `online` false."""

    online: bool = keyed(1)
    epoch: int = keyed(2)
    version: str = keyed(3, default="")

    def __post_init__(self) -> None:
        require(0 <= self.epoch < 1 << 63, "an epoch fits 63 bits")
        check_text(self.version, "version")


@dataclass(frozen=True, slots=True)
class StagedRelease:
    """A bundle that some devices of a family should run before the others do.

    Those are drawn by the bundle's digest, so that each wider share holds the narrower one, and another bundle begins
    with others; and those that are named, by marks that tell nothing to whoever does not know the names.
    """

    bundle: bytes = keyed(1)
    """Digest of the bundle."""
    version: str = keyed(2)
    package: bytes = keyed(3)
    """SHA-256 of the package."""
    package_bytes: int = keyed(4)
    parent: bytes = keyed(5, default=b"")
    """Digest of the bundle whose files the package leaves out; empty = it leaves none out."""
    share: float = keyed(6, default=0.0)
    """Of all devices, in 0..1; 0 = halted: those that run it stay with it, and no other begins."""
    named: tuple[bytes, ...] = keyed(7, default=())
    """Marks of devices that are among the first, whatever the share."""

    def __post_init__(self) -> None:
        for digest in filter(None, (self.bundle, self.package, self.parent)):
            check_digest(digest, "bundle, package and parent")
        check_text(self.version, "version")
        require(bool(self.bundle and self.package), "a staged release has a bundle and a package")
        require(0 < self.package_bytes < 1 << 40, "a package has 1 to 2^40 bytes")
        require(0.0 <= self.share <= 1.0, "a share lies in 0..1")
        require(len(self.named) <= MAX_MARKS, f"at most {MAX_MARKS} devices are named")
        require(all(len(mark) == MARK_BYTES for mark in self.named), f"a mark has {MARK_BYTES} bytes")

    def mark(self, device: str) -> bytes:
        """Return the mark of a device: sha256(bundle || 0 || name), its first bytes."""
        return sha256(self.bundle + b"\0" + device.encode())[:MARK_BYTES]

    def is_for(self, device: str) -> bool:
        """Whether a device is among those that should run it by now."""
        return is_sampled(device, self.bundle, self.share) or self.mark(device) in self.named


@dataclass(frozen=True, slots=True)
class Release:
    """The bundle that devices of a family should run. Retained under `release/{family}`, overwritten by the next one.

    A nudge, no delivery: it names bytes by digest and says nothing of where they are. Whether they are genuine says
    what is signed about them (`targets`), never this.
    """

    family: str = keyed(1)
    bundle: bytes = keyed(2)
    """Digest of the bundle."""
    version: str = keyed(3)
    parent: bytes = keyed(4, default=b"")
    """Digest of the bundle whose files a package of this one may leave out; empty = it leaves none out."""
    package: bytes = keyed(5, default=b"")
    """SHA-256 of the package; empty where there is none: the fleet goes back to the bundle that it was born with."""
    package_bytes: int = keyed(6, default=0)
    is_verified: bool = keyed(7, default=False)
    """Whether a paired test on labelled probes found it better than the one before; else an operator's word."""
    staged: StagedRelease | None = keyed(8, default=None)
    """What some devices should run instead. Agents that do not know of it run `bundle`. Where nothing was before, that
    is the staged one, without a package: it says nothing to those that are not among the first."""

    def __post_init__(self) -> None:
        check_name(self.family, "family")
        check_digest(self.bundle, "bundle")
        check_text(self.version, "version")
        for digest in filter(None, (self.parent, self.package)):
            check_digest(digest, "parent and package")
        require(0 <= self.package_bytes < 1 << 40, "a package has less than 2^40 bytes")
        require(bool(self.package) == bool(self.package_bytes), "a package, and nothing else, has bytes")


@dataclass(frozen=True, slots=True)
class PublicSetRef:
    """A public set by the digest of its description, which holds the digest of every file of it."""

    public_set: bytes = keyed(1)
    count: int = keyed(2)
    """Probes in it."""
    size_bytes: int = keyed(3)
    """Of its files together."""

    def __post_init__(self) -> None:
        check_digest(self.public_set, "public_set")
        require(0 < self.count <= MAX_PROBES, "a public set has 1 to 2^20 probes")
        require(0 <= self.size_bytes < 1 << 40, "a public set has less than 2^40 bytes")


@dataclass(frozen=True, slots=True)
class ProbeNotice:
    """Which public sets rounds are about. Retained under `probes`, overwritten at every change.

    A nudge, no delivery: it names bytes by digest and says nothing of where they are. A device that lacks one of them
    takes no part in its rounds, and goes on learning from the others.
    """

    current: PublicSetRef = keyed(1)
    coming: tuple[PublicSetRef, ...] = keyed(2, default=())
    """Sets that may take its place, and may be tried in a round before they do; at most 8 with it."""

    def __post_init__(self) -> None:
        require(len(self.coming) < MAX_PUBLIC_SETS, "a notice names at most 8 public sets")


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a device says after a round: numbers only, nothing of a sample."""

    round: RoundId = keyed(1)
    consensus_sha256: bytes = keyed(2)
    """What was trained on; 32 zero bytes: the round ended for this device before its consensus."""
    accepted: bool = keyed(3)
    """False: the guard rolled the training back, or it failed; then `reason` says why."""
    reason: str = keyed(4, default="")
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 5})

    def __post_init__(self) -> None:
        check_digest(self.consensus_sha256, "consensus_sha256")
        check_text(self.reason, "reason")
        require(len(self.metrics) <= MAX_METRICS, "at most 64 metrics")
        for name, value in self.metrics.items():
            check_text(name, "metric")
            require(math.isfinite(value), f"metric {name} is not finite")


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a device's model says of a live sample, where its owner wants that said. Nothing of the sample is in it."""

    sample_id: str = keyed(1)
    """Opaque: the same for the same sample of a device, and says nothing of it."""
    label: str = keyed(2)
    """Name of the likeliest class."""
    confidence: float = keyed(3)
    """Its probability, with the device's own correction by the class prior where that is on."""

    def __post_init__(self) -> None:
        require(bool(self.sample_id) and bool(self.label), "a prediction names a sample and a class")
        check_text(self.sample_id, "sample_id")
        check_text(self.label, "label")
        require(0.0 <= self.confidence <= 1.0, "a confidence lies in [0, 1]")


class CommandState(str, Enum):
    """Where a command stands: asked for, being done, or at one of its two ends."""

    INIT = "init"
    EXECUTING = "executing"
    SUCCESSFUL = "successful"
    FAILED = "failed"

    @property
    def has_ended(self) -> bool:
        return self in (CommandState.SUCCESSFUL, CommandState.FAILED)


BUNDLE_ID_CHARACTERS = 32
"""Of a bundle's digest in hex, in the id of what a device tells of its way to it (`topics.MODEL`)."""


@dataclass(frozen=True, slots=True)
class Command:
    """An order to one device as a state machine, retained under `cmd/{command}` and overwritten at every step.

        server: INIT --> device: EXECUTING [step] --> SUCCESSFUL (result) | FAILED (reason)

    The last state stays until the next command of this name: there is nothing to delete. A device does an id once,
    however often it hears of it. What it does not know fails as `unsupported`.
    """

    id: str = keyed(1)
    command: str = keyed(2)
    """What to do; also the last level of the topic."""
    state: CommandState = keyed(3)
    expires_utc_s: int = keyed(4)
    """A device that hears of it, or gets to it, later does not begin it."""
    arguments: Mapping[str, str] = field(default_factory=dict, metadata={"key": 5})
    step: str = keyed(6, default="")
    """What of it is being done, one word such as `download` or `health`; empty where it has no parts."""
    reason: str = keyed(7, default="")
    """Why it failed: a word of `a-z_`, perhaps a colon and more."""
    result: Mapping[str, str] = field(default_factory=dict, metadata={"key": 8})
    """What came of it: numbers and words, nothing of a sample."""

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_name(self.command, "command")
        require(0 < self.expires_utc_s < 1 << 40, "expires_utc_s is seconds since 1970")
        require(len(self.arguments) <= MAX_ARGUMENTS, f"a command has at most {MAX_ARGUMENTS} arguments")
        require(len(self.result) <= MAX_RESULTS, f"a result has at most {MAX_RESULTS} entries")
        texts = [text for table in (self.arguments, self.result) for pair in table.items() for text in pair]
        texts.append(self.reason)
        for text in texts:
            check_text(text, "what a command says")
        require(sum(map(len, texts)) <= MAX_COMMAND_CHARACTERS, "a command says at most 8192 characters")
        require("" not in self.arguments and "" not in self.result, "arguments and results have names")
        if self.step:
            check_name(self.step, "step")
        require(not self.step or self.state is CommandState.EXECUTING, "a step goes with state executing")
        require((self.state is CommandState.FAILED) == bool(self.reason), "a failure, and nothing else, has a reason")
        require(not self.result or self.state.has_ended, "a result goes with an end")
