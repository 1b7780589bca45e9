"""Makes texts of plays: what each person writes, what is public, and the words that a model knows.

    python texts.py --speakers input.txt --plays shakespeare.zip [--words 2000]     what README.md names
    python texts.py                                                                 texts of one's own are there

    texts/people/hamlet.txt ...     a person each: private, or of somebody whom no device has seen
    texts/public/othello.txt ...    what anyone may read: the factory's lessons, the probes, the words
    texts/words.txt                 the most frequent words of the public texts, a line each

No line of four words or more stands in both: what is public must not tell what somebody said in private.
"""

from __future__ import annotations

import argparse
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree as ET

from fd_runtime.words import words_of
from fleet_sim.data.text import spoken

HERE = Path(__file__).parent
LEAST_WORDS = 4
"""Of a line that is somebody's own; "how now" is everybody's."""
MOST_SHARED = 0.1
"""Of a play's lines: one that people speak themselves is left out whole, other spellings and all."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="texts.py")
    parser.add_argument("--speakers", type=Path, help="tinyshakespeare: speeches, NAME: above each")
    parser.add_argument("--plays", type=Path, help="NLTK's shakespeare.zip")
    parser.add_argument("--words", type=int, default=2000, help="how many a model knows")
    parser.add_argument("--out", type=Path, default=HERE / "texts")
    asked = parser.parse_args()
    people, public = asked.out / "people", asked.out / "public"
    if asked.speakers:
        write(spoken(asked.speakers.read_text("utf-8")), people)
    if asked.plays:
        own = lines_of(path.read_text("utf-8") for path in people.glob("*.txt"))
        public_ones = {play: text for play, text in plays(asked.plays).items() if share_of(text, own) < MOST_SHARED}
        write({play: without(text, own) for play, text in public_ones.items()}, public)
    if shared := lines_of(read(public)) & lines_of(read(people)):
        parser.error(f"{len(shared)} lines of public texts are somebody's own: {min(shared)!r}")
    counts = Counter(word for text in read(public) for word in words_of(text))
    words = [word for word, _ in counts.most_common(asked.words)]
    (asked.out / "words.txt").write_text("".join(f"{word}\n" for word in words))
    said = [word for text in read(people) for word in words_of(text)]
    is_known = {*words}
    known = 100 * sum(word in is_known for word in said) / max(1, len(said))
    sys.stdout.write(
        f"{len(list(people.glob('*.txt')))} people, {len(said):,} words, {known:.1f} % of them among the {len(words)} "
        f"known ones; public: {counts.total():,} words\n"
    )


def plays(path: Path) -> dict[str, str]:
    """Return the speeches of each play, parted by empty lines; names are those of the files."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".xml"):
                play = ET.fromstring(archive.read(name))  # noqa: S314 - a file that its user names
                speeches = (
                    "\n".join("".join(line.itertext()) for line in each.iter("LINE")) for each in play.iter("SPEECH")
                )
                found[PurePosixPath(name).stem] = "\n\n".join(speeches)
    return found


def speech_in(element: ET.Element) -> str:
    return "\n".join("".join(line.itertext()) for line in element.iter("LINE"))


def share_of(text: str, lines: set[str]) -> float:
    """Return which share of a text's lines is among these."""
    own = lines_of([text])
    return len(own & lines) / max(1, len(own))


def without(text: str, lines: set[str]) -> str:
    """Return the text with an empty line in the place of each of these lines."""
    return "\n".join("" if said_in(line) in lines else line for line in text.split("\n"))


def lines_of(texts: Iterable[str]) -> set[str]:
    """Return all lines that are somebody's own, as `said_in` has them."""
    said = (said_in(line) for text in texts for line in text.split("\n"))
    return {line for line in said if line.count(" ") >= LEAST_WORDS - 1}


def said_in(line: str) -> str:
    return " ".join(words_of(line))


def read(folder: Path) -> Iterable[str]:
    return (path.read_text("utf-8") for path in sorted(folder.glob("*.txt")))


def write(texts: Mapping[str, str], folder: Path) -> None:
    """Write a file for each who says a word; names that differ in nothing but case are one's."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {}
    for name, text in texts.items():
        files.setdefault(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"), []).append(text)
    for name, parts in files.items():
        if words_of(text := "\n\n".join(parts)):
            (folder / f"{name}.txt").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
