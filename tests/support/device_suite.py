"""The agent's own tests, on a device: what is tested is the installed package, what tests it lies beside it.

    /suite/tests, model_export, broker_server     from the tree that this runs in
    /suite/tools                                  pytest, Hypothesis, ONNX ... as wheels for the device's Python

fd_protocol, fd_runtime, edge_agent, NumPy, onnxruntime and the rest are the package's: the folder has none of them, and
`prove.py` refuses to begin where one comes from elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from deploy.deb import wheels
from deploy.deb.catalogue import ROOT, Target
from tests.support.roots import Root

FOLDER = "/suite"
TOOLS = (
    *("pytest", "pluggy", "iniconfig", "pygments", "hypothesis", "sortedcontainers", "pyyaml", "cbor2"),
    *("onnx", "ml_dtypes", "ai-edge-litert", "typing_extensions", "rich", "markdown-it-py", "mdurl"),
)
OLDER = {1: {"ml_dtypes": "0.5.4"}}
"""By the package's NumPy, tools whose newest version asks for another."""

# What could come out otherwise on another processor, or for want of something in the package. The rest of the suite is
# arithmetic on Python's integers, or starts servers that a device does not have.
TESTS = (
    *("fd_protocol/test_golden.py", "fd_protocol/test_quantisers.py", "fd_protocol/test_payload.py"),
    *("fd_protocol/test_soft_labels.py", "fd_protocol/test_bodies.py", "fd_protocol/test_layout.py"),
    *("fd_protocol/test_competence.py", "fd_protocol/test_codec.py", "fd_protocol/test_identity.py"),
    *("fd_runtime/models/test_golden.py", "fd_runtime/models/test_numpy_model.py"),
    *("fd_runtime/models/test_onnx_model.py", "fd_runtime/models/test_reference.py"),
    *("fd_runtime/storage/test_store.py", "fd_runtime/tuf/test_tuf.py", "fd_runtime/test_files.py"),
    *("fd_runtime/test_artifacts.py", "fd_runtime/test_npy.py", "fd_runtime/test_version.py"),
    *("edge_agent/round/test_participant.py", "edge_agent/test_worker_core.py", "edge_agent/test_worker.py"),
    *("edge_agent/test_predictor.py", "edge_agent/test_calibration.py"),
    *("edge_agent/process/test_sd_notify.py", "edge_agent/process/test_heart.py"),
    *("edge_agent/process/test_herald.py", "edge_agent/process/test_postmortem.py"),
    *("edge_agent/privacy/test_accountant.py", "edge_agent/enrolment/test_renewal.py"),
    *("edge_agent/private/test_sealing.py", "edge_agent/slots/test_machine.py", "edge_agent/slots/test_verify.py"),
)

_PROVE = """\
import sys
import edge_agent, fd_protocol, fd_runtime, numpy, onnxruntime, paho.mqtt, pytest
for module in (edge_agent, fd_protocol, fd_runtime, numpy, onnxruntime, paho.mqtt):
    assert module.__file__.startswith("/usr/lib/fedistill-agent/"), module.__file__
assert pytest.__file__.startswith("/suite/"), pytest.__file__
sys.exit(pytest.main(sys.argv[1:]))
"""


def stage(target: Target, folder: Path) -> Path:
    """Make the folder `/suite` for devices of `target`; once for all of its root file systems."""
    numpy = target.python.numpy
    pins = [f"{name}=={OLDER.get(numpy, {}).get(name) or version(name)}" for name in TOOLS]
    options = wheels.tags(target)
    with tempfile.TemporaryDirectory(prefix="suite-") as work:
        fetched = wheels.download_pins(pins, options, Path(work))
        wheels.install(sorted(fetched.values()), options, folder / "tools")
    for name in ("tests", "model_export", "broker_server"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "prove.py").write_text(_PROVE)
    return folder


def put(suite: Path, root: Root) -> None:
    """Give a system the folder."""
    subprocess.run(["cp", "-a", suite, root.path(FOLDER)], check=True)


def command(*tests: str) -> tuple[str, ...]:
    """Return what runs tests, by their names below `tests`, with the package's Python."""
    return (
        *(
            "env",
            "-C",
            FOLDER,
            f"PYTHONPATH={FOLDER}:{FOLDER}/tools",
            "FEDISTILL_EXAMPLES=10",
            "PYTHONDONTWRITEBYTECODE=1",
        ),
        *("/usr/lib/fedistill-agent/bin/python", "prove.py", "-p", "no:cacheprovider", "-rs", "--durations=8"),
        *(f"tests/{name}" for name in tests),
    )
