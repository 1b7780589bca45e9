"""The local API: what each address does, and what it says to a request that is none."""

from __future__ import annotations

import io
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from edge_agent.api.bodies import samples_in
from edge_agent.api.client import Agent, AgentRefusedError
from edge_agent.api.pictures import picture_of, png
from edge_agent.api.server import ApiError, Request
from edge_agent.inference.latency import BOUNDS_S
from fd_protocol.manifest import Preprocessing, Task
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.api_stage import NPY, Api, ask, npy, predict
from tests.edge_agent.stores import MemoryStore
from tests.support.small_bundles import PICTURES, pictures

pytestmark = pytest.mark.filterwarnings("ignore:Image size:PIL.Image.DecompressionBombWarning")

# Predicting.


def test_samples_are_answered_as_the_model_answers(api, port):
    samples, _ = pictures(3)
    status, told = predict(port, samples)
    assert status == 200
    expected = api.loop.predict(samples, is_live=False)
    assert [one["label"] for one in told["predictions"]] == [PICTURES.classes[label] for label in expected.labels]
    assert np.allclose([one["probabilities"] for one in told["predictions"]], expected.probabilities)
    assert np.allclose([one["confidence"] for one in told["predictions"]], expected.confidence)
    assert {one["sample_id"] for one in told["predictions"]} == set(api.store.samples)


def test_one_sample_alone_is_a_sample(port):
    status, told = predict(port, pictures(1)[0][0])
    assert status == 200
    assert len(told["predictions"]) == 1


def test_json_brings_samples_with_names_and_labels(api, port):
    samples, _ = pictures(2)
    body = {"samples": samples.tolist(), "sample_ids": ["a", "b"], "labels": ["dog", None]}
    status, told = ask(port, "POST", "/v1/predict", body)
    assert status == 200
    assert [one["sample_id"] for one in told["predictions"]] == ["a", "b"]
    assert api.store.labels == {"a": (1, "api")}
    assert ask(port, "POST", "/v1/predict", {"sample": samples[0].tolist()})[0] == 200


def test_an_image_is_read_as_the_workstation_reads_it(api, port):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    status, told = ask(port, "POST", "/v1/predict", file.getvalue(), "image/png")
    assert status == 200
    expected = np.asarray(Image.fromarray(pixels).convert("L").resize((12, 12), Image.Resampling.BILINEAR))
    assert np.array_equal(api.store.sample(told["predictions"][0]["sample_id"])[0], expected)


def test_a_test_file_leaves_no_trace(api, port):
    status, _ = predict(port, pictures(2)[0], "?live=false")
    assert status == 200
    assert api.store.samples == {}
    assert ask(port, "GET", "/v1/predictions")[1] == {"predictions": []}


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"no array", NPY, 400, "not an array as np.save writes it"),
        (npy(np.zeros((2, 1, 12, 13), np.uint8)), NPY, 400, "must be"),
        (npy(np.zeros((1, 12, 12), np.float32)), NPY, 400, "must be"),
        (npy(np.zeros((0, 1, 12, 12), np.uint8)), NPY, 400, "1 to 1024 samples"),
        (npy(np.zeros((1025, 1, 12, 12), np.uint8)), NPY, 400, "1 to 1024 samples"),
        (b"{", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "expected a JSON object"),
        (b'{"sample": [1, 2]}', "application/json", 400, "samples must be"),
        (b'{"sample": [[1], [1, 2]]}', "application/json", 400, "nested arrays of numbers"),
        (b'{"sample": "text"}', "application/json", 400, "nested arrays of numbers"),
        (b'{"sample": [], "samples": []}', "application/json", 400, "expected"),
        (b"GIF89a not really", "image/gif", 400, "no image that can be read"),
        (b"a=b", "application/x-www-form-urlencoded", 415, "send samples as"),
        (b"x", "text/plain", 415, "send samples as"),
        (b"x", None, 415, "send samples as"),
    ],
)
def test_what_is_no_sample_is_refused_with_a_line(port, body, kind, status, says):
    found, told = ask(port, "POST", "/v1/predict", body, kind)
    assert found == status
    assert says in told["error"]


@pytest.mark.parametrize("value", [300, -1, 1.5, None])
def test_a_number_that_does_not_fit_the_tasks_type_is_no_sample(port, value):
    sample = np.zeros((1, 12, 12)).tolist()
    sample[0][3][4] = value
    status, told = ask(port, "POST", "/v1/predict", {"sample": sample})
    assert (status, told["error"]) == (400, "a value is no uint8")


@pytest.mark.parametrize(
    "more",
    [
        {"sample_ids": ["a", "a"]},
        {"sample_ids": ["a"]},
        {"sample_ids": ["a", ""]},
        {"sample_ids": [1, 2]},
        {"labels": ["dog"]},
        {"labels": [1.5, 2]},
        {"labels": [True, 1]},
    ],
)
def test_names_and_labels_that_are_none_are_refused(port, more):
    status, _ = ask(port, "POST", "/v1/predict", {"samples": pictures(2)[0].tolist(), **more})
    assert status == 400


def test_an_image_of_too_many_pixels_is_not_unpacked(port):
    bomb = bytearray(png(np.zeros((1, 1), np.uint8)))
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    crc = zlib.crc32(bytes(bomb[12:29]))
    bomb[29:33] = crc.to_bytes(4, "big")
    status, told = ask(port, "POST", "/v1/predict", bytes(bomb), "image/png")
    assert status == 400
    assert "pixels" in told["error"]


def test_without_pillow_images_are_refused_and_arrays_are_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ApiError, match=r"images need Pillow: .*, or send samples as \.npy"):
        samples_in(Request("POST", "/v1/predict", content_type="image/png", body=b"x"), PICTURES)


def test_an_image_is_no_sample_of_a_table():
    table = Task(("a", "b"), (7,), "float32", Preprocessing())
    with pytest.raises(ApiError, match="an image is no sample"):
        samples_in(Request("POST", "/v1/predict", content_type="image/png", body=b"x"), table)


# Labels and questions.


def test_what_the_model_is_least_sure_of_is_asked_with_a_picture_and_labelled(api, port):
    predict(port, pictures(20, seed=3)[0])
    _, told = ask(port, "GET", "/v1/uncertain?count=5")
    confidences = [one["confidence"] for one in told["asked"]]
    assert confidences == sorted(confidences)
    assert len(confidences) == 5
    first = told["asked"][0]
    assert first["guess"] in PICTURES.classes
    assert first["picture"]["kind"] == "image"
    status, answer = ask(port, "POST", "/v1/label", {"sample_id": first["sample_id"], "label": "fox"})
    assert (status, answer) == (200, {"sample_id": first["sample_id"], "label": "fox"})
    assert api.store.labels[first["sample_id"]] == (2, "api")
    assert ask(port, "POST", "/v1/label", {"sample_id": first["sample_id"], "label": 0})[1]["label"] == "cat"
    second = told["asked"][1]["sample_id"]
    assert ask(port, "POST", "/v1/label", {"sample_id": second, "skip": True}) == (
        200,
        {"sample_id": second, "was_asked": True},
    )
    left = {one["sample_id"] for one in ask(port, "GET", "/v1/uncertain")[1]["asked"]}
    assert not {first["sample_id"], second} & left
    assert len(left) == 18


@pytest.mark.parametrize(
    ("item", "status"),
    [
        ({"sample_id": "nobody", "label": "fox"}, 404),
        ({"sample_id": "nobody", "label": "zebra"}, 400),
        ({"sample_id": "nobody", "label": 3}, 400),
        ({"sample_id": "nobody", "label": True}, 400),
        ({"sample_id": "nobody"}, 400),
        ({"label": "fox"}, 400),
        ({"sample_id": 5, "label": "fox"}, 400),
        ([], 400),
    ],
)
def test_a_label_that_is_none_is_refused(port, item, status):
    assert ask(port, "POST", "/v1/label", item)[0] == status


def test_a_device_that_keeps_no_samples_says_so(bundle):
    with Api(bundle).tcp() as port:
        status, told = ask(port, "POST", "/v1/label", {"sample_id": "a", "label": "fox"})
        assert status == 503
        assert "keeps no samples" in told["error"]
        assert ask(port, "GET", "/v1/uncertain") == (200, {"asked": []})
        assert ask(port, "GET", "/v1/status")[1]["keeps_samples"] is False


# How it stands.


def test_the_status_tells_how_live_inference_stands(api, port):
    predict(port, pictures(4)[0])
    _, status = ask(port, "GET", "/v1/status")
    assert status["device"] == "dev-1"
    assert status["classes"] == list(PICTURES.classes)
    assert status["sample"] == {"shape": [1, 12, 12], "dtype": "uint8"}
    assert status["predictions"] == status["kept"] == 4
    assert status["last"]["label"] in PICTURES.classes
    assert status["drift"]["reference"] == "bundle"
    assert status["personal"]["temperature"] == 1.0
    assert {"preprocess", "backbone", "tail", "output"} <= set(status["latency_ms"])


def test_predictions_can_be_followed(port):
    def follow():
        told.append(ask(port, "GET", "/v1/predictions?after=0&wait_s=20")[1]["predictions"])

    told = []
    thread = threading.Thread(target=follow)
    thread.start()
    time.sleep(0.1)
    predict(port, pictures(1)[0])
    thread.join(20)
    (first,) = told[0]
    assert first["number"] == 1
    predict(port, pictures(2)[0])
    assert [one["number"] for one in ask(port, "GET", "/v1/predictions?after=1")[1]["predictions"]] == [2, 3]


def test_prometheus_reads_the_metrics(api, port):
    predict(port, pictures(5)[0])
    status, text = ask(port, "GET", "/metrics")
    assert status == 200
    lines = text.decode().splitlines()
    values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
    assert values["fedistill_agent_predictions_total"] == 5
    assert values["fedistill_agent_is_drifted"] == 0
    for stage in ("preprocess", "backbone", "tail", "output"):
        buckets = [
            values[f'fedistill_agent_stage_seconds_bucket{{stage="{stage}",le="{bound:g}"}}'] for bound in BOUNDS_S
        ]
        assert buckets == sorted(buckets)
        assert values[f'fedistill_agent_stage_seconds_bucket{{stage="{stage}",le="+Inf"}}'] == 5
        assert values[f'fedistill_agent_stage_seconds_count{{stage="{stage}"}}'] == 5
        assert values[f'fedistill_agent_stage_seconds_sum{{stage="{stage}"}}'] > 0
    names = {line.split()[2] for line in lines if line.startswith("# TYPE")}
    assert {line.split()[2] for line in lines if line.startswith("# HELP")} == names


def test_prometheus_own_parser_takes_them(api, port):
    parser = pytest.importorskip("prometheus_client.parser")
    predict(port, pictures(5)[0])
    families = {
        family.name: family
        for family in parser.text_string_to_metric_families(ask(port, "GET", "/metrics")[1].decode())
    }
    assert families["fedistill_agent_stage_seconds"].type == "histogram"
    assert families["fedistill_agent_predictions"].samples[0].value == 5


def test_without_the_setting_there_are_no_metrics(bundle):
    with Api(bundle, metrics=False).tcp() as port:
        assert ask(port, "GET", "/metrics")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/predict", 405),
        ("POST", "/v1/status", 405),
        ("GET", "/../../etc/passwd", 404),
        ("PUT", "/v1/label", 501),
        ("OPTIONS", "/v1/label", 501),
        ("GET", "/v1/uncertain?count=-1", 400),
        ("GET", "/v1/uncertain?count=1000000000000000000000000", 400),
        ("GET", "/v1/predictions?after=x", 400),
        ("POST", "/v1/predict?live=perhaps", 400),
    ],
)
def test_what_is_not_there_is_told_in_json(port, method, path, status):
    found, told = ask(port, method, path, npy(pictures(1)[0]) if method == "POST" else None, NPY)
    assert found == status
    assert set(told) == {"error"}


# Texts.

WORDS = Task(("to", "be", "or", "not"), (3,), "int32", vocabulary=6, tokens="words")


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A bundle that reads words, its weights as drawn."""
    samples = np.random.default_rng(0).integers(0, 6, (120, 3), dtype=np.int32)
    recipe = Recipe("words", "gru-s", pretraining=None, tflite="none")
    return build(recipe, WORDS, FactoryData.unlabelled(samples), tmp_path_factory.mktemp("words") / "bundle")


def test_a_text_is_asked_for_its_next_word_and_a_few_are_told(reader):
    api = Api(reader, store=MemoryStore())
    expected = api.loop.predict(np.array([[0, 1, 2]], np.int32), is_live=False).probabilities[0]
    with api.tcp() as port:
        status, told = ask(port, "POST", "/v1/predict?top=2", b"So. Well, to be, or", "text/plain; charset=utf-8")
        assert status == 200
        (one,) = told["predictions"]
        full = ask(port, "POST", "/v1/predict", b"Well to be or", "text/plain")[1]["predictions"][0]["probabilities"]
    likeliest = (-expected).argsort()[:2]
    assert [word["label"] for word in one["likeliest"]] == [WORDS.classes[place] for place in likeliest]
    assert np.allclose([word["confidence"] for word in one["likeliest"]], expected[likeliest])
    assert "probabilities" not in one
    assert len(full) == 4


def test_what_is_no_text_of_the_task_is_refused_with_a_line(reader, port):
    assert ask(port, "POST", "/v1/predict", b"to be", "text/plain")[0] == 415  # of a task of pictures
    with Api(reader, store=None).tcp() as words:
        status, told = ask(words, "POST", "/v1/predict", b"\xff", "text/plain")
        assert (status, told["error"]) == (400, "the text is no UTF-8")
        assert ask(words, "POST", "/v1/predict?top=5", b"to be", "text/plain")[0] == 400
        assert ask(words, "POST", "/v1/predict?written=1", b"to be", "text/plain")[0] == 400


def test_a_program_asks_by_a_text_and_has_one_kept(reader, tmp_path):
    api = Api(reader, store=MemoryStore())
    (tmp_path / "agent.toml").write_text(
        f"[device]\nid = 'd'\nfederation = 'f'\n[model]\nbundle = 'b'\npublic_set = 'p'\n"
        f"[state]\nfolder = '{tmp_path}'\n[api]\n[broker]\nhost = 'localhost'\nport = 1883\n"
    )
    with api.unix(tmp_path / "api.sock"), Agent(tmp_path / "agent.toml", start=False) as agent:
        said = agent.predict_next("or not to", top=3, is_live=False)
        assert len(said.likeliest) == 3
        assert said.likeliest[0] == (said.label, pytest.approx(said.confidence, rel=1e-5))
        assert agent.learn_text("Or, not to be? Well.") == 4
        with pytest.raises(AgentRefusedError, match="1 to 1024 samples, not 0"):
            agent.learn_text("Well, well.")
    assert [label for label, _ in api.store.labels.values()] == [2, 3, 0, 1]
    assert said.sample_id not in api.store.labels
    kept = {api.store.labels[name][0]: api.store.samples[name].tolist() for name in api.store.labels}
    assert kept == {2: [4, 4, 4], 3: [4, 4, 2], 0: [4, 2, 3], 1: [2, 3, 0]}


def test_people_see_words_and_not_their_numbers():
    assert picture_of(np.array([4, 5, 1], np.int32), WORDS) == {"kind": "tokens", "tokens": ["...", "be"]}
