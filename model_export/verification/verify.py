"""`model-export verify`: everything that can be checked about a bundle on this machine, as one value to print.

A digest or a golden vector that is wrong ends the check with an error: such a bundle is not used. Parity, gradients and
layers are figures, and a gradient that is wrong is an error too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Role
from fd_runtime.artifacts import Bundle, Runtime
from fd_runtime.config import EX_DATAERR
from fd_runtime.models.golden import Golden
from fd_runtime.models.model import ModelError, ThetaError
from fd_runtime.space import preprocessed
from model_export.bundle import Proof, verify_bundle
from model_export.graph import GraphError
from model_export.samples import Samples
from model_export.verification.gradients import GradientCheck, check_gradients
from model_export.verification.layers import LayerError, layer_errors
from model_export.verification.parity import Parity, compare, logits_of

GRADIENT_TOLERANCE = 1e-4
_GRADIENT_ROWS = 4
_MOST_ROWS = 1000


class WrongGradientError(FedistillError):
    """A train step does not descend along the gradient of its loss."""

    exit_code = EX_DATAERR

    def __init__(self, check: GradientCheck) -> None:
        self.check = check
        super().__init__(f"the gradient of {check.parameter} is off by {check.relative_error:.1e} of its length")


class UnusableBundleError(FedistillError):
    """Files that are what the manifest promises and make no model."""

    exit_code = EX_DATAERR

    def __init__(self, folder: Path, error: FedistillError) -> None:
        super().__init__(f"{folder}: {error}")


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Attributes:
        proofs: by runtime, whether its golden vectors were met here, or why they could not be tried.
        rows: samples behind the parity.
    """

    bundle: Bundle
    proofs: Mapping[Runtime, Proof]
    rows: int
    parity: tuple[Parity, ...]
    gradients: tuple[GradientCheck, ...]
    layers: tuple[LayerError, ...]

    def to_plain(self) -> dict[str, Any]:
        """The same for JSON."""
        return {
            "digest": self.bundle.digest.hex(),
            "runtimes": {runtime: proof.value for runtime, proof in self.proofs.items()},
            "rows": self.rows,
            "parity": [asdict(line) for line in self.parity],
            "gradients": [asdict(line) for line in self.gradients],
            "layers": [asdict(line) for line in self.layers],
        }


def verify(folder: Path, samples: Samples | None = None) -> Verification:
    """Return what could be checked about the bundle in `folder`.

    Args:
        folder: of the bundle.
        samples: to compare the variants on, at most 1,000; None = the few golden ones.

    Raises:
        MissingArtifactError, InvalidManifestError, DigestError: as `load_bundle`.
        GoldenMismatchError: a runtime that is installed here answers otherwise than where the bundle was built.
        UnusableBundleError: a runtime refuses a graph, or theta does not fit it.
        WrongGradientError: the train step's gradient is not that of the loss.
    """
    try:
        return _verified(folder, samples)
    except (GraphError, ModelError, ThetaError) as error:
        raise UnusableBundleError(folder, error) from error


def _verified(folder: Path, samples: Samples | None) -> Verification:
    bundle, proofs = verify_bundle(folder)
    task = bundle.manifest.task
    golden = Golden.from_bytes(bundle.read(Role.GOLDEN), task)
    chosen = Samples(golden.samples) if samples is None else samples
    inputs = preprocessed(chosen.values[:_MOST_ROWS], task)
    labels = None if chosen.labels is None else chosen.labels[:_MOST_ROWS]
    here = [runtime for runtime, proof in proofs.items() if proof is Proof.MET]
    few = preprocessed(golden.samples[:_GRADIENT_ROWS], task)
    gradients = check_gradients(bundle, few, golden.labels[:_GRADIENT_ROWS], np.random.default_rng(0))
    for check in gradients:
        if not check.relative_error <= GRADIENT_TOLERANCE:  # so that NaN fails
            raise WrongGradientError(check)
    parity = compare(logits_of(bundle, inputs, here), labels)
    return Verification(bundle, proofs, len(inputs), parity, gradients, layer_errors(bundle, inputs))
