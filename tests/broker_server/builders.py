"""Values that tests of the server share."""

from broker_server.core.events import ConsensusMade, ContributionsStored, RoundOpened, Stored
from fd_protocol.identity import RoundId, sha256
from fd_protocol.messages import Codec, RoundOffer, Sampling, Slice, TrainingTerms

FED, EPOCH = "demo", 7
PUBLIC_SET, TASK = sha256(b"public set"), sha256(b"task")


def round_id(number=1, epoch=EPOCH, federation=FED):
    return RoundId(federation, epoch, number)


def offer(number=1, epoch=EPOCH, **changes):
    terms = {
        "round": round_id(number, epoch),
        "remaining_s": 60,
        "deadline_utc_s": 0,
        "quorum": 2,
        "sampling": Sampling(bytes(16)),
        "method": "competence",
        "temperature": 2.0,
        "codec": Codec.U8_SQRT,
        "slice": Slice(PUBLIC_SET, 0, 20, 3),
        "task": TASK,
        "byte_budget": 10_000,
        "training": TrainingTerms(),
    }
    return RoundOffer(**{**terms, **changes})


def opened(number=1, invited=("a", "b", "c"), epoch=EPOCH, at_ms=0, **changes):
    return RoundOpened(offer(number, epoch, **changes), tuple(invited), at_ms)


def stored(device, number=1, epoch=EPOCH, payload=None):
    return ContributionsStored(round_id(number, epoch), (Stored(device, sha256((payload or device).encode())),))


def made(number=1, epoch=EPOCH, at_ms=70_000):
    return ConsensusMade(round_id(number, epoch), sha256(b"z"), (sha256(b"block"),), at_ms, trust=sha256(b"trust"))
