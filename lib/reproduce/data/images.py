"""Labelled images: the record that image data sets share, a part held out of it, and what an accuracy on it means."""

import math
from dataclasses import dataclass, replace

from torch import Tensor

from reproduce.data.splits import hold_out


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in a training and a test part, and what a reader must know about them."""

    name: str  # for tables and captions; a stand-in is called a stand-in
    key: str  # for file names and rows
    files: tuple[tuple[str, str], ...]  # (name, sha256) of what identifies the content
    x_train: Tensor  # (n_train, 28, 28) or, in colour, (n_train, 3, 32, 32), uint8
    y_train: Tensor  # (n_train,) int64
    x_test: Tensor  # (n_test, ...) uint8, an image as in x_train
    y_test: Tensor  # (n_test,) int64
    n_classes: int
    is_full: bool  # from the complete official files
    note: str  # one sentence: what this set can and cannot show
    typical: float  # an accuracy, as a fraction, at which notes state the standard error


def validation_split(images: Images, n: int, *, seed: int) -> Images:
    """Hold out part of the training images in the place of the test images, to choose settings on.

    The test images are left out altogether: a setting chosen on them would flatter itself.

    Args:
        images: the set to split.
        n, seed: number of training images to hold out, and of which permutation; see `hold_out`.

    Raises:
        ValueError: as `hold_out`.
    """
    kept, held_out = hold_out(len(images.x_train), n, seed=seed)
    limit = accuracy_limit(n, "held-out", typical=images.typical)
    return replace(
        images,
        name=f"{images.name}, validation on {n:,} of its training images",
        key=f"{images.key}-validation-{n}-seed-{seed}",
        x_train=images.x_train[kept],
        y_train=images.y_train[kept],
        x_test=images.x_train[held_out],
        y_test=images.y_train[held_out],
        note=f"For choosing settings only, without any test image; {limit}",
    )


def accuracy_standard_error(accuracy: float, n_test: int) -> float:
    """Standard error of an accuracy (both as fractions) measured on ``n_test`` images: sqrt(a (1 - a) / n).

    Raises:
        ValueError: an accuracy outside [0, 1], or no images.
    """
    if not 0.0 <= accuracy <= 1.0 or n_test < 1:
        raise ValueError(f"expected 0 <= accuracy <= 1 and n_test >= 1, found {accuracy!r} and {n_test!r}")
    return math.sqrt(accuracy * (1.0 - accuracy) / n_test)


def accuracy_limit(n_test: int, kind: str, *, typical: float) -> str:
    """Say in words what the number of images means for differences between accuracies near ``typical``."""
    points = 100.0 * accuracy_standard_error(typical, n_test)
    return (
        f"on {n_test:,} {kind} images an accuracy near {100 * typical:.0f} % has a standard error "
        f"of {points:.2f} percentage points: a difference below about {2 * points:.1f} points can be chance."
    )
