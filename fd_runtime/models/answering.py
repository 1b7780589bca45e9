"""A bundle's answers as a program: logits of the samples that come in, on a runtime that another process cannot have.

    python -m fd_runtime.models.answering FOLDER RUNTIME < inputs.npy > logits.npy

Inputs are preprocessed samples [n, *sample_shape]. It runs in any interpreter that has NumPy and the runtime.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import cast

import numpy as np

from fd_protocol.errors import FedistillError
from fd_runtime.artifacts import Runtime, load_bundle


def main(folder: str, runtime: str) -> int:
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a runtime prints is no logit
    inputs = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    try:
        model = load_bundle(Path(folder)).open(cast("Runtime", runtime))
        answer = io.BytesIO()  # a pipe has no places, which np.save asks for
        np.save(answer, model.tail.logits(model.features(inputs)), allow_pickle=False)
        with out:
            out.write(answer.getvalue())
    except FedistillError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program of one line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
