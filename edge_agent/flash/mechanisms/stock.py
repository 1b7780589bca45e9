"""The boot partition as it is: what is kept of it, and whether somebody has customised it already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from edge_agent.flash.errors import NotForImageError

Stock: TypeAlias = Callable[[str], bytes | None]
"""The bytes of a file of the boot partition; None where there is none."""

MARK = "Written by `edge-agent flash`"
_IMAGER = "ds=nocloud;i=rpi-imager"
_OTHERS = ("custom.toml", "firstrun.sh", "rpi-preseed.toml")


def check_is_ours_to_write(stock: Stock) -> None:
    """Let a blank image pass, and one that was written by us: it is written anew.

    Raises:
        NotForImageError: Imager or somebody else has left settings. Two first boots on one card fight.
    """
    for name in _OTHERS:
        there = stock(name)
        if there is not None and MARK.encode() not in there:
            raise NotForImageError(
                f"the card has a {name} of somebody else's already: take a blank image, or delete it"
            )
    if _IMAGER in text_of(stock, "cmdline.txt"):
        raise NotForImageError("Raspberry Pi Imager has customised this card already: write it without customisation")


def text_of(stock: Stock, name: str) -> str:
    return (stock(name) or b"").decode("utf-8", "replace")


def cmdline(stock: Stock, *additions: str, country: str = "") -> bytes:
    """Return the kernel's command line: one line, with `additions`, without what an earlier flash had added.

    country: in whose air the radio may send; until the kernel knows that, it does not.
    """
    ours = ("ds=nocloud;i=fedistill-", "systemd.run", "systemd.unit=kernel-command-line.target")
    regdom = "cfg80211.ieee80211_regdom="
    words = [
        word
        for word in text_of(stock, "cmdline.txt").split()
        if not word.startswith(ours) and not (country and word.startswith(regdom))
    ]
    return " ".join([*words, *([f"{regdom}{country}"] if country else []), *additions, ""]).strip().encode() + b"\n"
