"""An image as it is downloaded, xz, gzip or zip, as the bytes that a card has."""

from __future__ import annotations

import gzip
import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from edge_agent.flash.errors import NotRecognisedError
from edge_agent.flash.writing import CHUNK, Watched

_ZEROS = bytes(CHUNK)
_SUFFIXES = (".img", ".xz", ".gz", ".zip", ".raw")


def is_packed(image: Path) -> bool:
    return image.suffix in (".xz", ".gz", ".zip")


def stem(image: Path) -> str:
    """Return an image's name without what says how it is packed: 2025-raspios.img.xz -> 2025-raspios."""
    name = image.name
    while Path(name).suffix in _SUFFIXES:
        name = Path(name).stem
    return name


def unpack(image: Path, target: Path, watched: Watched) -> None:
    """Write the bytes of a packed image into `target`; zeros take no room.

    Raises:
        NotRecognisedError: it is damaged, or a zip with other than one image in it.
    """
    try:
        with _opened(image) as (packed, inner), target.open("wb") as out:
            for _ in watched("unpacking", image.stat().st_size, _by_packed(packed, inner, out)):
                pass
            out.truncate()
    except (lzma.LZMAError, EOFError, gzip.BadGzipFile, zipfile.BadZipFile) as error:
        raise NotRecognisedError(f"{image.name}: damaged: {error}") from error


def _by_packed(packed: IO[bytes], inner: IO[bytes], out: IO[bytes]) -> Iterator[bytes]:
    """Unpack chunk by chunk, and yield as many bytes as were read for each: how long the whole will be nobody knows."""
    before = 0
    while chunk := inner.read(CHUNK):
        if chunk == _ZEROS:
            out.seek(CHUNK, 1)
        else:
            out.write(chunk)
        now = packed.tell()
        yield bytes(max(0, now - before))
        before = now


@contextmanager
def _opened(image: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    with image.open("rb") as packed:
        if image.suffix == ".xz":
            with lzma.open(packed) as inner:
                yield packed, inner
        elif image.suffix == ".gz":
            with gzip.open(packed) as inner:
                yield packed, cast("IO[bytes]", inner)
        else:
            with zipfile.ZipFile(packed) as archive:
                names = [one for one in archive.namelist() if one.endswith((".img", ".raw"))]
                if len(names) != 1:
                    raise NotRecognisedError(f"{image.name}: holds {len(names)} images, not one")
                with archive.open(names[0]) as inner:
                    yield packed, inner
