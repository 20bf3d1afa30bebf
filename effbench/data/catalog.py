"""What data sets exist, where they come from, and the exact bytes they must have. Data only; nothing is done here.

Checksums are pinned in full. Where the same data circulates in more than one wrapper (a gzip header with or without the
file's name, an R archive written by another version of R), each wrapper is pinned as a variant; nothing else is accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import loaders


@dataclass(frozen=True)
class File:
    """One raw file: its name in the cache, the sha256 (hex) and size of its usual wrapper, and of other known wrappers."""

    name: str
    sha256: str
    bytes: int
    variants: tuple[tuple[str, int], ...] = ()  # (sha256, bytes)

    @property
    def wrappers(self) -> dict[str, int]:
        """Every accepted sha256 and the size that goes with it."""
        return {self.sha256: self.bytes, **dict(self.variants)}

    @property
    def most_bytes(self) -> int:
        return max(self.wrappers.values())


@dataclass(frozen=True)
class DataSet:
    """A data set: either `files` in the cache, or part of the Python package `needs_package`.

    `package` is a Debian package that holds the files in `folder` (relative to the root of the file system), `mirrors` are
    addresses to which a file's name is appended. `version` rises when `loader` makes other arrays of the same files.
    """

    name: str
    title: str
    licence: str
    source: str
    loader: Callable[[Path], dict[str, Any]]
    version: int = 1
    files: tuple[File, ...] = ()
    package: str = ""
    package_bytes: int = 0
    folder: str = ""
    mirrors: tuple[str, ...] = ()
    needs_package: str = ""

    @property
    def bytes(self) -> int:
        """Size of the raw files in their usual wrapper."""
        return sum(file.bytes for file in self.files)


_SETS = (
    DataSet(
        name="digits",
        title="UCI optical digits, test part: 1,797 images of 8x8 pixels, 10 classes",
        licence="BSD-3-Clause (scikit-learn)",
        source="scikit-learn, sklearn.datasets.load_digits",
        loader=loaders.digits,
        needs_package="scikit-learn",
    ),
    DataSet(
        name="fashion-mnist",
        title="Fashion-MNIST: 60,000 + 10,000 grey images of 28x28 pixels, 10 classes",
        licence="MIT",
        source="Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747; Debian package dataset-fashion-mnist",
        loader=loaders.fashion_mnist,
        files=(
            # The variant is the authors' own upload; it differs from Debian's in the gzip header alone.
            File(
                "train-images-idx3-ubyte.gz",
                "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
                26_421_856,
                (("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880),),
            ),
            File(
                "train-labels-idx1-ubyte.gz",
                "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
                29_491,
                (("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515),),
            ),
            File(
                "t10k-images-idx3-ubyte.gz",
                "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
                4_422_079,
                (("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102),),
            ),
            File(
                "t10k-labels-idx1-ubyte.gz",
                "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
                5_125,
                (("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148),),
            ),
        ),
        package="dataset-fashion-mnist",
        package_bytes=30_900_652,
        folder="usr/share/datasets/fashion-mnist",
        mirrors=(
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        ),
    ),
    DataSet(
        name="satellite",
        title="UCI Statlog Landsat satellite: 6,435 neighbourhoods of 3x3 pixels in 4 bands, 6 classes of soil",
        licence="GPL-2 (the R package mlbench); the data are from the UCI Machine Learning Repository",
        source="UCI Statlog (Landsat Satellite); Debian package r-cran-mlbench",
        loader=loaders.satellite,
        files=(
            # mlbench 2.0-0 to 2.1-3 first; 2.1-5, 2.1-6 and 2.1-7 saved the same table with later versions of R.
            File(
                "Satellite.rda",
                "29f8cf9bb1bc51b769d694c9caf740fd1c36ed6a7c87603edf5985962e330f64",
                109_096,
                (
                    ("590e0d0af992a863790ef127a491a9768a3a3d331b24c3456048d12dbc1510d9", 108_884),
                    ("f2608290b6682aa8640b4b0f85244ab79692c6e0210606f2da511065b315f76b", 108_652),
                    ("7aef7a5a9409c8c5f0ca92547ff99867b1651607fbdef7f513292cbf6d7bead8", 108_828),
                ),
            ),
        ),
        package="r-cran-mlbench",
        package_bytes=1_049_188,
        folder="usr/lib/R/site-library/mlbench/data",
        mirrors=("https://raw.githubusercontent.com/cran/mlbench/master/data/",),
    ),
)

CATALOG: dict[str, DataSet] = {dataset.name: dataset for dataset in _SETS}


def size_text(count: int) -> str:
    """A size for people, decimal units: "30.9 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
