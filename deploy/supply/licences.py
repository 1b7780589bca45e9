"""Licences of all that a package of ours holds, as the libraries' own metadata has them, and which of them may be.

A lock names libraries for machines that are not this one; their licences are read from the same libraries as they are
installed here, whatever their version. What a developer's Python does not need stands in `BY_HAND`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata

from deploy.deb import wheels
from deploy.deb.catalogue import ROOT

LOCKS = ROOT / "deploy" / "deb" / "locks"
DOCS = ROOT / "docs" / "licences.md"

ALLOWED = frozenset(
    {
        "0BSD",
        "Apache-2.0",
        "Apache-2.0 OR BSD-2-Clause",
        "Apache-2.0 OR BSD-3-Clause",
        "Apache-2.0 OR MIT",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "CC0-1.0",
        "EPL-2.0 OR BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
        "Zlib",
    }
)
"""What goes into a package beside Apache-2.0: permissive, or (MPL-2.0) by file, or a choice of one that is."""

CALLED: Mapping[str, str] = {
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "EPL-2.0 OR BSD-3-Clause": "EPL-2.0 OR BSD-3-Clause",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "MPL 2.0": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""What older metadata calls a licence, and its SPDX name."""

BY_HAND: Mapping[str, str] = {"exceptiongroup": "MIT AND PSF-2.0", "tomli": "MIT"}
"""Of those that Python 3.10 alone needs, as their LICENSE files say."""


@dataclass(frozen=True, slots=True)
class Library:
    """One, in the packages that hold it."""

    name: str
    licence: str
    packages: tuple[str, ...]

    @property
    def is_allowed(self) -> bool:
        """Whether every part of it may be in a package of ours."""
        return self.licence in ALLOWED or all(part in ALLOWED for part in self.licence.split(" AND "))


def libraries() -> list[Library]:
    """Return every library of every lock, by name.

    Raises:
        LookupError: nobody here knows a licence.
    """
    held: dict[str, set[str]] = {}
    for lock in sorted(LOCKS.glob("fedistill-*.txt")):
        package = "-".join(lock.stem.split("-")[:2])
        for name in wheels.read_lock(lock):
            held.setdefault(name, set()).add(package)
    return [Library(name, licence_of(name), tuple(sorted(packages))) for name, packages in sorted(held.items())]


def licence_of(name: str) -> str:
    """Return the SPDX expression of an installed library's licence.

    Raises:
        LookupError: it is not installed, and is not in `BY_HAND`; or it says none.
    """
    if name in BY_HAND:
        return BY_HAND[name]
    try:
        told = metadata(name)
    except PackageNotFoundError:
        raise LookupError(f"{name} is not installed here: add it to BY_HAND") from None
    for found in _told(*(told.get_all(key) or [] for key in ("License-Expression", "Classifier", "License"))):
        licence = CALLED.get(found, found)
        if licence and len(licence) < 80:
            return licence
    raise LookupError(f"{name} does not say its licence")


def _told(expressions: list[str], classifiers: list[str], texts: list[str]) -> Iterator[str]:
    yield from expressions
    for classifier in classifiers:
        if classifier.startswith("License :: OSI Approved :: "):
            yield classifier.rpartition(" :: ")[2].strip()
    for text in filter(str.strip, texts):
        yield text.strip().splitlines()[0]


def table() -> list[str]:
    """Return docs/licences.md."""
    rows = [f"| {one.name} | {one.licence} | {', '.join(one.packages)} |" for one in libraries()]
    return [
        "# Licences",
        "",
        "What the Debian packages hold beside our own Apache-2.0, by the libraries' own metadata. Printed by",
        "`python -m deploy.supply licences --write`; `deploy/supply/licences.py` says what may be in a package.",
        "",
        "| library | licence | in |",
        "|---|---|---|",
        *rows,
        "",
    ]
