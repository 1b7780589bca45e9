"""What a nudge asks of this device: a bundle for some devices first is not for all that hear of it.

staged, and this device is among the first, or has switched to it --> the staged one
else                                                              --> what the others run; what it runs, where
nobody knows what that is
"""

from __future__ import annotations

from edge_agent.slots.machine import Offered, Phase, Slots
from fd_protocol.messages import Release


def wanted(release: Release, device: str, state: Slots) -> Offered:
    """Return the bundle that `device` should run."""
    staged = release.staged
    if staged is not None and (staged.is_for(device) or staged.bundle.hex() in _switched(state)):
        return Offered(staged.bundle.hex(), staged.version, staged.package.hex(), staged.package_bytes)
    if staged is not None and staged.bundle == release.bundle:
        return Offered(state.active or state.factory, release.version)
    package = release.package.hex() if release.package else ""
    return Offered(release.bundle.hex(), release.version, package, release.package_bytes)


def _switched(state: Slots) -> frozenset[str]:
    """What runs, and what has proven itself and will: whoever halts a rollout does not take it from these."""
    has_proven = state.phase in (Phase.REBOOT, Phase.COMMIT) and state.release is not None
    under_way = state.release.bundle if has_proven and state.release else ""
    return frozenset({state.active or state.factory, under_way} - {""})
