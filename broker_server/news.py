"""What an operator should read in the log when a federation's state has moved on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker_server.aggregation import UNCOVERED
from broker_server.core.coverage import WARN_UNCOVERED
from broker_server.core.editions import Editions
from broker_server.core.federation import Federation
from broker_server.core.releases import Releases
from broker_server.core.round import Phase, Round

REMEDY = (
    "distilling on probes that nobody knows does harm: build a public set that is like what devices see and "
    "`broker-server probes stage` it, or raise rounds.most_uncovered if you know better"
)
"""Against `UNCOVERED`."""
WARN_SHARE = 0.5
"""Above it one device outweighs all others together."""
_FEW_VOICES = 2


def news(before: Federation, after: Federation) -> Iterator[str]:
    """Yield a line for each change worth telling."""
    if after.epoch != before.epoch and before.epoch:
        yield f"epoch {after.epoch & 0xFFFF:04x}: this database is older than what the fleet has seen"
    if after.is_paused != before.is_paused:
        yield "paused: no round opens but by order" if after.is_paused else "resumed"
    if after.round is not None and after.round != before.round:
        yield from _of_round(before.round, after.round)
    if after.consensus is not None and after.consensus != before.consensus:
        yield from _of_consensus(after.consensus.metrics)
    if after.student is not None and after.student != before.student:
        yield f"student: {_listed(after.student.metrics)}"
    if after.editions != before.editions:
        yield from _of_editions(before.editions, after.editions)
    if _of_student(after.releases) != _of_student(before.releases):
        yield from _of_releases(before.releases, after.releases)
    yield from _of_rollouts(before.releases, after.releases)


def _of_round(before: Round | None, after: Round) -> Iterator[str]:
    if before is not None and (before.id, before.phase) == (after.id, after.phase):
        return
    match after.phase:
        case Phase.OFFERED:
            silent = ", a warm-up: no consensus will be published" if after.is_warm_up else ""
            if after.trial_of:
                silent = f", a trial of edition {after.trial_of} of the public set: no consensus will be published"
            yield f"round {after.id.number}: offered to {after.invited} devices{silent}"
        case Phase.AGGREGATING | Phase.CLOSED:
            yield f"round {after.id.number}: {after.phase.value}, {after.heard} devices heard"
        case Phase.ABORTED:
            yield f"round {after.id.number}: aborted ({after.reason}), {after.heard} devices heard"
            if after.reason.startswith(UNCOVERED):
                yield REMEDY


def _of_editions(before: Editions, after: Editions) -> Iterator[str]:
    if after.trial is not None and after.trial != before.trial:
        yield f"trial of edition {after.trial.edition}: {_listed(after.trial.metrics)}"
    if after.current is not None and after.current != before.current and after.count > 1:
        yield f"rounds are about edition {after.current.number} of the public set, {after.current.count} probes"


def _of_rollouts(before: Releases, after: Releases) -> Iterator[str]:
    for rollout in after.rollouts:
        known = before.rollout_of(rollout.family)
        if known is None or (known.bundle, known.share, known.tags, known.halted) != (
            rollout.bundle,
            rollout.share,
            rollout.tags,
            rollout.halted,
        ):
            yield f"rollout of {rollout.bundle.hex()[:12]} to family {rollout.family}: {rollout.words}"


def _of_student(releases: Releases) -> tuple[object, ...]:
    return releases.candidate, releases.made, releases.count


def _of_releases(before: Releases, after: Releases) -> Iterator[str]:
    if after.candidate is not None and before.candidate is None:
        yield f"the student after round {after.candidate.round.number} is to be released"
    elif after.count > before.count and after.current is not None:
        verified = "found better on the canaries" if after.current.is_verified else "not verified"
        yield f"release {after.current.version}: {after.current.package_bytes} bytes, {verified}"
    elif before.candidate is not None and after.candidate is None and after.own is not None:
        yield f"the student is not released: {after.own.version} is published for its family"
    elif before.candidate is not None and after.candidate is None:
        yield "no release could be made of the student"
    else:
        yield f"release withdrawn: {after.current.version if after.current else 'the first bundle'} is current"


def _of_consensus(metrics: Mapping[str, float]) -> Iterator[str]:
    yield f"consensus: {_listed(metrics)}"
    if metrics.get("uncovered_probes", 0.0) > WARN_UNCOVERED:
        yield "many probes lie far from every device's data: distillation on them may do harm"
    if metrics.get("largest_share", 0.0) > WARN_SHARE and metrics.get("voices", 0.0) > _FEW_VOICES:
        yield f"one device holds {metrics['largest_share']:.0%} of the consensus: `broker-server rounds show` names it"


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
