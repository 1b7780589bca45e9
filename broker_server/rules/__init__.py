"""Rules: many devices' soft labels -> one consensus. All behind one interface, none with a memory.

    name                 consensus on a probe                           from
    mean-probabilities   mean of p_k                      Itahara et al. 2021 (DS-FL), SA
    mean-logits          softmax(mean of log p_k)         Li and Wang 2019 (FedMD), algorithm 1
    era                  softmax((mean of p_k) / T)       Itahara et al. 2021 (DS-FL), ERA
    competence           sum w_k t_k p_k / sum w_k t_k    docs/adr/0004-methods.md
    per-label            mean of p_k, probes are labels   Jeong et al. 2018 (FD), algorithm 1

A voice's `weight` fades the last payload of an absent device in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from broker_server.rules.competence import Competence
from broker_server.rules.era import Era
from broker_server.rules.mean_logits import MeanLogits
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.per_label import PER_LABEL, PerLabel
from broker_server.rules.voice import Voice
from fd_protocol.errors import InvalidValueError
from fd_protocol.soft_labels import F32


class Rule(Protocol):
    """How a consensus is made. A rule is a value; its fields are its constants."""

    @property
    def needs_competence(self) -> bool:
        """Whether devices must be asked for their maps."""
        ...

    def consensus(self, voices: Iterable[Voice]) -> F32:
        """Return float32 [n, classes], rows summing to 1, bit for bit the same for any order of `voices`.

        The voices are heard once, one at a time: memory does not grow with their number.

        Raises:
            UnheardError: no voice, one device twice, different shapes, or too many.
        """
        ...


@dataclass(frozen=True, slots=True)
class RuleTerms:
    """The constants of all rules; each reads its own.

    Attributes:
        sharpness: competence: b of exp(-b (d_k - d_(m))).
        clip_rank: competence: m, one more than the attackers assumed.
        era_temperature: era: T.
    """

    sharpness: float = 12.0
    clip_rank: int = 2
    era_temperature: float = 0.1

    def __post_init__(self) -> None:
        if self.sharpness <= 0 or self.clip_rank < 1 or self.era_temperature <= 0:
            raise InvalidValueError("sharpness and era_temperature are above 0, clip_rank is at least 1")


RULES: Mapping[str, Callable[[RuleTerms], Rule]] = {
    "mean-probabilities": lambda _: MeanProbabilities(),
    "mean-logits": lambda _: MeanLogits(),
    "era": lambda terms: Era(terms.era_temperature),
    "competence": lambda terms: Competence(terms.sharpness, terms.clip_rank),
    PER_LABEL: lambda _: PerLabel(),
}


def rule_named(name: str, terms: RuleTerms) -> Rule:
    """Return the rule.

    Raises:
        InvalidValueError: there is none of this name.
    """
    if name not in RULES:
        raise InvalidValueError(f"no method {name!r}; there are {', '.join(RULES)}")
    return RULES[name](terms)
