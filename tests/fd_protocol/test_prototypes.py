"""Whose features have common axes: the identity of what class prototypes are about."""

from dataclasses import replace

import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.manifest import FeatureSpec, FileEntry, Role
from fd_protocol.prototypes import PrototypeSpace
from tests.fd_protocol.test_documents import MANIFEST

INT8 = replace(MANIFEST, features=FeatureSpec((4, 2, 2), "uint8", 0.02, 3))


def with_file(manifest, role, content):
    entry = FileEntry.of(manifest.files[role].path, content)
    return replace(manifest, files={**manifest.files, role: entry})


def test_a_space_has_a_number_for_each_feature_of_each_class():
    space = PrototypeSpace.of(INT8)
    assert (space.classes, space.width, space.count) == (len(INT8.task.classes), 16, 16 * len(INT8.task.classes))


def test_its_identity_is_that_of_the_task_and_the_backbone_and_of_nothing_else():
    digest = PrototypeSpace.of(INT8).digest
    backbone = bytes.fromhex(INT8.files[Role.BACKBONE].sha256)
    assert digest == sha256(b"fedistill prototypes\n" + INT8.task.digest + backbone)
    released = with_file(replace(INT8, version="2", parent="00" * 32), Role.TAIL, b"another tail")
    assert PrototypeSpace.of(released).digest == digest
    assert PrototypeSpace.of(with_file(INT8, Role.BACKBONE, b"another backbone")).digest != digest
    other_task = replace(INT8, task=replace(INT8.task, classes=INT8.task.classes[::-1]))
    assert PrototypeSpace.of(other_task).digest != digest


def test_only_an_int8_backbone_has_one():
    as_float = replace(INT8, features=FeatureSpec((16,), "float32"))
    files = {role: entry for role, entry in INT8.files.items() if role is not Role.BACKBONE}
    for manifest in (as_float, replace(INT8, features=None, files=files)):
        with pytest.raises(InvalidValueError, match="features of an int8 backbone"):
            PrototypeSpace.of(manifest)


def test_more_numbers_than_a_slice_may_have_are_refused():
    with pytest.raises(InvalidValueError, match="are more than 1048576 numbers"):
        PrototypeSpace.of(replace(INT8, features=FeatureSpec((1 << 20,), "uint8")))
