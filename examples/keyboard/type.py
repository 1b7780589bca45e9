"""A keyboard without keys: types a text word by word, sees what the device suggests, and lets it keep what was typed.

    python type.py --text letter.txt [--config agent.toml]

    to be or  -> not that to    | not      1
    or not    -> to the a       | to       1
    ...
    20 words, 18 of them known; the first suggestion was right for 22.2 %, one of three for 38.9 %; 1.9 ms a word

Nothing of the text leaves the device: the words that a person typed are rows of its private store, nothing else.
"""

from __future__ import annotations

import argparse
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
    with Agent(asked.config) as agent:
        words = {*agent.status()["classes"]}
        typed, ranks, took_s = 0, list[int](), 0.0
        for sentence in sentences(asked.text.read_text("utf-8")):
            for place, word in enumerate(sentence):
                before = " ".join(sentence[:place])
                begun_s = time.perf_counter()
                said = agent.predict_next(before, top=SUGGESTIONS)
                took_s += time.perf_counter() - begun_s
                typed += 1
                if word not in words:
                    continue
                agent.label(said.sample_id, word)
                suggested = [label for label, _ in said.likeliest]
                ranks.append(suggested.index(word) + 1 if word in suggested else 0)
                sys.stdout.write(f"{before[-20:]:>20} -> {' '.join(suggested):24} | {word:12} {ranks[-1] or ''}\n")
    first, any_of_them = (100 * share_of(ranks, most) for most in (1, SUGGESTIONS))
    sys.stdout.write(
        f"{typed} words, {len(ranks)} of them known; the first suggestion was right for {first:.1f} %, one of "
        f"{SUGGESTIONS} for {any_of_them:.1f} %; {1000 * took_s / max(1, typed):.1f} ms a word\n"
    )


def share_of(ranks: Sequence[int], most: int) -> float:
    """Return how often the word was among the first `most`; a rank of 0 is of none of them."""
    return sum(0 < rank <= most for rank in ranks) / max(1, len(ranks))


if __name__ == "__main__":
    main()
