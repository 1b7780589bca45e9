"""The tree of files that a package is: an environment of its own for the device's Python, units, settings, papers.

    usr/bin/PROGRAM -> usr/lib/NAME/bin/PROGRAM   a short script, run by
    usr/lib/NAME/bin/python -> /usr/bin/python3.X  the device's own Python, which finds beside it
    usr/lib/NAME/pyvenv.cfg                        that it is in an environment (PEP 405), so children are too
    usr/lib/NAME/lib/python3.X/site-packages       our modules first, then those of Debian's Python
    usr/lib/systemd/system  etc/default  etc/USER  usr/share/doc/NAME
    usr/lib/NAME/mosquitto  usr/share/NAME/mosquitto   the server's: the broker's guard; a sandbox for the broker

Owners, modes and times are made the same here, whatever the builder's umask and clock.
"""

from __future__ import annotations

import gzip
import os
import shutil
from pathlib import Path

from deploy.deb.catalogue import HERE, PACKAGES, ROOT, Target

PRUNED = {
    "bin": "scripts that begin with the builder's Python",
    "**/tests": "how libraries test themselves",
    "**/*.pyi": "what type checkers read",
    "**/*.a": "for who compiles against NumPy",
    "**/*.h": "likewise",
    "**/*.pxd": "likewise",
    "onnxruntime/capi/libonnxruntime.so*": "for programs in C; the Python module holds all of it once more: 25 MB",
    "edge_agent/flash": "makes cards, on a workstation",
    "onnxruntime/datasets": "examples",
    "onnxruntime/quantization": "for the workstation",
    "onnxruntime/tools": "for the workstation",
    "onnxruntime/transformers": "for the workstation",
    "*.dist-info/RECORD": "names what was just left out; dpkg has the list of files and their sums",
    "*.dist-info/INSTALLER": "dpkg is",
    "*.dist-info/REQUESTED": "of pip",
    "*.dist-info/direct_url.json": "a path of the builder",
}
"""Below site-packages: pattern -> why a device has no use for it."""
_MODULES = {module for package in PACKAGES.values() for module in package.modules} | {"fleet_sim", "model_export"}

_PROGRAM = """\
#!/{home}/bin/python -s
import os
import sys

from {module}.cli import main

os.environ["PYTHONSAFEPATH"] = "1"  # children import nothing from the folder that they are started in
sys.exit(main())
"""
_ENVIRONMENT = """\
home = /usr/bin
include-system-site-packages = true
version = {python}
"""
_COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: fedistill

Files: *
Copyright: the fedistill authors
License: Apache-2.0

Files: {site}/*
Copyright: the authors of each distribution
License: see-METADATA
Comment: Libraries stand beside our modules as their authors publish them. The *.dist-info folder of each names its
 licence in METADATA and holds the text.

License: Apache-2.0
 On Debian systems the text is /usr/share/common-licenses/Apache-2.0.

License: see-METADATA
 One for each distribution, in /{site}/*.dist-info.
"""


def stage(target: Target, site: Path, root: Path, guard: Path | None = None) -> None:
    """Lay the tree of `target` out below `root`, around the modules that lie in `site`; takes `site` away.

    guard: of the broker, for a package that stands beside one.
    """
    package = target.package
    home = root / target.home
    (root / target.site).parent.mkdir(parents=True)
    prune(site, package.modules)
    shutil.move(site, root / target.site)
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(f"/usr/bin/python{target.python.name}")
    program = _PROGRAM.format(home=target.home, module=package.module)
    (home / "bin" / package.program).write_text(program, encoding="utf-8")
    (home / "pyvenv.cfg").write_text(_ENVIRONMENT.format(python=target.python.name), encoding="utf-8")
    (root / "usr/bin").mkdir()
    (root / "usr/bin" / package.program).symlink_to(f"../lib/{package.name}/bin/{package.program}")
    (root / "usr/lib/systemd/system").mkdir(parents=True)
    for unit in package.units:
        shutil.copyfile(ROOT / "deploy/systemd" / unit, root / "usr/lib/systemd/system" / unit)
    (root / "etc/default").mkdir(parents=True)
    shutil.copyfile(HERE / "defaults" / package.program, root / "etc/default" / package.program)
    (root / "etc" / package.user).mkdir()
    if guard is not None:
        _stage_broker(target, guard, root)
    papers = root / "usr/share/doc" / package.name
    papers.mkdir(parents=True)
    (papers / "copyright").write_text(_COPYRIGHT.format(site=target.site), encoding="utf-8")
    (papers / "changelog.gz").write_bytes(gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), mtime=0))


def _stage_broker(target: Target, guard: Path, root: Path) -> None:
    """What the broker loads, and what its administrator copies: nothing of it touches a broker that is there."""
    (root / target.home / "mosquitto").mkdir()
    shutil.copyfile(guard, root / target.home / "mosquitto" / guard.name)
    shared = root / "usr/share" / target.package.name / "mosquitto"
    shared.mkdir(parents=True)
    shutil.copyfile(ROOT / "deploy/mosquitto/README.md", shared / "README.md")
    shutil.copytree(ROOT / "deploy/mosquitto/systemd", shared / "systemd")


def prune(site: Path, modules: tuple[str, ...]) -> None:
    """Take from a folder of modules what `PRUNED` names, other modules of this project than `modules`, and bytecode."""
    for pattern in [*PRUNED, "**/__pycache__", *sorted(_MODULES - set(modules))]:
        for path in list(site.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def settle(root: Path, epoch: int) -> None:
    """Give everything below `root` one time, and modes by place: programs and maintainer scripts run, nothing else.

    epoch: seconds since 1970.
    """
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if _is_run(path) else 0o644)
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        Path(folder).chmod(0o755)
        os.utime(folder, (epoch, epoch))


def _is_run(path: Path) -> bool:
    return path.parent.name == "bin" or (path.parent.name == "DEBIAN" and path.read_bytes().startswith(b"#!"))
