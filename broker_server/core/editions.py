"""The public set in editions, as a pure fold: what rounds are about, what they may come to be about, what they were.

    settings --named--> current --switch, rotate--> retired
                           ^
              staged ------+ switch         staged --drop--> gone
              | trial: a round about it that nobody sees the consensus of

An *edition* is a public set with the canaries that the server knows in it, and has a number.

Rules:
- What the settings name is the first edition, and follows them for as long as there has been no other.
- One edition is staged at a time. A trial earns nobody trust and publishes nothing; what it came to stands beside the
  current edition's last round.
- The staged edition becomes current once a trial of it has made a consensus, or where the operator insists.
- New canaries of the current set make an edition that is current at once, and no device is told. Canaries that were
  used in this set before are refused: they are known.
- What devices have earned goes on into the next edition, where its canaries judge them from the first round on
  (`rules.canary_trust`: what was earned before weighs as much as three claims), or is forgotten, where the old canaries
  have leaked.

What is deliberately absent: files (`probe_shelf`), the round itself, who has which set (`federation.Presence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker_server.core.events import Command, Edition, Effect, Order, PublishProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.messages import PublicSetRef
from fd_protocol.schema import keyed

_REMEMBERED = 16
"""Editions that have retired: their canaries are not used again."""
UNTRIED, FORGET_TRUST = "untried", "forget-trust"
"""Arguments of `probes-switch` and `probes-rotate`: not empty = yes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What a round about the staged edition came to; see `events.ConsensusMade`."""

    edition: int = keyed(1)
    round: RoundId = keyed(2)
    sha256: bytes = keyed(3)
    trust: bytes = keyed(4)
    metrics: Mapping[str, float] = field(default_factory=dict, metadata={"key": 5})


@dataclass(frozen=True, slots=True)
class Editions:
    """Everything that a server remembers of its public sets."""

    current: Edition | None = keyed(1, default=None)
    """None: the federation has no public set, or a server from before there were editions wrote this."""
    staged: Edition | None = keyed(2, default=None)
    retired: tuple[Edition, ...] = keyed(3, default=())
    """The last one last."""
    count: int = keyed(4, default=0)
    """The highest number that an edition has had."""
    is_trial_wanted: bool = keyed(5, default=False)
    """The next round is about the staged edition."""
    trial: Trial | None = keyed(6, default=None)
    """The last trial of the staged edition."""
    are_told: bool = keyed(7, default=False)
    """Devices have heard of other sets than that of the offers. Of other canaries they never hear."""

    @property
    def next(self) -> Edition | None:
        """The edition that the next round is about."""
        return self.staged if self.is_trial_wanted else self.current

    @property
    def known(self) -> tuple[Edition, ...]:
        """All of them: the current one first, then the staged one, then those that have retired, the last one first."""
        here = [edition for edition in (self.current, self.staged) if edition is not None]
        return (*here, *reversed(self.retired))

    def about(self, public_set: bytes) -> Edition | None:
        """Return the edition by which a round about `public_set` is judged now."""
        return next((edition for edition in self.known if edition.public_set == public_set), None)


@dataclass(frozen=True, slots=True)
class Obeyed:
    """The state after an order, and a line for people; `forgets_trust`: what devices have earned is void."""

    editions: Editions
    outcome: str
    is_obeyed: bool = True
    forgets_trust: bool = False


def named(state: Editions, edition: Edition) -> Editions:
    """Return the state once the settings have named `edition`; the same where another has come since."""
    if state.count > 1 or state.current == edition:
        return state
    return replace(state, current=edition, count=1)


def opened(state: Editions, number: int) -> Editions:
    """Return the state once a round about edition `number` has opened."""
    return replace(state, is_trial_wanted=False) if is_trial(state, number) else state


def is_trial(state: Editions, number: int) -> bool:
    """Whether a round about edition `number` is a trial."""
    return state.staged is not None and number == state.staged.number


def tried(state: Editions, trial: Trial) -> Editions:
    """Return the state once a trial has made a consensus; the same where its edition is not staged any more."""
    return replace(state, trial=trial) if is_trial(state, trial.edition) else state


def obey(state: Editions, order: Order, at_ms: int, *, lacking: int) -> Obeyed:
    """Return what an order about the public set comes to.

    Args:
        state: before it.
        order: one of `probes-...`; its files have been checked.
        at_ms: when the server found it.
        lacking: devices online that do not have the staged set.
    """
    try:
        match order.command:
            case Command.PROBES_STAGE:
                return _stage(state, order, at_ms)
            case Command.PROBES_ROTATE:
                return _rotate(state, order, at_ms)
            case Command.PROBES_TRIAL:
                return _try(state)
            case Command.PROBES_SWITCH:
                return _switch(state, order, lacking)
        return _drop(state)
    except KeyError as missing:
        return _refused(state, f"the order does not say {missing}")
    except (ValueError, InvalidValueError) as error:
        return _refused(state, str(error))


def outstanding(state: Editions) -> tuple[Effect, ...]:
    """Return what must be brought about: devices know the sets, once there is more to know than an offer tells."""
    if state.current is None or not state.are_told:
        return ()
    coming = () if state.staged is None else (_reference(state.staged),)
    return (PublishProbes(_reference(state.current), coming),)


def ordered(state: Editions, order: Order, at_ms: int) -> Edition:
    """Return the edition that `probes-stage` or `probes-rotate` is about.

    Raises:
        KeyError, ValueError, InvalidValueError: the order says too little, or there is no public set.
    """
    said, number = order.arguments, state.count + 1
    if order.command == Command.PROBES_ROTATE:
        if state.current is None:
            raise InvalidValueError("there is no public set to have canaries in")
        return replace(state.current, number=number, canaries=bytes.fromhex(said["canaries"]), at_ms=at_ms)
    return Edition(
        number=number,
        public_set=bytes.fromhex(said["public_set"]),
        count=int(said["count"]),
        canaries=bytes.fromhex(said.get("canaries", "")),
        size_bytes=int(said["size_bytes"]),
        at_ms=at_ms,
    )


def _stage(state: Editions, order: Order, at_ms: int) -> Obeyed:
    edition = ordered(state, order, at_ms)
    if state.staged is not None:
        return _refused(state, f"edition {state.staged.number} is staged: switch to it or drop it first")
    if state.current is not None and edition.public_set == state.current.public_set:
        return _refused(state, "rounds are about this public set already; `probes rotate` gives it new canaries")
    staged = replace(state, staged=edition, count=edition.number, trial=None, are_told=True)
    return Obeyed(staged, f"edition {edition.number} is staged: {edition.count} probes")


def _rotate(state: Editions, order: Order, at_ms: int) -> Obeyed:
    edition = ordered(state, order, at_ms)
    if any(edition.canaries == known.canaries for known in state.known):
        return _refused(state, "these canaries were used already")
    forgets = bool(order.arguments.get(FORGET_TRUST))
    earned = "what devices have earned is forgotten" if forgets else "what devices have earned goes on"
    return Obeyed(
        _succeeded(replace(state, count=edition.number), edition),
        f"edition {edition.number} is current: the same probes with other canaries; {earned}",
        forgets_trust=forgets,
    )


def _try(state: Editions) -> Obeyed:
    if state.staged is None:
        return _refused(state, "nothing is staged")
    wanted = replace(state, is_trial_wanted=True)
    return Obeyed(wanted, f"the next round is a trial of edition {state.staged.number}")


def _switch(state: Editions, order: Order, lacking: int) -> Obeyed:
    staged, trial = state.staged, state.trial
    if staged is None:
        return _refused(state, "nothing is staged")
    if trial is None and not order.arguments.get(UNTRIED):
        return _refused(state, f"no trial of edition {staged.number} has made a consensus: `probes trial` first")
    without = f"; {lacking} devices online do not have it and take no part" if lacking else ""
    after = replace(state, staged=None, trial=None, is_trial_wanted=False)
    return Obeyed(_succeeded(after, staged), f"edition {staged.number} is current from the next round on{without}")


def _drop(state: Editions) -> Obeyed:
    if state.staged is None:
        return _refused(state, "nothing is staged")
    after = replace(state, staged=None, trial=None, is_trial_wanted=False)
    return Obeyed(after, f"edition {state.staged.number} is dropped")


def _succeeded(state: Editions, edition: Edition) -> Editions:
    """Return the state where `edition` is current, and what was current has retired."""
    last = () if state.current is None else (state.current,)
    return replace(state, current=edition, retired=(*state.retired, *last)[-_REMEMBERED:])


def _refused(state: Editions, why: str) -> Obeyed:
    return Obeyed(state, why, is_obeyed=False)


def _reference(edition: Edition) -> PublicSetRef:
    return PublicSetRef(edition.public_set, edition.count, edition.size_bytes)
