"""A model that never answers: onnxruntime itself goes round in a loop, the interpreter's lock released."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from fd_protocol.manifest import MANIFEST_NAME, FileEntry, Manifest, Role

_TURNS = 1 << 62


def let_hang(bundle: Path, role: Role, rows: int | None = None) -> None:
    """Make the graph of `role` hang, for ever or for batches of `rows`; the bundle vouches for it."""
    path = bundle / MANIFEST_NAME
    manifest = Manifest.from_json(path.read_bytes(), path)
    name = manifest.files[role].path
    data = _hanging(onnx.load(bundle / name), rows).SerializeToString()
    (bundle / name).write_bytes(data)
    files = {**manifest.files, role: FileEntry.of(name, data)}
    path.write_bytes(replace(manifest, files=files).to_json())


def _hanging(model: onnx.ModelProto, rows: int | None) -> onnx.ModelProto:
    graph = model.graph
    features = graph.input[0].name
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == features:
                node.input[index] = "features_at_last"
    for name, kind, values in (
        ("rows_that_hang", TensorProto.INT64, [rows or 0]),
        ("many_turns", TensorProto.INT64, [_TURNS]),
        ("no_turns", TensorProto.INT64, [0]),
        ("go_on", TensorProto.BOOL, [True]),
    ):
        graph.initializer.append(helper.make_tensor(name, kind, [1], values))
    turns = "turns" if rows is not None else "many_turns"
    head = [
        helper.make_node("Shape", [features], ["rows"], start=0, end=1),
        helper.make_node("Equal", ["rows", "rows_that_hang"], ["does_hang"]),
        helper.make_node("Where", ["does_hang", "many_turns", "no_turns"], ["turns"]),
        helper.make_node("Loop", [turns, "go_on", features], ["features_at_last"], body=_turn()),
    ]
    nodes = [*head, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _turn() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["goes_on"]), helper.make_node("Identity", ["x"], ["the_same"])],
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, None),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, None),
            helper.make_tensor_value_info("the_same", TensorProto.FLOAT, None),
        ],
    )


def copy_bundle(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
