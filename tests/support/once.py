"""What takes a second to make and never changes: made once for a whole run, whichever process a test is in.

    folder = once("small bundle 64", lambda folder: build(..., folder / "bundle"))

The first that asks makes it, others wait. Whoever wants to change it takes a copy.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

_place: list[Path] = []


def keep_in(folder: Path) -> None:
    """Keep it all in `folder`, which the processes of a run share and no other run has."""
    _place[:] = [folder]


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` has filled, to be read; `name` tells all that its content follows from."""
    if not _place:  # a script that uses the support of tests
        keep_in(Path(tempfile.mkdtemp(prefix="made-once-")))
    return _made(_place[0] / sha256(name.encode()).hexdigest()[:16], make)


def _made(path: Path, make: Callable[[Path], object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = Path(tempfile.mkdtemp(prefix=f"{path.name}-", dir=path.parent))
            make(part)
            part.rename(path)
    return path
