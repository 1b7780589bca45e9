"""A round made again from what the server kept of it: the same consensus, or what another rule would have said.

    record of the round: offer, rule and its constants, digest of the trust  --+
    hearings with a weight: digests of labels and map, weight                 --+--> voices --rule--> consensus

Kept are the last rounds (`settings.RecordSettings.replayable_rounds`). The voices are those of then: as faded, as
trusted and with the maps that counted. The identity of a consensus covers its deflated bodies, so it comes out the
same, bit for bit, where NumPy and zlib are those that made it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from broker_server.consensus import Joined
from broker_server.core.standing import Source, Standing, chosen_classes, numbers
from broker_server.core.trust import TrustTable
from broker_server.forming import form
from broker_server.methods import rule_named
from broker_server.records.chronicle import Chronicle, RoundRecord
from broker_server.rules import Rule, RuleTerms
from broker_server.voices import Absence, Speakers
from fd_protocol import codec
from fd_protocol.canaries import LabelledProbes
from fd_protocol.documents import InvalidDocumentError, Place, build
from fd_protocol.errors import FedistillError
from fd_protocol.messages import RoundOffer
from fd_runtime.artifacts import EX_NOINPUT
from fd_runtime.storage.store import MissingBlobError


class NotReplayableError(FedistillError):
    """What a round was made of is not kept, or not any more."""

    exit_code = EX_NOINPUT


class GoneError(NotReplayableError):
    """The round is older than those that are kept, and so are those before it."""


@dataclass(frozen=True, slots=True)
class Remade:
    """A consensus that was made again."""

    joined: Joined
    standings: tuple[Standing, ...]

    @property
    def sha256(self) -> bytes:
        return self.joined.sha256

    @property
    def metrics(self) -> dict[str, float]:
        return {**self.joined.metrics, **numbers(self.standings)}


@dataclass(frozen=True, slots=True)
class Rerun:
    """A rule to make a round's consensus by: None and nothing = as it was.

    Attributes:
        method: name of the rule.
        terms: constants that differ from the round's own, as in `rules.RuleTerms`.
    """

    method: str | None = None
    terms: Mapping[str, Any] | None = None


def remake(
    chronicle: Chronicle, record: RoundRecord, rerun: Rerun | None = None, canaries: LabelledProbes | None = None
) -> Remade:
    """Return the consensus of a round's voices.

    Args:
        chronicle: of the federation.
        record: of the round.
        rerun: by which rule.
        canaries: that judge the result, and where the rule is another one the devices too.

    Raises:
        NotReplayableError: the round made no consensus, or not all of its voices are known; GoneError: not any more.
        InvalidValueError, InvalidDocumentError: there is no such rule, or no such constant.
    """
    rerun = rerun or Rerun()
    offer = codec.decode(record.offer, RoundOffer)
    rule = rule_named(rerun.method or record.method, _terms(record, rerun.terms or {}))
    store = chronicle.store
    with store.moment():
        try:
            trust, is_judged = _trust(chronicle, record, rule, offer.slice.classes), rule.card.name == record.method
            speakers = Speakers(store, chronicle.federation, Absence(), trust)
            sources, known = tuple(_sources(chronicle, record)), canaries or LabelledProbes()
            joined, standings = form(lambda: speakers.recall(sources, offer), rule, offer, known, is_judged=is_judged)
        except MissingBlobError as error:
            raise GoneError(f"round {record.number}: its contributions are not kept any more") from error
    return Remade(joined, standings)


def agreement(one: Remade, other: Remade) -> float:
    """Return the share of probes on which two consensuses hold the same class likeliest."""
    return float((chosen_classes(one.joined.blocks) == chosen_classes(other.joined.blocks)).mean())


def _sources(chronicle: Chronicle, record: RoundRecord) -> Iterator[Source]:
    heard = [one for one in chronicle.hearings(record.epoch, record.number) if one.weight]
    if not heard:
        raise NotReplayableError(f"round {record.number}: no voice is on record")
    for one in heard:
        yield Source(one.device, one.sha256, one.labels, one.map, one.weight)


def _trust(chronicle: Chronicle, record: RoundRecord, rule: Rule, classes: int) -> TrustTable:
    """Return the trust that the round gave the devices; to another rule they are strangers, and it judges them anew."""
    if not record.trust or rule.card.name != record.method:
        return TrustTable(classes)
    return TrustTable.from_bytes(chronicle.store.blob(record.trust), classes)


def _terms(record: RoundRecord, changes: Mapping[str, Any]) -> RuleTerms:
    """Tables, which hold constants of rules of other distributions, are changed key by key."""
    known = json.loads(record.terms)
    for name, change in changes.items():
        known[name] = {**known.get(name, {}), **change} if isinstance(change, Mapping) else change
    return build(RuleTerms, known, Place("terms", InvalidDocumentError))
