"""What dpkg is told of a package: control, conffiles, sums, and scripts for its installation and removal."""

from __future__ import annotations

import hashlib
import textwrap
from pathlib import Path

from deploy.deb.catalogue import HERE, Target

MAINTAINER = "The fedistill authors <authors@fedistill.invalid>"
SCRIPTS = ("postinst", "prerm", "postrm")


def depends(target: Target, glibc: int) -> str:
    """Return what must be installed: the Python that the wheels are for, and what they link against.

    glibc: N of the oldest glibc 2.N that the wheels run on.
    """
    return ", ".join(
        (
            f"python3 (>= {target.python.name}), python3 (<< {target.python.next})",
            f"libc6 (>= 2.{glibc}), libgcc-s1, libstdc++6, zlib1g",
            "adduser, init-system-helpers (>= 1.54)",
        )
    )


def write(target: Target, root: Path, *, version: str, glibc: int) -> None:
    """Write DEBIAN/ for the tree below `root`."""
    folder = root / "DEBIAN"
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    folder.mkdir()
    names = [path.relative_to(root).as_posix() for path in files]
    sums = [
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {name}"
        for path, name in zip(files, names, strict=True)
    ]
    kilobytes = sum(-(-path.stat().st_size // 1024) for path in files)
    conffiles = [f"/{name}" for name in names if name.startswith("etc/")]
    (folder / "control").write_text(_control(target, version, glibc, kilobytes), encoding="utf-8")
    (folder / "conffiles").write_text("\n".join([*conffiles, ""]), encoding="utf-8")
    (folder / "md5sums").write_text("\n".join([*sums, ""]), encoding="utf-8")
    for name in SCRIPTS:
        (folder / name).write_text(script(target, name), encoding="utf-8")


def script(target: Target, name: str) -> str:
    """Return a maintainer script of a target."""
    package = target.package
    values = {
        "package": package.name,
        "user": package.user,
        "python": target.python.name,
        "home": target.home,
        "unit": package.units[0],
        "units": " ".join(package.units),
    }
    text = (HERE / "scripts" / name).read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _control(target: Target, version: str, glibc: int, kilobytes: int) -> str:
    package = target.package
    description = textwrap.fill(package.description, 78, initial_indent=" ", subsequent_indent=" ")
    fields = {
        "Package": package.name,
        "Version": version,
        "Architecture": target.architecture,
        "Maintainer": MAINTAINER,
        "Installed-Size": str(kilobytes),
        "Depends": depends(target, glibc),
        "Recommends": "ca-certificates",
        "Suggests": ", ".join(package.suggests),
        "Section": "science",
        "Priority": "optional",
        "Description": f"{package.summary}\n{description}\n .\n"
        f" For {target.python.system}, Python {target.python.name}.",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())
