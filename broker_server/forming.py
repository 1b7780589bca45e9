"""A consensus and every voice's part in it, from voices that can be heard again: as it is made, and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from broker_server.consensus import Joined, join
from broker_server.offers import COMMON_CODEC
from broker_server.rules import Rule
from broker_server.rules.voice import Voice
from broker_server.standing import Source, Speech, Standing, Voices, chosen_classes, standings
from broker_server.trust import TrustTable
from fd_protocol.canaries import LabelledProbes
from fd_protocol.messages import RoundOffer


@dataclass(frozen=True, slots=True)
class Again:
    """A speech that is heard anew each time it is gone over; devices in `trust` with what they have there."""

    hear: Callable[[], Speech]
    trust: TrustTable | None = None

    def __iter__(self) -> Iterator[tuple[Source, Voice]]:
        for source, voice in self.hear():
            known = self.trust is not None and voice.device in self.trust.by_device
            yield source, replace(voice, trust=self.trust.of(voice.device)) if known and self.trust else voice


def form(
    hear: Callable[[], Speech], rule: Rule, offer: RoundOffer, canaries: LabelledProbes, *, judges: bool = True
) -> tuple[Joined, tuple[Standing, ...]]:
    """Return the consensus of the voices, and what each of them came to in it.

    Args:
        hear: begins to hear the voices, the same ones each time; it is called a few times.
        rule: that joins them.
        offer: of the round.
        canaries: that judge the devices.
        judges: false where the voices have the trust already with which they count.

    Raises:
        UnheardError: no consensus can be made of these voices.
    """
    joined = join(Voices(Again(hear)), rule, offer, COMMON_CODEC, canaries, judges=judges)
    heard = Again(hear, joined.trust)
    return joined, tuple(standings(rule, heard, chosen_classes(joined.blocks), joined.trust.means()))
