"""The one training loop: run(experiment, regularizer, seed, profile) -> Row."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from regnde import store
from regnde.experiments import Budget, Experiment, Problem
from regnde.models import Solve, hold_still
from regnde.solve import Regularizer, Solution, solve_ode
from regnde.store import Row

CONTROL = "no_dynamics"
"""Name of the control: the same model with its dynamics set to zero, trained alike."""


@dataclass(frozen=True)
class Trained:
    """A finished run with its model still in memory, for notebooks that look inside."""

    row: Row
    model: nn.Module
    problem: Problem
    solve: Solve
    """The solve without regularizer that predictions use."""


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator of its own for one purpose, so that no purpose disturbs another."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def key(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    part: str,
    budget: Budget,
) -> str:
    """Return the key of the row that `run` makes with these arguments (regularizer None: the control)."""
    return store.key_of(
        {
            "experiment": experiment.name,
            "regularizer": CONTROL if regularizer is None else regularizer.name,
            "settings": {} if regularizer is None else regularizer.settings,
            "seed": seed,
            "profile": profile,
            "part": part,
            "budget": budget.model_dump(exclude={"seeds", "regularizers"}),
            "files": experiment.problem(budget, part).files,
        }
    )


def run(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    *,
    part: str = "test",
    progress: bool = False,
    **overrides: Any,
) -> Row:
    """Train one model and measure it: a function of its arguments alone.

    Args:
        experiment: data, model, loss and budgets.
        regularizer: what makes the dynamics cheap; None trains the control, whose dynamics are zero.
        seed: of the initialization, the batches, and the regularizer's draws, each with its own generator.
        profile: 'smoke', 'quick' or 'paper': which budget.
        part: measure on 'test', or on 'validation' data held out of the training data.
        progress: show a progress bar.
        overrides: entries of the budget to replace, for example rtol=1e-7, atol=1e-7.

    Raises:
        ValueError: for a profile, a part or an override that does not exist, before any training.
    """
    return train(experiment, regularizer, seed, profile, part=part, progress=progress, **overrides).row


def train(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    *,
    part: str = "test",
    progress: bool = False,
    **overrides: Any,
) -> Trained:
    """Do what `run` does, and return the trained model beside the row."""
    if part not in ("test", "validation"):
        raise ValueError(f"unknown part {part!r}; choose 'test' or 'validation'")
    budget = experiment.budget(profile, **overrides)
    problem = experiment.problem(budget, part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "initialization").initial_seed())
        model = problem.model()
    started = time.perf_counter()
    history = _fit(model, problem, budget, regularizer, seed, progress)
    train_seconds = time.perf_counter() - started
    solve = solver(budget) if regularizer is not None else hold_still
    measured = evaluate(model, problem, part, solve)
    on_train = evaluate(model, problem, "train", solve)
    tail = history[-max(1, len(history) // 10) :]
    row = Row(
        key=key(experiment, regularizer, seed, profile, part, budget),
        experiment=experiment.name,
        regularizer=CONTROL if regularizer is None else regularizer.name,
        settings={} if regularizer is None else dict(regularizer.settings),
        seed=seed,
        profile=profile,
        part=part,
        budget=budget.model_dump(mode="json", exclude={"seeds", "regularizers"}),
        data=problem.data,
        note=problem.note,
        n_test=measured.n,
        metric=experiment.metric,
        higher_is_better=experiment.higher_is_better,
        metrics={
            "loss": measured.loss,
            experiment.metric: measured.metric,
            "train_loss": on_train.loss,
            f"train_{experiment.metric}": on_train.metric,
        },
        nfe=measured.nfe,
        accepted=measured.accepted,
        rejected=measured.rejected,
        train_nfe=statistics.fmean(entry["nfe"] for entry in tail),
        seconds={"train": train_seconds, "predict": measured.seconds},
        history=history,
        provenance={"torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads()},
    )
    return Trained(row=row, model=model, problem=problem, solve=solve)


def restore(experiment: Experiment, row: Row, weights: dict[str, Tensor]) -> Trained:
    """Return a finished run from its stored row and weights (see `sweep.Run.trained`)."""
    budget = experiment.budget(row.profile, **row.budget)
    problem = experiment.problem(budget, row.part)
    model = problem.model()
    model.load_state_dict(weights)
    return Trained(row, model, problem, hold_still if row.regularizer == CONTROL else solver(budget))


def solver(
    budget: Budget,
    regularizer: Regularizer | None = None,
    rng: torch.Generator | None = None,
) -> Solve:
    """Return the solve of a budget; a regularizer changes or adds times, and says what to record."""

    def solve(f: nn.Module, y0: Tensor, t: Tensor) -> Solution:
        sampled_t, records = None, frozenset[str]()
        if regularizer is not None:
            assert rng is not None
            t, sampled_t = regularizer.times(t, rng)
            sampled_t, records = (sampled_t if len(sampled_t) else None), regularizer.records
        return solve_ode(
            f,
            y0,
            t,
            rtol=budget.rtol,
            atol=budget.atol,
            method=budget.method,
            controller=budget.controller,
            sampled_t=sampled_t,
            records=records,
        )

    return solve  # type: ignore[return-value]


def _learning_rate(budget: Budget) -> Callable[[int], float]:
    """Return the factor on the learning rate as a function of the step."""
    if budget.schedule == "cosine":
        return lambda step: 0.5 * (1 + math.cos(math.pi * step / budget.steps))
    return lambda step: 1.0


def _fit(
    model: nn.Module,
    problem: Problem,
    budget: Budget,
    regularizer: Regularizer | None,
    seed: int,
    progress: bool,
) -> list[dict[str, float]]:
    """Train the model in place and return its history, one entry every `budget.history_every` steps."""
    batches, draws = generator(seed, "batches"), generator(seed, "sampled time")
    solve = hold_still if regularizer is None else solver(budget, regularizer, draws)
    optimizer = getattr(torch.optim, budget.optimizer)(model.parameters(), lr=budget.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _learning_rate(budget))
    history: list[dict[str, float]] = []
    order = torch.empty(0, dtype=torch.int64)
    for step in tqdm(range(budget.steps), disable=not progress, leave=False):
        if len(order) < min(budget.batch, problem.n_train):
            order = torch.randperm(problem.n_train, generator=batches)
        indices, order = order[: budget.batch], order[budget.batch :]
        batch = problem.train_batch(indices)
        output, solution = model(problem.inputs(batch), solve)
        loss = problem.loss(output, batch)
        penalty, weight = torch.zeros(()), 0.0
        if regularizer is not None and regularizer.penalty is not None:
            penalty = regularizer.penalty(solution, draws)
            weight = regularizer.weight(step / budget.steps)
        total = loss + weight * penalty
        if total.requires_grad:  # a control may have nothing to train
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            schedule.step()
        if (step + 1) % budget.history_every == 0 or step + 1 == budget.steps:
            entry = {"step": step + 1, "loss": loss.item(), "penalty": penalty.item(), "weight": weight}
            history.append({**entry, "nfe": solution.trace.nfe})
    return history


@dataclass(frozen=True)
class Measured:
    """Means over test batches, and the median of the wall seconds of one prediction."""

    loss: float
    metric: float
    nfe: float
    accepted: float
    rejected: float
    n: int
    seconds: float


@torch.no_grad()
def evaluate(model: nn.Module, problem: Problem, part: str, solve: Solve) -> Measured:
    """Measure a model on all batches of a part; means weigh each batch by its size."""
    sizes, seconds, columns = [], [], []
    for batch in problem.test_batches(part):
        inputs = problem.inputs(batch)
        started = time.perf_counter()
        output, solution = model(inputs, solve)
        seconds.append(time.perf_counter() - started)
        sizes.append(len(batch[-1]))
        trace = solution.trace
        loss, metric = problem.loss(output, batch).item(), problem.metric(output, batch)
        columns.append((loss, metric, trace.nfe, trace.accepted, trace.rejected))
    n = sum(sizes)
    loss, metric, nfe, accepted, rejected = (
        math.fsum(size * value for size, value in zip(sizes, column, strict=True)) / n
        for column in zip(*columns, strict=True)
    )
    return Measured(loss, metric, nfe, accepted, rejected, n=n, seconds=statistics.median(seconds))
