"""Class prototypes in the place of a public set: what FedProto exchanges (Tan et al. 2022), said in soft labels.

    prototype of class y     C(y) = mean of the backbone's features over the rows of class y        (equation 3)
    probe y * width + j      "how far is feature j on, where the sample is of class y?"
    what is said of it       (C(y)_j / 255, 1 - C(y)_j / 255, 0);  (0, 0, 1) = too few rows of class y to tell

So a table of prototypes is soft labels for classes x width probes of three classes, on, off and unknown, and all that
carries, keeps, joins and verifies soft labels does so with prototypes.

Features of two backbones have no common axes. The identity of the space is that of the task and of the backbone's file:
a device with another backbone answers other probes, and is refused as one that has another public set. An int8 backbone
alone will do, whose features are codes from 0 to 255; where every layer trains a "feature" is the sample itself, and a
mean of samples must not leave the device.

No numpy here: supervisors read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import Manifest, Role
from fd_protocol.terms import MAX_PROBES

ON, OFF, UNKNOWN = 0, 1, 2
STATES = 3
"""Classes of a probe."""
FULL = 255
"""The code of a feature that is fully on."""
_PREFIX = b"fedistill prototypes\n"


@dataclass(frozen=True, slots=True)
class PrototypeSpace:
    """What prototypes of one backbone are about.

    Attributes:
        digest: its identity, where others have a public set's.
        classes: of the task.
        width: features of a sample.
    """

    digest: bytes
    classes: int
    width: int

    @classmethod
    def of(cls, manifest: Manifest) -> PrototypeSpace:
        """Return the space of a bundle.

        Raises:
            InvalidValueError: its backbone is not int8, or there is none; or it has too many features.
        """
        if manifest.features is None or manifest.features.dtype != "uint8":
            raise InvalidValueError(f"prototypes are features of an int8 backbone, and {manifest.name} has none")
        classes, width = len(manifest.task.classes), math.prod(manifest.features.shape)
        if classes * width > MAX_PROBES:
            raise InvalidValueError(f"{classes} prototypes of {width} features are more than {MAX_PROBES} numbers")
        backbone = bytes.fromhex(manifest.files[Role.BACKBONE].sha256)
        return cls(sha256(_PREFIX + manifest.task.digest + backbone), classes, width)

    @property
    def count(self) -> int:
        """Return the number of probes."""
        return self.classes * self.width
