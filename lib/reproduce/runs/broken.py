"""Trainings that break off, since the solve cannot be finished or the weights are no numbers any more, as rows.

Such a training is a result: a row without numbers, from which no verdict is read, and no later run asks again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from regnde import Regularizer, SolverError
from reproduce.experiments import Experiment
from reproduce.runs import checkpoint, key, provenance, store
from reproduce.runs import device as devices
from reproduce.runs.store import Row

NOT_FINITE = "NaN or infinite values"
"""In the message of a solve whose initial state is no number: an encoder's, after a step along no number."""


def breaks_off(error: Exception) -> bool:
    """Return whether an error is that of a training that went astray, and not one of its arguments or of the code."""
    return isinstance(error, SolverError) or (isinstance(error, ValueError) and NOT_FINITE in str(error))


def row(
    error: Exception,
    checkpoint_path: Path,
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    *,
    part: str,
    device: str,
    **overrides: Any,
) -> Row:
    """Return the row of a training that broke off: its numbers are NaN, its history is that up to its checkpoint.

    Args:
        error: what broke it off.
        checkpoint_path: where the training stored its state, if it came so far.
        experiment, regularizer, seed, profile, part, device, overrides: what `train.train` was given.
    """
    budget, where = experiment.budget(profile, **overrides), devices.ready(device)
    problem, metric = experiment.problem(budget, part, where, seed), experiment.metric
    made_of = key.ingredients(experiment.name, problem, where.type)
    row_key = key.key_of_run(experiment, regularizer, seed, profile, part, budget, made_of)
    state: dict[str, Any] = checkpoint.load(checkpoint_path, row_key) or {"step": 0, "history": []}
    why = f"after step {state['step']} of {budget.steps}, by its checkpoints: {error}"
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
        seconds=dict.fromkeys(("train", "predict"), math.nan),
        history=state["history"],
        made_of=made_of,
        provenance=provenance.record(
            profile, data=[problem.data], seeds=[seed], device=devices.title(where), broke_off=why
        ),
    )
