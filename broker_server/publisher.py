"""What the server says: presence, offer, consensus, release and public sets, retained; receipts to one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from broker_server.core.events import PublishBundle, PublishRelease
from broker_server.core.events import Published as PublishedBundle
from broker_server.core.events import Release as Made
from broker_server.core.round import Round
from fd_protocol import codec
from fd_protocol.messages import MAX_MARKS, Command, ProbeNotice, Receipt, Release, ServerState, StagedRelease
from fd_protocol.topics import Topics
from fd_runtime.artifacts import Bundle
from fd_runtime.links.link import Link

RECEIPT_EXPIRY_S = 86_400
"""A device that was away for longer sends its payload again."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Speaks for one aggregator.

    Attributes:
        link: to the broker.
        topics: of the federation.
        aggregator: name of this server.
        version: of this program.
        clock: UTC milliseconds.
    """

    link: Link
    topics: Topics
    aggregator: str
    version: str
    clock: Callable[[], int]

    def presence(self, epoch: int, *, online: bool) -> int:
        """Publish whether the server is there; return the token of the message."""
        return self._retain(self.topics.server(self.aggregator), ServerState(online, epoch, self.version))

    def offer(self, current: Round) -> None:
        """Publish the offer with what remains of its time now; devices count from when they get it."""
        remaining_s = max(1, -(-(current.deadline_ms - self.clock()) // 1000))
        remaining_s = min(remaining_s, current.offer.remaining_s)  # where the clock was set back since it opened
        self._retain(self.topics.round, replace(current.offer, remaining_s=remaining_s))

    def consensus(self, blocks: Sequence[bytes]) -> None:
        """Publish encoded blocks, in order."""
        for index, block in enumerate(blocks):
            self.link.publish(self.topics.consensus(index), block, retain=True)

    def release(self, family: str, first: Bundle, effect: PublishRelease, devices: Sequence[str]) -> None:
        """Publish which release of the student devices of `family` should run: all of them, or some first.

        Args:
            family: of the student.
            first: bundle that its devices were born with: what they run where there is no release.
            effect: what, and for whom.
            devices: as in `bundle`.
        """
        message = _of_student(family, first, effect.release)
        if effect.share < 1.0 or effect.is_halted:
            message = _staged(_of_student(family, first, effect.before), message, effect, devices)
        self._retain(self.topics.release(family), message)

    def bundle(self, effect: PublishBundle, first: Bundle | None, devices: Sequence[str]) -> None:
        """Publish which bundle devices of a family should run, by an operator's word: all of them, or some first.

        Args:
            effect: what, and for whom.
            first: bundle that devices of the student's family were born with; None = this server has no shelf.
            devices: names of those that are among the first, by their tags; the first `MAX_MARKS` of them.
        """
        published = effect.published
        message = _of_published(published)
        if effect.share < 1.0 or effect.is_halted:
            message = _staged(_behind(effect, first), message, effect, devices)
        self._retain(self.topics.release(published.family), message)

    def probes(self, notice: ProbeNotice) -> None:
        """Publish which public sets rounds are about."""
        self._retain(self.topics.probes, notice)

    def command(self, device: str, command: Command) -> None:
        """Ask a device for something; the broker forgets it when it is past its time."""
        left_s = max(1, command.expires_utc_s - self.clock() // 1000)
        topic = self.topics.command(device, command.command)
        self.link.publish(topic, codec.encode(command), retain=True, expiry_s=left_s)

    def receipt(self, device: str, receipt: Receipt) -> None:
        self.link.publish(self.topics.receipt(device), codec.encode(receipt), expiry_s=RECEIPT_EXPIRY_S)

    def _retain(self, topic: str, message: object) -> int:
        return self.link.publish(topic, codec.encode(message), retain=True)


def _staged(behind: Release, new: Release, effect: PublishBundle | PublishRelease, devices: Sequence[str]) -> Release:
    """What devices hear where some are to run `new` and the others `behind`; halted: nobody begins."""
    share = 0.0 if effect.is_halted else effect.share
    staged = StagedRelease(new.bundle, new.version, new.package, new.package_bytes, new.parent, share)
    marks = () if effect.is_halted else tuple(staged.mark(device) for device in devices[:MAX_MARKS])
    return replace(behind, staged=replace(staged, named=marks))


def _of_student(family: str, first: Bundle, current: Made | None) -> Release:
    if current is None:
        return Release(family, first.digest, first.manifest.version)
    return Release(
        family,
        current.bundle,
        current.version,
        parent=first.digest,
        package=current.package,
        package_bytes=current.package_bytes,
        is_verified=current.is_verified,
    )


def _of_published(published: PublishedBundle) -> Release:
    return Release(
        published.family,
        published.bundle,
        published.version,
        parent=published.parent,
        package=published.package,
        package_bytes=published.package_bytes,
    )


def _behind(effect: PublishBundle, first: Bundle | None) -> Release:
    """What devices run that are not among the first; of another family nobody knows what they were born with."""
    published = effect.published
    if effect.before is not None:
        return _of_published(effect.before)
    if published.is_own and first is not None:
        return _of_student(published.family, first, effect.release)
    return Release(published.family, published.bundle, published.version)
