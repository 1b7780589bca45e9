"""Bundles that devices are given, good ones and bad ones, as packages on a real web server."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edge_agent.slots.machine import Offered
from fd_protocol.identity import sha256
from fd_protocol.manifest import MANIFEST_NAME, FileEntry, Role
from fd_runtime.artifacts import Bundle, load_bundle
from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.golden import Golden
from fd_runtime.models.model import split_theta
from fd_runtime.models.proof import check_on
from fd_runtime.packages import pack
from fd_runtime.releases import release, seal
from fd_runtime.space import preprocessed
from fd_runtime.tuf.target_facts import facts_of
from model_export.building import build
from model_export.recipe import FactoryData, Recipe
from tests.edge_agent.artifacts import TASK, clouds
from tests.support.once import once
from tests.support.trust import Trust


def make_factory(folder: Path) -> Bundle:
    """The bundle that devices are born with; it has learnt nothing."""
    shutil.copytree(once("factory of clouds", _make_factory) / "bundle", folder)
    return load_bundle(folder)


def _make_factory(folder: Path) -> None:
    samples, labels = clouds(64, seed=2)
    data = FactoryData(samples, labels, samples)
    build(Recipe("clouds", "mlp-s", trains="everything"), TASK, data, folder / "bundle")


def learnt(factory: Bundle, epochs: int) -> np.ndarray:
    """Parameters after some epochs on three clouds."""
    samples, labels = clouds(300, seed=4)
    model = factory.open("onnxruntime")
    rows = LabelledRows(model.features(preprocessed(samples, TASK)), labels, 3)
    fit(model.train_session, rows, None, FitTerms(epochs, learning_rate=0.02), np.random.default_rng(0))
    return model.train_session.state.theta


class Shop:
    """Packages as a release server has them, vouched for: FOLDER/v1/blobs/SHA256 and FOLDER/v1/tuf."""

    def __init__(self, factory: Bundle, folder: Path):
        self.factory, self.place = factory, folder
        self.trust = Trust(folder / "owner", factory.manifest.family)
        self.folder, self.blobs = self.trust.web, self.trust.blobs
        self.trust.deliver()
        self.blobs.mkdir(parents=True)

    @property
    def root(self) -> Path:
        """What devices are born with."""
        return self.trust.signed / "1.root.json"

    def good(self, version="1.r1", epochs=10):
        return self.put(release(self.factory, learnt(self.factory, epochs), self._place(version), version=version))

    def keeping(self, version="1.k1", epochs=10):
        """Whoever has learnt goes on with it."""
        place, theta = self._place(version), learnt(self.factory, epochs)
        return self.put(release(self.factory, theta, place, version=version, keeps_tail=True))

    def clueless(self, version="1.r2"):
        """Well made, and it knows nothing: every answer is the same."""
        theta = np.zeros(self.factory.manifest.layout.size, np.float32)
        return self.put(release(self.factory, theta, self._place(version), version=version))

    def unlike_its_golden_vectors(self, version="1.r3"):
        """Every digest is right, and the tail is another one than the golden vectors were made with."""
        good = release(self.factory, learnt(self.factory, 10), self._place(version), version=version)
        folder = self._place(f"{version}-swapped")
        shutil.copytree(good.folder, folder)
        tail = self.factory.read(Role.TAIL)
        entry = FileEntry.of(good.manifest.files[Role.TAIL].path, tail)
        (folder / entry.path).write_bytes(tail)
        files = {**good.manifest.files, Role.TAIL.value: entry}
        (folder / MANIFEST_NAME).write_bytes(replace(good.manifest, files=files).to_json())
        return self.put(load_bundle(folder))

    def of_another_family(self, version="1.r4"):
        good = release(self.factory, learnt(self.factory, 10), self._place(version), version=version)
        folder = self._place(f"{version}-renamed")
        shutil.copytree(good.folder, folder)
        (folder / MANIFEST_NAME).write_bytes(replace(good.manifest, family="mlp-xl").to_json())
        return self.put(load_bundle(folder))

    def keeping_with_another_graph(self, version="1.k9"):
        """The layout and the backbone of the factory's, and a tail that reads the parameters otherwise."""
        theta = learnt(self.factory, 10)
        for part in split_theta(theta, self.factory.manifest.layout).values():
            if part.shape[-1] == len(TASK.classes) or part.shape[0] == len(TASK.classes):
                np.negative(part, out=part)  # a view
        made = release(self.factory, theta, self._place(version), version=version, keeps_tail=True)
        tail = onnx.load_from_string(made.read(Role.TAIL))
        for node in tail.graph.node:
            node.output[:] = ["turned" if name == "logits" else name for name in node.output]
        tail.graph.node.append(onnx.helper.make_node("Neg", ["turned"], ["logits"]))
        entry = FileEntry.of(made.manifest.files[Role.TAIL].path, tail.SerializeToString())
        (made.folder / entry.path).write_bytes(tail.SerializeToString())
        known = Golden.from_bytes(made.read(Role.GOLDEN), TASK)
        files = {**made.manifest.files, Role.TAIL.value: entry}
        draft = Bundle(made.folder, replace(made.manifest, files=files, verified_on=("onnxruntime",)))
        return self.put(seal(draft, known.samples, known.labels, check_on))

    def put(self, bundle: Bundle) -> Offered:
        package = pack(bundle, parent=self.factory)
        digest = sha256(package).hex()
        facts = facts_of(bundle, self.factory)
        self.trust.add(package, replace(facts, family=self.factory.manifest.family))
        self.trust.deliver()
        return Offered(bundle.digest.hex(), bundle.manifest.version, digest, len(package))

    def _place(self, version: str) -> Path:
        return self.place / "bundles" / version
