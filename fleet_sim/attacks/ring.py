"""The attackers of one federation: what they share, and what each of them gets to know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fd_protocol import codec
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.messages import ConsensusBlock, RoundOffer
from fd_protocol.payload import decode_body
from fd_runtime.models.model import F32
from fleet_sim.attacks import ATTACKS, Attack
from fleet_sim.attacks.knowledge import Knowledge, Sees, uniform
from fleet_sim.scenario import AttackTerms

Survey = Callable[[RoundOffer], F32]
"""Asks the models of some devices for their answers to an offer: float32 [devices, n, classes]."""


@dataclass(slots=True)
class Ring:
    """Gives each attacker the knowledge that their threat model grants, and remembers what the server published.

    Attributes:
        terms: how many they are, and what they want.
        surveys: the answers of the attackers (`Sees.ACCOMPLICES`) and of the honest (`Sees.HONEST`).
        probes, classes: of the public set.
        rng: draws where an attack is random, for one attacker after the other.
        seed: of what they draw together.

    Raises:
        InvalidValueError: an attack on a class that the task has not.
    """

    terms: AttackTerms
    surveys: Mapping[Sees, Survey]
    probes: int
    classes: int
    rng: np.random.Generator
    seed: int
    _consensus: F32 = field(init=False)
    _heard: int = field(default=0, init=False)
    _round: RoundId | None = field(default=None, init=False)
    _answers: dict[Sees, F32] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if max(self.terms.source, self.terms.target) >= self.classes:
            raise InvalidValueError(f"an attack's classes lie below {self.classes}")
        self._consensus = uniform(self.probes, self.classes)

    @property
    def attack(self) -> Attack:
        return ATTACKS[self.terms.kind]

    def hear(self, messages: Sequence[bytes]) -> None:
        """Remember a consensus, given as its encoded blocks; one that is older than the last is ignored."""
        blocks = [codec.decode(message, ConsensusBlock) for message in messages]
        if blocks[0].round.number <= self._heard:
            return
        self._heard = blocks[0].round.number
        for block in blocks:
            part = block.slice
            codes = decode_body(block.body, block.codec, part.count, part.classes)
            self._consensus[part.start : part.start + part.count] = codes.probabilities()

    def knowledge(self, own: F32, offer: RoundOffer) -> Knowledge:
        """Return what the attacker knows whose own model answers `offer` with `own`."""
        part = offer.slice
        published = self._consensus[part.start : part.start + part.count].copy()
        return Knowledge(
            own=own,
            consensus=published if Sees.CONSENSUS in self.attack.sees else uniform(part.count, part.classes),
            accomplices=self._survey(Sees.ACCOMPLICES, offer),
            honest=self._survey(Sees.HONEST, offer),
            attackers=self.terms.devices,
            source=self.terms.source,
            target=self.terms.target,
            rng=self.rng,
            shared=np.random.default_rng([self.seed, offer.round.number]),
        )

    def _survey(self, whom: Sees, offer: RoundOffer) -> F32:
        """Return their answers, asked once a round; empty where the threat model has it so."""
        if whom not in self.attack.sees:
            return np.empty((0, offer.slice.count, offer.slice.classes), np.float32)
        if self._round != offer.round:
            self._round, self._answers = offer.round, {}
        if whom not in self._answers:
            self._answers[whom] = self.surveys[whom](offer)
        return self._answers[whom]
