"""What dishonest devices send in the place of their soft labels. One small file per family of attacks.

An attack is a function `Knowledge -> probabilities float32 [n, classes]`, and a threat model that says what of the
knowledge it is given (`Sees`). `Ring` holds what the attackers of a federation share, `Liar` is one of them on its
device. Apart from what it answers, an attacker may claim to stand everywhere: `claims` of `AttackTerms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fd_runtime.models.model import F32
from fleet_sim.attacks.canary_guessers import honest_on_guesses
from fleet_sim.attacks.cpa import least_similar
from fleet_sim.attacks.fdla import peaked, rotated
from fleet_sim.attacks.free_rider import constant, indifferent, replayed
from fleet_sim.attacks.hips import least_similar_said, most_lossy
from fleet_sim.attacks.knowledge import Knowledge, Sees
from fleet_sim.attacks.label_flip import relabelled
from fleet_sim.attacks.lma import least_likely
from fleet_sim.attacks.overclaim import as_it_thinks
from fleet_sim.attacks.random_labels import random_one_hot
from fleet_sim.attacks.second_best import second_likeliest
from fleet_sim.attacks.sybils import same_lie
from fleet_sim.attacks.top_k import impersonated


@dataclass(frozen=True, slots=True)
class Attack:
    """How to lie.

    Attributes:
        answer: what to send, float32 [n, classes]; rows sum to 1.
        sees: the threat model: what `answer` is given to know.
        summary: what it says, in one line.
    """

    answer: Callable[[Knowledge], F32]
    sees: Sees
    summary: str

    @property
    def threat_model(self) -> str:
        """What the attacker knows, in words."""
        return " and ".join(["its own model", *(words for sight, words in _IN_WORDS.items() if sight in self.sees)])


_IN_WORDS = {
    Sees.CONSENSUS: "the last consensus",
    Sees.ACCOMPLICES: "its accomplices' answers",
    Sees.HONEST: "every honest answer",
}
_OWN, _CONSENSUS, _ACCOMPLICES, _HONEST = Sees.OWN_MODEL_ONLY, Sees.CONSENSUS, Sees.ACCOMPLICES, Sees.HONEST

ATTACKS: Mapping[str, Attack] = {
    "lma": Attack(least_likely, _HONEST, "certain of the class that the honest think least likely"),
    "cpa": Attack(least_similar, _HONEST, "certain of the class least like the one the honest think likeliest"),
    "second-best": Attack(second_likeliest, _HONEST, "certain of the class that the honest think second likeliest"),
    "random": Attack(random_one_hot, _OWN, "certain of a class drawn anew for every probe"),
    "hips-lma": Attack(most_lossy, _HONEST, "the honest answer that costs the mean most, probe by probe"),
    "hips-cpa": Attack(least_similar_said, _HONEST, "the honest answer most for unlike classes, probe by probe"),
    "fdla": Attack(rotated, _OWN, "its own answer, each confidence moved to the next likely class"),
    "pcfdla": Attack(peaked, _OWN, "a peak of fixed height on its own second likeliest class"),
    "top-k": Attack(impersonated, _HONEST, "the most typical honest answer, turned over where it is surest"),
    "free-rider-uniform": Attack(indifferent, _OWN, "every class alike"),
    "free-rider-constant": Attack(constant, _OWN, "certain of the target class, always"),
    "free-rider-replay": Attack(replayed, _CONSENSUS, "the last consensus"),
    "label-flip": Attack(relabelled, _OWN, "its own answer, with the source class called the target class"),
    "canary-guessers": Attack(
        honest_on_guesses, _CONSENSUS | _ACCOMPLICES, "the truth where all agree, since canaries may lie there"
    ),
    "sybils": Attack(same_lie, _ACCOMPLICES, "one random lie, the same from every attacker but for noise"),
    "overclaim": Attack(as_it_thinks, _OWN, "its own answer: only its claims are false"),
}
