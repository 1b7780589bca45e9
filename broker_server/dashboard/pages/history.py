"""What became of the last rounds: curves over rounds, bytes against what else they might be, one round by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from broker_server.chronicle import HearingRecord, RoundRecord
from broker_server.dashboard import words
from broker_server.dashboard.charts import Bars, LineChart, Series
from broker_server.dashboard.reading import Look
from broker_server.round import Phase

SHOWN_ROUNDS = 100
_NONE = float("nan")
_ENDED = (Phase.CLOSED.value, Phase.ABORTED.value)

Asked = Callable[[RoundRecord], float | None]


@dataclass(frozen=True, slots=True)
class HoldOuts:
    """What devices say of rows that they kept back: shares of 0..1 over the devices that say it.

    `rolled_back` counts the trainings that a device's guard took back, until the last round ended.
    """

    devices: int
    least: float
    median: float
    most: float
    rolled_back: int


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The last rounds that have ended, newest first; `older` is the number to go on from, None at the beginning."""

    rounds: tuple[RoundRecord, ...]
    charts: tuple[LineChart, ...]
    traffic: Bars
    hold_outs: HoldOuts | None
    older: int | None
    is_latest: bool


@dataclass(frozen=True, slots=True)
class RoundPage:
    """One round, and what was heard in it."""

    round: RoundRecord
    hearings: tuple[HearingRecord, ...]
    agreement: float | None


def history_page(look: Look, before: int | None = None) -> HistoryPage:
    """Return the last rounds with numbers below `before`."""
    rounds = tuple(one for one in look.chronicle.rounds(SHOWN_ROUNDS, before) if one.phase in _ENDED)
    told = rounds[::-1]
    agreement = look.chronicle.agreement(told[0].number, told[-1].number) if told else {}
    return HistoryPage(
        rounds,
        _charts(told, lambda one: agreement.get(one.number)),
        _traffic(look, next((one for one in rounds if one.consensus_sha256), None)),
        _hold_outs(look),
        older=rounds[-1].number if rounds and rounds[-1].number > 1 else None,
        is_latest=before is None,
    )


def round_page(look: Look, epoch: int, number: int) -> RoundPage | None:
    """Return one round; None: there is no record of it."""
    record = look.chronicle.round(epoch, number)
    if record is None:
        return None
    agreement = look.chronicle.agreement(number, number).get(number)
    return RoundPage(record, look.chronicle.hearings(epoch, number), agreement)


def _charts(rounds: tuple[RoundRecord, ...], agreement: Asked) -> tuple[LineChart, ...]:
    def metric(name: str) -> Asked:
        return lambda one: one.metrics.get(name)

    def whole(value: float) -> str:
        return words.percent(value, 0)

    def chart(title: str, note: str, series: dict[str, Asked], written: Callable[[float], str], top: float) -> LineChart:
        lines = tuple(Series(name, tuple(_known(ask(one)) for one in rounds)) for name, ask in series.items())
        return LineChart(title, note, tuple(one.number for one in rounds), lines, written, floor=0.0, ceiling=top)

    endless = float("inf")
    return (
        chart(
            "Accuracy on canaries",
            "Share of secret labelled probes that each has right: a sample of the public set, not of the devices' data.",
            {"consensus": metric("canary_accuracy"), "student": lambda one: one.student.get("accuracy")},
            whole,
            1.0,
        ),
        chart(
            "Agreement",
            "Mean share of probes where a device and the consensus hold the same class likeliest. High is not right: "
            "devices can agree on an error.",
            {"agreement": agreement},
            whole,
            1.0,
        ),
        chart(
            "Uncertainty of the consensus",
            "Mean entropy of its rows, in nats. It falls as devices learn from one another; falling to 0 is a collapse.",
            {"entropy": metric("entropy_nats")},
            words.number,
            endless,
        ),
        chart(
            "Uncovered",
            "Probes far from every device's data, and devices near no probe. Above a tenth, distillation may do harm.",
            {"probes": metric("uncovered_probes"), "devices": metric("far_devices")},
            whole,
            1.0,
        ),
        chart(
            "Voices",
            "Devices invited and heard, and how many count as heard with equal weight (effective voters).",
            {
                "invited": lambda one: float(one.invited),
                "heard": lambda one: float(one.heard),
                "effective": metric("effective_voters"),
            },
            lambda value: words.number(value, 0 if value == round(value) else 1),
            endless,
        ),
        chart(
            "Bytes of a round",
            "Payloads as they arrived, all devices together, and the consensus as published once. MQTT and TLS come on top.",
            {"up": lambda one: float(one.up_bytes), "down": lambda one: float(one.down_bytes)},
            words.size,
            endless,
        ),
    )


def _traffic(look: Look, last: RoundRecord | None) -> Bars:
    """What a device sent in the last round, beside its budget and what FedAvg would send of the server's model."""
    note = (
        f"Bytes that one device sends a round. FedAvg would send the parameters of {look.around.model.name}, the server's "
        "own model, in float32; 8-bit differences are about a quarter of that, 4-bit ones an eighth. The whole network is "
        "told from the size of its file."
    )
    if last is None or not last.heard:
        return Bars("What a device sends", note, (), words.size)
    model = look.around.model
    rows = [
        (f"soft labels, round {last.number}", last.up_bytes / last.heard),
        ("budget of the round", float(look.around.settings.rounds.byte_budget)),
        ("FedAvg, what devices train", float(model.trained_bytes)),
    ]
    if model.whole_bytes is not None and model.whole_bytes != model.trained_bytes:
        rows.append(("FedAvg, the whole network, about", float(model.whole_bytes)))
    return Bars("What a device sends", note, tuple(rows), words.size)


def _hold_outs(look: Look) -> HoldOuts | None:
    """Return what the last reports say; None: no device has said it."""
    told = [device.report.get("hold_out_accuracy") for device in look.chronicle.devices()]
    known = [share for share in told if share is not None]
    if not known:
        return None
    return HoldOuts(len(known), min(known), median(known), max(known), look.counters["report.rolled_back"])


def _known(value: float | None) -> float:
    return _NONE if value is None else value
