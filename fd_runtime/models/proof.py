"""The golden check as a program: does the bundle in FOLDER answer here, on RUNTIME, as it did where it was built?

    python -m fd_runtime.models.proof FOLDER RUNTIME < manifest.json

It runs in any interpreter that has NumPy and the runtime, which is how a workstation proves a bundle on a runtime that
cannot live beside its own packages. The manifest comes by standard input: a bundle is proven before it is signed, and
this is no matter of what its `verified_on` says.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

from fd_protocol.errors import FedistillError
from fd_protocol.manifest import Manifest, Role
from fd_runtime.artifacts import Bundle, Runtime
from fd_runtime.models import golden
from fd_runtime.models.golden import Golden


def check_on(bundle: Bundle, runtime: Runtime) -> None:
    """Check the golden vectors of `bundle` on a runtime of this process, whether or not the manifest lists it.

    Raises:
        GoldenMismatchError: it answers or learns otherwise.
        ModelError: the runtime refuses a graph, or is not installed.
        MissingArtifactError, DigestError: as `Bundle.read`.
    """
    tried = Bundle(bundle.folder, replace(bundle.manifest, verified_on=(runtime,)))
    golden.check(tried.open(runtime), Golden.from_bytes(bundle.read(Role.GOLDEN), bundle.manifest.task))


def main(folder: str, runtime: str) -> int:
    try:
        manifest = Manifest.from_json(sys.stdin.buffer.read())
        check_on(Bundle(Path(folder), manifest), cast("Runtime", runtime))
    except FedistillError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a program of one line
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
