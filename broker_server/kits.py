"""What the server works with while rounds are about an edition of the public set: its probes, canaries and student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from broker_server.core.editions import Editions
from broker_server.core.events import Edition
from broker_server.core.release_gate import ReleaseGate
from broker_server.settings import ProbeSet
from broker_server.student import Learner
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError


@dataclass(frozen=True, slots=True)
class Kit:
    """One edition at work.

    Attributes:
        probes: what the server must know of the public set.
        canaries: probes that judge what devices claim; none where every device is trusted.
        student: learns every consensus on these probes, where there is one.
        gate: judges the student; None = nobody does, there are no canaries to ask.
    """

    probes: ProbeSet
    canaries: LabelledProbes = LabelledProbes()
    student: Learner | None = None
    gate: ReleaseGate | None = None


MakeKit = Callable[[Edition], Kit]
"""Makes the kit of an edition from the server's files. Raises a `FedistillError` where they are gone or damaged."""


class Kits:
    """The kits of the editions that a federation knows. Each is made when it is first asked for.

    Args:
        first: of the public set that the settings name.
        canaries: digest of the canaries of the settings; empty = they name none.
        make: makes the others; None = there are no others.
    """

    def __init__(self, first: Kit, canaries: bytes = b"", make: MakeKit | None = None) -> None:
        self._first, self._canaries, self._make = first, canaries, make
        self._made: dict[Edition, Kit] = {}

    @property
    def first_edition(self) -> Edition | None:
        """What the settings name; None where the labels of the task are the probes: nothing takes their place."""
        probes = self._first.probes
        if probes.are_labels:
            return None
        return Edition(1, probes.public_set, probes.count, self._canaries, probes.size_bytes)

    def of(self, edition: Edition | None) -> Kit:
        """Return the kit of an edition; None: of what the settings name.

        Raises:
            FedistillError: its files are not there, or damaged.
        """
        if edition is None or self._is_first(edition):
            return self._first
        if edition not in self._made:
            self._made[edition] = self._new(edition)
        return self._made[edition]

    def about(self, public_set: bytes, editions: Editions) -> Kit:
        """Return the kit that judges a round about `public_set`; raises as `of`."""
        return self.of(editions.about(public_set))

    def keep(self, editions: Editions) -> None:
        """Let go of kits that the next rounds do not ask for; one that is asked for all the same is made again."""
        wanted = (editions.current, editions.staged)
        self._made = {edition: kit for edition, kit in self._made.items() if edition in wanted}

    def _is_first(self, edition: Edition) -> bool:
        probes = self._first.probes
        return (edition.public_set, edition.canaries) == (probes.public_set, self._canaries)

    def _new(self, edition: Edition) -> Kit:
        if self._make is None:
            raise InvalidValueError(f"there is no edition {edition.number} of the public set here")
        return self._make(edition)
