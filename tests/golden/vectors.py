"""The values whose bytes must never change, and the writer of the files beside this one.

    messages.json    name -> the message's fields and its bytes
    bodies.json      name -> soft labels, codes, packed codes, a body, a body against a base, integers
    competence.json  distances, codes, packed codes, a body

A file is what another implementation tests itself with. `python -m tests.golden.vectors` adds vectors that are missing
and never touches one that is there: bytes that were once on a wire stay readable.

Bodies are deflated, and every deflate may write other bytes: compare what they inflate to (`packed`), read any.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from fd_protocol import codec
from fd_protocol.competence import encode_map, quantise_distances
from fd_protocol.identity import RoundId
from fd_protocol.label_set import label_set
from fd_protocol.messages import (
    Codec,
    Command,
    CommandState,
    CompetenceMap,
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Part,
    Prediction,
    PrivacyTerms,
    ProbeNotice,
    PublicSetRef,
    Receipt,
    Release,
    RoundOffer,
    RoundReport,
    Sampling,
    ServerState,
    Slice,
    StagedRelease,
    Status,
    TrainingTerms,
)
from fd_protocol.payload import Codes, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels

FOLDER = Path(__file__).parent

DIGEST = bytes(range(32))
OTHER = bytes(range(32, 64))
ROUND = RoundId("demo", 0x1234_5678_9ABC_DEF0, 7)
SLICE = Slice(DIGEST, 500, 1000, 10)
OFFER = RoundOffer(
    round=ROUND,
    remaining_s=60,
    deadline_utc_s=1_800_000_000,
    quorum=5,
    sampling=Sampling(bytes(range(16)), 0.5),
    method="competence",
    temperature=2.0,
    codec=Codec.U8_SQRT,
    slice=SLICE,
    task=OTHER,
    byte_budget=65_536,
    training=TrainingTerms(4, 5e-3, 0.25, 20),
    shards=4,
    competence=True,
    bundles=(DIGEST, OTHER),
)
PART = Part(ROUND, Kind.CONTRIBUTION, DIGEST, 5, b"abc", 0, 2)
CONTRIBUTION = Contribution(SLICE, 2.0, Codec.U4_SQRT, b"body", OTHER)
MAP = CompetenceMap(DIGEST, 1000, b"body", 3)
REFUSAL = Receipt(ROUND, Kind.CONTRIBUTION, DIGEST, Status.REFUSED, "over_budget")
GAPS = Receipt(ROUND, Kind.COMPETENCE, DIGEST, Status.MISSING, missing=(1, 3))
BLOCK = ConsensusBlock(ROUND, DIGEST, 1, 2, SLICE, 2.0, Codec.U8_SQRT, b"body")
LABEL_BLOCK = ConsensusBlock(
    ROUND, DIGEST, 0, 1, Slice(label_set(OTHER), 0, 3, 3), 2.0, Codec.U8_SQRT, b"body", (8192, 4096, 0)
)
CLUSTER_BLOCK = dataclasses.replace(BLOCK, clusters=(b"one", b"other"), clusters_sha256=OTHER)
BIRTH = DeviceState(
    3, True, "fedistill 0.1.0", DIGEST, OTHER, "cnn-s", "onnxruntime", ("u8-sqrt", "delta"), "disk_full"
)
SERVER = ServerState(True, 0x1234_5678_9ABC_DEF0, "0.1.0")
COMMAND = Command("0123456789abcdef", "config", CommandState.INIT, 1_800_000_000, {"model.threads": "2"})
FAILURE = dataclasses.replace(COMMAND, state=CommandState.FAILED, reason="rolled_back: not connected")
REPORT = RoundReport(ROUND, DIGEST, False, "worse than the last release", {"loss": 0.5, "accuracy": 0.875})

MESSAGES = {
    "round-offer": OFFER,
    "round-offer, top-k, defaults": RoundOffer(
        ROUND, 60, 1_800_000_000, 1, Sampling(bytes(16)), "mean", 1.0, Codec.TOP_K, SLICE, DIGEST, 1, TrainingTerms(), 3
    ),
    "round-offer, by name": dataclasses.replace(OFFER, devices=("kettle", "press-3")),
    "round-offer, under privacy": dataclasses.replace(
        OFFER, competence=False, privacy=PrivacyTerms(8.0, 1e-6, 200, 0.25, 0.5, 1e-2, 512)
    ),
    "part": PART,
    "part, single": Part(ROUND, Kind.COMPETENCE, OTHER, 3, b"abc"),
    "contribution": CONTRIBUTION,
    "contribution, top-k, no base": Contribution(SLICE, 2.0, Codec.TOP_K, b"body", top_k=3),
    "competence-map": MAP,
    "receipt, stored": Receipt(ROUND, Kind.CONTRIBUTION, DIGEST, Status.STORED),
    "receipt, duplicate": Receipt(ROUND, Kind.CONTRIBUTION, DIGEST, Status.DUPLICATE),
    "receipt, refused": REFUSAL,
    "receipt, missing": GAPS,
    "consensus-block": BLOCK,
    "consensus-block, of labels": LABEL_BLOCK,
    "consensus-block, with clusters": CLUSTER_BLOCK,
    "device-state, birth": BIRTH,
    "device-state, will": DeviceState(3, False),
    "server-state": SERVER,
    "server-state, will": ServerState(False, 7),
    "release": Release("cnn-s", DIGEST, "2", OTHER, DIGEST, 14_440, True),
    "release, back to the first": Release("cnn-s", DIGEST, "1"),
    "release, staged": Release(
        "cnn-s", OTHER, "1", staged=StagedRelease(DIGEST, "2", OTHER, 14_440, OTHER, 0.25, (DIGEST[:8],))
    ),
    "prediction": Prediction("8c1f2a90d3b74e65", "kettle on", 0.875),
    "device-state, birth with public sets": dataclasses.replace(BIRTH, public_sets=(DIGEST, OTHER)),
    "probe-notice": ProbeNotice(PublicSetRef(DIGEST, 1000, 784_000), (PublicSetRef(OTHER, 2000, 1_568_000),)),
    "probe-notice, nothing coming": ProbeNotice(PublicSetRef(DIGEST, 1000, 784_000)),
    "command, init": COMMAND,
    "command, executing": dataclasses.replace(COMMAND, state=CommandState.EXECUTING, step="health"),
    "command, failed": FAILURE,
    "command, successful": Command("7", "diag", CommandState.SUCCESSFUL, 1, result={"phase": "idle", "boot": "3"}),
    "round-report": REPORT,
    "round-report, defaults": RoundReport(ROUND, OTHER, True),
}

ROWS = [[0.5, 0.25, 0.125, 0.0625, 0.0625], [0.04, 0.9, 0.03, 0.02, 0.01], [0.2, 0.2, 0.2, 0.2, 0.2], [0, 0, 0, 0, 1]]
BASE_ROWS = [[0.4, 0.35, 0.125, 0.0625, 0.0625], [0.04, 0.91, 0.02, 0.02, 0.01], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
CODINGS = {
    "f16": (Codec.F16, 0),
    "u8-sqrt": (Codec.U8_SQRT, 0),
    "u4-sqrt": (Codec.U4_SQRT, 0),
    "top-k": (Codec.TOP_K, 2),
    "top-k-zipf": (Codec.TOP_K_ZIPF, 2),
    "top-1": (Codec.TOP_1, 0),
}
DISTANCES = [0.0, 1.3, 1.4, 1.8, 1.9, 2.3, 2.4, 100.0, 0.5]


def labels_of(rows: list[list[float]]) -> SoftLabels:
    return SoftLabels(np.array(rows, np.float32), 2.0)


def message_vector(message: object) -> dict[str, Any]:
    return {"fields": plain(message), "bytes": codec.encode(message).hex()}


def body_vector(coding: Codec, top_k: int) -> dict[str, Any]:
    codes, base = (quantise(labels_of(rows), coding, top_k) for rows in (ROWS, BASE_ROWS))
    return {
        "codec": coding.value,
        "classes": len(ROWS[0]),
        "top_k": top_k,
        "probabilities": ROWS,
        "codes": codes.array.tolist(),
        "integers": codes.integers().tolist(),
        "base_codes": base.array.tolist(),
        **bodies_of(codes, None, ""),
        **bodies_of(codes, base, "difference_"),
    }


def bodies_of(codes: Codes, base: Codes | None, prefix: str) -> dict[str, str]:
    body = encode_body(codes, base)
    return {f"{prefix}packed": zlib.decompress(body).hex(), f"{prefix}body": body.hex()}


def competence_vector() -> dict[str, Any]:
    codes = quantise_distances(np.array(DISTANCES))
    body = encode_map(codes)
    packed = zlib.decompress(body).hex()
    return {"distances": DISTANCES, "codes": codes.tolist(), "packed": packed, "body": body.hex()}


def plain(value: Any) -> Any:
    """The value as JSON has it: bytes in hexadecimal, fields by name."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [plain(member) for member in value]
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def read(name: str) -> dict[str, Any]:
    path = FOLDER / name
    return json.loads(path.read_text()) if path.exists() else {}


def add_missing(name: str, vectors: dict[str, Any]) -> None:
    merged = {**vectors, **read(name)}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in sorted(merged.items())]
    (FOLDER / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> None:
    add_missing("messages.json", {name: message_vector(message) for name, message in MESSAGES.items()})
    add_missing("bodies.json", {name: body_vector(*coding) for name, coding in CODINGS.items()})
    add_missing("competence.json", {"map": competence_vector()})


if __name__ == "__main__":
    main()
