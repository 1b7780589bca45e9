"""`python -m deploy.release` makes a release of the tagged commit, with --draft of the tree as it is."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from deploy.deb.building import TooLargeError
from deploy.deb.catalogue import MACHINES, PACKAGES, PYTHONS, ROOT, targets
from deploy.release import making


def main(argv: list[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.release", description=__doc__)
    parser.add_argument(
        "--draft", action="store_true", help="of the working tree, with what the changelog has not released"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where fedistill-VERSION/ goes")
    for option, choices in (("--package", PACKAGES), ("--python", PYTHONS), ("--arch", MACHINES)):
        parser.add_argument(option, action="append", choices=list(choices), help="these .debs alone; with --draft")
    asked = parser.parse_args(argv)
    if not asked.draft and (asked.package or asked.python or asked.arch):
        parser.error("a release has all packages; some of them: --draft")
    chosen = targets(asked.package or list(PACKAGES), asked.python or list(PYTHONS), asked.arch or list(MACHINES))
    try:
        for path in making.make(chosen, asked.out, is_draft=asked.draft):
            print(path, flush=True)
    except subprocess.CalledProcessError as error:  # which has said why
        print(
            f"deploy.release: exit code {error.returncode} of {' '.join(map(str, error.cmd[:4]))} ...", file=sys.stderr
        )
        return 1
    except (making.NotReadyError, TooLargeError, FileNotFoundError) as error:
        print(f"deploy.release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
