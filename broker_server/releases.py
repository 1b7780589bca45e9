"""Releases of the student as a pure fold: which weights the fleet should run, and which are on their way there.

    student --found better, or ordered--> candidate --made--> current --withdrawn--> the one before --> the first bundle
                                              |
                                              +--failed--> as it was

Rules:
- One candidate at a time; what the fleet runs already is none.
- A release that was found better than the one before on labelled probes is verified; another, which only an operator
  can order, is not, and says so for ever.
- The last few are remembered, so that a bad one can be taken back; behind them stands the bundle that devices were born
  with.

What is deliberately absent: bundles and packages (the shelf's), the test (`release_gate`), who runs what by now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from broker_server.events import Effect, MakeRelease, PublishRelease, Release, ReleaseFailed, ReleaseMade
from fd_protocol.identity import RoundId
from fd_protocol.schema import keyed

_REMEMBERED = 4


@dataclass(frozen=True, slots=True)
class Candidate:
    """Weights of the student, by digest, that shall be released."""

    round: RoundId = keyed(1)
    weights: bytes = keyed(2)
    is_verified: bool = keyed(3, default=False)


@dataclass(frozen=True, slots=True)
class Releases:
    """What was released, the last one last; `count` is of all there ever were."""

    candidate: Candidate | None = keyed(1, default=None)
    made: tuple[Release, ...] = keyed(2, default=())
    count: int = keyed(3, default=0)

    @property
    def current(self) -> Release | None:
        """What the fleet should run; None: the bundle that it was born with."""
        return self.made[-1] if self.made else None

    @property
    def weights(self) -> bytes:
        """Digest of what the fleet should run; empty = the bundle's own."""
        return self.current.weights if self.current else b""

    @property
    def named_blobs(self) -> frozenset[bytes]:
        """Return the digests of all bytes that may still be asked for."""
        candidate = [self.candidate.weights] if self.candidate else []
        return frozenset([*candidate, *(release.weights for release in self.made)])


def propose(state: Releases, candidate: Candidate) -> Releases:
    """Return the state in which `candidate` is to be released; the same where there is one, or it runs already."""
    if state.candidate is not None or candidate.weights == state.weights:
        return state
    return replace(state, candidate=candidate)


def withdraw(state: Releases) -> Releases:
    """Return the state in which the release before the current one is current again."""
    return replace(state, made=state.made[:-1])


def step(state: Releases, event: ReleaseMade | ReleaseFailed) -> Releases:
    """Return the state after what became of the candidate."""
    candidate = state.candidate
    match event:
        case ReleaseMade(release) if candidate is not None and candidate.weights == release.weights:
            made = (*state.made, release)[-_REMEMBERED:]
            return Releases(candidate=None, made=made, count=state.count + 1)
        case ReleaseFailed(weights) if candidate is not None and candidate.weights == weights:
            return replace(state, candidate=None)
    return state


def outstanding(state: Releases) -> tuple[Effect, ...]:
    """Return what must be brought about: the candidate's release, and that the fleet knows the current one."""
    effects: list[Effect] = []
    if state.count:
        effects.append(PublishRelease(state.current))
    if state.candidate is not None:
        one = state.candidate
        effects.append(MakeRelease(state.count + 1, one.round, one.weights, one.is_verified))
    return tuple(effects)
