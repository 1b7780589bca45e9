"""T-f, first half: bytes of each codec beside the order-0 entropy of its codes.

    python -m benchmarks.tables.codecs [--short] [--write]

A minute, and no data but what packages carry. Federations are those of `benchmarks/payload.py`, which also says how
long coding takes and what is lost.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from statistics import mean

from benchmarks import payload
from benchmarks.publish import publish
from fd_protocol.messages import Codec
from fd_protocol.soft_labels import SoftLabels
from fd_runtime.models.model import F32
from fleet_sim.tables import table_of

WORTH_IT_BYTES, MOST_ABOVE_ENTROPY = 500, 1.25
NOTE = f"""\
1000 probes, 10 classes; means over ten devices after round 15. H0 is what no coder that codes each code by itself can
go below, the body are the codes as they are deflated, and the envelope on the wire names round, slice, bundle and base.
The goal is {MOST_ABOVE_ENTROPY} H0 on the wire where H0 is above {WORTH_IT_BYTES} B."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables.codecs")
    parser.add_argument("--short", action="store_true", help="one federation instead of three")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    asked = parser.parse_args()
    if asked.write and asked.short:
        parser.error("only a whole table is written")
    tasks = [payload.digits("digits, easy", 100.0, 0.0, (64,))]
    if not asked.short:
        tasks = [payload.mnist(), payload.digits("digits, hard", 0.1, 0.3), *tasks]
    text = report([(task.name, payload.train(task)[0]) for task in tasks])
    print(text)
    if asked.write:
        publish("table: codecs", "python -m benchmarks.tables.codecs --write", text)


def report(said: Sequence[tuple[str, F32]]) -> str:
    """Return the table of what devices said in two rounds: names, and logits [2, devices, probes, classes]."""
    columns = ["federation", "codec", "H0 B", "body B", "body / H0", "wire B", "wire / H0", "goal"]
    return f"{NOTE}\n\n{table_of(columns, [row for name, logits in said for row in rows_of(name, logits)])}"


def rows_of(name: str, logits: F32) -> Iterator[list[str]]:
    pairs = [tuple(SoftLabels.of(z, payload.TEMPERATURE) for z in pair) for pair in zip(*logits, strict=True)]
    for kind, top_k, is_delta, _ in payload.CODINGS:
        sizes = [sizes_of(before, now, kind, top_k, is_delta=is_delta) for before, now in pairs]
        entropy, body, wire = (mean(column) for column in zip(*sizes, strict=True))
        label = kind.value + (f", k = {top_k}" if top_k else "") + (" + delta" if is_delta else "")
        ratios = f"{body / entropy:.2f}", f"{wire / entropy:.2f}"
        yield [
            name,
            label,
            f"{entropy:.0f}",
            f"{body:.0f}",
            ratios[0],
            f"{wire:.0f}",
            ratios[1],
            verdict(entropy, wire),
        ]


def sizes_of(before: SoftLabels, now: SoftLabels, kind: Codec, top_k: int, *, is_delta: bool) -> tuple[float, int, int]:
    """Return entropy, body and packets, in bytes."""
    codes = payload.quantise(now, kind, top_k)
    base = payload.quantise(before, kind, top_k) if is_delta else None
    packets = payload.encode(now, kind, top_k, base)
    return payload.entropy_bytes(codes, base), len(payload.encode_body(codes, base)), sum(map(len, packets))


def verdict(entropy: float, wire: float) -> str:
    if entropy <= WORTH_IT_BYTES:
        return ""
    return "holds" if wire <= MOST_ABOVE_ENTROPY * entropy else "**missed**"


if __name__ == "__main__":
    main()
