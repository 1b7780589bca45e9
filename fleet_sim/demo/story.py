"""From what was seen to what is said: the demo's `Report`. Nothing is measured here."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from fd_protocol.manifest import Role
from fd_runtime.pages import Section
from fleet_sim.baselines.standings import Standing
from fleet_sim.demo.setting import LITERT_DEVICE
from fleet_sim.real.fleet import Stage
from fleet_sim.real.observer import Observer
from fleet_sim.real.wire_meter import Traffic
from fleet_sim.reports.report import Curve, Report

OURS, OURS_STUDENT = "FD by competence, mean device", "FD by competence, student"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that was measured."""

    stage: Stage
    observer: Observer
    baselines: tuple[Standing, ...]
    wall_s: float

    @property
    def rounds(self) -> int:
        return self.stage.scenario.rounds

    @property
    def devices(self) -> int:
        return self.stage.scenario.devices

    @property
    def traffic(self) -> Traffic:
        """All devices, from their first connection to the end."""
        meter = self.observer.fleet.meter
        return sum((meter.traffic(device) for device in self.observer.fleet.devices), Traffic())


def tell(outcome: Outcome) -> Report:
    """Return the report of a finished demo."""
    return Report(
        title="fedistill demo: ten devices, three architectures, three digits that only devices have seen",
        summary=tuple(_summary(outcome)),
        curves=tuple(_curves(outcome)),
        sections=(_accuracy(outcome), _bytes(outcome), _break_even(outcome)),
        command="make demo",
    )


def _summary(outcome: Outcome) -> Iterator[str]:
    world, scenario = outcome.stage.world, outcome.stage.scenario
    new = ", ".join(world.task.classes[c] for c in world.new_classes)
    yield f"MNIST: {len(world.factory)} factory labels of 7 digits; {new} exist on devices alone. No image travels."
    families = ", ".join(scenario.models.families)
    yield (
        f"{outcome.devices} edge-agent process trees ({families}; device-{LITERT_DEVICE} in LiteRT, the others in "
        f"onnxruntime), {len(world.probes)} unlabelled probes, {outcome.rounds} rounds."
    )
    yield outcome.observer.fleet.notice
    yield f"Wall time {outcome.wall_s:.0f} s, baselines included."


def _curves(outcome: Outcome) -> Iterator[Curve]:
    yield Curve(OURS_STUDENT, outcome.observer.student_curve(), is_ours=True)
    yield Curve(OURS, outcome.observer.client_curve(), is_ours=True)
    yield from (Curve(s.name, s.curve) for s in outcome.baselines if s.name in _DRAWN)


_DRAWN = frozenset(
    {"FedAvg, whole model, f32", "FedAvg, tail, f32", "FD by the mean", "server only", "local only", "centralised"}
)


def _accuracy(outcome: Outcome) -> Section:
    observer = outcome.observer
    rows = [
        (OURS, _percent(observer.client_curve()[-1]), _percent(observer.own_accuracy())),
        (OURS_STUDENT, _percent(observer.student_curve()[-1]), "-"),
        *((s.name, _percent(s.final), _percent(s.own)) for s in outcome.baselines),
    ]
    note = (
        "All digits: 800 test images. Own digits: images kept back from each device, answers corrected by its label "
        "histogram, for every method alike. FedAvg needs one architecture on all devices; the factory, FedAvg of the "
        "tail and the centralised row share our frozen int8 backbone. 'Whole model' trains every layer: more "
        "computing and more bytes for more accuracy."
    )
    return Section("Accuracy at the end", ("method", "all digits", "own digits"), tuple(rows), note, frozenset({OURS}))


def _bytes(outcome: Outcome) -> Section:
    traffic, turns = outcome.traffic, outcome.devices * outcome.rounds
    measured = (
        OURS,
        _kilo(traffic.up / turns),
        _kilo(traffic.down / turns),
        _kilo(traffic.up + traffic.down),
        "TCP stream, TLS included",
    )
    rows = [measured] + [
        (
            s.name,
            _kilo(s.up_bytes),
            _kilo(s.down_bytes),
            _kilo((s.up_bytes + s.down_bytes) * turns),
            "packets" if s.name.startswith("FD") else "bodies alone",
        )
        for s in outcome.baselines
        if s.up_bytes and "fine-tuning" not in s.name
    ]
    probes = outcome.stage.world.probes.values.tobytes()
    note = (
        f"Once for every device and any method: its bundle. Once for every device and FD alone: the public set, "
        f"{_kilo(len(probes))} kB, {_kilo(len(zlib.compress(probes, 9)))} kB deflated."
    )
    columns = ("kB", "up, a device and round", "down, a device and round", "whole federation", "what is counted")
    return Section("Bytes", columns, tuple(rows), note, frozenset({OURS}))


def _break_even(outcome: Outcome) -> Section:
    """N*C codes of b bits against |theta| parameters of b' bits, before deflate."""
    scenario, world = outcome.stage.scenario, outcome.stage.world
    bundle = outcome.stage.equipment.bundles[scenario.models.student]
    tail = bundle.manifest.layout.size
    whole = tail + bundle.manifest.files[Role.BACKBONE_FLOAT].size_bytes // 4
    cells = len(world.probes) * len(world.task.classes)
    rows = (
        ("soft labels", f"{cells:,}", _kilo(cells * 2), _kilo(cells), _kilo(cells / 2)),
        ("weights of the tail", f"{tail:,}", _kilo(4 * tail), _kilo(tail), _kilo(tail / 2)),
        ("weights of the whole model, about", f"{whole:,}", _kilo(4 * whole), _kilo(whole), _kilo(whole / 2)),
    )
    note = (
        "Before deflate: probes x classes codes (16, 8, 4 bits) against parameters (32, 8, 4 bits). Soft labels win "
        "where the trained part is larger than probes x classes, and wherever architectures differ."
    )
    return Section(
        "Break-even against weights, one way, kB", ("", "numbers", "f16 / f32", "8 bit", "4 bit"), rows, note
    )


def _percent(share: float) -> str:
    return "-" if share != share else f"{100 * share:.1f} %"  # noqa: PLR0124 - NaN is what differs from itself


def _kilo(size_bytes: float) -> str:
    return f"{size_bytes / 1000:,.1f}"
