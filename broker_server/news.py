"""What an operator should read in the log when a federation's state has moved on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker_server.coverage import WARN_UNCOVERED
from broker_server.federation import Federation
from broker_server.round import Phase, Round

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


def _of_round(before: Round | None, after: Round) -> Iterator[str]:
    if before is not None and (before.id, before.phase) == (after.id, after.phase):
        return
    match after.phase:
        case Phase.OFFERED:
            warm_up = ", a warm-up: no consensus will be published" if after.is_warm_up else ""
            yield f"round {after.id.number}: offered to {after.invited} devices{warm_up}"
        case Phase.AGGREGATING | Phase.CLOSED:
            yield f"round {after.id.number}: {after.phase.value}, {after.heard} devices heard"
        case Phase.ABORTED:
            yield f"round {after.id.number}: aborted ({after.reason}), {after.heard} devices heard"


def _of_consensus(metrics: Mapping[str, float]) -> Iterator[str]:
    yield f"consensus: {_listed(metrics)}"
    if metrics.get("uncovered_probes", 0.0) > WARN_UNCOVERED:
        yield "many probes lie far from every device's data: distillation on them may do harm"
    if metrics.get("largest_share", 0.0) > WARN_SHARE and metrics.get("voices", 0.0) > _FEW_VOICES:
        yield f"one device holds {metrics['largest_share']:.0%} of the consensus: `broker-server rounds show` names it"


def _listed(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in sorted(metrics.items()))
