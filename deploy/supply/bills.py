"""Bills of materials (CycloneDX) as cyclonedx-bom makes them of locks, with what a lock does not say.

Each library's licence, by its own metadata (`licences`), and which Debian package the bill is of. What is in a bill
twice completed is what is in it once completed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deploy.deb.catalogue import PACKAGES
from deploy.deb.wheels import canonical
from deploy.supply.licences import licence_of
from fd_runtime.files import write_atomically

SUFFIX = ".cdx.json"
OWN_LICENCE = "Apache-2.0"


def complete(path: Path) -> None:
    """Complete the bill in a file that is named after its lock: PACKAGE-pyVERSION-ARCHITECTURE.cdx.json.

    Raises:
        ValueError: it is named after no package of ours, or is no bill of CycloneDX.
        LookupError: nobody here knows a licence.
        OSError: the file cannot be read or written.
    """
    bill = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(bill, dict) or bill.get("bomFormat") != "CycloneDX":
        raise ValueError(f"{path}: no bill of CycloneDX")
    text = json.dumps(completed(bill, path.name.removesuffix(SUFFIX)), indent=2, sort_keys=True)
    write_atomically(path, f"{text}\n".encode())


def completed(bill: dict[str, Any], lock: str) -> dict[str, Any]:
    """Return a bill with licences, of the package of a lock; raises as `complete`."""
    package, python, architecture = _parts(lock)
    own = bill["metadata"]["component"]
    version = own.get("version", "")
    told = {
        **own,
        "name": package,
        "type": "application",
        "description": f"{PACKAGES[package].summary}; {python}, {architecture}",
        "purl": f"pkg:deb/fedistill/{package}@{version}?arch={architecture}",
        "licenses": [{"expression": OWN_LICENCE}],
    }
    libraries = [
        {**one, "licenses": [{"expression": licence_of(canonical(one["name"]))}]} for one in bill.get("components", ())
    ]
    return {**bill, "metadata": {**bill["metadata"], "component": told}, "components": libraries}


def _parts(lock: str) -> tuple[str, str, str]:
    package, _, rest = lock.partition("-py")
    python, _, architecture = rest.partition("-")
    if package not in PACKAGES or not python or not architecture:
        raise ValueError(f"{lock} is no lock of a package")
    return package, f"Python {python}", architecture
