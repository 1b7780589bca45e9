"""Methods that change what is on the wire, with real programs: `broker-server`, `edge-agent` and a Mosquitto."""

import subprocess
import sys
from contextlib import ExitStack

import numpy as np
import pytest

from broker_server.cli import CONFIG_NAME, main
from broker_server.journal import Journal
from edge_agent.learning import checkpoint as checkpoints
from fd_protocol.manifest import Preprocessing, Task
from fd_runtime.artifacts import load_bundle
from fd_runtime.space import preprocessed
from fd_runtime.storage.store import Store, StoreError
from model_export.building import build
from model_export.pretrain import PretrainTerms
from model_export.public_set import build_public_set
from model_export.recipe import FactoryData, Recipe
from tests.support.brokers import needs_mosquitto, plain_mosquitto
from tests.support.patience import wait_until
from tests.support.programs import stop

pytestmark = [pytest.mark.system, needs_mosquitto]

TASK = Task(("a", "b", "c", "d"), (12,), "uint8", Preprocessing(1 / 255))
CLASSES, ROUNDS = 4, 2


def kinds(count, seed, classes=range(CLASSES)):
    """Samples uint8 [count, 12] and labels [count]: each kind is bright in its own quarter."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(classes), count)
    pictures = rng.integers(0, 110, (count, 12))
    pictures[np.arange(12) // 3 == labels[:, None]] += 90
    return pictures.astype(np.uint8), labels.astype(np.int64)


class Place:
    """A folder with a server and devices in it, and a broker."""

    def __init__(self, folder, stack, family):
        self.folder, self.stack = folder, stack
        samples, labels = kinds(80, seed=0, classes=(0, 1, 2))
        recipe = Recipe("small", family, tflite="none", pretraining=PretrainTerms(epochs=40))
        self.bundle = build(recipe, TASK, FactoryData(samples, labels, samples), folder / "bundle")
        self.broker = stack.enter_context(plain_mosquitto(folder))

    def serve(self, method, devices, *changes):
        main(["init", str(self.folder), "--federation", "demo", "--trust", "none"])
        path = self.folder / CONFIG_NAME
        text = path.read_text()
        replaced = [
            ("port = 8883", f"port = {self.broker.port}"),
            ('name = "competence"', f'name = "{method}"'),
            ("minimum_online = 2", f"minimum_online = {devices}"),
            ("quorum = 2", f"quorum = {devices}"),
            ("count = 0", f"count = {ROUNDS}"),
            ("epochs = 2\nlearning_rate = 2e-3", "epochs = 40\nlearning_rate = 5e-3"),
            *changes,
        ]
        for old, new in replaced:
            assert old in text, old
            text = text.replace(old, new, 1)
        path.write_text(text)
        self.start("broker_server", path)

    def device(self, name, samples, labels, *, model="", data=""):
        folder = self.folder / name
        folder.mkdir()
        np.savez(folder / "private.npz", x=samples, y=labels)
        path = folder / "agent.toml"
        path.write_text(
            f'[device]\nid = "{name}"\nfederation = "demo"\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {self.broker.port}\n'
            f'[model]\nbundle = "{self.bundle.folder}"\n{model}\n'
            f'[data]\nprivate = "private.npz"\n{data}\n'
            f'[state]\nfolder = "state"\n'
        )
        self.start("edge_agent", path)

    def start(self, program, config):
        code = f"import sys; from {program}.cli import main; sys.exit(main())"
        log = self.stack.enter_context((config.parent / "log").open("wb"))
        process = subprocess.Popen([sys.executable, "-c", code, "run", "--config", str(config)], stderr=log)
        self.stack.callback(stop, process)

    def state(self):
        """The server's state; None before there is one."""
        try:
            with Store.view(self.folder / "state" / "server.db") as store:
                return Journal(store, "demo").replay()
        except StoreError:
            return None

    def trained_on(self, name, digest):
        """The device's checkpoint, once it has trained on the consensus."""
        kept = checkpoints.load(self.folder / name / "state" / "checkpoint")
        is_of = kept is not None and kept.trained is not None and kept.trained.consensus_sha256 == digest
        return kept if is_of else None

    def last_consensus(self):
        def closed():
            state = self.state()
            consensus = state.consensus if state is not None else None
            return consensus if consensus is not None and consensus.round.number == ROUNDS else None

        return wait_until(closed)

    def accuracy(self, checkpoint, samples, labels):
        model = load_bundle(self.bundle.folder).open("onnxruntime")
        model.tail.load(checkpoint.state().theta)
        return (model.tail.logits(model.features(preprocessed(samples, TASK))).argmax(axis=1) == labels).mean()


def test_a_device_learns_from_prototypes_a_class_that_it_has_never_seen(tmp_path):
    with ExitStack() as stack:
        place = Place(tmp_path, stack, "tab-s")
        place.serve("prototypes", 2, ('public_set = "public_set"', "# no public set"))
        place.device("here", *kinds(80, 1, classes=(0, 1)), data="prototypes = true")
        place.device("there", *kinds(80, 2, classes=(2, 3)), data="prototypes = true")
        consensus = place.last_consensus()
        assert consensus.metrics["voices"] == 2
        kept = wait_until(lambda: place.trained_on("here", consensus.sha256))
        assert place.accuracy(kept, *kinds(200, 3, classes=(3,))) > 0.8
        assert place.accuracy(kept, *kinds(200, 4, classes=(0, 1))) > 0.8


def test_each_of_two_camps_learns_what_its_own_says(tmp_path):
    with ExitStack() as stack:
        place = Place(tmp_path, stack, "mlp-s")
        probes, _ = kinds(200, 5)
        public = tmp_path / "public_set"
        build_public_set(public, probes, TASK, seed=0)
        place.serve("comet", 4, ("cluster_least = 3", "cluster_least = 2"))
        for number in range(4):
            samples, labels = kinds(120, 10 + number)
            camp = number // 2
            place.device(f"d{number}", samples, (labels + camp) % CLASSES, model=f'public_set = "{public}"')
        consensus = place.last_consensus()
        assert consensus.metrics["clusters"] == 2
        samples, labels = kinds(300, 20)
        for number in range(4):
            kept = wait_until(lambda number=number: place.trained_on(f"d{number}", consensus.sha256))
            assert place.accuracy(kept, samples, (labels + number // 2) % CLASSES) > 0.8
        assert main(["verify", "--config", str(tmp_path / CONFIG_NAME)]) == 0
