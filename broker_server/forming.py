"""A consensus and every voice's part in it, from voices that can be heard twice: as it is made, and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from broker_server.consensus import Joined, join
from broker_server.offers import COMMON_CODEC
from broker_server.rules import Rule
from broker_server.rules.voice import Voice
from broker_server.standing import Source, Standing, Tally, chosen_classes
from fd_protocol.canaries import LabelledProbes
from fd_protocol.messages import RoundOffer

Speech: TypeAlias = "Iterable[tuple[Source, Voice]]"


def form(
    hear: Callable[[], Speech], rule: Rule, offer: RoundOffer, canaries: LabelledProbes
) -> tuple[Joined, tuple[Standing, ...]]:
    """Return the consensus of the voices, and what each of them came to in it.

    Args:
        hear: begins to hear the voices, the same ones each time; it is called twice.
        rule: that joins them.
        offer: of the round.
        canaries: that judge the devices; without any nobody earns trust.

    Raises:
        UnheardError: no consensus can be made of these voices.
    """
    tally = Tally(rule, offer.slice.count)
    joined = join(tally.watch(voice for _, voice in hear()), rule, offer, COMMON_CODEC, canaries)
    earned = joined.trust.means() if canaries.probes else {}
    return joined, tuple(tally.standings(hear(), chosen_classes(joined.blocks), earned))
