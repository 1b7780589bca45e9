"""From voices to the consensus that is published: the rule, the blocks, the trust for the next round, the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from broker_server.coverage import coverage, is_far
from broker_server.rules import Rule
from broker_server.rules.competence import Competence
from broker_server.rules.per_label import PerLabel, speaking_weights
from broker_server.rules.voice import DISTANCE_CODES, WEIGHT_ONE, Voice
from broker_server.trust import TrustTable, earned
from fd_protocol.bodies import U8
from fd_protocol.canaries import LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import MAX_PART_BYTES, MAX_PARTS, Codec, ConsensusBlock, RoundOffer, Slice
from fd_protocol.payload import Codes, encode_body, quantise
from fd_protocol.quantisers import I64
from fd_protocol.soft_labels import F32, SoftLabels

_DEFLATE_MARGIN_BYTES = 100
"""What zlib may add to bytes that do not shrink: 13, and 5 for every 16 KiB."""


@dataclass(frozen=True, slots=True)
class Joined:
    """What a round came to."""

    blocks: tuple[ConsensusBlock, ...]
    trust: TrustTable
    metrics: Mapping[str, float]


def join(voices: Iterable[Voice], rule: Rule, offer: RoundOffer, codec: Codec, canaries: LabelledProbes) -> Joined:
    """Return the consensus of `voices` on the offered slice.

    Raises:
        UnheardError: no consensus can be made of these voices.
    """
    witness = _Witness(offer.slice, canaries)
    labels = SoftLabels(rule.consensus(witness.watch(voices)), offer.temperature)
    blocks = to_blocks(quantise(labels, codec), offer, witness.speaking if isinstance(rule, PerLabel) else None)
    trust = witness.trust(rule) if isinstance(rule, Competence) else TrustTable(offer.slice.classes)
    return Joined(blocks, trust, {**witness.metrics(), **_numbers(labels.probabilities, witness)})


def rows_in_block(classes: int, bytes_per_row: int) -> int:
    """Return how many probes a block has; the same for every round, so that a block always speaks of the same probes.

    Raises:
        InvalidValueError: not even one row fits.
    """
    rows = (MAX_PART_BYTES - _DEFLATE_MARGIN_BYTES) // bytes_per_row
    if rows < 1:
        raise InvalidValueError(f"a row of {classes} classes does not fit a block of {MAX_PART_BYTES} bytes")
    return rows


def to_blocks(codes: Codes, offer: RoundOffer, voices: I64 | None = None) -> tuple[ConsensusBlock, ...]:
    """Cut a consensus into the blocks that are published; `voices` [n] is the weight behind each row, where it is told.

    Raises:
        InvalidValueError: it needs more blocks than there may be.
    """
    whole, rows = offer.slice, rows_in_block(codes.classes, codes.array.shape[1])
    starts = range(0, len(codes), rows)
    if len(starts) > MAX_PARTS:
        raise InvalidValueError(f"the consensus needs {len(starts)} of at most {MAX_PARTS} blocks")
    cuts = [Codes(codes.codec, codes.classes, codes.array[start : start + rows], codes.top_k) for start in starts]
    bodies = [encode_body(cut) for cut in cuts]
    digest = sha256(b"".join(bodies))
    return tuple(
        ConsensusBlock(
            round=offer.round,
            consensus_sha256=digest,
            block=index,
            blocks=len(bodies),
            slice=Slice(whole.public_set, whole.start + start, len(cut), whole.classes),
            temperature=offer.temperature,
            codec=codes.codec,
            body=body,
            voices=() if voices is None else tuple(voices[start : start + len(cut)].tolist()),
        )
        for index, (start, cut, body) in enumerate(zip(starts, cuts, bodies, strict=True))
    )


@dataclass(slots=True)
class _Witness:
    """Keeps, as voices pass, what coverage and trust are made of: a count a probe, a few bytes a device and canary."""

    slice: Slice
    canaries: LabelledProbes
    counts: I64 = field(init=False)
    speaking: I64 = field(init=False)
    rows: I64 = field(init=False)
    labels: I64 = field(init=False)
    absent: int = 0
    far: int = 0
    claims: dict[str, tuple[I64, U8]] = field(default_factory=dict)
    before: dict[str, I64] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = np.zeros((DISTANCE_CODES, self.slice.count), np.int64)
        self.speaking = np.zeros(self.slice.count, np.int64)
        self.rows, self.labels = self.canaries.within(self.slice)

    def watch(self, voices: Iterable[Voice]) -> Iterator[Voice]:
        for voice in voices:
            self.counts[voice.distances, np.arange(self.slice.count)] += 1
            self.speaking += speaking_weights(voice)
            self.absent += voice.weight < WEIGHT_ONE
            self.far += is_far(voice.distances)
            if len(self.rows):
                claimed = voice.integers[self.rows].argmax(axis=1)
                self.claims[voice.device] = claimed, voice.distances[self.rows]
            else:
                self.before[voice.device] = voice.trust
            yield voice

    def trust(self, rule: Competence) -> TrustTable:
        """Return what each device earned on the canaries of this slice; where it has none, what it had before."""
        if not len(self.rows):
            return TrustTable(self.slice.classes, self.before)
        weights = rule.weights(self.counts[:, self.rows]) / WEIGHT_ONE
        rows = np.arange(len(self.rows))
        return TrustTable(
            self.slice.classes,
            {
                device: earned(claimed, self.labels, weights[distances, rows], self.slice.classes)
                for device, (claimed, distances) in self.claims.items()
            },
        )

    def metrics(self) -> dict[str, float]:
        covered = coverage(self.counts, self.far)
        return {
            "voices": float(self.counts[:, 0].sum()),
            "absent_voices": float(self.absent),
            "uncovered_probes": covered.uncovered,
            "far_devices": covered.far_devices,
        }


def _numbers(probabilities: F32, witness: _Witness) -> dict[str, float]:
    """What an operator may want to know of the consensus itself."""
    p: npt.NDArray[np.float64] = probabilities.astype(np.float64)
    numbers = {"entropy_nats": float(-(p * np.log(np.maximum(p, 1e-12))).sum(axis=1).mean())}
    if len(witness.rows):
        right = p[witness.rows].argmax(axis=1) == witness.labels
        numbers["canary_accuracy"] = float(right.mean())
    return numbers
