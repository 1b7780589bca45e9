"""Who speaks in a round, and how loud."""

import numpy as np
import pytest

from broker_server.core.events import Aggregate
from broker_server.core.labels import StoredLabels
from broker_server.core.trust import TrustTable
from broker_server.rules.voice import WEIGHT_ONE
from broker_server.voices import Absence, Speakers
from fd_protocol import codec
from fd_protocol.competence import FAR, encode_map
from fd_protocol.errors import InvalidValueError
from fd_protocol.identity import sha256
from fd_protocol.messages import Codec, CompetenceMap, Slice
from fd_runtime.storage.store import PayloadRow, Store
from tests.broker_server import builders
from tests.broker_server.builders import FED, PUBLIC_SET, round_id

NUMBER = 9
DEFAULT = Absence()
OFFER = builders.offer(NUMBER, slice=Slice(PUBLIC_SET, 2, 3, 2))


@pytest.fixture
def store():
    return Store.open(None)


def put(store, device, number=NUMBER, temperature=2.0, part=OFFER.slice):
    labels = StoredLabels(part, temperature, Codec.U8_SQRT, bytes([250, 50] * part.count))
    digest = sha256(f"{device}{number}".encode())
    row = PayloadRow("contribution", device, number, 7, digest, store.put_blob(labels.to_bytes()))
    store.put_payload(FED, row)
    return device, digest


def put_map(store, device, distances, public_set=PUBLIC_SET, number=1):
    body = encode_map(np.array(distances, np.uint8))
    content = store.put_blob(codec.encode(CompetenceMap(public_set, len(distances), body)))
    store.put_payload(FED, PayloadRow("competence", device, number, 7, content, content))


def spoken(store, *contributions, absence=DEFAULT, trust=None):
    speakers = Speakers(store, FED, absence, trust or TrustTable(2))
    return {voice.device: voice for voice in speakers.voices(Aggregate(round_id(NUMBER), contributions), OFFER)}


def test_contributions_speak_in_full(store):
    voices = spoken(store, put(store, "a"), put(store, "b"))
    assert {name: voice.weight for name, voice in voices.items()} == {"a": WEIGHT_ONE, "b": WEIGHT_ONE}
    assert voices["a"].integers.shape == (3, 2)


def test_the_last_words_of_an_absent_device_fade_with_every_round(store):
    put(store, "b", NUMBER - 1)
    put(store, "c", NUMBER - 3)
    voices = spoken(store, put(store, "a"), absence=Absence(0.5, 0.1))
    assert {name: voice.weight for name, voice in voices.items()} == {"a": 4096, "b": 2048, "c": 512}


def test_words_that_have_faded_too_far_are_not_heard(store):
    put(store, "b", NUMBER - 4)
    assert set(spoken(store, put(store, "a"), absence=Absence(0.5, 0.1))) == {"a"}
    put(store, "c", NUMBER - 1)
    assert set(spoken(store, put(store, "a"), absence=Absence(0.0))) == {"a"}


@pytest.mark.parametrize("other", [{"temperature": 3.0}, {"part": Slice(PUBLIC_SET, 0, 3, 2)}])
def test_words_about_something_else_are_not_heard(store, other):
    put(store, "b", NUMBER - 1, **other)
    assert set(spoken(store, put(store, "a"))) == {"a"}


def test_the_last_words_of_an_absent_device_are_the_newest_about_these_probes(store):
    put(store, "b", NUMBER - 1, part=Slice(PUBLIC_SET, 5, 3, 2))
    put(store, "b", NUMBER - 2)
    put(store, "b", NUMBER - 3)
    voices = spoken(store, put(store, "a"), absence=Absence(0.5, 0.1))
    assert {name: voice.weight for name, voice in voices.items()} == {"a": 4096, "b": 1024}


def test_a_device_speaks_once_with_its_newest_words(store):
    put(store, "a", NUMBER - 1)
    put(store, "b", NUMBER - 2)
    put(store, "b", NUMBER - 1)
    voices = spoken(store, put(store, "a"), absence=Absence(0.5))
    assert {name: voice.weight for name, voice in voices.items()} == {"a": 4096, "b": 2048}


def test_only_the_contributions_that_were_counted_speak_for_this_round(store):
    put(store, "late")
    put(store, "a", NUMBER - 1)
    put(store, "a")
    voices = spoken(store, ("a", sha256(f"a{NUMBER - 1}".encode())), absence=Absence(0.5))
    assert {name: voice.weight for name, voice in voices.items()} == {"a": 2048}


def test_a_map_is_cut_to_the_slice_and_a_device_without_one_stands_far(store):
    put_map(store, "a", [3, 3, 0, 1, 2, 3])
    put_map(store, "c", [0] * 6, public_set=sha256(b"other"))
    voices = spoken(store, put(store, "a"), put(store, "b"), put(store, "c"))
    assert voices["a"].distances.tolist() == [0, 1, 2]
    assert voices["b"].distances.tolist() == voices["c"].distances.tolist() == [FAR] * 3


def test_trust_of_the_round_before_goes_with_a_voice(store):
    trust = TrustTable(2, {"a": np.array([7, 9])})
    voices = spoken(store, put(store, "a"), put(store, "b"), trust=trust)
    assert voices["a"].trust.tolist() == [7, 9]
    assert voices["b"].trust.tolist() == [WEIGHT_ONE, WEIGHT_ONE]


@pytest.mark.parametrize("wrong", [(1.0, 0.1), (-0.1, 0.1), (0.5, 0.0)])
def test_words_that_never_fade_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        Absence(*wrong)
