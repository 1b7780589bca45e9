"""The broker's guard as a package holds it: one C file (`deploy/mosquitto/guard`), compiled for a target's processor.

It is loaded by Debian's Mosquitto, not by us: what it is linked with is libc alone, and the broker's functions it finds
in the broker. Mosquitto's headers are the same for every processor, so those of this machine do.

The same compiler makes the same bytes, wherever the files lie.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from deploy.deb.catalogue import MACHINES, ROOT

SOURCE = ROOT / "deploy" / "mosquitto" / "guard" / "guard.c"
NAME = "fedistill_guard.so"
HEADERS = ("mosquitto.h", "mosquitto_broker.h", "mosquitto_plugin.h")
INCLUDE = Path("/usr/include")
_HARDENED = ("-O2", "-fPIC", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,relro,-z,now,-z,noexecstack")
_REPRODUCIBLE = ("-s", "-Wl,--build-id=none", "-ffile-prefix-map=/=", "-gno-record-gcc-switches")


class NoCompilerError(Exception):
    """What compiles the guard is not all here."""


def compiler(architecture: str) -> str:
    """Return the name of the compiler for a processor, by Debian's name of it."""
    return f"{MACHINES[architecture]}-linux-gnu-gcc"


def missing(architecture: str) -> list[str]:
    """Return the Debian packages that must be installed before a guard can be compiled."""
    found = [] if shutil.which(compiler(architecture)) else [_package(architecture)]
    if not all((INCLUDE / name).is_file() for name in HEADERS):
        found += ["mosquitto-dev", "libmosquitto-dev"]
    return found


def _package(architecture: str) -> str:
    """Return Debian's package of the compiler for a processor."""
    return f"gcc-{MACHINES[architecture].replace('_', '-')}-linux-gnu"


def check(architecture: str) -> None:
    """Raise before any work is done.

    Raises:
        NoCompilerError: says what to install.
    """
    if lacking := missing(architecture):
        raise NoCompilerError(f"the broker's guard for {architecture} needs: apt install {' '.join(lacking)}")


def compile_guard(architecture: str, out: Path) -> Path:
    """Compile the guard for a processor into the folder `out`, and return it.

    Raises:
        NoCompilerError: says what to install.
        subprocess.CalledProcessError: the compiler failed, and said why.
    """
    check(architecture)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for header in HEADERS:  # and nothing else of this machine's, which may be another's than the target's
            shutil.copyfile(INCLUDE / header, work / header)
        shutil.copyfile(SOURCE, work / SOURCE.name)
        command = [compiler(architecture), "-shared", "-Wall", "-Wextra", "-Werror", *_HARDENED, *_REPRODUCIBLE]
        subprocess.run([*command, "-I.", "-o", NAME, SOURCE.name], cwd=work, check=True)
        return Path(shutil.move(work / NAME, out / NAME))
