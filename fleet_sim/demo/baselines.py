"""The demo's baselines, as a program of low priority: it plays its share of them, and writes a line for each.

python -m fleet_sim.demo.baselines FOLDER SEED ROUNDS SHARE SHARES
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from fd_runtime.artifacts import Bundle
from fleet_sim.baselines import standings
from fleet_sim.baselines.server_only import SemiSupervision
from fleet_sim.baselines.standings import NEW_CLASS_TERMS, Bench, Standing
from fleet_sim.baselines.weight_codec import WeightCodec
from fleet_sim.demo.setting import Setting
from fleet_sim.factory import build_bundles, load_equipment
from fleet_sim.federation.simulation import Simulation
from fleet_sim.lab import Lab
from fleet_sim.real.processes import Program

_CODECS: tuple[WeightCodec, ...] = ("f32", "int8", "int4")
_SHARES = 2
_NICENESS = 5


def start_baselines(setting: Setting) -> list[Program]:
    """Start the programs that play all baselines of a demo whose factory has been built."""
    return [
        Program(
            f"baselines-{share}",
            [sys.executable, "-m", __name__, setting.folder, *map(str, (setting.seed, setting.rounds, share, _SHARES))],
            _output(setting.folder, share),
        )
        for share in range(_SHARES)
    ]


def read_baselines(folder: Path) -> list[list[Standing]]:
    """Return the baselines that have been played so far, in the order of `Baselines.jobs`."""
    found: dict[int, list[Standing]] = {}
    for share in range(_SHARES):
        for line in _output(folder, share).read_text().splitlines():
            if line.startswith("{"):  # whatever a library prints stands in the same file
                played = json.loads(line)
                found[played["job"]] = [Standing(**{**s, "curve": tuple(s["curve"])}) for s in played["standings"]]
    return [found[job] for job in sorted(found)]


def _output(folder: Path, share: int) -> Path:
    return folder / f"baselines-{share}.log"


JOBS = 9


@dataclass(frozen=True)
class Baselines:
    """What the jobs share."""

    setting: Setting
    share: int

    def jobs(self) -> Sequence[Callable[[], list[Standing]]]:
        """Return every baseline, slow and fast in turn, so that each share has some of both."""
        average_whole = [partial(self.average_whole, codec) for codec in _CODECS]
        average_tail = [partial(self.average_tail, codec) for codec in _CODECS]
        return (
            *average_whole,
            self.distil_by_the_mean,
            self.alone_and_together,
            *average_tail,
            self.server_only,
        )

    @cached_property
    def tail(self) -> Bench:
        setting = self.setting
        equipment = load_equipment(setting.world, setting.scenario.models, setting.factory)
        return self._bench(equipment.bundles)

    @cached_property
    def whole(self) -> Bench:
        """The student's family once more, every layer trainable; the factory's weights are the same."""
        setting = self.setting
        models = replace(setting.scenario.models, families=(self._family,), every_layer_trains=True)
        folder = setting.folder / f"factory-whole-{self.share}"
        return self._bench(build_bundles(setting.world, models, setting.seed, folder, tflite=False))

    def average_whole(self, codec: WeightCodec) -> list[Standing]:
        terms = NEW_CLASS_TERMS
        return standings.play_fedavg(
            self.whole, "FedAvg, whole model", terms.whole_average, terms.fine_tuning, codec
        )  # fmt: skip

    def average_tail(self, codec: WeightCodec) -> list[Standing]:
        terms = NEW_CLASS_TERMS
        return standings.play_fedavg(self.tail, "FedAvg, tail", terms.tail_average, terms.fine_tuning, codec)

    def distil_by_the_mean(self) -> list[Standing]:
        setting, method = self.setting, self.setting.scenario.method
        scenario = replace(setting.scenario, method=replace(method, name="mean-probabilities"))
        equipment = load_equipment(setting.world, scenario.models, setting.factory)
        results = list(Simulation(scenario, setting.world, equipment, setting.seed).run())
        return [standings.standing_of("FD by the mean", results)]

    def server_only(self) -> list[Standing]:
        return [standings.play_server_only(self.whole, "server only", self.setting.world.factory, SemiSupervision())]

    def alone_and_together(self) -> list[Standing]:
        terms = NEW_CLASS_TERMS
        return [
            standings.play_factory(self.tail),
            standings.play_local_only(self.tail, terms.local_only),
            standings.play_centralised(self.tail, terms.centralised),
        ]

    def _bench(self, bundles: Mapping[str, Bundle]) -> Bench:
        return Bench(Lab(self.setting.world, bundles), self._family, self.setting.rounds, self.setting.seed)

    @property
    def _family(self) -> str:
        return self.setting.scenario.models.student


def main(arguments: Sequence[str]) -> None:
    """Play every `shares`-th baseline, and print each as a line of JSON."""
    folder, (seed, rounds, share, shares) = Path(arguments[0]), map(int, arguments[1:])
    os.nice(_NICENESS)
    jobs = Baselines(Setting(folder, rounds, seed), share).jobs()
    for index in range(share, len(jobs), shares):
        line = json.dumps({"job": index, "standings": [asdict(standing) for standing in jobs[index]()]})
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
