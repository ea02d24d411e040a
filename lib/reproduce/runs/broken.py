"""Trainings that break off, since the solve cannot be finished or the weights are no numbers any more, as rows.

Such a training is a result: a row without numbers, of which every verdict is undecided, and no later run asks again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from regnde import Regularizer, SolverError
from reproduce.experiments import Budget, Experiment
from reproduce.runs import checkpoint, key, provenance, store
from reproduce.runs import device as devices
from reproduce.runs.store import Row

NOT_FINITE = "NaN or infinite values"
"""In the message of a solve whose initial state is no number: an encoder's, after a step along no number."""


def breaks_off(error: Exception) -> bool:
    """Return whether an error is that of a training that went astray, and not one of its arguments or of the code."""
    return isinstance(error, SolverError) or (isinstance(error, ValueError) and NOT_FINITE in str(error))


def row(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    *,
    part: str,
    budget: Budget,
    device: str,
    checkpoint_path: Path,
    error: Exception,
) -> Row:
    """Return the row of a training that broke off: its numbers are NaN, its history is that up to its checkpoint.

    Args:
        experiment, regularizer, seed, profile, part, budget, device: as of `train.train`.
        checkpoint_path: where the training stored its state, if it came so far.
        error: what broke it off.
    """
    problem = experiment.problem(budget, part, devices.ready(device), seed)
    made_of = key.ingredients(experiment.name, problem, device)
    row_key = key.key_of_run(experiment, regularizer, seed, profile, part, budget, made_of)
    state: dict[str, Any] = checkpoint.load(checkpoint_path, row_key) or {"step": 0, "history": []}
    why = f"after step {state['step']} of {budget.steps}, by its checkpoints: {error}"
    metric = experiment.metric
    return Row(
        key=row_key,
        experiment=experiment.name,
        regularizer=store.CONTROL if regularizer is None else regularizer.name,
        settings={} if regularizer is None else dict(regularizer.settings),
        seed=seed,
        profile=profile,
        part=part,
        budget=budget.of_one_run(),
        data=problem.data,
        note=problem.note,
        n_test=0,
        metric=metric,
        higher_is_better=experiment.higher_is_better,
        metrics=dict.fromkeys(("loss", metric, "train_loss", f"train_{metric}"), math.nan),
        nfe=math.nan,
        accepted=math.nan,
        rejected=math.nan,
        train_nfe=math.nan,
        seconds={"train": math.nan, "predict": math.nan},
        history=state["history"],
        made_of=made_of,
        provenance=provenance.record(
            profile,
            data=[problem.data],
            seeds=[seed],
            device=devices.title(devices.ready(device)),
            broke_off=why,
        ),
    )
