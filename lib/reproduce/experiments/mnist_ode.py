"""MNIST digits classified by a neural ODE on R^784: Pal et al. 2023, section 4.1."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from reproduce.data.images import Images, validation_split
from reproduce.data.mnist import load_mnist
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
from reproduce.experiments.of_images import image_problem
from reproduce.models.classifiers import ODEClassifier
from reproduce.models.fields import TimeMLP

ON_TRAIN = 2_000
"""Training images, at most, on which a finished model is measured, too."""
PAPER = Budget(
    seeds=PAPER_SEEDS,
    curve=1024,
    steps=7500,
    batch=512,
    lr=1e-3,
    rtol=1.4e-8,
    atol=1.4e-8,
    runs=(
        Entry(regularizers=("none", "global_error", "local_unbiased", "local_biased", "no_dynamics")),
        Entry(regularizers=("steer", "global_stiffness", "local_stiffness", "taynode", "kinetic_jacobian")),
        Entry(regularizers=("global_error+steer", *PAPERS_FORMS)),
    ),
    history_every=100,
    data={"source": "full"},
    model={"hidden": 100, "output_tanh": False},
    regularizers={
        "steer": {"fraction": 0.5},
        "global_error": {"weight": 100.0, "weight_end": 10.0, "over": "mean"},
        "global_stiffness": {"weight": 0.1 / STABILITY["tsit5"], "over": "max"},
        "local_unbiased": {"weight": 0.3},
        "local_biased": {"weight": 0.3},
        **papers_forms(weight=2.5, weight_end=1.0),
        "local_stiffness": {"weight": 0.1},
        "taynode": {"weight": 0.01, "order": 3},
        "kinetic_jacobian": {"weight": 0.01},
        "global_error+steer": {
            "global_error.weight": 100.0,
            "global_error.weight_end": 10.0,
            "global_error.over": "mean",
            "steer.fraction": 0.5,
        },
    },
)
"""LOCAL's settings, with the global weights of GLOBAL's script and the local stiffness's of LOCAL's (D12); ours are the
plain local rows' weights, and those of taynode and kinetic_jacobian."""
QUICK = chosen(
    "mnist_ode",
    PAPER.but(
        seeds=QUICK_SEEDS,
        steps=320,
        batch=128,
        lr=6e-3,
        schedule="cosine",
        rtol=1e-5,
        atol=1e-5,
        runs=(
            Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics"), seeds=ONE_SEED),
            Entry(regularizers=("global_error", "steer", "global_stiffness", "taynode", *ONE_OF_EACH), seeds=ONE_SEED),
            Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics"), tolerance=1e-7),
            Entry(regularizers=("global_error",), tolerance=1e-7, seeds=ONE_SEED),
            # The closed box: through torchdiffeq as it is; for fewer steps, since its continuous adjoint takes several
            # times as long as backpropagation through our own solver.
            Entry(
                regularizers=("none", "local_biased", "no_dynamics"),
                seeds=ONE_SEED,
                but={"host": "torchdiffeq", "steps": 150, "history_every": 10},
            ),
            Entry(
                regularizers=("none", "local_biased", "no_dynamics"),
                seeds=ONE_SEED,
                but={"host": "torchdiffeq", "gradient": "adjoint", "steps": 150, "history_every": 10},
            ),
        ),
        history_every=25,
        data={"source": "auto"},
        regularizers={
            "global_error": {"weight": 0.1, "times_dt": False},
            "global_stiffness": {"weight": 0.001},
            "local_unbiased": {"weight": 0.3},
            "local_biased": {"weight": 0.3},
            **papers_forms(weight=2.5, weight_end=1.0),
            "local_stiffness": {"weight": 0.003},
            "taynode": {"weight": 1.0, "order": 3},
            "kinetic_jacobian": {"weight": 0.1},
            "global_error+steer": {"global_error.weight": 0.1, "global_error.times_dt": False, "steer.fraction": 0.5},
        },
    ),
)
"""Learning rate and weights: ladders on 10,000 training images held out (part='validation'), seed 0.
Where the protocol's ladders chose others (`chosen`), those hold."""
SMOKE = QUICK.but(
    steps=4,
    batch=16,
    seeds=ONE_SEED,
    curve=8,
    runs=(
        *PAPER.runs[:2],
        Entry(regularizers=("global_error+steer", *ONE_OF_EACH)),
        Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics"), tolerance=1e-7),
        Entry(regularizers=("none", "local_unbiased", "local_biased", "no_dynamics"), but={"host": "torchdiffeq"}),
        Entry(
            regularizers=("none", "local_unbiased", "local_biased", "no_dynamics"),
            but={"host": "torchdiffeq", "gradient": "adjoint"},
        ),
    ),
    history_every=2,
    data={"source": "embedded", "limit": 64},
)


@lru_cache(maxsize=2)
def _images(source: str, part: str) -> Images:
    images = load_mnist(source=source)
    return images if part == "test" else validation_split(images, len(images.x_train) // 6, seed=0)


def problem(budget: Budget, part: str, device: torch.device = CPU, seed: int = 0) -> Problem:
    """Return the images of a budget as a Problem (see `image_problem`); every seed has the same split."""
    images = _images(str(budget.data["source"]), part)

    def prepare(x: Tensor) -> Tensor:
        return x.to(torch.get_default_dtype()) / 255.0

    def model() -> ODEClassifier:
        d, hidden = images.x_train[0].numel(), int(budget.model["hidden"])
        dynamics = TimeMLP((d, hidden, d), output_tanh=bool(budget.model["output_tanh"]))
        return ODEClassifier(dynamics, d=d, n_classes=images.n_classes)

    return image_problem(images, budget, prepare=prepare, model=model, on_train=ON_TRAIN, device=device)


EXPERIMENT = Experiment(
    name="mnist_ode",
    title="MNIST digits, neural ODE",
    metric="accuracy",
    higher_is_better=True,
    budgets={"smoke": SMOKE, "quick": QUICK, "paper": PAPER},
    problem=problem,
)
