"""Made-up people and plays, in the forms in which Shakespeare's are published: any clone can play them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

NAMES = ("Anna", "Ben", "Carl", "Dora", "Emil", "Fay", "First Guest", "Second Guest")
DOERS = ("the cook", "a guest", "my friend", "the dog", "who", "she")
DEEDS = ("brings", "wants", "drops", "hides", "paints", "won't see")
THINGS = ("the kettle", "a red hat", "my letter", "nothing", "his old boat", "the other door")
ENDS = (".", "!", "?")
WORDS = 25
"""That are known; there are more."""


def write_speakers(path: Path, speeches: int = 30) -> Path:
    """Write what each of `NAMES` says, so many speeches of one to three lines; each has things that they like."""
    rng = np.random.default_rng(0)
    blocks = []
    for turn in range(speeches * len(NAMES)):
        name = NAMES[turn % len(NAMES)]
        blocks.append(f"{name}:\n{_speech(rng, turn % len(NAMES))}")
    path.write_text("\n\n".join(blocks) + "\n", "utf-8")
    return path


def write_plays(path: Path, speakers: Path) -> Path:
    """Write two plays, the first of which says a line of the speakers; a third consists of such lines."""
    rng = np.random.default_rng(1)
    said = [line for line in speakers.read_text("utf-8").split("\n") if line.count(" ") > 3]
    plays = {
        "one": [said[0], *(_speech(rng, turn) for turn in range(150))],
        "two": [_speech(rng, turn) for turn in range(150)],
        "same": said[:40],
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shakespeare/README", "no play")
        for name, speeches in plays.items():
            archive.writestr(f"shakespeare/{name}.xml", _play(speeches))
    return path


def _speech(rng: np.random.Generator, taste: int) -> str:
    return "\n".join(_line(rng, taste) for _ in range(rng.integers(1, 4)))


def _line(rng: np.random.Generator, taste: int) -> str:
    thing = THINGS[taste % len(THINGS)] if rng.random() < 0.6 else rng.choice(THINGS)
    words = f"{rng.choice(DOERS)} {rng.choice(DEEDS)} {thing}"
    number = rng.integers(0, 10_000)  # lines seldom come twice
    return f"{words[0].upper()}{words[1:]} at {number} o'clock{rng.choice(ENDS)}"


def _play(speeches: list[str]) -> str:
    said = "".join(
        "<SPEECH><SPEAKER>X</SPEAKER>" + "".join(f"<LINE>{line}</LINE>" for line in speech.split("\n")) + "</SPEECH>"
        for speech in speeches
    )
    return f'<?xml version="1.0"?>\n<PLAY><TITLE>A play</TITLE><ACT>{said}</ACT></PLAY>\n'
