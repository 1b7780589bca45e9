"""What this processor makes of a bundle's golden samples: `python answers.py BUNDLE OUT.npz`, of the agent alone.

features: of the int8 backbone, uint8. logits and losses: of the float32 tail and its train step, in golden.py's sense.
"""

import sys
from pathlib import Path

import numpy as np

from fd_protocol.manifest import Role
from fd_runtime.artifacts import load_bundle
from fd_runtime.models import golden
from fd_runtime.models.opening import open_model
from fd_runtime.space import preprocessed


def answers(folder: Path) -> dict[str, np.ndarray]:
    bundle = load_bundle(folder)
    task = bundle.manifest.task
    model = open_model(bundle, "onnxruntime", 1)
    kept = golden.Golden.from_bytes(bundle.read(Role.GOLDEN), task)
    said = golden.record(model, kept.samples, kept.labels)
    features = model.features(preprocessed(kept.samples, task))
    return {"features": features, "logits": said.logits, "losses": said.losses}


if __name__ == "__main__":
    np.savez(sys.argv[2], **answers(Path(sys.argv[1])))
