"""The server's own file of canaries, which must fit its public set; several made of one."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.documents import InvalidDocumentError, Place, from_json
from fd_protocol.errors import InvalidValueError
from fd_runtime.config import EX_CONFIG


class InvalidCanariesError(InvalidDocumentError):
    """A file of canaries is wrong at a key, or belongs to another public set."""

    exit_code = EX_CONFIG


def load_canaries(path: Path, *, public_set: bytes, count: int, classes: int) -> Canaries:
    """Return the canaries in the file at `path`.

    Args:
        path: what `Canaries.to_json` wrote.
        public_set: digest of the set that they must belong to.
        count: probes of that set.
        classes: of its task.

    Raises:
        InvalidCanariesError: they do not fit the public set, or this is no such file.
    """
    place, canaries = Place(path, InvalidCanariesError), read_canaries(path)
    if canaries.public_set_sha256 != public_set.hex():
        place.inside("public_set_sha256").fail("belongs to another public set")
    for name, known in (("trust", canaries.trust), ("release", canaries.release)):
        if max(known.probes, default=0) >= count or max(known.labels, default=0) >= classes:
            place.inside(name).fail(f"a probe is not below {count}, or a label not below {classes}")
    return canaries


def read_canaries(path: Path) -> Canaries:
    """Return the canaries in a file, of whatever public set.

    Raises:
        InvalidCanariesError: this is no such file.
    """
    place = Place(path, InvalidCanariesError)
    try:
        return from_json(Canaries, path.read_bytes(), place)
    except OSError as error:
        place.fail(f"cannot be read: {error.strerror}")


def deal(canaries: Canaries, hands: int, rng: random.Random) -> tuple[Canaries, ...]:
    """Return canaries of one public set as several disjoint ones, so that there are others when these have leaked.

    Each hand has its part of those for trust and of those for release, drawn at random.

    Raises:
        InvalidValueError: there are too few for so many hands.
    """
    if hands < 2:
        raise InvalidValueError("canaries are dealt to at least 2 hands")
    trust, release = (_dealt(known, hands, rng) for known in (canaries.trust, canaries.release))
    return tuple(replace(canaries, trust=trust[hand], release=release[hand]) for hand in range(hands))


def _dealt(known: LabelledProbes, hands: int, rng: random.Random) -> list[LabelledProbes]:
    pairs = list(zip(known.probes, known.labels, strict=True))
    if pairs and len(pairs) < hands:
        raise InvalidValueError(f"{len(pairs)} canaries are too few for {hands} hands")
    rng.shuffle(pairs)
    parts = [sorted(pairs[hand::hands]) for hand in range(hands)]
    return [LabelledProbes(tuple(p for p, _ in part), tuple(label for _, label in part)) for part in parts]
