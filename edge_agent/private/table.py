"""The rows of the private store on disk: facts, samples and features, each sealed, in a database of their own.

    rows      facts by row number              samples   bytes of the sample by row number
    features  what the bundle's frozen part made of the sample: the bundle's digest, and bytes
    meta      what the database is for, whether it is sealed, counts

A row number is never given twice while the program runs. All that tells of a sample, its id and label too, is sealed;
in the open are row numbers, sizes, the digest of the bundle, and what a sample looks like to the task. What is deleted
is overwritten, and gone from the log after `flush`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edge_agent.private.facts import Facts
from edge_agent.private.sealing import AesGcm, Plain, Seal, SealError
from fd_protocol import cbor
from fd_protocol.errors import FedistillError
from fd_protocol.identity import sha256
from fd_protocol.manifest import FeatureSpec, Task
from fd_protocol.schema import from_item, keyed, to_item
from fd_runtime.config import EX_CONFIG
from fd_runtime.storage.store import META_TABLE, Store, Tables

T = TypeVar("T")

_SCHEMA = f"""
CREATE TABLE rows (number INTEGER PRIMARY KEY, facts BLOB NOT NULL);
CREATE TABLE samples (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE features (number INTEGER PRIMARY KEY, bundle BLOB NOT NULL, body BLOB NOT NULL);
{META_TABLE}
"""
_TABLES = ("rows", "samples", "features")
_KIND, _PROOF = "kind", "proof"
_PROOF_TEXT = b"fedistill private store"
COUNTS, GUESSED_COUNTS, EPOCH = VALUES = ("counts", "guessed_counts", "epoch")
"""Named values that are sealed like rows."""


class PrivateStoreError(FedistillError):
    """The store is not to be opened with these settings; says what would help."""

    exit_code = EX_CONFIG


class WrongKeyError(PrivateStoreError):
    """The store was sealed with another key."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What samples and labels in the database are: other ones cannot stand beside them."""

    shape: tuple[int, ...] = keyed(1)
    dtype: str = keyed(2)
    classes: tuple[str, ...] = keyed(3)
    vocabulary: int | None = keyed(4, default=None)

    def __str__(self) -> str:
        return f"samples {self.dtype} {list(self.shape)} of {', '.join(self.classes)}"

    @classmethod
    def of(cls, task: Task) -> Kind:
        return cls(task.sample_shape, task.sample_dtype, task.classes, task.vocabulary)


class RowTable:
    """See the module. Use `RowTable.open`; one thread at a time."""

    def __init__(self, database: Store, seal: Seal, kind: Kind) -> None:
        self._database, self._seal, self._kind = database, seal, kind

    @classmethod
    def open(cls, path: Path | None, key: bytes | None, task: Task, *, log_bytes: int = 4 << 20) -> RowTable:
        """Open or create the database at `path`; None keeps it in memory.

        What was kept in the open before there was a key is sealed with it now.

        Raises:
            WrongKeyError: it was sealed with another key.
            PrivateStoreError: it was sealed and there is no key, or it is about other samples than the task's.
            StoreError: it cannot be opened.
            MissingExtraError: there is a key, and `cryptography` is not installed.
        """
        seal = Plain() if key is None else AesGcm(key)
        database = Store.open(path, Tables((_SCHEMA,), is_shared=True, is_forgetful=True, log_bytes=log_bytes))
        try:
            table = cls(database, seal, Kind.of(task))
            table._settle()
        except BaseException:
            database.close()
            raise
        return table

    @classmethod
    @contextmanager
    def view(cls, path: Path, key: bytes | None, task: Task) -> Iterator[RowTable]:
        """Look at the database at `path` while another process writes it: nothing of it is changed, no lock is held.

        Raises:
            WrongKeyError, PrivateStoreError: as `open`.
            StoreError: there is none, or it cannot be read.
            MissingExtraError: likewise.
        """
        with Store.view(path) as database:
            proof = database.meta(_PROOF)
            is_plain = key is None or proof == _PROOF_TEXT  # the next start of its owner would seal it
            table = cls(database, Plain() if is_plain or key is None else AesGcm(key), Kind.of(task))
            if proof is not None:
                table._check_key(proof)
                table._check_kind()
            yield table

    def _settle(self) -> None:
        """Find out whose database it is, and make it ours if it is nobody's."""
        kind, proof = self._database.meta(_KIND), self._database.meta(_PROOF)
        if kind is None or proof is None:
            with self._database.transaction():
                self._database.set_meta(_KIND, cbor.encode(to_item(self._kind)))
                self._database.set_meta(_PROOF, self._seal.close(_PROOF_TEXT, b"proof"))
            return
        self._check_key(proof)
        self._check_kind()
        if proof == _PROOF_TEXT and not isinstance(self._seal, Plain):
            self._seal_all()

    def _check_kind(self) -> None:
        known = from_item(Kind, cbor.decode(self._database.meta(_KIND) or b""))
        if known != self._kind:
            raise PrivateStoreError(
                f"{self._where}: is about {known}, the bundle about {self._kind}: wipe it, or name another folder"
            )

    def _check_key(self, proof: bytes) -> None:
        if proof == _PROOF_TEXT:
            return
        if isinstance(self._seal, Plain):
            raise PrivateStoreError(f"{self._where}: is encrypted, and no key is configured")
        try:
            self._seal.open(proof, b"proof")
        except SealError as error:
            raise WrongKeyError(f"{self._where}: was encrypted with another key than this one") from error

    def _seal_all(self) -> None:
        """Features are only a cache: they are made again."""
        with self._database.transaction():
            for table, column in (("rows", "facts"), ("samples", "body")):
                for number in [row["number"] for row in self._database.rows(table, {}, columns="number")]:
                    (row,) = self._database.rows(table, {"number": number}, columns=column)
                    self._database.merge(
                        table, {"number": number}, {column: self._seal.close(row[column], _label(table, number))}
                    )
            self._database.delete_rows("features", {})
            for name in VALUES:
                content = self._database.meta(name)
                if content is not None:
                    self._database.set_meta(name, self._seal.close(content, name.encode()))
            self._database.set_meta(_PROOF, self._seal.close(_PROOF_TEXT, b"proof"))
        self._database.rewrite()

    @property
    def _where(self) -> str:
        return f"private store {self._database.path or 'in memory'}"

    @property
    def is_encrypted(self) -> bool:
        return not isinstance(self._seal, Plain)

    def close(self) -> None:
        self._database.close()

    def transaction(self) -> AbstractContextManager[None]:
        return self._database.transaction()

    def flush(self) -> None:
        """Leave nothing of what was deleted in any file."""
        self._database.flush()

    def shrink(self) -> None:
        """Give room that is free within the file back to the disk; needs as much again while it does."""
        self._database.rewrite()

    def disk_bytes(self) -> int:
        """Return what the files take."""
        if self._database.path is None:
            return 0
        folder, name = self._database.path.parent, self._database.path.name
        return sum(file.stat().st_size for file in folder.glob(f"{name}*"))

    # Rows.

    def load(self) -> dict[int, Facts]:
        """Return all facts by row number, in order."""
        rows = self._database.rows("rows", {}, "number")
        return {row["number"]: self._facts(row["number"], row["facts"]) for row in rows}

    def _facts(self, number: int, sealed: bytes) -> Facts:
        return from_item(Facts, cbor.decode(self._seal.open(sealed, _label("rows", number))))

    def put(self, number: int, facts: Facts) -> None:
        """Keep facts, new or in the place of those before."""
        body = self._seal.close(cbor.encode(to_item(facts)), _label("rows", number))
        self._database.merge("rows", {"number": number}, {"facts": body})

    def labelled(self, number: int) -> tuple[npt.NDArray[Any], Facts] | None:
        """Return a row as it is at this moment, whatever its owner writes meanwhile; None: it is gone, or has no label.

        For those who look (`view`): between two reads a row may go, and its number be another's.
        """
        with self._database.moment():
            rows = self._database.rows("rows", {"number": number}, columns="facts")
            if not rows:
                return None
            facts = self._facts(number, rows[0]["facts"])
            return None if facts.label is None else (self.sample(number), facts)

    def put_sample(self, number: int, sample: npt.NDArray[np.generic]) -> None:
        data = np.ascontiguousarray(sample).astype(self._dtype, copy=False).tobytes()
        body = self._seal.close(data, _label("samples", number))
        self._database.merge("samples", {"number": number}, {"body": body})

    def sample(self, number: int) -> npt.NDArray[Any]:
        """Return the sample of a row that is here."""
        (row,) = self._database.rows("samples", {"number": number}, columns="body")
        data = self._seal.open(row["body"], _label("samples", number))
        return np.frombuffer(data, self._dtype).reshape(self._kind.shape)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self._kind.dtype).newbyteorder("<")

    def delete(self, numbers: Collection[int]) -> None:
        """Delete rows with everything that belongs to them."""
        for number in numbers:
            for table in _TABLES:
                self._database.delete_rows(table, {"number": number})

    # Features.

    def put_features(self, number: int, bundle: bytes, codes: npt.NDArray[Any]) -> None:
        """Keep the features of a sample, in the place of another bundle's."""
        body = self._seal.close(np.ascontiguousarray(codes).tobytes(), _features_label(number, bundle))
        self._database.merge("features", {"number": number}, {"bundle": bundle, "body": body})

    def features(self, number: int, bundle: bytes, spec: FeatureSpec) -> npt.NDArray[Any] | None:
        """Return the features of a sample; None: this bundle has not seen it yet."""
        rows = self._database.rows("features", {"number": number, "bundle": bundle}, columns="body")
        if not rows:
            return None
        data = self._seal.open(rows[0]["body"], _features_label(number, bundle))
        return np.frombuffer(data, spec.dtype).reshape(spec.shape)

    # Values.

    def value(self, name: str, cls: type[T], default: T) -> T:
        """Return the keyed dataclass that is kept under `name`."""
        content = self._database.meta(name)
        return default if content is None else from_item(cls, cbor.decode(self._seal.open(content, name.encode())))

    def set_value(self, name: str, value: Any) -> None:
        self._database.set_meta(name, self._seal.close(cbor.encode(to_item(value)), name.encode()))


def _label(table: str, number: int) -> bytes:
    return f"{table}/{number}".encode()


def _features_label(number: int, bundle: bytes) -> bytes:
    return _label("features", number) + b"/" + sha256(bundle)[:8]


def is_sealed(path: Path) -> bool:
    """Whether there is a private store at `path` that needs a key.

    Raises:
        StoreError: there is something else.
    """
    if not path.exists():
        return False
    with Store.view(path) as database:
        return database.meta(_PROOF) != _PROOF_TEXT
