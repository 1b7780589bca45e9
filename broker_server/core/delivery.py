"""How a device is on its way to another bundle, as a pure fold: what it says, and what its silence says.

    asked --it says a step--> under way --it says an end--> succeeded | failed
      |                           |
      +--it is gone--> silent <---+                     silent --patience is over--> lost --it comes back--> as it was
                          |
                          +--it comes back--> as it was

Rules:
- A device is asked while it is there and follows releases. One that was absent already is not: nobody knows why it is
  silent, and it counts neither way. An older agent, which does not say that it follows releases, counts from its first
  word about the bundle on.
- Asked or under way, and gone: it is silent. So for `patience_ms` on end: it is lost, as is a device that runs the new
  bundle and has not ended its trial (`commit`) by then, heard or not.
- A device that is there may take its time with all else: its owner's bound on data, a full disk and a round under way
  are waited for (docs/agent/releases.md), and it says so.
- What is lost is no end: a device that comes back counts as it stands then.
- What has ended is not watched: a device that is switched off afterwards has not been lost to the bundle.

What is deliberately absent: rows and counts (`deliveries`), what follows from them (`rollouts`), a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from fd_protocol.messages import BUNDLE_ID_CHARACTERS, Command, CommandState
from fd_protocol.schema import keyed

FOLLOWS = "releases"
"""The capability of devices that follow releases, and say how far they are."""
COMMIT = "commit"
"""The step in which the new bundle runs and has yet to prove itself; a device ends it by itself, or is in trouble."""


class Standing(str, Enum):
    """Where a device stands with a bundle; see the picture above."""

    ASKED = "asked"
    UNDER_WAY = "under way"
    SILENT = "silent"
    LOST = "lost"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Delivery:
    """The last that is known of a device's way to another bundle.

    Attributes:
        device: whose.
        bundle: the first characters of the digest that it is about, in hex.
        state, step, reason, result: as the device says; INIT = it was asked, and has said nothing.
        at_ms: when that came, or when it was asked.
        boot: number of its life, by its last birth; 0 = not known.
        gone_ms: since when it is known to be gone; 0 = it is there.
        is_lost: patience with it is over.
        since_ms: when that life was first heard of; 0 = likewise.
    """

    device: str = keyed(1)
    bundle: str = keyed(2)
    state: CommandState = keyed(3)
    step: str = keyed(4, default="")
    reason: str = keyed(5, default="")
    result: Mapping[str, str] = field(default_factory=dict, metadata={"key": 6})
    at_ms: int = keyed(7, default=0)
    boot: int = keyed(8, default=0)
    gone_ms: int = keyed(9, default=0)
    is_lost: bool = keyed(10, default=False)
    since_ms: int = keyed(11, default=0)

    @property
    def standing(self) -> Standing:
        if self.state.has_ended:
            return Standing.SUCCEEDED if self.state is CommandState.SUCCESSFUL else Standing.FAILED
        if self.is_lost or self.gone_ms:
            return Standing.LOST if self.is_lost else Standing.SILENT
        return Standing.ASKED if self.state is CommandState.INIT else Standing.UNDER_WAY

    @property
    def words(self) -> str:
        """What came of it, for people."""
        return self.reason or self.result.get("outcome", "") or self.step or "nothing since it was asked"


def id_of(bundle: bytes) -> str:
    """Return the characters of a digest by which devices name a bundle that they are on their way to."""
    return bundle.hex()[:BUNDLE_ID_CHARACTERS]


def ask(before: Delivery | None, device: str, bundle: str, boot: int, at_ms: int) -> Delivery:
    """Return the delivery of a device that is there, follows releases, and is to run `bundle` from now on."""
    if before is not None and before.bundle == bundle:
        return before
    return Delivery(device, bundle, CommandState.INIT, at_ms=at_ms, boot=boot, since_ms=at_ms)


def say(before: Delivery | None, device: str, said: Command, at_ms: int, *, is_kept: bool = False) -> Delivery | None:
    """Return the delivery after a device's own word; the same where that is no news.

    Args:
        before: None = nothing is known of it.
        device: who says it.
        said: a state of the command `model`.
        at_ms: when it came.
        is_kept: the broker kept it: it tells how far the device is, and not that it is there.
    """
    if said.state is CommandState.INIT:
        return before
    if before is None:
        return Delivery(device, said.id, said.state, said.step, said.reason, said.result, at_ms)
    back = before if is_kept or not before.gone_ms else replace(before, gone_ms=0, is_lost=False)
    if before.state is CommandState.INIT and before.bundle != said.id and said.state.has_ended:
        return back  # its last word about another bundle: it has not begun with this one
    if (before.bundle, before.state, before.step) == (said.id, said.state, said.step):
        return back
    after = replace(back, bundle=said.id, state=said.state, step=said.step, reason=said.reason, result=said.result)
    if said.state.has_ended:
        return replace(after, at_ms=at_ms, gone_ms=0, is_lost=False)
    return replace(after, at_ms=at_ms, is_lost=back.is_lost and is_kept and before.bundle == said.id)


def be_born(before: Delivery, boot: int, at_ms: int) -> Delivery:
    """Return the delivery of a device that lives its life number `boot`; a new life begins its trial anew.

    A lower number is an earlier life while the device is there; once it is gone, it is one that counts anew.
    """
    is_back, is_new = before.gone_ms > 0, boot != before.boot
    if before.state.has_ended or (boot < before.boot and not is_back):
        return before
    is_lost, since_ms = before.is_lost and not (is_back or is_new), at_ms if is_new else before.since_ms
    return replace(before, boot=boot, gone_ms=0, is_lost=is_lost, since_ms=since_ms)


def be_gone(before: Delivery, boot: int, at_ms: int) -> Delivery:
    """Return the delivery of a device whose life number `boot` has ended; the will of an earlier life says nothing."""
    is_known = before.state.has_ended or before.gone_ms > 0
    return before if is_known or boot < before.boot else replace(before, gone_ms=at_ms)


def lost_ms(one: Delivery, patience_ms: int) -> int | None:
    """Return from when on a device is lost unless something is heard of it; None = it is not, or is already."""
    if one.state.has_ended or one.is_lost:
        return None
    since = [one.gone_ms] if one.gone_ms else []
    if one.state is CommandState.EXECUTING and one.step == COMMIT:
        since.append(max(one.at_ms, one.since_ms))
    return min(since) + patience_ms if since else None


def lose(one: Delivery, patience_ms: int, at_ms: int) -> Delivery:
    """Return the delivery at a time; the same where patience is not over."""
    due_ms = lost_ms(one, patience_ms)
    return one if due_ms is None or at_ms < due_ms else replace(one, is_lost=True)
