"""Which bundle a device runs, as a pure fold: `step(state, event) -> state`.

    IDLE --nudged--> DOWNLOAD <-> INSTALL ----------------> REBOOT --> COMMIT --healthy--> IDLE
                        |            |  `--> COMPILING --/                |
                        |            |          |                         |
                        +--refused---+----------+--> IDLE, known bad <----+--unhealthy, or started too often: ROLLBACK

The names are those of Mender's update modules, which operators know. To reboot is to begin the device's life anew with
the other slot: what a power cut would do, so there is one way to start and it is the one that is used every day.

Rules:
- The bundle of the settings file is the *factory* slot. It is never deleted, and another one there ends everything
  that was over the air.
- `active` changes when a life begins with a proven bundle, and when the device goes back; never while one lasts.
- A bundle that was refused or that failed its trial is known bad, and is not tried again.
- What is on trial may be started `MAX_STARTS` times; the next start takes the slot before.
- The slot before is kept until the device has taken part in a round with the new one.
- One at a time: what comes while a bundle is on trial waits, and of those that wait the newest counts.

What is deliberately absent: files, the network, time, how a bundle is proven.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

MAX_STARTS = 2
_REMEMBERED = 64
"""Bundles that are known bad: a fleet's worth of mistakes in some years."""


class Phase(str, Enum):
    """Where the device stands on its way to another bundle; see the picture above."""

    IDLE = "idle"
    DOWNLOAD = "download"
    INSTALL = "install"
    COMPILING = "compiling"
    """Ours: the same trial, in the minutes in which a GPU's compiler has the bundle."""
    REBOOT = "reboot"
    COMMIT = "commit"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True)
class Offered:
    """A bundle that the device is told to run. Digests are in hex; without a `package` it must be here already.

    `by_owner`: the device's owner brought it, and nobody needs to vouch for it; None = the federation told.
    """

    bundle: str
    version: str
    package: str = ""
    package_bytes: int = 0
    by_owner: bool | None = None


@dataclass(frozen=True, slots=True)
class Slots:
    """All that must outlive a power cut.

    Attributes:
        factory: digest of the settings' bundle; empty before the first start.
        active: what runs; "" = the factory's.
        phase: of the way to `release`.
        release: what is under way; None = nothing is.
        previous: what to go back to; None = nothing else is kept.
        starts: of the bundle that is on trial.
        waiting: came while another one was on trial.
        known_bad: never again.
        outcome: of the last one, in a line; empty = none has ended.
        succeeded: whether that was well.
        note: what the trial found out about `release`, in a line; None = nothing.
        keeps_tail: what was learnt with the bundle before is for the last one that was proven too; None = it is not.
    """

    factory: str = ""
    active: str = ""
    phase: Phase = Phase.IDLE
    release: Offered | None = None
    previous: str | None = None
    starts: int = 0
    waiting: Offered | None = None
    known_bad: tuple[str, ...] = ()
    outcome: str = ""
    succeeded: bool = True
    # An agent of before wrote neither, and what it wrote must still be what `to_json` writes: no default but None.
    note: str | None = None
    keeps_tail: bool | None = None

    @property
    def about(self) -> str:
        """The bundle that `outcome` is about, as well as the state tells: the last that failed, or what runs."""
        runs = self.active or self.factory
        return self.known_bad[-1] if self.known_bad and not self.succeeded else runs

    @property
    def kept(self) -> frozenset[str]:
        """Digests of the slots that must stay on disk, the factory's aside."""
        under_way = self.release.bundle if self.release else ""
        return frozenset({self.active, self.previous or "", under_way} - {"", self.factory})

    @property
    def inherits(self) -> bool:
        """Whether `active` may begin with what was learnt with `previous`: not while `keeps_tail` is about the next."""
        return bool(self.keeps_tail) and self.previous is not None and self.phase is not Phase.REBOOT

    @property
    def awaits_restart(self) -> bool:
        return self.phase in (Phase.REBOOT, Phase.ROLLBACK)


@dataclass(frozen=True, slots=True)
class Started:
    """The device begins a life; the settings name the bundle `factory`. What is proven is switched to here."""

    factory: str


@dataclass(frozen=True, slots=True)
class Nudged:
    """The federation, or the device's owner, wants another bundle."""

    offered: Offered


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The package is here, whole."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The package is not here any more, or not as it came: a card that rots, a file that somebody deleted."""


@dataclass(frozen=True, slots=True)
class Compiling:
    """A GPU's compiler has begun with the bundle that is on trial; it takes minutes."""


@dataclass(frozen=True, slots=True)
class Installed:
    """The bundle lies in its slot and has proven itself.

    Attributes:
        note: what the trial found out, in a line.
        keeps_tail: the device may go on with what it has learnt.
    """

    note: str = ""
    keeps_tail: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The bundle is no good, here or anywhere."""

    reason: str


@dataclass(frozen=True, slots=True)
class Healthy:
    """The new bundle has done its work for long enough."""


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """The new bundle does not work."""

    reason: str


@dataclass(frozen=True, slots=True)
class Broken:
    """What is active cannot be read any more: a card that rots, a file that somebody deleted."""

    reason: str


@dataclass(frozen=True, slots=True)
class TookPart:
    """A round has ended for this device."""


@dataclass(frozen=True, slots=True)
class BackWanted:
    """The device's owner wants the slot before."""


Event: TypeAlias = (
    Started
    | Nudged
    | Downloaded
    | Lost
    | Compiling
    | Installed
    | Refused
    | Healthy
    | Unhealthy
    | Broken
    | TookPart
    | BackWanted
)


def step(state: Slots, event: Event) -> Slots:
    """Return the state after `event`; one that does not fit the phase changes nothing."""
    match state.phase, event:
        case _, Started(factory):
            return _start(state, factory)
        case _, Nudged(offered):
            return _hear(state, offered)
        case Phase.DOWNLOAD, Downloaded():
            return replace(state, phase=Phase.INSTALL)
        case Phase.INSTALL | Phase.COMPILING, Lost():
            return replace(state, phase=Phase.DOWNLOAD)
        case Phase.DOWNLOAD | Phase.INSTALL | Phase.COMPILING, Refused(reason):
            return _refuse(state, reason)
        case Phase.INSTALL, Compiling():
            return replace(state, phase=Phase.COMPILING)
        case Phase.INSTALL | Phase.COMPILING, Installed(note, keeps_tail):
            return replace(state, phase=Phase.REBOOT, note=note or None, keeps_tail=keeps_tail or None)
        case Phase.COMMIT, Healthy() if state.release is not None:
            found = f" ({state.note})" if state.note else ""
            return _end(state, f"{state.release.version} runs{found}", succeeded=True)
        case Phase.COMMIT, Unhealthy(reason):
            return _go_back(state, reason)
        case _, Broken(reason) if state.active:
            return _fall_back(state, reason)
        case Phase.IDLE, TookPart():
            return replace(state, previous=None) if state.previous is not None else state
        case Phase.IDLE, BackWanted() if state.previous is not None:
            bad = _remember(state, state.active or state.factory)
            back = replace(state, active=state.previous, previous=None, phase=Phase.ROLLBACK, known_bad=bad)
            return replace(back, outcome="the owner went back", succeeded=False, keeps_tail=None)
        case Phase.COMMIT, BackWanted():
            return _go_back(state, "the owner went back")
    return state


def _start(state: Slots, factory: str) -> Slots:
    if factory != state.factory:
        return Slots(factory=factory, known_bad=state.known_bad)
    if state.phase is Phase.ROLLBACK:
        return _next(replace(state, phase=Phase.IDLE))
    if state.phase is Phase.REBOOT and state.release is not None:
        chosen = "" if state.release.bundle == factory else state.release.bundle
        return replace(state, phase=Phase.COMMIT, active=chosen, previous=state.active, starts=1)
    if state.phase is not Phase.COMMIT:
        return state
    if state.starts >= MAX_STARTS:
        return _next(replace(_go_back(state, f"not healthy after {state.starts} starts"), phase=Phase.IDLE))
    return replace(state, starts=state.starts + 1)


def _hear(state: Slots, offered: Offered) -> Slots:
    target = state.release.bundle if state.release else (state.active or state.factory)
    if offered.bundle == target:
        return replace(state, waiting=None) if state.waiting is not None else state
    if offered.bundle in state.known_bad:
        return state
    if state.phase in (Phase.REBOOT, Phase.COMMIT, Phase.ROLLBACK):
        return replace(state, waiting=offered) if offered != state.waiting else state
    return _begin(replace(state, phase=Phase.IDLE, release=None), offered)


def _begin(state: Slots, offered: Offered) -> Slots:
    here = {state.factory, state.active or state.factory}
    if offered.bundle in here:  # what was under way is called off, or the fleet goes back to what it was born with
        runs = offered.bundle == (state.active or state.factory)
        back = replace(state, release=offered, phase=Phase.REBOOT, note=None, keeps_tail=None)
        return state if runs else back
    if not offered.package:
        return replace(state, outcome=f"{offered.version}: it has no package", succeeded=False)
    return replace(state, release=offered, phase=Phase.DOWNLOAD)


def _refuse(state: Slots, reason: str) -> Slots:
    assert state.release is not None
    bad = _remember(state, state.release.bundle)
    return _end(replace(state, known_bad=bad), f"{state.release.version} refused: {reason}", succeeded=False)


def _go_back(state: Slots, reason: str) -> Slots:
    """The factory's own bundle is never known bad: without it there would be nothing to go back to."""
    assert state.release is not None
    bad = _remember(state, state.release.bundle)
    outcome = f"{state.release.version} taken back: {reason}"
    return replace(
        state,
        active=state.previous or "",
        previous=None,
        phase=Phase.ROLLBACK,
        release=None,
        starts=0,
        known_bad=bad,
        outcome=outcome,
        succeeded=False,
        note=None,
        keeps_tail=None,
    )


def _fall_back(state: Slots, reason: str) -> Slots:
    """Nothing is wrong with the bundle itself, so it may come again; until then the one before does."""
    back = (state.previous or "") if state.previous != state.active else ""
    outcome = f"{state.active[:12]} is lost: {reason}"
    release = None if state.phase in (Phase.REBOOT, Phase.COMMIT, Phase.ROLLBACK) else state.release
    phase = state.phase if release else Phase.IDLE
    return _next(
        replace(
            state,
            active=back,
            previous=None,
            phase=phase,
            release=release,
            starts=0,
            outcome=outcome,
            succeeded=False,
            keeps_tail=None,
        )
    )


def _end(state: Slots, outcome: str, *, succeeded: bool) -> Slots:
    ended = replace(state, phase=Phase.IDLE, release=None, starts=0, outcome=outcome, succeeded=succeeded, note=None)
    return _next(ended)


def _next(state: Slots) -> Slots:
    """Begin what has waited."""
    if state.waiting is None:
        return state
    return _hear(replace(state, waiting=None), state.waiting)


def _remember(state: Slots, bundle: str) -> tuple[str, ...]:
    if bundle == state.factory:
        return state.known_bad
    return (*(bad for bad in state.known_bad if bad != bundle), bundle)[-_REMEMBERED:]
