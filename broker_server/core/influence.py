"""What the consensus owes to each device: its accuracy on labelled probes with the device, less that without it.

    influence_k = accuracy(rule(all)) - accuracy(rule(all but k))

Leave-one-out is what a federation would lose tomorrow, not what is fair: two devices that know the same have none each
(Ghorbani and Zou 2019 argue for Shapley values, whose cost is exponential). Below 0: the consensus is better without
the device, which lies, or is wrong. What a device itself gained is another number (`gains`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from broker_server.rules import Known, Promise, Rule, Voice
from fd_protocol.quantisers import I64

MOST_VOICES, MOST_PATIENT_VOICES = 100, 30
"""Of more devices it is not asked, for its cost is quadratic: with rules that hear voices once, and with the others."""
MOST_CELLS = 4 << 20
"""Of all voices on the labelled probes: 32 MB."""


def leave_one_out(
    rule: Rule, voices: Sequence[Voice], rows: I64, labels: I64, *, devices: Collection[str] | None = None
) -> Mapping[str, float]:
    """Return {device: influence}, by the server's own rule, exactly; a consensus of nobody guesses.

    The cost is that of one consensus of the labelled rows per device asked: name `devices` where there are many.

    Args:
        rule: that joins them.
        voices: all who were heard.
        rows: labelled probes, by their place in the voices' arrays.
        labels: the class of each.
        devices: whom to ask about; None = everyone.
    """
    return _influences(rule, [on_rows(voice, rows) for voice in voices], labels, devices)


def on_rows(voice: Voice, rows: I64) -> Voice:
    """A consensus is made probe by probe: on some probes alone it is the same there."""
    return replace(voice, integers=voice.integers[rows], distances=voice.distances[rows])


@dataclass(slots=True)
class Gathered:
    """What voices say of labelled probes, kept as they pass while they are few enough to ask each one's influence.

    Attributes:
        rule: that joins them.
        known: the probes and their labels.
    """

    rule: Rule
    known: Known
    _voices: list[Voice] = field(default_factory=list)
    _cells: int = 0

    def take(self, voice: Voice) -> None:
        """Keep a voice; once there are too many, none."""
        if not len(self.known) or self._cells < 0:
            return
        kept = on_rows(voice, self.known.rows)
        self._voices.append(kept)
        self._cells += kept.integers.size
        most = MOST_VOICES if Promise.HEARS_ONCE in self.rule.card.promises else MOST_PATIENT_VOICES
        if len(self._voices) > most or self._cells > MOST_CELLS:
            self._voices.clear()
            self._cells = -1

    def influences(self) -> Mapping[str, float]:
        """Return the influence of each device; {} where there are too many to ask, or no labelled probes."""
        return _influences(self.rule, self._voices, self.known.labels, None) if self._voices else {}


def _influences(rule: Rule, known: Sequence[Voice], labels: I64, devices: Collection[str] | None) -> dict[str, float]:
    together, influences = _accuracy(rule, known, labels), {}
    for voice in known:
        if devices is None or voice.device in devices:
            others = [other for other in known if other is not voice]
            chance = 1 / voice.integers.shape[1]
            influences[voice.device] = together - (_accuracy(rule, others, labels) if others else chance)
    return influences


def _accuracy(rule: Rule, voices: Sequence[Voice], labels: I64) -> float:
    return float((rule.consensus(voices).argmax(axis=1) == labels).mean())
