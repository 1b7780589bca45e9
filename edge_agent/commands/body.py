"""What handlers may do with the device that they belong to."""

from __future__ import annotations

from typing import Protocol

from edge_agent.care.vitals import Vitals
from edge_agent.jobs import Job
from edge_agent.reservations import Reserved
from edge_agent.round.eligibility import Profile
from edge_agent.round.participant import Participant
from fd_protocol.messages import RoundOffer


class Body(Protocol):
    """The supervisor, as far as commands go. Nothing of it waits."""

    @property
    def profile(self) -> Profile: ...

    @property
    def state(self) -> Participant: ...

    @property
    def vitals(self) -> Vitals: ...

    @property
    def is_under_terms(self) -> bool:
        """Whether nothing may leave the device that private rows could have changed (`privacy.saying`)."""

    def reserved(self, offer: RoundOffer) -> Reserved:
        """Return what the device would hold against an offer, and by which privacy terms it would work."""

    def submit(self, job: Job) -> None:
        """Give the worker a job; its answer goes to whoever says that it is theirs."""

    def restart_worker(self) -> None:
        """End the worker; it is started again at once, with the settings of then. A job under way has failed."""

    def restart(self) -> None:
        """Begin another life of the device soon, with the settings of then."""
