"""Orders to a server, as files in a folder: whoever may write there may command it, whether it runs or not.

    place_order --temp file, rename--> orders/{at_ms}-{id}.json --Spool.waiting--> transaction --Spool.remove--> gone

A file is removed only after what it asks for is durable. A crash in between shows it again, and its id keeps it from
happening twice. A file that holds no order is put aside under another name, for the operator to look at.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker_server.core.events import Order
from fd_protocol.documents import InvalidDocumentError, Place, from_json, to_json
from fd_runtime.files import write_atomically

__all__ = ["Order", "Placed", "Spool", "new_order", "place_order"]

MAX_ORDERS = 20
"""Read at a time."""
_SUFFIX = ".json"

log = logging.getLogger("broker-server")


class InvalidOrderError(InvalidDocumentError):
    """A file in the spool is no order."""


def new_order(
    command: str, *, who: str, at_ms: int, role: str = "operator", arguments: Mapping[str, str] | None = None
) -> Order:
    """Return an order with an id of its own.

    Raises:
        InvalidValueError: a command or a text that no order may have.
    """
    return Order(secrets.token_hex(8), at_ms, who, role, command, arguments or {})


def place_order(folder: Path, order: Order) -> str:
    """Put `order` into the spool, where a server finds it within a second, and return its id.

    Args:
        folder: of the spool, `config.state.orders`; made where it is missing, for its owner alone.
        order: what is to be done.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / f"{order.at_ms:015d}-{order.id}{_SUFFIX}", to_json(order), mode=0o600)
    return order.id


@dataclass(frozen=True, slots=True)
class Placed:
    """An order, and the file that holds it."""

    order: Order
    path: Path


@dataclass(frozen=True, slots=True)
class Spool:
    """The server's end of the folder."""

    folder: Path

    def waiting(self) -> list[Placed]:
        """Return the orders that wait, the oldest first, a few at a time."""
        if not self.folder.is_dir():
            return []
        paths = sorted(path for path in self.folder.iterdir() if path.suffix == _SUFFIX)
        read = (self._read(path) for path in paths[:MAX_ORDERS])
        return [placed for placed in read if placed is not None]

    def remove(self, placed: Placed) -> None:
        """Forget an order that has been answered; one that cannot be removed is found again, and answered no more."""
        try:
            placed.path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("an order cannot be removed: %s", error)

    def _read(self, path: Path) -> Placed | None:
        try:
            return Placed(from_json(Order, path.read_bytes(), Place(path, InvalidOrderError)), path)
        except FileNotFoundError:
            return None  # taken back by whoever placed it
        except (InvalidOrderError, OSError) as error:
            log.warning("no order: %s", error)
            path.rename(path.with_suffix(".refused"))
            return None
