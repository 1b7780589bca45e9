"""`edge-agent outbox`: what the device has to say and nobody has taken from it yet."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing

from edge_agent.cli.output import table, tell
from edge_agent.cli.place import config_path
from edge_agent.events import ReceiptReceived
from edge_agent.journal import Journal
from edge_agent.look import Waiting, look
from edge_agent.participant import step
from fd_protocol.messages import Receipt, Status
from fd_runtime.starting import blame, exclusive
from fd_runtime.store import Store

DROPPED = "dropped by its owner"


def show(arguments: argparse.Namespace) -> int:
    waiting = look(config_path(arguments)).require_run().waiting
    tell(arguments, [_told(one) for one in waiting], _table(waiting) if waiting else "nothing waits")
    return 0


def drop(arguments: argparse.Namespace) -> int:
    """As if the server had refused it: a round ends without this device, a map is not sent for this private epoch."""
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
    tell(arguments, [_told(one) for one in chosen], f"dropped:\n{_table(chosen)}" if chosen else "nothing waited")
    return 0


def _told(one: Waiting) -> dict[str, object]:
    kind, payload = one.send.kind.value, one.send.payload.hex()
    return {"kind": kind, "round": str(one.send.round), "payload_sha256": payload, "bytes": one.size_bytes}


def _table(waiting: tuple[Waiting, ...] | list[Waiting]) -> str:
    rows = [
        (one.send.kind.value, str(one.send.round), str(one.size_bytes), one.send.payload.hex()[:16]) for one in waiting
    ]
    return table(("kind", "round", "bytes", "payload"), rows)
