"""Plays by Shakespeare: which character comes next, and who of 299 speakers is speaking (McMahan et al. 2017)."""

from __future__ import annotations

import numpy as np

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.models.model import I32, I64
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.published import Published, Shelf
from model_export.samples import DataError

_FILE = Published(
    "tinyshakespeare.txt",
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
    "sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
)


def shakespeare(shelf: Shelf, *, length: int = 80, stride: int = 10) -> Dataset:
    """Return for `length` characters of a speaker the one that comes next; 80 as in LEAF (Caldas et al. 2018).

    Args:
        shelf: names a text in this form, or lets it be downloaded.
        length: of a sample.
        stride: from the start of a sample to the next one's in the same speaker's lines.

    Raises:
        DataError: the text has no speakers.
    """
    if length < 1 or stride < 1:
        raise InvalidValueError("a sample's length and stride are at least 1")
    text = shelf.file.read_text("utf-8") if shelf.file else shelf.content(_FILE).decode()
    lines = spoken(text)
    alphabet = "".join(sorted({*"".join(lines.values())}))
    pieces = {speaker: _samples(said, alphabet, length, stride) for speaker, said in lines.items()}
    pieces = {speaker: piece for speaker, piece in pieces.items() if len(piece)}
    if len(alphabet) < 2 or not pieces:
        raise DataError(shelf.file or shelf.cache / _FILE.name, f"has no speaker with more than {length} characters")
    windows = np.concatenate(list(pieces.values()))
    return Dataset(
        name="shakespeare",
        task=Task(tuple(alphabet), (length,), "int32", vocabulary=len(alphabet)),
        samples=np.ascontiguousarray(windows[:, :-1]),
        labels=windows[:, -1].astype(np.int64),
        groups=_repeated([len(piece) for piece in pieces.values()]),
        group_names=tuple(pieces),
        source="tinyshakespeare, github.com/karpathy/char-rnn",
        licence="public domain",
    )


def spoken(text: str) -> dict[str, str]:
    """Return what each speaker says in all, speeches parted by an empty line; speakers in order of appearance.

    A speech is a line `NAME:`, the lines after it, and an empty line.
    """
    speeches: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        name, _, said = block.strip("\n").partition("\n")
        if name.endswith(":") and said:
            speeches.setdefault(name[:-1], []).append(said)
    return {speaker: "\n\n".join(said) for speaker, said in speeches.items()}


def _samples(said: str, alphabet: str, length: int, stride: int) -> I32:
    """Windows [n, length + 1] of places in the alphabet."""
    if len(said) <= length:
        return np.empty((0, length + 1), np.int32)
    codes = np.frombuffer(said.encode("utf-32-le"), "<u4")
    tokens = np.searchsorted(np.frombuffer(alphabet.encode("utf-32-le"), "<u4"), codes).astype(np.int32)
    return np.lib.stride_tricks.sliding_window_view(tokens, length + 1)[::stride]


def _repeated(counts: list[int]) -> I64:
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)
