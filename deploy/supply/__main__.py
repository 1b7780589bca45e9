"""`python -m deploy.supply licences | audit | complete`; `make sbom` makes the bills of materials, by cyclonedx-bom."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deploy.supply.audit import audit
from deploy.supply.bills import complete
from deploy.supply.licences import DOCS, LOCKS, libraries, table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.supply")
    commands = parser.add_subparsers(required=True)
    licences = commands.add_parser("licences", help="print the licences of all that the packages hold")
    licences.add_argument("--write", action="store_true", help="put them into docs/licences.md")
    licences.set_defaults(run=_licences)
    known = commands.add_parser("audit", help="look for known vulnerabilities, without a network")
    known.add_argument("database", type=Path, help="OSV's export of PyPI: all.zip, or a folder of its JSON files")
    known.set_defaults(run=_audit)
    bills = commands.add_parser("complete", help="put licences into bills of materials, and whose they are")
    bills.add_argument("bills", type=Path, nargs="+", metavar="PACKAGE-pyVERSION-ARCHITECTURE.cdx.json")
    bills.set_defaults(run=_complete)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


def _complete(arguments: argparse.Namespace) -> int:
    for path in arguments.bills:
        complete(path)
        print(path)
    return 0


def _licences(arguments: argparse.Namespace) -> int:
    text = "\n".join(table())
    print(text, end="")
    if arguments.write:
        DOCS.write_text(text, encoding="utf-8")
    refused = [one for one in libraries() if not one.is_allowed]
    for one in refused:
        print(f"{one.name}: {one.licence} may not be in a package", file=sys.stderr)
    return 1 if refused else 0


def _audit(arguments: argparse.Namespace) -> int:
    locks = sorted(LOCKS.glob("*.txt"))
    found = audit(locks, arguments.database)
    for finding in found:
        print(finding)
    print(f"{len(found)} findings in {len(locks)} locks")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
