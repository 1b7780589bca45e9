"""The labels of a task in the place of a public set: probe y is "your own rows of label y" (docs/adr/0013).

A device's soft labels for it are its mean softened output over its own rows of each label, FD's table (Jeong et al.
2018, algorithm 1). Its competence map says of which labels it speaks: code `SPEAKS` for those, `FAR` for the others.

No numpy here: supervisors read it.
"""

from __future__ import annotations

from fd_protocol.identity import check_digest, sha256

MIN_LABEL_ROWS = 11
"""Of a label that a device speaks of: the mean of fewer rows would tell of single ones, as in the competence map."""
SPEAKS = 0
VOICE_ONE = 1 << 12
"""What a device that spoke this round weighs in `ConsensusBlock.voices`; an absent one's last words weigh less."""
_PREFIX = b"fedistill label set\n"


def label_set(task: bytes) -> bytes:
    """Return the identity of the label set of the task with digest `task`, where others have a public set's."""
    return sha256(_PREFIX + check_digest(task, "task"))
