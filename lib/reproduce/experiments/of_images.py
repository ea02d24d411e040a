"""What the experiments that classify images have in common: batches, loss and metric."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from reproduce.data.images import Images
from reproduce.experiments.experiment import CPU, Budget, Problem
from reproduce.models.losses import accuracy, cross_entropy


def image_problem(
    images: Images,
    budget: Budget,
    *,
    prepare: Callable[[Tensor], Tensor],
    model: Callable[[], nn.Module],
    on_train: int,
    device: torch.device = CPU,
) -> Problem:
    """Return the images of a budget as a Problem; `limit` in budget.data shortens both parts (smoke profile).

    Args:
        images: the data set.
        budget: its batch size counts.
        prepare: maps images as they are stored (batch, ...), uint8 on the device, to what the model gets.
        model: makes a freshly initialized model.
        on_train: training images, at most, on which a finished model is measured, too.
        device: where the images are kept.
    """
    limit = int(budget.data.get("limit", len(images.x_train)))
    x_train, y_train = images.x_train.to(device), images.y_train.to(device)
    x_test, y_test = images.x_test.to(device), images.y_test.to(device)

    def batches(of: str) -> list[tuple[Tensor, Tensor]]:
        x, y = (x_train, y_train) if of == "train" else (x_test, y_test)
        end = min(limit, len(x), on_train if of == "train" else len(x))
        pairs = zip(x[:end].split(budget.batch), y[:end].split(budget.batch), strict=True)
        return [(prepare(some), labels) for some, labels in pairs]

    def train_batch(indices: Tensor) -> tuple[Tensor, Tensor]:
        indices = indices.to(device)
        return prepare(x_train[indices]), y_train[indices]

    return Problem(
        data=images.name,
        note=images.note,
        files=images.files,
        n_train=min(limit, len(images.x_train)),
        train_batch=train_batch,
        test_batches=batches,
        model=model,
        inputs=lambda batch: batch[0],
        loss=lambda logits, batch, step: cross_entropy(logits, batch[1]),
        metric=lambda logits, batch: accuracy(logits, batch[1]),
        device=device,
    )
