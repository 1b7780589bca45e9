"""What a contribution costs on the wire: bytes with envelope, loss, time, for each codec, on models that were trained.

    python benchmarks/payload.py                  three small federations, trained here in about half a minute
    python benchmarks/payload.py logits.npz ...   payloads of your own: float [2, devices, probes, classes] per array

Rounds are the last two of 15 (mean of probabilities, joint training, T = 2); `delta` is a difference to the device's
own payload of the round before. H0 is the order-0 entropy of the codes, which no code-by-code coder can beat.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
from sklearn.datasets import load_digits

from fd_protocol import codec
from fd_protocol.bodies import U8, write_body
from fd_protocol.identity import RoundId
from fd_protocol.layout import ThetaLayout
from fd_protocol.messages import Codec, Contribution, Kind, Part, Slice
from fd_protocol.parts import join, split
from fd_protocol.payload import Codes, decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.fitting import FitTerms, LabelledRows, ProbeRows, fit
from fd_runtime.models.model import F32, Features, OptimizerState
from fd_runtime.models.numpy_model import DenseChain, NumpyTail, NumpyTrainSession
from fleet_sim.partitions import Census, Dirichlet
from fleet_sim.worlds import Samples, new_class

TEMPERATURE = 2.0
ROUNDS = 15
HIDDEN = (16, 32, 64)
ROUND = RoundId("benchmark", 1 << 60, ROUNDS)
DIGEST = bytes(32)


@dataclass(frozen=True)
class Task:
    name: str
    private: list[LabelledRows]
    probes: F32
    test: LabelledRows
    learning_rate: float
    hidden: tuple[int, ...] = HIDDEN


def digits(name: str, alpha: float, noise: float, hidden: tuple[int, ...] = HIDDEN) -> Task:
    """8x8 digits, 1000 of them probes; Gaussian noise makes the task as hard as wanted."""
    rng = np.random.default_rng(1)
    values, labels = load_digits(return_X_y=True)
    order = rng.permutation(len(values))
    x = (values[order] / 16 + noise * rng.standard_normal(values.shape)).astype(np.float32)
    y = labels[order].astype(np.int64)
    parts = Dirichlet(alpha).assign(Census(y[1200:]), 10, rng)
    private = [LabelledRows(x[1200:][part], y[1200:][part], 10) for part in parts if len(part)]
    return Task(name, private, x[:1000], LabelledRows(x[1000:1200], y[1000:1200], 10), 5e-3, hidden)


def mnist() -> Task:
    """The demo's world with dense models."""
    world = new_class(0)
    private = [LabelledRows(flat(part), part.labels, 10) for part in world.private if len(part)]
    test = LabelledRows(flat(world.test), world.test.labels, 10)
    return Task("mnist, new classes", private, flat(world.probes), test, 2e-3)


def flat(samples: Samples) -> F32:
    return (samples.values.reshape(len(samples), -1) / 255).astype(np.float32)


def train(task: Task) -> tuple[F32, float]:
    """Return the logits of the last two rounds, [2, devices, probes, classes], and the mean accuracy of the devices."""
    rng = np.random.default_rng(0)
    devices = [
        dense(task.probes.shape[1], task.hidden[k % len(task.hidden)], 10, rng) for k in range(len(task.private))
    ]
    warm_up = FitTerms(epochs=10, learning_rate=task.learning_rate)
    joint = FitTerms(epochs=4, learning_rate=task.learning_rate, temperature=TEMPERATURE, probe_weight=0.25)
    for (_, session), private in zip(devices, task.private, strict=True):
        fit(session, private, None, warm_up, rng)
    history = []
    for _ in range(ROUNDS):
        history.append(np.stack([predict(device, task.probes) for device in devices]))
        voices = [SoftLabels.of(logits, TEMPERATURE).probabilities for logits in history[-1]]
        consensus = ProbeRows(task.probes, np.mean(voices, axis=0, dtype=np.float32))
        for (_, session), private in zip(devices, task.private, strict=True):
            fit(session, private, consensus, joint, rng)
    hits = [predict(device, task.test.features).argmax(axis=1) == task.test.labels for device in devices]
    return np.stack(history[-2:]), float(np.mean(hits))


Device = tuple[DenseChain, NumpyTrainSession]


def dense(inputs: int, hidden: int, classes: int, rng: np.random.Generator) -> Device:
    layout = ThetaLayout.of(
        [("w1", (inputs, hidden)), ("b1", (hidden,)), ("w2", (hidden, classes)), ("b2", (classes,))]
    )
    theta = np.concatenate(
        [
            rng.standard_normal(slot.size) * np.sqrt(2 / slot.shape[0]) if len(slot.shape) == 2 else np.zeros(slot.size)
            for slot in layout.slots
        ]
    )
    chain = DenseChain(layout)
    return chain, NumpyTrainSession(chain, OptimizerState.fresh(theta.astype(np.float32), ("moment1", "moment2")))


def predict(device: Device, features: Features) -> F32:
    chain, session = device
    return NumpyTail(chain, session.state.theta).logits(features)


@dataclass(frozen=True)
class Figures:
    entropy_bytes: float
    wire_bytes: float
    loss_nats: float
    agreement: float
    encode_ms: float
    decode_ms: float


def measure(before: SoftLabels, now: SoftLabels, kind: Codec, top_k: int, *, delta: bool) -> Figures:
    codes = quantise(now, kind, top_k)
    base = quantise(before, kind, top_k) if delta else None
    packets = encode(now, kind, top_k, base)
    decoded = decode(packets, base).probabilities()
    seen = decoded > 0
    ratio = np.where(seen, decoded, 1) / np.where(seen, np.maximum(now.probabilities, 1e-30), 1)
    return Figures(
        entropy_bytes=entropy_bytes(codes, base),
        wire_bytes=sum(map(len, packets)),
        loss_nats=float((decoded * np.log(ratio)).sum(axis=1).mean()),
        agreement=float((decoded.argmax(axis=1) == now.probabilities.argmax(axis=1)).mean()),
        encode_ms=milliseconds(lambda: encode(now, kind, top_k, base)),
        decode_ms=milliseconds(lambda: decode(packets, base).integers()),
    )


def encode(labels: SoftLabels, kind: Codec, top_k: int, base: Codes | None) -> list[bytes]:
    """What a device does: soft labels -> packets."""
    body = encode_body(quantise(labels, kind, top_k), base)
    probes, classes = labels.probabilities.shape
    payload = Contribution(
        Slice(DIGEST, 0, probes, classes), labels.temperature, kind, body, DIGEST if base else b"", top_k
    )
    return [codec.encode(part) for part in split(codec.encode(payload), ROUND, Kind.CONTRIBUTION)]


def decode(packets: list[bytes], base: Codes | None) -> Codes:
    """What the server does: packets -> codes."""
    payload = join(codec.decode(packet, Part) for packet in packets)
    message = codec.decode(payload, Contribution, limit=len(payload))
    probes, classes = message.slice.count, message.slice.classes
    return decode_body(message.body, message.codec, probes, classes, message.top_k, base=base)


def bits_of(codes: Codes) -> int:
    return 4 if codes.codec is Codec.U4_SQRT else 8


def symbols_of(codes: Codes, base: Codes | None) -> U8:
    mask = np.uint8(2 ** bits_of(codes) - 1)
    return codes.array if base is None else (codes.array - base.array) & mask


def entropy_bytes(codes: Codes, base: Codes | None) -> float:
    symbols = symbols_of(codes, base)
    counts = np.bincount(symbols.reshape(-1))
    share = counts[counts > 0] / symbols.size
    return -float((share * np.log2(share)).sum()) * symbols.size / 8


def milliseconds(call: Callable[[], object]) -> float:
    """Median of 9 calls after one that warms up."""
    spent = []
    for _ in range(10):
        start = time.perf_counter()
        call()
        spent.append(1e3 * (time.perf_counter() - start))
    return median(spent[1:])


CODINGS = [  # codec, k, delta, and what 1000 probes x 10 classes may take on the wire
    (Codec.F16, 0, False, ""),
    (Codec.U8_SQRT, 0, False, "9400"),
    (Codec.U8_SQRT, 0, True, ""),
    (Codec.U4_SQRT, 0, False, "4200"),
    (Codec.U4_SQRT, 0, True, "2300; easy 1000"),
    (Codec.TOP_K, 3, False, ""),
    (Codec.TOP_1, 0, False, ""),
    (Codec.TOP_1, 0, True, ""),
]

HEADINGS = ["task (accuracy)", "codec", "H0 B", "wire B", "most B", "target B"]
HEADINGS += ["KL nats/row", "argmax %", "encode ms", "decode ms"]


def rows(name: str, logits: F32) -> Iterator[str]:
    pairs = [tuple(SoftLabels.of(z, TEMPERATURE) for z in pair) for pair in zip(*logits, strict=True)]
    for kind, top_k, delta, target in CODINGS:
        figures = [measure(before, now, kind, top_k, delta=delta) for before, now in pairs]
        mean = {key: float(np.mean([getattr(f, key) for f in figures])) for key in Figures.__dataclass_fields__}
        label = kind.value + (f", k = {top_k}" if top_k else "") + (" + delta" if delta else "")
        most = max(f.wire_bytes for f in figures)
        cells = [name, label, f"{mean['entropy_bytes']:.0f}", f"{mean['wire_bytes']:.0f}", f"{most:.0f}", target]
        cells += [f"{mean['loss_nats']:.1e}", f"{100 * mean['agreement']:.1f}"]
        cells += [f"{mean['encode_ms']:.2f}", f"{mean['decode_ms']:.2f}"]
        yield table_row(cells)


LAYOUTS = ["task (accuracy)", "codec", "H0 B", "body B", "zlib 9", "packed", "by column", "bit planes"]


def layout_rows(name: str, logits: F32) -> Iterator[str]:
    """Other ways to write the same codes: mean bytes of a body without its envelope."""
    for kind, delta in ((Codec.U8_SQRT, False), (Codec.U8_SQRT, True), (Codec.U4_SQRT, False), (Codec.U4_SQRT, True)):
        sizes = []
        for pair in zip(*logits, strict=True):
            before, now = (quantise(SoftLabels.of(z, TEMPERATURE), kind) for z in pair)
            base = before if delta else None
            sizes.append([entropy_bytes(now, base), len(encode_body(now, base)), *layouts(now, base)])
        mean = [f"{size:.0f}" for size in np.mean(sizes, axis=0)]
        yield table_row([name, kind.value + (" + delta" if delta else ""), *mean])


def layouts(codes: Codes, base: Codes | None) -> list[int]:
    symbols, bits = symbols_of(codes, base), bits_of(codes)
    packed = write_body(symbols, bits)
    half = 1 << bits - 1
    signed = (symbols.astype(np.int64) + half) % (2 * half) - half
    folded = np.where(signed > 0, 2 * signed - 1, -2 * signed).reshape(-1)  # 0, 1, -1, 2, ... -> 0, 1, 2, 3, ...
    planes = np.concatenate([np.packbits(folded >> plane & 1) for plane in range(bits)])
    bodies = [
        zlib.compress(zlib.decompress(packed), 9),
        packed,
        write_body(np.ascontiguousarray(symbols.T), bits),
        write_body(planes, 8),
    ]
    return [len(body) for body in bodies]


def table_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    sources: list[tuple[str, F32]] = []
    for path in sys.argv[1:]:
        sources += [(name, array.astype(np.float32)) for name, array in np.load(path).items()]
    if not sources:
        for task in (mnist(), digits("digits, hard", 0.1, 0.3), digits("digits, easy", 100.0, 0.0, (64,))):
            logits, accuracy = train(task)
            sources.append((f"{task.name} ({accuracy:.2f})", logits))
    print(table_row(HEADINGS))
    print(table_row(["---"] * len(HEADINGS)))
    for name, logits in sources:
        for row in rows(name, logits):
            print(row)
    print()
    print(table_row(LAYOUTS))
    print(table_row(["---"] * len(LAYOUTS)))
    for name, logits in sources:
        for row in layout_rows(name, logits):
            print(row)


if __name__ == "__main__":
    main()
