"""A keyboard without keys: types a text word by word, sees what the device suggests, and lets it keep what was typed.

    python type.py --text letter.txt [--config agent.toml]

    to be or  -> not that to    | not      1
    or not    -> to the a       | to       1
    ...
    20 words, 18 of them known; the first suggestion was right for 22.2 %, one of three for 38.9 %; 1.9 ms a word

Suggestions leave no trace. A sentence is kept when it has ended: its words, and what stands before each, are labelled
rows of the device's private store. Nothing of the text leaves the device.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent import Agent
from fd_runtime.words import sentences

SUGGESTIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(prog="type.py")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path(__file__).parent / "agent.toml")
    asked = parser.parse_args()
    ranks, took_ms = list[int](), list[float]()
    with Agent(asked.config) as agent:
        words = {*agent.status()["classes"]}
        for sentence in sentences(asked.text.read_text("utf-8")):
            for place, word in enumerate(sentence):
                before = " ".join(sentence[:place])
                begun_s = time.perf_counter()
                said = agent.predict_next(before, top=SUGGESTIONS, is_live=False)
                took_ms.append(1000 * (time.perf_counter() - begun_s))
                if word in words:
                    suggested = [label for label, _ in said.likeliest]
                    ranks.append(suggested.index(word) + 1 if word in suggested else 0)
                    sys.stdout.write(f"{before[-20:]:>20} -> {' '.join(suggested):24} | {word:12} {ranks[-1] or ''}\n")
            if words & {*sentence}:
                agent.learn_text(" ".join(sentence))
    first, any_of_them = (100 * share_of(ranks, most) for most in (1, SUGGESTIONS))
    median_ms = statistics.median(took_ms) if took_ms else 0.0
    sys.stdout.write(
        f"{len(took_ms)} words, {len(ranks)} of them known; the first suggestion was right for {first:.1f} %, one of "
        f"{SUGGESTIONS} for {any_of_them:.1f} %; {median_ms:.1f} ms a word\n"
    )


def share_of(ranks: Sequence[int], most: int) -> float:
    """Return how often the word was among the first `most`; a rank of 0 is of none of them."""
    return sum(0 < rank <= most for rank in ranks) / max(1, len(ranks))


if __name__ == "__main__":
    main()
