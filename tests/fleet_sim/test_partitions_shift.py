"""What devices see differently, what moves, what is labelled wrongly, and how uneven it all is."""

import numpy as np
import pytest

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Preprocessing, Task
from fleet_sim.partitions import Drift, ImageShift, LabelNoise, SensorShift, class_counts, measure_skew
from fleet_sim.partitions.shift import blurred, rotated

IMAGES = Task(("a", "b"), (1, 9, 9), "uint8", Preprocessing(1 / 255))
SENSORS = Task(("a", "b"), (3, 20), "float32")


def pictures(rows=6, size=9) -> np.ndarray:
    return np.random.default_rng(0).integers(60, 190, (rows, 1, size, size), dtype=np.uint8)


def signals(rows=50) -> np.ndarray:
    unit = np.array([1.0, 100.0, 0.01]).reshape(3, 1)
    return (np.random.default_rng(0).standard_normal((rows, 3, 20)) * unit + 5 * unit).astype(np.float32)


def draws_of(device: int, seed: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 6, device]).uniform(-1, 1, count)


def test_no_shift_changes_nothing():
    images, waves = pictures(), signals()
    np.testing.assert_array_equal(ImageShift().over(images, IMAGES)(images, device=3, seed=1), images)
    np.testing.assert_array_equal(SensorShift().over(waves, SENSORS)(waves, device=3, seed=1), waves)


@pytest.mark.parametrize(
    ("shift", "samples", "task"),
    [(ImageShift(0.5, 0.1, 0.05, 20), pictures(), IMAGES), (SensorShift(0.3, 0.5), signals(), SENSORS)],
)
def test_a_shift_belongs_to_device_and_seed(shift, samples, task):
    distort = shift.over(samples, task)
    once = distort(samples, device=2, seed=7)
    assert once.dtype == samples.dtype
    np.testing.assert_array_equal(once, distort(samples, device=2, seed=7))
    assert not np.array_equal(once, distort(samples, device=3, seed=7))
    assert not np.array_equal(once, distort(samples, device=2, seed=8))
    np.testing.assert_array_equal(distort(samples, device=2, seed=7, strength=0.0), samples)


def test_contrast_and_brightness_are_a_line_in_grey():
    images = pictures()
    contrast, brightness, _ = draws_of(4, 0, 3)
    found = ImageShift(contrast=0.4, brightness=0.1).over(images, IMAGES)(images, device=4, seed=0)
    expected = (images - 127.5) * 1.4**contrast + 127.5 + 0.1 * brightness * 255
    np.testing.assert_allclose(found, expected.clip(0, 255), atol=0.51)


def test_grey_stays_between_black_and_white_of_the_task():
    digits = Task(("a", "b"), (64,), "uint8", Preprocessing(1 / 16))
    samples = np.random.default_rng(1).integers(0, 17, (50, 64), dtype=np.uint8)
    for device in range(10):
        seen = ImageShift(contrast=2.0, brightness=0.5, noise=0.3).over(samples, digits)(samples, device=device, seed=0)
        assert seen.max() <= 16


def test_noise_has_the_deviation_that_the_device_drew():
    grey = np.full((200, 1, 9, 9), 128, np.uint8)
    seen = ImageShift(noise=0.1).over(grey, IMAGES)(grey, device=1, seed=0)
    generator = np.random.default_rng([0, 6, 1])
    generator.uniform(-1, 1, 3)
    assert seen.std() == pytest.approx(0.1 * generator.uniform() * 255, rel=0.05)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, -1)])
def test_quarter_turns_are_exact(degrees, turns):
    images = pictures(size=8).astype(np.float32)
    np.testing.assert_array_equal(rotated(images, degrees), np.rot90(images, turns, axes=(2, 3)))


def test_a_rotation_is_bilinear():
    scipy = pytest.importorskip("scipy.ndimage")  # comes with scikit-learn
    images = np.zeros((1, 2, 11, 14), np.float32)
    images[:, :, 3:8, 4:10] = np.random.default_rng(2).random((1, 2, 5, 6))
    expected = scipy.rotate(images, 25, axes=(3, 2), reshape=False, order=1)
    np.testing.assert_allclose(rotated(images, 25), expected, atol=1e-5)


@pytest.mark.parametrize("deviation_px", [0.4, 1.0, 2.3])
def test_a_blur_is_gaussian_and_edges_go_on(deviation_px):
    scipy = pytest.importorskip("scipy.ndimage")
    images = np.random.default_rng(2).random((2, 3, 11, 14), np.float32)
    radius = int(np.ceil(3 * deviation_px))
    expected = scipy.gaussian_filter(images, deviation_px, mode="nearest", axes=(2, 3), radius=radius)
    np.testing.assert_allclose(blurred(images, deviation_px), expected, atol=1e-6)


def test_a_device_blurs_by_its_own_spot():
    seen = ImageShift(blur_px=3.0).over(pictures(), IMAGES)(pictures(), device=4, seed=2)
    rng = np.random.default_rng([2, 6, 4])
    spot = 3.0 * rng.uniform(size=5)[4]  # after contrast, brightness, rotation and noise
    np.testing.assert_array_equal(seen, np.rint(blurred(pictures().astype(np.float32), spot)).astype(np.uint8))


def test_a_sensor_has_a_gain_and_an_offset_for_each_channel():
    waves = signals()
    gain, offset = draws_of(5, 2, 6).reshape(2, 3, 1)
    felt = SensorShift(gain=0.5, offset=0.2).over(waves, SENSORS)(waves[:4], device=5, seed=2)
    deviation = waves.std(axis=(0, 2)).reshape(3, 1)
    np.testing.assert_allclose(felt, waves[:4] * 1.5**gain + 0.2 * offset * deviation, rtol=1e-5, atol=1e-7)


def test_columns_of_a_table_are_channels_and_missing_values_stay_missing():
    table = np.random.default_rng(3).standard_normal((40, 4)).astype(np.float32)
    table[::3, 1] = np.nan
    table[:, 2] = np.nan
    task = Task(("a", "b"), (4,), "float32")
    felt = SensorShift(gain=0.2, offset=1.0).over(table, task)(table, device=0, seed=0)
    np.testing.assert_array_equal(np.isnan(felt), np.isnan(table))
    gain, offset = draws_of(0, 0, 8).reshape(2, 4)
    expected = table[:, 1] * 1.2 ** gain[1] + offset[1] * np.nanstd(table[:, 1])
    np.testing.assert_allclose(felt[:, 1], expected, rtol=1e-5)


def test_a_shift_refuses_samples_of_another_kind():
    with pytest.raises(InvalidValueError, match="needs uint8 images, not float32"):
        ImageShift().over(signals(), SENSORS)
    with pytest.raises(InvalidValueError, match="needs float32 samples, not uint8"):
        SensorShift().over(pictures(), IMAGES)
    with pytest.raises(InvalidValueError, match=r"rotation and blur need images \[channels, height, width\]"):
        ImageShift(blur_px=1).over(np.zeros((2, 64), np.uint8), Task(("a", "b"), (64,), "uint8"))
    with pytest.raises(InvalidValueError, match="0 or more"):
        ImageShift(noise=-0.1)


def test_every_row_is_in_the_window_equally_often_in_a_cycle():
    drift, labels = Drift(window=0.4, cycle_rounds=10), np.repeat(np.arange(5), 8)
    held = [drift.rows(labels, number, device=1, seed=0) for number in range(1, 11)]
    assert {len(rows) for rows in held} == {16}
    np.testing.assert_array_equal(np.bincount(np.concatenate(held), minlength=40), np.full(40, 4))


def test_the_window_goes_through_class_after_class_and_comes_back():
    drift, labels = Drift(window=0.25, cycle_rounds=4), np.repeat([2, 0, 1, 3], 5)
    classes = [set(labels[drift.rows(labels, number, device=6, seed=3)].tolist()) for number in range(1, 6)]
    assert [len(one) for one in classes] == [1] * 5
    assert set.union(*classes[:4]) == {0, 1, 2, 3}
    assert classes[4] == classes[0]


def test_a_drift_belongs_to_device_and_seed_and_is_off_at_first():
    labels = np.random.default_rng(0).integers(0, 10, 200)
    np.testing.assert_array_equal(Drift().rows(labels, 9, device=0, seed=0), np.arange(200))
    drift = Drift(window=0.3)
    rows = {
        (device, seed): drift.rows(labels, 4, device=device, seed=seed).tolist() for device in (0, 1) for seed in (0, 1)
    }
    assert len({tuple(one) for one in rows.values()}) == 4
    assert rows[0, 0] == drift.rows(labels, 4, device=0, seed=0).tolist()
    assert drift.rows(labels[:0], 1, device=0, seed=0).tolist() == []


def test_a_shift_grows_to_its_full_strength():
    assert [Drift(shift_rounds=4).strength(number) for number in (1, 2, 5, 9)] == [0, 0.25, 1, 1]
    assert Drift().strength(1) == 1


@pytest.mark.parametrize("toward", ["any", "next"])
def test_so_many_labels_are_wrong_and_the_others_right(toward):
    labels = np.random.default_rng(0).integers(0, 5, 1000)
    noisy = LabelNoise(0.3, toward).apply(labels, 5, np.random.default_rng(1))
    wrong = noisy != labels
    assert wrong.sum() == 300
    steps = set(((noisy - labels) % 5)[wrong].tolist())
    assert steps == ({1, 2, 3, 4} if toward == "any" else {1})


def test_the_skew_of_a_partition_by_hand():
    labels = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    parts = [np.array([0, 1, 2, 3]), np.array([4, 5]), np.array([6, 7]), np.array([], np.int64)]
    np.testing.assert_array_equal(class_counts(labels, parts, 4)[0], [2, 2, 0, 0])
    skew = measure_skew(labels, parts, 4)
    assert skew.total_variation == pytest.approx((0.5 + 0.75 + 0.75) / 3)
    assert skew.effective_classes == pytest.approx((2 + 1 + 1) / 3)
    assert skew.effective_devices == pytest.approx(64 / (16 + 4 + 4))
    assert skew.empty == 1


def test_an_even_partition_has_no_skew():
    labels = np.tile(np.arange(10), 20)
    skew = measure_skew(labels, np.split(np.arange(200), 20), 10)
    assert skew.total_variation == pytest.approx(0)
    assert skew.effective_classes == pytest.approx(10)
    assert skew.effective_devices == pytest.approx(20)


def test_of_nothing_there_is_no_skew():
    with pytest.raises(InvalidValueError, match="no device holds a row"):
        measure_skew(np.array([0, 1]), [np.array([], np.int64)], 2)
