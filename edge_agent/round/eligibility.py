"""May this device contribute to a round? Yes, or the reason why not; either way it learns from the consensus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
        classes: of a probe: those of the task, or the states of a feature (`fd_protocol.prototypes`).
        bundle: digest of the bundle it runs.
        family: of the bundle's architecture.
        runtime: what the bundle runs on here.
        public_set: digest of the public set that it was set up with, or of what stands in its place.
        probes: number of probes in it.
        private_epoch: changes whenever the private rows of the file do.
        further: number of samples in each other public set that it has, by digest.
        has_store: it has other private rows besides, whose epoch the worker tells; the sum of both is the device's.
        trains_privately: bundle and runtime have a clipping graph: it can work under privacy terms.
        is_private: its owner asks for privacy terms, whatever an offer does.
        follows_releases: it goes to the bundles that the federation names, by itself.
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
    further: Mapping[bytes, int] = field(default_factory=dict)
    has_store: bool = False
    trains_privately: bool = False
    is_private: bool = False
    follows_releases: bool = False

    def __post_init__(self) -> None:
        check_name(self.device, "device")
        check_name(self.federation, "federation")
        for digest, what in ((self.task, "task"), (self.bundle, "bundle")):
            check_digest(digest, what)
        for digest in self.public_sets:
            check_digest(digest, "public_set")
        if self.classes < 2 or self.probes < 1:
            raise InvalidValueError("a profile has at least 2 classes and 1 probe")

    @property
    def public_sets(self) -> tuple[bytes, ...]:
        """Digests of the public sets that it has."""
        return (self.public_set, *self.further)

    def probes_of(self, public_set: bytes) -> int:
        """Return the number of samples in a public set; 0: the device does not have it."""
        return self.probes if public_set == self.public_set else self.further.get(public_set, 0)


def objection(offer: RoundOffer, profile: Profile, probes_of: Callable[[bytes], int] | None = None) -> str:
    """Return why `profile` does not contribute to `offer`, one word of `a-z_`; empty: it does.

    Args:
        offer: of a round.
        profile: of the device.
        probes_of: tells the number of samples in a public set, 0 where the device does not have it; None = the profile.
    """
    if offer.task != profile.task or offer.slice.classes != profile.classes:
        return "foreign_task"
    if offer.bundles and profile.bundle not in offer.bundles:
        return "foreign_bundle"
    probes = (probes_of or profile.probes_of)(offer.slice.public_set)
    if not probes:
        return "unknown_public_set"
    if offer.slice.start + offer.slice.count > probes:
        return "slice_out_of_range"
    if not offer.invites(profile.device):
        return "not_sampled"
    return ""
