"""Virtual environments that a comparison makes for itself: what a user would install, and how large that is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
BUILD = PROJECT / "build"
FLOWER = ("flwr", "torch==2.13.0", "onnxruntime")
"""The newest Flower of the index. On PyPI's Linux wheels torch brings CUDA: `--torch-index` names a CPU index."""
_TORCH = ("torch", "functorch", "sympy", "mpmath", "networkx", "jinja2", "fsspec", "filelock")
_ONNXRUNTIME = ("onnxruntime", "flatbuffers")
_TOOLS = ("pip", "setuptools", "_distutils_hack", "pkg_resources")


def environment(folder: Path, *packages: str, index: str | None = None) -> Path:
    """Return the folder of a virtual environment with these packages, made where there is none."""
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        for package in packages:
            options = ["--extra-index-url", index] if index else []
            subprocess.run(
                [python, "-m", "pip", "install", "--quiet", *options, package], check=True, stdout=sys.stderr
            )
        (folder / "complete").touch()
    return folder


def version(folder: Path, package: str) -> str:
    """Return the version of an installed package."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    command = [folder / "bin" / "python", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def installed_mb(folder: Path, *, torch: bool = True, onnxruntime: bool = True) -> float:
    """Return what the packages of an environment take, compiled modules too, pip and setuptools left out."""
    absent = _TOOLS + (() if torch else _TORCH) + (() if onnxruntime else _ONNXRUNTIME)
    packages = (path for path in _site(folder).iterdir() if not path.name.lower().startswith(absent))
    files = (path for package in packages for path in (package, *package.rglob("*")) if path.is_file())
    return sum(path.stat().st_size for path in files) / 1e6


def _site(folder: Path) -> Path:
    return next(folder.glob("lib/python*/site-packages"))
