"""How a device's way to another bundle is told to the federation: as the state of a command `model`, which nobody gave.

    EXECUTING (download | install | reboot | commit | rollback) --> SUCCESSFUL | FAILED (reason)

Its id is the beginning of the digest of the bundle that it is about. Retained, so that whoever comes later sees where
each device stands; the steps have Mender's names. Under privacy terms an end is told without what was found out about
the bundle: that may follow from private rows.
"""

from __future__ import annotations

from edge_agent.privacy.saying import FAILED
from edge_agent.round.participant import one_line
from edge_agent.slots.machine import Slots
from fd_protocol.messages import BUNDLE_ID_CHARACTERS, Command, CommandState
from fd_protocol.topics import MODEL

_FOR_S = 30 * 86_400


def command_of(state: Slots, now_utc_s: int, *, is_under_terms: bool = False) -> Command | None:
    """Return what is to be told; None: nothing has ever been under way."""
    expires_utc_s = max(1, now_utc_s + _FOR_S)
    if state.release is not None:
        id_ = state.release.bundle[:BUNDLE_ID_CHARACTERS]
        return Command(id_, MODEL, CommandState.EXECUTING, expires_utc_s, step=state.phase.value)
    if not state.outcome:
        return None
    id_ = state.about[:BUNDLE_ID_CHARACTERS]
    if state.succeeded:
        result = {} if is_under_terms else {"outcome": one_line(state.outcome)}
        return Command(id_, MODEL, CommandState.SUCCESSFUL, expires_utc_s, result=result)
    reason = FAILED if is_under_terms else one_line(state.outcome)
    return Command(id_, MODEL, CommandState.FAILED, expires_utc_s, reason=reason)
