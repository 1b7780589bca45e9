"""A bundle for some devices first, as a pure fold: who may run it by now, and whether it goes well.

    start --> share 5 % and a tag --soaked, and somebody runs it--> 25 % --> ... --> 100 %
                 |                                                  |
                 +--too many refused it, went back, or fell silent;--+--> halted --resume--> as it was
                    or an order                                               `--withdraw--> the bundle before

Rules:
- The devices are drawn by the bundle's digest (`fd_protocol.messages.StagedRelease`): a wider share holds the narrower.
- Who has it when a rollout is halted goes on with it, for it has proven itself there; nobody else begins. To take it
  back from those too is to withdraw it.
- A rollout halts by itself where more than `most_failed` of the devices that have ended refused it, went back, or were
  lost: they were there, were asked, and have not been heard for `patience_ms` (`delivery`). What an operator has seen
  is forgiven when it is resumed: only what fails from then on counts.
- It widens by itself where it has further stages, `soak_ms` after the last one, not before one device runs it well, and
  not while so many are silent that it would halt if they were lost.

What is deliberately absent: names of devices (a tag is looked up when the nudge is published), and what each of them
said (`deliveries`); here are counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name, is_sampled
from fd_protocol.schema import keyed

SHARE, TAGS, STAGES, SOAK_S, MOST_FAILED = "percent", "tags", "stages", "soak_s", "most_failed"
PATIENCE_S = "patience_s"
"""Arguments of the orders that start a rollout and widen it."""
USUAL_PATIENCE_S = 3600
"""A trial ends within half an hour (`releases.trial_s`, `health_s` of the agent), and a boot takes minutes."""
STAGING = (SHARE, TAGS, STAGES, SOAK_S, MOST_FAILED, PATIENCE_S)
_WHO = (SHARE, TAGS, STAGES)
MOST_STAGES = 16


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a bundle is.

    Attributes:
        family: of the devices.
        bundle: digest of the bundle.
        share: of all devices, in 0..1.
        tags: devices with one of these are among the first.
        stages: shares that are still to come, each wider.
        soak_ms: from one stage to the next.
        since_ms: when the present stage began.
        most_failed: share of those that have ended, above which it halts.
        halted: why it is, in a line; empty = it is not.
        succeeded, failed: devices that run it, and that refused it or went back.
        forgiven: of those that failed or were lost, before it was last resumed.
        patience_ms: how long a device may be silent on its way.
        lost: devices that were silent for longer.
        silent: devices that may come to be lost, for they are gone and have not ended.
    """

    family: str = keyed(1)
    bundle: bytes = keyed(2)
    share: float = keyed(3, default=1.0)
    tags: tuple[str, ...] = keyed(4, default=())
    stages: tuple[float, ...] = keyed(5, default=())
    soak_ms: int = keyed(6, default=0)
    since_ms: int = keyed(7, default=0)
    most_failed: float = keyed(8, default=0.1)
    halted: str = keyed(9, default="")
    succeeded: int = keyed(10, default=0)
    failed: int = keyed(11, default=0)
    forgiven: int = keyed(12, default=0)
    patience_ms: int = keyed(13, default=1000 * USUAL_PATIENCE_S)
    lost: int = keyed(14, default=0)
    silent: int = keyed(15, default=0)

    def __post_init__(self) -> None:
        shares = (self.share, *self.stages)
        if not 0.0 <= self.share <= 1.0 or not 0.0 <= self.most_failed <= 1.0:
            raise InvalidValueError("shares lie in 0..1")
        if any(after <= before for before, after in pairwise(shares)) or shares[-1] > 1.0:
            raise InvalidValueError("each stage is wider than the one before, and none is more than all devices")
        if len(self.stages) > MOST_STAGES or self.soak_ms < 0:
            raise InvalidValueError(f"at most {MOST_STAGES} stages, and no time runs backwards")
        if self.patience_ms < 1000:
            raise InvalidValueError("patience is a second or more")
        for tag in self.tags:
            check_name(tag, "a tag")

    @property
    def is_for_all(self) -> bool:
        """Whether every device of the family should run it."""
        return self.share >= 1.0 and not self.halted

    @property
    def bad(self) -> int:
        """Devices that refused it, went back or were lost, and were not forgiven."""
        return self.failed + self.lost - self.forgiven

    @property
    def judged(self) -> int:
        """Devices of which `bad` are a part."""
        return self.succeeded + self.bad

    def is_for(self, device: str, *, is_named: bool) -> bool:
        """Whether a device should run it by now; `is_named`: it has one of the tags."""
        return not self.halted and (is_named or is_sampled(device, self.bundle, self.share))

    @property
    def words(self) -> str:
        """How far it is, for people."""
        to_come = "" if not self.stages else f", then {', '.join(f'{100 * share:g} %' for share in self.stages)}"
        tags = f" and tag {' '.join(self.tags)}" if self.tags and self.share < 1.0 else ""
        state = f"halted ({self.halted})" if self.halted else f"{100 * self.share:g} % of devices{tags}{to_come}"
        silent = f", {self.lost} fell silent" if self.lost else ""
        return f"{state}; {self.succeeded} run it, {self.failed} refused it or went back{silent}"


def started_by(said: Mapping[str, str], family: str, bundle: bytes, at_ms: int) -> Rollout:
    """Return the rollout that an order starts; without a word about it all devices are meant at once.

    Raises:
        ValueError, InvalidValueError: it says no numbers, or such as cannot be.
    """
    return Rollout(
        family=family,
        bundle=bundle,
        share=_share(said.get(SHARE, "100")),
        tags=tuple(said.get(TAGS, "").split()),
        stages=tuple(_share(word) for word in said.get(STAGES, "").split()),
        soak_ms=round(1000 * float(said.get(SOAK_S, "0"))),
        since_ms=at_ms,
        most_failed=_share(said.get(MOST_FAILED, "10")),
        patience_ms=round(1000 * float(said.get(PATIENCE_S, str(USUAL_PATIENCE_S)))),
    )


def staged_as(usual: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """Return how a rollout is staged by an order where something is usual: who begins is said as a whole."""
    says_who = any(name in said for name in _WHO)
    kept = {name: text for name, text in usual.items() if not (says_who and name in _WHO)}
    return {**kept, **{name: text for name, text in said.items() if name in STAGING}}


def widen(rollout: Rollout, said: dict[str, str], at_ms: int) -> Rollout:
    """Return the rollout for a wider share, or more tags; stages that it has passed are none any more.

    Raises:
        ValueError, InvalidValueError: it would not be wider.
    """
    share = _share(said[SHARE]) if SHARE in said else rollout.share
    tags = tuple(dict.fromkeys((*rollout.tags, *said.get(TAGS, "").split())))
    if share < rollout.share or (share, tags) == (rollout.share, rollout.tags):
        raise InvalidValueError(f"it is for {100 * rollout.share:g} % of devices: say more of them, or a tag")
    stages = tuple(stage for stage in rollout.stages if stage > share)
    return replace(rollout, share=share, tags=tags, stages=stages, since_ms=at_ms)


def halt(rollout: Rollout, why: str) -> Rollout:
    """Return the rollout that no further device begins with."""
    return replace(rollout, halted=why)


def resume(rollout: Rollout, at_ms: int) -> Rollout:
    """Return the rollout going on; what has failed so far, and who was lost, is known and forgiven."""
    return replace(rollout, halted="", forgiven=rollout.failed + rollout.lost, since_ms=at_ms)


def heard(rollout: Rollout, succeeded: int, failed: int, lost: int = 0, silent: int = 0) -> Rollout:
    """Return the rollout once so many devices have ended, or are silent; too many failures and losses halt it."""
    forgiven = min(rollout.forgiven, failed + lost)
    after = replace(rollout, succeeded=succeeded, failed=failed, lost=lost, silent=silent, forgiven=forgiven)
    if after.halted or not _are_too_many(after.bad, after):
        return after
    what = "refused it, went back or fell silent" if lost else "refused it or went back"
    return halt(after, f"{after.bad} of {after.judged} devices {what}")


def _are_too_many(bad: int, rollout: Rollout) -> bool:
    """Whether a rollout halts with so many bad ones beside those that run it well."""
    return bad > 0 and bad > rollout.most_failed * (rollout.succeeded + bad)


def ticked(rollout: Rollout, at_ms: int) -> Rollout:
    """Return the rollout at a time; the same where nothing is due."""
    if not is_due(rollout, at_ms):
        return rollout
    return replace(rollout, share=rollout.stages[0], stages=rollout.stages[1:], since_ms=at_ms)


def is_due(rollout: Rollout, at_ms: int) -> bool:
    """Whether the next stage begins now."""
    if not rollout.stages or rollout.halted or rollout.succeeded == 0:
        return False
    is_soaked = at_ms >= rollout.since_ms + rollout.soak_ms
    return is_soaked and not _are_too_many(rollout.bad + rollout.silent, rollout)


def _share(percent: str) -> float:
    value = float(percent) / 100
    if not 0.0 <= value <= 1.0:
        raise InvalidValueError(f"{percent} % is no part of the devices")
    return value
