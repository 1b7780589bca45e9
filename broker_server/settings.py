"""Every setting of a federation, listed once. `broker-server init` writes them as TOML with these words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from broker_server.consensus import bodies_of, rows_in_block
from broker_server.core.events import Schedule, Timetable
from broker_server.core.portions import grid
from broker_server.core.rate import RateTerms
from broker_server.methods import rule_named
from broker_server.rules import Clustering, Need, RuleTerms
from broker_server.timetable import check_timetable
from broker_server.voices import Absence
from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_protocol.label_set import label_set
from fd_protocol.manifest import check_hex_digest
from fd_protocol.messages import (
    MAX_PARTS,
    MAX_PAYLOAD_BYTES,
    Codec,
    PrivacyTerms,
    ServerState,
    Slice,
    TrainingTerms,
    check_codec,
    check_temperature,
)
from fd_protocol.topics import Topics
from fd_runtime.links.link import Will

YEAR_S = 366 * 86_400
PAUSE, DEMAND = "pause", "demand"
COMPETENCE = "competence"
"""The default rule."""
MOST_UNCOVERED = 0.3
"""Twice what a fleet shows a quarter of whose probes are foreign (`coverage.WARN_UNCOVERED` has the figures)."""
_MISSED_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """When rounds open and close.

    Attributes:
        quorum: fewest contributions that make a consensus.
        when: rounds open: "pause" (`pause_s` after the last one), "demand" (by `broker-server round-now` alone), or at
            the times of a cron expression.
        time_zone: of the cron expression, such as Europe/Berlin.
        duration_s: from the offer to the deadline; a round closes earlier when all invited devices are in.
        pause_s: from the end of a round to the next offer.
        minimum_online: devices that must be online for a round to open; 0 = open on time whoever is there.
        count: the last round's number; 0 = no last one.
        fraction: share of devices that a round invites.
        invite: devices that a round invites on average, of those online; 0 = the fraction says.
        tags: rounds are for devices with one of these tags (`broker-server devices tag`); none = for all.
        warm_up_s: duration of a first round whose consensus is not published; 0 = there is none.
        probes: probes of a round, taken from the public set in turn; 0 = all of them, every round.
        slice_rounds: rounds for which a slice stays before the next one's turn.
        choose: which slice a round asks for: the next in "turn", or the one in "need", uncertain or old, beside which
            the consensus on the others stays published (`portions`).
        lease_rounds: age at which a slice is asked for again, whatever its need.
        most_uncovered: share of probes that may lie far from every device; above it a round makes no consensus. None =
            `MOST_UNCOVERED` with a method that asks for competence maps, and no limit with another.
        byte_budget: most payload bytes that a device may send a round.
        shards: upload topics; more than one only with as many ingest processes.
    """

    quorum: int = 2
    duration_s: int = 600
    when: str = "pause"
    time_zone: str = "UTC"
    pause_s: float = 0.0
    minimum_online: int = 2
    count: int = 0
    fraction: float = 1.0
    invite: int = 0
    tags: tuple[str, ...] = ()
    warm_up_s: int = 0
    probes: int = 0
    slice_rounds: int = 1
    choose: Literal["turn", "need"] = "turn"
    lease_rounds: int = 50
    most_uncovered: float | None = None
    byte_budget: int = 1 << 20
    shards: int = 1

    def __post_init__(self) -> None:
        if self.quorum < 1 or min(self.minimum_online, self.count, self.probes) < 0 or self.pause_s < 0:
            raise InvalidValueError("quorum is at least 1; pause_s, minimum_online, count and probes are not negative")
        if not (0 < self.duration_s <= YEAR_S and 0 <= self.warm_up_s <= YEAR_S):
            raise InvalidValueError("duration_s and warm_up_s lie within a year")
        if min(self.slice_rounds, self.lease_rounds) < 1 or self.invite < 0:
            raise InvalidValueError("slice_rounds and lease_rounds are at least 1, invite is not negative")
        if self.choose == "need" and not self.probes:
            raise InvalidValueError('choose = "need" goes with probes: how many a round asks for')
        if not (0.0 < self.fraction <= 1.0 and 0.0 <= (self.most_uncovered or 0.0) <= 1.0):
            raise InvalidValueError("fraction lies in (0, 1], most_uncovered in [0, 1]")
        if not 0 < self.byte_budget <= MAX_PAYLOAD_BYTES or not 1 <= self.shards <= 4096:
            raise InvalidValueError(f"byte_budget lies in 1..{MAX_PAYLOAD_BYTES}, shards in 1..4096")
        for tag in self.tags:
            check_name(tag, "a tag")
        if self.timetable is not None:
            check_timetable(self.timetable)

    @property
    def timetable(self) -> Timetable | None:
        return None if self.when in (PAUSE, DEMAND) else Timetable(self.when, self.time_zone)

    def schedule(self, *, has_student: bool) -> Schedule:
        return Schedule(
            pause_ms=round(1000 * self.pause_s),
            minimum_online=self.minimum_online,
            rounds=self.count,
            has_student=has_student,
            timetable=self.timetable,
            on_demand=self.when == DEMAND,
            warm_up=self.warm_up_s > 0,
        )


@dataclass(frozen=True, slots=True)
class MethodSettings:
    """How soft labels are made, carried and joined.

    Attributes:
        name: of the rule; `broker-server methods` lists them.
        temperature: T of softening and distillation.
        codec: of contributions, where every device online understands it; else u8-sqrt.
        top_k: classes named in a row, for codecs top-k and top-k-zipf alone.
        downlink: what goes out: the `consensus`, or what the `student` says after it has learnt it (dual distillation,
            Sattler et al. 2022).
        terms: constants of the rules.
        absence: how the last words of absent devices fade.
    """

    name: str = COMPETENCE
    temperature: float = 2.0
    codec: Codec = Codec.U8_SQRT
    top_k: int = 0
    downlink: Literal["consensus", "student"] = "consensus"
    terms: RuleTerms = RuleTerms()
    absence: Absence = Absence()

    def __post_init__(self) -> None:
        rule = rule_named(self.name, self.terms)
        if self.downlink == "student" and isinstance(rule, Clustering):
            raise InvalidValueError(f'downlink = "student" says one thing to all, {self.name} one to each cluster')
        check_temperature(self.temperature)
        if self.codec.names_k != (self.top_k > 0):
            raise InvalidValueError("top_k goes with codec top-k or top-k-zipf")


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """How long the server remembers what it is no longer asked for.

    Attributes:
        rounds: rounds that an operator can look back at.
        days: and for how long; commands as well.
        replayable_rounds: of the last rounds the contributions are kept too, so that their consensus can be made again.
    """

    rounds: int = 1000
    days: int = 365
    replayable_rounds: int = 5

    def __post_init__(self) -> None:
        if min(self.rounds, self.days) < 1 or not 0 <= self.replayable_rounds <= self.rounds:
            raise InvalidValueError("rounds and days are at least 1, replayable_rounds lie in 0..rounds")


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """What a server must know of the public set and its task.

    Attributes:
        public_set: identity of the set.
        count: of probes.
        classes: of the task.
        task: digest of the task; devices of another one are not expected.
        size_bytes: of the set's files.
    """

    public_set: bytes
    count: int
    classes: int
    task: bytes
    size_bytes: int = 0

    @property
    def are_labels(self) -> bool:
        """Whether there is no public set: the labels of the task stand in its place."""
        return self.public_set == label_set(self.task)

    @property
    def whole(self) -> Slice:
        """Return the slice that is all of it."""
        return Slice(self.public_set, 0, self.count, self.classes)


@dataclass(frozen=True, slots=True)
class Settings:
    """A federation.

    Attributes:
        bundles: hexadecimal digests of the bundles that may join; none = any of the task.
        trust: what devices are weighed by: "canaries", or "none" where every one of them is trusted.
        privacy: what soft labels may tell of a private row; epsilon 0 = nothing is asked of devices.
    """

    federation: str
    aggregator: str = "aggregator"
    rounds: RoundSettings = RoundSettings()
    method: MethodSettings = MethodSettings()
    training: TrainingTerms = field(default_factory=TrainingTerms)
    admission: RateTerms = RateTerms()
    bundles: tuple[str, ...] = ()
    trust: Literal["canaries", "none"] = "canaries"
    records: RecordSettings = RecordSettings()
    privacy: PrivacyTerms = field(default_factory=PrivacyTerms)

    def __post_init__(self) -> None:
        check_name(self.federation, "federation")
        check_name(self.aggregator, "aggregator")
        for digest in self.bundles:
            check_hex_digest(digest, "a bundle")
        needs = self._needs
        if Need.SIZES in needs and not self.method.terms.sizes:
            raise InvalidValueError(
                f"{self.method.name} needs [method.terms.sizes]: DEVICE = its rows, as you know them; no device tells"
            )
        if Need.FEATURES in needs:
            self._check_prototypes()
        if self.method.downlink == "student" and Need.PUBLIC_SET not in needs:
            raise InvalidValueError(f'downlink = "student" needs a public set, and {self.method.name} goes without')
        if self.rounds.most_uncovered not in (None, 1.0) and Need.COMPETENCE not in needs:
            raise InvalidValueError(
                f"rounds.most_uncovered goes with competence maps, and {self.method.name} asks for none"
            )
        self._check_privacy()

    def _check_privacy(self) -> None:
        """Under privacy terms devices send no maps and read no rows for an answer: some rules cannot live with that."""
        if not self.privacy.is_asked:
            return
        needs = self._needs
        if Need.PUBLIC_SET not in needs:
            raise InvalidValueError(f"{self.method.name} reads private rows in every round: privacy.epsilon forbids it")
        if Need.COMPETENCE in needs and self.method.name != COMPETENCE:
            raise InvalidValueError(
                f"{self.method.name} needs competence maps, and under privacy.epsilon there are none"
            )
        if self.rounds.most_uncovered not in (None, 1.0):
            raise InvalidValueError(
                "rounds.most_uncovered goes with competence maps: under privacy.epsilon there are none"
            )

    @property
    def _needs(self) -> frozenset[Need]:
        return rule_named(self.method.name, self.method.terms).card.needs

    @property
    def asks_for_maps(self) -> bool:
        """Whether devices shall say where they are competent. Without maps `competence` weighs by trust alone."""
        return Need.COMPETENCE in self._needs and not self.privacy.is_asked

    @property
    def most_uncovered(self) -> float:
        """Share of probes that may lie far from every device."""
        if self.rounds.most_uncovered is not None:
            return self.rounds.most_uncovered
        return MOST_UNCOVERED if self.asks_for_maps else 1.0

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """What the aggregator's link listens to: the devices, and its own offer, which tells if its database is old."""
        topics = Topics(self.federation)
        return (*topics.server_filters(), topics.round)

    @property
    def will(self) -> Will:
        """What the broker says when the aggregator vanishes."""
        return Will(Topics(self.federation).server(self.aggregator), codec.encode(ServerState(online=False, epoch=0)))

    def check_against(self, probes: ProbeSet) -> None:
        """Refuse settings that do not fit the public set.

        Raises:
            InvalidValueError: so.
        """
        check_codec(self.method.codec, probes.classes, self.method.top_k)
        if self.rounds.probes > probes.count:
            raise InvalidValueError(f"rounds.probes is {self.rounds.probes}, the public set has {probes.count}")
        self._check_blocks(probes)

    def _check_prototypes(self) -> None:
        if self.method.codec.names_k or self.method.codec is Codec.TOP_1:
            raise InvalidValueError(f"a prototype is a row of quantities: {self.method.codec.value} would not carry it")
        if self.rounds.probes:
            raise InvalidValueError(f"{self.method.name} asks for all prototypes in every round: rounds.probes is 0")

    def kept_rounds(self, probes: ProbeSet) -> int:
        """Return for how many rounds a device's last contribution about a slice is kept.

        While it may be heard as the last words of an absent device, and until rounds have come back to its slice: the
        device then sends a difference to it. A few rounds more, for the device may have missed some.
        """
        rounds, slices = self.rounds, len(grid(probes.whole, self.rounds.probes)) if self.rounds.probes else 1
        cycle = 1 if slices < 2 else rounds.lease_rounds if rounds.choose == "need" else slices * rounds.slice_rounds
        return max(self.method.absence.rounds, cycle + _MISSED_ROUNDS)

    def _check_blocks(self, probes: ProbeSet) -> None:
        needs_all, size = self.rounds.choose == "need", self.rounds.probes or probes.count
        bodies = bodies_of(rule_named(self.method.name, self.method.terms))
        blocks_a_slice = -(-size // rows_in_block(probes.classes, probes.classes, bodies))
        blocks = blocks_a_slice * (len(grid(probes.whole, size)) if needs_all else 1)
        if blocks > MAX_PARTS:
            way_out = "raise" if needs_all else "lower"
            raise InvalidValueError(
                f"the consensus would need {blocks} of at most {MAX_PARTS} blocks: {way_out} rounds.probes"
            )
