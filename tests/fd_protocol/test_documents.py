"""Manifests and public sets are their one JSON document, and nothing else is."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.layout import ThetaLayout
from fd_protocol.manifest import (
    FeatureSpec,
    FileEntry,
    InvalidManifestError,
    Manifest,
    Preprocessing,
    Role,
    Task,
    TrainSpec,
)
from fd_protocol.public_set import PublicSetSpec, SetFile, SpaceSpec
from fd_protocol.reference import Binned, Reference

TASK = Task(("null", "één"), (1, 28, 28), "uint8", Preprocessing(1 / 255))
LAYOUT = ThetaLayout.of([("tail.w", (3, 2)), ("tail.b", (2,))])
MANIFEST = Manifest(
    format=1,
    name="demo-a",
    family="cnn-s",
    version="1.0.0",
    task=TASK,
    files={
        Role.BACKBONE: FileEntry.of("backbone.int8.onnx", b"backbone"),
        Role.TAIL: FileEntry.of("tail.onnx", b"tail"),
        Role.TRAIN_STEP: FileEntry.of("train_step.onnx", b"step"),
        Role.THETA: FileEntry.of("theta.bin", bytes(4 * LAYOUT.size)),
    },
    layout=LAYOUT,
    features=FeatureSpec((3,), "uint8", 0.02, 3),
    training=TrainSpec(32, "adam", ("moment1", "moment2")),
    verified_on=("onnxruntime",),
    provenance={"built": "by hand"},
)
PUBLIC_SET = PublicSetSpec(
    format=1,
    count=1000,
    sample_shape=(1, 28, 28),
    sample_dtype="uint8",
    task_sha256=TASK.digest.hex(),
    files={
        SetFile.PROBES: FileEntry.of("probes.npy", b"probes"),
        SetFile.SPACE_MEAN: FileEntry.of("space_mean.npy", b"mean"),
        SetFile.SPACE_COMPONENTS: FileEntry.of("space_components.npy", b"components"),
    },
    space=SpaceSpec(20, 2.87),
)
DOCUMENTS = pytest.mark.parametrize("value", [MANIFEST, PUBLIC_SET], ids=["manifest", "public set"])


@DOCUMENTS
def test_a_document_comes_back(value):
    assert type(value).from_json(value.to_json()) == value


@DOCUMENTS
def test_its_identity_is_the_digest_of_its_bytes(value):
    assert value.digest == sha256(value.to_json())
    assert dataclasses.replace(value, provenance={"other": "x"}).digest != value.digest


@DOCUMENTS
def test_only_the_bytes_that_are_written_are_read(value):
    plain = json.loads(value.to_json())
    for other in (json.dumps(plain), json.dumps(plain, indent=1), value.to_json().decode() + " "):
        with pytest.raises(InvalidManifestError):
            type(value).from_json(other.encode())


def test_a_role_may_be_asked_for_after_reading():
    assert Manifest.from_json(MANIFEST.to_json()).files[Role.TAIL].path == "tail.onnx"


def test_what_a_bundle_lacks_is_not_written():
    files = {role: entry for role, entry in MANIFEST.files.items() if role is not Role.BACKBONE}
    whole = dataclasses.replace(MANIFEST, files=files, features=None)
    assert b"features" not in whole.to_json()
    assert Manifest.from_json(whole.to_json()) == whole


def test_a_task_is_its_classes_in_order_and_its_samples():
    assert TASK.digest == Task(("null", "één"), (1, 28, 28), "uint8", Preprocessing(1 / 255)).digest
    for change in (
        {"classes": ("één", "null")},
        {"sample_dtype": "float32"},
        {"preprocessing": Preprocessing(1 / 256)},
        {"preprocessing": Preprocessing(1 / 255, fit="crop")},
        {"time_axis": 2},
    ):
        assert dataclasses.replace(TASK, **change).digest != TASK.digest


def test_equal_values_have_one_digest_and_minus_zero_is_zero():
    minus = dataclasses.replace(TASK, preprocessing=Preprocessing(1 / 255, -0.0))
    assert minus == TASK
    assert minus.digest == TASK.digest
    edges = [Reference(1, (Binned((zero,), (0.5, 0.5)),)) for zero in (0.0, -0.0)]
    one, other = (dataclasses.replace(MANIFEST, reference=reference) for reference in edges)
    assert one == other
    assert one.to_json() == other.to_json()


def test_a_minus_zero_is_not_the_form_that_is_written():
    data = MANIFEST.to_json()
    assert Manifest.from_json(data).task == TASK
    with pytest.raises(InvalidManifestError, match="not in the form"):
        Manifest.from_json(data.replace(b'"offset": 0.0', b'"offset": -0.0'))


def test_a_task_that_says_nothing_of_columns_time_and_fit_is_the_one_that_it_was_before_there_were_any():
    assert TASK.digest.hex() == "7fe4738b802cdb628c2311f801a24a89b3defae1202c4a1ab39f2e5e6920bf85"


def test_columns_name_the_numbers_of_a_sample_or_of_a_reading():
    named = Task(("off", "on"), (3,), "float32", columns=("volts", "amps", "watts"))
    assert named.reading_shape == (3,)
    window = Task(("off", "on"), (3, 50), "float32", time_axis=1, columns=("volts", "amps", "watts"))
    assert window.reading_shape == (3,)
    assert Task(("off", "on"), (50,), "float32", time_axis=0, columns=("volts",)).reading_shape == ()
    manifest = dataclasses.replace(MANIFEST, task=window)
    assert Manifest.from_json(manifest.to_json()) == manifest


def edited(path, value):
    """The manifest's JSON with one value changed; a value of `...` deletes the key."""
    plain = json.loads(MANIFEST.to_json())
    *above, last = path.split(".")
    table = plain
    for key in above:
        table = table[key]
    if value is ...:
        del table[last]
    else:
        table[last] = value
    return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("format", 2, "m: format 2 is not known here, only 1"),
        ("name", ..., "m: name: missing"),
        ("task.clases", [], "m: task.clases: unknown key, did you mean 'classes'?"),
        ("task.classes", "ab", "m: task.classes: expected an array, found text 'ab'"),
        (
            "task.sample_dtype",
            "int8",
            "m: task.sample_dtype: expected one of 'uint8', 'float32', 'int32', found text 'int8'",
        ),
        ("task.sample_shape", [1, "x"], "m: task.sample_shape.1: expected an integer, found text 'x'"),
        ("task.sample_shape", [], "m: task: sample_shape [] must have 1 to 8 positive extents"),
        ("task.preprocessing.scale", 0.0, "m: task.preprocessing: a scale of 0 leaves nothing of a sample"),
        (
            "task.preprocessing.fit",
            "bend",
            "m: task.preprocessing.fit: expected one of 'crop', 'pad', found text 'bend'",
        ),
        ("task.time_axis", 3, "m: task: time_axis 3 is no axis of a sample of [1, 28, 28]"),
        ("task.columns", ["a", "a"], "m: task: columns have names of 1 to 64 characters, each once"),
        ("task.columns", ["a", "b"], "m: task: 2 columns are named, 784 numbers make a reading"),
        ("training.batch", True, "m: training.batch: expected an integer, found true or false True"),
        ("files.tail.path", "../tail.onnx", "m: files.tail: '../tail.onnx' is not a plain file name"),
        ("files.tail.path", "/etc/passwd", "m: files.tail: '/etc/passwd' is not a plain file name"),
        ("files.tail.path", ".bashrc", "m: files.tail: '.bashrc' is not a plain file name"),
        ("files.tail.path", "theta.bin", "m: two files share a name"),
        ("files.tail.path", "manifest.json", "m: two files share a name"),
        ("files.tail.sha256", "AB" * 32, "m: files.tail: sha256 must be a SHA-256 of 64 hexadecimal digits"),
        ("files.theta.size_bytes", 5, "m: theta has 5 bytes, not 4 x 8"),
        ("files.tail", ..., "m: files lacks tail"),
        ("files.backbone", ..., "m: a backbone, and nothing else, has features"),
        ("layout.slots", [], "m: layout: a layout needs a parameter"),
        ("version", "1 0", "m: version '1 0' must be 1 to 64 of a-z, A-Z, 0-9, '.', '+', '-'"),
    ],
)
def test_a_wrong_manifest_is_one_line_that_names_the_key(path, value, line):
    with pytest.raises(InvalidManifestError) as caught:
        Manifest.from_json(edited(path, value), "m")
    assert str(caught.value) == line


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[1", b"[]", b"null", b"[" * 100_000, b'{"format": 1e999}', b'{"format": NaN}'],
    ids=["empty", "no UTF-8", "cut short", "an array", "null", "deep", "infinite", "NaN"],
)
def test_what_is_no_document_is_refused(data):
    with pytest.raises(InvalidManifestError):
        Manifest.from_json(data)


def test_a_document_that_is_too_long_is_not_even_parsed():
    with pytest.raises(InvalidManifestError, match="of at most 1048576 bytes"):
        Manifest.from_json(b" " * (1 << 21))


@DOCUMENTS
def test_text_that_is_no_utf_8_is_refused(value):
    plain = json.loads(value.to_json()) | {"provenance": {"by": "\ud800"}}
    with pytest.raises(InvalidManifestError, match="surrogates"):
        type(value).from_json(json.dumps(plain, indent=1, sort_keys=True).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 10**4000),
        ("task.sample_shape", [10**4000] * 3),
        ("task.sample_shape", [1] * 100_000),
        ("task.time_axis", 10**4000),
        ("files.theta.size_bytes", 10**4000),
        ("layout.slots", [{"name": "w", "offset": 0, "shape": [10**4000] * 2}]),
        ("layout.slots", [{"name": "w", "offset": 10**4000, "shape": [2]}]),
        ("training.slots", 10**4000),
    ],
    ids=["format", "shape", "long shape", "axis", "bytes", "extent", "offset", "type"],
)
def test_a_giant_number_is_refused_in_a_short_line(path, value):
    with pytest.raises(InvalidManifestError) as caught:
        Manifest.from_json(edited(path, value), "m")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("x" * 100_000, 1),
        ("files." + "x" * 100_000, 1),
        ("name", "\n" * 100_000),
        ("version", "\n" * 100_000),
        ("parent", "x" * 100_000),
        ("files.tail.path", "\n" * 100_000),
        ("files.tail.size_bytes", "x" * 100_000),
        ("layout.slots", [{"name": "x" * 100_000, "offset": 1, "shape": [2]}]),
    ],
    ids=["key", "key of a table", "name", "version", "digest", "path", "type", "parameter"],
)
def test_a_long_text_is_refused_in_a_short_line(path, value):
    with pytest.raises(InvalidManifestError) as caught:
        Manifest.from_json(edited(path, value), "m")
    assert len(str(caught.value)) < 500


@given(st.binary(max_size=80) | st.text(max_size=80).map(str.encode))
def test_any_bytes_are_a_document_or_refused(data):
    with pytest.raises(InvalidManifestError):
        Manifest.from_json(data)


@given(st.data())
def test_a_damaged_document_is_refused_or_another(data):
    good = bytearray(MANIFEST.to_json())
    good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        manifest = Manifest.from_json(bytes(good))
    except InvalidManifestError:
        return
    assert manifest.to_json() == bytes(good)


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0},
        {"count": 2**20 + 1},
        {"task_sha256": "x"},
        {"files": {}},
        {"sample_shape": (0,)},
    ],
)
def test_an_invalid_public_set_cannot_exist(change):
    with pytest.raises(InvalidValueError):
        dataclasses.replace(PUBLIC_SET, **change)


@pytest.mark.parametrize(
    "fields",
    [
        {"sample_dtype": "int32"},
        {"sample_dtype": "float32", "vocabulary": 5},
        {"sample_dtype": "int32", "vocabulary": 1},
        {"sample_dtype": "int32", "vocabulary": 5, "preprocessing": Preprocessing(0.5)},
    ],
)
def test_only_token_numbers_have_a_vocabulary_and_nothing_preprocesses_them(fields):
    with pytest.raises(InvalidValueError):
        Task(("a", "b"), (8,), **fields)
    assert Task(("a", "b"), (8,), "int32", vocabulary=5).vocabulary == 5


WORDS = {"sample_dtype": "int32", "vocabulary": 4, "tokens": "words"}


def test_words_are_the_classes_and_two_tokens_more():
    task = Task(("to", "be"), (8,), **WORDS)
    manifest = dataclasses.replace(MANIFEST, task=task)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert task.digest != dataclasses.replace(task, tokens=None).digest
    for wrong in ({"vocabulary": 2}, {"vocabulary": 5}, {"sample_shape": (2, 4)}):
        with pytest.raises(InvalidValueError, match="2 tokens more than there are classes"):
            dataclasses.replace(task, **wrong)


def test_the_classes_of_a_manifest_stand_in_it():
    """What a bundle is for must not depend on a file beside it."""
    plain = json.loads(MANIFEST.to_json())
    plain["task"]["classes"] = "words.txt"
    with pytest.raises(InvalidManifestError, match=r"expected an array, found text 'words\.txt'"):
        Manifest.from_json(json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n")
