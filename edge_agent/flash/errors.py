"""What can go wrong in front of a card.

FlashError
├── NotRecognisedError   no image that a device boots from, or one of another kind than was said
├── NotForImageError     a package, or an earlier customisation, that this image does not go with
├── NoRoomError          does not fit, carries bytes needed and free
├── RefusedError         a disk that is mounted, built in, or too small
├── NotVerifiedError     what was read back is not what was written
├── OrderError           options, kit or CSV that make no device
└── ToolError            an outside program is missing, or failed
"""

from __future__ import annotations

from fd_protocol.errors import FedistillError
from fd_runtime.config import EX_CANTCREAT, EX_DATAERR, EX_IOERR, EX_NOPERM, EX_UNAVAILABLE, EX_USAGE


class FlashError(FedistillError):
    """A card was not made."""

    exit_code = EX_DATAERR


class NotRecognisedError(FlashError):
    """No image that a device boots from, or of another kind than was said."""


class NotForImageError(FlashError):
    """A package, or an earlier customisation, that does not go with this image."""


class NoRoomError(FlashError):
    """It does not fit."""

    exit_code = EX_CANTCREAT

    def __init__(self, where: str, needed: int, free: int) -> None:
        self.needed, self.free = needed, free
        super().__init__(f"{where}: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free")


class RefusedError(FlashError):
    """A disk that will not be written."""

    exit_code = EX_NOPERM


class NotVerifiedError(FlashError):
    """What was read back is not what was written: the card is bad, or was taken out."""

    exit_code = EX_IOERR


class OrderError(FlashError):
    """Options, kit or CSV that make no device."""

    exit_code = EX_USAGE


class ToolError(FlashError):
    """An outside program is missing, or failed."""

    exit_code = EX_UNAVAILABLE
