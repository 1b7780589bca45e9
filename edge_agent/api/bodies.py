"""Samples in a request: `.npy`, JSON, a text, or an image where Pillow is. Bytes of a stranger, trusted in nothing."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_agent.api.server import ApiError, Request
from fd_protocol.errors import DecodeError
from fd_protocol.manifest import Task
from fd_runtime.extras import MissingExtraError
from fd_runtime.images import ImageError, check_images, read_image
from fd_runtime.npy import from_npy
from fd_runtime.words import Vocabulary

NPY = ("application/x-npy", "application/octet-stream")
JSON, TEXT = "application/json", "text/plain"
_MOST_ROWS = 1024
_MOST_PIXELS = 16_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What a request brings.

    Attributes:
        samples: [n, *sample_shape] in the task's type.
        sample_ids: their names, or None for new ones.
        labels: class names or numbers, None where unknown; None for all unknown.
    """

    samples: npt.NDArray[Any]
    sample_ids: list[str] | None = None
    labels: list[str | int | None] | None = None


def samples_in(request: Request, task: Task) -> Given:
    """Return the samples of a request.

    Raises:
        ApiError: there are none, or they are not the task's.
    """
    if request.content_type in NPY:
        return Given(_from_npy(request.body, task))
    if request.content_type == JSON:
        return _from_json(request.body, task)
    if request.content_type == TEXT and task.tokens is not None:
        return _from_text(request, task)
    if request.content_type.startswith("image/"):
        return Given(_from_image(request.body, task)[None])
    kinds = f"{NPY[0]}, {JSON} or {TEXT if task.tokens else 'image/*'}"
    raise ApiError(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send samples as {kinds}, not {request.content_type or 'nothing'}"
    )


def fields_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a request brings.

    Raises:
        ApiError: it brings none.
    """
    if request.content_type != JSON:
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {JSON}, not {request.content_type or 'nothing'}")
    try:
        item = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"not JSON: {error}") from error
    if not isinstance(item, dict):
        raise _bad("expected a JSON object")
    return item


def _from_npy(data: bytes, task: Task) -> npt.NDArray[Any]:
    """One sample, or several along a first axis."""
    try:
        try:
            samples = from_npy(data, "samples", task.sample_dtype, (None, *task.sample_shape))
        except DecodeError:
            samples = from_npy(data, "the sample", task.sample_dtype, task.sample_shape)[None]
    except DecodeError as error:
        raise _bad(str(error)) from error
    return _checked(np.ascontiguousarray(samples))


def _from_json(data: bytes, task: Task) -> Given:
    fields = fields_of(Request("", "", content_type=JSON, body=data))
    one, many = fields.get("sample"), fields.get("samples")
    if (one is None) == (many is None):
        raise _bad('expected {"sample": [...]} or {"samples": [[...], ...]}')
    samples = _checked(_array([one] if many is None else many, task))
    ids, labels = fields.get("sample_ids"), fields.get("labels")
    if ids is not None and not (_is_list_of(ids, str) and all(ids) and len(ids) == len(set(ids)) == len(samples)):
        raise _bad("sample_ids are texts, one a sample, each once")
    if labels is not None and not (_is_list_of(labels, (str, int, type(None))) and len(labels) == len(samples)):
        raise _bad("labels are class names, numbers or null, one a sample")
    return Given(samples, ids, labels)


def _array(values: Any, task: Task) -> npt.NDArray[Any]:
    """Numbers of a JSON document as samples; null is a value that is missing."""
    dtype = np.dtype(task.sample_dtype)
    try:
        numbers = np.array(values, np.float64)
    except (ValueError, TypeError) as error:
        raise _bad(f"samples are nested arrays of numbers of shape {list(task.sample_shape)}") from error
    if numbers.shape[1:] != task.sample_shape:
        raise _bad(f"samples must be [n, {', '.join(map(str, task.sample_shape))}], are {list(numbers.shape)}")
    with np.errstate(invalid="ignore", over="ignore"):  # what does not fit is told below
        cast = numbers.astype(dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, numbers):
        raise _bad(f"a value is no {dtype}")
    return cast


def _from_text(request: Request, task: Task) -> Given:
    """What stands before the word that is asked for; or every word that was written, and what stands before it."""
    try:
        text = request.body.decode()
    except UnicodeDecodeError as error:
        raise _bad("the text is no UTF-8") from error
    written = request.query.get("written", "false")
    if written == "false":
        return Given(Vocabulary.of(task).context(text)[None])
    if written != "true":
        raise _bad(f"written is true or false, not {written[:20]!r}")
    samples, labels = Vocabulary.of(task).rows(text)
    return Given(_checked(samples), labels=[task.classes[label] for label in labels])


def _from_image(data: bytes, task: Task) -> npt.NDArray[Any]:
    """The image as the workstation reads it (`fd_runtime.images`); pixels are 0 to 255."""
    try:
        check_images(task)
    except ImageError as error:
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, str(error)) from error
    try:
        return read_image(io.BytesIO(data), task, most_pixels=_MOST_PIXELS).astype(task.sample_dtype)
    except MissingExtraError as error:
        raise ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{error}, or send samples as .npy") from error
    except (ImageError, OSError) as error:
        raise _bad(f"no image that can be read: {error}") from error


def _checked(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if not 1 <= len(samples) <= _MOST_ROWS:
        raise _bad(f"a request has 1 to {_MOST_ROWS} samples, not {len(samples)}")
    return samples


def _is_list_of(value: Any, cls: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and all(isinstance(member, cls) and member is not True for member in value)


def _bad(problem: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, problem)
