"""Messages that nobody receipts, kept until the broker has them: neither an absent broker nor a power cut loses them.

    put --> a file each, oldest first --> link, a few at a time --> the broker has it: the file goes

It is bounded in messages and bytes; what comes when it is full pushes out the oldest, which are counted. A retained
message takes the place of a waiting one on its topic: only the last counts. Contributions and maps are not here: their
bytes lie in the store until the server's receipt (`outbox`).

What is deliberately absent: a database. A file whose name is its number is written whole, listed by age, and dropped by
whoever may delete it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fd_protocol import cbor
from fd_protocol.errors import DecodeError
from fd_protocol.identity import DIGEST_BYTES, require, sha256
from fd_protocol.schema import from_item, keyed, to_item
from fd_runtime.files import remove_leftovers, write_atomically
from fd_runtime.links.link import Link

_WINDOW = 20
"""Messages that the link holds in memory at once."""
_ENTRY_BYTES = 128
"""What a message costs beside its payload, roughly."""

log = logging.getLogger("edge-agent")


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """How much may wait for an absent broker, in messages and in MB on the disk."""

    max_messages: int = 1000
    max_mb: float = 4.0

    def __post_init__(self) -> None:
        require(self.max_messages > 0 and self.max_mb > 0, "max_messages and max_mb are above 0")


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published. `expires_at_ms` is on the device's own clock of all its lives; 0 = never."""

    topic: str = keyed(1)
    payload: bytes = keyed(2)
    retain: bool = keyed(3, default=False)
    expires_at_ms: int = keyed(4, default=0)


@dataclass(slots=True)
class _Entry:
    """A waiting message; `message` is in memory alone where it was not worth, or got, a file."""

    number: int
    topic: str
    size: int
    retain: bool
    message: Message | None = None


@dataclass(slots=True)
class Losses:
    """Messages that the broker never got, since the start."""

    dropped: int = 0
    expired: int = 0
    refused: int = 0


class Spool:
    """The messages of one device.

    Args:
        folder: of their files; made where it is missing. Nobody else writes into it, anybody may delete from it.
        settings: how much may wait.

    Attributes:
        losses: what became of those that never arrived.
    """

    def __init__(self, folder: Path, settings: SpoolSettings = SpoolSettings()) -> None:
        self._folder, self._settings = folder, settings
        self.losses = Losses()
        self._entries: dict[int, _Entry] = {}
        self._in_flight: dict[int, int] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a disk that cannot be written to: the next start
            remove_leftovers(folder)
        for path, message in listing(folder):
            self._admit(_Entry(int(path.name), message.topic, len(message.payload), message.retain))
        # By their names: one that cannot be read now keeps its number, and its file.
        self._next = max((int(path.name) for path in _paths(folder)), default=0) + 1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def waiting_bytes(self) -> int:
        return sum(entry.size + _ENTRY_BYTES for entry in self._entries.values())

    def put(self, message: Message, *, durable: bool = True) -> None:
        """Take a message; one that is not `durable` spares the disk, and ends with the process."""
        entry = _Entry(self._next, message.topic, len(message.payload), message.retain, message)
        self._next += 1
        if durable and self._save(entry.number, message):
            entry.message = None
        self._admit(entry)

    def send(self, link: Link, now_ms: int) -> None:
        """Hand the oldest to a link that is up, as many as it should hold."""
        in_flight = set(self._in_flight.values())
        for entry in [one for one in self._entries.values() if one.number not in in_flight]:
            if len(self._in_flight) >= _WINDOW:
                return
            message = entry.message or _read(self._path(entry.number))
            if message is None:  # deleted by its owner, or damaged; what cannot be read now waits for the next start
                del self._entries[entry.number]
            elif message.expires_at_ms and message.expires_at_ms <= now_ms:
                self.losses.expired += 1
                self._remove(entry.number)
            else:
                left_s = -(-(message.expires_at_ms - now_ms) // 1000) if message.expires_at_ms else None
                token = link.publish(message.topic, message.payload, retain=message.retain, expiry_s=left_s)
                self._in_flight[token] = entry.number

    def recall(self) -> None:
        """Take back what is in flight: the link that had it is gone, and with it the meaning of its tokens."""
        self._in_flight.clear()

    def confirm(self, token: int, *, refusal: str = "") -> bool:
        """Forget what the broker has, or with its `refusal` never will; return whether `token` was one of ours."""
        number = self._in_flight.pop(token, None)
        if number is None:
            return False
        if refusal:
            self.losses.refused += 1
            entry = self._entries.get(number)
            log.warning("the broker refused a message to %s: %s", entry.topic if entry else "nobody", refusal)
        self._remove(number)
        return True

    def _admit(self, new: _Entry) -> None:
        """Let an entry in, and those out for which there is no room any more."""
        if new.retain:
            for old in [one for one in self._entries.values() if one.topic == new.topic]:
                self._remove(old.number)
        self._entries[new.number] = new
        most_bytes = self._settings.max_mb * 1e6
        while len(self._entries) > self._settings.max_messages or self.waiting_bytes > most_bytes:
            self.losses.dropped += 1
            self._remove(next(iter(self._entries)))

    def _save(self, number: int, message: Message) -> bool:
        body = cbor.encode(to_item(message))
        try:
            write_atomically(self._path(number), sha256(body) + body, mode=0o600)
        except OSError as error:
            log.warning("a message waits in memory alone: %s", error)
            return False
        return True

    def _remove(self, number: int) -> None:
        if self._entries.pop(number, None) is not None:
            with contextlib.suppress(OSError):  # never written; or a disk that cannot be written to at all
                self._path(number).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:016d}"


def listing(folder: Path) -> Iterator[tuple[Path, Message]]:
    """Yield the waiting messages of a device that may be running meanwhile, the oldest first."""
    for path in _paths(folder):
        message = _read(path)
        if message is not None:
            yield path, message


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("[0-9]*") if path.name.isdigit())


def _read(path: Path) -> Message | None:
    """Return what a file holds; None: it is gone, or damaged, and then it goes, or the disk does not give it."""
    try:
        data = path.read_bytes()
        digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
        if sha256(body) != digest:
            raise DecodeError("malformed", "it is not whole")  # noqa: TRY301 - both kinds of damage end alike
        return from_item(Message, cbor.decode(body))
    except FileNotFoundError:
        return None
    except DecodeError as error:
        log.warning("dropped the waiting message %s: %s", path.name, error)
        with contextlib.suppress(OSError):
            path.unlink()
        return None
    except OSError as error:
        log.warning("the waiting message %s cannot be read: %s", path.name, error)
        return None
