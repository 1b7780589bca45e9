"""The commands of a device in its store: one small value, replaced with each event, so that it is always whole."""

from __future__ import annotations

from edge_agent.commands.machine import Commands
from fd_protocol import cbor
from fd_protocol.schema import from_item, to_item
from fd_runtime.storage.store import Store


def load(store: Store, federation: str) -> Commands:
    """Return what was kept last.

    Raises:
        DecodeError: a newer agent wrote it, or it is damaged.
    """
    snapshot, _ = store.replay(_key(federation))
    return Commands() if snapshot is None else from_item(Commands, cbor.decode(snapshot, max_items=len(snapshot) + 1))


def keep(store: Store, federation: str, state: Commands) -> None:
    """Raises: StoreFullError: no room; what was kept before stands."""
    store.snapshot(_key(federation), cbor.encode(to_item(state)))


def _key(federation: str) -> str:
    """No federation has a name with a slash in it."""
    return f"{federation}/commands"
