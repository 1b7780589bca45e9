"""What a device holds against a round beyond what it is: its privacy budget and its data use.

`eligibility` says whether an offer is for such a device at all. This says by which privacy terms the device works in
the round, whether what they ask for has been paid, and the word for why it stays away nevertheless:

    data_budget     the month's bytes are used up (`training.data_mb_per_month`)
    and those of `privacy.saying`, such as epsilon_spent
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.privacy.ledger import Ledger, LedgerError
from edge_agent.privacy.limits import Spent, effective
from edge_agent.privacy.saying import CLOCK_UNSET, LEDGER_DAMAGED, PRIVATE_PROBES
from edge_agent.privacy.settings import PrivacySettings
from edge_agent.round.eligibility import Profile
from edge_agent.training.sensors import clock_is_set
from fd_protocol.messages import RoundOffer
from fd_protocol.terms import PrivacyTerms

DATA_BUDGET = "data_budget"


@dataclass(frozen=True, slots=True)
class Reserved:
    """A device's stand to an offer.

    Attributes:
        objection: why it does not contribute; empty: it does.
        privacy: the terms by which it works.
        is_paid: under these: the period's private training is over, or there is nothing private.
    """

    objection: str = ""
    privacy: PrivacyTerms = field(default_factory=PrivacyTerms)
    is_paid: bool = False


def nothing(offer: RoundOffer) -> Reserved:
    """Hold nothing against any offer, and have no terms of one's own."""
    return Reserved(privacy=offer.privacy)


@dataclass(frozen=True, slots=True)
class Reservations:
    """A device's.

    Attributes:
        profile: what it is.
        own: its owner's privacy terms.
        ledger: what it has spent; None: it has no private rows.
        problem: a word that stands whatever is asked, such as no_private_step; empty: none.
        has_public_set: rounds are about public probes; else what stands in their place are means over private rows.
        is_data_spent: whether the month's bytes are used up.
        clock: UTC seconds.
    """

    profile: Profile
    own: PrivacySettings = PrivacySettings()
    ledger: Ledger | None = None
    problem: str = ""
    has_public_set: bool = True
    is_data_spent: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.time

    def __call__(self, offer: RoundOffer) -> Reserved:
        """Return how the device stands to `offer`."""
        terms = effective(offer.privacy, self.own)
        if not terms.is_asked or self.ledger is None:
            return Reserved(self._data_objection(), terms, is_paid=terms.is_asked)
        spent = self._spent(self.ledger)
        objection = self._data_objection() or spent.refusal(terms, self.own) or self._clock_objection(spent)
        return Reserved(objection, terms, is_paid=spent.standing is not None and not spent.standing.is_open)

    def _spent(self, ledger: Ledger) -> Spent:
        bundle = self.profile.bundle.hex()
        problem = self.problem if self.has_public_set else PRIVATE_PROBES
        try:
            entries = ledger.entries()
        except (LedgerError, OSError):
            return Spent(bundle, problem=LEDGER_DAMAGED)
        return Spent.within(self.own.period_s, entries, self.clock(), bundle, problem)

    def _clock_objection(self, spent: Spent) -> str:
        return CLOCK_UNSET if spent.standing is None and not clock_is_set(self.clock()) else ""

    def _data_objection(self) -> str:
        return DATA_BUDGET if self.is_data_spent() else ""
