"""A space is worth something where the nearest of another person means the same."""

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fleet_sim.data import Dataset
from fleet_sim.metrics.neighbours import Draw, agreement, nearest


def people(*, groups=True):
    """Three people of two classes; the first number tells the class, the second only the person."""
    rng = np.random.default_rng(0)
    labels, who = np.tile([0, 1], 60).astype(np.int64), np.repeat([0, 1, 2], 40).astype(np.int64)
    samples = np.stack([labels + rng.normal(0, 0.1, 120), 10 * who + rng.normal(0, 0.1, 120)], axis=1)
    named = {"groups": who, "group_names": ("a", "b", "c")} if groups else {}
    task = Task(("no", "yes"), (2,), "float32")
    return Dataset(
        name="p", task=task, samples=samples.astype(np.float32), labels=labels, source="", licence="CC0-1.0", **named
    )


def shares(vectors, draw=Draw(dimensions=1)):  # noqa: B008 - frozen
    return agreement(people(), vectors, draw, np.random.default_rng(1))


def test_the_share_is_of_all_and_of_each_class():
    assert shares(lambda samples: samples[:, :1]).tolist() == [1.0, 1.0, 1.0]
    assert shares(lambda samples: -samples[:, :1] * (samples[:, 1:] > 5)).max() < 1  # the first person is anywhere


def test_what_tells_only_the_person_agrees_by_chance():
    assert 0.2 < shares(lambda samples: samples[:, 1:])[0] < 0.8


def test_as_many_of_each_person_are_asked():
    counted = []
    shares(lambda samples: counted.append(len(samples)) or samples, Draw(of_each=10, dimensions=2))
    assert counted == [30]


def test_a_neighbour_is_another_persons():
    points = np.array([[0.0], [0.1], [5.0]], np.float32)
    assert nearest(points, np.array([0, 0, 1])).tolist() == [2, 2, 1]
    with pytest.raises(InvalidValueError, match="a neighbour is another's"):
        agreement(people(groups=False), lambda samples: samples, Draw(), np.random.default_rng(0))
