"""What is made: two packages, for four Pythons, for two processors.

A `Target` is one .deb. Everything here is a value; nothing reads a disk.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MAX_BYTES = 45_000_000
"""Of one .deb: what a device may have to fetch over a thin link."""


@dataclass(frozen=True, slots=True)
class Python:
    """A Python and the oldest system that comes with it.

    glibc: the newest manylinux_2_N whose wheels run there.
    numpy: first number of that system's NumPy; what its other packages are built against.
    """

    minor: int
    system: str
    glibc: int
    numpy: int

    @property
    def name(self) -> str:
        return f"3.{self.minor}"

    @property
    def next(self) -> str:
        return f"3.{self.minor + 1}"


PYTHONS = {
    python.name: python
    for python in (
        Python(10, "JetPack 6, Ubuntu 22.04", 35, 1),
        Python(11, "Raspberry Pi OS and Debian 12 (Bookworm)", 36, 1),
        Python(12, "JetPack 7, Ubuntu 24.04", 39, 1),
        Python(13, "Raspberry Pi OS and Debian 13 (Trixie)", 40, 2),  # 2.41 there; uv knows 2.40 as the newest
    )
}
MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}
"""Debian's name of a processor to that of the kernel and of wheels."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package: what goes into it, and what Debian is told of it.

    name:     Debian's.
    program:  the command; also the name of its file in /etc/default.
    module:   of whose `cli` the command is.
    extras:   of pyproject.toml.
    modules:  of this project that it holds; the others are left out.
    units:    systemd's; the first is enabled and started.
    user:     whom it runs as; also the name of its folders in /etc and /var/lib.
    suggests: Debian packages that it can use; modules of Debian's Python are within its reach.
    constraints: by the system's NumPy, what its wheels must be beside pyproject.toml.
    has_broker: it stands beside Mosquitto: the broker's guard, and units for the broker, go along.
    """

    name: str
    program: str
    module: str
    extras: tuple[str, ...]
    modules: tuple[str, ...]
    units: tuple[str, ...]
    user: str
    suggests: tuple[str, ...]
    summary: str
    description: str
    constraints: dict[int, str] = field(default_factory=dict)
    has_broker: bool = False


AGENT = Package(
    name="fedistill-agent",
    program="edge-agent",
    module="edge_agent",
    extras=("agent", "agent-images", "agent-encrypted", "socks"),
    modules=("fd_protocol", "fd_runtime", "edge_agent"),
    units=("edge-agent.service",),
    user="fedistill",
    suggests=("python3-picamera2", "python3-opencv"),
    summary="federated distillation: a device",
    description=(
        "Predicts with a quantized model, fine-tunes its tail on rows that never leave the device, and takes part in"
        " the rounds of a federation over MQTT. Holds onnxruntime and all else that it needs but for Python."
    ),
    # Cameras: OpenCV and picamera2 come from the system. Built against NumPy 1 they do not load beside NumPy 2.
    constraints={1: "numpy<2"},
)
SERVER = Package(
    name="fedistill-server",
    program="broker-server",
    module="broker_server",
    extras=("server", "dashboard", "socks"),
    modules=("fd_protocol", "fd_runtime", "broker_server"),
    units=("broker-server.service", "fedistill-dashboard.service"),
    user="fedistill-server",
    suggests=("mosquitto",),
    summary="federated distillation: the server",
    description=(
        "Runs the rounds of a federation beside an MQTT broker: consensus, student, certificates, dashboard. Holds all"
        " that it needs but for Python and the broker, and a guard for that."
    ),
    has_broker=True,
)
PACKAGES = {package.name: package for package in (AGENT, SERVER)}


@dataclass(frozen=True, slots=True)
class Target:
    """One .deb: a package for a Python on a processor."""

    package: Package
    python: Python
    architecture: str

    @property
    def machine(self) -> str:
        return MACHINES[self.architecture]

    @property
    def constraint(self) -> str:
        """Return what its wheels must be beside pyproject.toml; empty where nothing."""
        return self.package.constraints.get(self.python.numpy, "")

    @property
    def lock(self) -> Path:
        """Return the file that names its wheels."""
        return HERE / "locks" / f"{self.package.name}-py{self.python.name}-{self.architecture}.txt"

    @property
    def home(self) -> str:
        """Return the folder of its code on the device, an environment of its own, from the root."""
        return f"usr/lib/{self.package.name}"

    @property
    def site(self) -> str:
        """Return the folder of its modules, from the root."""
        return f"{self.home}/lib/python{self.python.name}/site-packages"


def targets(packages: list[str], pythons: list[str], architectures: list[str]) -> list[Target]:
    """Return every combination, in the order given."""
    return [
        Target(PACKAGES[package], PYTHONS[python], architecture)
        for package, python, architecture in itertools.product(packages, pythons, architectures)
    ]
