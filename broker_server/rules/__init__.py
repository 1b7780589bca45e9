"""Rules: many devices' soft labels -> one consensus, all behind one interface (`rule.Rule`).

Each has a module with its paper and equation, and a card that says what it needs and promises; `broker-server methods`
prints the cards, docs/methods.md says which to use when. A voice's `weight` fades the last payload of an absent device
in each of them. Rules of other distributions join by an entry point: `broker_server.methods`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from broker_server.rules.card import Card, Need, Promise
from broker_server.rules.comet import Comet
from broker_server.rules.competence import Competence
from broker_server.rules.cronus import Cronus
from broker_server.rules.enhanced_era import EnhancedEra
from broker_server.rules.entropy_weighted import EntropyWeighted
from broker_server.rules.era import Era
from broker_server.rules.expguard import ExpGuard
from broker_server.rules.geometric_median import GeometricMedian
from broker_server.rules.mean_logits import MeanLogits
from broker_server.rules.mean_probabilities import MeanProbabilities
from broker_server.rules.order_statistics import Median, TrimmedMean
from broker_server.rules.per_label import PerLabel
from broker_server.rules.prototypes import Prototypes
from broker_server.rules.rule import (
    Clustering,
    Judging,
    Known,
    RowWeighted,
    Rule,
    Scale,
    Scaled,
    Weigher,
    Weighing,
    by_age,
    scale_of,
    to_row_weights,
    weigher_of,
)
from broker_server.rules.selective import Selective
from broker_server.rules.size_weighted import SizeWeighted
from broker_server.rules.terms import RuleTerms
from broker_server.rules.variance_weighted import VarianceWeighted
from broker_server.rules.voice import Voice, claims_of, heard, normalise, probabilities_of
from broker_server.rules.votes import MajorityVote, WeightedVote

__all__ = [
    "RULES",
    "Card",
    "Clustering",
    "Judging",
    "Known",
    "MakeRule",
    "Need",
    "Promise",
    "RowWeighted",
    "Rule",
    "RuleTerms",
    "Scale",
    "Scaled",
    "Voice",
    "Weigher",
    "Weighing",
    "by_age",
    "claims_of",
    "heard",
    "normalise",
    "probabilities_of",
    "scale_of",
    "to_row_weights",
    "weigher_of",
]
"""The names that a rule of another distribution may build on."""

MakeRule = Callable[[RuleTerms], Rule]

_BUILT_IN: tuple[MakeRule, ...] = (
    lambda terms: Competence(terms.sharpness, terms.clip_rank),
    lambda _: MeanProbabilities(),
    lambda _: MeanLogits(),
    lambda terms: Era(terms.era_temperature),
    lambda terms: EnhancedEra(terms.beta, terms.beta_agreement, terms.entropy_floor),
    lambda terms: EntropyWeighted(terms.least_entropy),
    lambda _: VarianceWeighted(),
    lambda terms: SizeWeighted.of(terms.sizes),
    lambda terms: Selective(terms.farthest),
    lambda _: MajorityVote(),
    lambda _: WeightedVote(),
    lambda _: Median(),
    lambda terms: TrimmedMean(terms.trim),
    lambda _: GeometricMedian(),
    lambda terms: Cronus(terms.cronus_liars),
    lambda terms: ExpGuard(terms.expguard_rate),
    lambda terms: Comet(terms.clusters, terms.cluster_least),
    lambda _: PerLabel(),
    lambda _: Prototypes(),
)

RULES: Mapping[str, MakeRule] = {make(RuleTerms()).card.name: make for make in _BUILT_IN}
"""By name, as their cards have it; the default first."""
