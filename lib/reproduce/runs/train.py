"""The one training loop: train(experiment, regularizer, seed, profile) -> the model and its Row."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from regnde import Regularizer
from reproduce.experiments import Budget, Experiment, Problem
from reproduce.models.solve import Solve, hold_still
from reproduce.runs import checkpoint, key, provenance, source, store, ways
from reproduce.runs import device as devices
from reproduce.runs.evaluation import against_reference, evaluate, generator, nfe_elsewhere, solver
from reproduce.runs.store import Row

CHEAP = 100
"""No curve over tolerances ends before so many evaluations, nor before twice those of the solve in use."""
IMPORTED = time.time()
"""When this process imported the library, as the clock of files."""


@dataclass(frozen=True)
class Trained:
    """A finished run with its model still in memory, for notebooks that look inside."""

    row: Row
    model: nn.Module
    problem: Problem
    solve: Solve
    """The solve without regularizer that predictions use."""


def check_source(experiment: str) -> None:
    """Raise RuntimeError if a module was edited after this process imported it: the row would belie its key."""
    files = [source.LIB / f"{name.replace('.', '/')}.py" for name in source.source_hashes(experiment)]
    edited = [file.name for file in files if file.exists() and file.stat().st_mtime > IMPORTED]
    if edited:
        raise RuntimeError(f"{', '.join(edited)} changed on disk after this process started: restart it (the kernel)")


@contextmanager
def as_always() -> Iterator[None]:
    """Compute as every row is computed, whatever the caller has set: what changes numbers is no part of a key.

    With one thread, since with several sums have other digits, and times mean less; with gradients, in full precision,
    and what names no device on the CPU. The default dtype is left: it is part of the key.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            if torch.get_default_device().type != "cpu":  # only then: it slows every call
                stack.enter_context(torch.device("cpu"))
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


@as_always()
def train(
    experiment: Experiment,
    regularizer: Regularizer | None,
    seed: int,
    profile: str,
    *,
    part: str = "test",
    progress: bool = False,
    checkpoint_path: Path | None = None,
    device: str = "cpu",
    **overrides: Any,
) -> Trained:
    """Train one model and measure it: a function of its arguments alone, on the CPU to the bit.

    With `checkpoint_path`, the state of the run is stored there every `budget.checkpoint_every` steps; a run that finds
    its own checkpoint goes on from it and ends in exactly the numbers of an uninterrupted run.

    Args:
        experiment: data, model, loss and budgets.
        regularizer: what makes the dynamics cheap; None trains the control, whose dynamics are zero.
        seed: of the initialization, the batches, and the regularizer's draws, each with its own generator.
        profile: 'smoke', 'quick' or 'paper': which budget.
        part: measure on 'test', or on 'validation' data held out of the training data.
        progress: show a progress bar.
        checkpoint_path: file of the checkpoint; None keeps none.
        device: where to compute: 'cpu', 'cuda', 'mps', or 'auto' for the best that there is; see `device`.
        overrides: entries of the budget to replace, for example rtol=1e-7, atol=1e-7.

    Returns:
        The trained model beside its row.

    Raises:
        ValueError: for a profile, a part, a device or an override that does not exist, before any training.
    """
    if part not in ("test", "validation"):
        raise ValueError(f"unknown part {part!r}; choose 'test' or 'validation'")
    where = devices.ready(device)
    budget = experiment.budget(profile, **overrides)
    problem = experiment.problem(budget, part, where, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "initialization").initial_seed())
        model = problem.model().to(where)
    check_source(experiment.name)
    made_of = key.ingredients(experiment.name, problem, where.type)
    row_key = key.key_of_run(experiment, regularizer, seed, profile, part, budget, made_of)
    keep = None if checkpoint_path is None else (checkpoint_path, row_key)
    devices.peak(where)
    history, train_seconds = _fit(model, problem, budget, regularizer, seed, progress, keep, metric=experiment.metric)
    solve = hold_still if regularizer is None else solver(budget, noise=generator(seed, "paths of the evaluation"))
    measured = evaluate(model, problem, part, solve, seed=seed, step=budget.steps)
    on_train = evaluate(model, problem, "train", solve, seed=seed, step=budget.steps)
    reference = against_reference(model, problem, part, budget, solve, metric=experiment.metric, seed=seed)
    elsewhere = {} if regularizer is None else nfe_elsewhere(model, problem, part, budget, seed=seed)
    limit = max(CHEAP, 2 * measured.nfe)
    curve = ways.measured(model, problem, part, budget, control=regularizer is None, limit=limit, seed=seed)
    tail = history[-max(1, len(history) // 10) :]
    row = Row(
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
        n_test=measured.n,
        metric=experiment.metric,
        higher_is_better=experiment.higher_is_better,
        metrics={
            "loss": measured.loss,
            experiment.metric: measured.metric,
            "train_loss": on_train.loss,
            f"train_{experiment.metric}": on_train.metric,
            **reference,
            **elsewhere,
        },
        nfe=measured.nfe,
        accepted=measured.accepted,
        rejected=measured.rejected,
        train_nfe=statistics.fmean(entry["nfe"] for entry in tail),
        seconds={"train": train_seconds, "predict": measured.seconds},
        history=history,
        ways=curve,
        made_of=made_of,
        provenance=provenance.record(
            profile,
            data=[problem.data],
            seeds=[seed],
            device=devices.title(where),
            threads=torch.get_num_threads(),
            seconds=train_seconds,
            timer=devices.timer(where),
            **devices.peak(where),
        ),
    )
    return Trained(row=row, model=model, problem=problem, solve=solve)


def restore(experiment: Experiment, row: Row, weights: dict[str, Tensor], device: str = "cpu") -> Trained:
    """Return a finished run from its stored row and weights (see `run.Run.trained`), on any device."""
    budget, where = experiment.budget(row.profile, **row.budget), devices.ready(device)
    problem = experiment.problem(budget, row.part, where, row.seed)
    model = problem.model().to(where)
    model.load_state_dict(weights)
    noise = generator(row.seed, "paths of the evaluation")
    return Trained(row, model, problem, hold_still if row.regularizer == store.CONTROL else solver(budget, noise=noise))


def learning_rate(budget: Budget, step: int) -> float:
    """Return the learning rate of a training step (counted from 0)."""
    if budget.schedule == "cosine":
        return budget.lr_end + (budget.lr - budget.lr_end) * 0.5 * (1 + math.cos(math.pi * step / budget.steps))
    if budget.schedule == "inverse":
        return budget.lr / (1 + budget.lr_decay * step)
    return budget.lr


def _fit(
    model: nn.Module,
    problem: Problem,
    budget: Budget,
    regularizer: Regularizer | None,
    seed: int,
    progress: bool,
    keep: tuple[Path, str] | None,
    *,
    metric: str,
) -> tuple[list[dict[str, float]], float]:
    """Train the model in place; return its history, one entry every `budget.history_every` steps, and seconds.

    Seconds are those of the device's clock (see `device.clock`). An entry holds the loss, the metric (under its name),
    NFE, penalty and weight of one training step on its batch.
    `keep` is the path of the checkpoint and the key of the run; None keeps nothing.
    """
    purposes = {"batches": "batches", "draws": "sampled time", "noise": "noise of the model", "paths": "Brownian paths"}
    rng = {name: generator(seed, purpose) for name, purpose in purposes.items()}
    solve: Solve = hold_still
    if regularizer is not None:
        solve = solver(budget, regularizer, rng["draws"], noise=rng["paths"], training=True)
    parts = [] if regularizer is None else [part for part in regularizer.simple if part.penalty is not None]
    adapted: list[float | None] = [None] * len(parts)  # weights that follow NFE
    decay = {"weight_decay": budget.weight_decay} if budget.optimizer == "AdamW" else {}
    optimizer = getattr(torch.optim, budget.optimizer)(model.parameters(), lr=budget.lr, **decay)
    history: list[dict[str, float]] = []
    order, first, before = torch.empty(0, dtype=torch.int64), 0, 0.0
    if keep is not None and (state := checkpoint.load(*keep)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for name, source in rng.items():
            source.set_state(state["generators"][name])
        order, first, before, history = state["order"], state["step"], state["seconds"], state["history"]
        adapted = state["adapted"]
    model.train()
    clock = devices.clock(problem.device)
    started = clock()
    for step in tqdm(range(first, budget.steps), initial=first, total=budget.steps, disable=not progress, leave=False):
        if len(order) < min(budget.batch, problem.n_train):
            order = torch.randperm(problem.n_train, generator=rng["batches"])
        indices, order = order[: budget.batch], order[budget.batch :]
        batch = problem.train_batch(indices)
        output, solution = model(problem.inputs(batch), solve, rng["noise"])
        loss = problem.loss(output, batch, step)
        weights = [
            part.weight(step / budget.steps) if now is None else now for part, now in zip(parts, adapted, strict=True)
        ]
        terms = [part.penalty(solution, rng["draws"]) for part in parts if part.penalty is not None]
        total = sum((weight * term for weight, term in zip(weights, terms, strict=True)), start=loss)
        if total.requires_grad:  # a control may have nothing to train
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(budget, step)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        adapted = [
            None if part.adapt is None else part.adapt(weight, solution.trace.nfe)
            for part, weight in zip(parts, weights, strict=True)
        ]
        done = step + 1
        if done % budget.history_every == 0 or done == budget.steps:
            with torch.no_grad():
                entry = {"step": done, "loss": loss.item(), metric: problem.metric(output, batch)}
            entry["nfe"] = solution.trace.nfe
            history.append({**entry, "penalty": sum(term.item() for term in terms), "weight": sum(weights)})
        if keep is not None and done % budget.checkpoint_every == 0 and done < budget.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "order": order, "step": done}
            state["adapted"] = adapted
            state |= {"generators": {name: source.get_state() for name, source in rng.items()}, "history": history}
            checkpoint.save(*keep, state | {"seconds": before + clock() - started})
    return history, before + clock() - started
