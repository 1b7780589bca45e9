"""Who gives an order on this machine: what the record of commands says of it."""

from __future__ import annotations

import os
import pwd

_MOST_CHARACTERS = 64


def who() -> str:
    """Return the account of this process by the kernel's word; of root also who became it, as `sudo` tells.

    `LOGNAME` and its like are not asked: whoever gives the order may have set them.
    """
    account = _name_of(os.getuid())
    before = os.environ.get("SUDO_USER", "") if os.getuid() == 0 else ""
    is_name = before.isprintable() and 0 < len(before) <= _MOST_CHARACTERS
    return f"{before} as {account}" if is_name and before != account else account


def _name_of(uid: int) -> str:
    """In a container an account may have no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
