"""`edge-agent outbox`: what the device has to say and nobody has taken from it yet."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from edge_agent.care.look import Waiting, look
from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path
from edge_agent.round.events import ReceiptReceived
from edge_agent.round.journal import Journal
from edge_agent.round.participant import step
from edge_agent.spool import Message, listing
from fd_protocol.messages import Receipt, Status
from fd_runtime.starting import blame, exclusive
from fd_runtime.storage.store import Store

DROPPED = "dropped by its owner"
MESSAGE = "message"
"""What nobody receipts: the state of a command, say (`edge_agent.spool`)."""


def show(arguments: argparse.Namespace) -> int:
    seen = look(config_path(arguments)).require_run()
    waiting = [*map(_told, seen.waiting), *_messages(listing(seen.settings.state.outbox))]
    tell(arguments, waiting, _table(waiting) if waiting else "nothing waits")
    return 0


def drop(arguments: argparse.Namespace) -> int:
    """As if the server had refused it: a round ends without this device, a map is not sent for this private epoch.

    Other messages just go.
    """
    path = config_path(arguments)
    seen = look(path).require_run()
    chosen = [one for one in seen.waiting if arguments.kind in (one.send.kind.value, "all")]
    with ExitStack() as stack, blame(path, "state.folder"):
        stack.enter_context(exclusive(seen.settings.state.folder / "agent.lock"))
        store = stack.enter_context(closing(Store.open(seen.settings.state.store)))
        journal = Journal(store, seen.settings.device.federation)
        state = journal.replay()
        for one in chosen:
            send = one.send
            event = ReceiptReceived(Receipt(send.round, send.kind, send.payload, Status.REFUSED, DROPPED))
            if step(state, event) != state:  # it has gone since we looked
                journal.write([event], (), state.now_ms)
                state = step(state, event)
        messages = list(listing(seen.settings.state.outbox)) if arguments.kind in (MESSAGE, "all") else []
        for file, _ in messages:
            file.unlink()
    dropped = [*map(_told, chosen), *_messages(messages)]
    tell(arguments, dropped, f"dropped:\n{_table(dropped)}" if dropped else "nothing waited")
    return 0


def _told(one: Waiting) -> dict[str, Any]:
    kind, payload = one.send.kind.value, one.send.payload.hex()
    return {"kind": kind, "round": str(one.send.round), "payload_sha256": payload, "bytes": one.size_bytes}


def _messages(waiting: Iterable[tuple[Path, Message]]) -> list[dict[str, Any]]:
    return [{"kind": MESSAGE, "topic": one.topic, "bytes": len(one.payload)} for _, one in waiting]


def _table(waiting: list[dict[str, Any]]) -> str:
    rows = [(one["kind"], str(one["bytes"]), str(one.get("round") or one["topic"])) for one in waiting]
    return table(("kind", "bytes", "of"), rows)
