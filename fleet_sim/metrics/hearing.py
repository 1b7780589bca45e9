"""The voices of a round that a server has just closed, read again from its store as it read them."""

from __future__ import annotations

from collections.abc import Iterator

from broker_server.core.events import Aggregate
from broker_server.core.round import Round
from broker_server.core.trust import TrustTable
from broker_server.rules.voice import Voice
from broker_server.voices import Absence, Speakers
from fd_protocol.messages import Kind
from fd_runtime.storage.store import Store
from fleet_sim.federation.parties import Server
from fleet_sim.federation.simulation import Simulation
from fleet_sim.measuring import RoundResult


def voices_of(store: Store, federation: str, absence: Absence, ended: Round, trust: TrustTable) -> tuple[Voice, ...]:
    """Return the voices of the round that ended last.

    Args:
        store: of a server at rest, before it opens the next round.
        federation: its name.
        absence: how absent devices fade.
        ended: the round.
        trust: that counted in the round.
    """
    payloads = store.payloads(federation, Kind.CONTRIBUTION.value)
    contributions = tuple((row.device, row.sha256) for row in payloads if row.round == ended.id.number)
    return tuple(Speakers(store, federation, absence, trust).voices(Aggregate(ended.id, contributions), ended.offer))


def last_voices(server: Server, trust: TrustTable) -> tuple[Voice, ...]:
    """Return the voices of the round that a simulated server has just closed."""
    ended, settings = server.aggregator.state.round, server.settings
    assert ended is not None
    return voices_of(server.store, settings.federation, settings.method.absence, ended, trust)


def heard_rounds(simulation: Simulation) -> Iterator[tuple[RoundResult, TrustTable]]:
    """Play to the last round; yield each result, and the trust that counted in its round.

    The server's store forgets that trust when the next round has ended.
    """
    for result in simulation.run():
        yield result, _trust_of(simulation.server)


def _trust_of(server: Server) -> TrustTable:
    digest, classes = server.aggregator.state.trust, server.probes.classes
    return TrustTable.from_bytes(server.store.blob(digest), classes) if digest else TrustTable(classes)
