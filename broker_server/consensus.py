"""From voices to the consensus that is published: the rule, the blocks, what devices have earned, the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from broker_server.core.coverage import coverage, is_far
from broker_server.core.trust import TrustTable
from broker_server.rules import Clustering, Judging, Known, Need, Rule, Scale, Scaled, Weighing, by_age
from broker_server.rules.per_label import speaking_weights
from broker_server.rules.voice import DISTANCE_CODES, WEIGHT_ONE, Voice
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
    """What a round came to.

    Attributes:
        blocks: of the consensus.
        trust: of the devices that spoke, after it.
        metrics: of `events.ConsensusMade`, those of the consensus itself.
        scale: what the voices weighed, where the rule knows it without hearing them again.
    """

    blocks: tuple[ConsensusBlock, ...]
    trust: TrustTable
    metrics: Mapping[str, float]
    scale: Scale | None = None

    @property
    def sha256(self) -> bytes:
        """Identity of all that was made: of the consensus, and of those of clusters where there are any."""
        first = self.blocks[0]
        return sha256(first.consensus_sha256 + first.clusters_sha256) if first.clusters else first.consensus_sha256


def join(
    voices: Iterable[Voice],
    rule: Rule,
    offer: RoundOffer,
    codec: Codec,
    canaries: LabelledProbes,
    *,
    is_judged: bool = False,
) -> Joined:
    """Return the consensus of `voices` on the offered slice.

    Where the rule judges devices, it does so first, by what they say in this very round: a liar is known before it is
    heard, not a round later.

    Args:
        voices: who speak, with the trust that they had before; a collection, unless one pass is all the rule asks for.
        rule: that joins them.
        offer: of the round.
        codec: of the consensus.
        canaries: labels that the server knows.
        is_judged: the voices have the trust that this round gave them; a round is made again.

    Raises:
        UnheardError: no consensus can be made of these voices.
        InvalidValueError: what the rule made is not a consensus of the slice.
    """
    witness = Witness(offer.slice)
    hearing = Heard(voices, witness)
    known = Known(*canaries.within(offer.slice))
    if isinstance(rule, Judging) and not is_judged:
        hearing.judged = rule.judge(hearing, known)
    first, scale = _made(rule, hearing)
    made = [first, *(rule.clusters(hearing) if isinstance(rule, Clustering) else ())]
    codes, *clusters = [quantise(_checked(rows, rule, offer), codec) for rows in made]
    has_maps = Need.COMPETENCE in rule.card.needs
    is_of_labels = has_maps and Need.PUBLIC_SET not in rule.card.needs
    blocks = to_blocks(codes, offer, witness.speaking if is_of_labels else None, clusters, bodies_of(rule))
    trust = {**witness.trust, **hearing.judged} if isinstance(rule, Judging) else {}
    metrics = {**witness.metrics(has_maps=has_maps), **_numbers(first, known)}
    if isinstance(rule, Clustering):
        metrics["clusters"] = float(max(1, len(clusters)))
    return Joined(blocks, TrustTable(offer.slice.classes, trust, rule.card.name), metrics, scale)


def _made(rule: Rule, hearing: Heard) -> tuple[F32, Scale | None]:
    if isinstance(rule, Scaled):
        return rule.scaled(hearing)
    probabilities = rule.consensus(hearing)
    if isinstance(rule, Weighing):
        return probabilities, None
    witness = hearing.witness
    return probabilities, Scale(by_age, np.full(witness.slice.count, witness.weight, np.int64))


def _checked(rows: F32, rule: Rule, offer: RoundOffer) -> SoftLabels:
    labels = SoftLabels(rows, offer.temperature)
    if rows.shape != (offer.slice.count, offer.slice.classes):
        raise InvalidValueError(f"{rule.card.name} made a consensus of shape {list(rows.shape)}")
    return labels


def bodies_of(rule: Rule) -> int:
    """Return how many bodies a block of the rule's consensus may have."""
    return 1 + rule.most_clusters if isinstance(rule, Clustering) else 1


def rows_in_block(classes: int, bytes_per_row: int, bodies: int = 1) -> int:
    """Return how many probes a block has; the same for every round, so that a block always speaks of the same probes.

    Raises:
        InvalidValueError: not even one row fits.
    """
    rows = (MAX_PART_BYTES // bodies - _DEFLATE_MARGIN_BYTES) // bytes_per_row
    if rows < 1:
        raise InvalidValueError(f"a row of {classes} classes does not fit a block of {MAX_PART_BYTES} bytes")
    return rows


def to_blocks(
    codes: Codes,
    offer: RoundOffer,
    voices: I64 | None = None,
    clusters: Sequence[Codes] = (),
    bodies: int = 1,
) -> tuple[ConsensusBlock, ...]:
    """Cut a consensus into the blocks that are published.

    Args:
        codes: of the consensus.
        offer: of the round.
        voices: the weight behind each row [n], where it is told.
        clusters: of each cluster's own consensus.
        bodies: that a block must have room for.

    Raises:
        InvalidValueError: it needs more blocks than there may be.
    """
    whole, rows = offer.slice, rows_in_block(codes.classes, codes.array.shape[1], bodies)
    starts = range(0, len(codes), rows)
    if len(starts) > MAX_PARTS:
        raise InvalidValueError(f"the consensus needs {len(starts)} of at most {MAX_PARTS} blocks")
    cuts = [range(start, min(start + rows, len(codes))) for start in starts]
    own = [_body(codes, cut) for cut in cuts]
    others = [tuple(_body(each, cut) for each in clusters) for cut in cuts]
    digest = sha256(b"".join(own))
    clusters_digest = sha256(b"".join(body for each in others for body in each)) if clusters else b""
    return tuple(
        ConsensusBlock(
            round=offer.round,
            consensus_sha256=digest,
            block=index,
            blocks=len(cuts),
            slice=Slice(whole.public_set, whole.start + cut.start, len(cut), whole.classes),
            temperature=offer.temperature,
            codec=codes.codec,
            body=body,
            voices=() if voices is None else tuple(voices[cut.start : cut.stop].tolist()),
            clusters=bodies_beside,
            clusters_sha256=clusters_digest,
        )
        for index, (cut, body, bodies_beside) in enumerate(zip(cuts, own, others, strict=True))
    )


def _body(codes: Codes, cut: range) -> bytes:
    return encode_body(Codes(codes.codec, codes.classes, codes.array[cut.start : cut.stop], codes.top_k))


@dataclass(slots=True)
class Witness:
    """Keeps, as voices pass for the first time, what coverage is made of: counts a probe, the trust of each device."""

    slice: Slice
    counts: I64 = field(init=False)
    speaking: I64 = field(init=False)
    absent: int = 0
    far: int = 0
    weight: int = 0
    """Of all voices together."""
    trust: dict[str, I64] = field(default_factory=dict)
    """What each device had before this round."""

    def __post_init__(self) -> None:
        self.counts = np.zeros((DISTANCE_CODES, self.slice.count), np.int64)
        self.speaking = np.zeros(self.slice.count, np.int64)

    def see(self, voice: Voice) -> None:
        self.counts[voice.distances, np.arange(self.slice.count)] += 1
        self.speaking += speaking_weights(voice)
        self.absent += voice.weight < WEIGHT_ONE
        self.weight += voice.weight
        self.far += is_far(voice.distances)
        self.trust[voice.device] = voice.trust

    def metrics(self, *, has_maps: bool) -> dict[str, float]:
        """Return what an operator may want to know; of coverage nothing where devices were not asked for maps."""
        told = {"voices": float(self.counts[:, 0].sum()), "absent_voices": float(self.absent)}
        if not has_maps:
            return told
        covered = coverage(self.counts, self.far)
        return {**told, "uncovered_probes": covered.uncovered, "far_devices": covered.far_devices}


@dataclass(slots=True)
class Heard:
    """The voices as a rule hears them: a witness sees each once; those that were judged have their new trust."""

    voices: Iterable[Voice]
    witness: Witness
    judged: Mapping[str, I64] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Voice]:
        for voice in self.voices:
            if voice.device not in self.witness.trust:
                self.witness.see(voice)
            yield replace(voice, trust=self.judged[voice.device]) if voice.device in self.judged else voice


def _numbers(probabilities: F32, known: Known) -> dict[str, float]:
    """What an operator may want to know of the consensus itself."""
    p: npt.NDArray[np.float64] = probabilities.astype(np.float64)
    numbers = {"entropy_nats": float(-(p * np.log(np.maximum(p, 1e-12))).sum(axis=1).mean())}
    if len(known):
        right = p[known.rows].argmax(axis=1) == known.labels
        numbers["canary_accuracy"] = float(right.mean())
    return numbers
