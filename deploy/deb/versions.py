"""How Debian writes our versions: so that dpkg sorts them as Python does, and a newer Python after an older."""

from __future__ import annotations

import re

_PUBLIC = re.compile(
    r"(?P<release>\d+(?:\.\d+)*)(?:(?P<stage>a|b|rc)(?P<stage_number>\d+))?"
    r"(?:\.post(?P<post>\d+))?(?:\.dev(?P<dev>\d+))?"
)


def debian_version(version: str, revision: int, python: str) -> str:
    """Return `version` (PEP 440, public and normal) as Debian's: 0.2.0rc1, 1, 3.11 -> 0.2.0~rc1-1+py3.11.

    A tilde sorts before the end, so candidates come before their release, and two before one, so development comes
    before candidates. The Python comes last: a system that is
    upgraded, from Bookworm to Trixie, takes the package of its new Python for an upgrade.

    Raises:
        ValueError: not such a version, or a revision below 1.
    """
    match = _PUBLIC.fullmatch(version)
    if match is None or revision < 1:
        raise ValueError(f"no version that Debian could write: {version!r}, revision {revision}")
    text = match["release"]
    if match["stage"]:
        text += f"~{match['stage']}{match['stage_number']}"
    if match["post"]:
        text += f"+post{match['post']}"
    if match["dev"]:
        text += f"~~dev{match['dev']}"
    return f"{text}-{revision}+py{python}"
