"""The end of a device's memory: keys first, then everything in its state folder.

What was encrypted is gone with its key. Files are written over before they are removed, which is all that a program can
do: flash keeps old blocks until it needs them, so a disk that held plain private rows is better destroyed as a whole.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from edge_agent.private import wiping as private
from edge_agent.settings import AgentSettings
from fd_runtime.files import destroy
from fd_runtime.starting import blame, exclusive

LOCK = "agent.lock"
_KEYS_FIRST = ("*.key", "*key*")


def wipe(path: Path, settings: AgentSettings, *, identity: bool = False) -> list[Path]:
    """Destroy the state of a device that is stopped, and with `identity` its private key and certificate.

    Returns:
        What was destroyed.

    Raises:
        StartError: it runs, or something cannot be removed; what was destroyed stays destroyed.
    """
    folder = settings.state.folder
    gone: list[Path] = []
    with ExitStack() as stack, blame(path, "state.folder"):
        if folder.is_dir():
            stack.enter_context(exclusive(folder / LOCK))
            kept = {LOCK} if identity else {LOCK, settings.state.identity.name}
            gone += sorted(entry for entry in folder.iterdir() if entry.name not in kept)
            if settings.store is not None:  # its key first: it may lie elsewhere
                private.wipe(settings.state.private_store, settings.store)
            for file in _keys_first(gone):
                destroy(file)
            for entry in gone:
                _remove(entry)
            (folder / LOCK).unlink(missing_ok=True)
        if settings.state.standing.is_file():  # left in `state.runtime` by a life that was killed
            settings.state.standing.unlink()
            gone.append(settings.state.standing)
        if identity and settings.tls is not None:
            for file in (settings.tls.key, settings.tls.certificate):
                if file.is_file():
                    destroy(file)
                    gone.append(file)
    return gone


def left_elsewhere(settings: AgentSettings, *, identity: bool) -> list[str]:
    """Return what a wipe of the device does not reach, a line each."""
    device = settings.device.id
    left = [
        f"the server keeps its last contributions, its competence map, its records: `broker-server forget {device}`",
        "what the fleet has learned from it stays in the consensus, in the student and in other devices",
        f"the broker keeps its last birth or will, and the states of its commands, until {device} comes back",
    ]
    if settings.data.private is not None:
        left.append(f"{settings.data.private} is yours: remove it yourself")
    if settings.store is not None and settings.store.credential is not None:
        left.append(
            f"the key of its private rows is systemd's credential {settings.store.credential}: destroy it there"
        )
    if not identity:
        revoke = f"devices revoke {device}" if settings.enrolment is not None else f"ca revoke ca {device}"
        left.append(f"its certificate still lets it in: `broker-server {revoke}`, or wipe --identity")
    return left


def _keys_first(entries: list[Path]) -> list[Path]:
    rest = [file for entry in entries for file in (entry, *entry.rglob("*"))]
    keys = [file for file in rest if any(file.match(pattern) for pattern in _KEYS_FIRST)]
    ordered = dict.fromkeys([*sorted(keys), *sorted(rest)])
    return [file for file in ordered if file.is_file() and not file.is_symlink()]


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)
