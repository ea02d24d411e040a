"""A cubic spiral learned by a neural ODE from 30 points of one trajectory: Pal et al. 2021, section 4.1.1."""

from __future__ import annotations

import torch
from torch import Tensor

from reproduce.data.spiral import RECIPE, load_spiral
from reproduce.experiments.chosen import chosen
from reproduce.experiments.experiment import (
    CPU,
    ONE_OF_EACH,
    ONE_SEED,
    PAPER_SEEDS,
    PAPERS_FORMS,
    QUICK_SEEDS,
    Budget,
    Entry,
    Experiment,
    Problem,
    papers_forms,
)
from reproduce.models.fields import CubicMLP
from reproduce.models.fits import Trajectory
from reproduce.models.losses import mean_squared_error

PAPER = Budget(
    seeds=PAPER_SEEDS,
    curve=1,
    steps=4000,
    batch=1,
    lr=1e-2,
    schedule="cosine",
    rtol=1.4e-8,
    atol=1.4e-8,
    runs=(
        Entry(regularizers=("none", "global_error", "local_unbiased", "local_biased", "no_dynamics")),
        Entry(regularizers=("global_error+global_stiffness",)),
        Entry(regularizers=("steer", "global_stiffness", "taynode", "kinetic_jacobian"), seeds=ONE_SEED),
        Entry(regularizers=PAPERS_FORMS),
    ),
    history_every=100,
    data={"n_times": 30, "t1": 1.5},
    model={"hidden": 50},
    regularizers={
        "steer": {"fraction": 0.25},
        "global_error": {"weight": 1e-4, "weight_end": 0.03},
        "global_stiffness": {"weight": 1e-7, "weight_end": 1e-5},
        "local_unbiased": {"weight": 1e-4, "weight_end": 0.03},
        "local_biased": {"weight": 1e-4, "weight_end": 0.03},
        **papers_forms(weight=1e-4, weight_end=0.03),
        "taynode": {"weight": 1e-8, "order": 3},
        "kinetic_jacobian": {"weight": 1e-5},
        "global_error+global_stiffness": {
            "global_error.weight": 1e-4,
            "global_error.weight_end": 0.03,
            "global_stiffness.weight": 1e-7,
            "global_stiffness.weight_end": 1e-5,
        },
    },
)
QUICK = chosen(
    "spiral_ode",
    PAPER.but(
        seeds=QUICK_SEEDS,
        steps=200,
        lr=3e-2,
        rtol=1e-6,
        atol=1e-6,
        runs=(
            Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics")),
            Entry(regularizers=("global_error", "global_error+global_stiffness", *ONE_OF_EACH), seeds=ONE_SEED),
            PAPER.runs[2],
        ),
        history_every=25,
    ),
)
"""Weights and learning rate from short ladders on times held out between the training times, seed 0.
Where the protocol's ladders chose others (`chosen`), those hold."""
SMOKE = QUICK.but(steps=6, seeds=ONE_SEED, curve=8, history_every=2)


def problem(budget: Budget, part: str, device: torch.device = CPU, seed: int = 0) -> Problem:
    """Return the spiral of a budget as a Problem; for testing, the same trajectory at times between the training's.

    With part 'validation' the held-out times lie at other places between them, so that settings are not chosen
    on the test times.
    """
    n_times, t1 = int(budget.data["n_times"]), float(budget.data["t1"])
    fine = load_spiral(n_times=4 * (n_times - 1) + 1, t1=t1, dtype=torch.get_default_dtype())
    offsets = {"train": 0, "validation": 1, "test": 2}

    def batch(of: str) -> tuple[Tensor, Tensor, Tensor]:
        keep = torch.arange(len(fine.t)) % 4 == offsets[of]
        keep[0] = True
        y0, y = fine.y0[None], fine.y[keep][:, None]
        return y0.to(device), fine.t[keep], y.to(device)  # (1, 2), (times,), (times, 1, 2)

    batches = {of: batch(of) for of in offsets}

    return Problem(
        data=load_spiral(n_times=n_times, t1=t1).name,
        note="",
        files=((fine.key, RECIPE),),
        n_train=1,
        train_batch=lambda indices: batches["train"],
        test_batches=lambda of: [batches[of]],
        model=lambda: Trajectory(CubicMLP(int(budget.model["hidden"]))),
        inputs=lambda batch: batch[:2],
        loss=lambda y, batch, step: mean_squared_error(y, batch[2]),
        metric=lambda y, batch: mean_squared_error(y, batch[2]).item(),
        device=device,
    )


EXPERIMENT = Experiment(
    name="spiral_ode",
    title="Cubic spiral, neural ODE",
    metric="mse",
    higher_is_better=False,
    budgets={"smoke": SMOKE, "quick": QUICK, "paper": PAPER},
    problem=problem,
)
