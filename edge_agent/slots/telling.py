"""How a device's way to another bundle is told to the federation: as the state of a command `model`, which nobody gave.

    EXECUTING (download | install | reboot | commit | rollback) --> SUCCESSFUL | FAILED (reason)

Retained, so that whoever comes later sees where each device stands; the steps have Mender's names.
"""

from __future__ import annotations

from edge_agent.participant import one_line
from edge_agent.slots.machine import Slots
from fd_protocol.messages import Command, CommandState

COMMAND = "model"
_ID_CHARACTERS = 32
_FOR_S = 30 * 86_400


def command_of(state: Slots, now_utc_s: int) -> Command | None:
    """Return what is to be told; None: nothing has ever been under way."""
    expires_utc_s = max(1, now_utc_s + _FOR_S)
    if state.release is not None:
        id_ = state.release.bundle[:_ID_CHARACTERS]
        return Command(id_, COMMAND, CommandState.EXECUTING, expires_utc_s, step=state.phase.value)
    if not state.outcome:
        return None
    id_ = (state.active or state.factory)[:_ID_CHARACTERS]
    if state.succeeded:
        result = {"outcome": one_line(state.outcome)}
        return Command(id_, COMMAND, CommandState.SUCCESSFUL, expires_utc_s, result=result)
    return Command(id_, COMMAND, CommandState.FAILED, expires_utc_s, reason=one_line(state.outcome))
