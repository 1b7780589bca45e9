"""New parameters in the bytes of an ONNX file, and its opset, without the `onnx` package, which devices do not have.

An ONNX file is a protobuf message; its initializers' raw_data are little-endian floats. Theta is written over them,
nothing moves, and what onnxruntime then opens is an ordinary file. `SessionOptions.add_initializer`, made for the
purpose, is no way: the layout optimizer (NCHWc) copies the file's own convolution weights before it looks, so a swapped
convolution keeps its old weights, and the answers are wrong without a word.
"""

from __future__ import annotations

from collections.abc import Iterator

from fd_protocol.layout import ThetaLayout
from fd_runtime.models.model import F32, ModelError, check_theta, split_theta

Span = tuple[int, int]

# Field numbers of onnx.proto3.
_MODEL_GRAPH, _GRAPH_INITIALIZER, _TENSOR_NAME, _TENSOR_RAW_DATA = 7, 5, 8, 9
_MODEL_OPSET, _OPSET_DOMAIN, _OPSET_VERSION = 8, 1, 2
# Wire types of protobuf, and the bytes of the two that have a fixed length.
_VARINT, _LENGTH = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}


def with_parameters(model: bytes, layout: ThetaLayout, theta: F32) -> bytes:
    """Return `model` with the parameters of `layout` replaced.

    Raises:
        ThetaError: theta does not fit the layout.
        ModelError: the model does not store a parameter of the layout as that many raw floats.
    """
    parameters = split_theta(check_theta(theta, layout.size), layout)
    places = _places(model)
    changed = bytearray(model)
    for name, content in parameters.items():
        start, stop = places.get(name, (0, 0))
        if stop - start != content.nbytes:
            raise ModelError(f"parameter {name!r} takes {content.nbytes} bytes, the file has {stop - start}")
        changed[start:stop] = content.astype("<f4").tobytes()
    return bytes(changed)


def opset_of(model: bytes) -> int:
    """Return the opset of ai.onnx that a file is written in; 0 = it does not say.

    Raises:
        ModelError: it is no ONNX file.
    """
    found = [0]
    for imported in _find(model, (0, len(model)), _MODEL_OPSET):
        domains = {model[start:stop] for start, stop in _find(model, imported, _OPSET_DOMAIN)}
        if domains <= {b"", b"ai.onnx"}:
            found += _numbers(model, imported, _OPSET_VERSION)
    return max(found)


def _numbers(data: bytes, span: Span, wanted: int) -> Iterator[int]:
    """Yield the values of a field of varints in the message at `span`, which `fields` has walked."""
    at, end = span
    for number, (start, stop) in (*fields(data, span), (0, (end, end))):
        before = start if number else end
        while at < before:
            key, at = _varint(data, at)
            if key & 7 != _VARINT:
                break
            value, at = _varint(data, at)
            if key >> 3 == wanted:
                yield value
        at = stop


def _places(model: bytes) -> dict[str, Span]:
    """Return where the raw data of each initializer begin and end."""
    places = {}
    for graph in _find(model, (0, len(model)), _MODEL_GRAPH):
        for tensor in _find(model, graph, _GRAPH_INITIALIZER):
            names = [model[start:stop].decode(errors="replace") for start, stop in _find(model, tensor, _TENSOR_NAME)]
            places.update(dict(zip(names, _find(model, tensor, _TENSOR_RAW_DATA), strict=False)))
    return places


def _find(data: bytes, span: Span, wanted: int) -> Iterator[Span]:
    return (place for number, place in fields(data, span) if number == wanted)


def fields(data: bytes, span: Span) -> Iterator[tuple[int, Span]]:
    """Yield number, and begin and end, of each length-delimited field in the message at `span`.

    Raises:
        ModelError: it is no message, or one that other readers may understand otherwise.
    """
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if key >= 1 << 32:  # protobuf's own reader drops the upper bits: it would see another field
            raise ModelError(f"not an ONNX file: field {number} before byte {at}")
        if wire_type == _VARINT:
            _, at = _varint(data, at)
            continue
        if wire_type == _LENGTH:
            length, at = _varint(data, at)
        elif wire_type in _FIXED_BYTES:
            length = _FIXED_BYTES[wire_type]
        else:
            raise ModelError(f"not an ONNX file: wire type {wire_type} at byte {at}")
        if at + length > end:
            raise ModelError(f"not an ONNX file: a field ends {at + length - end} bytes beyond its message")
        if wire_type == _LENGTH:
            yield number, (at, at + length)
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that starts at `at`, seven bits a byte from the lowest, and where it ends."""
    number, shift = 0, 0
    while True:
        if at >= len(data) or shift > 63:
            raise ModelError(f"not an ONNX file: it breaks off at byte {at}")
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return number, at
