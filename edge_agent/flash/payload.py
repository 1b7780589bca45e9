"""The folder `fedistill` of a boot partition: the same whatever mechanism reads it (see first_boot/first-boot.sh)."""

from __future__ import annotations

from importlib.resources import files

from edge_agent.flash.contents import Content, digests_of
from edge_agent.flash.seed import Seed

FOLDER = "fedistill"
SCRIPT, SERVICE, SUMS = "first-boot.sh", "first-boot.service", "SHA256SUMS"


def payload(seed: Seed) -> dict[str, Content]:
    """Return what lies below `FOLDER`, by its name there. The device checks the sums before it takes anything."""
    script = files("edge_agent.flash").joinpath("first_boot")
    inside: dict[str, Content] = {f"etc/{name}": content for name, content in seed.etc.items()}
    inside[seed.package.path.name] = seed.package.path
    for name in (SCRIPT, SERVICE):
        inside[name] = script.joinpath(name).read_bytes()
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests_of(inside).items()))
    inside[SUMS] = sums.encode()
    return inside


def instance(inside: dict[str, Content]) -> str:
    """Return a word that is another for another payload: cloud-init takes a card that says it for a new device."""
    sums = inside[SUMS]
    assert isinstance(sums, bytes)
    return digests_of({SUMS: sums})[SUMS][:12]
