"""A row as tests need it: change what matters with dataclasses.replace."""

from __future__ import annotations

from reproduce.runs.store import Row

ROW = Row(
    key="0",
    experiment="mnist_ode",
    regularizer="none",
    settings={},
    seed=0,
    profile="quick",
    part="test",
    budget={"rtol": 1e-5},
    data="ten digits",
    note="Ten digits show nothing.",
    n_test=10,
    metric="accuracy",
    higher_is_better=True,
    metrics={"accuracy": 0.9, "train_accuracy": 0.95, "loss": 0.3, "train_loss": 0.2},
    nfe=40.0,
    accepted=6.0,
    rejected=0.5,
    train_nfe=40.0,
    seconds={"train": 10.0, "predict": 0.1},
    history=[
        {"step": 1, "loss": 1.0, "penalty": 0.0, "nfe": 20.0},
        {"step": 2, "loss": 0.5, "penalty": 0.0, "nfe": 40.0},
    ],
)
