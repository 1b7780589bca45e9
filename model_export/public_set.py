"""Building a public set: probes shuffled once, and the space in which everyone measures competence."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fd_protocol.canaries import Canaries, LabelledProbes
from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import FORMAT, FileEntry, Task
from fd_protocol.public_set import PUBLIC_SET_NAME, PublicSetSpec, SetFile, SpaceKind, SpaceSpec
from fd_runtime.files import claim, write_atomically
from fd_runtime.models.model import F32, I64
from fd_runtime.space import Space, preprocessed, vectors
from model_export.samples import Samples

DIMENSIONS = 20


@dataclass(frozen=True, slots=True)
class BuiltPublicSet:
    """A public set on disk, and what only its builder knows.

    Attributes:
        order: probe i was row `order[i]` of the probes, then the canaries, that it was built from.
        canaries: the labels of the canaries among the probes, of each class half for trust, half for release.
    """

    spec: PublicSetSpec
    order: I64
    canaries: Canaries


def build_public_set(
    folder: Path | str,
    probes: npt.NDArray[np.generic],
    task: Task,
    *,
    seed: int,
    dimensions: int = DIMENSIONS,
    canaries: Samples | None = None,
    provenance: Mapping[str, str] | None = None,
) -> BuiltPublicSet:
    """Write a public set into the new `folder`. The same arguments give the same bytes on one machine.

    The probes are shuffled once, so any slice of them is a random draw from all. Canaries of each class lie at even
    distances, each at a random place of its stretch, so a slice has its share of them and none is easier to guess.

    Args:
        folder: created; must not exist, or be empty.
        probes: [n, *sample_shape], as the task's samples are recorded. No label goes with them.
        task: whose classes the probes are asked for.
        seed: of the shuffle.
        dimensions: of the space, at most n - 1 and the numbers of a sample's vector.
        canaries: labelled samples to hide among the probes; the labels are in the answer and in no file.
        provenance: where the probes come from, for people.

    Raises:
        InvalidValueError: the probes are not samples of the task, too few, or all alike.
        FileExistsError: something is in the folder.
        OSError: the folder cannot be written.
    """
    hidden = Samples(probes[:0], np.empty(0, np.int64)) if canaries is None else canaries
    everything = np.concatenate([probes, hidden.values])
    _check(everything, task)
    order = _order(len(probes), hidden, np.random.default_rng(seed))
    shuffled = everything[order]
    space = _space_of(shuffled, task, dimensions)
    arrays = {
        SetFile.PROBES: shuffled,
        SetFile.SPACE_MEAN: space.mean,
        SetFile.SPACE_COMPONENTS: space.components,
    }
    contents = {f"{part.value}.npy": npy_bytes(array) for part, array in arrays.items()}
    spec = PublicSetSpec(
        format=FORMAT,
        count=len(everything),
        sample_shape=task.sample_shape,
        sample_dtype=task.sample_dtype,
        task_sha256=task.digest.hex(),
        files={part.value: FileEntry.of(f"{part.value}.npy", contents[f"{part.value}.npy"]) for part in arrays},
        space=SpaceSpec(len(space.components), space.unit, space.kind),
        vocabulary=task.vocabulary,
        provenance=provenance or {},
    )
    folder = claim(Path(folder))
    for name, content in contents.items():
        write_atomically(folder / name, content)
    write_atomically(folder / PUBLIC_SET_NAME, spec.to_json())  # last: it vouches for the others
    return BuiltPublicSet(spec, order, _canaries(spec, order, len(probes), hidden))


def _order(probes: int, hidden: Samples, rng: np.random.Generator) -> I64:
    """Return which row comes where: the probes in random order, canaries spread among them."""
    order = rng.permutation(probes)
    if not len(hidden):
        return order
    edges = np.linspace(0, probes + len(hidden), len(hidden) + 1).round().astype(np.int64)
    places = rng.integers(edges[:-1], edges[1:])
    return np.insert(order, places - np.arange(len(hidden)), probes + _alternating(_labels(hidden), rng))


def _alternating(labels: I64, rng: np.random.Generator) -> I64:
    """Return an order of canaries in which those for trust and for release take turns, each class evenly in both."""
    by_class = rng.permutation(len(labels))
    by_class = by_class[labels[by_class].argsort(kind="stable")]
    order = np.empty_like(by_class)
    for half in (0, 1):
        order[half::2] = _evenly(by_class[half::2], labels, rng)
    return order


def _evenly(rows: I64, labels: I64, rng: np.random.Generator) -> I64:
    """Return `rows` in an order in which those of each class have equal distances."""
    when = np.empty(len(rows))
    for label in np.unique(labels[rows]):
        mine = np.flatnonzero(labels[rows] == label)
        when[mine] = (np.arange(len(mine)) + rng.random()) / len(mine)
    return rows[when.argsort()]


def _canaries(spec: PublicSetSpec, order: I64, first: int, hidden: Samples) -> Canaries:
    """Where the samples from row `first` on have come to lie; every other one serves trust, the rest release."""
    places = np.flatnonzero(order >= first)
    labels = _labels(hidden)[order[places] - first]
    trust, release = (
        LabelledProbes(tuple(places[half::2].tolist()), tuple(labels[half::2].tolist())) for half in (0, 1)
    )
    return Canaries(spec.digest.hex(), trust, release)


def _labels(hidden: Samples) -> I64:
    assert hidden.labels is not None  # canaries without labels are probes
    return hidden.labels


def _space_of(probes: npt.NDArray[np.generic], task: Task, dimensions: int) -> Space:
    kind = SpaceKind.PCA if task.vocabulary is None else SpaceKind.PCA_OF_TOKENS
    rows = vectors(preprocessed(probes, task), kind, task.vocabulary or math.prod(task.sample_shape))
    return principal_space(rows, min(dimensions, len(rows) - 1, rows.shape[1]), kind)


def principal_space(rows: F32, dimensions: int, kind: SpaceKind = SpaceKind.PCA) -> Space:
    """Return the space of `rows` [n, D]; NaN counts as its column's mean.

    Raises:
        InvalidValueError: half of the rows or more have a twin, so that no unit of distance exists; or values are
            infinite, or too large to be squared.
    """
    centred, mean, components = principal_axes(rows, dimensions)
    unit = _median_nearest_distance(centred @ components.T)
    if unit <= 0:
        raise InvalidValueError("the probes are too much alike: half of them have a twin")
    return Space(mean, components, unit, kind)


def principal_axes(rows: F32, dimensions: int) -> tuple[F32, F32, F32]:
    """Return centred rows [n, D], mean [D], and the widest axes [dimensions, D] by singular value decomposition.

    Axes are not scaled to equal variance: distances would then count noise as much as shape.

    Raises:
        InvalidValueError: values are infinite, or too large to be squared.
    """
    missing = np.isnan(rows)
    counts = np.maximum(1, (~missing).sum(axis=0))
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        mean = (np.where(missing, 0, rows).sum(axis=0) / counts).astype(np.float32)
        centred = np.where(missing, np.float32(0), rows - mean)
    if not float(np.abs(centred).max()) ** 2 * centred.size < float(np.finfo(np.float32).max):  # so that NaN fails
        raise InvalidValueError("the probes hold infinite values, or values too large to be squared")
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    components = axes[:dimensions]
    # The sign of an axis is arbitrary; its largest entry shall be positive.
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])
    return centred, mean, np.ascontiguousarray(components * signs[:, None])


def npy_bytes(array: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _check(probes: npt.NDArray[np.generic], task: Task) -> None:
    if probes.shape[1:] != task.sample_shape or probes.dtype != np.dtype(task.sample_dtype):
        found = f"{probes.dtype} {list(probes.shape)}"
        raise InvalidValueError(f"probes must be {task.sample_dtype} [n, *{task.sample_shape}], are {found}")
    if len(probes) < 2:
        raise InvalidValueError("a public set needs at least 2 probes")


def _median_nearest_distance(points: F32) -> float:
    nearest = np.empty(len(points))
    for index, point in enumerate(points):  # row by row: the full table of 10^5 probes would not fit
        squares = np.square(points - point).sum(axis=1)
        squares[index] = np.inf
        nearest[index] = squares.min()
    return float(np.sqrt(np.median(nearest)))
