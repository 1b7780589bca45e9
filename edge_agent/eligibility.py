"""May this device contribute to a round? Yes, or the reason why not; either way it learns from the consensus."""

from __future__ import annotations

from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_digest, check_name
from fd_protocol.messages import RoundOffer


@dataclass(frozen=True, slots=True)
class Profile:
    """What a device is, as far as the federation needs to know.

    Attributes:
        device: its id, also the common name of its certificate.
        federation: the only one it takes part in.
        task: digest of classes and input contract.
        classes: number of them.
        bundle: digest of the bundle it runs.
        family: of the bundle's architecture.
        runtime: what the bundle runs on here.
        public_set: digest of the public set it has.
        probes: number of samples in it.
        private_epoch: changes whenever the private rows do.
        trains_privately: bundle and runtime have a clipping graph: it can work under privacy terms.
    """

    device: str
    federation: str
    task: bytes
    classes: int
    bundle: bytes
    family: str
    runtime: str
    public_set: bytes
    probes: int
    private_epoch: int = 0
    trains_privately: bool = False

    def __post_init__(self) -> None:
        check_name(self.device, "device")
        check_name(self.federation, "federation")
        for digest, what in ((self.task, "task"), (self.bundle, "bundle"), (self.public_set, "public_set")):
            check_digest(digest, what)
        if self.classes < 2 or self.probes < 1:
            raise InvalidValueError("a profile has at least 2 classes and 1 probe")


def objection(offer: RoundOffer, profile: Profile) -> str:
    """Return why `profile` does not contribute to `offer`, one word of `a-z_`; empty: it does."""
    if offer.task != profile.task or offer.slice.classes != profile.classes:
        return "foreign_task"
    if offer.bundles and profile.bundle not in offer.bundles:
        return "foreign_bundle"
    if offer.slice.public_set != profile.public_set:
        return "unknown_public_set"
    if offer.slice.start + offer.slice.count > profile.probes:
        return "slice_out_of_range"
    if not offer.invites(profile.device):
        return "not_sampled"
    return ""
