"""What `fleet-sim run` plays: a world, its devices and their models, the method, and what goes wrong. TOML or a preset.

    data = { name = "mnist-5k" }
    cut = { factory = 100, probes = 1000, test = 800, own_fraction = 0.1 }
    partition = { classes = { per_device = 3 } }
    rounds = 15
    method = { name = "competence", codec = "u4-sqrt" }
    training = { epochs = 4, learning_rate = 2e-3 }
    faults = { loss = 0.05, reorder = 0.2 }

A table that is given replaces the default one whole: what it leaves out is as the programs themselves have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from broker_server.rules import Need
from broker_server.settings import MethodSettings, RoundSettings
from broker_server.student import StudentTerms
from fd_protocol.errors import InvalidValueError
from fd_protocol.terms import PrivacyTerms, TrainingTerms
from fleet_sim.attacks import ATTACKS
from fleet_sim.boards.terms import Attendance, BoardTerms
from fleet_sim.bus.bus import Faults
from fleet_sim.data.terms import DataTerms
from fleet_sim.holdings import Holdings
from fleet_sim.kept_names import LATER, repr_of
from fleet_sim.metrics.scores import ScoreTerms
from fleet_sim.partitions import (
    Classes,
    Dirichlet,
    Drift,
    FeatureShift,
    Iid,
    ImageShift,
    LabelNoise,
    Natural,
    PartitionTerms,
    SensorShift,
)
from fleet_sim.rules import needs_of
from fleet_sim.worlds import NEW_CLASS, Cut, World, cut_world, disturbed
from model_export.augment import Augmentation
from model_export.pretrain import PretrainTerms


@dataclass(frozen=True, slots=True, repr=False)
class ProbeTerms:
    """What the public set is made of.

    Attributes:
        source: another data set whose samples are as those of the task: probes out of domain; None = the same.
        lacking: classes, by index, that no probe has.
        teaches_factory: the factory's rows are of `source` too, and none of them is a probe.
    """

    source: DataTerms | None = None
    lacking: tuple[int, ...] = ()
    teaches_factory: bool = field(default=False, metadata=LATER)

    __repr__ = repr_of

    def __post_init__(self) -> None:
        if self.teaches_factory and self.source is None:
            raise InvalidValueError("what teaches the factory is another `source`")


@dataclass(frozen=True, slots=True)
class ModelTerms:
    """What devices run.

    Attributes:
        families: device i has family i modulo their number.
        student: family of the server's model, and of the baselines that know one family only.
        pretraining: of the factory, where the world has factory labels.
        augmentation: views of images for it.
        every_layer_trains: no backbone; devices train the whole network.
        int8: quantise backbones.
        private: bundles have a clipping graph, which `privacy` needs.
    """

    families: tuple[str, ...] = ("mlp-s", "mlp-m", "mlp-l")
    student: str = "mlp-l"
    pretraining: PretrainTerms | None = field(default_factory=PretrainTerms)
    augmentation: Augmentation | None = None
    every_layer_trains: bool = False
    int8: bool = True
    private: bool = False

    def __post_init__(self) -> None:
        if not self.families:
            raise InvalidValueError("devices need a family")


@dataclass(frozen=True, slots=True)
class AttackTerms:
    """How many devices lie, and how.

    Attributes:
        devices: how many.
        kind: what they answer, see `fleet_sim.attacks`.
        claims: whether their competence maps say that they stand everywhere.
        source, target: classes by index, for targeted attacks: source shall be taken for target.
    """

    devices: int = 0
    kind: str = "lma"
    claims: Literal["everything", "honest"] = "everything"
    source: int = 0
    target: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ATTACKS or self.devices < 0:
            raise InvalidValueError(f"attack {self.kind!r} is not one of {', '.join(ATTACKS)}")
        if min(self.source, self.target) < 0 or self.source == self.target:
            raise InvalidValueError("an attack takes one class for another")


@dataclass(frozen=True, slots=True)
class Crashes:
    """What dies, each a probability: a device or the server per turn of the bus, its disk untouched."""

    device: float = 0.0
    server: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= p < 1 for p in (self.device, self.server)):
            raise InvalidValueError("a crash's probability lies in [0, 1)")


@dataclass(frozen=True, slots=True)
class AskTerms:
    """What a round asks for; see `broker_server.settings.RoundSettings`."""

    probes: int = 0
    choose: Literal["turn", "need"] = "turn"
    slice_rounds: int = 1
    lease_rounds: int = 50

    def __post_init__(self) -> None:
        RoundSettings(**asdict(self))


@dataclass(frozen=True, slots=True)
class MeasuringTerms:
    """How much of a fleet is asked for its accuracies, and how often. What the fleet learns does not depend on it.

    Attributes:
        every: rounds from one measurement to the next; the last round is always measured.
        devices: how many honest devices are asked, drawn once; 0 = all.
    """

    every: int = 1
    devices: int = 0

    def __post_init__(self) -> None:
        if self.every < 1 or self.devices < 0:
            raise InvalidValueError("measure every round or every few, and some devices or 0 for all")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A federation to play.

    Attributes:
        data: what there is to learn from.
        cut: how many of its rows go where; devices share the rest.
        devices, partition: how many they are, and who gets what.
        image_shift, sensor_shift: how far devices differ in what they record; one of them, or None.
        label_noise: how often owners label wrongly.
        drift: how what a device holds moves from round to round; None = it stays.
        probes: what the public set is made of.
        rounds: how many.
        fraction: share of devices that a round invites.
        ask: which probes a round asks for; all where nothing is said.
        models, method, training, privacy, student: as in the programs' own settings.
        canaries: whether the server knows labels of some probes, and weighs devices by them.
        boards: what devices are made of, device i of the i-th modulo their number; () = nothing takes time.
        attendance: who is there when; other than the usual, devices without `boards` are the usual board.
        attack, faults, crashes: what goes wrong.
        measuring: how closely one looks; all devices after every round where nothing is said.
        scores: what `compare` asks besides accuracy.
    """

    data: DataTerms = DataTerms("digits")
    cut: Cut = Cut()
    devices: int = 10
    partition: PartitionTerms = PartitionTerms(dirichlet=Dirichlet(0.1))
    image_shift: ImageShift | None = None
    sensor_shift: SensorShift | None = None
    label_noise: LabelNoise = LabelNoise()
    drift: Drift | None = None
    probes: ProbeTerms = ProbeTerms()
    rounds: int = 30
    fraction: float = 1.0
    ask: AskTerms = AskTerms()
    models: ModelTerms = ModelTerms()
    method: MethodSettings = MethodSettings()
    training: TrainingTerms = TrainingTerms(epochs=4, learning_rate=5e-3, probe_weight=0.25, warm_up_epochs=10)
    privacy: PrivacyTerms = PrivacyTerms()
    student: StudentTerms = StudentTerms(epochs=4, learning_rate=5e-3)
    canaries: bool = False
    boards: tuple[BoardTerms, ...] = ()
    attendance: Attendance = Attendance()
    attack: AttackTerms = AttackTerms()
    faults: Faults = Faults()
    crashes: Crashes = Crashes()
    measuring: MeasuringTerms = MeasuringTerms()
    scores: ScoreTerms = ScoreTerms()

    def __post_init__(self) -> None:
        if not self.has_public_set:
            self._check_without_public_set()
        if self.rounds < 1 or not 0 <= self.attack.devices < self.devices:
            raise InvalidValueError("rounds and honest devices are at least 1")
        if self.privacy.is_asked and not self.models.private:
            raise InvalidValueError("privacy.epsilon asks for models.private: bundles with a clipping graph")
        if self.image_shift is not None and self.sensor_shift is not None:
            raise InvalidValueError("samples are images or not: image_shift or sensor_shift")

    @property
    def has_public_set(self) -> bool:
        """Whether rounds are about probes; else about the labels of the task, or class prototypes, by the rule."""
        return Need.PUBLIC_SET in needs_of(self.method)

    @property
    def tells_prototypes(self) -> bool:
        """Whether devices tell class prototypes."""
        return Need.FEATURES in needs_of(self.method)

    def _check_without_public_set(self) -> None:
        name = self.method.name
        if self.canaries or self.attack.devices or self.ask != AskTerms():
            raise InvalidValueError(
                f"{name!r} goes without a public set: there are no probes to check, lie of or choose"
            )
        if self.tells_prototypes and (self.models.every_layer_trains or len({*self.models.families}) > 1):
            raise InvalidValueError(
                f"{self.method.name!r} needs one int8 backbone: one family, and not every layer trains"
            )

    @property
    def is_timed(self) -> bool:
        """Whether jobs and messages take time, and devices come and go."""
        return bool(self.boards) or self.attendance != Attendance()

    @property
    def do_devices_restart(self) -> bool:
        """Whether a device may start again, and needs what it has learnt."""
        has_batteries = any(board.battery_wh for board in self.boards)
        return bool(self.crashes.device) or self.drift is not None or has_batteries

    @property
    def shift(self) -> FeatureShift | None:
        return self.image_shift or self.sensor_shift

    def world(self, seed: int) -> World:
        """Return who holds what with this seed; where it drifts, over all rounds together.

        Raises:
            InvalidValueError: the data cannot be cut so; says what to change.
            AbsentDataError, ChecksumError, DataError: there are no such data.
        """
        return disturbed(self._plain_world(seed), self.shift, self.label_noise, seed)

    def with_data_at(self, path: Path | None) -> Scenario:
        """Return the scenario with its data at `path`; None: where it says itself."""
        return self if path is None else replace(self, data=replace(self.data, path=path.absolute()))

    def holdings(self, seed: int) -> Holdings | None:
        """Return what devices hold round by round; None: always what they have in `world`, whose errors it raises."""
        if self.drift is None:
            return None
        return Holdings(self._plain_world(seed), self.shift, self.label_noise, self.drift, seed)

    def _plain_world(self, seed: int) -> World:
        if self.canaries and not self.cut.canaries:
            raise InvalidValueError("canaries = true needs some: cut.canaries")
        dataset, source, partition = self.data.load(), self.probes.source, self.partition.partition
        self.scores.check(len(dataset.task.classes))
        return cut_world(
            dataset,
            self.cut,
            partition,
            self.devices,
            seed,
            lacking=self.probes.lacking,
            public=source.load() if source else None,
            public_teaches=self.probes.teaches_factory,
        )


_ON_IMAGES = Scenario(
    data=DataTerms("mnist-5k"),
    cut=NEW_CLASS,
    rounds=15,
    models=ModelTerms(("cnn-s", "cnn-m", "cnn-l"), "cnn-m", PretrainTerms(epochs=150)),
    training=TrainingTerms(epochs=16, learning_rate=2e-3, probe_weight=0.25, warm_up_epochs=5),
    student=StudentTerms(epochs=16, learning_rate=2e-3),
)

PRESETS: Mapping[str, Scenario] = {
    "digits": Scenario(),
    "iid": Scenario(cut=Cut(validation=100, own_fraction=0.1), partition=PartitionTerms(iid=Iid())),
    "new-class": _ON_IMAGES,
    "label-skew": replace(
        _ON_IMAGES,
        cut=replace(NEW_CLASS, new_classes=0),
        partition=PartitionTerms(classes=Classes(per_device=2)),
    ),
    "natural": Scenario(
        data=DataTerms("motion-sense"),
        cut=Cut(probes=600, unseen_groups=5, validation=300, own_fraction=0.2),
        devices=19,
        partition=PartitionTerms(natural=Natural()),
        rounds=15,
        models=ModelTerms(("conv1d-s", "conv1d-m", "conv1d-l"), "conv1d-m", pretraining=None),
    ),
}
"""`natural` needs a file of MotionSense: its `data.path` is given, or the data set says where to get it."""
