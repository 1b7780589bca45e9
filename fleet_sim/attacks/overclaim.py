"""Claiming competence everywhere: a map that says distance 0 to every probe.

Without a clip such a device owns every probe, whatever it answers (docs/adr/0004-methods.md). As an attack of its own,
it answers as its model does: overconfident rather than malicious. As `claims` of a scenario it goes with any attack.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fd_protocol.competence import encode_map
from fd_protocol.messages import CompetenceMap
from fd_runtime.models.model import F32
from fleet_sim.attacks.knowledge import Knowledge


def claim_everything(honest: CompetenceMap) -> CompetenceMap:
    return replace(honest, body=encode_map(np.zeros(honest.count, np.uint8)))


def as_it_thinks(knowledge: Knowledge) -> F32:
    return knowledge.own
