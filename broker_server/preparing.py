"""What the effects of a federation ask for, made of its state, the settings and the store: an offer, an aggregation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from broker_server.aggregation import Aggregation, Renewal
from broker_server.core.events import Aggregate, RoundOpened
from broker_server.core.federation import Federation
from broker_server.core.portions import grid, standing
from broker_server.core.round import Round
from broker_server.kits import Kits
from broker_server.methods import rule_named
from broker_server.offers import Opening, open_round
from broker_server.records.chronicle import Chronicle
from broker_server.rules import Clustering
from broker_server.settings import ProbeSet, Settings
from fd_protocol.identity import RoundId
from fd_runtime.storage.store import Store

CLUSTERS = "clusters"
"""The capability of devices that find their own consensus among several."""

log = logging.getLogger("broker-server")


@dataclass(frozen=True, slots=True)
class Preparation:
    """Prepares what the server is to do.

    Attributes:
        settings: of the federation.
        kits: of its public sets.
        store: where the records lie.
        clock: UTC milliseconds.
        entropy: random bytes.
    """

    settings: Settings
    kits: Kits
    store: Store
    clock: Callable[[], int]
    entropy: Callable[[int], bytes]

    def opening(self, state: Federation, number: int) -> RoundOpened:
        """Return round `number` as it opens now, about the edition whose turn it is."""
        at_ms, edition = self.clock(), state.editions.next
        opening = open_round(
            self.settings,
            self.kits.of(edition).probes,
            state.online,
            RoundId(self.settings.federation, state.epoch, number),
            seed=self.entropy(16),
            at_ms=at_ms,
            is_warm_up=state.is_warming_up,
            portions=state.consensus.portions if state.consensus is not None else (),
            named=self._tagged(),
            is_trial=state.editions.is_trial_wanted,
        )
        self._warn(opening, state)
        return RoundOpened(opening.offer, opening.invited, at_ms, 0 if edition is None else edition.number)

    def _warn(self, opening: Opening, state: Federation) -> None:
        """Say how many of those invited get less of the method than others."""
        if not isinstance(rule_named(self.settings.method.name, self.settings.method.terms), Clustering):
            return
        behind = sum(CLUSTERS not in state.online[device].capabilities for device in opening.invited)
        if behind:
            log.warning("%d of %d devices know no clusters: they learn what all say", behind, len(opening.invited))

    def aggregation(self, state: Federation, effect: Aggregate) -> Aggregation:
        """Return the work of making the consensus of the open round."""
        assert state.round is not None
        kit = self.kits.about(state.round.offer.slice.public_set, state.editions)
        return Aggregation(
            effect,
            state.round.offer,
            self.settings.method,
            state.trust,
            kit.canaries,
            self.clock,
            self._renewal(state, state.round, kit.probes),
            self.settings.most_uncovered,
        )

    def _renewal(self, state: Federation, current: Round, probes: ProbeSet) -> Renewal | None:
        """Return what of the last consensus stays beside the new one; None: nothing, by the settings, or in a trial."""
        if self.settings.rounds.choose == "turn" or current.trial_of:
            return None
        offer, up_bytes = current.offer, current.up_bytes
        if state.consensus is None:
            return Renewal((), (), up_bytes)
        slices = grid(probes.whole, offer.slice.count)
        held = standing(state.consensus.portions, slices, offer.temperature)
        return Renewal(held, state.consensus.blocks, up_bytes)

    def _tagged(self) -> list[str] | None:
        """Return the devices that rounds are for; None: for all."""
        tags = set(self.settings.rounds.tags)
        if not tags:
            return None
        records = Chronicle(self.store, self.settings.federation).devices()
        return [record.device for record in records if tags & set(record.tags)]
