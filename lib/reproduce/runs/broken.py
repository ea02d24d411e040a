"""Trainings that break off, since the solve cannot be finished or the weights are no numbers any more, as rows.

Such a training is a result: a row without numbers, from which no verdict is read, and no later run asks again.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regnde import SolverError
from reproduce import experiments
from reproduce.runs import checkpoint, provenance
from reproduce.runs import device as devices
from reproduce.runs.store import Row

if TYPE_CHECKING:  # it makes these rows
    from reproduce.runs.run import Run

NOT_FINITE = "NaN or infinite values"
"""In the message of a solve whose initial state is no number: an encoder's, after a step along no number."""


def breaks_off(error: Exception) -> bool:
    """Return whether an error is that of a training that went astray, and not one of its arguments or of the code."""
    return isinstance(error, SolverError) or (isinstance(error, ValueError) and NOT_FINITE in str(error))


def row(run: Run, key: str, path: Path, error: Exception) -> Row:
    """Return the row of a run whose training broke off: its numbers are NaN, its history is that up to its checkpoint.

    Args:
        run: what was trained.
        key: of its row.
        path: where the training stored its state, if it came so far.
        error: what broke it off.
    """
    experiment, budget, where = experiments.get(run.experiment), run.budget(), devices.ready(run.device)
    problem = experiment.problem(budget, run.part, where, run.seed)
    regularizer, metric = run.make_regularizer(), experiment.metric
    state: dict[str, Any] = checkpoint.load(path, key) or {"step": 0, "history": []}
    why = f"after step {state['step']} of {budget.steps}, by its checkpoints: {error}"
    made = provenance.record(
        run.profile, data=[problem.data], seeds=[run.seed], device=devices.title(where), broke_off=why
    )
    return Row(
        key=key,
        experiment=run.experiment,
        regularizer=run.regularizer,
        settings=dict(regularizer.settings) if regularizer else {},
        seed=run.seed,
        profile=run.profile,
        part=run.part,
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
        made_of=run.ingredients(problem.files),
        provenance=made,
    )
