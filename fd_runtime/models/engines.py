"""Engines that TensorRT has compiled, on disk: one folder each, named by all that an engine depends on.

    FOLDER/{model}-{key}/          what onnxruntime and TensorRT write into it
    FOLDER/{model}-{key}/key.json  written last: without it the engine is not whole, and goes
    FOLDER/{model}-{key}.lock      held while one is compiled

`model` is the beginning of the graph's SHA-256, `key` that of the whole `EngineKey`: graph, TensorRT, GPU and its
driver, onnxruntime, and the options of the compilation. TensorRT loads an engine of another version or GPU with an
error at best; onnxruntime names its files by the graph alone and leaves the rest to whoever owns the folder.

What is deliberately absent: compiling (onnxruntime does, when a session is opened), and any check of an engine's
answers (`placing`).
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fd_protocol.documents import to_json
from fd_protocol.identity import sha256
from fd_runtime.files import write_atomically
from fd_runtime.starting import exclusive

MODEL_CHARACTERS = 32
_KEY_CHARACTERS = 16
_WHOLE = "key.json"
_TENSORRT = ("libnvinfer.so.10", "libnvinfer.so.8", "libnvinfer.so")
_CUDA = ("libcuda.so.1", "libcuda.so")
_MAJOR, _MINOR = 75, 76
"""Attributes of a device in CUDA's driver interface: its compute capability."""
_NAME_BYTES = 256

log = logging.getLogger("fedistill.engines")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What an engine is compiled by and for.

    Attributes:
        tensorrt: version, as its library gives it.
        gpu: name, compute capability, and version of the driver.
    """

    tensorrt: str
    gpu: str


@dataclass(frozen=True, slots=True)
class EngineKey:
    """All that an engine depends on.

    Attributes:
        model: SHA-256 of the graph, in hex.
        hardware: see there.
        onnxruntime: version; it decides which nodes go into the engine.
        options: of the compilation, without paths.
    """

    model: str
    hardware: Hardware
    onnxruntime: str
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the name of the engine's folder."""
        return f"{self.model[:MODEL_CHARACTERS]}-{sha256(to_json(self)).hex()[:_KEY_CHARACTERS]}"


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine's place below `root`."""

    root: Path
    key: EngineKey

    @property
    def folder(self) -> Path:
        return self.root / self.key.name

    @property
    def is_compiled(self) -> bool:
        """Whether it is here, whole."""
        return (self.folder / _WHOLE).is_file()

    @contextmanager
    def prepared(self) -> Iterator[Path]:
        """Yield the folder that a session is to be opened with; what an earlier, broken try has left is gone.

        Who compiles is alone with it; others wait, and find it compiled.

        Raises:
            OSError: the folder cannot be written.
        """
        if self.is_compiled:
            yield self.folder
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with exclusive(self.root / f"{self.key.name}.lock", wait=True):
            if not self.is_compiled:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir()
            yield self.folder

    def keep(self) -> None:
        """Note that the engine is whole; those of this graph for another GPU, TensorRT or option go.

        Raises:
            OSError: it cannot be written.
        """
        if self.is_compiled:
            return
        write_atomically(self.folder / _WHOLE, to_json(self.key))
        for other in self.root.glob(f"{self.key.model[:MODEL_CHARACTERS]}-*"):
            if not other.name.startswith(self.key.name):
                _remove(other)

    def discard(self) -> None:
        """Remove it: the next session compiles anew."""
        _remove(self.folder)


def keep_only(root: Path, models: Collection[str]) -> None:
    """Remove the engines of all graphs but those with these SHA-256 (hex)."""
    kept = {model[:MODEL_CHARACTERS] for model in models}
    for path in root.glob(f"*-{'?' * _KEY_CHARACTERS}*"):
        model, _, _ = path.name.partition("-")
        if len(model) == MODEL_CHARACTERS and model not in kept:
            _remove(path)


def _remove(path: Path) -> None:
    """What cannot be removed is left for the next time."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def hardware(device: int) -> Hardware | None:
    """Return what an engine would be compiled by and for; None: one of the libraries is not here, or will not say.

    Args:
        device: number of the GPU.
    """
    tensorrt, cuda = _library(_TENSORRT), _library(_CUDA)
    if tensorrt is None or cuda is None:
        return None
    try:
        gpu = _gpu(cuda, device)
        return None if gpu is None else Hardware(str(tensorrt.getInferLibVersion()), gpu)
    except AttributeError as error:
        log.warning("engines are not kept: %s", error)
        return None


def _gpu(cuda: ctypes.CDLL, number: int) -> str | None:
    """Ask CUDA's driver; 0 is its word for success."""
    device, driver = ctypes.c_int(), ctypes.c_int()
    name, major, minor = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_int(), ctypes.c_int()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDriverGetVersion(ctypes.byref(driver))
        or cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceGetName(name, _NAME_BYTES, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device)
    )
    if failed:
        log.warning("engines are not kept: CUDA answers %d", failed)
        return None
    return f"{name.value.decode(errors='replace')} {major.value}.{minor.value} driver {driver.value}"


def _library(names: Collection[str]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
