"""Bytes that were once on a wire are read and written the same for good."""

import numpy as np
import pytest

from fd_protocol import codec
from fd_protocol.codec import KINDS
from fd_protocol.competence import decode_map, quantise_distances
from fd_protocol.messages import Codec
from fd_protocol.payload import Codes, decode_body, quantise
from tests.fd_protocol import test_documents
from tests.golden import vectors
from tests.golden.vectors import FOLDER, MESSAGES, bodies_of, labels_of, message_vector, read

BODIES = read("bodies.json")


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_has_its_bytes(name):
    vector, message = read("messages.json")[name], MESSAGES[name]
    written = message_vector(message)
    assert written["bytes"] == vector["bytes"]
    # A vector has the fields of its day: what came later stands at its default.
    assert written["fields"] == {**written["fields"], **vector["fields"]}
    assert codec.decode(bytes.fromhex(vector["bytes"]), type(message)) == message


def test_every_message_and_every_codec_has_a_vector():
    assert {type(message) for message in MESSAGES.values()} == set(KINDS.values())
    assert set(read("messages.json")) == set(MESSAGES)
    assert set(BODIES) == set(vectors.CODINGS) == {member.value for member in Codec}


@pytest.mark.parametrize("name", BODIES)
def test_soft_labels_have_their_codes_and_integers(name):
    vector, (coding, top_k) = BODIES[name], vectors.CODINGS[name]
    codes = quantise(labels_of(vector["probabilities"]), coding, top_k)
    np.testing.assert_array_equal(codes.array, vector["codes"])
    np.testing.assert_array_equal(codes.integers(), vector["integers"])


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("prefix", ["", "difference_"])
def test_a_body_is_read_and_packed_the_same(name, prefix):
    vector, (coding, top_k) = BODIES[name], vectors.CODINGS[name]
    codes, base = (
        Codes(coding, vector["classes"], np.array(vector[key], np.uint8), top_k) for key in ("codes", "base_codes")
    )
    base = base if prefix else None
    read_back = decode_body(bytes.fromhex(vector[f"{prefix}body"]), coding, len(codes), codes.classes, top_k, base=base)
    np.testing.assert_array_equal(read_back.array, codes.array)
    assert bodies_of(codes, base, prefix)[f"{prefix}packed"] == vector[f"{prefix}packed"]


def test_a_competence_map_is_read_and_packed_the_same():
    vector = read("competence.json")["map"]
    np.testing.assert_array_equal(quantise_distances(np.array(vector["distances"])), vector["codes"])
    np.testing.assert_array_equal(decode_map(bytes.fromhex(vector["body"]), len(vector["codes"])), vector["codes"])
    assert vectors.competence_vector()["packed"] == vector["packed"]


@pytest.mark.parametrize("name", ["MANIFEST", "PUBLIC_SET"])
def test_a_document_has_its_bytes(name):
    value = getattr(test_documents, name)
    data = (FOLDER / f"{name.lower()}.json").read_bytes()
    assert value.to_json() == data
    assert type(value).from_json(data) == value
