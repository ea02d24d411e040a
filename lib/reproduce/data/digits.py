"""The 1,797 digits of 8x8 pixels that ship with scikit-learn, as points of a continuous density."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.datasets import load_digits as packaged
from torch import Tensor

from reproduce.data.splits import hold_out

SIDE = 8  # pixels
N_IMAGES, N_PIXELS, N_CLASSES = 1797, SIDE * SIDE, 10
LEVELS = 17  # grey levels, 0 to 16
TEST_EVERY = 5  # a fifth of the images is the test part
ADVICE = "Install scikit-learn as it is in requirements.lock: these are its own arrays."


@dataclass(frozen=True, eq=False)
class Digits:
    """Images in a training and a test part, each with the noise that makes it a point of a density.

    The point of an image is x + u, in grey levels: pixel by pixel a whole number from 0 to 16 plus a number in [0, 1).
    """

    name: str  # for tables and captions
    key: str  # for file names and rows
    files: tuple[tuple[str, str], ...]  # (name, sha256) of the arrays and the noise
    x_train: Tensor  # (n_train, 64) uint8, 0 to 16
    y_train: Tensor  # (n_train,) int64, the digit
    u_train: Tensor  # (n_train, 64) float32 in [0, 1): for evaluation; training draws its own
    x_test: Tensor  # (n_test, 64) uint8
    y_test: Tensor  # (n_test,) int64
    u_test: Tensor  # (n_test, 64) float32 in [0, 1)
    note: str  # what this set can and cannot show


def load_digits(*, seed: int = 0) -> Digits:
    """Load the digits (Alpaydin & Kaynak 1998, the test part of their optical digits) and split them at random.

    A fifth of a permutation of all images is the test part; writers and classes are not kept apart. The density of
    x + u, u uniform in [0, 1)^64, is in units of one grey level, so that its mean logarithm over u is a lower bound of
    the logarithm of the probability of the image itself (Theis, van den Oord & Bethge 2016). One u is drawn for each
    image and stays.

    Args:
        seed: of the permutation and the noise, at least 0.

    Raises:
        ValueError: the seed is no whole number from 0, or the package's arrays are not what they should be.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ValueError(f"seed: expected a whole number of at least 0, found {seed!r}")
    bunch = packaged()
    x, y = checked(bunch.data, bunch.target)
    rng = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=rng)
    u = torch.rand(x.shape, generator=rng, dtype=torch.float32)
    test, train = order.split([len(x) // TEST_EVERY, len(x) - len(x) // TEST_EVERY])
    arrays = {
        **{"x_train": x[train], "y_train": y[train], "u_train": u[train]},
        **{"x_test": x[test], "y_test": y[test], "u_test": u[test]},
    }
    return Digits(
        name=f"scikit-learn's digits, {len(train):,} + {len(test):,} images of 8x8 pixels",
        key=f"digits-seed-{seed}",
        files=tuple((name, hashlib.sha256(array.numpy().tobytes()).hexdigest()) for name, array in arrays.items()),
        **arrays,
        note="A random split: the same writers are in both parts. Likelihoods are those of images with uniform noise.",
    )


def checked(images: np.ndarray, labels: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return the package's arrays as tensors (n, 64) uint8 and (n,) int64.

    Args:
        images: (1797, 64), whole numbers from 0 to 16.
        labels: (1797,), whole numbers from 0 to 9, all of them present.

    Raises:
        ValueError: another shape or another value, by the name of the array.
    """
    for name, array, shape, top in (
        ("images", images, (N_IMAGES, N_PIXELS), LEVELS - 1),
        ("labels", labels, (N_IMAGES,), N_CLASSES - 1),
    ):
        if array.shape != shape:
            raise ValueError(f"digits, {name}: expected shape {shape}, found {array.shape}. {ADVICE}")
        if not (np.isfinite(array).all() and (array == np.round(array)).all()):
            raise ValueError(f"digits, {name}: expected whole numbers, found others. {ADVICE}")
        if array.min() < 0 or array.max() > top:
            raise ValueError(
                f"digits, {name}: expected numbers from 0 to {top}, found {array.min():g} to {array.max():g}. {ADVICE}"
            )
    if len(np.unique(labels)) != N_CLASSES:
        raise ValueError(f"digits, labels: expected all digits from 0 to 9, found {np.unique(labels)}. {ADVICE}")
    return torch.from_numpy(images.astype(np.uint8)), torch.from_numpy(labels.astype(np.int64))


def validation_split(digits: Digits, n: int, *, seed: int) -> Digits:
    """Hold out ``n`` training images in the place of the test images, to choose settings on.

    The test images are left out altogether: a setting chosen on them would flatter itself.

    Args:
        digits: the set to split.
        n, seed: number of training images to hold out, and of which permutation; see `hold_out`.

    Raises:
        ValueError: as `hold_out`.
    """
    kept, held = hold_out(len(digits.x_train), n, seed=seed)
    x, y, u = digits.x_train, digits.y_train, digits.u_train
    return replace(
        digits,
        name=f"{digits.name}, validation on {n:,} of its training images",
        key=f"{digits.key}-validation-{n}-seed-{seed}",
        files=(*digits.files, ("validation", f"{n} of the training images, seed {seed}")),
        **{"x_train": x[kept], "y_train": y[kept], "u_train": u[kept]},
        **{"x_test": x[held], "y_test": y[held], "u_test": u[held]},
        note=f"For choosing settings only, without any test image. {digits.note}",
    )
