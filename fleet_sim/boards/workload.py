"""How long a device's jobs take: work counted in its own graphs, turned into time by its board's rates.

    train, warm-up   epochs x ceil(rows / batch) steps, as counted in the train-step graph
    predict, map     a row through the whole model; features that are kept make it less, so this is the most

The rates are those of `model_export plan`: one core, float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import onnx

from edge_agent.jobs import CompetenceJob, Job, PredictJob, RefreshJob, TrainJob, WarmUpJob
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle
from fd_runtime.fitting import FitTerms
from model_export.planning.flops import Work, total
from model_export.planning.profiles import DeviceProfile

_BATCH_ROWS = FitTerms().batch_rows


@dataclass(frozen=True, slots=True)
class Workload:
    """What the jobs of a device take.

    Attributes:
        step: one train step of a full batch.
        sample: one sample through the whole model.
        rows: the device's private rows.
        probes: of the public set.
    """

    step: Work
    sample: Work
    rows: int
    probes: int

    def milliseconds(self, job: Job, profile: DeviceProfile) -> float:
        """Return how long `job` takes on a board."""
        match job:
            case WarmUpJob(privacy=privacy) if privacy.is_asked:
                return privacy.steps * self._epoch_ms(round(privacy.sampling_rate * self.rows), profile)
            case WarmUpJob(terms=terms):
                return terms.warm_up_epochs * self._epoch_ms(self.rows, profile)
            case TrainJob(terms=terms, privacy=privacy):
                rows = 0 if privacy.is_asked else self.rows
                return terms.epochs * self._epoch_ms(rows + self.probes, profile)
            case RefreshJob(terms=terms):
                return terms.epochs * self._epoch_ms(self.rows + (self.probes if job.messages else 0), profile)
            case PredictJob(offer=offer):
                return offer.slice.count * profile.milliseconds(self.sample)
            case CompetenceJob():
                return (self.rows + self.probes) * profile.milliseconds(self.sample)

    def _epoch_ms(self, rows: int, profile: DeviceProfile) -> float:
        return -(-rows // _BATCH_ROWS) * profile.milliseconds(self.step)


def workload(bundle: Bundle, rows: int, probes: int) -> Workload:
    """Return what the jobs of a device with `bundle` take."""
    step, sample = _works(bundle)
    return Workload(step, sample, rows, probes)


@lru_cache(64)
def _count(step: bytes, backbone: bytes, tail: bytes) -> tuple[Work, Work]:
    parts = [total(onnx.load_from_string(graph), 1) for graph in (backbone, tail) if graph]
    sample = Work(*(sum(getattr(part, name) for part in parts) for name in ("flops", "bytes", "nodes")))
    return total(onnx.load_from_string(step), _BATCH_ROWS), sample


def _works(bundle: Bundle) -> tuple[Work, Work]:
    backbone = bundle.read(Role.BACKBONE) if Role.BACKBONE in bundle.manifest.files else b""
    return _count(bundle.read(Role.TRAIN_STEP), backbone, bundle.read(Role.TAIL))
