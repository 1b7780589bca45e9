"""What a signed word about a bundle says: the custom part of a TUF target, and the name under which it is signed.

    bundles/FAMILY/PACKAGE     signed on the training workstation, by the role `targets`
    students/FAMILY/PACKAGE    signed by the server, by the delegated role `students`, which may sign nothing else

PACKAGE is the package's SHA-256 in hex, so a name is never signed for other bytes, and whoever hears of a package knows
under which names to ask for it.

What is deliberately absent: signatures and their files (`fd_runtime.tuf`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

from fd_protocol.documents import InvalidDocumentError, Place, build, to_json
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import check_name
from fd_protocol.manifest import check_hex_digest, check_version

BUNDLES, STUDENTS = "bundles", "students"


class InvalidTargetError(InvalidDocumentError):
    """What is signed about a package says nothing that can be used."""


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """What is signed about a package besides its length and digest.

    Attributes:
        bundle: digest of the bundle that unpacking gives, in hex.
        family: devices that may run it.
        version: for people.
        runtimes: on which it was proven.
        opset: highest of ai.onnx in its graphs.
        memory_bytes: that its graphs need beside the program: their files, and the tensors of a training step.
        golden: SHA-256 of its golden vectors, in hex.
        parent: digest of the bundle whose files the package leaves out; None = it leaves none out.
    """

    bundle: str
    family: str
    version: str
    runtimes: tuple[str, ...]
    opset: int
    memory_bytes: int
    golden: str
    parent: str | None = None

    def __post_init__(self) -> None:
        check_name(self.family, "family")
        check_version(self.version)
        for digest in filter(None, (self.bundle, self.golden, self.parent)):
            check_hex_digest(digest, "bundle, golden and parent")
        if not self.runtimes or self.opset < 1 or self.memory_bytes < 1:
            raise InvalidValueError("a bundle is proven on a runtime, has an opset, and takes memory")

    def to_plain(self) -> dict[str, Any]:
        """Return the custom part of a target."""
        plain: dict[str, Any] = json.loads(to_json(self))
        return plain

    @classmethod
    def from_plain(cls, table: Any, source: object = "a signed target") -> TargetFacts:
        """Return what a target says; keys of later versions are passed over.

        Raises:
            InvalidTargetError: a key is missing or wrong.
        """
        known = {field.name for field in fields(cls)}
        mine = {key: value for key, value in table.items() if key in known} if isinstance(table, dict) else table
        return build(cls, mine, Place(source, InvalidTargetError))


def target_name(role: str, family: str, package: str) -> str:
    """Return the name under which a package of a family is signed by `BUNDLES` or `STUDENTS`.

    Raises:
        InvalidValueError: no package is called so.
    """
    return f"{role}/{check_name(family, 'family')}/{check_hex_digest(package, 'a package')}"


def package_of(target: str) -> str:
    """Return the package's digest in the name of a target."""
    return target.rpartition("/")[2]
