"""A machine of arm64: qemu-system-aarch64, an image as its disk, and this machine's loopback as 10.0.2.2.

No KVM: each instruction is emulated. The kernel is the image's own, but handed over by qemu, as a Raspberry Pi's
firmware hands it over; there is no UEFI and no GRUB in it. What the machine writes on its console is kept with the time
since it was switched on; people come in by SSH, as `edge-agent flash --ssh-key` lets them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker_server.brokers.loopback import LOOPBACK, free_port
from tests.support import card_images, roots
from tests.support.card_images import CardImage
from tests.support.roots import Root

HOST = "10.0.2.2"
"""This machine, as the emulated one sees it (qemu's user-mode network)."""
_QEMU = "qemu-system-aarch64"
_COMMAND_LINE = (
    "root=/dev/vda2 rw rootwait console=ttyAMA0 systemd.journald.forward_to_console=1"
    " systemd.journald.max_level_console=info systemd.show_status=0"
)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def lacking() -> str:
    """Why no machine can boot here; empty where one can."""
    missing = [tool for tool in (_QEMU, "ssh", "ssh-keygen") if shutil.which(tool) is None]
    tools = f"not installed: {', '.join(missing)} (apt install qemu-system-arm openssh-client)" if missing else ""
    return roots.lacking_arm64() or card_images.lacking() or tools


needs_machine = pytest.mark.skipif(bool(lacking()), reason=lacking())


@dataclass(frozen=True)
class BootFiles:
    """What comes from an image before its disk is there."""

    kernel: Path
    initrd: Path


def generic_image(suite: str, folder: Path) -> tuple[Path, BootFiles]:
    """Make a blank image for clouds of Debian: a partition CIDATA and a root file system. Return it and its kernel."""
    root = Root(suite, folder / "root", "arm64", boots=True)
    root.path("/etc/machine-id").write_text("")  # as images have it: made at the first boot
    root.path("/etc/hostname").write_text("localhost\n")
    files = [_only(root.path("/boot"), name) for name in ("vmlinuz-*", "initrd.img-*")]
    kept = [Path(shutil.copy(file, folder)) for file in files]
    stock = {"user-data": b"#cloud-config\n", "meta-data": b"instance-id: nothing\n"}
    image = CardImage(boot=stock, label="CIDATA", boot_mib=128, root_mib=1280, table="gpt", system=root.folder)
    made = image.make(folder / f"debian-{suite}-arm64.img")
    shutil.rmtree(root.folder)
    return made, BootFiles(*kept)


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


@dataclass
class Machine:
    """One machine. `start` switches it on; `off` takes the power away.

    Attributes:
        disk: its image; what it writes stays there. What the console says lies beside it, as DISK.console.
        key: of SSH, the private half.
        user: whom SSH lets in.
        lines: of the console, with seconds since it was switched on.
    """

    disk: Path
    boot: BootFiles
    key: Path
    user: str = "pi"
    memory_mib: int = 1024
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ssh_port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._since_s = 0.0

    def start(self) -> Machine:
        network = f"user,id=n0,hostfwd=tcp:{LOOPBACK}:{self.ssh_port}-:22"
        command = [
            *(_QEMU, "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", str(self.memory_mib)),
            *("-display", "none", "-serial", "stdio", "-monitor", "none"),
            *("-kernel", self.boot.kernel, "-initrd", self.boot.initrd, "-append", _COMMAND_LINE),
            *("-drive", f"if=none,file={self.disk},format=raw,id=d0", "-device", "virtio-blk-pci,drive=d0"),
            *("-netdev", network, "-device", "virtio-net-pci,netdev=n0,romfile="),  # Debian packages no boot ROM for it
            *("-device", "virtio-rng-pci"),
        ]
        self._since_s = time.monotonic()
        self.process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        return self

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.disk.with_suffix(".console").open("a") as log:
            for raw in process.stdout:
                at, line = time.monotonic() - self._since_s, _ESCAPES.sub("", raw.decode(errors="replace")).rstrip()
                self.lines.append((at, line))
                print(f"{at:7.1f} {line}", file=log, flush=True)

    def off(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def wait_off(self, patience_s: float) -> None:
        """Wait until it has switched itself off."""
        assert self.process is not None
        self.process.wait(patience_s)

    @property
    def work_s(self) -> float:
        """Return how many seconds this machine's processors have worked for it: says more than time on a busy one."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")

    # What it says.

    def at(self, words: str) -> float | None:
        """Return when the console first said `words`, a regular expression: seconds since it was switched on."""
        return next((at for at, line in list(self.lines) if re.search(words, line)), None)

    def wait_for(self, words: str, patience_s: float) -> float:
        """Return when the console says `words`. A machine that ended says nothing any more."""

        end_s = time.monotonic() + patience_s
        while (at := self.at(words)) is None:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended: {self.tail()}"
            assert time.monotonic() < end_s, f"never said {words!r}: {self.tail()}"
            time.sleep(0.5)  # its processor is ours
        return at

    def tail(self, lines: int = 60) -> str:
        return "\n".join(f"{at:7.1f} {line}" for at, line in self.lines[-lines:])

    # What people do with it.

    def _ssh(self, program: str) -> list[str]:
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "BatchMode=yes", "LogLevel=ERROR")
        told = [word for option in (*options, "ConnectTimeout=60", "ServerAliveInterval=30") for word in ("-o", option)]
        port = "-P" if program == "scp" else "-p"
        return [program, "-i", str(self.key), port, str(self.ssh_port), *told]

    def ask(self, command: str, *, code: int = 0, patience_s: float = 300.0) -> str:
        """Return what a shell command prints there, which is run by root."""
        words = [*self._ssh("ssh"), f"{self.user}@{LOOPBACK}", f"sudo sh -c {shlex.quote(command)}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=patience_s, env=_ENVIRONMENT)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def give(self, path: Path, where: str) -> None:
        words = [*self._ssh("scp"), str(path), f"{self.user}@{LOOPBACK}:{where}"]
        subprocess.run(words, check=True, capture_output=True, env=_ENVIRONMENT)

    def properties(self, unit: str, *names: str) -> dict[str, str]:
        """Return what systemd says of a unit."""
        said = self.ask(f"systemctl show {unit} {' '.join(f'-p {name}' for name in names)}")
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


_ENVIRONMENT = {"PATH": os.environ["PATH"]}


def new_key(folder: Path) -> Path:
    """Make a key of SSH and return its private half."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)
    return path
