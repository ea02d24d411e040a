"""Intensive-care records of PhysioNet 2012 reconstructed by a latent ODE: Pal et al. 2023, section 4.1."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from reproduce.data.physionet import Stays, load_physionet, validation_split
from reproduce.experiments.chosen import chosen
from reproduce.experiments.experiment import (
    CPU,
    ONE_OF_EACH,
    ONE_SEED,
    PAPER_SEEDS,
    PAPERS_FORMS,
    QUICK_SEEDS,
    STABILITY,
    Budget,
    Entry,
    Experiment,
    Problem,
    papers_forms,
)
from reproduce.models.latent import LatentODE, Prediction
from reproduce.models.losses import kl_from_standard_normal, observed_log_likelihood, observed_squared_error

STD = 0.01
"""Of an observation around the prediction, in scaled units."""
PAPER = Budget(
    seeds=PAPER_SEEDS,
    curve=640,
    steps=3000,
    batch=512,
    optimizer="Adamax",
    lr=1e-2,
    schedule="inverse",
    rtol=1.4e-8,
    atol=1.4e-8,
    runs=(
        Entry(regularizers=("none", "global_error", "local_unbiased", "local_biased", "no_dynamics")),
        Entry(regularizers=("steer", "global_stiffness", *PAPERS_FORMS)),
    ),
    history_every=50,
    data={"source": "official"},
    model={"hidden": 40, "recognition": 50, "state": 20, "initial_std": 0.1, "centered": True, "first_tanh": True},
    regularizers={
        "steer": {"fraction": 0.5},
        "global_error": {"weight": 1000.0, "weight_end": 100.0, "over": "mean"},
        "global_stiffness": {"weight": 10.0 / STABILITY["tsit5"], "over": "max"},
        "local_unbiased": {"weight": 0.3},
        "local_biased": {"weight": 0.3},
        **papers_forms(weight=100.0, weight_end=10.0),
    },
)
"""LOCAL's settings, with the global weights of GLOBAL's script (D12); the plain local rows' weights are ours."""
QUICK = chosen(
    "physionet",
    PAPER.but(
        seeds=QUICK_SEEDS,
        steps=500,
        batch=128,
        optimizer="Adam",
        schedule="cosine",
        rtol=1e-7,
        atol=1e-7,
        runs=(
            Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics")),
            Entry(regularizers=("global_error", "steer", "global_stiffness", *ONE_OF_EACH), seeds=ONE_SEED),
        ),
        history_every=25,
        data={"source": "auto"},
        model=PAPER.model | {"first_tanh": False},
        regularizers={
            "steer": {"fraction": 0.25},
            "global_error": {"weight": 0.3},
            "global_stiffness": {"weight": 0.01},
            "local_unbiased": {"weight": 0.3},
            "local_biased": {"weight": 0.3},
            **papers_forms(weight=100.0, weight_end=10.0),
        },
    ),
)
"""Chosen on a fifth of the training stays, held out (part='validation'), at 1e-5: optimizer, learning rate and how the
training starts on seed 0, the local weights on seeds 0 to 2."""
SMOKE = QUICK.but(
    steps=4,
    batch=16,
    seeds=ONE_SEED,
    curve=8,
    runs=(PAPER.runs[0], Entry(regularizers=("steer", "global_stiffness", *ONE_OF_EACH))),
    history_every=2,
    data={"source": "standin", "limit": 64},
)


class Batch(NamedTuple):
    """Some stays."""

    values: Tensor
    """(batch, 49, 37), 0 where nothing was observed."""
    mask: Tensor
    """1 where something was observed, else 0."""
    observed: Tensor
    """Mean number of observed values of a stay among all that are measured together, once for each, (batch,), CPU."""


@lru_cache(maxsize=2)
def _loaded(source: str, limit: int | None, part: str, seed: int) -> Stays:
    stays = load_physionet(source=source, limit=limit, split_seed=seed)
    return stays if part == "test" else validation_split(stays, len(stays.values_train) // 5, seed=seed)


def stays_of(budget: Budget, part: str, seed: int = 0) -> Stays:
    """Return the stays of a budget; with part 'validation' a fifth of the training stays stands for the test stays.

    Each seed has its own split of the stays, as each run of the papers has.
    """
    limit = budget.data.get("limit")
    return _loaded(str(budget.data["source"]), None if limit is None else int(limit), part, seed)


def kl_weight(step: int) -> float:
    """Return the weight of the divergence in the loss: 0 for 100 training steps, then 1 - 0.99^(step - 100).

    Source: Pal et al. 2023, appendix.
    """
    return max(0.0, 1.0 - 0.99 ** (step - 100))


def loss(output: Prediction, batch: Batch, step: int) -> Tensor:
    """Return minus the evidence bound, per observation, 0-d: see Rubanova et al. 2019, eq. 8, and `kl_weight`."""
    fit = observed_log_likelihood(output.values, batch.values, batch.mask, std=STD).mean()
    return -fit + kl_weight(step) * kl_from_standard_normal(output.mean, output.std)


def metric(output: Prediction, batch: Batch) -> float:
    """Return a batch's share of the mean squared error over all observed values of its part.

    It is the batch's squared error, divided by its stays times the part's mean number of observed values of a stay.
    So the mean over batches, weighted by their stays, is exactly the mean over all observed values of the part; a
    batch without any observation adds nothing.
    """
    squared = observed_squared_error(output.values, batch.values, batch.mask).cpu()
    return (squared / batch.observed.sum()).item()


def problem(budget: Budget, part: str, device: torch.device = CPU, seed: int = 0) -> Problem:
    """Return the stays of a budget (see `stays_of`) as a Problem."""
    stays = stays_of(budget, part, seed)
    n_test, dtype = len(stays.values_test), torch.get_default_dtype()
    values_train, mask_train = stays.values_train.to(device), stays.mask_train.to(device)

    def train_batch(indices: Tensor) -> Batch:
        here = indices.to(device)
        return Batch(values_train[here].to(dtype), mask_train[here].to(dtype), _observed(stays.mask_train[indices]))

    def batches(of: str) -> list[Batch]:
        values, mask = (stays.values_test, stays.mask_test) if of != "train" else (stays.values_train, stays.mask_train)
        values, mask = values[:n_test].to(dtype), mask[:n_test].to(dtype)  # of training stays: as many
        whole = Batch(values.to(device), mask.to(device), _observed(mask))
        if not mask.any():
            raise ValueError(f"{stays.name}: no stay to measure has an observed value, so there is no error to measure")
        return [Batch(*arrays) for arrays in zip(*(array.split(budget.batch) for array in whole), strict=True)]

    def model() -> LatentODE:
        settings = dict(budget.model)
        center = _center(stays).to(dtype) if settings.pop("centered") else torch.zeros(len(stays.variables))
        return LatentODE(center, **settings)  # type: ignore[arg-type]

    return Problem(
        data=stays.name,
        note=stays.note,
        files=stays.files,
        n_train=len(stays.values_train),
        train_batch=train_batch,
        test_batches=batches,
        model=model,
        inputs=lambda batch: (batch.values, batch.mask, stays.t),
        loss=loss,
        metric=metric,
        device=device,
    )


def _center(stays: Stays) -> Tensor:
    """Mean observed value of each variable in the training part, (37,), 0 for one that was never observed."""
    return stays.values_train.sum((0, 1)) / stays.mask_train.sum((0, 1)).clamp_min(1)


def _observed(mask: Tensor) -> Tensor:
    """Mean number of observed values of a stay, once for each stay, (batch,)."""
    return (mask.sum(dtype=torch.float64) / len(mask)).expand(len(mask))


EXPERIMENT = Experiment(
    name="physionet",
    title="PhysioNet 2012, latent ODE",
    metric="mse",
    higher_is_better=False,
    budgets={"smoke": SMOKE, "quick": QUICK, "paper": PAPER},
    problem=problem,
)
