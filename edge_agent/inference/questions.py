"""Asking a person one thing at a time: what is this sample? Pure: time comes with every call.

    CLOSED --an unsure prediction, or a person wants to be asked--> OPEN --answer, skip, or none in `open_s`--> CLOSED

One question is open at most and it is never exchanged for another: whoever answers must not answer a question that came
while they were reading. After it is closed the device is quiet for a while, unless the person asks to be asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.inference.seams import LivePrediction
from edge_agent.inference.settings import AskingTerms


@dataclass(frozen=True, slots=True)
class Asking:
    """Where it stands.

    Attributes:
        question: the one that is open, or None.
        until_s: when an open question is given up.
        quiet_until_s: until when nothing is asked by itself.
        last: the newest prediction, for a person who wants to be asked about it.
    """

    question: LivePrediction | None = None
    until_s: float = 0.0
    quiet_until_s: float = 0.0
    last: LivePrediction | None = None


def predicted(asking: Asking, prediction: LivePrediction, now_s: float, terms: AskingTerms) -> Asking:
    """Return what a new prediction makes of it."""
    asking = ticked(replace(asking, last=prediction), now_s, terms)
    if asking.question is None and prediction.confidence < terms.below and now_s >= asking.quiet_until_s:
        return _opened(asking, prediction, now_s, terms)
    return asking


def wanted(asking: Asking, now_s: float, terms: AskingTerms) -> Asking:
    """A person wants to be asked about what is seen now. An open question stays."""
    asking = ticked(asking, now_s, terms)
    if asking.question is None and asking.last is not None:
        return _opened(asking, asking.last, now_s, terms)
    return asking


def answered(asking: Asking, sample_id: str, now_s: float, terms: AskingTerms) -> Asking:
    """The sample has been labelled or skipped, by whatever way: a question about it is over."""
    asking = ticked(asking, now_s, terms)
    if asking.question is None or asking.question.sample_id != sample_id:
        return asking
    return _closed(asking, now_s, terms)


def ticked(asking: Asking, now_s: float, terms: AskingTerms) -> Asking:
    """Give up a question that nobody has answered."""
    if asking.question is not None and now_s >= asking.until_s:
        return _closed(asking, now_s, terms)
    return asking


def _opened(asking: Asking, prediction: LivePrediction, now_s: float, terms: AskingTerms) -> Asking:
    return replace(asking, question=prediction, until_s=now_s + terms.open_s)


def _closed(asking: Asking, now_s: float, terms: AskingTerms) -> Asking:
    return replace(asking, question=None, quiet_until_s=now_s + terms.quiet_s)
