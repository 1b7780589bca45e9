"""What a worker has learned, in one file that is whole, or the one before it.

    32 bytes SHA-256 | CBOR of `Checkpoint`, or of a `Progress`

It also remembers the outcome of the last training: a worker that was killed after the file was written and before
anyone heard of it answers the repeated job from here, so no consensus is trained on twice. A training that is not over
has a file of its own, from which it goes on where it was, bit for bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edge_agent.round.events import Refreshed, Trained
from fd_protocol import cbor
from fd_protocol.errors import DecodeError, DigestError
from fd_protocol.identity import DIGEST_BYTES, sha256
from fd_protocol.schema import from_item, keyed, to_item
from fd_runtime.files import remove_leftovers, write_atomically
from fd_runtime.models.model import F32, OptimizerState

T = TypeVar("T")

_F32, _F64 = np.dtype("<f4"), np.dtype("<f8")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The personal part of a model.

    Attributes:
        bundle: digest of the bundle that the rest comes from.
        theta: little-endian float32 in the bundle's layout.
        slots: the optimizer's vectors, likewise.
        step: steps that the optimizer has taken.
        is_warm: private rows have been trained on.
        trained: outcome of the last training on a consensus.
        charge: digest (hex) of the charge in the ledger that paid for these weights; empty: none did.
        refreshed: outcome of the last training on changed private rows.
    """

    bundle: bytes = keyed(1)
    theta: bytes = keyed(2)
    slots: Mapping[str, bytes] = field(default_factory=dict, metadata={"key": 3})
    step: int = keyed(4, default=0)
    is_warm: bool = keyed(5, default=False)
    trained: Trained | None = keyed(6, default=None)
    charge: str = keyed(7, default="")
    refreshed: Refreshed | None = keyed(8, default=None)

    @classmethod
    def of(
        cls,
        bundle: bytes,
        state: OptimizerState,
        *,
        is_warm: bool = False,
        trained: Trained | None = None,
        refreshed: Refreshed | None = None,
        charge: str = "",
    ) -> Checkpoint:
        slots = {name: _to_bytes(vector) for name, vector in state.slots.items()}
        return cls(
            bundle,
            _to_bytes(state.theta),
            slots,
            state.step,
            is_warm,
            trained,
            charge,
            refreshed,
        )

    def state(self) -> OptimizerState:
        """Return theta and slots as a train session takes them.

        Raises:
            DecodeError: a vector ends within a float.
            ThetaError: the vectors do not fit each other.
        """
        return _state(self.theta, self.slots, self.step)


@dataclass(frozen=True, slots=True)
class Progress:
    """A training that is not over: where it was after `done` steps.

    Attributes:
        what: digest of all that it follows from; another training has nothing from this one.
        done: steps taken.
        theta, slots, step: the optimizer's state then, as in `Checkpoint`.
        losses: of these steps, little-endian float64; empty where nobody may know them.
    """

    what: bytes = keyed(1)
    done: int = keyed(2)
    theta: bytes = keyed(3)
    slots: Mapping[str, bytes] = field(default_factory=dict, metadata={"key": 4})
    step: int = keyed(5, default=0)
    losses: bytes = keyed(6, default=b"")

    @classmethod
    def of(cls, what: bytes, done: int, state: OptimizerState, losses: Sequence[float] = ()) -> Progress:
        slots = {name: _to_bytes(vector) for name, vector in state.slots.items()}
        said = np.array(losses, _F64).tobytes()
        return cls(what, done, _to_bytes(state.theta), slots, state.step, said)

    def state(self) -> OptimizerState:
        """Raises: as `Checkpoint.state`."""
        return _state(self.theta, self.slots, self.step)

    def loss_of_each_step(self) -> tuple[float, ...]:
        """Raises: DecodeError: they end within a float."""
        return tuple(_to_vector(self.losses, _F64).tolist())


def size_of(state: OptimizerState) -> int:
    """Return about how many bytes a file with this state has."""
    return int(state.theta.nbytes * (1 + len(state.slots)))


def save(path: Path, record: Checkpoint | Progress) -> None:
    """Write a record to `path`, in the place of what a power cut has left of an earlier attempt.

    Raises:
        OSError: no room or no folder; the file before stands.
    """
    remove_leftovers(path.parent, path.name)  # each as large as the model
    body = cbor.encode(to_item(record))
    write_atomically(path, sha256(body) + body, mode=0o600)


def load(path: Path) -> Checkpoint | None:
    """Return the checkpoint at `path`; None: there is none. Raises: as `load_record`."""
    return load_record(path, Checkpoint)


def load_record(path: Path, cls: type[T]) -> T | None:
    """Return the record at `path`; None: there is none.

    Raises:
        DigestError: the file is damaged.
        DecodeError: a newer agent wrote it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, body = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if sha256(body) != digest:
        raise DigestError(str(path), digest, sha256(body))
    return from_item(cls, cbor.decode(body))


def array_sha256(array: npt.NDArray[Any]) -> bytes:
    """Return the digest of an array's bytes, without a copy of them."""
    return hashlib.sha256(np.ascontiguousarray(array).data).digest()


def _state(theta: bytes, slots: Mapping[str, bytes], step: int) -> OptimizerState:
    vectors = {name: _to_vector(data, _F32).astype(np.float32) for name, data in slots.items()}
    return OptimizerState(_to_vector(theta, _F32).astype(np.float32), vectors, step)


def _to_bytes(vector: F32) -> bytes:
    return vector.astype(_F32).tobytes()


def _to_vector(data: bytes, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if len(data) % dtype.itemsize:
        raise DecodeError("malformed", "a vector ends within a float")
    return np.frombuffer(data, dtype)
