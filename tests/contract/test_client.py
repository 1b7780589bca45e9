"""The contract stands alone: a client in another language, written from docs/, takes part in a round.

The broker is Mosquitto with the shipped configuration, certificates and rights included; the server is its own process.
"""

import json
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.identity.certificates import Role
from fd_protocol import codec
from fd_protocol.manifest import Preprocessing, Task
from fd_protocol.messages import (
    Codec,
    ConsensusBlock,
    Contribution,
    DeviceState,
    Kind,
    Receipt,
    RoundOffer,
    Status,
)
from fd_protocol.parts import split
from fd_protocol.payload import decode_body, encode_body, quantise
from fd_protocol.soft_labels import SoftLabels
from fd_protocol.topics import Topics
from fd_runtime.links.link import Arrived, LinkUp
from model_export.building import build
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe
from tests.broker_server.world import mean_of
from tests.golden.vectors import read
from tests.support.brokers import AGGREGATOR, FEDERATION, links, make_fleet, needs_mosquitto, next_event

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "constant.mjs"
PROGRAMS = ("mosquitto_pub", "mosquitto_sub")
TASK = Task(("a", "b", "c"), (12,), "uint8", Preprocessing(1 / 255))
TOPICS = Topics(FEDERATION)
START_S = 120.0
"""A busy machine takes a while to import onnxruntime."""


def has_node():
    """The client needs zlib.crc32, which came with 20.15 and 22.2."""
    check = ["node", "-e", "process.exit(require('node:zlib').crc32 ? 0 : 1)"]
    return shutil.which("node") is not None and subprocess.run(check, check=False).returncode == 0


pytestmark = [
    pytest.mark.system,
    needs_mosquitto,
    pytest.mark.skipif(not has_node(), reason="node 20.15 or newer is not installed"),
    pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="the mosquitto clients are not installed"),
]


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def fleet(tmp_path):
    fleet = make_fleet(tmp_path)
    with fleet.broker:
        yield fleet


def configured(folder, fleet):
    """A server of two devices and a client more, mean of probabilities, on the fleet's broker."""
    samples = np.random.default_rng(0).integers(0, 256, (30, 12), dtype=np.uint8)
    main(["init", str(folder), "--federation", FEDERATION, "--trust", "none"])
    none = FactoryData(samples[:0], np.empty(0, np.int64), samples)
    build(Recipe("small", "mlp-s", tflite="none"), TASK, none, folder / "bundle")
    build_public_set(folder / "public_set", samples, TASK, seed=0)
    tls = fleet.identity(AGGREGATOR, Role.AGGREGATOR)
    files = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
    path = folder / CONFIG_NAME
    text = path.read_text().replace("port = 8883", f"port = {fleet.broker.port}")
    text = text.replace('aggregator = "aggregator"', f'aggregator = "{AGGREGATOR}"')
    text = text.replace("minimum_online = 2", "minimum_online = 3").replace('"competence"', '"mean-probabilities"')
    table = "\n".join(["[broker.tls]", *(f"{name} = {json.dumps(str(file))}" for name, file in files.items())])
    path.write_text(text.replace("\n[rounds]", f"\n{table}\n\n[rounds]"))
    return path


def started(stack, *command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def hear(link, kind):
    """Return the next message of a kind that arrives."""
    while True:
        payload = next_event(link, Arrived, START_S).payload
        try:
            return codec.decode(payload, kind)
        except codec.DecodeError:
            continue


def contribute(link, name, offer):
    """Say something new, and return its codes."""
    p = np.random.default_rng([*name.encode()]).dirichlet(np.ones(3), offer.slice.count).astype(np.float32)
    codes = quantise(SoftLabels(p, offer.temperature), offer.codec)
    payload = codec.encode(Contribution(offer.slice, offer.temperature, offer.codec, encode_body(codes)))
    for part in split(payload, offer.round, Kind.CONTRIBUTION):
        link.publish(TOPICS.upload(name), codec.encode(part))
    assert hear(link, Receipt).status is Status.STORED
    return codes


def constant(count):
    """What the client's model says."""
    rows = np.tile(np.array([0.6, 0.2, 0.2], np.float32), (count, 1))
    return quantise(SoftLabels(rows, 2.0), Codec.U8_SQRT)


def test_a_client_in_another_language_takes_part_in_a_round(fleet, tmp_path, stack):
    names = ("lamp", "toaster")
    settings = [fleet.settings(name, *TOPICS.device_filters(name)) for name in names]
    opened = stack.enter_context(links(fleet.broker.port, *settings))
    for name, link in zip(names, opened, strict=True):
        next_event(link, LinkUp)
        birth = DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",))
        link.publish(TOPICS.state(name), codec.encode(birth), retain=True)
    config = configured(tmp_path / "server", fleet)
    command = "import sys; from broker_server.cli import main; sys.exit(main())"
    started(stack, sys.executable, "-c", command, "run", "--config", str(config))
    tls = fleet.identity("kettle")
    options = [
        "-h",
        "localhost",
        "-p",
        str(fleet.broker.port),
        "--cafile",
        tls.ca,
        "--cert",
        tls.certificate,
        "--key",
        tls.key,
    ]
    client = started(stack, "node", CLIENT, FEDERATION, "kettle", TASK.digest.hex(), *options)
    offer = hear(opened[0], RoundOffer)
    codes = [contribute(link, name, offer) for name, link in zip(names, opened, strict=True)]
    block = hear(opened[0], ConsensusBlock)
    said, _ = client.communicate(timeout=START_S)
    expected = quantise(SoftLabels(mean_of(*codes, constant(offer.slice.count)), offer.temperature), block.codec)
    heard = decode_body(block.body, block.codec, block.slice.count, block.slice.classes)
    np.testing.assert_array_equal(heard.array, expected.array)
    assert said.splitlines() == ["receipt stored", f"consensus {' '.join(map(str, heard.array[0]))}"]
    assert client.returncode == 0


def test_the_client_has_at_most_sixty_lines_beside_comments():
    lines = [line.strip() for line in CLIENT.read_text().splitlines()]
    assert sum(bool(line) and not line.startswith("//") for line in lines) <= 60


def test_its_cbor_writes_what_it_reads():
    """Every golden message through the client's own decoder and encoder."""
    source, golden = CLIENT.read_text(), [vector["bytes"] for vector in read("messages.json").values()]
    cbor = source[source.index("const head") : source.index("const message")]
    check = "for (const a of process.argv.slice(1)) console.log(encode(decode(Buffer.from(a, 'hex'))).toString('hex'))"
    done = subprocess.run(["node", "-e", cbor + check, *golden], check=True, capture_output=True, text=True)
    assert done.stdout.split() == golden
