"""What the key of a row covers: its settings and budget, data files, source, lock, device and dtype."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from regnde import Regularizer
from reproduce.experiments import Budget, Experiment
from reproduce.runs import provenance, source, store


class OfFiles(Protocol):
    """What knows its data files: a `Problem`."""

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Name and checksum, or recipe, of each."""


def ingredients(experiment: str, problem: OfFiles, device: str = "cpu") -> dict[str, Any]:
    """Return what a run depends on beside its settings: data files, source, lock, device class, dtype."""
    return {
        "files": [list(file) for file in problem.files],
        "source": source.source_hashes(experiment),
        "lock": provenance.lock_hash(),
        "device": device,
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def key_of_run(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    part: str,
    budget: Budget,
    made_of: dict[str, Any],
) -> str:
    """Return the key of the row that `train.train` makes with these arguments (regularizer None: the control)."""
    return store.key_of(
        {
            "experiment": experiment.name,
            "regularizer": store.CONTROL if regularizer is None else regularizer.name,
            "settings": {} if regularizer is None else regularizer.settings,
            "seed": seed,
            "profile": profile,
            "part": part,
            "budget": budget.of_one_run(),
            "made_of": made_of,
        }
    )
