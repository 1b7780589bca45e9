"""Samples come from folders, npz, npy and CSV, as the task records them, or are refused by the file's name."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image

from fd_protocol.manifest import Task
from model_export.samples import DataError, read_samples

IMAGES = Task(("cat", "dog"), (1, 4, 6), "uint8")
TABLE = Task(("well", "ill"), (3,), "float32")
TOKENS = Task(("a", "b", "c"), (5,), "int32", vocabulary=3)


def picture(path, shade, size=(6, 4), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, shade).save(path)


def write(path, text):
    path.write_text(text)
    return path


def test_a_folder_of_folders_is_labelled_by_their_names(tmp_path):
    for name, shade in (("dog/2.png", 200), ("cat/1.png", 10), ("dog/1.png", 100)):
        picture(tmp_path / name, shade)
    samples = read_samples(tmp_path, IMAGES)
    assert samples.labels.tolist() == [0, 1, 1]
    assert samples.values.shape == (3, 1, 4, 6)
    assert samples.values[:, 0, 0, 0].tolist() == [10, 100, 200]


def test_a_flat_folder_has_no_labels(tmp_path):
    picture(tmp_path / "1.png", 3)
    assert read_samples(tmp_path, IMAGES).labels is None


def test_images_are_brought_to_the_extents_and_channels_of_the_task(tmp_path):
    picture(tmp_path / "1.png", (255, 0, 0), size=(30, 10), mode="RGB")
    for shape in ((3, 4, 6), (4, 6, 3)):
        value = read_samples(tmp_path, Task(("a", "b"), shape, "uint8")).values[0]
        assert value.shape == shape
        assert np.moveaxis(value, shape.index(3), 0).reshape(3, -1).mean(axis=1).tolist() == [255, 0, 0]
    assert read_samples(tmp_path, Task(("a", "b"), (4, 6), "uint8")).values.shape == (1, 4, 6)


def test_arrays_may_lie_in_a_folder_too(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.full((1, 4, 6), len(name), np.uint8))
    assert read_samples(tmp_path, IMAGES).labels.tolist() == [0, 1]


def test_an_npz_may_have_labels(tmp_path):
    x = np.zeros((2, 1, 4, 6), np.uint8)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([[1], [0]]))
    np.savez(tmp_path / "b.npz", x=x)
    assert read_samples(tmp_path / "a.npz", IMAGES).labels.tolist() == [1, 0]
    assert read_samples(tmp_path / "b.npz", IMAGES).labels is None


def test_a_csv_has_a_class_column_and_cells_without_a_value(tmp_path):
    text = "age,pressure,sick,weight\n50,,ill,70.5\n40,120,well,\n"
    samples = read_samples(write(tmp_path / "a.csv", text), TABLE, label="sick")
    np.testing.assert_array_equal(samples.values, np.array([[50, np.nan, 70.5], [40, 120, np.nan]], np.float32))
    assert samples.labels.tolist() == [1, 0]
    with gzip.open(tmp_path / "a.csv.gz", "wt") as file:
        file.write(text)
    np.testing.assert_array_equal(read_samples(tmp_path / "a.csv.gz", TABLE, label="sick").values, samples.values)


def test_a_csv_without_the_class_column_is_unlabelled_and_numbers_are_classes_too(tmp_path):
    assert read_samples(write(tmp_path / "a.csv", "a,b,c\n1,2,3\n"), TABLE).labels is None
    assert read_samples(write(tmp_path / "b.csv", "a,b,c,y\n1,2,3,1\n"), TABLE).labels.tolist() == [1]


def test_tokens_are_whole_numbers_of_the_vocabulary(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0, 1, 2, 2, 0]], np.int32))
    assert read_samples(tmp_path / "a.npy", TOKENS).values.dtype == np.int32
    np.save(tmp_path / "b.npy", np.array([[0, 1, 3, 2, 0]], np.int32))
    with pytest.raises(DataError, match="tokens must lie from 0 to 2"):
        read_samples(tmp_path / "b.npy", TOKENS)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b,c\n1,2\n", "line 2 has 2 cells, the head line 3"),
        ("a,b,c\n1,2,x\n", "line 2, column 'c': 'x' is no number"),
        ("a,b\n1,2\n", "2 columns besides the label 'y', a sample of \\[3\\] has 3"),
        ("a,b,c,y\n1,2,3,dead\n", "neither a class of the task nor a number"),
        ("a,b,c,y\n1,2,3,ill\n1,2,3,dead\n", "'dead' is no class"),
        ("a,b,c,y\n1,2,3,2\n", "no integer from 0 to 1"),
        ("", "is empty"),
        ("a,b,c\n\n1,2,3\n1,2,inf\n", "sample 1 holds an infinite value"),
        ("a,b,c\n1,2,1e300\n", "infinite"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_by_name(tmp_path, text, complaint):
    with pytest.raises(DataError, match=rf"a\.csv: .*{complaint}"):
        read_samples(write(tmp_path / "a.csv", text), TABLE)


def test_what_is_no_file_of_samples_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "broken.npz", "no zip")
    write(tmp_path / "image.png", "no image")
    np.savez(tmp_path / "zip.npz", x=np.zeros((1, 1, 4, 6), np.uint8))
    (tmp_path / "zip.npz").rename(tmp_path / "zip.npy")
    whole = gzip.compress(b"a,b,c\n" + b"1,2,3\n" * 500)
    (tmp_path / "corrupt.csv.gz").write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    for name in ("empty", "broken.npz", "absent.npy", "notes.txt", "zip.npy", "corrupt.csv.gz", ""):
        with pytest.raises(DataError):
            read_samples(tmp_path / name, IMAGES)


def test_a_fraction_is_no_uint8(tmp_path):
    with pytest.raises(DataError, match="no uint8"):
        read_samples(write(tmp_path / "a.csv", "a,b,c\n1,2.5,3\n"), Task(("a", "b"), (3,), "uint8"))


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    path = write(tmp_path / "a.csv", "\ufeffy,a,b,c\nill,1,2,3\n")
    assert read_samples(path, TABLE).labels.tolist() == [1]


def test_lines_of_a_csv_are_counted_as_an_editor_does(tmp_path):
    with pytest.raises(DataError, match="line 4 has 2 cells"):
        read_samples(write(tmp_path / "a.csv", "a,b,c\n1,2,3\n\n1,2\n"), TABLE)


def test_a_broken_image_is_named(tmp_path):
    picture(tmp_path / "1.png", 3)
    (tmp_path / "2.png").write_bytes((tmp_path / "1.png").read_bytes()[:50])
    with pytest.raises(DataError, match=r"2\.png: "):
        read_samples(tmp_path, IMAGES)


def test_a_huge_image_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    picture(tmp_path / "1.png", 3, size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"1\.png: .*pixels"):
        read_samples(tmp_path, IMAGES)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_pixels_of_more_than_8_bits_are_refused_rather_than_clipped(tmp_path, dtype):
    Image.fromarray(np.full((4, 6), 1000, dtype)).save(tmp_path / "1.tif")
    with pytest.raises(DataError, match=r"1\.tif: .*8 bits"):
        read_samples(tmp_path, IMAGES)


def test_hidden_files_and_folders_are_no_samples(tmp_path):
    for name in ("cat/1.png", "dog/1.png", ".thumbnails/1.png", "dog/._1.png"):
        picture(tmp_path / name, 3)
    (tmp_path / "cat" / "folder.png").mkdir()
    assert read_samples(tmp_path, IMAGES).labels.tolist() == [0, 1]


def test_labels_that_nobody_asked_for_may_be_of_any_class(tmp_path):
    for name in ("monday/1.png", "tuesday/1.png"):
        picture(tmp_path / name, 3)
    samples = read_samples(tmp_path, IMAGES, with_labels=False)
    assert (len(samples), samples.labels) == (2, None)
    with pytest.raises(DataError, match="neither a class"):
        read_samples(tmp_path, IMAGES)
    table = write(tmp_path / "a.csv", "a,b,c,y\n1,2,3,unknown\n")
    assert read_samples(table, TABLE, with_labels=False).labels is None


WORDS = Task(("to", "be", "or"), (2,), "int32", vocabulary=5, tokens="words")


def test_a_text_is_labelled_by_what_comes_next_and_a_folder_of_texts_by_name(tmp_path):
    write(tmp_path / "b.txt", "To be")
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / "z.txt", "Or")
    write(tmp_path / ".hidden.txt", "or or or")
    write(tmp_path / "notes.md", "or or or")
    one, all_of_them = read_samples(tmp_path / "b.txt", WORDS), read_samples(tmp_path, WORDS)
    assert (one.values.tolist(), one.labels.tolist()) == ([[3, 3], [3, 0]], [0, 1])
    assert (all_of_them.values.tolist(), all_of_them.labels.tolist()) == ([[3, 3], [3, 3], [3, 0]], [2, 0, 1])


def test_a_folder_without_a_text_and_a_text_for_another_task_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.txt"):
        read_samples(tmp_path, WORDS)
    with pytest.raises(DataError, match="reads no words"):
        read_samples(write(tmp_path / "b.txt", "To be"), TABLE)
