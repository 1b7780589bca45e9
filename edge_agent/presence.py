"""Birth and will: how a federation knows which devices live.

Both are retained on one topic and carry the same boot counter. It counts the lives of a device, so that the will of an
earlier life, published late, cannot kill a new one.
"""

from __future__ import annotations

from edge_agent.round.eligibility import Profile
from fd_protocol.messages import MAX_PUBLIC_SETS, Codec, DeviceState
from fd_runtime.storage.store import Store

CAPABILITIES = (*(codec.value for codec in Codec), "delta", "competence", "clusters", "commands")
PRIVACY = "dp"
"""Capability of a device that can work under privacy terms."""
RELEASES = "releases"
"""Capability of a device that follows releases, and says how far it is with each."""
SESSION_S = 300
"""How long the broker queues for a device that is away: longer than a line is cut for a moment, and no more.

All that a device must hear is retained, and comes at every connection: offer, consensus, notices. What a longer session
queues beside that is every consensus that was overwritten since. A receipt that went by costs one payload that is sent
again, as it is after every reconnection that finds one unanswered.
"""
_BOOT = "boot"


def begin_life(store: Store) -> int:
    """Count another start of this device, durably, and return its number.

    Raises:
        StoreUnwritableError: there is no room to count it.
    """
    boot = boot_of(store) + 1
    store.set_meta(_BOOT, boot.to_bytes(8, "big"))
    return boot


def boot_of(store: Store) -> int:
    """Return the number of this life; 0 before the first."""
    return int.from_bytes(store.meta(_BOOT) or b"", "big")


def birth(profile: Profile, boot: int, agent: str, *, problem: str = "") -> DeviceState:
    """`agent` names this program and its version; `problem` is what keeps the device from taking part, if anything."""
    return DeviceState(
        boot,
        online=True,
        agent=agent,
        bundle=profile.bundle,
        task=profile.task,
        family=profile.family,
        runtime=profile.runtime,
        capabilities=_capabilities(profile),
        problem=problem,
        public_sets=profile.public_sets[-MAX_PUBLIC_SETS:],
    )


def _capabilities(profile: Profile) -> tuple[str, ...]:
    known = {PRIVACY: profile.trains_privately, RELEASES: profile.follows_releases}
    return (*CAPABILITIES, *(name for name, has in known.items() if has))


def will(boot: int) -> DeviceState:
    return DeviceState(boot, online=False)
