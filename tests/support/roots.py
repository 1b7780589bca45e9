"""Root file systems of the systems that packages are for: made once by mmdebstrap, unpacked anew for each test.

FEDISTILL_ROOTS names the folder that keeps them, as SUITE-ARCH.tar or, with what it takes to boot, SUITE-ARCH-boot.tar;
without it, root and the tools, tests skip. Beside each stands a .json with its date, SHA-256 and what was asked for: a
damaged one is refused, and one for which something else was asked is made anew. `rm` makes all of it fresh.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import pytest

KEPT = os.environ.get("FEDISTILL_ROOTS")
INCLUDED = "python3,adduser,ca-certificates,libstdc++6,init-system-helpers,zlib1g"
"""What the packages ask for: dpkg, which fetches nothing, finds it there."""
TO_BOOT = (
    "linux-image-cloud-arm64,systemd-sysv,udev,dbus,cloud-init,netplan.io,systemd-resolved,systemd-timesyncd,iproute2,"
    "netbase,openssh-server,sudo"
)
"""What Debian's own image for clouds has beside that, as far as a first boot needs it."""


def lacking() -> str:
    """Why there can be no root file system here; empty where there can."""
    if not KEPT:
        return "minutes and 200 MB for each system: name a folder for them in FEDISTILL_ROOTS"
    if os.geteuid() != 0:
        return "chroot needs root"
    missing = [tool for tool in ("mmdebstrap", "dpkg-deb", "unshare", "chroot") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


def lacking_arm64() -> str:
    """Why there can be no root file system of arm64 here: the kernel must know what runs its programs."""
    if Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        return lacking()
    return lacking() or "arm64 programs do not run here: apt install qemu-user-static binfmt-support arch-test"


needs_arm64_roots = pytest.mark.skipif(bool(lacking_arm64()), reason=lacking_arm64())
needs_roots = pytest.mark.skipif(bool(lacking()), reason=lacking())


PATIENCE_S = 3600.0
"""With a command: on an emulated processor of a busy machine dpkg takes long."""


class Root:
    """A system below a folder. Commands run in it with /proc of their own and the network of this machine."""

    def __init__(self, suite: str, folder: Path, architecture: str = "amd64", *, boots: bool = False):
        self.suite, self.folder = suite, folder
        folder.mkdir()
        subprocess.run(["tar", "-xf", tarball(suite, architecture, boots=boots), "-C", folder], check=True)

    def path(self, name: str) -> Path:
        """Where a file of the system lies here; a link is not followed."""
        return self.folder / name.lstrip("/")

    def command(self, *words: str, user: str = "") -> list[str]:
        """What runs `words` in the system. All that they started ends with them (a process space of its own)."""
        enter = f'mount -t proc proc "{self.folder}/proc" && exec chroot "{self.folder}" "$@"'
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "sh", *become, *words]

    def run(self, *words: str, user: str = "", code: int = 0, patience_s: float = PATIENCE_S) -> str:
        """Run to the end, expect an exit code, return output and complaints."""
        command = self.command(*words, user=user)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=patience_s)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def start(self, *words: str, user: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a program in the system; `stop` ends it."""
        with log.open("ab") as file:
            return subprocess.Popen(self.command(*words, user=user), stderr=file, env=ENVIRONMENT)

    @staticmethod
    def stop(process: subprocess.Popen[bytes], deadline_s: float = 30.0, how: signal.Signals = signal.SIGTERM) -> None:
        """End a started program. `unshare` hands no signal on, so it goes to its child, and SIGKILL to all below it."""
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        for pid in children.split():
            os.kill(int(pid), how)
        try:
            process.wait(deadline_s)
        finally:
            process.kill()  # takes the child along (--kill-child)

    def install(self, deb: Path, code: int = 0) -> str:
        """Do what `dpkg -i` does."""
        shutil.copy(deb, self.folder / "root")
        # A root file system that is thrown away needs no fsync a file.
        return self.run("dpkg", "--force-unsafe-io", "-i", f"/root/{deb.name}", code=code)

    def status(self, package: str) -> str:
        """What dpkg says of a package, such as `install ok installed`."""
        return self.run("dpkg-query", "-W", "-f", "${Status}", package)

    def version(self, package: str) -> str:
        return self.run("dpkg-query", "-W", "-f", "${Version}", package)


# qemu-user 7.2 emulates a processor with all there is by default; with its SVE the products of the OpenBLAS in NumPy
# 2.5 are garbage. A Raspberry Pi 4's has none.
ENVIRONMENT = {
    "QEMU_CPU": "cortex-a72",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C.UTF-8",
}


@functools.cache
def tarball(suite: str, architecture: str, *, boots: bool = False) -> Path:
    """Return the archive of a root file system; minutes where it is not there yet.

    boots: with kernel, systemd, cloud-init and OpenSSH.
    """
    assert KEPT
    kept = Path(KEPT)
    kept.mkdir(parents=True, exist_ok=True)
    tar = kept / f"{suite}-{architecture}{'-boot' if boots else ''}.tar"
    included = f"{INCLUDED},{TO_BOOT}" if boots else INCLUDED
    if not _is_whole(tar, included):
        _make(tar, suite, architecture, included)
    return tar


def _is_whole(tar: Path, included: str) -> bool:
    """Return whether it is there as it was made. One of before there were stamps gets its stamp now."""
    stamp = tar.with_suffix(".json")
    if not tar.exists():
        return False
    if not stamp.exists():
        _write_stamp(tar, included)
    said = json.loads(stamp.read_text())
    if said["included"] != included:
        return False
    assert said["sha256"] == _sha256(tar), f"{tar} is not what was made on {said['made']}: remove it"
    return True


def _make(tar: Path, suite: str, architecture: str, included: str) -> None:
    part = tar.with_suffix(".part.tar")
    options = [f"--architectures={architecture}", "--variant=minbase", f"--include={included}"]
    subprocess.run(["mmdebstrap", "--quiet", *options, suite, str(part)], check=True)
    tar.with_suffix(".json").unlink(missing_ok=True)
    part.rename(tar)
    _write_stamp(tar, included)


def _write_stamp(tar: Path, included: str) -> None:
    made = datetime.fromtimestamp(tar.stat().st_mtime, timezone.utc)
    said = {"made": f"{made:%Y-%m-%d}", "included": included, "sha256": _sha256(tar)}
    tar.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
