"""Orders to a real server beside a real Mosquitto: another public set, and a device that is forgotten while it runs."""

import json
import signal
import subprocess
import sys

import numpy as np

from broker_server.cli import main
from fd_protocol.messages import ConsensusBlock, DeviceState, ProbeNotice, Receipt, RoundOffer, Status
from fd_runtime.artifacts import load_public_set
from fd_runtime.links.link import LinkSettings, LinkUp
from model_export.public_set import build_public_set
from tests.support.brokers import links, next_event
from tests.system.test_server_process import (  # noqa: F401 - fixtures among them
    START_S,
    TASK,
    TOPICS,
    Device,
    broker,
    codec,
    config,
    processes,
    pytestmark,
)

NAMES = ("kettle", "lamp", "toaster")
COMMAND = [sys.executable, "-c", "import sys; from broker_server.cli import main; sys.exit(main())"]


class Fellow(Device):
    """A device that says which public sets it has."""

    def __init__(self, name, link, sets):
        self.name, self.link = name, link
        next_event(link, LinkUp)
        state = DeviceState(1, online=True, task=TASK.digest, capabilities=("u8-sqrt",), public_sets=sets)
        link.publish(TOPICS.state(name), codec.encode(state), retain=True)


def order(config, *arguments):  # noqa: F811
    done = subprocess.run(
        [*COMMAND, *map(str, arguments), "--wait", "60", "--config", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def answer(devices, offer):
    for device in devices:
        device.contribute(offer)
        assert device.hear(Receipt).status is Status.STORED


def test_a_running_server_tries_and_takes_another_set_and_forgets_a_device(config, broker, processes, tmp_path, capsys):  # noqa: F811
    samples = np.random.default_rng(3).integers(0, 256, (20, 12), dtype=np.uint8)
    build_public_set(tmp_path / "other", samples, TASK, seed=1)
    old, new = (load_public_set(tmp_path / name).digest for name in ("public_set", "other"))
    settings = [LinkSettings(name, subscriptions=TOPICS.device_filters(name)) for name in NAMES]
    text = config.read_text()
    text = text.replace("minimum_online = 3", "minimum_online = 2")  # who is forgotten is not online
    config.write_text(text.replace("pause_s = 0.0", "pause_s = 1.0"))
    with links(broker.port, *settings) as opened:
        server = processes(config)
        devices = [Fellow(s.client_id, link, (old, new)) for s, link in zip(settings, opened, strict=True)]
        first = devices[0].hear(RoundOffer)
        assert "is staged" in order(config, "probes", "stage", tmp_path / "other")
        notice = devices[0].hear(ProbeNotice)
        assert (notice.current.public_set, [ref.public_set for ref in notice.coming]) == (old, [new])
        assert "trial of edition 2" in order(config, "probes", "trial")
        answer(devices, first)
        assert devices[0].hear(ConsensusBlock).round == first.round
        trial = devices[0].hear(RoundOffer)
        assert trial.slice.public_set == new
        answer(devices, trial)
        after = devices[0].hear(RoundOffer)
        assert after.slice.public_set == old
        assert "edition 2 is current" in order(config, "probes", "switch")
        assert "erased: " in order(config, "forget", "toaster")
        answer(devices[:2], after)
        last = devices[0].hear(RoundOffer)
        assert last.slice.public_set == new
        server.send_signal(signal.SIGINT)
        assert server.wait(START_S) == 0
    files = b"".join(path.read_bytes() for path in (tmp_path / "state").glob("server.db*"))
    capsys.readouterr()
    assert main(["devices", "--config", str(config), "--json"]) == 0
    assert [one["device"] for one in json.loads(capsys.readouterr().out)] == ["kettle", "lamp"]
    assert files.count(b"toaster") <= 3, "in the log of commands and in the last answers"
