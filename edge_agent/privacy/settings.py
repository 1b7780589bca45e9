"""What the owner of a device allows, whatever a server asks: the section [privacy] of its settings."""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.identity import require


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """A device's own privacy terms. Of these and an offer's the stricter win.

    Attributes:
        epsilon: most that one private training may cost, even where no offer asks for privacy; 0 = as offers say.
        delta: that goes with every epsilon here.
        epsilon_max: most that all private trainings within a period may cost together. Past it a device refuses.
        period_days: length of a privacy period; there is one private training in each.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    epsilon_max: float = 10.0
    period_days: float = 30.0

    def __post_init__(self) -> None:
        require(0 <= self.epsilon <= 1000, "epsilon lies in [0, 1000]")
        require(0 < self.delta <= 1e-3, "delta lies in (0, 0.001]")
        require(0 < self.epsilon_max <= 1000, "epsilon_max lies in (0, 1000]")
        require(0 < self.period_days <= 36_500, "period_days lies in (0, 36500]")

    @property
    def period_s(self) -> int:
        return round(self.period_days * 86_400)
