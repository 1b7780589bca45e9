"""What became of the last rounds: curves over rounds, bytes against what else they might be, one round by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker_server.core.round import Phase
from broker_server.dashboard import words
from broker_server.dashboard.charts import Bars, LineChart, Series, Written
from broker_server.dashboard.reading import Look
from broker_server.records.chronicle import HearingRecord, RoundRecord
from broker_server.records.scribe import TRIAL_OF

SHOWN_ROUNDS = 100
SHOWN_HEARINGS = 200
_NONE = float("nan")
_ENDED = (Phase.CLOSED.value, Phase.ABORTED.value)

Asked = Callable[[RoundRecord], float | None]


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """The last rounds that have ended, newest first; `older` is the number to go on from, None at the beginning.

    Curves leave trials out: they are about other probes.
    """

    rounds: tuple[RoundRecord, ...]
    charts: tuple[LineChart, ...]
    traffic: Bars
    older: int | None
    is_latest: bool


@dataclass(frozen=True, slots=True)
class RoundPage:
    """One round, and what was heard in it, device by device.

    `next` is the device after which to go on; empty at the end.
    """

    round: RoundRecord
    hearings: tuple[HearingRecord, ...]
    is_first: bool
    next: str


def history_page(look: Look, before: int | None = None) -> HistoryPage:
    """Return the last rounds with numbers below `before`."""
    rounds = tuple(one for one in look.chronicle.rounds(SHOWN_ROUNDS, before) if one.phase in _ENDED)
    told = tuple(one for one in reversed(rounds) if TRIAL_OF not in one.metrics)
    return HistoryPage(
        rounds,
        (*(curves.chart(told) for curves in _CURVES), _hold_outs(look, told)),
        _traffic(look, next((one for one in rounds if one.consensus_sha256), None)),
        older=rounds[-1].number if rounds and rounds[-1].number > 1 else None,
        is_latest=before is None,
    )


def round_page(look: Look, epoch: int, number: int, after: str = "") -> RoundPage | None:
    """Return one round and what it heard of devices after `after`; None: there is no record of it."""
    record = look.chronicle.round(epoch, number)
    if record is None:
        return None
    heard = look.chronicle.hearings(epoch, number, after=after, limit=SHOWN_HEARINGS + 1)
    if len(heard) <= SHOWN_HEARINGS:
        return RoundPage(record, heard, is_first=not after, next="")
    last = heard[-1].device  # not all that it said is here: it begins the next page, unless it fills this one
    shown = tuple(one for one in heard if one.device != last) or heard
    return RoundPage(record, shown, is_first=not after, next=shown[-1].device)


@dataclass(frozen=True, slots=True)
class _Curves:
    """A chart over rounds: what each of its lines asks a round for, by the line's name."""

    title: str
    note: str
    lines: Mapping[str, Asked]
    written: Written
    ceiling: float = math.inf
    holds: tuple[float, ...] = ()

    def chart(self, rounds: tuple[RoundRecord, ...]) -> LineChart:
        lines = tuple(Series(name, tuple(_known(ask(one)) for one in rounds)) for name, ask in self.lines.items())
        numbers = tuple(one.number for one in rounds)
        return LineChart(
            self.title, self.note, numbers, lines, self.written, floor=0.0, ceiling=self.ceiling, holds=self.holds
        )


def _metric(name: str) -> Asked:
    return lambda one: one.metrics.get(name)


def _whole(share: float) -> str:
    return words.percent(share, 0)


def _voices(value: float) -> str:
    return words.number(value, 0 if value == round(value) else 1)


_CURVES = (
    _Curves(
        "Accuracy on canaries",
        "Share of secret labelled probes that each has right: a sample of the public set, not of devices' data.",
        {"consensus": _metric("canary_accuracy"), "student": lambda one: one.student.get("accuracy")},
        _whole,
        ceiling=1.0,
    ),
    _Curves(
        "Agreement",
        "Mean share of probes where a device and the consensus hold the same class likeliest. High is not right: "
        "devices can agree on an error.",
        {"agreement": _metric("agreement")},
        _whole,
        ceiling=1.0,
    ),
    _Curves(
        "Uncertainty of the consensus",
        "Mean entropy of its rows, in nats. It falls as devices learn from one another.",
        {"entropy": _metric("entropy_nats")},
        words.number,
    ),
    _Curves(
        "Uncovered",
        "Probes far from every device's data, and devices near no probe. Above a tenth, distillation may do harm.",
        {"probes": _metric("uncovered_probes"), "devices": _metric("far_devices")},
        _whole,
        ceiling=1.0,
        holds=(0.0,),
    ),
    _Curves(
        "Voices",
        "Devices invited and heard, and how many of equal weight the consensus was worth (effective voices).",
        {
            "invited": lambda one: float(one.invited),
            "heard": lambda one: float(one.heard),
            "effective": _metric("effective_voices"),
        },
        _voices,
        holds=(0.0,),
    ),
    _Curves(
        "Largest share",
        "How much of the consensus is the word of one device. Above a half it speaks for all.",
        {"share": _metric("largest_share")},
        _whole,
        ceiling=1.0,
        holds=(0.0,),
    ),
    _Curves(
        "Bytes of a round",
        "Payloads of all devices as they arrived, and the consensus, published once. MQTT and TLS come on top.",
        {"up": lambda one: float(one.up_bytes), "down": lambda one: float(one.down_bytes)},
        words.size,
        holds=(0.0,),
    ),
)


def _hold_outs(look: Look, rounds: tuple[RoundRecord, ...]) -> LineChart:
    """What devices report of rows that they kept back."""
    spans = look.chronicle.reported("hold_out_accuracy", rounds[0].number, rounds[-1].number) if rounds else {}
    nothing = (_NONE, _NONE, _NONE)
    found = [spans.get(one.number, nothing) for one in rounds]
    rolled_back = look.counters["report.rolled_back"]
    return LineChart(
        "Devices' own hold-outs",
        "Share of rows kept back from its own data that a device has right: how it does at home, so the mean is no "
        f"accuracy of the fleet. Trainings that guards rolled back: {rolled_back:,}.",
        tuple(one.number for one in rounds),
        tuple(Series(name, tuple(one[at] for one in found)) for at, name in enumerate(("least", "mean", "most"))),
        _whole,
        floor=0.0,
        ceiling=1.0,
    )


def _traffic(look: Look, last: RoundRecord | None) -> Bars:
    """What a device sent in the last round, beside what FedAvg would send of the server's model."""
    title, model = "What a device sends in a round", look.around.model
    if last is None or not last.heard:
        return Bars(title, "", (), words.size)
    each, budget = last.up_bytes / last.heard, look.around.settings.rounds.byte_budget
    note = (
        f"Used of the budget of {words.size(budget)}: {words.percent(each / budget)}. FedAvg would send the parameters "
        f"of {model.name}, the server's own model: here in float32; a quarter of it in 8 bits, an eighth in 4."
    )
    rows = [
        (f"soft labels, round {last.number}", each),
        ("FedAvg, what devices train", float(model.trained_bytes)),
    ]
    if model.whole_bytes is not None and model.whole_bytes != model.trained_bytes:
        rows.append(("FedAvg, whole network, by the size of its file", float(model.whole_bytes)))
    return Bars(title, note, tuple(rows), words.size)


def _known(value: float | None) -> float:
    return _NONE if value is None else value
