"""How long it takes from a stock image to a seeded, verified one: `edge-agent flash`, without root.

    python benchmarks/flash.py [--runs 3] [--package DEB]

The image has the layout, size and marks of Raspberry Pi OS Lite (tests/support/card_images.py): 512 MiB to boot from, a
root of 2.43 GB of which 0.33 GB are free, as a superblock of a real one said; what is not free is noise. Without
--package the package is 31 MB of noise under a package's name. Where this runs as root, the command does not: it gets
the user nobody, and the system's Python, which that user can read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import tomlkit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from broker_server.identity.ca import Authority  # noqa: E402
from broker_server.identity.certificates import Identity, Role  # noqa: E402
from tests.support.card_images import MIB, TRIXIE  # noqa: E402

NOBODY = 65534
BOOT_MIB, ROOT_MIB, FREE_MIB = 512, 2_430_000_000 // MIB, 330_000_000 // MIB
PACKAGE = "fedistill-agent_0.1.0-1+py3.13_arm64.deb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--package", type=Path, help="a real one, for Python 3.13 on arm64")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flash-", dir="/var/tmp") as name:
        work = Path(name)
        image, package = work / "raspios.img", work / PACKAGE
        replace(TRIXIE, boot_mib=BOOT_MIB, root_mib=ROOT_MIB, noise_mib=ROOT_MIB - FREE_MIB).make(image)
        if arguments.package is None:
            package.write_bytes(b"!<arch>\n" + os.urandom(31_000_000))
        else:
            shutil.copy(arguments.package, work)
            package = work / arguments.package.name
        now = datetime.now(timezone.utc)
        Authority.create(work / "pki", fleet="plant-7", now=now).issue(
            Identity("press-3", Role.DEVICE), work / "kit", now=now
        )
        if os.geteuid() == 0:
            for path in (work, *work.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        megabytes, gigabytes = package.stat().st_size / 1e6, image.stat().st_size / 1e9
        seconds = [run(work, image, package) for _ in range(arguments.runs)]
    print(f"{gigabytes:.2f} GB image, {megabytes:.0f} MB package")
    print(f"as uid {NOBODY if os.geteuid() == 0 else os.geteuid()}, {arguments.runs} runs, seconds: ", end="")
    print(", ".join(f"{one:.1f}" for one in seconds), f"(median {statistics.median(seconds):.1f})")


def run(work: Path, image: Path, package: Path) -> float:
    """Seed once, and return the seconds from the command to its end. The image has left the kernel's memory before."""
    out = work / "press-3.img"
    forget(image)
    words = ["flash", image, "--device", "press-3", "--federation", "plant-7", "--broker", "mqtt.plant-7.example"]
    words += ["--kit", work / "kit", "--package", package, "--out", out]
    is_root = os.geteuid() == 0
    command = ["/usr/bin/python3" if is_root else sys.executable, "-m", "edge_agent.cli", *map(str, words)]
    began = time.monotonic()
    subprocess.run(
        command,
        check=True,
        cwd=work,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{Path(tomlkit.__file__).parents[1]}", "TMPDIR": str(work)},
        user=NOBODY if is_root else None,
        group=NOBODY if is_root else None,
        extra_groups=[] if is_root else None,
    )
    seconds = time.monotonic() - began
    for path in (out, out.with_suffix(".rpi-imager-manifest")):
        path.unlink()
    return seconds


def forget(image: Path) -> None:
    descriptor = os.open(image, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    main()
