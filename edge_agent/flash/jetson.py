"""Jetson: what a device gets, put into `Linux_for_Tegra/rootfs` before NVIDIA's own tools flash that.

    Linux_for_Tegra/rootfs/
      opt/fedistill-flash/fedistill/     the payload, as on a card: first-boot.sh checks it and installs it
      etc/systemd/system/                the service that runs it at each boot until it is in
      etc/hostname, hosts, NetworkManager
      opt/fedistill/onnxruntime-gpu/     an onnxruntime with CUDA and TensorRT, where its wheel is given; for it
      etc/default/edge-agent             puts its modules first, and
      etc/systemd/system/edge-agent.service.d/gpu.conf   lets the service have the GPU

The package is installed by the device: its architecture is not that of the machine that flashes, and nothing of the
device is run here. The folder is root's, as NVIDIA's tools make it, so this alone of all that `flash` does needs root.

What is deliberately absent: accounts and keys (NVIDIA's l4t_create_default_user.sh makes them), CUDA and TensorRT
themselves (apt install nvidia-jetpack, on the device or in the rootfs), the flashing.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_agent.flash.boards import Board, BoardName, Mechanism
from edge_agent.flash.contents import Content, digest_of, size_of
from edge_agent.flash.errors import NoRoomError, NotForImageError, NotRecognisedError, NotVerifiedError, OrderError
from edge_agent.flash.looking import python_of
from edge_agent.flash.mechanisms.firstrun import connection
from edge_agent.flash.mechanisms.stock import MARK
from edge_agent.flash.payload import FOLDER, SERVICE, payload
from edge_agent.flash.seed import Seed

PAYLOAD = f"opt/fedistill-flash/{FOLDER}"
GPU = "opt/fedistill/onnxruntime-gpu"
_UNIT = "etc/systemd/system/fedistill-first-boot.service"
_WANTS = "etc/systemd/system/multi-user.target.wants/fedistill-first-boot.service"
_DEFAULT = "etc/default/edge-agent"
_GPU_CONF = "etc/systemd/system/edge-agent.service.d/gpu.conf"
_WIFI = "etc/NetworkManager/system-connections/preconfigured.nmconnection"
_REGDOM = "etc/modprobe.d/fedistill-wifi.conf"
_OPTIONAL = (_DEFAULT, _GPU_CONF, _WIFI, _REGDOM)
_RELEASE = re.compile(r"# R(\d+) ")
_BOARDS = {36: BoardName.JETSON_JP6, 38: BoardName.JETSON_JP7, 39: BoardName.JETSON_JP7}
_PYTHONS = {BoardName.JETSON_JP6: "3.10", BoardName.JETSON_JP7: "3.12"}
_WHEEL = re.compile(r"onnxruntime_gpu-[^-]+-cp3(?P<minor>\d+)-cp3\d+-(?P<platforms>[a-z0-9_.]+)\.whl")
_DEFAULTS = """\
# Written by `edge-agent flash`. The package asks nobody about it: it stays as it is.
PYTHONPATH=/{gpu}
"""
_DROP_IN = """\
# Written by `edge-agent flash`: the service may have the GPU, and the memory that CUDA asks for.
[Service]
PrivateDevices=no
PrivateUsers=no
SupplementaryGroups=video render
MemoryHigh=2G
MemoryMax=3G
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file of the root file system: root's, with these rights."""

    content: Content
    mode: int = 0o644


def is_tegra(folder: Path) -> bool:
    """Return whether a folder is NVIDIA's Linux_for_Tegra."""
    return (folder / "rootfs").is_dir() and (folder / "flash.sh").is_file()


def look_at_tegra(folder: Path, said: BoardName | None = None) -> Board:
    """Return what Linux_for_Tegra is there.

    Raises:
        NotRecognisedError: its rootfs is not laid out yet, of another JetPack than ours, or not what was said.
    """
    root = folder / "rootfs"
    release = root / "etc/nv_tegra_release"
    if not release.is_file():
        raise NotRecognisedError(f"{root}: no etc/nv_tegra_release: unpack the sample rootfs, then ./apply_binaries.sh")
    match = _RELEASE.search(release.read_text(encoding="utf-8", errors="replace"))
    name = _BOARDS.get(int(match[1])) if match else None
    if name is None:
        raise NotRecognisedError(
            f"{root}: Jetson Linux {match[0].strip('# ') if match else '?'}; ours is JetPack 6 or 7"
        )
    if said not in (None, name):
        raise NotRecognisedError(f"this is {name.value}, not {said.value if said else ''}")
    if not (root / "usr/lib/aarch64-linux-gnu").is_dir():
        raise NotRecognisedError(f"{root}: no root file system for arm64")
    python = python_of(path.name for path in (root / "usr/bin").glob("python3.*"))
    if python != _PYTHONS[name]:
        raise NotRecognisedError(f"{root}: {name.value} has Python {_PYTHONS[name]}, this {python or 'none'}")
    system = f"Jetson Linux R{match[1]}" if match else ""
    return Board(name, Mechanism.ROOTFS, system, f"/{PAYLOAD.removesuffix(f'/{FOLDER}')}", "", False, python, "arm64")


def files_of(seed: Seed, board: Board, hosts: str, onnxruntime: Path | None) -> dict[str, File]:
    """Return every file that the root file system gets, by its name from there.

    Args:
        seed: the device.
        board: what the root file system is.
        hosts: its /etc/hosts as it is.
        onnxruntime: a wheel with CUDA and TensorRT; None = the package's own, on the processor.

    Raises:
        OrderError: an account was asked for.
        NotForImageError: the wheel is for another Python or processor.
    """
    if seed.login.keys:
        raise OrderError("--ssh-key: on a Jetson tools/l4t_create_default_user.sh makes accounts")
    inside = payload(seed)
    service = inside[SERVICE]
    assert isinstance(service, bytes)
    made = {f"{PAYLOAD}/{name}": File(content, 0o600) for name, content in inside.items()}
    made[_UNIT] = File(service.replace(b"@here@", f"/{PAYLOAD}".encode()))
    made["etc/hostname"] = File(f"{seed.host}\n".encode())
    made["etc/hosts"] = File(_hosts(hosts, seed.host).encode())
    if seed.wifi is not None:
        made[_WIFI] = File(connection(seed.wifi).encode(), 0o600)
        regdom = f"# {MARK}.\noptions cfg80211 ieee80211_regdom={seed.wifi.country}\n"
        made[_REGDOM] = File(regdom.encode())
    if onnxruntime is not None:
        made |= _gpu(onnxruntime, board)
    return made


def put(root: Path, files: dict[str, File]) -> int:
    """Write files into a root file system, read them again, and return how many bytes they have.

    Raises:
        PermissionError: this is not root, and the folder is.
        NoRoomError: they do not fit.
        NotVerifiedError: one reads otherwise than it was written.
    """
    if not os.access(root / "etc", os.W_OK):
        raise PermissionError(13, "is root's: sudo edge-agent flash ...", str(root))
    needed = sum(size_of(file.content) for file in files.values())
    free = shutil.disk_usage(root).free
    if needed > free:
        raise NoRoomError(str(root), needed, free)
    for folder in (PAYLOAD, GPU):
        if (root / folder).is_dir():
            shutil.rmtree(root / folder)
    for name in _OPTIONAL:
        path = _inside(root, name)
        if name not in files and path.is_file() and MARK in path.read_text(encoding="utf-8", errors="replace"):
            path.unlink()  # of a device before
    for name, file in files.items():
        _write(root, name, file)
    (root / PAYLOAD).chmod(0o700)
    wants = _inside(root, _WANTS)
    wants.parent.mkdir(parents=True, exist_ok=True)
    wants.unlink(missing_ok=True)
    wants.symlink_to("../fedistill-first-boot.service")
    os.sync()
    for name, file in files.items():
        if digest_of(root / name) != digest_of(file.content):
            raise NotVerifiedError(f"{root / name}: reads otherwise than it was written")
    return needed


def _write(root: Path, name: str, file: File) -> None:
    path = _inside(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, file.mode)
    with os.fdopen(descriptor, "wb") as out:
        if isinstance(file.content, bytes):
            out.write(file.content)
        else:
            with file.content.open("rb") as source:
                shutil.copyfileobj(source, out)
        os.fchmod(out.fileno(), file.mode)


def _inside(root: Path, name: str) -> Path:
    """Return where a file lies. A link on the way, such as /etc -> /private, would lead out of the folder.

    Raises:
        NotRecognisedError: there is one that leads elsewhere.
    """
    path = root / name
    if not path.parent.resolve().is_relative_to(root.resolve()):
        raise NotRecognisedError(f"{path.parent}: a link that leads out of {root}")
    return path


def _hosts(text: str, host: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("127.0.1.1")]
    return "\n".join([*(lines or ["127.0.0.1\tlocalhost"]), f"127.0.1.1\t{host}", ""])


def _gpu(wheel: Path, board: Board) -> dict[str, File]:
    match = _WHEEL.fullmatch(wheel.name)
    if match is None:
        raise NotForImageError(f"{wheel.name}: no wheel of onnxruntime-gpu")
    if f"3.{match['minor']}" != board.python or "aarch64" not in match["platforms"]:
        raise NotForImageError(f"{wheel.name}: is not for Python {board.python} on aarch64")
    made = {
        _DEFAULT: File(_DEFAULTS.format(gpu=GPU).encode()),
        _GPU_CONF: File(_DROP_IN.encode()),
    }
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("/"):
                    continue
                if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                    raise NotForImageError(f"{wheel.name}: holds {name}, outside of itself")
                made[f"{GPU}/{name}"] = File(archive.read(name))
    except zipfile.BadZipFile as error:
        raise NotForImageError(f"{wheel.name}: damaged: {error}") from error
    if f"{GPU}/onnxruntime/__init__.py" not in made:
        raise NotForImageError(f"{wheel.name}: holds no onnxruntime")
    return made
