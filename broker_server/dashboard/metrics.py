"""What Prometheus asks for, told anew from the database at each scrape: no state, no label that grows with the fleet.

Counters are those of the database, kept when a round ends: they go on over restarts of the server and of this process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker_server.core.federation import lacking_staged
from broker_server.core.round import NO_QUORUM, Phase
from broker_server.dashboard.expiry import Expiry
from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import RoundRecord, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CONSENSUS = {
    "canary_accuracy": "Share of the trust canaries that the last consensus has right.",
    "entropy_nats": "Mean entropy of the rows of the last consensus.",
    "uncovered_probes": "Share of probes that are far from every device's data.",
    "far_devices": "Share of devices that are near no probe.",
    "voices": "Devices that spoke in the last consensus, absent ones included.",
    "absent_voices": "Voices that were the last words of absent devices.",
    "effective_voices": "How many voices of equal weight the last consensus was worth, mean over probes.",
    "largest_share": "Greatest share of the last consensus that one device has.",
    "agreement": "Mean share of probes where a device and the last consensus hold the same class likeliest.",
    "clusters": "Clusters of like-minded devices that have a consensus of their own; 1 = none has.",
}


_GAIN = "Accuracy of a device by now less what it had at first, on canaries or on its own hold-out, 0..1."
_ROLLOUT = (
    ("share", "Share of a family's devices that should run its last bundle by now.", ["family"]),
    ("halted", "Whether no further device begins with it.", ["family"]),
    (
        "devices",
        "Devices that run it, refused it or went back, fell silent on their way, may have.",
        ["family", "standing"],
    ),
)
_INFLUENCE = "Accuracy on canaries that the last consensus has for a device, less that without it, 0..1."


class FederationCollector(Collector):
    """Yields the metrics of one look."""

    def __init__(self, look: Look, expiries: Sequence[Expiry]) -> None:
        self._look, self._expiries = look, expiries

    def collect(self) -> Iterator[Metric]:
        look = self._look
        if look.is_running is not None:
            yield _gauge("server_up", "Whether the aggregator runs.", float(look.is_running))
        yield _gauge("database_bytes", "Size of the server's database and its journal file.", look.database_bytes)
        yield from self._round()
        yield from self._devices()
        yield from self._consensus()
        yield from self._gains()
        yield from self._editions()
        yield from self._rollouts()
        yield from self._counters()
        yield from self._files()

    def _round(self) -> Iterator[Metric]:
        state = self._look.state
        yield _gauge("paused", "Whether an operator has paused the rounds.", float(state.is_paused))
        yield _gauge("round_number", "Number of the last round opened.", state.number)
        phase = GaugeMetricFamily("fedistill_round_phase", "1 for the phase of the last round.", labels=["phase"])
        for one in Phase:
            phase.add_metric([one.value], float(state.round is not None and state.round.phase is one))
        yield phase
        if state.round is not None:
            yield _gauge("round_invited", "Devices that the last round expects.", state.round.invited)
            yield _gauge("round_arrivals", "Devices that have contributed to the last round.", state.round.heard)
            yield _gauge("round_quorum", "Devices that the last round needs.", state.round.offer.quorum)
            deadline_s = state.round.deadline_ms / 1000
            yield _gauge("round_deadline_timestamp_seconds", "Deadline of the last round.", deadline_s)

    def _devices(self) -> Iterator[Metric]:
        chronicle = self._look.chronicle
        yield _gauge("devices_known", "Devices that were ever heard of.", chronicle.count_devices())
        yield _gauge("devices_online", "Devices whose last word was a birth.", chronicle.count_devices(online=True))
        ill = len(chronicle.ill_devices(limit=-1))
        yield _gauge("devices_with_problem", "Devices online that say they cannot take part.", ill)

    def _consensus(self) -> Iterator[Metric]:
        last = _last_made(self._look)
        if last is None:
            return
        yield _gauge("consensus_timestamp_seconds", "When the last consensus was made.", last.ended_ms / 1000)
        yield _gauge("round_up_bytes", "Payload bytes that came in for the last consensus.", last.up_bytes)
        yield _gauge("round_down_bytes", "Bytes of the last consensus.", last.down_bytes)
        for name, text in _CONSENSUS.items():
            if name in last.metrics:
                yield _gauge(name, text, last.metrics[name])
        if "accuracy" in last.student:
            text = "Share of the release canaries that the student has right."
            yield _gauge("student_accuracy", text, last.student["accuracy"])

    def _gains(self) -> Iterator[Metric]:
        """Each device's own are on its page; here the least, the mean and the greatest."""
        chronicle, last = self._look.chronicle, _last_made(self._look)
        gain = GaugeMetricFamily("fedistill_gain", _GAIN, labels=["measured", "of"])
        better = GaugeMetricFamily("fedistill_gainers", "Share of devices that gained.", labels=["measured"])
        for measured in ("canaries", "hold_out"):
            spread = chronicle.gain(measured)
            if spread is not None:
                _add_spread(gain, spread, measured)
                better.add_metric([measured], spread.positive)
        influence = GaugeMetricFamily("fedistill_influence", _INFLUENCE, labels=["of"])
        spread = chronicle.influence(last.epoch, last.number) if last is not None else None
        if spread is not None:
            _add_spread(influence, spread)
        yield from (gain, better, influence)

    def _editions(self) -> Iterator[Metric]:
        editions = self._look.state.editions
        if editions.current is not None:
            yield _gauge("edition", "Number of the edition of the public set in use.", editions.current.number)
            yield _gauge("staged", "Whether another edition is staged.", float(editions.staged is not None))
        if editions.staged is not None:
            text = "Devices online that do not have the staged set."
            yield _gauge("staged_lacking", text, len(lacking_staged(self._look.state)))

    def _rollouts(self) -> Iterator[Metric]:
        """What stands for each family of devices."""
        share, halted, devices = (
            GaugeMetricFamily(f"fedistill_rollout_{name}", text, labels=labels) for name, text, labels in _ROLLOUT
        )
        for one in self._look.state.releases.rollouts:
            share.add_metric([one.family], one.share)
            halted.add_metric([one.family], float(bool(one.halted)))
            for standing in ("succeeded", "failed", "lost", "silent"):
                devices.add_metric([one.family, standing], getattr(one, standing))
        yield from (share, halted, devices)

    def _counters(self) -> Iterator[Metric]:
        counters = self._look.counters
        tables = (
            ("refusals", "refused.", "reason", "Payloads refused until the last round ended."),
            ("set_aside", "set_aside.", "reason", "Messages that could not be read, until the last round ended."),
            ("dropped", "dropped.", "reason", "Messages that were not even looked at, until the last round ended."),
            ("reports", "report.", "outcome", "Reports of devices until the last round ended."),
            ("rounds", "round.", "phase", "Rounds that have ended."),
            ("aborted_rounds", "aborted.", "reason", "Rounds that came to nothing."),
        )
        for name, prefix, label, text in tables:
            family = CounterMetricFamily(f"fedistill_{name}", text, labels=[label])
            for key, count in sorted(counters.items()):
                if key.startswith(prefix):
                    family.add_metric([key.removeprefix(prefix)], count)
            yield family
        missed = counters[f"aborted.{NO_QUORUM}"]
        yield CounterMetricFamily("fedistill_quorum_missed", "Rounds that too few devices answered.", value=missed)

    def _files(self) -> Iterator[Metric]:
        expires = GaugeMetricFamily(
            "fedistill_certificate_expiry_timestamp_seconds", "When a certificate expires.", labels=["file"]
        )
        for one in self._expiries:
            if one.file == "crl":
                text = "When the broker's revocation list ends: then it refuses every client."
                yield _gauge("crl_expiry_timestamp_seconds", text, one.until_ms / 1000)
            else:
                expires.add_metric([one.file], one.until_ms / 1000)
        yield expires


def exposition(look: Look, expiries: Sequence[Expiry]) -> bytes:
    """Return everything in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FederationCollector(look, expiries))
    return generate_latest(registry)


def _last_made(look: Look) -> RoundRecord | None:
    consensus = look.state.consensus
    return None if consensus is None else look.chronicle.round(consensus.round.epoch, consensus.round.number)


def _add_spread(family: GaugeMetricFamily, spread: Spread, *labels: str) -> None:
    for of in ("least", "mean", "most"):
        family.add_metric([*labels, of], getattr(spread, of))


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"fedistill_{name}", text, value=value)
