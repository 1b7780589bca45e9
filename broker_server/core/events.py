"""What happens to a federation (events) and what the server must bring about (effects).

Both are keyed dataclasses: events go into the journal as CBOR, effects are compared and kept in sets. Arrays are never
among them: an event names bytes by their SHA-256, the bytes lie in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from fd_protocol.errors import DecodeError
from fd_protocol.identity import RoundId, check_digest, check_name, check_text, require
from fd_protocol.manifest import check_version
from fd_protocol.messages import PublicSetRef, RoundOffer, Slice
from fd_protocol.schema import decode, encode, keyed

MAX_ARGUMENTS = 16
DEVICE_COMMAND = "device-command"
"""The order that sends a command to devices (`errands`)."""


@dataclass(frozen=True, slots=True)
class Timetable:
    """A cron expression and the time zone that it is meant in; what it says is for `timetable` to read."""

    cron: str = keyed(1)
    zone: str = keyed(2, default="UTC")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When rounds open by themselves.

    Attributes:
        pause_ms: between the end of a round and the next one, where there is no timetable.
        minimum_online: devices that must be online for a round to open; 0 = do not wait for any.
        rounds: the number of the last round; 0 = no last one.
        has_student: whether a student is trained on every consensus.
        timetable: when rounds open instead; a time that passes while a round is open is passed over.
        on_demand: rounds open by order alone.
        warm_up: whether rounds publish no consensus until one has been made.
        student_speaks: what goes out is what the student says after it has learnt the consensus.
        auto_release: a student that is found better than the current release becomes the next one.
        staging: which devices begin with a release of the student, in the words of an order (`rollouts`); none = all.
    """

    pause_ms: int = keyed(1, default=0)
    minimum_online: int = keyed(2, default=1)
    rounds: int = keyed(3, default=0)
    has_student: bool = keyed(4, default=False)
    timetable: Timetable | None = keyed(5, default=None)
    on_demand: bool = keyed(6, default=False)
    warm_up: bool = keyed(7, default=False)
    student_speaks: bool = keyed(31, default=False)
    auto_release: bool = keyed(32, default=False)
    staging: Mapping[str, str] = field(default_factory=dict, metadata={"key": 33})

    def opens_like(self, other: Schedule) -> bool:
        """Whether the next round opens by the same rule."""
        return (self.timetable, self.on_demand) == (other.timetable, other.on_demand)


class Command(str, Enum):
    """What the core obeys."""

    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    """Its argument `reason` is for people."""
    ROUND_NOW = "round-now"
    RELEASE = "release"
    WITHDRAW = "withdraw"
    """Its argument `family` is of devices whose published bundle is meant; without it: what the server's own run."""
    PUBLISH = "publish"
    """A bundle that was made elsewhere (`releases.published_by`), for some devices first or for all (`rollouts`)."""
    ROLLOUT_WIDEN = "rollout-widen"
    ROLLOUT_HALT = "rollout-halt"
    ROLLOUT_RESUME = "rollout-resume"
    """These three have an argument `family`."""
    PROBES_STAGE = "probes-stage"
    PROBES_TRIAL = "probes-trial"
    PROBES_SWITCH = "probes-switch"
    PROBES_DROP = "probes-drop"
    PROBES_ROTATE = "probes-rotate"
    """These five are for `editions`."""


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator wants done.

    Attributes:
        id: makes it happen once, however often the server finds it.
        at_ms: when it was given.
        who: gave it, and in which role; for the record.
        command: a `Command`, or one that another part of the server knows.
        arguments: of the command, by name.
    """

    id: str = keyed(1)
    at_ms: int = keyed(2)
    who: str = keyed(3)
    role: str = keyed(4)
    command: str = keyed(5)
    arguments: Mapping[str, str] = field(default_factory=dict, metadata={"key": 6})

    def __post_init__(self) -> None:
        check_name(self.id, "id")
        check_name(self.command, "command")
        require(0 <= self.at_ms < 1 << 48, "at_ms is milliseconds since 1970")
        require(len(self.arguments) <= MAX_ARGUMENTS, f"an order has at most {MAX_ARGUMENTS} arguments")
        for text in (self.who, self.role, *self.arguments, *self.arguments.values()):
            check_text(text, "what an order says")


@dataclass(frozen=True, slots=True)
class Ordered:
    """An operator's order has come to the server at `at_ms`.

    `problem` says why it cannot be obeyed whatever the state: what it names is not there, or not what it should be.
    `devices` is the number of those that a command goes to (`errands`), `deaf` of those that would not hear it.
    """

    order: Order = keyed(1)
    at_ms: int = keyed(2)
    problem: str = keyed(3, default="")
    devices: int = keyed(21, default=0)
    deaf: int = keyed(22, default=0)


@dataclass(frozen=True, slots=True)
class Edition:
    """A public set, and what the server knows in it (`editions`).

    Attributes:
        number: counts the editions of a federation.
        public_set: digest of the set.
        count: of its probes.
        canaries: digest of the canaries (`Canaries.digest`); empty = there are none.
        size_bytes: of the set's files.
        at_ms: when it was staged, or came to be current without that.
    """

    number: int = keyed(1)
    public_set: bytes = keyed(2)
    count: int = keyed(3)
    canaries: bytes = keyed(4, default=b"")
    size_bytes: int = keyed(5, default=0)
    at_ms: int = keyed(6, default=0)

    def __post_init__(self) -> None:
        PublicSetRef(self.public_set, self.count, self.size_bytes)  # refuses to exist where the numbers are wrong
        if self.canaries:
            check_digest(self.canaries, "canaries")


@dataclass(frozen=True, slots=True)
class EditionNamed:
    """The settings name the public set that rounds are about, where no order has named another."""

    edition: Edition = keyed(1)


@dataclass(frozen=True, slots=True)
class EpochBegun:
    """The database was created, or it is found to be older than what the fleet has seen."""

    epoch: int = keyed(1)
    at_ms: int = keyed(2)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The operator's schedule is another than before, from `at_ms` on."""

    schedule: Schedule = keyed(1)
    at_ms: int = keyed(2, default=0)


@dataclass(frozen=True, slots=True)
class TimeFound:
    """The first time of `timetable` after `after_ms` is `at_ms`."""

    timetable: Timetable = keyed(1)
    after_ms: int = keyed(2)
    at_ms: int = keyed(3)


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """A birth: the device lives its life number `boot`."""

    device: str = keyed(1)
    boot: int = keyed(2)
    capabilities: tuple[str, ...] = keyed(3, default=())
    public_sets: tuple[bytes, ...] = keyed(4, default=())
    """Digests of those it has; empty = it does not say."""


@dataclass(frozen=True, slots=True)
class DeviceGone:
    """A will: the device's life number `boot` ended."""

    device: str = keyed(1)
    boot: int = keyed(2)


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round about edition number `edition` begins; `invited` are the devices online that it may expect."""

    offer: RoundOffer = keyed(1)
    invited: tuple[str, ...] = keyed(2)
    at_ms: int = keyed(3)
    edition: int = keyed(4, default=0)


@dataclass(frozen=True, slots=True)
class Stored:
    """A device's payload lies in the store, checked; `sha256` is of the payload as sent, `size` its bytes."""

    device: str = keyed(1)
    sha256: bytes = keyed(2)
    size: int = keyed(3, default=0)


@dataclass(frozen=True, slots=True)
class ContributionsStored:
    """Soft labels for `round` that became durable together, in the order in which they came."""

    round: RoundId = keyed(1)
    contributions: tuple[Stored, ...] = keyed(2)


@dataclass(frozen=True, slots=True)
class Portion:
    """The consensus on one slice, as it stands (`portions`).

    Attributes:
        slice: the probes.
        temperature: of its rows.
        round: number of the round that made it.
        entropy: of its rows, mean, in nats.
        sha256: identity of all that was made of it alone; see `consensus.Joined`.
    """

    slice: Slice = keyed(1)
    temperature: float = keyed(2)
    round: int = keyed(3)
    entropy: float = keyed(4)
    sha256: bytes = keyed(5)


@dataclass(frozen=True, slots=True)
class ConsensusMade:
    """The rule has spoken.

    Attributes:
        round: whose contributions it joined.
        sha256: identity of the consensus; see `ConsensusBlock`.
        blocks: digests of the encoded `ConsensusBlock` messages, in order.
        trust: digest of the trust that devices have earned, this round included; empty = none.
        metrics: numbers for the operator: voices, coverage, entropy.
        at_ms: when.
        portions: what the consensus is put together from, where rounds ask for what is needed.
        made: identity of all that was made, where that is more than `sha256` tells: clusters have consensuses too.
    """

    round: RoundId = keyed(1)
    sha256: bytes = keyed(2)
    blocks: tuple[bytes, ...] = keyed(3)
    at_ms: int = keyed(4)
    trust: bytes = keyed(5, default=b"")
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 6})
    portions: tuple[Portion, ...] = keyed(7, default=())
    made: bytes = keyed(41, default=b"")


@dataclass(frozen=True, slots=True)
class AggregationFailed:
    """No consensus can be made of the round's contributions."""

    round: RoundId = keyed(1)
    reason: str = keyed(2)
    at_ms: int = keyed(3)


@dataclass(frozen=True, slots=True)
class StudentTrained:
    """The student has learnt the consensus of `round`, or failed to: then `weights` is empty.

    Attributes:
        weights: digest of the student's state in the store.
        metrics: loss, and accuracy on the release canaries where there are any.
        blocks: digests of the encoded blocks of what it says itself, where that is what goes out.
        is_better: the release gate found it better than what the fleet runs.
    """

    round: RoundId = keyed(1)
    weights: bytes = keyed(2, default=b"")
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 3})
    blocks: tuple[bytes, ...] = keyed(31, default=())
    is_better: bool = keyed(32, default=False)


@dataclass(frozen=True, slots=True)
class Release:
    """The student's weights as a bundle.

    Attributes:
        number: counts the releases of a federation.
        round: after which the student had these weights.
        weights: their digest.
        bundle: digest of the bundle.
        version: of the bundle, for people.
        package, package_bytes: SHA-256 and size of the package that devices are to get.
        is_verified: a paired test found it better than the one before.
        at_ms: when it was made.
        family: of the devices that it is for; empty = a server from before rollouts of the student made it: for all.
    """

    number: int = keyed(1)
    round: RoundId = keyed(2)
    weights: bytes = keyed(3)
    bundle: bytes = keyed(4)
    version: str = keyed(5)
    package: bytes = keyed(6)
    package_bytes: int = keyed(7)
    is_verified: bool = keyed(8)
    at_ms: int = keyed(9)
    family: str = keyed(10, default="")


@dataclass(frozen=True, slots=True)
class Published:
    """A bundle that an operator wants devices of a family to run.

    Attributes:
        family: theirs.
        bundle: digest of the bundle.
        version: of the bundle, for people.
        package, package_bytes: SHA-256 and size of the package that devices are to get.
        parent: digest of the bundle whose files the package leaves out; empty = it leaves none out.
        is_own: the student's bundle is of this family too.
        at_ms: when it was published.
    """

    family: str = keyed(1)
    bundle: bytes = keyed(2)
    version: str = keyed(3)
    package: bytes = keyed(4)
    package_bytes: int = keyed(5)
    parent: bytes = keyed(6, default=b"")
    is_own: bool = keyed(7, default=False)
    at_ms: int = keyed(8, default=0)

    def __post_init__(self) -> None:
        check_name(self.family, "family")
        check_version(self.version)
        for digest in filter(None, (self.bundle, self.package, self.parent)):
            check_digest(digest, "bundle, package and parent")
        require(bool(self.bundle and self.package), "what is published has a bundle and a package")
        require(0 < self.package_bytes < 1 << 40, "a package has 1 to 2^40 bytes")


@dataclass(frozen=True, slots=True)
class ReleaseMade:
    """A bundle of the candidate's weights lies on the shelf."""

    release: Release = keyed(1)


@dataclass(frozen=True, slots=True)
class ReleaseFailed:
    """No bundle can be made of the weights with this digest; `reason` is one word."""

    weights: bytes = keyed(1)
    reason: str = keyed(2)


@dataclass(frozen=True, slots=True)
class RolloutHeard:
    """So many devices of a family run a bundle by now, refused it or went back, were lost on the way, or are silent."""

    family: str = keyed(1)
    bundle: bytes = keyed(2)
    succeeded: int = keyed(3)
    failed: int = keyed(4)
    lost: int = keyed(5, default=0)
    silent: int = keyed(6, default=0)


@dataclass(frozen=True, slots=True)
class ClockTicked:
    """Time has come to `at_ms`; of interest where `federation.wake_at_ms` asked for it."""

    at_ms: int = keyed(1)


Event: TypeAlias = (
    EpochBegun
    | EditionNamed
    | Ordered
    | Scheduled
    | TimeFound
    | DeviceSeen
    | DeviceGone
    | RoundOpened
    | ContributionsStored
    | ConsensusMade
    | AggregationFailed
    | StudentTrained
    | ReleaseMade
    | ReleaseFailed
    | RolloutHeard
    | ClockTicked
)


@dataclass(frozen=True, slots=True)
class PublishPresence:
    """Effect: the fleet knows that the server lives in `epoch`."""

    epoch: int


@dataclass(frozen=True, slots=True)
class FindTime:
    """Effect: the first time of `timetable` after `after_ms` is known."""

    timetable: Timetable
    after_ms: int


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Effect: round `number` of `epoch` about edition `edition` is opened, with an offer of settings and roster."""

    number: int
    epoch: int
    edition: int = 0


@dataclass(frozen=True, slots=True)
class PublishOffer:
    """Effect: the offer of `round` is retained by the broker."""

    round: RoundId


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Effect: a consensus is made of these contributions (device, SHA-256 of the payload), sorted by device."""

    round: RoundId
    contributions: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class PublishConsensus:
    """Effect: the blocks, given by digest, are retained by the broker."""

    round: RoundId
    blocks: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TrainStudent:
    """Effect: the student learns the consensus in `blocks`, going on from `weights`.

    Attributes:
        released: digest of the weights that the fleet runs, to compare with; empty = the bundle's own.
        speaks: it also says what it thinks of these probes, for that is what goes out.
    """

    round: RoundId
    blocks: tuple[bytes, ...]
    weights: bytes
    released: bytes = b""
    speaks: bool = False


@dataclass(frozen=True, slots=True)
class MakeRelease:
    """Effect: release number `number` is made of the student's `weights` after `round`."""

    number: int
    round: RoundId
    weights: bytes
    is_verified: bool


@dataclass(frozen=True, slots=True)
class PublishRelease:
    """Effect: the broker retains which release devices should run; None = the bundle that they were born with.

    Attributes:
        release: the release.
        before: what those run that are not among the first; None = likewise.
        share, tags: who is among the first; 1 = all.
        is_halted: nobody else begins with it.
    """

    release: Release | None
    before: Release | None = None
    share: float = 1.0
    tags: tuple[str, ...] = ()
    is_halted: bool = False


@dataclass(frozen=True, slots=True)
class PublishBundle:
    """Effect: the broker retains that devices of a family should run what an operator has published.

    Attributes:
        published: the bundle.
        before: what those run that are not among the first; None = what they were born with, or the student's releases.
        share, tags: who is among the first; 1 = all.
        is_halted: nobody else begins with it.
        release: the student's release that stands behind it then; None = the bundle that they were born with.
    """

    published: Published
    before: Published | None = None
    share: float = 1.0
    tags: tuple[str, ...] = ()
    is_halted: bool = False
    release: Release | None = None


@dataclass(frozen=True, slots=True)
class PublishProbes:
    """Effect: the broker retains which public sets rounds are about, and may come to be about."""

    current: PublicSetRef
    coming: tuple[PublicSetRef, ...]


Effect: TypeAlias = (
    PublishPresence
    | FindTime
    | OpenRound
    | PublishOffer
    | Aggregate
    | PublishConsensus
    | TrainStudent
    | MakeRelease
    | PublishRelease
    | PublishBundle
    | PublishProbes
)

_KINDS: dict[str, type[Event]] = {cls.__name__: cls for cls in Event.__args__}


@dataclass(frozen=True, slots=True)
class _ContributionStored:
    """What the journal of an earlier server has: an event for each contribution."""

    round: RoundId = keyed(1)
    device: str = keyed(2)
    sha256: bytes = keyed(3)
    size: int = keyed(4, default=0)


def to_journal(event: Event) -> tuple[str, bytes]:
    """Return the kind and the body under which the journal keeps `event`."""
    return type(event).__name__, encode(event)


def from_journal(kind: str, body: bytes) -> Event:
    """Return the event that `to_journal` wrote, here or in an earlier server.

    Raises:
        DecodeError: the journal was written by a newer server, or it is damaged.
    """
    if kind == "ContributionStored":
        one = decode(_ContributionStored, body)
        return ContributionsStored(one.round, (Stored(one.device, one.sha256, one.size),))
    if kind not in _KINDS:
        raise DecodeError("unsupported", f"event {kind}")
    return decode(_KINDS[kind], body, max_items=len(body))
