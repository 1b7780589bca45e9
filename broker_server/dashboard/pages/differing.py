"""Who differs, and on which class: devices by classes, and devices by devices, in the last consensus."""

from __future__ import annotations

from dataclasses import dataclass

from broker_server.dashboard.charts import Grid
from broker_server.dashboard.disagreement import F64, by_class, by_pair, in_total
from broker_server.dashboard.reading import Look

MOST_DEVICES = 40
_HEARD = ("epoch", "round", "device", "kind", "agreement", "labels")


@dataclass(frozen=True, slots=True)
class DifferingPage:
    """The two grids; `devices` of `heard` are shown, those that agree least."""

    round: int
    heard: int
    devices: int
    probes: int
    classes: Grid
    pairs: Grid


def differing_page(look: Look) -> DifferingPage | None:
    """Return the picture of the last consensus; None: there is none, or what it was made of is gone."""
    consensus = look.state.consensus
    if consensus is None:
        return None
    hearings = look.chronicle.hearings(consensus.round.epoch, consensus.round.number, columns=_HEARD)
    opinions = look.opinions(hearings, MOST_DEVICES)
    if opinions is None or not opinions.devices:
        return None
    names, classes = opinions.devices, look.around.classes
    share = by_class(opinions.claims, opinions.consensus, len(classes))
    total = in_total(opinions.claims, opinions.consensus)
    order = sorted(range(len(names)), key=lambda row: (-total[row], names[row]))
    ranked = tuple(names[row] for row in order)
    return DifferingPage(
        round=consensus.round.number,
        heard=sum(one.agreement is not None for one in hearings),
        devices=len(names),
        probes=len(opinions.consensus),
        classes=Grid(
            "Devices by classes",
            "Of the probes that the consensus gives to a class, the percentage on which the device says another. "
            "A strong cell alone is a device that does not know the class, or has another mind about it.",
            "device",
            ranked,
            classes,
            _rows(share[order]),
        ),
        pairs=Grid(
            "Devices by devices",
            "Percentage of probes on which two devices say another class. Faint blocks are groups that think alike.",
            "device",
            ranked,
            ranked,
            _rows(by_pair(opinions.claims[order])),
        ),
    )


def _rows(values: F64) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values.tolist())
