"""TensorRT as onnxruntime shows it, where there is none: it is offered, compiles into a cache, and runs on a processor.

    python -m tests.support.fake_tensorrt MARK agent.toml OFFERED      a bundle's trial on such a machine

Only what onnxruntime is asked is faked: the list of providers, and the session. What a compilation leaves in the folder
it is given, and whether a later session finds it there, is as onnxruntime does it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnxruntime

from fd_runtime.models import onnx_model
from fd_runtime.models.engines import Hardware
from fd_runtime.models.providers import NAMES

ENGINE = b"an engine"


class FakeTensorRt:
    """A machine with one GPU.

    Attributes:
        compiled: how often an engine was compiled.
        breaks: power is lost in the middle of the next compilation.
    """

    class PowerCutError(BaseException):
        """Nothing catches it."""

    def __init__(self, hardware, mark=None):
        self.hardware, self.mark = hardware, mark
        self.compiled, self.breaks = 0, False

    def becomes(self, hardware):
        """Upgrade it, or let it hold its tongue."""
        self.hardware = hardware

    def installed(self, patch):
        patch.setattr(onnx_model, "get_available_providers", lambda: [NAMES["tensorrt"], NAMES["cpu"]])
        patch.setattr(onnx_model, "InferenceSession", self._session)
        patch.setattr(onnx_model, "hardware", lambda device: self.hardware)
        return self

    def _session(self, model, options, *, providers, disabled_optimizers):
        name, given = providers[0]
        own = [(NAMES["cpu"], {})] if name == NAMES["tensorrt"] else providers
        session = onnxruntime.InferenceSession(model, options, providers=own, disabled_optimizers=disabled_optimizers)
        if name == NAMES["tensorrt"] and self._load(given):
            session.get_providers = lambda: [NAMES["tensorrt"], NAMES["cpu"]]
        return session

    def _load(self, given):
        """Read the engine, or compile it; return whether there is one then."""
        folder = Path(given["trt_engine_cache_path"]) if given.get("trt_engine_cache_enable") == "1" else None
        if folder is not None and (folder / "whole.engine").exists():
            return (folder / "whole.engine").read_bytes() == ENGINE
        self.compiled += 1
        if self.mark is not None:
            with self.mark.open("a") as file:
                file.write("compiled\n")
        if folder is not None:
            (folder / "half.engine").write_bytes(ENGINE[:3])
            if self.breaks:
                raise self.PowerCutError
            (folder / "half.engine").write_bytes(ENGINE)
            (folder / "half.engine").rename(folder / "whole.engine")
        return True


class _Process:
    """A process of its own needs nothing put back."""

    @staticmethod
    def setattr(target, name, value):
        setattr(target, name, value)


if __name__ == "__main__":
    from edge_agent.slots import trial

    FakeTensorRt(Hardware("100300", "Orin 8.7 driver 12060"), Path(sys.argv[1])).installed(_Process)
    sys.exit(trial.main(sys.argv[2:]))
