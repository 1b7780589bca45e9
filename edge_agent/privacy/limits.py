"""By which privacy terms a device works in a round, and why it may refuse: what was spent + an offer -> terms, a word.

the stricter wins   epsilon = least of the offer's, the device's own and its `epsilon_max`; delta alike
one in a period     weights of a private training serve every round of the period: published labels are free
a word of `saying`  why the device takes no part
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from edge_agent.privacy.accountant import composed, epsilon_of, noise_multiplier_for, rdp_of
from edge_agent.privacy.ledger import Charge, Entry
from edge_agent.privacy.saying import EPSILON_SPENT
from edge_agent.privacy.settings import PrivacySettings
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.terms import PrivacyTerms


class PrivacyRefusedError(FedistillError):
    """The terms forbid the work; `reason` is a word of `saying`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def effective(offered: PrivacyTerms, own: PrivacySettings) -> PrivacyTerms:
    """Return the terms by which a device works; with epsilon 0 neither side asks for privacy."""
    asked = [epsilon for epsilon in (offered.epsilon, own.epsilon) if epsilon]
    if not asked:
        return offered
    return replace(offered, epsilon=min(*asked, own.epsilon_max), delta=min(offered.delta, own.delta))


@dataclass(frozen=True, slots=True)
class Spent:
    """What a device has spent, as far as it bears on what it may do now.

    Attributes:
        bundle: digest (hex) of the one that it runs.
        entries: of its ledger, within a period before now or ahead of it.
        problem: a word of `saying` that stands whatever is asked; empty: none.
    """

    bundle: str
    entries: Sequence[Entry] = ()
    problem: str = ""

    @classmethod
    def within(cls, period_s: int, entries: Iterable[Entry], now_s: float, bundle: str, problem: str = "") -> Spent:
        """Keep what counts. A charge that lies ahead of a clock which ran back does."""
        return cls(bundle, tuple(entry for entry in entries if entry.charge.at_s > now_s - period_s), problem)

    @property
    def standing(self) -> Entry | None:
        """The period's training of this bundle, or one that is charged and not over; None: there is none.

        An open charge is good for whatever bundle runs now: nothing of the other's training was ever published.
        """
        return next(
            (each for each in reversed(self.entries) if each.is_open or each.trained_bundle == self.bundle), None
        )

    def refusal(self, terms: PrivacyTerms, own: PrivacySettings) -> str:
        """Return the word for why the device takes no part under these terms; empty: it does."""
        if not terms.is_asked:
            return ""
        if self.problem:
            return self.problem
        standing = self.standing
        if standing is not None:
            paid = standing.charge.terms
            return EPSILON_SPENT if paid.epsilon > terms.epsilon or paid.delta > terms.delta else ""
        return "" if self.is_affordable(terms, own) else EPSILON_SPENT

    def is_affordable(self, terms: PrivacyTerms, own: PrivacySettings) -> bool:
        """Whether one more training by these terms keeps within `epsilon_max`."""
        try:
            sigma = noise_multiplier_of(terms)
        except InvalidValueError:
            return False
        new = rdp_of(terms.sampling_rate, sigma, terms.steps)
        total = composed(*(entry.charge.rdp for entry in self.entries), new)
        return epsilon_of(total, terms.delta) <= own.epsilon_max


def noise_multiplier_of(terms: PrivacyTerms) -> float:
    """Return the sigma with which a training by these terms costs what they allow.

    Raises:
        InvalidValueError: none is enough.
    """
    return noise_multiplier_for(terms.epsilon, terms.delta, terms.sampling_rate, terms.steps)


def charge_for(terms: PrivacyTerms, bundle: str, at_s: float) -> Charge:
    """Return the charge of a training by these terms; raises as `noise_multiplier_of`."""
    return Charge(int(at_s), bundle, terms, noise_multiplier_of(terms))
