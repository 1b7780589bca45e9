"""What does not belong to a round is refused with a reason, and the round is unharmed."""

from queue import Empty

import numpy as np
import pytest

from fd_protocol import codec
from fd_protocol.competence import encode_map
from fd_protocol.messages import CompetenceMap, Kind, Receipt, Status
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkSettings
from fleet_sim.federation.simulation import FEDERATION
from tests.federation.stage import DEVICES, run_on, voices
from tests.support.hostile import CONTRIBUTIONS, NOISE, ROUNDS, answer_to, encoded_parts

TOPICS = Topics(FEDERATION)


class Mallory:
    """A client of the broker that never announced itself."""

    def __init__(self, simulation):
        self._simulation = simulation
        settings = LinkSettings("mallory", subscriptions=(TOPICS.receipt("mallory"),))
        self._link = simulation.broker.link(settings)
        while not simulation.server.aggregator.state.has_open_round:
            simulation.turn()
        self.offer = simulation.server.aggregator.state.round.offer

    def send(self, data):
        self._link.publish(TOPICS.upload("mallory"), data)

    def send_payload(self, message, round_id, kind=Kind.CONTRIBUTION):
        for part in encoded_parts(message, round_id, kind):
            self.send(part)

    def receipts(self):
        for _ in range(6):
            self._simulation.turn()
        found = []
        while True:
            try:
                event = self._link.events.get_nowait()
            except Empty:
                return found
            if isinstance(event, Arrived):
                found.append(codec.decode(event.payload, Receipt))


@pytest.fixture
def mallory(stage):
    return Mallory(stage.simulation())


def check_unharmed(mallory, undisturbed):
    assert run_on(mallory._simulation) == undisturbed
    assert voices(mallory._simulation) == DEVICES


@pytest.mark.parametrize("reason", CONTRIBUTIONS)
def test_a_contribution_that_is_not_what_was_asked_for_is_refused(mallory, undisturbed, reason):
    mallory.send_payload(CONTRIBUTIONS[reason](mallory.offer), mallory.offer.round)
    (receipt,) = mallory.receipts()
    assert (receipt.status, receipt.reason) == (Status.REFUSED, reason)
    check_unharmed(mallory, undisturbed)


@pytest.mark.parametrize("reason", ROUNDS)
def test_a_contribution_to_another_round_is_refused(mallory, undisturbed, reason):
    mallory.send_payload(answer_to(mallory.offer), ROUNDS[reason](mallory.offer.round))
    (receipt,) = mallory.receipts()
    assert (receipt.status, receipt.reason) == (Status.REFUSED, reason)
    check_unharmed(mallory, undisturbed)


def test_a_map_of_too_few_probes_is_refused(mallory, undisturbed):
    competence = CompetenceMap(mallory.offer.slice.public_set, 8, encode_map(np.zeros(8, np.uint8)))
    mallory.send_payload(competence, mallory.offer.round, Kind.COMPETENCE)
    (receipt,) = mallory.receipts()
    assert (receipt.status, receipt.reason) == (Status.REFUSED, "wrong_slice")
    check_unharmed(mallory, undisturbed)


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
def test_bytes_that_are_no_message_are_set_aside_without_an_answer(mallory, undisturbed, noise):
    mallory.send(noise)
    assert mallory.receipts() == []
    check_unharmed(mallory, undisturbed)


def test_a_message_that_cannot_be_read_never_comes_back(mallory):
    mallory.send(b"let me in")
    mallory.receipts()
    simulation = mallory._simulation
    simulation.broker.cut(simulation.server.settings.aggregator)
    simulation.settle()
    assert simulation.server.aggregator.counters["set_aside.malformed"] == 1
