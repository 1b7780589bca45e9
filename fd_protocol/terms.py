"""What a round is about: which probes, which codec and temperature, who is asked, how devices learn, what it may tell.

Values that stand in messages and in settings alike; each refuses to exist outside the limits of the protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fd_protocol.identity import check_digest, require
from fd_protocol.schema import keyed

MAX_PROBES = 1 << 20
MAX_CLASSES = 1 << 16
MAX_CELLS = 1 << 24
"""probes x classes of one slice: 16 M cells of one byte."""
MAX_U4_CLASSES = 256
"""Of codec u4-sqrt: it rounds any probability below 1/900 to nothing, so far more classes would leave empty rows."""


class Codec(str, Enum):
    """How soft labels travel; see `fd_protocol.payload`."""

    F16 = "f16"
    U8_SQRT = "u8-sqrt"
    U4_SQRT = "u4-sqrt"
    TOP_K = "top-k"
    TOP_K_ZIPF = "top-k-zipf"
    TOP_1 = "top-1"

    @property
    def names_k(self) -> bool:
        """Whether a row names its `top_k` likeliest classes alone."""
        return self in (Codec.TOP_K, Codec.TOP_K_ZIPF)


def check_temperature(temperature: float) -> None:
    require(0.1 <= temperature <= 100.0, "a temperature lies in [0.1, 100]")


def check_codec(codec: Codec, classes: int, top_k: int) -> None:
    """Refuse a codec that cannot carry rows of `classes`, or a `top_k` that does not go with it.

    Raises:
        InvalidValueError: so.
    """
    require(2 <= classes <= MAX_CLASSES, "a row has 2 to 65536 classes")
    require(codec is not Codec.U4_SQRT or classes <= MAX_U4_CLASSES, "u4-sqrt carries at most 256 classes")
    if codec.names_k:
        require(0 < top_k < classes, f"{codec.value} names 1 to classes - 1 classes")
    else:
        require(top_k == 0, "top_k goes with codec top-k or top-k-zipf")


@dataclass(frozen=True, slots=True)
class Slice:
    """The probes of a round: `count` samples from `start` of the public set, shuffled once when it was built."""

    public_set: bytes = keyed(1)
    start: int = keyed(2)
    count: int = keyed(3)
    classes: int = keyed(4)

    def __post_init__(self) -> None:
        check_digest(self.public_set, "public_set")
        require(self.start >= 0 and 0 < self.count <= MAX_PROBES, "a slice has 1 to 2^20 probes")
        require(self.start + self.count <= MAX_PROBES, "a slice ends within 2^20 probes")
        require(2 <= self.classes <= MAX_CLASSES, "a slice has 2 to 65536 classes")
        require(self.count * self.classes <= MAX_CELLS, "a slice has at most 2^24 cells")


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which devices a round invites; see `identity.is_sampled`."""

    seed: bytes = keyed(1)
    fraction: float = keyed(2, default=1.0)

    def __post_init__(self) -> None:
        require(len(self.seed) == 16, "a sampling seed has 16 bytes")
        require(0.0 < self.fraction <= 1.0, "a sampling fraction lies in (0, 1]")


@dataclass(frozen=True, slots=True)
class TrainingTerms:
    """How a device learns from a consensus: joint epochs over private rows (CE) and probe rows (KD)."""

    epochs: int = keyed(1, default=2)
    learning_rate: float = keyed(2, default=2e-3)
    probe_weight: float = keyed(3, default=1.0)
    """The loss weight of a probe row; a private row weighs 1."""
    warm_up_epochs: int = keyed(4, default=10)
    """Private epochs before the first contribution of a device."""

    def __post_init__(self) -> None:
        require(1 <= self.epochs <= 1000 and 0 <= self.warm_up_epochs <= 1000, "epochs lie in 1..1000")
        require(0.0 < self.learning_rate <= 10.0, "a learning rate lies in (0, 10]")
        require(0.0 <= self.probe_weight <= 1000.0, "a probe weight lies in [0, 1000]")


@dataclass(frozen=True, slots=True)
class PrivacyTerms:
    """What soft labels may tell of one private row: record-level (epsilon, delta)-DP by DP-SGD (Abadi et al. 2016).

    A device trains on its rows once in its privacy period, with so much noise that this training costs `epsilon`; the
    rest says how. None of these numbers depends on what a device holds.
    """

    epsilon: float = keyed(1, default=0.0)
    """Most that a training may cost; 0 = nothing is asked for."""
    delta: float = keyed(2, default=1e-5)
    steps: int = keyed(3, default=100)
    sampling_rate: float = keyed(4, default=0.5)
    """With which each private row joins each step (Poisson sampling)."""
    clip_norm: float = keyed(5, default=1.0)
    """To which a row's gradient is clipped."""
    learning_rate: float = keyed(6, default=2e-2)
    rows: int = keyed(7, default=256)
    """A round number near what devices hold: a lot's sum is divided by `sampling_rate` times this, never by a count."""

    def __post_init__(self) -> None:
        require(0.0 <= self.epsilon <= 1000.0, "an epsilon lies in [0, 1000]")
        require(0.0 < self.delta <= 1e-3, "a delta lies in (0, 0.001]")
        require(1 <= self.steps <= 100_000, "steps lie in 1..100000")
        require(0.0 < self.sampling_rate <= 1.0, "a sampling rate lies in (0, 1]")
        require(0.0 < self.clip_norm <= 1e6, "a clip norm lies in (0, 10^6]")
        require(0.0 < self.learning_rate <= 10.0, "a learning rate lies in (0, 10]")
        require(1 <= self.rows < 1 << 31, "rows are at least 1")

    @property
    def is_asked(self) -> bool:
        """Whether anything is asked for."""
        return self.epsilon > 0
