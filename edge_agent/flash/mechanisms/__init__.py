"""How a device's host name, login, network and first command are said to each first-boot mechanism: seed -> files.

Pure: what stands on the boot partition comes in as bytes, what shall stand there goes out.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.flash.boards import Board, Mechanism
from edge_agent.flash.contents import Content
from edge_agent.flash.mechanisms import cloud_init, firstrun, preseed
from edge_agent.flash.mechanisms.stock import Stock, check_is_ours_to_write
from edge_agent.flash.payload import FOLDER, instance, payload
from edge_agent.flash.seed import Seed

__all__ = ["Stock", "boot_files"]

_FILES: dict[Mechanism, Callable[[Seed, Board, Stock, str], dict[str, bytes]]] = {
    Mechanism.CLOUD_INIT: cloud_init.files,
    Mechanism.FIRSTRUN: firstrun.files,
    Mechanism.PRESEED: preseed.files,
}


def boot_files(seed: Seed, board: Board, stock: Stock) -> dict[str, Content]:
    """Return every file that the boot partition gets, by its name there.

    Args:
        seed: the device.
        board: the system on the card.
        stock: what the boot partition holds as it is.

    Raises:
        NotForImageError: somebody else has customised it already.
    """
    check_is_ours_to_write(stock)
    inside = payload(seed)
    named: dict[str, Content] = {f"{FOLDER}/{name}": content for name, content in inside.items()}
    return named | _FILES[board.mechanism](seed, board, stock, f"fedistill-{seed.device}-{instance(inside)}")
