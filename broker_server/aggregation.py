"""The long work that ends a round: its consensus, with what stays of the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker_server.consensus import Joined
from broker_server.core.events import Aggregate, AggregationFailed, ConsensusMade, Portion
from broker_server.core.portions import lies_in, renewed, together
from broker_server.core.standing import numbers
from broker_server.core.trust import TrustTable
from broker_server.forming import form
from broker_server.methods import rule_named
from broker_server.rules import Judging
from broker_server.settings import MethodSettings
from broker_server.voices import Speakers
from broker_server.work import Finished
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.identity import sha256
from fd_protocol.messages import ConsensusBlock, RoundOffer
from fd_runtime.storage.store import Store

UNCOVERED = "uncovered"
"""First word of the reason of a round that made no consensus for that."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A consensus with all that stays beside it, and what an operator may want to know of that."""

    blocks: tuple[ConsensusBlock, ...]
    portions: tuple[Portion, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renewal:
    """What of the last consensus may stay beside a new one.

    Attributes:
        held: the portions that still hold.
        blocks: digests of the blocks of the last consensus.
        up_bytes: that the contributions to the new one have.
    """

    held: tuple[Portion, ...]
    blocks: tuple[bytes, ...]
    up_bytes: int

    def of(self, joined: Joined, offer: RoundOffer, store: Store) -> Whole:
        """Return the consensus of a round with all that stays."""
        others = [portion for portion in self.held if portion.slice != offer.slice]
        last = [codec.decode(store.blob(digest), ConsensusBlock) for digest in self.blocks]
        kept = [block for block in last if any(lies_in(block.slice, portion.slice) for portion in others)]
        number, probes = offer.round.number, sum(portion.slice.count for portion in others)
        metrics = {
            "kept_probes": float(probes),
            "kept_rounds": float(max((number - portion.round for portion in others), default=0)),
            # What asking for them as well would have cost, at this round's bytes a probe.
            "saved_up_bytes": self.up_bytes * probes / offer.slice.count,
            "repeated_down_bytes": float(sum(len(block.body) for block in kept)),
        }
        fresh = Portion(offer.slice, offer.temperature, number, joined.metrics["entropy_nats"], joined.sha256)
        return Whole(together(joined.blocks, kept), renewed(self.held, fresh), metrics)


@dataclass(frozen=True, slots=True)
class Aggregation:
    """Make the consensus of a round.

    Attributes:
        effect: which contributions.
        offer: of the round.
        method: how they are joined.
        trust: digest of the trust that was earned before this round; empty = none.
        canaries: that judge the devices in this round.
        clock: UTC milliseconds.
        renewal: what stays beside it; None = nothing, the consensus is on the offered slice alone.
        most_uncovered: share of probes that may lie far from every device.
    """

    effect: Aggregate
    offer: RoundOffer
    method: MethodSettings
    trust: bytes
    canaries: LabelledProbes
    clock: Callable[[], int]
    renewal: Renewal | None = None
    most_uncovered: float = 1.0

    def run(self, store: Store) -> Finished:
        with store.moment():  # the voices are heard twice, and a device may send a new map at any time
            return self._run(store)

    def _run(self, store: Store) -> Finished:
        speakers = Speakers(store, self.effect.round.federation, self.method.absence, self._trust(store))
        rule = rule_named(self.method.name, self.method.terms)
        joined, standings = form(lambda: speakers.speech(self.effect, self.offer), rule, self.offer, self.canaries)
        uncovered = joined.metrics.get("uncovered_probes", 0.0)
        # Where no device has sent a map nobody knows how far they are.
        if uncovered > self.most_uncovered and any(one.source.map for one in standings):
            return self.failed(f"{UNCOVERED}: {uncovered:.0%} of the probes lie far from every device")
        whole = Whole(joined.blocks) if self.renewal is None else self.renewal.of(joined, self.offer, store)
        trust = joined.trust.onto(speakers.trust) if isinstance(rule, Judging) else joined.trust
        blocks, earned = [codec.encode(block) for block in whole.blocks], trust.to_bytes()
        event = ConsensusMade(
            self.effect.round,
            whole.blocks[0].consensus_sha256,
            tuple(sha256(block) for block in blocks),
            self.clock(),
            trust=sha256(earned),
            metrics={**joined.metrics, **numbers(standings), **whole.metrics},
            portions=whole.portions,
            made=joined.sha256 if joined.blocks[0].clusters else b"",
        )
        return Finished((event,), (*blocks, earned), standings)

    def failed(self, reason: str) -> Finished:
        return Finished((AggregationFailed(self.effect.round, reason, self.clock()),))

    def _trust(self, store: Store) -> TrustTable:
        earned = store.blob(self.trust) if self.trust else b""
        return TrustTable.under(self.method.name, earned, self.offer.slice.classes)
