"""Coverage: do the probes and the devices' data lie in the same place?

With probes out of domain distillation hurts, whatever the rule: measured on MNIST devices, probes from other pictures
bring global accuracy below the factory model's. Nothing is refused for it; the operator is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.bodies import U8
from fd_protocol.competence import FAR
from fd_protocol.quantisers import I64

WARN_UNCOVERED = 0.1
"""Measured on the demo's devices: 0 to .2 % of probes are uncovered in domain, 15 % where a quarter of them are
clothes, 75 % where all are, 96 % with inverted digits. White noise passes: in its wide unit all pictures are alike."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Near is the first distance code, far the last (`fd_protocol.competence`); in domain a third lies in between.

    Attributes:
        uncovered: share of probes that are far from every device.
        far_devices: share of devices that are near no probe; those without a map are among them.
    """

    uncovered: float
    far_devices: float


def is_far(distances: U8) -> bool:
    """Whether a device with these codes [n] is near no probe."""
    return bool(distances.min() > 0)


def coverage(counts: I64, far_devices: int) -> Coverage:
    """Return the coverage of a round.

    Args:
        counts: devices that have each distance code on each probe, [codes, n].
        far_devices: how many devices are far.
    """
    voices = int(counts[:, 0].sum())
    return Coverage(float((counts[FAR] == voices).mean()), far_devices / voices)
