"""What the server can do by itself: semi-supervised learning on the factory's labels and the public probes, no device.

FixMatch (Sohn et al. 2020), a pass at a time: the model labels every probe that it is sure of on the plain image, and
learns those labels, and the factory's, on strongly distorted views (eq. 3-4). On a task where this wins, nobody needs
the devices; a comparison without it proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fd_protocol.soft_labels import soften
from fd_runtime.fitting import FitTerms, LabelledRows, fit
from fd_runtime.models.model import F32, I32, Inputs
from fleet_sim.baselines.factory_model import FactoryModel
from model_export.augment import Augmentation


class Distortion(Protocol):
    """How views differ from the samples that they are of."""

    def view(self, samples: Any, rng: np.random.Generator, /) -> Any:  # of each kind of samples another one
        """Return one random view of each sample, of the same shape and type."""
        ...


@dataclass(frozen=True, slots=True)
class Noise:
    """Views of samples that are no images: normal noise, `share` of the samples' own deviation."""

    share: float = 0.3

    def view(self, samples: F32, rng: np.random.Generator) -> F32:
        """Return one random view of each sample."""
        views: F32 = samples + np.float32(self.share * samples.std()) * rng.standard_normal(samples.shape, np.float32)
        return views


@dataclass(frozen=True, slots=True)
class Gaps:
    """Views of samples of tokens: a `share` of the tokens is what stands at that place in another sample."""

    share: float = 0.1

    def view(self, samples: I32, rng: np.random.Generator) -> I32:
        """Return one random view of each sample."""
        return np.where(rng.random(samples.shape) < self.share, rng.permutation(samples), samples)


@dataclass(frozen=True, slots=True)
class SemiSupervision:
    """How the server learns.

    Attributes:
        passes: over factory rows and sure probes.
        learning_rate: of Adam.
        threshold: a probe is sure if its largest probability is at least this (tau of FixMatch).
        factory_repeats: copies of the factory's rows in a pass, so that a thousand probes do not drown them.
        distortion: of the views that are learned.
    """

    passes: int = 60
    learning_rate: float = 1e-3
    threshold: float = 0.95
    factory_repeats: int = 3
    distortion: Distortion = Augmentation(rotation_degrees=25.0, scale=0.2, shear=0.3, shift_pixels=3.5, noise=0.1)


def server_only(
    factory: FactoryModel, labelled: LabelledRows, probes: Inputs, terms: SemiSupervision, rng: np.random.Generator
) -> F32:
    """Return theta after `terms`.

    Args:
        factory: a model all of whose layers train.
        labelled: the factory's rows, features as the distortion takes them: images [n, channels, height, width].
        probes: unlabelled samples likewise.
        terms: how to learn.
        rng: draws views and the order of rows.
    """
    session = factory.session("adam")
    fit_terms = FitTerms(epochs=1, learning_rate=terms.learning_rate)
    for _ in range(terms.passes):
        rows = _joined(labelled, _sure(factory, session.state.theta, labelled, probes, terms.threshold), terms)
        views = terms.distortion.view(rows.features, rng)
        fit(session, replace(rows, features=views), None, fit_terms, rng)
    return session.state.theta


def _sure(factory: FactoryModel, theta: F32, labelled: LabelledRows, probes: Inputs, threshold: float) -> LabelledRows:
    """Return the probes that the model is sure of, with its own labels."""
    unlabelled = LabelledRows(probes, np.zeros(len(probes), np.int64), labelled.classes)
    probabilities = soften(factory.logits(theta, unlabelled), 1.0)
    is_sure = probabilities.max(axis=1) >= threshold
    return LabelledRows(probes[is_sure], probabilities[is_sure].argmax(axis=1), labelled.classes)


def _joined(labelled: LabelledRows, sure: LabelledRows, terms: SemiSupervision) -> LabelledRows:
    features = np.concatenate([*[labelled.features] * terms.factory_repeats, sure.features])
    labels = np.concatenate([*[labelled.labels] * terms.factory_repeats, sure.labels])
    return LabelledRows(features, labels, labelled.classes)
