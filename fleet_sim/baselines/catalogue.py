"""Every baseline by name: what it plays, of which part of the model, and the grid it is tuned on.

    factory-model  local-only  local-only/whole  centralised  centralised/whole
    server-only    server-only/canaries                    the factory's labels, and those of the canaries
    fedavg/PART  fedprox/PART  fedavgm/PART  feddf/PART    PART: tail, whole; with /int8 or /int4: coarse weights
    fedavg/PART/fine-tuned                                 and every device goes on alone at the end

`whole` is the student's family with all layers trainable. Coarse weights have the settings of the fine ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from fd_runtime.fitting import FitTerms
from fleet_sim.baselines import standings
from fleet_sim.baselines.fedavg import AveragedRound, fedavg
from fleet_sim.baselines.feddf import feddf
from fleet_sim.baselines.server_only import Gaps, Noise, SemiSupervision
from fleet_sim.baselines.standings import Bench, Standing, asked
from fleet_sim.baselines.tuning import DIVERGED, LEARNING_RATES, LOCAL_EPOCHS, Axes, Knobs
from fleet_sim.baselines.weight_codec import WeightCodec
from fleet_sim.worlds import Samples, World

Part: TypeAlias = Literal["tail", "whole"]
_PARTS: Mapping[Part, str] = {"tail": "tail", "whole": "whole model"}
_CODECS: tuple[WeightCodec, ...] = ("f32", "int8", "int4")
_DISTILLATION_RATE = 1e-3
"""Of Adam at FedDF's server, as in the experiments of Lin et al. 2020."""

_ADAM: Axes = {"learning_rate": (5e-4, 1e-3, 2e-3, 5e-3, 2e-2), "epochs": (10, 40, 80, 160)}
_PASSES: Axes = {"learning_rate": (3e-4, 1e-3, 3e-3), "epochs": (30, 60, 120)}
_LOCAL: Axes = {"learning_rate": LEARNING_RATES, "epochs": LOCAL_EPOCHS}


@dataclass(frozen=True, slots=True)
class Baseline:
    """One baseline.

    Attributes:
        title: in tables.
        play: to the end, with these settings.
        part: of the model that trains.
        axes: of its grid; without any there is nothing to tune.
        base: the baseline whose settings it has, or starts from where it has axes itself.
        goal: whose validation rows settings are chosen by, those of all or of the device's own kind.
        needs: labels without which a world cannot play it.
    """

    title: str
    play: Callable[[Bench, Knobs], Standing]
    part: Part = "tail"
    axes: Axes = field(default_factory=dict)
    base: str = ""
    goal: Literal["all", "own"] = "all"
    needs: Literal["", "factory", "canaries"] = ""

    def standing(self, bench: Bench, knobs: Knobs) -> Standing:
        """Return where it ends; with settings that diverge on this bench, nowhere: NaN."""
        try:
            return replace(self.play(bench, knobs), name=self.title)
        except DIVERGED:
            return Standing(self.title, (float("nan"),))

    def score(self, bench: Bench, knobs: Knobs, by: str = "") -> float:
        """Return what settings are chosen by: accuracy, or one of the scores that the bench asks for, by name.

        Raises:
            TrainingDivergedError, ThetaError: the settings are beyond all bounds.
        """
        return asked(self.play(bench, knobs), f"{by}: {self.goal}" if by else self.goal)

    def is_possible(self, world: World) -> bool:
        return not self.needs or len(getattr(world, self.needs)) > 0


Rounds: TypeAlias = Callable[[Bench, Knobs, WeightCodec], Iterator[AveragedRound]]


def _fedavg(bench: Bench, knobs: Knobs, codec: WeightCodec) -> Iterator[AveragedRound]:
    """FedAvg, FedProx and FedAvgM alike: what is 0 has no effect."""
    terms = FitTerms(epochs=knobs.epochs, learning_rate=knobs.learning_rate, prox=knobs.prox)
    momentum = knobs.server_momentum
    return fedavg(bench.factory, bench.private, terms, bench.rng, codec=codec, server_momentum=momentum)


def _feddf(bench: Bench, knobs: Knobs, codec: WeightCodec) -> Iterator[AveragedRound]:
    terms = FitTerms(epochs=knobs.epochs, learning_rate=knobs.learning_rate)
    distillation = FitTerms(epochs=knobs.server_epochs, learning_rate=_DISTILLATION_RATE, temperature=1.0)
    probes = bench.rows(bench.lab.world.probes)
    return feddf(bench.factory, bench.private, probes, terms, bench.rng, distillation=distillation, codec=codec)


_WEIGHTS: Mapping[str, tuple[str, Rounds, Axes]] = {
    "fedavg": ("FedAvg", _fedavg, _LOCAL),
    "fedprox": ("FedProx", _fedavg, {**_LOCAL, "prox": (1e-3, 1e-2, 1e-1, 1.0)}),
    "fedavgm": ("FedAvgM", _fedavg, {**_LOCAL, "server_momentum": (0.5, 0.7, 0.9, 0.97)}),
    "feddf": ("FedDF", _feddf, {**_LOCAL, "server_epochs": (1, 5, 20)}),
}


def _weights(kind: str, part: Part, codec: WeightCodec) -> tuple[str, Baseline]:
    """Return a baseline whose weights travel, and its name."""
    title, rounds, axes = _WEIGHTS[kind]
    name = f"{kind}/{part}"

    def play(bench: Bench, knobs: Knobs) -> Standing:
        return standings.play_weights(bench, title, rounds(bench, knobs, codec))[0]

    whole_title = f"{title}, {_PARTS[part]}, {codec}"
    if codec == "f32":
        return name, Baseline(whole_title, play, part, axes, base="" if kind == "fedavg" else f"fedavg/{part}")
    return f"{name}/{codec}", Baseline(whole_title, play, part, base=name)


def _fine_tuned(part: Part) -> tuple[str, Baseline]:
    """Return FedAvg after which each device goes on alone."""

    def play(bench: Bench, knobs: Knobs) -> Standing:
        average = _terms(knobs)  # played once, whatever comes after it
        if average not in bench.averages:
            bench.averages[average] = standings.play_weights(bench, "FedAvg", _fedavg(bench, knobs, "f32"))
        terms = FitTerms(epochs=knobs.own_epochs, learning_rate=knobs.own_rate)
        return standings.fine_tuned(bench, "fine-tuned", *bench.averages[average], terms)

    axes: Axes = {"own_rate": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2), "own_epochs": (1, 2, 5, 20)}
    title = f"FedAvg, {_PARTS[part]} + fine-tuning"
    return f"fedavg/{part}/fine-tuned", Baseline(title, play, part, axes, base=f"fedavg/{part}", goal="own")


def _terms(knobs: Knobs) -> FitTerms:
    return FitTerms(epochs=knobs.epochs, learning_rate=knobs.learning_rate)


def _local_only(bench: Bench, knobs: Knobs) -> Standing:
    return standings.play_local_only(bench, _terms(knobs))


def _centralised(bench: Bench, knobs: Knobs) -> Standing:
    return standings.play_centralised(bench, _terms(knobs))


def _server_only(bench: Bench, knobs: Knobs) -> Standing:
    return _by_itself(bench, knobs, bench.lab.world.factory)


def _server_with_canaries(bench: Bench, knobs: Knobs) -> Standing:
    world = bench.lab.world
    return _by_itself(bench, knobs, world.factory + world.probes.take(world.canaries))


def _by_itself(bench: Bench, knobs: Knobs, labelled: Samples) -> Standing:
    """A server that teaches itself with the labels it has, and the probes."""
    world = bench.lab.world
    terms = SemiSupervision(passes=knobs.epochs, learning_rate=knobs.learning_rate)
    if world.task.vocabulary is not None:
        terms = replace(terms, distortion=Gaps())
    elif len(world.task.sample_shape) != 3:  # no images [channels, height, width]
        terms = replace(terms, distortion=Noise())
    return standings.play_server_only(bench, "server only", labelled, terms)


NEW_CLASS_SETTINGS: Mapping[str, Knobs] = {
    "local-only": Knobs(80, 5e-3),
    "centralised": Knobs(160, 5e-3),
    "server-only": Knobs(60, 1e-3),
    "fedavg/tail": Knobs(20, 3e-3),
    "fedprox/tail": Knobs(10, 1e-2, prox=0.1),
    "fedavgm/tail": Knobs(20, 1e-2, server_momentum=0.5),
    "feddf/tail": Knobs(20, 1e-3, server_epochs=1),
    "fedavg/tail/fine-tuned": Knobs(20, 3e-3, own_epochs=5, own_rate=1e-3),
    "fedavg/whole": Knobs(5, 5e-3),
    "fedavg/whole/fine-tuned": Knobs(5, 5e-3, own_epochs=5, own_rate=1e-3),
}
"""Of the preset `new-class`: those of `standings.NEW_CLASS_TERMS`, and what 24 trials of `Comparison` chose."""

BASELINES: Mapping[str, Baseline] = {
    "factory-model": Baseline("factory model", lambda bench, _: standings.play_factory(bench)),
    "local-only": Baseline("local only", _local_only, axes=_ADAM, goal="own"),
    "local-only/whole": Baseline("local only, whole model", _local_only, "whole", _ADAM, goal="own"),
    "centralised": Baseline("centralised", _centralised, axes=_ADAM),
    "centralised/whole": Baseline("centralised, whole model", _centralised, "whole", _ADAM),
    "server-only": Baseline("server only", _server_only, part="whole", axes=_PASSES, needs="factory"),
    "server-only/canaries": Baseline(
        "server only, with the canaries' labels", _server_with_canaries, part="whole", axes=_PASSES, needs="canaries"
    ),
    **dict(_weights(kind, part, codec) for kind in _WEIGHTS for part in _PARTS for codec in _CODECS),
    **dict(map(_fine_tuned, _PARTS)),
}
