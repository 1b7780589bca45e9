"""`python -m deploy.deb build` makes packages, `python -m deploy.deb lock` says anew what is in them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from deploy.deb import building, guard, locking
from deploy.deb.catalogue import MACHINES, PACKAGES, PYTHONS, ROOT, targets


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    arguments = _parser().parse_args(argv)
    chosen = targets(
        arguments.package or list(PACKAGES), arguments.python or list(PYTHONS), arguments.arch or list(MACHINES)
    )
    try:
        if arguments.command == "lock":
            locking.lock_build()
            for target in chosen:
                locking.lock(target)
                print(target.lock.relative_to(ROOT), flush=True)
        else:
            for deb in building.build(chosen, arguments.out, revision=arguments.revision):
                print(f"{deb.path}  {deb.megabytes:.1f} MB  sha256 {deb.sha256}", flush=True)
    except subprocess.CalledProcessError as error:  # which has said why
        print(f"deploy.deb: exit code {error.returncode} of {' '.join(error.cmd[:4])} ...", file=sys.stderr)
        return 1
    except (building.TooLargeError, guard.NoCompilerError, FileNotFoundError) as error:
        print(f"deploy.deb: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.deb", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("build", "make packages"), ("lock", "resolve their wheels anew, with uv")):
        command = commands.add_parser(name, help=text)
        for option, choices in (("--package", PACKAGES), ("--python", PYTHONS), ("--arch", MACHINES)):
            command.add_argument(option, action="append", choices=list(choices), help="this alone; may be repeated")
    build = commands.choices["build"]
    build.add_argument("--out", type=Path, default=ROOT / "dist" / "deb", help="folder of the packages")
    build.add_argument("--revision", type=int, default=1, help="of the packaging of one version")
    return parser


if __name__ == "__main__":
    sys.exit(main())
