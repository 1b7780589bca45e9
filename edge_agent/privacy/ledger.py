"""What private trainings have cost: an append-only file of rows, each durable before what it pays for begins.

    charge   before a training: its time, bundle, terms, sigma, and SHA-256 of the key that its noise grows from
    spent    after it: the bundle that it trained in the end, and SHA-256 of the weights; the key is destroyed

A row is a line of JSON that ends with SHA-256(digest of the line before || the rest of the line), so a row that was
changed, moved or taken out shows. Nothing is ever taken back: a charge counts whether or not it was used.

Rules:
- Nothing is trained on before its charge is on the disk, and no charge is made twice: one that is open is gone on with.
- The key lies in a file of its own beside the ledger, from before the charge until the weights are kept, and no copy
  of it that a power cut left outlasts it. Whoever finds the device later finds no noise that could be taken off the
  weights.
- A charge that another process made is written down anew before one trains by it: it may never have reached the disk.
- A last line without its end was never on the disk whole, so nothing was trained by it: it is cut off. Any other
  damage, or an open charge whose key is gone, is an error, and the device refuses private rounds until a person has
  looked: a guess could only lose a charge.
- A clock that runs back opens no period: a charge counts while it is less than a period old, and when it lies ahead.

What is deliberately absent: a way to delete rows. A file that is put back as it was a month ago cannot be noticed here;
weights that name a charge which the ledger does not have are (`Ledger.charge_of`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.privacy.accountant import Rdp, composed, epsilon_of, rdp_of
from fd_protocol.errors import FedistillError, InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.terms import PrivacyTerms
from fd_runtime.config import EX_DATAERR
from fd_runtime.files import remove_leftovers, sync_folder, write_atomically

KEY_BYTES = 32
ABANDONED = bytes(32).hex()
"""Stands for the weights of a training that was charged and never done."""
_ORIGIN = bytes(32).hex()
_CHARGE, _SPENT = "charge", "spent"


class LedgerError(FedistillError):
    """The ledger is damaged, or lacks what it should have; nothing is trained privately until a person has looked."""

    exit_code = EX_DATAERR


@dataclass(frozen=True, slots=True)
class Charge:
    """One private training, as it is paid for.

    Attributes:
        at_s: UTC seconds of its charge.
        bundle: digest (hex) of the bundle whose tail trains.
        terms: by which it trains to its end, whatever offers say meanwhile.
        noise_multiplier: sigma; what it costs follows from this and the terms.
        key_sha256: commitment (hex) to the key of its noise.
    """

    at_s: int
    bundle: str
    terms: PrivacyTerms
    noise_multiplier: float
    key_sha256: str = ""

    @property
    def rdp(self) -> Rdp:
        return rdp_of(self.terms.sampling_rate, self.noise_multiplier, self.terms.steps)


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge in its ledger.

    Attributes:
        charge: as it was made.
        digest: hexadecimal; identifies it.
        theta_sha256: of the weights (hex); empty while the training is not over, `ABANDONED` where it never was done.
        trained_bundle: digest (hex) of the bundle that it trained; empty likewise.
    """

    charge: Charge
    digest: str
    theta_sha256: str = ""
    trained_bundle: str = ""

    @property
    def is_open(self) -> bool:
        return not self.theta_sha256


def spent_epsilon(charges: Iterable[Charge], delta: float) -> float:
    """Return what these trainings cost together, for a row that all of them read."""
    return epsilon_of(composed(*(charge.rdp for charge in charges)), delta)


class Ledger:
    """A ledger in a folder; one process writes, others may read. Nothing is made before the first charge.

    Args:
        folder: made where it is missing.
        entropy: returns so many secret bytes; the system's generator but in simulations.
    """

    def __init__(self, folder: Path, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._folder, self._path, self._entropy = folder, folder / "ledger", entropy

    def entries(self) -> tuple[Entry, ...]:
        """Return all charges, the oldest first.

        Raises:
            LedgerError: it is damaged.
            OSError: it cannot be read.
        """
        return tuple(_entries(self._rows()))

    def charge_of(self, digest: str) -> Entry:
        """Return the charge that weights name.

        Raises:
            LedgerError: it is damaged, or has no such charge: it was put back to an earlier time.
        """
        for entry in self.entries():
            if entry.digest == digest:
                return entry
        raise LedgerError(f"{self._path}: weights were paid for by a charge that it does not have")

    def charge(self, charge: Charge) -> Entry:
        """Charge a training, durably, and return its entry; the commitment to a fresh key is filled in here.

        Raises:
            InvalidValueError: another charge is open.
            LedgerError, OSError: nothing was charged, or nobody knows: do not train.
        """
        if any(entry.is_open for entry in self.entries()):
            raise InvalidValueError("a private training that was charged is not over")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = self._entropy(KEY_BYTES)
        write_atomically(self._key_path, key, mode=0o600)
        self._append({"kind": _CHARGE, **asdict(replace(charge, key_sha256=sha256(key).hex()))})
        return self.entries()[-1]

    def key(self, entry: Entry) -> bytes:
        """Return the key of an open charge, with both on the disk: one may train.

        Whoever charged may have been killed, or failed by the disk, before ledger and key were there for good: what is
        read here may be in memory alone. Written anew, they are on the disk.

        Raises:
            LedgerError: it is gone, or another.
            OSError: it cannot be written down; do not train.
        """
        try:
            key = self._key_path.read_bytes()
        except FileNotFoundError:
            key = b""
        if sha256(key).hex() != entry.charge.key_sha256:
            raise LedgerError(f"{self._key_path}: the key of a charge that is not over is gone")
        write_atomically(self._key_path, key, mode=0o600)
        write_atomically(self._path, b"".join(line + b"\n" for line in self._whole_lines()), mode=0o600)
        return key

    def close_charge(self, entry: Entry, bundle: str, theta_sha256: bytes) -> None:
        """Note durably that the training is over and its weights kept, then destroy its key. To repeat it is harmless.

        Raises:
            LedgerError, OSError: it may have to be repeated.
        """
        self._close(entry, bundle, theta_sha256.hex())

    def abandon(self, entry: Entry) -> None:
        """Note that a charge will not be used any more; it counts all the same. Raises: as `close_charge`."""
        self._close(entry, "", ABANDONED)

    def _close(self, entry: Entry, bundle: str, theta_sha256: str) -> None:
        if self.charge_of(entry.digest).is_open:
            row = {"kind": _SPENT, "charge": entry.digest, "trained_bundle": bundle, "theta_sha256": theta_sha256}
            self._append(row)
        self._key_path.unlink(missing_ok=True)
        remove_leftovers(self._folder)  # a copy of the key among them, where the power went while it was written anew
        sync_folder(self._folder)

    @property
    def _key_path(self) -> Path:
        return self._folder / "noise.key"

    # Lines.

    def _append(self, row: dict[str, Any]) -> None:
        kept = self._whole_lines()
        last = json.loads(kept[-1])["digest"] if kept else _ORIGIN
        line = _line(last, row)
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # What follows the last whole line was torn off by a power cut, or by a disk that was full.
            end = sum(len(each) + 1 for each in kept)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            _write_all(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._folder)

    def _rows(self) -> Iterator[tuple[dict[str, Any], str]]:
        last = _ORIGIN
        for number, line in enumerate(self._whole_lines(), start=1):
            row = _parsed(line)
            digest = row.pop("digest", None)
            if _line(last, row) != line + b"\n":
                raise LedgerError(f"{self._path}: line {number} is not what was written")
            last = str(digest)
            yield row, last

    def _whole_lines(self) -> list[bytes]:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        return data.split(b"\n")[:-1]


def _entries(rows: Iterator[tuple[dict[str, Any], str]]) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for row, digest in rows:
        match row:
            case {"kind": "charge"}:
                entries[digest] = Entry(_charge(row), digest)
            case {"kind": "spent", "charge": str(paid), "theta_sha256": str(theta), "trained_bundle": str(bundle)} if (
                paid in entries
            ):
                entries[paid] = Entry(entries[paid].charge, paid, theta, bundle)
            case _:
                raise LedgerError(f"a row of a kind that this version does not know: {row.get('kind')!r}")
    return list(entries.values())


def _charge(row: dict[str, Any]) -> Charge:
    values = {name: value for name, value in row.items() if name != "kind"}
    try:
        return Charge(**{**values, "terms": PrivacyTerms(**values["terms"])})
    except (KeyError, TypeError, InvalidValueError) as error:
        raise LedgerError(f"a charge that this version cannot read: {error}") from error


def _line(last: str, row: dict[str, Any]) -> bytes:
    content = json.dumps(row, sort_keys=True, separators=(",", ":"))
    digest = sha256(f"{last}\n{content}".encode()).hex()
    return json.dumps(row | {"digest": digest}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
