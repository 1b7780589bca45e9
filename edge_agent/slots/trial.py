"""A package proves itself, in a process of its own: what a bundle does to a runtime, it does here first.

    python -m edge_agent.slots.trial agent.toml OFFERED

OFFERED is JSON of `machine.Offered`; the package lies in the slots' folder. The verdict is a line of JSON on standard
output; a process that ends without one has crashed, which is a verdict too.

    digests -> unpacked beside the slot -> same family, task, a runtime that it was proven on -> golden vectors here
    -> not worse on the private hold-out than what runs -> becomes the slot

The hold-out is asked as the guard asks it (`acceptance`): both bundles with the parameters that they came with, since
what a device has learnt for itself it learns again.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from edge_agent.acceptance import Score, is_acceptable
from edge_agent.equipment import Equipment, load_equipment
from edge_agent.private_data import PrivateRows, load_private_rows
from edge_agent.slots.machine import Offered
from edge_agent.slots.shelf import Shelf
from edge_agent.slots.verify import Unverified, verify
from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import Bundle, load_bundle
from fd_runtime.files import sync_folder
from fd_runtime.packages import IncompletePackageError, unpack
from fd_runtime.proof import check_on
from fd_runtime.space import preprocessed


class Outcome(str, Enum):
    """How a trial ended; what is postponed says nothing of the bundle."""

    PROVEN = "proven"
    REFUSED = "refused"
    POSTPONED = "postponed"


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """What the trial found; `metrics` are numbers of the shadow run."""

    outcome: Outcome
    reason: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


class _RefusedError(Exception):
    """The bundle is no good."""


def main(arguments: list[str]) -> int:
    logging.basicConfig(format="%(asctime)s trial %(levelname)s %(message)s", level=logging.INFO)
    standard_output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no verdict
    path, offered = Path(arguments[0]), Offered(**json.loads(arguments[1]))
    with standard_output:
        json.dump(asdict(put_on_trial(path, offered)), standard_output)
    return 0


def put_on_trial(path: Path, offered: Offered) -> TrialVerdict:
    """Return whether the offered bundle may run on the device that the settings at `path` describe."""
    try:
        equipment = load_equipment(path)
    except FedistillError as error:  # the device's own trouble
        return TrialVerdict(Outcome.POSTPONED, str(error))
    shelf = Shelf(equipment.settings.state.slots)
    try:
        if not _is_there(shelf.slot(offered.bundle), offered):
            metrics = _try(equipment, shelf, offered)
            return TrialVerdict(Outcome.PROVEN, metrics=metrics)
    except _RefusedError as error:
        return TrialVerdict(Outcome.REFUSED, str(error))
    except FedistillError as error:
        return TrialVerdict(Outcome.REFUSED, f"{type(error).__name__}: {error}")
    except (OSError, MemoryError) as error:
        return TrialVerdict(Outcome.POSTPONED, f"{type(error).__name__}: {error}")
    return TrialVerdict(Outcome.PROVEN)


def _is_there(slot: Path, offered: Offered) -> bool:
    """Whether an earlier trial ended well and nobody heard of it."""
    try:
        return load_bundle(slot).digest.hex() == offered.bundle
    except FedistillError:
        return False


def _try(equipment: Equipment, shelf: Shelf, offered: Offered) -> Mapping[str, float]:
    package = shelf.part(offered.package).read_bytes()
    verdict = verify(package, offered)
    if isinstance(verdict, Unverified):
        raise _RefusedError(verdict.reason)
    draft = shelf.slot(f"{offered.bundle}.new")
    _clear(draft)
    bundle = _unpack(package, draft, equipment)
    _compare(bundle, equipment.bundle, offered)
    check_on(bundle, equipment.settings.model.runtime)
    metrics = _shadow(bundle, equipment)
    slot = shelf.slot(offered.bundle)
    _clear(slot)
    draft.rename(slot)
    sync_folder(slot.parent)
    return metrics


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


def _shadow(bundle: Bundle, equipment: Equipment) -> Mapping[str, float]:
    task, path = equipment.bundle.manifest.task, equipment.settings.data.private
    if path is None:
        return {}
    rows = load_private_rows(path, task.sample_shape, len(task.classes))
    _, is_held_out = rows.split()
    if not is_held_out.any():
        return {}
    held = PrivateRows(rows.samples[is_held_out], rows.labels[is_held_out])
    new, now = _score(bundle, held, equipment), _score(equipment.bundle, held, equipment)
    if not is_acceptable(new, now):
        raise _RefusedError(
            f"{new.correct} of {new.rows} private hold-out rows right, {now.correct} by what runs: a clear loss"
        )
    return {"hold_out_accuracy": new.accuracy, "hold_out_accuracy_before": now.accuracy, "rows": float(new.rows)}


def _score(bundle: Bundle, rows: PrivateRows, equipment: Equipment) -> Score:
    settings = equipment.settings.model
    model = bundle.open(settings.runtime, threads=settings.threads)
    features = model.features(preprocessed(rows.samples, bundle.manifest.task))
    guesses = model.tail.logits(features).argmax(axis=1)
    return Score(int((guesses == rows.labels).sum()), len(rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
