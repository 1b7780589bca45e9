"""[store]: what of the samples that come in is kept on the device, how much of it, for how long, and behind which key.

Keys of the section are the fields of `StoreSettings`; without the section nothing is kept. Nothing here brings an array
library: the supervisor reads it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.local_broker import LocalBrokerSettings
from fd_protocol.identity import require


@dataclass(frozen=True, slots=True)
class GuessSettings:
    """[store.guesses]: rows that nobody labelled, under the label that the model itself is sure of (pseudo-labels).

    Attributes:
        confidence: least probability of the guess.
        share: of `rows` at most; a guess never takes the place of a row that somebody labelled, and is never held out.
    """

    confidence: float = 0.99
    share: float = 0.25

    def __post_init__(self) -> None:
        require(0.5 < self.confidence <= 1, "the confidence of a guess lies over 0.5, and is at most 1")
        require(0 < self.share <= 0.5, "guesses have a share over 0, and at most 0.5")


@dataclass(frozen=True, slots=True)
class LateLabelSettings:
    """[store.late_labels]: a topic on which labels come after their samples, keyed by sample id.

    A message is JSON, or the bare label where `label` is empty.

    Attributes:
        broker: where.
        topic: a filter.
        id: dotted path of the sample id in the message; empty = the last level of the topic.
        label: dotted path of the label, a class name or number; empty = the whole message is the label.
    """

    broker: LocalBrokerSettings
    topic: str
    id: str = "id"
    label: str = "label"

    def __post_init__(self) -> None:
        require(bool(self.topic), "late labels come on a topic")
        require(bool(self.label) or not self.id, "a message that is a bare label has no path of an id: id = ''")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """The private store.

    Attributes:
        megabytes: most that its files take on disk.
        rows: most rows of all kinds; fewer fit where samples are large.
        age_days: rows older than that are deleted, whatever they are.
        questions: unlabelled rows to ask a person about, the least sure of all that came by.
        question_days: how long an asked question waits for its answer.
        question_every_s: of what one source saw within that time only the least sure row is asked about.
        awaiting: unlabelled rows, the newest, that wait for labels to come late. Each costs a write to the disk.
        key_file: 32 bytes, or 64 hexadecimal digits, readable by the owner alone; what is kept is encrypted with them.
            Made where it is missing and nothing was encrypted yet.
        credential: the same as a credential of systemd, by its name.
    """

    megabytes: int = 64
    rows: int = 2000
    age_days: float = 365.0
    questions: int = 50
    question_days: float = 7.0
    question_every_s: float = 60.0
    awaiting: int = 0
    key_file: Path | None = None
    credential: str | None = None
    guesses: GuessSettings | None = None
    late_labels: LateLabelSettings | None = None

    def __post_init__(self) -> None:
        require(1 <= self.megabytes <= 1 << 20, "megabytes lie in 1..1048576")
        require(1 <= self.rows <= 1_000_000, "rows lie in 1..1000000")
        require(self.age_days > 0 and self.question_days > 0, "rows and questions live longer than 0 days")
        require(
            0 <= self.questions <= 1000 and self.question_every_s >= 0, "questions lie in 0..1000, 0 s or more apart"
        )
        require(0 <= self.awaiting <= 1_000_000, "awaiting lies in 0..1000000")
        require(self.key_file is None or self.credential is None, "there is one key: key_file, or credential")
        require(self.late_labels is None or self.awaiting > 0, "late labels need rows that wait for them: awaiting > 0")
