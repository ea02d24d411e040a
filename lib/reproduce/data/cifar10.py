"""CIFAR-10: the official binary version, a subset of it, or coloured digits as a stand-in for both."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from reproduce.data import archives
from reproduce.data.images import Images, accuracy_limit
from reproduce.data.known_files import DATASETS
from reproduce.data.mnist import load_mnist
from reproduce.data.registry import find, present, require

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)  # red, green, blue; row by row
SOURCES = ("auto", "full", "subset", "standin")
TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
TEST = ("test_batch.bin",)
ADVICE = "The file was left untouched: put the official file in its place."
TYPICAL_ACCURACY = 0.6  # at which the notes state the standard error
STANDIN_SEED, CELL, WAVES = 10, 4, 40  # of the backgrounds; side of a cell and strength of their texture


def load_cifar10(*, source: str = "auto") -> Images:
    """Load CIFAR-10 (Krizhevsky 2009), images (n, 3, 32, 32) of 8 bits in ten classes, with the official split.

    Args:
        source: "full" for the official 50,000 + 10,000 images; "subset" for 12,000 + 860 of them, every class alike;
            "standin" for coloured digits, which are no photographs (no file or network needed); "auto" for the full set
            if it is here, else the subset if that is here, else a download of the full set, else the stand-in.

    Raises:
        ValueError: unknown source, or a file that is not what it should be (named, and left untouched).
        FileNotFoundError: "full" or "subset", but it is not on this machine and cannot be downloaded.
    """
    if source not in SOURCES:
        raise ValueError(f"unknown source {source!r}: expected one of {', '.join(SOURCES)}")
    datasets = {"full": ("cifar10",), "subset": ("cifar10:subset",), "auto": ("cifar10", "cifar10:subset")}
    if source == "standin":
        return _standin()
    here = next((dataset for dataset in datasets[source] if present(dataset)), datasets[source][0])
    paths = find(here) if source == "auto" else require(here)
    return _standin() if paths is None else _official(here, *paths.values())


def read_records(content: bytes, name: str) -> tuple[Tensor, Tensor]:
    """Read the records of one binary batch: images (n, 3, 32, 32) uint8 and labels (n,) int64.

    The format: 1 byte of label, then 3,072 of pixels, n times without a header; n follows from the length.
    Source: https://www.cs.toronto.edu/~kriz/cifar.html

    Args:
        content: the bytes of the file.
        name: what an error calls it.

    Raises:
        ValueError: no whole number of records, none at all, or a label that is no class.
    """
    size = 1 + int(np.prod(SHAPE))
    if not content or len(content) % size:
        raise ValueError(f"{name}: expected records of {size:,} bytes each, found {len(content):,} bytes. {ADVICE}")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, size)
    labels = records[:, 0].long()
    if labels.max() >= len(CLASSES):
        raise ValueError(f"{name}: expected labels from 0 to {len(CLASSES) - 1}, found {labels.max()}. {ADVICE}")
    return records[:, 1:].reshape(-1, *SHAPE), labels


def _official(dataset: str, path: Path) -> Images:
    """Read an archive in memory; nothing is unpacked to disk.

    The subset's 140 further test images stay out: they would make the classes unequal, and lower the standard error of
    an accuracy by less than a tenth.
    """
    try:
        members = archives.read_members(path, ending=".bin")
    except ValueError as error:
        raise ValueError(f"{path}: {error}. {ADVICE}") from error
    if missing := [name for name in TRAIN + TEST if name not in members]:
        raise ValueError(f"{path}: expected {', '.join(TRAIN + TEST)} in it, found no {', '.join(missing)}. {ADVICE}")
    parts = []
    for names in (TRAIN, TEST):
        batches = [read_records(members[name], f"{path}, {name}") for name in names]
        parts += [torch.cat(arrays) for arrays in zip(*batches, strict=True)]
    x_train, y_train, x_test, y_test = parts
    is_full = dataset == "cifar10"
    limit = accuracy_limit(len(x_test), "test", typical=TYPICAL_ACCURACY)
    return Images(
        name=f"CIFAR-10{'' if is_full else ' subset'} ({len(x_train):,} + {len(x_test):,} images)",
        key=f"cifar10-{'full' if is_full else len(x_train)}",
        files=tuple((file.name, file.sha256) for file in DATASETS[dataset]),
        x_train=x_train,
        y_train=y_train,
        x_test=x_test,
        y_test=y_test,
        n_classes=len(CLASSES),
        is_full=is_full,
        note=f"{'The complete official set' if is_full else 'A part of the official images'}; {limit}",
        typical=TYPICAL_ACCURACY,
    )


def _standin() -> Images:
    """MNIST's embedded digits in colour, see `coloured`; the split is that of the digits."""
    digits = load_mnist(source="embedded")
    train, test = (coloured(x, seed=STANDIN_SEED + i) for i, x in enumerate((digits.x_train, digits.x_test)))
    arrays = {"x_train": train, "y_train": digits.y_train, "x_test": test, "y_test": digits.y_test}
    limit = accuracy_limit(len(test), "test", typical=digits.typical)
    return Images(
        name=f"CIFAR-10 stand-in: coloured digits ({len(train):,} + {len(test):,} images)",
        key="cifar10-standin",
        files=tuple((name, hashlib.sha256(array.numpy().tobytes()).hexdigest()) for name, array in arrays.items()),
        x_train=train,
        y_train=digits.y_train,
        x_test=test,
        y_test=digits.y_test,
        n_classes=digits.n_classes,
        is_full=False,
        note="A stand-in: handwritten digits of MNIST, coloured here, no photograph among them. It shows how the "
        f"method and the notebook work; its accuracies say nothing about CIFAR-10, and {limit}",
        typical=digits.typical,
    )


def coloured(digits: Tensor, *, seed: int) -> Tensor:
    """Paint grey digits (n, 28, 28) uint8 in a colour on a textured background: (n, 3, 32, 32) uint8.

    Both colours and the texture are drawn for each image whatever its class is, so they tell nothing about it; in each
    channel ink and paper are at least 96 apart before the texture is added. Integers only: the same everywhere.
    """
    rng, n = np.random.default_rng(seed), len(digits)
    paper = rng.integers(0, 256, (n, 3, 1, 1))
    ink = (paper + rng.integers(96, 161, (n, 3, 1, 1))) % 256
    coarse = rng.integers(-WAVES, WAVES + 1, (n, 3, SHAPE[1] // CELL + 1, SHAPE[2] // CELL + 1))
    ground = np.clip(paper + _smooth(_smooth(coarse, axis=2), axis=3), 0, 255)  # (n, 3, 32, 32)
    alpha = np.pad(digits.numpy(), ((0, 0), (2, 2), (2, 2)))[:, None].astype(np.int64)  # (n, 1, 32, 32)
    return torch.from_numpy(((ground * (255 - alpha) + ink * alpha) // 255).astype(np.uint8))


def _smooth(coarse: np.ndarray, *, axis: int) -> np.ndarray:
    """Draw straight lines between the values along one axis, CELL points for each gap, in integers."""
    i = np.arange(CELL * (coarse.shape[axis] - 1))
    shape = [1] * coarse.ndim
    shape[axis] = len(i)
    right = (i % CELL).reshape(shape)
    left_value, right_value = (np.take(coarse, i // CELL + step, axis=axis) for step in (0, 1))
    return (left_value * (CELL - right) + right_value * right) // CELL
