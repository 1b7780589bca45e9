"""A package proves itself, in a process of its own: what a bundle does to a runtime, it does here first.

    python -m edge_agent.slots.trial agent.toml OFFERED

OFFERED is JSON of `machine.Offered`; the package lies in the slots' folder. On standard output come lines of JSON: a
`step` where one begins that takes minutes, at last the verdict. A process that ends without one has crashed, which is a
verdict too.

    digests -> unpacked beside the slot -> same family, task, a runtime that it was proven on -> golden vectors here
    -> on the providers of the settings, where a GPU's engine is compiled and kept -> within the budgets of time and
    memory (`costs`) -> not worse on the private hold-out than what runs (`shadow`) -> becomes the slot

Under privacy terms the hold-out is not asked: all see which bundle runs. What is wrong with the device itself, its rows
or its store, says nothing of the bundle.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from edge_agent.equipment import Equipment, load_equipment
from edge_agent.learning.learned import private_path
from edge_agent.round.journal import Journal
from edge_agent.slots.costs import LATENCY, MEMORY, Growth, latency_p95_ms
from edge_agent.slots.machine import Offered
from edge_agent.slots.personal import learnt_with
from edge_agent.slots.settings import ReleaseSettings
from edge_agent.slots.shadow import Shadow, shadows
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.verify import Refused, Undecided, verify
from fd_protocol.errors import FedistillError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Role
from fd_protocol.succession import unfit
from fd_runtime.artifacts import Bundle, UnverifiedRuntimeError, load_bundle
from fd_runtime.files import sync_folder
from fd_runtime.models.model import ModelError
from fd_runtime.models.opening import LoadedModel
from fd_runtime.models.placing import awaits_engine, open_placed
from fd_runtime.models.proof import check_on
from fd_runtime.packages import IncompletePackageError, unpack
from fd_runtime.storage.store import Store


class Outcome(str, Enum):
    """How a trial ended; what is postponed says nothing of the bundle."""

    PROVEN = "proven"
    REFUSED = "refused"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """What the trial found.

    Attributes:
        metrics: numbers of the shadow run.
        keeps_tail: the device may go on with what it has learnt.
        tail: what becomes of that, for people; empty: there is nothing.
    """

    outcome: Outcome
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    keeps_tail: bool = False
    tail: str = ""


class Step(str, Enum):
    """What of a trial takes minutes."""

    COMPILING = "compiling"


LEARNS_ANEW = "it learns anew: {}"


class _RefusedError(Exception):
    """The bundle is no good."""


class _OwnTroubleError(Exception):
    """The device is not fit to judge it now."""


Say = Callable[[Step], None]
"""Told when a long step begins."""


def main(arguments: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s trial %(levelname)s %(message)s", level=logging.INFO)
    standard_output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no verdict
    path, offered = Path(arguments[0]), Offered(**json.loads(arguments[1]))

    def say(words: Mapping[str, object]) -> None:
        standard_output.write(json.dumps(words) + "\n")
        standard_output.flush()

    with standard_output:
        say(asdict(put_on_trial(path, offered, lambda step: say({"step": step.value}))))
    return 0


def put_on_trial(path: Path, offered: Offered, say: Say = lambda _: None) -> TrialVerdict:
    """Return whether the offered bundle may run on the device that the settings at `path` describe."""
    try:
        equipment = load_equipment(path)
    except FedistillError as error:  # the device's own trouble
        return TrialVerdict(Outcome.POSTPONED, str(error))
    shelf = Shelf(equipment.settings.state.slots)
    try:
        if _is_there(shelf.slot(offered.bundle), offered):  # an earlier trial ended well and nobody heard of it
            return _judge(load_bundle(shelf.slot(offered.bundle)), equipment, say)
        return _try(equipment, shelf, offered, say)
    except _RefusedError as error:
        return TrialVerdict(Outcome.REFUSED, str(error))
    except _OwnTroubleError as error:
        return TrialVerdict(Outcome.POSTPONED, str(error))
    except FedistillError as error:
        return TrialVerdict(Outcome.REFUSED, f"{type(error).__name__}: {error}")
    except (OSError, MemoryError) as error:
        return TrialVerdict(Outcome.POSTPONED, f"{type(error).__name__}: {error}")


def _is_there(slot: Path, offered: Offered) -> bool:
    """Whether an earlier trial ended well and nobody heard of it."""
    try:
        return load_bundle(slot).digest.hex() == offered.bundle
    except FedistillError:
        return False


def _try(equipment: Equipment, shelf: Shelf, offered: Offered, say: Say) -> TrialVerdict:
    package = shelf.part(offered.package).read_bytes()
    if sha256(package).hex() != offered.package:  # they came whole (`download`), so it is the card
        shelf.part(offered.package).unlink()
        raise _OwnTroubleError("the package was damaged here: it is fetched again")
    verdict = verify(offered, equipment.settings, time.time(), package)
    if isinstance(verdict, Refused):
        raise _RefusedError(verdict.reason)
    if isinstance(verdict, Undecided):
        raise _OwnTroubleError(verdict.reason)
    draft = shelf.slot(f"{offered.bundle}.new")
    _clear(draft)
    bundle = _unpack(package, draft, equipment)
    _compare(bundle, equipment.bundle, offered)
    if verdict.facts is not None and bundle.manifest.files[Role.GOLDEN].sha256 != verdict.facts.golden:
        raise _RefusedError("its golden vectors are not those that were signed")
    check_on(bundle, equipment.settings.model.runtime)
    proven = _judge(bundle, equipment, say)
    slot = shelf.slot(offered.bundle)
    _clear(slot)
    draft.rename(slot)
    sync_folder(slot.parent)
    return proven


def _clear(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _unpack(package: bytes, draft: Path, equipment: Equipment) -> Bundle:
    """A delta is to the factory's bundle, or to what runs now."""
    parents = dict.fromkeys((equipment.settings.model.bundle, equipment.bundle.folder))
    reason = ""
    for parent in parents:
        try:
            bundle = unpack(package, draft, parent=parent)
        except IncompletePackageError as error:
            reason = str(error)
            continue
        if not isinstance(bundle, Bundle):
            raise _RefusedError("it is no bundle")
        return bundle
    raise _RefusedError(reason)


def _compare(bundle: Bundle, active: Bundle, offered: Offered) -> None:
    if bundle.digest.hex() != offered.bundle:
        raise _RefusedError(f"its bundle is {bundle.digest.hex()[:12]}, {offered.bundle[:12]} was offered")
    if bundle.manifest.family != active.manifest.family:
        raise _RefusedError(f"a bundle of family {bundle.manifest.family}, this device is of {active.manifest.family}")
    if bundle.manifest.task.digest != active.manifest.task.digest:
        raise _RefusedError("a bundle for another task")


def _judge(bundle: Bundle, equipment: Equipment, say: Say) -> TrialVerdict:
    """Return that the bundle is proven, and what was found out; a clear loss on the hold-out refuses it."""
    growth = Growth()
    model = _open(bundle, equipment, say)
    costs = _costs(model, bundle, growth, equipment.settings.releases)
    has_learnt = any(map(Path.exists, (equipment.checkpoint, private_path(equipment.checkpoint))))
    if _is_under_terms(equipment):
        return _proven(costs, LEARNS_ANEW.format("privacy terms") if has_learnt else "", keeps_tail=False)
    obstacle = unfit(equipment.bundle.manifest, bundle.manifest)
    learnt = learnt_with(equipment.bundle, equipment.checkpoint)
    try:
        base, personal = shadows(model, bundle, equipment, None if obstacle else learnt)
    except (ModelError, UnverifiedRuntimeError):
        raise
    except FedistillError as error:
        raise _OwnTroubleError(f"the hold-out cannot be asked: {type(error).__name__}: {error}") from error
    if personal is not None and not personal.is_clear_loss:
        return _proven({**_metrics(personal), **costs}, "what was learnt is kept", keeps_tail=True)
    if base.is_clear_loss:
        new, now = base.new, base.now
        raise _RefusedError(
            f"{new.correct} of {new.rows} private hold-out rows right, {now.correct} by what runs: a clear loss"
        )
    why = obstacle or "what was learnt is a clear loss with it"
    lost = LEARNS_ANEW.format(why) if learnt is not None else ""
    return _proven(
        {**_metrics(base), **costs}, lost, keeps_tail=not obstacle and learnt is None
    )  # it may learn until the switch


def _open(bundle: Bundle, equipment: Equipment, say: Say) -> LoadedModel:
    """Open the bundle as the worker will; what a GPU's compiler makes of it is kept for the worker."""
    settings = equipment.settings
    runtime, placement = settings.model.runtime, settings.placement
    if awaits_engine(bundle, runtime, placement):
        say(Step.COMPILING)
    return open_placed(bundle, runtime, threads=settings.model.threads, placement=placement)


def _costs(model: LoadedModel, bundle: Bundle, growth: Growth, settings: ReleaseSettings) -> Mapping[str, float]:
    """Return what the bundle costs here; more than the owner allows refuses it."""
    taken_ms = latency_p95_ms(model, bundle)
    memory_mb = growth.memory_mb
    if settings.latency_ms is not None and taken_ms > settings.latency_ms:
        raise _RefusedError(f"{taken_ms:.1f} ms a sample, releases.latency_ms allows {settings.latency_ms:g}")
    if settings.memory_mb is not None and memory_mb > settings.memory_mb:
        raise _RefusedError(f"{memory_mb:.0f} MB to be open, releases.memory_mb allows {settings.memory_mb:g}")
    return {LATENCY: taken_ms, MEMORY: memory_mb}


def _proven(metrics: Mapping[str, float], tail: str, *, keeps_tail: bool) -> TrialVerdict:
    return TrialVerdict(Outcome.PROVEN, metrics=metrics, keeps_tail=keeps_tail, tail=tail)


def _metrics(shadow: Shadow) -> Mapping[str, float]:
    if not shadow.is_asked:
        return {}
    new, now = shadow.new, shadow.now
    return {"hold_out_accuracy": new.accuracy, "hold_out_accuracy_before": now.accuracy, "rows": float(new.rows)}


def _is_under_terms(equipment: Equipment) -> bool:
    """Whether the owner asks for privacy terms, or the last offer did."""
    settings = equipment.settings
    if equipment.is_private or not settings.state.store.exists():
        return equipment.is_private
    with Store.view(settings.state.store) as store:
        return Journal(store, settings.device.federation).replay().privacy.is_asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
