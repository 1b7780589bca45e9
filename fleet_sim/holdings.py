"""What each device holds in a round, where the world drifts under a running federation.

    held = scenario.holdings(seed)
    held.of(1), held.of(2), ...      labelled rows of every device

A device meets its new rows as programs do today: it is started again on them, finds that they are others than before,
begins a new private epoch and sends a new competence map; what it has learnt lies in its checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

from fd_runtime.models.model import I64
from fleet_sim.partitions import Drift, FeatureShift, LabelNoise
from fleet_sim.worlds import Samples, World, disturbed


@dataclass(frozen=True, slots=True)
class Holdings:
    """A world before anything disturbs it, and what does.

    Attributes:
        plain: who holds what over its whole life, recorded and labelled right.
        shift, noise: as in `worlds.disturbed`; the shift grows as `drift` says.
        drift: which rows of its life a device holds at a time.
        seed: of every draw.
    """

    plain: World
    shift: FeatureShift | None
    noise: LabelNoise
    drift: Drift
    seed: int

    def of(self, number: int) -> tuple[Samples, ...]:
        """Return the rows of every device in round `number`, from 1; row for row those of `Scenario.world`."""
        strength = self.drift.strength(number)
        private = disturbed(self.plain, self.shift, self.noise, self.seed, strength=strength).private
        return tuple(
            noisy.take(self._window(true, number, device))
            for device, (noisy, true) in enumerate(zip(private, self.plain.private, strict=True))
        )

    def _window(self, part: Samples, number: int, device: int) -> I64:
        """What a device sees does not depend on how it labels it."""
        return self.drift.rows(part.labels, number, device=device, seed=self.seed)
