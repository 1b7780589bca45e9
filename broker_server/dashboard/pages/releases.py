"""Releases: what is known of the student, what the fleet runs, and whether anybody has verified it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from broker_server.core.delivery import Delivery, Standing, id_of
from broker_server.core.events import Published, Release
from broker_server.core.releases import Releases
from broker_server.core.rollouts import Rollout
from broker_server.dashboard.reading import Look
from broker_server.deliveries import stored
from broker_server.records.chronicle import RoundRecord

_ROUNDS = 20
_TOLD = ("device", "online", "bundle", "family", "replaced_by")
_LAST = 5
"""Devices that are named, of those that refused a bundle, and of those that were lost on the way to it."""
_ON_THE_WAY = (Standing.ASKED, Standing.UNDER_WAY, Standing.SILENT)


@dataclass(frozen=True, slots=True)
class Running:
    """How many devices run a bundle; `is_allowed`: the settings let it join."""

    bundle: bytes
    family: str
    devices: int
    online: int
    share: float
    is_allowed: bool


@dataclass(frozen=True, slots=True)
class Underway:
    """A bundle that some devices run first, or all by now.

    Attributes:
        rollout: how far it is.
        version: of the bundle.
        before: version of what the others run; empty = what they were born with.
        under_way: devices that were asked, or have begun with it, and have not ended; the silent ones too.
        last: what devices that failed said, the last first.
        lost: devices that fell silent on their way, the last heard first.
    """

    rollout: Rollout
    version: str
    before: str
    under_way: int
    last: tuple[Delivery, ...]
    lost: tuple[Delivery, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleasesPage:
    """What the page shows.

    Attributes:
        is_verifiable: whether there are release canaries; without them a student is unverified, whatever it scores.
        has_student: whether a student learns at all.
        lessons: the last rounds that it learnt from, newest first.
        running: what devices run, the most common first.
        releases: what the student was released as, the current one first.
        count: how many releases there ever were.
        is_limited: whether the settings name the bundles that may join.
        published: what stands for each family, by an operator's word or of the student, and how far it is.
    """

    is_verifiable: bool
    has_student: bool
    lessons: tuple[RoundRecord, ...]
    running: tuple[Running, ...]
    is_limited: bool
    releases: tuple[Release, ...] = ()
    count: int = 0
    published: tuple[Underway, ...] = ()

    def standing(self, lesson: RoundRecord) -> str:
        """What is known of the student after a lesson."""
        if any(name.startswith("failed_") for name in lesson.student):
            return "failed; the student stays as it was"
        if not self.is_verifiable:
            return "unverified"
        if "release_gain" not in lesson.student:
            return "scored; not compared with a release" if "accuracy" in lesson.student else "unverified"
        gain, p = lesson.student["release_gain"], lesson.student["release_p"]
        return f"{100 * gain:+.1f} points against what the fleet ran, p = {p:.2g}"


def releases_page(look: Look) -> ReleasesPage:
    """Return what the page shows."""
    bundles = look.around.settings.bundles
    return ReleasesPage(
        is_verifiable=look.has_release_canaries,
        has_student=look.state.schedule.has_student,
        lessons=tuple(one for one in look.chronicle.rounds(_ROUNDS) if one.student),
        running=_running(look, bundles),
        is_limited=bool(bundles),
        releases=look.state.releases.made[::-1],
        count=look.state.releases.count,
        published=_underway(look),
    )


def _underway(look: Look) -> tuple[Underway, ...]:
    releases = look.state.releases
    said = list(stored(look.chronicle.store, look.chronicle.federation)) if releases.rollouts else []
    found = []
    own: list[Published | Release] = [releases.current] if releases.current is not None and releases.own is None else []
    for standing in (*releases.standing, *own):
        rollout = releases.rollout_of(standing.family)
        if rollout is None or rollout.bundle != standing.bundle:
            continue
        mine = [one for one in said if one.bundle == id_of(standing.bundle)]
        before = _before(standing, releases)
        begun = sum(one.standing in _ON_THE_WAY for one in mine)
        last, lost = _last(mine, Standing.FAILED), _last(mine, Standing.LOST)
        found.append(Underway(rollout, standing.version, before, begun, last, lost))
    return tuple(found)


def _before(standing: Published | Release, releases: Releases) -> str:
    if isinstance(standing, Release):
        return releases.before.version if releases.before is not None else ""
    older = [one for one in releases.published if one.family == standing.family][:-1]
    return older[-1].version if older else ""


def _last(said: Iterable[Delivery], standing: Standing) -> tuple[Delivery, ...]:
    return tuple(sorted((one for one in said if one.standing is standing), key=lambda one: -one.at_ms)[:_LAST])


def _running(look: Look, bundles: tuple[str, ...]) -> tuple[Running, ...]:
    devices = [device for device in look.chronicle.devices(columns=_TOLD) if not device.replaced_by]
    known = Counter((device.bundle, device.family) for device in devices)
    online = Counter((device.bundle, device.family) for device in devices if device.online)
    rows = [
        Running(
            bundle, family, count, online[bundle, family], count / len(devices), not bundles or bundle.hex() in bundles
        )
        for (bundle, family), count in known.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-row.devices, row.family, row.bundle)))
