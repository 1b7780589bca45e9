"""What devices should run, as a pure fold: releases of the student, and bundles that were made elsewhere.

    student --found better, or ordered--> candidate --made--> current --withdrawn--> the one before --> the first bundle
                                              |
                                              +--failed--> as it was
    bundle --ordered--> published, for its family --withdrawn--> the one before --> the student's, where it is of this
                                                                                    family

Rules:
- One candidate at a time; what the fleet runs already is none, and neither are weights that a halted release had.
- A release of the student is for some devices first, or for all, as anything else is (`rollouts`). While it is on its
  way no other is made; after it was halted only an order makes one, which takes its place.
- A release that was found better than the one before on labelled probes is verified; another, which only an operator
  can order, is not, and says so for ever.
- The last few are remembered, so that a bad one can be taken back; behind them stands the bundle that devices were born
  with.
- What an operator has published stands until it is withdrawn: the student is not released to devices of that family
  meanwhile, for its weights are another bundle's, and a candidate that is being made is called off.
- What is published may be for some devices first (`rollouts`). While it is, nothing else is published for their
  family; what is published after one that was halted takes its place, so that behind it stands what is known to work.
- Where the rollout of a family is another bundle's, as an earlier server may have left it, nobody begins with what is
  published: for whom it was is not known.
- Of a family that is not the student's the last one cannot be withdrawn: which bundle its devices were born with is
  known to them alone. It is published in the other's place.

What is deliberately absent: bundles and packages (the shelf's), the test (`release_gate`), who runs what by now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from broker_server.core import rollouts
from broker_server.core.events import (
    Command,
    Effect,
    MakeRelease,
    Order,
    PublishBundle,
    Published,
    PublishRelease,
    Release,
    ReleaseFailed,
    ReleaseMade,
    RolloutHeard,
)
from broker_server.core.rollouts import Rollout
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import RoundId
from fd_protocol.schema import keyed

_REMEMBERED = 4
_BAD = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights of the student, by digest, that shall be released; `staging` says to whom first, as an order does."""

    round: RoundId = keyed(1)
    weights: bytes = keyed(2)
    is_verified: bool = keyed(3, default=False)
    staging: Mapping[str, str] = field(default_factory=dict, metadata={"key": 4})


@dataclass(frozen=True, slots=True)
class Releases:
    """What was released, the last one last; `count` is of all that there ever were of the student.

    Attributes:
        published: of all families, the last one last.
        has_published_own: something was, once, for the student's family: its devices must hear what stands now.
        rollouts: of what is published or released for each family now; one without is for all.
        bad: weights of releases that were halted, and then withdrawn or replaced.
    """

    candidate: Candidate | None = keyed(1, default=None)
    made: tuple[Release, ...] = keyed(2, default=())
    count: int = keyed(3, default=0)
    published: tuple[Published, ...] = keyed(4, default=())
    has_published_own: bool = keyed(5, default=False)
    rollouts: tuple[Rollout, ...] = keyed(6, default=())
    bad: tuple[bytes, ...] = keyed(7, default=())

    @property
    def current(self) -> Release | None:
        """What the fleet should run, or begins to; None: the bundle that it was born with."""
        return self.made[-1] if self.made else None

    @property
    def before(self) -> Release | None:
        """What it ran before that; None: the bundle that it was born with."""
        return self.made[-2] if len(self.made) > 1 else None

    @property
    def own_rollout(self) -> Rollout | None:
        """How far the student's current release is; None: there is none, or it is for all."""
        if self.current is None:
            return None
        found = self.rollout_of(self.current.family)
        return found if found is not None and found.bundle == self.current.bundle else None

    @property
    def weights(self) -> bytes:
        """Digest of the weights that another student is compared with; empty = the bundle's own.

        Those of the current release, or where it is halted of the one before: it is what most of the fleet runs.
        """
        is_halted = self.own_rollout is not None and self.own_rollout.halted
        runs = self.before if is_halted else self.current
        return runs.weights if runs else b""

    @property
    def standing(self) -> tuple[Published, ...]:
        """What is published for each family now."""
        return tuple({one.family: one for one in self.published}.values())

    @property
    def own(self) -> Published | None:
        """What is published for the student's family; None: the student's releases are what its devices run."""
        return next((one for one in self.standing if one.is_own), None)

    def rollout_of(self, family: str) -> Rollout | None:
        """How far what is published for a family is; None: nothing is, or it is for all."""
        return next((one for one in self.rollouts if one.family == family), None)

    @property
    def named_blobs(self) -> frozenset[bytes]:
        """Return the digests of all bytes that may still be asked for."""
        candidate = [self.candidate.weights] if self.candidate else []
        return frozenset([*candidate, *(release.weights for release in self.made)])


def propose(state: Releases, candidate: Candidate, *, by_order: bool = False) -> Releases:
    """Return the state in which `candidate` is to be released; the same where `objection` has one."""
    return state if objection(state, candidate.weights, by_order=by_order) else replace(state, candidate=candidate)


def objection(state: Releases, weights: bytes, *, by_order: bool = False) -> str:
    """Return why a student with these weights is not released, in words that follow its name; empty: it may be."""
    current, rollout = state.current, state.own_rollout
    if state.candidate is not None:
        return "is on its way"
    if current is not None and weights == current.weights and rollout is not None and rollout.halted:
        return f"is halted ({rollout.halted}): resume it, or withdraw it"
    if weights == state.weights or (current is not None and weights == current.weights):
        return "is current already"
    if weights in state.bad:
        return "was halted before: it must learn something else first"
    if rollout is not None and not rollout.is_for_all and not (rollout.halted and by_order):
        return f"waits: {current.version if current else ''} is for {rollout.words}"
    return ""


def published_by(order: Order, at_ms: int) -> Published:
    """Return what an order wants published.

    Raises:
        KeyError, ValueError, InvalidValueError: it does not say what, or nothing that can be.
    """
    said = order.arguments
    return Published(
        family=said["family"],
        bundle=bytes.fromhex(said["bundle"]),
        version=said["version"],
        package=bytes.fromhex(said["package"]),
        package_bytes=int(said["package_bytes"]),
        parent=bytes.fromhex(said.get("parent", "")),
        is_own=said.get("own") == "yes",
        at_ms=at_ms,
    )


def publish(state: Releases, new: Published, rollout: Rollout | None = None) -> Releases:
    """Return the state in which devices of a family are to run `new`; the same where they are already.

    For the student's family it calls off the candidate: what is made of it later is no release.

    Raises:
        InvalidValueError: some of them are on their way to another one.
    """
    if any(replace(one, at_ms=new.at_ms) == new for one in state.standing):
        return state
    under_way = state.rollout_of(new.family)
    if under_way is not None and not under_way.is_for_all and not under_way.halted:
        raise InvalidValueError(f"another bundle is under way to family {new.family}: widen it to all, or halt it")
    others = [one for one in state.published if one.family != new.family]
    same = [one for one in state.published if one.family == new.family]
    if under_way is not None and under_way.halted:  # what follows a bad one does not fall back on it
        state, same = _without_halted(state), [one for one in same if one.bundle != under_way.bundle]
    kept = (*others, *same[1 - _REMEMBERED :], new)
    candidate = None if new.is_own else state.candidate
    has_published_own = state.has_published_own or new.is_own
    after = replace(state, candidate=candidate, published=kept, has_published_own=has_published_own)
    return _with_rollout(after, rollout or Rollout(new.family, new.bundle, since_ms=new.at_ms))


def change_rollout(state: Releases, order: Order, at_ms: int) -> tuple[Releases, str]:
    """Return the state after an order about a rollout, and how far that is, in words.

    Raises:
        KeyError, ValueError, InvalidValueError: there is none, or it cannot be so.
    """
    said = dict(order.arguments)
    family = said["family"]
    before = state.rollout_of(family)
    if before is None:
        raise InvalidValueError(f"nothing is under way to family {family}")
    match order.command:
        case Command.ROLLOUT_WIDEN:
            after = rollouts.widen(before, said, at_ms)
        case Command.ROLLOUT_HALT:
            after = rollouts.halt(before, said.get("reason") or f"by {order.who}")
        case _ if before.halted:
            after = rollouts.resume(before, at_ms)
        case _:
            raise InvalidValueError("it is not halted")
    return _with_rollout(state, after), after.words


def hear(state: Releases, event: RolloutHeard) -> Releases:
    """Return the state once so many devices have ended or are silent; the same where that is about another bundle."""
    before = state.rollout_of(event.family)
    if before is None or before.bundle != event.bundle:
        return state
    after = rollouts.heard(before, event.succeeded, event.failed, event.lost, event.silent)
    return state if after == before else _with_rollout(state, after)


def ticked(state: Releases, at_ms: int) -> Releases:
    """Return the state at a time; the same where no stage is due."""
    after = tuple(rollouts.ticked(one, at_ms) for one in state.rollouts)
    return state if after == state.rollouts else replace(state, rollouts=after)


def is_due(state: Releases, at_ms: int) -> bool:
    """Whether a stage begins now."""
    return any(rollouts.is_due(one, at_ms) for one in state.rollouts)


def _without_halted(state: Releases) -> Releases:
    """Return the state without the student's current release, where that is halted: it is known bad from then on."""
    rollout = state.own_rollout
    if rollout is None or not rollout.halted:
        return state
    return replace(state, made=state.made[:-1], bad=(*state.bad, state.made[-1].weights)[-_BAD:])


def _with_rollout(state: Releases, new: Rollout) -> Releases:
    return replace(state, rollouts=(*(one for one in state.rollouts if one.family != new.family), new))


def take_back(state: Releases, family: str) -> tuple[Releases, str]:
    """Return the state without what was last published for a family, and what its devices run then, in words.

    The same state, and why, where nothing can be taken back.
    """
    same = [one for one in state.published if one.family == family]
    if not same:
        return state, f"nothing is published for family {family}"
    if len(same) == 1 and not same[0].is_own:
        return state, f"nothing was before it: publish the bundle that devices of family {family} were born with"
    published = tuple(one for one in state.published if one is not same[-1])
    others = tuple(one for one in state.rollouts if one.family != family)
    after = replace(state, published=published, rollouts=others)
    if len(same) > 1:
        return after, f"{same[-1].version} withdrawn, {same[-2].version} is current"
    back = state.current.version if state.current else "the first bundle"
    return after, f"{same[-1].version} withdrawn, {back} is current"


def withdraw(state: Releases) -> Releases:
    """Return the state in which the release before the current one is current again, for all."""
    gone = state.current
    after = _without_halted(state)
    made = after.made if after is not state else state.made[:-1]
    others = tuple(one for one in state.rollouts if gone is None or one.bundle != gone.bundle)
    return replace(after, made=made, rollouts=others)


def step(state: Releases, event: ReleaseMade | ReleaseFailed) -> Releases:
    """Return the state after what became of the candidate."""
    candidate = state.candidate
    match event:
        case ReleaseMade(release) if candidate is not None and candidate.weights == release.weights:
            if state.own is not None:  # a candidate of an earlier server, which `publish` did not call off
                return replace(state, candidate=None)
            known = _without_halted(state)
            made = (*known.made, release)[-_REMEMBERED:]
            after = replace(known, candidate=None, made=made, count=state.count + 1)
            if not release.family:
                return after
            return _with_rollout(
                after, rollouts.started_by(candidate.staging, release.family, release.bundle, release.at_ms)
            )
        case ReleaseFailed(weights) if candidate is not None and candidate.weights == weights:
            return replace(state, candidate=None)
    return state


def outstanding(state: Releases) -> tuple[Effect, ...]:
    """Return what must be brought about: the candidate's release, and that the fleet knows the current one."""
    effects: list[Effect] = [_nudge(state, one) for one in state.standing]
    if state.own is None and (state.count or state.has_published_own):
        effects.append(_nudge_of_student(state))
    if state.candidate is not None:
        one = state.candidate
        effects.append(MakeRelease(state.count + 1, one.round, one.weights, one.is_verified))
    return tuple(effects)


def _nudge_of_student(state: Releases) -> PublishRelease:
    """What devices of the student's family hear: the release, and where it is for some first, what the others run."""
    rollout = state.own_rollout
    if rollout is None or rollout.is_for_all:
        return PublishRelease(state.current)
    return PublishRelease(state.current, state.before, rollout.share, rollout.tags, bool(rollout.halted))


def _nudge(state: Releases, published: Published) -> PublishBundle:
    """What devices of a family hear: the bundle, and where it is for some first, what the others run."""
    rollout = state.rollout_of(published.family)
    is_its_own = rollout is not None and rollout.bundle == published.bundle
    if rollout is None or (is_its_own and rollout.is_for_all):
        return PublishBundle(published)
    older = [one for one in state.published if one.family == published.family and one is not published]
    runs = state.current if is_its_own else state.before
    behind = None if older else runs
    return PublishBundle(
        published,
        before=older[-1] if older else None,
        share=rollout.share if is_its_own else 0.0,
        tags=rollout.tags if is_its_own else (),
        is_halted=bool(rollout.halted) or not is_its_own,
        release=behind if published.is_own else None,
    )
