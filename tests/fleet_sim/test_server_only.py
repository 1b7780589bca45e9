"""The server by itself learns from probes what the factory's labels can tell, and no class that they lack."""

import numpy as np
import pytest

from fd_runtime.fitting import LabelledRows
from fleet_sim.baselines.factory_model import FactoryModel
from fleet_sim.baselines.server_only import Gaps, SemiSupervision, server_only
from fleet_sim.worlds import new_class
from model_export.families import INPUT, LOGITS, build_family
from model_export.pretrain import PretrainTerms, pretrain
from model_export.surgery import cut, theta_of
from model_export.trainstep.compile import compile_train_step

WORLD = new_class(1)


def rows(samples):
    return LabelledRows(samples.values.astype(np.float32) / 255, samples.labels, 10)


@pytest.fixture(scope="module")
def factory():
    forward = build_family("cnn-s", WORLD.task.sample_shape, 10, seed=0)
    forward = pretrain(forward, rows(WORLD.factory), PretrainTerms(epochs=8), np.random.default_rng(0))
    network = cut(forward.model, {INPUT: "features"}, {LOGITS: "logits"})
    step = compile_train_step(
        network, input_name="features", logits_name="logits", trainable=forward.parameters, optimizer="adam"
    )
    return FactoryModel(network.SerializeToString(), step.layout, theta_of(network, step.layout))


def test_unlabelled_probes_help_with_old_classes_and_not_with_new_ones(factory):
    probes = rows(WORLD.probes).features[:400]
    terms = SemiSupervision(passes=8)
    theta = server_only(factory, rows(WORLD.factory), probes, terms, np.random.default_rng(0))
    test = rows(WORLD.test)
    is_new = np.isin(test.labels, WORLD.new_classes)
    old = LabelledRows(test.features[~is_new], test.labels[~is_new], 10)
    new = LabelledRows(test.features[is_new], test.labels[is_new], 10)
    assert factory.accuracy(theta, old) > factory.accuracy(factory.theta, old) + 0.02
    assert factory.accuracy(theta, new) < 0.05


def test_the_same_seed_gives_the_same_weights(factory):
    terms = SemiSupervision(passes=1)
    probes = rows(WORLD.probes).features[:64]
    first, second = (
        server_only(factory, rows(WORLD.factory), probes, terms, np.random.default_rng(3)) for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_a_view_of_tokens_has_gaps_that_other_samples_fill():
    samples = np.random.default_rng(0).integers(0, 50, (400, 8), dtype=np.int32)
    view = Gaps(share=0.2).view(samples, np.random.default_rng(1))
    assert view.dtype == np.int32
    assert 0.17 < (view != samples).mean() < 0.22
    place = 3
    assert np.isin(view[:, place], samples[:, place]).all()
