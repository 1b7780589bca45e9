"""A consensus and every voice's part in it, from voices that can be heard again: as it is made, and made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

from broker_server.consensus import Joined, join
from broker_server.core.standing import Afresh, Source, Standing, chosen_classes, standings
from broker_server.offers import COMMON_CODEC
from broker_server.rules import Known, Rule, scale_of
from broker_server.rules.voice import Voice
from fd_protocol.canaries import LabelledProbes
from fd_protocol.messages import RoundOffer

Speech: TypeAlias = "Iterable[tuple[Source, Voice]]"


def form(
    hear: Callable[[], Speech], rule: Rule, offer: RoundOffer, canaries: LabelledProbes, *, is_judged: bool = False
) -> tuple[Joined, tuple[Standing, ...]]:
    """Return the consensus of the voices, and what each of them came to in it.

    Args:
        hear: begins to hear the voices, the same ones each time: as often as the rule asks for, once to judge them
            where it does, and once more for what each came to.
        rule: that joins them.
        offer: of the round.
        canaries: that judge the devices; without any nobody earns trust.
        is_judged: the voices have the trust that this round gave them; a round is made again.

    Raises:
        UnheardError: no consensus can be made of these voices.
    """
    voices = Afresh(lambda: (voice for _, voice in hear()))
    joined = join(voices, rule, offer, COMMON_CODEC, canaries, is_judged=is_judged)

    def as_heard() -> Speech:
        return ((source, replace(voice, trust=joined.trust.of(voice.device))) for source, voice in hear())

    scale = joined.scale or scale_of(rule, Afresh(lambda: (voice for _, voice in as_heard())).begin)
    known = Known(*canaries.within(offer.slice))
    stood = standings(as_heard(), rule, scale, chosen_classes(joined.blocks), known)
    earned = joined.trust.means() if canaries.probes else {}
    return joined, tuple(replace(one, trust=earned.get(one.source.device)) for one in stood)
