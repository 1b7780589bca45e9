"""What each rule costs: time a voice, time after the last one, and memory with a hundred and with ten thousand voices.

    python benchmarks/rules.py [--voices 10000]     1000 probes x 10 classes; --write puts it into docs/methods.md

Memory is the most that a fresh process held; time is the process's own, so that others on the machine count little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from publish import publish

from broker_server.rules import RULES, Promise, RuleTerms
from broker_server.rules.voice import WEIGHT_ONE, Voice
from fd_protocol.messages import Codec
from fd_protocol.payload import Codes

PROBES, CLASSES, FEW = 1000, 10, 100
PAGE = Path(__file__).parent.parent / "docs" / "methods.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voices", type=int, default=10_000)
    parser.add_argument("--one", help="print the figures of this rule alone, as JSON")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured(asked.one, asked.voices)))
        return
    names = [name for name, make in RULES.items() if Promise.HEARS_ONCE in make(RuleTerms()).card.promises]
    columns = ("rule", "µs a voice", f"ms after voice {asked.voices}", f"MB with {FEW}", f"MB with {asked.voices}")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in names:
        few, many = (fresh(name, count) for count in (FEW, asked.voices))
        lines.append(
            f"| {name} | {1e6 * many['voices_s'] / asked.voices:.0f} | {1e3 * many['rest_s']:.1f} "
            f"| {few['peak_mb']:.1f} | {many['peak_mb']:.1f} ({many['peak_mb'] / few['peak_mb'] - 1:+.1%}) |"
        )
        print(lines[-1], file=sys.stderr)
    text = "\n".join(lines)
    print(text)
    if asked.write:
        publish("rules", f"python benchmarks/rules.py --voices {asked.voices} --write", text, PAGE)


def fresh(name: str, count: int) -> dict[str, float]:
    """Return the figures of a rule in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--voices", str(count)]
    figures: dict[str, float] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return figures


def measured(name: str, count: int) -> dict[str, float]:
    """Return seconds until the last voice and after it, and the peak of this process."""
    spent = Spent()
    RULES[name](RuleTerms()).consensus(spent.watch(voices(count)))
    rest_s = time.process_time() - spent.last
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"voices_s": spent.inside_s, "rest_s": rest_s, "peak_mb": peak_mb}


class Spent:
    """The time that a rule takes between voices, without what making them costs."""

    def __init__(self) -> None:
        self.inside_s, self.last = 0.0, time.process_time()

    def watch(self, stream: Iterator[Voice]) -> Iterator[Voice]:
        for voice in stream:
            before = time.process_time()
            yield voice
            self.last = time.process_time()
            self.inside_s += self.last - before


def voices(count: int) -> Iterator[Voice]:
    """Yield voices as the server reads them: codes from the store, decoded one at a time."""
    rng = np.random.default_rng(0)
    stored = [rng.integers(1, 256, (PROBES, CLASSES)).astype(np.uint8) for _ in range(8)]
    trust = np.full(CLASSES, WEIGHT_ONE)
    for number in range(count):
        integers = Codes(Codec.U8_SQRT, CLASSES, stored[number % 8]).integers()
        yield Voice(f"device-{number}", integers, (stored[number % 8][:, 0] % 4).astype(np.uint8), trust)


if __name__ == "__main__":
    main()
