"""What a device has learnt for itself, and the next bundle: carried over where both sides say so, else learnt anew.

    the manifest says keeps_tail, and the shapes and frozen parts agree      `fd_protocol.succession`
    the trial finds that the new bundle answers no worse with it             `trial`, written into the slots' state
    the worker finds no checkpoint of the new bundle, and writes one         `carry_over`

It is carried when the new bundle first speaks, not on trial: until the device begins anew it goes on learning. Each
bundle has its own file, so the way back is what it was: a bundle that is gone back to goes on where it was.

What is deliberately absent: weights under privacy terms. What paid for them names the bundle that they were trained in
(`privacy.ledger`), so they stay with it, and a device that speaks with them begins anew.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from edge_agent.learning import checkpoint as checkpoints
from edge_agent.learning.checkpoint import Checkpoint
from edge_agent.learning.learned import spoke_privately
from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.succession import unfit
from fd_runtime.artifacts import Bundle
from fd_runtime.models.model import F32, OptimizerState, ThetaError, check_theta

log = logging.getLogger("edge-agent")


def learnt_with(bundle: Bundle, path: Path) -> F32 | None:
    """Return the parameters that a device has learnt with a bundle, as its checkpoint has them; None: it has not.

    Args:
        bundle: theirs.
        path: of the checkpoint.
    """
    found = _read(bundle, path)
    return None if found is None else found.state().theta


def carry_over(before: Bundle, learnt: Path, after: Bundle, path: Path) -> bool:
    """Let a bundle begin with what was learnt with the one before; return whether it does now.

    What it has learnt itself stands. May be cut short, and be done again.

    Args:
        before: that ran until now.
        learnt: its checkpoint.
        after: what runs from now on.
        path: of the checkpoint that is written.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() or unfit(before.manifest, after.manifest) or spoke_privately(learnt):
        return False
    found = _read(before, learnt)
    if found is None:
        return False
    old, new = before.manifest.training, after.manifest.training
    record = replace(found, bundle=after.digest)
    if (old.optimizer, old.slots) != (new.optimizer, new.slots):  # the optimizer begins anew, the parameters do not
        fresh = OptimizerState.fresh(found.state().theta, new.slots)
        slots = {name: vector.astype("<f4").tobytes() for name, vector in fresh.slots.items()}
        record = replace(record, slots=slots, step=fresh.step)
    checkpoints.save(path, record)
    log.info("goes on with what was learnt with %s", before.digest.hex()[:12])
    return True


def _read(bundle: Bundle, path: Path) -> Checkpoint | None:
    """Return the checkpoint of a bundle; None: there is none, or none that can be read."""
    try:
        found = checkpoints.load(path)
        if found is None or found.bundle != bundle.digest:
            return None
        check_theta(found.state().theta, bundle.manifest.layout.size)
    except (DigestError, DecodeError, ThetaError) as error:
        log.warning("nothing is carried over: %s", error)
        return None
    return found
